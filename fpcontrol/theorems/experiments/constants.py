r"""The best constant of a drift that does not depend on time, below that of the estimates.

In :math:`\|w\|_{C(L^2)} \le C\,\|\delta\|_{L^2(L^2)}` the constant :math:`C = 1/\sigma` of (E2) and
(E3) is attained by drifts that grow in time (``estimates``). A steady one reaches less: with
:math:`\rho_2 = 1` and small :math:`\delta = \varepsilon\sin kx` the ratio is
:math:`\sqrt{2(1 - e^{-z})^2/z}/\sigma`, :math:`z = Dk^2T`, largest at one wavenumber.
All is derived here.
"""

import math
from collections.abc import Sequence

from mpi4py import MPI

import numpy as np
from scipy import optimize

from fpcontrol import SDIRK4
from fpcontrol.discretization.elements import Elements
from fpcontrol.drift import Steady
from fpcontrol.mesh import interval
from fpcontrol.theorems.framework import Figure, Grid, Study, measure_each
from fpcontrol.theorems.framework.resolution import solve

# Small against 1, as rho_1 - 1 is of this order, and large against the solver's 1e-13.
EPSILON = 1e-4


def worst_decay() -> float:
    """Where ``ratio`` is largest: the root of :math:`e^z = 1 + 2z`."""
    return float(optimize.brentq(lambda z: math.exp(z) - 1.0 - 2.0 * z, 0.5, 2.0, xtol=1e-14))


def ratio(z: float) -> float:
    r""":math:`\sigma\|w\|/\|\delta\| = \sqrt{2(1 - e^{-z})^2/z}` at :math:`z = Dk^2T`."""
    return math.sqrt(2.0 / z) * -math.expm1(-z)


def steady_constants(
    comm: MPI.Comm,
    *,
    t1: float = 1.0,
    sigmas: Sequence[float] = (0.4, 0.1, 0.05),
    grid: Grid | None = None,
) -> Study:
    r"""Steady drifts reach :math:`0.9025/\sigma` at the best wavenumber, uniformly in sigma.

    Args:
        grid: Cells to a half period of the drift, and steps.
    """
    study = Study(
        f"constants of steady drifts, T={t1:g}",
        r"Uniformly over all drifts the L2 error is of order $\|\delta\|/\sigma$.",
    )
    worst = worst_decay()
    top, largest = ratio(worst), []
    for sigma in sigmas:
        D = 0.5 * sigma**2
        best = max(1, round(math.sqrt(worst / (D * t1)) / np.pi))
        modes = range(max(1, best - 1), best + 2)

        def constant(m: int, at: Grid, sigma: float = sigma) -> float:
            v = Steady(lambda x: EPSILON * np.sin(np.pi * m * x))
            mesh = interval(comm, at.cells * m)
            run = solve(mesh, v, sigma, lambda x: np.ones_like(x[0]), t1, at, scheme=SDIRK4())
            g = Elements(run.space)
            w = g.evaluate(run.levels[-1]).ravel() - 1.0
            norm = math.sqrt(g.sum(float(w**2 @ g.quadrature_weights)))
            return sigma * norm / (EPSILON * math.sqrt(0.5 * t1))

        found = measure_each(constant, modes, grid or Grid(8, 6, degree=3))
        exact = [ratio(D * (np.pi * m) ** 2 * t1) for m in modes]
        where = f"sigma={sigma:g}"
        study.equals(f"sigma |w| / |dv|, {where}, m={{}}", found, exact, 1e-3, over=modes)
        study.below(f"largest sigma |w| / |dv|, {where}", found.max(), top, rel=1e-3)
        largest.append(found.max())
    s = np.array(sigmas)
    curves = {"0.9025 / sigma": top / s, "best": Figure.stack(largest) / s}
    study.curves("Steady drifts", "sigma", "largest |w| / |dv|", s, curves, "xy")
    return study
