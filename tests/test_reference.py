"""The reference: a straight line in L2 and its drift."""

from mpi4py import MPI

import numpy as np
import pytest
from problems import WORLD, bump, cube, raised

import fpcontrol as fpc
from fpcontrol.discretization.elements import Elements


def flow(dim: int = 2, degree: int = 2, n: int = 4, **options) -> fpc.MoserFlow:
    mesh = cube(WORLD, dim, n)
    options = {"t1": 2.0, "sigma": 0.5} | options
    return fpc.MoserFlow(bump(mesh, degree, 0.3), bump(mesh, degree, 0.7), **options)


@pytest.mark.parallel([1, 2, 3])
def test_density_goes_from_start_to_goal_along_a_line():
    f = flow()
    assert np.array_equal(f.density(0.0).x.array, f.start.x.array)
    assert f.density(2.0).x.array == pytest.approx(f.goal.x.array, rel=1e-14)
    middle = 0.75 * f.start.x.array + 0.25 * f.goal.x.array
    assert f.density(0.5).x.array == pytest.approx(middle, rel=1e-14)


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("t", [-0.1, 2.1, np.nan])
def test_times_outside_are_refused(t):
    f = flow()
    for call in (f.density, lambda t: f.drift(t, f.elements.points)):
        with pytest.raises(ValueError, match=r"outside \[0, t1 = 2\]"):
            call(t)


@pytest.mark.parallel([1, 2, 3])
@pytest.mark.parametrize(("dim", "degree"), [(1, 3), (2, 2), (3, 1)])
def test_drift_at_points_is_that_at_the_quadrature_points(dim, degree):
    f = flow(dim, degree, 3)
    g = f.elements
    own = f.drift.at_points(0.7, g)
    assert own.shape == g.points.shape
    # Solved and evaluated the same; only the way to the reference cell differs.
    assert f.drift(0.7, g.points) == pytest.approx(own, rel=1e-9, abs=1e-10)


@pytest.mark.parallel([1, 2])
def test_continuity_equation_holds_pointwise_where_it_is_known():
    # On an interval the flux of the line is the integral of -(rho1 - rho0)/T: no equation to solve.
    mesh = cube(WORLD, 1, 64)
    start = fpc.density.interpolate(mesh, lambda x: 1.0 + 0.5 * np.cos(np.pi * x[0]), 3)
    goal = fpc.density.interpolate(mesh, lambda x: 1.0 - 0.5 * np.cos(np.pi * x[0]), 3)
    f = fpc.MoserFlow(start, goal, 2.0, 0.6)
    x = f.elements.points
    t, D = 0.5, 0.5 * 0.6**2
    a = 0.5 * (1.0 - t)
    exact = (0.5 * np.sin(np.pi * x) / np.pi - D * a * np.pi * np.sin(np.pi * x)) / (
        1.0 + a * np.cos(np.pi * x)
    )
    assert np.abs(f.drift.at_points(t, f.elements) - exact).max(initial=0.0) < 1e-5


@pytest.mark.parallel([1, 2, 3])
def test_points_of_other_ranks_or_outside_are_refused():
    f = flow(dim=2, degree=1)
    points = np.vstack([f.elements.points[:2], [[1.5, 0.5]]])
    with pytest.raises(ValueError, match=r"1 of 3 points .*\[1.5 0.5\]"):
        f.drift(0.5, points)
    everywhere = np.vstack(WORLD.allgather(f.elements.points))
    if WORLD.size > 1:
        with pytest.raises(ValueError, match=f"no cell owned by rank {WORLD.rank}"):
            f.drift(0.5, everywhere)


