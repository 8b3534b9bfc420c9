"""Bandwidth of the memory: a = b + s c, on arrays from a core's cache to far above all caches.

    mpirun -n 2 python -m mpi4py benchmarks/triad.py [--quick] [--out DIR]

Three arrays of doubles on every rank, all ranks start together; 24 bytes an entry are counted, as
STREAM does (J. D. McCalpin, Memory bandwidth and machine balance, 1995). The processor also reads
`a` before it writes it, which is not counted: `daxpy`, a = a + s b, moves 24 bytes too and all are
counted, `dot` only reads. Best of some rounds, as in STREAM; so many ranks as are told take part.
"""

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np
import results
import timing
from scipy.linalg import blas

try:
    from numba import njit
except ImportError:  # daxpy stands in
    njit = None

Array = np.ndarray
KIND = "compiled by numba" if njit is not None else "daxpy, as numba is missing"
MB = 1e6
# Bytes that one round of a loop moves at least: long against the clock, short against patience.
ROUND = 2e8


def _triad(a: Array, b: Array, c: Array, s: float) -> None:
    for i in range(a.size):
        a[i] = b[i] + s * c[i]


# fastmath: nothing forbids the loop vector registers.
TRIAD = None if njit is None else njit(fastmath=True)(_triad)


def loops(entries: int) -> dict[str, tuple[int, Callable[[], Any]]]:
    """Bytes an entry and the loop itself, on three arrays of so many entries."""
    a, b, c = (np.full(entries, value) for value in (0.0, 1.0, 2.0))
    found: dict[str, tuple[int, Callable[[], Any]]] = {
        "daxpy": (24, lambda: blas.daxpy(b, a, a=1e-9)),
        "dot": (16, lambda: blas.ddot(b, c)),
    }
    triad = found["daxpy"] if TRIAD is None else (24, lambda: TRIAD(a, b, c, 3.0))
    return {"triad": triad, **found}


def last_level_cache() -> int:
    """Bytes of the largest cache of core 0, or 64 MB if the machine does not tell."""
    sizes = [64 << 20]
    for entry in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = entry.read_text().strip()
        unit = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(text[-1], 1)
        sizes.append(int(text.rstrip("KMG")) * unit)
    return max(sizes)


def sizes(ranks: int, quick: bool = False) -> list[int]:
    """Bytes of all arrays of a rank, from a core's own cache to four last-level caches in all."""
    top = 4 * last_level_cache() / ranks
    if hasattr(os, "sysconf"):  # and no more than a third of the memory
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        top = min(top, memory / 3 / ranks)
    bottom = 2.0e5
    count = 4 if quick else 2 + round(math.log2(top / bottom))
    return [int(x) for x in np.geomspace(bottom, top, count)]


def measure(
    comm: MPI.Comm, working_sets: list[int], ranks: int | None = None, rounds: int = 5
) -> list[dict[str, Any]]:
    """Bandwidths of the first ``ranks`` ranks together, GB/s in all. Collective.

    Args:
        comm: Of all ranks.
        working_sets: Bytes of the three arrays of one rank.
        ranks: How many take part; all unless given. The others wait.
        rounds: The best counts.
    """
    ranks = ranks or comm.size
    part = comm.Split(0 if comm.rank < ranks else 1, comm.rank)
    rows: list[dict[str, Any]] = []
    for size in working_sets if comm.rank < ranks else ():
        entries = max(size // 24, 1)
        row: dict[str, Any] = {"ranks": ranks, "MB a rank": size / MB}
        for name, (moved, loop) in loops(entries).items():
            loop()  # compiles, and brings the arrays into the cache
            times = max(1, round(ROUND / (moved * entries)))

            def run(loop: Callable[[], Any] = loop, times: int = times) -> None:
                for _ in range(times):
                    loop()

            best = min(timing.seconds(part, run) for _ in range(rounds))
            row[name] = 1e-9 * moved * entries * times * ranks / best
        rows.append(row)
    part.Free()
    return comm.bcast(rows)


def at(rows: list[dict[str, Any]], working_set: float, loop: str = "triad") -> float:
    """GB/s at a working set of so many bytes a rank, between the sizes that were measured."""
    x = np.log([row["MB a rank"] * MB for row in rows])
    return float(np.interp(math.log(working_set), x, [row[loop] for row in rows]))


def main() -> None:
    """Measure, print, write."""
    options = results.arguments(__doc__, "triad", "four sizes").parse_args()
    comm = MPI.COMM_WORLD
    rows = []
    for ranks in range(1, comm.size + 1):
        rows += measure(comm, sizes(comm.size, options.quick), ranks, 3 if options.quick else 5)
    if comm.rank == 0:
        print(f"Last-level cache {last_level_cache() / MB:.0f} MB; the triad is {KIND}.")
        print(timing.table("Bandwidth of all ranks that take part, GB/s", rows))
    result = {"environment": timing.environment(comm), "tables": {"triad": rows}}
    results.save(options.out, "triad", result, comm)


if __name__ == "__main__":
    main()
