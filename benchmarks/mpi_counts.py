"""Messages, bytes and collective calls of this process, by the library made of mpi_counts.c."""

import ctypes
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from processes import environment

KINDS = ("messages", "bytes", "reductions", "other collectives")


def built(folder: Path) -> Path:
    """The library to preload, compiled with the compiler wrapper of the MPI in use."""
    target = folder / "mpi_counts.so"
    source = Path(__file__).with_suffix(".c")
    subprocess.run(
        [program("mpicc"), "-shared", "-fPIC", "-O2", "-o", str(target), str(source)], check=True
    )
    return target


def program(name: str) -> str:
    """A program of the environment's MPI, before any other of the machine's."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise FileNotFoundError(f"{name} is needed; there is none beside Python or in PATH.")
    return found


def launch(ranks: int, *command: str, preload: Path | None = None) -> None:
    """Run a Python script on ranks of its own, from inside or outside of another MPI run."""
    # By env, not by an option of the launcher, which each calls otherwise.
    preloaded = ["env", f"LD_PRELOAD={preload}"] if preload else []
    launcher = [program("mpirun"), "-n", str(ranks), *preloaded]
    subprocess.run(
        [*launcher, sys.executable, "-m", "mpi4py", *command],
        env=environment(),
        stdin=subprocess.DEVNULL,
        check=True,
    )


def counted(run: Callable[[], Any]) -> dict[str, int]:
    """What a call makes this process send."""
    counts = (ctypes.c_longlong * len(KINDS)).in_dll(ctypes.CDLL(None), "fpcontrol_mpi_counts")
    before = list(counts)
    run()
    return {kind: b - a for kind, a, b in zip(KINDS, before, counts, strict=True)}
