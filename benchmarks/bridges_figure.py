"""Figure of bench_bridges.py: figures over the budget, by form and weighting."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

COLORS = {"plain": "#d55e00", "centred": "#e69f00", "damped": "#009e73", "pinned": "#0072b2"}
LINES = {"kl": "o-", "snr": "s--", "noise": "^:"}
NAMES = {
    "path KL": "KL of paths",
    "KL": "KL",
    "L2": "relative L2",
    "W2": "W2 (sliced, d > 1)",
    "MMD": "energy distance",
}


def draw(result: Any) -> dict[str, Figure]:
    """One row of panels for each target."""
    rows = result["tables"]["forms"]
    targets = list(dict.fromkeys(row["target"] for row in rows))
    figure = Figure(figsize=(11.0, 0.6 + 2.4 * len(targets)), layout="constrained")
    panels = figure.subplots(len(targets), 4, squeeze=False)
    for target, line in zip(targets, panels, strict=True):
        own = [row for row in rows if row["target"] == target]
        particles = all(row["KL"] is None for row in own)
        columns = ("path KL", "W2", "MMD") if particles else ("path KL", "KL", "L2", "W2")
        for ax, name in zip(line, columns, strict=False):
            _panel(ax, own, name)
            ax.set(xscale="log", yscale="log", title=f"{target}: {NAMES[name]}")
            ax.title.set_fontsize(9)
            budgets = sorted({row["n"] for row in own} - {0})
            ax.set_xticks(budgets, [str(n) for n in budgets], minor=False)
            ax.xaxis.set_minor_locator(NullLocator())
            ax.tick_params(labelsize=7, which="both")
        for ax in line[len(columns) :]:
            ax.axis("off")
    for ax in panels[-1]:
        ax.set_xlabel("features")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6, fontsize=8)
    figure.suptitle(
        "One process, several forms: median and range over seeds; grey: the exact score",
        fontsize=10,
    )
    return {"": figure}


def _panel(ax: Any, rows: list[dict[str, Any]], name: str) -> None:
    """One figure of one target over the budget."""
    for form, weighting in dict.fromkeys((r["form"], r["weighting"]) for r in rows):
        own = [r for r in rows if (r["form"], r["weighting"]) == (form, weighting)]
        own = [r for r in own if r[name] is not None]
        if form == "exact":
            if own and own[0][name] > 0.0 and name != "path KL":
                ax.axhline(own[0][name], color="0.6", lw=1.0)
            continue
        n, y, low, high = (
            np.array([r[key] for r in own], dtype=float)
            for key in ("n", name, f"{name} least", f"{name} most")
        )
        ax.errorbar(
            n,
            y,
            [y - low, high - y],
            fmt=LINES[weighting],
            color=COLORS[form],
            ms=3,
            lw=1.1,
            capsize=2,
            label=f"{form}, {weighting}",
        )
