"""A drift changed point by point."""

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING

from fpcontrol.drift.base import Anywhere, Drift, OnCells, SamplePoints, as_drift, asks_cells
from fpcontrol.typing import Array, VectorField

if TYPE_CHECKING:
    from fpcontrol.discretization.cells import Cells


class Mapped(Drift):
    """A drift changed point by point: :math:`f(t, x, v(t, x))`, such as one that is clipped.

    Args:
        drift: The drift or a bare callable.
        change: Callable ``change(t, x, v)`` with ``x`` and ``v`` of shape ``(N, d)`` to ``(N, d)``.
        steady: Whether ``change`` does not depend on time: the result is then constant in time
            wherever the drift is.
    """

    def __init__(
        self,
        drift: VectorField,
        change: Callable[[float, Array, Array], Array],
        *,
        steady: bool = False,
    ) -> None:
        self.drift, self.change, self._steady = as_drift(drift), change, steady

    def __call__(self, t: float, x: Array) -> Array:
        """Values at points, ``(N, d)``."""
        return self.change(t, x, self.drift(t, x))

    @property
    def switches(self) -> Array:
        """Of the drift."""
        return self.drift.switches

    def piece(self, t: float) -> Hashable | None:
        """That of the drift, if the change does not depend on time."""
        return self.drift.piece(t) if self._steady else None

    @property
    def steady(self) -> bool:
        """Whether neither depends on time."""
        return self._steady and self.drift.steady

    @property
    def everywhere(self) -> bool:
        """As the drift."""
        return self.drift.everywhere

    def at_points(self, t: float, where: SamplePoints) -> Array:
        """Values at the points of a discretization, ``(N, d)``."""
        return self.change(t, where.points, self.drift.at_points(t, where))

    def on_cells(self, cells: "Cells") -> OnCells:
        """Of the drift, changed. Collective."""
        own = self.drift.on_cells(cells)
        if not asks_cells(own):
            return Anywhere(self)
        return lambda t, x, c: self.change(t, x, own(t, x, c))
