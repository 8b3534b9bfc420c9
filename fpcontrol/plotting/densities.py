"""One density: a line in 1-D, a map in 2-D, a slice in 3-D."""

import os

import numpy as np
from dolfinx import fem
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from fpcontrol.parallel.communicators import comm_of
from fpcontrol.plotting.canvas import Canvas, Sample
from fpcontrol.plotting.picture import (
    BLUE,
    VERMILION,
    checked_axes,
    drawn,
    figure_of,
    new_picture,
    picture_path,
)


def density(
    rho: fem.Function,
    path: str | os.PathLike[str] | None = None,
    *,
    ax: Axes | None = None,
    title: str = "",
    unit: str = "",
    at: float | None = None,
) -> Figure | None:
    """Draw one density: a line in 1-D, colours in 2-D, colours on a slice in 3-D. Collective.

    Negative values have a colour of their own, and the picture says on what share of the domain
    they are and how low they go.

    Args:
        rho: The density, such as ``trajectory[-1]``.
        path: Picture file to write; its suffix is matplotlib's format.
        ax: Axes to draw into (rank 0's count); a scale of colours takes some of their room.
        title: Above the picture.
        unit: Unit of length of the mesh, such as ``"km"``, for the labels.
        at: Third coordinate of the slice through a 3-D domain; its middle unless given.

    Returns:
        The figure on rank 0, ``None`` on the others.

    Raises:
        ValueError: On all ranks, for an unknown format, for what is no density or no Axes, or if
            ``at`` is outside the domain.
        OSError: On all ranks, if the file cannot be written.
    """
    if not isinstance(rho, fem.Function):
        raise ValueError(
            f"rho, a {type(rho).__name__}, is no density; give a dolfinx Function, such as "
            "trajectory[-1]."
        )
    comm = comm_of(rho.function_space.mesh)
    target = picture_path(path, comm)
    axes = checked_axes(ax, 1, "ax", comm)
    canvas = Canvas(rho.function_space, unit, at)
    sample = canvas.sample(rho.x.array)

    def draw() -> Figure:
        assert sample is not None
        into = axes[0] if axes else new_picture(*_size(canvas)).add_subplot()
        _draw(canvas, into, sample, title)
        return figure_of(into)

    return drawn(draw, target, comm)


def _size(canvas: Canvas) -> tuple[float, float]:
    if canvas.dimension == 1:
        return 5.0, 3.6
    width = min(4.5, 6.0 / canvas.aspect)
    return width + 1.5, width * canvas.aspect + 1.2


def _draw(canvas: Canvas, ax: Axes, sample: Sample, title: str) -> None:
    if canvas.dimension == 1:
        canvas.line(ax, sample, color=BLUE)
        ax.set_ylabel(canvas.density_label)
    else:
        low, high = np.nanmin(sample.values), np.nanmax(sample.values)
        image = canvas.map(ax, sample, Normalize(vmin=max(low, 0.0), vmax=max(high, 0.0)))
        canvas.colorbar(image, [ax], [sample], shrink=0.9)
    canvas.label(ax)
    lines = [title, canvas.slice_name, " " if sample.is_negative else ""]
    ax.set_title("\n".join(filter(None, lines)))
    if sample.is_negative:  # below the title, on the line left free for it
        ax.text(
            0.5,
            1.01,
            sample.note(" of the domain, "),
            transform=ax.transAxes,
            ha="center",
            va="bottom",
            color=VERMILION,
            fontsize="small",
        )
