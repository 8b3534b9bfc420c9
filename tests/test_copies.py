"""What a caller changes afterwards changes nothing, and what is handed out cannot be changed."""

import numpy as np
import pytest
from problems import WORLD, bump, cube, tracking

import fpcontrol as fpc


@pytest.mark.parallel([1, 2])
def test_weights_of_a_drift_are_its_own():
    drift = tracking().drift
    weights = drift.weights.copy()
    other = drift.with_weights(weights)
    weights[:] = 0.0
    assert np.array_equal(other.weights, drift.weights)


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize(
    "options",
    [{}, {"snapshots": 2}, {"sigma": 0.0}],
    ids=["levels in memory", "levels recomputed", "no noise"],
)
def test_levels_that_are_handed_out_cannot_be_changed(options):
    problem = tracking(**options)
    weights = problem.drift.weights
    expected = problem.derivative(weights)
    found = problem.trajectory(weights)
    noisy = isinstance(found, fpc.Trajectory)
    for values in (found.levels,) if noisy else (found.positions, found.log_jacobian):
        with pytest.raises(ValueError, match="read-only"):
            values[:] *= 2.0
    assert np.array_equal(problem.derivative(weights), expected)


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("sigma", [0.0, 0.8])
@pytest.mark.parametrize("which", ["start of the problem", "start", "goal"])
def test_densities_that_are_changed_afterwards_stay_as_they_were(which, sigma):
    mesh = cube(WORLD, 2, 4)
    given = {
        "start of the problem": bump(mesh, 1, 0.5),
        "start": bump(mesh, 1, 0.3),
        "goal": bump(mesh, 1, 0.7),
    }
    reference = fpc.MoserFlow(given["start"], given["goal"], 1.0, sigma)
    drift, start = fpc.NetworkDrift(mesh, 2, 2), given["start of the problem"]
    options = {"start": start} if which == "start of the problem" else {}
    problem = fpc.TrackingProblem(reference, drift, sigma, 4, **options)
    other = drift.weights + 0.1
    value, expected = problem(drift.weights), problem.derivative(other)
    given[which].x.array[:] = bump(mesh, 1, 0.2, 0.1).x.array
    assert np.array_equal(problem.derivative(other), expected)
    assert problem(drift.weights) == value
    assert problem.refined(4)(drift.weights) == pytest.approx(value, rel=1e-13)
