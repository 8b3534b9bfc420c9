r"""Moser's field moves a density along a straight line, exactly, whatever its regularity.

A statement of the kind of Proposition 3 (reconstructed: the printed hypotheses were not at hand).
With :math:`\rho_t = \rho_0 + (t/T)(\rho_1 - \rho_0)` and :math:`-\Delta\phi = (\rho_1 - \rho_0)/T`,
:math:`\partial_n\phi = 0`,

.. math:: u = \nabla\phi/\rho_t \quad(\sigma = 0),\qquad
    v = (\nabla\phi + D\nabla\rho_t)/\rho_t \quad(\sigma > 0),

carry :math:`\rho_0` to :math:`\rho_1` along the line. What is needed (own): densities in L2 and
bounded below for u in L2, jumps included; in H1 besides for v, whose energy is infinite at a jump.

A field that is near v in L2(rho) gives a density near the line if sigma > 0 (own, "E3"):

.. math:: \|w(t)\|^2 \le \|\rho_t\|_\infty\,\chi^2(\rho\,|\,\rho_t) \le
    \frac{\|\rho_t\|_\infty}{2D}\int_0^t\!\!\int\frac{\rho^2}{\rho_s}|v_n - v|^2\,dx\,ds ,

with the perturbed :math:`\rho`; without noise a ripple of vanishing size keeps an error of order 1.

Traps: the sign of the potential; a ripple in the laboratory's frame is averaged out along the flow,
so that the ripple must move with it; closed-form drifts at quadrature points are right to the order
of the elements only, where the drift of ``MoserFlow`` is to round-off.
"""

import math
from collections.abc import Callable, Sequence

from mpi4py import MPI

import numpy as np
from dolfinx.mesh import Mesh

from fpcontrol import MoserFlow, density
from fpcontrol.characteristics import Flow, Markers, carry
from fpcontrol.distances.measures import h_minus_1
from fpcontrol.mesh import interval
from fpcontrol.parallel.errors import reduced
from fpcontrol.quadrature import composite
from fpcontrol.theorems.closed_forms.profiles import GOALS, StraightLine
from fpcontrol.theorems.closed_forms.ripples import Along
from fpcontrol.theorems.experiments import moser_stability
from fpcontrol.theorems.framework import Experiment, Figure, Grid, Line, Study, measure
from fpcontrol.theorems.framework.resolution import cube, disk, l_shape
from fpcontrol.theorems.runs.moser_runs import distances, energy, flow_on_interval
from fpcontrol.typing import Array

DOMAINS: dict[str, Callable[[MPI.Comm, int], Mesh]] = {
    "interval": interval,
    "square": lambda comm, n: cube(comm, 2, n),
    "l_shape": l_shape,
    "disk": disk,
}


# -- exactness -------------------------------------------------------------------------------------


def exactness(
    comm: MPI.Comm,
    *,
    domain: str = "interval",
    sigma: float = 0.5,
    t1: float = 1.0,
    grid: Grid | None = None,
) -> Study:
    r"""The discrete solution driven by the discrete field is the discrete line.

    The goal has a bump off the middle. Controls: with the potential's sign wrong, the solution
    sets out the other way, :math:`\|w(t)\| \to 2\,\tfrac tT\|\rho_1 - \rho_0\|`, and the field of
    sigma = 0 does not do with noise. How far they get by T, in parts of the gap, is that
    of one mode about: noise takes back what the sign does wrong, at the rate
    :math:`D\lambda`, :math:`\lambda = \|\rho_1-\rho_0\|^2/\|\rho_1-\rho_0\|_{H^{-1}}^2`, which
    leaves :math:`2\varphi(D\lambda T)`, :math:`\varphi(z) = (1-e^{-z})/z`; and without
    :math:`D\nabla\log\rho` it makes :math:`1 - \varphi(D\lambda T)`. Three quarters of either are
    asked for: the gap has more modes than one, and moves along.

    Args:
        domain: interval, square, l_shape or disk.
        grid: Resolution, cells along a side.
    """
    study = Study(
        f"exact field on the {domain}, sigma = {sigma:g}, T = {t1:g}",
        "The Galerkin solution driven by the discrete Moser field is the discrete straight line, "
        "to the accuracy of the linear solver and not of the mesh; with the wrong sign it is not.",
    )
    # Later than this (in 1/D, for sides of length 1) noise has begun to close the gap again.
    soon = 1e-3 * t1 / max(1.0, 4.0 * sigma**2 * t1)

    def bump(x: Array) -> Array:
        y = x[: 1 if domain == "interval" else 2] - 0.3
        return 1.0 + 3.0 * np.exp(-(y**2).sum(axis=0) / 0.08)

    def run(at: Grid) -> Array:
        mesh = DOMAINS[domain](comm, at.cells)
        ends = density.uniform(mesh, at.degree), density.interpolate(mesh, bump, at.degree)
        flow, bare = MoserFlow(*ends, t1, sigma), MoserFlow(*ends, t1, 0.0).drift
        wrong = flow.drift - 2.0 * bare
        start, goal = (rho.x.array for rho in ends)
        size, *sizes = (flow.elements.norm(u) for u in (goal - start, start, goal))
        exact = distances(flow, flow.drift, at.steps).max() / max(sizes)
        away = distances(flow, wrong, 4, soon)[-1] / (size * soon / t1)
        late = [distances(flow, drift, at.steps)[-1] / size for drift in (wrong, bare)]
        return np.array([exact, away, *late, (size / h_minus_1(*ends)) ** 2])

    coarse = grid or Grid(*((100, 20) if domain == "interval" else (12, 10)))
    exact, away, wrong, bare, rate = measure(run, coarse)
    z = 0.5 * sigma**2 * t1 * float(rate)
    taken = -math.expm1(-z) / z
    # Linear systems are solved to 1e-10 and less.
    study.below("relative L2 distance to the line, max", exact, 1e-10)
    name = "control, wrong sign: early distance over t/T |rho_1 - rho_0|"
    study.equals(name, away, 2.0, 0.05)
    name = "control, {}: distance at T over |rho_1 - rho_0|"
    study.above(name.format("wrong sign"), wrong, 1.5 * taken)
    study.above(name.format("no D grad log rho"), bare, 0.75 * (1.0 - taken))
    return study


