"""Break the code on purpose and see whether the theorem checks find it (``make mutation``).

Each mutation is one textual change of a copy of the package. The checks (``fpcontrol verify
--quick``) run on the copy: first those that should notice, then, if none did, all of them. A
mutation that all checks pass has survived: either the checks have a gap, or the change is none.
A run of all mutations is written to ``tests/mutation.md``.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mutations import MUTATIONS, Mutation

PACKAGE = Path(__file__).parents[1] / "fpcontrol"
TABLE = Path(__file__).with_suffix(".md")

# Broken code may run for ever; the unbroken checks take a minute or two.
SECONDS = 900.0


@dataclass(frozen=True)
class Result:
    """What the checks said: exit code, failed rows by experiment, experiments that raised."""

    code: int
    failed: tuple[str, ...]
    seconds: float

    @property
    def words(self) -> str:
        """The first of what failed, and how many more."""
        if not self.failed:
            return "SURVIVED"
        more = f" and {len(self.failed) - 1} more" if len(self.failed) > 1 else ""
        return textwrap.shorten(self.failed[0], 100, placeholder=" ...") + more


def verify(folder: Path, names: tuple[str, ...]) -> Result:
    """Run the checks on the package in a folder."""
    target, start = folder / "result.json", time.monotonic()
    target.unlink(missing_ok=True)
    command = [sys.executable, "-m", "fpcontrol", "verify", "--quick", *names]
    try:
        done = subprocess.run(
            [*command, "--json", str(target)],
            cwd=folder,
            # Loops are compiled once for all copies: those that are not changed stay as old.
            env=os.environ
            | {
                "PYTHONPATH": str(folder),
                "OMP_NUM_THREADS": "1",
                "NUMBA_CACHE_DIR": str(folder / "numba"),
            },
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired:
        return Result(1, (f"no end within {SECONDS:.0f} s",), SECONDS)
    if not target.exists():
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    studies = [s for part in json.loads(target.read_text())["statements"] for s in part["studies"]]
    failed = tuple(text for study in studies for text in failures(study))
    return Result(done.returncode, failed, time.monotonic() - start)


def failures(study: dict[str, Any]) -> list[str]:
    """Names of the failed rows of a study, or what it raised."""
    if "error" in study:
        return [f"{study['key']} raised {study['error']}"]
    rows = [row["quantity"] for row in study["rows"] if row["verdict"] == "failed"]
    return [f"{study['key']}: {quantity}" for quantity in rows]


def copied(folder: Path) -> Path:
    """A fresh copy of the package in a folder."""
    target = folder / "fpcontrol"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(PACKAGE, target, ignore=shutil.ignore_patterns("__pycache__"))
    return target


def apply(mutation: Mutation, package: Path) -> None:
    """Change the copy.

    Raises:
        ValueError: If the text is not there exactly once.
    """
    path = package / mutation.file
    text = path.read_text(encoding="utf-8")
    if (count := text.count(mutation.old)) != 1:
        raise ValueError(f"{mutation.name}: {mutation.old!r} is {count} times in {mutation.file}.")
    path.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")


def main() -> int:
    """Run all mutations; the exit code is 1 if one survives."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", help="only mutations whose name contains one of these")
    parser.add_argument("--all", action="store_true", help="run all checks on each mutation")
    parser.add_argument("--no-baseline", action="store_true", help="skip the unbroken package")
    options = parser.parse_args()
    chosen = [m for m in MUTATIONS if not options.words or any(w in m.name for w in options.words)]
    results: list[Result] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for mutation in MUTATIONS:  # a text that is no longer there is found before anything runs
            apply(mutation, copied(folder))
        copied(folder)
        if not options.no_baseline:
            result = verify(folder, ())
            print(
                f"{'unbroken':52}  {result.seconds:4.0f} s  passes" if not result.code else "",
                flush=True,
            )
            if result.code:
                print("The unbroken package fails:", *result.failed, sep="\n  ")
                return 1
        for mutation in chosen:
            apply(mutation, copied(folder))
            result = verify(folder, () if options.all else mutation.first)
            if not result.failed and not options.all:
                result = verify(folder, ())
            results.append(result)
            print(f"{mutation.name:52}  {result.seconds:4.0f} s  {result.words}", flush=True)
    caught = sum(bool(result.failed) for result in results)
    print(f"{caught} of {len(chosen)} mutations caught")
    if chosen == [*MUTATIONS] and not options.all:
        TABLE.write_text(table(results), encoding="utf-8")
        print(f"written to {TABLE}")
    return 0 if caught == len(chosen) else 1


def table(results: Sequence[Result]) -> str:
    """All mutations and what noticed them, in Markdown."""
    lines = [
        f"| {m.name} | `{m.file}` | {r.words.replace('|', chr(92) + '|')} |"
        for m, r in zip(MUTATIONS, results, strict=True)
    ]
    caught = sum(bool(r.failed) for r in results)
    return f"""# What the theorem checks notice

Written by `make mutation`: {caught} of {len(results)} defects, put into a copy of the package one
at a time, fail a check of `fpcontrol verify --quick`. For each: the first check that failed, and
how many more of those that ran, which are those that should notice; where they do not, all run.

| defect | file in `fpcontrol` | noticed by |
|---|---|---|
{chr(10).join(lines)}
"""


if __name__ == "__main__":
    sys.exit(main())
