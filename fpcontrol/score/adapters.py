"""Scores written in other libraries."""

from collections.abc import Callable
from typing import Any

import numpy as np

from fpcontrol.typing import Array


class JaxScore:
    r"""A score in JAX, in double precision whatever JAX is set to. Needs JAX.

    Compiled once for each number of points. It never communicates.

    Args:
        function: ``function(weights, t, x)``, of one point ``(d,)``: the score ``(d,)``, or a
            number, the logarithm of the density, whose gradient is the score.
        weights: Any tree of arrays, handed on as the first argument.

    Raises:
        ImportError: If JAX is not installed.
        ValueError: At the first values, if ``function`` returns another shape.

    Attributes:
        size: Number of weights.
    """

    def __init__(self, function: Callable[[Any, Any, Any], Any], weights: Any = ()) -> None:
        try:
            import jax
            from jax.flatten_util import ravel_pytree
        except ImportError as error:
            raise ImportError("JaxScore needs JAX: pip install 'fpcontrol[score]'") from error
        self._jax, self._function = jax, function
        with jax.enable_x64(True):
            doubled = jax.tree.map(lambda w: jax.numpy.asarray(w, dtype=float), weights)
            self._weights, self._unravel = ravel_pytree(doubled)
            self.size = int(self._weights.size)
            self._values = jax.jit(jax.vmap(self._one, (None, None, 0)))
            self._divergence = jax.jit(jax.vmap(self._trace, (None, None, 0)))
            self._vjp = jax.jit(jax.grad(self._paired))

    def values(self, t: float, x: Array) -> Array:
        """Score at points, ``(N, d)``."""
        return self._asked(self._values, t, x)

    def divergence(self, t: float, x: Array) -> Array:
        """Its divergence by forward differentiation, ``(N,)``."""
        return self._asked(self._divergence, t, x)

    def vjp(self, t: float, x: Array, s: Array) -> Array:
        """Derivative of ``sum(s * values(t, x))`` in the weights, ``(size,)``."""
        return self._asked(self._vjp, t, x, s)

    def _asked(self, function: Callable, t: float, *arrays: Array) -> Array:
        return self._called(function, float(t), *arrays)

    def _called(self, function: Callable, time: Any, *arrays: Array) -> Array:
        with self._jax.enable_x64(True):
            given = [self._jax.numpy.asarray(a) for a in arrays]
            return np.array(function(self._weights, time, *given))

    def _one(self, weights: Any, t: Any, x: Any) -> Any:
        def named(y: Any) -> Any:
            return self._function(self._unravel(weights), t, y)

        shape = self._jax.eval_shape(named, x).shape
        if shape not in (x.shape, ()):
            raise ValueError(f"function returned shape {shape} for x of shape {x.shape}.")
        return named(x) if shape else self._jax.grad(named)(x)

    def _trace(self, weights: Any, t: Any, x: Any) -> Any:
        slope = self._jax.jacfwd(lambda y: self._one(weights, t, y))(x)
        return self._jax.numpy.trace(slope)

    def _paired(self, weights: Any, t: Any, x: Any, s: Any) -> Any:
        values = self._jax.vmap(self._one, (None, None, 0))(weights, t, x)
        return (s * values).sum()
