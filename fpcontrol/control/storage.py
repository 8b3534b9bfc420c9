"""The storage plan of a reverse sweep: levels and operators kept within a budget of memory."""

import math
import mmap
import os
import tempfile
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np

from fpcontrol.parallel.errors import collective_errors
from fpcontrol.stepping.base import Kept
from fpcontrol.typing import Array

GIB = 2.0**30
# Resident part of levels on disk, bytes, or a quarter of the budget if that is less: what has been
# written or read before is given back.
WINDOW = 2**24


@dataclass(frozen=True)
class Storage:
    """How levels and operators are stored, and what that takes on the rank with most.

    Attributes:
        levels: ``"memory"``, ``"disk"``, or ``"recomputed"`` from snapshots (Revolve).
        snapshots: Pairs of levels kept, if the others are recomputed.
        operators: Operators that are kept with their preconditioners or factorizations.
        budget: Memory for all that, GiB per rank.
        level_memory: Estimate for the levels, GiB per rank.
        operator_memory: Estimate for the operators, GiB per rank.
        work_memory: Estimate for what else a derivative needs, GiB per rank.
        resident: Of levels on disk, bytes.
        directory: Of levels on disk.
    """

    levels: str
    snapshots: int | None
    operators: int
    budget: float
    level_memory: float
    operator_memory: float
    work_memory: float
    resident: float
    directory: Path | None = None

    def __str__(self) -> str:
        """One line."""
        where = {
            "memory": "all in memory",
            "disk": f"all in {self.directory}",
            "recomputed": f"{self.snapshots} snapshots, the others recomputed",
        }[self.levels]
        return (
            f"levels: {where}, {_size(self.level_memory)}; operators: {self.operators} kept, "
            f"{_size(self.operator_memory)} (memory = {self.budget:g} GiB a rank)"
        )

    def record(self) -> dict[str, Any]:
        """For a record of the run."""
        return {
            "levels": self.levels,
            "snapshots": self.snapshots,
            "operators": self.operators,
            "memory_budget_gib": self.budget,
            "level_memory_gib": self.level_memory,
            "operator_memory_gib": self.operator_memory,
            "work_memory_gib": self.work_memory,
        }

    def window(self, shape: tuple[int, ...], comm: MPI.Comm) -> Array:
        """Room for levels, one a row; on disk without a name, gone with the array. Collective.

        Raises:
            OSError: On all ranks, if the disk is full on one.
        """
        if self.directory is None:
            return np.empty(shape)
        with collective_errors(comm):
            room = self._mapped(shape)
        return room

    def _mapped(self, shape: tuple[int, ...]) -> Array:
        with tempfile.TemporaryFile(dir=self.directory, prefix="fpcontrol_levels_") as file:
            count = math.prod(shape)
            size = max(count * 8, 1)
            os.posix_fallocate(file.fileno(), 0, size)  # a full disk is an error now, not a crash
            return np.frombuffer(mmap.mmap(file.fileno(), size), count=count).reshape(shape)


@dataclass(frozen=True)
class Sizes:
    """What a run is made of.

    Attributes:
        steps: Time steps.
        operators: Different operators.
        level: Numbers in this rank's part of a level and of what is kept beside it.
        work: Numbers in this rank's arrays while it computes.
    """

    steps: int
    operators: int
    level: int
    work: int


def choose(
    operators: Kept,
    sizes: Sizes,
    memory: float,
    disk: str | os.PathLike[str] | None,
    snapshots: int | None,
    comm: MPI.Comm,
) -> Storage:
    """What to store; sets what the operators keep. Collective.

    Levels come first, since to compute one again costs a step; then operators. (Hidden
    layers of a network would take longer to store than to compute again.)

    Args:
        operators: The run's operators.
        sizes: Sizes of the run.
        memory: Budget, GiB per rank; the smallest of the ranks' counts.
        disk: Directory for levels that do not fit, on all ranks or on none.
        snapshots: Number of snapshots, if it is prescribed, the same on all ranks.
        comm: Communicator.

    Raises:
        ValueError: On all ranks, if the budget or a directory is none, if not even one snapshot
            fits, or if the ranks do not ask for the same.
    """
    with collective_errors(comm):
        directory = _checked(memory, disk, snapshots)
    asked = comm.allgather((directory is None, snapshots))
    if any(other != asked[0] for other in asked):
        raise ValueError(
            f"disk and snapshots must be the same on all ranks; without disk, snapshots: {asked}."
        )
    # Where it is taken from the memory that is free, it may differ.
    memory = comm.allreduce(float(memory), op=MPI.MIN)
    steps = sizes.steps
    level = 8.0 * comm.allreduce(sizes.level, op=MPI.MAX) / GIB
    size = comm.allreduce(operators.memory, op=MPI.MAX) / GIB
    work = 8.0 * comm.allreduce(sizes.work, op=MPI.MAX) / GIB
    room = memory - size - work  # one operator there is in any case
    everything = (steps + 2) * level
    if snapshots is not None and snapshots < steps:
        levels, used = "recomputed", (2 * snapshots + 3) * level
    elif everything <= room:
        levels, used, snapshots = "memory", everything, None
    elif directory is not None:
        levels, used, snapshots = "disk", min(everything, WINDOW / GIB, 0.25 * memory), None
    else:
        levels, snapshots = "recomputed", int((room - 3 * level) / (2 * level))
        used = (2 * snapshots + 3) * level
        if snapshots < 1:
            raise ValueError(
                f"memory = {memory:g} GiB per rank does not hold an operator and one snapshot; at "
                f"least {5.001 * level + size + work:.3g} are needed."
            )
    kept = operators.keep(max(memory - work - used, 0.0) * GIB, sizes.operators)
    return Storage(
        levels,
        snapshots if levels == "recomputed" else None,
        kept,
        memory,
        used,
        kept * size,
        work,
        used * GIB,
        directory if levels == "disk" else None,
    )


def _checked(
    memory: float, disk: str | os.PathLike[str] | None, snapshots: int | None
) -> Path | None:
    """The directory, if there is one."""
    if not isinstance(memory, Real) or not (np.isfinite(memory) and memory > 0):
        raise ValueError(f"memory = {memory!r} must be a positive number of GiB per rank.")
    whole = isinstance(snapshots, int | np.integer) and not isinstance(snapshots, bool)
    if snapshots is not None and not (whole and snapshots >= 1):
        raise ValueError(f"snapshots = {snapshots!r} must be a positive integer or None.")
    if disk is None:
        return None
    if not isinstance(disk, str | os.PathLike):
        raise ValueError(f"disk = {disk!r} must be the path of a directory.")
    directory = Path(disk)
    if not (directory.is_dir() and os.access(directory, os.W_OK | os.X_OK)):
        raise ValueError(f"disk = {str(disk)!r} is no directory that can be written to.")
    return directory


def give_back(window: Array) -> None:
    """Let go of the resident part of levels on disk; the file keeps them."""
    base: Any = window
    while isinstance(base, np.ndarray) and base.base is not None:
        base = base.base
    if isinstance(base, memoryview):
        base = base.obj
    if isinstance(base, mmap.mmap):
        base.flush()
        base.madvise(mmap.MADV_DONTNEED)


def _size(gib: float) -> str:
    return f"{gib:.2f} GiB" if gib >= 0.1 else f"{gib * 1024:.2g} MiB"
