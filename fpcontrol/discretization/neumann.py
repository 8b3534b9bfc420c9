"""The pure Neumann problem, solved to round-off: the Moser identity is checked there."""

from petsc4py import PETSc

from fpcontrol.linalg.linear_solvers import LinearSolver

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


def solve_neumann(stiffness: PETSc.Mat, b: PETSc.Vec, x: PETSc.Vec, dimension: int) -> None:
    r"""Solve the pure Neumann problem :math:`K x = b` for compatible ``b``. Collective.

    ``K`` has the constants as null space. With :math:`e` a unit vector and :math:`1^\top b = 0`,
    the solution of :math:`(K + k\,e e^\top) x = b` has :math:`e^\top x = 0` and solves
    :math:`K x = b`, because :math:`1^\top(K + k\,e e^\top) x = k\,e^\top x`; so no solver has to
    know of the null space. LU in 1-D and 2-D, conjugate gradients with algebraic multigrid in 3-D
    (LU should they fail), and refinement as long as it helps.

    Args:
        stiffness: Stiffness matrix; not changed.
        b: Right-hand side with entries that sum to zero.
        x: Solution, zero in the first degree of freedom.
        dimension: Dimension of the mesh.
    """
    pinned = stiffness.copy()
    first, last = pinned.getOwnershipRange()
    if first == 0 and last > 0:
        pinned.setValue(0, 0, stiffness.getValue(0, 0), addv=PETSc.InsertMode.ADD_VALUES)
    pinned.assemble()
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
