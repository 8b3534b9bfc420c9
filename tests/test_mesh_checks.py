"""Meshes and files on which the equation would fail, or be wrong without a word: refused."""

from collections.abc import Callable
from pathlib import Path

from mpi4py import MPI

import basix.ufl
import dolfinx.mesh
import numpy as np
import pytest
from dolfinx.io import XDMFFile
from dolfinx.mesh import Mesh
from problems import SELF, WORLD, raised

import fpcontrol as fpc
from fpcontrol import xdmf

DATA = Path(__file__).parent / "data"
SQUARE = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])


def made(x, cells, comm: MPI.Comm = WORLD) -> Mesh:
    """A mesh as a user makes it with DOLFINx, of simplices given on rank 0."""
    x, cells = np.array(x, dtype=np.float64), np.array(cells, dtype=np.int64)
    kind = ("interval", "triangle", "tetrahedron")[cells.shape[1] - 2]
    element = basix.ufl.element("Lagrange", kind, 1, shape=(x.shape[1],), dtype=np.float64)
    if comm.rank:
        x, cells = x[:0], cells[:0]
    return dolfinx.mesh.create_mesh(comm, cells, element, x)


def saved(path: Path, x, cells) -> Path:
    """A file that holds just these cells; on several ranks DOLFINx would make others of some."""
    if WORLD.rank == 0:
        with XDMFFile(SELF, path, "w") as file:
            file.write_mesh(made(x, cells, SELF))
    WORLD.barrier()
    return path


def patched(path: Path, change: Callable[[np.ndarray, np.ndarray], None]) -> Path:
    """A mesh file with its coordinates and cells changed in place."""
    WORLD.barrier()
    if WORLD.rank == 0:
        (grid,) = xdmf.grids(path)
        old = xdmf.geometry(path, grid), xdmf.topology(path, grid)
        new = [array.copy() for array in old]
        change(*new)
        content = grid.data.read_bytes()
        for a, b in zip(old, new, strict=True):
            assert content.count(a.tobytes()) == 1
            content = content.replace(a.tobytes(), b.tobytes())
        grid.data.write_bytes(content)
    WORLD.barrier()
    return path


