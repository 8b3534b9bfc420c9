"""Start a program on all ranks so that its errors are printed once and nothing hangs."""

import os
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from mpi4py import MPI

from fpcontrol.parallel.errors import barrier_with_timeout

# Seconds that a rank with an error waits for the others before it ends the run: they get the same
# error within moments, or are stuck in a collective call.
PATIENCE = 10.0
INTERRUPTED = 130  # as shells have it


def launch(main: Callable[[], Any], *, patience: float = PATIENCE) -> None:
    """Run a program's ``main`` on all ranks of the world. Collective.

    An error is printed once, by rank 0, with the traceback of the lowest rank that has it, and not
    by all ranks at a time; ranks that failed in another way add a line each. If some ranks wait in
    a collective call that another one has left with an error, that one ends the run. Ctrl-C prints
    a line instead of a traceback.

    Args:
        main: The program, without arguments.
        patience: Seconds that a rank with an error waits for the others.

    Raises:
        SystemExit: With 1 after an error, 130 after Ctrl-C, and the program's own code if it
            leaves with one; on several ranks the process ends without it.
    """
    meeting = MPI.COMM_WORLD.Dup()  # nothing else uses it, so that a barrier is taken for no other
    name, text, code = "", "", 0
    try:
        main()
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
        if code:  # what went wrong has been printed, unless the code is itself the message
            name = f"exit code {code}"
            text = "" if isinstance(leaving.code, int) else f"{leaving.code}\n"
    except KeyboardInterrupt as stopped:
        name, code = ": ".join(filter(None, ["stopped by Ctrl-C", str(stopped)])), INTERRUPTED
        text = f"{name}\n"
        patience = min(patience, 2.0)
    except Exception as error:
        below = error.__traceback__.tb_next if error.__traceback__ else None
        text = "".join(traceback.format_exception(type(error), error, below))
        name, code = f"{type(error).__name__}: {error}", 1
    sys.stdout.flush()
    words = f"On rank {meeting.rank} alone:\n{text or name}" if name else ""
    barrier_with_timeout(meeting, patience, words)
    outcomes = meeting.allgather((name, text, code))
    if meeting.rank == 0:
        print(_report(outcomes), end="", file=sys.stderr, flush=True)
    meeting.Free()
    code = max(outcome[2] for outcome in outcomes)
    if code:
        leave(code)


def leave(code: int) -> NoReturn:
    """End the process with an exit code that is the same on all ranks. Collective."""
    sys.stdout.flush()
    sys.stderr.flush()
    if code and MPI.COMM_WORLD.size > 1:
        # `python -m mpi4py` takes an exit code for a crash: it would abort all ranks, and say so.
        MPI.Finalize()
        os._exit(code)
    sys.exit(code)


def _report(outcomes: list[tuple[str, str, int]]) -> str:
    """The first failure in full, a line for each other one that differs."""
    failed = [rank for rank, (name, _, _) in enumerate(outcomes) if name]
    if not failed:
        return ""
    first = failed[0]
    others = [rank for rank in failed if outcomes[rank][0] != outcomes[first][0]]
    text = outcomes[first][1]
    if len(failed) < len(outcomes) or others:
        text = f"On rank {first}:\n{text or outcomes[first][0]}\n"
    return text + "".join(f"On rank {rank}: {outcomes[rank][0]}\n" for rank in others)
