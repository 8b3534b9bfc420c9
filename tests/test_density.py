"""Densities: mass 1, positive, and where their points are."""

from pathlib import Path

from mpi4py import MPI

import numpy as np
import pytest
from problems import SELF, WORLD, cube, raised

import fpcontrol as fpc
from fpcontrol.discretization.elements import Elements

L_SHAPE = Path(__file__).parents[1] / "meshes" / "l_shape.xdmf"


def mass(rho) -> float:
    return Elements(rho.function_space).integral(rho.x.array)


def lowest(rho) -> float:
    return WORLD.allreduce(rho.x.array.min(initial=np.inf), op=MPI.MIN)


@pytest.mark.parallel([1, 2, 3])
@pytest.mark.parametrize(("dim", "degree"), [(1, 3), (1, 1), (2, 2), (2, 3), (3, 1), (3, 2)])
def test_densities_have_mass_one(dim, degree):
    mesh = cube(WORLD, dim, 4, size=3.0)
    volume = 3.0**dim
    uniform = fpc.density.uniform(mesh, degree)
    assert uniform.x.array == pytest.approx(1.0 / volume, rel=1e-13)
    assert uniform.function_space.element.basix_element.degree == degree
    hill = fpc.density.interpolate(mesh, lambda x: 7.0 + x[0] ** 2, degree)
    assert mass(hill) == pytest.approx(1.0, rel=1e-13)
    points = fpc.density.from_points(mesh, np.full((1, dim), 1.0), bandwidth=1.0, degree=degree)
    assert mass(points) == pytest.approx(1.0, rel=1e-13)


@pytest.mark.parallel([1, 2])
def test_interpolation_is_in_proportion_to_the_function():
    mesh = cube(WORLD, 2, 4)
    rho = fpc.density.interpolate(mesh, lambda x: 6.0 * (1.0 + x[0] * x[1]), 2)
    x = rho.function_space.tabulate_dof_coordinates()
    # The integral of 1 + x y over the unit square is 5/4.
    assert rho.x.array == pytest.approx((1.0 + x[:, 0] * x[:, 1]) / 1.25, rel=1e-13)


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("floor", [0.0, 0.2, 1.0])
def test_floor_is_a_fraction_of_the_mass_spread_evenly(floor):
    mesh = cube(WORLD, 2, 8, size=2.0)
    f = lambda x: np.exp(-20.0 * ((x - 0.5) ** 2)[:2].sum(axis=0))  # noqa: E731
    bare, mixed = (fpc.density.interpolate(mesh, f, floor=a) for a in (0.0, floor))
    assert mixed.x.array == pytest.approx((1.0 - floor) * bare.x.array + floor / 4.0, rel=1e-13)
    assert mass(mixed) == pytest.approx(1.0, rel=1e-13)
    point = fpc.density.from_points(mesh, [[0.3, 0.3]], bandwidth=0.2, floor=floor)
    assert lowest(point) >= floor / 4.0 * (1.0 - 1e-12)


# --- points --------------------------------------------------------------------------------------


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize(("dim", "n"), [(1, 200), (2, 60), (3, 24)])
def test_one_point_becomes_a_gaussian(dim, n):
    # In a cube of side 10, walls are 5 bandwidths away; in 3-D, of side 8 and coarse.
    size = 8.0 if dim == 3 else 10.0
    mesh, centre = cube(WORLD, dim, n, size=size), np.full(dim, 0.5 * size + 0.1)
    rho = fpc.density.from_points(mesh, centre[None], bandwidth=1.0, degree=1)
    g = Elements(rho.function_space, 4)
    values, x = g.evaluate(rho.x.array).ravel(), g.points
    weights = values * g.quadrature_weights
    mean = np.array([g.sum(float(weights @ x[:, k])) for k in range(dim)])
    variance = [g.sum(float(weights @ (x[:, k] - mean[k]) ** 2)) for k in range(dim)]
    assert mean == pytest.approx(centre, abs=1e-3)
    assert sum(variance) == pytest.approx(dim, rel=2e-3)
    assert variance == pytest.approx(np.ones(dim), rel=0.02)  # not every cell is isotropic
    assert lowest(rho) >= 0.0
    gauss = np.exp(-0.5 * ((x - centre) ** 2).sum(axis=1)) / (2.0 * np.pi) ** (dim / 2)
    # Twenty Euler steps: the peak is 4 % (1-D), 5 % (2-D), 10 % (3-D) above the Gaussian's, and
    # cells of a third of the bandwidth, in 3-D, add as much.
    error = WORLD.allreduce(np.abs(values - gauss).max(), op=MPI.MAX)
    assert error < (0.2 if dim == 3 else 0.1) * (2.0 * np.pi) ** (-dim / 2)


