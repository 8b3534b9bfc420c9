"""What is left on disk, whole or not at all: fields, records, pictures."""

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from dolfinx import fem
from dolfinx.io import VTXWriter
from problems import SELF, WORLD, bump, cube, raised, tracking

import fpcontrol as fpc


def names(folder: Path) -> list[str]:
    """What is in a folder, hidden files too, once all ranks are done."""
    WORLD.barrier()
    return sorted(path.name for path in folder.iterdir())


def tracked(**options) -> fpc.Result:
    problem = tracking(**({"n": 3} | options))
    return fpc.minimize(problem, max_iterations=2, progress=False)


# --- fields --------------------------------------------------------------------------------------


@pytest.mark.parallel([1, 2, 3])
@pytest.mark.parametrize(("dim", "degree"), [(1, 3), (2, 2), (3, 1)])
def test_fields_are_written(dim, degree, tmp_path):
    result = tracked(dim=dim, degree=degree, n=3)
    path = tmp_path / "deep" / "fields.bp"
    fpc.io.write(result.trajectory, path, reference=result.problem.reference)
    assert names(path.parent) == ["fields.bp"]
    # A .bp folder without its index and its data cannot be opened.
    assert {"md.idx", "data.0"} <= set(names(path))
    assert all((path / name).stat().st_size > 0 for name in ("md.idx", "data.0"))


@pytest.mark.parallel([1, 2])
def test_fields_hold_every_level_the_reference_and_the_error(tmp_path, monkeypatch):
    seen = []

    class Spy(VTXWriter):
        def __init__(self, comm, path, fields):
            self.fields = fields
            super().__init__(comm, path, fields)

        def write(self, t: float) -> None:
            seen.append((t, {f.name: f.x.array.copy() for f in self.fields}))
            super().write(t)

    monkeypatch.setattr(fpc.io, "VTXWriter", Spy)
    result = tracked()
    trajectory, reference = result.trajectory, result.problem.reference
    fpc.io.write(trajectory, tmp_path / "fields.bp", reference=reference)
    assert [t for t, _ in seen] == list(trajectory.times)
    for level, (t, fields) in zip(trajectory.levels, seen, strict=True):
        line = reference.coefficients(t)
        assert np.array_equal(fields["density"], level)
        assert np.array_equal(fields["reference"], line)
        assert fields["error"] == pytest.approx(level - line, abs=1e-15)


@pytest.mark.parallel([1, 2])
def test_every_so_many_levels_and_the_last(tmp_path, monkeypatch):
    times = []

    class Spy(VTXWriter):
        def write(self, t: float) -> None:
            times.append(t)
            super().write(t)

    monkeypatch.setattr(fpc.io, "VTXWriter", Spy)
    trajectory = tracked(steps=8).trajectory
    fpc.io.write(trajectory, tmp_path / "fields.bp", every=3)
    assert times == pytest.approx(trajectory.times[[0, 3, 6, 8]])


@pytest.mark.parallel([1, 2, 3])
def test_failed_write_keeps_what_was_there(tmp_path, monkeypatch):
    trajectory, path = tracked().trajectory, tmp_path / "fields.bp"
    fpc.io.write(trajectory, path)
    before = {name: (path / name).read_bytes() for name in names(path)}

    class Failing(VTXWriter):
        def write(self, t: float) -> None:
            super().write(t)
            if t > 0.4:
                raise OSError("No space left on device")

    monkeypatch.setattr(fpc.io, "VTXWriter", Failing)
    assert "No space" in raised(OSError, lambda: fpc.io.write(trajectory, path, every=2))
    assert names(tmp_path) == ["fields.bp"]
    assert {name: (path / name).read_bytes() for name in names(path)} == before
    monkeypatch.undo()
    fpc.io.write(trajectory, path, every=2)
    assert names(tmp_path) == ["fields.bp"]
    assert (path / "data.0").read_bytes() != before["data.0"]


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Files of this process cannot grow beyond a size: what a full disk is to a writer."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


@pytest.mark.parallel([1, 2, 3])
def test_no_room_for_fields_is_an_error_on_all_ranks_and_leaves_nothing(tmp_path):
    trajectory, path = tracked().trajectory, tmp_path / "fields.bp"
    with file_size_limit(10_000):
        refusal = raised(OSError, lambda: fpc.io.write(trajectory, path))
    assert str(path) in refusal
    assert "MB are needed" in refusal
    assert names(tmp_path) == []


