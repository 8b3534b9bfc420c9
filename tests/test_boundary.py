"""The boundary of a mesh: measures, normals, tags, and functions at its quadrature points."""

from pathlib import Path

from mpi4py import MPI

import numpy as np
import pytest
from dolfinx import fem
from dolfinx.mesh import Mesh, locate_entities, locate_entities_boundary, meshtags
from problems import SELF, WORLD, cube, raised

import fpcontrol as fpc
from fpcontrol.discretization.boundary import MARKED, UNTAGGED, Boundary
from fpcontrol.discretization.elements import Elements, lagrange

MESHES = Path(__file__).parents[1] / "meshes"
RANKS = pytest.mark.parallel([1, 2, 3])

# Domains with the measures of the whole, of the boundary, and of the part at the smallest x.
DOMAINS = {
    "interval": (lambda comm: cube(comm, 1, 7, 2.0, -1.0), 2.0, 2.0, 1.0),
    "square": (lambda comm: cube(comm, 2, 5, 2.0, -1.0), 4.0, 8.0, 2.0),
    "box": (lambda comm: cube(comm, 3, 3, 2.0, -1.0), 8.0, 24.0, 4.0),
    "l-shape": (lambda comm: fpc.mesh.read(MESHES / "l_shape.xdmf", comm), None, None, None),
}


def total(values: np.ndarray) -> float:
    return WORLD.allreduce(float(values.sum()))


def low_side(mesh: Mesh):
    """Marker of the facets with the smallest first coordinate."""
    lowest = WORLD.allreduce(mesh.geometry.x[:, 0].min(initial=np.inf), op=MPI.MIN)
    return lambda x: np.isclose(x[0], lowest)


@RANKS
@pytest.mark.parametrize("domain", DOMAINS)
def test_divergence_theorem(domain):
    make, volume, perimeter, _ = DOMAINS[domain]
    mesh = make(WORLD)
    boundary, d = Boundary.of(mesh), mesh.topology.dim
    volume = volume or Elements(lagrange(mesh, 1)).volume
    if perimeter:
        assert boundary.measure() == pytest.approx(perimeter, rel=1e-13)
    for degree in (1, 4):
        q = boundary.quadrature(degree)
        assert total(q.weights) == pytest.approx(boundary.measure(), rel=1e-13)
        flux = total(q.weights * np.einsum("nd,nd->n", q.points, q.normals))
        assert flux == pytest.approx(d * volume, rel=1e-12)
    # Closed: the normals have no sum.
    assert WORLD.allreduce(q.weights @ q.normals) == pytest.approx(np.zeros(d), abs=1e-12)
    assert np.linalg.norm(q.normals, axis=1) == pytest.approx(np.ones(len(q.points)), rel=1e-14)


@RANKS
@pytest.mark.parametrize("domain", DOMAINS)
def test_every_facet_is_with_the_rank_of_its_cell(domain):
    mesh = DOMAINS[domain][0](WORLD)
    boundary, alone = Boundary.of(mesh), Boundary.of(DOMAINS[domain][0](SELF))
    owned = mesh.topology.index_map(mesh.topology.dim).size_local
    assert (boundary.cells < owned).all()
    assert WORLD.allreduce(len(boundary.facets)) == len(alone.facets)
    # Outward: from the middle of the cell behind to the facet.
    middles = mesh.geometry.x[mesh.geometry.dofmaps[0][boundary.cells]].mean(axis=1)
    out = boundary.corners.mean(axis=1) - middles[:, : mesh.topology.dim]
    assert (np.einsum("nd,nd->n", out, boundary.normals) > 0.0).all()


