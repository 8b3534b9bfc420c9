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

import math

from mpi4py import MPI

import numpy as np
from scipy.linalg import solve_banded

from fpcontrol.theorems.closed_forms.profiles import GOALS, StraightLine
from fpcontrol.theorems.closed_forms.ripples import (
    Along,
    Comoving,
    comoving_errors,
    flat_error,
    source_edges,
    still_relaxing,
)
from fpcontrol.theorems.experiments.comoving import check_limit
from fpcontrol.theorems.experiments.smoothed_fields import smoothings
from fpcontrol.theorems.framework import Experiment, Figure, Grid, Study, measure_each
from fpcontrol.theorems.runs.moser_runs import carried, flow_on_interval, response
from fpcontrol.typing import Array

# Acceptance: half a percent, of either of two discretizations.
CLOSE = 5e-3


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
        now = line.at(t)
        rho = now.value(now.quantile(y))
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
    """Co-moving ripples of growing wavenumber k = 2 pi m, with noise.

    Args:
        goal: Where the line leads, smooth or kink: in H1.
        a: Strength: the ripple has slope a in mass coordinates, whatever k.
        frequencies: m, ascending, successive ones doubled.
        steps: Time steps of the coarser run, see ``response``.
    """
    study = Study(
        f"co-moving ripples on the {goal} reference, sigma = {sigma:g}, a = {a:g}, T = {t1:g}",
        "With noise the error of a ripple of vanishing size but constant slope falls like $k^{-2}$ "
        "and stays below the bound computed from the two fields and the perturbed solution.",
    )
    line, D = StraightLine.to(GOALS[goal], t1), 0.5 * sigma**2
    ms, k = np.array(frequencies), 2.0 * math.pi * np.array(frequencies)

    def run(q: float, at: Grid) -> Array:
        flow = flow_on_interval(comm, line, sigma, at)
        return response(flow, flow.drift + Comoving(line, a, q), at.steps)

    def in_mass(m: int) -> Figure:
        # A hundred volumes a wave; of second order, half as many are off four times as much.
        n, q = max(1600, 100 * m), 2.0 * math.pi * m
        half, whole = (
            in_mass_coordinates(line, sigma, a, q, cells=cells, steps=cells // 2)
            for cells in (n // 2, n)
        )
        return Figure.refined(half, whole)

    # kh = 0.5 at degree 2, and never so coarse that the kink's surroundings matter.
    runs = measure_each(run, k, lambda q: Grid(max(100, 2 * math.ceil(q)), steps))
    error, bound, ratio = runs.T
    exact = Figure.stack([in_mass(m) for m in frequencies])
    study.equals("sup_t L2 error, m = {}", error, exact, CLOSE, over=frequencies)
    study.below("largest error over bound (E3), m = {}", ratio, 1.0, over=frequencies)

    rates, kappa = D * k**2, D * k**2 / a
    for i, slope in enumerate(error.slopes(ms)):
        # Before, noise does not yet dominate the ripple, or modes still come up at T.
        if kappa[i] >= 5.0 and still_relaxing(line.goal, float(rates[i] * t1)) <= 0.02:
            study.equals(f"slope of the error in m, {ms[i]} to {ms[i + 1]}", slope, -2.0, 0.05)
    # sup over t of |1/rho_t|, which is convex in t and so largest at an end.
    inverse = max(1.0, math.sqrt(line.goal.integral(lambda x: line.goal.value(x) ** -2.0)))
    limit = inverse / (math.sqrt(2.0) * kappa)
    # The line must not have moved by more than 1 % of the way when a mode is at its largest ratio.
    if kappa[-1] >= 100.0 and rates[-1] * t1 >= 100.0:
        # The response comes up while rho_t is still the start: one mode, s = D k^2 t.
        s = np.linspace(1.0, 1.5, 1001)
        largest = (math.sqrt(2.0) * (1.0 - np.exp(-s)) / np.sqrt(s)).max()
        name = f"error over its limit for large k, m = {ms[-1]}"
        study.equals(name, error[-1] / limit[-1], 1.0, 0.02)
        name = f"largest error over bound against its limit, m = {ms[-1]}"
        study.equals(name, ratio[-1], largest, 0.01)
    curves = {"measured": error, "limit": limit, "bound (E3)": bound}
    study.curves("error and bound", "m", "sup_t L2 error", ms, curves, "xy")
    return study


def ripples_without_noise(
    comm: MPI.Comm,
    *,
    goal: str = "kink",
    a: float = 2.0,
    t1: float = 1.0,
    frequencies: tuple[int, ...] = (1, 2, 4, 8),
    markers_per_wave: int = 16,
) -> Study:
    r"""The same ripples at sigma = 0, along characteristics: the error stays.

    Relative to the norm of the goal :math:`(\int\rho_T(g(F_T) - 1)^2\rho_T\,dx)^{1/2}`, which
    tends to :math:`(\cosh aT - 1)^{1/2}`, while the distance to the line in W2 vanishes. The
    markers are carried in space, by the field and the ripple: nothing is known of where they end.

    Args:
        goal: Where the line leads, smooth or kink.
        markers_per_wave: Cells of markers a wave.
    """
    study = Study(
        f"co-moving ripples on the {goal} reference without noise, a = {a:g}, T = {t1:g}",
        "Without noise a ripple of vanishing size keeps its L2 error at every wavenumber; only "
        "the Wasserstein distance falls.",
    )
    line, k = StraightLine.to(GOALS[goal], t1), 2.0 * math.pi * np.array(frequencies)

    def run(m: int, at: Grid) -> Array:
        q, drift = 2.0 * math.pi * m, Along(line) + Comoving(line, a, 2.0 * math.pi * m)
        edges = [*line.breaks, *source_edges(a * t1, q, at.steps)]
        return carried(comm, line, drift, edges, at, 1e-8 / at.steps**3) * [1.0, q]

    l2, w2 = measure_each(run, frequencies, lambda m: Grid(max(40, markers_per_wave * m), 1)).T
    exact_l2, exact_w2 = Figure.stack([comoving_errors(line.goal, a * t1, q) for q in k]).T
    limit = flat_error(a * t1)
    study.equals("relative L2 error at T, m = {}", l2, exact_l2, 1e-4, over=frequencies)
    study.equals("k W2 at T, m = {}", w2, exact_w2, 1e-4, over=frequencies)
    last = f"relative L2 error at T, m = {frequencies[-1]}, against the limit"
    check_limit(study, line.goal, last, l2[-1], limit, 1.0, k[-1])
    rate, exact_rate = ((values / k).slopes(k)[-1] for values in (w2, exact_w2))
    study.equals("slope of W2 in m, last two (limit -1)", rate, exact_rate, 1e-3)
    curves = {"relative L2": l2, "W2": w2 / k, "limit": limit}
    study.curves("no noise: L2 stays, W2 falls", "m", "error at T", frequencies, curves, "xy")
    return study


EXPERIMENTS = [
    Experiment("t4.ripple.sigma=0.5", ripples, quick={"frequencies": (1, 2, 4), "steps": 12}),
    Experiment("t4.ripple.sigma=0", ripples_without_noise),
    Experiment("t4.ripple.sigma=0.2", ripples, sigma=0.2, quick=None),
    Experiment("t4.smoothed", smoothings, quick=None),
]
