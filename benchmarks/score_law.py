"""When has the ODE of a trained score a density? Errors in L2 over the width of bins.

Masses of bins are exact for the flow: an edge of a bin is carried back to the noise along the ODE,
and what is between two of them there is the mass. Edges of wide bins are edges of narrow ones, so
that one run gives all widths, without a log-determinant, which says nothing where mass collapses.
A density's error tends to its own; where mass collapses to points it grows like width**(-1/2).
With noise, the same bins of the equation's solution by elements of degree 2, which have no
diffusion of their own. All is done twice, with half the steps (and cells) the first time.
"""

import argparse
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np
import results
from scipy.special import ndtr

import fpcontrol as fpc
from fpcontrol.noising import GaussianMixture, OrnsteinUhlenbeck
from fpcontrol.noising.reversal import Graded

HALF = 4.5
NOISES = (1.0, 0.4, 0.0)
# Kinks have no second derivative: with "relu" there is no residual to weigh.
KINDS = (
    ("relu", 1.0, 0.0),
    ("softplus", 100.0, 0.0),
    ("softplus", 100.0, 1.0),
    ("swish", 1.0, 0.0),
    ("swish", 1.0, 1.0),
    ("tanh", 1.0, 0.0),
    ("tanh", 1.0, 1.0),
)
SECONDS = 20.0  # processor's, of one network with its figures, as measured
LAST = 3  # halvings over which an exponent is taken


@dataclass(frozen=True)
class Case:
    """One network, and how finely its densities are resolved when all is halved."""

    activation: str
    sharpness: float
    weight: float
    seed: int
    iterations: int = 2000
    finest: int = 1920  # bins
    halvings: int = 6
    ode_steps: int = 320
    cells: int = 480
    sde_steps: int = 120

    @property
    def name(self) -> str:
        """Of its file."""
        return f"law-w{self.weight:g}-{self.activation}{self.sharpness:g}-seed{self.seed}"

    @property
    def bins(self) -> list[int]:
        """Numbers of bins, from the widest bins to the narrowest."""
        return [self.finest // 2**k for k in range(self.halvings, -1, -1)]


def cases(seeds: int, quick: bool) -> list[Case]:
    """A whole round of seeds before the next."""
    if quick:
        small = {"iterations": 300, "finest": 480, "halvings": 4, "ode_steps": 60}
        small |= {"cells": 120, "sde_steps": 30}
        kinds = [("softplus", 100.0, 0.0), ("swish", 1.0, 0.0)]
        return [Case(*kind, 0, **small) for kind in kinds]
    return [Case(*kind, seed) for seed in range(seeds) for kind in KINDS]


def data_masses(data: GaussianMixture, edges: np.ndarray) -> np.ndarray:
    """Of bins, ``(n,)``."""
    y = (edges[:, None] - data.means[:, 0]) / np.sqrt(data.covariances[:, 0, 0])
    return np.diff(ndtr(y) @ data.weights)


def ode_masses(process: OrnsteinUhlenbeck, score: Any, edges: np.ndarray, steps: int) -> np.ndarray:
    """Masses of bins of the ODE, ``(n,)``: edges go back to the noise, by Runge and Kutta."""
    drift, clock = process.reverse(score, noise=0.0), Graded(process)

    def slope(u: float, x: np.ndarray) -> np.ndarray:
        return clock.rate(u) * drift(clock.time(u), x)

    x, h = edges[:, None].copy(), -1.0 / steps
    for i in range(steps):
        u = 1.0 + i * h
        k1 = slope(u, x)
        k2 = slope(u + 0.5 * h, x + 0.5 * h * k1)
        k3 = slope(u + 0.5 * h, x + 0.5 * h * k2)
        k4 = slope(max(u + h, 0.0), x + h * k3)
        x += h / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4)
    return np.diff(ndtr(x[:, 0] / np.sqrt(process.spread)))


