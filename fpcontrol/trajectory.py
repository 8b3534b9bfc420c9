"""Densities over time, with their masses and minima."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from mpi4py import MPI

import numpy as np
from dolfinx import fem

from fpcontrol.discretization.elements import Elements
from fpcontrol.parallel.errors import reduced
from fpcontrol.stepping.resolution import CellPeclet
from fpcontrol.typing import Array

type Save = str | int | Sequence[float] | Array


@dataclass(frozen=True, repr=False, eq=False)
class Trajectory:
    """Densities at time levels: plain data, of which nothing communicates when it is read.

    ``trajectory[i]`` is the density at ``times[i]``, a new dolfinx Function; negative ``i`` count
    from the end. ``len`` is the number of levels kept, iteration goes through them.

    Attributes:
        space: The finite-element space.
        times: Times of the levels kept, ``(n,)``; all ``steps + 1`` unless told otherwise.
        levels: Degrees of freedom of this rank (owned, then ghosts), ``(n, n_local)``.
        mass: Integral of the density over the domain, at ``all_times``.
        minimum: Smallest degree of freedom of the density, at ``all_times``.
        iterations: Linear iterations of the whole run.
        time_error: Estimated relative error in time, if a tolerance was asked for.
        all_times: All time levels of the run, ``(steps + 1,)``.
        tags: Tags of the absorbing walls; empty if there is none.
        absorbed: Mass that each of them has taken up to a time, at ``all_times``,
            ``(steps + 1, tags)``; with ``mass`` the mass of the start density. What that has at
            these walls, where the density vanishes, is taken at the first time.
        limited_fraction: Share of nodes times steps where ``Limited()`` let less than all of
            Galerkin's step through; 0 for other methods.
        cell_peclet: Median, 99 % and largest of the cell Peclet numbers ``|v| h / (2 D)`` of the
            run, by volume and time, see ``CellPeclet``: h is the cell's length along the drift,
            for a monotone method that of an edge, with the drift along it. ``None`` if unknown.
        clipped: Sum of the edge weights that a monotone method has cut off, over that of the
            others: its error is in proportion. 0 where none is.
        observables: What was asked to be measured, by name, at ``all_times``: ``(steps + 1,)`` for
            a number, ``(steps + 1, ...)`` for an array; see ``fpc.observables``.
        killed: Mass that was killed up to a time, at ``all_times``; see ``fpc.Reactions``. With
            ``absorbed`` and ``mass`` the mass of the start density and what was
        produced: by sources up to then, or what has entered again (``reentry``).
    """

    space: fem.FunctionSpace
    times: Array
    levels: Array
    mass: Array
    minimum: Array
    iterations: int
    time_error: float | None
    all_times: Array
    # Copies of a Function share its communication pattern, so that ranks need not meet for them.
    _blank: fem.Function = field(repr=False)
    tags: tuple[int, ...] = ()
    absorbed: Array = field(default_factory=lambda: np.zeros((1, 0)))
    limited_fraction: float = 0.0
    cell_peclet: CellPeclet | None = None
    clipped: float = 0.0
    observables: Mapping[str, Array] = field(default_factory=dict)
    killed: Array = field(default_factory=lambda: np.zeros(1))
    produced: Array = field(default_factory=lambda: np.zeros(1))

    def __len__(self) -> int:
        """Number of levels kept."""
        return len(self.times)

    def __getitem__(self, i: int) -> fem.Function:
        """Density at level ``i`` of those kept. Not collective."""
        density = self._blank.copy()
        density.x.array[:] = self.levels[i]
        return density

    def __iter__(self) -> Iterator[fem.Function]:
        """Densities from first to last. Not collective."""
        return (self[i] for i in range(len(self)))

    @property
    def mass_defect(self) -> float:
        """Largest relative change of the mass, with what was absorbed, killed and produced."""
        total = self.mass + self.absorbed.sum(axis=1) + self.killed - self.produced
        return float((np.abs(total - total[0]) / np.abs(total[0] + self.produced)).max())

    def __repr__(self) -> str:
        unknowns = self.space.dofmap.index_map.size_global
        kept = f"{len(self)}"
        if len(self) < len(self.all_times):
            kept += f" of {len(self.all_times)}"
        return (
            f"Trajectory: {kept} levels, t = {self.all_times[0]:g} ... {self.all_times[-1]:g}, "
            f"{unknowns} unknowns, mass {self.mass[0]:.6g}"
            f"{absorption(self.mass, self.tags, self.absorbed)}, minimum {self.minimum.min():.3g}"
            f"{resolved(self.cell_peclet, self.clipped)}"
        )


def absorption(mass: Array, tags: tuple[int, ...], absorbed: Array) -> str:
    """In words, what is left of a mass at the end and what each wall has taken."""
    if not tags:
        return ""
    shares = ", ".join(f"tag {k}: {m:.4g}" for k, m in zip(tags, absorbed[-1], strict=True))
    return f" ... {mass[-1]:.6g}, absorbed {absorbed[-1].sum():.4g} ({shares})"


def resolved(peclet: CellPeclet | None, clipped: float) -> str:
    """In words, how well the mesh resolves the drift."""
    words = "" if peclet is None else f", cell Peclet number {peclet}"
    return words + (f", {clipped:.2g} of the weights cut off" if clipped > 0.0 else "")


def blank(space: fem.FunctionSpace) -> fem.Function:
    """A density to be copied, which no longer takes all ranks. Collective."""
    return fem.Function(space, name="density")


def trajectory(
    g: Elements,
    times: Array,
    levels: Array,
    iterations: int,
    tags: tuple[int, ...] = (),
    absorbed: Array | None = None,
    limited_fraction: float = 0.0,
    cell_peclet: CellPeclet | None = None,
    clipped: float = 0.0,
    killed: Array | None = None,
    produced: Array | None = None,
) -> Trajectory:
    """A trajectory of all its levels, with their masses and minima. Collective."""
    owned = levels[:, : g.n_owned]
    mass = reduced(g.comm, owned @ g.integrals)
    low = owned.min(axis=1) if g.n_owned else np.full(len(times), np.inf)
    minimum = reduced(g.comm, low, MPI.MIN)
    return Trajectory(
        g.space,
        times,
        levels,
        mass,
        minimum,
        iterations,
        None,
        times,
        blank(g.space),
        tags,
        np.zeros((len(times), 0)) if absorbed is None else absorbed,
        limited_fraction,
        cell_peclet,
        clipped,
        killed=np.zeros(1) if killed is None else killed,
        produced=np.zeros(1) if produced is None else produced,
    )


def check_steps(steps: int, pieces: int = 1) -> int:
    """``steps`` as an int, or a ValueError that says what is wrong with it."""
    if not isinstance(steps, int | np.integer) or steps < 1:
        raise ValueError(f"steps = {steps!r} must be a positive integer.")
    if steps % pieces:
        raise ValueError(
            f"steps = {steps} is not a multiple of pieces = {pieces}; try "
            f"{pieces * max(1, round(steps / pieces))}. A step must not straddle a switch."
        )
    return int(steps)


def kept_levels(save: Save, times: Array) -> Array:
    """Numbers of the levels to keep, ascending, ``(n,)``.

    Args:
        save: ``"all"``, ``"last"``, a positive integer k (every k-th level and the last), or times.
        times: All time levels, ``(steps + 1,)``.

    Raises:
        ValueError: For anything else; for a time that is no level, the message names the nearest.
    """
    steps = len(times) - 1
    if isinstance(save, str):
        if save not in ("all", "last"):
            raise ValueError(f'save = {save!r} is unknown; choose "all", "last", k or times.')
        return np.arange(steps + 1) if save == "all" else np.array([steps])
    if isinstance(save, int | np.integer) and not isinstance(save, bool):
        if save < 1:
            raise ValueError(f"save = {save!r} must be positive: every so many levels are kept.")
        return np.unique([*range(0, steps + 1, int(save)), steps])
    try:
        asked = np.asarray(save)
    except ValueError:  # rows of unequal length
        asked = np.array(None)
    numbers = asked.dtype.kind in "fiu" and asked.ndim == 1 and bool(np.isfinite(asked).all())
    if not numbers or not len(asked):
        raise ValueError(
            f'save = {save!r} must be "all", "last", a positive integer or a list of times.'
        )
    places = (asked - times[0]) / (times[-1] - times[0]) * steps
    levels = np.clip(np.round(places), 0, steps).astype(int)
    off = np.abs(places - levels) > 1e-6
    if off.any():
        i = int(np.flatnonzero(off)[0])
        raise ValueError(
            f"save: t = {asked[i]:g} is no time level of {steps} steps from {times[0]:g} to "
            f"{times[-1]:g}; the nearest is {times[levels[i]]:.12g}."
        )
    return np.unique(levels)
