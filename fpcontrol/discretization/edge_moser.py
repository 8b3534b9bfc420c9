"""Moser's drift of a method with fluxes along edges."""

from mpi4py import MPI

import numpy as np

from fpcontrol.discretization.diffusion import Diffusivity, edges_of, values_of
from fpcontrol.discretization.edge_tensors import EdgeTensors
from fpcontrol.discretization.edges import Edges
from fpcontrol.discretization.flux_functions import Flux, logarithmic_mean
from fpcontrol.parallel.errors import reduced
from fpcontrol.typing import Array

# Newton steps at most; three are enough from the flux of the logarithmic mean.
NEWTON = 50
# An edge's weight over the largest, up to which it is round-off.
NOTHING = 1e-12


def edge_moser(
    edges: Edges,
    flux: Flux,
    comm: MPI.Comm,
    potential: Array,
    rho: Array,
    diffusivity: float | Diffusivity,
) -> Array:
    r"""Drift along the edges with the flux of a potential, ``(N, d)``.

    p solves :math:`D\,[B(-p)\rho_i - B(p)\rho_j] = \phi_j - \phi_i` by Newton's method; the
    left side increases with p. For matrices :math:`W_e/w_e` is in the place of D, and the drift is
    along :math:`D^{-1}t_e`.

    Raises:
        ValueError: For D = 0, and on all ranks for matrices with :math:`W_e = 0 < w_e`, where no
            edge flux has a drift.
    """
    D, tensors = values_of(diffusivity), edges_of(diffusivity)
    if tensors is None and not np.all(D > 0.0):
        raise ValueError("sigma = 0: Monotone() needs noise; use Galerkin() for this flow.")
    i, j = edges.ends
    one, two = rho[i], rho[j]
    ratio = D if tensors is None else _ratio(edges, tensors, comm)
    wanted = (potential[j] - potential[i]) / ratio
    p = np.log(two / one) + wanted / logarithmic_mean(one, two)
    for _ in range(NEWTON):
        (leaving, entering), (back, forth) = flux.both(p), flux.slopes(p)
        value = leaving * one - entering * two - wanted
        step = value / (-back * one - forth * two)
        p -= step
        if (np.abs(step) <= 1e-14 * (1.0 + np.abs(p))).all():
            break
    vectors = edges.vectors if tensors is None else tensors.inverse
    lengths = np.einsum("nd,nd->n", vectors, vectors)
    return ((p * D if tensors is None else p) / lengths)[:, None] * vectors


def _ratio(edges: Edges, tensors: EdgeTensors, comm: MPI.Comm) -> Array:
    """``W / w`` of the edges, infinite where there is no w. Collective."""
    w, W = edges.weights, tensors.weights
    top = float(reduced(comm, np.array(w.max(initial=0.0)), MPI.MAX))
    there = w > NOTHING * top
    bad = (W == 0.0) & there
    found = comm.allgather(edges.middles[int(bad.argmax())] if bad.any() else None)
    places = [x for x in found if x is not None]
    if places:
        raise ValueError(
            f"sigma is by direction, and has no flux along the edge at {np.round(places[0], 4)}, "
            "where a Moser flow has one. Use Galerkin(), or a mesh of right angles along the axes "
            "of the noise."
        )
    return np.divide(W, w, out=np.full_like(W, np.inf), where=there)
