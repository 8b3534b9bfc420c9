r"""Time schemes as values, and the step that runs forward, along a tangent, and backward.

Semi-discrete equation: :math:`M\dot\rho = -N(v)\rho` with :math:`N(v) = D K - B(v)`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fpcontrol.galerkin import Array, Galerkin
from fpcontrol.linear_solvers import LinearSolver

# A drift may jump where a piece ends, so the end of a step is approached from inside. The shift
# changes a drift that is smooth in time by 1e-9 of its change over the step, and is far above the
# rounding of the time levels up to a million steps.
INSIDE = 1e-9


@dataclass(frozen=True)
class CrankNicolson:
    r"""Second order, A-stable: the implicit midpoint rule, one operator a step.

    .. math::
        (M + \tfrac{dt}{2} N(v_{1/2}))\,u = M\rho_n,\qquad \rho_{n+1} = 2u - \rho_n

    Not L-stable: on rough data or at a switch of a drift with :math:`v\cdot n\neq 0` it rings.
    """

    theta: float = 0.5
    node: float = 0.5


@dataclass(frozen=True)
class BackwardEuler:
    r"""First order, L-stable: :math:`(M + dt\,N(v_1))\,\rho_{n+1} = M\rho_n`."""

    theta: float = 1.0
    node: float = 1.0 - INSIDE


Scheme = CrankNicolson | BackwardEuler


class Stepper:
    r"""One time step, its tangent and its transpose, for an operator that is refilled. Collective.

    With :math:`A = M + \theta\,dt\,N(v)`, a step is

    .. math::
        A y = M\rho_n,\quad u = y + \frac{1^\top M(\rho_n - y)}{|\Omega|}\,1,\quad
        \rho_{n+1} = \rho_n + (u - \rho_n)/\theta .

    The middle part vanishes for an exact solve, because :math:`1^\top A = 1^\top M`; after an
    iterative one it gives back the mass that the solver's tolerance lost.

    Args:
        galerkin: The discretization.
        diffusivity: :math:`D = \sigma^2/2`, length**2 per time.
        dt: Time step.
        scheme: ``CrankNicolson()`` or ``BackwardEuler()``.
        linear_solver, petsc_options: See ``LinearSolver``.
    """

    def __init__(
        self,
        galerkin: Galerkin,
        diffusivity: float,
        dt: float,
        scheme: Scheme,
        linear_solver: str = "auto",
        petsc_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.galerkin, self.scheme, self.dt = galerkin, scheme, dt
        self.theta, self._scale = scheme.theta, scheme.theta * dt
        self._constant = (
            galerkin.mass_values + self._scale * diffusivity * galerkin.stiffness_values
        )
        self._values = np.empty_like(self._constant)
        self._matrix = galerkin.matrix(self._constant)
        self.solver = LinearSolver(
            self._matrix,
            linear_solver,
            dimension=galerkin.dimension,
            petsc_options=petsc_options,
        )
        self._b, self._y, self._image = (galerkin.vector() for _ in range(3))

    def set_drift(self, v: Array) -> None:
        """Refill the operator from the drift at the quadrature points, shape ``(N, d)``."""
        self.galerkin.advection_values(v, out=self._values)
        self._values *= -self._scale
        self._values += self._constant
        self.galerkin.refill(self._matrix, self._values)

    def stage(self, old: Array, new: Array) -> Array:
        """Stage ``u`` of a step between two levels."""
        return old + self.theta * (new - old) if self.theta != 1.0 else new

    def step(self, rho: Array, guess: Array, out: Array) -> None:
        """Advance one step. Collective.

        Args:
            rho: Density at the start of the step, local.
            guess: Initial guess for the density at its end, local.
            out: Density at the end of the step, local; ghosts updated.
        """
        self._y.array[:] = rho
        self._mass(self._y, self._b)
        self._solve(rho, self.stage(rho, guess), out)

    def tangent_step(self, drho: Array, u: Array, dv: Array, out: Array) -> None:
        r"""Derivative of ``step``: :math:`A\dot y = M\dot\rho_n + \theta\,dt\,B(\dot v)\,u`.

        Args:
            drho: Tangent at the start of the step, local.
            u: Stage of the step, local.
            dv: Tangent of the drift at the points, shape ``(N, d)``.
            out: Tangent at the end of the step, local.
        """
        g = self.galerkin
        self._y.array[:] = drho
        self._mass(self._y, self._b)
        self._b.array[: g.n_owned] += self._scale * g.advection_action(dv, u)
        self._b.petsc_vec.stateIncrease()
        self._solve(drho, drho, out)

    def adjoint_step(self, dual: Array, guess: Array, z: Array, misfit: Array) -> Array:
        r"""Transpose of ``step``. Collective.

        For :math:`\lambda` dual to :math:`\rho_{n+1}` solves

        .. math::
            A^\top z = \lambda/\theta - c M 1,\quad c = \frac{1^\top\lambda}{\theta|\Omega|},\qquad
            \lambda \leftarrow (1 - 1/\theta)\lambda + c M 1 + M (z + m)

        so that the derivative of J in the drift's values is
        :math:`\theta\,dt\,z^\top B(\cdot)\,u`.

        Args:
            dual: Dual at the end of the step, owned entries.
            guess: Initial guess for ``z``, local.
            z: Where ``z`` is written, local; ghosts updated.
            misfit: ``m``, local: ``M m`` is the cost's own derivative in the density at the start
                of the step.

        Returns:
            Dual at the start of the step, owned entries.
        """
        g, n = self.galerkin, self.galerkin.n_owned
        stage_dual = dual / self.theta
        mass_part = g.integrals * (g.sum(stage_dual.sum()) / g.volume)
        self._b.array[:n] = stage_dual - mass_part
        self._b.petsc_vec.stateIncrease()
        self._y.array[:] = guess
        self._y.petsc_vec.stateIncrease()
        self.solver.solve_transpose(self._b.petsc_vec, self._y.petsc_vec)
        self._y.scatter_forward()
        z[:] = self._y.array
        return dual - stage_dual + mass_part + self.apply_mass(z + misfit)

    def apply_mass(self, u: Array) -> Array:
        """``M u`` for a local array, owned entries. Collective."""
        self._y.array[:] = u
        self._mass(self._y, self._image)
        return self._image.array[: self.galerkin.n_owned].copy()

    def weighted_derivative(self, product: Array) -> Array:
        """Derivative in the drift's values from the sum over steps of ``u * grad z``."""
        return self._scale * self.galerkin.advection_derivative(product)

    def _mass(self, x: Any, out: Any) -> None:
        x.petsc_vec.stateIncrease()
        self.galerkin.mass.mult(x.petsc_vec, out.petsc_vec)

    def _solve(self, rho: Array, guess: Array, out: Array) -> None:
        """From the right-hand side in ``_b`` to the end of the step."""
        g, y = self.galerkin, self._y
        y.array[:] = guess
        y.petsc_vec.stateIncrease()
        self.solver.solve(self._b.petsc_vec, y.petsc_vec)
        y.scatter_forward()
        np.subtract(y.array, rho, out=out)
        out -= g.integral(out) / g.volume
        out /= self.theta
        out += rho
