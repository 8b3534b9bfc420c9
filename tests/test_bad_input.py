"""Numbers, names and drifts that are refused, on all ranks, before anything hangs."""

import os

import numpy as np
import pytest
from problems import LAST, WORLD, bump, cube, equation, minimize, raised, solve, tracking

import fpcontrol as fpc


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: equation(sigma=-1.0), "sigma = -1.0"),
        (lambda: equation(sigma=0.0), "sigma = 0.0"),
        (lambda: equation(sigma=0), "sigma = 0 "),
        (lambda: equation(sigma=np.nan), "sigma = nan"),
        (lambda: equation(sigma=np.inf), "sigma = inf"),
        (lambda: equation(sigma="1"), "sigma = '1'"),
        (lambda: tracking(sigma=-1.0), "sigma = -1.0"),
        (lambda: equation(degree=0), "degree = 0"),
        (lambda: equation(degree=4), "degree = 4"),
        (lambda: equation(quadrature_degree=-1), "quadrature_degree = -1 must be a whole number"),
        (lambda: equation(quadrature_degree=2.5), "quadrature_degree = 2.5"),
        (lambda: equation(quadrature_degree=99), "from 1 to 30"),
        (lambda: equation(discretization="upwind"), "discretization = 'upwind' is none"),
        (lambda: equation(drift=3.0), "drift = 3.0 is not callable"),
        (lambda: solve(steps=0), "steps = 0"),
        (lambda: solve(steps=-3), "steps = -3"),
        (lambda: solve(steps=2.0), "steps = 2.0"),
        (lambda: solve(t1=0.0), "t1 = 0.0"),
        (lambda: solve(t1=np.nan), "t1 = nan"),
        (lambda: solve(t0=2.0), "later than t0 = 2.0"),
        (lambda: tracking(steps=0), "steps = 0"),
        (lambda: tracking(steps=4.0), "steps = 4.0"),
        (lambda: tracking(steps=5), "steps = 5 is not a multiple of pieces = 2"),
        (lambda: tracking(pieces=0), "pieces = 0"),
        (lambda: tracking(width=1.5), "width = 1.5"),
        (lambda: tracking(activation="swish"), "activation = 'swish'"),
        (lambda: tracking(linear_solver="jacobi"), "linear_solver = 'jacobi'"),
        (lambda: equation(linear_solver="jacobi"), "linear_solver = 'jacobi'"),
        (lambda: tracking(running_weight=-1.0), "running_weight = -1.0"),
        (lambda: tracking(terminal_weight=np.nan), "terminal_weight = nan"),
        (lambda: tracking(decay=-0.1), "decay = -0.1"),
        (lambda: tracking(snapshots=0), "snapshots = 0"),
        (lambda: tracking(memory=-1.0), "memory = -1.0"),
        (lambda: tracking(memory="2"), "memory = '2'"),
        (lambda: tracking(disk=3), "disk = 3 must be the path"),
        (
            lambda: tracking(memory=1e-12),
            "memory = 1e-12 GiB per rank does not hold an operator and one snapshot",
        ),
        (lambda: tracking(disk="no/such/place"), "disk = 'no/such/place'"),
        (lambda: tracking(disk=__file__), "is no directory"),
        (lambda: tracking(t1=-1.0), "t1 = -1.0"),
        (lambda: solve(scheme=fpc.SDIRK4), "scheme = SDIRK4 is no scheme"),
        (lambda: solve(scheme="cn"), "scheme = 'cn' is no scheme"),
        (lambda: tracking(scheme=fpc.SDIRK4), "scheme = SDIRK4 is no scheme"),
        (lambda: tracking(scheme="cn"), "scheme = 'cn' is no scheme"),
        (lambda: minimize(gradient_tolerance=np.nan), "gradient_tolerance = nan"),
        (lambda: minimize(gradient_tolerance=-1.0), "gradient_tolerance = -1.0"),
        (lambda: minimize(target_error=np.nan), "target_error = nan"),
        (lambda: minimize(target_error=-0.1), "target_error = -0.1"),
        (lambda: minimize(method="newton"), "method = 'newton'"),
        (lambda: minimize(max_iterations=0), "max_iterations = 0"),
        (lambda: minimize(max_evaluations=2.5), "max_evaluations = 2.5"),
        (lambda: minimize(checkpoint_every=0), "checkpoint_every = 0"),
    ],
)
def test_bad_arguments_are_named_with_their_values(call, message):
    assert message in raised(ValueError, call)


def test_number_of_steps_that_would_do_is_suggested():
    with pytest.raises(ValueError, match="try 6"):
        tracking(steps=7, pieces=3)


def wrong_shape(t, x):
    return x[:, :1]


def transposed(t, x):
    return np.zeros_like(x).T


def not_finite(t, x):
    return np.where(x > 0.0, np.nan, x)


def complex_values(t, x):
    return x + 1j


