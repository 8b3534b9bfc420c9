r"""Meshes with sides that are identified in pairs: a circle, a cylinder, a torus.

The topology is that of the quotient: a node on two identified sides is one node, and so are facets
and degrees of freedom; nothing is a boundary there. The geometry is that of the ordinary mesh,
where every cell keeps its own corners, and the nodes of those sides are there twice.

So all that works cell by cell needs to know nothing of it. What asks where a point is, or for one
place of a degree of freedom, asks here: ``wrapped`` brings points home by whole periods,
``nearest_image`` makes differences of places the shortest ones, and ``flat_space`` and
``flattened`` give the same on the ordinary mesh, for what has to lie flat: files, and searches of
other libraries.
"""

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from dolfinx import fem
from dolfinx.mesh import Mesh
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from fpcontrol.typing import Array

# Points within this part of a period below the upper side are on it, and so on the lower one;
ON_SIDE = 1e-12
# or within the round-off of coordinates far from the origin.
ROUND_OFF = 16.0 * np.finfo(float).eps
# Values at two identified sides that differ by more than this part of the largest are a jump.
JUMP = 1e-3

_known: "weakref.WeakKeyDictionary[Mesh, Periodic]" = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class Periodic:
    """What is periodic in a mesh of a box.

    Attributes:
        axes: Whether each axis is periodic, ``(d,)``.
        counts: Numbers of cells along the axes.
        lower: Corner of the box with the smallest coordinates, ``(d,)``.
        lengths: Sides of the box, ``(d,)``: the periods of the axes that are periodic.
        flat: The ordinary mesh of the same cells, on the same ranks.
        cells: Number in ``flat`` of each of this rank's cells, ghosts too.
    """

    axes: NDArray[np.bool_]
    counts: tuple[int, ...]
    lower: Array
    lengths: Array
    flat: Mesh
    cells: NDArray[np.int32]

    @property
    def margins(self) -> Array:
        """Lengths that are round-off, ``(d,)``."""
        far = np.maximum(np.abs(self.lower), np.abs(self.lower + self.lengths))
        return ON_SIDE * self.lengths + ROUND_OFF * far

    @property
    def names(self) -> str:
        """Of the periodic axes, such as ``"xz"``."""
        return "".join("xyz"[k] for k in np.flatnonzero(self.axes))

    def wrapped(self, x: Array) -> Array:
        """Points ``(N, d)``, or with more columns, in the box: those on an upper side at the lower.

        A new array; by whole periods, so that points in the box stay what they are to the last bit.
        """
        y = np.array(x, dtype=complex if np.iscomplexobj(x) else float)  # complex by the real part
        for k in np.flatnonzero(self.axes):
            low, period = self.lower[k], self.lengths[k]
            turns = np.floor((y[:, k].real - low + self.margins[k]) / period)
            moved = y[:, k] - turns * period
            moved += np.maximum(low - moved.real, 0.0)  # by round-off below
            y[:, k] = np.where(turns == 0.0, y[:, k], moved)
        return y

    def nearest_image(self, v: Array) -> Array:
        """Differences of places ``(..., d)`` less whole periods: the shortest of their kind."""
        w = np.array(v, dtype=float)
        for k in np.flatnonzero(self.axes):
            w[..., k] -= self.lengths[k] * np.rint(w[..., k] / self.lengths[k])
        return w

    def images(self, x: Array) -> list[tuple[Array, Array]]:
        """Other places in the box of points ``(N, d)`` on lower sides: those on the upper sides.

        Returns:
            Numbers of points and their places ``(n, d)``, for each set of axes they move along.
        """
        found = []
        for axes in powerset(np.flatnonzero(self.axes)):
            gap = np.abs(x[:, axes] - self.lower[axes])
            rows = np.flatnonzero((gap <= self.margins[axes]).all(axis=1))
            y = x[rows]
            y[:, axes] += self.lengths[axes]
            found.append((rows, y))
        return found

    def surrounded(self, x: Array, values: Array) -> tuple[Array, Array]:
        """Scattered points ``(N, d)`` in the box, with their images within a quarter of it around.

        Returns:
            Places ``(M, d)`` and values ``(M,)``.
        """
        for k in np.flatnonzero(self.axes):
            share = (x[:, k] - self.lower[k]) / self.lengths[k]
            parts, rows = [x], [values]
            for near, turn in ((share > 0.75, -1.0), (share < 0.25, 1.0)):
                moved = x[near]
                moved[:, k] += turn * self.lengths[k]
                parts.append(moved)
                rows.append(values[near])
            x, values = np.concatenate(parts), np.concatenate(rows)
        return x, values

    def jump(self, field: Callable[[Array], Array]) -> float:
        """By how much a function of points differs on two sides that are one, over its largest.

        Looked at in some points of the sides; ``(N, d)`` to ``(N,)`` or ``(N, d)``.
        """
        d, largest, gap = len(self.axes), 0.0, 0.0
        shares = np.meshgrid(*[np.array([0.07, 0.31, 0.58, 0.89])] * (d - 1), indexing="ij")
        for k in np.flatnonzero(self.axes):
            x = np.insert(np.array(shares).reshape(d - 1, 4 ** (d - 1)), k, 0.0, axis=0).T
            x = self.lower + x * self.lengths
            other = x.copy()
            other[:, k] += self.lengths[k]
            one, two = np.asarray(field(x)), np.asarray(field(other))
            gap = max(gap, float(np.abs(one - two).max()))
            largest = max(largest, float(np.abs(one).max()), float(np.abs(two).max()))
        return gap / largest if largest > 0.0 else 0.0

    def paired(self, middles: Array, normals: Array) -> tuple[Array, Array]:
        """The other halves of facets on periodic sides.

        Args:
            middles: Their middles, ``(n, d)``.
            normals: Outward normals of any length, ``(n, d)``.

        Returns:
            Number of the facet that each is identified with, ``(n,)``, and what takes its points
            there, ``(n, d)``.
        """
        every, axis = np.arange(len(normals)), np.abs(normals).argmax(axis=1)
        shift = np.zeros(normals.shape)
        shift[every, axis] = -np.sign(normals[every, axis]) * self.lengths[axis]
        gap, other = cKDTree(middles).query(middles + shift)
        if not (other[other] == every).all() or gap.max(initial=0.0) > 1e-6 * self.lengths.max():
            raise RuntimeError("The facets of two identified sides do not fit on each other.")
        return other, shift


