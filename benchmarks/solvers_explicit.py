"""Stabilized explicit steps (rkc.py) beside Crank-Nicolson: cost, errors, limits."""

import math
from typing import Any

from mpi4py import MPI

import numpy as np
import timing
import ufl
from dolfinx import fem
from dolfinx.fem import petsc as fem_petsc
from petsc4py import PETSc
from plain_dolfinx import JIT, QuadratureDrift
from rkc import (
    DAMPING,
    Coefficients,
    PetscSteps,
    derivative,
    stages_for,
    stages_needed,
    symbol,
)
from solvers_candidates import ilu
from solvers_measure import Candidate
from solvers_problem import HISTORY, Problem, solver

import fpcontrol as fpc

COMM = MPI.COMM_WORLD
Rows = list[dict[str, Any]]
# Largest eigenvalue of M_L^{-1} K times h^2, squares cut in two: that of the five-point stencil.
LARGEST = 8.0


def lumped(mass: PETSc.Mat) -> PETSc.Vec:
    """Row sums of the mass matrix."""
    one, sums = mass.createVecRight(), mass.createVecRight()
    one.set(1.0)
    mass.mult(one, sums)
    return sums


def explicit_matrix(problem: Problem, i: int) -> PETSc.Mat:
    """``dt L`` of step i."""
    a = problem.operators[i // problem.per_piece].copy()
    a.axpy(-1.0, problem.mass, PETSc.Mat.Structure.SAME_NONZERO_PATTERN)
    a.scale(2.0)
    inverse = lumped(problem.mass)
    inverse.reciprocal()
    a.diagonalScale(inverse)
    return a


# -- cost ------------------------------------------------------------------------------------------


class Implicit:
    """Crank-Nicolson steps from one level to the next, all that follows a refill."""

    def __init__(self, problem: Problem, candidate: Candidate, rtol: float) -> None:
        self.problem = problem
        self.matrix = problem.operators[0].copy()
        self.ksp = solver(self.matrix, self.matrix, {"ksp_rtol": rtol} | candidate.options)
        self.b, self.u, self.out = (self.matrix.createVecRight() for _ in range(3))
        self.products = 0.0

    def run(self) -> float:
        """Seconds of all steps."""
        problem, spent, count = self.problem, 0.0, 0
        for i in range(HISTORY, HISTORY + problem.steps):
            problem.refill(self.matrix, i)

            def step(i: int = i) -> None:
                problem.mass.mult(problem.levels[i], self.b)
                problem.guess(i, 2, self.u)
                self.ksp.solve(self.b, self.u)
                self.out.waxpy(-2.0, self.u, problem.levels[i])
                self.out.scale(-1.0)

            spent += timing.seconds(COMM, step)
            count += self.ksp.getIterationNumber()
        self.products = count / problem.steps
        return spent


class Explicit:
    """Runge-Kutta-Chebyshev steps from the same levels."""

    def __init__(self, problem: Problem, matrices: list[PETSc.Mat]) -> None:
        self.problem = problem
        self.products = stages_for(LARGEST * problem.ratio)
        self.out = matrices[0].createVecRight()
        self.steps = [PetscSteps(a, Coefficients(self.products)) for a in matrices]

    def run(self) -> float:
        """Seconds of all steps."""
        spent = 0.0
        for k, scheme in enumerate(self.steps):
            rho = self.problem.levels[HISTORY + k]
            spent += timing.seconds(COMM, lambda s=scheme, x=rho: s.step(x, self.out))
        return spent


def cost(n: int, ratios: tuple[float, ...], steps: int, rounds: int, rtol: float) -> Rows:
    """A step after its refill, with all products and updates."""
    rows = []
    for ratio in ratios:
        problem = Problem(2, n, 1, ratio, steps)
        matrices = [explicit_matrix(problem, HISTORY + i) for i in range(steps)]
        runs: dict[str, Any] = {
            "Crank-Nicolson, GMRES, ILU(0)": Implicit(problem, Candidate(), rtol),
            "Crank-Nicolson, GMRES, ILU(2)": Implicit(problem, ilu(2), rtol),
            "RKC2": Explicit(problem, matrices),
        }
        times: dict[str, list[float]] = {name: [] for name in runs}
        for k in range(rounds + 1):
            for name, run in runs.items():
                spent = run.run()
                if k:
                    times[name].append(spent)
        checks = identities(problem, matrices, runs["RKC2"].products)
        first = next(iter(times.values()))
        for name, mine in times.items():
            rows.append(
                {
                    "dofs": problem.dofs,
                    "dt D/h2": ratio,
                    "method": name,
                    "its or stages": runs[name].products,
                    "step": 1e6 * timing.median(mine) / (problem.dofs * steps),
                    "ratio": timing.ratio(mine, first),
                    **(checks if name == "RKC2" else dict.fromkeys(checks)),
                }
            )
        problem.destroy()
    return rows


def identities(problem: Problem, matrices: list[PETSc.Mat], stages: int) -> dict[str, float]:
    """Mass, transposed step and derivative: what has to hold to round-off."""
    a, rho = matrices[0], problem.levels[HISTORY]
    c = Coefficients(stages)
    steps, mass = PetscSteps(a, c), lumped(problem.mass)
    out, dual, back = (rho.duplicate() for _ in range(3))
    dual.setRandom()
    steps.step(rho, out)
    steps.step(dual, back, True)
    found = {
        "mass": abs(mass.dot(out) - mass.dot(rho)) / mass.dot(rho),
        "transposed": abs(dual.dot(out) - back.dot(rho)) / (dual.norm() * out.norm()),
    }
    if COMM.size > 1:
        return found
    # Along the operator itself, the density its own dual, little cancels in the difference.
    slope = 0.0
    x, y = rho.duplicate(), rho.duplicate()
    for p, level in derivative(a, c, rho.array.copy(), rho.array.copy()):
        x.array[:] = level
        a.mult(x, y)
        slope += p @ y.array

    def value(h: float) -> float:
        scaled = a.copy()
        scaled.scale(1.0 + h)
        PetscSteps(scaled, c).step(rho, out)
        return float(rho.dot(out))

    h = 1e-3  # fourth order: 1e-12 of truncation, and of cancellation
    near, far = value(h) - value(-h), value(2.0 * h) - value(-2.0 * h)
    return found | {"derivative": abs((8.0 * near - far) / (12.0 * h) - slope) / abs(slope)}


# -- errors ----------------------------------------------------------------------------------------


class Semidiscrete:
    """The manufactured problem in degree 1, stepped implicitly or explicitly."""

    def __init__(self, n: int) -> None:
        self.exact = fpc.verification.Manufactured(
            2, a=lambda t: 0.6 * math.cos(3.0 * t), slope=lambda t: -1.8 * math.sin(3.0 * t)
        )
        self.n, self.diffusivity = n, 0.5 * self.exact.sigma**2
        mesh = fpc.mesh.rectangle(COMM, (n, n))
        self.space = fem.functionspace(mesh, ("Lagrange", 1))
        self.start = self.exact.start(mesh, 1).x.array.copy()
        self.drift = QuadratureDrift(self.space, 2, self.exact.drift)
        rho, w = ufl.TrialFunction(self.space), ufl.TestFunction(self.space)
        dx = ufl.dx(metadata={"quadrature_degree": 2, "quadrature_rule": "default"})
        flux = self.diffusivity * ufl.grad(rho) - rho * self.drift.expression
        self._form = fem.form(ufl.dot(flux, ufl.grad(w)) * dx, jit_options=JIT)
        self.mass = fem_petsc.assemble_matrix(fem.form(rho * w * dx, jit_options=JIT))
        self.mass.assemble()
        self.lumped = lumped(self.mass)
        self.n_matrix = self.mass.copy()

    def operator(self, t: float) -> PETSc.Mat:
        """``N(v(t))``."""
        self.drift.update(t)
        self.n_matrix.zeroEntries()
        fem_petsc.assemble_matrix(self.n_matrix, self._form)
        self.n_matrix.assemble()
        return self.n_matrix

    def crank_nicolson(self, t1: float, steps: int, lump: bool) -> np.ndarray:
        """Density at the end."""
        dt = t1 / steps
        a = self.mass.copy()
        ksp = solver(a, a, {"ksp_rtol": 1e-13} | ilu(2).options)
        rho, b, u = (self.mass.createVecRight() for _ in range(3))
        rho.array[:] = self.start[: rho.local_size]
        before = rho.copy()
        for i in range(steps):
            self.operator((i + 0.5) * dt).copy(a)
            a.scale(0.5 * dt)
            if lump:
                a.setDiagonal(self.lumped, PETSc.InsertMode.ADD_VALUES)
                b.pointwiseMult(self.lumped, rho)
            else:
                a.axpy(1.0, self.mass, PETSc.Mat.Structure.SAME_NONZERO_PATTERN)
                self.mass.mult(rho, b)
            u.waxpy(-1.0, before, rho)
            u.aypx(0.5, rho)
            ksp.solve(b, u)
            rho.copy(before)
            rho.aypx(-1.0, u)
            rho.axpy(1.0, u)
        return rho.array.copy()

    def rkc(self, t1: float, steps: int, stages: int) -> np.ndarray:
        """Density at the end."""
        dt = t1 / steps
        inverse = self.lumped.copy()
        inverse.reciprocal()
        inverse.scale(dt)
        scheme = PetscSteps(self.n_matrix, Coefficients(stages))
        rho, out = self.mass.createVecRight(), self.mass.createVecRight()
        rho.array[:] = self.start[: rho.local_size]
        for i in range(steps):
            self.operator((i + 0.5) * dt).diagonalScale(inverse)
            scheme.step(rho, out)
            rho, out = out, rho
        return rho.array.copy()

    def error(self, t1: float, rho: np.ndarray) -> float:
        """Relative L2 distance to the exact density."""
        u = fem.Function(self.space)
        u.x.array[: len(rho)] = rho
        u.x.scatter_forward()
        size = fpc.verification.l2_error(fem.Function(self.space), self._at(t1))
        return fpc.verification.l2_error(u, self._at(t1)) / size

    def _at(self, t1: float) -> Any:
        return lambda x: self.exact.density(t1, x)


def errors(n: int, ratios: tuple[float, ...], t1: float = 0.5) -> Rows:
    """Errors against the exact density, and in time against small steps of the same elements."""
    problem = Semidiscrete(n)
    per_ratio = t1 * problem.diffusivity * n * n
    fine = 4 * max(1, round(per_ratio / min(ratios)))
    limits = {lump: problem.crank_nicolson(t1, fine, lump) for lump in (False, True)}
    rows = []

    def norm(x: np.ndarray) -> float:
        return float(np.sqrt(COMM.allreduce(x @ x)))

    for ratio in ratios:
        steps = max(1, round(per_ratio / ratio))
        stages = stages_for(LARGEST * ratio)
        implicit = problem.crank_nicolson(t1, steps, False)
        explicit = problem.rkc(t1, steps, stages)
        rows.append(
            {
                "cells a side": n,
                "dt D/h2": ratio,
                "steps": steps,
                "stages": stages,
                "Crank-Nicolson": problem.error(t1, implicit),
                "RKC2": problem.error(t1, explicit),
                "in time, Crank-Nicolson": norm(implicit - limits[False]) / norm(implicit),
                "in time, RKC2": norm(explicit - limits[True]) / norm(implicit),
            }
        )
    return rows


# -- limits ----------------------------------------------------------------------------------------


def limits(ratios: tuple[float, ...], most: int = 100) -> Rows:
    """Fewest stages that let no mode of an unbounded mesh grow, by damping and cell Peclet."""
    rows = []
    for damping in (DAMPING, 1.0, 10.0):
        for ratio in ratios:
            row: dict[str, Any] = {
                "damping": damping,
                "dt D/h2": ratio,
                "diffusion alone": stages_for(LARGEST * ratio),
            }
            for peclet in (0.1, 0.3, 1.0, 2.0, 5.0, 10.0):
                found = stages_needed(symbol(ratio, peclet), damping, most)
                row[f"Pe {peclet:g}"] = "-" if found is None else found
            rows.append(row)
    return rows
