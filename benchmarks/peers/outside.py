"""Peers in an environment of their own, .venv-peers beside the project, started as programs."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
# Another place may be told, such as one that several clones share.
PEERS = Path(os.environ.get("FPCONTROL_PEERS", HERE.parents[1] / ".venv-peers"))
MISSING = "FiPy is left out: {} is not there; `make peers` makes it."
# What an MPI launcher tells its processes: a program started from one of them is not its child.
LAUNCHER = ("PMI", "HYD", "MPI", "OMPI", "PRTE", "SLURM")


def environment() -> dict[str, str]:
    """The environment without what a launcher of MPI has put there."""
    return {k: v for k, v in os.environ.items() if not k.startswith(LAUNCHER)}


def fipy(*arguments: Any, timeout: float = 600.0) -> dict[str, Any] | None:
    """What peers/fipy_steps.py prints for these arguments; None, and a line, without FiPy."""
    python = PEERS / "bin" / "python"
    if not python.exists():
        print(MISSING.format(PEERS))
        return None
    command = [str(python), str(HERE / "fipy_steps.py"), *map(str, arguments)]
    clean = {k: v for k, v in environment().items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    clean["OMP_NUM_THREADS"] = clean["OPENBLAS_NUM_THREADS"] = "1"
    done = subprocess.run(
        command, capture_output=True, text=True, env=clean, timeout=timeout, check=False
    )
    if done.returncode and "No module named 'fipy'" in done.stderr:
        print(f"FiPy is left out: it is not installed in {PEERS}.")
        return None
    if done.returncode:
        raise RuntimeError(f"fipy_steps.py failed:\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
