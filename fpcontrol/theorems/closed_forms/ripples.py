r"""Drifts that ripple, at rest or along with a straight line of densities.

With distribution functions :math:`F_t` of a line :math:`\rho_t`, the co-moving ripple
:math:`\frac ak\sin(kF_t)/\rho_t` is :math:`\frac ak\sin ky` in the markers :math:`y = F_t(x)`,
whatever the reference.
"""

import math
from dataclasses import dataclass

import numpy as np

from fpcontrol.drift.base import Drift, Steady
from fpcontrol.quadrature import composite
from fpcontrol.theorems.closed_forms.profiles import Profile, StraightLine
from fpcontrol.theorems.framework.figures import Figure
from fpcontrol.typing import Array


@dataclass(frozen=True)
class Ripple(Steady):
    """The steady drift ``(a/k) sin(k x_i)`` in every coordinate."""

    a: float
    k: float

    def field(self, x: Array) -> Array:
        """Drift at points ``(N, d)``."""
        return self.a / self.k * np.sin(self.k * x)

    def divergence(self, t: float, x: Array) -> Array:
        """At points ``(N, d)``, ``(N,)``."""
        return self.a * np.cos(self.k * x).sum(axis=1)

    def kappa(self, sigma: float) -> float:
        """Noise over drift at the drift's own length."""
        return 0.5 * sigma**2 * self.k**2 / self.a


@dataclass(frozen=True)
class Comoving(Drift):
    r"""The ripple :math:`\frac ak\sin(kF_t)/\rho_t`, which goes with a line of densities."""

    line: StraightLine
    a: float
    k: float

    def __call__(self, t: float, x: Array) -> Array:
        """Drift at points ``(N, d)``."""
        rho = self.line.at(t)
        return self.a / self.k * np.sin(self.k * rho.cdf(x)) / rho.value(x)

    def divergence(self, t: float, x: Array) -> Array:
        """Its derivative, ``(N,)``, away from jumps."""
        rho, z = self.line.at(t), x[:, 0]
        phase, bend = self.k * rho.cdf(z), rho.slope(z) / rho.value(z) ** 2
        return self.a * (np.cos(phase) - np.sin(phase) / self.k * bend)


@dataclass(frozen=True)
class Along(Drift):
    """The drift of a line without noise."""

    line: StraightLine

    def __call__(self, t: float, x: Array) -> Array:
        """Drift at points ``(N, d)``."""
        return self.line.speed(t, x)

    def divergence(self, t: float, x: Array) -> Array:
        """Its derivative, ``(N,)``, away from jumps."""
        return self.line.expansion(t, x[:, 0])


def ripple_density(at: float, phase: Array) -> Array:
    r""":math:`1/(\cosh at + \sinh at\cos\theta)`, what the ripple makes of a uniform density."""
    return 1.0 / (math.cosh(at) + math.sinh(at) * np.cos(phase))


def flat_error(at: float) -> float:
    r"""Its relative L2 error, :math:`\sqrt{\cosh at - 1}`, at every wavenumber."""
    return math.sqrt(math.cosh(at) - 1.0)


