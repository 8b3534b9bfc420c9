"""Networks on meshes with periodic sides: smooth through the seam, exact, and able to steer."""

import numpy as np
import pytest
from problems import SELF, WORLD, cube, raised

import fpcontrol as fpc
from fpcontrol.verification import difference_test, dot_test, taylor_test

SIDES = ["x", "y", "xy"]


def sheet(comm, sides, cells=(8, 6)):
    """A rectangle of sides 3 and 2, some of them one."""
    return fpc.mesh.rectangle(comm, cells, (-1.0, 1.0), (2.0, 3.0), periodic=sides)


@pytest.mark.parametrize("limit", [None, 0.7])
@pytest.mark.parametrize("sides", SIDES)
def test_values_and_slopes_go_through_the_seam(sides, limit):
    drift = fpc.NetworkDrift(sheet(SELF, sides), 4, 2, seed=1, max_speed=limit)
    rng = np.random.default_rng(2)
    x, periods = rng.uniform((-1.0, 1.0), (2.0, 3.0), (9, 2)), np.array([3.0, 2.0])
    turns = np.array(["x" in sides, "y" in sides]) * periods
    for there in (x + turns, x - 2.0 * turns):
        assert drift(0.3, there) == pytest.approx(drift(0.3, x), abs=1e-13)
        there_too = drift.divergence(0.3, there)
        assert there_too == pytest.approx(drift.divergence(0.3, x), abs=1e-12)
    for k in (0, 1):
        if turns[k] == 0.0:  # not periodic
            moved = x + np.eye(2)[k] * periods[k]
            assert np.abs(drift(0.3, moved) - drift(0.3, x)).max() > 1e-2
    plain = fpc.NetworkDrift(sheet(SELF, sides), 4, 2, seed=1, periodic=False)
    assert np.abs(plain(0.3, x + turns) - plain(0.3, x)).max() > 1e-2


@pytest.mark.parametrize("limit", [None, 0.7])
@pytest.mark.parametrize("sides", SIDES)
def test_divergence_is_that_of_differences(sides, limit):
    drift = fpc.NetworkDrift(sheet(SELF, sides), 3, 2, seed=4, max_speed=limit)
    x = np.random.default_rng(5).uniform((-1.0, 1.0), (2.0, 3.0), (9, 2))
    h, total = 1e-5, np.zeros(9)
    for k, unit in enumerate(np.eye(2)):
        total += (drift(0.2, x + h * unit) - drift(0.2, x - h * unit))[:, k] / (2.0 * h)
    assert drift.divergence(0.2, x) == pytest.approx(total, abs=1e-9)


@pytest.mark.parametrize("limit", [None, 0.7])
def test_derivatives_in_the_weights(limit):
    drift = fpc.NetworkDrift(sheet(SELF, "y"), 3, 2, seed=4, max_speed=limit)
    assert drift.network.size == 3 * (2 + 3 + 1) and len(drift.weights) == 2 * 18
    rng = np.random.default_rng(6)
    x, s = rng.uniform(0.0, 2.0, (9, 2)), rng.standard_normal((9, 2))
    theta, way = drift.weights[:18], rng.standard_normal(18)
    field, h = drift.field, 1e-5
    dv = field.jvp(theta, x, way)
    ahead, behind = field.values(theta + h * way, x), field.values(theta - h * way, x)
    assert dv == pytest.approx((ahead - behind) / (2.0 * h), abs=1e-8)
    assert field.vjp(theta, x, s) @ way == pytest.approx(float((s * dv).sum()), rel=1e-12)
    every = field.jacobian(theta, x)
    assert np.einsum("knd,k->nd", every, way) == pytest.approx(dv, rel=1e-11, abs=1e-13)


