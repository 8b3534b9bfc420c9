r"""Functions B of two-point fluxes: :math:`F = w D\,[B(-p)\rho_i - B(p)\rho_j]`.

Both are positive with :math:`B(-p) = B(p) + p`, so that the flux of a constant density is the
drift's, and :math:`B'(-p) = -1 - B'(p)`. So one evaluation at :math:`|p|` gives all four.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import expm1
from typing import Any

import numpy as np

from fpcontrol.discretization.kernels import compiled
from fpcontrol.typing import Array

# Below it a series of five terms is exact to round-off, where p/(e^p - 1) cancels.
SMALL = 1e-2
# Beyond it e^p overflows a little later, and B is below the smallest number soon.
LARGE = 700.0


@dataclass(frozen=True)
class Flux:
    """B and its derivative, of arrays.

    Attributes:
        evaluate: Writes ``B(|p|)`` and ``B'(|p|)`` for p.
    """

    evaluate: Callable[[Any, Any, Any], None]

    def __call__(self, p: Array) -> Array:
        """``B(p)``."""
        return self.both(p)[1]

    def both(self, p: Array) -> tuple[Array, Array]:
        """``B(-p)`` and ``B(p)``."""
        leaving, entering = np.empty((2, p.size))
        self.evaluate(p.ravel(), entering, leaving)
        _values(p.ravel(), entering, leaving)
        return leaving.reshape(p.shape), entering.reshape(p.shape)

    def slope(self, p: Array) -> Array:
        """``B'(p)``."""
        return self.slopes(p)[1]

    def slopes(self, p: Array) -> tuple[Array, Array]:
        """``B'(-p)`` and ``B'(p)``."""
        one, two = np.empty((2, p.size))
        self.evaluate(p.ravel(), two, one)
        _slopes(p.ravel(), two, one)
        return one.reshape(p.shape), two.reshape(p.shape)


@compiled
def _values(p: Any, entering: Any, leaving: Any) -> None:
    """From ``B(|p|)`` in ``entering``: ``B(p)`` in its place, ``B(-p)`` in ``leaving``."""
    for e in range(p.size):
        low = entering[e]
        high = low + abs(p[e])
        entering[e], leaving[e] = (low, high) if p[e] >= 0.0 else (high, low)


@compiled
def _slopes(p: Any, two: Any, one: Any) -> None:
    """From ``B'(|p|)`` in ``one``: ``B'(p)`` in ``two``, ``B'(-p)`` in its place."""
    for e in range(p.size):
        flat = one[e]
        steep = -1.0 - flat
        two[e], one[e] = (flat, steep) if p[e] >= 0.0 else (steep, flat)


@compiled
def _bernoulli(p: Any, value: Any, slope: Any) -> None:
    """``p / (exp(p) - 1)``, whose derivative is ``B(p) (1 - B(-p)) / p``."""
    for e in range(p.size):
        a = abs(p[e])
        if a < SMALL:
            square = a * a
            value[e] = 1.0 - 0.5 * a + square * (1 / 12 - square * (1 / 720 - square / 30240))
            slope[e] = -0.5 + a * (1 / 6 - square * (1 / 180 - square / 5040))
        else:
            # Only the exponent is cut: what follows it is no number that matters.
            value[e] = a / expm1(min(a, LARGE))
            slope[e] = value[e] * (1.0 - value[e] - a) / a


@compiled
def _hybrid(p: Any, value: Any, slope: Any) -> None:
    """``c - p/2`` with ``c = (1 + (p/2)**4)**(1/4)``: central to fourth order, upwind far out."""
    for e in range(p.size):
        h = 0.5 * abs(p[e])
        large = max(h, 1.0)
        c = large * ((1.0 / large) ** 4 + (h / large) ** 4) ** 0.25
        value[e] = 1.0 / ((c + h) * (c * c + h * h))  # c - h, without cancellation
        slope[e] = 0.5 * (h / c) ** 3 - 0.5


FLUXES = {"bernoulli": Flux(_bernoulli), "hybrid": Flux(_hybrid)}


def logarithmic_mean(one: Array, two: Array) -> Array:
    """``(two - one) / log(two / one)`` of what is not negative; zero where either is."""
    small = np.minimum(one, two) <= 0.0
    ratio = np.log(np.where(small, 1.0, two) / np.where(small, 1.0, one))
    near = np.abs(ratio) < 1e-6
    mean = np.where(near, 0.5 * (one + two), (two - one) / np.where(near, 1.0, ratio))
    return np.where(small, 0.0, mean)
