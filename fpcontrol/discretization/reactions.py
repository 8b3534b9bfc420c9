r"""Mass that is made and lost inside the domain: sources and killing.

.. math::
    M\dot\rho = -(N(v, D) + K)\,\rho + F,\qquad
    K_{ij} = (k\,\phi_j,\phi_i),\quad F_i = (s,\phi_i)

Whoever fills operators fills :math:`M + \tau(N + K)` (``SemiDiscretization.inertia``), forward,
along tangents and, transposed, backward; a forward step adds :math:`\tau F` to its right-hand
side. The sum of all rows says what a stage has made and lost, to round-off.
"""

from collections.abc import Callable
from dataclasses import dataclass

from dolfinx import fem

from fpcontrol.discretization.elements import Elements
from fpcontrol.typing import Array

type Rate = float | Callable[[Array], Array]


@dataclass(frozen=True)
class Reactions:
    r"""Killing and a source.

    .. math:: \partial_t\rho = \nabla\cdot(D\nabla\rho - v\rho) - k\rho + s

    A particle at x dies at the rate k; s is the mass that comes, per volume and time. Both are
    constant in time. ``Galerkin`` takes both, and ``Monotone`` with ``BackwardEuler``, whose
    densities stay positive; in ``TrackingProblem`` tangent and adjoint are exact.

    Args:
        killing: k, one over time, not negative: a number or ``k(x)``, ``x`` of shape ``(N, d)``, to
            ``(N,)``. None unless given.
        source: s, not negative: a number, ``s(x)`` likewise, or a Function of the equation's
            space, such as a density. None unless given.

    References:
        A. N. Borodin, P. Salminen, Handbook of Brownian Motion (2002), chapter II: killing.
    """

    killing: Rate | None = None
    source: Rate | fem.Function | None = None


@dataclass(frozen=True)
class Reacting:
    r"""Reactions on one mesh, discretized (``discretization.bounded``).

    Attributes:
        killing: Entries of K, ``(sparsity.size,)``; ``None`` for none.
        loss: What K takes of a density per time, :math:`K^\top 1`, owned entries.
        load: F, owned entries.
        rate: Sum of F, mass per time.
    """

    killing: Array | None
    loss: Array
    load: Array
    rate: float

    def describe(self, g: Elements) -> dict[str, float]:
        """Figures that differ for other reactions, for checkpoints and records. Collective."""
        return {
            "rate": self.rate,
            "killing": g.sum(float(self.loss.sum())),
            "norms": g.sum(float(self.loss @ self.loss + self.load @ self.load)),
        }
