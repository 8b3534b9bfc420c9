r"""What a matched score does not see: part of what is said about Lemma 2 (own).

Two modes with other masses have nearly the same score. The Fisher divergence of the two densities
is exponentially small in the distance of the modes, their total variation is not, and Langevin
dynamics with the wrong masses' score moves nothing.
"""

import functools
import math

from mpi4py import MPI

import numpy as np

from fpcontrol import density
from fpcontrol.drift import Steady
from fpcontrol.fokker_planck import FokkerPlanck
from fpcontrol.mesh import interval
from fpcontrol.theorems.framework.checks import Line, Panel, Row, Study
from fpcontrol.theorems.framework.experiments import Experiment
from fpcontrol.theorems.framework.resolution import Grid, measured
from fpcontrol.typing import Array


def _two_modes(x: Array, distance: float, mass: float) -> tuple[Array, Array]:
    """Density and score of ``mass`` N(distance, 1) + ``1 - mass`` N(-distance, 1)."""
    right, left = (np.exp(-0.5 * (x - c) ** 2) for c in (distance, -distance))
    # Logistic function of the log-odds: right where both Gaussians underflow too.
    share = 1.0 / (1.0 + (1.0 - mass) / mass * np.exp(-2.0 * distance * x))
    value = (mass * right + (1.0 - mass) * left) / math.sqrt(2.0 * math.pi)
    return value, distance * (2.0 * share - 1.0) - x


def _first(distance: float, mass: float, x: Array) -> Array:
    return _two_modes(x[0], distance, mass)[0]


def _langevin(diffusivity: float, distance: float, mass: float, x: Array) -> Array:
    return diffusivity * _two_modes(x, distance, mass)[1]


