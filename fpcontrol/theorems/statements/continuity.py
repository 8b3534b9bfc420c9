r"""Densities depend continuously on the drift: in L2 with noise, only in W2 without.

A statement of the kind of Proposition 1 of [1] (reconstructed): let sigma > 0 and :math:`\rho_n,
\rho` solve the Fokker-Planck equation on a bounded domain from one initial density, with drifts
:math:`v_n \to v` in L2 of space and time, and let :math:`\rho` be bounded. Then
:math:`\rho_n\to\rho` in :math:`C([0,T];L^2)`, if in two and more dimensions also :math:`v_n - v` is
bounded uniformly, or :math:`(\nabla\cdot v_n)^-` is and :math:`v_n\cdot n\le0` at the walls
(``radial`` shows what happens otherwise). Alternatively it suffices that the right side of (E3)
vanishes, which gives convergence in chi-square where :math:`\rho` is unbounded. Nothing else is
asked of v: it need not be Lipschitz, nor even bounded if :math:`v_n - v` is. With
:math:`w = \rho_1 - \rho_2`, :math:`\delta = v_1 - v_2` and :math:`D = \sigma^2/2` (derived here;
(E2) for :math:`v_1\cdot n\le0` at the walls):

.. math:: (E2)\quad \|w(t)\|^2 \le \frac1{2D}\int_0^t e^{\int_s^t |(\nabla\cdot v_1)^-|_\infty}
    \|\rho_2\delta\|^2\,ds

.. math:: (E3)\quad \int\frac{w^2}{\rho_2}(t) \le \frac1{2D}\int_0^t\!\int\frac{\rho_1^2}{\rho_2}
    |\delta|^2\,dx\,ds

.. math:: (E4)\quad \mathrm{KL}(\rho_1|\rho_2)(t) \le \frac1{4D}\int_0^t\!\int
    \rho_1|\delta|^2\,dx\,ds

Without noise the density moves by :math:`W_2` of order :math:`\|\delta\|` at most, and in L2 by any
amount. The family :math:`v_k = (a/k)\sin kx` shows both: it vanishes uniformly, with Lipschitz
constant a. At sigma = 0 the L2 error is :math:`\sqrt{\cosh aT - 1}` at every frequency; with noise
it falls as :math:`a/(\sqrt2 Dk^2)` as soon as :math:`\kappa = Dk^2/a` is above 1, and the time
longer than :math:`1/(Dk^2)`.

Traps. The limit sigma to 0 is not uniform: noise of some :math:`\sigma_c` halves the error, less
noise removes less and less of it. At aT = 2 it is :math:`\sqrt a/k` (``similarity``), and
:math:`0.45\,\sigma_c` still removes 22 %. Upwinding is a noise of size h and shows a convergence at
sigma = 0 that is not there: all figures without noise are by characteristics. The density relaxes
within :math:`1/(Dk^2)`: a scheme that is not L-stable overshoots there.

References:
    [1] K. Elamvazhuthi, S. Oymak, F. Pasqualetti, Noise in the reverse process improves the
    approximation capabilities of diffusion models, arXiv:2312.07851.
"""

from collections.abc import Mapping, Sequence

from mpi4py import MPI

import numpy as np

from fpcontrol.theorems.closed_forms import cosine
from fpcontrol.theorems.closed_forms.ripples import Ripple
from fpcontrol.theorems.experiments import constants, oscillations, radial
from fpcontrol.theorems.experiments.by_particles import ripple_by_particles
from fpcontrol.theorems.experiments.similarity import similarity
from fpcontrol.theorems.framework import Experiment, Figure, Grid, Line, Study, measure_each
from fpcontrol.theorems.runs.oscillation_runs import carried_twice, on_unit_interval, resolving
from fpcontrol.typing import Array

# Acceptance: half a percent on figures of the Galerkin method, where kh is 0.2 or less.
CLOSE = 5e-3


def ripples(a: float, frequencies: Sequence[int]) -> list[Ripple]:
    """The family, with m periods on the unit interval."""
    return [Ripple(a, 2.0 * np.pi * m) for m in frequencies]


# -- with noise ------------------------------------------------------------------------------------


def oscillating_table(
    comm: MPI.Comm,
    *,
    a: float = 2.0,
    t1: float = 1.0,
    sigmas: Sequence[float] = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01),
    frequencies: Sequence[int] = (1, 2, 4, 8, 16, 32, 64),
    grid: Grid | None = None,
) -> Study:
    r"""With noise the density forgets drifts ``(a/k) sin(kx)``, ``k = 2 pi m``, as k grows."""
    study = Study(
        f"oscillating drifts, several noises, a={a:g}, T={t1:g}",
        r"With noise the L2 error falls as $k^{-2}$ from $k\sim\sqrt{a}/\sigma$ on; without, it is "
        r"the same at every k.",
    )
    drifts, strength = ripples(a, frequencies), a * t1
    k = np.array([v.k for v in drifts])

    def with_noise(sigma: float) -> Figure:
        """Check the family at one noise; returns its L2 errors."""
        kappas = [v.kappa(sigma) for v in drifts]

        def run(v: Ripple, at: Grid) -> Array:
            return on_unit_interval(comm, v, sigma, t1, v.k / (2.0 * np.pi), at)

        runs = measure_each(run, drifts, lambda v: grid or resolving(v.kappa(sigma), strength))
        errors, w2 = runs.T
        name = f"sigma={sigma:g}: "
        where = [f"m={m}, kappa={kappa:.3g}" for m, kappa in zip(frequencies, kappas, strict=True)]
        exact = [cosine.sup_l2(kappa, strength) for kappa in kappas]
        study.equals(name + "sup L2 error, {}", errors, exact, CLOSE, over=where)
        # (E2) with v_1 = v_k, rho_2 = 1: the divergence is -a at worst.
        e2 = np.sqrt(a * np.expm1(strength) / (2.0 * sigma**2)) / k
        study.below(name + "sup L2 error against (E2), {}", errors, e2, over=where)
        exact = [cosine.sup_wasserstein(kappa, strength) for kappa in kappas]
        study.equals(name + "sup k W2, {}", w2, exact, CLOSE, over=where)
        slopes = errors.slopes(k)
        for i, kappa in enumerate(kappas[:-1]):
            # The limit -2 is off by .1/kappa^2 for the drift that is left, and for the mode that
            # still comes up, 1 - exp(-z) with z = kappa a T, by 2 z/(exp(z) - 1).
            if kappa >= 3.0 and kappa * strength >= 8.0:
                pair = f"m={frequencies[i]} to {frequencies[i + 1]}"
                study.equals(f"{name}slope of log error in log k, {pair}", slopes[i], -2.0, 0.025)
        return errors

    errors = {sigma: with_noise(sigma) for sigma in sigmas}
    flat = cosine.sup_l2(0.0, strength)
    errors[0.0], _ = carried(comm, drifts, frequencies, t1)
    study.equals("sigma=0: sup L2 error, m={}", errors[0.0], flat, 1e-4 / flat, over=frequencies)
    draw_frequencies(study, a, t1, frequencies, errors)
    return study


