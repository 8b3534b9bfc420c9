r"""Drifts that run a noising process backward with a given score, with any share of its noise."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from fpcontrol.drift.base import Drift, OnCells, SamplePoints
from fpcontrol.drift.retimed import Retimed
from fpcontrol.typing import Array, Field

if TYPE_CHECKING:
    from fpcontrol.discretization.cells import Cells


class ScoreModel(Protocol):
    r"""A model of :math:`\nabla\log p_t`: anything with ``values``.

    ``divergence(t, x)`` to ``(N,)``, if it has one, makes densities without noise exact (else
    differences of ``values``); ``vjp(t, x, s)`` to ``(n_weights,)`` hands on derivatives in its
    weights. No method communicates.
    """

    def values(self, t: float, x: Array) -> Array:
        """At the noising time ``t`` and points ``(N, d)``, shape ``(N, d)``, one over length."""


class Process(Protocol):
    """What a reversal asks of a noising process."""

    @property
    def t1(self) -> float:
        """Last noising time."""

    def drift(self, t: float, x: Array) -> Array:
        """Drift, ``(N, d)``."""

    def drift_divergence(self, t: float, x: Array) -> Array:
        """Its divergence, ``(N,)``."""

    def sigma(self, t: float) -> float:
        """Noise, length per time**0.5."""

    def age(self, t: float) -> float:
        """Dimensionless time in which noise comes on evenly, 0 at t = 0."""

    def pace(self, t: float) -> float:
        """The derivative of ``age``, positive."""

    def time(self, age: float) -> float:
        """The inverse of ``age``."""


class Reversal(Drift):
    r"""The drift of a reversed noising process in the time :math:`s = t_1 - t`.

    .. math:: v(s, x) = \tfrac{1 + \lambda^2}2\,g(t)^2\,\hat s(t, x) - f(t, x),\qquad
        \sigma(s) = \lambda\,g(t)

    With the exact score the density at s is that of the process at :math:`t_1 - s`, for every
    :math:`\lambda`. Made by ``reverse``; it needs no mesh.

    Attributes:
        process: The noising process :math:`dX = f\,dt + g\,dW`.
        score: The model of its score.
        noise: :math:`\lambda`.
    """

    def __init__(self, process: Process, score: ScoreModel | Field, noise: float = 1.0) -> None:
        known = getattr(score, "values", score)
        if isinstance(score, type) or not callable(known):
            raise ValueError(f"score = {score!r} has no values(t, x) and is not callable.")
        if not (np.isfinite(noise) and 0.0 <= noise):
            raise ValueError(f"noise = {noise!r} must be a finite number, 0 (ODE) or positive.")
        self.process, self.score, self.noise = process, score, float(noise)
        self._values: Callable[[float, Array], Array] = known

    def __repr__(self) -> str:
        return f"<Reversal of {self.process}, noise {self.noise:g}>"

    def __call__(self, t: float, x: Array) -> Array:
        """Drift at the reverse time ``t``, ``(N, d)``."""
        return self._drift(t, x, np.asarray(self._values(self.process.t1 - t, x)))

    def sigma(self, t: float) -> float:
        """Noise at the reverse time ``t``; zero for the ODE."""
        return self.noise * self.process.sigma(self.process.t1 - t)

    @property
    def everywhere(self) -> bool:
        """As the score says; if it does not, True."""
        return bool(getattr(self.score, "everywhere", True))

    @property
    def divergence(self) -> Field | None:
        """From that of the score, if it has one."""
        own = getattr(self.score, "divergence", None)
        if own is None:
            return None

        def total(t: float, x: Array) -> Array:
            late = self.process.t1 - t
            return self._factor(late) * own(late, x) - self.process.drift_divergence(late, x)

        return total

    def at_points(self, t: float, where: SamplePoints) -> Array:
        """Values at the points of a discretization, ``(N, d)``; a score on a mesh knows them."""
        own = getattr(self.score, "at_points", None)
        if own is None:
            return self(t, where.points)
        return self._drift(t, where.points, own(self.process.t1 - t, where))

    def on_cells(self, cells: "Cells") -> OnCells:
        """Values at points in known cells; a score on a mesh gathers what it knows. Collective."""
        own, t1 = getattr(self.score, "on_cells", None), self.process.t1
        if own is None:
            return super().on_cells(cells)
        score = own(cells)
        return lambda t, x, c: self._drift(t, x, score(t1 - t, x, c))

    def vjp(self, t: float, x: Array, s: Array) -> Array:
        """Derivative of ``sum(s * v(t, x))`` in the weights of the score."""
        late, model = self.process.t1 - t, self.score
        return model.vjp(late, x, self._factor(late) * s)  # type: ignore[union-attr]

    def graded(self, *, t0: float = 0.0, finest: float = 0.01) -> Retimed:
        """The same on the clock of ``Graded``: equal steps of [0, 1] are fine near the data."""
        return Retimed(self, Graded(self.process, t0, finest), self.sigma)

    def _factor(self, late: float) -> float:
        return 0.5 * (1.0 + self.noise**2) * self.process.sigma(late) ** 2

    def _drift(self, t: float, x: Array, score: Array) -> Array:
        late = self.process.t1 - t
        return self._factor(late) * score - self.process.drift(late, x)


@dataclass(frozen=True)
class Graded:
    r"""Reverse time as a function of u in [0, 1]: steps that shrink towards the data.

    With the age S of the process (:math:`S = t` for an Ornstein-Uhlenbeck process of rate 1)

    .. math:: S(u) - S_0 = \tau\,\bigl((1 + (S_1 - S_0)/\tau)^{1-u} - 1\bigr),\qquad
        S_1 = S(t_1),\quad S_0 = S(t_0)

    so that steps are geometric in the age above :math:`\tau`, and equal below it.

    Attributes:
        process: The noising process.
        t0: Noising time at which the reversal ends.
        finest: :math:`\tau`.
    """

    process: Process
    t0: float = 0.0
    finest: float = 0.01

    def __post_init__(self) -> None:
        if not 0.0 <= self.t0 < self.process.t1:
            raise ValueError(f"t0 = {self.t0!r} must be in [0, {self.process.t1:g}).")
        if not self.finest > 0.0:
            raise ValueError(f"finest = {self.finest!r} must be positive.")

    def noising_time(self, u: float) -> float:
        """The noising time t at u."""
        if u <= 0.0 or u >= 1.0:
            return float(self.process.t1 if u <= 0.0 else self.t0)
        first, ratio = self._ends()
        return self.process.time(first + self.finest * math.expm1((1.0 - u) * math.log(ratio)))

    def time(self, u: float) -> float:
        """The reverse time s at u."""
        return self.process.t1 - self.noising_time(u)

    def rate(self, u: float) -> float:
        """Its derivative, positive."""
        _, ratio = self._ends()
        log = math.log(ratio)
        slope = self.finest * log * math.exp((1.0 - u) * log)  # of the age
        return slope / self.process.pace(self.noising_time(u))

    def _ends(self) -> tuple[float, float]:
        first, last = self.process.age(self.t0), self.process.age(self.process.t1)
        return first, 1.0 + (last - first) / self.finest
