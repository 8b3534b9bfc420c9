"""Exact draws from a finite-element density, and its masses in cells."""

import math
from typing import Any

import numpy as np
from dolfinx import fem

from fpcontrol.discretization.replica import Replica
from fpcontrol.parallel.communicators import comm_of
from fpcontrol.parallel.errors import collective_errors
from fpcontrol.particles.domain import Domain
from fpcontrol.particles.random import START, check_seed, share, uniforms
from fpcontrol.typing import Array

# Of the largest: values down to this are round-off, as the positive methods leave it.
ZERO = 1e-12


def draw(density: fem.Function, n: int, *, seed: int = 0, stratified: bool = False) -> Array:
    r"""Points with the law of a density, exactly. Collective.

    A cell is drawn by its mass. In it, a linear density :math:`\sum_k u_k\lambda_k` is a mixture of
    Dirichlet distributions of the barycentric coordinates :math:`\lambda`, one for each vertex,
    with probabilities :math:`u_k/\sum_j u_j`; densities of higher degree are drawn by rejection
    below their largest Bernstein coefficient. The points are the same on any number of ranks.

    Args:
        density: Not negative; continuous or discontinuous Lagrange elements of degree 0 to 3. It
            need not be of mass 1.
        n: Number of points, of all ranks.
        seed: From 0 to 2**64 - 1.
        stratified: Whether the i-th point takes its cell from the i-th of n equal shares of the
            mass: cells get their numbers of points to within 1 of what their mass says, in the
            order of their coordinates, and means vary less.

    Returns:
        This rank's points, ``(n of this rank, d)``.

    Raises:
        ValueError: On all ranks, for a density that is negative somewhere, or a bad argument.
    """
    pieces = Pieces(density)
    with collective_errors(pieces.comm):
        seed = check_seed(seed)
        if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 0:
            raise ValueError(f"n = {n!r} must be a whole number of points, not negative.")
        pieces.check()
    first, last = share(int(n), pieces.comm)
    masses = pieces.masses
    total = np.cumsum(masses)
    level = uniforms(first, last, 1, seed, START, 0)[:, 0]
    if stratified:
        level = (np.arange(first, last) + level) / n
    with_mass = np.flatnonzero(masses > 0.0)
    place = np.searchsorted(total[with_mass], level * total[-1], side="right")
    cells = with_mass[np.minimum(place, len(with_mass) - 1)]
    return pieces.points(first, cells, seed)


