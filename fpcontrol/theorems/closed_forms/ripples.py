r"""Straight lines of densities on the unit interval, and drifts that ripple along with them.

With distribution functions :math:`F_t` of :math:`\rho_t = (1-t/T) + (t/T)\rho_1`, the co-moving
ripple :math:`\frac ak\sin(kF_t)/\rho_t` is :math:`\frac ak\sin ky` in the markers
:math:`y = F_t(x)`, whatever the reference.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from mpi4py import MPI

import numpy as np

from fpcontrol.discretization.elements import Elements
from fpcontrol.reference import MoserFlow
from fpcontrol.theorems.closed_forms.profiles import Profile, cosine, jump, kink
from fpcontrol.theorems.framework.resolution import Grid, markers_between, measured
from fpcontrol.typing import Array


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
        """Inverse of the distribution function of the line, to round-off."""
        low, high, x = np.zeros_like(y), np.ones_like(y), y.copy()
        # Newton's method, and bisection where it would leave the bracket: 53 halvings do always.
        for _ in range(53):
            rho, cdf = self.line(s, x)
            low, high = np.where(cdf < y, x, low), np.where(cdf < y, high, x)
            new = x - (cdf - y) / rho
            new = np.where((new >= low) & (new <= high), new, 0.5 * (low + high))
            change, x = np.abs(new - x).max(initial=0.0), new
            if change < 1e-15:
                break
        return x

    def integral(self, f: Callable[[Array], Array], cells: int = 4000) -> float:
        """Integral over the unit interval of a function that may have the profile's edge."""
        at = markers_between(
            MPI.COMM_SELF, [0.0, 1.0, self.edge or 0.0], cells, lambda x: np.ones(len(x))
        )
        return float(at.volumes @ f(at.points[:, 0]))


GOALS = {
    goal.name: goal
    for goal in (Goal("smooth", cosine()), Goal("kink", kink()), Goal("jump", jump()))
}


def ripple_density(at: float, phase: Array) -> Array:
    r""":math:`1/(\cosh at + \sinh at\cos\theta)`, what the ripple makes of a uniform density."""
    return 1.0 / (math.cosh(at) + math.sinh(at) * np.cos(phase))


def comoving_errors(profile: Goal, at: float, k: float) -> tuple[Array, Array]:
    r"""Relative L2 error and :math:`kW_2` of the co-moving ripple at sigma = 0, by quadrature.

    With markers :math:`y_0` carried to y by the ripple, :math:`J = dy/dy_0` and the quantiles Q of
    the goal,

    .. math:: \|\rho_k - \rho_1\|^2 = \int\rho_1(Q(y))\,(1/J - 1)^2 J\,dy_0,\qquad
        W_2^2 = \int(Q(y) - Q(y_0))^2\,dy_0 .

    Half a wave away from its source, :math:`\tan(ky_0/2) = e^w`, the ripple is the shift
    :math:`w\mapsto w + at`, and :math:`1/J = \cosh(w + at)/\cosh w`: in w all is smooth on a
    scale of 1 however thin the layers in y, of width :math:`e^{-at}`, become.

    Args:
        profile: Where the line leads.
        at: Strength of the ripple times the time.
        k: Wavenumber, a multiple of pi.

    Returns:
        Both figures, and their errors: what half as many nodes change.

    Raises:
        ValueError: If ``k`` is no multiple of pi.
    """
    waves = round(k / np.pi)
    if waves < 1 or abs(k / np.pi - waves) > 1e-9 * waves:
        raise ValueError(f"k = {k!r} must be a multiple of pi: ripples end at the walls.")
    edge = math.inf  # in half waves
    if profile.edge is not None:
        edge = float(profile.cdf(np.array([profile.edge]))[0]) * waves
    whole = profile.integral(lambda x: profile.density(x) ** 2)

    def run(grid: Grid) -> Array:
        totals = np.zeros(2)
        # Integrands fall like exp(-|w|) beyond the shift: 4e-11 at the ends.
        ends = np.linspace(-at - 24.0, 24.0, math.ceil((at + 48.0) * grid.cells / 2) + 1)
        hat, weight = np.polynomial.legendre.leggauss(10)
        for j in range(waves):
            cuts = ends
            inside = edge - j if j % 2 == 0 else j + 1 - edge  # from the source
            if 0.0 < inside < 1.0:
                # Markers that start or end at the profile's edge.
                at_edge = math.log(math.tan(0.5 * np.pi * inside))
                cuts = np.sort(np.append(ends, [at_edge, at_edge - at]))
            h = 0.5 * np.diff(cuts)[:, None]
            w, dw = (cuts[:-1, None] + h * (1.0 + hat)).ravel(), (h * weight).ravel()
            y0, y = (2.0 / np.pi * np.arctan(np.exp(z)) for z in (w, w + at))
            x0, x = (
                profile.quantile(1.0, (j + z if j % 2 == 0 else j + 1 - z) / waves) for z in (y0, y)
            )
            squeeze = np.cosh(w + at) / np.cosh(w)
            square = profile.density(x) * (squeeze - 1.0) ** 2 / squeeze
            mass = dw / np.cosh(w) / (waves * np.pi)
            totals += [square @ mass, (x - x0) ** 2 @ mass]
        return np.sqrt(totals / [whole, 1.0]) * [1.0, k]

    return measured(run, Grid(1, 1))


