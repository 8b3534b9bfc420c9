"""``fpcontrol verify``: what it runs, prints and writes, the same on any number of ranks."""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import types
from collections.abc import Callable, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from mpi4py import MPI

import pytest
from mutation import MUTATIONS, TABLE

from fpcontrol import cli, theorems
from fpcontrol.theorems import Statement
from fpcontrol.theorems.framework import runner as suite
from fpcontrol.theorems.framework.checks import Line, Panel, Row, Study
from fpcontrol.theorems.framework.experiments import Experiment
from fpcontrol.theorems.report import markup

WORLD = MPI.COMM_WORLD
PACKAGE = Path(__file__).parents[1]

DOC = r"""A statement that is not one.

Let :math:`\rho` solve the equation with drift ``v``; then (own)

.. math:: \|w(t)\|^2 &\le \tfrac1{2D}\int_0^t \Bigl(\sup|v_1|\Bigr)\,ds &&(E1)

    D &= \sigma^2/2 .

- one item,
- another with $\cos\pi x$ in it.

::

    n   error
    1   0.5
"""
GOOD = Row(
    "figure, $\\kappa = 1$", 1.0001, predicted=1.0, discretization_error=1e-5, tolerance=1e-3
)
BAD = Row("σ too large", 2.0, bound=1.0, discretization_error=1e-5)
EXACT = Row("identity", 0.0, bound=1e-13, exact=True)
ODD = Row("not a number", math.nan, at_least=1.0, discretization_error=math.inf)
FIGURE = Row("a figure only", 3.0)
PANEL = Panel(
    "Error & <rate>",
    "$k$",
    r"$\|\rho\|$",
    (
        Line([1, 2, 4], [1.0, 0.25, 0.06], r"$\sigma=0.5$", "o-"),
        Line([1, 4], [1, 0.06], r"$\operatornamewrong{x}$", "--"),
    ),
    "log",
    "log",
)


def study(*rows: Row) -> Study:
    return Study(
        "a study, $a=2$", r"Claim: $\|\rho_n - \rho\|\to 0$ <as> it should.", "own", rows, (PANEL,)
    )


def returning(*rows: Row) -> Callable[[MPI.Comm], Study]:
    return lambda comm: study(*rows)


@pytest.fixture
def synthetic(monkeypatch):
    """Replace the statements by two: ``s1`` with the experiments given, ``s2`` with a good one."""

    def replace(**runs: Callable[[MPI.Comm], Study]) -> None:
        for name, found in {"s1": runs, "s2": {"other": returning(GOOD)}}.items():
            module: Any = types.ModuleType(f"fpcontrol.theorems.statements.{name}", DOC)
            listed = [Experiment(f"{name}.{key}", run) for key, run in found.items()]
            module.experiments = lambda quick=False, e=listed: e[:1] if quick else e
            monkeypatch.setitem(sys.modules, module.__name__, module)
        statements = tuple(Statement(s, f"Statement {s}", (s,)) for s in ("s1", "s2"))
        monkeypatch.setattr(theorems, "STATEMENTS", statements)

    return replace


def verify(*arguments: str) -> int:
    """The exit code, which must be the same on all ranks."""
    codes = WORLD.allgather(cli.main(["verify", *arguments]))
    assert len(set(codes)) == 1
    return codes[0]


def strict(path: Path) -> Any:
    """JSON as RFC 8259 has it: NaN and infinities are errors."""

    def refuse(name: str) -> None:
        raise ValueError(name)

    return json.loads(path.read_text(), parse_constant=refuse)


def keys(record: Any) -> list[str]:
    return [s["key"] for statement in record["statements"] for s in statement["studies"]]


# -- what is run, and what it answers --------------------------------------------------------------


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize(
    ("rows", "code"), [((GOOD, FIGURE), 0), ((GOOD, BAD), 1), ((GOOD, ODD), 1)]
)
def test_exit_code_says_whether_all_checks_pass(rows, code, synthetic, capsys):
    synthetic(first=returning(*rows))
    assert verify() == code
    out = capsys.readouterr().out
    if WORLD.rank == 0:
        checks = sum(row.is_check for row in rows) + 1
        line = f"{checks} checks in 2 experiments: {checks - code} passed, {code} failed"
        assert line in out.splitlines()[-1]
        assert len([s for s in out.splitlines() if s.startswith("FAILED")]) == code
    else:
        assert out == ""


