r"""What a discretization in space is: the interface that time steps and their adjoints work with.

A ``Discretization`` is a value that a user hands in, such as ``Galerkin(degree=2)``. With a mesh it
makes a ``SemiDiscretization``, the method of lines

.. math:: M\dot\rho = -N(v, D)\,\rho ,

whose operator :math:`N` depends on the drift through its values at the points of the
discretization, and on the diffusivity. Nothing here asks N to be linear in either.
"""

import copy
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping
from typing import Any, ClassVar, NamedTuple, Protocol, Self

from mpi4py import MPI

import numpy as np
from dolfinx import fem
from dolfinx.mesh import Mesh, MeshTags
from petsc4py import PETSc

from fpcontrol.discretization.absorbing import Absorbing, Walls
from fpcontrol.discretization.cell_noise import CellNoise
from fpcontrol.discretization.diffusion import Diffusivity
from fpcontrol.discretization.edge_tensors import PointNoise
from fpcontrol.discretization.elements import Elements
from fpcontrol.discretization.reactions import Reacting
from fpcontrol.discretization.reentry import Reentry
from fpcontrol.discretization.restoration import NoRestoration
from fpcontrol.noise import Noise
from fpcontrol.typing import Array


class StageDrift(NamedTuple):
    """What drives one stage of a step.

    Attributes:
        key: Stands for the drift's values, the same on all ranks; equal keys for equal values.
        values: Gives them at the points, ``(N, d)``, with what noise adds.
        diffusivity: ``D = sigma**2/2``, length**2 per time, or what stands for it at the points.
    """

    key: Hashable
    values: Callable[[], Array]
    diffusivity: float | Diffusivity


def driven(
    key: Hashable, values: Callable[[], Array], diffusivity: float | Diffusivity
) -> StageDrift:
    """A stage of a drift that was sampled, to which noise adds its own."""
    if isinstance(diffusivity, Diffusivity):
        return StageDrift(key, lambda: values() + diffusivity.drift(), diffusivity)
    return StageDrift(key, values, diffusivity)


class TimeScheme(Protocol):
    """What a discretization asks of a time scheme."""

    @property
    def name(self) -> str:
        """Name of the scheme."""

    @property
    def positive(self) -> bool:
        """Whether it keeps a density positive, for a monotone method and every step."""

    @property
    def c(self) -> tuple[float, ...]:
        """Where in a step it asks for the drift, in units of the step."""


class Filler(Protocol):
    r"""Fills operators :math:`M + \tau N(v, D)` for one :math:`\tau`."""

    def __call__(self, v: Array, diffusivity: float | Diffusivity, out: Array) -> None:
        """Write the entries, ``(sparsity.size,)``, for a drift ``v (N, d)`` at the points."""


class DriftProducts(Protocol):
    r"""Collects :math:`-z^\top N(v, D)\,u` over stages of one drift, for its derivative in v."""

    def add(self, u: Array, z: Array, stage: StageDrift) -> None:
        """Take in the product of two local arrays at a stage; all have the same drift."""

    def collect(self) -> Array:
        """Derivative of the sum in the drift's values, ``(N, d)``; starts anew from zero."""


class Restoration(Protocol):
    r"""Gives back the mass that an inexact solve has lost.

    A solve for ``y`` from a right-hand side :math:`M r` is followed by

    .. math:: u = r + P(y - r),\qquad 1^\top M u = 1^\top M r,

    with a projection P that an exact solve does not feel.
    """

    def increment(
        self, y: Array, start: Array, gamma: float, b: float, u: Array, d: Array, out: Array
    ) -> None:
        r""":math:`d = P(y - r)/\gamma` and ``out += b d``. Collective.

        Args:
            y: What the solver gave, local.
            start: ``r``, local.
            gamma: A number.
            b: A number.
            u: State at which P is taken: ``y`` itself in a forward step, the stage in a tangent.
            d: Room for the increment.
            out: Is added to.
        """

    def transpose(self, delta: Array, gamma: float, u: Array, out: Array) -> None:
        r""":math:`P^\top\delta/\gamma`, owned entries. Collective.

        Args:
            delta: Dual vector, owned entries.
            gamma: A number.
            u: The stage, local.
            out: Room for the result, owned entries at least.
        """


