"""Meshes and tags of facets from XDMF files."""

from pathlib import Path

from mpi4py import MPI

import dolfinx.mesh
import numpy as np
from dolfinx.mesh import Mesh, MeshTags

from fpcontrol import xdmf
from fpcontrol.discretization.affine import check_mesh, check_nodes
from fpcontrol.mesh.distribution import distributed
from fpcontrol.parallel.communicators import comm_of
from fpcontrol.parallel.errors import collective_errors


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
            space, whose cells have a volume and meet facet to facet; says how many do not, and
            where the first one is.
    """
    grid, cells, x = None, None, None
    with collective_errors(comm):
        if comm.rank == 0:
            grid = _mesh_grid(Path(path))
            cells, x = xdmf.topology(Path(path), grid), xdmf.geometry(Path(path), grid)
    tdim = xdmf.TOPOLOGIES.index(comm.bcast(grid).topology)
    cells, x = xdmf.block(comm, cells), xdmf.block(comm, x)
    check_nodes(comm, cells, x, str(path))
    beyond = comm.allreduce(np.nan_to_num(np.abs(x[:, tdim:])).max(initial=0.0), op=MPI.MAX)
    if x.shape[1] < tdim or beyond > 0.0:
        raise ValueError(
            f"{path}: a mesh must fill its space; this one has cells of dimension {tdim} in "
            f"{x.shape[1]} dimensions, with coordinates up to {beyond:g} beyond the first {tdim}"
        )
    return check_mesh(distributed(comm, cells, x[:, :tdim]), str(path))


def read_facet_tags(path: str | Path, mesh: Mesh, name: str | None = None) -> MeshTags:
    """Tags of facets from an XDMF file. Collective.

    Args:
        path: The ``.xdmf`` file that ``mesh`` was read from, or one with the same nodes.
        mesh: The mesh, as ``read`` returned it.
        name: Name of the tags in the file; the first tags of facets in it if not given.

    Raises:
        FileNotFoundError: On all ranks, if the file or the ``.h5`` file beside it is missing.
        ValueError: On all ranks, if the file has no such tags, tags of another mesh, or two tags
            of one facet.
    """
    comm, dim = comm_of(mesh), mesh.topology.dim - 1
    read = None
    last = comm.allreduce(mesh.geometry.input_global_indices.max(initial=-1), op=MPI.MAX)
    with collective_errors(comm):
        if comm.rank == 0:
            grid = _tags_grid(Path(path), dim, name)
            read = grid.name, *xdmf.tags(Path(path), grid, last)
    name, tagged, values = comm.bcast(read)  # those of a boundary are few beside the cells
    mesh.topology.create_entities(dim)
    mesh.topology.create_connectivity(dim, dim + 1)
    facets = mesh.topology.index_map(dim)
    every = np.arange(facets.size_local + facets.num_ghosts, dtype=np.int32)
    nodes = dolfinx.mesh.entities_to_geometry(mesh, dim, every).reshape(len(every), dim + 1)
    numbers = np.sort(mesh.geometry.input_global_indices[nodes], axis=1)
    candidates = every[np.isin(numbers, tagged).all(axis=1)]
    both = np.concatenate([tagged, numbers[candidates]])
    group = np.unique(both, axis=0, return_inverse=True)[1].ravel()
    row = np.full(len(both), -1)
    row[group[: len(tagged)]] = np.arange(len(tagged))
    row = row[group[len(tagged) :]]
    indices = candidates[row >= 0]
    if (found := comm.allreduce(int((indices < facets.size_local).sum()))) != len(tagged):
        raise ValueError(
            f"{path}: {found} of the {len(tagged)} facets tagged in '{name}' are facets of "
            "this mesh; read the mesh from the same file"
        )
    return dolfinx.mesh.meshtags(mesh, dim, indices, values[row[row >= 0]].astype(np.int32))


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


def _tags_grid(path: Path, dim: int, name: str | None) -> xdmf.Grid:
    tags = [g for g in xdmf.grids(path) if g.has_values and g.topology == xdmf.TOPOLOGIES[dim]]
    wanted = next((grid for grid in tags if name in (None, grid.name)), None)
    if wanted is None:
        what = "tags of facets" if name is None else f"tags of facets named '{name}'"
        found = ", ".join(f"'{grid.name}'" for grid in tags) or "none at all"
        raise ValueError(f"{path} has no {what}; it has {found}")
    return wanted
