"""What plugs into the control: fields of a user, weights linear in time, other objectives."""

import inspect
from functools import partial

import numpy as np
import pytest
from problems import SELF, WORLD, bump, cube, raised, tracking

import fpcontrol as fpc
from fpcontrol.control.objectives import FinalKL, KineticEnergy, L2Tracking, Setting
from fpcontrol.verification import difference_test, dot_test, taylor_test


class Waves(fpc.SmoothField):
    r"""Modes :math:`v = \sum_k (\alpha_k \sin(k\cdot x + p_k))_i` with amplitudes as weights."""

    def __init__(self, dim: int, modes: int) -> None:
        k = np.arange(1, modes + 1)
        self.k = np.stack([np.pi * k * 0.9**i for i in range(dim)], axis=1)  # (modes, d)
        self.phase, self.dim, self.size = 0.3 * k, dim, modes * dim

    def values(self, theta, x):
        return np.sin(x @ self.k.T + self.phase) @ theta.reshape(-1, self.dim)

    def jvp(self, theta, x, dtheta):
        return self.values(dtheta, x)

    def vjp(self, theta, x, s):
        return (np.sin(x @ self.k.T + self.phase).T @ s).ravel()

    def divergence(self, theta, x):
        return np.cos(x @ self.k.T + self.phase) @ (theta.reshape(-1, self.dim) * self.k).sum(1)

    def flow_jvp(self, theta, x, dtheta, dx):
        y, a = x @ self.k.T + self.phase, theta.reshape(-1, self.dim)
        dy, c = dx @ self.k.T, (a * self.k).sum(1)
        dv = self.values(dtheta, x) + (np.cos(y) * dy) @ a
        return dv, self.divergence(dtheta, x) - (np.sin(y) * dy) @ c

    def flow_vjp(self, theta, x, sv, sd):
        y, a = x @ self.k.T + self.phase, theta.reshape(-1, self.dim)
        c = (a * self.k).sum(1)
        dual = np.sin(y).T @ sv + (np.cos(y).T @ sd)[:, None] * self.k
        return dual.ravel(), (np.cos(y) * (sv @ a.T) - np.sin(y) * np.outer(sd, c)) @ self.k


def problem(comm=WORLD, dim=2, *, time=None, sigma=0.7, steps=8, seed=5, modes=3, **options):
    """Waves that are to turn one bump into another."""
    mesh = cube(comm, dim, 4)
    reference = fpc.MoserFlow(bump(mesh, 1, 0.3), bump(mesh, 1, 0.7), 1.0, sigma)
    time = time or fpc.PiecewiseConstant(pieces=4)
    field = Waves(dim, modes)
    weights = 0.2 * np.random.default_rng(seed).standard_normal(time.blocks * field.size)
    drift = fpc.ParametricDrift(mesh, field, time, weights)
    return fpc.TrackingProblem(reference, drift, sigma, steps, **options)


class Line:
    """A smooth reference by a formula, which sigma = 0 needs for smooth differences."""

    t1 = 1.0

    def at(self, t, x, cells=None):
        k = np.pi
        value = 1.0 + 0.5 * t * np.cos(k * x).prod(axis=1)
        slope = np.empty_like(x)
        for i in range(x.shape[1]):
            others = np.delete(np.cos(k * x), i, axis=1).prod(axis=1)
            slope[:, i] = -0.5 * t * k * np.sin(k * x[:, i]) * others
        return value, slope, cells


def noiseless():
    """Waves along characteristics."""
    field = Waves(2, 3)
    weights = 0.2 * np.random.default_rng(5).standard_normal(4 * field.size)
    mesh = cube(WORLD, 2, 4)
    drift = fpc.ParametricDrift(mesh, field, fpc.PiecewiseConstant(4), weights)
    return fpc.TrackingProblem(Line(), drift, 0.0, 16)


