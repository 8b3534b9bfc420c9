"""Figure of bench_memory.py."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from convergence_figures import COLORS, spaced
from matplotlib import pyplot as plt


def draw(result: Mapping[str, Any]) -> dict[str, Any]:
    """Bytes per degree of freedom at the highest, those of levels apart; budgets kept or not."""
    rows, stored = result["tables"]["memory"], result["tables"]["budget"]
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(10.4, 1.6 + 0.26 * len(rows)), width_ratios=(3, 2), layout="constrained"
    )
    y = np.arange(len(rows))
    levels, rest = ([r[key] for r in rows] for key in ("levels", "without levels"))
    left.barh(y, levels, 0.6, color=COLORS[1], label="densities of all time levels")
    bars = left.barh(y, rest, 0.6, left=levels, color=COLORS[0], label="all else")
    left.bar_label(bars, [f"{r['GiB']:.2g} GiB" for r in rows], padding=3, fontsize=8)
    names = [
        f"{r['run']}: {r['dimension']}-D, degree {r['degree']}, {spaced(r['dofs'])} dofs"
        for r in rows
    ]
    left.set_yticks(y, names)
    left.invert_yaxis()
    left.grid(axis="y", visible=False)
    left.set(xlabel="bytes per degree of freedom at the highest", title="20 steps")
    left.set_xlim(0.0, 1.2 * max(r["bytes/dof"] for r in rows))
    figure.legend(*left.get_legend_handles_labels(), fontsize=8, loc="outside lower left", ncols=2)
    x = np.arange(len(stored))
    for i, (key, label) in enumerate((("planned MB", "planned"), ("taken MB", "taken"))):
        bars = right.bar(x + 0.3 * (i - 0.5), [r[key] for r in stored], 0.28, color=COLORS[i])
        bars.set_label(label)
        right.bar_label(bars, fmt="%.3g", fontsize=8)
    budget = next(r["budget MB"] for r in stored if r["budget MB"])
    right.axhline(
        budget, color="black", linewidth=0.9, linestyle="--", label="budget of the last two"
    )
    where = {"memory": "all in memory", "Revolve": "Revolve", "disk": "on disk"}
    right.set_xticks(x, [where[r["levels"]] for r in stored])
    right.grid(axis="x", visible=False)
    one = stored[0]
    right.set(ylabel="MB", title=f"derivative, {one['steps']} steps, {spaced(one['dofs'])} dofs")
    right.set_ylim(0.0, 1.3 * max(r["taken MB"] for r in stored))
    right.legend(fontsize=8)
    return {"": figure}
