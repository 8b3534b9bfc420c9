"""Figures of bench_tracking.py."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from convergence_figures import COLORS
from dolfinx import fem
from dolfinx.mesh import Mesh
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from matplotlib.tri import Triangulation

# Name, mesh of one rank, times, and at these the reference and the controlled density at vertices.
Densities = tuple[str, Mesh, np.ndarray, np.ndarray, np.ndarray]


def draw(result: Mapping[str, Any]) -> dict[str, Any]:
    """Error over pieces, over width at equal numbers of weights, over noise, over seconds."""
    tables = result["tables"]
    figure = Figure(figsize=(13.0, 3.9), layout="constrained")
    pieces, widths, noise, seconds = figure.subplots(1, 4)
    rows = tables.get("pieces", []) + [
        r
        for r in tables.get("many pieces", [])
        if (r["target"], r["activation"]) == ("two bumps", "tanh")
    ]
    _bars(pieces, rows, "pieces")
    if len(rows) > 1:
        n, e = (np.array([row[key] for row in rows], dtype=float) for key in ("pieces", "error"))
        slope = np.polyfit(np.log(n), np.log(e), 1)[0]
        pieces.set_title(f"two bumps, width 2: slope {slope:.2f}", fontsize=10.5)
    _bars(widths, tables.get("widths", []), "width")
    widths.set_title("800 weights in all", fontsize=10.5)
    rows = tables.get("noise", [])
    _bars(noise, [r for r in rows if r["sigma"] > 0.0], "sigma")
    for row in rows:
        if row["sigma"] == 0.0:
            noise.axhspan(row["lowest error"], row["highest error"], color=COLORS[1], alpha=0.3)
            noise.axhline(row["error"], color=COLORS[1], label="no noise, characteristics")
            noise.legend(fontsize=8.5)
    noise.set_title("noise, 80 pieces", fontsize=10.5)
    for color, row in zip(COLORS, tables.get("methods", []), strict=False):
        for k, history in enumerate(row["histories"]):
            t, e = np.array(history, dtype=float).T
            best = np.minimum.accumulate(e)
            label = row["method"] if k == 0 else None
            seconds.loglog(t, best, color=color, lw=1.2, label=label)
    seconds.set_title("80 pieces, each seed", fontsize=10.5)
    seconds.set_xlabel("seconds")
    seconds.legend(fontsize=8.5)
    pieces.set_ylabel("relative error in $L^2$")
    return {"": figure}


def _bars(ax: Axes, rows: list[dict[str, Any]], key: str) -> None:
    """Medians, with bars from the lowest to the highest."""
    ax.set_xlabel(key if key != "sigma" else r"$\sigma$")
    ax.set_xscale("log")
    ax.set_yscale("log")
    if not rows:
        return
    x, e, low, high = (
        np.array([row[k] for row in rows], dtype=float)
        for k in (key, "error", "lowest error", "highest error")
    )
    ax.errorbar(x, e, yerr=(e - low, high - e), marker="o", ms=4.5, capsize=3, color=COLORS[0])
    ax.set_xticks(x, [f"{value:g}" for value in x], minor=False)
    ax.xaxis.set_minor_locator(NullLocator())


def densities(cases: list[Densities]) -> Figure:
    """References above what a control makes of the start, one scale of colours a case."""
    figure = Figure(figsize=(10.5, 4.3 * len(cases)), layout="constrained")
    for part, (name, mesh, times, *rows) in zip(
        np.atleast_1d(figure.subfigures(len(cases), 1)), cases, strict=True
    ):
        space = fem.functionspace(mesh, ("Lagrange", 1))
        x = space.tabulate_dof_coordinates()
        triangles = Triangulation(x[:, 0], x[:, 1], space.dofmap.list)
        top = max(row.max() for row in rows)
        axes = part.subplots(2, len(times), sharex=True, sharey=True)
        for label, line, row in zip(("reference", "controlled"), axes, rows, strict=True):
            line[0].set_ylabel(label)
            for ax, t, u in zip(line, times, row, strict=True):
                image = ax.tripcolor(triangles, u, shading="gouraud", vmin=0.0, vmax=top)
                ax.set_aspect("equal")
                if label == "reference":
                    ax.set_title(f"t = {t:g}", fontsize=10)
        part.colorbar(image, ax=axes, label="density", shrink=0.8)
        part.suptitle(name, fontsize=11)
    return figure
