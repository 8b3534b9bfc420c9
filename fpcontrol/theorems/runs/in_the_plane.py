r"""Both samplers of a score in a square of the plane: how far apart, and their bound (d)."""

from dataclasses import dataclass
from functools import partial

import numpy as np
from dolfinx import fem

from fpcontrol import FokkerPlanck, density
from fpcontrol.characteristics import Markers, carry
from fpcontrol.discretization.boundary import Wall
from fpcontrol.discretization.elements import Elements
from fpcontrol.noising import Graded
from fpcontrol.parallel.errors import reduced
from fpcontrol.theorems.framework import Grid
from fpcontrol.theorems.runs.rearrangement import bracket
from fpcontrol.theorems.runs.trained_networks import TrainedNetwork
from fpcontrol.theorems.runs.wrong_samplers import COUNTED, Box
from fpcontrol.trajectory import Trajectory
from fpcontrol.typing import Array

TOLERANCE = 1e-7  # of characteristics
STEP = 1e-4  # of differences of the drift
INSIDE = (0.5 - 0.5 / np.sqrt(3.0), 0.5 + 0.5 / np.sqrt(3.0))  # Gauss points of a square's sides


@dataclass(frozen=True)
class PlaneSamplers:
    """The reverse SDE and ODE of a score, both from the noise alone.

    Attributes:
        model: The score.
        box: The square.
    """

    model: TrainedNetwork
    box: Box

    def distances(self, grid: Grid, other: "PlaneSamplers") -> Array:
        """Least and most W2 of the ODE from the SDE, of another's from it; (d). Collective."""
        run = self.sde(grid)
        masses = self.squares(run[-1], grid)
        edges = np.linspace(-self.box.half, self.box.half, grid.cells + 1)
        own, far = (bracket(s.ode(grid), masses, edges) for s in (self, other))
        return np.array([*own, *far, self.bound(run)])

    def sde(self, grid: Grid) -> Trajectory:
        """The equation of the SDE, on the clock of ``Graded``. Collective."""
        process = self.model.process
        drift = process.reverse(self.model, 1.0).graded()
        mesh = self.box.mesh(grid.cells)
        equation = FokkerPlanck(mesh, drift, drift.sigma, degree=grid.degree)
        noise = process.prior(2)
        start = density.interpolate(mesh, lambda x: noise(x[:2].T), grid.degree)
        return equation.solve(start, 1.0, grid.steps, save="all")

    def squares(self, rho: fem.Function, grid: Grid) -> Array:
        """Masses of a density in the squares of its mesh, the same on all ranks. Collective."""
        g = Elements(rho.function_space, grid.degree)
        h = 2.0 * self.box.half / grid.cells
        i, j = np.clip(((g.points + self.box.half) / h).astype(int), 0, grid.cells - 1).T
        own = g.quadrature_weights * g.evaluate(rho.x.array).ravel()
        masses = np.zeros((grid.cells, grid.cells))
        np.add.at(masses, (i, j), own)
        return np.maximum(reduced(self.box.comm, masses), 0.0)

    def ode(self, grid: Grid) -> Array:
        """The same of the ODE: its density, along characteristics, at four points of each."""
        h, n, process = 2.0 * self.box.half / grid.cells, grid.cells, self.model.process
        side = (h * np.add.outer(np.arange(n), INSIDE) - self.box.half).ravel()
        x = np.stack(np.meshgrid(side, side, indexing="ij"), axis=-1).reshape(-1, 2)
        mine = np.array_split(np.arange(len(x)), self.box.comm.size)[self.box.comm.rank]
        ones = np.ones(len(mine))
        flow = carry(
            Markers(self.box.comm, x[mine], ones, ones, Wall.of(self.box.mesh(4))),
            -process.reverse(self.model, 0.0).reversed_in_time(process.t1),
            [0.0, process.t1],
            rtol=TOLERANCE,
            atol=TOLERANCE,
            walls=False,
        )
        values = np.zeros(len(x))
        values[mine] = process.prior(2)(flow.positions[-1]) * np.exp(flow.log_jacobian[-1])
        points = reduced(self.box.comm, values).reshape(n, 2, n, 2)
        return 0.25 * h**2 * points.sum(axis=(1, 3))

    def bound(self, run: Trajectory) -> float:
        r"""The right-hand side of (d), on the clock of the run. Collective."""
        process = self.model.process
        clock = Graded(process)
        t = np.array([clock.noising_time(u) for u in run.times])[::-1]
        g = Elements(run.space, 2 * run.space.element.basix_element.degree + 2)
        errors = [self._score_error(g, run[len(t) - 1 - i], s) for i, s in enumerate(t)]
        slopes = np.array([self.steepest(s) for s in t])
        grown = np.concatenate([[0.0], np.cumsum(0.5 * np.diff(t) * (slopes[1:] + slopes[:-1]))])
        halves = 0.5 * np.array([process.sigma(s) ** 2 for s in t])
        return float(np.trapezoid(np.exp(grown) * halves * errors, t))

    def steepest(self, t: float) -> float:
        """Largest eigenvalue of the symmetric part of the ODE's slopes in the square."""
        process, x = self.model.process, self.box.lattice()
        drift = partial(process.reverse(self.model, 0.0), process.t1 - t)
        steps = STEP * np.eye(2)
        J = np.stack([(drift(x + e) - drift(x - e)) / (2.0 * STEP) for e in steps], axis=-1)
        return float(np.linalg.eigvalsh(0.5 * (J + J.transpose(0, 2, 1)))[:, -1].max())

    def _score_error(self, g: Elements, rho: fem.Function, t: float) -> float:
        r"""The norm of :math:`\hat s - \nabla\log\rho` in :math:`L^2(\rho)`. Collective."""
        u = rho.x.array
        values, slopes = g.evaluate(u).ravel(), g.gradient(u)
        counts = values > COUNTED * self.box.largest(values)
        gap = self.model.values(t, g.points[counts]) - slopes[counts] / values[counts, None]
        mean = (g.quadrature_weights * values)[counts] @ (gap**2).sum(axis=1)
        return float(np.sqrt(g.sum(float(mean))))
