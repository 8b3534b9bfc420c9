"""Walls of a domain: points and normals there, and drifts made to vanish at them."""

from dataclasses import dataclass
from typing import Self

from mpi4py import MPI

import numpy as np
from dolfinx.mesh import Mesh

from fpcontrol.discretization.boundary import Boundary, Wall
from fpcontrol.discretization.cells import Cells
from fpcontrol.discretization.periodic import periodic_of
from fpcontrol.drift.base import Anywhere, Derived, Drift, OnCells, as_drift, asks_cells
from fpcontrol.drift.divergence import Divergence
from fpcontrol.parallel.communicators import comm_of
from fpcontrol.parallel.errors import collective_errors
from fpcontrol.typing import Array, Field, VectorField


def check_wall(drift: VectorField, t: float, wall: Wall, comm: MPI.Comm, speed: float) -> None:
    """Refuse a drift that points outward at a wall, by 1e-9 of a speed. Collective.

    Args:
        drift: The drift.
        t: When it is asked.
        wall: Where.
        comm: Communicator that the wall is distributed over.
        speed: The domain's size over the time of the run.

    Raises:
        ValueError: On all ranks; the message names the worst point.
    """
    x, normals = wall.points, wall.normals
    with collective_errors(comm):
        outward = np.einsum("nd,nd->n", np.asarray(drift(t, x)), normals) if len(x) else np.zeros(0)
        i = int(outward.argmax()) if len(x) else 0
        if len(x) and not outward[i] <= 1e-9 * speed:
            raise ValueError(
                f"drift points outward at the wall: v.n = {outward[i]:.3g} at x = {x[i]}, "
                f"t = {t:g}. Without noise mass would pile up there. Make it tangent or inward, "
                "or multiply it by a factor that vanishes at the walls (walled(drift, mesh))."
            )


class WallFactor:
    r"""Smooth factor that vanishes at the walls of a domain and is near 1 far from them.

    .. math:: g = \tanh(\omega/\ell)

    with a smooth stand-in ``omega`` for the distance to the walls, equal to it near a wall. On
    convex domains (intervals, boxes, convex polygons) from the distances ``s_i`` to their planes,
    on other polygons from the integral over the walls,

    .. math:: \omega = \Bigl(\sum_i s_i^{-2}\Bigr)^{-1/2},\qquad
        \omega = \pi\Bigl(\int_{\partial\Omega}\frac{dS(z)}{|x-z|^2}\Bigr)^{-1} .

    Every rank keeps all walls, and an evaluation at N points costs N times the number of planes
    or edges. Collective.

    Args:
        mesh: Mesh of the domain.
        layer: The length ``l``; an eighth of the longest side of the bounding box unless given.

    Raises:
        ValueError: On all ranks, if ``layer`` is not positive or the domain is neither convex nor
            of two dimensions.

    References:
        A. Belyaev, P.-A. Fayolle, A. Pasko, Signed Lp-distance fields, Computer-Aided Design 45
        (2013).
    """

    def __init__(self, mesh: Mesh, layer: float | None = None) -> None:
        if layer is not None and not (np.isfinite(layer) and layer > 0.0):
            raise ValueError(f"layer = {layer!r} must be a positive length.")
        boundary = Boundary.of(mesh)
        wall = boundary.quadrature(4)
        parts = boundary.corners, boundary.normals, wall.points, wall.normals
        corners, outward, points, normals = (
            np.concatenate(comm_of(mesh).allgather(part)) for part in parts
        )
        periodic = periodic_of(mesh)
        sides = periodic.lengths if periodic and not len(points) else np.ptp(points, axis=0)
        self.size = float(sides.max())
        self.layer = self.size / 8 if layer is None else float(layer)
        self._walls: _Planes | _Edges | _NoWalls = _NoWalls()
        if not len(points):
            return
        self._walls = planes = _Planes.of(points, normals, self.size)
        if planes.gap(points).min() < -1e-8 * self.size:
            if mesh.topology.dim != 2:
                raise ValueError(
                    "The wall factor is offered on convex domains and in two dimensions; this "
                    "mesh is neither. Use sigma > 0 on it, or a drift tangent to its walls."
                )
            self._walls = _Edges.of(corners, outward, self.size)

    def __call__(self, x: Array) -> tuple[Array, Array]:
        """``g (N,)`` and its gradient ``(N, d)`` at points ``(N, d)``."""
        g, first, slope, _ = self._outer(*self._walls.jet(x, curved=False))
        return g, first[:, None] * slope

    def jet(self, x: Array) -> tuple[Array, Array, Array]:
        """``g``, its gradient and Hessian ``(N, d, d)`` at points ``(N, d)``."""
        g, first, slope, curvature = self._outer(*self._walls.jet(x))
        second = -2.0 * g * first / self.layer
        outer = slope[:, :, None] * slope[:, None, :]
        turn = second[:, None, None] * outer + first[:, None, None] * curvature
        return g, first[:, None] * slope, turn

    def _outer(self, omega: Array, slope: Array, curvature: Array) -> tuple[Array, ...]:
        """``g``, its derivative in omega, and what was given of omega's own."""
        # A marker on a wall stays there: on an edge of two walls, round-off would push it about.
        omega = np.where(np.abs(omega) <= 3.0 * self._walls.smallest, 0.0, omega)
        g = np.tanh(omega / self.layer)
        return g, (1.0 - g * g) / self.layer, slope, curvature

    def outside(self, x: Array) -> Array:
        """Which of the points ``(N, d)`` are beyond the walls by 1e-9 of the size, or nowhere."""
        return ~(self._walls.jet(x, curved=False)[0] >= -1e-9 * self.size)


