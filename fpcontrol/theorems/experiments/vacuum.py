r"""Goals that are nearly disconnected: what diverges with the depth of the gap, and what does not.

Part of what is said about Lemma 2 (own). The start is uniform and the goal
:math:`(1-\varepsilon)q + \varepsilon` with q on two islands. The exact field has to carry mass
through the gap, where at the end there is next to none left to carry it:

.. math:: \int\!\!\int\frac{|\nabla\phi|^2}{\rho_t}\,dx\,dt =
    \log\tfrac1\varepsilon\int_\mathrm{gap}|\nabla\phi|^2\,dx + O(1),\qquad
    \|u\|_\infty \sim \frac1\varepsilon .

A bounded field leaves a little mass in the gap instead, and misses the goal in L2 by little, with
noise and without: here noise makes no difference.
"""

import functools
import math
from dataclasses import dataclass

from mpi4py import MPI

import numpy as np

from fpcontrol import density
from fpcontrol.characteristics.flow import Markers, carry
from fpcontrol.fokker_planck import FokkerPlanck
from fpcontrol.mesh import interval
from fpcontrol.stepping.schemes import SDIRK2
from fpcontrol.theorems.closed_forms.profiles import StraightLine, islands, nodes, uniform
from fpcontrol.theorems.framework.checks import Line, Panel, Row, Study
from fpcontrol.theorems.framework.experiments import Experiment
from fpcontrol.theorems.framework.resolution import Grid, measured, slopes
from fpcontrol.theorems.runs.moser_runs import flow_on_interval
from fpcontrol.typing import Array


def _times(t1: float, depth: float) -> tuple[Array, Array]:
    """Gauss nodes and weights on (0, t1), in panels halved towards t1 down to the depth."""
    hat, w = np.polynomial.legendre.leggauss(6)
    left = np.append(0.5 ** np.arange(math.ceil(-math.log2(depth)) + 5), 0.0)
    middle, half = 0.5 * (left[:-1] + left[1:]), -0.5 * np.diff(left)
    t = 1.0 - (middle[:, None] + half[:, None] * hat)
    return t1 * t.ravel(), t1 * (half[:, None] * w).ravel()


