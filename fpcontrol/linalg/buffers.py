"""Caches of large results that are costly to make: the most recent ones are kept."""

from collections.abc import Callable, Hashable

import numpy as np


def read_only(values: np.ndarray) -> np.ndarray:
    """A view to hand out of an array that is kept: who writes to it gets an error."""
    view = values.view()
    view.flags.writeable = False
    return view


class BufferCache[T]:
    """The values of the latest keys, each in room that is used again when its turn is over.

    Args:
        make: Makes room for one value.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._capacity = 1
        self._make = make
        self._values: dict[Hashable, T] = {}  # the latest last

    def __call__(self, key: Hashable, fill: Callable[[T], None]) -> T:
        """The value of a key; room is filled with it unless it is kept.

        A filling that is interrupted leaves no value behind.
        """
        value = self._values.pop(key, None)
        if value is None:
            full = len(self._values) >= self._capacity
            value = self._values.pop(next(iter(self._values))) if full else self._make()
            unfilled = object()
            self._values[unfilled] = value
            fill(value)
            del self._values[unfilled]
        self._values[key] = value
        return value

    def keep(self, capacity: int) -> list[T]:
        """Keep so many from now on, at least one.

        Returns:
            Those that are given up, the earliest first.
        """
        self._capacity = capacity
        excess = list(self._values)[: max(len(self._values) - capacity, 0)]
        return [self._values.pop(key) for key in excess]
