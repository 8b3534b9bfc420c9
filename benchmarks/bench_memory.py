"""Memory of a forward run, and of a value with its derivative: bytes per degree of freedom.

    python benchmarks/bench_memory.py [--quick] [--large] [--json FILE]

Every case in a process of its own on one rank: what it holds after each phase, and the highest it
came to, less what it held after the imports and a tiny run of the same kind. Beside it what is
known by count: the levels kept (8 bytes a dof and level), one matrix, the mesh. A minute;
`--large` runs 1e6 dofs in 2-D and 3e5 in 3-D and takes some more; aim: within 24 GiB.
"""

import argparse
import json
import resource
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np
import timing
import traffic
import ufl
from cases import OPTIONS, SIGMA, Case, cheap, network, steady
from dolfinx import fem
from dolfinx.fem.petsc import assemble_matrix
from processes import environment

import fpcontrol as fpc

DOUBLE = 8
GIB = 2.0**30
AIM = 24.0  # GiB
STEPS = 20
TINY = 6
Row = dict[str, Any]
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Spec:
    """What one process runs: squares or cubes a side, and so on."""

    what: str  # steady, moving, derivative
    n: int
    degree: int
    dimension: int


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

    case = Case(spec.n, spec.degree, STEPS, spec.dimension)
    end("mesh and start")
    counts: Row = {
        "dofs": case.dofs,
        "cells": case.mesh.topology.index_map(spec.dimension).size_local,
    }
    t1, common = case.t1(STEPS), {"linear_solver": "gmres", "petsc_options": OPTIONS}
    if spec.what == "derivative":
        drift = network(case, 2, STEPS // 4)
        goal = fpc.density.interpolate(
            case.mesh, lambda x: 1.0 + 0.4 * np.cos(2.0 * np.pi * x[1]), case.degree
        )
        reference = fpc.MoserFlow(case.start, goal, t1, SIGMA)
        end("reference")
        problem = fpc.TrackingProblem(reference, drift, SIGMA, STEPS, **common)
        end("problem")
        value, derivative = problem.value_and_derivative(drift.weights)
        end("value, derivative")
        if not (np.isfinite(value) and np.abs(derivative).max() > 0.0):
            raise AssertionError(f"value {value}, derivative {derivative}")
        return counts
    # A drift that stays is factored (in 2-D), as the equation does unless told otherwise.
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


def measure(spec: Spec) -> Row:
    """One case in a process of its own."""
    command = [sys.executable, "-m", "mpi4py", __file__, "--child", json.dumps(asdict(spec))]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment(), timeout=1800, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{spec} failed with {done.returncode}:\n{done.stderr}")
    found: Row = json.loads(done.stdout.splitlines()[-1])
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


def specs(quick: bool, large: bool) -> list[Spec]:
    """Cases, the small ones first."""
    kinds = ("steady", "moving", "derivative")
    flat = [(30, 1)] if quick else [(318, 1), (159, 2)]
    solid = [6] if quick else [30]
    if large:
        flat += [(1002, 1), (501, 2)]
        solid += [66]
    found = [Spec(kind, n, degree, 2) for n, degree in flat for kind in kinds]
    return found + [Spec(kind, n, 1, 3) for n in solid for kind in kinds]


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny cases: seconds")
    parser.add_argument("--large", action="store_true", help="1e6 dofs in 2-D, 3e5 in 3-D, too")
    parser.add_argument("--json", help="write the table to this file")
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
    worst = max(row["GiB"] for row in rows)
    print(f"\nHighest {worst:.2f} GiB (aim: {AIM:g} GiB).")
    if options.json:
        result = {
            "environment": timing.environment(MPI.COMM_SELF),
            "settings": {"steps": STEPS, "aim GiB": AIM},
            "tables": {"memory": rows},
        }
        timing.write(options.json, result, MPI.COMM_SELF)


if __name__ == "__main__":
    main()
