"""Without noise: walls, and drifts that do not cross them."""

import numpy as np
import pytest
from problems import DOMAINS, RANKS, SELF, WORLD, bump, cube, jumping, l_shape, ones, raised

import fpcontrol as fpc
from fpcontrol.characteristics.flow import Markers, carry
from fpcontrol.discretization.boundary import Wall
from fpcontrol.walls import WallFactor, walled


@RANKS
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_outward_drifts_are_refused(dim):
    markers = Markers.on_mesh(bump(cube(WORLD, dim, 2), 1, 0.3))

    def outward(t: float, x: np.ndarray) -> np.ndarray:
        v = 0.0 * x
        v[:, -1] = (t > 0.7) * x[:, -1] * (x[:, 0] > 0.1)
        return v

    message = raised(ValueError, lambda: carry(markers, outward, [0.0, 0.5, 1.0]))
    assert "outward at the wall: v.n = 1 at x = [" in message
    assert "t = 0.75" in message
    carry(markers, outward, [0.0, 0.5])
    carry(markers, lambda t, x: 0.5 - x, [0.0, 0.5])
    carry(markers, outward, [0.0, 0.9], walls=False)


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
    x = Markers.on_mesh(fpc.density.uniform(mesh, 1), 6).points
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
    markers = Markers.on_mesh(fpc.density.uniform(mesh, 1), 4)
    exact = carry(markers, drift, [0.0, 1.0])
    differences = carry(markers, drift, [0.0, 1.0], divergence="central")
    assert np.abs(exact.log_jacobian - differences.log_jacobian).max(initial=0.0) < 1e-7
    # Markers still cover the domain: the uniform density is at no distance to itself.
    total = markers.integral(np.exp(exact.log_jacobian[-1]))[0]
    assert total == pytest.approx(0.75, rel=1e-2)


@RANKS
@pytest.mark.parametrize("how", [None, "central", "complex", "given"])
def test_any_drift_can_be_walled(how):
    def plain(t: float, x: np.ndarray) -> np.ndarray:
        return 0.1 + 0.05 * np.sin(3.0 * x)

    def divergence(t: float, x: np.ndarray) -> np.ndarray:
        return 0.15 * np.cos(3.0 * x[:, 0])

    mesh = fpc.mesh.interval(WORLD, 8)
    markers = Markers.on_interval(WORLD, 32, ones)
    message = raised(ValueError, lambda: carry(markers, plain, [0.0, 1.0]))
    assert "walled(drift, mesh)" in message
    given = divergence if how == "given" else how
    steady = fpc.drift.Steady(lambda x: plain(0.0, x))
    for drift in (plain, steady):
        whole = walled(drift, mesh, divergence=given)
        flow = carry(markers, whole, [0.0, 1.0])
        x = np.linspace(0.01, 0.99, 7)[:, None]
        g, slope = whole.factor(x)
        exact = g * divergence(0.0, x) + slope[:, 0] * plain(0.0, x)[:, 0]
        assert whole.divergence(0.0, x) == pytest.approx(exact, abs=1e-9)
        # Markers cover the interval to the end: the mean of J is 1, to the quadrature.
        total = markers.integral(np.exp(flow.log_jacobian[-1]))[0]
        assert total == pytest.approx(1.0, abs=1e-6)


@RANKS
def test_drifts_that_live_on_a_mesh_are_refused():
    mesh = cube(WORLD, 2, 4)
    reference = fpc.MoserFlow(bump(mesh, 1, 0.3), bump(mesh, 1, 0.7), 1.0, 0.0)
    markers = Markers.on_mesh(reference.start)
    for call in (
        lambda: carry(markers, reference.drift, [0.0, 1.0]),
        lambda: carry(markers, reference.drift, [0.0, 1.0], walls=False),
        lambda: walled(reference.drift, mesh),
    ):
        assert "a MoserDrift, lives on a mesh" in raised(ValueError, call)
    assert "drift = 3.0 is not callable" in raised(ValueError, lambda: walled(3.0, mesh))
    assert "divergence = 'exact'" in raised(
        ValueError, lambda: walled(jumping, mesh, divergence="exact")
    )
