r"""Densities that reversed noising reaches on a bounded domain, without a Lipschitz score.

A statement of the kind of Lemma 2 (reconstructed; the paper has a compact connected support):
networks that match the score come arbitrarily near to the data. What is needed is
a reversed drift :math:`v = 2D\nabla\log p_{T-t}` of finite energy, and for reflected heat flow, by
:math:`\frac{d}{ds}\int p\log p = -D\int|\nabla\log p|^2 p` (own),

.. math:: \mathrm E\int|v|^2\,dt = 4D^2\int_{s_0}^T I(p_s)\,ds = 4D\,(H(p_{s_0}) - H(p_T)),\qquad
    H = \int p\log p ,

which is finite whenever the entropy of the data is: with kinks, with jumps, and on disconnected
supports, where the score itself is unbounded. The reversal is stopped at noising time s_0 > 0.

Traps: the score where the density is 1e-200 is still finite and must be right, or mass is caught in
the gap; the identity holds up to s_0, not to 0, on any mesh; a small Fisher divergence says nothing
about the masses of modes far apart (``score_limits``).
"""

import functools
import math
from collections.abc import Callable
from typing import Any

from mpi4py import MPI

import numpy as np
from scipy.special import gamma

from fpcontrol.theorems.closed_forms.noising import (
    JUMP,
    CosineHeat,
    Piece,
    PiecewiseHeat,
    entropy,
    entropy_of_data,
    stopped,
)
from fpcontrol.theorems.closed_forms.profiles import Profile, kink, nodes
from fpcontrol.theorems.experiments import early_stops, score_limits, vacuum
from fpcontrol.theorems.framework.checks import Line, Panel, Row, Study
from fpcontrol.theorems.framework.experiments import Experiment
from fpcontrol.theorems.framework.resolution import Grid, measured, slopes
from fpcontrol.theorems.runs.reversed_noising import reverse
from fpcontrol.typing import Array

DATA: dict[str, Callable[[float], PiecewiseHeat | CosineHeat]] = {
    "disconnected": lambda D: PiecewiseHeat(
        (Piece(0.05, 0.35, 0.7 / 0.3), Piece(0.65, 0.95, 0.3 / 0.3)), D
    ),
    "jump": lambda D: PiecewiseHeat((Piece(0.0, 0.5, 0.4), Piece(0.5, 1.0, 1.6)), D),
    "kink": lambda D: CosineHeat(kink(), D),
}
BREAKS = {"disconnected": (0.05, 0.35, 0.65, 0.95), "jump": (0.5,), "kink": (0.5,)}


def entropies(
    comm: MPI.Comm,
    data: str = "disconnected",
    *,
    sigma: float = math.sqrt(0.2),
    t1: float = 1.0,
    stops: tuple[float, ...] = (1e-2, 1e-3, 1e-4),
    grid: Grid | None = None,
) -> Study:
    r"""Energy of the reversed drift against the entropy, down to early stops. Collective.

    The energy is taken along the solution of the reversed Fokker-Planck equation, the entropies
    from closed forms, as are distances to the data. As s_0 goes to zero a jump of height h counts
    :math:`h^2\sqrt{Ds_0}\,(2-\sqrt2)/\sqrt\pi` in their square, a kink :math:`|x - c|^p` like
    :math:`s_0^{p + 1/2}`.

    Args:
        comm: Communicator.
        data: ``"disconnected"`` (0.7 and 0.3 of the mass on two intervals), ``"jump"``, ``"kink"``.
        sigma: Noise, 2 D = sigma**2.
        t1: Noising time.
        stops: Early stops, descending.
        grid: Resolution, see ``reverse``; breaks of the data belong on nodes.
    """
    grid, D = grid or Grid(200, 8), 0.5 * sigma**2
    noising = DATA[data](D)

    def run(grid: Grid) -> Array:
        found = reverse(comm, noising, sigma, t1, stops, grid)
        return np.array([[r.energy, r.defect, r.distance(noising.start), r.largest] for r in found])

    fine, error = measured(run, grid)
    last = entropy(noising, t1)
    x, w = nodes(BREAKS[data])
    limit = 4.0 * D * (entropy_of_data(noising.start(x), w) - last)
    exact = [4.0 * D * (entropy(noising, s) - last) for s in stops]
    rows = []
    for i, s in enumerate(stops):
        rows += [
            Row(
                f"E int |v|^2 dt down to s_0 = {s:g}",
                fine[i, 0],
                predicted=exact[i],
                discretization_error=error[i, 0],
                tolerance=1e-3,
            ),
            Row(
                f"relative L2 distance of the reversal to p_s, s_0 = {s:g}",
                fine[i, 1],
                bound=1e-3,
                discretization_error=error[i, 1],
            ),
            Row(f"largest drift, s_0 = {s:g}", fine[i, 3], discretization_error=error[i, 3]),
        ]
    rows.append(
        Row(
            "E int |v|^2 dt, against the limit 4 D (H(p_0) - H(p_T))",
            fine[-1, 0],
            bound=limit,
            discretization_error=error[-1, 0],
        )
    )
    growth = fine[-1, 3] / fine[0, 3]
    rows.append(
        Row(
            "growth of the largest drift between the stops",
            growth,
            # |x|^(p - 1) at the distance sqrt(s), p = 3/4, or 1/sqrt(s) at a jump.
            at_least=(stops[0] / stops[-1]) ** (0.125 if data == "kink" else 0.45),
            discretization_error=growth * float((error[:, 3] / fine[:, 3])[[0, -1]].sum()),
        )
    )
    exact_distances = [stopped(noising, noising.start, s, BREAKS[data])[0] for s in stops]
    relative = float((error[:, 2] / fine[:, 2])[-2:].sum())
    rows += [
        Row(
            f"L2 distance of the reversal to the data, s_0 = {stops[-1]:g}",
            fine[-1, 2],
            predicted=exact_distances[-1],
            discretization_error=error[-1, 2],
            tolerance=5e-3,
        ),
        Row(
            "slope of it in s_0, last two",
            float(slopes(np.array(stops), fine[:, 2])[-1]),
            predicted=float(slopes(np.array(stops), np.array(exact_distances))[-1]),
            discretization_error=relative / math.log(stops[-2] / stops[-1]),
            tolerance=5e-3,
        ),
        *_limit(noising, data, D),
    ]
    at_stops = list(stops)
    y = np.linspace(0.0, 1.0, 801)
    energies = (
        Line(at_stops, fine[:, 0].tolist(), "energy of the reversed drift", "o"),
        Line(at_stops, exact, "4 D (H(p_s) - H(p_T))", "-"),
        Line(at_stops, [limit] * len(stops), "limit", "--"),
    )
    shapes = [Line(y.tolist(), noising.start(y).tolist(), "data", "-")]
    shapes += [
        Line(y.tolist(), np.exp(noising.log_density(r, y)).tolist(), f"s = {r:g}", "-")
        for r in (*stops[::-1], t1)
    ]
    return Study(
        f"reversed heat flow of {data} data, sigma = {sigma:.3g}, T = {t1:g}",
        "The energy of the reversed drift is $4D(H(p_{s_0}) - H(p_T))$, and stays finite as the "
        "early stop goes to zero, while the drift itself grows without bound.",
        "own",
        tuple(rows),
        (
            Panel("energy against entropy", "s_0", "energy", energies, "log"),
            Panel("noised densities", "x", "density", tuple(shapes)),
        ),
    )


