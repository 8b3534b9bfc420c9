"""Runs on an interval at a resolution and at a finer one, whose difference is the error stated."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from mpi4py import MPI

import numpy as np

from fpcontrol import density
from fpcontrol.drift import Drift
from fpcontrol.fokker_planck import FokkerPlanck, Trajectory
from fpcontrol.galerkin import Array
from fpcontrol.mesh import interval
from fpcontrol.noise import Sigma
from fpcontrol.timestepping import Scheme


@dataclass(frozen=True)
class Grid:
    """Cells, time steps and degree of a run."""

    cells: int
    steps: int
    degree: int = 2

    def finer(self, factor: int = 2) -> Self:
        """So many times the cells and the steps."""
        return type(self)(factor * self.cells, factor * self.steps, self.degree)


def measured[T: (float, Array)](run: Callable[[Grid], T], grid: Grid) -> tuple[T, T]:
    """A figure (or an array of them) on the finer grid, and by how much the coarse one differs.

    The difference overestimates the finer run's error wherever the figure converges.
    """
    coarse, fine = run(grid), run(grid.finer())
    return fine, abs(fine - coarse)


def solve(
    comm: MPI.Comm,
    drift: Drift,
    sigma: Sigma,
    start: Callable[[Array], Array],
    t1: float,
    grid: Grid,
    *,
    lower: float = 0.0,
    upper: float = 1.0,
    scheme: Scheme | None = None,
    quadrature_degree: int | None = None,
) -> Trajectory:
    """Fokker-Planck equation on an interval. Collective.

    Args:
        comm: Communicator.
        drift: See ``FokkerPlanck``; ``Steady`` where it is, for speed.
        sigma: Noise.
        start: Density of points ``(N, 1)`` to ``(N,)``, normalized here.
        t1: Last time.
        grid: Resolution.
        lower: Left end.
        upper: Right end.
        scheme: ``CrankNicolson()`` unless given; an L-stable one for data with jumps.
        quadrature_degree: See ``Galerkin``.
    """
    mesh = interval(comm, grid.cells, lower, upper)
    rho = density.interpolate(mesh, lambda x: start(x[:1].T), grid.degree)
    equation = FokkerPlanck(
        mesh, drift, sigma, degree=grid.degree, quadrature_degree=quadrature_degree
    )
    return equation.solve(rho, t1, grid.steps, scheme=scheme)


def slopes(x: Array, y: Array) -> Array:
    """Slopes of ``log y`` against ``log x`` between neighbours."""
    return np.diff(np.log(y)) / np.diff(np.log(x))
