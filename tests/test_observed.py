"""Observables as objectives: their values, their derivatives, an optimization."""

from functools import partial

import numpy as np
import pytest
from problems import SELF, WORLD, bump, cube, raised

import fpcontrol as fpc
from fpcontrol.control.objectives import Observed
from fpcontrol.verification import difference_test, dot_test, taylor_test

seen = fpc.observables


def corner(x):
    return (x[0] > 0.6) & (x[1] > 0.4)


def left(x):
    return x[0] < 0.5


def curved(q):
    """Smooth, of two masses and a mean of two."""
    return np.exp(q[0] * q[1]) + np.sin(q[2:]).sum(), np.concatenate(
        [np.exp(q[0] * q[1]) * q[1::-1], np.cos(q[2:])]
    )


EVERY = (
    Observed(seen.mean(), target=[0.8, 0.3], running_weight=2.0, scale=[0.5, 0.7]),
    Observed(seen.covariance(), target=[[0.02, 0.01], [0.01, 0.03]], scale=0.05),
    Observed(seen.mass(corner), scale=-0.3),
    Observed(seen.energy(lambda x: (x**4).sum(axis=1)), lambda t: 0.1 + t, running_weight=1.0),
    Observed(
        [
            seen.mass(lambda x: x[0] < 0.5),
            seen.mass(corner),
            seen.expectation(lambda x: x[:2] ** 3),
        ],
        function=curved,
        running_weight=0.3,
    ),
)


def posed(comm=WORLD, *, method=None, n=4, sigma=0.8, steps=4, pieces=2, seed=3, **options):
    """One bump is to become another, of which the objectives know nothing."""
    mesh, method = cube(comm, 2, n), method or fpc.Galerkin(1)
    ends = (bump(mesh, method.degree, at) for at in (0.3, 0.7))
    reference = fpc.MoserFlow(*ends, 1.0, sigma, discretization=method)
    drift = fpc.NetworkDrift(mesh, 2, pieces, 1.0, seed=seed)
    options = {"running_weight": 0.0} | options
    return fpc.TrackingProblem(reference, drift, sigma, steps, **options)


METHODS = {
    "P1": {},
    "P2, SDIRK2": {"method": fpc.Galerkin(2), "scheme": fpc.SDIRK2()},
    "monotone": {"method": fpc.Monotone()},
    "exponential": {"method": fpc.Monotone(), "scheme": fpc.Exponential()},
    "limited": {"method": fpc.Limited(), "sigma": 0.1},
    "recomputed": {"snapshots": 1},
}


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("name", METHODS)
def test_derivative(name):
    p = posed(objectives=EVERY, **METHODS[name])
    weights = 2.0 * p.drift.weights
    taylor = taylor_test(p, weights)
    assert taylor.orders == pytest.approx(2.0, abs=0.03) and len(taylor.orders) >= 4
    assert difference_test(p, weights) < 1e-7
    assert dot_test(p, weights) < 1e-11


def test_each_derivative_by_itself():
    for one in EVERY:
        p = posed(SELF, objectives=(one,))
        assert difference_test(p, 2.0 * p.drift.weights) < 1e-7


@pytest.mark.parallel([2, 3])
@pytest.mark.parametrize("name", ["P2, SDIRK2", "monotone", "limited"])
def test_ranks_agree(name):
    make = partial(posed, objectives=EVERY, **METHODS[name])
    weights = make(SELF).drift.weights
    (value, dual), (alone, same) = (p.value_and_derivative(weights) for p in (make(), make(SELF)))
    assert value == pytest.approx(alone, rel=1e-9)
    assert np.abs(dual - same).max() < 1e-9 * np.abs(same).max()


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("name", ["P2, SDIRK2", "monotone"])
def test_values_are_those_of_the_observables_of_a_run(name):
    terms = EVERY[0], EVERY[2], EVERY[3]
    p = posed(objectives=terms, **METHODS[name])
    w = p.drift.weights
    equation = fpc.FokkerPlanck(
        p.drift.mesh,
        p.drift.with_weights(w),
        0.8,
        discretization=METHODS[name]["method"],
    )
    named = {"mean": seen.mean(), "mass": seen.mass(corner), "energy": terms[3 - 1].observable}
    run = equation.solve(p.reference.start, 1.0, 4, scheme=p.runs.scheme, observables=named)
    means, masses, energies = run.observables.values()
    squares = 0.5 * (((means - [0.8, 0.3]) / [0.5, 0.7]) ** 2).sum(axis=1)
    distances = 0.5 * (energies - 0.1 - run.all_times) ** 2
    over_time = np.array([0.5, 1.0, 1.0, 1.0, 0.5]) / 4.0
    expected = 2.0 * over_time @ squares + squares[-1] - masses[-1] / 0.3
    expected += over_time @ distances + distances[-1]
    assert p(w) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parallel([1, 2])
