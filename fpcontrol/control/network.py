r"""Networks of limited width whose weights, piecewise constant in time, are the controls."""

from collections.abc import Callable
from dataclasses import dataclass

from mpi4py import MPI

import numpy as np
from dolfinx.mesh import Mesh
from scipy.special import expit

from fpcontrol.drift.base import Drift
from fpcontrol.parallel.errors import collective_errors, reduced
from fpcontrol.typing import Array

# Numbers in the hidden layer of one block of points: 256 KiB, so that the few such arrays in use
# stay in the second-level cache. Whole layers of wide networks ran at the speed of page faults.
BLOCK = 2**15


@dataclass(frozen=True)
class Activation:
    """A function and its derivative, the latter from ``z`` and the function's value there."""

    value: Callable[[Array], Array]
    slope: Callable[[Array, Array], Array]


ACTIVATIONS = {
    "tanh": Activation(np.tanh, lambda z, p: 1.0 - p * p),
    "relu": Activation(lambda z: np.maximum(z, 0.0), lambda z, p: (z > 0.0).astype(float)),
    "softplus": Activation(lambda z: np.logaddexp(0.0, z), lambda z, p: expit(z)),
    "sigmoid": Activation(expit, lambda z, p: p * (1.0 - p)),
    "sin": Activation(np.sin, lambda z, p: np.cos(z)),
}


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


class NetworkDrift(Drift):
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
        for name, value in (("width", width), ("pieces", pieces)):
            if not isinstance(value, int | np.integer) or value < 1:
                raise ValueError(f"{name} = {value!r} must be a positive integer.")
        if not (np.isfinite(t1) and t1 > 0):
            raise ValueError(f"t1 = {t1!r} must be a positive finite time.")
        if activation not in ACTIVATIONS:
            raise ValueError(
                f"activation = {activation!r} is unknown; choose one of {tuple(ACTIVATIONS)}."
            )
        d = mesh.geometry.dim
        x = mesh.geometry.x[:, :d]
        low = reduced(mesh.comm, x.min(axis=0, initial=np.inf), MPI.MIN)
        high = reduced(mesh.comm, x.max(axis=0, initial=-np.inf), MPI.MAX)
        self.box = low, high
        self.centre, self.scale = 0.5 * (low + high), 0.5 * float((high - low).max())
        self.mesh, self.pieces, self.t1, self.seed = mesh, int(pieces), float(t1), seed
        self.network = Network(d, int(width), activation)
        with collective_errors(mesh.comm):
            self.weights = (
                self._initial_weights(seed)
                if weights is None
                else self.check_weights(weights).copy()
            )

    def with_weights(self, weights: Array) -> "NetworkDrift":
        """The same network with other weights. Collective."""
        n = self.network
        return NetworkDrift(
            self.mesh, n.width, self.pieces, self.t1, n.activation, self.seed, weights
        )

    def check_weights(self, weights: Array) -> Array:
        """Weights as a flat float64 array of the right length, or a ValueError."""
        weights = np.asarray(weights, dtype=float).ravel()
        n = self.pieces * self.network.size
        if weights.size != n:
            raise ValueError(
                f"weights has {weights.size} entries; {n} are needed (pieces = {self.pieces} "
                f"times {self.network.size} of a network of width {self.network.width} in "
                f"dimension {self.network.dimension})."
            )
        if not np.isfinite(weights).all():
            raise ValueError(
                f"weights has {(~np.isfinite(weights)).sum()} entries that are not finite, the "
                f"first at {np.flatnonzero(~np.isfinite(weights))[0]}."
            )
        return weights

    @property
    def switches(self) -> Array:
        """Times at which the weights may jump, ``(pieces - 1,)``."""
        return np.linspace(0.0, self.t1, self.pieces + 1)[1:-1]

    def piece(self, t: float) -> int:
        """Number of the interval that holds ``t``; the last one holds ``t1`` too.

        Raises:
            ValueError: If ``t`` is outside ``[0, t1]``.
        """
        if not 0.0 <= t <= self.t1 * (1.0 + 1e-12):
            raise ValueError(f"t = {t!r} is outside [0, t1 = {self.t1:g}].")
        return min(int(t / self.t1 * self.pieces), self.pieces - 1)

    def piece_weights(self, t: float) -> Array:
        """Weights of the interval that holds ``t``, a view."""
        return self.weights.reshape(self.pieces, -1)[self.piece(t)]

    def __call__(self, t: float, x: Array) -> Array:
        """Drift at points, ``(N, d)`` to ``(N, d)``, length per time."""
        return self.values(t, x)

    def values(self, t: float, x: Array) -> Array:
        """Drift at points, ``(N, d)`` to ``(N, d)``, length per time."""
        return self.scale * self.network.values(self.piece_weights(t), self.scaled(x)).T

    def divergence(self, t: float, x: Array) -> Array:
        """Divergence of the drift at points ``(N, d)``, shape ``(N,)``, one over time."""
        return self.network.divergence(self.piece_weights(t), self.scaled(x))

    def vjp(self, t: float, x: Array, s: Array) -> Array:
        """Derivative of ``sum(s * v(t, x))`` in the weights of the piece at ``t``; a rank's part.

        Args:
            t: Time.
            x: Points, ``(N, d)``.
            s: Dual values, ``(N, d)``.
        """
        return self.network.vjp(self.piece_weights(t), self.scaled(x), self.scale * s.T)

    def jvp(self, t: float, x: Array, direction: Array) -> Array:
        """Derivative of the drift along a direction in one piece's weights, ``(N, d)``."""
        return self.scale * self.network.jvp(self.piece_weights(t), self.scaled(x), direction).T

    def scaled(self, x: Array) -> Array:
        """Coordinates ``y = (x - c)/s`` component by component, ``(N, d)`` to ``(d, N)``."""
        return np.ascontiguousarray((x.T - self.centre[:, None]) / self.scale)

    def _initial_weights(self, seed: int) -> Array:
        rng = np.random.default_rng(seed)
        return 0.25 * rng.standard_normal(self.pieces * self.network.size)
