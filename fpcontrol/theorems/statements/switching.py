r"""Limited width: few neurons at a time, switched fast, do what many do at once.

A statement of the kind of the theorems on networks of limited width in [1] and [2]: a drift with
as many neurons as dimensions, :math:`v(t,x) = W(t)\,\varphi(A(t)x + b(t))`, whose weights are
piecewise constant in time, comes as close as one likes to what any wide network
:math:`\sum_{j\le m} g_j` does: run through :math:`m\,g_1, \ldots, m\,g_m` in each of ``n`` cycles.
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

from collections.abc import Sequence
from functools import partial

from mpi4py import MPI

import numpy as np

from fpcontrol import SDIRK2, FokkerPlanck, density
from fpcontrol.discretization.elements import Elements
from fpcontrol.theorems.experiments.by_particles import switching_by_particles
from fpcontrol.theorems.framework import Experiment, Figure, Grid, Study
from fpcontrol.theorems.framework.resolution import cube, measure, measure_each
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
    r"""Rates in the number of cycles along characteristics.

    Args:
        start: bump, or in 1-D also block or box, which have jumps.
        cells: Cells of markers in each direction.
    """
    generators = generators or Generators.drawn()
    which = "forth and back" if palindromic else "cyclic"
    study = Study(
        f"switching, {which}, sigma = 0, {start}, {generators.dimension}-D, T = {t1:g}",
        r"Without noise a smooth density converges in $L^2$ at the rate of the splitting, and one "
        r"with a jump at half of it: its jump is off by the error of the flow.",
    )

    def run(n: int, at: Grid) -> Array:
        switched = Switched(generators, n, t1, palindromic)
        return distances(comm, switched, start, at.cells, RTOL / at.steps**6)

    found = measure_each(run, cycles, Grid(cells, 1)).T
    # Slots may cut steps below what either tolerance asks for: then both runs take the same.
    found = Figure(found.value, found.error + RTOL * (1.0 + found.value[2]))
    (l2, apart, size, moved, sup), rate = found, 2.0 if palindromic else 1.0
    w2 = "W2" if generators.dimension == 1 else "root mean square distance of markers"
    study.report("L2 error, n = {}", l2, over=cycles)
    study.report(f"{w2}, n = {{}}", moved, over=cycles)
    study.report(f"sup_t {w2}, n = {{}}", sup, over=cycles)
    study.report("L2 norm of the average density", size[-1])
    curves = {"L2": l2, w2: moved}
    # Between the ends of its cycles a palindrome is no better than any other order.
    rates = [(w2, moved, rate, 0.05), (f"sup_t {w2}", sup, 1.0, 0.05)]
    if start == "bump":
        rates.append(("L2", l2, rate, 0.05))
    else:
        both = (l2**2 - apart**2).sqrt()
        rates += [
            ("L2", l2, rate / 2, 0.2),
            ("L2 where only one of both is", apart, rate / 2, 0.05),
            ("L2 where both are", both, rate, 0.05),
        ]
        curves["L2 where both are"] = both
    for name, values, expected, tolerance in rates:
        study.equals(*_last_rate(name, cycles, values), -expected, tolerance)
    study.curves("Switching without noise", "cycles n", "error at T", cycles, curves, "xy")
    return study


def _last_rate(name: str, cycles: Sequence[int], values: Figure) -> tuple[str, Figure]:
    """The rate between the last two, and its name."""
    return f"rate of {name}, n = {cycles[-2]} to {cycles[-1]}", values.slopes(cycles)[-1]


# -- sigma > 0 -------------------------------------------------------------------------------------


def compared(
    comm: MPI.Comm, sigma: float, start: str, switched: Switched, grid: Grid
) -> tuple[Array, Array]:
    """Over time: L2 distances of switched and average densities, and norms of both, ``(2, T)``.

    Collective; ``grid.steps`` counts the steps of a slot.
    """
    dimension = switched.generators.dimension
    mesh = cube(comm, dimension, grid.cells)
    rho_0 = density.interpolate(mesh, lambda x: STARTS[start][0](x[:dimension].T), grid.degree)
    steps, g = grid.steps * switched.slots, Elements(rho_0.function_space)
    # At every switch the flux through the walls jumps: an L-stable scheme.
    one, other = (
        FokkerPlanck(mesh, drift, sigma, degree=grid.degree)
        .solve(rho_0, switched.t1, steps, scheme=SDIRK2())
        .levels
        for drift in (switched, Average(switched.generators))
    )
    error = np.array([g.norm(u) for u in one - other])
    return error, np.array([[g.norm(u) for u in levels] for levels in (one, other)])


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
    r"""Rates in the number of cycles with noise, at the last time and over all slots.

    Args:
        start: bump, block or box.
        grid: Cells in each direction, steps a slot, degree.
    """
    generators = generators or Generators.drawn()
    which = "forth and back" if palindromic else "cyclic"
    study = Study(
        f"switching, {which}, sigma = {sigma:g}, {start}, {generators.dimension}-D, T = {t1:g}",
        r"With noise $\|\rho_n-\rho\|_{L^2}$ falls at the rate of the splitting, whatever the "
        r"start density.",
        "reconstructed",
    )

    def run(n: int, at: Grid) -> Array:
        switched = Switched(generators, n, t1, palindromic)
        error, size = compared(comm, sigma, start, switched, at)
        return np.array([error[-1], error.max(), size[1, -1]])

    last, sup, size = measure_each(run, cycles, grid or Grid(100, 2, 3)).T
    rate = 2.0 if palindromic else 1.0
    study.report("L2 error at T, n = {}", last, over=cycles)
    study.report("sup_t L2 error, n = {}", sup, over=cycles)
    study.report("L2 norm of the average density", size[-1])
    study.equals(*_last_rate("L2 at T", cycles, last), -rate, 0.05)
    # A slot moves the density by its length: rate 1 in the end, and 3/4 from a jump, which
    # noise has spread over dt**(1/2) before it is moved by dt. Few cycles are slower.
    study.below(*_last_rate("sup_t L2", cycles, sup), -0.5)
    order = last.value[0] * (cycles[0] / np.array(cycles)) ** rate
    curves = {"at T": last, "sup over t": sup, f"slope -{rate:g}": order}
    title = f"Switching with noise, sigma = {sigma:g}"
    study.curves(title, "cycles n", "L2 error", cycles, curves, "xy")
    return study


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
    r"""Two neurons on the square that act on one direction each: a product of 1-D runs.

    Densities of both flows are products, :math:`r_1 r_2` and :math:`s_1 s_2`, so that
    :math:`\|r_1r_2-s_1s_2\|^2 = \|r_1\|^2\|r_2\|^2 + \|s_1\|^2\|s_2\|^2
    - 2(r_1,s_1)(r_2,s_2)` is known from two runs on the interval.

    Args:
        start: bump, block or box.
        grid: Cells in each direction, steps a slot, degree.
        seed: Of the neurons.
    """
    study = Study(
        f"switching on the square, sigma = {sigma:g}, {start}, T = {t1:g}",
        "Width 2 in 2-D, one neuron for each direction: the densities are products of those on "
        "the interval, and so the error is known.",
    )
    generators, grid = Generators.drawn(2, seed=seed), grid or Grid(12, 4)

    def squares(drawn: Generators, n: int, at: Grid) -> Array:
        """Of the error and of both norms at T."""
        error, size = compared(comm, sigma, start, Switched(drawn, n, t1), at)
        return np.array([error[-1], *size[:, -1]]) ** 2

    def of_product(n: int, at: Grid) -> float:
        error, one, other = np.array([squares(generators.direction(i), n, at) for i in range(2)]).T
        cross = (0.5 * (one + other - error)).prod()
        return np.sqrt(one.prod() + other.prod() - 2.0 * cross)

    for n in cycles:
        error = measure(partial(squares, generators, n), grid)[0].sqrt()
        exact = measure(partial(of_product, n), Grid(50, 2 * grid.steps, 3))
        study.equals(f"L2 error at T on the square, n = {n}", error, exact, 5e-3)
    return study


ALONG, NOISY = switching_without_noise, switching_with_noise
MANY, SOME, FEW = (4, 8, 16, 32, 64, 128), (4, 8, 16, 32, 64), (8, 16, 32)
COUPLED = Generators.drawn(2, speed=0.4).turned(0.5)
QUICK_ALONG, QUICK_NOISY = {"cycles": (16, 32, 64)}, {"cycles": FEW}
EXPERIMENTS = [
    Experiment("t5.without.bump", ALONG, cycles=MANY, cells=40, quick=QUICK_ALONG),
    Experiment("t5.without.box", ALONG, start="box", cycles=MANY, cells=40, quick=QUICK_ALONG),
    Experiment("t5.with.sigma=0.2", NOISY, cycles=SOME, quick=QUICK_NOISY),
    Experiment("t5.with.palindromic", NOISY, palindromic=True, cycles=FEW),
    Experiment("t5.with.bump.sigma=0.5", NOISY, sigma=0.5, cycles=SOME, quick=None),
    Experiment("t5.with.bump.sigma=0.1", NOISY, sigma=0.1, cycles=SOME, quick=None),
    Experiment("t5.with.block.sigma=0.2", NOISY, start="block", cycles=SOME, quick=None),
    Experiment("t5.with.box.sigma=0.2", NOISY, start="box", cycles=SOME, quick=None),
    Experiment("t5.without.palindromic", ALONG, palindromic=True, cycles=FEW, quick=None),
    Experiment(
        "t5.without.square", ALONG, generators=COUPLED, cycles=(4, 8, 16), cells=6, quick=None
    ),
    Experiment(
        "t5.with.square",
        NOISY,
        generators=COUPLED,
        sigma=0.5,
        cycles=FEW,
        grid=Grid(8, 2),
        quick=None,
    ),
    Experiment("t5.with.product", product_on_square, quick=None),
    Experiment("t5.particles", switching_by_particles, quick=None),
]
