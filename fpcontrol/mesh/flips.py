r"""Edge flips that make a triangulation Delaunay.

An inner edge with opposite angles :math:`\alpha, \beta` has the weight
:math:`(\cot\alpha + \cot\beta)/2`, negative if :math:`\alpha + \beta > \pi`. The two triangles then
make a convex quadrilateral, and its other diagonal has a positive weight. Every flip lowers the
Dirichlet energy of every function on the nodes, so that none comes back and the flips end.

References:
    C. L. Lawson, Software for C1 surface interpolation, in Mathematical Software III (1977).
    S. Rippa, Minimal roughness property of the Delaunay triangulation, Comput. Aided Geom. Design 7
    (1990).
"""

import numpy as np
from dolfinx.mesh import Mesh
from numpy.typing import NDArray

from fpcontrol.discretization.affine import check_mesh
from fpcontrol.discretization.periodic import refuse_periodic
from fpcontrol.mesh.distribution import distributed
from fpcontrol.parallel.communicators import comm_of
from fpcontrol.parallel.errors import collective_errors
from fpcontrol.typing import Array

# Sums of cotangents above this are round-off: of four nodes on a circle either diagonal will do.
NEGATIVE = -1e-10


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
    refuse_periodic(mesh, "delaunay", "its triangles have right angles; there is nothing to flip.")
    comm, d = comm_of(mesh), mesh.topology.dim
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
    return check_mesh(distributed(comm, cells, x), "the flipped mesh")


def flipped(cells: NDArray[np.int64], x: Array) -> tuple[NDArray[np.int64], int]:
    """Triangles of the same nodes without an inner edge of negative weight.

    Edges of one triangle stay, and with them the boundary; so does the number of triangles.

    Args:
        cells: Nodes of the triangles, ``(n, 3)``.
        x: Coordinates of the nodes, ``(N, 2)``.

    Returns:
        The triangles, counter-clockwise, ``(n, 3)``, and how many flips there were.

    Raises:
        ValueError: If an edge belongs to more than two triangles.
    """
    a, b, c = (x[cells[:, k]] for k in range(3))
    turn = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
    ordered = np.where((turn < 0.0)[:, None], cells[:, [0, 2, 1]], cells)
    near = _neighbours(ordered)
    triangles, beside, places = ordered.tolist(), near.tolist(), x.tolist()
    waiting = [
        (int(t), int(k))
        for t, k in np.argwhere(_sums(ordered, near, x) < NEGATIVE)
        if t < near[t, k]
    ]
    flips = 0
    while waiting:
        t, k = waiting.pop()
        s = beside[t][k]
        if s < 0:
            continue
        apex, one, two = (triangles[t][(k + i) % 3] for i in range(3))
        m = beside[s].index(t)
        other = triangles[s][m]
        if _cotangent(places, apex, one, two) + _cotangent(places, other, two, one) >= NEGATIVE:
            continue
        # t = (apex, one, two) and s = (other, two, one) become (apex, one, other) and
        # (other, two, apex), with the new edge opposite to `one` and to `two`.
        outer = beside[t][(k + 1) % 3], beside[t][(k + 2) % 3]  # opposite to one, to two
        inner = beside[s][(m + 1) % 3], beside[s][(m + 2) % 3]  # opposite to two, to one
        triangles[t], beside[t] = [apex, one, other], [inner[0], s, outer[1]]
        triangles[s], beside[s] = [other, two, apex], [outer[0], t, inner[1]]
        for beyond, old, new in ((inner[0], s, t), (outer[0], t, s)):
            if beyond >= 0:
                beside[beyond][beside[beyond].index(old)] = new
        waiting += [(t, 0), (t, 2), (s, 0), (s, 2)]
        flips += 1
    return np.array(triangles, dtype=np.int64).reshape(-1, 3), flips


def _neighbours(cells: NDArray[np.int64]) -> NDArray[np.int64]:
    """Triangle beyond the edge opposite to each node, ``(n, 3)``; -1 at the boundary."""
    edges = np.sort(
        np.stack([cells[:, [1, 2]], cells[:, [2, 0]], cells[:, [0, 1]]], axis=1), axis=2
    )
    _, group, count = np.unique(
        edges.reshape(-1, 2), axis=0, return_inverse=True, return_counts=True
    )
    if (count > 2).any():
        raise ValueError(f"{int((count > 2).sum())} edges belong to more than two triangles.")
    order = np.argsort(group.ravel(), kind="stable")
    same = np.flatnonzero(np.diff(group.ravel()[order]) == 0)
    first, second = order[same], order[same + 1]
    near = np.full(cells.size, -1, dtype=np.int64)
    near[first], near[second] = second // 3, first // 3
    return near.reshape(-1, 3)


def _sums(cells: NDArray[np.int64], near: NDArray[np.int64], x: Array) -> Array:
    """Sums of the cotangents of the angles opposite to each edge, ``(n, 3)``; 0 at the boundary."""
    cotangents = np.empty(cells.shape)
    for k in range(3):
        apex = x[cells[:, k]]
        one, two = x[cells[:, (k + 1) % 3]] - apex, x[cells[:, (k + 2) % 3]] - apex
        cotangents[:, k] = (one * two).sum(axis=1) / (one[:, 0] * two[:, 1] - one[:, 1] * two[:, 0])
    inner = near >= 0
    mine, other = np.nonzero(inner)[0], near[inner]
    sums = np.zeros(cells.shape)
    there = (near[other] == mine[:, None]).argmax(axis=1)
    sums[inner] = cotangents[inner] + cotangents[other, there]
    return sums


def _cotangent(x: list[list[float]], apex: int, one: int, two: int) -> float:
    """Cotangent of the angle at a corner of a counter-clockwise triangle."""
    px, py = x[apex]
    ax, ay, bx, by = x[one][0] - px, x[one][1] - py, x[two][0] - px, x[two][1] - py
    return (ax * bx + ay * by) / (ax * by - ay * bx)
