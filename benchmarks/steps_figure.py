"""Figure of bench_steps.py."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from convergence_figures import COLORS, spaced
from matplotlib import pyplot as plt


def draw(result: Mapping[str, Any]) -> dict[str, Any]:
    """Refill of an operator beside assembly, and where a small mesh's step goes."""
    refill, overhead = result["tables"]["refill"], result["tables"]["overhead"][0]
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(8.6, 3.8), width_ratios=(3, 2), layout="constrained"
    )
    x = np.arange(len(refill))
    for i, (key, label) in enumerate(
        (
            ("fpcontrol", "fpcontrol"),
            ("dolfinx", "DOLFINx: a copy, and the advection assembled"),
            ("whole form", "DOLFINx: the whole form assembled"),
        )
    ):
        bars = left.bar(x + 0.27 * (i - 1), [r[key] for r in refill], 0.25, color=COLORS[i])
        bars.set_label(label)
        left.bar_label(bars, fmt="%.2g", fontsize=7.5)
    left.set_xticks(x, [f"degree {r['degree']}\n{spaced(r['dofs'])} dofs" for r in refill])
    left.set(ylabel="microseconds per dof", title="New operator for another drift")
    left.set_ylim(0.0, 1.3 * max(r["whole form"] for r in refill))
    left.legend(fontsize=8, loc="upper right")
    sweeps = ("forward", "reverse")
    krylov = [overhead[f"{sweep} Krylov"] for sweep in sweeps]
    rest = [overhead[f"{sweep} overhead"] for sweep in sweeps]
    right.bar(sweeps, krylov, 0.5, color="0.75", label="Krylov solver")
    bars = right.bar(sweeps, rest, 0.5, bottom=krylov, color=COLORS[0], label="all else")
    right.bar_label(bars, [f"{v:.2f}" for v in rest], label_type="center", color="white")
    right.set(ylabel="milliseconds a step", title=f"Step at {spaced(overhead['dofs'])} dofs")
    right.set_ylim(0.0, 1.4 * max(a + b for a, b in zip(krylov, rest, strict=True)))
    right.legend(fontsize=8, loc="upper right")
    for ax in (left, right):
        ax.grid(axis="x", visible=False)
    return {"": figure}
