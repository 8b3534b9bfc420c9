"""Figure of bench_score.py: errors of samplers over the share of the noise, by training."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

COLORS = {0.0: "#0072b2", 0.1: "#009e73", 1.0: "#e69f00", 10.0: "#d55e00"}


def draw(result: Any) -> dict[str, Figure]:
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
    return {"": figure}
