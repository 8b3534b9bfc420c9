"""Points that walk on a replicated mesh: cells, walls met, tags, fractions of segments."""

from pathlib import Path

from mpi4py import MPI

import numpy as np
import pytest
from dolfinx.mesh import Mesh
from problems import SELF, WORLD, cube, raised

import fpcontrol as fpc
from fpcontrol.discretization.boundary import MARKED, UNTAGGED, Boundary
from fpcontrol.discretization.cells import Cells, LeftDomain
from fpcontrol.parallel.errors import collective_errors

MESHES = Path(__file__).parents[1] / "meshes"
RANKS = pytest.mark.parallel([1, 2, 3])


def shipped(name: str, comm: MPI.Comm) -> tuple[Mesh, Boundary]:
    path = MESHES / f"{name}.xdmf"
    mesh = fpc.mesh.read(path, comm)
    return mesh, Boundary.of(mesh, fpc.mesh.read_facet_tags(path, mesh))


def marked(dim: int, n: int, comm: MPI.Comm) -> tuple[Mesh, Boundary]:
    mesh = cube(comm, dim, n)
    return mesh, Boundary.of(mesh, lambda x: np.isclose(x[0], 1.0))


DOMAINS = {
    "interval": lambda comm: marked(1, 9, comm),
    "l-shape": lambda comm: shipped("l_shape", comm),
    "island": lambda comm: shipped("great_britain", comm),
    "box": lambda comm: marked(3, 3, comm),
}


def corners(mesh: Mesh) -> np.ndarray:
    n = mesh.topology.index_map(mesh.topology.dim).size_local
    return mesh.geometry.x[mesh.geometry.dofmaps[0][:n]][:, :, : mesh.topology.dim]


