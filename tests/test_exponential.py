"""The exponential over a step: positive, conservative, exact for a steady drift, its adjoint."""

import numpy as np
import pytest
from problems import SELF, WORLD, cube, raised
from scipy.sparse import csr_array, diags_array
from scipy.sparse.linalg import expm_multiply
from test_monotone import tracking

import fpcontrol as fpc
from fpcontrol.discretization.base import StageDrift
from fpcontrol.stepping.exponential import LARGEST, TransitionMatrices, weights_of
from fpcontrol.verification import difference_test, dot_test, taylor_test

DIMENSIONS = pytest.mark.parametrize(("dim", "n"), [(1, 12), (2, 6), (3, 3)])


def drift_through_walls(dim: int, seed: int = 7):
    rng = np.random.default_rng(seed)
    wave, phase = 9.0 * rng.standard_normal((dim, dim)), rng.random(dim)
    return fpc.drift.Steady(lambda x: np.sin(x @ wave + phase))


def run(mesh, sigma, steps, t1=0.3, flux="bernoulli"):
    method = fpc.Monotone(flux)
    equation = fpc.FokkerPlanck(
        mesh, drift_through_walls(mesh.topology.dim), sigma, discretization=method
    )
    start = fpc.density.interpolate(mesh, lambda x: (x[0] < 0.4) * 1.0, degree=1)
    return equation.solve(start, t1, steps, scheme=fpc.Exponential())


@pytest.mark.parametrize("z", [1e-3, 0.7, 30.0, LARGEST])
def test_weights_are_those_of_poisson(z):
    weights = weights_of(z)
    k = np.arange(len(weights))
    assert weights.sum() == pytest.approx(1.0, abs=1e-15)
    assert weights @ k == pytest.approx(z, rel=1e-12)
    assert weights @ (k - z) ** 2 == pytest.approx(z, rel=1e-11)


@DIMENSIONS
@pytest.mark.parametrize("flux", ["bernoulli", "hybrid"])
@pytest.mark.parametrize("peclet", [1e-3, 1.0, 1e2, 1e6])
def test_density_is_never_negative_and_keeps_its_mass(dim, n, flux, peclet):
    mesh = cube(SELF, dim, n)
    sigma = (1.0 / n / peclet) ** 0.5
    short = 0.5 / (n * sigma) ** 2  # a quarter of the time of diffusion over a cell
    for t1, steps in ((min(short, 0.2), 3), (min(64.0 * short, 2.0), 2)):
        trajectory = run(mesh, sigma, steps, t1, flux)
        assert trajectory.minimum.min() >= 0.0
        assert trajectory.mass_defect < 1e-13


@DIMENSIONS
@pytest.mark.parametrize("sigma", [0.1, 8.0])
def test_it_is_the_exponential_of_the_operator(dim, n, sigma):
    mesh, method = cube(SELF, dim, n), fpc.Monotone()
    trajectory = run(mesh, sigma, 1)
    system = method.on(mesh)
    values = np.empty(system.elements.sparsity.size)
    drift = drift_through_walls(dim)
    system.filler(1.0)(drift(0.0, system.points), 0.5 * sigma**2, values)
    indptr, indices, entries = system.elements.matrix(values).mat.getValuesCSR()
    mass = system.mass.getDiagonal().array
    generator = csr_array((entries, indices, indptr)) - diags_array(mass)
    exact = expm_multiply(-0.3 * diags_array(1.0 / mass) @ generator, trajectory.levels[0])
    assert trajectory.levels[1] == pytest.approx(exact, abs=1e-11 * exact.max())


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("sigma", [0.1, 8.0])
def test_a_steady_drift_has_no_error_in_time(sigma):
    # With the large sigma one step is taken in parts, and each of 32 is not.
    mesh = cube(WORLD, 2, 6)
    one, many = (run(mesh, sigma, steps) for steps in (1, 32))
    assert fpc.distances.l2(one[-1], many[-1]) < 1e-12


def test_a_step_in_parts_is_one():
    system = fpc.Monotone().on(cube(SELF, 2, 6))
    still = StageDrift(0, lambda: np.zeros_like(system.points), 32.0)
    parts = TransitionMatrices(system, 0.3)(still).parts
    assert parts > 1 and TransitionMatrices(system, 0.3 / 32)(still).parts == 1


def test_a_drift_that_changes_in_time_has_order_two():
    mesh = cube(SELF, 2, 6)
    equation = fpc.FokkerPlanck(
        mesh, lambda t, x: np.sin(9.0 * x + 5.0 * t), 0.5, discretization=fpc.Monotone()
    )
    start = fpc.density.interpolate(mesh, lambda x: 1.0 + x[0], degree=1)
    ends = [equation.solve(start, 0.4, n, scheme=fpc.Exponential())[-1] for n in (4, 8, 64)]
    errors = [fpc.distances.l2(end, ends[-1]) for end in ends[:2]]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2.0, abs=0.1)


PROBLEMS = {
    "interval": {"dim": 1, "n": 8},
    "square": {},
    "square, hybrid": {"flux": "hybrid"},
    "square, noise in time": {"sigma": lambda t: 0.4 + 0.5 * t},
    "square, recomputed": {"snapshots": 1},
    "square, in parts": {"sigma": 6.0},
    "cube": {"dim": 3, "n": 2},
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_derivative(name):
    check_derivative(tracking(scheme=fpc.Exponential(), **PROBLEMS[name]))


@pytest.mark.parallel([2, 3])
def test_derivative_on_ranks():
    check_derivative(tracking(scheme=fpc.Exponential()))


def check_derivative(p: fpc.TrackingProblem) -> None:
    weights = 2.0 * p.drift.weights
    assert taylor_test(p, weights).orders == pytest.approx(2.0, abs=0.02)
    assert difference_test(p, weights) < 1e-10
    assert dot_test(p, weights) < 1e-14


@pytest.mark.parallel([2, 3])
def test_ranks_agree_to_round_off():
    one, all_of_them = (run(cube(comm, 2, 6), 0.1, 3) for comm in (SELF, WORLD))
    assert all_of_them.minimum.min() >= 0.0 and all_of_them.mass_defect < 1e-13
    assert all_of_them.minimum == pytest.approx(one.minimum, rel=1e-11, abs=1e-300)
    weights = tracking(SELF).drift.weights
    value, dual = tracking(WORLD, scheme=fpc.Exponential()).value_and_derivative(weights)
    alone, same = tracking(SELF, scheme=fpc.Exponential()).value_and_derivative(weights)
    assert value == pytest.approx(alone, rel=1e-13)
    assert np.abs(dual - same).max() < 1e-13 * np.abs(same).max()


@pytest.mark.parallel([1, 2])
def test_what_it_cannot_serve_is_refused():
    mesh = cube(WORLD, 2, 3)
    start = fpc.density.uniform(mesh, 2)
    equation = fpc.FokkerPlanck(mesh, fpc.drift.zero(), 1.0)
    words = raised(ValueError, lambda: equation.solve(start, 1.0, 2, scheme=fpc.Exponential()))
    assert "Exponential cannot serve Galerkin" in words and "Monotone()" in words
    equation = fpc.FokkerPlanck(mesh, fpc.drift.zero(), 1.0, discretization=fpc.Monotone())
    start = fpc.density.uniform(mesh, 1)
    words = raised(ArithmeticError, lambda: equation.solve(start, 1e6, 1, scheme=fpc.Exponential()))
    assert "products" in words and "BackwardEuler()" in words
