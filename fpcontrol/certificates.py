r"""Bounds on the distance of two densities from their drifts: certificates after the fact.

Two Fokker-Planck equations on one domain, :math:`dX = v_i\,dt + \sigma\,dW` with reflection,
:math:`D = \sigma^2/2`, :math:`w = \rho_1-\rho_2`, :math:`\delta = v_1 - v_2`. Standard energy
arguments give (all at time t, integrals over [0, t] and the domain)

.. math::
    \mathrm{(E1)}\quad & \|w\|^2 \le \tfrac1D\int e^{\int_s^t|v_1|_\infty^2/D}
        \|\rho_2\delta\|^2\,ds\\
    \mathrm{(E2)}\quad & \|w\|^2 \le \tfrac1{2D}\int e^{\int_s^t|(\nabla\cdot v_1)^-|_\infty}
        \|\rho_2\delta\|^2\,ds \qquad\text{if } v_1\cdot n \le 0\\
    \mathrm{(E3)}\quad & \chi^2(\rho_1|\rho_2) \le \tfrac1{2D}\iint\frac{\rho_1^2}{\rho_2}
        |\delta|^2,\qquad \|w\|^2 \le |\rho_2(t)|_\infty\,\chi^2\\
    \mathrm{(E3')}\quad & \chi^2(\rho_1|\rho_2) \le \tfrac1D\int e^{\int_s^t|\delta|_\infty^2/D}
        \int\rho_2|\delta|^2\,ds\\
    \mathrm{(E4)}\quad & \mathrm{KL}(\rho_1|\rho_2) \le \tfrac1{4D}\iint\rho_1|\delta|^2,\qquad
        \|w\|_{L^1}^2 \le 2\,\mathrm{KL}

with what the two start densities differ by added (carried along by the exponential where there is
one). (E3) and (E4) ask nothing of the drifts themselves: no Lipschitz constant, no divergence, no
walls. (E4) is the relative entropy of the paths (Girsanov), in which reflection drops out; the
last step is Pinsker's inequality. (E1) is true and useless, :math:`10^{10}` to :math:`10^{100}`
times too large for :math:`|v| = 3`; it is computed to show that.
"""

from dataclasses import dataclass
from itertools import pairwise

from mpi4py import MPI

import numpy as np
from scipy.special import xlog1py

from fpcontrol.discretization.boundary import Wall
from fpcontrol.discretization.elements import Elements
from fpcontrol.distances.comparison import ROUND_OFF, nonnegative
from fpcontrol.drift.sampling import sample
from fpcontrol.noise import Noise, Sigma
from fpcontrol.parallel.errors import reduced
from fpcontrol.trajectory import Trajectory
from fpcontrol.typing import Array, Field, VectorField
from fpcontrol.walls import check_wall


@dataclass(frozen=True, repr=False)
class Certificate:
    r"""Distances of two trajectories at all time levels, and their bounds, each ``(steps + 1,)``.

    Attributes:
        times: Time levels.
        l2: :math:`\|\rho_1-\rho_2\|_{L^2}`.
        l1: :math:`\|\rho_1-\rho_2\|_{L^1}`.
        chi_square: :math:`\int(\rho_1-\rho_2)^2/\rho_2`.
        kl: :math:`\int\rho_1\log(\rho_1/\rho_2)`; not a number where a density that may be negative
            is, and ``e4`` from then on.
        highest: Largest :math:`\rho_2`.
        e1: Bound of ``l2**2``; infinite where it overflows.
        e2: Bound of ``l2**2``; ``None`` without a divergence.
        e3: Bound of ``chi_square``.
        e3_bounded: Bound of ``chi_square``, (E3').
        e4: Bound of ``kl``.
    """

    times: Array
    l2: Array
    l1: Array
    chi_square: Array
    kl: Array
    highest: Array
    e1: Array
    e2: Array | None
    e3: Array
    e3_bounded: Array
    e4: Array

    @property
    def l2_bound(self) -> Array:
        """The best of the bounds of ``l2`` that ask nothing of the drifts: (E3), (E3')."""
        return np.sqrt(self.highest * np.fmin(self.e3, self.e3_bounded))

    @property
    def l1_bound(self) -> Array:
        """Pinsker's bound of ``l1``."""
        return np.sqrt(2.0 * self.e4)

    def __repr__(self) -> str:
        return (
            f"Certificate: {len(self.times)} levels, t = {self.times[0]:g} ... {self.times[-1]:g}, "
            f"at the end L2 {self.l2[-1]:.3g} <= {self.l2_bound[-1]:.3g}, "
            f"KL {self.kl[-1]:.3g} <= {self.e4[-1]:.3g}"
        )

    def ratios(self) -> dict[str, float]:
        """Measured over bound for each estimate, at most 1: "E2" the largest after the start, ...

        "E2 at T" and so on are the last ones. "E2", "E3", "E3'" and "E4" are of squares, as the
        estimates are written; of the crude (E1) there is only the last, which shows its worth.
        """
        squares = self.l2**2 / self.highest**2
        pairs = {
            "E1": (squares, self.e1 / self.highest**2),
            "E3": (self.chi_square, self.e3),
            "E3'": (self.chi_square, self.e3_bounded),
            "E3 in L2": (squares, (self.l2_bound / self.highest) ** 2),
            "E4": (self.kl, self.e4),
            "Pinsker": (self.l1**2, self.l1_bound**2),
        }
        if self.e2 is not None:
            pairs["E2"] = (squares, self.e2 / self.highest**2)
        found = {}
        for name, (m, b) in pairs.items():
            power = 0.5 if name in ("E3 in L2", "Pinsker") else 1.0
            found[f"{name} at T"] = _largest_ratio(m[-1:], b[-1:]) ** power
            if name != "E1":
                found[name] = _largest_ratio(m[1:], b[1:]) ** power
        return found


