"""Runs of many experiments: which, one after the other on all ranks, and what came out."""

import math
import re
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

from mpi4py import MPI

from fpcontrol import theorems
from fpcontrol.parallel.errors import barrier_with_timeout
from fpcontrol.parallel.signals import interrupts
from fpcontrol.theorems import Statement
from fpcontrol.theorems.framework.checks import Row, Study
from fpcontrol.theorems.framework.experiments import Experiment

# A rank whose experiment raised waits this long (seconds) for the others, which raise too within
# moments or are stuck in a collective call that it left.
PATIENCE = 60.0


@dataclass(frozen=True)
class Outcome:
    """What came out of one experiment: a study, or the message of what it raised."""

    statement: Statement
    key: str
    study: Study | None
    error: str
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether it ran and all its rows pass."""
        return self.study is not None and self.study.passed

    @property
    def rows(self) -> Sequence[Row]:
        """The rows of the study; none if the experiment raised."""
        return self.study.rows if self.study else ()


# Dots part a key's words, unless they are those of a number such as sigma=0.5.
_DOT = re.compile(r"(?<!\d)\.|\.(?!\d)")


def _begins(name: str, key: str) -> bool:
    """Whether the words of a name are the first ones of a key."""
    words = _DOT.split(name)
    return _DOT.split(key)[: len(words)] == words


def select(
    names: Sequence[str], quick: bool, own: Mapping[str, str] | None = None
) -> list[tuple[Statement, Experiment]]:
    """Experiments of the statements named, or whose keys begin with a name; all without names.

    Names and keys are compared word by word, as dots part them: ``t5.with`` is not the beginning of
    ``t5.without``.

    Args:
        names: Of statements or experiments.
        quick: Whether to choose from the quick ones.
        own: Parameters of one's own, as typed. All chosen experiments must have them; a name that
            is a whole key then chooses that experiment alone.

    Raises:
        ValueError: For a name that is neither, or a parameter that an experiment has not; the
            message lists what there is.
    """
    statements = theorems.STATEMENTS
    asked = {_DOT.split(name)[0] for name in names}
    listed = {s.name: s.experiments(quick) for s in statements if not names or s.name in asked}
    for name in names:
        first = _DOT.split(name)[0]
        keys = [e.key for e in listed.get(first, [])]
        if name in listed or any(_begins(name, key) for key in keys):
            continue
        there = f"the {first} experiments" if keys else "the statements"
        raise ValueError(
            f"NAME = {name!r} is unknown; there are {there} "
            + ", ".join(keys or [s.name for s in statements])
            + (" (some need a run without --quick)." if keys and quick else ".")
        )
    whole = {e.key for found in listed.values() for e in found}

    def meant(name: str, statement: Statement, key: str) -> bool:
        if own and name in whole:
            return name == key
        return name == statement.name or _begins(name, key)

    return [
        (s, e.with_values(own) if own else e)
        for s in statements
        for e in listed.get(s.name, [])
        if not names or any(meant(n, s, e.key) for n in names)
    ]


def run(
    chosen: Sequence[tuple[Statement, Experiment]],
    comm: MPI.Comm,
    announce: Callable[[str], None] = lambda key: None,
) -> Generator[Outcome]:
    """Run experiments and yield what came out of each, the same on all ranks. Collective.

    Args:
        chosen: From ``select``.
        comm: Communicator.
        announce: Called with an experiment's key before it runs.

    Raises:
        KeyboardInterrupt: After a Ctrl-C; on several ranks on all of them, once the experiment
            that runs has ended, so that no rank is left in a collective call.
    """
    # The ranks meet on a communicator of their own: a meeting must not be taken for a collective
    # call of the experiment that another rank is still in.
    meeting = comm.Dup()
    try:
        # One rank alone is stopped at once, wherever it is.
        caught = interrupts() if comm.size > 1 else nullcontext(list[int]())
        with caught as interrupted:
            for statement, experiment in chosen:
                if meeting.allreduce(bool(interrupted), op=MPI.LOR):
                    raise KeyboardInterrupt
                announce(experiment.key)
                yield _outcome(statement, experiment, comm, meeting)
    finally:
        meeting.Free()


def _outcome(
    statement: Statement, experiment: Experiment, comm: MPI.Comm, meeting: MPI.Comm
) -> Outcome:
    start, study, error = time.perf_counter(), None, ""
    try:
        study = experiment.run(comm)
    except Exception as caught:
        error = f"{type(caught).__name__}: {caught}"
    words = f"{experiment.key} raised on rank {meeting.rank}, others are stuck: {error}"
    barrier_with_timeout(meeting, PATIENCE, words if error else "")
    errors = meeting.allgather(error)
    if any(errors):
        first = next(i for i, e in enumerate(errors) if e)
        alone = f" (on rank {first}, not on all)" if not all(errors) else ""
        study, error = None, errors[first] + alone
    else:
        verdicts = meeting.allgather([row.passed for row in study.rows] if study else [])
        if any(v != verdicts[0] for v in verdicts):
            study, error = None, "The verdicts differ between the ranks."
        study = meeting.bcast(study)
    seconds = meeting.bcast(time.perf_counter() - start)
    return Outcome(statement, experiment.key, study, error, seconds)


def record(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Statements with their studies, rows and verdicts, in strict JSON."""
    found: dict[str, dict[str, Any]] = {}
    for o in outcomes:
        statement = found.setdefault(
            o.statement.name,
            {"name": o.statement.name, "title": o.statement.title, "passed": True, "studies": []},
        )
        statement["passed"] &= o.passed
        study: dict[str, Any] = {"key": o.key, "seconds": o.seconds, "passed": o.passed}
        if o.study is None:
            study["error"] = o.error
        else:
            study |= {"name": o.study.name, "claim": o.study.claim, "label": o.study.label}
            study["rows"] = [
                {k: _plain(v) for k, v in asdict(row).items()} | {"verdict": verdict(row)}
                for row in o.study.rows
            ]
        statement["studies"].append(study)
    return list(found.values())


def verdict(row: Row) -> str:
    """In a word: a row that cannot fail is a report, not a check."""
    return ("passed" if row.passed else "failed") if row.is_check else "reported"


def _plain(value: Any) -> Any:
    """A float where JSON has one, else its name: NaN and infinities are no JSON."""
    if value is None or isinstance(value, (str, bool)):
        return value
    return float(value) if math.isfinite(value) else str(float(value))
