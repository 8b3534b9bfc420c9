r"""Relatives of the oscillating family of ``continuity``: one that explodes, one on the square."""

import math
from collections.abc import Sequence

from mpi4py import MPI

import numpy as np

from fpcontrol import density
from fpcontrol.characteristics import Markers
from fpcontrol.mesh import interval, rectangle
from fpcontrol.theorems.closed_forms import cosine
from fpcontrol.theorems.closed_forms.ripples import Ripple
from fpcontrol.theorems.framework import Figure, Grid, Study, measure_each
from fpcontrol.theorems.runs.oscillation_runs import carried, carried_twice, sup_error

# Acceptance: half a percent on figures of the Galerkin method, where kh is 0.2 or less.
CLOSE = 5e-3


def blow_up_family(
    comm: MPI.Comm,
    *,
    t1: float = 1.0,
    sigma: float = 0.2,
    numbers: Sequence[int] = (1, 2, 4, 8, 16),
    grid: Grid | None = None,
) -> Study:
    r"""Drifts :math:`n^{-1}\sin(n^2x)` on :math:`[0,\pi]`: at sigma = 0 the L2 error explodes.

    Their Lipschitz constants are n: :math:`\sqrt{\cosh nT - 1}` against :math:`1/(\sqrt2 Dn^3)`.

    Args:
        numbers: Values of n, ascending.
        grid: Cells to a half period.
    """
    study = Study(
        f"blow-up family, sigma={sigma:g}, T={t1:g}",
        "A drift that vanishes uniformly: exploding L2 error without noise, vanishing with it.",
    )

    def drift(n: int) -> Ripple:
        return Ripple(float(n), float(n * n))

    def run(n: int, at: Grid) -> float:
        return sup_error(interval(comm, at.cells * n * n, 0.0, np.pi), drift(n), sigma, t1, at)

    noisy = measure_each(run, numbers, grid or Grid(16, 10))
    runs = [carried_twice(comm, drift(n), 32 * n * n, t1, np.pi) for n in numbers]
    l2, w2 = Figure.stack(runs).T
    exact = [cosine.sup_l2(drift(n).kappa(sigma), n * t1) for n in numbers]
    flat = [cosine.sup_l2(0.0, n * t1) for n in numbers]
    c2 = [cosine.sup_wasserstein(0.0, n * t1) for n in numbers]
    study.equals(f"sup L2 error, n={{}}, sigma={sigma:g}", noisy, exact, CLOSE, over=numbers)
    study.equals("sup L2 error, n={}, sigma=0", l2, flat, 1e-4, over=numbers)
    study.equals("sup n^2 W2, n={}, sigma=0", w2, c2, 1e-4, over=numbers)
    curves = {"sigma=0": l2, f"sigma={sigma:g}": noisy}
    study.curves(r"$v_n = n^{-1}\sin(n^2x)$", "n", "sup relative L2 error", numbers, curves, "xy")
    return study


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
        grid: Cells to a period; cubic elements do with eight.
    """
    study = Study(
        f"product form on the square, sigma={sigma:g}, a={a:g}, T={t1:g}",
        r"In two dimensions the error at $\sigma=0$ is $\sqrt{\cosh^2 aT - 1}$ at every k.",
    )
    drifts = {m: Ripple(a, 2.0 * np.pi * m) for m in frequencies}

    def square(e: float) -> float:
        return math.sqrt((1.0 + e * e) ** 2 - 1.0)

    def noisy(m: int, at: Grid) -> float:
        mesh = rectangle(comm, (at.cells * m, at.cells * m))
        return sup_error(mesh, drifts[m], sigma, t1, at)

    def without(m: int, cells: int, rtol: float) -> float:
        mesh = rectangle(comm, (cells * m, cells * m))
        markers = Markers.on_mesh(density.uniform(mesh, 1), 8)
        return carried(markers, drifts[m], t1, rtol)[0]

    study.equals(
        f"sup L2 error, m={{}}, sigma={sigma:g}",
        measure_each(noisy, frequencies, grid or Grid(8, 5, degree=3)),
        [square(cosine.sup_l2(v.kappa(sigma), a * t1)) for v in drifts.values()],
        CLOSE,
        over=frequencies,
    )
    few, more = ([without(m, *how) for m in frequencies] for how in ((6, 1e-7), (9, 1e-9)))
    exact = square(cosine.sup_l2(0.0, a * t1))
    found = Figure.refined(few, more)
    study.equals("sup L2 error, m={}, sigma=0", found, exact, 1e-4, over=frequencies)
    return study
