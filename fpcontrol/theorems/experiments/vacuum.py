r"""Goals that are nearly disconnected: what diverges with the depth of the gap, and what does not.

A supplement to Lemma 2 (own). The start is uniform and the goal
:math:`(1-\varepsilon)q + \varepsilon` with q on two islands. The exact field has to carry mass
through the gap, where at the end next to none is left to carry it:

.. math:: \int\!\!\int\frac{|\nabla\phi|^2}{\rho_t}\,dx\,dt =
    \log\tfrac1\varepsilon\int_\mathrm{gap}|\nabla\phi|^2\,dx + O(1),\qquad
    \|u\|_\infty \sim \frac1\varepsilon .

A bounded field leaves a little mass in the gap instead, and misses the goal in L2 by little, with
noise and without: here noise makes no difference.
"""

import math

from mpi4py import MPI

import numpy as np

from fpcontrol import SDIRK2, FokkerPlanck, MoserFlow, density
from fpcontrol.characteristics import Markers, carry
from fpcontrol.drift import Drift
from fpcontrol.mesh import interval
from fpcontrol.quadrature import graded
from fpcontrol.theorems.closed_forms.profiles import StraightLine, islands
from fpcontrol.theorems.framework import Experiment, Figure, Grid, Study, measure
from fpcontrol.theorems.runs.moser_runs import energy, flow_on_interval
from fpcontrol.typing import Array

# Ends of the gap.
LEFT, RIGHT = 0.35, 0.65


def to_islands(depth: float, t1: float) -> StraightLine:
    """The line to the goal with a gap of that depth."""
    return StraightLine.to(islands(depth, left=LEFT, right=RIGHT), t1)


# -- the exact field -------------------------------------------------------------------------------


def exact_energy(depth: float, t1: float, D: float = 0.0, grading: int = 4) -> float:
    r""":math:`\int\int\rho_t|v|^2` in closed form over time, by quadrature in space.

    With s = t/T the integrand is :math:`(A + Bs)^2/(1 + ds)`.
    """
    line, (x, dx) = to_islands(depth, t1), graded((LEFT, RIGHT), grading)
    A, B, d = line.flux(x), D * line.goal.slope(x), line.goal.value(x) - 1.0
    d = np.where(np.abs(d) < 1e-6, 1e-6, d)
    c = B / d
    mean = c**2 * (1.0 + 0.5 * d) + 2.0 * c * (A - c) + (A - c) ** 2 * np.log1p(d) / d
    return t1 * float(dx @ mean)


def computed_energies(
    comm: MPI.Comm, depths: tuple[float, ...], sigma: float, t1: float, grid: Grid
) -> Array:
    """Energy without noise, largest speed, energy with noise, for each depth. Collective."""
    found = []
    for depth in depths:
        # In time, panels that are halved towards t1 down to the depth.
        edges = t1 * (1.0 - np.append(0.5 ** np.arange(math.ceil(-math.log2(depth)) + 5), 0.0))
        still, noisy = (
            flow_on_interval(comm, to_islands(depth, t1), noise, grid, 4) for noise in (0.0, sigma)
        )
        found.append([energy(still, edges, 6), _largest_speed(still), energy(noisy, edges, 6)])
    return np.array(found)


def _largest_speed(flow: MoserFlow) -> float:
    """At the end, in the middle of cells: only there a flux of degree 0 is of second order."""
    g = flow.elements
    middle = g.points.reshape(g.n_points, g.n_cells, 1).mean(axis=0)
    v = np.abs(flow.drift(flow.t1, middle))
    return g.comm.allreduce(float(v.max(initial=0.0)), op=MPI.MAX)


def energies(
    comm: MPI.Comm,
    *,
    sigma: float = 0.5,
    t1: float = 1.0,
    depths: tuple[float, ...] = (1e-1, 1e-2, 1e-4, 1e-6, 1e-8),
    cells: int = 1600,
) -> Study:
    r"""Energy, size and path divergence of the exact field, as the gap empties.

    Path divergence: that of the controlled paths from those of Brownian motion with walls,
    :math:`\frac{1}{4D}\int\int\rho_t|v|^2`.

    Args:
        depths: Epsilon, descending.
        cells: Of the coarser mesh, of degree 1: only that keeps the interpolated goal positive
            where the gap begins. Ends of the gap (0.35, 0.65) belong on nodes.
    """
    study = Study(
        f"exact field to islands, sigma = {sigma:g}, T = {t1:g}",
        "As the gap between the islands empties, the exact field's energy grows like its "
        "logarithm and the field itself without bound.",
    )
    D, e = 0.5 * sigma**2, np.array(depths)
    # Of the deepest gaps the largest speed is at the edge, off the middle of a cell: first order
    # in the limit only.
    still, speed, noisy = measure(
        lambda at: computed_energies(comm, depths, sigma, t1, at),
        Grid(cells, 1, 1),
        order=np.array([1.0, 0.75, 1.0]),
    ).T
    paths = noisy / (4.0 * D)
    exact = np.array([exact_energy(depth, t1) for depth in depths])
    exact_paths = np.array([exact_energy(depth, t1, D) for depth in depths]) / (4.0 * D)
    x, dx = graded((LEFT, RIGHT))
    speeds = [np.abs(to_islands(depth, t1).speed(t1, x)).max() for depth in depths]
    study.equals("energy without noise, gap {:g}", still, exact, 5e-3, over=depths)
    study.equals("largest speed, gap {:g}", speed, speeds, 5e-3, over=depths)
    name = f"path divergence, sigma = {sigma:g}"
    study.equals(f"{name}, gap {{:g}}", paths, exact_paths, 5e-3, over=depths)

    folds = math.log(depths[-2] / depths[-1])
    growth, exact_growth = ((f[-1] - f[-2]) / folds for f in (still, exact))
    study.equals("energy for every e-fold of the gap, last two", growth, exact_growth, 5e-3)
    deep = 1e-11
    again, one_fold = (
        exact_energy(deep / math.e, t1, grading=order) - exact_energy(deep, t1, grading=order)
        for order in (6, 4)
    )
    gap = (x > LEFT) & (x < RIGHT)
    study.equals(
        f"the same in closed form, gap {deep:g}, against the integral over the gap",
        Figure.refined(again, one_fold),
        t1 * float(dx[gap] @ to_islands(0.0, t1).flux(x[gap]) ** 2),
        # Edges of the islands, where q is below epsilon, add epsilon**(1/4) to the gap's width.
        2.0 * deep**0.25,
    )
    rate = speed.slopes(e)[-1]
    study.equals("slope of the largest speed in the gap's depth, last two", rate, -1.0, 5e-3)
    curves = {"energy without noise": still, name: paths}
    study.curves("what diverges", "depth of the gap", "energy", depths, curves, "x")
    return study


