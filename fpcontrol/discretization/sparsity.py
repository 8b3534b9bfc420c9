"""Where the entries of element matrices go, and PETSc matrices that are refilled in place."""

from mpi4py import MPI

import numpy as np
from petsc4py import PETSc
from scipy import sparse

from fpcontrol.discretization import kernels
from fpcontrol.typing import Array


class Sparsity:
    """The entries that a rank's cells contribute to, each once, and their numbers. Collective.

    Args:
        dofs: Local numbers of the basis functions, ``(n_basis, n_cells)``.
        index_map: dolfinx index map of the degrees of freedom.
        comm: Communicator of the matrices.

    Attributes:
        slots: Entry of each element matrix's entry, ``(n_cells, n_basis**2)``.
        size: Number of entries.
        indptr: Where the rows of local numbers begin.
        indices: Columns of the entries, sorted in each row.
    """

    def __init__(self, dofs: Array, index_map, comm: MPI.Comm) -> None:  # type: ignore[no-untyped-def]
        n_basis, n_cells = dofs.shape
        self._comm = comm
        self._owned, self._global = index_map.size_local, index_map.size_global
        n = self._owned + index_map.num_ghosts
        rows, columns = np.repeat(dofs, n_basis, axis=0), np.tile(dofs, (n_basis, 1))
        ones = np.ones(rows.size, dtype=np.int8)
        pattern = sparse.csr_array((ones, (rows.ravel(), columns.ravel())), shape=(n, n))
        pattern.sum_duplicates()  # sorts, too
        self.indptr, self.indices = (
            a.astype(PETSc.IntType, copy=False) for a in (pattern.indptr, pattern.indices)
        )
        self.size = len(self.indices)
        self.slots = np.empty((n_cells, n_basis**2), dtype=np.int32)
        kernels.find(self.indptr, self.indices, dofs, dofs, self.slots)
        self._template: PETSc.Mat | None = None
        if comm.size > 1:
            numbers = index_map.local_to_global(np.arange(n, dtype=np.int32)).astype(PETSc.IntType)
            self._template = PETSc.Mat().create(comm)
            self._template.setSizes(((self._owned, self._global),) * 2)
            self._template.setType(PETSc.Mat.Type.AIJ)
            # Sorting takes longer than filling in: it is done once.
            self._template.setPreallocationCOO(
                np.repeat(numbers, np.diff(self.indptr)), numbers[self.indices]
            )

    def diagonal(self) -> Array:
        """Numbers of the entries on the diagonal that this rank's cells contribute to."""
        rows = np.repeat(np.arange(len(self.indptr) - 1), np.diff(self.indptr))
        return np.flatnonzero(rows == self.indices)

    def entries(self, cells: Array) -> Array:
        """Entries, ``(size,)``, from element matrices ``(n_basis**2, n_cells)``."""
        out = np.zeros(self.size)
        kernels.add_entries(self.slots, cells, out)
        return out

    def matrix(self, values: Array) -> "Matrix":
        """A matrix with these entries, which it keeps. Collective."""
        if self._template is None:
            # Where no rank contributes to another's rows, PETSc uses the array itself.
            shape = (self._owned, self._owned)
            csr = (self.indptr, self.indices, values)
            return Matrix(PETSc.Mat().createAIJWithArrays(shape, csr, comm=self._comm), values)
        result = Matrix(self._template.duplicate(), values)
        result.update()
        return result


class Matrix:
    """A PETSc matrix and the entries that this rank contributes, to be changed in place.

    Attributes:
        mat: The matrix.
        values: Entries, ``(size,)`` of ``Sparsity``.
    """

    def __init__(self, mat: PETSc.Mat, values: Array) -> None:
        self.mat, self.values = mat, values

    def update(self) -> None:
        """Tell PETSc that ``values`` have changed. Collective."""
        if self.mat.comm.size > 1:
            self.mat.setValuesCOO(self.values, addv=PETSc.InsertMode.INSERT_VALUES)
        else:
            self.mat.stateIncrease()
