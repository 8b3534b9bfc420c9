"""Absorbing walls: mass that leaves is known, wall by wall, and densities are those in books."""

import numpy as np
import pytest
from dolfinx.mesh import Mesh, locate_entities_boundary, meshtags
from problems import SELF, WORLD, bump, cube, disk, schemes, stirring
from scipy.linalg import eigh_tridiagonal

import fpcontrol as fpc

METHODS = [fpc.Galerkin(1), fpc.Galerkin(2), fpc.Monotone(), fpc.Limited()]
NAMES = ["P1", "P2", "monotone", "limited"]
methods = pytest.mark.parametrize("method", METHODS, ids=NAMES)
linear_methods = pytest.mark.parametrize("method", METHODS[:3], ids=NAMES[:3])


def everywhere(x: np.ndarray) -> np.ndarray:
    return np.ones(x.shape[1], dtype=bool)


def sides(mesh: Mesh, length: float = 1.0):
    """Tags of two opposite sides: 4 where the first coordinate is 0, 9 where it is largest."""
    d = mesh.topology.dim
    low, high = (
        locate_entities_boundary(mesh, d - 1, lambda x, at=at: np.isclose(x[0], at))
        for at in (0.0, length)
    )
    facets, values = np.concatenate([low, high]), np.repeat([4, 9], [len(low), len(high)])
    order = np.argsort(facets)
    return meshtags(mesh, d - 1, facets[order], values[order].astype(np.int32))


def survival(t: float, D: float, modes: int = 2000) -> float:
    """Mass left on (0, 1) of a uniform density, both ends absorbing."""
    k = np.arange(1, 2 * modes, 2) * np.pi
    return float((8.0 / k**2 * np.exp(-D * k**2 * t)).sum())


def density(x: np.ndarray, t: float, D: float) -> np.ndarray:
    k = np.arange(1, 200, 2)[:, None] * np.pi
    return (4.0 / k * np.sin(k * x) * np.exp(-D * k**2 * t)).sum(axis=0)


@pytest.mark.parametrize(
    ("method", "order", "least"),
    [(METHODS[0], 2, 5e-4), (METHODS[1], 3, 2e-5), (METHODS[2], 2, 5e-4), (METHODS[3], 2, 1e-3)],
)
def test_survival_on_the_interval(method, order, least):
    D, t, errors = 0.5, 0.2, []
    for n in (16, 32):
        mesh = fpc.mesh.interval(SELF, n)
        equation = fpc.FokkerPlanck(
            mesh, fpc.drift.zero(), 1.0, absorbing=everywhere, discretization=method
        )
        steps, scheme = 4 * n, fpc.SDIRK4() if isinstance(method, fpc.Galerkin) else None
        if isinstance(method, fpc.Monotone):  # of first order in time
            steps = n * n
        start = fpc.density.uniform(mesh, method.degree)
        run = equation.solve(start, t, steps, scheme=scheme, save="last")
        # What the start has on the walls goes at once: less than the mass of the cells there.
        assert 1.0 - 1.0 / n <= run.mass[0] < 1.0 and run.absorbed[0, 0] > 0.0
        fine = fpc.FokkerPlanck(fpc.mesh.interval(SELF, 200), fpc.drift.zero(), 1.0, degree=3)
        exact = fpc.density.interpolate(fine.mesh, lambda x: density(x[0], t, D), 3)
        exact.x.array[:] *= survival(t, D)
        errors.append((fpc.distances.l2(run[-1], exact), abs(run.mass[-1] - survival(t, D))))
    distances, masses = np.array(errors).T
    assert np.log2(distances[0] / distances[1]) == pytest.approx(order, abs=0.1)
    assert distances[1] < least
    # Of a functional, the order is twice the degree.
    assert masses[1] < 1.1 * masses[0] / 4.0 ** min(method.degree, 2)


