"""Files and folders that are missing or cannot be made."""

from pathlib import Path

import pytest
from problems import WORLD, minimize, raised, solve, tracking

import fpcontrol as fpc


@pytest.fixture
def blocked(tmp_path: Path) -> Path:
    """A folder that cannot be made, not even by root: its parent is a file."""
    if WORLD.rank == 0:
        (tmp_path / "file").write_text("")
    WORLD.barrier()
    return tmp_path / "file" / "out"


@pytest.mark.parallel([1, 2])
def test_missing_files_are_named(tmp_path):
    path = tmp_path / "island.xdmf"
    assert str(path) in raised(FileNotFoundError, lambda: fpc.mesh.read(path, WORLD))
    points = tmp_path / "towns.csv"
    assert str(points) in raised(FileNotFoundError, lambda: fpc.io.read_points(points, WORLD))


@pytest.mark.parallel([1, 2])
def test_folders_that_cannot_be_made_are_named(blocked):
    result = minimize()
    calls = [
        lambda: fpc.plotting.tracking(result, blocked / "a.png"),
        lambda: fpc.plotting.density(result.trajectory[0], blocked / "a.png"),
        lambda: fpc.io.write(result.trajectory, blocked / "a.bp"),
        lambda: fpc.io.write_record(result, blocked / "a.json"),
        lambda: minimize(checkpoint=blocked / "a.npz"),
    ]
    for call in calls:
        message = raised(OSError, call)
        assert str(blocked) in message
        assert "Choose another path" in message


@pytest.mark.parallel([1, 2])
def test_fields_in_an_unknown_format_are_refused(tmp_path):
    trajectory = solve()
    path = tmp_path / "a.vtu"
    assert "must end in .bp" in raised(ValueError, lambda: fpc.io.write(trajectory, path))


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("every", [-1, 0, 2.5])
def test_fields_of_no_number_of_levels_are_refused(every, tmp_path):
    trajectory, path = solve(), tmp_path / "a.bp"
    message = raised(ValueError, lambda: fpc.io.write(trajectory, path, every=every))
    assert f"every = {every}" in message


@pytest.mark.parallel([1, 2])
def test_densities_along_labels_are_written_on_a_mesh(tmp_path):
    problem, path = tracking(sigma=0.0), tmp_path / "a.bp"
    flow = problem.trajectory(problem.drift.weights)
    message = raised(ValueError, lambda: fpc.io.write(flow, path))
    assert "trajectory.on_mesh(space)" in message
    fpc.io.write(flow.on_mesh(problem.elements.space), path)
    assert path.exists()


@pytest.mark.parallel([1, 2])
def test_pictures_that_cannot_be_drawn_are_refused(tmp_path):
    result = minimize()
    for times in (1, 0, 2.5):
        path = tmp_path / "t.png"
        message = raised(
            ValueError, lambda t=times, p=path: fpc.plotting.tracking(result, p, times=t)
        )
        assert f"times = {times}" in message
    for name in ("fig", "fig.xyz"):
        path = tmp_path / name
        for call in (
            lambda p=path: fpc.plotting.tracking(result, p),
            lambda p=path: fpc.plotting.density(result.problem.reference.start, p),
        ):
            message = raised(ValueError, call)
            assert name in message
            assert "png" in message
    assert not list(tmp_path.iterdir())
