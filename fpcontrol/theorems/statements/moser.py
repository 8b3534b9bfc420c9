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

import functools
import math
from collections.abc import Callable

from mpi4py import MPI

import numpy as np
from dolfinx.mesh import Mesh

from fpcontrol import density
from fpcontrol.characteristics.flow import Flow, Markers, carry
from fpcontrol.distances.measures import h_minus_1
from fpcontrol.fokker_planck import norm
from fpcontrol.mesh import interval, rectangle
from fpcontrol.parallel.errors import reduced
from fpcontrol.reference import MoserFlow
from fpcontrol.theorems.closed_forms.profiles import StraightLine, nodes, uniform
from fpcontrol.theorems.experiments import moser_stability
from fpcontrol.theorems.framework.checks import Line, Panel, Row, Study
from fpcontrol.theorems.framework.experiments import Experiment
from fpcontrol.theorems.framework.resolution import Grid, disk, l_shape, measured
from fpcontrol.theorems.runs.moser_runs import GOALS, Changed, distances, flow_on_interval
from fpcontrol.typing import Array

DOMAINS: dict[str, Callable[[MPI.Comm, int], Mesh]] = {
    "interval": interval,
    "square": lambda comm, n: rectangle(comm, (n, n)),
    "l_shape": l_shape,
    "disk": disk,
}


# -- exactness -------------------------------------------------------------------------------------


def exactness(
    comm: MPI.Comm,
    domain: str = "interval",
    *,
    sigma: float = 0.5,
    t1: float = 1.0,
    grid: Grid | None = None,
) -> Study:
    r"""The discrete solution driven by the discrete field is the discrete line. Collective.

    The goal has a bump off the middle. Controls: with the potential's sign wrong, the solution
    sets out the other way, :math:`\|w(t)\| \to 2\,\tfrac tT\|\rho_1 - \rho_0\|`, and the field of
    sigma = 0 does not do with noise. How far they get by T, in parts of the gap, is that
    of one mode about: noise takes back what the sign does wrong, at the rate
    :math:`D\lambda`, :math:`\lambda = \|\rho_1-\rho_0\|^2/\|\rho_1-\rho_0\|_{H^{-1}}^2`, which
    leaves :math:`2\varphi(D\lambda T)`, :math:`\varphi(z) = (1-e^{-z})/z`; and without
    :math:`D\nabla\log\rho` it makes :math:`1 - \varphi(D\lambda T)`. Three quarters of either are
    asked for: the gap has more modes than one, and moves along.

    Args:
        comm: Communicator.
        domain: ``"interval"``, ``"square"``, ``"l_shape"`` or ``"disk"``.
        sigma: Noise.
        t1: Last time.
        grid: Resolution, cells along a side.
    """
    grid = grid or Grid(*((100, 20) if domain == "interval" else (12, 10)))
    # Later than this (in 1/D, for sides of length 1) noise has begun to close the gap again.
    soon = 1e-3 * t1 / max(1.0, 4.0 * sigma**2 * t1)

    def bump(x: Array) -> Array:
        y = x[: 1 if domain == "interval" else 2] - 0.3
        return 1.0 + 3.0 * np.exp(-(y**2).sum(axis=0) / 0.08)

    def run(grid: Grid) -> Array:
        mesh = DOMAINS[domain](comm, grid.cells)
        ends = density.uniform(mesh, grid.degree), density.interpolate(mesh, bump, grid.degree)
        flow, still = MoserFlow(*ends, t1, sigma), MoserFlow(*ends, t1, 0.0)

        def bare(t: float, x: Array, v: Array) -> Array:
            return still.drift.at_points(t, still.elements)

        def wrong(t: float, x: Array, v: Array) -> Array:
            return v - 2.0 * bare(t, x, v)

        size, start, goal = (
            norm(flow.elements, u)
            for u in (ends[1].x.array - ends[0].x.array, *(rho.x.array for rho in ends))
        )
        exact = distances(flow, flow.drift, grid.steps).max() / max(start, goal)
        away = distances(flow, Changed(flow, wrong), 4, soon)[-1] / (size * soon / t1)
        ends_at = [distances(flow, Changed(flow, f), grid.steps)[-1] / size for f in (wrong, bare)]
        rate = (size / h_minus_1(*ends)) ** 2
        return np.array([exact, away, *ends_at, rate])

    figures, error = measured(run, grid)
    exact, away, *ends_at, rate = figures.tolist()
    z = 0.5 * sigma**2 * t1 * rate
    taken = -math.expm1(-z) / z
    label = "control, {}: distance at T over |rho_1 - rho_0|"
    return Study(
        f"exact field on the {domain}, sigma = {sigma:g}, T = {t1:g}",
        "The Galerkin solution driven by the discrete Moser field is the discrete straight line, "
        "to the accuracy of the linear solver and not of the mesh; with the wrong sign it is not.",
        "own",
        (
            # Linear systems are solved to 1e-10 and less.
            Row(
                "relative L2 distance to the line, max",
                exact,
                bound=1e-10,
                discretization_error=error[0],
            ),
            Row(
                "control, wrong sign: early distance over t/T |rho_1 - rho_0|",
                away,
                predicted=2.0,
                discretization_error=error[1],
                tolerance=0.05,
            ),
            Row(
                label.format("wrong sign"),
                ends_at[0],
                at_least=1.5 * taken,
                discretization_error=error[2],
            ),
            Row(
                label.format("no D grad log rho"),
                ends_at[1],
                at_least=0.75 * (1.0 - taken),
                discretization_error=error[3],
            ),
        ),
    )


