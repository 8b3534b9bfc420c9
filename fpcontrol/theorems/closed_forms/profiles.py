r"""Densities on (0, 1) in closed form, and the straight line between two of them.

A ``Profile`` knows its value, slope and distribution function; the line between two profiles has,
with :math:`F` the distribution functions,

.. math:: \rho_t = \rho_0 + \tfrac tT(\rho_1 - \rho_0),\qquad u = \frac{F_0 - F_1}{T\,\rho_t},

the field without noise that moves along it.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from fpcontrol.typing import Array

# Panels on either side of a singular point of a profile, and Gauss points in each: 5e3 nodes.
PANELS, POINTS = 512, 10


@dataclass(frozen=True)
class Profile:
    """A density on (0, 1); the callables take ``(N,)`` to ``(N,)``.

    Attributes:
        value: Density.
        slope: Its derivative where there is one.
        cdf: Distribution function.
        breaks: Points inside where the density jumps or has a kink.
    """

    value: Callable[[Array], Array]
    slope: Callable[[Array], Array]
    cdf: Callable[[Array], Array]
    breaks: tuple[float, ...] = ()

    def __call__(self, x: Array) -> Array:
        """Value at points of shape ``(N, d)``, from the first coordinate."""
        return self.value(x[:, 0])


def uniform() -> Profile:
    """The density 1."""
    return Profile(np.ones_like, np.zeros_like, lambda x: x)


def jump(low: float = 0.4, at: float = 0.5) -> Profile:
    """``low`` up to ``at``, then the constant that makes the mass 1."""
    high = (1.0 - low * at) / (1.0 - at)
    return Profile(
        lambda x: np.where(x < at, low, high),
        np.zeros_like,
        lambda x: np.where(x < at, low * x, 1.0 - high * (1.0 - x)),
        (at,),
    )


def kink(floor: float = 0.3, power: float = 0.75) -> Profile:
    r""":math:`(f + |x - 1/2|^p)/Z`: for 1/2 < p < 1 in H^1, with an unbounded slope."""
    half, q = 0.5, power + 1.0
    z = floor + 2.0 * half**q / q

    def slope(x: Array) -> Array:
        y = np.abs(x - half)
        steep = np.where(y > 0.0, y, 1.0) ** (power - 1.0)
        return power * np.sign(x - half) * steep / z

    return Profile(
        lambda x: (floor + np.abs(x - half) ** power) / z,
        slope,
        lambda x: (floor * x + (half**q + np.sign(x - half) * np.abs(x - half) ** q) / q) / z,
        (half,),
    )


def cosine(amplitude: float = 0.8, waves: int = 1) -> Profile:
    """``1 - amplitude * cos(waves * pi * x)``."""
    k = waves * math.pi
    return Profile(
        lambda x: 1.0 - amplitude * np.cos(k * x),
        lambda x: amplitude * k * np.sin(k * x),
        lambda x: x - amplitude * np.sin(k * x) / k,
    )


def islands(floor: float, weight: float = 0.7, left: float = 0.35, right: float = 0.65) -> Profile:
    r"""Two humps :math:`\sin^4` on (0, left) and (right, 1), over a floor.

    :math:`(1 - f)q + f`, with ``weight`` of the mass of ``q`` in the left hump.
    """
    humps = ((weight, 0.0, left), (1.0 - weight, right, 1.0))

    def mixed(part: Callable[[Array], Array], order: int) -> Callable[[Array], Array]:
        def f(x: Array) -> Array:
            total = floor * (x, np.ones_like(x), np.zeros_like(x))[order]
            for mass, a, b in humps:
                scale = mass / (b - a) ** order
                y = np.clip((x - a) / (b - a), 0.0, 1.0)
                total = total + (1.0 - floor) * scale * part(math.pi * y)
            return total

        return f

    return Profile(
        mixed(lambda s: np.sin(s) ** 4 / 0.375, 1),
        mixed(lambda s: 4.0 * math.pi * np.sin(s) ** 3 * np.cos(s) / 0.375, 2),
        mixed(lambda s: (s - np.sin(2 * s) / 1.5 + np.sin(4 * s) / 12) / math.pi, 0),
        (left, right),
    )


@functools.cache
def nodes(breaks: tuple[float, ...] = (), grading: int = 4) -> tuple[Array, Array]:
    """Gauss nodes and weights on (0, 1), graded towards the breaks like ``u**grading``."""
    hat, w = np.polynomial.legendre.leggauss(POINTS)
    edges = np.linspace(0.0, 1.0, PANELS + 1)
    s = (edges[:-1, None] + (0.5 * hat + 0.5) / PANELS).ravel()
    ds = np.tile(0.5 * w / PANELS, PANELS)
    ends = np.array([0.0, *breaks, 1.0])
    x, dx = [], []
    for a, b in pairwise(ends):
        for end, sign in ((a, 1.0), (b, -1.0)):
            half = 0.5 * (b - a)
            x.append(end + sign * half * s**grading)
            dx.append(half * grading * s ** (grading - 1) * ds)
    return np.concatenate(x), np.concatenate(dx)


@functools.cache
def _sorted_nodes(breaks: tuple[float, ...]) -> Array:
    return np.sort(nodes(breaks)[0])


@dataclass(frozen=True)
class StraightLine:
    """Line from one profile to another in the time ``t1``; arrays are ``(N,)``."""

    start: Profile
    goal: Profile
    t1: float = 1.0

    def density(self, t: float, x: Array) -> Array:
        """Density at time ``t``."""
        s = t / self.t1
        return (1.0 - s) * self.start.value(x) + s * self.goal.value(x)

    def slope(self, t: float, x: Array) -> Array:
        """Derivative of the density in ``x``."""
        s = t / self.t1
        return (1.0 - s) * self.start.slope(x) + s * self.goal.slope(x)

    def cdf(self, t: float, x: Array) -> Array:
        """Distribution function."""
        s = t / self.t1
        return (1.0 - s) * self.start.cdf(x) + s * self.goal.cdf(x)

    def flux(self, x: Array) -> Array:
        """Mass a time through a point to the right, the gradient of the Moser potential."""
        return (self.start.cdf(x) - self.goal.cdf(x)) / self.t1

    def speed(self, t: float, x: Array) -> Array:
        """The Moser field without noise."""
        return self.flux(x) / self.density(t, x)

    def speed_and_expansion(self, t: float, x: Array) -> tuple[Array, Array]:
        """The speed and its derivative away from jumps: ``(rho_0 - rho_1 - u T rho')/(T rho)``."""
        s, p, q = t / self.t1, self.start.value(x), self.goal.value(x)
        rho = (1.0 - s) * p + s * q
        u = self.flux(x) / rho
        return u, ((p - q) / self.t1 - u * self.slope(t, x)) / rho

    def expansion(self, t: float, x: Array) -> Array:
        """Divergence of ``speed`` away from jumps."""
        return self.speed_and_expansion(t, x)[1]

    def quantile(self, t: float, y: Array) -> Array:
        """Inverse of ``cdf``, to 1e-6 and better: interpolated between some thousand nodes."""
        x = _sorted_nodes(self.breaks)
        return np.interp(y, self.cdf(t, x), x)

    @property
    def breaks(self) -> tuple[float, ...]:
        """Of both profiles."""
        return tuple(sorted({*self.start.breaks, *self.goal.breaks}))
