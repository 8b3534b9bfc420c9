r"""What walls change in reversed noising: a supplement to Lemma 2 (own).

One compactly supported density is noised by heat flow between reflecting walls, and by an
Ornstein-Uhlenbeck process on the line. Both have reversals of finite energy. On the line the walls
are jumps of the density: it reaches the data at the rate of jumps, with mass outside the domain and
an unbounded drift.

Traps: the Ornstein-Uhlenbeck process has to be cut off for a mesh, and a cut through its mass (at
the data's own walls, say) changes what the reversal reaches; the divergence of a density with mass
outside from the data is infinite, so that divergences are taken the other way round; rates at stops
that a mesh can reach are not yet those of the limit, which closed forms show.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from mpi4py import MPI

import numpy as np

from fpcontrol.noising.line import Noising
from fpcontrol.noising.pieces import OrnsteinUhlenbeckOfPieces, Piece, PiecewiseHeat
from fpcontrol.theorems.framework import Experiment, Figure, Grid, Study, measure_each
from fpcontrol.theorems.runs.reversed_noising import (
    JUMP,
    SUPPORT,
    Reached,
    reversed_densities,
    stopped,
)
from fpcontrol.typing import Array

WAVE = 2.0 * math.pi


@dataclass(frozen=True)
class Case:
    """A reversal of the data on an interval about 1/2.

    Attributes:
        noising: The process.
        data: Density of the data, ``(N,)`` to ``(N,)``.
        start: Density to start from if not the process's own.
        half: Half the length of the interval; that of the data is 1/2.
        finer: Factor of the steps.
    """

    noising: Noising
    data: Callable[[Array], Array]
    start: Callable[[Array], Array] | None
    half: float
    finer: int

    @property
    def ends(self) -> dict[str, float]:
        """Of the interval."""
        return {"lower": 0.5 - self.half, "upper": 0.5 + self.half}

    def left(self, s: float, grading: int = 4) -> tuple[float, float]:
        """Distance to the data, and mass outside, of the process itself at a stop."""
        breaks = (0.0, 1.0) if self.half > 0.5 else ()
        return stopped(self.noising, self.data, s, breaks, grading=grading, **self.ends)

    def distance(self, s: float) -> Figure:
        """The first of them, with its error of quadrature."""
        return Figure.refined(self.left(s, 6)[0], self.left(s)[0])

    def figures(self, comm: MPI.Comm, t1: float, stops: tuple[float, ...], grid: Grid) -> Array:
        """``FIGURES`` by stop. Collective."""
        fit = Grid(math.ceil(2.0 * self.half) * grid.cells, self.finer * grid.steps, grid.degree)
        reached = reversed_densities(
            comm, self.noising, t1, stops, fit, start=self.start, **self.ends
        )
        return np.array([self._compared(r, t1) for r in reached])

    def _compared(self, r: Reached, t1: float) -> list[float]:
        q = np.exp(self.noising.log_density(t1, r.x))
        noise = np.ones_like(q) if self.start is None else self.start(r.x)
        noise = noise / r.integral(noise)
        outside = (r.x < 0.0) | (r.x > 1.0)
        return [
            r.defect,
            r.distance(self.data),
            r.largest,
            r.integral(r.values * outside),
            r.divergence(r.exact),
            r.integral(q * np.log(q / noise) - q + noise),
            r.divergence(self.data(r.x)),
        ]


# What is measured of a case: relative distance to p_s, distance to the data, largest drift, mass
# outside, KL(p_s | rho), KL(p_T | start), KL(p_0 | rho).
FIGURES = ("defect", "distance", "largest", "outside", "kl", "kl_start", "kl_data")
type Found = dict[str, Figure]  # figures over the stops


def cases(amplitude: float, D: float, reach: float) -> dict[str, Case]:
    """All reversals of the experiment by name."""
    pieces = (Piece(0.0, 1.0, 1.0, -amplitude, WAVE),)
    walls = PiecewiseHeat(pieces, D)
    line = OrnsteinUhlenbeckOfPieces(PiecewiseHeat(pieces, D, walls=False), math.pi**2 * D)

    def gaussian(x: Array) -> Array:
        return np.exp(-0.5 * (x - 0.5) ** 2 * line.rate / D)

    # Between walls the error of the early stop is small, and must be seen: twice the steps.
    return {
        "walls": Case(walls, walls.start, None, 0.5, 2),
        "walls, from uniform": Case(walls, walls.start, np.ones_like, 0.5, 2),
        "line": Case(line, walls.start, None, reach, 1),
        "line, from Gaussian": Case(line, walls.start, gaussian, reach, 1),
        "line, cut at the data's walls": Case(line, walls.start, None, 0.5, 1),
    }


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
    r"""One density on (0, 1), noised between walls and on the line, and reversed.

    The data are :math:`1 - A\cos 2\pi x`, smooth up to the walls but not zero there. Between walls:
    heat flow, reversed from its own p_T and from the uniform density. On the line:
    Ornstein-Uhlenbeck with the same D and spectral gap :math:`\lambda = \pi^2D`, reversed from p_T
    and from its stationary Gaussian, on (1/2 - reach, 1/2 + reach) with reflection at the ends;
    and from p_T cut off at the data's walls. All with the exact score, down to early stops s_0.

    Args:
        amplitude: A, below 1.
        reach: Half the length of the truncated line, on which the standard deviation is about
            1/pi: four of them and more.
        grid: Cells on (0, 1), and steps whenever the noising time is halved.
    """
    study = Study(
        f"noising between walls and on the line, sigma = {sigma:.3g}, T = {t1:g}",
        "With walls, smooth data have bounded reversed drifts, and the early stop costs an error "
        "of order $s_0$; on the line their walls are jumps: order $s_0^{1/4}$, an unbounded drift, "
        "mass outside the domain. Both reversals reach the data as $s_0 \\to 0$.",
    )
    D, s0 = 0.5 * sigma**2, f"s_0 = {stops[-1]:g}"
    all_cases = cases(amplitude, D, reach)

    def run(name: str, at: Grid) -> Array:
        return all_cases[name].figures(comm, t1, stops, at)

    runs = zip(all_cases, measure_each(run, all_cases, grid or Grid(200, 8)), strict=True)
    found = {name: dict(zip(FIGURES, figures.T, strict=True)) for name, figures in runs}

    # What the distance to the data tends to early, but well above round-off.
    slow, jumps = WAVE**2 * amplitude / math.sqrt(2.0), math.sqrt(2.0 * JUMP) * (1.0 - amplitude)
    early = {"walls": (1e-4, 1.0, slow), "line": (1e-8, 0.25, jumps)}
    for name, (s, power, factor) in early.items():
        limit = factor * (D * s) ** power
        check_early_stop(study, name, all_cases[name], found[name], stops, s, limit, power)
    for name in ("walls, from uniform", "line, from Gaussian"):
        f = found[name]
        start = float(f["kl_start"][-1])
        title = f"{name}: KL(p_s | rho) against KL(p_T | start), {s0}"
        # Below, what the start has forgotten of the data is lost in that of the elements.
        if start > 1e-7:
            study.below(title, f["kl"][-1], start)
        else:
            study.report(title, f["kl"][-1])
        study.report(f"{name}: L2 distance to the data, {s0}", f["distance"][-1])
        study.report(f"{name}: KL(p_0 | rho), {s0}", f["kl_data"][-1])
    check_drifts(study, all_cases["line"], found, amplitude, stops)
    curves = {name: f["distance"] for name, f in found.items()}
    study.curves("early stopping", "s_0", "L2 distance to the data", stops, curves, "xy")
    return study


def check_early_stop(
    study: Study,
    name: str,
    case: Case,
    found: Found,
    stops: tuple[float, ...],
    early: float,
    limit: float,
    power: float,
) -> None:
    """The reversal against the process, and the process's distance to the data against a limit."""
    s0, distance = f"s_0 = {stops[-1]:g}", found["distance"]
    exact = Figure(np.array([case.left(s)[0] for s in stops]), 0.0)
    first, second = case.distance(early), case.left(0.1 * early)[0]
    title = f"{name}: relative L2 distance of the reversal to p_s, {s0}"
    study.below(title, found["defect"][-1], 1e-3)
    study.equals(f"{name}: L2 distance to the data, {s0}", distance[-1], exact[-1], 5e-3)
    slope, exact_slope = (f.slopes(stops)[-1] for f in (distance, exact))
    study.equals(f"{name}: slope of it in s_0, last two", slope, exact_slope, 5e-3)
    title = f"{name}: the distance in closed form over its limit, s_0 = {early:g}"
    study.equals(title, first / limit, 1.0, 5e-3)
    slope = (first / second).log() / math.log(10.0)
    study.equals(f"{name}: slope of it in s_0, from there", slope, power, 5e-3)