# -- bounded fields --------------------------------------------------------------------------------


class Bounded(Drift):
    r"""The exact field v between profiles as :math:`v/(1 + v^2/M^2)^{1/2}`: below M, and smooth."""

    def __init__(self, line: StraightLine, D: float, limit: float) -> None:
        self.line, self.D, self.limit = line, D, limit

    def __call__(self, t: float, x: Array) -> Array:
        """Drift at points ``(N, d)``."""
        v, rho = self.line.speed(t, x), self.line.at(t)
        if self.D:
            v = v + self.D * rho.slope(x) / rho.value(x)
        return v / np.sqrt(1.0 + (v / self.limit) ** 2)

    def divergence(self, t: float, x: Array) -> Array:
        """Without noise, ``(N,)``."""
        u, expansion = self.line.speed(t, x[:, 0]), self.line.expansion(t, x[:, 0])
        return expansion * (1.0 + (u / self.limit) ** 2) ** -1.5


def bounded_fields(
    comm: MPI.Comm,
    *,
    sigma: float = 0.3,
    t1: float = 1.0,
    depth: float = 1e-6,
    limits: tuple[float, ...] = (1.0, 2.0, 5.0, 10.0, 20.0),
    grid: Grid | None = None,
    cells: int = 50,
) -> Study:
    """Fields below a speed M track the islands in L2, with noise and without.

    Args:
        sigma: Noise, for the run that has some.
        depth: Of the gap; 1e-6 is as good as none.
        grid: Resolution of the run with noise; the gap's ends (0.35, 0.65) belong on nodes.
        cells: Cells of markers of the coarser run without noise.
    """
    study = Study(
        f"bounded fields to islands, gap {depth:g}, T = {t1:g}",
        "Fields of a bounded speed M come as near to disconnected islands in L2 as is wanted, "
        "with noise and, no contrast here, without.",
    )
    line, D = to_islands(depth, t1), 0.5 * sigma**2

    def noisy(at: Grid) -> Array:
        """Relative L2 error at T and mass left in the gap, for each M."""
        mesh, found = interval(comm, at.cells), []
        rho = density.uniform(mesh, at.degree)
        for limit in limits:
            equation = FokkerPlanck(mesh, Bounded(line, D, limit), sigma, degree=at.degree)
            run, g = equation.solve(rho, t1, at.steps, scheme=SDIRK2()), equation.elements
            y, u, w = g.points[:, 0], g.evaluate(run.levels[-1]).ravel(), g.quadrature_weights
            inside = (y > LEFT) & (y < RIGHT)
            square, gap = w @ (u - line.goal.value(y)) ** 2, w[inside] @ u[inside]
            error = math.sqrt(g.sum(float(square))) / line.goal.norm
            found.append([error, g.sum(float(gap))])
        return np.array(found)

    def noiseless(n: int, rtol: float) -> list[float]:
        markers = Markers.on_interval(comm, n, lambda x: line.start.value(x[:, 0]))
        flows = (
            carry(markers, Bounded(line, 0.0, limit), [0.0, t1], rtol=rtol, atol=rtol)
            for limit in limits
        )
        errors = [flow.l2_errors(lambda t, x: line.at(t).value(x[:, 0]))[-1] for flow in flows]
        return [error / line.goal.norm for error in errors]

    error, gap = measure(noisy, grid or Grid(200, 100)).T
    still = Figure.refined(noiseless(cells, 1e-5), noiseless(2 * cells, 1e-6))
    ends = np.array([limits[0], limits[-1]])
    for name, found in ((f"sigma = {sigma:g}", error), ("sigma = 0", still)):
        study.report(f"relative L2 error at T, {name}, M = {{:g}}", found, over=limits)
        study.below(f"relative L2 error at T, {name}, largest M", found[-1], 0.02)
        power = -found[[0, -1]].slopes(ends)[0]
        study.above(f"power of 1/M in the error, {name}", power, 0.8)
    study.report(f"mass left in the gap, sigma = {sigma:g}, M = {{:g}}", gap, over=limits)
    # No contrast: the same rate on both sides, and errors of one size.
    name = "error without noise over error with noise, largest M"
    study.between(name, still[-1] / error[-1], 1.0 / 3.0, 3.0)
    curves = {f"sigma = {sigma:g}": error, "sigma = 0": still}
    study.curves("bounded fields", "M", "relative L2 error at T", limits, curves, "xy")
    return study


FEWER = {"limits": (1.0, 10.0), "grid": Grid(100, 25), "cells": 30}
EXPERIMENTS = [
    Experiment("t2.gap.energy", energies, quick={"depths": (1e-1, 1e-4, 1e-8), "cells": 800}),
    Experiment("t2.gap.bounded", bounded_fields, quick=FEWER),
]
