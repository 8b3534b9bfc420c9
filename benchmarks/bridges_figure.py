"""Figures of bench_bridges.py: over the number of weights, by family, form and weighting."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

COLORS = {"plain": "#d55e00", "centred": "#e69f00", "damped": "#009e73", "pinned": "#0072b2"}
LINES = {"kl": "-", "snr": "--"}
MARKS = {("features", "kl"): "o", ("features", "snr"): "^", ("trained", "kl"): "D"}
NAMES = {
    "path KL": "KL of paths",
    "KL": "KL",
    "L2": "relative L2",
    "W2": "W2 (sliced, d > 1)",
    "MMD": "energy distance",
}
MESH, PARTICLES = ("path KL", "KL", "L2", "W2"), ("path KL", "W2", "MMD")


def draw(result: Any) -> dict[str, Figure]:
    """Densities in one figure, particles in another; one row of panels for each target."""
    rows = result["tables"]["forms"]
    by_target: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_target.setdefault(row["target"], []).append(row)
    figures = {}
    for ending, columns, particles in (("", MESH, False), ("_particles", PARTICLES, True)):
        own = {
            name: found
            for name, found in by_target.items()
            if all(row["KL"] is None for row in found) == particles
        }
        if own:
            figures[ending] = _figure(own, columns)
    return figures


def _figure(by_target: dict[str, list[dict[str, Any]]], columns: tuple[str, ...]) -> Figure:
    figure = Figure(figsize=(2.75 * len(columns), 1.2 + 2.4 * len(by_target)), layout="constrained")
    panels = figure.subplots(len(by_target), len(columns), squeeze=False)
    shown: dict[str, Any] = {}
    for (target, own), line in zip(by_target.items(), panels, strict=True):
        for ax, name in zip(line, columns, strict=True):
            _panel(ax, own, name)
            ax.set(xscale="log", yscale="log", title=f"{target}: {NAMES[name]}")
            ax.title.set_fontsize(9)
            budgets = sorted({row["weights"] for row in own} - {0})
            thinned = [n for i, n in enumerate(budgets) if i == 0 or n > 1.4 * budgets[i - 1]]
            ax.set_xticks(thinned, [str(n) for n in thinned], minor=False)
            ax.set_xlim(0.75 * budgets[0], 1.35 * budgets[-1])
            ax.xaxis.set_minor_locator(NullLocator())
            ax.tick_params(labelsize=7, which="both")
        handles, labels = line[0].get_legend_handles_labels()
        shown = dict(zip(labels, handles, strict=True)) | shown
    for ax in panels[-1]:
        ax.set_xlabel("weights")
    figure.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=4, fontsize=8)
    figure.suptitle(
        "One process, several forms: median and range over seeds; grey: the exact score",
        fontsize=10,
    )
    return figure


def _panel(ax: Any, rows: list[dict[str, Any]], name: str) -> None:
    """One figure of one target over the number of weights."""
    for key in dict.fromkeys((r["family"], r["form"], r["weighting"]) for r in rows):
        family, form, weighting = key
        own = [r for r in rows if (r["family"], r["form"], r["weighting"]) == key]
        own = [r for r in own if r[name] is not None]
        if form == "exact":
            if own and own[0][name] > 0.0 and name != "path KL":
                ax.axhline(own[0][name], color="0.6", lw=1.0)
            continue
        n, y, low, high = (
            np.array([r[part] for r in own], dtype=float)
            for part in ("weights", name, f"{name} least", f"{name} most")
        )
        trained = family == "trained"
        ax.errorbar(
            n,
            y,
            [y - low, high - y],
            fmt=MARKS.get((family, weighting), "s") + LINES[weighting],
            color=COLORS[form],
            mfc="white" if trained else COLORS[form],
            ms=4 if trained else 3,
            lw=1.1,
            capsize=2,
            label=f"{family}: {form}, {weighting}",
        )