class Pieces:
    """A density cell by cell, on every rank whole. Collective; nothing that it offers is.

    Args:
        density: A scalar Lagrange function.

    Attributes:
        comm: The mesh's communicator.
        domain: The mesh.
        values: Bernstein coefficients in each cell, ``(cells, n)``; of degree 1 the values at
            vertices.
        masses: Integrals over the cells, ``(cells,)``.

    Raises:
        ValueError: On all ranks, for another function.
    """

    def __init__(self, density: fem.Function) -> None:
        if not isinstance(density, fem.Function):
            raise ValueError(f"density = {density!r} is not a dolfinx Function; see fpc.density.")
        space = density.function_space
        element = space.element.basix_element
        if tuple(space.element.value_shape) or space.ufl_element().family_name != "P":
            raise ValueError(f"density is of {space.ufl_element()}; scalar Lagrange is needed.")
        self.comm, self.degree = comm_of(space.mesh), element.degree
        self.domain = Domain.of(space.mesh)
        replica = Replica(space, self.domain.cells)
        (u,) = replica.gather(density.x.array)
        local = u[replica.dofs[self.domain.number]]
        self.masses, self._shares, self.values = self._pieces(element, local)

    def _pieces(self, element: Any, local: Array) -> tuple[Array, Array, Array]:
        """Masses, multi-indices of Bernstein polynomials over the degree, and coefficients."""
        domain, d, p = self.domain, self.domain.dimension, self.degree
        indices = np.array(_multi_indices(p, d + 1))
        nodes = indices / max(p, 1)
        if p == 0:
            nodes = np.full((1, d + 1), 1.0 / (d + 1))
        factors = [math.factorial(p) / np.prod([math.factorial(k) for k in m]) for m in indices]
        bernstein = np.array(
            [[f * np.prod(x**m) for m, f in zip(indices, factors, strict=True)] for x in nodes]
        )
        # The sorted vertices of a cell in its own reference coordinates.
        own = domain.cells.shares(
            np.repeat(domain.number, d + 1), domain.corners.reshape(-1, d)
        ).reshape(-1, d + 1, d + 1)
        order = np.rint(own).astype(int).argmax(axis=2)  # own vertex of each sorted one
        values = np.empty((len(local), len(nodes)))
        for pattern in np.unique(order, axis=0):
            rows = np.flatnonzero((order == pattern).all(axis=1))
            there = np.zeros((len(nodes), d + 1))
            there[:, pattern] = nodes
            table = element.tabulate(0, there[:, 1:])[0, :, :, 0]
            values[rows] = local[rows] @ table.T
        coefficients = values @ np.linalg.inv(bernstein).T
        return coefficients.mean(axis=1) * domain.volumes, indices, coefficients

    def check(self) -> None:
        """Refuse what is negative.

        Raises:
            ValueError: If a mass or, for degree 1, a value is negative, or not finite.
        """
        size = np.abs(self.values).max(initial=0.0)
        low = self.values.min() if self.degree < 2 else self._lowest()
        if not np.isfinite(size):
            raise ValueError("density has values that are not finite.")
        if low < -ZERO * size:
            c = int(self.values.min(axis=1).argmin())
            raise ValueError(
                f"density is negative, {low:.3g} near {self.domain.middles[c]}: no point can be "
                "drawn there. Clip it, or take a discretization that stays positive, fpc.Limited()."
            )
        if not size > 0.0:
            raise ValueError("density is zero everywhere.")
        np.maximum(self.masses, 0.0, out=self.masses)
        if self.degree < 2:
            np.maximum(self.values, 0.0, out=self.values)

    def at(self, cells: Array, shares: Array) -> Array:
        """Values at barycentric coordinates ``(N, d + 1)`` of cells, ``(N,)``."""
        p = self.degree
        total = np.zeros(len(cells))
        for m, column in zip(self._shares, self.values.T, strict=True):
            factor = math.factorial(p) / np.prod([math.factorial(k) for k in m])
            total += factor * np.prod(shares**m, axis=1) * column[cells]
        return total

    def points(self, first: int, cells: Array, seed: int) -> Array:
        """A point in each of some cells, ``(N, d)``, for particles from ``first`` on."""
        n, d = len(cells), self.domain.dimension
        if self.degree < 2:
            u = uniforms(first, first + n, d + 3, seed, START, 1)
            shares = -np.log1p(-u[:, : d + 1])
            if self.degree == 1:
                weights = np.cumsum(self.values[cells], axis=1)
                vertex = (u[:, -1:] * weights[:, -1:] >= weights).sum(axis=1)
                shares[np.arange(n), np.minimum(vertex, d)] -= np.log1p(-u[:, -2])
            shares /= shares.sum(axis=1, keepdims=True)
        else:
            shares = self._rejected(first, cells, seed)
        return np.einsum("nv,nvk->nk", shares, self.domain.corners[cells])

    def _rejected(self, first: int, cells: Array, seed: int) -> Array:
        n, d, bound = len(cells), self.domain.dimension, self.values.max(axis=1)
        found, left, attempt = np.empty((n, d + 1)), np.arange(n), 1
        while len(left):
            u = uniforms(first, first + n, d + 2, seed, START, attempt)[left]
            shares = -np.log1p(-u[:, :-1])
            shares /= shares.sum(axis=1, keepdims=True)
            taken = u[:, -1] * bound[cells[left]] < self.at(cells[left], shares)
            found[left[taken]] = shares[taken]
            left, attempt = left[~taken], attempt + 1
        return found

    def _lowest(self) -> float:
        """Smallest value at a lattice of points, where a coefficient is negative at all."""
        some = np.flatnonzero(self.values.min(axis=1) < 0.0)
        if not len(some):
            return 0.0
        d, n = self.domain.dimension, 4 * self.degree
        lattice = np.array(_multi_indices(n, d + 1)) / n
        cells = np.repeat(some, len(lattice))
        return float(self.at(cells, np.tile(lattice, (len(some), 1))).min())


def _multi_indices(total: int, count: int) -> list[tuple[int, ...]]:
    """All of ``count`` numbers with a sum; of sum 1 the unit vectors in their order."""
    if count == 1:
        return [(total,)]
    return [
        (k, *rest) for k in range(total, -1, -1) for rest in _multi_indices(total - k, count - 1)
    ]
