"""The bound on the speed of a network: kept, smooth, with exact derivatives."""

import numpy as np
import pytest
from problems import SELF, WORLD, bump, cube, raised

import fpcontrol as fpc
from fpcontrol.verification import difference_test, dot_test, taylor_test

SHAPES = pytest.mark.parametrize(("dim", "width"), [(1, 1), (2, 3), (3, 2)])
C = 0.7


def drifts(dim, width, activation="tanh", size=5.0, factor=8.0):
    """A network that is much faster than the bound in places, bounded and free."""
    mesh = cube(SELF, dim, 2, size)
    return [
        fpc.NetworkDrift(mesh, width, 2, activation=activation, seed=4, max_speed=c).with_weights(
            factor * fpc.NetworkDrift(mesh, width, 2, seed=4).weights
        )
        for c in (C, None)
    ]


def points(dim, n=30):
    return np.random.default_rng(5).uniform(0.0, 5.0, (n, dim))


@SHAPES
def test_speed_is_bounded_and_slow_drifts_are_as_they_were(dim, width):
    x = points(dim)
    bounded, free = drifts(dim, width)
    v, u = bounded(0.3, x), free(0.3, x)
    speed = np.linalg.norm(u, axis=1, keepdims=True)
    assert speed.max() > 3.0 * C
    assert v == pytest.approx(u / np.sqrt(1.0 + (speed / C) ** 2), rel=1e-13)
    fast = bounded.with_weights(1e9 * bounded.weights)(0.3, x)
    assert np.isfinite(fast).all() and np.linalg.norm(fast, axis=1).max() <= C * (1.0 + 1e-12)
    slow, as_it_was = (d.with_weights(1e-4 * d.weights)(0.3, x) for d in (bounded, free))
    assert slow == pytest.approx(as_it_was, rel=1e-5)


@SHAPES
def test_derivatives_are_those_of_differences_and_transposes(dim, width):
    bounded, _ = drifts(dim, width, "softplus")
    field, theta = bounded.field, bounded.weights_at(0.3)
    rng, x = np.random.default_rng(6), points(dim)
    dtheta, dx = rng.standard_normal(theta.shape), rng.standard_normal(x.shape)
    sv, sd = rng.standard_normal(x.shape), rng.standard_normal(len(x))

    def slope(f):
        h = 1e-3
        return (8.0 * (f(h) - f(-h)) - f(2.0 * h) + f(-2.0 * h)) / (12.0 * h)

    def close(a, b):
        return a == pytest.approx(b, rel=1e-6, abs=1e-7 * np.abs(b).max())

    dv = field.jvp(theta, x, dtheta)
    assert close(dv, slope(lambda h: field.values(theta + h * dtheta, x)))
    assert (sv * dv).sum() == pytest.approx(field.vjp(theta, x, sv) @ dtheta, rel=1e-12)
    axes = np.eye(dim)
    divergence = sum(
        slope(lambda h, i=i: field.values(theta, x + h * axes[i])[:, i]) for i in range(dim)
    )
    assert close(field.divergence(theta, x), divergence)
    dv, dd = field.flow_jvp(theta, x, dtheta, dx)
    assert close(dv, slope(lambda h: field.values(theta + h * dtheta, x + h * dx)))
    assert close(dd, slope(lambda h: field.divergence(theta + h * dtheta, x + h * dx)))
    dual_theta, dual_x = field.flow_vjp(theta, x, sv, sd)
    left = (sv * dv).sum() + sd @ dd
    assert left == pytest.approx(dual_theta @ dtheta + (dual_x * dx).sum(), rel=1e-11)


def test_unit_of_length_does_not_matter():
    x = points(2)
    one = fpc.NetworkDrift(cube(SELF, 2, 2, 5.0), 2, 2, seed=4, max_speed=C)
    km = fpc.NetworkDrift(cube(SELF, 2, 2, 500.0), 2, 2, seed=4, max_speed=100.0 * C)
    assert km(0.3, 100.0 * x) == pytest.approx(100.0 * one(0.3, x), rel=1e-12)
    assert km.divergence(0.3, 100.0 * x) == pytest.approx(one.divergence(0.3, x), rel=1e-10)


def tracking(comm=WORLD, sigma=0.8, method=None, max_speed=C):
    mesh = cube(comm, 2, 4)
    method = method or fpc.Galerkin(1)
    start, goal = bump(mesh, 1, 0.3), bump(mesh, 1, 0.7)
    reference = fpc.MoserFlow(start, goal, 1.0, sigma, discretization=method)
    drift = fpc.NetworkDrift(mesh, 2, 2, seed=3, max_speed=max_speed)
    return fpc.TrackingProblem(reference, drift, sigma, 8)


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("case", ["galerkin", "monotone", "no noise"])
def test_derivative_of_a_problem(case):
    method = fpc.Monotone() if case == "monotone" else None
    problem = tracking(sigma=0.0 if case == "no noise" else 0.8, method=method)
    weights = 6.0 * problem.drift.weights
    speeds = np.linalg.norm(problem.drift.with_weights(weights)(0.3, points(2) / 5.0), axis=1)
    assert speeds.max() > 0.5 * C
    test = taylor_test(problem, weights)
    # Without noise markers cross faces of the mesh, where the reference has a kink.
    assert test.orders.min() > (1.9 if case == "no noise" else 1.99)
    assert test.relative_remainder < 1e-6
    assert dot_test(problem, weights) < 1e-11
    if case != "no noise":
        assert difference_test(problem, weights) < 1e-7


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("max_speed", [0.0, -1.0, np.nan, np.inf, "fast", True])
def test_what_is_no_speed_is_refused(max_speed):
    mesh = cube(WORLD, 1, 3)
    words = raised(ValueError, lambda: fpc.NetworkDrift(mesh, 1, max_speed=max_speed))
    assert f"max_speed = {max_speed!r} must be a positive speed" in words


def test_results_belong_to_their_bound(tmp_path):
    found = fpc.minimize(tracking(SELF), max_iterations=2, progress=False)
    fpc.io.save(found, tmp_path / "found.npz")
    assert fpc.io.record(found)["problem"]["max_speed"] == C
    back = fpc.io.load(tmp_path / "found.npz", tracking(SELF))
    assert back.relative_error == pytest.approx(found.relative_error, rel=1e-9)
    for other in (None, 2.0 * C):
        with pytest.raises(ValueError, match=r"max_speed = 0\.7 there"):
            fpc.io.load(tmp_path / "found.npz", tracking(SELF, max_speed=other))
