"""The edges of every cell, each with the cell's own part of the edge's weight."""

from itertools import combinations

import basix
import numpy as np
from dolfinx import fem

from fpcontrol.discretization.edges import Edges, cotangents
from fpcontrol.discretization.elements import Elements, Vector
from fpcontrol.discretization.periodic import nearest_image
from fpcontrol.parallel.errors import reduced
from fpcontrol.typing import Array


def edge_rule(space: fem.FunctionSpace) -> tuple[Array, Array]:
    """Quadrature by the middles of the edges of a cell: points ``(E, d)`` and equal weights.

    Exact for degree 2 in triangles, degree 1 in intervals and tetrahedra.
    """
    cell = space.element.basix_element.cell_type
    corners = basix.geometry(cell)
    pairs = list(combinations(range(len(corners)), 2))
    points = np.array([0.5 * (corners[a] + corners[b]) for a, b in pairs])
    volume = basix.make_quadrature(cell, 1)[1].sum()
    return points, np.full(len(pairs), volume / len(pairs))


class CellEdges(Edges):
    """All edges of all cells of this rank, cell by cell innermost: ``E * n_cells``. Collective.

    An edge is there once for each of its cells. Its weight, a sum over cells of cotangents that is
    cut off at zero where it is negative, is shared by the cells in equal parts (``weights``), so
    that fluxes along the edges of one cell know nothing of its neighbours.

    Args:
        elements: Linear elements whose quadrature points are the middles of the edges
            (``edge_rule``).

    Attributes:
        own: The cells' own weights, with their signs, ``(E, n_cells)``.
        shares: The shares of what is left of the sums, not negative, ``(E, n_cells)``.
        numbers: Of the mesh's edges as this rank has them, ``(E, n_cells)``.
        signs: 1 where the first end is that of the smaller global number, else -1.
        pairs: Local corners of the edges of a cell, ``(E, 2)``.
        between: Ends of the edges by their numbers, that of the smaller global number first,
            ``(2, n_edges)``; of edges without a cell of this rank, zero.
        parts: One over the number of ranks that have cells of an edge, ``(n_edges,)``; zero for
            edges without a cell of this rank.
    """

    def __init__(self, elements: Elements) -> None:
        g, d, self._comm = elements, elements.dimension, elements.comm
        pairs = list(combinations(range(d + 1), 2))
        self.pairs = np.array(pairs, dtype=np.int32)
        self.own = cotangents(g, pairs)
        ends = g.dofs[self.pairs.T]  # (2, E, cells)
        self.numbers = _numbers(g, pairs)
        global_ends = g.index_map.local_to_global(
            ends.ravel().astype(np.int32, copy=False)
        ).reshape(ends.shape)
        self.signs = np.where(global_ends[0] < global_ends[1], 1.0, -1.0)
        topology = g.mesh.topology
        self._vector = Vector(topology.index_map(1))
        n = len(self._vector.array)
        self.between = np.zeros((2, n), dtype=np.int32)
        first = np.where(self.signs > 0, ends[0], ends[1])
        self.between[0, self.numbers], self.between[1, self.numbers] = first, ends.sum(0) - first
        flat = self.numbers.ravel()
        here = np.bincount(flat, minlength=n)
        cells, total = (
            self.summed(here.astype(float)),
            self.summed(np.bincount(flat, self.own.ravel(), minlength=n)),
        )
        ranks = self.summed((here > 0).astype(float))
        self.parts = np.where(here > 0, 1.0 / np.maximum(ranks, 1.0), 0.0)
        self.shares = (np.maximum(total, 0.0) / np.maximum(cells, 1.0))[self.numbers]
        sums = np.array([self.parts @ np.maximum(sign * total, 0.0) for sign in (-1.0, 1.0)])
        sums = reduced(g.comm, sums)
        self.clipped = float(sums[0] / sums[1]) if sums[1] else 0.0
        self.ends = ends.reshape(2, -1)
        self.weights = self.shares.ravel()
        self.middles = g.points
        x = g.space.tabulate_dof_coordinates()[: g.n_local, :d]
        self.vectors = nearest_image(g.mesh, x[self.ends[1]] - x[self.ends[0]])

    def summed(self, values: Array) -> Array:
        """Sums over the ranks of values at the edges as they are numbered. Collective."""
        if self._comm.size == 1:
            return values
        vector = self._vector
        vector.array[:] = values
        vector.scatter_reverse()
        vector.scatter_forward()
        return vector.array.copy()


def _numbers(g: Elements, pairs: list[tuple[int, int]]) -> Array:
    """The mesh's numbers of the edges of the cells, ``(E, n_cells)``. Collective."""
    topology, d = g.mesh.topology, g.dimension
    if d == 1:
        return np.arange(g.n_cells, dtype=np.int32)[None]
    topology.create_entities(1)
    topology.create_connectivity(d, 1)
    edges = [tuple(edge) for edge in basix.topology(g.space.element.basix_element.cell_type)[1]]
    table = topology.connectivity(d, 1).array.reshape(-1, len(edges))[: g.n_cells]
    return np.ascontiguousarray(table[:, [edges.index(pair) for pair in pairs]].T, dtype=np.int32)
