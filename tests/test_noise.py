"""What is no noise is refused in one way, on all ranks."""

import functools

import numpy as np
import pytest
import ufl
from dolfinx import fem
from problems import RANKS, WORLD, cube, raised, region, tracking

import fpcontrol as fpc

MESH = cube(WORLD, 2, 3)


def three(t, x, y):
    return 1.0


class Field:
    def __call__(self, t, x):
        return 1.0


KINDS = {
    "Constant": lambda: fem.Constant(MESH, 1.0),
    "expression": lambda: 1.0 + ufl.SpatialCoordinate(MESH)[0],
    "sigma(t, x, y)": lambda: three,
    "sigma(x, y)": lambda: lambda x, y: x + y,
    "sigma()": lambda: lambda: 1.0,
    "sigma(x) of another name": lambda: lambda y: 1.0 + y[:, 0],
    "schedule of an axis each": lambda: lambda t: [1.0, 0.1],
    "schedule of matrices": lambda: lambda t: np.eye(2),
    "class": lambda: Field,
    "words": lambda: ["a", "b"],
}


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_noise_that_is_not_offered_is_refused(kind):
    sigma = KINDS[kind]()

    def forward():
        equation = fpc.FokkerPlanck(MESH, fpc.drift.zero(), sigma)
        equation.solve(fpc.density.uniform(MESH), 1.0, 2)

    def control():
        p = tracking(n=2)
        fpc.TrackingProblem(p.reference, p.drift, sigma, 4)

    density = fpc.density.uniform(MESH)
    for call in (forward, control, lambda: _moser(density, sigma)):
        message = raised(ValueError, call)
        assert message.startswith("sigma") and "Give a number" in message
        assert "sigma(t, x)" in message and len(message) < 500


def _moser(density, sigma):
    flow = fpc.MoserFlow(density, density, 1.0, sigma)
    return flow.drift.at_points(0.5, flow.system)


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize(
    "sigma",
    [
        1,
        np.float32(0.5),
        np.float64(0.5),
        lambda t: 0.5 + t,
        lambda t, slope=1.0: 0.5 + slope * t,
        functools.partial(lambda a, t: a + t, 0.5),
        np.polynomial.Polynomial([0.5, 1.0]),
        lambda *t: np.float64(0.5),
    ],
)
def test_numbers_and_functions_of_time_are_taken(sigma):
    equation = fpc.FokkerPlanck(MESH, fpc.drift.zero(), sigma, degree=1)
    assert equation.solve(fpc.density.uniform(MESH, 1), 1.0, 2).mass_defect <= 1e-13


@pytest.mark.parallel([1, 2])
def test_a_scalar_function_as_drift_is_refused():
    drift = fem.Function(fem.functionspace(MESH, ("Lagrange", 1)))
    message = raised(ValueError, lambda: fpc.FokkerPlanck(MESH, drift, 1.0))
    assert "is scalar; a drift in 2-D needs 2 components" in message


@pytest.mark.parallel([1, 2])
def test_a_reference_is_advised_only_as_it_is_taken():
    message = raised(ValueError, lambda: fpc.TrackingProblem([1], tracking().drift, 0.5, 4))
    assert "MoserFlow" in message and "AnalyticReference" not in message


BAD = {
    "(N, 3)": (lambda x: np.ones((len(x), 3)), "real values of shape"),
    "one number": (lambda x: 1.0, "real values of shape"),
    "negative": (lambda x: x[:, 0] - 0.5, "not negative"),
    "nan": (lambda t, x: np.where(x[:, 0] > 0.5, np.nan, 1.0), "must be finite"),
    "complex": (lambda x: 1j * x[:, 0], "complex128"),
    "zero": (lambda x: 0.0 * x, "zero everywhere"),
    "three axes": ([1.0, 1.0, 1.0], "the mesh is 2-D"),
    "negative axis": ([1.0, -1.0], "no entry negative"),
    "zero matrix": (np.zeros((2, 2)), "not zero"),
    "nan in a matrix": ([[1.0, np.nan], [0.0, 1.0]], "must be finite"),
    "rows of two lengths": ([[1.0], [0.0, 1.0]], "no vector of d numbers"),
    "cube": (np.ones((2, 2, 2)), "no vector of d numbers"),
    "rank 0 alone": (lambda x: (1 / int(WORLD.rank != 0)) * x[:, 0] + 1.0, "division by zero"),
}


@RANKS
@pytest.mark.parametrize("name", BAD)
def test_bad_noise_is_refused_on_all_ranks(name):
    sigma, words = BAD[name]
    mesh = cube(WORLD, 2, 4)
    density = fpc.density.uniform(mesh, 1)
    drift = fpc.NetworkDrift(mesh, width=1, pieces=2)

    def forward():
        fpc.FokkerPlanck(mesh, fpc.drift.zero(), sigma, degree=1).solve(density, 1.0, 2)

    def reference():
        flow = fpc.MoserFlow(density, density, 1.0, sigma)
        flow.drift.at_points(0.5, flow.system)

    def control():
        flow = fpc.MoserFlow(density, density, 1.0, 1.0)
        fpc.TrackingProblem(flow, drift, sigma, 4)(drift.weights)

    for call in (forward, reference, control):
        kind = ZeroDivisionError if name == "rank 0 alone" else ValueError
        message = raised(kind, call)
        assert words in message and (kind is not ValueError or message.startswith("sigma"))


@RANKS
def test_what_is_not_offered_says_so():
    mesh, other = cube(WORLD, 2, 4), cube(WORLD, 2, 4)
    zero = fpc.drift.zero()
    message = raised(
        ValueError,
        lambda: fpc.FokkerPlanck(mesh, zero, [1.0, 0.5], discretization=fpc.Limited()),
    )
    assert "Limited()" in message and "Use Galerkin(), or Monotone()" in message
    message = raised(ValueError, lambda: fpc.FokkerPlanck(mesh, zero, region(other, 1.0, 1.0)))
    assert "another mesh" in message and "interpolate_nonmatching" in message
    message = raised(ValueError, lambda: fpc.FokkerPlanck(mesh, zero, 1.0, interpretation="Ito"))
    assert message.startswith("interpretation = 'Ito'") and "stratonovich" in message
    equation = fpc.FokkerPlanck(mesh, zero, lambda t, x: 1.0 + t * x[:, 0])
    assert "sigma is a function of time" in raised(ValueError, equation.stationary)
    uniform = fpc.density.uniform(mesh, 1)
    problem = fpc.TrackingProblem(
        fpc.MoserFlow(uniform, uniform, 1.0, region(mesh, 1.0, 1.0)),
        fpc.NetworkDrift(mesh, width=1, pieces=1),
        region(mesh, 1.0, 1.0),
        4,
    )
    assert "another mesh" in raised(ValueError, problem.on_refined_mesh)
