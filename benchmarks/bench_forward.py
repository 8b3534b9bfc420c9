"""Cost of a forward step per degree of freedom over the size, beside plain DOLFINx and the memory.

    mpirun -n 1 python -m mpi4py benchmarks/bench_forward.py [--quick] [--large] [--out DIR]

Unit square (degrees 1, 2, 3) and cube (degree 1) at dt D/h^2 = 1; drifts that stay, move in every
step, or switch. The same space, quadrature, Krylov method, initial guesses and tolerance for both;
both must give the same density. Beside it the triad of the same run, and other tools on a problem
with a closed form (forward_peers.py). Five minutes; benchmarks/README.md explains the columns.
"""

import argparse
from dataclasses import dataclass

import forward_peers
import numpy as np
import results
import timing
import traffic
import triad
from cases import (
    COMM,
    DIRECT,
    OPTIONS,
    Case,
    cheap,
    cheap_plain,
    network,
    network_plain,
    steady,
    steady_plain,
)
from forward_runs import FEW, SHORT, Row, direct, krylov, setup

# Squares a side times the degree: multiples of 6, so that all degrees have the same dofs.
SQUARES = {"1e3": 30, "1e4": 102, "5e4": 222, "1e5": 318, "2.6e5": 510, "1e6": 1002}
CUBES = {"3e4": 30, "3e5": 66}
DRIFTS = ("steady", "cheap", "network/1", "network/4")
# What is run for degree 1 and for those above.
FLAT, CURVED = tuple(SQUARES), ("1e3", "1e4", "1e5")
MANY, HUGE = 2e5, 4e5


@dataclass(frozen=True)
class Effort:
    """What is run on one mesh.

    Attributes:
        steps: Of the long run.
        rounds: Of which the median counts.
        drifts: Names.
    """

    steps: int
    rounds: int
    drifts: tuple[str, ...]


def effort(dofs: int, degree: int, dimension: int, options: argparse.Namespace) -> Effort:
    """What is short is repeated, and what takes minutes is left out unless it is asked for."""
    plan = ((3e3, 84, 5), (2e4, 44, 4), (6e4, 12, FEW), (MANY, 8, FEW), (np.inf, 8, 2))
    steps, rounds = next((steps, rounds) for size, steps, rounds in plan if dofs < size)
    if options.quick:
        steps, rounds = SHORT + 8, FEW + 1
    few = DRIFTS if dofs < MANY else DRIFTS[:3]
    if degree > 2 and dofs > 6e4:
        few = ("steady", "cheap")
    if dofs > HUGE or (dimension > 2 and dofs > MANY):
        few = ("cheap",)
    return Effort(steps, options.rounds or rounds, tuple(options.drifts or few))


