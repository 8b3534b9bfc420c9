"""Absorbing walls that are not there, or named wrongly, are refused on all ranks; what is kept."""

import warnings

import numpy as np
import pytest
from dolfinx.mesh import exterior_facet_indices, locate_entities, meshtags
from problems import LAST, SELF, SPACES, WORLD, bump, cube, raised, stirring, tracking
from test_absorbing import sides

import fpcontrol as fpc

MESH = cube(WORLD, 2, 4)


def equation(**options) -> fpc.FokkerPlanck:
    return fpc.FokkerPlanck(MESH, stirring, 0.8, degree=1, **options)


def with_inner():
    """Facets on the middle line are tagged 5, those at the lowest 4."""
    MESH.topology.create_connectivity(1, 2)
    low, middle = (
        locate_entities(MESH, 1, lambda x, at=at: np.isclose(x[0], at)) for at in (0.0, 0.5)
    )
    facets, values = np.concatenate([low, middle]), np.repeat([4, 5], [len(low), len(middle)])
    order = np.argsort(facets)
    return meshtags(MESH, 1, facets[order], values[order].astype(np.int32))


def failing(x: np.ndarray) -> np.ndarray:
    if LAST:
        raise RuntimeError("no such wall")
    return x[0] < 2.0


BAD = [
    (lambda: {"facet_tags": sides(MESH)}, "facet_tags without absorbing"),
    (lambda: {"absorbing": 4}, "facet_tags = None must be the MeshTags"),
    (lambda: {"absorbing": (4,), "facet_tags": "walls"}, "'walls' must be"),
    (
        lambda: {"absorbing": lambda x: x[0] < 1e-9, "facet_tags": sides(MESH)},
        "absorbing is a marker, and facet_tags are given",
    ),
    (lambda: {"absorbing": 7, "facet_tags": sides(MESH)}, "no facet has the tag 7"),
    (lambda: {"absorbing": (4, 7), "facet_tags": sides(MESH)}, "no facet has the tag 7"),
    (lambda: {"absorbing": (), "facet_tags": sides(MESH)}, "absorbing = () must"),
    (lambda: {"absorbing": (4, 4), "facet_tags": sides(MESH)}, "or several tags"),
    (lambda: {"absorbing": True, "facet_tags": sides(MESH)}, "absorbing = True must"),
    (lambda: {"absorbing": 4.0, "facet_tags": sides(MESH)}, "absorbing = 4.0 must"),
    (
        lambda: {"absorbing": "left", "facet_tags": sides(MESH)},
        "absorbing = 'left': these tags have no names",
    ),
    (lambda: {"absorbing": 4, "facet_tags": sides(cube(WORLD, 2, 4))}, "of another mesh"),
    (
        lambda: {
            "absorbing": 4,
            "facet_tags": meshtags(MESH, 2, np.arange(1, dtype=np.int32), np.int32([4])),
        },
        "dimension 2 of this mesh",
    ),
    (lambda: {"absorbing": (4, 5), "facet_tags": with_inner()}, "the tag 5 lie between two cells"),
    (lambda: {"absorbing": lambda x: x[0] > 2.0}, "picks no facet"),
    # A point is no facet of a square.
    (lambda: {"absorbing": lambda x: x[0] + x[1] < 1e-9}, "all vertices"),
]


@pytest.mark.parallel([1, 2])
def test_walls_that_are_refused():
    for options, message in BAD:
        given = options()
        assert message in raised(ValueError, lambda given=given: equation(**given))
    assert raised(RuntimeError, lambda: equation(absorbing=failing)) == "no such wall"


def test_inner_facets_of_tags_that_are_not_named_are_no_matter():
    run = equation(absorbing=4, facet_tags=with_inner()).solve(bump(MESH, 1, 0.3), 1.0, 4)
    assert run.tags == (4,) and run.absorbed.shape == (5, 1)


@pytest.mark.parametrize(("dim", "degree", "n"), SPACES)
def test_nodes_of_a_wall_are_those_that_lie_on_it(dim, degree, n):
    e = fpc.FokkerPlanck(
        cube(SELF, dim, n), stirring, 0.8, degree=degree, absorbing=lambda x: np.isclose(x[0], 1.0)
    )
    x = e.elements.space.tabulate_dof_coordinates()[:, 0]
    assert np.array_equal(e.system.absorbing.dofs, np.flatnonzero(np.isclose(x, 1.0)))
    assert e.system.absorbing.measures == pytest.approx((1.0,), rel=1e-13)


def test_a_mesh_without_free_nodes_is_refused():
    with pytest.raises(ValueError, match="every node lies on an absorbing wall"):
        fpc.FokkerPlanck(cube(SELF, 2, 1), stirring, 0.8, degree=1, absorbing=lambda x: x[0] < 2.0)


