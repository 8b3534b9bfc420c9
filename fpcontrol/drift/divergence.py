"""The divergence of a drift: its own, one that is given, or differences."""

import numpy as np

from fpcontrol.drift.base import as_drift
from fpcontrol.typing import Array, Field, VectorField

# Of the fourth-order difference that stands in for a divergence, over the markers' extent: waves
# of 64 periods are differentiated to 1e-9, above the round-off of 1e-11.
DIFFERENCE_STEP = 3e-5


class Divergence:
    """The divergence of a drift at points ``(N, d)``, shape ``(N,)``.

    Args:
        drift: Callable ``drift(t, x)``.
        how: Callable ``(t, x)`` to ``(N,)``, ``"central"`` or ``"complex"``; the drift's own
            method ``divergence`` unless given, else ``"central"``.
        size: Extent of the domain, for the step of differences.

    Raises:
        ValueError: If ``how`` is none of these, or not every rank can ask the drift everywhere.
    """

    def __init__(self, drift: VectorField, how: Field | str | None, size: float) -> None:
        self._drift = drift = as_drift(drift)
        if not drift.everywhere:
            raise ValueError(
                f"This drift, a {type(drift).__name__}, lives on a mesh: it jumps at the faces of "
                "cells, and a rank knows it in its own cells only. Characteristics need a drift "
                "that every rank can ask anywhere in the domain."
            )
        if how is None:
            how = drift.divergence or "central"
        if not callable(how) and how not in ("central", "complex"):
            raise ValueError(f'divergence = {how!r}; choose "central", "complex" or give it.')
        self._how, self._step = how, DIFFERENCE_STEP * size

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
