"""What an experiment returns: rows with verdicts, and pictures as data."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from mpi4py import MPI

type Label = Literal["reconstructed", "own"]


@dataclass(frozen=True)
class Row:
    r"""One figure and its verdict.

    A row passes if the measured figure is finite and

    - with ``predicted``: :math:`|m - p| \le \mathrm{tolerance}\,|p|` (absolute where p = 0);
    - with ``bound``: :math:`m \le (1 + \mathrm{tolerance})\,b`;
    - with ``at_least``: :math:`m \ge (1 - \mathrm{tolerance})\,b`;

    and if its discretization error is within what the verdict rests on: the tolerance of a
    prediction, the distance to a bound. A row with none of the three reports a figure only.

    A check states its discretization error, or that it is ``exact``: an identity of the computed
    solution itself, such as its mass or its derivative, which holds on any mesh. One that states
    neither, or both, is refused with a ``ValueError``.

    Attributes:
        quantity: What was measured, with its parameters.
        measured: The figure.
        predicted: From a closed form or the theory.
        bound: Upper bound.
        at_least: Lower bound, for effects that must be seen.
        discretization_error: Absolute, estimated from a second resolution; ``None`` where there is
            none, or where a figure that is no check has not been computed twice.
        tolerance: Relative.
        exact: The verdict rests on no discretization.
    """

    quantity: str
    measured: float
    predicted: float | None = None
    bound: float | None = None
    at_least: float | None = None
    discretization_error: float | None = None
    tolerance: float = 0.0
    exact: bool = False

    def __post_init__(self) -> None:
        if self.is_check and self.exact == (self.discretization_error is not None):
            raise ValueError(
                f"{self.quantity!r}: a check states either its discretization error or exact=True."
            )

    @property
    def is_check(self) -> bool:
        """Whether the row can fail."""
        return any(v is not None for v in (self.predicted, self.bound, self.at_least))

    @property
    def passed(self) -> bool:
        """The verdict; True for a row that only reports."""
        m, e = self.measured, self.discretization_error or 0.0
        if not self.is_check:
            return True
        good = math.isfinite(m) and math.isfinite(e)
        if self.predicted is not None:
            allowed = self.tolerance * (abs(self.predicted) or 1.0)
            good &= abs(m - self.predicted) <= allowed and e <= allowed
        if self.bound is not None:
            allowed = (1.0 + self.tolerance) * self.bound
            good &= m <= allowed and e <= max(allowed - m, self.tolerance * abs(self.bound))
        if self.at_least is not None:
            allowed = (1.0 - self.tolerance) * self.at_least
            good &= m >= allowed and e <= max(m - allowed, self.tolerance * abs(self.at_least))
        return good


@dataclass(frozen=True)
class Line:
    """One curve: ``style`` is matplotlib's format without colour ("-", "o", "o--")."""

    x: Sequence[float]
    y: Sequence[float]
    label: str
    style: str = "o-"


@dataclass(frozen=True)
class Shade:
    """Values from 0 to 1 that shade the plane behind lines: ``z[i][j]`` at ``(x[j], y[i])``."""

    x: Sequence[float]
    y: Sequence[float]
    z: Sequence[Sequence[float]]
    label: str


@dataclass(frozen=True)
class Panel:
    """One picture, as data."""

    title: str
    xlabel: str
    ylabel: str
    lines: tuple[Line, ...]
    xscale: str = "linear"
    yscale: str = "linear"
    shade: Shade | None = None


@dataclass(frozen=True)
class Study:
    """What came out of an experiment.

    Attributes:
        name: Short name of the experiment with its parameters.
        claim: What is to be seen, in a sentence or two; formulas in LaTeX between dollars.
        label: Where the claim comes from.
        rows: The figures.
        panels: Pictures.
    """

    name: str
    claim: str
    label: Label
    rows: tuple[Row, ...]
    panels: tuple[Panel, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether all rows pass."""
        return all(row.passed for row in self.rows)


@dataclass(frozen=True)
class Experiment:
    """A study to run: its key (unique, such as ``t1.oscillating``), and how. Collective."""

    key: str
    run: Callable[[MPI.Comm], Study] = field(repr=False)
