"""The forward problem: mass, exactness along the reference, orders, closed forms, operators."""

import itertools
import math
import warnings
from typing import Any

from mpi4py import MPI

import dolfinx.fem.petsc
import numpy as np
import pytest
import ufl
from dolfinx import fem
from problems import SELF, WORLD, bump, cube, raised, tracking

import fpcontrol as fpc
from fpcontrol.discretization.base import StageDrift
from fpcontrol.discretization.elements import Elements, lagrange
from fpcontrol.discretization.galerkin import Galerkin
from fpcontrol.fokker_planck import norm
from fpcontrol.linalg.linear_solvers import Fill, LinearSolver
from fpcontrol.stepping.operators import Operators, choose_fill
from fpcontrol.stepping.stepper import make_stepper
from fpcontrol.verification import Manufactured, l2_error, orders

# Dimension, degree, cells a side: small, with every dimension and degree together.
SPACES = [
    *((1, 1, 9), (1, 2, 6), (1, 3, 5)),
    *((2, 1, 5), (2, 2, 4), (2, 3, 3)),
    *((3, 1, 3), (3, 2, 2), (3, 3, 1)),
]
THREE = [(1, 3, 5), (2, 2, 4), (3, 1, 3)]
SCHEMES = [fpc.CrankNicolson(), fpc.BackwardEuler(), fpc.SDIRK2(), fpc.SDIRK4()]


def schemes() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.name)


def spaces_and_schemes() -> pytest.MarkDecorator:
    """Every space and every scheme, and the schemes in use most with every space."""
    pairs = [(*space, scheme) for space in SPACES for scheme in SCHEMES[:2]]
    pairs += [(*space, SCHEMES[2 + i % 2]) for i, space in enumerate(SPACES)]
    return pytest.mark.parametrize(
        ("dim", "degree", "n", "scheme"), pairs, ids=lambda part: getattr(part, "name", None)
    )


def stirring(t: float, x: np.ndarray) -> np.ndarray:
    """A drift that changes in time, is no gradient and goes through the walls."""
    return np.sin(3.0 * x[:, ::-1] + t) + 0.3


# --- mass ----------------------------------------------------------------------------------------


def check_mass(dim: int, degree: int, n: int, scheme: Any) -> None:
    mesh = cube(WORLD, dim, n)
    equation = fpc.FokkerPlanck(mesh, stirring, 0.6, degree=degree, linear_solver="gmres")
    trajectory = equation.solve(bump(mesh, degree, 0.3), 1.0, 20, scheme=scheme)
    assert trajectory.mass_defect <= 1e-13
    assert trajectory.mass == pytest.approx(1.0, abs=1e-13)


@pytest.mark.parallel([1, 2])
@spaces_and_schemes()
def test_mass_is_constant(dim, degree, n, scheme):
    check_mass(dim, degree, n, scheme)


# Three ranks take turns on two cores: every dimension and degree, once.
@pytest.mark.parallel(3)
@pytest.mark.parametrize(("dim", "degree", "n"), THREE)
def test_mass_is_constant_on_three_ranks(dim, degree, n):
    check_mass(dim, degree, n, fpc.CrankNicolson())


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize(("dim", "degree", "n"), [(1, 3, 6), (2, 2, 4), (3, 1, 2)])
def test_mass_is_constant_with_direct_solver(dim, degree, n):
    mesh = cube(WORLD, dim, n)
    equation = fpc.FokkerPlanck(mesh, stirring, 0.6, degree=degree, linear_solver="direct")
    assert equation.solve(bump(mesh, degree, 0.3), 1.0, 20).mass_defect <= 1e-13


@pytest.mark.parallel([1, 2])
def test_mass_does_not_depend_on_the_tolerance_of_the_solver():
    mesh = cube(WORLD, 2, 8)
    equation = fpc.FokkerPlanck(
        mesh, stirring, 0.6, linear_solver="gmres", petsc_options={"ksp_rtol": 1e-4}
    )
    # Without the correction along the constant, 1e-6 of the mass is lost.
    assert equation.solve(bump(mesh, 2, 0.3), 1.0, 40).mass_defect <= 1e-13


