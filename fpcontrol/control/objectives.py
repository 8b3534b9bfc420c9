"""Objectives that are offered: tracking, relative entropy, kinetic energy, observables."""

from dataclasses import dataclass

from mpi4py import MPI

import numpy as np
from scipy.special import xlog1py

from fpcontrol.control.costs import (
    Cost,
    Levels,
    Objective,
    Setting,
    checked_weight,
    trapezoid,
)
from fpcontrol.control.observed import Observed
from fpcontrol.parallel.errors import reduced
from fpcontrol.typing import Array

__all__ = [
    "Cost",
    "FinalKL",
    "KineticEnergy",
    "L2Cost",
    "L2Tracking",
    "Levels",
    "Objective",
    "Observed",
    "Setting",
    "checked_weight",
    "trapezoid",
]


@dataclass(frozen=True)
class L2Tracking(Objective):
    r"""Distance to the reference in L2, over time and at the end.

    .. math::
        \tfrac12 w_r \frac{\int\|\rho-\rho^{ref}\|^2 dt}{\int\|\rho^{ref}\|^2 dt}
          + \tfrac12 w_T \frac{\|\rho(T)-\rho^{ref}(T)\|^2}{\|\rho^{ref}(T)\|^2}

    Args:
        running_weight: :math:`w_r`.
        terminal_weight: :math:`w_T`.
    """

    running_weight: float = 1.0
    terminal_weight: float = 0.0

    def __post_init__(self) -> None:
        checked_weight("running_weight", self.running_weight)
        checked_weight("terminal_weight", self.terminal_weight)

    def scales(self, norms: Array) -> Array:
        """Factors of half the squared errors of the levels, from the reference's squared norms."""
        over_time = trapezoid(len(norms))
        scales = self.running_weight * over_time / (over_time @ norms)
        scales[-1] += self.terminal_weight / norms[-1]
        return scales

    def on(self, setting: Setting) -> "L2Cost":
        """The function in a setting. Collective."""
        return L2Cost(self, setting)


class L2Cost(Cost):
    """``L2Tracking`` in its setting. Collective.

    Attributes:
        norms: Squared L2 norms of the reference at all levels, ``(steps + 1,)``.
        level_weights: Factors of half the squared errors of the levels, ``(steps + 1,)``.
    """

    def __init__(self, objective: L2Tracking, setting: Setting) -> None:
        self._setting, self._elements = setting, setting.system.elements
        levels = range(len(setting.times))
        parts = np.array([self._product(setting.reference_at(n)) for n in levels])
        self.norms = reduced(self._elements.comm, parts)
        self.level_weights = objective.scales(self.norms)

    def square(self, n: int, rho: Array) -> float:
        """This rank's part of the squared error of a level."""
        return self._product(rho - self._setting.reference_at(n))

    def level(self, n: int, rho: Array) -> float:
        """This rank's part of the scaled half of it."""
        return 0.5 * self.level_weights[n] * self.square(n, rho)

    def level_dual(self, n: int, rho: Array) -> Array:
        """``scale M (rho - reference)``. Collective."""
        return (
            self._elements.apply_mass(rho - self._setting.reference_at(n)) * self.level_weights[n]
        )

    def _product(self, u: Array) -> float:
        return float(self._elements.apply_mass(u) @ u[: self._elements.n_owned])


@dataclass(frozen=True)
class FinalKL(Objective):
    r"""Relative entropy of the density to the reference at the end.

    .. math:: w \int \rho\log\frac{\rho}{\rho^{ref}} - \rho + \rho^{ref}\,dx\Big|_{t=T},

    by the quadrature of the discretization's points. Both must be positive there, which a density
    that vanishes on absorbing walls is not.

    Args:
        weight: ``w``.
    """

    weight: float = 1.0

    def __post_init__(self) -> None:
        checked_weight("weight", self.weight)

    def on(self, setting: Setting) -> Cost:
        """The function in a setting. Collective.

        Raises:
            ValueError: On all ranks, where walls absorb.
        """
        if setting.system.absorbing or setting.system.reacting:
            raise ValueError(
                "FinalKL compares positive densities of equal mass; with absorbing walls the "
                "density vanishes there and loses mass, as with killing. Use the tracking in L2 "
                "(terminal_weight)."
            )
        return _KLCost(self.weight, setting)


class _KLCost(Cost):
    """``FinalKL`` in its setting."""

    def __init__(self, weight: float, setting: Setting) -> None:
        self._weight, self._system = weight, setting.system
        self._last, self._time = len(setting.times) - 1, float(setting.times[-1])
        self._reference = setting.system.at_points(setting.reference_at(self._last))
        self._check("reference", self._reference)

    def level(self, n: int, rho: Array) -> float:
        if n != self._last:
            return 0.0
        values = self._system.at_points(rho)
        self._check("density", values)
        h = values / self._reference
        entropy = self._reference * (xlog1py(h, h - 1.0) - (h - 1.0))
        return self._weight * float(self._system.point_weights @ entropy)

    def level_dual(self, n: int, rho: Array) -> Array | None:
        if n != self._last:
            return None
        slope = np.log(self._system.at_points(rho) / self._reference)
        return self._system.at_points_dual(self._weight * self._system.point_weights * slope)

    def _check(self, what: str, values: Array) -> None:
        lowest = -reduced(self._system.comm, np.array([-values.min(initial=np.inf)]), MPI.MAX)[0]
        if not lowest > 0.0:
            raise ArithmeticError(
                f"FinalKL: the {what} at t = {self._time:g} is not positive where it is integrated "
                f"(minimum {lowest:.3g}). Start from smaller weights, refine the mesh, or add a "
                "floor (fpc.density.with_floor)."
            )


@dataclass(frozen=True)
class KineticEnergy(Objective):
    r"""Energy of the drift along the density.

    .. math:: w\,\frac{T}{s^2} \int_0^T\!\!\int \tfrac12\rho\,|v|^2\,dx\,dt,

    with s half the longest side of the domain's box. In each step the mean of its two levels and
    the drift in its middle: of second order.

    Args:
        weight: ``w``.
    """

    weight: float = 1.0

    def __post_init__(self) -> None:
        checked_weight("weight", self.weight)

    def on(self, setting: Setting) -> Cost:
        """The function in a setting. Collective."""
        return _EnergyCost(self.weight, setting)


class _EnergyCost(Cost):
    """``KineticEnergy`` in its setting."""

    has_drift_part = True

    def __init__(self, weight: float, setting: Setting) -> None:
        self._system, times = setting.system, setting.times
        duration = times[-1] - times[0]
        self._factors = weight * duration / setting.scale**2 * np.diff(times)

    def step(self, n: int, mean: Array, v: Array) -> float:
        speeds = np.einsum("nd,nd->n", v, v)
        rho = self._system.at_points(mean)
        return 0.5 * float(self._factors[n] * (self._system.point_weights @ (rho * speeds)))

    def step_dual(self, n: int, mean: Array, v: Array) -> tuple[Array, Array]:
        weights = self._factors[n] * self._system.point_weights
        speeds = np.einsum("nd,nd->n", v, v)
        rho = self._system.at_points(mean)
        return self._system.at_points_dual(0.5 * weights * speeds), (weights * rho)[:, None] * v
