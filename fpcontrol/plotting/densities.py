"""One density: a line in 1-D, a map in 2-D, slices in 3-D."""

import os
from collections.abc import Sequence

import numpy as np
from dolfinx import fem
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from fpcontrol.discretization.elements import Elements
from fpcontrol.discretization.periodic import dof_places
from fpcontrol.parallel.communicators import comm_of
from fpcontrol.plotting.canvas import Canvas, Sample, bounds
from fpcontrol.plotting.picture import (
    BLUE,
    VERMILION,
    checked_axes,
    drawn,
    figure_of,
    new_picture,
    picture_path,
)
from fpcontrol.typing import Array

# Degrees of freedom this near to the largest are as large: of them the one in the middle is taken.
EQUAL = 1e-9


def density(
    rho: fem.Function,
    path: str | os.PathLike[str] | None = None,
    *,
    ax: Axes | Sequence[Axes] | np.ndarray | None = None,
    title: str = "",
    unit: str = "",
    at: float | Sequence[float] | Array | None = None,
) -> Figure | None:
    """Draw one density: a line in 1-D, colours in 2-D, colours on slices in 3-D. Collective.

    Negative values have a colour of their own, and the picture says on what share of the domain
    they are and how low they go. Surfaces in 3-D: ``isosurfaces``.

    Args:
        rho: The density, such as ``trajectory[-1]``.
        path: Picture file to write; its suffix is matplotlib's format.
        ax: Axes to draw into (rank 0's count), as many as there are slices; a scale of colours
            takes some of their room.
        title: Above the picture.
        unit: Unit of length of the mesh, such as ``"km"``, for the labels.
        at: Of a 3-D domain the point ``(3,)`` that the three slices across its coordinates go
            through, that of the largest density unless given; or the third coordinate of a single
            slice.

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
    canvases = _canvases(rho, unit, at)
    axes = checked_axes(ax, len(canvases), "ax", comm)
    samples = [canvas.sample(rho.x.array) for canvas in canvases]

    def draw() -> Figure:
        known = [sample for sample in samples if sample]
        into = axes or _panels(canvases)
        if canvases[0].dimension == 1:
            canvases[0].line(into[0], known[0], color=BLUE)
            into[0].set_ylabel(canvases[0].density_label)
        else:
            _maps(canvases, into, known)
        for canvas, one in zip(canvases, into, strict=True):
            canvas.label(one)
        _titles(canvases, into, known[0], title)
        return figure_of(into[0])

    return drawn(draw, target, comm)


def _canvases(
    rho: fem.Function, unit: str, at: float | Sequence[float] | Array | None
) -> list[Canvas]:
    """One for each slice. Collective."""
    space = rho.function_space
    if space.mesh.topology.dim < 3 or (at is not None and np.ndim(at) == 0):
        return [Canvas(space, unit, at)]  # type: ignore[arg-type]
    if at is None:
        point = _highest(rho)
    else:
        point = np.asarray(at, dtype=float)
        if point.shape != (3,):
            raise ValueError(
                f"at = {at!r} must be a point, three numbers, or the third coordinate of one slice."
            )
        low, high = bounds(Elements(space))
        if ((point < low) | (point > high)).any():
            raise ValueError(f"at = {at!r} must be from {low} to {high}.")
    return [Canvas(space, unit, float(point[k]), k) for k in (2, 1, 0)]


def _highest(rho: fem.Function) -> Array:
    """Where a density is largest; of several such nodes that in the middle. Collective."""
    g = Elements(rho.function_space)
    u, x = rho.x.array[: g.n_owned], dof_places(g.space)[: g.n_owned]
    low, high = bounds(g)
    top = max(g.comm.allgather(float(u.max(initial=-np.inf))))
    best = x[u >= top - EQUAL * abs(top)]
    off = ((best - 0.5 * (low + high)) ** 2).sum(axis=1)
    mine = (off.min(), *best[off.argmin()]) if len(best) else (np.inf,)
    return np.array(min(g.comm.allgather(mine))[1:])


def _panels(canvases: list[Canvas]) -> list[Axes]:
    first = canvases[0]
    if first.dimension == 1:
        return [new_picture(5.0, 3.6).add_subplot()]
    widths = [min(4.5 if len(canvases) == 1 else 3.2, 6.0 / c.aspect) for c in canvases]
    height = max(w * c.aspect for w, c in zip(widths, canvases, strict=True))
    room = 0.7 * (len(canvases) - 1)
    figure = new_picture(sum(widths) + 1.5 + room, height + 1.2)
    return list(figure.subplots(1, len(canvases), squeeze=False, width_ratios=widths).ravel())


def _maps(canvases: list[Canvas], axes: list[Axes], samples: list[Sample]) -> None:
    every = np.concatenate([sample.values.ravel() for sample in samples])
    low, high = np.nanmin(every), np.nanmax(every)
    norm = Normalize(vmin=max(low, 0.0), vmax=max(high, 0.0))
    for canvas, ax, sample in zip(canvases, axes, samples, strict=True):
        image = canvas.map(ax, sample, norm)
    canvases[0].colorbar(image, axes, below=samples[0].is_negative, shrink=0.9)


def _titles(canvases: list[Canvas], axes: list[Axes], sample: Sample, title: str) -> None:
    """Names of slices, and what is negative: below the title, on the line left free for it."""
    blank = " " if sample.is_negative else ""
    for k, (canvas, ax) in enumerate(zip(canvases, axes, strict=True)):
        words = title if k == len(axes) // 2 else " " if title and len(axes) > 1 else ""
        ax.set_title("\n".join(filter(None, [words, canvas.slice_name, blank])))
    if sample.is_negative:
        middle = axes[len(axes) // 2]
        middle.text(
            0.5,
            1.01,
            sample.note(" of the domain, "),
            transform=middle.transAxes,
            ha="center",
            va="bottom",
            color=VERMILION,
            fontsize="small",
        )
