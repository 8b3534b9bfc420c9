r"""Logarithms of densities that are wrong by a known amount, and what they leave of the equation.

.. math:: \Phi = \log p_t + a\,e^{-kt}\psi(x),\qquad \hat s = \nabla\Phi

for noised data p and a perturbation :math:`\psi` whose derivatives are known.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fpcontrol.noising.noised import Noised
from fpcontrol.typing import Array


class Perturbation(Protocol):
    """A function of points ``(N, d)`` with its derivatives."""

    def __call__(self, x: Array) -> Array:
        """Values, ``(N,)``."""

    def gradient(self, x: Array) -> Array:
        """Gradient, ``(N, d)``."""

    def laplacian(self, x: Array) -> Array:
        """Laplacian, ``(N,)``."""


@dataclass(frozen=True)
class Waves:
    r"""The function :math:`\frac c{\omega^2}\sum_i\cos\omega x_i`.

    Attributes:
        c: Height of the second derivative.
        omega: Wave number.
    """

    c: float
    omega: float

    def __call__(self, x: Array) -> Array:
        """Values, ``(N,)``."""
        return self.c / self.omega**2 * np.cos(self.omega * x).sum(axis=1)

    def gradient(self, x: Array) -> Array:
        """Gradient, ``(N, d)``."""
        return -self.c / self.omega * np.sin(self.omega * x)

    def laplacian(self, x: Array) -> Array:
        """Laplacian, ``(N,)``."""
        return -self.c * np.cos(self.omega * x).sum(axis=1)


@dataclass(frozen=True)
class Slope:
    r"""The function :math:`c\sum_ix_i`: the score is off by a constant.

    Attributes:
        c: The slope.
    """

    c: float

    def __call__(self, x: Array) -> Array:
        """Values, ``(N,)``."""
        return self.c * x.sum(axis=1)

    def gradient(self, x: Array) -> Array:
        """Gradient, ``(N, d)``."""
        return np.full_like(x, self.c)

    def laplacian(self, x: Array) -> Array:
        """Laplacian, ``(N,)``."""
        return np.zeros(len(x))


class Network:
    r"""A network with one hidden layer, :math:`\sum_ja_j\tanh(w_j\cdot x + b_j)`, drawn at random.

    Args:
        dimension: Of the space.
        width: Number of neurons.
        seed: Of the weights.
        steepness: Typical length of the :math:`w_j`.
        size: Square root of the expected sum of squares of the :math:`a_j`.
    """

    def __init__(
        self, dimension: int, width: int, seed: int, steepness: float = 2.0, size: float = 0.4
    ) -> None:
        rng = np.random.default_rng(seed)
        self.inner = steepness / np.sqrt(dimension) * rng.standard_normal((dimension, width))
        self.offsets = rng.uniform(-2.0, 2.0, width)
        self.outer = size / np.sqrt(width) * rng.standard_normal(width)

    def __call__(self, x: Array) -> Array:
        """Values, ``(N,)``."""
        return self._hidden(x) @ self.outer

    def gradient(self, x: Array) -> Array:
        """Gradient, ``(N, d)``."""
        return ((1.0 - self._hidden(x) ** 2) * self.outer) @ self.inner.T

    def laplacian(self, x: Array) -> Array:
        """Laplacian, ``(N,)``."""
        y = self._hidden(x)
        return (-2.0 * y * (1.0 - y**2)) @ (self.outer * (self.inner**2).sum(axis=0))

    def _hidden(self, x: Array) -> Array:
        return np.tanh(x @ self.inner + self.offsets)


@dataclass(frozen=True)
class WrongLogDensity:
    r"""The logarithm of a noised density, plus a perturbation; a score model.

    Attributes:
        data: Noised data.
        perturbation: The function :math:`\psi`.
        decay: The rate k, one over time.
        scale: The number a.
    """

    data: Noised
    perturbation: Perturbation
    decay: float = 4.0
    scale: float = 1.0

    def log_density(self, t: float, x: Array) -> Array:
        r"""The function :math:`\Phi`, ``(N,)``."""
        return self.data.density(t).log_density(x) + self._left(t) * self.perturbation(x)

    def values(self, t: float, x: Array) -> Array:
        r"""The score :math:`\nabla\Phi`, ``(N, d)``."""
        return self.data.values(t, x) + self._left(t) * self.perturbation.gradient(x)

    def divergence(self, t: float, x: Array) -> Array:
        """Its divergence, ``(N,)``."""
        return self.data.divergence(t, x) + self._left(t) * self.perturbation.laplacian(x)

    def residual(self, t: float, x: Array) -> Array:
        r"""What is left of the equation, ``(N,)``, one over time.

        .. math:: R = \partial_t\Phi + \nabla\cdot f + f\cdot\nabla\Phi
            - \tfrac{g^2}2(\Delta\Phi + |\nabla\Phi|^2)

        That of :math:`\log p` is zero: what stays are the terms of the perturbation.
        """
        process, psi, left = self.data.process, self.perturbation, self._left(t)
        slope, exact = left * psi.gradient(x), self.data.values(t, x)
        half = 0.5 * process.sigma(t) ** 2
        squares = ((2.0 * exact + slope) * slope).sum(axis=1)
        transport = (process.drift(t, x) * slope).sum(axis=1)
        return left * (-self.decay * psi(x) - half * psi.laplacian(x)) + transport - half * squares

    def _left(self, t: float) -> float:
        return self.scale * float(np.exp(-self.decay * t))
