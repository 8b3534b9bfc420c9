"""The network drift: values, derivatives, pieces of time, units of length."""

import numpy as np
import pytest
from problems import SELF, WORLD, bump, cube, tracking

import fpcontrol as fpc
from fpcontrol.control.hidden_layer import ACTIVATIONS, Network

SCALARS = {
    "tanh": np.tanh,
    "relu": lambda z: max(z, 0.0),
    "softplus": lambda z: np.log(1.0 + np.exp(z)),
    "sigmoid": lambda z: 1.0 / (1.0 + np.exp(-z)),
    "sin": np.sin,
}
SHAPES = [(1, 1), (1, 3), (2, 2), (2, 5), (3, 3), (3, 1)]


def by_hand(weights, dim: int, width: int, activation: str, y: np.ndarray) -> list[float]:
    """``W phi(A y + b)`` at one point, entry by entry: W, then A, both row by row, then b."""
    w = [weights[i * width : (i + 1) * width] for i in range(dim)]
    a = [weights[dim * width + j * dim : dim * width + (j + 1) * dim] for j in range(width)]
    b = weights[2 * dim * width :]
    neurons = [
        SCALARS[activation](sum(a[j][k] * y[k] for k in range(dim)) + b[j]) for j in range(width)
    ]
    return [sum(w[i][j] * neurons[j] for j in range(width)) for i in range(dim)]


def test_all_activations_are_tested():
    assert set(SCALARS) == set(ACTIVATIONS)


@pytest.mark.parametrize("activation", SCALARS)
@pytest.mark.parametrize(("dim", "width"), SHAPES)
def test_values_are_those_of_a_loop(dim, width, activation):
    mesh = cube(SELF, dim, 2, size=6.0, lower=-1.0)  # centre 2, half of the longest side 3
    drift = fpc.NetworkDrift(mesh, width, 3, 1.5, activation, seed=1)
    x = np.random.default_rng(2).uniform(-1.0, 5.0, (7, dim))
    size = width * (2 * dim + 1)
    assert drift.weights.shape == (3 * size,)
    for t, k in ((0.2, 0), (0.7, 1), (1.5, 2)):
        piece = drift.weights[k * size : (k + 1) * size]
        expected = [
            [3.0 * f for f in by_hand(piece, dim, width, activation, (p - 2.0) / 3.0)] for p in x
        ]
        assert drift(t, x) == pytest.approx(np.array(expected), rel=1e-13, abs=1e-13)
        assert np.array_equal(drift(t, x), drift.values(t, x))


@pytest.mark.parametrize("activation", SCALARS)
@pytest.mark.parametrize(("dim", "width"), SHAPES)
def test_vjp_is_the_transpose_of_jvp(dim, width, activation):
    drift = fpc.NetworkDrift(cube(SELF, dim, 2, size=5.0), width, 2, activation=activation)
    rng = np.random.default_rng(3)
    x, s = rng.uniform(0.0, 5.0, (20, dim)), rng.standard_normal((20, dim))
    direction = rng.standard_normal(drift.network.size)
    forward, back = drift.jvp(0.7, x, direction), drift.vjp(0.7, x, s)
    scale = np.linalg.norm(s) * np.linalg.norm(forward)
    assert abs((s * forward).sum() - back @ direction) <= 1e-14 * scale


@pytest.mark.parametrize("activation", ["tanh", "softplus", "sigmoid", "sin"])
@pytest.mark.parametrize(("dim", "width"), SHAPES)
def test_jvp_is_the_derivative_in_the_weights(dim, width, activation):
    network = Network(dim, width, activation)
    rng = np.random.default_rng(4)
    y = rng.uniform(-1.0, 1.0, (dim, 9))
    weights, direction = rng.standard_normal((2, network.size))
    h = 1e-5
    difference = (
        network.values(weights + h * direction, y) - network.values(weights - h * direction, y)
    ) / (2.0 * h)
    assert network.jvp(weights, y, direction) == pytest.approx(difference, rel=1e-7, abs=1e-8)


@pytest.mark.parametrize("activation", ["tanh", "softplus", "sigmoid", "sin"])
@pytest.mark.parametrize(("dim", "width"), SHAPES)
def test_divergence_is_that_of_differences(dim, width, activation):
    drift = fpc.NetworkDrift(cube(SELF, dim, 2, size=5.0), width, 2, activation=activation)
    x = np.random.default_rng(5).uniform(0.0, 5.0, (9, dim))
    h = 1e-4 * np.eye(dim)
    difference = sum((drift(0.3, x + h[i]) - drift(0.3, x - h[i]))[:, i] / 2e-4 for i in range(dim))
    assert drift.divergence(0.3, x) == pytest.approx(difference, rel=1e-6, abs=1e-7)