def energies(
    comm: MPI.Comm,
    *,
    sigma: float = 0.5,
    t1: float = 1.0,
    depths: tuple[float, ...] = (1e-1, 1e-2, 1e-4, 1e-6, 1e-8),
    cells: int = 1600,
) -> Study:
    r"""Energy, size and path divergence of the exact field, as the gap empties. Collective.

    Path divergence: that of the controlled paths from those of Brownian motion with walls,
    :math:`\frac{1}{4D}\int\int\rho_t|v|^2`.

    Args:
        comm: Communicator.
        sigma: Noise.
        t1: Last time.
        depths: Epsilon, descending.
        cells: Of the coarser mesh, of degree 1: only that keeps the interpolated goal positive
            where the gap begins. Ends of the gap (0.35, 0.65) belong on nodes.
    """
    D = 0.5 * sigma**2
    ends = (0.35, 0.65)

    def exact(depth: float, noise: float, grading: int = 4) -> float:
        # In closed form over time: (A + B s)^2 / (1 + d s) for s = t/T.
        line, (x, dx) = StraightLine(uniform(), islands(depth), t1), nodes(ends, grading)
        A, B, d = line.flux(x), noise * line.goal.slope(x), line.goal.value(x) - 1.0
        d = np.where(np.abs(d) < 1e-6, 1e-6, d)
        c = B / d
        mean = c**2 * (1.0 + 0.5 * d) + 2.0 * c * (A - c) + (A - c) ** 2 * np.log1p(d) / d
        return t1 * float(dx @ mean)

    def run(grid: Grid) -> Array:
        found = []
        for depth in depths:
            line = StraightLine(uniform(), islands(depth), t1)
            row = []
            for noise in (0.0, sigma):
                flow = flow_on_interval(comm, line, noise, grid, 4)
                g, total = flow.elements, 0.0
                for t, dt in zip(*_times(t1, depth), strict=True):
                    v, rho = flow.drift.at_points(t, g)[:, 0], g.evaluate(flow.coefficients(t))
                    total += dt * float(g.quadrature_weights @ (rho.ravel() * v**2))
                row.append(g.sum(total))
                if noise == 0.0:
                    # The flux of degree 0 is of second order in the middle of cells only.
                    middle = g.points.reshape(g.n_points, g.n_cells, 1).mean(axis=0)
                    v = np.abs(flow.drift(t1, middle))
                    row.append(comm.allreduce(float(v.max(initial=0.0)), op=MPI.MAX))
            found.append(row)
        return np.array(found)

    # Of the deepest gaps the largest speed is at the edge, off the middle of a cell: first order
    # in the limit only.
    fine, error = measured(run, Grid(cells, 1, 1), order=np.array([1.0, 0.75, 1.0]))
    x, dx = nodes(ends)
    rows = []
    for i, depth in enumerate(depths):
        line = StraightLine(uniform(), islands(depth), t1)
        at = f"gap {depth:g}"
        for name, j, predicted in (
            ("energy without noise", 0, exact(depth, 0.0)),
            ("largest speed", 1, float(np.abs(line.speed(t1, x)).max())),
            (f"path divergence, sigma = {sigma:g}", 2, exact(depth, D) / (4.0 * D)),
        ):
            scale = 1.0 / (4.0 * D) if j == 2 else 1.0
            rows.append(
                Row(
                    f"{name}, {at}",
                    scale * fine[i, j],
                    predicted=predicted,
                    discretization_error=scale * error[i, j],
                    tolerance=5e-3,
                )
            )
    line = StraightLine(uniform(), islands(0.0), t1)
    gap = (x > 0.35) & (x < 0.65)
    e = np.array(depths)
    folds = math.log(e[-2] / e[-1])

    def one_fold(depth: float, grading: int = 4) -> float:
        return exact(depth / math.e, 0.0, grading) - exact(depth, 0.0, grading)

    deep = 1e-11
    rows += [
        Row(
            "energy for every e-fold of the gap, last two",
            float(fine[-1, 0] - fine[-2, 0]) / folds,
            predicted=(exact(depths[-1], 0.0) - exact(depths[-2], 0.0)) / folds,
            discretization_error=float(error[-2:, 0].sum()) / folds,
            tolerance=5e-3,
        ),
        Row(
            f"the same in closed form, gap {deep:g}, against the integral over the gap",
            one_fold(deep),
            predicted=t1 * float(dx[gap] @ line.flux(x[gap]) ** 2),
            discretization_error=abs(one_fold(deep) - one_fold(deep, 6)),
            # Edges of the islands, where q is below epsilon, add epsilon**(1/4) to the gap's width.
            tolerance=2.0 * deep**0.25,
        ),
        Row(
            "slope of the largest speed in the gap's depth, last two",
            float(slopes(e, fine[:, 1])[-1]),
            predicted=-1.0,
            discretization_error=float((error[-2:, 1] / fine[-2:, 1]).sum()) / folds,
            tolerance=5e-3,
        ),
    ]
    lines = (
        Line(list(depths), fine[:, 0].tolist(), "energy without noise"),
        Line(
            list(depths), (fine[:, 2] / (4.0 * D)).tolist(), f"path divergence, sigma = {sigma:g}"
        ),
    )
    return Study(
        f"exact field to islands, sigma = {sigma:g}, T = {t1:g}",
        "As the gap between the islands empties, the exact field's energy grows like its "
        "logarithm and the field itself without bound.",
        "own",
        tuple(rows),
        (Panel("what diverges", "depth of the gap", "energy", lines, "log"),),
    )


