"""Trained scores: what the SDE, the ODE and all between make of a network, by its training.

    python benchmarks/bench_score.py [--quick] [--targets T..] [--weights W..] [--seeds N] [--out D]
    python benchmarks/bench_score.py --only curves [...]    # six shares of the noise, in the plane
    python benchmarks/bench_score.py --only law [--quick] [--seeds N] [--out D]    # score_law.py

Networks for the logarithm of the noised density are trained by denoising with the residual of the
Fokker-Planck equation at several weights w_R; fpc.score.compare gives the densities of their
samplers without samples. Every network and its figures go to D/score-runs as soon as they are
there, and are not computed again: a run that was broken off goes on, and other shares of the noise
are added to networks that are there. Says its cost first.
"""

import argparse
import time
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np
import results
import score_law
import timing

import fpcontrol as fpc
from fpcontrol.noising import GaussianMixture, OrnsteinUhlenbeck

COMM = MPI.COMM_WORLD
PROCESS = OrnsteinUhlenbeck(t1=6.0)
WEIGHTS = (0.0, 0.1, 1.0, 10.0)
FIGURES = ("l2", "kl", "certificate", "wasserstein", "wall_mass", "collapsed_mass")


def ring(radius: float, n: int) -> np.ndarray:
    """Points of a circle."""
    angle = 2.0 * np.pi * np.arange(n) / n
    return radius * np.column_stack([np.cos(angle), np.sin(angle)])


def grid(*ticks: float) -> np.ndarray:
    """Points of a square grid."""
    return np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)


def checker() -> GaussianMixture:
    """Eight squares of side 1.5, each 4 x 4 Gaussians: smoothed squares."""
    corners = [(i, j) for i in range(4) for j in range(4) if (i + j) % 2 == 0]
    inside = grid(*(0.375 * (np.arange(4) + 0.5)))
    means = [1.5 * np.array(corner) - 3.0 + inside for corner in corners]
    return GaussianMixture(np.concatenate(means), 0.18**2)


@dataclass(frozen=True)
class Target:
    """Data, the box, and how finely all is resolved there before it is refined once."""

    data: GaussianMixture
    half: float
    cells: int
    steps: int
    iterations: int
    noises: tuple[float, ...]
    seconds: float  # processor's, of one network with its figures, as measured

    def mesh(self, cells: int) -> Any:
        """The box."""
        if self.data.dimension == 1:
            return fpc.mesh.interval(COMM, cells, -self.half, self.half)
        corners = [sign * self.half * np.ones(2) for sign in (-1.0, 1.0)]
        return fpc.mesh.rectangle(COMM, (cells, cells), *map(tuple, corners))


LINE = GaussianMixture([-1.2, 1.0], [0.08, 0.15], [0.6, 0.4])
MANY = (1.0, 0.8, 0.6, 0.4, 0.3, 0.2, 0.1, 0.0)
CURVE = (1.0, 0.8, 0.6, 0.4, 0.2, 0.0)
ONE_NOISE = {1: 2.0, 2: 12.0}  # seconds of one share more, by dimension, as measured
TARGETS = {
    "line": Target(LINE, 4.5, 100, 60, 2000, MANY, 24.0),
    "circles": Target(
        GaussianMixture(np.concatenate([ring(1.3, 22), ring(2.8, 44)]), 0.04),
        *(4.8, 24, 30, 3000, (1.0, 0.5, 0.0), 150.0),
    ),
    "blob": Target(
        GaussianMixture(grid(-2.6, 0.0, 2.6), 0.0845), 4.8, 24, 30, 3000, (1.0, 0.0), 100.0
    ),
    "checker": Target(checker(), 4.8, 24, 30, 3000, (1.0, 0.0), 150.0),
}


@dataclass(frozen=True)
class Settings:
    """One network and how it is measured."""

    target: str
    weight: float
    seed: int
    activation: str
    sharpness: float
    hidden: tuple[int, ...]
    iterations: int
    batch: int
    cells: int
    steps: int
    noises: tuple[float, ...]
    tolerance: float

    @property
    def name(self) -> str:
        """Of the files."""
        kind = f"{self.activation}{self.sharpness:g}"
        return f"{self.target}-w{self.weight:g}-{kind}-seed{self.seed}"