def scattered(cells: Cells, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Random cells and points in them, the same for any number of ranks but for cells' numbers."""
    rng = np.random.default_rng(5)
    d = cells.origin.shape[1]
    order = np.lexsort(np.round(cells.origin + cells.inverse.sum(axis=1), 9).T)
    picked = order[rng.integers(len(cells), size=n)]
    shares = rng.dirichlet(np.ones(d + 1), size=n)[:, 1:]
    jacobian = np.linalg.inv(cells.inverse[picked])
    return picked, cells.origin[picked] + np.einsum("nka,na->nk", jacobian, shares)


def first_wall(boundary: Boundary, x0: np.ndarray, x1: np.ndarray) -> tuple[float, int]:
    """Of one segment, by trying all walls: where it leaves the domain first, and through which."""
    best, found = 1.0, -1
    way = boundary.normals @ (x1 - x0)
    with np.errstate(divide="ignore", invalid="ignore"):
        s = np.einsum("nd,nd->n", boundary.normals, boundary.corners[:, 0] - x0) / way
    for i in np.flatnonzero((way > 0.0) & (s >= 0.0) & (s <= 1.0)):
        x = x0 + s[i] * (x1 - x0)
        edges = np.vstack([boundary.corners[i].T, np.ones(len(x))])
        shares = np.linalg.lstsq(edges, np.append(x, 1.0), rcond=None)[0]
        if shares.min() >= -1e-12 and s[i] < best:
            best, found = s[i], i
    return best, found


@RANKS
@pytest.mark.parametrize("domain", DOMAINS)
def test_traced_walls_are_those_found_by_trying_all(domain):
    alone_mesh, alone = DOMAINS[domain](SELF)
    mesh, boundary = DOMAINS[domain](WORLD)
    cells, size = Cells(mesh, boundary), np.ptp(alone_mesh.geometry.x, axis=0).max()
    assert len(cells.wall_tags) == len(alone.tags)
    start, x0 = scattered(cells, 300)
    rng = np.random.default_rng(6)
    length = size * rng.choice([0.01, 0.1, 1.0], size=(300, 1))
    x1 = x0 + length * rng.standard_normal(x0.shape)
    last, fraction, facet, tag = cells.trace(start, x0, x1)
    expected = [first_wall(alone, a, b) for a, b in zip(x0, x1, strict=True)]
    s, wall = (np.array(column) for column in zip(*expected, strict=True))
    assert fraction == pytest.approx(s, rel=1e-9, abs=1e-9)
    hit = facet >= 0
    assert np.array_equal(hit, wall >= 0)
    assert 0.1 < hit.mean() < 0.9
    assert np.array_equal(tag[hit], alone.tags[wall[hit]])
    assert (tag[~hit] == UNTAGGED).all()
    assert cells.wall_normals[facet[hit]] == pytest.approx(alone.normals[wall[hit]], abs=1e-10)
    assert np.array_equal(cells.wall_cells[facet[hit]], last[hit])
    assert len(np.unique(tag[hit])) > 1 or domain == "island"
    # The cell behind holds the point where the segment ends, which a walk finds too.
    x = x0 + fraction[:, None] * (x1 - x0)
    assert cells.shares(last, x).min() > -1e-9
    found, hat = cells.walk(start, x)
    assert cells.shares(found, x).min() > -1e-9
    jacobian = np.linalg.inv(cells.inverse[found])
    back = cells.origin[found] + np.einsum("nka,na->nk", jacobian, hat)
    assert back == pytest.approx(x, abs=1e-9 * size)


@RANKS
def test_cells_of_this_rank_have_their_numbers():
    mesh, boundary = shipped("l_shape", WORLD)
    cells, own = Cells(mesh, boundary), corners(mesh)
    mine = cells.first + np.arange(len(own))
    assert np.array_equal(cells.origin[mine], own[:, 0])
    assert WORLD.allreduce(len(own)) == len(cells)
    # Neighbours are mutual, and share all vertices but one.
    inner = [(c, n) for c, row in enumerate(cells.neighbours) for n in row if n >= 0]
    assert {(b, a) for a, b in inner} == set(inner)
    walls = np.sort(cells.neighbours[cells.neighbours < 0])[::-1]
    assert np.array_equal(walls, -1 - np.arange(len(cells.wall_tags)))


def test_segments_past_a_re_entrant_corner():
    # The square (-1, 1)**2 without x > 0 > y: from one arm to the other past the corner at 0.
    cells = Cells(*shipped("l_shape", SELF))
    arms = np.array([[-0.5, -0.5], [0.5, 0.5]])
    start = cells.walk(None, arms)[0]
    for shift, hits in (([-1e-6, 1e-6], False), ([1e-6, -1e-6], True)):
        _, fraction, facet, _ = cells.trace(start, arms + shift, arms[::-1] + shift)
        assert ((facet >= 0) == hits).all()
        assert fraction == pytest.approx(0.5 if hits else 1.0, abs=1e-5)
    # Through the corner itself: it touches the walls and stays in the closed domain.
    last, fraction, facet, _ = cells.trace(start, arms, arms[::-1])
    assert (facet == -1).all() and (fraction == 1.0).all()
    assert cells.shares(last, arms[::-1]).min() > -1e-12
    # A walk across the missing quarter is stopped and finds its cell all the same.
    ends = np.array([[-0.1, -0.99], [0.99, 0.1]])
    found, _ = cells.walk(cells.walk(None, ends)[0], ends[::-1])
    assert cells.shares(found, ends[::-1]).min() > -1e-12


@pytest.mark.parametrize("dim", [2, 3])
def test_segments_through_vertices_and_along_facets_are_not_lost(dim):
    n = 4
    mesh, boundary = marked(dim, n, SELF)
    cells = Cells(mesh, boundary)
    grid = np.arange(n + 1) / n
    nodes = np.stack(np.meshgrid(*[grid] * dim), axis=-1).reshape(-1, dim)
    inner = nodes[((nodes > 0.0) & (nodes < 1.0)).all(axis=1)]
    # From every vertex to every vertex: through vertices, along edges, in facets, along walls.
    x0, x1 = (a.reshape(-1, dim) for a in np.broadcast_arrays(nodes[:, None], nodes[None, :]))
    start = cells.walk(None, x0)[0]
    last, fraction, facet, tag = cells.trace(start, x0, x1)
    assert (facet == -1).all() and (fraction == 1.0).all() and (tag == UNTAGGED).all()
    assert cells.shares(last, x1).min() > -1e-12
    # From inner vertices out through all vertices: a wall at its distance.
    x0 = np.repeat(inner, len(nodes), axis=0)
    x1 = x0 + 9.0 * (np.tile(nodes, (len(inner), 1)) - x0)
    x0, x1 = (x[(x0 != x1).any(axis=1)] for x in (x0, x1))
    last, fraction, facet, tag = cells.trace(cells.walk(None, x0)[0], x0, x1)
    way = x1 - x0
    with np.errstate(divide="ignore"):
        far = np.where(way > 0.0, (1.0 - x0) / way, np.where(way < 0.0, -x0 / way, np.inf))
    assert (facet >= 0).all()
    assert fraction == pytest.approx(far.min(axis=1), rel=1e-11)
    # At an edge of the box either wall is right.
    right = np.isclose(far[:, 0], far.min(axis=1), rtol=1e-9) & (way[:, 0] > 0.0)
    alone = right & (np.isclose(far, far.min(axis=1, keepdims=True), rtol=1e-9).sum(axis=1) == 1)
    assert (tag[alone] == MARKED).all() and (tag[~right] == UNTAGGED).all()


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_reflected_segments_stay_in_the_box_where_mirrors_put_them(dim):
    mesh, boundary = marked(dim, 3, SELF)
    cells = Cells(mesh, boundary)
    start, x0 = scattered(cells, 200)
    step = 1.5 * np.random.default_rng(7).standard_normal(x0.shape)
    x, end, cell = x0.copy(), x0 + step, start
    for _ in range(40):
        cell, fraction, facet, _ = cells.trace(cell, x, end)
        hit = facet >= 0
        x = x + fraction[:, None] * (end - x)
        if not hit.any():
            break
        normals = cells.wall_normals[facet[hit]]
        end[hit] -= 2.0 * np.einsum("nd,nd->n", normals, end[hit] - x[hit])[:, None] * normals
    assert not hit.any()
    # Unfolded: period 2 in every coordinate, mirrored in its second half.
    y = np.mod(x0 + step, 2.0)
    assert end == pytest.approx(np.minimum(y, 2.0 - y), abs=1e-11)


@RANKS
def test_points_outside_and_wrong_starts_are_refused():
    mesh, boundary = marked(2, 4, WORLD)
    cells = Cells(mesh, boundary)
    x = np.array([[0.3, 0.4], [1.2, 0.5]])[: 1 + (WORLD.rank == WORLD.size - 1)]

    def walk(points: np.ndarray) -> None:
        with collective_errors(WORLD):
            cells.walk(None, points)

    assert "[1.2 0.5] is outside" in raised(LeftDomain, lambda: walk(x))
    assert "not finite" in raised(LeftDomain, lambda: walk(np.array([[0.1, np.nan]])))
    start = cells.walk(None, np.array([[0.05, 0.05]]))[0]
    elsewhere = np.array([[0.9, 0.9]])
    message = raised(ValueError, lambda: cells.trace(start, elsewhere, elsewhere))
    assert "1 of 1 segments do not start in their cells, the first at [0.9 0.9]" in message
    assert "not finite" in raised(
        ValueError, lambda: cells.trace(start, elsewhere, np.array([[np.inf, 0.0]]))
    )
    assert [len(a) for a in cells.trace(start[:0], x[:0], x[:0])] == [0] * 4
    assert [len(a) for a in cells.walk(None, x[:0])] == [0, 0]
    assert "another mesh" in raised(ValueError, lambda: Cells(cube(WORLD, 2, 4), boundary))
