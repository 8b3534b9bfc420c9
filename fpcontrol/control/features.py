r"""What a network is given of a point: its coordinates, and of periodic ones the cosine and sine.

.. math:: y_i \mapsto y_i,\qquad
    y_i \mapsto \Bigl(\cos\frac{2\pi y_i}{\ell_i},\ \sin\frac{2\pi y_i}{\ell_i}\Bigr)
    \text{ on axes of period } \ell_i

so that whatever is made of them is smooth through the seam.
"""

from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
from dolfinx.mesh import Mesh

from fpcontrol.discretization.periodic import periodic_of
from fpcontrol.typing import Array

type Periods = bool | Sequence[float | None] | Array | None


class Features:
    """The inputs of a network for points ``y (d, N)``, component by component.

    Args:
        periods: Of each axis, in units of y, ``(d,)``; infinite where it is not periodic.

    Attributes:
        count: Number of inputs.
        periodic: Whether any axis is.
        units: By how much a y of 1 changes each input at most, ``(count,)``, inverted.
    """

    def __init__(self, periods: Array) -> None:
        self._waves = 2.0 * np.pi / periods  # zero for those that are not periodic
        axes = [[k] * (1 + (w > 0.0)) for k, w in enumerate(self._waves)]
        self._axes = np.concatenate(axes)
        self.count, self.periodic = len(self._axes), bool((self._waves > 0.0).any())
        own = self._waves[self._axes]
        self.units = 1.0 / np.where(own > 0.0, own, 1.0)

    def __call__(self, y: Array) -> Array:
        """The inputs, ``(count, N)``; y itself if no axis is periodic."""
        if not self.periodic:
            return y
        rows: list[Array] = []
        for wave, row in zip(self._waves, y, strict=True):
            rows += [np.cos(wave * row), np.sin(wave * row)] if wave > 0.0 else [row]
        return np.array(rows)

    def along(self, y: Array, v: Array) -> Array:
        """Their derivative along ``v (d, N)``, ``(count, N)``."""
        rows: list[Array] = []
        for wave, row, dot in zip(self._waves, y, v, strict=True):
            if wave > 0.0:
                rows += [-wave * np.sin(wave * row) * dot, wave * np.cos(wave * row) * dot]
            else:
                rows.append(dot)
        return np.array(rows)


def periods_of(mesh: Mesh, asked: Periods) -> Array:
    """Periods of the axes, ``(d,)``, infinite for none.

    Args:
        mesh: The mesh.
        asked: ``None`` for the mesh's own, ``False`` for none, or a length for each axis.

    Raises:
        ValueError: For anything else.
    """
    d, own = mesh.geometry.dim, periodic_of(mesh)
    if asked is None or asked is True:
        if own is None and asked:
            raise ValueError(
                "periodic = True: the mesh has no periodic sides; give the period of each axis, "
                f"{d} lengths, None for an axis without."
            )
        return np.where(own.axes, own.lengths, np.inf) if own else np.full(d, np.inf)
    if asked is False:
        return np.full(d, np.inf)
    given: list[Any] = list(asked) if isinstance(asked, Sequence | np.ndarray) else []
    good = all(
        one is None
        or (isinstance(one, Real) and not isinstance(one, bool) and 0.0 < float(one) < np.inf)
        for one in given
    )
    if len(given) != d or isinstance(asked, str) or not good:
        raise ValueError(
            f"periodic = {asked!r} must be a positive length for each of the {d} axes, None for an "
            "axis without, or False; or None for the periods of the mesh."
        )
    periods = np.array([np.inf if one is None else float(one) for one in given])
    if own is not None:
        off = own.axes & (np.abs(periods / own.lengths - 1.0) > 1e-9) & np.isfinite(periods)
        whole = np.abs(own.lengths / periods - np.rint(own.lengths / periods)) < 1e-9
        if (off & ~whole).any():
            raise ValueError(
                f"periodic = {asked!r}: the mesh has the periods {own.lengths.tolist()}, which "
                "must be multiples of those of a drift."
            )
    return periods
