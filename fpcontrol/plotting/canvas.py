"""Where functions of a finite-element space are drawn: lines, triangles, a slice in 3-D."""

from dataclasses import dataclass
from typing import Any

from mpi4py import MPI

import matplotlib
import numpy as np
from dolfinx import fem
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize, PowerNorm
from matplotlib.ticker import FixedLocator, MaxNLocator, ScalarFormatter
from matplotlib.tri import Triangulation

from fpcontrol.discretization.elements import Elements
from fpcontrol.discretization.locate import OwnCells
from fpcontrol.parallel.errors import collective_errors, reduced
from fpcontrol.plotting.picture import VERMILION
from fpcontrol.typing import Array

NAMES = "xyz"  # of coordinates
SLICE = 160  # points along each side of the slice through a 3-D domain
NEGATIVE = 1e-9  # of the largest value: what is nearer to zero is round-off, or the solver's error
TICKS = 4  # of a scale of colours, beside zero
STEPS = [1, 2, 5, 10]  # of ticks
MARGIN = 0.02  # of the domain's longest side, around a map


@dataclass(frozen=True)
class Sample:
    """Values of a function where it is drawn, on rank 0, and how far it falls below zero.

    Attributes:
        values: Values at the canvas's points; NaN where a slice is outside the domain.
        minimum: Smallest degree of freedom, of the whole domain.
        threshold: Values below it are negative, not round-off.
        share: Share of the domain's volume on which the function is below ``threshold``.
    """

    values: Array
    minimum: float
    threshold: float
    share: float

    @property
    def is_negative(self) -> bool:
        """Whether the function falls below zero."""
        return self.minimum < self.threshold

    def note(self, separator: str) -> str:
        """Share of the domain that is negative, and how deep; empty if nothing is."""
        if not self.is_negative:
            return ""
        share = "< 0.1 %" if self.share < 1e-3 else f"{100.0 * self.share:.2g} %"
        return f"negative on {share}{separator}minimum {self.minimum:.2g}".replace(
            "-", "\N{MINUS SIGN}"
        )


