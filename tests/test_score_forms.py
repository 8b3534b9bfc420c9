"""Forms of trained scores and weights of their matching, where JAX is installed."""

import importlib.util
import math

import numpy as np
import pytest
from problems import SELF

from fpcontrol.noising import GaussianMixture, OrnsteinUhlenbeck, PinnedBrownian
from fpcontrol.score import RandomFeatures, load, train
from fpcontrol.score.networks import Architecture, Clock
from fpcontrol.score.trained import TrainedScore

OU = OrnsteinUhlenbeck(t1=2.5, g=math.sqrt(2.0))
PINNED = PinnedBrownian(t1=0.99)
LINE = GaussianMixture([-1.2, 1.0], [0.08, 0.15], [0.6, 0.4])
FORMS = ("plain", "centred", "damped", "pinned")

pytestmark = [
    pytest.mark.parallel(1),
    pytest.mark.skipif(
        not all(importlib.util.find_spec(name) for name in ("jax", "optax")),
        reason="needs JAX and optax",
    ),
]


@pytest.mark.parametrize("form", FORMS)
def test_one_layer_is_a_sum_of_kinks(form):
    rng = np.random.default_rng(0)
    slopes, offsets, weights = rng.normal(size=(6, 2)), rng.normal(size=6), rng.normal(size=(6, 2))
    kinks = RandomFeatures(OU, form, slopes, np.zeros(6), offsets, weights, 1e-3, (0.0, 1.0))
    first = np.zeros((4, 6))  # blind to the time
    first[2:] = slopes.T
    layers = [(first, -offsets), (weights, np.zeros(2))]
    network = Architecture("score", 2, (6,), "relu", form=form)
    model = TrainedScore(OU, network, Clock(OU, 1.0, 1e-3), layers)
    x = rng.normal(size=(20, 2))
    for t in (0.02, 0.6, 2.0):
        assert model.values(t, x) == pytest.approx(kinks.values(t, x), rel=1e-10, abs=1e-10)
        assert model.divergence(t, x) == pytest.approx(kinks.divergence(t, x), rel=1e-10, abs=1e-10)


@pytest.mark.parametrize("form", FORMS)
def test_gradient_of_a_potential_has_the_same_form(form):
    rng = np.random.default_rng(1)
    network = Architecture("log_density", 2, (5,), "tanh", 1.0, form)
    layers = network.initial(3)
    moment = 0.7
    model = TrainedScore(OU, network, Clock(OU, moment, 1e-3), layers)
    (W, b), (w, _) = ((np.asarray(a, dtype=float) for a in layer) for layer in layers)
    x = rng.normal(size=(20, 2))
    for t in (0.02, 0.6):
        label, kappa, S = model.clock.at(t)
        assert S == pytest.approx(moment * OU.scale(t) ** 2 + OU.variance(t), rel=1e-14)
        base, gain, inner = {
            "plain": (0, 0, 0),
            "centred": (1, 0, 0),
            "damped": (1, 1, 0),
            "pinned": (1, 1, 1),
        }[form]
        y = x / math.sqrt(S)
        hidden = np.tanh(label * W[0] + (2.0 * kappa - 1.0) * W[1] + kappa**inner * y @ W[2:] + b)
        slope = ((1.0 - hidden**2) * w[:, 0]) @ W[2:].T
        expected = (kappa**gain * slope - base * y) / math.sqrt(S)
        assert np.abs(slope).max() > 0.01
        assert model.values(t, x) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("kind", ["score", "log_density"])
def test_pinned_form_is_the_foellmer_drift(kind):
    """A network of z and the time alone, without a factor, where the data have mean square 1."""
    network = Architecture(kind, 2, (8,), "tanh", 1.0, "pinned")
    model = TrainedScore(PINNED, network, Clock(PINNED, 1.0, 1e-3), network.initial(0))
    (W, b), (w, c) = ((np.asarray(a, dtype=float) for a in layer) for layer in model.layers)
    z, t = np.random.default_rng(0).normal(size=(20, 2)), 0.4
    label, kappa, _ = model.clock.at(t)

    def net(z):
        return np.tanh(np.array([label, 2.0 * kappa - 1.0]) @ W[:2] + z @ W[2:] + b) @ w + c

    expected, h = net(z), 1e-5
    if kind == "log_density":
        steps = h * np.eye(2)
        expected = np.column_stack([(net(z + e) - net(z - e))[:, 0] / (2.0 * h) for e in steps])
    assert np.abs(expected).max() > 0.01
    drift = PINNED.reverse(model)
    assert drift(PINNED.t1 - t, z) == pytest.approx(expected, rel=1e-7, abs=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("weighting", ["kl", "noise", "snr"])
def test_weights_are_those_of_the_age(weighting):
    """At the start of a training: the loss by sums in x and in the age."""
    first, moment = 0.004, float(LINE.weights @ (LINE.means[:, 0] ** 2 + [0.08, 0.15]))
    model = train(
        OU,
        LINE,
        form="plain",
        kind="score",
        matching="exact",
        weighting=weighting,
        hidden=(4,),
        iterations=50,
        batch=4096,
        rate=1e-12,
        t0=first,
        comm=SELF,
    )
    x = np.linspace(-6.0, 6.0, 3001)[:, None]
    nodes, w = np.polynomial.legendre.leggauss(60)
    half = 0.5 * math.log(OU.t1 / first)
    found = norm = 0.0
    for age, weight in zip(first * np.exp(half * (nodes + 1.0)), half * w, strict=True):
        kappas, v = math.exp(-2.0 * age), -math.expm1(-2.0 * age)
        S = moment * kappas + v
        share = weight * age
        share *= {"kl": 1.0, "noise": v / S, "snr": moment * kappas / v}[weighting]
        p = OU.of(LINE).density(age)
        gap = (model.values(age, x) - p.score(x))[:, 0]
        found += share * (p(x) @ gap**2) * (x[1, 0] - x[0, 0])
        norm += share / v
    assert model.history[-1].matching == pytest.approx(found / norm, rel=0.03)


@pytest.mark.slow
def test_training_in_the_foellmer_form_learns_and_is_kept(tmp_path):
    options = {"hidden": (16, 16), "batch": 256, "matching": "exact", "t0": 0.002, "comm": SELF}
    x = np.linspace(-2.5, 2.5, 201)[:, None]
    data = OU.of(LINE)
    errors = []
    for n in (1, 1000):
        model = train(
            OU, LINE, kind="score", form="pinned", weighting="kl", iterations=n, **options
        )
        gaps = [
            data.density(t)(x)
            @ ((model.values(t, x) - data.score(t, x))[:, 0] ** 2)
            / (data.density(t)(x) @ data.score(t, x)[:, 0] ** 2)
            for t in (0.03, 0.3, 2.0)
        ]
        errors.append(max(gaps))
    assert errors[1] < 0.06 < 0.5 < errors[0]
    assert "pinned" in repr(model)
    model.save(tmp_path / "net.npz", SELF)
    again = load(tmp_path / "net.npz", OU, SELF)
    assert again.architecture.form == "pinned"
    assert (again.values(0.1, x) == model.values(0.1, x)).all()
    with pytest.raises(ValueError, match="another network"):
        train(OU, LINE, kind="score", form="plain", iterations=1, start=model, **options)