def source_edges(at: float, k: float, each: int = 1, upper: float = 1.0) -> Array:
    """Markers on [0, ``upper``] between which the flow of ``(a/k) sin(kx)`` is smooth.

    Those within ``exp(-at)`` of a source spread over half of a wave.

    Args:
        at: Strength of the ripple times the time.
        k: Wavenumber.
        each: Stretches for each factor of e**2 in the distance from a source.
        upper: Right end.
    """
    layers = np.exp(-np.linspace(0.0, at, each * math.ceil(0.5 * at) + 1))
    layers = np.append(layers, layers[-1] * np.arange(1, each) / each)
    layers = 2.0 / k * np.arctan(layers)
    sources = 2.0 * np.pi / k * np.arange(round(k * upper / (2.0 * np.pi)) + 1)
    edges = np.concatenate([sources, np.add.outer(sources, [layers, -layers]).ravel()])
    return edges[(edges > 0.0) & (edges < upper)]


def against_limit(profile: Goal, power: float, k: float) -> float:
    r"""How far a figure may be from its limit for many waves, relative; ``inf`` for too few.

    Squares of the figures are sums over half waves, each between the least and the largest of
    :math:`\rho_1^p(Q(y))` on it times what it is for the uniform density: Riemann sums of
    :math:`\int\rho_1^p(Q(y))\,dy = \int\rho_1^{p+1}dx`, off by the total variation of
    :math:`\rho_1^p` over their number at most.

    Args:
        profile: The goal.
        power: p; 1 for the L2 error, -2 for the Wasserstein distance.
        k: Wavenumber.
    """
    rho = profile.density(np.linspace(0.0, 1.0, 10001)) ** power
    whole = profile.integral(lambda x: profile.density(x) ** (power + 1.0))
    off = float(np.abs(np.diff(rho)).sum()) / (k / np.pi * whole)
    return 1.0 - math.sqrt(1.0 - off) if off < 1.0 else math.inf


def still_relaxing(profile: Goal, strength: float) -> float:
    r"""By how much the slope of the error with noise in log k is off -2 because time is short.

    A mode of the ripple comes up like :math:`(1 - e^{-z})/z`, :math:`z = Dk^2T\rho^2`, whose slope
    differs from -2 by :math:`2ze^{-z}/(1 - e^{-z})`; averaged with the weight of the error.

    Args:
        profile: Where the line leads.
        strength: :math:`Dk^2T`.
    """

    def parts(x: Array) -> Array:
        z = strength * np.minimum(1.0, profile.density(x)) ** 2
        return 2.0 * strength / np.expm1(np.minimum(z, 700.0))

    weight = profile.integral(lambda x: np.minimum(1.0, profile.density(x)) ** -2.0)
    return profile.integral(parts) / weight


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

    def at_points(self, t: float, elements: Elements) -> Array:
        """Drift at the quadrature points of the flow's own discretization."""
        return self.flow.drift.at_points(t, elements) + self._ripple(t, elements.points)

    def _ripple(self, t: float, x: Array) -> Array:
        rho, cdf = self.profile.line(t / self.flow.t1, x[:, 0])
        return (self.a / self.k * np.sin(self.k * cdf) / rho)[:, None]
