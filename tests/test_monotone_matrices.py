"""The monotone method with noise by direction: on meshes that suit it, else refused."""

import numpy as np
import pytest
from problems import SELF, WORLD, bump, cube, raised

import fpcontrol as fpc
from fpcontrol.verification import difference_test, dot_test, taylor_test

MONOTONE = fpc.Monotone()
ZERO = fpc.drift.zero()
RANKS = pytest.mark.parallel([1, 2, 3])


def sheared(mesh, matrix):
    """The mesh with its points moved by a matrix."""
    d = len(matrix)
    mesh.geometry.x[:, :d] = mesh.geometry.x[:, :d] @ np.asarray(matrix).T
    return mesh


def stirring(t, x):
    return np.sin(np.pi * x) * (1.0 + np.roll(x, 1, axis=1)) * (1.0 + t)


def axes(x):
    return np.stack([0.4 + 0.2 * x[:, 0] * x[:, 1], 0.3 + 0.2 * np.sin(2.0 * x[:, 0])], axis=1)


def turned(x):
    """Not symmetric, with a positive covariance: the diagonals of ``cube`` follow it."""
    sigma = np.empty((len(x), 2, 2))
    sigma[:, 0, 0], sigma[:, 0, 1] = 0.5 + 0.1 * x[:, 1], 0.1 + 0.1 * x[:, 0]
    sigma[:, 1, 0], sigma[:, 1, 1] = 0.1, 0.5
    return sigma


def in_time(t, x):
    return (1.0 + t) * turned(x)


# -- truth -----------------------------------------------------------------------------------------


@RANKS
@pytest.mark.parametrize("flux", ["bernoulli", "hybrid"])
@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.filterwarnings("ignore:.*negative and cut off")
def test_one_matrix_is_the_number_one_on_the_mesh_that_it_stretches(dim, flux):
    sigma = np.array([[1.0, 0.4, 0.1], [0.4, 0.7, 0.0], [0.1, 0.0, 0.5]])[:dim, :dim]
    inverse, n, method = np.linalg.inv(sigma), {2: 6, 3: 3}[dim], fpc.Monotone(flux)
    # The weights of a number are Voronoi's in 3-D, at walls not those of elements.
    unit = 1.0 if dim == 2 else np.ones(dim)

    def drift(t, x):
        return 4.0 * np.sin(3.0 * np.roll(x, 1, axis=1) + t)

    def there(t, x):
        return drift(t, x @ inverse.T) @ sigma.T

    levels = []
    for mesh, v, noise, back in (
        (cube(WORLD, dim, n), drift, unit, np.eye(dim)),
        (sheared(cube(WORLD, dim, n), sigma), there, sigma, inverse),
    ):
        start = fpc.density.interpolate(
            mesh,
            lambda x, b=back: 1.0 + np.exp(-20.0 * ((b @ x[:dim] - 0.4) ** 2).sum(axis=0)),
            degree=1,
        )
        equation = fpc.FokkerPlanck(mesh, v, noise, discretization=method, linear_solver="direct")
        levels.append(equation.solve(start, 0.3, 4).levels[-1])
    one, two = levels[0], levels[1] * np.linalg.det(sigma)
    assert np.abs(one - two).max() < 1e-13 * one.max()
    assert np.ptp(one) > 0.3


CASES = {
    "one number an axis": (axes, "ito", stirring),
    "axes, divergence, no drift": (axes, "divergence", ZERO),
    "axes, stratonovich": (axes, "stratonovich", stirring),
    "matrices": (turned, "ito", stirring),
    "matrices, stratonovich": (turned, "stratonovich", stirring),
    "matrices in time": (in_time, "divergence", stirring),
}


