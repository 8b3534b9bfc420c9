"""What an experiment returns: a study, whose verbs make rows with verdicts, and its pictures."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from fpcontrol.theorems.framework.figures import Figure

type Label = Literal["reconstructed", "own"]
type Scale = Literal["linear", "log"]


@dataclass(frozen=True, kw_only=True)
class Row:
    r"""One figure and its verdict, as the verbs of a ``Study`` make it.

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
    """One curve: ``style`` is matplotlib's format without color ("-", "o", "o--").

    ``y`` may be figures or, for a level, a number; both become lists of floats.
    """

    x: Any
    y: Any
    label: str
    style: str = "o-"

    def __post_init__(self) -> None:
        x = np.asarray(self.x, dtype=float)
        y = self.y.value if isinstance(self.y, Figure) else np.asarray(self.y, dtype=float)
        object.__setattr__(self, "x", x.tolist())
        object.__setattr__(self, "y", np.broadcast_to(y, x.shape).tolist())


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
    xscale: Scale = "linear"
    yscale: Scale = "linear"
    shade: Shade | None = None


@dataclass
class Study:
    """What comes out of an experiment: rows, made by the verbs, and pictures.

    The verbs ``equals``, ``below``, ``above`` and ``between`` take a ``Figure``, whose
    discretization error goes into the verdict; ``exactly`` takes the bare number of an identity
    that holds on any mesh. All take a family at once: with ``over``, the values of a parameter,
    figures (and what they are compared with) are arrays, and each value is set into ``quantity``
    where that has braces.

    Attributes:
        name: Short name of the experiment with its parameters.
        claim: What is to be seen, in a sentence or two; formulas in LaTeX between dollars.
        label: Where the claim comes from.
        rows: The figures.
        panels: Pictures.
    """

    name: str
    claim: str
    label: Label = "own"
    rows: list[Row] = field(default_factory=list)
    panels: list[Panel] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether all rows pass."""
        return all(row.passed for row in self.rows)

    def equals(
        self, quantity: str, figure: Figure, predicted: Any, rel: Any, *, over: Any = None
    ) -> None:
        """The figure is the predicted one, to a relative tolerance.

        Where the prediction is a computed ``Figure`` too, the errors of both count.
        """
        if isinstance(predicted, Figure):
            figure = Figure(_checked(quantity, figure).value, figure.error + predicted.error)
            predicted = predicted.value
        self._check(quantity, figure, over, predicted=predicted, tolerance=rel)

    def below(
        self, quantity: str, figure: Figure, bound: Any, *, rel: float = 0.0, over: Any = None
    ) -> None:
        """The figure is no larger than a bound."""
        self._check(quantity, figure, over, bound=bound, tolerance=rel)

    def above(self, quantity: str, figure: Figure, bound: Any, *, over: Any = None) -> None:
        """The figure is no smaller than a bound: an effect that must be seen."""
        self._check(quantity, figure, over, at_least=bound)

    def between(self, quantity: str, figure: Figure, low: Any, high: Any) -> None:
        """The figure is in an interval."""
        self._check(quantity, figure, None, at_least=low, bound=high)

    def exactly(
        self,
        quantity: str,
        value: float,
        *,
        equals: float | None = None,
        below: float | None = None,
        above: float | None = None,
        rel: float = 0.0,
    ) -> None:
        """An identity of the computed solution itself: no mesh is needed for the verdict."""
        if isinstance(value, Figure):
            raise TypeError(f"{quantity!r} has a discretization error: use equals, below or above.")
        limits = {"predicted": equals, "bound": below, "at_least": above}
        self._add(quantity, None, value, exact=True, tolerance=rel, **limits)

    def report(self, quantity: str, figure: Any, *, over: Any = None) -> None:
        """A figure, or a number that is known, without a verdict."""
        if isinstance(figure, Figure):
            self._add(quantity, over, figure.value, discretization_error=figure.error)
        else:
            self._add(quantity, over, figure)

    def curves(
        self,
        title: str,
        xlabel: str,
        ylabel: str,
        x: Any,
        curves: Mapping[str, Any],
        log: Literal["", "x", "y", "xy"] = "",
    ) -> None:
        """Add a picture of a family: figures, which were computed, as points, all else as lines.

        Args:
            title: Of the picture.
            xlabel: Name of the parameter.
            ylabel: What is drawn.
            x: Values of the parameter.
            curves: By name figures, and what is known: arrays, or numbers for levels.
            log: Names of logarithmic axes.
        """
        known = any(not isinstance(y, Figure) for y in curves.values())
        points = "o" if known else "o-"  # joined where there is no line to lie on
        drawn = [
            Line(x, y, name, points if isinstance(y, Figure) else "-") for name, y in curves.items()
        ]
        self.picture(title, xlabel, ylabel, *drawn, log=log)

    def picture(
        self,
        title: str,
        xlabel: str,
        ylabel: str,
        *lines: Line,
        log: Literal["", "x", "y", "xy"] = "",
        shade: Shade | None = None,
    ) -> None:
        """Add a picture; ``log`` names its logarithmic axes."""
        xscale: Scale = "log" if "x" in log else "linear"
        yscale: Scale = "log" if "y" in log else "linear"
        self.panels.append(Panel(title, xlabel, ylabel, lines, xscale, yscale, shade))

    def _check(self, quantity: str, figure: Figure, over: Any, **columns: Any) -> None:
        figure = _checked(quantity, figure)
        self._add(quantity, over, figure.value, discretization_error=figure.error, **columns)

    def _add(self, quantity: str, over: Any, measured: Any, **columns: Any) -> None:
        """One row, or one for each value of ``over``."""
        names = [quantity] if over is None else [quantity.format(value) for value in over]
        shape = () if over is None else (len(names),)
        exact = columns.pop("exact", False)
        given = {k: v for k, v in {"measured": measured, **columns}.items() if v is not None}
        table = {k: np.broadcast_to(np.asarray(v, dtype=float), shape) for k, v in given.items()}
        for i, name in enumerate(names):
            cells = {k: float(v if over is None else v[i]) for k, v in table.items()}
            self.rows.append(Row(quantity=name, exact=exact, **cells))


def _checked(quantity: str, figure: Figure) -> Figure:
    if not isinstance(figure, Figure):
        raise TypeError(
            f"{quantity!r}: a check needs a Figure, with its discretization error; use exactly() "
            "for an identity that holds on any mesh."
        )
    return figure
