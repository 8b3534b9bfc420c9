"""Limited width by switching: rates, exact jumps and products."""

import numpy as np
import pytest
from problems import SELF, WORLD, failures

from fpcontrol.characteristics.flow import Markers, carry
from fpcontrol.theorems.framework.resolution import Grid
from fpcontrol.theorems.runs.generators import (
    STARTS,
    Average,
    Generators,
    Switched,
    distances,
)
from fpcontrol.theorems.statements.switching import (
    product_on_square,
    switching_with_noise,
    switching_without_noise,
)

DRAWN = Generators.drawn()


def test_generators_are_those_of_the_statement():
    rng, x = np.random.default_rng(3), np.linspace(0.0, 1.0, 5)[:, None]
    for j in range(4):
        r = rng.random(3)
        w, c, b = 1.2 * (0.5 + r[0]) / 4, 4.0 + 6.0 * r[1], 0.15 + 0.7 * r[2]
        np.testing.assert_allclose(DRAWN.sum([j], x), -w * np.tanh(c * (x - b)), rtol=1e-13)


@pytest.mark.parametrize("dimension", [1, 2])
def test_divergence_is_that_of_the_drift(dimension):
    drawn = Generators.drawn(dimension)
    drift = Average(drawn if dimension == 1 else drawn.turned(0.5))
    x, h = np.random.default_rng(0).random((6, dimension)), 1e-6
    slopes = [
        (drift(0.0, x + h * e) - drift(0.0, x - h * e))[:, i] / (2 * h)
        for i, e in enumerate(np.eye(dimension))
    ]
    np.testing.assert_allclose(drift.divergence(0.0, x), sum(slopes), atol=1e-8)


def test_slots_run_forth_and_back():
    times = (np.arange(16) + 0.5) / 16
    palindrome = Switched(DRAWN, 2, 1.0, palindromic=True)
    assert palindrome.slots == 16
    np.testing.assert_allclose(palindrome.switches, np.arange(1, 16) / 16)
    assert [palindrome.piece(t) for t in times] == [0, 1, 2, 3, 3, 2, 1, 0] * 2
    assert [Switched(DRAWN, 4, 1.0).piece(t) for t in times] == [0, 1, 2, 3] * 4


def test_average_is_the_mean_of_the_slots():
    x = np.linspace(0.0, 1.0, 9)[:, None]
    drift = Switched(DRAWN, 3, 0.7)
    mean = np.mean([drift(0.7 * (i + 0.5) / 12, x) for i in range(12)], axis=0)
    np.testing.assert_allclose(mean, Average(DRAWN)(0.0, x), rtol=1e-13)


@pytest.mark.parametrize(
    ("start", "values"),
    # L2 error for n = 4, 8 and W2 for n = 4, from an independent program.
    [("bump", (17.027, 12.907, 6.5e-3)), ("box", (3.366, 1.954, 6.5e-3))],
)
def test_distances_agree_with_an_independent_program(start, values):
    four, eight = (distances(WORLD, Switched(DRAWN, n, 1.0), start, 80, 1e-9) for n in (4, 8))
    assert four[0] == pytest.approx(values[0], rel=1e-3)
    assert eight[0] == pytest.approx(values[1], rel=1e-3)
    assert four[3] == pytest.approx(values[2], rel=1e-2)


@pytest.mark.parametrize("start", ["bump", "box", "block"])
def test_distance_in_l2_is_that_of_masses_in_fine_bins(start):
    # Another way to both densities, for which no support has to be known.
    switched, bins = Switched(DRAWN, 8, 1.0), np.linspace(0.0, 1.0, 8001)
    markers = Markers.on_interval(WORLD, 2000, STARTS[start][0])
    masses = [
        carry(markers, drift, [0.0, 1.0], rtol=1e-7, atol=1e-7).cell_masses(-1, bins)
        for drift in (switched, Average(DRAWN))
    ]
    binned = np.sqrt(np.sum((masses[0] - masses[1]) ** 2 / np.diff(bins)))
    exact = distances(WORLD, switched, start, 80, 1e-9)[0]
    # A bin that an edge cuts: its width over the width of where only one of the two is.
    assert binned == pytest.approx(exact, rel=0.01)


def test_reversed_flow_comes_back():
    switched = Switched(DRAWN, 4, 0.7)
    markers = Markers.on_interval(WORLD, 4, lambda x: np.ones(len(x)))
    backward, tight = -switched.reversed_in_time(0.7), {"rtol": 1e-11, "atol": 1e-11}
    forth = carry(markers, switched, [0.0, 0.7], **tight)
    there = Markers(WORLD, forth.positions[-1], markers.volumes, markers.density, markers.wall)
    back = carry(there, backward, [0.0, 0.7], walls=False, **tight)
    np.testing.assert_allclose(back.positions[-1], markers.points, atol=1e-8)
    np.testing.assert_allclose(back.log_jacobian[-1], -forth.log_jacobian[-1], atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("start", ["bump", "box"])
def test_rates_without_noise(start):
    assert not failures(switching_without_noise(WORLD, start=start, cycles=(32, 64), cells=20))


@pytest.mark.slow
def test_palindromes_lift_the_rate():
    options = {"cycles": (8, 16), "palindromic": True}
    assert not failures(switching_without_noise(WORLD, cells=30, **options))
    assert not failures(switching_with_noise(WORLD, grid=Grid(60, 3, 3), **options))


@pytest.mark.slow
@pytest.mark.parametrize(("start", "sigma"), [("bump", 0.2), ("block", 0.2)])
def test_rates_with_noise(start, sigma):
    study = switching_with_noise(WORLD, start=start, sigma=sigma, cycles=(16, 32))
    assert not failures(study)
    if start == "bump":  # independent finite volumes, to 1 %
        np.testing.assert_allclose(
            [row.measured for row in study.rows[:4]], [0.03865, 0.01955, 0.103, 0.0518], rtol=0.01
        )


@pytest.mark.slow
def test_other_parameters():
    other = Generators.drawn(number=3, seed=5)
    assert not failures(
        switching_with_noise(WORLD, generators=other, t1=0.7, sigma=0.35, cycles=(16, 32))
    )
    assert not failures(switching_without_noise(WORLD, t1=0.7, cycles=(16, 32), cells=30))


@pytest.mark.slow
def test_product_on_square():
    assert not failures(product_on_square(WORLD, cycles=(4,)))


@pytest.mark.parallel([1, 2])
def test_ranks_agree():
    square = Generators.drawn(2, speed=0.4).turned(0.5)
    for run in (
        lambda comm: switching_without_noise(comm, start="box", cycles=(1, 2), cells=5),
        lambda comm: switching_without_noise(comm, generators=square, cycles=(1, 2), cells=1),
        lambda comm: switching_with_noise(comm, cycles=(1, 2), grid=Grid(16, 1)),
    ):
        one, all_ = run(SELF), run(WORLD)
        np.testing.assert_allclose(
            [row.measured for row in all_.rows], [row.measured for row in one.rows], rtol=1e-7
        )
