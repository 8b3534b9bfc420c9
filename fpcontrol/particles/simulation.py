r"""Samples of the stochastic differential equation, with walls.

.. math:: dX = v(t, X)\,dt + \sigma\,dW,

reflected along the normal at walls, absorbed by some if asked; with ``sigma = 0`` the ordinary one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from mpi4py import MPI

import numpy as np
from dolfinx.mesh import Mesh, MeshTags

from fpcontrol.discretization.absorbing import Walls, asked_tags
from fpcontrol.discretization.boundary import Boundary
from fpcontrol.discretization.periodic import wrapped
from fpcontrol.drift.base import OnCells, as_drift, asks_cells
from fpcontrol.drift.sampling import check_switches, checked_values
from fpcontrol.noise import Noise, Sigma
from fpcontrol.parallel.communicators import comm_of
from fpcontrol.parallel.errors import collective_errors, reduced
from fpcontrol.parallel.progress import Progress, clock
from fpcontrol.parallel.signals import CollectiveInterrupt, interrupts
from fpcontrol.particles.domain import Domain, positions
from fpcontrol.particles.grid import locate_all
from fpcontrol.particles.noise_on_cells import NoiseOnCells
from fpcontrol.particles.paths import REACH, NearWalls, move
from fpcontrol.particles.random import BLOCK, NOISE, WALL, Streams, blocks, check_seed
from fpcontrol.particles.swarm import Exits, Swarm
from fpcontrol.trajectory import Save, check_steps, kept_levels
from fpcontrol.typing import Array, VectorField

LOOK = 0.25  # seconds between two meetings of the ranks, which look for a Ctrl-C
USUAL = 4.5  # standard deviations of a step: near walls longer ones are followed through cells


class SimulationInterrupt(CollectiveInterrupt):
    """Stopped by Ctrl-C, on all ranks after the same step.

    Attributes:
        swarm: Particles at the levels kept, and at the time reached as the last; ``simulate`` goes
            on from its ``points`` at this time with its ``steps`` as ``step0``.
    """

    swarm: Swarm


class PathScheme(Protocol):
    """How a step is made."""

    @property
    def stages(self) -> int:
        """Evaluations of the drift in a step: 1 or 2."""


@dataclass(frozen=True)
class EulerMaruyama:
    r"""One evaluation of the drift a step, :math:`\Delta X = v\,\Delta t + \sigma\Delta W`.

    Weak order 1, walls included: the whole displacement is mirrored at a wall.

    References:
        M. Bossy, E. Gobet, D. Talay, A symmetrized Euler scheme for an efficient approximation of
        reflected diffusions, J. Appl. Probab. 41 (2004).
    """

    stages: int = 1


@dataclass(frozen=True)
class Heun:
    r"""Two evaluations a step: the drift's mean at the start and at where Euler's step leads.

    .. math:: \Delta X = \tfrac12(v(X) + v(X + v(X)\Delta t + \sigma\Delta W))\Delta t
        + \sigma\Delta W

    Of weak order 2 in the interior for noise that does not depend on place; at walls of order 1
    where the drift has a normal component, as every scheme that mirrors displacements.

    References:
        P. Kloeden, E. Platen, Numerical Solution of Stochastic Differential Equations (1992), 14.2.
    """

    stages: int = 2


def simulate(
    mesh: Mesh,
    drift: VectorField,
    points: Array,
    sigma: Sigma,
    t1: float,
    steps: int,
    *,
    t0: float = 0.0,
    seed: int = 0,
    scheme: PathScheme | None = None,
    absorbing: Walls | None = None,
    facet_tags: MeshTags | None = None,
    save: Save = "last",
    step0: int = 0,
    progress: bool = False,
) -> Swarm:
    """Move particles from ``t0`` to ``t1``. Collective, but no step of it communicates.

    Ranks meet a few times a second: a Ctrl-C ends the run after the same step on all of them.

    Every particle has random numbers of its own, by its number, the seed and the step: paths are
    the same on any number of ranks, to the last bit if the particles come from ``draw`` and the
    drift is not known on the mesh only.

    Every rank holds the whole mesh and a grid over it (250 to 450 bytes a cell of triangles, 600 of
    tetrahedra), and as many particles as it is given. A step that a look at the grid shows to meet
    no wall needs no cells; where the drift or a Function of the noise asks for them, they are
    followed.

    Args:
        mesh: Mesh of intervals, triangles or tetrahedra.
        drift: Any drift of the package, or a callable ``drift(t, x)``, asked in the middle of a
            step's time.
        points: This rank's particles at ``t0``, ``(n, d)``, as ``draw`` returns them.
        sigma: Noise in the sense of Ito, as in ``FokkerPlanck``, where it depends on place or
            direction, too: walls then reflect along the conormal; a Function has to be of
            continuous Lagrange elements on the mesh. Zero for none.
        t1: Last time.
        steps: Number of equal steps; none may straddle a switch of the drift.
        t0: First time.
        seed: From 0 to 2**64 - 1.
        scheme: ``EulerMaruyama()`` unless given, or ``Heun()``.
        absorbing: Walls that absorb, as in ``FokkerPlanck``.
        facet_tags: Tags of facets that ``absorbing`` names.
        save: Levels to keep, as in ``FokkerPlanck.solve``; a level takes ``8 n d`` bytes.
        step0: Number of the first step for the random numbers: a run that goes on from another's
            ``points`` and ``t1`` with its ``steps`` makes the same paths as one run would have.
        progress: Show progress on rank 0.

    Raises:
        ValueError: On all ranks, for a bad argument, points outside the mesh (``LeftDomain``) or
            bad values of the drift.
        SimulationInterrupt: On all ranks after a Ctrl-C, with the swarm that was reached.
    """
    drift, noise, comm = as_drift(drift), Noise(sigma, zero=True), comm_of(mesh)
    scheme = EulerMaruyama() if scheme is None else scheme
    with collective_errors(comm):
        d = mesh.topology.dim
        seed, step0, steps = check_seed(seed), int(step0), check_steps(steps)
        if not 0 <= step0 <= 2**32 - steps:
            raise ValueError(f"step0 = {step0!r} must not be negative, and below 2**32 - steps.")
        if not (np.isfinite([t0, t1]).all() and t1 > t0):
            raise ValueError(f"t1 = {t1!r} must be finite and later than t0 = {t0!r}.")
        if getattr(scheme, "stages", None) not in (1, 2):
            raise ValueError(f"scheme = {scheme!r}; choose EulerMaruyama() or Heun().")
        x = positions(points, d).copy()
        times = t0 + (t1 - t0) * np.arange(steps + 1) / steps
        check_switches(drift, t0, t1, steps)
        kept = kept_levels(save, times)
    boundary = None
    if absorbing is not None or facet_tags is not None:
        tags = asked_tags(absorbing, facet_tags)
        boundary = Boundary.of(mesh, absorbing if callable(absorbing) else facet_tags)
    with collective_errors(comm):
        if not noise.uniform and scheme.stages > 1:
            raise ValueError(f"{scheme} is offered for one number sigma; take EulerMaruyama().")
    domain = Domain.of(mesh) if boundary is None else Domain(mesh, boundary)
    absorbs = np.zeros(len(domain.wall_tags), dtype=bool)
    if boundary is not None:
        absorbs = np.isin(domain.wall_tags, tags) & (domain.beyond < 0)
        if not absorbs.any():
            named = "the marker" if callable(absorbing) else f"{absorbing!r}"
            raise ValueError(f"absorbing: no facet of the boundary is among those of {named}.")
    on_cells, noises = drift.on_cells(domain.cells), NoiseOnCells(noise, domain)
    gone = ~np.isfinite(x).all(axis=1)
    with collective_errors(comm):
        cells = np.zeros(len(x), dtype=np.int64)
        x[~gone] = wrapped(mesh, x[~gone])
        cells[~gone] = domain.find(x[~gone])
    first = int(comm.exscan(len(x)) or 0)
    total = int(comm.allreduce(len(x)))
    dt = (t1 - t0) / steps
    with collective_errors(comm):
        strongest = noises.strongest(0.5 * (times[1:] + times[:-1]))
    near = NearWalls.of(domain, absorbs, REACH * strongest * np.sqrt(dt))
    reach = USUAL * strongest * np.sqrt(dt)
    run = _Run(
        domain, on_cells, noises, scheme.stages, absorbs, near, reach, seed, first, x, cells, gone
    )
    bar = Progress("particles", steps, comm, progress)
    levels = [x.copy()] if kept[0] == 0 else []
    done = 0
    with interrupts() as interrupted:
        for stretch in _stretches(comm, steps, interrupted):
            with collective_errors(comm):
                for n in stretch:
                    run.step(times[n], dt, step0 + n)
                    bar.update()
                    if n + 1 in kept:
                        levels.append(x.copy())
            done = stretch.stop
    bar.close()
    stopped = comm.allreduce(bool(interrupted), op=MPI.LOR)
    reached = kept[kept <= done]
    if stopped and done not in kept:
        reached = np.append(reached, done)
        levels.append(x.copy())
    run.find()
    swarm = Swarm(
        comm,
        domain,
        times[reached],
        tuple(levels),
        cells,
        run.collisions,
        run.exits(),
        first,
        total,
        seed,
        step0 + done,
    )
    if stopped:
        interrupt = SimulationInterrupt(
            f"particles have come to t = {times[done]:g}, after {done} of {steps} steps; the "
            "swarm of this error has them."
        )
        interrupt.swarm = swarm
        raise interrupt
    return swarm


def _stretches(comm: MPI.Comm, steps: int, interrupted: list[int]) -> Iterator[range]:
    """Steps to do until ranks meet, the same on all; none after a Ctrl-C on any. Collective."""
    begin, length = 0, 1
    while begin < steps:
        stretch, begun = range(begin, min(begin + length, steps)), clock()
        yield stretch
        begin = stretch.stop
        here = np.array([bool(interrupted), (clock() - begun) / len(stretch)])
        stop, seconds = reduced(comm, here, MPI.MAX)
        if stop:
            return
        length = max(1, int(LOOK / max(seconds, 1e-6)))


class _Run:
    """Particles on their way; arrays ``x`` and ``cells`` are changed in place."""

    def __init__(
        self,
        domain: Domain,
        drift: OnCells,
        noises: NoiseOnCells,
        stages: int,
        absorbs: Array,
        near: NearWalls,
        reach: float,
        seed: int,
        first: int,
        x: Array,
        cells: Array,
        gone: Array,
    ) -> None:
        self._domain, self._drift, self._stages = domain, drift, stages
        self._noises, self._absent = noises, noises.noise.absent
        self._mesh = domain.origin, domain.inverse, domain.neighbours, domain.clearance
        self._asks = asks_cells(drift) or noises.asks_cells
        followed = np.diff(near.first) > 0
        grid = domain.grid(reach).followed_in(followed | self._asks)
        self._grid = grid.places, grid.fences
        self._walls = domain.wall_cells, domain.wall_corners, domain.wall_normals, absorbs
        self._seams = domain.beyond, domain.shifts, domain.periods
        self._near, self._first = (near.first, near.walls), first
        self._random = Streams(seed)
        self._absorbing = bool(absorbs.any())
        self._no_walls = (np.zeros(len(domain) + 1, dtype=np.int64), near.walls[:0])
        self._none = (*self._walls[:3], np.zeros_like(absorbs))
        self._x, self._cells = x, cells
        self._exited, self._when = np.empty(BLOCK, dtype=np.int64), np.empty(BLOCK)
        self.collisions = np.zeros(len(x), dtype=np.int32)
        self._left, self._some_left = gone, bool(gone.any())
        self._exits: list[tuple[Array, Array, Array, Array]] = []

    def step(self, t: float, dt: float, step: int) -> None:
        """One step of all."""
        d, middle = self._x.shape[1], t + 0.5 * dt
        for block, mine, inside in blocks(self._first, self._first + len(self._x)):
            rows: Any = mine
            if self._some_left:
                rows = mine.start + np.flatnonzero(~self._left[mine])
                if not rows.size:
                    continue
            noise = chance = np.empty((0, 3))
            if not self._absent:
                random = self._random.at(NOISE, step, block)
                noise = random.standard_normal((BLOCK, d))[inside]
            if self._absorbing:
                random = self._random.at(WALL, step, block)
                chance = np.column_stack(
                    [random.random((BLOCK, 2)), random.standard_normal(BLOCK)]
                )[inside]
            if self._some_left:
                kept = rows - mine.start
                noise, chance = (a[kept] if len(a) else a for a in (noise, chance))
            self._advance(rows, middle, dt, noise, chance)

    def _advance(self, rows: Any, t: float, dt: float, noise: Array, chance: Array) -> None:
        """A step of some, by the drift at a time and with given random numbers."""
        x, cells, hits = self._x[rows], self._cells[rows], self.collisions[rows]
        v = self._values(t, x, cells)
        noise, variance, matrix = self._noises.increments(t, dt, x, cells, noise)
        exits, when = self._exited[: len(x)], self._when[: len(x)]

        def displace(dx: Array, x: Array, cells: Array, hits: Array, final: bool) -> None:
            walls, near = (self._walls, self._near) if final else (self._none, self._no_walls)
            if len(noise):
                dx += noise
            lost = move(
                self._mesh,
                self._grid,
                walls,
                self._seams,
                near,
                chance,
                variance,
                matrix,
                dx,
                x,
                cells,
                hits,
                exits,
                when,
            )
            if lost >= 0:
                raise RuntimeError(f"A particle at {x[lost]} is lost: is the mesh sound?")

        if self._stages == 2:
            y, its_cells = x.copy(), cells.copy()
            displace(v * dt, y, its_cells, np.zeros_like(hits), False)
            v = 0.5 * (v + self._values(t, y, its_cells))
        displace(v * dt, x, cells, hits, True)
        if not isinstance(rows, slice):  # copies were changed
            self._x[rows], self._cells[rows], self.collisions[rows] = x, cells, hits
        if self._absorbing and (out := np.flatnonzero(exits >= 0)).size:
            numbers = np.arange(len(self._x))[rows][out]
            times = t + (when[out] - 0.5) * dt
            self._take(numbers, times, self._x[numbers].copy(), exits[out])

    def _values(self, t: float, x: Array, cells: Array) -> Array:
        numbers = self._domain.number[cells] if self._asks else cells
        return checked_values(self._drift(t, x, numbers), t, x)

    def find(self) -> None:
        """Give a cell to those of whom it is not known."""
        lost = locate_all(self._grid[0], *self._mesh[:2], self._x, self._cells)
        if lost >= 0:
            raise RuntimeError(f"A particle at {self._x[lost]} is lost: is the mesh sound?")

    def _take(self, rows: Array, times: Array, points: Array, walls: Array) -> None:
        places = self._domain.onto_walls(walls, points)
        self._exits.append((rows, times, places, self._domain.wall_tags[walls]))
        self._x[rows], self._left[rows], self._some_left = np.nan, True, True

    def exits(self) -> Exits:
        """All that have left, by time."""
        d = self._x.shape[1]
        none = np.empty(0, dtype=np.int64), np.empty(0), np.empty((0, d)), np.empty(0, np.int32)
        parts = [np.concatenate(part) for part in zip(none, *self._exits, strict=True)]
        order = np.argsort(parts[1], kind="stable")
        return Exits(*(part[order] for part in parts))
