"""Distances against closed forms, against SciPy, between meshes, and on any number of ranks."""

import sys

import dolfinx.mesh
import numpy as np
import pytest
from dolfinx import fem
from problems import SELF, WORLD, bump, cube, raised
from scipy.integrate import quad
from scipy.stats import wasserstein_distance

import fpcontrol as fpc
from fpcontrol import distances
from fpcontrol.distances import comparison
from fpcontrol.verification import orders

ON_ONE_MESH = (distances.l2, distances.kl, distances.chi_square, distances.total_variation)
ALL = (*ON_ONE_MESH, distances.h_minus_1, distances.wasserstein)


def cosines(mesh, degree, amplitude=0.5, modes=1):
    """The density 1 + amplitude * product of cos(modes pi x_i) on the unit cube."""
    dim = mesh.topology.dim
    return fpc.density.interpolate(
        mesh, lambda x: 1.0 + amplitude * np.cos(modes * np.pi * x[:dim]).prod(axis=0), degree
    )


def gaussian(mesh, centre, width=0.08, degree=1):
    """A bump that is zero, to round-off, at the walls of the unit cube."""
    x0 = np.reshape(centre, (-1, 1))
    return fpc.density.interpolate(
        mesh, lambda x: np.exp(-((x[: len(x0)] - x0) ** 2).sum(axis=0) / (2.0 * width**2)), degree
    )


def block(mesh, lower, upper):
    """The uniform density on [lower, upper], whose ends are vertices: discontinuous, degree 0."""
    density = fem.Function(fem.functionspace(mesh, ("Discontinuous Lagrange", 0)))
    density.interpolate(lambda x: 1.0 * ((x[0] > lower) & (x[0] < upper)) / (upper - lower))
    return density


def exact(name, amplitude):
    """Integrals of 1 + amplitude cos(pi x) against 1, by an independent quadrature."""
    f = {
        "kl": lambda r: r * np.log(r),
        "kl_back": lambda r: -np.log(r),
        "chi_square": lambda r: (r - 1.0) ** 2,
        "chi_square_back": lambda r: (r - 1.0) ** 2 / r,
        "total_variation": lambda r: 0.5 * abs(r - 1.0),
    }[name]
    return quad(lambda x: f(1.0 + amplitude * np.cos(np.pi * x)), 0, 1, epsabs=1e-13, points=[0.5])[
        0
    ]


# -- on one mesh -------------------------------------------------------------------------------


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("dim, modes", [(1, 1), (1, 3), (2, 1)])
def test_l2_and_h_minus_1_of_cosines_converge_to_closed_forms(dim, modes):
    # || cos(k pi x)... ||^2 = 2^-d, and the product of d of them has the eigenvalue d (k pi)^2.
    norm = 0.5 * 2.0 ** (-0.5 * dim)
    dual = norm / (np.sqrt(dim) * modes * np.pi)
    errors = []
    for n in (8, 16):
        mesh = cube(WORLD, dim, n)
        a, b = cosines(mesh, 2, 0.5, modes), fpc.density.uniform(mesh, 1)
        errors.append([distances.l2(a, b) / norm - 1.0, distances.h_minus_1(a, b) / dual - 1.0])
    # Norms of an interpolation error times the density: above the order 3 of the error itself.
    assert np.abs(errors[-1]).max() < 5e-4
    assert orders([np.abs(e).max() for e in errors]).min() > 2.8


def test_divergences_agree_with_an_independent_quadrature():
    mesh = fpc.mesh.interval(WORLD, 40)
    a, b = cosines(mesh, 3, 0.9), fpc.density.uniform(mesh, 1)
    # Degree 3 on 40 cells: the error of interpolation is 1e-8.
    for function in (distances.kl, distances.chi_square):
        name = function.__name__
        assert function(a, b) == pytest.approx(exact(name, 0.9), rel=1e-6)
        assert function(b, a) == pytest.approx(exact(name + "_back", 0.9), rel=1e-6)
    assert distances.total_variation(a, b) == pytest.approx(exact("total_variation", 0.9), rel=1e-6)
    assert distances.kl(a, b) != pytest.approx(distances.kl(b, a), rel=0.05)