def measured(s: Settings, folder: Path | None) -> list[dict[str, Any]]:
    """Rows of one network, one for each share of the noise; read if they are there."""
    rows, network = kept(s, folder)
    missing = [noise for noise in s.noises if noise not in rows]
    if not missing:
        return [rows[noise] for noise in s.noises]
    target = TARGETS[s.target]
    begin = time.process_time()
    model = fpc.score.load(network, PROCESS) if rows and network else trained(s)
    seconds = time.process_time() - begin
    lab = fpc.score.compare(
        model,
        PROCESS.of(target.data),
        target.mesh(s.cells),
        missing,
        steps=s.steps,
        tolerance=s.tolerance,
        wall_tolerance=0.5,  # reported instead
        atoms=300,
    )
    for sampler in lab:
        row: dict[str, Any] = {"target": s.target, "w_R": s.weight, "seed": s.seed}
        row |= {"noise": sampler.noise, "norm": lab.norm}
        for name in FIGURES:
            estimate = getattr(sampler, name)
            row |= {name: estimate.value, f"{name} error": estimate.error}
        row["largest"] = sampler.extremes[1]
        row |= {"training": seconds, "seconds": time.process_time() - begin}
        rows[sampler.noise] = row
    found = [rows[noise] for noise in s.noises]
    if folder is not None and network is not None and COMM.rank == 0:
        model.save(network, MPI.COMM_SELF)
        whole = {"settings": asdict(s) | {"noises": list(rows)}, "rows": list(rows.values())}
        results.write(folder / f"{s.name}.json", whole)
    return found


