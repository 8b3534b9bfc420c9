"""Figures that need no pyplot: made and checked on rank 0, written atomically."""

import io
import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fpcontrol.parallel.errors import collective_errors
from fpcontrol.parallel.files import output_path, replacing

# Okabe and Ito's colours and viridis can be told apart with any colour vision; vermilion is far
# from all of viridis.
BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
DPI = 150


class Picture(Figure):
    """A figure that a notebook shows, as it shows those of pyplot."""

    def _repr_png_(self) -> bytes:
        content = io.BytesIO()
        self.savefig(content, format="png")
        return content.getvalue()


def new_picture(width: float, height: float) -> Picture:
    """An empty figure of a size in inches."""
    figure = Picture(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)  # connects itself to the figure
    return figure


def drawn(
    draw: Callable[[], Figure], path: str | os.PathLike[str] | None, comm: MPI.Comm
) -> Figure | None:
    """Draw on rank 0, write to a path if one is given. Collective.

    Args:
        draw: Called on rank 0 only.
        path: From ``picture_path``, or ``None``.
        comm: Communicator of what is drawn.

    Returns:
        The figure on rank 0, ``None`` on the others.

    Raises:
        Exception: On all ranks, what ``draw`` raises.
        OSError: On all ranks, if the file cannot be written.
    """
    figure = None
    with collective_errors(comm):
        if comm.rank == 0:
            figure = draw()
    if path is not None:
        with replacing(Path(path), comm) as beside:
            if figure is not None:
                figure.savefig(beside, dpi=DPI)
    return figure


def picture_path(
    path: str | os.PathLike[str] | None, comm: MPI.Comm, formats: Collection[str] | None = None
) -> Path | None:
    """Where a picture goes, in a format that is known: by matplotlib unless given. Collective.

    Raises:
        ValueError: On all ranks, for an unknown format.
        OSError: On all ranks, if the folder cannot be written to.
    """
    if path is None:
        return None
    formats = FigureCanvasBase.get_supported_filetypes() if formats is None else formats
    if Path(path).suffix.removeprefix(".").lower() not in formats:
        raise ValueError(
            f"path = {str(path)!r} must end in a picture format: {', '.join(sorted(formats))}."
        )
    return output_path(path, comm)


def checked_axes(
    given: Axes | Sequence[Axes] | np.ndarray | None, count: int, name: str, comm: MPI.Comm
) -> list[Axes] | None:
    """The axes that a caller has handed over, flat; ``None`` without. Collective.

    Args:
        given: Axes, or an array of them in rows; only rank 0's count.
        count: How many panels there are.
        name: Of the argument.
        comm: Communicator of what is drawn.

    Raises:
        ValueError: On all ranks, if rank 0's are others than ``count`` axes.
    """
    axes: list[Axes] | None = None
    with collective_errors(comm):
        if comm.rank == 0 and given is not None:
            axes = list(np.ravel(np.asarray(given, dtype=object)))
            if len(axes) != count or not all(isinstance(ax, Axes) for ax in axes):
                kinds = sorted({type(ax).__name__ for ax in axes})
                raise ValueError(
                    f"{name} holds {len(axes)} object(s) of type {', '.join(kinds) or 'none'}; "
                    f"{count} matplotlib Axes are needed here, in rows from the left."
                )
    return axes


def figure_of(ax: Axes) -> Figure:
    """The figure that holds axes, also those of a subfigure."""
    figure = ax.get_figure(root=True)
    assert isinstance(figure, Figure)
    return figure


def check_number(name: str, value: Any, least: float, *, whole: bool = False) -> None:
    """Refuse what is no number of at least ``least``, or above zero."""
    kinds = (int, np.integer) if whole else (int, float, np.number)
    good = isinstance(value, kinds) and not isinstance(value, bool)
    if not (good and np.isfinite(value) and (value > 0.0 and value >= least)):
        kind = "an integer" if whole else "a number"
        bound = f"{least:g} or more" if least else "above zero"
        raise ValueError(f"{name} = {value!r} must be {kind}, {bound}.")
