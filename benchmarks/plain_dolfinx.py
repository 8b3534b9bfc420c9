r"""The peer: Crank-Nicolson for the Fokker-Planck equation in plain DOLFINx, as well as it goes.

Forms are compiled once with the compiler's optimization on, the matrix is allocated once, and only
the advection is assembled in each step, on top of a copy of the constant part (half as expensive as
the whole form). As in fpcontrol the step is
:math:`(M + \tfrac{dt}{2} N(v_{1/2})) u = M\rho_n`, :math:`\rho_{n+1} = 2u - \rho_n`, which needs
one matrix, and GMRES starts from the extrapolated density.
"""

from collections.abc import Callable, Mapping
from typing import Any

import basix.ufl
import numpy as np
import ufl
from dolfinx import fem
from dolfinx.fem import petsc as fem_petsc
from petsc4py import PETSc

JIT = {"cffi_extra_compile_args": ["-O3", "-march=native", "-g0"]}
Array = np.ndarray


class UflDrift:
    """Drift as a UFL expression with Constants, evaluated in the compiled kernel.

    Args:
        expression: Of the space's spatial coordinate and the constants.
        update: ``update(t)`` sets the constants.
    """

    def __init__(self, expression: Any, update: Callable[[float], None]) -> None:
        self.expression, self.update = expression, update


class QuadratureDrift:
    """Drift evaluated by numpy at the quadrature points, in a Function on a quadrature element.

    Args:
        space: Space of the density.
        degree: Quadrature degree.
        values: ``values(t, x)``, ``x`` of shape ``(N, d)``, to ``(N, d)``.
    """

    def __init__(
        self, space: fem.FunctionSpace, degree: int, values: Callable[[float, Array], Array]
    ) -> None:
        mesh = space.mesh
        d = mesh.topology.dim
        element = basix.ufl.quadrature_element(
            mesh.basix_cell(), value_shape=(d,), degree=degree, scheme="default"
        )
        self.expression = fem.Function(fem.functionspace(mesh, element))
        rule = basix.make_quadrature(mesh.basix_cell(), degree)[0]
        where = fem.Expression(ufl.SpatialCoordinate(mesh), rule)
        topology = mesh.topology.index_map(d)
        cells = np.arange(topology.size_local + topology.num_ghosts, dtype=np.int32)
        self._x = np.asarray(where.eval(mesh, cells)).reshape(-1, d)
        self._values = values

    def update(self, t: float) -> None:
        self.expression.x.array[:] = self._values(t, self._x).ravel()