@pytest.mark.parallel([1, 3])
@pytest.mark.parametrize(("dim", "degree", "every"), [(1, 1, 1), (2, 1, 1), (2, 3, 4), (3, 2, 2)])
def test_room_asked_for_is_what_fields_take_or_a_little_more(
    dim, degree, every, tmp_path, monkeypatch
):
    asked = []
    monkeypatch.setattr(fpc.io, "reserve", lambda path, beside, size, comm: asked.append(size))
    result = tracked(dim=dim, degree=degree, n=6)
    fpc.io.write(
        result.trajectory, tmp_path / "f.bp", reference=result.problem.reference, every=every
    )
    WORLD.barrier()
    taken = sum(file.stat().st_size for file in (tmp_path / "f.bp").iterdir())
    assert taken <= asked[0] <= 2 * taken + 65536 + 8192 * WORLD.size * 5


@pytest.mark.parallel([1, 2])
def test_functions_are_written_under_their_names(tmp_path, monkeypatch):
    seen = []

    class Spy(VTXWriter):
        def __init__(self, comm, path, fields):
            seen.append([field.name for field in fields])
            super().__init__(comm, path, fields)

    monkeypatch.setattr(fpc.io, "VTXWriter", Spy)
    mesh = cube(WORLD, 2, 3)
    one, two = bump(mesh, 2, 0.3), bump(mesh, 2, 0.7)
    two.name = "goal"
    velocity = fem.Function(fem.functionspace(mesh, ("Lagrange", 1, (2,))), name="velocity")
    for what in (one, [one, two], velocity):
        fpc.io.write(what, tmp_path / "f.bp")
        assert {"md.idx", "data.0"} <= set(names(tmp_path / "f.bp"))
    assert seen == [["density"], ["density", "goal"], ["velocity"]]
    for wrong, message in [
        ([one, bump(mesh, 1, 0.5)], "of different spaces"),
        ([one, one], "must differ"),
        ([], "give a Trajectory"),
        (3.0, "give a Trajectory"),
    ]:
        assert message in raised(ValueError, lambda w=wrong: fpc.io.write(w, tmp_path / "g.bp"))
    assert names(tmp_path) == ["f.bp"]


# --- records -------------------------------------------------------------------------------------


@dataclass
class Note:
    folder: Path
    size: float


@pytest.mark.parallel([1, 2, 3])
def test_record_tells_what_was_run_and_what_came_out(tmp_path):
    result = tracked(degree=2)
    path = tmp_path / "run.json"
    fpc.io.write_record(result, path, {"note": Note(Path("a/b"), np.float64(0.5))})
    WORLD.barrier()
    record = json.loads(path.read_text())
    parts = {"problem", "optimizer", "figures", "history", "ranks", "versions"}
    assert set(record) == parts | {"note"}
    problem, figures, history = record["problem"], record["figures"], record["history"]
    g = result.problem.elements
    assert problem["dofs"] == g.index_map.size_global == 49
    assert (problem["degree"], problem["steps"], problem["pieces"]) == (2, 4, 2)
    assert (problem["width"], problem["activation"], problem["seed"]) == (2, "tanh", 3)
    assert figures["relative_error"] == result.relative_error
    assert figures["relative_sup_error"] == result.relative_sup_error
    assert figures["value"] == result.value
    assert figures["minimum_density"] == result.trajectory.minimum.min()
    assert figures["mass_defect"] == result.mass_defect <= 1e-13
    assert result.trajectory.mass_defect <= 1e-13  # sums in another order: another round-off
    assert (figures["iterations"], figures["stopped_by"]) == (2, "max_iterations")
    assert figures["evaluations"] == result.evaluations
    assert history["value"] == [i.value for i in result.history]
    assert record["ranks"] == WORLD.size
    assert {"python", "petsc", "dolfinx", "numpy"} <= set(record["versions"])
    assert record["note"] == {"folder": "a/b", "size": 0.5}
    assert record["optimizer"] == {
        "method": "gauss_newton",
        "steps": 4,
        "max_iterations": 2,
        "max_evaluations": None,
        "max_seconds": None,
        "gradient_tolerance": 1e-6,
        "target_error": 0.0,
        "petsc_options": {},
        "resumed_from": None,
        "modes": 100,
        "trials": result.optimizer["trials"],
    }
    assert fpc.io.record(result.refined(8))["optimizer"] == record["optimizer"]
    assert names(tmp_path) == ["run.json"]


