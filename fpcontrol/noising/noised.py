"""Mixtures of Gaussians, noised: densities and scores in closed form."""

from typing import Protocol

from fpcontrol.noising.mixture import GaussianMixture
from fpcontrol.noising.reversal import Process
from fpcontrol.typing import Array


class Transition(Process, Protocol):
    """A process whose transitions are Gaussian."""

    def scale(self, t: float) -> float:
        """Factor of the data."""

    def variance(self, t: float) -> float:
        """Variance of the noise."""

    def prior(self, dimension: int) -> GaussianMixture:
        """What a sampler starts from."""


class Noised:
    """A mixture of Gaussians and what a process makes of it; a score model, the exact one.

    Args:
        process: With ``scale`` and ``variance``.
        data: The mixture.

    Raises:
        ValueError: For other data.
    """

    def __init__(self, process: Transition, data: GaussianMixture) -> None:
        if not isinstance(data, GaussianMixture):
            raise ValueError(f"data = {data!r}: a GaussianMixture is needed.")
        self.process, self.data = process, data

    def __repr__(self) -> str:
        return f"<Noised: {self.data} by {self.process}>"

    def density(self, t: float) -> GaussianMixture:
        """The density at a noising time; ``density(t)(x)`` are its values at ``(N, d)``."""
        return self.data.noised(self.process.scale(t), self.process.variance(t))

    def score(self, t: float, x: Array) -> Array:
        """Its score, ``(N, d)``."""
        return self.density(t).score(x)

    values = score

    def divergence(self, t: float, x: Array) -> Array:
        """Divergence of the score, ``(N,)``."""
        return self.density(t).score_divergence(x)
