"""Grids and arrays of XDMF files, read through DOLFINx; what it cannot read is said in one line."""

import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

from mpi4py import MPI

import basix.ufl
import dolfinx.mesh
import numpy as np
import ufl
from dolfinx.io import XDMFFile
from numpy.typing import NDArray

# Cells by dimension, in XDMF's words ("triangle_6" and the like are curved) and in UFL's.
TOPOLOGIES = ("polyvertex", "polyline", "triangle", "tetrahedron")
CELLS = ("vertex", "interval", "triangle", "tetrahedron")
DOMAIN = "/Xdmf/Domain"  # where XDMF keeps its grids
# What HDF5 writes about an error.
DIAGNOSTICS = re.compile(r"(?m)^(HDF5-DIAG:| +#\d+:| +(major|minor):).*\n")
REWRITE = "meshio.write(path, mesh, compression=None)"


class Grid(NamedTuple):
    """A grid of an XDMF file."""

    name: str
    topology: str  # XDMF's name of the cells, in lower case
    cells: int
    nodes: int  # 0 if it shares those of another grid
    data: Path  # the HDF5 file
    has_values: bool  # on its cells


def grids(path: Path) -> list[Grid]:
    """The grids of an XDMF file whose HDF5 files are at hand.

    Raises:
        FileNotFoundError: If the file, or an HDF5 file that it refers to, is missing.
        ValueError: If it is no XDMF file, or its data are not in HDF5.
    """
    if not path.is_file():
        raise FileNotFoundError(f"mesh file {path} does not exist")
    try:
        root = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} is not an XDMF file ({error}); convert other formats with meshio: {REWRITE}"
        ) from error
    found = []
    for grid in root.iterfind("Domain/Grid"):
        topology, geometry = grid.find("Topology"), grid.find("Geometry")
        if topology is None:
            continue
        values = next(
            (a for a in grid.iterfind("Attribute") if a.get("Center", "Cell") == "Cell"), None
        )
        parts = {"Topology": topology, "Geometry": geometry, "Attribute": values}
        items = {
            what: item
            for what, part in parts.items()
            if part is not None and (item := part.find("DataItem")) is not None
        }
        files = {_data_file(path, what, item) for what, item in items.items()}
        if len(files) != 1:
            raise ValueError(
                f"{path}: grid '{grid.get('Name', '')}' has its data in "
                f"{', '.join(sorted(map(str, files))) or 'no file'}; one HDF5 file is needed"
            )
        found.append(
            Grid(
                grid.get("Name", ""),
                topology.get("TopologyType", "").lower(),
                _rows(items["Topology"]) if "Topology" in items else 0,
                _rows(items["Geometry"]) if "Geometry" in items else 0,
                files.pop(),
                "Attribute" in items,
            )
        )
    return found


def _data_file(path: Path, what: str, item: ElementTree.Element) -> Path:
    form = item.get("Format", "XML")  # what XDMF takes where nothing is said
    if form != "HDF":
        raise ValueError(
            f"{path}: its {what} is stored as {form}; only HDF5 is read. Write it again with "
            f"{REWRITE}"
        )
    data = path.parent / (item.text or "").strip().split(":")[0]
    if not data.is_file():
        raise FileNotFoundError(f"{path} refers to {data}, which does not exist")
    return data


def _rows(item: ElementTree.Element) -> int:
    return int(item.get("Dimensions", "0").split()[0])


def topology(path: Path, grid: Grid) -> NDArray[np.int64]:
    """Node numbers of the cells of a grid, ``(cells, nodes of a cell)``. Not collective.

    Raises:
        ValueError: If they cannot be read.
    """
    return _read(path, grid, lambda file: file.read_topology_data(grid.name, DOMAIN))


def geometry(path: Path, grid: Grid) -> NDArray[np.float64]:
    """Coordinates of the nodes of a grid, ``(nodes, 1 to 3)``. Not collective.

    Raises:
        ValueError: If they cannot be read.
    """
    x = _read(path, grid, lambda file: file.read_geometry_data(grid.name, DOMAIN))
    return x.astype(np.float64)


