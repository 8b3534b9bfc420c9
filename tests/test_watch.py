"""A run that cannot be right ends with an error or a warning, on all ranks alike."""

import warnings

from mpi4py import MPI

import numpy as np
import pytest
from dolfinx import fem
from problems import WORLD, bump, cube, raised

import fpcontrol as fpc
from fpcontrol.stepping.watch import cell_along_drift


def through_the_walls(dim: int) -> fpc.drift.Steady:
    return fpc.drift.Steady(lambda x: np.broadcast_to([5.0, 2.0][:dim], x.shape))


def rotation() -> fpc.drift.Steady:
    return fpc.drift.Steady(lambda x: 2.0 * np.pi * np.column_stack([-x[:, 1], x[:, 0]]))


def solve(drift, sigma, start, t1=1.0, steps=60, **options):
    """The run and what was warned of on this rank."""
    mesh, degree = start.function_space.mesh, start.function_space.element.basix_element.degree
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run = fpc.FokkerPlanck(mesh, drift, sigma, degree=degree).solve(start, t1, steps, **options)
    return run, [str(w.message) for w in caught]


def uniform(dim: int, degree: int, n: int) -> fem.Function:
    return fpc.density.uniform(cube(WORLD, dim, n), degree)


@pytest.mark.parallel([1, 2, 3])
@pytest.mark.parametrize("scheme", [fpc.CrankNicolson(), fpc.BackwardEuler(), fpc.SDIRK4()])
@pytest.mark.parametrize(("dim", "degree", "n"), [(1, 1, 40), (1, 2, 40), (2, 1, 12), (2, 2, 12)])
def test_growth_at_walls_ends_the_run(dim, degree, n, scheme):
    start = uniform(dim, degree, n)
    message = raised(
        ArithmeticError, lambda: solve(through_the_walls(dim), 0.05, start, scheme=scheme)
    )
    for part in ("blown up", "t = 0.0", "x = [1.", "cell Peclet number", "Refine", "sigma ="):
        assert part in message


@pytest.mark.parallel([1, 2])
def test_growth_that_comes_late_ends_the_run():
    mesh = fpc.mesh.rectangle(WORLD, (40, 40), (-1.0, -1.0), (1.0, 1.0))
    start = fpc.density.interpolate(
        mesh, lambda x: np.exp(-((x[0] - 0.4) ** 2 + x[1] ** 2) / 0.02), degree=2
    )
    message = raised(ArithmeticError, lambda: solve(rotation(), 0.05, start, steps=100))
    assert "step 9" in message  # long after the Gaussian's tail has met the walls
    run, _ = solve(rotation(), 0.3, start, steps=40)  # with more noise the same turn is unharmed
    assert run.mass_defect <= 1e-12


@pytest.mark.parallel(2)
def test_an_equation_that_marches_is_watched_too():
    equation = fpc.FokkerPlanck(cube(WORLD, 1, 40), through_the_walls(1), 0.05)
    start = fpc.density.uniform(equation.mesh)
    assert "blown up" in raised(ArithmeticError, lambda: list(equation.march(start, 1.0, 60)))


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("centre", [0.5, 0.513])
def test_concentration_at_a_point_or_a_wall_is_no_growth(centre):
    # Stationary density exp(-V / D) with a width of 0.6 cells, at a node and off the nodes; then
    # against the walls, in a layer of one cell.
    point = fpc.drift.Steady(lambda x: 10.0 * (centre - x))
    run, _ = solve(point, (2.0 * 10.0 * (0.6 / 16) ** 2) ** 0.5, uniform(2, 2, 16))
    highest = WORLD.allreduce(run.levels.max(), op=MPI.MAX)
    assert run.mass_defect <= 1e-12 and highest > 50.0
    run, _ = solve(through_the_walls(2), (2.0 * 5.0 / 16) ** 0.5, uniform(2, 2, 16))
    assert run.mass_defect <= 1e-12


@pytest.mark.parallel([1, 2])
def test_a_start_that_is_no_density_may_stay_what_it_is():
    start = bump(cube(WORLD, 1, 20), 2, 0.3)
    start.x.array[:] -= 3.0  # a perturbation: of both signs, of negative mass
    run, said = solve(fpc.drift.zero(), 0.5, start, steps=4)
    assert run.mass_defect <= 1e-12
    assert len(said) == (WORLD.rank == 0)  # negative from the first level on


