"""The monotone method: positive, conservative, of its orders, with exact derivatives."""

import numpy as np
import pytest
from problems import SELF, WORLD, bump, cube, raised

import fpcontrol as fpc
from fpcontrol.discretization.flux_functions import FLUXES
from fpcontrol.verification import difference_test, dot_test, taylor_test

FLUX = pytest.mark.parametrize("flux", FLUXES)
DIMENSIONS = pytest.mark.parametrize(("dim", "n"), [(1, 12), (2, 6), (3, 3)])


def tracking(comm=WORLD, dim=2, n=4, flux="bernoulli", sigma=0.8, **options):
    mesh = cube(comm, dim, n)
    method = fpc.Monotone(flux)
    reference = fpc.MoserFlow(
        bump(mesh, 1, 0.3), bump(mesh, 1, 0.7), 1.0, sigma, discretization=method
    )
    drift = fpc.NetworkDrift(mesh, dim, 2, seed=3)
    return fpc.TrackingProblem(reference, drift, sigma, 4, **options)


@FLUX
def test_flux_functions(flux):
    B = FLUXES[flux]
    p = np.concatenate([[0.0], np.logspace(-9, 8, 400), [9.99e-3, 1.001e-2]])
    p = np.concatenate([p, -p])
    assert (B(p) >= 0.0).all()
    # The flux of a constant density is the drift's.
    assert B(-p) - B(p) == pytest.approx(p, rel=1e-12, abs=1e-15)
    middle = p[np.abs(p) < 30.0]
    h = 1e-4 * np.maximum(np.abs(middle), 1e-2)
    slope = (8.0 * (B(middle + h) - B(middle - h)) - B(middle + 2 * h) + B(middle - 2 * h)) / 12 / h
    assert B.slope(middle) == pytest.approx(slope, abs=1e-9)


def test_flux_across_a_unit_of_peclet_is_known():
    assert float(FLUXES["bernoulli"](np.array(1.0))) == pytest.approx(1.0 / (np.e - 1.0), rel=1e-15)
    assert float(FLUXES["bernoulli"](np.array(-800.0))) == 800.0


@pytest.mark.parallel([1, 2, 3])
@DIMENSIONS
@FLUX
@pytest.mark.parametrize("peclet", [1e-3, 1.0, 1e2, 1e6])
def test_density_stays_positive_and_keeps_its_mass(dim, n, flux, peclet):
    mesh = cube(WORLD, dim, n)
    rng = np.random.default_rng(7)
    wave, phase = 9.0 * rng.standard_normal((dim, dim)), rng.random(dim)
    D = 0.5 / n / peclet

    def drift(t: float, x: np.ndarray) -> np.ndarray:
        return np.sin(x @ wave + 40.0 * t + phase)

    start = fpc.density.interpolate(mesh, lambda x: (x[0] < 0.4) * 1.0, degree=1)
    equation = fpc.FokkerPlanck(mesh, drift, (2.0 * D) ** 0.5, discretization=fpc.Monotone(flux))
    for steps, t1 in ((4, 40.0), (8, 0.2)):
        trajectory = equation.solve(start, t1, steps)
        highest = max(np.abs(level).max(initial=0.0) for level in trajectory.levels)
        assert trajectory.minimum.min() >= -1e-14 * highest
        assert trajectory.mass_defect < 1e-13


@pytest.mark.parallel([1, 2])
@DIMENSIONS
def test_gibbs_density_of_a_quadratic_potential_is_stationary(dim, n):
    # Differences of a quadratic potential along edges are its slope at their middles.
    mesh, D = cube(WORLD, dim, n), 0.07
    centre = np.array([0.4, 0.55, 0.5])[:dim]
    gibbs = fpc.density.interpolate(
        mesh, lambda x: np.exp(-0.5 * ((x[:dim].T - centre) ** 2).sum(axis=1) / D), degree=1
    )
    drift = fpc.drift.Steady(lambda x: centre - x)
    end = {}
    for flux in FLUXES:
        equation = fpc.FokkerPlanck(
            mesh, drift, (2 * D) ** 0.5, discretization=fpc.Monotone(flux), linear_solver="direct"
        )
        end[flux] = fpc.distances.l2(equation.solve(gibbs, 30.0, 6)[-1], gibbs)
    assert end["bernoulli"] < 1e-11
    assert end["hybrid"] > 1e-8


