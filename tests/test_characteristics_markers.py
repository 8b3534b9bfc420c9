"""Without noise: markers, their integrals, and their densities."""

from typing import Any

import numpy as np
import pytest
from dolfinx import fem
from dolfinx.mesh import Mesh
from problems import RANKS, SELF, WORLD, A, Ripple, bump, cube, jumping, ones, raised

import fpcontrol as fpc
from fpcontrol.characteristics.flow import Flow, Markers, binned_l2, carry
from fpcontrol.discretization.elements import lagrange
from fpcontrol.discretization.replica import MeshReference
from fpcontrol.walls import walled


def still(flow: Flow) -> Flow:
    """The same markers at rest."""
    return Flow(
        flow.markers,
        flow.times,
        np.repeat(flow.markers.points[None], len(flow.times), axis=0),
        np.zeros_like(flow.log_jacobian),
    )


@RANKS
@pytest.mark.parametrize("m", [1, 4, 16, 64])
def test_oscillation_has_the_same_l2_error_at_every_frequency(m):
    k = 2.0 * np.pi * m
    flow = carry(Markers.on_interval(WORLD, 32 * m, ones), Ripple(k), [0.0, 0.5, 1.0])
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
    flow = carry(Markers.on_interval(WORLD, 20, ones), Ripple(k), np.linspace(0.0, 1.0, 6))
    for t, x, rho in zip(flow.times, flow.positions, flow.density, strict=True):
        exact = 1.0 / (np.cosh(A * t) + np.sinh(A * t) * np.cos(k * x[:, 0]))
        assert rho == pytest.approx(exact, rel=1e-7)
    assert flow.mass == pytest.approx(np.ones(6), rel=1e-14)
    assert flow.minimum == pytest.approx(np.exp(-A * flow.times), rel=1e-7)


@pytest.mark.parallel([1, 2])
def test_product_form_in_two_dimensions():
    # Quadrature of degree 8 on cells of kh = 0.5.
    markers = Markers.on_mesh(fpc.density.uniform(cube(WORLD, 2, 24), degree=1), 8)
    flow = carry(markers, Ripple(4.0 * np.pi), [0.0, 1.0])
    exact = np.sinh(2.0)  # 3.62686
    assert flow.l2_errors(lambda t, x: ones(x), np.ones(2))[-1] == pytest.approx(exact, rel=1e-6)
    assert flow.l2_errors(lambda t, x: ones(x))[-1] == pytest.approx(exact, rel=1e-4)


@RANKS
def test_divergences_agree():
    ripple = Ripple(2.0 * np.pi * 16)
    markers = Markers.on_interval(WORLD, 100, ones)

    def end(**options: Any) -> np.ndarray:
        def plain(t: float, x: np.ndarray) -> np.ndarray:
            return ripple(t, x)

        return carry(markers, plain, [0.0, 1.0], **options).log_jacobian[-1]

    exact = end(divergence=ripple.divergence)
    assert np.abs(end(divergence="complex") - exact).max(initial=0.0) < 1e-12
    # (k h)^4 / 30 with the difference's h = 3e-5.
    assert np.abs(end() - exact).max(initial=0.0) < 1e-8
    own = carry(markers, ripple, [0.0, 1.0]).log_jacobian[-1]
    assert np.array_equal(own, exact)


def test_errors_are_controlled():
    k = 2.0 * np.pi
    found = []
    for rtol in (1e-4, 1e-6, 1e-8, 1e-10):
        markers = Markers.on_interval(SELF, 50, ones)
        flow = carry(markers, Ripple(k), [0.0, 1.0], rtol=rtol, atol=rtol)
        exact = 1.0 / (np.cosh(A) + np.sinh(A) * np.cos(k * flow.positions[-1, :, 0]))
        found.append(np.abs(np.log(flow.density[-1] / exact)).max())
    # Global errors: a handful of steps, and log J feels errors of x times exp(A).
    assert (np.array(found) < 100.0 * np.array([1e-4, 1e-6, 1e-8, 1e-10])).all()
    assert found[0] > 1e3 * found[-1]


