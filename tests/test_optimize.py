"""The optimization: descent, what stops it, and trial steps that cannot be evaluated."""

import dataclasses
import itertools

import numpy as np
import pytest
from problems import (
    SELF,
    WORLD,
    count_derivatives,
    noiseless,
    quiet,
    raised,
    tracking,
)


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("method", ["lmvm", "cg", "gauss_newton"])
def test_cost_goes_down_and_history_tells_how(method, monkeypatch):
    problem = tracking()
    calls = count_derivatives(problem, monkeypatch)
    result = quiet(problem, method=method)
    history = result.history
    assert result.value < 0.5 * problem(problem.drift.weights)
    assert problem(result.weights) == result.value == history[-1].value
    assert result.relative_error == history[-1].relative_error
    # J is half the relative error squared, and nothing else here.
    assert result.value == pytest.approx(0.5 * result.relative_error**2, rel=1e-12)
    assert [i.iteration for i in history] == list(range(13))
    assert result.reason == "max_iterations"
    assert result.evaluations == history[-1].evaluations == len(calls)
    for before, after in itertools.pairwise(history):
        assert after.evaluations > before.evaluations
        assert after.value <= before.value
        assert after.seconds >= before.seconds
    dual = problem.derivative(result.weights)
    assert history[-1].gradient_norm == pytest.approx(np.linalg.norm(dual), rel=1e-12)
    # What every rank holds is the same to the last bit.
    mine = (result.weights.tobytes(), history, result.reason)
    assert WORLD.allgather(mine) == [mine] * WORLD.size


@pytest.mark.parallel([1, 2])
def test_weights_to_start_from_can_be_given():
    problem = tracking()
    zero = np.zeros_like(problem.drift.weights)
    assert quiet(problem, weights=zero, max_iterations=1).history[0].value == problem(zero)
    assert not zero.any()


@pytest.mark.parallel([1, 2])
def test_stops_at_the_target_error():
    first = quiet(tracking()).history
    target = 0.5 * (first[3].relative_error + first[4].relative_error)
    result = quiet(tracking(), target_error=target)
    assert (result.reason, len(result.history)) == ("target_error", 5)
    assert result.relative_error <= target < result.history[-2].relative_error


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("limit", [1, 2, 7])
def test_never_evaluates_more_often_than_allowed(limit, monkeypatch):
    problem = tracking()
    calls = count_derivatives(problem, monkeypatch)
    result = quiet(problem, max_iterations=100, max_evaluations=limit)
    assert len(calls) == result.evaluations == limit
    assert result.reason == "max_evaluations"
    assert problem(result.weights) == result.value <= result.history[0].value


@pytest.mark.parallel([1, 2])
def test_best_weights_are_kept_if_the_last_ones_are_worse(monkeypatch):
    problem = tracking()
    evaluate, seen = problem.value_and_derivative, []

    def rising(weights):
        value, dual = evaluate(weights)
        seen.append((value + (10.0 if len(seen) >= 4 else 0.0), weights.copy()))
        return seen[-1][0], dual

    monkeypatch.setattr(problem, "value_and_derivative", rising)
    result = quiet(problem, max_evaluations=6)
    best = min(seen, key=lambda pair: pair[0])
    assert len(seen) == 6
    assert result.value == best[0]
    assert np.array_equal(result.weights, best[1])


@pytest.mark.parallel([2, 3])
def test_ranks_that_round_differently_take_the_same_steps(monkeypatch):
    problem = tracking()
    evaluate = problem.value_and_derivative

    def rounded(weights):
        value, dual = evaluate(weights)
        # Far more than round-off, so that line searches would part soon.
        return value * (1.0 + 1e-3 * WORLD.rank), dual * (1.0 + 1e-2 * WORLD.rank)

    monkeypatch.setattr(problem, "value_and_derivative", rounded)
    result = quiet(problem, max_iterations=40)
    mine = (result.weights.tobytes(), result.history, result.evaluations, result.reason)
    assert WORLD.allgather(mine) == [mine] * WORLD.size


