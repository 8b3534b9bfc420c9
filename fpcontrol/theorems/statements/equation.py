r"""The equation is solved at the orders that theory promises, and no mass is lost on the way.

All figures with noise rest on the Galerkin solution of

.. math:: (\partial_t\rho, w) + D(\nabla\rho,\nabla w) - (v\rho,\nabla w) = 0
    \quad\text{for all } w\in V_h,\qquad D = \sigma^2/2

(standard theory): elements of degree p are of order p + 1 in L2 where density and drift are smooth
and :math:`v\cdot n = 0`, time schemes are of the order of their tableaus, and with :math:`w = 1`
the mass is constant. Those without noise rest on markers that are carried along characteristics.

Densities and drifts without source term, in closed form, show the orders. The mass is that of the
computed solution: an iterative solver loses as much as its tolerance, so that the steps give it
back; the check runs GMRES with a tolerance so loose that the loss would be seen.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from mpi4py import MPI

import numpy as np
from dolfinx import fem

from fpcontrol import density, distances
from fpcontrol.characteristics.flow import Markers, carry
from fpcontrol.fokker_planck import FokkerPlanck
from fpcontrol.mesh import interval, rectangle
from fpcontrol.stepping.schemes import SDIRK2, SDIRK4, BackwardEuler, CrankNicolson, Scheme
from fpcontrol.theorems.framework.checks import Line, Panel, Row, Study
from fpcontrol.theorems.framework.experiments import Experiment
from fpcontrol.theorems.framework.resolution import Grid, measured
from fpcontrol.typing import Array
from fpcontrol.verification import Manufactured, l2_error, orders

SCHEMES = (BackwardEuler(), CrankNicolson(), SDIRK2(), SDIRK4())


def experiments(quick: bool = False) -> list[Experiment]:
    """Orders in space and in time, and the mass."""
    listed = [
        Experiment("equation.mass", mass),
        Experiment("equation.characteristics", characteristics),
        Experiment("equation.distances", known_distances),
        Experiment("equation.space.1d", orders_in_space),
        Experiment("equation.time", orders_in_time),
    ]
    if quick:
        return listed
    return [
        *listed,
        Experiment("equation.space.2d", partial(orders_in_space, dimension=2, cells=(4, 8, 16))),
    ]


def mass(
    comm: MPI.Comm,
    *,
    sigma: float = 0.7,
    t1: float = 1.0,
    cells: int = 8,
    steps: int = 20,
    rtol: float = 1e-3,
) -> Study:
    """Mass after steps whose linear systems are solved badly, on the unit square. Collective.

    Args:
        comm: Communicator.
        sigma: Noise.
        t1: Last time.
        cells: A side.
        steps: Number of steps.
        rtol: Relative tolerance of GMRES.
    """
    problem, mesh = Manufactured(2, sigma), rectangle(comm, (cells, cells))
    solvers: tuple[dict[str, Any], ...] = (
        {"linear_solver": "gmres", "petsc_options": {"ksp_rtol": rtol}},
        {"linear_solver": "direct"},
    )
    rows = []
    for scheme in SCHEMES:
        loose, exact = (
            FokkerPlanck(mesh, problem.drift, sigma, **options).solve(
                problem.start(mesh, 2), t1, steps, scheme=scheme
            )
            for options in solvers
        )
        # Of the computed solutions, on this mesh: round-off of some hundred additions a step.
        change, gap = loose.mass_defect, distances.l2(loose[-1], exact[-1])
        rows += [
            Row(f"{scheme.name}: largest change of mass", change, bound=1e-13, exact=True),
            # The solver is as bad as it should be: all else is off by far more.
            Row(f"{scheme.name}: L2 distance to exact solves", gap, at_least=1e-6, exact=True),
        ]
    return Study(
        f"Mass with GMRES at a tolerance of {rtol:g}",
        r"The mass is constant to round-off, whatever the solver's tolerance and the scheme.",
        "own",
        tuple(rows),
    )


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

    Collective.

    Args:
        comm: Communicator.
        a: Amplitude, inside (-1, 1).
        b: Rate, positive.
        middle: The point c, inside (0, 1).
        t1: Last time.
        cells: Of markers, at the coarser of two resolutions.
    """
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

    coarse, fine = run(cells, 1e-8), run(2 * cells, 1e-10)
    first, second = 0.5 - 2.0 * a / np.pi**2, 1.0 / 3.0 - 2.0 * a / np.pi**2
    norm = math.sqrt((1.0 + 0.5 * a**2) / shrunk)
    moved = (1.0 - shrunk) * math.sqrt(second - 2.0 * middle * first + middle**2)
    errors = np.abs(fine - coarse)
    return Study(
        "Characteristics that contract, $\\sigma = 0$",
        "Densities, distances and masses of markers are those of the closed form.",
        "own",
        (
            Row("L2 norm of the density", float(fine[0]), norm, None, None, float(errors[0]), 1e-7),
            Row("W2 to the start", float(fine[1]), moved, None, None, float(errors[1]), 1e-7),
            # The mass of a cell of markers is spread evenly: cells cut by an edge are off by h**2.
            Row(
                "largest error of the masses in 20 bins",
                float(fine[2]),
                bound=1e-4,
                discretization_error=float(errors[2]),
            ),
        ),
    )


