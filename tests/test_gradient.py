"""The derivative of J is that of the very scheme that ran, and J is a function of the weights."""

from typing import Any

import numpy as np
import pytest
from problems import SELF, WORLD, tracking

import fpcontrol as fpc
from fpcontrol.verification import difference_test, dot_test, taylor_test

# Every value of every option, most pairs of values, by name of what is special about the case.
GMRES: dict[str, dict[str, Any]] = {
    "interval": {"dim": 1, "degree": 2, "n": 6, "sigma": 0.3, "width": 2, "terminal_weight": 1.0},
    "interval-euler": {"dim": 1, "degree": 1, "n": 8, "scheme": fpc.BackwardEuler(), "decay": 0.1},
    "interval-1-snapshot": {
        "dim": 1,
        "degree": 3,
        "n": 6,
        "sigma": 0.3,
        "width": 2,
        "activation": "softplus",
        "snapshots": 1,
    },
    "square-sigmoid": {"dim": 2, "degree": 1, "activation": "sigmoid", "snapshots": 2},
    "square-4-a-piece": {"dim": 2, "degree": 2, "n": 3, "pieces": 1, "own_start": True, "width": 4},
    "square-1-a-piece": {"dim": 2, "degree": 2, "n": 3, "pieces": 4},
    "square-little-noise": {"dim": 2, "degree": 1, "n": 6, "sigma": 0.2},
    "square-kilometres": {"dim": 2, "degree": 1, "size": 500.0, "t1": 3.0, "sigma": 0.5},
    "square-euler": {
        "dim": 2,
        "degree": 2,
        "n": 3,
        "activation": "sin",
        "scheme": fpc.BackwardEuler(),
        "terminal_weight": 0.5,
    },
    "cube-euler": {
        "dim": 3,
        "degree": 1,
        "n": 2,
        "activation": "softplus",
        "scheme": fpc.BackwardEuler(),
        "snapshots": 3,
    },
    "square-schedule": {"dim": 2, "degree": 1, "sigma": lambda t: 1.0 - 0.6 * t, "snapshots": 2},
    "square-sdirk2": {"dim": 2, "degree": 1, "scheme": fpc.SDIRK2(), "terminal_weight": 0.5},
    "cube-terminal": {
        "dim": 3,
        "degree": 3,
        "n": 1,
        "decay": 0.1,
        "running_weight": 0.0,
        "terminal_weight": 1.0,
    },
}
DIRECT: dict[str, dict[str, Any]] = {
    "interval": {
        "dim": 1,
        "degree": 2,
        "n": 6,
        "sigma": 0.3,
        "width": 2,
        "activation": "sin",
        "scheme": fpc.BackwardEuler(),
    },
    "square": {
        "dim": 2,
        "degree": 3,
        "n": 2,
        "terminal_weight": 0.5,
        "decay": 0.01,
        "snapshots": 2,
    },
    "cube": {"dim": 3, "degree": 2, "n": 2, "activation": "sin", "snapshots": 3},
    "interval-sdirk4": {"dim": 1, "degree": 2, "n": 4, "scheme": fpc.SDIRK4(), "sigma": 0.3},
    "square-sdirk4": {"dim": 2, "degree": 2, "n": 3, "scheme": fpc.SDIRK4(), "snapshots": 1},
}
RELU: dict[str, dict[str, Any]] = {
    "interval-sdirk4": {"dim": 1, "degree": 2, "n": 6, "scheme": fpc.SDIRK4()},
    "interval": {"dim": 1, "degree": 3, "n": 6, "pieces": 1},
    "square": {"dim": 2, "degree": 2, "n": 3, "scheme": fpc.BackwardEuler()},
    "cube": {"dim": 3, "degree": 1, "n": 2, "snapshots": 2},
}