class Canvas:
    """Where functions of a space are drawn. Collective.

    Args:
        space: Lagrange space.
        unit: Of length, for the labels.
        at: Coordinate of the slice through a 3-D domain; its middle unless given.
        across: Number of that coordinate.

    Attributes:
        plane: Numbers of the coordinates that are drawn.
        extent: Their smallest and largest values.

    Raises:
        ValueError: On all ranks, if ``at`` is outside the domain, or the domain is not 3-D.
    """

    def __init__(
        self, space: fem.FunctionSpace, unit: str = "", at: float | None = None, across: int = 2
    ) -> None:
        self._g = g = Elements(space)
        self.dimension, self.comm, self.unit = g.dimension, g.comm, unit
        self.across, self.plane = across, [k for k in range(g.dimension) if k != across]
        low, high = bounds(g)
        self.extent = low[self.plane], high[self.plane]
        self.slice_at: float | None = None
        if at is not None and g.dimension != 3:
            raise ValueError(f"at = {at!r} names a slice, and this domain is {g.dimension}-D.")
        if g.dimension == 3:
            lowest, highest = low[across], high[across]
            self.slice_at = float(0.5 * (lowest + highest) if at is None else at)
            if not lowest <= self.slice_at <= highest:
                raise ValueError(f"at = {at!r} must be from {lowest:g} to {highest:g}.")
            self._prepare_slice()
        else:
            self._prepare_cells()

    @property
    def aspect(self) -> float:
        """Height over width."""
        sides = self.extent[1] - self.extent[0]
        return float(sides[1] / sides[0]) if self.dimension > 1 else 1.0

    @property
    def slice_name(self) -> str:
        """Such as ``z = 0.5``; empty unless a slice is drawn."""
        if self.slice_at is None:
            return ""
        return f"{NAMES[self.across]} = {self.slice_at:.4g} {self.unit}".rstrip()

    @property
    def density_label(self) -> str:
        """Name and unit of a density."""
        power = f"$^{{-{self.dimension}}}$"
        return f"density ({self.unit}{power})" if self.unit else "density"

    def sample(self, u: Array) -> Sample | None:
        """A local array's values where it is drawn, on rank 0. Collective."""
        g, comm = self._g, self.comm
        minimum, threshold, share = negative_part(g, u)
        if self.dimension == 3:
            values = self._on_slice(u)
        else:
            parts = comm.gather((self._table @ u[g.dofs]).T.ravel())
            values = None if parts is None else np.concatenate(parts)
        if values is None:
            return None
        return Sample(values, minimum, threshold, share)

    def line(self, ax: Axes, sample: Sample, **style: Any) -> None:
        """Draw a function of an interval; what is negative is filled. On rank 0."""
        x, values = self._x[self._order, 0], sample.values[self._order]
        ax.plot(x, values, **style)
        if sample.is_negative:
            ax.fill_between(x, np.minimum(values, 0.0), color=VERMILION, linewidth=0.0)
            ax.axhline(0.0, color="0.6", linewidth=0.6)

    def map(self, ax: Axes, sample: Sample, norm: Normalize) -> ScalarMappable:
        """Draw colours, negative values in ``VERMILION``. On rank 0."""
        ax.set_aspect("equal")
        low, high = self.extent
        if self.dimension == 3:
            negative = sample.values < sample.threshold
            image: ScalarMappable = ax.imshow(
                np.where(negative, sample.values, np.maximum(sample.values, 0.0)),
                interpolation="nearest",
                origin="lower",
                extent=(low[0], high[0], low[1], high[1]),
                cmap=density_colors(),
                norm=norm,
            )
            _limit(ax, low, high)
            return image
        # Colours are mixed within a triangle: with a marked colour at a corner, and so too far.
        image = ax.tripcolor(
            self._triangles,
            np.maximum(sample.values, 0.0),
            shading="gouraud",
            rasterized=True,
            cmap=density_colors(),
            norm=norm,
        )
        if sample.is_negative:
            ax.tricontourf(
                self._triangles,
                sample.values,
                levels=[2.0 * sample.minimum, sample.threshold],
                colors=[VERMILION],
                antialiased=False,  # seams between triangles would show
            )
        _limit(ax, low, high)
        return image

    def label(self, ax: Axes, *, row: str = "", name_x: bool = True, name_y: bool = True) -> None:
        """Name coordinates, with their unit, and keep their ticks few. On rank 0."""
        suffix = f" ({self.unit})" if self.unit else ""
        ax.xaxis.set_major_locator(MaxNLocator(4, steps=STEPS))
        ax.tick_params(labelbottom=name_x, labelleft=name_y)
        names = [NAMES[k] + suffix for k in self.plane]
        if name_x:
            ax.set_xlabel(names[0])
        if self.dimension > 1:
            ax.yaxis.set_major_locator(MaxNLocator(5, steps=STEPS))
            if name_y:
                ax.set_ylabel("\n".join(filter(None, [row, names[1]])))

    def colorbar(
        self,
        image: ScalarMappable,
        axes: list[Axes],
        *,
        below: bool = False,
        above: bool = False,
        **place: Any,
    ) -> None:
        """Scale of the colours of a map, with ticks that keep apart. On rank 0.

        Args:
            image: What has the colours.
            axes: Where they are.
            below: Whether some values are negative.
            above: Whether some values are above the scale.
            place: Of matplotlib's ``colorbar``.
        """
        norm, figure = image.norm, axes[0].figure
        extend = {(1, 0): "min", (0, 1): "max", (1, 1): "both"}.get((below, above), "neither")
        bar = figure.colorbar(image, ax=axes, extend=extend, label=self.density_label, **place)
        if isinstance(norm, PowerNorm):
            bar.locator = FixedLocator(_even_ticks(float(norm.vmax or 1.0), norm.gamma))
        else:
            bar.locator = MaxNLocator(TICKS + 1, steps=STEPS)
        formatter = ScalarFormatter(useMathText=True)
        formatter.set_powerlimits((-3, 4))
        bar.formatter = formatter
        bar.minorticks_off()
        bar.update_ticks()

    def _prepare_cells(self) -> None:
        g, d = self._g, self.dimension
        p, element = g.degree, g.space.element.basix_element
        if d == 1:
            lattice = np.linspace(0.0, 1.0, 2 * p + 1)[:, None]
            parts = np.empty((0, 3), dtype=int)
        else:
            lattice, parts = _subdivided_triangle(p)
        self._table = element.tabulate(0, lattice)[0, :, :, 0]
        x = g.mesh.geometry.x[g.mesh.geometry.dofmaps[0][: g.n_cells]][:, :, :d]
        corners = np.column_stack([1.0 - lattice.sum(axis=1), lattice])
        points = self.comm.gather(np.einsum("qi,cik->cqk", corners, x))
        if points is not None:
            cells = np.concatenate(points)
            n, q = cells.shape[:2]
            self._x = cells.reshape(n * q, d)
            self._order = np.argsort(self._x[:, 0], kind="stable")
            if d == 2:
                triangles = (q * np.arange(n)[:, None, None] + parts).reshape(-1, 3)
                self._triangles = Triangulation(self._x[:, 0], self._x[:, 1], triangles)

    def _prepare_slice(self) -> None:
        low, high = self.extent
        x, y = np.meshgrid(*(np.linspace(low[k], high[k], SLICE) for k in (0, 1)))
        self._points = np.full((x.size, 3), self.slice_at)
        self._points[:, self.plane] = np.column_stack([x.ravel(), y.ravel()])
        with collective_errors(self.comm):
            self._own = OwnCells(self._g.mesh)
            self._cells = self._own.holding(self._points)

    def _on_slice(self, u: Array) -> Array | None:
        mine = np.full(len(self._cells), -np.inf)
        inside = self._cells >= 0
        if inside.any():
            cells, points = self._cells[inside], self._points[inside]
            mine[inside] = self._own.evaluate(self._g.space, u, cells, points)[0]
        parts = self.comm.gather(mine)
        if parts is None:
            return None
        top = np.max(parts, axis=0)
        return np.where(np.isfinite(top), top, np.nan).reshape(SLICE, SLICE)


