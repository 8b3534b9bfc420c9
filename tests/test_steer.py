"""Weights to start from, neurons that the adjoint asks for, and all of it in one call."""

import os
import signal

import numpy as np
import pytest
from problems import SELF, WORLD, bump, cube, quiet, raised, tracking

import fpcontrol as fpc
from fpcontrol.control import search
from fpcontrol.control.sweeps import Sweeps


def reference(comm=WORLD, n=6, sigma=0.8, method=None) -> fpc.MoserFlow:
    mesh = cube(comm, 2, n)
    start, goal = bump(mesh, 1, 0.3), bump(mesh, 1, 0.7)
    return fpc.MoserFlow(start, goal, 1.0, sigma, discretization=method)


def steered(*args, **options) -> fpc.Result:
    return fpc.steer(*args, **{"budget": 1e6, "progress": False} | options)


@pytest.mark.parallel([1, 2])
def test_steep_weights_give_no_drift_but_kinks_in_the_box():
    mesh = cube(WORLD, 2, 4, size=300.0)
    drift = fpc.NetworkDrift(mesh, 3, 20)
    weights = fpc.construction.steep_weights(drift, seed=4)
    moved = drift.with_weights(weights)
    assert not moved.values(0.5, mesh.geometry.x[:, :2]).any()
    lengths, angles = [], []
    for block in weights.reshape(20, -1):
        _, inner, shift = drift.network.unpack(block)
        lengths += list(np.linalg.norm(inner, axis=1))
        angles.append(np.ptp(np.arctan2(inner[:, 1], inner[:, 0])))
        # The kink crosses the box, which is [-1, 1]^2 in the network's coordinates.
        assert (np.abs(shift) <= np.abs(inner).sum(axis=1)).all()
    assert 1.0 <= min(lengths) < 2.0 and 6.0 < max(lengths) <= 12.0
    assert 3 <= np.count_nonzero(np.array(angles) < 1e-12) <= 14  # in two of five, parallel
    assert not np.array_equal(weights, fpc.construction.steep_weights(drift, seed=5))


@pytest.mark.parallel([1, 2])
def test_interleaved_weights_run_through_groups_twice_as_fast():
    drift = fpc.NetworkDrift(cube(WORLD, 2, 2), 2, 5)
    blocks = np.arange(5.0).repeat(10)
    twice = fpc.construction.interleaved(blocks, drift, 2).reshape(-1, 10)[:, 0]
    assert twice.tolist() == [0, 1, 0, 1, 2, 3, 2, 3, 4, 4]
    assert "together = 0" in raised(
        ValueError, lambda: fpc.construction.interleaved(blocks, drift, 0)
    )


@pytest.mark.parallel(1)
def test_interleaving_lowers_the_error_of_a_minimum():
    problem = tracking(n=6, pieces=8, steps=32)
    found = quiet(problem, weights=fpc.construction.steep_weights(problem.drift))
    weights = fpc.construction.interleaved(found.weights, problem.drift, 2)
    drift = fpc.NetworkDrift(problem.elements.mesh, 2, 16, weights=weights)
    twice = fpc.TrackingProblem(problem.reference, drift, problem.sigma, 32)
    assert twice.errors(weights).relative_error < 0.99 * found.relative_error


@pytest.mark.parallel([1, 2])
def test_neurons_are_switched_through_with_the_mean_of_a_wide_network():
    mesh = cube(WORLD, 2, 3)
    wide = fpc.NetworkDrift(mesh, 6, 3, seed=2)
    weights = fpc.construction.switched(wide.weights, wide, 2, repeats=2)
    narrow = fpc.NetworkDrift(mesh, 2, 18, weights=weights)
    x = mesh.geometry.x[:, :2]
    for k in range(3):
        turns = [narrow.values((6 * k + i + 0.5) / 18, x) for i in range(6)]
        assert np.mean(turns, axis=0) == pytest.approx(wide.values((k + 0.5) / 3, x), abs=1e-13)
        assert np.array_equal(turns[:3], turns[3:])
        assert np.abs(turns[0] - turns[1]).max() > 0.1
    limited = fpc.NetworkDrift(mesh, 6, 3, max_speed=1.0)
    for words, call in (
        ("width = 4", lambda: fpc.construction.switched(wide.weights, wide, 4)),
        ("repeats = 0", lambda: fpc.construction.switched(wide.weights, wide, 2, 0)),
        ("entries", lambda: fpc.construction.switched(wide.weights[1:], wide, 2)),
        ("max_speed", lambda: fpc.construction.switched(limited.weights, limited, 2)),
    ):
        assert words in raised(ValueError, call)


