"""Noising processes as values, their transitions, and the drifts that reverse them."""

import math
import re

import numpy as np
import pytest
from problems import SELF, WORLD
from scipy.integrate import quad

import fpcontrol as fpc
from fpcontrol.characteristics.flow import Markers, carry
from fpcontrol.noising import (
    GaussianMixture,
    Graded,
    HeatFlow,
    OrnsteinUhlenbeck,
    PinnedBrownian,
    VarianceExploding,
    VariancePreserving,
)

PROCESSES = [
    OrnsteinUhlenbeck(t1=3.0),
    OrnsteinUhlenbeck(t1=2.0, r=0.7, g=1.5),
    VariancePreserving((0.1, 8.0)),
    VariancePreserving(lambda t: 1.0 + t**2, t1=2.0),
    VarianceExploding(2.0, t1=3.0),
    VarianceExploding(lambda t: math.exp(t), t1=2.0),
    PinnedBrownian(0.99),
]


def words(process) -> str:
    """What it is, the same in every process: functions without where they are."""
    return re.sub(r" at 0x\w+", "", str(process))


LINE = GaussianMixture([-1.2, 1.0], [0.08, 0.15], [0.6, 0.4])
PLANE = GaussianMixture(
    [[-0.8, 0.0], [0.7, 0.5]], [[[0.2, 0.05], [0.05, 0.1]], [[0.1, 0.0], [0.0, 0.3]]], [0.3, 0.7]
)


@pytest.mark.parametrize("data", [LINE, PLANE], ids=["line", "plane"])
def test_mixture_agrees_with_its_derivatives_and_its_samples(data):
    x = np.random.default_rng(0).uniform(-2.0, 2.0, (50, data.dimension))
    h = 1e-5
    steps = h * np.eye(data.dimension)
    slope = [(data.log_density(x + e) - data.log_density(x - e)) / (2 * h) for e in steps]
    assert data.score(x) == pytest.approx(np.column_stack(slope), rel=1e-7, abs=1e-7)
    curved = sum((data.score(x + e) - data.score(x - e)) @ e / (2 * h * h) for e in steps)
    assert data.score_divergence(x) == pytest.approx(curved, rel=1e-7, abs=1e-7)
    drawn = data.sample(200_000, seed=1)
    mean = data.weights @ data.means
    second = np.einsum("k,kij->ij", data.weights, data.covariances)
    second += np.einsum("k,ki,kj->ij", data.weights, data.means, data.means)
    assert drawn.mean(axis=0) == pytest.approx(mean, abs=0.01)
    assert drawn.T @ drawn / len(drawn) == pytest.approx(second, abs=0.02)
    if data is LINE:
        assert quad(lambda y: data(np.array([[y]]))[0], -6.0, 6.0)[0] == pytest.approx(1.0)


@pytest.mark.parametrize("process", PROCESSES, ids=words)
def test_transitions_solve_their_equations(process):
    h = 1e-5 * process.t1
    assert (process.scale(0.0), process.variance(0.0)) == (1.0, 0.0)
    for t in np.linspace(0.05, 0.95, 7) * process.t1:
        a, g = process.rate(t), process.sigma(t)
        scale = (process.scale(t + h) - process.scale(t - h)) / (2 * h)
        variance = (process.variance(t + h) - process.variance(t - h)) / (2 * h)
        pace = (process.age(t + h) - process.age(t - h)) / (2 * h)
        assert scale == pytest.approx(a * process.scale(t), rel=1e-6, abs=1e-9)
        assert variance == pytest.approx(2 * a * process.variance(t) + g**2, rel=1e-6, abs=1e-7)
        assert process.pace(t) == pytest.approx(pace, rel=1e-6)
        assert process.time(process.age(t)) == pytest.approx(t, rel=1e-10)


@pytest.mark.parametrize(
    "process", [*PROCESSES, HeatFlow(fpc.mesh.interval(SELF, 3), 0.2)], ids=words
)
def test_clock_goes_from_noise_to_data_at_its_rate(process):
    clock = Graded(process, t0=0.01 * process.t1)
    assert clock.time(0.0) == 0.0
    assert clock.time(1.0) == pytest.approx(0.99 * process.t1, rel=1e-12)
    for u in (0.1, 0.5, 0.9):
        slope = (clock.time(u + 1e-6) - clock.time(u - 1e-6)) / 2e-6
        assert clock.rate(u) == pytest.approx(slope, rel=1e-5)
    paces = [clock.rate(u) * process.pace(clock.noising_time(u)) for u in (0.0, 0.5, 1.0)]
    assert paces[0] > 2.0 * paces[1] > 4.0 * paces[2]  # in the age, finer towards the data


