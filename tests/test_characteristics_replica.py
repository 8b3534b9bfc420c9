"""Without noise: references on meshes, at points that move."""

import numpy as np
import pytest
from dolfinx import fem
from dolfinx.mesh import Mesh
from problems import DOMAINS, RANKS, WORLD, cube, l_shape, raised

import fpcontrol as fpc
from fpcontrol.discretization.elements import lagrange
from fpcontrol.discretization.replica import MeshReference
from fpcontrol.walls import WallFactor


class Polynomial:
    """A finite-element function, exactly a polynomial, that grows in time."""

    def __init__(self, mesh: Mesh, degree: int) -> None:
        self.degree, d = degree, mesh.topology.dim
        self.elements = fpc.discretization.elements.Elements(lagrange(mesh, degree))
        self.u = fem.Function(self.elements.space)
        self.u.interpolate(lambda x: self.exact(x[:d].T)[0])

    def exact(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        y = x @ (1.0 + np.arange(x.shape[1])) - 0.3
        slope = self.degree * y ** (self.degree - 1)
        return y**self.degree, slope[:, None] * (1.0 + np.arange(x.shape[1]))

    def coefficients(self, t: float) -> np.ndarray:
        return (1.0 + t) * self.u.x.array


@pytest.mark.parallel([1, 3])
@pytest.mark.parametrize("degree", [1, 2, 3])
@pytest.mark.parametrize("make", DOMAINS.values(), ids=DOMAINS)
def test_reference_at_moving_points_is_the_function(make, degree, monkeypatch):
    mesh = make(WORLD)
    polynomial = Polynomial(mesh, degree)
    size = WallFactor(mesh).size
    moving = MeshReference(polynomial)
    rng = np.random.default_rng(WORLD.rank)
    x = rng.random((50, mesh.topology.dim))
    if make is l_shape:
        x = x[(x < 0.5).any(axis=1)]
    cells = None
    for shift in (0.0, 0.003, 0.03):  # to the same cell, the next one, around the corner
        y = size * np.clip(x - shift, 0.0, 1.0)
        value, slope, cells = moving.at(0.5, y, cells)
        exact, exact_slope = polynomial.exact(y)
        assert value == pytest.approx(1.5 * exact, rel=1e-11, abs=1e-12 * size**degree)
        assert slope == pytest.approx(
            1.5 * exact_slope, rel=1e-10, abs=1e-11 * size ** (degree - 1)
        )
    # From any cell to any other; only a re-entrant corner stops a walk.
    searched, search = [], moving.cells.search
    monkeypatch.setattr(moving.cells, "search", lambda x: searched.append(len(x)) or search(x))
    n_cells = WORLD.allreduce(polynomial.elements.n_cells)
    far = moving.at(0.5, y, 7 * np.arange(len(y)) % n_cells)[0]
    assert (sum(searched) > 0) == (make is l_shape)
    assert far == pytest.approx(value, rel=1e-11, abs=1e-12 * size**degree)


@RANKS
def test_points_outside_a_reference_are_refused():
    moving = MeshReference(Polynomial(cube(WORLD, 2, 3), 1))
    beyond = np.array([[0.3, 1.0 + 1e-13], [-1e-14, 0.2]])
    value = moving(0.0, beyond)
    assert value == pytest.approx(beyond @ [1.0, 2.0] - 0.3)
    line = MeshReference(Polynomial(cube(WORLD, 1, 3), 1))
    assert line(0.0, np.array([[1.0 + 1e-8]])) == pytest.approx(0.7, abs=1e-13)
    x = np.array([[0.3, 0.3], [1.2, 0.5]])[: 1 + (WORLD.rank == WORLD.size - 1)]
    assert "[1.2 0.5] is outside" in raised(ValueError, lambda: moving(0.0, x))
