"""Moser flows, control and characteristics with periodic sides."""

from mpi4py import MPI

import numpy as np
import pytest

import fpcontrol as fpc
from fpcontrol import Galerkin, Limited, Monotone
from fpcontrol.verification import dot_test, taylor_test

COMM = MPI.COMM_WORLD


class Turning(fpc.ParametricField):
    """A constant and the first cosine and sine along each axis of the unit torus."""

    def __init__(self, dimension):
        self.d, self.size = dimension, 3 * dimension

    def _waves(self, x):
        return np.stack([np.ones_like(x), np.cos(2 * np.pi * x), np.sin(2 * np.pi * x)], axis=1)

    def values(self, theta, x):
        return np.einsum("nkd,kd->nd", self._waves(x), theta.reshape(3, self.d))

    def jvp(self, theta, x, dtheta):
        return self.values(dtheta, x)

    def vjp(self, theta, x, s):
        return np.einsum("nkd,nd->kd", self._waves(x), s).ravel()


def hills(mesh, discretization, *, turn=0.0):
    """Two densities, the second one turned, over the seam."""
    return tuple(
        fpc.density.interpolate(
            mesh,
            lambda x, s=s: np.exp(
                np.cos(2 * np.pi * (x[0] - 0.7 - s)) + 0.5 * np.sin(2 * np.pi * x[1])
            ),
            discretization=discretization,
        )
        for s in (0.0, turn)
    )


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("discretization", [Galerkin(2), Monotone()], ids=str)
@pytest.mark.parametrize("sides", ["x", "xy"])
def test_moser_flow_is_exact(discretization, sides):
    mesh = fpc.mesh.rectangle(COMM, (8, 5), periodic=sides)
    start, goal = hills(mesh, discretization, turn=0.45)
    reference = fpc.MoserFlow(start, goal, t1=1.0, sigma=0.4)
    equation = fpc.FokkerPlanck(mesh, reference.drift, 0.4, discretization=discretization)
    scheme = fpc.BackwardEuler() if discretization == Monotone() else fpc.CrankNicolson()
    run = equation.solve(start, 1.0, 8, scheme=scheme)
    for t, rho in zip(run.times, run, strict=True):
        assert fpc.distances.l2(rho, reference.density(t)) < 1e-9


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("discretization", [Galerkin(2), Monotone(), Limited()], ids=str)
def test_derivative_of_the_control(discretization):
    mesh = fpc.mesh.interval(COMM, 12, periodic=True)
    start, goal = hills(mesh, discretization, turn=0.45)
    reference = fpc.MoserFlow(start, goal, t1=1.0, sigma=0.4)
    drift = fpc.ParametricDrift(mesh, Turning(1), fpc.PiecewiseConstant(4))
    problem = fpc.TrackingProblem(reference, drift, 0.4, steps=16)
    weights = 0.3 * np.random.default_rng(1).standard_normal(drift.weights.size)
    test = taylor_test(problem, weights)
    assert test.orders == pytest.approx(2.0, abs=0.01) and test.relative_remainder < 1e-6
    assert dot_test(problem, weights) < 1e-11
    # Alone on each rank, the same value and derivative.
    mine = fpc.mesh.interval(MPI.COMM_SELF, 12, periodic=True)
    flow = fpc.MoserFlow(*hills(mine, discretization, turn=0.45), t1=1.0, sigma=0.4)
    other = fpc.TrackingProblem(
        flow, fpc.ParametricDrift(mine, Turning(1), fpc.PiecewiseConstant(4)), 0.4, steps=16
    )
    value, dual = problem.value_and_derivative(weights)
    again = other.value_and_derivative(weights)
    assert value == pytest.approx(again[0], rel=1e-9)
    assert dual == pytest.approx(again[1], rel=1e-8, abs=1e-9 * np.abs(dual).max())


@pytest.mark.parallel([1, 2])
def test_a_control_leads_over_the_seam():
    mesh = fpc.mesh.interval(COMM, 24, periodic=True)
    start, goal = hills(mesh, Galerkin(2), turn=0.45)  # from 0.7 to 1.15, which is 0.15
    drift = fpc.ParametricDrift(mesh, Turning(1), fpc.PiecewiseConstant(10))
    problem = fpc.TrackingProblem(fpc.MoserFlow(start, goal, t1=1.0, sigma=0.3), drift, 0.3, 20)
    result = fpc.minimize(problem, max_iterations=6, progress=False)
    assert result.relative_error < 0.1 < 0.4 * problem.errors(0 * drift.weights).relative_error