def without_noise(
    comm: MPI.Comm, *, goal: str = "kink", t1: float = 1.0, cells: int = 200, rtol: float = 1e-9
) -> Study:
    r"""At sigma = 0, u = (F_0 - F_1)/(T rho_t) keeps every marker on its quantile.

    :math:`F_t(X_t(y)) = F_0(y)`: the density is the line's. Across a jump of the density u jumps
    too, and log J by a delta function that no integration in time sees, so that there densities
    are read off as masses of the cells of markers. Steps are tiny when a marker crosses: take few.

    Args:
        goal: smooth, kink or jump; the start is uniform.
        rtol: Tolerance of the integration in time.
    """
    study = Study(
        f"exact field without noise, {goal} goal, T = {t1:g}",
        "Along characteristics the closed-form field carries the start along the straight line; "
        "jumps and kinks of the density are no obstacle.",
    )
    line = StraightLine.to(GOALS[goal], t1)
    density_error = _density_error_of_cells if goal == "jump" else _density_error

    def flows(sign: float) -> list[Flow]:
        """Coarse and fine."""
        return [
            carry(
                Markers.on_interval(comm, n, lambda x: line.start.value(x[:, 0])),
                sign * Along(line),
                np.linspace(0.0, t1, 5),
                rtol=tolerance,
                atol=tolerance,
            )
            for n, tolerance in ((cells // 2, 10.0 * rtol), (cells, rtol))
        ]

    right, wrong = flows(1.0), flows(-1.0)
    quantile = Figure.refined(*(_quantile_error(flow, line) for flow in right))
    found, control = (
        Figure.refined(*(density_error(flow, line) for flow in both)) for both in (right, wrong)
    )
    goal_less_start = line.goal.integral(lambda x: (line.goal.value(x) - line.start.value(x)) ** 2)
    allowed = 100.0 * rtol  # errors of some hundred steps add up
    study.below("max |F_t(X_t(y)) - F_0(y)|", quantile, allowed)
    study.below("relative L2 distance to the line, max", found, allowed)
    moved = math.sqrt(goal_less_start) / line.goal.norm
    study.above("control, wrong sign: same", control, moved)
    return study


def _quantile_error(flow: Flow, line: StraightLine) -> float:
    y = line.start.cdf(flow.markers.points[:, 0])
    levels = zip(flow.times, flow.positions, strict=True)
    gaps = [np.abs(line.at(t).cdf(x[:, 0]) - y).max(initial=0.0) for t, x in levels]
    return flow.markers.comm.allreduce(float(max(gaps)), op=MPI.MAX)


def _density_error(flow: Flow, line: StraightLine) -> float:
    errors = flow.l2_errors(lambda t, x: line.at(t).value(x[:, 0]))
    return float(errors[1:].max()) / line.goal.norm


def _density_error_of_cells(flow: Flow, line: StraightLine) -> float:
    """From the masses of cells of markers, which no jump of the drift spoils."""
    markers, squares = flow.markers, []
    masses = (markers.volumes * markers.density).reshape(-1, markers.per_cell).sum(axis=1)
    for t, x in zip(flow.times, flow.positions, strict=True):
        edges = x.reshape(-1, markers.per_cell)[:, [0, -1]]
        gap = masses - np.diff(line.at(t).cdf(edges), axis=1)[:, 0]
        squares.append(float(np.sum(gap**2 / np.diff(edges, axis=1)[:, 0])))
    return float(np.sqrt(reduced(markers.comm, np.array(squares)).max())) / line.goal.norm


# -- regularity ------------------------------------------------------------------------------------


def regularity(
    comm: MPI.Comm, *, sigma: float = 0.5, t1: float = 1.0, cells: int | None = None
) -> Study:
    r"""Energies :math:`\int\int\rho_t|v|^2` of the fields to a kink and to a jump.

    Without noise both are finite, :math:`\int\phi'^2\log(\rho_1/\rho_0)/(\rho_1 - \rho_0)\,dx`
    times T. With noise the energy of the kink :math:`|x - 1/2|^p` stays finite: what a mesh of
    size h misses goes like :math:`h^{2p-1}`. A jump, spread over a cell, costs as much as 1/h.

    Args:
        cells: Of the coarsest of four meshes, even; 256 unless given, and more for less noise:
            the cost of a jump is seen at cells below D.
    """
    study = Study(
        f"energy of the exact field, sigma = {sigma:g}, T = {t1:g}",
        "Jumps are admissible without noise; with noise the density must be in H1: the field of a "
        "kink has finite energy, that of a jump has not.",
    )
    counts = (cells or max(256, 2 * math.ceil(4.0 / sigma**2))) * 2 ** np.arange(4)
    kink, jump = (StraightLine.to(GOALS[name], t1) for name in ("kink", "jump"))

    def energies(line: StraightLine, noise: float, counts: Sequence[int] | Array) -> Array:
        flows = (flow_on_interval(comm, line, noise, Grid(int(n), 1), 10) for n in counts)
        return np.array([energy(flow, np.array([0.0, t1]), 12) for flow in flows])

    still = Figure.refined(*energies(kink, 0.0, counts[2:]))
    study.equals("kink: energy without noise", still, _energy_without_noise(kink), 1e-4)
    noisy = energies(kink, sigma, counts)
    # What is missed goes like h**(2 p - 1), p = 3/4.
    limits = noisy[1:] + np.diff(noisy) / (math.sqrt(2.0) - 1.0)
    study.equals(
        "kink: energy with noise, extrapolated in h",
        Figure.refined(*limits[-2:]),
        _energy_with_noise(kink, 0.5 * sigma**2),
        1e-3,
    )
    spread = energies(jump, 0.0, counts[1:])
    # A jump is spread over a cell, which is of first order in h.
    still = Figure.refined(*(2.0 * spread[1:] - spread[:-1]))
    name = "jump: energy without noise, extrapolated in h"
    study.equals(name, still, _energy_without_noise(jump), 1e-4)
    cost = energies(jump, sigma, counts)
    rates = np.diff(np.log2(np.diff(cost)))
    study.equals("jump: energy with noise, power of 1/h", Figure.refined(*rates[-2:]), 1.0, 1e-3)
    study.picture(
        "energy of the Moser field",
        "cells",
        "energy",
        Line(counts, noisy, f"kink, sigma = {sigma:g}"),
        Line(counts, cost, f"jump, sigma = {sigma:g}"),
        log="xy",
    )
    return study


def _energy_without_noise(line: StraightLine) -> float:
    def rate(x: Array) -> Array:
        p, q = line.start.value(x), line.goal.value(x)
        gap = np.where(p == q, 1.0, q - p)
        mean = np.where(p == q, 1.0 / p, np.log(q / p) / gap)  # of 1/rho_t over time
        return line.flux(x) ** 2 * mean

    return line.t1 * line.goal.integral(rate)


def _energy_with_noise(line: StraightLine, D: float) -> float:
    def rate(t: float) -> float:
        rho = line.at(t)
        return rho.integral(lambda x: (line.flux(x) + D * rho.slope(x)) ** 2 / rho.value(x))

    times, weights = composite(np.array([0.0, line.t1]), 12)
    return sum(dt * rate(t) for t, dt in zip(times, weights, strict=True))


EXPERIMENTS = [
    *(Experiment(f"t4.exact.{name}", exactness, domain=name) for name in DOMAINS),
    Experiment("t4.exact.sigma=0.smooth", without_noise, goal="smooth", quick=None),
    Experiment("t4.exact.sigma=0.kink", without_noise, goal="kink"),
    Experiment("t4.regularity", regularity),
    Experiment(
        "t4.exact.sigma=0.jump", without_noise, goal="jump", cells=20, rtol=1e-7, quick=None
    ),
    *moser_stability.EXPERIMENTS,
]
