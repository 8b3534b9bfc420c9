r"""The peer: the adjoint by hand in plain DOLFINx, as well as it goes.

Forms are compiled once with the compiler's optimization on. Only the advection is assembled, once a
piece, on top of a copy of the constant part; the matrices of all pieces and their preconditioners
or factors are kept, so that the reverse sweep assembles and factors nothing. With
:math:`A = M + \tfrac{dt}{2} N(v)` a step is :math:`A u = M\rho_n`,
:math:`\rho_{n+1} = 2u - \rho_n`, and its transpose :math:`A^\top z = 2\lambda`,
:math:`\lambda \leftarrow M z - \lambda + \dots`; the derivative in a weight is
:math:`\sum_n \tfrac{dt}{2}\int u\,\partial v\cdot\nabla z`. Krylov solves start from extrapolated
values in both directions.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import ufl
from dolfinx import fem
from dolfinx.fem import petsc as fem_petsc
from peers.problem import Tracking
from petsc4py import PETSc
from plain_dolfinx import JIT, QuadratureDrift

Array = np.ndarray


class PlainAdjoint:
    """Value and derivative.

    Args:
        case: The problem.
        start: Density at time 0, in a space of linear elements.
        goal: Reference at the last time.
        options: PETSc options of the solvers.
        chain: ``"points"``: the drift by numpy at the quadrature points; its derivative in the
            values there is one form, assembled into a vector, and numpy goes on to the weights once
            a piece. ``"forms"``: the drift as a UFL expression, a scalar form for each weight.
    """

    def __init__(
        self,
        case: Tracking,
        start: fem.Function,
        goal: fem.Function,
        options: Mapping[str, Any],
        chain: str,
    ) -> None:
        self.case, self.start, self.goal = case, start.x.petsc_vec, goal.x.petsc_vec
        space = start.function_space
        self._comm = space.mesh.comm
        self._chain = Points(space, case) if chain == "points" else Forms(space, case)
        rho, w = ufl.TrialFunction(space), ufl.TestFunction(space)
        dx = ufl.dx(metadata={"quadrature_degree": 2, "quadrature_rule": "default"})
        stiff = ufl.dot(ufl.grad(rho), ufl.grad(w))
        advection = -0.5 * case.dt * rho * ufl.dot(self._chain.drift, ufl.grad(w)) * dx
        self._mass = self._assembled(rho * w * dx)
        self._constant = self._assembled((rho * w + 0.5 * case.dt * case.D * stiff) * dx)
        self._form = fem.form(advection, jit_options=JIT)
        self._matrices = [self._constant.copy() for _ in range(case.pieces)]
        table = PETSc.Options("plain_adjoint_")
        for name, value in options.items():
            table[name] = value
        self._solvers = [self._solver(matrix) for matrix in self._matrices]
        for name in options:  # or the next solver would find them
            table.delValue(name)
        self._levels = [self.start.duplicate() for _ in range(case.steps + 1)]
        self._work = [self.start.duplicate() for _ in range(6)]
        self.iterations = {"forward": 0, "reverse": 0}

    def value(self, weights: Array) -> float:
        """J; all levels are kept."""
        case, levels = self.case, self._levels
        b, u, e, image = self._work[:4]
        self.iterations["forward"] = 0
        self.start.copy(levels[0])
        total = 0.0
        for n in range(case.steps):
            k = n // case.steps_per_piece
            if n % case.steps_per_piece == 0:
                self._chain.load(weights[k])
                self._constant.copy(self._matrices[k], PETSc.Mat.Structure.SAME_NONZERO_PATTERN)
                fem_petsc.assemble_matrix(self._matrices[k], self._form)
                self._matrices[k].assemble()
            self._mass.mult(levels[n], b)
            # Stage between the level and the guess 2 rho - before for the next one.
            levels[n].copy(u)
            if n:
                u.scale(1.5)
                u.axpy(-0.5, levels[n - 1])
            self._solvers[k].solve(b, u)
            self._check(k, "forward")
            levels[n].copy(levels[n + 1])
            levels[n + 1].aypx(-1.0, u)
            levels[n + 1].axpy(1.0, u)
            total += case.trapezoid[n + 1] * self._square(n + 1, e, image)
        return 0.5 * (total + case.trapezoid[0] * self._square(0, e, image))

    def derivative(self, weights: Array) -> Array:
        """Derivative of the last value, ``(pieces, weights)``: the reverse sweep."""
        case, levels = self.case, self._levels
        dual, z, before, e, image, u = self._work
        self.iterations["reverse"] = 0
        result = np.zeros_like(weights)
        for vector in (z, before):
            vector.set(0.0)
        self._square(case.steps, e, dual)
        dual.scale(case.trapezoid[-1])
        for n in range(case.steps - 1, -1, -1):
            k = n // case.steps_per_piece
            if (n + 1) % case.steps_per_piece == 0:
                self._chain.start(weights[k])
            # The guess 2 z - before takes the place of before.
            before.aypx(-1.0, z)
            before.axpy(1.0, z)
            z, before = before, z
            dual.copy(image)
            image.scale(2.0)
            self._solvers[k].solveTranspose(image, z)
            self._check(k, "reverse")
            u.waxpy(1.0, levels[n], levels[n + 1])
            u.scale(0.5)
            self._chain.collect(u, z)
            if n % case.steps_per_piece == 0:
                result[k] = self._chain.result(weights[k])
            # The cost's own part goes through the same product with M.
            self._error(n, e)
            e.aypx(case.trapezoid[n], z)
            self._mass.mult(e, image)
            dual.aypx(-1.0, image)
        return result

    def _assembled(self, form: Any) -> Any:
        matrix = fem_petsc.assemble_matrix(fem.form(form, jit_options=JIT))
        matrix.assemble()
        return matrix

    def _solver(self, matrix: Any) -> Any:
        ksp = PETSc.KSP().create(self._comm)
        ksp.setOperators(matrix)
        ksp.setOptionsPrefix("plain_adjoint_")
        ksp.setFromOptions()
        ksp.setInitialGuessNonzero(ksp.getType() != "preonly")
        return ksp

    def _check(self, k: int, sweep: str) -> None:
        ksp = self._solvers[k]
        if ksp.getConvergedReason() < 0:
            raise ArithmeticError(f"The solver stopped with reason {ksp.getConvergedReason()}.")
        self.iterations[sweep] += ksp.getIterationNumber()

    def _error(self, n: int, e: Any) -> None:
        """Level less reference."""
        along = n / self.case.steps
        self._levels[n].copy(e)
        e.axpy(along - 1.0, self.start)
        e.axpy(-along, self.goal)

    def _square(self, n: int, e: Any, image: Any) -> float:
        """Squared norm of a level's error; its product with M is left in ``image``."""
        self._error(n, e)
        self._mass.mult(e, image)
        return float(e.dot(image))


