"""What a drift is: values, and its structure in time."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from fpcontrol.typing import Array, Field, VectorField

if TYPE_CHECKING:  # closed forms are drifts, and need neither MPI nor DOLFINx
    from mpi4py import MPI

    from fpcontrol.discretization.cells import Cells

type OnCells = Callable[[float, Array, Array], Array]  # (t, x, cells) to (N, d)


class SamplePoints(Protocol):
    """Points of this rank at which a solver asks for a drift."""

    @property
    def points(self) -> Array:
        """Shape ``(N, d)``."""

    @property
    def comm(self) -> "MPI.Comm":
        """Communicator that the points are distributed over."""


class Anywhere:
    """Values of a drift at points in known cells that does not look at these.

    Args:
        drift: The drift.
    """

    def __init__(self, drift: VectorField) -> None:
        self._drift = drift

    def __call__(self, t: float, x: Array, cells: Array) -> Array:
        """Values at points, ``(N, d)``, whatever the cells are."""
        return self._drift(t, x)


def asks_cells(own: OnCells) -> bool:
    """Whether what ``Drift.on_cells`` has returned has to be given the right cells."""
    return not isinstance(own, Anywhere)


class Drift(ABC):
    """A vector field :math:`v(t, x)`, and what a solver wants to know of it.

    A subclass defines ``__call__``; the rest has defaults for a drift that is smooth in time and
    known everywhere.
    """

    # numpy's numbers leave products with a drift to it.
    __array_ufunc__ = None

    @abstractmethod
    def __call__(self, t: float, x: Array) -> Array:
        """Values at points, ``(N, d)`` to ``(N, d)``, length per time."""

    @property
    def switches(self) -> Array:
        """Times at which it jumps, which no time step may straddle."""
        return np.empty(0)

    def piece(self, t: float) -> Hashable | None:
        """A key of the interval of time that holds ``t`` on which the drift is constant.

        Equal keys stand for equal values: an operator is filled, and factored, once a key. ``None``
        where the drift changes with time.
        """
        return None

    @property
    def steady(self) -> bool:
        """Whether it does not depend on time at all."""
        return False

    @property
    def everywhere(self) -> bool:
        """Whether every rank can ask it anywhere in the domain, as characteristics need."""
        return True

    @property
    def divergence(self) -> Field | None:
        """``divergence(t, x)`` to ``(N,)``, one over time; ``None`` if it is not known."""
        return None

    def at_points(self, t: float, where: SamplePoints) -> Array:
        """Values at the points of a discretization, ``(N, d)``; a drift on a mesh need not search.

        Args:
            t: Time.
            where: The discretization, or anything with its ``points``.
        """
        return self(t, where.points)

    def on_cells(self, cells: "Cells") -> OnCells:
        """Values at points in known cells of a mesh that every rank holds whole. Collective.

        Args:
            cells: The replicated mesh.

        Returns:
            ``f(t, x, c)`` to ``(N, d)`` of points ``(N, d)`` in cells ``c``, ``(N,)``; it does not
            communicate.

        Raises:
            ValueError: On all ranks, if a drift that is known in a rank's own cells only does not
                offer it.
        """
        if not self.everywhere:
            raise ValueError(
                f"The drift {type(self).__name__} is known in the cells of each rank only, and "
                "does not say how to be asked elsewhere (on_cells)."
            )
        return Anywhere(self)

    def __add__(self, other: VectorField) -> "Drift":
        """The sum of two drifts."""
        return Sum((self, other))

    __radd__ = __add__

    def __mul__(self, factor: float) -> "Drift":
        """A multiple of a drift."""
        return Sum((self,), (float(factor),))

    __rmul__ = __mul__

    def __neg__(self) -> "Drift":
        """The drift of the other sign."""
        return -1.0 * self

    def __sub__(self, other: VectorField) -> "Drift":
        """The difference of two drifts."""
        return self + -as_drift(other)

    def reversed_in_time(self, t1: float) -> "Drift":
        """:math:`v(t_1 - t, x)`; the flow run backwards has the drift of the other sign."""
        return Reversed(self, float(t1))


class Steady(Drift):
    """A drift that does not depend on time: its operator is filled and factored once.

    Args:
        field: Callable ``field(x)`` from shape ``(N, d)`` to ``(N, d)``.
    """

    def __init__(self, field: Callable[[Array], Array]) -> None:
        self.field = field

    def __call__(self, t: float, x: Array) -> Array:
        """Drift at ``x``; ``t`` is not used."""
        return self.field(x)

    def piece(self, t: float) -> int:
        """One piece for all times."""
        return 0

    @property
    def steady(self) -> bool:
        """True."""
        return True


class Sum(Drift):
    r"""A linear combination of drifts, :math:`\sum_i c_i v_i`.

    It jumps where any part does, and is constant in time where all parts are.

    Args:
        parts: Drifts or bare callables, at least one.
        factors: The numbers :math:`c_i`; ones unless given.

    Raises:
        ValueError: If there is no part, one is not callable, or there are not as many factors.
    """

    def __init__(self, parts: Sequence[VectorField], factors: Sequence[float] = ()) -> None:
        self.parts = tuple(as_drift(part) for part in parts)
        self.factors = tuple(factors) or (1.0,) * len(self.parts)
        if not self.parts or len(self.factors) != len(self.parts):
            raise ValueError(
                f"There are {len(self.parts)} parts and {len(self.factors)} factors; at least one "
                "part, and as many factors, are needed."
            )

    def __call__(self, t: float, x: Array) -> Array:
        """Values at points, ``(N, d)``."""
        return self._total([part(t, x) for part in self.parts])

    @property
    def switches(self) -> Array:
        """Of all parts."""
        return np.unique(np.concatenate([part.switches for part in self.parts]))

    def piece(self, t: float) -> Hashable | None:
        """The keys of all parts, or ``None`` if any changes with time."""
        keys = tuple(part.piece(t) for part in self.parts)
        return None if None in keys else keys

    @property
    def steady(self) -> bool:
        """Whether all parts are."""
        return all(part.steady for part in self.parts)

    @property
    def everywhere(self) -> bool:
        """Whether all parts are known everywhere."""
        return all(part.everywhere for part in self.parts)

    @property
    def divergence(self) -> Field | None:
        """The combination of the parts' own, if all know theirs."""
        known = [part.divergence for part in self.parts if part.divergence is not None]
        if len(known) < len(self.parts):
            return None
        return lambda t, x: self._total([own(t, x) for own in known])

    def at_points(self, t: float, where: SamplePoints) -> Array:
        """Values at the points of a discretization, ``(N, d)``."""
        return self._total([part.at_points(t, where) for part in self.parts])

    def on_cells(self, cells: "Cells") -> OnCells:
        """The combination of the parts' own. Collective."""
        parts = [part.on_cells(cells) for part in self.parts]
        if not any(map(asks_cells, parts)):
            return Anywhere(self)
        return lambda t, x, c: self._total([part(t, x, c) for part in parts])

    def _total(self, values: list[Array]) -> Array:
        first, *others = (c * v for c, v in zip(self.factors, values, strict=True))
        return sum(others, first)


