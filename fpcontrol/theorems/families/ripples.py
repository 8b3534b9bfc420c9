r"""Straight lines of densities on the unit interval, and drifts that ripple along with them.

With distribution functions :math:`F_t` of :math:`\rho_t = (1-t/T) + (t/T)\rho_1`, the co-moving
ripple :math:`\frac ak\sin(kF_t)/\rho_t` is :math:`\frac ak\sin ky` in the labels
:math:`y = F_t(x)`, whatever the reference.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from mpi4py import MPI

import numpy as np

from fpcontrol.galerkin import Array, Galerkin
from fpcontrol.reference import MoserFlow
from fpcontrol.theorems.families.profiles import Profile, cosine, jump, kink
from fpcontrol.theorems.grids import labels_between


@dataclass(frozen=True)
class Goal:
    """Where a straight line from the uniform density leads.

    Attributes:
        name: Of the goal.
        profile: Its density on the unit interval.
    """

    name: str
    profile: Profile

    def density(self, x: Array) -> Array:
        """At points ``(N,)``."""
        return self.profile.value(x)

    def cdf(self, x: Array) -> Array:
        """Its distribution function."""
        return self.profile.cdf(x)

    @property
    def slope(self) -> Callable[[Array], Array] | None:
        """Its derivative where it has one everywhere, else ``None``."""
        return None if self.profile.breaks else self.profile.slope

    @property
    def edge(self) -> float | None:
        """Where it is not smooth, if anywhere."""
        return self.profile.breaks[0] if self.profile.breaks else None

    def line(self, s: float, x: Array) -> tuple[Array, Array]:
        r"""Density :math:`(1-s) + s\rho_1` and distribution function at points ``(N,)``."""
        return 1.0 + s * (self.density(x) - 1.0), x + s * (self.cdf(x) - x)

    def quantile(self, s: float, y: Array) -> Array:
        """Inverse of the distribution function of the line, by bisection to round-off."""
        low, high = np.zeros_like(y), np.ones_like(y)
        for _ in range(53):
            middle = 0.5 * (low + high)
            right = self.line(s, middle)[1] < y
            low, high = np.where(right, middle, low), np.where(right, high, middle)
        return 0.5 * (low + high)

    def integral(self, f: Callable[[Array], Array], cells: int = 4000) -> float:
        """Integral over the unit interval of a function that may have the profile's edge."""
        at = labels_between(
            MPI.COMM_SELF, [0.0, 1.0, self.edge or 0.0], cells, lambda x: np.ones(len(x))
        )
        return float(at.volumes @ f(at.points[:, 0]))


GOALS = {
    goal.name: goal
    for goal in (Goal("smooth", cosine()), Goal("kink", kink()), Goal("jump", jump()))
}


def displacement(at: float) -> float:
    r"""Root mean square displacement :math:`c_2(at)` of :math:`\dot\theta = \sin\theta`."""
    theta = 2.0 * np.pi * (np.arange(4096) + 0.5) / 4096  # periodic: converges exponentially
    end = 2.0 * np.arctan2(math.exp(at) * np.sin(theta / 2), np.cos(theta / 2))
    return float(np.sqrt(np.mean((end - theta) ** 2)))


def ripple_density(at: float, phase: Array) -> Array:
    r""":math:`1/(\cosh at + \sinh at\cos\theta)`, what the ripple makes of a uniform density."""
    return 1.0 / (math.cosh(at) + math.sinh(at) * np.cos(phase))


def comoving_error(profile: Goal, at: float, k: float) -> float:
    r"""Relative L2 error at the last time of the co-moving ripple at sigma = 0, by quadrature.

    .. math:: \|\rho_1\,(g(F_1) - 1)\| / \|\rho_1\|
    """

    def square(x: Array) -> Array:
        g = ripple_density(at, k * profile.cdf(x))
        return (profile.density(x) * (g - 1.0)) ** 2

    cells = max(4000, round(40 * k))
    return math.sqrt(
        profile.integral(square, cells) / profile.integral(lambda x: profile.density(x) ** 2)
    )


@dataclass(frozen=True)
class LineDrift:
    r"""The drift of the line from the uniform density in space, and a ripple. For sigma = 0.

    .. math:: v = (1 + \epsilon)\frac{F_0 - F_1}{T\rho_t} + \frac ak
        \begin{cases}\sin(k F_t)/\rho_t & \text{co-moving}\\ \sin kx & \text{standing}\end{cases}

    Attributes:
        profile: Where the line leads; with a slope.
        t1: Last time.
        a: Strength of the ripple, a rate.
        k: Its wavenumber.
        comoving: Whether it goes with the flow.
        excess: The relative error :math:`\epsilon` of the drift of the line.
    """

    profile: Goal
    t1: float
    a: float = 0.0
    k: float = 1.0
    comoving: bool = True
    excess: float = 0.0

    def __call__(self, t: float, x: Array) -> Array:
        """Drift at points ``(N, 1)``."""
        z = x[:, 0]
        rho, cdf = self.profile.line(t / self.t1, z)
        u = (1.0 + self.excess) * (z - self.profile.cdf(z)) / (self.t1 * rho)
        ripple = np.sin(self.k * cdf) / rho if self.comoving else np.sin(self.k * z)
        return (u + self.a / self.k * ripple)[:, None]

    def divergence(self, t: float, x: Array) -> Array:
        """Its derivative, ``(N,)``."""
        assert self.profile.slope is not None
        z, s = x[:, 0], t / self.t1
        rho, cdf = self.profile.line(s, z)
        slope = s * self.profile.slope(z) / rho
        flux = (z - self.profile.cdf(z)) / self.t1
        u = (1.0 + self.excess) * ((1.0 - self.profile.density(z)) / self.t1 - flux * slope) / rho
        if not self.comoving:
            return u + self.a * np.cos(self.k * z)
        return u + self.a * (np.cos(self.k * cdf) - np.sin(self.k * cdf) / self.k * slope / rho)


@dataclass(frozen=True)
class RippledMoser:
    r"""A Moser drift on a mesh, and the co-moving ripple of its line. For :math:`\sigma > 0`.

    Attributes:
        flow: From the uniform density to the profile, on the unit interval.
        profile: The profile.
        a: Strength of the ripple, a rate.
        k: Its wavenumber.
    """

    flow: MoserFlow
    profile: Goal
    a: float
    k: float

    def __call__(self, t: float, x: Array) -> Array:
        """Drift at points ``(N, 1)`` of this rank's cells."""
        return self.flow.drift(t, x) + self._ripple(t, x)

    def at_quadrature(self, t: float, galerkin: Galerkin) -> Array:
        """Drift at the quadrature points of the flow's own discretization."""
        return self.flow.drift.at_quadrature(t, galerkin) + self._ripple(t, galerkin.points)

    def _ripple(self, t: float, x: Array) -> Array:
        rho, cdf = self.profile.line(t / self.flow.t1, x[:, 0])
        return (self.a / self.k * np.sin(self.k * cdf) / rho)[:, None]