def draw_frequencies(
    study: Study, a: float, t1: float, frequencies: Sequence[int], errors: Mapping[float, Figure]
) -> None:
    """L2 errors against frequency for several sigmas, closed forms as lines behind points."""
    lines = []
    for sigma in sorted({0.0, *errors}):
        exact = [cosine.sup_l2(v.kappa(sigma), a * t1) for v in ripples(a, frequencies)]
        lines.append(Line(frequencies, exact, f"sigma={sigma:g}, closed form", "-"))
        if sigma in errors:
            lines.append(Line(frequencies, errors[sigma], f"sigma={sigma:g}", "o"))
    title = r"$v = (a/k)\sin kx$: L2 error against frequency"
    study.picture(title, "m = k/(2 pi)", "sup L2 error", *lines, log="xy")


# -- without noise ---------------------------------------------------------------------------------


def carried(
    comm: MPI.Comm, drifts: Sequence[Ripple], frequencies: Sequence[int], t1: float
) -> Figure:
    """L2 errors and ``k W_2`` of drifts with m periods, along characteristics. Collective."""
    runs = zip(drifts, frequencies, strict=True)
    return Figure.stack([carried_twice(comm, v, 32 * m, t1) for v, m in runs]).T


def without_noise(
    comm: MPI.Comm, *, a: float = 2.0, t1: float = 1.0, frequencies: Sequence[int] = (1, 4, 16, 64)
) -> Study:
    r"""At sigma = 0 the L2 error is the same at every frequency, and ``W_2`` falls as 1/k.

    The control ``(a k_0 / k^2) sin(kx)`` has a derivative that vanishes, too: there the L2 error
    falls without noise.
    """
    study = Study(
        f"oscillating drifts without noise, a={a:g}, T={t1:g}",
        r"Without noise the L2 error is $\sqrt{\cosh aT - 1}$ however small the drift.",
    )
    k = 2.0 * np.pi * np.array(frequencies)
    benign = [Ripple(a * frequencies[0] / m, q) for m, q in zip(frequencies, k, strict=True)]
    l2, w2 = carried(comm, ripples(a, frequencies), frequencies, t1)
    calm, _ = carried(comm, benign, frequencies, t1)
    flat, c2 = cosine.sup_l2(0.0, a * t1), cosine.sup_wasserstein(0.0, a * t1)
    # Acceptance: 1e-4 absolute.
    study.equals("sup L2 error, m={}", l2, flat, 1e-4 / flat, over=frequencies)
    study.equals("sup k W2, m={}", w2, c2, 1e-4, over=frequencies)
    study.equals(
        "control: sup L2 error where the derivative falls as 1/k, m={}",
        calm,
        [cosine.sup_l2(0.0, v.a * t1) for v in benign],
        1e-4,
        over=frequencies,
    )
    study.equals("slope of log W2 in log k", (w2 / k).slope(k), -1.0, 1e-3)
    curves = {
        "L2, sqrt(cosh(aT) - 1)": flat,
        "L2": l2,
        "W2, c_2/k": c2 / k,
        "W2": w2 / k,
        "control: L2": calm,
    }
    title = r"$\sigma = 0$: flat in L2, falling in $W_2$"
    study.curves(title, "m = k/(2 pi)", "error", frequencies, curves, "xy")
    return study


FEW = {"sigmas": (0.5, 0.1), "frequencies": (1, 4, 16)}
EXPERIMENTS = [
    Experiment("t1.oscillating", oscillating_table, quick=FEW),
    Experiment("t1.oscillating.sigma=0", without_noise),
    Experiment("t1.similarity", similarity, quick={"kappas": (0.01, 1.0, 100.0)}),
    Experiment("t1.steady", constants.steady_constants),
    Experiment("t1.disc", radial.unbounded_differences, quick={"radii": (0.3, 0.01, 0.003)}),
    Experiment("t1.blow-up.sigma=0.5", oscillations.blow_up_family, sigma=0.5, quick=None),
    Experiment("t1.blow-up.sigma=0.2", oscillations.blow_up_family, quick={"numbers": (1, 2, 4)}),
    Experiment("t1.blow-up.sigma=0.1", oscillations.blow_up_family, sigma=0.1, quick=None),
    Experiment("t1.square", oscillations.product_form, quick={"frequencies": (1,)}),
    Experiment("t1.particles", ripple_by_particles, quick={"number": 20_000, "steps": 80}),
]
