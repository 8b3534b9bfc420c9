"""What control has reached: densities beside the reference, errors over time, convergence."""

import os
from collections.abc import Sequence

from mpi4py import MPI

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fpcontrol.characteristics.flow import Flow
from fpcontrol.control.result import Result
from fpcontrol.plotting.canvas import Canvas, Sample
from fpcontrol.plotting.picture import (
    BLUE,
    GREEN,
    ORANGE,
    VERMILION,
    checked_axes,
    drawn,
    figure_of,
    new_picture,
    picture_path,
)
from fpcontrol.reference import MoserFlow
from fpcontrol.typing import Array

ROWS = ("reference", "controlled")


def tracking(
    result: Result,
    path: str | os.PathLike[str] | None = None,
    *,
    times: int = 5,
    axes: Sequence[Axes] | np.ndarray | None = None,
    title: str = "",
    unit: str = "",
    at: float | None = None,
) -> Figure | None:
    """Draw a tracking result: reference above controlled density, errors, convergence. Collective.

    Negative values have a colour of their own, and the picture says on what share of the domain
    they are and how low they go. Colours are on a square-root scale, which shows low densities
    beside peaks.

    Args:
        result: From ``minimize``.
        path: Picture file to write; its suffix is matplotlib's format.
        times: Number of times at which densities are drawn, first and last among them.
        axes: Axes to draw into (rank 0's count), in rows: ``times`` for the references, as many for
            the controlled densities (in 1-D the two share theirs), then those of
            ``error_over_time`` and ``convergence``.
        title: Above the picture, unless ``axes`` are given.
        unit: Unit of length of the mesh, such as ``"km"``, for the labels.
        at: Third coordinate of the slice through a 3-D domain; its middle unless given.

    Returns:
        The figure on rank 0, ``None`` on the others.

    Raises:
        OSError: On all ranks, if the file cannot be written.
        ValueError: On all ranks, if the reference lives on no mesh, for an unknown format, for
            ``times`` below 2, for another number of axes, or if ``at`` is outside the domain.
    """
    if not isinstance(times, int | np.integer) or times < 2:
        raise ValueError(
            f"times = {times!r} must be an integer, 2 or more: the first and the last."
        )
    problem, trajectory = result.problem, result.run()
    if not isinstance(problem.reference, MoserFlow):
        raise ValueError("tracking draws problems whose reference lives on a mesh (MoserFlow).")
    g = problem.elements
    target = picture_path(path, g.comm)
    rows = 1 if g.dimension == 1 else 2
    panels = checked_axes(axes, rows * times + 2, "axes", g.comm)
    canvas = Canvas(g.space, unit, at)
    curves = _error_curves(result)
    levels = np.linspace(0, problem.steps, times).round().astype(int)
    if isinstance(trajectory, Flow):
        controlled = trajectory.on_mesh(g.space, levels).levels
    else:
        controlled = trajectory.levels[levels]
    references = [problem.reference.coefficients(problem.times[n]) for n in levels]
    samples = [[canvas.sample(u) for u in row] for row in (references, controlled)]

    def draw() -> Figure:
        known = [[sample for sample in row if sample] for row in samples]
        notes = any(sample.is_negative for row in known for sample in row)
        into = panels or _panels(canvas, times, title, notes)
        of_densities, (left, right) = into[:-2], into[-2:]
        draw_densities = _lines if g.dimension == 1 else _maps
        draw_densities(canvas, of_densities, known, problem.times[levels])
        _draw_error(left, problem.times, curves)
        _draw_convergence(right, result)
        return figure_of(left)

    return drawn(draw, target, g.comm)


def error_over_time(
    result: Result, path: str | os.PathLike[str] | None = None, *, ax: Axes | None = None
) -> Figure | None:
    r"""Draw :math:`\|\rho-\rho^{ref}\| / \|\rho^{ref}\|` over time, with and without control.

    Collective. Arguments, result and errors are those of ``density``.
    """
    comm = result.problem.elements.comm
    target = picture_path(path, comm)
    axes = checked_axes(ax, 1, "ax", comm)
    curves = _error_curves(result)

    def draw() -> Figure:
        into = axes[0] if axes else new_picture(5.0, 3.6).add_subplot()
        _draw_error(into, result.problem.times, curves)
        return figure_of(into)

    return drawn(draw, target, comm)


