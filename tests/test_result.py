"""Results are plain data: one rank may read and print them alone."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from problems import WORLD, raised, tracking

import fpcontrol as fpc
from fpcontrol.characteristics import Markers, carry


def quiet(problem: fpc.TrackingProblem, **options: Any) -> fpc.Result:
    return fpc.minimize(problem, progress=False, **({"max_iterations": 3} | options))


def read(thing: Any) -> dict[str, Any]:
    """All public attributes but methods, after it has been printed."""
    assert "\n" not in repr(thing) and len(repr(thing)) < 200, repr(thing)
    names = [name for name in dir(thing) if not name.startswith("_")]
    found = {name: getattr(thing, name) for name in names}
    return {name: value for name, value in found.items() if not callable(value)}


def made() -> dict[str, Any]:
    """One of each kind that a user prints."""
    problem, silent = tracking(), tracking(sigma=0.0)
    result, flow = quiet(problem), quiet(silent)
    markers = Markers.on_mesh(silent.reference.start)
    return {
        "result": result,
        "result of a flow": flow,
        "refined": result.refined(8),
        "trajectory": result.trajectory,
        "flow": flow.trajectory,
        "carried": carry(markers, flow.drift, [0.0, 0.5]),
        "errors": result.errors,
        "certificate": result.certificate,
    }


@pytest.mark.parallel(2)
def test_rank_0_may_read_and_print_alone():
    things = made()
    if WORLD.rank == 0:
        for thing in things.values():
            assert read(thing)
        result = things["result"]
        assert "relative error" in result.summary()
        assert result.relative_error == result.errors.relative_error > 0.0
        assert result.trajectory[-1].x.array.shape == things["refined"].trajectory[3].x.array.shape
    WORLD.barrier()


@pytest.mark.parallel([1, 2])
def test_a_result_says_what_the_problem_says():
    problem = tracking(steps=8)
    result = quiet(problem)
    weights, errors = result.weights, problem.errors(result.weights)
    assert result.value == problem(weights) == errors.value
    assert np.array_equal(result.errors.over_time, errors.over_time)
    assert result.uncontrolled.relative_error == problem.errors(0.0 * weights).relative_error
    run = problem.trajectory(weights)
    assert np.array_equal(result.trajectory.levels, run.levels)
    assert result.mass == pytest.approx(run.mass, rel=1e-14)
    assert np.array_equal(result.minimum, run.minimum)
    assert result.run() is result.trajectory
    assert np.array_equal(result.drift.weights, weights)
    assert result.shortened == 0 and result.warnings == ()
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.value = 0.0


@pytest.mark.parallel([1, 2])
def test_densities_beyond_the_budget_are_not_kept_but_can_be_run():
    lean, full = tracking(steps=8, snapshots=2), tracking(steps=8)
    result = quiet(lean)
    assert "result.run()" in raised(RuntimeError, lambda: result.trajectory)
    run = result.run()
    assert np.array_equal(run.levels, full.trajectory(result.weights).levels)
    assert np.array_equal(result.minimum, run.minimum)
    assert "relative error" in result.summary()


@pytest.mark.parallel([1, 2])
def test_drift_of_a_flow_is_the_one_that_ran():
    problem = tracking(sigma=0.0, n=6, steps=32, layer=0.2)
    result = quiet(problem)
    flow = result.trajectory
    # The bare network points out of the domain, and is refused.
    bare = problem.drift.with_weights(result.weights)
    assert "outward" in raised(ValueError, lambda: carry(flow.markers, bare, [0.0, 1.0]))
    found = carry(flow.markers, result.drift, [0.0, 1.0])
    gap = WORLD.allreduce(float(np.abs(found.positions[-1] - flow.positions[-1]).max(initial=0.0)))
    assert gap < 1e-4


@pytest.mark.parallel([1, 2])
def test_steps_at_which_the_density_blows_up_are_shortened_and_counted():
    problem = tracking(sigma=0.4, n=6, steps=8)
    long = {"tao_ls_stepinit": 100.0}
    result = quiet(problem, method="lmvm", petsc_options=long)
    assert result.shortened > 0
    assert result.relative_error < 0.7 * result.uncontrolled.relative_error
    assert result.mass_defect <= 1e-12
    assert "trial steps shortened" in result.summary()
    assert "trial steps shortened" not in quiet(problem, method="lmvm").summary()


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("storage", [{}, {"snapshots": 2}])
def test_weights_at_which_the_density_blows_up_are_refused(storage):
    problem = tracking(sigma=0.1, n=6, steps=8, **storage)
    strong = 10.0 * problem.drift.weights
    for call in (
        lambda: problem(strong),
        lambda: problem.derivative(strong),
        lambda: problem.trajectory(strong),
        lambda: quiet(problem, weights=strong),
    ):
        message = raised(ArithmeticError, call)
        assert "blown up" in message and "cell Peclet number" in message
    assert np.isfinite(problem(0.1 * problem.drift.weights))  # and it can be asked again


@pytest.mark.parallel([1, 2])
def test_a_result_with_negative_densities_warns_once_on_rank_0(recwarn):
    result = quiet(tracking(sigma=0.1, n=6, steps=8), method="lmvm", max_iterations=2)
    said = [str(w.message) for w in recwarn if "negative" in str(w.message)]
    assert result.minimum_density < -0.01
    assert len(result.warnings) == 1
    assert said == list(result.warnings) * (WORLD.rank == 0)


@pytest.mark.parallel(2)
def test_density_of_a_reference_is_made_by_one_rank_alone():
    flow = tracking().reference
    if WORLD.rank == 0:
        middle = flow.density(0.5)
        mean = 0.5 * (flow.start.x.array + flow.goal.x.array)
        assert np.allclose(middle.x.array, mean) and middle.name == "reference"
    WORLD.barrier()