def certificate(
    rho_1: Trajectory,
    rho_2: Trajectory,
    v_1: VectorField,
    v_2: VectorField,
    sigma: Sigma,
    *,
    divergence: Field | None = None,
    quadrature_degree: int | None = None,
    signed: bool = False,
) -> Certificate:
    r"""Distances of two computed trajectories, and the bounds (E1) to (E4). Collective.

    Integrals in space by quadrature, in time by the trapezoidal rule for the densities with the
    drifts in the middle of each step: errors of second order in the step, and whatever the
    trajectories themselves are off by.

    Args:
        rho_1: First trajectory.
        rho_2: Second, in the same space at the same times; positive.
        v_1: Drift of the first. Both may change from step to step, as drifts with pieces do.
        v_2: Drift of the second.
        sigma: Noise of both, a number or a function of time.
        divergence: Of ``v_1``, ``divergence(t, x)`` to ``(N,)``, for (E2); ``v_1`` must then not
            point outward at the walls.
        quadrature_degree: See ``Elements``; twice the degree and 2 more unless given, as
            quotients of densities are no polynomials. That of the flow for a ``MoserDrift``.
        signed: Whether the first may be negative: (E1) to (E3) hold for it all the same, entropies
            do not exist.

    Raises:
        ValueError: On all ranks, for trajectories that cannot be compared, densities that are not
            positive (``rho_2``) or negative (``rho_1``), or a drift out of the domain with (E2).
    """
    noise = Noise(sigma)
    spaces = rho_1.space, rho_2.space
    if spaces[0].mesh._cpp_object != spaces[1].mesh._cpp_object or (
        spaces[0].element.basix_element != spaces[1].element.basix_element
    ):
        raise ValueError("rho_1 and rho_2 must be of one degree, on one mesh.")
    times = rho_1.times
    if len(times) != len(rho_2.times) or not np.allclose(times, rho_2.times, rtol=1e-12):
        raise ValueError("rho_1 and rho_2 must have the same time levels.")
    degree = 2 * rho_1.space.element.basix_element.degree + 2
    g = Elements(rho_1.space, degree if quadrature_degree is None else quadrature_degree)
    walls = Wall.of(g.mesh)
    low, high = (
        reduced(g.comm, f(g.points), op)
        for f, op in (
            (lambda x: x.min(axis=0, initial=np.inf), MPI.MIN),
            (lambda x: x.max(axis=0, initial=-np.inf), MPI.MAX),
        )
    )
    speed = float((high - low).max() / (times[-1] - times[0]))

    levels = zip(rho_1.levels, rho_2.levels, strict=True)
    pairs = (_densities(g, *level, signed) for level in levels)
    before = next(pairs)
    measured = [_distances(g, *before)]
    l2, _, chi_square, kl = measured[0]
    bounds = [np.array([l2**2, l2**2, chi_square, chi_square, kl])]
    highest = [_highest(g, before[1])]
    for (start, end), after in zip(pairwise(times), pairs, strict=True):
        t, dt = 0.5 * (start + end), end - start
        D = noise.diffusivity(t)
        one, other = sample(v_1, t, g), sample(v_2, t, g)
        delta = ((one - other) ** 2).sum(axis=1)
        inward = np.zeros(1)
        if divergence is not None:
            check_wall(v_1, t, walls, g.comm, speed)
            inward = -np.asarray(divergence(t, g.points))
        fastest = np.array([f.max(initial=0.0) for f in ((one**2).sum(axis=1), inward, delta)])
        fast, compression, gap = reduced(g.comm, fastest, MPI.MAX)
        growth = dt * np.array([fast / D, compression, 0.0, gap / D, 0.0])
        factors = np.array([1.0, 0.5, 0.5, 1.0, 0.25]) * dt / D
        costs = 0.5 * (_costs(g, *before, delta) + _costs(g, *after, delta))
        bounds.append(_grown(bounds[-1], growth, factors * costs))
        measured.append(_distances(g, *after))
        highest.append(_highest(g, after[1]))
        before = after
    l2s, l1s, chis, kls = np.array(measured).T
    e1, e2, e3, e3_bounded, e4 = np.array(bounds).T
    return Certificate(
        times=times,
        l2=l2s,
        l1=l1s,
        chi_square=chis,
        kl=kls,
        highest=np.array(highest),
        e1=e1,
        e2=None if divergence is None else e2,
        e3=e3,
        e3_bounded=e3_bounded,
        e4=e4,
    )


