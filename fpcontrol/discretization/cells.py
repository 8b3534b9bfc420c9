r"""A whole mesh on every rank, on which points walk from cell to cell through facets.

With the barycentric coordinates :math:`\lambda_k` of a simplex, a point is beyond facet ``k`` where
:math:`\lambda_k < 0`; the segment from :math:`x_0` to :math:`x_1` leaves the cell through the
facet with the smallest :math:`s_k = \lambda_k(x_0)/(\lambda_k(x_0) - \lambda_k(x_1))` among those
that :math:`x_1` is beyond. No step of either walk communicates.
"""

import functools
from typing import Any

import numba
import numpy as np
from dolfinx.mesh import Mesh
from scipy.spatial import cKDTree

from fpcontrol.discretization.boundary import UNTAGGED, Boundary
from fpcontrol.parallel.communicators import comm_of
from fpcontrol.parallel.errors import collective_errors
from fpcontrol.typing import Array

# Barycentric coordinates down to this are round-off: the point is in the cell, or on its facet.
INSIDE = 1e-12
# What a walk leaves outside by no more than this is on the wall; it is what formulas for walls and
# steps that end on them add up to.
ON_WALL = 1e-6
# Points that start a segment must be in their cells to this; walks leave them there to ``INSIDE``.
STARTS = 1e-6
# Facets met at the same fraction of a segment, to round-off: it passes through an edge or a vertex.
TIE = 1e-12
# Facets crossed without getting on, more than meet at any vertex of a sound mesh, after which the
# next one is drawn at random: such a walk around a vertex ends with probability one.
AROUND = 64

_NOT_THERE, _LOST = -2, -3


class LeftDomain(ValueError):
    """Points have left the domain: a drift is too fast for the steps. Raised on all ranks."""


def compiled(loop: Any) -> Any:
    """Compile a loop at its first call; it is kept on disk."""
    # No fast mathematics: signs at facets decide where a walk goes.
    return numba.njit(cache=True, error_model="numpy")(loop)


