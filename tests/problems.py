"""Problems with known solutions, and small ones for everything else, shared by the tests."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np
from dolfinx import fem
from dolfinx.mesh import Mesh

import fpcontrol as fpc
from fpcontrol.galerkin import Galerkin

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


@dataclass(frozen=True)
class Manufactured:
    r"""A positive density and a drift without source that carries it on the unit cube.

    .. math:: \rho = 1 + a(t)\prod_i\cos\pi x_i,\qquad
        v\rho = D\nabla\rho + \nabla\phi + \operatorname{curl}\psi,\qquad
        \phi = \frac{a'(t)}{d\pi^2}\prod_i\cos\pi x_i

    ``psi`` vanishes on the walls, so that ``v.n = 0``; with ``c`` it changes in time, and v is no
    gradient.

    Args:
        dim: Dimension.
        sigma: Noise.
        a, slope: Amplitude in (-1, 1) and its time derivative. With affine ``a`` Crank-Nicolson
            makes no error in time: the density at the middle is the mean of those at the ends.
        c: Strength of the rotation.
    """

    dim: int
    sigma: float = 0.7
    a: Callable[[float], float] = lambda t: 0.6 - 0.9 * t
    slope: Callable[[float], float] = lambda t: -0.9
    c: Callable[[float], float] = lambda t: 0.3 * np.cos(3.0 * t)

    def density(self, t: float, x: np.ndarray) -> np.ndarray:
        """Density at points ``(N, d)``."""
        return 1.0 + self.a(t) * np.cos(np.pi * x).prod(axis=1)

    def drift(self, t: float, x: np.ndarray) -> np.ndarray:
        """Drift at points ``(N, d)``."""
        d, pi = self.dim, np.pi
        cos, sin = np.cos(pi * x), np.sin(pi * x)
        gradient = np.empty_like(x)
        for i in range(d):
            gradient[:, i] = -pi * sin[:, i] * np.delete(cos, i, axis=1).prod(axis=1)
        flux = (0.5 * self.sigma**2 * self.a(t) + self.slope(t) / (d * pi**2)) * gradient
        if d > 1:
            height = 1.0 + 0.5 * cos[:, 2] if d == 3 else 1.0
            flux[:, 0] += self.c(t) * height * pi * sin[:, 0] * cos[:, 1]
            flux[:, 1] -= self.c(t) * height * pi * cos[:, 0] * sin[:, 1]
        return flux / self.density(t, x)[:, None]

    def start(self, mesh: Mesh, degree: int) -> fem.Function:
        """The density at time 0 in a finite-element space."""
        return fpc.density.interpolate(mesh, lambda x: self.density(0.0, x[: self.dim].T), degree)


def l2_error(u: fem.Function, exact: Callable[[np.ndarray], np.ndarray]) -> float:
    """L2 norm of ``u - exact(x)``, x of shape ``(N, d)``."""
    # The square of the error is no polynomial: six degrees more than the equation's quadrature.
    g = Galerkin(u.function_space, 2 * u.function_space.element.basix_element.degree + 6)
    error = g.evaluate(u.x.array).ravel() - exact(g.points)
    return g.sum(float(g.quadrature_weights @ error**2)) ** 0.5


def orders(errors: list[float]) -> np.ndarray:
    """Observed orders of errors of which each is at half the size of the one before."""
    return np.log2(np.array(errors[:-1]) / np.array(errors[1:]))


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
