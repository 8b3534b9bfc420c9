"""One hidden layer of neurons: its values and derivatives, in coordinates of order 1."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

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

    ``W`` has shape ``(d, m)``, ``A`` ``(m, k)``, ``b`` ``(m,)``. The weights of one network are one
    flat array ``W, A, b``, each row by row. Inputs are given component by component, ``y`` of shape
    ``(k, N)``, as are values, ``(d, N)``.

    Args:
        dimension: ``d``.
        width: Number of neurons ``m``.
        activation: One of ``ACTIVATIONS``; ``relu`` has no second derivative, so gradients in its
            weights hold only almost everywhere.
        inputs: ``k``; the dimension unless given.
    """

    dimension: int
    width: int
    activation: str
    inputs: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "inputs", self.inputs or self.dimension)

    @property
    def size(self) -> int:
        """Number of weights, ``m (d + k + 1)``."""
        return self.width * (self.dimension + self.inputs + 1)

    def unpack(self, weights: Array) -> tuple[Array, Array, Array]:
        """Views ``W (..., d, m)``, ``A (..., m, k)``, ``b (..., m)`` of ``weights (..., size)``."""
        d, k, m, lead = self.dimension, self.inputs, self.width, weights.shape[:-1]
        w, a = weights[..., : d * m], weights[..., d * m : (d + k) * m]
        return w.reshape(*lead, d, m), a.reshape(*lead, m, k), weights[..., (d + k) * m :]

    def values(self, weights: Array, y: Array) -> Array:
        """``f(y)``, shape ``(d, N)``."""
        w, _, _ = self.unpack(weights)
        result = np.empty((self.dimension, y.shape[1]))
        for i in self._blocks(y):
            p = self._activation.value(self._argument(weights, y[:, i]))
            np.matmul(w, p, out=result[:, i])
        return result

    def divergence(self, weights: Array, y: Array) -> Array:
        """``sum_i df_i/dy_i``, shape ``(N,)``, where the inputs are the coordinates."""
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

    def jacobian(self, weights: Array, y: Array) -> Array:
        """Derivatives of ``f(y)`` in all weights, ``(size, d, N)``."""
        d, k, m = self.dimension, self.inputs, self.width
        w, _, _ = self.unpack(weights)
        z = self._argument(weights, y)
        p = self._activation.value(z)
        result = np.zeros((self.size, d, y.shape[1]))
        outer, inner, shift = np.split(result, [d * m, (d + k) * m])
        for i in range(d):
            outer[i * m : (i + 1) * m, i] = p
        np.multiply(w.T[:, :, None], self._activation.slope(z, p)[:, None], out=shift)
        np.multiply(shift[:, None], y[None, :, None], out=inner.reshape(m, k, d, -1))
        return result

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
