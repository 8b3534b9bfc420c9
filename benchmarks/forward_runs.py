"""Runs of bench_forward.py: what a step costs, here and in plain DOLFINx, on one mesh.

A short run is taken off a long one, so that what is done once in a run is left out.
"""

import functools
from collections.abc import Callable
from typing import Any

from mpi4py import MPI

import numpy as np
import timing
import traffic
from cases import (
    COMM,
    DIRECT,
    OPTIONS,
    SIGMA,
    Case,
    D,
    cheap,
    cheap_plain,
    steady,
    steady_plain,
)
from petsc4py import PETSc
from plain_dolfinx import PlainDolfinx, steady_crank_nicolson

import fpcontrol as fpc

# Both stop at RTOL in the preconditioned residual; the densities then differ by this much at most.
SAME_DENSITY = 1e-8
SHORT = 4  # steps of the short run, a piece of the network that switches every 4 steps
FEW = 3  # rounds
SMALL = 3e4  # dofs
Row = dict[str, Any]
Runs = dict[str, Callable[[], Any]]


def pair(runs: Runs, who: str, run: Callable[[int], Any], long: int) -> None:
    """A short and a long run."""
    runs[f"{who} short"] = lambda: run(SHORT)
    runs[f"{who} long"] = lambda: run(long)


def in_turns(runs: Runs, rounds: int) -> dict[str, list[float]]:
    """As timing.interleaved; of few and long rounds none is spent on warming up.

    The forms are compiled by then (smaller meshes come first), and the median leaves the first out.
    """
    if rounds > FEW:
        return timing.interleaved(COMM, runs, rounds)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(timing.seconds(COMM, run))
    return times


def difference(times: dict[str, list[float]], who: str) -> list[float]:
    """Seconds of the steps in which the two runs differ, round by round."""
    both = zip(times[f"{who} short"], times[f"{who} long"], strict=True)
    return [long - short for short, long in both]


def same(name: str, mine: np.ndarray, others: list[np.ndarray]) -> float:
    """Largest difference of owned values over the largest value; an error if it is too large."""
    rho = mine[: len(others[0])]
    scale = COMM.allreduce(np.abs(rho).max(initial=0.0), op=MPI.MAX)
    gap = max(np.abs(u - rho).max(initial=0.0) for u in others) / scale
    gap = COMM.allreduce(gap, op=MPI.MAX)
    if gap > SAME_DENSITY:
        raise AssertionError(f"{name}: the densities differ by {gap:.1e}.")
    return float(gap)


def krylov(
    case: Case, name: str, drift: Any, plains: dict[str, Any], per_piece: int, rounds: int
) -> tuple[Row, traffic.Traffic]:
    """GMRES with ILU(0) on both sides."""
    equation = fpc.FokkerPlanck(
        case.mesh, drift, SIGMA, degree=case.degree, linear_solver="gmres", petsc_options=OPTIONS
    )
    long, count = case.steps, case.steps - SHORT
    iterations: dict[tuple[str, int], int] = {}
    densities: dict[str, np.ndarray] = {}

    def own(steps: int) -> None:
        last = equation.solve(case.start, case.t1(steps), steps)
        iterations["own", steps] = last.iterations
        densities["own"] = last.levels[-1].copy()

    def theirs(peer: PlainDolfinx) -> Callable[[int], None]:
        def run(steps: int) -> None:
            peer.forward(case.start, steps, per_piece)
            iterations["plain", steps] = peer.iterations

        return run

    # The form that takes the drift faster runs in the rounds.
    first: dict[str, float] = {}
    peers: dict[str, PlainDolfinx] = {}
    for form, plain in plains.items():
        peers[form] = peer = PlainDolfinx(case.space, plain, D, case.dt, 2 * case.degree, OPTIONS)
        if case.dofs < SMALL:
            peer.forward(case.start, SHORT, per_piece)  # warms up
        first[form] = timing.seconds(COMM, functools.partial(theirs(peer), long))
        densities[form] = peer.density
    fastest = min(first, key=lambda form: first[form])

    runs: Runs = {}
    pair(runs, "own", own, long)
    pair(runs, "plain", theirs(peers[fastest]), long)
    times = in_turns(runs, rounds)
    step = {who: difference(times, who) for who in ("own", "plain")}
    its = {who: (iterations[who, long] - iterations[who, SHORT]) / count for who in step}
    gap = same(name, densities["own"], [densities[form] for form in peers])
    refills = 1.0 / per_piece if per_piece < long else 0.0
    nonzeros = traffic.entries(peers[fastest].matrix)
    return {
        "own": timing.median(step["own"]),
        "plain": timing.median(step["plain"]),
        "ratio": timing.ratio(step["own"], step["plain"]),
        "its": its["own"],
        "its dolfinx": its["plain"],
        "drift in dolfinx": fastest,
        "difference": gap,
        "once": once(times, step["own"], count),
    }, traffic.krylov_step(case.dofs, nonzeros, its["own"], refills)


