"""Jumps in a drift along characteristics, and flows as plain data."""

import subprocess
import time
import warnings

import numpy as np
import pytest
from problems import PROGRAM, WORLD, cube, mpirun, raised

import fpcontrol as fpc
from fpcontrol.characteristics.flow import Markers, carry
from fpcontrol.discretization.elements import lagrange
from fpcontrol.drift import Drift

RANKS = pytest.mark.parallel([1, 2, 3])


def ones(x: np.ndarray) -> np.ndarray:
    return np.ones(len(x))


# -- jumps -----------------------------------------------------------------------------------------


def converging(t: float, x: np.ndarray) -> np.ndarray:
    """Towards the middle from both sides, where it jumps."""
    return np.where(x > 0.5, -1.0, 1.0) * np.sin(np.pi * x)


def late(t: float, x: np.ndarray) -> np.ndarray:
    """Smooth up to t = 0.5, then as ``converging`` in the first coordinate."""
    v = np.zeros_like(x)
    v[:, 0] = (t > 0.5) * converging(t, x[:, :1])[:, 0]
    return v


def flicker(t: float, x: np.ndarray) -> np.ndarray:
    """Jumps in time 100 000 times."""
    return np.sign(np.sin(1e5 * np.pi * t + 1.0)) * np.sin(np.pi * x)


@RANKS
def test_a_drift_that_jumps_in_space_is_an_error_with_time_and_place():
    markers = Markers.on_interval(WORLD, 8, ones)
    message = raised(RuntimeError, lambda: carry(markers, converging, [0.0, 1.0]))
    assert "The error is largest at x = [0.5]" in message or "x = [0.4" in message
    assert "to t = " in message and "max_steps = 100000 do not reach t = 1" in message
    assert "switches" in message and "raise max_steps" in message


@pytest.mark.parallel([1, 2])
def test_the_error_says_when_a_drift_begins_to_jump():
    markers = Markers.on_mesh(fpc.density.uniform(cube(WORLD, 2, 3), 1))
    message = raised(RuntimeError, lambda: carry(markers, late, [0.0, 1.0]))
    said = float(message.split("to t = ")[1].split(";")[0])
    assert 0.5 <= said < 1.0
    place = message.split("x = [")[1].split("]")[0].split()
    assert float(place[0]) == pytest.approx(0.5, abs=0.01)


def test_a_drift_that_jumps_very_often_in_time_is_an_error():
    markers = Markers.on_interval(WORLD, 2, ones)
    assert "near this time" in raised(RuntimeError, lambda: carry(markers, flicker, [0.0, 1.0]))


@RANKS
def test_max_steps_bounds_accepted_and_rejected_steps():
    markers, wave = Markers.on_interval(WORLD, 4, ones), lambda t, x: np.sin(np.pi * x)
    needed = carry(markers, wave, [0.0, 1.0]).steps
    assert carry(markers, wave, [0.0, 1.0], max_steps=2 * needed).steps == needed
    message = raised(RuntimeError, lambda: carry(markers, wave, [0.0, 1.0], max_steps=needed - 1))
    assert f"max_steps = {needed - 1}" in message
    for bad in (0, -3, 2.5):
        text = raised(ValueError, lambda bad=bad: carry(markers, wave, [0.0, 1.0], max_steps=bad))
        assert f"max_steps = {bad}" in text


class Declared(Drift):
    """Towards the middle at speeds that jump at 0.3 and 0.6, which it says."""

    switches = np.array([0.3, 0.6])

    def __call__(self, t: float, x: np.ndarray) -> np.ndarray:
        return -(1.0 + 3.0 * (t > 0.3) - 2.0 * (t > 0.6)) * (x - 0.5)


class Tagged:
    """A callable that has ``switches`` and is no ``Drift``."""

    switches = (0.3, 0.6)

    def __call__(self, t: float, x: np.ndarray) -> np.ndarray:
        return Declared()(t, x)


class Pieces:
    """Constant in time where ``piece`` is, without a word on where that changes."""

    def piece(self, t: float) -> int:
        return int(t > 0.3) + int(t > 0.6)

    def __call__(self, t: float, x: np.ndarray) -> np.ndarray:
        return Declared()(t, x)


@RANKS
def test_no_step_passes_over_a_switch_that_the_drift_declares():
    markers = Markers.on_interval(WORLD, 3, ones)
    drift = Declared()
    exact = 0.5 + (markers.points - 0.5) * np.exp(-(0.3 + 4.0 * 0.3 + 2.0 * 0.4))
    given = carry(markers, lambda t, x: drift(t, x), [0.0, 1.0], switches=[0.3, 0.6])
    for own in (drift, Tagged(), 0.5 * drift + 0.5 * drift, drift.reversed_in_time(1.0)):
        flow = carry(markers, own, [0.0, 1.0])
        assert flow.positions[-1] == pytest.approx(exact, abs=1e-10)
        assert flow.steps <= given.steps + 2
    straddling = carry(markers, lambda t, x: drift(t, x), [0.0, 1.0])
    assert straddling.steps > given.steps + 2
    # A key of pieces alone does not hide a jump.
    assert carry(markers, Pieces(), [0.0, 1.0]).positions[-1] == pytest.approx(exact, abs=1e-7)


