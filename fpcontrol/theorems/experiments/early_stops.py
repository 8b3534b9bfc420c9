r"""What walls change in reversed noising: part of what is said about Lemma 2 (own).

One compactly supported density is noised by heat flow between reflecting walls, and by an
Ornstein-Uhlenbeck process on the line. Both have reversals of finite energy. On the line the walls
are jumps of the density: it reaches the data at the rate of jumps, with mass outside the domain and
an unbounded drift.

Traps: the Ornstein-Uhlenbeck process has to be cut off for a mesh, and a cut through its mass (at
the data's own walls, say) changes what the reversal reaches; the divergence of a density with mass
outside from the data is infinite, so that divergences are taken the other way round; rates at stops
that a mesh can reach are not yet those of the limit, which closed forms show.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

from mpi4py import MPI

import numpy as np

from fpcontrol.theorems.closed_forms.noising import (
    JUMP,
    Noising,
    OrnsteinUhlenbeck,
    Piece,
    PiecewiseHeat,
    stopped,
)
from fpcontrol.theorems.framework.checks import Line, Panel, Row, Study
from fpcontrol.theorems.framework.experiments import Experiment
from fpcontrol.theorems.framework.resolution import Grid, measured, slopes
from fpcontrol.theorems.runs.reversed_noising import SUPPORT, reverse
from fpcontrol.typing import Array


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
        reach: Half the length of the truncated line, on which the standard deviation is about
            1/pi: four of them and more.
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
            # Between walls the error of the early stop is small, and must be seen: twice the steps.
            steps = grid.steps if noising is line else 2 * grid.steps
            fit = Grid(math.ceil(2.0 * half) * grid.cells, steps, grid.degree)
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

    def left(name: str, s: float, grading: int = 4) -> tuple[float, float]:
        noising, _, half = runs[name]
        ends = {"lower": 0.5 - half, "upper": 0.5 + half}
        breaks = (0.0, 1.0) if half > 0.5 else ()
        return stopped(noising, walls.start, s, breaks, grading=grading, **ends)

    def steep(s: float, finer: int = 1) -> float:
        """Largest drift on the line within a few widths of a wall."""
        x = np.linspace(1.0, 1.0 + 20.0 * math.sqrt(D * s), 20001 * finer)
        x = x[np.exp(line.log_density(s, x)) > SUPPORT]
        return float(np.abs(2.0 * D * line.score(s, x) - line.pull(x)).max())

    fine, error = measured(run, grid)
    figures = {name: (fine[i], error[i]) for i, name in enumerate(runs)}
    s, s0 = np.array(stops), f"s_0 = {stops[-1]:g}"
    k = 2.0 * math.pi
    # Where the closed forms are compared with their limits: early, but well above round-off.
    early = {"walls": 1e-4, "line": 1e-8}
    y = np.linspace(0.0, 1.0, 10001)
    steepest = 2.0 * D * float(np.abs(A * k * np.sin(k * y) / (1.0 - A * np.cos(k * y))).max())
    # What the distance to the data tends to, and the power of s_0 in it.
    limits = {
        "walls": (A / math.sqrt(2.0) * k * k * D * early["walls"], 1.0),
        "line": (math.sqrt(2.0 * (1.0 - A) ** 2 * JUMP * math.sqrt(D * early["line"])), 0.25),
    }
    rows = []
    for name, (limit, power) in limits.items():
        f, e = figures[name]
        relative = float((e[:, 1] / f[:, 1])[-2:].sum())
        exact = np.array([left(name, s)[0] for s in stops])
        first, second, again = (
            left(name, *at)[0] for at in ((early[name],), (0.1 * early[name],), (early[name], 6))
        )
        off = abs(again / first - 1.0)
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
                predicted=exact[-1],
                discretization_error=e[-1, 1],
                tolerance=5e-3,
            ),
            Row(
                f"{name}: slope of it in s_0, last two",
                float(slopes(s, f[:, 1])[-1]),
                predicted=float(slopes(s, exact)[-1]),
                discretization_error=relative / math.log(stops[-2] / stops[-1]),
                tolerance=5e-3,
            ),
            Row(
                f"{name}: the distance in closed form over its limit, s_0 = {early[name]:g}",
                first / limit,
                predicted=1.0,
                discretization_error=off,
                tolerance=5e-3,
            ),
            Row(
                f"{name}: slope of it in s_0, from there",
                math.log10(first / second),
                predicted=power,
                discretization_error=off,
                tolerance=5e-3,
            ),
        ]
    for name in ("walls, from uniform", "line, from Gaussian"):
        f, e = figures[name]
        rows += [
            Row(
                f"{name}: KL(p_s | rho) against KL(p_T | start), {s0}",
                f[-1, 4],
                # Below, what the start has forgotten of the data is lost in that of the elements.
                bound=f[-1, 5] if f[-1, 5] > 1e-7 else None,
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
            predicted=left("line", stops[-1])[1],
            discretization_error=e[-1, 3],
            tolerance=5e-3,
        ),
        Row(f"line: largest drift, {s0}", f[-1, 2], discretization_error=e[-1, 2]),
        Row(
            f"line: slope of the largest drift in s_0, closed form, s_0 = {early['line']:g}",
            math.log10(steep(early["line"]) / steep(0.1 * early["line"])),
            predicted=-0.5,
            discretization_error=abs(steep(early["line"]) / steep(early["line"], 2) - 1.0),
            tolerance=5e-3,
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
            f"line cut at the data's walls: L2 distance to the data, {s0}",
            cut[-1, 1],
            discretization_error=cut_error[-1, 1],
        ),
        Row(
            "control, line cut at the data's walls: slope of it in s_0, against half of 1/4",
            float(slopes(s, cut[:, 1])[-1]),
            bound=0.125,
            discretization_error=float((cut_error[:, 1] / cut[:, 1])[-2:].sum())
            / math.log(stops[-2] / stops[-1]),
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
    """What ``fpcontrol verify`` runs; the quick one takes some seconds."""
    few: dict[str, Any] = {"grid": Grid(100, 6), "reach": 1.5} if quick else {}
    return [Experiment("t2.walls_or_line", functools.partial(walls_or_line, **few))]