@RANKS
@pytest.mark.parametrize("kind", ["marker", "MeshTags"])
@pytest.mark.parametrize("domain", list(DOMAINS)[:3])
def test_tags_part_the_boundary(domain, kind):
    make, _, perimeter, side = DOMAINS[domain]
    mesh = make(WORLD)
    d, tags, tag = mesh.topology.dim, low_side(mesh), MARKED
    if kind == "MeshTags":
        mesh.topology.create_connectivity(d - 1, d)
        low = locate_entities_boundary(mesh, d - 1, tags)
        inner = locate_entities(mesh, d - 1, lambda x: np.isclose(x[0], x[0]))
        values = np.where(np.isin(inner, low), 7, 3).astype(np.int32)
        tags, tag = meshtags(mesh, d - 1, inner, values), 7
    boundary = Boundary.of(mesh, tags)
    part = boundary.tagged(tag)
    rest = boundary.tagged(3 if kind == "MeshTags" else UNTAGGED)
    assert part.measure() == pytest.approx(side, rel=1e-13)
    assert rest.measure() == pytest.approx(perimeter - side, rel=1e-13)
    assert boundary.tagged(tag, 3, UNTAGGED).measure() == pytest.approx(perimeter, rel=1e-13)
    assert part.quadrature(2).points[:, 0] == pytest.approx(-1.0)
    assert (part.normals[:, 0] < -1.0 + 1e-14).all()
    assert boundary.tagged(99).measure() == 0.0


@RANKS
def test_tags_of_a_file_are_those_of_the_boundary():
    path = MESHES / "l_shape.xdmf"
    mesh = fpc.mesh.read(path, WORLD)
    boundary = Boundary.of(mesh, fpc.mesh.read_facet_tags(path, mesh))
    tags = np.unique(np.concatenate(WORLD.allgather(boundary.tags)))
    assert UNTAGGED not in tags
    parts = [boundary.tagged(tag).measure() for tag in tags]
    assert sorted(parts) == pytest.approx([2.0, 6.0], rel=1e-12)


@RANKS
@pytest.mark.parametrize("degree", [1, 2, 3])
@pytest.mark.parametrize("domain", DOMAINS)
def test_functions_and_normal_gradients_at_facets(domain, degree):
    mesh = DOMAINS[domain][0](WORLD)
    space, d = lagrange(mesh, degree), mesh.topology.dim
    slope = 1.0 + np.arange(d)
    u = fem.Function(space)
    u.interpolate(lambda x: (slope @ x[:d] - 0.3) ** degree)
    q = Boundary.of(mesh).quadrature(2 * degree)
    values, normal = q.evaluate(space, u.x.array)
    y = q.points @ slope - 0.3
    assert values == pytest.approx(y**degree, rel=1e-11, abs=1e-12)
    exact = degree * y ** (degree - 1) * (q.normals @ slope)
    assert normal == pytest.approx(exact, rel=1e-10, abs=1e-10)
    phi, dphi = q.tabulate(space)
    assert phi.sum(axis=1) == pytest.approx(np.ones(len(phi)), rel=1e-13)
    assert dphi.sum(axis=1) == pytest.approx(np.zeros(len(phi)), abs=1e-10)


@RANKS
def test_bad_tags_are_refused_on_all_ranks():
    mesh, other = cube(WORLD, 2, 3), cube(WORLD, 2, 3)
    mesh.topology.create_connectivity(1, 2)
    other.topology.create_connectivity(1, 2)
    none = np.zeros(0, dtype=np.int32)
    cells, elsewhere = meshtags(mesh, 2, none, none), meshtags(other, 1, none, none)
    message = raised(ValueError, lambda: Boundary.of(mesh, cells))
    assert "entities of dimension 2 of this mesh" in message
    assert "another mesh" in raised(ValueError, lambda: Boundary.of(mesh, elsewhere))
    assert "tags = 3" in raised(ValueError, lambda: Boundary.of(mesh, 3))
    assert Boundary.of(mesh, meshtags(mesh, 1, none, none)).tagged(UNTAGGED).measure() == 4.0

    def marker(x: np.ndarray) -> np.ndarray:
        if WORLD.rank == WORLD.size - 1:
            raise ArithmeticError("no such place")
        return x[0] > 0.0

    assert "no such place" in raised(ArithmeticError, lambda: Boundary.of(mesh, marker))
