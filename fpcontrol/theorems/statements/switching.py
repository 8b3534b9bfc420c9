r"""Limited width: few neurons at a time, switched fast, do what many do at once.

A statement of the kind of the theorems on networks of limited width in [1] and [2]: a drift with
as many neurons as dimensions, :math:`v(t,x) = W(t)\,\varphi(A(t)x + b(t))`, whose weights are
piecewise constant in time, comes as close as one likes to what any wide network
:math:`\sum_{j\le m} g_j` does: run through :math:`m\,g_1, \dots, m\,g_m` in each of ``n`` cycles.
The drifts converge weakly in time only. With noise :math:`\rho_n \to \rho` in
:math:`C([0,T];L^2)`, without it in :math:`W_2`. By Lie and Trotter (own), with
:math:`A_j = \frac Dm\Delta - \nabla\cdot(g_j\,\cdot)`,

.. math:: \rho_n(T) - \rho(T) \simeq \frac{T}{2n}\int_0^T e^{(T-s)A}
    \sum_{i<j}[A_j, A_i]\,e^{sA}\rho_0\,ds,\qquad A = \sum_j A_j,

rate 1, and rate 2 for cycles that run forth and back (Strang). Only rates are checked.

Not to be over-read: with a fixed set of smooth generators L2 converges without noise as well, at
rate 1 for smooth densities. A density with a jump loses half of it there: the jump lands
:math:`O(1/n)` off, which is :math:`n^{-1/2}` in L2. (With noise the jump is gone at T.) Nothing
converges in L2 without noise if the neurons sharpen with their number: see the ripples of
``trajectories``.

At :math:`\sigma = 0` all is along characteristics, forth with one drift and back with the other,
so that both densities are known at the same points to the tolerance of the ordinary differential
equation, edges of their supports included.

References:
    [1] K. Elamvazhuthi, S. Oymak, F. Pasqualetti, arXiv 2312.07851.
    [2] K. Elamvazhuthi, B. Gharesifard, A. Bertozzi, S. Osher, Neural ODE control for trajectory
    approximation of the continuity equation, arXiv 2205.09241.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from mpi4py import MPI

import numpy as np

from fpcontrol import density
from fpcontrol.discretization.elements import Elements
from fpcontrol.fokker_planck import FokkerPlanck, norm
from fpcontrol.mesh import interval, rectangle
from fpcontrol.stepping.schemes import SDIRK2
from fpcontrol.theorems.framework.checks import Line, Panel, Row, Study
from fpcontrol.theorems.framework.experiments import Experiment
from fpcontrol.theorems.framework.resolution import Grid, measured, slopes
from fpcontrol.theorems.runs.generators import STARTS, Average, Generators, Switched, distances
from fpcontrol.typing import Array

# Along characteristics, of the coarser run.
RTOL = 1e-8


def switching_without_noise(
    comm: MPI.Comm,
    *,
    generators: Generators | None = None,
    start: str = "bump",
    t1: float = 1.0,
    cycles: Sequence[int] = (16, 32, 64, 128),
    palindromic: bool = False,
    cells: int = 100,
) -> Study:
    r"""Rates in the number of cycles along characteristics. Collective.

    Args:
        comm: Communicator.
        generators: Of one or two dimensions; four at random in 1-D unless given.
        start: ``"bump"``, or in 1-D also ``"block"`` or ``"box"``, which have jumps.
        t1: Last time.
        cycles: Ascending, at least two.
        palindromic: Whether each cycle runs forth and back.
        cells: Cells of markers in each direction.
    """
    generators = generators or Generators.drawn()

    def run(grid: Grid) -> Array:
        rtol = RTOL / grid.steps**6
        return np.array(
            [
                distances(comm, Switched(generators, n, t1, palindromic), start, grid.cells, rtol)
                for n in cycles
            ]
        )

    fine, gap = (part.T for part in measured(run, Grid(cells, 1)))
    # Slots may cut steps below what either tolerance asks for: then both runs take the same.
    fine, gap = fine.tolist(), (gap + RTOL * (1.0 + fine[2])).tolist()
    (l2, apart, size, moved, sup), rate = fine, 2.0 if palindromic else 1.0
    w2 = "W2" if generators.dimension == 1 else "root mean square distance of markers"
    rows = [
        Row(f"{name}, n = {n}", value, discretization_error=e)
        for name, values, gaps in (
            ("L2 error", l2, gap[0]),
            (w2, moved, gap[3]),
            (f"sup_t {w2}", sup, gap[4]),
        )
        for n, value, e in zip(cycles, values, gaps, strict=True)
    ]
    rows.append(Row("L2 norm of the average density", size[-1], discretization_error=gap[2][-1]))
    # Between the ends of its cycles a palindrome is no better than any other order.
    rows += [
        _rate(w2, cycles, moved, gap[3], rate, 0.05),
        _rate(f"sup_t {w2}", cycles, sup, gap[4], 1.0, 0.05),
    ]
    lines = [Line(cycles, l2, "L2"), Line(cycles, moved, w2, "s-")]
    if start != "bump":
        both = np.sqrt(np.square(l2) - np.square(apart)).tolist()
        rows += [
            _rate("L2", cycles, l2, gap[0], rate / 2, 0.2),
            _rate("L2 where only one of both is", cycles, apart, gap[1], rate / 2, 0.05),
            _rate("L2 where both are", cycles, both, gap[0], rate, 0.05),
        ]
        lines.append(Line(cycles, both, "L2 where both are", "o--"))
    else:
        rows.append(_rate("L2", cycles, l2, gap[0], rate, 0.05))
    which = "forth and back" if palindromic else "cyclic"
    return Study(
        f"switching, {which}, sigma = 0, {start}, {generators.dimension}-D, T = {t1:g}",
        r"Without noise a smooth density converges in $L^2$ at the rate of the splitting, and one "
        r"with a jump at half of it: its jump is off by the error of the flow.",
        "own",
        tuple(rows),
        (Panel("Switching without noise", "cycles n", "error at T", tuple(lines), "log", "log"),),
    )


def _rate(
    name: str,
    n: Sequence[int],
    values: Sequence[float],
    gaps: Sequence[float],
    rate: float,
    tolerance: float,
) -> Row:
    """The rate between the last two, which must be ``-rate``."""
    off = sum(g / v for g, v in zip(gaps[-2:], values[-2:], strict=True)) / math.log(n[-1] / n[-2])
    quantity, slope = (
        f"rate of {name}, n = {n[-2]} to {n[-1]}",
        slopes(np.array(n), np.array(values))[-1],
    )
    return Row(quantity, float(slope), -rate, None, None, off, tolerance)


# -- sigma > 0 -------------------------------------------------------------------------------------


def _errors(
    comm: MPI.Comm, sigma: float, start: str, switched: Switched, grid: Grid
) -> tuple[Array, Array]:
    """Over time: L2 distances of switched and average densities, and norms of both, ``(2, T)``.

    ``grid.steps`` counts the steps of a slot.
    """
    dimension = switched.generators.dimension
    if dimension == 1:
        mesh = interval(comm, grid.cells)
    else:
        mesh = rectangle(comm, (grid.cells, grid.cells))
    rho_0 = density.interpolate(mesh, lambda x: STARTS[start][0](x[:dimension].T), grid.degree)
    steps = grid.steps * switched.pieces
    g = Elements(rho_0.function_space)
    # At every switch the flux through the walls jumps: an L-stable scheme.
    one, other = (
        FokkerPlanck(mesh, drift, sigma, degree=grid.degree)
        .solve(rho_0, switched.t1, steps, scheme=SDIRK2())
        .levels
        for drift in (switched, Average(switched.generators))
    )
    error = np.array([norm(g, u) for u in one - other])
    return error, np.array([[norm(g, u) for u in levels] for levels in (one, other)])


def switching_with_noise(
    comm: MPI.Comm,
    *,
    generators: Generators | None = None,
    start: str = "bump",
    t1: float = 1.0,
    sigma: float = 0.2,
    cycles: Sequence[int] = (4, 8, 16, 32),
    palindromic: bool = False,
    grid: Grid | None = None,
) -> Study:
    r"""Rates in the number of cycles with noise, at the last time and over all slots. Collective.

    Args:
        comm: Communicator.
        generators: Of one or two dimensions; four at random in 1-D unless given.
        start: ``"bump"``, ``"block"`` or ``"box"``.
        t1: Last time.
        sigma: Noise.
        cycles: Ascending, at least two.
        palindromic: Whether each cycle runs forth and back.
        grid: Cells in each direction, steps a slot, degree.
    """
    generators = generators or Generators.drawn()
    grid = grid or Grid(100, 2, 3)

    def run(grid: Grid) -> Array:
        parts = [
            _errors(comm, sigma, start, Switched(generators, n, t1, palindromic), grid)
            for n in cycles
        ]
        return np.array([[error[-1], error.max(), size[1, -1]] for error, size in parts]).T

    fine, gap = (part.tolist() for part in measured(run, grid))
    rate = 2.0 if palindromic else 1.0
    rows = [
        Row(f"{name}, n = {n}", value, discretization_error=e)
        for name, values, gaps in (
            ("L2 error at T", fine[0], gap[0]),
            ("sup_t L2 error", fine[1], gap[1]),
        )
        for n, value, e in zip(cycles, values, gaps, strict=True)
    ]
    rows += [
        Row("L2 norm of the average density", fine[2][-1], discretization_error=gap[2][-1]),
        _rate("L2 at T", cycles, fine[0], gap[0], rate, 0.05),
        # A slot moves the density by its length: rate 1 in the end, and 3/4 from a jump, which
        # noise has spread over dt**(1/2) before it is moved by dt. Few cycles are slower.
        replace(_rate("sup_t L2", cycles, fine[1], gap[1], rate, 0.0), predicted=None, bound=-0.5),
    ]
    which = "forth and back" if palindromic else "cyclic"
    order = (cycles[0] / np.array(cycles)) ** rate
    return Study(
        f"switching, {which}, sigma = {sigma:g}, {start}, {generators.dimension}-D, T = {t1:g}",
        r"With noise $\|\rho_n-\rho\|_{L^2}$ falls at the rate of the splitting, whatever the "
        r"start density.",
        "reconstructed",
        tuple(rows),
        (
            Panel(
                f"Switching with noise, sigma = {sigma:g}",
                "cycles n",
                "L2 error",
                (
                    Line(cycles, fine[0], "at T"),
                    Line(cycles, fine[1], "sup over t", "s-"),
                    Line(cycles, (fine[0][0] * order).tolist(), f"slope -{rate:g}", "--"),
                ),
                "log",
                "log",
            ),
        ),
    )


def product_on_square(
    comm: MPI.Comm,
    *,
    start: str = "bump",
    t1: float = 1.0,
    sigma: float = 0.5,
    cycles: Sequence[int] = (4, 8),
    grid: Grid | None = None,
    seed: int = 3,
) -> Study:
    r"""Two neurons on the square that act on one direction each: a product of 1-D runs. Collective.

    Densities of both flows are products, :math:`r_1 r_2` and :math:`s_1 s_2`, so that
    :math:`\|r_1r_2-s_1s_2\|^2 = \|r_1\|^2\|r_2\|^2 + \|s_1\|^2\|s_2\|^2
    - 2(r_1,s_1)(r_2,s_2)` is known from two runs on the interval.

    Args:
        comm: Communicator.
        start: ``"bump"``, ``"block"`` or ``"box"``.
        t1: Last time.
        sigma: Noise.
        cycles: Ascending.
        grid: Cells in each direction, steps a slot, degree.
        seed: Of the neurons.
    """
    generators, grid = Generators.drawn(2, seed=seed), grid or Grid(12, 4)
    rows = []
    for n in cycles:

        def run(at: Grid, drawn: Generators, n: int = n) -> Array:
            error, size = _errors(comm, sigma, start, Switched(drawn, n, t1), at)
            return np.array([error[-1], *size[:, -1]]) ** 2

        fine, gap = measured(partial(run, drawn=generators), grid)

        def product(at: Grid, run: Callable[..., Array] = run) -> float:
            parts = np.array([run(at, generators.direction(i)) for i in range(2)])
            error, one, other = parts.T
            square = one.prod() + other.prod() - 2.0 * (0.5 * (one + other - error)).prod()
            return math.sqrt(square)

        exact, off = measured(product, Grid(50, 2 * grid.steps, 3))
        rows.append(
            Row(
                f"L2 error at T on the square, n = {n}",
                math.sqrt(fine[0]),
                predicted=exact,
                discretization_error=0.5 * float(gap[0]) / math.sqrt(fine[0]) + off,
                tolerance=5e-3,
            )
        )
    return Study(
        f"switching on the square, sigma = {sigma:g}, {start}, T = {t1:g}",
        "Width 2 in 2-D, one neuron for each direction: the densities are products of those on "
        "the interval, and so the error is known.",
        "own",
        tuple(rows),
    )


def experiments(quick: bool) -> list[Experiment]:
    """What ``fpcontrol verify`` runs."""
    without, few = switching_without_noise, (8, 16, 32)
    long = (16, 32, 64) if quick else (4, 8, 16, 32, 64, 128)
    short = (8, 16, 32) if quick else (4, 8, 16, 32, 64)
    runs = [
        Experiment("t5.without.bump", partial(without, cycles=long, cells=40)),
        Experiment("t5.without.box", partial(without, start="box", cycles=long, cells=40)),
        Experiment("t5.with.sigma=0.2", partial(switching_with_noise, cycles=short)),
        Experiment(
            "t5.with.palindromic", partial(switching_with_noise, palindromic=True, cycles=few)
        ),
    ]
    if quick:
        return runs
    coupled = Generators.drawn(2, speed=0.4).turned(0.5)
    return [
        *runs,
        *(
            Experiment(
                f"t5.with.{start}.sigma={sigma:g}",
                partial(switching_with_noise, start=start, sigma=sigma, cycles=short),
            )
            for start, sigma in (("bump", 0.5), ("bump", 0.1), ("block", 0.2), ("box", 0.2))
        ),
        Experiment("t5.without.palindromic", partial(without, palindromic=True, cycles=few)),
        Experiment(
            "t5.without.square", partial(without, generators=coupled, cycles=(4, 8, 16), cells=6)
        ),
        Experiment(
            "t5.with.square",
            partial(
                switching_with_noise,
                generators=coupled,
                sigma=0.5,
                cycles=few,
                grid=Grid(8, 2),
            ),
        ),
        Experiment("t5.with.product", product_on_square),
    ]
