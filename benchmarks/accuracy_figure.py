"""Figure of bench_ornstein_uhlenbeck.py."""

from collections.abc import Mapping
from typing import Any

from convergence_figures import COLORS, MARKERS, groups
from matplotlib import pyplot as plt
from matplotlib.ticker import NullFormatter


def draw(result: Mapping[str, Any]) -> dict[str, Any]:
    """Seconds over error, one line a tool: colours tell kinds of tools, markers those of a kind."""
    figure, ax = plt.subplots(figsize=(8.0, 4.4), layout="constrained")
    kinds: dict[str, int] = {}
    count: dict[str, int] = {}
    for tool, mine in groups(result["tables"]["accuracy"], "tool").items():
        one_kind = [name for name in ("fpcontrol", "FiPy") if tool.startswith(name)]
        kind = one_kind[0] if one_kind else " ".join(tool.split()[:2])
        i = kinds.setdefault(kind, len(kinds))
        mark = count[kind] = count.get(kind, -1) + 1
        ax.loglog(
            [row["error"] for row in mine],
            [row["seconds"] for row in mine],
            color=COLORS[i],
            marker=MARKERS[mark],
            markersize=4,
            linewidth=2.2 if kind == "fpcontrol" and not mark else 1.0,
            linestyle="--" if mark else "-",
            label=tool,
        )
    ax.invert_xaxis()
    ax.xaxis.set_minor_formatter(NullFormatter())  # or they overlap where the range is short
    ax.set(xlabel="relative L2 error", ylabel="seconds, all of the run")
    ax.set_title("Ornstein-Uhlenbeck process on a square")
    figure.legend(fontsize=7, loc="outside right upper")
    return {"": figure}
