r"""A grid over a mesh that says at once how far walls are, and which cells hold a point.

A step that meets no wall needs no cell: its end is inside, whatever lies between. Far from walls
its length says so. Near them the few facets are asked that are not farther than it is long: it may
meet one only if it ends beyond its plane, and where it passes the plane is in the smallest ball
around the facet's centroid. Only what may meet a wall has to be found, in the cells that meet its
square, and followed from cell to cell.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy

from fpcontrol.discretization.walks import STARTS, compiled, coordinates_in
from fpcontrol.typing import Array

SQUARES = 4.0  # for a cell, in the mean
MOST = 16.0  # for a cell: bounds the memory where the bounding box is mostly empty
TRIED = 128.0  # that a cell may meet, in the mean: less where long cells lie askew
LISTED = 32.0  # walls of all squares, for a cell
_WIDER = 1e-9  # of the longest side, by which cells and walls are enlarged: round-off
_AT_ONCE = 500_000  # pairs
_LESS = 1.0 - 1e-6  # lengths are kept in single precision


@dataclass(frozen=True)
class Grid:
    """Squares, or intervals or cubes, by rows; their number is the product of ``counts``.

    Attributes:
        low: The corner, ``(d,)``.
        side: Of a square.
        counts: Squares along each axis, ``(d,)``.
        first, cells: The cells that meet square ``q`` are ``cells[first[q]:first[q + 1]]``.
        clearance: What each point of a square is away from all walls at least; 0 near walls; -1
            where steps have to be followed all the same.
        wider: What distances are trusted to.
        reach: Length of the steps that the lists of walls are made for.
        starts, walls: Those nearer to a square than that, ``walls[starts[q]:starts[q + 1]]``.
        gaps: How far each of these is at least, ascending in a square.
        facets: Of each wall the outward normal, its product with the points of the wall, the
            centroid, and the radius of a ball around that with all of it, ``(walls, 2 d + 2)``.
    """

    low: Array
    side: float
    counts: Array
    first: Array
    cells: Array
    clearance: Array
    facets: Array
    wider: float
    reach: float
    starts: Array
    walls: Array
    gaps: Array

    @classmethod
    def of(cls, corners: Array, walls: Array, normals: Array) -> "Grid":
        """That of simplices with facets that are walls, without lists of these.

        Args:
            corners: Vertices, ``(cells, d + 1, d)``.
            walls: Vertices of the facets, ``(walls, d, d)``.
            normals: Their outward unit normals, ``(walls, d)``.
        """
        low, high = corners.min(axis=(0, 1)), corners.max(axis=(0, 1))
        cells, _, d = corners.shape
        edges = corners[:, 1:] - corners[:, :1]
        volume = np.abs(np.linalg.det(edges)).sum() / max(1.0, d * (d - 1.0))  # d! for d <= 3
        h = float((volume / (SQUARES * cells)) ** (1.0 / d))
        extents = np.ptp(corners, axis=1)
        while (
            np.prod(np.ceil((high - low) / h)) > MOST * cells
            or np.prod(extents / h + 2.0, axis=1).sum() > TRIED * cells
        ):
            h *= 1.1
        counts = np.maximum(np.ceil((high - low) / h).astype(np.int64), 1)
        wider = _WIDER * float((high - low).max())
        box = low, h, counts, wider
        slopes = np.linalg.inv(edges).transpose(0, 2, 1)  # of barycentric coordinates
        slopes = np.concatenate([-slopes.sum(axis=1, keepdims=True), slopes], axis=1)
        heights = -np.einsum("nkj,nkj->nk", slopes, corners[:, [1, *([0] * d)]])
        which, squares = _meeting(corners, slopes, heights, box)
        order = np.lexsort((which, squares))
        centres = walls.mean(axis=1)
        radii = np.linalg.norm(walls - centres[:, None], axis=2).max(axis=1)
        offsets = np.einsum("nj,nj->n", normals, walls[:, 0])
        facets = np.column_stack([normals, offsets, centres, radii + 100.0 * wider])
        free = np.ones(counts, dtype=bool)
        free.ravel()[_meeting(walls, *_slabs(facets), box)[1]] = False
        away = scipy.ndimage.distance_transform_edt(free) if len(walls) else np.full(counts, np.inf)
        clearance = np.maximum(h * (away.ravel() - np.sqrt(d)), 0.0) * _LESS
        none = np.zeros(clearance.size + 1, dtype=np.int32)
        return cls(
            low,
            h,
            counts,
            np.searchsorted(squares[order], np.arange(clearance.size + 1)).astype(np.int32),
            which[order].astype(np.int32),
            clearance.astype(np.float32),
            facets,
            wider,
            0.0,
            none,
            none[:0],
            np.empty(0, dtype=np.float32),
        )

    def with_walls(self, reach: float) -> "Grid":
        """The same with lists of the walls that steps up to a length may meet, or shorter ones."""
        d, h = len(self.low), self.side
        centres, radii = self.facets[:, d + 1 : -1], self.facets[:, -1]
        while True:
            spans = np.ceil(2.0 * (radii + reach) / h) + 1.0
            if (spans**d).sum() <= LISTED * len(self.cells) or reach < h:
                break
            reach *= 0.7
        ends = np.stack([centres - radii[:, None], centres + radii[:, None]], axis=1)
        which, squares = _meeting(ends, *_slabs(self.facets), (self.low, h, self.counts, reach))
        inside = np.diff(self.first)[squares] > 0
        which, squares = which[inside], squares[inside]
        places = np.column_stack(np.unravel_index(squares, tuple(self.counts)))
        middles = self.low + h * (places + 0.5)
        normals, offsets = self.facets[which, :d], self.facets[which, d]
        gaps = np.abs(np.einsum("nj,nj->n", normals, middles) - offsets)
        gaps = np.maximum(gaps, np.linalg.norm(middles - centres[which], axis=1) - radii[which])
        gaps = np.maximum(gaps - 0.5 * h * np.sqrt(d), 0.0) * _LESS
        near = gaps < reach
        which, squares, gaps = which[near], squares[near], gaps[near]
        order = np.lexsort((which, gaps, squares))
        which, squares, gaps = which[order], squares[order], gaps[order]
        starts = np.searchsorted(squares, np.arange(len(self.clearance) + 1))
        least = np.full(len(self.clearance), reach * _LESS)
        listed = np.flatnonzero(np.diff(starts))
        least[listed] = gaps[starts[listed]]
        return replace(
            self,
            clearance=np.maximum(self.clearance, least.astype(np.float32)),
            reach=reach * _LESS,
            starts=starts.astype(np.int32),
            walls=which.astype(np.int32),
            gaps=gaps.astype(np.float32),
        )

    def followed_in(self, cells: Array) -> "Grid":
        """The same where steps that start in some cells are followed, ``(cells,)`` of bool."""
        clearance = self.clearance.copy()
        squares = np.repeat(np.arange(len(clearance)), np.diff(self.first))
        clearance[squares[cells[self.cells]]] = -1.0
        return replace(self, clearance=clearance)

    @property
    def places(self) -> tuple[Any, ...]:
        """For ``square_of`` and ``locate``."""
        return self.low, 1.0 / self.side, self.counts, self.first, self.cells

    @property
    def fences(self) -> tuple[Any, ...]:
        """For ``passes``."""
        return (
            self.clearance,
            self.reach,
            self.wider,
            self.starts,
            self.walls,
            self.gaps,
            self.facets,
        )


def _slabs(facets: Array) -> tuple[Array, Array]:
    """Planes of facets as half-spaces: slopes ``(walls, 2, d)`` and heights ``(walls, 2)``."""
    d = facets.shape[1] // 2 - 1
    normals, offsets = facets[:, :d], facets[:, d]
    return np.stack([normals, -normals], axis=1), np.stack([-offsets, offsets], axis=1)


def _meeting(
    corners: Array, slopes: Array, heights: Array, box: tuple[Array, float, Array, float]
) -> tuple[Array, Array]:
    """Pairs of a polytope and a square that may meet: none that do is missing.

    Args:
        corners: Vertices, ``(n, vertices, d)``.
        slopes: Of planes, ``(n, k, d)``.
        heights: The polytope lies where all ``slopes @ x + heights`` are not negative, ``(n, k)``.
        box: Corner, side, and counts of the squares; by what to enlarge the polytope.
    """
    low, h, counts, wider = box
    lowest = np.floor((corners.min(axis=1) - wider - low) / h).astype(np.int64)
    highest = np.floor((corners.max(axis=1) + wider - low) / h).astype(np.int64)
    lowest, highest = np.clip(lowest, 0, counts - 1), np.clip(highest, 0, counts - 1)
    spans = highest - lowest + 1
    lengths = 0.5 * h * np.abs(slopes).sum(axis=2) + wider * np.linalg.norm(slopes, axis=2)
    heights = heights + lengths * (1.0 + _WIDER)
    total = np.cumsum(spans.prod(axis=1))
    cuts = np.searchsorted(total, np.arange(_AT_ONCE, total[-1:].sum(), _AT_ONCE), side="right")
    parts = []
    for mine in np.split(np.arange(len(corners)), np.unique(cuts)):
        sizes = spans[mine].prod(axis=1)
        which = np.repeat(mine, sizes)
        rest = np.arange(len(which)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        places = np.empty((len(which), len(low)), dtype=np.int64)
        for k in reversed(range(len(low))):
            rest, places[:, k] = np.divmod(rest, spans[which, k])
            places[:, k] += lowest[which, k]
        centres = low + h * (places + 0.5)
        most = np.einsum("nkj,nj->nk", slopes[which], centres) + heights[which]
        kept = (most >= 0.0).all(axis=1)
        squares = np.ravel_multi_index(tuple(places[kept].T), tuple(counts))
        parts.append((which[kept], squares))
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


@compiled
def square_of(places: Any, x: Any, i: int) -> int:
    """The square that holds point ``i``, or the one next to it."""
    low, scale, counts, _, _ = places
    number = 0
    for k in range(x.shape[1]):
        place = int((x[i, k] - low[k]) * scale)
        number = number * counts[k] + min(max(place, 0), counts[k] - 1)
    return number


@compiled
def passes(fences: Any, square: int, x: Any, dx: Any, i: int) -> bool:
    """Whether step ``i``, from a point in a square, meets no wall for sure."""
    clearance, reach, wider, starts, walls, gaps, facets = fences
    d, length, free = x.shape[1], 0.0, clearance[square]
    for k in range(d):
        length += dx[i, k] * dx[i, k]
    if free < 0.0:
        return False
    if length < free * free:
        return True
    if length >= reach * reach:
        return False
    for p in range(starts[square], starts[square + 1]):
        if gaps[p] * gaps[p] > length:
            break
        w = walls[p]
        before = after = facets[w, d]
        for k in range(d):
            before -= facets[w, k] * x[i, k]
            after -= facets[w, k] * (x[i, k] + dx[i, k])
        if after > wider or before < -wider:
            continue
        if before - after < 10.0 * wider:  # along the wall
            return False
        share, off = min(max(before / (before - after), 0.0), 1.0), 0.0
        for k in range(d):
            off += (x[i, k] + share * dx[i, k] - facets[w, d + 1 + k]) ** 2
        if off <= facets[w, 2 * d + 1] ** 2:
            return False
    return True


@compiled
def locate(places: Any, origin: Any, inverse: Any, x: Any, i: int, square: int, here: Any) -> int:
    """The cell that holds point ``i``, in a square: that in which it is deepest; -1 for none."""
    _, _, _, first, cells = places
    found, deepest = -1, -STARTS
    for p in range(first[square], first[square + 1]):
        cell = cells[p]
        coordinates_in(origin, inverse, cell, x, i, here)
        least = here[0]
        for k in range(1, here.shape[0]):
            least = min(least, here[k])
        if least > deepest:
            found, deepest = cell, least
            if least > STARTS:  # no other one has it
                break
    return found


@compiled
def locate_all(places: Any, origin: Any, inverse: Any, x: Any, cells: Any) -> int:
    """The cells of those that have none, ``(N,)``, in place; the number of one without, or -1."""
    here = np.empty(x.shape[1] + 1)
    for i in range(x.shape[0]):
        if cells[i] < 0:
            square = square_of(places, x, i)
            cells[i] = locate(places, origin, inverse, x, i, square, here)
            if cells[i] < 0:
                return i
    return -1
