"""Meshes, and tags of cells and facets, from XDMF files and from gmsh's."""

from pathlib import Path

from mpi4py import MPI

import dolfinx.mesh
import numpy as np
from dolfinx.mesh import Mesh, MeshTags
from numpy.typing import NDArray

from fpcontrol import xdmf
from fpcontrol.discretization.affine import check_mesh, check_nodes
from fpcontrol.discretization.tags import NamedTags
from fpcontrol.mesh.distribution import distributed
from fpcontrol.mesh.msh import read_msh
from fpcontrol.parallel.communicators import comm_of
from fpcontrol.parallel.errors import collective_errors
from fpcontrol.typing import Array

WORDS = ("cells", "facets")
GROUPS = "; put the surface or the volume to be meshed into a physical group, too"


def read(path: str | Path, comm: MPI.Comm) -> Mesh:
    """Mesh from an XDMF file, the first grid in it, or from a ``.msh`` file of gmsh. Collective.

    Coordinates beyond the cells' dimension are dropped where they are zero throughout: an interval
    comes back with one coordinate, for which XDMF writes two, a mesh of gmsh with as many as its
    cells have. Of a ``.msh`` file the elements of the highest dimension are taken, those of
    physical groups if there are any.

    Args:
        path: The ``.xdmf`` file, of DOLFINx or of meshio, with the ``.h5`` file it refers to at
            its side; or a ``.msh`` file, for which gmsh or meshio must be installed on rank 0.
        comm: Communicator the mesh is distributed over.

    Raises:
        FileNotFoundError: On all ranks, if one of the files is missing.
        ImportError: On all ranks, for a ``.msh`` file where nothing is there to read it.
        ValueError: On all ranks, if they do not hold a mesh of straight simplices that fills its
            space, whose cells have a volume and meet facet to facet; says how many do not, and
            where the first one is.
    """
    path = Path(path)
    cells, x = None, None
    with collective_errors(comm):
        if comm.rank == 0:
            cells, x = _cells(path)
    tdim = comm.bcast(cells.shape[1] - 1 if cells is not None else None)
    cells, x = xdmf.block(comm, cells), xdmf.block(comm, x)
    check_nodes(comm, cells, x, str(path))
    beyond = comm.allreduce(np.nan_to_num(np.abs(x[:, tdim:])).max(initial=0.0), op=MPI.MAX)
    if x.shape[1] < tdim or beyond > 0.0:
        raise ValueError(
            f"{path}: a mesh must fill its space; this one has cells of dimension {tdim} in "
            f"{x.shape[1]} dimensions, with coordinates up to {beyond:g} beyond the first {tdim}"
            f"{GROUPS if path.suffix == '.msh' else ''}"
        )
    return check_mesh(distributed(comm, cells, x[:, :tdim]), str(path))


def read_facet_tags(path: str | Path, mesh: Mesh, name: str | None = None) -> MeshTags:
    """Tags of facets from an XDMF file, or from the physical groups of gmsh. Collective.

    Args:
        path: The file that ``mesh`` was read from, or one with the same nodes.
        mesh: The mesh, as ``read`` returned it.
        name: Name of the tags in an XDMF file; the first tags of facets in it if not given. A
            ``.msh`` file has one set of tags.

    Returns:
        The tags; of a ``.msh`` file whose groups have names ``NamedTags``, so that walls, sets and
        observables take names: ``absorbing="coast", facet_tags=tags``.

    Raises:
        FileNotFoundError: On all ranks, if the file or the ``.h5`` file beside it is missing.
        ImportError: As ``read``.
        ValueError: On all ranks, if the file has no such tags, tags of another mesh, or two tags
            of one facet.
    """
    return _read_tags(Path(path), mesh, mesh.topology.dim - 1, name)


def read_cell_tags(path: str | Path, mesh: Mesh, name: str | None = None) -> MeshTags:
    """Tags of cells, regions that is, in the way of ``read_facet_tags``. Collective.

    ``fpc.observables.mass("bay", tags=tags)`` is then the mass of one. Every rank holds the nodes
    of all tagged cells while it looks for its own.

    Args:
        path: See ``read_facet_tags``, and for the others.
        mesh: The mesh, as ``read`` returned it.
        name: Name of the tags in an XDMF file.

    Raises:
        FileNotFoundError, ImportError, ValueError: As ``read_facet_tags``.
    """
    return _read_tags(Path(path), mesh, mesh.topology.dim, name)


