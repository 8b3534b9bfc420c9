"""Training of scores, where JAX is installed: what is learned, what is kept, what is refused."""

import importlib.util
import sys

import numpy as np
import pytest
from problems import SELF, WORLD

import fpcontrol as fpc
from fpcontrol.noising import GaussianMixture, OrnsteinUhlenbeck, PinnedBrownian, VarianceExploding
from fpcontrol.score import compare, load, train
from fpcontrol.score.networks import Architecture, Clock
from fpcontrol.score.trained import TrainedScore

LINE = GaussianMixture([-1.2, 1.0], [0.08, 0.15], [0.6, 0.4])
PLANE = GaussianMixture([[-1.2, 0.0], [1.0, 0.6]], [0.2, 0.3], [0.4, 0.6])
OU = OrnsteinUhlenbeck(t1=6.0)
SHORT = {"hidden": (8, 8), "iterations": 60, "batch": 64, "comm": SELF}

needs_jax = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("jax", "optax")),
    reason="needs JAX and optax",
)


@pytest.mark.slow
@needs_jax
@pytest.mark.parametrize("options", [{}, {"kind": "score", "activation": "tanh"}])
def test_trained_score_and_density_of_its_sampler_are_close(options):
    model = train(
        OU,
        LINE,
        matching="exact",
        hidden=(32, 32),
        iterations=1000,
        batch=256,
        comm=SELF,
        **options,
    )
    x = np.linspace(-2.5, 2.5, 201)[:, None]
    data = OU.of(LINE)
    for t in (0.03, 0.3, 2.0):
        p, exact = data.density(t)(x), data.score(t, x)[:, 0]
        gap = model.values(t, x)[:, 0] - exact
        # Of a score of zero the figure is 1.
        assert p @ gap**2 < 0.02 * (p @ exact**2)
    lab = compare(model, data, fpc.mesh.interval(SELF, 100, -4.5, 4.5), (1.0,), steps=40)
    assert lab[1.0].l2.at_most < 0.06 * lab.norm
    assert 0.0 < lab[1.0].kl.value < lab[1.0].certificate.at_most < 0.03


@pytest.mark.slow
@needs_jax
def test_residual_makes_the_equation_hold_better():
    x = OU.of(LINE).density(0.5).sample(200, seed=3)
    options = SHORT | {"iterations": 800, "matching": "exact"}
    runs = [train(OU, LINE, residual_weight=w, **options) for w in (0.0, 10.0)]
    left = [np.square(model.residual(0.5, x)).mean() for model in runs]
    assert left[1] < 0.5 * left[0]
    assert runs[0].history[-1].iteration == 800
    assert runs[0].history[-1].matching < 0.5 * runs[0].history[0].matching
    assert runs[0].history[-1].residual == 0.0 < runs[1].history[-1].residual


def untrained(process, kind, d, activation="swish", seed=0, form="damped"):
    network = Architecture(kind, d, (8, 8), activation, 1.5, form)
    return TrainedScore(process, network, Clock(process, 0.8, 1e-3), network.initial(seed))


@pytest.mark.slow
@needs_jax
@pytest.mark.parametrize(
    ("process", "form"),
    [
        (OU, "damped"),
        (VarianceExploding((0.5, 2.0), t1=2.0), "damped"),
        (PinnedBrownian(), "damped"),
        (OU, "plain"),
        (OU, "centred"),
        (PinnedBrownian(), "pinned"),
    ],
)
def test_residual_is_that_of_the_equation(process, form):
    model = untrained(process, "log_density", 2, form=form)
    x, t, h = np.random.default_rng(0).normal(size=(20, 2)), 0.4, 1e-5
    s, f = model.values(t, x), process.drift(t, x)
    moved = (model.log_density(t + h, x) - model.log_density(t - h, x)) / (2.0 * h)
    noise = 0.5 * process.sigma(t) ** 2 * (model.divergence(t, x) + (s**2).sum(axis=1))
    exact = moved + process.drift_divergence(t, x) + (f * s).sum(axis=1) - noise
    assert model.residual(t, x) == pytest.approx(exact, abs=1e-7)
    assert np.abs(exact).max() > 1e-2
    for i in range(2):
        step = h * np.eye(2)[i]
        slope = (model.log_density(t, x + step) - model.log_density(t, x - step)) / (2.0 * h)
        assert s[:, i] == pytest.approx(slope, abs=1e-8)
    if form == "plain":
        return
    # A normal density is solved exactly, whatever the process.
    normal = Architecture("log_density", 2, (4,), "tanh", form=form)
    layers = [(W, 0.0 * b) for W, b in normal.initial(0)]
    layers[-1] = (0.0 * layers[-1][0], layers[-1][1])
    model = TrainedScore(process, normal, Clock(process, 0.8, 1e-3), layers)
    assert model.residual(t, x) == pytest.approx(np.zeros(20), abs=1e-12)
    exact = process.of(GaussianMixture([[0.0, 0.0]], 0.8))
    assert model.values(t, x) == pytest.approx(exact.score(t, x), rel=1e-12)
    assert model.log_density(t, x) == pytest.approx(exact.density(t).log_density(x), rel=1e-12)


