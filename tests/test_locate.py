"""One search for points: cells of any rank that hold them, or are closest to them."""

from pathlib import Path

import numpy as np
import pytest
from problems import WORLD, cube

import fpcontrol as fpc
from fpcontrol.discretization.boundary import Boundary
from fpcontrol.discretization.locate import OwnCells, locate

RANKS = pytest.mark.parallel([1, 2, 3])


def asked(dim: int) -> np.ndarray:
    """Points that this rank asks for: other ones, and another number, than other ranks."""
    return np.random.default_rng(WORLD.rank).random((30 * WORLD.rank + 5, dim))


@RANKS
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_points_are_where_their_owners_say(dim):
    mesh, x = cube(WORLD, dim, 5), asked(dim)
    found = locate(mesh, x)
    assert (found.distance == 0.0).all()
    assert ((found.owner >= 0) & (found.owner < WORLD.size)).all()
    assert WORLD.allreduce(len(found.cells)) == WORLD.allreduce(len(x))
    corners = mesh.geometry.x[mesh.geometry.dofmaps[0][found.cells]][:, :, :dim]
    shares = np.column_stack([1.0 - found.reference.sum(axis=1), found.reference])
    assert shares.min(initial=0.0) >= -1e-14
    back = np.einsum("ni,nid->nd", shares, corners)
    for k in range(dim):  # what goes to the owners comes back to who asked, in order
        assert found.to_owners(x[:, k]) == pytest.approx(back[:, k], abs=1e-14)
        assert found.to_askers(back[:, k]) == pytest.approx(x[:, k], abs=1e-14)


@RANKS
@pytest.mark.parametrize("size", [1e-7, 1.0, 1e5])
def test_a_point_on_a_facet_has_one_owner_and_none_is_held_from_outside(size):
    # An absolute tolerance of 1e-6 would find each point of the smallest mesh in any cell.
    mesh = cube(WORLD, 2, 6, size)
    x = np.stack(np.meshgrid(*[np.arange(13) / 12] * 2), axis=-1).reshape(-1, 2) * size
    found = locate(mesh, x)
    owners = WORLD.allgather(found.owner)
    assert all(np.array_equal(owners[0], other) for other in owners)
    corners = mesh.geometry.x[mesh.geometry.dofmaps[0][found.cells]][:, :, :2]
    shares = np.column_stack([1.0 - found.reference.sum(axis=1), found.reference])
    held = np.einsum("ni,nid->nd", shares, corners)
    asked_for = np.column_stack([found.to_owners(x[:, k]) for k in (0, 1)])
    assert held == pytest.approx(asked_for, abs=1e-12 * size)


@RANKS
def test_points_outside_go_to_the_closest_cell_within_reach():
    mesh = cube(WORLD, 2, 4)
    x = np.array([[0.5, 1.1], [1.3, 0.5], [-0.03, -0.04], [0.5, 0.5]])
    found = locate(mesh, x, 0.2)
    assert found.distance == pytest.approx([0.1, np.inf, 0.05, 0.0])
    assert np.array_equal(found.owner < 0, [False, True, False, False])
    values = found.to_askers(np.arange(len(found.cells), dtype=float))
    assert np.array_equal(np.isnan(values), found.owner < 0)
    assert np.array_equal(locate(mesh, x).owner < 0, [True, True, True, False])
    assert len(locate(mesh, x[:0]).owner) == 0


@RANKS
def test_points_just_beyond_a_slanted_wall_are_outside():
    # In the box of the cell behind, so that only its barycentric coordinates tell.
    mesh = fpc.mesh.read(Path(__file__).parents[1] / "meshes" / "disk.xdmf", WORLD)
    wall = Boundary.of(mesh).quadrature(1)
    beyond = wall.points + 1e-5 * wall.normals
    assert (locate(mesh, beyond).owner == -1).all()
    assert locate(mesh, beyond, 1e-4).distance == pytest.approx(1e-5, rel=1e-4)
    assert (locate(mesh, wall.points - 1e-5 * wall.normals).distance == 0.0).all()


@RANKS
def test_own_cells_hold_what_they_hold():
    mesh = cube(WORLD, 3, 3)
    own, n = OwnCells(mesh), mesh.topology.index_map(3).size_local
    middles = mesh.geometry.x[mesh.geometry.dofmaps[0][:n]].mean(axis=1)
    assert np.array_equal(own.holding(middles), np.arange(n))
    assert (own.holding(middles + 2.0) == -1).all()
    everywhere = np.concatenate(WORLD.allgather(middles))
    assert (own.holding(everywhere) >= 0).sum() == n
