r"""Edges of a mesh of simplices, with the weights of a two-point flux.

For linear elements the stiffness matrix is a sum over edges e = (i, j), :math:`K_{ij} = -w_e`. In
1-D and 2-D these weights, half the sum of the cotangents of the opposite angles, are what a flux
along edges needs: exact on linear functions, and not negative on a Delaunay mesh. In 3-D they are
negative on a fifth of the edges of any mesh; there the areas of Voronoi faces over the lengths of
the edges are taken, negative on a hundredth. What is negative all the same is cut off at zero,
which keeps mass and sign but is consistent only as far as little is cut (``Edges.clipped``).
"""

from itertools import combinations

import numpy as np

from fpcontrol.discretization.edge_tensors import (
    ROUND_OFF,
    Cut,
    EdgeTensors,
    cell_weights,
    cut,
    definite,
    shares_of,
)
from fpcontrol.discretization.elements import Elements
from fpcontrol.discretization.periodic import dof_places, nearest_image, wrapped
from fpcontrol.parallel.errors import reduced
from fpcontrol.typing import Array


class Edges:
    """The edges that this rank's operator is made of. Collective.

    An edge that several ranks have cells of belongs to the lowest of them.

    Args:
        elements: Linear elements.

    Attributes:
        ends: Local degrees of freedom i and j, ``(2, n_edges)``.
        vectors: From i to j, ``(n_edges, d)``.
        middles: Shape ``(n_edges, d)``.
        weights: Not negative, volume over length**2, ``(n_edges,)``.
        clipped: What was cut off in all over what was kept in all.
    """

    def __init__(self, elements: Elements) -> None:
        g, self._elements = elements, elements
        local, number, parts = _of_cells(g)
        sums = np.bincount(number, parts.ravel(), minlength=local.shape[1])
        weights, mine = _across_ranks(g, local, sums)
        total = reduced(
            g.comm, np.array([np.maximum(w, 0.0).sum() for w in (-weights[mine], weights[mine])])
        )
        self.clipped = float(total[0] / total[1]) if total[1] else 0.0
        i, j = self.ends = local[:, mine]
        x = dof_places(g.space)[: g.n_local, : g.dimension]
        self.vectors = nearest_image(g.mesh, x[j] - x[i])
        self.middles = wrapped(g.mesh, x[i] + 0.5 * self.vectors)
        self.weights = np.maximum(weights[mine], 0.0)

    def mean(self, values: Array) -> Array:
        """Means over the cells at each edge, by their parts of its weight. Collective.

        What is negative of the parts is left out.

        Args:
            values: Of the cells, ``(n_cells,)``.
        """
        g = self._elements
        local, number, parts = _of_cells(g)
        shares = np.maximum(parts, 1e-12 * np.abs(parts).max(initial=0.0))
        sums = [
            _across_ranks(g, local, np.bincount(number, part.ravel(), minlength=local.shape[1]))
            for part in (shares * values, shares)
        ]
        (total, mine), (share, _) = sums
        result: Array = total[mine] / share[mine]
        return result

    def tensors(self, D: Array, drift: Array) -> tuple[EdgeTensors, Array, Array, Cut]:
        """Fluxes' parts for matrices D; D and a drift at the edges; what is cut off. Collective.

        Args:
            D: At the middles of the edges of the cells, ``(E * n_cells, d, d)``.
            drift: There, ``(E * n_cells, d)``.
        """
        g, (local, number, parts) = self._elements, _of_cells(self._elements)
        d, squares = g.dimension, g.dimension**2
        D = D.reshape(*parts.shape, squares)
        of_cells = definite(D.mean(axis=0).reshape(-1, d, d), g.comm)
        W, cosine_of, size = cell_weights(g, of_cells)
        share = shares_of(W)
        inverse = np.linalg.inv(of_cells).reshape(-1, squares)
        means = np.concatenate(
            [np.broadcast_to(inverse, D.shape), D, drift.reshape(*parts.shape, d)], axis=-1
        )
        columns = np.concatenate(
            [np.stack([W, cosine_of, size, share], axis=-1), share[..., None] * means], axis=-1
        ).reshape(W.size, 4 + 2 * squares + d)
        sums = np.stack([np.bincount(number, c, local.shape[1]) for c in columns.T], axis=1)
        sums, mine = _across_ranks(g, local, sums)
        weights, cosine_of, size, total = sums[mine, :4].T
        means = sums[mine, 4:] / total[:, None]
        turned = np.einsum("nkl,nl->nk", means[:, :squares].reshape(-1, d, d), self.vectors)
        found = cut(g.comm, weights, cosine_of, size, self.middles, self.vectors)
        tensors = EdgeTensors(np.where(weights > ROUND_OFF * size, weights, 0.0), turned)
        at_edges = means[:, squares : 2 * squares].reshape(-1, d, d)
        return tensors, at_edges, means[:, 2 * squares :], found


