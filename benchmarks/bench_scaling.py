"""How time steps and derivatives scale over ranks: seconds on the cores there are, and counts.

    python benchmarks/bench_scaling.py [--quick] [--out DIR]

Starts ranks of its own by mpirun. Strong scaling: wall seconds on 1, 2, ... ranks, no more than
there are cores, beside the memory bandwidth of as many ranks in the same rounds. Counts: messages,
bytes and reductions of 1 to 8 ranks with as many degrees of freedom each, whatever the cores. About
two minutes on two cores; benchmarks/README.md explains the columns.
"""

import argparse
import functools
import json
import math
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mpi4py import MPI

import mpi_counts
import numpy as np
import results
import scaling_blocks
import timing
from petsc4py import PETSc
from scaling_blocks import waiting, wall

import fpcontrol as fpc

WORLD = MPI.COMM_WORLD
SIGMA = 0.5
D = 0.5 * SIGMA**2
RTOL = 1e-10
# Equal work on any number of ranks: as many iterations in every solve as the tolerance above takes
# on two ranks, where the preconditioner (additive Schwarz) is weaker than on one.
ITERATIONS = 4
OPTIONS: dict[str, Any] = {
    "ksp_type": "gmres",
    "ksp_rtol": RTOL,
    "ksp_atol": 1e-300,
    "ksp_pc_side": "right",
}
EQUAL = OPTIONS | {"ksp_convergence_test": "skip", "ksp_max_it": ITERATIONS}
# Different ranks end at different residuals after as many iterations.
SAME = 1e-7
DOUBLES = 24_000_000  # in each array of the triad, over all ranks: beyond any cache
SHORT = 2  # steps of the run that is taken off another, and with it what is made only once


