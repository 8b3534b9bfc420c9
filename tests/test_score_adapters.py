"""Scores in other libraries, where these are installed."""

import sys

import numpy as np
import pytest
from problems import SELF

import fpcontrol as fpc
from fpcontrol.noising import GaussianMixture, OrnsteinUhlenbeck
from fpcontrol.score import JaxScore, TorchScore, compare

DATA = OrnsteinUhlenbeck(t1=8.0).of(GaussianMixture([[-0.8, 0.0]], 0.2))


def gaussian(weights, t, x, library=None):
    """Logarithm of the noised density of DATA in JAX, or PyTorch; the mean is a weight."""
    if library is None:
        import jax.numpy as library

    v = 0.5 * (1.0 - library.exp(-2.0 * t)) + weights["variance"] * library.exp(-2.0 * t)
    mean = library.asarray(weights["mean"])[: len(x)]
    return -((x - mean * library.exp(-t)) ** 2).sum() / (2.0 * v)


WEIGHTS = {"mean": np.array([-0.8, 0.0], dtype=np.float32), "variance": 0.2}


def test_log_density_in_jax_is_a_score_with_all_derivatives():
    pytest.importorskip("jax")
    model = JaxScore(gaussian, WEIGHTS)
    x, s = np.random.default_rng(0).normal(size=(2, 30, 2))
    assert model.values(0.3, x).dtype == np.float64
    assert model.values(0.3, x) == pytest.approx(DATA.score(0.3, x), rel=1e-6)
    assert model.divergence(0.3, x) == pytest.approx(DATA.divergence(0.3, x), rel=1e-10)
    assert model.size == 3
    h = 1e-5
    up, down = (JaxScore(gaussian, WEIGHTS | {"variance": 0.2 + e}).values(0.3, x) for e in (h, -h))
    slope = (s * (up - down)).sum() / (2.0 * h)
    assert model.vjp(0.3, x, s)[-1] == pytest.approx(slope, rel=1e-6)
    drift = DATA.process.reverse(model, 0.5)
    assert drift.vjp(DATA.process.t1 - 0.3, x, s) == pytest.approx(0.625 * model.vjp(0.3, x, s))
    field = JaxScore(lambda w, t, x: -x)  # a score itself, without weights
    assert field.values(0.1, x) == pytest.approx(-x)
    assert field.divergence(0.1, x) == pytest.approx(np.full(30, -2.0))
    with pytest.raises(ValueError, match="shape"):
        JaxScore(lambda w, t, x: x[:1]).values(0.1, x)


def test_score_in_jax_is_compared_like_any_other():
    pytest.importorskip("jax")
    mesh = fpc.mesh.rectangle(SELF, (10, 10), (-4.0, -4.0), (4.0, 4.0))
    lab = compare(JaxScore(gaussian, WEIGHTS), DATA, mesh, (0.0,), steps=10, atoms=40)
    assert lab[0.0].l2.at_most < 1e-3
    assert lab.score_error.at_most < 1e-6


LAYERS = [  # of a network whose score has kinks of no kind
    (
        np.random.default_rng(n).normal(size=(n, m)) / n,
        0.3 * np.random.default_rng(m).normal(size=m),
    )
    for n, m in ((3, 16), (16, 8), (8, 1))
]
NETWORK = {"layers": LAYERS, "scale": 2.0, "unused": np.ones(2)}


def network(library):
    """Logarithm of a density that is near that of DATA, in JAX or PyTorch."""

    def one(weights, t, x):
        near = gaussian(WEIGHTS, t, x, library)
        z = library.concatenate([library.exp(-t) + 0.0 * x[:1], x])
        for A, b in weights["layers"][:-1]:
            z = library.tanh(z @ A[: len(z)] + b)
        A, b = weights["layers"][-1]
        return near + weights["scale"] * library.exp(-2.0 * t) * (z @ A + b)[0]

    return one


