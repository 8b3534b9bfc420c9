"""Meshes of gmsh and of meshio, and tags by name."""

import sys
from pathlib import Path

from mpi4py import MPI

import dolfinx.mesh
import numpy as np
import pytest
from problems import SELF, WORLD, raised

import fpcontrol as fpc
from fpcontrol.mesh import msh

DATA = Path(__file__).parent / "data"
GMSH = msh.load_gmsh()
NAMES = {(1, 1): "walls", (1, 2): "the door", (2, 3): "left room", (2, 4): "right room"}


@pytest.fixture(params=["gmsh", "meshio"])
def reader(request, monkeypatch) -> str:
    if request.param == "gmsh" and GMSH is None:
        pytest.skip("gmsh cannot be loaded")
    if request.param == "meshio":
        pytest.importorskip("meshio")
        monkeypatch.setattr(msh, "load_gmsh", lambda: None)
    return request.param


def lines(kind: int, tag: int, rows) -> list[str]:
    """Elements of one group in gmsh's format 2.2, the entity called as the group."""
    return [f"{kind} 2 {tag} {tag} " + " ".join(str(5 + 2 * n) for n in row) for row in rows]


def rooms(path: Path, extra: list[str] = (), names=NAMES) -> Path:
    """Two rooms of the unit square, with a door in x = 1, as a .msh file with gaps in its numbers.

    And with a node that no cell has.
    """
    if WORLD.rank == 0:
        made = fpc.mesh.rectangle(SELF, (6, 4))
        x, cells = made.geometry.x, made.geometry.dofmaps[0]
        right = x[cells, 0].mean(axis=1) > 0.5
        made.topology.create_connectivity(1, 2)
        edges = dolfinx.mesh.entities_to_geometry(
            made, 1, dolfinx.mesh.exterior_facet_indices(made.topology)
        )
        door = (x[edges, 0] > 0.99).all(axis=1) & (x[edges, 1] < 0.51).all(axis=1)
        elements = lines(1, 1, edges[~door]) + lines(1, 2, edges[door])
        elements += lines(2, 3, cells[~right]) + lines(2, 4, cells[right]) + list(extra)
        nodes = [f"{5 + 2 * n} {p[0]!r} {p[1]!r} 0" for n, p in enumerate(x.tolist())]
        text = ["$MeshFormat", "2.2 0 8", "$EndMeshFormat"]
        if names:
            called = [f'{dim} {tag} "{name}"' for (dim, tag), name in names.items()]
            text += ["$PhysicalNames", str(len(called)), *called, "$EndPhysicalNames"]
        text += ["$Nodes", str(len(nodes) + 1), "1 9 9 0", *nodes, "$EndNodes"]
        text += ["$Elements", str(len(elements))]
        text += [f"{i + 1} {line}" for i, line in enumerate(elements)] + ["$EndElements", ""]
        path.write_text("\n".join(text))
    WORLD.barrier()
    return path


@pytest.mark.parallel([1, 2, 3])
def test_groups_of_gmsh_are_walls_regions_and_fluxes_by_name(reader, tmp_path):
    path = rooms(WORLD.bcast(tmp_path) / "rooms.msh")
    mesh = fpc.mesh.read(path, WORLD)
    assert mesh.geometry.dim == 2 and mesh.topology.index_map(2).size_global == 48
    facets, cells = fpc.mesh.read_facet_tags(path, mesh), fpc.mesh.read_cell_tags(path, mesh)
    assert facets.names == {"walls": 1, "the door": 2}
    assert cells.names == {"left room": 3, "right room": 4}
    equation = fpc.FokkerPlanck(
        mesh, fpc.drift.zero(), 1.0, absorbing="the door", facet_tags=facets, degree=1
    )
    seen = {
        "left": fpc.observables.mass("left room", tags=cells),
        "all": fpc.observables.mass(["left room", 4], tags=cells),
        "out": fpc.observables.flux("the door", tags=facets),
    }
    start = fpc.density.uniform(mesh, degree=1)
    run = equation.solve(start, 0.5, 20, save="last", observables=seen)
    assert run.tags == (2,)
    assert run.observables["left"][0] == pytest.approx(0.5, rel=0.05)  # the door took a layer
    assert run.observables["all"] == pytest.approx(run.mass, rel=1e-12)
    assert (run.observables["out"][2:] > 0.0).all()
    assert 0.05 < run.absorbed[-1, 0] and run.mass_defect < 1e-12
    # The same as by a marker on a mesh made here.
    again = fpc.FokkerPlanck(
        fpc.mesh.rectangle(WORLD, (6, 4)),
        fpc.drift.zero(),
        1.0,
        absorbing=lambda x: (x[0] > 0.99) & (x[1] < 0.51),
        degree=1,
    )
    other = again.solve(fpc.density.uniform(again.mesh, degree=1), 0.5, 20, save="last")
    assert run.mass[-1] == pytest.approx(other.mass[-1], rel=1e-9)
    leaves = equation.exit_probability("the door")
    assert np.abs(leaves.x.array - 1.0).max() < 1e-9
    q = fpc.FokkerPlanck(mesh, fpc.drift.zero(), 1.0, degree=1).exit_time("right room", tags=cells)
    assert WORLD.allreduce(q.x.array.max(), MPI.MAX) == pytest.approx(
        0.25, rel=0.06
    )  # half a unit, D = 1/2