def second_moment(rho, centre) -> float:
    g = Elements(rho.function_space, 6)
    weights = g.evaluate(rho.x.array).ravel() * g.quadrature_weights
    return g.sum(float(weights @ ((g.points - centre) ** 2).sum(axis=1)))


@pytest.mark.parallel([1, 2])
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("dim", "n"), [(1, 40), (2, 40), (3, 16)])
@pytest.mark.parametrize("cells", [0.9, 1.0, 1.7])  # bandwidth in cells
def test_second_moment_is_that_of_the_bandwidth_down_to_a_cell(dim, n, cells):
    mesh = cube(WORLD, dim, n, size=float(n))
    for place in (0.0, 0.31, 0.5):  # at a node, in a cell, where several meet
        centre = np.full(dim, n / 2 + place)
        rho = fpc.density.from_points(mesh, centre[None], bandwidth=cells, degree=2)
        assert second_moment(rho, centre) == pytest.approx(dim * cells**2, rel=1e-3)


@pytest.mark.parallel([1, 2])
@pytest.mark.filterwarnings("error")
def test_second_moment_on_an_island_is_nearly_that_of_the_bandwidth():
    # Cells of 10 km; on irregular ones the discrete heat flow spreads by a little more or less.
    mesh = fpc.mesh.read(L_SHAPE.parent / "great_britain.xdmf", WORLD)
    points = np.array([[0.0, -200.0], [20.0, -150.0], [-23.0, -180.0]])
    for bandwidth in (8.0, 10.0, 20.0):
        rho = fpc.density.from_points(mesh, points, bandwidth=bandwidth)
        spread = second_moment(rho, points.mean(axis=0)) - points.var(axis=0).sum()
        assert spread == pytest.approx(2.0 * bandwidth**2, rel=0.01)


@pytest.mark.parallel([1, 2, 3])
@pytest.mark.filterwarnings("error")
def test_bandwidth_below_the_cells_is_a_warning_that_says_what_was_made():
    mesh = cube(WORLD, 2, 20, size=20.0)
    points = np.array([[10.0, 10.0], [5.3, 6.7]])

    def build():
        return fpc.density.from_points(mesh, points[:1], bandwidth=0.05, degree=1)

    if WORLD.rank == 0:
        with pytest.warns(UserWarning, match=r"narrower than the cells can hold at 1 of 1") as seen:
            rho = build()
        said = str(seen[0].message)
    else:
        rho, said = build(), ""
    said = WORLD.bcast(said)
    made = float(said.split("standard deviation of ")[1].split(",")[0])
    assert second_moment(rho, points[0]) == pytest.approx(2.0 * made**2, rel=0.01)
    # The bandwidth that is advised is one that can be held.
    advised = float(said.split("at least ")[1].rstrip("."))
    fpc.density.from_points(mesh, points[:1], bandwidth=1.01 * advised)


@pytest.mark.parallel([1, 2])
def test_points_are_weighed_by_their_masses():
    mesh = cube(WORLD, 2, 16, size=10.0)
    points, masses = np.array([[3.0, 3.0], [7.0, 7.0]]), [1.0, 3.0]
    both = fpc.density.from_points(mesh, points, masses, bandwidth=0.5)
    one, two = (fpc.density.from_points(mesh, p[None], bandwidth=0.5) for p in points)
    expected = 0.25 * one.x.array + 0.75 * two.x.array
    assert both.x.array == pytest.approx(expected, abs=1e-12)
    equal = fpc.density.from_points(mesh, points, bandwidth=0.5)
    assert equal.x.array == pytest.approx(0.5 * (one.x.array + two.x.array), abs=1e-12)


