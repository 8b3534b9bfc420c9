r"""Functions B of two-point fluxes: :math:`F = w D\,[B(-p)\rho_i - B(p)\rho_j]`.

Both are positive with :math:`B(-p) = B(p) + p`, so that the flux of a constant density is the
drift's.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fpcontrol.typing import Array

# Below it a series of five terms is exact to round-off, where p/(e^p - 1) cancels.
SMALL = 1e-2
# Beyond it e^p overflows a little later, and B is below the smallest number soon.
LARGE = 700.0


@dataclass(frozen=True)
class Flux:
    """B and its derivative, of arrays."""

    value: Callable[[Array], Array]
    slope: Callable[[Array], Array]

    def __call__(self, p: Array) -> Array:
        """``B(p)``."""
        return self.value(p)


def bernoulli(p: Array) -> Array:
    """``p / (exp(p) - 1)``."""
    square = p * p
    series = 1.0 - 0.5 * p + square * (1 / 12 - square * (1 / 720 - square / 30240))
    small = np.abs(p) < SMALL
    safe = np.where(small, 1.0, p)
    # The numerator must not be cut: B(-800) is 800.
    return np.where(small, series, safe / np.expm1(np.minimum(safe, LARGE)))


def bernoulli_slope(p: Array) -> Array:
    """Derivative of ``bernoulli``, ``B(p) (1 - B(-p)) / p``."""
    series = -0.5 + p * (1 / 6 - p * p * (1 / 180 - p * p / 5040))
    small = np.abs(p) < SMALL
    safe = np.where(small, 1.0, p)
    return np.where(small, series, bernoulli(safe) * (1.0 - bernoulli(-safe)) / safe)


def hybrid(p: Array) -> Array:
    """``c - p/2`` with ``c = (1 + (p/2)**4)**(1/4)``: central to fourth order, upwind far out."""
    h = 0.5 * np.abs(p)
    c = _root(h)
    with np.errstate(over="ignore"):
        other = 1.0 / ((c + h) * (c * c + h * h))  # c - h, without cancellation
    return np.where(p > 0.0, other, c + h)


def hybrid_slope(p: Array) -> Array:
    """Derivative of ``hybrid``."""
    h = 0.5 * np.abs(p)
    return 0.5 * np.sign(p) * (h / _root(h)) ** 3 - 0.5


def _root(h: Array) -> Array:
    """``(1 + h**4)**(1/4)``, without overflow."""
    large = np.maximum(h, 1.0)
    return large * ((1.0 / large) ** 4 + (h / large) ** 4) ** 0.25


FLUXES = {
    "bernoulli": Flux(bernoulli, bernoulli_slope),
    "hybrid": Flux(hybrid, hybrid_slope),
}
