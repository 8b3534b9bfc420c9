"""Scores in other libraries, where these are installed."""

import numpy as np
import pytest
from problems import SELF

import fpcontrol as fpc
from fpcontrol.noising import GaussianMixture, OrnsteinUhlenbeck
from fpcontrol.score import JaxScore, compare

DATA = OrnsteinUhlenbeck(t1=8.0).of(GaussianMixture([[-0.8, 0.0]], 0.2))


def gaussian(weights, t, x):
    """Logarithm of the noised density of DATA; the mean is a weight."""
    import jax.numpy as jnp

    v = 0.5 * (1.0 - jnp.exp(-2.0 * t)) + weights["variance"] * jnp.exp(-2.0 * t)
    return -((x - weights["mean"] * jnp.exp(-t)) ** 2).sum() / (2.0 * v)


WEIGHTS = {"mean": np.array([-0.8, 0.0], dtype=np.float32), "variance": 0.2}


def test_log_density_in_jax_is_a_score_with_all_derivatives():
    pytest.importorskip("jax")
    model = JaxScore(gaussian, WEIGHTS)
    x, s = np.random.default_rng(0).normal(size=(2, 30, 2))
    assert model.values(0.3, x).dtype == np.float64
    assert model.values(0.3, x) == pytest.approx(DATA.score(0.3, x), rel=1e-6)
    assert model.divergence(0.3, x) == pytest.approx(DATA.divergence(0.3, x), rel=1e-10)
    assert model.size == 3
    h = 1e-5
    up, down = (JaxScore(gaussian, WEIGHTS | {"variance": 0.2 + e}).values(0.3, x) for e in (h, -h))
    slope = (s * (up - down)).sum() / (2.0 * h)
    assert model.vjp(0.3, x, s)[-1] == pytest.approx(slope, rel=1e-6)
    drift = DATA.process.reverse(model, 0.5)
    assert drift.vjp(DATA.process.t1 - 0.3, x, s) == pytest.approx(0.625 * model.vjp(0.3, x, s))
    field = JaxScore(lambda w, t, x: -x)  # a score itself, without weights
    assert field.values(0.1, x) == pytest.approx(-x)
    assert field.divergence(0.1, x) == pytest.approx(np.full(30, -2.0))
    with pytest.raises(ValueError, match="shape"):
        JaxScore(lambda w, t, x: x[:1]).values(0.1, x)


def test_score_in_jax_is_compared_like_any_other():
    pytest.importorskip("jax")
    mesh = fpc.mesh.rectangle(SELF, (10, 10), (-4.0, -4.0), (4.0, 4.0))
    lab = compare(JaxScore(gaussian, WEIGHTS), DATA, mesh, (0.0,), steps=10, atoms=40)
    assert lab[0.0].l2.at_most < 1e-3
    assert lab.score_error.at_most < 1e-6


def test_without_jax_it_says_what_is_needed(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "jax", None)
    with pytest.raises(ImportError, match=r"fpcontrol\[score\]"):
        JaxScore(gaussian, WEIGHTS)
