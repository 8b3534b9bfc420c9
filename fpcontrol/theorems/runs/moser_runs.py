"""Runs of the Fokker-Planck equation under Moser's field, exact or changed."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from mpi4py import MPI

import numpy as np

from fpcontrol import density
from fpcontrol.discretization.elements import Elements
from fpcontrol.fokker_planck import FokkerPlanck, norm
from fpcontrol.mesh import interval
from fpcontrol.reference import MoserFlow
from fpcontrol.stepping.schemes import SDIRK2
from fpcontrol.theorems.closed_forms.profiles import Profile, StraightLine, cosine, jump, kink
from fpcontrol.theorems.framework.resolution import Grid
from fpcontrol.typing import Array

# Values of the exact field at points, changed: change(t, x, v), all of shape (N,) in 1-D.
type Change = Callable[[float, Array, Array], Array]

GOALS: dict[str, Profile] = {"smooth": cosine(), "kink": kink(), "jump": jump()}
# A field switched on at once: time levels are dense near 0, in intervals that end at T/4^j.
STAGES = 6


@dataclass(frozen=True)
class Changed:
    """The drift of a ``MoserFlow`` with its values changed, at the mesh's quadrature points."""

    flow: MoserFlow
    change: Change

    def at_points(self, t: float, elements: Elements) -> Array:
        """Drift at the quadrature points."""
        base = self.flow.drift.at_points(t, elements)
        return self.change(t, elements.points, base)

    def __call__(self, t: float, x: Array) -> Array:
        """Drift at points of this rank's cells."""
        return self.change(t, x, self.flow.drift(t, x))


def along_line(change: Change) -> Change:
    """A change of scalar fields as one of fields ``(N, 1)``."""
    return lambda t, x, v: change(t, x[:, 0], v[:, 0])[:, None]


def flow_on_interval(
    comm: MPI.Comm, line: StraightLine, sigma: float, grid: Grid, quadrature: int | None = None
) -> MoserFlow:
    """Finite-element line between two profiles; kinks belong on nodes. Collective."""
    mesh = interval(comm, grid.cells)
    start = density.interpolate(mesh, lambda x: line.start(x[:1].T), grid.degree)
    goal = density.interpolate(mesh, lambda x: line.goal(x[:1].T), grid.degree)
    return MoserFlow(start, goal, line.t1, sigma, quadrature_degree=quadrature)


def distances(flow: MoserFlow, drift: Any, steps: int, until: float | None = None) -> Array:
    """L2 distances to the line at all time levels, absolute. Collective."""
    g = flow.elements
    degree = {"degree": g.degree, "quadrature_degree": g.quadrature_degree}
    equation = FokkerPlanck(g.mesh, drift, flow.noise(0.0), **degree)
    run = equation.solve(flow.start, flow.t1 if until is None else until, steps)
    levels = zip(run.times, run.levels, strict=True)
    return np.array([norm(g, u - flow.coefficients(t)) for t, u in levels])


def response(flow: MoserFlow, change: Change, steps: int) -> tuple[float, float, float]:
    r"""Largest L2 distance to the line, largest bound (E3), largest ratio of both. Collective.

    The bound is computed afterwards, from the perturbed solution and the two fields at the
    quadrature points, with the midpoint rule in time.

    Args:
        flow: The line and its field.
        change: What is done to the field.
        steps: Time steps in each of the intervals ``(0, T/4^STAGES), ..., (T/4, T)``.
    """
    g, D = flow.elements, flow.noise.diffusivity(0.0)
    x = g.points[:, 0]
    degree = {"degree": g.degree, "quadrature_degree": g.quadrature_degree}
    equation = FokkerPlanck(g.mesh, Changed(flow, along_line(change)), flow.noise(0.0), **degree)
    errors, bounds, total, rho_h = [], [], 0.0, flow.start
    stops = [0.0, *(flow.t1 * 4.0 ** np.arange(-STAGES, 1))]
    for t0, t1 in pairwise(stops):
        run = equation.solve(rho_h, t1, steps, t0=t0, scheme=SDIRK2())
        rho_h = run[-1]
        for n in range(steps):
            t = 0.5 * (run.times[n] + run.times[n + 1])
            v = flow.drift.at_points(t, g)[:, 0]
            rho = g.evaluate(0.5 * (run.levels[n] + run.levels[n + 1])).ravel()
            line = g.evaluate(flow.coefficients(t)).ravel()
            rate = g.quadrature_weights @ (rho**2 / line * (change(t, x, v) - v) ** 2)
            total += (t1 - t0) / steps * g.sum(float(rate)) / (2.0 * D)
            end = flow.coefficients(run.times[n + 1])
            top = g.comm.allreduce(float(g.evaluate(end).max(initial=0.0)), op=MPI.MAX)
            errors.append(norm(g, run.levels[n + 1] - end))
            bounds.append(math.sqrt(top * total))
    e, b = np.array(errors), np.array(bounds)
    return e.max(), b.max(), np.divide(e, b, where=b > 0.0, out=np.zeros_like(e)).max()