def test_score_in_torch_is_that_in_jax():
    """Values, divergences and derivatives in the weights, over several blocks of points."""
    torch, jnp = pytest.importorskip("torch"), pytest.importorskip("jax.numpy")
    x, s = np.random.default_rng(0).normal(size=(2, 5000, 2))
    weights = NETWORK | {"layers": [tuple(map(torch.tensor, pair)) for pair in LAYERS]}
    ours, theirs = TorchScore(network(torch), weights), JaxScore(network(jnp), NETWORK)
    assert ours.size == theirs.size
    for found, exact in (
        (ours.values(0.3, x), theirs.values(0.3, x)),
        (ours.divergence(0.3, x), theirs.divergence(0.3, x)),
        (ours.vjp(0.3, x, s), theirs.vjp(0.3, x, s)),
    ):
        assert found.dtype == np.float64 and found.shape == exact.shape
        assert found == pytest.approx(exact, rel=1e-10, abs=1e-10 * np.abs(exact).max())


def test_module_of_torch_is_a_score():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(2, 5), torch.nn.Softplus(), torch.nn.Linear(5, 2))
    weights = dict(module.named_parameters())
    model = TorchScore(lambda w, t, x: torch.func.functional_call(module, w, (x,)), weights)
    x, s = np.random.default_rng(0).normal(size=(2, 20, 2))
    single = module(torch.tensor(x, dtype=torch.float32)).detach().numpy()
    before = model.values(0.1, x)
    assert before == pytest.approx(single, rel=1e-5, abs=1e-6)
    h = 1e-5
    slopes = [model.values(0.1, x + h * e) - model.values(0.1, x - h * e) for e in np.eye(2)]
    trace = sum(slope[:, i] for i, slope in enumerate(slopes)) / (2.0 * h)
    assert model.divergence(0.1, x) == pytest.approx(trace, rel=1e-7)
    assert model.vjp(0.1, x, s)[-2:] == pytest.approx(s.sum(axis=0))  # of the last offsets
    with torch.no_grad():
        module[2].bias += 1.0  # goes on training: a score is what it was
    assert (model.values(0.1, x) == before).all()


def test_score_in_torch_without_weights_or_points_and_what_is_none():
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).normal(size=(7, 2))
    field = TorchScore(lambda w, t, x: -x)
    assert (field.values(0.1, x) == -x).all() and (field.divergence(0.1, x) == -2.0).all()
    assert field.vjp(0.1, x, x).shape == (0,)
    assert field.values(0.1, x[:0]).shape == (0, 2) and field.divergence(0.1, x[:0]).shape == (0,)
    with pytest.raises(ValueError, match=r"returned shape \(1,\)"):
        TorchScore(lambda w, t, x: x[:1]).values(0.1, x)
    with pytest.raises(ValueError, match=r"weights: 'net\.pt'"):
        TorchScore(network(torch), {"file": "net.pt"})


def test_densities_of_a_score_are_the_same_in_torch_and_jax():
    torch, jnp = pytest.importorskip("torch"), pytest.importorskip("jax.numpy")
    data = DATA.process.of(GaussianMixture([-0.8], 0.2))
    mesh = fpc.mesh.interval(SELF, 30, -4.0, 4.0)
    ours, theirs = (
        compare(model, data, mesh, (1.0, 0.0), steps=10, tolerance=1e-4)
        for model in (
            TorchScore(network(torch), NETWORK),
            JaxScore(network(jnp), NETWORK),
        )
    )
    for noise in (1.0, 0.0):
        one, other = (lab[noise].density.x.array for lab in (ours, theirs))
        assert one == pytest.approx(other, rel=0.0, abs=1e-6 * other.max())
        assert ours[noise].l2.value == pytest.approx(theirs[noise].l2.value, rel=1e-6)
        assert ours[noise].l2.value > 1e-3  # not the data


@pytest.mark.parametrize(
    ("adapter", "library", "extra"),
    [(JaxScore, "jax", "score"), (TorchScore, "torch", "score-torch")],
)
def test_without_its_library_it_says_what_is_needed(monkeypatch, adapter, library, extra):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=rf"fpcontrol\[{extra}\]"):
        adapter(gaussian, WEIGHTS)
