"""Gauss's rules on intervals: composite ones, and graded ones for integrands with kinks."""

import functools
from itertools import pairwise

import numpy as np

from fpcontrol.typing import Array

# Panels on either side of a singular point, and Gauss points in each: 5e3 nodes.
PANELS, POINTS = 512, 10


def composite(edges: Array, points: int) -> tuple[Array, Array]:
    """Gauss nodes and weights in the cells between edges, cell by cell.

    Args:
        edges: Ends of the cells, ascending (or descending: the weights stay positive).
        points: Nodes in each cell.

    Returns:
        Nodes and weights, each of shape ``(points * cells,)``.
    """
    hat, weights = np.polynomial.legendre.leggauss(points)
    edges = np.asarray(edges, dtype=float)
    h = np.diff(edges)[:, None]
    return (edges[:-1, None] + h * (0.5 + 0.5 * hat)).ravel(), (np.abs(0.5 * h) * weights).ravel()


@functools.cache
def graded(breaks: tuple[float, ...] = (), grading: int = 4) -> tuple[Array, Array]:
    """Gauss nodes and weights on (0, 1), graded towards ends and breaks like ``u**grading``.

    Args:
        breaks: Where the integrand jumps or has a kink, inside (0, 1), ascending.
        grading: Another one shows the error of the rule.
    """
    s, ds = composite(np.linspace(0.0, 1.0, PANELS + 1), POINTS)
    x, dx = [], []
    for a, b in pairwise([0.0, *breaks, 1.0]):
        for end, sign in ((a, 1.0), (b, -1.0)):
            half = 0.5 * (b - a)
            x.append(end + sign * half * s**grading)
            dx.append(half * grading * s ** (grading - 1) * ds)
    return np.concatenate(x), np.concatenate(dx)
