"""Figures of bench_score.py: errors over the share of the noise, and over the width of bins."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

COLORS = {0.0: "#0072b2", 0.1: "#009e73", 1.0: "#e69f00", 10.0: "#d55e00"}
ACTIVATIONS = {"relu": "#000000", "softplus": "#d55e00", "swish": "#0072b2", "tanh": "#009e73"}


def draw(result: Any) -> dict[str, Figure]:
    """Of the tables that there are."""
    return {"": law(result) if "law" in result["tables"] else samplers(result)}


def samplers(result: Any) -> Figure:
    """One row for each target: L2, KL, W2."""
    rows = result["tables"]["samplers"]
    targets = list(dict.fromkeys(row["target"] for row in rows))
    figure = Figure(figsize=(10.0, 0.4 + 2.9 * len(targets)), layout="constrained")
    panels = figure.subplots(len(targets), 3, squeeze=False, sharex=True)
    columns = (("l2", "relative L2 error"), ("kl", "KL divergence"), ("wasserstein", "W2"))
    for target, line in zip(targets, panels, strict=True):
        for ax, (name, label) in zip(line, columns, strict=True):
            for weight in dict.fromkeys(row["w_R"] for row in rows if row["target"] == target):
                own = [r for r in rows if (r["target"], r["w_R"]) == (target, weight)]
                own = [r for r in own if r[name] is not None]
                x, y, spread, error = (
                    np.array([r[key] for r in own], dtype=float)
                    for key in ("noise", name, f"{name} spread", f"{name} error")
                )
                color = COLORS.get(weight)
                ax.errorbar(
                    x,
                    y,
                    np.nan_to_num(spread),
                    fmt="o-",
                    ms=3,
                    lw=1.2,
                    capsize=2,
                    color=color,
                    label=f"$w_R$ = {weight:g}",
                )
                ax.plot(x, np.where(np.isfinite(error), error, np.nan), ":", lw=0.9, color=color)
            ax.set(yscale="log", ylabel=f"{target}: {label}")
        line[0].legend(fontsize=8)
    for ax in panels[-1]:
        ax.set_xlabel("share of the noise (0: ODE, 1: SDE)")
    figure.suptitle(
        "Trained scores: mean and standard deviation over seeds; dotted: discretization error",
        fontsize=10,
    )
    return figure


def law(result: Any) -> Figure:
    """One panel for each share of the noise: L2 over the width of the bins."""
    rows = result["tables"]["law"]
    noises = list(dict.fromkeys(row["noise"] for row in rows))
    figure = Figure(figsize=(3.6 * len(noises), 3.6), layout="constrained")
    panels = figure.subplots(1, len(noises), squeeze=False, sharey=True)[0]
    kinds = list(dict.fromkeys((r["activation"], r["sharpness"], r["w_R"]) for r in rows))
    for noise, ax in zip(noises, panels, strict=True):
        for activation, sharpness, weight in kinds:
            own = [
                r
                for r in rows
                if (r["activation"], r["sharpness"], r["w_R"], r["noise"])
                == (activation, sharpness, weight, noise)
            ]
            x, y, spread = (
                np.array([r[key] for r in own], dtype=float) for key in ("width", "L2", "L2 spread")
            )
            sharp = f" {sharpness:g}" if sharpness != 1.0 else ""
            ax.errorbar(
                x,
                y,
                np.nan_to_num(spread),
                fmt="o--" if weight else "o-",
                ms=3,
                lw=1.2,
                capsize=2,
                color=ACTIVATIONS[activation],
                label=f"{activation}{sharp}, $w_R$ = {weight:g}",
            )
        name = {0.0: "0 (ODE)", 1.0: "1 (SDE)"}.get(noise, f"{noise:g}")
        ax.set(xscale="log", yscale="log", xlabel="width of bins", title=f"noise {name}")
        ax.invert_xaxis()
        if noise == 0.0:
            first = max(row["L2"] for row in rows if row["bins"] == rows[0]["bins"])
            ax.plot(x, 1.3 * first * np.sqrt(x[0] / x), ":", color="gray", label="width$^{-1/2}$")
    panels[0].set_ylabel("relative L2 error")
    named = panels[-1].get_legend_handles_labels()
    panels[0].legend(*named, fontsize=7, ncols=2, loc="upper left")
    return figure
