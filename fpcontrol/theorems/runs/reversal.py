r"""The two samplers of ``samplers``: the reverse SDE by elements, the ODE by markers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mpi4py import MPI

import numpy as np
from dolfinx import fem

from fpcontrol import SDIRK4, density, distances
from fpcontrol.characteristics.flow import binned_l2
from fpcontrol.discretization.elements import Elements
from fpcontrol.distances.optimal_transport import Distribution, pieces_of
from fpcontrol.mesh import interval
from fpcontrol.theorems.closed_forms.score_networks import HeatFlow, ScoreNetwork, gauss_times
from fpcontrol.theorems.framework import Figure, Grid
from fpcontrol.theorems.framework.resolution import solve
from fpcontrol.theorems.runs.sliding import CellwiseDrift, slide
from fpcontrol.typing import Array

BINS = (250, 1000, 4000)
DIVISIONS, PASSES = 16, 3  # of marker cells beside atoms


def sde_density(comm: MPI.Comm, net: ScoreNetwork, grid: Grid) -> fem.Function:
    """Density of the reverse SDE at the data's end, with a node at every jump. Collective."""
    flow, n = net.flow, net.n
    mesh, sigma = interval(comm, n * math.ceil(grid.cells / n)), math.sqrt(2.0 * flow.D)

    def drift(t: float, x: Array) -> Array:
        return 2.0 * flow.D * net(flow.t1 - t, x)

    def start(x: Array) -> Array:
        return flow.density(flow.t1, x[0])

    return solve(mesh, drift, sigma, start, flow.t1, grid, scheme=SDIRK4())[-1]


def sde_figures(comm: MPI.Comm, bins: Sequence[int], net: ScoreNetwork, grid: Grid) -> Array:
    """L2 distance to the data, KL of the data from the sampler, W2, and L2 in bins. Collective."""
    rho, flow = sde_density(comm, net, grid), net.flow
    g = Elements(rho.function_space, 8)
    r, p = g.evaluate(rho.x.array).ravel(), flow.density(0.0, g.points[:, 0])
    w = g.quadrature_weights
    l2 = math.sqrt(g.sum(float((r - p) ** 2 @ w)))
    kl = g.sum(float((p * np.log(p / r) - p + r) @ w))
    data = density.interpolate(g.mesh, lambda x: flow.density(0.0, x[0]), grid.degree)
    w2 = distances.wasserstein(rho, data)
    return np.array([l2, kl, w2, *binned_errors(comm, rho, flow, bins)])


def binned_error(masses: Array, flow: HeatFlow, edges: Array) -> float:
    """L2 distance to the data, both spread evenly over bins."""
    return binned_l2(masses - np.diff(flow.cumulative(0.0, edges)), edges)


def binned_errors(comm: MPI.Comm, rho: fem.Function, flow: HeatFlow, bins: Sequence[int]) -> Array:
    """Such distances of a density on a mesh, for several numbers of equal bins. Collective."""
    pieces, errors = pieces_of("rho", rho), np.zeros(len(bins))
    if comm.rank == 0:
        F = Distribution.of(pieces)
        for k, n in enumerate(bins):
            edges = np.linspace(0.0, 1.0, n + 1)
            cell = np.clip(np.searchsorted(F.left, edges, side="right") - 1, 0, len(F.left) - 1)
            t = (edges - F.left[cell]) / F.width[cell]
            powers = t[:, None] ** np.arange(F.inside.shape[1])
            below = F.below[cell] + (F.inside[cell] * powers).sum(axis=1)
            errors[k] = binned_error(np.diff(below), flow, edges)
    return comm.bcast(errors)


@dataclass(frozen=True)
class Sample:
    """What the reverse ODE makes of markers.

    Attributes:
        positions: Where the markers end, ascending, shape ``(N,)``.
        below: Mass below each marker, ``(N,)``.
        flow: The noising flow.
    """

    positions: Array
    below: Array
    flow: HeatFlow

    def masses(self, edges: Array) -> Array:
        """Masses in bins; that of the markers between two neighbours is spread evenly."""
        return np.diff(np.interp(edges, self.positions, self.below))

    def l2_error(self, bins: int, lower: float = 0.0, upper: float = 1.0) -> float:
        """L2 distance to the data of densities that are constant in equal bins."""
        edges = np.linspace(lower, upper, bins + 1)
        return binned_error(self.masses(edges), self.flow, edges)

    @property
    def wasserstein(self) -> float:
        """W2 to the data, to which the exact ODE takes the same markers in the same order."""
        squares = (self.positions - self.flow.quantile(0.0, self.below)) ** 2
        return math.sqrt(np.diff(self.below) @ (squares[1:] + squares[:-1]) / 2.0)

    @property
    def farthest(self) -> float:
        """Largest distance of a marker from where the exact ODE takes it, no less than W2."""
        return float(np.abs(self.positions - self.flow.quantile(0.0, self.below)).max())

    @property
    def atoms(self) -> tuple[Array, Array]:
        """Places and masses of all atoms of more than 1e-6, from left to right."""
        joined = np.diff(self.positions) <= 1e-13
        mass = np.where(joined, np.diff(self.below), 0.0)
        first = np.flatnonzero(joined & ~np.append(False, joined[:-1]))
        if not len(first):
            return np.zeros(0), np.zeros(0)
        masses = np.add.reduceat(mass, first)
        return self.positions[first][masses > 1e-6], masses[masses > 1e-6]

    def atom_at(self, x: float) -> tuple[float, float]:
        """Place and mass of the atom nearest to a point; of mass 0 if there is none."""
        places, masses = self.atoms
        i = np.abs(places - x).argmin() if len(places) else None
        return (x, 0.0) if i is None else (float(places[i]), float(masses[i]))


