r"""Tracking without noise (sigma = 0) along characteristics, and its discrete adjoint.

.. math:: \dot X = v,\quad \frac{d}{dt}\log J = \nabla\cdot v,\qquad
    v(t,x) = g(x)\,s\,f(y),\quad \nabla\cdot v = g\,\nabla_y\cdot f + s\,\nabla g\cdot f

with a network ``f`` and a factor ``g`` that vanishes at the walls, by the classical Runge-Kutta
method of order 4.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from dolfinx import fem
from dolfinx.mesh import Mesh
from scipy.spatial import cKDTree
from scipy.special import expit

from fpcontrol.characteristics import Flow, Labels, Wall
from fpcontrol.control.network import ACTIVATIONS, Network, NetworkDrift
from fpcontrol.control.tracking import Errors
from fpcontrol.drift import Drift
from fpcontrol.fokker_planck import check_density, check_steps
from fpcontrol.galerkin import Array, Galerkin, lagrange
from fpcontrol.parallel import together
from fpcontrol.reference import MoserFlow

# Second derivatives of the activations, from z and the function's value; relu has none.
CURVATURES: dict[str, Callable[[Array, Array], Array]] = {
    "tanh": lambda z, p: -2.0 * p * (1.0 - p * p),
    "softplus": lambda z, p: expit(z) * expit(-z),
    "sigmoid": lambda z, p: p * (1.0 - p) * (1.0 - 2.0 * p),
    "sin": lambda z, p: -p,
}


class WallFactor:
    r"""Smooth factor that vanishes at the walls of a convex domain and is near 1 inside.

    .. math:: g = \tanh(\omega/\ell),\qquad \omega = \Bigl(\sum_i s_i^{-2}\Bigr)^{-1/2}

    with the distances ``s_i`` to the planes of the walls: intervals, boxes, convex polygons and
    polyhedra. Near one wall ``omega`` is the distance. Collective.

    Args:
        mesh: Mesh of the domain.
        layer: The length ``l``.

    Raises:
        ValueError: On all ranks, if ``layer`` is not positive or the domain is not convex.
    """

    def __init__(self, mesh: Mesh, layer: float) -> None:
        if not (np.isfinite(layer) and layer > 0.0):
            raise ValueError(f"layer = {layer!r} must be a positive length.")
        wall = Wall.of(mesh)
        points, normals = (np.concatenate(mesh.comm.allgather(a)) for a in vars(wall).values())
        size = np.ptp(points, axis=0).max()
        offsets = np.einsum("nd,nd->n", points - points[0], normals)
        # Facets of one wall differ by round-off.
        keys = np.round(np.column_stack([normals, offsets / size]), 8)
        first = np.unique(keys + 0.0, axis=0, return_index=True)[1]
        self.layer, self._normals = float(layer), normals[first]
        self._offsets = offsets[first] + normals[first] @ points[0]
        self._smallest = 1e-14 * size
        if (points @ self._normals.T - self._offsets).max() > 1e-8 * size:
            raise ValueError(
                "The wall factor is offered on convex domains only (intervals, boxes, convex "
                "polygons); this mesh has a re-entrant corner. Use sigma > 0 on it."
            )

    def __call__(self, x: Array) -> tuple[Array, Array, Array]:
        """``g (N,)``, its gradient ``(N, d)`` and Hessian ``(N, d, d)`` at points ``(N, d)``."""
        s = np.maximum(self._offsets - x @ self._normals.T, self._smallest)  # (N, planes)
        omega = 1.0 / np.sqrt((s**-2).sum(axis=1))
        ratio = omega[:, None] / s
        slope = -(ratio**3) @ self._normals
        outer = slope[:, :, None] * slope[:, None, :]
        turn = outer - np.einsum("ni,id,ie->nde", ratio**4, self._normals, self._normals)
        g = np.tanh(omega / self.layer)
        first = (1.0 - g * g) / self.layer
        second = -2.0 * g * first / self.layer
        curvature = second[:, None, None] * outer + (3.0 * first / omega)[:, None, None] * turn
        return g, first[:, None] * slope, curvature


@dataclass(frozen=True)
class Walled:
    """A drift multiplied by a ``WallFactor``; see ``walled``."""

    drift: Any
    factor: WallFactor

    def __getattr__(self, name: str) -> Any:
        """The drift's ``pieces`` and ``t1``, if it has them."""
        if name in ("pieces", "t1"):
            return getattr(self.drift, name)
        raise AttributeError(name)

    def __call__(self, t: float, x: Array) -> Array:
        """Drift at points, ``(N, d)``."""
        return self.factor(x)[0][:, None] * self.drift(t, x)

    def divergence(self, t: float, x: Array) -> Array:
        """By the product rule, ``(N,)``."""
        g, slope, _ = self.factor(x)
        inner = np.einsum("nd,nd->n", slope, self.drift(t, x))
        return g * self.drift.divergence(t, x) + inner