@pytest.mark.parametrize(
    ("names", "run"),
    [
        ([], ["s1.first", "s1.second", "s1.second.sigma=0.5", "s1.seconds", "s2.other"]),
        (["s2"], ["s2.other"]),
        (["s1.second"], ["s1.second", "s1.second.sigma=0.5"]),
        (["s2", "s1.first"], ["s1.first", "s2.other"]),
        (["s1.second.sigma=0.5"], ["s1.second.sigma=0.5"]),
        (["--quick"], ["s1.first", "s2.other"]),
    ],
)
def test_names_choose_experiments(names, run, synthetic, tmp_path):
    # A dot of a number parts no words, and a word is compared as a whole.
    runs = ("first", "second", "second.sigma=0.5", "seconds")
    synthetic(**{name: returning(GOOD) for name in runs})
    assert verify(*names, "--json", str(tmp_path / "a.json")) == 0
    assert keys(strict(tmp_path / "a.json")) == run


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize(
    ("name", "listed"),
    [
        ("t9", ["s1", "s2"]),
        ("s", ["s1", "s2"]),
        ("s1.nothing", ["s1.first", "s1.second"]),
        ("s1.fir", ["s1.first", "s1.second"]),
        ("s1.first.sigma=0", ["s1.first", "s1.second"]),
    ],
)
def test_unknown_name_is_an_error_that_lists_what_there_is(name, listed, synthetic, capsys):
    synthetic(first=returning(GOOD), second=returning(GOOD))
    assert verify("s2", name) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == (WORLD.rank == 0)
    if WORLD.rank == 0:
        assert repr(name) in printed.err
        assert all(word in printed.err for word in listed)


@pytest.mark.parallel([1, 2])
def test_arguments_that_do_not_parse(capsys):
    assert verify("--quik") == 2
    assert "--quik" in capsys.readouterr().err or WORLD.rank


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("option", ["--json", "--report"])
def test_places_that_cannot_be_written_to_are_refused_before_anything_runs(
    option, synthetic, tmp_path, capsys
):
    ran = []
    synthetic(first=lambda comm: ran.append(1) or study(GOOD))
    (tmp_path / "file").write_text("")
    assert verify(option, str(tmp_path / "file" / "below")) == 2
    assert not ran
    assert "below" in capsys.readouterr().err or WORLD.rank


def test_page_without_what_draws_formulas_is_refused(synthetic, tmp_path, monkeypatch, capsys):
    synthetic(first=returning(GOOD))
    monkeypatch.setitem(sys.modules, "ziamath", None)
    assert verify("--report", str(tmp_path)) == 2
    assert "pip install" in capsys.readouterr().err


# -- what goes wrong -------------------------------------------------------------------------------


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("where", ["everywhere", "on the last rank"])
def test_experiment_that_raises_fails_on_all_ranks_and_the_others_go_on(
    where, synthetic, tmp_path, capsys
):
    def raising(comm):
        if where == "everywhere" or comm.rank == comm.size - 1:
            raise ArithmeticError("no convergence")
        return study(GOOD)

    synthetic(first=raising, second=returning(GOOD))
    assert verify("--json", str(tmp_path / "a.json"), "--report", str(tmp_path)) == 1
    record = strict(tmp_path / "a.json")
    assert keys(record) == ["s1.first", "s1.second", "s2.other"]
    first, second = record["statements"][0]["studies"]
    assert first["error"].startswith("ArithmeticError: no convergence")
    assert not first["passed"]
    assert second["passed"]
    assert ("on rank 1" in first["error"]) == (where != "everywhere" and WORLD.size > 1)
    assert "no convergence" in capsys.readouterr().out or WORLD.rank
    assert "no convergence" in (tmp_path / "index.html").read_text()


