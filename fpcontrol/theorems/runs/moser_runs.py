"""Runs of the Fokker-Planck equation under Moser's field, exact or changed."""

import math
from collections.abc import Sequence
from itertools import pairwise

from mpi4py import MPI

import numpy as np

from fpcontrol import SDIRK2, FokkerPlanck, MoserFlow, density
from fpcontrol.characteristics import Flow, carry
from fpcontrol.drift import Drift, as_drift
from fpcontrol.mesh import interval
from fpcontrol.quadrature import composite
from fpcontrol.theorems.closed_forms.profiles import StraightLine
from fpcontrol.theorems.framework import Grid
from fpcontrol.theorems.framework.resolution import markers_between
from fpcontrol.typing import Array, VectorField

# A field switched on at once: time levels are dense near 0, in intervals that end at T/4^j.
STAGES = 6


def flow_on_interval(
    comm: MPI.Comm, line: StraightLine, sigma: float, grid: Grid, quadrature: int | None = None
) -> MoserFlow:
    """Finite-element line between two profiles; kinks belong on nodes. Collective."""
    mesh = interval(comm, grid.cells)
    start = density.interpolate(mesh, lambda x: line.start.value(x[0]), grid.degree)
    goal = density.interpolate(mesh, lambda x: line.goal.value(x[0]), grid.degree)
    return MoserFlow(start, goal, line.t1, sigma, quadrature_degree=quadrature)


def carried(
    comm: MPI.Comm,
    line: StraightLine,
    drift: Drift,
    edges: Sequence[float] | Array,
    grid: Grid,
    rtol: float,
) -> Array:
    """Relative L2 error and W2 at the last time of markers, uniform at first. Collective.

    Args:
        comm: Communicator.
        line: From the uniform density; where its drift takes the markers is what is compared with.
        drift: What carries them instead.
        edges: Between which the flow is smooth.
        grid: Cells of markers.
        rtol: Tolerance of the integration in time.
    """
    markers = markers_between(comm, [0.0, 1.0, *edges], grid.cells)
    flow = carry(markers, drift, [0.0, line.t1], rtol=rtol, atol=rtol)
    exact = line.goal.quantile(markers.points[:, 0])[:, None]  # F_0(y) = y
    right = Flow(markers, flow.times, np.stack([markers.points, exact]), flow.log_jacobian)
    error = flow.l2_errors(lambda t, x: line.at(t).value(x[:, 0]))[-1]
    return np.array([error / line.goal.norm, flow.wasserstein(right)[-1]])


def energy(flow: MoserFlow, edges: Array, points: int) -> float:
    r""":math:`\int\int\rho_t|v|^2` by Gauss's rule in time between the edges. Collective."""
    g, total = flow.elements, 0.0
    for t, dt in zip(*composite(edges, points), strict=True):
        v, rho = flow.drift.at_points(t, g)[:, 0], g.evaluate(flow.coefficients(t)).ravel()
        total += dt * float(g.quadrature_weights @ (rho * v**2))
    return g.sum(total)


def distances(flow: MoserFlow, drift: VectorField, steps: int, until: float | None = None) -> Array:
    """L2 distances to the line at all time levels, absolute. Collective."""
    g = flow.elements
    degree = {"degree": g.degree, "quadrature_degree": g.quadrature_degree}
    equation = FokkerPlanck(g.mesh, drift, flow.noise(0.0), **degree)
    run = equation.solve(flow.start, flow.t1 if until is None else until, steps)
    levels = zip(run.times, run.levels, strict=True)
    return np.array([g.norm(u - flow.coefficients(t)) for t, u in levels])


def response(flow: MoserFlow, drift: VectorField, steps: int) -> Array:
    r"""Largest L2 distance to the line, largest bound (E3), largest ratio of both. Collective.

    The bound is computed afterwards, from the perturbed solution and the two fields at the
    quadrature points, with the midpoint rule in time.

    Args:
        flow: The line and its field.
        drift: What drives the density instead of the line's own field.
        steps: Time steps in each of the intervals ``(0, T/4^STAGES), ..., (T/4, T)``.
    """
    g, D = flow.elements, flow.noise.diffusivity(0.0)
    change = as_drift(drift) - flow.drift
    degree = {"degree": g.degree, "quadrature_degree": g.quadrature_degree}
    equation = FokkerPlanck(g.mesh, drift, flow.noise(0.0), **degree)
    errors, bounds, total, rho_h = [], [], 0.0, flow.start
    stops = [0.0, *(flow.t1 * 4.0 ** np.arange(-STAGES, 1))]
    for t0, t1 in pairwise(stops):
        run = equation.solve(rho_h, t1, steps, t0=t0, scheme=SDIRK2())
        rho_h = run[-1]
        for n in range(steps):
            t = 0.5 * (run.times[n] + run.times[n + 1])
            rho = g.evaluate(0.5 * (run.levels[n] + run.levels[n + 1])).ravel()
            line = g.evaluate(flow.coefficients(t)).ravel()
            rate = g.quadrature_weights @ (rho**2 / line * change.at_points(t, g)[:, 0] ** 2)
            total += (t1 - t0) / steps * g.sum(float(rate)) / (2.0 * D)
            end = flow.coefficients(run.times[n + 1])
            top = g.comm.allreduce(float(g.evaluate(end).max(initial=0.0)), op=MPI.MAX)
            errors.append(g.norm(run.levels[n + 1] - end))
            bounds.append(math.sqrt(top * total))
    e, b = np.array(errors), np.array(bounds)
    ratios = np.divide(e, b, where=b > 0.0, out=np.zeros_like(e))
    return np.array([e.max(), b.max(), ratios.max()])
