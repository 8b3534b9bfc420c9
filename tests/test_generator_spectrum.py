"""Eigenvalues and eigenfunctions of the generator against closed forms, and on several ranks."""

import numpy as np
import pytest
from problems import SELF, WORLD, cube, raised
from scipy.sparse.linalg import ArpackNoConvergence
from test_absorbing import everywhere
from test_generator import METHODS, double_well, methods, ranks, swirl

import fpcontrol as fpc
from fpcontrol.generator import spectrum


@ranks
@methods
@pytest.mark.parametrize("backward", [False, True])
def test_ornstein_uhlenbeck(method, backward):
    mesh = fpc.mesh.interval(WORLD, 300, -7.0, 7.0)
    equation = fpc.FokkerPlanck(
        mesh, fpc.drift.Steady(lambda x: -2.0 * x), 2.0, discretization=method
    )
    found = equation.eigenpairs(5, backward=backward)
    least = 2e-3 if method == fpc.Monotone() else 1e-4 if method.degree == 1 else 1e-6
    assert found.values == pytest.approx(2.0 * np.arange(5.0), rel=least)
    assert found.relaxation_times[0] == np.inf
    assert found.relaxation_times[1:] == pytest.approx(1.0 / found.values[1:], rel=1e-14)
    if backward and method != fpc.Monotone():  # Hermite polynomials in x, where the density is
        f, x = found.functions[2], mesh.geometry.x
        x = f.function_space.tabulate_dof_coordinates()[:, 0]
        here = np.abs(x) < 3.0
        exact = (x**2 - 1.0) / 2**0.5
        error = min(np.abs(sign * f.x.array - exact)[here].max(initial=0.0) for sign in (-1, 1))
        assert error < {1: 2e-2, 2: 1e-3, 3: 1e-3}[method.degree]


@ranks
def test_rate_of_a_double_well():
    mesh = fpc.mesh.interval(WORLD, 300, -2.2, 2.2)
    equation = fpc.FokkerPlanck(mesh, fpc.drift.gradient(double_well), 2**0.5, degree=3)
    assert equation.eigenpairs(3).values[1] == pytest.approx(0.1191184, abs=5e-8)


@ranks
def test_complex_pairs():
    # dX = (-1 + 3 J) X dt + dW has the eigenvalues m + n + 3i (m - n).
    mesh = cube(WORLD, 2, 24, 8.0, -4.0)
    drift = fpc.drift.Steady(lambda x: 3.0 * np.column_stack([-x[:, 1], x[:, 0]]) - x)
    equation = fpc.FokkerPlanck(mesh, drift, 1.0, degree=3)
    for backward in (False, True):
        for count in (2, 3):  # a pair is not cut
            found = equation.eigenpairs(count, backward=backward)
            assert len(found) == 3
            assert found.values == pytest.approx([0.0, 1.0 + 3.0j, 1.0 - 3.0j], abs=2e-3)
        # Of the pair the parts are those of exp(-lambda t).
        g, (re, im) = equation.elements, [f.x.array for f in found.functions[1:]]
        generator, value = equation._generator, found.values[1]
        residual = generator.apply(re, backward) - generator.mass(value.real * re - value.imag * im)
        size = np.sqrt(g.inner(generator.mass(re), generator.mass(re)))
        assert np.sqrt(g.inner(residual, residual)) < 1e-9 * size


@ranks
@pytest.mark.parametrize("method", METHODS[1:], ids=["P2", "P3", "monotone"])
def test_eigenvalues_that_are_multiple(method):
    mesh = cube(WORLD, 2, 16)
    equation = fpc.FokkerPlanck(mesh, fpc.drift.zero(), 2**0.5, discretization=method)
    found = equation.eigenpairs(6)
    exact = np.pi**2 * np.array([0.0, 1.0, 1.0, 2.0, 4.0, 4.0])
    least = 2e-2 if method == fpc.Monotone() else 1e-3
    assert found.values == pytest.approx(exact, rel=least)
    g = equation.elements
    products = [[g.inner(g.apply_mass(a.x.array), b.x.array) for a in found.functions]
                for b in found.functions]  # fmt: skip
    assert np.linalg.matrix_rank(np.array(products), tol=1e-6) == 6


