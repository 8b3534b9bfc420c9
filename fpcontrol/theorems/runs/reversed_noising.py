"""The reversed SDE of a noising process with its exact score, down to early stops."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from mpi4py import MPI

import numpy as np

from fpcontrol import SDIRK2, FokkerPlanck, density
from fpcontrol.discretization.elements import Elements
from fpcontrol.mesh import interval
from fpcontrol.noising.line import Noising, reverse
from fpcontrol.quadrature import graded
from fpcontrol.theorems.framework import Grid
from fpcontrol.typing import Array

# Where the largest drift is looked for: farther out there is no mass that would feel it.
SUPPORT = 1e-10
# |p_s - p_0|^2 at a jump of height h: h^2 sqrt(D s) times twice the integral of (erfc/2)^2.
JUMP = (2.0 - math.sqrt(2.0)) / math.sqrt(math.pi)


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


def reversed_densities(
    comm: MPI.Comm,
    noising: Noising,
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
        noising: The process.
        t1: Noising time at which the reversal starts.
        stops: Noising times, descending, down to the early stop.
        grid: Cells; steps whenever the noising time is halved.
        start: Density to start from, ``(N,)`` to ``(N,)``, normalized; the noising process's own
            unless given.
        lower: Left wall.
        upper: Right wall.
    """
    mesh = interval(comm, grid.cells, lower, upper)
    begin = start or (lambda x: np.exp(noising.log_density(t1, x)))
    rho_h = density.interpolate(mesh, lambda x: begin(x[0]), grid.degree)
    drift = reverse(noising, t1)
    equation = FokkerPlanck(mesh, drift, math.sqrt(2.0 * noising.D), degree=grid.degree)
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


def stopped(
    noising: Noising,
    data: Callable[[Array], Array],
    s: float,
    breaks: tuple[float, ...],
    *,
    lower: float = 0.0,
    upper: float = 1.0,
    grading: int = 4,
) -> tuple[float, float]:
    """What an early stop leaves of the noise: L2 distance to the data, mass outside (0, 1).

    Args:
        noising: The process.
        data: The data, ``(N,)`` to ``(N,)``.
        s: The stop.
        breaks: Where data jump or have kinks, inside the interval.
        lower: Left end of the interval.
        upper: Right end.
        grading: Of the quadrature towards breaks; another one shows its error.
    """
    length = upper - lower
    x, w = graded(tuple((b - lower) / length for b in breaks), grading)
    x, w = lower + length * x, length * w
    p = np.exp(noising.log_density(s, x))
    outside = (x < 0.0) | (x > 1.0)
    return math.sqrt(w @ (p - data(x)) ** 2), float(w[outside] @ p[outside])