def test_progress_is_shown_in_a_log(capsys):
    carry(Markers.on_interval(WORLD, 4, ones), lambda t, x: 0.0 * x, [0.0, 1.0], progress=True)
    assert "characteristics" in capsys.readouterr().err


# -- plain data ------------------------------------------------------------------------------------

ALONE = """
from mpi4py import MPI
import numpy as np
import fpcontrol as fpc
comm = MPI.COMM_WORLD
markers = fpc.characteristics.Markers.on_interval(comm, 9, lambda x: np.ones(len(x)))
flow = fpc.characteristics.carry(markers, lambda t, x: np.sin(np.pi * x), [0.0, 1.0])
if comm.rank == comm.size - 1:
    print(flow, flow.mass, flow.norms, flow.minimum, flow.mass_defect, flow.steps)
    print(markers, markers.box, markers.size, markers.count)
comm.barrier()
"""


@pytest.mark.slow
def test_one_rank_alone_may_print_a_flow(tmp_path):
    script = tmp_path / "alone.py"
    script.write_text(ALONE)
    done = subprocess.run(mpirun(script), capture_output=True, text=True, timeout=PROGRAM)
    assert done.returncode == 0, done.stderr
    assert "45 markers" in done.stdout


@RANKS
def test_facts_of_a_flow_do_not_communicate():
    # Each rank asks at its own time, and only some of them: a collective call would wait for ever.
    markers = Markers.on_interval(WORLD, 9, ones)
    flow = carry(markers, lambda t, x: np.sin(np.pi * x), [0.0, 1.0])
    time.sleep(0.01 * WORLD.rank)
    said = ""
    if WORLD.rank == WORLD.size - 1:
        said = repr(flow)
        assert np.shape(flow.mass) == np.shape(flow.norms) == np.shape(flow.minimum) == (2,)
        assert markers.size == 1.0 and markers.count == 45
    assert len(said) < 120 and "\n" not in said
    assert "45 " in WORLD.bcast(said, root=WORLD.size - 1)
    assert "45 from (0) to (1)" in repr(markers)


# -- on a mesh -------------------------------------------------------------------------------------


@RANKS
@pytest.mark.parametrize("dim", [1, 2])
def test_levels_on_a_mesh_have_the_flows_mass(dim):
    mesh = cube(WORLD, dim, [40, 12][dim - 1])
    start = fpc.density.interpolate(mesh, lambda x: 1.0 + 0.5 * np.cos(np.pi * x[0]), 1)
    flow = carry(Markers.on_mesh(start, 6), lambda t, x: 0.3 * np.sin(np.pi * x), [0.0, 0.5, 1.0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = flow.on_mesh(lagrange(mesh, 1))
    assert found.mass == pytest.approx(flow.mass, rel=1e-12)
    assert fpc.distances.wasserstein(found[0], found[2]) > 0.1
    assert fpc.distances.h_minus_1(found[0], found[2]) > 0.01


@pytest.mark.parallel([1, 2])
def test_levels_that_the_labels_do_not_resolve_are_told():
    mesh = cube(WORLD, 1, 20)
    flow = carry(Markers.on_interval(WORLD, 4, ones), lambda t, x: -4.0 * (x - 0.5), [0.0, 1.0])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = flow.on_mesh(lagrange(mesh, 1))
    assert found.mass == pytest.approx([1.0, 1.0], rel=1e-12)
    if WORLD.rank == 0:
        (told,) = [w for w in caught if "was scaled by" in str(w.message)]
        assert "t = 1 has mass" in str(told.message)


# -- names -----------------------------------------------------------------------------------------


@pytest.mark.parallel([1, 2])
def test_former_names_still_work_and_say_so():
    with pytest.warns(DeprecationWarning, match="is called Markers now"):
        markers = fpc.characteristics.Labels.on_interval(WORLD, 4, ones)
    flow = carry(markers, lambda t, x: 0.0 * x, [0.0, 1.0])
    with pytest.warns(DeprecationWarning, match="is called markers now"):
        assert flow.labels is markers
    mesh = cube(WORLD, 1, 4)
    reference = fpc.MoserFlow(*2 * [fpc.density.uniform(mesh)], 1.0, 0.0)
    drift = fpc.NetworkDrift(mesh, 2, 1, seed=1)
    with pytest.warns(DeprecationWarning, match="label_mesh is called marker_mesh now"):
        problem = fpc.TrackingProblem(reference, drift, 0.0, 4, label_mesh=cube(WORLD, 1, 8))
    assert problem.runs.markers.count > flow.markers.count
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = fpc.characteristics.Nothing
