"""What a program started by a rank of MPI must not inherit."""

import os

# What a launcher tells its ranks: a process that found it would take itself for one of them.
LAUNCHERS = ("PMI", "HYD", "MPI", "OMPI", "PRTE", "SLURM")


def environment() -> dict[str, str]:
    """This process's environment without the launcher's part, one thread."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(LAUNCHERS)}
    return own | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
