"""Moving pictures: what is on their frames, where they are written, and what is refused."""

import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.collections import LineCollection
from PIL import Image
from problems import LAST, WORLD, bump, cube, raised, solve, tracking

import fpcontrol as fpc
from fpcontrol.plotting import film, moving
from fpcontrol.plotting.film import Film, Movie
from fpcontrol.plotting.scene import Scene

MESHES = Path(__file__).parents[1] / "meshes"


class Swarm:
    """Stands in for particles: at each time all of this rank's are at one place."""

    def __init__(self, times, dim: int, count: int = 10) -> None:
        self.times = np.asarray(times, dtype=float)
        self.x = [np.full((count, dim), 0.25 + 0.5 * t) for t in self.times]

    def __len__(self) -> int:
        return len(self.times)

    def __getitem__(self, k: int) -> np.ndarray:
        return self.x[k]


class Filmed:
    """What was drawn on rank 0, in place of a file."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.frames: list[dict] = []
        draw = Scene.draw

        def watched(scene, k, t, samples, dots):
            draw(scene, k, t, samples, dots)
            axes = scene.figure.axes
            self.scene = scene
            words = [w.get_text() for w in scene.figure.findobj(matplotlib.text.Text)]
            self.frames.append({"t": t, "samples": samples, "dots": dots, "words": words})
            self.limits = [(*ax.get_xlim(), *ax.get_ylim()) for ax in axes]
            self.frames[-1]["limits"] = self.limits
            box, paper = scene.figure.get_tightbbox(), scene.figure.bbox_inches
            assert box.x0 >= paper.x0 and box.x1 <= paper.x1  # nothing is cut off
            assert box.y0 >= paper.y0 and box.y1 <= paper.y1
            self.frames[-1]["clim"] = scene._norm.vmin, scene._norm.vmax

        monkeypatch.setattr(Scene, "draw", watched)


@pytest.fixture
def gif(monkeypatch):
    """A machine without ffmpeg; small pictures, which are written sooner."""
    monkeypatch.setattr(film, "DPI", 30)
    monkeypatch.setattr(film, "ffmpeg", lambda: None)
    monkeypatch.setattr(moving, "ffmpeg", lambda: None)


def result(dim: int = 2, **options) -> fpc.Result:
    problem = tracking(**({"n": 3, "dim": dim} | options))
    return fpc.minimize(problem, max_iterations=1, progress=False)


def animation(*arguments, **options):
    return fpc.plotting.animation(*arguments, progress=False, **options)


@pytest.mark.parallel([1, 2, 3])
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_frames_are_the_levels_that_are_there(dim, tmp_path, gif, monkeypatch):
    """With the reference beside, the drift as arrows, particles on top."""
    filmed, found = Filmed(monkeypatch), result(dim)
    swarm = Swarm(np.linspace(0.0, 1.0, 3), dim)
    path = animation(
        found, tmp_path / "a.gif", particles=swarm, drift=found.drift, unit="m", title="a title"
    )
    assert path == tmp_path / "a.gif"
    WORLD.barrier()
    assert [p.name for p in tmp_path.iterdir()] == ["a.gif"]
    if WORLD.rank:
        return
    with Image.open(path) as image:
        assert image.n_frames == 5
    assert [frame["t"] for frame in filmed.frames] == pytest.approx(found.problem.times)
    assert [len(frame["samples"]) for frame in filmed.frames] == [2] * 5
    places = [np.nanmean(frame["dots"]) for frame in filmed.frames]
    assert places == pytest.approx([0.25, 0.25, 0.5, 0.5, 0.75])  # of two levels as near the first
    assert all(len(frame["dots"]) == 10 * WORLD.size for frame in filmed.frames)
    words = filmed.frames[-1]["words"]
    assert {"a title\nt = 1.00", "x (m)"} <= set(words)
    assert any(word.startswith("controlled") for word in words)
    assert any(word.startswith("reference") for word in words)
    assert any("z = 0.5 m" in word for word in words) == (dim == 3)
    assert filmed.scene.arrows.values.shape[0] == 5
    # Nothing that is the frame of the picture moves.
    assert len({frame["clim"] for frame in filmed.frames}) == 1
    assert all(frame["limits"] == filmed.frames[0]["limits"] for frame in filmed.frames)
    for ax in filmed.scene.figure.axes if dim > 1 else ():
        assert ax.get_aspect() == 1.0 or ax.get_ylabel().startswith("density")


@pytest.mark.parallel([1, 2, 3])
def test_streamlines_follow_the_drift_within_the_domain(gif, tmp_path, monkeypatch):
    filmed = Filmed(monkeypatch)
    mesh = fpc.mesh.read(MESHES / "l_shape.xdmf", WORLD)

    def turning(t, x):
        return (1.0 + t) * np.column_stack([-x[:, 1], x[:, 0]])

    start = fpc.density.uniform(mesh, degree=1)
    equation = fpc.FokkerPlanck(mesh, fpc.drift.zero(), 0.5, discretization=fpc.Galerkin(1))
    trajectory = equation.solve(start, t1=0.2, steps=2)
    animation(trajectory, tmp_path / "a.gif", drift=turning, streamlines=True)
    if WORLD.rank == 0:
        ax = filmed.scene._axes[0]
        (lines,) = [c for c in ax.collections if isinstance(c, LineCollection)]  # of one frame
        segments = np.array([s for s in lines.get_segments() if len(s) == 2])
        along, at = np.diff(segments, axis=1)[:, 0], segments.mean(axis=1)
        v = turning(0.0, at)
        lengths = np.linalg.norm(along, axis=1) * np.linalg.norm(v, axis=1)
        moving = lengths > 1e-12
        assert np.count_nonzero(moving) > 200
        assert (np.sum(along * v, axis=1)[moving] > 0.95 * lengths[moving]).all()
        missing = (at[:, 0] > 0.05) & (at[:, 1] < -0.05)  # a quarter of (-1, 1)^2
        assert not missing.any() and (at.min(axis=0) < -0.9).all() and at.max() > 0.9


@pytest.mark.parallel([1, 2, 3])
def test_arrows_are_those_of_the_drift_whoever_owns_the_cells(gif, tmp_path, monkeypatch):
    """That of a Moser flow is known on a rank's own cells only."""
    filmed, problem = Filmed(monkeypatch), tracking(n=6)
    trajectory = solve(steps=2)
    animation(trajectory, tmp_path / "a.gif", drift=lambda t, x: (1.0 + t) * x)
    if WORLD.rank == 0:
        arrows = filmed.scene.arrows
        assert len(arrows.points) == 22**2
        assert arrows.values[1] == pytest.approx(1.5 * arrows.points)
    reference = problem.reference
    trajectory = problem.trajectory(problem.drift.weights)
    animation(trajectory, tmp_path / "a.gif", drift=reference.drift, reference=reference)
    if WORLD.rank == 0:
        assert len(filmed.scene.arrows.points) == 22**2


