"""Entropy, and flux through absorbing walls, as objectives."""

import numpy as np
import pytest
from problems import SELF, WORLD, raised
from test_absorbing_control import low
from test_observed import posed

import fpcontrol as fpc
from fpcontrol.control.objectives import Observed
from fpcontrol.verification import difference_test, dot_test, taylor_test

seen = fpc.observables

ENTROPY = (
    Observed(seen.entropy(), target=-0.6, running_weight=1.0),
    Observed(
        [seen.entropy(), seen.mass(low)],
        function=lambda q: (np.sin(q[0]) * (1.0 + q[1]), np.array([np.cos(q[0]), np.sin(q[0])])),
    ),
)
FLUX = (Observed(seen.flux(low), target=0.3, running_weight=1.0, terminal_weight=0.5),)
CASES = {
    "entropy": {"objectives": ENTROPY, "method": fpc.Galerkin(2), "scheme": fpc.SDIRK2()},
    "entropy, monotone": {"objectives": ENTROPY, "method": fpc.Monotone()},
    "entropy, limited": {"objectives": ENTROPY, "method": fpc.Limited(), "sigma": 0.4},
    "entropy, absorbing": {"objectives": ENTROPY, "method": fpc.Monotone(), "absorbing": low},
    "entropy, recomputed": {"objectives": ENTROPY, "snapshots": 1},
    "flux": {"objectives": FLUX, "method": fpc.Galerkin(2), "absorbing": low},
    "flux, noise in time": {
        "objectives": FLUX,
        "sigma": lambda t: 0.8 - 0.3 * t,
        "absorbing": low,
    },
    "flux, noise by place": {
        "objectives": FLUX,
        "sigma": lambda x: 0.6 + 0.2 * x[:, 1],
        "absorbing": low,
    },
    "flux, entering again": {
        "objectives": FLUX,
        "method": fpc.Limited(),
        "absorbing": low,
        "reentry": lambda x: np.exp(-9.0 * ((x - 0.6) ** 2).sum(axis=1)),
    },
}


@pytest.mark.parallel([1, 2, 3])
@pytest.mark.parametrize("name", CASES)
def test_derivative(name):
    p = posed(**CASES[name])
    weights = 2.0 * p.drift.weights
    taylor = taylor_test(p, weights)
    assert taylor.orders == pytest.approx(2.0, abs=0.03) and len(taylor.orders) >= 4
    assert difference_test(p, weights) < 1e-7
    assert dot_test(p, weights) < 1e-11
    if WORLD.size > 1:
        alone = posed(SELF, **CASES[name])
        assert p(weights) == pytest.approx(alone(weights), rel=1e-8)
        ours, theirs = p.derivative(weights), alone.derivative(weights)
        assert np.abs(ours - theirs).max() < 1e-7 * np.abs(theirs).max()


def of_runs(p, **observables):
    """What a run of the drift found has of some observables, by the equation itself."""
    weights = 2.0 * p.drift.weights
    method = p.reference.system.discretization
    options = {"absorbing": low} if p.tags else {}
    equation = fpc.FokkerPlanck(
        p.drift.mesh, p.drift.with_weights(weights), 0.8, discretization=method, **options
    )
    run = equation.solve(
        p.reference.start, 1.0, p.steps, scheme=p.runs.scheme, observables=observables
    )
    return weights, run


def test_values_are_those_of_the_observables():
    objective = Observed(seen.entropy(), running_weight=0.7, terminal_weight=0.4)
    p = posed(SELF, method=fpc.Galerkin(2), objectives=[objective])
    weights, run = of_runs(p, s=seen.entropy())
    s = run.observables["s"]
    assert p(weights) == pytest.approx(0.7 * np.trapezoid(s, run.times) + 0.4 * s[-1], rel=1e-12)


def test_flux_over_time_is_what_is_absorbed():
    objective = Observed(seen.flux(low), running_weight=1.0, terminal_weight=0.0)
    p = posed(SELF, n=8, steps=40, method=fpc.Galerkin(3), objectives=[objective], absorbing=low)
    weights, run = of_runs(p, f=seen.flux(low))
    flux = run.observables["f"]
    assert p(weights) == pytest.approx(np.trapezoid(flux, run.times), rel=1e-10)
    # The start does not vanish there: at first the flux is not finite.
    taken = run.absorbed[-1, 0] - run.absorbed[10, 0]
    assert taken > 0.1
    assert np.trapezoid(flux[10:], run.times[10:]) == pytest.approx(taken, rel=0.02)


def test_an_optimizer_makes_the_entropy_what_it_should_be():
    target = -0.25
    p = posed(
        SELF,
        method=fpc.Limited(),
        pieces=4,
        steps=16,
        objectives=[Observed(seen.entropy(), target=target, scale=0.1)],
    )
    assert p(p.drift.weights) > 0.1
    result = fpc.minimize(p, max_iterations=30, progress=False)
    _, run = of_runs(posed(SELF, method=fpc.Limited(), pieces=4, steps=16), s=seen.entropy())
    end, g = result.trajectory[-1], p.elements
    values, w = g.evaluate(end.x.array).ravel(), g.quadrature_weights
    assert -(w @ (values * np.log(values))) == pytest.approx(target, abs=2e-3)
    assert abs(run.observables["s"][-1] - target) > 0.02


@pytest.mark.parallel([1, 2])
def test_what_is_refused():
    words = "lie on facets that do not absorb"
    assert words in raised(ValueError, lambda: posed(objectives=FLUX))
    right = Observed(seen.flux(lambda x: x[0] > 1.0 - 1e-9))
    assert words in raised(ValueError, lambda: posed(objectives=[right], absorbing=low))
    # A density with a hole: nothing is to be had of its logarithm.
    q, entropy = posed(), Observed(seen.entropy(), running_weight=1.0)
    hole = fpc.density.interpolate(q.drift.mesh, lambda x: 1.0 * (x[0] > 0.6), degree=1)
    p = fpc.TrackingProblem(q.reference, q.drift, 0.8, 4, start=hole, objectives=[entropy])
    message = raised(ArithmeticError, lambda: p(p.drift.weights))
    assert "density at t = 0 is not positive" in message and "fpc.Limited()" in message