def _limit(noising: PiecewiseHeat | CosineHeat, data: str, D: float) -> list[Row]:
    """The distance in closed form at an early stop, against what jumps or kinks alone make."""

    def distance(s: float, grading: int = 4) -> float:
        return stopped(noising, noising.start, s, BREAKS[data], grading=grading)[0]

    if isinstance(noising, CosineHeat):
        limit, early = _kinks(noising.profile, D * 1e-4), 1e-4
    else:
        early, ends = 1e-9, np.array(BREAKS[data])
        squares = (noising.start(ends + 1e-9) - noising.start(ends - 1e-9)) ** 2
        limit = math.sqrt(float(squares.sum()) * JUMP * math.sqrt(D * early))
    first, again = distance(early), distance(early, 6)
    name = f"it in closed form over its limit, s_0 = {early:g}"
    return [Row(name, first / limit, 1.0, None, None, abs(again - first) / limit, 5e-3)]


def _kinks(profile: Profile, tau: float, p: float = 0.75) -> float:
    r"""Distance to the data after a little heat flow for ``kink()``, from its kinks alone.

    The square for :math:`b|x|^p`, by Fourier's transform, and for the slope b at a reflecting wall:

    .. math:: \frac{2b^2}\pi\Gamma(p+1)^2\sin^2\tfrac{p\pi}2\,\Gamma(-p-\tfrac12)
        (2^{p+1/2} - 2)\,\tau^{p+1/2},\qquad \frac{8(\sqrt2-1)}{3\sqrt\pi}\,b^2\tau^{3/2} .
    """
    middle, wall = (profile.value(np.array([x]))[0] for x in (0.5, 1.0))
    b, steep = (wall - middle) / 0.5**p, float(profile.slope(np.array([1.0]))[0])
    form = gamma(p + 1.0) ** 2 * math.sin(0.5 * p * math.pi) ** 2 * gamma(-p - 0.5)
    inner = 2.0 / math.pi * b**2 * form * (2.0 ** (p + 0.5) - 2.0) * tau ** (p + 0.5)
    outer = 8.0 * (math.sqrt(2.0) - 1.0) / (3.0 * math.sqrt(math.pi)) * steep**2 * tau**1.5
    return math.sqrt(inner + 2.0 * outer)


def experiments(quick: bool) -> list[Experiment]:
    """What ``fpcontrol verify`` runs; the quick ones take some seconds."""
    few: dict[str, Any] = {"stops": (1e-2, 1e-3), "grid": Grid(100, 8)} if quick else {}
    names = ("disconnected", "kink") if quick else DATA
    found = [
        Experiment(f"t2.entropy.{data}", functools.partial(entropies, data=data, **few))
        for data in names
    ]
    found += [e for part in (vacuum, score_limits, early_stops) for e in part.experiments(quick)]
    return found
