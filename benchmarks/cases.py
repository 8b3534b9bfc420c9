"""What the benchmarks of steps run: unit square or cube, dt D/h^2 = 1, and drifts for both sides.

A drift comes twice: as `fpcontrol` takes it, and as plain DOLFINx takes it, in a UFL expression
with Constants or by numpy in a quadrature Function, of which the faster counts.
"""

from typing import Any

from mpi4py import MPI

import numpy as np
import ufl
from dolfinx import fem
from plain_dolfinx import QuadratureDrift, UflDrift

import fpcontrol as fpc

COMM = MPI.COMM_WORLD
SIGMA = 0.5
D = 0.5 * SIGMA**2
RTOL = 1e-10
# Said in full to both, so that both run the same method whatever their defaults. The ordering by
# reverse Cuthill-McKee halves the iterations of ILU(0) for degree 2.
OPTIONS: dict[str, Any] = {
    "ksp_type": "gmres",
    "ksp_rtol": RTOL,
    "ksp_atol": 1e-300,
    "ksp_pc_side": "right",
}
if COMM.size == 1:
    OPTIONS |= {"pc_type": "ilu", "pc_factor_mat_ordering_type": "rcm", "pc_factor_levels": 0}
else:
    OPTIONS |= {"pc_type": "asm", "pc_asm_overlap": 1, "sub_pc_factor_mat_ordering_type": "rcm"}
# For an operator in 2-D that stays: on one rank PETSc's own LU with nested dissection, which solves
# in half the time of MUMPS.
DIRECT: dict[str, Any] = {"ksp_type": "preonly", "pc_type": "lu"}
if COMM.size == 1:
    DIRECT |= {"pc_factor_mat_solver_type": "petsc", "pc_factor_mat_ordering_type": "nd"}
else:
    DIRECT |= {"pc_factor_mat_solver_type": "mumps"}
TURN = 40  # steps in which the cheap drift goes round once


class Case:
    """One mesh with its time step: dt D/h^2 = 1, h the side of a square or cube.

    Args:
        n: Squares or cubes a side.
        degree: Polynomial degree.
        steps: Steps of the longest run.
        dimension: 2 or 3.
    """

    def __init__(self, n: int, degree: int, steps: int, dimension: int = 2) -> None:
        self.n, self.degree, self.steps, self.dimension = n, degree, steps, dimension
        mesh = fpc.mesh.rectangle if dimension == 2 else fpc.mesh.box
        self.mesh = mesh(COMM, (n,) * dimension)
        self.dt = 1.0 / (n * n * D)
        self.start = fpc.density.interpolate(
            self.mesh, lambda x: 1.0 + 0.5 * np.cos(np.pi * x[0]) * np.cos(np.pi * x[1]), degree
        )
        self.space = self.start.function_space
        self.dofs = self.space.dofmap.index_map.size_global

    def t1(self, steps: int) -> float:
        """Time after some steps."""
        return steps * self.dt

    def per_dof(self, seconds: float, steps: int) -> float:
        """Microseconds per degree of freedom and step."""
        return 1e6 * seconds / (steps * self.dofs)


def centre(case: Case, angle: float) -> np.ndarray:
    """A point on a circle about the middle of the domain."""
    middle = np.full(case.dimension, 0.5)
    middle[:2] += 0.25 * np.cos(angle), 0.25 * np.sin(angle)
    return middle


def steady(case: Case) -> fpc.drift.Steady:
    """Towards a centre that stays."""
    return fpc.drift.Steady(lambda x: centre(case, 0.0) - x)


def steady_plain(case: Case) -> UflDrift:
    """The same for DOLFINx."""
    expression = fem.Constant(case.mesh, centre(case, 0.0)) - ufl.SpatialCoordinate(case.mesh)
    return UflDrift(expression, lambda t: None)


def cheap(case: Case) -> Any:
    """Towards a centre that goes round: an addition a point and component."""

    def drift(t: float, x: np.ndarray) -> np.ndarray:
        return centre(case, 2.0 * np.pi * t / case.t1(TURN)) - x

    return drift


def cheap_plain(case: Case, drift: Any) -> dict[str, Any]:
    """The same for DOLFINx, in its two forms."""
    middle = fem.Constant(case.mesh, np.zeros(case.dimension))
    origin = np.zeros((1, case.dimension))

    def update(t: float) -> None:
        middle.value[:] = drift(t, origin)[0]

    expression = middle - ufl.SpatialCoordinate(case.mesh)
    return {
        "ufl": UflDrift(expression, update),
        "quadrature": QuadratureDrift(case.space, 2 * case.degree, drift),
    }


def network(case: Case, width: int, pieces: int) -> fpc.NetworkDrift:
    """Network whose speed does not grow with its width, so that iterations stay comparable."""
    drift = fpc.NetworkDrift(case.mesh, width, pieces, case.t1(case.steps))
    outer, _, _ = drift.network.unpack(drift.weights.reshape(pieces, -1))
    outer *= (2.0 / width) ** 0.5
    return drift


def network_plain(case: Case, drift: fpc.NetworkDrift) -> dict[str, Any]:
    """The same for DOLFINx; wide networks as UFL would take the form compiler minutes."""
    found: dict[str, Any] = {
        "quadrature": QuadratureDrift(case.space, 2 * case.degree, drift),
    }
    if drift.network.width <= 4:
        m, d = drift.network.width, case.dimension
        w, a, b = (fem.Constant(case.mesh, np.zeros(s)) for s in ((d, m), (m, d), (m,)))
        y = (ufl.SpatialCoordinate(case.mesh) - ufl.as_vector(drift.centre)) / drift.scale
        hidden = [ufl.tanh(ufl.dot(a[i, :], y) + b[i]) for i in range(m)]

        def update(t: float) -> None:
            weights = drift.network.unpack(drift.weights_at(t))
            for constant, value in zip((w, a, b), weights, strict=True):
                constant.value[...] = value

        v = [drift.scale * sum(w[k, i] * hidden[i] for i in range(m)) for k in range(d)]
        found["ufl"] = UflDrift(ufl.as_vector(v), update)
    return found