@pytest.mark.parallel([1, 2])
def test_the_faster_they_are_switched_the_closer_to_the_wide_network_is_the_density():
    """Of order .7 in the length of a turn: less than 1 for the layers that each makes at walls."""
    flow, gaps = reference(), []
    wide = fpc.NetworkDrift(flow.elements.mesh, 4, 2, seed=1)
    steps = 32
    end = fpc.TrackingProblem(flow, wide, 0.8, steps).trajectory(wide.weights)[-1]
    for repeats in (1, 2, 4):
        weights = fpc.construction.switched(wide.weights, wide, 2, repeats)
        drift = fpc.NetworkDrift(flow.elements.mesh, 2, 4 * repeats, weights=weights)
        last = fpc.TrackingProblem(flow, drift, 0.8, steps).trajectory(weights)[-1]
        gaps.append(flow.elements.norm(last.x.array - end.x.array))
    assert np.log2(np.array(gaps[:-1]) / gaps[1:]) == pytest.approx(0.67, abs=0.1)


@pytest.mark.parallel([1, 2, 3])
def test_screened_neurons_fit_what_the_adjoint_asks_for(monkeypatch):
    """Against the derivative itself: the span of the chosen ones beats nearly all random pairs."""
    problem = tracking(n=5, pieces=4, steps=8)
    weights, d = problem.drift.weights.copy(), 2
    found = fpc.construction.screened(problem, weights, [1, 3], seed=1).reshape(4, -1)
    old = weights.reshape(4, -1)
    assert np.array_equal(found[[0, 2]], old[[0, 2]])
    assert not found[[1, 3], : 2 * d].any() and (found[[1, 3], 2 * d :] != 0).all()

    def gain(blocks: np.ndarray, k: int) -> float:
        """What the best outer weights of a piece gain to first order, over their energy."""
        slope = problem.derivative(blocks.ravel()).reshape(4, -1)[k, : 2 * d].reshape(d, 2)
        system, field = problem.runs.system, problem.drift.field
        levels = list(problem.runs.levels(blocks.ravel()))
        rho = np.maximum(system.at_points(levels[2 * k + 1]), 0.0) * system.point_weights
        columns = field.jacobian(blocks[k], system.points)[:2, :, 0]  # both neurons, along x
        gram = WORLD.allreduce((columns * rho) @ columns.T)
        return float(np.einsum("in,nm,im->", slope, np.linalg.inv(gram), slope))

    rng = np.random.default_rng(7)
    for k in (1, 3):
        ours, others = gain(found, k), []
        for _ in range(30):
            random = found.copy()
            drawn = fpc.construction.steep_weights(problem.drift, int(rng.integers(10**6)))
            random[k, 2 * d :] = drawn.reshape(4, -1)[k, 2 * d :]
            others.append(gain(random, k))
        assert ours > np.quantile(others, 0.9)


@pytest.mark.parallel([2, 3])
def test_screening_does_not_depend_on_the_ranks():
    one, other = (
        fpc.construction.screened(p, p.drift.weights, [0, 1], seed=2)
        for p in (tracking(comm, n=5) for comm in (SELF, WORLD))
    )
    assert np.array_equal(one, other)


@pytest.mark.parallel([1, 2])
def test_what_cannot_be_screened_is_refused():
    problem = tracking()
    screened = fpc.construction.screened
    assert "[5]" in raised(ValueError, lambda: screened(problem, problem.drift.weights, [5]))
    still = tracking(sigma=0.0)
    assert "noise" in raised(ValueError, lambda: screened(still, still.drift.weights, [0]))
    field = problem.drift.field
    plain = fpc.ParametricDrift(problem.elements.mesh, field, fpc.PiecewiseConstant(2))
    other = fpc.TrackingProblem(problem.reference, plain, problem.sigma, 4)
    assert "NetworkDrift" in raised(ValueError, lambda: screened(other, plain.weights, [0]))


@pytest.mark.parallel(1)
@pytest.mark.parametrize("method", [fpc.Galerkin(1), fpc.Limited()], ids=repr)
def test_steers_within_a_budget_of_evaluations(method, monkeypatch):
    taken, derivative = [], Sweeps.derivative

    def counted(self, *args):
        taken.append(1)
        return derivative(self, *args)

    monkeypatch.setattr(Sweeps, "derivative", counted)
    result = steered(reference(method=method), pieces=8, max_evaluations=60)
    assert 40 <= result.evaluations <= 61
    assert result.evaluations <= len(taken) <= 1.3 * result.evaluations  # those that screen
    assert result.problem.steps == 32
    assert result.problem.drift.network.width == 2
    assert result.problem(result.weights) == result.value
    usual = {"max_iterations": 100, "max_evaluations": 60}
    lmvm = quiet(result.problem, method="lmvm", **usual)
    assert result.value < lmvm.value