TERMS = {
    "kl": (FinalKL(0.7),),
    "energy": (KineticEnergy(0.3),),
    "both": (FinalKL(0.5), KineticEnergy(0.1)),
    "more tracking": (L2Tracking(0.4, 0.6),),
}
PROBLEMS = {
    "waves": problem,
    "waves, 1-D": partial(problem, dim=1),
    "waves, linear in time": partial(problem, time=fpc.PiecewiseLinear(pieces=4)),
    "waves, linear in time, SDIRK4": partial(
        problem, time=fpc.PiecewiseLinear(pieces=2), scheme=fpc.SDIRK4(), steps=4
    ),
    "waves, linear in time, recomputed": partial(
        problem, time=fpc.PiecewiseLinear(pieces=4), snapshots=2
    ),
    "waves, sigma = 0": noiseless,
}  # plain networks are in test_gradient.py
for _name, _terms in TERMS.items():
    PROBLEMS[f"network, {_name}"] = partial(tracking, objectives=_terms)
    PROBLEMS[f"network, {_name}, SDIRK2"] = partial(
        tracking, degree=2, scheme=fpc.SDIRK2(), objectives=_terms
    )
PROBLEMS["network, both, recomputed"] = partial(tracking, snapshots=1, objectives=TERMS["both"])
PROBLEMS["waves, linear in time, both"] = partial(
    problem, time=fpc.PiecewiseLinear(pieces=4), objectives=TERMS["both"]
)


@pytest.mark.parallel([1, 2, 3])
@pytest.mark.parametrize("name", PROBLEMS)
def test_derivative(name):
    p = PROBLEMS[name]()
    weights = p.drift.weights
    taylor = taylor_test(p, weights)
    # The weights of SDIRK4, up to 12, multiply the round-off that the smallest remainders feel.
    assert taylor.orders == pytest.approx(2.0, abs=0.05 if "SDIRK4" in name else 0.01)
    assert len(taylor.orders) >= 4
    assert difference_test(p, weights) < 1e-7
    assert dot_test(p, weights) < 1e-11


@pytest.mark.parallel([2, 3])
@pytest.mark.parametrize("name", ["waves, linear in time", "network, both"])
def test_ranks_agree(name):
    value, dual = PROBLEMS[name]().value_and_derivative(PROBLEMS[name](SELF).drift.weights)
    alone, same = PROBLEMS[name](SELF).value_and_derivative(PROBLEMS[name](SELF).drift.weights)
    assert value == pytest.approx(alone, rel=1e-9)
    assert np.abs(dual - same).max() < 1e-9 * np.abs(same).max()


def test_energy_of_a_uniform_drift_on_a_uniform_density():
    # A still density under a constant drift would pile up: one step, started from it, knows both.
    mesh = cube(SELF, 1, 4)
    uniform = fpc.density.uniform(mesh, 1)
    reference = fpc.MoserFlow(uniform, uniform, 1.0, 1.0)

    class Constant(fpc.ParametricField):
        size = 1

        def values(self, theta, x):
            return np.full_like(x, theta[0])

        def jvp(self, theta, x, dtheta):
            return np.full_like(x, dtheta[0])

        def vjp(self, theta, x, s):
            return np.array([s.sum()])

    drift = fpc.ParametricDrift(mesh, Constant(), fpc.PiecewiseConstant(2))
    values = [
        fpc.TrackingProblem(reference, drift, 1.0, 4, running_weight=0.0, objectives=terms)(
            np.array([3.0, 1.0])
        )
        for terms in ((), (KineticEnergy(2.0),))
    ]
    # The mass is 1, so the energy is the mean of v**2 / 2 over time; s = 1/2.
    assert values[1] - values[0] == pytest.approx(2.0 * 4.0 * 0.5 * (9.0 + 1.0) / 2.0, rel=1e-12)


def test_final_kl_is_the_distance_at_the_end():
    p = tracking(SELF, running_weight=0.0, objectives=(FinalKL(3.0),))
    weights = p.drift.weights
    end = p.trajectory(weights)[-1]
    expected = 3.0 * fpc.distances.kl(end, p.reference.goal, quadrature_degree=2)
    assert p(weights) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parallel([1, 2])
def test_final_kl_refuses_a_negative_density():
    p = tracking()
    setting = Setting(p.reference.system, p.reference, p.times, 0.5)
    cost, rho = FinalKL().on(setting), p.reference.goal.x.array - 2.0
    words = raised(ArithmeticError, lambda: cost.level(len(p.times) - 1, rho))
    assert "density at t = 1 is not positive" in words and "floor" in words
    assert cost.level(0, rho) == 0.0