@pytest.mark.parallel(2)
def test_verdicts_that_differ_between_ranks_are_a_failure(synthetic, capsys):
    synthetic(first=lambda comm: study(BAD if comm.rank else GOOD))
    assert verify("s1") == 1
    assert "differ between the ranks" in capsys.readouterr().out or WORLD.rank


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from mpi4py import MPI
from fpcontrol import cli, theorems
from fpcontrol.theorems.framework import runner
from fpcontrol.theorems.framework.experiments import Experiment

def alone(comm):
    if comm.rank == 1:
        raise ValueError("rank one only")
    comm.barrier()

runner.PATIENCE = 0.5
theorems.Statement.experiments = lambda self, quick: [Experiment("t1.alone", alone)]
cli.main(["verify", "t1"])
"""


def mpirun(*command: str) -> subprocess.CompletedProcess[str]:
    beside = Path(sys.executable).parent / "mpirun"
    program = str(beside) if beside.exists() else shutil.which("mpirun")
    return subprocess.run(
        [str(program), "-n", "2", sys.executable, "-m", "mpi4py", *command],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": str(PACKAGE)},
    )


def test_rank_that_raises_while_others_wait_for_it_ends_the_run(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT.format(tests=str(Path(__file__).parent)))
    done = mpirun(str(tmp_path / "script.py"))
    assert done.returncode == 1
    assert "t1.alone raised on rank 1, others are stuck: ValueError: rank one only" in done.stderr


@pytest.mark.parallel([1, 2])
def test_interrupt_keeps_what_is_done(synthetic, tmp_path, capsys):
    def interrupted(comm):
        if comm.rank == comm.size - 1:
            os.kill(os.getpid(), signal.SIGINT)
        return study(GOOD)

    handler = signal.getsignal(signal.SIGINT)
    synthetic(first=returning(GOOD), second=interrupted, third=returning(GOOD))
    options = ("--json", str(tmp_path / "a.json"), "--report", str(tmp_path))
    assert verify(*options) == 130
    record = strict(tmp_path / "a.json")
    # One rank stops at once, several after the experiment that runs.
    assert keys(record) == ["s1.first", "s1.second"][: WORLD.size]
    assert record["interrupted"]
    assert not record["passed"]
    assert record["missing"] == ["s1.second", "s1.third", "s2.other"][WORLD.size - 1 :]
    assert "stopped by Ctrl-C" in capsys.readouterr().out or WORLD.rank
    assert signal.getsignal(signal.SIGINT) is handler


# -- what it writes and prints ---------------------------------------------------------------------


@pytest.mark.parallel([1, 2])
def test_json_holds_every_figure_and_is_strict(synthetic, tmp_path):
    synthetic(first=returning(GOOD, BAD, ODD, FIGURE))
    path = tmp_path / "new" / "a.json"
    assert verify("--json", str(path)) == 1
    record = strict(path)
    assert record["ranks"] == WORLD.size
    assert record["versions"]["python"]
    assert record["seconds"] > 0.0
    statement = record["statements"][0]
    assert (statement["name"], statement["title"]) == ("s1", "Statement s1")
    (found,) = statement["studies"]
    assert (found["name"], found["label"]) == ("a study, $a=2$", "own")
    good, bad, odd, figure = found["rows"]
    assert good["measured"] == 1.0001
    assert good["predicted"] == 1.0
    assert good["bound"] is None
    assert odd["measured"] == "nan"
    assert odd["discretization_error"] == "inf"
    verdicts = [row["verdict"] for row in (good, bad, odd, figure)]
    assert verdicts == ["passed", "failed", "failed", "reported"]


def columns(lines: Sequence[str]) -> list[list[str]]:
    """Cells of a table whose columns end where the words of its head do."""
    ends = [m.end() for m in re.finditer(r"\S+(?: \S+)*", lines[0])]
    starts = [0, *ends]
    return [[line[a:b].strip() for a, b in zip(starts, ends, strict=False)] for line in lines]


def test_table_is_aligned_narrow_and_ascii():
    long = replace(EXACT, quantity="a quantity with a name that is too long for its column " * 2)
    lines = cli.table([GOOD, BAD, ODD, FIGURE, long])
    assert all(len(line) <= 110 and line.isascii() for line in lines)
    # The quantities are flush left, the numbers flush right below the words of the head.
    ends = [m.end() for m in re.finditer(r"\S+(?: \S+)*", lines[0])][1:]
    for line in lines[2:6]:
        assert len(line) == ends[-1]
        assert all(line[end] == " " for end in ends[:-1])
    text = "\n".join(lines)
    assert "figure, kappa = 1" in text
    assert "sigma too large" in text
    verdicts = [line.split()[-1] for line in lines[2:6]]
    assert verdicts == ["ok", "FAILED", "FAILED", "-"]
    assert "<= 1" in lines[3]
    assert ">= 1" in lines[4]
    errors = [line.split()[-3 if i == 0 else -2] for i, line in enumerate(lines[2:7])]
    assert errors == ["1.0e-05", "1.0e-05", "inf", "-", "-"]


@pytest.mark.parametrize(
    "statement", [{}, {"discretization_error": 1e-3, "exact": True}], ids=["neither", "both"]
)
def test_check_states_either_its_discretization_error_or_that_it_has_none(statement):
    with pytest.raises(ValueError, match="either its discretization error or exact=True"):
        Row("figure", 1.0, predicted=1.0, tolerance=0.1, **statement)
    if not statement:
        assert Row("figure", 1.0).discretization_error is None


def test_columns_without_an_entry_are_left_out():
    assert "predicted" not in cli.table([BAD])[0]
    assert "bound" not in cli.table([GOOD])[0]


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        (r"$\|\rho_n-\rho\|\to 0$ as $n\to\infty$", "||rho_n-rho|| -> 0 as n -> infinity"),
        (r"$\sqrt{\cosh aT - 1}$", "sqrt(cosh aT -1)"),
        (r"$\frac{a}{\sqrt2 Dk^2}$, $\tfrac12$", "a/(sqrt 2 Dk^2), 1/2"),
        ("σ = 0.5, 2 × 3 ≤ 7", "sigma = 0.5, 2 x 3 <= 7"),
        (r"$\sigma_c\sim\sqrt{a}/k$", "sigma_c ~ sqrt(a)/k"),
        (r"$\int\frac1x$, $\to\frac ab$, $\sim\frac{a}{bc}$", "int 1/x, -> a/b, ~ a/bc"),
    ],
)
def test_formulas_in_a_terminal(text, plain):
    assert markup.plain(text) == plain


class Page(HTMLParser):
    """What a page names, links to and shows."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.labels: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attributes:
            assert name not in ("src", "srcset", "data", "action")
            if name == "id":
                self.ids.append(value or "")
            elif name.endswith("href"):
                self.links.append(value or "")
            elif name == "aria-label":
                self.labels.append(value or "")
            self.links += re.findall(r"url\(([^)]*)\)", value or "")


