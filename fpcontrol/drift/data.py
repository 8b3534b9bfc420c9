"""Drifts from finite-element data: a vector-valued Function on the equation's mesh."""

from typing import Any

import numpy as np
from dolfinx import fem

from fpcontrol.discretization.cells import Cells
from fpcontrol.discretization.elements import Elements
from fpcontrol.discretization.locate import OwnCells
from fpcontrol.discretization.replica import Replica
from fpcontrol.drift.base import Drift, OnCells, SamplePoints
from fpcontrol.typing import Array


def data(function: fem.Function) -> "DataDrift":
    """The steady drift that a vector-valued dolfinx Function gives, of any element.

    It is evaluated in its own cells, exactly. Where it jumps from cell to cell (DG), ``Monotone()``
    takes the value of one cell beside each edge. Collective: ghosts are brought up to date.

    Args:
        function: As many components as the mesh has dimensions (a scalar one in 1-D), length per
            time. A copy is taken.

    Raises:
        ValueError: For what is no such Function; later, on all ranks, if it lives on another mesh
            than the equation.
    """
    if not isinstance(function, fem.Function):
        raise ValueError(
            f"function, a {type(function).__name__}, is no dolfinx Function; a callable is a drift "
            "as it is, or fpc.drift.Steady(f)."
        )
    space = function.function_space
    d, shape = space.mesh.topology.dim, tuple(space.element.value_shape)
    if shape != (d,) and not (d == 1 and shape == ()):
        kind = f"of shape {shape}" if shape else "scalar"
        raise ValueError(
            f"function = {function.name!r} is {kind}; a drift in {d}-D needs {d} components."
            + (" Of a potential: fpc.drift.gradient." if not shape else "")
        )
    return DataDrift(function)


class DataDrift(Drift):
    """A steady drift on a mesh; see ``data``.

    Attributes:
        function: The copy.
    """

    def __init__(self, function: fem.Function) -> None:
        self.function = function.copy()
        self.function.x.scatter_forward()
        self._mesh = function.function_space.mesh
        self._search = OwnCells(self._mesh)

    def piece(self, t: float) -> int:
        """One piece for all times."""
        return 0

    @property
    def steady(self) -> bool:
        """True."""
        return True

    @property
    def everywhere(self) -> bool:
        """False: a rank knows it in its own cells."""
        return False

    def __call__(self, t: float, x: Array) -> Array:
        """Drift at points, ``(N, d)`` to ``(N, d)``; ``t`` is not used. Not collective.

        Raises:
            ValueError: On this rank, for points in no cell that it owns.
        """
        cells = self._search.holding(x)
        if (missing := np.flatnonzero(cells < 0)).size:
            raise ValueError(
                f"{missing.size} of {len(x)} points lie in no cell owned by rank "
                f"{self._mesh.comm.rank}, the first at {x[missing[0]]}: the drift is known on its "
                "mesh."
            )
        return self._values(cells, x)

    def at_points(self, t: float, where: SamplePoints) -> Array:
        """Drift at the points of a discretization, ``(N, d)``, without a search in its cells."""
        g: Any = getattr(where, "elements", where)
        if not isinstance(g, Elements):
            return self(t, where.points)
        if g.mesh._cpp_object != self._mesh._cpp_object:
            raise ValueError(
                f"The drift {self.function.name!r} lives on another mesh than the equation; bring "
                "it there first (dolfinx: Function.interpolate_nonmatching)."
            )
        x = where.points
        if x is not g.points:  # along edges
            return self(t, x)
        # As discretizations have them: the first point of all cells, then the second.
        return self._values(np.tile(np.arange(g.n_cells), g.n_points), x)

    def on_cells(self, cells: Cells) -> OnCells:
        """Drift at points in any cells, of values gathered once. Collective.

        Raises:
            ValueError: On all ranks, for elements that are no Lagrange ones.
        """
        space, values = self.function.function_space, self.function.x.array
        d = space.mesh.topology.dim
        if space.mesh._cpp_object != cells.mesh._cpp_object:
            raise ValueError(
                f"The drift {self.function.name!r} lives on another mesh than the particles; bring "
                "it there first (dolfinx: Function.interpolate_nonmatching)."
            )
        if space.ufl_element().family_name != "P":
            raise ValueError(
                f"The drift {self.function.name!r} is of {space.ufl_element()}; at points that "
                "move it must be of Lagrange elements: interpolate it into such a space first."
            )
        replica = Replica(space, cells)  # its degrees of freedom are blocks of d numbers
        rows = replica.gather(*values.reshape(-1, d).T)
        return lambda t, x, c: replica.evaluate(rows, c, cells.shares(c, x)[:, 1:])[0].T

    def _values(self, cells: Array, x: Array) -> Array:
        points = np.zeros((len(x), 3))
        if not len(x):
            return np.zeros(x.shape)
        points[:, : x.shape[1]] = self._search.brought(cells, x)
        return self.function.eval(points, cells.astype(np.int32)).reshape(x.shape)
