"""Scores written in other libraries."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fpcontrol.typing import Array

BLOCK = 4096  # points at a time in PyTorch: little memory


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


class TorchScore:
    r"""A score in PyTorch, in double precision on the CPU. Needs PyTorch. It never communicates.

    Weights are copied to the CPU as float64, points come as float64 tensors: what a network learned
    in float32 is kept to the last digit, and evaluated more accurately than it was trained. Tensors
    that ``function`` makes itself must follow (``torch.zeros_like(x)``, ``module.double()``). A
    module ``net`` is handed over by ``torch.func.functional_call``::

        TorchScore(lambda w, t, x: functional_call(net, w, (t, x)), dict(net.named_parameters()))

    Args:
        function: ``function(weights, t, x)``, of one point ``(d,)`` and a tensor t without
            dimensions: the score ``(d,)``, or a number, the logarithm of the density, whose
            gradient is the score. ``torch.func`` must be able to differentiate it.
        weights: Dicts, lists and tuples of tensors, arrays or numbers, handed on as the first
            argument.

    Raises:
        ImportError: If PyTorch is not installed.
        ValueError: If weights are something else, or, at the first values, if ``function`` returns
            another shape.

    Attributes:
        size: Number of weights; in ``vjp`` they are in the order of dicts and lists.
    """

    def __init__(self, function: Callable[[Any, Any, Any], Any], weights: Any = ()) -> None:
        try:
            import torch
        except ImportError as error:
            raise ImportError(
                "TorchScore needs PyTorch: pip install 'fpcontrol[score-torch]'"
            ) from error
        self._torch, self._function = torch, function
        self._weights = _mapped(self._doubled, weights)
        self.size = sum(w.numel() for w in _leaves(self._weights))

    def values(self, t: float, x: Array) -> Array:
        """Score at points, ``(N, d)``."""
        return self._asked(self._one, t, x).reshape(np.shape(x))

    def divergence(self, t: float, x: Array) -> Array:
        """Its divergence by forward differentiation, ``(N,)``."""
        return self._asked(self._trace, t, x)

    def vjp(self, t: float, x: Array, s: Array) -> Array:
        """Derivative of ``sum(s * values(t, x))`` in the weights, ``(size,)``."""
        total = np.zeros(self.size)
        for first in range(0, len(x) if self.size else 0, BLOCK):
            given = [self._doubled(a[first : first + BLOCK]) for a in (x, s)]
            slopes = self._torch.func.grad(self._paired)(self._weights, self._doubled(t), *given)
            total += np.concatenate([w.numpy().ravel() for w in _leaves(slopes)])
        return total

    def _asked(self, one: Callable, t: float, x: Array) -> Array:
        many = self._torch.func.vmap(one, (None, None, 0))
        blocks = [self._doubled(x[first : first + BLOCK]) for first in range(0, len(x), BLOCK)]
        with self._torch.no_grad():
            found = [many(self._weights, self._doubled(t), y).numpy() for y in blocks]
        return np.concatenate(found) if found else np.zeros(0)

    def _doubled(self, value: Any) -> Any:
        torch = self._torch
        try:
            tensor = value if torch.is_tensor(value) else torch.tensor(np.asarray(value))
            return tensor.detach().to("cpu", torch.float64, copy=True)
        except (TypeError, ValueError, RuntimeError):
            raise ValueError(
                f"weights: {value!r} is no tensor, array or number; hand on dicts, lists and "
                "tuples of these."
            ) from None

    def _one(self, weights: Any, t: Any, x: Any) -> Any:
        value, back = self._torch.func.vjp(lambda y: self._function(weights, t, y), x)
        if value.shape not in (x.shape, ()):
            raise ValueError(
                f"function returned shape {tuple(value.shape)} for x of shape {tuple(x.shape)}."
            )
        return value if value.shape else back(self._torch.ones_like(value))[0]

    def _trace(self, weights: Any, t: Any, x: Any) -> Any:
        return self._torch.func.jacfwd(lambda y: self._one(weights, t, y))(x).trace()

    def _paired(self, weights: Any, t: Any, x: Any, s: Any) -> Any:
        values = self._torch.func.vmap(self._one, (None, None, 0))(weights, t, x)
        return (s * values).sum()


def _mapped(f: Callable[[Any], Any], tree: Any) -> Any:
    """A tree of dicts, lists and tuples with a function of each leaf."""
    if isinstance(tree, Mapping):
        return {key: _mapped(f, value) for key, value in tree.items()}
    return [_mapped(f, value) for value in tree] if isinstance(tree, list | tuple) else f(tree)


def _leaves(tree: Any) -> list[Any]:
    found: list[Any] = []
    _mapped(found.append, tree)
    return found