def check_drifts(
    study: Study, line: Case, found: dict[str, Found], amplitude: float, stops: tuple[float, ...]
) -> None:
    """Mass outside and the drifts' sizes; the control that is cut off."""
    s0, early, D = f"s_0 = {stops[-1]:g}", 1e-8, line.noising.D

    def steep(s: float, finer: int = 1) -> float:
        """Largest drift on the line within a few widths of a wall."""
        x = np.linspace(1.0, 1.0 + 20.0 * math.sqrt(D * s), 20001 * finer)
        x = x[np.exp(line.noising.log_density(s, x)) > SUPPORT]
        drift = 2.0 * D * line.noising.score(s, x) - line.noising.pull(x)
        return float(np.abs(drift).max())

    outside = line.left(stops[-1])[1]
    title = f"line: mass outside the domain, {s0}"
    study.equals(title, found["line"]["outside"][-1], outside, 5e-3)
    study.report(f"line: largest drift, {s0}", found["line"]["largest"][-1])
    growth = Figure.refined(steep(early, 2), steep(early)) / steep(0.1 * early)
    study.equals(
        f"line: slope of the largest drift in s_0, closed form, s_0 = {early:g}",
        growth.log() / math.log(10.0),
        -0.5,
        5e-3,
    )
    y = np.linspace(0.0, 1.0, 10001)
    score = amplitude * WAVE * np.sin(WAVE * y) / (1.0 - amplitude * np.cos(WAVE * y))
    study.below(
        "walls: largest drift, against 2 D max |grad log p_0|",
        found["walls"]["largest"].max(),
        2.0 * D * np.abs(score).max(),
        rel=1e-3,  # the largest slope lies between quadrature points
    )
    cut = found["line, cut at the data's walls"]["distance"]
    study.report(f"line cut at the data's walls: L2 distance to the data, {s0}", cut[-1])
    title = "control, line cut at the data's walls: slope of it in s_0, against half of 1/4"
    study.below(title, cut.slopes(stops)[-1], 0.125)


EXPERIMENTS = [
    Experiment("t2.walls_or_line", walls_or_line, quick={"grid": Grid(100, 6), "reach": 1.5})
]