@pytest.mark.parallel([1, 2])
def test_equation_with_other_points_is_refused():
    f = flow()
    start = bump(f.elements.mesh, 1, 0.3)
    equation = fpc.FokkerPlanck(f.elements.mesh, f.drift, 0.5, degree=1)
    assert "degree 1, quadrature 2" in raised(ValueError, lambda: equation.solve(start, 1.0, 2))
    equation = fpc.FokkerPlanck(f.elements.mesh, f.drift, 0.5, degree=2, quadrature_degree=5)
    assert "quadrature 5" in raised(ValueError, lambda: equation.solve(f.start, 1.0, 2))


@pytest.mark.parallel([1, 2])
def test_without_noise_the_drift_is_that_of_the_continuity_equation():
    f, noisy = (flow(sigma=sigma) for sigma in (0.0, 0.5))
    g = f.elements
    rho = noisy.coefficients(0.7)
    noise = 0.5 * 0.5**2 * noisy.elements.gradient(rho)
    difference = noisy.drift.at_points(0.7, noisy.elements) - f.drift.at_points(0.7, g)
    assert difference == pytest.approx(
        noise / noisy.elements.evaluate(rho).reshape(-1, 1), abs=1e-10
    )


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("method", [fpc.Monotone("hybrid"), fpc.Limited(), fpc.Galerkin(3)])
def test_discretization_is_that_of_the_densities(method):
    mesh = cube(WORLD, 1, 8)
    goals = [
        fpc.density.interpolate(mesh, lambda x: 1.0 + x[0], floor=0.1, discretization=method),
        fpc.density.from_points(mesh, [[0.4]], bandwidth=0.2, floor=0.1, discretization=method),
    ]
    for goal in goals:
        start = fpc.density.with_floor(fpc.density.uniform(mesh, discretization=method), 0.5)
        f = fpc.MoserFlow(start.copy(), fpc.density.normalized(goal).copy().copy(), 1.0, 0.5)
        assert f.system.discretization == f.density(0.5).discretization == method
        copy = start.copy()
        assert (copy.name, copy.function_space) == (start.name, start.function_space)
        copy.x.array[:] = 7.0
        assert start.x.array == pytest.approx(1.0)


@pytest.mark.parallel([1, 2])
def test_discretization_that_is_given_wins_over_that_of_the_densities():
    mesh = cube(WORLD, 1, 8)
    limited, monotone = (
        fpc.density.uniform(mesh, discretization=method)
        for method in (fpc.Limited(), fpc.Monotone())
    )
    silent = fpc.density.uniform(mesh, 1)

    def taken(*pair, **options):
        return fpc.MoserFlow(*pair, 1.0, 0.5, **options).system.discretization

    assert taken(limited, silent) == taken(silent, limited) == fpc.Limited()
    assert taken(silent, silent) == fpc.Galerkin(1)
    equation = fpc.FokkerPlanck(mesh, fpc.drift.zero(), 0.5, discretization=fpc.Limited())
    assert taken(equation.solve(limited, 1.0, 2)[-1], silent) == fpc.Galerkin(1)
    for pair in ((limited, monotone), (limited, limited)):
        assert taken(*pair, discretization=fpc.Galerkin(1)) == fpc.Galerkin(1)
        assert taken(*pair, quadrature_degree=3) == fpc.Galerkin(1, 3)
    message = raised(ValueError, lambda: taken(limited, monotone))
    assert message.startswith("start is made for Limited(flux='bernoulli'), goal for Monotone(")
    assert "discretization=" in message


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("place", ["start", "goal"])
def test_density_that_dips_below_zero_between_nodes_is_refused(place):
    # A narrow bump over a floor of 1e-3: positive at the nodes of P2, not between them.
    mesh = cube(WORLD, 2, 8)
    narrow = fpc.density.interpolate(
        mesh, lambda x: 1e-3 + np.exp(-((x - 0.47) ** 2)[:2].sum(axis=0) / 0.01), 2
    )
    assert narrow.x.array.min(initial=1.0) > 0.0
    even = fpc.density.uniform(mesh)
    pair = (narrow, even) if place == "start" else (even, narrow)
    message = raised(ValueError, lambda: fpc.MoserFlow(*pair, 1.0, 0.5))
    assert message.startswith(
        f"{place} is not positive where the Moser drift divides by it (minimum -"
    )
    fpc.MoserFlow(*(fpc.density.with_floor(rho, 0.3) for rho in pair), 1.0, 0.5)


