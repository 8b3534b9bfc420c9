r"""The density of the reversed ODE, by characteristics from a grid of points back to the noise.

.. math:: \dot X = f - \tfrac12g^2\hat s,\quad X(t_0) = x,\qquad
    \hat p(x) = q(X(t_1))\,J,\quad \tfrac{d}{dt}\log J = \nabla\cdot(f - \tfrac12g^2\hat s)

with q the density of the noise. The mass of a cell is that of its image under q. Where the flow of
the sampler collapses, J varies by orders of magnitude inside a cell: the integral of the pointwise
density over the cell is then not the mass of the cell, which is how it is seen.
"""

from collections.abc import Callable
from dataclasses import dataclass

import basix
import numpy as np

from fpcontrol.characteristics.flow import carry
from fpcontrol.characteristics.markers import Markers
from fpcontrol.discretization.boundary import Wall
from fpcontrol.discretization.elements import Elements
from fpcontrol.noising.reversal import Reversal
from fpcontrol.typing import Array

# Of a cell, relative: how far its mass and the integral of the pointwise density over it may be
# apart for log-determinants to be believed; and what is too little to be asked for.
AGREEMENT, NEGLIGIBLE = 0.5, 1e-12
IMAGE_DEGREE = 16  # of the rule for the masses of images of cells
_SIMPLEX = {1: basix.CellType.interval, 2: basix.CellType.triangle, 3: basix.CellType.tetrahedron}


@dataclass(frozen=True)
class CarriedBack:
    """The density of an ODE at the quadrature points of a mesh.

    Attributes:
        values: Density at the points, ``(N,)``: pointwise where cells are resolved, elsewhere the
            mean of the cell.
        nodes: At the vertices of this rank's part, ``(n_local,)``, in the same way.
        masses: Of cells, ``(n_cells,)``: those of their images.
        resolved: Whether the pointwise density gives a cell's mass, ``(n_cells,)``.
        collapsed_mass: Mass of all cells that are not resolved.
        outside: Mass that does not come to lie in the mesh.
        steps: Steps that were taken.
    """

    values: Array
    nodes: Array
    masses: Array
    resolved: Array
    collapsed_mass: float
    outside: float
    steps: int


def carried_back(
    g: Elements,
    drift: Reversal,
    q: Callable[[Array], Array],
    *,
    t0: float,
    tolerance: float,
    walls: bool,
) -> CarriedBack:
    """Density of the ODE at the points of ``g``, of degree 1. Collective.

    Args:
        g: Linear elements; their quadrature points and vertices are carried.
        drift: The reversal without noise.
        q: Density of the noise, ``(N, d)`` to ``(N,)``.
        t0: Noising time at which the reversal ends.
        tolerance: Relative and absolute one of ``carry``.
        walls: Whether walls are the process's own, at which a drift must be tangent.

    Raises:
        ValueError: On all ranks, for a score that is not known everywhere.
        RuntimeError: On all ranks, if the tolerance cannot be met.
    """
    t1 = drift.process.t1
    n, d = g.n_local, g.dimension
    x = np.concatenate([g.space.tabulate_dof_coordinates()[:n, :d], g.points])
    ones = np.ones(len(x))
    flow = carry(
        Markers(g.comm, x, ones, ones, Wall.of(g.mesh)),
        -drift.reversed_in_time(t1),
        [t0, t1],
        rtol=tolerance,
        atol=tolerance,
        walls=walls,
    )
    last = flow.positions[-1]
    rho = q(last) * np.exp(flow.log_jacobian[-1])
    nodes, values = rho[:n], rho[n:].reshape(g.n_points, g.n_cells)
    weights = g.quadrature_weights.reshape(values.shape)
    masses = _image_masses(x[g.dofs], last[g.dofs], q)
    pointwise = (weights * values).sum(axis=0)
    larger = np.maximum(masses, pointwise)
    resolved = np.abs(masses - pointwise) <= AGREEMENT * larger + NEGLIGIBLE
    # A cell whose image is turned over has no mass of its own.
    means = np.where(masses > 0.0, masses, pointwise) / weights.sum(axis=0)
    return CarriedBack(
        np.where(resolved, values, means).ravel(),
        _at_nodes(g, nodes, means, resolved),
        masses,
        resolved,
        g.sum(float(np.abs(masses[~resolved]).sum())),
        1.0 - g.sum(float(masses.sum())),
        flow.steps,
    )


def _image_masses(start: Array, end: Array, q: Callable[[Array], Array]) -> Array:
    """Masses of the straight images of cells with corners ``(d + 1, n_cells, d)``.

    Negative where the image is turned over: then the cell is too coarse for the flow.
    """
    d = start.shape[2]
    hat, w = basix.make_quadrature(_SIMPLEX[d], IMAGE_DEGREE)
    before, after = (np.linalg.det((x[1:] - x[0]).transpose(1, 0, 2)) for x in (start, end))
    signed = after * np.sign(before)
    shares = np.column_stack([1.0 - hat.sum(axis=1), hat])
    total = np.zeros(len(signed))
    for share, weight in zip(shares, w, strict=True):
        total += weight * q(np.einsum("v,vnd->nd", share, end))
    return total * signed


def _at_nodes(g: Elements, nodes: Array, means: Array, resolved: Array) -> Array:
    """Pointwise densities at vertices, means of cells around those of cells not resolved."""
    sums, counts = g.vector(), g.vector()
    parts = np.broadcast_to(np.where(resolved, 0.0, means), g.dofs.shape)
    sums.array[: g.n_owned] = g.assemble(np.ascontiguousarray(parts))
    parts = np.broadcast_to(np.where(resolved, 0.0, 1.0), g.dofs.shape)
    counts.array[: g.n_owned] = g.assemble(np.ascontiguousarray(parts))
    for v in (sums, counts):
        v.scatter_forward()
    return np.where(counts.array > 0.0, sums.array / np.maximum(counts.array, 1.0), nodes)
