r"""Time steps with a refilled operator, as systems :math:`A_n u = M\rho_n` to try solvers on.

Crank-Nicolson as in fpcontrol: :math:`A_n = M + \tfrac{dt}{2}(D K - B(v_n))`,
:math:`\rho_{n+1} = 2u - \rho_n`; transposed, :math:`A_n^\top z = M\lambda_{n+1}`,
:math:`\lambda_n = 2z - \lambda_{n+1}`. All operators and all levels are computed beforehand, so
that every solver is given the same systems and the same initial guesses, and nothing but the solver
is timed. The matrices are assembled by compiled forms: what is compared is independent of how
fpcontrol fills its own.
"""

from typing import Any

from mpi4py import MPI

import numpy as np
import ufl
from dolfinx import fem
from dolfinx.fem import petsc as fem_petsc
from petsc4py import PETSc
from plain_dolfinx import JIT

import fpcontrol as fpc

COMM = MPI.COMM_WORLD
D = 0.05
# For the levels and stages that all solvers are measured on: far below what they are asked for.
EXACT = {"ksp_rtol": 1e-13, "ksp_max_it": 600, "ksp_gmres_restart": 300}
DIRECT = {
    "ksp_type": "preonly",
    "ksp_initial_guess_nonzero": False,
    "pc_type": "lu",
    "pc_factor_mat_solver_type": "mumps",
    "pc_factor_mat_ordering_type": "external",
}
FILL = {2: 4, 3: 1}  # levels of ILU that this takes the least time with
HISTORY = 3  # levels before the first step measured: for the guesses


