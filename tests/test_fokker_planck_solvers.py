"""Linear solvers: which is chosen, what options do, and what a failure says."""

import warnings
from typing import Any

import numpy as np
import pytest
from petsc4py import PETSc
from problems import SELF, WORLD, bump, cube, raised, stirring, tracking

import fpcontrol as fpc
from fpcontrol.discretization.elements import Elements, lagrange
from fpcontrol.linalg.linear_solvers import LinearSolver


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


def test_a_matrix_without_pivots_on_its_diagonal_is_solved_with_pivoting():
    # On an interval LU takes the pivots as they come; a drift that outweighs all leaves none.
    entries = np.diag([1.0, 2.0, 3.0], 1) - np.diag([4.0, 5.0, 6.0], -1)
    matrix = PETSc.Mat().createAIJ((4, 4), comm=SELF)
    matrix.setUp()
    for i in range(4):
        for j in range(4):
            matrix.setValue(i, j, entries[i, j])
    matrix.assemble()
    solver = LinearSolver(matrix, dimension=1)
    b, x = matrix.createVecLeft(), matrix.createVecRight()
    b.setArray(np.arange(1.0, 5.0))
    solver.solve(b, x)
    assert x.getArray() == pytest.approx(np.linalg.solve(entries, b.getArray()), rel=1e-12)
    solver.solve_transpose(b, x)
    assert x.getArray() == pytest.approx(np.linalg.solve(entries.T, b.getArray()), rel=1e-12)
    assert solver.rescues == 2


@pytest.mark.parametrize("scheme", [None, fpc.SDIRK2()])
def test_limited_steps_stand_any_drift_on_an_interval(scheme):
    mesh = fpc.mesh.interval(SELF, 12, -100.0, 400.0)
    drift = fpc.drift.Steady(lambda x: 1e9 * np.ones_like(x))
    equation = fpc.FokkerPlanck(mesh, drift, 100.0, discretization=fpc.Limited())
    run = equation.solve(fpc.density.uniform(mesh, 1), 10.0, 2, scheme=scheme)
    assert run.minimum.min() >= -1e-14 * run.levels.max() and run.mass_defect < 1e-12


def dense(entries: np.ndarray) -> PETSc.Mat:
    """A matrix that keeps its zeros."""
    matrix = PETSc.Mat().createDense(entries.shape, array=entries.copy(), comm=SELF)
    return matrix.convert("aij")


def solved(solver: LinearSolver, entries: np.ndarray, b: np.ndarray, guess: np.ndarray) -> None:
    """Check both solves by their residuals, relative to the right side."""
    matrix = dense(entries)
    right, x = matrix.createVecs()
    right.setArray(b)
    for a, solve in ((entries, solver.solve), (entries.T, solver.solve_transpose)):
        x.setArray(guess)
        solve(right, x)
        assert np.linalg.norm(a @ x.getArray() - b) <= 2e-12 * np.linalg.norm(b)


def test_richardson_is_judged_by_the_residual():
    # What is left at the first node, round-off beside the second, is a flow that is not.
    entries = np.array([[1e8, 0.0, 0.0], [-1e8, 1.0, -1e-3], [0.0, 0.0, 1.0]])
    b = np.array([0.0, 1.0, 0.5])
    options = {"ksp_type": "richardson", "ksp_pc_side": "left"}
    solver = LinearSolver(dense(entries), "gmres", petsc_options=options)
    solved(solver, entries, b, np.array([1e-13, 1.0005, 0.5]))


def test_gmres_from_a_far_guess_is_as_exact():
    # Of steps in which a drift crosses very many cells, the density before is no guess.
    rng = np.random.default_rng(5)
    n = 40
    entries = np.eye(n) + 1e7 * np.triu(np.tril(rng.random((n, n)) - 0.5, 1), -1)
    entries[np.diag_indices(n)] = 1.5e7
    b, guess = rng.random(n), rng.random(n)
    solver = LinearSolver(dense(entries), "gmres", petsc_options={"pc_type": "jacobi"})
    solved(solver, entries, b, guess)


def test_small_pivots_do_not_spoil_a_solve():
    # On an interval and for steady drifts LU takes the pivots as they come.
    entries = np.diag([1.0, 2.0, 3.0], 1) - np.diag([4.0, 5.0, 6.0], -1) + 1e-13 * np.eye(4)
    solver = LinearSolver(dense(entries), dimension=1)
    solved(solver, entries, np.arange(1.0, 5.0), np.zeros(4))


def test_long_steps_of_a_steady_drift_are_as_exact_as_with_pivoting():
    mesh = cube(SELF, 2, 12)

    def around(x: np.ndarray) -> np.ndarray:
        a, b = np.pi * x.T
        return 1e4 * np.stack([np.sin(a) * np.cos(b), -np.cos(a) * np.sin(b)], axis=1)

    drift, start = fpc.drift.Steady(around), bump(mesh, 1, 0.3)
    unpivoted, pivoted = (
        fpc.FokkerPlanck(mesh, drift, 0.1, degree=1, linear_solver=solver)
        .solve(start, 20.0, 2, scheme=fpc.SDIRK2())
        .levels
        for solver in ("auto", "direct")
    )
    assert np.abs(unpivoted - pivoted).max() < 5e-9


def test_a_singular_matrix_is_solved_for_a_proposal_only():
    entries = np.array([[2.0, 2.0, 0.0], [-2.0, -2.0, 0.0], [0.0, 0.0, 1.0]])
    b = np.array([4.0, -5.0, 3.0])
    for method, dimension in (("auto", 1), ("direct", 2)):
        matrix = dense(entries)
        x, right = matrix.createVecs()
        solver = LinearSolver(matrix, method, dimension=dimension, null_pivots=True)
        right.setArray(entries @ b)
        solver.solve(right, x)
        assert entries @ x.getArray() == pytest.approx(entries @ b, rel=1e-14)
        right.setArray(entries.T @ b)
        solver.solve_transpose(right, x)
        assert entries.T @ x.getArray() == pytest.approx(entries.T @ b, rel=1e-14)
        right.setArray(b)  # no solution: something, and no error
        for solve in (solver.solve, solver.solve_transpose):
            solve(right, x)
            assert np.isfinite(x.getArray()).all()
    strict = LinearSolver(dense(entries), "direct", dimension=2)
    with pytest.raises(ArithmeticError, match="stopped after"):
        strict.solve(right, x)
