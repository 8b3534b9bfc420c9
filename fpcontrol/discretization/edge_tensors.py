r"""Fluxes along edges for noise that is a matrix at each place.

On a cell T with D the mean over the middles of its edges, linear elements have

.. math::
    W_e^T = -|T|\,\nabla\phi_i\cdot D\,\nabla\phi_j,\qquad W_e = \sum_T W_e^T,\qquad
    F_e = W_e\,[B(-p)\rho_i - B(p)\rho_j],\qquad p = t_e\cdot D^{-1}v

with the inverse of the cells' D, not that of D on the edge, so that :math:`\sum_e W_e^T t_e\,
(t_e\cdot D^{-1}v) = |T|\,v` however much D changes. Of the cells at an edge the mean by
:math:`W_e^T` is taken. For one D everywhere this is the method with the number 1 on the mesh that
:math:`D^{-1/2}` makes of it, up to the factor :math:`\sqrt{\det D}`. So the weights are those of
its angles: :math:`-W_e^T` over :math:`|T|` and the lengths of the two gradients is the cosine
between them in that metric, and :math:`W_e\ge 0` on triangles if and only if no two angles that
face an edge have a sum above 180 degrees there. Where D is zero in a direction it is given little
noise there: :math:`W_e p` is what is left, the upwind flux.

References:
    R. D. Lazarov, L. T. Zikatanov, An exponential fitting scheme for general convection-diffusion
    equations on tetrahedral meshes, Comput. Appl. Math. 92 (2005).
    J. Xu, L. Zikatanov, A monotone finite element scheme for convection-diffusion equations, Math.
    Comp. 68 (1999).
"""

from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

from mpi4py import MPI

import numpy as np

from fpcontrol.discretization.elements import Elements
from fpcontrol.parallel.errors import reduced
from fpcontrol.typing import Array

# Eigenvalues of D over its trace, at least: of the inverse seven digits are left.
SMALLEST = 1e-9
# D over the largest, at least: where there is none at all, the method is an upwind one.
LEAST = 1e-14
# Weights over what round-off is measured by, below which they are nothing else.
ROUND_OFF = 1e-14


@dataclass(frozen=True)
class EdgeTensors:
    """What fluxes along edges are made of where D is a matrix.

    Attributes:
        weights: W of the edges, not negative, ``(N,)``, length**d per time.
        inverse: :math:`D^{-1} t`, ``(N, d)``: with the drift, p.
    """

    weights: Array
    inverse: Array

    def peclet(self, v: Array) -> Array:
        """``p`` for a drift ``(..., N, d)``."""
        result: Array = np.einsum("...nd,nd->...n", v, self.inverse)
        return result


class PointNoise(NamedTuple):
    """Noise at one time.

    Attributes:
        diffusivity: D at the points, ``(N,)`` or ``(N, d, d)``.
        drift: What is added to the drift, ``(N, d)``.
        edges: Of methods with fluxes along edges, if D is a matrix.
    """

    diffusivity: Array
    drift: Array
    edges: EdgeTensors | None = None


def pairs_of(g: Elements) -> list[tuple[int, int]]:
    """Corners of the edges of a cell."""
    return list(combinations(range(g.dimension + 1), 2))


def middles_of(g: Elements) -> Array:
    """Middles of the edges of the reference cell, ``(E, d)``."""
    corners = np.vstack([np.zeros(g.dimension), np.eye(g.dimension)])
    return np.array([0.5 * (corners[a] + corners[b]) for a, b in pairs_of(g)])


def definite(D: Array, comm: MPI.Comm) -> Array:
    """D ``(N, d, d)`` with no eigenvalue below ``SMALLEST`` of its trace. Collective."""
    trace, d = np.einsum("nkk->n", D), D.shape[-1]
    top = float(reduced(comm, np.array(trace.max(initial=0.0)), MPI.MAX))
    if not top > 0.0:  # what is refused by whoever asks
        return np.tile(np.eye(d), (len(D), 1, 1))
    least = np.maximum(SMALLEST * trace, LEAST * top)
    # The product of the others is at most the power of the trace.
    small = np.linalg.det(D) <= 2.0 * least * trace ** (d - 1)
    if not small.any():
        return D
    values, vectors = np.linalg.eigh(D[small])
    raised = vectors * np.maximum(values, least[small, None])[:, None]
    result = D.copy()
    result[small] = raised @ vectors.swapaxes(-1, -2)
    return result


def cell_weights(g: Elements, D: Array) -> tuple[Array, Array, Array]:
    """``W`` of the cells' edges, what it is a cosine of, and what round-off is measured by.

    Args:
        g: Linear elements.
        D: Of the cells, ``(n_cells, d, d)``.

    Returns:
        Three times ``(E, n_cells)``.
    """
    gradients = g.basis_gradients.reshape(g.dimension, g.n_points, -1)[:, 0]  # constant
    slopes = np.einsum("akc,ai->kic", g.inverse_jacobian, gradients)
    volumes = g.determinant * g.reference_weights.sum()
    turned = np.einsum("ckl,lic->kic", D, slopes)
    trace = np.einsum("ckk->c", D)
    lengths = np.sqrt(np.einsum("kic,kic->ic", slopes, slopes))
    inner = np.sqrt(np.maximum(np.einsum("kic,kic->ic", slopes, turned), 0.0))
    pairs = pairs_of(g)
    return (
        np.array([-volumes * np.einsum("kc,kc->c", slopes[:, i], turned[:, j]) for i, j in pairs]),
        np.array([volumes * inner[i] * inner[j] for i, j in pairs]),
        np.array([volumes * trace * lengths[i] * lengths[j] for i, j in pairs]),
    )


def shares_of(W: Array) -> Array:
    """Weights of cells for means over them at an edge: positive."""
    return np.maximum(W, 1e-12 * np.abs(W).max(initial=1e-300))


@dataclass(frozen=True)
class Cut:
    """What of the weights is negative, the same on all ranks.

    Attributes:
        clipped: Sum of the negative cosines over that of the others.
        share: Of the edges.
        least: The smallest cosine, and
        place: the middle of its edge.
        length: Of that edge.
    """

    clipped: float
    share: float
    least: float
    place: Array
    length: float


def cut(
    comm: MPI.Comm, W: Array, cosine_of: Array, size: Array, middles: Array, vectors: Array
) -> Cut:
    """What would be cut off the weights of all edges. Collective.

    Args:
        comm: Communicator of the mesh.
        W: Of the edges of this rank, ``(N,)``.
        cosine_of: What W is a cosine of, and
        size: what round-off is measured by, ``(N,)``.
        middles: Of the edges, ``(N, d)``.
        vectors: Along them, ``(N, d)``.
    """
    small = np.abs(W) <= ROUND_OFF * size
    bad = (W < 0.0) & ~small
    cosine = np.where(small, 0.0, W / np.maximum(cosine_of, 1e-300))
    parts = [np.maximum(-cosine, 0.0).sum(), np.maximum(cosine, 0.0).sum(), bad.sum(), len(W)]
    negative, positive, count, total = reduced(comm, np.array(parts, dtype=float))
    worst = int(cosine.argmin()) if len(cosine) else -1
    own = float(cosine[worst]) if worst >= 0 else np.inf
    every = comm.allgather(own)
    rank = int(np.argmin(every))
    where = (middles[worst], float(np.linalg.norm(vectors[worst]))) if comm.rank == rank else None
    place, length = comm.bcast(where, root=rank)
    return Cut(negative / max(positive, 1e-300), count / total, every[rank], place, length)
