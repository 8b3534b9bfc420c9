"""One search for points: the cells of this rank, or of any rank, that hold them.

Where several cells or ranks hold a point, on a facet say, the one in which it is deepest has it,
by barycentric coordinates, so that the choice is the same wherever it is asked for. On a mesh with
periodic sides points are moved into it by whole periods.
``dolfinx.geometry.determine_point_ownership`` calls a cell hit from 1e-6 away, an absolute length,
and the ranks then see different cells; dolfinx's bounding boxes and distances are used here.
"""

from collections.abc import Callable
from dataclasses import dataclass

from mpi4py import MPI

import numpy as np
from dolfinx import fem, geometry
from dolfinx.mesh import Mesh

from fpcontrol.discretization.periodic import nearest_image, periodic_of, wrapped
from fpcontrol.parallel.communicators import comm_of
from fpcontrol.typing import Array

# Depths are barycentric coordinates, relative to the cell: below this they are round-off.
INSIDE = 1e-12


class OwnCells:
    """The cells that this rank owns, to be searched often.

    Args:
        mesh: Mesh of straight simplices.

    Attributes:
        box: Smallest and largest coordinates of the cells, ``(2, d)``; infinite if there are none.

    Note:
        Not collective, nor are its methods.
    """

    def __init__(self, mesh: Mesh) -> None:
        self._mesh, self._d = mesh, mesh.topology.dim
        self._cells = np.arange(mesh.topology.index_map(self._d).size_local, dtype=np.int32)
        nodes = mesh.geometry.x[mesh.geometry.dofmaps[0][self._cells]][:, :, : self._d]
        self._origin = nodes[:, 0].copy()
        self._inverse = np.linalg.inv((nodes[:, 1:] - nodes[:, :1]).transpose(0, 2, 1))
        some = len(self._cells) > 0  # trees of nothing cannot be made
        self._tree = geometry.bb_tree(mesh, self._d, entities=self._cells) if some else None
        self.box = np.array([np.full(self._d, np.inf), np.full(self._d, -np.inf)])
        if some:
            self.box[:] = nodes.min(axis=(0, 1)), nodes.max(axis=(0, 1))

    def deepest(self, x: Array) -> tuple[Array, Array]:
        """For points ``(N, d)`` the cell that each is deepest in, and how deep.

        Returns:
            Cells ``(N,)`` and the least barycentric coordinates there ``(N,)``: negative outside,
            minus infinity where a point is in no cell's bounding box.
        """
        periodic = periodic_of(self._mesh)
        if periodic is None:
            return self._deepest(x)
        x = periodic.wrapped(x)
        best, depth = self._deepest(x)
        for rows, y in periodic.images(x):
            cells, other = self._deepest(y)
            deeper = other > depth[rows]
            best[rows[deeper]], depth[rows[deeper]] = cells[deeper], other[deeper]
        return best, depth

    def _deepest(self, x: Array) -> tuple[Array, Array]:
        best, depth = np.zeros(len(x), dtype=np.intp), np.full(len(x), -np.inf)
        if self._tree is None or not len(x):
            return best, depth
        found = geometry.compute_collisions_points(self._tree, _padded(x))
        cells, counts = found.array, np.diff(found.offsets)
        which = np.repeat(np.arange(len(x)), counts)
        y = self.reference(cells, x[which])
        lowest = np.minimum(y.min(axis=1), 1.0 - y.sum(axis=1))
        order = np.lexsort((lowest, which))  # the last of each point is its deepest
        last = order[(np.cumsum(counts) - 1)[counts > 0]]
        best[which[last]], depth[which[last]] = cells[last], lowest[last]
        return best, depth

    def closest(self, x: Array) -> tuple[Array, Array]:
        """For points ``(N, d)`` the closest cell and its distance, infinite if there is none."""
        if self._tree is None or not len(x):
            return np.zeros(len(x), dtype=np.intp), np.full(len(x), np.inf)
        middle = geometry.create_midpoint_tree(self._mesh, self._d, self._cells)
        points = _padded(wrapped(self._mesh, x))
        cells = geometry.compute_closest_entity(self._tree, middle, self._mesh, points)
        square = geometry.squared_distance(self._mesh, self._d, cells, points)
        return cells.astype(np.intp), np.sqrt(square)

    def holding(self, x: Array) -> Array:
        """For points ``(N, d)`` the cell that holds each, to 1e-9 of its size, or -1, ``(N,)``."""
        cells, depth = self.deepest(x[:, : self._d])
        return np.where(depth >= -1e-9, cells, -1)

    def reference(self, cells: Array, x: Array) -> Array:
        """Reference coordinates of points ``(N, d)`` in given cells, ``(N, d)``."""
        away = nearest_image(self._mesh, x - self._origin[cells])
        return np.einsum("nak,nk->na", self._inverse[cells], away)

    def brought(self, cells: Array, x: Array) -> Array:
        """Points ``(N, d)`` moved by whole periods to given cells; as they are on other meshes."""
        if periodic_of(self._mesh) is None:
            return x
        return self._origin[cells] + nearest_image(self._mesh, x - self._origin[cells])

    def evaluate(
        self, space: fem.FunctionSpace, u: Array, cells: Array, x: Array
    ) -> tuple[Array, Array]:
        """Values ``(N,)`` and gradients ``(N, d)`` of a function at points in given cells.

        Args:
            space: Scalar Lagrange space on the mesh.
            u: Degrees of freedom, local (owned, then ghosts).
            cells: Cells of this rank, ``(N,)``.
            x: Points, ``(N, d)``.
        """
        table = space.element.basix_element.tabulate(1, self.reference(cells, x))[:, :, :, 0]
        value, *slopes = np.einsum("kni,ni->kn", table, u[space.dofmap.list[cells]])
        return value, np.einsum("an,nak->nk", np.array(slopes), self._inverse[cells])


