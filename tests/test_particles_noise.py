"""Particles with a noise that is a Function, and what is refused."""

import numpy as np
import pytest
from dolfinx import fem
from problems import WORLD, cube

import fpcontrol as fpc


def linear(x):
    return 0.2 + 0.3 * x[:, 0] + 0.1 * x[:, -1]


def curved(x):
    return 0.1 + x[:, 0] * (1.2 - x[:, 0])


def axes(x):
    return np.stack([linear(x) * (k + 1) for k in range(x.shape[1])], axis=1)


def matrices(x):
    d = x.shape[1]
    return linear(x)[:, None, None] * (np.eye(d) + 0.5 * np.eye(d, k=1))


def function(mesh, f, element):
    u = fem.Function(fem.functionspace(mesh, element), name="sigma")
    d = mesh.topology.dim
    u.interpolate(lambda x: np.moveaxis(f(x[:d].T), 0, -1).reshape(-1, x.shape[1]))
    return u


def paths(mesh, sigma, **options):
    points = fpc.particles.draw(fpc.density.uniform(mesh, 1), 6000, seed=4)
    drift = fpc.drift.Steady(lambda x: 0.3 - x)
    return fpc.particles.simulate(mesh, drift, points, sigma, 0.5, 20, seed=7, **options)


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize(
    ("f", "degree", "shape"),
    [
        (linear, 1, lambda d: ()),
        (curved, 2, lambda d: ()),
        (axes, 1, lambda d: (d,)),
        (matrices, 2, lambda d: (d, d)),
    ],
)
def test_paths_of_a_function_are_those_of_what_it_interpolates(dim, f, degree, shape):
    mesh, kind = cube(WORLD, dim, 3), shape(dim)
    sigma = function(mesh, f, ("Lagrange", degree, kind) if kind else ("Lagrange", degree))
    found, exact, other = (paths(mesh, noise).gather() for noise in (sigma, f, 0.3))
    assert np.abs(found - exact).max() < 1e-12
    assert np.abs(found - other).max() > 0.01


@pytest.mark.parallel([1, 2])
def test_noise_of_a_function_leads_to_the_density_of_the_equation():
    mesh = cube(WORLD, 1, 32)
    sigma = function(mesh, lambda x: 0.3 + 0.5 * x[:, 0], ("Lagrange", 1))
    start = fpc.density.interpolate(mesh, lambda x: np.exp(-20.0 * (x[0] - 0.4) ** 2))
    run = fpc.FokkerPlanck(mesh, fpc.drift.zero(), sigma).solve(start, 0.2, 40, save="last")
    points = fpc.particles.draw(start, 20_000, seed=3)
    ends = [
        fpc.particles.simulate(mesh, fpc.drift.zero(), points, noise, 0.2, 200, seed=5).points
        for noise in (sigma, 0.55)
    ]
    right, wrong = (fpc.particles.compare(x, run[-1], 20) for x in ends)
    assert right.p_value > 1e-3
    assert wrong.p_value < 1e-9


@pytest.mark.parallel([1, 2])
def test_functions_that_do_not_serve_are_refused():
    mesh = cube(WORLD, 2, 3)
    for sigma, words in (
        (function(mesh, linear, ("DG", 0)), "jumps from cell to cell"),
        (function(mesh, linear, ("DG", 1)), "continuous Lagrange space"),
        (function(cube(WORLD, 2, 4), linear, ("Lagrange", 1)), "another mesh"),
        (function(mesh, lambda x: x[:, 0] - 0.5, ("Lagrange", 1)), "must not be negative"),
    ):
        with pytest.raises(ValueError, match=words):
            paths(mesh, sigma)
    with pytest.raises(ValueError, match="take EulerMaruyama"):
        paths(mesh, function(mesh, linear, ("Lagrange", 1)), scheme=fpc.particles.Heun())


@pytest.mark.parallel([1, 2])
def test_a_density_of_more_mass_than_particles_have_is_refused():
    mesh = cube(WORLD, 2, 3)
    density = fpc.density.uniform(mesh, 1)
    points = fpc.particles.draw(density, 200, seed=1)
    density.x.array[:] *= 1.01
    with pytest.raises(ValueError, match=r"density has mass 1\.01.* divide it by its mass"):
        fpc.particles.compare(points, density, 4)
