"""Ctrl-C, as an entry of a list that long work looks at."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mpi4py import MPI

ANSWER = b"\nCtrl-C: stopping after this step; again to abort.\n"


class CollectiveInterrupt(KeyboardInterrupt):
    """A Ctrl-C that ends work on all ranks at once: none is left in a collective call."""


_flags: list[list[int]] = []  # of the blocks of ``interrupts`` that are open
_usual: list[Any] = []  # what Ctrl-C did before the outermost of them


@contextmanager
def interrupts() -> Iterator[list[int]]:
    """Turn the first Ctrl-C into an entry of a list; the second one acts as usual.

    The first one is answered at once by a line of rank 0 on stderr: what looks at the list may do
    so only after some seconds. Of blocks within blocks all get their entry: an optimization that
    ends early at a Ctrl-C does not keep it from the ensemble around it. Outside the main thread
    nothing is caught.
    """
    mine: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield mine
        return
    if not _flags:
        _usual.append(signal.signal(signal.SIGINT, _flag))
    _flags.append(mine)
    try:
        yield mine
    finally:
        _flags.pop()
        if not _flags:
            signal.signal(signal.SIGINT, _usual.pop())


def _flag(number: int, frame: Any) -> None:
    for flags in _flags:
        flags.append(number)
    signal.signal(signal.SIGINT, _usual[-1])
    if MPI.COMM_WORLD.rank == 0:
        # Past Python's buffers, which the interrupted code may be in the middle of writing to.
        with contextlib.suppress(OSError):
            os.write(2, ANSWER)
