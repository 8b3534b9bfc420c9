"""``fpcontrol verify``: what it runs, prints and writes, the same on any number of ranks."""

import os
import re
import shutil
import signal
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from problems import PROGRAM
from studies import (
    BAD,
    FIGURE,
    GOOD,
    ODD,
    WORLD,
    keys,
    returning,
    strict,
    study,
    synthetic,
    verify,
)

from fpcontrol import cli, theorems
from fpcontrol.theorems.framework.checks import Study
from fpcontrol.theorems.framework.figures import Figure

__all__ = ["synthetic"]  # a fixture
PACKAGE = Path(__file__).parents[1]


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


def parametrized(comm, *, a: float = 2.0, times: tuple[int, ...] = (1, 2), t1: float = 1.0):
    """A study with parameters.

    Args:
        a: The strength.
        times: When.
    """
    study = Study(f"a study, a={a:g}, T={t1:g}", "A claim.")
    study.equals("sum", Figure(a + sum(times), 0.0), a + sum(times), 0.1)
    return study


@pytest.mark.parallel([1, 2])
def test_own_parameters_reach_the_experiment(synthetic, tmp_path):
    # A whole key is that experiment alone, though it is the beginning of another's.
    synthetic(**{"first": parametrized, "first.more": returning(GOOD)})
    path = tmp_path / "a.json"
    assert verify("s1.first", "--a", "-1.5", "--times=3,4", "--json", str(path)) == 0
    record = strict(path)
    assert keys(record) == ["s1.first"]
    assert record["parameters"] == {"a": "-1.5", "times": "3,4"}
    (found,) = record["statements"][0]["studies"]
    assert found["name"] == "a study, a=-1.5, T=1"
    assert found["rows"][0]["measured"] == 5.5


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("s1.first", "--b", "3"), ("s1.first has no parameter --b", "--a", "--times", "--t1")),
        (("s1.first", "--a", "x"), ("--a 'x' is no value", "--a 2")),
        (("s1", "--a", "3"), ("s1.second has no parameter --a",)),
        (("s1.first", "--a"), ("--a",)),
    ],
)
def test_parameters_that_there_are_not(arguments, words, synthetic, capsys):
    synthetic(first=parametrized, second=returning(GOOD))
    assert verify(*arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert WORLD.rank or all(word in printed.err for word in words)


@pytest.mark.parallel([1, 2])
def test_list_shows_experiments_and_parameters_and_runs_none(synthetic, capsys):
    ran = []
    synthetic(first=parametrized, second=lambda comm: ran.append(1))
    assert verify("--list") == 0
    everything = capsys.readouterr().out
    assert verify("s1.first", "--list") == 0
    one = capsys.readouterr().out
    assert not ran
    if WORLD.rank:
        assert everything == one == ""
    else:
        assert "s1.first: A study with parameters." in everything
        assert "--a 2 --times 1,2 --t1 1" in everything
        assert "s2.other" in everything
        assert re.search(r"--a +The strength\. \[2\]", one)
        assert re.search(r"--t1 +Last time T; .*\. \[1\]", one)
        assert "s2.other" not in one
        assert all(len(line) <= 110 and line.isascii() for line in everything.splitlines())


@pytest.mark.parallel([1, 2])
def test_version(capsys):
    assert cli.main(["--version"]) == 0
    out = capsys.readouterr().out
    assert out == ("" if WORLD.rank else f"fpcontrol {metadata.version('fpcontrol')}\n")


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
        timeout=PROGRAM,
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


# -- the statements there are ----------------------------------------------------------------------


@pytest.mark.parametrize("quick", [True, False])
def test_keys_are_unique_and_begin_with_the_statement(quick):
    found = [(s.name, e.key) for s in theorems.STATEMENTS for e in s.experiments(quick)]
    assert len(set(found)) == len(found)
    assert all(key.startswith(f"{name}.") for name, key in found)
    assert {name for name, _ in found} == {s.name for s in theorems.STATEMENTS}


def test_no_command_of_a_formula_has_become_a_control_character():
    for path in (PACKAGE / "fpcontrol").rglob("*.py"):
        assert not re.search(r"[^\n -~\u00a0-\uffff]", path.read_text(encoding="utf-8")), path


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


def test_document_shows_every_statement_with_all_checks_passed():
    document = (Path(__file__).parents[1] / "docs" / "theorems.md").read_text(encoding="utf-8")
    table = document.split("<!-- verified: begin -->")[1].split("<!-- verified: end -->")[0]
    counts = re.findall(r"\| (.*) \(`(\w+)`\) \| (\d+) \| (\d+) of (\d+) \|", table)
    assert [(title, name) for title, name, *_ in counts] == [
        (s.title, s.name) for s in theorems.STATEMENTS
    ]
    for statement, (*_, experiments, passed, checks) in zip(
        theorems.STATEMENTS, counts, strict=True
    ):
        assert len(statement.experiments()) == int(experiments)
        assert int(passed) == int(checks) > 0
