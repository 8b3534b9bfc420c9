"""Drifts from tables: velocities on a regular grid, steady or at several times."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import scipy
from scipy.sparse.linalg import spsolve

from fpcontrol.drift.base import Drift
from fpcontrol.typing import Array

# Of the extent of the grid: points beyond it by less lie on its edge.
EDGE = 1e-9
LOCAL = ("linear", "nearest")
SPLINES = ("slinear", "cubic", "quintic")


def grid(
    axes: Sequence[Array],
    values: Array,
    *,
    times: Array | None = None,
    method: str = "linear",
    outside: Literal["error", "nearest"] = "error",
) -> "GridDrift":
    """The drift that velocities on a regular grid give by interpolation (SciPy).

    Args:
        axes: Coordinates along each of the d axes, increasing, not necessarily evenly.
        values: Velocities, ``(n_1, ..., n_d, d)``, length per time; with ``times`` ``(n_t, n_1,
            ..., n_d, d)``. Values that are missing (not a number) are an error where they are
            needed, as on land beside a coast: fill these.
        times: Increasing times ``(n_t,)`` of the values, between which they are linear; the drift
            is steady unless given.
        method: In space, of ``scipy.interpolate.RegularGridInterpolator``: ``"linear"`` (of order
            2), ``"cubic"`` (4) and others.
        outside: For points outside the grid: ``"error"``, or ``"nearest"``, the value at the
            grid's edge.

    Raises:
        ValueError: For axes, times and values that do not fit; later, on all ranks of a run, for
            points and times outside, and missing values.
    """
    axes = tuple(np.asarray(axis, dtype=float) for axis in axes)
    values = np.asarray(values, dtype=float)
    for name, axis in [(f"axes[{k}]", a) for k, a in enumerate(axes)] + (
        [] if times is None else [("times", np.asarray(times, dtype=float))]
    ):
        rising = axis.ndim == 1 and len(axis) > 1 and bool((np.diff(axis) > 0.0).all())
        if not rising or not np.isfinite(axis).all():
            raise ValueError(f"{name} must be two or more finite increasing numbers; it is {axis}.")
    shape = (*(len(axis) for axis in axes), len(axes))
    if times is not None:
        shape = (len(times), *shape)
    if values.shape != shape:
        raise ValueError(
            f"values has shape {values.shape}; the axes and their number need {shape}."
        )
    missing = int((~np.isfinite(values)).sum())
    if missing and method not in LOCAL:
        raise ValueError(
            f"values has {missing} that are not finite, and method = {method!r} needs all: fill "
            'them, or take "linear".'
        )
    if outside not in ("error", "nearest"):
        raise ValueError(f'outside = {outside!r}; choose "error" or "nearest".')
    return GridDrift(axes, values, times, method, outside)


class GridDrift(Drift):
    """A drift on a regular grid, known everywhere on it; see ``grid``."""

    def __init__(
        self,
        axes: tuple[Array, ...],
        values: Array,
        times: Array | None,
        method: str,
        outside: str,
    ) -> None:
        self._axes, self._outside = axes, outside
        self._times = None if times is None else np.asarray(times, dtype=float)
        # Splines by a direct solver: the iterative one that is the default stops at 1e-6.
        exact = {"solver": spsolve} if method in SPLINES else {}
        self._levels = [
            scipy.interpolate.RegularGridInterpolator(axes, level, method=method, **exact)
            for level in (values if times is not None else values[None])
        ]

    @property
    def steady(self) -> bool:
        """Whether no times were given."""
        return self._times is None

    def piece(self, t: float) -> int | None:
        """One piece for all times where it is steady."""
        return 0 if self.steady else None

    def __call__(self, t: float, x: Array) -> Array:
        """Drift at points, ``(N, d)`` to ``(N, d)``.

        Raises:
            ValueError: On this rank, for points or a time outside, or beside missing values.
        """
        x = self._inside(np.asarray(x, dtype=float))
        if self._times is None:
            v = self._levels[0](x)
        else:
            k, share = self._place(t)
            v = self._levels[k](x)
            if share > 0.0:  # at a level itself values of the next one do not matter
                v = (1.0 - share) * v + share * self._levels[k + 1](x)
        bad = np.flatnonzero(~np.isfinite(v).all(axis=1))
        if bad.size:
            raise ValueError(
                f"{bad.size} of {len(x)} points lie beside missing values of the grid, the first "
                f"at {x[bad[0]]}: fill these values."
            )
        return v

    def _inside(self, x: Array) -> Array:
        low, high = (np.array([axis[end] for axis in self._axes]) for end in (0, -1))
        if x.shape[1:] != low.shape:
            raise ValueError(f"The drift's grid has {len(low)} axes, the points {x.shape[1]}.")
        near = np.clip(x, low, high)
        if self._outside == "error":
            off = np.flatnonzero((np.abs(x - near) > EDGE * (high - low)).any(axis=1))
            if off.size:
                raise ValueError(
                    f"{off.size} of {len(x)} points lie outside the drift's grid, which goes from "
                    f"{low} to {high}, the first at {x[off[0]]}: give a grid that covers the mesh, "
                    'or outside="nearest".'
                )
        return near

    def _place(self, t: float) -> tuple[int, float]:
        """The level at or before a time, and how far it is to the next, 0 to 1."""
        assert self._times is not None
        times, extent = self._times, self._times[-1] - self._times[0]
        if not times[0] - EDGE * extent <= t <= times[-1] + EDGE * extent:
            raise ValueError(
                f"t = {t:g} lies outside the times of the drift's grid, {times[0]:g} to "
                f"{times[-1]:g}: give values for the whole run."
            )
        k = int(np.clip(np.searchsorted(times, t, side="right") - 1, 0, len(times) - 2))
        return k, float(np.clip((t - times[k]) / (times[k + 1] - times[k]), 0.0, 1.0))