def mode_weights(
    comm: MPI.Comm,
    *,
    sigma: float = 1.0,
    t1: float = 4.0,
    masses: tuple[float, float] = (0.9, 0.5),
    distances: tuple[float, ...] = (2.0, 3.0, 4.0, 6.0, 8.0),
    grid: Grid | None = None,
) -> Study:
    r"""Langevin dynamics with the score of other mode masses. Collective.

    From q with modes N(+-m, 1) of masses (q_1, 1 - q_1), the drift :math:`D\nabla\log p` of the
    masses (p_1, 1 - p_1) for a time T, long for one mode (T D = 2 by default). By the entropy
    bound of Girsanov's theorem,

    .. math:: \mathrm{KL}(q\,|\,\rho(T)) \le \frac{DT}{4}\int q\,|\nabla\log(p/q)|^2\,dx .

    The Fisher divergence on the right is, with r the mass of the right mode as seen at
    :math:`y = 2mx`,

    .. math:: \frac{2m}{\sqrt{2\pi}}\,e^{-m^2/2}\int e^{-y^2/8m^2}
        \bigl(q_1e^{y/2} + (1 - q_1)e^{-y/2}\bigr)(r_p - r_q)^2\,dy ,

    an integral that tends to a constant for large m. Lengths are in standard deviations of a mode.

    Args:
        comm: Communicator.
        sigma: Noise.
        t1: Time.
        masses: q_1 and p_1.
        distances: m, ascending.
        grid: Resolution.
    """
    grid, D, (q1, p1) = grid or Grid(200, 100), 0.5 * sigma**2, masses

    def run(grid: Grid) -> Array:
        found = []
        for m in distances:
            mesh = interval(comm, grid.cells, -m - 8.0, m + 8.0)
            start = density.interpolate(mesh, functools.partial(_first, m, q1), grid.degree)
            drift = Steady(functools.partial(_langevin, D, m, p1))
            equation = FokkerPlanck(mesh, drift, sigma, degree=grid.degree)
            g = equation.elements
            rho = g.evaluate(equation.solve(start, t1, grid.steps).levels[-1]).ravel()
            (q, score_q), (p, score_p) = (_two_modes(g.points[:, 0], m, a) for a in masses)
            rho = np.maximum(rho, 1e-300)
            parts = (
                q * (score_p - score_q) ** 2,
                0.5 * np.abs(q - p),
                0.5 * np.abs(rho - p),
                q * np.log(np.maximum(q, 1e-300) / rho) - q + rho,
                (p - q) ** 2,
                p**2,
            )
            found.append([g.sum(float(g.quadrature_weights @ f)) for f in parts])
        return np.array(found)

    fine, error = measured(run, grid)
    fisher, apart, left, kl = fine[:, :4].T
    y, ms = np.linspace(-60.0, 60.0, 24001), np.array(distances)
    r_q, r_p = (1.0 / (1.0 + (1.0 - a) / a * np.exp(-y)) for a in masses)
    bump = (q1 * np.exp(0.5 * y) + (1.0 - q1) * np.exp(-0.5 * y)) * (r_p - r_q) ** 2
    seen = np.trapezoid(np.exp(-0.125 * (y / ms[:, None]) ** 2) * bump, y)
    scale = 2.0 * ms / math.sqrt(2.0 * math.pi) * np.exp(-0.5 * ms**2)
    exact, limit = scale * seen, scale * float(np.trapezoid(bump, y))
    rows = []
    for i, m in enumerate(distances):
        bound = 0.25 * D * t1 * fisher[i]
        rows.append(
            Row(
                f"Fisher divergence, m = {m:g}",
                fisher[i],
                predicted=exact[i],
                discretization_error=error[i, 0],
                tolerance=1e-3,
            )
        )
        # Below 1e-7 the divergence is lost in the error of the elements.
        if bound > 1e-7:
            name = f"KL(q | rho(T)) against D T/4 times it, m = {m:g}"
            rows.append(Row(name, kl[i], bound=bound, discretization_error=error[i, 3]))
        name = f"total variation between rho(T) and p, m = {m:g}"
        rows.append(Row(name, left[i], discretization_error=error[i, 2]))
    rows += [
        Row(
            f"total variation between q and p, m = {ms[-1]:g}",
            apart[-1],
            predicted=abs(q1 - p1),
            discretization_error=error[-1, 1],
            tolerance=1e-3,
        ),
        Row(
            f"relative L2 distance of q and p, m = {ms[-1]:g}",
            math.sqrt(fine[-1, 4] / fine[-1, 5]),
            predicted=abs(q1 - p1) * math.sqrt(2.0 / (p1**2 + (1.0 - p1) ** 2)),
            discretization_error=float(error[-1, 4] / fine[-1, 4]),
            tolerance=1e-3,
        ),
        Row(
            f"total variation between rho(T) and p is what it was, m = {ms[-1]:g}",
            left[-1],
            predicted=abs(q1 - p1),
            discretization_error=error[-1, 2],
            tolerance=1e-3,
        ),
        Row(
            f"control: modes that touch do move, total variation by, m = {ms[0]:g}",
            apart[0] - left[0],
            # A thousand times what far modes move by, and what round-off is.
            at_least=1e3 * max(abs(apart[-1] - left[-1]), 1e-12),
            discretization_error=error[0, 2],
        ),
    ]
    lines = (
        Line(list(distances), fisher.tolist(), "Fisher divergence", "o"),
        Line(list(distances), limit.tolist(), "limit for large m", "-"),
        Line(list(distances), left.tolist(), "total variation left at T", "s-"),
    )
    return Study(
        f"masses of modes, {q1:g} against {p1:g}, sigma = {sigma:g}, T = {t1:g}",
        "Two densities with nearly the same score can differ in the masses of far modes: the "
        "Fisher divergence vanishes with the distance, the total variation stays.",
        "own",
        tuple(rows),
        (Panel("blind to masses", "half distance of modes", "divergence", lines, "linear", "log"),),
    )


def experiments(quick: bool) -> list[Experiment]:
    """What ``fpcontrol verify`` runs, quick or not."""
    return [Experiment("t2.mode_weights", mode_weights)]
