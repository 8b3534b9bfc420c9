"""Moser's field: the checks pass at other parameters too; profiles and domains."""

import numpy as np
import pytest
from problems import SELF, WORLD, failures

from fpcontrol.discretization.elements import Elements, lagrange
from fpcontrol.quadrature import graded
from fpcontrol.theorems.closed_forms.profiles import (
    StraightLine,
    cosine,
    islands,
    jump,
    kink,
    uniform,
)
from fpcontrol.theorems.closed_forms.ripples import Comoving
from fpcontrol.theorems.experiments import moser_stability
from fpcontrol.theorems.framework.resolution import Grid, disk, l_shape
from fpcontrol.theorems.runs import moser_runs
from fpcontrol.theorems.statements import moser

OTHER = {"sigma": 0.35, "t1": 0.7}


OTHERS = {
    "interval": lambda comm: moser.exactness(comm, domain="interval", **OTHER),
    "l_shape": lambda comm: moser.exactness(comm, domain="l_shape", grid=Grid(6, 6, 3), **OTHER),
    "little noise": lambda comm: moser.exactness(comm, sigma=0.05, t1=0.7),
    "much noise": lambda comm: moser.exactness(
        comm, domain="l_shape", sigma=1.5, t1=3.0, grid=Grid(8, 8)
    ),
    "smooth": lambda comm: moser.without_noise(comm, goal="smooth", t1=0.7),
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


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_other_parameters_pass(name):
    assert not failures(OTHERS[name](SELF))


# Short runs: what is tested is that ranks agree.
SHORT = {
    "square": lambda comm: moser.exactness(comm, domain="square", grid=Grid(4, 3)),
    "disk": lambda comm: moser.exactness(comm, domain="disk", grid=Grid(4, 3)),
    "kink": lambda comm: moser.without_noise(comm, goal="kink", cells=40, rtol=1e-7),
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
    line = StraightLine.to(uniform())
    error = moser_stability.in_mass_coordinates(line, 1e-3, 2.0, 2.0 * np.pi, cells=3200)
    assert error == pytest.approx(np.sqrt(np.cosh(2.0) - 1.0), rel=2e-3)


def test_bound_is_attained_at_its_share():
    # One mode answering to a steady field reaches 0.9025 of the bound, whatever the reference.
    line = StraightLine.to(kink())
    flow = moser_runs.flow_on_interval(SELF, line, 0.5, Grid(200, 1))
    drift = flow.drift + Comoving(line, 2.0, 2.0 * np.pi * 16)
    assert moser_runs.response(flow, drift, 20)[2] == pytest.approx(0.9025, rel=2e-3)


@pytest.mark.parametrize(
    "profile", [uniform(), cosine(0.6, 3), jump(0.3, 0.25), kink(0.2, 0.6), islands(0.01, 0.6)]
)
def test_profiles_are_consistent(profile):
    x, w = graded(profile.breaks)
    assert w @ profile.value(x) == pytest.approx(1.0, abs=1e-12)
    assert profile.cdf(np.array([0.0, 1.0])) == pytest.approx([0.0, 1.0], abs=1e-14)
    inside, h = np.array([0.03, 0.19, 0.41, 0.77]), 1e-5
    for f, derivative in ((profile.cdf, profile.value), (profile.value, profile.slope)):
        difference = (f(inside + h) - f(inside - h)) / (2.0 * h)
        assert difference == pytest.approx(derivative(inside), abs=1e-6)


def test_quantiles_invert():
    y = np.linspace(0.0, 1.0, 33)
    for goal in (kink(), jump(), cosine(), islands(1e-6)):
        for t in (0.3, 1.0):
            rho = StraightLine.to(goal).at(t)
            assert rho.cdf(rho.quantile(y)) == pytest.approx(y, abs=1e-14)


def test_domains_have_their_areas():
    area = [Elements(lagrange(f(SELF, 24), 1)).volume for f in (l_shape, disk)]
    assert area[0] == pytest.approx(0.75, rel=1e-12)
    assert area[1] == pytest.approx(np.pi / 4.0, rel=2e-3)  # a polygon of 96 corners