class _NoWalls:
    """No walls: all sides are periodic."""

    smallest = 0.0

    def jet(self, x: Array, curved: bool = True) -> tuple[Array, Array, Array]:
        """``omega``, infinite, gradient and Hessian."""
        n, d = x.shape
        return np.full(n, np.inf), np.zeros((n, d)), np.zeros((n, d, d) if curved else (0, 0, 0))


@dataclass(frozen=True)
class _Planes:
    """Walls of a convex domain: ``n_i . x <= o_i``."""

    normals: Array
    offsets: Array
    smallest: float

    @classmethod
    def of(cls, points: Array, normals: Array, size: float) -> Self:
        offsets = np.einsum("nd,nd->n", points - points[0], normals)
        # Points of one wall differ by round-off; adding zero makes -0 a 0.
        keys = np.round(np.column_stack([normals, offsets / size]), 8) + 0.0
        first = np.unique(keys, axis=0, return_index=True)[1]
        normals, offsets = normals[first], offsets[first]
        return cls(normals, offsets + normals @ points[0], 1e-14 * size)

    def gap(self, x: Array) -> Array:
        """Distances to the planes, negative beyond, ``(N, planes)``."""
        return self.offsets - x @ self.normals.T

    def jet(self, x: Array, curved: bool = True) -> tuple[Array, Array, Array]:
        """``omega``, gradient, Hessian; beyond one wall analytically continued: negative."""
        s = self.gap(x)
        s[np.abs(s) < self.smallest] = self.smallest
        inverse = 1.0 / s
        omega = 1.0 / np.sqrt(np.einsum("ni,ni->n", inverse, inverse))
        omega[(s < 0.0).any(axis=1)] *= -1.0
        ratio = omega[:, None] * inverse
        cube = ratio * ratio * ratio
        slope = -cube @ self.normals
        if not curved:
            return omega, slope, np.empty((0, 0, 0))
        d = slope.shape[1]
        products = (self.normals[:, :, None] * self.normals[:, None, :]).reshape(-1, d * d)
        turn = slope[:, :, None] * slope[:, None, :]
        turn -= ((cube * ratio) @ products).reshape(-1, d, d)
        return omega, slope, (3.0 / omega)[:, None, None] * turn