@methods
def test_one_wall_reflects_and_one_absorbs(method):
    D, t, mesh = 0.5, 0.4, fpc.mesh.interval(SELF, 64)
    equation = fpc.FokkerPlanck(
        mesh, fpc.drift.zero(), 1.0, absorbing=lambda x: x[0] > 0.999, discretization=method
    )
    run = equation.solve(fpc.density.uniform(mesh, method.degree), t, 400)
    k = (np.arange(2000) + 0.5) * np.pi
    exact = float((2.0 / k**2 * np.exp(-D * k**2 * t)).sum())
    assert run.tags == (1,)
    assert run.mass[-1] == pytest.approx(exact, rel=1e-3 if method.degree == 1 else 2e-6)


def exit_time(equation: fpc.FokkerPlanck, start, dt: float, t1: float) -> float:
    """Integral of the mass over time: with backward Euler without an error of the steps."""
    run = equation.solve(start, t1, round(t1 / dt), scheme=fpc.BackwardEuler(), save="last")
    return dt * float(run.mass[1:].sum() + run.mass[-1] ** 2 / (run.mass[-2] - run.mass[-1]))


@linear_methods
def test_mean_first_passage_time_on_the_interval(method):
    mesh = fpc.mesh.interval(SELF, 32)
    equation = fpc.FokkerPlanck(
        mesh, fpc.drift.zero(), 1.0, absorbing=everywhere, discretization=method
    )
    # (x (1 - x)) / (2 D) on the average; of the elements a nodal value is exact.
    time = exit_time(equation, fpc.density.uniform(mesh, method.degree), 0.02, 2.0)
    assert time == pytest.approx(1.0 / 12.0 / 0.5, rel=1.1 / 32**2 if method.degree == 1 else 1e-9)


@linear_methods
def test_mean_first_passage_time_on_the_disk(method):
    errors = []
    for rings in (8, 16):
        mesh = disk(WORLD, rings)
        equation = fpc.FokkerPlanck(
            mesh, fpc.drift.zero(), 1.0, absorbing=everywhere, discretization=method
        )
        start = fpc.density.interpolate(
            mesh, lambda x: np.exp(-8.0 * ((x[0] - 0.3) ** 2 + x[1] ** 2)), method.degree
        )
        g = equation.elements
        square = (g.points**2).sum(axis=1) * g.quadrature_weights
        mean = g.sum(float(square @ g.evaluate(start.x.array).ravel()))
        time = exit_time(equation, start, 0.02, 3.0)
        errors.append(abs(time / ((1.0 - mean) / (4.0 * 0.5)) - 1.0))
    assert errors[1] < 8e-3  # the polygon's own: its area is 1.8e-3 to 7e-3 smaller
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2.0, abs=0.2)


@methods
def test_escape_from_a_well(method):
    # V = (x**2 - 1)**2, from the left well over its top at 0, D = 0.25.
    D = 0.25
    mesh = fpc.mesh.interval(SELF, 128, -2.5, 0.0)
    drift = fpc.drift.Steady(lambda x: -4.0 * x * (x**2 - 1.0))
    equation = fpc.FokkerPlanck(
        mesh, drift, (2 * D) ** 0.5, absorbing=lambda x: x[0] > -1e-9, discretization=method
    )
    start = fpc.density.interpolate(mesh, lambda x: np.exp(-4.0 * (x[0] + 1) ** 2), method.degree)
    run = equation.solve(start, 20.0, 2000, save="last")
    rate = np.log(run.mass[-501] / run.mass[-1]) / (run.all_times[-1] - run.all_times[-501])
    # As a Schroedinger operator for rho exp(V / 2 D), which vanishes at both ends.
    n = 4000
    x = np.linspace(-2.5, 0.0, n + 1)[1:-1]
    slope, curvature, h = 4.0 * x * (x**2 - 1.0), 12.0 * x**2 - 4.0, 2.5 / n
    potential = slope**2 / (4.0 * D) - 0.5 * curvature
    smallest = eigh_tridiagonal(
        2.0 * D / h**2 + potential,
        np.full(n - 2, -D / h**2),
        select="i",
        select_range=(0, 0),
        eigvals_only=True,
    )[0]
    assert rate == pytest.approx(smallest, rel=0.01)


