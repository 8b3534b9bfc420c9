"""Many cases side by side: sigmas, seeds or targets, one on each group of ranks.

.. code-block:: python

    def member(case, comm):
        sigma, seed = case
        mesh = fpc.mesh.interval(comm, 64)  # on comm, not on MPI.COMM_WORLD
        ...
        return fpc.minimize(problem).relative_error

    errors = fpc.ensemble.run(member, [(s, seed) for s in sigmas for seed in range(5)])

``mpirun -n 8 python -m mpi4py script.py`` runs eight cases at a time, ``groups=2`` two at a time on
four ranks each. Files that a member writes need names of their own.
"""

import pickle
import reprlib
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from mpi4py import MPI
from mpi4py.util.sync import Counter

import numpy as np
from petsc4py import PETSc

from fpcontrol.parallel.attempt import attempt
from fpcontrol.parallel.errors import collective_errors, portable
from fpcontrol.parallel.progress import Progress, silenced
from fpcontrol.parallel.scope import only_within
from fpcontrol.parallel.signals import CollectiveInterrupt, interrupts

# Seconds between two looks of rank 0 at what others ask of it, while it computes.
LOOK = 0.02
# Seconds between two looks of an idle rank 0 at the count of the cases done.
COUNT = 0.1


class EnsembleError(ExceptionGroup[Exception]):
    """Some cases raised; one exception for each, with its case and its traceback as a note.

    Attributes:
        results: Of all cases in their order; the exception itself where one raised.
    """

    results: list[Any]


class EnsembleInterrupt(KeyboardInterrupt):
    """Stopped by Ctrl-C after the cases that ran.

    Attributes:
        results: Of all cases in their order; an exception where one raised, ``None`` where a case
            did not run.
    """

    results: list[Any]


