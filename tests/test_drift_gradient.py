"""Drifts that are gradients: exact along edges, elsewhere the slope of the potential."""

from itertools import product

import numpy as np
import pytest
from dolfinx import fem
from problems import SELF, WORLD, cube, raised

import fpcontrol as fpc
from fpcontrol.drift import Steady, gradient

KINDS = [("callable", -1.0), ("function", 1.0)]
SIZES = [(1, 24), (2, 8), (3, 4)]
D = 0.05


def rugged(x: np.ndarray) -> np.ndarray:
    """A potential with several wells, no polynomial; x of shape (N, d)."""
    return 0.1 * np.cos(7.0 * x).sum(axis=1) + 0.3 * np.abs(x[:, 0] - 0.3) ** 1.5 + 0.1 * x[:, -1]


def slope(x: np.ndarray) -> np.ndarray:
    v = -0.7 * np.sin(7.0 * x)
    y = x[:, 0] - 0.3
    v[:, 0] += 0.45 * np.sign(y) * np.abs(y) ** 0.5
    v[:, -1] += 0.1
    return v


def potential(mesh, kind: str, degree: int = 1):
    """The rugged potential as a callable or a Function."""
    if kind == "callable":
        return rugged
    function = fem.Function(fem.functionspace(mesh, ("Lagrange", degree)), name="V")
    function.interpolate(lambda x: rugged(x[: mesh.topology.dim].T))
    return function


def gibbs(mesh, sign: float):
    dim = mesh.topology.dim
    return fpc.density.interpolate(mesh, lambda x: np.exp(sign * rugged(x[:dim].T) / D), degree=1)


@pytest.mark.parallel([1, 2])
def test_gibbs_density_of_any_potential_is_stationary():
    for (dim, n), (kind, sign) in product(SIZES, KINDS):
        mesh = cube(WORLD, dim, n)
        start, drift = gibbs(mesh, sign), gradient(potential(mesh, kind), sign)
        equation = fpc.FokkerPlanck(
            mesh, drift, (2.0 * D) ** 0.5, discretization=fpc.Monotone(), linear_solver="direct"
        )
        end = equation.solve(start, 100.0, 4, save="last")[-1]
        highest = np.abs(start.x.array).max()
        assert np.abs(end.x.array - start.x.array).max() <= 1e-12 * highest


def test_density_is_drawn_to_the_gibbs_density():
    mesh = cube(SELF, 2, 10)
    equation = fpc.FokkerPlanck(
        mesh, gradient(rugged), (2.0 * D) ** 0.5, discretization=fpc.Monotone()
    )
    end = equation.solve(fpc.density.uniform(mesh, 1), 400.0, 40, save="last")[-1]
    assert fpc.distances.l2(end, gibbs(mesh, -1.0)) < 1e-9


def test_hybrid_flux_and_plain_drift_keep_it_approximately_only():
    mesh = cube(SELF, 2, 10)
    start = gibbs(mesh, -1.0)

    def off(drift, flux):
        method = fpc.Monotone(flux)
        equation = fpc.FokkerPlanck(mesh, drift, (2.0 * D) ** 0.5, discretization=method)
        return fpc.distances.l2(equation.solve(start, 10.0, 10, save="last")[-1], start)

    assert off(gradient(rugged), "bernoulli") < 1e-10
    assert off(gradient(rugged), "hybrid") > 1e-6
    assert off(Steady(lambda x: -slope(x)), "bernoulli") > 1e-6


def test_sum_with_a_drift_along_the_level_sets_keeps_it_exact_on_edges():
    mesh = cube(SELF, 2, 8)
    drift, system = gradient(rugged), fpc.Monotone().on(mesh)
    doubled = (0.5 * drift + 1.5 * drift).at_points(0.0, system)
    assert np.allclose(doubled, 2.0 * drift.at_points(0.0, system), rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_callable_is_differentiated_anywhere(dim):
    x = np.random.default_rng(0).uniform(0.4, 1.0, (50, dim))
    drift = gradient(rugged, 2.0)
    assert drift.steady and drift.everywhere and drift.piece(0.3) == 0
    assert np.abs(drift(0.0, x) - 2.0 * slope(x)).max() < 1e-9
    km = gradient(lambda x: rugged(x / 300.0), length=300.0)
    assert np.abs(300.0 * km(0.0, 300.0 * x) + slope(x)).max() < 1e-9


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("method", [fpc.Galerkin(2), fpc.Limited()])
def test_cells_get_the_slope_at_their_points(method):
    mesh = cube(WORLD, 2, 6)
    system = method.on(mesh)
    x = system.points
    far = np.abs(x[:, 0] - 0.3) > 1e-2
    assert np.abs(gradient(rugged).at_points(0.0, system) + slope(x))[far].max(initial=0) < 1e-9
    square = fem.Function(fem.functionspace(mesh, ("Lagrange", 2)))
    square.interpolate(lambda x: x[0] ** 2 + x[0] * x[1])
    drift, expected = gradient(square), -np.column_stack([2.0 * x[:, 0] + x[:, 1], x[:, 0]])
    assert np.allclose(drift.at_points(0.0, system), expected, atol=1e-12)
    assert np.allclose(drift(0.0, x), expected, atol=1e-12)
    assert not drift.everywhere
    square.x.array[:] = 0.0  # a copy was taken
    assert np.allclose(drift.at_points(0.0, system), expected, atol=1e-12)


def test_characteristics_follow_a_callable_potential():
    markers = fpc.characteristics.Markers.on_interval(SELF, 50, lambda x: 1.0)
    drift = gradient(lambda x: -0.1 * np.cos(np.pi * x[:, 0]), length=1.0)
    own = fpc.characteristics.carry(markers, drift, [0.0, 1.0])
    exact = fpc.characteristics.carry(
        markers, lambda t, x: -0.1 * np.pi * np.sin(np.pi * x), [0.0, 1.0]
    )
    assert np.allclose(own.positions[-1], exact.positions[-1], atol=1e-8)


@pytest.mark.parallel([1, 2])
def test_bad_potentials_are_refused():
    mesh, other = cube(WORLD, 2, 3), cube(WORLD, 2, 4)
    vector = fem.Function(fem.functionspace(mesh, ("Lagrange", 1, (2,))), name="wind")
    rough = fem.Function(fem.functionspace(mesh, ("DG", 1)), name="rough")
    assert "V = 3.0 is neither" in raised(ValueError, lambda: gradient(3.0))
    assert "'wind' must be scalar" in raised(ValueError, lambda: gradient(vector))
    assert "'rough' must be scalar" in raised(ValueError, lambda: gradient(rough))
    assert "sign = inf" in raised(ValueError, lambda: gradient(rugged, np.inf))
    assert "length = 0.0" in raised(ValueError, lambda: gradient(rugged, length=0.0))
    start = fpc.density.uniform(mesh, 1)
    for method in (fpc.Monotone(), fpc.Galerkin(1)):
        for drift, words in (
            (gradient(lambda x: x), "V(x) returned float64 values of shape"),
            (gradient(potential(other, "function")), "another mesh"),
        ):
            equation = fpc.FokkerPlanck(mesh, drift, 0.5, discretization=method)
            assert words in raised(ValueError, lambda e=equation: e.solve(start, 1.0, 1))
