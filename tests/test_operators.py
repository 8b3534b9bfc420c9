"""Matrices against compiled forms, transposes, and what preconditioners keep."""

from typing import Any

from mpi4py import MPI

import dolfinx.fem.petsc
import numpy as np
import pytest
import ufl
from dolfinx import fem
from problems import SELF, SPACES, THREE, WORLD, cube, schemes, stirring

from fpcontrol.discretization.base import StageDrift
from fpcontrol.discretization.elements import Elements, lagrange
from fpcontrol.discretization.galerkin import Galerkin
from fpcontrol.linalg.linear_solvers import Fill
from fpcontrol.stepping.operators import Operators, choose_fill
from fpcontrol.stepping.stepper import make_stepper


def entrywise_difference(a: Any, b: Any) -> float:
    """Largest difference of two PETSc matrices over the largest entry of the second."""

    def largest(m: Any) -> float:
        return WORLD.allreduce(np.abs(m.getValuesCSR()[2]).max(initial=0.0), op=MPI.MAX)

    scale = largest(b)
    difference = a.copy()
    difference.axpy(-1.0, b)
    return largest(difference) / scale


def compiled(form: Any) -> Any:
    matrix = dolfinx.fem.petsc.assemble_matrix(fem.form(form))
    matrix.assemble()
    return matrix


@pytest.mark.parallel([1, 2, 3])
@pytest.mark.parametrize(("dim", "degree", "n"), SPACES)
def test_operators_are_those_of_compiled_forms(dim, degree, n):
    space = lagrange(cube(WORLD, dim, n, size=1.7, lower=-0.4), degree)
    g = Elements(space)
    u, w = ufl.TrialFunction(space), ufl.TestFunction(space)
    dx = ufl.dx(metadata={"quadrature_degree": 2 * degree})
    x = ufl.SpatialCoordinate(space.mesh)
    v = ufl.as_vector([1.0 + x[i] - 0.5 * x[(i + 1) % dim] for i in range(dim)])

    def drift(p: np.ndarray) -> np.ndarray:
        return np.stack([1.0 + p[:, i] - 0.5 * p[:, (i + 1) % dim] for i in range(dim)], axis=1)

    matrix = g.matrix(np.zeros(g.sparsity.size))
    Galerkin(degree).of(space).advection_values(drift(g.points), out=matrix.values)
    matrix.update()
    advection = matrix.mat
    # Round-off of a sum of a few products.
    assert entrywise_difference(g.mass, compiled(u * w * dx)) < 1e-14
    assert entrywise_difference(g.stiffness, compiled(ufl.inner(ufl.grad(u), ufl.grad(w)) * dx)) < (
        5e-14
    )
    assert entrywise_difference(advection, compiled(u * ufl.inner(v, ufl.grad(w)) * dx)) < 2e-14


@pytest.mark.parallel([1, 2, 3])
@pytest.mark.parametrize(("dim", "degree", "n"), SPACES)
def test_derivative_in_the_drift_is_the_transpose_of_its_action(dim, degree, n):
    system = Galerkin(degree).on(cube(WORLD, dim, n))
    g, products = system.elements, system.products()
    rng = np.random.default_rng(WORLD.rank)
    v = rng.standard_normal(g.points.shape)
    x = g.space.tabulate_dof_coordinates()[:, :dim]
    u, z = np.cos(x).prod(axis=1), np.sin(x + 0.5).sum(axis=1)  # the same on ghosts and owners
    action = g.sum(float(z[: g.n_owned] @ system.source(v, u)))
    products.add(u, z)
    assert products._sum == pytest.approx(
        g.evaluate(u) * g.reference_gradient(z), rel=1e-13, abs=1e-13
    )
    s = products.collect()
    assert not products._sum.any()
    assert action == pytest.approx(g.sum(float((s * v).sum())), rel=1e-13)
    matrix = g.matrix(system.advection_values(v)).mat
    a, b = matrix.createVecs()
    a.array[:] = u[: g.n_owned]
    matrix.mult(a, b)
    assert g.sum(float(z[: g.n_owned] @ b.array)) == pytest.approx(action, rel=1e-13)


@pytest.mark.parallel([1, 2])
@schemes()
@pytest.mark.parametrize(("dim", "degree", "n"), THREE)
def test_adjoint_step_is_the_transpose_of_the_step(dim, degree, n, scheme):
    system = Galerkin(degree).on(cube(WORLD, dim, n))
    g = system.elements
    stepper = make_stepper(system, 0.1, scheme, 0.2, "direct")
    stage = StageDrift(0, lambda: stirring(0.3, g.points), 0.2)
    x = g.space.tabulate_dof_coordinates()[:, :dim]
    rho, dual = np.cos(x).prod(axis=1), np.sin(x + 0.5).sum(axis=1)[: g.n_owned] + 0.3
    forward, kept = np.empty_like(rho), np.empty((stepper.rows - 1, g.n_local))
    stepper.step(rho, rho, forward, lambda i: stage, kept)
    products, state = system.products(), stepper.adjoint_state()
    back = stepper.adjoint_step(
        dual, rho, kept, forward, lambda i: stage, state, lambda i: products
    )
    ahead = g.inner(dual, forward)
    assert g.inner(back, rho) == pytest.approx(ahead, rel=1e-12)


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize(
    ("steps", "speed", "levels"), [(2000, 0.0, 0), (100, 0.0, 2), (1, 0.0, 4), (2000, 200.0, 2)]
)
def test_fill_of_the_preconditioner_follows_diffusion_and_drift(steps, speed, levels):
    system = Galerkin(1).on(cube(WORLD, 2, 16))
    g = system.elements
    dt, D = 1.0 / steps, 0.5
    theta = dt * D * float((g.stiffness.getDiagonal() / g.mass.getDiagonal()).sum()) / 17**2
    courant = speed * (dt * theta / D) ** 0.5
    assert choose_fill(theta, courant, 2, 1) == Fill(levels, "natural" if speed else "rcm")
    assert choose_fill(theta, courant, 2, 30) == Fill(0, "rcm")
    assert choose_fill(theta, 0.0, 3, 1) == choose_fill(theta, 0.0, 1, 1) == Fill()
    operators, least = (Operators(system, tau, D, "gmres") for tau in (dt, 1e-4 * dt))
    for o, v in ((operators, speed), (least, 0.0)):
        o.set(v * np.stack([g.points[:, 1], -g.points[:, 0]], axis=1), D)
    assert (operators.memory > 1.3 * least.memory) == (levels > 0)
    twice = 2.0 * np.ones((len(g.points), 2))
    assert operators._courant(twice) == pytest.approx(8.0**0.5 * (dt * theta / D) ** 0.5, rel=0.1)


