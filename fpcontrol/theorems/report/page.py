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
from fpcontrol.theorems.report.pictures import Pictures

LABELS = {"reconstructed": "a statement of the paper's kind, reconstructed", "own": "derived here"}

CSS = """
:root { color: #1a1a1a; background: #fff; }
body { max-width: 62rem; margin: 3.5rem auto 6rem; padding: 0 1.5rem; line-height: 1.5;
  font: 1.06rem/1.5 "Latin Modern Roman", "STIX Two Text", "Iowan Old Style", Palatino,
  "Palatino Linotype", Georgia, serif; }
h1 { font-size: 1.9rem; font-weight: 500; margin: 0 0 .3rem; }
h2 { font-size: 1.45rem; font-weight: 500; margin: 4rem 0 .8rem; padding-top: 1rem;
  border-top: 1px solid #1a1a1a; }
h3 { font-size: 1.12rem; font-weight: 600; margin: 2.6rem 0 .4rem; }
h4 { font-size: 1rem; font-weight: 600; margin: 1.2rem 0 .3rem; }
p, ul { margin: .55rem 0; }
li > p { margin: .2rem 0; }
details { margin: .6rem 0 0; } summary { cursor: pointer; color: #666; font-size: .9rem; }
p, li { max-width: 46rem; }
.shared { position: absolute; width: 0; height: 0; }
math[display=block] { max-width: 46rem; margin: .6rem 0; overflow-x: auto; overflow-y: hidden; }
dd { margin-left: 1.5rem; } dt { font-weight: 600; }
.statement > p:first-child { font-style: italic; font-size: 1.1rem; }
code, pre, .key { font: .84em/1.4 ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
pre { overflow-x: auto; margin: .7rem 0; color: #333; }
.quiet { color: #666; font-size: .9rem; }
.key { color: #666; font-weight: 400; }
table { border-collapse: collapse; margin: 1rem 0; font-size: .92rem; width: 100%;
  font-variant-numeric: tabular-nums lining-nums;
  border-top: 1.5px solid; border-bottom: 1.5px solid; }
th { font-weight: 500; font-style: italic; text-align: right; padding: .3rem .55rem;
  border-bottom: .75px solid; vertical-align: bottom; }
td { text-align: right; padding: .16rem .55rem; vertical-align: baseline; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; white-space: normal; }
th:last-child, td:last-child { padding-right: 0; }
.passed { color: #00684c; } .failed { color: #b44a00; font-weight: 600; } .reported { color: #888; }
figure { display: flex; flex-wrap: wrap; gap: 1rem 2rem; margin: 1rem 0; }
figure svg { height: auto; max-width: 100%; }
a { color: inherit; text-decoration-color: #bbb; text-underline-offset: .15em; }
@media print { body { margin: 0; max-width: none; font-size: 10pt; } h2 { break-before: page; }
  figure, tr { break-inside: avoid; } }
"""

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
    pictures = Pictures()
    groups = [(s, list(part)) for s, part in groupby(outcomes, key=lambda o: o.statement)]
    sections = []
    for statement, part in groups:
        text = "\n".join(
            f'<div class="statement">{markup.block(text)}</div>' for text in statement.texts
        )
        sections.append(f'<section id="{statement.name}"><h2>{_title(statement)}</h2>\n{text}')
        sections += [_study(outcome, pictures) for outcome in part]
        sections.append("</section>")
    body = "\n".join(sections)
    title = "Theorems of neural SDEs, checked"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{CSS}</style>
</head>
<body>
<svg class="shared" aria-hidden="true"><defs>{pictures.definitions}</defs></svg>
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


def _study(outcome: Outcome, pictures: Pictures) -> str:
    key = f'<span class="key">{html.escape(outcome.key)}</span>'
    study = outcome.study
    if study is None:
        error = html.escape(outcome.error, quote=False)
        return f'<h3>{key}</h3>\n<p class="failed">failed: {error}</p>'
    drawn = "\n".join(pictures.svg(panel) for panel in study.panels)
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
