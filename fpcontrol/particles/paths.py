r"""Paths of particles through cells: reflected at walls, ended by walls that absorb.

A displacement that may meet a wall (``grid``) is followed along its segment. Where that meets one
with outward normal n at the point y, the rest of it is mirrored,

.. math:: x_1 \to x_1 - 2\,\frac{n\cdot(x_1 - y)}{n\cdot a n}\,a n ,

with a = 1, or the matrix of the noise: normal reflection, or that in the direction of the conormal.
In a corner this happens more than once. A segment through a vertex or along a wall goes on. What
leaves through a periodic side comes in at the other, a period away.

Of a particle that starts at the distance :math:`d_0` from an absorbing wall and ends at :math:`d_1`
on the same side of it, the path between may have touched the wall: a Brownian bridge has with
probability :math:`\exp(-2 d_0 d_1/(\sigma^2\Delta t))`, and then at the time :math:`\tau` with
:math:`\tau/(\Delta t - \tau)` of inverse Gaussian distribution, mean :math:`d_0/d_1` and shape
:math:`d_0^2/(\sigma^2\Delta t)`. Without this the error were of order 1/2.

References:
    E. Gobet, Weak approximation of killed diffusion using Euler schemes, Stochastic Processes and
    their Applications 87 (2000); J. Michael, W. Schucany, R. Haas, Generating random variates using
    transformations with multiple roots, The American Statistician 30 (1976).
"""

import math
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from fpcontrol.discretization.walks import INSIDE, compiled, coordinates_in, follow
from fpcontrol.particles.domain import Domain
from fpcontrol.particles.grid import locate, passes, square_of
from fpcontrol.typing import Array

REFLECTIONS = 1000  # of one displacement; more are needed in wedges below a fifth of a degree only
_SHORT = 64  # cells; a longer walk, or one that goes round and round, follows its segment
# Standard deviations of a step: from farther a path touches a wall and is back 3 times in 1e5.
REACH = 4.0

_FOUND = 1e-9  # barycentric coordinates of a point on a facet, down to this


@dataclass(frozen=True)
class NearWalls:
    """Absorbing walls near each cell: those of cell ``c`` are ``walls[first[c]:first[c + 1]]``."""

    first: Array
    walls: Array

    @classmethod
    def of(cls, domain: Domain, absorbing: Array, reach: float) -> "NearWalls":
        """Those that a point of the cell may be nearer to than ``reach``, and maybe some more.

        Args:
            domain: The mesh.
            absorbing: Whether each wall facet absorbs, ``(walls,)``.
            reach: Length.
        """
        walls = np.flatnonzero(absorbing)
        if not len(walls):
            return cls(np.zeros(len(domain) + 1, dtype=np.int64), np.empty(0, dtype=np.int64))
        middles = domain.middles
        radii = np.linalg.norm(domain.corners - middles[:, None], axis=2).max(axis=1)
        ends = domain.wall_corners[walls]
        centres = ends.mean(axis=1)
        sizes = np.linalg.norm(ends - centres[:, None], axis=2).max(axis=1)
        tree, kept = cKDTree(centres), [np.empty(0, dtype=np.int64)] * len(middles)
        turns = [(-p, 0.0, p) if p > 0.0 else (0.0,) for p in domain.periods.tolist()]
        for turn in product(*turns):  # and beyond periodic sides
            found = tree.query_ball_point(middles + turn, radii + reach + sizes.max())
            for cell, near in enumerate(found):
                near = np.asarray(near, dtype=np.int64)
                gaps = np.linalg.norm(centres[near] - middles[cell] - turn, axis=1)
                near = near[gaps <= radii[cell] + reach + sizes[near]]
                kept[cell] = np.union1d(kept[cell], walls[near])
        first = np.concatenate([[0], np.cumsum([len(k) for k in kept])])
        return cls(first.astype(np.int64), np.concatenate(kept).astype(np.int64))


@compiled
def _hitting_time(d0: float, d1: float, variance: float, normal: float, choice: float) -> float:
    """Fraction of the step at which a bridge that touches the wall does so first."""
    d1 = max(d1, 1e-12 * d0)
    mean, shape = d0 / d1, d0 * d0 / variance
    y = mean * normal * normal / shape
    ratio = 1.0 + 0.5 * (y - math.sqrt(y * (4.0 + y)))  # of the smaller root to the mean
    x = mean * ratio
    if choice > 1.0 / (1.0 + ratio):
        x = mean / max(ratio, 1e-300)
    return x / (1.0 + x)


