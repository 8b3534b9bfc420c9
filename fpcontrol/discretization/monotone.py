r"""A monotone method: fluxes along edges, positive at any cell Peclet number.

On an edge e = (i, j) with vector :math:`t_e`, weight :math:`w_e \ge 0`, drift v at its middle and
:math:`p = v\cdot t_e/D`,

.. math::
    F_e = w_e D\,[B(-p)\rho_i - B(p)\rho_j],\qquad m_i\dot\rho_i = -\sum_{e\ni i}\pm F_e

(Scharfetter-Gummel; on triangles the edge-averaged elements of Xu and Zikatanov). Off-diagonal
entries of :math:`M + \tau N` are not positive and its columns sum to those of M: it is an M-matrix
for every drift and every step, so that backward Euler keeps a density positive. Noise that is a
matrix has weights of its own, on meshes where they are not negative: see ``edge_tensors``.

References:
    J. Xu, L. Zikatanov, A monotone finite element scheme for convection-diffusion equations, Math.
    Comp. 68 (1999).
    D. L. Scharfetter, H. K. Gummel, Large-signal analysis of a silicon Read diode oscillator, IEEE
    Trans. Electron Devices 16 (1969).
"""

import functools
import warnings
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from dolfinx import fem
from dolfinx.mesh import Mesh
from petsc4py import PETSc

from fpcontrol.discretization import flux_functions, kernels
from fpcontrol.discretization.base import Discretization, SemiDiscretization, StageDrift, TimeScheme
from fpcontrol.discretization.diffusion import Diffusivity, edges_of, values_of
from fpcontrol.discretization.edge_moser import edge_moser
from fpcontrol.discretization.edge_noise import CLIPPED, edge_noise
from fpcontrol.discretization.edge_tensors import PointNoise
from fpcontrol.discretization.edges import Edges
from fpcontrol.discretization.elements import Elements, check_linear, lagrange
from fpcontrol.discretization.restoration import MultiplicativeRestoration
from fpcontrol.noise import Noise
from fpcontrol.typing import Array

REMEDY = {
    1: "",
    2: "fpc.mesh.delaunay(mesh) flips the edges; gmsh's frontal algorithm (Mesh.Algorithm = 6) "
    "makes meshes that do not need it.",
    3: "No tetrahedra are free of it; fpc.Limited() needs no good mesh.",
}


@dataclass(frozen=True)
class Monotone(Discretization):
    r"""Linear elements with lumped mass and fluxes along edges: a density stays positive.

    Of order 2 in L2 on smooth data while the cell Peclet number is below 1, of order 1 beyond 2,
    where it is an upwind method. Positivity is kept by ``BackwardEuler()``, the scheme unless
    another is given, and by ``Exponential()``. Noise by direction is taken where no two angles that
    face an edge have a sum above 180 degrees in its metric, and refused elsewhere.

    Args:
        flux: ``"bernoulli"``, :math:`B(p) = p/(e^p - 1)`, exact for the Gibbs density of a drift
            that is a gradient; or ``"hybrid"``, :math:`B = (1 + (p/2)^4)^{1/4} - p/2`, about half
            of its error near cell Peclet number 1.
    """

    monotone: ClassVar = True
    flux: Literal["bernoulli", "hybrid"] = "bernoulli"

    def __post_init__(self) -> None:
        if self.flux not in flux_functions.FLUXES:
            raise ValueError(
                f"flux = {self.flux!r} is unknown; choose one of {tuple(flux_functions.FLUXES)}."
            )

    @property
    def degree(self) -> int:
        """1: linear elements."""
        return 1

    def of(self, space: fem.FunctionSpace) -> "MonotoneSystem":
        """The method on linear elements. Collective.

        Raises:
            ValueError: On all ranks, for a space of another degree.
        """
        check_linear(space, "Monotone()")
        system = MonotoneSystem(self, Elements(space))
        clipped = system.edges.clipped
        if clipped > CLIPPED and space.mesh.comm.rank == 0:
            warnings.warn(
                f"Monotone(): {clipped:.2g} of the edges' weights are negative and cut off; the "
                "error is in proportion to that, however fine the mesh. "
                + REMEDY[space.mesh.topology.dim],
                stacklevel=3,
            )
        return system

    def on(self, mesh: Mesh) -> "MonotoneSystem":
        """The method on a mesh. Collective."""
        return self.of(lagrange(mesh, 1))

    def refusal(self, scheme: TimeScheme) -> str | None:
        """Of schemes that are not positive for every step."""
        if scheme.positive:
            return None
        return (
            "it does not keep a density positive (no Runge-Kutta scheme of order above 1 does for "
            "every step); choose BackwardEuler() or Exponential()."
        )


