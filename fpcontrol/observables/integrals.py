"""Observables that are integrals of the density: one scalar product each at a level."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from dolfinx import fem
from dolfinx.mesh import MeshTags

from fpcontrol.discretization.base import SemiDiscretization
from fpcontrol.discretization.elements import Elements
from fpcontrol.discretization.sets import Where, cells_of, checked
from fpcontrol.noise import Noise
from fpcontrol.observables.base import Evaluation, Setting, Smooth, SmoothEvaluation
from fpcontrol.observables.quadrature import CellRule, sampled
from fpcontrol.parallel.errors import collective_errors
from fpcontrol.typing import Array

# Beyond twice the degree of the elements: what a user's function is integrated with.
FINER = 4


class Linear(SmoothEvaluation):
    """Scalar products with fixed vectors, and what is made of them.

    Args:
        rows: Local vectors, this rank's part of ``(f, phi_i)``, ``(size, n_local)``.
        finish: Value from the sums, ``(size,)``.
        pullback: Transpose of its derivative: from the sums and what is dual to the value, flat,
            to ``(size,)``. Unless given the value is the sums.

    Attributes:
        rows: As given.
        plain: Whether there is none.
    """

    rows: Array

    def __init__(
        self,
        rows: Array,
        finish: Callable[[Array], Any],
        pullback: Callable[[Array, Array], Array] | None = None,
    ) -> None:
        self.rows, self.size, self._finish, self._pullback = rows, len(rows), finish, pullback
        self.plain = pullback is None

    def pullback(self, sums: Array, dual: Array) -> Array:
        """What is dual to the sums, ``(size,)``, from what is dual to the value, flat."""
        return dual if self._pullback is None else self._pullback(sums, dual)

    def slopes(self, t: float, rho: Array) -> Array:
        """The fixed vectors."""
        return self.rows

    def parts(self, t: float, rho: Array) -> Array:
        """Scalar products with what this rank's cells have, ``(size,)``."""
        return self.rows @ rho

    def value(self, t: float, rho: Array, sums: Array) -> Any:
        """See ``Evaluation.value``."""
        return self._finish(sums)


class Integral(Smooth):
    r"""A smooth function of integrals :math:`\int f_k\,\rho\,dx`, for ``fpc.objectives.Observed``.

    To be derived from: ``integrals`` says which and what is made of them.
    """

    @abstractmethod
    def integrals(self, g: Elements) -> Linear:
        """The integrals on one mesh, with the derivative of what is made of them. Collective."""

    def on(self, setting: Setting) -> Evaluation:
        """See ``Observable.on``. Collective."""
        return self.integrals(setting.elements)

    def smooth(self, system: SemiDiscretization, noise: Noise | None) -> SmoothEvaluation:
        """See ``Smooth``. Collective."""
        return self.integrals(system.elements)


def _centre(g: Elements, x: Array) -> Array:
    """Middle of the box of the mesh, from which moments are taken: less is lost. Collective."""
    low = g.comm.allreduce(x.min(axis=1, initial=np.inf), op=_minimum)
    high = -g.comm.allreduce((-x).min(axis=1, initial=np.inf), op=_minimum)
    return 0.5 * (low + high)


def _minimum(a: Array, b: Array) -> Array:
    return np.minimum(a, b)


def _moments(g: Elements, order: int) -> tuple[Array, Array]:
    """Rows of 1, ``x_k - c_k`` and their products up to an order, and c. Collective."""
    rule = CellRule.of(g, g.degree + order)
    x = rule.points[: g.dimension]
    c = _centre(g, x)
    y = x - c[:, None]
    functions = [np.ones(y.shape[1]), *y]
    if order > 1:
        functions += [a * b for a in y for b in y]
    return np.array([rule.functional(f) for f in functions]), c


@dataclass(frozen=True)
class Mean(Integral):
    """See ``mean``."""

    def integrals(self, g: Elements) -> Linear:
        """See ``Integral``. Collective."""
        rows, c = _moments(g, 1)

        def pullback(sums: Array, dual: Array) -> Array:
            return np.array([-(dual @ sums[1:]) / sums[0], *dual]) / sums[0]

        return Linear(rows, lambda sums: c + sums[1:] / sums[0], pullback)


