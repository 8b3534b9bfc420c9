"""Which linear solver, or none, for a time step whose operator is refilled?

    python benchmarks/bench_solvers.py [--quick] [--large] [--only TABLE] [--out DIR]

Two minutes of one core; benchmarks/README.md explains the tables.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from mpi4py import MPI

import results
import timing
from solvers_candidates import EVERYTHING, FAST, MAIN, SLOW_IN_3D, THRIFT
from solvers_explicit import cost, errors, limits
from solvers_measure import Candidate, compare
from solvers_problem import Problem

COMM = MPI.COMM_WORLD
Rows = list[dict[str, Any]]
# All stop at RTOL in the (mostly preconditioned) residual, and then differ by this much at most.
RTOL, SAME = 1e-10, 1e-8
SAFEST = "GMRES, ILU(4)"


@dataclass(frozen=True)
class Size:
    """How much is run: cells a side, ratios dt D/h^2, steps, rounds."""

    square: int = 128
    quadratic: int = 64
    cube: int = 20
    refined: tuple[int, ...] = (64, 128, 256)
    ratios: tuple[float, ...] = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
    few: tuple[float, ...] = (1.0, 10.0, 100.0)
    steps: int = 3
    rounds: int = 2


QUICK = Size(24, 12, 8, (12, 24), (1.0, 10.0), (1.0, 10.0), 2, 1)
LARGE = Size(181, 90, 31, (64, 128, 256, 512), (0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0))


def measured(problem: Problem, candidates: dict[str, Candidate], size: Size, **more: Any) -> Rows:
    """Rows of one problem, with what tells it from the others in front."""
    rows = compare(problem, candidates, size.rounds, more.pop("rtol", RTOL))
    head = {
        "dim": problem.dimension,
        "degree": problem.degree,
        "dofs": problem.dofs,
        "dt D/h2": problem.ratio,
        "stiffness": problem.stiffness,
    }
    problem.destroy()
    return [head | more | row for row in rows]


def everything(size: Size) -> Rows:
    """All solvers on the unit square, degree 1."""
    rows = []
    for ratio in size.few:
        rows += measured(Problem(2, size.square, 1, ratio, size.steps), EVERYTHING, size)
    return rows


def sweep(size: Size) -> Rows:
    """The best ones over the time step, degree 1 and 2 in 2-D, degree 1 in 3-D."""
    rows = []
    cases = ((2, size.square, 1), (2, size.quadratic, 2), (3, size.cube, 1))
    for dimension, n, degree in cases:
        for ratio in size.ratios if (dimension, degree) == (2, 1) else size.few:
            problem = Problem(dimension, n, degree, ratio, size.steps)
            leave = SLOW_IN_3D if dimension == 3 else ()
            rows += measured(problem, {k: c for k, c in MAIN.items() if k not in leave}, size)
    return rows


def refinement(size: Size) -> Rows:
    """One time step, ever finer meshes: dt D/h^2 grows by four."""
    rows = []
    for n in size.refined:
        ratio = 3.0 * (n / size.refined[0]) ** 2
        rows += measured(Problem(2, n, 1, ratio, size.steps), MAIN, size)
    return rows


def drift(size: Size) -> Rows:
    """The best ones over the cell Peclet number; a reason below zero is PETSc's for giving up."""
    rows = []
    for peclet in (0.1, 1.0, 5.0):
        for ratio in size.few:
            problem = Problem(2, size.square // 2, 1, ratio, size.steps, peclet=peclet)
            rows += measured(problem, MAIN, size, peclet=peclet)
    return rows


def transposed(size: Size) -> Rows:
    """The adjoint's solves, at the tolerance that a derivative is computed with."""
    rows = []
    for ratio in size.few:
        problem = Problem(2, size.square // 2, 1, ratio, size.steps, transposed=True)
        rows += measured(problem, MAIN, size, rtol=1e-12)
    return rows


def thrift(size: Size) -> Rows:
    """Within GMRES + ILU(0): guesses, sides, orthogonalization, reuse; two kinds of drift."""
    rows = []
    for per_piece in (1, 4):
        for ratio in size.few[:2]:
            problem = Problem(2, size.square, 1, ratio, 2 * size.steps, per_piece=per_piece)
            rows += measured(problem, THRIFT, size, **{"steps/piece": per_piece})
    return rows


def explicit(size: Size) -> Rows:
    """No solver: Runge-Kutta-Chebyshev with lumped mass beside Crank-Nicolson, whole steps."""
    return cost(size.square, size.ratios, size.steps, size.rounds, RTOL)


def accuracy(size: Size) -> Rows:
    """Relative L2 errors of both on the manufactured solution, in all and in time."""
    return errors(size.quadratic // 2, tuple(r for r in size.ratios if r <= 30.0))


def stability(size: Size) -> Rows:
    """Stages that a mesh without walls needs, over the cell Peclet number; '-': more than 100."""
    return limits(tuple(r for r in size.ratios if r <= 30.0))


TABLES: dict[str, Callable[[Size], Rows]] = {
    "everything": everything,
    "sweep": sweep,
    "refinement": refinement,
    "drift": drift,
    "transposed": transposed,
    "thrift": thrift,
    "explicit": explicit,
    "accuracy": accuracy,
    "stability": stability,
}
# What tells the problems of a table apart, and becomes a column; the solvers are its rows.
COLUMNS = ("dim", "degree", "dofs", "steps/piece", "peclet", "dt D/h2")
SHORT = {"dt D/h2": "r=", "dim": "d=", "degree": "p=", "steps/piece": "piece=", "peclet": "Pe="}


def compact(rows: Rows) -> Rows:
    """A row for each solver, with microseconds per dof and step and (iterations) by problem."""
    if "solver" not in rows[0]:
        return rows
    vary = [c for c in COLUMNS if len({row.get(c) for row in rows}) > 1]
    if "degree" in vary:  # then the size says nothing new
        vary.remove("dofs")
    lines: dict[str, dict[str, Any]] = {}
    for row in rows:
        line = lines.setdefault(row["solver"], {"solver": row["solver"]})
        text = row["failed"] or f"{row['step']:.3g} ({row['its']:.3g})"
        if not row["failed"] and row["error"] > SAME:
            text += f" off {row['error']:.0e}"
        line[" ".join(f"{SHORT.get(c, c)}{row[c]:g}" for c in vary)] = text
    heads = dict.fromkeys(head for line in lines.values() for head in line)
    return [{head: line.get(head, "") for head in heads} for line in lines.values()]


def faults(name: str, rows: Rows) -> Iterable[str]:
    """What may not be: a solver that stops at another solution."""
    for row in rows:
        # Where the drift is strong, that some solvers fail is what the table shows.
        if "peclet" in row and row["solver"] != SAFEST:
            continue
        if row.get("error") is not None and not row["error"] <= SAME:
            yield f"{name}: {row['solver']} is off by {row['error']:.1e}."
        if row.get("solver") in (*FAST, SAFEST) and row["failed"]:
            yield f"{name}: {row['solver']} failed."
        for identity in ("mass", "transposed"):
            if row.get(identity) is not None and not row[identity] <= 1e-12:
                yield f"{name}: {identity} is off by {row[identity]:.1e}."
        # Against a difference quotient of fourth order.
        if row.get("derivative") is not None and not row["derivative"] <= 1e-8:
            yield f"{name}: the derivative is off by {row['derivative']:.1e}."


def main() -> None:
    """Command line."""
    parser = results.arguments(__doc__, "solvers", "small meshes, one round: seconds")
    parser.add_argument("--large", action="store_true", help="finer meshes: many minutes")
    parser.add_argument("--only", choices=TABLES, help="one table")
    options = parser.parse_args()
    size = QUICK if options.quick else LARGE if options.large else Size()
    tables: dict[str, Rows] = {}
    wrong: list[str] = []
    for name in [options.only] if options.only else TABLES:
        tables[name] = TABLES[name](size)
        wrong += faults(name, tables[name])
        if COMM.rank == 0:
            title = (TABLES[name].__doc__ or name).splitlines()[0]
            print(timing.table(f"{name}: {title}", compact(tables[name])), flush=True)
    result = {"environment": timing.environment(COMM), "tables": tables}
    name = f"solvers-{options.only}" if options.only else "solvers"
    results.save(options.out, name, result, COMM)
    if wrong:
        raise SystemExit("\n".join(wrong))


if __name__ == "__main__":
    main()
