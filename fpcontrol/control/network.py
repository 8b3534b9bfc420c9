r"""Networks of limited width whose weights, piecewise constant in time, are the controls."""

import copy
from dataclasses import replace
from typing import Any, NamedTuple, Self

import numpy as np
from dolfinx.mesh import Mesh

from fpcontrol.control.features import Features, Periods, periods_of
from fpcontrol.control.hidden_layer import ACTIVATIONS, SMOOTH, Network
from fpcontrol.control.parametric import (
    ParametricDrift,
    PiecewiseConstant,
    SmoothField,
    bounding_box,
    centre_and_scale,
)
from fpcontrol.control.speed_limit import Motion, SpeedLimit
from fpcontrol.typing import Array


class NetworkField(SmoothField):
    r"""A network in coordinates of order 1: :math:`u(\theta, x) = s\,f_\theta((x - c)/s)`.

    Args:
        network: The network :math:`f_\theta`.
        centre: ``c``, ``(d,)``.
        scale: ``s``, a length.
        limit: Bound on the speed; none unless given.
        periods: Of the axes, lengths, ``(d,)``, infinite where there is none, as unless given: the
            network is given the ``Features`` of the place.
    """

    def __init__(
        self,
        network: Network,
        centre: Array,
        scale: float,
        limit: SpeedLimit | None = None,
        periods: Array | None = None,
    ) -> None:
        self.periods = np.full(len(centre), np.inf) if periods is None else periods
        self.features = Features(self.periods / scale)
        self.network, self.centre, self.scale, self.limit = network, centre, scale, limit
        self.size = network.size
        self._last: tuple[Array, Array] | None = None

    def values(self, theta: Array, x: Array) -> Array:
        """The field, ``(N, d)``."""
        u = self._free(theta, x)
        return (u if self.limit is None else self.limit.values(u)).T

    def check_smooth(self) -> None:
        """Raise a ValueError for an activation without a second derivative."""
        if self.features.periodic:
            raise ValueError(
                "sigma = 0: a network of periodic inputs is not followed along characteristics; "
                "use a problem with noise, or a SmoothField of your own."
            )
        if self.network.activation not in SMOOTH:
            raise ValueError(
                f"activation = {self.network.activation!r} has no second derivative, which "
                f"sigma = 0 needs (of the divergence); choose one of {SMOOTH}."
            )

    def divergence(self, theta: Array, x: Array) -> Array:
        """Divergence, ``(N,)``."""
        if self.features.periodic:
            return self._periodic_divergence(theta, x)
        if self.limit is None:
            return self.network.divergence(theta, self._scaled(x))
        return self.limit.divergence(self._parts(theta, x).motion)

    def jvp(self, theta: Array, x: Array, dtheta: Array) -> Array:
        """Derivative along a direction in the weights, ``(N, d)``."""
        du = self.scale * self.network.jvp(theta, self._scaled(x), dtheta)
        return (du if self.limit is None else self.limit.jvp(self._free(theta, x), du)).T

    def vjp(self, theta: Array, x: Array, s: Array) -> Array:
        """Derivative of ``sum(s * values)`` in the weights, ``(size,)``."""
        s = s.T if self.limit is None else self.limit.jvp(self._free(theta, x), s.T)
        return self.network.vjp(theta, self._scaled(x), self.scale * s)

    def jacobian(self, theta: Array, x: Array) -> Array:
        """Derivatives in all weights, ``(size, N, d)``."""
        du = self.scale * self.network.jacobian(theta, self._scaled(x))
        if self.limit is not None:
            u = self._free(theta, x)
            du = np.stack([self.limit.jvp(u, part) for part in du])
        return du.transpose(0, 2, 1)

    def flow_jvp(self, theta: Array, x: Array, dtheta: Array, dx: Array) -> tuple[Array, Array]:
        """Derivatives of values and divergence along weights and places."""
        f = self._parts(theta, x)
        dw, da, db = self.network.unpack(dtheta)
        dz = f.a @ (dx.T / self.scale) + da @ f.y + db[:, None]
        dc = np.einsum("im,mi->m", dw, f.a) + np.einsum("im,mi->m", f.w, da)
        du = self.scale * (dw @ f.p + f.w @ (f.p1 * dz))
        dd = dc @ f.p1 + f.c @ (f.p2 * dz)
        if self.limit is None:
            return du.T, dd
        out, ahead, u = f.w.T @ f.motion.u, f.a @ f.motion.u, f.motion.u
        d_out, d_ahead = dw.T @ u + f.w.T @ du, da @ u + f.a @ du
        dk = d_out * f.p1 * ahead + out * f.p2 * dz * ahead + out * f.p1 * d_ahead
        dv, dd = self.limit.motion_jvp(f.motion, Motion(du, dd, dk.sum(axis=0)))
        return dv.T, dd

    def flow_vjp(self, theta: Array, x: Array, sv: Array, sd: Array) -> tuple[Array, Array]:
        """Derivatives of ``sum(sv * values) + sum(sd * divergence)`` in weights and places."""
        f, su = self._parts(theta, x), sv.T
        dw, da, s1 = np.zeros_like(f.w), np.zeros_like(f.a), 0.0
        if self.limit is not None:
            su, sd, sk = self.limit.motion_vjp(f.motion, su, sd)
            u = f.motion.u
            out, ahead = f.w.T @ u, f.a @ u
            s_out, s1, s_ahead = sk * f.p1 * ahead, sk * out * ahead, sk * out * f.p1
            dw, da = u @ s_out.T, s_ahead @ u.T
            su = su + f.w @ s_out + f.a.T @ s_ahead
        sf = self.scale * su  # (d, N)
        sz = (f.w.T @ sf) * f.p1 + (f.c[:, None] * sd + s1) * f.p2
        sc = f.p1 @ sd
        dw = dw + sf @ f.p.T + f.a.T * sc
        da = da + sz @ f.y.T + f.w.T * sc[:, None]
        dual = np.concatenate([part.ravel() for part in (dw, da, sz.sum(axis=1))])
        return dual, (f.a.T @ sz).T / self.scale

    def describe(self) -> dict[str, Any]:
        """Width, activation, bound on the speed, and periods if there are any."""
        periods = [p if np.isfinite(p) else None for p in self.periods.tolist()]
        return ({"periodic": periods} if self.features.periodic else {}) | {
            "width": self.network.width,
            "activation": self.network.activation,
            "max_speed": None if self.limit is None else self.limit.c,
        }

    def _free(self, theta: Array, x: Array) -> Array:
        """The field without a bound, ``(d, N)``."""
        u = self.network.values(theta, self._scaled(x))
        u *= self.scale
        return u

    def _periodic_divergence(self, theta: Array, x: Array) -> Array:
        w, a, _ = self.network.unpack(theta)
        act = ACTIVATIONS[self.network.activation]
        y, z = self._coordinates(x), self.network._argument(theta, self._scaled(x))
        slope = act.slope(z, act.value(z))
        units = np.eye(len(y))[:, :, None] * np.ones(y.shape[1])
        ahead = (a @ self.features.along(y, unit) for unit in units)
        pairs = zip(w, ahead, strict=True)
        divergence = sum((row @ (slope * dz) for row, dz in pairs), np.zeros(y.shape[1]))
        if self.limit is None:
            return divergence
        u = self._free(theta, x)
        kappa = ((w.T @ u) * slope * (a @ self.features.along(y, u))).sum(axis=0)
        return self.limit.divergence(Motion(u, divergence, kappa))

    def _parts(self, theta: Array, x: Array) -> "_Parts":
        """What the field at points is made of."""
        w, a, b = self.network.unpack(theta)
        act = ACTIVATIONS[self.network.activation]
        assert act.curvature is not None  # see check_smooth
        y = self._scaled(x)
        z = a @ y + b[:, None]
        p = act.value(z)
        c, p1 = np.einsum("im,mi->m", w, a), act.slope(z, p)
        u = self.scale * (w @ p)
        kappa = np.zeros(0) if self.limit is None else ((w.T @ u) * p1 * (a @ u)).sum(axis=0)
        return _Parts(w, a, y, c, p, p1, act.curvature(z, p), Motion(u, c @ p1, kappa))

    def _scaled(self, x: Array) -> Array:
        """Inputs of the network at ``(N, d)``, ``(k, N)``; of points that cannot change kept."""
        if self._last is not None and self._last[0] is x:
            return self._last[1]
        y = self.features(self._coordinates(x))
        if not x.flags.writeable:
            self._last = x, y
        return y

    def _coordinates(self, x: Array) -> Array:
        """``(x - c)/s``, ``(N, d)`` to ``(d, N)``."""
        return np.ascontiguousarray((x.T - self.centre[:, None]) / self.scale)


