"""Pictures: of whom, with what on them, and nothing of pyplot's."""

import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from problems import WORLD, bump, cube, raised, tracking

import fpcontrol as fpc
from fpcontrol.plotting.picture import VERMILION


def tracked(**options) -> fpc.Result:
    problem = tracking(**({"n": 3} | options))
    return fpc.minimize(problem, max_iterations=2, progress=False)


def texts(figure: Figure) -> list[str]:
    """All words of a figure, as drawn."""
    figure.canvas.draw()
    return [t.get_text() for t in figure.findobj(matplotlib.text.Text) if t.get_visible()]


def hollow(dim: int, depth: float = 3.0):
    """A density on a cube with a hole below zero in the middle."""
    rho = bump(cube(WORLD, dim, 8), 1, 0.3)
    x = rho.function_space.tabulate_dof_coordinates()[:, :dim]
    rho.x.array[:] -= depth * np.exp(-((x - 0.5) ** 2).sum(axis=1) / 0.02)
    return rho


def marked(figure: Figure) -> float:
    """Share of pixels that have the colour of negative values."""
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3] / 255.0
    return float((np.abs(pixels - to_rgb(VERMILION)).max(axis=-1) < 0.02).mean())


PROGRAM = """
import sys
import matplotlib
from mpi4py import MPI
import fpcontrol as fpc
def check(when):
    assert matplotlib.rcParams["backend"] == "svg", when
    assert "matplotlib.pyplot" not in sys.modules, when
check("imported")
before = dict(matplotlib.rcParams)
rho = fpc.density.uniform(fpc.mesh.rectangle(MPI.COMM_WORLD, (2, 2)), 1)
figure = fpc.plotting.density(rho, "a.png", title="a")
check("drawn")
assert figure._repr_png_().startswith(b"\\x89PNG")
check("shown")
assert dict(matplotlib.rcParams) == before
"""


def test_pyplot_is_not_loaded_and_the_backend_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "svg")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


SPARE = """
import sys
import fpcontrol as fpc
slow = "matplotlib", "scipy.interpolate", "scipy.optimize", "scipy.stats"
assert not set(slow) & set(sys.modules)
assert "plotting" in dir(fpc)
fpc.plotting.density
"""


