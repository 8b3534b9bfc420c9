"""Drifts from data: Functions on the mesh, and velocities on regular grids."""

import numpy as np
import pytest
from dolfinx import fem
from problems import SELF, WORLD, bump, cube, raised

import fpcontrol as fpc

ranks = pytest.mark.parallel([1, 2, 3])
methods = pytest.mark.parametrize(
    "method", [fpc.Galerkin(1), fpc.Galerkin(2), fpc.Monotone(), fpc.Limited()],
    ids=["P1", "P2", "monotone", "limited"],
)  # fmt: skip


def square(x: np.ndarray) -> np.ndarray:
    """Of degree 2 in each number of dimensions, no gradient."""
    return 1.0 - x * np.roll(x, 1, axis=1) + 0.5 * x


def end(mesh, drift, method, **options) -> np.ndarray:
    equation = fpc.FokkerPlanck(mesh, drift, 0.8, discretization=method)
    start = bump(mesh, method.degree, 0.3)
    return equation.solve(start, 0.5, 4, save="last", **options).levels[-1]


def vector(mesh, degree: int, family: str = "Lagrange") -> fem.Function:
    d = mesh.topology.dim
    f = fem.Function(fem.functionspace(mesh, (family, degree, (d,))), name="velocity")
    f.interpolate(lambda x: square(x[:d].T).T)
    return f


@ranks
@methods
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_a_function_is_the_drift_that_it_interpolates(dim, method):
    mesh = cube(WORLD, dim, 5)
    f = vector(mesh, 2)
    exact = end(mesh, fpc.drift.Steady(square), method)
    for drift in (f, fpc.drift.data(f), 2.0 * fpc.drift.data(f) - fpc.drift.Steady(square)):
        assert end(mesh, drift, method) == pytest.approx(exact, rel=1e-9, abs=1e-10)
    assert end(mesh, vector(mesh, 2, "DG"), method) == pytest.approx(exact, rel=1e-9, abs=1e-10)


@ranks
def test_other_elements():
    mesh = cube(WORLD, 2, 6)
    line = fem.Function(fem.functionspace(mesh, ("RT", 1)))
    line.interpolate(lambda x: np.array([1.0 + x[0], 2.0 + x[1]]))  # which RT has
    exact = end(mesh, fpc.drift.Steady(lambda x: np.array([1.0, 2.0]) + x), fpc.Galerkin(2))
    assert end(mesh, line, fpc.Galerkin(2)) == pytest.approx(exact, rel=1e-9, abs=1e-10)
    piecewise = fem.Function(fem.functionspace(mesh, ("DG", 0, (2,))))
    piecewise.interpolate(lambda x: np.array([np.sign(x[0] - 0.5), 0.0 * x[0]]))
    exact = end(
        mesh,
        fpc.drift.Steady(lambda x: np.column_stack([np.sign(x[:, 0] - 0.5), 0.0 * x[:, 0]])),
        fpc.Galerkin(1),
    )
    assert end(mesh, piecewise, fpc.Galerkin(1)) == pytest.approx(exact, rel=1e-9, abs=1e-10)
    one = cube(WORLD, 1, 6)
    scalar = fem.Function(fem.functionspace(one, ("Lagrange", 1)))
    scalar.interpolate(lambda x: 1.0 - x[0])
    exact = end(one, fpc.drift.Steady(lambda x: 1.0 - x), fpc.Galerkin(2))
    assert end(one, scalar, fpc.Galerkin(2)) == pytest.approx(exact, rel=1e-9, abs=1e-10)


def test_a_copy_is_taken_and_values_elsewhere_are_known():
    mesh = cube(SELF, 2, 4)
    f = vector(mesh, 2)
    drift = fpc.drift.data(f)
    f.x.array[:] = 0.0
    x = np.random.default_rng(0).uniform(size=(20, 2))
    assert drift(0.0, x) == pytest.approx(square(x), abs=1e-12)
    assert drift.steady and not drift.everywhere
    with pytest.raises(ValueError, match="1 of 21 points lie in no cell"):
        drift(0.0, np.vstack([x, [[1.5, 0.0]]]))


def table(shape: tuple[int, ...], f=square) -> tuple[list[np.ndarray], np.ndarray]:
    axes = [np.linspace(-0.1, 1.2, n) for n in shape]
    x = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    return axes, f(x.reshape(-1, len(shape))).reshape(x.shape)