@pytest.mark.parametrize("process", PROCESSES, ids=words)
def test_densities_of_noised_data_solve_the_equation(process):
    p, x, h = process.of(LINE), np.linspace(-2.5, 2.5, 41)[:, None], 1e-4
    t = 0.3 * process.t1
    up, down = p.density(t + h)(x), p.density(t - h)(x)

    def flux(y):
        return (
            p.density(t)(y)
            * (process.drift(t, y) - 0.5 * process.sigma(t) ** 2 * p.score(t, y))[:, 0]
        )

    change = (up - down) / (2 * h)
    assert change == pytest.approx(-(flux(x + h) - flux(x - h)) / (2 * h), abs=1e-5)
    assert np.abs(change).max() > 0.01


# -- reversal --------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [1.0, 0.5])
@pytest.mark.parametrize("process", PROCESSES[:3] + PROCESSES[4:], ids=words)
def test_reversed_sde_comes_back_to_the_data(process, noise):
    p = process.of(LINE)
    width = 4.5 if process.scale(process.t1) < 1.0 else 13.0
    mesh = fpc.mesh.interval(SELF, 160, -width, width)
    drift = process.reverse(p, noise).graded()
    start = fpc.density.interpolate(mesh, lambda x: p.density(process.t1)(x[:1].T))
    run = fpc.FokkerPlanck(mesh, drift, drift.sigma).solve(start, 1.0, 100, save="last")
    goal = fpc.density.interpolate(mesh, lambda x: LINE(x[:1].T))
    assert fpc.distances.l2(run[-1], goal) < 0.01
    assert fpc.distances.l2(start, goal) > 0.3


@pytest.mark.parametrize("process", PROCESSES, ids=words)
def test_reversed_ode_comes_back_to_the_data(process):
    p = process.of(LINE)
    markers = Markers.on_interval(SELF, 80, p.density(process.t1), -4.5, 4.5)
    flow = carry(
        markers, process.reverse(p, 0.0), [0.0, process.t1], rtol=1e-8, atol=1e-8, walls=False
    )
    error = flow.density[-1] - LINE(flow.positions[-1])
    assert np.abs(error).max() < 1e-5


def test_pinned_brownian_motion_is_ornstein_uhlenbeck_in_other_variables():
    pinned, ou = PinnedBrownian(0.99).of(PLANE), OrnsteinUhlenbeck(5.0, g=math.sqrt(2.0)).of(PLANE)
    z, t = np.random.default_rng(0).normal(size=(20, 2)), 0.7
    s = -0.5 * math.log(1.0 - t)
    root = math.sqrt(1.0 - t)
    assert pinned.density(t)(z) == pytest.approx(ou.density(s)(z / root) / root**2, rel=1e-12)
    foellmer = pinned.process.reverse(pinned)(pinned.process.t1 - t, z)
    assert foellmer == pytest.approx(z / (1.0 - t) + ou.score(s, z / root) / root, rel=1e-10)


def test_reversal_hands_on_divergence_and_derivatives_in_weights():
    process = VariancePreserving((0.1, 8.0))
    weight = np.array([0.7])

    class Model:
        def values(self, t, x):
            return weight[0] * np.sin(x)

        def vjp(self, t, x, s):
            return np.array([(s * np.sin(x)).sum()])

    x, s = np.random.default_rng(0).normal(size=(2, 9, 2))
    drift, h = process.reverse(Model(), 0.4), 1e-6
    assert drift.divergence is None
    slope = drift.vjp(0.3, x, s)
    one = (s * drift(0.3, x)).sum()
    weight[0] += h
    assert slope == pytest.approx([((s * drift(0.3, x)).sum() - one) / h], rel=1e-6)
    exact, e = process.reverse(process.of(PLANE), 0.4).graded(), 1e-5 * np.eye(2)
    differences = sum((exact(0.6, x + a) - exact(0.6, x - a)) @ a / 2e-10 for a in e)
    assert exact.divergence(0.6, x) == pytest.approx(differences, rel=1e-6)


