"""Continuity in the drift: the checks pass at other parameters too; closed forms."""

import base64
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from problems import SELF, WORLD, failures
from scipy import integrate

import fpcontrol as fpc
from fpcontrol.discretization.elements import Elements
from fpcontrol.drift import Steady
from fpcontrol.theorems.closed_forms import cosine
from fpcontrol.theorems.experiments import constants, oscillations, radial
from fpcontrol.theorems.framework.resolution import Grid
from fpcontrol.theorems.report.pictures import picture
from fpcontrol.theorems.statements import continuity

RANKS = pytest.mark.parallel([1, 2])
DISC = Path(__file__).parents[1] / "meshes" / "disk.xdmf"


OTHERS = {
    "table": lambda comm: continuity.oscillating_table(
        comm, a=3.0, t1=0.7, sigmas=(0.35, 0.05), frequencies=(1, 3)
    ),
    "without noise": lambda comm: continuity.without_noise(
        comm, a=3.0, t1=0.7, frequencies=(1, 3, 9)
    ),
    "short time": lambda comm: continuity.oscillating_table(
        comm, a=1.0, t1=0.3, sigmas=(0.5,), frequencies=(1, 2, 4, 8)
    ),
    "similarity": lambda comm: continuity.similarity(comm, a=3.0, t1=0.7, kappas=(0.02, 2.0, 50.0)),
    "similarity, weak": lambda comm: continuity.similarity(
        comm, a=0.04, kappas=(1.0,), frequencies=(1,)
    ),
    "similarity, strong": lambda comm: continuity.similarity(
        comm, a=5.0, kappas=(0.01,), frequencies=(2,)
    ),
    "blow-up": lambda comm: oscillations.blow_up_family(
        comm, t1=0.7, sigma=0.35, numbers=(1, 3, 5)
    ),
    "square": lambda comm: oscillations.product_form(
        comm, a=3.0, t1=0.7, sigma=0.35, frequencies=(1,)
    ),
    "steady": lambda comm: constants.steady_constants(comm, t1=0.7, sigmas=(0.35, 0.2)),
    "disc": lambda comm: radial.unbounded_differences(comm, radii=(0.2, 0.02, 0.002), exponent=2.4),
    "disc, large": lambda comm: radial.unbounded_differences(comm, radii=(0.3, 0.1)),
    "disc, fast": lambda comm: radial.unbounded_differences(comm, radii=(0.02,), exponent=2.8),
    "disc, slow": lambda comm: radial.unbounded_differences(comm, radii=(0.003,), exponent=2.2),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_other_parameters_pass(name):
    assert not failures(OTHERS[name](SELF))


# Short runs: what is tested is that ranks agree.
SHORT = {
    "oscillating": lambda comm: continuity.oscillating_table(
        comm, sigmas=(0.5,), frequencies=(1,), grid=Grid(24, 8)
    ),
    "without noise": lambda comm: continuity.without_noise(comm, frequencies=(1, 3)),
    "square": lambda comm: oscillations.product_form(
        comm, frequencies=(1,), grid=Grid(6, 3, degree=3)
    ),
    "disc": lambda comm: radial.unbounded_differences(comm, radii=(0.02,), grid=Grid(80, 15)),
}


@pytest.mark.parallel([2])
@pytest.mark.parametrize("name", SHORT)
def test_rows_are_the_same_on_all_ranks(name):
    alone, collective_errors = SHORT[name](SELF), SHORT[name](WORLD)
    for a, b in zip(alone.rows, collective_errors.rows, strict=True):
        assert a.quantity == b.quantity
        # Round-off over quantities that are differences of numbers of order 1.
        assert b.measured == pytest.approx(a.measured, rel=1e-6, abs=1e-9)
        assert a.passed == b.passed


# -- closed forms ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kappa", [0.05, 0.7, 8.0])
def test_cosine_series_solves_the_equation(kappa):
    # Finite differences on the half period and another integrator.
    n, strength = 800, 1.7
    h = np.pi / n
    faces, middle = h * np.arange(1, n), h * (np.arange(n) + 0.5)

    def rate(t, rho):
        flux = kappa * np.diff(rho) / h - np.sin(faces) * 0.5 * (rho[1:] + rho[:-1])
        return np.diff(np.concatenate([[0.0], flux, [0.0]])) / h

    solution = integrate.solve_ivp(
        rate, (0, strength), np.ones(n), method="LSODA", lband=1, uband=1, rtol=1e-8, atol=1e-10
    ).y[:, -1]
    series = cosine.solution(kappa, strength)[-1]
    exact = 1.0 + np.cos(np.outer(middle, np.arange(1, len(series) + 1))) @ series
    assert np.abs(solution - exact).max() < 1e-4 * exact.max()  # second order in h
    shift = np.cumsum(solution * h) - 0.5 * solution * h - middle
    w2 = np.sqrt((shift**2 * solution).mean())
    assert cosine.sup_wasserstein(kappa, strength) == pytest.approx(w2, rel=1e-4)  # at the end


def test_series_meets_the_limits():
    # Linear in kappa towards no noise, and 1/(sqrt(2) kappa) for much.
    e = [cosine.sup_l2(kappa, 2.0) for kappa in (5e-4, 1e-3)]
    assert 2.0 * e[0] - e[1] == pytest.approx(cosine.sup_l2(0.0, 2.0), rel=1e-4)
    w = [cosine.sup_wasserstein(kappa, 2.0) for kappa in (5e-4, 1e-3)]
    assert 2.0 * w[0] - w[1] == pytest.approx(cosine.sup_wasserstein(0.0, 2.0), rel=1e-4)
    assert cosine.sup_l2(1e3, 2.0) == pytest.approx(1.0 / (np.sqrt(2.0) * 1e3), rel=1e-6)


def test_labels_without_noise_agree_with_the_shift_in_closed_form():
    y = (np.arange(100_000) + 0.5) * np.pi / 100_000
    moved = 2.0 * np.arctan(np.exp(1.3) * np.tan(0.5 * y))
    w2 = np.sqrt(((moved - y) ** 2).mean())
    assert cosine.sup_wasserstein(0.0, 1.3) == pytest.approx(w2, rel=1e-8)


@pytest.mark.parametrize("strength", [0.05, 2.0, 5.0])
def test_noise_that_halves_the_error(strength):
    kappa = cosine.half_kappa(strength)
    assert cosine.sup_l2(kappa, strength) == pytest.approx(
        0.5 * np.sqrt(np.cosh(strength) - 1.0), rel=1e-8
    )
    if strength < 0.1:  # one mode comes up, for the time z = kappa aT: 1 - exp(-z) = z/2
        assert kappa * strength == pytest.approx(1.5936, rel=1e-3)


def test_too_strong_a_drift_is_refused():
    with pytest.raises(ValueError, match="at most 6"):
        cosine.half_kappa(7.0)


def test_noise_at_which_runs_are_half_is_that_of_the_closed_form():
    study = continuity.similarity(SELF, a=3.0, kappas=(1.0,), shares=(1.0,), frequencies=(1, 2))
    found = [row.measured for row in study.rows if "1 sigma_c" in row.quantity]
    assert found == pytest.approx([0.5, 0.5], rel=1e-4)
    # Not sqrt(a)/k, which it is near aT = 2 only.
    assert "0.574 $" in study.claim


def test_plane_is_shaded_by_the_closed_form():
    study = continuity.similarity(SELF, a=3.0, kappas=(1.0,), shares=(1.0,), frequencies=(1, 4))
    shade, flat = study.panels[1].shade, np.sqrt(np.cosh(3.0) - 1.0)
    for i, j in ((10, 5), (30, 30), (45, 50), (59, 59)):
        kappa = 0.5 * shade.y[i] ** 2 * shade.x[j] ** 2 / 3.0
        exact = cosine.sup_l2(max(kappa, 1e-3), 3.0) / flat
        assert shade.z[i][j] == pytest.approx(exact, abs=0.02)  # between points of a line
    # The plane and its key are drawn: many more shapes than lines alone have.
    with_plane, alone = (
        base64.b64decode(picture(panel).split("base64,")[1]).count(b"<path")
        for panel in (study.panels[1], replace(study.panels[1], shade=None))
    )
    assert with_plane >= alone + 10


def test_too_little_noise_is_refused(monkeypatch):
    monkeypatch.setattr(cosine, "MODES", 64)
    with pytest.raises(ArithmeticError, match="kappa"):
        cosine.sup_l2(1e-4, 8.0)


@RANKS
def test_disc_in_two_dimensions_agrees_with_its_radial_form():
    radius, A = 0.3, 0.3**-2.5
    mesh = fpc.mesh.read(DISC, WORLD)

    def field(x):
        r = np.linalg.norm(x, axis=1, keepdims=True)
        return -A * (r < radius) * x / r

    equation = fpc.FokkerPlanck(mesh, Steady(field), 2.0**0.5)
    run = equation.solve(fpc.density.uniform(mesh), 2.0 * radius / A, 20, scheme=fpc.SDIRK2())
    g, one = Elements(run.space), run.levels[0]
    error = np.sqrt(np.pi) * max(g.norm(u - one) for u in run.levels) / g.norm(one)
    reduced = radial.errors_of_elements(WORLD, radius, A, Grid(200, 50))[0]
    # The mesh (h = 0.07) does not follow the jump of the drift at r = 0.3.
    assert error == pytest.approx(reduced, rel=1e-2)


def test_finite_volumes_converge_to_the_elements_once_extrapolated():
    radius = 0.01
    half, whole = (radial.error_of_volumes(radius, radius**-2.5, n) for n in (400, 800))
    elements = radial.errors_of_elements(SELF, radius, radius**-2.5, Grid(400, 240))[0]
    assert 2.0 * whole - half == pytest.approx(elements, rel=1e-4)
    assert whole != pytest.approx(elements, rel=2e-4)  # of first order


def test_radii_without_a_core_are_refused():
    with pytest.raises(ValueError, match="5 or more"):
        radial.unbounded_differences(SELF, radii=(0.5, 0.01))


def test_coarse_mesh_is_seen():
    coarse = {"sigmas": (0.5,), "frequencies": (1,), "grid": Grid(2, 24)}
    assert not continuity.oscillating_table(SELF, **coarse).passed