@pytest.mark.parallel([1, 2])
def test_a_seed_gives_the_same_weights_again():
    first, second = (steered(reference(), pieces=4, max_evaluations=12) for _ in range(2))
    assert first.value == pytest.approx(second.value, rel=1e-6)


@pytest.mark.parallel([1, 2])
def test_goes_on_from_a_checkpoint_and_returns_the_best_at_an_interrupt(tmp_path, monkeypatch):
    path = tmp_path / "best.npz"
    options = {"pieces": 8, "max_evaluations": 30, "checkpoint": path}
    first = steered(reference(), **options)
    second = steered(reference(), **options, resume=path)
    assert second.value <= first.value
    assert second.evaluations > first.evaluations
    assert "another problem" in raised(
        ValueError, lambda: steered(reference(), pieces=4, resume=path)
    )
    evaluate, calls = fpc.TrackingProblem.value_and_derivative, []

    def interrupted(self, weights):
        calls.append(1)
        if len(calls) == 20 and WORLD.rank == WORLD.size - 1:
            os.kill(os.getpid(), signal.SIGINT)
        return evaluate(self, weights)

    monkeypatch.setattr(fpc.TrackingProblem, "value_and_derivative", interrupted)
    ended = steered(reference(), pieces=8)
    assert ended.reason == "interrupted"
    assert ended.relative_error < ended.uncontrolled.relative_error


@pytest.mark.parallel(1)
def test_many_pieces_come_from_few(monkeypatch):
    monkeypatch.setattr(search, "MANY", 4)
    counts = []
    doubled = search.interleaved

    def spy(weights, drift, together):
        counts.append(drift.pieces)
        return doubled(weights, drift, together)

    monkeypatch.setattr(search, "interleaved", spy)
    result = steered(reference(), pieces=16, max_evaluations=80)
    assert counts == [4, 8]
    assert result.problem.drift.pieces == 16
    assert result.relative_error < 0.2 * result.uncontrolled.relative_error


def begun_with(monkeypatch, **options) -> tuple[fpc.Result, list[tuple[int, int]]]:
    """A search, and widths and pieces of what it descended on, in turn."""
    seen, descend = [], search.gauss_newton_descent

    def spy(run, *args):
        drift = run.problem.drift
        seen.append((drift.network.width, drift.pieces))
        return descend(run, *args)

    monkeypatch.setattr(search, "gauss_newton_descent", spy)
    result = steered(reference(), **options)
    return result, list(dict.fromkeys(seen))


@pytest.mark.parallel([1, 2])
def test_a_wider_network_comes_first(monkeypatch, tmp_path):
    path = tmp_path / "best.npz"
    options = {"pieces": 12, "max_evaluations": 60, "checkpoint": path}
    result, seen = begun_with(monkeypatch, wide=6, **options)
    assert seen == [(6, 4), (2, 12)]
    assert result.problem.drift.network.width == 2
    assert result.relative_error < 0.2 * result.uncontrolled.relative_error
    # Whatever the wide network reached is not recorded.
    assert min(i.relative_error for i in result.history) >= 0.99 * result.relative_error
    assert result.evaluations > 18  # those of the wide network's share of the budget
    again = steered(reference(), pieces=12, max_evaluations=1, resume=path)
    assert again.history[-1].relative_error == pytest.approx(result.relative_error, rel=1e-6)


@pytest.mark.parallel([1, 2])
def test_a_wide_network_is_not_taken_for_what_was_asked_for():
    """It is searched to the end of its share, a third of the budget, although it is good enough."""
    result = steered(reference(), pieces=12, wide=6, max_evaluations=60, target_error=0.5)
    assert result.reason == "target_error"
    assert 18 < result.evaluations < 40


@pytest.mark.parallel(1)
def test_how_much_wider_depends_on_the_pieces(monkeypatch):
    monkeypatch.setattr(search, "HELD", 2)
    for pieces, first in ((12, (8, 3)), (9, (6, 3)), (4, (4, 2)), (7, (2, 7))):
        _, seen = begun_with(monkeypatch, pieces=pieces, max_evaluations=8)
        assert seen[0] == first and seen[-1] == (2, pieces)


@pytest.mark.parallel([1, 2])
def test_neurons_too_strong_to_act_alone_are_damped(monkeypatch):
    strong = search.switched
    monkeypatch.setattr(search, "switched", lambda *args: 1e3 * strong(*args))
    result, _ = begun_with(monkeypatch, pieces=4, wide=8, max_evaluations=30)
    assert result.relative_error < 0.9 * result.uncontrolled.relative_error


