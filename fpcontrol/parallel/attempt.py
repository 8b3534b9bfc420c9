"""Run, meet, gather errors: a call that may fail on some ranks only, and what all should know."""

import traceback
from collections.abc import Callable
from dataclasses import dataclass

from mpi4py import MPI

from fpcontrol.parallel.errors import barrier_with_timeout


@dataclass(frozen=True)
class Attempt[Value]:
    """Outcome of a call on several ranks.

    Attributes:
        value: What the call returned on this rank; ``None`` if it raised.
        error: What it raised on this rank, if anything.
        told: The traceback of every rank, empty where it returned.
    """

    value: Value | None
    error: Exception | None
    told: list[str]

    @property
    def failed(self) -> list[int]:
        """Ranks on which the call raised."""
        return [rank for rank, text in enumerate(self.told) if text]


def attempt[Value](
    call: Callable[[], Value], meeting: MPI.Comm, patience: float, words: str
) -> Attempt[Value]:
    """Run ``call`` on all ranks and tell all of them where it raised. Collective.

    Args:
        call: Without arguments; it may make collective calls, on any communicator but ``meeting``.
        meeting: A communicator that nothing else uses.
        patience: Seconds that a rank on which it raised waits for the others, before it takes them
            to be stuck in a collective call that it left and ends the run.
        words: What such a rank says then, before its traceback: ``"reading raised on rank 1"``.
    """
    value, error, told = None, None, ""
    try:
        value = call()
    except Exception as caught:
        error, told = caught, "".join(traceback.format_exception(caught))
    barrier_with_timeout(meeting, patience, f"{words}, others are stuck:\n{told}" if error else "")
    return Attempt(value, error, meeting.allgather(told))
