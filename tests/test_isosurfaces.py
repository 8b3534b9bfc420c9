"""Surfaces of a density in space: where they are, of what, and what is refused."""

import sys

import matplotlib.image
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from problems import SELF, WORLD, cube, raised

import fpcontrol as fpc
from fpcontrol.plotting.isosurfaces import DOTS, subdivided_tetrahedron
from fpcontrol.plotting.picture import VERMILION

WIDTH = 0.15


@pytest.fixture
def pyvista():
    return pytest.importorskip("pyvista")


def ball(comm, cells: int, degree: int, centre=0.5):
    """A Gaussian as it is, not of mass one."""
    rho = fpc.density.uniform(cube(comm, 3, cells), degree)
    x = rho.function_space.tabulate_dof_coordinates()
    rho.x.array[:] = np.exp(-((x - centre) ** 2).sum(axis=1) / (2.0 * WIDTH**2))
    return rho


def surface(plotter, name: str):
    return plotter.actors[name].mapper.dataset


def radius(level: float) -> float:
    return WIDTH * (-2.0 * np.log(level)) ** 0.5


@pytest.mark.parametrize("p", [1, 2, 3])
def test_small_tetrahedra_fill_the_large_one_and_meet(p):
    points, parts = subdivided_tetrahedron(p)
    assert len(points) == (p + 1) * (p + 2) * (p + 3) // 6 and parts.shape == (p**3, 4)
    corners = points[parts]
    volumes = np.abs(np.linalg.det(corners[:, 1:] - corners[:, :1])) / 6.0
    np.testing.assert_allclose(volumes, 1.0 / (6.0 * p**3), rtol=1e-12)
    facets = np.sort(np.concatenate([np.delete(parts, k, axis=1) for k in range(4)]), axis=1)
    facets, times = np.unique(facets, axis=0, return_counts=True)
    shares = np.column_stack([1.0 - points.sum(axis=1), points])[facets]
    outside = (np.abs(shares).max(axis=1) < 1e-12).any(axis=1)
    assert (times == np.where(outside, 1, 2)).all() and outside.sum() == 4 * p**2


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("degree", [1, 2, 3])
def test_levels_of_a_linear_density_are_planes(pyvista, degree):
    rho = fpc.density.interpolate(cube(WORLD, 3, 4), lambda x: 1.0 + x[0] + x[2], degree)
    plotter = fpc.plotting.isosurfaces(rho, levels=[0.9, 0.7])
    if WORLD.rank == 0:
        for k, level in enumerate((0.7, 0.9)):  # of a density of mean 2
            plane = surface(plotter, f"level {k}")
            x, height = np.asarray(plane.points), 2.0 * level - 1.0
            np.testing.assert_allclose(x[:, 0] + x[:, 2], height, atol=1e-6)
            assert plane.area == pytest.approx(2.0**0.5 * min(height, 2.0 - height), rel=1e-6)
        walls = surface(plotter, "walls")
        assert walls.area == pytest.approx(6.0, rel=1e-6)
        x, values = np.asarray(walls.points), np.asarray(walls["density"])
        np.testing.assert_allclose(values, 0.5 * (1.0 + x[:, 0] + x[:, 2]), atol=1e-6)
        edges = surface(plotter, "edges").compute_cell_sizes()["Length"]
        assert edges.sum() == pytest.approx(12.0, rel=1e-6)
    else:
        assert plotter is None


@pytest.mark.parallel([1, 2])
def test_levels_of_a_gaussian_are_spheres_that_close_in_with_the_cells(pyvista):
    errors = {}
    for degree, cells in ((1, 12), (1, 24), (2, 12)):
        plotter = fpc.plotting.isosurfaces(ball(WORLD, cells, degree), levels=[0.2, 0.6])
        alone = fpc.plotting.isosurfaces(ball(SELF, cells, degree), levels=[0.2, 0.6])
        if WORLD.rank == 0:
            for k, level in enumerate((0.2, 0.6)):
                sphere, other = (surface(p, f"level {k}") for p in (plotter, alone))
                assert sphere.area == pytest.approx(other.area, rel=1e-5)  # points are of 32 bits
                assert sphere.n_open_edges == 0
                r = radius(level)
                found = abs(sphere.area / (4.0 * np.pi * r**2) - 1.0)
                inside = abs(sphere.volume / (4.0 / 3.0 * np.pi * r**3) - 1.0)
                errors[degree, cells, k] = max(found, inside)
                far = np.linalg.norm(np.asarray(sphere.points) - 0.5, axis=1)
                assert np.abs(far - r).max() < 0.1 / (cells * degree / 8) ** 2
    for k in (0, 1) if WORLD.rank == 0 else ():
        assert errors[1, 24, k] < 0.05
        assert errors[1, 24, k] < 0.4 * errors[1, 12, k]  # of order 2
        assert errors[2, 12, k] < 0.5 * errors[1, 12, k]  # nodes are half as far apart


@pytest.mark.parallel([1, 2])
def test_what_is_negative_is_enclosed_and_told(pyvista):
    rho = ball(WORLD, 16, 1)
    rho.x.array[:] = 0.5 - rho.x.array
    plotter = fpc.plotting.isosurfaces(rho)
    positive = fpc.plotting.isosurfaces(ball(WORLD, 4, 1))
    if WORLD.rank == 0:
        hole, r = surface(plotter, "negative"), radius(0.5)
        assert hole.volume == pytest.approx(4.0 / 3.0 * np.pi * r**3, rel=0.05)
        color = plotter.actors["negative"].prop.color.float_rgb
        assert color == pytest.approx(to_rgb(VERMILION), abs=0.01)
        note = plotter.actors["note"].get_text(4)  # the middle of the lower edge
        share = 100.0 * 4.0 / 3.0 * np.pi * r**3
        assert f"negative on {share:.1g}" in note[:14] and "minimum \N{MINUS SIGN}0.5" in note
        assert not {"negative", "note"} & set(positive.actors)