def walled(drift: Drift, mesh: Mesh, layer: float | None = None) -> Walled:
    r"""A drift that is neither tangent nor inward at the walls, multiplied by a wall factor.

    :math:`g v`, :math:`\nabla\cdot(g v) = g\nabla\cdot v + v\cdot\nabla g`. The whole drift
    vanishes at the walls, not its normal part alone: labels there stay. Collective.

    Args:
        drift: A drift with ``divergence(t, x)``.
        mesh: Mesh of a convex domain.
        layer: Thickness of the layer in which the drift is slowed down; an eighth of the longest
            side of the bounding box unless given.

    Raises:
        ValueError: On all ranks, as ``WallFactor``, or if the drift has no divergence.
    """
    if not hasattr(drift, "divergence"):
        raise ValueError("walled needs a drift that has a method divergence(t, x).")
    return Walled(drift, WallFactor(mesh, NetworkDrift(mesh).scale / 4 if layer is None else layer))


class MeshReference:
    """A reference that lives on a mesh, at points that move across the ranks. Collective.

    Every rank keeps the whole mesh (about 250 bytes a triangle, 500 a tetrahedron) and one
    vector of coefficients, and walks from each point's last cell to the next by barycentric
    coordinates. Exact for the finite-element function.

    Args:
        reference: With ``galerkin`` and ``coefficients(t)``, as ``MoserFlow``.
    """

    def __init__(self, reference: MoserFlow) -> None:
        self.reference, self._g = reference, reference.galerkin
        g, d = self._g, self._g.dimension
        geometry = g.mesh.geometry
        nodes = geometry.dofmaps[0][: g.n_cells]
        numbers = geometry.index_map().local_to_global(nodes.ravel().astype(np.int32))
        dofs = g.index_map.local_to_global(g.dofs.T.ravel().astype(np.int32))
        parts = (
            geometry.x[nodes][:, :, :d],
            numbers.reshape(nodes.shape),
            dofs.reshape(g.n_cells, -1),
        )
        corners, numbers, self._dofs = (np.concatenate(g.comm.allgather(a)) for a in parts)
        self._origin = corners[:, 0]
        self._inverse = np.linalg.inv((corners[:, 1:] - corners[:, :1]).transpose(0, 2, 1))
        self._middles = cKDTree(corners.mean(axis=1))
        # Facet k of a cell is opposite to its node k; two cells of one facet are neighbours.
        facets = np.stack([np.delete(numbers, k, axis=1) for k in range(d + 1)], axis=1)
        rows = np.sort(facets.reshape(-1, d), axis=1)
        order = np.lexsort(rows.T)
        twins = np.flatnonzero((rows[order[1:]] == rows[order[:-1]]).all(axis=1))
        one, two = order[twins], order[twins + 1]
        neighbours = np.full(len(rows), -1)
        neighbours[one], neighbours[two] = two // (d + 1), one // (d + 1)
        self._neighbours = neighbours.reshape(-1, d + 1)

    def __call__(self, t: float, x: Array) -> Array:
        """Values at points anywhere in the domain, ``(N, d)`` to ``(N,)``."""
        return self.at(t, x)[0]

    def at(self, t: float, x: Array, cells: Array | None = None) -> tuple[Array, Array, Array]:
        """Values ``(N,)``, gradients ``(N, d)`` and cells of points.

        Args:
            t: Time.
            x: Points of this rank, ``(N, d)``.
            cells: Where each walk starts; the cell with the nearest middle unless given.

        Raises:
            ValueError: On all ranks, if a point is outside the domain.
        """
        g = self._g
        owned = self.reference.coefficients(t)[: g.n_owned]
        u = np.concatenate(g.comm.allgather(owned))
        with together(g.comm):
            cells = self._middles.query(x)[1] if cells is None else cells
            cells, hat = self._walk(np.asarray(cells), x)
        table = g.space.element.basix_element.tabulate(1, hat)[:, :, :, 0]
        value, *slopes = np.einsum("kni,ni->kn", table, u[self._dofs[cells]])
        return value, np.einsum("an,nak->nk", slopes, self._inverse[cells]), cells

    def _shares(self, cells: Array, x: Array) -> Array:
        hat = np.einsum("nak,nk->na", self._inverse[cells], x - self._origin[cells])
        return np.column_stack([1.0 - hat.sum(axis=1), hat])

    def _walk(self, cells: Array, x: Array) -> tuple[Array, Array]:
        """Cells that hold the points, and reference coordinates there."""
        cells = cells.copy()
        moving = np.arange(len(x))
        for _ in range(len(self._origin) + 1):
            shares = self._shares(cells[moving], x[moving])
            shares[self._neighbours[cells[moving]] < 0] = np.inf  # no way through a wall
            k = shares.argmin(axis=1)
            go = shares[np.arange(len(k)), k] < -1e-12
            moving = moving[go]
            if not len(moving):
                break
            cells[moving] = self._neighbours[cells[moving], k[go]]
        shares = self._shares(cells, x)
        for i in np.flatnonzero(shares.min(axis=1) < -1e-9):  # a walk that a corner stopped
            everywhere = self._shares(np.arange(len(self._origin)), x[i])
            cells[i] = everywhere.min(axis=1).argmax()
            shares[i] = everywhere[cells[i]]
        worst = int(shares.min(axis=1).argmin()) if len(x) else 0
        if len(x) and not shares[worst].min() >= -1e-6:
            raise ValueError(f"The point {x[worst]} is outside the domain; use more time steps.")
        shares = np.maximum(shares, 0.0)  # outside by round-off: on the wall
        return cells, shares[:, 1:] / shares.sum(axis=1, keepdims=True)


