r"""Ripples that go with the flow: how near their limit they are, and what noise does."""

import math
from collections.abc import Sequence
from functools import partial

from mpi4py import MPI

import numpy as np

from fpcontrol import SDIRK2, FokkerPlanck, MoserFlow, density
from fpcontrol.mesh import interval
from fpcontrol.theorems.closed_forms.profiles import GOALS, Profile, StraightLine
from fpcontrol.theorems.closed_forms.ripples import (
    Comoving,
    against_limit,
    comoving_errors,
    still_relaxing,
)
from fpcontrol.theorems.framework import Figure, Grid, Study, measure
from fpcontrol.typing import Array


def check_limit(
    study: Study, goal: Profile, quantity: str, figure: Figure, limit: float, power: float, k: float
) -> None:
    """Compare a figure with its limit for many waves; a report where waves are too few."""
    off = against_limit(goal, power, k)
    if math.isinf(off):
        study.report(f"{quantity} = {limit:.4g}: too few waves", figure)
    else:
        study.equals(quantity, figure, limit, off)


def ripple_with_noise(
    comm: MPI.Comm,
    *,
    goal: str = "kink",
    a: float = 2.0,
    t1: float = 1.0,
    sigma: float = 0.5,
    frequencies: Sequence[int] = (2, 4, 8, 16),
    grid: Grid | None = None,
) -> Study:
    r"""With noise: the same ripples, and L2 converges like :math:`k^{-2}`.

    The reference is the same line of densities, now with the drift
    :math:`u + D\,\partial_x\log\rho_t`, unbounded for the profile with a kink.

    Args:
        goal: Where the line leads, smooth or kink; not jump, which no drift tracks with noise.
        grid: Resolution; 8 cells of degree 3 a period and 100 steps unless given.

    Raises:
        ValueError: If the profile jumps, or if noise does not dominate the last two ripples.
    """
    rho, D, k = GOALS[goal], 0.5 * sigma**2, 2 * np.pi * np.array(frequencies)
    kappa = _dominance(goal, a, D, t1, k)
    study = Study(
        f"co-moving ripple, {goal} reference, sigma = {sigma:g}, a = {a:g}, T = {t1:g}",
        r"With noise $\sup_t\|\rho_k-\rho\|_{L^2} \to 0$ at rate 2 in $k$, for the drifts for "
        r"which without noise it tends to a constant.",
    )
    sup = measure(
        partial(_with_noise, comm, rho, a, t1, sigma, k), grid or Grid(8 * max(frequencies), 100, 3)
    )
    # 1/rho^2 is convex in rho, hence its integral in time: the largest is at an end.
    weight = max(1.0, math.sqrt(rho.integral(lambda x: rho.value(x) ** -2.0)))
    asymptote = a * weight / (math.sqrt(2.0) * D * k**2)
    without = Figure.stack([comoving_errors(rho, a * t1, q) for q in k])[:, 0] * rho.norm
    last = f"m = {frequencies[-1]}"
    study.report("sup_t L2 error, m = {}", sup, over=frequencies)
    # The next term is about 1/kappa smaller; with 1.5/kappa at the last frequency, and 4 times
    # that before it, the rate is off by 6/kappa.
    study.equals(
        f"sup_t L2 error, {last}, against a |1/rho|/(sqrt2 D k^2)",
        sup[-1],
        asymptote[-1],
        min(0.15, max(0.01, 1.5 / kappa)),
    )
    tolerance = min(0.15, max(0.02, 3.0 / kappa))
    study.equals("rate of sup_t L2 in k, last two", sup.slopes(k)[-1], -2.0, tolerance)
    study.above(f"error without noise over error with it, {last}", without[-1] / sup[-1], 10.0)
    curves = {f"sigma = {sigma:g}": sup, "closed form": asymptote, "sigma = 0": without}
    label = "L2 error (sigma = 0: at T)"
    study.curves(f"Noise: {goal} reference", "periods m", label, frequencies, curves, "xy")
    return study


def _dominance(goal: str, a: float, D: float, t1: float, k: Array) -> float:
    """Diffusion over the ripple at the last wavenumber where rho is least, large enough."""
    rho = GOALS[goal]
    if rho.breaks:
        # A kink is continuous: 1e-9 apart it differs by far less than any jump of interest.
        sides = rho.value(rho.breaks[0] + np.array([-1e-9, 1e-9]))
        if abs(sides[1] - sides[0]) > 1e-3:
            raise ValueError(
                f"goal = {goal!r} jumps at {rho.breaks[0]:g}: with noise no drift in L2 "
                'tracks it. Use "kink" or "smooth".'
            )
    # Where rho is small the wave is long.
    lowest = min(1.0, float(rho.value(np.linspace(0.0, 1.0, 1001)).min()))
    kappa = float(D * (k[-1] * lowest) ** 2 / a)
    if kappa < 20.0 or still_relaxing(rho, float(D * k[-2] ** 2 * t1)) > 0.1:
        frequencies = tuple(np.round(k / (2 * np.pi)).astype(int).tolist())
        raise ValueError(
            f"frequencies = {frequencies!r} are too low for a rate: D k^2 over a/rho^2 must "
            f"be 20 or more at the last, where it is {kappa:.3g}, and D k^2 T rho^2 well above 1 "
            "at the one before. Use higher ones, or more noise or time."
        )
    return kappa


def _with_noise(
    comm: MPI.Comm, rho: Profile, a: float, t1: float, sigma: float, k: Array, grid: Grid
) -> Array:
    """Largest L2 errors over time, one for each wavenumber. Collective."""
    mesh = interval(comm, grid.cells)
    start = density.uniform(mesh, grid.degree)
    goal = density.interpolate(mesh, lambda x: rho.value(x[0]), grid.degree)
    flow = MoserFlow(start, goal, t1, sigma)
    errors = []
    for q in k:
        drift = flow.drift + Comoving(StraightLine.to(rho, t1), a, float(q))
        equation = FokkerPlanck(mesh, drift, sigma, degree=grid.degree)
        # Exact for the line itself, and L-stable, for the ripple sets in at once. The scheme
        # overshoots where D k^2 dt > 2.4, which the supremum would see.
        steps = max(grid.steps, math.ceil(0.5 * flow.noise.diffusivity(0.0) * q**2 * t1))
        run = equation.solve(start, t1, steps, scheme=SDIRK2())
        gaps = [u - flow.coefficients(t) for t, u in zip(run.times, run.levels, strict=True)]
        errors.append(max(flow.elements.norm(gap) for gap in gaps))
    return np.array(errors)