@methods
def test_each_wall_is_accounted_for(method):
    mesh = fpc.mesh.interval(SELF, 33)
    start = fpc.density.uniform(mesh, method.degree)
    tags = sides(mesh)
    options = {"absorbing": (9, 4), "facet_tags": tags, "discretization": method}
    run = fpc.FokkerPlanck(mesh, fpc.drift.zero(), 1.0, **options).solve(start, 1.0, 30)
    assert run.tags == (9, 4)
    assert run.absorbed[:, 0] == pytest.approx(run.absorbed[:, 1], abs=1e-11)
    speed = 1.3
    drift = fpc.drift.Steady(lambda x: np.full_like(x, speed))
    equation = fpc.FokkerPlanck(mesh, drift, 1.0, **options)
    scheme = None if isinstance(method, fpc.Limited) else fpc.BackwardEuler()
    run = equation.solve(start, 20.0, 2000 if scheme is None else 100, scheme=scheme)
    # (1 - exp(-2 v x)) / (1 - exp(-2 v)), on the average.
    a = 2.0 * speed
    right = (1.0 - (1.0 - np.exp(-a)) / a) / (1.0 - np.exp(-a))
    assert run.absorbed[-1] == pytest.approx(
        [right, 1.0 - right], rel=1e-7 if method.degree == 2 else 1.5e-3
    )
    assert run.mass[-1] < 1e-12


@methods
@pytest.mark.parametrize(("dim", "n"), [(1, 12), (2, 6), (3, 3)])
def test_mass_and_what_is_absorbed_stay_one(dim, n, method):
    mesh = cube(SELF, dim, n)
    for solver in ({"linear_solver": "direct"}, {"petsc_options": {"ksp_rtol": 1e-9}}):
        if dim == 1:
            solver["linear_solver"] = "direct" if "linear_solver" in solver else "gmres"
        equation = fpc.FokkerPlanck(
            mesh,
            stirring,
            0.8,
            absorbing=[4, 9],
            facet_tags=sides(mesh),
            discretization=method,
            **solver,
        )
        for start in (fpc.density.uniform(mesh, method.degree), bump(mesh, method.degree, 0.4)):
            run = equation.solve(start, 1.0, 12)
            assert run.absorbed.shape == (13, 2)
            assert run.mass + run.absorbed.sum(axis=1) == pytest.approx(np.ones(13), abs=1e-12)
            assert run.mass_defect < 1e-12
            assert (np.diff(run.mass) < 0.0).all()
            if not isinstance(method, fpc.Galerkin):
                assert run.minimum.min() >= 0.0 and run.absorbed.min() >= 0.0
                assert np.diff(run.absorbed, axis=0).min() > 0.0
            assert not run.levels[:, equation.system.absorbing.dofs].any()


@pytest.mark.parallel([2, 3])
@pytest.mark.parametrize("dim", [2, 3])
def test_ranks_agree(dim):
    for method in METHODS:
        runs = {}
        for comm in (WORLD, SELF):
            mesh = cube(comm, dim, 3)
            equation = fpc.FokkerPlanck(
                mesh,
                stirring,
                0.8,
                absorbing=[4, 9],
                facet_tags=sides(mesh),
                discretization=method,
            )
            runs[comm.size] = equation.solve(bump(mesh, method.degree, 0.4), 1.0, 6)
            assert not runs[comm.size].levels[:, equation.system.absorbing.dofs].any()
        run, alone = runs[WORLD.size], runs[1]
        assert run.mass == pytest.approx(alone.mass, rel=1e-9)
        assert run.absorbed == pytest.approx(alone.absorbed, rel=1e-9)
        assert run.minimum == pytest.approx(alone.minimum, abs=1e-9)
        assert run.mass + run.absorbed.sum(axis=1) == pytest.approx(np.ones(7), abs=1e-12)


