"""Residuals of wrong log-densities: their derivatives, and that wrong ones are found."""

import numpy as np
import pytest
from problems import SELF, WORLD, failures

from fpcontrol.noising import GaussianMixture, OrnsteinUhlenbeck
from fpcontrol.theorems.closed_forms.wrong_scores import Network, Slope, Waves, WrongLogDensity
from fpcontrol.theorems.framework import Grid
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


@pytest.mark.parallel([2])
def test_rows_are_the_same_on_all_ranks():
    alone, shared = (residuals.waves(c, grid=Grid(90, 20), **FEW) for c in (SELF, WORLD))
    for a, b in zip(alone.rows, shared.rows, strict=True):
        assert a.quantity == b.quantity
        assert b.measured == pytest.approx(a.measured, rel=1e-6, abs=1e-8)
        assert a.passed == b.passed
