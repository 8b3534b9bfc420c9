"""Without noise: the tracking problem, its gradient, and its errors."""

from dataclasses import dataclass
from typing import Any

from mpi4py import MPI

import numpy as np
import pytest
from problems import RANKS, SELF, WORLD, bump, cube, jumping, l_shape, ones, raised

import fpcontrol as fpc
from fpcontrol.characteristics.flow import Markers, carry
from fpcontrol.discretization.replica import MeshReference
from fpcontrol.verification import difference_test, dot_test, orders, taylor_test
from fpcontrol.walls import walled


@dataclass(frozen=True)
class Wave:
    """A smooth reference given by formulas."""

    t1: float = 1.0
    size: float = 1.0

    def at(self, t: float, x: np.ndarray, cells: Any = None) -> tuple[np.ndarray, np.ndarray, Any]:
        k = np.pi / self.size
        cos, sin = np.cos(k * x), np.sin(k * x)
        slope = np.empty_like(x)
        for i in range(x.shape[1]):
            slope[:, i] = -k * sin[:, i] * np.delete(cos, i, axis=1).prod(axis=1)
        a = 0.5 - 0.9 * t / self.t1
        return 1.0 + a * cos.prod(axis=1), a * slope, cells


def normal(problem: fpc.TrackingProblem) -> np.ndarray:
    """Weights that do not depend on how networks are initialized."""
    return np.random.default_rng(3).standard_normal(problem.drift.weights.size)


SMOOTH: dict[str, dict[str, Any]] = {
    "interval-tanh": {"dim": 1, "activation": "tanh", "pieces": 4},
    "interval-sin-decay": {"dim": 1, "activation": "sin", "decay": 0.1, "width": 3},
    "square-tanh": {"dim": 2, "activation": "tanh", "terminal_weight": 0.3},
    "square-softplus-kilometres": {"dim": 2, "activation": "softplus", "size": 300.0, "t1": 2.0},
    "square-sin": {"dim": 2, "activation": "sin", "width": 3, "layer": 0.3},
    "square-sigmoid-terminal": {
        "dim": 2,
        "activation": "sigmoid",
        "running_weight": 0.0,
        "terminal_weight": 1.0,
    },
    "cube-tanh": {"dim": 3, "activation": "tanh", "n": 1},
    "l-shape-tanh": {"dim": 2, "activation": "tanh", "mesh": l_shape},
}


def smooth(
    comm=WORLD,
    dim: int = 2,
    activation: str = "tanh",
    *,
    n: int = 3,
    pieces: int = 2,
    size: float = 1.0,
    t1: float = 1.0,
    width: int | None = None,
    mesh: Any = None,
    steps: int = 8,
    **options: Any,
) -> fpc.TrackingProblem:
    domain = cube(comm, dim, n, size) if mesh is None else mesh(comm, 2)
    drift = fpc.NetworkDrift(domain, width or dim, pieces, t1, activation, seed=3)
    return fpc.TrackingProblem(Wave(t1, size), drift, 0.0, steps, **options)


def on_mesh(comm=WORLD, dim: int = 2, degree: int = 2, steps: int = 8, **options: Any):
    mesh = cube(comm, dim, [12, 4, 2][dim - 1])
    reference = fpc.MoserFlow(bump(mesh, degree, 0.3), bump(mesh, degree, 0.7), 1.0, 0.0)
    drift = fpc.NetworkDrift(mesh, dim, 2, seed=3)
    return fpc.TrackingProblem(reference, drift, 0.0, steps, **options)


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("case", SMOOTH.values(), ids=SMOOTH)
def test_derivative_is_that_of_the_steps(case):
    problem = smooth(**case)
    weights = 0.4 * normal(problem)
    test = taylor_test(problem, weights)
    assert len(test.orders) >= 4
    assert test.relative_remainder < 1e-6
    assert test.orders == pytest.approx(2.0, abs=0.01)
    # Measured 1e-9 at most: of fourth order in a step of 2e-3.
    assert difference_test(problem, weights) < 1e-7
    assert dot_test(problem, weights) < 1e-14


