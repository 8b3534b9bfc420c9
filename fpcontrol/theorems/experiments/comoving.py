r"""Ripples that go with the flow: how near their limit they are, and what noise does."""

import math
from collections.abc import Sequence
from functools import partial

from mpi4py import MPI

import numpy as np

from fpcontrol import density
from fpcontrol.fokker_planck import FokkerPlanck, norm
from fpcontrol.mesh import interval
from fpcontrol.reference import MoserFlow
from fpcontrol.stepping.schemes import SDIRK2
from fpcontrol.theorems.closed_forms.ripples import (
    GOALS,
    Goal,
    RippledMoser,
    against_limit,
    comoving_errors,
    still_relaxing,
)
from fpcontrol.theorems.framework.checks import Line, Panel, Row, Study
from fpcontrol.theorems.framework.resolution import Grid, measured, slopes
from fpcontrol.typing import Array


def limit_row(
    profile: Goal, quantity: str, k: float, power: float, figures: tuple[float, float, float]
) -> Row:
    """A figure, its limit for many waves and its error; a report where waves are too few."""
    value, limit, e = (float(f) for f in figures)
    off = against_limit(profile, power, k)
    if math.isinf(off):
        return Row(f"{quantity} = {limit:.4g}: too few waves", value, discretization_error=e)
    return Row(quantity, value, limit, None, None, e, off)


def ripple_with_noise(
    comm: MPI.Comm,
    *,
    profile: Goal = GOALS["kink"],
    a: float = 2.0,
    t1: float = 1.0,
    sigma: float = 0.5,
    frequencies: Sequence[int] = (2, 4, 8, 16),
    grid: Grid | None = None,
) -> Study:
    r"""With noise: the same ripples, and L2 converges like :math:`k^{-2}`. Collective.

    The reference is the same line of densities, now with the drift
    :math:`u + D\,\partial_x\log\rho_t`, unbounded for the profile with a kink.

    Args:
        comm: Communicator.
        profile: Where the line leads; no jump, which no drift tracks with noise.
        a: Strength of the ripple.
        t1: Last time.
        sigma: Noise.
        frequencies: Periods, ascending, at least two.
        grid: Resolution; 8 cells of degree 3 a period and 100 steps unless given.

    Raises:
        ValueError: If the profile jumps, or if noise does not dominate the last two ripples.
    """
    if profile.edge is not None:
        # A kink is continuous: 1e-9 apart it differs by far less than any jump of interest.
        sides = profile.density(profile.edge + np.array([-1e-9, 1e-9]))
        if abs(sides[1] - sides[0]) > 1e-3:
            raise ValueError(
                f"profile = {profile.name!r} jumps at {profile.edge:g}: with noise no drift in L2 "
                'tracks it. Use GOALS["kink"] or ["smooth"].'
            )
    grid = grid or Grid(8 * max(frequencies), 100, 3)
    k, D = 2 * np.pi * np.array(frequencies), 0.5 * sigma**2
    # Where rho is small the wave is long.
    lowest = min(1.0, float(profile.density(np.linspace(0.0, 1.0, 1001)).min()))
    kappa = float(D * (k[-1] * lowest) ** 2 / a)
    if kappa < 20.0 or still_relaxing(profile, float(D * k[-2] ** 2 * t1)) > 0.1:
        raise ValueError(
            f"frequencies = {tuple(frequencies)!r} are too low for a rate: D k^2 over a/rho^2 must "
            f"be 20 or more at the last, where it is {kappa:.3g}, and D k^2 T rho^2 well above 1 "
            "at the one before. Use higher ones, or more noise or time."
        )
    both = measured(partial(_with_noise, comm, profile, a, t1, sigma, k), grid)
    sup, gap = (part.tolist() for part in both)
    # 1/rho^2 is convex in rho, hence its integral in time: the largest is at an end.
    weight = max(1.0, math.sqrt(profile.integral(lambda x: profile.density(x) ** -2.0)))
    asymptote = (a * weight / (math.sqrt(2.0) * D * k**2)).tolist()
    exact = [comoving_errors(profile, a * t1, q) for q in k]
    without, off = (np.array(exact)[:, i, 0] for i in (0, 1))
    whole = math.sqrt(profile.integral(lambda x: profile.density(x) ** 2))
    rows = [
        Row(f"sup_t L2 error, m = {m}", sup[i], discretization_error=gap[i])
        for i, m in enumerate(frequencies)
    ]
    # The next term is about 1/kappa smaller; with 1.5/kappa at the last frequency, and 4 times
    # that before it, the rate is off by 6/kappa.
    rows += [
        Row(
            f"sup_t L2 error, m = {frequencies[-1]}, against a |1/rho|/(sqrt2 D k^2)",
            sup[-1],
            predicted=asymptote[-1],
            discretization_error=gap[-1],
            tolerance=min(0.15, max(0.01, 1.5 / kappa)),
        ),
        Row(
            "rate of sup_t L2 in k, last two",
            float(slopes(k, np.array(sup))[-1]),
            predicted=-2.0,
            discretization_error=sum(e / s for e, s in zip(gap[-2:], sup[-2:], strict=True))
            / math.log(k[-1] / k[-2]),
            tolerance=min(0.15, max(0.02, 3.0 / kappa)),
        ),
        Row(
            f"error without noise over error with it, m = {frequencies[-1]}",
            without[-1] * whole / sup[-1],
            at_least=10.0,
            discretization_error=whole * (without[-1] * gap[-1] / sup[-1] + off[-1]) / sup[-1],
        ),
    ]
    return Study(
        f"co-moving ripple, {profile.name} reference, sigma = {sigma:g}, a = {a:g}, T = {t1:g}",
        r"With noise $\sup_t\|\rho_k-\rho\|_{L^2} \to 0$ at rate 2 in $k$, for the drifts for "
        r"which without noise it tends to a constant.",
        "own",
        tuple(rows),
        (
            Panel(
                f"Noise: {profile.name} reference",
                "periods m",
                "L2 error (sigma = 0: at T)",
                (
                    Line(frequencies, sup, f"sigma = {sigma:g}"),
                    Line(frequencies, asymptote, "closed form", "--"),
                    Line(frequencies, (whole * without).tolist(), "sigma = 0", "s-"),
                ),
                "log",
                "log",
            ),
        ),
    )


def _with_noise(
    comm: MPI.Comm, profile: Goal, a: float, t1: float, sigma: float, k: Array, grid: Grid
) -> Array:
    """Largest L2 errors over time, one for each wavenumber."""
    mesh = interval(comm, grid.cells)
    start = density.uniform(mesh, grid.degree)
    goal = density.interpolate(mesh, lambda x: profile.density(x[0]), grid.degree)
    flow = MoserFlow(start, goal, t1, sigma)
    errors = []
    for q in k:
        drift = RippledMoser(flow, profile, a, float(q))
        equation = FokkerPlanck(mesh, drift, sigma, degree=grid.degree)
        # Exact for the line itself, and L-stable, for the ripple sets in at once. The scheme
        # overshoots where D k^2 dt > 2.4, which the supremum would see.
        steps = max(grid.steps, math.ceil(0.5 * flow.noise.diffusivity(0.0) * q**2 * t1))
        rho = equation.solve(start, t1, steps, scheme=SDIRK2())
        gaps = [u - flow.coefficients(t) for t, u in zip(rho.times, rho.levels, strict=True)]
        errors.append(max(norm(flow.elements, gap) for gap in gaps))
    return np.array(errors)
