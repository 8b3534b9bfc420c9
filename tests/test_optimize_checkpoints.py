"""Checkpoints of the optimization: written, resumed, refused."""

import numpy as np
import pytest
from problems import SELF, WORLD, count_derivatives, cube, quiet, raised, tracking

import fpcontrol as fpc


@pytest.mark.parallel([1, 2, 3])
def test_resumed_run_goes_on_where_the_first_one_ended(tmp_path):
    path = tmp_path / "new" / "run.npz"
    first = quiet(tracking(), max_iterations=6, checkpoint=path)
    problem = tracking()
    second = quiet(problem, max_iterations=4, resume=path, checkpoint=path)
    assert second.history[:7] == first.history
    assert [i.iteration for i in second.history] == list(range(11))
    assert second.value < first.value
    assert second.history[7].evaluations > first.evaluations
    assert second.history[7].seconds >= first.history[-1].seconds
    third = quiet(tracking(), max_iterations=1, resume=path)
    assert third.history[:11] == second.history
    assert sorted(p.name for p in path.parent.iterdir()) == ["run.npz"]


@pytest.mark.parallel([1, 2])
def test_resumed_run_stops_against_the_first_gradient_of_all(tmp_path):
    path = tmp_path / "run.npz"
    first = quiet(tracking(), max_iterations=6, checkpoint=path)
    fraction = 1.01 * first.history[-1].gradient_norm / first.history[0].gradient_norm
    second = quiet(tracking(), resume=path, gradient_tolerance=fraction, max_iterations=50)
    assert second.reason == "gradient_tolerance"
    assert second.history[-1].gradient_norm <= fraction * first.history[0].gradient_norm


@pytest.mark.parallel([1, 2])
def test_checkpoint_is_written_every_so_many_iterations(tmp_path, monkeypatch):
    from fpcontrol.control import run

    lengths = []
    write = run.write_checkpoint

    def spy(path, fingerprint, weights, history, comm):
        lengths.append(len(history) - 1)
        write(path, fingerprint, weights, history, comm)

    monkeypatch.setattr(run, "write_checkpoint", spy)
    quiet(tracking(), max_iterations=8, checkpoint=tmp_path / "run.npz", checkpoint_every=3)
    assert lengths == [3, 6, 8]


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"degree": 2}, "degree = 1 there, 2 here"),
        ({"n": 5}, "cells = 32 there, 50 here"),
        ({"sigma": 0.9}, "sigma = [0.8, "),
        ({"activation": "sin"}, "activation = 'tanh' there, 'sin' here"),
        ({"width": 3}, "width = 2 there, 3 here"),
        ({"pieces": 4}, "pieces = 2 there, 4 here"),
        ({"decay": 0.1}, "decay = 0.0 there, 0.1 here"),
        ({"own_start": True}, "start_norm = "),
        ({"scheme": fpc.BackwardEuler()}, "scheme = 'CrankNicolson' there, 'BackwardEuler' here"),
    ],
    ids=str,
)
def test_checkpoint_of_another_problem_is_refused(change, named, tmp_path):
    path = tmp_path / "run.npz"
    quiet(tracking(), max_iterations=1, checkpoint=path)
    other = tracking(**change)
    message = raised(ValueError, lambda: quiet(other, resume=path))
    assert "is of another problem" in message
    assert named in message


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("dim", [1, 2])
@pytest.mark.parametrize("sigma", [0.0, 0.5])
def test_checkpoint_of_a_mirror_image_or_another_place_is_refused(sigma, dim, tmp_path):
    def problem(axis=0, centre=0.7, size=1.0, lower=0.0):
        mesh = cube(WORLD, dim, 8, size, lower)

        def f(x):
            return 1.0 + np.exp(-20.0 * ((x[axis] - lower) / size - centre) ** 2)

        goal = fpc.density.interpolate(mesh, f)
        reference = fpc.MoserFlow(fpc.density.uniform(mesh), goal, 1.0, sigma)
        return fpc.TrackingProblem(reference, fpc.NetworkDrift(mesh, dim, 2), sigma, 4)

    path = tmp_path / "run.npz"
    first = quiet(problem(), max_iterations=1, checkpoint=path)
    assert quiet(problem(), max_iterations=1, resume=path).history[:2] == first.history
    others = [({"centre": 0.3}, "reference_moments"), ({"lower": 1.0}, "box")]
    others += [({"axis": 1}, "reference_moments")] if dim == 2 else []
    for change, named in others:
        other = problem(**change)
        message = raised(ValueError, lambda other=other: quiet(other, resume=path))
        assert f"{named} = [" in message


@pytest.mark.parallel([2, 3])
def test_checkpoint_of_one_rank_is_that_of_many(tmp_path):
    path = tmp_path / f"run{WORLD.rank}.npz"
    alone = quiet(tracking(SELF, own_start=True), max_iterations=1, checkpoint=path)
    others = quiet(tracking(own_start=True), max_iterations=1, resume=tmp_path / "run0.npz")
    assert others.history[0].value == pytest.approx(alone.history[0].value, rel=1e-12)


@pytest.mark.parallel([1, 2])
def test_missing_and_corrupted_checkpoints_are_refused(tmp_path):
    path, problem = tmp_path / "run.npz", tracking()
    assert "no such file" in raised(FileNotFoundError, lambda: quiet(problem, resume=path))
    quiet(problem, max_iterations=1, checkpoint=path)
    whole = path.read_bytes()
    for content in (b"", b"no archive", whole[: len(whole) // 2]):
        WORLD.barrier()
        if WORLD.rank == 0:
            path.write_bytes(content)
        WORLD.barrier()
        assert "is not a checkpoint" in raised(OSError, lambda: quiet(problem, resume=path))


@pytest.mark.parallel([1, 2])
def test_checkpoint_that_cannot_be_written_is_an_error_before_the_first_step(tmp_path, monkeypatch):
    if WORLD.rank == 0:
        (tmp_path / "file").write_text("")
    WORLD.barrier()
    problem = tracking()
    calls = count_derivatives(problem, monkeypatch)
    path = tmp_path / "file" / "run.npz"
    assert "Choose another path" in raised(OSError, lambda: quiet(problem, checkpoint=path))
    assert not calls
