"""Every drift of the package is the same field at a discretization's points and in known cells.

``at_points`` reads what a rank has of its own cells; ``on_cells`` is asked anywhere on a mesh that
every rank holds whole. The second way shares no code with the first where values lie on a mesh.
"""

import numpy as np
import pytest
from dolfinx import fem
from problems import WORLD, cube, raised

import fpcontrol as fpc
from fpcontrol.discretization.cells import Cells
from fpcontrol.discretization.elements import Elements

DIMENSIONS = 1, 2, 3


def bump(mesh, degree, *centre):
    """A positive density around a place."""
    return fpc.density.interpolate(
        mesh,
        lambda x: 0.3 + np.exp(-6.0 * sum((x[i] - c) ** 2 for i, c in enumerate(centre))),
        degree=degree,
    )


def drifts(mesh, degree):
    """One of each kind, with values that are on the mesh wherever they can be."""
    d = mesh.geometry.dim
    start, goal = bump(mesh, degree, *[0.3] * d), bump(mesh, degree, *[0.7] * d)
    flow = fpc.MoserFlow(start, goal, t1=2.0, sigma=0.4)
    vector = fem.Function(fem.functionspace(mesh, ("P", degree, (d,))))
    vector.interpolate(lambda x: np.cos(3.0 * x[:d]) + x[[0]])
    piecewise = fem.Function(fem.functionspace(mesh, ("DG", 1, (d,))))
    piecewise.interpolate(lambda x: np.sin(4.0 * x[:d]))
    potential = fem.Function(fem.functionspace(mesh, ("P", degree)))
    potential.interpolate(lambda x: np.cos(2.0 * x[:d]).prod(axis=0))
    network = fpc.NetworkDrift(mesh, 2, pieces=4, t1=2.0, seed=1)
    data = fpc.drift.data(vector)
    process = fpc.noising.HeatFlow(mesh, 1.0, t1=0.05)
    noised = process.of(start, steps=10)
    return {
        "callable": fpc.drift.Steady(lambda x: x**2),
        "network": network,
        "Moser": flow.drift,
        "data": data,
        "discontinuous": fpc.drift.data(piecewise),
        "potential": fpc.drift.gradient(potential),
        "sum": 0.5 * data + network - flow.drift,
        "reversed": (data + flow.drift).reversed_in_time(2.0),
        "mapped": fpc.drift.Mapped(data, lambda t, x, v: (1.0 + t) * v - x),
        "walled": fpc.walls.walled(network, mesh),
        "reversal": process.reverse(noised),
    }


@pytest.mark.parallel([1, 2, 3])
@pytest.mark.parametrize("d", DIMENSIONS)
def test_a_drift_is_one_field_however_it_is_asked(d):
    degree = 2 if d < 3 else 1
    mesh = cube(WORLD, d, (12, 5, 3)[d - 1])
    g = Elements(fem.functionspace(mesh, ("P", degree)), 2 * degree)
    cells = Cells(mesh)
    # The first points of all cells, then the second ones.
    own = cells.first + np.tile(np.arange(g.n_cells), g.n_points)
    for name, drift in drifts(mesh, degree).items():
        ask = drift.on_cells(cells)
        for t in (0.02, 0.033):
            expected, found = drift.at_points(t, g), ask(t, g.points, own)
            assert found.shape == g.points.shape, name
            scale = max(np.abs(expected).max(initial=0.0), 1e-3)
            assert np.abs(found - expected).max(initial=0.0) <= 1e-11 * scale, name


@pytest.mark.parallel([2, 3])
@pytest.mark.parametrize("d", DIMENSIONS)
def test_every_rank_is_answered_in_the_cells_of_all(d):
    mesh = cube(WORLD, d, (12, 5, 3)[d - 1])
    cells = Cells(mesh)
    middles = cells.corners.mean(axis=1)
    for name, drift in drifts(mesh, 1).items():
        values = drift.on_cells(cells)(0.02, middles, np.arange(len(middles)))
        assert np.array_equal(WORLD.bcast(values), values), name  # whose cells they are


@pytest.mark.parallel([1, 2])
def test_a_drift_known_in_own_cells_only_is_refused():
    class Local(fpc.drift.Drift):
        everywhere = False

        def __call__(self, t, x):
            return x

    mesh = cube(WORLD, 2, 3)
    assert "Local" in raised(ValueError, lambda: Local().on_cells(Cells(mesh)))
