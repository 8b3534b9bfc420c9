"""Problems with known solutions, and small ones for everything else, shared by the tests."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np
from dolfinx import fem
from dolfinx.mesh import Mesh

import fpcontrol as fpc
from fpcontrol.theorems.framework.checks import Study

WORLD, SELF = MPI.COMM_WORLD, MPI.COMM_SELF

# Ranks that have an error wait this long (seconds) for the others to get it too.
PATIENCE = 20.0
meeting = WORLD.Dup()  # not to be taken for a collective call that another rank is still in


def cube(comm: MPI.Comm, dim: int, n: int, size: float = 1.0, lower: float = 0.0) -> Mesh:
    """Interval, square or cube ``(lower, lower + size)**dim`` with n cells a side."""
    low, high = (lower,) * dim, (lower + size,) * dim
    if dim == 1:
        return fpc.mesh.interval(comm, n, *low, *high)
    return (fpc.mesh.rectangle if dim == 2 else fpc.mesh.box)(comm, (n,) * dim, low, high)


def bump(mesh: Mesh, degree: int, centre: float, width: float = 0.3) -> fem.Function:
    """Density of a Gaussian on a floor; centre and width in the unit of a mesh from ``cube``."""
    x = mesh.geometry.x[:, 0]
    low = mesh.comm.allreduce(x.min(initial=np.inf), op=MPI.MIN)
    size = mesh.comm.allreduce(x.max(initial=-np.inf), op=MPI.MAX) - low
    dim = mesh.topology.dim

    def f(x: np.ndarray) -> np.ndarray:
        y = (x[:dim] - low) / size
        return 1.0 + 3.0 * np.exp(-((y - centre) ** 2).sum(axis=0) / (2.0 * width**2))

    return fpc.density.interpolate(mesh, f, degree)


def tracking(
    comm: MPI.Comm = WORLD,
    dim: int = 2,
    degree: int = 1,
    n: int = 4,
    *,
    size: float = 1.0,
    sigma: float | Callable[[float], float] = 0.8,
    t1: float = 1.0,
    steps: int = 4,
    pieces: int = 2,
    width: int | None = None,
    activation: str = "tanh",
    own_start: bool = False,
    **options: Any,
) -> fpc.TrackingProblem:
    """A small tracking problem: one bump is to become another. Sigma for a cube of side 1."""
    noise = (lambda t: sigma(t) * size) if callable(sigma) else sigma * size
    mesh = cube(comm, dim, n, size)
    start, goal = bump(mesh, degree, 0.3), bump(mesh, degree, 0.7)
    reference = fpc.MoserFlow(start, goal, t1, noise)
    drift = fpc.NetworkDrift(mesh, width or dim, pieces, t1, activation, seed=3)
    if own_start:
        options["start"] = bump(mesh, degree, 0.5, 0.4)
    return fpc.TrackingProblem(reference, drift, noise, steps, **options)


def raised(error: type[Exception], call: Callable[[], Any]) -> str:
    """The message of the error, which every rank must get, and get the same."""
    message = None
    try:
        call()
    except error as caught:
        message = str(caught)
    arrived, deadline = meeting.Ibarrier(), time.monotonic() + PATIENCE
    while not arrived.Test():
        # A rank that fails ends the run for those that are stuck, see conftest.py.
        assert time.monotonic() < deadline, f"others are still in the call: {message}"
        time.sleep(1e-4)
    assert WORLD.allgather(message) == [message] * WORLD.size, "ranks differ"
    assert message is not None, f"no {error.__name__}"
    return message


def mpirun(script: Path, ranks: int = 2) -> list[str]:
    """Command that runs a script on ranks, by the mpirun of this environment if it has one."""
    beside = Path(sys.executable).parent / "mpirun"
    launcher = str(beside) if beside.exists() else "mpirun"
    return [launcher, "-n", str(ranks), sys.executable, "-m", "mpi4py", str(script)]


def failures(study: Study) -> list[str]:
    """Quantities of the rows that do not pass."""
    return [row.quantity for row in study.rows if not row.passed]
