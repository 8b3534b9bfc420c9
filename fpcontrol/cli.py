"""Command line: ``fpcontrol verify`` runs the experiments of ``fpcontrol.theorems``."""

import argparse
import contextlib
import sys
import textwrap
import time
from collections.abc import Sequence
from datetime import datetime
from itertools import zip_longest
from pathlib import Path
from typing import Any

from mpi4py import MPI

from fpcontrol import io, theorems
from fpcontrol.parallel.errors import collective_errors
from fpcontrol.parallel.files import output_path
from fpcontrol.theorems.framework import runner as suite
from fpcontrol.theorems.framework.checks import Row
from fpcontrol.theorems.framework.experiments import Experiment
from fpcontrol.theorems.report import page as report
from fpcontrol.theorems.report.markup import plain

COLUMNS = 108
OPTIONS = {"--help", "--version", "--quick", "--list", "--json", "--report"}
HEAD = ("quantity", "predicted", "measured", "bound", "disc. error", "tolerance", "verdict")
FAILED, BAD_ARGUMENTS, INTERRUPTED = 1, 2, 130  # as shells and argparse have it

DESCRIPTION = """\
Check the theorems: each experiment solves a problem whose answer theory predicts, and compares.

A row passes if the measured figure is within its tolerance (relative) of the predicted one, or
within its bound, and its discretization error is smaller than what the verdict rests on. Checks
without one (disc. error -) are identities of the computed solution, on any mesh. A row without
prediction or bound reports a figure (verdict -)."""

EPILOG = """\
statements:
{statements}

An experiment can be run with parameters of one's own, as --list shows them:
  fpcontrol verify t1.oscillating --a 3 --t1 0.7 --frequencies 1,3,9
All experiments that are chosen must have them; a whole key then chooses that experiment alone.

exit codes: 0 all checks pass; 1 one fails; 2 bad arguments; 130 stopped by Ctrl-C.
On several ranks: mpirun -n 2 python -m mpi4py -m fpcontrol verify"""


def main(arguments: Sequence[str] | None = None, comm: MPI.Comm = MPI.COMM_WORLD) -> int:
    """Run the command line on all ranks; rank 0 prints. Collective.

    Args:
        arguments: As typed after ``fpcontrol``; those of the process unless given.
        comm: Communicator whose ranks all make this call with the same arguments.

    Returns:
        The exit code, the same on all ranks.
    """
    try:
        return _main(arguments, comm)
    finally:
        # A rank that leaves with a code other than 0 ends all: not before rank 0 has printed.
        sys.stdout.flush()
        comm.barrier()


def _main(arguments: Sequence[str] | None, comm: MPI.Comm) -> int:
    options = code = None
    if comm.rank == 0:
        known, own = _split(sys.argv[1:] if arguments is None else arguments)
        try:
            options = _parser().parse_args(known)
            options.own = own
        except SystemExit as parsed:  # help or bad arguments, already printed
            code = int(parsed.code or 0)
    options, code = comm.bcast((options, code))
    if options is None:
        return code
    try:
        with collective_errors(comm):
            chosen = suite.select(options.names, options.quick, options.own)
        if options.list:
            if comm.rank == 0:
                print("\n".join(listing(chosen, bool(options.names))))
            return 0
        if options.json:
            output_path(options.json, comm)
        if options.report:
            output_path(Path(options.report) / "index.html", comm)
            report.check()
    except (ValueError, OSError, ImportError) as error:
        if comm.rank == 0:
            print(f"fpcontrol verify: {error}", file=sys.stderr)
        return BAD_ARGUMENTS
    return _verify(chosen, options, comm)


