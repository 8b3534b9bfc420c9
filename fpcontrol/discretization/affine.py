"""Checks of meshes: straight simplices of positive volume that meet facet to facet."""

import warnings
import weakref
from itertools import combinations

from mpi4py import MPI

import numpy as np
from dolfinx.mesh import Mesh
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from fpcontrol.discretization.periodic import refuse_periodic
from fpcontrol.parallel.communicators import comm_of
from fpcontrol.parallel.errors import collective_errors
from fpcontrol.typing import Array

Numbers = NDArray[np.int64]

# A cell is flat below this part of the d-th power of its longest edge: boundary layers with sides
# of 1 to 10 000 in both directions have 1e-8.
FLAT = 1e-12
# Differences of coordinates far from the origin have this much round-off of their size.
ROUND_OFF = 16.0 * np.finfo(float).eps
# Nodes nearer than this part of the shortest edge are at the same place.
COINCIDENT = 1e-6

# Sums over the coordinates of meshes that have passed: another sum tells that nodes have moved.
_passed: "weakref.WeakKeyDictionary[Mesh, float]" = weakref.WeakKeyDictionary()


def check_mesh(mesh: Mesh, name: str = "mesh") -> Mesh:
    """Refuse a mesh on which the equation would fail or be wrong without a word. Collective.

    The cells must be straight intervals, triangles or tetrahedra that fill their space, in double
    precision, with finite nodes and a positive volume; no cell may be there twice, no facet belong
    to more than two cells or to two on the same side of it, and no two parts of the domain touch
    without being joined. A slit, where one part touches itself, is a warning.

    Args:
        mesh: The mesh.
        name: What the message calls it.

    Returns:
        The mesh.

    Raises:
        ValueError: On all ranks; says how many cells, facets or nodes are at fault and where the
            first one is.
    """
    d, comm, coordinates = mesh.topology.dim, comm_of(mesh), _sum_of(mesh)
    if not comm.allreduce(_passed.get(mesh) != coordinates, op=MPI.LOR):
        return mesh
    refuse_periodic(
        mesh, f"Moving the nodes of {name}", "make it with the sides that it shall have."
    )
    _check_kind(mesh, name)
    dofmap = mesh.geometry.dofmaps[0][: mesh.topology.index_map(d).size_local]
    number = _numbers(mesh)[: len(dofmap)]
    x = mesh.geometry.x[dofmap][:, :, :d]
    if comm.allreduce(len(x)) == 0:
        raise ValueError(f"{name} has no cells.")
    _refuse(
        comm,
        ~np.isfinite(x).all(axis=(1, 2)),
        number,
        x,
        f"{name} has cells with nodes that are not finite",
    )
    edges = x[:, 1:] - x[:, :1]
    lengths = np.stack(
        [np.linalg.norm(x[:, i] - x[:, j], axis=1) for i, j in combinations(range(d + 1), 2)]
    )
    longest = lengths.max(axis=0)
    determinant = np.linalg.det(edges) if len(x) else np.zeros(0)
    noise = ROUND_OFF * np.abs(x).max(axis=(1, 2), initial=0.0) * longest ** (d - 1)
    _refuse(
        comm,
        np.abs(determinant) <= FLAT * longest**d + noise,
        number,
        x,
        f"{name} has cells without {('length', 'area', 'volume')[d - 1]}",
        "Remove them, and merge the nodes at the same place.",
    )
    nodes = mesh.geometry.input_global_indices[dofmap].astype(np.int64)
    shortest = comm.allreduce(lengths.min(initial=np.inf), op=MPI.MIN)
    _check_facets(comm, nodes, determinant, number, x, shortest, name)
    _passed[mesh] = coordinates
    return mesh


def trust(mesh: Mesh) -> Mesh:
    """Spare a mesh that DOLFINx itself has made the check, as long as its nodes do not move."""
    _passed[mesh] = _sum_of(mesh)
    return mesh


def _sum_of(mesh: Mesh) -> float:
    x = mesh.geometry.x.ravel()
    return float(x.sum() + x @ x)


def check_nodes(comm: MPI.Comm, cells: Numbers, x: Array, name: str) -> None:
    """Refuse node numbers that end the process where a mesh is made of them. Collective.

    Args:
        comm: Communicator.
        cells: Node numbers of this rank's block of cells, ``(n, d + 1)``.
        x: Coordinates of this rank's block of nodes.
        name: What the message calls the mesh.

    Raises:
        ValueError: On all ranks, for a number that no node has, a node twice in a cell or a node
            in use that is not finite.
    """
    first_node, first_cell = comm.exscan(len(x)) or 0, comm.exscan(len(cells)) or 0
    nodes, number = comm.allreduce(len(x)), first_cell + np.arange(len(cells))
    if comm.allreduce(len(cells)) == 0:
        raise ValueError(f"{name} has no cells.")
    unknown = (cells < 0) | (cells >= nodes)
    _refuse(
        comm,
        unknown.any(axis=1),
        number,
        cells,
        f"{name} has cells with node numbers outside 0 to {nodes - 1}",
    )
    ordered = np.sort(cells, axis=1)
    _refuse(
        comm,
        (np.diff(ordered, axis=1) == 0).any(axis=1),
        number,
        cells,
        f"{name} has cells with a node twice",
        "Remove them.",
    )
    local = first_node + np.flatnonzero(~np.isfinite(x).all(axis=1))
    infinite = np.concatenate(comm.allgather(local))
    used = np.isin(cells, infinite)
    _refuse(
        comm,
        used.any(axis=1),
        number,
        cells,
        f"{name} has cells with nodes that are not finite",
    )