@pytest.mark.parallel([1, 2, 3])
@pytest.mark.parametrize("noise", [1.0, 0.3])
@pytest.mark.parametrize("kind", ["walls", "affine", "monotone"])
def test_reversal_on_a_mesh_passes_through_the_same_levels(kind, noise):
    mesh = fpc.mesh.rectangle(WORLD, (9, 7), (-1.0, -1.0), (1.0, 0.5))
    method = fpc.Limited() if kind == "monotone" else None
    data = fpc.density.interpolate(
        mesh,
        lambda x: 0.2 + np.exp(-8.0 * (x[0] - 0.3) ** 2 - 3.0 * x[1] ** 2),
        discretization=method,
    )
    process = OrnsteinUhlenbeck(1.0, g=0.5) if kind == "affine" else HeatFlow(mesh, 0.2, t1=2.0)
    p = process.of(data, steps=20)
    drift = process.reverse(p, noise).graded()
    equation = fpc.FokkerPlanck(mesh, drift, drift.sigma, discretization=method)
    run = equation.solve(p.density(process.t1), 1.0, 20)
    away = fpc.distances.l2(run[0], data)
    for n in (7, 20):
        exact = p.density(process.t1 - drift.clock.time(n / 20))
        assert fpc.distances.l2(run[n], exact) < 1e-8 * away
    assert away > 0.1


@pytest.mark.parallel([1, 2])
def test_noised_on_a_mesh_is_the_noised_mixture():
    mesh = fpc.mesh.interval(WORLD, 120, -4.0, 4.0)
    data = fpc.density.interpolate(mesh, lambda x: LINE(x[:1].T))
    process = OrnsteinUhlenbeck(3.0)
    p, exact = process.of(data, steps=100), process.of(LINE)
    for t in (0.02, 0.4, 3.0):
        density = fpc.density.interpolate(mesh, lambda x, t=t: exact.density(t)(x[:1].T))
        assert fpc.distances.l2(p.density(t), density) < 2e-3
    own = mesh.geometry.x[mesh.geometry.dofmaps[0][0], :1].mean(axis=0, keepdims=True)
    if abs(own[0, 0]) < 2.5:
        assert p.values(0.4, own) == pytest.approx(exact.score(0.4, own), rel=0.02)


# -- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OrnsteinUhlenbeck(t1=-1.0), "t1"),
        (lambda: PinnedBrownian(1.0), "below 1"),
        (lambda: VariancePreserving((1.0, -2.0)), "positive"),
        (lambda: VarianceExploding("fast"), "number, a pair"),
        (lambda: HeatFlow(fpc.mesh.interval(SELF, 3), D=0.0), "D = 0"),
        (lambda: OrnsteinUhlenbeck().reverse(3.0), "score"),
        (lambda: OrnsteinUhlenbeck().reverse(lambda t, x: x, -1.0), "noise"),
        (lambda: OrnsteinUhlenbeck().of(3.0), "GaussianMixture"),
        (lambda: Graded(OrnsteinUhlenbeck(), t0=20.0), "t0"),
        (lambda: GaussianMixture([0.0, 1.0], [1.0, -1.0]), "positive definite"),
        (lambda: GaussianMixture([0.0], 1.0, [0.0]), "weights"),
        (lambda: LINE(np.zeros(3)), "shape"),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_score_of_a_mesh_is_refused_where_it_is_not_known():
    mesh = fpc.mesh.interval(SELF, 10)
    p = HeatFlow(mesh, 0.1, t1=1.0).of(fpc.density.uniform(mesh), steps=2)
    with pytest.raises(ValueError, match="no cell of this rank"):
        p.values(0.1, np.array([[1.5]]))
    with pytest.raises(ValueError, match="outside"):
        p.density(2.0)
    with pytest.raises(ValueError, match="lives on a mesh"):
        carry(
            Markers.on_interval(SELF, 4, lambda x: np.ones(len(x))),
            p.process.reverse(p, 0.0),
            [0, 1],
        )
    bare = fpc.density.interpolate(mesh, lambda x: np.where(x[0] < 0.5, 1.0, 0.0), degree=1)
    p = HeatFlow(mesh, 0.1, t1=1.0).of(bare, steps=2)
    with pytest.raises(ValueError, match="not positive"):
        p.values(0.0, np.array([[0.9]]))
