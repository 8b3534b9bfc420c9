r"""Approximation of trajectories: in L2 with noise, in the Wasserstein distance without.

A statement of the kind of Theorem 3 of [1]: if :math:`\sigma > 0` and :math:`v_n \to v` in L2
with bounded :math:`v_n - v`, then :math:`\sup_t\|\rho_n - \rho\|_{L^2} \to 0`, with no Lipschitz
constant anywhere; for :math:`\sigma = 0` and Lipschitz :math:`v` only
:math:`\sup_t W_2(\rho_n,\rho) \to 0`. That the second is no weakness of a proof is seen on the
co-moving ripple (own): for any positive reference with distribution functions :math:`F_t`,

.. math:: v_k = v + \frac ak\,\frac{\sin(k F_t(x))}{\rho_t(x)},\qquad k = 2\pi m,

differs from :math:`v` by :math:`O(1/k)`. In the labels :math:`y = F_t(x)` it reads
:math:`\dot y = \frac ak\sin ky`, so that at :math:`\sigma = 0`

.. math:: \rho_k = \rho_t\,g_t(F_t),\qquad g_t(y) = \frac1{\cosh at + \sinh at\cos ky},\qquad
    \frac{\|\rho_k-\rho_t\|}{\|\rho_t\|} \to \sqrt{\cosh at - 1},\qquad
    k W_2 \to c_2(at)\Bigl(\int\frac{dx}{\rho_t}\Bigr)^{1/2},

with :math:`c_2^2` the mean square displacement of :math:`\dot\theta = \sin\theta` after time
:math:`at`; and with noise

.. math:: \|\rho_k - \rho_t\| \simeq \frac{a}{\sqrt2\,D k^2}\,\Bigl\|\frac1{\rho_t}\Bigr\| .

What is compared is the continuity of :math:`v \mapsto \rho`, not best approximants: networks that
come close to a smooth :math:`v` together with its derivative converge in L2 without noise too.

Two traps. A ripple :math:`\frac ak\sin kx` that stays in place is averaged out by a flow across
it, and L2 converges without noise, at rate 1/2 (``standing_ripple``). And an upwind scheme on a
mesh is a noise of the size of a cell, whose L2 error falls with the frequency although the exact
one does not: ``upwind_trap``. All else here at :math:`\sigma = 0` is along characteristics.

References:
    [1] K. Elamvazhuthi, S. Oymak, F. Pasqualetti, Noise in the reverse process improves the
    approximation capabilities of diffusion models, arXiv 2312.07851.
"""

import math
from collections.abc import Sequence
from functools import partial

from mpi4py import MPI

import numpy as np

from fpcontrol import density
from fpcontrol.characteristics import carry
from fpcontrol.fokker_planck import FokkerPlanck, norm
from fpcontrol.galerkin import Array
from fpcontrol.mesh import interval
from fpcontrol.reference import MoserFlow
from fpcontrol.theorems.families.ripples import (
    GOALS,
    Goal,
    RippledMoser,
    comoving_error,
    displacement,
    ripple_density,
)
from fpcontrol.theorems.grids import Grid, labels_between, measured, slopes
from fpcontrol.theorems.studies.trajectory_controls import (
    benign_sequence,
    standing_ripple,
    upwind_trap,
)
from fpcontrol.theorems.study import Experiment, Line, Panel, Row, Study
from fpcontrol.timestepping import SDIRK2

# Closed forms along characteristics are met to this, relative.
CLOSED_FORM = 1e-4

# -- sigma = 0 -------------------------------------------------------------------------------------


