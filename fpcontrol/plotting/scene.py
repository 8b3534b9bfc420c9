"""What a film shows: densities, the reference beside, arrows of the drift, particles on top."""

from collections.abc import Callable
from dataclasses import dataclass, field

from mpi4py import MPI

import numpy as np
from dolfinx.mesh import Mesh
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import PowerNorm

from fpcontrol.discretization.locate import OwnCells
from fpcontrol.drift.base import Drift
from fpcontrol.parallel.errors import collective_errors, reduced
from fpcontrol.plotting.canvas import Canvas, Sample, density_colors
from fpcontrol.plotting.picture import BLUE, ORANGE, VERMILION, Picture, new_picture
from fpcontrol.typing import Array

ARROWS = 22  # along the longest side
STREAMS = 60  # points of the grid through which streamlines are followed, along that side
USUAL = 0.98  # share of the speeds whose arrows are shorter than their distance
FLAT = 0.5  # height over width below which maps are above each other
STRIP = 0.07  # of the largest density: half the height of particles below a line


@dataclass
class Arrows:
    """A drift where arrows begin, on rank 0, at all frames. Collective.

    Args:
        drift: The drift.
        canvas: Where it is drawn.
        mesh: The mesh.
        times: Of the frames.
        streamlines: To be followed through a grid, in place of arrows: 2-D and slices of 3-D.

    Attributes:
        points: Where arrows begin, ``(N, plane)``.
        values: Components in the plane, ``(frames, N, plane)``.
        spacing: Distance of the points.

    Raises:
        Exception: On all ranks, what the drift raises.
        ValueError: On all ranks, if it is not of shape ``(N, d)`` or not finite.
    """

    def __init__(
        self,
        drift: Drift,
        canvas: Canvas,
        mesh: Mesh,
        times: Array,
        streamlines: bool = False,
    ) -> None:
        low, high = canvas.extent
        if streamlines and len(low) == 1:
            raise ValueError("streamlines = True: a line has none; leave it out for arrows.")
        self.spacing = float((high - low).max()) / (STREAMS if streamlines else ARROWS)
        counts = np.maximum(((high - low) / self.spacing).astype(int), 1)
        axes = [
            a + (b - a) * (np.arange(n) + 0.5) / n
            for a, b, n in zip(low, high, counts, strict=True)
        ]
        self._grid = axes if streamlines else None
        plane = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, len(axes))
        points = np.full((len(plane), canvas.dimension), canvas.slice_at or 0.0)
        points[:, canvas.plane] = plane
        with collective_errors(canvas.comm):  # every rank asks in its own cells
            mine = np.flatnonzero(OwnCells(mesh).holding(points) >= 0)
            x = points[mine]
            found = [np.asarray(drift(float(t), x), dtype=float) for t in times] if len(x) else []
            bad = [v for v in found if v.shape != x.shape or not np.isfinite(v).all()]
            if bad:
                raise ValueError(
                    f"drift: values of shape {bad[0].shape} at points of shape {x.shape}; finite "
                    "values of the shape of the points are needed."
                )
        parts = canvas.comm.gather((mine, np.array(found).reshape(len(times), *x.shape)))
        if parts is not None:
            held = np.concatenate([part[0] for part in parts])
            rows, first = np.unique(held, return_index=True)  # a point on a facet is held twice
            values = np.concatenate([part[1] for part in parts], axis=1)[:, first]
            self.points, self.values, self._rows = plane[rows], values[:, :, canvas.plane], rows

    def _streamlines(self, ax: Axes, k: int) -> None:
        """Lines along the drift of frame ``k``, wider where it is faster; none outside."""
        assert self._grid is not None
        shape = tuple(len(axis) for axis in reversed(self._grid))
        fields = np.full((2, *shape), np.nan)
        fields.reshape(2, -1)[:, self._rows] = self.values[k].T
        u, v = fields
        speed = np.nan_to_num(np.hypot(u, v))
        fastest = float(np.linalg.norm(self.values, axis=2).max()) or 1.0
        x, y = self._grid
        ax.streamplot(
            x,
            y,
            u,
            v,
            density=1.2,
            color="white",
            linewidth=0.3 + 1.5 * np.sqrt(speed / fastest),
            arrowsize=0.7,
            zorder=3,
        )

    def draw(self, ax: Axes, k: int, height: float) -> None:
        """Arrows of frame ``k``, on a line at a height in 1-D."""
        if self._grid is not None:
            self._streamlines(ax, k)
            return
        fast = float(np.quantile(np.linalg.norm(self.values, axis=2), USUAL)) or 1.0
        x, v = self.points, self.values[k]
        if x.shape[1] == 1:
            x, v = (np.column_stack([c, np.full_like(c, f)]) for c, f in ((x, height), (v, 0.0)))
        ax.quiver(
            *x.T,
            *v.T,
            angles="xy" if x.shape[1] == self.points.shape[1] else "uv",
            scale_units="x",
            scale=fast / self.spacing,
            units="width",
            width=0.0022,
            color="white" if self.points.shape[1] == 2 else "0.4",
            pivot="mid",
            zorder=3,
        )