def convergence(
    result: Result, path: str | os.PathLike[str] | None = None, *, ax: Axes | None = None
) -> Figure | None:
    """Draw relative error and norm of the gradient over the evaluations of the optimizer.

    Collective. Arguments, result and errors are those of ``density``.
    """
    comm: MPI.Comm = result.problem.elements.comm
    target = picture_path(path, comm)
    axes = checked_axes(ax, 1, "ax", comm)

    def draw() -> Figure:
        into = axes[0] if axes else new_picture(5.0, 3.6).add_subplot()
        _draw_convergence(into, result)
        return figure_of(into)

    return drawn(draw, target, comm)


def _error_curves(result: Result) -> tuple[Array, Array]:
    """Relative errors over time, without control and with it. Collective."""
    uncontrolled = result.problem.errors(np.zeros_like(result.weights)).over_time
    return uncontrolled, result.errors.over_time


def _panels(canvas: Canvas, times: int, title: str, notes: bool) -> list[Axes]:
    """Axes of a figure of its own: densities above, two panels below. Sizes are in inches."""
    if canvas.dimension == 1:
        rows, width, above = 1, 2.2, 3.2
    else:
        rows, width = 2, min(2.0, 3.6 / canvas.aspect)
        labels = 1.3 + 0.4 * notes
        above = 2.0 * width * canvas.aspect + labels
    whole = max(times * (width + 0.15) + (2.0 if rows == 2 else 0.6), 8.0)
    below = 2.6
    figure = new_picture(whole, above + below + 0.3 * bool(title))
    if title:
        figure.suptitle(title)
    parts = figure.subfigures(2, 1, height_ratios=[above, below], squeeze=False)
    upper, lower = parts.ravel()
    densities = upper.subplots(rows, times, sharey=rows == 1, squeeze=False)
    return [*densities.ravel(), *lower.subplots(1, 2)]


def _maps(canvas: Canvas, axes: list[Axes], samples: list[list[Sample]], times: Array) -> None:
    n = len(times)
    highest = max(float(np.nanmax(sample.values)) for sample in samples[0])
    norm = PowerNorm(0.5, vmin=0.0, vmax=highest if highest > 0.0 else 1.0)
    for i, row in enumerate(samples):
        name = "\n".join(filter(None, [ROWS[i], canvas.slice_name]))
        for j, sample in enumerate(row):
            ax = axes[i * n + j]
            image = canvas.map(ax, sample, norm)
            canvas.label(ax, row=name, name_x=i == 1, name_y=j == 0)
            time = f"t = {times[j]:.3g}\n" if i == 0 else ""
            ax.set_title(time.strip())
            if sample.is_negative:
                ax.set_title(time + sample.note("\n"), color=VERMILION, fontsize="small")
    every = [*samples[0], *samples[1]]
    below = any(sample.is_negative for sample in every)
    above = any(bool(np.nanmax(sample.values) > norm.vmax) for sample in every)
    canvas.colorbar(image, axes, below=below, above=above, shrink=0.8, aspect=40)


def _lines(canvas: Canvas, axes: list[Axes], samples: list[list[Sample]], times: Array) -> None:
    for j, (ax, t) in enumerate(zip(axes, times, strict=True)):
        canvas.line(ax, samples[0][j], color=BLUE, label=ROWS[0])
        canvas.line(ax, samples[1][j], color=ORANGE, linestyle="--", label=ROWS[1])
        canvas.label(ax, name_y=j == 0)
        ax.set_title(f"t = {t:.3g}")
        if samples[1][j].is_negative:
            ax.text(
                0.03,
                0.97,
                samples[1][j].note("\n"),
                transform=ax.transAxes,
                color=VERMILION,
                fontsize="small",
                va="top",
            )
    axes[0].set_ylabel(canvas.density_label)
    axes[0].legend()


def _draw_error(ax: Axes, times: Array, curves: tuple[Array, Array]) -> None:
    uncontrolled, controlled = curves
    ax.plot(times, uncontrolled, color=BLUE, linestyle="--", label="without control")
    ax.plot(times, controlled, color=ORANGE, label="controlled")
    ax.set(xlabel="time", ylabel="relative L2 error")
    ax.set_ylim(bottom=0.0)
    ax.legend()


def _draw_convergence(ax: Axes, result: Result) -> None:
    evaluations = [i.evaluations for i in result.history]
    first = result.history[0].gradient_norm or 1.0
    errors = [i.relative_error for i in result.history]
    gradients = [i.gradient_norm / first for i in result.history]
    ax.semilogy(evaluations, errors, color=ORANGE, label="relative error")
    ax.semilogy(evaluations, gradients, color=GREEN, linestyle=":", label="gradient norm / first")
    ax.set(xlabel="value and derivative evaluations")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend()
