"""Samplers of a wrong log-density: on a mesh, along the ODE, over noisy paths."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

from mpi4py import MPI

import numpy as np
from dolfinx import fem
from dolfinx.mesh import Mesh

from fpcontrol import FokkerPlanck, density
from fpcontrol.characteristics import Markers, carry
from fpcontrol.discretization.boundary import Wall
from fpcontrol.discretization.elements import Elements
from fpcontrol.distances import wasserstein
from fpcontrol.mesh import interval, rectangle
from fpcontrol.noising import GaussianMixture, Graded, OrnsteinUhlenbeck
from fpcontrol.parallel.errors import reduced
from fpcontrol.score.ode import carried_back
from fpcontrol.theorems.closed_forms.wrong_scores import WrongLogDensity
from fpcontrol.theorems.framework import Grid
from fpcontrol.theorems.runs.trained_networks import TrainedNetwork
from fpcontrol.trajectory import Trajectory
from fpcontrol.typing import Array

# Of its maximum: where densities are lower, their logarithms are not compared.
SEEN = 1e-4
# Of its maximum: where the density does not count in the mean square of a score.
COUNTED = 1e-9
TIMES = 120  # panels of integrals over time of what is smooth


@dataclass(frozen=True)
class Box:
    """A box in which all mass stays, centred at the origin.

    Attributes:
        comm: Communicator.
        dimension: 1 or 2.
        half: Half its side.
    """

    comm: MPI.Comm
    dimension: int
    half: float

    def mesh(self, cells: int) -> Mesh:
        """So many cells a side. Collective."""
        h = self.half
        if self.dimension == 1:
            return interval(self.comm, cells, -h, h)
        return rectangle(self.comm, (cells, cells), (-h, -h), (h, h))

    def nodes_near(self, points: Array, cells: int) -> Array:
        """The nodes of that mesh next to points, ``(N, d)``."""
        h = 2.0 * self.half / cells
        return h * np.round((points + self.half) / h) - self.half

    def lattice(self) -> Array:
        """Points all over, ``(N, d)``."""
        side = np.linspace(-self.half, self.half, 2001 if self.dimension == 1 else 121)
        axes = np.meshgrid(*[side] * self.dimension)
        return np.column_stack([axis.ravel() for axis in axes])

    def largest(self, values: Array) -> float:
        """Of the values of all ranks. Collective."""
        return float(reduced(self.comm, np.array(values.max(initial=-np.inf)), MPI.MAX))


@dataclass(frozen=True)
class Samplers:
    """The reverse SDE and ODE of a log-density, both from the noise alone.

    Attributes:
        model: The log-density.
        box: Where it is computed.
    """

    model: WrongLogDensity
    box: Box

    @property
    def process(self) -> OrnsteinUhlenbeck:
        """The noising process."""
        return self.model.data.process  # type: ignore[return-value]  # they are made with this one

    @property
    def noise(self) -> GaussianMixture:
        """What samplers start from."""
        return self.process.prior(self.box.dimension)

    def initial_error(self, x: Array) -> Array:
        """The log-density at the last noising time less that of the noise, ``(N,)``."""
        return self.model.log_density(self.process.t1, x) - self.noise.log_density(x)

    @cached_property
    def bound(self) -> float:
        """Of the maximum principle: the largest initial error and residuals in the box."""
        x = self.box.lattice()
        t, w = self._times()
        residuals = [np.abs(self.model.residual(s, x)).max() for s in t]
        return float(np.abs(self.initial_error(x)).max() + w @ residuals)

    # -- the ODE, along one path -------------------------------------------------------------------

    def along_the_ode(self, x: Array, tolerance: float) -> tuple[Array, Array, Array]:
        """Log-densities of the ODE at points, integrals of R, initial errors. Collective.

        The divergence of the drift is from differences of the drift: what is compared with R shares
        no second derivative with it.
        """
        ones, t1, comm = np.ones(len(x)), self.process.t1, self.box.comm
        mine = np.array_split(np.arange(len(x)), comm.size)[comm.rank]
        wall = Wall.of(self.box.mesh(4))
        markers = Markers(comm, x[mine], ones[mine], ones[mine], wall)
        drift = -self.process.reverse(self.model, 0.0).reversed_in_time(t1)
        carried = partial(
            carry, markers, drift, [0.0, t1], rtol=tolerance, atol=tolerance, walls=False
        )
        flow = carried(divergence="central")
        collected = carried(divergence=self.model.residual)
        last = flow.positions[-1]
        parts = (
            self.noise.log_density(last) + flow.log_jacobian[-1],
            collected.log_jacobian[-1],
            self.initial_error(last),
        )
        found = np.zeros((3, len(x)))
        found[:, mine] = parts
        log_p, integral, initial = reduced(comm, found)
        return log_p, integral, initial

    # -- the SDE, over noisy paths -----------------------------------------------------------------

    def over_noisy_paths(self, x: Array, paths: int, steps: int, seed: int) -> tuple[Array, Array]:
        r"""Densities of the SDE at points by identity (b), and their standard errors, ``(3, N)``.

        .. math:: e^{\Phi(0, x)}\,E_x\Bigl[e^{\int_0^TR(t, Y_t)\,dt - e_T(Y_T)}\Bigr]

        over the noising process from x, whose transitions are exact: with all steps, with every
        second one, and, which is wrong, without R. The same on all ranks.

        Args:
            x: Points, ``(N, d)``.
            paths: From each.
            steps: Even; the integral is by the trapezoidal rule.
            seed: Of the paths.
        """
        rng, t = np.random.default_rng(seed), self._clock(steps)
        y = np.repeat(x, paths, axis=0)
        fine, coarse = np.zeros(len(y)), np.zeros(len(y))
        for i, s in enumerate(t):
            if i:
                h, scale = s - t[i - 1], self.process.scale(s - t[i - 1])
                spread = np.sqrt(self.process.variance(h))
                y = scale * y + spread * rng.standard_normal(y.shape)
            r = self.model.residual(s, y)
            fine += 0.5 * (t[min(i + 1, steps)] - t[max(i - 1, 0)]) * r
            if i % 2 == 0:
                coarse += 0.5 * (t[min(i + 2, steps)] - t[max(i - 2, 0)]) * r
        start, initial = np.exp(self.model.log_density(0.0, x)), self.initial_error(y)
        densities = np.array(
            [
                start[:, None] * np.exp(logs - initial).reshape(len(x), paths)
                for logs in (fine, coarse, np.zeros(len(y)))
            ]
        )
        deviations = densities.std(axis=2, ddof=1) / np.sqrt(paths)
        return densities.mean(axis=2), deviations

    # -- both on a mesh ----------------------------------------------------------------------------

    def sde(self, grid: Grid, *, save: str = "last") -> Trajectory:
        """The equation of the SDE, on the clock of ``Graded``. Collective."""
        mesh, d = self.box.mesh(grid.cells), self.box.dimension
        drift = self.process.reverse(self.model, 1.0).graded()
        equation = FokkerPlanck(mesh, drift, drift.sigma, degree=grid.degree)
        start = density.interpolate(mesh, lambda x: self.noise(x[:d].T), grid.degree)
        return equation.solve(start, 1.0, grid.steps, save=save)

    def at_nodes(self, rho: fem.Function, x: Array) -> Array:
        """Values of a density at nodes of its mesh, ``(N,)``. Collective."""
        space, d = rho.function_space, self.box.dimension
        own = space.dofmap.index_map.size_local
        nodes = space.tabulate_dof_coordinates()[:own, :d]
        sums = np.zeros((2, len(x)))
        for i, point in enumerate(x):
            here = np.flatnonzero(np.abs(nodes - point).max(axis=1) < 1e-9)
            sums[:, i] = rho.x.array[here].sum(), len(here)
        values, counts = reduced(self.box.comm, sums)
        return values / counts

    def log_error(self, rho: fem.Function) -> float:
        r"""Largest :math:`|\log\rho - \Phi(0)|` where the density is seen. Collective."""
        space, d = rho.function_space, self.box.dimension
        own = space.dofmap.index_map.size_local
        x, values = space.tabulate_dof_coordinates()[:own, :d], rho.x.array[:own]
        seen = values > SEEN * self.box.largest(values)
        gap = np.log(values[seen]) - self.model.log_density(0.0, x[seen])
        return self.box.largest(np.abs(gap))

    def between(self, grid: Grid, other: "Samplers") -> tuple[float, float, float]:
        r""":math:`W_2` of the ODE, and of another's, from the SDE; the bound (d). Collective."""
        run = self.sde(grid, save="all")
        g = Elements(run.space, 2 * grid.degree + 2)
        shape, w = (g.n_points, g.n_cells), g.quadrature_weights
        sde = (w * g.evaluate(run[-1].x.array).ravel()).reshape(shape).sum(axis=0)
        linear = Elements(density.uniform(g.mesh, degree=1).function_space, 2 * grid.degree + 2)
        constants, volumes = fem.functionspace(g.mesh, ("DG", 0)), w.reshape(shape).sum(axis=0)

        def constant(masses: Array) -> fem.Function:
            f, masses = fem.Function(constants), np.maximum(masses, 0.0)
            f.x.array[: g.n_cells] = masses / (volumes * g.sum(float(masses.sum())))
            f.x.scatter_forward()
            return f

        def distance(samplers: Samplers) -> float:
            drift = samplers.process.reverse(samplers.model, 0.0)
            ode = carried_back(linear, drift, samplers.noise, t0=0.0, tolerance=1e-9, walls=False)
            return wasserstein(constant(ode.masses), constant(sde))

        x, divergence = self.box.lattice(), self.process.reverse(self.model, 0.0).divergence
        assert divergence

        def steepest(t: float) -> float:
            return float(divergence(self.process.t1 - t, x).max())

        bound = distance_bound(self.process, self.model, self.box, g, run, steepest)
        return distance(self), distance(other), bound

    def _clock(self, steps: int) -> Array:
        """Noising times from 0 to the last, finer near 0."""
        clock = Graded(self.process, finest=0.1)
        return np.array([clock.noising_time(u) for u in np.linspace(1.0, 0.0, steps + 1)])

    def _times(self) -> tuple[Array, Array]:
        """Noising times and weights of the trapezoidal rule."""
        t = self._clock(TIMES)
        steps = np.diff(t)
        return t, 0.5 * (np.append(steps, 0.0) + np.insert(steps, 0, 0.0))


