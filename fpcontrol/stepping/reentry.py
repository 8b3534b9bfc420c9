r"""Steps of any method whose walls take mass that enters again: values, tangent and transpose.

With a step S of the method itself, and I the integrals of the basis,

.. math::
    \rho_{n+1} = S\rho_n + \tfrac a2\,(r + S r),\qquad
    a = \frac{2\,I\cdot(\rho_n - S\rho_n)}{1 + I\cdot S r},

which keeps the mass to round-off. What the walls take in a step is a: of :math:`\rho_n`, and of the
mass that has entered since. Half of that is as it enters at the end of the step, half has come at
its beginning: the trapezoidal rule for Duhamel's integral

.. math:: \int_0^{dt} S_{dt-s}\,r\,f(t_n + s)\,ds,

of second order in the step where r is smooth on the length that is diffused in a step. A positive S
keeps :math:`\rho_{n+1}` positive.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fpcontrol.discretization.base import StageDrift
from fpcontrol.discretization.reentry import Reentry
from fpcontrol.stepping.base import Collect, Drive, Stepper
from fpcontrol.typing import Array


@dataclass(frozen=True)
class _Returned:
    """The step of r itself: its end, what it has kept, its mass, and what each wall took of it."""

    end: Array
    kept: Array
    mass: float
    absorbed: Array


class ReentryStepper(Stepper):
    """A step of another stepper, after which enters again what the walls have taken. Collective.

    Args:
        inner: Steps of the method with its walls.
        reentry: Where mass enters.
        stages: How often a step asks for the drift.
    """

    def __init__(self, inner: Stepper, reentry: Reentry, stages: int) -> None:
        self.system, self._inner, self._stages = inner.system, inner, stages
        self._r = reentry.density
        self.operators, self.solver = inner.operators, inner.solver
        self.rows = inner.rows + 1  # the end of the inner step
        self.workspace = inner.workspace + (inner.rows + 6) * len(self._r)
        self.absorbed = np.zeros_like(inner.absorbed)
        self.limited = 0
        self._known: tuple[dict[int, Hashable], _Returned] | None = None

    def step(
        self, rho: Array, before: Array, out: Array, drive: Drive, kept: Array | None = None
    ) -> None:
        """Advance one step; ``kept`` takes the end of the inner step last. Collective."""
        inner, key, limited = self._inner, dict[int, Hashable](), self._inner.limited
        end = np.empty_like(rho) if kept is None else kept[-1]

        def noted(i: int) -> StageDrift:
            stage = drive(i)
            key[i] = stage.key, stage.diffusivity
            return stage

        inner.step(rho, before, end, noted, None if kept is None else kept[:-1])
        self.limited += inner.limited - limited
        own = inner.absorbed.copy()
        returned = self._returned(key, drive)
        self.produced = a = self._entering(rho - end, returned)
        if self.system.positive:  # less than nothing is round-off
            self.produced = a = max(a, 0.0)
        self.absorbed = own + 0.5 * a * returned.absorbed
        np.add(end, 0.5 * a * (self._r + returned.end), out=out)

    def tangent_step(
        self,
        drho: Array,
        rho: Array,
        kept: Array,
        new: Array,
        drive: Drive,
        dv: Callable[[int], Array],
        out: Array,
    ) -> None:
        """Derivative of ``step``. Collective."""
        returned, end = self._returned(self._key(drive), drive), kept[-1]
        a = self._entering(rho - end, returned)
        change, still = np.empty_like(rho), np.zeros_like(rho)
        self._inner.tangent_step(still, self._r, returned.kept, returned.end, drive, dv, change)
        self._inner.tangent_step(drho, rho, kept[:-1], end, drive, dv, out)
        # of a (1 + I z) = 2 I (rho - y)
        da = self._entering(drho - out - 0.5 * a * change, returned)
        out += 0.5 * da * (self._r + returned.end) + 0.5 * a * change

    def adjoint_state(self) -> tuple[Any, Any]:
        """Of both inner steps."""
        return self._inner.adjoint_state(), self._inner.adjoint_state()

    def adjoint_step(
        self,
        dual: Array,
        rho: Array,
        kept: Array,
        new: Array,
        drive: Drive,
        state: tuple[Any, Any],
        collect: Collect,
    ) -> Array:
        """Transpose of ``step``. Collective."""
        g, inner, end = self.system.elements, self._inner, kept[-1]
        returned = self._returned(self._key(drive), drive)
        a = self._entering(rho - end, returned)
        of_a = 0.5 * g.sum(float(dual @ (self._r + returned.end)[: g.n_owned]))
        mass = (2.0 * of_a / (1.0 + returned.mass)) * g.integrals
        inner.adjoint_step(
            0.5 * a * (dual - mass),
            self._r,
            returned.kept,
            returned.end,
            drive,
            state[1],
            collect,
        )
        result = mass + inner.adjoint_step(
            dual - mass, rho, kept[:-1], end, drive, state[0], collect
        )
        assert self.system.absorbing is not None
        self.system.absorbing.project_owned(result)
        return result

    @property
    def product_scale(self) -> float:
        """That of the inner steps."""
        return self._inner.product_scale

    def _entering(self, lost: Array, returned: _Returned) -> float:
        """The mass that enters for a difference of densities, local. Collective."""
        return 2.0 * self.system.elements.integral(lost) / (1.0 + returned.mass)

    def _key(self, drive: Drive) -> dict[int, Hashable]:
        stages = (drive(i) for i in range(self._stages))
        return {i: (stage.key, stage.diffusivity) for i, stage in enumerate(stages)}

    def _returned(self, key: dict[int, Hashable], drive: Drive) -> _Returned:
        """The step of r, made anew where another drift acts than in the last one. Collective."""
        if self._known is None or self._known[0] != key:
            self._known = None
            end, kept = np.empty_like(self._r), np.empty((self._inner.rows - 1, len(self._r)))
            self._inner.step(self._r, self._r, end, drive, kept)
            mass = self.system.elements.integral(end)
            self._known = key, _Returned(end, kept, mass, self._inner.absorbed.copy())
        return self._known[1]
