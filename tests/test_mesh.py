"""Meshes made and read, their facet tags, and errors that all ranks see."""

import json
from collections.abc import Callable
from pathlib import Path

from mpi4py import MPI

import basix.ufl
import dolfinx.mesh
import numpy as np
import pytest
from dolfinx.io import XDMFFile
from dolfinx.mesh import CellType, Mesh

from fpcontrol import mesh as meshes

COMM = MPI.COMM_WORLD
SHIPPED = Path(__file__).parents[1] / "meshes"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One folder for all ranks."""
    return COMM.bcast(tmp_path)


def measure(mesh: Mesh, dim: int, entities: np.ndarray) -> float:
    """Volume, area or length of the owned ones among the entities, summed over the ranks."""
    mesh.topology.create_connectivity(dim, mesh.topology.dim)
    owned = entities[entities < mesh.topology.index_map(dim).size_local]
    nodes = dolfinx.mesh.entities_to_geometry(mesh, dim, owned.astype(np.int32))
    x = mesh.geometry.x[nodes.reshape(len(owned), dim + 1)]
    edges = x[:, 1:] - x[:, :1]
    gram = np.linalg.det(edges @ edges.transpose(0, 2, 1))
    return COMM.allreduce(float(np.sqrt(gram).sum())) / [1, 1, 2, 6][dim]


def size(mesh: Mesh) -> float:
    dim = mesh.topology.dim
    return measure(mesh, dim, np.arange(mesh.topology.index_map(dim).size_local))


def cells(mesh: Mesh) -> int:
    return mesh.topology.index_map(mesh.topology.dim).size_global


def exterior(mesh: Mesh) -> np.ndarray:
    mesh.topology.create_connectivity(mesh.topology.dim - 1, mesh.topology.dim)
    return dolfinx.mesh.exterior_facet_indices(mesh.topology)


def save(path: Path, mesh: Mesh, tags: str = "") -> Path:
    """Write the mesh, and if asked for its exterior facets tagged by their side of x = 0."""
    with XDMFFile(mesh.comm, path, "w") as file:
        file.write_mesh(mesh)
        if tags:
            dim, facets = mesh.topology.dim - 1, exterior(mesh)
            middle = dolfinx.mesh.compute_midpoints(mesh, dim, facets)
            values = np.where(middle[:, 0] < 0.0, 1, 2).astype(np.int32)
            facet_tags = dolfinx.mesh.meshtags(mesh, dim, facets, values)
            facet_tags.name = tags
            file.write_meshtags(facet_tags, mesh.geometry)
    return path


def refusal(error: type[Exception], call: Callable, *arguments) -> str:
    """The message of the error, which every rank must get, and get the same."""
    message = None
    try:
        call(*arguments)
    except error as caught:
        message = str(caught)
    assert COMM.allgather(message) == [message] * COMM.size
    assert message is not None
    assert "\n" not in message
    return message


@pytest.mark.parallel([1, 2, 3])
def test_made_meshes_fill_their_boxes():
    line = meshes.interval(COMM, 7, -1.0, 2.5)
    plate = meshes.rectangle(COMM, (3, 4), (-1, 0), (1, 0.5))
    brick = meshes.box(COMM, (2, 3, 4), upper=(1, 2, 3))
    for mesh, count, volume in (line, 7, 3.5), (plate, 2 * 12, 1.0), (brick, 6 * 24, 6.0):
        assert mesh.geometry.dim == mesh.topology.dim
        assert mesh.geometry.x.dtype == np.float64
        assert cells(mesh) == count
        assert size(mesh) == pytest.approx(volume, rel=1e-14)


@pytest.mark.parallel([1, 2, 3])
def test_one_cell_is_enough_for_any_number_of_ranks():
    assert size(meshes.interval(COMM, 1)) == 1.0


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize(
    ("make", "arguments", "named"),
    [
        (meshes.interval, (0,), "n must .* not 0"),
        (meshes.interval, (2.5,), "n must .* not 2.5"),
        (meshes.interval, (4, 1.0, 1.0), "lower must be below upper"),
        (meshes.interval, (4, 0.0, np.inf), "finite"),
        (meshes.rectangle, ((2, -1),), "n must .* not -1"),
        (meshes.rectangle, (4,), "2 entries"),
        (meshes.rectangle, ((2, 2), (0, 0), (1, 0)), "lower must be below upper"),
        (meshes.box, ((2, 2),), "3 entries"),
        (meshes.box, ((2, 2, 2), (0, 0, np.nan)), "finite"),
    ],
)
def test_arguments_out_of_range_are_named(make, arguments, named):
    with pytest.raises(ValueError, match=named):
        make(COMM, *arguments)


@pytest.mark.parallel([2])
def test_an_argument_wrong_on_one_rank_is_an_error_on_all():
    assert "not 0" in refusal(ValueError, meshes.interval, COMM, COMM.rank)


@pytest.mark.parallel([1, 2, 3])
@pytest.mark.parametrize("name", ["great_britain", "disk", "l_shape", "hall", "bay"])
def test_shipped_mesh_is_as_recorded(name):
    record = json.loads((SHIPPED / f"{name}.json").read_text(encoding="utf-8"))
    mesh = meshes.read(SHIPPED / f"{name}.xdmf", COMM)
    tags = meshes.read_facet_tags(SHIPPED / f"{name}.xdmf", mesh)
    assert mesh.geometry.dim == 2
    assert cells(mesh) == record["mesh"]["cells"]
    assert mesh.topology.index_map(0).size_global == record["mesh"]["vertices"]
    assert size(mesh) == pytest.approx(record["mesh"]["area"], rel=1e-12)
    # The whole boundary is tagged, and with the recorded tags only.
    tagged = {key: measure(mesh, 1, tags.find(tag)) for key, tag in record["facet_tags"].items()}
    assert measure(mesh, 1, exterior(mesh)) == pytest.approx(record["mesh"]["perimeter"], rel=1e-12)
    assert sum(tagged.values()) == pytest.approx(record["mesh"]["perimeter"], rel=1e-12)
    assert measure(mesh, 1, tags.indices) == pytest.approx(record["mesh"]["perimeter"], rel=1e-12)
    if name == "l_shape":
        assert size(mesh) == pytest.approx(3.0, rel=1e-12)
        assert tagged == pytest.approx({"outer": 6.0, "inner": 2.0}, rel=1e-12)
    if name == "disk":  # a regular polygon of n sides in the unit circle
        n = COMM.allreduce(np.count_nonzero(tags.indices < mesh.topology.index_map(1).size_local))
        assert size(mesh) == pytest.approx(n / 2 * np.sin(2 * np.pi / n), rel=1e-12)


@pytest.mark.parallel([1, 2, 3])
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_a_mesh_and_its_tags_come_back_from_file(folder, dim):
    made = [
        lambda: meshes.interval(COMM, 12, -1.0, 2.0),
        lambda: meshes.rectangle(COMM, (6, 4), (-1, 0), (2, 1)),
        lambda: meshes.box(COMM, (3, 2, 2), (-1, 0, 0), (2, 1, 1)),
    ][dim - 1]()
    path = save(folder / "made.xdmf", made, tags="sides")
    mesh = meshes.read(path, COMM)
    assert (mesh.geometry.dim, mesh.topology.dim) == (dim, dim)
    assert (cells(mesh), size(mesh)) == (cells(made), pytest.approx(3.0, rel=1e-14))
    tags = meshes.read_facet_tags(path, mesh, "sides")
    # Lengths of the walls left of x = 0; a point, the wall of an interval, counts 1.
    left, right = [(1, 1), (3, 5), (1 + 4, 1 + 8)][dim - 1]
    assert measure(mesh, dim - 1, tags.find(1)) == pytest.approx(left, rel=1e-14)
    assert measure(mesh, dim - 1, tags.find(2)) == pytest.approx(right, rel=1e-14)


@pytest.mark.parallel([1, 2])
def test_the_name_of_the_grid_does_not_matter(folder):
    made = meshes.rectangle(COMM, (2, 2))
    made.name = "Grid"
    assert cells(meshes.read(save(folder / "grid.xdmf", made), COMM)) == 8


@pytest.mark.parallel([1, 2])
def test_cells_of_another_kind_are_refused(folder):
    unit = [(0.0, 0.0), (1.0, 1.0)]
    squares = dolfinx.mesh.create_rectangle(COMM, unit, (4, 4), CellType.quadrilateral)
    path = save(folder / "squares.xdmf", squares, tags="walls")
    assert "quadrilateral" in refusal(ValueError, meshes.read, path, COMM)

    x = np.array([[0, 0], [1, 0], [0, 1], [0.5, 0.5], [0, 0.5], [0.5, 0]]) * (COMM.rank == 0)
    nodes = np.arange(6 if COMM.rank == 0 else 0).reshape(-1, 6)
    element = basix.ufl.element("Lagrange", "triangle", 2, shape=(2,))
    curved = dolfinx.mesh.create_mesh(COMM, nodes, element, x[: nodes.size].astype(float))
    path = save(folder / "curved.xdmf", curved)
    assert "triangle_6" in refusal(ValueError, meshes.read, path, COMM)


@pytest.mark.parallel([1, 2])
def test_a_surface_in_space_is_refused(folder):
    flat = dolfinx.mesh.create_rectangle(COMM, [(0, 0), (1, 1)], (2, 2), gdim=3)
    assert meshes.read(save(folder / "flat.xdmf", flat), COMM).geometry.dim == 2
    flat.geometry.x[:, 2] = flat.geometry.x[:, 0]
    path = save(folder / "tilted.xdmf", flat)
    assert "fill its space" in refusal(ValueError, meshes.read, path, COMM)


@pytest.mark.parallel([1, 2, 3])
def test_missing_and_broken_files_are_errors_on_all_ranks(folder):
    path, data = folder / "mesh.xdmf", folder / "mesh.h5"
    assert "does not exist" in refusal(FileNotFoundError, meshes.read, path, COMM)
    save(path, meshes.rectangle(COMM, (2, 2)))
    for content, error, message in [
        (data.read_bytes()[:900], ValueError, "cannot be read"),
        (None, FileNotFoundError, "mesh.h5"),
    ]:
        COMM.barrier()
        if COMM.rank == 0:
            data.write_bytes(content) if content else data.unlink()
        COMM.barrier()
        assert message in refusal(error, meshes.read, path, COMM)
    for text, message in [("no XML", "not an XDMF file"), ("<Xdmf><Domain/></Xdmf>", "no mesh")]:
        COMM.barrier()
        if COMM.rank == 0:
            path.write_text(text)
        COMM.barrier()
        assert message in refusal(ValueError, meshes.read, path, COMM)


@pytest.mark.parallel([1, 2, 3])
def test_missing_and_foreign_tags_are_errors_on_all_ranks(folder):
    made = meshes.rectangle(COMM, (8, 8), (-1, -1))
    bare, tagged = save(folder / "bare.xdmf", made), save(folder / "tagged.xdmf", made, "walls")
    mesh = meshes.read(bare, COMM)
    read = meshes.read_facet_tags
    assert "no tags of facets" in refusal(ValueError, read, bare, mesh)
    assert "named 'shore'; it has 'walls'" in refusal(ValueError, read, tagged, mesh, "shore")
    # As many nodes, but other facets; and another number of nodes.
    for n, message in (
        ((26, 2), "facets of this mesh"),
        ((2, 2), "have nodes that"),
    ):
        other = meshes.read(save(folder / "other.xdmf", meshes.rectangle(COMM, n)), COMM)
        assert message in refusal(ValueError, read, tagged, other)