def test_importing_leaves_what_is_slow_to_load_until_it_is_used():
    done = subprocess.run(
        [sys.executable, "-c", SPARE], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parallel([1, 2, 3])
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_rank_zero_gets_the_figure(dim, tmp_path):
    rho, result = bump(cube(WORLD, dim, 3), 1, 0.3), tracked(dim=dim, n=2)
    for call in (
        lambda path=None: fpc.plotting.density(rho, path),
        lambda path=None: fpc.plotting.tracking(result, path, times=2),
        lambda path=None: fpc.plotting.error_over_time(result, path),
        lambda path=None: fpc.plotting.convergence(result, path),
    ):
        for path in (None, tmp_path / "a.png"):
            assert isinstance(call(path), Figure if WORLD.rank == 0 else type(None))
    WORLD.barrier()
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_axes_are_drawn_into(dim):
    result = tracked(dim=dim, n=2)
    n = 4 if dim == 1 else 6  # for two times
    figure = axes = ax = None
    if WORLD.rank == 0:  # those of rank 0 are enough
        figure = Figure()
        *axes, ax = figure.subplots(1, n + 1)
    at = 0.5 if dim == 3 else None
    assert fpc.plotting.density(result.problem.reference.goal, ax=ax, at=at) is figure
    assert fpc.plotting.tracking(result, times=2, axes=axes) is figure
    assert figure is None or all(ax.has_data() for ax in axes)


@pytest.mark.parallel([1, 2])
def test_other_axes_are_refused_on_all_ranks():
    result = tracked()
    axes = Figure().subplots(2, 2)
    message = raised(ValueError, lambda: fpc.plotting.tracking(result, times=3, axes=axes))
    assert "axes holds 4 object(s) of type Axes; 8 matplotlib Axes are needed" in message
    message = raised(ValueError, lambda: fpc.plotting.convergence(result, ax="left"))
    assert "ax holds 1 object(s) of type str;" in message


@pytest.mark.parallel([1, 2])
def test_what_is_no_density_is_refused():
    result = tracked()
    message = raised(ValueError, lambda: fpc.plotting.density(result.trajectory))
    assert "a Trajectory, is no density" in message
    assert "trajectory[-1]" in message


@pytest.mark.parallel([1, 2])
def test_coordinates_have_names_and_units():
    for dim, density in ((1, "density (km$^{-1}$)"), (2, "density (km$^{-2}$)")):
        figure = fpc.plotting.density(bump(cube(WORLD, dim, 3), 1, 0.3), unit="km")
        if figure:
            words = texts(figure)
            assert "x (km)" in words
            assert density in words
            assert ("y (km)" in words) == (dim == 2)
    figure = fpc.plotting.density(bump(cube(WORLD, 2, 3), 1, 0.3))
    if figure:
        assert {"x", "y", "density"} <= set(texts(figure))


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize(("at", "name"), [(None, "z = 0.5 m"), (0.25, "z = 0.25 m")])
def test_slice_is_named(at, name):
    goal = bump(cube(WORLD, 3, 4), 1, 0.3)
    figure = fpc.plotting.density(goal, unit="m", at=at or 0.5, title="goal")
    result = tracked(dim=3, n=2)
    panels = fpc.plotting.tracking(result, times=2, unit="m", at=at)
    if figure:
        assert f"goal\n{name}" in texts(figure)
        assert f"reference\n{name}\ny (m)" in texts(panels)


@pytest.mark.parallel([1, 2])
def test_slice_is_where_it_is_asked_for():
    mesh = cube(WORLD, 3, 4)
    rho = fpc.density.interpolate(mesh, lambda x: 1.0 + x[2], 1)
    for at in (0.0, 0.3, 1.0):
        figure = fpc.plotting.density(rho, at=at)
        if figure:
            values = np.asarray(figure.axes[0].images[0].get_array())
            assert values == pytest.approx((1.0 + at) / 1.5, abs=1e-12)


@pytest.mark.parallel([1, 2])
def test_slices_that_are_not_there_are_refused():
    message = raised(
        ValueError, lambda: fpc.plotting.density(bump(cube(WORLD, 3, 2), 1, 0.3), at=2)
    )
    assert "at = 2 must be from 0 to 1" in message
    message = raised(
        ValueError, lambda: fpc.plotting.density(bump(cube(WORLD, 2, 2), 1, 0.3), at=2)
    )
    assert "this domain is 2-D" in message


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_negative_values_are_marked_and_told(dim):
    positive, negative = bump(cube(WORLD, dim, 8), 1, 0.3), hollow(dim)
    least = WORLD.allreduce(float(negative.x.array.min()), op=min)
    for rho, expected in ((positive, False), (negative, True)):
        figure = fpc.plotting.density(rho, at=(0.5, 0.5, 0.5) if dim == 3 else None)
        if figure:
            notes = [text for text in texts(figure) if "negative on" in text]
            assert (len(notes) == 1) == expected
            assert (marked(figure) > 3e-3) == expected
    if figure:
        assert f"minimum \N{MINUS SIGN}{-least:.2g}" in notes[0]


@pytest.mark.parallel([1, 2])
def test_share_of_negative_values_is_that_of_the_domain():
    """A linear density below zero on a fifth of the interval."""
    rho = fpc.density.interpolate(cube(WORLD, 1, 40), lambda x: 1.0 + x[0], 1)
    x = rho.function_space.tabulate_dof_coordinates()[:, 0]
    rho.x.array[:] = x - 0.2
    figure = fpc.plotting.density(rho)
    if figure:
        assert any("negative on 20 % of the domain" in text for text in texts(figure))


@pytest.mark.parallel([1, 2])
def test_round_off_below_zero_is_not_called_negative():
    rho = hollow(2, 0.0)
    rho.x.array[:] = np.maximum(rho.x.array - rho.x.array.min(), 0.0) - 1e-15
    figure = fpc.plotting.density(rho)
    if figure:
        assert not any("negative" in text for text in texts(figure))


def overlaps(figure: Figure, texts_: list) -> list[tuple[str, str]]:
    renderer = figure.canvas.get_renderer()
    boxes = [(t.get_text(), t.get_window_extent(renderer)) for t in texts_ if t.get_text()]
    return [
        (a, b)
        for i, (a, one) in enumerate(boxes)
        for b, other in boxes[i + 1 :]
        if one.overlaps(other)
    ]


@pytest.mark.parametrize("size", [1.0, 2000.0])  # densities of order 1, and of 1e-7
def test_words_are_whole_and_apart(size):
    figure = fpc.plotting.tracking(tracked(dim=2, size=size), unit="km", title="a title")
    figure.canvas.draw()
    paper = figure.bbox
    for ax in figure.findobj(matplotlib.axes.Axes):
        ticks = [*ax.get_xticklabels(), *ax.get_yticklabels()]
        assert not overlaps(figure, [t for t in ticks if t.get_visible()])
        box = ax.get_tightbbox()
        assert box.x0 >= paper.x0 - 1 and box.x1 <= paper.x1 + 1, ax.get_ylabel()
        assert box.y0 >= paper.y0 - 1 and box.y1 <= paper.y1 + 1, ax.get_ylabel()
