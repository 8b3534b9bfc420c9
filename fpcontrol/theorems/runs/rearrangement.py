r"""Between which numbers the distance :math:`W_2` of two densities in the plane lies.

The cost is a sum over the two coordinates. What each of them costs by itself, between the
marginals, is the least it can; and the rearrangement of Knothe and Rosenblatt, which first moves
one coordinate by its quantiles and then the other in each column, is one way to carry the mass:

.. math:: W_2^2(p_1, q_1) + W_2^2(p_2, q_2) \le W_2^2(p, q) \le \int|x - T(x)|^2p\,dx .

Both are exact here, but for round-off, for densities that are constant in the squares of a lattice.
"""

import math

import numpy as np

from fpcontrol.typing import Array

GAUSS = 0.5 - 0.5 / math.sqrt(3.0)  # place of the first of two nodes, exact for squares of lines


def bracket(p: Array, q: Array, edges: Array) -> tuple[float, float]:
    """A lower and an upper bound of the distance, length.

    Args:
        p: Masses of the squares, ``(n, n)``, scaled to sum 1: first axis, second axis.
        q: Those of the other density.
        edges: Of the squares along both axes, ``(n + 1,)``.
    """
    p, q = p / p.sum(), q / q.sum()
    marginals = sum(quantile_cost(p.sum(axis=i), q.sum(axis=i), edges) for i in (0, 1))
    carried = min(_by_columns(p, q, edges), _by_columns(p.T, q.T, edges))
    return math.sqrt(marginals), math.sqrt(carried)


def quantile_cost(p: Array, q: Array, edges: Array) -> float:
    """Square of the distance of masses spread evenly between edges on a line."""
    u, w = _levels(p, q)
    gaps = _quantiles(p, u, edges) - _quantiles(q, u, edges)
    return float(w @ gaps**2)


def _by_columns(p: Array, q: Array, edges: Array) -> float:
    """Mean square of the way: by quantiles along the first axis, then along the second."""
    a, b = p.sum(axis=1), q.sum(axis=1)
    u, w = _levels(a, b)
    x, y = _quantiles(a, u, edges), _quantiles(b, u, edges)
    last = len(edges) - 2
    columns = [np.clip(np.searchsorted(edges, z, side="right") - 1, 0, last) for z in (x, y)]
    total, known = float(w @ (x - y) ** 2), {}
    for i, j, share in zip(*columns, w, strict=True):
        if min(a[i], b[j]) <= 0.0:  # a level of round-off, beside an empty column
            continue
        if (i, j) not in known:
            known[i, j] = quantile_cost(p[i] / a[i], q[j] / b[j], edges)
        total += share * known[i, j]
    return total


def _levels(p: Array, q: Array) -> tuple[Array, Array]:
    """Nodes and weights for integrals over the levels, between which both quantiles are linear."""
    ends = np.sort(np.concatenate([[0.0], np.cumsum(p), np.cumsum(q)]))
    h = np.diff(ends)
    left, h = ends[:-1][h > 0.0], h[h > 0.0]
    nodes = np.concatenate([left + GAUSS * h, left + (1.0 - GAUSS) * h])
    return nodes, np.tile(0.5 * h, 2)


def _quantiles(p: Array, u: Array, edges: Array) -> Array:
    return np.interp(u, np.append(0.0, np.cumsum(p)), edges)
