"""Ordinary differential equations of many labels at once, with one step for all ranks."""

from collections.abc import Callable

from mpi4py import MPI

import numpy as np
from scipy.integrate import DOP853

from fpcontrol.drift.divergence import Divergence
from fpcontrol.parallel.errors import collective_errors, reduced
from fpcontrol.typing import Array, Field, VectorField


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

    ``accepted`` counts the steps. ``box`` is the smallest and largest coordinates of the points.
    """

    def __init__(
        self, comm: MPI.Comm, box: tuple[Array, Array], rate: Rate, rtol: float, atol: float
    ) -> None:
        self._comm, self._rate, self._rtol, self.accepted = comm, rate, rtol, 0
        low, high = box
        self._middle = np.append(0.5 * (low + high), 0.0)
        self._atol = atol * np.append(np.full(len(low), (high - low).max()), 1.0)
        self._h = np.inf

    def advance(self, u: Array, a: float, b: float, inside: Callable[[float], float]) -> Array:
        """From time ``a`` to ``b``."""
        t, h = a, min(self._h, 0.1 * (b - a)) if self.accepted == 0 else self._h
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
            elif h < 1e-12 * (b - a):
                raise RuntimeError(f"No step at t = {t:g} meets rtol = {self._rtol:g}; loosen it.")
            else:
                h *= min(factor, 0.9)
                self._h = h
        return u

    def _step(
        self, u: Array, t: float, h: float, inside: Callable[[float], float]
    ) -> tuple[Array, float]:
        rk, k = DOP853, np.empty((13, *u.shape))
        with collective_errors(self._comm):
            for s in range(12):
                stage = u + h * np.tensordot(rk.A[s, :s], k[:s], 1)
                k[s] = self._rate(inside(t + rk.C[s] * h), stage[:, :-1])
            new = u + h * np.tensordot(rk.B, k[:12], 1)
            k[12] = self._rate(inside(t + h), new[:, :-1])
        larger = np.maximum(np.abs(u - self._middle), np.abs(new - self._middle))
        scale = self._atol + self._rtol * larger
        five, three = (
            np.abs(np.tensordot(e, k, 1) / scale).max(initial=0.0) for e in (rk.E5, rk.E3)
        )
        five, three = reduced(self._comm, np.array([five, three]), MPI.MAX)
        return new, float(h * five**2 / np.hypot(five, 0.1 * three)) if five else 0.0
