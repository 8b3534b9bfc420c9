r"""The equation is solved at the orders that theory promises, and no mass is lost on the way.

All figures with noise rest on the Galerkin solution of

.. math:: (\partial_t\rho, w) + D(\nabla\rho,\nabla w) - (v\rho,\nabla w) = 0
    \quad\text{for all } w\in V_h,\qquad D = \sigma^2/2

(standard theory): elements of degree p are of order p + 1 in L2 where density and drift are smooth
and :math:`v\cdot n = 0`, time schemes are of the order of their tableaus, and with :math:`w = 1`
the mass is constant; with absorbing walls it is so together with what these have taken. Those
without noise rest on markers that are carried along characteristics.

Densities and drifts without source term, in closed form, show the orders. The mass is that of the
computed solution: an iterative solver loses as much as its tolerance, so that the steps give it
back; the check runs GMRES with a tolerance so loose that the loss would be seen.
"""

import math
from collections.abc import Callable, Sequence

from mpi4py import MPI

import numpy as np
from dolfinx import fem

from fpcontrol import SDIRK2, SDIRK4, BackwardEuler, CrankNicolson, FokkerPlanck, density, distances
from fpcontrol.characteristics import Markers, carry
from fpcontrol.mesh import interval, rectangle
from fpcontrol.theorems.experiments.absorbing_walls import absorbing_walls
from fpcontrol.theorems.framework import Experiment, Figure, Grid, Line, Study, measure
from fpcontrol.theorems.framework.resolution import cube
from fpcontrol.typing import Array
from fpcontrol.verification import Manufactured, l2_error, orders

SCHEMES = (BackwardEuler(), CrankNicolson(), SDIRK2(), SDIRK4())


def mass(
    comm: MPI.Comm,
    *,
    sigma: float = 0.7,
    t1: float = 1.0,
    cells: int = 8,
    steps: int = 20,
    rtol: float = 1e-3,
) -> Study:
    """Mass after steps whose linear systems are solved badly, on the unit square.

    Args:
        cells: A side.
        rtol: Relative tolerance of GMRES.
    """
    study = Study(
        f"Mass with GMRES at a tolerance of {rtol:g}",
        r"The mass is constant to round-off, whatever the solver's tolerance and the scheme.",
    )
    problem, mesh = Manufactured(2, sigma), rectangle(comm, (cells, cells))
    bad = {"linear_solver": "gmres", "petsc_options": {"ksp_rtol": rtol}}
    equations = [
        FokkerPlanck(mesh, problem.drift, sigma, **options)
        for options in (bad, {"linear_solver": "direct"})
    ]
    for scheme in SCHEMES:
        loose, exact = (
            equation.solve(problem.start(mesh, 2), t1, steps, scheme=scheme)
            for equation in equations
        )
        # Of the computed solutions, on this mesh: round-off of some hundred additions a step.
        name = f"{scheme.name}: largest change of mass"
        study.exactly(name, loose.mass_defect, below=1e-13)
        # The solver is as bad as it should be: all else is off by far more.
        gap = distances.l2(loose[-1], exact[-1])
        study.exactly(f"{scheme.name}: L2 distance to exact solves", gap, above=1e-6)
    return study


def characteristics(
    comm: MPI.Comm,
    *,
    a: float = 0.6,
    b: float = 0.8,
    middle: float = 0.3,
    t1: float = 1.0,
    cells: int = 128,
) -> Study:
    r"""Markers without noise that contract to a point, from a density that is not uniform.

    .. math:: v = -b(1 + t)(x - c),\qquad \rho_0 = 1 + a\cos\pi x

    Args:
        a: Amplitude, inside (-1, 1).
        b: Rate, positive.
        middle: The point c, inside (0, 1).
        cells: Of markers, at the coarser of two resolutions.
    """
    study = Study(
        "Characteristics that contract, $\\sigma = 0$",
        "Densities, distances and masses of markers are those of the closed form.",
    )
    shrunk = math.exp(-b * (t1 + 0.5 * t1**2))
    edges = np.linspace(0.0, 1.0, 21)
    # Where markers at the edges of the bins have come from, and the mass below them.
    origin = np.clip(middle + (edges - middle) / shrunk, 0.0, 1.0)
    masses = np.diff(origin + a * np.sin(np.pi * origin) / np.pi)

    def run(cells: int, rtol: float) -> Array:
        markers = Markers.on_interval(comm, cells, lambda x: 1.0 + a * np.cos(np.pi * x[:, 0]))
        flow, still = (
            carry(markers, drift, [0.0, t1], rtol=rtol, atol=rtol)
            for drift in (lambda t, x: -b * (1.0 + t) * (x - middle), lambda t, x: 0.0 * x)
        )
        gap = np.abs(flow.cell_masses(1, edges) - masses).max()
        return np.array([flow.norms[-1], flow.wasserstein(still)[-1], gap])

    norm, w2, gap = Figure.refined(run(cells, 1e-8), run(2 * cells, 1e-10))
    first, second = 0.5 - 2.0 * a / np.pi**2, 1.0 / 3.0 - 2.0 * a / np.pi**2
    moved = (1.0 - shrunk) * math.sqrt(second - 2.0 * middle * first + middle**2)
    study.equals("L2 norm of the density", norm, math.sqrt((1.0 + 0.5 * a**2) / shrunk), 1e-7)
    study.equals("W2 to the start", w2, moved, 1e-7)
    # The mass of a cell of markers is spread evenly: cells cut by an edge are off by h**2.
    study.below("largest error of the masses in 20 bins", gap, 1e-4)
    return study


