"""Moving pictures: a density over time, the reference beside it, particles on top."""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mpi4py import MPI

import numpy as np
from dolfinx import fem

from fpcontrol.characteristics.flow import Flow
from fpcontrol.control.result import Result
from fpcontrol.drift.base import as_drift
from fpcontrol.parallel.communicators import comm_of
from fpcontrol.parallel.errors import collective_errors
from fpcontrol.parallel.files import output_path, replacing
from fpcontrol.parallel.progress import Progress, log_rank0
from fpcontrol.plotting.canvas import NEGATIVE, Canvas
from fpcontrol.plotting.film import FORMATS, Film, Movie, ffmpeg
from fpcontrol.plotting.picture import check_number
from fpcontrol.plotting.scene import Arrows, Scene, every, highest
from fpcontrol.reference import MoserFlow
from fpcontrol.trajectory import Trajectory
from fpcontrol.typing import Array, VectorField

DOTS = 3000
SLICED = 10  # times as many in 3-D, where few are beside the slice
CUT = 2.0  # times the median of the frames' largest densities


class Particles(Protocol):
    """Positions over time: of ``swarm[k]``, ``(n, d)``, those of this rank at ``times[k]``.

    Rows stay those of the same particles; of those that have left they are not a number.
    """

    times: Array

    def __len__(self) -> int:
        """Number of times."""

    def __getitem__(self, k: int) -> Array:
        """Positions of this rank's share."""


def animation(
    what: Trajectory | Result,
    path: str | os.PathLike[str] | None = None,
    *,
    particles: Particles | None = None,
    reference: MoserFlow | Trajectory | None = None,
    drift: VectorField | None = None,
    streamlines: bool = False,
    frames: int = 100,
    fps: int = 20,
    highest_density: float | None = None,
    title: str = "",
    unit: str = "",
    at: float | None = None,
    progress: bool = True,
) -> Path | Movie | None:
    """Film a density: lines in 1-D, colours in 2-D, colours on a slice in 3-D. Collective.

    Colours are on a square-root scale that stays the same over time. It ends at the largest density
    of all frames, the reference's included, unless that is more than twice the median of the
    frames' largest: then there, and the picture names what was cut off. Negative values have a
    colour of their own.

    Args:
        what: The density, or a result with its reference.
        path: Film to write, ``.mp4`` or ``.gif``. Without an ffmpeg (matplotlib's settings, or the
            package imageio-ffmpeg) a ``.gif`` is written beside, and rank 0 says so.
        particles: From ``fpc.particles.simulate(..., save=k)``, drawn as dots at their level
            nearest in time: 3 000 of them, evenly chosen, if they are more. In 3-D those beside
            the slice, within a twentieth of the longer side.
        reference: Drawn beside (in 1-D as a line); a result brings its own. Of a trajectory the
            level nearest in time.
        drift: Drawn as arrows, such as ``result.drift``: as long as the distance they go in the
            same time, which is the same in all frames.
        streamlines: Draw the drift as streamlines instead, in 2-D and on slices: wider where it is
            faster.
        frames: How many, evenly in time, of the levels that there are; fewer if there are fewer.
        fps: Frames a second.
        highest_density: End of the scale, if not as above.
        title: Above the time.
        unit: Unit of length of the mesh, such as ``"km"``, for the labels.
        at: Third coordinate of the slice through a 3-D domain; its middle unless given.
        progress: Show progress on rank 0.

    Returns:
        The path written, on all ranks. Without a path on rank 0 what a notebook shows, ``None`` on
        the others.

    Raises:
        ValueError: On all ranks, for a bad argument: fewer than two levels, a drift or particles of
            another dimension, particles that are not there from the first frame to the last, a
            reference of other times, an unknown format.
        OSError: On all ranks, if the film cannot be written.
    """
    check_number("frames", frames, 2, whole=True)
    check_number("fps", fps, 1, whole=True)
    if highest_density is not None:
        check_number("highest_density", highest_density, 0.0)
    shown, beside = _sources(what, reference, int(frames))
    space, times = shown.space, shown.times
    comm = comm_of(space.mesh)
    target = _target(path, comm)
    canvas = Canvas(space, unit, at)
    canvases, levels = [canvas], [shown.levels]
    if beside is not None:
        canvases.append(canvas if beside.space is space else Canvas(beside.space, unit, at))
        levels.append(beside.levels)
    tops = np.max([highest(comm, rows) for rows in levels], axis=0)
    largest, lowest = float(tops.max()), -max(float(highest(comm, -u).max()) for u in levels)
    top = highest_density or min(largest, CUT * float(np.median(tops)))
    dots = None if particles is None else _Dots(particles, canvas.dimension, times, comm)
    arrows = None
    if drift is not None:
        arrows = Arrows(as_drift(drift), canvas, space.mesh, times, streamlines)
    elif streamlines:
        raise ValueError("streamlines = True: of which drift? Give drift=, such as result.drift.")

    def made() -> Scene:
        names = [shown.name] if beside is None else [shown.name, beside.name]
        digits = max(0, 2 - int(np.floor(np.log10(times[-1] - times[0]))))
        return Scene(
            canvases,
            names,
            top if top > 0.0 else 1.0,
            largest,
            lowest < -NEGATIVE * max(largest, -lowest),
            lambda t: f"t = {t:.{digits}f}",
            title,
            arrows,
            dots is not None,
        )

    def film(to: Path) -> None:
        reel: Film | None = None
        scene: Scene | None = None
        meter = Progress("animation", len(times), comm, progress)
        try:
            for k, t in enumerate(times):
                samples = [c.sample(u[k]) for c, u in zip(canvases, levels, strict=True)]
                on_top = np.empty((0, canvas.dimension)) if dots is None else dots.at(float(t))
                with collective_errors(comm):
                    if comm.rank == 0:
                        scene = scene or made()
                        scene.draw(k, float(t), [s for s in samples if s], on_top)
                        reel = reel or Film(scene.figure, to, fps)
                        reel.frame()
                meter.update()
            with collective_errors(comm):
                if reel is not None:
                    reel.close()
        finally:
            meter.close()
            if reel is not None:
                reel.abandon()

    if target is not None:
        with replacing(target, comm) as part:
            film(part)
        return target
    with tempfile.TemporaryDirectory() as folder:  # of rank 0 it counts
        suffix = comm.bcast(".mp4" if ffmpeg() else ".gif")
        shot = Path(folder, f"film{suffix}")
        film(shot)
        return Movie(shot.read_bytes(), suffix) if comm.rank == 0 else None


