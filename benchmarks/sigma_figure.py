"""Figure of bench_sigma.py."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from convergence_figures import COLORS
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from fpcontrol.theorems.closed_forms import cosine


def draw(result: Mapping[str, Any]) -> dict[str, Any]:
    """The constant over sigma, and the error relative to that without noise."""
    tables, A, T = result["tables"], result["settings"]["a"], result["settings"]["T"]
    figure = Figure(figsize=(10.5, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    small, all_rows = tables["constants"], tables["regimes"]
    sigma = np.geomspace(*np.array(sorted(r["sigma"] for r in all_rows if r["sigma"]))[[0, -1]], 80)
    left.loglog(sigma, 1.0 / sigma, color="black", label=r"$1/\sigma$")
    left.loglog(sigma, 0.902512 / sigma, ":", color="black", label=r"$0.9025/\sigma$")
    for key, name, marker in (("growing", "growing", "^"), ("steady", "steady, at $k^*$", "v")):
        left.loglog(
            [r["sigma"] for r in small],
            [r[f"sigma C {key}"] / r["sigma"] for r in small],
            marker,
            color="black",
            markerfacecolor="white",
            label=f"small $\\delta v$, {name}",
        )
    for color, m in zip(COLORS, sorted({r["k/2pi"] for r in all_rows}), strict=False):
        k = 2.0 * np.pi * m
        rows = [r for r in all_rows if r["k/2pi"] == m and r["sigma"]]
        flat = next(r for r in all_rows if r["k/2pi"] == m and not r["sigma"])
        kappa = 0.5 * sigma**2 * k**2 / A
        good = kappa > 1e-3  # the cosine series of the closed form needs many modes below
        exact = np.array([cosine.sup_l2(float(z), A * T) for z in kappa[good]])
        scale = A / k * math.sqrt(0.5 * T)
        name = f"$k = 2\\pi\\cdot{m}$"
        left.loglog(sigma[good], exact / scale, "-", color=color, lw=1.0)
        dots = {"marker": "o", "ls": "", "ms": 5.0, "color": color, "label": name}
        left.loglog([r["sigma"] for r in rows], [r["C"] for r in rows], **dots)
        left.axhline(flat["C"], color=color, lw=0.8, ls=(0, (1, 3)))
        x = np.array([r["sigma"] for r in rows]) * k / math.sqrt(A)
        right.loglog(x, [r["of sigma=0"] for r in rows], **dots)
    z = np.geomspace(2e-3, 2e3, 100)
    line = np.array([cosine.sup_l2(float(v), A * T) for v in z]) / cosine.sup_l2(0.0, A * T)
    right.loglog(np.sqrt(2.0 * z), line, "-", color="black", lw=1.0, label="closed form")
    right.axvspan(3e-2, 1.0, color="0.93", zorder=0)
    right.axhline(1.0, color="0.5", lw=0.8, ls=(0, (1, 3)))
    right.text(0.04, 2e-3, "little or no contrast:\nnoise gains less\nthan half", color="0.3")
    left.set(xlabel=r"$\sigma$", ylabel=r"$\|w\|_{C(L^2)}\,/\,\|\delta v\|_{L^2(L^2)}$")
    left.xaxis.set_minor_formatter(NullFormatter())  # or they overlap where the range is short
    left.set_title("What a difference of drifts costs (dotted: without noise)", fontsize=10.5)
    right.set(xlabel=r"$\sigma k/\sqrt{a}$", ylabel=r"L2 error over that of $\sigma = 0$")
    right.set_title(r"$\delta v = (a/k)\sin kx$: where noise is of advantage", fontsize=10.5)
    right.set(xlim=(3e-2, 50.0), ylim=(1e-3, 2.0))
    for ax in (left, right):
        ax.legend(frameon=False, fontsize=8.5)
        ax.spines[["top", "right"]].set_visible(False)
    return {"": figure}
