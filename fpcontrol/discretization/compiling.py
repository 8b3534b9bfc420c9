"""Loops that are compiled at first use, kept on disk, and compiled anew when what they use changes.

numba looks at the file of a loop alone. A loop also has in it what it calls of other files, and the
numbers there are in its module, wherever they come from.
"""

import os
from collections.abc import Callable
from typing import Any

import numba
from numba.core.dispatcher import Dispatcher

type Stamp = tuple[str, int, int] | tuple[str, float]


def kept[F: Callable[..., Any]](loop: F, **options: Any) -> F:
    """The loop, compiled at its first call.

    Args:
        loop: Of what numba knows.
        options: Of ``numba.njit``.
    """
    result = numba.njit(cache=True, **options)(loop)
    file = result._cache._cache_file
    file._source_stamp = file._source_stamp, tuple(sorted(used(loop)))
    return result


def used(loop: Callable[..., Any]) -> set[Stamp]:
    """Numbers that a loop takes from its module, and files of loops that it calls, as they are."""
    found: set[Stamp] = set()
    cells = (cell.cell_contents for cell in loop.__closure__ or ())
    values = dict(zip(loop.__code__.co_freevars, cells, strict=True))
    for name in loop.__code__.co_names:
        values[name] = loop.__globals__.get(name)
    for name, value in values.items():
        if isinstance(value, Dispatcher):
            path = value.py_func.__code__.co_filename
            status = os.stat(path)
            found |= {(path, status.st_mtime_ns, status.st_size)} | used(value.py_func)
        elif isinstance(value, int | float):
            found.add((name, float(value)))
    return found