def comoving_ripple(
    comm: MPI.Comm,
    *,
    profile: Goal = GOALS["smooth"],
    a: float = 2.0,
    t1: float = 1.0,
    frequencies: Sequence[int] = (1, 4, 16, 64),
    cells: int = 48,
) -> Study:
    r"""Without noise: drifts converge, densities do not in L2, but do in :math:`W_2`. Collective.

    Labels ``y = F_t(x)`` are carried by the ripple as it is there, which is exact for every
    reference, jumps included, and mapped back by the reference's quantiles.

    Args:
        comm: Communicator.
        profile: Where the line from the uniform density leads.
        a: Lipschitz constant of the ripple in labels.
        t1: Last time.
        frequencies: Periods ``m``, ascending, at least two.
        cells: Cells of labels a period.
    """
    results = [_in_labels(comm, profile, a, t1, 2 * np.pi * m, m * cells) for m in frequencies]
    l2, w2, l2_gap, w2_gap = np.array(results).T.tolist()
    k = [2 * math.pi * m for m in frequencies]
    predicted = [comoving_error(profile, a * t1, q) for q in k]
    limit = math.sqrt(math.cosh(a * t1) - 1.0)
    spread = math.sqrt(profile.integral(lambda x: 1.0 / profile.density(x)))
    w2_limit = displacement(a * t1) * spread
    rows = [
        Row(
            f"relative L2 error, m = {m}",
            l2[i],
            predicted=predicted[i],
            discretization_error=l2_gap[i],
            tolerance=CLOSED_FORM,
        )
        for i, m in enumerate(frequencies)
    ]
    # An edge cuts a wave: up to 1/m of the whole is not as elsewhere, by a fraction.
    rows += [
        Row(
            f"relative L2 error, m = {frequencies[-1]}, against sqrt(cosh aT - 1)",
            l2[-1],
            predicted=limit,
            discretization_error=l2_gap[-1],
            tolerance=0.15 / frequencies[-1],
        ),
        Row(
            f"k W2, m = {frequencies[-1]}, against c_2(aT) (int dx/rho)^(1/2)",
            k[-1] * w2[-1],
            predicted=w2_limit,
            discretization_error=k[-1] * w2_gap[-1],
            tolerance=0.2 / frequencies[-1],
        ),
        Row(
            "rate of W2 in k, last two",
            float(slopes(np.array(k), np.array(w2))[-1]),
            predicted=-1.0,
            discretization_error=sum(e / w for e, w in zip(w2_gap[-2:], w2[-2:], strict=True)),
            tolerance=0.02,
        ),
    ]
    return Study(
        f"co-moving ripple, sigma = 0, {profile.name} reference, a = {a:g}, T = {t1:g}",
        r"The drifts converge like $1/k$; the relative $L^2$ error tends to "
        r"$\sqrt{\cosh aT - 1}$ on every reference, and $W_2 \to 0$.",
        "own",
        tuple(rows),
        (
            Panel(
                f"Without noise: {profile.name} reference",
                "periods m",
                "error at T",
                (
                    Line(frequencies, l2, "relative L2"),
                    Line(frequencies, [limit] * len(k), "limit", "--"),
                    Line(frequencies, w2, "W2", "s-"),
                    Line(frequencies, [w2_limit / q for q in k], "closed form", ":"),
                ),
                "log",
                "log",
            ),
            _picture(profile, a * t1),
        ),
    )


def _in_labels(
    comm: MPI.Comm, profile: Goal, a: float, t1: float, k: float, cells: int
) -> tuple[float, float, float, float]:
    """Relative L2 error and W2 at the last time, and what tighter tolerances change in them."""

    def run(grid: Grid) -> Array:
        # Where labels start that end at the reference's edge: the integrand jumps there.
        edge = profile.cdf(np.array([0.5 if profile.edge is None else profile.edge]))
        start = _backward(a * t1, k, edge)[0]
        labels = labels_between(comm, [0.0, start, 1.0], grid.cells, lambda x: np.ones(len(x)))
        rtol = 1e-9 / grid.steps**4
        flow = carry(
            labels,
            lambda t, y: a / k * np.sin(k * y),
            [0.0, t1],
            divergence=lambda t, y: a * np.cos(k * y[:, 0]),
            rtol=rtol,
            atol=rtol,
        )
        y0, y, log_j = labels.points[:, 0], flow.positions[-1, :, 0], flow.log_jacobian[-1]
        x0, x = profile.quantile(1.0, y0), profile.quantile(1.0, y)
        rho = profile.density(x)
        error = (rho * np.exp(-log_j) - rho) ** 2 * np.exp(log_j) / rho
        square, distance = labels.integral(np.array([error, (x - x0) ** 2]))
        whole = profile.integral(lambda x: profile.density(x) ** 2)
        return np.sqrt([square / whole, distance])

    fine, gap = measured(run, Grid(cells, 1))
    return float(fine[0]), float(fine[1]), float(gap[0]), float(gap[1])


def _backward(at: float, k: float, y: Array) -> Array:
    r"""Where labels that are at ``y`` started: :math:`\tan(k y_0/2) = e^{-at}\tan(k y/2)`."""
    turns = np.round(k * y / (2 * np.pi))
    half = 0.5 * k * y - np.pi * turns
    return (2 * np.arctan2(math.exp(-at) * np.sin(half), np.cos(half)) + 2 * np.pi * turns) / k


