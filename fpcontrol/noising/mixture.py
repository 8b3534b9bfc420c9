r"""Mixtures of Gaussians: data whose noised densities and scores are known in closed form."""

import math
from collections.abc import Sequence

import numpy as np

from fpcontrol.typing import Array


class GaussianMixture:
    r"""The density :math:`\sum_k w_k\,N(m_k, C_k)` in any dimension.

    Values are right to round-off relative to themselves, their logarithms also where they are below
    the smallest number. Not collective.

    Args:
        means: Shape ``(K, d)``; ``(K,)`` on a line.
        covariances: One variance for all, ``(K,)`` variances, or ``(K, d, d)``.
        weights: Positive, ``(K,)``, scaled to sum 1; equal unless given.

    Raises:
        ValueError: For other shapes, or what is no covariance.

    Attributes:
        means: Shape ``(K, d)``.
        covariances: Shape ``(K, d, d)``.
        weights: Shape ``(K,)``.
    """

    def __init__(
        self,
        means: Array | Sequence,
        covariances: Array | Sequence | float,
        weights: Array | Sequence[float] | None = None,
    ) -> None:
        m = np.asarray(means, dtype=float)
        self.means = m = m[:, None] if m.ndim == 1 else m
        if m.ndim != 2 or 0 in m.shape or not np.isfinite(m).all():
            raise ValueError(f"means of shape {m.shape}: (K, d) finite numbers are needed.")
        n, d = m.shape
        c = np.asarray(covariances, dtype=float)
        if c.ndim <= 1:
            if c.shape not in ((), (n,)):
                raise ValueError(f"{len(c)} variances for {n} means.")
            c = np.broadcast_to(c, n)[:, None, None] * np.eye(d)
        if c.shape != (n, d, d) or not np.allclose(c, c.transpose(0, 2, 1)):
            raise ValueError(f"covariances of shape {c.shape}: symmetric ({n}, {d}, {d}) needed.")
        self.covariances = c
        self._lambdas, self._axes = np.linalg.eigh(c)
        if not (np.isfinite(self._lambdas).all() and self._lambdas.min() > 0.0):
            raise ValueError("covariances must be finite and positive definite.")
        w = np.ones(n) if weights is None else np.asarray(weights, dtype=float)
        if w.shape != (n,) or not (np.isfinite(w).all() and w.min() > 0.0):
            raise ValueError(f"weights = {weights!r}: {n} positive numbers are needed.")
        self.weights = w / w.sum()

    def __repr__(self) -> str:
        return f"<GaussianMixture: {len(self.weights)} in {self.dimension}-D>"

    @property
    def dimension(self) -> int:
        """Of the space."""
        return self.means.shape[1]

    def __call__(self, x: Array) -> Array:
        """Density at points, ``(N, d)`` to ``(N,)``."""
        return np.exp(self.log_density(x))

    def log_density(self, x: Array) -> Array:
        """Logarithm of the density, ``(N, d)`` to ``(N,)``."""
        logs = self._parts(x)[0]
        largest = logs.max(axis=0)
        return largest + np.log(np.exp(logs - largest).sum(axis=0))

    def score(self, x: Array) -> Array:
        r""":math:`\nabla\log p`, ``(N, d)`` to ``(N, d)``."""
        shares, slopes = self._shares(x)
        return (shares[:, None] * slopes).sum(axis=0).T

    def score_divergence(self, x: Array) -> Array:
        r""":math:`\Delta\log p`, ``(N, d)`` to ``(N,)``."""
        shares, slopes = self._shares(x)
        squares = (slopes**2).sum(axis=1) - (1.0 / self._lambdas).sum(axis=1)[:, None]
        mean = (shares[:, None] * slopes).sum(axis=0)
        return (shares * squares).sum(axis=0) - (mean**2).sum(axis=0)

    def noised(self, scale: float, variance: float) -> "GaussianMixture":
        """Of ``scale * X + Z``, where X has this density and Z has independent components."""
        if scale == 1.0 and variance == 0.0:
            return self
        other = object.__new__(GaussianMixture)
        other.means, other.weights = scale * self.means, self.weights
        other.covariances = scale**2 * self.covariances + variance * np.eye(self.dimension)
        other._lambdas, other._axes = scale**2 * self._lambdas + variance, self._axes
        return other

    def sample(self, n: int, seed: int = 0) -> Array:
        """Points drawn from it, ``(n, d)``; the same on all ranks."""
        rng = np.random.default_rng(seed)
        k = rng.choice(len(self.weights), n, p=self.weights)
        z = np.sqrt(self._lambdas[k]) * rng.standard_normal((n, self.dimension))
        return self.means[k] + np.einsum("nij,nj->ni", self._axes[k], z)

    def _parts(self, x: Array) -> tuple[Array, Array]:
        """Logarithms of the components with their weights, ``(K, N)``; whitened ``(K, d, N)``."""
        if x.ndim != 2 or x.shape[1] != self.dimension:
            raise ValueError(f"x of shape {x.shape}: (N, {self.dimension}) is needed.")
        # Points last: numpy's inner loops are long then.
        whitening = self._axes.transpose(0, 2, 1) / np.sqrt(self._lambdas)[:, :, None]
        y = whitening @ (x.T - self.means[:, :, None])
        scale = np.log(self.weights) - 0.5 * np.log(self._lambdas).sum(axis=1)
        scale -= 0.5 * self.dimension * math.log(2.0 * math.pi)
        return scale[:, None] - 0.5 * (y**2).sum(axis=1), y

    def _shares(self, x: Array) -> tuple[Array, Array]:
        """Posterior weights of the components, ``(K, N)``, and their scores, ``(K, d, N)``."""
        logs, y = self._parts(x)
        slopes = -(self._axes / np.sqrt(self._lambdas)[:, None]) @ y
        shares = np.exp(logs - logs.max(axis=0))
        return shares / shares.sum(axis=0), slopes