def cases(options: dict[str, dict[str, Any]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", options.values(), ids=options)


def posed(case: dict[str, Any], linear_solver: str) -> tuple[fpc.TrackingProblem, np.ndarray]:
    """A problem and weights at which the density neither stays put nor piles up in a corner."""
    problem = tracking(linear_solver=linear_solver, **case)
    return problem, problem.drift.weights


def check_taylor(problem: fpc.TrackingProblem, weights: np.ndarray) -> None:
    test = taylor_test(problem, weights)
    assert len(test.orders) >= 4
    # Orders near 2 alone are weak; with remainders this small, J' is right to six digits.
    assert test.relative_remainder < 1e-6
    # The weights of SDIRK4, up to 12, multiply the round-off that the smallest remainders feel.
    noisy = isinstance(problem.runs.scheme, fpc.SDIRK4)
    assert test.orders == pytest.approx(2.0, abs=0.05 if noisy else 0.01)


@pytest.mark.parallel([1, 2])
@cases(GMRES)
def test_taylor_remainders_are_of_second_order(case):
    check_taylor(*posed(case, "gmres"))


# Three ranks take turns on two cores: cases with every dimension, degree and way of recomputing.
@pytest.mark.parallel(3)
@pytest.mark.parametrize(
    "name", ["interval-1-snapshot", "square-sigmoid", "square-euler", "cube-euler"]
)
def test_derivative_is_right_on_three_ranks(name):
    problem, weights = posed(GMRES[name], "gmres")
    check_taylor(problem, weights)
    assert dot_test(problem, weights) < 1e-11


@pytest.mark.parallel([1, 2])
@cases(DIRECT)
def test_taylor_remainders_are_of_second_order_with_direct_solver(case):
    check_taylor(*posed(case, "direct"))


@pytest.mark.parallel([1, 2])
@cases(GMRES)
def test_derivative_is_the_central_difference(case):
    # Measured 1e-11 at most: of fourth order in a step of 2e-3, over round-off of 1e-13.
    assert difference_test(*posed(case, "gmres")) < 1e-9


@pytest.mark.parallel([1, 2])
@cases(DIRECT)
def test_derivative_is_the_central_difference_with_direct_solver(case):
    assert difference_test(*posed(case, "direct")) < 1e-9


@pytest.mark.parallel([1, 2])
@cases(GMRES)
def test_tangent_agrees_with_adjoint(case):
    assert dot_test(*posed(case, "gmres")) < 1e-11


@pytest.mark.parallel([1, 2])
@cases(DIRECT)
def test_tangent_agrees_with_adjoint_with_direct_solver(case):
    # No tolerance of an iteration is in it: round-off.
    assert dot_test(*posed(case, "direct")) < 1e-14


@pytest.mark.parallel([1, 2])
@cases(RELU)
def test_relu_is_differentiated_where_it_can_be(case):
    problem, weights = posed(case | {"activation": "relu"}, "gmres")
    # Kinks that a step passes over cost order.
    assert taylor_test(problem, weights, step=1e-3).orders.min() > 1.9
    assert dot_test(problem, weights) < 1e-11


def check_snapshots(snapshots: int, scheme: Any) -> None:
    options = {"scheme": scheme, "terminal_weight": 0.3}
    stored = tracking(n=3, steps=12, pieces=3, **options)
    recomputed = fpc.TrackingProblem(
        stored.reference, stored.drift, stored.sigma, 12, snapshots=snapshots, **options
    )
    weights = stored.drift.weights
    expected = stored.derivative(weights)
    difference = recomputed.derivative(weights) - expected
    assert np.abs(difference).max() <= 1e-12 * np.abs(expected).max()
    assert recomputed(weights) == pytest.approx(stored(weights), rel=1e-14)


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize(
    ("snapshots", "scheme"),
    [
        *((k, fpc.CrankNicolson()) for k in (1, 2, 5, 12)),
        (3, fpc.BackwardEuler()),
        (2, fpc.SDIRK4()),
    ],
)
def test_snapshots_change_nothing(snapshots, scheme):
    check_snapshots(snapshots, scheme)


@pytest.mark.parallel(3)
def test_snapshots_change_nothing_on_three_ranks():
    check_snapshots(2, fpc.CrankNicolson())


@pytest.mark.parallel([1, 2, 3])
def test_value_does_not_depend_on_what_was_evaluated_before():
    # With a solver this loose, an initial guess from an earlier evaluation would move J by 1e-5.
    used = tracking(n=3, linear_solver="gmres", petsc_options={"ksp_rtol": 1e-4})
    fresh = used.refined(used.steps)
    one, two = fresh.drift.weights, -0.7 * fresh.drift.weights
    value, dual = fresh.value_and_derivative(one)
    used.value_and_derivative(two)
    used.tangent(two, one)
    # Only the last bits may move: BLAS sums in another order when memory is aligned otherwise.
    assert used(one) == pytest.approx(value, rel=1e-14)
    assert used.derivative(one) == pytest.approx(dual, rel=1e-12, abs=1e-13)
    used(two)
    assert used.derivative(one) == pytest.approx(dual, rel=1e-12, abs=1e-13)


@pytest.mark.parallel([2, 3])
@pytest.mark.parametrize(
    "case",
    [
        {"dim": 1, "degree": 3, "n": 8},
        {"dim": 2, "degree": 1, "n": 5, "snapshots": 2},
        {"dim": 2, "degree": 2, "n": 4, "scheme": fpc.BackwardEuler(), "size": 300.0},
        {"dim": 3, "degree": 2, "n": 2, "linear_solver": "gmres", "terminal_weight": 1.0},
    ],
    ids=str,
)
def test_value_and_derivative_are_those_of_one_rank(case):
    alone, shared = tracking(SELF, **case), tracking(WORLD, **case)
    weights = alone.drift.weights
    assert np.array_equal(shared.drift.weights, weights)
    value, dual = alone.value_and_derivative(weights)
    shared_value, shared_dual = shared.value_and_derivative(weights)
    assert shared_value == pytest.approx(value, rel=1e-9)
    assert np.linalg.norm(shared_dual - dual) <= 1e-9 * np.linalg.norm(dual)
    # Optimizers on the ranks take the same decisions only if all bits agree.
    everywhere = WORLD.allgather((shared_value, shared_dual.tobytes()))
    assert everywhere == everywhere[:1] * WORLD.size


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"decay": 0.3}, "decay"),
        ({"terminal_weight": 0.7}, "terminal"),
        ({"running_weight": 2.0}, "running"),
    ],
)
def test_cost_is_the_sum_of_its_parts(change, expected):
    plain = tracking()
    weights = plain.drift.weights
    errors = plain.errors(weights)
    parts = {
        "decay": 0.15 * float(weights @ weights) / plain.drift.pieces,
        "terminal": 0.35 * errors.final_error**2,
        "running": 0.5 * errors.relative_error**2,
    }
    assert plain(weights) == pytest.approx(parts["running"], rel=1e-14)
    assert tracking(**change)(weights) == pytest.approx(
        parts["running"] + parts[expected], rel=1e-13
    )