def test_kl_of_close_densities_is_half_the_chi_square():
    # KL = chi^2 / 2 - O(eps^3): a plain a log(a/b) has nothing but round-off left at 1e-9.
    mesh = fpc.mesh.interval(WORLD, 16)
    a, b = cosines(mesh, 2, 1e-9), fpc.density.uniform(mesh, 2)
    # The difference of the densities itself has 7 digits.
    assert distances.kl(a, b) / distances.chi_square(a, b) == pytest.approx(0.5, rel=1e-6)


@pytest.mark.parallel([1, 2])
def test_kl_and_chi_square_are_infinite_where_only_b_vanishes():
    mesh = fpc.mesh.interval(WORLD, 10)
    half, whole = block(mesh, 0.0, 0.5), block(mesh, 0.0, 1.0)
    assert distances.kl(half, whole) == pytest.approx(np.log(2.0))
    assert distances.chi_square(half, whole) == pytest.approx(1.0)
    assert distances.total_variation(half, whole) == pytest.approx(0.5)
    assert distances.kl(whole, half) == distances.chi_square(whole, half) == np.inf


@pytest.mark.parallel([1, 2])
def test_all_vanish_for_equal_densities():
    for dim in (1, 2):
        mesh = cube(WORLD, dim, 6)
        a, b = bump(mesh, 2, 0.3), bump(mesh, 2, 0.3)
        for function in ALL:
            if function is distances.wasserstein and dim > 1:
                pytest.importorskip("ot")
            # emd2 moves a mass of 1e-16 at most.
            assert function(a, b) < 1e-12, function


# -- between two meshes ------------------------------------------------------------------------


@pytest.mark.parallel([1, 2, 3])
def test_one_function_on_two_meshes_differs_by_interpolation():
    errors = []
    for n in (6, 12):
        a = cosines(cube(WORLD, 2, n), 2)
        b = cosines(fpc.mesh.rectangle(WORLD, (n + 3, n - 1)), 2)
        errors.append([function(a, b) for function in (distances.l2, distances.h_minus_1)])
        assert distances.l2(b, a) == distances.l2(a, b)
        # Second order in the difference.
        assert distances.kl(a, b) < 2.0 * errors[-1][0] ** 2
    assert errors[-1][0] < 2e-4
    # P2 in L2: 3; H^-1 gains at least one.
    assert orders([e[0] for e in errors]).min() > 2.8
    assert orders([e[1] for e in errors]).min() > 3.5


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_two_meshes_agree_with_one(dim):
    # Linear in space, so that every mesh and degree holds it exactly.
    tilt = lambda x: 1.0 + 0.5 * (x[:dim].sum(axis=0) - 0.5 * dim)  # noqa: E731
    coarse, fine = cube(WORLD, dim, 3), cube(WORLD, dim, 4)
    a, b = fpc.density.interpolate(coarse, tilt, 2), fpc.density.uniform(fine, 1)
    same, one = fpc.density.interpolate(fine, tilt, 1), fpc.density.uniform(fine, 3)
    for function in (*ON_ONE_MESH, distances.h_minus_1):
        options = {"quadrature_degree": 8}
        value = function(a, b, **options)
        # The potential of a linear right-hand side is cubic: in P3 on the left only.
        if function is distances.h_minus_1:
            assert value == pytest.approx(function(same, one), rel=2e-2)
        else:
            assert value == pytest.approx(function(same, one, **options), rel=1e-12)


@pytest.mark.parallel([1, 2])
def test_polygons_of_one_disk_are_compared_and_other_domains_refused():
    disk = lambda n: deformed(cube(WORLD, 2, n, 2.0, -1.0))  # noqa: E731
    a, b = fpc.density.uniform(disk(8)), fpc.density.uniform(disk(11))
    # 1/area of two polygons; the value at a point off the coarser one is that of the nearest cell.
    area = [1.0 / u.x.array[0] for u in (a, b)] if len(a.x.array) else [1.0, 1.0]
    assert distances.l2(a, b) == pytest.approx(abs(1 / area[0] - 1 / area[1]) * area[1] ** 0.5)
    wide = fpc.density.uniform(fpc.mesh.rectangle(WORLD, (20, 20), (0, 0), (1.0, 1.1)))
    unit = fpc.density.uniform(cube(WORLD, 2, 12))
    assert "outside the mesh of b" in raised(ValueError, lambda: distances.l2(wide, unit))
    finer = fpc.density.uniform(cube(WORLD, 2, 30))
    assert "vertices of the mesh of a" in raised(ValueError, lambda: distances.l2(wide, finer))
    assert distances.l2(wide, finer, tolerance=0.11) == pytest.approx(1.0 - 1.0 / 1.1)


