"""Progress on rank 0: a bar on a terminal, a line now and then in a log."""

import sys
from collections.abc import Iterable

from mpi4py import MPI
from tqdm import tqdm

LOG_SECONDS = 10.0


def progress_bar(items: Iterable, label: str, comm: MPI.Comm, shown: bool = True) -> tqdm:
    """Iterate with a bar on rank 0, nothing elsewhere.

    Args:
        items: What to iterate over.
        label: What the bar is called.
        comm: Communicator whose rank 0 shows.
        shown: Whether to show at all.
    """
    terminal = sys.stderr.isatty()
    return tqdm(
        items,
        desc=label,
        disable=not shown or comm.rank != 0,
        leave=terminal,
        mininterval=0.2 if terminal else LOG_SECONDS,
        ascii=not terminal,
    )