class AnalyticReference(Protocol):
    """A reference given by formulas, on the domain of the drift's mesh."""

    t1: float

    def at(self, t: float, x: Array, cells: Any = None) -> tuple[Array, Array, Any]:
        """Values ``(N,)`` and gradients ``(N, d)`` at points ``(N, d)``, and ``cells`` as given."""


@dataclass(frozen=True)
class _Jet:
    """Drift and divergence of one piece's weights, with first derivatives in weights and place."""

    network: Network
    drift: NetworkDrift
    factor: WallFactor

    def _parts(self, weights: Array, x: Array) -> tuple[Any, ...]:
        w, a, b = self.network.unpack(weights)
        y = self.drift.scaled(x)
        z = a @ y + b[:, None]
        act = ACTIVATIONS[self.network.activation]
        p = act.value(z)
        c = np.einsum("im,mi->m", w, a)
        return w, a, y, c, p, act.slope(z, p), CURVATURES[self.network.activation](z, p)

    def rate(self, weights: Array, x: Array) -> tuple[Array, Array]:
        """``v (N, d)`` and ``div v (N,)`` at ``x (N, d)``."""
        w, _, _, c, p, p1, _ = self._parts(weights, x)
        g, slope, _ = self.factor(x)
        f, s = (w @ p).T, self.drift.scale
        return s * g[:, None] * f, g * (c @ p1) + s * np.einsum("nd,nd->n", slope, f)

    def jvp(
        self, weights: Array, x: Array, direction: Array, dx: Array
    ) -> tuple[Array, Array]:
        """Derivative of ``rate`` along directions in the weights and in ``x``."""
        w, a, y, c, p, p1, p2 = self._parts(weights, x)
        dw, da, db = self.network.unpack(direction)
        g, slope, curvature = self.factor(x)
        s = self.drift.scale
        dz = a @ (dx.T / s) + da @ y + db[:, None]
        dc = np.einsum("im,mi->m", dw, a) + np.einsum("im,mi->m", w, da)
        f, df = (w @ p).T, (dw @ p + w @ (p1 * dz)).T
        dg, dslope = np.einsum("nd,nd->n", slope, dx), np.einsum("nde,ne->nd", curvature, dx)
        dv = s * (g[:, None] * df + dg[:, None] * f)
        inner = np.einsum("nd,nd->n", slope, df) + np.einsum("nd,nd->n", dslope, f)
        return dv, g * (dc @ p1 + c @ (p2 * dz)) + dg * (c @ p1) + s * inner

    def vjp(self, weights: Array, x: Array, sv: Array, sd: Array) -> tuple[Array, Array]:
        """Derivatives of ``sum(sv * v) + sum(sd * div v)`` in the weights and in ``x``."""
        w, a, y, c, p, p1, p2 = self._parts(weights, x)
        g, slope, curvature = self.factor(x)
        f, s = (w @ p).T, self.drift.scale
        sf = s * (g[:, None] * sv + sd[:, None] * slope).T  # (d, N)
        sn = g * sd  # of the network's own divergence
        sz = (w.T @ sf) * p1 + c[:, None] * p2 * sn
        sc = p1 @ sn
        dual = (sf @ p.T + a.T * sc, sz @ y.T + w.T * sc[:, None], sz.sum(axis=1))
        sg = s * np.einsum("nd,nd->n", f, sv) + (c @ p1) * sd
        sx = (a.T @ sz).T / s + sg[:, None] * slope
        sx += s * np.einsum("nde,ne->nd", curvature, f) * sd[:, None]
        return np.concatenate([part.ravel() for part in dual]), sx