@pytest.mark.slow
@needs_jax
@pytest.mark.parametrize("form", ["damped", "pinned"])
def test_residual_of_a_score_is_the_gradient(form):
    model = untrained(OU, "score", 1, form=form)
    x, t, h = np.linspace(-1.0, 1.0, 11)[:, None], 0.4, 1e-5

    def rest(y):
        s = model.values(t, y)[:, 0]
        return -1.0 - y[:, 0] * s - 0.5 * (model.divergence(t, y) + s**2)

    moved = (model.values(t + h, x) - model.values(t - h, x)) / (2.0 * h)
    exact = moved[:, 0] + (rest(x + h) - rest(x - h)) / (2.0 * h)
    assert model.residual(t, x)[:, 0] == pytest.approx(exact, abs=1e-7)
    with pytest.raises(ValueError, match="log_density"):
        model.log_density(t, x)


@pytest.mark.slow
@needs_jax
def test_any_number_of_points_has_the_same_values():
    model = untrained(OU, "log_density", 2)
    x, s = np.random.default_rng(1).normal(size=(2, 2500, 2))
    one = model.values(0.2, x[:3])
    assert model.values(0.2, x)[:3] == pytest.approx(one, rel=1e-12)
    assert model.values(0.2, x[:0]).shape == (0, 2)
    parts = model.vjp(0.2, x[:700], s[:700]) + model.vjp(0.2, x[700:], s[700:])
    assert model.vjp(0.2, x, s) == pytest.approx(parts, rel=1e-9, abs=1e-9)


@needs_jax
def test_exact_scores_are_taken_at_each_points_own_time():
    from fpcontrol.score.training import _Source, _Task

    source = _Source(OU, PLANE, "exact")
    exact = _Task._exact
    task = object.__new__(_Task)
    task.source = source
    x, times = np.random.default_rng(2).normal(size=(6, 2)), np.linspace(0.05, 3.0, 6)
    scale, v = (np.array([f(t) for t in times]) for f in (OU.scale, OU.variance))
    found = np.asarray(exact(task, scale, v, x))
    one = [OU.of(PLANE).score(t, y[None])[0] for t, y in zip(times, x, strict=True)]
    assert found == pytest.approx(np.array(one), rel=1e-4)
    squares = (PLANE.sample(400_000) ** 2).mean()
    assert source.moment == pytest.approx(squares, rel=0.01)


@pytest.mark.slow
@needs_jax
@pytest.mark.parallel([2])
def test_ranks_get_the_same_network(tmp_path):
    model = train(OU, LINE.sample(500), **(SHORT | {"comm": WORLD, "activation": "softplus"}))
    path = WORLD.bcast(tmp_path / "net.npz")
    model.save(path)
    again = load(path, OU)
    x = np.linspace(-2.0, 2.0, 9)[:, None]
    for values in WORLD.allgather(again.values(0.1, x)):
        assert (values == model.values(0.1, x)).all()
    assert again.history == model.history
    with pytest.raises(FileNotFoundError, match="no such file"):
        load(tmp_path / "none.npz", OU)


