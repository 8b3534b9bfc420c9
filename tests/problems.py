"""Problems with known solutions, and small ones for everything else, shared by the tests."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpi4py import MPI

import basix.ufl
import dolfinx.fem.petsc
import dolfinx.mesh
import numpy as np
import pytest
import ufl
from dolfinx import fem
from dolfinx.mesh import Mesh
from scipy.spatial import Delaunay

import fpcontrol as fpc
from fpcontrol.parallel.communicators import comm_of
from fpcontrol.theorems.framework.checks import Study

WORLD, SELF = MPI.COMM_WORLD, MPI.COMM_SELF

# Ranks that have an error wait this long (seconds) for the others to get it too.
PATIENCE = 60.0
# Seconds for a program of a test, which take it a few, and on a busy machine ten times as many.
PROGRAM = 300.0
meeting = WORLD.Dup()  # not to be taken for a collective call that another rank is still in


def cube(comm: MPI.Comm, dim: int, n: int, size: float = 1.0, lower: float = 0.0) -> Mesh:
    """Interval, square or cube ``(lower, lower + size)**dim`` with n cells a side."""
    low, high = (lower,) * dim, (lower + size,) * dim
    if dim == 1:
        return fpc.mesh.interval(comm, n, *low, *high)
    return (fpc.mesh.rectangle if dim == 2 else fpc.mesh.box)(comm, (n,) * dim, low, high)


def disk(comm: MPI.Comm, rings: int) -> Mesh:
    """The unit disk."""
    rows = [np.zeros((1, 2))]
    for k in range(1, rings + 1):
        angle = 2.0 * np.pi * np.arange(6 * k) / (6 * k)
        rows.append(k / rings * np.column_stack([np.cos(angle), np.sin(angle)]))
    x = np.concatenate(rows)
    element = ufl.Mesh(basix.ufl.element("Lagrange", "triangle", 1, shape=(2,)))
    cells = Delaunay(x).simplices.astype(np.int64) if comm.rank == 0 else np.empty((0, 3), np.int64)
    return dolfinx.mesh.create_mesh(comm, cells, element, x if comm.rank == 0 else x[:0])


def bump(mesh: Mesh, degree: int, centre: float, width: float = 0.3) -> fem.Function:
    """Density of a Gaussian on a floor; centre and width in the unit of a mesh from ``cube``."""
    x = mesh.geometry.x[:, 0]
    low = comm_of(mesh).allreduce(x.min(initial=np.inf), op=MPI.MIN)
    size = comm_of(mesh).allreduce(x.max(initial=-np.inf), op=MPI.MAX) - low
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


# Dimension, degree, cells a side: small, with every dimension and degree together.
SPACES = [
    *((1, 1, 9), (1, 2, 6), (1, 3, 5)),
    *((2, 1, 5), (2, 2, 4), (2, 3, 3)),
    *((3, 1, 3), (3, 2, 2), (3, 3, 1)),
]
THREE = [(1, 3, 5), (2, 2, 4), (3, 1, 3)]
SCHEMES = [fpc.CrankNicolson(), fpc.BackwardEuler(), fpc.SDIRK2(), fpc.SDIRK4()]


def schemes() -> pytest.MarkDecorator:
    """Every scheme."""
    return pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.name)


def spaces_and_schemes() -> pytest.MarkDecorator:
    """Every space and every scheme, and the schemes in use most with every space."""
    pairs = [(*space, scheme) for space in SPACES for scheme in SCHEMES[:2]]
    pairs += [(*space, SCHEMES[2 + i % 2]) for i, space in enumerate(SPACES)]
    return pytest.mark.parametrize(
        ("dim", "degree", "n", "scheme"), pairs, ids=lambda part: getattr(part, "name", None)
    )


def stirring(t: float, x: np.ndarray) -> np.ndarray:
    """A drift that changes in time, is no gradient and goes through the walls."""
    return np.sin(3.0 * x[:, ::-1] + t) + 0.3


RANKS = pytest.mark.parallel([1, 2, 3])
A = 2.0  # strength of the oscillating drift (A/k) sin(kx), up to time 1


def ones(x: np.ndarray) -> np.ndarray:
    return np.ones(len(x))


@dataclass(frozen=True)
class Ripple:
    """The drift (A/k) sin(k x_i) in every coordinate, with its divergence."""

    k: float

    def __call__(self, t: float, x: np.ndarray) -> np.ndarray:
        return A / self.k * np.sin(self.k * x)

    def divergence(self, t: float, x: np.ndarray) -> np.ndarray:
        return A * np.cos(self.k * x).sum(axis=1)


def region(mesh: Mesh, left: float, right: float, family="DG", degree=0) -> fem.Function:
    """A Function of one value left of the middle and another one right of it."""
    sigma = fem.Function(fem.functionspace(mesh, (family, degree)))
    sigma.interpolate(lambda x: np.where(x[0] < 0.5, left, right))
    return sigma


def l_shape(comm, n: int = 6) -> Mesh:
    """The unit square without its upper right quarter."""
    x = np.array([[i / n, j / n] for j in range(n + 1) for i in range(n + 1)])
    corner = [j * (n + 1) + i for j in range(n) for i in range(n) if i < n // 2 or j < n // 2]
    cells = np.array([[[c, c + 1, c + n + 1], [c + 1, c + n + 2, c + n + 1]] for c in corner])
    used, cells = np.unique(cells.reshape(-1, 3), return_inverse=True)
    element = basix.ufl.element("Lagrange", "triangle", 1, shape=(2,))
    if comm.rank:
        return dolfinx.mesh.create_mesh(
            comm, np.empty((0, 3), dtype=np.int64), ufl.Mesh(element), np.empty((0, 2))
        )
    return dolfinx.mesh.create_mesh(
        comm, cells.reshape(-1, 3).astype(np.int64), ufl.Mesh(element), x[used]
    )


DOMAINS = {
    "interval": lambda comm: cube(comm, 1, 4),
    "square": lambda comm: cube(comm, 2, 4, size=300.0),
    "box": lambda comm: cube(comm, 3, 2),
    "l-shape": l_shape,
}


def jumping(t: float, x: np.ndarray) -> np.ndarray:
    """Towards the middle, at a speed that jumps at 0.3 and 0.6."""
    return -(1.0 + 3.0 * (t > 0.3) - 2.0 * (t > 0.6)) * (x - 0.5)


def quiet(problem: fpc.TrackingProblem, **options) -> fpc.Result:
    """Minimize with a dozen iterations, and without a progress meter."""
    return fpc.minimize(problem, **{"max_iterations": 12, "progress": False} | options)


def count_derivatives(problem: fpc.TrackingProblem, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows by one with every evaluation of value and derivative."""
    calls: list[int] = []
    evaluate = problem.value_and_derivative

    def counted(weights):
        calls.append(len(calls) + 1)
        return evaluate(weights)

    monkeypatch.setattr(problem, "value_and_derivative", counted)
    return calls


