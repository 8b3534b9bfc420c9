r"""The field to a kink, bounded or smoothed: with noise its density comes as near as is wanted."""

from collections.abc import Callable

from mpi4py import MPI

import numpy as np

from fpcontrol import MoserFlow
from fpcontrol.drift import Mapped
from fpcontrol.theorems.closed_forms.profiles import GOALS, StraightLine
from fpcontrol.theorems.framework import Grid, Line, Study, measure
from fpcontrol.theorems.runs.moser_runs import flow_on_interval, response
from fpcontrol.typing import Array, VectorField

type Change = Callable[[MoserFlow], VectorField]


def clipped(limit: float) -> Change:
    """The flow's field, cut off at a speed."""
    return lambda flow: Mapped(flow.drift, lambda t, x, v: np.clip(v, -limit, limit))


def averaged(line: StraightLine, D: float, d: float) -> Change:
    """The line's field with a score that is averaged over (x - d, x + d)."""

    def drift(t: float, x: Array) -> Array:
        high, low = (np.log(line.at(t).value(_folded(x + s))) for s in (d, -d))
        return line.speed(t, x) + D * (high - low) / (2.0 * d)

    return lambda flow: drift


def _folded(x: Array) -> Array:
    """Points beyond the walls of (0, 1) mirrored back."""
    return 1.0 - np.abs(1.0 - np.abs(x))


def smoothings(
    comm: MPI.Comm,
    *,
    sigma: float = 0.5,
    t1: float = 1.0,
    limits: tuple[float, ...] = (0.25, 0.5, 1.0),
    widths: tuple[float, ...] = (0.1, 0.05, 0.025, 0.0125),
    grid: Grid | None = None,
) -> Study:
    r"""The kink's field clipped to abs(v) <= M, or its score averaged over (x - d, x + d).

    Bounded and Lipschitz fields suffice. Averages of :math:`\nabla\log\rho_t` are differences of
    :math:`\log\rho_t` (continued evenly at the walls), which the average changes by order
    :math:`d^p` over a width d, p = 3/4: the error falls like :math:`d^{p + 1/2}`.

    Args:
        widths: d, descending.
    """
    study = Study(
        f"bounded and smoothed fields to the kink, sigma = {sigma:g}, T = {t1:g}",
        "The kink's field is unbounded; bounded ones and ones with an averaged score come as near "
        "to the line as is wanted.",
    )
    line, D, n = StraightLine.to(GOALS["kink"], t1), 0.5 * sigma**2, len(limits)
    changes: dict[str, Change] = {f"|v| <= {m:g}": clipped(m) for m in limits}
    changes |= {f"averaged over +-{d:g}": averaged(line, D, d) for d in widths}

    def run(at: Grid) -> Array:
        flow = flow_on_interval(comm, line, sigma, at)
        return np.array([response(flow, change(flow), at.steps) for change in changes.values()])

    error, bound, ratio = measure(run, grid or Grid(200, 20)).T
    study.report("sup_t L2 error, {}", error, over=changes)
    study.below("largest ratio of error to bound (E3), {}", ratio, 1.0, over=changes)
    for i in range(1, n):
        name = f"error at M = {limits[i]:g} over that at {limits[i - 1]:g}"
        study.below(name, error[i] / error[i - 1], limits[i - 1] / limits[i])
    rate = error[n:].slopes(widths)[-1]
    study.equals("slope of the error in the width of averages, last two", rate, 1.25, 0.05)
    study.picture(
        "bounded or averaged fields",
        "M or d",
        "sup_t L2 error",
        Line(widths, error[n:], "error, averaged score", "o"),
        Line(widths, bound[n:], "bound (E3), averaged score", "s--"),
        Line(limits, error[:n], "error, clipped at M"),
        log="xy",
    )
    return study
