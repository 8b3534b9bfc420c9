r"""The equation is solved at the orders that theory promises, and no mass is lost on the way.

All figures with noise rest on the Galerkin solution of

.. math:: (\partial_t\rho, w) + D(\nabla\rho,\nabla w) - (v\rho,\nabla w) = 0
    \quad\text{for all } w\in V_h,\qquad D = \sigma^2/2

(standard theory): elements of degree p are of order p + 1 in L2 where density and drift are smooth
and :math:`v\cdot n = 0`, time schemes are of the order of their tableaus, and with :math:`w = 1`
the mass is constant.

Densities and drifts without source term, in closed form, show the orders. The mass is that of the
computed solution: an iterative solver loses as much as its tolerance, so that the steps give it
back; the check runs GMRES with a tolerance so loose that the loss would be seen.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from mpi4py import MPI

import numpy as np

from fpcontrol.distances import l2
from fpcontrol.fokker_planck import FokkerPlanck
from fpcontrol.mesh import interval, rectangle
from fpcontrol.theorems.study import Experiment, Line, Panel, Row, Study
from fpcontrol.timestepping import SDIRK2, SDIRK4, BackwardEuler, CrankNicolson, Scheme
from fpcontrol.verification import Manufactured, l2_error, orders

SCHEMES = (BackwardEuler(), CrankNicolson(), SDIRK2(), SDIRK4())


def experiments(quick: bool = False) -> list[Experiment]:
    """Orders in space and in time, and the mass."""
    listed = [
        Experiment("equation.mass", mass),
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
        # Round-off of some hundred additions in each of the steps.
        rows.append(Row(f"{scheme.name}: largest change of mass", loose.mass_defect, bound=1e-13))
        # The solver is as bad as it should be: all else is off by far more.
        gap = l2(loose[-1], exact[-1])
        rows.append(Row(f"{scheme.name}: L2 distance to exact solves", gap, at_least=1e-6))
    return Study(
        f"Mass with GMRES at a tolerance of {rtol:g}",
        r"The mass is constant to round-off, whatever the solver's tolerance and the scheme.",
        "own",
        tuple(rows),
    )


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