class Derived(Drift):
    """A drift made of another one at the same times, whose structure in time it has.

    Attributes:
        drift: The other one.
    """

    drift: Drift

    @property
    def switches(self) -> Array:
        """Of the drift."""
        return self.drift.switches

    def piece(self, t: float) -> Hashable | None:
        """Of the drift."""
        return self.drift.piece(t)

    @property
    def steady(self) -> bool:
        """As the drift."""
        return self.drift.steady


class Reversed(Drift):
    """A drift with time run backwards, :math:`v(t_1 - t, x)`, of the same sign.

    Args:
        drift: The drift or a bare callable.
        t1: The time that becomes 0.
    """

    def __init__(self, drift: VectorField, t1: float) -> None:
        self.drift, self.t1 = as_drift(drift), t1

    def __call__(self, t: float, x: Array) -> Array:
        """Values at points, ``(N, d)``."""
        return self.drift(self.t1 - t, x)

    @property
    def switches(self) -> Array:
        """Of the drift, in the other order."""
        return np.sort(self.t1 - self.drift.switches)

    def piece(self, t: float) -> Hashable | None:
        """Of the drift."""
        return self.drift.piece(self.t1 - t)

    @property
    def steady(self) -> bool:
        """As the drift."""
        return self.drift.steady

    @property
    def everywhere(self) -> bool:
        """As the drift."""
        return self.drift.everywhere

    @property
    def divergence(self) -> Field | None:
        """That of the drift at the reversed time, if it is known."""
        own, t1 = self.drift.divergence, self.t1
        return None if own is None else lambda t, x: own(t1 - t, x)

    def at_points(self, t: float, where: SamplePoints) -> Array:
        """Values at the points of a discretization, ``(N, d)``."""
        return self.drift.at_points(self.t1 - t, where)

    def on_cells(self, cells: "Cells") -> OnCells:
        """Of the drift. Collective."""
        own, t1 = self.drift.on_cells(cells), self.t1
        if not asks_cells(own):
            return Anywhere(self)
        return lambda t, x, c: own(t1 - t, x, c)


def zero() -> Steady:
    """No drift: the heat flow."""
    return Steady(np.zeros_like)


class _Plain(Drift):
    """A bare callable. Facts that it has under the names of ``Drift`` are taken from it."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def __call__(self, t: float, x: Array) -> Array:
        return np.asarray(self.function(t, x))

    @property
    def switches(self) -> Array:
        return np.asarray(getattr(self.function, "switches", ()), dtype=float)

    def piece(self, t: float) -> Hashable | None:
        return self.function.piece(t) if hasattr(self.function, "piece") else None

    @property
    def steady(self) -> bool:
        return bool(getattr(self.function, "steady", False))

    @property
    def everywhere(self) -> bool:
        return bool(getattr(self.function, "everywhere", True))

    @property
    def divergence(self) -> Field | None:
        return getattr(self.function, "divergence", None)

    def at_points(self, t: float, where: SamplePoints) -> Array:
        own = getattr(self.function, "at_points", None)
        return super().at_points(t, where) if own is None else own(t, where)


def as_drift(drift: Any) -> Drift:
    """A ``Drift`` as it is, or one around a bare callable ``drift(t, x)``.

    Raises:
        ValueError: For what is neither.
    """
    if isinstance(drift, Drift):
        return drift
    if hasattr(drift, "function_space"):  # a Function, told apart without loading DOLFINx
        raise ValueError(
            f"drift = {drift.name!r} is a dolfinx Function; give fpc.drift.data(function), or of a "
            "potential fpc.drift.gradient(function)."
        )
    if isinstance(drift, type) or not callable(drift):
        raise ValueError(f"drift = {drift!r} is not callable; give drift(t, x).")
    return _Plain(drift)
