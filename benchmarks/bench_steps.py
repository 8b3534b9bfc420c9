"""Cost of an operator, beside plain DOLFINx in the same run, and of a step outside its solves.

    mpirun -n 1 python -m mpi4py benchmarks/bench_steps.py [--quick] [--large] [--out DIR]

Unit square, dt D/h^2 = 1, the same space and quadrature for both. Seconds;
benchmarks/README.md explains the columns.
"""

import functools
from typing import Any

import results
import timing
from cases import COMM, OPTIONS, SIGMA, Case, D, cheap, cheap_plain, network
from plain_dolfinx import PlainDolfinx

import fpcontrol as fpc
from fpcontrol.discretization.galerkin import Galerkin
from fpcontrol.stepping.operators import Operators


def refill(case: Case, k: int) -> dict[str, Any]:
    """Drift values (fpcontrol) or drift (DOLFINx) to a matrix that is ready for products."""
    system = Galerkin(case.degree).on(case.mesh)
    drift = cheap(case)
    v = drift(0.0, system.points)
    operators = Operators(system, 0.5 * case.dt, D, "gmres")
    plains = cheap_plain(case, drift)
    peers = {
        (form, whole): PlainDolfinx(case.space, plain, D, case.dt, 2 * case.degree, OPTIONS, whole)
        for form, plain in plains.items()
        for whole in (False, True)
    }
    for plain in plains.values():
        plain.update(0.0)

    def often(run: Any, times: int = 5) -> Any:
        return lambda: [run() for _ in range(times)]

    runs: dict[Any, Any] = {"own": often(lambda: operators.set(v, D))}
    runs |= {key: often(peer.refill) for key, peer in peers.items()}
    times = timing.interleaved(COMM, runs, k)
    fastest = min(peers, key=lambda key: timing.median(times[key]))
    whole = min(
        (key for key in peers if key[1]),
        key=lambda key: timing.median(times[key]),
    )
    return {
        "degree": case.degree,
        "dofs": case.dofs,
        "fpcontrol": case.per_dof(timing.median(times["own"]), 5),
        "dolfinx": case.per_dof(timing.median(times[fastest]), 5),
        "ratio": timing.ratio(times["own"], times[fastest]),
        "whole form": case.per_dof(timing.median(times[whole]), 5),
        "ratio to whole": timing.ratio(times["own"], times[whole]),
        "drift in dolfinx": fastest[0],
    }


def overhead(case: Case, k: int) -> dict[str, Any]:
    """Milliseconds a step outside the Krylov solves, network of width 2, a piece every step."""
    drift = network(case, 2, case.steps)
    reference = fpc.MoserFlow(
        case.start, fpc.density.uniform(case.mesh, case.degree), drift.t1, SIGMA
    )
    problem = fpc.TrackingProblem(
        reference, drift, SIGMA, case.steps, linear_solver="gmres", petsc_options=OPTIONS
    )
    stepper = problem.runs.sweeps.stepper

    # The solver is wrapped: the time outside it is the time of a step less the time within.
    class Timed:
        def __init__(self, solver: Any) -> None:
            self._solver, self.seconds = solver, 0.0

        def __getattr__(self, name: str) -> Any:
            return getattr(self._solver, name)

        def solve(self, b: Any, x: Any) -> None:
            self.seconds += timing.seconds(COMM, lambda: self._solver.solve(b, x))

        def solve_transpose(self, b: Any, x: Any) -> None:
            self.seconds += timing.seconds(COMM, lambda: self._solver.solve_transpose(b, x))

    stepper.solver = solver = Timed(stepper.solver)
    found: dict[str, list[float]] = {n: [] for n in ("forward", "solve", "reverse", "solve T")}
    for i in range(k + 1):
        weights = drift.weights * (1.0 + 1e-9 * i)
        # The forward run is remembered: at the same weights the derivative is the reverse sweep.
        for sweep, solve, run in (
            ("forward", "solve", problem),
            ("reverse", "solve T", problem.derivative),
        ):
            solver.seconds = 0.0
            total = timing.seconds(COMM, functools.partial(run, weights))
            if i:  # the first round warms up
                found[sweep].append(total)
                found[solve].append(solver.seconds)
    ms = {name: 1e3 * timing.median(t) / case.steps for name, t in found.items()}
    return {
        "degree": case.degree,
        "dofs": case.dofs,
        "forward": ms["forward"],
        "forward Krylov": ms["solve"],
        "forward overhead": ms["forward"] - ms["solve"],
        "reverse": ms["reverse"],
        "reverse Krylov": ms["solve T"],
        "reverse overhead": ms["reverse"] - ms["solve T"],
    }


def main() -> None:
    """Measure, print, write."""
    parser = results.arguments(__doc__, "steps", "smallest mesh, few repeats")
    parser.add_argument("--large", action="store_true", help="263 169 degrees of freedom too")
    parser.add_argument("--degree", type=int, default=1, help="polynomial degree (default 1)")
    parser.add_argument("--repeats", type=int, default=0, help="rounds of which the median counts")
    options = parser.parse_args()

    sizes = [32] if options.quick else [32, 128, 512] if options.large else [32, 128]
    sizes = [n // options.degree for n in sizes]
    k = options.repeats or (3 if options.quick else 7)
    steps = 20 if options.quick else 40
    tables: dict[str, list[dict[str, Any]]] = {"refill": [], "overhead": []}
    for n in sizes:
        for degree in (1, 2):
            tables["refill"].append(refill(Case(max(n // degree, 1), degree, 1), k))
    tables["overhead"].append(overhead(Case(32 // options.degree, options.degree, steps), k))

    result = {
        "environment": timing.environment(COMM),
        "settings": {
            "dt D/h^2": 1.0,
            "degree": options.degree,
            "petsc options": OPTIONS,
            "steps": steps,
            "repeats": k,
        },
        "tables": tables,
    }
    if COMM.rank == 0:
        print(f"{COMM.size} rank(s), {result['settings']}")
        print(timing.table("Operator refill, microseconds per dof", tables["refill"]))
        print(timing.table("Overhead, network drift, ms per step", tables["overhead"]))
    results.save(options.out, "steps", result, COMM)


if __name__ == "__main__":
    main()
