r"""Densities of the continuity equation in cells, from where points of these come from.

Along characteristics run backwards from x at the end to y at the start,

.. math:: \rho(T, x) = \rho_0(y)\,\Bigl|\det\frac{\partial y}{\partial x}\Bigr| ,

which is integrated over every cell: no marker has to be in it, and none is counted.
"""

import numpy as np
from dolfinx import fem
from dolfinx.mesh import Mesh

from fpcontrol.characteristics import Markers, carry
from fpcontrol.density import uniform
from fpcontrol.drift.base import as_drift
from fpcontrol.parallel.errors import collective_errors, reduced
from fpcontrol.particles.drawing import Pieces
from fpcontrol.typing import Array, VectorField


def carried(start: fem.Function, drift: VectorField, t1: float, mesh: Mesh) -> fem.Function:
    """The means over cells of the density that a drift makes of one at time 0. Collective.

    Args:
        start: The density at time 0, not negative.
        drift: Smooth in space, tangent or inward at the walls, see ``characteristics.carry``.
        t1: Last time.
        mesh: Of the same domain, where means are wanted; of degree 6 is the quadrature in a cell.

    Returns:
        A function of degree 0, one over length**d. Its mass, which the quadrature leaves off by its
        error, is scaled to that of ``start``.
    """
    pieces = Pieces(start)
    backward = -as_drift(drift).reversed_in_time(t1)
    markers = Markers.on_mesh(uniform(mesh, degree=1), quadrature_degree=6)
    flow = carry(markers, backward, [0.0, t1])
    with collective_errors(markers.comm):
        pieces.check()
        y = flow.markers.home(flow.positions[-1])
        rho = _at(pieces, y) * np.exp(flow.log_jacobian[-1])
    density = fem.Function(fem.functionspace(mesh, ("DG", 0)), name="density")
    n = mesh.topology.index_map(mesh.topology.dim).size_local
    masses, sizes = ((f * markers.volumes).reshape(-1, n).sum(axis=0) for f in (rho, 1.0))
    masses *= pieces.masses.sum() / reduced(markers.comm, masses.sum()[None])[0]
    density.x.array[density.function_space.dofmap.list[:n, 0]] = masses / sizes
    density.x.scatter_forward()
    return density


def _at(pieces: Pieces, x: Array) -> Array:
    """Values of a density at points anywhere, ``(N, d)`` to ``(N,)``."""
    domain = pieces.domain
    cells = domain.find(x)
    away = x - domain.origin[cells]
    periods = np.where(domain.periods > 0.0, domain.periods, np.inf)
    away -= np.where(domain.periods > 0.0, domain.periods, 0.0) * np.rint(away / periods)
    hat = np.einsum("nak,nk->na", domain.inverse[cells], away)
    return pieces.at(cells, np.column_stack([1.0 - hat.sum(axis=1), hat]))
