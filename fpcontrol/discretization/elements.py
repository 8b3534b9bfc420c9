"""Continuous Lagrange elements on affine simplices: integrals, values, matrices, communication.

All cells are affine images of one reference cell, so that tables of the reference cell, made once,
serve them all, and no form is compiled.
"""

import functools

from mpi4py import MPI

import basix
import numpy as np
from dolfinx import fem
from dolfinx.la import InsertMode
from dolfinx.la import vector as la_vector
from dolfinx.mesh import Mesh
from petsc4py import PETSc

from fpcontrol.discretization.affine import check_mesh
from fpcontrol.discretization.sparsity import Matrix, Sparsity
from fpcontrol.linalg.communicators import lasting_comm
from fpcontrol.parallel.communicators import comm_of
from fpcontrol.typing import Array

MAX_DEGREE = 3
MAX_QUADRATURE = 30  # as far as basix's tables reach


def lagrange(mesh: Mesh, degree: int) -> fem.FunctionSpace:
    """Continuous Lagrange space of degree 1, 2 or 3 on a mesh of affine simplices. Collective.

    Raises:
        ValueError: On all ranks, for another degree, or a mesh that ``check_mesh`` refuses.
    """
    if degree not in range(1, MAX_DEGREE + 1):
        raise ValueError(f"degree = {degree!r} is not offered; choose 1, 2 or 3.")
    check_mesh(mesh)
    return fem.functionspace(mesh, ("Lagrange", degree))


def check_linear(space: fem.FunctionSpace, method: str) -> None:
    """Refuse a density that is not of degree 1 for a method that is made for it."""
    degree = space.element.basix_element.degree
    if degree != 1:
        raise ValueError(
            f"The density is of degree {degree}; {method} is a method for linear elements: make it "
            "with degree=1."
        )


def _checked_quadrature(asked: int | None, degree: int) -> int:
    if asked is None:
        return 2 * degree
    whole = isinstance(asked, int | np.integer) and not isinstance(asked, bool)
    if not whole or not 1 <= asked <= MAX_QUADRATURE:
        raise ValueError(
            f"quadrature_degree = {asked!r} must be a whole number from 1 to {MAX_QUADRATURE}, or "
            f"None for 2 * degree = {2 * degree}."
        )
    return int(asked)


class Vector:
    """A vector that numpy, PETSc and dolfinx share.

    Attributes:
        array: Local entries, owned and then ghosts.
        petsc_vec: The owned ones, as PETSc sees them.
    """

    def __init__(self, index_map) -> None:  # type: ignore[no-untyped-def]
        # Asked for once: dolfinx makes a new view each time, which a small mesh feels.
        self._vector = la_vector(index_map, 1)
        self.array: Array = self._vector.array
        # Not dolfinx's, which is on the mesh's communicator and has a scatter of its own.
        owned, size = index_map.size_local, (index_map.size_local, index_map.size_global)
        self.petsc_vec: PETSc.Vec = PETSc.Vec().createWithArray(
            self.array[:owned], size=size, comm=lasting_comm(index_map.comm)
        )
        self._alone = self.petsc_vec.comm.size == 1

    def __del__(self) -> None:
        # PETSc would keep what Python drops until all ranks clean up together.
        if "petsc_vec" in vars(self):
            self.petsc_vec.destroy()

    def changed(self) -> None:
        """Tell PETSc, which remembers norms, that ``array`` was written to."""
        self.petsc_vec.stateIncrease()

    def set(self, values: Array) -> None:
        """Copy values to the first entries."""
        self.array[: len(values)] = values
        self.changed()

    def scatter_forward(self) -> None:
        """Ghosts from their owners. Collective."""
        if not self._alone:
            self._vector.scatter_forward()

    def scatter_reverse(self) -> None:
        """Add ghosts to their owners. Collective."""
        if not self._alone:
            self._vector.scatter_reverse(InsertMode.add)


