"""Meshes in several parts that do not touch: masses on each of them, and the Neumann problem."""

import basix.ufl
import dolfinx.mesh
import numpy as np
import pytest
import ufl
from dolfinx.mesh import Mesh
from problems import SELF, WORLD, cube, raised

import fpcontrol as fpc
from fpcontrol import distances
from fpcontrol.discretization.elements import Elements, lagrange
from fpcontrol.discretization.neumann import Parts

RANKS = pytest.mark.parallel([1, 2, 3])


def islands(dim: int, parts: int = 2, n: int = 4) -> Mesh:
    """Unit intervals, squares or cubes in a row, with gaps as wide as they are."""
    piece = cube(SELF, dim, n)
    d, nodes = dim, piece.geometry.x[:, :dim]
    cells = piece.geometry.dofmaps[0]
    shift = np.eye(d)[0]
    x = np.vstack([nodes + 2.0 * k * shift for k in range(parts)])
    cells = np.vstack([cells + k * len(nodes) for k in range(parts)]).astype(np.int64)
    shape = {1: "interval", 2: "triangle", 3: "tetrahedron"}[dim]
    element = basix.ufl.element("Lagrange", shape, 1, shape=(dim,))
    if WORLD.rank:
        cells, x = cells[:0], x[:0]
    return dolfinx.mesh.create_mesh(WORLD, cells, ufl.Mesh(element), x)


def tilted(mesh: Mesh, masses, amplitude: float, degree: int = 1):
    """A density with a cosine of the first coordinate on each part, whose masses are given."""
    masses = np.array(masses)

    def f(x):
        return masses[(x[0] / 2.0 + 1e-6).astype(int)] * (1.0 + amplitude * np.cos(np.pi * x[0]))

    return fpc.density.interpolate(mesh, f, degree)


@RANKS
@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("parts", [1, 2, 5])
def test_parts_are_found_on_any_number_of_ranks(dim, parts):
    mesh = islands(dim, parts, 3)
    g = Elements(lagrange(mesh, 2))
    found = Parts.of(g)
    first = 2.0 * np.arange(parts)
    assert found.volumes == pytest.approx(np.ones(parts), rel=1e-12)
    assert found.lower[:, 0] == pytest.approx(first, abs=1e-12)
    assert found.upper[:, 0] == pytest.approx(first + 1.0)
    assert found.middles[:, 0] == pytest.approx(first + 0.5)
    x = g.space.tabulate_dof_coordinates()[: len(found.number), 0]
    assert np.array_equal(found.number, (x / 2.0 + 1e-6).astype(int))


@RANKS
@pytest.mark.parametrize("sigma", [0.0, 0.3])
@pytest.mark.parametrize("dim, degree", [(1, 2), (2, 1), (2, 2), (3, 1)])
def test_moser_identity_holds_on_each_part(dim, degree, sigma):
    mesh = islands(dim, 2, 4)
    start, goal = (tilted(mesh, (0.9, 0.1), a, degree) for a in (0.5, -0.5))
    flow = fpc.MoserFlow(start, goal, 2.0, sigma)
    g = flow.elements
    for t in (0.0, 1.3):
        # (v rho - D grad rho, grad w) = (d rho / dt, w) for all w.
        rho = flow.coefficients(t)
        left = flow.system.source(flow.drift.at_points(t, g), rho)
        values, product = g.vector(), g.vector()
        values.set(rho)
        g.stiffness.mult(values.petsc_vec, product.petsc_vec)
        left -= 0.5 * sigma**2 * product.array[: g.n_owned]
        values.set((goal.x.array - start.x.array) / 2.0)
        g.mass.mult(values.petsc_vec, product.petsc_vec)
        right = product.array[: g.n_owned]
        assert g.inner(left - right, left - right) <= 1e-20 * g.inner(right, right)
    if sigma:
        end = fpc.FokkerPlanck(mesh, flow.drift, sigma, degree=degree).solve(start, 2.0, 8)[-1]
        assert distances.l2(end, goal) < 1e-10


@RANKS
@pytest.mark.parametrize("sigma", [0.0, 0.3])
@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("masses", [((0.9, 0.1), (0.1, 0.9)), ((0.3, 0.3, 0.4), (0.3, 0.2, 0.5))])
def test_masses_that_differ_on_parts_are_refused_by_name(dim, masses, sigma):
    mesh = islands(dim, len(masses[0]), 2)
    start, goal = (tilted(mesh, mass, 0.0) for mass in masses)
    message = raised(ValueError, lambda: fpc.MoserFlow(start, goal, 1.0, sigma))
    bad = sum(a != b for a, b in zip(*masses, strict=True))
    assert f"start and goal have different masses on {bad} of the several parts" in message
    assert message.count(" and 0.") == bad
    k = next(i for i, (a, b) in enumerate(zip(*masses, strict=True)) if a != b)
    lower = ", ".join(["2" if k else "0", *["0"] * (dim - 1)])
    assert f"{masses[0][k]:g} and {masses[1][k]:g} from ({lower}) to (" in message
    for error in (ValueError, ArithmeticError):
        text = raised(error, lambda: distances.h_minus_1(start, goal))
        assert "a and b have different masses on" in text


@RANKS
def test_a_small_part_is_not_hidden_by_a_large_one():
    mesh = islands(2)
    start, goal = (tilted(mesh, (1.0 - 1e-6 + e, 1e-6 - e), 0.0) for e in (0.0, 1e-10))
    assert "1e-06 and 9.999e-07 from" in raised(
        ValueError, lambda: fpc.MoserFlow(start, goal, 1.0, 0.5)
    )


@RANKS
@pytest.mark.parametrize("dim", [1, 2])
def test_h_minus_1_of_parts_is_the_sum_of_theirs(dim):
    # Of m (1 + a cos(pi x)) and m (1 - a cos(pi x)): 2 m a / (pi sqrt(2)), squares add up.
    mesh, masses = islands(dim, 2, 16), (0.9, 0.1)
    a, b = (tilted(mesh, masses, amplitude, 2) for amplitude in (0.5, -0.5))
    exact = np.hypot(*masses) / (np.pi * np.sqrt(2.0))
    assert distances.h_minus_1(a, b) == pytest.approx(exact, rel=1e-4)
    # On two meshes masses are compared on each density's own, not at the quadrature points.
    other = islands(dim, 2, 11)
    assert distances.h_minus_1(a, tilted(other, masses, -0.5, 2)) == pytest.approx(exact, rel=1e-3)
    swapped = tilted(other, masses[::-1], -0.5, 2)
    assert "0.9 and 0.1" in raised(ValueError, lambda: distances.h_minus_1(a, swapped))
    one = fpc.density.uniform(islands(dim, 1, 40))
    message = raised(ValueError, lambda: distances.h_minus_1(fpc.density.normalized(a), one))
    assert "outside" in message or "2 and 1 parts" in message
