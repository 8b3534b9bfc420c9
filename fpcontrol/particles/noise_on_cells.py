"""Noise at particles: sigma where they are, increments, and how far a step may reach."""

from collections.abc import Callable
from typing import Any

import basix
import numpy as np

from fpcontrol.discretization.cells import Cells
from fpcontrol.discretization.replica import Replica
from fpcontrol.noise import Noise
from fpcontrol.particles.domain import Domain
from fpcontrol.typing import Array

type SigmaOnCells = Callable[[float, Array, Array], Array]

NO_CELLS = np.empty(0, dtype=np.int32)  # of a noise that is no Function
LATTICE = 12  # points along a side at which basis functions are bounded


class NoiseOnCells:
    """``sigma`` at points in any cells of the mesh, of which a Function is gathered once.

    Collective; nothing that it offers is.

    Args:
        noise: The noise, in Ito's sense.
        domain: The mesh for particles.

    Attributes:
        noise: What was given.

    Raises:
        ValueError: On all ranks, for a Function on another mesh or one that may jump between cells.
    """

    def __init__(self, noise: Noise, domain: Domain) -> None:
        self.noise, self._domain = noise, domain
        self._values, self._bound = _of_function(noise, domain.cells)

    @property
    def asks_cells(self) -> bool:
        """Whether it is a Function, for which cells have to be known."""
        return self._bound is not None

    def increments(
        self, t: float, dt: float, x: Array, cells: Array, normal: Array
    ) -> tuple[Array, Array, Array]:
        """Of normal numbers the displacements, and what ``paths.move`` wants of their variance."""
        d, none = x.shape[1], np.empty((0, 1, 1))
        if self.noise.uniform:
            sigma = self.noise(t)
            return normal * (sigma * np.sqrt(dt)), np.full(len(x), sigma * sigma * dt), none
        numbers = self._domain.number[cells] if self.asks_cells else cells
        sigma = self._values(t, x, numbers) * np.sqrt(dt)
        if sigma.ndim == 1:
            return normal * sigma[:, None], sigma**2, none
        if sigma.ndim == 2:
            return normal * sigma, none[:, 0, 0], sigma[:, :, None] ** 2 * np.eye(d)
        moved = np.einsum("nij,nj->ni", sigma, normal)
        return moved, none[:, 0, 0], sigma @ sigma.transpose(0, 2, 1)

    def strongest(self, times: Array) -> float:
        """The largest standard deviation per time**0.5, at vertices, at a thousand of the times.

        Of a Function a bound, at all points.
        """
        if self._bound is not None:
            return self._bound
        domain = self._domain
        corners, largest = domain.corners.reshape(-1, domain.dimension), 0.0
        for t in times[:: max(1, len(times) // 1000)]:
            if self.noise.uniform:
                largest = max(largest, self.noise(t))
            else:
                largest = max(largest, float(_sizes(self.noise.values(t, corners, NO_CELLS)).max()))
            if self.noise.steady:
                break
        return largest


def _of_function(noise: Noise, cells: Cells) -> tuple[SigmaOnCells, float | None]:
    """Sigma at points ``(t, x, cells)``, and of a Function a bound. Collective."""
    if (function := noise.function) is None:
        return (lambda t, x, c: noise.values(t, x, NO_CELLS)), None
    space: Any = function.function_space
    element, shape = space.ufl_element(), tuple(space.element.value_shape)
    if space.mesh._cpp_object != cells.mesh._cpp_object:
        raise ValueError(
            f"{noise} lives on another mesh than the particles; bring it there first (dolfinx: "
            "Function.interpolate_nonmatching)."
        )
    if element.family_name != "P" or element.discontinuous:
        raise ValueError(
            f"{noise} is of {element}: where sigma jumps from cell to cell Ito's equation does not "
            "say what particles do. Interpolate it into a continuous Lagrange space, or give a "
            "function sigma(x)."
        )
    replica = Replica(space, cells)
    rows = replica.gather(*function.x.array.reshape(-1, space.dofmap.bs).T)

    def values(t: float, x: Array, c: Array) -> Array:
        found = replica.evaluate(rows, c, cells.shares(c, x)[:, 1:])[0].T.reshape(len(x), *shape)
        if len(shape) < 2 and (found < 0.0).any():
            i = int(np.flatnonzero((found < 0.0).reshape(len(x), -1).any(axis=1))[0])
            raise ValueError(f"{noise} is {found[i]} at x = {x[i]}; it must not be negative.")
        return found.reshape(len(x)) if x.shape[1] == 1 else found

    scalar = space.element.basix_element
    hat = basix.create_lattice(scalar.cell_type, LATTICE, basix.LatticeType.equispaced, True)
    basis = np.abs(scalar.tabulate(0, hat)[0, :, :, 0]).sum(axis=1).max()
    return values, float(basis * _sizes(rows.T.reshape(-1, *shape)).max())


def _sizes(sigma: Array) -> Array:
    """Largest standard deviation of each, at least: of matrices Frobenius' norm."""
    return np.abs(sigma) if sigma.ndim < 3 else np.linalg.norm(sigma, axis=(1, 2))
