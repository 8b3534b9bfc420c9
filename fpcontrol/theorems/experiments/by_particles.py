r"""The same drifts by particles: a second method that shares nothing with the elements.

Particles of :math:`dX = v\,dt + \sigma\,dW` between reflecting walls are counted in 36 squares of
the unit square, and the counts are tested against the masses that the density has there, by
chi-square. Random numbers are seeded, so that a verdict is the same for ever, on any number of
ranks. Steps twice as long must pass, too: their bias is then below the statistical error. That the
test can fail is part of each: noise a twentieth too strong, or the drift of the statement's other
side, does.
"""

from collections.abc import Callable
from dataclasses import dataclass

from mpi4py import MPI

import numpy as np
from dolfinx import fem

from fpcontrol import SDIRK2, FokkerPlanck, density, particles
from fpcontrol.drift.base import Drift
from fpcontrol.mesh import rectangle
from fpcontrol.noise import Sigma
from fpcontrol.theorems.closed_forms.profiles import GOALS, StraightLine
from fpcontrol.theorems.closed_forms.ripples import Ripple, ripple_density
from fpcontrol.theorems.framework import Figure, Grid, Study
from fpcontrol.theorems.runs.generators import Average, Generators, Switched
from fpcontrol.typing import Array, VectorField

SIDE = 6  # squares along a side
# A right test fails one time in a thousand, a seeded one always or never; a wrong one must fail
# beyond doubt.
RIGHT, WRONG = 1e-3, 1e-6
TOO_STRONG = 1.05  # noise, times the right one


def square(x: Array) -> Array:
    """Which of the squares holds each point, ``(N, 2)`` to ``(N,)``."""
    i = np.minimum((SIDE * x).astype(np.int64), SIDE - 1)
    return SIDE * i[:, 0] + i[:, 1]


