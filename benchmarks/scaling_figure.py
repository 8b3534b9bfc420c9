"""Figure of bench_scaling.py."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from convergence_figures import spaced
from matplotlib.figure import Figure

Row = dict[str, Any]
BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"


def draw(result: Mapping[str, Any]) -> dict[str, Any]:
    """Speedups and counts; and, on several cores, kinds of blocks."""
    blocks = result["tables"]["blocks"]
    return {"": speedups(result)} | ({"_blocks": kinds(blocks)} if blocks else {})


def kinds(rows: list[Row]) -> Figure:
    """Block Jacobi over additive Schwarz: seconds and iterations over the time step."""
    figure = Figure(figsize=(8.6, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True)
    lines: dict[tuple[int, float], list[Row]] = {}
    for row in rows:
        lines.setdefault((row["degree"], row["cell Peclet"]), []).append(row)
    for color, ((degree, peclet), mine) in zip(
        (BLUE, GREEN, ORANGE, PURPLE), lines.items(), strict=True
    ):
        x = [r["dt D/h^2"] for r in mine]
        style = {"color": color, "marker": "os"[degree - 1]}
        label = f"degree {degree}, cell Peclet {peclet:g}"
        left.plot(x, [r["Jacobi/Schwarz"] for r in mine], label=label, **style)
        right.plot(x, [r["its, Jacobi"] / r["its, Schwarz"] for r in mine], **style)
    for ax, what in ((left, "seconds"), (right, "iterations")):
        ax.axhline(1.0, color="black", lw=0.8, ls=(0, (1, 3)))
        ax.set_xscale("log", base=2)
        ax.set_xticks(x, [f"{v:g}" for v in x])
        ax.minorticks_off()
        ax.set(xlabel=r"$dt\,D/h^2$", ylabel=f"{what} of block Jacobi over Schwarz")
        ax.set_ylim(bottom=0.0)
        ax.spines[["top", "right"]].set_visible(False)
    size = f"{rows[0]['ranks']} ranks, {spaced(rows[0]['dofs'])} degrees of freedom"
    figure.suptitle(size, fontsize=10.5)
    left.legend(frameon=False, fontsize=8.5)
    return figure


def speedups(result: Mapping[str, Any]) -> Figure:
    """Speedups beside the triad's, and counts over ranks."""
    tables, settings = result["tables"], result["settings"]
    figure = Figure(figsize=(11.0, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    rows = [r for r in tables["strong"] if r["ranks"] > 1]
    bars = (
        ("triad ratio", "memory bandwidth (triad)", "0.6"),
        ("step, speedup", "time step", BLUE),
        ("value + derivative, speedup", "value + derivative", ORANGE),
    )
    x = np.arange(len(rows))
    for i, (key, label, color) in enumerate(bars):
        heights = [r[key] for r in rows]
        drawn = left.bar(x + 0.27 * (i - 1), heights, 0.25, color=color, label=label)
        left.bar_label(drawn, fmt="%.2f", fontsize=9)
    left.axhline(1.0, color="black", lw=0.8, ls=(0, (1, 3)))
    left.set_xticks(x, [f"{r['ranks']} ranks" for r in rows])
    left.set(ylabel="times as fast as one rank", xlim=(-0.8, len(rows) - 0.2))
    left.set_ylim(0.0, 1.35 * max((r[key] for r in rows for key, _, _ in bars), default=1.0))
    size = spaced(tables["strong"][0]["dofs"])
    left.set_title(f"Strong scaling, {size} degrees of freedom", fontsize=10.5)
    left.legend(frameon=False, fontsize=9, loc="upper left")
    equal = [
        r for r in tables["counts"] if r["run"] == "forward" and r["solves"] == "equal iterations"
    ]
    exact = [r for r in tables["counts"] if r["run"] == "forward" and r["solves"] == "to tolerance"]
    ranks = [r["ranks"] for r in equal]
    for source, key, label, color, marker in (
        (equal, "reductions", f"reductions, {settings['equal iterations']} iterations", BLUE, "o"),
        (equal, "messages/neighbor", "messages per neighbor", ORANGE, "s"),
        (exact, "its/step", f"iterations to {settings['petsc options']['ksp_rtol']:g}", GREEN, "^"),
        (equal, "neighbors", "neighbors, at most", PURPLE, "D"),
    ):
        values = [r[key] for r in source]
        right.plot(ranks, values, marker=marker, color=color, label=label)
    right.set_xscale("log", base=2)
    right.set_xticks(ranks, [str(r) for r in ranks])
    right.minorticks_off()
    most = max(max(r["reductions"], r["messages/neighbor"], r["its/step"]) for r in equal + exact)
    right.set_ylim(0.0, 1.4 * most)
    right.set(xlabel="ranks", ylabel="per time step, most loaded rank")
    size = spaced(equal[0]["dofs"])
    right.set_title(f"Communication, {size} degrees of freedom a rank", fontsize=10.5)
    right.legend(frameon=False, fontsize=9, ncols=2, loc="upper left")
    for ax in (left, right):
        ax.spines[["top", "right"]].set_visible(False)
    return figure
