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

Traps: a ripple that does not move with the flow is averaged out; Crank-Nicolson rings in the first
steps, where the response is to a field switched on at once: an L-stable scheme is used.
"""

import functools
import math
from typing import Any

from mpi4py import MPI

import numpy as np
from scipy.linalg import solve_banded

from fpcontrol.characteristics import Flow, Labels, carry
from fpcontrol.drift import Drift, Field
from fpcontrol.galerkin import Array
from fpcontrol.theorems.families.moser_runs import GOALS, Change, flow_on_interval, response
from fpcontrol.theorems.families.profiles import StraightLine, nodes, uniform
from fpcontrol.theorems.grids import Grid, measured, slopes
from fpcontrol.theorems.study import Experiment, Line, Panel, Row, Study


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
        exact = in_mass_coordinates(line, sigma, a, k)
        rows += [
            Row(
                f"sup_t L2 error, m = {m}",
                fine[0],
                predicted=exact,
                discretization_error=error[0],
                tolerance=0.02,
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
    kappa = D * (2.0 * math.pi * ms) ** 2 / a
    limit = inverse / (math.sqrt(2.0) * kappa)
    for i, rate in enumerate(slopes(ms, found)):
        if kappa[i] >= 5.0:  # below, noise does not yet dominate the ripple
            name = f"slope of the error in m, {ms[i]} to {ms[i + 1]}"
            gap = (off[i] + off[i + 1]) / math.log(ms[i + 1] / ms[i])
            rows.append(Row(name, rate, predicted=-2.0, discretization_error=gap, tolerance=0.05))
    if kappa[-1] >= 100.0:
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
    labels_per_wave: int = 32,
) -> Study:
    r"""The same ripples at sigma = 0, along characteristics: the error stays. Collective.

    Relative to the norm of the goal :math:`(\int\rho_T(g(F_T) - 1)^2\rho_T\,dx)^{1/2}`, which
    tends to :math:`(\cosh aT - 1)^{1/2}`, while the distance to the line in W2 vanishes.

    Args:
        comm: Communicator.
        goal: ``"smooth"`` or ``"kink"``.
        a: Strength.
        t1: Last time.
        frequencies: m, ascending.
        labels_per_wave: Cells of labels a wave.
    """
    line = StraightLine(uniform(), GOALS[goal], t1)
    x, dx = nodes(line.breaks)
    rho = line.goal.value(x)
    size = math.sqrt(dx @ rho**2)

    def field(k: float) -> tuple[Drift, Field]:
        def drift(t: float, x: Array) -> Array:
            y, rho = line.cdf(t, x[:, 0]), line.density(t, x[:, 0])
            return (line.speed(t, x[:, 0]) + a / k * np.sin(k * y) / rho)[:, None]

        def divergence(t: float, x: Array) -> Array:
            x = x[:, 0]
            y, rho = line.cdf(t, x), line.density(t, x)
            bend = a / k * np.sin(k * y) * line.slope(t, x) / rho**2
            return line.expansion(t, x) + a * np.cos(k * y) - bend

        return drift, divergence

    def run(m: int, n: int, rtol: float) -> Array:
        labels = Labels.on_interval(comm, n, line.start)
        drift, divergence = field(2.0 * math.pi * m)
        flow = carry(labels, drift, [0.0, t1], divergence=divergence, rtol=rtol, atol=rtol)
        error = flow.l2_errors(lambda t, x: line.density(t, x[:, 0]))[-1]
        ends = line.quantile(t1, line.start.cdf(labels.points[:, 0]))[:, None]
        exact = Flow(labels, flow.times, np.array([labels.points, ends]), flow.log_jacobian)
        return np.array([error / size, flow.wasserstein(exact)[-1]])

    rows, found, limit = [], [], math.sqrt(math.cosh(a * t1) - 1.0)
    for m in frequencies:
        n = max(100, labels_per_wave * m)
        fine, coarse = run(m, 2 * n, 1e-9), run(m, n, 1e-8)
        k = 2.0 * math.pi * m
        # y = F_T(x): the waves of g are resolved by nodes that are uniform in y.
        y = (np.arange(400 * m) + 0.5) / (400 * m)
        at = line.quantile(t1, y)
        g = 1.0 / (math.cosh(a * t1) + math.sinh(a * t1) * np.cos(k * y))
        exact = math.sqrt(np.mean(line.goal.value(at) * (g - 1.0) ** 2)) / size
        found.append(fine)
        rows.append(
            Row(
                f"relative L2 error at T, m = {m}",
                fine[0],
                predicted=exact,
                discretization_error=abs(fine[0] - coarse[0]),
                tolerance=1e-3,
            )
        )
    error, w2 = np.array(found).T
    rows.append(
        Row(
            f"relative L2 error at T, m = {frequencies[-1]}, against the limit",
            error[-1],
            predicted=limit,
            # Off the limit by the change of rho_T over a wave.
            tolerance=0.05,
        )
    )
    rate = slopes(np.array(frequencies), w2)[-1]
    rows.append(Row("slope of W2 in m, last two", float(rate), bound=-0.75))
    places = list(frequencies)
    lines = (
        Line(places, error.tolist(), "relative L2"),
        Line(places, w2.tolist(), "W2"),
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


def smoothings(
    comm: MPI.Comm,
    *,
    sigma: float = 0.5,
    t1: float = 1.0,
    limits: tuple[float, ...] = (0.25, 0.5, 1.0),
    widths: tuple[float, ...] = (0.1, 0.05, 0.025, 0.0125),
    grid: Grid | None = None,
) -> Study:
    r"""The kink's field clipped to |v| <= M, or its score averaged over (x - d, x + d). Collective.

    Bounded and Lipschitz fields suffice. Averages of :math:`\nabla\log\rho_t` are differences of
    :math:`\log\rho_t` (continued evenly at the walls), which the average changes by order
    :math:`d^p` over a width d, p = 3/4: the error falls like :math:`d^{p + 1/2}`.

    Args:
        comm: Communicator.
        sigma: Noise.
        t1: Last time.
        limits: M, ascending.
        widths: d, descending.
        grid: Resolution.
    """
    grid = grid or Grid(200, 20)
    line, D = StraightLine(uniform(), GOALS["kink"], t1), 0.5 * sigma**2

    def clipped(m: float) -> Change:
        return lambda t, x, v: np.clip(v, -m, m)

    def averaged(d: float) -> Change:
        def change(t: float, x: Array, v: Array) -> Array:
            high, low = (np.log(line.density(t, _folded(x + s))) for s in (d, -d))
            return line.speed(t, x) + D * (high - low) / (2.0 * d)

        return change

    changes = {f"|v| <= {m:g}": clipped(m) for m in limits}
    changes |= {f"averaged over +-{d:g}": averaged(d) for d in widths}

    def run(grid: Grid) -> Array:
        flow = flow_on_interval(comm, line, sigma, grid)
        return np.array([response(flow, c, grid.steps) for c in changes.values()])

    fine, error = measured(run, grid)
    rows = []
    for name, (e, _, ratio), (de, _, dr) in zip(changes, fine, error, strict=True):
        rows.append(Row(f"sup_t L2 error, {name}", e, discretization_error=de))
        title = f"largest ratio of error to bound (E3), {name}"
        rows.append(Row(title, ratio, bound=1.0, discretization_error=dr))
    n = len(limits)
    for i in range(1, n):
        name = f"error at M = {limits[i]:g} over that at {limits[i - 1]:g}"
        value = fine[i, 0] / fine[i - 1, 0]
        rows.append(Row(name, value, bound=limits[i - 1] / limits[i]))
    rate = slopes(np.array(widths), fine[n:, 0])[-1]
    off = float(np.abs(error[n:, 0] / fine[n:, 0])[-2:].sum()) / math.log(widths[-2] / widths[-1])
    name = "slope of the error in the width of averages, last two"
    rows.append(Row(name, float(rate), predicted=1.25, discretization_error=off, tolerance=0.05))
    lines = (
        Line(list(widths), fine[n:, 0].tolist(), "error, averaged score", "o"),
        Line(list(widths), fine[n:, 1].tolist(), "bound (E3), averaged score", "s--"),
        Line(list(limits), fine[:n, 0].tolist(), "error, clipped at M"),
    )
    return Study(
        f"bounded and smoothed fields to the kink, sigma = {sigma:g}, T = {t1:g}",
        "The kink's field is unbounded; bounded ones and ones with an averaged score come as near "
        "to the line as is wanted.",
        "own",
        tuple(rows),
        (Panel("bounded or averaged fields", "M or d", "sup_t L2 error", lines, "log", "log"),),
    )


def _folded(x: Array) -> Array:
    """Points beyond the walls of (0, 1) mirrored back."""
    return 1.0 - np.abs(1.0 - np.abs(x))


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