def test_walls_that_absorb():
    terms = (Observed(seen.mean(), target=0.5), Observed(seen.mass(None), target=0.4))
    mesh = cube(WORLD, 2, 4)
    uniform = fpc.density.uniform(mesh, 1)
    reference = fpc.MoserFlow(uniform, uniform, 1.0, 0.5)
    drift = fpc.NetworkDrift(mesh, 2, 2, 1.0, seed=3)
    walls = {"absorbing": lambda x: x[0] > 1.0 - 1e-9}
    p = fpc.TrackingProblem(reference, drift, 0.5, 4, running_weight=0.0, objectives=terms, **walls)
    assert p.absorbed(p.drift.weights)[-1].sum() > 0.1
    assert taylor_test(p, p.drift.weights).orders == pytest.approx(2.0, abs=0.03)
    assert difference_test(p, p.drift.weights) < 1e-7


def test_a_mean_and_a_spread_are_reached():
    where, spread = [0.65, 0.4], [[0.03, 0.0], [0.0, 0.03]]
    terms = (
        Observed(seen.mean(), target=where, scale=0.1),
        Observed(seen.covariance(), target=spread, scale=0.01),
    )
    method = fpc.Monotone()
    p = posed(SELF, method=method, n=8, sigma=0.5, steps=16, pieces=4, objectives=terms)
    assert p(p.drift.weights) > 1.0
    result = fpc.minimize(p, method="lmvm", max_iterations=60, progress=False)
    assert p(result.weights) < 1e-6
    end = result.trajectory[-1]
    equation = fpc.FokkerPlanck(p.drift.mesh, fpc.drift.zero(), 0.5, discretization=method)
    named = {"mean": seen.mean(), "covariance": seen.covariance()}
    still = equation.solve(end, 1e-9, 1, observables=named).observables
    assert still["mean"][0] == pytest.approx(where, abs=1e-4)
    assert still["covariance"][0] == pytest.approx(np.array(spread), abs=1e-4)


def test_bad_input_is_named():
    for words, make in {
        "derivative is not known": lambda: Observed(seen.distance(lambda t: None)),
        "observable is empty": lambda: Observed([]),
        "scale = 0": lambda: Observed(seen.mean(), scale=0.0),
        "terminal_weight = -1": lambda: Observed(seen.mean(), terminal_weight=-1.0),
        "both given": lambda: Observed(seen.mean(), target=1.0, function=curved),
        "not callable": lambda: Observed(seen.mean(), function=3),
        "target = [1. 2. 3.] at t = 1": lambda: posed(
            objectives=[Observed(seen.mean(), [1, 2, 3])]
        ),
        "scale = [1, 2, 3]": lambda: posed(objectives=[Observed(seen.mean(), scale=[1, 2, 3])]),
    }.items():
        assert words in raised(ValueError, make)
    p = posed(objectives=[Observed(seen.mean(), function=lambda q: (q.sum(), 1.0))])
    assert "slope of shape ()" in raised(ValueError, lambda: p(p.drift.weights))


class Above(seen.Integral):
    """Mass over a level, smoothly; with a slope or without."""

    def __init__(self, slope):
        self.slope = slope

    def integrals(self, g):
        rows = seen.mass(left).integrals(g).rows
        return seen.Linear(rows, lambda s: np.log1p(np.exp(s[0])), self.slope)


def test_an_integral_of_ones_own():
    p = posed(SELF, objectives=[Observed(Above(lambda s, dual: dual / (1.0 + np.exp(-s))))])
    assert difference_test(p, 2.0 * p.drift.weights) < 1e-7
    with pytest.raises(ValueError, match="give its Linear"):
        posed(SELF, objectives=[Observed(Above(None))])


def test_what_names_it_is_the_same_in_every_program():
    words = Observed([seen.mass(corner), seen.mean()], target=(0.1, 0.2, 0.3)).describe()
    assert words == (
        "Observed(Mass(tags=None, where=corner), Mean(), target=(0.1, 0.2, 0.3), "
        "running_weight=0.0, terminal_weight=1.0, scale=1.0, function=None)"
    )
