"""Trajectories and densities that are saved and loaded, on any ranks."""

import resource
from pathlib import Path

import numpy as np
import pytest
from problems import SELF, WORLD, bump, cube, raised

import fpcontrol as fpc


def solved(comm, dim: int, degree: int, n: int = 4, **options) -> fpc.Trajectory:
    mesh = cube(comm, dim, n)
    equation = fpc.FokkerPlanck(mesh, lambda t, x: 0.5 - x, 0.7, degree=degree)
    return equation.solve(bump(mesh, degree, 0.3), 0.5, 4, **options)


def by_place(trajectory: fpc.Trajectory) -> dict:
    x = np.round(trajectory.space.tabulate_dof_coordinates(), 9) + 0.0
    return {tuple(p): u for p, u in zip(x, trajectory.levels.T, strict=True)}


@pytest.mark.parallel([1, 2, 3])
@pytest.mark.parametrize(("dim", "degree"), [(1, 2), (2, 1), (2, 3), (3, 2)])
def test_trajectory_comes_back_on_another_number_of_ranks(dim, degree, tmp_path):
    here, path = solved(WORLD, dim, degree), tmp_path / "new" / "run.npz"
    fpc.io.save(here, path)
    WORLD.barrier()
    assert sorted(file.name for file in path.parent.iterdir()) == ["run.npz"]
    again = fpc.io.load(path, here.space.mesh)
    alone = fpc.io.load(path, cube(SELF, dim, 4))  # of every rank its own
    owned = here.space.dofmap.index_map.size_local
    assert np.array_equal(again.levels[:, :owned], here.levels[:, :owned])
    # A ghost of the start may differ from its owner by round-off; what is loaded does not.
    assert again.levels == pytest.approx(here.levels, rel=1e-14)
    everywhere = by_place(alone)
    for place, values in by_place(again).items():
        assert np.array_equal(everywhere[place], values)
    for name in ("times", "all_times", "mass", "minimum", "iterations", "time_error"):
        assert np.array_equal(getattr(alone, name), getattr(here, name)), name
    assert alone.mass_defect == here.mass_defect
    # A loaded density starts another run.
    fpc.FokkerPlanck(here.space.mesh, lambda t, x: 0 * x, 1.0, degree=degree).solve(
        again[-1], 1.0, 1
    )


@pytest.mark.parallel([1, 2])
def test_levels_kept_and_density_come_back(tmp_path):
    trajectory = solved(WORLD, 2, 1, save="last")
    fpc.io.save(trajectory, tmp_path / "last.npz")
    again = fpc.io.load(tmp_path / "last.npz", trajectory.space.mesh)
    assert (len(again), len(again.all_times), len(again.mass)) == (1, 5, 5)
    rho = trajectory[0]
    rho.name = "goal"
    fpc.io.save(rho, tmp_path / "rho.npz")
    density = fpc.io.load(tmp_path / "rho.npz", rho.function_space.mesh)
    assert density.name == "goal"
    assert density.x.array == pytest.approx(rho.x.array, rel=1e-14)


@pytest.mark.parallel([1, 2, 3])
def test_other_meshes_and_files_are_refused(tmp_path):
    trajectory, path = solved(WORLD, 2, 1), tmp_path / "run.npz"
    fpc.io.save(trajectory, path)
    other = {
        "25 unknowns of degree 1": cube(WORLD, 2, 5),
        "in 2 dimensions there": cube(WORLD, 1, 24),
        "nodes lie up to": cube(WORLD, 2, 4, size=1.01),
    }
    for message, mesh in other.items():
        refusal = raised(ValueError, lambda m=mesh: fpc.io.load(path, m))
        assert "is of another mesh" in refusal
        assert message in refusal
    mesh, broken = trajectory.space.mesh, tmp_path / "broken.npz"
    assert "no such file" in raised(FileNotFoundError, lambda: fpc.io.load(broken, mesh))
    if WORLD.rank == 0:
        broken.write_bytes(path.read_bytes()[:-200])
        np.savez(tmp_path / "else.npz", weights=np.zeros(3))
    WORLD.barrier()
    for name in ("broken.npz", "else.npz"):
        file = tmp_path / name
        assert "is no file that" in raised(OSError, lambda f=file: fpc.io.load(f, mesh))
    assert "must end in .npz" in raised(ValueError, lambda: fpc.io.save(trajectory, "run.h5"))
    assert "cannot be saved" in raised(ValueError, lambda: fpc.io.save(3.0, "run.npz"))


@pytest.mark.parallel([1, 2])
def test_failed_save_keeps_what_was_there(tmp_path):
    trajectory, path = solved(WORLD, 2, 1), tmp_path / "run.npz"
    fpc.io.save(trajectory, path)
    WORLD.barrier()
    before = path.read_bytes()
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, old[1]))
    try:
        refusal = raised(OSError, lambda: fpc.io.save(trajectory, path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert str(path) in refusal
    assert [file.name for file in Path(tmp_path).iterdir()] == ["run.npz"]
    assert path.read_bytes() == before
