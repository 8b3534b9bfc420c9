r"""What is minimized: functions of the density at the time levels, and of the drift in the steps.

An objective is a value, such as ``L2Tracking(running_weight=1.0)``. With a problem's space,
reference and times it becomes a ``Cost``,

.. math:: J = \sum_n f_n(\rho_n) + \sum_n g_n\bigl(\tfrac12(\rho_n + \rho_{n+1}),\, v_{n+1/2}\bigr),

with the derivatives that a reverse sweep asks for. All objectives are dimensionless.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, is_dataclass
from typing import Protocol

import numpy as np

from fpcontrol.discretization.base import SemiDiscretization
from fpcontrol.noise import Noise
from fpcontrol.typing import Array


class Levels(Protocol):
    """A reference in the problem's space."""

    def coefficients(self, t: float) -> Array:
        """Degrees of freedom at a time, local."""


@dataclass(frozen=True)
class Setting:
    """What objectives are functions on.

    Attributes:
        system: The discretization on the problem's mesh.
        reference: Density to follow.
        times: Time levels, ``(steps + 1,)``.
        scale: Half the longest side of the domain's box, a length.
        noise: Of the controlled equation.
    """

    system: SemiDiscretization
    reference: Levels
    times: Array
    scale: float
    noise: Noise | None = None

    def reference_at(self, n: int) -> Array:
        """The reference at a level, local."""
        return self.reference.coefficients(float(self.times[n]))


class Cost:
    """An objective in its setting. One that has no part of some kind inherits zero.

    Attributes:
        has_drift_part: Whether ``step`` and ``step_dual`` are to be asked.
    """

    has_drift_part = False

    def level(self, n: int, rho: Array) -> float:
        """This rank's part of :math:`f_n` at a local array. Collective."""
        return 0.0

    def level_dual(self, n: int, rho: Array) -> Array | None:
        """Derivative of :math:`f_n`, owned entries; ``None`` for zero. Collective."""
        return None

    def step(self, n: int, mean: Array, v: Array) -> float:
        """This rank's part of :math:`g_n`, at the mean of two levels and a drift ``(N, d)``."""
        return 0.0

    def step_dual(self, n: int, mean: Array, v: Array) -> tuple[Array, Array]:
        """Derivatives of :math:`g_n` in the mean, owned entries, and in v. Collective."""
        raise AssertionError("asked for the drift's part of a cost that has none")


class Objective(ABC):
    """A function to be minimized, as a value."""

    @abstractmethod
    def on(self, setting: Setting) -> Cost:
        """The function in a setting. Collective."""

    def describe(self) -> str:
        """What tells this objective from another one, the same in every program: for checkpoints.

        Of a dataclass its fields; of another class its name only, unless it says more.
        """
        return repr(self) if is_dataclass(self) else type(self).__name__


def checked_weight(name: str, weight: float) -> None:
    """Refuse a weight that is negative or not finite."""
    if not (np.isfinite(weight) and weight >= 0):
        raise ValueError(f"{name} = {weight!r} must be finite and not negative.")


def trapezoid(levels: int) -> Array:
    """Weights of the trapezoidal rule for equal steps, in steps."""
    weights = np.ones(levels)
    weights[[0, -1]] = 0.5
    return weights
