"""The grid over a mesh for particles, against walks from cell to cell."""

from pathlib import Path

from mpi4py import MPI

import numba
import numpy as np
import pytest
from problems import cube

import fpcontrol as fpc
from fpcontrol import particles
from fpcontrol.drift.base import Drift, asks_cells
from fpcontrol.particles import grid as grids
from fpcontrol.particles.domain import Domain
from fpcontrol.particles.random import BLOCK, Streams

SELF, WORLD = MPI.COMM_SELF, MPI.COMM_WORLD
MESHES = Path(__file__).parents[1] / "meshes"


def made(name, comm=SELF):
    if name in ("disk", "l_shape", "great_britain"):
        return fpc.mesh.read(MESHES / f"{name}.xdmf", comm)
    if name == "cylinder":
        return fpc.mesh.rectangle(comm, (9, 7), periodic=(True, False))
    if name == "askew":  # long cells across the axes
        mesh = fpc.mesh.rectangle(comm, (40, 40))
        x = mesh.geometry.x
        x[:, :2] = x[:, :2] @ np.array([[1.0, 1.0], [-0.01, 0.01]])
        return mesh
    return cube(comm, int(name), (20, 9, 5)[int(name) - 1])


NAMES = ["1", "2", "3", "disk", "l_shape", "great_britain", "cylinder", "askew"]


@pytest.mark.parametrize("name", NAMES)
def test_a_step_that_passes_meets_no_wall_and_most_that_meet_none_pass(name):
    mesh = made(name)
    domain = Domain.of(mesh)
    points = particles.draw(fpc.density.uniform(mesh, 1), 10_000, seed=2)
    cells = domain.find(points)
    size = 0.5 * domain.volumes.mean() ** (1.0 / domain.dimension)
    rng = np.random.default_rng(1)
    for longer in (0.3, 1.0, 3.0):
        dx = longer * size * rng.standard_normal(points.shape)
        grid = domain.grid(4.5 * longer * size)
        assert len(grid.clearance) <= grids.MOST * len(domain)
        free = passing(grid, points, dx)
        walls = domain.cells.trace(domain.number[cells], points, points + dx)[2]
        assert (walls[free] == -1).all()
        assert (walls >= 0).any()
        assert free[walls == -1].mean() > (0.5 if name in ("3", "askew") else 0.9)
        assert not passing(grid.followed_in(np.ones(len(domain), dtype=bool)), points, dx).any()


@numba.njit(error_model="numpy")  # not kept on disk, where changes of what it calls go unseen
def _all(places, fences, x, dx, out):
    for i in range(len(x)):
        out[i] = grids.passes(fences, grids.square_of(places, x, i), x, dx, i)


def passing(grid, x, dx):
    out = np.empty(len(x), dtype=bool)
    _all(grid.places, grid.fences, x, dx, out)
    return out


@pytest.mark.parametrize("name", NAMES)
def test_points_are_located_in_the_cells_that_hold_them(name):
    mesh = made(name)
    domain = Domain.of(mesh)
    d = domain.dimension
    points = particles.draw(fpc.density.uniform(mesh, 1), 5_000, seed=4)
    hard = [domain.corners.reshape(-1, d), domain.wall_corners.mean(axis=1), points]
    x = np.concatenate(hard)  # vertices and the middles of walls, too
    cells = np.full(len(x), -1)
    places = domain.grid(0.0).places
    assert grids.locate_all(places, domain.origin, domain.inverse, x, cells) == -1
    away = np.einsum("nak,nk->na", domain.inverse[cells], x - domain.origin[cells])
    assert np.minimum(away.min(axis=1), 1.0 - away.sum(axis=1)).min() > -1e-9
    np.testing.assert_array_equal(cells[-5_000:], domain.find(points))
    far = np.full((1, d), 1e3)
    assert grids.locate_all(places, domain.origin, domain.inverse, far, np.array([-1])) == 0


