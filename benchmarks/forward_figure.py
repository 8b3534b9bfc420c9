"""Figure of bench_forward.py."""

from collections.abc import Mapping
from typing import Any

from convergence_figures import COLORS, MARKERS, Row, groups
from matplotlib import pyplot as plt
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

DRIFTS = {
    "steady": "drift stays",
    "cheap": "affine, every step new",
    "network/1": "network, every step new",
    "network/4": "network, every 4 steps new",
}


def panel(ax: plt.Axes, rows: list[Row]) -> None:
    """One degree: a colour and a marker for each drift."""
    for i, drift in enumerate(DRIFTS):
        mine = [row for row in rows if row["drift"] == drift]
        dofs = [row["dofs"] for row in mine]
        style = {"color": COLORS[i], "markersize": 4.5}
        for key, how in (
            ("fpcontrol", {"linestyle": "-", "linewidth": 2.0, "marker": MARKERS[i]}),
            ("dolfinx", {"linestyle": "--", "linewidth": 1.2, "marker": MARKERS[i]}),
            ("bound", {"linestyle": ":", "linewidth": 1.4, "marker": "_"}),
        ):
            fill = {"markerfacecolor": "white"} if key == "dolfinx" else {}
            ax.loglog(dofs, [row[key] for row in mine], **style, **how, **fill)


def draw(result: Mapping[str, Any]) -> dict[str, Any]:
    """Microseconds per dof and step over dofs, a panel for each degree."""
    rows = result["tables"]["forward"]
    kinds: dict[tuple[int, int], list[Row]] = {}
    for dimension, mine in groups(rows, "dimension").items():
        for degree, these in groups(mine, "degree").items():
            kinds[dimension, degree] = these
    figure, axes = plt.subplots(
        1, len(kinds), figsize=(0.6 + 2.7 * len(kinds), 4.4), sharey=True, squeeze=False
    )
    for ax, ((dimension, degree), mine) in zip(axes[0], kinds.items(), strict=True):
        panel(ax, mine)
        ax.set(title=f"{dimension}-D, degree {degree}", xlabel="degrees of freedom")
        dofs = [row["dofs"] for row in mine]
        room = 1.8 if max(dofs) > min(dofs) else 6.0  # a power of ten has to be seen
        ax.set_xlim(min(dofs) / room, max(dofs) * room)
        ax.xaxis.set_minor_formatter(NullFormatter())  # or they overlap where the range is short
    axes[0][0].set_ylabel("microseconds per dof and step")
    handles = [
        Line2D([], [], color=COLORS[i], marker=MARKERS[i], markersize=5, label=label)
        for i, label in enumerate(DRIFTS.values())
    ] + [
        Line2D([], [], color="0.3", linestyle=style, linewidth=width, label=label)
        for style, width, label in (
            ("-", 2.0, "fpcontrol"),
            ("--", 1.2, "plain DOLFINx"),
            (":", 1.4, "bytes of a step / triad"),
        )
    ]
    columns = 7 if len(kinds) > 3 else 4 if len(kinds) > 1 else 2
    figure.tight_layout()
    figure.legend(
        handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncol=columns, fontsize=8
    )
    return {"": figure}
