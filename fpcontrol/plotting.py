"""Figures, drawn on rank 0 and written when they are whole."""

import os
from pathlib import Path
from typing import Any

from mpi4py import MPI

import matplotlib

matplotlib.use("Agg")
import numpy as np
from dolfinx import fem
from matplotlib import pyplot as plt
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fpcontrol.characteristics.flow import Flow
from fpcontrol.control.result import Result
from fpcontrol.discretization.elements import Elements
from fpcontrol.parallel.files import output_path, replacing
from fpcontrol.reference import MoserFlow
from fpcontrol.typing import Array

# Okabe and Ito's colours and viridis can be told apart with any colour vision.
BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
COLORS = "viridis"
SLICE = 120  # Points along each side of the slice through a box.


class _Canvas:
    """Where a space's functions are drawn: lines, triangles, or the middle slice in 3-D."""

    def __init__(self, g: Elements) -> None:
        self._g, comm = g, g.comm
        self.dimension = g.dimension
        if self.dimension == 3:
            self._make_slice()
            return
        p, element = g.degree, g.space.element.basix_element
        if self.dimension == 1:
            lattice = np.linspace(0.0, 1.0, 2 * p + 1)[:, None]
            parts = np.empty((0, 3), dtype=int)
        else:
            lattice, parts = _subdivided_triangle(p)
        self._table = element.tabulate(0, lattice)[0, :, :, 0]
        x = g.mesh.geometry.x[g.mesh.geometry.dofmaps[0][: g.n_cells]][:, :, : self.dimension]
        corners = np.column_stack([1.0 - lattice.sum(axis=1), lattice])
        points = comm.gather(np.einsum("qi,cik->cqk", corners, x))
        self._order: Array | None = None
        if comm.rank == 0:
            self.x = np.concatenate(points)
            n, q = self.x.shape[:2]
            self.x = self.x.reshape(n * q, -1)
            self.triangles = (q * np.arange(n)[:, None, None] + parts).reshape(-1, 3)
            self._order = np.argsort(self.x[:, 0]) if self.dimension == 1 else None

    def values(self, u: Array) -> Array | None:
        """A local array's values where it is drawn, on rank 0. Collective."""
        g, comm = self._g, self._g.comm
        if self.dimension == 3:
            mine = np.full(len(self._cells), -np.inf)
            inside = self._cells >= 0
            mine[inside] = g.evaluate_at(self._cells[inside], self._points[inside], u)[0]
            lists = comm.gather(mine)
            if comm.rank:
                return None
            top = np.max(lists, axis=0)
            return np.where(np.isfinite(top), top, np.nan).reshape(SLICE, SLICE)
        lists = comm.gather((self._table @ u[g.dofs]).T.ravel())
        return np.concatenate(lists) if comm.rank == 0 else None

    def draw(self, ax: Any, values: Array, **style: Any) -> Any:
        """Draw values on an axis of rank 0."""
        if self.dimension == 1:
            return ax.plot(self.x[self._order, 0], values[self._order], **style)[0]
        ax.set_aspect("equal")
        ax.set_xticks([])
        ax.set_yticks([])
        ax.spines[:].set_visible(False)
        if self.dimension == 3:
            return ax.imshow(values, origin="lower", extent=self._extent, **style)
        x, y = self.x.T
        return ax.tripcolor(
            x, y, self.triangles, values, shading="gouraud", rasterized=True, **style
        )

    def _make_slice(self) -> None:
        g = self._g
        x = np.concatenate(g.comm.allgather(g.mesh.geometry.x))
        low, high = x.min(axis=0), x.max(axis=0)
        u, v = (np.linspace(low[k], high[k], SLICE) for k in (0, 1))
        grid = np.meshgrid(u, v)
        middle = np.full(SLICE**2, 0.5 * (low[2] + high[2]))
        self._points = np.column_stack([grid[0].ravel(), grid[1].ravel(), middle])
        self._cells = g.locate(self._points)
        self._extent = (low[0], high[0], low[1], high[1])


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


def density(rho: fem.Function, path: str | os.PathLike[str], *, title: str = "") -> None:
    """Draw one density: a line in 1-D, colours in 2-D, the middle slice in 3-D. Collective.

    Raises:
        OSError: On all ranks, if the folder cannot be written to.
        ValueError: On all ranks, for an unknown format.
    """
    g = Elements(rho.function_space)
    target = _picture_path(path, g.comm)
    canvas = _Canvas(g)
    values = canvas.values(rho.x.array)
    with replacing(target, g.comm) as beside:
        if values is not None:
            figure, ax = plt.subplots(figsize=(5, 5), layout="constrained")
            drawn = canvas.draw(ax, values, **({} if g.dimension == 1 else {"cmap": COLORS}))
            if g.dimension > 1:
                figure.colorbar(drawn, ax=ax, shrink=0.8, label="density")
            ax.set_title(title)
            _save(figure, beside)


