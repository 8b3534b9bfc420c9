r"""The step that runs forward, along a tangent, and backward.

Semi-discrete equation: :math:`M\dot\rho = -N(v)\rho` with :math:`N(v) = D K - B(v)`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fpcontrol.discretization import kernels
from fpcontrol.discretization.elements import Elements
from fpcontrol.stepping.operators import Operators
from fpcontrol.stepping.schemes import Scheme
from fpcontrol.typing import Array

Load = Callable[[int], None]


class Stepper:
    r"""One time step, its tangent and its transpose, for an operator that is refilled. Collective.

    With :math:`A_i = M + \gamma\,dt\,N(v(t + c_i dt))`, a step is, for the stages in turn,

    .. math::
        r_i &= \rho_n + \textstyle\sum_{j<i} a_{ij} d_j,\qquad A_i y_i = M r_i,\\
        u_i &= y_i + \frac{1^\top M(r_i - y_i)}{|\Omega|}\,1,\qquad d_i = (u_i - r_i)/\gamma,

    and :math:`\rho_{n+1} = \rho_n + \sum b_i d_i`. The correction in :math:`u_i` vanishes for an
    exact solve, because :math:`1^\top A = 1^\top M`; after an iterative one it gives back the mass
    that the solver's tolerance lost.

    Where the operator changes between stages, ``load(i)`` is called before stage ``i`` and sets it
    (``operators.use``).

    Args:
        elements: The discretization.
        dt: Time step.
        scheme: Such as ``CrankNicolson()``.
        diffusivity: Largest ``D = sigma**2/2`` of the run, for the choice of a preconditioner.
        linear_solver, petsc_options: See ``LinearSolver``.

    Attributes:
        operators: The operators, see ``Operators``.
    """

    def __init__(
        self,
        elements: Elements,
        dt: float,
        scheme: Scheme,
        diffusivity: float,
        linear_solver: str = "auto",
        petsc_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.elements, self.scheme, self.dt = elements, scheme, dt
        self.stages = len(scheme.b)
        self._scale = scheme.gamma * dt
        self.operators = Operators(elements, self._scale, diffusivity, linear_solver, petsc_options)
        self.solver = self.operators.solver
        self._b, self._y, self._image = (elements.vector() for _ in range(3))

    def step(
        self,
        rho: Array,
        before: Array,
        out: Array,
        *,
        load: Load | None = None,
        stages: Array | None = None,
    ) -> None:
        """Advance one step. Collective.

        Args:
            rho: Density at the start of the step, local.
            before: Density a step before, local: iterations start where a line through both leads.
            out: Density at the end of the step, local; ghosts updated.
            load: Sets the operator of a stage.
            stages: If given, room for all stages ``u_i`` but the last, ``(stages - 1, n_local)``.
        """
        self._run(rho, (rho, before), out, load, None, stages)

    def stage_values(self, rho: Array, stages: Array, new: Array) -> list[Array]:
        """All stages ``u_i`` of a step.

        Args:
            rho: Density at the start of the step, local.
            stages: Those that ``step`` has kept.
            new: Density at the end of the step, local.
        """
        if self.stages == 1:
            return [rho + self.scheme.gamma * (new - rho)]
        return [*stages, new]

    def tangent_step(
        self, drho: Array, stages: list[Array], dv: Array, out: Array, *, load: Load | None = None
    ) -> None:
        r"""Derivative of ``step``: :math:`A_i\dot y_i = M\dot r_i + \gamma\,dt\,B(\dot v)\,u_i`.

        Args:
            drho: Tangent at the start of the step, local.
            stages: Stages of the step, local.
            dv: Tangent of the drift at the points, shape ``(N, d)``, the same in all stages.
            out: Tangent at the end of the step, local.
            load: Sets the operator of a stage.
        """
        sources = [self._scale * self.elements.advection_action(dv, u) for u in stages]
        self._run(drho, (drho, drho), out, load, sources, None)

    def adjoint_step(
        self, dual: Array, z: Array, before: Array, misfit: Array, *, load: Load | None = None
    ) -> Array:
        r"""Transpose of ``step``. Collective.

        For :math:`\lambda` dual to :math:`\rho_{n+1}` and :math:`\delta_i = b_i\lambda` at first,
        the stages in reverse solve

        .. math::
            A_i^\top z_i = \delta_i/\gamma - c_i M 1,\quad
            c_i = \frac{1^\top\delta_i}{\gamma|\Omega|},\quad
            s_i = M z_i + c_i M 1 - \delta_i/\gamma,\quad
            \delta_j \leftarrow \delta_j + a_{ij} s_i\;(j<i),

        and :math:`\lambda \leftarrow \lambda + \sum s_i + M m`. The derivative of J in the drift's
        values is :math:`\gamma\,dt\sum z_i^\top B(\cdot)\,u_i`.

        Args:
            dual: Dual at the end of the step, owned entries.
            z: ``(stages, n_local)``; initial guesses, replaced by ``z_i``, ghosts updated.
            before: ``z`` of the step treated before this one, for the guesses.
            misfit: ``m``, local: ``M m`` is the cost's own derivative in the density at the start
                of the step.
            load: Sets the operator of a stage.

        Returns:
            Dual at the start of the step, owned entries.
        """
        g, scheme = self.elements, self.scheme
        b, y, result = self._b, self._y, dual.copy()
        increments = [weight * dual for weight in scheme.b]
        for i in reversed(range(self.stages)):
            if load:
                load(i)
            mean = g.sum(increments[i].sum()) / (scheme.gamma * g.volume)
            kernels.projected(increments[i], 1.0 / scheme.gamma, g.integrals, mean, b.array)
            b.changed()
            kernels.blend(2.0, z[i], -1.0, before[i], y.array)
            y.changed()
            self.solver.solve_transpose(b.petsc_vec, y.petsc_vec)
            y.scatter_forward()
            before[i], z[i] = z[i], y.array
            if i == 0:  # the cost's own part goes through the last product with M
                y.array += misfit
                y.changed()
            g.mass.mult(y.petsc_vec, self._image.petsc_vec)
            start = self._image.array[: g.n_owned] - b.array[: g.n_owned]
            result += start
            for j in range(i):
                increments[j] += scheme.a[i][j] * start
        return result

    def apply_mass(self, u: Array) -> Array:
        """``M u`` for a local array, owned entries. Collective."""
        self._y.set(u)
        self.elements.mass.mult(self._y.petsc_vec, self._image.petsc_vec)
        return self._image.array[: self.elements.n_owned].copy()

    def weighted_derivative(self, product: Array) -> Array:
        """Derivative in the drift's values from the sum over stages of ``u * grad z``."""
        return self._scale * self.elements.advection_derivative(product)

    def _before(self, i: int, rho: Array, increments: list[Array]) -> Array:
        """``r_i``."""
        start = rho
        for j in range(i):
            start = start + self.scheme.a[i][j] * increments[j]
        return start

    def _run(
        self,
        rho: Array,
        line: tuple[Array, Array],
        out: Array,
        load: Load | None,
        sources: list[Array] | None,
        stages: Array | None,
    ) -> None:
        """All stages of a step, with sources added to their right-hand sides.

        The guess for stage ``i`` is ``rho + c_i (line[0] - line[1])``. The stages but the last are
        kept in ``stages``.
        """
        g, y, scheme, n = self.elements, self._y, self.scheme, self.elements.n_owned
        increments: list[Array] = []
        out[:] = rho
        for i in range(self.stages):
            if load:
                load(i)
            start = self._before(i, rho, increments)
            y.set(start)
            g.mass.mult(y.petsc_vec, self._b.petsc_vec)
            if sources is not None:
                self._b.array[:n] += sources[i]
                self._b.changed()
            if self.solver.method != "direct":
                kernels.blend(scheme.c[i], line[0], -scheme.c[i], line[1], y.array)
                y.array += rho
                y.changed()
            self.solver.solve(self._b.petsc_vec, y.petsc_vec)
            y.scatter_forward()
            d = np.subtract(y.array, start)
            shift = g.integral(d) / g.volume
            kernels.increment(y.array, start, shift, scheme.gamma, scheme.b[i], d, out)
            increments.append(d)
            if stages is not None and i < len(stages):
                kernels.blend(1.0, start, scheme.gamma, d, stages[i])