@pytest.mark.parametrize("name", CASES)
def test_order_in_space_is_two_where_it_is_resolved(name):
    sigma, interpretation, drift = CASES[name]

    def end(n, degree, steps, method):
        mesh = cube(SELF, 2, n)
        equation = fpc.FokkerPlanck(
            mesh, drift, sigma, interpretation=interpretation, discretization=method
        )
        return equation.solve(bump(mesh, degree, 0.4), 0.2, steps)[-1]

    exact = end(20, 2, 30, fpc.Galerkin(2))
    # Steps in proportion to squares of cells: backward Euler is of first order.
    errors = [fpc.distances.l2(end(n, 1, n * n // 4, MONOTONE), exact) for n in (8, 16)]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(1.95, abs=0.1)


@RANKS
def test_covariance_of_a_linear_drift_on_a_stretched_rectangle():
    # dX = -X dt + sigma dW: the covariance is sigma^2/2 of each axis, its Gibbs density stationary.
    sigma = np.array([1.0, 0.02])
    lengths = 6.0 * sigma / 2.0**0.5
    mesh = fpc.mesh.rectangle(WORLD, (24, 24), tuple(-lengths), tuple(lengths))
    D = 0.5 * sigma**2
    gibbs = fpc.density.interpolate(
        mesh, lambda x: np.exp(-0.5 * (x[:2].T ** 2 / D).sum(axis=1)), discretization=MONOTONE
    )
    equation = fpc.FokkerPlanck(
        mesh, fpc.drift.Steady(lambda x: -x), sigma, discretization=MONOTONE, linear_solver="direct"
    )
    end = equation.solve(gibbs, 20.0, 4)[-1]
    assert fpc.distances.l2(end, gibbs) < 1e-11 * np.abs(gibbs.x.array).max()
    start = fpc.density.uniform(mesh, discretization=MONOTONE)
    seen = equation.solve(
        start, 20.0, 40, observables={"c": fpc.observables.covariance()}
    ).observables["c"][-1]
    assert np.diag(seen) == pytest.approx(D, rel=0.1)
    assert abs(seen[0, 1]) < 0.03 * (D[0] * D[1]) ** 0.5


# -- positivity ------------------------------------------------------------------------------------


@RANKS
@pytest.mark.parametrize("scheme", [fpc.BackwardEuler(), fpc.Exponential()], ids=lambda s: s.name)
@pytest.mark.parametrize("peclet", [1.0, 1e2, 1e6])
def test_positive_and_conservative(peclet, scheme):
    mesh, scale = cube(WORLD, 2, 8), (0.1 / peclet) ** 0.5
    equation = fpc.FokkerPlanck(
        mesh, stirring, lambda x: scale * turned(x), discretization=MONOTONE
    )
    start = fpc.density.interpolate(mesh, lambda x: (x[0] < 0.4) * 1.0, degree=1)
    run = equation.solve(start, 0.4, 8, scheme=scheme)
    assert run.minimum.min() >= -1e-14 * max(np.abs(level).max(initial=0) for level in run.levels)
    assert run.mass_defect < 1e-13


@RANKS
@pytest.mark.filterwarnings("ignore:.*degenerate")
@pytest.mark.parametrize("axis", [0, 1])
def test_an_axis_without_noise_is_an_upwind_method_there(axis):
    """Parts along each axis are those of one dimension."""
    n, sigma = 7, np.array([0.4, 0.4])  # sides of cells that round-off changes
    sigma[axis] = 0.0
    line = cube(SELF, 1, n)

    def shape(x):
        return 1.0 + np.sin(2.0 * x) ** 2

    def along(x, k):
        v = np.zeros_like(x)
        v[:, k] = 0.7 - x[:, k]
        return v

    for k in (0, 1):
        # Periodic across: at corners the masses of nodes are no products.
        mesh = fpc.mesh.rectangle(WORLD, (n, n), periodic="yx"[k])
        equation = fpc.FokkerPlanck(
            mesh, fpc.drift.Steady(lambda x, k=k: along(x, k)), sigma, discretization=MONOTONE
        )
        start = fpc.density.interpolate(mesh, lambda x, k=k: shape(x[k]), degree=1)
        end = equation.solve(start, 1.0, 5)
        single = fpc.FokkerPlanck(
            line, fpc.drift.Steady(lambda x: 0.7 - x), sigma[k] or 1e-6, discretization=MONOTONE
        ).solve(fpc.density.interpolate(line, lambda x: shape(x[0]), degree=1), 1.0, 5)
        V = end[-1].function_space
        x = V.tabulate_dof_coordinates()[:, k]
        owned = V.dofmap.index_map.size_local
        nodes = single[-1].function_space.tabulate_dof_coordinates()[:, 0]
        order = np.argsort(nodes)
        wanted = np.interp(x, nodes[order], single[-1].x.array[order])
        assert np.abs(end[-1].x.array - wanted)[:owned].max(initial=0.0) < 1e-6
        assert end.minimum.min() > 0.0 and end.mass_defect < 1e-13


@RANKS
@pytest.mark.filterwarnings("ignore:.*degenerate")
def test_noise_that_vanishes_on_a_line_is_as_good_as_a_number():
    """Where D changes by any factor from cell to cell."""

    def drift(t, x):
        return np.stack([0.5 - x[:, 0], 0.3 + 0.0 * x[:, 1]], axis=1)

    def end(n, degree, method, sigma):
        mesh = cube(WORLD, 2, n)
        equation = fpc.FokkerPlanck(mesh, drift, sigma, discretization=method)
        return equation.solve(bump(mesh, degree, 0.5), 0.2, 16)[-1]

    exact = end(24, 2, fpc.Galerkin(2), lambda x: x[:, 0])
    one, two = (
        fpc.distances.l2(end(8, 1, MONOTONE, sigma), exact)
        for sigma in (lambda x: x[:, 0], lambda x: np.stack([x[:, 0]] * 2, axis=1))
    )
    assert two == pytest.approx(one, rel=0.01)


# -- refusals --------------------------------------------------------------------------------------


@RANKS
def test_a_mesh_that_does_not_suit_is_refused_with_a_place_and_a_remedy():
    mesh = cube(WORLD, 2, 6)
    against = [[0.5, -0.3], [-0.3, 0.5]]  # the diagonals of the cells go the other way
    words = raised(
        ValueError, lambda: fpc.FokkerPlanck(mesh, ZERO, against, discretization=MONOTONE)
    )
    # a = ((0.34, -0.3), (-0.3, 0.34)): W of a diagonal is a_xy, its cosine -0.3/0.34.
    assert "cosine of what faces it is -0.88" in words and "length 0.236" in words
    assert words.startswith("sigma, an array of shape (2, 2), is by direction")
    assert "Galerkin()" in words and "stretched" in words and "at x = [" in words

    later = fpc.FokkerPlanck(
        mesh,
        ZERO,
        lambda t, x: np.tile([[0.5, 0.3 - t], [0.3 - t, 0.5]], (len(x), 1, 1)),
        discretization=MONOTONE,
    )
    start = fpc.density.uniform(mesh, discretization=MONOTONE)
    assert "by direction" in raised(ValueError, lambda: later.solve(start, 1.0, 4))


@RANKS
def test_a_moser_flow_along_edges_without_noise_is_refused():
    mesh = sheared(cube(WORLD, 2, 4), [[1.0, -0.3], [0.0, 1.0]])
    start, goal = bump(mesh, 1, 0.3), bump(mesh, 1, 0.7)
    # In its metric the cells have right angles, which face the edges with no flux.
    sigma = np.array([[1.0, -0.3], [0.0, 1.0]])
    flow = fpc.MoserFlow(start, goal, 1.0, sigma, discretization=MONOTONE)
    words = raised(ValueError, lambda: flow.drift.at_points(0.5, flow.system))
    assert "no flux along the edge" in words and "Galerkin()" in words


@RANKS
def test_no_noise_at_all_is_refused_and_ranks_may_be_without_cells():
    mesh = cube(WORLD, 2, 1)  # two cells
    words = raised(
        ValueError,
        lambda: fpc.FokkerPlanck(mesh, ZERO, lambda x: 0.0 * x, discretization=MONOTONE),
    )
    assert "zero everywhere" in words
    start = fpc.density.uniform(mesh, discretization=MONOTONE)
    equation = fpc.FokkerPlanck(mesh, stirring, [0.5, 0.3], discretization=MONOTONE)
    run = equation.solve(start, 1.0, 2)
    assert run.mass_defect < 1e-13 and run.minimum.min() > 0.0


@pytest.mark.parallel([2])
def test_matrices_on_one_rank_and_numbers_on_another_are_refused():
    mesh = cube(WORLD, 2, 4)

    def sigma(x):
        return np.ones((len(x), 2)) if WORLD.rank else np.ones(len(x))

    for interpretation in ("ito", "divergence"):
        words = raised(
            ValueError,
            lambda i=interpretation: fpc.FokkerPlanck(
                mesh, ZERO, sigma, discretization=MONOTONE, interpretation=i
            ),
        )
        assert "different shapes" in words


# -- control ---------------------------------------------------------------------------------------


def tracking(comm, sigma, scheme=None, n=4):
    mesh = cube(comm, 2, n)
    reference = fpc.MoserFlow(
        bump(mesh, 1, 0.3), bump(mesh, 1, 0.7), 1.0, sigma, discretization=MONOTONE
    )
    drift = fpc.NetworkDrift(mesh, 2, 2, seed=3)
    options = {} if scheme is None else {"scheme": scheme}
    return fpc.TrackingProblem(reference, drift, sigma, 4, **options)


@RANKS
@pytest.mark.parametrize("scheme", [fpc.BackwardEuler(), fpc.Exponential()], ids=lambda s: s.name)
@pytest.mark.parametrize("name", ["axes", "turned", "in_time"])
def test_derivative(name, scheme):
    p = tracking(WORLD, {"axes": axes, "turned": turned, "in_time": in_time}[name], scheme)
    weights = 2.0 * p.drift.weights
    taylor = taylor_test(p, weights)
    assert taylor.orders == pytest.approx(2.0, abs=0.01) and len(taylor.orders) >= 4
    assert difference_test(p, weights) < 1e-7
    assert dot_test(p, weights) < 1e-11


@RANKS
@pytest.mark.parametrize("sigma", [[0.5, 0.3], axes, turned], ids=["numbers", "axes", "turned"])
def test_moser_drift_gives_the_discrete_line(sigma):
    mesh = cube(WORLD, 2, 6)
    start, goal = bump(mesh, 1, 0.3), bump(mesh, 1, 0.7)
    flow = fpc.MoserFlow(start, goal, 1.0, sigma, discretization=MONOTONE)
    run = fpc.FokkerPlanck(mesh, flow.drift, sigma, discretization=MONOTONE).solve(start, 1.0, 10)
    for t, level in zip(run.times, run, strict=True):
        assert fpc.distances.l2(level, flow.density(float(t))) < 1e-10


@pytest.mark.parallel([2, 3])
@pytest.mark.parametrize("sigma", [axes, in_time])
def test_ranks_agree(sigma):
    weights = tracking(SELF, sigma).drift.weights
    value, dual = tracking(WORLD, sigma).value_and_derivative(weights)
    alone, same = tracking(SELF, sigma).value_and_derivative(weights)
    assert value == pytest.approx(alone, rel=1e-9)
    assert np.abs(dual - same).max() < 1e-9 * np.abs(same).max()
