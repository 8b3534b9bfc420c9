"""References at points that move: by formulas, or on a mesh without a search per step."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from scipy.spatial import cKDTree

from fpcontrol.discretization.elements import Elements
from fpcontrol.parallel.errors import collective_errors
from fpcontrol.typing import Array


class LeftDomain(ValueError):
    """Points have left the domain: a drift is too fast for the steps. Raised on all ranks."""


class AnalyticReference(Protocol):
    """A reference given by formulas, on the domain of the drift's mesh."""

    t1: float

    def at(self, t: float, x: Array, cells: Any = None) -> tuple[Array, Array, Any]:
        """Values ``(N,)`` and gradients ``(N, d)`` at points ``(N, d)``, and ``cells`` as given."""


class OnMesh(Protocol):
    """What lives on a mesh: its discretization, and local coefficients at a time."""

    @property
    def elements(self) -> Elements:
        """The discretization."""

    def coefficients(self, t: float) -> Array:
        """Degrees of freedom at a time, local."""


@dataclass(frozen=True)
class Frozen:
    """A finite-element function that stays as it is: local degrees of freedom."""

    elements: Elements
    values: Array

    def coefficients(self, t: float) -> Array:
        """The same at all times."""
        return self.values


class MeshReference:
    """A reference that lives on a mesh, at points that move across the ranks. Collective.

    Every rank keeps the whole mesh (about 250 bytes a triangle, 500 a tetrahedron) and one
    vector of coefficients. ``at`` walks from the cells it is given, each point's last one, to the
    next by barycentric coordinates; without them, and in a call ``reference(t, x)``, from the cell
    with the nearest middle, which takes a search. Exact for the finite-element function.

    Args:
        reference: With ``elements`` and ``coefficients(t)``, as ``MoserFlow``.
    """

    def __init__(self, reference: OnMesh) -> None:
        self.reference, self._g = reference, reference.elements
        g, d = self._g, self._g.dimension
        geometry = g.mesh.geometry
        nodes = geometry.dofmaps[0][: g.n_cells]
        numbers = geometry.index_map().local_to_global(nodes.ravel().astype(np.int32))
        dofs = g.index_map.local_to_global(g.dofs.T.ravel().astype(np.int32))
        parts = (
            geometry.x[nodes][:, :, :d],
            numbers.reshape(nodes.shape),
            dofs.reshape(g.n_cells, len(g.dofs)),  # a rank may have no cells
        )
        corners, numbers, self._dofs = (np.concatenate(g.comm.allgather(a)) for a in parts)
        self._origin = corners[:, 0]
        self._inverse = np.linalg.inv((corners[:, 1:] - corners[:, :1]).transpose(0, 2, 1))
        self._middles = cKDTree(corners.mean(axis=1))
        # Facet k of a cell is opposite to its node k; two cells of one facet are neighbours.
        facets = np.stack([np.delete(numbers, k, axis=1) for k in range(d + 1)], axis=1)
        rows = np.sort(facets.reshape(-1, d), axis=1)
        order = np.lexsort(rows.T)
        twins = np.flatnonzero((rows[order[1:]] == rows[order[:-1]]).all(axis=1))
        one, two = order[twins], order[twins + 1]
        neighbours = np.full(len(rows), -1)
        neighbours[one], neighbours[two] = two // (d + 1), one // (d + 1)
        self._neighbours = neighbours.reshape(-1, d + 1)

    def __call__(self, t: float, x: Array) -> Array:
        """Values at points anywhere in the domain, ``(N, d)`` to ``(N,)``."""
        return self.at(t, x)[0]

    def at(self, t: float, x: Array, cells: Array | None = None) -> tuple[Array, Array, Array]:
        """Values ``(N,)``, gradients ``(N, d)`` and cells of points.

        Args:
            t: Time.
            x: Points of this rank, ``(N, d)``.
            cells: Where each walk starts; the cell with the nearest middle unless given.

        Raises:
            LeftDomain: On all ranks, if a point is outside the domain.
        """
        g = self._g
        owned = self.reference.coefficients(t)[: g.n_owned]
        u = np.concatenate(g.comm.allgather(owned))
        with collective_errors(g.comm):
            cells = self._middles.query(x)[1] if cells is None else cells
            cells, hat = self._walk(np.asarray(cells), x)
        table = g.space.element.basix_element.tabulate(1, hat)[:, :, :, 0]
        value, *slopes = np.einsum("kni,ni->kn", table, u[self._dofs[cells]])
        return value, np.einsum("an,nak->nk", slopes, self._inverse[cells]), cells

    def _shares(self, cells: Array, x: Array) -> Array:
        hat = np.einsum("nak,nk->na", self._inverse[cells], x - self._origin[cells])
        return np.column_stack([1.0 - hat.sum(axis=1), hat])

    def _walk(self, cells: Array, x: Array) -> tuple[Array, Array]:
        """Cells that hold the points, and reference coordinates there."""
        cells = cells.copy()
        moving = np.arange(len(x))
        for _ in range(len(self._origin) + 1):
            shares = self._shares(cells[moving], x[moving])
            shares[self._neighbours[cells[moving]] < 0] = np.inf  # no way through a wall
            k = shares.argmin(axis=1)
            go = shares[np.arange(len(k)), k] < -1e-12
            moving = moving[go]
            if not len(moving):
                break
            cells[moving] = self._neighbours[cells[moving], k[go]]
        shares = self._shares(cells, x)
        # A walk that a re-entrant corner has stopped; what is out by round-off is left alone.
        stopped = np.flatnonzero(shares.min(axis=1) < -1e-9)
        cells[stopped] = self._search(x[stopped])
        shares[stopped] = self._shares(cells[stopped], x[stopped])
        worst = int(shares.min(axis=1).argmin()) if len(x) else 0
        if len(x) and not shares[worst].min() >= -1e-6:
            raise LeftDomain(f"The point {x[worst]} is outside the domain; use more time steps.")
        shares = np.maximum(shares, 0.0)  # outside by round-off: on the wall
        return cells, shares[:, 1:] / shares.sum(axis=1, keepdims=True)

    def _search(self, x: Array) -> Array:
        """The cell that holds each of a few points, or the one that is nearest to it."""
        every = np.arange(len(self._origin))
        found = [self._shares(every, point).min(axis=1).argmax() for point in x]
        return np.array(found, dtype=int)
