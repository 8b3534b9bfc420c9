"""Reversed noising: the checks pass, at other parameters too, and fail for defects."""

import math

import numpy as np
import pytest
from problems import SELF, WORLD, failures

from fpcontrol.noise import Noise
from fpcontrol.reference import MoserFlow
from fpcontrol.theorems.closed_forms.noising import (
    CosineHeat,
    OrnsteinUhlenbeck,
    Piece,
    PiecewiseHeat,
    entropy,
)
from fpcontrol.theorems.closed_forms.profiles import jump
from fpcontrol.theorems.experiments import early_stops, score_limits, vacuum
from fpcontrol.theorems.framework.resolution import Grid, measured
from fpcontrol.theorems.statements import score_matching

OTHER = {"sigma": 0.35, "t1": 0.7}
FAST = {"stops": (1e-2, 1e-3), "grid": Grid(100, 8)}


OTHERS = {
    "disconnected": lambda comm: score_matching.entropies(comm, "disconnected", **OTHER, **FAST),
    "jump": lambda comm: score_matching.entropies(comm, "jump", **OTHER, **FAST),
    "gap": lambda comm: vacuum.energies(comm, depths=(1e-2, 1e-5, 1e-8), cells=800, **OTHER),
    "bounded": lambda comm: vacuum.bounded_fields(
        comm, limits=(2.0, 12.0), grid=Grid(100, 25), cells=30, **OTHER
    ),
    "masses": lambda comm: score_limits.mode_weights(comm, masses=(0.8, 0.3), **OTHER),
    "walls": lambda comm: early_stops.walls_or_line(
        comm, amplitude=0.4, reach=1.5, grid=Grid(100, 8), **OTHER
    ),
    "walls, small jumps": lambda comm: early_stops.walls_or_line(
        comm, amplitude=0.9, reach=1.5, grid=Grid(60, 4)
    ),
    "walls, much noise": lambda comm: early_stops.walls_or_line(
        comm, amplitude=0.2, sigma=0.8, reach=3.0, grid=Grid(60, 4)
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_parameters_pass(name):
    assert not failures(OTHERS[name](SELF))


# Short runs: what is tested is that ranks agree.
SHORT = {
    "disconnected": lambda comm: score_matching.entropies(
        comm, "disconnected", stops=(0.5, 0.3), grid=Grid(20, 1)
    ),
    "gap": lambda comm: vacuum.energies(comm, depths=(1e-1, 1e-2), cells=20),
    "bounded": lambda comm: vacuum.bounded_fields(
        comm, limits=(1.0, 2.0), grid=Grid(20, 2), cells=8
    ),
    "masses": lambda comm: score_limits.mode_weights(comm, distances=(2.0, 4.0), grid=Grid(60, 3)),
    "walls": lambda comm: early_stops.walls_or_line(
        comm, stops=(0.6, 0.5), reach=1.5, grid=Grid(20, 1)
    ),
}


@pytest.mark.parallel(2)
@pytest.mark.parametrize("name", SHORT)
def test_rows_are_the_same_on_all_ranks(name):
    alone, collective_errors = SHORT[name](SELF), SHORT[name](WORLD)
    for a, b in zip(alone.rows, collective_errors.rows, strict=True):
        assert a.quantity == b.quantity
        # Characteristics: where the largest error of a step is, is not where it is on one rank.
        assert b.measured == pytest.approx(a.measured, rel=1e-6, abs=1e-9)
        assert a.passed == b.passed


def test_error_of_a_figure_of_low_order_is_told():
    # True errors of h^(1/2) at h = 1/8 and 1/16.
    for order, figure in ((1.0, lambda h: h), (0.5, lambda h: h**0.5), (1.0, lambda h: h * h)):
        value, error = measured(lambda grid, f=figure: 3.0 + f(1.0 / grid.cells), Grid(8, 1), order)
        assert error >= abs(value - 3.0) * (1.0 - 1e-12)
    with pytest.raises(ValueError, match="order"):
        measured(lambda grid: 1.0, Grid(8, 1), 2.0)


# -- closed forms ----------------------------------------------------------------------------------

X = np.linspace(0.003, 0.997, 101)


@pytest.mark.parametrize("s", [1e-4, 1e-2, 0.3, 0.49, 0.51, 2.0])
def test_images_and_cosines_are_the_same_heat_flow(s):
    D = 0.1
    images = PiecewiseHeat((Piece(0.0, 0.5, 0.4), Piece(0.5, 1.0, 1.6)), D)
    series = CosineHeat(jump(), D)
    assert images.log_density(s, X) == pytest.approx(series.log_density(s, X), abs=1e-11)
    assert images.score(s, X) == pytest.approx(series.score(s, X), abs=1e-9)
    wave = PiecewiseHeat((Piece(0.0, 1.0, 1.0, -0.5, 2.0 * math.pi),), D)
    exact = 1.0 - 0.5 * math.exp(-4.0 * math.pi**2 * D * s) * np.cos(2.0 * math.pi * X)
    assert np.exp(wave.log_density(s, X)) == pytest.approx(exact, abs=1e-12)


def test_score_is_right_where_the_density_underflows():
    heat = PiecewiseHeat((Piece(0.05, 0.35, 7 / 3), Piece(0.65, 0.95, 1.0)), 0.05)
    x, s, h = np.linspace(0.36, 0.64, 57), 1e-4, 1e-6
    log_p = heat.log_density(s, x)
    assert log_p.min() < -1000.0
    difference = (heat.log_density(s, x + h) - heat.log_density(s, x - h)) / (2.0 * h)
    # In the middle, where two tails meet, the score jumps within 1e-5.
    apart = np.abs(x - 0.5) > 1e-4
    assert heat.score(s, x)[apart] == pytest.approx(difference[apart], rel=1e-6)


def test_ornstein_uhlenbeck_is_a_mixture_of_gaussians():
    D, rate, s = 0.1, 0.8, 0.6
    noising = OrnsteinUhlenbeck(
        PiecewiseHeat((Piece(0.0, 1.0, 1.0, -0.5, 2.0 * math.pi),), D, walls=False), rate
    )
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
    heat = score_matching.DATA["disconnected"](D)
    hat, w = np.polynomial.legendre.leggauss(4)
    x = (np.arange(400)[:, None] + 0.5 * hat + 0.5).ravel() / 400
    fisher = np.tile(0.5 * w / 400, 400) @ (np.exp(heat.log_density(s, x)) * heat.score(s, x) ** 2)
    rate = (entropy(heat, s + ds) - entropy(heat, s - ds)) / (2.0 * ds)
    assert rate == pytest.approx(-D * fisher, rel=1e-6)


def test_limit_of_the_energy_of_two_islands():
    # 4 D (H(p_0) - H(p_T)) with 0.7 and 0.3 on two intervals of length 0.3, D = 0.1, T = 1.
    heat, D = score_matching.DATA["disconnected"](0.1), 0.1
    start = 0.7 * math.log(0.7 / 0.3)  # the other island has density 1
    assert 4.0 * D * (start - entropy(heat, 1.0)) == pytest.approx(0.23182, abs=1e-5)


# -- defects are found -----------------------------------------------------------------------------


class TwiceTheNoise(Noise):
    """sigma**2 in place of sigma**2/2."""

    def diffusivity(self, t):
        return 2.0 * super().diffusivity(t)


def test_wrong_diffusivity_is_found(monkeypatch):
    monkeypatch.setattr("fpcontrol.fokker_planck.Noise", TwiceTheNoise)
    short = {"stops": (0.1, 0.05), "grid": Grid(40, 4)}
    assert any(
        "L2 distance of the reversal to p_s" in name
        for name in failures(score_matching.entropies(SELF, "kink", **short))
    )
    assert failures(score_limits.mode_weights(SELF, distances=(2.0, 8.0), grid=Grid(60, 10)))


@pytest.mark.parametrize("factor", [0.5, 0.99])
def test_wrong_score_is_found(monkeypatch, factor):
    # 0.5: the drift of the reversed ODE in the SDE; 0.99: a score that is 1 % off.
    right = CosineHeat.score
    monkeypatch.setattr(CosineHeat, "score", lambda self, s, x: factor * right(self, s, x))
    assert failures(score_matching.entropies(SELF, "kink", stops=(0.1, 0.05), grid=Grid(20, 3)))


def test_walls_that_do_not_reflect_the_noising_are_found(monkeypatch):
    data = (Piece(0.05, 0.35, 7 / 3), Piece(0.65, 0.95, 1.0))
    monkeypatch.setitem(
        score_matching.DATA, "disconnected", lambda D: PiecewiseHeat(data, D, walls=False)
    )
    assert failures(score_matching.entropies(SELF, stops=(0.1, 0.01), grid=Grid(40, 4)))


def test_missing_pull_is_found(monkeypatch):
    monkeypatch.setattr(OrnsteinUhlenbeck, "pull", lambda self, x: np.zeros_like(x))
    found = failures(
        early_stops.walls_or_line(SELF, stops=(0.1, 0.05), reach=1.5, grid=Grid(20, 3))
    )
    assert any(name.startswith("line: relative L2 distance") for name in found)


def test_wrong_sign_of_the_potential_is_found(monkeypatch):
    right = MoserFlow._solve_potential
    monkeypatch.setattr(MoserFlow, "_solve_potential", lambda self: -right(self))
    found = failures(vacuum.energies(SELF, depths=(1e-1, 1e-3), cells=40))
    assert any(name.startswith("path divergence") for name in found)


def test_fields_that_stay_small_are_found(monkeypatch):
    right = vacuum.Bounded.__call__
    monkeypatch.setattr(vacuum.Bounded, "__call__", lambda self, t, x: 0.5 * right(self, t, x))
    found = failures(vacuum.bounded_fields(SELF, limits=(1.0, 10.0), grid=Grid(60, 10), cells=16))
    assert any("sigma = 0.3" in name for name in found)
    assert any("sigma = 0," in name for name in found)


def test_langevin_of_the_masses_asked_for_is_told_from_that_of_others(monkeypatch):
    # Far modes that do move: the drift of one mode only.
    monkeypatch.setattr(score_limits, "_langevin", lambda D, m, a, x: -D * (x - m))
    assert failures(score_limits.mode_weights(SELF, distances=(2.0, 8.0), grid=Grid(60, 20)))