def sweep(
    n: int, degree: int, dimension: int, effort: Effort, bandwidth: list[Row]
) -> tuple[list[Row], Row | None]:
    """The drifts on one mesh, and setting up, unless that takes minutes."""
    dofs = (n * degree + 1) ** dimension
    steps, rounds = effort.steps, effort.rounds
    case = Case(n, degree, steps, dimension)
    rows: list[Row] = []

    def add(name: str, case: Case, found: tuple[Row, traffic.Traffic]) -> None:
        row, bytes_ = found
        count = case.steps - SHORT
        gbs = triad.at(bandwidth, bytes_.working_set / COMM.size)
        own, plain, bare = (row.get(key) for key in ("own", "plain", "bare solve"))
        rows.append(
            {
                "drift": name,
                "degree": degree,
                "dimension": dimension,
                "dofs": case.dofs,
                "fpcontrol": case.per_dof(own, count),
                "dolfinx": case.per_dof(plain, count),
                "ratio": row["ratio"],
                "bare solve": None if bare is None else case.per_dof(bare, count),
                "to bare solve": row.get("to bare solve"),
                "its": row.get("its"),
                "its dolfinx": row.get("its dolfinx"),
                "bound": 1e6 * bytes_.moved / (1e9 * gbs) / case.dofs,
                "bytes/dof": bytes_.moved / case.dofs,
                "MB": bytes_.working_set / 1e6,
                "GB/s": gbs,
                "a run adds": case.per_dof(row["once"], 1),
                "difference": row["difference"],
            }
        )

    # What is done once costs as much as many steps of a steady drift, and so does its noise.
    longer = Case(n, degree, SHORT + 8 * (steps - SHORT), dimension)
    for name in effort.drifts:
        # A factorization of the largest takes half a minute, and every round four: not that one.
        if name == "steady" and dimension == 2 and dofs <= HUGE:
            add(name, longer, direct(longer, rounds))
        elif name == "steady":
            drift, plain = steady(longer), {"ufl": steady_plain(longer)}
            add(name, longer, krylov(longer, name, drift, plain, longer.steps, rounds))
        elif name == "cheap":
            drift = cheap(case)
            add(name, case, krylov(case, name, drift, cheap_plain(case, drift), 1, rounds))
        else:
            per_piece = int(name.removeprefix("network/"))
            net = network(case, 2, steps // per_piece)
            add(name, case, krylov(case, name, net, network_plain(case, net), per_piece, rounds))
    return rows, setup(case, rounds) if dofs < MANY else None


def growth(rows: list[Row]) -> list[Row]:
    """Cost at the largest size over that at 1e4, and what of it the memory does not explain."""
    found = []
    keys = dict.fromkeys((row["drift"], row["degree"], row["dimension"]) for row in rows)
    for key in keys:
        mine = [r for r in rows if (r["drift"], r["degree"], r["dimension"]) == key]
        small = [r for r in mine if r["dofs"] > 9e3]
        if len(small) < 2:
            continue
        a, b = small[0], small[-1]
        cost, cache = b["fpcontrol"] / a["fpcontrol"], a["GB/s"] / b["GB/s"]
        moved = b["bytes/dof"] / a["bytes/dof"]
        found.append(
            {
                "drift": key[0],
                "degree": key[1],
                "dimension": key[2],
                "from": a["dofs"],
                "to": b["dofs"],
                "cost": cost,
                "triad": cache,
                "beyond the triad": cost / cache,
                "bytes": moved,
                "beyond triad and bytes": cost / cache / moved,
            }
        )
    return found


def meshes(options: argparse.Namespace) -> list[tuple[int, int, int]]:
    """Squares or cubes a side, degree and dimension."""
    plan = {p: FLAT if p == 1 else CURVED for p in options.degrees}
    cubes = list(CUBES.values())[:1]
    if options.large:
        plan, cubes = {p: (*plan[p], "1e6") for p in plan}, list(CUBES.values())
    if options.quick:
        plan, cubes = dict.fromkeys(options.degrees, ("1e3",)), [6]
    if options.sizes is not None or options.cubes is not None:
        plan = {p: tuple(options.sizes or ()) for p in options.degrees}
        cubes = [CUBES[name] for name in options.cubes or ()]
    found = [(SQUARES[s] // p, p, 2) for p, names in plan.items() for s in dict.fromkeys(names)]
    return found + [(n, 1, 3) for n in cubes]


def main() -> None:
    """Measure, print, write, draw."""
    parser = results.arguments(__doc__, "forward", "1e3 dofs only: seconds")
    parser.add_argument(
        "--large", action="store_true", help="1e6 dofs for all degrees, 3e5 in 3-D: ten minutes"
    )
    parser.add_argument("--sizes", nargs="*", choices=SQUARES, help="of these in 2-D only")
    parser.add_argument("--cubes", nargs="*", choices=CUBES, help="of these in 3-D only")
    parser.add_argument("--degrees", type=int, nargs="*", default=[1, 2, 3], help="in 2-D")
    parser.add_argument("--drifts", nargs="*", choices=DRIFTS, help="of these at every size")
    parser.add_argument("--rounds", type=int, default=0, help="of which the median counts")
    parser.add_argument("--no-peers", action="store_true", help="without the other tools")
    options = parser.parse_args()
    unit = "microseconds per dof and step"
    say = print if COMM.rank == 0 else lambda *_, **__: None
    bandwidth = triad.measure(COMM, triad.sizes(COMM.size, options.quick), rounds=3)
    say(timing.table(f"Triad ({triad.KIND}) on {COMM.size} rank(s), GB/s", bandwidth), flush=True)
    rows: list[Row] = []
    setups: list[Row] = []
    for n, degree, dimension in meshes(options):
        amount = effort((n * degree + 1) ** dimension, degree, dimension, options)
        mine, made = sweep(n, degree, dimension, amount, bandwidth)
        title = f"Forward, degree {degree}, {dimension}-D, {mine[0]['dofs']} dofs, {unit}"
        hidden = ("degree", "dimension", "dofs")
        shown = [{k: v for k, v in row.items() if k not in hidden} for row in mine]
        say(timing.table(title, shown), flush=True)
        rows += mine
        setups += [made] if made else []
    grown = growth(rows)
    say(timing.table("Setup, microseconds per dof", setups))
    say(timing.table("Growth of the cost of a step (aim: below 1.5 beyond the triad)", grown))
    peers = [] if options.no_peers else forward_peers.measure(options.quick, say)
    result = {
        "environment": timing.environment(COMM),
        "settings": {
            "dt D/h^2": 1.0,
            "petsc options": OPTIONS,
            "direct": DIRECT,
            "triad": triad.KIND,
            "rounds": options.rounds or "by size",
        },
        "tables": {
            "triad": bandwidth,
            "forward": rows,
            "setup": setups,
            "growth": grown,
            "peers": peers,
        },
    }
    results.save(options.out, "forward", result, COMM)


if __name__ == "__main__":
    main()
