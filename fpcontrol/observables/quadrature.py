"""Quadrature on the cells of a rank: weights of linear functionals, values of functions."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import basix
import numpy as np
from dolfinx import fem

from fpcontrol.discretization.elements import Elements
from fpcontrol.parallel.errors import collective_errors
from fpcontrol.typing import Array

# Parts of a cell along each direction where a marker holds in one part of it only.
PARTS = {1: 64, 2: 16, 3: 6}


@dataclass(frozen=True)
class CellRule:
    """Quadrature points in some cells of a rank, ``n`` of ``q`` points each.

    Attributes:
        elements: The space.
        cells: Numbers of the cells, ``(n,)``.
        hat: Reference coordinates, ``(q, d)``.
        weights: Weights of the reference cell, ``(q,)``.
    """

    elements: Elements
    cells: Array
    hat: Array
    weights: Array

    @classmethod
    def of(cls, g: Elements, degree: int) -> Self:
        """On all cells, exact for polynomials of a degree."""
        hat, weights = basix.make_quadrature(g.space.element.basix_element.cell_type, degree)
        return cls(g, np.arange(g.n_cells), hat, weights)

    @classmethod
    def fine(cls, g: Elements, cells: Array) -> Self:
        """On some cells, with many points, exact for the space's own functions.

        Gauss points in each of ``PARTS`` parts of a cube's sides, and the cube folded into the
        simplex.
        """
        d, parts = g.dimension, PARTS[g.dimension]
        node, weight = np.polynomial.legendre.leggauss((g.degree + d) // 2 + 1)
        line = ((np.arange(parts)[:, None] + 0.5 * (node + 1.0)) / parts).ravel()
        along = np.tile(0.5 * weight / parts, parts)
        u = np.array(np.meshgrid(*[line] * d, indexing="ij")).reshape(d, -1)
        w = np.prod(np.array(np.meshgrid(*[along] * d, indexing="ij")).reshape(d, -1), axis=0)
        hat, left = np.empty((u.shape[1], d)), np.ones(u.shape[1])
        for k in range(d):
            w = w * left ** (1 if k else 0)
            hat[:, k] = u[k] * left
            left = left - hat[:, k]
        return cls(g, cells, hat, w)

    @property
    def points(self) -> Array:
        """Coordinates, ``(3, q * n)``, the first point of all cells first."""
        g, d = self.elements, self.elements.dimension
        shares = np.column_stack([1.0 - self.hat.sum(axis=1), self.hat])
        corners = g.mesh.geometry.x[g.mesh.geometry.dofmaps[0][self.cells]]
        x = np.einsum("qv,cvk->kqc", shares, corners).reshape(3, -1)
        x[d:] = 0.0
        return x

    @property
    def _table(self) -> Array:
        return self.elements.space.element.basix_element.tabulate(0, self.hat)[0, :, :, 0]

    def functional(self, values: Array) -> Array:
        r""":math:`(f, \phi_i)` of all local degrees of freedom, this rank's part, ``(n_local,)``.

        Args:
            values: ``f`` at the points, ``(q * n,)``.
        """
        g = self.elements
        f = values.reshape(len(self.weights), -1) * self.weights[:, None]
        cells = (self._table.T @ f) * g.determinant[self.cells]
        rows = g.dofs[:, self.cells]
        return np.bincount(rows.ravel(), cells.ravel(), minlength=g.n_local)

    def at(self, rho: Array) -> Array:
        """Values of a local array at the points, ``(q * n,)``."""
        return (self._table @ rho[self.elements.dofs[:, self.cells]]).ravel()

    def integral(self, values: Array) -> float:
        """This rank's part of the integral of values at the points."""
        f = values.reshape(len(self.weights), -1)
        return float(self.weights @ f @ self.elements.determinant[self.cells])

    def values_of(self, f: fem.Function) -> Array:
        """Values of a scalar Function on the same mesh at the points, ``(q * n,)``."""
        space = f.function_space
        table = space.element.basix_element.tabulate(0, self.hat)[0, :, :, 0]
        return (table @ f.x.array[space.dofmap.list[self.cells]].T).ravel()


def sampled(g: Elements, f: Callable[[Array], Array], x: Array, name: str, many: bool) -> Array:
    """Values of a user's function at points, ``(k, N)``, checked on all ranks. Collective.

    Args:
        g: The space.
        f: The function.
        x: Points, ``(3, N)``.
        name: Of the function, for messages.
        many: Whether it may return several rows.
    """
    n = x.shape[1]
    with collective_errors(g.comm):
        values = np.asarray(f(x))
        good = values.dtype.kind in "fiub" and values.shape[-1:] == (n,)
        if not good or values.ndim > 1 + many:
            raise ValueError(
                f"{name}(x) returned {values.dtype} values of shape {values.shape} for x of shape "
                f"{x.shape}; real values of shape ({n},){' or (k, N)' if many else ''} are needed."
            )
        if not np.isfinite(values).all():
            raise ValueError(f"{name}(x) is not finite at {np.sum(~np.isfinite(values))} points.")
    return values.astype(float)
