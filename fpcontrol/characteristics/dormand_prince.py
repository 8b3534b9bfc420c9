"""Ordinary differential equations of many markers at once, with one step for all ranks."""

from collections.abc import Callable
from typing import NoReturn

from mpi4py import MPI

import numpy as np
import scipy

from fpcontrol.drift.divergence import Divergence
from fpcontrol.parallel.errors import collective_errors, reduced
from fpcontrol.typing import Array, Field, VectorField

# Steps over which the pace is taken.
WINDOW = 300


class Rate:
    """Time derivatives of position and log J, ``(N, d + 1)``, checked.

    Args:
        drift: Callable ``drift(t, x)``.
        divergence: See ``Divergence``.
        size: Extent of the domain.
    """

    def __init__(self, drift: VectorField, divergence: Field | str | None, size: float) -> None:
        self._drift, self._divergence = drift, Divergence(drift, divergence, size)

    def __call__(self, t: float, x: Array) -> Array:
        """Rates at points ``(N, d)``; raises ValueError for drifts with bad values."""
        v = np.asarray(self._drift(t, x))
        if v.shape != x.shape:
            raise ValueError(f"drift(t, x) returned shape {v.shape} for x of shape {x.shape}.")
        rate = np.column_stack([v, self._divergence(t, x)])
        if not np.isfinite(rate).all():
            i = int(np.flatnonzero(~np.isfinite(rate).all(axis=1))[0])
            raise ValueError(f"drift or divergence is not finite at t = {t:g}, x = {x[i]}.")
        return rate


class DormandPrince:
    """Dormand-Prince 8(5,3) with SciPy's coefficients; errors in the maximum norm over all ranks.

    Args:
        comm: Communicator the points are distributed over.
        box: Smallest and largest coordinates of the points.
        rate: Time derivatives.
        rtol: Relative tolerance.
        atol: Absolute tolerance.
        end: Time at which the last interval ends.
        max_steps: Greatest number of steps, rejected ones included.
        progress: Called as ``progress(t, steps)`` after each step.

    Attributes:
        accepted: Number of steps accepted.
        rejected: Number of steps rejected.
    """

    def __init__(
        self,
        comm: MPI.Comm,
        box: tuple[Array, Array],
        rate: Rate,
        rtol: float,
        atol: float,
        end: float,
        max_steps: int,
        progress: Callable[[float, int], None],
    ) -> None:
        self._comm, self._rate, self._rtol, self._end = comm, rate, rtol, end
        self.accepted, self.rejected, self._max_steps = 0, 0, max_steps
        low, high = box
        self._middle = np.append(0.5 * (low + high), 0.0)
        self._atol = atol * np.append(np.full(len(low), (high - low).max()), 1.0)
        self._h, self._mark, self._progress = np.inf, 0.0, progress
        self._worst: tuple[Array, Array] | None = None  # points and errors of the last rejection

    def advance(self, u: Array, a: float, b: float, inside: Callable[[float], float]) -> Array:
        """From time ``a`` to ``b``.

        Raises:
            RuntimeError: On all ranks, if ``max_steps`` are not enough.
        """
        if self.accepted + self.rejected == 0:
            self._h, self._mark = 0.1 * (b - a), a
        t, h = a, self._h
        while t < b:
            h, last = (b - t, True) if t + h * (1.0 + 1e-9) >= b else (h, False)
            new, error = self._step(u, t, h, inside)
            # The usual controller of order 8: safety 0.9, factors between 1/5 and 5.
            factor = min(5.0, max(0.2, 0.9 * max(error, 1e-16) ** -0.125))
            if error <= 1.0:
                # A step that was cut to end on time says little about the next.
                self._h = max(h * factor, self._h if last and self.accepted else 0.0)
                t, u, h = (b if last else t + h), new, h * factor
                self.accepted += 1
            else:
                self.rejected += 1
                if h < 1e-12 * (b - a):
                    self._give_up(t, h)
                h *= min(factor, 0.9)
                self._h = h
            self._progress(t, self.accepted + self.rejected)
            self._check_pace(t, h)
        return u

    def _check_pace(self, t: float, h: float) -> None:
        """Stop where the steps that are left do not reach the end as long as the last were."""
        steps = self.accepted + self.rejected
        if steps % WINDOW == 0:
            gained, self._mark = t - self._mark, t
            if (self._end - t) * WINDOW > (self._max_steps - steps) * gained:
                self._give_up(t, h)
        if steps >= self._max_steps and t < self._end:
            self._give_up(t, h)

    def _give_up(self, t: float, h: float) -> NoReturn:
        x, errors = self._worst or (np.empty((0, len(self._middle) - 1)), np.empty(0))
        k = int(errors.argmax()) if len(errors) else 0
        told = self._comm.allgather((errors[k], x[k]) if len(errors) else (-np.inf, None))
        _, place = max(told, key=lambda pair: pair[0])
        where = "" if place is None else f" The error is largest at x = {place}."
        raise RuntimeError(
            f"{self.accepted} steps and {self.rejected} rejected ones have come to t = {t:.9g}; at "
            f"this pace max_steps = {self._max_steps} do not reach t = {self._end:g}, for the last "
            f"was {h:.2g} long.{where} Does the drift jump there in space, or near this time? Give "
            "the times of jumps as switches; smooth jumps in space over some length (on those that "
            "the drift runs into from both sides, markers end); else loosen "
            f"rtol = {self._rtol:g} or raise max_steps."
        )

    def _step(
        self, u: Array, t: float, h: float, inside: Callable[[float], float]
    ) -> tuple[Array, float]:
        rk, k = scipy.integrate.DOP853, np.empty((13, *u.shape))
        with collective_errors(self._comm):
            for s in range(12):
                stage = u + h * np.tensordot(rk.A[s, :s], k[:s], 1)
                k[s] = self._rate(inside(t + rk.C[s] * h), stage[:, :-1])
            new = u + h * np.tensordot(rk.B, k[:12], 1)
            k[12] = self._rate(inside(t + h), new[:, :-1])
        larger = np.maximum(np.abs(u - self._middle), np.abs(new - self._middle))
        scale = self._atol + self._rtol * larger
        errors = [np.abs(np.tensordot(e, k, 1) / scale) for e in (rk.E5, rk.E3)]
        largest = np.array([e.max(initial=0.0) for e in errors])
        five, three = reduced(self._comm, largest, MPI.MAX)
        error = float(h * five**2 / np.hypot(five, 0.1 * three)) if five else 0.0
        if not error <= 1.0:
            self._worst = u[:, :-1], errors[0].max(axis=1, initial=0.0)
        return new, error
