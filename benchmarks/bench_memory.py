"""Memory of a forward run, and of a value with its derivative: bytes per degree of freedom.

    python benchmarks/bench_memory.py [--quick] [--large] [--out DIR]

Every case in a process of its own on one rank: what it holds after each phase, and the highest it
came to, less what it held after the imports and a tiny run of the same kind. Beside it what is
known by count: the levels kept (8 bytes a dof and level), one matrix, the mesh; aim: within 24 GiB.
Then a derivative over many steps with everything in memory, and with a share of that as its budget,
by Revolve and on disk: what it takes, and that it is the same derivative. A minute; `--large` runs
1e6 dofs in 2-D and 3e5 in 3-D, too, and takes some more.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np
import results
import timing
import traffic
import ufl
from cases import OPTIONS, SIGMA, Case, cheap, network, steady
from dolfinx import fem
from dolfinx.fem.petsc import assemble_matrix
from processes import environment

import fpcontrol as fpc

DOUBLE = 8
GIB, MB = 2.0**30, 1e6
AIM = 24.0  # GiB
STEPS = 20
TINY = 6
# The derivative that is to fit into a budget: steps, steps of a piece, and the share of what all
# levels take. Operators come after them, so that Revolve keeps one.
MANY, PIECE, SHARE = 400, 20, 0.25
# The derivative may differ by so much, relative to its largest entry.
SAME = 1e-12
Row = dict[str, Any]
WAYS = ("memory", "Revolve", "disk")
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Spec:
    """What one process runs: squares or cubes a side, and so on."""

    what: str  # steady, moving, derivative; or a way to store levels: memory, Revolve, disk
    n: int
    degree: int
    dimension: int

    @property
    def steps(self) -> int:
        """Time steps."""
        return MANY if self.what in WAYS else STEPS

    @property
    def budget(self) -> float:
        """GiB for levels and operators, if it is limited."""
        return SHARE * DOUBLE * self.steps * (self.n * self.degree + 1) ** self.dimension / GIB


def now(name: str) -> float:
    """Bytes held (VmRSS), or the most held since the last reset (VmHWM)."""
    if not STATUS.exists():  # not Linux: only the highest of all is known, macOS gives it in bytes
        unit = 1 if sys.platform == "darwin" else 1024
        return float(unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    line = next(s for s in STATUS.read_text().splitlines() if s.startswith(name))
    return 1024.0 * float(line.split()[1])


class Phases:
    """Memory after each phase, and the highest in it, above a baseline."""

    def __init__(self) -> None:
        self.base = now("VmRSS")
        self.rows: list[Row] = []
        self._reset()

    def end(self, name: str) -> None:
        """Note the end of a phase."""
        peak = max(now("VmHWM"), now("VmRSS"))
        row = {"phase": name, "held": now("VmRSS") - self.base, "peak": peak - self.base}
        self.rows.append(row)
        self._reset()

    @staticmethod
    def _reset() -> None:
        try:
            CLEAR.write_text("5")  # sets VmHWM back to VmRSS
        except OSError:  # then the peaks of phases are those of all phases so far
            return


def run(spec: Spec, phases: Phases | None) -> Row:
    """One case; without phases it only warms up."""

    def end(name: str) -> None:
        if phases is not None:
            phases.end(name)

    case = Case(spec.n, spec.degree, spec.steps, spec.dimension)
    end("mesh and start")
    counts: Row = {
        "dofs": case.dofs,
        "cells": case.mesh.topology.index_map(spec.dimension).size_local,
    }
    t1 = case.t1(spec.steps)
    common: Row = {"linear_solver": "gmres", "petsc_options": OPTIONS}
    if spec.what == "derivative" or spec.what in WAYS:
        drift = network(case, 2, spec.steps // (PIECE if spec.what in WAYS else 4))
        if spec.what in ("Revolve", "disk"):
            common["memory"] = spec.budget
        if spec.what == "disk":
            common["disk"] = tempfile.gettempdir()
        goal = fpc.density.interpolate(
            case.mesh, lambda x: 1.0 + 0.4 * np.cos(2.0 * np.pi * x[1]), case.degree
        )
        reference = fpc.MoserFlow(case.start, goal, t1, SIGMA)
        end("reference")
        problem = fpc.TrackingProblem(reference, drift, SIGMA, spec.steps, **common)
        end("problem")
        value, derivative = problem.value_and_derivative(drift.weights)
        end("value, derivative")
        if not (np.isfinite(value) and np.abs(derivative).max() > 0.0):
            raise AssertionError(f"value {value}, derivative {derivative}")
        if spec.what in WAYS:
            storage = problem.runs.storage
            counts |= storage.record() | {"derivative": derivative.ravel().tolist()}
        return counts
    # A steady drift is factored (in 2-D), as the equation does unless told otherwise.
    options = {} if spec.what == "steady" else common
    drift = steady(case) if spec.what == "steady" else cheap(case)
    equation = fpc.FokkerPlanck(case.mesh, drift, SIGMA, degree=case.degree, **options)
    end("equation")
    trajectory = equation.solve(case.start, t1, STEPS)
    end("run")
    if trajectory.mass_defect > 1e-9:
        raise AssertionError(f"mass defect {trajectory.mass_defect:.1e}")
    return counts


def child(spec: Spec) -> None:
    """Measure one case in this process; prints JSON."""
    run(Spec(spec.what, TINY, spec.degree, spec.dimension), None)
    phases = Phases()
    counts = run(spec, phases)
    case = Case(spec.n, spec.degree, STEPS, spec.dimension)  # what follows is no longer measured
    rho, w = ufl.TrialFunction(case.space), ufl.TestFunction(case.space)
    mass = assemble_matrix(fem.form(rho * w * ufl.dx))
    mass.assemble()
    counts["matrix"] = traffic.csr(case.dofs, traffic.entries(mass))
    print(json.dumps({"phases": phases.rows, **counts}))


def alone(spec: Spec) -> Row:
    """What a case tells, run in a process of its own."""
    command = [sys.executable, "-m", "mpi4py", __file__, "--child", json.dumps(asdict(spec))]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment(), timeout=1800, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{spec} failed with {done.returncode}:\n{done.stderr}")
    found: Row = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(spec: Spec) -> Row:
    """Memory of one case."""
    found = alone(spec)
    dofs = found["dofs"]
    peak = max(phase["peak"] for phase in found["phases"])
    levels = DOUBLE * (STEPS + 1) * dofs
    matrix = found["matrix"]
    row: Row = {
        "run": spec.what,
        "dimension": spec.dimension,
        "degree": spec.degree,
        "dofs": dofs,
        "GiB": peak / GIB,
        "bytes/dof": round(peak / dofs),
        "levels": DOUBLE * (STEPS + 1),
        "without levels": round((peak - levels) / dofs),
        "one matrix": round(matrix / dofs),
        "in matrices": (peak - levels) / matrix,
        "cells/dof": found["cells"] / dofs,
    }
    row["phases"] = [
        {"phase": phase["phase"], **{k: round(phase[k] / dofs) for k in ("held", "peak")}}
        for phase in found["phases"]
    ]
    return row


def budgeted(n: int) -> list[Row]:
    """A derivative over many steps, its levels stored in all ways."""
    rows: list[Row] = []
    expected: np.ndarray | None = None
    for way in WAYS:
        spec = Spec(way, n, 1, 2)
        found = alone(spec)
        derivative = np.array(found["derivative"])
        if expected is None:
            expected = derivative
        off = float(np.abs(derivative - expected).max() / np.abs(expected).max())
        if not off <= SAME:
            raise AssertionError(f"{way}: the derivative is off by {off:.1e}.")
        before, last = found["phases"][-2:]
        planned = sum(found[f"{part}_memory_gib"] for part in ("level", "operator", "work"))
        rows.append(
            {
                "levels": way,
                "dofs": found["dofs"],
                "steps": spec.steps,
                "budget MB": found["memory_budget_gib"] * GIB / MB if way != "memory" else None,
                "snapshots": found["snapshots"],
                "operators": found["operators"],
                "planned MB": planned * GIB / MB,
                "taken MB": (last["peak"] - before["held"]) / MB,
                "peak MB": max(phase["peak"] for phase in found["phases"]) / MB,
                "off by": off,
            }
        )
    return rows


def specs(quick: bool, large: bool) -> list[Spec]:
    """Cases, the small ones first."""
    kinds = ("steady", "moving", "derivative")
    if quick:  # each kind once; levels of some MB, more than what a warm process has to spare
        return [Spec("derivative", 150, 1, 2), *(Spec(kind, 24, 1, 3) for kind in kinds[:2])]
    flat, solid = [(318, 1), (159, 2)], [30]
    if large:
        flat += [(1002, 1), (501, 2)]
        solid += [66]
    found = [Spec(kind, n, degree, 2) for n, degree in flat for kind in kinds]
    return found + [Spec(kind, n, 1, 3) for n in solid for kind in kinds]


def main() -> None:
    """Measure, print, write."""
    parser = results.arguments(__doc__, "memory", "tiny cases: seconds")
    parser.add_argument("--large", action="store_true", help="1e6 dofs in 2-D, 3e5 in 3-D, too")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(Spec(**json.loads(options.child)))
        return
    if MPI.COMM_WORLD.rank > 0:
        return
    rows = []
    for spec in specs(options.quick, options.large):
        row = measure(spec)
        rows.append(row)
        name = f"{row['run']}, {row['dimension']}-D, degree {row['degree']}, {row['dofs']} dofs"
        title = f"{name}: {row['GiB']:.2f} GiB; bytes per dof after and at the highest of a phase"
        print(timing.table(title, row["phases"], 6), flush=True)
    shown = [{k: v for k, v in row.items() if k != "phases"} for row in rows]
    print(timing.table(f"Memory, {STEPS} steps, bytes per dof", shown, 5))
    stored = budgeted(30 if options.quick else 160)
    title = f"Derivative over {MANY} steps, budget {SHARE:g} of all levels"
    print(timing.table(title, stored), flush=True)
    worst = max(row["GiB"] for row in rows)
    print(f"\nHighest {worst:.2f} GiB (aim: {AIM:g} GiB).")
    result = {
        "environment": timing.environment(MPI.COMM_SELF),
        "settings": {"steps": STEPS, "aim GiB": AIM},
        "tables": {"memory": rows, "budget": stored},
    }
    results.save(options.out, "memory", result, MPI.COMM_SELF)


if __name__ == "__main__":
    main()
