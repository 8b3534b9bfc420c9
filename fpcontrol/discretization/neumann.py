"""The pure Neumann problem, solved to round-off: the Moser identity is checked there."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from mpi4py import MPI

import numpy as np
from petsc4py import PETSc
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from fpcontrol.discretization.elements import Elements
from fpcontrol.linalg.linear_solvers import LinearSolver
from fpcontrol.parallel.errors import reduced
from fpcontrol.typing import Array

# In 3-D factors fill up: those of 300 000 degrees of freedom take 4 GiB. Algebraic multigrid takes
# a tenth of that, and less time from some thousands on.
MULTIGRID = {
    "ksp_type": "cg",
    "ksp_pc_side": "left",
    "ksp_rtol": 1e-10,
    "pc_type": "gamg",
    "pc_gamg_threshold": 0.01,
}
ROUNDS = 4
# Masses of one part agree if they differ by less than this fraction of all the mass: round-off of
# sums, and what a solver that conserves the total only moves between the parts.
ROUND_OFF = 1e-12
# As many parts as a message lists.
LISTED = 8


class UnequalMasses(ValueError, ArithmeticError):
    """Two densities differ in mass on a part of the mesh: no flow without flux at walls joins them.

    Raised on all ranks. (An ``ArithmeticError`` too, as ``distances.h_minus_1`` has always raised.)
    """


@dataclass(frozen=True)
class Parts:
    """The parts of a mesh that do not touch each other, in the order of their lowest coordinates.

    Attributes:
        number: Part of each local degree of freedom, ``(n_local,)``.
        integrals: Of the owned basis functions, ``(n_owned,)``.
        volumes: Volumes of the parts, ``(count,)``.
        middles: Their centres of volume, ``(count, d)``.
        lower: Their lowest coordinates, ``(count, d)``.
        upper: Their highest ones.
        comm: The mesh's communicator.
    """

    number: Array
    integrals: Array
    volumes: Array
    middles: Array
    lower: Array
    upper: Array
    comm: MPI.Comm

    @classmethod
    def of(cls, g: Elements) -> Self:
        """The parts of a mesh: cells that share a node are of one part. Collective.

        Components are found on each rank, and joined where a ghost is of another component on its
        owner's rank: only these pairs are sent round.
        """
        cells = g.space.dofmap.list  # of this rank, its ghosts included
        first, others = np.repeat(cells[:, 0], cells.shape[1]), cells.ravel()
        found, component = _components(first, others, g.n_local)
        own = component + (g.comm.exscan(found) or 0)
        owners = g.vector()
        owners.array[:] = own
        owners.scatter_forward()
        pairs = np.unique(np.column_stack([own, owners.array])[g.n_owned :].astype(int), axis=0)
        joined = np.concatenate(g.comm.allgather(pairs))
        count, part = _components(joined[:, 0], joined[:, 1], g.comm.allreduce(found))
        number = part[own]

        # Of the mesh's nodes, which all ranks know to the last bit, unlike those of the space.
        geometry, box = g.mesh.geometry, np.full((2, count, g.dimension), np.inf)
        nodes = geometry.x[geometry.dofmaps[0][: g.n_cells], : g.dimension]
        np.minimum.at(box[0], number[g.dofs[0]], nodes.min(axis=1))
        np.minimum.at(box[1], number[g.dofs[0]], -nodes.max(axis=1))
        lower, upper = reduced(g.comm, box, MPI.MIN)
        order = np.lexsort(np.hstack([lower, upper])[:, ::-1].T)
        number = np.argsort(order)[number]
        x = g.space.tabulate_dof_coordinates()[: g.n_owned, : g.dimension]
        volumes, *middles = (
            _sums(g.comm, number, values, count) for values in (g.integrals, *(g.integrals * x.T))
        )
        middles = np.array(middles).T / volumes[:, None]
        return cls(number, g.integrals, volumes, middles, lower[order], -upper[order], g.comm)

    def sums(self, owned: Array) -> Array:
        """Sums of owned values over each part, ``(count,)``. Collective."""
        return _sums(self.comm, self.number, owned, len(self.volumes))

    def without_mean(self, load: Array) -> Array:
        """A dual vector, owned, less the constant on each part that has its mean. Collective."""
        return load - self.integrals * (self.sums(load) / self.volumes)[self.number[: len(load)]]

    def check_masses(self, rtol: float, masses: Mapping[str, Array]) -> None:
        """Refuse two densities of different masses on a part.

        Args:
            rtol: Relative difference that is none.
            masses: By the names of both densities, masses ``(count,)``, the same on all ranks.

        Raises:
            UnequalMasses: On all ranks, with the masses of the parts where they differ.
        """
        (a, b), (one, two) = masses, masses.values()
        floor = ROUND_OFF * max(np.abs(one).sum(), np.abs(two).sum())
        allowed = np.maximum(rtol * np.maximum(np.abs(one), np.abs(two)), floor)
        bad = np.flatnonzero(~(np.abs(one - two) <= allowed))
        if not bad.size:
            return
        lines = [
            f"{one[k]:.9g} and {two[k]:.9g} from {_place(self.lower[k])} to {_place(self.upper[k])}"
            for k in bad[:LISTED]
        ]
        raise UnequalMasses(
            f"{a} and {b} have different masses on {bad.size} of the several parts of the mesh, "
            f"{len(self.volumes)} that do not touch, and between these nothing flows: masses "
            f"{'; '.join(lines)}{'; ...' if bad.size > LISTED else ''}. Scale one density on each "
            "part to the mass of the other, or use a mesh of one part."
        )


def _place(x: Array) -> str:
    return f"({', '.join(f'{value:g}' for value in x)})"


def _components(rows: Array, columns: Array, n: int) -> tuple[int, Array]:
    """Number of components of a graph with ``n`` vertices, and the component of each."""
    graph = coo_array((np.ones(len(rows), dtype=np.int8), (rows, columns)), (n, n))
    return connected_components(graph, directed=False)


def _sums(comm: MPI.Comm, number: Array, owned: Array, count: int) -> Array:
    sums = np.bincount(number[: len(owned)], owned, minlength=count)
    return reduced(comm, sums.astype(float))  # a rank without values counts in integers


def potential(g: Elements, load: Array, parts: Parts, stiffness: PETSc.Mat | None = None) -> Array:
    r"""Solve :math:`-\Delta\phi = f`, :math:`\partial_n\phi = 0`, to round-off. Collective.

    What is left of the mean of ``f`` on each part of the mesh is taken out: there is a solution
    for every ``load``, and whether the mean was round-off is to be asked before
    (``Parts.check_masses``).

    ``K`` has the constants on each part as null space. With a unit vector :math:`e_j` of each part
    and a load that sums to zero on each, the solution of
    :math:`(K + \sum_j k_j e_j e_j^\top) x = b` has :math:`e_j^\top x = 0` and solves
    :math:`K x = b`, because the sum of the rows of a part is :math:`k_j\,e_j^\top x`; so no solver
    has to know of the null space. LU in 1-D and 2-D, conjugate gradients with algebraic multigrid
    in 3-D (LU should they fail), and refinement as long as it helps.

    Args:
        g: The space of the potential.
        load: Dual vector :math:`(f, \phi_i)`, owned.
        parts: ``Parts.of(g)``.
        stiffness: ``K``, with the pattern of the space; its own unless given.

    Returns:
        Local degrees of freedom, zero in one node of each part.

    Raises:
        ArithmeticError: On all ranks, if the solver has failed.
    """
    load, K = parts.without_mean(load), g.stiffness if stiffness is None else stiffness
    b, x = g.vector(), g.vector()
    b.set(load)
    _solve(_pinned(g, K, parts), b.petsc_vec, x.petsc_vec, g.dimension)
    x.changed()
    x.scatter_forward()
    residual = g.vector()
    K.mult(x.petsc_vec, residual.petsc_vec)
    error = residual.array[: g.n_owned] - load
    if not g.inner(error, error) <= 1e-12 * g.inner(load, load):
        raise ArithmeticError(
            "The solver of the Neumann problem has failed: its residual is "
            f"{np.sqrt(g.inner(error, error) / g.inner(load, load)):.2g} of the load. Are there "
            "cells that are nearly flat?"
        )
    return x.array.copy()


def _pinned(g: Elements, K: PETSc.Mat, parts: Parts) -> PETSc.Mat:
    """Stiffness matrix with the diagonal doubled in the first node of each part. Collective."""
    pinned, first = K.copy(), g.index_map.local_range[0]
    owned = parts.number[: g.n_owned]
    present, place = np.unique(owned, return_index=True)
    lowest = np.full(len(parts.volumes), g.index_map.size_global, dtype=np.int64)
    lowest[present] = first + place
    mine = lowest == reduced(g.comm, lowest, MPI.MIN)
    mine &= lowest < g.index_map.size_global
    for i in lowest[mine].tolist():
        value = K.getValue(i, i)
        pinned.setValue(i, i, value, addv=PETSc.InsertMode.ADD_VALUES)
    pinned.assemble()
    return pinned


def _solve(pinned: PETSc.Mat, b: PETSc.Vec, x: PETSc.Vec, dimension: int) -> None:
    prefix = "fpcontrol_neumann_"
    if dimension == 3:
        solver = LinearSolver(pinned, "auto", dimension=3, petsc_options=MULTIGRID, prefix=prefix)
    else:
        solver = LinearSolver(pinned, "direct", dimension=dimension, prefix=prefix)
    x.set(0.0)
    residual, correction, before = b.copy(), b.duplicate(), float("inf")
    for _ in range(ROUNDS):
        size = residual.norm()
        if not 0.0 < size < 0.3 * before:
            break
        correction.set(0.0)
        solver.solve(residual, correction)
        x.axpy(1.0, correction)
        pinned.mult(x, residual)
        residual.aypx(-1.0, b)
        before = size
