"""Loops that are compiled at first use, kept on disk, and compiled anew when what they use changes.

numba looks at the file of a loop alone. A loop also has in it what it calls of other files, and the
numbers there are in its module, wherever they come from.
"""

import os
from collections.abc import Callable
from typing import Any

import numba
from numba.core.caching import FunctionCache
from numba.core.dispatcher import Dispatcher

type Stamp = tuple[str, ...]


class Cache(FunctionCache):
    """Compiled loops on disk, found again by what they use besides their arguments' types."""

    def _index_key(self, sig: Any, codegen: Any) -> tuple[Any, ...]:
        # Loops made by one function, each with numbers of its own, lie side by side in a file.
        return sig, codegen.magic_tuple(), tuple(sorted(used(self._py_func)))


def kept[F: Callable[..., Any]](loop: F, **options: Any) -> F:
    """The loop, compiled at its first call.

    Args:
        loop: Of what numba knows.
        options: Of ``numba.njit``.
    """
    result = numba.njit(**options)(loop)
    result._cache = Cache(loop)
    return result


def used(loop: Callable[..., Any]) -> set[Stamp]:
    """Numbers that a loop takes from around it, and loops that it calls with their files' age."""
    code = loop.__code__
    found: set[Stamp] = {("code", code.co_qualname, code.co_code.hex())}
    cells = (cell.cell_contents for cell in loop.__closure__ or ())
    values = dict(zip(code.co_freevars, cells, strict=True))
    for name in code.co_names:
        values[name] = loop.__globals__.get(name)
    for name, value in values.items():
        if isinstance(value, Dispatcher):
            path = value.py_func.__code__.co_filename
            status = os.stat(path)
            found |= {(name, path, str(status.st_mtime_ns), str(status.st_size))}
            found |= used(value.py_func)
        elif isinstance(value, int | float):
            found.add((name, repr(value)))
    return found
