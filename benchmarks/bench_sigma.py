"""How the advantage of noise depends on sigma, and how it ends as sigma goes to zero.

    python benchmarks/bench_sigma.py [--quick] [--json FILE] [--figure FILE]

Two drifts, v and v + dv; both densities start uniform on [0, 1], v = 0. With noise the L2 distance
w of the densities is at most C ||dv|| (norms over space and time), and C depends on how dv moves:

- C = 1/sigma is what all dv allow, up to a factor that does not depend on sigma. A dv that grows
  towards the last time, exp(-D k**2 (T - t)) sin(kx), comes as close as one likes; a steady dv to
  0.902512/sigma, at the wavenumber k* = (1.256 / (D T))**0.5.
- C = 2/(sigma**2 k) at a fixed high wavenumber k, where dv = (a/k) sin(kx) leaves an L2 error of
  2**0.5 a / (sigma k)**2.
- At sigma_c ~ a**0.5 / k that dv leaves half of the L2 error there is without noise,
  (cosh(a T) - 1)**0.5 for every k, and below it more and more: noise is of ever less advantage
  there, whatever the theorem promises. (sigma_c k / a**0.5 is 1.02 at a T = 2, as here, and another
  number for another a T.)

With noise by the Galerkin solver, without by characteristics; every figure at two resolutions.
"""

import argparse
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np
import timing
from matplotlib.figure import Figure
from scipy.optimize import brentq

from fpcontrol.characteristics import Labels, carry
from fpcontrol.drift import Steady
from fpcontrol.fokker_planck import Trajectory, norm
from fpcontrol.galerkin import Galerkin
from fpcontrol.theorems.families import cosine
from fpcontrol.theorems.grids import Grid, measured, solve
from fpcontrol.timestepping import SDIRK4

COMM = MPI.COMM_WORLD
A, T = 2.0, 1.0
SMALL = 1e-3  # amplitude, times sigma, in the linear regime: what is of third order is 1e-6 of w
STEADY_DECAY = 1.2564312  # D k**2 T at which a steady drift costs most: (1 + 2 z) exp(-z) = 1
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")


def deviation(run: Trajectory) -> float:
    """Largest L2 distance to the uniform density over time. Collective."""
    g = Galerkin(run.space)
    return max(norm(g, level - 1.0) for level in run.levels)


def uniform(x: np.ndarray) -> np.ndarray:
    return np.ones(len(x))


# -- small differences: the constant ---------------------------------------------------------------


def growing(sigma: float, m: int, grid: Grid) -> float:
    """``||w(T)|| / ||dv||`` for dv = exp(-D k**2 (T - t)) sin(kx), k = pi m."""
    k = np.pi * m
    decay = 0.5 * sigma**2 * k**2

    def drift(t: float, x: np.ndarray) -> np.ndarray:
        return SMALL * sigma * math.exp(-decay * (T - t)) * np.sin(k * x)

    fine = Grid(grid.cells * m, grid.steps, grid.degree)
    run = solve(COMM, drift, sigma, uniform, T, fine, scheme=SDIRK4())
    size = SMALL * sigma * math.sqrt(0.5 * -math.expm1(-2.0 * decay * T) / (2.0 * decay))
    return deviation(run) / size


def steady(sigma: float, m: int, grid: Grid) -> float:
    """``||w(T)|| / ||dv||`` for dv = sin(kx), k = pi m."""
    k = np.pi * m
    drift = Steady(lambda x: SMALL * sigma * np.sin(k * x))
    fine = Grid(grid.cells * m, grid.steps, grid.degree)
    run = solve(COMM, drift, sigma, uniform, T, fine, scheme=SDIRK4())
    return deviation(run) / (SMALL * sigma * math.sqrt(0.5 * T))


def constants(sigmas: Sequence[float]) -> list[dict[str, Any]]:
    """sigma C for both drifts, at the wavenumber on [0, 1] that is nearest to the worst."""
    rows = []
    for sigma in sigmas:
        d = 0.5 * sigma**2
        m = max(1, round(math.sqrt(STEADY_DECAY / (d * T)) / np.pi))
        z = d * (np.pi * m) ** 2 * T
        fast = max(1, math.ceil(math.sqrt(4.0 / (d * T)) / np.pi))
        grid = Grid(8, 16, degree=3)
        constant, error = measured(partial(steady, sigma, m), grid)
        moving, moving_error = measured(partial(growing, sigma, fast), grid)
        rows.append(
            {
                "sigma": sigma,
                "k/pi steady": m,
                "sigma C steady": sigma * constant,
                "closed form": math.sqrt(2.0 / z) * -math.expm1(-z),
                "error": sigma * error,
                "k/pi growing": fast,
                "sigma C growing": sigma * moving,
                "closed form ": math.sqrt(-math.expm1(-2.0 * d * (np.pi * fast) ** 2 * T)),
                "error ": sigma * moving_error,
            }
        )
    return rows


# -- one drift for all sigma -----------------------------------------------------------------------


def with_noise(sigma: float, m: int, grid: Grid) -> float:
    """Largest L2 distance to the uniform density over time, dv = (a/k) sin(kx), k = 2 pi m."""
    k = 2.0 * np.pi * m
    drift = Steady(lambda x: A / k * np.sin(k * x))
    fine = Grid(grid.cells * m, grid.steps, grid.degree)
    return deviation(solve(COMM, drift, sigma, uniform, T, fine, scheme=SDIRK4()))


