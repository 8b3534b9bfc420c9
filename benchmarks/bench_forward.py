"""Cost of a forward step per degree of freedom over the size, beside plain DOLFINx and the memory.

    mpirun -n 1 python -m mpi4py benchmarks/bench_forward.py [--quick] [--large] [--json FILE]

Unit square (degrees 1, 2, 3) and cube (degree 1) at dt D/h^2 = 1; drifts that stay, move in every
step, or switch. The same space, quadrature, Krylov method, initial guesses and tolerance for both;
both must give the same density. Beside it the triad of the same run, and other tools on a problem
with a closed form (forward_peers.py). Four minutes; benchmarks/README.md explains the columns.
"""

import argparse

import forward_peers
import numpy as np
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
SQUARES = {"1e3": 30, "1e4": 102, "1e5": 318, "1e6": 1002}
CUBES = {"3e4": 30, "3e5": 66}
HUGE = 4e5


def steps_and_rounds(dofs: int, quick: bool) -> tuple[int, int]:
    """Steps of the long run, and rounds: what is short is repeated."""
    if quick:
        return SHORT + 8, FEW + 1
    plan = ((3e3, 84, 7), (2e4, 44, 5), (5e4, 12, FEW), (np.inf, 8, FEW))
    return next((steps, rounds) for size, steps, rounds in plan if dofs < size)


def sweep(
    n: int, degree: int, dimension: int, quick: bool, bandwidth: list[Row]
) -> tuple[list[Row], Row]:
    """All drifts on one mesh."""
    dofs = (n * degree + 1) ** dimension
    steps, rounds = steps_and_rounds(dofs, quick)
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

    # What is done once costs as much as many steps of a drift that stays, and so does its noise.
    longer = Case(n, degree, SHORT + 8 * (steps - SHORT), dimension)
    # A factorization of the largest takes half a minute, and every round four: not that one.
    if dimension == 2 and dofs <= HUGE:
        add("steady", longer, direct(longer, rounds))
    else:
        drift, plain = steady(longer), {"ufl": steady_plain(longer)}
        add("steady", longer, krylov(longer, "steady", drift, plain, longer.steps, rounds))
    drift = cheap(case)
    add("cheap", case, krylov(case, "cheap", drift, cheap_plain(case, drift), 1, rounds))
    for per_piece in (1, 4):
        net = network(case, 2, steps // per_piece)
        name = f"network/{per_piece}"
        add(name, case, krylov(case, name, net, network_plain(case, net), per_piece, rounds))
    return rows, setup(case, rounds)


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


def main() -> None:
    """Measure, print, write, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="1e3 dofs only: seconds")
    parser.add_argument("--large", action="store_true", help="1e6 dofs, and 3e5 in 3-D: minutes")
    parser.add_argument("--degrees", type=int, nargs="*", default=[1, 2, 3], help="in 2-D")
    parser.add_argument("--json", help="write the tables to this file")
    parser.add_argument("--figure", help="draw cost over size into this file")
    options = parser.parse_args()

    count = 1 if options.quick else 4 if options.large else 3
    squares = list(SQUARES.values())[:count]
    cubes = [6] if options.quick else list(CUBES.values())[: 2 if options.large else 1]
    unit = "microseconds per dof and step"
    say = print if COMM.rank == 0 else lambda *_, **__: None
    bandwidth = triad.measure(COMM, triad.sizes(COMM.size, options.quick), rounds=3)
    say(timing.table(f"Triad ({triad.KIND}) on {COMM.size} rank(s), GB/s", bandwidth), flush=True)
    rows: list[Row] = []
    setups: list[Row] = []
    meshes = [(n // p, p, 2) for p in options.degrees for n in squares]
    meshes += [(n, 1, 3) for n in cubes]
    for n, degree, dimension in meshes:
        mine, made = sweep(n, degree, dimension, options.quick, bandwidth)
        title = f"Forward, degree {degree}, {dimension}-D, {mine[0]['dofs']} dofs, {unit}"
        hidden = ("degree", "dimension", "dofs")
        shown = [{k: v for k, v in row.items() if k not in hidden} for row in mine]
        say(timing.table(title, shown), flush=True)
        rows += mine
        setups.append(made)
    grown = growth(rows)
    say(timing.table("Setup, microseconds per dof", setups))
    say(timing.table("Growth of the cost of a step (aim: below 1.5 beyond the triad)", grown))
    peers = forward_peers.measure(options.quick, say)
    if options.json:
        result = {
            "environment": timing.environment(COMM),
            "settings": {
                "dt D/h^2": 1.0,
                "petsc options": OPTIONS,
                "direct": DIRECT,
                "triad": triad.KIND,
            },
            "tables": {
                "triad": bandwidth,
                "forward": rows,
                "setup": setups,
                "growth": grown,
                "peers": peers,
            },
        }
        timing.write(options.json, result, COMM)
    if options.figure and COMM.rank == 0:
        from forward_figure import draw

        draw(rows, options.figure)


if __name__ == "__main__":
    main()