@pytest.mark.parallel([1, 2])
def test_masses_that_differ_are_refused():
    mesh = cube(WORLD, 2, 4)
    start, goal = bump(mesh, 2, 0.3), bump(mesh, 2, 0.7)
    goal.x.array[:] *= 1.001
    assert "must be equal" in raised(ValueError, lambda: fpc.MoserFlow(start, goal, 1.0, 0.5))


@pytest.mark.parallel([1, 2])
def test_densities_of_other_spaces_are_refused():
    mesh = cube(WORLD, 2, 4)
    start = bump(mesh, 2, 0.3)
    other = bump(cube(WORLD, 2, 4), 2, 0.3)
    linear = bump(mesh, 1, 0.3)
    refused = [(other, "goal lives on another mesh"), (linear, "goal is of degree 1")]
    for goal, message in [*refused, (0.5, "goal = 0.5 is not a dolfinx Function")]:
        assert message in raised(ValueError, lambda goal=goal: fpc.MoserFlow(start, goal, 1.0, 0.5))
    assert "start = None" in raised(ValueError, lambda: fpc.MoserFlow(None, start, 1.0, 0.5))


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"t1": 0.0}, "t1 = 0.0"),
        ({"t1": np.inf}, "t1 = inf"),
        ({"sigma": -0.1}, "sigma = -0.1"),
        ({"sigma": np.nan}, "sigma = nan"),
    ],
    ids=str,
)
def test_bad_numbers_are_refused(change, message):
    assert message in raised(ValueError, lambda: flow(n=2, **change))


@pytest.mark.parallel([2, 3])
def test_nan_on_one_rank_is_refused_on_all():
    mesh = cube(WORLD, 2, 4)
    start, goal = bump(mesh, 2, 0.3), bump(mesh, 2, 0.7)
    if WORLD.rank == 1:
        goal.x.array[0] = np.nan
    assert "goal has values" in raised(ValueError, lambda: fpc.MoserFlow(start, goal, 1.0, 0.5))


@pytest.mark.parallel([1, 2])
def test_reference_of_one_rank_mesh_is_usable_as_start_of_an_equation():
    f = flow(n=3)
    equation = fpc.FokkerPlanck(f.elements.mesh, f.drift, 0.5)
    trajectory = equation.solve(f.density(0.5), 2.0, 4, t0=0.5)
    goal = Elements(f.elements.space).evaluate(f.goal.x.array)
    end = equation.elements.evaluate(trajectory[-1].x.array)
    assert end == pytest.approx(goal, abs=1e-10)


def path(method=None, dim=2, n=6, sigma=0.5, **options) -> fpc.MoserFlow:
    """Through three densities, of times that are not even."""
    mesh = cube(WORLD, dim, n)
    densities = [
        fpc.density.interpolate(
            mesh,
            lambda x, c=c: 0.3 + np.exp(-10.0 * ((x[: mesh.geometry.dim] - c) ** 2).sum(axis=0)),
            None if method else 2,
            discretization=method,
        )
        for c in (0.3, 0.7, 0.5)
    ]
    return fpc.MoserFlow.through(densities, [0.0, 0.25, 1.0], sigma, **options)


