"""Drifts and noise in another time."""

import math
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Protocol

import numpy as np
import scipy

from fpcontrol.drift.base import Anywhere, Drift, OnCells, SamplePoints, as_drift, asks_cells
from fpcontrol.typing import Array, Field, VectorField

if TYPE_CHECKING:
    from fpcontrol.discretization.cells import Cells


class Clock(Protocol):
    """Time as an increasing function of another, u in [0, 1]."""

    def time(self, u: float) -> float:
        """The time at u."""

    def rate(self, u: float) -> float:
        """Its derivative, positive."""


class Retimed(Drift):
    r"""A drift on another clock, so that equal steps of u in [0, 1] are graded ones of time.

    .. math:: \tilde v(u, x) = \tau'(u)\,v(\tau(u), x),\qquad
        \tilde\sigma(u) = \sqrt{\tau'(u)}\,\sigma(\tau(u))

    have at u the density that :math:`v, \sigma` have at :math:`\tau(u)`:
    ``FokkerPlanck(mesh, graded, graded.sigma).solve(start, t1=1.0, steps=...)``.

    Args:
        drift: The drift or a bare callable.
        clock: With ``time(u)`` and ``rate(u)``.
        sigma: Noise, a function of time; none unless given.
    """

    def __init__(
        self, drift: VectorField, clock: Clock, sigma: Callable[[float], float] | None = None
    ) -> None:
        self.drift, self.clock, self._sigma = as_drift(drift), clock, sigma

    def __call__(self, t: float, x: Array) -> Array:
        """Values at points, ``(N, d)``."""
        return self.clock.rate(t) * self.drift(self.clock.time(t), x)

    def sigma(self, t: float) -> float:
        """The noise."""
        if self._sigma is None:
            return 0.0
        return math.sqrt(self.clock.rate(t)) * self._sigma(self.clock.time(t))

    @property
    def switches(self) -> Array:
        """Of the drift, in the other time."""
        ends = self.clock.time(0.0), self.clock.time(1.0)
        inside = [s for s in self.drift.switches if ends[0] < s < ends[1]]
        return np.array(
            [scipy.optimize.brentq(lambda u, s=s: self.clock.time(u) - s, 0.0, 1.0) for s in inside]
        )

    def piece(self, t: float) -> Hashable | None:
        """None: the clock's rate changes."""
        return None

    @property
    def everywhere(self) -> bool:
        """As the drift."""
        return self.drift.everywhere

    def on_cells(self, cells: "Cells") -> OnCells:
        """Of the drift. Collective."""
        own, clock = self.drift.on_cells(cells), self.clock
        if not asks_cells(own):
            return Anywhere(self)
        return lambda t, x, c: clock.rate(t) * own(clock.time(t), x, c)

    @property
    def divergence(self) -> Field | None:
        """That of the drift, if it is known."""
        own, clock = self.drift.divergence, self.clock
        return None if own is None else lambda t, x: clock.rate(t) * own(clock.time(t), x)

    def at_points(self, t: float, where: SamplePoints) -> Array:
        """Values at the points of a discretization, ``(N, d)``."""
        return self.clock.rate(t) * self.drift.at_points(self.clock.time(t), where)