@ranks
@methods
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_grids(dim, method):
    mesh = cube(WORLD, dim, 5)

    def straight(x):
        return 1.0 - 2.0 * x + 0.5 * np.roll(x, 1, axis=1)

    axes, values = table((4, 7, 5)[:dim], straight)
    exact = end(mesh, fpc.drift.Steady(straight), method)
    drift = fpc.drift.grid(axes, values)
    assert drift.steady and drift.everywhere
    assert end(mesh, drift, method) == pytest.approx(exact, rel=1e-9, abs=1e-10)
    # Linear in time between three levels, which a drift t v is.
    moving = fpc.drift.grid(axes, [t * values for t in (0.0, 0.3, 1.0)], times=[0.0, 0.3, 1.0])
    assert not moving.steady
    exact = end(mesh, lambda t, x: t * straight(x), method)
    assert end(mesh, moving, method) == pytest.approx(exact, rel=1e-9, abs=1e-10)


@pytest.mark.parametrize(("method", "order"), [("linear", 2.0), ("cubic", 4.0)])
def test_orders_of_interpolation(method, order):
    def waves(x):
        return np.sin(4.0 * x + np.roll(x, 1, axis=1))

    x = np.random.default_rng(0).uniform(size=(500, 2))
    errors = [
        np.abs(fpc.drift.grid(*table((n, n), waves), method=method)(0.0, x) - waves(x)).max()
        for n in (20, 40)
    ]
    assert np.log2(errors[0] / errors[1]) > order - 0.4


def test_missing_values_matter_where_they_are_needed():
    axes, values = table((14, 14))
    values[:4] = np.nan  # up to x = 0.2
    drift = fpc.drift.grid(axes, values)
    assert np.isfinite(drift(0.0, np.array([[0.35, 0.5]]))).all()
    with pytest.raises(ValueError, match="1 of 2 points lie beside missing values"):
        drift(0.0, np.array([[0.35, 0.5], [0.25, 0.5]]))


@pytest.mark.parallel([1, 2])
def test_bad_input():
    mesh = cube(WORLD, 2, 4)
    axes, values = table((4, 5))
    short = [np.linspace(0.0, 0.8, 4), axes[1]]
    grid = fpc.drift.grid
    scalar = fem.Function(fem.functionspace(mesh, ("Lagrange", 1)), name="V")
    for text, call in {
        "drift in 2-D needs 2 components. Of a potential": lambda: fpc.drift.data(scalar),
        "is no dolfinx Function": lambda: fpc.drift.data(square),
        "lives on another mesh": lambda: end(mesh, vector(cube(WORLD, 2, 3), 1), fpc.Galerkin(1)),
        "axes[0] must be": lambda: grid([axes[0][::-1], axes[1]], values),
        "times must be": lambda: grid(axes, [values, values], times=[1.0, 1.0]),
        "values has shape (4, 5, 2); the axes": lambda: grid(axes[::-1], values),
        "outside = 'clip'": lambda: grid(axes, values, outside="clip"),
        "needs all": lambda: grid(axes, np.full_like(values, np.nan), method="cubic"),
        "lie outside the drift's grid": lambda: end(mesh, grid(short, values), fpc.Galerkin(1)),
        "outside the times": lambda: end(
            mesh, grid(axes, [values, values], times=[0.0, 0.3]), fpc.Galerkin(1)
        ),
        "fpc.drift.data(function)": lambda: fpc.drift.as_drift(scalar),
    }.items():
        assert text in raised(ValueError, call), text
    near = grid(short, values, outside="nearest")
    assert near(0.0, np.array([[1.0, 0.3]])) == pytest.approx(near(0.0, np.array([[0.8, 0.3]])))


@ranks
def test_gradient_of_a_scalar_function():
    mesh, D = cube(WORLD, 2, 8), 0.32
    V = fem.Function(fem.functionspace(mesh, ("Lagrange", 1)))
    V.interpolate(lambda x: np.cos(3.0 * x[0]) * x[1])
    equation = fpc.FokkerPlanck(
        mesh, fpc.drift.gradient(V), (2.0 * D) ** 0.5, discretization=fpc.Monotone()
    )
    rho = equation.stationary().x.array
    gibbs = np.exp(-V.x.array / D)
    assert rho == pytest.approx(gibbs / equation.elements.integral(gibbs), rel=1e-11)