def text(t, x):
    return np.full(x.shape, "fast")


def good(t, x):
    return np.zeros_like(x)


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("everywhere", [True, False], ids=["all ranks", "one rank"])
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (wrong_shape, "are needed"),
        (transposed, "are needed"),
        (not_finite, "is not finite at t = "),
        (complex_values, "complex128 values"),
        (text, "are needed"),
        (lambda t, x: None, "are needed"),
    ],
)
def test_bad_drifts_are_refused(bad, everywhere, message):
    assert message in raised(ValueError, lambda: solve(bad if everywhere or LAST else good))


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("everywhere", [True, False], ids=["all ranks", "one rank"])
def test_error_of_the_drift_itself_comes_out(everywhere):
    def lost(t, x):
        if everywhere or LAST:
            raise LookupError("no wind at sea")
        return np.zeros_like(x)

    assert raised(LookupError, lambda: solve(lost)) == "no wind at sea"


class Unpicklable(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


@pytest.mark.parallel([2, 3])
def test_errors_that_do_not_travel_are_told():
    class Local(Exception):
        pass

    for error, said in ((Unpicklable(1, 2), "1 and 2"), (Local("here"), "here")):

        def bad(t, x, error=error):
            if LAST:
                raise error
            return np.zeros_like(x)

        caught = None
        try:
            solve(bad)
        except Exception as e:
            caught = f"{type(e).__name__}: {e}"
        name = f"{type(error).__name__}: {said}"
        assert WORLD.allgather(caught) == [f"RuntimeError: {name}"] * (WORLD.size - 1) + [name]


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("make", [equation, tracking], ids=["forward", "control"])
def test_schedule_that_fails_on_one_rank_fails_on_all(make):
    def sigma(t):
        return -1.0 if LAST and t > 0.5 else 1.0

    def call():
        made = make(sigma=sigma)
        if make is equation:
            made.solve(bump(made.mesh, 1, 0.3), 1.0, 4)

    assert "sigma = -1.0 at t = " in raised(ValueError, call)


@pytest.mark.parallel([2, 3])
def test_ranks_must_ask_for_the_same_storage():
    assert "must be the same on all ranks" in raised(
        ValueError, lambda: tracking(snapshots=2 + WORLD.rank)
    )
    p = tracking(n=6)
    storage = p.runs.storage
    level = storage.level_memory
    other = storage.work_memory + storage.operator_memory / storage.operators
    lean = tracking(n=6, memory=(0.9 if LAST else 2.0) * level + other)
    storage = lean.runs.storage
    assert WORLD.allgather(storage.levels) == ["recomputed"] * WORLD.size
    assert WORLD.allgather(storage.snapshots) == [storage.snapshots] * WORLD.size
    expected = p.derivative(p.drift.weights)
    assert lean.derivative(p.drift.weights) == pytest.approx(expected, rel=1e-11, abs=1e-13)


@pytest.mark.parallel([1, 2])
def test_full_disk_on_one_rank_is_an_error_on_all(tmp_path, monkeypatch):
    p = tracking(n=6)
    lean = tracking(n=6, memory=0.7 * p.runs.storage.level_memory, disk=tmp_path)

    allocate = os.posix_fallocate

    def full(*arguments):
        if LAST:
            raise OSError("No space left on device")
        allocate(*arguments)

    monkeypatch.setattr("os.posix_fallocate", full)
    assert "No space left" in raised(OSError, lambda: lean.derivative(p.drift.weights))


@pytest.mark.parallel([1, 2])
def test_steps_must_not_straddle_a_switch():
    mesh = cube(WORLD, 2, 4)
    drift = fpc.NetworkDrift(mesh, width=2, pieces=10, t1=2.0)
    e = fpc.FokkerPlanck(mesh, drift, 0.5, degree=1)
    rho = bump(mesh, 1, 0.3)

    def message(t0: float, t1: float, steps: int, **options) -> str:
        return raised(ValueError, lambda: e.solve(rho, t1, steps, t0=t0, **options))

    text = message(0.0, 2.0, 28)
    assert "steps = 28: the drift switches at t = 0.2, inside a step" in text
    assert "take a multiple of 10, such as 30" in text
    assert "such as 10." in message(0.0, 2.0, 3, tolerance=1e-3)
    assert "take a multiple of 5, such as 5" in message(1.0, 2.0, 4)
    assert "choose t0 and t1 at switches" in message(0.0, np.pi / 2.0, 10)
    assert len(e.solve(rho, 1.0, 5)) == 6
    assert len(e.solve(rho, 0.35, 1, t0=0.25)) == 2
    assert len(e.solve(rho, 0.5, 5)) == 6  # every other level is at a switch


@pytest.mark.parallel([2])
def test_drift_may_turn_bad_late():
    assert "t = 0.75" in raised(
        ValueError, lambda: solve(lambda t, x: np.full_like(x, np.nan if t > 0.5 and LAST else 0.0))
    )
