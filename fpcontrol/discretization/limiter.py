r"""The limiter between a positive step and one of second order: values, tangent and transpose.

For a step from :math:`\rho` let :math:`\rho_L` be that of the monotone method, :math:`\rho_H` that
of Galerkin's, :math:`d = \rho_H-\rho`, and :math:`y` the latter's mean over the step, such that
:math:`M d = -dt\,A y`: :math:`\sum b_i u_i` for stages :math:`u_i`, for Crank-Nicolson
:math:`(\rho+\rho_H)/2`. The residual of the positive step in Galerkin's equations is, cell by cell
(T), with :math:`F_e = D\,[B(-p)\rho_{L,i} - B(p)\rho_{L,j}]`, cotangents :math:`w_e^T`, and
:math:`\sum_i r_i^T = 0`,

.. math::
    r_i^T = \bigl((M_L^T-M^T)d\bigr)_i - dt\,(A^T y)_i + dt\sum_{e\in T}\pm w_e^T F_e .

The smallest fluxes with this residual, and what was cut off the weights, make antidiffusive fluxes
along the edges,

.. math::
    f_e = \sum_T \frac{r_i^T-r_j^T}{d+1} - dt\,(w_e-w_e^+)F_e,\qquad
    m_i(\rho_H-\rho_L)_i = \sum_e \pm f_e .

They are let through as far as the density stays positive: with the outgoing part, smoothed,
:math:`P_i = \sum_e\tfrac12(\sqrt{f_e^2+\epsilon^2}\mp f_e)`, :math:`s = P_i/(m_i\rho_{L,i})` and
:math:`x = \max(s-\tfrac12, 0)`,

.. math::
    R_i = \Bigl(1+\frac{x^3}{1+x^2}\Bigr)^{-1} \le \min(1, 1/s),\qquad
    \rho^{new}_i = \rho_{L,i} + \frac{1}{m_i}\sum_e \pm R_i R_j f_e .

On absorbing walls the density is zero. What a node there can give is what the monotone step
brings it, :math:`q_i`, instead of :math:`m_i\rho_{L,i}`: walls only take.

R is twice continuously differentiable and exactly 1 where :math:`s\le\tfrac12`: there the step is
Galerkin's. Fluxes read off the matrices instead would differ from these by circulations around the
cells, and be limited for nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from mpi4py import MPI

import numpy as np

from fpcontrol.discretization import limiter_loops as loops
from fpcontrol.discretization.absorbing import Absorbing
from fpcontrol.discretization.cell_edges import CellEdges
from fpcontrol.discretization.elements import Elements
from fpcontrol.discretization.limiter_loops import UNLIMITED
from fpcontrol.parallel.communicators import comm_of
from fpcontrol.parallel.errors import reduced
from fpcontrol.typing import Array

# The outgoing part is smoothed over this share of the mean mass at a node.
SMOOTHED = 1e-8
# Masses below are taken for it: nothing is divided by zero.
FLOOR = 1e-290


@dataclass
class CellDrift:
    r"""A drift on the edges of the cells, ``(n_cells, E)`` unless said.

    Attributes:
        values: v at the middles, ``(n_cells, E, d)``.
        diffusivity: D, means over the cells, ``(n_cells,)``.
        leaving: :math:`D B(-p)`.
        entering: :math:`D B(p)`.
        make_slopes: Gives ``slopes``.
    """

    values: Array
    diffusivity: Array
    leaving: Array
    entering: Array
    make_slopes: Callable[[], Array]

    @cached_property
    def slopes(self) -> Array:
        r"""Derivatives of F in v along the edge's vector, ``(n_cells, E, 2)``.

        Times :math:`\rho_{L,i}` and :math:`\rho_{L,j}`: :math:`-B'(-p)` and :math:`-B'(p)`.
        """
        return self.make_slopes()


@dataclass(frozen=True)
class StepEnds:
    """Local densities of a step, or their tangents.

    Attributes:
        rho: At its start.
        mean: Over it, by Galerkin's method.
        high: At its end by Galerkin's method.
        low: At its end by the positive one.
    """

    rho: Array
    mean: Array
    high: Array
    low: Array


@dataclass(frozen=True)
class _Limited:
    """What the limiter made of a step.

    Attributes:
        f: On edges.
        width: Over which the outgoing part is smoothed.
        least: What a node can give, owned; not below ``FLOOR``.
        s: Owned.
        R: Local.
    """

    f: Array
    width: float
    least: Array
    s: Array
    R: Array


class Limiter:
    """The limiter on a mesh. Collective.

    Args:
        elements: Linear elements with the edges' middles as points.
        edges: The edges of the cells.
        absorbing: The walls that absorb, if any.

    Attributes:
        absorbed: This rank's part of what fluxes have brought to each of these walls in the last
            call, ``(tags,)``.
    """

    def __init__(
        self, elements: Elements, edges: CellEdges, absorbing: Absorbing | None = None
    ) -> None:
        self._elements, self._edges, self._walls = elements, edges, absorbing
        self._comm = comm_of(elements.space.mesh)
        self.absorbed = np.zeros(len(absorbing.tags) if absorbing else 0)
        g, e = elements, edges
        # A new vector takes dolfinx as long as a step on a small mesh.
        self._node, self._scaled, *self._duals = (g.vector() for _ in range(5))
        self._ends = e.between[0], e.between[1], e.parts
        self._forward = loops.cell_fluxes(g.dimension)
        self._backward = loops.cell_fluxes_transposed(g.dimension)
        volumes = g.determinant * g.reference_weights.sum()
        dofs, numbers, signs, shares, own = tuple(
            np.ascontiguousarray(a.T) for a in (g.cell_dofs, e.numbers, e.signs, e.shares, e.own)
        )
        cofactor = np.ascontiguousarray(np.moveaxis(g.cofactor, -1, 0))
        self._low_geometry = dofs, numbers, signs, e.pairs, shares
        weight = float(g.reference_weights[0])
        whole = dofs, numbers, signs, e.pairs, cofactor, volumes
        self._geometry = *whole, weight, own, shares

    def __call__(self, ends: StepEnds, v: CellDrift, dt: float) -> tuple[Array, int]:
        """The limited density, local, and how many owned nodes were limited. Collective."""
        seen = self._limited(ends, v, dt)
        result = self._result(ends.low, seen.R, seen.R, seen.f)
        return result, int((seen.s > UNLIMITED).sum())

    def tangent(
        self, ends: StepEnds, change: StepEnds, v: CellDrift, dv: Array, dt: float
    ) -> Array:
        """Derivative of the limited density, local. Collective.

        Args:
            ends: The step.
            change: Its tangents.
            v: The drift.
            dv: Its tangent at the points, ``(N, d)``.
            dt: Time step.
        """
        g, n, seen = self._elements, self._elements.n_owned, self._limited(ends, v, dt)
        along = by_cells(np.einsum("nd,nd->n", dv, self._edges.vectors), len(v.leaving))
        turned = CellDrift(
            by_cells(dv, len(v.leaving)),
            np.zeros_like(v.diffusivity),
            v.slopes[..., 0] * along,
            -v.slopes[..., 1] * along,
            v.make_slopes,
        )
        df = self._fluxes(change, v, dt)
        df += self._fluxes(StepEnds(ends.mean, ends.mean, ends.mean, ends.low), turned, dt)
        node = self._node
        node.array[:] = 0.0
        loops.outgoing_tangent(seen.f, df, seen.width, *self._ends, node.array)
        node.scatter_reverse()
        outgoing = node.array[:n].copy()
        given = self._given(change.low, v, dt)
        if self._walls:
            part = self._given(ends.low, turned, dt)
            self._walls.project_free(part)
            given += part
        dR = self._scaled
        dR.array[:n] = -_slope(seen.s) * seen.R[:n] ** 2 * (outgoing - seen.s * given) / seen.least
        dR.scatter_forward()
        zero = np.zeros(g.n_local)
        return (
            self._result(change.low, seen.R, seen.R, df)
            + self._result(zero, dR.array, seen.R, seen.f)
            + self._result(zero, seen.R, dR.array, seen.f)
        )

    def transpose(
        self, dual: Array, ends: StepEnds, v: CellDrift, dt: float, of_v: Array, of_p: Array
    ) -> StepEnds | None:
        r"""Duals of the step's densities, owned entries; none if no node was limited. Collective.

        What is limited of the density at the end is

        .. math:: \rho^{new}_i = \rho_{H,i} + \frac{1}{m_i}\sum_e \pm (R_i R_j - 1) f_e,

        so that all but the dual of Galerkin's end, ``dual`` at least, is zero away from nodes that
        were limited.

        Args:
            dual: Dual of the limited density, owned entries.
            ends: The step.
            v: The drift.
            dt: Time step.
            of_v: The dual of v over ``dt`` is added to it, ``(E, n_cells, d)``; but for
            of_p: what belongs to its component along the edges' vectors, ``(E, n_cells)``.
        """
        g, n, node = self._elements, self._elements.n_owned, self._node
        seen = self._limited(ends, v, dt)
        if not reduced(self._comm, np.array((seen.s > UNLIMITED).any()), MPI.LOR):
            return None
        scaled = self._scaled
        scaled.array[:n] = dual / g.integrals
        self._project(scaled.array)
        scaled.scatter_forward()
        node.array[:] = 0.0
        loops.limiting_transposed(seen.f, seen.R, scaled.array, *self._ends, node.array)
        node.scatter_reverse()
        given = np.empty(n)
        loops.fractions_transposed(seen.s, seen.R, seen.least, node.array, given)
        node.scatter_forward()
        of_f = np.empty_like(seen.f)
        i, j, _ = self._ends
        loops.fluxes_transposed(seen.f, seen.width, seen.R, scaled.array, node.array, i, j, of_f)
        d, y, low = self._duals
        for vector in self._duals:
            vector.array[:] = 0.0
        of_low = self._given_transposed(given, ends.low, v, dt, low.array, of_p)
        if of_f.any():
            self._backward(
                *self._geometry,
                v.values,
                v.leaving,
                v.entering,
                v.slopes,
                v.diffusivity,
                dt,
                ends.mean,
                ends.low,
                of_f,
                d.array,
                y.array,
                low.array,
                of_v,
                of_p,
            )
        for vector in self._duals:
            vector.scatter_reverse()
        return StepEnds(
            -d.array[:n], y.array[:n].copy(), dual + d.array[:n], of_low + low.array[:n]
        )

    # -- inner parts ---------------------------------------------------------------------------

    def _limited(self, ends: StepEnds, v: CellDrift, dt: float) -> _Limited:
        g, n, node = self._elements, self._elements.n_owned, self._node
        f = self._fluxes(ends, v, dt)
        width = SMOOTHED * abs(g.integral(ends.rho)) / g.index_map.size_global
        node.array[:] = 0.0
        loops.outgoing(f, width, *self._ends, node.array)
        node.scatter_reverse()
        R = self._scaled
        R.array[:n] = node.array[:n]
        least, s = np.maximum(self._given(ends.low, v, dt), FLOOR), np.empty(n)
        loops.fractions(R.array, least, s)
        R.scatter_forward()
        return _Limited(f, width, least, s, R.array.copy())

    def _given(self, low: Array, v: CellDrift, dt: float) -> Array:
        """What each owned node can give: its mass, on walls what the low step brings it."""
        g, n, node = self._elements, self._elements.n_owned, self._node
        masses = g.integrals * low[:n]
        if self._walls:
            flows = np.zeros(len(self._edges.parts))
            loops.low_fluxes(*self._low_geometry, v.leaving, v.entering, dt, low, flows)
            node.array[:] = 0.0
            loops.divergence(self._edges.summed(flows), *self._ends, node.array)
            node.scatter_reverse()
            self._walls.project_free(node.array)
            self._walls.project_owned(masses)
            masses += node.array[:n]
        return masses

    def _given_transposed(
        self, dual: Array, low: Array, v: CellDrift, dt: float, of_low: Array, of_p: Array
    ) -> Array:
        """Dual of ``low`` from that of what is given, owned; that of walls' parts is added."""
        g, n, node = self._elements, self._elements.n_owned, self._node
        if self._walls:
            node.array[:n] = dual
            self._walls.project_free(node.array)
            node.scatter_forward()
            loops.low_fluxes_transposed(
                *self._low_geometry,
                v.leaving,
                v.entering,
                v.slopes,
                dt,
                low,
                node.array,
                *self._ends[:2],
                of_low,
                of_p,
            )
            dual = dual.copy()
            self._walls.project_owned(dual)
        return dual * g.integrals

    def _fluxes(self, ends: StepEnds, v: CellDrift, dt: float) -> Array:
        """What f is on all edges of this rank's cells, summed over the ranks. Collective."""
        f = np.zeros(len(self._edges.parts))
        self._forward(
            *self._geometry,
            v.values,
            v.leaving,
            v.entering,
            v.diffusivity,
            dt,
            ends.high - ends.rho,
            ends.mean,
            ends.low,
            f,
        )
        return self._edges.summed(f)

    def _result(self, low: Array, R: Array, S: Array, f: Array) -> Array:
        """``low_i + sum(+- R_i S_j f) / m_i``, local. Collective."""
        g, node = self._elements, self._node
        node.array[:] = 0.0
        loops.limiting(f, R, S, *self._ends, node.array)
        node.scatter_reverse()
        if self._walls:
            self.absorbed = self._walls.collected(node.array)
            self._walls.project_owned(node.array)
        node.array[: g.n_owned] /= g.integrals
        node.array[: g.n_owned] += low[: g.n_owned]
        node.scatter_forward()
        return node.array.copy()

    def _project(self, u: Array) -> None:
        """Zero on absorbing walls, in place, owned entries."""
        if self._walls:
            self._walls.project_owned(u)


def by_cells(values: Array, n_cells: int) -> Array:
    """Values at the points ``(E * n_cells, ...)`` cell by cell, ``(n_cells, E, ...)``."""
    edges = values.reshape(-1, n_cells, *values.shape[1:])
    return np.ascontiguousarray(edges.swapaxes(0, 1), dtype=float)


def _slope(s: Array) -> Array:
    """Derivative of 1/R, ``1 - (1 - x**2) / (1 + x**2)**2``, without overflow."""
    x = np.maximum(s - UNLIMITED, 0.0)
    with np.errstate(over="ignore"):
        q = 1.0 / (1.0 + x * x)
    return 1.0 + q - 2.0 * q * q
