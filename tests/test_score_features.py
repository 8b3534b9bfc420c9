"""Scores linear in random features, and the one process that two bridges are."""

import math

import numpy as np
import pytest
from problems import SELF

import fpcontrol as fpc
from fpcontrol.noising import GaussianMixture, OrnsteinUhlenbeck, PinnedBrownian
from fpcontrol.score import RandomFeatures, compare

FIRST, LAST = 0.004, 2.5
OU = OrnsteinUhlenbeck(t1=LAST, g=math.sqrt(2.0))
PINNED = PinnedBrownian(t1=-math.expm1(-2.0 * LAST))
LINE = GaussianMixture([-1.0, 0.8], [0.1, 0.15], [0.4, 0.6])
PLANE = GaussianMixture([[-1.0, 0.3], [0.8, 0.0]], [0.1, 0.15], [0.4, 0.6])
FORMS = ("plain", "centred", "damped", "pinned")


@pytest.mark.parallel(1)
@pytest.mark.parametrize("s", [0.01, 0.3, 2.0])
def test_bridges_are_one_process_in_other_variables(s):
    x = np.random.default_rng(0).normal(size=(20, 2))
    kappa = math.exp(-s)
    v = OU.reverse(OU.of(PLANE))(LAST - s, x)
    t = PINNED.time(s)
    u = PINNED.reverse(PINNED.of(PLANE))(PINNED.t1 - t, kappa * x)
    # z = kappa x grows by itself and with x, while 2 kappa**2 of the bridge's time goes by.
    assert u == pytest.approx((x + v) / (2.0 * kappa), rel=1e-9, abs=1e-9)


@pytest.mark.parallel(1)
def test_pinned_form_is_the_foellmer_drift():
    model = RandomFeatures.fit(PINNED, PLANE, 20, form="pinned", t0=0.01, times=8)
    z = np.random.default_rng(0).normal(size=(20, 2))
    t = 0.4
    kinks = z @ model.slopes.T - model.offsets
    low, high = model.ends
    label = 0.5 * math.log((t + model.floor) / (1.0 - t))
    kinks += 3.0 * (2.0 * (label - low) / (high - low) - 1.0) * model.tilts
    expected = np.maximum(kinks, 0.0) @ model.weights
    assert np.abs(expected).max() > 0.1
    drift = PINNED.reverse(model)
    assert drift(PINNED.t1 - t, z) == pytest.approx(expected, rel=1e-10, abs=1e-10)


@pytest.mark.parallel(1)
@pytest.mark.parametrize("form", FORMS)
def test_derivatives(form):
    model = RandomFeatures.fit(OU, PLANE, 30, form=form, t0=FIRST, times=8)
    x, s, h = *np.random.default_rng(1).normal(size=(2, 25, 2)), 1e-6
    steps = h * np.eye(2)
    slopes = sum(
        (model.values(0.3, x + e) - model.values(0.3, x - e))[:, i] for i, e in enumerate(steps)
    )
    assert model.divergence(0.3, x) == pytest.approx(slopes / (2.0 * h), rel=1e-5, abs=1e-5)
    zero = RandomFeatures(**(vars(model) | {"weights": 0.0 * model.weights}))
    linear = (s * (model.values(0.3, x) - zero.values(0.3, x))).sum()
    assert model.vjp(0.3, x, s) @ model.weights.ravel() == pytest.approx(linear, rel=1e-11)


@pytest.mark.parallel(1)
@pytest.mark.parametrize("form", ["plain", "pinned"])
def test_one_model_through_both_processes(form):
    model = RandomFeatures.fit(OU, LINE, 40, form=form, t0=FIRST)
    found = []
    for process, score in ((OU, model), (PINNED, model.of(PINNED))):
        lab = compare(
            score,
            process.of(LINE),
            fpc.mesh.interval(SELF, 400, -4.6, 4.6),
            (1.0,),
            steps=60,
            t0=process.time(FIRST),
            start="noised",
            discretization=fpc.Limited(),
        )
        s = lab[1.0]
        assert s.kl.value < s.certificate.value
        found.append((s.certificate.value, s.kl.value, s.l2.value / lab.norm))
    assert found[0][1] > 1e-3
    assert found[1] == pytest.approx(found[0], rel=0.02)


@pytest.mark.parallel(1)
def test_fit_is_the_least_in_its_norm():
    def error(model):
        """Divergence of the paths, by sums in x and in the age."""
        x = np.linspace(-4.5, 4.5, 1801)[:, None]
        nodes, w = np.polynomial.legendre.leggauss(40)
        logs = math.log(FIRST) + 0.5 * (nodes + 1.0) * math.log(LAST / FIRST)
        total = 0.0
        for age, weight in zip(np.exp(logs), w, strict=True):
            p = OU.of(LINE).density(age)
            gap = model.values(age, x) - p.score(x)
            total += 0.5 * weight * age * (p(x) @ gap[:, 0] ** 2) * (x[1, 0] - x[0, 0])
        return total * math.log(LAST / FIRST)

    for form in FORMS:
        best, *others = (
            error(RandomFeatures.fit(OU, LINE, 40, form=form, weighting=w, t0=FIRST, ridge=r))
            for w, r in (("kl", 0.0), ("snr", 0.0), ("noise", 0.0), ("kl", 1e-3))
        )
        assert best < min(others)
        more = error(RandomFeatures.fit(OU, LINE, 160, form=form, t0=FIRST))
        assert more < 0.4 * best


@pytest.mark.parallel(1)
def test_samples_stand_for_a_mixture():
    samples = LINE.sample(20_000, seed=1)
    fits = [
        RandomFeatures.fit(
            OU, data, 30, form="damped", weighting="noise", t0=0.05, times=40, points=n
        )
        for data, n in ((LINE, 1), (samples, 20_000))
    ]
    for t in (0.1, 0.5):
        x = LINE.noised(OU.scale(t), OU.variance(t)).sample(500)
        exact, drawn = (fit.values(t, x) for fit in fits)
        assert np.abs(drawn - exact).mean() < 0.05 * np.abs(exact).mean()


@pytest.mark.parallel(1)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"process": 3.0}, "process = 3.0"),
        ({"data": np.zeros(3)}, "data of shape"),
        ({"n": 0}, "n = 0"),
        ({"form": "straight"}, "form = 'straight'"),
        ({"weighting": "even"}, "weighting = 'even'"),
        ({"ridge": -1.0}, "ridge = -1.0"),
        ({"data": np.zeros((4, 1)), "t0": 0.0}, "t0 = 0"),
    ],
)
def test_errors_say_what_is_wrong(arguments, message):
    given = {"process": OU, "data": LINE, "n": 8, "t0": FIRST} | arguments
    with pytest.raises(ValueError, match=message):
        RandomFeatures.fit(**given)
