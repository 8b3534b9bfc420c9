"""Noise that depends on place or direction is refused in one way, on all ranks."""

import functools

import numpy as np
import pytest
import ufl
from dolfinx import fem
from problems import WORLD, cube, raised, tracking

import fpcontrol as fpc

MESH = cube(WORLD, 2, 3)


def two(t, x):
    return 1.0 + x[:, 0]


class Field:
    def __call__(self, t, x):
        return 1.0


KINDS = {
    "Function": lambda: fpc.density.uniform(MESH),
    "vector Function": lambda: fem.Function(fem.functionspace(MESH, ("Lagrange", 1, (2,)))),
    "Constant": lambda: fem.Constant(MESH, 1.0),
    "expression": lambda: 1.0 + ufl.SpatialCoordinate(MESH)[0],
    "sigma(t, x)": lambda: two,
    "sigma(t, x), no function": Field,
    "sigma()": lambda: lambda: 1.0,
    "sigma(x)": lambda: lambda x: 1.0 + x[:, 0],
    "sigma(x), a method": lambda: lambda x: x.sum(),
    "matrix": lambda: np.diag([1.0, 0.1]),
    "an axis each": lambda: [1.0, 0.1],
    "pair": lambda: (1.0, 0.1),
    "one number in an array": lambda: np.array([1.0]),
    "schedule of an axis each": lambda: lambda t: [1.0, 0.1],
    "schedule of matrices": lambda: lambda t: np.eye(2),
    "class": lambda: Field,
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
        assert message.startswith("sigma") and "Give one number" in message
        assert "place or direction is not offered" in message and len(message) < 400


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
