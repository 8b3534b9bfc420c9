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

from mpi4py import MPI

import numpy as np

from fpcontrol.characteristics import carry
from fpcontrol.theorems.closed_forms.cosine import sup_wasserstein
from fpcontrol.theorems.closed_forms.profiles import GOALS, Profile
from fpcontrol.theorems.closed_forms.ripples import (
    Ripple,
    comoving_errors,
    flat_error,
    ripple_density,
    source_edges,
)
from fpcontrol.theorems.experiments.by_particles import comoving_by_particles
from fpcontrol.theorems.experiments.comoving import check_limit, ripple_with_noise
from fpcontrol.theorems.experiments.trajectory_controls import (
    benign_sequence,
    standing_ripple,
    upwind_trap,
)
from fpcontrol.theorems.framework import Experiment, Figure, Grid, Line, Study, measure_each
from fpcontrol.theorems.framework.resolution import markers_between
from fpcontrol.typing import Array

# Closed forms along characteristics are met to this, relative.
CLOSED_FORM = 1e-4


def comoving_ripple(
    comm: MPI.Comm,
    *,
    goal: str = "smooth",
    a: float = 2.0,
    t1: float = 1.0,
    frequencies: Sequence[int] = (1, 4, 16, 64),
    cells: int = 16,
) -> Study:
    r"""Without noise: drifts converge, densities do not in L2, but do in :math:`W_2`.

    Markers ``y = F_t(x)`` are carried by the ripple as it is there, which is exact for every
    reference, jumps included, and mapped back by the reference's quantiles.

    Args:
        goal: Where the line from the uniform density leads: smooth, kink or jump.
        a: Lipschitz constant of the ripple in markers.
    """
    study = Study(
        f"co-moving ripple, sigma = 0, {goal} reference, a = {a:g}, T = {t1:g}",
        r"The drifts converge like $1/k$; the relative $L^2$ error tends to "
        r"$\sqrt{\cosh aT - 1}$ on every reference, and $W_2 \to 0$.",
    )
    rho, k = GOALS[goal], 2.0 * np.pi * np.array(frequencies)

    def run(m: int, at: Grid) -> Array:
        return _in_markers(comm, rho, Ripple(a, 2.0 * np.pi * m), t1, at)

    l2, w2 = measure_each(run, frequencies, lambda m: Grid(m * cells, 1)).T
    exact_l2, exact_w2 = Figure.stack([comoving_errors(rho, a * t1, q) for q in k]).T
    study.equals("relative L2 error, m = {}", l2, exact_l2, CLOSED_FORM, over=frequencies)
    study.equals("k W2, m = {}", w2, exact_w2, CLOSED_FORM, over=frequencies)

    limit, spread = flat_error(a * t1), math.sqrt(rho.integral(lambda x: 1.0 / rho.value(x)))
    against = f"m = {frequencies[-1]}, against"
    name = f"relative L2 error, {against} sqrt(cosh aT - 1)"
    check_limit(study, rho, name, l2[-1], limit, power=1.0, k=k[-1])
    name = f"k W2, {against} c_2(aT) (int dx/rho)^(1/2)"
    check_limit(study, rho, name, w2[-1], sup_wasserstein(0.0, a * t1) * spread, -2.0, k[-1])
    rate, exact_rate = ((values / k).slopes(k)[-1] for values in (w2, exact_w2))
    quantity = f"rate of W2 in k, m = {frequencies[-2]} to {frequencies[-1]} (limit -1)"
    study.equals(quantity, rate, exact_rate, 1e-3)
    curves = {"relative L2, closed form": exact_l2.value, "relative L2": l2, "limit": limit}
    curves |= {"W2, closed form": exact_w2.value / k, "W2": w2 / k}
    study.curves(
        f"Without noise: {goal} reference", "periods m", "error at T", frequencies, curves, "xy"
    )
    _draw_density(study, rho, a * t1)
    return study


def _in_markers(comm: MPI.Comm, rho: Profile, ripple: Ripple, t1: float, grid: Grid) -> Array:
    """Relative L2 error and k W2 at the last time. Collective."""
    at, k = ripple.a * t1, ripple.k
    # Where markers start that end at the reference's edge: the integrand jumps there.
    edge = rho.cdf(np.array(rho.breaks or (0.5,)))
    start = _backward(at, k, edge)
    edges = [0.0, *start, *edge, 1.0, *source_edges(at, k, grid.steps)]
    markers = markers_between(comm, edges, grid.cells)
    rtol = 1e-9 / grid.steps**4
    flow = carry(markers, ripple, [0.0, t1], rtol=rtol, atol=rtol)
    y0, y, log_j = markers.points[:, 0], flow.positions[-1, :, 0], flow.log_jacobian[-1]
    x0, x = rho.quantile(y0), rho.quantile(y)
    value = rho.value(x)
    error = (value * np.exp(-log_j) - value) ** 2 * np.exp(log_j) / value
    square, distance = markers.integral(np.array([error, (k * (x - x0)) ** 2]))
    return np.sqrt([square / rho.norm**2, distance])


def _backward(at: float, k: float, y: Array) -> Array:
    r"""Where markers that are at ``y`` started: :math:`\tan(k y_0/2) = e^{-at}\tan(k y/2)`."""
    turns = np.round(k * y / (2 * np.pi))
    half = 0.5 * k * y - np.pi * turns
    return (2 * np.arctan2(math.exp(-at) * np.sin(half), np.cos(half)) + 2 * np.pi * turns) / k


def _draw_density(study: Study, goal: Profile, at: float, m: int = 8) -> None:
    x = np.linspace(0.0, 1.0, 1601)
    rho = goal.value(x)
    rippled = rho * ripple_density(at, 2 * np.pi * m * goal.cdf(x))
    lines = Line(x, rippled, "rippled", "-"), Line(x, rho, "reference", "-")
    study.picture(f"Densities at T, m = {m}", "x", "density", *lines)


def _noisy(goal: str, sigma: float, m: tuple[int, ...], quick: tuple[int, ...] = ()) -> Experiment:
    few, key = {"frequencies": quick} if quick else None, f"t3.noise.{goal}.sigma={sigma:g}"
    return Experiment(key, ripple_with_noise, goal=goal, sigma=sigma, frequencies=m, quick=few)


EXPERIMENTS = [
    *(Experiment(f"t3.comoving.{goal}", comoving_ripple, goal=goal) for goal in GOALS),
    _noisy("kink", 0.5, (1, 2, 4, 8, 16), quick=(2, 4, 8)),
    _noisy("kink", 0.2, (2, 4, 8, 16)),
    _noisy("smooth", 0.5, (1, 2, 4, 8, 16), quick=(4, 8, 16)),
    _noisy("smooth", 0.2, (4, 8, 16, 32, 48)),
    Experiment("t3.control.standing", standing_ripple, quick={"frequencies": (4, 8, 16)}),
    Experiment("t3.control.benign", benign_sequence),
    Experiment("t3.trap.upwind", upwind_trap),
    Experiment("t3.particles", comoving_by_particles, quick=None),
]
