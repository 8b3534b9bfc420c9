r"""The tracking problem by finite volumes in JAX: value and gradient compiled, double precision.

Cells as many as linear elements have nodes, central fluxes (the cell Peclet number is far below 1).
``implicit``: Crank-Nicolson as everyone's, each step solved by BiCGStab to the same tolerance; the
derivative goes through the transposed system (``custom_linear_solve``), not through the iteration.
No preconditioner: at dt D/h^2 = 1 the condition is 5, and a sweep of ILU does not vectorize.
``explicit``: Runge-Kutta of order 4 with as few substeps as are stable.
"""

import math
from collections.abc import Callable
from functools import partial
from importlib import metadata
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from peers.problem import Tracking
from peers.worker import Prepared, serve

jax.config.update("jax_enable_x64", True)
# Of the stability region of Runge-Kutta 4 on the negative axis, a little short of its end.
STABLE = 2.75


class Volumes:
    """Cells, fluxes and the two time schemes.

    Args:
        case: The problem.
        scheme: ``implicit`` or ``explicit``.
    """

    def __init__(self, case: Tracking, scheme: str) -> None:
        self.case, self.m = case, case.n + 1
        self.h = 1.0 / self.m
        middles = (np.arange(self.m) + 0.5) * self.h
        faces = np.arange(1, self.m) * self.h
        self._across = [self._scaled(faces, middles), self._scaled(middles, faces)]
        cells = np.meshgrid(middles, middles, indexing="ij")
        start, goal = (f(np.array(cells)) for f in (case.start, case.goal))
        self.start, self.goal = (jnp.asarray(f / f.mean()) for f in (start, goal))
        self._step = {"implicit": self._implicit, "explicit": self._explicit}[scheme]
        limit = 8.0 * case.D / self.h**2 * case.dt
        self.substeps = 1 if scheme == "implicit" else math.ceil(limit / STABLE)

    def cost(self, weights: Any) -> Any:
        """J at weights ``(pieces, 5 width)``."""
        case = self.case

        def step(drift: Any, state: Any, n: Any) -> Any:
            old, before = state
            new = self._step(drift, old, 2.0 * old - before)
            along = (n + 1.0) / case.steps
            error = new - (1.0 - along) * self.start - along * self.goal
            return (new, old), trapezoid[n + 1] * jnp.sum(error * error)

        def piece(state: Any, k: Any) -> Any:
            drift = self.drift(weights[k])
            numbers = k * case.steps_per_piece + jnp.arange(case.steps_per_piece)
            state, squares = lax.scan(partial(step, drift), state, numbers)
            return state, jnp.sum(squares)

        trapezoid = jnp.asarray(case.trapezoid)
        first = (self.start, self.start)
        squares = lax.scan(piece, first, jnp.arange(case.pieces))[1]
        return 0.5 * self.h**2 * jnp.sum(squares)

    def drift(self, weights: Any) -> tuple[Any, Any]:
        """Normal components on the inner faces of both directions."""
        m, s = self.case.width, self.case.scale
        w, a, b = weights[: 2 * m], weights[2 * m : 4 * m], weights[4 * m :]
        w, a = w.reshape(2, m), a.reshape(m, 2)
        found = []
        for k, (y0, y1) in enumerate(self._across):
            # The arguments are sums over the axes: tanh alone works on all faces.
            p = jnp.tanh(a[:, 0, None, None] * y0 + a[:, 1, None, None] * y1 + b[:, None, None])
            found.append(s * jnp.tensordot(w[k], p, axes=1))
        return found[0], found[1]

    def rate(self, drift: tuple[Any, Any], rho: Any) -> Any:
        """Time derivative of the cells' means."""
        q = self.case.D / self.h
        left, right = rho[:-1], rho[1:]
        x = 0.5 * drift[0] * (left + right) - q * (right - left)
        low, high = rho[:, :-1], rho[:, 1:]
        y = 0.5 * drift[1] * (low + high) - q * (high - low)
        x, y = jnp.pad(x, ((1, 1), (0, 0))), jnp.pad(y, ((0, 0), (1, 1)))
        return (x[:-1] - x[1:] + y[:, :-1] - y[:, 1:]) / self.h

    def _implicit(self, drift: Any, rho: Any, guess: Any) -> Any:
        def matrix(u: Any) -> Any:
            return u - 0.5 * self.case.dt * self.rate(drift, u)

        middle = lax.stop_gradient(0.5 * (rho + guess))
        tolerance = self.case.rtol
        u = lax.custom_linear_solve(
            matrix,
            rho,
            solve=lambda apply, b: bicgstab(apply, b, middle, tolerance),
            transpose_solve=lambda apply, b: bicgstab(apply, b, b, tolerance),
        )
        return 2.0 * u - rho

    def _explicit(self, drift: Any, rho: Any, guess: Any) -> Any:
        dt = self.case.dt / self.substeps

        @jax.checkpoint
        @jax.checkpoint  # to compute stages again is faster than to fetch them from memory
        def substep(_: Any, rho: Any) -> Any:
            k1 = self.rate(drift, rho)
            k2 = self.rate(drift, rho + 0.5 * dt * k1)
            k3 = self.rate(drift, rho + 0.5 * dt * k2)
            k4 = self.rate(drift, rho + dt * k3)
            return rho + dt / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4)

        return lax.fori_loop(0, self.substeps, substep, rho)

    def _scaled(self, x: np.ndarray, y: np.ndarray) -> tuple[Any, Any]:
        c, s = self.case.centre, self.case.scale
        return jnp.asarray((x - c) / s)[:, None], jnp.asarray((y - c) / s)[None, :]


def bicgstab(apply: Callable[[Any], Any], b: Any, x: Any, tolerance: float) -> Any:
    """BiCGStab (van der Vorst 1992) from ``x`` down to a residual relative to ``b``."""
    dot = partial(jnp.vdot, precision=lax.Precision.HIGHEST)
    limit = tolerance**2 * dot(b, b)

    def going(state: Any) -> Any:
        r, k = state[1], state[-1]
        return (dot(r, r) > limit) & (k < 200)

    def iterate(state: Any) -> Any:
        x, r, p, rho, k = state
        q = apply(p)
        alpha = rho / dot(shadow, q)
        s = r - alpha * q
        t = apply(s)
        omega = dot(t, s) / dot(t, t)
        x, r = x + alpha * p + omega * s, s - omega * t
        new = dot(shadow, r)
        p = r + (new / rho) * (alpha / omega) * (p - omega * q)
        return x, r, p, new, k + 1

    shadow = r = b - apply(x)
    return lax.while_loop(going, iterate, (x, r, r, dot(r, r), 0))[0]


def prepare(arguments: dict[str, Any]) -> Prepared:
    """Compile value and gradient."""
    case = Tracking(**arguments["problem"])
    volumes = Volumes(case, arguments["scheme"])
    weights = [jnp.asarray(case.weights(i)) for i in range(arguments["rounds"] + 1)]
    value = jax.jit(volumes.cost)
    both = jax.jit(jax.value_and_grad(volumes.cost))
    value(weights[0]).block_until_ready()
    cost, gradient = both(weights[0])
    np.save(arguments["derivative"], np.asarray(gradient))
    facts = {
        "value": float(cost),
        "substeps": volumes.substeps,
        "versions": {name: metadata.version(name) for name in ("jax", "jaxlib", "numpy")},
    }
    return facts, {
        "value": lambda i: value(weights[i]).block_until_ready(),
        "both": lambda i: jax.block_until_ready(both(weights[i - 1])),
    }


if __name__ == "__main__":
    serve(prepare)
