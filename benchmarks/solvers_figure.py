"""Figure of bench_solvers.py."""

from collections.abc import Mapping
from typing import Any

from convergence_figures import COLORS, MARKERS, groups
from matplotlib import pyplot as plt
from matplotlib import ticker

Row = dict[str, Any]
SHOWN = (
    "GMRES, ILU(0)",
    "BiCGStab, ILU(0)",
    "GMRES, ILU(2)",
    "GMRES, ILU(4)",
    "GMRES, GAMG/ILU of constant part",
)
EXPLICIT = "RKC2"


def draw(result: Mapping[str, Any]) -> dict[str, Any]:
    """Cost and iterations over the time step: implicit solvers in each space, explicit steps."""
    tables: dict[str, list[Row]] = result["tables"]
    if "sweep" not in tables:  # another table alone was asked for
        return {}
    spaces: dict[str, list[Row]] = {}
    for row in tables["sweep"]:
        spaces.setdefault(f"{row['dim']}-D, degree {row['degree']}", []).append(row)
    figure, axes = plt.subplots(2, len(spaces), figsize=(10, 6.4), sharex="col", squeeze=False)
    for column, (space, mine) in enumerate(spaces.items()):
        lines = {name: rows for name, rows in groups(mine, "solver").items() if name in SHOWN}
        if column == 0 and "explicit" in tables:
            steps = groups(tables["explicit"], "method")[EXPLICIT]
            lines[EXPLICIT] = [row | {"its": row["its or stages"]} for row in steps]
        for name, rows in lines.items():
            i = SHOWN.index(name) if name in SHOWN else len(SHOWN)
            done = [row for row in rows if row["step"] is not None]
            ratios = [row["dt D/h2"] for row in done]
            label = "no solver: RKC2, lumped mass (weak drift)" if name == EXPLICIT else name
            style = {"color": COLORS[i], "marker": MARKERS[i], "markersize": 4.5}
            axes[0, column].loglog(ratios, [row["step"] for row in done], label=label, **style)
            axes[1, column].loglog(ratios, [row["its"] for row in done], **style)
        for ax in axes[:, column]:
            ax.set_xticks(ratios, [f"{r:g}" for r in ratios])
            ax.xaxis.set_minor_formatter("")
            ax.yaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
            ax.yaxis.set_major_formatter("{x:g}")
            ax.yaxis.set_minor_formatter("")
        axes[0, column].set_title(f"{space}: {mine[0]['dofs']} dofs")
        axes[1, column].set_xlabel(r"$dt\,D/h^2$")
    axes[0, 0].set_ylabel("microseconds per dof and step")
    axes[1, 0].set_ylabel("iterations (stages) per step")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=3)
    figure.tight_layout(rect=(0, 0.09, 1, 1))
    return {"": figure}