def known_distances(comm: MPI.Comm, *, a: float = 0.6, grid: Grid | None = None) -> Study:
    r"""Distances between :math:`1 + a\cos\pi x` and the uniform density. Collective.

    Args:
        comm: Communicator.
        a: Amplitude, inside (0, 1).
        grid: Cells and degree at the coarser of two resolutions.
    """
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

    found, errors = measured(run, grid or Grid(64, 1))
    rows = (
        Row(name, float(figure), exact, None, None, float(error), 1e-5)
        for (name, (_, exact)), figure, error in zip(known.items(), found, errors, strict=True)
    )
    claim = r"What densities are measured with, between $1 + a\cos\pi x$ and 1."
    return Study(f"Distances in closed form, $a = {a:g}$", claim, "own", tuple(rows))


def orders_in_space(
    comm: MPI.Comm,
    *,
    dimension: int = 1,
    sigma: float = 0.7,
    t1: float = 0.25,
    cells: Sequence[int] = (6, 12, 24),
) -> Study:
    """L2 errors of elements of degree 1 to 3 under refinement. Collective.

    Args:
        comm: Communicator.
        dimension: 1 or 2.
        sigma: Noise.
        t1: Last time.
        cells: Of a side, each twice the one before; three numbers.
    """
    # An affine amplitude: SDIRK4 leaves no error in time that counts beside the mesh's.
    problem = Manufactured(dimension, sigma)
    rows, lines = [], []
    for degree in (1, 2, 3):
        errors = []
        for n in cells:
            mesh = interval(comm, n) if dimension == 1 else rectangle(comm, (n, n))
            equation = FokkerPlanck(mesh, problem.drift, sigma, degree=degree)
            run = equation.solve(problem.start(mesh, degree), t1, 8, scheme=SDIRK4())
            errors.append(l2_error(run[-1], lambda x: problem.density(t1, x)))
        before, last = orders(errors)
        rows.append(_order(f"degree {degree}", float(last), float(before), degree + 1))
        lines.append(Line(cells, errors, f"degree {degree}"))
    return Study(
        f"Orders in space, {dimension}-D, $\\sigma = {sigma:g}$",
        r"Elements of degree $p$ are of order $p+1$ in L2.",
        "own",
        tuple(rows),
        (
            Panel(
                f"L2 error, {dimension}-D", "cells of a side", "error", tuple(lines), "log", "log"
            ),
        ),
    )


def orders_in_time(
    comm: MPI.Comm,
    *,
    sigma: float = 0.7,
    t1: float = 1.0,
    cells: int = 64,
    steps: Sequence[int] = (12, 24, 48),
) -> Study:
    """L2 errors of the time schemes under refinement, on the unit interval. Collective.

    Args:
        comm: Communicator.
        sigma: Noise.
        t1: Last time.
        cells: Of elements of degree 3, for an error below that of the schemes.
        steps: Each twice the one before; three numbers.
    """
    problem = Manufactured(
        1, sigma, lambda t: 0.5 * np.cos(3.0 * t), lambda t: -1.5 * np.sin(3.0 * t)
    )
    mesh = interval(comm, cells)
    equation = FokkerPlanck(mesh, problem.drift, sigma, degree=3)
    rows, lines = [], []
    for scheme in SCHEMES:
        errors = [_final_error(equation, problem, t1, n, scheme) for n in steps]
        before, last = orders(errors)
        rows.append(_order(scheme.name, float(last), float(before), scheme.order))
        lines.append(Line(steps, errors, scheme.name))
    return Study(
        f"Orders in time, $\\sigma = {sigma:g}$",
        "The schemes are of the order of their tableaus, for a drift that depends on time.",
        "own",
        tuple(rows),
        (Panel("L2 error", "steps", "error", tuple(lines), "log", "log"),),
    )


def _final_error(
    equation: FokkerPlanck, problem: Manufactured, t1: float, steps: int, scheme: Scheme
) -> float:
    run = equation.solve(problem.start(equation.mesh, 3), t1, steps, scheme=scheme)
    return l2_error(run[-1], lambda x: problem.density(t1, x))


def _order(name: str, last: float, before: float, predicted: int) -> Row:
    # Observed orders approach the predicted ones from one refinement to the next; a tenth off is
    # far from the order below and above.
    return Row(
        f"{name}: observed order",
        last,
        predicted=float(predicted),
        discretization_error=abs(last - before),
        tolerance=0.1,
    )