@pytest.mark.parallel([1, 2])
def test_a_corner_belongs_to_the_tag_named_first():
    MESH.topology.create_connectivity(1, 2)
    outer = exterior_facet_indices(MESH.topology)
    left = sides(MESH).find(4)  # 1, the others 2
    tags = meshtags(MESH, 1, outer, np.where(np.isin(outer, left), 1, 2).astype(np.int32))
    start = fpc.density.uniform(MESH, 1)
    found = {}
    for order in ((1, 2), (2, 1)):
        system = equation(absorbing=order, facet_tags=tags).system
        _, taken = system.begun(start.x.array)
        found[order] = dict(zip(order, taken, strict=True))
    assert sum(found[1, 2].values()) == pytest.approx(sum(found[2, 1].values()), rel=1e-12)
    assert found[1, 2][1] > found[2, 1][1] and found[1, 2][2] < found[2, 1][2]


@pytest.mark.parallel([1, 2])
def test_absorbed_masses_are_saved(tmp_path):
    run = equation(absorbing=(9, 4), facet_tags=sides(MESH)).solve(
        bump(MESH, 1, 0.3), 1.0, 4, save="last"
    )
    fpc.io.save(run, tmp_path / "run.npz")
    again = fpc.io.load(tmp_path / "run.npz", MESH)
    assert again.tags == run.tags == (9, 4)
    assert np.array_equal(again.absorbed, run.absorbed)
    assert again.mass_defect == run.mass_defect and repr(again) == repr(run)
    assert "tag 9: " in repr(run)


def test_march_begins_with_what_is_left():
    e = equation(absorbing=4, facet_tags=sides(MESH))
    start = bump(MESH, 1, 0.3)
    run = e.solve(start, 1.0, 4)
    for level, (_, density) in zip(run.levels, e.march(start, 1.0, 4), strict=True):
        assert np.array_equal(level, density.x.array)
    assert not run.levels[0, e.system.absorbing.dofs].any()
    assert start.x.array.min() > 0.0  # is left alone


def test_scheme_unless_given():
    assert tracking(SELF).runs.scheme == fpc.CrankNicolson()
    walls = {"absorbing": lambda x: x[0] < 1e-9}
    assert tracking(SELF, **walls).runs.scheme == fpc.SDIRK2()
    e = equation(**walls)
    start = bump(MESH, 1, 0.3)
    one, two = (e.solve(start, 1.0, 4, scheme=scheme) for scheme in (None, fpc.SDIRK2()))
    assert np.array_equal(one.levels, two.levels)


def test_a_wall_that_gives_back_is_a_warning():
    mesh = fpc.mesh.interval(SELF, 10)
    away = fpc.drift.Steady(lambda x: 8.0 - 8.0 * x)
    messages = {}
    for method in (fpc.Galerkin(1), fpc.Monotone()):
        e = fpc.FokkerPlanck(
            mesh, away, 0.4, absorbing=lambda x: x[0] < 1e-9, discretization=method
        )
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            run = e.solve(fpc.density.uniform(mesh, 1), 0.5, 50)
        messages[method] = [str(w.message) for w in said if "given back" in str(w.message)]
        back = -np.diff(run.absorbed[:, 0]).min()
        assert (back > 1e-3) == (method == fpc.Galerkin(1))
    assert len(messages[fpc.Galerkin(1)]) == 1 and not messages[fpc.Monotone()]
    assert "(tag 1)" in messages[fpc.Galerkin(1)][0]


def test_lost_mass_is_an_error(monkeypatch):
    # The rows of the walls say what went through them: who mistakes them is told.
    from fpcontrol.discretization.absorbing import Absorbing

    taken = Absorbing.absorbed
    monkeypatch.setattr(Absorbing, "absorbed", lambda *args: (1.0 + 1e-6) * taken(*args))
    with pytest.raises(ArithmeticError, match="The run has lost its mass"):
        equation(absorbing=4, facet_tags=sides(MESH)).solve(bump(MESH, 1, 0.3), 1.0, 4)


@pytest.mark.filterwarnings("error")
def test_limited_walls_only_take():
    mesh = fpc.mesh.interval(SELF, 10)
    start = fpc.density.interpolate(mesh, lambda x: np.maximum(x[0] - 0.05, 0.0), 1)
    for speed in (8.0, 80.0, 800.0):
        away = fpc.drift.Steady(lambda x, s=speed: s - s * x)
        e = fpc.FokkerPlanck(
            mesh, away, 0.4, absorbing=lambda x: x[0] < 1e-9, discretization=fpc.Limited()
        )
        run = e.solve(start, 0.5, 50)
        assert np.diff(run.absorbed[:, 0]).min() >= -1e-14
        assert run.mass_defect < 1e-12 and run.minimum.min() >= -1e-14
