r"""What a matched score does not see, and what walls change: around Lemma 2.

- ``mode_weights`` (own): two modes with other masses but nearly the same score. The Fisher
  divergence of the two densities is exponentially small in the distance of the modes, their total
  variation is not, and Langevin dynamics with the wrong masses' score moves nothing.
- ``walls_or_line`` (own): one compactly supported density noised by heat flow between reflecting
  walls, and by an Ornstein-Uhlenbeck process on the line. Both have reversals of finite energy. On
  the line the walls are jumps of the density: it reaches the data at the rate of jumps, with mass
  outside the domain and an unbounded drift.

Traps: the Ornstein-Uhlenbeck process has to be cut off for a mesh, and a cut through its mass (at
the data's own walls, say) changes what the reversal reaches; the divergence of a density with mass
outside from the data is infinite, so that divergences are taken the other way round.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

from mpi4py import MPI

import numpy as np

from fpcontrol import density
from fpcontrol.drift import Steady
from fpcontrol.fokker_planck import FokkerPlanck
from fpcontrol.galerkin import Array
from fpcontrol.mesh import interval
from fpcontrol.theorems.families.noising import (
    JUMP,
    Noising,
    OrnsteinUhlenbeck,
    Piece,
    PiecewiseHeat,
)
from fpcontrol.theorems.families.reversed_noising import reverse
from fpcontrol.theorems.grids import Grid, measured, slopes
from fpcontrol.theorems.study import Experiment, Line, Panel, Row, Study


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

    For large m the Fisher divergence on the right is :math:`\frac{2m}{\sqrt{2\pi}}e^{-m^2/2}
    \int(q_1e^{y/2} + (1 - q_1)e^{-y/2})(r_p - r_q)^2\,dy`, with r the mass of the right mode as
    seen at log-odds y. Lengths are in standard deviations of a mode.

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
            g = equation.galerkin
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
    y = np.linspace(-60.0, 60.0, 24001)
    r_q, r_p = (1.0 / (1.0 + (1.0 - a) / a * np.exp(-y)) for a in masses)
    bump = (q1 * np.exp(0.5 * y) + (1.0 - q1) * np.exp(-0.5 * y)) * (r_p - r_q) ** 2
    shape = float(np.trapezoid(bump, y))
    ms = np.array(distances)
    limit = 2.0 * ms / math.sqrt(2.0 * math.pi) * np.exp(-0.5 * ms**2) * shape
    rows = []
    for i, m in enumerate(distances):
        bound = 0.25 * D * t1 * fisher[i]
        rows.append(
            Row(f"Fisher divergence, m = {m:g}", fisher[i], discretization_error=error[i, 0])
        )
        # Below 1e-9 the divergence is lost in the error of the elements.
        if bound > 1e-9:
            name = f"KL(q | rho(T)) against D T/4 times it, m = {m:g}"
            rows.append(Row(name, kl[i], bound=bound, discretization_error=error[i, 3]))
        name = f"total variation between rho(T) and p, m = {m:g}"
        rows.append(Row(name, left[i], discretization_error=error[i, 2]))
    rows += [
        Row(
            f"Fisher divergence over its limit, m = {ms[-1]:g}",
            fisher[-1] / limit[-1],
            predicted=1.0,
            discretization_error=error[-1, 0] / limit[-1],
            tolerance=0.05,
        ),
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


def walls_or_line(
    comm: MPI.Comm,
    *,
    sigma: float = math.sqrt(0.2),
    t1: float = 1.0,
    amplitude: float = 0.5,
    stops: tuple[float, ...] = (1e-2, 1e-3),
    reach: float = 2.0,
    grid: Grid | None = None,
) -> Study:
    r"""One density on (0, 1), noised between walls and on the line, and reversed. Collective.

    The data are :math:`1 - A\cos 2\pi x`, smooth up to the walls but not zero there. Between walls:
    heat flow, reversed from its own p_T and from the uniform density. On the line:
    Ornstein-Uhlenbeck with the same D and spectral gap :math:`\lambda = \pi^2D`, reversed from p_T
    and from its stationary Gaussian, on (1/2 - reach, 1/2 + reach) with reflection at the ends;
    and from p_T cut off at the data's walls. All with the exact score, down to early stops s_0.

    Args:
        comm: Communicator.
        sigma: Noise, 2 D = sigma**2.
        t1: Noising time.
        amplitude: A, below 1.
        stops: Early stops, descending.
        reach: Half the length of the truncated line: six standard deviations and more.
        grid: Resolution on (0, 1), see ``reverse``.
    """
    grid, D, A = grid or Grid(200, 8), 0.5 * sigma**2, amplitude
    pieces = (Piece(0.0, 1.0, 1.0, -A, 2.0 * math.pi),)
    walls = PiecewiseHeat(pieces, D)
    line = OrnsteinUhlenbeck(PiecewiseHeat(pieces, D, walls=False), math.pi**2 * D)

    def gaussian(x: Array) -> Array:
        return np.exp(-0.5 * (x - 0.5) ** 2 * line.rate / D)

    # Noising process, density to start from if not its own, half the length.
    runs: dict[str, tuple[Noising, Callable[[Array], Array] | None, float]] = {
        "walls": (walls, None, 0.5),
        "walls, from uniform": (walls, np.ones_like, 0.5),
        "line": (line, None, reach),
        "line, from Gaussian": (line, gaussian, reach),
        "line, cut at the data's walls": (line, None, 0.5),
    }

    def run(grid: Grid) -> Array:
        found = []
        for noising, start, half in runs.values():
            fit = Grid(math.ceil(2.0 * half) * grid.cells, grid.steps, grid.degree)
            ends = {"lower": 0.5 - half, "upper": 0.5 + half}
            reached = reverse(comm, noising, sigma, t1, stops, fit, start=start, **ends)
            for r in reached:
                q = np.exp(noising.log_density(t1, r.x))
                noise = np.ones_like(q) if start is None else start(r.x)
                noise = noise / r.integral(noise)
                outside = (r.x < 0.0) | (r.x > 1.0)
                found.append(
                    (
                        r.defect,
                        r.distance(walls.start),
                        r.largest,
                        r.integral(r.values * outside),
                        r.divergence(r.exact),
                        r.integral(q * np.log(q / noise) - q + noise),
                        r.divergence(walls.start(r.x)),
                    )
                )
        return np.array(found).reshape(len(runs), len(stops), -1)

    fine, error = measured(run, grid)
    figures = {name: (fine[i], error[i]) for i, name in enumerate(runs)}
    s, s0 = np.array(stops), f"s_0 = {stops[-1]:g}"
    k = 2.0 * math.pi
    y = np.linspace(0.0, 1.0, 10001)
    steepest = 2.0 * D * float(np.abs(A * k * np.sin(k * y) / (1.0 - A * np.cos(k * y))).max())
    predicted = {
        "walls": (A / math.sqrt(2.0) * -math.expm1(-k * k * D * stops[-1]), 1.0),
        "line": (math.sqrt(2.0 * (1.0 - A) ** 2 * JUMP * math.sqrt(D * stops[-1])), 0.25),
    }
    rows = []
    for name, (distance, power) in predicted.items():
        f, e = figures[name]
        relative = float((e[:, 1] / f[:, 1])[-2:].sum())
        rows += [
            Row(
                f"{name}: relative L2 distance of the reversal to p_s, {s0}",
                f[-1, 0],
                bound=1e-3,
                discretization_error=e[-1, 0],
            ),
            Row(
                f"{name}: L2 distance to the data, {s0}",
                f[-1, 1],
                predicted=distance,
                discretization_error=e[-1, 1],
                tolerance=0.05,
            ),
            Row(
                f"{name}: slope of it in s_0, last two",
                float(slopes(s, f[:, 1])[-1]),
                predicted=power,
                discretization_error=relative / math.log(stops[-2] / stops[-1]),
                tolerance=0.1,
            ),
        ]
    for name in ("walls, from uniform", "line, from Gaussian"):
        f, e = figures[name]
        rows += [
            Row(
                f"{name}: KL(p_s | rho) against KL(p_T | start), {s0}",
                f[-1, 4],
                bound=f[-1, 5],
                discretization_error=e[-1, 4],
            ),
            Row(f"{name}: L2 distance to the data, {s0}", f[-1, 1], discretization_error=e[-1, 1]),
            Row(f"{name}: KL(p_0 | rho), {s0}", f[-1, 6], discretization_error=e[-1, 6]),
        ]
    (f, e), (inner, inner_error) = figures["line"], figures["walls"]
    cut, cut_error = figures["line, cut at the data's walls"]
    rows += [
        Row(
            f"line: mass outside the domain, {s0}",
            f[-1, 3],
            # Half a Gaussian at each wall; the pull towards the middle takes a little of it.
            predicted=2.0 * (1.0 - A) * math.sqrt(D * stops[-1] / math.pi),
            discretization_error=e[-1, 3],
            tolerance=0.06,
        ),
        Row(
            "line: slope of the largest drift in s_0, last two",
            float(slopes(s, f[:, 2])[-1]),
            predicted=-0.5,
            discretization_error=float((e[:, 2] / f[:, 2])[-2:].sum()) / math.log(s[-2] / s[-1]),
            tolerance=0.05,
        ),
        Row(
            "walls: largest drift, against 2 D max |grad log p_0|",
            inner[:, 2].max(),
            bound=steepest,
            discretization_error=float(inner_error[:, 2].max()),
            # The largest slope lies between quadrature points.
            tolerance=1e-3,
        ),
        Row(
            f"control, line cut at the data's walls: L2 distance to the data, {s0}",
            cut[-1, 1],
            at_least=2.0 * f[-1, 1],
            discretization_error=cut_error[-1, 1],
        ),
    ]
    lines = tuple(Line(list(stops), figures[name][0][:, 1].tolist(), name) for name in runs)
    return Study(
        f"noising between walls and on the line, sigma = {sigma:.3g}, T = {t1:g}",
        "With walls, smooth data have bounded reversed drifts, and the early stop costs an error "
        "of order $s_0$; on the line their walls are jumps: order $s_0^{1/4}$, an unbounded drift, "
        "mass outside the domain. Both reversals reach the data as $s_0 \\to 0$.",
        "own",
        tuple(rows),
        (Panel("early stopping", "s_0", "L2 distance to the data", lines, "log", "log"),),
    )


def experiments(quick: bool) -> list[Experiment]:
    """What ``fpcontrol verify`` runs; the quick ones take some seconds."""
    few: dict[str, Any] = {"grid": Grid(60, 4), "reach": 1.5} if quick else {}
    return [
        Experiment("t2.mode_weights", mode_weights),
        Experiment("t2.walls_or_line", functools.partial(walls_or_line, **few)),
    ]
