"""Observables over time, a panel each."""

import os
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fpcontrol.parallel.communicators import comm_of
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
from fpcontrol.trajectory import Trajectory
from fpcontrol.typing import Array

STYLES = ("-", "--", ":", "-.")
COLOURS = (BLUE, ORANGE, GREEN, VERMILION)
# Panels beside each other.
WIDE = 3


def observables(
    trajectory: Trajectory,
    path: str | os.PathLike[str] | None = None,
    *,
    names: Sequence[str] | None = None,
    axes: Sequence[Axes] | np.ndarray | None = None,
    title: str = "",
) -> Figure | None:
    """Draw the observables of a run over time, a panel each. Collective.

    Components of an array are lines of their own, named by their indices.

    Args:
        trajectory: From ``solve(observables=...)``.
        path: Picture file to write; its suffix is matplotlib's format.
        names: Which of them, in this order; all unless given.
        axes: Axes to draw into (rank 0's count), one for each.
        title: Above the picture, unless ``axes`` are given.

    Returns:
        The figure on rank 0, ``None`` on the others.

    Raises:
        ValueError: On all ranks, for a name that was not observed, an unknown format, or another
            number of axes.
        OSError: On all ranks, if the file cannot be written.
    """
    comm, known = comm_of(trajectory.space.mesh), trajectory.observables
    asked = list(known if names is None else names)
    unknown = [name for name in asked if name not in known]
    if unknown or not asked:
        raise ValueError(
            f"names = {names!r}: observed were {', '.join(map(repr, known)) or 'none'}; give "
            "solve(observables={...}) what is to be drawn."
        )
    target = picture_path(path, comm)
    given = checked_axes(axes, len(asked), "axes", comm)

    def draw() -> Figure:
        into = given or _panels(len(asked), title)
        for ax, name in zip(into, asked, strict=True):
            _draw(ax, trajectory.all_times, name, known[name])
        return figure_of(into[0])

    return drawn(draw, target, comm)


def _panels(count: int, title: str) -> list[Axes]:
    columns = min(count, WIDE)
    rows = -(-count // columns)
    figure = new_picture(3.6 * columns + 0.6, 2.7 * rows + 0.3 * bool(title))
    if title:
        figure.suptitle(title)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in panels[count:]:
        ax.remove()
    return list(panels[:count])


def _draw(ax: Axes, times: Array, name: str, values: Array) -> None:
    shape = values.shape[1:]
    for k, index in enumerate(np.ndindex(shape)):
        label = ", ".join(map(str, index)) or None
        style = STYLES[(k + k // 4) % 4]  # 16 that differ in colour or style
        line = values[(slice(None), *index)]
        ax.plot(times, line, color=COLOURS[k % 4], linestyle=style, label=label)
    ax.set(xlabel="time", ylabel=name)
    if shape:
        ax.legend()
