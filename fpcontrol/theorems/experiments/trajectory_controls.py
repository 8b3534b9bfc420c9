r"""Negative controls for the approximation of trajectories, all at :math:`\sigma = 0`.

Where no effect is expected, none is seen: a ripple that stays in place is averaged out by the flow
(``standing_ripple``), and fields that converge with their derivatives give densities that converge
in L2 (``benign_sequence``). And where an effect is seen that is not there: the upwind scheme
(``upwind_trap``), the one place where a mesh is used without noise, to warn of it.
"""

import math
from collections.abc import Sequence

from mpi4py import MPI

import numpy as np

from fpcontrol.theorems.closed_forms.profiles import GOALS, StraightLine, uniform
from fpcontrol.theorems.closed_forms.ripples import (
    Along,
    Comoving,
    Ripple,
    comoving_errors,
    flat_error,
    source_edges,
)
from fpcontrol.theorems.framework import Figure, Grid, Line, Study, measure, measure_each
from fpcontrol.theorems.runs.moser_runs import carried
from fpcontrol.typing import Array


def rtol(grid: Grid) -> float:
    """Of the integration: the share of one of so many steps of order 8, and less."""
    return 1e-7 / grid.steps**6


def standing_ripple(
    comm: MPI.Comm,
    *,
    a: float = 2.0,
    t1: float = 1.0,
    frequencies: Sequence[int] = (2, 4, 8, 16, 32),
    cells: int = 20,
) -> Study:
    r"""Negative control: a ripple that does not go with the flow is averaged out.

    Markers that cross the ripple at speed :math:`u` feel :math:`a\cos kx` as a phase of duration
    :math:`1/(ku)`. Only where :math:`u \lesssim a/k`, in layers of width :math:`\sim 1/k` at the
    walls, is the error of order 1, and beyond, at distance s, it is :math:`1/(ks)`: both leave
    :math:`k^{-1/2}` in L2. The same family that goes with the flow is carried in space, beside it.
    """
    study = Study(
        f"standing ripple, sigma = 0, a = {a:g}, T = {t1:g}",
        r"Control: a ripple fixed in space is averaged out along a flow that crosses it; without "
        r"noise the $L^2$ error falls like $k^{-1/2}$.",
    )
    line, k = StraightLine.to(GOALS["smooth"], t1), 2 * np.pi * np.array(frequencies)

    def comoving(m: int, at: Grid) -> Array:
        q = 2.0 * np.pi * m
        edges = source_edges(a * t1, q, at.steps)
        return carried(comm, line, Along(line) + Comoving(line, a, q), edges, at, rtol(at))

    def standing(m: int, at: Grid) -> Array:
        drift = Along(line) + Ripple(a, 2.0 * np.pi * m)
        return carried(comm, line, drift, (), at, rtol(at))

    (l2, w2), (still_l2, still_w2) = (
        measure_each(run, frequencies, lambda m: Grid(m * cells, 1)).T
        for run in (comoving, standing)
    )
    exact_l2, exact_w2 = Figure.stack([comoving_errors(line.goal, a * t1, q) for q in k]).T
    name = "co-moving, carried in space: {}, m = {{}}".format
    study.equals(name("relative L2 error"), l2, exact_l2, 1e-4, over=frequencies)
    study.equals(name("k W2"), w2 * k, exact_w2, 1e-4, over=frequencies)
    study.report("standing: relative L2 error, m = {}", still_l2, over=frequencies)
    study.report("standing: k W2, m = {}", still_w2 * k, over=frequencies)
    study.equals("standing: rate of L2 in k, last two", still_l2.slopes(k)[-1], -0.5, 0.1)
    slope = still_l2.value[-1] * np.sqrt(k[-1] / k)
    curves = {"co-moving": l2, "standing": still_l2, "slope -1/2": slope}
    title = "Without noise: the ripple must go with the flow"
    study.curves(title, "periods m", "relative L2 error at T", frequencies, curves, "xy")
    return study


def benign_sequence(
    comm: MPI.Comm, *, t1: float = 1.0, indices: Sequence[int] = (4, 8, 16, 32), cells: int = 200
) -> Study:
    r"""Negative control: :math:`v(1 + 1/m)` converges with its derivative.

    Then L2 converges without noise, like :math:`1/m`.

    Args:
        indices: The m, ascending, at least two.
    """
    study = Study(
        f"benign sequence, sigma = 0, T = {t1:g}",
        r"Control: for $v_m = (1 + 1/m) v$ the derivative converges too, and so do $L^2$ and "
        r"$W_2$, like $1/m$, without noise.",
    )
    line = StraightLine.to(GOALS["smooth"], t1)

    def run(m: int, at: Grid) -> Array:
        return carried(comm, line, (1.0 + 1.0 / m) * Along(line), (), at, rtol(at))

    for name, error in zip(("L2", "W2"), measure_each(run, indices, Grid(cells, 1)).T, strict=True):
        study.report(f"{name} error, m = {{}}", error, over=indices)
        # c/m (1 + b/m), where |b| is below .15 on this reference, whatever the time.
        tolerance = 0.2 / indices[-2]
        study.equals(f"rate of {name} in m, last two", error.slopes(indices)[-1], -1.0, tolerance)
    return study