class Case:
    """A unit square on a communicator with dt D/h^2 = 1, and what runs on it."""

    def __init__(self, comm: MPI.Comm, n: int, steps: int) -> None:
        self.comm, self.steps = comm, steps
        self.mesh = fpc.mesh.rectangle(comm, (n, n))
        self.dt = 1.0 / (n * n * D)
        self.start = fpc.density.interpolate(
            self.mesh, lambda x: 1.0 + 0.5 * np.cos(np.pi * x[0]) * np.cos(np.pi * x[1]), 1
        )
        self.map = self.start.function_space.dofmap.index_map
        self.dofs = self.map.size_global

    def forward(self, options: dict[str, Any]) -> Callable[[int], fpc.Trajectory]:
        """Steps with a drift that turns once over the run."""

        def drift(t: float, x: np.ndarray) -> np.ndarray:
            a = 2.0 * np.pi * t / (self.dt * self.steps)
            return np.array([0.5 + 0.25 * np.cos(a), 0.5 + 0.25 * np.sin(a)]) - x

        equation = fpc.FokkerPlanck(
            self.mesh, drift, SIGMA, degree=1, linear_solver="gmres", petsc_options=options
        )
        return lambda steps: equation.solve(self.start, steps * self.dt, steps)

    def problem(self, steps: int, options: dict[str, Any]) -> fpc.TrackingProblem:
        """A network of width 2 that switches every second step."""
        goal = fpc.density.uniform(self.mesh, 1)
        t1 = steps * self.dt
        reference = fpc.MoserFlow(self.start, goal, t1, SIGMA)
        drift = fpc.NetworkDrift(self.mesh, 2, steps // 2, t1)
        return fpc.TrackingProblem(
            reference, drift, SIGMA, steps, linear_solver="gmres", petsc_options=options
        )

    def square(self, trajectory: fpc.Trajectory) -> float:
        """Sum of squares of the last density. Collective."""
        u = trajectory.levels[-1][: self.map.size_local]
        return float(self.comm.allreduce(float(u @ u)))


# -- strong scaling --------------------------------------------------------------------------------


@functools.cache
def arrays(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The triad's; new memory would cost more than what is measured."""
    return np.zeros(n), np.ones(n), np.full(n, 2.0)


def triad(comm: MPI.Comm, doubles: int = DOUBLES) -> float:
    """Bytes per second of ``a = b + s c`` in two passes of numpy, all ranks together. Collective.

    Five arrays go by: c and a, then a, b and a.
    """
    n = doubles // comm.size
    a, b, c = arrays(n)

    def run() -> None:
        np.multiply(c, 3.0, out=a)
        np.add(a, b, out=a)

    return 5 * 8 * n * comm.size / min(wall(comm, run) for _ in range(3))


class Timed:
    """What is timed on one number of ranks."""

    def __init__(self, comm: MPI.Comm, n: int, steps: int) -> None:
        self.comm, self.steps = comm, steps
        self.case = case = Case(comm, n, steps)
        self.equal, self.exact = case.forward(EQUAL), case.forward(OPTIONS)
        self.problem = case.problem(steps, EQUAL)
        self.weights = self.problem.drift.weights
        self.results: dict[str, Any] = {}

    def round(self, i: int, doubles: int) -> dict[str, float]:
        """Seconds of one round, a step's where steps are meant; the triad's bytes a second."""
        # The problem remembers its last run: weights that differ make it run again.
        weights = self.weights * (1.0 + 1e-9 * (i + 1))
        step = wall(self.comm, lambda: self._keep("square", self.equal(self.steps)))
        step -= wall(self.comm, lambda: self.equal(SHORT))
        exact = wall(self.comm, lambda: self._keep("exact", self.exact(self.steps)))
        exact -= wall(self.comm, lambda: self.exact(SHORT))
        both = wall(self.comm, lambda: self._both(weights))
        count = self.steps - SHORT
        return {
            "step": step / count,
            "step to tolerance": exact / count,
            "value + derivative": both / self.steps,
            "triad": triad(self.comm, doubles),
        }

    def _keep(self, name: str, trajectory: fpc.Trajectory) -> None:
        self.results[name] = trajectory

    def _both(self, weights: np.ndarray) -> None:
        self.results["both"] = self.problem.value_and_derivative(weights)

    def found(self) -> dict[str, Any]:
        """What must not depend on the ranks, and the iterations. Collective."""
        value, derivative = self.results["both"]
        return {
            "square": self.case.square(self.results["square"]),
            "value": value,
            "derivative": derivative,
            "iterations": self.results["square"].iterations / self.steps,
            "iterations to tolerance": self.results["exact"].iterations / self.steps,
        }


def strong(n: int, steps: int, rounds: int, doubles: int) -> list[dict[str, Any]]:
    """Seconds on 1, 2, 4, ... ranks of the world, in turns within each round. Collective."""
    sizes = [2**k for k in range(WORLD.size.bit_length()) if 2**k <= WORLD.size]
    parts = {p: WORLD.Split(0 if WORLD.rank < p else MPI.UNDEFINED, WORLD.rank) for p in sizes}
    timed: dict[int, Timed] = {}
    times: dict[int, list[dict[str, float]]] = {p: [] for p in sizes}
    for i in range(-1, rounds):  # the first warms up
        for p, comm in parts.items():
            if comm != MPI.COMM_NULL:
                if p not in timed:
                    timed[p] = Timed(comm, n, steps)
                seconds = timed[p].round(i, doubles)
                if i >= 0:
                    times[p].append(seconds)
            waiting(WORLD)  # the others sleep meanwhile
    found = {p: t.found() for p, t in timed.items()}
    if WORLD.rank > 0:
        return []
    rows = []
    for p in sizes:
        one, own = times[1], times[p]
        row: dict[str, Any] = {"ranks": p, "dofs": timed[p].case.dofs}
        bandwidth = timing.median([b["triad"] / a["triad"] for a, b in zip(one, own, strict=True)])
        row |= {"triad GB/s": timing.median([t["triad"] for t in own]) / 1e9}
        row |= {"triad ratio": bandwidth}
        for name in ("step", "step to tolerance", "value + derivative"):
            speedups = [a[name] / b[name] for a, b in zip(one, own, strict=True)]
            shares = [
                s * a["triad"] / b["triad"] for s, a, b in zip(speedups, one, own, strict=True)
            ]
            row[f"{name}, s"] = timing.median([t[name] for t in own])
            row[f"{name}, speedup"] = timing.median(speedups)
            row[f"{name}, of triad"] = timing.median(shares)
        row["its"] = found[p]["iterations"]
        row["its to tolerance"] = found[p]["iterations to tolerance"]
        row["difference"] = difference(found[1], found[p])
        rows.append(row)
    return rows


def difference(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Largest relative difference of density, value and derivative on two numbers of ranks."""
    return max(
        abs(other["square"] / one["square"] - 1.0),
        abs(other["value"] / one["value"] - 1.0),
        float(np.abs(other["derivative"] - one["derivative"]).max())
        / float(np.abs(one["derivative"]).max()),
    )


# -- counts ----------------------------------------------------------------------------------------


def counts(dofs: int) -> list[dict[str, Any]]:
    """Counts of the world's ranks, with as many degrees of freedom each. Collective."""
    case = Case(WORLD, round(math.sqrt(dofs * WORLD.size)) - 1, 4)
    PETSc.Log.begin()
    ghosts = case.map.num_ghosts
    neighbors = len(np.unique(case.map.owners))
    geometry = {
        "ranks": WORLD.size,
        "dofs": case.dofs,
        "neighbors": WORLD.allreduce(neighbors, op=MPI.MAX),
        "ghosts/owned": WORLD.allreduce(ghosts / case.map.size_local, op=MPI.MAX),
    }
    # The most loaded rank, in units of what one update of its ghosts takes.
    updates = max(1, neighbors), max(1, 8 * ghosts)
    rows = []
    for name, options in (("equal iterations", EQUAL), ("to tolerance", OPTIONS)):
        for what in ("forward", "value + derivative"):
            few, many = (runs(case, what, steps, options) for steps in (2, 6))
            once = {k: (many[k] - few[k]) / 4 for k in few}  # a step's
            top = {k: WORLD.allreduce(v, op=MPI.MAX) for k, v in once.items()}
            rows.append(
                geometry
                | {
                    "run": what,
                    "solves": name,
                    "its/step": top["iterations"],
                    "messages": top["messages"],
                    "kB": top["bytes"] / 1e3,
                    "messages/neighbor": WORLD.allreduce(once["messages"] / updates[0], op=MPI.MAX),
                    "bytes/ghost bytes": WORLD.allreduce(once["bytes"] / updates[1], op=MPI.MAX),
                    "reductions": top["reductions"],
                    "other collectives": top["other collectives"],
                    "PETSc messages": top["PETSc messages"],
                }
            )
    return rows


def runs(case: Case, what: str, steps: int, options: dict[str, Any]) -> dict[str, float]:
    """What this rank sends in a run of some steps. Collective."""
    iterations = 0

    def forward() -> None:
        nonlocal iterations
        iterations = case.forward(options)(steps).iterations

    def derivative() -> None:
        nonlocal iterations
        before = solver.iterations
        problem.value_and_derivative(1.001 * problem.drift.weights)
        iterations = solver.iterations - before

    if what != "forward":
        problem = case.problem(steps, options)
        solver = problem.runs.sweeps.stepper.solver
        # What is made at the first evaluation and kept, an optimization makes only once.
        problem.value_and_derivative(problem.drift.weights)
    WORLD.barrier()
    event = PETSc.Log.Event(f"{what} {steps} {len(options)}")
    event.begin()
    found = mpi_counts.counted(forward if what == "forward" else derivative)
    event.end()
    logged = event.getPerfInfo()
    return found | {
        "iterations": iterations,
        # PETSc counts a message where it is sent and where it is received.
        "PETSc messages": logged["numMessages"] / 2,
    }


def judged(rows: list[dict[str, Any]]) -> list[str]:
    """What grows with the ranks that should not, at equal iterations."""
    wrong = []
    for what in ("forward", "value + derivative"):
        some = [r for r in rows if r["run"] == what and r["ranks"] > 1]
        equal = [r for r in some if r["solves"] == "equal iterations"]
        for key, most in (
            ("reductions", 1.0),
            ("other collectives", 1.0),
            ("messages/neighbor", 1.5),  # of additive Schwarz, whose overlap has more neighbors
            ("bytes/ghost bytes", 1.5),
        ):
            values = [r[key] for r in equal]
            if max(values) > most * values[0] + 1e-9:
                wrong.append(f"{what}: {key} a step grow with the ranks: {values}")
    return wrong


# -- ranks and their launcher ----------------------------------------------------------------------


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def launched(options: argparse.Namespace) -> dict[str, Any]:
    """Run all parts on ranks of their own; on one process."""
    n, steps, rounds = (64, 10, 1) if options.quick else (512, 6, 3)
    n_blocks = 32 if options.quick else 256
    doubles = DOUBLES // 48 if options.quick else DOUBLES
    dofs, rank_counts = (500, (1, 2, 3)) if options.quick else (2000, (1, 2, 4, 8))
    tables: dict[str, list[dict[str, Any]]] = {"strong": [], "blocks": [], "counts": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        part = folder / "part.json"

        def run(ranks: int, *arguments: Any, **more: Any) -> list[dict[str, Any]]:
            command = [__file__, "--part", str(part), *map(str, arguments)]
            mpi_counts.launch(ranks, *command, **more)
            return json.loads(part.read_text())

        strong_ranks = 2 ** int(math.log2(min(cores(), 8)))
        tables["strong"] = run(strong_ranks, "strong", n, steps, rounds, doubles)
        if strong_ranks > 1:
            tables["blocks"] = run(strong_ranks, "blocks", n_blocks, min(rounds, 2))
        library = mpi_counts.built(folder)
        for ranks in rank_counts:
            tables["counts"] += run(ranks, "counts", dofs, preload=library)
    return {
        "environment": timing.environment(MPI.COMM_SELF) | {"cores to use": cores()},
        "settings": {
            "dt D/h^2": 1.0,
            "degree": 1,
            "petsc options": OPTIONS,
            "equal iterations": ITERATIONS,
            "steps": steps,
            "rounds": rounds,
            "doubles in an array of the triad": doubles,
        },
        "tables": tables,
    }


def report(result: dict[str, Any]) -> list[str]:
    """Print the tables; what is wrong."""
    tables = result["tables"]
    print(result["settings"])
    for name in ("step", "step to tolerance", "value + derivative"):
        rows = [
            {
                "ranks": r["ranks"],
                "dofs": r["dofs"],
                "its": r["its to tolerance" if name == "step to tolerance" else "its"],
                "ms": 1e3 * r[f"{name}, s"],
                "speedup": r[f"{name}, speedup"],
                "triad GB/s": r["triad GB/s"],
                "triad ratio": r["triad ratio"],
                "of triad": r[f"{name}, of triad"],
                "difference": r["difference"],
            }
            for r in tables["strong"]
        ]
        print(timing.table(f"Strong scaling, {name}: wall milliseconds a step", rows))
    print(timing.table("Preconditioners of blocks", tables["blocks"]))
    geometry = ("ranks", "dofs", "neighbors", "ghosts/owned")
    own = ("its/step", "messages", "kB", "messages/neighbor", "bytes/ghost bytes", "reductions")
    own += ("other collectives", "PETSc messages")
    for what in ("forward", "value + derivative"):
        for solves in ("equal iterations", "to tolerance"):
            rows = [
                {k: r[k] for k in (*geometry, *own)}
                for r in tables["counts"]
                if (r["run"], r["solves"]) == (what, solves)
            ]
            print(timing.table(f"Counts a step, {what}, {solves}", rows))
    wrong = judged(tables["counts"])
    for r in tables["strong"]:
        if r["difference"] > SAME:
            wrong.append(f"on {r['ranks']} ranks the results differ by {r['difference']:.1e}")
    return wrong


def main() -> None:
    """Launch, print, write, draw; or be one of the ranks launched."""
    parser = results.arguments(__doc__, "scaling", "small meshes, few ranks: seconds")
    parser.add_argument("--part", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        path, part, *numbers = options.part
        parts = {"strong": strong, "blocks": scaling_blocks.measure, "counts": counts}
        rows = parts[part](*map(int, numbers))
        if WORLD.rank == 0:
            results.write(Path(path), rows)
        return
    wrong: list[str] = []
    if WORLD.rank == 0:
        result = launched(options)
        wrong = report(result)
        results.save(options.out, "scaling", result, MPI.COMM_SELF)
        for line in wrong:
            print(f"FAILED  {line}")
    waiting(WORLD)
    if wrong:
        sys.exit(1)


if __name__ == "__main__":
    main()
