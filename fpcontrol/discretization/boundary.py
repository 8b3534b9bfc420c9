"""The boundary of a mesh: facets, their quadrature points and normals."""

from dataclasses import dataclass
from typing import Self

import basix
import dolfinx.mesh
import numpy as np
from dolfinx.mesh import Mesh

from fpcontrol.typing import Array


@dataclass(frozen=True)
class Wall:
    """Points on the walls of this rank, ``(N, d)``, and outward unit normals there."""

    points: Array
    normals: Array

    @classmethod
    def of(cls, mesh: Mesh) -> Self:
        """Quadrature points of degree 4 on the boundary facets of a mesh. Collective."""
        d = mesh.topology.dim
        corners, inside = boundary(mesh)
        if d == 1:
            normals = np.ones((len(corners), 1))
        else:  # The last right singular vector of the edges is normal to them.
            normals = np.linalg.svd(corners[:, 1:] - corners[:, :1], full_matrices=True)[2][:, -1]
        normals *= np.sign(np.einsum("nd,nd->n", normals, corners[:, 0] - inside))[:, None]
        simplex = (basix.CellType.interval, basix.CellType.triangle)
        hat = basix.make_quadrature(simplex[d - 2], 4)[0] if d > 1 else np.zeros((1, 0))
        shares = np.column_stack([1.0 - hat.sum(axis=1), hat])
        points = np.einsum("qv,nvd->nqd", shares, corners).reshape(-1, d)
        return cls(points, np.repeat(normals, len(hat), axis=0))


def boundary(mesh: Mesh) -> tuple[Array, Array]:
    """Corners ``(n, d, d)`` of boundary facets, and the middles of their cells ``(n, d)``."""
    d = mesh.topology.dim
    mesh.topology.create_connectivity(d - 1, d)
    mesh.topology.create_connectivity(d, d - 1)
    facets = dolfinx.mesh.exterior_facet_indices(mesh.topology)
    nodes = dolfinx.mesh.entities_to_geometry(mesh, d - 1, facets).reshape(len(facets), d)
    cells = mesh.topology.connectivity(d - 1, d).array[
        mesh.topology.connectivity(d - 1, d).offsets[facets]
    ]
    x = mesh.geometry.x[:, :d]
    return x[nodes], x[mesh.geometry.dofmaps[0][cells]].mean(axis=1)
