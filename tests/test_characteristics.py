"""Without noise: labels, their integrals, walls, references on meshes, and the gradient of J."""

from dataclasses import dataclass
from typing import Any

from mpi4py import MPI

import basix.ufl
import dolfinx.mesh
import numpy as np
import pytest
import ufl
from dolfinx import fem
from dolfinx.mesh import Mesh
from problems import SELF, WORLD, bump, cube, raised

import fpcontrol as fpc
from fpcontrol.characteristics.flow import Flow, Labels, binned_l2, carry
from fpcontrol.discretization.boundary import Wall
from fpcontrol.discretization.elements import lagrange
from fpcontrol.discretization.replica import MeshReference
from fpcontrol.verification import difference_test, dot_test, orders, taylor_test
from fpcontrol.walls import WallFactor, walled

RANKS = pytest.mark.parallel([1, 2, 3])
A = 2.0  # strength of the oscillating drift (A/k) sin(kx), up to time 1


def ones(x: np.ndarray) -> np.ndarray:
    return np.ones(len(x))


@dataclass(frozen=True)
class Ripple:
    """The drift (A/k) sin(k x_i) in every coordinate, with its divergence."""

    k: float

    def __call__(self, t: float, x: np.ndarray) -> np.ndarray:
        return A / self.k * np.sin(self.k * x)

    def divergence(self, t: float, x: np.ndarray) -> np.ndarray:
        return A * np.cos(self.k * x).sum(axis=1)


def still(flow: Flow) -> Flow:
    """The same labels at rest."""
    return Flow(
        flow.labels,
        flow.times,
        np.repeat(flow.labels.points[None], len(flow.times), axis=0),
        np.zeros_like(flow.log_jacobian),
    )


