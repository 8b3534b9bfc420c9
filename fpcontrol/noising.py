r"""Noising processes with their scores in closed form, and the drifts that reverse them.

A noising process :math:`dX = f\,ds + \sqrt{2D}\,dW` takes data at s = 0 to something close to
noise at s = T. With its densities :math:`p_s`, run backward in time t = T - s, the drifts

.. math:: v = 2D\,\partial_x\log p_{T-t} - f \quad\text{(SDE, noise of the same strength)},\qquad
    v = D\,\partial_x\log p_{T-t} - f \quad\text{(ODE)}

carry :math:`p_T` back to the data (``reverse``). All is on a line:

- ``PiecewiseHeat``: heat flow of data made of pieces :math:`\sum_j c_j\cos(k_j(x - a))` on
  intervals ``[a, b]``, by error functions, with or without walls (images). The score is right to
  round-off relative to itself, also where the density is far below the smallest number.
- ``CosineHeat``: heat flow between the walls of (0, 1) of positive data of any shape.
- ``OrnsteinUhlenbeck``: the process of that name, on the line.

Nothing here needs a mesh: a drift goes to ``FokkerPlanck``, ``carry`` or any other integrator.
"""

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.special import erfcx, wofz

from fpcontrol.quadrature import composite, graded
from fpcontrol.typing import Array

# Images of the walls of (0, 1) in the order of their distance: x -> sign * x + shift.
IMAGES = ((1, 0.0), (-1, 0.0), (-1, 2.0), (1, 2.0), (1, -2.0), (-1, -2.0), (-1, 4.0))
# Beyond this time (times D) seven images are not enough for 1e-16, and 12 cosines are.
MANY = 0.05


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


@dataclass(frozen=True)
class Piece:
    r"""The density :math:`c + d\cos(k(x - \mathrm{lower}))` between two points."""

    lower: float
    upper: float
    constant: float
    amplitude: float = 0.0
    wavenumber: float = 0.0

    def value(self, x: Array) -> Array:
        """Values, zero outside, ``(N,)``."""
        inside = (x > self.lower) & (x < self.upper)
        wave = self.amplitude * np.cos(self.wavenumber * (x - self.lower))
        return np.where(inside, self.constant + wave, 0.0)


