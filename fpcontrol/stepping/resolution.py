r"""How well a mesh resolves the drift of a run: its cell Peclet numbers.

.. math:: \mathrm{Pe} = \frac{|v|\,h}{2D},\qquad D = \sigma^2/2

Above 1 layers at walls are thinner than a cell: Galerkin's method rings there, a monotone one is an
upwind method.
"""

from typing import NamedTuple

from mpi4py import MPI

import numpy as np

from fpcontrol.discretization.base import SemiDiscretization, StageDrift
from fpcontrol.parallel.errors import reduced
from fpcontrol.typing import Array

# Drifts of a run that are looked at, one in eight steps of a long one, and a share of their values:
# 1 % of a run of 1e4 unknowns.
DRIFTS, SHARE, LEAST = 32, 10, 512
# Quantiles come from a histogram of the logarithm, so that ranks need not exchange their points.
LOWEST, HIGHEST, PER_DECADE = -8, 12, 100


class CellPeclet(NamedTuple):
    """Cell Peclet numbers of a run, by volume and time.

    Attributes:
        median: Of half the domain they are below this (to 1 %, as ``most``).
        most: Of 99 % of the domain.
        largest: Of what was looked at.
    """

    median: float
    most: float
    largest: float

    def __str__(self) -> str:
        """For tables."""
        return f"{self.median:.2g}, 99 % {self.most:.2g}, max {self.largest:.2g}"


class Resolution:
    """Looks at some of the drifts of a run, each once, and at some values of each.

    At 8 to 32 drifts, evenly spaced in time, or at fewer if there are fewer; at every tenth of a
    rank's cells or edges, others each time, where that are more than 512.

    Args:
        system: The equation discretized in space.
        steps: Number of steps of the run.
        steady: Whether there is one drift only: all of it is looked at.
    """

    def __init__(self, system: SemiDiscretization, steps: int, *, steady: bool = False) -> None:
        self._system = system
        cells = min(len(system.points), system.elements.n_cells)
        self._every = 1 if steady else min(SHARE, cells // LEAST + 1)
        self._apart = steps / min(max(steps // 8, 8), DRIFTS)
        self._seen: list[tuple[Array, Array]] = []
        self._last: object = None

    def see(self, n: int, stage: StageDrift) -> None:
        """Look at the drift of step ``n``, if it is of interest. Not collective."""
        count, key = len(self._seen), (stage.key, stage.diffusivity)
        if n < count * self._apart or key == self._last:
            return
        self._last = key
        values = stage.values()
        self._seen.append(
            self._system.cell_peclet(values, stage.diffusivity, count % self._every, self._every)
        )

    def figures(self) -> CellPeclet:
        """Of all that was seen. Collective."""
        numbers, weights = (np.concatenate(parts) for parts in zip(*self._seen, strict=True))
        with np.errstate(divide="ignore"):
            place = (np.log10(numbers) - LOWEST) * PER_DECADE
        bins = (HIGHEST - LOWEST) * PER_DECADE
        place = np.clip(np.nan_to_num(place, neginf=0.0), 0, bins - 1).astype(int)
        comm = self._system.comm
        below = np.cumsum(reduced(comm, np.bincount(place, weights, minlength=bins)))
        largest = comm.allreduce(float(numbers.max(initial=0.0)), op=MPI.MAX)
        half, most = np.searchsorted(below, np.array([0.5, 0.99]) * below[-1])
        median, high = (
            min(float(10.0 ** (LOWEST + (k + 0.5) / PER_DECADE)), largest) if k else 0.0
            for k in (half, most)
        )
        return CellPeclet(median, high, largest)
