"""Regular meshes of intervals, rectangles and boxes."""

from collections.abc import Sequence
from numbers import Integral

from mpi4py import MPI

import dolfinx.mesh
import numpy as np
from dolfinx.mesh import Mesh
from numpy.typing import NDArray

from fpcontrol.discretization.affine import trust
from fpcontrol.parallel.errors import collective_errors


def interval(comm: MPI.Comm, n: int, lower: float = 0.0, upper: float = 1.0) -> Mesh:
    """Interval ``(lower, upper)`` cut into equal cells. Collective.

    Args:
        comm: Communicator the mesh is distributed over.
        n: Number of cells.
        lower: Left end.
        upper: Right end.

    Raises:
        ValueError: On all ranks, if ``n`` is below 1 or ``lower`` is not below ``upper``.
    """
    counts, corners = _checked(comm, 1, (n,), (lower,), (upper,))
    return trust(dolfinx.mesh.create_interval(comm, counts[0], corners[:, 0], dtype=np.float64))


def rectangle(
    comm: MPI.Comm,
    n: tuple[int, int],
    lower: Sequence[float] = (0.0, 0.0),
    upper: Sequence[float] = (1.0, 1.0),
) -> Mesh:
    """Rectangle cut into ``nx * ny`` equal rectangles of two triangles each. Collective.

    Args:
        comm: Communicator the mesh is distributed over.
        n: Number of rectangles along each axis, ``(nx, ny)``.
        lower: Lower left corner.
        upper: Upper right corner.

    Raises:
        ValueError: On all ranks, if a count is below 1 or ``lower`` is not below ``upper``.
    """
    counts, corners = _checked(comm, 2, n, lower, upper)
    return trust(dolfinx.mesh.create_rectangle(comm, corners, counts, dtype=np.float64))


def box(
    comm: MPI.Comm,
    n: tuple[int, int, int],
    lower: Sequence[float] = (0.0, 0.0, 0.0),
    upper: Sequence[float] = (1.0, 1.0, 1.0),
) -> Mesh:
    """Box cut into ``nx * ny * nz`` equal boxes of six tetrahedra each. Collective.

    Args:
        comm: Communicator the mesh is distributed over.
        n: Number of boxes along each axis, ``(nx, ny, nz)``.
        lower: Corner with the smallest coordinates.
        upper: Corner with the largest coordinates.

    Raises:
        ValueError: On all ranks, if a count is below 1 or ``lower`` is not below ``upper``.
    """
    counts, corners = _checked(comm, 3, n, lower, upper)
    return trust(dolfinx.mesh.create_box(comm, list(corners), counts, dtype=np.float64))


def _checked(
    comm: MPI.Comm, dim: int, n: Sequence[int], lower: Sequence[float], upper: Sequence[float]
) -> tuple[list[int], NDArray[np.float64]]:
    """Counts, and the two corners as an array of shape ``(2, dim)``. Collective."""
    with collective_errors(comm):
        if not np.shape(n) == np.shape(lower) == np.shape(upper) == (dim,):
            raise ValueError(f"n, lower, upper must have {dim} entries: got {n}, {lower}, {upper}")
        for count in n:
            if not isinstance(count, Integral) or count < 1:
                raise ValueError(f"n must be made of whole numbers >= 1, not {count!r}")
        corners = np.array([lower, upper], dtype=np.float64)
        if not (np.isfinite(corners).all() and (corners[0] < corners[1]).all()):
            raise ValueError(f"lower must be below upper, both finite: got {lower} and {upper}")
    return [int(count) for count in n], corners
