r"""The estimates behind the theorems, on drifts without a derivative (own; see ``certificates``).

Every distance is to stay below its bound in every case, and the constants are to be reached: with
:math:`v_2 = 0`, :math:`\rho = 1` and :math:`\delta = \epsilon\,e^{-Dk^2(T-t)}\sin kx`,

.. math:: \frac{\text{measured}}{\text{bound}} \to \sqrt{1 - e^{-2Dk^2T}}

in (E2), (E3), and of square roots in (E4), to first order in :math:`\epsilon`: so
:math:`\frac1{2D} = \frac1{\sigma^2}` cannot be improved. The largest ratio of drifts drawn at
random is that of the first steps, where jumps spread by themselves; at T they are far below their
bounds. What makes bounds grow is checked where it decides (``gronwall``). The crude estimate (E1)
is reported and never a check: a bound that is :math:`10^{10}` times too large holds whatever a
solver does.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from mpi4py import MPI

import numpy as np

from fpcontrol import (
    SDIRK2,
    MoserFlow,
    NetworkDrift,
    TrackingProblem,
    density,
    minimize,
)
from fpcontrol.certificates import Certificate
from fpcontrol.control.certified import tracking_certificate
from fpcontrol.drift import Drift, zero
from fpcontrol.mesh import interval
from fpcontrol.theorems.closed_forms.random_drifts import Pulse, Rough, Waves
from fpcontrol.theorems.experiments import gronwall
from fpcontrol.theorems.framework import Experiment, Figure, Grid, Line, Study
from fpcontrol.theorems.framework.resolution import cube
from fpcontrol.typing import Array

# What a ratio that is reached may be above 1, of quadrature and of the run.
ROUNDING = 1e-3
ESTIMATES = ("E2", "E3", "E3'", "E3 in L2", "E4", "Pinsker")
AT_T = ("E1", "E2", "E3", "E3'", "E4")
type Ratios = Mapping[str, Figure]  # measured over bound, see Certificate.ratios


def rough_drifts(
    comm: MPI.Comm,
    *,
    dimension: int = 1,
    sigma: float = 0.5,
    t1: float = 1.0,
    speed: float = 3.0,
    gap: float = 0.5,
    patches: int = 16,
    intervals: int = 4,
    seeds: Sequence[int] = (0, 1, 2),
    grid: Grid | None = None,
) -> Study:
    r"""Measured over bound for drifts drawn at random, constant in patches.

    Both drifts are rough for (E3), (E3') and (E4). For (E2), in 1-D, the first is smooth, as its
    divergence is in the bound, and the second rough.

    Args:
        speed: Longest second drift (about that of the smooth drift).
        gap: Longest difference of the drifts.
        patches: In each direction.
        intervals: Of time.
        seeds: One case each.
        grid: Cells a multiple of ``patches``, steps of ``intervals``.
    """
    grid = grid or (Grid(8 * patches, 25 * intervals) if dimension == 1 else Grid(16, 40))
    if grid.cells % patches or grid.steps % intervals:
        raise ValueError(
            f"grid has {grid.cells} cells and {grid.steps} steps; multiples of patches = "
            f"{patches} and intervals = {intervals} are needed, so that jumps are between them."
        )
    study = Study(
        f"estimates, {dimension}-D, sigma = {sigma:g}, |v| <= {speed:g}, T = {t1:g}",
        r"Drifts without a derivative: every distance is below its bound, $\chi^2$ and entropy "
        r"within a factor, the crude $L^2$ estimate by powers of ten.",
    )

    def run(drifts: tuple[Drift, Drift], at: Grid) -> Certificate:
        mesh = cube(comm, dimension, at.cells)
        options = {"scheme": SDIRK2(), "linear_solver": "auto"}
        return gronwall.compared(mesh, drifts, sigma, hill, t1, at, **options)

    def hill(x: Array) -> Array:
        return 1.0 + 0.5 * np.cos(np.pi * x[:dimension]).prod(axis=0)

    cases: list[Ratios] = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        draw = partial(Rough.drawn, rng, dimension, patches, intervals, t1)
        base, error = draw(), draw()
        rough = Rough(speed * base.values, t1)
        waves = Waves(speed * rng.uniform(-1.0, 1.0, 4) / 2.0)
        # Rough (E3): the error is on the first. Smooth (E2): on the second.
        pairs: list[tuple[Drift, Drift]] = [(rough + gap * error, rough)]
        if dimension == 1:
            pairs.append((waves, waves + gap * error))
        for pair in pairs:
            coarse, _, ratios = _resolved(partial(run, pair), grid)
            cases.append(ratios)
    _check_ratios(study, "largest of all drifts", cases)
    _draw(study, coarse)
    return study


def _resolved(
    run: Callable[[Grid], Certificate], grid: Grid
) -> tuple[Certificate, Certificate, Ratios]:
    """Certificates of both runs, and the ratios."""
    coarse, fine = run(grid), run(grid.finer())
    before, after = coarse.ratios(), fine.ratios()
    return coarse, fine, {name: Figure.refined(before[name], after[name]) for name in after}


def _check_ratios(study: Study, case: str, found: Sequence[Ratios]) -> None:
    """The largest ratio of each estimate; those at T are reported."""

    def largest(name: str) -> Figure:
        return max((ratios[name] for ratios in found if name in ratios), key=float)

    known = {name for ratios in found for name in ratios}
    for name in ESTIMATES:
        if name in known:
            title = f"({name}) measured/bound, {case}"
            study.below(title, largest(name), 1.0, rel=ROUNDING)
    for name in AT_T:
        if f"{name} at T" in known:
            study.report(f"({name}) measured/bound at T, {case}", largest(f"{name} at T"))


def _draw(study: Study, c: Certificate) -> None:
    t = c.times[1:]
    lines = [
        Line(t, c.l2[1:], "L2", "-"),
        Line(t, c.l2_bound[1:], "L2, bound (E3)", "--"),
        Line(t, c.l1[1:], "L1", "-"),
        Line(t, c.l1_bound[1:], "L1, bound (E4)", "--"),
    ]
    if c.e2 is not None:
        lines.append(Line(t, np.sqrt(c.e2[1:]), "L2, bound (E2)", ":"))
    study.picture("Distances and their bounds", "t", "", *lines, log="y")


# -- the constants are reached ---------------------------------------------------------------------


def sharp_constants(
    comm: MPI.Comm,
    *,
    sigma: float = 0.2,
    t1: float = 1.0,
    modes: Sequence[int] = (1, 2, 4, 8),
    size: float = 1e-4,
    grid: Grid | None = None,
) -> Study:
    r"""Drift errors for which (E2), (E3) and (E4) are equalities in the limit.

    Args:
        modes: Half waves on the unit interval, ascending.
        size: The :math:`\epsilon`; what is of second order in it must be below the tolerance.
        grid: Resolution; degree 3 unless given.
    """
    study = Study(
        f"sharp constants, sigma = {sigma:g}, T = {t1:g}",
        r"For errors that grow like $e^{Dk^2t}$ the measured distance over the bound tends to 1: "
        r"$1/\sigma$ is the best constant.",
    )
    D = 0.5 * sigma**2

    def run(m: int, at: Grid) -> Certificate:
        pulse = Pulse(size, np.pi * m, D * (np.pi * m) ** 2, t1)
        mesh, drifts = interval(comm, at.cells), (pulse, zero())
        return gronwall.compared(mesh, drifts, sigma, lambda x: np.ones_like(x[0]), t1, at)

    def exact(m: Array) -> Array:
        return np.sqrt(-np.expm1(-2.0 * D * (np.pi * m) ** 2 * t1))

    # (D k^2 dt)^2/12 is the error of the middle of the step for the exponential.
    steps = max(50, math.ceil(16 * D * (np.pi * max(modes)) ** 2 * t1))
    grid = grid or Grid(8 * max(modes), steps, 3)
    cases = [_resolved(partial(run, m), grid)[2] for m in modes]
    reached = {
        name: Figure.stack([ratios[name] for ratios in cases]).sqrt() for name in ("E2", "E3", "E4")
    }
    for name, figure in reached.items():
        title = f"({name}) (measured/bound)^(1/2), m = {{}}"
        study.equals(title, figure, exact(np.array(modes)), 1e-3, over=modes)
    _check_ratios(study, "largest of all m", cases)
    x = np.linspace(0.5, modes[-1], 200)
    lines = Line(modes, reached["E3"], "(E3)", "o"), Line(x, exact(x), "closed form", "-")
    study.picture("The constant 1/sigma is reached", "half waves m", "measured / bound", *lines)
    return study


# -- control ---------------------------------------------------------------------------------------


def tracking(
    comm: MPI.Comm,
    *,
    dimension: int = 1,
    sigma: float = 0.8,
    t1: float = 1.0,
    pieces: int = 4,
    iterations: int = 20,
    seed: int = 0,
    grid: Grid | None = None,
) -> Study:
    r"""Certificates of a control problem's densities, before and after optimization.

    Args:
        pieces: Of the network of width ``dimension``.
        iterations: Of the optimizer, on the coarse grid.
        seed: Of the first weights.
        grid: Steps a multiple of ``pieces``.
    """
    study = Study(
        f"certificates of tracking, {dimension}-D, sigma = {sigma:g}, T = {t1:g}",
        r"The distance of a controlled density from its reference is bounded by its control error "
        r"$\frac1{2\sigma^2}E\int|v_\theta-v|^2$, whatever the weights.",
    )
    grid = grid or (Grid(32, 10 * pieces) if dimension == 1 else Grid(10, 5 * pieces))

    def hill(c: float, x: Array) -> Array:
        return 0.2 + np.exp(-12.0 * ((x[:dimension] - c) ** 2).sum(axis=0))

    def problem(at: Grid) -> TrackingProblem:
        mesh = cube(comm, dimension, at.cells)
        start, goal = (density.interpolate(mesh, partial(hill, c), at.degree) for c in (0.3, 0.7))
        drift = NetworkDrift(mesh, dimension, pieces, t1, seed=seed)
        # Weights switch between pieces, with drifts through the walls: L-stable.
        return TrackingProblem(
            MoserFlow(start, goal, t1, sigma), drift, sigma, at.steps, scheme=SDIRK2()
        )

    first = problem(grid)
    result = minimize(first, method="lmvm", max_iterations=iterations, progress=False)
    cases = {"first weights": first.drift.weights, f"after {iterations} iterations": result.weights}
    for name, weights in cases.items():
        certified = partial(lambda weights, at: tracking_certificate(problem(at), weights), weights)
        coarse, fine, ratios = _resolved(certified, grid)
        _check_ratios(study, name, [ratios])
        kl, cost = (
            Figure.refined(getattr(coarse, f)[-1], getattr(fine, f)[-1]) for f in ("kl", "e4")
        )
        study.report(f"KL(rho_theta | rho) at T, {name}", kl)
        study.report(f"E int |v_theta - v|^2 / (2 sigma^2), {name}", cost)
    _draw(study, fine)
    return study


ONE = {"seeds": (0,)}
EXPERIMENTS = [
    *(
        Experiment(f"estimates.rough.sigma={sigma:g}", rough_drifts, sigma=sigma, quick=ONE)
        for sigma in (1.0, 0.5, 0.3)
    ),
    Experiment("estimates.sharp", sharp_constants),
    Experiment("estimates.tracking", tracking),
    *gronwall.EXPERIMENTS,
    Experiment(
        "estimates.rough.square", rough_drifts, dimension=2, patches=4, seeds=(0,), quick=None
    ),
    Experiment("estimates.tracking.square", tracking, dimension=2, quick=None),
]
