"""The cases of bench_bridges.py in 3-D: their mesh, their distance, one small row."""

import math
from pathlib import Path

from mpi4py import MPI

import numpy as np
import pytest

import fpcontrol as fpc
from fpcontrol.discretization.elements import Elements, lagrange

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

pytestmark = pytest.mark.parallel(1)


@pytest.fixture
def cases(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import bridges_cases

    return bridges_cases


def test_cells_are_small_in_the_middle(cases):
    target = cases.TARGETS["space"]
    mesh = target.mesh(8)
    g = Elements(lagrange(mesh, 1), 2)
    assert g.volume == pytest.approx((2.0 * target.half) ** 3)
    side = np.unique(np.round(mesh.geometry.x[:, 0], 12))
    equal = 2.0 * target.half / 8
    assert len(side) == 9 and side[4] == 0.0
    assert (side[[0, -1]] == [-target.half, target.half]).all()
    assert side[5] == pytest.approx(equal * (target.middle + (1.0 - target.middle) / 16.0))
    assert side[8] - side[7] > 1.5 * equal
    line = cases.TARGETS["plane"].mesh(8).geometry.x[:, 0]
    assert np.diff(np.unique(np.round(line, 12))) == pytest.approx(np.full(8, 9.6 / 8))


def test_sliced_distance_of_a_shift(cases):
    mesh, c = fpc.mesh.box(MPI.COMM_SELF, (16,) * 3, (-3.0,) * 3, (3.0,) * 3), 0.4
    pair = [
        fpc.density.interpolate(
            mesh, lambda x, a=a: np.exp(-((x[0] - a) ** 2 + x[1] ** 2 + x[2] ** 2) / 0.8), 1
        )
        for a in (0.0, c)
    ]
    rho, other = (fpc.density.normalized(f) for f in pair)
    assert cases._sliced_at_nodes(rho, rho) == 0.0
    # Of 200 directions: a standard deviation of 3 %.
    assert cases._sliced_at_nodes(rho, other) == pytest.approx(c / math.sqrt(3.0), rel=0.08)


def test_a_row_keeps_girsanovs_bound(cases):
    exact, fitted = (
        cases.measured(cases.Case("space", form, "kl", n, 0, 6, 4))
        for form, n in (("exact", 0), ("plain", 8))
    )
    assert exact["path KL"] == 0.0
    assert exact["KL"] < exact["KL error"]  # of second order: no more than a third of it
    assert 0.2 < fitted["L2"] and 0.05 < fitted["W2"]
    for row in (exact, fitted):
        assert row["KL"] - row["KL error"] < row["path KL"] + row["path KL error"]
    assert exact["KL"] + exact["KL error"] < fitted["KL"] < fitted["path KL"]
