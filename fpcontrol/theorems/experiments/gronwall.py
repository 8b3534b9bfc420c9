r"""Cases of ``estimates`` in which the factors of Gronwall's lemma decide.

Drifts drawn at random come nearest to their bounds in the first steps, before anything has grown:
they would not tell :math:`e^{\int|(\nabla\cdot v_1)^-|_\infty}` from 1. Here (own)

- ``compressed``: (E2) is an equality, start and all. Where the drift is :math:`-c(x - \frac12)`
  the second density is :math:`e^{ct}`, and with :math:`\rho_2\delta = 2D\,\partial_xw` Young's
  inequality loses nothing: the equation of w becomes a heat flow backward in time, compressed,

  .. math:: w = \epsilon\,\ell^2e^{-ct}\,\partial_x N(\tfrac12, s^2),\qquad
      s^2 + \tfrac Dc = \bigl(\ell^2 + \tfrac Dc\bigr)e^{-2ct} .

  (E3) and (E4) are equalities too, to first order in :math:`\epsilon`.
- ``constant_error``: the bounds themselves are known, :math:`e^{g^2t/D} - 1` in (E3') and
  :math:`g^2t/4D` in (E4), where :math:`|\delta| = g` everywhere. (E3') is twice as large as what is
  measured and more, so that no distance can show its constant.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mpi4py import MPI

import numpy as np
from dolfinx.mesh import Mesh

from fpcontrol.certificates import Certificate, certificate
from fpcontrol.drift import Drift, Steady, zero
from fpcontrol.mesh import interval
from fpcontrol.theorems.framework import Experiment, Grid, Line, Study, measure
from fpcontrol.theorems.framework.resolution import solve
from fpcontrol.typing import Array

REACH = 0.3


@dataclass(frozen=True)
class Compression(Drift):
    r""":math:`-c(x-\frac12)` within ``REACH`` of the middle, and from there to zero at the walls.

    There it expands, at a rate that is not c: the one cannot be mistaken for the other.
    """

    rate: float

    def __call__(self, t: float, x: Array) -> Array:
        """Drift at points ``(N, d)``."""
        y = x - 0.5
        outside = REACH / (0.5 - REACH) * (0.5 - np.abs(y))
        return -self.rate * np.sign(y) * np.minimum(np.abs(y), outside)

    def divergence(self, t: float, x: Array) -> Array:
        """Its derivative, ``(N,)``."""
        inside = np.abs(x[:, 0] - 0.5) < REACH
        return self.rate * np.where(inside, -1.0, REACH / (0.5 - REACH))


@dataclass(frozen=True)
class Worst(Drift):
    """``Compression`` with the error that it makes the most of.

    Attributes:
        base: The drift without the error.
        D: Diffusivity.
        size: The epsilon.
        width: Standard deviation of the Gaussian at first.
    """

    base: Compression
    D: float
    size: float
    width: float

    def variance(self, t: float) -> float:
        """Square of the Gaussian's width."""
        a = self.D / self.base.rate
        return (self.width**2 + a) * math.exp(-2.0 * self.base.rate * t) - a

    def gap(self, t: float, x: Array) -> tuple[Array, Array, Array]:
        """The difference w of the densities, its slope and its curvature at ``(N,)``."""
        s2, y = self.variance(t), x - 0.5
        scale = self.size * self.width**2 * math.exp(-self.base.rate * t)
        bell = scale * np.exp(-0.5 * y**2 / s2) / math.sqrt(2.0 * math.pi * s2)
        q = y**2 / s2
        return -y / s2 * bell, (q - 1.0) / s2 * bell, y * (3.0 - q) / s2**2 * bell

    def norm(self, t: float) -> float:
        """Of w in L2."""
        scale = self.size * self.width**2 * math.exp(-self.base.rate * t)
        return scale * math.sqrt(0.25 / math.sqrt(math.pi) * self.variance(t) ** -1.5)

    def __call__(self, t: float, x: Array) -> Array:
        """Drift at points ``(N, d)``."""
        strength = 2.0 * self.D * math.exp(-self.base.rate * t)
        return self.base(t, x) + strength * self.gap(t, x)[1]

    def divergence(self, t: float, x: Array) -> Array:
        """Its derivative, ``(N,)``."""
        strength = 2.0 * self.D * math.exp(-self.base.rate * t)
        return self.base.divergence(t, x) + strength * self.gap(t, x[:, 0])[2]


def compared(
    mesh: Mesh,
    drifts: tuple[Drift, Drift],
    sigma: float,
    start: Callable[[Array], Array],
    t1: float,
    grid: Grid,
    **options: Any,
) -> Certificate:
    """The certificate of two drifts from one start, with (E2) if the first's divergence is known.

    Options are those of ``solve``. Collective.
    """
    one, other = (solve(mesh, v, sigma, start, t1, grid, **options) for v in drifts)
    return certificate(one, other, *drifts, sigma, divergence=drifts[0].divergence)