def _of_cells(g: Elements) -> tuple[Array, Array, Array]:
    """Ends of this rank's edges; numbers of the cells' edges; their parts ``(pairs, cells)``."""
    pairs = list(combinations(range(g.dimension + 1), 2))
    parts = _voronoi(_corners(g), pairs) if g.dimension == 3 else cotangents(g, pairs)
    ends = np.array([g.dofs[list(pair)] for pair in pairs])  # (pairs, 2, cells)
    ends = np.sort(ends.transpose(1, 0, 2).reshape(2, -1), axis=0)
    local, number = np.unique(ends, axis=1, return_inverse=True)
    return local, number.ravel(), parts


def _corners(g: Elements) -> Array:
    """Of the cells, ``(d + 1, cells, d)``."""
    x, nodes = g.mesh.geometry.x, g.mesh.geometry.dofmaps[0][: g.n_cells]
    return x[nodes][:, :, : g.dimension].transpose(1, 0, 2)


def cotangents(g: Elements, pairs: list[tuple[int, int]]) -> Array:
    """``-K_ij`` of the cells, ``(pairs, cells)``."""
    gradients = g.basis_gradients.reshape(g.dimension, g.n_points, -1)[:, 0]  # constant: (d, basis)
    slopes = np.einsum("akc,ai->kic", g.inverse_jacobian, gradients)
    volumes = g.determinant * g.reference_weights.sum()
    return np.array(
        [-volumes * np.einsum("kc,kc->c", slopes[:, i], slopes[:, j]) for i, j in pairs]
    )


def _voronoi(corners: Array, pairs: list[tuple[int, int]]) -> Array:
    """Signed area of the Voronoi face of an edge in a tetrahedron over the edge's length.

    The face's corners are the edge's middle, the circumcentres of the two triangles at the edge,
    and that of the tetrahedron.
    """
    centre = _circumcentre(corners)
    sign = np.sign(np.linalg.det((corners[1:] - corners[0]).transpose(1, 0, 2)))
    parts = []
    for a, b in pairs:
        c, d = (k for k in range(4) if k not in (a, b))
        edge, middle = corners[b] - corners[a], 0.5 * (corners[a] + corners[b])
        one, two = (_circumcentre(corners[[a, b, k]]) - middle for k in (c, d))
        third = centre - middle
        area = 0.5 * (np.cross(one, third) + np.cross(third, two))
        turn = sign * np.linalg.det(np.eye(4)[[a, b, c, d]])
        parts.append(turn * np.einsum("nk,nk->n", area, edge) / np.einsum("nk,nk->n", edge, edge))
    return np.array(parts)


def _circumcentre(corners: Array) -> Array:
    """Of triangles or tetrahedra in space, ``(3 or 4, n, 3)`` to ``(n, 3)``."""
    sides = (corners[1:] - corners[0]).transpose(1, 0, 2)  # (n, 2 or 3, 3)
    gram = np.einsum("nak,nbk->nab", sides, sides)
    shares = np.linalg.solve(2.0 * gram, np.einsum("naa->na", gram)[:, :, None])
    return corners[0] + np.einsum("na,nak->nk", shares[:, :, 0], sides)


def _across_ranks(g: Elements, ends: Array, sums: Array) -> tuple[Array, Array]:
    """Sums over the ranks that have cells of an edge, and which edges are this rank's.

    Args:
        g: The elements.
        ends: Of the edges, ``(2, n_edges)``.
        sums: This rank's, ``(n_edges,)`` or several of each, ``(n_edges, k)``.
    """
    mine = np.ones(len(sums), dtype=bool)
    if g.comm.size == 1:
        return sums, mine
    numbers = np.sort(g.index_map.local_to_global(ends.ravel().astype(np.int32)).reshape(2, -1), 0)
    # An edge of several ranks has both its ends on the border of the ranks' cells.
    touched = ranks_at(g)
    border = np.flatnonzero((touched[ends] > 1).all(axis=0))
    every = g.comm.allgather((numbers[:, border], sums[border]))
    keys = np.concatenate([k for k, _ in every], axis=1)
    values = np.concatenate([w for _, w in every])
    ranks = np.repeat(np.arange(g.comm.size), [k.shape[1] for k, _ in every])
    _, group = np.unique(keys, axis=1, return_inverse=True)
    group = group.ravel()
    total = np.zeros((int(group.max(initial=-1)) + 1, *sums.shape[1:]))
    np.add.at(total, group, values)
    owner = np.full(len(total), g.comm.size)
    np.minimum.at(owner, group, ranks)
    own = group[ranks == g.comm.rank]
    weights = sums.copy()
    weights[border] = total[own]
    mine[border] = owner[own] == g.comm.rank
    return weights, mine


def ranks_at(g: Elements) -> Array:
    """Number of ranks with cells at each degree of freedom, local. Collective."""
    count = g.vector()
    count.array[:] = 0.0
    count.array[np.unique(g.dofs)] = 1.0
    count.scatter_reverse()
    count.scatter_forward()
    return count.array.copy()
