"""Results that are costly to make and large to keep: the latest ones are kept."""

from collections.abc import Callable, Hashable


class Recent[T]:
    """The values of the latest keys, each in room that is used again when its turn is over.

    Args:
        make: Makes room for one value.

    Attributes:
        capacity: How many are kept.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self.capacity = 1
        self._make = make
        self._values: dict[Hashable, T] = {}  # the latest last

    def __call__(self, key: Hashable) -> tuple[T, bool]:
        """Room of a key, and whether it holds the key's value or is to be filled with it."""
        value = self._values.pop(key, None)
        held = value is not None
        if value is None:
            full = len(self._values) >= self.capacity
            value = self._values.pop(next(iter(self._values))) if full else self._make()
        self._values[key] = value
        return value, held
