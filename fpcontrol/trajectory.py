"""Densities over time, with their masses and minima."""

from collections.abc import Iterator
from dataclasses import dataclass

from mpi4py import MPI

import numpy as np
from dolfinx import fem

from fpcontrol.discretization.elements import Elements
from fpcontrol.parallel.errors import reduced
from fpcontrol.typing import Array


@dataclass(frozen=True)
class Trajectory:
    """Densities at all time levels; ``trajectory[i]`` is a dolfinx Function, ``len`` is steps + 1.

    Attributes:
        space: The finite-element space.
        times: Shape ``(steps + 1,)``.
        levels: Degrees of freedom of this rank (owned, then ghosts), ``(steps + 1, n_local)``.
        mass: Integral of the density over the domain, ``(steps + 1,)``.
        minimum: Smallest degree of freedom of the density, ``(steps + 1,)``.
        iterations: Linear iterations of the whole run.
        time_error: Estimated relative error in time, if a tolerance was asked for.
    """

    space: fem.FunctionSpace
    times: Array
    levels: Array
    mass: Array
    minimum: Array
    iterations: int
    time_error: float | None = None

    def __len__(self) -> int:
        """Number of time levels, steps + 1."""
        return len(self.times)

    def __getitem__(self, i: int) -> fem.Function:
        """Density at level ``i`` (negative from the end). Collective."""
        density = fem.Function(self.space, name="density")
        density.x.array[:] = self.levels[i]
        return density

    def __iter__(self) -> Iterator[fem.Function]:
        """Densities from first to last. Collective."""
        return (self[i] for i in range(len(self)))

    @property
    def mass_defect(self) -> float:
        """Largest relative change of the mass."""
        return float(np.abs(self.mass / self.mass[0] - 1.0).max())


def trajectory(g: Elements, times: Array, levels: Array, iterations: int) -> Trajectory:
    """A trajectory with its masses and minima. Collective."""
    owned = levels[:, : g.n_owned]
    mass = reduced(g.comm, owned @ g.integrals)
    low = owned.min(axis=1) if g.n_owned else np.full(len(times), np.inf)
    return Trajectory(g.space, times, levels, mass, reduced(g.comm, low, MPI.MIN), iterations)


def check_steps(steps: int, pieces: int = 1) -> int:
    """``steps`` as an int, or a ValueError that says what is wrong with it."""
    if not isinstance(steps, int | np.integer) or steps < 1:
        raise ValueError(f"steps = {steps!r} must be a positive integer.")
    if steps % pieces:
        raise ValueError(
            f"steps = {steps} is not a multiple of pieces = {pieces}; try "
            f"{pieces * max(1, round(steps / pieces))}. A step must not straddle a switch."
        )
    return int(steps)
