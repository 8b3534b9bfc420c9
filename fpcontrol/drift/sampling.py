"""Values of a drift where a discretization asks for them, and the steps that its jumps allow."""

from collections.abc import Callable, Hashable

import numpy as np

from fpcontrol.drift.base import Drift, SamplePoints, as_drift
from fpcontrol.parallel.errors import collective_errors
from fpcontrol.typing import Array, VectorField


def check_switches(drift: Drift, t0: float, t1: float, steps: int) -> None:
    """Refuse steps that straddle a switch of the drift.

    Such a step sees the drift on one side of the switch only, an error of first order that no
    scheme mends and that halving the steps leaves where it is.

    Raises:
        ValueError: If there is such a step.
    """
    times = np.asarray(drift.switches, dtype=float)
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
    """Checked values of a drift at the points of a discretization, made anew only as they change.

    Args:
        drift: The drift.
        where: The discretization that owns the points.
    """

    def __init__(self, drift: Drift, where: SamplePoints) -> None:
        self._drift, self._where = drift, where
        self._piece: Hashable | None = None
        self._count, self._values = 0, np.empty(0)

    def at(self, t: float) -> tuple[int, Callable[[], Array]]:
        """The drift at time ``t``: its number, and what gives its values ``(N, d)``. Collective.

        The number is that of the call before if nothing has changed since.

        Raises:
            ValueError: On all ranks, if the drift's values have another shape or are not finite.
            Exception: On all ranks, what the drift itself raises on any.
        """
        piece = self._drift.piece(t)
        if piece is None or piece != self._piece:
            self._piece, self._count = piece, self._count + 1
            self._values = sample(self._drift, t, self._where)
        return self._count, lambda: self._values


def sample(drift: VectorField, t: float, where: SamplePoints) -> Array:
    """Drift at the points of a discretization, checked on all ranks, ``(N, d)``. Collective."""
    with collective_errors(where.comm):
        return checked_values(as_drift(drift).at_points(t, where), t, where.points)


def checked_values(v: Array, t: float, x: Array) -> Array:
    """Values that a drift has returned at points ``(N, d)``, ``(N, d)``. Not collective.

    Raises:
        ValueError: On this rank, if they have another shape or are not real and finite.
    """
    v = np.asarray(v)
    if v.shape != x.shape or v.dtype.kind not in "fiu":
        raise ValueError(
            f"drift(t, x) returned {v.dtype} values of shape {v.shape} at t = {t:g}; real "
            f"values of the shape of x, {x.shape} (points, dimension), are needed."
        )
    if not np.isfinite(v).all():
        i = int(np.flatnonzero(~np.isfinite(v).all(axis=1))[0])
        raise ValueError(f"drift(t, x) is not finite at t = {t:g}, x = {x[i]}: it returned {v[i]}.")
    return v