@pytest.mark.parallel([1, 2])
def test_an_interrupt_finds_a_narrow_network_in_time(monkeypatch):
    evaluate = fpc.TrackingProblem.value_and_derivative

    def interrupted(self, weights):
        if WORLD.rank == WORLD.size - 1:
            os.kill(os.getpid(), signal.SIGINT)
        return evaluate(self, weights)

    monkeypatch.setattr(fpc.TrackingProblem, "value_and_derivative", interrupted)
    result = steered(reference(), pieces=8, wide=8)
    assert result.reason == "interrupted"
    assert result.weights.size == 80


@pytest.mark.parallel(1)
def test_a_coarse_mesh_serves_the_search():
    fine, coarse = reference(n=8), reference(n=4)
    result = steered(fine, pieces=8, max_evaluations=60, coarse=coarse)
    assert result.problem.reference is fine
    assert result.relative_error < 0.2 * result.uncontrolled.relative_error


@pytest.mark.parallel([1, 2])
def test_many_pieces_are_descended_on_the_own_mesh_in_a_step_each_first(monkeypatch):
    monkeypatch.setattr(search, "SHORT", 8)
    fine, coarse, seen = reference(n=6, method=fpc.Monotone()), reference(n=4), []
    descend = search.gauss_newton_descent

    def spy(run, *args):
        problem = run.problem
        seen.append((problem.reference is fine, problem.steps, type(problem.runs.scheme).__name__))
        return descend(run, *args)

    monkeypatch.setattr(search, "gauss_newton_descent", spy)
    scheme = fpc.Exponential()
    result = steered(fine, pieces=8, max_evaluations=60, coarse=coarse, scheme=scheme)
    assert list(dict.fromkeys(seen)) == [
        (False, 8, "CrankNicolson"),
        (True, 8, "Exponential"),
        (True, 32, "Exponential"),
    ]
    assert result.relative_error < 0.3 * result.uncontrolled.relative_error


@pytest.mark.parallel([1, 2])
def test_a_drift_that_is_no_network_is_descended_from():
    flow = reference()
    field = fpc.NetworkDrift(flow.elements.mesh, 2, 4).field
    drift = fpc.ParametricDrift(flow.elements.mesh, field, fpc.PiecewiseLinear(4))
    weights = np.random.default_rng(0).standard_normal(drift.weights.size)
    result = steered(flow, drift=drift.with_weights(weights), max_evaluations=10, decay=1e-6)
    assert result.relative_error < 0.5 * result.uncontrolled.relative_error


@pytest.mark.parallel([1, 2, 3])
def test_searches_run_side_by_side_and_the_best_is_gone_on_with():
    def search(seed, comm):
        coarse = reference(comm, n=4)
        found = steered(coarse, pieces=4, max_evaluations=25, seed=seed)
        return found.value, found.weights

    values, weights = zip(*fpc.ensemble.run(search, range(3), progress=False), strict=True)
    best = weights[np.argmin(values)]
    result = steered(reference(), pieces=4, weights=best, max_evaluations=10)
    assert result.history[0].relative_error == pytest.approx(
        result.problem.errors(best).relative_error, rel=1e-12
    )
    assert result.value <= result.problem(best)
    assert len({round(value, 9) for value in values}) == 3  # searches of their own


@pytest.mark.parallel([1, 2])
def test_bad_arguments_are_refused():
    flow = reference()
    drift = fpc.NetworkDrift(flow.elements.mesh)
    slow = fpc.NetworkDrift(flow.elements.mesh, 2, 8, max_speed=1.0)
    for words, call in (
        ("no MoserFlow", lambda: steered("flow")),
        ("width = 2 and drift", lambda: steered(flow, 2, drift=drift)),
        ("budget = 0", lambda: steered(flow, budget=0.0)),
        ("sigma = 0.0", lambda: steered(flow, sigma=0.0)),
        ("weights has 3 entries", lambda: steered(flow, weights=np.ones(3))),
        ("weights and resume", lambda: steered(flow, weights=np.ones(3), resume="best.npz")),
        ("wide = 5", lambda: steered(flow, pieces=8, wide=5)),
        ("wide = 6", lambda: steered(flow, pieces=8, wide=6)),
        ("wide = 8: there is no search", lambda: steered(flow, wide=8, weights=np.zeros(800))),
        ("max_speed", lambda: steered(flow, wide=8, drift=slow)),
        ("start and coarse", lambda: steered(flow, coarse=flow, start=flow.start)),
    ):
        assert words in raised(ValueError, call)