@dataclass(frozen=True)
class Located:
    """Where points are, seen from two sides: ``N`` that a rank asks for, ``M`` that it holds.

    Attributes:
        comm: The mesh's communicator.
        owner: Rank whose cell holds, or is closest to, each point asked for, ``(N,)``; -1 where
            all cells are beyond reach.
        distance: Of those points to the mesh, 0 inside, infinite beyond reach, ``(N,)``.
        cells: Cells of the points held, ``(M,)``.
        reference: Reference coordinates there, ``(M, d)``; of a point outside with its negative
            barycentric coordinates set to zero and the others scaled to sum to 1.
        sources: How many of the points held each rank asks for, in the order of ranks.
    """

    comm: MPI.Comm
    owner: Array
    distance: Array
    cells: Array
    reference: Array
    sources: Array

    def to_owners(self, values: Array) -> Array:
        """Values at the points asked for ``(N,)``, at those held ``(M,)``. Collective."""
        parts = [values[self.owner == rank] for rank in range(self.comm.size)]
        return np.concatenate(self.comm.alltoall(parts))

    def to_askers(self, values: Array) -> Array:
        """Values at the points held ``(M,)``, at those asked for ``(N,)``. Collective.

        Those beyond reach are not a number.
        """
        parts = self.comm.alltoall(np.split(values, np.cumsum(self.sources)[:-1]))
        result = np.full(len(self.owner), np.nan)
        for rank, part in enumerate(parts):
            result[self.owner == rank] = part
        return result


def locate(mesh: Mesh, x: Array, reach: float = 0.0) -> Located:
    """The cells, of any rank, that hold points or are closest to them.

    Points go to those ranks whose cells' bounding box is within ``reach`` of them, not to all.

    Args:
        mesh: Mesh of straight simplices.
        x: Points that this rank asks for, ``(N, d)``, any number.
        reach: How far outside the mesh a point may be.

    Note:
        Collective.
    """
    comm, own, x = comm_of(mesh), OwnCells(mesh), wrapped(mesh, x)
    boxes = np.array(comm.allgather(own.box))
    size = float((boxes[:, 1].max(axis=0) - boxes[:, 0].min(axis=0)).max())
    margin = reach + INSIDE * size
    low, high = boxes[:, 0] - margin, boxes[:, 1] + margin
    near = [((x >= a) & (x <= b)).all(axis=1) for a, b in zip(low, high, strict=True)]

    owner, cells, depth = _asked(comm, near, x, own.deepest)
    inside = depth >= -INSIDE
    other, theirs, score = _asked(
        comm, [rows & ~inside for rows in near], x, lambda y: _negative(own.closest(y))
    )
    distance = np.where(inside, 0.0, -score)
    owner, cells = np.where(inside, owner, other), np.where(inside, cells, theirs)
    owner[distance > reach], distance[distance > reach] = -1, np.inf

    rows = [owner == rank for rank in range(comm.size)]
    parts = comm.alltoall([(cells[r], x[r]) for r in rows])
    held = np.concatenate([part[0] for part in parts])
    hat = own.reference(held, np.concatenate([part[1] for part in parts]))
    shares = np.maximum(np.column_stack([1.0 - hat.sum(axis=1), hat]), 0.0)
    shares /= shares.sum(axis=1, keepdims=True)
    sources = np.array([len(part[0]) for part in parts])
    return Located(comm, owner, distance, held, shares[:, 1:], sources)


def _asked(
    comm: MPI.Comm,
    near: list[Array],
    x: Array,
    search: Callable[[Array], tuple[Array, Array]],
) -> tuple[Array, Array, Array]:
    """The rank with the highest score for each point, its cell and score. Collective.

    Args:
        comm: Communicator.
        near: For each rank the points it is asked for, booleans ``(N,)``.
        x: Points, ``(N, d)``.
        search: Cells of this rank and scores of points; the lowest rank wins a tie.
    """
    received = comm.alltoall([x[rows] for rows in near])
    cells, score = search(np.concatenate(received))
    cuts = np.cumsum([len(part) for part in received])[:-1]
    answers = comm.alltoall(list(zip(np.split(cells, cuts), np.split(score, cuts), strict=True)))
    owner, cell = np.full(len(x), -1), np.zeros(len(x), dtype=np.intp)
    best = np.full(len(x), -np.inf)
    for rank, (rows, (theirs, scores)) in enumerate(zip(near, answers, strict=True)):
        which = np.flatnonzero(rows)
        better = scores > best[which]
        won = which[better]
        owner[won], cell[won], best[won] = rank, theirs[better], scores[better]
    return owner, cell, best


def _negative(found: tuple[Array, Array]) -> tuple[Array, Array]:
    return found[0], -found[1]


def _padded(x: Array) -> Array:
    """Points with three coordinates, as dolfinx takes them, ``(N, 3)``."""
    points = np.zeros((len(x), 3))
    points[:, : x.shape[1]] = x
    return points
