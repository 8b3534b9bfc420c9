"""Files that are whole or not there: written beside, then renamed."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mpi4py import MPI

from fpcontrol.parallel import raise_together, together


def output_path(path: str | os.PathLike[str], comm: MPI.Comm) -> Path:
    """A path whose folder exists and can be written to. Collective.

    Raises:
        OSError: On all ranks, if rank 0 cannot make or write to the folder.
    """
    target = Path(path)
    with together(comm):
        if comm.rank == 0:
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise OSError(
                    f"Cannot make the folder {target.parent} for {target.name}: "
                    f"{error.strerror}. Choose another path."
                ) from None
            if not os.access(target.parent, os.W_OK):
                raise OSError(f"The folder {target.parent} is not writable. Choose another path.")
    return target


@contextmanager
def replacing(path: Path, comm: MPI.Comm) -> Iterator[Path]:
    """Give a path beside ``path`` to write a file or folder to; rename it when done. Collective.

    What stood at ``path`` stays untouched if the block fails on any rank.

    Args:
        path: From ``output_path``.
        comm: Communicator whose ranks all run the block.
    """
    beside = path.with_name(f".{path.stem}.part{path.suffix}")
    error = None
    try:
        if comm.rank == 0:
            _remove(beside)
        comm.barrier()
        yield beside
    except Exception as caught:
        error = caught
    try:
        raise_together(comm, error)
        with together(comm):
            if comm.rank == 0:
                if path.is_dir():  # A folder cannot be renamed over another.
                    _remove(path)
                os.replace(beside, path)
    finally:
        if comm.rank == 0:
            _remove(beside)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