@pytest.mark.parallel([1, 3])
@pytest.mark.parametrize(("dim", "degree"), [(1, 2), (2, 1), (2, 3), (3, 1)])
def test_derivative_with_a_reference_on_a_mesh(dim, degree):
    problem = on_mesh(dim=dim, degree=degree, terminal_weight=0.5)
    weights = 0.4 * normal(problem)
    # Steps so small that few markers cross a face of the mesh, where the reference has a kink.
    test = taylor_test(problem, weights)
    assert test.orders.min() > 1.9
    assert test.relative_remainder < 1e-6
    assert dot_test(problem, weights) < 1e-14


@RANKS
@pytest.mark.parametrize("make", [smooth, on_mesh])
@pytest.mark.parametrize("dim", [1, 2])
def test_value_and_derivative_are_those_of_one_rank(make, dim):
    alone, shared = make(SELF, dim=dim, decay=0.1), make(WORLD, dim=dim, decay=0.1)
    weights = normal(alone)
    value, dual = alone.value_and_derivative(weights)
    shared_value, shared_dual = shared.value_and_derivative(weights)
    assert shared_value == pytest.approx(value, rel=1e-9)
    assert np.linalg.norm(shared_dual - dual) <= 1e-9 * np.linalg.norm(dual)
    everywhere = WORLD.allgather((shared_value, shared_dual.tobytes()))
    assert everywhere == everywhere[:1] * WORLD.size


@pytest.mark.parallel([1, 2])
def test_steps_converge_with_order_four_to_controlled_ones():
    problem = on_mesh()
    weights = 0.3 * normal(problem)
    drift = walled(problem.drift.with_weights(weights), problem.drift.mesh)
    exact = carry(problem.runs.markers, drift, [0.0, 1.0], rtol=1e-12, atol=1e-12)

    def error(steps: int) -> float:
        flow = problem.refined(steps).trajectory(weights)
        difference = flow.log_jacobian[-1] - exact.log_jacobian[-1]
        return WORLD.allreduce(np.abs(difference).max(initial=0.0), op=MPI.MAX)

    assert orders([error(n) for n in (16, 32, 64)])[-1] == pytest.approx(4.0, abs=0.15)
    errors = problem.refined(64).errors(weights)
    reference = MeshReference(problem.reference)
    distance = exact.l2_errors(reference)[-1]
    g = problem.elements
    norm = g.sum(float(g.quadrature_weights @ reference(1.0, g.points) ** 2)) ** 0.5
    assert errors.final_error == pytest.approx(distance / norm, rel=1e-6)


@RANKS
def test_errors_without_control_are_those_of_the_mesh():
    problem = on_mesh(terminal_weight=0.4)
    errors = problem.errors(np.zeros_like(problem.drift.weights))
    g, reference = problem.elements, problem.reference

    def square(u: np.ndarray) -> float:
        return g.sum(float(g.quadrature_weights @ g.evaluate(u).ravel() ** 2))

    levels = [reference.coefficients(t) for t in problem.times]
    error = np.array([square(u - levels[0]) for u in levels])
    norm = np.array([square(u) for u in levels])
    relative = np.trapezoid(error) / np.trapezoid(norm)
    assert errors.relative_error == pytest.approx(relative**0.5, rel=1e-10)
    assert errors.relative_sup_error == pytest.approx((error.max() / norm.max()) ** 0.5, rel=1e-10)
    assert errors.value == pytest.approx(0.5 * relative + 0.2 * error[-1] / norm[-1], rel=1e-10)
    assert errors.over_time == pytest.approx(np.sqrt(error / norm), rel=1e-10, abs=1e-12)