@dataclass(frozen=True)
class _Path:
    """A forward run: labels at all levels, the reference there, squared errors of the levels."""

    key: bytes
    x: Array  # (steps + 1, N, d)
    log_j: Array  # (steps + 1, N)
    value: Array
    slope: Array
    squares: Array


class TransportProblem:
    r"""Track a reference without noise, with a network made tangent at the walls. Collective.

    J is that of ``TrackingProblem``, with norms taken over the labels,

    .. math:: \|\rho - r\|^2 = \int (\rho_0(y)/J - r(t, X))^2\,J\,dy ,

    the drift is ``walled(drift, mesh, layer)``, the steps are those of the classical Runge-Kutta
    method, and the derivative is their discrete adjoint. A reference on a mesh has kinks at the
    faces of its cells: J is piecewise smooth, and differentiated as such. All levels are kept,
    ``(steps + 1) * (2 d + 2)`` numbers a label.

    Args:
        reference: ``MoserFlow``, or an ``AnalyticReference``.
        drift: The network, of a smooth activation.
        steps: Number of time steps, a multiple of the drift's pieces.
        labels: Where characteristics start; the quadrature points of degree ``2 * degree + 2`` of
            the mesh, with the start density, unless given. With an ``AnalyticReference`` they
            carry its density at time 0.
        start: Start density; the reference's own unless given, or the labels'.
        running_weight, terminal_weight, decay: See ``TrackingProblem``.
        layer: See ``walled``.

    Raises:
        ValueError: On all ranks, for an argument that is not as above.
    """

    sigma = 0.0

    def __init__(
        self,
        reference: MoserFlow | AnalyticReference,
        drift: NetworkDrift,
        steps: int,
        *,
        labels: Labels | None = None,
        start: fem.Function | None = None,
        running_weight: float = 1.0,
        terminal_weight: float = 0.0,
        decay: float = 0.0,
        layer: float | None = None,
    ) -> None:
        self.steps = check_steps(steps, drift.pieces)
        self.running_weight, self.terminal_weight, self.decay = (
            _weight(name, value)
            for name, value in (
                ("running_weight", running_weight),
                ("terminal_weight", terminal_weight),
                ("decay", decay),
            )
        )
        if drift.network.activation not in CURVATURES:
            raise ValueError(
                f"activation = {drift.network.activation!r} has no second derivative, which "
                f"sigma = 0 needs (of the divergence); choose one of {tuple(CURVATURES)}."
            )
        if not np.isclose(drift.t1, reference.t1, rtol=1e-12):
            raise ValueError(f"drift.t1 = {drift.t1:g} differs from {reference.t1:g}, reference.t1.")
        self.reference, self.drift = reference, drift
        self.times = np.linspace(0.0, drift.t1, self.steps + 1)
        self._at: Any
        if isinstance(reference, MoserFlow):
            self.galerkin = g = reference.galerkin
            if drift.mesh._cpp_object != g.mesh._cpp_object:
                raise ValueError("drift and reference live on different meshes.")
            if labels is None:
                start = start or reference.start
                check_density("start", start, g)
                labels = Labels.on_mesh(start, 2 * g.degree + 2)
            self._at = MeshReference(reference).at
            mass = g.mass
        else:
            self.galerkin = Galerkin(lagrange(drift.mesh, 2))
        self.labels = labels
