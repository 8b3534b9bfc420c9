"""Regular meshes with opposite sides made one; see ``discretization.periodic``."""

from collections.abc import Sequence
from itertools import permutations

from mpi4py import MPI

import dolfinx.mesh
import numpy as np
from dolfinx import cpp, graph
from dolfinx.mesh import Mesh
from numpy.typing import NDArray

from fpcontrol.discretization.affine import trust
from fpcontrol.discretization.periodic import Periodic, remember
from fpcontrol.mesh.distribution import distributed
from fpcontrol.typing import Array

FEWEST = 3  # cells along a periodic axis: with two, an edge would have the ends of another one

Numbers = NDArray[np.int64]


def identified(
    comm: MPI.Comm, counts: Sequence[int], corners: Array, axes: NDArray[np.bool_]
) -> Mesh:
    """A box cut as ``fpc.mesh.rectangle`` and ``box`` do it, periodic along some axes. Collective.

    Args:
        comm: Communicator the mesh is distributed over.
        counts: Numbers of cells along the axes, ``FEWEST`` at least along periodic ones.
        corners: The box, ``(2, d)``.
        axes: Whether each axis is periodic, ``(d,)``.
    """
    d, n = len(counts), np.array(counts)
    cells, nodes = _cells(comm, n), np.where(axes, n, n + 1)
    one = distributed(comm, _numbers(cells % nodes, nodes), _places(comm, nodes, n, corners))
    # The ordinary mesh has its cells where this one has them.
    partition = _as_in(comm, one, len(cells))
    places = _places(comm, n + 1, n, corners)
    flat = distributed(comm, _numbers(cells, n + 1), places, lambda *_: partition)
    mine, theirs = one.topology.original_cell_index, flat.topology.original_cell_index
    order = np.argsort(theirs)
    which = order[np.searchsorted(theirs, mine, sorter=order)].astype(np.int32)
    geometry = flat.geometry
    own = dolfinx.mesh.create_geometry(
        geometry.index_map(),
        np.ascontiguousarray(geometry.dofmaps[0][which]),
        geometry.cmaps[0],
        geometry.x[:, :d].copy(),
        geometry.input_global_indices,
    )
    both = cpp.mesh.Mesh_float64(comm, one.topology._cpp_object, own._cpp_object)
    mesh = Mesh(both, one.ufl_domain())
    periodic = Periodic(axes, tuple(counts), corners[0], corners[1] - corners[0], flat, which)
    trust(flat)
    return trust(remember(mesh, periodic))


def _share(comm: MPI.Comm, n: int) -> Numbers:
    """This rank's numbers of ``n``."""
    return np.arange(n * comm.rank // comm.size, n * (comm.rank + 1) // comm.size)


def _unraveled(numbers: Numbers, shape: Numbers) -> Numbers:
    """Numbers along the axes, the first the fastest, ``(N,)`` to ``(N, d)``."""
    return np.stack(np.unravel_index(numbers, shape[::-1])[::-1], axis=-1)


def _numbers(at: Numbers, shape: Numbers) -> Numbers:
    """What ``_unraveled`` takes apart, ``(..., d)`` to ``(...)``."""
    return np.ravel_multi_index(tuple(np.moveaxis(at, -1, 0)[::-1]), tuple(shape[::-1]))


def _cells(comm: MPI.Comm, n: Numbers) -> Numbers:
    """Nodes, by numbers along the axes, of this rank's cells, ``(N, d + 1, d)``.

    From the lower to the upper corner of each box, along its sides in any order of the axes.
    """
    d, first = len(n), _unraveled(_share(comm, int(n.prod())), n)
    paths = np.zeros((len(list(permutations(range(d)))), d + 1, d), dtype=np.int64)
    for path, order in zip(paths, permutations(range(d)), strict=True):
        for k, axis in enumerate(order):
            path[k + 1 :, axis] = 1
    return (first[:, None, None] + paths).reshape(-1, d + 1, d)


def _places(comm: MPI.Comm, nodes: Numbers, n: Numbers, corners: Array) -> Array:
    """Coordinates of this rank's block of nodes, ``(N, d)``."""
    at = _unraveled(_share(comm, int(nodes.prod())), nodes)
    return np.where(at == n, corners[1], corners[0] + at * ((corners[1] - corners[0]) / n))


def _as_in(comm: MPI.Comm, mesh: Mesh, count: int) -> cpp.graph.AdjacencyList_int32:
    """Ranks that hold each of this rank's ``count`` input cells, their owner first. Collective."""
    number = mesh.topology.original_cell_index
    own = np.arange(len(number)) < mesh.topology.index_map(mesh.topology.dim).size_local
    ends = np.cumsum(comm.allgather(count))
    home = np.searchsorted(ends, number, side="right")
    parts = comm.alltoall(
        [np.column_stack([number, ~own])[home == rank] for rank in range(comm.size)]
    )
    rows = np.concatenate(
        [np.column_stack([part, np.full(len(part), rank)]) for rank, part in enumerate(parts)]
    ).astype(np.int64)
    rows = rows[np.lexsort((rows[:, 2], rows[:, 1], rows[:, 0]))]
    here = np.bincount(rows[:, 0] - (ends[comm.rank] - count), minlength=count)
    offsets = np.concatenate([[0], np.cumsum(here)]).astype(np.int32)
    return graph.adjacencylist(rows[:, 2].astype(np.int32), offsets)._cpp_object
