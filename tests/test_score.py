"""The densities of samplers against figures known otherwise, and what is to be refused."""

import math

import numpy as np
import pytest
from problems import SELF, WORLD

import fpcontrol as fpc
from fpcontrol.noising import (
    GaussianMixture,
    HeatFlow,
    OrnsteinUhlenbeck,
    PinnedBrownian,
)
from fpcontrol.score import Estimate, RippledScore, compare

LINE = GaussianMixture([-1.2, 1.0], [0.08, 0.15], [0.6, 0.4])
DATA = OrnsteinUhlenbeck(t1=10.0).of(LINE)
PLANE = GaussianMixture([[-1.2, 0.0], [1.0, 0.6]], [0.2, 0.3], [0.4, 0.6])


def line(n, comm=SELF):
    return fpc.mesh.interval(comm, n, -4.5, 4.5)


# L2 and W2 of the SDE and of the ODE, by finite volumes and labels (absolute, to 3 figures).
@pytest.mark.parametrize(
    ("c", "omega", "sde", "ode", "w2_sde", "w2_ode"),
    [
        (2, 4, 0.0604, 0.1072, 0.0273, 0.0310),
        (2, 16, 0.0070, 0.0409, None, 0.0063),
        (8, 8, 0.0911, 0.2632, 0.0249, 0.0605),
        (8, 32, 0.0074, 0.1160, None, 0.0082),
    ],
)
def test_ripples_are_averaged_by_noise_and_not_without(c, omega, sde, ode, w2_sde, w2_ode):
    lab = compare(RippledScore(DATA, c, omega), DATA, line(225), (1.0, 0.0), steps=80)
    for noise, l2, w2 in ((1.0, sde, w2_sde), (0.0, ode, w2_ode)):
        found = lab[noise]
        assert found.l2.value == pytest.approx(l2, rel=0.03, abs=6e-5)
        assert found.l2.error < 0.02 * l2
        assert found.l2.resolved and found.kl.resolved
        assert found.collapsed_mass.at_most < 1e-9
        if w2 is not None:
            assert found.wasserstein.value == pytest.approx(w2, rel=0.03)
    assert lab.norm == pytest.approx(0.690, abs=5e-4)
    # Of sin**2 the mean is 1/2: the score's integrated error in closed form.
    if omega >= 8:
        assert lab.score_error.value == pytest.approx((c / omega) ** 2 / 16.0, rel=0.01)
    assert lab[1.0].certificate.value == pytest.approx(0.5 * lab.score_error.value, rel=1e-5)
    assert 0.01 * lab[1.0].certificate.value < lab[1.0].kl.value < lab[1.0].certificate.value
    assert lab[0.0].certificate.value == math.inf


@pytest.mark.parallel([1, 2, 3])
def test_ranks_agree_and_every_share_of_noise_is_between():
    lab = compare(RippledScore(DATA, 8.0, 8.0), DATA, line(120, WORLD), steps=50)
    values = [[s.l2.value, s.kl.value, s.wasserstein.value] for s in lab]
    exact = [[0.0911, 0.00980, 0.0249], [0.143, 0.0256, 0.0426], [0.2632, 0.0954, 0.0604]]
    assert np.array(values) == pytest.approx(np.array(exact), rel=0.02)
    assert lab[0.5].kl.value < lab[0.5].certificate.value
    bound = 1.25**2 / (8 * 0.25) * lab.score_error.value
    assert lab[0.5].certificate.value == pytest.approx(bound, rel=1e-5)
    assert len(str(lab).splitlines()) == 4


@pytest.mark.parametrize("process", [DATA.process, PinnedBrownian(0.99)], ids=str)
def test_exact_score_gives_the_data_whatever_the_noise(process):
    data = process.of(LINE)
    lab = compare(data, data, line(160), (1.0, 0.3, 0.0), steps=100, start="noised")
    for sampler in lab:
        assert sampler.l2.at_most < 2e-3
        assert sampler.wall_mass.at_most < 1e-8
    assert lab[0.0].l2.at_most < 1e-5
    assert lab[0.0].kl.at_most < 1e-9
    assert not lab[1.0].l2.resolved and str(lab[1.0].l2).startswith("<")
    assert lab.score_error == Estimate(0.0, 0.0)


def test_score_of_the_wrong_sign_is_seen():
    with pytest.raises(ArithmeticError, match="wall"):
        compare(lambda t, x: -DATA.values(t, x), DATA, line(60), (1.0,), steps=30)
    data = OrnsteinUhlenbeck(t1=1.0).of(LINE)
    wrong = compare(
        lambda t, x: -data.values(t, x),
        data,
        line(60),
        (0.0,),
        start="noised",
        wall_tolerance=1.0,
    )
    assert wrong[0.0].l2.value - wrong[0.0].l2.error > 0.1


def test_mass_that_collapses_is_seen():
    def kinked(t, x):
        return DATA.values(t, x) - 2.0 * math.exp(-4.0 * t) * np.tanh(8.0 * np.sin(8.0 * x))

    def smooth(t, x):
        return DATA.values(t, x) - 2.0 * math.exp(-4.0 * t) * np.sin(8.0 * x)

    mesh = line(60)
    lab, other = (
        compare(s, DATA, mesh, (1.0, 0.0), steps=40, tolerance=1e-4) for s in (kinked, smooth)
    )
    assert lab[0.0].collapsed_mass.value > 0.05
    assert lab[0.0].extremes[1] > 1.1 * lab[0.0].coarse_extremes[1]
    assert "mass has collapsed" in str(lab)
    assert lab[1.0].collapsed_mass.value == 0.0 and lab[1.0].l2.resolved
    assert other[0.0].collapsed_mass.value < 1e-3
    assert "mass has collapsed" not in str(other)