# -- the trap --------------------------------------------------------------------------------------


def upwind(n: int, m: int, a: float, t1: float, steps: int) -> float:
    r"""L2 error of the upwind scheme for the ripple on the uniform density. THE TRAP.

    First-order finite volumes, explicit. The fluxes add a diffusion :math:`|v|h/2`: sigma is not 0.

    Args:
        n: Number of cells.
        m: Periods.
        steps: Time steps.
    """
    k, dt = 2 * np.pi * m, t1 / steps
    v = a / k * np.sin(k * np.arange(1, n) / n)  # faces; none at the walls
    right, left = np.maximum(v, 0.0), np.minimum(v, 0.0)
    rho = np.ones(n)
    for _ in range(steps):
        flux = right * rho[:-1] + left * rho[1:]
        rho[:-1] -= dt * n * flux
        rho[1:] += dt * n * flux
    return float(np.sqrt(np.mean((rho - 1.0) ** 2)))


def upwind_trap(
    comm: MPI.Comm,
    *,
    a: float = 2.0,
    t1: float = 1.0,
    frequencies: Sequence[int] = (1, 4, 16, 64),
    cells: int = 500,
) -> Study:
    r"""THE TRAP: on a mesh, upwinding shows an L2 convergence that is not there.

    On the uniform density the relative L2 error is :math:`\sqrt{\cosh aT-1}` for every frequency.
    An upwind scheme at a fixed number of cells shows an error that falls with the frequency: it
    is the theorem for the noise of the mesh, seen at kh alone. To first order in the time the
    diffusion :math:`|v|h/2` takes the share :math:`\frac2{3\pi}kh\,aT` of the wave
    :math:`at\cos kx`; what is left must be below :math:`1/(1 + \frac2{3\pi}kh\,aT)`. Never take it
    as evidence about :math:`\sigma = 0`.

    Args:
        frequencies: Periods, ascending; the second last a quarter of the last.
        cells: Finite volumes.

    Raises:
        ValueError: If the last two frequencies are others.
    """
    if len(frequencies) < 2 or frequencies[-1] != 4 * frequencies[-2]:
        raise ValueError(f"frequencies = {frequencies!r} must end with some m and 4 m.")
    study = Study(
        f"TRAP: upwind scheme at sigma = 0, a = {a:g}, T = {t1:g}",
        r"THE TRAP, not evidence: the exact $L^2$ error is the same for every frequency, and an "
        r"upwind scheme shows one that falls, because upwinding is a noise of the size of a cell.",
    )
    exact, m = flat_error(a * t1), frequencies[-1]

    def along_characteristics(grid: Grid) -> float:
        v, line = Ripple(a, 2 * np.pi * m), StraightLine.to(uniform(), t1)
        edges = source_edges(a * t1, v.k, grid.steps)
        return float(carried(comm, line, v, edges, grid, rtol(grid))[0])

    # The Courant number is below 1/2 for one period on the finer mesh, and dt is the same for all.
    steps = math.ceil(max(400.0, 2.0 * a * t1 * 4 * cells / (2 * np.pi * min(frequencies))))
    halved, coarse, fine = (
        np.array([upwind(n, m, a, t1, s) for m in frequencies])
        for n, s in ((cells, 2 * steps), (cells, steps), (4 * cells, steps))
    )
    found = Figure(coarse, coarse - halved)
    loss = 2.0 * math.pi * m / cells * a * t1
    last = measure(along_characteristics, Grid(16 * m, 1))
    study.equals(f"characteristics, m = {m}", last, exact, 1e-4)
    name = f"TRAP: upwind, {cells} cells, m = {{}} (exact {exact:.4f})"
    study.report(name, found, over=frequencies)
    study.below(
        f"TRAP: share of the exact error that upwinding shows, m = {m}",
        found[-1] / exact,
        1.0 / (1.0 + 2.0 / (3.0 * math.pi) * loss),
    )
    study.equals(
        f"the same with {4 * cells} cells: the mesh's noise, a function of kh alone",
        # The same numbers a wave, but for round-off in each of the steps.
        Figure(fine[-1], steps * np.finfo(float).eps * fine[-1]),
        coarse[-2],
        1e-9,
    )
    study.picture(
        "THE TRAP: upwinding at sigma = 0 shows a decay that is not there",
        "periods m",
        "relative L2 error at T",
        Line(frequencies, exact, "exact", "-"),
        Line(frequencies, coarse, f"upwind, {cells} cells", "o--"),
        Line(frequencies, fine, f"upwind, {4 * cells} cells", "s--"),
        log="x",
    )
    return study