def ode_sample(net: ScoreNetwork, grid: Grid) -> Sample:
    """The reverse ODE: markers carried from event to event, on all ranks alike.

    Args:
        net: The network.
        grid: Marker cells and steps in time. Cells at whose one end an atom begins are divided by
            16 three times, so that masses of atoms are good to 1/4096 of a cell's.
    """
    flow = net.flow
    pairs = gauss_times(flow.t1, grid.steps)
    ends = np.array([net.ends(flow.t1 - t) for t, _ in pairs])  # (3 steps, 2, n)
    weights = np.array([w for _, w in pairs])[:, None, None] * grid.steps / flow.t1
    mean = flow.D * (ends * weights).reshape(grid.steps, 3, 2, -1).sum(axis=1)
    times = np.linspace(0.0, flow.t1, grid.steps + 1)
    drift = CellwiseDrift(net.nodes, times, mean[:, 0], mean[:, 1])
    y = np.linspace(0.0, 1.0, grid.cells + 1)
    x = slide(y, drift)
    for _ in range(PASSES):
        apart = np.diff(x) > 1e-13
        beside = np.append(~apart[1:], False) | np.append(False, ~apart[:-1])
        i = np.flatnonzero(apart & beside)
        new = (y[i, None] + np.outer(y[i + 1] - y[i], np.arange(1, DIVISIONS) / DIVISIONS)).ravel()
        order = np.argsort(np.append(y, new), kind="stable")
        y, x = np.append(y, new)[order], np.append(x, slide(new, drift))[order]
    if (np.diff(x) < -1e-12).any():
        raise ArithmeticError("Markers have overtaken each other: use more steps.")
    x = np.maximum.accumulate(x)
    return Sample(x, flow.cumulative(flow.t1, y), flow)


def ode_figures(bins: Sequence[int], net: ScoreNetwork, grid: Grid) -> Array:
    """W2, farthest marker, mass in all atoms, that at the mode, L2 errors in so many bins."""
    sample = ode_sample(net, grid)
    masses = sample.atoms[1].sum()
    _, last = sample.atom_at(net.flow.mode)
    return np.array(
        [sample.wasserstein, sample.farthest, masses, last, *map(sample.l2_error, bins)]
    )


def stepped_atom(net: ScoreNetwork, place: float) -> Figure:
    """Mass of the atom at a node by explicit Euler steps, which know of no events.

    Markers chatter about a node where they meet. The outermost of them are found among 64 markers a
    cell, then among a thousand between neighbours. The error is of first order in the step and is
    extrapolated, from three numbers of steps.

    Raises:
        ValueError: If no marker ends at the place.
    """
    found = np.array([_stepped_mass(net, place, steps) for steps in (1000, 2000, 4000)])
    return Figure.refined(*(2.0 * found[1:] - found[:-1]))


def _stepped_mass(net: ScoreNetwork, place: float, steps: int) -> float:
    flow, dt = net.flow, net.flow.t1 / steps
    moves = np.array([dt * flow.D * net.ends(flow.t1 - (i + 0.5) * dt)[0] for i in range(steps)])
    beside = [max(round(net.n * place) - 1, 0), min(round(net.n * place), net.n - 1)]
    near = np.abs(moves[-1, beside]).max()

    def caught(y: Array) -> Array:
        x = y
        for move in moves:
            x = np.clip(x + move[np.minimum((net.n * x).astype(int), net.n - 1)], 0.0, 1.0)
        return np.flatnonzero(np.abs(x - place) <= near)

    y = np.linspace(0.0, 1.0, 64 * net.n + 1)
    i = caught(y)
    if not len(i):
        raise ValueError(f"place = {place:g}: no marker ends there.")
    left, right = (y[max(i[0] - 1, 0)], y[i[0]]), (y[i[-1]], y[min(i[-1] + 1, len(y) - 1)])
    y = np.concatenate([np.linspace(*left, 1025), np.linspace(*right, 1025)])
    i = caught(y)
    return float(np.diff(flow.cumulative(flow.t1, y[i[[0, -1]]]))[0])


def ode_bound(net: ScoreNetwork, steps: int = 100) -> float:
    r"""Bound of markers' distances, and of W2, for the ODE in the sense of Filippov.

    .. math:: W_2 \le W_\infty \le \int_0^T e^{\int_t^T L}\,
        D|s_n - \partial_x\log p|_\infty\,dt,\qquad L = D\max_x\partial_{xx}\log p
    """
    flow, x = net.flow, np.linspace(0.0, 1.0, 2001)
    growth, total = 0.0, 0.0
    for s, ds in gauss_times(flow.t1, steps):  # from the data's end, where t = T
        rate = flow.D * float(flow.curvature(s, x).max())
        total += ds * math.exp(growth + 0.5 * ds * rate) * flow.D * net.worst(s)
        growth += ds * rate
    return total
