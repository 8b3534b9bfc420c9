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
from collections.abc import Callable, Sequence
from functools import partial

from mpi4py import MPI

import numpy as np
from dolfinx.mesh import Mesh

from fpcontrol import density
from fpcontrol.certificates import Certificate, certificate, tracking_certificate
from fpcontrol.control.network import NetworkDrift
from fpcontrol.control.optimize import minimize
from fpcontrol.control.tracking import TrackingProblem
from fpcontrol.drift import zero
from fpcontrol.fokker_planck import FokkerPlanck
from fpcontrol.mesh import interval, rectangle
from fpcontrol.reference import MoserFlow
from fpcontrol.stepping.schemes import SDIRK2, CrankNicolson
from fpcontrol.theorems.closed_forms.random_drifts import Combined, Pulse, Rough, Waves
from fpcontrol.theorems.experiments import gronwall
from fpcontrol.theorems.framework.checks import Line, Panel, Row, Study
from fpcontrol.theorems.framework.experiments import Experiment
from fpcontrol.theorems.framework.resolution import Grid
from fpcontrol.typing import Array

# What a ratio that is reached may be above 1, of quadrature and of the run.
ROUNDING = 1e-3
AT_T = ("E1 at T", "E2 at T", "E3 at T", "E3' at T", "E4 at T")


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
    seeds: Sequence[int] = (0, 1),
    grid: Grid | None = None,
) -> Study:
    r"""Measured over bound for drifts drawn at random, constant in patches. Collective.

    Both drifts are rough for (E3), (E3') and (E4). For (E2), in 1-D, the first is smooth, as its
    divergence is in the bound, and the second rough.

    Args:
        comm: Communicator.
        dimension: 1 or 2.
        sigma: Noise.
        t1: Last time.
        speed: Longest :math:`|v_2|` (about that of the smooth drift).
        gap: Longest :math:`|v_1-v_2|`.
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
    cases: list[tuple[dict[str, float], dict[str, float]]] = []
    last: Certificate | None = None
    for seed in seeds:
        rng = np.random.default_rng(seed)
        draw = partial(Rough.drawn, rng, dimension, patches, intervals, t1)
        base, error = draw(), draw()
        rough = Rough(speed * base.values, t1)
        waves = Waves(speed * rng.uniform(-1.0, 1.0, 4) / 2.0)
        bases: list[Rough | Waves] = [rough, waves] if dimension == 1 else [rough]
        for v in bases:
            run = partial(_compare, comm, dimension, sigma, t1, v, error, gap)
            _, last, *ratios = _ratios(run, grid)
            cases.append((ratios[0], ratios[1]))
    assert last is not None
    return Study(
        f"estimates, {dimension}-D, sigma = {sigma:g}, |v| <= {speed:g}, T = {t1:g}",
        r"Drifts without a derivative: every distance is below its bound, $\chi^2$ and entropy "
        r"within a factor, the crude $L^2$ estimate by powers of ten.",
        "own",
        tuple(_worst("largest of all drifts", cases)),
        (_picture(last),),
    )


def _compare(
    comm: MPI.Comm,
    dimension: int,
    sigma: float,
    t1: float,
    v: Rough | Waves,
    error: Rough,
    gap: float,
    grid: Grid,
) -> Certificate:
    """The certificate of ``v`` against ``v`` with an error, from one start density."""
    mesh = _cube(comm, dimension, grid.cells)
    start = density.interpolate(
        mesh, lambda x: 1.0 + 0.5 * np.cos(np.pi * x[:dimension]).prod(axis=0), grid.degree
    )
    # Rough (E3): the error is on the first. Smooth (E2): on the second.
    wrong = Combined(v, error, gap)
    one, other = (v, wrong) if isinstance(v, Waves) else (wrong, v)
    rho_1, rho_2 = (
        FokkerPlanck(mesh, drift, sigma, degree=grid.degree).solve(
            start, t1, grid.steps, scheme=SDIRK2()
        )
        for drift in (one, other)
    )
    divergence = one.divergence if isinstance(one, Waves) else None
    return certificate(rho_1, rho_2, one, other, sigma, divergence=divergence)


def _cube(comm: MPI.Comm, dimension: int, cells: int) -> Mesh:
    return interval(comm, cells) if dimension == 1 else rectangle(comm, (cells, cells))


def _ratios(
    run: Callable[[Grid], Certificate], grid: Grid
) -> tuple[Certificate, Certificate, dict[str, float], dict[str, float]]:
    """Certificates of both runs, the finer one's ratios, and how much the coarse ones differ."""
    coarse, fine = run(grid), run(grid.finer())
    before, after = coarse.ratios(), fine.ratios()
    return coarse, fine, after, {name: abs(after[name] - before[name]) for name in after}