@pytest.mark.parallel([1, 2, 3])
def test_seed_gives_the_same_weights_on_all_ranks_and_every_time():
    mesh = cube(WORLD, 2, 3)
    weights = fpc.NetworkDrift(mesh, 2, 4, seed=7).weights
    assert np.array_equal(weights, fpc.NetworkDrift(mesh, 2, 4, seed=7).weights)
    assert not np.array_equal(weights, fpc.NetworkDrift(mesh, 2, 4, seed=8).weights)
    assert weights.dtype == np.float64
    assert set(WORLD.allgather(weights.tobytes())) == {weights.tobytes()}


@pytest.mark.parallel([1, 2, 3])
def test_scale_is_that_of_the_whole_mesh():
    mesh = fpc.mesh.rectangle(WORLD, (8, 2), (-1.0, 3.0), (7.0, 5.0))
    drift = fpc.NetworkDrift(mesh, 2, 1)
    assert drift.centre == pytest.approx([3.0, 4.0], rel=1e-14)
    assert drift.scale == 4.0


def test_piece_changes_where_the_next_one_begins():
    drift = fpc.NetworkDrift(cube(SELF, 1, 2), 1, pieces=4, t1=2.0)
    assert [drift.piece(t) for t in (0.0, 0.4999, 0.5, 1.2, 1.5, 1.999, 2.0)] == [
        *(0, 0, 1, 2, 3, 3, 3)
    ]
    for t in (-0.1, 2.1, np.nan):
        with pytest.raises(ValueError, match=r"outside \[0, t1 = 2\]"):
            drift.piece(t)


@pytest.mark.parametrize(
    ("steps", "pieces", "t1"), [(300, 100, 1.0), (7 * 13, 7, 0.3), (60, 60, 3)]
)
def test_middle_of_a_step_is_in_the_piece_of_the_step(steps, pieces, t1):
    drift = fpc.NetworkDrift(cube(SELF, 1, 2), 1, pieces, t1)
    middles = (np.arange(steps) + 0.5) * t1 / steps
    assert [drift.piece(t) for t in middles] == [n // (steps // pieces) for n in range(steps)]


def test_with_weights_keeps_all_else():
    drift = fpc.NetworkDrift(cube(SELF, 2, 2), 3, 2, 0.7, "sin", seed=5)
    other = drift.with_weights(2.0 * drift.weights)
    assert np.array_equal(other.weights, 2.0 * drift.weights)
    assert (other.network, other.pieces, other.t1) == (drift.network, drift.pieces, drift.t1)
    zero = np.zeros_like(drift.weights)
    assert not drift.with_weights(zero)(0.1, np.ones((2, 2))).any()


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("size", [1e-3, 700.0])
def test_unit_of_length_does_not_matter(size):
    one, scaled = tracking(n=3, degree=2), tracking(n=3, degree=2, size=size)
    weights = one.drift.weights
    value, dual = one.value_and_derivative(weights)
    scaled_value, scaled_dual = scaled.value_and_derivative(weights)
    assert scaled_value == pytest.approx(value, rel=1e-9)
    assert scaled_dual == pytest.approx(dual, rel=1e-7, abs=1e-9 * np.abs(dual).max())


@pytest.mark.parallel([1])
def test_unit_of_time_does_not_matter():
    # Speeds are in lengths per unit of time: three times the time, a third of the output weights.
    fast, slow = tracking(t1=1.0), tracking(t1=3.0, sigma=0.8 / 3.0**0.5)
    pieces = fast.drift.weights.reshape(fast.drift.pieces, -1).copy()
    pieces[:, :4] /= 3.0
    assert slow(pieces.ravel()) == pytest.approx(fast(fast.drift.weights), rel=1e-10)


@pytest.mark.parallel([1, 2])
def test_density_scales_with_the_mesh():
    trajectories = []
    for size in (1.0, 500.0):
        mesh = cube(WORLD, 2, 3, size, lower=-0.2 * size)
        drift = fpc.NetworkDrift(mesh, 2, 2, 1.0)
        equation = fpc.FokkerPlanck(mesh, drift, 0.5 * size)
        trajectories.append(equation.solve(bump(mesh, 2, 0.3), 1.0, 6).levels * size**2)
    assert trajectories[1] == pytest.approx(trajectories[0], abs=1e-9)
