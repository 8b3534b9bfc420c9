r"""Time schemes as values, and the step that runs forward, along a tangent, and backward.

Semi-discrete equation: :math:`M\dot\rho = -N(v)\rho` with :math:`N(v) = D K - B(v)`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from fpcontrol.discretization import kernels
from fpcontrol.discretization.galerkin import Array, Galerkin
from fpcontrol.stepping.operators import Operators

# A drift may jump where a piece ends, so the end of a step is approached from inside. The shift
# changes a drift that is smooth in time by 1e-9 of its change over the step, and is far above the
# rounding of the time levels up to a million steps.
INSIDE = 1e-9


class Scheme:
    r"""A singly diagonally implicit Runge-Kutta scheme, given by its Butcher tableau.

    With :math:`\gamma = a_{ii}` equal for all stages, each stage solves with
    :math:`M + \gamma\,dt\,N(v(t + c_i\,dt))`. A scheme of several stages is stiffly accurate, that
    is, b is the last row of a: its last stage is the new level.

    Attributes:
        a: Lower triangular, ``(s, s)``.
        b: Weights, ``(s,)``.
        c: Nodes, ``(s,)``, inside the step: a drift may jump at its end.
        order: Order of convergence for smooth solutions.
    """

    a: ClassVar[tuple[tuple[float, ...], ...]]
    b: ClassVar[tuple[float, ...]]
    c: ClassVar[tuple[float, ...]]
    order: ClassVar[int]

    @property
    def gamma(self) -> float:
        """The diagonal entry of ``a``."""
        return self.a[0][0]

    @property
    def name(self) -> str:
        """Name of the scheme."""
        return type(self).__name__


@dataclass(frozen=True)
class CrankNicolson(Scheme):
    r"""Second order, A-stable: the implicit midpoint rule, one operator a step.

    .. math::
        (M + \tfrac{dt}{2} N(v_{1/2}))\,u = M\rho_n,\qquad \rho_{n+1} = 2u - \rho_n

    Not L-stable: on rough data or at a switch of a drift with :math:`v\cdot n\neq 0` it rings.
    """

    a: ClassVar = ((0.5,),)
    b: ClassVar = (1.0,)
    c: ClassVar = (0.5,)
    order: ClassVar = 2


@dataclass(frozen=True)
class BackwardEuler(Scheme):
    r"""First order, L-stable: :math:`(M + dt\,N(v_1))\,\rho_{n+1} = M\rho_n`."""

    a: ClassVar = ((1.0,),)
    b: ClassVar = (1.0,)
    c: ClassVar = (1.0 - INSIDE,)
    order: ClassVar = 1


def check_scheme(scheme: Scheme | None) -> Scheme:
    """The scheme, ``CrankNicolson()`` for none, or a ValueError for what is no scheme."""
    if scheme is None:
        return CrankNicolson()
    if not isinstance(scheme, Scheme):
        what = scheme.__name__ if isinstance(scheme, type) else repr(scheme)
        raise ValueError(
            f"scheme = {what} is no scheme; give a value such as CrankNicolson() or SDIRK4()."
        )
    return scheme


_ALEXANDER = 1.0 - 0.5**0.5


@dataclass(frozen=True)
class SDIRK2(Scheme):
    """Second order, L-stable, two stages: for rough data and for switching drifts.

    References:
        R. Alexander, Diagonally implicit Runge-Kutta methods for stiff O.D.E.'s, SIAM J. Numer.
        Anal. 14 (1977).
    """

    a: ClassVar = ((_ALEXANDER, 0.0), (1.0 - _ALEXANDER, _ALEXANDER))
    b: ClassVar = (1.0 - _ALEXANDER, _ALEXANDER)
    c: ClassVar = (_ALEXANDER, 1.0 - INSIDE)
    order: ClassVar = 2


@dataclass(frozen=True)
class SDIRK4(Scheme):
    """Fourth order, L-stable, five stages.

    Gauss-Legendre collocation has order 4 with two stages, but they are coupled: systems of twice
    the size, or complex ones. It is not L-stable either: at switches and on rough data it rings as
    Crank-Nicolson does, where this scheme damps. Here all stages share one real operator, up to the
    drift, and its solver.

    References:
        E. Hairer, G. Wanner, Solving Ordinary Differential Equations II, section IV.6, (6.16).
    """

    a: ClassVar = (
        (1 / 4, 0.0, 0.0, 0.0, 0.0),
        (1 / 2, 1 / 4, 0.0, 0.0, 0.0),
        (17 / 50, -1 / 25, 1 / 4, 0.0, 0.0),
        (371 / 1360, -137 / 2720, 15 / 544, 1 / 4, 0.0),
        (25 / 24, -49 / 48, 125 / 16, -85 / 12, 1 / 4),
    )
    b: ClassVar = (25 / 24, -49 / 48, 125 / 16, -85 / 12, 1 / 4)
    c: ClassVar = (1 / 4, 3 / 4, 11 / 20, 1 / 2, 1.0 - INSIDE)
    order: ClassVar = 4


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
        galerkin: The discretization.
        dt: Time step.
        scheme: Such as ``CrankNicolson()``.
        diffusivity: Largest ``D = sigma**2/2`` of the run, for the choice of a preconditioner.
        linear_solver, petsc_options: See ``LinearSolver``.

    Attributes:
        operators: The operators, see ``Operators``.
    """

    def __init__(
        self,
        galerkin: Galerkin,
        dt: float,
        scheme: Scheme,
        diffusivity: float,
        linear_solver: str = "auto",
        petsc_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.galerkin, self.scheme, self.dt = galerkin, scheme, dt
        self.stages = len(scheme.b)
        self._scale = scheme.gamma * dt
        self.operators = Operators(galerkin, self._scale, diffusivity, linear_solver, petsc_options)
        self.solver = self.operators.solver
        self._b, self._y, self._image = (galerkin.vector() for _ in range(3))

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
        sources = [self._scale * self.galerkin.advection_action(dv, u) for u in stages]
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
        g, scheme = self.galerkin, self.scheme
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
        self.galerkin.mass.mult(self._y.petsc_vec, self._image.petsc_vec)
        return self._image.array[: self.galerkin.n_owned].copy()

    def weighted_derivative(self, product: Array) -> Array:
        """Derivative in the drift's values from the sum over stages of ``u * grad z``."""
        return self._scale * self.galerkin.advection_derivative(product)

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
        g, y, scheme, n = self.galerkin, self._y, self.scheme, self.galerkin.n_owned
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
