r"""Scores that are wrong by a known amount."""

from dataclasses import dataclass

import numpy as np

from fpcontrol.noising.noised import Noised
from fpcontrol.typing import Array


@dataclass(frozen=True)
class RippledScore:
    r"""The exact score plus the gradient of ripples that are as small as one likes.

    .. math:: \hat s = \nabla\log p_t + \nabla\,\tfrac{c}{\omega^2}e^{-kt}\sum_i\cos(\omega x_i)

    The error of the score is of order :math:`c/\omega`, that of its divergence of order c: what
    noise averages out and characteristics do not.

    Attributes:
        data: Noised data, the exact score.
        c: Height of the error of the divergence, one over length**2.
        omega: Wave number, one over length.
        decay: The rate k, one over time.
    """

    data: Noised
    c: float
    omega: float
    decay: float = 4.0

    def values(self, t: float, x: Array) -> Array:
        """At points, ``(N, d)``."""
        wave = np.sin(self.omega * x)
        return self.data.values(t, x) - self.c / self.omega * np.exp(-self.decay * t) * wave

    def divergence(self, t: float, x: Array) -> Array:
        """Its divergence, ``(N,)``."""
        wave = np.cos(self.omega * x).sum(axis=1)
        return self.data.divergence(t, x) - self.c * np.exp(-self.decay * t) * wave