@pytest.mark.parallel([2, 3])
def test_density_of_points_is_that_of_one_rank():
    points = np.random.default_rng(0).uniform(0.05, 0.95, (40, 2))
    # On the border of two cells too, which may belong to two ranks.
    points = np.vstack([points, [[0.5, 0.5], [0.25, 0.75]]])

    def by_place(comm):
        rho = fpc.density.from_points(cube(comm, 2, 8), points, bandwidth=0.1)
        x = rho.function_space.tabulate_dof_coordinates()
        return {tuple(np.round(p, 9) + 0.0): u for p, u in zip(x, rho.x.array, strict=True)}

    alone, shared = by_place(SELF), by_place(WORLD)
    assert max(abs(u - alone[p]) for p, u in shared.items()) <= 1e-9 * max(alone.values())


@pytest.mark.parallel([1, 2])
def test_degrees_return_the_same_function():
    mesh = cube(WORLD, 2, 10)
    points = np.array([[0.31, 0.42], [0.7, 0.77]])
    values = []
    for degree in (1, 2, 3):
        rho = fpc.density.from_points(mesh, points, bandwidth=0.15, degree=degree)
        values.append(Elements(rho.function_space, 5).evaluate(rho.x.array))
    assert values[1] == pytest.approx(values[0], abs=1e-12)
    assert values[2] == pytest.approx(values[0], abs=1e-12)


@pytest.mark.parallel([1, 2])
def test_nothing_leaks_round_the_corner_of_an_l():
    mesh = fpc.mesh.read(L_SHAPE, WORLD)
    # The quarter x > 0, y < 0 is missing; the point is in the right arm, by its lower wall.
    centre, h = np.array([0.6, 0.03]), 0.4
    rho = fpc.density.from_points(mesh, centre[None], bandwidth=h)
    g = Elements(rho.function_space)
    x, values = g.points, g.evaluate(rho.x.array).ravel()
    beyond = x[:, 1] < -0.5
    leaked = g.sum(float((values * g.quadrature_weights)[beyond].sum()))
    gauss = np.exp(-0.5 * ((x - centre) ** 2).sum(axis=1) / h**2)
    straight = g.sum(float((gauss * g.quadrature_weights)[beyond].sum())) / g.sum(
        float(gauss @ g.quadrature_weights)
    )
    # Round the corner it is 1.10 to the nearest point beyond, straight through the bay 0.80.
    assert 0.0 < leaked < 0.1 * straight


@pytest.mark.parallel([1, 2, 3])
@pytest.mark.filterwarnings("error")
def test_points_outside_are_moved_or_left_out_and_counted():
    mesh = cube(WORLD, 2, 10)
    # Inside; off the coast by less than a bandwidth; far out at sea.
    points, masses = np.array([[0.5, 0.5], [1.05, 0.5], [3.0, 3.0]]), [2.0, 1.0, 7.0]

    def build():
        return fpc.density.from_points(mesh, points, masses, bandwidth=0.1)

    if WORLD.rank == 0:
        with pytest.warns(
            UserWarning, match=r"2 of 3 points .* 1 within .*10\.00%.* 1 were left out \(70\.00%\)"
        ):
            found = build()
    else:
        found = build()
    moved = np.array([[0.5, 0.5], [1.0, 0.5]])
    expected = fpc.density.from_points(mesh, moved, [2.0, 1.0], bandwidth=0.1)
    assert found.x.array == pytest.approx(expected.x.array, abs=1e-10)


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize(
    ("points", "options", "message"),
    [
        (np.zeros((0, 2)), {}, "shape (0, 2)"),
        (np.zeros((3, 3)), {}, "(3, 3)"),
        (np.zeros(2), {}, "(2,)"),
        ([[0.5, np.nan]], {}, "finite"),
        ([[0.5, 0.5]], {"masses": [1.0, 2.0]}, "masses has shape (2,)"),
        ([[0.5, 0.5]], {"masses": [-1.0]}, "negative"),
        ([[0.5, 0.5]], {"masses": [np.inf]}, "finite"),
        ([[0.5, 0.5]], {"masses": [0.0]}, "sum must be positive"),
        ([[0.5, 0.5]], {"bandwidth": 0.0}, "bandwidth = 0.0"),
        ([[0.5, 0.5]], {"bandwidth": -1.0}, "bandwidth = -1.0"),
        ([[0.5, 0.5]], {"bandwidth": np.nan}, "bandwidth = nan"),
        ([[50.0, 0.5]], {}, "None of the 1 points"),
        ([[0.5, 0.5]], {"floor": 1.5}, "floor = 1.5"),
        ([[0.5, 0.5]], {"degree": 4}, "degree = 4"),
    ],
    ids=str,
)
def test_bad_points_are_refused(points, options, message):
    mesh = cube(WORLD, 2, 4)
    options = {"bandwidth": 0.2} | options
    assert message in raised(ValueError, lambda: fpc.density.from_points(mesh, points, **options))


