r"""The oscillating family in closed form: similarity, and a cosine series to machine precision.

.. math:: v = \frac ak\sin(kx),\qquad \rho_0 = 1

With :math:`y = kx`, :math:`\tau = at` and :math:`\kappa = Dk^2/a`, for every wavenumber,

.. math:: \partial_\tau\rho = \kappa\,\partial_{yy}\rho - \partial_y(\sin y\,\rho),\qquad
    \rho = 1 + \sum_{n\ge1} c_n(\tau)\cos ny,

.. math:: \dot c_n = -\kappa n^2 c_n - \frac n2(c_{n-1} - c_{n+1}),\qquad c_0 = 2 .

Intervals that hold a whole number of half periods have the same relative L2 error and, since no
mass crosses the zeros of the drift, Wasserstein distances that are :math:`1/k` times those in y.
"""

import functools
import math

import numpy as np
from scipy import integrate, linalg, optimize

from fpcontrol.typing import Array

MODES = 1 << 10
# Peaks of width exp(-aT): what so many modes resolve at the noise that halves the error.
STRONGEST = 6.0


@functools.lru_cache(maxsize=512)
def solution(kappa: float, strength: float, levels: int = 32) -> Array:
    r"""Coefficients of the scaled equation up to ``strength`` :math:`= aT`, by matrix exponentials.

    The number of modes is doubled until the last ones are at round-off.

    Args:
        kappa: :math:`Dk^2/a`, positive.
        strength: :math:`aT`.
        levels: Number of equal steps at whose ends the solution is returned.

    Returns:
        Those of ``cos(ny)``, n = 1, 2, ..., at all times, ``(levels + 1, N)``.

    Raises:
        ArithmeticError: If ``MODES`` modes are not enough: ``kappa`` is too small.
    """
    modes = 16
    while modes <= MODES:
        n = np.arange(1.0, modes + 1.0)
        a = np.diag(-kappa * n**2)
        a += np.diag(-0.5 * n[1:], -1) + np.diag(0.5 * n[:-1], 1)
        # The constant force on the first mode makes one more row and column.
        a = np.pad(a, ((0, 1), (0, 1)))
        a[0, -1] = -1.0
        step, u = linalg.expm(strength / levels * a), np.append(np.zeros(modes), 1.0)
        c = np.zeros((levels + 1, modes))
        for i in range(levels):
            u = step @ u
            c[i + 1] = u[:-1]
        if np.abs(c[:, -2:]).max() <= 1e-14 * np.abs(c).max():
            return c
        modes *= 2
    raise ArithmeticError(f"kappa = {kappa:g} needs more than {MODES} modes; use a larger one.")


def sup_l2(kappa: float, strength: float) -> float:
    r"""Largest relative L2 error over time; in closed form :math:`\sqrt{\cosh aT - 1}` at 0."""
    if kappa == 0.0:
        return math.sqrt(math.cosh(strength) - 1.0)
    return math.sqrt(0.5 * (solution(kappa, strength) ** 2).sum(axis=1).max())


def sup_wasserstein(kappa: float, strength: float) -> float:
    r"""Largest :math:`k W_2` over time.

    :math:`W_2^2` is the mean of :math:`(F(y) - y)^2\rho(y)`, where F is the primitive of
    :math:`\rho`: a cosine polynomial, which equidistant points integrate exactly. Without noise
    :math:`\tan(Y/2) = e^{at}\tan(y/2)`, and it is the mean of :math:`(Y - y)^2` over markers.
    """
    if kappa > 0.0:
        c = solution(kappa, strength)
        n = np.arange(1, c.shape[1] + 1)
        y = np.pi * (np.arange(4 * len(n)) + 0.5) / (4 * len(n))
        shift, rho = (c / n) @ np.sin(np.outer(n, y)), 1.0 + c @ np.cos(np.outer(n, y))
        return math.sqrt((shift**2 * rho).mean(axis=1).max())

    def square(y: float) -> float:
        # Y - y without the difference: tangent of a difference, with s the half angle.
        s, grow = 0.5 * y, math.expm1(strength)
        return (2.0 * math.atan2(grow * math.sin(2 * s) / 2, 1 + grow * math.sin(s) ** 2)) ** 2

    # Markers near 0 spread over the whole period: a layer of width exp(-aT).
    layer = min(1.0, 10.0 * math.exp(-strength))
    parts = [integrate.quad(square, *ends)[0] for ends in ((0.0, layer), (layer, math.pi))]
    return math.sqrt(sum(parts) / math.pi)


@functools.lru_cache
def half_kappa(strength: float) -> float:
    r"""The ``kappa`` at which noise halves the L2 error that there is without noise.

    1.594/aT for a short time, .516 at aT = 2, and about :math:`e^{-2aT}` for long ones.

    Args:
        strength: :math:`aT`, up to ``STRONGEST``.

    Raises:
        ValueError: If ``strength`` is larger, or not positive.
    """
    if not 0.0 < strength <= STRONGEST:
        raise ValueError(
            f"strength = {strength:g}, aT, must be positive and at most {STRONGEST:g}: the noise "
            "that halves the error then leaves peaks too thin for the series."
        )
    half = 0.5 * sup_l2(0.0, strength)

    def excess(z: float) -> float:
        return sup_l2(math.exp(z), strength) - half

    # A short time: 1 - exp(-z) is half of z at z = kappa aT = 1.594. Less later, down to where
    # far smaller kappa would need more modes: the bracket goes there in steps.
    high = math.log(2.0 / strength)
    while excess(high) > 0.0:
        high += 0.5
    low = high - 0.5
    while excess(low) < 0.0:
        high, low = low, low - 0.5
    return math.exp(optimize.brentq(excess, low, high, xtol=1e-10))