class MonotoneSystem(SemiDiscretization):
    """The monotone method on a mesh. Collective.

    Args:
        discretization: The flux.
        elements: Linear elements.
        edges: The edges; those of the mesh unless given.

    Attributes:
        edges: The edges, with their weights.
    """

    positive = True
    by_cells = False
    # An incomplete LU of an M-matrix is a regular splitting: from a start that is not negative,
    # every iterate is not negative. GMRES is positive to its tolerance only.
    # Where it converges slowly, LU takes over.
    petsc_options: ClassVar = {
        "ksp_type": "richardson",
        "ksp_pc_side": "left",
        "ksp_max_it": 150,
    }

    def __init__(
        self, discretization: Monotone, elements: Elements, edges: Edges | None = None
    ) -> None:
        self.discretization, self.elements = discretization, elements
        self.edges = e = edges or Edges(elements)
        self.restoration = MultiplicativeRestoration(elements)
        self.flux = flux_functions.FLUXES[discretization.flux]
        self._points = e.middles
        self._points.flags.writeable = False
        self.slots = np.empty((e.ends.shape[1], 4), dtype=np.int32)  # ii, ij, ji, jj
        ends = e.ends.astype(np.int32)
        sparsity = elements.sparsity
        kernels.find(sparsity.indptr, sparsity.indices, ends, ends, self.slots)

    def __str__(self) -> str:
        """For messages."""
        return f"{len(self.points)} edges on rank {self.comm.rank}"

    @property
    def points(self) -> Array:
        """Middles of the edges, ``(N, d)``."""
        return self._points

    @functools.cached_property
    def mass_values(self) -> Array:
        """Entries of the lumped mass matrix. Collective at first use."""
        g = self.elements
        n = g.dimension + 1
        volumes = g.determinant * g.reference_weights.sum()
        return g.sparsity.entries(np.outer(np.eye(n).ravel() / n, volumes))

    @functools.cached_property
    def mass(self) -> PETSc.Mat:
        """The lumped mass matrix. Collective at first use."""
        return self.elements.matrix(self.mass_values).mat

    @functools.cached_property
    def stiffness(self) -> PETSc.Mat:
        """Stiffness matrix of the edges' weights. Collective at first use."""
        values, w = np.zeros(self.elements.sparsity.size), self.edges.weights
        kernels.add_edges(self.slots, w, w, values)
        return self.elements.matrix(values).mat

    def noise_values(self, noise: Noise, t: float) -> PointNoise:
        """D of the edges, and the drift that noise adds along them: see ``edge_noise``.

        Collective.

        Raises:
            ValueError: On all ranks, as ``Noise.values``, and for matrices on a mesh that does not
                suit them.
        """
        return edge_noise(self.elements, self.edges, self.cell_noise, noise, t)

    def moser_values(self, potential: Array, rho: Array, diffusivity: float | Diffusivity) -> Array:
        """Drift along the edges with the flux of a potential, ``(N, d)``: see ``edge_moser``.

        Raises:
            ValueError: For D = 0, and where noise by direction has no flux.
        """
        return edge_moser(self.edges, self.flux, self.comm, potential, rho, diffusivity)

    def divisors(self, rho: Array) -> Array:
        """Values at the nodes."""
        return rho[: self.elements.n_owned]

    @functools.cached_property
    def point_weights(self) -> Array:
        """Shares of the volume at the edges, ``w |t|**2 / d``, ``(N,)``."""
        e = self.edges
        return e.weights * np.einsum("nd,nd->n", e.vectors, e.vectors) / self.elements.dimension

    def at_points(self, u: Array) -> Array:
        """Values of a local array at the middles, ``(N,)``."""
        i, j = self.edges.ends
        return 0.5 * (u[i] + u[j])

    def at_points_dual(self, s: Array) -> Array:
        """Transpose of ``at_points``, owned entries. Collective."""
        return self._assembled(0.5 * s, 0.5 * s)

    def peclet(self, v: Array, diffusivity: float | Diffusivity) -> Array:
        r""":math:`p = v\cdot t/D` of the edges, ``(N,)``."""
        tensors = edges_of(diffusivity)
        if tensors is not None:
            return tensors.peclet(v)
        return np.einsum("nd,nd->n", v, self.edges.vectors) / values_of(diffusivity)

    @property
    def clipped(self) -> float:
        """Sum of the edges' negative weights, which are cut off, over that of the others."""
        return self.edges.clipped

    def cell_peclet(
        self, v: Array, diffusivity: float | Diffusivity, first: int = 0, every: int = 1
    ) -> tuple[Array, Array]:
        r""":math:`|p|/2 = |v\cdot t|/(2 D)` of some of the edges, and their volumes."""
        rows, tensors = slice(first, None, every), edges_of(diffusivity)
        if tensors is not None:
            p = np.einsum("nd,nd->n", v[rows], tensors.inverse[rows])
            return 0.5 * np.abs(p), self.point_weights[rows]
        along = np.einsum("nd,nd->n", v[rows], self.edges.vectors[rows])
        D = values_of(diffusivity)
        own = D[rows] if isinstance(D, np.ndarray) else D
        return np.abs(along) / (2.0 * own), self.point_weights[rows]

    def filler(self, scale: float) -> "MonotoneFiller":
        r"""Fills :math:`M + \mathrm{scale}\,N`."""
        return MonotoneFiller(self, scale)

    def source(self, dv: Array, u: Array, stage: StageDrift) -> Array:
        r"""Derivative of :math:`-N(v, D)\,u` along ``dv``, owned entries. Collective."""
        flow = self._flows(dv, u, stage)
        return self._assembled(-flow, flow)

    def sources(self, dv: Array, u: Array, stage: StageDrift) -> Array:
        r"""Derivatives of :math:`-N(v, D)\,u` of this rank's edges, ``(directions, n_local)``."""
        i, j = self.edges.ends
        n = self.elements.n_local
        return np.stack(
            [
                np.bincount(j, flow, minlength=n) - np.bincount(i, flow, minlength=n)
                for flow in self._flows(dv, u, stage)
            ]
        )

    @property
    def reaction_points(self) -> Array:
        """The nodes, ghosts too."""
        g = self.elements
        return g.space.tabulate_dof_coordinates()[:, : g.dimension]

    def weighted(self, k: Array) -> Array:
        """Entries of the lumped mass times k at the nodes."""
        g = self.elements
        return self.mass_values * np.repeat(k, np.diff(g.sparsity.indptr))

    def load(self, s: Array) -> Array:
        """Lumped, owned entries."""
        g = self.elements
        return g.integrals * s[: g.n_owned]

    def products(self) -> "MonotoneProducts":
        """New collection of products, empty."""
        return MonotoneProducts(self)

    def _flows(self, dv: Array, u: Array, stage: StageDrift) -> Array:
        """Changes of the edges' flows along directions ``(..., N, d)``, ``(..., N)``."""
        p = self.peclet(stage.values(), stage.diffusivity)
        i, j = self.edges.ends
        weights, vectors = self.slopes_of(stage.diffusivity)
        change = np.einsum("...nd,nd->...n", dv, vectors)
        back, forth = self.flux.slopes(p)
        result: Array = change * (-weights * (back * u[i] + forth * u[j]))
        return result

    def slopes_of(self, diffusivity: float | Diffusivity) -> tuple[Array, Array]:
        """What a flux's slope in the drift has before and after B': w and t, or W and D^-1 t."""
        tensors = edges_of(diffusivity)
        if tensors is None:
            return self.edges.weights, self.edges.vectors
        return tensors.weights, tensors.inverse

    def _assembled(self, at_i: Array, at_j: Array) -> Array:
        """Owned entries of a dual vector from parts at the ends of the edges. Collective."""
        g, (i, j) = self.elements, self.edges.ends
        result = g.vector()
        result.array[:] = np.bincount(i, at_i, minlength=g.n_local)
        result.array[:] += np.bincount(j, at_j, minlength=g.n_local)
        result.scatter_reverse()
        return result.array[: g.n_owned].copy()


