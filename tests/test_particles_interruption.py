"""Particles at Ctrl-C, or when one rank fails: all ranks end at once, nothing is lost."""

import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from problems import LAST, PROGRAM, WORLD, cube, mpirun, raised

import fpcontrol as fpc
from fpcontrol import particles
from fpcontrol.particles import simulation

STEPS = 12


class Bell:
    """A drift that does something on the last rank when it is asked at a time or later."""

    def __init__(self, t: float, action) -> None:
        self.t, self.action, self.asked = t, action, 0

    def __call__(self, t, x):
        self.asked += 1
        if t > self.t and LAST:
            self.t = np.inf
            self.action()
        return 0.5 - x


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def run(drift, points, t1=1.0, steps=STEPS, **options) -> particles.Swarm:
    options = {"sigma": 0.4, "seed": 3, "absorbing": lambda x: x[0] < 1e-9} | options
    return particles.simulate(MESH, drift, points, t1=t1, steps=steps, **options)


MESH = cube(WORLD, 2, 4)


@pytest.mark.parallel([1, 2, 3])
@pytest.mark.parametrize("save", ["last", 4])
def test_interrupt_on_one_rank_ends_the_run_on_all_and_it_goes_on(save, monkeypatch):
    monkeypatch.setattr(simulation, "LOOK", 0.0)  # after every step
    points = particles.draw(fpc.density.uniform(MESH), 9000, seed=1)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt) as stopped:
        run(Bell(0.5, interrupt), points, save=save)  # in the seventh step
    assert isinstance(stopped.value, particles.SimulationInterrupt)
    assert "t = 0.583333, after 7 of 12 steps" in str(stopped.value)
    assert signal.getsignal(signal.SIGINT) is handler
    swarm = stopped.value.swarm
    assert swarm.steps == 7
    kept = [7] if save == "last" else [0, 4, 7]
    np.testing.assert_allclose(swarm.times, np.array(kept) / STEPS)
    assert len(swarm) == len(kept) and swarm.total == 9000
    whole = run(lambda t, x: 0.5 - x, points)
    rest = run(lambda t, x: 0.5 - x, swarm.points, t0=swarm.times[-1], steps=5, step0=swarm.steps)
    np.testing.assert_allclose(rest.points, whole.points, rtol=0.0, atol=1e-12)
    left = WORLD.allreduce(len(swarm.exits) + len(rest.exits))
    assert left == WORLD.allreduce(len(whole.exits)) > 100
    assert swarm.alive.sum() + len(swarm.exits) == len(points)


@pytest.mark.parallel([1, 2])
def test_interrupt_in_the_last_step_is_not_lost(monkeypatch):
    points = particles.draw(fpc.density.uniform(MESH), 100, seed=1)
    with pytest.raises(particles.SimulationInterrupt) as stopped:
        run(Bell(0.93, interrupt), points)
    assert "t = 1, after 12 of 12 steps" in str(stopped.value)
    whole = run(lambda t, x: 0.5 - x, points)
    np.testing.assert_array_equal(stopped.value.swarm.points, whole.points)


@pytest.mark.parallel([2, 3])
def test_error_of_one_rank_ends_all_long_before_the_last_step(monkeypatch):
    monkeypatch.setattr(simulation, "LOOK", 0.0)

    def fail() -> None:
        raise LookupError("no wind")

    drift = Bell(0.1, fail)
    points = particles.draw(fpc.density.uniform(MESH), 100, seed=1)
    assert "no wind" in raised(LookupError, lambda: run(drift, points))
    assert drift.asked <= 3


@pytest.mark.parallel([1, 2])
def test_member_of_an_ensemble_ends_early(monkeypatch):
    monkeypatch.setattr(simulation, "LOOK", 0.0)

    def member(case, comm):
        mesh = fpc.mesh.interval(comm, 4)
        points = particles.draw(fpc.density.uniform(mesh), 10, seed=case)
        return particles.simulate(mesh, Bell(0.5, interrupt), points, 0.4, 1.0, STEPS).steps

    with pytest.raises(fpc.ensemble.EnsembleInterrupt) as stopped:
        fpc.ensemble.run(member, range(4), groups=1, progress=False)
    first, *others = stopped.value.results
    assert "SimulationInterrupt: particles have come to t = 0.583333" in str(first)
    assert others == [None] * 3


SCRIPT = """
import os
from pathlib import Path
from mpi4py import MPI
import fpcontrol as fpc
from fpcontrol.parallel.launch import launch

folder, comm = Path({folder!r}), MPI.COMM_WORLD
(folder / f"pid{{comm.rank}}").write_text(str(os.getpid()))

def drift(t, x):
    (folder / f"began{{comm.rank}}").touch()
    return 0.5 - x

def main():
    mesh = fpc.mesh.interval(comm, 8)
    points = fpc.particles.draw(fpc.density.uniform(mesh), 9000)
    fpc.particles.simulate(mesh, drift, points, 0.4, 1.0, 10**6)

launch(main)
"""


@pytest.mark.parametrize(("ranks", "whom"), [(1, [0]), (2, [0, 1]), (2, [1])], ids=str)
def test_program_says_how_far_it_has_come_and_ends(ranks, whom, tmp_path: Path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(folder=str(tmp_path)))
    began = [tmp_path / f"began{rank}" for rank in whom]
    with (
        open(tmp_path / "said", "wb") as said,
        subprocess.Popen(mpirun(script, ranks), stderr=said) as program,
    ):
        try:
            deadline = time.monotonic() + PROGRAM
            while not all(f.exists() for f in began) and time.monotonic() < deadline:
                time.sleep(0.05)
            for rank in whom:
                os.kill(int((tmp_path / f"pid{rank}").read_text()), signal.SIGINT)
            assert program.wait(PROGRAM) == 130
        finally:
            program.kill()
    text = (tmp_path / "said").read_text()
    assert text.count("stopped by Ctrl-C: particles have come to t = ") == 1
    assert "of 1000000 steps" in text and "Traceback" not in text
