"""One page with all statements, claims, pictures, tables and verdicts; no file beside it."""

import html
import os
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from mpi4py import MPI

from fpcontrol.parallel.errors import collective_errors
from fpcontrol.parallel.files import output_path, replacing
from fpcontrol.theorems.framework.checks import Row
from fpcontrol.theorems.framework.runner import Outcome, verdict
from fpcontrol.theorems.report import markup
from fpcontrol.theorems.report.pictures import picture

LABELS = {"reconstructed": "a statement of the paper's kind, reconstructed", "own": "derived here"}

CSS = Path(__file__).with_name("page.css").read_text(encoding="utf-8")

check = markup.check


def write(
    outcomes: Sequence[Outcome],
    record: dict[str, Any],
    folder: str | os.PathLike[str],
    comm: MPI.Comm,
) -> Path:
    """Write ``folder/index.html``. Collective.

    Args:
        outcomes: What came out of each experiment.
        record: What ``fpcontrol verify`` writes as JSON.
        folder: Made if it is not there.
        comm: Communicator; rank 0 writes.

    Raises:
        OSError: On all ranks, if the folder cannot be written to.
    """
    target = output_path(Path(folder) / "index.html", comm)
    with replacing(target, comm) as beside, collective_errors(comm):
        if comm.rank == 0:
            beside.write_text(page(outcomes, record), encoding="utf-8")
    return target


def page(outcomes: Sequence[Outcome], record: dict[str, Any]) -> str:
    """The page as text."""
    groups = [(s, list(part)) for s, part in groupby(outcomes, key=lambda o: o.statement)]
    sections = []
    for statement, part in groups:
        text = "\n".join(
            f'<div class="statement">{markup.block(text)}</div>' for text in statement.texts
        )
        sections.append(f'<section id="{statement.name}"><h2>{_title(statement)}</h2>\n{text}')
        sections += [_study(outcome) for outcome in part]
        sections.append("</section>")
    body = "\n".join(sections)
    title = "Theorems of neural SDEs, checked"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{CSS}</style>
</head>
<body>
<h1>{title}</h1>
{_preamble(outcomes, record)}
{_summary(groups)}
{body}
</body>
</html>
"""


def _preamble(outcomes: Sequence[Outcome], record: dict[str, Any]) -> str:
    checks = [row for o in outcomes for row in o.rows if row.is_check]
    failed = sum(not row.passed for row in checks) + sum(bool(o.error) for o in outcomes)
    text = f"{len(checks)} checks in {len(outcomes)} experiments: "
    text += f"{failed} failed." if failed else "all passed."
    if record["interrupted"]:
        text += f" Stopped before {len(record['missing'])} more experiments had run."
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    ranks = f"{record['ranks']} MPI rank" + "s" * (record["ranks"] > 1)
    command = html.escape(
        " ".join(["fpcontrol verify", *record["names"], *["--quick"] * record["quick"]])
    )
    return f"""<p class="quiet">{record["began"]} · <code>{command}</code> · {ranks} ·
{record["seconds"]:.0f} s · {html.escape(versions)}</p>
<p>{text} A check passes if the measured figure is within its tolerance (relative) of the predicted
one, or within its bound, and if its discretization error, estimated from a second resolution, is
smaller than what the verdict rests on. Checks without one (–) are identities of the computed
solution itself, which hold on any mesh.</p>"""


def _summary(groups: Sequence[tuple[Any, list[Outcome]]]) -> str:
    lines = []
    for statement, part in groups:
        checks = [row for o in part for row in o.rows if row.is_check]
        good = "passed" if all(o.passed for o in part) else "failed"
        lines.append(
            f'<tr><td><a href="#{statement.name}">{_title(statement)}</a></td>'
            f"<td>{len(part)}</td><td>{sum(row.passed for row in checks)} of {len(checks)}</td>"
            f"<td>{sum(o.seconds for o in part):.0f}</td>{_verdict(good)}</tr>"
        )
    return f"""<table><thead><tr><th>statement</th><th>studies</th><th>checks passed</th>
<th>seconds</th><th>verdict</th></tr></thead><tbody>
{"".join(lines)}
</tbody></table>"""


def _study(outcome: Outcome) -> str:
    key = f'<span class="key">{html.escape(outcome.key)}</span>'
    study = outcome.study
    if study is None:
        error = html.escape(outcome.error, quote=False)
        return f'<h3>{key}</h3>\n<p class="failed">failed: {error}</p>'
    drawn = "\n".join(picture(panel) for panel in study.panels)
    return f"""<article>
<h3>{markup.inline(study.name[:1].upper() + study.name[1:])} {key}</h3>
<p>{markup.inline(study.claim)} <span class="quiet">({LABELS[study.label]})</span></p>
{f"<figure>{drawn}</figure>" if drawn else ""}
{_tables(study.rows)}
</article>"""


def _tables(rows: Sequence[Row]) -> str:
    """Checks in a table, figures that only report below it, folded up."""
    checks = [row for row in rows if row.is_check]
    others = [row for row in rows if not row.is_check]
    if not checks or not others:
        return _table(rows)
    name = f"{len(others)} figures" if len(others) > 1 else "1 figure"
    return f"""{_table(checks)}
<details><summary>{name} without a prediction or a bound</summary>
{_table(others)}
</details>"""


def _table(rows: Sequence[Row]) -> str:
    lines = []
    for row in rows:
        bounds = [f"≤ {number(row.bound)}"] if row.bound is not None else []
        bounds += [f"≥ {number(row.at_least)}"] if row.at_least is not None else []
        cells = (
            markup.inline(row.quantity),
            "" if row.predicted is None else number(row.predicted),
            number(row.measured),
            " ".join(bounds),
            "–" if row.discretization_error is None else number(row.discretization_error, 2),
            number(row.tolerance, 2) if row.tolerance else "",
        )
        inner = "".join(f"<td>{cell}</td>" for cell in cells)
        lines.append(f"<tr>{inner}{_verdict(verdict(row))}</tr>")
    head = "quantity|predicted|measured|bound|discretization<br>error|tolerance|verdict"
    head = "".join(f"<th>{name}</th>" for name in head.split("|"))
    return (
        f"<table><thead><tr>{head}</tr></thead><tbody>\n" + "\n".join(lines) + "\n</tbody></table>"
    )


def number(value: float, digits: int = 6) -> str:
    """A figure with its power of ten set as such."""
    text = f"{value:.{digits}g}"
    if "e" not in text:
        return text.replace("-", "−").replace("inf", "∞")
    mantissa, exponent = text.split("e")
    return f"{mantissa} · 10<sup>{int(exponent)}</sup>".replace("-", "−")


def _verdict(word: str) -> str:
    return f'<td class="{word}">{"" if word == "reported" else word}</td>'


def _title(statement: Any) -> str:
    name = statement.name.upper() if statement.name[-1].isdigit() else ""
    return f"{name}. {statement.title}" if name else statement.title