def sde_masses(
    process: OrnsteinUhlenbeck, score: Any, noise: float, edges: np.ndarray, cells: int, steps: int
) -> np.ndarray:
    """The same with a share of the noise, by elements of degree 2, integrated exactly."""
    mesh = fpc.mesh.interval(MPI.COMM_SELF, cells, -HALF, HALF)
    drift = process.reverse(score, noise).graded()
    equation = fpc.FokkerPlanck(mesh, drift, drift.sigma, discretization=fpc.Galerkin(degree=2))
    prior = process.prior(1)
    start = fpc.density.interpolate(
        mesh, lambda x: prior(x[:1].T), discretization=fpc.Galerkin(degree=2)
    )
    run = equation.solve(start, 1.0, steps, save="last")
    places = run.space.tabulate_dof_coordinates()[:, 0]
    order = np.argsort(places)
    a, m, b = (run[-1].x.array[order][k : len(order) - 2 + k : 2] for k in range(3))
    width = 2.0 * HALF / cells
    whole = np.concatenate([[0.0], np.cumsum(width / 6.0 * (a + 4.0 * m + b))])
    cell = np.clip(((edges + HALF) / width).astype(int), 0, cells - 1)
    z = (edges + HALF) / width - cell
    a, m, b = a[cell], m[cell], b[cell]
    part = a * z + (4.0 * m - 3.0 * a - b) * z**2 / 2.0 + (2.0 * a - 4.0 * m + 2.0 * b) * z**3 / 3.0
    return np.diff(whole[cell] + width * part)


def distances(masses: np.ndarray, exact: np.ndarray, bins: list[int]) -> list[float]:
    """L2 distance of the two, relative, constant in bins, for all numbers of bins."""
    found = []
    for n in bins:
        p, q = (m.reshape(n, -1).sum(axis=1) for m in (masses, exact))
        found.append(float(np.sqrt(((p - q) ** 2).sum() / (q**2).sum())))
    return found