@pytest.mark.parallel([1, 2])
def test_page_stands_alone_and_shows_everything(synthetic, tmp_path):
    synthetic(first=returning(GOOD, BAD), second=returning(ODD, FIGURE))
    assert verify("--report", str(tmp_path / "new")) == 1
    assert os.listdir(tmp_path / "new") == ["index.html"]
    text = (tmp_path / "new" / "index.html").read_text(encoding="utf-8")
    page = Page(text)
    # Names of XML vocabularies are no links; anything else must be within the page.
    assert set(re.findall(r"https?://[^\s\"'<)]+", text)) <= {"http://www.w3.org/2000/svg"}
    assert "@import" not in text
    assert not {"script", "link", "img", "iframe", "object", "embed"} & set(page.tags)
    assert len(set(page.ids)) == len(page.ids)
    assert page.links
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)
    assert page.labels.count("Error & <rate>") == 3  # every panel
    assert "undrawn" not in text
    for formula in (r"\rho", r"\|\rho_n - \rho\|\to 0", r"\cos\pi x", r"\kappa = 1"):
        assert formula in page.labels
    assert any(r"\tfrac1{2D}" in label for label in page.labels)
    for words in (
        "A statement that is not one.",
        "<li><p>one item,</p></li>",
        "(E1)",
        "&lt;as&gt; it should",
        "n   error\n1   0.5",
        "σ too large",
        '<td class="failed">failed</td>',
        '<td class="passed">passed</td>',
    ):
        assert words in text, words
    assert len(text) < 300_000


