"""Ornstein-Uhlenbeck noising against pinned Brownian motion, at the same budget of features.

    python benchmarks/bench_bridges.py [--quick] [--targets T..] [--seeds N] [--out D] [--rows K]

The two are one process up to a change of time and scale, so first one model goes through both.
What differs is the form in which a score is modelled, and the weights of its fit: scores linear in
random features are fitted by least squares to the exact score, networks are trained to it with JAX
(left out without), and the densities of their samplers are computed by the equation (d = 1, 2, 3),
or particles are drawn (d = 10, 50). All start and end at the same noise. Every row goes to
D/bridges-runs.json as soon as it is there, and is not computed again: a run that was broken off
goes on. Says its cost first. One rank.
"""

import argparse
import importlib.util
import time
from pathlib import Path
from typing import Any

from mpi4py import MPI

import bridges_cases as cases
import numpy as np
import results
import timing
from bridges_cases import TARGETS, Case

COLUMNS = ("path KL", "KL", "L2", "W2", "MMD")
KEY = ("target", "process", "family", "form", "weighting", "n", "weights")
SHOWN = ("target", "family", "form", "weighting", "n", "weights")
PLAIN = [("plain", "kl"), ("plain", "snr"), ("pinned", "kl"), ("pinned", "snr")]
ALL = [*PLAIN[:2], ("centred", "kl"), ("damped", "kl"), *PLAIN[2:]]
USUAL = tuple(name for name in TARGETS if name != "funnel3")
ITERATIONS, TRAINED = 10_000, 15.0  # of a network, and seconds of the processor for its row


def of_both(quick: bool) -> list[Case]:
    """One score through both processes, on twice the cells: the pinned one starts narrow."""
    cells, steps = (300, 40) if quick else (800, 120)
    forms = [("exact", "", 0), ("plain", "kl", 64), ("pinned", "kl", 64)]
    return [
        Case("two", *form, 0, cells, steps, process)
        for form in (forms[1:] if quick else forms)
        for process in ("OU", "pinned")
    ]


def of_forms(targets: list[str], seeds: int, quick: bool) -> list[Case]:
    """The floor of the method and all forms, a whole round of seeds before the next."""
    found = []
    for seed in range(seeds):
        for name in targets:
            t = TARGETS[name]
            size = (t.cells, t.steps)
            budgets = t.budgets
            if quick:
                size = (80, 24) if t.dimension == 1 else (300, 40)
                budgets = budgets[:1]
            if seed == 0:
                found.append(Case(name, "exact", "", 0, 0, *size))
            for n in budgets:
                for form, weighting in ALL if t.dimension == 1 else PLAIN:
                    found.append(Case(name, form, weighting, n, seed, *size))
    return found


def of_trained(targets: list[str], seeds: int, quick: bool) -> list[Case]:
    """Networks of the same widths, iterations and batches in the two forms, with both weights."""
    if not all(importlib.util.find_spec(name) for name in ("jax", "optax")):
        print("trained networks are left out: they need JAX, pip install 'fpcontrol[score]'")
        return []
    if quick:
        return [Case("two", form, "kl", 8, 0, 80, 24, "OU", 300) for form in ("plain", "pinned")]
    return [
        Case(name, form, weighting, n, seed, t.cells, t.steps, "OU", ITERATIONS)
        for seed in range(seeds)
        for name, t in ((name, TARGETS[name]) for name in targets)
        for n in t.widths
        for form, weighting in PLAIN
    ]


def all_rows(jobs: list[Case], out: Path | None, most: int | None) -> list[dict[str, Any]]:
    """Rows of all cases, in their order; at most so many that are new."""
    kept = dict((results.read(out, "bridges-runs") or {}) if out else {})
    new = 0
    for i, case in enumerate(jobs):
        if case.name in kept or (most is not None and new >= most):
            continue
        begin = time.process_time()
        row = {"seed": case.seed} | cases.measured(case)
        row["seconds"] = time.process_time() - begin
        kept[case.name] = row
        new += 1
        if out is not None:
            results.write(out / "bridges-runs.json", kept)
        print(f"{i + 1}/{len(jobs)} {case.name}: {row['seconds']:.1f} s", flush=True)
    return [
        {key: getattr(case, key) for key in KEY} | results._plain(kept[case.name])
        for case in jobs
        if case.name in kept
    ]


