"""References: trajectories of densities that a controlled drift is to follow, with their drifts."""

import functools
import math
from dataclasses import dataclass

from mpi4py import MPI

import numpy as np
from dolfinx import fem

from fpcontrol.density import Density, check_density
from fpcontrol.discretization.base import Discretization
from fpcontrol.discretization.cells import Cells
from fpcontrol.discretization.diffusion import Diffusivity, NoiseSampler
from fpcontrol.discretization.galerkin import Galerkin, applied
from fpcontrol.discretization.locate import OwnCells
from fpcontrol.discretization.neumann import Parts, potential
from fpcontrol.discretization.replica import Replica
from fpcontrol.drift.base import Drift, OnCells, SamplePoints
from fpcontrol.noise import Interpretation, Noise, Sigma
from fpcontrol.typing import Array

# Masses are equal up to what sums and scalings leave of round-off.
MASS_RTOL = 1e-10


class MoserFlow:
    r"""Straight line between two densities and a drift that moves along it. Collective.

    With :math:`-\Delta\phi = (\rho_1 - \rho_0)/T`, :math:`\partial_n\phi = 0`, and
    :math:`\rho_t = \rho_0 + (t/T)(\rho_1 - \rho_0)`,

    .. math:: v = (\nabla\phi + D\nabla\rho_t)/\rho_t,\qquad D = \sigma^2/2 .

    The potential is solved for in the space of the densities, and the drift is used at that
    space's quadrature points, so that :math:`(v\rho_t,\nabla w) = (\nabla\phi + D\nabla\rho_t,
    \nabla w)` for all :math:`w`: the discrete solution driven by ``drift`` is the discrete line,
    to the accuracy of the solver, not of the mesh.

    Args:
        start: Density at time 0.
        goal: Density at time ``t1``, in the same space.
        t1: Last time ``T``.
        sigma: Noise, see ``FokkerPlanck``; zero gives the drift of the continuity equation.
        interpretation: Of a noise that depends on place, see there: what it adds to the drift of
            the equation is taken off ``drift``.
        discretization: Whose discrete solution the drift keeps on the line. Unless given, that
            for which the densities were made (``fpc.density.uniform(mesh, discretization=)``), or
            ``Galerkin`` of their degree if they do not say. The equation must use the same.
        quadrature_degree: Short form of ``discretization=Galerkin(degree, quadrature_degree)``.

    Attributes:
        start, goal: Copies of the two densities.
        drift: ``drift(t, x)``, see ``MoserDrift``.

    Raises:
        ValueError: On all ranks, if a density is not positive at a quadrature point, if the two
            are of different mass, space or discretization, or for a bad ``t1`` or ``sigma``.
            Where the mesh is in parts that do not touch, the masses must be equal on each of them,
            to a relative 1e-10.

    References:
        J. Moser, On the volume elements on a manifold, Trans. AMS 120 (1965).
    """

    def __init__(
        self,
        start: fem.Function,
        goal: fem.Function,
        t1: float,
        sigma: Sigma,
        *,
        interpretation: Interpretation = "ito",
        discretization: Discretization | None = None,
        quadrature_degree: int | None = None,
    ) -> None:
        if not (np.isfinite(t1) and t1 > 0):
            raise ValueError(f"t1 = {t1!r} must be a positive finite time.")
        self.noise = Noise(sigma, zero=True, interpretation=interpretation)
        if not isinstance(start, fem.Function):
            raise ValueError(f"start = {start!r} is not a dolfinx Function; see fpc.density.")
        if discretization is None and quadrature_degree is None:
            discretization = _discretization(start, goal)
        if discretization is None:
            degree = start.function_space.element.basix_element.degree
            discretization = Galerkin(degree, quadrature_degree)
        elif quadrature_degree is not None:
            raise ValueError("Give discretization or quadrature_degree, not both.")
        self.system = discretization.of(start.function_space)
        self.elements = g = self.system.elements
        self._sampler = NoiseSampler(self.noise, self.system)
        check_density("start", start, g)
        check_density("goal", goal, g)
        # Copies: what is made of them below must stay theirs.
        self.start, self.goal, self.t1 = start.copy(), goal.copy(), float(t1)
        mass = [g.integral(rho.x.array) for rho in (start, goal)]
        if not math.isclose(mass[0], mass[1], rel_tol=MASS_RTOL):
            raise ValueError(f"start and goal have masses {mass}; they must be equal.")
        for name, rho in (("start", start), ("goal", goal)):
            lowest = self._lowest(rho.x.array)
            if lowest <= 0.0:
                raise ValueError(
                    f"{name} is not positive where the Moser drift divides by it (minimum "
                    f"{lowest:.3g}): add a floor (fpc.density.with_floor), refine the mesh, or "
                    "use degree 1."
                )
        self._slope = (goal.x.array - start.x.array) / self.t1
        self._potential = self._solve_potential()
        self.drift = MoserDrift(self)

    @functools.cached_property
    def own_cells(self) -> OwnCells:
        """Search for points among the cells that this rank owns. Not collective."""
        return OwnCells(self.elements.mesh)

    def coefficients(self, t: float) -> Array:
        """Degrees of freedom of the density at time ``t``, local (owned, then ghosts)."""
        self._check_time(t)
        return self.start.x.array + t * self._slope

    def density(self, t: float) -> fem.Function:
        """Density at time ``t`` in ``[0, t1]``.

        Raises:
            ValueError: If ``t`` is outside.
        """
        density = self.start.copy()  # shares its communication pattern: ranks need not meet
        density.name = "reference"
        density.x.array[:] = self.coefficients(t)
        return density

    def _check_time(self, t: float) -> None:
        if not -1e-9 * self.t1 <= t <= (1.0 + 1e-9) * self.t1:
            raise ValueError(f"t = {t!r} is outside [0, t1 = {self.t1:g}].")

    def _lowest(self, u: Array) -> float:
        values = self.system.divisors(u)
        return self.elements.comm.allreduce(float(values.min(initial=np.inf)), op=MPI.MIN)

    def _solve_potential(self) -> Array:
        g, parts = self.elements, Parts.of(self.elements)
        duals = [self._dual(u.x.array) for u in (self.start, self.goal)]
        masses = [parts.sums(dual) for dual in duals]
        parts.check_masses(MASS_RTOL, dict(zip(("start", "goal"), masses, strict=True)))
        return potential(g, self._dual(self._slope), parts, self.system.stiffness)

    def _dual(self, u: Array) -> Array:
        """``M u``, owned entries. Collective."""
        g = self.elements
        values, product = g.vector(), g.vector()
        values.set(u)
        self.system.mass.mult(values.petsc_vec, product.petsc_vec)
        return product.array[: g.n_owned].copy()


