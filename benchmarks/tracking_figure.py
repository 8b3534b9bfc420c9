"""Figures of bench_tracking.py."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from convergence_figures import COLORS
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator


def draw(result: Mapping[str, Any]) -> dict[str, Any]:
    """Error over pieces, over width at equal numbers of weights, over noise, over seconds."""
    tables = result["tables"]
    figure = Figure(figsize=(13.0, 3.9), layout="constrained")
    pieces, widths, noise, seconds = figure.subplots(1, 4)
    rows = tables.get("pieces", []) + [
        r for r in tables.get("many pieces", []) if r["target"] == "two bumps"
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
