"""Problems without time on the same operator: what stays, how fast, who gets where first."""

import dolfinx.mesh
import numpy as np
import pytest
from dolfinx.mesh import meshtags
from problems import SELF, WORLD, bump, cube, disk, raised
from scipy.integrate import quad
from test_absorbing import everywhere, sides

import fpcontrol as fpc

METHODS = [fpc.Galerkin(1), fpc.Galerkin(2), fpc.Galerkin(3), fpc.Monotone()]
methods = pytest.mark.parametrize("method", METHODS, ids=["P1", "P2", "P3", "monotone"])
ranks = pytest.mark.parallel([1, 2, 3])


def double_well(x: np.ndarray) -> np.ndarray:
    return 4.0 * (x[:, 0] ** 2 - 1.0) ** 2


def at_nodes(f) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates and values of this rank's degrees of freedom."""
    return f.function_space.tabulate_dof_coordinates(), f.x.array


def worst(f, exact) -> float:
    """Largest error at the nodes, of all ranks."""
    x, u = at_nodes(f)
    return max(WORLD.allgather(float(np.abs(u - exact(x)).max(initial=0.0))))


def swirl(x: np.ndarray) -> np.ndarray:
    """Divergence-free, along the walls of the unit square."""
    x, y = np.pi * x.T
    return 6.0 * np.column_stack([np.sin(x) * np.cos(y), -np.cos(x) * np.sin(y)])


@ranks
@methods
def test_gibbs_density(method):
    mesh = fpc.mesh.interval(WORLD, 200, -2.2, 2.2)
    equation = fpc.FokkerPlanck(
        mesh, fpc.drift.gradient(double_well), 2**0.5, discretization=method
    )
    exact = fpc.density.interpolate(mesh, lambda x: np.exp(-double_well(x.T)), method.degree)
    least = {1: 1e-3, 2: 1e-6, 3: 1e-7}[method.degree] if method != fpc.Monotone() else 1e-10
    assert fpc.distances.l2(equation.stationary(), exact) < least


@ranks
@methods
def test_drift_that_is_no_gradient(method):
    # Stirred along closed lines, the density that stays is uniform.
    mesh = cube(WORLD, 2, 24)
    equation = fpc.FokkerPlanck(mesh, fpc.drift.Steady(swirl), 1.0, discretization=method)
    rho = equation.stationary()
    assert worst(rho, lambda x: 1.0) < {1: 1e-2, 2: 2e-4, 3: 1e-5}[method.degree]
    assert equation.elements.integral(rho.x.array) == pytest.approx(1.0, abs=1e-13)


@ranks
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_stationary_density_is_the_limit_of_runs(dim):
    mesh = cube(WORLD, dim, 6)
    drift = fpc.drift.Steady(lambda x: 2.0 - 3.0 * np.roll(x, 1, axis=1) * x)
    for method in (fpc.Galerkin(2), fpc.Monotone()):
        equation = fpc.FokkerPlanck(mesh, drift, 1.0, discretization=method)
        run = equation.solve(
            bump(mesh, method.degree, 0.3), 40.0, 40, scheme=fpc.BackwardEuler(), save="last"
        )
        assert fpc.distances.l2(run[-1], equation.stationary()) < 1e-10


@ranks
@methods
def test_committor_in_closed_form(method):
    mesh = fpc.mesh.interval(WORLD, 220, -2.2, 2.2)
    equation = fpc.FokkerPlanck(
        mesh, fpc.drift.gradient(double_well), 2**0.5, discretization=method
    )
    q = equation.committor(lambda x: x[0] < -1.0 + 1e-9, lambda x: x[0] > 1.0 - 1e-9)

    def weight(y):
        return np.exp(4.0 * (y**2 - 1.0) ** 2)

    whole = quad(weight, -1.0, 1.0)[0]
    x, u = at_nodes(q)
    some = np.flatnonzero(np.abs(x[:, 0]) < 1.0)[::7]
    exact = [quad(weight, -1.0, y)[0] / whole for y in x[some, 0]]
    assert np.abs(u[some] - exact).max(initial=0.0) < {1: 2e-4, 2: 1e-7, 3: 1e-9}[method.degree]
    assert u.min() >= -1e-12 and u.max() <= 1.0 + 1e-12


