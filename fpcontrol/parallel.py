"""Errors that every rank sees: found before a collective call is entered, raised on all ranks.

A rank that raises alone leaves the others waiting in their next collective call for ever.
"""

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


def raise_together(comm: MPI.Comm, error: Exception | None) -> None:
    """Raise on every rank if at least one rank passes an error. Collective.

    The error of the lowest failing rank is raised everywhere, so that all ranks say the same.

    Args:
        comm: Communicator whose ranks all make this call.
        error: What this rank found, or ``None``.

    Raises:
        Exception: The lowest failing rank's error, on all ranks.
    """
    first = comm.allreduce(comm.size if error is None else comm.rank, op=MPI.MIN)
    if first == comm.size:
        return
    shared = comm.bcast(error, root=first)
    raise error if comm.rank == first and error is not None else shared


@contextmanager
def together(comm: MPI.Comm) -> Iterator[None]:
    """Run a block without collective calls; an error on any rank is raised on all. Collective.

    Args:
        comm: Communicator whose ranks all run this block.
    """
    error = None
    try:
        yield
    except Exception as caught:
        error = caught
    raise_together(comm, error)


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


def lasting(comm: MPI.Comm) -> MPI.Comm:
    """The world's communicator if it has the ranks of ``comm``, else ``comm``."""
    same = MPI.Comm.Compare(comm, MPI.COMM_WORLD) in (MPI.IDENT, MPI.CONGRUENT)
    return MPI.COMM_WORLD if same else comm
