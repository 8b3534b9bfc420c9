"""Errors that every rank sees: found before a collective call is entered, raised on all ranks.

A rank that raises alone leaves the others waiting in their next collective call for ever.
"""

import pickle
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from mpi4py import MPI

import numpy as np

# Seconds for the launcher to pass on what a rank has said: it drops what it has not yet read when
# it ends the ranks.
LAST_WORDS = 1.0


def raise_collectively(comm: MPI.Comm, error: Exception | None) -> None:
    """Raise on every rank if at least one rank passes an error. Collective.

    The error of the lowest failing rank is raised everywhere, so that all ranks say the same.

    Args:
        comm: Communicator whose ranks all make this call.
        error: What this rank found, or ``None``.

    Raises:
        Exception: The lowest failing rank's error, on all ranks.
    """
    first = np.array(comm.size if error is None else comm.rank)
    comm.Allreduce(MPI.IN_PLACE, first, op=MPI.MIN)  # of a number: half the cost of an object's
    lowest = int(first)
    if lowest == comm.size:
        return
    mine = error if comm.rank == lowest else None
    shared = comm.bcast(portable(mine) if mine else None, root=lowest)
    raise mine or shared


def portable(error: Exception) -> Exception:
    """An exception that other ranks can unpickle: a copy, or its name and words."""
    try:
        copy = pickle.loads(pickle.dumps(error))
        if type(copy) is type(error) and str(copy) == str(error):
            return copy
    except Exception:
        pass
    return RuntimeError(f"{type(error).__name__}: {error}")


@contextmanager
def collective_errors(comm: MPI.Comm) -> Iterator[None]:
    """Run a block without collective calls; an error on any rank is raised on all. Collective.

    Args:
        comm: Communicator whose ranks all run this block.
    """
    error = None
    try:
        yield
    except Exception as caught:
        error = caught
    raise_collectively(comm, error)


def reduced(comm: MPI.Comm, values: np.ndarray, op: MPI.Op = MPI.SUM) -> np.ndarray:
    """Entrywise reduction of an array over the ranks, on all of them. Collective."""
    result = np.empty_like(values)
    comm.Allreduce(np.ascontiguousarray(values), result, op=op)
    return result


def abort(message: str) -> NoReturn:
    """End all ranks of the run, whatever they wait for, after a last message. Not collective."""
    print(message, file=sys.stderr, flush=True)
    time.sleep(LAST_WORDS)
    MPI.COMM_WORLD.Abort(1)
    raise SystemExit(1)  # Abort does not come back; a type checker cannot know


def barrier_with_timeout(meeting: MPI.Comm, patience: float, message: str = "") -> None:
    """Wait for all ranks; a rank that failed does not wait for ever. Collective.

    Args:
        meeting: Communicator that nothing else uses: a meeting must not be taken for a collective
            call that another rank is still in.
        patience: Seconds that a rank which failed waits for the others, which fail too within
            moments or are stuck in a collective call that it left. It then ends the run.
        message: The last words of a rank that failed; empty on one that did not.
    """
    arrived, deadline = meeting.Ibarrier(), time.monotonic() + patience
    while not arrived.Test():
        if message and time.monotonic() > deadline:
            abort(message)
        time.sleep(1e-3)  # leaves the core to ranks that still work
