"""Atomic replacement of files: written beside their place, then renamed."""

import errno
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
    error: Exception | None = None
    try:
        if comm.rank == 0:
            _remove(beside)
        comm.barrier()
        yield beside
    except OSError as caught:
        # What fails while it writes or closes an open file does not know its name.
        named = caught.filename is not None or caught.errno is None
        error = caught if named else _named(caught, path)
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


def reserve(path: Path, beside: Path, size: int, comm: MPI.Comm) -> None:
    """Refuse to write what the disk has no room for. Collective.

    Room for so many bytes is taken and given back at once, which finds full disks, quotas and
    limits of a process alike.

    Args:
        path: What is to be written, for the message.
        beside: From ``replacing``: in the folder where the room is needed.
        size: Bytes.
        comm: Communicator; rank 0 looks.

    Raises:
        OSError: On all ranks, with the name of the file, if there is no room.
    """
    room = beside.with_suffix(".room")
    with collective_errors(comm):
        if comm.rank == 0:
            try:
                with open(room, "wb") as file:
                    if hasattr(os, "posix_fallocate"):
                        os.posix_fallocate(file.fileno(), 0, size)
                    elif shutil.disk_usage(room).free < size:
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError as error:
                need = f"{error.strerror} ({size / 1e6:.3g} MB are needed)"
                raise _named(OSError(error.errno, need), path) from None
            finally:
                _remove(room)


def _named(error: OSError, path: Path) -> OSError:
    return OSError(error.errno, error.strerror, str(path))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
