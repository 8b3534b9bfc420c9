r"""What a matched score does not see: a supplement to Lemma 2 (own).

Two modes with other masses have nearly the same score. The Fisher divergence of the two densities
is exponentially small in the distance of the modes, their total variation is not, and Langevin
dynamics with the wrong masses' score moves nothing.
"""

import math

from mpi4py import MPI

import numpy as np

from fpcontrol.discretization.elements import Elements
from fpcontrol.drift import Steady
from fpcontrol.mesh import interval
from fpcontrol.theorems.framework import Experiment, Grid, Study, measure_each
from fpcontrol.theorems.framework.resolution import solve
from fpcontrol.typing import Array


def two_modes(x: Array, distance: float, mass: float) -> tuple[Array, Array]:
    """Density and score of ``mass`` N(distance, 1) + ``1 - mass`` N(-distance, 1)."""
    right, left = (np.exp(-0.5 * (x - c) ** 2) for c in (distance, -distance))
    # Logistic function of the log-odds: right where both Gaussians underflow too.
    share = 1.0 / (1.0 + (1.0 - mass) / mass * np.exp(-2.0 * distance * x))
    value = (mass * right + (1.0 - mass) * left) / math.sqrt(2.0 * math.pi)
    return value, distance * (2.0 * share - 1.0) - x


def fisher_divergences(distances: Array, masses: tuple[float, float]) -> tuple[Array, Array]:
    """The closed form of ``mode_weights``, and its limit for large m, both ``(N,)``."""
    q1 = masses[0]
    y = np.linspace(-60.0, 60.0, 24001)
    r_q, r_p = (1.0 / (1.0 + (1.0 - a) / a * np.exp(-y)) for a in masses)
    bump = (q1 * np.exp(0.5 * y) + (1.0 - q1) * np.exp(-0.5 * y)) * (r_p - r_q) ** 2
    seen = np.trapezoid(np.exp(-0.125 * (y / distances[:, None]) ** 2) * bump, y)
    scale = 2.0 * distances / math.sqrt(2.0 * math.pi) * np.exp(-0.5 * distances**2)
    return scale * seen, scale * float(np.trapezoid(bump, y))


def langevin(
    comm: MPI.Comm, sigma: float, t1: float, masses: tuple[float, float], m: float, grid: Grid
) -> Array:
    """Integrals that compare q, the density rho(T) that Langevin dynamics makes of it, and p.

    The Fisher divergence of q and p, their total variation, that of rho(T) and p, KL(q, rho(T)),
    and the squares of q - p and p. Collective.
    """
    mesh, (q1, p1) = interval(comm, grid.cells, -m - 8.0, m + 8.0), masses
    drift = Steady(lambda x: 0.5 * sigma**2 * two_modes(x, m, p1)[1])
    run = solve(mesh, drift, sigma, lambda x: two_modes(x[0], m, q1)[0], t1, grid)
    g = Elements(run.space)
    rho = g.evaluate(run.levels[-1]).ravel()
    (q, score_q), (p, score_p) = (two_modes(g.points[:, 0], m, a) for a in masses)
    rho = np.maximum(rho, 1e-300)
    parts = (
        q * (score_p - score_q) ** 2,
        0.5 * np.abs(q - p),
        0.5 * np.abs(rho - p),
        q * np.log(np.maximum(q, 1e-300) / rho) - q + rho,
        (p - q) ** 2,
        p**2,
    )
    return np.array([g.sum(float(g.quadrature_weights @ f)) for f in parts])


def mode_weights(
    comm: MPI.Comm,
    *,
    sigma: float = 1.0,
    t1: float = 4.0,
    masses: tuple[float, float] = (0.9, 0.5),
    distances: tuple[float, ...] = (2.0, 3.0, 4.0, 6.0, 8.0),
    grid: Grid | None = None,
) -> Study:
    r"""Langevin dynamics with the score of other mode masses.

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
        masses: q_1 and p_1.
        distances: m, ascending.
    """
    D, (q1, p1) = 0.5 * sigma**2, masses
    study = Study(
        f"masses of modes, {q1:g} against {p1:g}, sigma = {sigma:g}, T = {t1:g}",
        "Two densities with nearly the same score can differ in the masses of far modes: the "
        "Fisher divergence vanishes with the distance, the total variation stays.",
    )

    def run(m: float, at: Grid) -> Array:
        return langevin(comm, sigma, t1, masses, m, at)

    runs = measure_each(run, distances, grid or Grid(200, 100)).T
    fisher, apart, left, kl, square, size = runs
    exact, limit = fisher_divergences(np.array(distances), masses)
    study.equals("Fisher divergence, m = {:g}", fisher, exact, 1e-3, over=distances)
    for m, bound, divergence in zip(distances, 0.25 * D * t1 * fisher.value, kl, strict=True):
        # Below 1e-7 the divergence is lost in the error of the elements.
        if bound > 1e-7:
            study.below(f"KL(q | rho(T)) against D T/4 times it, m = {m:g}", divergence, bound)
    study.report("total variation between rho(T) and p, m = {:g}", left, over=distances)
    last, first, known = f"m = {distances[-1]:g}", f"m = {distances[0]:g}", abs(q1 - p1)
    study.equals(f"total variation between q and p, {last}", apart[-1], known, 1e-3)
    relative = known * math.sqrt(2.0 / (p1**2 + (1.0 - p1) ** 2))
    name = f"relative L2 distance of q and p, {last}"
    study.equals(name, (square[-1] / size[-1]).sqrt(), relative, 1e-3)
    name = f"total variation between rho(T) and p is what it was, {last}"
    study.equals(name, left[-1], known, 1e-3)
    study.above(
        f"control: modes that touch do move, total variation by, {first}",
        apart[0] - left[0],
        # A thousand times what far modes move by, and what round-off is.
        1e3 * max(abs(float(apart[-1] - left[-1])), 1e-12),
    )
    curves = {
        "Fisher divergence": fisher,
        "limit for large m": limit,
        "total variation left at T": left,
    }
    study.curves("blind to masses", "half distance of modes", "divergence", distances, curves, "y")
    return study


EXPERIMENTS = [Experiment("t2.mode_weights", mode_weights)]
