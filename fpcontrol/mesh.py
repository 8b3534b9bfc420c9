"""Meshes of intervals, triangles or tetrahedra: made here, or read from XDMF files."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from mpi4py import MPI

import basix.ufl
import dolfinx.mesh
import numpy as np
import ufl
from dolfinx.io import XDMFFile
from dolfinx.mesh import GhostMode, Mesh, MeshTags
from numpy.typing import NDArray

from fpcontrol.parallel.errors import collective_errors, raise_collectively

_DOMAIN = "/Xdmf/Domain"  # where XDMF keeps its grids
# Cells by dimension, in XDMF's words ("triangle_6" and the like are curved) and in UFL's.
_TOPOLOGIES = ("polyvertex", "polyline", "triangle", "tetrahedron")
_CELLS = ("vertex", "interval", "triangle", "tetrahedron")


class _Grid(NamedTuple):
    name: str
    topology: str  # XDMF's name of the cells, in lower case
    cells: int
    nodes: int  # 0 if it shares those of another grid
    has_values: bool


def interval(comm: MPI.Comm, n: int, lower: float = 0.0, upper: float = 1.0) -> Mesh:
    """Interval ``(lower, upper)`` cut into equal cells. Collective.

    Args:
        comm: Communicator the mesh is distributed over.
        n: Number of cells.
        lower: Left end.
        upper: Right end.

    Raises:
        ValueError: On all ranks, if ``n`` is below 1 or ``lower`` is not below ``upper``.
    """
    counts, corners = _checked(comm, 1, (n,), (lower,), (upper,))
    return dolfinx.mesh.create_interval(comm, counts[0], corners[:, 0], dtype=np.float64)


def rectangle(
    comm: MPI.Comm,
    n: tuple[int, int],
    lower: Sequence[float] = (0.0, 0.0),
    upper: Sequence[float] = (1.0, 1.0),
) -> Mesh:
    """Rectangle cut into ``nx * ny`` equal rectangles of two triangles each. Collective.

    Args:
        comm: Communicator the mesh is distributed over.
        n: Number of rectangles along each axis, ``(nx, ny)``.
        lower: Lower left corner.
        upper: Upper right corner.

    Raises:
        ValueError: On all ranks, if a count is below 1 or ``lower`` is not below ``upper``.
    """
    counts, corners = _checked(comm, 2, n, lower, upper)
    return dolfinx.mesh.create_rectangle(comm, corners, counts, dtype=np.float64)


def box(
    comm: MPI.Comm,
    n: tuple[int, int, int],
    lower: Sequence[float] = (0.0, 0.0, 0.0),
    upper: Sequence[float] = (1.0, 1.0, 1.0),
) -> Mesh:
    """Box cut into ``nx * ny * nz`` equal boxes of six tetrahedra each. Collective.

    Args:
        comm: Communicator the mesh is distributed over.
        n: Number of boxes along each axis, ``(nx, ny, nz)``.
        lower: Corner with the smallest coordinates.
        upper: Corner with the largest coordinates.

    Raises:
        ValueError: On all ranks, if a count is below 1 or ``lower`` is not below ``upper``.
    """
    counts, corners = _checked(comm, 3, n, lower, upper)
    return dolfinx.mesh.create_box(comm, list(corners), counts, dtype=np.float64)


def read(path: str | Path, comm: MPI.Comm) -> Mesh:
    """Mesh from an XDMF file, the first grid in it. Collective.

    Coordinates beyond the cells' dimension are dropped where they are zero throughout: an interval
    comes back with one coordinate, for which XDMF writes two.

    Args:
        path: The ``.xdmf`` file, with the ``.h5`` file it refers to at its side.
        comm: Communicator the mesh is distributed over.

    Raises:
        FileNotFoundError: On all ranks, if one of the two files is missing.
        ValueError: On all ranks, if they do not hold a mesh of straight simplices that fills its
            space.
    """
    with collective_errors(comm):
        grid = _mesh_grid(Path(path)) if comm.rank == 0 else None
    name, topology = comm.bcast(grid)[:2]
    tdim = _TOPOLOGIES.index(topology)
    with _open(path, comm) as file:
        cells = file.read_topology_data(name, _DOMAIN)
        x = np.asarray(file.read_geometry_data(name, _DOMAIN), dtype=np.float64)
    beyond = comm.allreduce(np.abs(x[:, tdim:]).max(initial=0.0), op=MPI.MAX)
    if x.shape[1] < tdim or beyond > 0.0:
        raise ValueError(
            f"{path}: a mesh must fill its space; this one has cells of dimension {tdim} in "
            f"{x.shape[1]} dimensions, with coordinates up to {beyond:g} beyond the first {tdim}"
        )
    element = basix.ufl.element("Lagrange", _CELLS[tdim], 1, shape=(tdim,), dtype=np.float64)
    ghosts = dolfinx.mesh.create_cell_partitioner(GhostMode.shared_facet, 2)
    return dolfinx.mesh.create_mesh(comm, cells, ufl.Mesh(element), x[:, :tdim].copy(), ghosts)


def read_facet_tags(path: str | Path, mesh: Mesh, name: str | None = None) -> MeshTags:
    """Tags of facets from an XDMF file. Collective.

    Args:
        path: The ``.xdmf`` file that ``mesh`` was read from.
        mesh: The mesh, as ``read`` returned it.
        name: Name of the tags in the file; the first tags of facets in it if not given.

    Raises:
        FileNotFoundError: On all ranks, if the file or the ``.h5`` file beside it is missing.
        ValueError: On all ranks, if the file has no such tags, or tags of another mesh.
    """
    comm, dim = mesh.comm, mesh.topology.dim - 1
    with collective_errors(comm):
        grid = _tags_grid(Path(path), mesh, name) if comm.rank == 0 else None
    name, _, size = comm.bcast(grid)[:3]
    mesh.topology.create_entities(dim)
    mesh.topology.create_connectivity(dim, dim + 1)
    with _open(path, comm) as file:
        tags = file.read_meshtags(mesh, name)
    owned = np.count_nonzero(tags.indices < mesh.topology.index_map(dim).size_local)
    if (found := comm.allreduce(int(owned))) != size:
        raise ValueError(
            f"{path}: {found} of the {size} facets tagged in '{name}' are facets of this mesh; "
            "read the mesh from the same file"
        )
    return tags


@contextmanager
def _open(path: str | Path, comm: MPI.Comm) -> Iterator[XDMFFile]:
    """An XDMF file; what cannot be read in the block is a ValueError on all ranks. Collective."""
    error = None
    try:
        with XDMFFile(comm, path, "r") as file:
            yield file
    except RuntimeError as caught:
        error = ValueError(f"{path}: its data cannot be read: {caught}")
    raise_collectively(comm, error)


def _mesh_grid(path: Path) -> _Grid:
    grid = next((grid for grid in _grids(path) if grid.nodes), None)
    if grid is None:
        raise ValueError(f"{path} holds no mesh: no grid in it has both cells and coordinates")
    if grid.topology not in _TOPOLOGIES[1:]:
        raise ValueError(
            f"{path}: cells are '{grid.topology}'; a mesh must be of straight intervals "
            "(polyline), triangles (triangle) or tetrahedra (tetrahedron)"
        )
    return grid


def _tags_grid(path: Path, mesh: Mesh, name: str | None) -> _Grid:
    grids, facets = _grids(path), _TOPOLOGIES[mesh.topology.dim - 1]
    tags = [grid for grid in grids if grid.has_values and grid.topology == facets]
    wanted = next((grid for grid in tags if name in (None, grid.name)), None)
    if wanted is None:
        what = "tags of facets" if name is None else f"tags of facets named '{name}'"
        found = ", ".join(f"'{grid.name}'" for grid in tags) or "none at all"
        raise ValueError(f"{path} has no {what}; it has {found}")
    # DOLFINx ends the run, without an exception, at a node number that the mesh does not have.
    in_file, in_mesh = max(grid.nodes for grid in grids), mesh.geometry.index_map().size_global
    if in_file != in_mesh:
        raise ValueError(
            f"{path} is of a mesh of {in_file} nodes, and this one has {in_mesh}; read the mesh "
            "from the same file"
        )
    return wanted


def _grids(path: Path) -> list[_Grid]:
    """The grids of an XDMF file whose HDF5 files are at hand."""
    if not path.is_file():
        raise FileNotFoundError(f"mesh file {path} does not exist")
    try:
        root = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not an XDMF file: {error}") from error
    for item in root.iter("DataItem"):
        if item.get("Format") == "HDF":
            data = path.parent / (item.text or "").strip().split(":")[0]
            if not data.is_file():
                raise FileNotFoundError(f"{path} refers to {data}, which does not exist")
    return [
        _Grid(
            grid.get("Name", ""),
            topology.get("TopologyType", "").lower(),
            int(topology.get("NumberOfElements", 0)),
            0 if (x := grid.find("Geometry/DataItem")) is None else _rows(x),
            grid.find("Attribute") is not None,
        )
        for grid in root.iterfind("Domain/Grid")
        if (topology := grid.find("Topology")) is not None
    ]


def _rows(item: ElementTree.Element) -> int:
    return int(item.get("Dimensions", "0").split()[0])


def _checked(
    comm: MPI.Comm, dim: int, n: Sequence[int], lower: Sequence[float], upper: Sequence[float]
) -> tuple[list[int], NDArray[np.float64]]:
    """Counts, and the two corners as an array of shape ``(2, dim)``. Collective."""
    with collective_errors(comm):
        if not np.shape(n) == np.shape(lower) == np.shape(upper) == (dim,):
            raise ValueError(f"n, lower, upper must have {dim} entries: got {n}, {lower}, {upper}")
        for count in n:
            if not isinstance(count, Integral) or count < 1:
                raise ValueError(f"n must be made of whole numbers >= 1, not {count!r}")
        corners = np.array([lower, upper], dtype=np.float64)
        if not (np.isfinite(corners).all() and (corners[0] < corners[1]).all()):
            raise ValueError(f"lower must be below upper, both finite: got {lower} and {upper}")
    return [int(count) for count in n], corners
