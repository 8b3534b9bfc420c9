"""One resolution of a comparison: a mesh, its quadrature points, the densities there."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mpi4py import MPI

import numpy as np
from dolfinx import fem
from dolfinx.mesh import Mesh

from fpcontrol import density as densities
from fpcontrol.discretization.base import Discretization
from fpcontrol.discretization.elements import Elements, lagrange
from fpcontrol.noising.noised import Noised
from fpcontrol.noising.on_mesh import NoisedOnMesh
from fpcontrol.parallel.errors import collective_errors, reduced
from fpcontrol.typing import Array

type Data = Noised | NoisedOnMesh

# Degree of the rule, by dimension: squares of densities of degree 2, and more where it is cheap.
QUADRATURE = {1: 8, 2: 4, 3: 4}
LAYER = 0.04  # of the longest side: what is this near to a wall is at the wall


@dataclass(frozen=True)
class Setting:
    """A mesh with steps in time, and the data on it.

    Attributes:
        mesh: The mesh.
        steps: Steps of the reversed equation, on the clock ``Graded``.
        data: Noised data.
        discretization: Of the equation.
        t0: Noising time at which the reversal ends.
        finest: See ``Graded``.
        noised: Whether to start from the noised data rather than from noise alone.
        tolerance: Of characteristics.
        atoms: For Wasserstein distances in 2-D and 3-D.
    """

    mesh: Mesh
    steps: int
    data: Data
    discretization: Discretization
    t0: float
    finest: float
    noised: bool
    tolerance: float
    atoms: int

    @cached_property
    def g(self) -> Elements:
        """Linear elements with the points at which all is measured. Collective at first use."""
        return Elements(lagrange(self.mesh, 1), QUADRATURE[self.mesh.topology.dim])

    @cached_property
    def constants(self) -> fem.FunctionSpace:
        """Functions that are constant in cells. Collective at first use."""
        return fem.functionspace(self.mesh, ("DG", 0))

    @cached_property
    def target(self) -> Array:
        """Density of the data at ``t0`` at the points, ``(N,)``."""
        return self.density(self.t0)

    @cached_property
    def shore(self) -> Array:
        """Whether points are near the walls of the mesh's box, ``(N,)``."""
        x = self.mesh.geometry.x[:, : self.g.dimension]
        low = reduced(self.g.comm, x.min(axis=0, initial=np.inf), MPI.MIN)
        high = reduced(self.g.comm, x.max(axis=0, initial=-np.inf), MPI.MAX)
        y = self.g.points
        near = np.minimum(y - low, high - y).min(axis=1, initial=np.inf)
        return near < LAYER * float((high - low).max())

    def density(self, t: float) -> Array:
        """Of the noised data at the points, ``(N,)``."""
        data = self.data
        if isinstance(data, Noised):
            return data.density(t)(self.g.points)
        return np.maximum(self.evaluated(data.elements.space, data.coefficients(t)), 0.0)

    def evaluated(self, space: fem.FunctionSpace, u: Array) -> Array:
        """Of a local array of a Lagrange space on the mesh at the points, ``(N,)``. Collective."""
        degree = int(space.element.basix_element.degree)
        if degree not in self._spaces:
            self._spaces[degree] = Elements(space, self.g.quadrature_degree)
        return self._spaces[degree].evaluate(u).ravel()

    @cached_property
    def _spaces(self) -> dict[int, Elements]:
        return {}

    def noise(self) -> Callable[[Array], Array]:
        """Density that the reversal starts from, where it is known everywhere."""
        process: Any = self.data.process
        d = self.g.dimension
        if isinstance(self.data, Noised):
            return self.data.density(process.t1) if self.noised else process.prior(d)
        if process.walls:
            return lambda x: np.full(len(x), 1.0 / self.g.volume)
        return process.prior(d)

    def start(self) -> fem.Function:
        """The same on the mesh, for the equation. Collective."""
        if self.noised and isinstance(self.data, NoisedOnMesh):
            return self.data.density(self.data.process.t1)
        q, d = self.noise(), self.g.dimension
        return densities.interpolate(
            self.mesh, lambda x: q(x[:d].T), discretization=self.discretization
        )

    def score(self, model: Any, t: float) -> Array:
        """Of a model at the points, ``(N, d)``; errors are raised on all ranks. Collective."""
        own = getattr(model, "at_points", None)
        x = self.g.points
        with collective_errors(self.g.comm):
            if own is not None:
                values = np.asarray(own(t, self.g))
            else:
                values = np.asarray(getattr(model, "values", model)(t, x))
            if values.shape != x.shape or not np.isfinite(values).all():
                raise ValueError(
                    f"score.values(t, x) returned shape {values.shape} for x of shape {x.shape}, "
                    f"or values that are not finite, at t = {t:g}."
                )
        return values

    def finer(self, mesh: Mesh, data: Data) -> "Setting":
        """The same with half the cells' size and half the steps' length."""
        return Setting(
            mesh,
            2 * self.steps,
            data,
            self.discretization,
            self.t0,
            self.finest,
            self.noised,
            0.1 * self.tolerance,
            2 * self.atoms,
        )
