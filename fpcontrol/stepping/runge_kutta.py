"""The implicit Runge-Kutta step: forward, along a tangent, and backward."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fpcontrol.discretization import kernels
from fpcontrol.discretization.base import SemiDiscretization
from fpcontrol.linalg.linear_solvers import LinearSolver
from fpcontrol.stepping.base import Collect, Drive, Stepper
from fpcontrol.stepping.operators import Operators
from fpcontrol.stepping.schemes import RungeKutta
from fpcontrol.typing import Array


class RungeKuttaStepper(Stepper):
    r"""A singly diagonally implicit step for an operator that is refilled. Collective.

    With :math:`A_i = M + \gamma\,dt\,N(v(t + c_i dt))`, a step is, for the stages in turn,

    .. math::
        r_i &= \rho_n + \textstyle\sum_{j<i} a_{ij} d_j,\qquad A_i y_i = M r_i,\\
        u_i &= r_i + P(y_i - r_i),\qquad d_i = (u_i - r_i)/\gamma,

    and :math:`\rho_{n+1} = \rho_n + \sum b_i d_i`. The projection P gives back the mass that the
    solver's tolerance lost (``Restoration``); an exact solve does not feel it. With absorbing walls
    the operators are closed there, right-hand sides projected and P is the identity; stages of
    positive methods are restored together with what is absorbed (``discretization.absorbing``).

    Args:
        system: The discretization on a mesh.
        dt: Time step.
        scheme: Such as ``CrankNicolson()``.
        diffusivity: Largest ``D = sigma**2/2`` of the run, for the choice of a preconditioner.
        linear_solver, petsc_options, null_pivots: See ``LinearSolver``.

    Attributes:
        operators: The operators, see ``Operators``.
    """

    solver: LinearSolver

    def __init__(
        self,
        system: SemiDiscretization,
        dt: float,
        scheme: RungeKutta,
        diffusivity: float,
        linear_solver: str = "auto",
        petsc_options: Mapping[str, Any] | None = None,
        null_pivots: bool = False,
    ) -> None:
        self.system, self.scheme, self.dt = system, scheme, dt
        self.rows = len(scheme.b)
        self._scale = scheme.gamma * dt
        self.operators: Operators = Operators(
            system, self._scale, diffusivity, linear_solver, petsc_options, null_pivots
        )
        self.solver = self.operators.solver
        self._b, self._y, self._image = (system.elements.vector() for _ in range(3))
        self.absorbed = np.zeros(len(system.absorbing.tags) if system.absorbing else 0)

    def step(
        self, rho: Array, before: Array, out: Array, drive: Drive, kept: Array | None = None
    ) -> None:
        """Advance one step; ``kept`` takes all stages ``u_i`` but the last. Collective."""
        line = (rho, rho) if self.system.positive else (rho, before)
        self.absorbed[:], self.killed = 0.0, 0.0
        self._run(rho, line, out, drive, None, kept)

    def tangent_step(
        self,
        drho: Array,
        rho: Array,
        kept: Array,
        new: Array,
        drive: Drive,
        dv: Callable[[int], Array],
        out: Array,
        kept_change: Array | None = None,
    ) -> None:
        r"""Derivative of ``step``: :math:`A_i\dot y_i = M\dot r_i - \gamma\,dt\,\dot N\,u_i`.

        ``kept_change``, if given, takes that of what is kept.
        """
        stages = self._stage_values(rho, kept, new)

        def source(i: int) -> Array:
            return self._scale * self.system.source(dv(i), stages[i], drive(i))

        self._run(drho, (drho, drho), out, drive, source, kept_change, stages)

    def adjoint_state(self) -> tuple[Array, Array]:
        """Adjoint stages of two steps, from which iterations extrapolate."""
        z, before = np.zeros((2, self.rows, self.system.elements.n_local))
        return z, before

    def adjoint_step(
        self,
        dual: Array,
        rho: Array,
        kept: Array,
        new: Array,
        drive: Drive,
        state: tuple[Array, Array],
        collect: Collect,
        of_kept: Array | None = None,
    ) -> Array:
        r"""Transpose of ``step``. Collective.

        For :math:`\lambda` dual to :math:`\rho_{n+1}` and :math:`\delta_i = b_i\lambda` at first,
        the stages in reverse solve

        .. math::
            A_i^\top z_i = P^\top\delta_i/\gamma,\qquad
            s_i = M z_i - P^\top\delta_i/\gamma,\qquad
            \delta_j \leftarrow \delta_j + a_{ij} s_i\;(j<i),

        and :math:`\lambda \leftarrow \lambda + \sum s_i`. The derivative of J in the drift's values
        is that of :math:`-\gamma\,dt\sum z_i^\top N(\cdot)\,u_i`. Where the stages
        :math:`u_i = r_i + \gamma d_i` have duals of their own, ``of_kept (rows - 1, n_owned)``,
        these come to :math:`\delta_i`, to those before and to :math:`\lambda`.
        """
        g, scheme = self.system.elements, self.scheme
        z, before = state
        b, y, result = self._b, self._y, dual.copy()
        stages = self._stage_values(rho, kept, new)
        increments = [weight * dual for weight in scheme.b]
        for i, own in enumerate(() if of_kept is None else of_kept):
            result += own
            for j in range(i + 1):
                increments[j] += scheme.a[i][j] * own
        for i in reversed(range(self.rows)):
            stage = drive(i)
            self.operators.use(stage)
            self.system.restoration.transpose(increments[i], scheme.gamma, stages[i], b.array)
            b.changed()
            kernels.blend(2.0, z[i], -1.0, before[i], y.array)
            y.changed()
            self.solver.solve_transpose(b.petsc_vec, y.petsc_vec)
            y.scatter_forward()
            before[i], z[i] = z[i], y.array
            collect(i).add(stages[i], z[i], stage)
            self.system.mass.mult(y.petsc_vec, self._image.petsc_vec)
            start = self._image.array[: g.n_owned] - b.array[: g.n_owned]
            result += start
            for j in range(i):
                increments[j] += scheme.a[i][j] * start
        if self.system.absorbing:
            self.system.absorbing.project_owned(result)
        return result

    @property
    def product_scale(self) -> float:
        r""":math:`\gamma\,dt`."""
        return self._scale

    def _stage_values(self, rho: Array, kept: Array, new: Array) -> list[Array]:
        """All stages ``u_i`` of a step."""
        if self.rows == 1:
            return [rho + self.scheme.gamma * (new - rho)]
        return [*kept, new]

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
        drive: Drive,
        source: Callable[[int], Array] | None,
        kept: Array | None,
        states: list[Array] | None = None,
    ) -> None:
        """All stages of a step, with sources added to their right-hand sides.

        The guess for stage ``i`` is ``rho + c_i (line[0] - line[1])``. The stages but the last are
        kept in ``kept``. The restoration is taken at ``states``, or at what is solved for.
        """
        system, y, scheme = self.system, self._y, self.scheme
        n, increments, walls = system.elements.n_owned, list[Array](), system.absorbing
        out[:] = rho
        reacting = system.reacting if source is None else None
        for i in range(self.rows):
            self.operators.use(drive(i))
            start = self._before(i, rho, increments)
            y.set(start)
            system.mass.mult(y.petsc_vec, self._b.petsc_vec)
            if source is not None:
                self._b.array[:n] += source(i)
                self._b.changed()
            if reacting:
                self._b.array[:n] += self._scale * reacting.load
                self._b.changed()
            if walls:
                walls.project_owned(self._b.array)
                self._b.changed()
            if self.solver.method != "direct":
                kernels.blend(scheme.c[i], line[0], -scheme.c[i], line[1], y.array)
                y.array += rho
                y.changed()
            self.solver.solve(self._b.petsc_vec, y.petsc_vec)
            y.scatter_forward()
            if walls and source is None:
                absorbed = self.operators.absorbed(start, y.array)
                if reacting:
                    absorbed += walls.collected(self._scale * reacting.load)
                elif system.positive:
                    absorbed = walls.restored(start, y.array, absorbed)
                self.absorbed += scheme.b[i] / scheme.gamma * absorbed
            if reacting:
                self.killed += scheme.b[i] * self.dt * float(reacting.loss @ y.array[:n])
            d = np.empty_like(start)
            state = y.array if states is None else states[i]
            system.restoration.increment(y.array, start, scheme.gamma, scheme.b[i], state, d, out)
            increments.append(d)
            if kept is not None and i < len(kept):
                kernels.blend(1.0, start, scheme.gamma, d, kept[i])