@pytest.mark.parallel([1, 2])
def test_few_frames_of_many_levels_are_evenly_in_time(gif, tmp_path, monkeypatch):
    filmed = Filmed(monkeypatch)
    trajectory = solve(steps=40, save=[0.0, 0.1, 0.15, 0.2, 0.25, 0.5, 0.75, 1.0])
    animation(trajectory, tmp_path / "a.gif", frames=5)
    if WORLD.rank == 0:
        assert [frame["t"] for frame in filmed.frames] == pytest.approx([0, 0.25, 0.5, 0.75, 1])


@pytest.mark.parallel([1, 2])
def test_reference_on_another_mesh_is_drawn_beside(gif, tmp_path, monkeypatch):
    filmed = Filmed(monkeypatch)
    mesh = cube(WORLD, 2, 6)
    still = fpc.FokkerPlanck(mesh, fpc.drift.zero(), 0.3, degree=2)
    reference = still.solve(fpc.density.uniform(mesh), 1.0, 4)
    animation(solve(), tmp_path / "a.gif", reference=reference)
    if WORLD.rank == 0:
        assert all(frame["samples"][1].values == pytest.approx(1.0) for frame in filmed.frames)


@pytest.mark.parallel([1, 2])
def test_a_peak_of_few_frames_does_not_darken_the_others(gif, tmp_path, monkeypatch):
    """The scale ends at twice the median of the frames' largest, and what is cut off is named."""
    filmed = Filmed(monkeypatch)
    start = fpc.density.interpolate(
        cube(WORLD, 2, 8), lambda x: np.exp(-100.0 * ((x[:2] - 0.5) ** 2).sum(axis=0)), 1
    )
    e = fpc.FokkerPlanck(start.function_space.mesh, fpc.drift.zero(), 0.7, degree=1)
    trajectory = e.solve(start, 0.5, 5, scheme=fpc.BackwardEuler())
    animation(trajectory, tmp_path / "a.gif")
    tops = [WORLD.allreduce(u.max(), max) for u in trajectory.levels]
    if WORLD.rank == 0:
        assert filmed.frames[0]["clim"][1] == pytest.approx(2.0 * np.median(tops))
        assert 2.0 * np.median(tops) < tops[0]
        assert any(f"largest {tops[0]:.2g}" in word for word in filmed.frames[0]["words"])
    animation(trajectory, tmp_path / "a.gif", highest_density=5.0)
    if WORLD.rank == 0:
        assert filmed.frames[-1]["clim"] == (0.0, 5.0)