@dataclass(frozen=True)
class PiecewiseHeat:
    """Heat flow of pieces.

    Attributes:
        pieces: The data, of mass 1, on parts of (0, 1).
        D: Diffusivity.
        walls: Whether 0 and 1 reflect; else the flow is on the line.
    """

    pieces: tuple[Piece, ...]
    D: float
    walls: bool = True

    def start(self, x: Array) -> Array:
        """The data, ``(N,)``."""
        return sum((piece.value(x) for piece in self.pieces), np.zeros_like(x))

    def log_density(self, s: float, x: Array) -> Array:
        """Logarithm of the density, ``(N,)``."""
        shift, value, _ = self._scaled(s, x)
        return shift + np.log(value)

    def score(self, s: float, x: Array) -> Array:
        """Derivative of the logarithm of the density, ``(N,)``."""
        _, value, slope = self._scaled(s, x)
        return slope / value

    def pull(self, x: Array) -> Array:
        """Drift of the noising process: none, ``(N,)``."""
        return np.zeros_like(x)

    def _scaled(self, s: float, x: Array) -> tuple[Array, Array, Array]:
        """Exponent, and density and slope without the exponential of it."""
        tau = self.D * s
        if self.walls and tau > MANY:
            return (np.zeros_like(x), *self._series(tau, x))
        images = IMAGES if self.walls else IMAGES[:1]
        at = [sign * x + shift for sign, shift in images]
        exponents = [self._exponent(tau, y) for y in at]
        exponent = np.max(exponents, axis=0)
        value, slope = np.zeros_like(x), np.zeros_like(x)
        for (sign, _), y, own in zip(images, at, exponents, strict=True):
            if (own > exponent - 40.0).any():  # exp(-40) is below round-off
                p, dp = self._free(tau, y, exponent)
                value += p
                slope += sign * dp
        return exponent, value, slope

    def _exponent(self, tau: float, x: Array) -> Array:
        """How the tails fall: minus the squared distance to the nearest piece over 4 tau."""
        gaps = [np.maximum(0.0, np.maximum(p.lower - x, x - p.upper)) for p in self.pieces]
        return -(np.min(gaps, axis=0) ** 2) / (4.0 * tau)

    def _free(self, tau: float, x: Array, exponent: Array) -> tuple[Array, Array]:
        """Density and slope on the line, divided by exp(exponent)."""
        width = 2.0 * math.sqrt(tau)
        value, slope = np.zeros_like(x), np.zeros_like(x)
        for piece in self.pieces:
            a, b, k = piece.lower, piece.upper, piece.wavenumber
            za, zb = (x - a) / width, (x - b) / width
            # Gaussians at the ends, at most 1 after scaling.
            ga, gb = (np.exp(np.minimum(-z * z - exponent, 0.0)) for z in (za, zb))
            inside = np.exp(np.where((za >= 0.0) & (zb < 0.0), -exponent, -np.inf))
            for c, q in ((piece.constant, 0.0), (piece.amplitude, k)):
                if c == 0.0:
                    continue
                kappa = 0.5 * q * width
                phase = np.exp(1j * q * (x - a))
                tails = _tail(zb, kappa, gb) - _tail(za, kappa, ga)
                integral = c * phase * (inside * math.exp(-(kappa**2)) + 0.5 * tails)
                value += integral.real
                # The derivative: jumps at the ends, and the smoothed slope between them.
                ends = ga - math.cos(q * (b - a)) * gb
                slope += c * ends / (width * math.sqrt(math.pi)) + (1j * q * integral).real
        return value, slope

    def _series(self, tau: float, x: Array) -> tuple[Array, Array]:
        value, slope = np.ones_like(x), np.zeros_like(x)
        for m, c in enumerate(self._coefficients, start=1):
            k = m * math.pi
            value += c * math.exp(-tau * k * k) * np.cos(k * x)
            slope -= c * k * math.exp(-tau * k * k) * np.sin(k * x)
        return value, slope

    @functools.cached_property
    def _coefficients(self) -> list[float]:
        ends = {e for piece in self.pieces for e in (piece.lower, piece.upper)}
        x, w = graded(tuple(sorted(ends - {0.0, 1.0})))
        p = self.start(x)
        return [2.0 * float(w @ (p * np.cos(m * math.pi * x))) for m in range(1, 13)]


def _tail(z: Array, kappa: float, factor: Array) -> Array:
    r"""``factor`` :math:`s\,e^{z^2-\kappa^2}\,\mathrm{erfc}(s(z + i\kappa))`, s the sign of z."""
    result = np.zeros(len(z), dtype=complex)
    seen = factor > 1e-20  # the rest is lost beside the largest part, which is of order 1
    z, sign = z[seen], np.where(z[seen] >= 0.0, 1.0, -1.0)
    if kappa == 0.0:
        result[seen] = factor[seen] * sign * erfcx(np.abs(z))
    else:
        wave = np.exp(-2j * kappa * z) * wofz(sign * (1j * z - kappa))
        result[seen] = factor[seen] * sign * wave
    return result


@dataclass(frozen=True)
class OrnsteinUhlenbeck:
    r"""Noising on the line by :math:`dX = -\lambda(X - c)\,ds + \sqrt{2D}\,dW`.

    Heat flow, shrunk: :math:`p_s(x) = e^{\lambda s}\,h(\tfrac{e^{2\lambda s} - 1}{2\lambda},
    c + (x - c)e^{\lambda s})`.

    Attributes:
        heat: Heat flow of the data, without walls.
        rate: :math:`\lambda`.
        centre: c.
    """

    heat: PiecewiseHeat
    rate: float
    centre: float = 0.5

    @property
    def D(self) -> float:
        """Diffusivity."""
        return self.heat.D

    def log_density(self, s: float, x: Array) -> Array:
        """Logarithm of the density, ``(N,)``."""
        return self.rate * s + self.heat.log_density(*self._shrunk(s, x))

    def score(self, s: float, x: Array) -> Array:
        """Derivative of the logarithm of the density, ``(N,)``."""
        return math.exp(self.rate * s) * self.heat.score(*self._shrunk(s, x))

    def pull(self, x: Array) -> Array:
        """Drift of the noising process, ``(N,)``."""
        return -self.rate * (x - self.centre)

    def _shrunk(self, s: float, x: Array) -> tuple[float, Array]:
        time = math.expm1(2.0 * self.rate * s) / (2.0 * self.rate)
        return time, self.centre + (x - self.centre) * math.exp(self.rate * s)


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
