"""Moser's field: the checks pass, at other parameters too, and fail for defects."""

from dataclasses import replace

import numpy as np
import pytest
from problems import SELF, WORLD, failures

from fpcontrol.characteristics.flow import carry
from fpcontrol.discretization.elements import Elements, lagrange
from fpcontrol.noise import Noise
from fpcontrol.reference import MoserFlow
from fpcontrol.theorems.closed_forms.profiles import (
    StraightLine,
    cosine,
    islands,
    jump,
    kink,
    nodes,
    uniform,
)
from fpcontrol.theorems.experiments import moser_stability
from fpcontrol.theorems.framework.resolution import Grid, disk, l_shape
from fpcontrol.theorems.runs import moser_runs
from fpcontrol.theorems.statements import moser

OTHER = {"sigma": 0.35, "t1": 0.7}


OTHERS = {
    "interval": lambda comm: moser.exactness(comm, "interval", **OTHER),
    "l_shape": lambda comm: moser.exactness(comm, "l_shape", grid=Grid(6, 6, 3), **OTHER),
    "little noise": lambda comm: moser.exactness(comm, sigma=0.05, t1=0.7),
    "much noise": lambda comm: moser.exactness(comm, "l_shape", sigma=1.5, t1=3.0, grid=Grid(8, 8)),
    "smooth": lambda comm: moser.without_noise(comm, "smooth", t1=0.7),
    "regularity": lambda comm: moser.regularity(comm, **OTHER),
    "regularity, little noise": lambda comm: moser.regularity(comm, sigma=0.1),
    "ripples": lambda comm: moser_stability.ripples(
        comm, a=3.0, frequencies=(2, 4), steps=10, **OTHER
    ),
    "ripples, short time": lambda comm: moser_stability.ripples(
        comm, a=0.5, t1=0.1, frequencies=(1, 2, 4), steps=12
    ),
    "ripples, smooth goal": lambda comm: moser_stability.ripples(
        comm, goal="smooth", a=3.0, frequencies=(2,), steps=10, **OTHER
    ),
    "no noise": lambda comm: moser_stability.ripples_without_noise(comm, a=3.0, t1=0.7),
    "no noise, strong": lambda comm: moser_stability.ripples_without_noise(
        comm, a=5.0, frequencies=(1, 2)
    ),
    "smoothed": lambda comm: moser_stability.smoothings(
        comm, limits=(0.2, 0.4), widths=(0.08, 0.04), grid=Grid(200, 8), **OTHER
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_parameters_pass(name):
    assert not failures(OTHERS[name](SELF))


# Short runs: what is tested is that ranks agree.
SHORT = {
    "square": lambda comm: moser.exactness(comm, "square", grid=Grid(4, 3)),
    "disk": lambda comm: moser.exactness(comm, "disk", grid=Grid(4, 3)),
    "kink": lambda comm: moser.without_noise(comm, "kink", cells=40, rtol=1e-7),
    "regularity": lambda comm: moser.regularity(comm, cells=16),
    "ripples": lambda comm: moser_stability.ripples(comm, frequencies=(1,), steps=1),
    "no noise": lambda comm: moser_stability.ripples_without_noise(comm, frequencies=(1, 2)),
}


@pytest.mark.parallel(2)
@pytest.mark.parametrize("name", SHORT)
def test_rows_are_the_same_on_all_ranks(name):
    alone, collective_errors = SHORT[name](SELF), SHORT[name](WORLD)
    for a, b in zip(alone.rows, collective_errors.rows, strict=True):
        assert a.quantity == b.quantity
        assert b.measured == pytest.approx(a.measured, rel=1e-6, abs=1e-9)
        assert a.passed == b.passed


# -- figures ---------------------------------------------------------------------------------------


def test_mass_coordinates_know_the_limit_without_noise():
    # Noise that is small against the ripple: |g - 1| of the characteristics, from another equation.
    line = StraightLine(uniform(), uniform(), 1.0)
    error = moser_stability.in_mass_coordinates(line, 1e-3, 2.0, 2.0 * np.pi, cells=3200)
    assert error == pytest.approx(np.sqrt(np.cosh(2.0) - 1.0), rel=2e-3)


def test_bound_is_attained_at_its_share():
    # One mode answering to a steady field reaches 0.9025 of the bound, whatever the reference.
    flow = moser_runs.flow_on_interval(SELF, StraightLine(uniform(), kink()), 0.5, Grid(200, 1))
    change = moser_stability.ripple(StraightLine(uniform(), kink()), 2.0, 2.0 * np.pi * 16)
    assert moser_runs.response(flow, change, 20)[2] == pytest.approx(0.9025, rel=2e-3)


@pytest.mark.parametrize(
    "profile", [uniform(), cosine(0.6, 3), jump(0.3, 0.25), kink(0.2, 0.6), islands(0.01, 0.6)]
)
def test_profiles_are_consistent(profile):
    x, w = nodes(profile.breaks)
    assert w @ profile.value(x) == pytest.approx(1.0, abs=1e-12)
    assert profile.cdf(np.array([0.0, 1.0])) == pytest.approx([0.0, 1.0], abs=1e-14)
    inside, h = np.array([0.03, 0.19, 0.41, 0.77]), 1e-5
    for f, derivative in ((profile.cdf, profile.value), (profile.value, profile.slope)):
        difference = (f(inside + h) - f(inside - h)) / (2.0 * h)
        assert difference == pytest.approx(derivative(inside), abs=1e-6)


def test_quantiles_invert():
    line = StraightLine(uniform(), kink())
    y = np.linspace(0.0, 1.0, 33)
    assert line.cdf(0.3, line.quantile(0.3, y)) == pytest.approx(y, abs=1e-6)


def test_domains_have_their_areas():
    area = [Elements(lagrange(f(SELF, 24), 1)).volume for f in (l_shape, disk)]
    assert area[0] == pytest.approx(0.75, rel=1e-12)
    assert area[1] == pytest.approx(np.pi / 4.0, rel=2e-3)  # a polygon of 96 corners


# -- defects are found -----------------------------------------------------------------------------


class TwiceTheNoise(Noise):
    """sigma**2 in place of sigma**2/2."""

    def diffusivity(self, t):
        return 2.0 * super().diffusivity(t)


def test_wrong_diffusivity_in_the_equation_is_found(monkeypatch):
    monkeypatch.setattr("fpcontrol.fokker_planck.Noise", TwiceTheNoise)
    assert "relative L2 distance to the line, max" in failures(
        moser.exactness(SELF, grid=Grid(20, 4))
    )
    assert failures(moser_stability.ripples(SELF, frequencies=(1,), steps=3))


def test_wrong_sign_of_the_potential_is_found(monkeypatch):
    right = MoserFlow._solve_potential
    monkeypatch.setattr(MoserFlow, "_solve_potential", lambda self: -right(self))
    found = failures(moser.exactness(SELF, grid=Grid(20, 4)))
    assert "relative L2 distance to the line, max" in found
    assert any("control, wrong sign" in name for name in found)


@pytest.mark.parametrize("name", ["interval", "square"])
def test_drift_to_the_order_of_the_mesh_is_found(monkeypatch, name):
    right = MoserFlow._solve_potential
    # What a potential of another space, or a loose solver, would be off by.
    monkeypatch.setattr(MoserFlow, "_solve_potential", lambda self: right(self) * (1.0 + 1e-7))
    assert failures(moser.exactness(SELF, name, grid=Grid(6, 3)))


def test_missing_noise_part_is_found(monkeypatch):
    class Frozen(Noise):
        def diffusivity(self, t):
            return 0.0

    monkeypatch.setattr("fpcontrol.reference.Noise", Frozen)
    assert len(failures(moser.regularity(SELF, cells=32))) == 2


@pytest.mark.parametrize(
    ("method", "wrong"),
    [
        ("flux", lambda right: lambda self, x: 1.001 * right(self, x)),
        ("slope", lambda right: lambda self, t, x: 0.0 * right(self, t, x)),
    ],
)
def test_wrong_field_without_noise_is_found(monkeypatch, method, wrong):
    right = getattr(StraightLine, method)
    monkeypatch.setattr(StraightLine, method, wrong(right))
    assert failures(moser.without_noise(SELF, "kink", cells=20))


def test_ripple_left_behind_by_the_flow_is_found(monkeypatch):
    right = StraightLine.cdf
    monkeypatch.setattr(StraightLine, "cdf", lambda self, t, x: right(self, 0.0, x))
    assert failures(moser_stability.ripples_without_noise(SELF))


def test_smearing_in_place_of_characteristics_is_found(monkeypatch):
    # What an upwind scheme does: log J relaxes towards its mean.
    def smeared(*args, **kwargs):
        flow = carry(*args, **kwargs)
        return replace(flow, log_jacobian=0.97 * flow.log_jacobian)

    monkeypatch.setattr(moser_stability, "carry", smeared)
    assert failures(moser_stability.ripples_without_noise(SELF))


def test_bound_with_a_quarter_of_its_constant_is_found(monkeypatch):
    right = moser_stability.response

    def halved(*args):
        error, bound, ratio = right(*args)
        return error, 0.5 * bound, 2.0 * ratio

    monkeypatch.setattr(moser_stability, "response", halved)
    assert any("bound" in name for name in failures(OTHERS["ripples"](SELF)))