@pytest.mark.parallel([1, 3])
def test_of_many_particles_some_are_drawn_and_those_that_left_are_not(gif, tmp_path, monkeypatch):
    filmed = Filmed(monkeypatch)
    swarm = Swarm([0.0, 1.0], 2, 7000 if LAST else 100)
    swarm.x[1][:] = np.nan
    animation(solve(steps=1), tmp_path / "a.gif", particles=swarm)
    if WORLD.rank == 0:
        first, last = (np.isfinite(frame["dots"][:, 0]) for frame in filmed.frames)
        total = 7000 + 100 * (WORLD.size - 1)
        assert first.all() and len(first) == -(-total // 3)
        assert not last.any()


@pytest.mark.parallel([1, 2])
def test_particles_of_a_simulation_are_drawn(gif, tmp_path, monkeypatch):
    filmed, trajectory = Filmed(monkeypatch), solve(steps=2)
    start, mesh = trajectory[0], trajectory.space.mesh
    points = fpc.particles.draw(start, 50)
    swarm = fpc.particles.simulate(mesh, fpc.drift.zero(), points, 0.5, 1.0, 4, save=2)
    animation(trajectory, tmp_path / "a.gif", particles=swarm)
    for k in range(3):
        x = swarm.gather(k)
        if WORLD.rank == 0:
            assert np.array_equal(filmed.frames[k]["dots"], x)


@pytest.mark.parallel([1, 2])
def test_without_ffmpeg_a_gif_is_written_and_said(gif, tmp_path, capfd):
    path = animation(solve(), tmp_path / "a.mp4")
    assert path == tmp_path / "a.gif"
    assert ("no ffmpeg is found" in capfd.readouterr().err) == (WORLD.rank == 0)
    WORLD.barrier()
    assert [p.name for p in tmp_path.iterdir()] == ["a.gif"]


@pytest.mark.parallel([1, 2])
def test_ffmpeg_makes_an_mp4(tmp_path):
    if not film.ffmpeg():
        pytest.skip("no ffmpeg")
    path = animation(solve(), tmp_path / "a.mp4")
    assert path == tmp_path / "a.mp4"
    assert path.read_bytes()[4:8] == b"ftyp"


@pytest.mark.parallel([1, 2])
def test_notebooks_show_it(gif):
    movie = animation(solve())
    assert isinstance(movie, Movie if WORLD.rank == 0 else type(None))
    if movie:
        assert movie._repr_html_().startswith('<img src="data:image/gif;base64,R0lG')


@pytest.mark.parallel([1, 2])
def test_nothing_is_left_of_a_film_that_fails(gif, tmp_path, monkeypatch):
    path = tmp_path / "a.gif"
    path.touch()

    def full(self) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(Film, "frame", full)
    with pytest.raises(OSError, match="No space"):
        animation(solve(), path)
    WORLD.barrier()
    assert [p.name for p in tmp_path.iterdir()] == ["a.gif"]
    assert path.stat().st_size == 0


def test_what_ffmpeg_says_is_passed_on(tmp_path, monkeypatch):
    program = tmp_path / "ffmpeg"
    program.write_text(f"#!{sys.executable}\nimport sys\nsys.exit('no such encoder')\n")
    program.chmod(0o755)
    monkeypatch.setattr(film, "ffmpeg", lambda: str(program))
    monkeypatch.setattr(moving, "ffmpeg", lambda: str(program))
    with pytest.raises(OSError, match="no such encoder"):
        animation(solve(), tmp_path / "a.mp4")
    assert [p.name for p in tmp_path.iterdir()] == ["ffmpeg"]


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"path": "a.avi"}, "path = 'a.avi' must end in .mp4 or .gif"),
        ({"frames": 1}, "frames = 1 must be an integer, 2 or more"),
        ({"fps": 0}, "fps = 0 must be an integer, 1 or more"),
        ({"highest_density": -1.0}, "highest_density = -1.0 must be a number, above zero"),
        ({"at": 0.5}, "at = 0.5 names a slice, and this domain is 2-D"),
        ({"what": 3}, "what, a int, is no Trajectory and no Result"),
        ({"what": "last"}, "what holds 1 level: a film needs two or more; solve(..., save=k)"),
        ({"drift": 3}, "drift = 3 is not callable"),
        ({"streamlines": True}, "of which drift?"),
        ({"drift": lambda t, x: x[:, 0]}, "drift: values of shape ("),
        ({"reference": 3}, "reference, a int, is no MoserFlow and no Trajectory"),
        ({"reference": 2.0}, "reference is known from t = 0 to 0.5, the frames are from 0 to 1"),
        ({"reference": 1}, "reference is 1-D on"),
        ({"particles": 3}, "particles, a int, has no times"),
        ({"particles": Swarm([1.0], 2)}, "particles are known from t = 1 to 1, the frames are"),
        ({"particles": Swarm([0.0, 1.0], 3)}, "the density is 2-D; positions of shape (n, 2)"),
    ],
)
def test_bad_input_is_refused_on_all_ranks(options, words, tmp_path):
    what, path = options.pop("what", None), tmp_path / options.pop("path", "a.gif")
    what = solve(steps=4, save="last" if what == "last" else "all") if what != 3 else what
    if options.get("reference") == 2.0:
        options["reference"] = solve(t1=0.5)
    elif options.get("reference") == 1:
        options["reference"] = tracking(dim=1).reference
    message = raised(ValueError, lambda: animation(what, path, **options))
    assert words.replace("'a.avi'", repr(str(path))) in message