def test_energy_lowers_the_speed():
    free, held = (tracking(SELF, n=6, objectives=t) for t in ((), (KineticEnergy(0.05),)))
    speeds = []
    for p in (free, held):
        result = fpc.minimize(p, max_iterations=30, progress=False)
        drift, x = p.drift.with_weights(result.weights), p.elements.points
        speeds.append(max(np.abs(drift(t, x)).max() for t in (0.25, 0.75)))
    assert speeds[1] < 0.9 * speeds[0]


def test_optimization_of_waves_linear_in_time():
    p = problem(SELF, time=fpc.PiecewiseLinear(pieces=2), modes=2, steps=8)
    result = fpc.minimize(p, max_iterations=40, progress=False)
    still = p.errors(np.zeros_like(result.weights)).relative_error
    assert result.relative_error < 0.97 * still


def test_linear_weights_are_continuous_and_constant_ones_are_not():
    linear, constant = fpc.PiecewiseLinear(4, 2.0), fpc.PiecewiseConstant(4, 2.0)
    assert linear.blocks == 5 and constant.blocks == 4
    blocks = np.arange(5.0)[:, None]
    assert [float(linear.mixed(blocks, linear.terms(t))[0]) for t in (0.0, 0.25, 1.1, 2.0)] == (
        pytest.approx([0.0, 0.5, 2.2, 4.0])
    )
    assert constant.terms(0.49) == ((0, 1.0),) and constant.terms(2.0) == ((3, 1.0),)
    with pytest.raises(ValueError, match=r"t = 2\.1 is outside \[0, t1 = 2\]"):
        linear.terms(2.1)


@pytest.mark.parallel([1, 2])
def test_bad_input_is_named():
    mesh = cube(WORLD, 2, 3)
    field = Waves(2, 2)
    assert "no ParametricField" in raised(ValueError, lambda: fpc.ParametricDrift(mesh, np.sin))
    assert "pieces = 0" in raised(ValueError, lambda: fpc.PiecewiseLinear(0))
    words = raised(
        ValueError,
        lambda: fpc.ParametricDrift(mesh, field, fpc.PiecewiseLinear(3), np.zeros(12)),
    )
    assert "12 entries; 16 are needed (4 blocks" in words
    assert "no Objective" in raised(ValueError, lambda: tracking(objectives=("energy",)))
    words = raised(ValueError, lambda: tracking(sigma=0.0, objectives=(KineticEnergy(),)))
    assert "KineticEnergy(weight=1.0)" in words and "sigma = 0" in words
    assert "weight = -1" in raised(ValueError, lambda: FinalKL(-1))
    words = raised(
        ValueError, lambda: problem(sigma=0.0, steps=16, time=fpc.PiecewiseLinear(pieces=4))
    )
    assert "PiecewiseLinear" in words and "PiecewiseConstant" in words


# -- options of a problem --------------------------------------------------------------------------


def test_options_are_in_the_signature():
    names = inspect.signature(fpc.TrackingProblem).parameters
    assert {"scheme", "memory", "disk", "snapshots", "markers", "layer"} <= set(names)


@pytest.mark.parametrize(
    ("sigma", "option", "message"),
    [
        (0.5, {"layer": 0.1}, "layer = 0.1 is no option of a problem with sigma > 0; .*'memory'"),
        (0.0, {"memory": 1.0}, "memory = 1.0 is no option of a problem with sigma = 0; .*'layer'"),
        (0.5, {"shceme": None}, "shceme = None is no option of a problem with sigma > 0"),
    ],
)
def test_options_of_the_other_kind_are_refused(sigma, option, message):
    mesh = cube(SELF, 1, 4)
    reference = fpc.MoserFlow(*2 * [fpc.density.uniform(mesh)], 1.0, sigma)
    drift = fpc.NetworkDrift(mesh, 2, 1)
    with pytest.raises(ValueError, match=message):
        fpc.TrackingProblem(reference, drift, sigma, 4, **option)
