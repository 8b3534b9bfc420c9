r"""Galerkin's method with continuous elements, refilled from arrays.

For all :math:`w \in V_h`,

.. math:: (\partial_t\rho, w) + (D\nabla\rho, \nabla w) - (v\rho, \nabla w) = 0 ,

so that, for a number D, :math:`N = D K - B(v)` with
:math:`B_{ij} = (v\,\phi_j, \nabla\phi_i)`, linear in the drift's values at the quadrature points.
All cells are affine images of one reference cell: the element matrices of a drift are one product
of its values with a table made once, and no form is compiled.
"""

from dataclasses import dataclass

import numpy as np
from dolfinx import fem
from dolfinx.mesh import Mesh
from petsc4py import PETSc

from fpcontrol.discretization import kernels
from fpcontrol.discretization.base import Discretization, SemiDiscretization, StageDrift, TimeScheme
from fpcontrol.discretization.diffusion import Diffusivity
from fpcontrol.discretization.edge_tensors import PointNoise
from fpcontrol.discretization.elements import Elements, lagrange
from fpcontrol.discretization.restoration import AdditiveRestoration
from fpcontrol.noise import Noise
from fpcontrol.typing import Array

# Cells whose diffusion matrices are filled at a time: what is in between takes little memory.
CHUNK = 8192


@dataclass(frozen=True)
class Galerkin(Discretization):
    r"""Galerkin's method with Lagrange elements.

    Of order ``degree + 1`` in L2 on smooth data. The mass is constant to round-off; positivity is
    not enforced: where the drift makes layers thinner than the cells, the density rings.

    Args:
        degree: Of the elements, 1, 2 or 3.
        quadrature_degree: Degree of exactness of :math:`(v\rho,\nabla w)`; ``2 * degree`` unless
            given, see ``Elements``.
    """

    degree: int = 2
    quadrature_degree: int | None = None

    def of(self, space: fem.FunctionSpace) -> "GalerkinSystem":
        """The method on a Lagrange space of its degree. Collective."""
        return GalerkinSystem(self, Elements(space, self.quadrature_degree))

    def on(self, mesh: Mesh) -> "GalerkinSystem":
        """The method on a mesh. Collective.

        Raises:
            ValueError: On all ranks, for a degree or cells that are not offered.
        """
        return self.of(lagrange(mesh, self.degree))

    def refusal(self, scheme: TimeScheme) -> str | None:
        """None: every scheme serves it."""
        return None