@compiled
def _towards(a: Any, i: int, normals: Any, wall: int, out: Any) -> float:
    """``a n`` of a particle at a wall, or n itself where a has no rows; returns ``n . a n``."""
    d, along = normals.shape[1], 0.0
    for k in range(d):
        out[k] = normals[wall, k]
        if a.shape[0] > 0:
            out[k] = 0.0
            for j in range(d):
                out[k] += a[i, k, j] * normals[wall, j]
        along += normals[wall, k] * out[k]
    return along


@compiled
def _distance(normals: Any, corners: Any, wall: int, x: Any) -> float:
    """From a point ``x[0]`` to the plane of a wall, positive inside."""
    total = 0.0
    for k in range(normals.shape[1]):
        total += normals[wall, k] * (corners[wall, 0, k] - x[0, k])
    return total


@compiled
def _bring(origin: Any, cell: int, periods: Any, x: Any) -> None:
    """Move a point ``x[0]`` by whole periods to the image that is nearest to a cell."""
    for k in range(periods.shape[0]):
        if periods[k] > 0.0:
            x[0, k] -= periods[k] * np.rint((x[0, k] - origin[cell, k]) / periods[k])


@compiled
def _beside(
    mesh: Any,
    walls: Any,
    periods: Any,
    wall: int,
    start: Any,
    end: Any,
    d0: float,
    d1: float,
    foot: Any,
    room: Any,
) -> bool:
    """Whether a segment at distances ``d0``, ``d1`` from a wall's plane is nearest to this facet.

    Its reflection at the plane is a straight line from the start; the facet must be where that
    meets it.
    """
    origin, inverse, _, _ = mesh
    wall_cells, corners, normals, _ = walls
    t = d0 / (d0 + d1)
    for k in range(foot.shape[1]):
        foot[0, k] = start[0, k] + t * (end[0, k] - start[0, k])
    far = _distance(normals, corners, wall, foot)
    for k in range(foot.shape[1]):
        foot[0, k] += far * normals[wall, k]
    _bring(origin, wall_cells[wall], periods, foot)
    coordinates_in(origin, inverse, wall_cells[wall], foot, 0, room)
    least = 0.0
    for k in range(room.shape[0]):
        least = min(least, room[k])
    return least >= -_FOUND


