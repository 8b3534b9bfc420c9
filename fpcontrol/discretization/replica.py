"""Finite-element functions at points that move across the ranks, without a search per step."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from dolfinx import fem

from fpcontrol.discretization.cells import Cells, LeftDomain
from fpcontrol.discretization.elements import Elements
from fpcontrol.parallel.communicators import comm_of
from fpcontrol.parallel.errors import collective_errors
from fpcontrol.typing import Array

__all__ = ["Frozen", "LeftDomain", "MeshReference", "OnMesh", "Replica"]


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


class Replica:
    """Finite-element functions of one space at points in any cell, on every rank.

    Every rank keeps the cells' degrees of freedom beside ``Cells``; coefficients are gathered where
    they are wanted. Exact for the functions; gradients are those of the cell that a point is said
    to be in, and jump from cell to cell.

    Args:
        space: Scalar Lagrange space.
        cells: The replicated mesh, if there is one already; made unless given.

    Attributes:
        cells: The replicated mesh.

    Note:
        Collective; ``evaluate`` is not.
    """

    def __init__(self, space: fem.FunctionSpace, cells: Cells | None = None) -> None:
        self.cells = Cells(space.mesh) if cells is None else cells
        self._comm, self._element = comm_of(space.mesh), space.element.basix_element
        index_map = space.dofmap.index_map
        self._n_owned = index_map.size_local
        own = space.dofmap.list[: space.mesh.topology.index_map(space.mesh.topology.dim).size_local]
        numbers = index_map.local_to_global(own.ravel().astype(np.int32)).reshape(own.shape)
        self._dofs = np.concatenate(self._comm.allgather(numbers))

    @property
    def dofs(self) -> Array:
        """Global numbers of each cell's degrees of freedom, ``(cells, n_basis)``."""
        return self._dofs

    def gather(self, *local: Array) -> Array:
        """All degrees of freedom of ``m`` local arrays, ``(m, size)``.

        Note:
            Collective.
        """
        owned = np.array([u[: self._n_owned] for u in local])
        return np.concatenate(self._comm.allgather(owned), axis=1)

    def evaluate(self, u: Array, cells: Array, hat: Array) -> tuple[Array, Array]:
        """Values and gradients of ``m`` functions at points.

        Args:
            u: What ``gather`` returned, ``(m, size)``.
            cells: Cells of the points, ``(N,)``, as ``cells.walk`` returns them.
            hat: Reference coordinates there, ``(N, d)``.

        Returns:
            Values ``(m, N)`` and gradients ``(m, N, d)``.
        """
        table = self._element.tabulate(1, hat)[:, :, :, 0]
        dofs, inverse = self._dofs[cells], self.cells.inverse[cells]
        values, slopes = np.empty((len(u), len(hat))), np.empty((len(u), *hat.shape))
        for row, value, slope in zip(u, values, slopes, strict=True):
            jet = np.einsum("kni,ni->kn", table, row[dofs])
            value[:] = jet[0]
            np.einsum("an,nak->nk", jet[1:], inverse, out=slope)
        return values, slopes


class MeshReference:
    """A reference that lives on a mesh, at points that move across the ranks. Collective.

    Every rank keeps a ``Replica`` and one vector of coefficients. ``at`` walks from the cells it is
    given, each point's last one; without them, and in a call ``reference(t, x)``, from the cell
    with the nearest middle, which takes a search. Exact for the finite-element function.

    Args:
        reference: With ``elements`` and ``coefficients(t)``, as ``MoserFlow``.
    """

    def __init__(self, reference: OnMesh) -> None:
        self.reference, self._comm = reference, reference.elements.comm
        self._replica = Replica(reference.elements.space)
        self.cells = self._replica.cells

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
        u = self._replica.gather(self.reference.coefficients(t))
        with collective_errors(self._comm):
            cells, hat = self.cells.walk(cells, x)
        values, slopes = self._replica.evaluate(u, cells, hat)
        return values[0], slopes[0], cells