def p_value(points: Array, rho: Callable[[int], fem.Function], cells: int) -> Figure:
    """Of particles against a density on so many cells a side; its error from half of them."""
    found = [particles.compare(points, rho(n), square).p_value for n in (cells // 2, cells)]
    return Figure.refined(*found)


@dataclass(frozen=True)
class Walk:
    """Particles from the uniform density on the unit square.

    Attributes:
        comm: Communicator.
        t1: Last time.
        number: Of particles.
        seed: Of all that is random.
    """

    comm: MPI.Comm
    t1: float
    number: int
    seed: int

    def __call__(self, drift: VectorField, sigma: float, steps: int) -> Array:
        """This rank's particles at the last time. Collective."""
        mesh = rectangle(self.comm, (2 * SIDE, 2 * SIDE))
        points = particles.draw(density.uniform(mesh, degree=1), self.number, seed=self.seed)
        swarm = particles.simulate(
            mesh, drift, points, sigma, self.t1, steps, seed=self.seed, scheme=particles.Heun()
        )
        return swarm.points


class Solutions:
    """Densities at the last time from the uniform one by elements, each mesh once. Collective.

    Args:
        comm: Communicator.
        drift: Of the equation.
        sigma: Its noise.
        t1: Last time.
        grid: Steps and degree.
    """

    def __init__(
        self, comm: MPI.Comm, drift: VectorField, sigma: Sigma, t1: float, grid: Grid
    ) -> None:
        self._comm, self._drift, self._sigma, self._t1, self._grid = comm, drift, sigma, t1, grid
        self._known: dict[int, fem.Function] = {}

    def __call__(self, cells: int) -> fem.Function:
        """On so many cells a side, with steps in proportion."""
        if cells not in self._known:
            mesh, grid = rectangle(self._comm, (cells, cells)), self._grid
            equation = FokkerPlanck(mesh, self._drift, self._sigma, degree=grid.degree)
            steps = grid.steps * cells // grid.cells
            start = density.uniform(mesh, grid.degree)
            run = equation.solve(start, self._t1, steps, scheme=SDIRK2(), save="last")
            self._known[cells] = run[-1]
        return self._known[cells]


def check(
    study: Study,
    walk: Walk,
    drift: VectorField,
    sigma: float,
    steps: int,
    rho: Callable[[int], fem.Function],
    cells: int,
) -> Array:
    """Rows that particles pass, and that they fail with noise too strong; returns particles."""
    points = walk(drift, sigma, steps)
    for n, x in ((steps, points), (steps // 2, walk(drift, sigma, steps // 2))):
        name = f"p of {walk.number} particles in {SIDE**2} regions, sigma = {sigma:g}, {n} steps"
        study.above(name, p_value(x, rho, cells), RIGHT)
    if sigma:
        wrong = walk(drift, TOO_STRONG * sigma, steps // 2)
        name = f"the same with sigma = {TOO_STRONG * sigma:g}, wrong on purpose: p"
        study.below(name, p_value(wrong, rho, cells), WRONG)
    return points


# -- what is run -----------------------------------------------------------------------------------


def ripple_by_particles(
    comm: MPI.Comm,
    *,
    a: float = 2.0,
    t1: float = 1.0,
    sigma: float = 0.3,
    m: int = 1,
    number: int = 35_000,
    steps: int = 120,
    seed: int = 1,
    grid: Grid | None = None,
) -> Study:
    r"""The oscillating drift on the square: particles beside elements.

    Args:
        m: Periods of the drift on the unit interval.
        number: Of particles.
        steps: Of the particles; even.
        seed: Of all that is random.
        grid: Cells a side, time steps and degree of the coarser run; twelve cells, or a multiple.
    """
    study = Study(
        f"oscillating drift on the square by particles, m={m}, sigma={sigma:g}, a={a:g}, T={t1:g}",
        "Particles, which share nothing with the elements, are where the elements' density is.",
    )
    drift, grid = Ripple(a, 2.0 * np.pi * m), grid or Grid(2 * SIDE, 10, 3)
    rho = Solutions(comm, drift, sigma, t1, grid)
    points = check(study, Walk(comm, t1, number, seed), drift, sigma, steps, rho, 2 * grid.cells)
    flat = _interpolated(comm, lambda x: np.ones(len(x)))
    name = "p of the same particles against the density of the limit, no drift"
    study.below(name, p_value(points, flat, 2 * grid.cells), WRONG)
    return study


@dataclass(frozen=True)
class ComovingSquare(Drift):
    r"""On the square, in the labels :math:`y_i = F_t(x_i)` of a product of lines, coupled ripples.

    :math:`\dot y_1 = \frac ak\sin ky_1\cos ky_2` and alike, which is :math:`\dot s = \frac ak\sin
    ks` for :math:`s = y_1\pm y_2`: from the uniform density, without noise,
    :math:`\rho_t(x)\,g_t(y_1+y_2)\,g_t(y_1-y_2)` comes of it, no product of functions of one
    coordinate.

    Attributes:
        line: Of densities, in each coordinate.
        a: Lipschitz constant in labels.
        k: Wavenumber, a multiple of 2 pi.
        D: Diffusivity.
    """

    line: StraightLine
    a: float
    k: float
    D: float

    def __call__(self, t: float, x: Array) -> Array:
        """Drift at points ``(N, 2)``."""
        p = self.line.at(t)
        value, y = p.value(x), self.k * p.cdf(x)
        other = np.cos(y[:, ::-1])
        ripple = self.a / self.k * np.sin(y) * other / value
        return self.line.speed(t, x) + self.D * p.slope(x) / value + ripple

    def density(self, x: Array) -> Array:
        """Without noise, at the last time, ``(N,)``."""
        p = self.line.goal
        y = self.k * p.cdf(x)
        at, apart = self.a * self.line.t1, np.column_stack([y.sum(axis=1), y[:, 0] - y[:, 1]])
        return (p.value(x) * ripple_density(at, apart)).prod(axis=1)


def comoving_by_particles(
    comm: MPI.Comm,
    *,
    goal: str = "smooth",
    a: float = 2.0,
    t1: float = 1.0,
    sigma: float = 0.5,
    m: int = 1,
    number: int = 50_000,
    steps: int = 60,
    seed: int = 1,
    grid: Grid | None = None,
) -> Study:
    r"""Co-moving ripples on the square: particles beside elements, and without noise.

    Without noise particles are compared with the closed form, no mesh between.

    Args:
        goal: Where the line in each coordinate leads: smooth.
        m: Periods of the ripple on the unit interval of labels.
        number: Of particles.
        steps: Of the particles; even.
        seed: Of all that is random.
        grid: Cells a side, time steps and degree of the coarser run; twelve cells, or a multiple.
    """
    study = Study(
        f"co-moving ripple on the square by particles, {goal} reference, m = {m}, a = {a:g}",
        "With noise particles are where the elements' density is; without, where the closed form "
        "in Moser's labels says, far from the reference.",
    )
    line, k, walk = StraightLine.to(GOALS[goal], t1), 2.0 * np.pi * m, Walk(comm, t1, number, seed)
    grid = grid or Grid(2 * SIDE, 20, 3)
    noisy, calm = (ComovingSquare(line, a, k, D) for D in (0.5 * sigma**2, 0.0))
    rho = Solutions(comm, noisy, sigma, t1, grid)
    check(study, walk, noisy, sigma, steps, rho, 2 * grid.cells)
    exact, cells = _interpolated(comm, calm.density), 12 * SIDE * m
    points = check(study, walk, calm, 0.0, steps // 2, exact, cells)
    reference = _interpolated(comm, lambda x: line.goal.value(x).prod(axis=1))
    name = "p of the same particles against the reference without a ripple"
    study.below(name, p_value(points, reference, cells), WRONG)
    return study


def switching_by_particles(
    comm: MPI.Comm,
    *,
    t1: float = 1.0,
    sigma: float = 0.5,
    cycles: int = 2,
    number: int = 35_000,
    steps: int = 20,
    seed: int = 1,
    grid: Grid | None = None,
) -> Study:
    r"""Switching on the square: particles beside elements, and apart from the average.

    Four groups of two neurons, coupled, from the uniform density.

    Args:
        cycles: Number of cycles n.
        number: Of particles.
        steps: Of the particles in a slot; even.
        seed: Of all that is random.
        grid: Cells a side, time steps a slot and degree of the coarser run; twelve cells, or a
            multiple.
    """
    study = Study(
        f"switching on the square by particles, n = {cycles}, sigma = {sigma:g}, T = {t1:g}",
        "Particles of few neurons in turns are where the elements' density is, and not yet where "
        "all neurons at once would take them.",
    )
    drawn = Generators.drawn(2, speed=1.2).turned(0.5)
    grid, switched = grid or Grid(2 * SIDE, 4, 3), Switched(drawn, cycles, t1)
    grid = Grid(grid.cells, grid.steps * switched.slots, grid.degree)
    rho = Solutions(comm, switched, sigma, t1, grid)
    walk, fine = Walk(comm, t1, number, seed), 2 * grid.cells
    points = check(study, walk, switched, sigma, steps * switched.slots, rho, fine)
    average = Solutions(comm, Average(drawn), sigma, t1, grid)
    name = "p of the same particles against the density of all neurons at once"
    study.below(name, p_value(points, average, fine), WRONG)
    return study


def _interpolated(
    comm: MPI.Comm, f: Callable[[Array], Array], degree: int = 2
) -> Callable[[int], fem.Function]:
    """A density that is known, ``f`` of points ``(N, 2)``, on so many cells a side."""

    def on(cells: int) -> fem.Function:
        mesh = rectangle(comm, (cells, cells))
        return density.interpolate(mesh, lambda x: f(x[:2].T), degree)

    return on