def negative_part(g: Elements, u: Array) -> tuple[float, float, float]:
    """``minimum``, ``threshold`` and ``share`` of a ``Sample`` of a local array. Collective."""
    ends = np.array([-u.min(initial=np.inf), u.max(initial=-np.inf)])
    ends = reduced(g.comm, ends, MPI.MAX)
    threshold = -NEGATIVE * np.abs(ends).max()
    below = g.quadrature_weights[g.evaluate(u).ravel() < threshold].sum()
    return -float(ends[0]), float(threshold), g.comm.allreduce(float(below)) / g.volume


def bounds(g: Elements) -> tuple[Array, Array]:
    """Smallest and largest coordinates of a domain, ``(d,)`` each. Collective."""
    x = g.mesh.geometry.x[:, : g.dimension]
    low = reduced(g.comm, x.min(axis=0, initial=np.inf), MPI.MIN)
    return low, reduced(g.comm, x.max(axis=0, initial=-np.inf), MPI.MAX)


def _limit(ax: Axes, low: Array, high: Array) -> None:
    pad = MARGIN * float((high - low).max())
    ax.set_xlim(low[0] - pad, high[0] + pad)
    ax.set_ylim(low[1] - pad, high[1] + pad)


def density_colors() -> Colormap:
    """Colours of a density, and that of negative values."""
    return matplotlib.colormaps["viridis"].with_extremes(under=VERMILION)


def _even_ticks(top: float, gamma: float) -> list[float]:
    """Zero and round values that are evenly spaced on a scale of colours with a power."""
    unit = 10.0 ** np.floor(np.log10(top) - 1.0)
    values = top * np.linspace(0.0, 1.0, TICKS + 1) ** (1.0 / gamma)
    return sorted({float(unit * np.floor(v / unit * (1.0 + 1e-12))) for v in values})


def _subdivided_triangle(p: int) -> tuple[Array, Array]:
    """Lattice of the reference triangle and its p**2 small triangles."""
    index: dict[tuple[int, int], int] = {}
    for j in range(p + 1):
        for i in range(p + 1 - j):
            index[i, j] = len(index)
    parts = []
    for i, j in index:
        if i + j < p:
            parts.append((index[i, j], index[i + 1, j], index[i, j + 1]))
        if i + j < p - 1:
            parts.append((index[i + 1, j], index[i + 1, j + 1], index[i, j + 1]))
    return np.array(list(index), dtype=float) / p, np.array(parts)
