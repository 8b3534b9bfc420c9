"""Noise at the points of a discretization, checked, at any time (``discretization.diffusion``)."""

import warnings
from collections.abc import Iterable
from pathlib import Path

from mpi4py import MPI

import numpy as np

from fpcontrol.discretization.base import SemiDiscretization
from fpcontrol.discretization.diffusion import Diffusivity, size_of
from fpcontrol.discretization.edge_tensors import PointNoise
from fpcontrol.noise import Noise
from fpcontrol.parallel.errors import collective_errors, reduced
from fpcontrol.typing import Array

# Least eigenvalue of D over the largest anywhere, below which there is no noise in a direction.
DEGENERATE = 1e-12
PACKAGE = str(Path(__file__).parents[1])
# Times at which the largest diffusivity of a run is looked for.
LOOKED_AT = 5


class NoiseSampler:
    """Checked diffusivities of a noise at the points of a discretization. Collective.

    Args:
        noise: The noise.
        system: The equation discretized in space.

    Raises:
        ValueError: On all ranks, for noise that the method does not take, and for bad values of
            noise that does not depend on time; others are looked at in a run.
    """

    def __init__(self, noise: Noise, system: SemiDiscretization) -> None:
        self.noise, self.system = noise, system
        self._known: tuple[float, tuple[PointNoise, float]] | None = None
        self._seen = False
        if noise.uniform:
            return
        g, function = system.elements, noise.function
        if function is not None and function.function_space.mesh._cpp_object != g.mesh._cpp_object:
            raise ValueError(
                f"{noise} lives on another mesh than the equation; bring it there first (dolfinx: "
                "Function.interpolate_nonmatching), or give a function of x."
            )
        if noise.steady:
            self.evaluate(0.0)

    @property
    def points(self) -> Array:
        """Where, ``(N, d)``."""
        return self.system.points

    @property
    def comm(self) -> MPI.Comm:
        """The mesh's communicator."""
        return self.system.comm

    def at(self, t: float) -> float | Diffusivity:
        """D at a time: a number where noise is uniform. Not collective."""
        if self.noise.uniform:
            return self.noise.diffusivity(t)
        return Diffusivity(self, 0.0 if self.noise.steady else t)

    def largest(self, diffusivities: Iterable[float | Diffusivity]) -> float:
        """The largest of some, of many that are fields at some times only. Collective."""
        some = list(dict.fromkeys(diffusivities))
        if not self.noise.uniform:
            some = some[:: max(len(some) // LOOKED_AT, 1)]
        return max(map(size_of, some))

    def samples(self, t1: float) -> list[float | str]:
        """What tells two noises apart in a record: at five times of ``[0, t1]``. Collective."""
        if self.noise.uniform:
            return list(self.noise.samples(t1))
        times = [t1 * i / 4 for i in range(1 if self.noise.steady else 5)]
        return [self.noise.interpretation, *(size_of(self.at(t)) for t in times)]

    def evaluate(self, t: float) -> tuple[PointNoise, float]:
        """Noise at the points, and the mean of D. Collective."""
        if self._known is not None and self._known[0] == t:
            return self._known[1]
        if not self._seen and self.noise.by_place and self.noise.interpretation != "divergence":
            self.system.cell_noise.check_continuous(self.noise, t)
        found = self.system.noise_values(self.noise, t)
        D = found.diffusivity
        w, comm, d = self.system.point_weights, self.system.comm, self.system.elements.dimension
        mean = D if D.ndim == 1 else np.einsum("nkk->n", D) / d
        sums = reduced(comm, np.array([w @ mean, w.sum()]))
        if not sums[0] > 0.0:
            raise ValueError(
                f"{self.noise} is zero everywhere: without noise a mesh would add a diffusion of "
                "its own. Give the number 0 where that is taken."
            )
        if not self._seen:
            self._warn_of_degenerate(D, w)
        self._seen = True
        self._known = t, (found, float(sums[0] / sums[1]))
        return self._known[1]

    def _warn_of_degenerate(self, D: Array, w: Array) -> None:
        """Say once if there is no noise at all, or in some direction, in a part of the domain."""
        least, direction = D, ""
        if D.ndim > 1:
            eigenvalues, vectors = np.linalg.eigh(D)
            least, D = eigenvalues[:, 0], eigenvalues[:, -1]
        comm = self.system.comm
        top = float(reduced(comm, np.array(D.max(initial=0.0)), MPI.MAX))
        none = least <= DEGENERATE * top
        share = reduced(comm, np.array([w @ none, w.sum()]))
        first = comm.allgather(int(np.argmax(none)) if none.any() else -1)
        if not share[0] > 0.0:
            return
        rank = next(r for r, i in enumerate(first) if i >= 0)
        where = None
        if comm.rank == rank:
            i = first[rank]
            if least is not D:
                direction = f" along {np.round(np.abs(vectors[i, :, 0]), 3)}"
            where = self.system.points[i], direction
        x, direction = comm.bcast(where, root=rank)
        with collective_errors(comm):  # where warnings are errors
            if comm.rank > 0:
                return
            warnings.warn(
                f"{self.noise} is degenerate: in {share[0] / share[1]:.0%} of the domain, at "
                f"x = {np.round(x, 4)} for one, there is no noise{direction}. Where the drift goes "
                "that way the cell Peclet number |v| h / (2 D) is infinite, and no fineness of the "
                "mesh makes it small: Galerkin elements resolve what the noise of other directions "
                "smooths, and ring at walls that the drift runs into and behind jumps.",
                skip_file_prefixes=(PACKAGE,),
                stacklevel=2,
            )