def run[Case, Value](
    member: Callable[[Case, MPI.Comm], Value],
    cases: Iterable[Case],
    *,
    comm: MPI.Comm = MPI.COMM_WORLD,
    groups: int | None = None,
    progress: bool = True,
    patience: float = 60.0,
) -> list[Value]:
    """Results of ``member(case, comm)`` for all cases, each on a group of the ranks. Collective.

    The ranks are split into groups of consecutive ones whose sizes differ by one at most. A group
    that is done takes the next case, so that cases of unequal length balance. Within a member, and
    only there, the group's communicator is the one to use (a collective call on MPI.COMM_WORLD, or
    on ``comm``, is an error of the case: other ranks would never answer); progress of what it runs
    is not shown.
    Results do not depend on the groups but for round-off: sums over other ranks, and on one rank
    numpy's BLAS, which rounds by where in memory its arrays happen to lie.

    Ctrl-C hands out no more cases and raises once those that run have ended (``minimize`` returns
    its best); a second Ctrl-C ends the program.

    Args:
        member: Called on all ranks of a group, with a case and the group's communicator, which
            lives until this call returns. What it returns on the group's rank 0 counts and must
            pickle.
        cases: The same on all ranks.
        comm: Communicator whose ranks are split.
        groups: Number of groups; as many as there are ranks, or cases if those are fewer.
        progress: Show on rank 0 how many cases are done.
        patience: Seconds that a rank whose member raised waits for its group, before it takes the
            others to be stuck in a collective call that it left and ends the run. A group without
            a case that has waited so long for the others says so, once.

    Returns:
        Results in the order of the cases, on all ranks.

    Raises:
        ValueError: On all ranks, without cases, for a number of groups that cannot be, or if the
            ranks do not say the same.
        EnsembleError: On all ranks after all cases have run, if some raised.
        EnsembleInterrupt: On all ranks after a Ctrl-C.
    """
    with collective_errors(comm):
        cases = list(cases)
    groups = _checked(comm, len(cases), groups, patience)
    # Contiguous: ranks of a group are near each other on the machine.
    group = comm.Split(comm.rank * groups // comm.size, comm.rank)
    meeting, everyone = group.Dup(), comm.Dup()
    taken, done, told = (Counter(typecode="l", comm=comm) for _ in range(3))
    bar = _Bar(done, Progress("cases", len(cases), comm, progress), comm.rank == 0)
    mine: dict[int, bytes | Exception] = {}
    with interrupts() as interrupted, silenced(), _looking_up(comm):
        while (i := _next(taken, meeting, interrupted, len(cases))) < len(cases):
            with only_within(group, MPI.COMM_WORLD, comm):
                outcome = _outcome(member, cases[i], group, meeting, f"case {i}", patience)
            if group.rank == 0:
                mine[i] = outcome
                done.next(1)
            bar.update()
        arrived, waited = everyone.Ibarrier(), time.monotonic()
        while not arrived.Test():
            bar.update(COUNT)
            if time.monotonic() - waited > patience:
                waited = np.inf
                _say_who_is_missing(told, done.next(0), len(cases), patience)
            time.sleep(1e-3)  # leaves the core to ranks that still work
        bar.update()
        bar.close()
        stopped = everyone.allreduce(bool(interrupted), op=MPI.LOR)
        found = {i: o for part in everyone.allgather(mine) for i, o in part.items()}
    # Not reached where one rank alone is interrupted or out of memory: to free is collective.
    for counter in (taken, done, told):
        counter.free()
    for used in (meeting, everyone, group):
        used.Free()
    return _results(found, len(cases), stopped)


def _checked(comm: MPI.Comm, cases: int, groups: int | None, patience: float) -> int:
    """The number of groups. Collective."""
    said = comm.allgather((cases, groups, patience))
    if any(other != said[0] for other in said):
        raise ValueError(
            "cases, groups and patience must be the same on all ranks; by rank, number of cases, "
            f"groups and patience are {said}."
        )
    if cases == 0:
        raise ValueError("cases = [] has nothing to run; hand in one case or more.")
    if groups is None:
        return min(comm.size, cases)
    if isinstance(groups, bool) or not isinstance(groups, int | np.integer):
        raise ValueError(f"groups = {groups!r} must be a whole number, or None for one per rank.")
    if not 1 <= groups <= comm.size:
        raise ValueError(
            f"groups = {groups} must be from 1 to the number of ranks, {comm.size}; start more "
            "ranks with mpirun -n, or ask for fewer groups."
        )
    return int(groups)


def _say_who_is_missing(told: Counter, done: int, cases: int, patience: float) -> None:
    """A line on stderr, of the first rank that has waited for long."""
    if told.next(1) == 0:
        print(
            f"ensemble: {done} of {cases} cases are done and none is left to hand out; a group has "
            f"waited {patience:g} s for the others. A member that uses MPI.COMM_WORLD, or PETSc "
            "objects on it, in place of the communicator it is given never ends.",
            file=sys.stderr,
            flush=True,
        )


def _next(taken: Counter, meeting: MPI.Comm, interrupted: list[int], cases: int) -> int:
    """Number of the case that this group runs next; ``cases`` or more if none is left."""
    stop = meeting.allreduce(bool(interrupted), op=MPI.LOR)
    # An interrupt takes all the cases that are left, so that no group finds one.
    i = 0
    if meeting.rank == 0:
        i = taken.next(cases) + cases if stop else taken.next(1)
    return meeting.bcast(i)


def _outcome(
    member: Callable[[Any, MPI.Comm], Any],
    case: Any,
    group: MPI.Comm,
    meeting: MPI.Comm,
    name: str,
    patience: float,
) -> bytes | Exception:
    """What one case gave, pickled, or the exception of the lowest rank that raised."""
    name = f"{name} = {reprlib.repr(case)}"

    def call() -> bytes:
        try:
            value = member(case, group)
        except CollectiveInterrupt as stopped:  # the ensemble has noticed, too
            raise RuntimeError(f"{type(stopped).__name__}: {stopped}") from None
        try:
            return pickle.dumps(value) if group.rank == 0 else b""
        except Exception as why:
            raise TypeError(
                f"member returned {reprlib.repr(value)}, which cannot be pickled; return "
                "numbers, arrays or lists of them."
            ) from why

    outcome = attempt(call, meeting, patience, f"{name} raised on rank {meeting.rank} of its group")
    if group.size > 1:  # what a member has made on the communicator itself, and dropped
        PETSc.garbage_cleanup(group)
    error, failed = outcome.error, outcome.failed
    if not failed:
        return outcome.value or b""
    if error:
        error = portable(error)
        error.add_note(outcome.told[meeting.rank])
    first: Exception = meeting.bcast(error, root=failed[0])
    alone = "" if len(failed) == group.size else f", on rank {failed[0]} of its group, not on all"
    first.add_note(f"({name}{alone})")
    return first


def _results(found: dict[int, bytes | Exception], cases: int, stopped: bool) -> list[Any]:
    """Results in order, or what there is to raise."""
    results = [pickle.loads(o) if isinstance(o := found.get(i), bytes) else o for i in range(cases)]
    if stopped:  # even if all have run: some may have ended early
        interrupt = EnsembleInterrupt(f"{len(found)} of {cases} cases have run.")
        interrupt.results = results
        raise interrupt
    errors = {i: o for i, o in found.items() if isinstance(o, Exception)}
    if errors:
        first = min(errors)
        what = f"case {first} raised {type(errors[first]).__name__}: {errors[first]}"
        raised = EnsembleError(
            f"{len(errors)} of {cases} cases failed; {what}", [errors[i] for i in sorted(errors)]
        )
        raised.results = results
        raise raised
    return results


class _Bar:
    """Progress of all groups, shown by rank 0 when it comes by."""

    def __init__(self, done: Counter, progress: Progress, shows: bool) -> None:
        self._count, self._progress, self._shows = done, progress, shows
        self._seen, self._last = 0, time.monotonic()

    def update(self, every: float = 0.0) -> None:
        """Show what has been done since the last time, if that was long enough ago."""
        if not self._shows or time.monotonic() - self._last < every:
            return
        self._last, done = time.monotonic(), self._count.next(0)
        for _ in range(done - self._seen):
            self._progress.update()
        self._seen = done

    def close(self) -> None:
        """Leave the bar as it is."""
        self._progress.close()


@contextmanager
def _looking_up(comm: MPI.Comm) -> Iterator[None]:
    """Let rank 0 answer for its memory while it computes.

    One-sided as the operation is, MPI may leave it to the next MPI call of rank 0: a rank that
    wants its next case would wait for rank 0 to end its own.
    """
    if comm.rank > 0 or comm.size == 1 or MPI.Query_thread() < MPI.THREAD_MULTIPLE:
        yield
        return
    done = threading.Event()

    def look() -> None:
        while not done.wait(LOOK):
            comm.Iprobe()

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
