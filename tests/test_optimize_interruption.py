"""The optimization when it is interrupted, or when its evaluation fails for good."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from problems import PROGRAM, SELF, WORLD, mpirun, quiet, raised, tracking

TESTS = Path(__file__).parent


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize(("kind", "call"), [(LookupError, 4), (ArithmeticError, 1)])
def test_error_inside_an_evaluation_comes_out_as_it_was(kind, call, tmp_path, monkeypatch):
    problem, path = tracking(), tmp_path / "run.npz"
    evaluate, calls, values = problem.value_and_derivative, [], []

    def failing(weights):
        calls.append(1)
        if len(calls) == call:
            raise kind("no more")
        values.append(evaluate(weights))
        return values[-1]

    monkeypatch.setattr(problem, "value_and_derivative", failing)
    message = raised(kind, lambda: quiet(problem, checkpoint=path))
    assert str(kind("no more")) == message
    assert path.exists() == (call > 1)
    if call > 1:  # what had been found is there
        resumed = quiet(tracking(), max_iterations=1, resume=path)
        assert resumed.history[0].value == values[0][0]
        assert resumed.value < min(value for value, _ in values)


@pytest.mark.parallel([1, 2])
def test_error_of_the_checkpoint_comes_out_as_it_was(tmp_path, monkeypatch):
    from fpcontrol.control import run

    def full(*args):
        raise OSError("disk full")

    monkeypatch.setattr(run, "write_checkpoint", full)
    options = {"checkpoint": tmp_path / "run.npz", "checkpoint_every": 1}
    assert raised(OSError, lambda: quiet(tracking(), **options)) == "disk full"


@pytest.mark.parallel([1, 2, 3])
def test_interrupt_on_one_rank_ends_the_run_on_all(tmp_path, monkeypatch):
    problem, path = tracking(), tmp_path / "run.npz"
    evaluate, calls = problem.value_and_derivative, []

    def interrupted(weights):
        calls.append(1)
        if len(calls) == 5 and WORLD.rank == WORLD.size - 1:
            os.kill(os.getpid(), signal.SIGINT)
        return evaluate(weights)

    handler = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(problem, "value_and_derivative", interrupted)
    result = quiet(problem, max_iterations=100, checkpoint=path)
    assert (result.reason, result.evaluations, len(calls)) == ("interrupted", 5, 5)
    assert problem(result.weights) == result.value < result.history[0].value
    assert signal.getsignal(signal.SIGINT) is handler
    resumed = quiet(tracking(), max_iterations=1, resume=path)
    assert resumed.value <= result.value


SCRIPT = """
import os, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from problems import WORLD, tracking
import fpcontrol as fpc

folder = Path({folder!r})
(folder / f"pid{{WORLD.rank}}").write_text(str(os.getpid()))
problem = tracking(n=6, steps=20)
result = fpc.minimize(
    problem, max_iterations=10**6, gradient_tolerance=0.0, checkpoint=folder / "run.npz",
    checkpoint_every=1, progress=False,
)
text = f"{{result.reason}} {{result.value.hex()}} {{result.value < result.history[0].value}}"
(folder / f"end{{WORLD.rank}}").write_text(text)
"""
FAILING = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from problems import WORLD, tracking
import fpcontrol as fpc
from fpcontrol.control import optimize, run

optimize.PATIENCE = 3.0
problem = tracking()
evaluate, calls, write = problem.value_and_derivative, [], run.write_checkpoint

def failing(weights):
    calls.append(1)
    if len(calls) == 4 and WORLD.rank in {ranks!r}:
        raise LookupError("no more")
    return evaluate(weights)

def slow(*args):
    time.sleep(0.5)
    write(*args)

problem.value_and_derivative, run.write_checkpoint = failing, slow
fpc.minimize(problem, checkpoint=Path({folder!r}) / "run.npz", progress=False)
"""


@pytest.mark.parametrize("ranks", [[0], [1], [0, 1]], ids=str)
def test_failing_program_ends_on_all_ranks_and_rank_0_saves(ranks, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(FAILING.format(tests=str(TESTS), folder=str(tmp_path), ranks=ranks))
    assert subprocess.run(mpirun(script), timeout=PROGRAM).returncode != 0
    assert (tmp_path / "run.npz").exists() == (0 in ranks)


@pytest.mark.parametrize("whom", ["one rank", "all ranks"])
def test_interrupted_program_ends_well_on_all_ranks(whom, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(tests=str(TESTS), folder=str(tmp_path)))
    with subprocess.Popen(mpirun(script)) as program:
        try:
            deadline = time.monotonic() + PROGRAM
            while not (tmp_path / "run.npz").exists() and time.monotonic() < deadline:
                time.sleep(0.05)
            pids = [int((tmp_path / f"pid{r}").read_text()) for r in range(2)]
            for pid in pids[1:] if whom == "one rank" else pids:
                os.kill(pid, signal.SIGINT)
            assert program.wait(PROGRAM) == 0
        finally:
            program.kill()
    ends = [(tmp_path / f"end{r}").read_text() for r in range(2)]
    assert ends[0] == ends[1]
    assert ends[0].startswith("interrupted ")
    assert ends[0].endswith(" True")
    problem = tracking(SELF, n=6, steps=20)
    value = float.fromhex(ends[0].split()[1])
    resumed = quiet(problem, max_iterations=1, resume=tmp_path / "run.npz")
    assert resumed.value <= value * (1.0 + 1e-9)