@dataclass(frozen=True)
class _Source:
    """Levels of a density at the times of the frames."""

    name: str
    space: fem.FunctionSpace
    times: Array
    levels: Array


def _sources(what: Any, reference: Any, frames: int) -> tuple[_Source, _Source | None]:
    """What is filmed, and the reference at the same times. Collective."""
    name = "density"
    if isinstance(what, Result):
        name, problem, run = "controlled", what.problem, what.run()
        reference = problem.reference if reference is None else reference
        if isinstance(run, Flow):
            chosen = _evenly(run.times, frames)
            run = run.on_mesh(problem.elements.space, chosen)
        if not isinstance(reference, MoserFlow | Trajectory):
            reference = None  # one by formulas, which lives on no mesh
    else:
        run = what
    if not isinstance(run, Trajectory):
        remedy = ", or flow.on_mesh(space) of a Flow" if isinstance(what, Flow) else ""
        raise ValueError(
            f"what, a {type(what).__name__}, is no Trajectory and no Result: give what "
            f"equation.solve or fpc.minimize returns{remedy}."
        )
    if len(run.times) < 2:
        raise ValueError(
            f"what holds {len(run.times)} level: a film needs two or more; solve(..., save=k) "
            'keeps every k-th, save="all" each.'
        )
    rows = _evenly(run.times, frames)
    shown = _Source(name, run.space, run.times[rows], run.levels[rows])
    return shown, None if reference is None else _reference(reference, shown)