@pytest.mark.parallel([1, 2])
def test_names_that_tags_do_not_have_are_refused(reader, tmp_path):
    path = rooms(WORLD.bcast(tmp_path) / "rooms.msh")
    mesh = fpc.mesh.read(path, WORLD)
    named = fpc.mesh.read_facet_tags(path, mesh)
    bare = dolfinx.mesh.meshtags(mesh, 1, named.indices, named.values)

    def equation(**walls):
        return fpc.FokkerPlanck(mesh, fpc.drift.zero(), 1.0, degree=1, **walls)

    unknown = raised(ValueError, lambda: equation(absorbing="window", facet_tags=named))
    assert "absorbing = 'window'" in unknown and "'walls', 'the door'" in unknown
    nameless = raised(ValueError, lambda: equation(absorbing=["walls"], facet_tags=bare))
    assert "fpc.mesh.NamedTags" in nameless
    tagless = raised(ValueError, lambda: equation(absorbing="walls"))
    assert "absorbing = 'walls'" in tagless
    again = equation(absorbing=["walls"], facet_tags=fpc.mesh.NamedTags(bare, {"walls": 1}))
    assert again.system.absorbing.tags == (1,)
    wrong = raised(ValueError, lambda: again.exit_probability("the door"))
    assert "tag = 'the door'" in wrong


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize(
    ("element", "message"),
    [
        ("3 2 4 5 5 7 9 11", "quad"),
        ("9 2 4 5 5 7 9 11 13 15", "triangle"),  # curved, of six nodes
    ],
)
def test_other_cells_of_gmsh_are_refused(reader, element, message, tmp_path):
    path = rooms(WORLD.bcast(tmp_path) / "rooms.msh", [element])
    refusal = raised(ValueError, lambda: fpc.mesh.read(path, WORLD))
    assert message in refusal.lower() and "straight intervals, triangles" in refusal


@pytest.mark.parallel([1, 2])
def test_elements_in_two_groups_are_refused_by_name(reader, tmp_path):
    path = rooms(WORLD.bcast(tmp_path) / "rooms.msh")
    if WORLD.rank == 0:
        text = path.read_text().split("\n")
        at = text.index("$Elements") + 1
        first = next(line for line in text if line.startswith("1 1 2 1 1 "))
        again = first.replace("1 1 2 1 1", f"{int(text[at]) + 1} 1 2 2 7")
        text = [*text[: text.index("$EndElements")], again, "$EndElements", ""]
        text[at] = str(int(text[at]) + 1)
        path.write_text("\n".join(text))
    WORLD.barrier()
    mesh = fpc.mesh.read(path, WORLD)
    refusal = raised(ValueError, lambda: fpc.mesh.read_facet_tags(path, mesh))
    assert "'walls', 'the door'" in refusal and "one tag" in refusal