@compiled
def move(
    mesh: Any,
    grid: Any,
    walls: Any,
    seams: Any,
    near: Any,
    chance: Any,
    variance: Any,
    a: Any,
    dx: Any,
    x: Any,
    cells: Any,
    hits: Any,
    exits: Any,
    when: Any,
) -> int:
    """Displace particles, in place; returns the number of one that is lost, or -1.

    Args:
        mesh: ``origin, inverse, neighbours, clearance`` of a ``Domain``.
        grid: ``places`` and ``fences`` of its ``Grid``, by which steps that start in cells with
            walls in ``near`` are followed.
        walls: Its ``wall_cells, wall_corners, wall_normals``, and whether each absorbs.
        seams: Its ``beyond, shifts, periods``. On a mesh with these walls that absorb are planes
            along the periodic axes, as those of boxes are.
        near: ``first, walls`` of ``NearWalls``.
        chance: Random numbers, two uniform and one normal, ``(N, 3)``; of no use, and may have no
            rows, where no wall absorbs.
        variance: ``sigma**2 dt``, ``(N,)``; of no use, and may be empty, where ``a`` has rows.
        a: ``sigma sigma^T dt``, ``(N, d, d)``, or of shape ``(0, d, d)`` for multiples of 1.
        dx: Displacements, ``(N, d)``.
        x: Positions, ``(N, d)``; changed. Of those that leave, the place on the wall's plane.
        cells: The cells that hold them, ``(N,)``, -1 where they are not known; changed, and not
            known after steps that meet no wall for sure.
        hits: Numbers of reflections, ``(N,)``; added to.
        exits: The wall that has taken each, or -1, ``(N,)``; set.
        when: The fraction of the step at which it did, ``(N,)``; set where it did.
    """
    origin, inverse, neighbours, clearance = mesh
    wall_cells, corners, normals, absorbing = walls
    partners, shifts, periods = seams
    near_first, near_walls = near
    d = x.shape[1]
    u, v, met = np.empty(d + 1), np.empty(d + 1), np.empty(d + 1)
    start, begin, end = np.empty((1, d)), np.empty((1, d)), np.empty((1, d))
    foot, across, whole = np.empty((1, d)), np.empty(d), np.empty((1, d))
    places, fences = grid
    for i in range(x.shape[0]):
        exits[i] = -1
        square = square_of(places, x, i)
        if passes(fences, square, x, dx, i):
            for k in range(d):
                x[i, k] += dx[i, k]
            cells[i] = -1
            continue
        if cells[i] < 0:
            cells[i] = locate(places, origin, inverse, x, i, square, u)
            if cells[i] < 0:
                return i
        cell = first = cells[i]
        for k in range(d):
            start[0, k] = begin[0, k] = x[i, k]
            end[0, k] = whole[0, k] = x[i, k] + dx[i, k]
        length = 0.0
        for k in range(d):
            length += dx[i, k] * dx[i, k]
        free = clearance[cell] > 0.0 and length < clearance[cell] * clearance[cell]
        inside = False
        for _ in range(_SHORT):  # no wall is in reach: towards the end, whatever lies between
            coordinates_in(origin, inverse, cell, end, 0, v)
            low, least = 0, v[0]
            for k in range(1, d + 1):
                if v[k] < least:
                    low, least = k, v[k]
            inside = least >= -INSIDE
            if inside or not free or neighbours[cell, low] < 0:
                break
            cell = neighbours[cell, low]
        if not inside:
            cell = first
        travelled, turns = 0.0, 0
        while not inside:
            cell, s, wall = follow(origin, inverse, neighbours, begin, end, 0, cell, u, v, met)
            if wall < -1:
                return i
            if wall == -1:
                break
            travelled += (1.0 - travelled) * s
            for k in range(d):
                begin[0, k] += s * (end[0, k] - begin[0, k])
            if partners[wall] >= 0:
                for k in range(d):
                    begin[0, k] += shifts[wall, k]
                    end[0, k] += shifts[wall, k]
                cell = wall_cells[partners[wall]]
                continue
            if absorbing[wall]:
                exits[i], when[i] = wall, travelled
                break
            turns += 1
            if turns > REFLECTIONS:
                for k in range(d):
                    end[0, k] = begin[0, k]
                break
            beyond = -_distance(normals, corners, wall, end)
            along = _towards(a, i, normals, wall, across)
            for k in range(d):
                if along > 0.0:
                    end[0, k] -= 2.0 * beyond / along * across[k]
                else:  # no noise towards this wall: the drift's part of it is lost
                    end[0, k] -= beyond * normals[wall, k]
        hits[i] += turns

        lower, upper = near_first[first], near_first[first + 1]
        if lower < upper and turns == 0:
            least = 1.0
            if exits[i] < 0:
                least = chance[i, 0]
            for p in range(lower, upper):
                w = near_walls[p]
                if exits[i] >= 0 and w != exits[i]:
                    continue
                d0 = _distance(normals, corners, w, start)
                d1 = _distance(normals, corners, w, whole)
                if a.shape[0] > 0:
                    spread = _towards(a, i, normals, w, across)
                else:
                    spread = variance[i]
                if not (spread > 0.0 and d0 > 0.0):
                    continue
                if exits[i] < 0:
                    if d1 <= 0.0:
                        continue
                    touched = math.exp(-2.0 * d0 * d1 / spread)
                    if not touched > 0.0:
                        continue
                    if not _beside(mesh, walls, periods, w, start, whole, d0, d1, foot, u):
                        continue
                    if least >= touched:
                        least = (least - touched) / (1.0 - touched)
                        continue
                    exits[i] = w
                when[i] = _hitting_time(d0, abs(d1), spread, chance[i, 2], chance[i, 1])
                break
        if exits[i] >= 0:
            w = exits[i]
            for k in range(d):
                foot[0, k] = begin[0, k]
                if turns == 0:
                    foot[0, k] = start[0, k] + when[i] * (whole[0, k] - start[0, k])
            _bring(origin, wall_cells[w], periods, foot)
            far = _distance(normals, corners, w, foot)
            for k in range(d):
                x[i, k] = foot[0, k] + far * normals[w, k]
            cells[i] = wall_cells[w]
        else:
            for k in range(d):
                x[i, k] = end[0, k]
            cells[i] = cell
    return -1