def _picture(profile: Goal, at: float, m: int = 8) -> Panel:
    x = np.linspace(0.0, 1.0, 1601)
    rho = profile.density(x)
    rippled = rho * ripple_density(at, 2 * np.pi * m * profile.cdf(x))
    return Panel(
        f"Densities at T, m = {m}",
        "x",
        "density",
        (
            Line(x.tolist(), rippled.tolist(), "rippled", "-"),
            Line(x.tolist(), rho.tolist(), "reference", "-"),
        ),
    )


# -- sigma > 0 -------------------------------------------------------------------------------------


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
        ValueError: If the profile jumps.
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
    both = measured(partial(_with_noise, comm, profile, a, t1, sigma, k), grid)
    sup, gap = (part.tolist() for part in both)
    # 1/rho^2 is convex in rho, hence its integral in time: the largest is at an end.
    weight = max(1.0, math.sqrt(profile.integral(lambda x: profile.density(x) ** -2.0)))
    asymptote = (a * weight / (math.sqrt(2.0) * D * k**2)).tolist()
    without = [comoving_error(profile, a * t1, q) for q in k]
    whole = math.sqrt(profile.integral(lambda x: profile.density(x) ** 2))
    rows = [
        Row(f"sup_t L2 error, m = {m}", sup[i], discretization_error=gap[i])
        for i, m in enumerate(frequencies)
    ]
    # Where rho is small the wave is long. The next term is about 1/kappa smaller; with 1.5/kappa
    # at the last frequency, and 4 times that before it, the rate is off by 6/kappa. More than
    # the cap is no rate: take higher frequencies.
    lowest = min(1.0, float(profile.density(np.linspace(0.0, 1.0, 1001)).min()))
    kappa = float(D * (k[-1] * lowest) ** 2 / a)
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
            discretization_error=sum(e / s for e, s in zip(gap[-2:], sup[-2:], strict=True)),
            tolerance=min(0.15, max(0.02, 3.0 / kappa)),
        ),
        Row(
            f"error without noise over error with it, m = {frequencies[-1]}",
            without[-1] * whole / sup[-1],
            at_least=10.0,
            discretization_error=without[-1] * whole / sup[-1] ** 2 * gap[-1],
        ),
    ]
    return Study(
        f"co-moving ripple, {profile.name} reference, sigma = {sigma:g}, a = {a:g}, T = {t1:g}",
        r"With noise $\sup_t\|\rho_k-\rho\|_{L^2} \to 0$ at rate 2 in $k$, for the drifts for "
        r"which without noise it tends to a constant.",
        "reconstructed",
        tuple(rows),
        (
            Panel(
                f"Noise: {profile.name} reference",
                "periods m",
                "L2 error (sigma = 0: at T)",
                (
                    Line(frequencies, sup, f"sigma = {sigma:g}"),
                    Line(frequencies, asymptote, "closed form", "--"),
                    Line(frequencies, [whole * e for e in without], "sigma = 0", "s-"),
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
        errors.append(max(norm(flow.galerkin, gap) for gap in gaps))
    return np.array(errors)


def experiments(quick: bool) -> list[Experiment]:
    """What ``fpcontrol verify`` runs."""
    noisy: list[tuple[str, float, tuple[int, ...]]] = [
        ("kink", 0.5, (2, 4, 8)),
        ("smooth", 0.5, (4, 8, 16)),
    ]
    if not quick:
        noisy = [
            ("kink", 0.5, (1, 2, 4, 8, 16)),
            ("kink", 0.2, (2, 4, 8, 16)),
            ("smooth", 0.5, (1, 2, 4, 8, 16)),
            ("smooth", 0.2, (4, 8, 16, 32)),
        ]
    runs = [
        Experiment(f"t3.comoving.{name}", partial(comoving_ripple, profile=profile))
        for name, profile in GOALS.items()
    ]
    runs += [
        Experiment(
            f"t3.noise.{name}.sigma={sigma:g}",
            partial(ripple_with_noise, profile=GOALS[name], sigma=sigma, frequencies=m),
        )
        for name, sigma, m in noisy
    ]
    return [
        *runs,
        Experiment(
            "t3.control.standing",
            partial(standing_ripple, frequencies=(4, 8, 16) if quick else (2, 4, 8, 16, 32)),
        ),
        Experiment("t3.control.benign", benign_sequence),
        Experiment("t3.trap.upwind", upwind_trap),
    ]