def test_formula_that_cannot_be_drawn_stands_as_it_was_typed():
    assert "undrawn" in markup.Markup().formula(r"\frac{1}")


# -- the statements there are ----------------------------------------------------------------------


@pytest.mark.parametrize("quick", [True, False])
def test_keys_are_unique_and_begin_with_the_statement(quick):
    found = [(s.name, e.key) for s in theorems.STATEMENTS for e in s.experiments(quick)]
    assert len(set(found)) == len(found)
    assert all(key.startswith(f"{name}.") for name, key in found)
    assert {name for name, _ in found} == {s.name for s in theorems.STATEMENTS}


def test_statements_have_texts_whose_formulas_can_be_drawn():
    for statement in theorems.STATEMENTS:
        for text in statement.texts:
            assert len(text) > 200
            assert "undrawn" not in markup.Markup().page(text)


def test_no_command_of_a_formula_has_become_a_control_character():
    for path in (PACKAGE / "fpcontrol").rglob("*.py"):
        assert not re.search(r"[^\n -~\u00a0-\uffff]", path.read_text(encoding="utf-8")), path


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.name)
def test_mutation_is_of_the_code_as_it_stands(mutation):
    text = (PACKAGE / "fpcontrol" / mutation.file).read_text()
    assert text.count(mutation.old) == 1
    compile(text.replace(mutation.old, mutation.new), mutation.file, "exec")
    assert suite.select(mutation.first, quick=True)


def test_kept_table_of_mutations_has_all_of_them_caught():
    lines = [f"| {m.name} | `{m.file}` | " for m in MUTATIONS]
    kept = [line for line in TABLE.read_text(encoding="utf-8").splitlines() if line[:2] == "| "][1:]
    assert len(kept) == len(lines)
    assert all(line.startswith(head) for line, head in zip(kept, lines, strict=True))
    assert not any("SURVIVED" in line for line in kept)


def test_program_on_two_ranks(tmp_path):
    path = tmp_path / "a.json"
    done = mpirun("-m", "fpcontrol", "verify", "gradient.closed_form", "--json", str(path))
    assert done.returncode == 0, done.stderr
    record = strict(path)
    assert record["passed"]
    assert record["ranks"] == 2
    assert done.stdout.count("checks in") == 1
    assert all(len(line) <= 110 and line.isascii() for line in done.stdout.splitlines())


def test_program_on_two_ranks_says_no_more_than_what_is_wrong():
    done = mpirun("-m", "fpcontrol", "verify", "t9")
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "'t9'" in done.stderr


def test_help_and_nothing_to_do(capsys):
    assert cli.main(["--help"]) == 0
    assert "verify" in capsys.readouterr().out
    assert cli.main(["verify", "--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"  {s.name} " in out for s in theorems.STATEMENTS)
    assert cli.main([]) == 2


def test_readme_shows_every_statement_with_all_checks_passed():
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    table = readme.split("<!-- verified: begin -->")[1].split("<!-- verified: end -->")[0]
    counts = re.findall(r"\| (.*) \(`(\w+)`\) \| (\d+) \| (\d+) of (\d+) \|", table)
    assert [(title, name) for title, name, *_ in counts] == [
        (s.title, s.name) for s in theorems.STATEMENTS
    ]
    for statement, (*_, experiments, passed, checks) in zip(
        theorems.STATEMENTS, counts, strict=True
    ):
        assert len(statement.experiments()) == int(experiments)
        assert int(passed) == int(checks) > 0
