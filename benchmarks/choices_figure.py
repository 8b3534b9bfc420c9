"""Figure of bench_choices.py."""

from collections.abc import Mapping
from typing import Any

from convergence_figures import COLORS, MARKERS, SCHEMES
from matplotlib import pyplot as plt
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

PROBLEMS = {
    "smooth": "smooth, v.n = 0",
    "switching": "network that switches, through the walls",
    "jump": "density with a jump",
}


def draw(result: Mapping[str, Any]) -> dict[str, Any]:
    """Error over seconds, a panel for each problem: colors are degrees, markers schemes."""
    tables = result["tables"]
    figure, axes = plt.subplots(1, len(PROBLEMS), figsize=(10.2, 4.0), sharex=True, sharey=True)
    for ax, (name, title) in zip(axes, PROBLEMS.items(), strict=True):
        for row in tables[name]:
            color = COLORS[row["degree"] - 1]
            style = {"color": color, "marker": MARKERS[SCHEMES.index(row["scheme"])]}
            times = [row["seconds"]] * 2
            ax.loglog(times, [row["end"], row["largest"]], color=color, linewidth=0.8)
            ax.loglog(times[:1], [row["end"]], linestyle="", markersize=6, **style)
            hollow = {"markerfacecolor": "white"}
            ax.loglog(times[:1], [row["largest"]], linestyle="", markersize=6, **style, **hollow)
        ax.set_title(title, fontsize=10)
        ax.set_xlabel("seconds")
        ax.xaxis.set_minor_formatter(NullFormatter())  # or they overlap where the range is short
    axes[0].set_ylabel("relative L2 error")
    kinds = [(MARKERS[i], "0.3", "0.3", scheme) for i, scheme in enumerate(SCHEMES)]
    kinds += [("o", COLORS[p - 1], COLORS[p - 1], f"degree {p}") for p in (1, 2, 3)]
    kinds += [("o", "0.3", "0.3", "at the end"), ("o", "0.3", "white", "largest over time")]
    handles = [
        Line2D([], [], linestyle="", marker=m, color=c, markerfacecolor=f, label=text)
        for m, c, f, text in kinds
    ]
    figure.tight_layout()
    figure.legend(
        handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.02), ncols=5, fontsize=8
    )
    return {"": figure}