@pytest.mark.parallel([1, 2])
def test_minimization_follows_a_reference(tmp_path):
    problem = on_mesh(dim=1)
    result = fpc.minimize(
        problem,
        0.1 * normal(problem),
        max_iterations=8,
        progress=False,
        checkpoint=tmp_path / "run.npz",
    )
    still = problem.errors(np.zeros_like(result.weights)).relative_error
    assert result.relative_error < 0.5 * still
    assert "relative error" in result.summary()
    again = fpc.minimize(problem, max_iterations=1, progress=False, resume=tmp_path / "run.npz")
    assert again.value <= result.value
    other = problem.refined(16)
    assert "steps" in raised(
        ValueError, lambda: fpc.minimize(other, progress=False, resume=tmp_path / "run.npz")
    )


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("dim", [1, 2])
def test_labels_of_a_finer_mesh_confirm_the_errors(dim):
    problem = on_mesh(dim=dim)
    weights = 0.2 * normal(problem)
    n = 4 * [12, 4, 2][dim - 1]
    finer = problem.refined(4 * problem.steps, marker_mesh=cube(WORLD, dim, n))
    count = [WORLD.allreduce(len(p.runs.markers.points)) for p in (problem, finer)]
    assert count[1] == 4**dim * count[0]
    one, other = (p.errors(weights).relative_error for p in (problem, finer))
    # The trapezoid over 8 steps is the larger part of the difference.
    assert 0.0 < abs(one - other) < 5e-3 * one


@pytest.mark.parallel([1, 2])
def test_start_of_its_own_is_carried():
    same = on_mesh()
    reference, drift, mesh = same.reference, same.drift, same.drift.mesh
    other = fpc.TrackingProblem(reference, drift, 0.0, 8, start=bump(mesh, 2, 0.5))
    assert other.errors(np.zeros_like(drift.weights)).over_time[0] > 0.05
    again = fpc.TrackingProblem(reference, drift, 0.0, 8, start=bump(mesh, 2, 0.3))
    weights = 0.2 * normal(same)
    assert again(weights) == pytest.approx(same(weights), rel=1e-12)


@RANKS
def test_errors_to_a_reference_by_formulas():
    problem = smooth()
    flow = problem.trajectory(problem.drift.weights)
    over_time = problem.errors(problem.drift.weights).over_time
    errors = flow.l2_errors(problem.reference)
    assert errors / np.sqrt(problem.runs.norms) == pytest.approx(over_time, rel=1e-12)
    assert "is no reference" in raised(ValueError, lambda: flow.l2_errors(3.0))
    message = raised(ValueError, lambda: flow.l2_errors(lambda t, x: ones(x)[:, None]))
    assert "returned shape (" in message


@RANKS
def test_what_cannot_be_done_is_refused():
    assert "scheme" in raised(ValueError, lambda: on_mesh(scheme=fpc.SDIRK2()))
    noisy = on_mesh()
    assert "layer" in raised(
        ValueError, lambda: fpc.TrackingProblem(noisy.reference, noisy.drift, 0.5, 8, layer=0.1)
    )
    markers = noisy.runs.markers
    assert "markers" in raised(
        ValueError, lambda: on_mesh(markers=markers, start=noisy.reference.start)
    )
    wave = smooth()
    assert "MoserFlow" in raised(
        ValueError, lambda: fpc.TrackingProblem(wave.reference, wave.drift, 0.5, 8)
    )
    assert "second derivative" in raised(ValueError, lambda: smooth(activation="relu"))
    assert "multiple" in raised(ValueError, lambda: smooth(steps=7))
    assert "decay" in raised(ValueError, lambda: smooth(decay=-1.0))
    assert "layer" in raised(ValueError, lambda: smooth(layer=0.0))
    assert "n = 0" in raised(ValueError, lambda: Markers.on_interval(WORLD, 0, ones))
    fast = smooth()
    message = raised(ValueError, lambda: fast(1e3 * normal(fast)))
    assert "left the domain" in message and "more steps" in message
    markers = Markers.on_interval(WORLD, 4, ones)

    def pole(t: float, x: np.ndarray) -> np.ndarray:
        return np.where((x > 0.6) & (x < 0.9), np.nan, 0.0)

    assert "not finite at t = " in raised(ValueError, lambda: carry(markers, pole, [0.0, 1.0]))
    assert "increase" in raised(ValueError, lambda: carry(markers, jumping, [1.0, 0.0]))
    assert "divergence" in raised(
        ValueError, lambda: carry(markers, jumping, [0.0, 1.0], divergence="exact")
    )
