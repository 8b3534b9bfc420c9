r"""Relatives of the oscillating family of ``continuity``: one that explodes, one on the square."""

import math
from collections.abc import Sequence

from mpi4py import MPI

import numpy as np

from fpcontrol import density
from fpcontrol.characteristics.flow import Labels
from fpcontrol.mesh import interval, rectangle
from fpcontrol.theorems.closed_forms import cosine
from fpcontrol.theorems.framework.checks import Line, Panel, Row, Study
from fpcontrol.theorems.framework.resolution import Grid, measured
from fpcontrol.theorems.runs.oscillation_runs import Ripple, carried, carried_twice, sup_error

# Acceptance: half a percent on figures of the Galerkin method, where kh is 0.2 or less.
CLOSE = 5e-3


def blow_up_family(
    comm: MPI.Comm,
    *,
    t1: float = 1.0,
    sigma: float = 0.2,
    numbers: Sequence[int] = (1, 2, 4, 8),
    grid: Grid | None = None,
) -> Study:
    r"""Drifts :math:`n^{-1}\sin(n^2x)` on :math:`[0,\pi]`: at sigma = 0 the L2 error explodes.

    Their Lipschitz constants are n: :math:`\sqrt{\cosh nT - 1}` against :math:`1/(\sqrt2 Dn^3)`.

    Args:
        comm: Communicator.
        t1: Last time.
        sigma: Noise.
        numbers: Values of n, ascending.
        grid: Cells to a half period.
    """
    grid = grid or Grid(16, 10)
    rows: list[Row] = []
    with_noise, without = [], []
    for n in numbers:
        v = Ripple(float(n), float(n * n))

        def run(g: Grid, v: Ripple = v, n: int = n) -> float:
            return sup_error(interval(comm, g.cells * n * n, 0.0, np.pi), v, sigma, t1, g)

        error, gap = measured(run, grid)
        exact = cosine.sup_l2(v.kappa(sigma), n * t1)
        rows += [Row(f"sup L2 error, n={n}, sigma={sigma:g}", error, exact, None, None, gap, CLOSE)]
        (l2, w2), (dl2, dw2) = carried_twice(comm, v, 32 * n * n, t1, np.pi)
        c2 = cosine.sup_wasserstein(0.0, n * t1)
        rows += [
            Row(
                f"sup L2 error, n={n}, sigma=0",
                l2,
                cosine.sup_l2(0.0, n * t1),
                discretization_error=dl2,
                tolerance=1e-4,
            ),
            Row(f"sup n^2 W2, n={n}, sigma=0", w2, c2, None, None, dw2, 1e-4),
        ]
        with_noise.append(error)
        without.append(l2)
    lines = (
        Line(tuple(numbers), without, "sigma=0", "o-"),
        Line(tuple(numbers), with_noise, f"sigma={sigma:g}", "o-"),
    )
    title = r"$v_n = n^{-1}\sin(n^2x)$"
    panel = Panel(title, "n", "sup relative L2 error", lines, "log", "log")
    claim = "A drift that vanishes uniformly: exploding L2 error without noise, vanishing with it."
    name = f"blow-up family, sigma={sigma:g}, T={t1:g}"
    return Study(name, claim, "own", tuple(rows), (panel,))


def product_form(
    comm: MPI.Comm,
    *,
    a: float = 2.0,
    t1: float = 1.0,
    sigma: float = 0.5,
    frequencies: Sequence[int] = (1, 2),
    grid: Grid | None = None,
) -> Study:
    r"""The same on the unit square, where the solution is a product: error² = (1 + e²)² - 1.

    Args:
        comm: Communicator.
        a: Lipschitz constant of the drifts.
        t1: Last time.
        sigma: Noise.
        frequencies: Numbers of periods m, ascending.
        grid: Cells to a period; cubic elements do with eight.
    """
    grid = grid or Grid(8, 5, degree=3)
    rows = []

    def square(e: float) -> float:
        return math.sqrt((1.0 + e * e) ** 2 - 1.0)

    for m in frequencies:
        v = Ripple(a, 2.0 * np.pi * m)

        def run(g: Grid, v: Ripple = v, m: int = m) -> float:
            return sup_error(rectangle(comm, (g.cells * m, g.cells * m)), v, sigma, t1, g)

        error, gap = measured(run, grid)
        exact = square(cosine.sup_l2(v.kappa(sigma), a * t1))
        rows += [Row(f"sup L2 error, m={m}, sigma={sigma:g}", error, exact, None, None, gap, CLOSE)]
        few, more = (
            carried(
                Labels.on_mesh(density.uniform(rectangle(comm, (c * m, c * m)), 1), 8), v, t1, rtol
            )[0]
            for c, rtol in ((6, 1e-7), (9, 1e-9))
        )
        exact = square(cosine.sup_l2(0.0, a * t1))
        gap = abs(more - few)
        rows += [Row(f"sup L2 error, m={m}, sigma=0", more, exact, None, None, gap, 1e-4)]
    claim = r"In two dimensions the error at $\sigma=0$ is $\sqrt{\cosh^2 aT - 1}$ at every k."
    name = f"product form on the square, sigma={sigma:g}, a={a:g}, T={t1:g}"
    return Study(name, claim, "own", tuple(rows))
