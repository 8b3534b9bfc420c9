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

import math
from collections.abc import Callable

from mpi4py import MPI

import numpy as np
from scipy.special import gamma

from fpcontrol.noising.line import CosineHeat, entropy
from fpcontrol.noising.pieces import Piece, PiecewiseHeat
from fpcontrol.quadrature import graded
from fpcontrol.theorems.closed_forms.profiles import GOALS, Profile
from fpcontrol.theorems.experiments import early_stops, score_limits, vacuum
from fpcontrol.theorems.framework import Experiment, Figure, Grid, Line, Study, measure
from fpcontrol.theorems.runs.reversed_noising import JUMP, reversed_densities, stopped
from fpcontrol.typing import Array

type Heat = PiecewiseHeat | CosineHeat

KINK = GOALS["kink"]
DATA: dict[str, Callable[[float], Heat]] = {
    "disconnected": lambda D: PiecewiseHeat(
        (Piece(0.05, 0.35, 0.7 / 0.3), Piece(0.65, 0.95, 0.3 / 0.3)), D
    ),
    "jump": lambda D: PiecewiseHeat((Piece(0.0, 0.5, 0.4), Piece(0.5, 1.0, 1.6)), D),
    "kink": lambda D: CosineHeat(KINK.value, D, KINK.breaks),
}
BREAKS = {"disconnected": (0.05, 0.35, 0.65, 0.95), "jump": (0.5,), "kink": (0.5,)}


def entropies(
    comm: MPI.Comm,
    *,
    data: str = "disconnected",
    sigma: float = math.sqrt(0.2),
    t1: float = 1.0,
    stops: tuple[float, ...] = (1e-2, 1e-3, 1e-4),
    grid: Grid | None = None,
) -> Study:
    r"""Energy of the reversed drift against the entropy, down to early stops.

    The energy is taken along the solution of the reversed Fokker-Planck equation, the entropies
    from closed forms, as are distances to the data. As s_0 goes to zero a jump of height h counts
    :math:`h^2\sqrt{Ds_0}\,(2-\sqrt2)/\sqrt\pi` in their square, a kink :math:`|x - c|^p` like
    :math:`s_0^{p + 1/2}`.

    Args:
        data: disconnected (0.7 and 0.3 of the mass on two intervals), jump or kink.
        grid: Cells, and steps whenever the noising time is halved; breaks of the data are nodes.
    """
    study = Study(
        f"reversed heat flow of {data} data, sigma = {sigma:.3g}, T = {t1:g}",
        "The energy of the reversed drift is $4D(H(p_{s_0}) - H(p_T))$, and stays finite as the "
        "early stop goes to zero, while the drift itself grows without bound.",
    )
    noising = DATA[data](0.5 * sigma**2)

    def run(at: Grid) -> Array:
        found = reversed_densities(comm, noising, t1, stops, at)
        return np.array([[r.energy, r.defect, r.distance(noising.start), r.largest] for r in found])

    energy, defect, distance, largest = measure(run, grid or Grid(200, 8)).T
    exact, limit = _energies(noising, data, stops, t1)
    left = np.array([stopped(noising, noising.start, s, BREAKS[data])[0] for s in stops])
    study.equals("E int |v|^2 dt down to s_0 = {:g}", energy, exact, 1e-3, over=stops)
    name = "relative L2 distance of the reversal to p_s, s_0 = {:g}"
    study.below(name, defect, 1e-3, over=stops)
    study.report("largest drift, s_0 = {:g}", largest, over=stops)
    study.below("E int |v|^2 dt, against the limit 4 D (H(p_0) - H(p_T))", energy[-1], limit)
    study.above(
        "growth of the largest drift between the stops",
        largest[-1] / largest[0],
        # |x|^(p - 1) at the distance sqrt(s), p = 3/4, or 1/sqrt(s) at a jump.
        (stops[0] / stops[-1]) ** (0.125 if data == "kink" else 0.45),
    )
    name = f"L2 distance of the reversal to the data, s_0 = {stops[-1]:g}"
    study.equals(name, distance[-1], left[-1], 5e-3)
    rate = float(np.diff(np.log(left[-2:]))[0] / np.diff(np.log(stops[-2:]))[0])
    study.equals("slope of it in s_0, last two", distance.slopes(stops)[-1], rate, 5e-3)
    _check_limit(study, noising, data)
    curves = {
        "energy of the reversed drift": energy,
        "4 D (H(p_s) - H(p_T))": exact,
        "limit": limit,
    }
    study.curves("energy against entropy", "s_0", "energy", stops, curves, "x")
    y = np.linspace(0.0, 1.0, 801)
    noised = {s: np.exp(noising.log_density(s, y)) for s in (*stops[::-1], t1)}
    lines = [Line(y, p, f"s = {s:g}", "-") for s, p in noised.items()]
    data_line = Line(y, noising.start(y), "data", "-")
    study.picture("noised densities", "x", "density", data_line, *lines)
    return study


def _energies(
    noising: Heat, data: str, stops: tuple[float, ...], t1: float
) -> tuple[list[float], float]:
    """4 D (H(p_s) - H(p_T)) at early stops s, and for the data themselves."""
    last = entropy(noising, t1)
    x, w = graded(BREAKS[data])
    p = noising.start(x)
    whole = float(w @ (p * np.log(np.where(p > 0.0, p, 1.0))))
    exact = [4.0 * noising.D * (entropy(noising, s) - last) for s in stops]
    return exact, 4.0 * noising.D * (whole - last)


def _check_limit(study: Study, noising: Heat, data: str) -> None:
    """The distance in closed form at an early stop, against what jumps or kinks alone make."""
    if isinstance(noising, CosineHeat):
        early = 1e-4
        limit = _kinks(KINK, noising.D * early)
    else:
        early, ends = 1e-9, np.array(BREAKS[data])
        squares = (noising.start(ends + 1e-9) - noising.start(ends - 1e-9)) ** 2
        limit = math.sqrt(float(squares.sum()) * JUMP * math.sqrt(noising.D * early))
    again, first = (
        stopped(noising, noising.start, early, BREAKS[data], grading=grading)[0]
        for grading in (6, 4)
    )
    name = f"it in closed form over its limit, s_0 = {early:g}"
    study.equals(name, Figure.refined(again, first) / limit, 1.0, 5e-3)


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


FEW = {"stops": (1e-2, 1e-3), "grid": Grid(100, 8)}
EXPERIMENTS = [
    Experiment("t2.entropy.disconnected", entropies, quick=FEW),
    Experiment("t2.entropy.jump", entropies, data="jump", quick=None),
    Experiment("t2.entropy.kink", entropies, data="kink", quick=FEW),
    *vacuum.EXPERIMENTS,
    *score_limits.EXPERIMENTS,
    *early_stops.EXPERIMENTS,
]
