"""Drifts to try estimates on: constant in patches at random, smooth at random, the worst."""

import math
from dataclasses import dataclass

import numpy as np

from fpcontrol.drift.base import Drift, Steady
from fpcontrol.typing import Array


@dataclass(frozen=True)
class Rough(Drift):
    """A drift that is constant in patches of the unit cube and in intervals of time.

    Attributes:
        values: Shape ``(intervals, patches, ..., d)``, as many axes of patches as dimensions.
        t1: Last time.
    """

    values: Array
    t1: float

    @classmethod
    def drawn(
        cls, rng: np.random.Generator, dimension: int, patches: int, intervals: int, t1: float
    ) -> "Rough":
        """Uniform in the cube inscribed in the unit ball: no longer than 1."""
        shape = (intervals, *[patches] * dimension, dimension)
        return cls(rng.uniform(-1.0, 1.0, shape) / math.sqrt(dimension), t1)

    @property
    def switches(self) -> Array:
        """Between the intervals of time."""
        return np.linspace(0.0, self.t1, len(self.values) + 1)[1:-1]

    def piece(self, t: float) -> int:
        """Number of the interval of time."""
        return min(int(t / self.t1 * len(self.values)), len(self.values) - 1)

    def __call__(self, t: float, x: Array) -> Array:
        """Drift at points ``(N, d)``."""
        patches = self.values.shape[1]
        i = np.clip((x * patches).astype(int), 0, patches - 1)
        return self.values[(self.piece(t), *i.T)]


@dataclass(frozen=True)
class Waves(Steady):
    r"""A smooth drift in 1-D that vanishes at the walls: :math:`\sum_j c_j\sin j\pi x`."""

    amplitudes: Array

    def field(self, x: Array) -> Array:
        """Drift at points ``(N, d)``."""
        return np.sin(x * self._k) @ self.amplitudes[:, None]

    def divergence(self, t: float, x: Array) -> Array:
        """Its derivative, ``(N,)``."""
        return np.cos(x * self._k) @ (self._k * self.amplitudes)

    @property
    def _k(self) -> Array:
        return np.pi * np.arange(1, len(self.amplitudes) + 1)


@dataclass(frozen=True)
class Pulse(Drift):
    r"""The worst error: :math:`\epsilon\,e^{-Dk^2(T-t)}\sin kx`."""

    size: float
    k: float
    rate: float
    t1: float

    def __call__(self, t: float, x: Array) -> Array:
        """Drift at points ``(N, d)``."""
        return self._amplitude(t) * np.sin(self.k * x)

    def divergence(self, t: float, x: Array) -> Array:
        """Its derivative, ``(N,)``."""
        return self._amplitude(t) * self.k * np.cos(self.k * x[:, 0])

    def _amplitude(self, t: float) -> float:
        return self.size * math.exp(-self.rate * (self.t1 - t))
