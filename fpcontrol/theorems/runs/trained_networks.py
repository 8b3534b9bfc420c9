r"""Networks for a score with one hidden layer, all of whose weights are trained, by scipy alone.

.. math:: \hat s(t, x) = \nabla\log q(x) + \alpha_t\sum_ja_j\tanh(w_j\cdot x + e_j\alpha_t^2 + b_j)

with q the density of the noise and :math:`\alpha_t` the share of the data that is left.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.optimize import minimize

from fpcontrol.noising import Graded, Noised, OrnsteinUhlenbeck
from fpcontrol.quadrature import composite
from fpcontrol.typing import Array

TIMES = 24  # intervals of the clock with a Gauss point each
STEEPNESS = 1.5  # typical length of the w_j before training


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """A score model; not collective.

    Attributes:
        process: The noising process.
        inner: The :math:`w_j`, shape ``(d, n)``.
        tilts: The :math:`e_j`, ``(n,)``.
        offsets: The :math:`b_j`, ``(n,)``.
        outer: The :math:`a_j`, ``(n, d)``.
    """

    process: OrnsteinUhlenbeck
    inner: Array
    tilts: Array
    offsets: Array
    outer: Array

    @classmethod
    def trained(
        cls, data: Noised, width: int, *, iterations: int, points: int = 300, seed: int = 0
    ) -> Self:
        r"""Score matching with the exact score: at most so many iterations of L-BFGS.

        .. math:: \min\ \tfrac12\int g^2\,E|\hat s - \nabla\log p_t|^2\,dt

        from random features whose last layer is fitted, which is what no iterations leave.

        Args:
            data: Noised data.
            width: Number n of neurons.
            iterations: Of all weights together.
            points: Drawn at each time.
            seed: Of the features and the points.
        """
        process: OrnsteinUhlenbeck = data.process  # type: ignore[assignment]  # made with this one
        rng, d = np.random.default_rng(seed), data.data.dimension
        clock = Graded(process)
        rows = []
        for k, (u, w) in enumerate(
            zip(*composite(np.linspace(0.0, 1.0, TIMES + 1), 1), strict=True)
        ):
            t = clock.noising_time(u)
            x = data.density(t).sample(points, seed=1000 * seed + k)
            alpha = np.full(points, process.scale(t))
            share = 0.5 * w * clock.rate(u) * process.sigma(t) ** 2 / points
            target = data.values(t, x) - process.prior(d).score(x)
            rows.append((x, alpha, np.full(points, share), target))
        x, alpha, share, target = (np.concatenate(parts) for parts in zip(*rows, strict=True))

        inner = STEEPNESS * rng.standard_normal((d, width)) / np.sqrt(d)
        tilts, offsets = rng.standard_normal(width), rng.uniform(-2.0, 2.0, width)
        hidden = alpha[:, None] * np.tanh(x @ inner + np.outer(alpha**2, tilts) + offsets)
        root = np.sqrt(share)[:, None]
        outer = np.linalg.lstsq(root * hidden, root * target, rcond=1e-8)[0]
        shapes = [part.shape for part in (inner, tilts, offsets, outer)]
        ends = np.cumsum([np.prod(shape) for shape in shapes])[:-1]

        def parts(weights: Array) -> list[Array]:
            pieces = np.split(weights, ends)
            return [a.reshape(shape) for a, shape in zip(pieces, shapes, strict=True)]

        def loss(weights: Array) -> tuple[float, Array]:
            w, e, b, a = parts(weights)
            y = np.tanh(x @ w + np.outer(alpha**2, e) + b)
            gap = alpha[:, None] * (y @ a) - target
            slope = (2.0 * share * alpha)[:, None] * gap
            back = (slope @ a.T) * (1.0 - y**2)
            gradient = (x.T @ back, alpha**2 @ back, back.sum(axis=0), y.T @ slope)
            return float(share @ (gap**2).sum(axis=1)), np.concatenate(
                [g.ravel() for g in gradient]
            )

        start = np.concatenate([part.ravel() for part in (inner, tilts, offsets, outer)])
        if iterations:
            options = {"maxiter": iterations, "maxfun": 10 * iterations, "maxcor": 20}
            start = minimize(loss, start, jac=True, method="L-BFGS-B", options=options).x
        return cls(process, *parts(start))

    @property
    def size(self) -> int:
        """Number of weights."""
        return self.inner.size + self.tilts.size + self.offsets.size + self.outer.size

    def values(self, t: float, x: Array) -> Array:
        """Score at points, ``(N, d)``."""
        alpha, y = self.process.scale(t), self._hidden(t, x)
        return self.process.prior(x.shape[1]).score(x) + alpha * (y @ self.outer)

    def divergence(self, t: float, x: Array) -> Array:
        """Its divergence, ``(N,)``."""
        along = (self.inner.T * self.outer).sum(axis=1)
        alpha, y = self.process.scale(t), self._hidden(t, x)
        return self.process.prior(x.shape[1]).score_divergence(x) + alpha * ((1.0 - y**2) @ along)

    def _hidden(self, t: float, x: Array) -> Array:
        alpha = self.process.scale(t)
        return np.tanh(x @ self.inner + alpha**2 * self.tilts + self.offsets)