class Cells:
    """The replicated cells of a mesh: neighbours, walls with tags and normals, walks.

    The cells of rank 0 come first, then those of rank 1, and so on: this rank's cell ``c`` has the
    number ``first + c``. Facet ``k`` of a cell is opposite to its vertex ``k``. Every rank keeps
    about 150 bytes a triangle, 250 a tetrahedron, and a search tree of a like size once a walk has
    to search.

    Costs, microseconds a point on one core: 0.1 to 0.4 where it stays in its cell, 0.1 to 0.2 more
    for every facet crossed (the larger ones in three dimensions and where the mesh outgrows the
    cache; ``walk`` and ``trace`` alike), 1 to 7 to find a start.

    Args:
        mesh: Mesh of straight simplices.
        boundary: Its boundary with tags (``Boundary.of(mesh, tags)``); untagged unless given.

    Attributes:
        mesh: The mesh.
        first: Number of this rank's first cell.
        corners: Coordinates of the vertices of each cell, ``(cells, d + 1, d)``.
        origin: First vertex of each cell, ``(cells, d)``.
        inverse: Inverse Jacobians, ``(cells, d, d)``, reference by physical axis.
        neighbours: The cell beyond facet ``k``, or ``-1 - wall`` where there is none,
            ``(cells, d + 1)``.
        wall_cells: The cell behind each wall facet, ``(walls,)``.
        wall_tags: Tags, ``(walls,)``.
        wall_normals: Outward unit normals, ``(walls, d)``.

    Raises:
        ValueError: On all ranks, if the boundary is of another mesh, or cells do not meet in whole
            facets.

    Note:
        Collective.
    """

    def __init__(self, mesh: Mesh, boundary: Boundary | None = None) -> None:
        boundary = boundary or Boundary.of(mesh)
        with collective_errors(comm_of(mesh)):
            if boundary.mesh is not mesh and boundary.mesh._cpp_object != mesh._cpp_object:
                raise ValueError("boundary is that of another mesh; use Boundary.of(mesh, tags).")
        self.mesh, comm, d = mesh, comm_of(mesh), mesh.topology.dim
        n_cells = mesh.topology.index_map(d).size_local
        self.first = int(comm.exscan(n_cells) or 0)
        nodes = mesh.geometry.dofmaps[0][:n_cells]
        numbers = mesh.geometry.index_map().local_to_global(nodes.ravel().astype(np.int32))
        parts = (
            mesh.geometry.x[nodes][:, :, :d],
            numbers.reshape(nodes.shape),
            boundary.cells + self.first,
            boundary.opposite,
            boundary.tags,
            boundary.normals,
        )
        self.corners, numbers, self.wall_cells, opposite, self.wall_tags, self.wall_normals = (
            np.concatenate(comm.allgather(part)) for part in parts
        )
        self.origin, self.inverse = affine_maps(self.corners)
        self.neighbours = _neighbours(numbers)
        walls = np.flatnonzero(self.neighbours.ravel() < 0)
        found = self.wall_cells * (d + 1) + opposite
        if not np.array_equal(walls, np.sort(found)):
            raise ValueError(
                f"{len(walls)} facets have one cell of the mesh only and {len(found)} are on its "
                "boundary: cells must meet in whole facets, two at each."
            )
        self.neighbours.ravel()[found] = -1 - np.arange(len(found), dtype=np.int32)

    def __len__(self) -> int:
        return len(self.origin)

    @functools.cached_property
    def _tree(self) -> cKDTree:
        return cKDTree(self.corners.mean(axis=1))

    def nearest(self, x: Array) -> Array:
        """The cell whose middle is nearest to each point, ``(N, d)`` to ``(N,)``: a start."""
        return self._tree.query(x)[1]

    def shares(self, cells: Array, x: Array) -> Array:
        """Barycentric coordinates of points in given cells, ``(N, d + 1)``."""
        hat = np.einsum("nak,nk->na", self.inverse[cells], x - self.origin[cells])
        return np.column_stack([1.0 - hat.sum(axis=1), hat])

    def walk(self, start: Array | None, x: Array) -> tuple[Array, Array]:
        """The cells that hold points, walked to from cells near by; walls are in the way of none.

        Args:
            start: A cell for each point, ``(N,)``; the nearest one unless given.
            x: Points, ``(N, d)``.

        Returns:
            Cells ``(N,)`` and reference coordinates there ``(N, d)``.

        Raises:
            LeftDomain: On this rank, if a point is outside the domain by more than 1e-6 of a cell;
                nearer ones are moved to the wall.

        Note:
            Not collective. Around re-entrant corners a walk may have to search.
        """
        x = np.ascontiguousarray(x, dtype=float)
        if not np.isfinite(x).all():
            i = np.flatnonzero(~np.isfinite(x).all(axis=1))[0]
            raise LeftDomain(f"The point {x[i]} is not finite; use more time steps.")
        cells = np.array(self.nearest(x) if start is None else start, dtype=np.int64)
        shares = np.empty((len(x), x.shape[1] + 1))
        _walk(self.origin, self.inverse, self.neighbours, x, cells, shares)
        # What is out by round-off is left alone.
        stopped = np.flatnonzero(~(shares.min(axis=1, initial=0.0) >= -1e-9))
        if stopped.size:
            cells[stopped] = self.search(x[stopped])
            shares[stopped] = self.shares(cells[stopped], x[stopped])
            worst = int(shares.min(axis=1).argmin())
            if not shares[worst].min() >= -ON_WALL:
                raise LeftDomain(
                    f"The point {x[worst]} is outside the domain; use more time steps."
                )
        np.maximum(shares, 0.0, out=shares)
        return cells, shares[:, 1:] / shares.sum(axis=1, keepdims=True)

    def search(self, x: Array) -> Array:
        """The cell that holds each of a few points ``(N, d)``, or the one nearest to doing so."""
        cells = self.nearest(x)
        shares = np.empty((len(x), x.shape[1] + 1))
        _walk(self.origin, self.inverse, self.neighbours, x, cells, shares)
        for i in np.flatnonzero(~(shares.min(axis=1, initial=0.0) >= -INSIDE)):
            every = np.arange(len(self))
            cells[i] = self.shares(every, x[i]).min(axis=1).argmax()
        return cells

    def trace(self, cells: Array, x0: Array, x1: Array) -> tuple[Array, Array, Array, Array]:
        r"""Follow segments from points in known cells until they end or meet a wall.

        The segment leaves the domain where it would cross a wall; one that runs along a wall, or
        touches a re-entrant corner, goes on. From a hit at :math:`x = x_0 + s(x_1 - x_0)` a
        reflected segment goes on in ``cell``, from :math:`x` to
        :math:`x_1 - 2\,n\cdot(x_1 - x)\,n` with ``wall_normals[facet]``.

        Args:
            cells: The cell that holds each start, ``(N,)``.
            x0: Starts, ``(N, d)``.
            x1: Ends, ``(N, d)``, anywhere.

        Returns:
            The cell that each segment ends in, or that is behind the wall it meets, ``(N,)``; the
            fraction travelled, 1 at its end, ``(N,)``; the wall facet met, or -1, ``(N,)``; its
            tag, ``UNTAGGED`` where none is met, ``(N,)``.

        Raises:
            ValueError: On this rank, if a start is not in its cell or an end is not finite.

        Note:
            Not collective.
        """
        x0, x1 = (np.ascontiguousarray(x, dtype=float) for x in (x0, x1))
        last = np.array(cells, dtype=np.int64)
        fraction, facet = np.empty(len(x0)), np.empty(len(x0), dtype=np.int64)
        if not np.isfinite(x1).all():
            raise ValueError("x1 has coordinates that are not finite.")
        _trace(self.origin, self.inverse, self.neighbours, x0, x1, last, fraction, facet)
        if (bad := np.flatnonzero(facet < -1)).size:
            i = bad[0]
            if facet[i] == _NOT_THERE:
                raise ValueError(
                    f"{bad.size} of {len(x0)} segments do not start in their cells, the first at "
                    f"{x0[i]}, cell {cells[i]}; Cells.walk finds the cells of points."
                )
            raise RuntimeError(f"The segment from {x0[i]} to {x1[i]} is lost: is the mesh sound?")
        tags = np.full(len(x0), UNTAGGED, dtype=np.int32)
        hit = facet >= 0
        tags[hit] = self.wall_tags[facet[hit]]
        return last, fraction, facet, tags