class GalerkinSystem(SemiDiscretization):
    """Galerkin's method on a mesh. Collective.

    Args:
        discretization: Degree and quadrature.
        elements: The space with its quadrature points.
    """

    def __init__(self, discretization: Galerkin, elements: Elements) -> None:
        self.discretization, self.elements = discretization, elements
        self.restoration = AdditiveRestoration(elements)
        g, d = elements, elements.dimension
        gradients = g.basis_gradients.reshape(d, g.n_points, -1)
        # Advection of the reference cell: (i, j) x (a, q) -> w_q d_a phi_i(q) phi_j(q).
        self._table = np.einsum(
            "q,aqi,qj->ijaq", g.reference_weights, gradients, g.basis_values
        ).reshape(-1, d * g.n_points)
        self._fill = kernels.advection(d, g.n_points, len(g.dofs))

    def __str__(self) -> str:
        """Degree and quadrature, for messages."""
        return str(self.elements)

    @property
    def points(self) -> Array:
        """Quadrature points, ``(N, d)``."""
        return self.elements.points

    @property
    def mass_values(self) -> Array:
        """Entries of the mass matrix. Collective at first use."""
        return self.elements.mass_values

    @property
    def mass(self) -> PETSc.Mat:
        """The mass matrix. Collective at first use."""
        return self.elements.mass

    @property
    def stiffness(self) -> PETSc.Mat:
        """The stiffness matrix. Collective at first use."""
        return self.elements.stiffness

    def noise_values(self, noise: Noise, t: float) -> PointNoise:
        """D and the drift that noise adds at the points. Collective."""
        return PointNoise(*self.cell_noise.at_points(noise, t))

    def moser_values(self, potential: Array, rho: Array, diffusivity: float | Diffusivity) -> Array:
        r""":math:`(\nabla\phi + D\nabla\rho)/\rho` at the points, ``(N, d)``."""
        if isinstance(diffusivity, Diffusivity):
            flux = self.elements.gradient(potential)
            flux += applied(diffusivity.values(), self.elements.gradient(rho))
        else:
            flux = self.elements.gradient(potential + diffusivity * rho)
        return flux / self.at_points(rho)[:, None]

    def divisors(self, rho: Array) -> Array:
        """Values at the points."""
        return self.at_points(rho)

    @property
    def point_weights(self) -> Array:
        """Quadrature weights, ``(N,)``."""
        return self.elements.quadrature_weights

    def at_points(self, u: Array) -> Array:
        """Values of a local array at the points, ``(N,)``."""
        return self.elements.evaluate(u).ravel()

    def at_points_dual(self, s: Array) -> Array:
        """Transpose of ``at_points``, owned entries. Collective."""
        g = self.elements
        return g.assemble(g.basis_values.T @ s.reshape(g.n_points, -1))

    def filler(self, scale: float) -> "GalerkinFiller":
        r"""Fills :math:`M + \mathrm{scale}\,(D K - B(v))`."""
        return GalerkinFiller(self, scale)

    def source(self, dv: Array, u: Array, stage: StageDrift | None = None) -> Array:
        r"""The dual vector :math:`(\dot v\,u, \nabla\phi_i)`, owned entries. Collective."""
        g = self.elements
        flux = np.einsum("akc,kqc->aqc", g.cofactor, self._by_component(dv))
        flux *= g.evaluate(u) * g.reference_weights[:, None]
        return g.assemble(g.basis_gradients.T @ flux.reshape(len(g.basis_gradients), -1))

    def sources(self, dv: Array, u: Array, stage: StageDrift | None = None) -> Array:
        r""":math:`(\dot v_k\,u, \nabla\phi_i)` of this rank's cells, ``(directions, n_local)``."""
        g = self.elements
        add = kernels.sources(g.dimension, g.n_points, len(g.dofs))
        out = np.zeros((len(dv), g.n_local))
        shape = len(dv), g.dimension, g.n_points, g.n_cells
        by_component = np.ascontiguousarray(dv.transpose(0, 2, 1), dtype=float).reshape(shape)
        values = g.basis_values * g.reference_weights[:, None]
        add(by_component, u, g.cofactor, g.cell_dofs, values, g.basis_gradients, out)
        return out

    @property
    def reaction_points(self) -> Array:
        """Quadrature points."""
        return self.points

    def weighted(self, k: Array) -> Array:
        r"""Entries of :math:`(k\,\phi_j, \phi_i)`."""
        g = self.elements
        table = np.einsum("q,qi,qj->ijq", g.reference_weights, g.basis_values, g.basis_values)
        weighted = k.reshape(g.n_points, -1) * g.determinant
        return g.sparsity.entries(table.reshape(-1, g.n_points) @ weighted)

    def load(self, s: Array) -> Array:
        r""":math:`(s, \phi_i)`, owned entries. Collective."""
        return self.at_points_dual(self.point_weights.ravel() * s)

    def products(self) -> "GalerkinProducts":
        """New collection of products, empty."""
        return GalerkinProducts(self)

    def advection_values(
        self,
        v: Array,
        scale: float = 1.0,
        constant: Array | None = None,
        out: Array | None = None,
    ) -> Array:
        r"""Entries of ``constant + scale * B`` with :math:`B_{ij} = (v\,\phi_j, \nabla\phi_i)`.

        Args:
            v: Drift at ``points``, shape ``(N, d)``.
            scale: Factor.
            constant: Entries; zero unless given.
            out: Where to write the result.

        Returns:
            Shape ``(sparsity.size,)``.
        """
        g = self.elements
        out = np.empty(g.sparsity.size) if out is None else out
        constant = np.zeros(len(out)) if constant is None else constant
        v = self._by_component(v)
        self._fill(v, g.cofactor, self._table, g.sparsity.slots, scale, constant, out)
        return out

    def diffusion_values(self, D: Array, scale: float, out: Array) -> None:
        r"""Add ``scale`` times :math:`(D\nabla\phi_j, \nabla\phi_i)` to entries.

        Args:
            D: At ``points``, ``(N,)`` or ``(N, d, d)``.
            scale: Factor.
            out: Is added to, ``(sparsity.size,)``.
        """
        g, d = self.elements, self.elements.dimension
        # For the loop of advection, which knows of points only: a drift D grad hat phi_b at a point
        # for every b.
        fill = kernels.advection(d, d * g.n_points, len(g.dofs))
        gradients = g.basis_gradients.reshape(d, g.n_points, -1)
        table = np.einsum("q,aqi,bqj->ijabq", g.reference_weights, gradients, gradients)
        table = table.reshape(-1, d * d * g.n_points)
        D = D.reshape(g.n_points, g.n_cells, *D.shape[1:])
        for start in range(0, g.n_cells, CHUNK):
            own = slice(start, start + CHUNK)
            inverse = g.inverse_jacobian[:, :, own]
            flux = (
                np.einsum("qc,bkc->kbqc", D[:, own], inverse)
                if D.ndim == 2
                else np.einsum("qckl,blc->kbqc", D[:, own], inverse)
            ).reshape(d, d * g.n_points, -1)
            cofactor = np.ascontiguousarray(g.cofactor[:, :, own])
            fill(
                np.ascontiguousarray(flux), cofactor, table, g.sparsity.slots[own], scale, out, out
            )

    def _by_component(self, v: Array) -> Array:
        """Of shape ``(N, d)``, as ``(d, n_points, n_cells)``; a view if stored so."""
        g = self.elements
        shape = g.dimension, g.n_points, g.n_cells
        return np.ascontiguousarray(v.T, dtype=float).reshape(shape)


