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

from fpcontrol.discretization.elements import Elements
from fpcontrol.drift import Steady
from fpcontrol.stepping.schemes import SDIRK4
from fpcontrol.theorems.framework.checks import Line, Panel, Row, Study
from fpcontrol.theorems.framework.resolution import Grid, measured, solve
from fpcontrol.typing import Array

# Small against 1, as rho_1 - 1 is of this order, and large against the solver's 1e-13.
EPSILON = 1e-4


def _uniform(x: Array) -> Array:
    return np.ones(len(x))


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
        comm: Communicator.
        t1: Last time.
        sigmas: Noises.
        grid: Cells to a half period of the drift, and steps.
    """
    grid = grid or Grid(8, 6, degree=3)
    worst = worst_decay()
    top, rows, values = ratio(worst), [], []
    for sigma in sigmas:
        D = 0.5 * sigma**2
        best = max(1, round(math.sqrt(worst / (D * t1)) / np.pi))
        modes = range(max(1, best - 1), best + 2)
        exact = [ratio(D * (np.pi * m) ** 2 * t1) for m in modes]

        def constants(g: Grid, sigma: float = sigma, modes: Sequence[int] = modes) -> Array:
            found = []
            for m in modes:
                v = Steady(lambda x, k=np.pi * m: EPSILON * np.sin(k * x))  # type: ignore[misc]
                fine = Grid(g.cells * m, g.steps, g.degree)
                run = solve(comm, v, sigma, _uniform, t1, fine, scheme=SDIRK4())
                h = Elements(run.space)
                w = h.evaluate(run.levels[-1]).ravel() - 1.0
                norm = math.sqrt(h.sum(float(w**2 @ h.quadrature_weights)))
                found.append(sigma * norm / (EPSILON * math.sqrt(0.5 * t1)))
            return np.array(found)

        value, gap = measured(constants, grid)
        for m, c, e, p in zip(modes, value, gap, exact, strict=True):
            rows += [Row(f"sigma |w| / |dv|, sigma={sigma:g}, m={m}", c, p, None, None, e, 1e-3)]
        quantity = f"largest sigma |w| / |dv|, sigma={sigma:g}"
        values.append(float(value.max()))
        e = float(gap[value.argmax()])
        rows += [Row(quantity, values[-1], None, top, None, e, 1e-3)]
    lines = (
        Line(tuple(sigmas), tuple(top / s for s in sigmas), "0.9025 / sigma", "-"),
        Line(tuple(sigmas), tuple(v / s for v, s in zip(values, sigmas, strict=True)), "best", "o"),
    )
    panel = Panel("Steady drifts", "sigma", "largest |w| / |dv|", lines, "log", "log")
    claim = r"Uniformly over all drifts the L2 error is of order $\|\delta\|/\sigma$."
    return Study(f"constants of steady drifts, T={t1:g}", claim, "own", tuple(rows), (panel,))