@pytest.mark.parallel([1, 2, 3])
@pytest.mark.parametrize("kind", ["asm", "bjacobi"])
def test_blocks_that_options_choose_are_filled_and_counted(kind):
    system = Galerkin(1).on(cube(WORLD, 2, 16))
    g = system.elements
    least, most = (
        Operators(system, tau, 0.5, "gmres", {"pc_type": kind, "ksp_rtol": 1e-8})
        for tau in (1e-6, 1.0)
    )
    matrix = 12.0 * WORLD.allreduce(g.sparsity.size)
    memory = [WORLD.allreduce(o.solver.memory()) for o in (least, most)]
    copies = 2.0 if kind == "asm" else 1.0
    assert 0.6 * copies * matrix < memory[0] < 1.5 * copies * matrix
    assert memory[1] > 1.3 * memory[0]
    b, x = g.vector(), g.vector()
    b.set(g.integrals)
    for solve in (most.solver.solve, most.solver.solve_transpose):
        x.set(np.zeros(g.n_owned))
        solve(b.petsc_vec, x.petsc_vec)
        assert most.solver._ksp.getConvergedReason() > 0


def test_fill_in_3d_follows_a_drift_that_outweighs_all_else():
    assert choose_fill(100.0, 100.0, 3, 1) == Fill(0, "natural")
    assert choose_fill(1.0, 1.5, 3, 1) == Fill(0, "rcm")
    assert choose_fill(1.0, 3.5, 3, 1) == Fill(1, "natural")
    assert choose_fill(1.0, 3.5, 3, 2) == Fill(0, "rcm")
    assert choose_fill(0.0, 1.0, 2, 1) == choose_fill(0.0, 0.4, 2, 1, monotone=True) == Fill()
    assert choose_fill(0.0, 1.0, 2, 1, monotone=True) == Fill(2, "rcm")


@pytest.mark.parallel([1, 2])
def test_layout_of_a_preconditioner_may_change():
    system = Galerkin(1).on(cube(WORLD, 2, 16))
    g = system.elements
    operators = Operators(system, 1e-3, 0.05, "gmres")
    turn = np.stack([g.points[:, 1], -g.points[:, 0]], axis=1)
    b, x = g.vector(), g.vector()
    b.set(g.integrals)
    iterations = []
    for speed in (1.0, 150.0, 1.0, 150.0):
        operators.set(speed * turn, 0.05)
        x.set(np.zeros(g.n_owned))
        before = operators.solver.iterations
        operators.solver.solve(b.petsc_vec, x.petsc_vec)
        operators.solver.solve_transpose(b.petsc_vec, x.petsc_vec)
        iterations.append(operators.solver.iterations - before)
    assert iterations[:2] == iterations[2:]


@pytest.mark.parallel([1, 2])
def test_fewer_operators_are_kept_where_they_take_more():
    system = Galerkin(1).on(cube(WORLD, 2, 16))
    g = system.elements
    operators, fresh = (Operators(system, 1e-3, 0.05, "gmres") for _ in range(2))
    turn = np.stack([g.points[:, 1], -g.points[:, 0]], axis=1)
    operators.set(turn, 0.05)
    assert operators.keep(3.5 * operators.memory, 9) == 3
    b, x, expected = (g.vector() for _ in range(3))
    b.set(g.integrals)

    def made(*speeds: float) -> int:
        before = operators.made
        for speed in speeds:
            for o, y in ((operators, x), (fresh, expected)):
                o.use(StageDrift(speed, lambda v=speed * turn: v, 0.05))
                o.solver.solve(b.petsc_vec, y.petsc_vec)
            assert x.array == pytest.approx(expected.array, rel=1e-8)
        return operators.made - before

    assert made(1.0, 2.0, 3.0, 1.0, 2.0, 3.0) == 3
    assert made(150.0) == 1  # fills more, so that there is room for one or two
    assert made(3.0, 2.0, 1.0, 3.0, 2.0, 1.0) >= 5
    assert operators.keep(1e9, 9) == 9
    assert made(1.0, 2.0, 3.0, 150.0) + made(1.0, 2.0, 3.0, 150.0) <= 4


def test_two_matrices_have_indices_of_their_own():
    g = Elements(lagrange(cube(SELF, 2, 3), 2))
    first = g.matrix(g.mass_values.copy())
    before = first.mat.getValuesCSR()[2].copy()
    other = g.matrix(g.stiffness_values.copy())
    other.values[:] = 0.0
    other.update()
    assert np.array_equal(first.mat.getValuesCSR()[2], before)
