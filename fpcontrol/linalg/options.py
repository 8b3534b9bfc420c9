"""PETSc options for the time of a block."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from petsc4py import PETSc


@contextmanager
def petsc_options_set(
    prefix: str, options: Mapping[str, Any], unread: set[str] | None = None
) -> Iterator[None]:
    """Put options into PETSc's global table for the time of a block.

    Args:
        prefix: Of their names in the table.
        options: Values by name.
        unread: Names that PETSc has read in the block are taken out of it.
    """
    table = PETSc.Options()
    # What the command line says for a name wins over what the program says.
    mine = {prefix + k: v for k, v in options.items() if not table.hasName(prefix + k)}
    try:
        for name, value in mine.items():
            table.setValue(name, value)
        yield
    finally:
        if unread:
            unread -= {name for name in options if table.used(prefix + name)}
        for name in mine:
            table.delValue(name)