def without_noise(
    comm: MPI.Comm, goal: str = "kink", *, t1: float = 1.0, cells: int = 200, rtol: float = 1e-9
) -> Study:
    r"""At sigma = 0, u = (F_0 - F_1)/(T rho_t) keeps every marker on its quantile. Collective.

    :math:`F_t(X_t(y)) = F_0(y)`: the density is the line's. Across a jump of the density u jumps
    too, and log J by a delta function that no integration in time sees, so that there densities
    are read off as masses of the cells of markers. Steps are tiny when a marker crosses: take few.

    Args:
        comm: Communicator.
        goal: ``"smooth"``, ``"kink"`` or ``"jump"``; the start is uniform.
        t1: Last time.
        cells: Cells of markers.
        rtol: Tolerance of the integration in time.
    """
    line = StraightLine(uniform(), GOALS[goal], t1)
    times = np.linspace(0.0, t1, 5)

    def flow(sign: float, tolerance: float, n: int) -> Flow:
        return carry(
            Markers.on_interval(comm, n, line.start),
            lambda t, x: sign * line.speed(t, x[:, 0])[:, None],
            times,
            divergence=lambda t, x: sign * line.expansion(t, x[:, 0]),
            rtol=tolerance,
            atol=tolerance,
        )

    def quantile_error(run: Flow) -> float:
        y = line.start.cdf(run.markers.points[:, 0])
        gaps = [
            np.abs(line.cdf(t, x[:, 0]) - y).max(initial=0.0)
            for t, x in zip(times, run.positions, strict=True)
        ]
        return comm.allreduce(float(max(gaps)), op=MPI.MAX)

    def density_error(run: Flow) -> float:
        if goal != "jump":
            return float((run.l2_errors(lambda t, x: line.density(t, x[:, 0])) / size)[1:].max())
        markers, squares = run.markers, []
        masses = (markers.volumes * markers.density).reshape(-1, markers.per_cell).sum(axis=1)
        for t, x in zip(times, run.positions, strict=True):
            edges = x.reshape(-1, markers.per_cell)[:, [0, -1]]
            gap = masses - np.diff(line.cdf(t, edges), axis=1)[:, 0]
            squares.append(float(np.sum(gap**2 / np.diff(edges, axis=1)[:, 0])))
        return float(np.sqrt(reduced(comm, np.array(squares)).max())) / size

    x, w = nodes(line.breaks)
    size = float(np.sqrt(w @ line.goal.value(x) ** 2))
    moved = float(np.sqrt(w @ (line.goal.value(x) - line.start.value(x)) ** 2)) / size
    coarse, fine = flow(1.0, 10.0 * rtol, cells // 2), flow(1.0, rtol, cells)
    wrong = [density_error(flow(-1.0, r, n)) for r, n in ((rtol, cells), (10 * rtol, cells // 2))]
    figures = [(f(fine), abs(f(fine) - f(coarse))) for f in (quantile_error, density_error)]
    allowed = 100.0 * rtol  # errors of some hundred steps add up
    return Study(
        f"exact field without noise, {goal} goal, T = {t1:g}",
        "Along characteristics the closed-form field carries the start along the straight line; "
        "jumps and kinks of the density are no obstacle.",
        "own",
        (
            Row(
                "max |F_t(X_t(y)) - F_0(y)|",
                figures[0][0],
                bound=allowed,
                discretization_error=figures[0][1],
            ),
            Row(
                "relative L2 distance to the line, max",
                figures[1][0],
                bound=allowed,
                discretization_error=figures[1][1],
            ),
            Row(
                "control, wrong sign: same",
                wrong[0],
                at_least=moved,
                discretization_error=abs(wrong[1] - wrong[0]),
            ),
        ),
    )


def regularity(
    comm: MPI.Comm, *, sigma: float = 0.5, t1: float = 1.0, cells: int | None = None
) -> Study:
    r"""Energies :math:`\int\int\rho_t|v|^2` of the fields to a kink and to a jump. Collective.

    Without noise both are finite, :math:`\int\phi'^2\log(\rho_1/\rho_0)/(\rho_1 - \rho_0)\,dx`
    times T. With noise the energy of the kink :math:`|x - 1/2|^p` stays finite: what a mesh of
    size h misses goes like :math:`h^{2p-1}`. A jump, spread over a cell, costs as much as 1/h.

    Args:
        comm: Communicator.
        sigma: Noise.
        t1: Last time.
        cells: Of the coarsest of four meshes, even; 256 unless given, and more for less noise:
            the cost of a jump is seen at cells below D.
    """
    cells = cells or max(256, 2 * math.ceil(4.0 / sigma**2))
    counts = cells * 2 ** np.arange(4)
    hat, w = np.polynomial.legendre.leggauss(12)
    times, weights = 0.5 * t1 * (hat + 1.0), 0.5 * t1 * w

    def energy(name: str, noise: float, n: int) -> float:
        line = StraightLine(uniform(), GOALS[name], t1)
        flow = flow_on_interval(comm, line, noise, Grid(n, 1), 10)
        g, total = flow.elements, 0.0
        for t, dt in zip(times, weights, strict=True):
            v, rho = flow.drift.at_points(t, g)[:, 0], g.evaluate(flow.coefficients(t)).ravel()
            total += dt * float(g.quadrature_weights @ (rho * v**2))
        return g.sum(total)

    def of_kink(line: StraightLine, noisy: Array) -> Row:
        x, dx = nodes(line.breaks)
        D, exact = 0.5 * sigma**2, 0.0
        for t, dt in zip(times, weights, strict=True):
            flux = line.flux(x) + D * line.slope(t, x)
            exact += dt * float(dx @ (flux**2 / line.density(t, x)))
        # What is missed goes like h**(2 p - 1), p = 3/4.
        limits = noisy[1:] + np.diff(noisy) / (math.sqrt(2.0) - 1.0)
        error = abs(limits[-1] - limits[-2])
        return Row(
            "kink: energy with noise, extrapolated in h",
            limits[-1],
            predicted=exact,
            discretization_error=error,
            tolerance=1e-3,
        )

    def of_jump(line: StraightLine, noisy: Array) -> Row:
        rates = np.diff(np.log2(np.diff(noisy)))
        return Row(
            "jump: energy with noise, power of 1/h",
            rates[-1],
            predicted=1.0,
            discretization_error=abs(rates[-1] - rates[-2]),
            tolerance=1e-3,
        )

    noisy_row = {"kink": of_kink, "jump": of_jump}
    rows, lines = [], []
    for name in ("kink", "jump"):
        line = StraightLine(uniform(), GOALS[name], t1)
        x, dx = nodes(line.breaks)
        p, q = line.start.value(x), line.goal.value(x)
        gap = np.where(p == q, 1.0, q - p)
        mean = np.where(p == q, 1.0 / p, np.log(q / p) / gap)  # of 1/rho_t over time
        exact = t1 * float(dx @ (line.flux(x) ** 2 * mean))
        still = np.array([energy(name, 0.0, int(n)) for n in counts[1:]])
        # A jump is spread over a cell, which is of first order in h.
        last = 2.0 * still[1:] - still[:-1] if name == "jump" else still[1:]
        rows.append(
            Row(
                f"{name}: energy without noise" + (", extrapolated in h" * (name == "jump")),
                last[1],
                predicted=exact,
                discretization_error=abs(last[1] - last[0]),
                tolerance=1e-4,
            )
        )
        noisy = np.array([energy(name, sigma, int(n)) for n in counts])
        rows.append(noisy_row[name](line, noisy))
        lines.append(Line(counts.tolist(), noisy.tolist(), f"{name}, sigma = {sigma:g}"))
    return Study(
        f"energy of the exact field, sigma = {sigma:g}, T = {t1:g}",
        "Jumps are admissible without noise; with noise the density must be in H1: the field of a "
        "kink has finite energy, that of a jump has not.",
        "own",
        tuple(rows),
        (Panel("energy of the Moser field", "cells", "energy", tuple(lines), "log", "log"),),
    )


def experiments(quick: bool) -> list[Experiment]:
    """What ``fpcontrol verify`` runs; the quick ones take some seconds."""
    goals = ("kink",) if quick else ("smooth", "kink")
    found = [
        Experiment(f"t4.exact.{domain}", functools.partial(exactness, domain=domain))
        for domain in DOMAINS
    ]
    found += [
        Experiment(f"t4.exact.sigma=0.{goal}", functools.partial(without_noise, goal=goal))
        for goal in goals
    ]
    found.append(Experiment("t4.regularity", regularity))
    if not quick:
        jumps = functools.partial(without_noise, goal="jump", cells=20, rtol=1e-6)
        found.append(Experiment("t4.exact.sigma=0.jump", jumps))
    return found + moser_stability.experiments(quick)
