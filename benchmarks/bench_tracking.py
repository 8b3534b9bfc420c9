"""How closely a drift of limited width follows a reference, and what it costs.

    python benchmarks/bench_tracking.py [--quick] [--out DIR] [--tables NAME ...] [--scale FACTOR]
    python benchmarks/bench_tracking.py --check [--out DIR]

Targets, widths, pieces, noises and domains as in tracking_cases.py, from the uniform density, each
for several seeds, side by side on the ranks. Optimized with Galerkin's method of degree 1 by
``fpc.steer`` (without noise by L-BFGS along characteristics, from steep weights), then the same
weights are looked at by ``Limited()``, whose density is positive: on four steps a piece, on eight,
and on the mesh refined once. DIR/tracking/ keeps weights and figures of every case: a run that was
broken off goes on with the others, --check computes the figures of the weights anew, and --pictures
draws the densities of the closest and of the farthest to DIR/tracking_cases.png.
"""

import json
import sys
import time
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np
import results
import timing
import tracking_figure
from tracking_cases import DOMAINS, TABLES, USUAL, Case

import fpcontrol as fpc
from fpcontrol.parallel.files import replacing

COMM = MPI.COMM_WORLD


def problem_of(case: Case, comm: MPI.Comm) -> fpc.TrackingProblem:
    """The problem that the figures are of."""
    reference = case.reference(comm, case.cells)
    mesh = reference.elements.mesh
    width = case.width or mesh.geometry.dim
    network = partial(fpc.NetworkDrift, mesh, width, activation=case.activation, seed=case.seed)
    drift: fpc.ParametricDrift = network(case.pieces)
    if case.method not in ("steer", "lmvm"):
        steep = fpc.construction.steep_weights(drift, case.seed)
        drift = drift.with_weights(steep)
    if case.method == "linear":
        more = network(case.pieces + 1)
        steep = fpc.construction.steep_weights(more, case.seed)
        time = fpc.PiecewiseLinear(case.pieces)
        drift = fpc.ParametricDrift(mesh, more.field, time, steep)
    if case.method == "ode":
        coarse = DOMAINS[case.domain](comm, case.cells // 2)  # some 4 000 markers
        options = {"marker_mesh": coarse, "quadrature_degree": 4}
        return fpc.TrackingProblem(reference, drift, 0.0, 2 * case.pieces, **options)
    return fpc.TrackingProblem(reference, drift, reference.noise.sigma, 4 * case.pieces)


def optimized(case: Case, comm: MPI.Comm, seconds: float) -> fpc.Result:
    """Weights within a budget."""
    problem = problem_of(case, comm)
    quiet: dict[str, Any] = {"progress": False}
    if case.method == "steer":
        coarser = case.domain not in ("disk", "L-shape")
        return fpc.steer(
            problem.reference,
            drift=problem.drift,
            budget=seconds,
            max_evaluations=case.evaluations,
            seed=case.seed,
            coarse=case.reference(comm, case.cells // 2) if coarser else None,
            **quiet,
        )
    method = "lmvm" if "lmvm" in case.method or case.method == "ode" else "gauss_newton"
    limits: dict[str, Any] = {"max_evaluations": case.evaluations, "max_seconds": seconds}
    return fpc.minimize(problem, method=method, max_iterations=10**6, **limits, **quiet)


def positive(problem: fpc.TrackingProblem) -> fpc.TrackingProblem:
    """The same problem by ``Limited()``."""
    r = problem.reference
    flow = fpc.MoserFlow(r.start, r.goal, r.t1, problem.sigma, discretization=fpc.Limited())
    return problem.on(flow)


def looked_at(case: Case, weights: np.ndarray, comm: MPI.Comm) -> dict[str, Any]:
    """Figures of weights."""
    problem = problem_of(case, comm)
    if case.method == "ode":
        errors = problem.errors(weights)
        mesh = DOMAINS[case.domain](comm, 2 * case.cells)
        again = problem.refined(2 * problem.steps, marker_mesh=mesh).errors(weights)
        low = problem.mass_and_minimum(weights)[1].min() * problem.elements.volume
        return {
            "error": errors.relative_error,
            "sup error": errors.relative_sup_error,
            "error, finer mesh": again.relative_error,
            "minimum / mean": float(low),
        }
    limited = positive(problem)
    errors = limited.errors(weights)
    eight = limited.refined(2 * problem.steps).errors(weights)
    fine = problem.on_refined_mesh(problem.steps, discretization=fpc.Limited())
    run = limited.trajectory(weights)
    last, goal = run[-1], problem.reference.goal
    volume = problem.elements.volume
    w2 = fpc.distances.sliced_wasserstein if problem.elements.dimension > 1 else None
    return {
        "error": errors.relative_error,
        "sup error": errors.relative_sup_error,
        "error, 8 steps": eight.relative_error,
        "error, finer mesh": fine.errors(weights).relative_error,
        "error, Galerkin": problem.errors(weights).relative_error,
        "minimum / mean": float(run.minimum.min() * volume),
        "limited nodes": run.limited_fraction,
        "KL at the end": fpc.distances.kl(last, goal),
        "W2 at the end": w2(last, goal) if w2 else fpc.distances.wasserstein(last, goal),
    }


def forward_seconds(problem: fpc.TrackingProblem, weights: np.ndarray) -> float:
    """Processor seconds of a forward run, of four steps a piece."""
    problem(0.999 * weights)
    begin = time.process_time()
    problem(1.001 * weights)
    return time.process_time() - begin


def pictures(folder: Path, runs: list[Case]) -> None:
    """Draw the plane's closest and farthest case with noise, of those known, beside the weights."""
    known = {}
    for case in runs:
        path = folder / f"{case.name}.json"
        if path.exists() and case.sigma > 0.0 and DOMAINS[case.domain] is DOMAINS["square"]:
            known[case] = json.loads(path.read_text())["error"]
    if not known:
        print("No weights of cases in the plane with noise are there to draw.", file=sys.stderr)
        return
    rows = []
    for case in (min(known, key=known.__getitem__), max(known, key=known.__getitem__)):
        with np.load(folder / f"{case.name}.npz") as file:
            limited = positive(problem_of(case, MPI.COMM_SELF))
            run = limited.trajectory(file["weights"])
        times = np.linspace(0.0, 1.0, 5)
        levels = [round(t * limited.steps) for t in times]
        name = (
            f"{case.target}, sigma = {case.sigma:.3g}, width {case.width or 2}, {case.pieces} "
            f"pieces: relative error {known[case]:.3g}"
        )
        reference = np.array([limited.reference.coefficients(t) for t in times])
        rows.append((name, limited.elements.mesh, times, reference, run.levels[levels]))
    figure = tracking_figure.densities(rows)
    with replacing(folder.with_name("tracking_cases.png"), MPI.COMM_SELF) as beside:
        figure.savefig(beside, dpi=120, format="png")


class Bench:
    """Runs cases that have no figures yet, and collects those of all."""

    def __init__(self, folder: Path, scale: float, check: bool) -> None:
        self.folder, self.scale, self.check = folder, scale, check

    def __call__(self, case: Case, comm: MPI.Comm) -> dict[str, Any]:
        """Figures of a case; its files are written on rank 0 of the group."""
        path = self.folder / f"{case.name}.json"
        warnings.simplefilter("ignore")  # of what the table itself says
        if path.exists():
            known = json.loads(path.read_text())
            if self.check:
                with np.load(path.with_suffix(".npz")) as file:
                    return known | {"again": looked_at(case, file["weights"], comm)["error"]}
            return dict(known)
        begin = time.monotonic()
        result = optimized(case, comm, self.scale * case.seconds)
        seconds = time.monotonic() - begin
        forward = forward_seconds(result.problem, result.weights)
        row = looked_at(case, result.weights, comm) | {
            "uncontrolled": result.uncontrolled.relative_error if result.uncontrolled else None,
            "derivatives": result.evaluations,
            "seconds": seconds,
            "forward runs' worth": seconds / forward,
            "history": [(i.seconds, i.relative_error) for i in result.history],
        }
        if comm.rank == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            np.savez_compressed(path.with_suffix(".npz"), weights=result.weights)
            results.write(path, row)
        return row


def main() -> None:
    """Run, print, write."""
    parser = results.arguments(__doc__, "tracking", "one case of each table, 40 evaluations")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=USUAL, metavar="NAME")
    parser.add_argument("--scale", type=float, default=1.0, help="factor of all budgets")
    parser.add_argument("--check", action="store_true", help="only figures of known weights, anew")
    parser.add_argument("--pictures", action="store_true", help="of known weights, too")
    options = parser.parse_args()
    out = options.out or Path("out/benchmarks")
    runs = list(dict.fromkeys(c for t in options.tables for c in TABLES[t].runs))
    if options.quick:
        small = {"cells": 8, "pieces": 8, "seconds": 60.0, "evaluations": 40}
        runs = [replace(TABLES[t].cases[0], **small) for t in options.tables]
    bench = Bench(out / "tracking", options.scale, options.check)
    missing = [c for c in runs if not (bench.folder / f"{c.name}.json").exists()]
    if options.check:
        runs = [c for c in runs if c not in missing]
    elif COMM.rank == 0:
        total = options.scale * sum(c.seconds for c in missing) / COMM.size
        print(
            f"{len(missing)} of {len(runs)} cases to run, {total / 60:.0f} minutes on {COMM.size} "
            "rank(s) and a third more to look at what came out",
            file=sys.stderr,
            flush=True,
        )
    if not runs:
        return
    found = dict(zip(runs, fpc.ensemble.run(bench, runs), strict=True))
    tables: dict[str, list[dict[str, Any]]] = {}
    for name in options.tables:
        table, rows = TABLES[name], []
        for case in table.cases:
            seeds = [found[c] for c in table.runs if c in found and replace(c, seed=0) == case]
            if options.quick:
                seeds = [found[runs[options.tables.index(name)]]] * (case is table.cases[0])
            if seeds:
                rows.append(_row(case, seeds))
        tables[name] = rows
    if COMM.rank == 0:
        for name, rows in tables.items():
            print(f"\n{name}\n" + _printed(rows, options.check))
    if options.pictures and COMM.rank == 0:
        pictures(bench.folder, runs)
    if options.check:
        return
    earlier = (results.read(out, "tracking") or {}).get("tables", {})
    result = {
        "environment": timing.environment(COMM),
        "scale": options.scale,
        "tables": {**earlier, **tables},
    }
    results.save(options.out, "tracking", result, COMM)


def _row(case: Case, seeds: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the seeds, with the smallest and the largest error."""
    row: dict[str, Any] = {
        "target": case.target,
        "domain": case.domain,
        "width": case.width or {"interval": 1, "box": 3}.get(case.domain, 2),
        "pieces": case.pieces,
        "sigma": round(case.sigma, 3),
        "method": case.method,
        "activation": case.activation,
        "seeds": len(seeds),
    }
    for key in seeds[0]:
        if key != "history":
            values = [s[key] for s in seeds if s.get(key) is not None]
            row[key] = float(np.median(values)) if values else None
    row["lowest error"] = min(s["error"] for s in seeds)
    row["highest error"] = max(s["error"] for s in seeds)
    row["histories"] = [s["history"] for s in seeds]
    return row


def _printed(rows: list[dict[str, Any]], check: bool) -> str:
    keys = ["target", "domain", "width", "pieces", "sigma", "method", "activation"]
    keys += ["seeds", "error"]
    keys += ["again"] if check else []
    keys += ["lowest error", "highest error", "sup error", "error, finer mesh", "minimum / mean"]
    keys += ["KL at the end", "W2 at the end", "derivatives", "seconds", "forward runs' worth"]
    lines = [" | ".join(keys), " | ".join("---" for _ in keys)]
    for row in rows:
        cells = (row.get(key) for key in keys)
        lines.append(
            " | ".join(
                "" if c is None else f"{c:.3g}" if isinstance(c, float) else str(c) for c in cells
            )
        )
    return "\n".join(f"| {line} |" for line in lines)


if __name__ == "__main__":
    main()
