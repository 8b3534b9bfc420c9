r"""Approximation of trajectories: in L2 with noise, in the Wasserstein distance without.

A statement of the kind of Theorem 3 of [1] (reconstructed): if :math:`\sigma > 0`, the reference
:math:`\rho` is bounded, and :math:`v_n \to v` in L2 with :math:`v_n - v` bounded uniformly, then
:math:`\sup_t\|\rho_n - \rho\|_{L^2} \to 0`, with no Lipschitz constant anywhere (``continuity`` has
the estimates, and what replaces these hypotheses); for :math:`\sigma = 0` and Lipschitz :math:`v`
only :math:`\sup_t W_2(\rho_n,\rho) \to 0`. That the second is no weakness of a proof is seen on the
co-moving ripple (own): for any positive reference with distribution functions :math:`F_t`,

.. math:: v_k = v + \frac ak\,\frac{\sin(k F_t(x))}{\rho_t(x)},\qquad k = 2\pi m,

differs from :math:`v` by :math:`O(1/k)`. In the markers :math:`y = F_t(x)` it reads
:math:`\dot y = \frac ak\sin ky`, so that at :math:`\sigma = 0`

.. math:: \rho_k = \rho_t\,g_t(F_t),\qquad g_t(y) = \frac1{\cosh at + \sinh at\cos ky},\qquad
    \frac{\|\rho_k-\rho_t\|}{\|\rho_t\|} \to \sqrt{\cosh at - 1},\qquad
    k W_2 \to c_2(at)\Bigl(\int\frac{dx}{\rho_t}\Bigr)^{1/2},

with :math:`c_2^2` the mean square displacement of :math:`\dot\theta = \sin\theta` after time
:math:`at`; and with noise

.. math:: \|\rho_k - \rho_t\| \simeq \frac{a}{\sqrt2\,D k^2}\,\Bigl\|\frac1{\rho_t}\Bigr\| .

What is compared is the continuity of :math:`v \mapsto \rho`, not best approximants: networks that
come close to a smooth :math:`v` together with its derivative converge in L2 without noise too.

Two traps. A ripple :math:`\frac ak\sin kx` that stays in place is averaged out by a flow across
it, and L2 converges without noise, at rate 1/2 (``standing_ripple``). And an upwind scheme on a
mesh is a noise of the size of a cell, whose L2 error falls with the frequency although the exact
one does not: ``upwind_trap``. All else here at :math:`\sigma = 0` is along characteristics.

References:
    [1] K. Elamvazhuthi, S. Oymak, F. Pasqualetti, Noise in the reverse process improves the
    approximation capabilities of diffusion models, arXiv 2312.07851.
"""

import math
from collections.abc import Sequence
from functools import partial

from mpi4py import MPI

import numpy as np

from fpcontrol.characteristics.flow import carry
from fpcontrol.theorems.closed_forms.cosine import sup_wasserstein
from fpcontrol.theorems.closed_forms.ripples import (
    GOALS,
    Goal,
    comoving_errors,
    ripple_density,
    source_edges,
)
from fpcontrol.theorems.experiments.comoving import limit_row, ripple_with_noise
from fpcontrol.theorems.experiments.trajectory_controls import (
    benign_sequence,
    standing_ripple,
    upwind_trap,
)
from fpcontrol.theorems.framework.checks import Line, Panel, Row, Study
from fpcontrol.theorems.framework.experiments import Experiment
from fpcontrol.theorems.framework.resolution import Grid, markers_between, measured, slopes
from fpcontrol.typing import Array

# Closed forms along characteristics are met to this, relative.
CLOSED_FORM = 1e-4
FIGURES = ("relative L2 error", "k W2")


def comoving_ripple(
    comm: MPI.Comm,
    *,
    profile: Goal = GOALS["smooth"],
    a: float = 2.0,
    t1: float = 1.0,
    frequencies: Sequence[int] = (1, 4, 16, 64),
    cells: int = 16,
) -> Study:
    r"""Without noise: drifts converge, densities do not in L2, but do in :math:`W_2`. Collective.

    Markers ``y = F_t(x)`` are carried by the ripple as it is there, which is exact for every
    reference, jumps included, and mapped back by the reference's quantiles.

    Args:
        comm: Communicator.
        profile: Where the line from the uniform density leads.
        a: Lipschitz constant of the ripple in markers.
        t1: Last time.
        frequencies: Periods ``m``, ascending, at least two.
        cells: Cells of markers a period.
    """
    k = 2.0 * np.pi * np.array(frequencies)
    runs = [
        _in_labels(comm, profile, a, t1, float(q), m * cells)
        for m, q in zip(frequencies, k, strict=True)
    ]
    found, exact = np.array(runs), np.array([comoving_errors(profile, a * t1, q) for q in k])
    (l2, w2), errors = found[:, 0].T, (found + exact)[:, 1].T  # of the run and of the closed form
    limit = math.sqrt(math.cosh(a * t1) - 1.0)
    spread = math.sqrt(profile.integral(lambda x: 1.0 / profile.density(x)))
    w2_limit = sup_wasserstein(0.0, a * t1) * spread
    rows = [
        Row(f"{name}, m = {m}", value, p, None, None, e, CLOSED_FORM)
        for j, name in enumerate(FIGURES)
        for m, value, p, e in zip(
            frequencies,
            *(f.tolist() for f in (found[:, 0, j], exact[:, 0, j], errors[j])),
            strict=True,
        )
    ]
    rows += [
        limit_row(profile, f"{name}, m = {frequencies[-1]}, against {what}", k[-1], power, row)
        for name, what, power, row in (
            (FIGURES[0], "sqrt(cosh aT - 1)", 1.0, (l2[-1], limit, errors[0, -1])),
            (FIGURES[1], "c_2(aT) (int dx/rho)^(1/2)", -2.0, (w2[-1], w2_limit, errors[1, -1])),
        )
    ]
    rates = [float(slopes(k, values / k)[-1]) for values in (w2, exact[:, 0, 1])]
    off = float(np.sum(errors[1, -2:] / w2[-2:])) / math.log(k[-1] / k[-2])
    quantity = f"rate of W2 in k, m = {frequencies[-2]} to {frequencies[-1]} (limit -1)"
    rows += [Row(quantity, rates[0], rates[1], None, None, off, 1e-3)]
    return Study(
        f"co-moving ripple, sigma = 0, {profile.name} reference, a = {a:g}, T = {t1:g}",
        r"The drifts converge like $1/k$; the relative $L^2$ error tends to "
        r"$\sqrt{\cosh aT - 1}$ on every reference, and $W_2 \to 0$.",
        "own",
        tuple(rows),
        (
            Panel(
                f"Without noise: {profile.name} reference",
                "periods m",
                "error at T",
                (
                    Line(frequencies, exact[:, 0, 0].tolist(), "relative L2, closed form", "-"),
                    Line(frequencies, l2.tolist(), "relative L2", "o"),
                    Line(frequencies, [limit] * len(k), "limit", "--"),
                    Line(frequencies, (exact[:, 0, 1] / k).tolist(), "W2, closed form", "-"),
                    Line(frequencies, (w2 / k).tolist(), "W2", "s"),
                ),
                "log",
                "log",
            ),
            _picture(profile, a * t1),
        ),
    )


