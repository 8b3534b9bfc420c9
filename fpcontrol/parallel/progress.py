"""Progress on rank 0: a bar on a terminal, a line now and then in a log."""

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from mpi4py import MPI

from numba.core import event
from tqdm import tqdm

LOG_SECONDS = 10.0
_silent = 0  # blocks of ``silenced`` that are open


class Progress:
    """A bar (terminal), or a line now and every ten seconds (log), on rank 0, on stderr.

    Args:
        label: What it is called.
        total: Number of updates to come.
        comm: Communicator whose rank 0 shows.
        shown: Whether to show at all.
    """

    def __init__(self, label: str, total: int, comm: MPI.Comm, shown: bool = True) -> None:
        self._label, self._total, self._done = label, total, 0
        self._shown = shown and comm.rank == 0 and not _silent
        self._terminal = sys.stderr.isatty()
        self._bar = tqdm(total=total, desc=label, disable=not (self._shown and self._terminal))
        self._last = time.monotonic()
        if self._shown and not self._terminal:  # a first update may take minutes
            print(f"{label} 0/{total}", file=sys.stderr, flush=True)

    def update(self, text: str = "", more: int = 1) -> None:
        """One more done, or as many as said; ``text`` says how things are."""
        self._done += more
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.update(more)
        now = time.monotonic()
        if self._shown and not self._terminal and now - self._last > LOG_SECONDS:
            self._last = now
            print(f"{self._label} {self._done}/{self._total} {text}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()


def log_rank0(text: str, comm: MPI.Comm, shown: bool = True) -> None:
    """A line on rank 0, on stderr, above a bar that may be there."""
    if shown and comm.rank == 0 and not _silent:
        tqdm.write(text, file=sys.stderr)


@contextmanager
def silenced() -> Iterator[None]:
    """A block in which nothing new shows: side by side, bars of many would be unreadable."""
    global _silent
    _silent += 1
    try:
        yield
    finally:
        _silent -= 1


def track(items: Iterable[int], label: str, comm: MPI.Comm, shown: bool) -> Iterator[int]:
    """Iterate over items with a ``Progress``."""
    items = list(items)
    progress = Progress(label, len(items), comm, shown)
    for item in items:
        yield item
        progress.update()
    progress.close()


class _Compilation(event.Listener):
    """Says once that loops are being compiled, and takes the seconds.

    Attributes:
        seconds: Spent in compiling so far, on this rank.
    """

    def __init__(self) -> None:
        self._said = MPI.COMM_WORLD.rank > 0
        self._nested, self._begun, self.seconds = 0, 0.0, 0.0

    def on_start(self, event: Any) -> None:
        """A function that is not on disk yet is compiled."""
        if not self._nested:
            self._begun = time.monotonic()
        self._nested += 1
        module = event.data["dispatcher"].py_func.__module__
        if not (self._said or _silent) and module.startswith("fpcontrol."):
            self._said = True
            log_rank0("compiling loops (first use only: they are kept on disk) ...", MPI.COMM_SELF)

    def on_end(self, event: Any) -> None:
        """It is compiled, and perhaps what had asked for it is not."""
        self._nested -= 1
        if not self._nested:
            self.seconds += time.monotonic() - self._begun


_compilation = _Compilation()


def announce_compilation() -> None:
    """Let rank 0 say on stderr, once, when numba compiles loops of this package."""
    event.register("numba:compile", _compilation)


def clock() -> float:
    """Seconds of a clock that stands still while loops are compiled: for budgets."""
    return time.monotonic() - _compilation.seconds
