"""Heat flow of a few cosines on [0, 1] as noising process, and networks that know its score."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from fpcontrol.noising.line import CosineSeries, entropy
from fpcontrol.quadrature import composite
from fpcontrol.theorems.closed_forms.profiles import inverse
from fpcontrol.typing import Array


@dataclass(frozen=True)
class HeatFlow(CosineSeries):
    """Heat flow of data made of a few cosines.

    Attributes:
        cosines: Coefficients :math:`c_j` of the data by number of half waves j.
        D: Diffusivity.
        t1: How long the noising lasts.
    """

    cosines: Mapping[int, float]
    D: float = 0.1
    t1: float = 1.0

    def __post_init__(self) -> None:
        x = np.linspace(0.0, 1.0, 2001)
        if self.density(0.0, x).min() <= 0.0:
            raise ValueError(f"cosines = {dict(self.cosines)}: the density is not positive.")

    @functools.cached_property
    def waves(self) -> Array:
        """Of the data, ascending."""
        return np.pi * np.array(sorted(self.cosines), dtype=float)

    @functools.cached_property
    def heights(self) -> Array:
        """Coefficients of the data."""
        return np.array([self.cosines[j] for j in sorted(self.cosines)], dtype=float)

    @property
    def decay(self) -> float:
        """How often the fastest wave falls by a factor of e over the noising time."""
        return float(self.D * self.waves[-1] ** 2 * self.t1)

    @property
    def mode(self) -> float:
        """Where the data's density is largest, to 1/2000."""
        x = np.linspace(0.0, 1.0, 2001)
        return float(x[self.density(0.0, x).argmax()])

    def quantile(self, s: float, u: Array) -> Array:
        """Where the distribution function has given values, ``(N,)``, to round-off."""
        x = np.linspace(0.0, 1.0, 1025)
        table = x, self.cumulative(s, x)
        return inverse(partial(self.cumulative, s), partial(self.density, s), u, table)


@dataclass(frozen=True)
class ScoreNetwork:
    """Interpolants on n equal cells, as networks of n hinges make them.

    Attributes:
        flow: Where the nodal values come from.
        n: Number of cells.
        smooth: The score itself is interpolated: continuous. Else the log-density, whose
            derivative is constant in each cell and jumps at the nodes.
    """

    flow: HeatFlow
    n: int
    smooth: bool = False

    @property
    def nodes(self) -> Array:
        """Ends of the cells, ``(n + 1,)``."""
        return np.linspace(0.0, 1.0, self.n + 1)

    def ends(self, s: float) -> tuple[Array, Array]:
        """The network's score at both ends of each cell, ``(n,)`` each."""
        if self.smooth:
            score = self.flow.score(s, self.nodes)
            return score[:-1], score[1:]
        score = np.diff(np.log(self.flow.density(s, self.nodes))) * self.n
        return score, score

    def __call__(self, s: float, x: Array) -> Array:
        """The network's score at points that are not nodes, any shape."""
        left, right = self.ends(s)
        i = np.clip((self.n * x).astype(int), 0, self.n - 1)
        return left[i] + (right - left)[i] * (self.n * x - i)

    def loss(self, steps: int, points: int = 5) -> float:
        r"""Score matching: :math:`J = \int_0^T E_{p_s}|s_n - \partial_x\log p_s|^2\,ds`.

        Gauss quadrature with so many points in each cell and three in each step of time.
        """
        hat, weights = np.polynomial.legendre.leggauss(points)
        x = self.nodes[:-1, None] + (0.5 + 0.5 * hat) / self.n
        total = 0.0
        for s, ds in gauss_times(self.flow.t1, steps):
            error = self(s, x) - self.flow.score(s, x)
            square = (self.flow.density(s, x) * error**2) @ weights
            total += ds * float(square.sum()) * 0.5 / self.n
        return total

    def implicit_loss(self, steps: int, points: int = 5) -> float:
        r"""The same without the score, by parts (Hyvarinen) and by the entropy's dissipation.

        .. math:: J = \int_0^T\Bigl(E_{p_s}s_n^2 - 2\int s_n\,\partial_xp_s\,dx\Bigr)ds
            + \frac{H(p_0) - H(p_T)}{D},\qquad H = \int p\log p
        """
        hat, weights = np.polynomial.legendre.leggauss(points)
        inner, flow, total = 0.5 + 0.5 * hat, self.flow, 0.0
        x = self.nodes[:-1, None] + inner / self.n
        for s, ds in gauss_times(flow.t1, steps):
            left, right = self.ends(s)
            own = left[:, None] + (right - left)[:, None] * inner
            square = float(((flow.density(s, x) * own**2) @ weights).sum()) * 0.5 / self.n
            p, mass = flow.density(s, self.nodes), np.diff(flow.cumulative(s, self.nodes))
            cross = right * p[1:] - left * p[:-1] - (right - left) * self.n * mass
            total += ds * (square - 2.0 * float(cross.sum()))
        return total + (entropy(flow, 0.0) - entropy(flow, flow.t1)) / flow.D

    def worst(self, s: float) -> float:
        """Largest error of the score at a time, over 64 points a cell and both sides of nodes."""
        x = self.nodes[:-1, None] + np.linspace(0.0, 1.0, 65) / self.n
        left, right = self.ends(s)
        own = left[:, None] + (right - left)[:, None] * np.linspace(0.0, 1.0, 65)
        return float(np.abs(own - self.flow.score(s, x)).max())


def gauss_times(t1: float, steps: int) -> list[tuple[float, float]]:
    """Nodes and weights of Gauss quadrature with three points in each of equal steps."""
    times, weights = composite(np.linspace(0.0, t1, steps + 1), 3)
    return list(zip(times.tolist(), weights.tolist(), strict=True))