@dataclass
class Scene:
    """A figure of panels, whose frames are drawn one after another. On rank 0.

    Args:
        canvases: Of each panel; in 1-D the two of one.
        names: Of each panel.
        top: End of the scale.
        largest: Largest density of all frames.
        below: Whether a density is negative somewhere.
        clock: Words of a time.
        title: Above.
        arrows: Of the drift.
        dots: Whether there are particles.
    """

    canvases: list[Canvas]
    names: list[str]
    top: float
    largest: float
    below: bool
    clock: Callable[[float], str]
    title: str = ""
    arrows: Arrows | None = None
    dots: bool = False
    figure: Picture = field(init=False)

    def __post_init__(self) -> None:
        self._line = self.canvases[0].dimension == 1
        self._norm = PowerNorm(0.5, vmin=0.0, vmax=self.top)
        cut = self.largest > self.top * (1.0 + 1e-9)
        label = f"{self.canvases[0].density_label}, largest {self.largest:.2g}" if cut else None
        if self._line:
            self.figure = new_picture(8.0, 4.5)
            self._axes = [self.figure.add_subplot()] * len(self.canvases)
            self._axes[0].set_ylabel(label or self.canvases[0].density_label)
        else:
            self._panels(label)
        for k, (canvas, ax) in enumerate(zip(self.canvases, self._axes, strict=True)):
            canvas.label(ax, name_y=k == 0 or self._rows > 1 or self._line)
        self._clock = self.figure.suptitle(self._words(0.0))

    def draw(self, k: int, t: float, samples: list[Sample], dots: Array) -> None:
        """Frame ``k`` at time ``t``; ``dots`` are particles, ``(N, d)``."""
        for ax in self._axes:
            for artist in [*ax.collections, *ax.images, *ax.lines, *ax.patches, *ax.texts]:
                artist.remove()
        self._clock.set_text(self._words(t))
        parts = zip(self.canvases, self._axes, self.names, samples, strict=True)
        for i, (canvas, ax, name, sample) in enumerate(parts):
            words = [name, canvas.slice_name]
            if self._line:
                style = {"color": ORANGE} if i == 0 else {"color": BLUE, "linestyle": "--"}
                canvas.line(ax, sample, label=name, **style)
            else:
                canvas.map(ax, sample, self._norm)
                blank = " " if self.below else ""  # a line for what follows
                ax.set_title("\n".join(filter(None, [*words, blank])))
            if sample.is_negative:
                ax.text(
                    0.02 if self._line else 0.5,
                    0.98 - 0.04 * i if self._line else 1.01,
                    sample.note(", ")
                    if i == 0 or not self._line
                    else f"{name}: {sample.note(', ')}",
                    transform=ax.transAxes,
                    color=VERMILION,
                    fontsize="small",
                    ha="left" if self._line else "center",
                    va="top" if self._line else "bottom",
                )
        self._on_top(k, dots)
        if k == 0:  # the layout stays what it is now
            if self._line:
                self._limit()
            for _ in range(2):  # by what the first has found, the second fits
                self.figure.canvas.draw()
            self.figure.set_layout_engine("none")

    def _on_top(self, k: int, dots: Array) -> None:
        canvas, ax = self.canvases[0], self._axes[0]
        if self.arrows is not None:
            self.arrows.draw(ax, k, 1.06 * self.top)
        if not len(dots):
            return
        if self._line:  # side by side below the line, at heights that stay
            height = np.modf(0.5 + 0.618034 * np.arange(len(dots)))[0]
            y = self.top * STRIP * (2.0 * height - 2.4)
            ax.scatter(dots[:, 0], y, s=3, color="0.25", linewidths=0.0, zorder=4)
            return
        if canvas.slice_at is not None:
            near = np.abs(dots[:, 2] - canvas.slice_at) < 0.5 * self.slab
            dots = dots[near]
        size = float(np.clip(8000 / max(len(dots), 1), 2.5, 8.0))
        x, y = dots[:, 0], dots[:, 1]
        ax.scatter(x, y, s=size, c="white", edgecolors="black", linewidths=0.2, zorder=4)

    @property
    def slab(self) -> float:
        """Thickness of what particles are drawn in beside a slice."""
        return 0.1 * float((self.canvases[0].extent[1] - self.canvases[0].extent[0]).max())

    def _words(self, t: float) -> str:
        return "\n".join(filter(None, [self.title, self.clock(t)]))

    def _limit(self) -> None:
        low, high = self.canvases[0].extent
        below = -2.6 * STRIP if self.dots else -0.02
        self._axes[0].set_xlim(low[0], high[0])
        self._axes[0].set_ylim(below * self.top, 1.12 * self.top)
        if self.dots:
            self._axes[0].set_yticks([y for y in self._axes[0].get_yticks() if y >= 0.0])
        if len(self.canvases) > 1:
            self._axes[0].legend(
                loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, frameon=False
            )

    @property
    def _rows(self) -> int:
        flat = self.canvases[0].aspect < FLAT
        return len(self.canvases) if flat and not self._line else 1

    def _panels(self, label: str | None) -> None:
        n, aspect, rows = len(self.canvases), self.canvases[0].aspect, self._rows
        width = min(5.6 if n == 1 or rows > 1 else 4.6, 4.6 / aspect)
        columns = n // rows
        words = 0.85 + 0.25 * self.below + 0.25 * (self.canvases[0].slice_at is not None)
        above = 0.4 + 0.25 * bool(self.title)
        size = columns * (width + 0.5) + 1.6, rows * (width * aspect + words) + above
        self.figure = new_picture(*size)
        self._axes = list(self.figure.subplots(rows, columns, squeeze=False).ravel())
        scale = ScalarMappable(self._norm, density_colors())
        self.canvases[0].colorbar(
            scale, self._axes, below=self.below, above=label is not None, shrink=0.9
        )
        if label is not None:
            self.figure.axes[-1].set_ylabel(label)


def highest(comm: MPI.Comm, levels: Array) -> Array:
    """Largest degree of freedom of each level, ``(n,)``. Collective."""
    return reduced(comm, levels.max(axis=1, initial=-np.inf), MPI.MAX)


def every(comm: MPI.Comm, mine: int, most: int) -> slice:
    """Rows of this rank, of all ranks' every n-th, so that they are not many more than ``most``.

    Collective.
    """
    counts = comm.allgather(mine)
    stride = max(1, -(-sum(counts) // most))
    return slice(-sum(counts[: comm.rank]) % stride, None, stride)
