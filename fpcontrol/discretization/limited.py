r"""A positive method of second order: Galerkin's step, limited towards the monotone one.

One step takes Galerkin's with Crank-Nicolson or SDIRK2 and the monotone method's with backward
Euler, both at the drift in its middle, and goes from the second as far towards the first as the
density stays positive (``discretization.limiter``). Where the density is resolved that is all the
way.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal, Self

from mpi4py import MPI

import numpy as np
from dolfinx import fem
from dolfinx.mesh import Mesh, MeshTags
from petsc4py import PETSc

from fpcontrol.discretization.absorbing import Walls
from fpcontrol.discretization.base import (
    Discretization,
    Filler,
    SemiDiscretization,
    StageDrift,
    TimeScheme,
)
from fpcontrol.discretization.cell_edges import CellEdges, edge_rule
from fpcontrol.discretization.diffusion import Diffusivity, values_of
from fpcontrol.discretization.edge_tensors import LEAST, PointNoise
from fpcontrol.discretization.elements import Elements, check_linear, lagrange
from fpcontrol.discretization.galerkin import Galerkin, GalerkinSystem
from fpcontrol.discretization.limiter import CellDrift, Limiter, by_cells
from fpcontrol.discretization.monotone import Monotone, MonotoneSystem
from fpcontrol.noise import Noise
from fpcontrol.parallel.errors import reduced
from fpcontrol.typing import Array


@dataclass(frozen=True)
class Limited(Discretization):
    r"""Linear elements, positive at any cell Peclet number, of order 2 where that is possible.

    Equal to ``Galerkin(1)`` with Crank-Nicolson steps (and quadrature by the middles of the cells'
    edges) as long as that leaves at every node half of what the monotone step has there; never
    negative; conservative. No mesh is too obtuse for it. Two linear systems a step. A drift that
    switches wants two to four steps a piece. With ``SDIRK2()``, three systems a step, layers that
    no step resolves are damped; all stages see the drift in the step's middle.

    Args:
        flux: Of the monotone step, see ``Monotone``.
    """

    flux: Literal["bernoulli", "hybrid"] = "bernoulli"

    def __post_init__(self) -> None:
        Monotone(self.flux)

    @property
    def degree(self) -> int:
        """1: linear elements."""
        return 1

    def of(self, space: fem.FunctionSpace) -> "LimitedSystem":
        """The method on linear elements. Collective.

        Raises:
            ValueError: On all ranks, for a space of another degree.
        """
        check_linear(space, "Limited()")
        return LimitedSystem(self, Elements(space, rule=edge_rule(space)))

    def on(self, mesh: Mesh) -> "LimitedSystem":
        """The method on a mesh. Collective."""
        return self.of(lagrange(mesh, 1))

    def refusal(self, scheme: TimeScheme) -> str | None:
        """Of all schemes but Crank-Nicolson and SDIRK2."""
        if scheme.name in ("CrankNicolson", "SDIRK2"):
            return None
        return (
            "its step, of order 2, is limited towards backward Euler's; leave the scheme out, or "
            "give CrankNicolson() or SDIRK2()."
        )

    def nodes(self, scheme: TimeScheme) -> tuple[float, ...]:
        """The middle of a step: one drift for all stages."""
        return (0.5,)


class LimitedSystem(SemiDiscretization):
    """The limited method on a mesh. Collective.

    To all but its stepper it is Galerkin's.

    Args:
        discretization: The flux.
        elements: Linear elements with the middles of the cells' edges as points.

    Attributes:
        high: Galerkin's method.
        low: The monotone method.
        limiter: Between the two.
    """

    positive: ClassVar = True

    def __init__(self, discretization: Limited, elements: Elements) -> None:
        self.discretization, self.elements = discretization, elements
        self.cell_edges = CellEdges(elements)
        self.high = GalerkinSystem(Galerkin(1), elements)
        self.low = MonotoneSystem(Monotone(discretization.flux), elements, self.cell_edges)
        self.limiter = Limiter(elements, self.cell_edges)
        self.restoration = self.high.restoration

    def with_walls(self, absorbing: Walls | None, facet_tags: MeshTags | None = None) -> Self:
        """This method, and the two that it is made of, with walls that absorb. Collective."""
        result = super().with_walls(absorbing, facet_tags)
        if result.absorbing is not None:
            result.high = self.high.with_walls(absorbing, facet_tags)
            result.low = self.low.with_walls(absorbing, facet_tags)
            result.limiter = Limiter(self.elements, self.cell_edges, result.absorbing)
        return result

    @property
    def reaction_points(self) -> Array:
        """None: its limiter keeps the mass."""
        raise ValueError(
            "reactions: Limited() keeps the mass in its limiter and takes no sources and no "
            "killing; use Galerkin() or Monotone()."
        )

    def __str__(self) -> str:
        """For messages."""
        return "degree 1, middles of the edges"

    @property
    def points(self) -> Array:
        """Middles of the edges of all cells, ``(N, d)``."""
        return self.elements.points

    @property
    def mass_values(self) -> Array:
        """Entries of the mass matrix. Collective at first use."""
        return self.high.mass_values

    @property
    def mass(self) -> PETSc.Mat:
        """The mass matrix. Collective at first use."""
        return self.high.mass

    @property
    def stiffness(self) -> PETSc.Mat:
        """The stiffness matrix. Collective at first use."""
        return self.high.stiffness

    def noise_values(self, noise: Noise, t: float) -> PointNoise:
        """Galerkin's, for both steps. Collective.

        Raises:
            ValueError: On all ranks, for matrices.
        """
        D, drift, _ = self.high.noise_values(noise, t)
        if D.ndim > 1:
            raise ValueError(
                f"{noise} is of an axis each, or a matrix: Limited() limits fluxes along edges of "
                "noise that is a number at each place only. Use Galerkin(), or Monotone() on a "
                "mesh that follows the noise."
            )
        top = reduced(self.comm, np.array(D.max(initial=0.0)), MPI.MAX)
        return PointNoise(np.maximum(D, LEAST * float(top)), drift)

    def moser_values(self, potential: Array, rho: Array, diffusivity: float | Diffusivity) -> Array:
        """Galerkin's: the limited step follows the line where it is not limited."""
        return self.high.moser_values(potential, rho, diffusivity)

    def divisors(self, rho: Array) -> Array:
        """Values at the points."""
        return self.high.divisors(rho)

    @property
    def point_weights(self) -> Array:
        """Quadrature weights, ``(N,)``."""
        return self.high.point_weights

    def at_points(self, u: Array) -> Array:
        """Values of a local array at the points, ``(N,)``."""
        return self.high.at_points(u)

    def at_points_dual(self, s: Array) -> Array:
        """Transpose of ``at_points``, owned entries. Collective."""
        return self.high.at_points_dual(s)

    def filler(self, scale: float) -> Filler:
        """Galerkin's."""
        return self.high.filler(scale)

    def source(self, dv: Array, u: Array, stage: StageDrift) -> Array:
        """Galerkin's. Collective."""
        return self.high.source(dv, u, stage)

    def sources(self, dv: Array, u: Array, stage: StageDrift) -> Array:
        """Galerkin's."""
        return self.high.sources(dv, u, stage)

    def products(self) -> "LimitedProducts":
        """New collection of products, empty."""
        return LimitedProducts(self)

    def cell_drift(self, v: Array, diffusivity: float | Diffusivity) -> CellDrift:
        """What the limiter wants to know of a drift ``v (N, d)``."""
        n = self.cell_edges.own.shape[1]
        p, D = by_cells(self.low.peclet(v, diffusivity), n), values_of(diffusivity)
        at_edges = by_cells(D, n) if isinstance(D, np.ndarray) else D
        leaving, entering = self.low.flux.both(p)
        return CellDrift(
            by_cells(v, n),
            at_edges.mean(axis=1) if isinstance(D, np.ndarray) else np.full(n, D),
            at_edges * leaving,
            at_edges * entering,
            lambda: -np.stack(self.low.flux.slopes(p), axis=-1),
        )


class LimitedProducts:
    r"""Collects the products of the three parts of a step, over ``dt``.

    Attributes:
        high: Of Galerkin's step, over ``share * dt``.
        share: The scheme's gamma.
        low: Of the monotone one.
        of_v: Dual of v in the limiter, ``(E, n_cells, d)``, but for
        of_p: what belongs to its component along the edges' vectors, ``(E, n_cells)``.
    """

    def __init__(self, system: LimitedSystem) -> None:
        self._edges = edges = system.cell_edges
        self.high, self.low = system.high.products(), system.low.products()
        self.of_v = np.zeros((*edges.own.shape, system.elements.dimension))
        self.of_p = np.zeros(edges.own.shape)
        self.share = 0.5

    def add(self, u: Array, z: Array, stage: StageDrift) -> None:
        """Take in a product of Galerkin's operator."""
        self.high.add(u, z, stage)

    def collect(self) -> Array:
        """Derivative in the drift's values, ``(N, d)``; starts anew from zero."""
        result = self.high.collect()
        result *= self.share
        result += self.low.collect()
        result += self.of_v.reshape(result.shape)
        result += self.of_p.reshape(-1, 1) * self._edges.vectors
        self.of_v[:], self.of_p[:] = 0.0, 0.0
        return result
