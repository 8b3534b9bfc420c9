"""Residuals of wrong log-densities: their derivatives, and that wrong ones are found."""

from dataclasses import replace

import numpy as np
import pytest
from problems import SELF, WORLD, failures

from fpcontrol.noising import GaussianMixture, OrnsteinUhlenbeck
from fpcontrol.theorems.closed_forms.wrong_scores import Network, Slope, Waves, WrongLogDensity
from fpcontrol.theorems.framework import Grid
from fpcontrol.theorems.runs.in_the_plane import PlaneSamplers
from fpcontrol.theorems.runs.rearrangement import bracket
from fpcontrol.theorems.runs.trained_networks import TrainedNetwork
from fpcontrol.theorems.runs.wrong_samplers import Box
from fpcontrol.theorems.statements import residuals

PLANE = OrnsteinUhlenbeck(3.0, r=0.7, g=1.2).of(
    GaussianMixture([[-1.0, 0.2], [0.8, 0.5]], [0.2, 0.3], [0.4, 0.6])
)
PERTURBATIONS = [Waves(3.0, 2.5), Network(2, 7, 3), Slope(0.4)]
FEW = {"paths": 500, "path_steps": 60}


@pytest.mark.parametrize("psi", PERTURBATIONS, ids=lambda psi: type(psi).__name__)
def test_residual_is_what_is_left_of_the_equation(psi):
    model, t, h = WrongLogDensity(PLANE, psi, decay=1.3, scale=0.8), 0.4, 1e-3
    x = np.random.default_rng(0).uniform(-1.5, 1.5, (20, 2))
    process = PLANE.process

    def phi(y, s=t):
        return model.log_density(s, y)

    steps = h * np.eye(2)
    slope = np.column_stack([(phi(x + e) - phi(x - e)) / (2.0 * h) for e in steps])
    laplacian = sum(phi(x + e) + phi(x - e) - 2.0 * phi(x) for e in steps) / h**2
    rate = (phi(x, t + h) - phi(x, t - h)) / (2.0 * h)
    half = 0.5 * process.sigma(t) ** 2
    transport = (process.drift(t, x) * slope).sum(axis=1) + process.drift_divergence(t, x)
    left = rate + transport - half * (laplacian + (slope**2).sum(axis=1))
    assert model.residual(t, x) == pytest.approx(left, abs=2e-4)
    assert model.values(t, x) == pytest.approx(slope, abs=2e-4)
    assert model.divergence(t, x) == pytest.approx(laplacian, abs=2e-4)


def test_exact_score_leaves_nothing():
    model = WrongLogDensity(PLANE, Slope(0.0))
    assert not model.residual(0.3, np.ones((3, 2))).any()


@pytest.mark.parametrize("method", ["gradient", "laplacian"])
def test_wrong_terms_are_found(monkeypatch, method):
    # The drift of (a) and (b) knows the gradient only: one that belongs to another function than R.
    right = getattr(Waves, method)
    monkeypatch.setattr(Waves, method, lambda psi, x: 1.2 * right(psi, x))
    failed = failures(residuals.waves(SELF, grid=Grid(90, 40), **FEW))
    assert any(name.startswith("(a)") for name in failed)
    assert any(name.startswith("(b)") for name in failed)


def test_wrong_drift_breaks_the_sharp_bound(monkeypatch):
    right = Slope.gradient
    monkeypatch.setattr(Slope, "gradient", lambda psi, x: 1.05 * right(psi, x))
    assert "(d) W2 of ODE and SDE" in failures(residuals.sharp(SELF, grid=Grid(60, 60, 3)))


def masses(covariance, mean, edges):
    """Of a Gaussian in the squares of a lattice, by the middles of ninths."""
    n = len(edges) - 1
    h = (edges[1] - edges[0]) / 3.0
    side = edges[0] + h * (np.arange(3 * n) + 0.5)
    x = np.stack(np.meshgrid(side, side, indexing="ij"), -1).reshape(-1, 2)
    p = GaussianMixture([mean], [covariance])(x)
    return h**2 * p.reshape(n, 3, n, 3).sum(axis=(1, 3))


def bures(a, b):
    """Square of the distance of centred Gaussians."""
    root = np.linalg.cholesky(a)
    return np.trace(a + b) - 2.0 * np.sqrt(np.linalg.eigvals(root.T @ b @ root).real).sum()


