r"""Both samplers of a score in a square of the plane: how far apart, and their bound (d)."""

from dataclasses import dataclass
from functools import partial

import numpy as np
from dolfinx import fem

from fpcontrol import FokkerPlanck, density
from fpcontrol.characteristics import Markers, carry
from fpcontrol.discretization.boundary import Wall
from fpcontrol.discretization.elements import Elements
from fpcontrol.parallel.errors import reduced
from fpcontrol.theorems.framework import Grid
from fpcontrol.theorems.runs.rearrangement import GAUSS, bracket
from fpcontrol.theorems.runs.trained_networks import TrainedNetwork
from fpcontrol.theorems.runs.wrong_samplers import Box, distance_bound
from fpcontrol.trajectory import Trajectory
from fpcontrol.typing import Array

TOLERANCE = 1e-7  # of characteristics
STEP = 1e-4  # of differences of the drift
INSIDE = (GAUSS, 1.0 - GAUSS)  # Gauss points of a square's sides


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
        g = Elements(run.space, 2 * run.space.element.basix_element.degree + 2)
        return distance_bound(self.model.process, self.model, self.box, g, run, self.steepest)

    def steepest(self, t: float) -> float:
        """Largest eigenvalue of the symmetric part of the ODE's slopes in the square."""
        process, x = self.model.process, self.box.lattice()
        drift = partial(process.reverse(self.model, 0.0), process.t1 - t)
        steps = STEP * np.eye(2)
        J = np.stack([(drift(x + e) - drift(x - e)) / (2.0 * STEP) for e in steps], axis=-1)
        return float(np.linalg.eigvalsh(0.5 * (J + J.transpose(0, 2, 1)))[:, -1].max())