@pytest.mark.parallel([1, 2])
def test_folder_of_the_user_is_never_replaced(tmp_path):
    result, folder, precious = tracked(), tmp_path / "results", tmp_path / "results" / "x.txt"
    if WORLD.rank == 0:
        folder.mkdir()
        precious.touch()
    WORLD.barrier()

    def minimize() -> None:
        fpc.minimize(tracking(), max_iterations=1, progress=False, checkpoint=folder)

    writers = [
        lambda: fpc.io.write_record(result, folder),
        minimize,
    ]
    for writer in writers:
        assert "is a folder" in raised(IsADirectoryError, writer)
    folder = tmp_path / "results.bp"
    if WORLD.rank == 0:
        precious.parent.rename(folder)
    WORLD.barrier()
    assert "with other things" in raised(
        FileExistsError, lambda: fpc.io.write(result.trajectory, folder)
    )
    assert names(tmp_path) == ["results.bp"]
    assert names(folder) == ["x.txt"]


@pytest.mark.parallel([1, 2])
def test_densities_replace_densities(tmp_path):
    result, path = tracked(), tmp_path / "fields.bp"
    sizes = []
    for every in (1, 4):
        fpc.io.write(result.trajectory, path, every=every)
        assert names(tmp_path) == ["fields.bp"]
        sizes.append((path / "data.0").stat().st_size)
        WORLD.barrier()
    assert sizes[1] < sizes[0]


@pytest.mark.parallel([1, 2])
def test_full_disk_is_told_with_the_name_of_the_file(tmp_path):
    path = tmp_path / "run.json"
    with file_size_limit(1000):
        refusal = raised(
            OSError, lambda: fpc.io.write_json({"x": list(range(10_000))}, path, WORLD)
        )
    assert refusal == f"[Errno 27] File too large: '{path}'"
    assert names(tmp_path) == []


# --- pictures ------------------------------------------------------------------------------------


def check_picture(path: Path, folder: list[str]) -> None:
    """A picture with something on it, and nothing half-written beside it."""
    assert names(path.parent) == folder
    pixels = matplotlib.image.imread(path)
    assert min(pixels.shape[:2]) > 100
    # White paper alone has no spread.
    assert pixels[..., :3].std() > 0.02


@pytest.mark.parallel([1, 3])
@pytest.mark.parametrize(("dim", "degree"), [(1, 1), (1, 3), (2, 1), (2, 2), (2, 3), (3, 1)])
def test_density_is_drawn(dim, degree, tmp_path):
    mesh = cube(WORLD, dim, 3)
    path = tmp_path / "new" / "density.png"
    fpc.plotting.density(bump(mesh, degree, 0.3), path, title="a hill")
    check_picture(path, ["density.png"])


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize(("dim", "degree"), [(1, 2), (2, 1), (3, 1)])
def test_tracking_is_drawn(dim, degree, tmp_path):
    path = tmp_path / "tracking.png"
    fpc.plotting.tracking(tracked(dim=dim, degree=degree, n=2), path, times=3)
    check_picture(path, ["tracking.png"])


@pytest.mark.parallel([2])
def test_picture_does_not_depend_on_the_ranks(tmp_path):
    for comm, name in ((SELF, f"alone{WORLD.rank}.png"), (WORLD, "shared.png")):
        fpc.plotting.density(bump(cube(comm, 2, 6), 2, 0.3), tmp_path / name)
    WORLD.barrier()
    alone, shared = (matplotlib.image.imread(tmp_path / n) for n in ("alone0.png", "shared.png"))
    # Triangles are drawn in another order, which shows along their edges.
    assert np.abs(alone - shared).mean() < 2e-3


@pytest.mark.parallel([1, 2])
def test_failed_picture_keeps_what_was_there(tmp_path, monkeypatch):
    path, rho = tmp_path / "density.png", bump(cube(WORLD, 2, 3), 1, 0.3)
    fpc.plotting.density(rho, path)
    WORLD.barrier()
    before = path.read_bytes()

    def failing(self, target, **options) -> None:
        Path(target).write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", failing)
    assert "No space" in raised(OSError, lambda: fpc.plotting.density(rho, path))
    assert names(tmp_path) == ["density.png"]
    assert path.read_bytes() == before