def tags(
    path: Path, grid: Grid, last: int, what: str
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Node numbers of the cells of a grid, ascending, and the values on them. Not collective.

    Args:
        path: The ``.xdmf`` file.
        grid: One with values.
        last: Highest node number of the mesh.
        what: Cells or facets, for messages.

    Returns:
        Shapes ``(cells, nodes of a cell)`` and ``(cells,)``.

    Raises:
        ValueError: If they cannot be read, a cell is there twice, or a node is not in the mesh.
    """
    nodes = np.sort(topology(path, grid), axis=1)
    if (unknown := np.count_nonzero(((nodes < 0) | (nodes > last)).any(axis=1))) > 0:
        raise ValueError(
            f"{path}: {unknown} of the {len(nodes)} {what} in '{grid.name}' have nodes that this "
            "mesh does not have; read the mesh from the same file"
        )
    copies = len(nodes) - len(np.unique(nodes, axis=0))
    if copies:
        raise ValueError(
            f"{path}: {copies} of the {len(nodes)} {what} in '{grid.name}' are there more than "
            "once; each has one tag"
        )
    # DOLFINx reads values as tags of a mesh only, and ends the process where a node number is in
    # no cell of it. So a mesh is made of the entities joined to one more node (of tetrahedra
    # themselves), and of cells for all lower numbers that no entity has.
    n, k = int(nodes.max()) + 1, nodes.shape[1]
    d = min(k, 3)
    rest = np.setdiff1d(np.arange(n), nodes)
    cells = np.full((len(nodes) + len(rest), d + 1), n, dtype=np.int64)
    cells[: len(nodes), :k], cells[len(nodes) :, :d] = nodes, nodes[0, :d]
    cells[len(nodes) :, 0] = rest
    if k > d:
        cells[len(nodes) :, d] = nodes[0, d]
    element = basix.ufl.element("Lagrange", CELLS[d], 1, shape=(d,), dtype=np.float64)
    x = np.zeros((n + (k == d), d))
    cone = dolfinx.mesh.create_mesh(MPI.COMM_SELF, cells, ufl.Mesh(element), x)
    cone.topology.create_entities(k - 1)
    cone.topology.create_connectivity(k - 1, d)
    found = _read(path, grid, lambda file: file.read_meshtags(cone, grid.name, None, DOMAIN))
    at = dolfinx.mesh.entities_to_geometry(cone, k - 1, found.indices).reshape(-1, k)
    return np.sort(cone.geometry.input_global_indices[at], axis=1), found.values


def _read(path: Path, grid: Grid, read: Callable[[XDMFFile], Any]) -> Any:
    """What a callable reads from an open XDMF file.

    By one rank: where HDF5 cannot read on several, DOLFINx cannot close the file either, and ends
    the process. DOLFINx takes data from the ``.h5`` file of the same name, whatever the XDMF file
    says; so both get links of one name.
    """
    with tempfile.TemporaryDirectory() as folder, _quiet() as said:
        links = Path(folder, "linked.xdmf"), Path(folder, "linked.h5")
        for link, target in zip(links, (path, grid.data), strict=True):
            link.symlink_to(target.resolve())
        try:
            with XDMFFile(MPI.COMM_SELF, links[0], "r") as file:
                return read(file)
        except RuntimeError as error:
            lacking = re.search(r"required filter '?(.+?)'? is not registered", said())
            words = " ".join(str(error).split()).replace(str(links[1]), str(grid.data))
        if lacking:
            raise ValueError(
                f"{path}: its HDF5 data are compressed ({lacking[1]}), which the HDF5 library of "
                f"this DOLFINx cannot undo. Write the mesh again with {REWRITE}"
            )
        raise ValueError(f"{path}: its data in {grid.data} cannot be read: {words}")


def block(comm: MPI.Comm, rows: NDArray[Any] | None) -> NDArray[Any]:
    """This rank's block of an array of rank 0, of as many rows on each. Collective."""
    kind = comm.bcast((rows.shape, rows.dtype) if rows is not None else None)
    shape, dtype = kind
    ends = np.arange(comm.size + 1) * shape[0] // comm.size
    mine = np.empty((ends[comm.rank + 1] - ends[comm.rank], *shape[1:]), dtype)
    width = int(np.prod(shape[1:]))
    sent = None if rows is None else [np.ascontiguousarray(rows), width * np.diff(ends)]
    comm.Scatterv(sent, mine)
    return mine


@contextmanager
def _quiet() -> Iterator[Callable[[], str]]:
    """Keep HDF5's diagnostics off the standard error; the call tells what has been said so far.

    The library writes them to the descriptor itself. What others write meanwhile is passed on.
    """
    sys.stderr.flush()
    with tempfile.TemporaryFile() as aside:

        def said() -> str:
            aside.seek(0)
            return aside.read().decode(errors="replace")

        stderr = os.dup(2)
        os.dup2(aside.fileno(), 2)
        try:
            yield said
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            os.write(2, DIAGNOSTICS.sub("", said()).encode())