def l_shape(comm, n: int = 6) -> Mesh:
    """The unit square without its upper right quarter."""
    x = np.array([[i / n, j / n] for j in range(n + 1) for i in range(n + 1)])
    corner = [j * (n + 1) + i for j in range(n) for i in range(n) if i < n // 2 or j < n // 2]
    cells = np.array([[[c, c + 1, c + n + 1], [c + 1, c + n + 2, c + n + 1]] for c in corner])
    used, cells = np.unique(cells.reshape(-1, 3), return_inverse=True)
    element = basix.ufl.element("Lagrange", "triangle", 1, shape=(2,))
    if comm.rank:
        return dolfinx.mesh.create_mesh(
            comm, np.empty((0, 3), dtype=np.int64), ufl.Mesh(element), np.empty((0, 2))
        )
    return dolfinx.mesh.create_mesh(
        comm, cells.reshape(-1, 3).astype(np.int64), ufl.Mesh(element), x[used]
    )


# -- labels and integrals --------------------------------------------------------------------------


@RANKS
@pytest.mark.parametrize("m", [1, 4, 16, 64])
def test_oscillation_has_the_same_l2_error_at_every_frequency(m):
    k = 2.0 * np.pi * m
    flow = carry(Labels.on_interval(WORLD, 32 * m, ones), Ripple(k), [0.0, 0.5, 1.0])
    exact = np.sqrt(np.cosh(A * flow.times) - 1.0)
    assert exact[-1] == pytest.approx(1.661985, abs=1e-6)
    # Round-off of the quadrature of a trigonometric polynomial, and rtol; then the quadrature.
    by_norms = flow.l2_errors(lambda t, x: ones(x), np.ones(3))
    assert by_norms[1:] == pytest.approx(exact[1:], rel=1e-8)
    assert flow.l2_errors(lambda t, x: ones(x)) == pytest.approx(exact, abs=1e-6)
    assert flow.norms**2 == pytest.approx(np.cosh(A * flow.times), rel=1e-8)
    assert flow.wasserstein(still(flow))[-1] * k == pytest.approx(1.181016, abs=1e-6)
    assert flow.wasserstein(still(flow), p=1)[-1] * k == pytest.approx(1.051373, abs=3e-6)


@RANKS
def test_positions_and_densities_are_the_closed_form():
    k = 4.0 * np.pi
    flow = carry(Labels.on_interval(WORLD, 20, ones), Ripple(k), np.linspace(0.0, 1.0, 6))
    for t, x, rho in zip(flow.times, flow.positions, flow.density, strict=True):
        exact = 1.0 / (np.cosh(A * t) + np.sinh(A * t) * np.cos(k * x[:, 0]))
        assert rho == pytest.approx(exact, rel=1e-7)
    assert flow.mass == pytest.approx(np.ones(6), rel=1e-14)
    assert flow.minimum == pytest.approx(np.exp(-A * flow.times), rel=1e-7)


@pytest.mark.parallel([1, 2])
def test_product_form_in_two_dimensions():
    # Quadrature of degree 8 on cells of kh = 0.5.
    labels = Labels.on_mesh(fpc.density.uniform(cube(WORLD, 2, 24), degree=1), 8)
    flow = carry(labels, Ripple(4.0 * np.pi), [0.0, 1.0])
    exact = np.sinh(2.0)  # 3.62686
    assert flow.l2_errors(lambda t, x: ones(x), np.ones(2))[-1] == pytest.approx(exact, rel=1e-6)
    assert flow.l2_errors(lambda t, x: ones(x))[-1] == pytest.approx(exact, rel=1e-4)


@RANKS
def test_divergences_agree():
    ripple = Ripple(2.0 * np.pi * 16)
    labels = Labels.on_interval(WORLD, 100, ones)

    def end(**options: Any) -> np.ndarray:
        def plain(t: float, x: np.ndarray) -> np.ndarray:
            return ripple(t, x)

        return carry(labels, plain, [0.0, 1.0], **options).log_jacobian[-1]

    exact = end(divergence=ripple.divergence)
    assert np.abs(end(divergence="complex") - exact).max(initial=0.0) < 1e-12
    # (k h)^4 / 30 with the difference's h = 3e-5.
    assert np.abs(end() - exact).max(initial=0.0) < 1e-8
    own = carry(labels, ripple, [0.0, 1.0]).log_jacobian[-1]
    assert np.array_equal(own, exact)


def test_errors_are_controlled():
    k = 2.0 * np.pi
    found = []
    for rtol in (1e-4, 1e-6, 1e-8, 1e-10):
        labels = Labels.on_interval(SELF, 50, ones)
        flow = carry(labels, Ripple(k), [0.0, 1.0], rtol=rtol, atol=rtol)
        exact = 1.0 / (np.cosh(A) + np.sinh(A) * np.cos(k * flow.positions[-1, :, 0]))
        found.append(np.abs(np.log(flow.density[-1] / exact)).max())
    # Global errors: a handful of steps, and log J feels errors of x times exp(A).
    assert (np.array(found) < 100.0 * np.array([1e-4, 1e-6, 1e-8, 1e-10])).all()
    assert found[0] > 1e3 * found[-1]


def jumping(t: float, x: np.ndarray) -> np.ndarray:
    """Towards the middle, at a speed that jumps at 0.3 and 0.6."""
    return -(1.0 + 3.0 * (t > 0.3) - 2.0 * (t > 0.6)) * (x - 0.5)


@RANKS
def test_no_step_passes_over_a_switch():
    labels = Labels.on_interval(WORLD, 3, ones)
    flow = carry(labels, jumping, [0.0, 0.5, 1.0], switches=[0.3, 0.6])
    exact = 0.5 + (labels.points - 0.5) * np.exp(-(0.3 + 4.0 * 0.3 + 2.0 * 0.4))
    assert flow.positions[-1] == pytest.approx(exact, abs=1e-10)
    assert flow.log_jacobian[-1] == pytest.approx(-2.3, abs=1e-8)
    # Steps that pass over a jump are rejected over and over.
    assert flow.steps < carry(labels, jumping, [0.0, 0.5, 1.0]).steps
    mesh = cube(WORLD, 1, 4)
    drift = fpc.NetworkDrift(mesh, 2, pieces=7, seed=1)
    flow = carry(labels, walled(drift, mesh), np.linspace(0.0, 1.0, 8))
    again = carry(labels, walled(drift, mesh), [0.0, 1.0], rtol=1e-12, atol=1e-12)
    assert flow.positions[-1] == pytest.approx(again.positions[-1], abs=1e-8)
    assert flow.log_jacobian[-1] == pytest.approx(again.log_jacobian[-1], abs=1e-7)
    assert again.steps < 7 * 8


@RANKS
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_result_does_not_depend_on_the_ranks(dim):
    def figures(comm) -> np.ndarray:
        mesh = cube(comm, dim, [20, 4, 1][dim - 1])
        drift = fpc.NetworkDrift(mesh, 4, 5, seed=2)
        flow = carry(Labels.on_mesh(bump(mesh, 2, 0.4)), walled(drift, mesh), [0.0, 0.3, 1.0])
        ref = MeshReference(fpc.MoserFlow(bump(mesh, 2, 0.4), bump(mesh, 2, 0.6), 1.0, 0.0))
        return np.concatenate(
            [flow.norms, flow.l2_errors(ref), flow.wasserstein(still(flow)), flow.minimum]
        )

    shared, alone = figures(WORLD), figures(SELF)
    assert shared == pytest.approx(alone, rel=1e-9, abs=1e-12)
    assert WORLD.allgather(shared.tobytes()) == [shared.tobytes()] * WORLD.size


@RANKS
@pytest.mark.parametrize("bins", [10, 77])
def test_cell_masses_are_those_of_the_closed_form(bins):
    k, edges = 2.0 * np.pi, np.linspace(0.0, 1.0, bins + 1)
    flow = carry(Labels.on_interval(WORLD, 400, ones), Ripple(k), [0.0, 1.0])
    # tan(k y/2) = exp(-A) tan(k x/2): the label at x.
    angle = 0.5 * k * edges
    label = 2.0 * np.arctan2(np.exp(-A) * np.sin(angle), np.cos(angle)) / k
    masses = flow.cell_masses(-1, edges)
    # Mass is spread evenly over the image of each of 400 cells: second order.
    assert masses == pytest.approx(np.diff(label), abs=2e-5)
    assert masses.sum() == pytest.approx(1.0, rel=1e-14)


@RANKS
def test_an_atom_is_seen_as_an_atom():
    labels = Labels.on_interval(WORLD, 50, ones)
    flow = carry(labels, lambda t, x: -4.0 * (x - 0.5), [0.0, 5.0])
    for bins in (25, 101, 1001):  # the middle of an odd number of bins is in one of them
        edges = np.linspace(0.0, 1.0, bins + 1)
        masses = flow.cell_masses(-1, edges)
        assert masses[bins // 2] == pytest.approx(1.0, rel=1e-12)
        assert binned_l2(masses, edges) == pytest.approx(bins**0.5, rel=1e-12)
    assert flow.norms[-1] == pytest.approx(np.exp(10.0), rel=1e-6)


# -- walls -----------------------------------------------------------------------------------------


@RANKS
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_outward_drifts_are_refused(dim):
    labels = Labels.on_mesh(bump(cube(WORLD, dim, 2), 1, 0.3))

    def outward(t: float, x: np.ndarray) -> np.ndarray:
        v = 0.0 * x
        v[:, -1] = (t > 0.7) * x[:, -1] * (x[:, 0] > 0.1)
        return v

    message = raised(ValueError, lambda: carry(labels, outward, [0.0, 0.5, 1.0]))
    assert "outward at the wall: v.n = 1 at x = [" in message
    assert "t = 0.75" in message
    carry(labels, outward, [0.0, 0.5])
    carry(labels, lambda t, x: 0.5 - x, [0.0, 0.5])
    carry(labels, outward, [0.0, 0.9], walls=False)


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_normals_point_outward(dim):
    mesh = cube(WORLD, dim, 3, size=2.0, lower=-1.0)
    wall = Wall.of(mesh)
    nearest = np.abs(wall.points) == np.abs(wall.points).max(axis=1, initial=0.0, keepdims=True)
    outward = wall.normals[nearest] * np.sign(wall.points[nearest])
    assert outward == pytest.approx(np.ones(len(outward)))
    assert np.linalg.norm(wall.normals, axis=1) == pytest.approx(np.ones(len(wall.points)))
    assert WORLD.allreduce(len(wall.points)) > 0


DOMAINS = {
    "interval": lambda comm: cube(comm, 1, 4),
    "square": lambda comm: cube(comm, 2, 4, size=300.0),
    "box": lambda comm: cube(comm, 3, 2),
    "l-shape": l_shape,
}


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("make", DOMAINS.values(), ids=DOMAINS)
def test_walled_drift_vanishes_at_the_walls(make):
    mesh = make(WORLD)
    drift = walled(fpc.NetworkDrift(mesh, 3, 1, activation="sin"), mesh)
    wall = Wall.of(mesh)
    assert np.abs(drift(0.5, wall.points)).max(initial=0.0) < 1e-10 * drift.factor.size
    # At a distance of 1e-4 of the size from a flat wall the factor is that over the layer.
    depth = 1e-4 * drift.factor.size
    g = drift.factor(wall.points - depth * wall.normals)[0] * drift.factor.layer / depth
    assert np.median(g) == pytest.approx(1.0, abs=0.02) if len(g) else True
    assert not drift.factor.outside(wall.points - depth * wall.normals).any()
    assert drift.factor.outside(wall.points + depth * wall.normals).all()


@pytest.mark.parametrize("make", DOMAINS.values(), ids=DOMAINS)
def test_derivatives_of_the_wall_factor(make):
    mesh = make(SELF)
    factor = WallFactor(mesh)
    x = Labels.on_mesh(fpc.density.uniform(mesh, 1), 6).points
    if len(x[0]) == 2:  # on the continuation of the edges at the re-entrant corner, and near it
        near = np.array([[0.25, 0.5], [0.25, 0.5 + 1e-7], [0.25, 0.5 - 1e-4], [0.497, 0.3]])
        x = np.concatenate([x, near * factor.size])
    h = 1e-5 * factor.size
    g, slope, curvature = factor.jet(x)
    for i, axis in enumerate(np.eye(x.shape[1])):
        one, two = (
            [
                a - b
                for a, b in zip(
                    factor.jet(x + k * h * axis), factor.jet(x - k * h * axis), strict=True
                )
            ]
            for k in (1, 2)
        )
        first, second, _ = ((8.0 * a - b) / (12.0 * h) for a, b in zip(one, two, strict=True))
        # In units of the layer; points very near a corner have third derivatives of 1e5.
        assert np.abs(first - slope[:, i]).max() * factor.layer < 1e-8
        assert np.abs(second - curvature[:, :, i]).max() * factor.layer**2 < 1e-6
    assert 0.0 < g.min() and g.max() < 1.0


@RANKS
def test_divergence_of_a_walled_drift():
    mesh = l_shape(WORLD, 4)
    drift = walled(fpc.NetworkDrift(mesh, 3, 1), mesh, layer=0.2)
    labels = Labels.on_mesh(fpc.density.uniform(mesh, 1), 4)
    exact = carry(labels, drift, [0.0, 1.0])
    differences = carry(labels, drift, [0.0, 1.0], divergence="central")
    assert np.abs(exact.log_jacobian - differences.log_jacobian).max(initial=0.0) < 1e-7
    # Labels still cover the domain: the uniform density is at no distance to itself.
    total = labels.integral(np.exp(exact.log_jacobian[-1]))[0]
    assert total == pytest.approx(0.75, rel=1e-2)


@RANKS
@pytest.mark.parametrize("how", [None, "central", "complex", "given"])
def test_any_drift_can_be_walled(how):
    def plain(t: float, x: np.ndarray) -> np.ndarray:
        return 0.1 + 0.05 * np.sin(3.0 * x)

    def divergence(t: float, x: np.ndarray) -> np.ndarray:
        return 0.15 * np.cos(3.0 * x[:, 0])

    mesh = fpc.mesh.interval(WORLD, 8)
    labels = Labels.on_interval(WORLD, 32, ones)
    message = raised(ValueError, lambda: carry(labels, plain, [0.0, 1.0]))
    assert "walled(drift, mesh)" in message
    given = divergence if how == "given" else how
    steady = fpc.drift.Steady(lambda x: plain(0.0, x))
    for drift in (plain, steady):
        whole = walled(drift, mesh, divergence=given)
        flow = carry(labels, whole, [0.0, 1.0])
        x = np.linspace(0.01, 0.99, 7)[:, None]
        g, slope = whole.factor(x)
        exact = g * divergence(0.0, x) + slope[:, 0] * plain(0.0, x)[:, 0]
        assert whole.divergence(0.0, x) == pytest.approx(exact, abs=1e-9)
        # Labels cover the interval to the end: the mean of J is 1, to the quadrature.
        total = labels.integral(np.exp(flow.log_jacobian[-1]))[0]
        assert total == pytest.approx(1.0, abs=1e-6)


@RANKS
def test_drifts_that_live_on_a_mesh_are_refused():
    mesh = cube(WORLD, 2, 4)
    reference = fpc.MoserFlow(bump(mesh, 1, 0.3), bump(mesh, 1, 0.7), 1.0, 0.0)
    labels = Labels.on_mesh(reference.start)
    for call in (
        lambda: carry(labels, reference.drift, [0.0, 1.0]),
        lambda: carry(labels, reference.drift, [0.0, 1.0], walls=False),
        lambda: walled(reference.drift, mesh),
    ):
        assert "a MoserDrift, lives on a mesh" in raised(ValueError, call)
    assert "drift = 3.0 is not callable" in raised(ValueError, lambda: walled(3.0, mesh))
    assert "divergence = 'exact'" in raised(
        ValueError, lambda: walled(jumping, mesh, divergence="exact")
    )


# -- references on meshes --------------------------------------------------------------------------


class Polynomial:
    """A finite-element function, exactly a polynomial, that grows in time."""

    def __init__(self, mesh: Mesh, degree: int) -> None:
        self.degree, d = degree, mesh.topology.dim
        self.elements = fpc.discretization.elements.Elements(lagrange(mesh, degree))
        self.u = fem.Function(self.elements.space)
        self.u.interpolate(lambda x: self.exact(x[:d].T)[0])

    def exact(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        y = x @ (1.0 + np.arange(x.shape[1])) - 0.3
        slope = self.degree * y ** (self.degree - 1)
        return y**self.degree, slope[:, None] * (1.0 + np.arange(x.shape[1]))

    def coefficients(self, t: float) -> np.ndarray:
        return (1.0 + t) * self.u.x.array


@pytest.mark.parallel([1, 3])
@pytest.mark.parametrize("degree", [1, 2, 3])
@pytest.mark.parametrize("make", DOMAINS.values(), ids=DOMAINS)
def test_reference_at_moving_points_is_the_function(make, degree, monkeypatch):
    mesh = make(WORLD)
    polynomial = Polynomial(mesh, degree)
    size = WallFactor(mesh).size
    moving = MeshReference(polynomial)
    rng = np.random.default_rng(WORLD.rank)
    x = rng.random((50, mesh.topology.dim))
    if make is l_shape:
        x = x[(x < 0.5).any(axis=1)]
    cells = None
    for shift in (0.0, 0.003, 0.03):  # to the same cell, the next one, around the corner
        y = size * np.clip(x - shift, 0.0, 1.0)
        value, slope, cells = moving.at(0.5, y, cells)
        exact, exact_slope = polynomial.exact(y)
        assert value == pytest.approx(1.5 * exact, rel=1e-11, abs=1e-12 * size**degree)
        assert slope == pytest.approx(
            1.5 * exact_slope, rel=1e-10, abs=1e-11 * size ** (degree - 1)
        )
    # From any cell to any other; only a re-entrant corner stops a walk.
    searched, search = [], moving.cells.search
    monkeypatch.setattr(moving.cells, "search", lambda x: searched.append(len(x)) or search(x))
    n_cells = WORLD.allreduce(polynomial.elements.n_cells)
    far = moving.at(0.5, y, 7 * np.arange(len(y)) % n_cells)[0]
    assert (sum(searched) > 0) == (make is l_shape)
    assert far == pytest.approx(value, rel=1e-11, abs=1e-12 * size**degree)


@RANKS
def test_points_outside_a_reference_are_refused():
    moving = MeshReference(Polynomial(cube(WORLD, 2, 3), 1))
    beyond = np.array([[0.3, 1.0 + 1e-13], [-1e-14, 0.2]])
    value = moving(0.0, beyond)
    assert value == pytest.approx(beyond @ [1.0, 2.0] - 0.3)
    line = MeshReference(Polynomial(cube(WORLD, 1, 3), 1))
    assert line(0.0, np.array([[1.0 + 1e-8]])) == pytest.approx(0.7, abs=1e-13)
    x = np.array([[0.3, 0.3], [1.2, 0.5]])[: 1 + (WORLD.rank == WORLD.size - 1)]
    assert "[1.2 0.5] is outside" in raised(ValueError, lambda: moving(0.0, x))


# -- tracking --------------------------------------------------------------------------------------


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
    # Steps so small that few labels cross a face of the mesh, where the reference has a kink.
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
    exact = carry(problem.runs.labels, drift, [0.0, 1.0], rtol=1e-12, atol=1e-12)

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


@RANKS
@pytest.mark.parametrize("dim", [1, 2])
def test_densities_on_a_mesh_are_those_along_the_labels(dim):
    k, mesh = 2.0 * np.pi, cube(WORLD, dim, [40, 24][dim - 1])
    labels = Labels.on_mesh(fpc.density.uniform(mesh, 1), 6)
    flow = carry(labels, Ripple(k), [0.0, 0.2, 0.4])
    space = lagrange(mesh, 2)
    found = flow.on_mesh(space, [0, 2])
    assert found.times == pytest.approx([0.0, 0.4])
    nodes = space.tabulate_dof_coordinates()[: found.levels.shape[1], :dim]
    exact = 1.0 / (np.cosh(0.4 * A) + np.sinh(0.4 * A) * np.cos(k * nodes)).prod(axis=1)
    assert found.levels[0] == pytest.approx(1.0, rel=1e-12)
    # Linear between labels, and beyond the outermost ones in the plane the nearest.
    assert found.levels[1] == pytest.approx(exact, abs=[0.004, 0.1][dim - 1])
    assert len(flow.on_mesh(space)) == 3


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("dim", [1, 2])
def test_labels_of_a_finer_mesh_confirm_the_errors(dim):
    problem = on_mesh(dim=dim)
    weights = 0.2 * normal(problem)
    n = 4 * [12, 4, 2][dim - 1]
    finer = problem.refined(4 * problem.steps, label_mesh=cube(WORLD, dim, n))
    count = [WORLD.allreduce(len(p.runs.labels.points)) for p in (problem, finer)]
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
@pytest.mark.parametrize("dim", [1, 2])
def test_errors_to_a_reference_on_a_mesh(dim):
    mesh = cube(WORLD, dim, 8)
    reference = fpc.MoserFlow(bump(mesh, 1, 0.3), bump(mesh, 1, 0.7), 1.0, 0.0)
    labels = Labels.on_mesh(reference.start, 6)
    drift = walled(fpc.NetworkDrift(mesh, dim, 2), mesh)
    flow = carry(labels, drift, [0.0, 0.3, 1.0])
    errors = flow.l2_errors(reference)
    assert errors[0] < 1e-14
    assert errors[-1] > 0.1
    assert np.array_equal(errors, flow.l2_errors(MeshReference(reference)))
    norms = np.array([fpc.distances.l2(reference.density(t), _zero(mesh)) for t in flow.times])
    assert flow.l2_errors(reference, norms) == pytest.approx(errors, abs=2e-3)


def _zero(mesh: Mesh) -> fem.Function:
    return fem.Function(lagrange(mesh, 1))


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
def test_flows_that_cannot_be_compared_are_refused():
    drift = Ripple(2.0 * np.pi)

    def flow(n: int = 8, times=(0.0, 0.5, 1.0), density=ones) -> Flow:
        return carry(Labels.on_interval(WORLD, n, density), drift, times)

    first = flow()
    assert first.wasserstein(flow()) == pytest.approx(np.zeros(3), abs=1e-15)
    for other, message in [
        (flow(density=lambda x: 1.0 + 0.5 * np.cos(np.pi * x[:, 0])), "labels' density"),
        (flow(n=9), "labels' points"),
        (flow(times=(0.0, 0.25, 1.0)), "other times: 3 from 0 to 1 and 3 from 0 to 1"),
        (flow(times=(0.0, 1.0)), "other times: 3 from 0 to 1 and 2 from 0 to 1"),
    ]:
        assert message in raised(ValueError, lambda other=other: first.wasserstein(other))


@RANKS
def test_bad_values_are_refused():
    labels = Labels.on_interval(WORLD, 8, ones)
    hill = lambda x: 1.0 + 0.5 * np.cos(np.pi * x)  # noqa: E731
    message = raised(ValueError, lambda: Labels.on_interval(WORLD, 50, hill))
    assert "density(x) returned shape (" in message
    assert ", 1) for x of shape" in message
    for divergence in (lambda t, x: 0.0, lambda t, x: np.zeros_like(x)):
        options = {"divergence": divergence}
        call = lambda o=options: carry(labels, Ripple(2.0 * np.pi), [0.0, 1.0], **o)  # noqa: E731
        assert "divergence(t, x) returned shape" in raised(ValueError, call)
    flow = carry(labels, Ripple(2.0 * np.pi), [0.0, 1.0])
    for edges in ([1.0, 0.5, 0.0], [0.0, 0.5, 0.5], [0.0], [0.0, np.nan]):
        message = raised(ValueError, lambda edges=edges: flow.cell_masses(1, edges))
        assert "numbers that ascend" in message
    rho = fpc.density.uniform(cube(WORLD, 2, 4), 1)
    for value, message in ((-50.0, "negative at a label"), (np.nan, "not finite")):
        if len(rho.x.array) and WORLD.rank == WORLD.size - 1:
            rho.x.array[0] = value
        assert message in raised(ValueError, lambda: Labels.on_mesh(rho))


@RANKS
def test_what_cannot_be_done_is_refused():
    assert "scheme" in raised(ValueError, lambda: on_mesh(scheme=fpc.SDIRK2()))
    noisy = on_mesh()
    assert "layer" in raised(
        ValueError, lambda: fpc.TrackingProblem(noisy.reference, noisy.drift, 0.5, 8, layer=0.1)
    )
    labels = noisy.runs.labels
    assert "labels" in raised(
        ValueError, lambda: on_mesh(labels=labels, start=noisy.reference.start)
    )
    wave = smooth()
    assert "MoserFlow" in raised(
        ValueError, lambda: fpc.TrackingProblem(wave.reference, wave.drift, 0.5, 8)
    )
    assert "second derivative" in raised(ValueError, lambda: smooth(activation="relu"))
    assert "multiple" in raised(ValueError, lambda: smooth(steps=7))
    assert "decay" in raised(ValueError, lambda: smooth(decay=-1.0))
    assert "layer" in raised(ValueError, lambda: smooth(layer=0.0))
    assert "n = 0" in raised(ValueError, lambda: Labels.on_interval(WORLD, 0, ones))
    fast = smooth()
    message = raised(ValueError, lambda: fast(1e3 * normal(fast)))
    assert "left the domain" in message and "more steps" in message
    labels = Labels.on_interval(WORLD, 4, ones)

    def pole(t: float, x: np.ndarray) -> np.ndarray:
        return np.where((x > 0.6) & (x < 0.9), np.nan, 0.0)

    assert "not finite at t = " in raised(ValueError, lambda: carry(labels, pole, [0.0, 1.0]))
    assert "increase" in raised(ValueError, lambda: carry(labels, jumping, [1.0, 0.0]))
    assert "divergence" in raised(
        ValueError, lambda: carry(labels, jumping, [0.0, 1.0], divergence="exact")
    )