class GalerkinFiller:
    r"""Fills :math:`M + \tau(D K - B(v))`; what does not depend on the drift is kept for one D."""

    def __init__(self, system: GalerkinSystem, scale: float) -> None:
        self._system, self._scale = system, scale
        self._inertia = system.inertia(scale)
        self._constant = self._inertia.copy()
        self._diffusivity: float | Diffusivity = 0.0

    def __call__(self, v: Array, diffusivity: float | Diffusivity, out: Array) -> None:
        """Write the entries for a drift at the points."""
        g = self._system.elements
        if diffusivity != self._diffusivity:
            self._diffusivity = np.nan  # until all is written
            if isinstance(diffusivity, Diffusivity):
                self._constant[:] = self._inertia
                self._system.diffusion_values(diffusivity.values(), self._scale, self._constant)
            else:
                np.multiply(g.stiffness_values, self._scale * diffusivity, out=self._constant)
                self._constant += self._inertia
            self._diffusivity = diffusivity
        self._system.advection_values(v, -self._scale, self._constant, out=out)


class GalerkinProducts:
    r"""Collects :math:`z^\top B(v)\,u`, whose derivative in v is the same for all drifts.

    .. math:: s_q = w_q\,u(x_q)\,\nabla z(x_q)
    """

    def __init__(self, system: GalerkinSystem) -> None:
        self._system = g = system.elements
        self._add = kernels.products(g.dimension, g.n_points, len(g.dofs))
        self._sum = np.zeros((g.dimension, g.n_points, g.n_cells))

    def add(self, u: Array, z: Array, stage: StageDrift | None = None) -> None:
        """Add ``u`` times the gradient of ``z`` at the points."""
        g = self._system
        self._add(u, z, g.cell_dofs, g.basis_values, g.basis_gradients, self._sum)

    def collect(self) -> Array:
        """Derivative in the drift's values, ``(N, d)``; starts anew from zero."""
        g = self._system
        result = g.pull_back(self._sum * g.reference_weights[:, None], g.cofactor)
        self._sum[:] = 0.0
        return result


def applied(D: Array, slopes: Array) -> Array:
    """``D`` ``(N,)`` or ``(N, d, d)`` times vectors ``(N, d)``."""
    return D[:, None] * slopes if D.ndim == 1 else np.einsum("nkl,nl->nk", D, slopes)


def check_discretization(
    discretization: Discretization | None, degree: int | None, quadrature_degree: int | None
) -> Discretization:
    """The discretization, or ``Galerkin`` of what is given instead.

    Raises:
        ValueError: If it is none, or if both are given.
    """
    short = {"degree": degree, "quadrature_degree": quadrature_degree}
    given = {name: value for name, value in short.items() if value is not None}
    if discretization is None:
        return Galerkin(**given)
    if not isinstance(discretization, Discretization):
        raise ValueError(
            f"discretization = {discretization!r} is none; give a value such as Galerkin(degree=2)."
        )
    if given:
        name, value = next(iter(given.items()))
        raise ValueError(
            f"{name} = {value!r} belongs into the discretization, {discretization!r}: give one of "
            "the two."
        )
    return discretization
