"""Noise of a method with fluxes along edges: a number at each edge, or a matrix."""

from mpi4py import MPI

import numpy as np

from fpcontrol.discretization import flux_functions
from fpcontrol.discretization.cell_noise import CellNoise
from fpcontrol.discretization.edge_tensors import LEAST, Cut, PointNoise, middles_of
from fpcontrol.discretization.edges import Edges
from fpcontrol.discretization.elements import Elements
from fpcontrol.noise import SHARES, Noise
from fpcontrol.parallel.errors import collective_errors, reduced

# Share of edge weights that may be cut off: in proportion to it is the error, which for numbers is
# said aloud, and for matrices, where it is soon of order one, refused.
CLIPPED = 1e-4
# D at an end over that at the other one, down to which their mean is the logarithmic one.
ALIKE = 1e-2


def edge_noise(
    elements: Elements, edges: Edges, cells: CellNoise, noise: Noise, t: float
) -> PointNoise:
    r"""D of the edges, ``(N,)`` or ``(N, d, d)``, and the drift that noise adds, ``(N, d)``.

    Collective. For numbers, with D the logarithmic mean of the ends and
    :math:`c\cdot t_e = s\,(D_i - D_j)`, s = 1 for Ito, 1/2 for Stratonovich, nodal values of
    :math:`D^{-s}` have no flux, to round-off where ``flux="bernoulli"``. For the divergence
    form D is the mean of the cells at an edge, and :math:`c = 0`. Where D is zero at a node
    it is the arithmetic mean: with none at all the node would keep what comes. For matrices see
    ``edge_tensors``.

    Raises:
        ValueError: On all ranks, as ``Noise.values``, and for matrices on a mesh where fluxes
            along edges would be against the gradient, and the density negative.
    """
    share = SHARES[noise.interpretation]
    by_nodes = share and noise.by_place
    with collective_errors(elements.comm):
        sigma = (cells.corners if by_nodes else cells.middles)(noise, t)
    matrices = float(sigma.ndim > (2 if by_nodes else 1))
    most, fewest = reduced(elements.comm, np.array([matrices, -matrices]), MPI.MAX)
    if most != -fewest:
        raise ValueError(f"{noise} returns values of different shapes on different ranks.")
    if matrices:
        return _by_direction(elements, edges, cells, noise, t)
    if not by_nodes:
        D, drift = edges.mean(0.5 * sigma**2), np.zeros_like(edges.middles)
    else:
        nodes = np.zeros(elements.n_local)
        nodes[elements.dofs] = 0.5 * sigma**2
        one, two = nodes[edges.ends]
        alike = np.minimum(one, two) >= ALIKE * np.maximum(one, two)
        D = np.where(alike, flux_functions.logarithmic_mean(one, two), 0.5 * (one + two))
        squares = np.einsum("nd,nd->n", edges.vectors, edges.vectors)
        drift = (share * (one - two) / squares)[:, None] * edges.vectors
    top = reduced(elements.comm, np.array(D.max(initial=0.0)), MPI.MAX)
    return PointNoise(np.maximum(D, LEAST * float(top)), drift)


def _by_direction(
    elements: Elements, edges: Edges, cells: CellNoise, noise: Noise, t: float
) -> PointNoise:
    """Of matrices. Collective."""
    D, drift = cells.at_places(noise, t, middles_of(elements))
    tensors, at_edges, at_edges_drift, cut = edges.tensors(D, drift)
    if cut.clipped > CLIPPED:
        raise ValueError(_refused(noise, cut))
    return PointNoise(at_edges, at_edges_drift, tensors)


def _refused(noise: Noise, cut: Cut) -> str:
    return (
        f"{noise} is by direction, and Monotone() has fluxes along edges: on this mesh "
        f"{cut.share:.2g} of the edges would have them against the gradient, and the density "
        f"negative. The worst is at x = {np.round(cut.place, 4)}, of length {cut.length:.3g}: the "
        f"cosine of what faces it is {cut.least:.2g} in the metric of the noise, and should not be "
        "negative. Take a mesh whose edges follow the noise, or one that is stretched by it (edges "
        "longer along the larger noise), or Galerkin()."
    )