def deformed(mesh):
    """The square (-1, 1)^2 mapped to the disk."""
    x = mesh.geometry.x
    longest, norm = np.abs(x[:, :2]).max(axis=1), np.linalg.norm(x[:, :2], axis=1)
    x[:, :2] *= (longest / np.where(norm > 0.0, norm, 1.0))[:, None]
    return mesh


# -- transport in one dimension ----------------------------------------------------------------


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 3.0])
def test_wasserstein_of_blocks_is_exact(p):
    mesh = fpc.mesh.interval(WORLD, 20, -1.0, 3.0)
    left = block(mesh, -0.4, 0.6)
    # A translation costs its length; blocks of other widths int |c + w (s - 1/2)|^p ds.
    moved, wide = block(mesh, 1.0, 2.0), block(mesh, -1.0, 3.0)
    assert distances.wasserstein(left, moved, p) == pytest.approx(1.4, rel=1e-12)
    cost = quad(lambda s: abs(0.9 + 3.0 * (s - 0.5)) ** p, 0, 1, points=[0.2], epsabs=1e-13)[0]
    assert distances.wasserstein(left, wide, p) == pytest.approx(cost ** (1 / p), rel=1e-10)
    assert distances.wasserstein_with_bound(left, wide, p)[1] == 0.0


@pytest.mark.parametrize("power", [1, 2, 3])
def test_wasserstein_where_a_density_vanishes_at_the_end(power):
    # (k + 1) x^k has the quantiles s^r, r = 1/(k + 1), with infinite slope at 0; against the
    # uniform density W_2^2 = int (s^r - s)^2 ds.
    mesh = fpc.mesh.interval(WORLD, 7)
    a = fpc.density.interpolate(mesh, lambda x: x[0] ** power, 3)
    r = 1.0 / (power + 1.0)
    square = 1.0 / (2.0 * r + 1.0) - 2.0 / (r + 2.0) + 1.0 / 3.0
    value = distances.wasserstein(a, fpc.density.uniform(mesh), 2)
    assert value == pytest.approx(square**0.5, rel=1e-10)


@pytest.mark.parallel([1, 2, 3])
def test_wasserstein_between_meshes_agrees_with_scipy_on_points():
    a = bump(fpc.mesh.interval(WORLD, 15), 2, 0.3)
    b = bump(fpc.mesh.interval(WORLD, 22), 3, 0.8, 0.1)
    value = distances.wasserstein(a, b, 1)
    # The same polynomials on one rank, each as 22 000 points in the middle of equal intervals.
    a, b = bump(fpc.mesh.interval(SELF, 15), 2, 0.3), bump(fpc.mesh.interval(SELF, 22), 3, 0.8, 0.1)
    x = (np.arange(22_000) + 0.5) / 22_000
    points = np.column_stack([x, 0 * x, 0 * x])
    densities = [
        f.eval(points, (x * cells).astype(np.int32))[:, 0] for f, cells in ((a, 15), (b, 22))
    ]
    assert value == pytest.approx(wasserstein_distance(x, x, *densities), rel=1e-6)


def test_wasserstein_on_cells_that_run_backwards():
    mesh, mirrored = fpc.mesh.interval(WORLD, 8), fpc.mesh.interval(WORLD, 8)
    mirrored.geometry.x[:, 0] = 1.0 - mirrored.geometry.x[:, 0]
    value, same = (distances.wasserstein(bump(m, 3, 0.3), cosines(m, 1)) for m in (mesh, mirrored))
    assert same == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("degree", [1, 2])