def affine_maps(corners: Array) -> tuple[Array, Array]:
    """First vertices ``(cells, d)`` and inverse Jacobians ``(cells, d, d)`` of simplices."""
    origin = corners[:, 0].copy()
    return origin, np.linalg.inv((corners[:, 1:] - corners[:, :1]).transpose(0, 2, 1))


def _neighbours(numbers: Array) -> Array:
    """The cell beyond each facet, -1 where there is none, from vertices ``(cells, d + 1)``."""
    d = numbers.shape[1] - 1
    facets = np.stack([np.delete(numbers, k, axis=1) for k in range(d + 1)], axis=1)
    rows = np.sort(facets.reshape(-1, d), axis=1)
    order = np.lexsort(rows.T)
    twins = np.flatnonzero((rows[order[1:]] == rows[order[:-1]]).all(axis=1))
    one, two = order[twins], order[twins + 1]
    neighbours = np.full(len(rows), -1, dtype=np.int32)
    neighbours[one], neighbours[two] = two // (d + 1), one // (d + 1)
    return neighbours.reshape(-1, d + 1)


@compiled
def coordinates_in(origin: Any, inverse: Any, cell: int, x: Any, i: int, out: Any) -> None:
    """Barycentric coordinates of point ``i`` in a cell."""
    d = x.shape[1]
    if d == 2:  # by hand: a third of the time
        u, v = x[i, 0] - origin[cell, 0], x[i, 1] - origin[cell, 1]
        out[1] = inverse[cell, 0, 0] * u + inverse[cell, 0, 1] * v
        out[2] = inverse[cell, 1, 0] * u + inverse[cell, 1, 1] * v
        out[0] = 1.0 - out[1] - out[2]
        return
    rest = 1.0
    for a in range(d):
        total = 0.0
        for k in range(d):
            total += inverse[cell, a, k] * (x[i, k] - origin[cell, k])
        out[a + 1] = total
        rest -= total
    out[0] = rest