def test_relative_error_is_the_trapezoid_of_l2_norms():
    problem = tracking(n=3, degree=2)
    weights = problem.drift.weights
    levels = problem.trajectory(weights).levels
    mass = problem.elements.mass
    x, y = mass.createVecs()

    def square(u: np.ndarray) -> float:
        x.array[:] = u
        mass.mult(x, y)
        return x.dot(y)

    line = [problem.reference.coefficients(t) for t in problem.times]
    error = np.trapezoid([square(u - r) for u, r in zip(levels, line, strict=True)])
    norm = np.trapezoid([square(r) for r in line])
    assert problem.errors(weights).relative_error == pytest.approx((error / norm) ** 0.5, rel=1e-12)
    assert problem.errors(weights).over_time[0] == 0.0


def test_tests_of_the_derivative_notice_a_wrong_one(monkeypatch):
    problem, weights = posed(GMRES["square-1-a-piece"], "gmres")
    right = problem.value_and_derivative

    def wrong(weights):
        value, dual = right(weights)
        return value, dual * (1.0 + 3e-6)

    monkeypatch.setattr(problem, "value_and_derivative", wrong)
    assert abs(taylor_test(problem, weights).orders - 2.0).max() > 0.1
    assert difference_test(problem, weights) > 1e-6
    assert dot_test(problem, weights) > 1e-8


@pytest.mark.parallel([1, 2])
def test_direct_solves_take_over_where_gmres_fails():
    failing = tracking(petsc_options={"ksp_max_it": 1})
    direct = tracking(linear_solver="direct")
    weights = direct.drift.weights
    value, dual = direct.value_and_derivative(weights)
    assert failing(weights) == pytest.approx(value, rel=1e-10)
    assert failing.derivative(weights) == pytest.approx(dual, rel=1e-8, abs=1e-12)
    assert dot_test(failing, weights) < 1e-11
    solver = failing.runs.sweeps.stepper.solver
    # Forward, reverse and tangent: none of the solves gets by with one iteration.
    assert solver.rescues == solver.solves > 0