@ranks
@methods
def test_between_absorbing_walls(method):
    mesh = fpc.mesh.interval(WORLD, 64)
    equation = fpc.FokkerPlanck(
        mesh, fpc.drift.zero(), 1.0, absorbing=everywhere, discretization=method
    )
    found = equation.eigenpairs(4)
    exact = 0.5 * np.pi**2 * np.arange(1.0, 5.0) ** 2
    assert found.values == pytest.approx(exact, rel=5e-3 if method.degree == 1 else 1e-4)
    first = found.functions[0]
    assert equation.elements.integral(first.x.array) == pytest.approx(1.0, rel=1e-12)
    x = first.function_space.tabulate_dof_coordinates()[:, 0]
    assert np.abs(first.x.array - 0.5 * np.pi * np.sin(np.pi * x)).max(initial=0.0) < 1e-3


@ranks
def test_decay_of_a_mode_is_its_eigenvalue():
    mesh = cube(WORLD, 2, 8)
    equation = fpc.FokkerPlanck(mesh, fpc.drift.Steady(swirl), 1.0)
    found = equation.eigenpairs(4)
    start, mode = equation.stationary(), found.functions[1]
    start.x.array[:] += 0.1 * mode.x.array
    run = equation.solve(start, 0.1, 20, scheme=fpc.SDIRK4(), save="last")
    rest = run.levels[-1] - equation.stationary().x.array
    value, other = found.values[1], found.functions[2].x.array
    assert value.imag > 1.0  # it turns: the imaginary part comes in
    turned = np.cos(0.1 * value.imag) * mode.x.array + np.sin(0.1 * value.imag) * other
    rest -= 0.1 * np.exp(-0.1 * value.real) * turned
    assert equation.elements.norm(rest) < 1e-7


@pytest.mark.parallel([1, 2, 3])
def test_few_unknowns():
    for n in (1, 2, 3, 5):
        equation = fpc.FokkerPlanck(cube(WORLD, 1, n), fpc.drift.zero(), 1.0, degree=1)
        found = equation.eigenpairs(n + 1)
        h, k = 1.0 / n, np.pi * np.arange(n + 1.0) / n
        exact = 0.5 * 6.0 / h**2 * (1.0 - np.cos(k)) / (2.0 + np.cos(k))
        assert found.values == pytest.approx(exact, rel=1e-10, abs=1e-12)


@ranks
def test_ranks_agree():
    def figures(comm):
        mesh = cube(comm, 2, 12)
        equation = fpc.FokkerPlanck(mesh, fpc.drift.Steady(swirl), 0.7)
        found = equation.eigenpairs(5)
        g = equation.elements
        x = g.points.T
        means = [
            g.sum(
                float((g.evaluate(f.x.array).ravel() * g.quadrature_weights) @ (x[0] ** 2 * x[1]))
            )
            for f in (*found.functions, equation.exit_time(lambda x: x[0] < 1e-9))
        ]
        return np.concatenate([found.values.real, found.values.imag, means])

    assert figures(WORLD) == pytest.approx(figures(SELF), rel=1e-9, abs=1e-9)


@pytest.mark.parallel([1, 2])
def test_no_convergence_is_an_error_on_all_ranks(monkeypatch):
    def fails(operator, **options):
        operator.matvec(options["v0"])
        raise ArpackNoConvergence("ARPACK error -1", np.empty(0), np.empty(0))

    monkeypatch.setattr(spectrum, "eigs", fails)
    equation = fpc.FokkerPlanck(cube(WORLD, 2, 6), fpc.drift.zero(), 1.0)
    assert "did not converge" in raised(ArithmeticError, lambda: equation.eigenpairs(3))


@pytest.mark.parallel([1, 2])
def test_a_solve_that_fails_is_an_error_on_all_ranks(monkeypatch):
    equation = fpc.FokkerPlanck(cube(WORLD, 2, 6), fpc.drift.zero(), 1.0)
    solves, count = spectrum.Generator.mass, []

    def fails(self, u):
        count.append(1)
        if len(count) > 12:
            raise ArithmeticError("the solver has failed")
        return solves(self, u)

    monkeypatch.setattr(spectrum.Generator, "mass", fails)
    assert "the solver has failed" in raised(ArithmeticError, lambda: equation.eigenpairs(3))
