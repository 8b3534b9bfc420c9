r"""Noise in the cells of a mesh: D, and the drift that an interpretation adds.

The derivatives of :math:`a = \sigma\sigma^\top` are those of its L2 projection on polynomials of
one degree more than the density's, cell by cell: off by :math:`O(h^{p+1})`, as is the density.
Sigma is asked in the cells only, and a may be smooth where sigma is not: :math:`\sigma = \sqrt x`.
"""

import math
from collections.abc import Callable
from functools import cached_property

from mpi4py import MPI

import basix
import numpy as np

from fpcontrol.discretization.elements import Elements
from fpcontrol.noise import SHARES, Noise
from fpcontrol.parallel.errors import collective_errors, raise_collectively, reduced
from fpcontrol.typing import Array

# How far inside a cell sigma is asked beside a vertex, over the way to the middle, and the
# difference between cells that is a jump, over the largest sigma.
INSIDE, JUMP = 1e-6, 1e-2


class CellNoise:
    """Noise in the cells of this rank.

    Args:
        elements: The space of the density.
    """

    def __init__(self, elements: Elements) -> None:
        self._elements = g = elements
        cell, degree = g.space.element.basix_element.cell_type, g.degree + 1
        self._hat, w = basix.make_quadrature(cell, 2 * degree)
        self._polynomials = basix.create_element(
            basix.ElementFamily.P,
            cell,
            degree,
            basix.LagrangeVariant.legendre,
            basix.DPCVariant.unset,
            True,
        )
        values = self._polynomials.tabulate(0, self._hat)[0, :, :, 0]
        weighted = values.T * w
        self._projection = np.linalg.solve(weighted @ values, weighted)  # (polynomials, samples)

    def at_points(self, noise: Noise, t: float) -> tuple[Array, Array]:
        """D ``(N,)`` or ``(N, d, d)``, and the drift added ``(N, d)``, at the elements' points.

        Collective.
        """
        return self._at(noise, t, self._elements.reference_points, self._elements.points)

    def at_places(self, noise: Noise, t: float, hat: Array) -> tuple[Array, Array]:
        """The same at places ``(Q, d)`` of all cells: the first of all, then the second.

        Collective.
        """
        x = self._corners
        points = x[None, :, 0] + np.einsum("qa,cak->qck", hat, x[:, 1:] - x[:, :1])
        return self._at(noise, t, hat, points.reshape(-1, self._elements.dimension))

    def in_cells(self, noise: Noise, t: float, cells: Array, x: Array) -> tuple[Array, Array]:
        """The same at points ``(N, d)`` in cells of this rank ``(N,)``. Not collective."""
        g = self._elements
        origin, inverse = self._corners[:, 0][cells], g.inverse_jacobian[:, :, cells]
        table = self._slopes(np.einsum("akn,nk->na", inverse, x - origin))
        sigma = noise.values(t, x, cells)
        drift = self._drift(
            noise, t, cells, sigma[None], lambda f: np.einsum("ans,sn->an", table, f)[:, None]
        )
        return half_square(sigma), drift.reshape(g.dimension, -1).T

    def middles(self, noise: Noise, t: float) -> Array:
        """Sigma in the middles of the cells, ``(n_cells, ...)``. Not collective."""
        return noise.values(t, self._corners.mean(axis=1), np.arange(self._elements.n_cells))

    def corners(self, noise: Noise, t: float) -> Array:
        """Sigma in the corners of the cells, ``(d + 1, n_cells, ...)``. Not collective."""
        return self._at_corners(noise, t, self._corners)

    def check_continuous(self, noise: Noise, t: float) -> None:
        """Refuse sigma that jumps from cell to cell. Collective.

        Raises:
            ValueError: On all ranks, if it does at some vertex.
        """
        g, x = self._elements, self._corners
        inside = x + INSIDE * (x.mean(axis=1)[:, None] - x)
        with collective_errors(g.comm):
            sigma = self._at_corners(noise, t, inside)
        parts = sigma.reshape(sigma.shape[0] * g.n_cells, math.prod(sigma.shape[2:])).T
        bounds = [np.abs(sigma).max(initial=0.0), len(parts), -len(parts)]
        largest, most, fewest = reduced(g.comm, np.array(bounds), MPI.MAX)
        if most != -fewest:
            raise ValueError(f"{noise} returns values of different shapes on different ranks.")
        error, dofs = None, g.dofs[: g.dimension + 1].ravel()
        for part in parts:
            seen = g.vector()
            seen.array[:] = np.nan
            seen.array[dofs] = part  # of one cell, on ghosts that of their owner
            seen.scatter_forward()
            gap = np.nan_to_num(np.abs(part - seen.array[dofs]))
            if error is None and gap.max(initial=0.0) > JUMP * largest:
                i = int(gap.argmax())
                place = x.transpose(1, 0, 2).reshape(-1, g.dimension)[i]
                error = ValueError(
                    f"{noise} jumps from {seen.array[dofs[i]]:.4g} to {part[i]:.4g} at {place}. "
                    f"With interpretation = {noise.interpretation!r} the density jumps there too, "
                    "which continuous elements do not hold. A density that is continuous across "
                    "regions, with the flux -D grad rho + v rho, is interpretation='divergence'."
                )
        raise_collectively(g.comm, error)

    # -- inner parts ---------------------------------------------------------------------------

    def _at(self, noise: Noise, t: float, hat: Array, points: Array) -> tuple[Array, Array]:
        """``at_points`` at places ``hat`` of all cells, which are ``points``."""
        g, cells, n = self._elements, np.arange(self._elements.n_cells), len(hat)
        table = self._slopes(hat)
        with collective_errors(g.comm):
            sigma = noise.values(t, points, np.tile(cells, n))
            by_cell = sigma.reshape(n, g.n_cells, *sigma.shape[1:])
            drift = self._drift(
                noise, t, cells, by_cell, lambda f: np.einsum("aqs,sc->aqc", table, f)
            )
        return half_square(sigma), drift.reshape(g.dimension, -1).T

    @cached_property
    def _corners(self) -> Array:
        """Of the cells, ``(n_cells, d + 1, d)``."""
        g = self._elements
        geometry = g.mesh.geometry
        return geometry.x[geometry.dofmaps[0][: g.n_cells]][:, :, : g.dimension]

    def _at_corners(self, noise: Noise, t: float, x: Array) -> Array:
        """Sigma at points for corners, ``(n_cells, d + 1, d)`` to ``(d + 1, n_cells, ...)``."""
        cells, (n, corners, d) = np.arange(len(x)), x.shape
        points = x.transpose(1, 0, 2).reshape(-1, d)
        sigma = noise.values(t, points, np.tile(cells, corners))
        return sigma.reshape(corners, n, *sigma.shape[1:])

    def _slopes(self, hat: Array) -> Array:
        """Reference gradients at points of what is known at the samples, ``(d, N, samples)``."""
        if not len(hat):
            return np.zeros((self._elements.dimension, 0, len(self._hat)))
        return self._polynomials.tabulate(1, hat)[1:, :, :, 0] @ self._projection

    def _drift(
        self,
        noise: Noise,
        t: float,
        cells: Array,
        sigma: Array,
        slopes: Callable[[Array], Array],
    ) -> Array:
        """What is added to the drift, ``(d, Q, n)``, where sigma is known, ``(Q, n, ...)``.

        ``slopes`` turns values at the samples of cells ``(samples, n)`` into reference gradients
        ``(d, Q, n)``.
        """
        g, share = self._elements, -0.5 * SHARES[noise.interpretation]
        drift = np.zeros((g.dimension, *sigma.shape[:2]))
        if not noise.by_place or share == 0.0:
            return drift
        inverse = g.inverse_jacobian[:, :, cells]
        some, back = np.unique(cells, return_inverse=True)
        corners = self._corners[some]
        sides = corners[:, 1:] - corners[:, :1]
        x = corners[None, :, 0] + np.einsum("qa,cak->qck", self._hat, sides)
        samples = noise.values(t, x.reshape(-1, g.dimension), np.tile(some, len(self._hat)))
        samples = samples.reshape(len(self._hat), len(some), *samples.shape[1:])[:, back]

        def partial(f: Array, k: int) -> Array:
            return np.einsum("an,aqn->qn", inverse[:, k], slopes(f))

        if samples.ndim < 4:
            squares = samples**2
            for k in range(g.dimension):
                own = squares if squares.ndim == 2 else squares[:, :, k]
                drift[k] = share * partial(own, k)
            return drift
        d = range(g.dimension)
        if noise.interpretation == "ito":
            a = samples @ samples.swapaxes(2, 3)
            for i in d:
                drift[i] = share * sum(partial(a[:, :, i, j], j) for j in d)
            return drift
        for m in d:
            rise = sum(partial(samples[:, :, j, m], j) for j in d)
            for i in d:
                drift[i] -= 0.5 * sigma[:, :, i, m] * rise
        return drift


def half_square(sigma: Array) -> Array:
    """D of sigma: ``(N,)`` of numbers, else ``(N, d, d)``."""
    if sigma.ndim == 1:
        return 0.5 * sigma**2
    if sigma.ndim == 2:
        return 0.5 * (sigma**2)[:, :, None] * np.eye(sigma.shape[1])
    return 0.5 * sigma @ sigma.swapaxes(1, 2)
