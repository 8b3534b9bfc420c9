r"""Random numbers by counters: the same ones whatever the number of ranks.

Particles come in blocks of ``BLOCK`` by their numbers. What a block needs in a step is a stream of
numpy's Philox generator, whose key is the seed and whose counter says which block, which step and
what for. Nothing has a state between steps.

References:
    J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, Parallel random numbers: as easy as 1, 2, 3,
    SC '11 (2011).
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from fpcontrol.typing import Array

# So many that their arrays fit into the cache; a rank has whole blocks where it can (``share``).
BLOCK = 4096
# What numbers are for: no two uses share a stream.
START, NOISE, WALL = 0, 1, 2


class Streams:
    """The random numbers of blocks of particles, by one generator whose counter is set.

    Args:
        seed: The key.
    """

    def __init__(self, seed: int) -> None:
        self._bits = np.random.Philox(key=seed)
        self._generator, self._fresh = np.random.Generator(self._bits), self._bits.state

    def at(self, use: int, step: int, block: int) -> np.random.Generator:
        """Those of a block in a step, from the first on; good until the next call."""
        self._fresh["state"]["counter"][:] = 0, block, step, use
        self._bits.state = self._fresh
        return self._generator


def blocks(first: int, last: int) -> Iterator[tuple[int, slice, slice]]:
    """The blocks that particles ``first`` to ``last - 1`` are in.

    Yields:
        Number of the block, where its particles are among these, and where they are in the block.
    """
    for block in range(first // BLOCK, -(-last // BLOCK)):
        begin, end = max(first, block * BLOCK), min(last, (block + 1) * BLOCK)
        mine, inside = slice(begin - first, end - first), block * BLOCK
        yield block, mine, slice(begin - inside, end - inside)


def uniforms(first: int, last: int, count: int, seed: int, use: int, step: int) -> Array:
    """Uniform in [0, 1), of particles ``first`` to ``last - 1``, ``(last - first, count)``."""
    out, random = np.empty((last - first, count)), Streams(seed)
    for block, mine, rows in blocks(first, last):
        out[mine] = random.at(use, step, block).random((BLOCK, count))[rows]
    return out


def share(total: int, comm: Any) -> tuple[int, int]:
    """First and last plus one of the particles that a rank is given: whole blocks, evenly."""
    count = -(-total // BLOCK)
    first, last = (BLOCK * (count * r // comm.size) for r in (comm.rank, comm.rank + 1))
    return min(first, total), min(last, total)


def check_seed(seed: Any) -> int:
    """A seed.

    Raises:
        ValueError: If it is no whole number from 0 to 2**64 - 1.
    """
    whole = isinstance(seed, int | np.integer) and not isinstance(seed, bool)
    if not whole or not 0 <= seed < 2**64:
        raise ValueError(f"seed = {seed!r} must be a whole number from 0 to 2**64 - 1.")
    return int(seed)
