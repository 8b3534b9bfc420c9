r"""A density with a closed form in a drift that moves: an Ornstein-Uhlenbeck process.

.. math:: \partial_t\rho = \nabla\cdot(D\nabla\rho - v\rho)\text{ on }[-6,6]^2,\quad
    v = c(t) - x,\quad c(t) = R\,(\cos\omega t, \sin\omega t),\quad D = 1/2,\quad t_1 = 1

from a Gaussian of mean (1.5, -1) and variance 1/4. It stays Gaussian up to what the walls hold:
:math:`m' = c(t) - m`, with complex numbers for the plane
:math:`m = e^{-t}m_0 + R\,(e^{i\omega t} - e^{-t})/(1 + i\omega)`. Only numpy, so that peers in
environments of their own can import it.
"""

import numpy as np

D, T1, HALF = 0.5, 1.0, 6.0
OMEGA = 2.0 * np.pi
START = 1.5 - 1.0j
Array = np.ndarray


def centre(t: float, radius: float) -> Array:
    """Where the drift points at time t, ``(2,)``."""
    return radius * np.array([np.cos(OMEGA * t), np.sin(OMEGA * t)])


def density(t: float, x: Array, radius: float) -> Array:
    """Density at points ``(N, 2)``."""
    turned = radius * (np.exp(1j * OMEGA * t) - np.exp(-t)) / (1.0 + 1j * OMEGA)
    mean = np.exp(-t) * START + turned
    variance = 0.25 * np.exp(-2.0 * t) + D * (1.0 - np.exp(-2.0 * t))
    square = (x[:, 0] - mean.real) ** 2 + (x[:, 1] - mean.imag) ** 2
    return np.exp(-square / (2.0 * variance)) / (2.0 * np.pi * variance)


def grid_error(u: Array, x: Array, radius: float) -> float:
    """Relative l2 error at time t1 of values at the points of a grid."""
    exact = density(T1, x, radius)
    return float(np.linalg.norm(u - exact) / np.linalg.norm(exact))
