r"""Fields near Moser's on the way to a density with a kink: with noise the densities are near too.

A statement of the kind of Proposition 3 together with Proposition 1 (reconstructed), on a reference
whose score is unbounded: :math:`\rho_1 \propto 0.3 + |x - 1/2|^{3/4}`. For any field
:math:`v_n = v + \delta` (own, "E3"; no Lipschitz constant, no factor of Gronwall's)

.. math:: \|\rho_n(t) - \rho_t\|^2 \le
    \frac{\|\rho_t\|_\infty}{2D}\int_0^t\!\!\int\frac{\rho_n^2}{\rho_s}|\delta|^2\,dx\,ds .

The ripple :math:`\delta = (a/k)\sin(kF_t(x))/\rho_t(x)` vanishes as k grows. In mass coordinates
:math:`y = F_t(x)`, :math:`\rho_n = \rho_t\,h(t, F_t)`,

.. math:: \partial_t h = \partial_y(D\rho_t^2\,\partial_y h - \tfrac ak\sin(ky)\,h),

so that with noise :math:`\|\rho_n - \rho_t\| \to a\,\|\rho_t^{-1}\|/(\sqrt2 Dk^2)`, and without
:math:`h = 1/(\cosh at + \sinh at\cos ky)` for every k: the error stays.

The largest ratio of error to bound, over time, is 0.86 to 0.90 for sigma = 0.5 and m = 1 to 4, and
tends to 0.9025: early on, at :math:`Dk^2t = 1.256`, one mode answers to a field that is steady as
yet, see ``constants``. The largest error over the largest bound, which comes later, is far less:
0.67 at most.

Traps: a ripple that does not move with the flow is averaged out; Crank-Nicolson rings in the first
steps, where the response is to a field switched on at once: an L-stable scheme is used.
"""

import functools
import math
from typing import Any

from mpi4py import MPI

import numpy as np
from scipy.linalg import solve_banded

from fpcontrol.characteristics.flow import Flow, carry
from fpcontrol.theorems.closed_forms import ripples as rippled
from fpcontrol.theorems.closed_forms.profiles import StraightLine, nodes, uniform
from fpcontrol.theorems.experiments.comoving import limit_row
from fpcontrol.theorems.experiments.smoothed_fields import smoothings
from fpcontrol.theorems.framework.checks import Line, Panel, Row, Study
from fpcontrol.theorems.framework.experiments import Experiment
from fpcontrol.theorems.framework.resolution import Grid, markers_between, measured, slopes
from fpcontrol.theorems.runs.moser_runs import GOALS, Change, flow_on_interval, response
from fpcontrol.typing import Array, Field, VectorField

# Acceptance: half a percent, of either of two discretizations.
CLOSE = 5e-3


def ripple(line: StraightLine, a: float, k: float) -> Change:
    """The field with (a/k) sin(k F_t(x)) / rho_t(x) added."""
    return lambda t, x, v: v + a / k * np.sin(k * line.cdf(t, x)) / line.density(t, x)


def in_mass_coordinates(
    line: StraightLine, sigma: float, a: float, k: float, *, cells: int = 1600, steps: int = 800
) -> float:
    """Largest L2 error under the ripple, from the equation for h: finite volumes, BDF2.

    Independent of the finite elements, and without a kink in the mesh; not collective.
    """
    D, dt, dy = 0.5 * sigma**2, line.t1 / steps, 1.0 / cells
    y = dy * (np.arange(2 * cells + 1) / 2.0)  # faces at even places, centres at odd ones
    push = 0.5 * a / k * np.sin(k * y[2:-1:2]) / dy
    before, h = np.ones(cells), np.ones(cells)
    largest = 0.0
    for n in range(steps):
        t = (n + 1) * dt
        rho = line.density(t, line.quantile(t, y))
        spread = D * rho[2:-1:2] ** 2 / dy**2
        # Flux through a face over dy: push (h_j + h_j+1) - spread (h_j+1 - h_j).
        c, old = (1.0, h) if n == 0 else (1.5, 2.0 * h - 0.5 * before)
        band = np.zeros((3, cells))
        band[1] = c / dt
        band[1, :-1] += push + spread
        band[1, 1:] -= push - spread
        band[0, 1:] = push - spread
        band[2, :-1] = -(push + spread)
        before, h = h, solve_banded((1, 1), band, old / dt)
        largest = max(largest, dy * float(rho[1::2] @ (h - 1.0) ** 2))
    return math.sqrt(largest)


