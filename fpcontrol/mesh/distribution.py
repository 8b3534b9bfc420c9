"""Meshes of blocks of cells and nodes that ranks hold."""

from collections.abc import Callable

from mpi4py import MPI

import basix.ufl
import dolfinx.mesh
import numpy as np
import ufl
from dolfinx.mesh import GhostMode, Mesh
from numpy.typing import NDArray

from fpcontrol import xdmf


def distributed(
    comm: MPI.Comm,
    cells: NDArray[np.int64],
    x: NDArray[np.float64],
    partitioner: Callable | None = None,
) -> Mesh:
    """Mesh of blocks of cells and nodes of the ranks. Collective.

    Args:
        comm: Communicator.
        cells: Node numbers of this rank's cells, ``(n, d + 1)``.
        x: Coordinates of this rank's nodes, ``(N, d)``.
        partitioner: Of dolfinx; with ghosts behind shared facets unless given.
    """
    d = x.shape[1]
    element = basix.ufl.element("Lagrange", xdmf.CELLS[d], 1, shape=(d,), dtype=np.float64)
    partitioner = partitioner or dolfinx.mesh.create_cell_partitioner(GhostMode.shared_facet, 2)
    return dolfinx.mesh.create_mesh(comm, cells, ufl.Mesh(element), x.copy(), partitioner)
