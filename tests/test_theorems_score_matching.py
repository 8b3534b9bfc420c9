"""Reversed noising: the checks pass at other parameters too."""

import math

import pytest
from problems import SELF, WORLD, failures

from fpcontrol.noising.line import entropy
from fpcontrol.theorems.experiments import early_stops, score_limits, vacuum
from fpcontrol.theorems.framework.resolution import Grid
from fpcontrol.theorems.statements import score_matching

OTHER = {"sigma": 0.35, "t1": 0.7}
FAST = {"stops": (1e-2, 1e-3), "grid": Grid(100, 8)}


OTHERS = {
    "disconnected": lambda comm: score_matching.entropies(
        comm, data="disconnected", **OTHER, **FAST
    ),
    "jump": lambda comm: score_matching.entropies(comm, data="jump", **OTHER, **FAST),
    "gap": lambda comm: vacuum.energies(comm, depths=(1e-2, 1e-5, 1e-8), cells=800, **OTHER),
    "bounded": lambda comm: vacuum.bounded_fields(
        comm, limits=(2.0, 12.0), grid=Grid(100, 25), cells=30, **OTHER
    ),
    "masses": lambda comm: score_limits.mode_weights(comm, masses=(0.8, 0.3), **OTHER),
    "walls": lambda comm: early_stops.walls_or_line(
        comm, amplitude=0.4, reach=1.5, grid=Grid(100, 8), **OTHER
    ),
    "walls, small jumps": lambda comm: early_stops.walls_or_line(
        comm, amplitude=0.9, reach=1.5, grid=Grid(60, 4)
    ),
    "walls, much noise": lambda comm: early_stops.walls_or_line(
        comm, amplitude=0.2, sigma=0.8, reach=3.0, grid=Grid(60, 4)
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_other_parameters_pass(name):
    assert not failures(OTHERS[name](SELF))


# Short runs: what is tested is that ranks agree.
SHORT = {
    "disconnected": lambda comm: score_matching.entropies(
        comm, data="disconnected", stops=(0.5, 0.3), grid=Grid(20, 1)
    ),
    "gap": lambda comm: vacuum.energies(comm, depths=(1e-1, 1e-2), cells=20),
    "bounded": lambda comm: vacuum.bounded_fields(
        comm, limits=(1.0, 2.0), grid=Grid(20, 2), cells=8
    ),
    "masses": lambda comm: score_limits.mode_weights(comm, distances=(2.0, 4.0), grid=Grid(60, 3)),
    "walls": lambda comm: early_stops.walls_or_line(
        comm, stops=(0.6, 0.5), reach=1.5, grid=Grid(20, 1)
    ),
}


@pytest.mark.parallel(2)
@pytest.mark.parametrize("name", SHORT)
def test_rows_are_the_same_on_all_ranks(name):
    alone, collective_errors = SHORT[name](SELF), SHORT[name](WORLD)
    for a, b in zip(alone.rows, collective_errors.rows, strict=True):
        assert a.quantity == b.quantity
        # Characteristics: where the largest error of a step is, is not where it is on one rank.
        assert b.measured == pytest.approx(a.measured, rel=1e-6, abs=1e-9)
        assert a.passed == b.passed


def test_limit_of_the_energy_of_two_islands():
    # 4 D (H(p_0) - H(p_T)) with 0.7 and 0.3 on two intervals of length 0.3, D = 0.1, T = 1.
    heat, D = score_matching.DATA["disconnected"](0.1), 0.1
    start = 0.7 * math.log(0.7 / 0.3)  # the other island has density 1
    assert 4.0 * D * (start - entropy(heat, 1.0)) == pytest.approx(0.23182, abs=1e-5)