@needs_jax
def test_files_are_checked(tmp_path):
    model = untrained(OU, "log_density", 1)
    model.save(tmp_path / "net.npz", SELF)
    with pytest.raises(ValueError, match="was trained for OrnsteinUhlenbeck"):
        load(tmp_path / "net.npz", OrnsteinUhlenbeck(t1=5.0), SELF)
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(OSError, match="is no trained score"):
        load(tmp_path / "other.npz", OU, SELF)
    with np.load(tmp_path / "net.npz") as file:
        content = {name: file[name] for name in file.files}
    np.savez(tmp_path / "cut.npz", **(content | {"W1": content["W1"][:-1]}))
    with pytest.raises(OSError, match="widths"):
        load(tmp_path / "cut.npz", OU, SELF)
    np.savez(tmp_path / "pickled.npz", **(content | {"W1": np.array([object()])}))
    with pytest.raises(OSError, match="is no trained score"):
        load(tmp_path / "pickled.npz", OU, SELF)


@pytest.mark.slow
@needs_jax
def test_interrupt_leaves_what_is_and_training_goes_on(monkeypatch):
    import contextlib

    from fpcontrol.score import training

    options = SHORT | {"iterations": 150, "matching": "exact"}
    with monkeypatch.context() as patch:
        patch.setattr(training, "interrupts", lambda: contextlib.nullcontext([2]))
        model, same = train(OU, LINE, **options), train(OU, LINE, **options)
    assert model.history[-1].iteration == training.CHUNK
    assert all((a[0] == b[0]).all() for a, b in zip(model.layers, same.layers, strict=True))
    more = train(OU, LINE, start=model, **options)  # the first batches are the same
    assert more.history[0].matching < model.history[0].matching
    assert more.history[-1].iteration == 150
    with pytest.raises(ValueError, match="start"):
        train(OU, LINE, start=model, **(options | {"hidden": (8,)}))


@needs_jax
@pytest.mark.parametrize(
    ("data", "options", "words"),
    [
        (LINE, {"kind": "density"}, "kind = 'density'; choose one of log_density, score"),
        (LINE, {"activation": "elu"}, "activation = 'elu'"),
        (LINE, {"form": "bare"}, "form = 'bare'; choose one of plain, centred"),
        (LINE, {"weighting": "flat"}, "weighting = 'flat'; choose one of even, kl"),
        (LINE, {"weighting": "kl"}, 't0 = 0 with weighting = "kl"'),
        (LINE, {"weighting": "snr", "matching": "exact"}, "t0 = 0"),
        (LINE, {"hidden": ()}, "hidden"),
        (LINE, {"sharpness": 0.0}, "sharpness"),
        (LINE, {"iterations": 0}, "iterations = 0"),
        (LINE, {"rate": -1.0}, "rate = -1.0"),
        (LINE, {"residual_weight": np.nan}, "residual_weight = nan"),
        (LINE, {"activation": "relu", "residual_weight": 1.0}, "second derivatives"),
        (LINE, {"matching": "sliced"}, 'choose "denoising" or "exact"'),
        (LINE.sample(9), {"matching": "exact"}, "GaussianMixture"),
        (np.zeros(4), {}, "samples"),
        (np.array([[np.inf]]), {}, "finite"),
        (np.zeros((4, 1)), {}, "at 0"),
        (LINE, {"t0": 7.0}, "t0"),
    ],
)
def test_what_is_refused(data, options, words):
    with pytest.raises(ValueError, match=words):
        train(OU, data, **(SHORT | options))


@needs_jax
def test_process_with_walls_is_refused():
    mesh = fpc.mesh.interval(SELF, 8)
    with pytest.raises(ValueError, match="without walls"):
        train(fpc.noising.HeatFlow(mesh, 0.1), LINE, **SHORT)


@pytest.mark.slow
@needs_jax
def test_loss_that_grows_beyond_bounds_is_an_error():
    with pytest.raises(ArithmeticError, match="smaller rate than 1e\\+30"):
        train(OU, LINE, **(SHORT | {"rate": 1e30}))


def test_without_jax_it_says_what_is_needed(monkeypatch):
    monkeypatch.setitem(sys.modules, "optax", None)
    with pytest.raises(ImportError, match=r"fpcontrol\[score\]"):
        train(OU, LINE, comm=SELF)