def _split(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Arguments that argparse knows, and the experiments' own parameters: --name value."""
    known: list[str] = []
    own: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if not word.startswith("--") or name in OPTIONS:
            known.append(word)
        elif equals or (rest and not rest[0].startswith("--")):
            own[name[2:].replace("-", "_")] = value if equals else rest.pop(0)
        else:
            known.append(word)  # without a value: no parameter, and argparse says what there is
    return known, own


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fpcontrol", description="Controlled Fokker-Planck equations on bounded domains."
    )
    version = io.versions()["fpcontrol"]
    parser.add_argument("--version", action="version", version=f"fpcontrol {version}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    width = max(len(s.name) for s in theorems.STATEMENTS)
    verify = commands.add_parser(
        "verify",
        help="check the theorems",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=EPILOG.format(
            statements="\n".join(f"  {s.name:{width}}  {s.title}" for s in theorems.STATEMENTS)
        ),
    )
    verify.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="statement (below), experiment, or the first words of its key between dots, such as "
        "t1.oscillating; all unless given",
    )
    verify.add_argument("--quick", action="store_true", help="a subset, in a minute or two")
    verify.add_argument(
        "--list", action="store_true", help="list the experiments and their parameters; run none"
    )
    verify.add_argument("--json", metavar="FILE", help="write rows and verdicts to this file")
    verify.add_argument(
        "--report", metavar="DIR", help="write a page with pictures, DIR/index.html"
    )
    return parser


def _verify(
    chosen: Sequence[tuple[theorems.Statement, Experiment]],
    options: argparse.Namespace,
    comm: MPI.Comm,
) -> int:
    start, interrupted = time.perf_counter(), False
    began = datetime.now().astimezone().isoformat(timespec="seconds")
    say = _Printer(comm.rank == 0, len(chosen))
    outcomes: list[suite.Outcome] = []
    with contextlib.closing(suite.run(chosen, comm, say.next)) as results:
        try:
            for outcome in results:
                outcomes.append(outcome)
                say.done(outcome)
        except KeyboardInterrupt:
            interrupted = True
    record = {
        "command": "fpcontrol verify",
        "names": options.names,
        "quick": options.quick,
        "parameters": options.own,
        "began": began,
        "seconds": time.perf_counter() - start,
        "ranks": comm.size,
        "versions": io.versions(),
        "passed": all(o.passed for o in outcomes) and not interrupted,
        "interrupted": interrupted,
        "missing": [e.key for _, e in chosen[len(outcomes) :]],
        "statements": suite.record(outcomes),
    }
    if options.json:
        io.write_json(record, options.json, comm)
    if options.report:
        say.tell("drawing the page ...")
        report.write(outcomes, record, options.report, comm)
    say.summary(outcomes, record)
    if interrupted:
        return INTERRUPTED
    return 0 if record["passed"] else FAILED


def listing(
    chosen: Sequence[tuple[theorems.Statement, Experiment]], whole: bool = False
) -> list[str]:
    """Experiments with their parameters and defaults; if ``whole``, what each parameter is."""
    lines, shown = [], None
    for statement, experiment in chosen:
        if statement is not shown:
            shown = statement
            lines += [f"{statement.name}: {statement.title}", ""]
        lines += _wrapped(f"{experiment.key}: {experiment.title}", COLUMNS, "  ", "      ")
        given = [p for p in experiment.parameters if p.reader]
        if not whole:
            defaults = " ".join(f"--{p.name} {p.shown}".strip() for p in given)
            lines += _wrapped(defaults, COLUMNS, "      ")
            continue
        for p in given:
            text = f"{p.text} [{p.shown}]" if p.shown else p.text
            lines += _wrapped(f"--{p.name:<16} {text}", COLUMNS, "      ", " " * 25)
        lines.append("")
    return lines