def without_noise(m: int, cells: int) -> float:
    """The same for sigma = 0, along characteristics."""
    k = 2.0 * np.pi * m
    labels = Labels.on_interval(COMM, cells * m, uniform)
    flow = carry(
        labels,
        lambda t, x: A / k * np.sin(k * x),
        np.linspace(0.0, T, 9),
        divergence=lambda t, x: A * np.cos(k * x[:, 0]),
        rtol=1e-10,
        atol=1e-10,
    )
    # The uniform density is the mean of the other: ||rho - 1||**2 = ||rho||**2 - 1.
    return float(np.sqrt((flow.norms**2 - 1.0).max()))


def regimes(sigmas: Sequence[float], frequencies: Sequence[int]) -> list[dict[str, Any]]:
    """The L2 error of one drift over sigma, beside closed form, asymptote and no noise."""
    rows = []
    for m in frequencies:
        k = 2.0 * np.pi * m
        few, flat = (without_noise(m, cells) for cells in (16, 32))
        seconds = timing.seconds(COMM, partial(without_noise, m, 32))
        rows.append(row(0.0, k, m, flat, abs(flat - few), flat, seconds))
        for sigma in sigmas:
            # The density peaks over layers of width (D/a)**0.5, and relaxes within 1/(D k**2).
            layer = k * math.sqrt(0.5 * sigma**2 / A)
            cells = int(np.clip(24.0 / layer, 24, 96))
            run = partial(with_noise, sigma, m)
            error, gap = measured(run, Grid(cells, 16, degree=3))
            seconds = timing.seconds(COMM, partial(run, Grid(cells, 16, degree=3)))
            rows.append(row(sigma, k, m, error, gap, flat, seconds))
    return rows


def row(
    sigma: float, k: float, m: int, error: float, gap: float, flat: float, seconds: float
) -> dict[str, Any]:
    kappa = 0.5 * sigma**2 * k**2 / A
    exact = cosine.sup_l2(kappa, A * T)
    return {
        "k/2pi": m,
        "sigma": sigma,
        "kappa": kappa,
        "L2 error": error,
        "error": gap,
        "closed form": exact,
        "off": abs(error / exact - 1.0),
        "over asymptote": error * math.sqrt(2.0) * kappa if sigma else math.nan,
        "of sigma=0": error / flat,
        "C": error / (A / k * math.sqrt(0.5 * T)),
        "noise": says(error / flat, kappa),
        "seconds": seconds,
    }


def says(ratio: float, kappa: float) -> str:
    """In a word what noise is good for here."""
    if kappa == 0.0:
        return "none"
    return "no contrast" if ratio > 0.9 else "helps" if ratio > 0.1 else "decides"


def halved(frequencies: Sequence[int]) -> list[dict[str, Any]]:
    """The sigma that halves the error there is without noise."""
    rows = []
    for m in frequencies:
        k = 2.0 * np.pi * m
        exact = math.sqrt(2.0 * A * cosine.half_kappa(A * T)) / k
        half = 0.5 * without_noise(m, 32)

        def excess(sigma: float, m: int = m, half: float = half) -> float:
            return with_noise(sigma, m, Grid(32, 32, degree=3)) - half

        found = brentq(excess, 0.5 * exact, 2.0 * exact, xtol=1e-7 * exact)
        rows.append(
            {
                "k/2pi": m,
                "sigma_c": found,
                "closed form": exact,
                "off": abs(found / exact - 1.0),
                "sigma_c k / sqrt(a)": found * k / math.sqrt(A),
            }
        )
    return rows


# -- picture ---------------------------------------------------------------------------------------


def draw(tables: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """The constant over sigma, and the error relative to that without noise."""
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
    left.set_title("What a difference of drifts costs (dotted: without noise)", fontsize=10.5)
    right.set(xlabel=r"$\sigma k/\sqrt{a}$", ylabel=r"L2 error over that of $\sigma = 0$")
    right.set_title(r"$\delta v = (a/k)\sin kx$: where noise is of advantage", fontsize=10.5)
    right.set(xlim=(3e-2, 50.0), ylim=(1e-3, 2.0))
    for ax in (left, right):
        ax.legend(frameon=False, fontsize=8.5)
        ax.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Measure, print, write, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few sigmas and wavenumbers: seconds")
    parser.add_argument("--json", help="write the tables to this file, the figure beside it")
    parser.add_argument("--figure", help="draw into this file")
    options = parser.parse_args()
    if options.quick:
        sigmas, frequencies, few = (0.5, 0.1, 0.02), (1, 4), (0.5, 0.1)
    else:
        sigmas = tuple(np.round(np.geomspace(1.0, 0.01, 9), 4))
        frequencies, few = (1, 4, 16), (0.4, 0.2, 0.1, 0.05, 0.02, 0.01)

    tables = {
        "constants": constants(few),
        "regimes": regimes(sigmas, frequencies),
        "halved": halved(frequencies),
    }
    result = {
        "environment": timing.environment(COMM),
        "settings": {"a": A, "T": T, "degree": 3, "scheme": "SDIRK4"},
        "tables": {
            name: [{k.strip(): none_if_nan(v) for k, v in r.items()} for r in rows]
            for name, rows in tables.items()
        },
    }
    if COMM.rank == 0:
        print(f"{COMM.size} rank(s), {result['settings']}")
        print(timing.table("sigma C = sigma ||w|| / ||dv|| for small dv", tables["constants"]))
        print(timing.table("dv = (a/k) sin(kx); sigma = 0 by characteristics", tables["regimes"]))
        print(timing.table("The sigma that halves the error", tables["halved"]))
    if options.json:
        timing.write(options.json, result, COMM)
    figure = options.figure or (options.json and str(Path(options.json).with_suffix(".png")))
    if figure and COMM.rank == 0:
        draw(tables, Path(figure))


def none_if_nan(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


if __name__ == "__main__":
    main()