def _reference(reference: Any, shown: _Source) -> _Source:
    times = shown.times
    if isinstance(reference, MoserFlow):
        space, first, last = reference.elements.space, 0.0, reference.t1
    elif isinstance(reference, Trajectory):
        space, first, last = reference.space, reference.times[0], reference.times[-1]
    else:
        raise ValueError(
            f"reference, a {type(reference).__name__}, is no MoserFlow and no Trajectory."
        )
    slack = 1e-9 * (times[-1] - times[0])
    if times[0] < first - slack or times[-1] > last + slack:
        raise ValueError(
            f"reference is known from t = {first:g} to {last:g}, the frames are from "
            f"{times[0]:g} to {times[-1]:g}; give one of the same times."
        )
    here, there = shown.space.mesh, space.mesh
    if there.topology.dim != here.topology.dim or there.comm.size != here.comm.size:
        raise ValueError(
            f"reference is {there.topology.dim}-D on {there.comm.size} rank(s), the density "
            f"{here.topology.dim}-D on {here.comm.size}; give one on a mesh of the same domain."
        )
    if isinstance(reference, MoserFlow):
        levels = np.array([reference.coefficients(float(t)) for t in times])
    else:
        levels = reference.levels[_nearest(reference.times, times)]
    return _Source("reference", space, times, levels)


class _Dots:
    """Particles on rank 0, evenly chosen. Collective."""

    def __init__(self, swarm: Any, dimension: int, times: Array, comm: MPI.Comm) -> None:
        self._swarm, self._comm = swarm, comm
        with collective_errors(comm):
            try:
                self._times, self._x = np.asarray(swarm.times, dtype=float), np.asarray(swarm[0])
            except (AttributeError, TypeError, KeyError):
                raise ValueError(
                    f"particles, a {type(swarm).__name__}, has no times and no positions; give "
                    "what fpc.particles.simulate returns."
                ) from None
            step = float(np.diff(times).max())
            if abs(self._times[0] - times[0]) > step or abs(self._times[-1] - times[-1]) > step:
                raise ValueError(
                    f"particles are known from t = {self._times[0]:g} to {self._times[-1]:g}, the "
                    f"frames are from {times[0]:g} to {times[-1]:g}; give simulate(..., save=k)."
                )
            if self._x.ndim != 2 or self._x.shape[1] != dimension:
                raise ValueError(
                    f"particles are of shape {self._x.shape}, the density is {dimension}-D; "
                    f"positions of shape (n, {dimension}) are needed."
                )
        most = DOTS if dimension < 3 else SLICED * DOTS
        self._rows = every(comm, len(self._x), most)

    def at(self, t: float) -> Array:
        """Those at a time that have not left, ``(N, d)``; none on other ranks. Collective."""
        k = int(_nearest(self._times, np.array([t]))[0])
        parts = self._comm.gather(np.asarray(self._swarm[k])[self._rows])
        if parts is None:
            return np.empty((0, self._x.shape[1]))
        x = np.concatenate(parts)
        return np.where(np.isfinite(x).all(axis=1)[:, None], x, np.nan)


def _target(path: str | os.PathLike[str] | None, comm: MPI.Comm) -> Path | None:
    if path is None:
        return None
    target = Path(path)
    if target.suffix.lower() not in FORMATS:
        raise ValueError(f"path = {str(path)!r} must end in {' or '.join(FORMATS)}.")
    if target.suffix.lower() == ".mp4" and not comm.bcast(bool(ffmpeg())):
        target = target.with_suffix(".gif")
        log_rank0(
            f"no ffmpeg is found: {target} is written in place of {path} (install ffmpeg, or the "
            "package imageio-ffmpeg)",
            comm,
        )
    return output_path(target, comm)


def _evenly(times: Array, frames: int) -> Array:
    """Numbers of the levels nearest to evenly spaced times, each once."""
    return np.unique(_nearest(times, np.linspace(times[0], times[-1], frames)))


def _nearest(times: Array, wanted: Array) -> Array:
    right = np.clip(np.searchsorted(times, wanted), 1, max(len(times) - 1, 1))
    right = np.minimum(right, len(times) - 1)
    left = np.maximum(right - 1, 0)
    return np.where(wanted - times[left] <= times[right] - wanted, left, right)