def _numbers(mesh: Mesh) -> Numbers:
    """Numbers of this rank's cells in their file, or where there was none, among all cells."""
    try:
        return np.asarray(mesh.topology.original_cell_index, dtype=np.int64)
    except RuntimeError:  # of a submesh
        first, last = mesh.topology.index_map(mesh.topology.dim).local_range
        return np.arange(first, last)


def _check_kind(mesh: Mesh, name: str) -> None:
    cell = mesh.topology.cell_name()
    if cell not in ("interval", "triangle", "tetrahedron"):
        raise ValueError(f"{name} has {cell} cells; intervals, triangles or tetrahedra are needed.")
    if mesh.geometry.dim != mesh.topology.dim or mesh.geometry.cmaps[0].degree != 1:
        raise ValueError(
            f"{name} has topological dimension {mesh.topology.dim}, geometric dimension "
            f"{mesh.geometry.dim} and geometry of degree {mesh.geometry.cmaps[0].degree}; equal "
            "dimensions and straight-sided cells (degree 1) are needed."
        )
    if mesh.geometry.x.dtype != np.float64:
        raise ValueError(
            f"{name} has coordinates in {mesh.geometry.x.dtype}; float64 is needed. Make it with "
            "dtype=numpy.float64, which is also what fpcontrol.mesh gives."
        )


def _check_facets(
    comm: MPI.Comm,
    cells: Numbers,
    determinant: Array,
    number: Numbers,
    x: Array,
    shortest: float,
    name: str,
) -> None:
    """Refuse cells that do not meet facet to facet. Collective.

    Args:
        comm: Communicator.
        cells: Node numbers of this rank's cells, ``(n, d + 1)``.
        determinant: Of their Jacobians, ``(n,)``.
        number: Number of each cell in its file.
        x: Corners, ``(n, d + 1, d)``.
        shortest: Shortest edge of the mesh.
        name: What the message calls the mesh.
    """
    d = cells.shape[1] - 1
    order = np.argsort(cells, axis=1)
    ordered = np.take_along_axis(cells, order, axis=1)
    swaps = sum(
        (order[:, i] > order[:, j] for i, j in combinations(range(d + 1), 2)), np.zeros(len(cells))
    )
    orientation = np.sign(determinant) * (-1.0) ** swaps
    # Facets opposite to the k-th corner, (d + 1, n, d), and the side of it where that corner lies.
    facets = np.stack([np.delete(ordered, k, axis=1) for k in range(d + 1)])
    side = np.stack([orientation * (-1.0) ** (d - k) for k in range(d + 1)]).astype(np.int64)
    count, balance = (
        v.reshape(d + 1, -1) for v in _sums(comm, facets.reshape(-1, d), side.ravel())
    )
    bad = (count > 2) | ((count == 2) & (balance != 0))
    if comm.allreduce(bool(bad.any()), op=MPI.LOR):
        twice, _ = _sums(comm, ordered, np.zeros(len(cells), dtype=np.int64))
        _refuse(
            comm,
            twice > 1,
            number,
            x,
            f"{name} has cells that share all their nodes with another cell",
            "Remove the copies.",
        )
        what = ("node", "side", "face")[d - 1]
        _refuse(
            comm,
            (count > 2).any(axis=0),
            number,
            x,
            f"{name} has cells that share a {what} with more than one other cell",
            f"A {what} belongs to two cells at most.",
        )
        _refuse(
            comm,
            bad.any(axis=0),
            number,
            x,
            f"{name} has cells that lie on the same side of a {what} as their neighbour",
            "The mesh is folded.",
        )
    corners = np.take_along_axis(x, order[:, :, None], axis=1)
    at = np.stack([np.delete(corners, k, axis=1) for k in range(d + 1)])
    free = count == 1
    _check_touching(comm, facets, facets[free].ravel(), at[free].reshape(-1, d), shortest, name)