class _Printer:
    """What rank 0 says: progress on stderr, tables and the summary on stdout."""

    def __init__(self, speaks: bool, total: int) -> None:
        self._speaks, self._total, self._count = speaks, total, 0

    def next(self, key: str) -> None:
        """An experiment starts."""
        self._count += 1
        self.tell(f"[{self._count:{len(str(self._total))}}/{self._total}] {key} ...")

    def tell(self, text: str) -> None:
        """Say what is going on."""
        if self._speaks:
            print(text, file=sys.stderr, flush=True)

    def done(self, outcome: suite.Outcome) -> None:
        """An experiment has ended."""
        if self._speaks:
            print(text_of(outcome), flush=True)

    def summary(self, outcomes: Sequence[suite.Outcome], record: dict[str, Any]) -> None:
        """The last line, after the list of what failed."""
        if not self._speaks:
            return
        checks = [row for o in outcomes for row in o.rows if row.is_check]
        failed = [row for row in checks if not row.passed]
        for o in outcomes:
            if o.error:
                print(plain(f"FAILED  {o.key}: {o.error}"))
            for row in o.rows:
                if not row.passed:
                    print(plain(f"FAILED  {o.key}: {row.quantity}"))
        text = f"{len(checks)} checks in {len(outcomes)} experiments: "
        text += f"{len(checks) - len(failed)} passed, {len(failed)} failed"
        errors = sum(bool(o.error) for o in outcomes)
        text += f", {errors} experiments raised" if errors else ""
        missing = len(record["missing"])
        text += f"; stopped by Ctrl-C, {missing} experiments not run" if missing else ""
        ranks = f"{record['ranks']} rank" + "s" * (record["ranks"] > 1)
        print(f"{text} ({record['seconds']:.1f} s, {ranks})", flush=True)


def text_of(outcome: suite.Outcome) -> str:
    """One experiment in ASCII: its claim and its table, or what it raised."""
    head = f"{outcome.key}  ({outcome.seconds:.1f} s)"
    if outcome.study is None:
        return "\n".join([head, *_wrapped(f"FAILED: {outcome.error}", COLUMNS, "  "), ""])
    claim = f"{outcome.study.claim} [{outcome.study.label}]"
    return "\n".join([head, *_wrapped(claim, COLUMNS, "  "), *table(outcome.rows), ""])


def table(rows: Sequence[Row]) -> list[str]:
    """Rows as aligned lines of at most ``COLUMNS`` characters; long quantities are wrapped."""
    cells = [HEAD, *(_cells(row) for row in rows)]
    # Columns without an entry leave their place to the quantities.
    kept = [i for i in range(len(HEAD)) if any(line[i] for line in cells[1:])]
    cells = [tuple(line[i] for i in kept) for line in cells]
    widths = [max(len(line[i]) for line in cells) for i in range(1, len(kept))]
    first = max(len(plain(line[0])) for line in cells)
    first = min(first, COLUMNS - 2 - sum(w + 2 for w in widths))
    lines = []
    for quantity, *others in cells:
        right = "".join(f"  {c:>{w}}" for c, w in zip(others, widths, strict=True))
        names = _wrapped(quantity, first, "", "  ")
        parts = zip_longest(names, [right], fillvalue="")
        lines += [f"  {name:{first}}{part}".rstrip() for name, part in parts]
    lines.insert(1, "  " + "-" * (first + sum(w + 2 for w in widths)))
    return lines


def _cells(row: Row) -> tuple[str, ...]:
    bounds = [f"<= {number(row.bound)}"] if row.bound is not None else []
    bounds += [f">= {number(row.at_least)}"] if row.at_least is not None else []
    return (
        row.quantity,
        "" if row.predicted is None else number(row.predicted),
        number(row.measured),
        " ".join(bounds),
        "-" if row.discretization_error is None else f"{row.discretization_error:.1e}",
        f"{row.tolerance:.2g}" if row.tolerance else "",
        {"passed": "ok", "failed": "FAILED", "reported": "-"}[suite.verdict(row)],
    )


def number(value: float) -> str:
    """Six digits, as many as the figures of the theory are given with."""
    return f"{value:.6g}"


def _wrapped(text: str, width: int, first: str, others: str | None = None) -> list[str]:
    later = first if others is None else others
    return textwrap.wrap(plain(text), width, initial_indent=first, subsequent_indent=later) or [""]
