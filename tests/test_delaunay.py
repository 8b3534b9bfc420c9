"""Flips make triangles Delaunay, and leave all else as it is."""

from pathlib import Path

import basix.ufl
import dolfinx.mesh
import numpy as np
import pytest
import ufl
from dolfinx.io import XDMFFile
from problems import SELF, WORLD, cube, l_shape, raised

import fpcontrol as fpc
from fpcontrol.discretization.edges import Edges
from fpcontrol.discretization.elements import Elements, lagrange
from fpcontrol.mesh.flips import flipped
from fpcontrol.parallel.communicators import comm_of

DATA = Path(__file__).parent / "data"


def arrays(n: int) -> tuple[np.ndarray, np.ndarray]:
    """A square of n x n squares of two triangles, counter-clockwise."""
    x = np.array([[i / n, j / n] for j in range(n + 1) for i in range(n + 1)])
    first = np.array([j * (n + 1) + i for j in range(n) for i in range(n)])[:, None]
    lower, upper = first + np.array([0, 1, n + 2]), first + np.array([0, n + 2, n + 1])
    return np.concatenate([lower, upper]), x


def made(comm, cells, x):
    """A mesh of arrays that rank 0 has."""
    if comm.rank:
        cells, x = np.empty((0, 3), dtype=np.int64), np.empty((0, 2))
    element = basix.ufl.element("Lagrange", "triangle", 1, shape=(2,))
    return dolfinx.mesh.create_mesh(comm, cells.astype(np.int64), ufl.Mesh(element), x)


def jittered(comm, n: int, seed: int = 0):
    """A square whose nodes are shifted by up to 0.3 cells, those of walls along them."""
    cells, x = arrays(n)
    shift = 0.3 / n * np.random.default_rng(seed).uniform(-1.0, 1.0, x.shape)
    shift[(x == 0.0) | (x == 1.0)] = 0.0
    return made(comm, cells, x + shift)


def clipped(mesh) -> float:
    return Edges(Elements(lagrange(mesh, 1))).clipped


def area(mesh) -> float:
    return Elements(lagrange(mesh, 1)).volume


def boundary(mesh) -> set:
    """Boundary edges as pairs of places, of all ranks."""
    mesh.topology.create_connectivity(1, 2)
    facets = dolfinx.mesh.exterior_facet_indices(mesh.topology)
    nodes = dolfinx.mesh.entities_to_geometry(mesh, 1, facets)
    ends = mesh.geometry.x[nodes][:, :, :2].reshape(len(nodes), 2, 2)
    own = {frozenset(map(tuple, pair)) for pair in ends}
    return set().union(*comm_of(mesh).allgather(own))


def cells_of(mesh) -> int:
    return mesh.topology.index_map(2).size_global


@pytest.mark.parallel([1, 2, 3])
def test_bad_edges_of_a_jittered_square_are_gone():
    mesh = jittered(WORLD, 16)
    assert clipped(mesh) > 0.02
    flat = fpc.mesh.delaunay(mesh)
    assert clipped(flat) < 1e-10
    assert cells_of(flat) == cells_of(mesh)
    assert area(flat) == pytest.approx(1.0, rel=1e-13)
    assert boundary(flat) == boundary(mesh)
    nodes = [{*map(tuple, part)} for part in WORLD.allgather(mesh.geometry.x)]
    assert set().union(*nodes) == set().union(
        *({*map(tuple, part)} for part in WORLD.allgather(flat.geometry.x))
    )
    assert fpc.mesh.delaunay(flat) is flat


def test_share_of_bad_edges_is_as_documented():
    mesh = jittered(SELF, 32)
    cells = mesh.geometry.dofmaps[0]
    _, flips = flipped(cells.astype(np.int64), mesh.geometry.x[:, :2])
    edges = mesh.topology.index_map(0).size_global + cells_of(mesh) - 1
    assert 0.1 < flips / edges < 0.25


def signed_areas(corners):
    one, two = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    return 0.5 * (one[:, 0] * two[:, 1] - one[:, 1] * two[:, 0])


@pytest.mark.parametrize("seed", range(20))
def test_flips_end_with_delaunay_triangles_in_any_mesh(seed):
    # From the worst mesh: nodes that keep coming to lie on circles, and slivers.
    rng = np.random.default_rng(seed)
    cells, x = arrays(8)
    shear = np.array([[1.0, rng.uniform(-6.0, 6.0)], [0.0, 1.0]])
    y = x @ shear if seed % 2 else x @ shear + rng.uniform(-0.01, 0.01, x.shape)
    turned = cells[:, [0, 2, 1]] if seed % 3 else cells
    found, _ = flipped(turned, y)
    assert len(found) == len(cells)
    again, flips = flipped(found, y)
    assert flips == 0 and np.array_equal(again, found)
    areas = signed_areas(y[found])
    assert areas.min() > 0.0
    assert areas.sum() == pytest.approx(signed_areas(y[cells]).sum(), rel=1e-12)
    edges = {frozenset(map(int, p)) for t in found for p in (t[:2], t[1:], t[[0, 2]])}
    assert len(edges) == 3 * 8 * 8 + 2 * 8


