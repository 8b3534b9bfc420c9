"""Noise of the SDE: a number, or a function of time where it follows a schedule."""

import math
from collections.abc import Callable
from numbers import Real
from typing import Any

type Sigma = float | Callable[[float], float]


class Noise:
    r"""``sigma`` of :math:`dX = v\,dt + \sigma(t)\,dW`, checked wherever it is asked.

    Args:
        sigma: Positive number, or ``sigma(t)``; length per time**0.5.
        zero: Whether zero is allowed too.

    Raises:
        ValueError: If a number is not as above.
    """

    def __init__(self, sigma: Sigma, *, zero: bool = False) -> None:
        self._zero = zero
        self._sigma = sigma if callable(sigma) else self._checked(sigma, "")
        self.steady = not callable(sigma)

    def __call__(self, t: float) -> float:
        """``sigma(t)``.

        Raises:
            ValueError: If it is not finite and positive (or zero where allowed).
        """
        if callable(self._sigma):
            return self._checked(self._sigma(t), f" at t = {t:g}")
        return self._sigma

    def diffusivity(self, t: float) -> float:
        r""":math:`D(t) = \sigma(t)^2/2`."""
        return 0.5 * self(t) ** 2

    def samples(self, t1: float) -> list[float]:
        """Values at five times of ``[0, t1]``: enough to tell two schedules apart in a record."""
        return [self(t1 * i / 4) for i in range(5)]

    def _checked(self, sigma: Any, when: str) -> float:
        good = isinstance(sigma, Real) and not isinstance(sigma, bool) and math.isfinite(sigma)
        if not good or sigma < 0 or (sigma == 0 and not self._zero):
            raise ValueError(
                f"sigma = {sigma!r}{when} must be a finite number, "
                + (
                    "zero or positive."
                    if self._zero
                    else "positive: without noise a mesh would add a diffusion of its own."
                )
            )
        return float(sigma)
