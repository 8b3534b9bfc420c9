r"""Densities depend continuously on the drift: in L2 with noise, only in W2 without.

A statement of the kind of Proposition 1 of [1] (reconstructed): let sigma > 0 and :math:`\rho_n,
\rho` solve the Fokker-Planck equation on a bounded domain from one initial density, with drifts
:math:`v_n \to v` in L2 of space and time, and let :math:`\rho` be bounded. Then
:math:`\rho_n\to\rho` in :math:`C([0,T];L^2)`, if in two and more dimensions also :math:`v_n - v` is
bounded uniformly, or :math:`(\nabla\cdot v_n)^-` is and :math:`v_n\cdot n\le0` at the walls
(``radial`` shows what happens else). In place of all that the right side of (E3) may vanish; where
:math:`\rho` is not bounded that gives convergence in chi-square. Nothing else is asked of v: it
need not be Lipschitz, and with bounded :math:`v_n - v` not bounded. With
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

Traps. The limit sigma to 0 is not uniform: at some :math:`\sigma_c` half of the error is gained,
below it less and less. It is :math:`\sqrt a/k` at aT = 2 (``similarity``), and 0.45 of it still
gain 22 %. Upwinding is a noise of size h and shows convergence at sigma = 0 that is not there: all
figures without noise are by characteristics. The density relaxes within :math:`1/(Dk^2)`: a scheme
that is not L-stable overshoots there.

References:
    [1] K. Elamvazhuthi, S. Oymak, F. Pasqualetti, Noise in the reverse process improves the
    approximation capabilities of diffusion models, arXiv:2312.07851.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from mpi4py import MPI

import numpy as np

from fpcontrol.theorems.closed_forms import cosine
from fpcontrol.theorems.experiments import constants, oscillations, radial
from fpcontrol.theorems.experiments.similarity import KAPPAS, similarity
from fpcontrol.theorems.framework.checks import Line, Panel, Row, Study
from fpcontrol.theorems.framework.experiments import Experiment
from fpcontrol.theorems.framework.resolution import Grid, measured, slopes
from fpcontrol.theorems.runs.oscillation_runs import (
    Ripple,
    carried_twice,
    on_unit_interval,
    resolving,
)

# Acceptance: half a percent on figures of the Galerkin method, where kh is 0.2 or less.
CLOSE = 5e-3


def oscillating_family(
    comm: MPI.Comm,
    *,
    a: float = 2.0,
    t1: float = 1.0,
    sigma: float = 0.5,
    frequencies: Sequence[int] = (1, 2, 4, 8),
    grid: Grid | None = None,
) -> Study:
    r"""With noise the density forgets drifts ``(a/k) sin(kx)``, ``k = 2 pi m``, as k grows.

    Args:
        comm: Communicator.
        a: Lipschitz constant of the drifts.
        t1: Last time.
        sigma: Noise.
        frequencies: Numbers of periods m on the unit interval, ascending.
        grid: Cells to a period, and steps; from the parameters unless given.
    """
    rows, errors = _rows_and_errors(comm, a, t1, sigma, frequencies, grid)
    panel = frequency_panel(a, t1, frequencies, {sigma: errors})
    claim = (
        r"The L2 error falls as $a/(\sqrt{2}Dk^2)$ once $\kappa = Dk^2/a$ and $\kappa aT$ exceed 1."
    )
    name = f"oscillating drifts, sigma={sigma:g}, a={a:g}, T={t1:g}"
    return Study(name, claim, "own", tuple(rows), (panel,))


def oscillating_table(
    comm: MPI.Comm,
    *,
    a: float = 2.0,
    t1: float = 1.0,
    sigmas: Sequence[float] = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01),
    frequencies: Sequence[int] = (1, 2, 4, 8, 16, 32, 64),
    grid: Grid | None = None,
) -> Study:
    r"""``oscillating_family`` for several noises and none, in one picture.

    Args:
        comm: Communicator.
        a: Lipschitz constant of the drifts.
        t1: Last time.
        sigmas: Noises.
        frequencies: Numbers of periods m on the unit interval, ascending.
        grid: Cells to a period, and steps; from the parameters unless given.
    """
    rows: list[Row] = []
    errors = {}
    for sigma in sigmas:
        part, errors[sigma] = _rows_and_errors(comm, a, t1, sigma, frequencies, grid)
        rows += [replace(row, quantity=f"sigma={sigma:g}: {row.quantity}") for row in part]
    flat, errors[0.0] = cosine.sup_l2(0.0, a * t1), []
    for m in frequencies:
        (l2, _), (gap, _) = carried_twice(comm, Ripple(a, 2.0 * np.pi * m), 32 * m, t1)
        rows += [Row(f"sigma=0: sup L2 error, m={m}", l2, flat, None, None, gap, 1e-4 / flat)]
        errors[0.0].append(l2)
    panel = frequency_panel(a, t1, frequencies, errors)
    claim = (
        r"With noise the L2 error falls as $k^{-2}$ from $k\sim\sqrt{a}/\sigma$ on; without, it is "
        r"the same at every k."
    )
    name = f"oscillating drifts, several noises, a={a:g}, T={t1:g}"
    return Study(name, claim, "own", tuple(rows), (panel,))


def _rows_and_errors(
    comm: MPI.Comm,
    a: float,
    t1: float,
    sigma: float,
    frequencies: Sequence[int],
    grid: Grid | None,
) -> tuple[list[Row], list[float]]:
    """Rows of ``oscillating_family`` and L2 errors by frequency. Collective."""
    rows, errors, gaps = [], [], []
    drifts = [Ripple(a, 2.0 * np.pi * m) for m in frequencies]
    for m, v in zip(frequencies, drifts, strict=True):
        kappa = v.kappa(sigma)
        run = partial(on_unit_interval, comm, v, sigma, t1, m)
        (error, w2), (gap, w2_gap) = measured(run, grid or resolving(kappa, a * t1))
        exact = cosine.sup_l2(kappa, a * t1), cosine.sup_wasserstein(kappa, a * t1)
        # (E2) with v_1 = v_k, rho_2 = 1: the divergence is -a at worst.
        e2 = math.sqrt(a * math.expm1(a * t1) / (2.0 * sigma**2)) / v.k
        where = f"m={m}, kappa={kappa:.3g}"
        rows += [
            Row(f"sup L2 error, {where}", error, exact[0], None, None, gap, CLOSE),
            Row(f"sup L2 error against (E2), {where}", error, bound=e2, discretization_error=gap),
            Row(f"sup k W2, {where}", w2, exact[1], None, None, w2_gap, CLOSE),
        ]
        errors.append(float(error))
        gaps.append(gap / error)
    k = np.array([v.k for v in drifts])
    for i, slope in enumerate(slopes(k, np.array(errors))):
        # The limit -2 is off by .1/kappa^2 for the drift that is left, and for the mode that still
        # comes up, 1 - exp(-z) with z = kappa a T, by 2 z/(exp(z) - 1).
        kappa = drifts[i].kappa(sigma)
        if kappa >= 3.0 and kappa * a * t1 >= 8.0:
            e = (gaps[i] + gaps[i + 1]) / math.log(k[i + 1] / k[i])
            quantity = f"slope of log error in log k, m={frequencies[i]} to {frequencies[i + 1]}"
            rows += [Row(quantity, slope, -2.0, discretization_error=e, tolerance=0.025)]
    return rows, errors


def frequency_panel(
    a: float,
    t1: float,
    frequencies: Sequence[int],
    errors: Mapping[float, Sequence[float]],
) -> Panel:
    """L2 errors against frequency for several sigmas, closed forms as lines behind points."""
    lines = []
    for sigma in sorted({0.0, *errors}):
        exact = [
            cosine.sup_l2(Ripple(a, 2.0 * np.pi * m).kappa(sigma), a * t1) for m in frequencies
        ]
        lines.append(Line(tuple(frequencies), exact, f"sigma={sigma:g}, closed form", "-"))
        if sigma in errors:
            lines.append(Line(tuple(frequencies), tuple(errors[sigma]), f"sigma={sigma:g}", "o"))
    title = r"$v = (a/k)\sin kx$: L2 error against frequency"
    return Panel(title, "m = k/(2 pi)", "sup L2 error", tuple(lines), "log", "log")


# -- without noise ---------------------------------------------------------------------------------


def without_noise(
    comm: MPI.Comm,
    *,
    a: float = 2.0,
    t1: float = 1.0,
    frequencies: Sequence[int] = (1, 4, 16, 64),
) -> Study:
    r"""At sigma = 0 the L2 error is the same at every frequency, and ``W_2`` falls as 1/k.

    The control ``(a k_0 / k^2) sin(kx)`` has a derivative that vanishes, too: there the L2 error
    falls without noise.

    Args:
        comm: Communicator.
        a: Lipschitz constant of the drifts.
        t1: Last time.
        frequencies: Numbers of periods m on the unit interval, ascending.
    """
    rows, errors, calm, shifts, off = [], [], [], [], 0.0
    c2 = cosine.sup_wasserstein(0.0, a * t1)
    for m in frequencies:
        k = 2.0 * np.pi * m
        (l2, w2), (dl2, dw2) = carried_twice(comm, Ripple(a, k), 32 * m, t1)
        benign = Ripple(a * frequencies[0] / m, k)
        (l2_calm, _), (dl2_calm, _) = carried_twice(comm, benign, 32 * m, t1)
        flat = cosine.sup_l2(0.0, a * t1)
        rows += [
            # Acceptance: 1e-4 absolute.
            Row(f"sup L2 error, m={m}", l2, flat, None, None, dl2, 1e-4 / flat),
            Row(f"sup k W2, m={m}", w2, c2, None, None, dw2, 1e-4),
            Row(
                f"control: sup L2 error where the derivative falls as 1/k, m={m}",
                l2_calm,
                cosine.sup_l2(0.0, benign.a * t1),
                discretization_error=dl2_calm,
                tolerance=1e-4,
            ),
        ]
        errors.append(l2)
        calm.append(l2_calm)
        shifts.append(w2 / k)
        off += dw2 / w2
    wavenumbers = 2.0 * np.pi * np.array(frequencies)
    slope = np.polyfit(np.log(wavenumbers), np.log(shifts), 1)[0]
    off /= math.log(frequencies[-1] / frequencies[0])
    rows += [Row("slope of log W2 in log k", slope, -1.0, None, None, off, 1e-3)]
    flat_line = np.full(len(frequencies), cosine.sup_l2(0.0, a * t1))
    panel = Panel(
        r"$\sigma = 0$: flat in L2, falling in $W_2$",
        "m = k/(2 pi)",
        "error",
        (
            Line(tuple(frequencies), tuple(flat_line), "sqrt(cosh(aT) - 1)", "-"),
            Line(tuple(frequencies), tuple(errors), "L2", "o"),
            Line(tuple(frequencies), tuple(c2 / wavenumbers), "c_2/k", "-"),
            Line(tuple(frequencies), tuple(shifts), "W2", "s"),
            Line(tuple(frequencies), tuple(calm), "L2, control", "^--"),
        ),
        "log",
        "log",
    )
    claim = r"Without noise the L2 error is $\sqrt{\cosh aT - 1}$ however small the drift."
    name = f"oscillating drifts without noise, a={a:g}, T={t1:g}"
    return Study(name, claim, "own", tuple(rows), (panel,))


def experiments(quick: bool) -> list[Experiment]:
    """What ``fpcontrol verify`` runs for this statement.

    Args:
        quick: Fewer frequencies and noises.
    """
    sigmas = (0.5, 0.1) if quick else (0.5, 0.2, 0.1, 0.05, 0.02, 0.01)
    m = (1, 4, 16) if quick else (1, 2, 4, 8, 16, 32, 64)
    kappas = (0.01, 1.0, 100.0) if quick else KAPPAS
    radii = (0.3, 0.01, 0.003) if quick else (0.3, 0.1, 0.03, 0.01, 0.003)
    listed = [
        Experiment("t1.oscillating", partial(oscillating_table, sigmas=sigmas, frequencies=m)),
        Experiment("t1.oscillating.sigma=0", without_noise),
        Experiment("t1.similarity", partial(similarity, kappas=kappas)),
        Experiment("t1.steady", constants.steady_constants),
        Experiment("t1.disc", partial(radial.unbounded_differences, radii=radii)),
    ]
    if quick:
        return [
            *listed,
            Experiment(
                "t1.blow-up.sigma=0.2", partial(oscillations.blow_up_family, numbers=(1, 2, 4))
            ),
            Experiment("t1.square", partial(oscillations.product_form, frequencies=(1,))),
        ]
    return [
        *listed,
        *(
            Experiment(
                f"t1.blow-up.sigma={sigma:g}",
                partial(oscillations.blow_up_family, sigma=sigma, numbers=(1, 2, 4, 8, 16)),
            )
            for sigma in (0.5, 0.2, 0.1)
        ),
        Experiment("t1.square", oscillations.product_form),
    ]
