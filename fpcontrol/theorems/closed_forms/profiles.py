r"""Densities on (0, 1) in closed form, and the straight line between two of them.

The line between two profiles has, with :math:`F` the distribution functions,

.. math:: \rho_t = \rho_0 + \tfrac tT(\rho_1 - \rho_0),\qquad u = \frac{F_0 - F_1}{T\,\rho_t},

the field without noise that moves along it (Moser's, in one dimension).
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fpcontrol.quadrature import graded
from fpcontrol.typing import Array

type Function = Callable[[Array], Array]  # (N,) to (N,)


@dataclass(frozen=True)
class Profile:
    """A density on (0, 1).

    Attributes:
        value: Density.
        slope: Its derivative where there is one.
        cdf: Distribution function.
        breaks: Points inside where the density jumps or has a kink.
    """

    value: Function
    slope: Function
    cdf: Function
    breaks: tuple[float, ...] = ()

    def integral(self, f: Function) -> float:
        """Integral over (0, 1) of a function that is smooth off the breaks."""
        x, w = graded(self.breaks)
        return float(w @ f(x))

    @functools.cached_property
    def norm(self) -> float:
        """In L2."""
        return math.sqrt(self.integral(lambda x: self.value(x) ** 2))

    def quantile(self, y: Array) -> Array:
        """Inverse of the distribution function, to round-off."""
        return inverse(self.cdf, self.value, y, self._table)

    @functools.cached_property
    def _table(self) -> tuple[Array, Array]:
        x = _sorted_nodes(self.breaks)
        return x, self.cdf(x)


@functools.cache
def _sorted_nodes(breaks: tuple[float, ...]) -> Array:
    return np.concatenate([[0.0], np.sort(graded(breaks)[0]), [1.0]])


def inverse(cdf: Function, density: Function, y: Array, table: tuple[Array, Array]) -> Array:
    """Where a distribution function has the values y, to round-off.

    Newton's method from a table of the function, with bisection where it would leave the bracket.

    Args:
        cdf: The function.
        density: Its derivative.
        y: Values in [0, 1], ``(N,)``.
        table: Points from 0 to 1, ascending, and the function there.
    """
    nodes, values = table
    i = np.clip(np.searchsorted(values, y), 1, len(nodes) - 1)
    low, high, x = nodes[i - 1], nodes[i], np.interp(y, values, nodes)
    for _ in range(53):  # halvings do always
        excess = cdf(x) - y
        low, high = np.where(excess < 0.0, x, low), np.where(excess < 0.0, high, x)
        new = x - excess / density(x)
        new = np.where((new >= low) & (new <= high), new, 0.5 * (low + high))
        change, x = np.abs(new - x).max(initial=0.0), new
        if change < 1e-15:
            break
    return x


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

    def mixed(part: Function, order: int) -> Function:
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


# Where lines from the uniform density lead: what counts is how smooth they are.
GOALS = {"smooth": cosine(), "kink": kink(), "jump": jump()}


@dataclass(frozen=True)
class StraightLine:
    """Line from one profile to another in the time ``t1``; arrays are ``(N,)``."""

    start: Profile
    goal: Profile
    t1: float = 1.0

    @classmethod
    def to(cls, goal: Profile, t1: float = 1.0) -> "StraightLine":
        """From the uniform density."""
        return cls(uniform(), goal, t1)

    @property
    def breaks(self) -> tuple[float, ...]:
        """Of both profiles."""
        return tuple(sorted({*self.start.breaks, *self.goal.breaks}))

    def at(self, t: float) -> Profile:
        """The profile at time ``t``."""
        s, p, q = t / self.t1, self.start, self.goal

        def mixed(f: Function, g: Function) -> Function:
            return lambda x: (1.0 - s) * f(x) + s * g(x)

        return Profile(
            mixed(p.value, q.value), mixed(p.slope, q.slope), mixed(p.cdf, q.cdf), self.breaks
        )

    def flux(self, x: Array) -> Array:
        """Mass a time through a point to the right, the gradient of the Moser potential."""
        return (self.start.cdf(x) - self.goal.cdf(x)) / self.t1

    def speed(self, t: float, x: Array) -> Array:
        """The Moser field without noise."""
        return self.flux(x) / self.at(t).value(x)

    def expansion(self, t: float, x: Array) -> Array:
        """Its derivative away from jumps: ``(rho_0 - rho_1 - u T rho')/(T rho)``."""
        rho, p, q = self.at(t), self.start.value(x), self.goal.value(x)
        return ((p - q) / self.t1 - self.speed(t, x) * rho.slope(x)) / rho.value(x)