def distance_bound(
    process: OrnsteinUhlenbeck,
    model: WrongLogDensity | TrainedNetwork,
    box: Box,
    g: Elements,
    run: Trajectory,
    steepest: Callable[[float], float],
) -> float:
    r"""The right-hand side of (d), on the clock of the SDE's run. Collective.

    Args:
        process: The noising process.
        model: The score.
        box: Where it is looked at.
        g: Quadrature on the run's elements.
        run: Densities of the SDE, at all levels.
        steepest: Largest slope of the ODE's drift at a noising time.
    """
    clock = Graded(process)
    t = np.array([clock.noising_time(u) for u in run.times])[::-1]
    errors = [_score_error(model, box, g, run[len(t) - 1 - i], s) for i, s in enumerate(t)]
    slopes = np.array([steepest(s) for s in t])
    grown = np.concatenate([[0.0], np.cumsum(0.5 * np.diff(t) * (slopes[1:] + slopes[:-1]))])
    rate = np.exp(grown) * 0.5 * np.array([process.sigma(s) ** 2 for s in t]) * errors
    return float(np.trapezoid(rate, t))


def _score_error(
    model: WrongLogDensity | TrainedNetwork, box: Box, g: Elements, rho: fem.Function, t: float
) -> float:
    r"""The norm of :math:`\hat s - \nabla\log\rho` in :math:`L^2(\rho)`. Collective."""
    u = rho.x.array
    values, slopes = g.evaluate(u).ravel(), g.gradient(u)
    counts = values > COUNTED * box.largest(values)
    gap = model.values(t, g.points[counts]) - slopes[counts] / values[counts, None]
    mean = (g.quadrature_weights * values)[counts] @ (gap**2).sum(axis=1)
    return float(np.sqrt(g.sum(float(mean))))