@pytest.mark.parallel([1, 2])
def test_files_without_a_mesh_or_groups_are_refused(reader, tmp_path):
    folder = WORLD.bcast(tmp_path)
    path = rooms(folder / "rooms.msh", names={})
    mesh = fpc.mesh.read(path, WORLD)
    tags = fpc.mesh.read_cell_tags(path, mesh)
    assert not hasattr(tags, "names") and set(np.unique(tags.values)) <= {3, 4}
    named = raised(ValueError, lambda: fpc.mesh.read_facet_tags(path, mesh, "walls"))
    assert "name = 'walls'" in named
    missing = raised(FileNotFoundError, lambda: fpc.mesh.read(folder / "none.msh", WORLD))
    assert "none.msh does not exist" in missing
    broken = folder / "broken.msh"
    if WORLD.rank == 0:
        text = path.read_text()
        broken.write_text(text[: len(text) // 2])
    WORLD.barrier()
    assert "broken.msh" in raised(ValueError, lambda: fpc.mesh.read(broken, WORLD))


def test_a_surface_that_is_in_no_group_is_asked_for(reader, tmp_path):
    path = tmp_path / "curves.msh"
    path.write_text(
        "$MeshFormat\n2.2 0 8\n$EndMeshFormat\n$Nodes\n3\n1 0 0 0\n2 1 0 0\n3 1 1 0\n$EndNodes\n"
        "$Elements\n2\n1 1 2 1 1 1 2\n2 1 2 1 1 2 3\n$EndElements\n"
    )
    with pytest.raises(ValueError, match=r"fill its space.*physical group"):
        fpc.mesh.read(path, SELF)


@pytest.mark.parallel([1, 2])
def test_without_gmsh_and_meshio_the_error_says_what_to_install(tmp_path, monkeypatch):
    path = rooms(WORLD.bcast(tmp_path) / "rooms.msh")
    for name in ("gmsh", "meshio"):
        monkeypatch.setitem(sys.modules, name, None)  # importing it is now an ImportError
    refusal = raised(ImportError, lambda: fpc.mesh.read(path, WORLD))
    assert "pip install meshio" in refusal


def test_a_model_that_is_open_in_gmsh_stays_open(tmp_path):
    gmsh = GMSH or pytest.skip("gmsh cannot be loaded")
    gmsh.initialize(readConfigFiles=False, interruptible=False)
    try:
        gmsh.model.add("mine")
        gmsh.model.geo.addPoint(0.0, 0.0, 0.0)
        gmsh.model.geo.synchronize()
        fpc.mesh.read(rooms(tmp_path / "rooms.msh"), SELF)
        assert gmsh.model.getCurrent() == "mine" and len(gmsh.model.getEntities(0)) == 1
        assert gmsh.model.list().count("fpcontrol") == 0
    finally:
        gmsh.finalize()


def test_a_ball_that_gmsh_has_meshed_comes_with_its_groups(reader, tmp_path):
    gmsh = GMSH or pytest.skip("gmsh cannot be loaded")
    gmsh.initialize(readConfigFiles=False, interruptible=False)
    path = tmp_path / "ball.msh"
    try:
        gmsh.option.setNumber("General.Terminal", 0)
        gmsh.model.occ.addSphere(0.0, 0.0, 0.0, 1.0)
        gmsh.model.occ.synchronize()
        gmsh.model.addPhysicalGroup(2, [tag for _, tag in gmsh.model.getEntities(2)], 7, "skin")
        gmsh.model.addPhysicalGroup(3, [1], 9, "inside")
        gmsh.option.setNumber("Mesh.MeshSizeMax", 0.5)
        gmsh.model.mesh.generate(3)
        gmsh.write(str(path))
    finally:
        gmsh.finalize()
    mesh = fpc.mesh.read(path, SELF)
    tags, cells = fpc.mesh.read_facet_tags(path, mesh), fpc.mesh.read_cell_tags(path, mesh)
    mesh.topology.create_connectivity(2, 3)
    assert np.array_equal(
        np.sort(tags.find(tags.names["skin"])), dolfinx.mesh.exterior_facet_indices(mesh.topology)
    )
    assert len(cells.find(9)) == mesh.topology.index_map(3).size_global
    equation = fpc.FokkerPlanck(
        mesh, fpc.drift.zero(), 1.0, degree=2, absorbing="skin", facet_tags=tags
    )
    time = equation.exit_time()
    assert time.x.array.max() == pytest.approx(1.0 / 3.0, rel=0.06)  # (1 - r^2) / (2 d D)


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize(("dim", "cells", "right", "left"), [(2, 40, 20, 4), (3, 72, 32, 8)])
def test_xdmf_of_meshio_is_read_with_its_tags(dim, cells, right, left):
    path, walls = (DATA / f"meshio_{dim}d{part}.xdmf" for part in ("", "_walls"))
    mesh = fpc.mesh.read(path, WORLD)
    assert mesh.topology.index_map(dim).size_global == cells
    regions, sides = fpc.mesh.read_cell_tags(path, mesh), fpc.mesh.read_facet_tags(walls, mesh)
    for tags, tag, count in ((regions, 2, right), (sides, 6, left)):
        found = tags.find(tag)
        middles = dolfinx.mesh.compute_midpoints(mesh, tags.dim, found)[:, 0]
        assert (middles > 0.5 if tag == 2 else np.abs(middles) < 1e-12).all()
        own = mesh.topology.index_map(tags.dim).size_local
        assert WORLD.allreduce(int((found < own).sum())) == count
    missing = raised(ValueError, lambda: fpc.mesh.read_cell_tags(path, mesh, "depth"))
    assert "no tags of cells named 'depth'; it has 'Grid'" in missing
