"""Timing that can be trusted on a machine that does other things too, and tables."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

from mpi4py import MPI

import dolfinx
from petsc4py import PETSc

PACKAGES = (
    "fpcontrol",
    "dolfinx-solver-real",
    "fenics-dolfinx",
    "mpi4py",
    "numpy",
    "scipy",
)


def clock(comm: MPI.Comm) -> float:
    """Seconds: of the processor on one rank, of the wall on several, where waiting counts.

    One rank computes all the time, so that the processor's time is the wall's of an idle machine,
    whatever else the machine does.
    """
    return time.process_time() if comm.size == 1 else time.perf_counter()


def seconds(comm: MPI.Comm, run: Callable[[], Any]) -> float:
    """Time of one call: all ranks start together, the slowest counts. Collective."""
    comm.barrier()
    start = clock(comm)
    run()
    return comm.allreduce(clock(comm) - start, op=MPI.MAX)


def interleaved(
    comm: MPI.Comm, runs: Mapping[str, Callable[[], Any]], repeats: int
) -> dict[str, list[float]]:
    """Times of several runs, taken in turns after one round that warms up. Collective.

    A machine that slows down for a while then slows all of them, and ratios within one round stay
    right.

    Returns:
        For each run its ``repeats`` times in seconds, round by round.
    """
    for run in runs.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            times[name].append(seconds(comm, run))
    return times


def median(times: list[float]) -> float:
    """Median over the rounds."""
    return statistics.median(times)


def ratio(times: list[float], others: list[float]) -> float:
    """Median over the rounds of the ratio within a round."""
    return statistics.median(a / b for a, b in zip(times, others, strict=True))


def environment(comm: MPI.Comm) -> dict[str, Any]:
    """Machine, ranks, versions and date, for the head of a result."""
    versions = {"python": platform.python_version(), "petsc": _petsc_version()}
    versions["dolfinx"] = dolfinx.__version__
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "date": date.today().isoformat(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "ranks": comm.size,
        "seconds": "processor" if comm.size == 1 else "wall",
        "mpi": MPI.Get_library_version().splitlines()[0].strip(),
        "versions": versions,
    }


def table(title: str, rows: list[dict[str, Any]], digits: int = 3) -> str:
    """Rows with the same keys as aligned columns."""
    if not rows:
        return ""
    cells = [list(rows[0])] + [[_short(v, digits) for v in row.values()] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    lines = ["  ".join(c.rjust(w) for c, w in zip(line, widths, strict=True)) for line in cells]
    return "\n".join(["", title, *lines])


def _short(value: Any, digits: int) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.{digits - 2}e}" if 0.0 < abs(value) < 1e-3 else f"{value:.{digits}g}"
    return str(value)


def _petsc_version() -> str:
    return ".".join(str(n) for n in PETSc.Sys.getVersion())


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