@ranks
def test_sets_by_tags_of_cells_and_facets():
    mesh = cube(WORLD, 2, 8)
    equation = fpc.FokkerPlanck(mesh, fpc.drift.zero(), 1.0)
    tags = sides(mesh)
    assert worst(equation.committor(4, 9, tags=tags), lambda x: x[:, 0]) < 1e-12
    middles = dolfinx.mesh.compute_midpoints(
        mesh, 2, cells := np.arange(mesh.topology.index_map(2).size_local, dtype=np.int32)
    )
    strip = (np.abs(middles[:, 0] - 0.5) > 0.25).astype(np.int32) * (1 + (middles[:, 0] > 0.5))
    q = equation.committor([1], [2], tags=meshtags(mesh, 2, cells, strip.astype(np.int32)))
    assert worst(q, lambda x: np.clip(2.0 * (x[:, 0] - 0.25), 0.0, 1.0)) < 1e-12
    time = equation.exit_time(4, tags=tags)  # D = 1/2, the other side reflects
    assert worst(time, lambda x: x[:, 0] * (2.0 - x[:, 0])) < 1e-12


@ranks
@methods
def test_exit_time_of_the_disk(method):
    D, errors = 0.5, []
    for rings in (8, 16):
        equation = fpc.FokkerPlanck(
            disk(WORLD, rings), fpc.drift.zero(), 1.0, absorbing=everywhere, discretization=method
        )
        time = equation.exit_time()
        assert worst(time, lambda x: (1.0 - (x**2).sum(axis=1)) / (4.0 * D)) < 0.5 / rings**1.6
        errors.append(abs(equation.elements.integral(time.x.array) / (np.pi / (8.0 * D)) - 1.0))
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2.0, abs=0.1)  # the polygon's own


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_exit_time_of_a_ball_that_is_a_set(dim):
    # (1 - r**2) / (2 d D) in the unit ball: solved on half of a cube, the rest is the target.
    D, n = 0.32, {1: 40, 2: 40, 3: 15}[dim]
    mesh = cube(SELF, dim, n, 1.25)
    time = fpc.FokkerPlanck(mesh, fpc.drift.zero(), 0.8, degree=1).exit_time(
        lambda x: (x[:dim] ** 2).sum(axis=0) >= 1.0 - 1e-12
    )
    x, u = at_nodes(time)
    print("BALL", u[(x**2).sum(axis=1) < 1e-12] * 2 * dim * D)
    assert u[(x**2).sum(axis=1) < 1e-12] == pytest.approx(1.0 / (2 * dim * D), rel=0.12 * (dim > 1))


@ranks
def test_kramers():
    # From the left well to the right one's bottom; Kramers' formula is off by O(D / barrier).
    D, barrier = 0.1, 1.0
    mesh = fpc.mesh.interval(WORLD, 400, -2.2, 2.2)
    potential = fpc.drift.gradient(lambda x: barrier * (x[:, 0] ** 2 - 1.0) ** 2)
    equation = fpc.FokkerPlanck(mesh, potential, (2.0 * D) ** 0.5, degree=3)
    time = equation.exit_time(lambda x: x[0] > 1.0 - 1e-9)

    def V(x):
        return barrier * (x * x - 1.0) ** 2 / D

    def inner(y):
        return np.exp(V(y)) * quad(lambda z: np.exp(-V(z)), -2.2, y, points=[-1.0, y - 1e-3])[0]

    exact = quad(inner, -1.0, 1.0, points=[0.0], limit=200)[0] / D
    x, u = at_nodes(time)
    here = u[np.abs(x[:, 0] + 1.0) < 1e-9]
    assert here == pytest.approx(exact, rel=1e-7)
    kramers = 2.0 * np.pi / np.sqrt(8.0 * 4.0) / barrier * np.exp(barrier / D)
    assert here == pytest.approx(kramers, rel=0.1)
    rate = equation.eigenpairs(2).values[1]  # there and back
    assert rate == pytest.approx(2.0 / kramers, rel=0.1)


