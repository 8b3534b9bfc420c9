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
from numbers import Real
from typing import TYPE_CHECKING

import numpy as np
from dolfinx import fem

from fpcontrol.discretization.elements import Elements
from fpcontrol.parallel.errors import collective_errors
from fpcontrol.typing import Array

if TYPE_CHECKING:
    from fpcontrol.discretization.base import SemiDiscretization

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


class Reacting:
    r"""Reactions on one mesh, discretized. Collective.

    Args:
        system: The method in space.
        reactions: What reacts.

    Raises:
        ValueError: On all ranks, for what is no number or callable, or has bad values.

    Attributes:
        killing: Entries of K, ``(sparsity.size,)``; ``None`` for none.
        loss: What K takes of a density per time, :math:`K^\top 1`, owned entries.
        load: F, owned entries.
        rate: Sum of F, mass per time.
    """

    def __init__(self, system: "SemiDiscretization", reactions: Reactions) -> None:
        if not isinstance(reactions, Reactions):
            raise ValueError(
                f"reactions = {reactions!r} must be fpc.Reactions(killing=..., source=...)."
            )
        g = system.elements
        self.killing: Array | None = None
        self.loss, self.load, self.rate = np.zeros(g.n_owned), np.zeros(g.n_owned), 0.0
        k, s = reactions.killing, reactions.source
        if k is not None:
            values = _values(system, k, "killing")
            # A number is a multiple of M, whatever the quadrature.
            number = isinstance(k, Real)
            self.killing = system.mass_values * float(k) if number else system.weighted(values)  # type: ignore[arg-type]
            ones, image = g.vector(), g.vector()
            ones.set(np.ones(g.n_local))
            g.matrix(self.killing.copy()).mat.mult(ones.petsc_vec, image.petsc_vec)
            self.loss = image.array[: g.n_owned].copy()
            if not g.sum(float(self.loss.sum())) > 0.0:
                self.killing = None
        if isinstance(s, fem.Function):
            if s.function_space.element != g.space.element or s.function_space.mesh is not g.mesh:
                raise ValueError(
                    "source: the Function is of another space than the equation's density."
                )
            with collective_errors(g.comm):
                _check(s.x.array[: g.n_owned], None, "source", nodes=True)
            image, x = g.vector(), g.vector()
            x.set(s.x.array)
            system.mass.mult(x.petsc_vec, image.petsc_vec)
            self.load = image.array[: g.n_owned].copy()
        elif s is not None:
            self.load = system.load(_values(system, s, "source"))
        self.rate = g.sum(float(self.load.sum()))

    def describe(self, g: Elements) -> dict[str, float]:
        """Figures that differ for other reactions, for checkpoints and records. Collective."""
        return {
            "rate": self.rate,
            "killing": g.sum(float(self.loss.sum())),
            "norms": g.sum(float(self.loss @ self.loss + self.load @ self.load)),
        }


def _values(system: "SemiDiscretization", rate: Rate, name: str) -> Array:
    """Values where the method asks for them. Collective."""
    x = system.reaction_points
    with collective_errors(system.comm):
        if isinstance(rate, Real) and not isinstance(rate, bool):
            values = np.full(len(x), float(rate))
        elif callable(rate):
            values = np.asarray(rate(x), dtype=float)
        else:
            raise ValueError(f"{name} = {rate!r} must be a number or a callable of x.")
        _check(values, x, f"{name} = {rate!r}" if isinstance(rate, Real) else name)
    return values


def _check(values: Array, x: Array | None, name: str, nodes: bool = False) -> None:
    if x is not None and values.shape != (len(x),):
        raise ValueError(
            f"{name}(x) returned shape {values.shape} for x of shape {x.shape}; ({len(x)},) is "
            "needed."
        )
    bad = ~np.isfinite(values) | (values < 0.0) if not nodes else ~np.isfinite(values)
    if bad.any():
        i = int(bad.argmax())
        where = "" if x is None else f" at x = {x[i]}"
        raise ValueError(
            f"{name} is {values[i]:g}{where}; it must be finite and not negative: what takes mass "
            "in proportion to the density is killing, what adds mass is a source."
        )
