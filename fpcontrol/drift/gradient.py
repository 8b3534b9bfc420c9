"""Drifts that are gradients of a potential."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import basix
import numpy as np
from dolfinx import fem

from fpcontrol.discretization.cells import Cells
from fpcontrol.discretization.edges import Edges
from fpcontrol.discretization.elements import Elements
from fpcontrol.discretization.locate import OwnCells
from fpcontrol.discretization.replica import Replica
from fpcontrol.drift.base import Drift, OnCells, SamplePoints
from fpcontrol.drift.divergence import DIFFERENCE_STEP
from fpcontrol.typing import Array

type Potential = Callable[[Array], Array] | fem.Function


def gradient(V: Potential, sign: float = -1.0, *, length: float | None = None) -> "GradientDrift":
    r"""The steady drift :math:`v = \mathrm{sign}\,\nabla V`; collective for a Function.

    ``Monotone()`` takes differences along its edges, :math:`p_e = \mathrm{sign}\,(V_j - V_i)/D`.
    With ``flux="bernoulli"`` the nodal values of :math:`e^{\mathrm{sign}\,V/D}` are then
    stationary to round-off, for any V on any mesh. ``flux="hybrid"`` and ``Galerkin()`` keep that
    density to their order only.

    Elsewhere the gradient of a Function is that of its cells, exactly. A callable is differentiated
    by central differences of order 4 with a step h of 3e-5 ``length``: off by
    :math:`h^4 |\partial^5 V|/30`, and by about ``1e-11 |V| / length`` of round-off. V is asked
    up to 2 h away from a point, beyond a wall only for points as near to it as that, which those of
    a discretization are not.

    Args:
        V: The potential, length**2 per time: callable ``V(x)`` from shape ``(N, d)`` to ``(N,)``,
            or a scalar dolfinx Function of continuous elements, of which a copy is taken.
        sign: Factor; -1: downhill, with the Gibbs density :math:`e^{-V/D}`.
        length: Scale on which V varies, for the step of differences; the size of the domain
            (volume to the power 1/d) at the points of a discretization unless given, else 1.

    Returns:
        A drift that sums, multiples and reversals keep exact on edges.

    Raises:
        ValueError: If V is neither, ``sign`` is not finite or ``length`` not positive; later, on
            all ranks, if V returns another shape or lives on another mesh than the equation.
    """
    if not isinstance(V, fem.Function) and (isinstance(V, type) or not callable(V)):
        raise ValueError(
            f"V = {V!r} is neither callable, V(x) with x of shape (N, d), nor a Function."
        )
    if isinstance(V, fem.Function):
        element = V.function_space.element
        scalar = V.function_space.dofmap.index_map_bs == 1 and element.basix_element.value_size == 1
        family = element.basix_element.family
        if not scalar or family != basix.ElementFamily.P or element.basix_element.discontinuous:
            raise ValueError(f"V = {V.name!r} must be scalar, of continuous Lagrange elements.")
    if not np.isfinite(sign):
        raise ValueError(f"sign = {sign!r} must be a finite number.")
    if length is not None and not (np.isfinite(length) and length > 0):
        raise ValueError(f"length = {length!r} must be a positive length.")
    return GradientDrift(V, float(sign), length)


class GradientDrift(Drift):
    r"""A steady drift :math:`v = \mathrm{sign}\,\nabla V`; see ``gradient``.

    Attributes:
        potential: ``V``, as it was given.
        sign: The factor.
    """

    def __init__(self, potential: Potential, sign: float, length: float | None) -> None:
        self.potential, self.sign, self._length = potential, sign, length
        self._nodes: _Nodes | None = None
        if isinstance(potential, fem.Function):
            self.potential = copy = potential.copy()
            copy.x.scatter_forward()
            space = copy.function_space
            self._nodes = _Nodes(space, OwnCells(space.mesh), sign * copy.x.array)

    def piece(self, t: float) -> int:
        """One piece for all times."""
        return 0

    @property
    def steady(self) -> bool:
        """True."""
        return True

    @property
    def everywhere(self) -> bool:
        """Whether the potential is a callable: a rank knows a Function in its own cells only."""
        return self._nodes is None

    def __call__(self, t: float, x: Array) -> Array:
        """Drift at points, ``(N, d)`` to ``(N, d)``; ``t`` is not used. Not collective.

        Raises:
            ValueError: Where the potential is a Function, on this rank, for points in no cell
                that it owns.
        """
        own = self._nodes
        if own is None:
            return self._differences(x, self._length or 1.0)
        cells = own.search.holding(x)
        if (missing := np.flatnonzero(cells < 0)).size:
            raise ValueError(
                f"{missing.size} of {len(x)} points lie in no cell owned by rank "
                f"{own.space.mesh.comm.rank}, the first at {x[missing[0]]}: V is known on its mesh."
            )
        return own.jet(cells, x)[1]

    def on_cells(self, cells: Cells) -> OnCells:
        """Drift at points in any cells; of a Function that is gathered once. Collective."""
        own = self._nodes
        if own is None:
            return super().on_cells(cells)
        replica = Replica(own.space, cells)
        u = replica.gather(own.values)
        return lambda t, x, c: replica.evaluate(u, c, cells.shares(c, x)[:, 1:])[1][0]

    def at_points(self, t: float, where: SamplePoints) -> Array:
        """Drift at the points of a discretization; along edges, differences over them."""
        g: Any = getattr(where, "elements", where)
        own, known = self._nodes, isinstance(g, Elements)
        if own is not None and known and g.mesh._cpp_object != own.space.mesh._cpp_object:
            raise ValueError("The potential V lives on another mesh than the equation.")
        edges, x = getattr(where, "edges", None), where.points
        if isinstance(edges, Edges) and x is edges.middles:
            rise = self._rise(edges, g)
            squares = np.einsum("nd,nd->n", edges.vectors, edges.vectors)
            return (rise / squares)[:, None] * edges.vectors
        if own is None:
            size = g.volume ** (1.0 / g.dimension) if known else 1.0
            return self._differences(x, self._length or size)
        if not known:
            return self(t, x)
        # As discretizations have them: the first point of all cells, then the second.
        cells = np.tile(np.arange(g.n_cells), len(x) // max(g.n_cells, 1))
        if len(cells) != len(x) or not own.hold(cells, x):
            return self(t, x)
        return own.jet(cells, x)[1]

    # -- inner parts ---------------------------------------------------------------------------

    def _rise(self, edges: Edges, g: Elements) -> Array:
        """``sign * V`` at the second ends of edges less that at the first."""
        if self._nodes is None:
            half = 0.5 * edges.vectors
            one, two = (self._at(edges.middles + s * half) for s in (-1.0, 1.0))
            return two - one
        nodes, corners = np.zeros(g.n_local), g.mesh.geometry.x[:, : g.dimension]
        every = np.arange(g.n_cells)
        for k in range(g.dimension + 1):
            x = corners[g.mesh.geometry.dofmaps[0][every, k]]
            nodes[g.dofs[k]] = self._nodes.jet(every, x)[0]
        i, j = edges.ends
        return nodes[j] - nodes[i]

    def _differences(self, x: Array, length: float) -> Array:
        h = DIFFERENCE_STEP * length
        columns = []
        for axis in np.eye(x.shape[1]):
            one, two = (self._at(x + k * h * axis) - self._at(x - k * h * axis) for k in (1, 2))
            columns.append((8.0 * one - two) / (12.0 * h))
        return np.column_stack(columns)

    def _at(self, x: Array) -> Array:
        """``sign * V`` of a callable, checked."""
        values = np.asarray(self.potential(x))
        if values.shape != (len(x),) or values.dtype.kind not in "fiu":
            raise ValueError(
                f"V(x) returned {values.dtype} values of shape {values.shape} for x of shape "
                f"{x.shape}; real values of shape ({len(x)},) are needed."
            )
        return self.sign * values


@dataclass(frozen=True)
class _Nodes:
    """``sign * V`` of a Function in the cells of this rank."""

    space: fem.FunctionSpace
    search: OwnCells
    values: Array

    def jet(self, cells: Array, x: Array) -> tuple[Array, Array]:
        """Values ``(N,)`` and gradients ``(N, d)`` at points in given cells."""
        return self.search.evaluate(self.space, self.values, cells, x)

    def hold(self, cells: Array, x: Array) -> bool:
        """Whether points lie in these cells."""
        y = self.search.reference(cells, x)
        return bool((y > -1e-9).all() and (y.sum(axis=1) < 1.0 + 1e-9).all())