@pytest.mark.parametrize("noise", [0.3, 0.05])
def test_little_noise_is_between_the_others_and_its_error_covers_the_truth(noise):
    score = RippledScore(DATA, 8.0, 8.0)
    ode = compare(score, DATA, line(60), (0.0,))[0.0].l2.value
    # Galerkin's, degree 2 on 1200 cells in 600 steps.
    truth = {0.3: 0.18861, 0.05: 0.25868}[noise]
    lab = compare(score, DATA, line(200), (noise,), steps=80, discretization=fpc.Limited())
    found = lab[noise]
    assert found.extremes[0] >= 0.0
    assert found.l2.value < ode
    assert abs(found.l2.value - truth) < found.l2.error + 1e-4 < 0.05 * truth


@pytest.mark.parallel([1, 2, 3])
def test_mixture_in_the_plane_comes_back():
    data = OrnsteinUhlenbeck(t1=8.0).of(PLANE)
    mesh = fpc.mesh.rectangle(WORLD, (12, 12), (-4.0, -4.0), (4.0, 4.0))
    lab = compare(data, data, mesh, (1.0, 0.0), steps=20, atoms=60)
    assert lab[0.0].l2.at_most < 1e-3
    assert lab[0.0].kl.at_most < 1e-5
    assert lab[0.0].collapsed_mass.at_most < 0.05
    assert lab[1.0].l2.at_most < 0.03 * lab.norm
    assert not lab[0.0].wasserstein.resolved
    x = mesh.geometry.x  # densities for pictures are pointwise ones
    assert len(x) and np.abs(lab[0.0].density.x.array - lab.data.x.array).max() < 1e-3


# -- between walls ---------------------------------------------------------------------------------


@pytest.mark.parallel([1, 2])
def test_heat_flow_on_a_mesh_with_its_own_score():
    mesh = fpc.mesh.rectangle(WORLD, (8, 6))
    start = fpc.density.interpolate(mesh, lambda x: 1.0 + 0.5 * np.cos(np.pi * x[0]) * x[1])
    data = HeatFlow(mesh, 0.1, t1=3.0).of(start, steps=20)
    lab = compare(data, data, mesh, (1.0, 0.4), start="noised", atoms=40)
    for sampler in lab:
        assert sampler.l2.at_most < 1e-7
        assert math.isnan(sampler.wall_mass.value)
    with pytest.raises(ValueError, match="lives on a mesh"):
        compare(data, data, mesh, (0.0,), atoms=40)
    with pytest.raises(ValueError, match="later t1"):
        compare(data, data, mesh, (0.0,), start="noised")


def test_heat_flow_on_a_mesh_with_a_score_by_formula():
    D, mesh = 0.1, fpc.mesh.interval(SELF, 40)

    def score(t, x):
        height = 0.5 * math.exp(-D * math.pi**2 * t)
        return -height * math.pi * np.sin(math.pi * x) / (1.0 + height * np.cos(math.pi * x))

    start = fpc.density.interpolate(mesh, lambda x: 1.0 + 0.5 * np.cos(np.pi * x[0]))
    data = HeatFlow(mesh, D, t1=12.0).of(start, steps=60)
    lab = compare(score, data, mesh, (1.0, 0.5, 0.0))
    assert max(s.l2.at_most for s in lab) < 1e-4
    assert lab.score_error.at_most < 1e-6
    wrong = compare(lambda t, x: 0.7 * score(t, x), data, mesh, (1.0, 0.0))
    assert min(s.l2.value for s in wrong) > 0.03
    assert wrong[1.0].kl.value < wrong[1.0].certificate.value


# -- refusals --------------------------------------------------------------------------------------


@pytest.mark.parallel([1, 2])
def test_boxes_that_are_too_small_are_refused():
    small = fpc.mesh.interval(WORLD, 60, -2.0, 2.0)
    with pytest.raises(ArithmeticError, match="larger box"):
        compare(DATA, DATA, small, (1.0,), steps=20)
    with pytest.raises(ArithmeticError, match="point inward"):
        compare(lambda t, x: 0.3 * x, DATA, line(60, WORLD), (1.0,), steps=20)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((DATA, LINE), "process.of"),
        ((3.0, DATA), "score"),
        ((lambda t, x: x[:, 0], DATA), "shape"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        compare(*arguments, line(10), (1.0,), steps=4)
    with pytest.raises(ValueError, match=r"noise = -0\.5"):
        compare(DATA, DATA, line(10), (1.0, -0.5))
    with pytest.raises(ValueError, match="start"):
        compare(DATA, DATA, line(10), start="prior")
    with pytest.raises(KeyError, match=r"0\.7"):
        compare(DATA, DATA, line(60), (1.0,), steps=10)[0.7]


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (0.0604, 1e-5, "0.0604 ± 1e-05"),
        (1e-4, 2e-4, "< 3.0e-04"),
        (math.inf, 0.0, "inf"),
        (math.nan, math.inf, "-"),
        (0.0, 0.0, "0"),
    ],
)
def test_a_figure_is_said_with_its_error(value, error, text):
    assert str(Estimate(value, error)) == text