@compiled
def _walk(origin: Any, inverse: Any, neighbours: Any, x: Any, cells: Any, shares: Any) -> None:
    """Through the facet that each point is farthest beyond, until there is none to pass."""
    corners = x.shape[1] + 1
    here = np.empty(corners)
    for i in range(x.shape[0]):
        cell = cells[i]
        for _ in range(neighbours.shape[0] + 1):
            coordinates_in(origin, inverse, cell, x, i, here)
            least, beyond = -INSIDE, -1
            for k in range(corners):
                if here[k] < least and neighbours[cell, k] >= 0:
                    least, beyond = here[k], neighbours[cell, k]
            if beyond < 0:
                break
            cell = beyond
        cells[i] = cell
        for k in range(corners):
            shares[i, k] = here[k]


@compiled
def follow(
    origin: Any,
    inverse: Any,
    neighbours: Any,
    x0: Any,
    x1: Any,
    i: int,
    cell: Any,
    a: Any,
    b: Any,
    when: Any,
) -> Any:
    """Along segment ``i`` of ``x0`` to ``x1`` from a cell, through facets that its end is beyond.

    ``a``, ``b`` and ``when`` are room for ``d + 1`` numbers each.

    Returns:
        The last cell; the fraction travelled; the wall facet met, -1 for none, less for an error.
    """
    corners = x0.shape[1] + 1
    most, random = 2 * neighbours.shape[0] + 100 * AROUND, 1
    s, stuck, steps = 0.0, 0, 0
    while True:
        coordinates_in(origin, inverse, cell, x1, i, b)
        size, least = 1.0, 0.0
        for k in range(corners):
            size, least = max(size, abs(b[k])), min(least, b[k])
        ends_here = least >= -INSIDE * size
        if ends_here and steps > 0:
            return cell, 1.0, -1
        coordinates_in(origin, inverse, cell, x0, i, a)
        if steps == 0:
            start = 0.0
            for k in range(corners):
                start = min(start, a[k])
            if not start >= -STARTS:
                return cell, s, _NOT_THERE
            if ends_here:
                return cell, 1.0, -1
        first = 2.0
        for k in range(corners):
            when[k] = 2.0
            if b[k] < -INSIDE * size:
                # Where the start is beyond it too, a vertex was passed: at once, then.
                when[k] = max(s, a[k] / (a[k] - b[k])) if a[k] > 0.0 else s
                first = min(first, when[k])
        stuck = stuck + 1 if first <= s + TIE else 0
        # Of facets met at once one inside the domain: what only touches a wall goes on.
        choice, inner = -1, 0
        for k in range(corners):
            if when[k] <= first + TIE:
                if neighbours[cell, k] < 0:
                    if choice < 0:
                        choice = k
                    continue
                inner += 1
                if inner == 1:
                    choice = k
                elif stuck <= AROUND:
                    if when[k] < when[choice]:
                        choice = k
                else:
                    random = (1103515245 * random + 12345) % 2147483648
                    if (random >> 16) % inner == 0:
                        choice = k
        s = max(s, when[choice])
        if neighbours[cell, choice] < 0:
            return cell, s, -1 - neighbours[cell, choice]
        cell = neighbours[cell, choice]
        steps += 1
        if steps > most:
            return cell, s, _LOST


@compiled
def _trace(
    origin: Any,
    inverse: Any,
    neighbours: Any,
    x0: Any,
    x1: Any,
    cells: Any,
    fraction: Any,
    facet: Any,
) -> None:
    """Along every segment."""
    corners = x0.shape[1] + 1
    a, b, when = np.empty(corners), np.empty(corners), np.empty(corners)
    for i in range(x0.shape[0]):
        cells[i], fraction[i], facet[i] = follow(
            origin, inverse, neighbours, x0, x1, i, cells[i], a, b, when
        )
