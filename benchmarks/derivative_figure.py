"""Figure of bench_derivative.py: seconds of a value and of a value with its derivative, by tool."""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
from convergence_figures import spaced
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

# Colors of Okabe and Ito, which differ for color-blind readers too.
COLORS = {"fpcontrol": "#D55E00", "by hand": "#0072B2", "dolfinx-adjoint": "#009E73"}
OTHERS = "#666666"


def draw(result: Mapping[str, Any]) -> dict[str, Any]:
    """One panel for each problem; hollow the value alone, full with its derivative."""
    rows = result["tables"]["tools"]
    cases = list(dict.fromkeys((row["dofs"], row["dt D/h^2"]) for row in rows))
    names = list(dict.fromkeys(row["tool"] for row in rows))
    figure, panels = plt.subplots(
        1, len(cases), figsize=(5.2 + 3.6 * (len(cases) - 1), 4.2), sharey=True, squeeze=False
    )
    for panel, (dofs, number) in zip(panels[0], cases, strict=True):
        found = {
            row["tool"]: row for row in rows if (row["dofs"], row["dt D/h^2"]) == (dofs, number)
        }
        for y, name in enumerate(names):
            row = found[name]
            ends = row["value"], row["value + derivative"]
            color = next((c for start, c in COLORS.items() if name.startswith(start)), OTHERS)
            panel.plot(
                [row["value"], row["value + derivative"]], [y, y], color=color, linewidth=1.5
            )
            panel.plot(ends[0], y, "o", color=color, markerfacecolor="white", markersize=7)
            panel.plot(ends[1], y, "o", color=color, markersize=8)
            panel.annotate(
                _times(row["over fpcontrol"]),
                (ends[1], y),
                xytext=(9, 0),
                textcoords="offset points",
                va="center",
                fontsize=10,
            )
        low = min(row["value"] for row in found.values())
        high = max(row["value + derivative"] for row in found.values())
        panel.set(xscale="log", xlim=(low / 1.6, high * 5.0))
        panel.xaxis.set_minor_formatter(NullFormatter())  # or they overlap
        panel.set_title(f"{spaced(dofs)} unknowns, $dt\\,D/h^2 = {number:g}$", fontsize=12)
        panel.set_xlabel("seconds of one processor")
        panel.grid(axis="x", which="major", color="0.85")
        panel.set_axisbelow(True)
        for side in ("top", "right", "left"):
            panel.spines[side].set_visible(False)
        panel.tick_params(axis="y", length=0)
    panels[0][0].set_yticks(range(len(names)), names, fontsize=11)
    panels[0][0].invert_yaxis()
    ring = {"marker": "o", "linestyle": "", "color": OTHERS, "markersize": 7}
    figure.legend(
        handles=[
            Line2D([], [], markerfacecolor="white", label="value", **ring),
            Line2D([], [], label="value + derivative, over that of fpcontrol", **ring),
        ],
        loc="lower center",
        ncols=2,
        frameon=False,
        fontsize=11,
    )
    figure.tight_layout(rect=(0.0, 0.07, 1.0, 1.0))
    return {"": figure}


def _times(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio < 10 else f"{ratio:.0f}"