def _worst(case: str, ratios: Sequence[tuple[dict[str, float], dict[str, float]]]) -> list[Row]:
    """The largest ratio of each estimate with its error; those at T are reported."""
    rows = []
    for name in ("E2", "E3", "E3'", "E3 in L2", "E4", "Pinsker", *AT_T):
        found = [(values[name], gaps[name]) for values, gaps in ratios if name in values]
        if found:
            value, gap = max(found)
            at = " at T" if name in AT_T else ""
            quantity = f"({name.removesuffix(' at T')}) measured/bound{at}, {case}"
            bound = None if name in AT_T else 1.0
            rows.append(Row(quantity, value, None, bound, None, gap, ROUNDING if bound else 0.0))
    return rows


def _picture(c: Certificate) -> Panel:
    t = c.times[1:].tolist()
    lines = [
        Line(t, c.l2[1:].tolist(), "L2", "-"),
        Line(t, c.l2_bound[1:].tolist(), "L2, bound (E3)", "--"),
        Line(t, c.l1[1:].tolist(), "L1", "-"),
        Line(t, c.l1_bound[1:].tolist(), "L1, bound (E4)", "--"),
    ]
    if c.e2 is not None:
        lines.append(Line(t, np.sqrt(c.e2[1:]).tolist(), "L2, bound (E2)", ":"))
    return Panel("Distances and their bounds", "t", "", tuple(lines), yscale="log")


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
    r"""Drift errors for which (E2), (E3) and (E4) are equalities in the limit. Collective.

    Args:
        comm: Communicator.
        sigma: Noise.
        t1: Last time.
        modes: Half waves on the unit interval, ascending.
        size: The :math:`\epsilon`; what is of second order in it must be below the tolerance.
        grid: Resolution; degree 3 unless given.
    """
    D, cells = 0.5 * sigma**2, 8 * max(modes)
    # (D k^2 dt)^2/12 is the error of the middle of the step for the exponential.
    fastest = D * (np.pi * max(modes)) ** 2 * t1
    grid = grid or Grid(cells, max(50, math.ceil(16 * fastest)), 3)
    rows, reached, cases = [], [], []
    for m in modes:
        k = np.pi * m
        pulse = Pulse(size, k, D * k**2, t1)

        def run(at: Grid, pulse: Pulse = pulse) -> Certificate:
            mesh = interval(comm, at.cells)
            start = density.uniform(mesh, at.degree)
            one, other = (
                # What is measured is so small that an iterative solver's tolerance would be seen.
                FokkerPlanck(mesh, v, sigma, degree=at.degree, linear_solver="direct").solve(
                    start, t1, at.steps, scheme=CrankNicolson()
                )
                for v in (pulse, zero())
            )
            return certificate(one, other, pulse, zero(), sigma, divergence=pulse.divergence)

        _, _, ratios, gaps = _ratios(run, grid)
        exact = math.sqrt(-math.expm1(-2.0 * D * k**2 * t1))
        for name in ("E2", "E3", "E4"):
            rows.append(
                Row(
                    f"({name}) (measured/bound)^(1/2), m = {m}",
                    math.sqrt(ratios[name]),
                    predicted=exact,
                    discretization_error=0.5 * gaps[name] / math.sqrt(ratios[name]),
                    tolerance=1e-3,
                )
            )
        cases.append((ratios, gaps))
        reached.append(math.sqrt(ratios["E3"]))
    rows += _worst("largest of all m", cases)
    x = np.linspace(0.5, modes[-1], 200)
    exact_line = np.sqrt(-np.expm1(-2.0 * D * (np.pi * x) ** 2 * t1))
    return Study(
        f"sharp constants, sigma = {sigma:g}, T = {t1:g}",
        r"For errors that grow like $e^{Dk^2t}$ the measured distance over the bound tends to 1: "
        r"$1/\sigma$ is the best constant.",
        "own",
        tuple(rows),
        (
            Panel(
                "The constant 1/sigma is reached",
                "half waves m",
                "measured / bound",
                (
                    Line(modes, reached, "(E3)", "o"),
                    Line(x.tolist(), exact_line.tolist(), "closed form", "-"),
                ),
            ),
        ),
    )


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
    r"""Certificates of a control problem's densities, before and after optimization. Collective.

    Args:
        comm: Communicator.
        dimension: 1 or 2.
        sigma: Noise.
        t1: Last time.
        pieces: Of the network of width ``dimension``.
        iterations: Of the optimizer, on the coarse grid.
        seed: Of the first weights.
        grid: Steps a multiple of ``pieces``.
    """
    grid = grid or (Grid(32, 10 * pieces) if dimension == 1 else Grid(10, 5 * pieces))

    def problem(at: Grid) -> TrackingProblem:
        mesh = _cube(comm, dimension, at.cells)
        start, goal = (
            density.interpolate(mesh, partial(_hill, dimension, c), at.degree) for c in (0.3, 0.7)
        )
        drift = NetworkDrift(mesh, dimension, pieces, t1, seed=seed)
        # Weights switch between pieces, with drifts through the walls: L-stable.
        return TrackingProblem(
            MoserFlow(start, goal, t1, sigma), drift, sigma, at.steps, scheme=SDIRK2()
        )

    first = problem(grid)
    result = minimize(first, max_iterations=iterations, progress=False)
    rows = []
    for name, weights in (
        ("first weights", first.drift.weights),
        (f"after {iterations} iterations", result.weights),
    ):

        def run(at: Grid, weights: Array = weights) -> Certificate:
            return tracking_certificate(problem(at), weights)

        coarse, fine, ratios, gaps = _ratios(run, grid)
        rows += _worst(name, [(ratios, gaps)])
        rows += [
            Row(
                f"{what}, {name}",
                float(new[-1]),
                discretization_error=float(abs(new[-1] - old[-1])),
            )
            for what, old, new in (
                ("KL(rho_theta | rho) at T", coarse.kl, fine.kl),
                ("E int |v_theta - v|^2 / (2 sigma^2)", coarse.e4, fine.e4),
            )
        ]
    return Study(
        f"certificates of tracking, {dimension}-D, sigma = {sigma:g}, T = {t1:g}",
        r"The distance of a controlled density from its reference is bounded by its control error "
        r"$\frac1{2\sigma^2}E\int|v_\theta-v|^2$, whatever the weights.",
        "own",
        tuple(rows),
        (_picture(fine),),
    )


def _hill(dimension: int, c: float, x: Array) -> Array:
    return 0.2 + np.exp(-12.0 * ((x[:dimension] - c) ** 2).sum(axis=0))


def experiments(quick: bool) -> list[Experiment]:
    """What ``fpcontrol verify`` runs."""
    seeds = (0,) if quick else (0, 1, 2)
    runs = [
        Experiment(f"estimates.rough.sigma={s:g}", partial(rough_drifts, sigma=s, seeds=seeds))
        for s in (1.0, 0.5, 0.3)
    ]
    runs.append(Experiment("estimates.sharp", sharp_constants))
    runs.append(Experiment("estimates.tracking", tracking))
    runs += gronwall.experiments(quick)
    if quick:
        return runs
    square = partial(rough_drifts, dimension=2, patches=4, seeds=(0,))
    return [
        *runs,
        Experiment("estimates.rough.square", square),
        Experiment("estimates.tracking.square", partial(tracking, dimension=2)),
    ]