@dataclass(frozen=True)
class Covariance(Integral):
    """See ``covariance``."""

    def integrals(self, g: Elements) -> Linear:
        """See ``Integral``. Collective."""
        d = g.dimension
        rows, _ = _moments(g, 2)

        def finish(sums: Array) -> Array:
            first, second = sums[1 : d + 1] / sums[0], sums[d + 1 :].reshape(d, d) / sums[0]
            return second - np.outer(first, first)

        def pullback(sums: Array, dual: Array) -> Array:
            of_second = dual.reshape(d, d)
            of_first = -(of_second + of_second.T) @ sums[1 : d + 1] / sums[0]
            scaled = np.concatenate([of_first, dual])
            return np.array([-(scaled @ sums[1:]) / sums[0], *scaled]) / sums[0]

        return Linear(rows, finish, pullback)


@dataclass(frozen=True)
class Mass(Integral):
    """See ``mass``."""

    where: Where | None
    tags: MeshTags | None

    def integrals(self, g: Elements) -> Linear:
        """See ``Integral``. Collective."""
        where = self.where
        rule = CellRule.of(g, 2 * g.degree + FINER)
        inside = np.ones((len(rule.weights), g.n_cells), dtype=bool)
        if callable(where):
            with collective_errors(g.comm):
                inside = checked(where, rule.points, "where").reshape(inside.shape)
                row = self._row(g, rule, inside)
        else:
            if where is not None:
                inside &= cells_of(g, where, self.tags, "where")
            row = rule.functional(inside.ravel().astype(float))
        return Linear(row[None], lambda sums: sums[0])

    def _row(self, g: Elements, rule: CellRule, inside: Array) -> Array:
        """Cells that the set's edge cuts are looked at more closely."""
        assert callable(self.where)
        cut = inside.any(axis=0) & ~inside.all(axis=0)
        row = rule.functional((inside & ~cut).ravel().astype(float))
        for cells in np.array_split(np.flatnonzero(cut), max(1, int(cut.sum()) // 256)):
            fine = CellRule.fine(g, cells)
            row += fine.functional(checked(self.where, fine.points, "where").astype(float))
        return row


@dataclass(frozen=True)
class Expectation(Integral):
    """See ``expectation``."""

    function: Callable[[Array], Array]

    def integrals(self, g: Elements) -> Linear:
        """See ``Integral``. Collective."""
        rule = CellRule.of(g, 2 * g.degree + FINER)
        values = sampled(g, self.function, rule.points, "f", many=True)
        rows = np.array([rule.functional(f) for f in np.atleast_2d(values)])
        return Linear(rows, lambda sums: sums if values.ndim > 1 else sums[0])


@dataclass(frozen=True)
class Energy(Integral):
    """See ``energy``."""

    potential: Callable[[Array], Array] | fem.Function

    def integrals(self, g: Elements) -> Linear:
        """See ``Integral``. Collective."""
        V = self.potential
        rule = CellRule.of(g, 2 * g.degree + FINER)
        if isinstance(V, fem.Function):
            if V.function_space.mesh._cpp_object != g.mesh._cpp_object:
                raise ValueError("The potential V lives on another mesh than the equation.")
            if V.function_space.dofmap.index_map_bs != 1:
                raise ValueError(f"V = {V.name!r} must be scalar.")
            values = rule.values_of(V)
        else:
            x = np.ascontiguousarray(rule.points[: g.dimension].T)
            with collective_errors(g.comm):
                values = np.asarray(V(x))
                if values.shape != (len(x),) or values.dtype.kind not in "fiu":
                    raise ValueError(
                        f"V(x) returned {values.dtype} values of shape {values.shape} for x of "
                        f"shape {x.shape}; real values of shape ({len(x)},) are needed."
                    )
        return Linear(rule.functional(values)[None], lambda sums: sums[0])
