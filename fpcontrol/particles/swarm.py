"""What a simulation of particles returns: positions over time, and exits. Plain data."""

from dataclasses import dataclass, field

from mpi4py import MPI

import numpy as np

from fpcontrol.particles.domain import Domain
from fpcontrol.typing import Array


@dataclass(frozen=True)
class Exits:
    """Particles of this rank that absorbing walls have taken, ``m`` of them, by time.

    Attributes:
        particles: Their numbers among this rank's, ``(m,)``.
        times: When they left, ``(m,)``.
        points: Where, on the wall, ``(m, d)``.
        tags: Tags of the walls, ``(m,)``; 1 where a marker names them.
    """

    particles: Array
    times: Array
    points: Array
    tags: Array

    def __len__(self) -> int:
        return len(self.times)


@dataclass(frozen=True, repr=False, eq=False)
class Swarm:
    """Particles at time levels; this rank's share. Nothing communicates when it is read.

    ``swarm[i]`` are the positions ``(n, d)`` at ``times[i]``, nan for particles that have left;
    ``len`` is the number of levels kept, iteration goes through them.

    Attributes:
        comm: Communicator whose ranks share the particles.
        domain: The mesh, on this rank whole.
        times: Times of the levels kept, ``(levels,)``.
        levels: Positions at these times, each ``(n, d)``.
        cells: The cell of ``domain`` that holds each at the last time, ``(n,)``.
        collisions: Number of reflections at walls of each, ``(n,)``.
        exits: Those that absorbing walls have taken.
        first: Number of this rank's first particle among all.
        total: Number of particles of all ranks.
        seed: Of the random numbers.
        steps: Steps done, of the random numbers: a run that goes on has this as ``step0``.
    """

    comm: MPI.Comm
    domain: Domain = field(repr=False)
    times: Array
    levels: tuple[Array, ...]
    cells: Array
    collisions: Array
    exits: Exits
    first: int
    total: int
    seed: int
    steps: int

    def __len__(self) -> int:
        return len(self.times)

    def __getitem__(self, i: int) -> Array:
        """Positions at a level kept, ``(n, d)``."""
        return self.levels[i]

    @property
    def points(self) -> Array:
        """Positions at the last time, ``(n, d)``."""
        return self.levels[-1]

    @property
    def alive(self) -> Array:
        """Which have not left, ``(n,)``."""
        return np.isfinite(self.levels[-1]).all(axis=1)

    def gather(self, level: int = -1) -> Array:
        """Positions of all particles on every rank, in their order, ``(total, d)``. Collective."""
        return np.concatenate(self.comm.allgather(self.levels[level]))

    def __repr__(self) -> str:
        mine = "" if self.comm.size == 1 else f", {len(self.points)} on rank {self.comm.rank}"
        left = f", {len(self.exits)} have left" if len(self.exits) else ""
        left += " (of this rank's)" if left and mine else ""
        return (
            f"Swarm: {self.total} particles{mine}, t = {self.times[0]:g} ... {self.times[-1]:g}, "
            f"{len(self)} levels kept{left}"
        )