def noiseless(comm=WORLD) -> fpc.TrackingProblem:
    """A neural ODE whose descent tries a step by which markers leave the domain."""
    mesh = fpc.mesh.interval(comm, 40)
    goal = fpc.density.interpolate(mesh, lambda x: np.exp(-40.0 * (x[0] - 0.8) ** 2), floor=0.05)
    reference = fpc.MoserFlow(fpc.density.uniform(mesh), goal, 1.0, 0.0)
    drift = fpc.NetworkDrift(mesh, 1, 5, seed=7)
    return fpc.TrackingProblem(reference, drift, 0.0, 20, terminal_weight=1.0)


LAST = WORLD.rank == WORLD.size - 1


def equation(drift=None, **options) -> fpc.FokkerPlanck:
    """A small equation on the unit square, at rest unless a drift is given."""
    options = {"sigma": 0.5, "degree": 1} | options
    return fpc.FokkerPlanck(cube(WORLD, 2, 4), drift or fpc.drift.zero(), **options)


def solve(drift=None, **options) -> fpc.Trajectory:
    """Two steps of ``equation(drift)``."""
    e = equation(drift)
    return e.solve(**{"start": bump(e.mesh, 1, 0.3), "t1": 1.0, "steps": 2} | options)


def minimize(**options) -> fpc.Result:
    """One iteration of ``tracking()``."""
    return fpc.minimize(tracking(), **{"max_iterations": 1, "progress": False} | options)