@pytest.mark.parallel([1, 2])
def test_slices_go_through_the_largest_density_or_a_point():
    rho = bump(cube(WORLD, 3, 4), 1, 0.25)
    for at, names in (
        (None, {"z = 0.25 m", "y = 0.25 m", "x = 0.25 m"}),
        ((0.1, 0.2, 0.3), {"z = 0.3 m", "y = 0.2 m", "x = 0.1 m"}),
    ):
        figure = fpc.plotting.density(rho, unit="m", at=at)
        if figure:
            titles = {ax.get_title() for ax in figure.axes} - {""}
            assert titles == names
            assert [ax.get_xlabel() for ax in figure.axes[:3]] == ["x (m)", "x (m)", "y (m)"]
    uniform = fpc.plotting.density(fpc.density.uniform(cube(WORLD, 3, 2), 1))
    if uniform:
        assert {ax.get_title() for ax in uniform.axes} >= {"z = 0.5", "y = 0.5", "x = 0.5"}
    message = raised(ValueError, lambda: fpc.plotting.density(rho, at=(0.1, 0.2, 3.0)))
    assert "at = (0.1, 0.2, 3.0) must be from" in message
    message = raised(ValueError, lambda: fpc.plotting.density(rho, at=(0.1, 0.2)))
    assert "must be a point, three numbers" in message
