"""Results of an optimization come back on any number of ranks, for their own problem only."""

import numpy as np
import pytest
from problems import SELF, WORLD, bump, cube, raised, tracking

import fpcontrol as fpc


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("sigma", [0.8, 0.0])
def test_result_comes_back(tmp_path, sigma):
    found = fpc.minimize(tracking(sigma=sigma), max_iterations=4, progress=False)
    fpc.io.save(found, tmp_path / "found.npz")
    WORLD.barrier()
    for comm in (WORLD, SELF):
        back = fpc.io.load(tmp_path / "found.npz", tracking(comm, sigma=sigma))
        assert back.weights.tolist() == found.weights.tolist()
        assert back.history == found.history
        assert (back.reason, back.evaluations) == (found.reason, found.evaluations)
        assert back.optimizer["max_iterations"] == 4
        assert back.relative_error == pytest.approx(found.relative_error, rel=1e-9)
        assert back.mass == pytest.approx(found.mass, rel=1e-9)


def test_checkpoint_of_an_optimization_can_be_loaded(tmp_path):
    path = tmp_path / "run.npz"
    found = fpc.minimize(tracking(SELF), max_iterations=3, checkpoint=path, progress=False)
    back = fpc.io.load(path, tracking(SELF))
    assert np.array_equal(back.weights, found.weights)
    assert back.reason == "checkpoint" and back.evaluations == found.evaluations


@pytest.mark.parallel([1, 2])
def test_what_is_no_result_of_this_problem_is_refused(tmp_path):
    found = fpc.minimize(tracking(), max_iterations=1, progress=False)
    path = tmp_path / "found.npz"
    fpc.io.save(found, path)
    words = raised(ValueError, lambda: fpc.io.load(path, tracking(sigma=0.7)))
    assert "of another problem" in words and "sigma" in words
    words = raised(OSError, lambda: fpc.io.load(tmp_path / "none.npz", tracking()))
    assert "no such file" in words
    fpc.io.save(fpc.density.uniform(found.problem.elements.mesh), tmp_path / "rho.npz")
    words = raised(OSError, lambda: fpc.io.load(tmp_path / "rho.npz", tracking()))
    assert "not a checkpoint" in words
    assert ".npz" in raised(ValueError, lambda: fpc.io.save(found, tmp_path / "found.txt"))


def test_methods_and_objectives_tell_problems_apart(tmp_path):
    class Still(fpc.objectives.Objective):
        def on(self, setting):
            return fpc.objectives.Cost()

    def problem(method=None, objectives=()):
        mesh = cube(SELF, 2, 3)
        flow = fpc.MoserFlow(
            bump(mesh, 1, 0.3), bump(mesh, 1, 0.7), 1.0, 0.8, discretization=method
        )
        drift = fpc.NetworkDrift(mesh, 2, 2)
        scheme = fpc.BackwardEuler()
        return fpc.TrackingProblem(flow, drift, 0.8, 4, scheme=scheme, objectives=objectives)

    path = tmp_path / "found.npz"
    fpc.io.save(fpc.minimize(problem(), max_iterations=1, progress=False), path)
    with pytest.raises(ValueError, match=r"discretization = .*Galerkin.*Monotone"):
        fpc.io.load(path, problem(fpc.Monotone()))
    with pytest.raises(ValueError, match=r"objectives = \[\] there, \['FinalKL\(weight=2.0\)'\]"):
        fpc.io.load(path, problem(objectives=(fpc.objectives.FinalKL(2.0),)))
    fpc.io.save(fpc.minimize(problem(None, (Still(),)), max_iterations=1, progress=False), path)
    assert fpc.io.load(path, problem(None, (Still(),))).evaluations > 0  # another value, as good