# --- the line between two densities --------------------------------------------------------------


def moser_defect(dim: int, degree: int, n: int, scheme: Any, solver: str, **shape: float) -> float:
    mesh = cube(WORLD, dim, n, **shape)
    length, t1 = shape.get("size", 1.0), 2.5
    sigma = 0.4 * length
    flow = fpc.MoserFlow(bump(mesh, degree, 0.3), bump(mesh, degree, 0.7, 0.2), t1, sigma)
    equation = fpc.FokkerPlanck(mesh, flow.drift, sigma, degree=degree, linear_solver=solver)
    trajectory = equation.solve(flow.start, t1, 8, scheme=scheme)
    line = np.array([flow.coefficients(t) for t in trajectory.times])
    difference = np.abs(trajectory.levels - line).max()
    defect = WORLD.allreduce(difference, op=MPI.MAX) / WORLD.allreduce(line.max(), op=MPI.MAX)
    print(f"{dim}-D P{degree} {scheme} {solver}: {defect:.1e}")
    return defect


@pytest.mark.parallel([1, 2])
@spaces_and_schemes()
def test_moser_drift_gives_the_discrete_line(dim, degree, n, scheme):
    # To the accuracy of the solver, not of these coarse meshes (1e-2).
    assert moser_defect(dim, degree, n, scheme, "gmres") <= 1e-10


@pytest.mark.parallel(3)
@pytest.mark.parametrize(("dim", "degree", "n"), THREE)
def test_moser_drift_gives_the_discrete_line_on_three_ranks(dim, degree, n):
    assert moser_defect(dim, degree, n, fpc.CrankNicolson(), "gmres") <= 1e-10


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize(("dim", "degree", "n"), [(1, 2, 9), (2, 3, 3), (3, 1, 3)])
def test_moser_drift_gives_the_discrete_line_with_direct_solver(dim, degree, n):
    assert moser_defect(dim, degree, n, fpc.CrankNicolson(), "direct") <= 1e-12


@pytest.mark.parallel([1, 2])
@schemes()
def test_moser_drift_gives_the_discrete_line_in_kilometres(scheme):
    assert moser_defect(2, 2, 5, scheme, "gmres", size=500.0, lower=-200.0) <= 1e-10


# --- orders --------------------------------------------------------------------------------------


def error_in_space(dim: int, degree: int, n: int) -> float:
    solution = Manufactured(dim)
    mesh = cube(WORLD, dim, n)
    equation = fpc.FokkerPlanck(mesh, solution.drift, solution.sigma, degree=degree)
    last = equation.solve(solution.start(mesh, degree), 0.5, 4)[-1]
    return l2_error(last, lambda x: solution.density(0.5, x))


def order_in_space(dim: int, degree: int, cells: list[int]) -> None:
    errors = [error_in_space(dim, degree, n) for n in cells]
    observed = orders(errors)
    print(f"{dim}-D P{degree} cells {cells} errors {errors} order {observed[-1]:.3f}")
    # The last halving; half an order of tolerance would hide the loss of an order on some cells.
    assert observed[-1] == pytest.approx(degree + 1, abs=0.2)


@pytest.mark.parametrize(
    ("dim", "degree", "cells"),
    [
        (1, 1, [16, 32]),
        (1, 2, [16, 32]),
        (1, 3, [16, 32]),
        (2, 1, [16, 32]),
        (2, 2, [8, 16]),
        (2, 3, [6, 12]),
        (3, 1, [8, 16]),
        (3, 2, [5, 10]),
        (3, 3, [4, 8]),
    ],
)
def test_order_in_space_is_degree_plus_one(dim, degree, cells):
    order_in_space(dim, degree, cells)


@pytest.mark.parallel(2)
def test_order_in_space_on_ranks():
    order_in_space(2, 2, [8, 16])


def test_manufactured_solution_is_of_one_to_three_dimensions():
    with pytest.raises(ValueError, match="dim = 4"):
        Manufactured(4)


