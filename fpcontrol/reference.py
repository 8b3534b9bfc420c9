"""References: trajectories of densities that a controlled drift is to follow, with their drifts."""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from mpi4py import MPI

import numpy as np
from dolfinx import fem

from fpcontrol.density import Density, check_density
from fpcontrol.discretization.base import Discretization
from fpcontrol.discretization.cells import Cells
from fpcontrol.discretization.diffusion import Diffusivity
from fpcontrol.discretization.galerkin import Galerkin, applied
from fpcontrol.discretization.locate import OwnCells
from fpcontrol.discretization.neumann import Parts, potential
from fpcontrol.discretization.noise_sampler import NoiseSampler
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
    to the accuracy of the solver, not of the mesh. ``MoserFlow.through`` goes through more than two
    densities, from line to line.

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
        start, goal: Copies of the two densities, of more the first and the last.
        densities, times: Copies of all, and when they are reached.
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
        self._make(
            {"start": start, "goal": goal},
            np.array([0.0, float(t1)]),
            Noise(sigma, zero=True, interpretation=interpretation),
            discretization,
            quadrature_degree,
        )

    @classmethod
    def through(
        cls,
        densities: Sequence[fem.Function],
        times: Sequence[float] | Array,
        sigma: Sigma,
        *,
        interpretation: Interpretation = "ito",
        discretization: Discretization | None = None,
        quadrature_degree: int | None = None,
    ) -> Self:
        """A reference of one's own: lines from each of some densities to the next. Collective.

        For a reference known as a function take it at so many times that lines between are near
        enough: they are off by an eighth of the square of their length in time times the second
        derivative. The drift jumps at the times between, which no step may straddle.

        Args:
            densities: At least two, all as ``start`` and ``goal`` of the class.
            times: When each is reached, increasing from 0, ``(len(densities),)``.
            sigma: See the class, as for the others.
            interpretation: Of a noise that depends on place.
            discretization: Whose discrete solution the drift keeps on the lines.
            quadrature_degree: Short form of it.

        Raises:
            ValueError: As the class, or for other times.
        """
        densities = list(densities)
        at = np.asarray(times, dtype=float)
        rising = at.shape == (len(densities),) and len(at) > 1 and bool((np.diff(at) > 0.0).all())
        if not rising or not np.isfinite(at).all() or at[0] != 0.0:
            raise ValueError(
                f"times = {times!r} must be {len(densities)} finite times (densities has so many, "
                "two are needed), increasing from 0."
            )
        flow = cls.__new__(cls)
        flow._make(
            {f"densities[{k}]": rho for k, rho in enumerate(densities)},
            at,
            Noise(sigma, zero=True, interpretation=interpretation),
            discretization,
            quadrature_degree,
        )
        return flow

    def _make(
        self,
        named: Mapping[str, fem.Function],
        times: Array,
        noise: Noise,
        discretization: Discretization | None,
        quadrature_degree: int | None,
    ) -> None:
        self.noise, self.times, self.t1 = noise, times, float(times[-1])
        first, start = next(iter(named.items()))
        if not isinstance(start, fem.Function):
            raise ValueError(f"{first} = {start!r} is not a dolfinx Function; see fpc.density.")
        if discretization is None and quadrature_degree is None:
            discretization = _discretization(named)
        if discretization is None:
            degree = start.function_space.element.basix_element.degree
            discretization = Galerkin(degree, quadrature_degree)
        elif quadrature_degree is not None:
            raise ValueError("Give discretization or quadrature_degree, not both.")
        self.system = discretization.of(start.function_space)
        self.elements = g = self.system.elements
        self._sampler = NoiseSampler(noise, self.system)
        for name, rho in named.items():
            check_density(name, rho, g)
        # Copies: what is made of them below must stay theirs.
        self.densities = tuple(rho.copy() for rho in named.values())
        self.start, self.goal = self.densities[0], self.densities[-1]
        mass = [g.integral(rho.x.array) for rho in self.densities]
        if not all(math.isclose(mass[0], m, rel_tol=MASS_RTOL) for m in mass):
            raise ValueError(f"{' and '.join(named)} have masses {mass}; they must be equal.")
        for name, rho in named.items():
            lowest = self._lowest(rho.x.array)
            if lowest <= 0.0:
                raise ValueError(
                    f"{name} is not positive where the Moser drift divides by it (minimum "
                    f"{lowest:.3g}): add a floor (fpc.density.with_floor), refine the mesh, or "
                    "use degree 1."
                )
        levels = np.array([rho.x.array for rho in self.densities])
        self._slopes = np.diff(levels, axis=0) / np.diff(times)[:, None]
        self._potentials = self._solve_potentials(list(named))
        self.drift = MoserDrift(self)

    @functools.cached_property
    def own_cells(self) -> OwnCells:
        """Search for points among the cells that this rank owns. Not collective."""
        return OwnCells(self.elements.mesh)

    def coefficients(self, t: float) -> Array:
        """Degrees of freedom of the density at time ``t``, local (owned, then ghosts)."""
        k = self.interval(t)
        return self.densities[k].x.array + (t - self.times[k]) * self._slopes[k]

    def interval(self, t: float) -> int:
        """Number of the line that time ``t`` is on; at its ends that of the later one.

        Raises:
            ValueError: If ``t`` is outside ``[0, t1]``.
        """
        if not -1e-9 * self.t1 <= t <= (1.0 + 1e-9) * self.t1:
            raise ValueError(f"t = {t!r} is outside [0, t1 = {self.t1:g}].")
        found = int(np.searchsorted(self.times, t, side="right")) - 1
        return min(max(found, 0), len(self._slopes) - 1)

    def density(self, t: float) -> fem.Function:
        """Density at time ``t`` in ``[0, t1]``.

        Raises:
            ValueError: If ``t`` is outside.
        """
        density = self.start.copy()  # shares its communication pattern: ranks need not meet
        density.name = "reference"
        density.x.array[:] = self.coefficients(t)
        return density

    def _lowest(self, u: Array) -> float:
        values = self.system.divisors(u)
        return self.elements.comm.allreduce(float(values.min(initial=np.inf)), op=MPI.MIN)

    def _solve_potentials(self, names: list[str]) -> list[Array]:
        g, parts = self.elements, Parts.of(self.elements)
        masses = [parts.sums(self._dual(rho.x.array)) for rho in self.densities]
        for k in range(1, len(names)):
            parts.check_masses(MASS_RTOL, {names[0]: masses[0], names[k]: masses[k]})
        stiffness = self.system.stiffness
        return [potential(g, self._dual(slope), parts, stiffness) for slope in self._slopes]

    def _dual(self, u: Array) -> Array:
        """``M u``, owned entries. Collective."""
        g = self.elements
        values, product = g.vector(), g.vector()
        values.set(u)
        self.system.mass.mult(values.petsc_vec, product.petsc_vec)
        return product.array[: g.n_owned].copy()