class SemiDiscretization(ABC):
    """The equation discretized in space on one mesh.

    Attributes:
        discretization: The value that it was made by.
        elements: Lagrange space of the density, with integrals, norms and communication.
        restoration: See ``Restoration``.
        absorbing: The walls that absorb; ``None`` if no wall does.
        reacting: What is made and killed inside; ``None`` if nothing is.
        reentry: Where enters again what the walls take; ``None`` if it is gone.
        positive: Whether solutions are not negative; iterations must then start from the density
            before, not from an extrapolation of two.
        by_cells: Whether ``points`` are those of the cells: the first of all, then the second.
        petsc_options: What the method asks of iterative solvers, unless a user says otherwise.
    """

    positive: ClassVar[bool] = False
    by_cells: ClassVar[bool] = True
    petsc_options: ClassVar[Mapping[str, Any]] = {}
    discretization: "Discretization"
    elements: Elements
    restoration: Restoration
    absorbing: Absorbing | None = None
    reacting: Reacting | None = None
    reentry: Reentry | None = None

    def with_walls(self, absorbing: Walls | None, facet_tags: MeshTags | None = None) -> Self:
        """This method with walls that absorb, beside the one without; itself for none. Collective.

        Whoever fills operators closes their entries (``Absorbing.close``), and whoever makes
        right-hand sides projects them.

        Args:
            absorbing: A marker as ``dolfinx.mesh.locate_entities_boundary`` takes it, or tags.
            facet_tags: The tags of facets of the mesh, if ``absorbing`` names some.

        Raises:
            ValueError: On all ranks, for walls that are not there or arguments that do not fit.
        """
        walls = Absorbing.of(self.elements, self.mass_values, absorbing, facet_tags)
        if walls is None:
            return self
        result = copy.copy(self)
        result.absorbing, result.restoration = walls, NoRestoration(walls, self.positive)
        return result

    def inertia(self, scale: float) -> Array:
        r"""Entries of :math:`M + \mathrm{scale}\,K`, K of what is killed: a new array."""
        if self.reacting is None or self.reacting.killing is None:
            return self.mass_values.copy()
        return self.mass_values + scale * self.reacting.killing

    @property
    def reaction_points(self) -> Array:
        """Where sources and killing are sampled, ``(n, d)``."""
        raise ValueError(
            f"reactions: {self.discretization!r} takes no sources and no killing; use Galerkin() "
            "or Monotone()."
        )

    def weighted(self, k: Array) -> Array:
        r"""Entries of :math:`(k\,\phi_j, \phi_i)`, for k at ``reaction_points``."""
        raise NotImplementedError

    def load(self, s: Array) -> Array:
        r""":math:`(s, \phi_i)`, owned entries, for s at ``reaction_points``. Collective."""
        raise NotImplementedError

    def begun(self, start: Array) -> tuple[Array, Array]:
        """What a run begins with for a start density, local, and what walls have absorbed of it.

        Collective. The density itself, and no masses, if no wall absorbs.
        """
        if self.absorbing is None:
            return start, np.zeros(0)
        begun, taken = self.absorbing.start(start, self.positive)
        if self.reentry is not None:
            begun += taken.sum() * self.reentry.density
        return begun, taken

    @property
    @abstractmethod
    def points(self) -> Array:
        """Where the drift is sampled, ``(N, d)``, those of this rank."""

    @property
    def comm(self) -> MPI.Comm:
        """The mesh's communicator."""
        return self.elements.comm

    @property
    @abstractmethod
    def mass_values(self) -> Array:
        """Entries of M, ``(sparsity.size,)``. Collective at first use."""

    @property
    @abstractmethod
    def mass(self) -> PETSc.Mat:
        """M. Collective at first use."""

    @property
    @abstractmethod
    def stiffness(self) -> PETSc.Mat:
        """``N(0, 1)``, diffusion alone. Collective at first use."""

    @property
    @abstractmethod
    def point_weights(self) -> Array:
        """Weights of a quadrature rule on ``points``, ``(N,)``: volumes."""

    @property
    def clipped(self) -> float:
        """Share of what is needed of the operator's weights that was cut off; 0 where none is."""
        return 0.0

    @functools.cached_property
    def cell_noise(self) -> CellNoise:
        """Noise in the cells."""
        return CellNoise(self.elements)

    @abstractmethod
    def noise_values(self, noise: Noise, t: float) -> PointNoise:
        """D at the points, and the drift that noise adds. Collective.

        Raises:
            ValueError: On all ranks, for bad values, and for noise that the method does not take.
        """

    def cell_peclet(
        self, v: Array, diffusivity: float | Diffusivity, first: int = 0, every: int = 1
    ) -> tuple[Array, Array]:
        r"""Cell Peclet numbers :math:`|v| h/(2 D)` and the volumes that they stand for.

        With h the length of the cell along the drift, :math:`2|v|/\sum_i |v\cdot\nabla\lambda_i|`
        with the barycentric coordinates :math:`\lambda_i`. Points are those of the cells: the first
        of all, then the second.

        Args:
            v: Drift at the points, ``(N, d)``.
            diffusivity: ``D``; a matrix is taken along the drift.
            first: The cell to begin with, and
            every: one of so many: at all points of each if that is 1, else at one.
        """
        g = self.elements
        points, rows = len(v) // max(g.n_cells, 1), slice(first, None, every)
        slopes, volumes = g.inverse_jacobian[:, :, rows], g.determinant[rows]
        field = diffusivity.along(v) if isinstance(diffusivity, Diffusivity) else None
        numbers = []
        for q in range(points) if every == 1 else [first % max(points, 1)]:
            own = slice(q * g.n_cells, (q + 1) * g.n_cells)
            u, D = v[own][rows].T, diffusivity if field is None else field[own][rows]
            along = (slopes * u).sum(axis=1)
            total = np.abs(along).sum(axis=0) + np.abs(along.sum(axis=0))
            total[total == 0.0] = 1.0
            with np.errstate(over="ignore"):  # where there is no noise
                numbers.append((u * u).sum(axis=0) / total / D)
        return np.concatenate(numbers or [volumes[:0]]), np.tile(volumes, len(numbers))

    @abstractmethod
    def at_points(self, u: Array) -> Array:
        """Values of a local array at ``points``, ``(N,)``."""

    @abstractmethod
    def at_points_dual(self, s: Array) -> Array:
        """Transpose of ``at_points``: owned entries for duals ``s (N,)``. Collective."""

    @abstractmethod
    def moser_values(self, potential: Array, rho: Array, diffusivity: float | Diffusivity) -> Array:
        r"""Drift at the points that moves a density exactly along a line, ``(N, d)``.

        With what noise adds to it in it.

        With :math:`K\phi = M\dot\rho` it solves :math:`-N(v, D)\,\rho = M\dot\rho`.

        Args:
            potential: :math:`\phi`, local.
            rho: The density, local, positive.
            diffusivity: ``D``.
        """

    @abstractmethod
    def divisors(self, rho: Array) -> Array:
        """Values of a local array that ``moser_values`` divides by."""

    @abstractmethod
    def filler(self, scale: float) -> Filler:
        r"""Fills :math:`M + \mathrm{scale}\,N`."""

    @abstractmethod
    def source(self, dv: Array, u: Array, stage: StageDrift) -> Array:
        r"""Derivative of :math:`-N(v, D)\,u` along ``dv``, owned entries. Collective.

        Args:
            dv: Direction at the points, ``(N, d)``.
            u: Local array.
            stage: The drift and the diffusivity.
        """

    @abstractmethod
    def sources(self, dv: Array, u: Array, stage: StageDrift) -> Array:
        r"""Derivatives of :math:`-N(v, D)\,u` along several directions, ``(directions, n_local)``.

        What this rank's cells contribute, ghosts not yet added to their owners: a product with
        functions of the mesh needs no more. Walls are not looked at.

        Args:
            dv: Directions at the points, ``(directions, N, d)``.
            u: Local array.
            stage: The drift and the diffusivity.
        """

    @abstractmethod
    def products(self) -> DriftProducts:
        """New collection of products, empty."""


class Discretization(ABC):
    r"""A method in space, as a value.

    Attributes:
        monotone: Whether M is diagonal and :math:`M + \tau N(v, D)` an M-matrix, whatever
            the drift and :math:`\tau > 0`.
    """

    monotone: ClassVar[bool] = False

    @property
    @abstractmethod
    def degree(self) -> int:
        """Degree of the Lagrange elements of the density."""

    @abstractmethod
    def of(self, space: fem.FunctionSpace) -> SemiDiscretization:
        """The method on a Lagrange space of its degree. Collective."""

    @abstractmethod
    def on(self, mesh: Mesh) -> SemiDiscretization:
        """The method on a mesh. Collective."""

    def nodes(self, scheme: TimeScheme) -> tuple[float, ...]:
        """Where in a step the drift and the noise are asked for, in units of the step."""
        return scheme.c

    @abstractmethod
    def refusal(self, scheme: TimeScheme) -> str | None:
        """Why a time scheme cannot serve this method; ``None`` if it can."""
