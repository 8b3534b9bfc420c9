"""Statements and studies that are none, for the tests of `fpcontrol verify`."""

import json
import math
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mpi4py import MPI

import pytest

from fpcontrol import cli, theorems
from fpcontrol.theorems import Statement
from fpcontrol.theorems.framework.checks import Line, Panel, Row, Study
from fpcontrol.theorems.framework.experiments import Experiment
from fpcontrol.theorems.framework.figures import Figure

WORLD = MPI.COMM_WORLD

DOC = r"""A statement that is not one.

Let :math:`\rho` solve the equation with drift ``v``; then (own)

.. math:: \mathrm{(E1)}\quad \|w(t)\|^2 \le \tfrac1{2D}\int_0^t \Bigl(\sup|v_1|\Bigr)\,ds

    D = \sigma^2/2 .

- one item,
- another with :math:`\cos\pi x` in it.

::

    n   error
    1   0.5
"""
ROWS = Study("rows", "")
ROWS.equals("figure, $\\kappa = 1$", Figure(1.0001, 1e-5), 1.0, 1e-3)
ROWS.below("σ too large", Figure(2.0, 1e-5), 1.0)
ROWS.exactly("identity", 0.0, below=1e-13)
ROWS.above("not a number", Figure(math.nan, math.inf), 1.0)
ROWS.report("a figure only", 3.0)
GOOD, BAD, EXACT, ODD, FIGURE = ROWS.rows
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
        "a study, $a=2$",
        r"Claim: $\|\rho_n - \rho\|\to 0$ <as> it should.",
        rows=list(rows),
        panels=[PANEL],
    )


def returning(*rows: Row) -> Callable[[MPI.Comm], Study]:
    return lambda comm: study(*rows)


@pytest.fixture
def synthetic(monkeypatch):
    """Replace the statements by two: ``s1`` with the experiments given, ``s2`` with a good one."""

    def replace(**runs: Callable[[MPI.Comm], Study]) -> None:
        for name, found in {"s1": runs, "s2": {"other": returning(GOOD)}}.items():
            module: Any = types.ModuleType(f"fpcontrol.theorems.statements.{name}", DOC)
            module.EXPERIMENTS = [
                Experiment(f"{name}.{key}", run, quick=None if i else {})
                for i, (key, run) in enumerate(found.items())
            ]
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
