"""Refined meshes, and control problems on them."""

import numpy as np
import pytest
from problems import SELF, WORLD, cube, raised
from test_limited import tracking

import fpcontrol as fpc


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize(("dim", "n"), [(1, 8), (2, 4), (3, 2)])
def test_a_problem_on_the_refined_mesh_is_the_same_one(dim, n):
    p = tracking(WORLD, dim=dim, n=n)
    weights = 2.0 * p.drift.weights
    fine = p.on_refined_mesh(16, discretization=fpc.Limited())
    one, two = (problem.elements.mesh.topology.index_map(dim) for problem in (p, fine))
    assert two.size_global == 2**dim * one.size_global
    for rho, same in zip(
        (p.reference.start, p.reference.goal),
        (fine.reference.start, fine.reference.goal),
        strict=True,
    ):
        assert fine.elements.norm(same.x.array) == pytest.approx(p.elements.norm(rho.x.array))
    # Errors of the same weights: nearer to those of degree 2 there than those of the coarse mesh.
    exact = p.on_refined_mesh(16).errors(weights).relative_error
    gaps = [abs(q.errors(weights).relative_error - exact) for q in (fine, p.refined(16))]
    assert gaps[0] < 0.5 * gaps[1]


@pytest.mark.parallel([1, 2])
def test_refining_twice_cuts_every_edge_in_four():
    mesh = cube(WORLD, 2, 3)
    fine = fpc.mesh.refine(fpc.mesh.refine(mesh))
    assert fine.topology.index_map(2).size_global == 16 * 18
    assert fpc.density.uniform(fine, 1).x.array.max(initial=1.0) == pytest.approx(1.0)


def test_what_has_no_mesh_to_refine_says_so():
    mesh = cube(SELF, 2, 4)
    flow = fpc.MoserFlow(fpc.density.uniform(mesh, 1), fpc.density.uniform(mesh, 1), 1.0, 0.0)
    p = fpc.TrackingProblem(flow, fpc.NetworkDrift(mesh, 2, 2), 0.0, 4)
    words = raised(ValueError, p.on_refined_mesh)
    assert "sigma = 0.0" in words and "refined" in words
    walls = tracking(SELF, absorbing=lambda x: x[0] < 1e-9)
    assert "absorbing" in raised(ValueError, walls.on_refined_mesh)
    fine = walls.on_refined_mesh(absorbing=lambda x: x[0] < 1e-9)
    assert np.isfinite(fine.errors(walls.drift.weights).relative_error)