def tracking(result: Result, path: str | os.PathLike[str], *, times: int = 5) -> None:
    """Draw a tracking result: reference above controlled density, errors, convergence. Collective.

    Args:
        result: From ``minimize``.
        path: Picture file; its suffix is matplotlib's format.
        times: Number of times at which densities are drawn, first and last among them.

    Raises:
        OSError: On all ranks, if the folder cannot be written to.
        ValueError: On all ranks, if the reference lives on no mesh, for an unknown format, or for
            ``times`` below 2.
    """
    if not isinstance(times, int | np.integer) or times < 2:
        raise ValueError(
            f"times = {times!r} must be an integer, 2 or more: the first and the last."
        )
    problem, trajectory = result.problem, result.run()
    if not isinstance(problem.reference, MoserFlow):
        raise ValueError("tracking draws problems whose reference lives on a mesh (MoserFlow).")
    g, over_time = problem.elements, result.errors.over_time
    target = _picture_path(path, g.comm)
    uncontrolled = problem.errors(np.zeros_like(result.weights)).over_time
    canvas = _Canvas(g)
    levels = np.linspace(0, problem.steps, times).round().astype(int)
    if isinstance(trajectory, Flow):
        drawn = trajectory.on_mesh(g.space, levels).levels
    else:
        drawn = trajectory.levels[levels]
    pairs = [
        (
            canvas.values(problem.reference.coefficients(problem.times[n])),
            canvas.values(u),
        )
        for n, u in zip(levels, drawn, strict=True)
    ]
    with replacing(target, g.comm) as beside:
        if g.comm.rank == 0:
            draw = _lines if g.dimension == 1 else _maps
            figure, (left, right) = draw(canvas, pairs, problem.times[levels])
            _error_over_time(left, problem.times, over_time, uncontrolled)
            _convergence(right, result)
            _save(figure, beside)


def _maps(canvas: _Canvas, pairs: list, times: Array) -> tuple[Figure, tuple[Any, Any]]:
    # A square-root scale shows the low densities beside the peaks.
    norm = PowerNorm(0.5, vmin=0.0, vmax=max(np.nanmax(v) for v, _ in pairs), clip=True)
    x = canvas.x if canvas.dimension == 2 else np.array([[0.0, 0.0], [1.0, 1.0]])
    aspect = float(np.ptp(x[:, 1]) / np.ptp(x[:, 0]))
    n = len(pairs)
    width = 2.4 * n
    height = min(2.2 * aspect, 4.5)
    figure = plt.figure(figsize=(width + 0.8, 2 * height + 3.2), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=[2 * height, 2.9])
    upper, lower = parts
    axes = upper.subplots(2, n)
    for j, (pair, t) in enumerate(zip(pairs, times, strict=True)):
        for i in (0, 1):
            drawn = canvas.draw(axes[i, j], pair[i], cmap=COLORS, norm=norm)
        axes[0, j].set_title(f"t = {t:.3g}")
    for ax, name in zip(axes[:, 0], ("reference", "controlled"), strict=True):
        ax.set_ylabel(name)
    upper.colorbar(drawn, ax=axes, shrink=0.7, aspect=40, label="density")
    return figure, lower.subplots(1, 2)


def _lines(canvas: _Canvas, pairs: list, times: Array) -> tuple[Figure, tuple[Any, Any]]:
    n = len(pairs)
    figure = plt.figure(figsize=(2.6 * n, 6.0), layout="constrained")
    parts: Any = figure.subfigures(2, 1)
    upper, lower = parts
    axes = upper.subplots(1, n, sharey=True)
    for ax, pair, t in zip(axes, pairs, times, strict=True):
        canvas.draw(ax, pair[0], color=BLUE, label="reference")
        canvas.draw(ax, pair[1], color=ORANGE, linestyle="--", label="controlled")
        ax.set_title(f"t = {t:.3g}")
        ax.set_xlabel("x")
    axes[0].set_ylabel("density")
    axes[0].legend()
    return figure, lower.subplots(1, 2)


def _error_over_time(ax: Any, times: Array, over_time: Array, uncontrolled: Array) -> None:
    ax.plot(times, uncontrolled, color=BLUE, linestyle="--", label="without control")
    ax.plot(times, over_time, color=ORANGE, label="controlled")
    ax.set(xlabel="time", ylabel="relative L2 error", ylim=(0, None))
    ax.legend()


def _convergence(ax: Any, result: Result) -> None:
    evaluations = [i.evaluations for i in result.history]
    ax.semilogy(evaluations, [i.relative_error for i in result.history], color=ORANGE)
    first = result.history[0].gradient_norm
    ax.semilogy(
        evaluations,
        [i.gradient_norm / first for i in result.history],
        color=GREEN,
        linestyle=":",
        label="gradient norm / first",
    )
    ax.lines[0].set_label("relative error")
    ax.set(xlabel="value and derivative evaluations")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend()


def _picture_path(path: str | os.PathLike[str], comm: MPI.Comm) -> Path:
    """Where a picture goes, in a format that matplotlib knows. Collective."""
    formats = FigureCanvasBase.get_supported_filetypes()
    if Path(path).suffix.removeprefix(".").lower() not in formats:
        raise ValueError(
            f"path = {str(path)!r} must end in a picture format: {', '.join(sorted(formats))}."
        )
    return output_path(path, comm)


def _save(figure: Figure, path: os.PathLike[str]) -> None:
    figure.savefig(path, dpi=150)
    plt.close(figure)
