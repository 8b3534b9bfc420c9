"""Linear solvers for operators that are refilled again and again, and for their transposes."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from petsc4py import PETSc

from fpcontrol.linalg.options import petsc_options_set
from fpcontrol.linalg.residuals import RTOL, Solve, backward_error, refined

METHODS = ("auto", "gmres", "direct")

# For an operator in 2-D that does not change, on one rank: PETSc's own LU with nested dissection. A
# solve takes half as long as MUMPS's, the factorization 0.5 to 1.4 times as long (1e4 to 1.6e5
# degrees of freedom). It does not pivot: its residuals are looked at.
FACTORED_ONCE = {"pc_factor_mat_solver_type": "petsc", "pc_factor_mat_ordering_type": "nd"}

# Growth of a residual that ends an iteration. A guess can be far: the last density has residuals as
# many times those of zero as the drift crosses cells in a step.
GROWTH = 1e100
# Reduction of a residual from which on the recurrence of GMRES does not know it any more.
REDUCED = 1e-14
TRANSPOSING = ("mumps", "petsc")  # packages whose LU solves transposed systems


@dataclass(frozen=True, order=True)
class Fill:
    """How an incomplete LU is laid out.

    Attributes:
        levels: Levels of fill.
        ordering: PETSc's name of the order of the unknowns: ``"rcm"`` or, the mesh's own,
            ``"natural"``.
    """

    levels: int = 0
    ordering: str = "rcm"


class LinearSolver:
    r"""Solve :math:`A x = b` and :math:`A^\top x = b` with a PETSc Krylov or direct method.

    A preconditioner or factorization is renewed only after the values of its matrix changed. What
    an iteration is judged by is the residual itself, not what a preconditioner makes of it; an LU
    without pivoting is refined, and where that does not help, done again with pivoting (MUMPS).

    Args:
        matrix: Square PETSc matrix; may be refilled between solves, or exchanged (``use``).
        method: ``"gmres"``: GMRES with incomplete LU (over the ranks: additive Schwarz with one
            layer of overlap), started from the vector handed in.
            ``"direct"``: LU (MUMPS). ``"auto"``: direct on one rank in 1-D, where elimination
            costs no more than a few products, GMRES otherwise, and where that fails, as with a
            wild drift that an optimizer tries, a direct solve in its place.
        dimension: Dimension of the mesh, for ``"auto"``.
        fill: Layout of the incomplete LU, where options leave it open.
        petsc_options: PETSc options by name without prefix, such as ``{"ksp_rtol": 1e-8}``.
            They override the defaults; the command line (prefix ``fpcontrol_``) overrides both.
        prefix: PETSc options prefix.
        null_pivots: Whether MUMPS goes on behind a pivot that is zero to round-off, where there is
            no or no unique solution: for what is only a proposal.
        monotone: Whether the matrix is an M-matrix, whose LU wants no pivoting and whose solutions
            keep their sign: not refined.

    Raises:
        ValueError: On all ranks, if ``method`` is unknown.
    """

    def __init__(
        self,
        matrix: PETSc.Mat,
        method: str = "auto",
        *,
        dimension: int = 2,
        fill: Fill = Fill(),
        petsc_options: Mapping[str, Any] | None = None,
        prefix: str = "fpcontrol_",
        null_pivots: bool = False,
        monotone: bool = False,
    ) -> None:
        asked = check_linear_solver(method)
        if asked == "auto":
            method = "direct" if dimension == 1 and matrix.comm.size == 1 else "gmres"
        self.method = method
        self.iterations = 0
        self.solves = 0
        self.rescues = 0  # direct solves where GMRES failed
        self._asked, self._dimension = asked, dimension
        self._parallel = matrix.comm.size > 1
        self._direct: LinearSolver | None = None
        self._prefix, self._options, self._fill = prefix, dict(petsc_options or {}), fill
        self._null_pivots, self._monotone = null_pivots, monotone
        self._ksp = ksp = PETSc.KSP().create(matrix.comm)
        ksp.setOperators(matrix)
        ksp.setOptionsPrefix(prefix)
        if method == "gmres":
            ksp.setType("gmres")
            ksp.setGMRESRestart(60)
            ksp.setTolerances(rtol=RTOL, atol=1e-300, divtol=GROWTH, max_it=1000)
            ksp.setInitialGuessNonzero(True)
            ksp.setPCSide(PETSc.PC.Side.RIGHT)  # two applications a solve fewer than on the left
        else:
            ksp.setType("preonly")
        self._configure(ksp.getPC())
        self._unread = set(self._options)
        with petsc_options_set(prefix, self._options, self._unread):
            ksp.setFromOptions()
        if ksp.getType() == "preonly":  # as options may say
            ksp.setInitialGuessNonzero(False)
        if ksp.getType() == "richardson" and not self._said("ksp_norm_type"):
            # Preconditioned, residuals of what a strong drift empties at once are lost.
            ksp.setNormType(PETSc.KSP.NormType.UNPRECONDITIONED)
        if ksp.getType() == "gmres":
            ksp.setConvergenceHistory(1, reset=True)
        self._matrix: PETSc.Mat | None = matrix
        self._preconditioners = {matrix.handle: ksp.getPC()}
        self._fills: dict[int, Fill] = {}  # of those that have been set up
        # Nothing else looks at a residual.
        self._transposes = ksp.getType() != "preonly" or _solver_type(ksp.getPC()) in TRANSPOSING

    def _configure(self, pc: PETSc.PC) -> None:
        """Set the type of a preconditioner."""
        if self.method == "gmres":
            # Block Jacobi copies no overlap, but takes twice the iterations on two ranks, and the
            # same to twice the time (benchmarks/bench_scaling.py, "blocks").
            pc.setType("asm" if self._parallel else "ilu")
        else:
            pc.setType("lu")
            if self._parallel or self._dimension > 1:
                pc.setFactorSolverType("mumps")

    def use(self, matrix: PETSc.Mat, fill: Fill = Fill()) -> None:
        """Solve with another matrix of the same shape from now on. Collective.

        Each keeps its preconditioner or factorization, for when it is used again.

        Args:
            matrix: The matrix.
            fill: Layout of its incomplete LU.
        """
        self._fill = fill
        if matrix is self._matrix:
            return
        self._matrix = None  # until all is done, for whoever catches an interrupt
        pc = self._preconditioners.get(matrix.handle)
        if pc is None:
            pc = PETSc.PC().create(matrix.comm)
            pc.setOperators(matrix)
            pc.setOptionsPrefix(self._prefix)
            self._configure(pc)
            with petsc_options_set(self._prefix, self._options):
                pc.setFromOptions()
            self._preconditioners[matrix.handle] = pc
        self._ksp.setPC(pc)
        self._matrix = matrix

    def forget(self, matrix: PETSc.Mat) -> None:
        """Give back the preconditioner of a matrix that is not in use. Collective."""
        self._fills.pop(matrix.handle, None)
        pc = self._preconditioners.pop(matrix.handle, None)
        if pc is not None:
            pc.destroy()

    def _set_up(self) -> PETSc.Mat:
        """Have the preconditioner ready, with as much fill as asked for; the matrix in use."""
        matrix = self._matrix
        assert matrix is not None
        before = self._fills.get(matrix.handle)
        if before == self._fill:
            return matrix
        pc, first = self._ksp.getPC(), before is None
        # Some options are read only now: those of a preconditioner's parts and of factorizations.
        with petsc_options_set(self._prefix, self._options if first else {}, self._unread):
            if pc.getType() == "ilu":
                self._set_fill(pc, "", first)
            if self._null_pivots and _solver_type(pc) == "mumps":
                pc.setFactorSetUpSolverType()
                pc.getFactorMatrix().setMumpsIcntl(24, 1)
            self._ksp.setUp()
            for part in _parts(pc):
                if part.getType() == "ilu":
                    self._set_fill(part, "sub_", first)
            self._ksp.setUpOnBlocks()
        if self._unread and matrix.comm.rank == 0:
            warnings.warn(
                f"petsc_options: PETSc has not read {', '.join(sorted(self._unread))}; misspelt, "
                "or for another type of solver?",
                stacklevel=2,
            )
        self._unread.clear()  # say it once
        self._fills[matrix.handle] = self._fill
        return matrix

    def _set_fill(self, pc: PETSc.PC, part: str, first: bool) -> None:
        """Lay an incomplete LU out as asked for, as far as options do not say it."""
        if not first:
            operators = pc.getOperators()
            pc.reset()
            pc.setOperators(*operators)
        if not self._said(f"{part}pc_factor_mat_ordering_type"):
            pc.setFactorOrdering(self._fill.ordering)
        if not self._said(f"{part}pc_factor_levels"):
            pc.setFactorLevels(self._fill.levels)

    def _said(self, name: str) -> bool:
        return name in self._options or PETSc.Options().hasName(self._prefix + name)

    @property
    def tolerance(self) -> float:
        """Relative tolerance of a solve; a direct one is as exact as round-off lets it be."""
        return RTOL if self._ksp.getType() == "preonly" else float(self._ksp.getTolerances()[0])

    def memory(self) -> float:
        """Estimated bytes of the present preconditioner on this rank; sets it up. Collective."""
        matrix, pc = self._set_up(), self._ksp.getPC()
        own = 12.0 * matrix.getInfo(PETSc.Mat.InfoType.LOCAL)["nz_used"]
        parts = _parts(pc)
        if parts:
            # The blocks of additive Schwarz are matrices of their own, besides their factors.
            copies = 2.0 if pc.getType() == "asm" else 1.0
            return copies * sum(_factor_memory(part, own / len(parts)) for part in parts)
        return _factor_memory(pc, own)

    def solve(self, b: PETSc.Vec, x: PETSc.Vec) -> None:
        """Solve ``A x = b``; ``x`` holds the initial guess. Collective.

        Raises:
            ArithmeticError: On all ranks, if the iteration fails to converge.
        """
        matrix = self._set_up()
        self._ksp.solve(b, x)
        if self._failed(b, x, self._ksp.solve, matrix.mult):
            self._rescue(matrix).solve(b, x)

    def solve_transpose(self, b: PETSc.Vec, x: PETSc.Vec) -> None:
        """Solve ``A^T x = b``; ``x`` holds the initial guess. Collective.

        Raises:
            ArithmeticError: On all ranks, if the iteration fails to converge, or if a direct
                solver that options have chosen does not solve transposed systems.
        """
        matrix = self._set_up()
        self._ksp.solveTranspose(b, x)
        if self._failed(b, x, self._ksp.solveTranspose, matrix.multTranspose):
            self._rescue(matrix).solve_transpose(b, x)
        if not self._transposes:
            if backward_error(b, x, matrix, matrix.multTranspose) > 1e-6:
                raise ArithmeticError(
                    f"The direct solver {self._ksp.getPC().getFactorSolverType()!r} does not solve "
                    "transposed systems, which a derivative needs; choose 'mumps'."
                )
            self._transposes = True

    def _rescue(self, matrix: PETSc.Mat) -> "LinearSolver":
        """The direct solver that takes over where GMRES failed, or an LU without pivoting."""
        self.rescues += 1
        if self._direct is None:
            pivots = self._ksp.getType() == "preonly"
            self._direct = LinearSolver(
                matrix,
                "direct",
                dimension=3 if pivots else self._dimension,  # MUMPS there
                prefix="fpcontrol_rescue_",
                null_pivots=self._null_pivots,
            )
        # One factorization at a time: it is the exception.
        self._direct._ksp.setOperators(matrix)
        self._direct._matrix = matrix
        return self._direct

    def _failed(self, b: PETSc.Vec, x: PETSc.Vec, solve: Solve, apply: Solve) -> bool:
        """Whether ``solve`` has to be done again; an error if there is no other way to do it."""
        ksp, matrix = self._ksp, self._matrix
        assert matrix is not None
        self.iterations += ksp.getIterationNumber()
        self.solves += 1
        if ksp.getConvergedReason() > 0 and ksp.getType() == "gmres":
            first = ksp.getConvergenceHistory()[:1]
            if (ksp.getResidualNorm() < REDUCED * first).any():
                solve(b, x)  # from where it is, with the residual that it has
                self.iterations += ksp.getIterationNumber()
        reason = ksp.getConvergedReason()
        if reason == PETSc.KSP.ConvergedReason.DIVERGED_BREAKDOWN:
            # Round-off leaves GMRES no new direction: if that is all that there is, as the backward
            # error tells, the solution is as good as a direct solver's.
            if backward_error(b, x, matrix, apply) <= RTOL:
                return False
        if _solver_type(ksp.getPC()) == "petsc" and ksp.getType() == "preonly":  # no pivoting
            if reason == PETSc.KSP.ConvergedReason.DIVERGED_PCSETUP_FAILED:
                return True
            if reason > 0:
                return not (self._monotone or refined(b, x, matrix, solve, apply))
        if reason < 0 and (self._asked != "auto" or self.method != "gmres"):
            raise ArithmeticError(
                f"The linear solver {ksp.getType()} stopped after {ksp.getIterationNumber()} "
                f"iterations at residual {ksp.getResidualNorm():.2e} (PETSc reason {reason}). Take "
                f"more steps, linear_solver='direct', or other petsc_options (prefix "
                f"{ksp.getOptionsPrefix()!r})."
            )
        return bool(reason < 0)


def _solver_type(pc: PETSc.PC) -> str:
    """Package of an LU, PETSc's own unless another is set; empty for other preconditioners."""
    return str(pc.getFactorSolverType() or "petsc") if pc.getType() == "lu" else ""


def _parts(pc: PETSc.PC) -> list[PETSc.PC]:
    """Preconditioners of the blocks on this rank of one that has been set up."""
    kind = pc.getType()
    if kind == "asm":
        return [solver.getPC() for solver in pc.getASMSubKSP()]
    if kind == "bjacobi":
        return [solver.getPC() for solver in pc.getBJacobiSubKSP()]
    return []


def _factor_memory(pc: PETSc.PC, matrix: float) -> float:
    """Bytes of a factorization, a value and an index for each entry; else those of the matrix."""
    if pc.getType() not in ("ilu", "lu", "icc", "cholesky"):
        return matrix
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
