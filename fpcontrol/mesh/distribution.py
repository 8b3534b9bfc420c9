"""Meshes of blocks of cells and nodes that ranks hold."""

from mpi4py import MPI

import basix.ufl
import dolfinx.mesh
import numpy as np
import ufl
from dolfinx.mesh import GhostMode, Mesh
from numpy.typing import NDArray

from fpcontrol import xdmf


def distributed(comm: MPI.Comm, cells: NDArray[np.int64], x: NDArray[np.float64]) -> Mesh:
    """Mesh of blocks of cells and nodes of the ranks. Collective."""
    d = x.shape[1]
    element = basix.ufl.element("Lagrange", xdmf.CELLS[d], 1, shape=(d,), dtype=np.float64)
    ghosts = dolfinx.mesh.create_cell_partitioner(GhostMode.shared_facet, 2)
    return dolfinx.mesh.create_mesh(comm, cells, ufl.Mesh(element), x.copy(), ghosts)