def compressed(
    comm: MPI.Comm,
    *,
    sigma: float = 0.018,
    t1: float = 1.0,
    rate: float = 1.0,
    width: float = 0.04,
    size: float = 1e-4,
    grid: Grid | None = None,
) -> Study:
    r"""Two densities for which (E2), (E3) and (E4) are equalities at all times.

    Args:
        rate: Of the compression, c.
        width: :math:`\ell`, at most 1/20: six of them fit where the compression is uniform.
        size: The :math:`\epsilon`; what is of second order in it must be below the tolerance.
        grid: Resolution, a multiple of ten cells; degree 3 unless given.

    Raises:
        ValueError: If the Gaussian is too wide, or shrinks to less than half of what compression
            alone makes of it before t1.
    """
    study = Study(
        f"compression at rate {rate:g}, sigma = {sigma:g}, T = {t1:g}",
        r"What compression makes grow: the bound (E2) with its factor "
        r"$e^{\int|(\nabla\cdot v_1)^-|}$ is reached at all times, by start and error together.",
    )
    D = 0.5 * sigma**2
    v, other = Worst(Compression(rate), D, size, width), Compression(rate)
    grid = grid or _resolving(v, t1)
    if grid.cells % 10:
        raise ValueError(f"grid has {grid.cells} cells; a multiple of 10 is needed.")
    names = ("E2", "E3", "E4")
    found: list[Certificate] = []

    def run(at: Grid) -> Array:
        mesh = interval(comm, at.cells)
        one = solve(mesh, v, sigma, lambda x: 1.0 + v.gap(0.0, x[0])[0], t1, at)
        two = solve(mesh, other, sigma, lambda x: np.ones_like(x[0]), t1, at)
        c = certificate(one, two, v, other, sigma, divergence=v.divergence)
        found.append(c)
        ratios = c.ratios()
        return np.array([c.l2[-1] / v.norm(t1), *(ratios[f"{name} at T"] for name in names)])

    distance, *ratios = measure(run, grid)
    study.equals("L2 distance at T over the closed form", distance, 1.0, 1e-3)
    for name, ratio in zip(names, ratios, strict=True):
        study.equals(f"({name}) measured/bound at T", ratio, 1.0, 1e-3)
    c = found[-1]
    assert c.e2 is not None
    study.picture(
        "A bound that is reached",
        "t",
        "L2 distance",
        Line(c.times, c.l2, "L2", "o"),
        Line(c.times, np.sqrt(c.e2), "L2, bound (E2)", "-"),
        Line(c.times, np.sqrt(c.e2 * np.exp(-rate * c.times)), "the same without its factor", "--"),
        log="y",
    )
    return study


def _resolving(v: Worst, t1: float) -> Grid:
    """A grid for the Gaussian at its narrowest, if it is one that the closed form holds for."""
    rate, width, D = v.base.rate, v.width, v.D
    shrunk = v.variance(t1) / (width * math.exp(-rate * t1)) ** 2
    if not (0.0 < width <= REACH / 6.0 and shrunk > 0.25):
        raise ValueError(
            f"width = {width:g} must be at most 1/20, and sigma**2/rate "
            f"(exp(2 rate t1) - 1) = {2.0 * D / rate * math.expm1(2.0 * rate * t1):.3g} less "
            f"than 1.5 width**2 = {1.5 * width**2:.3g}."
        )
    narrowest = math.sqrt(v.variance(t1))
    # The fastest part of what grows: D/s^2 and c at the end.
    fastest = D / narrowest**2 + rate
    return Grid(10 * math.ceil(0.3 / narrowest), math.ceil(25 * fastest * t1), 3)


def constant_error(
    comm: MPI.Comm,
    *,
    sigma: float = 0.7,
    t1: float = 1.0,
    gap: float = 0.8,
    grid: Grid | None = None,
) -> Study:
    r"""A constant drift against none: the bounds (E3') and (E4) in closed form.

    Args:
        gap: The drift g.
    """
    study = Study(
        f"constant error {gap:g}, sigma = {sigma:g}, T = {t1:g}",
        r"A drift that is off by g everywhere: the bounds are $e^{g^2T/D} - 1$ and $g^2T/(4D)$.",
    )
    D, v = 0.5 * sigma**2, Steady(lambda x: np.full_like(x, gap))

    def run(at: Grid) -> Array:
        mesh = interval(comm, at.cells)
        c = compared(mesh, (v, zero()), sigma, lambda x: np.ones_like(x[0]), t1, at)
        ratios = c.ratios()
        return np.array([c.e3_bounded[-1], c.e4[-1], ratios["E3' at T"], ratios["E4 at T"]])

    e3, e4, *ratios = measure(run, grid or Grid(32, 60))
    study.equals("bound (E3') at T", e3, math.expm1(gap**2 * t1 / D), 1e-3)
    study.equals("bound (E4) at T", e4, 0.25 * gap**2 * t1 / D, 1e-3)
    for name, ratio in zip(("E3'", "E4"), ratios, strict=True):
        study.below(f"({name}) measured/bound at T", ratio, 1.0)
    return study


EXPERIMENTS = [
    Experiment("estimates.compressed", compressed),
    Experiment("estimates.constant", constant_error),
    Experiment("estimates.compressed.harder", compressed, sigma=0.006, rate=2.0, quick=None),
]
