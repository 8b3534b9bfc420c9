"""Meshes of intervals, triangles or tetrahedra: made here, read from XDMF files, or flipped."""

from collections.abc import Sequence
from numbers import Integral
from pathlib import Path

from mpi4py import MPI

import basix.ufl
import dolfinx.mesh
import numpy as np
import ufl
from dolfinx.mesh import GhostMode, Mesh, MeshTags
from numpy.typing import NDArray

from fpcontrol import xdmf
from fpcontrol.discretization.affine import check_mesh, check_nodes, trust
from fpcontrol.discretization.delaunay import flipped
from fpcontrol.parallel.errors import collective_errors


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
    return trust(dolfinx.mesh.create_interval(comm, counts[0], corners[:, 0], dtype=np.float64))


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
    return trust(dolfinx.mesh.create_rectangle(comm, corners, counts, dtype=np.float64))


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
    return trust(dolfinx.mesh.create_box(comm, list(corners), counts, dtype=np.float64))


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
    return check_mesh(_distributed(comm, cells, x[:, :tdim]), str(path))


def delaunay(mesh: Mesh) -> Mesh:
    """The triangles' edges flipped until no inner edge has a negative weight. Collective.

    ``Monotone()`` cuts negative weights off, at an error in proportion that no refinement removes:
    on a square whose nodes were shifted at random by 0.3 cells (16 % of the edges negative) it
    stays at 10 %, and after the flips is of order 2 again. Nodes, boundary, holes, islands and the
    number of cells stay as they are; tags of facets must be made anew, or read: ``read_facet_tags``
    finds those of the boundary by their nodes. What remains negative are edges of the boundary that
    face an obtuse angle. Rank 0 flips.

    Args:
        mesh: Mesh of triangles in the plane.

    Returns:
        A new mesh, distributed anew; the same one if there is nothing to flip.

    Raises:
        ValueError: On all ranks, for other cells, or a mesh that the equation would refuse.
    """
    check_mesh(mesh)
    comm, d = mesh.comm, mesh.topology.dim
    if d != 2:
        raise ValueError(
            f"mesh is of {('intervals', '', 'tetrahedra')[d - 1]}; edges are flipped in triangles "
            "only."
        )
    nodes, own = mesh.geometry.input_global_indices, mesh.topology.index_map(d).size_local
    parts = comm.gather((nodes[mesh.geometry.dofmaps[0][:own]], nodes, mesh.geometry.x[:, :d]))
    cells, x, flips = np.empty((0, 3), dtype=np.int64), np.empty((0, d)), 0
    with collective_errors(comm):
        if parts is not None:
            numbers = np.concatenate([part[1] for part in parts])
            # Numbers of a file that no cell uses keep theirs, at the place of another node.
            places = np.concatenate([part[2] for part in parts])
            x = np.tile(places[:1], (int(numbers.max()) + 1, 1))
            x[numbers] = places
            cells, flips = flipped(np.concatenate([part[0] for part in parts]).astype(np.int64), x)
    if not comm.bcast(flips):
        return mesh
    return check_mesh(_distributed(comm, cells, x), "the flipped mesh")


def _distributed(comm: MPI.Comm, cells: NDArray[np.int64], x: NDArray[np.float64]) -> Mesh:
    """Mesh of blocks of cells and nodes of the ranks. Collective."""
    d = x.shape[1]
    element = basix.ufl.element("Lagrange", xdmf.CELLS[d], 1, shape=(d,), dtype=np.float64)
    ghosts = dolfinx.mesh.create_cell_partitioner(GhostMode.shared_facet, 2)
    return dolfinx.mesh.create_mesh(comm, cells, ufl.Mesh(element), x.copy(), ghosts)


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
    comm, dim = mesh.comm, mesh.topology.dim - 1
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