def test_wasserstein_converges_with_the_density(degree):
    # Both quantile functions of 1 + a cos(pi x), a = +-0.5, by Newton's method on the exact ones.
    def quantile(s, amplitude):
        x = s
        for _ in range(50):
            slope = 1.0 + amplitude * np.cos(np.pi * x)
            x -= (x + amplitude * np.sin(np.pi * x) / np.pi - s) / slope
        return x

    square = quad(lambda s: (quantile(s, 0.5) - quantile(s, -0.5)) ** 2, 0, 1, epsabs=1e-14)[0]
    errors = []
    for n in (4, 8, 16):
        mesh = fpc.mesh.interval(WORLD, n)
        value = distances.wasserstein(cosines(mesh, degree, 0.5), cosines(mesh, degree, -0.5))
        errors.append(abs(value - square**0.5))
    assert orders(errors).min() > degree + 0.8
    assert errors[-1] < (1e-3, 1e-5)[degree - 1]


# -- transport in more dimensions --------------------------------------------------------------


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
def test_wasserstein_of_a_shifted_bump_is_the_shift_within_the_bound(p):
    pytest.importorskip("ot")
    # The shift is a whole number of cells, so that the interpolated bumps are shifted copies.
    mesh = cube(WORLD, 2, 20)
    a, b = gaussian(mesh, (0.4, 0.45), 0.06), gaussian(mesh, (0.6, 0.55), 0.06)
    shift, errors, bounds = np.hypot(0.2, 0.1), [], []
    for atoms in (60, 240):
        value, bound = distances.wasserstein_with_bound(a, b, p, atoms=atoms)
        errors.append(abs(value - shift))
        bounds.append(bound)
    # Tails cut off at the walls: 1e-10 of the mass.
    assert np.all(np.array(errors) <= np.array(bounds) + 1e-8)
    # Boxes of half the width; the bound of box width w is 2 w (d/12)^(1/2) for p = 2 and less
    # than the box in any case.
    assert bounds[1] < 0.65 * bounds[0] and bounds[1] < 0.1
    # Measured 0.1 % (p = 1) to 1.1 % (p = 3).
    assert errors[1] < 0.02 * shift


@pytest.mark.parallel([1, 2])
def test_bound_of_the_uniform_density_is_that_of_its_boxes():
    pytest.importorskip("ot")
    # 1 and 4 boxes of side w: sum over both densities of (E |x - c|^2)^(1/2) = w (d/12)^(1/2).
    for dim in (2, 3):
        a = fpc.density.uniform(cube(WORLD, dim, 4))
        for boxes in (1, 2):
            value, bound = distances.wasserstein_with_bound(a, a, atoms=boxes**dim)
            assert value < 1e-12
            assert bound == pytest.approx(2.0 / boxes * np.sqrt(dim / 12.0), rel=1e-12)
            # p = 4: E |x - c|^4 = d/80 + d (d - 1)/144 in units of the side.
            fourth = (dim / 80.0 + dim * (dim - 1) / 144.0) ** 0.25
            bound = distances.wasserstein_with_bound(a, a, 4, atoms=boxes**dim)[1]
            assert bound == pytest.approx(2.0 / boxes * fourth, rel=1e-12)


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("dim", [2, 3])
def test_wasserstein_along_one_axis_agrees_with_one_dimension(dim):
    pytest.importorskip("ot")
    f = lambda x: 1.0 + 0.9 * np.cos(np.pi * x[0])  # noqa: E731
    line = fpc.mesh.interval(WORLD, 64)
    expected = distances.wasserstein(fpc.density.interpolate(line, f), fpc.density.uniform(line))
    mesh = cube(WORLD, dim, 8 if dim == 2 else 4)
    a, b = fpc.density.interpolate(mesh, f), fpc.density.uniform(cube(WORLD, dim, 5))
    value, bound = distances.wasserstein_with_bound(a, b, atoms=400)
    assert abs(value - expected) < bound < 0.1 * dim
    # Far better than its bound: the displacement of a box is nearly that of its centre.
    # Measured 0.2 % with 20 and 7 % with 7 boxes a side.
    assert value == pytest.approx(expected, rel=(0.01, 0.1)[dim - 2])


# -- ranks and refusals ------------------------------------------------------------------------


