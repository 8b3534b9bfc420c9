"""What a run says of its resolution: cell Peclet numbers, weights cut off."""

import json

import numpy as np
import pytest
from problems import SELF, WORLD, cube, quiet, tracking
from test_delaunay import jittered

import fpcontrol as fpc
from fpcontrol.drift import Steady

pytestmark = pytest.mark.filterwarnings("ignore:The run rings", "ignore:The density is neg")
METHODS = pytest.mark.parametrize(
    "method", [fpc.Galerkin(1), fpc.Galerkin(2), fpc.Limited(), fpc.Monotone()]
)


def run(mesh, drift, sigma, method, steps=4):
    start = fpc.density.uniform(mesh, discretization=method)
    return fpc.FokkerPlanck(mesh, drift, sigma, discretization=method).solve(start, 1.0, steps)


@pytest.mark.parallel([1, 2, 3])
@METHODS
def test_constant_drift_has_one_number_in_1d(method):
    trajectory = run(cube(WORLD, 1, 20), Steady(lambda x: np.full_like(x, 0.3)), 0.5, method)
    number = 0.3 / 20 / (2.0 * 0.125)
    assert trajectory.cell_peclet.largest == pytest.approx(number, rel=1e-12)
    assert trajectory.cell_peclet.median == pytest.approx(number, rel=0.02)
    assert trajectory.clipped == 0.0
    assert "cell Peclet number 0.06, 99 % 0.06, max 0.06" in repr(trajectory)


@pytest.mark.parallel([1, 2])
@METHODS
def test_length_is_that_along_the_drift(method):
    mesh = fpc.mesh.rectangle(WORLD, (8, 2))  # cells four times as high as wide
    for axis, h in ((0, 1.0 / 8.0), (1, 1.0 / 2.0)):
        drift = Steady(lambda x, axis=axis: np.eye(2)[axis] * np.ones((len(x), 1)))
        assert run(mesh, drift, 1.0, method).cell_peclet.largest == pytest.approx(h, rel=1e-12)


@pytest.mark.parallel([1, 2])
@METHODS
def test_quantiles_are_by_volume(method):
    # A tenth of the square is a hundred times as fast.
    drift = Steady(lambda x: np.where(x[:, :1] < 0.1, 1.0, 0.01) * [1.0, 0.0])
    median, most, largest = run(cube(WORLD, 2, 20), drift, 1.0, method).cell_peclet
    if method != fpc.Monotone():  # half of its edges are across the drift
        assert median == pytest.approx(5e-4, rel=0.02)
    assert most == pytest.approx(largest, rel=0.02)
    assert largest == pytest.approx(5e-2, rel=1e-12)


def test_every_piece_of_a_drift_counts():
    mesh = cube(SELF, 1, 10)

    class Steps(fpc.drift.Drift):
        switches = np.array([0.25, 0.5, 0.75])

        def __call__(self, t, x):
            return np.full_like(x, [0.1, 0.1, 0.1, 5.0][min(int(4 * t), 3)])

        def piece(self, t):
            return int(4 * t)

    for steps in (4, 400):
        found = run(mesh, Steps(), 1.0, fpc.Galerkin(1), steps).cell_peclet
        assert found.median == pytest.approx(0.01, rel=0.02)
        assert found.most == pytest.approx(0.5, rel=0.02)
        assert found.largest == pytest.approx(0.5, rel=1e-12)
    moving = run(mesh, lambda t, x: np.full_like(x, t), 1.0, fpc.Galerkin(1), 400).cell_peclet
    assert moving.median == pytest.approx(0.05, rel=0.1)
    assert 0.09 < moving.largest <= 0.1


def test_no_drift_has_no_number():
    assert run(cube(SELF, 2, 3), fpc.drift.zero(), 1.0, fpc.Galerkin(1)).cell_peclet == (0, 0, 0)


@pytest.mark.filterwarnings("ignore:.*negative and cut off")
def test_share_of_weights_cut_off_is_said():
    bad = jittered(SELF, 8)
    trajectory = run(bad, fpc.drift.zero(), 1.0, fpc.Monotone())
    assert trajectory.clipped > 0.01
    assert f"{trajectory.clipped:.2g} of the weights cut off" in repr(trajectory)
    assert run(bad, fpc.drift.zero(), 1.0, fpc.Galerkin(1)).clipped == 0.0
    assert run(fpc.mesh.delaunay(bad), fpc.drift.zero(), 1.0, fpc.Monotone()).clipped < 1e-10


@pytest.mark.parallel([1, 2])
def test_figures_are_kept_with_a_trajectory(tmp_path):
    mesh = cube(WORLD, 2, 4)
    trajectory = run(mesh, lambda t, x: x, 0.5, fpc.Galerkin(1))
    fpc.io.save(trajectory, tmp_path / "run.npz")
    back = fpc.io.load(tmp_path / "run.npz", mesh)
    assert back.cell_peclet == trajectory.cell_peclet and back.clipped == 0.0
    assert repr(back) == repr(trajectory)


@pytest.mark.parallel([1, 2])
def test_results_have_them(tmp_path):
    result = quiet(tracking(), max_iterations=3)
    run = fpc.FokkerPlanck(result.drift.mesh, result.drift, 0.8, degree=1)
    trajectory = run.solve(result.problem.reference.start, 1.0, 4)
    assert result.cell_peclet == pytest.approx(trajectory.cell_peclet, rel=1e-9)
    assert result.trajectory.cell_peclet == result.cell_peclet
    assert f"{result.cell_peclet}" in result.summary()
    fpc.io.write_record(result, tmp_path / "record.json")
    WORLD.barrier()
    figures = json.loads((tmp_path / "record.json").read_text())["figures"]
    assert figures["cell_peclet"]["largest"] == result.cell_peclet.largest
    assert quiet(tracking(sigma=0.0), max_iterations=1).cell_peclet is None
