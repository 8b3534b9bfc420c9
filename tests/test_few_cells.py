"""Ranks without cells, and densities that vanish on all cells of a rank."""

import numpy as np
import pytest
from problems import SELF, WORLD, cube

import fpcontrol as fpc
from fpcontrol import distances

pytest.importorskip("ot")

ALL = (
    distances.l2,
    distances.kl,
    distances.chi_square,
    distances.total_variation,
    distances.h_minus_1,
    distances.wasserstein,
)


def tilted(comm, dim: int, n: int, slope: float, degree: int):
    return fpc.density.interpolate(cube(comm, dim, n), lambda x: 1.0 + slope * x[0], degree)


@pytest.mark.parallel([2, 3])
@pytest.mark.parametrize("dim, n, degree", [(1, 1, 1), (2, 1, 2)])
def test_distances_on_ranks_without_cells_are_those_of_one_rank(dim, n, degree):
    def values(comm):
        a, b = (tilted(comm, dim, n, slope, degree) for slope in (0.5, 0.0))
        one_mesh = fpc.density.uniform(a.function_space.mesh)
        return np.array([f(a, c) for f, c in zip(ALL, (b, one_mesh) * 3, strict=True)])

    np.testing.assert_allclose(values(WORLD), values(SELF), rtol=1e-9)


@pytest.mark.parallel([1, 2, 3])
@pytest.mark.parametrize("axis", [0, 1])
def test_wasserstein_where_a_density_vanishes_on_a_rank(axis):
    # Hats at opposite ends of the square, each zero on all cells of most ranks.
    mesh = cube(WORLD, 2, 16)
    a, b = (
        fpc.density.interpolate(mesh, lambda x, c=c: np.maximum(0.0, 0.125 - abs(x[axis] - c)))
        for c in (0.25, 0.75)
    )
    value, bound = distances.wasserstein_with_bound(a, b, atoms=300)
    assert abs(value - 0.5) < 1e-3 < bound


@pytest.mark.parallel([2, 3])
@pytest.mark.parametrize("dim, n", [(1, 1), (2, 1)])
def test_tracking_without_noise_on_ranks_without_cells(dim, n):
    def figures(comm):
        start = tilted(comm, dim, n, 0.5, 1)
        mesh = start.function_space.mesh
        goal = fpc.density.uniform(mesh, 1)
        drift = fpc.NetworkDrift(mesh, 2, 2, 1.0, seed=1)
        problem = fpc.TrackingProblem(fpc.MoserFlow(start, goal, 1.0, 0.0), drift, 0.0, 4)
        gradient = problem.derivative(drift.weights)
        flow = problem.trajectory(drift.weights)
        return np.concatenate([[problem(drift.weights)], gradient, flow.mass, flow.norms])

    np.testing.assert_allclose(figures(WORLD), figures(SELF), rtol=1e-9, atol=1e-14)
