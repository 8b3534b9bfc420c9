"""Densities, references and weights that are refused, on all ranks."""

import numpy as np
import pytest
from problems import LAST, WORLD, bump, cube, equation, raised, solve, tracking

import fpcontrol as fpc


@pytest.mark.parallel([1, 2])
def test_start_of_another_space_is_refused():
    other = cube(WORLD, 2, 4)
    assert "start lives on another mesh" in raised(
        ValueError, lambda: solve(start=bump(other, 1, 0.3))
    )
    e = equation()
    assert "start is of degree 2, the equation of degree 1" in raised(
        ValueError, lambda: e.solve(bump(e.mesh, 2, 0.3), 1.0, 2)
    )
    assert "is not a dolfinx Function" in raised(ValueError, lambda: solve(start=np.ones(25)))
    problem = tracking()
    assert "start lives on another mesh" in raised(
        ValueError,
        lambda: fpc.TrackingProblem(
            problem.reference, problem.drift, 0.5, 4, start=bump(other, 1, 0.3)
        ),
    )


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("sigma", [0.0, 0.5])
def test_what_is_no_reference_or_no_network_is_refused(sigma):
    problem = tracking()
    drift, reference = problem.drift, problem.reference
    goal = bump(drift.mesh, 1, 0.7)
    assert "densities with MoserFlow(" in raised(
        ValueError, lambda: fpc.TrackingProblem(goal, drift, sigma, 4)
    )
    assert "give a NetworkDrift" in raised(
        ValueError, lambda: fpc.TrackingProblem(reference, lambda t, x: x, sigma, 4)
    )


@pytest.mark.parallel([1, 2])
def test_drift_of_another_mesh_or_time_is_refused():
    reference = tracking().reference
    strange = fpc.NetworkDrift(cube(WORLD, 2, 4), 2, 2)
    assert "different meshes" in raised(
        ValueError, lambda: fpc.TrackingProblem(reference, strange, 0.5, 4)
    )
    late = fpc.NetworkDrift(reference.elements.mesh, 2, 2, t1=2.0)
    assert "drift.t1 = 2 differs from reference.t1 = 1" in raised(
        ValueError, lambda: fpc.TrackingProblem(reference, late, 0.5, 4)
    )


@pytest.mark.parallel([1, 2])
def test_start_that_is_not_finite_on_one_rank_is_refused():
    e = equation()
    start = bump(e.mesh, 1, 0.3)
    if LAST:
        start.x.array[0] = np.inf
    assert "not finite" in raised(ValueError, lambda: e.solve(start, 1.0, 2))


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("use", ["value", "derivative", "tangent", "trajectory", "minimize", "new"])
def test_bad_weights_are_refused(use):
    problem = tracking()
    right = problem.drift.weights
    calls = {
        "value": problem,
        "derivative": problem.derivative,
        "tangent": lambda w: problem.tangent(right, w),
        "trajectory": problem.trajectory,
        "minimize": lambda w: fpc.minimize(problem, w, max_iterations=1, progress=False),
        "new": problem.drift.with_weights,
    }
    call, bad = calls[use], right.copy()
    bad[7] = np.nan
    assert "19 entries; 20 are needed" in raised(ValueError, lambda: call(right[:-1]))
    assert "1 entries that are not finite, the first at 7" in raised(ValueError, lambda: call(bad))


@pytest.mark.parallel(2)
@pytest.mark.parametrize("use", ["value", "derivative", "tangent", "trajectory", "minimize", "new"])
def test_weights_bad_on_one_rank_are_refused_on_all(use):
    problem = tracking()
    weights = problem.drift.weights.copy()
    if LAST:
        weights[0] = np.nan
    calls = {
        "value": lambda: problem(weights),
        "derivative": lambda: problem.derivative(weights),
        "tangent": lambda: problem.tangent(problem.drift.weights, weights),
        "trajectory": lambda: problem.trajectory(weights),
        "minimize": lambda: fpc.minimize(problem, weights, max_iterations=1, progress=False),
        "new": lambda: problem.drift.with_weights(weights),
    }
    assert "not finite" in raised(ValueError, calls[use])