def once(times: dict[str, list[float]], step: list[float], count: int) -> float:
    """Seconds that a run takes besides its steps."""
    return timing.median(times["own short"]) - SHORT / count * timing.median(step)


def direct(case: Case, rounds: int) -> tuple[Row, traffic.Traffic]:
    """A drift that stays in 2-D: one factorization, beside its bare triangular solves."""
    equation = fpc.FokkerPlanck(case.mesh, steady(case), SIGMA, degree=case.degree)
    plain = steady_plain(case)
    # The same operator, factored the same way, for nothing but solves.
    peer = PlainDolfinx(case.space, plain, D, case.dt, 2 * case.degree, DIRECT)
    peer.refill()
    ksp = PETSc.KSP().create(COMM)
    ksp.setOperators(peer.matrix)
    ksp.setOptionsPrefix("bare_")
    table = PETSc.Options("bare_")
    for key, value in DIRECT.items():
        table[key] = value
    ksp.setFromOptions()
    ksp.setUp()
    b, u = peer.matrix.createVecs()
    b.set(1.0)
    last: dict[str, Any] = {}
    runs: Runs = {}
    long, count = case.steps, case.steps - SHORT

    def own(steps: int) -> None:
        trajectory = equation.solve(case.start, case.t1(steps), steps)
        last["own"] = trajectory.levels[-1].copy()

    def theirs(steps: int) -> None:
        last["plain"] = steady_crank_nicolson(
            case.start, plain.expression, D, case.dt, steps, 2 * case.degree, DIRECT
        )

    def bare() -> None:
        for _ in range(count):
            ksp.solve(b, u)

    pair(runs, "own", own, long)
    pair(runs, "plain", theirs, long)
    runs["bare"] = bare
    times = in_turns(runs, rounds)
    step = {who: difference(times, who) for who in ("own", "plain")}
    owned = case.space.dofmap.index_map.size_local
    gap = same("steady", last["own"], [last["plain"].x.array[:owned]])
    factor = ksp.getPC().getFactorMatrix()
    nonzeros, fill = traffic.entries(peer.matrix), traffic.entries(factor)
    for thing in (ksp, b, u):
        thing.destroy()
    return {
        "own": timing.median(step["own"]),
        "plain": timing.median(step["plain"]),
        "ratio": timing.ratio(step["own"], step["plain"]),
        "bare solve": timing.median(times["bare"]),
        "to bare solve": timing.ratio(step["own"], times["bare"]),
        "difference": gap,
        "once": once(times, step["own"], count),
    }, traffic.direct_step(case.dofs, nonzeros, fill)


def setup(case: Case, rounds: int) -> Row:
    """What is done once an equation: microseconds per dof, beside plain DOLFINx's operator."""
    drift = cheap(case)
    plain = cheap_plain(case, drift)["ufl"]

    def make() -> fpc.FokkerPlanck:
        return fpc.FokkerPlanck(
            case.mesh,
            drift,
            SIGMA,
            degree=case.degree,
            linear_solver="gmres",
            petsc_options=OPTIONS,
        )

    old = make()
    runs: Runs = {
        "create": make,
        "create and run": lambda: make().solve(case.start, case.dt, 1),
        "run": lambda: old.solve(case.start, case.dt, 1),
        "plain": lambda: PlainDolfinx(case.space, plain, D, case.dt, 2 * case.degree, OPTIONS),
    }
    times = in_turns(runs, rounds)
    lazy = [
        a - b - c
        for a, b, c in zip(*(times[n] for n in ("create and run", "create", "run")), strict=True)
    ]
    both = [a + b for a, b in zip(times["create"], lazy, strict=True)]
    return {
        "degree": case.degree,
        "dimension": case.dimension,
        "dofs": case.dofs,
        "create": case.per_dof(timing.median(times["create"]), 1),
        "at first run": case.per_dof(timing.median(lazy), 1),
        "dolfinx": case.per_dof(timing.median(times["plain"]), 1),
        "ratio": timing.ratio(both, times["plain"]),
    }
