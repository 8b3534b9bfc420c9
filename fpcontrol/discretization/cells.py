r"""A whole mesh on every rank, on which points walk from cell to cell through facets.

With the barycentric coordinates :math:`\lambda_k` of a simplex, a point is beyond facet ``k`` where
:math:`\lambda_k < 0`; the segment from :math:`x_0` to :math:`x_1` leaves the cell through the
facet with the smallest :math:`s_k = \lambda_k(x_0)/(\lambda_k(x_0) - \lambda_k(x_1))` among those
that :math:`x_1` is beyond. No step of either walk communicates.
"""

import functools

import numpy as np
from dolfinx.mesh import Mesh
from scipy.spatial import cKDTree

from fpcontrol.discretization.boundary import UNTAGGED, Boundary
from fpcontrol.discretization.periodic import Periodic, periodic_of
from fpcontrol.discretization.walks import INSIDE, NOT_THERE, ON_WALL, traces, walks
from fpcontrol.parallel.communicators import comm_of
from fpcontrol.parallel.errors import collective_errors
from fpcontrol.typing import Array

SEAM = -1  # tag of facets on periodic sides


class LeftDomain(ValueError):
    """Points have left the domain: a drift is too fast for the steps. Raised on all ranks."""


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
        beyond: Of a facet on a periodic side, which is a wall with the tag ``SEAM``, the one that
            it is identified with; -1 of all others, ``(walls,)``.
        shifts: What is added to points that go through it: plus or minus a period, ``(walls, d)``.

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
        self.beyond = np.full(len(self.wall_cells), -1)
        self.shifts = np.zeros((len(self.wall_cells), d))
        self.neighbours, self._periodic = _neighbours(numbers), periodic_of(mesh)
        walls = np.flatnonzero(self.neighbours.ravel() < 0)
        found = self.wall_cells * (d + 1) + opposite
        if self._periodic:  # the segments that leave through one of two sides come in at the other
            seams = np.setdiff1d(walls, found)
            self._add_seams(self._periodic, seams)
            found = np.concatenate([found, seams])
        if not np.array_equal(walls, np.sort(found)):
            raise ValueError(
                f"{len(walls)} facets have one cell of the mesh only and {len(found)} are on its "
                "boundary: cells must meet in whole facets, two at each."
            )
        self.neighbours.ravel()[found] = -1 - np.arange(len(found), dtype=np.int32)

    def _add_seams(self, periodic: Periodic, seams: Array) -> None:
        """Facets on periodic sides, walls after the others."""
        n, d = self.wall_normals.shape
        cells, k = np.divmod(seams, d + 1)
        slopes = np.concatenate([-self.inverse.sum(axis=1, keepdims=True), self.inverse], axis=1)
        normals = -slopes[cells, k]
        normals /= np.linalg.norm(normals, axis=1)[:, None]
        # Of all corners but the one opposite.
        middles = (self.corners[cells].sum(axis=1) - self.corners[cells, k]) / d
        other, shifts = periodic.paired(middles, normals)
        parts = {
            "wall_cells": cells,
            "wall_tags": np.full(len(seams), SEAM, dtype=np.int32),
            "wall_normals": normals,
            "beyond": n + other,
            "shifts": shifts,
        }
        for name, part in parts.items():
            setattr(self, name, np.concatenate([getattr(self, name), part]))

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
        away = x - self.origin[cells]
        if self._periodic:
            away = self._periodic.nearest_image(away)
        hat = np.einsum("nak,nk->na", self.inverse[cells], away)
        return np.column_stack([1.0 - hat.sum(axis=1), hat])

    def walk(self, start: Array | None, x: Array) -> tuple[Array, Array]:
        """The cells that hold points, walked to from cells near by; walls are in the way of none.

        Args:
            start: A cell for each point, ``(N,)``; the nearest one unless given.
            x: Points, ``(N, d)``; on a mesh with periodic sides anywhere along these.

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
        if self._periodic:
            x = self._periodic.wrapped(x)
            if start is not None:  # the walk is inside the box: a side may lie between
                away = np.abs(x - self.origin[start]) > 0.5 * self._periodic.lengths
                start = np.array(start)
                start[away.any(axis=1)] = self.nearest(x[away.any(axis=1)])
        cells = np.array(self.nearest(x) if start is None else start, dtype=np.int64)
        shares = np.empty((len(x), x.shape[1] + 1))
        walks(self.origin, self.inverse, self.neighbours, x, cells, shares)
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
        walks(self.origin, self.inverse, self.neighbours, x, cells, shares)
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
        traces(self.origin, self.inverse, self.neighbours, x0, x1, last, fraction, facet)
        if (bad := np.flatnonzero(facet < -1)).size:
            i = bad[0]
            if facet[i] == NOT_THERE:
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
