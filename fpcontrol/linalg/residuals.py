"""What a solve has left, and an LU without pivoting made as good as it can be."""

import math
from collections.abc import Callable

from petsc4py import PETSc

type Solve = Callable[[PETSc.Vec, PETSc.Vec], None]

# A derivative is the discrete adjoint of the scheme only as far as the solves are exact; at this
# tolerance the dot-product test of tangent against adjoint holds to 1e-11 of the norms, unless a
# step is so long (dt D some 1e5 squares of the domain's size) that the systems are close to the
# singular stiffness matrix.
RTOL = 1e-12

# An LU without pivoting is refined so often at most, as long as residuals shrink to this share of
# those before; then it is good enough at this backward error.
REFINEMENTS, SHRINKS, ROUND_OFF = 5, 0.1, 1e-14


def refined(b: PETSc.Vec, x: PETSc.Vec, matrix: PETSc.Mat, solve: Solve, apply: Solve) -> bool:
    """Improve what an LU without pivoting has found; whether it is as good as it can be.

    Collective.
    """
    residual, change = b.duplicate(), x.duplicate()
    wanted, before = RTOL * b.norm(), math.inf
    for _ in range(REFINEMENTS):
        apply(x, residual)
        residual.aypx(-1.0, b)
        size = residual.norm()
        if size <= wanted:
            return True
        if not size < SHRINKS * before:  # not a number, too
            break
        solve(residual, change)
        x.axpy(1.0, change)
        before = size
    return backward_error(b, x, matrix, apply) <= ROUND_OFF


def backward_error(b: PETSc.Vec, x: PETSc.Vec, matrix: PETSc.Mat, apply: Solve) -> float:
    """Residual over what round-off in the entries makes of it. Collective."""
    residual = b.duplicate()
    apply(x, residual)
    residual.axpy(-1.0, b)
    size = matrix.norm(PETSc.NormType.INFINITY) * x.norm() + b.norm()
    return float(residual.norm() / size) if size else 0.0