def turning(t, x):
    v = np.zeros_like(x)
    v[:, 0], v[:, -1] = 1.0 + np.sin(3.0 * x[:, -1]), np.cos(5.0 * x[:, 0])
    return v


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("name", ["1", "3", "l_shape", "cylinder"])
@pytest.mark.parametrize("kind", ["noise", "no noise", "absorbing"])
def test_paths_are_those_of_steps_that_are_all_followed(name, kind, monkeypatch):
    mesh = made(name, WORLD)
    options = {"scheme": particles.Heun()}
    if kind == "absorbing":
        options["absorbing"] = lambda x: x[len(Domain.of(mesh).periods) - 1] < 1e-9
    points = particles.draw(fpc.density.uniform(mesh, 1), 5_000, seed=1)
    sigma = 0.0 if kind == "no noise" else 0.3

    def run():
        return particles.simulate(mesh, turning, points, sigma, 0.5, 25, seed=3, **options)

    quick = run()
    everywhere = grids.Grid.followed_in
    monkeypatch.setattr(
        grids.Grid, "followed_in", lambda self, cells: everywhere(self, np.ones_like(cells))
    )
    monkeypatch.setattr(grids, "locate", None)
    followed = run()
    for name in ("points", "cells", "collisions"):
        np.testing.assert_array_equal(getattr(quick, name), getattr(followed, name))
    np.testing.assert_array_equal(quick.exits.points, followed.exits.points)
    np.testing.assert_array_equal(quick.exits.times, followed.exits.times)
    assert WORLD.allreduce(len(quick.exits)) > 0 or kind != "absorbing"


class InCells(Drift):
    """A drift that looks at whether the cells are right."""

    def __call__(self, t, x):
        return turning(t, x)

    def on_cells(self, cells):
        def values(t, x, c):
            assert cells.shares(c, x).min(initial=0.0) > -1e-9
            return turning(t, x)

        return values


class Twice:
    """A clock."""

    def time(self, u):
        return 2.0 * u

    def rate(self, u):
        return 2.0


COMPOSED = {
    "itself": lambda v, mesh: v,
    "sum": lambda v, mesh: fpc.drift.zero() + 1.0 * v,
    "reversed": lambda v, mesh: v.reversed_in_time(1.0),
    "mapped": lambda v, mesh: fpc.drift.Mapped(v, lambda t, x, v: np.clip(v, -1.0, 1.0)),
    "retimed": lambda v, mesh: fpc.drift.Retimed(v, Twice()),
    "walled": lambda v, mesh: fpc.walls.walled(v, mesh),
}


@pytest.mark.parametrize("how", list(COMPOSED))
def test_drifts_that_ask_for_cells_are_given_them_and_others_need_none(how):
    mesh = cube(SELF, 2, 6)
    points = particles.draw(fpc.density.uniform(mesh, 1), 3_000)
    cells = Domain.of(mesh).cells
    steady = fpc.drift.Steady(lambda x: turning(0.0, x))
    asking, plain = (COMPOSED[how](v, mesh) for v in (InCells(), steady))
    assert asks_cells(asking.on_cells(cells))
    assert not asks_cells(plain.on_cells(cells))
    runs = [particles.simulate(mesh, v, points, 0.5, 0.4, 10).points for v in (asking, plain)]
    np.testing.assert_allclose(*runs, atol=1e-13)


def test_streams_are_those_of_counters_whatever_was_drawn_before():
    random = Streams(7)
    for use, step, block in ((1, 0, 0), (2, 5, 3), (1, 2**32 - 1, 10), (1, 0, 0)):
        fresh = np.random.Generator(np.random.Philox(key=7, counter=[0, block, step, use]))
        mine = random.at(use, step, block)
        for draw in (lambda g: g.standard_normal((BLOCK, 3)), lambda g: g.integers(9, size=3)):
            np.testing.assert_array_equal(draw(mine), draw(fresh))