@RANKS
def test_no_step_passes_over_a_switch():
    markers = Markers.on_interval(WORLD, 3, ones)
    flow = carry(markers, jumping, [0.0, 0.5, 1.0], switches=[0.3, 0.6])
    exact = 0.5 + (markers.points - 0.5) * np.exp(-(0.3 + 4.0 * 0.3 + 2.0 * 0.4))
    assert flow.positions[-1] == pytest.approx(exact, abs=1e-10)
    assert flow.log_jacobian[-1] == pytest.approx(-2.3, abs=1e-8)
    # Steps that pass over a jump are rejected over and over.
    assert flow.steps < carry(markers, jumping, [0.0, 0.5, 1.0]).steps
    mesh = cube(WORLD, 1, 4)
    drift = fpc.NetworkDrift(mesh, 2, pieces=7, seed=1)
    flow = carry(markers, walled(drift, mesh), np.linspace(0.0, 1.0, 8))
    again = carry(markers, walled(drift, mesh), [0.0, 1.0], rtol=1e-12, atol=1e-12)
    assert flow.positions[-1] == pytest.approx(again.positions[-1], abs=1e-8)
    assert flow.log_jacobian[-1] == pytest.approx(again.log_jacobian[-1], abs=1e-7)
    assert again.steps < 7 * 8


@RANKS
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_result_does_not_depend_on_the_ranks(dim):
    def figures(comm) -> np.ndarray:
        mesh = cube(comm, dim, [20, 4, 1][dim - 1])
        drift = fpc.NetworkDrift(mesh, 4, 5, seed=2)
        flow = carry(Markers.on_mesh(bump(mesh, 2, 0.4)), walled(drift, mesh), [0.0, 0.3, 1.0])
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
    flow = carry(Markers.on_interval(WORLD, 400, ones), Ripple(k), [0.0, 1.0])
    # tan(k y/2) = exp(-A) tan(k x/2): the marker at x.
    angle = 0.5 * k * edges
    label = 2.0 * np.arctan2(np.exp(-A) * np.sin(angle), np.cos(angle)) / k
    masses = flow.cell_masses(-1, edges)
    # Mass is spread evenly over the image of each of 400 cells: second order.
    assert masses == pytest.approx(np.diff(label), abs=2e-5)
    assert masses.sum() == pytest.approx(1.0, rel=1e-14)


