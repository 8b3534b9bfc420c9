"""Files that are whole or not there: written beside, then renamed."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mpi4py import MPI

from fpcontrol.parallel.errors import collective_errors, raise_collectively

# In every folder that ADIOS2 has written (BP4, BP5), and hardly in one that it has not.
BP_INDEX = "md.idx"


def output_path(path: str | os.PathLike[str], comm: MPI.Comm, *, bp: bool = False) -> Path:
    """A path that can be written to, whose folder exists. Collective.

    Args:
        path: The path.
        comm: Communicator; rank 0 looks.
        bp: Whether a ``.bp`` folder is to be written, which may replace another one, and not a
            file.

    Raises:
        OSError: On all ranks, if rank 0 cannot make or write to the folder, or if a folder is there
            that would have to go.
    """
    target = Path(path)
    with collective_errors(comm):
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
            if target.is_dir() and not bp:
                raise IsADirectoryError(f"{target} is a folder. Choose the path of a file.")
            if target.is_dir() and any(target.iterdir()) and not (target / BP_INDEX).exists():
                raise FileExistsError(
                    f"{target} is a folder with other things than densities in it. Choose another "
                    "path."
                )
    return target


@contextmanager
def replacing(path: Path, comm: MPI.Comm) -> Iterator[Path]:
    """Give a path beside ``path`` to write a file or folder to; rename it when done. Collective.

    What stood at ``path`` stays untouched if the block fails on any rank.

    Args:
        path: From ``output_path``.
        comm: Communicator whose ranks all run the block.
    """
    beside, old = (path.with_name(f".{path.stem}.{k}{path.suffix}") for k in ("part", "old"))
    error = None
    try:
        if comm.rank == 0:
            _remove(beside)
        comm.barrier()
        yield beside
    except Exception as caught:
        error = caught
    try:
        raise_collectively(comm, error)
        with collective_errors(comm):
            if comm.rank == 0:
                if path.is_dir() and beside.is_dir():  # which cannot be renamed over each other
                    _remove(old)
                    os.replace(path, old)
                os.replace(beside, path)
                _remove(old)
    finally:
        if comm.rank == 0:
            _remove(beside)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