def comoving_errors(goal: Profile, at: float, k: float) -> Figure:
    r"""Relative L2 error and :math:`kW_2` of the co-moving ripple at sigma = 0, by quadrature.

    With markers :math:`y_0` carried to y by the ripple, :math:`J = dy/dy_0` and the quantiles Q of
    the goal,

    .. math:: \|\rho_k - \rho_1\|^2 = \int\rho_1(Q(y))\,(1/J - 1)^2 J\,dy_0,\qquad
        W_2^2 = \int(Q(y) - Q(y_0))^2\,dy_0 .

    Half a wave away from its source, :math:`\tan(ky_0/2) = e^w`, the ripple is the shift
    :math:`w\mapsto w + at`, and :math:`1/J = \cosh(w + at)/\cosh w`: in w all is smooth on a
    scale of 1 however thin the layers in y, of width :math:`e^{-at}`, become.

    Args:
        goal: Where the line from the uniform density leads; at most one break.
        at: Strength of the ripple times the time.
        k: Wavenumber, a multiple of pi.

    Returns:
        Both; half as many nodes give their errors.

    Raises:
        ValueError: If ``k`` is no multiple of pi.
    """
    waves = round(k / np.pi)
    if waves < 1 or abs(k / np.pi - waves) > 1e-9 * waves:
        raise ValueError(f"k = {k!r} must be a multiple of pi: ripples end at the walls.")
    edge = math.inf  # in half waves
    if goal.breaks:
        edge = float(goal.cdf(np.array(goal.breaks))[0]) * waves

    def run(cells: int) -> Array:
        totals = np.zeros(2)
        # Integrands fall like exp(-|w|) beyond the shift: 4e-11 at the ends.
        ends = np.linspace(-at - 24.0, 24.0, math.ceil((at + 48.0) * cells / 2) + 1)
        for j in range(waves):
            cuts = ends
            inside = edge - j if j % 2 == 0 else j + 1 - edge  # from the source
            if 0.0 < inside < 1.0:
                # Markers that start or end at the profile's edge.
                at_edge = math.log(math.tan(0.5 * np.pi * inside))
                cuts = np.sort(np.append(ends, [at_edge, at_edge - at]))
            w, dw = composite(cuts, 10)
            y0, y = (2.0 / np.pi * np.arctan(np.exp(z)) for z in (w, w + at))
            x0, x = (goal.quantile((j + z if j % 2 == 0 else j + 1 - z) / waves) for z in (y0, y))
            squeeze = np.cosh(w + at) / np.cosh(w)
            square = goal.value(x) * (squeeze - 1.0) ** 2 / squeeze
            mass = dw / np.cosh(w) / (waves * np.pi)
            totals += [square @ mass, (x - x0) ** 2 @ mass]
        return np.sqrt(totals) * [1.0 / goal.norm, k]

    return Figure.refined(run(1), run(2))


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


def against_limit(goal: Profile, power: float, k: float) -> float:
    r"""How far a figure may be from its limit for many waves, relative; ``inf`` for too few.

    Squares of the figures are sums over half waves, each between the least and the largest of
    :math:`\rho_1^p(Q(y))` on it times what it is for the uniform density: Riemann sums of
    :math:`\int\rho_1^p(Q(y))\,dy = \int\rho_1^{p+1}dx`, off by the total variation of
    :math:`\rho_1^p` over their number at most.

    Args:
        goal: The goal.
        power: p; 1 for the L2 error, -2 for the Wasserstein distance.
        k: Wavenumber.
    """
    rho = goal.value(np.linspace(0.0, 1.0, 10001)) ** power
    whole = goal.integral(lambda x: goal.value(x) ** (power + 1.0))
    off = float(np.abs(np.diff(rho)).sum()) / (k / np.pi * whole)
    return 1.0 - math.sqrt(1.0 - off) if off < 1.0 else math.inf


def still_relaxing(goal: Profile, strength: float) -> float:
    r"""By how much the slope of the error with noise in log k is off -2 because time is short.

    A mode of the ripple comes up like :math:`(1 - e^{-z})/z`, :math:`z = Dk^2T\rho^2`, whose slope
    differs from -2 by :math:`2ze^{-z}/(1 - e^{-z})`; averaged with the weight of the error.

    Args:
        goal: Where the line leads.
        strength: :math:`Dk^2T`.
    """

    def parts(x: Array) -> Array:
        z = strength * np.minimum(1.0, goal.value(x)) ** 2
        return 2.0 * strength / np.expm1(np.minimum(z, 700.0))

    weight = goal.integral(lambda x: np.minimum(1.0, goal.value(x)) ** -2.0)
    return goal.integral(parts) / weight