@RANKS
def test_an_atom_is_seen_as_an_atom():
    markers = Markers.on_interval(WORLD, 50, ones)
    flow = carry(markers, lambda t, x: -4.0 * (x - 0.5), [0.0, 5.0])
    for bins in (25, 101, 1001):  # the middle of an odd number of bins is in one of them
        edges = np.linspace(0.0, 1.0, bins + 1)
        masses = flow.cell_masses(-1, edges)
        assert masses[bins // 2] == pytest.approx(1.0, rel=1e-12)
        assert binned_l2(masses, edges) == pytest.approx(bins**0.5, rel=1e-12)
    assert flow.norms[-1] == pytest.approx(np.exp(10.0), rel=1e-6)


@RANKS
@pytest.mark.parametrize("dim", [1, 2])
def test_densities_on_a_mesh_are_those_along_the_labels(dim):
    k, mesh = 2.0 * np.pi, cube(WORLD, dim, [40, 24][dim - 1])
    markers = Markers.on_mesh(fpc.density.uniform(mesh, 1), 6)
    flow = carry(markers, Ripple(k), [0.0, 0.2, 0.4])
    space = lagrange(mesh, 2)
    found = flow.on_mesh(space, [0, 2])
    assert found.times == pytest.approx([0.0, 0.4])
    nodes = space.tabulate_dof_coordinates()[: found.levels.shape[1], :dim]
    exact = 1.0 / (np.cosh(0.4 * A) + np.sinh(0.4 * A) * np.cos(k * nodes)).prod(axis=1)
    assert found.levels[0] == pytest.approx(1.0, rel=1e-12)
    # Linear between markers, and beyond the outermost ones in the plane the nearest.
    assert found.levels[1] == pytest.approx(exact, abs=[0.004, 0.1][dim - 1])
    assert len(flow.on_mesh(space)) == 3


@RANKS
@pytest.mark.parametrize("dim", [1, 2])
def test_errors_to_a_reference_on_a_mesh(dim):
    mesh = cube(WORLD, dim, 8)
    reference = fpc.MoserFlow(bump(mesh, 1, 0.3), bump(mesh, 1, 0.7), 1.0, 0.0)
    markers = Markers.on_mesh(reference.start, 6)
    drift = walled(fpc.NetworkDrift(mesh, dim, 2), mesh)
    flow = carry(markers, drift, [0.0, 0.3, 1.0])
    errors = flow.l2_errors(reference)
    assert errors[0] < 1e-14
    assert errors[-1] > 0.1
    assert np.array_equal(errors, flow.l2_errors(MeshReference(reference)))
    norms = np.array([fpc.distances.l2(reference.density(t), _zero(mesh)) for t in flow.times])
    assert flow.l2_errors(reference, norms) == pytest.approx(errors, abs=2e-3)


def _zero(mesh: Mesh) -> fem.Function:
    return fem.Function(lagrange(mesh, 1))


@RANKS
def test_flows_that_cannot_be_compared_are_refused():
    drift = Ripple(2.0 * np.pi)

    def flow(n: int = 8, times=(0.0, 0.5, 1.0), density=ones) -> Flow:
        return carry(Markers.on_interval(WORLD, n, density), drift, times)

    first = flow()
    assert first.wasserstein(flow()) == pytest.approx(np.zeros(3), abs=1e-15)
    for other, message in [
        (flow(density=lambda x: 1.0 + 0.5 * np.cos(np.pi * x[:, 0])), "markers' density"),
        (flow(n=9), "markers' points"),
        (flow(times=(0.0, 0.25, 1.0)), "other times: 3 from 0 to 1 and 3 from 0 to 1"),
        (flow(times=(0.0, 1.0)), "other times: 3 from 0 to 1 and 2 from 0 to 1"),
    ]:
        assert message in raised(ValueError, lambda other=other: first.wasserstein(other))


@RANKS
def test_bad_values_are_refused():
    markers = Markers.on_interval(WORLD, 8, ones)
    hill = lambda x: 1.0 + 0.5 * np.cos(np.pi * x)  # noqa: E731
    message = raised(ValueError, lambda: Markers.on_interval(WORLD, 50, hill))
    assert "density(x) returned shape (" in message
    assert ", 1) for x of shape" in message
    for divergence in (lambda t, x: 0.0, lambda t, x: np.zeros_like(x)):
        options = {"divergence": divergence}
        call = lambda o=options: carry(markers, Ripple(2.0 * np.pi), [0.0, 1.0], **o)  # noqa: E731
        assert "divergence(t, x) returned shape" in raised(ValueError, call)
    flow = carry(markers, Ripple(2.0 * np.pi), [0.0, 1.0])
    for edges in ([1.0, 0.5, 0.0], [0.0, 0.5, 0.5], [0.0], [0.0, np.nan]):
        message = raised(ValueError, lambda edges=edges: flow.cell_masses(1, edges))
        assert "numbers that ascend" in message
    rho = fpc.density.uniform(cube(WORLD, 2, 4), 1)
    for value, message in ((-50.0, "negative at a marker"), (np.nan, "not finite")):
        if len(rho.x.array) and WORLD.rank == WORLD.size - 1:
            rho.x.array[0] = value
        assert message in raised(ValueError, lambda: Markers.on_mesh(rho))