class Elements:
    r"""A Lagrange space with its quadrature points, integrals and matrices. Collective.

    Arrays called *local* hold owned and then ghost degrees of freedom of this rank, ghosts up to
    date. Points and drifts are those of the cells owned by this rank, ``N = n_points * n_cells``:
    the first quadrature point of all cells, then the second. (Cells come last in all inner arrays
    too, so that numpy's inner loops are long; drifts are fastest stored component by component.)

    Args:
        space: Lagrange space (``lagrange``).
        quadrature_degree: Degree of exactness of :math:`(v\rho,\nabla w)`; ``2 * degree`` unless
            given: exact for affine ``v``, and no error of its own for smooth drifts. Mass and
            stiffness are exact in any case, so that ``max(1, 2 * degree - 2)`` keeps the full order
            too, with a half to a third of the points for drift and network: for degree 1 the error
            then changes by -20 to +70 %, for degree 2 and 3 it may double and be five times as
            large on coarse meshes (``benchmarks/bench_choices.py``).
        rule: Points ``(n, d)`` and weights of a rule on the reference cell, exact for degree 1 at
            least, instead of one of ``quadrature_degree``.

    Raises:
        ValueError: On all ranks, for a bad quadrature degree.

    Attributes:
        points: Quadrature points, shape ``(N, d)``.
        quadrature_weights: Weights times cell volume, shape ``(N,)``.
        integrals: ``(1, phi_i)`` for owned ``i``, shape ``(n_owned,)``.
        volume: Volume of the domain.
        dofs: Local numbers of the basis functions, ``(n_basis, n_cells)``; ``cell_dofs`` the same
            in 32 bits.
        reference_points: The points in the reference cell, ``(n_points, d)``.
        reference_weights: Quadrature weights of the reference cell, ``(n_points,)``.
        basis_values: Basis functions at the points, ``(n_points, n_basis)``.
        basis_gradients: Their reference gradients, ``(d * n_points, n_basis)``.
        determinant: ``|det J|`` of the cells, ``(n_cells,)``.
        inverse_jacobian: ``(d, d, n_cells)``, reference direction first.
        cofactor: ``|det J| J^{-1}``, ``(d, d, n_cells)``.
    """

    def __init__(
        self,
        space: fem.FunctionSpace,
        quadrature_degree: int | None = None,
        rule: tuple[Array, Array] | None = None,
    ) -> None:
        mesh, element = space.mesh, space.element.basix_element
        self.space, self.mesh, self.comm = space, mesh, comm_of(mesh)
        self.dimension = d = mesh.topology.dim
        self.degree = element.degree
        self.quadrature_degree = _checked_quadrature(quadrature_degree, self.degree)
        self.index_map = space.dofmap.index_map
        self.n_owned = self.index_map.size_local
        self.n_local = self.n_owned + self.index_map.num_ghosts
        self.n_cells = mesh.topology.index_map(d).size_local
        # (basis, cells). As intp: numpy would convert other integers at every use as an index.
        self.cell_dofs = space.dofmap.list[: self.n_cells].T.astype(np.int32, order="C")
        self.dofs = self.cell_dofs.astype(np.intp)

        reference, w = rule or basix.make_quadrature(element.cell_type, self.quadrature_degree)
        table = element.tabulate(1, reference)[:, :, :, 0]  # (1 + d, points, basis functions)
        self.n_points, self.reference_points, self.reference_weights = len(w), reference, w
        self.basis_values = table[0].copy()  # (points, basis)
        self.basis_gradients = (
            table[1:].reshape(d * self.n_points, -1).copy()
        )  # (d * points, basis)

        x = mesh.geometry.x[mesh.geometry.dofmaps[0][: self.n_cells]][:, :, :d]
        jacobian = (x[:, 1:] - x[:, :1]).transpose(0, 2, 1)  # (cells, d, d), dx_k / dxhat_a
        self.inverse_jacobian = np.linalg.inv(jacobian).transpose(1, 2, 0).copy()  # (a, k, cells)
        self.determinant = np.abs(np.linalg.det(jacobian))
        self.cofactor = self.determinant * self.inverse_jacobian
        points = x[:, 0].T[:, None, :] + np.einsum("cka,qa->kqc", jacobian, reference)
        self.points = points.reshape(d, -1).T
        self.points.flags.writeable = False
        self.quadrature_weights = np.outer(w, self.determinant).ravel()

        # Exact for the element's own functions.
        hat, w = basix.make_quadrature(element.cell_type, self.degree)
        mean = w @ element.tabulate(0, hat)[0, :, :, 0]
        self.integrals = self.assemble(np.outer(mean, self.determinant))
        self.volume = self.sum(self.integrals.sum())

    def __str__(self) -> str:
        """Degree and quadrature, for messages."""
        return f"degree {self.degree}, quadrature {self.quadrature_degree}"

    @functools.cached_property
    def sparsity(self) -> Sparsity:
        """Structure of the matrices. Collective at first use."""
        return Sparsity(self.cell_dofs, self.index_map, self._clean_comm())

    @functools.cached_property
    def mass_values(self) -> Array:
        """Entries of the mass matrix, ``(sparsity.size,)``. Collective at first use."""
        table, w = self._exact_table()
        reference = np.einsum("q,qi,qj->ij", w, table[0], table[0])
        return self.sparsity.entries(np.outer(reference.ravel(), self.determinant))

    @functools.cached_property
    def stiffness_values(self) -> Array:
        """Entries of the stiffness matrix, ``(sparsity.size,)``. Collective at first use."""
        table, w = self._exact_table()
        reference = np.einsum("q,aqi,bqj->ijab", w, table[1:], table[1:])
        metric = np.einsum("akc,bkc->abc", self.cofactor, self.inverse_jacobian)
        d = self.dimension
        return self.sparsity.entries(reference.reshape(-1, d * d) @ metric.reshape(d * d, -1))

    def _exact_table(self) -> tuple[Array, Array]:
        """Basis functions and gradients where products of two are integrated exactly; weights."""
        element = self.space.element.basix_element
        hat, w = basix.make_quadrature(element.cell_type, 2 * self.degree)
        return element.tabulate(1, hat)[:, :, :, 0], w

    @functools.cached_property
    def mass(self) -> PETSc.Mat:
        """Mass matrix ``(phi_j, phi_i)``. Collective at first use."""
        return self.matrix(self.mass_values).mat

    @functools.cached_property
    def stiffness(self) -> PETSc.Mat:
        """Stiffness matrix ``(grad phi_j, grad phi_i)``. Collective at first use."""
        return self.matrix(self.stiffness_values).mat

    # -- vectors and matrices ------------------------------------------------------------------

    def vector(self) -> Vector:
        """New vector. Collective."""
        return Vector(self.index_map)

    def sum(self, value: float) -> float:
        """Sum of one number over the ranks. Collective."""
        if self.comm.size == 1:
            return float(value)
        total = np.array(value, dtype=float)
        self.comm.Allreduce(MPI.IN_PLACE, total)
        return float(total)

    def inner(self, a: Array, b: Array) -> float:
        """Sum over owned entries of ``a * b`` over the ranks. Collective."""
        return self.sum(float(a[: self.n_owned] @ b[: self.n_owned]))

    def integral(self, u: Array) -> float:
        """Integral of a local array over the domain. Collective."""
        return self.inner(self.integrals, u)

    def apply_mass(self, u: Array) -> Array:
        """``M u`` for a local array, owned entries, until the next call. Collective."""
        x, image = self._work
        x.set(u)
        self.mass.mult(x.petsc_vec, image.petsc_vec)
        return image.array[: self.n_owned]

    def norm(self, u: Array) -> float:
        """L2 norm of a local array. Collective."""
        return self.sum(float(self.apply_mass(u) @ u[: self.n_owned])) ** 0.5

    @functools.cached_property
    def _work(self) -> tuple[Vector, Vector]:
        return self.vector(), self.vector()

    def assemble(self, cells: Array) -> Array:
        """Owned entries of a dual vector from parts ``(n_basis, n_cells)``. Collective."""
        result = self.vector()
        result.array[:] = np.bincount(self.dofs.ravel(), cells.ravel(), minlength=self.n_local)
        result.scatter_reverse()
        return result.array[: self.n_owned].copy()

    def matrix(self, values: Array) -> Matrix:
        """Matrix of these entries, ``(sparsity.size,)``, which it keeps. Collective."""
        self._clean_comm()
        return self.sparsity.matrix(values)

    def _clean_comm(self) -> MPI.Comm:
        """The communicator for matrices, after those that Python has dropped are gone."""
        # What Python drops, PETSc keeps until all ranks of its communicator clean up together. A
        # mesh takes its own communicator with it: matrices on that would pile up for ever, and
        # after some hundred meshes MPI would have no communicator left.
        comm = lasting_comm(self.comm)
        PETSc.garbage_cleanup(comm)
        return comm

    # -- functions at the quadrature points ----------------------------------------------------

    def evaluate(self, u: Array) -> Array:
        """Values of a local array at the points, shape ``(n_points, n_cells)``."""
        return self.basis_values @ u[self.dofs]

    def reference_gradient(self, u: Array) -> Array:
        """Reference-cell gradient, ``(d, n_points, n_cells)``."""
        shape = self.dimension, self.n_points, self.n_cells  # a rank may have no cells
        return (self.basis_gradients @ u[self.dofs]).reshape(shape)

    def gradient(self, u: Array) -> Array:
        """Gradient of a local array at the points, shape ``(N, d)``."""
        return self.pull_back(self.reference_gradient(u), self.inverse_jacobian)

    def pull_back(self, g: Array, inverse: Array) -> Array:
        """J^{-T} g, shape (N, d), stored component by component."""
        return np.einsum("akc,aqc->kqc", inverse, g).reshape(self.dimension, -1).T
