"""Linear solvers for operators that are refilled again and again, and for their transposes."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from petsc4py import PETSc

METHODS = ("auto", "gmres", "direct")

# A derivative is the discrete adjoint of the scheme only as far as the solves are exact; at this
# tolerance the dot-product test of tangent against adjoint holds to 1e-11 of the norms.
RTOL = 1e-12

# For an operator in 2-D that does not change, on one rank: PETSc's own LU with nested dissection. A
# solve takes half as long as MUMPS's, the factorization 0.5 to 1.4 times as long (1e4 to 1.6e5
# degrees of freedom). It does not pivot; with mass and diffusion positive definite its residuals
# were those of MUMPS up to cell Peclet numbers of 100, and at most 200 times as large up to 1e8.
FACTORED_ONCE = {"pc_factor_mat_solver_type": "petsc", "pc_factor_mat_ordering_type": "nd"}


class LinearSolver:
    r"""Solve :math:`A x = b` and :math:`A^\top x = b` with a PETSc Krylov or direct method.

    A preconditioner or factorization is renewed only after the values of its matrix changed.

    Args:
        matrix: Square PETSc matrix; may be refilled between solves, or exchanged (``use``).
        method: ``"gmres"``: GMRES with incomplete LU in reverse Cuthill-McKee ordering (over the
            ranks: additive Schwarz with one layer of overlap), started from the vector handed in.
            ``"direct"``: LU (MUMPS). ``"auto"``: direct on one rank in 1-D, where elimination
            costs no more than a few products, GMRES otherwise, and where that fails, as with a
            wild drift that an optimizer tries, a direct solve in its place.
        dimension: Dimension of the mesh, for ``"auto"``.
        fill: Levels of fill of the incomplete LU, unless an option says.
        petsc_options: PETSc options by name without prefix, such as ``{"ksp_rtol": 1e-8}``. They
            go last, and so does the command line with the prefix ``fpcontrol_``.
        prefix: PETSc options prefix.

    Raises:
        ValueError: On all ranks, if ``method`` is unknown.
    """

    def __init__(
        self,
        matrix: PETSc.Mat,
        method: str = "auto",
        *,
        dimension: int = 2,
        fill: int = 0,
        petsc_options: Mapping[str, Any] | None = None,
        prefix: str = "fpcontrol_",
    ) -> None:
        asked = check_linear_solver(method)
        if asked == "auto":
            method = "direct" if dimension == 1 and matrix.comm.size == 1 else "gmres"
        self.method = method
        self.iterations = 0
        self.solves = 0
        self.rescues = 0  # direct solves where GMRES failed
        self._asked, self._matrix, self._dimension = asked, matrix, dimension
        self._direct: LinearSolver | None = None
        self._prefix, self._options, self._fill = prefix, dict(petsc_options or {}), fill
        self._ksp = ksp = PETSc.KSP().create(matrix.comm)
        ksp.setOperators(matrix)
        ksp.setOptionsPrefix(prefix)
        if method == "gmres":
            ksp.setType("gmres")
            ksp.setGMRESRestart(60)
            ksp.setTolerances(rtol=RTOL, atol=1e-300, max_it=1000)
            ksp.setInitialGuessNonzero(True)
            ksp.setPCSide(PETSc.PC.Side.RIGHT)  # two applications a solve fewer than on the left
            # Halves the iterations for degrees 2 and 3, whose own numbering suits ILU(0) badly.
            part = "sub_" if self._parallel else ""
            self._options = {f"{part}pc_factor_mat_ordering_type": "rcm"} | self._options
        else:
            ksp.setType("preonly")
        self._preconditioners = {matrix.handle: self._configured(ksp.getPC())}
        with petsc_options_set(prefix, self._options):
            ksp.setFromOptions()
            if method == "gmres":
                # The parts of a preconditioner read their options (sub_...) only when set up.
                ksp.setUp()
        self._set_fill()

    @property
    def _parallel(self) -> bool:
        return bool(self._matrix.comm.size > 1)

    def _configured(self, pc: PETSc.PC) -> PETSc.PC:
        """The same preconditioner with its type set."""
        if self.method == "gmres":
            pc.setType("asm" if self._parallel else "ilu")
        else:
            pc.setType("lu")
            if self._parallel or self._dimension > 1:
                pc.setFactorSolverType("mumps")
        return pc

    def use(self, matrix: PETSc.Mat, fill: int = 0) -> None:
        """Solve with another matrix of the same shape from now on. Collective.

        Each keeps its preconditioner or factorization, for when it is used again.

        Args:
            matrix: The matrix.
            fill: Levels of fill of its incomplete LU.
        """
        self._fill = fill
        if matrix is not self._matrix:
            self._matrix = matrix
            pc = self._preconditioners.get(matrix.handle)
            if pc is None:
                self._prepare(matrix)
            else:
                self._ksp.setPC(pc)
        self._set_fill()

    def forget(self, matrix: PETSc.Mat) -> None:
        """Give back the preconditioner of a matrix that is not in use. Collective."""
        pc = self._preconditioners.pop(matrix.handle, None)
        if pc is not None:
            pc.destroy()

    def _prepare(self, matrix: PETSc.Mat) -> None:
        """A preconditioner for a matrix that has none."""
        pc = self._preconditioners[matrix.handle] = PETSc.PC().create(matrix.comm)
        pc.setOperators(matrix)
        pc.setOptionsPrefix(self._prefix)
        self._configured(pc)
        self._ksp.setPC(pc)
        with petsc_options_set(self._prefix, self._options):
            pc.setFromOptions()
            if self.method == "gmres":
                self._ksp.setUp()

    def _set_fill(self) -> None:
        """Levels of fill as asked for; another number has the factors laid out anew."""
        if self.method != "gmres":
            return
        pc = self._ksp.getPC()
        if pc.getType() == "asm":
            name, parts = "sub_pc_factor_levels", [k.getPC() for k in pc.getASMSubKSP()]
        else:
            name, parts = "pc_factor_levels", [pc]
        if name in self._options or PETSc.Options().hasName(self._prefix + name):
            return
        for part in parts:
            if part.getType() == "ilu":
                part.setFactorLevels(self._fill)

    def memory(self) -> float:
        """Estimated bytes of the present preconditioner on this rank; sets it up. Collective."""
        self._ksp.setUp()
        self._ksp.setUpOnBlocks()
        pc = self._ksp.getPC()
        if pc.getType() == "asm":
            # The blocks are matrices of their own, besides their factors.
            return sum(2.0 * _factor_memory(k.getPC()) for k in pc.getASMSubKSP())
        return _factor_memory(pc) if pc.getType() in ("ilu", "lu", "icc", "cholesky") else 0.0

    def solve(self, b: PETSc.Vec, x: PETSc.Vec) -> None:
        """Solve ``A x = b``; ``x`` holds the initial guess. Collective.

        Raises:
            ArithmeticError: On all ranks, if the iteration fails to converge.
        """
        self._ksp.solve(b, x)
        if self._failed(b, x, self._matrix.mult):
            self._rescue().solve(b, x)

    def solve_transpose(self, b: PETSc.Vec, x: PETSc.Vec) -> None:
        """Solve ``A^T x = b``; ``x`` holds the initial guess. Collective.

        Raises:
            ArithmeticError: On all ranks, if the iteration fails to converge.
        """
        self._ksp.solveTranspose(b, x)
        if self._failed(b, x, self._matrix.multTranspose):
            self._rescue().solve_transpose(b, x)

    def _rescue(self) -> "LinearSolver":
        """The direct solver that takes over where GMRES failed."""
        self.rescues += 1
        if self._direct is None:
            self._direct = LinearSolver(
                self._matrix, "direct", dimension=self._dimension, prefix="fpcontrol_rescue_"
            )
        # One factorization at a time: it is the exception.
        self._direct._ksp.setOperators(self._matrix)
        return self._direct

    def _failed(self, b: PETSc.Vec, x: PETSc.Vec, apply: Callable[..., None]) -> bool:
        """Whether the solve has to be done again; an error if there is no other way to do it."""
        ksp = self._ksp
        self.iterations += ksp.getIterationNumber()
        self.solves += 1
        reason = ksp.getConvergedReason()
        if reason == PETSc.KSP.ConvergedReason.DIVERGED_BREAKDOWN:
            # Round-off leaves GMRES no new direction: if that is all that there is, as the backward
            # error tells, the solution is as good as a direct solver's.
            residual = b.duplicate()
            apply(x, residual)
            residual.axpy(-1.0, b)
            size = self._matrix.norm(PETSc.NormType.INFINITY) * x.norm() + b.norm()
            if residual.norm() <= RTOL * size:
                return False
        if reason < 0 and (self._asked != "auto" or self.method != "gmres"):
            raise ArithmeticError(
                f"The linear solver {ksp.getType()} stopped after {ksp.getIterationNumber()} "
                f"iterations at residual {ksp.getResidualNorm():.2e} (PETSc reason {reason}). Take "
                f"more steps, linear_solver='direct', or other petsc_options (prefix "
                f"{ksp.getOptionsPrefix()!r})."
            )
        return bool(reason < 0)


def _factor_memory(pc: PETSc.PC) -> float:
    """Bytes of a factorization: a value and an index for each entry."""
    factor = pc.getFactorMatrix()
    if pc.getFactorSolverType() == "mumps":
        entries = factor.getMumpsInfo(27)  # of this rank; in millions if negative
        return 12.0 * (entries if entries >= 0 else -1e6 * entries)
    return 12.0 * factor.getInfo(PETSc.Mat.InfoType.LOCAL)["nz_used"]


def check_linear_solver(method: str) -> str:
    """``method``, or a ValueError that says what is allowed."""
    if method not in METHODS:
        raise ValueError(f"linear_solver = {method!r} is unknown; choose one of {METHODS}.")
    return method


@contextmanager
def petsc_options_set(prefix: str, options: Mapping[str, Any]) -> Iterator[None]:
    """Put options into PETSc's global table for the time of a block."""
    table = PETSc.Options()
    # What the command line says for a name wins over what the program says.
    mine = {prefix + k: v for k, v in options.items() if not table.hasName(prefix + k)}
    try:
        for name, value in mine.items():
            table.setValue(name, value)
        yield
    finally:
        for name in mine:
            table.delValue(name)