def measured(case: Case, process: Any, data: Any, folder: Path | None) -> list[dict[str, Any]]:
    """Rows of one network, one for each share of the noise and width; read if they are there."""
    if folder is not None:
        kept = results.read(folder, case.name)
        if kept is not None and kept["settings"] == results._plain(asdict(case)):
            return kept["rows"]
    begin = time.process_time()
    model = fpc.score.train(
        process,
        data,
        activation=case.activation,
        sharpness=case.sharpness,
        residual_weight=case.weight,
        iterations=case.iterations,
        seed=case.seed,
        comm=MPI.COMM_SELF,
    )
    edges = np.linspace(-HALF, HALF, case.finest + 1)
    exact = data_masses(data, edges)
    rows = []
    for noise in NOISES:
        pair = []
        for share in (2, 1):
            if noise > 0.0:
                size = (case.cells // share, case.sde_steps // share)
                pair.append(sde_masses(process, model, noise, edges, *size))
            else:
                pair.append(ode_masses(process, model, edges, case.ode_steps // share))
        coarse, fine = (distances(masses, exact, case.bins) for masses in pair)
        for n, value, other in zip(case.bins, fine, coarse, strict=True):
            row: dict[str, Any] = {"activation": case.activation, "sharpness": case.sharpness}
            row |= {"w_R": case.weight, "seed": case.seed, "noise": noise, "bins": n}
            row |= {"width": 2.0 * HALF / n, "L2": value, "L2 error": abs(value - other)}
            row["heaviest"] = float(pair[1].reshape(n, -1).sum(axis=1).max())
            row["outside"] = float(1.0 - pair[1].sum())
            rows.append(row | {"seconds": time.process_time() - begin})
    if folder is not None:
        results.write(folder / f"{case.name}.json", {"settings": asdict(case), "rows": rows})
    return rows


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over the seeds with the standard deviations, and the largest discretization error."""
    key = ("activation", "sharpness", "w_R", "noise", "bins", "width")
    found = []
    for names in dict.fromkeys(tuple(r[name] for name in key) for r in rows):
        own = [r for r in rows if tuple(r[name] for name in key) == names]
        row = dict(zip(key, names, strict=True)) | {"seeds": len(own)}
        for name in ("L2", "heaviest"):
            values = np.array([r[name] for r in own])
            row[name] = float(values.mean())
            row[f"{name} spread"] = float(values.std(ddof=1)) if len(own) > 1 else None
        row["L2 error"] = max(r["L2 error"] for r in own)
        row["outside"] = max(abs(r["outside"]) for r in own)
        found.append(row)
    return found


def growth(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """How errors grow with narrower bins: the exponent over the last halvings, by the network.

    Between nested bins they never fall: what counts is whether they stop growing.
    """
    key = ("activation", "sharpness", "w_R", "noise")
    found = []
    for names in dict.fromkeys(tuple(r[name] for name in key) for r in rows):
        own = [r for r in rows if tuple(r[name] for name in key) == names]
        exponents, least = [], np.inf
        for seed in dict.fromkeys(r["seed"] for r in own):
            one = sorted((r for r in own if r["seed"] == seed), key=lambda r: r["bins"])
            logs = np.log2([r["L2"] for r in one][-1 - LAST :])
            exponents.append(float(logs[-1] - logs[0]) / LAST)
            least = min(least, float(2.0 ** np.diff(logs).min()))
        row = dict(zip(key, names, strict=True)) | {"seeds": len(exponents)}
        row["exponent"] = float(np.mean(exponents))
        row["exponent spread"] = float(np.std(exponents, ddof=1)) if len(exponents) > 1 else None
        row["least growth"] = least  # at one of these halvings, of one seed
        found.append(row)
    return found


def shown(rows: list[dict[str, Any]], exponents: list[dict[str, Any]]) -> str:
    """As a table in Markdown: errors over the width, mean ± spread over the seeds."""
    bins = sorted({r["bins"] for r in rows})[::2]
    widths = [next(r["width"] for r in rows if r["bins"] == n) for n in bins]
    head = ["activation", "w_R", "noise", *(f"L2, width {w:.2g}" for w in widths)]
    head += ["error at most", "exponent", "least growth", "heaviest bin"]
    lines = [" | ".join(head), "|".join(["---"] * len(head))]
    for one in exponents:
        names = ("activation", "sharpness", "w_R", "noise")
        own = [r for r in rows if all(r[name] == one[name] for name in names)]
        sharp = f" {one['sharpness']:g}" if one["sharpness"] != 1.0 else ""
        cells = [one["activation"] + sharp, f"{one['w_R']:g}", f"{one['noise']:g}"]
        for n in bins:
            row = next(r for r in own if r["bins"] == n)
            cells.append(f"{row['L2']:.3g}{_spread(row, 'L2')}")
        last = max(own, key=lambda r: r["bins"])
        cells.append(f"{max(r['L2 error'] for r in own):.0e}")
        cells.append(f"{one['exponent']:.2f}{_spread(one, 'exponent')}")
        cells.append(f"{one['least growth']:.3f}")
        cells.append(f"{last['heaviest']:.3g}{_spread(last, 'heaviest')}")
        lines.append(" | ".join(cells))
    return "\n".join(f"| {line} |" for line in lines)


def tables(
    process: Any, data: Any, options: argparse.Namespace, folder: Path | None
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Settings of all networks, and the tables. Says the cost first."""
    jobs = cases(1 if options.quick else options.seeds, options.quick)
    seconds = 8.0 if options.quick else SECONDS
    cost = seconds * len(jobs) / 60.0
    print(f"{len(jobs)} networks, about {cost:.0f} minutes of a processor", flush=True)
    rows = []
    for i, case in enumerate(jobs):
        own = measured(case, process, data, folder)
        rows += own
        print(f"{i + 1}/{len(jobs)} {case.name}: {own[-1]['seconds']:.0f} s", flush=True)
    found = {"law": summary(rows), "growth": growth(rows), "networks": rows}
    print(shown(found["law"], found["growth"]))
    return [asdict(case) for case in jobs], found


def _spread(row: dict[str, Any], name: str) -> str:
    return "" if row[f"{name} spread"] is None else f" ± {row[f'{name} spread']:.1g}"