def test_regular_meshes_and_those_shipped_have_nothing_to_flip():
    for mesh in (
        cube(SELF, 2, 7),
        l_shape(SELF),
        fpc.mesh.read(DATA.parents[1] / "meshes" / "disk.xdmf", SELF),
    ):
        assert fpc.mesh.delaunay(mesh) is mesh


@pytest.mark.parallel([1, 2])
def test_holes_and_islands_stay():
    cells, x = arrays(9)
    middle = x[cells].mean(axis=1)
    hole = (np.abs(middle - 0.5) < 1.0 / 6.0).all(axis=1)
    strait = np.abs(middle[:, 0] - 1.0 / 6.0) < 1.0 / 18.0
    used, kept = np.unique(cells[~hole & ~strait], return_inverse=True)
    shear = np.array([[1.0, 1.4], [0.0, 1.0]])  # all diagonals are the longer ones
    mesh = made(WORLD, kept.reshape(-1, 3), x[used] @ shear)
    flat = fpc.mesh.delaunay(mesh)
    assert flat is not mesh and cells_of(flat) == cells_of(mesh)
    assert boundary(flat) == boundary(mesh)
    assert area(flat) == pytest.approx(area(mesh), rel=1e-13)


def test_boundary_tags_of_a_file_are_found_again(tmp_path):
    mesh = jittered(SELF, 8)
    mesh.topology.create_connectivity(1, 2)
    facets = dolfinx.mesh.exterior_facet_indices(mesh.topology)
    left = dolfinx.mesh.compute_midpoints(mesh, 1, facets)[:, 0] == 0.0
    written = dolfinx.mesh.meshtags(mesh, 1, facets, np.where(left, 7, 2).astype(np.int32))
    with XDMFFile(SELF, tmp_path / "bad.xdmf", "w") as file:
        file.write_mesh(mesh)
        file.write_meshtags(written, mesh.geometry)
    flat = fpc.mesh.delaunay(fpc.mesh.read(tmp_path / "bad.xdmf", SELF))
    assert clipped(flat) < 1e-10
    tags = fpc.mesh.read_facet_tags(tmp_path / "bad.xdmf", flat)
    assert np.bincount(tags.values).tolist() == np.bincount(written.values).tolist()
    assert (dolfinx.mesh.compute_midpoints(flat, 1, tags.find(7))[:, 0] == 0.0).all()


@pytest.mark.parallel([1, 2])
def test_other_cells_are_refused():
    words = raised(ValueError, lambda: fpc.mesh.delaunay(cube(WORLD, 3, 2)))
    assert "tetrahedra" in words and "triangles only" in words
    assert "intervals" in raised(ValueError, lambda: fpc.mesh.delaunay(cube(WORLD, 1, 2)))
    square = dolfinx.mesh.create_unit_square(WORLD, 2, 2, dolfinx.mesh.CellType.quadrilateral)
    assert "quadrilateral" in raised(ValueError, lambda: fpc.mesh.delaunay(square))


def test_edges_of_three_triangles_are_refused():
    x = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, 1.0], [0.5, -1.0], [0.6, 2.0]])
    with pytest.raises(ValueError, match="1 edges belong to more than two"):
        flipped(np.array([[0, 1, 2], [0, 1, 3], [0, 1, 4]]), x)


def error(mesh, exact) -> float:
    """Relative distance of Monotone()'s density at the end to one of degree 3."""
    end = solved(mesh, 1, fpc.Exponential(), fpc.Monotone())
    size = Elements(exact.function_space).norm(exact.x.array)
    return fpc.distances.l2(end, exact) / size


def solved(mesh, steps, scheme, method):
    """Density at the end, carried by a drift that is no gradient and stays inside."""

    def drift(x):
        v = np.sin(np.pi * x) * np.cos(np.pi * x[:, ::-1])
        return v * np.array([1.0, -1.0]) + 0.3 * np.sin(np.pi * x)

    def start(x):
        return 1.0 + 0.5 * np.cos(np.pi * x[0]) * np.cos(2.0 * np.pi * x[1])

    rho = fpc.density.interpolate(mesh, start, discretization=method)
    equation = fpc.FokkerPlanck(mesh, fpc.drift.Steady(drift), 0.3, discretization=method)
    return equation.solve(rho, 0.4, steps, scheme=scheme, save="last")[-1]


@pytest.mark.filterwarnings("ignore:.*negative and cut off")
def test_flips_restore_the_order():
    exact = solved(cube(SELF, 2, 20), 20, fpc.SDIRK4(), fpc.Galerkin(3))
    meshes = [jittered(SELF, n) for n in (16, 32)]
    bad = [error(mesh, exact) for mesh in meshes]
    good = [error(fpc.mesh.delaunay(mesh), exact) for mesh in meshes]
    assert np.log2(bad[0] / bad[1]) < 0.7
    assert np.log2(good[0] / good[1]) == pytest.approx(2.0, abs=0.25)
    assert good[1] < 0.1 * bad[1]


def test_warning_names_the_flips():
    with pytest.warns(UserWarning, match=r"negative and cut off.*fpc\.mesh\.delaunay\(mesh\)"):
        fpc.Monotone().on(jittered(SELF, 6))
