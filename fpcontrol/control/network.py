r"""Networks of limited width whose weights, piecewise constant in time, are the controls."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from dolfinx.mesh import Mesh
from scipy.special import expit

from fpcontrol.control.parametric import (
    ParametricDrift,
    PiecewiseConstant,
    SmoothField,
    bounding_box,
    centre_and_scale,
)
from fpcontrol.typing import Array

# Numbers in the hidden layer of one block of points: 256 KiB, so that the few such arrays in use
# stay in the second-level cache. Whole layers of wide networks ran at the speed of page faults.
BLOCK = 2**15


@dataclass(frozen=True)
class Activation:
    """A function with its derivatives, those from ``z`` and the function's value there.

    Attributes:
        value: The function.
        slope: Its first derivative.
        curvature: Its second derivative; ``None`` where there is none.
    """

    value: Callable[[Array], Array]
    slope: Callable[[Array, Array], Array]
    curvature: Callable[[Array, Array], Array] | None


ACTIVATIONS = {
    "tanh": Activation(np.tanh, lambda z, p: 1.0 - p * p, lambda z, p: -2.0 * p * (1.0 - p * p)),
    "relu": Activation(lambda z: np.maximum(z, 0.0), lambda z, p: (z > 0.0).astype(float), None),
    "softplus": Activation(
        lambda z: np.logaddexp(0.0, z), lambda z, p: expit(z), lambda z, p: expit(z) * expit(-z)
    ),
    "sigmoid": Activation(
        expit, lambda z, p: p * (1.0 - p), lambda z, p: p * (1.0 - p) * (1.0 - 2.0 * p)
    ),
    "sin": Activation(np.sin, lambda z, p: np.cos(z), lambda z, p: -p),
}
SMOOTH = tuple(name for name, a in ACTIVATIONS.items() if a.curvature)


@dataclass(frozen=True)
class Network:
    r"""One hidden layer: :math:`f(y) = W\varphi(A y + b)`.

    ``W`` has shape ``(d, m)``, ``A`` ``(m, d)``, ``b`` ``(m,)``. The weights of one network are one
    flat array ``W, A, b``, each row by row. Points are given component by component, ``y`` of shape
    ``(d, N)``, as are values.

    Args:
        dimension: ``d``.
        width: Number of neurons ``m``.
        activation: One of ``ACTIVATIONS``; ``relu`` has no second derivative, so gradients in its
            weights hold only almost everywhere.
    """

    dimension: int
    width: int
    activation: str

    @property
    def size(self) -> int:
        """Number of weights, ``m (2 d + 1)``."""
        return self.width * (2 * self.dimension + 1)

    def unpack(self, weights: Array) -> tuple[Array, Array, Array]:
        """Views ``W (..., d, m)``, ``A (..., m, d)``, ``b (..., m)`` of ``weights (..., size)``."""
        d, m, lead = self.dimension, self.width, weights.shape[:-1]
        w, a = weights[..., : d * m], weights[..., d * m : 2 * d * m]
        return w.reshape(*lead, d, m), a.reshape(*lead, m, d), weights[..., 2 * d * m :]

    def values(self, weights: Array, y: Array) -> Array:
        """``f(y)``, shape ``(d, N)``."""
        w, _, _ = self.unpack(weights)
        result = np.empty_like(y)
        for i in self._blocks(y):
            p = self._activation.value(self._argument(weights, y[:, i]))
            np.matmul(w, p, out=result[:, i])
        return result

    def divergence(self, weights: Array, y: Array) -> Array:
        """``sum_i df_i/dy_i``, shape ``(N,)``."""
        w, a, _ = self.unpack(weights)
        z = self._argument(weights, y)
        slope = self._activation.slope(z, self._activation.value(z))
        return np.einsum("im,mi->m", w, a) @ slope

    def vjp(self, weights: Array, y: Array, s: Array) -> Array:
        """Derivative of ``sum(s * f(y))`` in the weights, shape ``(size,)``, for ``s (d, N)``."""
        w, _, _ = self.unpack(weights)
        result = np.zeros_like(weights)
        for i in self._blocks(y):
            z = self._argument(weights, y[:, i])
            p = self._activation.value(z)
            dz = self._activation.slope(z, p)
            dz *= w.T @ s[:, i]
            parts = s[:, i] @ p.T, dz @ y[:, i].T, dz.sum(axis=1)
            result += np.concatenate([part.ravel() for part in parts])
        return result

    def jvp(self, weights: Array, y: Array, direction: Array) -> Array:
        """Derivative of ``f(y)`` along a direction in the weights, shape ``(d, N)``."""
        w, _, _ = self.unpack(weights)
        dw, da, db = self.unpack(direction)
        z = self._argument(weights, y)
        p = self._activation.value(z)
        return dw @ p + w @ (self._activation.slope(z, p) * (da @ y + db[:, None]))

    @property
    def _activation(self) -> Activation:
        return ACTIVATIONS[self.activation]

    def _blocks(self, y: Array) -> list[slice]:
        """Slices of the points that fit the cache."""
        count = max(BLOCK // self.width, 1)
        return [slice(i, i + count) for i in range(0, y.shape[1], count)]

    def _argument(self, weights: Array, y: Array) -> Array:
        """``A y + b``, shape ``(m, N)``."""
        _, a, b = self.unpack(weights)
        z = a @ y
        z += b[:, None]
        return z


class NetworkField(SmoothField):
    r"""A network in coordinates of order 1: :math:`v(\theta, x) = s\,f_\theta((x - c)/s)`.

    Args:
        network: The network :math:`f_\theta`.
        centre: ``c``, ``(d,)``.
        scale: ``s``, a length.
    """

    def __init__(self, network: Network, centre: Array, scale: float) -> None:
        self.network, self.centre, self.scale = network, centre, scale
        self.size = network.size
        self._last: tuple[Array, Array] | None = None

    def values(self, theta: Array, x: Array) -> Array:
        """The field, ``(N, d)``."""
        v = self.network.values(theta, self._scaled(x))
        v *= self.scale
        return v.T

    def check_smooth(self) -> None:
        """Raise a ValueError for an activation without a second derivative."""
        if self.network.activation not in SMOOTH:
            raise ValueError(
                f"activation = {self.network.activation!r} has no second derivative, which "
                f"sigma = 0 needs (of the divergence); choose one of {SMOOTH}."
            )

    def divergence(self, theta: Array, x: Array) -> Array:
        """Divergence, ``(N,)``."""
        return self.network.divergence(theta, self._scaled(x))

    def jvp(self, theta: Array, x: Array, dtheta: Array) -> Array:
        """Derivative along a direction in the weights, ``(N, d)``."""
        return self.scale * self.network.jvp(theta, self._scaled(x), dtheta).T

    def vjp(self, theta: Array, x: Array, s: Array) -> Array:
        """Derivative of ``sum(s * values)`` in the weights, ``(size,)``."""
        return self.network.vjp(theta, self._scaled(x), self.scale * s.T)

    def flow_jvp(self, theta: Array, x: Array, dtheta: Array, dx: Array) -> tuple[Array, Array]:
        """Derivatives of values and divergence along weights and places."""
        w, a, y, c, p, p1, p2 = self._parts(theta, x)
        dw, da, db = self.network.unpack(dtheta)
        dz = a @ (dx.T / self.scale) + da @ y + db[:, None]
        dc = np.einsum("im,mi->m", dw, a) + np.einsum("im,mi->m", w, da)
        return self.scale * (dw @ p + w @ (p1 * dz)).T, dc @ p1 + c @ (p2 * dz)

    def flow_vjp(self, theta: Array, x: Array, sv: Array, sd: Array) -> tuple[Array, Array]:
        """Derivatives of ``sum(sv * values) + sum(sd * divergence)`` in weights and places."""
        w, a, y, c, p, p1, p2 = self._parts(theta, x)
        sf = self.scale * sv.T  # (d, N)
        sz = (w.T @ sf) * p1 + c[:, None] * p2 * sd
        sc = p1 @ sd
        dual = (sf @ p.T + a.T * sc, sz @ y.T + w.T * sc[:, None], sz.sum(axis=1))
        return np.concatenate([part.ravel() for part in dual]), (a.T @ sz).T / self.scale

    def describe(self) -> dict[str, Any]:
        """Width and activation."""
        return {"width": self.network.width, "activation": self.network.activation}

    def _parts(self, theta: Array, x: Array) -> tuple[Array, ...]:
        """W, A, y, the weights of the divergence, and the activation with two derivatives."""
        w, a, b = self.network.unpack(theta)
        act = ACTIVATIONS[self.network.activation]
        assert act.curvature is not None  # see check_smooth
        y = self._scaled(x)
        z = a @ y + b[:, None]
        p = act.value(z)
        c = np.einsum("im,mi->m", w, a)
        return w, a, y, c, p, act.slope(z, p), act.curvature(z, p)

    def _scaled(self, x: Array) -> Array:
        """``(x - c)/s``, ``(N, d)`` to ``(d, N)``; that of points that cannot change is kept."""
        if self._last is not None and self._last[0] is x:
            return self._last[1]
        y = np.ascontiguousarray((x.T - self.centre[:, None]) / self.scale)
        if not x.flags.writeable:
            self._last = x, y
        return y


class NetworkDrift(ParametricDrift):
    r"""Drift :math:`v(t,x) = s\,W(t)\,\varphi(A(t) y + b(t))`, :math:`y = (x - c)/s`.

    ``c`` is the centre of the mesh's bounding box and ``s`` half its longest side, so that weights
    are of order 1 in any unit of length. ``W``, ``A``, ``b`` are constant on ``pieces`` equal
    intervals of ``[0, t1]``. Limited width: ``width`` equal to the dimension. Collective.

    Args:
        mesh: The mesh, for its dimension and bounding box.
        width: Number of neurons.
        pieces: Number of intervals.
        t1: Last time.
        activation: ``"tanh"``, ``"relu"``, ``"softplus"``, ``"sigmoid"`` or ``"sin"``.
        seed: Seed of the initial weights, normal with deviation 1/4.
        weights: Flat float64 array, ``pieces * width * (2 d + 1)``, piece by piece ``W``, ``A``,
            ``b``; drawn with ``seed`` unless given.

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
    ) -> None:
        if not isinstance(width, int | np.integer) or width < 1:
            raise ValueError(f"width = {width!r} must be a positive integer.")
        if activation not in ACTIVATIONS:
            raise ValueError(
                f"activation = {activation!r} is unknown; choose one of {tuple(ACTIVATIONS)}."
            )
        self.network, self.seed = Network(mesh.geometry.dim, int(width), activation), seed
        time = PiecewiseConstant(pieces, float(t1))
        if weights is None:
            rng = np.random.default_rng(seed)
            weights = 0.25 * rng.standard_normal(time.blocks * self.network.size)
        field = NetworkField(self.network, *centre_and_scale(bounding_box(mesh)))
        super().__init__(mesh, field, time, weights)
