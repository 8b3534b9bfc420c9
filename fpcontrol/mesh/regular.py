"""Regular meshes of intervals, rectangles and boxes, with walls or periodic sides."""

from collections.abc import Sequence
from numbers import Integral

from mpi4py import MPI

import dolfinx.mesh
import numpy as np
from dolfinx.mesh import Mesh
from numpy.typing import NDArray

from fpcontrol.discretization.affine import trust
from fpcontrol.mesh.identified import FEWEST, identified
from fpcontrol.parallel.errors import collective_errors

type Sides = bool | str | Sequence[bool]


def interval(
    comm: MPI.Comm,
    n: int,
    lower: float = 0.0,
    upper: float = 1.0,
    *,
    periodic: Sides = False,
) -> Mesh:
    """Interval ``(lower, upper)`` cut into equal cells, or a circle. Collective.

    Args:
        comm: Communicator the mesh is distributed over.
        n: Number of cells.
        lower: Left end.
        upper: Right end.
        periodic: Whether the ends are one: a circle of length ``upper - lower``, for an angle or a
            phase.

    Raises:
        ValueError: On all ranks, if ``n`` is below 1, or below 3 on a circle, or ``lower`` is not
            below ``upper``.
    """
    counts, corners, axes = _checked(comm, 1, (n,), (lower,), (upper,), periodic)
    if axes.any():
        return identified(comm, counts, corners, axes)
    return trust(dolfinx.mesh.create_interval(comm, counts[0], corners[:, 0], dtype=np.float64))


def rectangle(
    comm: MPI.Comm,
    n: tuple[int, int],
    lower: Sequence[float] = (0.0, 0.0),
    upper: Sequence[float] = (1.0, 1.0),
    *,
    periodic: Sides = False,
) -> Mesh:
    """Rectangle cut into ``nx * ny`` equal rectangles of two triangles each. Collective.

    Args:
        comm: Communicator the mesh is distributed over.
        n: Number of rectangles along each axis, ``(nx, ny)``.
        lower: Lower left corner.
        upper: Upper right corner.
        periodic: The axes along which opposite sides are one: ``"x"``, ``"xy"``, or a bool for
            each, ``(True, False)``, or one for both. The other sides are walls.

    Raises:
        ValueError: On all ranks, if a count is below 1, or below 3 along a periodic axis, or
            ``lower`` is not below ``upper``.
    """
    counts, corners, axes = _checked(comm, 2, n, lower, upper, periodic)
    if axes.any():
        return identified(comm, counts, corners, axes)
    return trust(dolfinx.mesh.create_rectangle(comm, corners, counts, dtype=np.float64))


def box(
    comm: MPI.Comm,
    n: tuple[int, int, int],
    lower: Sequence[float] = (0.0, 0.0, 0.0),
    upper: Sequence[float] = (1.0, 1.0, 1.0),
    *,
    periodic: Sides = False,
) -> Mesh:
    """Box cut into ``nx * ny * nz`` equal boxes of six tetrahedra each. Collective.

    Args:
        comm: Communicator the mesh is distributed over.
        n: Number of boxes along each axis, ``(nx, ny, nz)``.
        lower: Corner with the smallest coordinates.
        upper: Corner with the largest coordinates.
        periodic: The axes along which opposite sides are one, as for ``rectangle``.

    Raises:
        ValueError: On all ranks, if a count is below 1, or below 3 along a periodic axis, or
            ``lower`` is not below ``upper``.
    """
    counts, corners, axes = _checked(comm, 3, n, lower, upper, periodic)
    if axes.any():
        return identified(comm, counts, corners, axes)
    return trust(dolfinx.mesh.create_box(comm, list(corners), counts, dtype=np.float64))


def _checked(
    comm: MPI.Comm,
    dim: int,
    n: Sequence[int],
    lower: Sequence[float],
    upper: Sequence[float],
    periodic: Sides,
) -> tuple[list[int], NDArray[np.float64], NDArray[np.bool_]]:
    """Counts, both corners, ``(2, dim)``, and which axes are periodic, ``(dim,)``. Collective."""
    with collective_errors(comm):
        if not np.shape(n) == np.shape(lower) == np.shape(upper) == (dim,):
            raise ValueError(f"n, lower, upper must have {dim} entries: got {n}, {lower}, {upper}")
        for count in n:
            if not isinstance(count, Integral) or count < 1:
                raise ValueError(f"n must be made of whole numbers >= 1, not {count!r}")
        corners = np.array([lower, upper], dtype=np.float64)
        if not (np.isfinite(corners).all() and (corners[0] < corners[1]).all()):
            raise ValueError(f"lower must be below upper, both finite: got {lower} and {upper}")
        axes = _axes(dim, periodic)
        if (np.array(n)[axes] < FEWEST).any():
            raise ValueError(
                f"n = {n!r}: along a periodic axis {FEWEST} cells or more are needed, or two "
                "would have the same nodes."
            )
    return [int(count) for count in n], corners, axes


def _axes(dim: int, periodic: Sides) -> NDArray[np.bool_]:
    """Which axes are periodic, ``(dim,)``."""
    names = "xyz"[:dim]
    if isinstance(periodic, str):
        if set(periodic) <= set(names) and len(set(periodic)) == len(periodic):
            return np.array([name in periodic for name in names])
    elif isinstance(periodic, bool | np.bool_):
        return np.full(dim, bool(periodic))
    elif np.shape(periodic) == (dim,) and np.asarray(periodic).dtype == bool:
        return np.array(periodic)
    raise ValueError(
        f"periodic = {periodic!r} must be True or False, {dim} of these, or names of axes made of "
        f"{names!r}, each once."
    )
