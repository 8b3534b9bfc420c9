"""Noising processes: closed forms against each other, and their reversals."""

import math

import numpy as np
import pytest
from problems import SELF

import fpcontrol as fpc
from fpcontrol.characteristics.flow import Markers, carry
from fpcontrol.noising.line import CosineHeat, entropy, reverse
from fpcontrol.noising.pieces import OrnsteinUhlenbeckOfPieces, Piece, PiecewiseHeat
from fpcontrol.quadrature import composite
from fpcontrol.theorems.closed_forms.profiles import jump

ISLANDS = (Piece(0.05, 0.35, 7 / 3), Piece(0.65, 0.95, 1.0))
WAVE = (Piece(0.0, 1.0, 1.0, -0.5, 2.0 * math.pi),)

X = np.linspace(0.003, 0.997, 101)


@pytest.mark.parametrize("s", [1e-4, 1e-2, 0.3, 0.49, 0.51, 2.0])
def test_images_and_cosines_are_the_same_heat_flow(s):
    D = 0.1
    images = PiecewiseHeat((Piece(0.0, 0.5, 0.4), Piece(0.5, 1.0, 1.6)), D)
    series = CosineHeat(jump().value, D, (0.5,))
    assert images.log_density(s, X) == pytest.approx(series.log_density(s, X), abs=1e-11)
    assert images.score(s, X) == pytest.approx(series.score(s, X), abs=1e-9)
    wave = PiecewiseHeat(WAVE, D)
    exact = 1.0 - 0.5 * math.exp(-4.0 * math.pi**2 * D * s) * np.cos(2.0 * math.pi * X)
    assert np.exp(wave.log_density(s, X)) == pytest.approx(exact, abs=1e-12)


def test_score_is_right_where_the_density_underflows():
    heat = PiecewiseHeat(ISLANDS, 0.05)
    x, s, h = np.linspace(0.36, 0.64, 57), 1e-4, 1e-6
    log_p = heat.log_density(s, x)
    assert log_p.min() < -1000.0
    difference = (heat.log_density(s, x + h) - heat.log_density(s, x - h)) / (2.0 * h)
    # In the middle, where two tails meet, the score jumps within 1e-5.
    apart = np.abs(x - 0.5) > 1e-4
    assert heat.score(s, x)[apart] == pytest.approx(difference[apart], rel=1e-6)


def test_ornstein_uhlenbeck_is_a_mixture_of_gaussians():
    D, rate, s = 0.1, 0.8, 0.6
    noising = OrnsteinUhlenbeckOfPieces(PiecewiseHeat(WAVE, D, walls=False), rate)
    hat, w = np.polynomial.legendre.leggauss(60)
    y, w = 0.5 * hat + 0.5, 0.5 * w
    data = 1.0 - 0.5 * np.cos(2.0 * math.pi * y)
    middle = 0.5 + (y - 0.5) * math.exp(-rate * s)
    variance = D / rate * (1.0 - math.exp(-2.0 * rate * s))
    x = np.linspace(-1.5, 2.5, 41)
    kernel = np.exp(-((x[:, None] - middle) ** 2) / (2.0 * variance))
    p = kernel @ (w * data) / math.sqrt(2.0 * math.pi * variance)
    slope = (kernel * (middle - x[:, None])) @ (w * data) / variance
    assert noising.log_density(s, x) == pytest.approx(np.log(p), abs=1e-11)
    score = slope / (p * math.sqrt(2.0 * math.pi * variance))
    assert noising.score(s, x) == pytest.approx(score, rel=1e-9)


def test_entropy_falls_by_the_fisher_information():
    D, s, ds = 0.1, 0.02, 1e-5
    heat = PiecewiseHeat(ISLANDS, D)
    x, w = composite(np.linspace(0.0, 1.0, 401), 4)
    fisher = w @ (np.exp(heat.log_density(s, x)) * heat.score(s, x) ** 2)
    rate = (entropy(heat, s + ds) - entropy(heat, s - ds)) / (2.0 * ds)
    assert rate == pytest.approx(-D * fisher, rel=1e-6)


# -- reversal --------------------------------------------------------------------------------------


def test_reverse_sde_comes_back_to_the_data():
    noising, t1, stop = PiecewiseHeat(WAVE, 0.1), 0.5, 1e-3
    mesh = fpc.mesh.interval(SELF, 64)
    start = fpc.density.interpolate(mesh, lambda x: np.exp(noising.log_density(t1, x[0])))
    goal = fpc.density.interpolate(mesh, lambda x: np.exp(noising.log_density(stop, x[0])))
    run = fpc.FokkerPlanck(mesh, reverse(noising, t1), math.sqrt(0.2)).solve(start, t1 - stop, 100)
    assert fpc.distances.l2(run[-1], goal) < 1e-3
    assert fpc.distances.l2(run[-1], start) > 0.1


def test_reverse_ode_comes_back_to_the_data():
    noising, t1 = PiecewiseHeat(WAVE, 0.1), 0.5
    markers = Markers.on_interval(SELF, 50, lambda x: np.exp(noising.log_density(t1, x[:, 0])))
    flow = carry(markers, reverse(noising, t1, ode=True), [0.0, t1 - 1e-3], rtol=1e-8, atol=1e-8)
    error = flow.l2_errors(lambda t, x: np.exp(noising.log_density(t1 - t, x[:, 0])))
    assert error[-1] < 1e-6