def _in_labels(
    comm: MPI.Comm, profile: Goal, a: float, t1: float, k: float, cells: int
) -> tuple[Array, Array]:
    """Relative L2 error and k W2 at the last time, and what tighter tolerances change in them."""

    def run(grid: Grid) -> Array:
        # Where markers start that end at the reference's edge: the integrand jumps there.
        edge = profile.cdf(np.array([0.5 if profile.edge is None else profile.edge]))
        start = _backward(a * t1, k, edge)[0]
        edges = [0.0, start, edge[0], 1.0, *source_edges(a * t1, k, grid.steps)]
        markers = markers_between(comm, edges, grid.cells, lambda x: np.ones(len(x)))
        rtol = 1e-9 / grid.steps**4
        flow = carry(
            markers,
            lambda t, y: a / k * np.sin(k * y),
            [0.0, t1],
            divergence=lambda t, y: a * np.cos(k * y[:, 0]),
            rtol=rtol,
            atol=rtol,
        )
        y0, y, log_j = markers.points[:, 0], flow.positions[-1, :, 0], flow.log_jacobian[-1]
        x0, x = profile.quantile(1.0, y0), profile.quantile(1.0, y)
        rho = profile.density(x)
        error = (rho * np.exp(-log_j) - rho) ** 2 * np.exp(log_j) / rho
        square, distance = markers.integral(np.array([error, (k * (x - x0)) ** 2]))
        whole = profile.integral(lambda x: profile.density(x) ** 2)
        return np.sqrt([square / whole, distance])

    return measured(run, Grid(cells, 1))


def _backward(at: float, k: float, y: Array) -> Array:
    r"""Where markers that are at ``y`` started: :math:`\tan(k y_0/2) = e^{-at}\tan(k y/2)`."""
    turns = np.round(k * y / (2 * np.pi))
    half = 0.5 * k * y - np.pi * turns
    return (2 * np.arctan2(math.exp(-at) * np.sin(half), np.cos(half)) + 2 * np.pi * turns) / k


def _picture(profile: Goal, at: float, m: int = 8) -> Panel:
    x = np.linspace(0.0, 1.0, 1601)
    rho = profile.density(x)
    rippled = rho * ripple_density(at, 2 * np.pi * m * profile.cdf(x))
    return Panel(
        f"Densities at T, m = {m}",
        "x",
        "density",
        (
            Line(x.tolist(), rippled.tolist(), "rippled", "-"),
            Line(x.tolist(), rho.tolist(), "reference", "-"),
        ),
    )


def experiments(quick: bool) -> list[Experiment]:
    """What ``fpcontrol verify`` runs."""
    noisy: list[tuple[str, float, tuple[int, ...]]] = [
        ("kink", 0.5, (2, 4, 8)),
        ("smooth", 0.5, (4, 8, 16)),
    ]
    if not quick:
        noisy = [
            ("kink", 0.5, (1, 2, 4, 8, 16)),
            ("kink", 0.2, (2, 4, 8, 16)),
            ("smooth", 0.5, (1, 2, 4, 8, 16)),
            ("smooth", 0.2, (4, 8, 16, 32, 48)),
        ]
    runs = [
        Experiment(f"t3.comoving.{name}", partial(comoving_ripple, profile=profile))
        for name, profile in GOALS.items()
    ]
    runs += [
        Experiment(
            f"t3.noise.{name}.sigma={sigma:g}",
            partial(ripple_with_noise, profile=GOALS[name], sigma=sigma, frequencies=m),
        )
        for name, sigma, m in noisy
    ]
    return [
        *runs,
        Experiment(
            "t3.control.standing",
            partial(standing_ripple, frequencies=(4, 8, 16) if quick else (2, 4, 8, 16, 32)),
        ),
        Experiment("t3.control.benign", benign_sequence),
        Experiment("t3.trap.upwind", upwind_trap),
    ]
