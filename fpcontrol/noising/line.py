r"""Noising of data on a line in closed form, and the drifts that reverse it.

A noising process :math:`dX = f\,ds + \sqrt{2D}\,dW` takes data at s = 0 to something close to
noise at s = T. With its densities :math:`p_s`, run backward in time t = T - s, the drifts

.. math:: v = 2D\,\partial_x\log p_{T-t} - f \quad\text{(SDE, noise of the same strength)},\qquad
    v = D\,\partial_x\log p_{T-t} - f \quad\text{(ODE)}

carry :math:`p_T` back to the data (``reverse``).

``CosineHeat`` is the heat flow between the walls of (0, 1) of positive data of any shape;
``noising.pieces`` has that of data made of pieces, and the Ornstein-Uhlenbeck process.
Nothing here needs a mesh: a drift goes to ``FokkerPlanck``, ``carry`` or any other integrator.
"""

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fpcontrol.quadrature import composite, graded
from fpcontrol.typing import Array


class Noising(Protocol):
    """A noising process at its times s: densities of noised data, their scores, its drift."""

    @property
    def D(self) -> float:
        """Diffusivity."""

    def log_density(self, s: float, x: Array) -> Array:
        """Logarithm of the density, ``(N,)``."""

    def score(self, s: float, x: Array) -> Array:
        """Derivative of the logarithm of the density, ``(N,)``."""

    def pull(self, x: Array) -> Array:
        """Drift of the noising process, ``(N,)``."""


class CosineSeries(ABC):
    r"""Heat flow on (0, 1) with walls: :math:`p_s = 1 + \sum_jc_je^{-Dk_j^2s}\cos k_jx`.

    Arrays of points may have any shape; ``D`` is the diffusivity.
    """

    D: float

    @property
    @abstractmethod
    def waves(self) -> Array:
        """The :math:`k_j`, ascending, whole multiples of pi."""

    @property
    @abstractmethod
    def heights(self) -> Array:
        """The :math:`c_j`."""

    def density(self, s: float, x: Array) -> Array:
        """Density."""
        c = self._left(s)
        return 1.0 + self._table(x)[0][..., : len(c)] @ c

    def slope(self, s: float, x: Array) -> Array:
        """Its derivative."""
        c = self._left(s)
        return -self._table(x)[1][..., : len(c)] @ (c * self.waves[: len(c)])

    def log_density(self, s: float, x: Array) -> Array:
        """Logarithm of the density."""
        return np.log(self.density(s, x))

    def score(self, s: float, x: Array) -> Array:
        """Derivative of the logarithm of the density."""
        return self.slope(s, x) / self.density(s, x)

    def curvature(self, s: float, x: Array) -> Array:
        """Second derivative of the logarithm of the density."""
        c = self._left(s)
        second = -self._table(x)[0][..., : len(c)] @ (c * self.waves[: len(c)] ** 2)
        return second / self.density(s, x) - self.score(s, x) ** 2

    def cumulative(self, s: float, x: Array) -> Array:
        """Distribution function."""
        c = self._left(s)
        return x + self._table(x)[1][..., : len(c)] @ (c / self.waves[: len(c)])

    def pull(self, x: Array) -> Array:
        """Drift of the noising process: none."""
        return np.zeros_like(x)

    def _left(self, s: float) -> Array:
        """Coefficients that are left of round-off."""
        decay = np.exp(-self.D * s * self.waves**2)
        n = int(np.searchsorted(-decay, -1e-18))
        return self.heights[:n] * decay[:n]

    def _table(self, x: Array) -> tuple[Array, Array]:
        """Cosines and sines at points; long tables are kept for the points of the last call."""
        long = x.size * len(self.waves) > 100_000
        kept = self.__dict__.get("_kept") if long else None
        if kept is None or not np.array_equal(kept[0], x):
            angle = np.multiply.outer(x, self.waves)
            kept = (x.copy() if long else x, np.cos(angle), np.sin(angle))
            if long:
                self.__dict__["_kept"] = kept
        return kept[1], kept[2]


@dataclass(frozen=True)
class CosineHeat(CosineSeries):
    """Heat flow of positive data on (0, 1).

    Attributes:
        start: Density of the data, ``(N,)`` to ``(N,)``.
        D: Diffusivity.
        breaks: Where it jumps or has kinks.
        modes: Number of cosines: those left at the earliest time that is asked for.
    """

    start: Callable[[Array], Array]
    D: float
    breaks: tuple[float, ...] = ()
    modes: int = 800

    @functools.cached_property
    def waves(self) -> Array:
        """Of all modes."""
        return math.pi * np.arange(1, self.modes + 1)

    @functools.cached_property
    def heights(self) -> Array:
        """Coefficients of the data."""
        x, w = graded(self.breaks)
        return 2.0 * (np.cos(np.outer(self.waves, x)) @ (w * self.start(x)))


@dataclass(frozen=True)
class Reversal:
    """A drift, shapes ``(N, 1)``, that runs a noising process backward; see ``reverse``."""

    noising: Noising
    t1: float
    ode: bool = False

    def __call__(self, t: float, x: Array) -> Array:
        """Drift at the time ``t`` of the reversal, at points ``(N, 1)``."""
        score = self.noising.score(self.t1 - t, x[:, 0])
        factor = 1.0 if self.ode else 2.0
        return (factor * self.noising.D * score - self.noising.pull(x[:, 0]))[:, None]


def reverse(noising: Noising, t1: float, *, ode: bool = False) -> Reversal:
    r"""The drift that carries :math:`p_T` back to the data.

    Args:
        noising: The process.
        t1: Noising time T at which the reversal starts. It ends before t = T: there the score of
            data with jumps is infinite.
        ode: Whether it is that of the ODE, without noise; else noise of the same :math:`\sqrt{2D}`
            must be added.
    """
    return Reversal(noising, t1, ode)


def entropy(noising: Noising, s: float, *, panels: int = 800) -> float:
    r""":math:`\int p_s\log p_s\,dx` on (0, 1) with walls, by Gauss's rule in equal panels."""
    x, w = composite(np.linspace(0.0, 1.0, panels + 1), 4)
    log_p = noising.log_density(s, x)
    return float(w @ (np.exp(log_p) * log_p))
