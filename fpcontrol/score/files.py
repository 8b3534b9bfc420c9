"""Scores on disk: arrays and what they are, in one ``.npz`` file in which nothing can be run."""

import json
import os
from collections.abc import Callable, Mapping
from typing import Any

from mpi4py import MPI

import numpy as np

from fpcontrol.parallel.errors import collective_errors
from fpcontrol.parallel.files import output_path, replacing
from fpcontrol.typing import Array


def write(
    path: str | os.PathLike[str],
    comm: MPI.Comm,
    about: Mapping[str, Any],
    arrays: Mapping[str, Array],
) -> None:
    """Write them from rank 0, in place of what is there. Collective.

    Raises:
        OSError: On all ranks, if it cannot be written.
    """
    with replacing(output_path(path, comm), comm) as beside:
        if comm.rank == 0:
            with open(beside, "wb") as file:
                content = {**arrays, "about": np.array(json.dumps(about))}
                np.savez(file, allow_pickle=False, **content)


def read[T](
    path: str | os.PathLike[str], comm: MPI.Comm, what: str, checked: Callable[[Any], T]
) -> T:
    """What ``checked`` makes of the content, on all ranks. Collective.

    Args:
        path: The file.
        comm: Whose ranks all get it; rank 0 reads.
        what: Name of what is expected.
        checked: From arrays by name, ``about`` among them; raises anything if they are others.

    Raises:
        OSError: On all ranks, if there is no such file or it is none of these.
    """
    content = None
    with collective_errors(comm):
        if comm.rank == 0:
            try:
                with np.load(path, allow_pickle=False) as file:
                    content = {name: file[name] for name in file.files}
                checked(content)
            except FileNotFoundError:
                raise FileNotFoundError(f"path = {str(path)!r}: there is no such file.") from None
            except Exception as error:
                raise OSError(f"path = {str(path)!r} is no {what}: {error}") from None
    return checked(comm.bcast(content))