def ripples(
    comm: MPI.Comm,
    *,
    goal: str = "kink",
    sigma: float = 0.5,
    a: float = 2.0,
    t1: float = 1.0,
    frequencies: tuple[int, ...] = (1, 2, 4, 8, 16, 32),
    steps: int = 20,
) -> Study:
    """Co-moving ripples of growing wavenumber k = 2 pi m, with noise. Collective.

    Args:
        comm: Communicator.
        goal: A key of ``GOALS`` that is in H1.
        sigma: Noise.
        a: Strength: the ripple has slope a in mass coordinates, whatever k.
        t1: Last time.
        frequencies: m, ascending, successive ones doubled.
        steps: Time steps of the coarser run, see ``response``.
    """
    line, D = StraightLine(uniform(), GOALS[goal], t1), 0.5 * sigma**2
    x, dx = nodes(line.breaks)
    # sup over t of |1/rho_t|, which is convex in t and so largest at an end.
    inverse = max(math.sqrt(dx @ line.density(t, x) ** -2.0) for t in (0.0, t1))
    rows, figures = [], []
    for m in frequencies:
        k = 2.0 * math.pi * m

        def run(grid: Grid, k: float = k) -> Array:
            flow = flow_on_interval(comm, line, sigma, grid)
            return np.array(response(flow, ripple(line, a, k), grid.steps))

        # kh = 0.5 at degree 2, and never so coarse that the kink's surroundings matter.
        fine, error = measured(run, Grid(max(100, 2 * math.ceil(k)), steps))
        figures.append((*fine, error[0] / fine[0]))
        # A hundred volumes a wave; of second order, half as many are off four times as much.
        n = max(1600, 100 * m)
        half, exact = (
            in_mass_coordinates(line, sigma, a, k, cells=cells, steps=cells // 2)
            for cells in (n // 2, n)
        )
        rows += [
            Row(
                f"sup_t L2 error, m = {m}",
                fine[0],
                predicted=exact,
                discretization_error=error[0] + abs(exact - half),
                tolerance=CLOSE,
            ),
            Row(
                f"largest error over bound (E3), m = {m}",
                fine[2],
                bound=1.0,
                discretization_error=error[2],
            ),
        ]
    found, certificates, ratios, off = np.array(figures).T
    ms = np.array(frequencies)
    rates = D * (2.0 * math.pi * ms) ** 2
    kappa = rates / a
    limit = inverse / (math.sqrt(2.0) * kappa)
    known = rippled.GOALS[goal]
    for i, rate in enumerate(slopes(ms, found)):
        # Before, noise does not yet dominate the ripple, or modes still come up at T.
        if kappa[i] >= 5.0 and rippled.still_relaxing(known, float(rates[i] * t1)) <= 0.02:
            name = f"slope of the error in m, {ms[i]} to {ms[i + 1]}"
            gap = (off[i] + off[i + 1]) / math.log(ms[i + 1] / ms[i])
            rows.append(Row(name, rate, predicted=-2.0, discretization_error=gap, tolerance=0.05))
    # The line must not have moved by more than 1 % of the way when a mode is at its largest ratio.
    if kappa[-1] >= 100.0 and rates[-1] * t1 >= 100.0:
        # The response comes up while rho_t is still the start: one mode, s = D k^2 t.
        s = np.linspace(1.0, 1.5, 1001)
        rows += [
            Row(
                f"error over its limit for large k, m = {ms[-1]}",
                found[-1] / limit[-1],
                predicted=1.0,
                discretization_error=off[-1],
                tolerance=0.02,
            ),
            Row(
                f"largest error over bound against its limit, m = {ms[-1]}",
                ratios[-1],
                predicted=float((math.sqrt(2.0) * (1.0 - np.exp(-s)) / np.sqrt(s)).max()),
                discretization_error=error[2],
                tolerance=0.01,
            ),
        ]
    places = ms.tolist()
    lines = (
        Line(places, found.tolist(), "measured", "o"),
        Line(places, limit.tolist(), "limit", "-"),
        Line(places, certificates.tolist(), "bound (E3)", "s--"),
    )
    return Study(
        f"co-moving ripples on the {goal} reference, sigma = {sigma:g}, a = {a:g}, T = {t1:g}",
        "With noise the error of a ripple of vanishing size but constant slope falls like $k^{-2}$ "
        "and stays below the bound computed from the two fields and the perturbed solution.",
        "own",
        tuple(rows),
        (Panel("error and bound", "m", "sup_t L2 error", lines, "log", "log"),),
    )


def ripples_without_noise(
    comm: MPI.Comm,
    *,
    goal: str = "kink",
    a: float = 2.0,
    t1: float = 1.0,
    frequencies: tuple[int, ...] = (1, 2, 4, 8),
    markers_per_wave: int = 16,
) -> Study:
    r"""The same ripples at sigma = 0, along characteristics: the error stays. Collective.

    Relative to the norm of the goal :math:`(\int\rho_T(g(F_T) - 1)^2\rho_T\,dx)^{1/2}`, which
    tends to :math:`(\cosh aT - 1)^{1/2}`, while the distance to the line in W2 vanishes. The
    markers are carried in space, by the field and the ripple: nothing is known of where they end.

    Args:
        comm: Communicator.
        goal: ``"smooth"`` or ``"kink"``.
        a: Strength.
        t1: Last time.
        frequencies: m, ascending, at least two.
        markers_per_wave: Cells of markers a wave.
    """
    line = StraightLine(uniform(), GOALS[goal], t1)
    known = rippled.GOALS[goal]
    x, dx = nodes(line.breaks)
    size = math.sqrt(dx @ line.goal.value(x) ** 2)

    def field(k: float) -> tuple[VectorField, Field]:
        def drift(t: float, x: Array) -> Array:
            y, rho = line.cdf(t, x[:, 0]), line.density(t, x[:, 0])
            return (line.speed(t, x[:, 0]) + a / k * np.sin(k * y) / rho)[:, None]

        def divergence(t: float, x: Array) -> Array:
            x = x[:, 0]
            y, rho = line.cdf(t, x), line.density(t, x)
            bend = a / k * np.sin(k * y) * line.slope(t, x) / rho**2
            return line.expansion(t, x) + a * np.cos(k * y) - bend

        return drift, divergence

    def run(grid: Grid, m: int) -> Array:
        k, rtol = 2.0 * math.pi * m, 1e-8 / grid.steps**3
        edges = [0.0, *line.breaks, 1.0, *rippled.source_edges(a * t1, k, grid.steps)]
        markers = markers_between(comm, edges, grid.cells, line.start)
        drift, divergence = field(k)
        flow = carry(markers, drift, [0.0, t1], divergence=divergence, rtol=rtol, atol=rtol)
        error = flow.l2_errors(lambda t, x: line.density(t, x[:, 0]))[-1]
        ends = known.quantile(1.0, markers.points[:, 0])[:, None]  # the start is uniform
        exact = Flow(markers, flow.times, np.array([markers.points, ends]), flow.log_jacobian)
        return np.array([error / size, k * flow.wasserstein(exact)[-1]])

    rows, k = [], 2.0 * math.pi * np.array(frequencies)
    runs, exact = [], []
    for m, q in zip(frequencies, k, strict=True):
        grid = Grid(max(40, markers_per_wave * m), 1)
        runs.append(measured(functools.partial(run, m=m), grid))
        exact.append(rippled.comoving_errors(known, a * t1, float(q)))
    found, errors = np.array(runs)[:, 0], (np.array(runs) + np.array(exact))[:, 1]
    names, limit = ("relative L2 error at T", "k W2 at T"), math.sqrt(math.cosh(a * t1) - 1.0)
    for i, m in enumerate(frequencies):
        for name, value, p, e in zip(names, found[i], exact[i][0], errors[i], strict=True):
            rows.append(Row(f"{name}, m = {m}", value, p, None, None, e, 1e-4))
    last = f"{names[0]}, m = {frequencies[-1]}, against the limit"
    rows.append(limit_row(known, last, k[-1], 1.0, (found[-1, 0], limit, errors[-1, 0])))
    off = float((errors[-2:, 1] / found[-2:, 1]).sum()) / math.log(k[-1] / k[-2])
    rates = [float(slopes(k, values / k)[-1]) for values in (found[:, 1], np.array(exact)[:, 0, 1])]
    quantity = "slope of W2 in m, last two (limit -1)"
    rows.append(Row(quantity, rates[0], rates[1], None, None, off, 1e-3))
    places = list(frequencies)
    lines = (
        Line(places, found[:, 0].tolist(), "relative L2"),
        Line(places, (found[:, 1] / k).tolist(), "W2"),
        Line(places, [limit] * len(places), "limit", "-"),
    )
    return Study(
        f"co-moving ripples on the {goal} reference without noise, a = {a:g}, T = {t1:g}",
        "Without noise a ripple of vanishing size keeps its L2 error at every wavenumber; only "
        "the Wasserstein distance falls.",
        "own",
        tuple(rows),
        (Panel("no noise: L2 stays, W2 falls", "m", "error at T", lines, "log", "log"),),
    )


def experiments(quick: bool) -> list[Experiment]:
    """What ``fpcontrol verify`` runs; the quick ones take some seconds."""
    few: dict[str, Any] = {"frequencies": (1, 2, 4), "steps": 12} if quick else {}
    found = [
        Experiment("t4.ripple.sigma=0.5", functools.partial(ripples, **few)),
        Experiment("t4.ripple.sigma=0", ripples_without_noise),
    ]
    if not quick:
        found.append(Experiment("t4.ripple.sigma=0.2", functools.partial(ripples, sigma=0.2)))
        found.append(Experiment("t4.smoothed", smoothings))
    return found
