"""Runs of bench_forward.py: what a step costs, here and in plain DOLFINx, on one mesh.

The clock is read between the steps, so that what is done once in a run is left out, as are the
first steps, whose guesses are worse.
"""

import functools
from collections.abc import Callable, Iterable, Iterator
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
from fpcontrol import fokker_planck

# Both stop at RTOL in the preconditioned residual; the densities then differ by this much at most.
SAME_DENSITY = 1e-8
SHORT = 4  # steps that are not counted, a piece of the network that switches every 4 steps
FEW = 3  # rounds
Row = dict[str, Any]


class Stamps:
    """Readings of the clock before a run, before its steps, after the last, and after the run."""

    def __init__(self) -> None:
        self._readings: list[float] = []

    def __call__(self) -> None:
        self._readings.append(timing.clock(COMM))

    def track(self, items: Iterable[int], *_: Any) -> Iterator[int]:
        """In the place of the progress bar around the steps of fpcontrol."""
        for item in items:
            self()
            yield item
        self()

    def seconds(self) -> tuple[float, float]:
        """Of the steps after the first SHORT, and of all that is no step."""
        begin, *steps, end = self._readings
        counted = steps[-1] - steps[SHORT]
        one = counted / (len(steps) - 1 - SHORT)
        return counted, end - begin - (len(steps) - 1) * one


def timed(run: Callable[[Stamps], Any]) -> tuple[float, float]:
    """What Stamps.seconds says of a run, of the slowest rank. Collective."""
    stamps = Stamps()
    COMM.barrier()
    stamps()
    run(stamps)
    stamps()
    counted, once = stamps.seconds()
    return COMM.allreduce(counted, op=MPI.MAX), COMM.allreduce(once, op=MPI.MAX)


def solved(
    equation: fpc.FokkerPlanck, case: Case, steps: int, stamps: Stamps | None = None
) -> fpc.Trajectory:
    """A run of fpcontrol, with the clock read between its steps."""
    original = fokker_planck.track
    if stamps is not None:
        fokker_planck.track = stamps.track
    try:
        return equation.solve(case.start, case.t1(steps), steps)
    finally:
        fokker_planck.track = original


def in_turns(
    runs: dict[str, Callable[[Stamps], Any]], rounds: int
) -> dict[str, list[tuple[float, float]]]:
    """Counted steps and the rest of each run, round by round; all have run a little before."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(timed(run))
    return times


def column(times: list[tuple[float, float]], i: int) -> list[float]:
    return [pair[i] for pair in times]


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

    def own(stamps: Stamps | None, steps: int = long) -> None:
        last = solved(equation, case, steps, stamps)
        iterations["own", steps] = last.iterations
        densities["own"] = last.levels[-1].copy()

    def theirs(peer: PlainDolfinx, stamps: Stamps, steps: int = long) -> None:
        peer.forward(case.start, steps, per_piece, stamps)
        iterations["plain", steps] = peer.iterations

    # Short runs warm up, and tell the iterations that are not counted.
    own(None, SHORT)
    # The form that takes the drift faster runs in the rounds.
    first: dict[str, float] = {}
    peers: dict[str, PlainDolfinx] = {}
    for form, plain in plains.items():
        peers[form] = peer = PlainDolfinx(case.space, plain, D, case.dt, 2 * case.degree, OPTIONS)
        theirs(peer, Stamps(), SHORT)
        first[form] = timed(functools.partial(theirs, peer))[0]
        densities[form] = peer.density
    fastest = min(first, key=lambda form: first[form])
    times = in_turns({"own": own, "plain": functools.partial(theirs, peers[fastest])}, rounds)
    step = {who: column(times[who], 0) for who in times}
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
        "once": timing.median(column(times["own"], 1)),
    }, traffic.krylov_step(case.dofs, nonzeros, its["own"], refills)


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
    long = case.steps

    def own(stamps: Stamps) -> None:
        last["own"] = solved(equation, case, long, stamps).levels[-1].copy()

    def theirs(stamps: Stamps) -> None:
        last["plain"] = steady_crank_nicolson(
            case.start, plain.expression, D, case.dt, long, 2 * case.degree, DIRECT, stamps
        )

    def bare(stamps: Stamps) -> None:
        for _ in range(long):
            stamps()
            ksp.solve(b, u)
        stamps()

    times = in_turns({"own": own, "plain": theirs, "bare": bare}, rounds)
    step = {who: column(times[who], 0) for who in times}
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
        "bare solve": timing.median(step["bare"]),
        "to bare solve": timing.ratio(step["own"], step["bare"]),
        "difference": gap,
        "once": timing.median(column(times["own"], 1)),
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
    runs = {
        "create": make,
        "create and run": lambda: make().solve(case.start, case.dt, 1),
        "run": lambda: old.solve(case.start, case.dt, 1),
        "plain": lambda: PlainDolfinx(case.space, plain, D, case.dt, 2 * case.degree, OPTIONS),
    }
    times = timing.interleaved(COMM, runs, min(rounds, FEW))
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