def positive(s: Settings, rows: list[dict[str, Any]], folder: Path | None) -> list[dict[str, Any]]:
    """The same with KL where densities were below zero, by ``Limited`` on more cells."""
    low = [r["noise"] for r in rows if r["kl"] is None or np.isnan(r["kl"])]
    low = [noise for noise in low if noise > 0.0]
    if folder is None or not low:
        return rows
    file, network, target = folder / f"{s.name}.json", folder / f"{s.name}.npz", TARGETS[s.target]
    lab = fpc.score.compare(
        fpc.score.load(network, PROCESS),
        PROCESS.of(target.data),
        target.mesh(3 * s.cells // 2),
        low,
        steps=s.steps,
        tolerance=s.tolerance,
        wall_tolerance=0.5,
        atoms=20,
        discretization=fpc.Limited(),
    )
    found = results.read(folder, s.name)
    for row in (*rows, *found["rows"]):
        if row["noise"] in low:
            kl = lab[row["noise"]].kl
            row |= {"kl": kl.value, "kl error": kl.error, "kl by": "Limited"}
    if COMM.rank == 0:
        results.write(file, found)
    return rows


def kept(s: Settings, folder: Path | None) -> tuple[dict[float, dict[str, Any]], Path | None]:
    """Rows that are there, by their noise, and the file of the network."""
    if folder is None:
        return {}, None
    network, found = folder / f"{s.name}.npz", results.read(folder, s.name)
    if found is None or not network.exists():
        return {}, network
    wanted = results._plain(asdict(s))
    if found["settings"] | {"noises": wanted["noises"]} != wanted:
        return {}, network
    return {row["noise"]: row for row in found["rows"]}, network


def trained(s: Settings) -> fpc.score.TrainedScore:
    """The network."""
    return fpc.score.train(
        PROCESS,
        TARGETS[s.target].data,
        hidden=s.hidden,
        activation=s.activation,
        sharpness=s.sharpness,
        residual_weight=s.weight,
        iterations=s.iterations,
        batch=s.batch,
        seed=s.seed,
        progress=True,
    )


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over the seeds with the standard deviations, and the largest discretization error."""
    found = []
    for key in dict.fromkeys((r["target"], r["w_R"], r["noise"]) for r in rows):
        own = [r for r in rows if (r["target"], r["w_R"], r["noise"]) == key]
        row = dict(zip(("target", "w_R", "noise"), key, strict=True)) | {"seeds": len(own)}
        scale = {"l2": own[0]["norm"]}  # relative
        for name in FIGURES:
            # Of none if one run has none: KL where a density is below zero.
            values = np.array([r[name] for r in own], dtype=float)
            values[~np.isfinite(values)] = np.nan
            values = values / scale.get(name, 1.0)
            errors = [np.inf if (e := r[f"{name} error"]) is None else e for r in own]
            row[name] = float(values.mean())
            row[f"{name} spread"] = float(values.std(ddof=1)) if len(own) > 1 else None
            row[f"{name} error"] = float(max(errors)) / scale.get(name, 1.0)
        row["largest"] = float(np.mean([r["largest"] for r in own]))
        row["kl by Limited"] = sum("kl by" in r for r in own)  # of the seeds
        found.append(row)
    return found


def shown(rows: list[dict[str, Any]]) -> str:
    """As a table in Markdown: mean +- spread over the seeds (discretization error)."""
    head = (
        "target",
        "w_R",
        "noise",
        "L2/norm",
        "KL",
        "KL at most",
        "W2",
        "at the wall",
        "collapsed",
    )
    lines = [" | ".join(head), "|".join(["---"] * len(head))]
    for row in rows:
        cells = [row["target"], f"{row['w_R']:g}", f"{row['noise']:g}"]
        for name in FIGURES:
            if not np.isfinite(row[name]):
                cells.append("-")
                continue
            spread = f" ± {row[f'{name} spread']:.1g}" if row[f"{name} spread"] else ""
            cells.append(f"{row[name]:.3g}{spread} ({row[f'{name} error']:.0e})")
        lines.append(" | ".join(cells))
    return "\n".join(f"| {line} |" for line in lines)


def settings(options: argparse.Namespace) -> list[Settings]:
    """Of all networks that are asked for, a whole round of seeds before the next."""
    found = []
    curves = options.only == "curves"
    for seed in range(options.seeds):
        for name in options.targets:
            t = TARGETS[name]
            for weight in options.weights:
                one = (name, weight, seed, options.activation, options.sharpness)
                if options.quick:
                    rest = ((16, 16), 200, 128, 50, 20, (1.0, 0.4, 0.0), 1e-4)
                else:
                    hidden, batch = (64, 64), 512
                    noises = CURVE if curves else t.noises
                    rest = (hidden, t.iterations, batch, t.cells, t.steps, noises, 1e-4)
                found.append(Settings(*one, *rest))
    return found


def cost(jobs: list[Settings], quick: bool) -> float:
    """Seconds of a processor, if nothing is there."""
    if quick:
        return 10.0 * len(jobs)
    total = 0.0
    for job in jobs:
        t = TARGETS[job.target]
        more = max(0, len(job.noises) - len(t.noises))
        total += t.seconds + more * ONE_NOISE[t.data.dimension]
    return total


def main() -> None:
    """Run, print, write."""
    parser = results.arguments(__doc__, "score", "two small networks")
    parser.add_argument("--targets", nargs="+", choices=TARGETS, metavar="T")
    parser.add_argument("--weights", nargs="+", type=float, default=list(WEIGHTS), metavar="W")
    parser.add_argument("--seeds", type=int, default=3, metavar="N")
    parser.add_argument("--activation", default="swish")
    parser.add_argument("--sharpness", type=float, default=1.0)
    parser.add_argument("--only", choices=("samplers", "curves", "law"), default="samplers")
    options = parser.parse_args()
    if any(find_spec(name) is None for name in ("jax", "optax")):
        print("bench_score.py is left out: it needs JAX (pip install 'fpcontrol[score]').")
        return
    folder = options.out / "score-runs" if options.out else None
    name = "score" if options.only == "samplers" else f"score-{options.only}"
    result: dict[str, Any] = {"environment": timing.environment(COMM)}
    if options.only == "law":
        if COMM.size > 1:
            print("bench_score.py --only law is left out: it runs on one rank.")
            return
        found = score_law.tables(PROCESS, LINE, options, folder)
        result["settings"], result["tables"] = found
        results.save(options.out, name, result, COMM)
        return
    if options.targets is None:
        options.targets = [t for t in TARGETS if (options.only, t) != ("curves", "checker")]
    if options.quick:
        options.targets, options.weights, options.seeds = ["line"], [0.0, 1.0], 1
    jobs = settings(options)
    if COMM.rank == 0:
        minutes = cost(jobs, options.quick) / 60.0
        print(f"{len(jobs)} networks, about {minutes:.0f} minutes of a processor", flush=True)
    rows: list[dict[str, Any]] = []
    for i, job in enumerate(jobs):
        own = measured(job, folder)
        if options.only == "curves":
            own = positive(job, own, folder)
        rows += own
        if COMM.rank == 0:
            print(f"{i + 1}/{len(jobs)} {job.name}: {own[0]['seconds']:.0f} s", flush=True)
    result["settings"] = [asdict(job) for job in jobs]
    result["tables"] = {"samplers": summary(rows), "networks": rows}
    if COMM.rank == 0:
        print(shown(result["tables"]["samplers"]))
    results.save(options.out, name, result, COMM)


if __name__ == "__main__":
    main()
