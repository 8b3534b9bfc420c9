r"""Bytes that a step of Crank-Nicolson must move, for the bound that the memory sets.

Counted is what the method reads and writes once it runs through memory, each array of a pass once,
nothing twice for want of cache: a matrix in CSR is a value and a column an entry and an offset a
row, a vector 8 bytes a row. Drift values at quadrature points are not counted (a drift may be
computed where it is used), and neither are the indices of the refill (they may be those of the
matrix).
"""

from dataclasses import dataclass

from petsc4py import PETSc

INDEX = PETSc.IntType().itemsize
DOUBLE = 8


@dataclass(frozen=True)
class Traffic:
    """Bytes in all.

    Attributes:
        moved: In a step.
        working_set: Of all arrays that a step touches.
    """

    moved: float
    working_set: float


def csr(rows: int, entries: float) -> float:
    """Bytes of a sparse matrix."""
    return entries * (DOUBLE + INDEX) + rows * INDEX


def entries(matrix: PETSc.Mat) -> float:
    """Nonzeros over all ranks. Collective."""
    return float(matrix.getInfo(PETSc.Mat.InfoType.GLOBAL_SUM)["nz_used"])


def krylov_step(rows: int, nonzeros: float, iterations: float, refills: float) -> Traffic:
    """Step with GMRES and ILU(0).

    - refill: constant part read, operator written; ILU(0): operator read, factors written;
    - mass product; initial residual; an application of the factors for it;
    - iteration j: product, factors, j vectors read twice by Gram-Schmidt, 5 more for the new one;
    - k vectors into the solution; guess and new level, 3 vectors each.

    Args:
        rows: Degrees of freedom.
        nonzeros: Of the operator; mass matrix and factors have as many.
        iterations: ``k`` of a step, a mean.
        refills: Of the operator, a step: 1, or a fourth for a drift that holds four steps.
    """
    k, matrix, vector = iterations, csr(rows, nonzeros), DOUBLE * rows
    refill = 3 * DOUBLE * nonzeros + matrix
    products = (
        2 * (matrix + 2 * vector) + (k + 1) * (matrix + 2 * vector) + k * (matrix + 2 * vector)
    )
    basis = (k * (k + 1) + 5 * k) * vector
    update = (k + 2 + 6) * vector
    working_set = 3 * matrix + refills * DOUBLE * nonzeros + (k + 6) * vector
    return Traffic(refills * refill + products + basis + update, working_set)


def direct_step(rows: int, nonzeros: float, factor_nonzeros: float) -> Traffic:
    """Step with a factorization that is kept: mass product, triangular solves, new level."""
    matrix, factors, vector = csr(rows, nonzeros), csr(rows, factor_nonzeros), DOUBLE * rows
    return Traffic(matrix + factors + (2 + 2 + 3) * vector, matrix + factors + 4 * vector)