@schemes()
@pytest.mark.parametrize("degree", [1, 2, 3])
def test_a_step_is_that_of_the_free_unknowns(degree, scheme):
    # With the whole matrices, without those of the wall: M' rho' = -N rho by the same scheme.
    mesh, dt = cube(SELF, 2, 2), 0.1
    equation = fpc.FokkerPlanck(
        mesh, stirring, 1.0, degree=degree, absorbing=lambda x: x[0] < 1e-9, linear_solver="direct"
    )
    system = equation.system
    walls, g = system.absorbing, system.elements
    free = np.setdiff1d(np.arange(g.n_local), walls.dofs)
    x = g.space.tabulate_dof_coordinates()
    assert (x[walls.dofs, 0] < 1e-9).all() and (x[free, 0] > 1e-9).all()

    def dense(values):
        return g.matrix(values.copy()).mat.convert("dense").getDenseArray()

    m, rho0 = dense(system.mass_values), bump(mesh, degree, 0.4)
    values, rates = np.empty(g.sparsity.size), []
    for c in scheme.c:
        system.filler(1.0)(stirring(c * dt, system.points), 0.5, values)
        rates.append(dense(values) - m)
    inside = np.ix_(free, free)
    start = np.linalg.solve(m[inside], (m @ rho0.x.array)[free])
    stages, lost = [], np.zeros(g.n_local)
    for i, row in enumerate(scheme.a):
        r = start + dt * sum((row[j] * stages[j] for j in range(i)), np.zeros(len(free)))
        u = np.linalg.solve((m + dt * row[i] * rates[i])[inside], m[inside] @ r)
        stages.append(-np.linalg.solve(m[inside], rates[i][inside] @ u))
        lost += scheme.b[i] * dt * (rates[i][:, free] @ u + m[:, free] @ stages[-1])
    new = start + dt * sum(b * k for b, k in zip(scheme.b, stages, strict=True))
    run = equation.solve(rho0, dt, 1, scheme=scheme)
    assert run.levels[0][free] == pytest.approx(start, abs=1e-12 * abs(start).max())
    assert run.levels[1][free] == pytest.approx(new, abs=1e-12 * abs(start).max())
    assert not run.levels[:, walls.dofs].any()
    assert np.diff(run.absorbed[:, 0])[0] == pytest.approx(-lost[walls.dofs].sum(), rel=1e-11)
    begun = rho0.x.array.copy()
    begun[free] -= start
    assert run.absorbed[0, 0] == pytest.approx((m @ begun).sum(), rel=1e-11)


@pytest.mark.parallel([1, 2])
def test_what_round_off_loses_at_walls_is_restored_and_no_more():
    system = fpc.Monotone().on(cube(WORLD, 2, 4)).with_walls(lambda x: np.isclose(x[0], 0.0))
    g, walls = system.elements, system.absorbing
    r = np.ones(g.n_local)
    walls.project(r)
    mass = g.integral(r)
    for lost, restored in ((1e-9, True), (-1e-8, True), (1e-4, False), (np.nan, False)):
        y, absorbed = 0.75 * (1.0 - lost) * r, np.array([0.25 * mass / WORLD.size])
        found = WORLD.allreduce(walls.restored(r, y, absorbed).sum())
        kept = g.integral(y)
        assert (abs(kept + found - mass) <= 1e-15) == restored
        if restored:  # in proportion
            assert kept / found == pytest.approx(3.0 * (1.0 - lost), rel=1e-14)
    nothing = np.zeros(g.n_local)
    assert walls.restored(nothing, nothing.copy(), np.zeros(1)) == 0.0
