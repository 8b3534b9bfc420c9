"""What tells one density from another in the fingerprint of a problem."""

from mpi4py import MPI

import numpy as np

from fpcontrol.typing import Array

# Unequal components: the mirror images and the turned images of a density on an interval, a square
# or a cube have other moments.
DIRECTION = np.array([1.0, 0.6, 0.3])


def moment(comm: MPI.Comm, y: Array, masses: Array) -> float:
    r"""A moment that tells a density from its mirror images, which have the same L2 norm.

    .. math:: \int e^{a\cdot y}\rho\,dx,\qquad a = (1, 0.6, 0.3)

    Collective.

    Args:
        comm: Communicator the points are distributed over.
        y: Points of this rank in the coordinates of ``NetworkDrift.scaled``, ``(d, N)``.
        masses: Density times quadrature weight at each, ``(N,)``.
    """
    return float(comm.allreduce(float(np.exp(DIRECTION[: len(y)] @ y) @ masses)))