class PlainDolfinx:
    """Operator and step.

    Args:
        space: Lagrange space.
        drift: ``UflDrift`` or ``QuadratureDrift``.
        diffusivity: ``D``.
        dt: Time step.
        quadrature_degree: Of all forms.
        options: PETSc options of the Krylov solver.
        whole: Assemble mass and stiffness anew with the advection, instead of copying them.
    """

    def __init__(
        self,
        space: fem.FunctionSpace,
        drift: UflDrift | QuadratureDrift,
        diffusivity: float,
        dt: float,
        quadrature_degree: int,
        options: Mapping[str, Any],
        whole: bool = False,
    ) -> None:
        self.space, self.drift, self.dt, self._options = space, drift, dt, options
        rho, w = ufl.TrialFunction(space), ufl.TestFunction(space)
        dx = ufl.dx(metadata={"quadrature_degree": quadrature_degree, "quadrature_rule": "default"})
        # A number would be part of the code, and every time step a form to compile.
        half = fem.Constant(space.mesh, 0.5 * dt)
        noise = fem.Constant(space.mesh, 0.5 * dt * diffusivity)
        constant = rho * w * dx + noise * ufl.dot(ufl.grad(rho), ufl.grad(w)) * dx
        advection = -half * rho * ufl.dot(drift.expression, ufl.grad(w)) * dx

        def compiled(form: Any) -> fem.Form:
            return fem.form(form, jit_options=JIT)

        self._mass = fem_petsc.assemble_matrix(compiled(rho * w * dx))
        self._mass.assemble()
        self._constant = fem_petsc.assemble_matrix(compiled(constant))
        self._constant.assemble()
        self._matrix = self._constant.copy()
        self._whole = whole
        self._form = compiled(constant + advection if whole else advection)

    @property
    def matrix(self) -> PETSc.Mat:
        """The operator as last refilled."""
        return self._matrix

    def refill(self) -> None:
        """Operator for the drift as it is."""
        if self._whole:
            self._matrix.zeroEntries()
        else:
            self._constant.copy(self._matrix, PETSc.Mat.Structure.SAME_NONZERO_PATTERN)
        fem_petsc.assemble_matrix(self._matrix, self._form)
        self._matrix.assemble()

    def forward(
        self,
        start: fem.Function,
        steps: int,
        steps_per_piece: int = 1,
        stamp: Callable[[], None] = lambda: None,
    ) -> None:
        """Steps from time 0; the result is in ``density`` and ``iterations``.

        Args:
            start: Density at time 0.
            steps: Number of steps.
            steps_per_piece: The drift is constant over so many steps.
            stamp: Called before every step and after the last.
        """
        ksp = PETSc.KSP().create(self.space.mesh.comm)
        ksp.setOperators(self._matrix)
        table = PETSc.Options("plain_")
        for name, value in self._options.items():
            table[name] = value
        ksp.setOptionsPrefix("plain_")
        ksp.setFromOptions()
        ksp.setInitialGuessNonzero(True)
        rho = start.x.petsc_vec.copy()
        before, b, u = rho.copy(), rho.duplicate(), rho.duplicate()
        self.iterations = 0
        for n in range(steps):
            stamp()
            if n % steps_per_piece == 0:
                self.drift.update((n + 0.5) * self.dt)
                self.refill()
            # Stage between rho and the guess 2 rho - before for the next density.
            u.waxpy(-1.0, before, rho)
            u.aypx(0.5, rho)
            self._mass.mult(rho, b)
            ksp.solve(b, u)
            if ksp.getConvergedReason() < 0:
                raise ArithmeticError(f"GMRES stopped with reason {ksp.getConvergedReason()}.")
            self.iterations += ksp.getIterationNumber()
            rho.copy(before)
            rho.aypx(-1.0, u)  # u - rho
            rho.axpy(1.0, u)
        stamp()
        self.density = rho.array.copy()
        ksp.destroy()
        for vector in (rho, before, b, u):
            vector.destroy()


def steady_crank_nicolson(
    start: fem.Function,
    drift: Any,
    diffusivity: float,
    dt: float,
    steps: int,
    quadrature_degree: int,
    options: Mapping[str, Any],
    stamp: Callable[[], None] = lambda: None,
) -> fem.Function:
    """Crank-Nicolson with a drift that does not depend on time: one matrix, one factorization.

    Args:
        start: Density at time 0.
        drift: UFL expression.
        diffusivity: ``D``.
        dt: Time step.
        steps: Number of steps.
        quadrature_degree: Of all forms.
        options: PETSc options of the direct solver.
        stamp: Called before every step and after the last.
    """
    space = start.function_space
    rho, w = ufl.TrialFunction(space), ufl.TestFunction(space)
    dx = ufl.dx(metadata={"quadrature_degree": quadrature_degree, "quadrature_rule": "default"})
    half = fem.Constant(space.mesh, 0.5 * dt)
    flux = diffusivity * ufl.grad(rho) - rho * drift
    forms = (rho * w * dx, rho * w * dx + half * ufl.dot(flux, ufl.grad(w)) * dx)
    mass, matrix = (fem_petsc.assemble_matrix(fem.form(f, jit_options=JIT)) for f in forms)
    mass.assemble()
    matrix.assemble()
    ksp = PETSc.KSP().create(space.mesh.comm)
    ksp.setOperators(matrix)
    table = PETSc.Options("plain_")
    for name, value in options.items():
        table[name] = value
    ksp.setOptionsPrefix("plain_")
    ksp.setFromOptions()
    ksp.setUp()
    for name in options:  # or the next solver would find them
        table.delValue(name)
    result = start.copy()
    level, u = result.x.petsc_vec, start.x.petsc_vec.duplicate()
    b = u.duplicate()
    for _ in range(steps):
        stamp()
        mass.mult(level, b)
        ksp.solve(b, u)
        if ksp.getConvergedReason() < 0:
            raise ArithmeticError(f"The solver stopped with reason {ksp.getConvergedReason()}.")
        level.aypx(-1.0, u)  # u - rho
        level.axpy(1.0, u)
    stamp()
    for thing in (ksp, mass, matrix, u, b):
        thing.destroy()
    return result