def _densities(g: Elements, a: Array, b: Array, signed: bool) -> tuple[Array, Array]:
    """Both at the quadrature points, ``(N,)``, the second positive."""
    one, other = (g.evaluate(u).ravel() for u in (a, b))
    lowest = g.comm.allreduce(float(other.min(initial=np.inf)), op=MPI.MIN)
    if not lowest > 0.0:
        raise ValueError(
            f"rho_2 is not positive at the quadrature points (minimum {lowest:.3g}): nothing "
            "bounds the relative entropy. Refine, or add a floor (fpc.density.with_floor)."
        )
    return (one if signed else nonnegative("rho_1", one, g.comm)), other


def _distances(g: Elements, one: Array, other: Array) -> Array:
    """L2, L1, chi-square, KL."""
    h = one / other
    values = [(one - other) ** 2, np.abs(one - other), other * (h - 1.0) ** 2]
    # h log h - h + 1 >= 0: no cancellation between the masses.
    with np.errstate(invalid="ignore"):  # of negative densities
        values.append(other * (xlog1py(_entropic(h), h - 1.0) - (h - 1.0)))
    square, *rest = _integrals(g, values)
    return np.array([np.sqrt(square), *rest])


def _costs(g: Elements, one: Array, other: Array, delta: Array) -> Array:
    """Integrals over space in (E1), (E2), (E3), (E3') and (E4), for ``delta = |v_1 - v_2|**2``."""
    squares = other**2 * delta
    entropic = other * _entropic(one / other) * delta
    return _integrals(g, [squares, squares, one**2 / other * delta, other * delta, entropic])


def _entropic(h: Array) -> Array:
    """Quotients that are negative beyond round-off are not a number, round-off is zero."""
    return np.where(h < -ROUND_OFF * h.max(initial=0.0), np.nan, np.maximum(h, 0.0))


def _integrals(g: Elements, values: list[Array]) -> Array:
    return reduced(g.comm, np.array(values) @ g.quadrature_weights)


def _highest(g: Elements, rho: Array) -> float:
    return g.comm.allreduce(float(rho.max(initial=-np.inf)), op=MPI.MAX)


def _grown(bounds: Array, growth: Array, costs: Array) -> Array:
    """One step of the bounds: what comes in the step grows for half of it."""
    with np.errstate(over="ignore"):  # of (E1)
        factor = np.exp(growth)
        return _times(factor, bounds) + _times(np.sqrt(factor), costs)


def _times(factor: Array, values: Array) -> Array:
    """Products, nothing of which is nothing however large the factor."""
    return np.where(values == 0.0, 0.0, factor * np.where(values == 0.0, 1.0, values))


def _largest_ratio(measured: Array, bounds: Array) -> float:
    """Of squares of relative distances; a bound of zero is met by zero only.

    Relative distances below 1e-11 are round-off and of solvers, and count as zero.
    """
    measured = np.where(measured < 1e-22, 0.0, measured)
    ratio = measured / np.where(bounds > 0.0, bounds, 1.0)
    return float(np.where((bounds > 0.0) | (measured == 0.0), ratio, np.inf).max())
