"""Loops of walks from cell to cell; see ``cells``."""

from typing import Any

import numpy as np

from fpcontrol.discretization.compiling import kept

# Barycentric coordinates down to this are round-off: the point is in the cell, or on its facet.
INSIDE = 1e-12
# What a walk leaves outside by no more than this is on the wall; it is what formulas for walls and
# steps that end on them add up to.
ON_WALL = 1e-6
# Points that start a segment must be in their cells to this; walks leave them there to ``INSIDE``.
STARTS = 1e-6
# Facets met at the same fraction of a segment, to round-off: it passes through an edge or a vertex.
TIE = 1e-12
# Facets crossed without getting on, more than meet at any vertex of a sound mesh, after which the
# next one is drawn at random: such a walk around a vertex ends with probability one.
AROUND = 64

NOT_THERE, LOST = -2, -3


def compiled(loop: Any) -> Any:
    """Compile a loop at its first call; it is kept on disk."""
    # No fast mathematics: signs at facets decide where a walk goes.
    return kept(loop, error_model="numpy")


@compiled
def coordinates_in(origin: Any, inverse: Any, cell: int, x: Any, i: int, out: Any) -> None:
    """Barycentric coordinates of point ``i`` in a cell."""
    d = x.shape[1]
    if d == 2:  # by hand: a third of the time
        u, v = x[i, 0] - origin[cell, 0], x[i, 1] - origin[cell, 1]
        out[1] = inverse[cell, 0, 0] * u + inverse[cell, 0, 1] * v
        out[2] = inverse[cell, 1, 0] * u + inverse[cell, 1, 1] * v
        out[0] = 1.0 - out[1] - out[2]
        return
    rest = 1.0
    for a in range(d):
        total = 0.0
        for k in range(d):
            total += inverse[cell, a, k] * (x[i, k] - origin[cell, k])
        out[a + 1] = total
        rest -= total
    out[0] = rest


@compiled
def walks(origin: Any, inverse: Any, neighbours: Any, x: Any, cells: Any, shares: Any) -> None:
    """Through the facet that each point is farthest beyond, until there is none to pass."""
    corners = x.shape[1] + 1
    here = np.empty(corners)
    for i in range(x.shape[0]):
        cell = cells[i]
        for _ in range(neighbours.shape[0] + 1):
            coordinates_in(origin, inverse, cell, x, i, here)
            least, beyond = -INSIDE, -1
            for k in range(corners):
                if here[k] < least and neighbours[cell, k] >= 0:
                    least, beyond = here[k], neighbours[cell, k]
            if beyond < 0:
                break
            cell = beyond
        cells[i] = cell
        for k in range(corners):
            shares[i, k] = here[k]


@compiled
def follow(
    origin: Any,
    inverse: Any,
    neighbours: Any,
    x0: Any,
    x1: Any,
    i: int,
    cell: Any,
    a: Any,
    b: Any,
    when: Any,
) -> Any:
    """Along segment ``i`` of ``x0`` to ``x1`` from a cell, through facets that its end is beyond.

    ``a``, ``b`` and ``when`` are room for ``d + 1`` numbers each.

    Returns:
        The last cell; the fraction travelled; the wall facet met, -1 for none, less for an error.
    """
    corners = x0.shape[1] + 1
    most, random = 2 * neighbours.shape[0] + 100 * AROUND, 1
    s, stuck, steps = 0.0, 0, 0
    while True:
        coordinates_in(origin, inverse, cell, x1, i, b)
        size, least = 1.0, 0.0
        for k in range(corners):
            size, least = max(size, abs(b[k])), min(least, b[k])
        ends_here = least >= -INSIDE * size
        if ends_here and steps > 0:
            return cell, 1.0, -1
        coordinates_in(origin, inverse, cell, x0, i, a)
        if steps == 0:
            start = 0.0
            for k in range(corners):
                start = min(start, a[k])
            if not start >= -STARTS:
                return cell, s, NOT_THERE
            if ends_here:
                return cell, 1.0, -1
        first = 2.0
        for k in range(corners):
            when[k] = 2.0
            if b[k] < -INSIDE * size:
                # Where the start is beyond it too, a vertex was passed: at once, then.
                when[k] = max(s, a[k] / (a[k] - b[k])) if a[k] > 0.0 else s
                first = min(first, when[k])
        stuck = stuck + 1 if first <= s + TIE else 0
        # Of facets met at once one inside the domain: what only touches a wall goes on.
        choice, inner = -1, 0
        for k in range(corners):
            if when[k] <= first + TIE:
                if neighbours[cell, k] < 0:
                    if choice < 0:
                        choice = k
                    continue
                inner += 1
                if inner == 1:
                    choice = k
                elif stuck <= AROUND:
                    if when[k] < when[choice]:
                        choice = k
                else:
                    random = (1103515245 * random + 12345) % 2147483648
                    if (random >> 16) % inner == 0:
                        choice = k
        s = max(s, when[choice])
        if neighbours[cell, choice] < 0:
            return cell, s, -1 - neighbours[cell, choice]
        cell = neighbours[cell, choice]
        steps += 1
        if steps > most:
            return cell, s, LOST


@compiled
def traces(
    origin: Any,
    inverse: Any,
    neighbours: Any,
    x0: Any,
    x1: Any,
    cells: Any,
    fraction: Any,
    facet: Any,
) -> None:
    """Along every segment."""
    corners = x0.shape[1] + 1
    a, b, when = np.empty(corners), np.empty(corners), np.empty(corners)
    for i in range(x0.shape[0]):
        cells[i], fraction[i], facet[i] = follow(
            origin, inverse, neighbours, x0, x1, i, cells[i], a, b, when
        )
