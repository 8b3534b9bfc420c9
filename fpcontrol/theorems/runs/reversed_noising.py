"""The reversed SDE of a noising process with its exact score, down to early stops."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from mpi4py import MPI

import numpy as np

from fpcontrol import density
from fpcontrol.discretization.elements import Elements
from fpcontrol.fokker_planck import FokkerPlanck
from fpcontrol.mesh import interval
from fpcontrol.stepping.schemes import SDIRK2
from fpcontrol.theorems.closed_forms.noising import Noising
from fpcontrol.theorems.framework.resolution import Grid
from fpcontrol.typing import Array

# Where the largest drift is looked for: farther out there is no mass that would feel it.
SUPPORT = 1e-10


@dataclass(frozen=True)
class Reached:
    """The reversed density at a noising time, at this rank's quadrature points, and its way there.

    Attributes:
        s: Noising time.
        elements: The discretization.
        values: Density, ``(N,)``.
        exact: Density of the noising process, ``(N,)``.
        energy: Integral of the squared drift over the way.
        largest: Largest drift where the density is above ``SUPPORT``.
    """

    s: float
    elements: Elements
    values: Array
    exact: Array
    energy: float
    largest: float

    def integral(self, values: Array) -> float:
        """Over the domain. Collective."""
        return self.elements.sum(float(self.elements.quadrature_weights @ values))

    @property
    def x(self) -> Array:
        """Points, ``(N,)``."""
        return self.elements.points[:, 0]

    @property
    def defect(self) -> float:
        """L2 distance to the noising process, relative. Collective."""
        square = self.integral((self.values - self.exact) ** 2) / self.integral(self.exact**2)
        return math.sqrt(square)

    def distance(self, data: Callable[[Array], Array]) -> float:
        """L2 distance to the data. Collective."""
        return math.sqrt(self.integral((self.values - data(self.x)) ** 2))

    def divergence(self, p: Array) -> float:
        """KL divergence of values p from the reached density. Collective."""
        rho = np.where(p > 0.0, np.maximum(self.values, 1e-300), 1.0)
        return self.integral(p * np.log(np.where(p > 0.0, p, 1.0) / rho) - p + self.values)


def reverse(
    comm: MPI.Comm,
    noising: Noising,
    sigma: float,
    t1: float,
    stops: Sequence[float],
    grid: Grid,
    *,
    start: Callable[[Array], Array] | None = None,
    lower: float = 0.0,
    upper: float = 1.0,
) -> list[Reached]:
    """The reversed SDE with the exact score, through the Fokker-Planck equation. Collective.

    Args:
        comm: Communicator.
        noising: Closed forms of the noising process.
        sigma: Noise of both processes.
        t1: Noising time at which the reversal starts.
        stops: Noising times, descending, down to the early stop.
        grid: Cells; steps whenever the noising time is halved.
        start: Density to start from, ``(N,)`` to ``(N,)``, normalized; the noising process's own
            unless given.
        lower: Left wall.
        upper: Right wall.
    """
    D = 0.5 * sigma**2
    mesh = interval(comm, grid.cells, lower, upper)
    begin = start or (lambda x: np.exp(noising.log_density(t1, x)))
    rho_h = density.interpolate(mesh, lambda x: begin(x[0]), grid.degree)

    def drift(t: float, x: Array) -> Array:
        y = x[:, 0]
        return (2.0 * D * noising.score(t1 - t, y) - noising.pull(y))[:, None]

    equation = FokkerPlanck(mesh, drift, sigma, degree=grid.degree)
    g, energy, reached = equation.elements, 0.0, []
    for early, late in pairwise([t1, *stops]):
        n = max(1, math.ceil(math.log2(early / late) - 1e-9))
        for a, b in pairwise(np.geomspace(early, late, n + 1)):
            run = equation.solve(rho_h, t1 - b, grid.steps, t0=t1 - a, scheme=SDIRK2())
            rho_h = run[-1]
            for i, t in enumerate(0.5 * (run.times[1:] + run.times[:-1])):
                rho = g.evaluate(0.5 * (run.levels[i] + run.levels[i + 1])).ravel()
                square = rho * drift(t, g.points)[:, 0] ** 2
                energy += (a - b) / grid.steps * g.sum(float(g.quadrature_weights @ square))
        exact = np.exp(noising.log_density(late, g.points[:, 0]))
        size = np.abs(drift(t1 - late, g.points)[exact > SUPPORT, 0]).max(initial=0.0)
        largest = comm.allreduce(float(size), op=MPI.MAX)
        values = g.evaluate(rho_h.x.array).ravel()
        reached.append(Reached(late, g, values, exact, energy, largest))
    return reached