class _Parts(NamedTuple):
    """W, A, y, the divergence's weights, the activation with two derivatives, the free field."""

    w: Array
    a: Array
    y: Array
    c: Array
    p: Array
    p1: Array
    p2: Array
    motion: Motion


class NetworkDrift(ParametricDrift):
    r"""Drift :math:`v(t,x) = s\,W(t)\,\varphi(A(t) y + b(t))`, :math:`y = (x - c)/s`.

    ``c`` is the centre of the mesh's bounding box and ``s`` half its longest side, so that weights
    are of order 1 in any unit of length. ``W``, ``A``, ``b`` are constant on ``pieces`` equal
    intervals of ``[0, t1]``. Limited width: ``width`` equal to the dimension. With
    ``max_speed`` the drift is :math:`v/\sqrt{1 + |v|^2/m^2}`, m the bound: in the same direction,
    smooth, and slower than m whatever the weights are. On periodic axes the network is given
    :math:`\cos 2\pi(x_i - c_i)/L_i` and :math:`\sin 2\pi(x_i - c_i)/L_i` in place of
    :math:`y_i` (``periodic``): the drift is smooth through the seam. Collective.

    Args:
        mesh: The mesh, for its dimension and bounding box.
        width: Number of neurons.
        pieces: Number of intervals.
        t1: Last time.
        activation: ``"tanh"``, ``"relu"``, ``"softplus"``, ``"sigmoid"`` or ``"sin"``.
        seed: Seed of the initial weights, normal with deviation 1/4.
        weights: Flat float64 array, ``pieces * network.size``, piece by piece ``W``, ``A``, ``b``;
            drawn with ``seed`` unless given.
        max_speed: Bound on the speed, length per time; none unless given. Layers at walls are then
            at least ``D / max_speed`` thick, cell Peclet numbers at most ``max_speed h / (2 D)``.
        periodic: Periods of the axes, a length or ``None`` for each; those of the mesh unless
            given. ``False`` for none, on a periodic mesh too: the drift jumps at its seam then.

    Attributes:
        weights: The flat array, a copy of its own.
        network: One piece's ``Network``.
        box: Smallest and largest coordinates of the mesh, ``(d,)`` each.

    Raises:
        ValueError: On all ranks, for a bad argument.
    """

    field: NetworkField

    def __init__(
        self,
        mesh: Mesh,
        width: int = 2,
        pieces: int = 100,
        t1: float = 1.0,
        activation: str = "tanh",
        seed: int = 0,
        weights: Array | None = None,
        max_speed: float | None = None,
        periodic: Periods = None,
    ) -> None:
        if not isinstance(width, int | np.integer) or width < 1:
            raise ValueError(f"width = {width!r} must be a positive integer.")
        if activation not in ACTIVATIONS:
            raise ValueError(
                f"activation = {activation!r} is unknown; choose one of {tuple(ACTIVATIONS)}."
            )
        periods = periods_of(mesh, periodic)
        d = mesh.geometry.dim
        inputs = d + int(np.isfinite(periods).sum())
        self.network, self.seed = Network(d, int(width), activation, inputs), seed
        time = PiecewiseConstant(pieces, float(t1))
        if weights is None:
            rng = np.random.default_rng(seed)
            weights = 0.25 * rng.standard_normal(time.blocks * self.network.size)
        limit = None if max_speed is None else SpeedLimit(max_speed)
        field = NetworkField(self.network, *centre_and_scale(bounding_box(mesh)), limit, periods)
        super().__init__(mesh, field, time, weights)

    def resized(self, width: int, pieces: int) -> Self:
        """The same with another number of neurons and of pieces, and with weights of zero."""
        other = copy.copy(self)
        other.network = replace(self.network, width=width)
        f = self.field
        other.field = NetworkField(other.network, f.centre, f.scale, f.limit, f.periods)
        other.time = PiecewiseConstant(pieces, self.t1)
        other.weights = np.zeros(pieces * other.network.size)
        return other