def _discretization(start: fem.Function, goal: fem.Function) -> Discretization | None:
    """What two densities were made for; ``None`` if neither says.

    Raises:
        ValueError: If they were made for two.
    """
    made = [rho.discretization if isinstance(rho, Density) else None for rho in (start, goal)]
    if None not in made and made[0] != made[1]:
        raise ValueError(
            f"start is made for {made[0]!r}, goal for {made[1]!r}: make both for one "
            "discretization, or give MoserFlow discretization=."
        )
    return made[0] or made[1]


@dataclass(frozen=True)
class MoserDrift(Drift):
    """Drift of a ``MoserFlow``; it lives on the mesh.

    The equation asks it at the mesh's own quadrature points, without a search. Called as
    ``drift(t, x)`` at other points it searches the cells of this rank for each of them, 8 to 16
    microseconds a point, and refuses points that this rank does not own; along characteristics it
    cannot run (``characteristics.carry``).
    """

    flow: MoserFlow

    @property
    def everywhere(self) -> bool:
        """False: a rank knows it in its own cells only."""
        return False

    def at_points(self, t: float, where: SamplePoints) -> Array:
        """Drift at the quadrature points of a discretization in the flow's own space, ``(N, d)``.

        Raises:
            ValueError: If the discretization has other points.
        """
        flow, own = self.flow, self.flow.system
        if where.points is not own.points and not np.array_equal(where.points, own.points):
            raise ValueError(
                f"The Moser drift of {own.discretization!r} ({own}) was asked at other points "
                f"({where}); use the same mesh and discretization (degree, quadrature_degree) for "
                "the reference and the equation."
            )
        rho = flow.coefficients(t)
        D = flow._sampler.at(t)
        values = own.moser_values(flow._potential, rho, D)
        return values - D.drift() if isinstance(D, Diffusivity) else values

    def on_cells(self, cells: Cells) -> OnCells:
        """Drift at points in any cells, of densities and potential gathered once. Collective.

        Raises:
            ValueError: On all ranks, for noise that depends on place or direction.
        """
        flow, replica = self.flow, Replica(self.flow.elements.space, cells)
        if not flow.noise.uniform:
            raise ValueError(f"{flow.noise} of the Moser flow: particles need one number for it.")
        start, slope, flux = replica.gather(flow.start.x.array, flow._slope, flow._potential)

        def values(t: float, x: Array, c: Array) -> Array:
            flow._check_time(t)
            u = np.stack([start + t * slope, flux])
            (rho, _), slopes = replica.evaluate(u, c, cells.shares(c, x)[:, 1:])
            return (slopes[1] + flow.noise.diffusivity(t) * slopes[0]) / rho[:, None]

        return values

    def __call__(self, t: float, x: Array) -> Array:
        """Drift at points in cells owned by this rank, ``(N, d)`` to ``(N, d)``. Not collective.

        Raises:
            ValueError: On this rank, if ``t`` is outside ``[0, t1]`` or a point is in no cell
                owned by this rank (the message lists how many and the first).
        """
        own, flow = self.flow.elements, self.flow
        rho, potential = flow.coefficients(t), flow._potential
        search = flow.own_cells
        cells = search.holding(x)
        if (missing := np.flatnonzero(cells < 0)).size:
            raise ValueError(
                f"{missing.size} of {len(x)} points lie in no cell owned by rank "
                f"{own.comm.rank}, the first at {x[missing[0]]}."
            )
        value, gradient = search.evaluate(own.space, rho, cells, x)
        slope = search.evaluate(own.space, potential, cells, x)[1]
        if flow.noise.uniform:
            return (slope + flow.noise.diffusivity(t) * gradient) / value[:, None]
        D, drift = flow.system.cell_noise.in_cells(flow.noise, t, cells, x)
        return (slope + applied(D, gradient)) / value[:, None] - drift