def _discretization(named: Mapping[str, fem.Function]) -> Discretization | None:
    """What densities were made for; ``None`` if none says.

    Raises:
        ValueError: If they were made for more than one.
    """
    made = {
        name: rho.discretization
        for name, rho in named.items()
        if isinstance(rho, Density) and rho.discretization is not None
    }
    for name, other in made.items():
        first, one = next(iter(made.items()))
        if other != one:
            raise ValueError(
                f"{first} is made for {one!r}, {name} for {other!r}: make both for one "
                "discretization, or give MoserFlow discretization=."
            )
    return next(iter(made.values()), None)


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
    def switches(self) -> Array:
        """The times between the first density and the last: it jumps there."""
        return self.flow.times[1:-1]

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
        values = own.moser_values(flow._potentials[flow.interval(t)], rho, D)
        return values - D.drift() if isinstance(D, Diffusivity) else values

    def on_cells(self, cells: Cells) -> OnCells:
        """Drift at points in any cells, of densities and potential gathered once. Collective.

        Raises:
            ValueError: On all ranks, for noise that depends on place or direction.
        """
        flow, replica = self.flow, Replica(self.flow.elements.space, cells)
        if not flow.noise.uniform:
            raise ValueError(f"{flow.noise} of the Moser flow: particles need one number for it.")
        n = len(flow._slopes)
        rows = replica.gather(
            *(rho.x.array for rho in flow.densities[:n]), *flow._slopes, *flow._potentials
        )

        def values(t: float, x: Array, c: Array) -> Array:
            k = flow.interval(t)
            u = np.stack([rows[k] + (t - flow.times[k]) * rows[n + k], rows[2 * n + k]])
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
        rho, potential = flow.coefficients(t), flow._potentials[flow.interval(t)]
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
