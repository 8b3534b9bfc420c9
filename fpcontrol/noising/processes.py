r"""Noising processes :math:`dX = f\,dt + g\,dW` as values, with the drifts that reverse them.

``process.of(data)`` is the noised data, with ``density(t)`` and ``score(t, x)``: in closed form for
a ``GaussianMixture``, by the equation for a density on a mesh. ``process.reverse(score, noise)`` is
the drift and the noise that lead back: of the SDE (1), of the ODE (0), of all between.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy
from dolfinx import fem

from fpcontrol.noising.mixture import GaussianMixture
from fpcontrol.noising.noised import Noised
from fpcontrol.noising.on_mesh import NoisedOnMesh
from fpcontrol.noising.reversal import Reversal, ScoreModel
from fpcontrol.quadrature import composite
from fpcontrol.typing import Array, Field

# Panels of Gauss's rule for the integral of a schedule: smooth ones to round-off.
PANELS, POINTS = 16, 8

type Schedule = float | tuple[float, float] | Callable[[float], float]


class Affine(ABC):
    r"""A process :math:`dX = a(t)X\,dt + g(t)\,dW` without walls: its transitions are Gaussian.

    .. math:: X_t = \alpha(t)X_0 + \sqrt{v(t)}\,Z

    Attributes:
        t1: Last noising time.
    """

    t1: float

    @abstractmethod
    def scale(self, t: float) -> float:
        r""":math:`\alpha(t)`."""

    @abstractmethod
    def variance(self, t: float) -> float:
        """:math:`v(t)`, length**2."""

    @abstractmethod
    def rate(self, t: float) -> float:
        """:math:`a(t)`, one over time."""

    @abstractmethod
    def sigma(self, t: float) -> float:
        """:math:`g(t)`, length per time**0.5."""

    @property
    def spread(self) -> float:
        """Variance of data for which noise is even in the age; 1, or that of the noise."""
        return 1.0

    @property
    def walls(self) -> bool:
        """Whether walls are the process's own; here those of a mesh are where space is cut off."""
        return False

    def drift(self, t: float, x: Array) -> Array:
        """Drift at points, ``(N, d)``."""
        return self.rate(t) * x

    def drift_divergence(self, t: float, x: Array) -> Array:
        """Its divergence, ``(N,)``."""
        return np.full(len(x), self.rate(t) * x.shape[1])

    def age(self, t: float) -> float:
        r""":math:`S = \tfrac12\log(1 + v/(c\,\alpha^2))`, c the ``spread``."""
        return 0.5 * math.log1p(self.variance(t) / (self.spread * self.scale(t) ** 2))

    def pace(self, t: float) -> float:
        """Derivative of ``age``."""
        total = self.spread * self.scale(t) ** 2 + self.variance(t)
        return self.sigma(t) ** 2 / (2.0 * total)

    def time(self, age: float) -> float:
        """The inverse of ``age``."""
        if age <= 0.0 or age >= self.age(self.t1):
            return 0.0 if age <= 0.0 else self.t1
        return float(
            scipy.optimize.brentq(
                lambda t: self.age(t) - age, 0.0, self.t1, xtol=1e-300, rtol=1e-14
            )
        )

    def prior(self, dimension: int) -> GaussianMixture:
        """What a sampler starts from: noise alone, :math:`N(0, v(t_1))`."""
        return GaussianMixture(np.zeros((1, dimension)), self.variance(self.t1))

    def of(
        self, data: GaussianMixture | fem.Function, *, steps: int = 200, finest: float = 0.01
    ) -> Noised | NoisedOnMesh:
        """Noised data, exact for a mixture; else by the equation, on the data's mesh. Collective.

        Args:
            data: Density of the data. That on a mesh is noised between the walls of the mesh, which
                must be far enough away.
            steps: Of the equation, see ``NoisedOnMesh``.
            finest: See ``Graded``.

        Raises:
            ValueError: On all ranks, for what is no such density.
            ArithmeticError: On all ranks, if the equation's run fails.
        """
        if isinstance(data, GaussianMixture):
            return Noised(self, data)
        return NoisedOnMesh(self, data, steps=steps, finest=finest)

    def reverse(self, score: ScoreModel | Field, noise: float = 1.0) -> Reversal:
        r"""Drift and noise that lead back, in the time :math:`s = t_1 - t`; see ``Reversal``.

        Args:
            score: Anything with ``values(t, x)``, or a callable of the same; noised data are one.
            noise: :math:`\lambda`: 1 for the SDE, 0 for the ODE.

        Raises:
            ValueError: For another score or noise.
        """
        return Reversal(self, score, noise)

    def _check_t1(self, below: float = math.inf) -> None:
        if not (np.isfinite(self.t1) and 0.0 < self.t1 < below):
            raise ValueError(f"t1 = {self.t1!r} must be positive and below {below:g}.")


