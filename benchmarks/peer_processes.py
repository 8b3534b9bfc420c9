"""Peers in an environment of their own, as processes that run a round whenever they are told.

``.ci/install_peers`` (``make peers``) makes the environment; ``peers/worker.py`` is the other side.
A peer sets up and warms up once and then waits, so that rounds of several peers, and of what runs
here, can be taken in turns.
"""

import json
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
from processes import environment

HERE = Path(__file__).parent
PYTHON = HERE.parent / ".venv-peers" / "bin" / "python"
MISSING = "Peers of other environments are left out: `make peers` sets them up in .venv-peers."
# XLA: one thread, as for the ranks here.
THREADS = {
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}


def available() -> bool:
    """Whether there is an environment of peers."""
    return (PYTHON.parent.parent / "ready").exists()


class Peer:
    """One process.

    Args:
        name: Module in ``benchmarks/peers/``.
        arguments: What it is told, for JSON.
        patience: Seconds to wait for an answer.

    Attributes:
        facts: What it says about itself after its setup.
        derivative: What it computed in the warm-up.
    """

    def __init__(self, name: str, arguments: dict[str, Any], patience: float = 300.0) -> None:
        self.name, self._patience = name, patience
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder, "derivative.npy"))
            case = arguments | {"derivative": path}
            self._errors = tempfile.TemporaryFile("w+")
            self._process = subprocess.Popen(
                [str(PYTHON), "-m", f"peers.{name}", json.dumps(case)],
                cwd=HERE,
                env=_environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
            )
            self.facts = self._answer()
            self.derivative = np.load(path)

    def round(self, number: int) -> dict[str, float]:
        """Seconds of a round, by what was timed."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{number}\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the process."""
        self._process.communicate(timeout=self._patience)
        self._errors.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        timer = threading.Timer(self._patience, self._process.kill)
        timer.start()
        line = self._process.stdout.readline()
        timer.cancel()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            last = "".join(self._errors.readlines()[-20:])
            raise RuntimeError(f"The peer {self.name} gave no answer:\n{last}")
        return json.loads(line)


def answer(tool: str, *arguments: Any, timeout: float = 600.0) -> dict[str, Any] | None:
    """What ``peers/<tool>_steps.py`` prints for these arguments; None, and a line, without it."""
    if not available():
        print(MISSING)
        return None
    command = [str(PYTHON), str(HERE / "peers" / f"{tool}_steps.py"), *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=_environment(), timeout=timeout, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{tool}_steps.py failed:\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _environment() -> dict[str, str]:
    """For a Python of another environment."""
    own = {k: v for k, v in environment().items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    return own | THREADS