@pytest.mark.parallel([1, 2])
def test_negative_density_is_warned_of_once_on_rank_0():
    run, said = solve(through_the_walls(2), 0.8, uniform(2, 2, 12))
    assert run.minimum.min() < -0.01
    assert len(said) == (WORLD.rank == 0)
    for text in said:
        assert "negative" in text and "cell Peclet number" in text and "x = [0. 0.]" in text


@pytest.mark.parallel([1, 2])
def test_a_warning_that_is_an_error_is_one_on_all_ranks():
    def strict():
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            equation = fpc.FokkerPlanck(cube(WORLD, 2, 12), through_the_walls(2), 0.8)
            equation.solve(fpc.density.uniform(equation.mesh), 1.0, 10)

    assert "negative" in raised(UserWarning, strict)


@pytest.mark.parallel([1, 2])
def test_ringing_is_warned_of_with_the_remedy():
    mesh = cube(WORLD, 1, 50)
    step = fpc.density.interpolate(mesh, lambda x: 1.0 * (x[0] < 0.5), degree=1, floor=0.3)
    run, said = solve(fpc.drift.zero(), 1.0, step, t1=1e4, steps=10)
    rings = [text for text in said if "rings" in text]
    assert len(rings) == (WORLD.rank == 0)
    assert all("SDIRK2" in text for text in rings)
    run, said = solve(fpc.drift.zero(), 1.0, step, t1=1e4, steps=10, scheme=fpc.SDIRK2())
    assert np.abs(run.levels[-1] - 1.0).max() < 1e-8 and not said
    _, said = solve(fpc.drift.zero(), 1.0, step, t1=0.02, steps=100)  # the jump is damped
    assert not said


@pytest.mark.parallel([1, 2])
def test_a_smooth_run_says_nothing():
    start = bump(cube(WORLD, 2, 12), 2, 0.3)
    wind = lambda t, x: 0.5 * np.sin(np.pi * x) * np.cos(9.0 * t)  # noqa: E731
    for scheme in (fpc.CrankNicolson(), fpc.SDIRK4()):
        run, said = solve(wind, 0.5, start, steps=10, scheme=scheme)
        assert not said and run.mass_defect <= 1e-12


@pytest.mark.parallel([1, 2])
def test_a_tolerance_warns_for_the_run_that_is_returned_only():
    mesh = cube(WORLD, 1, 50)
    start = fpc.density.interpolate(
        mesh, lambda x: np.exp(-((x[0] - 0.5) ** 2) / (2.0 * 0.05**2)), degree=1
    )
    _, said = solve(fpc.drift.zero(), 1.0, start, t1=0.1, steps=2)
    assert len(said) == (WORLD.rank == 0)
    _, said = solve(fpc.drift.zero(), 1.0, start, t1=0.1, steps=2, tolerance=3e-2)
    assert not said


@pytest.mark.parallel([1, 2])
def test_length_of_a_cell_along_the_drift():
    g = fpc.Galerkin(1).on(cube(WORLD, 1, 8))
    length, speed = cell_along_drift(g, np.array([0.3]), np.full(g.points.shape, -3.0))
    assert (length, speed) == pytest.approx((0.125, 3.0))
    # Right triangles of legs 1/4 along (1, 1): all diagonals of the mesh are hypotenuses along it.
    g = fpc.Galerkin(1).on(cube(WORLD, 2, 4))
    for v, expected in (((2.0, 0.0), 0.25), ((0.0, -1.0), 0.25), ((1.0, 1.0), 0.25 * 2**0.5)):
        length, speed = cell_along_drift(
            g, np.array([0.6, 0.55]), np.broadcast_to(v, g.points.shape)
        )
        assert (length, speed) == pytest.approx((expected, np.linalg.norm(v)))
    still = cell_along_drift(g, np.array([0.6, 0.55]), np.zeros(g.points.shape))
    assert still == pytest.approx((0.25 * 2**0.5, 0.0))


def test_damping_of_the_schemes():
    assert fpc.CrankNicolson().damping == pytest.approx(1.0)
    for scheme in (fpc.BackwardEuler(), fpc.SDIRK2(), fpc.SDIRK4()):
        assert scheme.damping < 1e-12
