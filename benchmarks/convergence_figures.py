"""Figures of bench_convergence.py."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

Row = dict[str, Any]

# Okabe and Ito's colours, told apart with any colour vision; markers tell them apart without.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")
SCHEMES = ("BackwardEuler", "CrankNicolson", "SDIRK2", "SDIRK4")
plt.rcParams |= {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "savefig.dpi": 150,
}


def spaced(number: int) -> str:
    """With a space before the thousands."""
    return f"{number:,}".replace(",", " ")


def groups(rows: list[Row], name: str) -> dict[Any, list[Row]]:
    """Rows by the value of a column, in the order in which the values come."""
    found: dict[Any, list[Row]] = {}
    for row in rows:
        found.setdefault(row[name], []).append(row)
    return found


def line(ax: Any, rows: list[Row], x: str, y: str, i: int, label: str) -> None:
    """One refinement with its markers."""
    style = {"color": COLORS[i], "marker": MARKERS[i], "markersize": 4, "linewidth": 1.3}
    ax.loglog([row[x] for row in rows], [row[y] for row in rows], label=label, **style)


def slope(ax: Any, rows: list[Row], x: str, y: str, order: float, below: float = 0.45) -> None:
    """A dashed line of a stated order under the last points of a refinement."""
    a, b = float(rows[-2][x]), float(rows[-1][x])
    ends = np.array([a, b])
    values = below * rows[-1][y] * (ends / b) ** -order
    ax.loglog(ends, values, "--", color="0.45", linewidth=1)
    text = f"{order:g}" if order == int(order) else f"{int(4 * order)}/4"
    ax.annotate(text, (b, values[1]), xytext=(4, -2), textcoords="offset points", color="0.35")


def ticks(ax: Any, values: Any) -> None:
    """Only the sizes that were run, as numbers."""
    ax.set_xticks(sorted(set(values)), [str(v) for v in sorted(set(values))])
    ax.minorticks_off()


def space(rows: list[Row]) -> Any:
    """Error over cells a side, one panel a dimension."""
    panels = groups(rows, "dim")
    figure, axes = plt.subplots(1, len(panels), figsize=(10, 3.4), squeeze=False)
    for ax, (dim, mine) in zip(axes[0], panels.items(), strict=True):
        for i, (degree, refined) in enumerate(groups(mine, "degree").items()):
            line(ax, refined, "cells", "error", i, f"degree {degree}")
            slope(ax, refined, "cells", "error", degree + 1)
        ticks(ax, [row["cells"] for row in mine])
        ax.set(title=f"{dim}-D", xlabel="cells a side")
        ax.legend()
    axes[0, 0].set_ylabel("relative L2 error")
    return figure


def time(rows: list[Row]) -> Any:
    """Error at the end over steps: all schemes on the first problem, SDIRK4 on all."""
    panels = groups(rows, "problem")
    first = next(iter(panels.values()))
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6))
    orders = dict(zip(SCHEMES, (1, 2, 2, 4), strict=True))
    for scheme, refined in groups(first, "scheme").items():
        line(axes[0], refined, "steps", "end", SCHEMES.index(scheme), scheme)
        slope(axes[0], refined, "steps", "end", orders[scheme])
    fourth = [row for row in rows if row["scheme"] == "SDIRK4"]
    for i, (problem, refined) in enumerate(groups(fourth, "problem").items()):
        line(axes[1], refined, "steps", "end", i, problem)
    slope(axes[1], groups(fourth, "problem").popitem()[1], "steps", "end", 4, 0.2)
    axes[0].set(title=first[0]["problem"], ylabel="relative L2 error in time, at the end")
    axes[1].set(title="SDIRK4")
    for ax in axes:
        ticks(ax, [row["steps"] for row in rows])
        ax.set(xlabel="steps")
        ax.legend(fontsize=7)
    return figure


def layers(rows: list[Row]) -> Any:
    """Errors over time (top) and at the end (bottom), one column a problem."""
    panels = groups(rows, "problem")
    figure, axes = plt.subplots(
        2, len(panels), figsize=(2.7 * len(panels) + 0.6, 5.6), sharey="row", squeeze=False
    )
    for column, (problem, mine) in zip(axes.T, panels.items(), strict=True):
        for scheme, refined in groups(mine, "scheme").items():
            for ax, name in zip(column, ("over time", "end"), strict=True):
                line(ax, refined, "steps", name, SCHEMES.index(scheme), scheme)
        slope(column[0], refined, "steps", "over time", 0.75 if "jump" in problem else 1.25)
        for ax in column:
            ticks(ax, [row["steps"] for row in mine])
        column[0].set(title=problem)
        column[1].set(xlabel="steps")
    axes[0, 0].legend(fontsize=7)
    axes[0, 0].set_ylabel("relative L2 error over time")
    axes[1, 0].set_ylabel("relative L2 error at the end")
    return figure


def dissipation(rows: list[Row]) -> Any:
    """L2 and W2 distance over frequency."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6))
    m = [row["m"] for row in rows]
    left = {
        "characteristics": (COLORS[0], "o", "none"),
        "upwind 2000": (COLORS[2], "^", "-"),
        "upwind 500": (COLORS[1], "s", "-"),
    }
    axes[0].plot(m, [row["exact"] for row in rows], color="k", linewidth=1, label="exact, any m")
    for name, (color, marker, style) in left.items():
        axes[0].plot(
            m, [row[name] for row in rows], marker, color=color, linestyle=style, label=name
        )
    for i, cells in ((2, 2000), (1, 500)):
        axes[0].plot(
            m,
            [row[f"noise {cells}"] for row in rows],
            ":",
            color=COLORS[i],
            label=f"with noise D = mean|v| h/2, h = 1/{cells}",
        )
    axes[0].set(title="L2 distance to 1: constant in m", ylim=(0.9, 1.72))
    k = 2.0 * np.pi * np.array(m)
    for name, (color, marker, style) in left.items():
        w2 = np.array([row[f"k W2 {name}"] for row in rows]) / k
        axes[1].loglog(m, w2, marker, color=color, linestyle=style, label=name)
    axes[1].loglog(m, 1.181016 / k, color="k", linewidth=1, label="exact, 1.181016/k")
    axes[1].set(title="W2 distance to 1: vanishes like 1/k")
    for ax in axes:
        ax.set(xlabel="frequency m, v = (a/k) sin(kx), k = 2 pi m", xscale="log")
        ticks(ax, m)
        ax.legend(fontsize=7)
    return figure


DRAW = {"space": space, "time": time, "layers": layers, "dissipation": dissipation}


def draw(result: Mapping[str, Any]) -> dict[str, Any]:
    """One figure for each table."""
    found = {}
    for name, rows in result["tables"].items():
        if name in DRAW:
            found[f"_{name}"] = figure = DRAW[name](rows)
            figure.tight_layout()
    return found