def test_distances_in_the_plane_are_between_their_bounds():
    edges = np.linspace(-4.0, 4.0, 61)
    one, two = np.diag([0.4, 0.3]), np.diag([0.3, 0.5])
    p, q = masses(one, (0.0, 0.1), edges), masses(two, (0.3, 0.0), edges)
    # Neither coordinate knows of the other: all three are one.
    exact = np.sqrt(0.3**2 + 0.1**2 + bures(one, two))
    assert bracket(p, q, edges) == pytest.approx([exact, exact], rel=2e-3)
    assert bracket(p, p, edges) == (0.0, 0.0)
    tilted = np.array([[0.4, 0.2], [0.2, 0.3]])
    least, most = bracket(p, masses(tilted, (0.0, 0.1), edges), edges)
    assert 1.1 * least < np.sqrt(bures(one, tilted)) < most
    # Quantiles of one coordinate, then of the other, are the roots of Cholesky.
    costs = []
    for order in ([0, 1], [1, 0]):
        a, b = (np.linalg.cholesky(c[np.ix_(order, order)]) for c in (one, tilted))
        costs.append(((a - b) ** 2).sum())
    assert most == pytest.approx(np.sqrt(min(costs)), rel=2e-2)


def test_bound_is_reached_in_the_plane():
    # A Gaussian at rest whose score is off by c exp(-3 t) along the first axis, as in ``sharp``.
    c, small = 3.0, 0.02
    process = OrnsteinUhlenbeck(6.0)
    model = TrainedNetwork(
        process, np.zeros((2, 1)), np.array([small]), np.zeros(1), np.array([[c / small, 0.0]])
    )
    samplers = PlaneSamplers(model, Box(SELF, 2, 3.7))
    least, most, *_, bound = samplers.distances(Grid(40, 48, 3), samplers)
    assert [least, most, bound] == pytest.approx([c / 12.0] * 3, rel=2e-2)


def test_network_is_trained():
    data = OrnsteinUhlenbeck(3.0).of(residuals.NEAR)
    first, last = (TrainedNetwork.trained(data, 8, iterations=k) for k in (0, 60))
    t, h = 0.2, 1e-5
    x = data.density(t).sample(4000, seed=5)
    errors = [((m.values(t, x) - data.values(t, x)) ** 2).sum(axis=1).mean() for m in (first, last)]
    assert errors[1] < 0.3 * errors[0]
    y, steps = x[:20], h * np.eye(2)
    ends = [(last.values(t, y + e) - last.values(t, y - e)) @ e for e in steps]
    assert last.divergence(t, y) == pytest.approx(sum(ends) / (2.0 * h**2), abs=1e-6)
    assert last.size == 8 * (2 + 1 + 1 + 2)


def test_bound_of_another_drift_is_broken(monkeypatch):
    right = PlaneSamplers.ode
    grid = Grid(16, 16, 3)
    few = {"width": 6, "iterations": 60, "grid": grid}
    assert not failures(residuals.trained(SELF, **few))

    def stronger(samplers, at):
        model = samplers.model
        return right(replace(samplers, model=replace(model, outer=1.6 * model.outer)), at)

    monkeypatch.setattr(PlaneSamplers, "ode", stronger)
    assert any("at most, over" in name for name in failures(residuals.trained(SELF, **few)))


@pytest.mark.parallel([2])
def test_rows_in_the_plane_are_the_same_on_all_ranks():
    few = {"width": 4, "iterations": 20, "grid": Grid(14, 12, 3)}
    alone, shared = (residuals.trained(c, **few) for c in (SELF, WORLD))
    for a, b in zip(alone.rows, shared.rows, strict=True):
        assert b.measured == pytest.approx(a.measured, rel=1e-6)


@pytest.mark.parallel([2])
def test_rows_are_the_same_on_all_ranks():
    alone, shared = (residuals.waves(c, grid=Grid(90, 20), **FEW) for c in (SELF, WORLD))
    for a, b in zip(alone.rows, shared.rows, strict=True):
        assert a.quantity == b.quantity
        assert b.measured == pytest.approx(a.measured, rel=1e-6, abs=1e-8)
        assert a.passed == b.passed