@pytest.mark.parallel([1, 2, 3])
@DIMENSIONS
@FLUX
def test_moser_drift_gives_the_discrete_line(dim, n, flux):
    mesh, method = cube(WORLD, dim, n), fpc.Monotone(flux)
    start, goal = bump(mesh, 1, 0.3), bump(mesh, 1, 0.7)
    flow = fpc.MoserFlow(start, goal, 1.0, 0.5, discretization=method)
    trajectory = fpc.FokkerPlanck(mesh, flow.drift, 0.5, discretization=method).solve(
        start, 1.0, 10
    )
    for t, level in zip(trajectory.times, trajectory, strict=True):
        assert fpc.distances.l2(level, flow.density(float(t))) < 1e-10


def error(n: int, dim: int, flux: str) -> float:
    """L2 distance at the end to Galerkin's density of degree 2, for a drift that is no gradient."""
    mesh, steps = cube(SELF, dim, n), 8 * n * n // 16

    def drift(t: float, x: np.ndarray) -> np.ndarray:
        v = np.sin(np.pi * x) * (1.0 + np.roll(x, 1, axis=1))
        return (1.0 + t) * v

    f = bump(mesh, 1, 0.4)
    own = fpc.FokkerPlanck(mesh, drift, 0.6, discretization=fpc.Monotone(flux))
    fine = cube(SELF, dim, 24)
    exact = fpc.FokkerPlanck(fine, drift, 0.6, degree=2).solve(bump(fine, 2, 0.4), 0.3, 40)[-1]
    return fpc.distances.l2(own.solve(f, 0.3, steps)[-1], exact)


@FLUX
@pytest.mark.parametrize("dim", [1, 2])
def test_order_in_space_is_two(dim, flux):
    # Steps in proportion to squares of cells: backward Euler is of first order.
    errors = [error(n, dim, flux) for n in (8, 16)]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2.0, abs=0.2)


PROBLEMS = {
    # Its smallest remainders are near what iterations leave, which ranks would take unless told.
    "interval": {"dim": 1, "n": 8, "linear_solver": "direct"},
    "square": {},
    "square, hybrid": {"flux": "hybrid"},
    "square, noise in time": {"sigma": lambda t: 0.4 + 0.5 * t},
    "square, recomputed": {"snapshots": 1},
    "square, little noise": {"sigma": 0.1},
    "cube": {"dim": 3, "n": 2},
    "square, objectives": {
        "objectives": (fpc.objectives.FinalKL(0.5), fpc.objectives.KineticEnergy(0.1))
    },
}


@pytest.mark.parallel([1, 2, 3])
@pytest.mark.parametrize("name", PROBLEMS)
def test_derivative(name):
    p = tracking(**PROBLEMS[name])
    weights = 2.0 * p.drift.weights
    taylor = taylor_test(p, weights)
    assert taylor.orders == pytest.approx(2.0, abs=0.01) and len(taylor.orders) >= 4
    assert difference_test(p, weights) < 1e-7
    assert dot_test(p, weights) < 1e-11


@pytest.mark.parallel([2, 3])
def test_ranks_agree():
    weights = tracking(SELF).drift.weights
    value, dual = tracking(WORLD).value_and_derivative(weights)
    alone, same = tracking(SELF).value_and_derivative(weights)
    assert value == pytest.approx(alone, rel=1e-9)
    assert np.abs(dual - same).max() < 1e-9 * np.abs(same).max()


@pytest.mark.parallel([1, 2])
def test_what_cannot_serve_is_refused_with_a_reason():
    mesh = cube(WORLD, 2, 3)
    equation = fpc.FokkerPlanck(mesh, fpc.drift.zero(), 1.0, discretization=fpc.Monotone())
    start = fpc.density.uniform(mesh, 1)
    words = raised(ValueError, lambda: equation.solve(start, 1.0, 2, scheme=fpc.CrankNicolson()))
    assert "CrankNicolson cannot serve Monotone(flux='bernoulli')" in words
    assert "BackwardEuler()" in words
    words = raised(ValueError, lambda: equation.solve(fpc.density.uniform(mesh, 2), 1.0, 2))
    assert "degree" in words
    assert "flux = 'upwind'" in raised(ValueError, lambda: fpc.Monotone("upwind"))
    words = raised(
        ValueError,
        lambda: fpc.FokkerPlanck(mesh, fpc.drift.zero(), 1.0, discretization="monotone"),
    )
    assert "'monotone'" in words and "Galerkin(degree=2)" in words
    words = raised(
        ValueError,
        lambda: fpc.FokkerPlanck(
            mesh, fpc.drift.zero(), 1.0, discretization=fpc.Monotone(), degree=2
        ),
    )
    assert "degree = 2" in words
