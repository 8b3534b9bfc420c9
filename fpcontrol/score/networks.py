r"""Networks for the logarithm of a noised density, or for its score, in JAX.

With the scale :math:`\alpha`, the variance v, :math:`S = m\alpha^2 + v`, m the mean square of a
coordinate of the data, :math:`\kappa = \alpha\sqrt{m/S}` and :math:`y = x/\sqrt S`, the forms are

============= =============================== ====================================
form          score :math:`\sqrt S\,\hat s`    :math:`\Phi + \tfrac d2\log(2\pi S)`
============= =============================== ====================================
``"plain"``   :math:`N(y)`                    :math:`N(y)`
``"centred"`` :math:`-y + N(y)`               :math:`-\tfrac12|y|^2 + N(y)`
``"damped"``  :math:`-y + \kappa N(y)`        :math:`-\tfrac12|y|^2 + \kappa N(y)`
``"pinned"``  :math:`-y + \kappa N(\kappa y)` :math:`-\tfrac12|y|^2 + N(\kappa y)`
============= =============================== ====================================

with :math:`N = N(c, \kappa, \cdot)`, c the logarithm of the share of the noise in S. The base is
the score of a normal density of that variance. The last is the Foellmer drift of
:math:`z = \kappa y`: :math:`u = N(z)` or :math:`u = \nabla N(z)`, for the data over
:math:`\sqrt m`. Time enters as ``Clock.at(t)``; nothing here needs to know the process.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fpcontrol.noising.processes import Affine
from fpcontrol.score.features import FORMS
from fpcontrol.typing import Array

ACTIVATIONS = ("relu", "softplus", "swish", "tanh")
KINDS = ("log_density", "score")


@dataclass(frozen=True)
class Architecture:
    """What a network looks like, without its weights.

    Attributes:
        kind: ``"log_density"`` or ``"score"``.
        dimension: Of the space.
        hidden: Widths of the hidden layers.
        activation: One of ``ACTIVATIONS``.
        sharpness: The b in the activation :math:`f(bz)/b`.
        form: What of the score the network is: ``"plain"``, ``"centred"``, ``"damped"`` or
            ``"pinned"``, as above.
    """

    kind: str
    dimension: int
    hidden: tuple[int, ...]
    activation: str
    sharpness: float = 1.0
    form: str = "damped"

    def __post_init__(self) -> None:
        for name, value, known in (
            ("kind", self.kind, KINDS),
            ("activation", self.activation, ACTIVATIONS),
            ("form", self.form, FORMS),
        ):
            if value not in known:
                raise ValueError(f"{name} = {value!r}; choose one of {', '.join(known)}.")
        if not self.hidden or not all(isinstance(n, int) and n > 0 for n in self.hidden):
            raise ValueError(f"hidden = {self.hidden!r}: positive widths of layers are needed.")
        if not (math.isfinite(self.sharpness) and self.sharpness > 0.0):
            raise ValueError(f"sharpness = {self.sharpness!r} must be a positive number.")

    @property
    def outputs(self) -> int:
        """Of the last layer."""
        return 1 if self.kind == "log_density" else self.dimension

    def initial(self, seed: int) -> list[tuple[Array, Array]]:
        """Matrices and offsets of the layers, single precision."""
        rng = np.random.default_rng(seed)
        sizes = (2 + self.dimension, *self.hidden, self.outputs)
        gain = 1.0 if self.activation == "tanh" else math.sqrt(2.0)
        layers: list[tuple[Array, Array]] = []
        for n, m in itertools.pairwise(sizes):
            last = len(layers) == len(self.hidden)  # a small correction to begin with
            W = (0.1 if last else gain) / math.sqrt(n) * rng.standard_normal((n, m))
            b = np.zeros(m) if last else rng.uniform(-1.0, 1.0, m)
            layers.append((W.astype(np.float32), b.astype(np.float32)))
        return layers

    def shapes(self) -> list[tuple[tuple[int, int], tuple[int]]]:
        """Of the matrices and offsets."""
        return [(W.shape, b.shape) for W, b in self.initial(0)]

    def output(self, weights: Any, time: Any, x: Any) -> Any:
        r"""The function :math:`\Phi`, ``(N,)``, or :math:`\hat s`, ``(N, d)``, at ``(N, d)``."""
        import jax.numpy as jnp

        base, gain, inner = FORMS[self.form]
        if self.kind == "log_density":
            gain -= inner  # its gradient in x brings the scale of the points
        label, kappa, S = time[:, 0:1], time[:, 1:2], time[:, 2:3]
        z = jnp.concatenate([label, 2.0 * kappa - 1.0, kappa**inner * x / jnp.sqrt(S)], axis=1)
        act = _activation(self.activation, self.sharpness)
        for W, b in weights[:-1]:
            z = act(z @ W + b)
        W, b = weights[-1]
        z = kappa**gain * (z @ W + b)
        if self.kind == "score":
            return z / jnp.sqrt(S) - base * x / S
        S = S[:, 0]
        constant = 0.5 * self.dimension * jnp.log(2.0 * math.pi * S)
        return z[:, 0] - base * (x**2).sum(axis=1) / (2.0 * S) - constant

    def score(self, weights: Any, time: Any, x: Any) -> Any:
        """The score, ``(N, d)``."""
        import jax.numpy as jnp

        if self.kind == "score":
            return self.output(weights, time, x)
        slopes = [_along(lambda y: self.output(weights, time, y), x, i) for i in range(x.shape[1])]
        return jnp.stack(slopes, axis=1)

    def residual(self, weights: Any, time: Any, slope: Any, rate: Any, squares: Any, x: Any) -> Any:
        r"""What is left of the Fokker-Planck equation, for a process :math:`dX = aX\,dt + g\,dW`.

        .. math:: R = \partial_t\Phi + ad + ax\cdot\nabla\Phi
            - \tfrac{g^2}2(\Delta\Phi + |\nabla\Phi|^2)

        or, for a score, the same of :math:`\nabla\Phi = \hat s`, differentiated:
        :math:`\partial_t\hat s + \nabla(\dots)`.

        Args:
            weights: Of the network.
            time: As in ``output``, ``(N, 3)``.
            slope: Its derivative in time.
            rate: The number a, ``(N,)``.
            squares: The square of g, ``(N,)``.
            x: Points, ``(N, d)``.

        Returns:
            ``(N,)``, one over time; of a score ``(N, d)``.
        """
        import jax
        import jax.numpy as jnp

        d = x.shape[1]

        def spatial(y: Any) -> Any:
            s = self.score(weights, time, y)
            trace = sum(
                _along(lambda q: self.score(weights, time, q), y, i)[:, i] for i in range(d)
            )
            noise = 0.5 * squares * (trace + (s**2).sum(axis=1))
            return rate * ((y * s).sum(axis=1) + d) - noise

        moved = jax.jvp(lambda c: self.output(weights, c, x), (time,), (slope,))[1]
        if self.kind == "log_density":
            return moved + spatial(x)
        return moved + jnp.stack([_along(spatial, x, i) for i in range(d)], axis=1)


@dataclass(frozen=True)
class Clock:
    """Time as networks are told it.

    Attributes:
        process: The noising process.
        moment: Mean square of a coordinate of the data, length**2.
        floor: What is added to the variance in the logarithm, length**2.
    """

    process: Affine
    moment: float
    floor: float

    def at(self, t: float) -> Array:
        r"""The label c, scaled to [-1, 1], :math:`\kappa` and S, ``(3,)``."""
        scale, variance = self.process.scale(t), self.process.variance(t)
        S = self.moment * scale**2 + variance
        label = 1.0 + 2.0 * math.log((variance + self.floor) / (S + self.floor)) / self._depth
        return np.array([label, scale * math.sqrt(self.moment / S), S])

    def slope(self, t: float) -> Array:
        """Its derivative in time, ``(3,)``."""
        a, squares, v = self.process.rate(t), self.process.sigma(t) ** 2, self.process.variance(t)
        _, kappa, S = self.at(t)
        grown, total = 2.0 * a * v + squares, 2.0 * a * S + squares
        label = 2.0 * (grown / (v + self.floor) - total / (S + self.floor)) / self._depth
        return np.array([label, -kappa * squares / (2.0 * S), total])

    @property
    def _depth(self) -> float:
        return math.log1p(self.moment / self.floor)


def _along(f: Callable[[Any], Any], x: Any, i: int) -> Any:
    """Derivative of a function of points, one by one, along an axis."""
    import jax
    import jax.numpy as jnp

    return jax.jvp(f, (x,), (jnp.zeros_like(x).at[:, i].set(1.0),))[1]


def _activation(name: str, sharpness: float) -> Callable[[Any], Any]:
    import jax
    import jax.numpy as jnp

    f = {"relu": jax.nn.relu, "softplus": jax.nn.softplus, "swish": jax.nn.silu, "tanh": jnp.tanh}[
        name
    ]
    if sharpness == 1.0 or name == "relu":
        return f
    return lambda z: f(sharpness * z) / sharpness
