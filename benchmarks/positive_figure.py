"""Figures of bench_positive.py."""

from collections.abc import Mapping
from typing import Any

from convergence_figures import COLORS
from matplotlib.figure import Figure


def draw(result: Mapping[str, Any]) -> dict[str, Any]:
    """Distances over the cell Peclet number, and the lowest values."""
    tables = result["tables"]
    figure = Figure(figsize=(12.0, 4.0), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    names = [key.removeprefix("W1 ") for key in tables["layers"][0] if key.startswith("W1 ")]
    for color, name in zip(COLORS, names, strict=False):
        style = {"marker": "o", "ms": 4.5, "color": color, "label": name}
        if name == "Limited":  # elsewhere it hides what it is equal to
            style |= {"marker": "s", "ms": 8.0, "mfc": "none", "ls": "--"}
        for ax, rows, key in (
            (left, tables["layers"], f"W1 {name}"),
            (middle, tables["smooth"], name),
        ):
            known = [row for row in rows if row[key] is not None]
            ax.loglog([r["Peclet"] for r in known], [r[key] for r in known], **style)
        known = [r for r in tables["layers"] if r[f"minimum {name}"] is not None]
        right.semilogx(
            [r["Peclet"] for r in known], [min(r[f"minimum {name}"], 0.0) for r in known], **style
        )
    left.set_title("Layers at walls: Wasserstein-1 distance", fontsize=10.5)
    middle.set_title("No layers: L2 distance", fontsize=10.5)
    right.set_title("Layers: how far below zero, in means", fontsize=10.5)
    for ax in (left, middle, right):
        ax.set_xlabel("cell Peclet number $|v|h/D$")
    right.set_yscale("symlog", linthresh=1.0)
    middle.legend(fontsize=8.5)
    return {"": figure}
