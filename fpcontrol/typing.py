"""Types that signatures share; closed forms in numpy need nothing else of the package."""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

type Array = np.ndarray
type Field = Callable[[float, Array], Array]  # (t, x) to (N,), x of shape (N, d)
type VectorField = Callable[[float, Array], Array]  # (t, x) to (N, d)


class AnalyticReference(Protocol):
    r"""A reference given by formulas, for any object that has these two attributes.

    ``TrackingProblem`` takes it where ``sigma = 0``, on the domain of the drift's mesh, and
    ``Flow.l2_errors`` for any flow; with ``sigma > 0`` a reference is a ``MoserFlow``. On several
    ranks each asks for the points of its own, so that ``at`` must not communicate.

    Attributes:
        t1: Last time, that of the drift.
    """

    t1: float

    def at(self, t: float, x: Array, cells: Any = None) -> tuple[Array, Array, Any]:
        r"""The density and its gradient at points.

        Args:
            t: Time in ``[0, t1]``.
            x: Points of this rank, ``(N, d)``.
            cells: What the last call returned third, or None; a reference on a mesh keeps there
                where points were, one by formulas gives it back.

        Returns:
            :math:`r(t, x)`, ``(N,)``; :math:`\nabla r(t, x)`, ``(N, d)``; and ``cells``.
        """
