r"""Markers on a line in a drift with jumps, from event to event: no step size, no chatter.

The drift is linear in x in each cell between given nodes and constant in time on each of a number
of short steps. Inside a cell a marker moves by :math:`\dot x = v_0 + \beta x`, solved exactly up to
the next node. There it goes on if the drift beyond points onward; where the drifts of both cells
point at the node it stays: the solution in the sense of Filippov, and an atom. A marker at a wall
with an outward drift stays, too. Averaging a smooth drift over the steps leaves an error of second
order in their length.
"""

from dataclasses import dataclass

import numpy as np

from fpcontrol.typing import Array


@dataclass(frozen=True)
class CellwiseDrift:
    """A drift on cells of a line, with walls at the first and the last node.

    Attributes:
        nodes: Ascending, shape ``(n + 1,)``.
        times: Ends of steps, ``(steps + 1,)``.
        left, right: Mean over each step of the drift at both ends of each cell, ``(steps, n)``.
    """

    nodes: Array
    times: Array
    left: Array
    right: Array


def slide(x: Array, drift: CellwiseDrift) -> Array:
    """Carry markers, shape ``(N,)``, over all steps."""
    x, nodes, n = np.array(x, dtype=float), drift.nodes, len(drift.nodes) - 1
    cell = np.clip(np.searchsorted(nodes, x, side="right") - 1, 0, n - 1)
    node = np.searchsorted(nodes, x)
    node = np.where(nodes[np.minimum(node, n)] == x, node, -1)  # the node a marker is at, or -1
    for dt, left, right in zip(np.diff(drift.times), drift.left, drift.right, strict=True):
        before, beyond = np.append(0.0, right), np.append(left, 0.0)  # drifts on a node's two sides
        slope = (right - left) / np.diff(nodes)
        rest = np.full(len(x), dt)
        moving = np.arange(len(x))
        while len(moving):
            at = moving[node[moving] >= 0]
            v, w = before[node[at]], beyond[node[at]]
            for goes, step in (((w > 0.0) & (v >= 0.0), 0), ((v < 0.0) & (w <= 0.0), -1)):
                cell[at[goes]] = node[at[goes]] + step
                node[at[goes]] = -1
            i = moving[node[moving] < 0]
            c = cell[i]
            v, b = left[c] + slope[c] * (x[i] - nodes[c]), slope[c]
            moves = v != 0.0
            i, c, v, b = i[moves], c[moves], v[moves], b[moves]
            end = np.where(v > 0.0, c + 1, c)
            needed = _duration(nodes[end] - x[i], v, b)
            arrives = needed <= rest[i]
            spent = rest[i]
            x[i] = np.where(arrives, nodes[end], x[i] + v * spent * _expm1_ratio(b * spent))
            rest[i] = np.where(arrives, spent - needed, 0.0)
            node[i] = np.where(arrives, end, -1)
            moving = i[arrives]
    return x


def _duration(distance: Array, v: Array, b: Array) -> Array:
    """Time to go a distance in the direction of ``v`` where ``v`` grows by ``b`` a length."""
    with np.errstate(divide="ignore", invalid="ignore"):
        time = distance / v
        growth = b * time
        # The drift vanishes on the way: the marker never arrives.
        return np.where(
            growth > -1.0, time * np.where(growth, np.log1p(growth) / growth, 1.0), np.inf
        )


def _expm1_ratio(z: Array) -> Array:
    """``(exp(z) - 1) / z``."""
    safe = np.where(z == 0.0, 1.0, z)
    return np.where(z == 0.0, 1.0, np.expm1(safe) / safe)
