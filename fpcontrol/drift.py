"""Drifts: what the user may hand to the equation, and its values at the quadrature points.

A drift is any callable ``drift(t, x)`` with ``x`` of shape ``(N, d)`` that returns shape
``(N, d)``, length per time. It may have more to say:

- ``piece(t) -> int``: it is constant in time wherever this number is; the operator is then
  refilled (and factored) once a piece;
- ``switches``: the times at which it jumps, which a time step must not straddle;
- ``at_quadrature(t, elements) -> (N, d)``: it lives on the mesh and answers at the quadrature
  points without a search.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fpcontrol.discretization.elements import Elements
from fpcontrol.parallel.errors import collective_errors
from fpcontrol.typing import Array, Field

type Drift = Callable[[float, Array], Array]

# Of the fourth-order difference that stands in for a divergence, over the labels' extent: waves
# of 64 periods are differentiated to 1e-9, above the round-off of 1e-11.
DIFFERENCE_STEP = 3e-5


@dataclass(frozen=True)
class Steady:
    """A drift that does not depend on time: the operator is made and factored once.

    Args:
        field: Callable ``field(x)`` from shape ``(N, d)`` to ``(N, d)``.
    """

    field: Callable[[Array], Array]

    def __call__(self, t: float, x: Array) -> Array:
        """Drift at ``x``; ``t`` is not used."""
        return self.field(x)

    def piece(self, t: float) -> int:
        """One piece for all times."""
        return 0


def zero() -> Steady:
    """No drift: the heat flow."""
    return Steady(np.zeros_like)


def check_switches(drift: Drift, t0: float, t1: float, steps: int) -> None:
    """Refuse steps that straddle a switch of the drift.

    Such a step sees the drift on one side of the switch only, an error of first order that no
    scheme mends and that halving the steps leaves where it is.

    Raises:
        ValueError: If there is such a step.
    """
    times = np.asarray(getattr(drift, "switches", ()), dtype=float)
    places = (times[(times > t0) & (times < t1)] - t0) / (t1 - t0)
    off = ~_whole(places * steps)
    if not off.any():
        return
    fitting = (n for n in range(1, 100 * (len(places) + 1)) if _whole(places * n).all())
    multiple = next(fitting, None)
    way = (
        f"take a multiple of {multiple}, such as {multiple * max(1, round(steps / multiple))}"
        if multiple
        else "choose t0 and t1 at switches"
    )
    raise ValueError(
        f"steps = {steps}: the drift switches at t = {t0 + (t1 - t0) * places[off][0]:g}, inside a "
        f"step; {way}."
    )


def _whole(numbers: Array) -> Array:
    return np.abs(numbers - np.round(numbers)) <= 1e-6


class DriftSampler:
    """Values of a drift at the quadrature points, checked, and only where they may have changed.

    Args:
        drift: The drift.
        elements: The discretization that owns the points.
    """

    def __init__(self, drift: Drift, elements: Elements) -> None:
        self._drift, self._elements = drift, elements
        self._piece: int | None = None
        self._count, self._values = 0, np.empty(0)

    def at(self, t: float) -> tuple[int, Callable[[], Array]]:
        """The drift at time ``t``: its number, and what gives its values ``(N, d)``. Collective.

        The number is that of the call before if nothing has changed since.

        Raises:
            ValueError: On all ranks, if the drift's values have another shape or are not finite.
            Exception: On all ranks, what the drift itself raises on any.
        """
        piece = self._drift.piece(t) if hasattr(self._drift, "piece") else None
        if piece is None or piece != self._piece:
            self._piece, self._count = piece, self._count + 1
            self._values = sample(self._drift, t, self._elements)
        return self._count, lambda: self._values


def sample(drift: Drift, t: float, elements: Elements) -> Array:
    """Drift at the quadrature points, checked on all ranks, shape ``(N, d)``. Collective."""
    x = elements.points
    with collective_errors(elements.comm):
        if hasattr(drift, "at_quadrature"):
            v = drift.at_quadrature(t, elements)
        else:
            v = np.asarray(drift(t, x))
        if v.shape != x.shape or v.dtype.kind not in "fiu":
            raise ValueError(
                f"drift(t, x) returned {v.dtype} values of shape {v.shape} at t = {t:g}; real "
                f"values of the shape of x, {x.shape} (points, dimension), are needed."
            )
        if not np.isfinite(v).all():
            i = int(np.flatnonzero(~np.isfinite(v).all(axis=1))[0])
            raise ValueError(
                f"drift(t, x) is not finite at t = {t:g}, x = {x[i]}: it returned {v[i]}."
            )
    return v


class Divergence:
    """The divergence of a drift at points ``(N, d)``, shape ``(N,)``.

    Args:
        drift: Callable ``drift(t, x)``.
        how: Callable ``(t, x)`` to ``(N,)``, ``"central"`` or ``"complex"``; the drift's own
            method ``divergence`` unless given, else ``"central"``.
        size: Extent of the domain, for the step of differences.

    Raises:
        ValueError: If ``how`` is none of these, or the drift is ``local``.
    """

    def __init__(self, drift: Drift, how: Field | str | None, size: float) -> None:
        if not callable(drift):
            raise ValueError(f"drift = {drift!r} is not callable; give drift(t, x).")
        if getattr(drift, "local", False):
            raise ValueError(
                f"This drift, a {type(drift).__name__}, lives on a mesh: it jumps at the faces of "
                "cells, and a rank knows it in its own cells only. Characteristics need a drift "
                "that every rank can ask anywhere in the domain."
            )
        if how is None:
            how = getattr(drift, "divergence", "central")
        if not callable(how) and how not in ("central", "complex"):
            raise ValueError(f'divergence = {how!r}; choose "central", "complex" or give it.')
        self._drift, self._how, self._step = drift, how, DIFFERENCE_STEP * size

    def __call__(self, t: float, x: Array) -> Array:
        """Values at points; raises ValueError for those of another shape."""
        if callable(self._how):
            values = np.asarray(self._how(t, x))
            if values.shape != (len(x),):
                raise ValueError(
                    f"divergence(t, x) returned shape {values.shape} for x of shape {x.shape}; "
                    f"({len(x)},) is needed."
                )
            return values
        total = np.zeros(len(x))
        for i, axis in enumerate(np.eye(x.shape[1])):
            if self._how == "complex":
                total += np.imag(self._drift(t, x + 1e-30j * axis))[:, i] / 1e-30
                continue
            h = self._step
            one, two = (
                (self._drift(t, x + k * h * axis) - self._drift(t, x - k * h * axis))[:, i]
                for k in (1, 2)
            )
            total += (8.0 * one - two) / (12.0 * h)
        return total