@pytest.mark.parallel([2])
def test_points_that_are_bad_on_one_rank_are_refused_on_all():
    mesh = cube(WORLD, 2, 4)
    points = [[0.5, np.nan if WORLD.rank == 1 else 0.5]]
    raised(ValueError, lambda: fpc.density.from_points(mesh, points, bandwidth=0.2))


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize(
    ("f", "message"),
    [
        (lambda x: x[0] - 0.5, "negative: -0.5 at a node. Clip it, as by np.maximum"),
        (lambda x: np.where(x[0] > 0.7, np.nan, 1.0), "not finite"),
        (lambda x: 0.0 * x[0], "mass 0"),
        (lambda x: np.ones(3), "shape (3,)"),
        (lambda x: 1.0 + x[:, 0], "x[0] is the first coordinate of all nodes, as in dolfinx"),
        (lambda x: x, "is needed"),
    ],
)
def test_bad_functions_are_refused(f, message):
    mesh = cube(WORLD, 2, 4)
    assert message in raised(ValueError, lambda: fpc.density.interpolate(mesh, f))


@pytest.mark.parallel([2, 3])
@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
def test_functions_bad_on_one_rank_are_refused_on_all(bad):
    mesh = cube(WORLD, 2, 4)
    last = WORLD.rank == WORLD.size - 1
    raised(
        ValueError,
        lambda: fpc.density.interpolate(mesh, lambda x: np.full(x.shape[1], bad if last else 1.0)),
    )


@pytest.mark.parallel([1, 2])
def test_error_of_the_function_itself_comes_out_on_all_ranks():
    mesh = cube(WORLD, 2, 4)

    def f(x):
        if WORLD.rank == WORLD.size - 1:
            raise KeyError("people")
        return np.ones(x.shape[1])

    assert "people" in raised(KeyError, lambda: fpc.density.interpolate(mesh, f))


@pytest.mark.parallel([1, 2])
def test_densities_are_of_the_elements_of_their_discretization():
    mesh = cube(WORLD, 2, 4)
    makers = {
        "uniform": lambda **how: fpc.density.uniform(mesh, **how),
        "interpolate": lambda **how: fpc.density.interpolate(mesh, lambda x: 1.0 + x[0], **how),
        "from_points": lambda **how: fpc.density.from_points(
            mesh, np.array([[0.4, 0.5]]), bandwidth=0.3, **how
        ),
    }
    for make in makers.values():
        for method, degree in ((fpc.Monotone(), 1), (fpc.Galerkin(), 2), (fpc.Galerkin(3), 3)):
            own = make(discretization=method)
            assert own.function_space.element.basix_element.degree == degree
            assert np.array_equal(own.x.array, make(degree=degree).x.array)
            fpc.FokkerPlanck(mesh, fpc.drift.zero(), 0.5, discretization=method).solve(own, 0.1, 1)
        assert make().function_space.element.basix_element.degree == 2
        words = raised(ValueError, lambda m=make: m(degree=1, discretization=fpc.Monotone()))
        assert "degree = 1" in words and "give one of the two" in words
        assert "none" in raised(ValueError, lambda m=make: m(discretization="monotone"))
