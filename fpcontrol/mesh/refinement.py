"""Uniform refinement, and densities of a mesh on the refined one."""

import dolfinx.mesh
import numpy as np
from dolfinx import fem
from dolfinx.mesh import Mesh

from fpcontrol.discretization.affine import check_mesh
from fpcontrol.discretization.periodic import flat_space, flattened, periodic_of, unflatten_into
from fpcontrol.mesh.identified import identified
from fpcontrol.parallel.communicators import comm_of

# Nodes are looked for this far outside the cells, in lengths of the mesh: its round-off.
ROUNDING = 1e-10


def refine(mesh: Mesh) -> Mesh:
    """The mesh with all edges halved. Collective.

    Triangles are cut into four, tetrahedra into eight, intervals into two; tags are not taken
    along. Inside an obtuse triangle there is an edge of negative weight then: for ``Monotone()``
    use ``delaunay`` afterwards.

    Args:
        mesh: Mesh of intervals, triangles or tetrahedra.

    Returns:
        A new mesh on the same ranks; one with periodic sides is distributed anew.

    Raises:
        ValueError: On all ranks, for a mesh that the equation would refuse.
    """
    check_mesh(mesh)
    if periodic := periodic_of(mesh):
        corners = np.array([periodic.lower, periodic.lower + periodic.lengths])
        halved = [2 * n for n in periodic.counts]
        return identified(comm_of(mesh), halved, corners, periodic.axes)
    mesh.topology.create_entities(1)
    return check_mesh(dolfinx.mesh.refine(mesh)[0], "the refined mesh")


def transferred(f: fem.Function, space: fem.FunctionSpace) -> fem.Function:
    """A Function interpolated in a space on another mesh of the same domain. Collective.

    The same Function, if that mesh is a refinement and the degree not lower.
    """
    if periodic_of(space.mesh):
        flat = flat_space(f.function_space)
        result = fem.Function(space, name=f.name)
        unflatten_into(transferred(flattened(f, flat), flat_space(space)), result)
        return result
    mesh = space.mesh
    cells = np.arange(mesh.topology.index_map(mesh.topology.dim).size_local, dtype=np.int32)
    x = mesh.geometry.x
    size = float(np.ptp(x, axis=0).max(initial=0.0)) if len(x) else 0.0
    data = fem.create_interpolation_data(
        space, f.function_space, cells, padding=ROUNDING * comm_of(mesh).allreduce(size)
    )
    result = fem.Function(space, name=f.name)
    result.interpolate_nonmatching(f, cells, data)
    result.x.scatter_forward()
    return result
