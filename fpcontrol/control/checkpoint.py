"""Checkpoints of an optimization: best weights, history, and which problem they belong to."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np

from fpcontrol.control.tracking import TrackingProblem
from fpcontrol.parallel.errors import collective_errors
from fpcontrol.parallel.files import replacing
from fpcontrol.typing import Array


@dataclass(frozen=True)
class Iterate:
    """State of the optimization after an iteration; ``evaluations`` and ``seconds`` so far."""

    iteration: int
    evaluations: int
    value: float
    relative_error: float
    gradient_norm: float
    seconds: float


def write_checkpoint(
    path: Path,
    fingerprint: Mapping[str, Any],
    weights: Array,
    history: Sequence[Iterate],
    comm: MPI.Comm,
    result: Mapping[str, Any] | None = None,
) -> None:
    """Write weights and history to a path from ``output_path``. Collective on ``comm``.

    Args:
        path: Where to.
        fingerprint: Of the problem, see ``TrackingProblem.fingerprint``.
        weights: Best weights, flat.
        history: Of the optimization so far.
        comm: The problem's communicator; or that of rank 0 alone, where another rank may be lost.
        result: How the optimization ended, if it has.
    """
    with replacing(path, comm) as beside:
        if comm.rank == 0:
            with open(beside, "wb") as file:
                np.savez(
                    file,
                    weights=weights,
                    history=json.dumps([asdict(i) for i in history]),
                    problem=json.dumps(dict(fingerprint)),
                    result=json.dumps(dict(result or {}), default=str),
                )


def read_checkpoint(
    path: str | os.PathLike[str], problem: TrackingProblem, name: str = "resume"
) -> tuple[Array, list[Iterate], dict[str, Any]]:
    """Weights, history and end of a checkpoint of this problem. Collective.

    Args:
        path: The file.
        problem: The problem.
        name: Of the path in messages.

    Raises:
        OSError: On all ranks, if there is no such file or it is no checkpoint.
        ValueError: On all ranks, if it belongs to another problem; the message says how it differs.
    """
    comm = problem.elements.comm
    content = None
    with collective_errors(comm):
        if comm.rank == 0:
            try:
                with np.load(path) as file:
                    content = (
                        file["weights"],
                        json.loads(str(file["history"])),
                        json.loads(str(file["problem"])),
                        json.loads(str(file["result"])) if "result" in file else {},
                    )
            except FileNotFoundError:
                raise FileNotFoundError(f"{name} = {str(path)!r}: there is no such file.") from None
            except Exception as error:
                raise OSError(f"{name} = {str(path)!r} is not a checkpoint: {error}") from None
    weights, history, theirs, result = comm.bcast(content)
    ours = problem.fingerprint()
    differing = [
        f"{key} = {theirs.get(key)!r} there, {ours.get(key)!r} here"
        for key in (ours | theirs)
        if not _same(theirs.get(key), ours.get(key))
    ]
    if differing:
        raise ValueError(f"{name} = {str(path)!r} is of another problem: {'; '.join(differing)}.")
    return weights, [Iterate(**i) for i in history], result


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, float) and isinstance(b, float):
        # Sums over ranks differ by round-off; norms of densities are small in large units.
        return bool(np.isclose(a, b, rtol=1e-8, atol=0.0))
    return bool(a == b)