def solve_neumann(stiffness: PETSc.Mat, b: PETSc.Vec, x: PETSc.Vec) -> None:
    r"""Solve the pure Neumann problem :math:`K x = b` for compatible ``b``. Collective.

    ``K`` has the constants as null space. With :math:`e` a unit vector and :math:`1^\top b = 0`,
    the solution of :math:`(K + k\,e e^\top) x = b` has :math:`e^\top x = 0` and solves
    :math:`K x = b`, because :math:`1^\top(K + k\,e e^\top) x = k\,e^\top x`; so a direct solver
    needs no null-space treatment.

    Args:
        stiffness: Stiffness matrix; not changed.
        b: Right-hand side with entries that sum to zero.
        x: Solution, zero in the first degree of freedom.
    """
    pinned = stiffness.copy()
    first, last = pinned.getOwnershipRange()
    if first == 0 and last > 0:
        pinned.setValue(0, 0, stiffness.getValue(0, 0), addv=PETSc.InsertMode.ADD_VALUES)
    pinned.assemble()
    solver = LinearSolver(pinned, "direct", dimension=3, prefix="fpcontrol_neumann_")
    solver.solve(b, x)
    # One step of iterative refinement: the Moser identity is checked at round-off.
    residual = b.duplicate()
    correction = b.duplicate()
    pinned.mult(x, residual)
    residual.aypx(-1.0, b)
    solver.solve(residual, correction)
    x.axpy(1.0, correction)
