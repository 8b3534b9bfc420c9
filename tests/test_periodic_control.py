"""Moser flows, control and characteristics with periodic sides."""

from mpi4py import MPI

import numpy as np
import pytest

import fpcontrol as fpc
from fpcontrol import Galerkin, Limited, Monotone
from fpcontrol.verification import dot_test, taylor_test

COMM = MPI.COMM_WORLD


class Turning(fpc.SmoothField):
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

    def _slopes(self, x, order=1):
        """Derivatives of the waves, each along its own axis."""
        z, k = 2 * np.pi * x, 2 * np.pi
        turned = [(-k * np.sin(z), k * np.cos(z)), (-(k**2) * np.cos(z), -(k**2) * np.sin(z))]
        return np.stack([0 * x, *turned[order - 1]], axis=1)

    def _along(self, theta, x, order):
        return np.einsum("nkd,kd->nd", self._slopes(x, order), theta.reshape(3, self.d))

    def divergence(self, theta, x):
        return self._along(theta, x, 1).sum(axis=1)

    def flow_jvp(self, theta, x, dtheta, dx):
        dv = self.values(dtheta, x) + self._along(theta, x, 1) * dx
        return dv, (self._along(dtheta, x, 1) + self._along(theta, x, 2) * dx).sum(axis=1)

    def flow_vjp(self, theta, x, sv, sd):
        dual = self.vjp(theta, x, sv) + np.einsum("nkd,n->kd", self._slopes(x), sd).ravel()
        return dual, self._along(theta, x, 1) * sv + self._along(theta, x, 2) * sd[:, None]


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


def test_derivative_on_a_cylinder_with_a_wall_that_absorbs():
    mesh = fpc.mesh.rectangle(COMM, (5, 4), periodic="x")
    start, goal = hills(mesh, Galerkin(2), turn=0.3)
    reference = fpc.MoserFlow(start, goal, t1=1.0, sigma=0.4)
    drift = fpc.ParametricDrift(mesh, Turning(2), fpc.PiecewiseConstant(2))
    problem = fpc.TrackingProblem(
        reference, drift, 0.4, steps=6, absorbing=lambda x: x[1] < 1e-9, terminal_weight=1.0
    )
    weights = 0.3 * np.random.default_rng(1).standard_normal(drift.weights.size)
    test = taylor_test(problem, weights)
    assert test.orders == pytest.approx(2.0, abs=0.01) and test.relative_remainder < 1e-6
    assert dot_test(problem, weights) < 1e-11


@pytest.mark.parallel([1, 2])
def test_a_control_leads_over_the_seam():
    mesh = fpc.mesh.interval(COMM, 24, periodic=True)
    start, goal = hills(mesh, Galerkin(2), turn=0.45)  # from 0.7 to 1.15, which is 0.15
    drift = fpc.ParametricDrift(mesh, Turning(1), fpc.PiecewiseConstant(10))
    problem = fpc.TrackingProblem(fpc.MoserFlow(start, goal, t1=1.0, sigma=0.3), drift, 0.3, 20)
    result = fpc.minimize(problem, max_iterations=6, progress=False)
    assert result.relative_error < 0.1 < 0.4 * problem.errors(0 * drift.weights).relative_error


def pulse(x):
    """Speed round the circle; a turn takes 1/sqrt(1 - 0.6**2)."""
    return 1.0 + 0.6 * np.sin(2 * np.pi * x)


def at_home(x):
    """1 in the domain, 2 far from it: nothing is asked there."""
    return np.where(np.abs(x.real - 0.5) < 0.501, 1.0, 2.0)


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("divergence", [None, "complex"])
def test_characteristics_go_round(divergence):
    mesh = fpc.mesh.interval(COMM, 20, periodic=True)
    start = hills(mesh, Galerkin(2))[0]
    markers = fpc.characteristics.Markers.on_mesh(start)
    turn = 1.0 / 0.8
    flow = fpc.characteristics.carry(
        markers,
        lambda t, x: pulse(x) * at_home(x),
        [0.0, 0.7 * turn, 2.0 * turn],
        divergence=divergence,
    )
    # J = v(X)/v(y); after two turns all is as before.
    y, x = markers.points[:, 0], flow.positions[1, :, 0]
    assert np.exp(flow.log_jacobian[1]) == pytest.approx(pulse(x) / pulse(y), rel=1e-6)
    assert flow.positions[2, :, 0] == pytest.approx(y + 2.0, abs=1e-7)
    assert flow.log_jacobian[2] == pytest.approx(0.0, abs=1e-6)
    assert flow.l2_errors(lambda t, x: ((x >= 0.0) & (x < 1.0)).all() * start_at(x))[2] < 2e-3
    still = fpc.MoserFlow(start, start, t1=2.0 * turn, sigma=0.1)
    assert flow.l2_errors(still)[[0, 2]] == pytest.approx(0.0, abs=1e-6)
    back = flow.on_mesh(start.function_space)[-1]
    assert fpc.distances.l2(back, start) < 5e-3


def start_at(x):
    """The first of ``hills`` on an interval, of mass 1."""
    return np.exp(np.cos(2 * np.pi * (x[:, 0] - 0.7))) / np.i0(1.0)


@pytest.mark.parallel([1, 2])
def test_control_without_noise_goes_round():
    mesh = fpc.mesh.interval(COMM, 12, periodic=True)
    start, goal = hills(mesh, Galerkin(2), turn=0.45)
    reference = fpc.MoserFlow(start, goal, t1=1.0, sigma=0.1)
    drift = fpc.ParametricDrift(mesh, Turning(1), fpc.PiecewiseConstant(4))
    problem = fpc.TrackingProblem(reference, drift, 0.0, steps=24)
    weights = np.tile([0.4, 0.1, -0.05], 4)
    weights = weights + 0.05 * np.random.default_rng(2).standard_normal(12)
    test = taylor_test(problem, weights, step=1e-5)  # kinks at cells' ends
    assert test.orders == pytest.approx(2.0, abs=0.1)
    assert dot_test(problem, weights) < 1e-11
    farthest = problem.trajectory(weights).positions.max(initial=0.0)
    assert COMM.allreduce(farthest, MPI.MAX) > 1.2
    result = fpc.minimize(problem, 0.1 * weights, max_iterations=8, progress=False)
    assert result.relative_error < 0.5 * problem.errors(0 * weights).relative_error


@pytest.mark.parallel([1, 2])
def test_without_noise_nothing_may_jump():
    mesh = fpc.mesh.rectangle(COMM, (5, 4), periodic="x")
    start, goal = hills(mesh, Galerkin(2), turn=0.1)
    markers = fpc.characteristics.Markers.on_mesh(start)
    with pytest.raises(ValueError, match="not periodic in x"):
        fpc.characteristics.carry(markers, lambda t, x: x * (1.0 - x) + x * [1.0, 0.0], [0.0, 0.1])
    with pytest.raises(ValueError, match="outward at the wall"):
        fpc.characteristics.carry(markers, lambda t, x: 0.0 * x + [0.0, 1.0], [0.0, 0.1])
    reference = fpc.MoserFlow(start, goal, t1=1.0, sigma=0.1)
    with pytest.raises(ValueError, match=r"is not periodic in x: without noise"):
        fpc.TrackingProblem(
            reference, fpc.NetworkDrift(mesh, width=2, pieces=2, periodic=False), 0.0, steps=4
        )