def grid_of(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and triangles of the unit square."""
    mesh = fpc.mesh.rectangle(MPI.COMM_SELF, (n, n))
    return mesh.geometry.x[:, :2], mesh.geometry.dofmaps[0].astype(np.int64)


def soup(n: int = 3):
    x, cells = grid_of(n)
    return x[cells].reshape(-1, 2), np.arange(cells.size).reshape(-1, 3)


def halves(join: bool = False):
    """The unit square in two halves whose nodes on x = 1/2 are there twice (but for one)."""
    x, cells = grid_of(4)
    right = x[cells].mean(axis=1)[:, 0] > 0.5
    line = np.flatnonzero(np.abs(x[:, 0] - 0.5) < 1e-9)
    if join:  # a slit: its tip at y = 3/4 and what is above stay joined
        line = line[x[line, 1] < 0.7]
    new = np.arange(len(x))
    new[line] = len(x) + np.arange(len(line))
    cells[right] = new[cells[right]]
    return np.concatenate([x, x[line]]), cells


def copied(n: int = 3):
    x, cells = grid_of(n)
    return x, np.concatenate([cells, cells[:2, [1, 2, 0]]])


FOLDED = [[0, 0], [1, 0], [0.5, 1], [0.5, 0.4]], [[0, 1, 2], [0, 1, 3]]
THREE = [[0, 0], [1, 0], [0.5, 1], [0.5, -1], [0.4, 0.5]], [[0, 1, 2], [0, 1, 3], [0, 1, 4]]
SPIKE = [[0, 0], [1, 0], [0, 1], [0.5, 0.5]], [[0, 1, 2], [1, 3, 2]]
TETRAHEDRA = (
    [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, -1], [1, 1, 1]],
    [[0, 1, 2, 3], [0, 1, 2, 4], [0, 1, 2, 5]],
)
INTERVALS = [[0.0], [0.5], [1.0], [0.75]], [[0, 1], [1, 2], [1, 3]]

WRONG = {
    "soup": (*soup(), "nodes of the boundary lie at the place of another one, the first at ("),
    "halves": (*halves(), "10 nodes of the boundary lie"),
    "a cell twice": (*copied(), "share all their nodes with another cell: 4, the first is cell"),
    "three on an edge": (*THREE, "share a side with more than one other cell: 3, the first"),
    "three on a face": (*TETRAHEDRA, "share a face with more than one other cell: 3, the first"),
    "three on a node": (*INTERVALS, "share a node with more than one other cell: 3, the first"),
    "folded": (*FOLDED, "lie on the same side of a side as their neighbour: 2, the first"),
    "flat": (*SPIKE, "without area: 1, the first is cell 1 near (0.5, 0.5)"),
    "two nodes at one place": (
        [[0, 0], [1, 0], [0, 1], [0, 1]],
        [[0, 1, 2], [1, 3, 2]],
        "without area: 1",
    ),
    "NaN": ([[0, 0], [1, 0], [0, np.nan]], [[0, 1, 2]], "not finite: 1, the first is cell 0"),
    "infinite": ([[0, 0], [1, 0], [np.inf, 1]], [[0, 1, 2]], "not finite: 1"),
}


@pytest.mark.parallel([1, 2, 3])
@pytest.mark.parametrize("what", WRONG)
def test_mesh_of_the_user_with_wrong_cells_is_refused_where_a_space_is_made(what):
    x, cells, message = WRONG[what]
    mesh = made(x, cells)
    for make in (
        lambda: fpc.density.uniform(mesh, degree=1),
        lambda: fpc.FokkerPlanck(mesh, lambda t, x: 0 * x, 1.0),
    ):
        refusal = raised(ValueError, make)
        assert refusal.startswith("mesh")
        assert message in refusal


@pytest.mark.parallel([1, 2, 3])
@pytest.mark.parametrize("what", WRONG)
def test_file_with_wrong_cells_is_refused_when_read(what, tmp_path):
    x, cells, message = WRONG[what]
    path = saved(tmp_path / "wrong.xdmf", x, cells)
    refusal = raised(ValueError, lambda: fpc.mesh.read(path, WORLD))
    assert refusal.startswith(str(path))
    assert message.split(" near")[0].split(", the first is cell")[0] in refusal


@pytest.mark.parallel([1, 2, 3])
def test_node_numbers_that_end_the_process_are_refused(tmp_path):
    good = saved(tmp_path / "good.xdmf", *grid_of(3))
    assert fpc.mesh.read(good, WORLD).topology.index_map(2).size_global == 18

    def twice(x, cells):
        cells[4, 1] = cells[4, 0]

    def unknown(x, cells):
        cells[4, 1] = 16

    def negative(x, cells):
        cells[5, 2] = -1

    def infinite(x, cells):
        x[3] = np.nan

    for change, message in [
        (twice, "cells with a node twice: 1, the first is cell 4 of nodes ["),
        (unknown, "cells with node numbers outside 0 to 15: 1, the first is cell 4"),
        (negative, "cells with node numbers outside 0 to 15: 1, the first is cell 5"),
        (infinite, "cells with nodes that are not finite: "),
    ]:
        path = patched(saved(tmp_path / "bad.xdmf", *grid_of(3)), change)
        assert message in raised(ValueError, lambda path=path: fpc.mesh.read(path, WORLD))


@pytest.mark.parallel([1, 2, 3])
def test_slit_is_allowed_with_a_warning():
    x, cells = halves(join=True)
    mesh = made(x, cells)
    if WORLD.rank == 0:
        with pytest.warns(UserWarning, match="a slit with a wall on both sides"):
            rho = fpc.density.uniform(mesh, degree=1)
    else:
        rho = fpc.density.uniform(mesh, degree=1)
    assert rho.x.array == pytest.approx(1.0)


@pytest.mark.parallel([1, 2])
def test_node_moved_after_the_first_space_is_noticed():
    mesh = made(*grid_of(3))
    fpc.density.uniform(mesh, degree=1)
    mesh.geometry.x[:] = 0.0
    assert "without area" in raised(ValueError, lambda: fpc.density.uniform(mesh, degree=1))


@pytest.mark.parallel([1, 2])
def test_mesh_in_single_precision_is_refused():
    mesh = dolfinx.mesh.create_unit_square(WORLD, 3, 3, dtype=np.float32)
    refusal = raised(ValueError, lambda: fpc.density.uniform(mesh))
    assert "float32; float64 is needed" in refusal


@pytest.mark.parallel([1, 2])
@pytest.mark.filterwarnings("error")
def test_thin_cells_far_from_the_origin_are_no_fault():
    x, cells = grid_of(4)
    fpc.density.uniform(made([5e5, 6e6] + x * [1.0, 1e-3], cells), degree=1)
    fpc.density.uniform(made(1e-9 * x, cells), degree=1)


# --- what DOLFINx cannot read --------------------------------------------------------------------


@pytest.mark.parallel([1, 2, 3])
def test_compressed_data_are_refused_in_one_line(capfd):
    path = DATA / "compressed.xdmf"
    refusal = raised(ValueError, lambda: fpc.mesh.read(path, WORLD))
    assert "compressed (deflate)" in refusal
    assert "meshio.write(path, mesh, compression=None)" in refusal
    assert "\n" not in refusal
    assert "HDF5" not in capfd.readouterr().err


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("form", ["XML", "Binary", "TIFF", None])
def test_data_outside_hdf5_are_refused_by_their_format(form, tmp_path):
    path = tmp_path / "other.xdmf"
    text = (DATA / "inline.xdmf").read_text(encoding="utf-8")
    assert 'Format="XML"' in text
    if WORLD.rank == 0:
        path.write_text(text.replace('Format="XML"', f'Format="{form}"' if form else ""))
    WORLD.barrier()
    refusal = raised(ValueError, lambda: fpc.mesh.read(path, WORLD))
    assert f"is stored as {form or 'XML'}; only HDF5 is read" in refusal
    assert "compression=None" in refusal


@pytest.mark.parallel([1, 2])
def test_file_of_another_kind_is_refused_with_a_way_to_convert(tmp_path):
    path = tmp_path / "mesh.inp"
    if WORLD.rank == 0:
        path.write_text("$MeshFormat\n4.1 0 8\n$EndMeshFormat\n")
    WORLD.barrier()
    refusal = raised(ValueError, lambda: fpc.mesh.read(path, WORLD))
    assert "is not an XDMF file" in refusal
    assert "meshio" in refusal


@pytest.mark.parallel([1, 2])
def test_data_in_a_file_of_another_name_are_read(tmp_path):
    path = saved(tmp_path / "old.xdmf", *grid_of(3))
    if WORLD.rank == 0:
        path.rename(tmp_path / "new.xdmf")
    WORLD.barrier()
    mesh = fpc.mesh.read(tmp_path / "new.xdmf", WORLD)
    assert mesh.topology.index_map(2).size_global == 18


# --- nodes that no cell uses ---------------------------------------------------------------------


@pytest.mark.parallel([1, 2, 3])
def test_tags_are_read_from_a_file_with_nodes_that_no_cell_uses():
    mesh = fpc.mesh.read(DATA / "unused.xdmf", WORLD)
    tags = fpc.mesh.read_facet_tags(DATA / "unused_facets.xdmf", mesh)
    owned = tags.indices < mesh.topology.index_map(1).size_local
    middle = dolfinx.mesh.compute_midpoints(mesh, 1, tags.indices)[:, :2]
    found = {
        int(value): tuple(x)
        for part in WORLD.allgather((tags.values[owned], middle[owned]))
        for value, x in zip(*part, strict=True)
    }
    assert found == {5: (0.5, 0.0), 6: (1.0, 0.5), 7: (0.5, 1.0), 8: (0.0, 0.5)}
    # A tag on a node that the mesh does not have, and on facets of another mesh.
    other = made(SQUARE, [[0, 1, 2], [0, 2, 3]])
    refusal = raised(
        ValueError, lambda: fpc.mesh.read_facet_tags(DATA / "unused_facets.xdmf", other)
    )
    assert "read the mesh from the same file" in refusal