def known_distances(comm: MPI.Comm, *, a: float = 0.6, grid: Grid | None = None) -> Study:
    r"""Distances between :math:`1 + a\cos\pi x` and the uniform density.

    Args:
        a: Amplitude, inside (0, 1).
        grid: Cells and degree at the coarser of two resolutions.
    """
    study = Study(
        f"Distances in closed form, $a = {a:g}$",
        r"What densities are measured with, between $1 + a\cos\pi x$ and 1.",
    )
    root = math.sqrt(1.0 - a**2)
    known: dict[str, tuple[Callable[[fem.Function, fem.Function], float], float]] = {
        "L2": (distances.l2, a / math.sqrt(2.0)),
        "H^-1": (distances.h_minus_1, a / (math.sqrt(2.0) * np.pi)),
        "W1": (lambda u, v: distances.wasserstein(u, v, 1.0), 2.0 * a / np.pi**2),
        "total variation": (distances.total_variation, a / np.pi),
        "KL": (distances.kl, math.log(0.5 * (1.0 + root)) + 1.0 - root),
        "KL, reversed": (lambda u, v: distances.kl(v, u), -math.log(0.5 * (1.0 + root))),
        "chi-square": (distances.chi_square, 0.5 * a**2),
        "chi-square, reversed": (lambda u, v: distances.chi_square(v, u), 1.0 / root - 1.0),
    }

    def run(grid: Grid) -> Array:
        mesh = interval(comm, grid.cells)
        one = density.uniform(mesh, grid.degree)
        wave = density.interpolate(mesh, lambda x: 1.0 + a * np.cos(np.pi * x[0]), grid.degree)
        return np.array([distance(wave, one) for distance, _ in known.values()])

    exact = [value for _, value in known.values()]
    study.equals("{}", measure(run, grid or Grid(64, 1)), exact, 1e-5, over=known)
    return study


# -- orders ----------------------------------------------------------------------------------------


def orders_in_space(
    comm: MPI.Comm,
    *,
    dimension: int = 1,
    sigma: float = 0.7,
    t1: float = 0.25,
    cells: Sequence[int] = (6, 12, 24),
) -> Study:
    """L2 errors of elements of degree 1 to 3 under refinement.

    Args:
        cells: Of a side, each twice the one before; three numbers.
    """
    study = Study(
        f"Orders in space, {dimension}-D, $\\sigma = {sigma:g}$",
        r"Elements of degree $p$ are of order $p+1$ in L2.",
    )
    # An affine amplitude: SDIRK4 leaves no error in time that counts beside the mesh's.
    problem = Manufactured(dimension, sigma)

    def error(degree: int, n: int) -> float:
        mesh = cube(comm, dimension, n)
        equation = FokkerPlanck(mesh, problem.drift, sigma, degree=degree)
        run = equation.solve(problem.start(mesh, degree), t1, 8, scheme=SDIRK4())
        return l2_error(run[-1], lambda x: problem.density(t1, x))

    errors = {f"degree {p}": [error(p, n) for n in cells] for p in (1, 2, 3)}
    _check_orders(study, errors, [2, 3, 4])
    lines = [Line(cells, values, name) for name, values in errors.items()]
    study.picture(f"L2 error, {dimension}-D", "cells of a side", "error", *lines, log="xy")
    return study


def orders_in_time(
    comm: MPI.Comm,
    *,
    sigma: float = 0.7,
    t1: float = 1.0,
    cells: int = 64,
    steps: Sequence[int] = (12, 24, 48),
) -> Study:
    """L2 errors of the time schemes under refinement, on the unit interval.

    Args:
        cells: Of elements of degree 3, for an error below that of the schemes.
        steps: Each twice the one before; three numbers.
    """
    study = Study(
        f"Orders in time, $\\sigma = {sigma:g}$",
        "The schemes are of the order of their tableaus, for a drift that depends on time.",
    )
    problem = Manufactured(
        1, sigma, lambda t: 0.5 * np.cos(3.0 * t), lambda t: -1.5 * np.sin(3.0 * t)
    )
    mesh = interval(comm, cells)
    equation, start = FokkerPlanck(mesh, problem.drift, sigma, degree=3), problem.start(mesh, 3)
    errors = {
        scheme.name: [
            l2_error(
                equation.solve(start, t1, n, scheme=scheme)[-1], lambda x: problem.density(t1, x)
            )
            for n in steps
        ]
        for scheme in SCHEMES
    }
    _check_orders(study, errors, [scheme.order for scheme in SCHEMES])
    lines = [Line(steps, values, name) for name, values in errors.items()]
    study.picture("L2 error", "steps", "error", *lines, log="xy")
    return study


def _check_orders(study: Study, errors: dict[str, list[float]], predicted: list[int]) -> None:
    # Observed orders approach the predicted ones from one refinement to the next; a tenth off is
    # far from the order below and above.
    found = Figure.refined(*np.array([orders(values) for values in errors.values()]).T)
    study.equals("{}: observed order", found, predicted, 0.1, over=errors)


EXPERIMENTS = [
    Experiment("equation.mass", mass),
    Experiment("equation.walls", absorbing_walls),
    Experiment("equation.characteristics", characteristics),
    Experiment("equation.distances", known_distances),
    Experiment("equation.space.1d", orders_in_space),
    Experiment("equation.time", orders_in_time),
    Experiment("equation.space.2d", orders_in_space, dimension=2, cells=(4, 8, 16), quick=None),
]