@ranks
@pytest.mark.parametrize("method", [fpc.Galerkin(2), fpc.Monotone()], ids=["P2", "monotone"])
def test_the_backward_problems_are_the_transposes_of_runs(method):
    # Exactly those of the discrete operator: sums over all steps of backward Euler.
    mesh = cube(WORLD, 2, 6)
    drift = fpc.drift.Steady(lambda x: 2.0 - 3.0 * np.roll(x, 1, axis=1) * x)
    equation = fpc.FokkerPlanck(
        mesh, drift, 1.0, absorbing=(9, 4), facet_tags=sides(mesh), discretization=method
    )
    start = fpc.density.interpolate(
        mesh, lambda x: (x[0] * (1.0 - x[0])) ** 2, discretization=method
    )
    run = equation.solve(start, 40.0, 400, scheme=fpc.BackwardEuler())
    g, first = equation.elements, run.levels[0]
    M = equation.system.mass

    def mean(f) -> float:
        x, y = g.vector(), g.vector()
        x.set(first)
        M.mult(x.petsc_vec, y.petsc_vec)
        return g.sum(float(y.array[: g.n_owned] @ f.x.array[: g.n_owned]))

    assert mean(equation.exit_time()) == pytest.approx(0.1 * run.mass[1:].sum(), rel=1e-9)
    for k, tag in enumerate((9, 4)):
        taken = run.absorbed[-1, k] - run.absorbed[0, k]
        assert mean(equation.exit_probability(tag)) == pytest.approx(taken, rel=1e-9)
    both = equation.exit_probability(9).x.array + equation.exit_probability(4).x.array
    assert both == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("peclet", [1.0, 1e3, 1e6])
def test_monotone_is_not_negative_at_any_cell_peclet_number(peclet):
    mesh = cube(SELF, 2, 16)
    drift = fpc.drift.Steady(lambda x: peclet * (swirl(x) - 4.0 * (x - 0.4)))
    equation = fpc.FokkerPlanck(mesh, drift, 1.0, discretization=fpc.Monotone())
    rho = equation.stationary().x.array
    assert rho.min() >= -1e-14 * rho.max()
    q = equation.committor(lambda x: x[0] < 1e-9, lambda x: x[0] > 1.0 - 1e-9).x.array
    assert q.min() >= -1e-12 and q.max() <= 1.0 + 1e-12


def test_galerkin_says_that_a_layer_is_not_resolved():
    drift = fpc.drift.Steady(lambda x: np.full_like(x, 200.0))
    with pytest.warns(UserWarning, match="does not resolve the drift"):
        fpc.FokkerPlanck(cube(SELF, 1, 11), drift, 1.0, degree=1).stationary()


@pytest.mark.parallel([1, 2])
def test_bad_input():
    mesh, zero = cube(WORLD, 2, 4), fpc.drift.zero()
    equation = fpc.FokkerPlanck(mesh, zero, 1.0)

    def left(x):
        return x[0] < 1e-9

    absorbing = fpc.FokkerPlanck(mesh, zero, 1.0, absorbing=left)
    limited = fpc.FokkerPlanck(mesh, zero, 1.0, discretization=fpc.Limited())
    for text, call in {
        "Limited() is not linear": limited.stationary,
        "sigma is a function of time": fpc.FokkerPlanck(mesh, zero, lambda t: 1.0).stationary,
        "fpc.drift.Steady(f)": fpc.FokkerPlanck(mesh, lambda t, x: -x, 1.0).stationary,
        "eigenpairs(1) gives": absorbing.stationary,
        "count = 0 must be": lambda: equation.eigenpairs(0),
        "count = 500 is more than the 81": lambda: equation.eigenpairs(500),
        "give a target": equation.exit_time,
        "a and b share 9 nodes": lambda: equation.committor(left, left),
        "b: the marker holds at no node": lambda: equation.committor(left, lambda x: x[0] > 2.0),
        "a(x) returned float64": lambda: equation.committor(lambda x: x[0], left),
        "b = 3 names tags": lambda: equation.committor(left, 3),
        "b = 'right' names a tag": lambda: equation.committor(left, "right"),
        "b = 3: no cell or facet": lambda: equation.committor(left, 3, tags=sides(mesh)),
        "tags are of another mesh": lambda: equation.committor(
            left, 9, tags=sides(cube(WORLD, 2, 3))
        ),
        "tag = 7 is no absorbing wall's; there are: (1,)": lambda: absorbing.exit_probability(7),
        "there are: none": lambda: equation.exit_probability(1),
    }.items():
        assert text in raised(ValueError, call)