class Points:
    """Drift and its derivative by numpy at the quadrature points."""

    def __init__(self, space: fem.FunctionSpace, case: Tracking) -> None:
        self._case, self._values = case, QuadratureDrift(space, 2, self._drift)
        self.drift = self._values.expression
        self._u, self._z = fem.Function(space), fem.Function(space)
        dx = ufl.dx(metadata={"quadrature_degree": 2, "quadrature_rule": "default"})
        test = ufl.TestFunction(self.drift.function_space)
        form = 0.5 * case.dt * self._u * ufl.dot(ufl.grad(self._z), test) * dx
        self._form = fem.form(form, jit_options=JIT)
        self._dual = np.zeros_like(self.drift.x.array)
        self._y = np.empty((2, 0))

    def load(self, weights: Array) -> None:
        self._weights = weights
        self._values.update(0.0)

    def start(self, weights: Array) -> None:
        self._dual[:] = 0.0

    def collect(self, u: Any, z: Any) -> None:
        for function, vector in ((self._u, u), (self._z, z)):
            function.x.array[:] = vector.array_r
        fem.assemble_vector(self._dual, self._form)

    def result(self, weights: Array) -> Array:
        w, a, b = self._case.unpack(weights)
        s = self._case.scale * self._dual.reshape(-1, 2).T
        p = np.tanh(a @ self._y + b[:, None])
        dz = (1.0 - p * p) * (w.T @ s)
        return np.concatenate([(s @ p.T).ravel(), (dz @ self._y.T).ravel(), dz.sum(axis=1)])

    def _drift(self, t: float, x: Array) -> Array:
        if not self._y.size:
            self._y = np.ascontiguousarray((x.T - self._case.centre) / self._case.scale)
        w, a, b = self._case.unpack(self._weights)
        return (self._case.scale * (w @ np.tanh(a @ self._y + b[:, None]))).T


class Forms:
    """Drift as a UFL expression of Constants, a scalar form for its derivative in each."""

    def __init__(self, space: fem.FunctionSpace, case: Tracking) -> None:
        m, mesh = case.width, space.mesh
        self._u, self._z = fem.Function(space), fem.Function(space)
        w, a, b = (fem.Constant(mesh, np.zeros(s)) for s in ((2, m), (m, 2), (m,)))
        self._constants, self._case = (w, a, b), case
        x = ufl.SpatialCoordinate(mesh)
        y = [(x[j] - case.centre) / case.scale for j in range(2)]
        p = [ufl.tanh(a[i, 0] * y[0] + a[i, 1] * y[1] + b[i]) for i in range(m)]
        s = case.scale
        self.drift = ufl.as_vector([s * sum(w[k, i] * p[i] for i in range(m)) for k in range(2)])
        dx = ufl.dx(metadata={"quadrature_degree": 2, "quadrature_rule": "default"})
        grad = ufl.grad(self._z)
        along = [(w[0, i] * grad[0] + w[1, i] * grad[1]) * (1 - p[i] ** 2) for i in range(m)]
        parts = [grad[k] * p[i] for k in range(2) for i in range(m)]
        parts += [along[i] * y[j] for i in range(m) for j in range(2)] + along
        self._forms = [
            fem.form(0.5 * case.dt * s * self._u * part * dx, jit_options=JIT) for part in parts
        ]

    def load(self, weights: Array) -> None:
        for constant, value in zip(self._constants, self._case.unpack(weights), strict=True):
            constant.value[...] = value

    def start(self, weights: Array) -> None:
        self.load(weights)
        self._sums = np.zeros(len(self._forms))

    def collect(self, u: Any, z: Any) -> None:
        for function, vector in ((self._u, u), (self._z, z)):
            function.x.array[:] = vector.array_r
        self._sums += [fem.assemble_scalar(form) for form in self._forms]

    def result(self, weights: Array) -> Array:
        return self._sums
