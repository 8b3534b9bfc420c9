"""What is measured of one density at one resolution."""

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

from mpi4py import MPI

import numpy as np
from dolfinx import fem
from scipy.special import xlog1py

from fpcontrol.discretization.elements import Elements
from fpcontrol.distances import wasserstein
from fpcontrol.fokker_planck import FokkerPlanck
from fpcontrol.noising.reversal import Graded, Reversal
from fpcontrol.quadrature import composite
from fpcontrol.score.ode import carried_back
from fpcontrol.score.settings import Setting
from fpcontrol.typing import Array

# Of its maximum: where the data's density is below, it does not count in divergences.
NEGLIGIBLE = 1e-10
GAUSS = 2  # points in each panel of the integral over time of a certificate


@dataclass(frozen=True)
class Measured:
    """One density of a sampler, and its figures.

    Attributes:
        density: On the mesh.
        figures: ``l2``, ``kl``, ``wasserstein``, ``wall_mass``, ``collapsed_mass``; not a number
            where there is none.
        extremes: Smallest and largest value at the points.
    """

    density: fem.Function
    figures: Mapping[str, float]
    extremes: tuple[float, float]


def measured(setting: Setting, drift: Reversal, *, warn: bool = True) -> Measured:
    """Carry the noise back, and measure what arrives. Collective.

    Args:
        setting: Where.
        drift: Which sampler.
        warn: Whether the equation's run may warn.
    """
    g, weights = setting.g, setting.g.quadrature_weights
    walls = bool(getattr(drift.process, "walls", False))
    if drift.noise > 0.0:
        graded = drift.graded(t0=setting.t0, finest=setting.finest)
        equation = FokkerPlanck(
            setting.mesh, graded, graded.sigma, discretization=setting.discretization
        )
        with warnings.catch_warnings():
            if not warn:
                warnings.simplefilter("ignore")
            run = equation.solve(setting.start(), 1.0, setting.steps, save="last")
        density, collapsed, outside = run[-1], 0.0, 0.0
        values = setting.evaluated(run.space, density.x.array)
    else:
        back = carried_back(
            g,
            drift,
            setting.noise(),
            t0=setting.t0,
            tolerance=setting.tolerance,
            walls=walls,
        )
        density = fem.Function(g.space, name="density")
        density.x.array[:] = back.nodes
        values, collapsed, outside = back.values, back.collapsed_mass, max(back.outside, 0.0)
    at_wall = g.sum(float(weights[setting.shore] @ values[setting.shore]))
    figures = {
        "l2": math.sqrt(g.sum(float(weights @ (values - setting.target) ** 2))),
        "kl": divergence(g, setting.target, values),
        "wasserstein": _wasserstein(setting, values),
        "wall_mass": math.nan if walls else max(at_wall, 0.0) + outside,
        "collapsed_mass": collapsed,
    }
    low = g.comm.allreduce(float(values.min(initial=np.inf)), op=MPI.MIN)
    high = g.comm.allreduce(float(values.max(initial=-np.inf)), op=MPI.MAX)
    return Measured(density, figures, (low, high))


def divergence(g: Elements, p: Array, q: Array) -> float:
    """Kullback-Leibler divergence of p from q, both at the points of ``g``, ``(N,)``. Collective.

    Not a number where q is negative and p is not.
    """
    highest = g.comm.allreduce(float(p.max(initial=0.0)), op=MPI.MAX)
    counts = p > NEGLIGIBLE * highest
    if g.sum(float((q[counts] < 0.0).sum())):
        return math.nan
    q = np.maximum(q, 0.0)
    with np.errstate(divide="ignore"):
        h = np.where(q > 0.0, np.divide(p, q, where=q > 0.0, out=np.ones_like(p)), np.inf)
    # p log(p/q) - p + q, never negative, without cancellation where p is close to q.
    with np.errstate(invalid="ignore"):
        dense = np.where(np.isinf(h), np.inf, q * (xlog1py(h, h - 1.0) - (h - 1.0)))
    return g.sum(float(g.quadrature_weights @ np.where(counts, dense, q)))


def integrated_error(setting: Setting, score: object) -> float:
    r""":math:`\int_{t_0}^{t_1}g^2\int p_t|\hat s - \nabla\log p_t|^2\,dx\,dt`. Collective."""
    process = setting.data.process
    clock = Graded(process, setting.t0, setting.finest)
    panels = max(1, setting.steps // (2 * GAUSS))
    nodes, weights = composite(np.linspace(0.0, 1.0, panels + 1), GAUSS)
    total, g = 0.0, setting.g
    for u, w in zip(nodes, weights, strict=True):
        t = clock.noising_time(u)
        gap = setting.score(score, t) - setting.score(setting.data, t)
        mean = float((g.quadrature_weights * setting.density(t)) @ (gap**2).sum(axis=1))
        total += w * clock.rate(u) * process.sigma(t) ** 2 * mean
    return g.sum(total)


def mixing_error(setting: Setting) -> float:
    """Divergence of the noised data from the noise that a sampler starts from. Collective."""
    if setting.noised:
        return 0.0
    q = setting.noise()(setting.g.points)
    return divergence(setting.g, setting.density(setting.data.process.t1), q)


def _wasserstein(setting: Setting, values: Array) -> float:
    """Between densities constant in cells, of these masses; nan without POT. Collective."""
    g = setting.g
    if g.dimension > 1:
        try:
            import ot  # noqa: F401
        except ImportError:
            return math.nan
    shape = (g.n_points, g.n_cells)
    w = g.quadrature_weights.reshape(shape)
    pair = []
    for rho in (values, setting.target):
        masses = np.maximum((w * rho.reshape(shape)).sum(axis=0), 0.0)
        f = fem.Function(setting.constants)
        f.x.array[: g.n_cells] = masses / (w.sum(axis=0) * g.sum(float(masses.sum())))
        f.x.scatter_forward()
        pair.append(f)
    return wasserstein(*pair, atoms=setting.atoms)
