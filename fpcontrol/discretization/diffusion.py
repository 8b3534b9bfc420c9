r"""Noise that depends on place or direction, at the points of a discretization.

To all that steps in time, noise at one time is a ``Diffusivity``: the values of D at the points,
and the drift that the interpretation adds to the one that is sampled (``noise``). Where noise is
one number everywhere it is that number, D, and nothing is added.
"""

from typing import Any, Protocol

from mpi4py import MPI

import numpy as np

from fpcontrol.discretization.edge_tensors import EdgeTensors, PointNoise
from fpcontrol.typing import Array


class Sampler(Protocol):
    """What evaluates noise on one mesh (``noise_sampler``)."""

    @property
    def points(self) -> Array:
        """Where, ``(N, d)``."""

    @property
    def comm(self) -> MPI.Comm:
        """The mesh's communicator."""

    def evaluate(self, t: float) -> tuple[PointNoise, float]:
        """Noise at the points, and the mean of D. Collective."""


class Diffusivity:
    """D at the points of a discretization at one time; equal if they are so by construction.

    Args:
        sampler: Where it comes from.
        t: Time.

    Values are made when they are asked for, all of the following collective then, and those of the
    last time are kept.
    """

    def __init__(self, sampler: Sampler, t: float) -> None:
        self._sampler, self.t = sampler, t

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Diffusivity) and (self._sampler, self.t) == (
            other._sampler,
            other.t,
        )

    def __hash__(self) -> int:
        return hash((id(self._sampler), self.t))

    def values(self) -> Array:
        """D, ``(N,)`` or ``(N, d, d)``, length**2 per time."""
        return self._sampler.evaluate(self.t)[0].diffusivity

    def drift(self) -> Array:
        """What is added to the drift, ``(N, d)``."""
        return self._sampler.evaluate(self.t)[0].drift

    def edges(self) -> EdgeTensors | None:
        """What fluxes along edges are made of, where D is a matrix."""
        return self._sampler.evaluate(self.t)[0].edges

    def size(self) -> float:
        """Mean over the domain and over directions."""
        return self._sampler.evaluate(self.t)[1]

    def along(self, v: Array) -> Array:
        """D along vectors ``(N, d)``, ``(N,)``; never zero, so that it may be divided by."""
        D = self.values()
        if D.ndim > 1:
            squares = np.einsum("nk,nk->n", v, v)
            still = squares == 0.0
            D = np.where(
                still,
                np.einsum("nkk->n", D) / D.shape[1],
                np.einsum("nk,nkl,nl->n", v, D, v) / np.where(still, 1.0, squares),
            )
        return np.maximum(D, 1e-300)

    def near(self, x: Array, v: Array) -> float:
        """``along(v)`` at the point that is nearest to x, the same on all ranks."""
        points, D = self._sampler.points, self.along(v)
        mine = (np.inf, 0.0)
        if len(points):
            distance = ((points - x) ** 2).sum(axis=1)
            mine = float(distance.min()), float(D[int(distance.argmin())])
        return float(min(self._sampler.comm.allgather(mine))[1])


def values_of(diffusivity: float | Diffusivity) -> Any:
    """D as a number or an array at the points."""
    return diffusivity.values() if isinstance(diffusivity, Diffusivity) else diffusivity


def edges_of(diffusivity: float | Diffusivity) -> EdgeTensors | None:
    """What fluxes along edges are made of, where D is a matrix; none where it is a number."""
    return diffusivity.edges() if isinstance(diffusivity, Diffusivity) else None


def size_of(diffusivity: float | Diffusivity) -> float:
    """D, or its mean."""
    return diffusivity.size() if isinstance(diffusivity, Diffusivity) else diffusivity
