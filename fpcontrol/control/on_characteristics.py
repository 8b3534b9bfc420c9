r"""Controlled runs without noise (sigma = 0) along characteristics, and their discrete adjoint.

.. math:: \dot X = v,\quad \frac{d}{dt}\log J = \nabla\cdot v,\qquad
    v(t,x) = g(x)\,s\,f(y),\quad \nabla\cdot v = g\,\nabla_y\cdot f + s\,\nabla g\cdot f

with a network ``f`` and a factor ``g`` that vanishes at the walls, by the classical Runge-Kutta
method of order 4.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from dolfinx import fem
from dolfinx.mesh import Mesh

from fpcontrol.characteristics.flow import Flow, Markers
from fpcontrol.control.fingerprint import moment, of_field
from fpcontrol.control.objectives import L2Tracking
from fpcontrol.control.parametric import ParametricDrift, PiecewiseConstant, SmoothField
from fpcontrol.density import check_density
from fpcontrol.discretization.boundary import Wall
from fpcontrol.discretization.elements import Elements, lagrange
from fpcontrol.discretization.periodic import JUMP, periodic_of, wrapped
from fpcontrol.discretization.replica import Frozen, LeftDomain, MeshReference
from fpcontrol.linalg.buffers import read_only
from fpcontrol.parallel.errors import collective_errors
from fpcontrol.reference import MoserFlow
from fpcontrol.typing import AnalyticReference, Array
from fpcontrol.walls import WallFactor, walled

# The classical Runge-Kutta method: stage i starts from the rate of stage i - 1, A[i] steps on.
A, B = (0.0, 0.5, 0.5, 1.0), (1 / 6, 1 / 3, 1 / 3, 1 / 6)


@dataclass(frozen=True)
class _Jet:
    r"""A field times the wall factor: values and divergence, with first derivatives.

    With ``v = g f``: :math:`\nabla\cdot v = g\,\nabla\cdot f + \nabla g\cdot f`.
    """

    field: SmoothField
    factor: WallFactor
    mesh: Mesh

    def rate(self, theta: Array, x: Array) -> tuple[Array, Array]:
        """``v (N, d)`` and ``div v (N,)`` at ``x (N, d)``."""
        x = wrapped(self.mesh, x)
        f, g, slope = self.field.values(theta, x), *self.factor(x)
        return g[:, None] * f, g * self.field.divergence(theta, x) + _dot(slope, f)

    def jvp(self, theta: Array, x: Array, dtheta: Array, dx: Array) -> tuple[Array, Array]:
        """Derivative of ``rate`` along directions in the weights and in ``x``."""
        x = wrapped(self.mesh, x)
        f, c = self.field.values(theta, x), self.field.divergence(theta, x)
        df, dc = self.field.flow_jvp(theta, x, dtheta, dx)
        g, slope, curvature = self.factor.jet(x)
        dg, dslope = _dot(slope, dx), np.einsum("nde,ne->nd", curvature, dx)
        dv = g[:, None] * df + dg[:, None] * f
        return dv, g * dc + dg * c + _dot(slope, df) + _dot(dslope, f)

    def vjp(self, theta: Array, x: Array, sv: Array, sd: Array) -> tuple[Array, Array]:
        """Derivatives of ``sum(sv * v) + sum(sd * div v)`` in the weights and in ``x``."""
        x = wrapped(self.mesh, x)
        f, c = self.field.values(theta, x), self.field.divergence(theta, x)
        g, slope, curvature = self.factor.jet(x)
        sf = g[:, None] * sv + sd[:, None] * slope
        dual, sx = self.field.flow_vjp(theta, x, sf, g * sd)
        sg = _dot(f, sv) + c * sd
        sx = sx + sg[:, None] * slope + np.einsum("nde,ne->nd", curvature, f) * sd[:, None]
        return dual, sx


def _dot(a: Array, b: Array) -> Array:
    """Products of vectors, ``(N, d)`` twice to ``(N,)``."""
    return np.einsum("nd,nd->n", a, b)


@dataclass(frozen=True)
class _Path:
    """A forward run: markers at all levels, the reference there, squared errors of the levels."""

    key: bytes
    x: Array  # (steps + 1, N, d)
    log_j: Array  # (steps + 1, N)
    value: Array
    slope: Array
    squares: Array  # (steps + 1,)


class CharacteristicRuns:
    r"""Runs of the controlled continuity equation and their squared errors. Collective.

    Squared errors are integrals over the markers,

    .. math:: e_n = \int (\rho_0(y)/J - r(t_n, X))^2\,J\,dy ,

    the drift is ``walled(drift, mesh, layer)``, the steps are those of the classical Runge-Kutta
    method, and the derivative of :math:`\tfrac12\sum_n s_n e_n` is their discrete adjoint. A
    reference on a mesh has kinks at the faces of its cells: the sum is piecewise smooth, and
    differentiated as such. All levels are kept, ``(steps + 1) * (2 d + 2)`` numbers a marker.

    Args:
        reference: ``MoserFlow``, or an ``AnalyticReference``.
        drift: A drift with weights, piecewise constant in time, of a ``SmoothField``.
        steps: Number of time steps.
        tracking: Distance to the reference that is minimized.
        start: Start density on the reference's mesh; the reference's own unless given.
        markers: Where characteristics start, with the start density; unless given, the quadrature
            points of ``marker_mesh``.
        marker_mesh: Another mesh of the same domain, such as a finer one; the reference's own
            unless given.
        layer: See ``walled``.
        quadrature_degree: Of the markers; unless given ``2 * degree + 2`` (8 for an
            ``AnalyticReference``).

    Attributes:
        norms: Squared L2 norms of the reference at all levels, ``(steps + 1,)``.
        walled: The drift as it runs, at the network's own weights.
        start: The density at time 0; ``None`` where markers are given or it is no Function.

    Raises:
        ValueError: On all ranks, for an argument that is not as above.
    """

    # What runs with noise have, by the same names.
    noise: ClassVar[None] = None
    walls: ClassVar[tuple[None, None]] = (None, None)

    def __init__(
        self,
        reference: MoserFlow | AnalyticReference,
        drift: ParametricDrift,
        steps: int,
        *,
        tracking: L2Tracking | None = None,
        start: fem.Function | None = None,
        markers: Markers | None = None,
        marker_mesh: Mesh | None = None,
        layer: float | None = None,
        quadrature_degree: int | None = None,
    ) -> None:
        if not isinstance(drift.field, SmoothField):
            raise ValueError(
                f"drift's field, a {type(drift.field).__name__}, is no SmoothField, which "
                "sigma = 0 needs: define its divergence, flow_jvp and flow_vjp."
            )
        drift.field.check_smooth()
        if not isinstance(drift.time, PiecewiseConstant):
            raise ValueError(
                f"drift's weights are {type(drift.time).__name__} in time; sigma = 0 takes those "
                "that are PiecewiseConstant."
            )
        if markers is not None and not (start is marker_mesh is quadrature_degree is None):
            raise ValueError(
                "markers have points and a density: give no start, marker_mesh, quadrature_degree."
            )
        self._moving: Any = reference
        if isinstance(reference, MoserFlow):
            self._moving, self.elements = MeshReference(reference), reference.elements
        else:
            self.elements = Elements(lagrange(drift.mesh, 2), quadrature_degree=8)
        g = self.elements
        self.reference, self.drift, self.steps = reference, drift, steps
        _check_turn(drift, g)
        begun = reference.start if isinstance(reference, MoserFlow) else None
        self.start = None if markers else start or begun
        self.markers = markers or self._own_markers(start, marker_mesh, quadrature_degree)
        self.walled = walled(drift, g.mesh, layer)
        self._jet = _Jet(drift.field, self.walled.factor, g.mesh)
        self.times = np.linspace(0.0, drift.t1, steps + 1)
        self.norms = np.array([self._reference_norm(t) for t in self.times])
        self._scales = (tracking or L2Tracking()).scales(self.norms)
        self._path: _Path | None = None

    def squares(self, weights: Array) -> Array:
        """Squared errors of all levels, ``(steps + 1,)``. Collective."""
        return self._run(weights).squares

    def other_costs(self, weights: Array) -> Array:
        """Costs beside the tracking: none."""
        return np.zeros(0)

    def derivative(self, weights: Array) -> Array:
        """Derivative in the weights of half the scaled sum of squares, flat. Collective."""
        scales = self._scales
        theta, h = weights.reshape(self.drift.pieces, -1), self.drift.t1 / self.steps
        path, dual = self._run(weights), np.zeros((self.drift.pieces, theta.shape[1]))
        sx, sj = self._cost_dual(path, self.steps, scales)
        for n in range(self.steps - 1, -1, -1):
            k, total, later = self._piece(n), sx.copy(), np.zeros_like(sx)
            points = [x for x, _, _ in self._stages(theta[k], path.x[n])]
            for i in (3, 2, 1, 0):
                sv = h * (B[i] * sx + A[i + 1] * later if i < 3 else B[i] * sx)
                part, later = self._jet.vjp(theta[k], points[i], sv, h * B[i] * sj)
                dual[k] += part
                total += later
            cost_x, cost_j = self._cost_dual(path, n, scales)
            sx, sj = total + cost_x, sj + cost_j
        comm = self.elements.comm  # rank 0's sum on all, so that all bits agree
        return comm.bcast(comm.reduce(dual, root=0), root=0).ravel()

    def tangent(self, weights: Array, direction: Array) -> float:
        """Derivative of half the scaled sum of squares along a direction. Collective."""
        scales = self._scales
        pieces, h = self.drift.pieces, self.drift.t1 / self.steps
        theta, dtheta = weights.reshape(pieces, -1), direction.reshape(pieces, -1)
        path, total = self._run(weights), 0.0
        dx, dj = np.zeros_like(path.x[0]), np.zeros_like(path.log_j[0])
        for n in range(self.steps):
            k, start, dv = self._piece(n), dx.copy(), np.zeros_like(dx)
            for i, (x, _, _) in enumerate(self._stages(theta[k], path.x[n])):
                dv, dd = self._jet.jvp(theta[k], x, dtheta[k], start + h * A[i] * dv)
                dx, dj = dx + h * B[i] * dv, dj + h * B[i] * dd
            sx, sj = self._cost_dual(path, n + 1, scales)
            total += float(np.sum(sx * dx) + sj @ dj)
        return self.elements.sum(total)

    def trajectory(self, weights: Array) -> Flow:
        """Markers and densities along them at all levels, read-only. Collective."""
        path = self._run(weights)
        x, log_j = read_only(path.x), read_only(path.log_j)
        return Flow(self.markers, self.times, x, log_j, self.steps)

    def mass_and_minimum(self, weights: Array) -> tuple[Array, Array]:
        """Mass and smallest density at a marker of all levels, ``(steps + 1,)``. Collective."""
        flow = self.trajectory(weights)
        return flow.mass, flow.minimum

    tags: tuple[int, ...] = ()  # no wall absorbs

    def absorbed(self, weights: Array) -> Array:
        """Nothing, ``(steps + 1, 0)``."""
        return np.zeros((self.steps + 1, 0))

    def warnings(self, weights: Array) -> tuple[str, ...]:
        """None: markers keep their mass and its sign."""
        return ()

    def fingerprint(self) -> dict[str, Any]:
        """What must agree for weights of one run to be those of another. Collective."""
        g, markers, scaled = self.elements, self.markers, self.drift.scaled
        y, w = scaled(g.points), g.quadrature_weights
        return of_field(g, self.drift) | {
            "sigma": 0.0,
            "scheme": "characteristics",
            "layer": self.walled.factor.layer,
            "labels": self.elements.comm.allreduce(len(markers.points)),
            "start_norm": float(markers.integral(markers.density**2)[0]),
            "start_moment": moment(
                g.comm, scaled(markers.points), markers.volumes * markers.density
            ),
            "reference_norm": float(self.norms[self.steps // 2]),
            "reference_moments": [
                moment(g.comm, y, w * self._reference_values(t)) for t in self.times[[0, -1]]
            ],
        }

    def settings(self) -> dict[str, Any]:
        """What else a record should say."""
        return {}

    # -- inner parts ---------------------------------------------------------------------------

    def _own_markers(
        self, start: fem.Function | None, mesh: Mesh | None, degree: int | None
    ) -> Markers:
        g, source = self.elements, self._moving
        if start is not None:
            check_density("start", start, g)
            source = MeshReference(Frozen(g, start.x.array))
        if degree is None:
            degree = max(2 * g.degree + 2, g.quadrature_degree)
        fine = Elements(g.space if mesh is None else lagrange(mesh, 1), degree)
        rho = source.at(0.0, fine.points)[0]
        points, w, walls = fine.points, fine.quadrature_weights, Wall.of(g.mesh)
        return Markers(g.comm, points, w, rho, walls, 0, periodic_of(g.mesh))

    def _piece(self, n: int) -> int:
        return n * self.drift.pieces // self.steps

    def _reference_norm(self, t: float) -> float:
        g = self.elements
        return g.sum(float(g.quadrature_weights @ self._reference_values(t) ** 2))

    def _reference_values(self, t: float) -> Array:
        """At the quadrature points of the mesh."""
        g, r = self.elements, self.reference
        if isinstance(r, MoserFlow):
            return g.evaluate(r.coefficients(t)).ravel()
        return r.at(t, g.points)[0]

    def _stages(self, weights: Array, x: Array) -> Iterator[tuple[Array, Array, Array]]:
        """Stage positions of a step, with drift and divergence there."""
        h, v = self.drift.t1 / self.steps, np.zeros_like(x)
        for a in A:
            stage = x + h * a * v
            v, divergence = self._jet.rate(weights, stage)
            yield stage, v, divergence

    def _run(self, weights: Array) -> _Path:
        """The forward run at these weights; the last one is remembered."""
        if self._path is not None and self._path.key == weights.tobytes():
            return self._path
        theta, h = weights.reshape(self.drift.pieces, -1), self.drift.t1 / self.steps
        markers, shape = self.markers, (self.steps + 1, *self.markers.points.shape)
        x, slope = np.empty((2, *shape))
        log_j, value = np.empty((2, *shape[:2]))
        x[0], log_j[0], cells = markers.points, 0.0, None
        for n in range(self.steps + 1):
            here = wrapped(self.elements.mesh, x[n])
            value[n], slope[n], cells = self._moving.at(float(self.times[n]), here, cells)
            if n < self.steps:
                stages = list(self._stages(theta[self._piece(n)], x[n]))
                x[n + 1] = x[n] + h * sum(b * v for b, (_, v, _) in zip(B, stages, strict=True))
                log_j[n + 1] = log_j[n] + h * sum(
                    b * d for b, (_, _, d) in zip(B, stages, strict=True)
                )
                with collective_errors(self.elements.comm):
                    self._check_inside(n + 1, x[n + 1])
        error = markers.density * np.exp(-log_j) - value
        squares = markers.integral(error**2 * np.exp(log_j))
        self._path = _Path(weights.tobytes(), x, log_j, value, slope, squares)
        return self._path

    def _check_inside(self, n: int, x: Array) -> None:
        outside = np.flatnonzero(self.walled.factor.outside(x))
        if outside.size:
            raise LeftDomain(
                f"{outside.size} markers left the domain at t = {self.times[n]:g}, the first at "
                f"{x[outside[0]]}: the drift is too fast for steps = {self.steps}. Use more steps "
                "or a wider layer, or start from smaller weights."
            )

    def _cost_dual(self, path: _Path, n: int, scales: Array) -> tuple[Array, Array]:
        """Derivatives of the cost in positions ``(N, d)`` and log J ``(N,)`` of level ``n``."""
        rho, j, r = self.markers.density, np.exp(path.log_j[n]), path.value[n]
        scale = 0.5 * scales[n] * self.markers.volumes
        sx = (2.0 * scale * (r * j - rho))[:, None] * path.slope[n]
        return sx, scale * (r**2 * j - rho**2 / j)


def _check_turn(drift: ParametricDrift, g: Elements) -> None:
    """Refuse a field that jumps at periodic sides, whatever its weights. Collective."""
    if (periodic := periodic_of(g.mesh)) is None:
        return
    with collective_errors(g.comm):
        weights = np.random.default_rng(0).standard_normal(drift.field.size)
        if periodic.jump(lambda x: drift.field.values(weights, x)) > JUMP:
            raise ValueError(
                f"drift's field, a {type(drift.field).__name__}, is not periodic in "
                f"{', '.join(periodic.names)}: without noise it must be. Give a SmoothField of "
                "periodic functions, or sigma > 0."
            )