@pytest.mark.parallel([1, 2])
def test_stops_at_a_fraction_of_the_first_gradient():
    result = quiet(tracking(), max_iterations=100, gradient_tolerance=0.1)
    norms = [i.gradient_norm for i in result.history]
    assert result.reason == "gradient_tolerance"
    assert norms[-1] <= 0.1 * norms[0] < norms[-2]


@pytest.mark.parallel([2, 3])
def test_first_twenty_iterations_are_those_of_one_rank():
    alone, shared = (
        quiet(tracking(comm, n=5), method="lmvm", max_iterations=20) for comm in (SELF, WORLD)
    )
    for one, other in zip(alone.history, shared.history, strict=True):
        assert (other.iteration, other.evaluations) == (one.iteration, one.evaluations)
        # The optimizer amplifies the round-off that summation over ranks makes.
        assert other.value == pytest.approx(one.value, rel=1e-6)


@pytest.mark.parallel([1, 2])
def test_refined_result_has_the_same_weights_on_more_steps():
    result = quiet(tracking(), max_iterations=3)
    fine = result.refined(16)
    assert np.array_equal(fine.weights, result.weights)
    assert fine.problem.steps == 16
    assert len(fine.trajectory) == 17
    assert fine.value == fine.problem(result.weights) != result.value


@pytest.mark.parallel([1, 2])
def test_steps_by_which_labels_leave_the_domain_are_shortened(monkeypatch):
    problem, refused = noiseless(), []
    check = problem.runs._check_inside

    def spy(n, x):
        try:
            check(n, x)
        except ValueError:
            refused.append(n)
            raise

    monkeypatch.setattr(problem.runs, "_check_inside", spy)
    result = quiet(problem, max_iterations=25)
    assert any(WORLD.allgather(bool(refused)))
    assert result.reason == "max_iterations"
    assert problem(result.weights) == result.value < 0.1 * result.history[0].value
    mine = (result.weights.tobytes(), result.history, result.evaluations)
    assert WORLD.allgather(mine) == [mine] * WORLD.size


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("how", ["solver fails", "J is not a number"])
def test_steps_that_cannot_be_evaluated_are_shortened(how, monkeypatch):
    problem = tracking()
    evaluate, first, longest = problem.value_and_derivative, problem.drift.weights.copy(), 0.05

    def failing(weights):
        if np.linalg.norm(weights - first) > longest:
            if how == "solver fails":
                raise ArithmeticError("no convergence")
            return np.nan, np.full_like(weights, np.nan)
        return evaluate(weights)

    steps = [quiet(problem, method="lmvm", max_iterations=1).weights - first]
    monkeypatch.setattr(problem, "value_and_derivative", failing)
    result = quiet(problem, method="lmvm", max_iterations=1)
    steps.append(result.weights - first)
    assert np.linalg.norm(steps[0]) > longest > np.linalg.norm(steps[1]) > 0.1 * longest
    assert result.value < result.history[0].value


@pytest.mark.parallel([1, 2])
def test_best_is_returned_and_saved_if_no_step_can_be_evaluated(tmp_path, monkeypatch):
    problem, path = tracking(), tmp_path / "run.npz"
    evaluate, calls = problem.value_and_derivative, []

    def failing(weights):
        calls.append(1)
        if len(calls) > 4:
            raise ArithmeticError("no convergence")
        return evaluate(weights)

    monkeypatch.setattr(problem, "value_and_derivative", failing)
    result = quiet(problem, method="lmvm", max_iterations=100, checkpoint=path)
    assert result.reason == "diverged_ls_failure"
    assert result.evaluations == len(calls) < 200
    monkeypatch.undo()
    assert problem(result.weights) == result.value < result.history[0].value
    assert quiet(problem, max_iterations=1, resume=path).value <= result.value


@pytest.mark.parallel([1, 2])
def test_first_weights_that_cannot_be_evaluated_are_an_error():
    problem = noiseless()
    fast = np.full_like(problem.drift.weights, 40.0)
    assert "markers left the domain" in raised(ValueError, lambda: quiet(problem, weights=fast))


def test_iterate_is_plain_numbers():
    # They go into JSON, in checkpoints and in records.
    last = quiet(tracking(SELF), max_iterations=1).history[-1]
    kinds = {type(value) for value in dataclasses.asdict(last).values()}
    assert kinds == {int, float}