class Problem:
    r"""Steps on the unit square or cube.

    The drift is a tanh network of width 2 that turns, by 2 pi in 50 steps, and crosses the walls.

    Args:
        dimension: 2 or 3.
        n: Cells a side.
        degree: Polynomial degree.
        ratio: dt D/h^2 with h = 1/n.
        steps: Steps measured.
        peclet: Largest cell Peclet number ``|v| h / (2 D)``; ``None``: ``|v| = 1``.
        per_piece: The drift, and with it the operator, changes every so many steps.
        transposed: Steps of the adjoint.
    """

    def __init__(
        self,
        dimension: int,
        n: int,
        degree: int,
        ratio: float,
        steps: int,
        *,
        peclet: float | None = None,
        per_piece: int = 1,
        transposed: bool = False,
    ) -> None:
        self.dimension, self.n, self.degree, self.ratio = dimension, n, degree, ratio
        self.transposed, self.per_piece, self.steps = transposed, per_piece, steps
        self.dt = ratio / (n * n * D)
        speed = 1.0 if peclet is None else 2.0 * D * n * peclet
        self.peclet = speed / (2.0 * D * n)
        low, high = (0.0,) * dimension, (1.0,) * dimension
        make = fpc.mesh.rectangle if dimension == 2 else fpc.mesh.box
        self.mesh = make(COMM, (n,) * dimension, low, high)
        self.space = fem.functionspace(self.mesh, ("Lagrange", degree))
        self.dofs = self.space.dofmap.index_map.size_global
        self._assemble(speed)
        self._run()

    def _assemble(self, speed: float) -> None:
        rho, w = ufl.TrialFunction(self.space), ufl.TestFunction(self.space)
        dx = ufl.dx(metadata={"quadrature_degree": 2 * self.degree})
        x = ufl.SpatialCoordinate(self.mesh)
        phase = fem.Constant(self.mesh, 0.0)
        # Two neurons at right angles, each pushing along its own layer.
        y = [x[i] - 0.5 for i in range(self.dimension)]
        c, s = ufl.cos(phase), ufl.sin(phase)
        one, two = ufl.tanh(6.0 * (c * y[0] + s * y[1])), ufl.tanh(6.0 * (c * y[1] - s * y[0]))
        v = [-s * one - 0.5 * c * two, c * one - 0.5 * s * two, 0.5 * one][: self.dimension]
        flux = D * ufl.grad(rho) - speed / 1.25**0.5 * rho * ufl.as_vector(v)
        half = 0.5 * self.dt

        def form(expression: Any) -> fem.Form:
            return fem.form(expression * dx, jit_options=JIT)

        def matrix(compiled: fem.Form) -> PETSc.Mat:
            a = fem_petsc.assemble_matrix(compiled)
            a.assemble()
            return a

        self.mass = matrix(form(rho * w))
        self.constant = matrix(form(rho * w + half * D * ufl.dot(ufl.grad(rho), ufl.grad(w))))
        for a in (self.mass, self.constant):
            a.setOption(PETSc.Mat.Option.SYMMETRIC, True)
        # dt/2 D K over M on the diagonal, 4 dt D/h^2 for degree 1 on squares: says before a run how
        # stiff the step is, whatever the mesh.
        diagonal = self.constant.getDiagonal()
        diagonal.pointwiseDivide(diagonal, self.mass.getDiagonal())
        self.stiffness = diagonal.sum() / self.dofs - 1.0
        whole = form(rho * w + half * ufl.dot(flux, ufl.grad(w)))
        self.operators = []
        for i in range((HISTORY + self.steps - 1) // self.per_piece + 1):
            phase.value = 2.0 * np.pi * i * self.per_piece / 50.0
            self.operators.append(matrix(whole))

    def _run(self) -> None:
        """Levels and stages of all steps, to round-off."""
        rho = fpc.density.interpolate(
            self.mesh,
            lambda x: 1.0 + 0.5 * np.cos(np.pi * x[0]) * np.cos(np.pi * x[1]),
            self.degree,
        )
        # A vector of the matrix's communicator: that of the function goes with the function.
        first = self.mass.createVecRight()
        first.array[:] = rho.x.petsc_vec.array
        self.levels = [first]
        self.stages: list[PETSc.Vec] = []
        self.rhs: list[PETSc.Vec] = []
        a = self.operators[0].copy()
        if self.peclet > 0.5 and self.dimension == 2:  # where incomplete factors may fail
            options = DIRECT
        else:
            levels = "pc_factor_levels" if COMM.size == 1 else "sub_pc_factor_levels"
            options = EXACT | {levels: FILL[self.dimension]}
        ksp = solver(a, a, options)
        for i in range(HISTORY + self.steps):
            self.refill(a, i)
            b, u = self.levels[-1].duplicate(), self.levels[-1].copy()
            self.mass.mult(self.levels[-1], b)
            apply(ksp, b, u, self.transposed)
            self.rhs.append(b)
            self.stages.append(u)
            new = u.copy()
            new.scale(2.0)
            new.axpy(-1.0, self.levels[-1])
            self.levels.append(new)
        ksp.destroy()
        a.destroy()

    def refill(self, a: PETSc.Mat, i: int) -> None:
        """Values of step i."""
        source = self.operators[i // self.per_piece]
        source.copy(a, PETSc.Mat.Structure.SAME_NONZERO_PATTERN)

    def guess(self, i: int, levels: int, u: PETSc.Vec) -> None:
        """Stage of step i, extrapolated by a polynomial through so many levels."""
        # Weights of rho_n, rho_{n-1}, ... at the middle of the step.
        weights = {
            0: (0.0,),
            1: (1.0,),
            2: (1.5, -0.5),
            3: (15 / 8, -10 / 8, 3 / 8),
            4: (35 / 16, -35 / 16, 21 / 16, -5 / 16),
        }[levels]
        if not levels:
            u.set(0.0)
        else:
            # The mean of the level and the new level, as in fpcontrol, which extrapolates that.
            u.set(0.0)
            u.maxpy(weights, [self.levels[i - j] for j in range(levels)])

    def destroy(self) -> None:
        """Give the memory back."""
        for thing in (*self.operators, self.mass, self.constant, *self.levels, *self.rhs):
            thing.destroy()
        for thing in self.stages:
            thing.destroy()


def solver(a: PETSc.Mat, p: PETSc.Mat, options: dict[str, Any]) -> PETSc.KSP:
    """A Krylov solver; the defaults are those of fpcontrol."""
    ksp = PETSc.KSP().create(COMM)
    ksp.setOperators(a, p)
    prefix = "trial_"
    ksp.setOptionsPrefix(prefix)
    ksp.setType("gmres")
    ksp.setGMRESRestart(60)
    ksp.setTolerances(rtol=1e-10, atol=1e-300, max_it=1000)
    ksp.setInitialGuessNonzero(True)
    table = PETSc.Options(prefix)
    if COMM.size == 1:
        base = {"pc_type": "ilu", "pc_factor_mat_ordering_type": "rcm"}
    else:
        base = {"pc_type": "asm", "sub_pc_factor_mat_ordering_type": "rcm"}
    merged = base | options
    for name, value in merged.items():
        table[name] = value
    ksp.setFromOptions()
    ksp.setUp()
    if ksp.getPC().getType() == "asm":
        ksp.setUpOnBlocks()
    for name in merged:
        table.delValue(name)
    return ksp


def apply(ksp: PETSc.KSP, b: PETSc.Vec, u: PETSc.Vec, transposed: bool) -> None:
    """Solve, or solve with the transposed matrix."""
    (ksp.solveTranspose if transposed else ksp.solve)(b, u)