@pytest.mark.parallel([2, 3])
@pytest.mark.parametrize("dim", [1, 2])
def test_values_do_not_depend_on_the_number_of_ranks(dim):
    pytest.importorskip("ot")

    def values(comm):
        a, b = bump(cube(comm, dim, 7), 2, 0.3), bump(cube(comm, dim, 5), 1, 0.6, 0.2)
        other = bump(a.function_space.mesh, 3, 0.6)
        measured = [function(a, b) for function in ALL]
        measured += [function(a, other) for function in (distances.l2, distances.h_minus_1)]
        return np.array([*measured, *distances.wasserstein_with_bound(a, b, atoms=100)])

    np.testing.assert_allclose(values(WORLD), values(SELF), rtol=1e-9)


@pytest.mark.parallel([1, 2, 3])
def test_bad_input_is_refused_on_all_ranks():
    mesh = fpc.mesh.interval(WORLD, 6)
    a = fpc.density.uniform(mesh)

    def message(function, b, *arguments, **options):
        return raised(ValueError, lambda: function(a, b, *arguments, **options))

    flat = fpc.density.uniform(cube(WORLD, 2, 3))
    vector = fem.Function(fem.functionspace(mesh, ("Lagrange", 1, (1,))))
    high = fem.Function(fem.functionspace(mesh, ("Lagrange", 4)))
    strange = fpc.density.uniform(mesh)
    if WORLD.rank == WORLD.size - 1:
        strange.x.array[-1] = np.nan
    double = fpc.density.uniform(mesh)
    double.x.array[:] *= 2.0
    for function in ALL:
        assert "not a dolfinx Function" in message(function, 1.0)
        assert "different dimensions" in message(function, flat)
        assert "scalar Lagrange space" in message(function, vector)
        assert "scalar Lagrange space" in message(function, high)
        assert "not finite" in message(function, strange)
    for function in (distances.h_minus_1, distances.wasserstein):
        assert "masses 1 and 2" in message(function, double)
    for function in ON_ONE_MESH:
        assert "tolerance = -1" in message(function, a, tolerance=-1.0)
    assert "p = 0.5" in message(distances.wasserstein, a, 0.5)
    assert "atoms = 0" in message(distances.wasserstein, a, atoms=0)


@pytest.mark.parallel([1, 2])
def test_negative_densities_are_refused_on_all_ranks():
    for dim in (1, 2):
        mesh = cube(WORLD, dim, 6)
        positive, negative = fpc.density.uniform(mesh), fpc.density.uniform(mesh)
        # Positive at all nodes of the one but negative within a cell: nodes at 1/12, 2/12 ...
        negative.interpolate(lambda x: (x[0] - 0.125) * (x[0] - 0.15) + 1e-6)
        negative.x.array[:] /= comparison.equal_mass(negative, negative)
        for function in (distances.kl, distances.wasserstein):
            if function is distances.wasserstein and dim > 1:
                pytest.importorskip("ot")
            for f, g in ((positive, negative), (negative, positive)):
                assert "is negative: -" in raised(ValueError, lambda: function(f, g))  # noqa: B023
        assert np.isfinite(distances.chi_square(negative, positive))
        assert "b is negative" in raised(
            ValueError,
            lambda: distances.chi_square(positive, negative),  # noqa: B023
        )


@pytest.mark.parallel([1, 2])
def test_without_pot_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ot", None)
    a = fpc.density.uniform(cube(WORLD, 2, 2))
    assert "fpcontrol[transport]" in raised(ImportError, lambda: distances.wasserstein(a, a))


@pytest.mark.parallel([1, 2])
def test_h_minus_1_refuses_masses_that_cannot_meet():
    # Two intervals with a gap: equal total mass, but not part by part.
    whole = fpc.mesh.interval(WORLD, 12)
    cells = dolfinx.mesh.locate_entities(whole, 1, lambda x: (x[0] < 0.35) | (x[0] > 0.64))
    mesh = dolfinx.mesh.create_submesh(whole, 1, cells)[0]
    a = fpc.density.uniform(mesh)
    b = fpc.density.interpolate(mesh, lambda x: 1.0 + x[0])
    assert distances.wasserstein(a, b) > 0.1
    assert "several parts of the mesh" in raised(ValueError, lambda: distances.h_minus_1(a, b))