def error_in_time(scheme: Any, steps: int, dim: int, n: int) -> float:
    solution = Manufactured(
        dim, a=lambda t: 0.6 * math.cos(3.0 * t), slope=lambda t: -1.8 * math.sin(3.0 * t)
    )
    mesh = cube(WORLD, dim, n)
    equation = fpc.FokkerPlanck(mesh, solution.drift, solution.sigma, degree=3)
    trajectory = equation.solve(solution.start(mesh, 3), 1.0, steps, scheme=scheme)
    return l2_error(trajectory[-1], lambda x: solution.density(1.0, x))


@pytest.mark.parametrize(
    ("scheme", "dim", "n", "steps"),
    [
        (fpc.BackwardEuler(), 1, 32, 40),
        (fpc.BackwardEuler(), 2, 8, 40),
        (fpc.CrankNicolson(), 1, 32, 40),
        (fpc.CrankNicolson(), 2, 8, 40),
        (fpc.SDIRK2(), 1, 64, 64),
        (fpc.SDIRK2(), 2, 16, 32),
    ],
    ids=str,
)
def test_order_in_time(scheme, dim, n, steps):
    errors = [error_in_time(scheme, k, dim, n) for k in (steps // 2, steps)]
    observed = orders(errors)
    print(f"{dim}-D {scheme} errors {errors} order {observed[-1]:.3f}")
    assert observed[-1] == pytest.approx(scheme.order, abs=0.1)


def test_order_four_in_time():
    # Errors in time alone, by the difference to twice the steps: the mesh's own is 8e-10.
    solution = Manufactured(
        1, a=lambda t: 0.6 * math.cos(3.0 * t), slope=lambda t: -1.8 * math.sin(3.0 * t)
    )
    mesh = cube(WORLD, 1, 32)
    equation = fpc.FokkerPlanck(mesh, solution.drift, solution.sigma, degree=3)
    start = solution.start(mesh, 3)
    ends = [
        equation.solve(start, 1.0, steps, scheme=fpc.SDIRK4()).levels[-1]
        for steps in (64, 128, 256, 512)
    ]
    errors = [norm(equation.elements, a - b) for a, b in itertools.pairwise(ends)]
    observed = orders(errors)
    print(f"errors {errors} orders {observed}")
    assert errors[-1] < 1e-10
    # Five stages reach their order from below: 3.5, 3.7, 3.8, 3.9 as the steps are halved.
    assert observed[-1] == pytest.approx(4.0, abs=0.1)


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("scheme", [fpc.CrankNicolson(), fpc.SDIRK2()], ids=repr)
@pytest.mark.parametrize("waves", [0.7, 4.0])
def test_tolerance_is_kept(scheme, waves):
    mesh = cube(WORLD, 1, 30)

    def drift(t: float, x: np.ndarray) -> np.ndarray:
        # With four waves the middles of two steps, and those of four, all meet zeros of the drift.
        return 3.0 * np.sin(2.0 * np.pi * waves * t) * np.sin(np.pi * x)

    equation = fpc.FokkerPlanck(mesh, drift, 0.5)
    start = fpc.density.uniform(mesh)
    run = equation.solve(start, 1.0, 2, scheme=scheme, tolerance=1e-3)
    exact = equation.solve(start, 1.0, 8 * (len(run) - 1), scheme=fpc.SDIRK4())
    g = equation.elements
    gaps = [norm(g, u) for u in run.levels - exact.levels[::8]]
    worst = max(gaps) / max(norm(g, u) for u in exact.levels)
    assert 0.2 * run.time_error < worst < 1.3 * run.time_error
    assert run.time_error <= 1e-3


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize(
    ("drift", "sigma", "options", "direct"),
    [
        (fpc.drift.zero(), 0.5, None, True),
        (fpc.drift.zero(), lambda t: 0.5 + t, None, False),
        (fpc.drift.zero(), 0.5, {"pc_type": "jacobi"}, False),
        (stirring, 0.5, None, False),
    ],
)
def test_steady_drift_in_the_plane_is_factored_once(drift, sigma, options, direct):
    mesh = cube(WORLD, 2, 6)
    start = bump(mesh, 2, 0.3)
    equation = fpc.FokkerPlanck(mesh, drift, sigma, petsc_options=options)
    chosen = equation.solve(start, 1.0, 5)
    # A factorization counts as one iteration a solve.
    assert (chosen.iterations == 5) == direct
    by_gmres = fpc.FokkerPlanck(mesh, drift, sigma, linear_solver="gmres").solve(start, 1.0, 5)
    # rtol 1e-12 of GMRES over five steps.
    assert np.abs(chosen.levels - by_gmres.levels).max() < 1e-10


# --- closed forms --------------------------------------------------------------------------------


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_heat_flow_decays_mode_by_mode(dim):
    sigma, t1, modes = 0.5, 0.4, [(0.5, 1), (0.3, 2)]

    def exact(t: float, x: np.ndarray) -> np.ndarray:
        first = x[:, 0]
        decay = [a * np.exp(-0.5 * (sigma * k * np.pi) ** 2 * t) for a, k in modes]
        return 1.0 + sum(
            a * np.cos(k * np.pi * first) for a, (_, k) in zip(decay, modes, strict=True)
        )

    mesh = cube(WORLD, dim, [16, 8, 4][dim - 1])
    start = fpc.density.interpolate(mesh, lambda x: exact(0.0, x.T), 3)
    heat = fpc.FokkerPlanck(mesh, fpc.drift.zero(), sigma, degree=3)
    error = l2_error(heat.solve(start, t1, 40)[-1], lambda x: exact(t1, x))
    # Space and time on these meshes; a sigma wrong by 1 % makes 3e-3.
    assert error < [2e-5, 5e-5, 6e-4][dim - 1]


@pytest.mark.parallel([1, 2])
def test_ornstein_uhlenbeck_process_is_gaussian_at_all_times():
    sigma, t1, centre, variance = 1.2, 1.0, np.array([1.0, -0.5]), 0.5

    def exact(t: float, x: np.ndarray) -> np.ndarray:
        mean = centre * np.exp(-t)
        s = variance * np.exp(-2.0 * t) + 0.5 * sigma**2 * (1.0 - np.exp(-2.0 * t))
        return np.exp(-((x - mean) ** 2).sum(axis=1) / (2.0 * s)) / (2.0 * np.pi * s)

    mesh = cube(WORLD, 2, 30, size=12.0, lower=-6.0)
    start = fpc.density.interpolate(mesh, lambda x: exact(0.0, x[:2].T), 3)
    equation = fpc.FokkerPlanck(mesh, fpc.drift.Steady(lambda x: -x), sigma, degree=3)
    trajectory = equation.solve(start, t1, 40)
    # The walls, six lengths away, hold 1e-9 of the mass; steps of 1/40 leave 1e-4.
    for n in (20, 40):
        t = trajectory.times[n]
        assert l2_error(trajectory[n], lambda x, t=t: exact(t, x)) < 2e-4


@pytest.mark.parametrize("dim", [1, 2])
def test_gibbs_density_is_where_a_potential_drift_ends(dim):
    sigma = 1.0
    mesh = cube(SELF, dim, [40, 12][dim - 1])

    def potential(x: np.ndarray) -> np.ndarray:
        return np.cos(np.pi * x).sum(axis=0)

    def drift(x: np.ndarray) -> np.ndarray:
        return np.pi * np.sin(np.pi * x)

    end = fpc.FokkerPlanck(mesh, fpc.drift.Steady(drift), sigma).solve(
        fpc.density.uniform(mesh), 10.0, 20, scheme=fpc.BackwardEuler()
    )[-1]
    gibbs = fpc.density.interpolate(mesh, lambda x: np.exp(-2.0 / sigma**2 * potential(x[:dim])))
    assert np.abs(end.x.array - gibbs.x.array).max() < 1e-3 * gibbs.x.array.max()


# --- operators -----------------------------------------------------------------------------------


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


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("steady", [False, True])
def test_strong_drifts_through_the_walls_take_few_iterations(steady):
    # Cell Peclet number 5: in another ordering GMRES fails, on one rank already.
    n, D = 32, 0.05
    mesh, speed, dt = cube(WORLD, 2, n), 10.0 * D * n, 1.0 / (n * n * D)

    def drift(t: float, x: np.ndarray) -> np.ndarray:
        phase = 0.0 if steady else 0.12 * t / dt
        y, c, s = x - 0.5, np.cos(phase), np.sin(phase)
        one, two = np.tanh(6.0 * (y @ [c, s])), np.tanh(6.0 * (y @ [-s, c]))
        return speed * np.stack([-s * one - 0.5 * c * two, c * one - 0.5 * s * two], axis=1)

    equation = fpc.FokkerPlanck(mesh, drift, (2.0 * D) ** 0.5, degree=1, linear_solver="gmres")
    trajectory = equation.solve(fpc.density.uniform(mesh, 1), 4.0 * dt, 4)
    assert trajectory.iterations < 4 * 40


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


# --- ranks, calls, trajectories ------------------------------------------------------------------


@pytest.mark.parallel([2, 3])
@pytest.mark.parametrize(("dim", "degree", "n"), [(1, 3, 7), (2, 2, 5), (3, 1, 3)])
def test_density_is_that_of_one_rank(dim, degree, n):
    def run(comm: MPI.Comm) -> fpc.Trajectory:
        mesh = cube(comm, dim, n)
        equation = fpc.FokkerPlanck(mesh, stirring, 0.6, degree=degree)
        return equation.solve(bump(mesh, degree, 0.3), 1.0, 10)

    alone, shared = run(SELF), run(WORLD)

    def by_place(t: fpc.Trajectory) -> dict[tuple[float, ...], np.ndarray]:
        x = t.space.tabulate_dof_coordinates()
        return {tuple(np.round(p, 9) + 0.0): t.levels[:, i] for i, p in enumerate(x)}

    expected, found = by_place(alone), by_place(shared)
    worst = max(np.abs(found[p] - expected[p]).max() for p in found)
    assert WORLD.allreduce(worst, op=MPI.MAX) <= 1e-9 * np.abs(alone.levels).max()
    assert shared.mass == pytest.approx(alone.mass, rel=1e-13)
    assert shared.minimum == pytest.approx(alone.minimum, abs=1e-9 * np.abs(alone.levels).max())


class Counted:
    """Counts the calls of a drift."""

    def __init__(self, drift: Any) -> None:
        self._drift, self.times = drift, []
        if hasattr(drift, "piece"):
            self.piece = drift.piece

    def __call__(self, t: float, x: np.ndarray) -> np.ndarray:
        self.times.append(t)
        return self._drift(t, x)


def calls(drift: Any, scheme: Any = None) -> list[float]:
    counted = Counted(drift)
    mesh = cube(SELF, 1, 4)
    fpc.FokkerPlanck(mesh, counted, 1.0).solve(fpc.density.uniform(mesh), 1.0, 12, scheme=scheme)
    return counted.times


@schemes()
def test_drift_is_asked_once_where_it_is_constant(scheme):
    network = fpc.NetworkDrift(cube(SELF, 1, 4), 1, pieces=3)
    assert len(calls(fpc.drift.Steady(np.ones_like), scheme)) == 1
    assert len(calls(network, scheme)) == 3
    assert len(calls(stirring, scheme)) == 12 * len(scheme.c)


@schemes()
def test_drift_is_asked_inside_the_steps_only(scheme):
    position = 12.0 * np.array(calls(stirring, scheme))
    inside = position - np.floor(position)
    assert (np.floor(position) == np.repeat(np.arange(12), len(scheme.c))).all()
    assert ((inside > 1e-10) & (inside < 1.0)).all()


@schemes()
def test_network_gives_the_same_as_a_drift_and_as_a_control(scheme):
    mesh = cube(SELF, 2, 4)
    start, goal = bump(mesh, 2, 0.3), bump(mesh, 2, 0.7)
    network = fpc.NetworkDrift(mesh, 2, pieces=3, t1=0.6)
    problem = fpc.TrackingProblem(
        fpc.MoserFlow(start, goal, 0.6, 0.8), network, 0.8, 12, scheme=scheme
    )
    controlled = problem.trajectory(network.weights).levels
    forward = fpc.FokkerPlanck(mesh, network, 0.8).solve(start, 0.6, 12, scheme=scheme).levels
    assert np.abs(controlled - forward).max() < 1e-11 * controlled.max()


@pytest.mark.parallel([1, 2, 3])
def test_trajectory_is_a_sequence_of_densities():
    mesh = cube(WORLD, 2, 4)
    start = bump(mesh, 1, 0.3)
    trajectory = fpc.FokkerPlanck(mesh, stirring, 0.6, degree=1).solve(start, 3.0, 8, t0=1.0)
    assert len(trajectory) == len(trajectory.times) == len(list(trajectory)) == 9
    assert trajectory.times == pytest.approx(np.linspace(1.0, 3.0, 9))
    assert trajectory.mass.shape == trajectory.minimum.shape == (9,)
    assert np.array_equal(trajectory[0].x.array, start.x.array)
    assert np.array_equal(trajectory[-1].x.array, trajectory[8].x.array)
    assert all(
        np.array_equal(rho.x.array, trajectory.levels[i]) for i, rho in enumerate(trajectory)
    )
    lowest = [WORLD.allreduce(rho.x.array.min(), op=MPI.MIN) for rho in trajectory]
    assert trajectory.minimum == pytest.approx(lowest)
    with pytest.raises(IndexError):
        trajectory[9]


def test_minimum_reports_a_negative_density():
    mesh = cube(SELF, 1, 20)
    blow = fpc.drift.Steady(lambda x: np.full_like(x, 5.0))
    with pytest.warns(UserWarning, match="negative"):
        trajectory = fpc.FokkerPlanck(mesh, blow, 0.5, degree=1).solve(bump(mesh, 1, 0.3), 1.0, 4)
    assert trajectory.minimum.min() < 0.0


def free_communicators() -> int:
    """How many more communicators MPI has (MPICH: about 2000), counted up to 2500."""
    taken = []
    try:
        while len(taken) < 2500:
            taken.append(WORLD.Dup())
    except MPI.Exception:
        pass
    for comm in taken:
        comm.Free()
    return len(taken)


@pytest.mark.parallel(2)
def test_what_is_no_longer_used_is_given_back():
    # PETSc keeps what one rank drops until all clean up: 7 communicators a mesh and its matrices.
    def use() -> None:
        mesh = cube(WORLD, 2, 3)
        fpc.FokkerPlanck(mesh, stirring, 0.6, degree=1).solve(bump(mesh, 1, 0.3), 1.0, 1)

    use()
    before = free_communicators()
    for _ in range(20):
        use()
    assert before - free_communicators() <= 20


@pytest.mark.parallel([1, 2])
def test_solver_that_does_not_converge_is_an_error_on_all_ranks():
    mesh = cube(WORLD, 2, 8)
    equation = fpc.FokkerPlanck(
        mesh, stirring, 0.6, linear_solver="gmres", petsc_options={"ksp_max_it": 1}
    )
    with pytest.raises(ArithmeticError, match=r"1 iterations.*linear_solver='direct'"):
        equation.solve(bump(mesh, 2, 0.3), 1.0, 1)


@pytest.mark.parallel(2)
def test_options_of_the_parts_of_a_preconditioner_are_read():
    mesh = cube(WORLD, 2, 16)
    iterations = []
    for kind in ("ilu", "none"):
        options = {"sub_pc_type": kind}
        equation = fpc.FokkerPlanck(
            mesh, stirring, 0.6, linear_solver="gmres", petsc_options=options
        )
        iterations.append(equation.solve(bump(mesh, 2, 0.3), 1.0, 4).iterations)
    assert iterations[1] > 1.5 * iterations[0]


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize(
    "options",
    [
        {"ksp_type": "preonly", "pc_type": "lu", "pc_factor_mat_solver_type": "mumps"},
        {"pc_type": "asm", "sub_pc_type": "jacobi"},
        {"pc_type": "gamg"},
        {"ksp_type": "bcgs", "pc_type": "bjacobi"},
        {"pc_factor_levels": 1, "sub_pc_factor_levels": 1},
    ],
    ids=lambda options: " ".join(map(str, options.values())),
)
@pytest.mark.filterwarnings("ignore:petsc_options")
def test_other_solvers_by_options_give_the_same(options):
    usual, other = (tracking(n=8, petsc_options=more) for more in (None, options))
    weights = usual.drift.weights
    value, derivative = usual.value_and_derivative(weights)
    assert other(weights) == pytest.approx(value, rel=1e-10)
    found = other.derivative(weights)
    assert np.abs(found - derivative).max() <= 1e-8 * np.abs(derivative).max()
    assert other.runs.sweeps.stepper.operators.memory > 1000.0


@pytest.mark.parallel([1, 2])
def test_option_that_nothing_reads_is_told():
    mesh = cube(WORLD, 2, 4)

    def solve(**options: Any) -> list[str]:
        e = fpc.FokkerPlanck(mesh, stirring, 0.6, degree=1, petsc_options=options)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            e.solve(bump(mesh, 1, 0.3), 1.0, 2)
        return [str(w.message) for w in caught if "petsc_options" in str(w.message)]

    assert solve(ksp_rtol=1e-9, ksp_gmres_restart=20) == []
    told = solve(ksp_rtoll=1e-9, ksp_rtol=1e-9)
    assert ["has not read ksp_rtoll;" in text for text in told] == [True] * (WORLD.rank == 0)
    part = "sub_" if WORLD.size > 1 else ""
    assert solve(**{f"{part}pc_factor_levels": 1, f"{part}pc_factor_shift_type": "nonzero"}) == []
    lu = {"ksp_type": "preonly", "pc_type": "lu", "pc_factor_mat_solver_type": "mumps"}
    assert solve(**lu, mat_mumps_icntl_14=40) == []


@pytest.mark.parallel([1, 2])
def test_direct_solver_that_does_not_transpose_is_refused():
    options = {"pc_factor_mat_solver_type": "superlu_dist"}
    p = tracking(n=6, linear_solver="direct", petsc_options=options)
    usual, weights = tracking(n=6, linear_solver="direct"), p.drift.weights
    assert p(weights) == pytest.approx(usual(weights), rel=1e-10)
    assert "does not solve transposed" in raised(ArithmeticError, lambda: p.derivative(weights))


@pytest.mark.parallel(3)
@pytest.mark.parametrize("degree", [1, 2, 3])
def test_rank_without_cells(degree):
    few = cube(WORLD, 2, 1)
    assert min(WORLD.allgather(few.topology.index_map(2).size_local)) == 0
    runs = []
    for mesh in (few, cube(SELF, 2, 1)):
        flow = fpc.MoserFlow(bump(mesh, degree, 0.3), bump(mesh, degree, 0.7), 1.0, 0.5)
        equation = fpc.FokkerPlanck(mesh, flow.drift, 0.5, degree=degree)
        runs.append(equation.solve(flow.start, 1.0, 3))
        network = fpc.NetworkDrift(mesh, 2, 3, seed=1)
        runs.append(fpc.TrackingProblem(flow, network, 0.5, 6).derivative(network.weights))
    assert runs[0].minimum == pytest.approx(runs[2].minimum, rel=1e-9)
    assert runs[1] == pytest.approx(runs[3], rel=1e-8, abs=1e-12)


@pytest.mark.parallel([1, 2])
def test_breakdown_at_round_off_is_no_failure():
    g = Elements(lagrange(cube(WORLD, 1, 9), 1))
    # No tolerance can be met: GMRES goes on until round-off leaves it no direction.
    options = {"ksp_rtol": 1e-30, "pc_type": "none"}

    def solve(stiffness: float, **more: Any) -> float:
        matrix = g.matrix(g.mass_values + stiffness * g.stiffness_values).mat
        solver = LinearSolver(matrix, "gmres", petsc_options=options | more)
        b, x = g.vector(), g.vector()
        b.array[: g.n_owned] = np.cos(np.arange(*matrix.getOwnershipRange()))
        solver.solve(b.petsc_vec, x.petsc_vec)
        residual = b.petsc_vec - matrix * x.petsc_vec
        return residual.norm() / (stiffness * x.petsc_vec.norm())

    assert solve(1e4) < 1e-11
    assert solve(1e8) < 1e-11
    assert "stopped after" in raised(ArithmeticError, lambda: solve(1e4, ksp_max_it=3))