@pytest.mark.parallel([1, 2])
def test_scale_and_levels_are_those_asked_for(pyvista):
    rho = ball(WORLD, 6, 2)
    plotter = fpc.plotting.isosurfaces(rho, levels=3, unit="km", title="A ball")
    fixed = fpc.plotting.isosurfaces(rho, levels=3, highest_density=8.0)
    if WORLD.rank == 0:
        for k in range(3):
            level = surface(plotter, f"level {k}")["density"]
            np.testing.assert_allclose(level, 0.25 * (k + 1), atol=1e-6)
            assert plotter.actors[f"level {k}"].mapper.scalar_range == pytest.approx((0.0, 1.0))
        assert set(fixed.actors) & {f"level {k}" for k in range(3)} == set()  # 2, 4 and 6
        assert fixed.actors["walls"].mapper.scalar_range == pytest.approx((0.0, 8.0))
        (bar,) = plotter.scalar_bars.keys()
        assert bar.strip() == "density (1/km\N{SUPERSCRIPT THREE})"
        assert plotter.renderer.cube_axes_actor.GetZTitle() == "z (km)"
        assert plotter.actors["title"].get_text(7) == "A ball"


@pytest.mark.parallel([1, 2])
def test_particles_of_all_ranks_are_drawn_but_not_those_that_have_left(pyvista):
    rho = fpc.density.uniform(cube(WORLD, 3, 2), 1)
    points = fpc.particles.draw(rho, 5000, seed=0)
    points[::5] = np.nan
    plotter = fpc.plotting.isosurfaces(rho, particles=points)
    many = fpc.plotting.isosurfaces(rho, particles=fpc.particles.draw(rho, 3 * DOTS + 1, seed=0))
    gathered = np.concatenate(WORLD.allgather(points))
    if WORLD.rank == 0:
        drawn = np.asarray(surface(plotter, "particles").points)
        np.testing.assert_allclose(drawn, gathered[np.isfinite(gathered[:, 0])], atol=1e-6)
        assert 0.7 * DOTS < surface(many, "particles").n_points <= DOTS


@pytest.mark.parallel([1, 2])
def test_surfaces_go_on_through_periodic_sides(pyvista):
    mesh = fpc.mesh.box(WORLD, (12, 12, 12), periodic="x")
    rho = fpc.density.interpolate(mesh, lambda x: 1.0 + 0.5 * np.cos(2.0 * np.pi * x[0]), 1)
    plotter = fpc.plotting.isosurfaces(rho, levels=[1.0])
    if WORLD.rank == 0:
        planes = surface(plotter, "level 0")
        assert planes.area == pytest.approx(2.0, rel=1e-6)
        off = np.abs(np.asarray(planes.points)[:, 0] - 0.5)
        np.testing.assert_allclose(off, 0.25, atol=1e-6)
        assert surface(plotter, "walls").area == pytest.approx(6.0, rel=1e-6)


@pytest.mark.parallel([1, 2])
def test_picture_is_written(pyvista, tmp_path):
    """What is uniform has walls of one colour, the end of the scale."""
    rho = fpc.density.uniform(cube(WORLD, 3, 2), 1)
    plotter = fpc.plotting.isosurfaces(rho, tmp_path / "a.png")
    WORLD.barrier()
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
    assert (plotter is None) == (WORLD.rank > 0)
    pixels = matplotlib.image.imread(tmp_path / "a.png")[..., :3]
    end = matplotlib.colormaps["viridis"](1.0)[:3]
    assert 0.1 < (np.abs(pixels - end).max(axis=-1) < 0.2).mean() < 0.6


@pytest.mark.parallel([1, 2])
def test_without_pyvista_it_says_what_is_needed(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyvista", None)
    rho = fpc.density.uniform(cube(WORLD, 3, 2), 1)
    message = raised(ImportError, lambda: fpc.plotting.isosurfaces(rho))
    assert "fpcontrol[plotting-3d]" in message


@pytest.mark.parallel([1, 2])
def test_bad_input_is_refused(tmp_path):
    rho = fpc.density.uniform(cube(WORLD, 3, 2), 1)

    def refused(density=rho, *path, **options) -> str:
        return raised(ValueError, lambda: fpc.plotting.isosurfaces(density, *path, **options))

    assert "a int, is no density" in refused(3)
    flat = fpc.density.uniform(cube(WORLD, 2, 2), 1)
    assert "rho is 2-D" in refused(flat) and "fpc.plotting.density" in refused(flat)
    mesh = rho.function_space.mesh
    cells = fpc.particles.histogram(mesh, np.full((1, 3), 0.3))
    assert "continuous Lagrange" in refused(cells)
    for levels in (0, -1, True, [], [0.5, np.nan], [0.0], [[0.5]], "a"):
        assert f"levels = {levels!r} must be" in refused(levels=levels)
    for end in (0.0, np.inf, True, "a"):
        assert f"highest_density = {end!r} must be" in refused(highest_density=end)
    assert "(2, 2)" in refused(particles=np.zeros((2, 2)))
    assert "bmp, jpeg, jpg, png, tif, tiff" in refused(rho, tmp_path / "a.pdf")