def _check_touching(
    comm: MPI.Comm, facets: Numbers, nodes: Numbers, x: Array, shortest: float, name: str
) -> None:
    """Refuse parts that touch without being joined: boundary nodes at the same place."""
    gathered = comm.gather((nodes, x))
    same, place, pairs = 0, "", np.empty((0, 2), dtype=np.int64)
    with collective_errors(comm):
        if comm.rank == 0:
            all_nodes, points = (np.concatenate(part) for part in zip(*gathered, strict=True))
            all_nodes, first = np.unique(all_nodes, return_index=True)
            points = points[first]
            distance, other = cKDTree(points).query(points, k=2)
            near = np.flatnonzero(distance[:, 1] <= COINCIDENT * shortest)
            # Of two points at the same place, each is nearest to either.
            partner = np.where(other[near, 1] == near, other[near, 0], other[near, 1])
            pairs = np.column_stack([all_nodes[near], all_nodes[partner]])
            same, place = len(near), _place(points[near[0]]) if len(near) else ""
    same, place = comm.bcast((same, place))
    if not same:
        return
    gathered = comm.gather(facets)  # of all cells, but only where something is wrong
    apart = 0
    with collective_errors(comm):
        if comm.rank == 0:
            part = _parts(np.concatenate(gathered, axis=1))
            apart = sum(part[a] != part[b] for a, b in pairs.tolist())
    what = f"{name}: {same} nodes of the boundary lie at the place of another one, the first at"
    if comm.bcast(apart):
        raise ValueError(
            f"{what} {place}, and the cells on both sides are not joined there: nothing would "
            "flow across. Merge the nodes (gmsh: Coherence, or Mesh.removeDuplicateNodes)."
        )
    if comm.rank == 0:
        warnings.warn(
            f"{what} {place}. The domain touches itself there without being joined: a slit with a "
            "wall on both sides. Merge the nodes if none is meant.",
            stacklevel=2,
        )


def _parts(facets: Numbers) -> dict[int, int]:
    """Of each node, the part of the domain that it belongs to; parts are joined by facets."""
    count, n, d = facets.shape
    numbered = np.unique(facets.reshape(-1, d), axis=0, return_inverse=True)[1].ravel()
    cells = np.tile(np.arange(n), count)
    graph = coo_array((np.ones(len(cells)), (cells, n + numbered)))
    size = n + numbered.max() + 1
    graph.resize((size, size))
    part = connected_components(graph, directed=False)[1]
    nodes = facets.reshape(-1, d)
    return dict(zip(nodes.ravel().tolist(), np.repeat(part[cells], d).tolist(), strict=True))


def _sums(comm: MPI.Comm, keys: Numbers, values: Numbers) -> tuple[Numbers, Numbers]:
    """For each row, on how many rows of all ranks its key stands, and the sum of their values.

    Rows are sent to a rank that depends on the key alone, which sends back what it found.
    """
    rows = np.column_stack([keys, values])
    owner = keys[:, 0] % comm.size
    order = np.argsort(owner, kind="stable")
    counts = np.bincount(owner, minlength=comm.size)
    theirs = np.empty(comm.size, dtype=counts.dtype)
    comm.Alltoall(counts, theirs)
    width = rows.shape[1]
    arrived = np.empty((theirs.sum(), width), dtype=np.int64)
    comm.Alltoallv([np.ascontiguousarray(rows[order]), width * counts], [arrived, width * theirs])
    # Groups of equal keys by a sort, of one number a key where the largest number allows it.
    columns, base = arrived[:, :-1].T, int(arrived.max(initial=0)) + 1
    if base ** len(columns) < 2**63:
        columns = np.ravel_multi_index(tuple(columns), (base,) * len(columns))[None]
    ranked = np.lexsort(columns)
    sorted_keys = arrived[ranked, :-1]
    new = np.ones(len(arrived), dtype=bool)
    new[1:] = (sorted_keys[1:] != sorted_keys[:-1]).any(axis=1)
    group = np.cumsum(new) - 1
    found = np.empty((len(arrived), 2), dtype=np.int64)
    found[ranked, 0] = np.bincount(group)[group] if len(group) else 0
    found[ranked, 1] = (
        np.bincount(group, arrived[ranked, -1]).astype(np.int64)[group] if len(group) else 0
    )
    back = np.empty((len(rows), 2), dtype=np.int64)
    comm.Alltoallv([found, 2 * theirs], [back, 2 * counts])
    result = np.empty_like(back)
    result[order] = back
    return result[:, 0], result[:, 1]


def _refuse(
    comm: MPI.Comm, bad: Array, number: Numbers, what: Array, fault: str, remedy: str = ""
) -> None:
    """Raise on all ranks if a cell is at fault on any; tells the first by its number. Collective.

    Args:
        comm: Communicator.
        bad: Whether each cell of this rank is at fault, ``(n,)``.
        number: Its number.
        what: Its corners ``(n, d + 1, d)`` or its node numbers ``(n, d + 1)``.
        fault: The message, which the count follows.
        remedy: Its last sentence.
    """
    found = np.flatnonzero(bad)
    total = np.array(len(found))
    comm.Allreduce(MPI.IN_PLACE, total)
    if not total:
        return
    mine = None
    if len(found):
        i = found[number[found].argmin()]
        where = f"near {_place(what[i].mean(axis=0))}" if what.ndim == 3 else f"of nodes {what[i]}"
        mine = (int(number[i]), where)
    first, where = min(entry for entry in comm.allgather(mine) if entry)
    raise ValueError(f"{fault}: {total}, the first is cell {first} {where}. {remedy}".rstrip())


def _place(x: Array) -> str:
    return "(" + ", ".join(f"{c:.6g}" for c in x) + ")"
