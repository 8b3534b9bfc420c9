"""Noise of the SDE: a number, or a function of time where it follows a schedule."""

import inspect
import math
from collections.abc import Callable
from numbers import Real
from typing import Any

type Sigma = float | Callable[[float], float]

OFFERED = (
    "Give one number, or a function sigma(t) of the time that returns one: noise that depends on "
    "place or direction is not offered."
)


class Noise:
    r"""``sigma`` of :math:`dX = v\,dt + \sigma(t)\,dW`, checked wherever it is asked.

    Args:
        sigma: Positive number, or ``sigma(t)``; length per time**0.5.
        zero: Whether zero is allowed too.

    Attributes:
        sigma: What was given.
        steady: Whether it is a number.

    Raises:
        ValueError: If it is no number as above and no function of one argument.
    """

    def __init__(self, sigma: Sigma, *, zero: bool = False) -> None:
        self._zero = zero
        _refuse_fields(sigma)
        self.sigma = sigma if callable(sigma) else self._checked(sigma, "")
        self.steady = not callable(sigma)

    def __call__(self, t: float) -> float:
        """``sigma(t)``.

        Raises:
            ValueError: If it is not finite and positive (or zero where allowed), or if the function
                does not take a time.
        """
        if not callable(self.sigma):
            return self.sigma
        try:
            value = self.sigma(float(t))  # numpy's numbers take what arrays take
        except (TypeError, IndexError, AttributeError) as error:  # of x[:, 0] where x is a time
            raise ValueError(
                f"sigma(t) failed at t = {t:g}, a number, with {type(error).__name__} ({error}). "
                f"{OFFERED}"
            ) from error
        return self._checked(value, f" at t = {t:g}")

    def diffusivity(self, t: float) -> float:
        r""":math:`D(t) = \sigma(t)^2/2`."""
        return 0.5 * self(t) ** 2

    def samples(self, t1: float) -> list[float]:
        """Values at five times of ``[0, t1]``: enough to tell two schedules apart in a record."""
        return [self(t1 * i / 4) for i in range(5)]

    def _checked(self, sigma: Any, when: str) -> float:
        if hasattr(sigma, "__len__") and not isinstance(sigma, str):
            raise ValueError(f"sigma{when} is a {_kind(sigma)}. {OFFERED}")
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


def _refuse_fields(sigma: Any) -> None:
    """Refuse what depends on place, as far as it can be told without asking it."""
    if hasattr(sigma, "ufl_shape") or hasattr(sigma, "function_space"):
        raise ValueError(f"sigma is a {type(sigma).__name__} on a mesh. {OFFERED}")
    if isinstance(sigma, type):
        raise ValueError(f"sigma is the class {sigma.__name__}. {OFFERED}")
    if not callable(sigma):
        return
    try:
        signature = inspect.signature(sigma)
    except (TypeError, ValueError):  # of functions that do not tell
        return
    try:
        signature.bind(0.0)
    except TypeError:
        name = getattr(sigma, "__name__", type(sigma).__name__)
        raise ValueError(f"sigma is {name}{signature}. {OFFERED}") from None


def _kind(value: Any) -> str:
    shape = getattr(value, "shape", (len(value),))
    return f"{type(value).__name__} of shape {tuple(shape)}"
