r"""Heat flow of data made of pieces on a line, in closed form.

- ``PiecewiseHeat``: heat flow of pieces :math:`\sum_j c_j\cos(k_j(x - a))` on intervals ``[a, b]``,
  by error functions, with or without walls (images). The score is right to round-off relative to
  itself, also where the density is far below the smallest number.
- ``OrnsteinUhlenbeckOfPieces``: the Ornstein-Uhlenbeck process of the same data, on the line.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np
from scipy.special import erfcx, wofz

from fpcontrol.quadrature import graded
from fpcontrol.typing import Array

# Images of the walls of (0, 1) in the order of their distance: x -> sign * x + shift.
IMAGES = ((1, 0.0), (-1, 0.0), (-1, 2.0), (1, 2.0), (1, -2.0), (-1, -2.0), (-1, 4.0))
# Beyond this time (times D) seven images are not enough for 1e-16, and 12 cosines are.
MANY = 0.05


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
class OrnsteinUhlenbeckOfPieces:
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