@dataclass(frozen=True)
class Bounded:
    r"""The exact field v between profiles as :math:`v/(1 + v^2/M^2)^{1/2}`: below M, and smooth."""

    line: StraightLine
    diffusivity: float
    limit: float

    def __call__(self, t: float, x: Array) -> Array:
        """Drift, ``(N, 1)``."""
        y = x[:, 0]
        v = self.line.speed(t, y)
        if self.diffusivity:
            v = v + self.diffusivity * self.line.slope(t, y) / self.line.density(t, y)
        return (v / np.sqrt(1.0 + (v / self.limit) ** 2))[:, None]

    def divergence(self, t: float, x: Array) -> Array:
        """Without noise, ``(N,)``."""
        u, expansion = self.line.speed_and_expansion(t, x[:, 0])
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
    """Fields below a speed M track the islands in L2, with noise and without. Collective.

    Args:
        comm: Communicator.
        sigma: Noise, for the run that has some.
        t1: Last time.
        depth: Of the gap; 1e-6 is as good as none.
        limits: M, ascending.
        grid: Resolution of the run with noise; the gap's ends (0.35, 0.65) belong on nodes.
        cells: Cells of markers of the coarser run without noise.
    """
    grid = grid or Grid(200, 100)
    line = StraightLine(uniform(), islands(depth), t1)
    x, dx = nodes((0.35, 0.65))
    size = math.sqrt(dx @ line.goal.value(x) ** 2)

    def noisy(grid: Grid) -> Array:
        mesh, found = interval(comm, grid.cells), []
        rho = density.uniform(mesh, grid.degree)
        for limit in limits:
            drift = Bounded(line, 0.5 * sigma**2, limit)
            equation = FokkerPlanck(mesh, drift, sigma, degree=grid.degree)
            g = equation.elements
            run = equation.solve(rho, t1, grid.steps, scheme=SDIRK2())
            y, u = g.points[:, 0], g.evaluate(run.levels[-1]).ravel()
            square = float(g.quadrature_weights @ (u - line.goal.value(y)) ** 2)
            inside = (y > 0.35) & (y < 0.65)
            gap = g.sum(float(g.quadrature_weights[inside] @ u[inside]))
            found.append([math.sqrt(g.sum(square)) / size, gap])
        return np.array(found)

    def noiseless(n: int, rtol: float) -> Array:
        markers, found = Markers.on_interval(comm, n, line.start), []
        for limit in limits:
            drift = Bounded(line, 0.0, limit)
            flow = carry(
                markers, drift, [0.0, t1], divergence=drift.divergence, rtol=rtol, atol=rtol
            )
            found.append(flow.l2_errors(lambda t, x: line.density(t, x[:, 0]))[-1] / size)
        return np.array(found)

    fine, error = measured(noisy, grid)
    still = noiseless(2 * cells, 1e-6)
    still_error = np.abs(still - noiseless(cells, 1e-5))
    rows = []
    for name, e, de in (
        (f"sigma = {sigma:g}", fine[:, 0], error[:, 0]),
        ("sigma = 0", still, still_error),
    ):
        rows += [
            Row(f"relative L2 error at T, {name}, M = {m:g}", e[i], discretization_error=de[i])
            for i, m in enumerate(limits)
        ]
        rows += [
            Row(
                f"relative L2 error at T, {name}, largest M",
                e[-1],
                bound=0.02,
                discretization_error=de[-1],
            ),
            Row(
                f"power of 1/M in the error, {name}",
                math.log(e[0] / e[-1]) / math.log(limits[-1] / limits[0]),
                at_least=0.8,
                discretization_error=float(de[0] / e[0] + de[-1] / e[-1])
                / math.log(limits[-1] / limits[0]),
            ),
        ]
    rows += [
        Row(
            f"mass left in the gap, sigma = {sigma:g}, M = {m:g}",
            fine[i, 1],
            discretization_error=error[i, 1],
        )
        for i, m in enumerate(limits)
    ]
    # No contrast: the same rate on both sides, and errors of one size.
    rows.append(
        Row(
            "error without noise over error with noise, largest M",
            still[-1] / fine[-1, 0],
            bound=3.0,
            at_least=1.0 / 3.0,
            discretization_error=float(still_error[-1] / fine[-1, 0]),
        )
    )
    lines = (
        Line(list(limits), fine[:, 0].tolist(), f"sigma = {sigma:g}"),
        Line(list(limits), still.tolist(), "sigma = 0"),
    )
    return Study(
        f"bounded fields to islands, gap {depth:g}, T = {t1:g}",
        "Fields of a bounded speed M come as near to disconnected islands in L2 as is wanted, "
        "with noise and, no contrast here, without.",
        "own",
        tuple(rows),
        (Panel("bounded fields", "M", "relative L2 error at T", lines, "log", "log"),),
    )


def experiments(quick: bool) -> list[Experiment]:
    """What ``fpcontrol verify`` runs; the quick ones take some seconds."""
    if quick:
        few = functools.partial(energies, depths=(1e-1, 1e-4, 1e-8), cells=800)
        fast = functools.partial(bounded_fields, limits=(1.0, 10.0), grid=Grid(100, 25), cells=30)
        return [Experiment("t2.gap.energy", few), Experiment("t2.gap.bounded", fast)]
    return [Experiment("t2.gap.energy", energies), Experiment("t2.gap.bounded", bounded_fields)]