def check(rows: list[dict[str, Any]]) -> None:
    """Girsanov's bound, in every row with a divergence.

    Raises:
        ArithmeticError: If a divergence is above that of the paths by more than both errors.
    """
    for row in rows:
        if row.get("KL") is None:
            continue
        margin = row["path KL"] + row["path KL error"] - row["KL"] + (row["KL error"] or 0.0)
        if margin < 0.0:
            raise ArithmeticError(f"KL is above the divergence of the paths by {-margin:g}: {row}")


def same_in_both(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Figures of one score by both processes, and how far they are apart."""
    found = []
    for one, two in zip(rows[::2], rows[1::2], strict=True):
        row = {"form": one["form"], "n": one["n"]}
        for name in COLUMNS[:-1]:
            row |= {name: one[name], f"{name} pinned": two[name]}
            errors = one[f"{name} error"], two[f"{name} error"]
            row[f"{name} error"] = max(e for e in errors if e is not None)
        found.append(row)
    return found


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Medians over the seeds, the spread from the least to the most, the largest error."""
    found = []
    rows = sorted(rows, key=lambda r: list(TARGETS).index(r["target"]))
    for key in dict.fromkeys(tuple(r[name] for name in KEY) for r in rows):
        own = [r for r in rows if tuple(r[name] for name in KEY) == key]
        row: dict[str, Any] = dict(zip(KEY, key, strict=True)) | {"seeds": len(own)}
        for name in COLUMNS:
            values = [r[name] for r in own if r.get(name) is not None]
            errors = [r[f"{name} error"] for r in own if r.get(f"{name} error") is not None]
            row[name] = float(np.median(values)) if values else None
            row[f"{name} least"] = min(values, default=None)
            row[f"{name} most"] = max(values, default=None)
            row[f"{name} error"] = max(errors, default=None)
        found.append(row)
    return found


def shown(rows: list[dict[str, Any]]) -> str:
    """As a table in Markdown: median [least, most] over the seeds."""
    head = (*SHOWN, *COLUMNS)
    lines = [" | ".join(head), "|".join(["---"] * len(head))]
    for row in rows:
        cells = [str(row[key]) for key in SHOWN]
        for name in COLUMNS:
            if row[name] is None:
                cells.append("")
                continue
            spread = f" [{row[f'{name} least']:.2g}, {row[f'{name} most']:.2g}]"
            cells.append(f"{row[name]:.3g}" + (spread if row["seeds"] > 1 else ""))
        lines.append(" | ".join(cells))
    return "\n".join(f"| {line} |" for line in lines)


def _seconds(case: Case) -> float:
    return TARGETS[case.target].seconds + (TRAINED if case.iterations else 0.0)


def main() -> None:
    """Run, print, write."""
    parser = results.arguments(__doc__, "bridges", "one target on a line and one in 10-D")
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(USUAL), metavar="T")
    parser.add_argument("--seeds", type=int, default=3, metavar="N")
    parser.add_argument("--rows", type=int, metavar="K", help="compute no more than K new rows")
    options: argparse.Namespace = parser.parse_args()
    if MPI.COMM_WORLD.size > 1:
        print("bench_bridges.py is left out: it runs on one rank.")
        return
    if options.quick:
        options.targets, options.seeds = ["two", "modes10"], 1
    both = of_both(options.quick)
    given = (options.targets, options.seeds, options.quick)
    forms = of_forms(*given) + of_trained(*given)
    share = 0.1 if options.quick else 1.0
    total = share * (2.0 * len(both) + sum(map(_seconds, forms)))
    print(f"{len(both) + len(forms)} rows, about {total / 60.0:.0f} minutes of a core", flush=True)
    rows = all_rows(both + forms, options.out, options.rows)
    check(rows)
    names = {(case.target, case.process, case.form, case.n) for case in both}
    if len(rows) < len(both):
        print("broken off before the first table was there")
        return
    first, rest = rows[: len(both)], rows[len(both) :]
    assert {tuple(r[k] for k in ("target", "process", "form", "n")) for r in first} == names
    tables = {"processes": same_in_both(first), "forms": summary(rest), "rows": rest}
    print(shown(tables["forms"]))
    result = {
        "environment": timing.environment(MPI.COMM_WORLD),
        "settings": {"first age": cases.FIRST, "last age": cases.LAST},
        "tables": tables,
    }
    results.save(options.out, "bridges", result, MPI.COMM_WORLD)


if __name__ == "__main__":
    main()
