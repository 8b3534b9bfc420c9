r"""Runs of the oscillating family: finite elements with noise, characteristics without."""

import math
from collections.abc import Sequence

from mpi4py import MPI

import numpy as np
from dolfinx.mesh import Mesh

from fpcontrol import SDIRK4, FokkerPlanck, Trajectory, density, distances
from fpcontrol.characteristics import Flow, Markers, carry
from fpcontrol.discretization.elements import Elements
from fpcontrol.mesh import interval
from fpcontrol.theorems.closed_forms.ripples import Ripple, source_edges
from fpcontrol.theorems.framework import Figure, Grid
from fpcontrol.theorems.framework.resolution import markers_between
from fpcontrol.typing import Array


def trajectories(
    mesh: Mesh, drift: Ripple, sigma: float, t1: float, grid: Grid
) -> list[Trajectory]:
    """From the uniform density, in one or two runs of ``grid.steps``. Collective.

    The first takes the relaxation time ``1/(D k**2)`` of the density twelve times: what is left
    then, 6e-6, needs no small steps.
    """
    # One factorization serves all steps; the long ones at the end are too stiff for GMRES.
    equation = FokkerPlanck(mesh, drift, sigma, degree=grid.degree, linear_solver="direct")
    layer = 12.0 / (0.5 * sigma**2 * drift.k**2)
    start, scheme = density.uniform(mesh, grid.degree), SDIRK4()
    if layer >= 0.5 * t1:
        return [equation.solve(start, t1, grid.steps, scheme=scheme)]
    first = equation.solve(start, layer, grid.steps, scheme=scheme)
    return [first, equation.solve(first[-1], t1, grid.steps, t0=layer, scheme=scheme)]


def sup_error(mesh: Mesh, drift: Ripple, sigma: float, t1: float, grid: Grid) -> float:
    """Largest L2 distance to the uniform density over all time levels, relative. Collective."""
    return _sup_error(trajectories(mesh, drift, sigma, t1, grid))


def _sup_error(runs: Sequence[Trajectory]) -> float:
    g, one = Elements(runs[0].space), runs[0].levels[0]
    return max(g.norm(u - one) for run in runs for u in run.levels) / g.norm(one)


def resolving(kappa: float, at: float) -> Grid:
    r"""Cells to a period and steps that suffice for half a percent.

    Peaks have the width :math:`e^{-aT}` of the flow, or :math:`\sqrt\kappa` in equilibrium, in
    units of 1/k: one and a half cells of degree 2; wide ones leave kh at 0.2.
    """
    width = max(math.exp(-at), math.sqrt(kappa))
    return Grid(max(32, math.ceil(4.4 / width)), max(10, math.ceil(5.0 * at)))


def on_unit_interval(
    comm: MPI.Comm, drift: Ripple, sigma: float, t1: float, m: float, grid: Grid
) -> Array:
    """Largest relative L2 error and ``k W_2``, with ``grid.cells`` to a period. Collective.

    W2 over the ends of the runs, where it is largest: it comes up, and stays.
    """
    mesh = interval(comm, round(grid.cells * m))
    runs = trajectories(mesh, drift, sigma, t1, grid)
    one = density.uniform(mesh, grid.degree)
    w2 = drift.k * max(distances.wasserstein(run[-1], one) for run in runs)
    return np.array([_sup_error(runs), w2])


def carried(markers: Markers, drift: Ripple, t1: float, rtol: float) -> tuple[float, float]:
    """Largest relative L2 error and ``k W_2`` at sigma = 0, by characteristics. Collective."""
    flow = carry(markers, drift, np.linspace(0.0, t1, 5), rtol=rtol, atol=rtol)
    still = Flow(markers, flow.times, flow.positions[:1].repeat(5, axis=0), 0.0 * flow.log_jacobian)
    # The drift is tangent to the walls, so markers cover the domain: int (rho - 1)^2 is
    # int rho_0^2/J dy less its value at time 0, and 1/J is smooth where J is not.
    squares = flow.norms**2
    l2 = math.sqrt(max(squares.max() / squares[0] - 1.0, 0.0))
    return l2, float(drift.k * flow.wasserstein(still).max() / math.sqrt(flow.mass[0]))


def carried_twice(
    comm: MPI.Comm, drift: Ripple, cells: int, t1: float, upper: float = 1.0
) -> Figure:
    """``carried`` on an interval; half the cells and 100 times rtol give the errors."""

    def run(n: int, rtol: float, each: int) -> tuple[float, float]:
        edges = [0.0, upper, *source_edges(drift.a * t1, drift.k, each, upper)]
        markers = markers_between(comm, edges, n, walls=(0.0, upper))
        return carried(markers, drift, t1, rtol)

    return Figure.refined(run(cells // 2, 1e-8, 1), run(cells, 1e-10, 2))
