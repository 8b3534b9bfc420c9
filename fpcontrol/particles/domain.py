r"""A mesh for particles: on every rank whole, in an order that does not depend on the ranks.

Cells are sorted by the coordinates of their vertices, and so are the vertices of each. All that is
computed of them is then the same to the last bit however the mesh is distributed, and so are paths.
"""

import functools
import math

from mpi4py import MPI

import numpy as np
from dolfinx.mesh import Mesh
from scipy.spatial import cKDTree

from fpcontrol.discretization.boundary import Boundary
from fpcontrol.discretization.cells import Cells, affine_maps
from fpcontrol.discretization.periodic import periodic_of
from fpcontrol.parallel.communicators import comm_of
from fpcontrol.particles.grid import Grid
from fpcontrol.typing import Array

_KEPT = "_fpcontrol_domain"  # attribute of meshes: coordinates, and the domain made of them


def positions(points: Array, dimension: int) -> Array:
    """Points ``(n, d)`` as contiguous floats.

    Raises:
        ValueError: On this rank, for another shape.
    """
    x = np.ascontiguousarray(points, dtype=float)
    if x.ndim != 2 or x.shape[1] != dimension:
        raise ValueError(f"points has shape {x.shape}; (n, {dimension}) is needed.")
    return x


class Domain:
    """The cells of a mesh, sorted; facet ``k`` of a cell is opposite to its vertex ``k``.

    Args:
        mesh: Mesh of straight simplices.
        boundary: Its boundary with tags; untagged unless given.

    Attributes:
        mesh: The mesh.
        cells: The same cells in the order of the ranks.
        number: Number in ``cells`` of each cell, ``(cells,)``.
        corners: Vertices, ``(cells, d + 1, d)``.
        origin, inverse: First vertices ``(cells, d)`` and inverse Jacobians ``(cells, d, d)``.
        volumes: Lengths, areas or volumes, ``(cells,)``.
        neighbours: The cell beyond facet ``k``, or ``-1 - wall``, ``(cells, d + 1)``.
        wall_cells, wall_tags: Of each wall facet the cell behind it, and its tag, ``(walls,)``.
        wall_corners: Its vertices, ``(walls, d, d)``.
        wall_normals: Its outward unit normal, ``(walls, d)``.
        beyond: Of a facet on a periodic side, a wall that is none, the other half; -1 of walls.
        shifts: What takes points through it there, ``(walls, d)``.
        periods: Of the axes, 0 where they have none, ``(d,)``.

    Note:
        Collective; nothing that it offers is.
    """

    def __init__(self, mesh: Mesh, boundary: Boundary | None = None) -> None:
        self.mesh, self.cells = mesh, Cells(mesh, boundary)
        cells, d = self.cells, mesh.topology.dim
        _, vertices = np.unique(cells.corners.reshape(-1, d), axis=0, return_inverse=True)
        vertices = vertices.reshape(-1, d + 1)
        within = np.argsort(vertices, axis=1)
        order = np.lexsort(np.take_along_axis(vertices, within, axis=1).T[::-1])
        within, self.number = within[order], order
        self.corners = np.take_along_axis(cells.corners[order], within[:, :, None], axis=1)
        self.origin, self.inverse = affine_maps(self.corners)
        self.volumes = np.abs(1.0 / np.linalg.det(self.inverse)) / math.factorial(d)
        new = np.empty(len(order), dtype=np.int32)
        new[order] = np.arange(len(order), dtype=np.int32)
        self._new = new
        beyond = np.take_along_axis(cells.neighbours[order], within, axis=1)
        self.neighbours = np.where(beyond >= 0, new[np.maximum(beyond, 0)], beyond).astype(np.int32)
        self.wall_cells, facet = np.nonzero(self.neighbours < 0)
        old = -1 - self.neighbours[self.wall_cells, facet]
        self.neighbours[self.wall_cells, facet] = -1 - np.arange(len(old), dtype=np.int32)
        self.wall_tags = cells.wall_tags[old]
        others = np.arange(d + 1) != facet[:, None]
        self.wall_corners = self.corners[self.wall_cells][others].reshape(-1, d, d)
        slope = self.inverse[self.wall_cells]
        slope = np.concatenate([-slope.sum(axis=1, keepdims=True), slope], axis=1)
        slope = slope[np.arange(len(old)), facet]
        self.wall_normals = -slope / np.linalg.norm(slope, axis=1)[:, None]
        place = np.empty(len(old) + 1, dtype=np.int64)
        place[old], place[-1] = np.arange(len(old)), -1
        self.beyond, self.shifts = place[cells.beyond[old]], cells.shifts[old]
        periodic = periodic_of(mesh)
        self._last: tuple[float, Grid] | None = None
        self.periods = np.where(periodic.axes, periodic.lengths, 0.0) if periodic else np.zeros(d)

    @classmethod
    def of(cls, mesh: Mesh) -> "Domain":
        """That of a mesh without tags: made once, and anew if points of the mesh have moved.

        It lives as long as the mesh does. Collective, whether it is made or not.
        """
        x, known = mesh.geometry.x, getattr(mesh, _KEPT, None)
        same = known is not None and np.array_equal(known[0], x)
        if not comm_of(mesh).allreduce(same, MPI.LAND):
            known = x.copy(), cls(mesh)
            setattr(mesh, _KEPT, known)
        assert known is not None
        return known[1]

    def __len__(self) -> int:
        return len(self.origin)

    @property
    def dimension(self) -> int:
        """Of the space."""
        return self.origin.shape[1]

    @functools.cached_property
    def middles(self) -> Array:
        """Centroids of the cells, ``(cells, d)``."""
        return self.corners.mean(axis=1)

    @functools.cached_property
    def size(self) -> float:
        """Longest side of the bounding box."""
        return float(np.ptp(self.corners.reshape(-1, self.dimension), axis=0).max())

    @functools.cached_property
    def clearance(self) -> Array:
        """A length that each point of a cell is away from all walls at least, ``(cells,)``.

        Negative near walls.
        """
        centres = self.wall_corners.mean(axis=1)
        sizes = np.linalg.norm(self.wall_corners - centres[:, None], axis=2)
        radii = np.linalg.norm(self.corners - self.middles[:, None], axis=2).max(axis=1)
        return cKDTree(centres).query(self.middles)[0] - sizes.max() - radii

    @functools.cached_property
    def _grid(self) -> Grid:
        return Grid.of(self.corners, self.wall_corners, self.wall_normals)

    def grid(self, reach: float) -> Grid:
        """Squares over it, with the walls that steps up to a length may meet: the last is kept."""
        reach = max(reach, self._grid.side)
        if self._last is None or self._last[0] != reach:
            self._last = reach, self._grid.with_walls(reach)
        return self._last[1]

    def onto_walls(self, walls: Array, x: Array) -> Array:
        """The points of wall facets that are near points of their planes, ``(N, d)``."""
        corners = self.wall_corners[walls]
        edges = (corners[:, 1:] - corners[:, :1]).transpose(0, 2, 1)
        shares = np.einsum("ndk,nk->nd", np.linalg.pinv(edges), x - corners[:, 0])
        shares = np.maximum(np.column_stack([1.0 - shares.sum(axis=1), shares]), 0.0)
        return np.einsum("nv,nvk->nk", shares / shares.sum(axis=1, keepdims=True), corners)

    def find(self, x: Array) -> Array:
        """The cell that holds each point, ``(N, d)`` to ``(N,)``.

        Raises:
            LeftDomain: On this rank, if a point is outside the domain.
        """
        return self._new[self.cells.walk(None, x)[0]]