@dataclass(frozen=True)
class _Edges:
    """Walls of any polygon: where edges start, tangents, inward normals, lengths."""

    starts: Array
    tangents: Array
    normals: Array
    lengths: Array
    smallest: float

    @classmethod
    def of(cls, corners: Array, outward: Array, size: float) -> Self:
        edges = corners[:, 1] - corners[:, 0]
        lengths = np.linalg.norm(edges, axis=1)
        tangents = edges / lengths[:, None]
        normals = np.column_stack([-tangents[:, 1], tangents[:, 0]])
        # Edges run with the domain on their left.
        turned = np.einsum("nd,nd->n", normals, outward) > 0.0
        starts = np.where(turned[:, None], corners[:, 1], corners[:, 0])
        sign = np.where(turned, -1.0, 1.0)[:, None]
        return cls(starts, sign * tangents, sign * normals, lengths, 1e-14 * size)

    def jet(self, x: Array, curved: bool = True) -> tuple[Array, Array, Array]:
        """``omega``, gradient and Hessian, for so many points at once that memory stays small."""
        n = max(1, 500_000 // len(self.starts))
        parts = [self._jet(x[i : i + n]) for i in range(0, max(len(x), 1), n)]
        omega, slope, turn = (np.concatenate(part) for part in zip(*parts, strict=True))
        return omega, slope, turn

    def _jet(self, x: Array) -> tuple[Array, Array, Array]:
        """Of ``W``, the integral of ``1/(t**2 + h**2)`` over edges in their own coordinates."""
        t, n = self.tangents, self.normals
        a = np.einsum("ed,ed->e", self.starts, t) - x @ t.T  # (N, edges)
        h = x @ n.T - np.einsum("ed,ed->e", self.starts, n)
        b = a + self.lengths
        h[np.abs(h) < self.smallest] = self.smallest
        qa, qb = 1.0 / (a * a + h * h), 1.0 / (b * b + h * h)
        angle = np.arctan2(h * self.lengths, a * b + h * h)
        w, cube = angle / h, b * qb - a * qa
        square = 0.5 * (cube + w) / h**2  # the integral of 1/(t**2 + h**2)**2
        # On an edge's continuation these are differences of large numbers: a series instead.
        far = h * h < 1e-4 * np.where(a * b > 0.0, np.minimum(a * a, b * b), 0.0)
        af, bf, e = a[far], b[far], h[far] ** 2
        square[far] = sum(
            c * e**k * (af ** -(2 * k + 3.0) - bf ** -(2 * k + 3.0)) / (2 * k + 3)
            for k, c in enumerate((1.0, -2.0, 3.0, -4.0))
        )
        wt, wh = qa - qb, -2.0 * h * square
        wtt = 2.0 * (a * qa**2 - b * qb**2)
        wth = -2.0 * h * (qa**2 - qb**2)
        whh = 4.0 * square + 2.0 * (b * qb**2 - a * qa**2)
        total, first = w.sum(axis=1), wt @ t + wh @ n
        second = np.einsum("ne,ed,ef->ndf", wtt, t, t) + np.einsum("ne,ed,ef->ndf", whh, n, n)
        mixed = np.einsum("ne,ed,ef->ndf", wth, t, n)
        second += mixed + mixed.transpose(0, 2, 1)
        # The signed angles add up to a full turn inside and to nothing outside.
        omega = np.where(angle.sum(axis=1) > np.pi, np.pi, -np.pi) / total
        slope = -(omega / total)[:, None] * first
        outer = first[:, :, None] * first[:, None, :]
        by = (omega / total)[:, None, None]
        return omega, slope, by * (2.0 * outer / total[:, None, None] - second)


class Walled(Derived):
    """A drift multiplied by a ``WallFactor``; see ``walled``.

    Attributes:
        drift: The drift.
        factor: The factor.
        inner: Divergence of the drift itself.
    """

    def __init__(self, drift: Drift, factor: WallFactor, inner: Divergence) -> None:
        self.drift, self.factor, self.inner = drift, factor, inner

    def __call__(self, t: float, x: Array) -> Array:
        """Drift at points, ``(N, d)``."""
        return self.factor(x)[0][:, None] * self.drift(t, x)

    def on_cells(self, cells: Cells) -> OnCells:
        """Of the drift, times the factor. Collective."""
        own = self.drift.on_cells(cells)
        if not asks_cells(own):
            return Anywhere(self)
        return lambda t, x, c: self.factor(x)[0][:, None] * own(t, x, c)

    def divergence(self, t: float, x: Array) -> Array:
        """By the product rule, ``(N,)``."""
        g, slope = self.factor(x)
        along = np.einsum("nd,nd->n", slope, self.drift(t, x))
        return g * self.inner(t, x) + along


def walled(
    drift: VectorField,
    mesh: Mesh,
    layer: float | None = None,
    *,
    divergence: Field | str | None = None,
) -> Walled:
    r"""A drift that is neither tangent nor inward at the walls, multiplied by a wall factor.

    :math:`g v`, :math:`\nabla\cdot(g v) = g\nabla\cdot v + v\cdot\nabla g`. The whole drift
    vanishes at the walls, not its normal part alone: markers there stay. Collective.

    Args:
        drift: Callable ``drift(t, x)``, ``(N, d)`` to ``(N, d)``.
        mesh: Mesh of the domain.
        layer: Thickness of the layer in which the drift is slowed down, see ``WallFactor``.
        divergence: Of the drift itself, as ``characteristics.carry`` takes it: its own unless
            given, else ``"central"``.

    Raises:
        ValueError: On all ranks, as ``WallFactor``, for another ``divergence``, or for the drift
            of a ``MoserFlow``, which lives on a mesh.
    """
    factor = WallFactor(mesh, layer)
    return Walled(as_drift(drift), factor, Divergence(drift, divergence, factor.size))