def powerset(numbers: Array) -> list[list[int]]:
    """All sets of one or more of some numbers."""
    return [list(c) for k in range(len(numbers)) for c in combinations(numbers.tolist(), k + 1)]


def remember(mesh: Mesh, periodic: Periodic) -> Mesh:
    """Note what is periodic in a mesh, and return it."""
    _known[mesh] = periodic
    return mesh


def periodic_of(mesh: Mesh) -> Periodic | None:
    """What is periodic in a mesh; ``None`` if nothing is."""
    return _known.get(mesh)


def wrapped(mesh: Mesh, x: Array) -> Array:
    """Points moved into the domain by whole periods, ``Periodic.wrapped``; or as they are."""
    periodic = periodic_of(mesh)
    return x if periodic is None else periodic.wrapped(x)


def nearest_image(mesh: Mesh, v: Array) -> Array:
    """Differences of places, ``Periodic.nearest_image``; or as they are."""
    periodic = periodic_of(mesh)
    return v if periodic is None else periodic.nearest_image(v)


def dof_places(space: fem.FunctionSpace) -> Array:
    """Places of the local degrees of freedom, ``(n_local, 3)``; of two the lower one."""
    return wrapped(space.mesh, space.tabulate_dof_coordinates())


def refuse_periodic(mesh: Mesh, what: str, instead: str) -> None:
    """Raise where something is not offered on meshes with periodic sides."""
    periodic = periodic_of(mesh)
    if periodic is not None:
        raise ValueError(
            f"{what} is not offered on a mesh that is periodic in {', '.join(periodic.names)}: "
            f"{instead}"
        )


def flat_space(space: fem.FunctionSpace) -> fem.FunctionSpace:
    """The same elements on the ordinary mesh; the space itself if nothing is periodic. Collective.

    A Function there has two values, which agree, where one on ``space`` has one.
    """
    periodic = periodic_of(space.mesh)
    if periodic is None:
        return space
    return fem.functionspace(periodic.flat, space.ufl_element())


def flattened(f: fem.Function, space: fem.FunctionSpace) -> fem.Function:
    """A Function in the space that ``flat_space`` made of its own. Collective."""
    if periodic_of(f.function_space.mesh) is None:
        return f
    result = fem.Function(space, name=f.name, dtype=f.x.array.dtype)
    flatten_into(f, result)
    return result


def flatten_into(f: fem.Function, out: fem.Function) -> None:
    """Write a Function's values into one of its flat space. Not collective: ghosts are known."""
    if out is f:
        return
    own = f.function_space
    periodic, block = periodic_of(own.mesh), own.dofmap.index_map_bs
    assert periodic is not None
    theirs = out.function_space.dofmap.list[periodic.cells]
    out.x.array.reshape(-1, block)[theirs] = f.x.array.reshape(-1, block)[own.dofmap.list]


def unflatten_into(f: fem.Function, out: fem.Function) -> None:
    """Write a Function of a flat space, the same at identified nodes, into its own. Collective."""
    own = out.function_space
    periodic, block = periodic_of(own.mesh), own.dofmap.index_map_bs
    assert periodic is not None
    theirs = f.function_space.dofmap.list[periodic.cells]
    out.x.array.reshape(-1, block)[own.dofmap.list] = f.x.array.reshape(-1, block)[theirs]
    out.x.scatter_forward()
