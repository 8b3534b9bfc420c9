r"""The field to a kink, bounded or smoothed: with noise its density comes as near as is wanted."""

import math

from mpi4py import MPI

import numpy as np

from fpcontrol.theorems.closed_forms.profiles import StraightLine, uniform
from fpcontrol.theorems.framework.checks import Line, Panel, Row, Study
from fpcontrol.theorems.framework.resolution import Grid, measured, slopes
from fpcontrol.theorems.runs.moser_runs import GOALS, Change, flow_on_interval, response
from fpcontrol.typing import Array


def smoothings(
    comm: MPI.Comm,
    *,
    sigma: float = 0.5,
    t1: float = 1.0,
    limits: tuple[float, ...] = (0.25, 0.5, 1.0),
    widths: tuple[float, ...] = (0.1, 0.05, 0.025, 0.0125),
    grid: Grid | None = None,
) -> Study:
    r"""The kink's field clipped to |v| <= M, or its score averaged over (x - d, x + d). Collective.

    Bounded and Lipschitz fields suffice. Averages of :math:`\nabla\log\rho_t` are differences of
    :math:`\log\rho_t` (continued evenly at the walls), which the average changes by order
    :math:`d^p` over a width d, p = 3/4: the error falls like :math:`d^{p + 1/2}`.

    Args:
        comm: Communicator.
        sigma: Noise.
        t1: Last time.
        limits: M, ascending.
        widths: d, descending.
        grid: Resolution.
    """
    grid = grid or Grid(200, 20)
    line, D = StraightLine(uniform(), GOALS["kink"], t1), 0.5 * sigma**2

    def clipped(m: float) -> Change:
        return lambda t, x, v: np.clip(v, -m, m)

    def averaged(d: float) -> Change:
        def change(t: float, x: Array, v: Array) -> Array:
            high, low = (np.log(line.density(t, _folded(x + s))) for s in (d, -d))
            return line.speed(t, x) + D * (high - low) / (2.0 * d)

        return change

    changes = {f"|v| <= {m:g}": clipped(m) for m in limits}
    changes |= {f"averaged over +-{d:g}": averaged(d) for d in widths}

    def run(grid: Grid) -> Array:
        flow = flow_on_interval(comm, line, sigma, grid)
        return np.array([response(flow, c, grid.steps) for c in changes.values()])

    fine, error = measured(run, grid)
    rows = []
    for name, (e, _, ratio), (de, _, dr) in zip(changes, fine, error, strict=True):
        rows.append(Row(f"sup_t L2 error, {name}", e, discretization_error=de))
        title = f"largest ratio of error to bound (E3), {name}"
        rows.append(Row(title, ratio, bound=1.0, discretization_error=dr))
    n = len(limits)
    for i in range(1, n):
        name = f"error at M = {limits[i]:g} over that at {limits[i - 1]:g}"
        value = fine[i, 0] / fine[i - 1, 0]
        off = value * float((error[[i - 1, i], 0] / fine[[i - 1, i], 0]).sum())
        rows.append(Row(name, value, bound=limits[i - 1] / limits[i], discretization_error=off))
    rate = slopes(np.array(widths), fine[n:, 0])[-1]
    off = float(np.abs(error[n:, 0] / fine[n:, 0])[-2:].sum()) / math.log(widths[-2] / widths[-1])
    name = "slope of the error in the width of averages, last two"
    rows.append(Row(name, float(rate), predicted=1.25, discretization_error=off, tolerance=0.05))
    lines = (
        Line(list(widths), fine[n:, 0].tolist(), "error, averaged score", "o"),
        Line(list(widths), fine[n:, 1].tolist(), "bound (E3), averaged score", "s--"),
        Line(list(limits), fine[:n, 0].tolist(), "error, clipped at M"),
    )
    return Study(
        f"bounded and smoothed fields to the kink, sigma = {sigma:g}, T = {t1:g}",
        "The kink's field is unbounded; bounded ones and ones with an averaged score come as near "
        "to the line as is wanted.",
        "own",
        tuple(rows),
        (Panel("bounded or averaged fields", "M or d", "sup_t L2 error", lines, "log", "log"),),
    )


def _folded(x: Array) -> Array:
    """Points beyond the walls of (0, 1) mirrored back."""
    return 1.0 - np.abs(1.0 - np.abs(x))