class MonotoneFiller:
    r"""Fills :math:`M + \tau N(v, D)` edge by edge."""

    def __init__(self, system: MonotoneSystem, scale: float) -> None:
        self._system, self._scale = system, scale
        self._inertia = system.inertia(scale)

    def __call__(self, v: Array, diffusivity: float | Diffusivity, out: Array) -> None:
        """Write the entries for a drift at the middles of the edges."""
        system, tensors = self._system, edges_of(diffusivity)
        p = system.peclet(v, diffusivity)
        if tensors is None:
            weights = self._scale * values_of(diffusivity) * system.edges.weights
        else:
            weights = self._scale * tensors.weights
        out[:] = self._inertia
        leaving, entering = system.flux.both(p)
        kernels.add_edges(system.slots, weights * leaving, weights * entering, out)


class MonotoneProducts:
    r"""Collects :math:`-z^\top N(v, D)\,u` over stages.

    .. math::
        s_e = (z_i - z_j)\,w_e\,[B'(-p)\,u_i + B'(p)\,u_j]\,t_e

    depends on D through p, and for matrices through W and :math:`D^{-1}t_e` in the place of w and
    t: sums of one D are turned into the result when another one comes.
    """

    def __init__(self, system: MonotoneSystem) -> None:
        self._system = system
        self._stage: StageDrift | None = None
        n = len(system.points)
        self._at_i, self._at_j, self._result = np.zeros(n), np.zeros(n), np.zeros(n)
        self._by_direction: Array | None = None

    def add(self, u: Array, z: Array, stage: StageDrift) -> None:
        """Take in the product of two local arrays at a stage."""
        if self._stage is None or stage.diffusivity != self._stage.diffusivity:
            self._close()
            self._stage = stage
        i, j = self._system.edges.ends
        kernels.edge_products(i, j, u, z, self._at_i, self._at_j)

    def collect(self) -> Array:
        """Derivative in the drift's values, ``(N, d)``; starts anew from zero."""
        self._close()
        self._stage = None
        e = self._system.edges
        result = (self._result * e.weights)[:, None] * e.vectors
        self._result[:] = 0.0
        if self._by_direction is not None:
            result += self._by_direction
            self._by_direction = None
        return result

    def _close(self) -> None:
        system, stage = self._system, self._stage
        if stage is None:
            return
        p = system.peclet(stage.values(), stage.diffusivity)
        back, forth = system.flux.slopes(p)
        sums = back * self._at_i + forth * self._at_j
        if edges_of(stage.diffusivity) is None:
            self._result += sums
        else:
            weights, vectors = system.slopes_of(stage.diffusivity)
            flows = (sums * weights)[:, None] * vectors
            self._by_direction = flows + (0.0 if self._by_direction is None else self._by_direction)
        self._at_i[:], self._at_j[:] = 0.0, 0.0