def _read_tags(path: Path, mesh: Mesh, dim: int, name: str | None) -> MeshTags:
    comm = comm_of(mesh)
    read, what = None, WORDS[mesh.topology.dim - dim]
    last = comm.allreduce(mesh.geometry.input_global_indices.max(initial=-1), op=MPI.MAX)
    with collective_errors(comm):
        if comm.rank == 0:
            read = _tags(path, dim, name, last, what)
    called, tagged, values, names = comm.bcast(read)  # of a boundary they are few beside the cells
    mesh.topology.create_entities(dim)
    mesh.topology.create_connectivity(dim, mesh.topology.dim)
    entities = mesh.topology.index_map(dim)
    every = np.arange(entities.size_local + entities.num_ghosts, dtype=np.int32)
    nodes = dolfinx.mesh.entities_to_geometry(mesh, dim, every).reshape(len(every), dim + 1)
    numbers = np.sort(mesh.geometry.input_global_indices[nodes], axis=1)
    candidates = every[np.isin(numbers, tagged).all(axis=1)]
    both = np.concatenate([tagged, numbers[candidates]])
    group = np.unique(both, axis=0, return_inverse=True)[1].ravel()
    row = np.full(len(both), -1)
    row[group[: len(tagged)]] = np.arange(len(tagged))
    row = row[group[len(tagged) :]]
    indices = candidates[row >= 0]
    if (found := comm.allreduce(int((indices < entities.size_local).sum()))) != len(tagged):
        raise ValueError(
            f"{path}: {found} of the {len(tagged)} {what} tagged in '{called}' are {what} of "
            "this mesh; read the mesh from the same file"
        )
    tags = dolfinx.mesh.meshtags(mesh, dim, indices, values[row[row >= 0]].astype(np.int32))
    return NamedTags(tags, names) if names else tags


def _cells(path: Path) -> tuple[NDArray[np.int64], Array]:
    """Cells and nodes of a file. Not collective."""
    if path.suffix == ".msh":
        file = read_msh(path)
        return file.cells(), file.x
    grid = _mesh_grid(path)
    return xdmf.topology(path, grid), xdmf.geometry(path, grid)


def _tags(
    path: Path, dim: int, name: str | None, last: int, what: str
) -> tuple[str, NDArray[np.int64], NDArray[np.int32], dict[str, int]]:
    """What the tags are called, their entities by nodes, and values; and names of these."""
    if path.suffix != ".msh":
        grid = _tags_grid(path, dim, name, what)
        return grid.name, *xdmf.tags(path, grid, last, what), {}
    if name is not None:
        raise ValueError(
            f"name = {name!r}: a .msh file has one set of tags for its {what}, its physical "
            "groups; leave the name out"
        )
    file = read_msh(path)
    return "physical groups", *file.tags(dim), file.names.get(dim, {})


def _mesh_grid(path: Path) -> xdmf.Grid:
    grid = next((grid for grid in xdmf.grids(path) if grid.nodes), None)
    if grid is None:
        raise ValueError(f"{path} holds no mesh: no grid in it has both cells and coordinates")
    if grid.topology not in xdmf.TOPOLOGIES[1:]:
        raise ValueError(
            f"{path}: cells are '{grid.topology}'; a mesh must be of straight intervals "
            "(polyline), triangles (triangle) or tetrahedra (tetrahedron)"
        )
    return grid


def _tags_grid(path: Path, dim: int, name: str | None, words: str) -> xdmf.Grid:
    tags = [g for g in xdmf.grids(path) if g.has_values and g.topology == xdmf.TOPOLOGIES[dim]]
    wanted = next((grid for grid in tags if name in (None, grid.name)), None)
    if wanted is None:
        what = f"tags of {words}" if name is None else f"tags of {words} named '{name}'"
        found = ", ".join(f"'{grid.name}'" for grid in tags) or "none at all"
        raise ValueError(f"{path} has no {what}; it has {found}")
    return wanted