@dataclass(frozen=True)
class OrnsteinUhlenbeck(Affine):
    r""":math:`dX = -rX\,dt + g\,dW`.

    .. math:: \alpha = e^{-rt},\qquad v = \tfrac{g^2}{2r}(1 - \alpha^2)

    Attributes:
        t1: Last noising time.
        r: Rate of the pull, one over time.
        g: Noise, length per time**0.5.
    """

    t1: float = 10.0
    r: float = 1.0
    g: float = 1.0

    def __post_init__(self) -> None:
        self._check_t1()
        if not (self.r > 0.0 and self.g > 0.0):
            raise ValueError(f"r = {self.r!r} and g = {self.g!r} must be positive.")

    @property
    def spread(self) -> float:
        """The variance that it ends with: the age is r t."""
        return self.g**2 / (2.0 * self.r)

    def scale(self, t: float) -> float:
        r""":math:`e^{-rt}`."""
        return math.exp(-self.r * t)

    def variance(self, t: float) -> float:
        """Of the noise, length**2."""
        return -self.spread * math.expm1(-2.0 * self.r * t)

    def rate(self, t: float) -> float:
        """-r."""
        return -self.r

    def sigma(self, t: float) -> float:
        """The number g."""
        return self.g

    def age(self, t: float) -> float:
        """The product r t."""
        return self.r * t

    def time(self, age: float) -> float:
        """Age over r."""
        return age / self.r


@dataclass(frozen=True)
class VariancePreserving(Affine):
    r""":math:`dX = -\tfrac12\beta(t)X\,dt + \sqrt{\beta(t)}\,dW`: :math:`v = 1 - \alpha^2`.

    Attributes:
        beta: One over time: a number, the two ends of a linear schedule on [0, t1], or a smooth
            positive function of time.
        t1: Last noising time.
    """

    beta: Schedule = (0.1, 20.0)
    t1: float = 1.0

    def __post_init__(self) -> None:
        self._check_t1()
        _check_schedule("beta", self.beta, self.t1)

    def scale(self, t: float) -> float:
        r""":math:`e^{-\frac12\int_0^t\beta}`."""
        return math.exp(-0.5 * _integral(self.beta, t, self.t1))

    def variance(self, t: float) -> float:
        """Of the noise, length**2."""
        return -math.expm1(-_integral(self.beta, t, self.t1))

    def rate(self, t: float) -> float:
        r""":math:`-\beta/2`."""
        return -0.5 * _value(self.beta, t, self.t1)

    def sigma(self, t: float) -> float:
        r""":math:`\sqrt\beta`."""
        return math.sqrt(_value(self.beta, t, self.t1))


@dataclass(frozen=True)
class VarianceExploding(Affine):
    r""":math:`dX = g(t)\,dW`: :math:`\alpha = 1`, :math:`v = \int_0^t g^2`.

    Attributes:
        squares: :math:`g^2`, length**2 per time: a number, the two ends of a linear schedule on
            [0, t1], or a smooth positive function of time.
        t1: Last noising time.
    """

    squares: Schedule = 2.0
    t1: float = 10.0

    def __post_init__(self) -> None:
        self._check_t1()
        _check_schedule("squares", self.squares, self.t1)

    def scale(self, t: float) -> float:
        """One."""
        return 1.0

    def variance(self, t: float) -> float:
        """Of the noise, length**2."""
        return _integral(self.squares, t, self.t1)

    def rate(self, t: float) -> float:
        """Zero."""
        return 0.0

    def sigma(self, t: float) -> float:
        """The noise g."""
        return math.sqrt(_value(self.squares, t, self.t1))


@dataclass(frozen=True)
class PinnedBrownian(Affine):
    r"""Brownian motion pinned at the data at t = 0 and at 0 at t = 1.

    .. math:: X_t = (1 - t)X_0 + \sqrt{t(1 - t)}\,Z

    Run backward from 0 it is the Foellmer drift: :math:`v = x/(1-t) + \nabla\log p_t` with noise 1.
    It is the reversed Ornstein-Uhlenbeck process in other variables,
    :math:`\sqrt{1-t}\,Y_S` with :math:`1 - t = e^{-2S}`.

    Attributes:
        t1: Last noising time, below 1: at 1 all is at 0.
    """

    t1: float = 0.999

    def __post_init__(self) -> None:
        self._check_t1(below=1.0)

    def scale(self, t: float) -> float:
        """1 - t."""
        return 1.0 - t

    def variance(self, t: float) -> float:
        """Of the noise, t (1 - t)."""
        return t * (1.0 - t)

    def rate(self, t: float) -> float:
        """-1 / (1 - t)."""
        return -1.0 / (1.0 - t)

    def sigma(self, t: float) -> float:
        """One."""
        return 1.0

    def time(self, age: float) -> float:
        r""":math:`1 - e^{-2S}`."""
        return -math.expm1(-2.0 * age)


def _value(schedule: Schedule, t: float, t1: float) -> float:
    if callable(schedule):
        return float(schedule(t))
    if isinstance(schedule, tuple):
        return schedule[0] + (schedule[1] - schedule[0]) * t / t1
    return schedule


def _integral(schedule: Schedule, t: float, t1: float) -> float:
    """From 0 to t; of a function by Gauss's rule."""
    if callable(schedule):
        s, w = composite(np.linspace(0.0, t, PANELS + 1), POINTS)
        return float(w @ [schedule(float(one)) for one in s])
    if isinstance(schedule, tuple):
        return schedule[0] * t + 0.5 * (schedule[1] - schedule[0]) * t**2 / t1
    return schedule * t


def _check_schedule(name: str, schedule: Schedule, t1: float) -> None:
    pair = isinstance(schedule, tuple) and len(schedule) == 2
    if not (callable(schedule) or pair or isinstance(schedule, int | float)):
        raise ValueError(f"{name} = {schedule!r}: a number, a pair or a function of t is needed.")
    values = [_value(schedule, t, t1) for t in np.linspace(0.0, t1, 17)]
    if not (np.isfinite(values).all() and min(values) > 0.0):
        raise ValueError(f"{name} must be finite and positive; it is as low as {min(values):g}.")