def test_by_hand():
    """One neuron on a circle of length 3: W tanh(a cos + a' sin + b), all in half lengths."""
    mesh = fpc.mesh.interval(SELF, 5, 1.0, 4.0, periodic=True)
    drift = fpc.NetworkDrift(mesh, 1, 1, weights=[0.7, 1.3, -0.4, 0.2])
    x = np.linspace(1.0, 4.0, 7)
    angle = 2.0 * np.pi * (x - 2.5) / 3.0
    value = 1.5 * 0.7 * np.tanh(1.3 * np.cos(angle) - 0.4 * np.sin(angle) + 0.2)
    assert drift(0.0, x[:, None])[:, 0] == pytest.approx(value, abs=1e-14)
    flat = fpc.mesh.interval(SELF, 5, 1.0, 4.0)
    same = fpc.NetworkDrift(flat, 1, 1, weights=drift.weights, periodic=[3.0])
    assert np.array_equal(same(0.0, x[:, None]), drift(0.0, x[:, None]))
    assert same.describe() == drift.describe() and drift.describe()["periodic"] == [3.0]
    assert "periodic" not in fpc.NetworkDrift(mesh, 1, 1, periodic=False).describe()


def hill(mesh, at, method):
    return fpc.density.interpolate(
        mesh, lambda x: np.exp(3.0 * np.cos(2.0 * np.pi * (x[0] - at))), discretization=method
    )


def circle(comm, method, n=16, **options):
    """A hill is to go round through the seam of a circle of length 1."""
    mesh = fpc.mesh.interval(comm, n, periodic=True)
    start, goal = hill(mesh, 0.8, method), hill(mesh, 0.2, method)
    line = fpc.MoserFlow(start, goal, 1.0, 0.3, discretization=method)
    drift = fpc.NetworkDrift(mesh, 3, 2, seed=3, **options)
    return fpc.TrackingProblem(line, drift, 0.3, 8)


@pytest.mark.parallel([1, 2, 3])
@pytest.mark.parametrize(
    "method", [fpc.Galerkin(2), fpc.Monotone(), fpc.Limited()], ids=["galerkin", "monotone", "l"]
)
def test_derivatives_of_problems_are_those_of_the_scheme(method):
    problem = circle(WORLD, method)
    weights = problem.drift.weights
    test = taylor_test(problem, weights)
    assert test.orders == pytest.approx(2.0, abs=0.02) and test.relative_remainder < 1e-6
    assert difference_test(problem, weights) < 1e-9
    assert dot_test(problem, weights) < 1e-11
    if WORLD.size > 1:
        alone = circle(SELF, method)
        assert problem(weights) == pytest.approx(alone(weights), rel=1e-9)


def test_a_hill_is_steered_through_the_seam():
    line = circle(SELF, fpc.Galerkin(2), 24).reference
    options = {"budget": 1e3, "max_evaluations": 80, "progress": False}
    found = fpc.steer(line, 3, pieces=6, **options)
    assert found.relative_error < 0.035
    # A network that jumps at the seam with one weight less a neuron does not find as good a one.
    plain = fpc.NetworkDrift(line.elements.mesh, 3, 6, periodic=False)
    assert fpc.steer(line, drift=plain, **options).relative_error > 2.0 * found.relative_error
    ends = found.drift(0.4, np.array([[0.0], [1.0]]))
    assert ends[0, 0] == pytest.approx(ends[1, 0], abs=1e-12)
    assert np.abs(ends).max() > 0.05


def test_periods_that_are_refused():
    plain, mesh = cube(SELF, 2, 2), sheet(SELF, "x")
    for where, periodic, message in (
        (plain, True, "no periodic sides"),
        (plain, [1.0], "for each of the 2 axes"),
        (plain, [1.0, -2.0], "must be a positive length"),
        (plain, "xy", "must be a positive length"),
        (plain, [np.inf, None], "must be a positive length"),
        (mesh, [2.0, None], "must be multiples"),
    ):
        text = raised(ValueError, lambda m=where, p=periodic: fpc.NetworkDrift(m, periodic=p))
        assert message in text
    method = fpc.Galerkin(2)
    line = circle(SELF, method).reference
    text = raised(
        ValueError,
        lambda: fpc.TrackingProblem(line, fpc.NetworkDrift(line.elements.mesh, 3, 2), 0.0, 8),
    )
    assert "sigma = 0" in text and "not followed along characteristics" in text