@pytest.mark.parallel([1, 2, 3])
@pytest.mark.parametrize("method", [None, fpc.Galerkin(3), fpc.Monotone(), fpc.Limited()])
@pytest.mark.parametrize("dim", [1, 2])
def test_equation_with_the_drift_stays_on_lines_through_all_densities(method, dim):
    f = path(method, dim)
    for t, rho in zip(f.times, f.densities, strict=True):
        assert f.coefficients(t) == pytest.approx(rho.x.array, rel=1e-13)
    middle = 0.5 * (f.densities[1].x.array + f.densities[2].x.array)
    assert f.coefficients(0.625) == pytest.approx(middle, rel=1e-13)
    equation = fpc.FokkerPlanck(
        f.elements.mesh, f.drift, 0.5, discretization=method or fpc.Galerkin(2)
    )
    run = equation.solve(f.start, 1.0, 8)
    g = f.elements
    gaps = [g.norm(u - f.coefficients(t)) for t, u in zip(run.times, run.levels, strict=True)]
    assert max(gaps) < 1e-9
    with pytest.raises(ValueError, match=r"switches at t = 0.25, inside a step; take a multiple"):
        equation.solve(f.start, 1.0, 6)


@pytest.mark.parallel([1, 2])
def test_a_reference_known_as_a_function_is_followed_to_second_order_between_its_times():
    mesh = cube(WORLD, 1, 32)
    k, D = np.pi, 0.5 * 0.4**2

    def heat(t):
        return fpc.density.interpolate(
            mesh, lambda x: 1.0 + 0.8 * np.exp(-(k**2) * D * t) * np.cos(k * x[0]), degree=2
        )

    gaps, speeds = [], []
    for n in (2, 4):
        times = np.linspace(0.0, 2.0, n + 1)
        f = fpc.MoserFlow.through([heat(t) for t in times], times, 0.4)
        gaps.append(
            max(f.elements.norm(f.coefficients(t) - heat(t).x.array) for t in times[:-1] + 1 / n)
        )
        # The heat flow needs no drift; between the densities there is one of first order.
        some = [f.drift.at_points(t, f.elements) for t in times[:-1] + 0.2 / n]
        speeds.append(WORLD.allreduce(max(np.abs(v).max(initial=0.0) for v in some), op=MPI.MAX))
    assert gaps[0] / gaps[1] == pytest.approx(4.0, rel=0.3)
    assert speeds[0] / speeds[1] == pytest.approx(2.0, rel=0.3)


@pytest.mark.parallel([1, 2, 3])
def test_a_path_is_tracked_as_a_line_is():
    f = path(n=4)
    drift = fpc.NetworkDrift(f.elements.mesh, pieces=4, seed=1)
    problem = fpc.TrackingProblem(f, drift, 0.5, steps=8)
    test = fpc.verification.taylor_test(problem, problem.drift.weights + 0.1)
    assert test.orders == pytest.approx(2.0, abs=0.02)
    fine = problem.on_refined_mesh(8)
    assert fine.reference.times.tolist() == f.times.tolist()
    coarse, finer = (p.errors(drift.weights).relative_error for p in (problem, fine))
    assert coarse == pytest.approx(finer, rel=0.05)
    line = fpc.MoserFlow(f.start, f.goal, 1.0, 0.5)
    other = fpc.TrackingProblem(line, drift, 0.5, steps=8)
    assert other.fingerprint() != problem.fingerprint()
    result = fpc.minimize(problem, max_iterations=3, progress=False)
    assert result.relative_error < 0.7 * coarse


@pytest.mark.parallel([1, 2])
def test_bad_times_and_densities_of_a_path_are_refused():
    f = path(n=2)
    for times in ([0.0, 1.0], [0.0, 1.0, 1.0], [0.1, 0.5, 1.0], [0.0, np.nan, 1.0], 3.0):
        text = raised(ValueError, lambda t=times: fpc.MoserFlow.through(f.densities, t, 0.5))
        assert "increasing from 0" in text
    heavy = f.densities[1].copy()
    heavy.x.array[:] *= 2.0
    some = [f.start, heavy, f.goal]
    text = raised(ValueError, lambda: fpc.MoserFlow.through(some, f.times, 0.5))
    assert "densities[1]" in text and "must be equal" in text
