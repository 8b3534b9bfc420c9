"""Control with absorbing walls: exact derivatives, what comes out, and what is kept of it."""

import json

import numpy as np
import pytest
from problems import SELF, WORLD, bump, cube, quiet, raised, tracking
from test_absorbing import sides

import fpcontrol as fpc
from fpcontrol.verification import difference_test, dot_test, taylor_test


def low(x: np.ndarray) -> np.ndarray:
    return np.isclose(x[0], 0.0)


def posed(comm=WORLD, dim=2, n=4, method=None, walls=None, **options) -> fpc.TrackingProblem:
    """One bump is to become another, beside absorbing walls."""
    mesh, method = cube(comm, dim, n), method or fpc.Galerkin(1)
    start, goal = (bump(mesh, method.degree, at) for at in (0.3, 0.7))
    reference = fpc.MoserFlow(start, goal, 1.0, 0.8, discretization=method)
    walls = {"absorbing": low} if walls is None else walls(mesh)
    return fpc.TrackingProblem(
        reference, fpc.NetworkDrift(mesh, dim, 2, seed=3), 0.8, 4, **walls, **options
    )


def two_sides(mesh):
    return {"absorbing": (4, 9), "facet_tags": sides(mesh)}


CASES = {
    "interval": {"dim": 1, "n": 6, "method": fpc.Galerkin(2), "terminal_weight": 1.0},
    "crank-nicolson": {"n": 3, "method": fpc.Galerkin(2), "scheme": fpc.CrankNicolson()},
    "snapshots": {"snapshots": 2, "terminal_weight": 0.5},
    "direct": {"scheme": fpc.SDIRK4(), "linear_solver": "direct"},
    "box": {"dim": 3, "n": 2, "scheme": fpc.BackwardEuler(), "walls": two_sides},
    "energy": {"objectives": [fpc.objectives.KineticEnergy(1e-2)]},
    "monotone": {"method": fpc.Monotone(), "walls": two_sides},
    "hybrid": {"method": fpc.Monotone("hybrid"), "snapshots": 1},
    "limited": {"method": fpc.Limited(), "walls": two_sides},
    "exponential": {"method": fpc.Monotone(), "scheme": fpc.Exponential()},
}


def check(case) -> None:
    problem = posed(**case)
    weights = problem.drift.weights
    assert problem.absorbed(weights)[-1].sum() > 0.1  # or the walls are not felt
    test = taylor_test(problem, weights)
    noisy = isinstance(problem.runs.scheme, fpc.SDIRK4)
    assert test.orders == pytest.approx(2.0, abs=0.05 if noisy else 0.01)
    assert test.relative_remainder < 1e-6
    assert difference_test(problem, weights) < 1e-9
    assert dot_test(problem, weights) < 1e-11


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_derivative_is_that_of_the_scheme(case):
    check(case)


@pytest.mark.parallel(2)
def test_derivative_is_right_on_two_ranks():
    for name in ("snapshots", "monotone", "exponential"):
        check(CASES[name])


@pytest.mark.parallel([2, 3])
def test_ranks_agree():
    for method in (fpc.Galerkin(1), fpc.Monotone()):
        here, alone = (posed(comm, n=5, method=method, walls=two_sides) for comm in (WORLD, SELF))
        weights = here.drift.weights
        assert here(weights) == pytest.approx(alone(weights), rel=1e-9)
        one, two = here.derivative(weights), alone.derivative(weights)
        assert np.linalg.norm(one - two) < 1e-9 * np.linalg.norm(two)
        assert here.absorbed(weights) == pytest.approx(alone.absorbed(weights), rel=1e-9)


def test_derivative_is_the_same_from_snapshots():
    kept, again = posed(), posed(snapshots=1)
    weights = kept.drift.weights
    one, two = kept.derivative(weights), again.derivative(weights)
    assert np.linalg.norm(one - two) < 1e-12 * np.linalg.norm(one)
    assert np.array_equal(kept.absorbed(weights), again.absorbed(weights))


def test_reference_keeps_its_mass_and_the_controlled_density_loses_some(tmp_path):
    problem = posed(walls=two_sides)
    assert problem.tags == (4, 9)
    g = problem.elements
    for t in (0.0, 0.5, 1.0):
        assert g.integral(problem.reference.coefficients(t)) == pytest.approx(1.0, abs=1e-13)
    result = quiet(problem)
    assert result.errors.value < problem(0.0 * result.weights)
    assert result.mass + result.absorbed.sum(axis=1) == pytest.approx(np.ones(5), abs=1e-12)
    assert result.mass_defect < 1e-12 and result.mass[-1] < 0.9
    assert np.array_equal(result.trajectory.absorbed, result.absorbed)
    assert result.trajectory.tags == (4, 9)
    assert "absorbed" in repr(result) and "tag 9" in repr(result.trajectory)
    assert "mass at the end" in result.summary()
    fpc.io.write_record(result, tmp_path / "record.json")
    figures = json.loads((tmp_path / "record.json").read_text())["figures"]
    assert figures["mass_at_the_end"] == result.mass[-1]
    assert figures["absorbed"] == {"4": result.absorbed[-1, 0], "9": result.absorbed[-1, 1]}
    finer = result.refined(8)
    assert finer.problem.tags == (4, 9)
    assert finer.mass[-1] == pytest.approx(result.mass[-1], abs=0.1)
    # A result belongs to its walls.
    fpc.io.save(result, tmp_path / "result.npz")
    assert fpc.io.load(tmp_path / "result.npz", posed(walls=two_sides)).value == result.value
    for other in ({"absorbing": low}, {}):
        text = raised(
            ValueError,
            lambda other=other: fpc.io.load(tmp_path / "result.npz", posed(walls=lambda _: other)),
        )
        assert "absorbing = " in text


def test_without_absorbing_walls_nothing_is_absorbed():
    problem = tracking(SELF)
    result = quiet(problem, max_iterations=1)
    assert problem.tags == () and result.absorbed.shape == (5, 0)
    assert result.trajectory.absorbed.shape == (5, 0) and result.mass_defect < 1e-13
    assert "absorbed" not in repr(result) + repr(result.trajectory) + result.summary()
    still = tracking(SELF, sigma=0.0)
    assert still.absorbed(still.drift.weights).shape == (5, 0)


@pytest.mark.parallel(2)
def test_what_needs_positive_densities_of_equal_mass_refuses():
    text = raised(ValueError, lambda: posed(objectives=[fpc.objectives.FinalKL()]))
    assert "FinalKL" in text and "absorbing" in text
    text = raised(ValueError, lambda: tracking(sigma=0.0, absorbing=4))
    assert "no option of a problem with sigma = 0" in text
