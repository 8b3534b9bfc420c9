"""The limited step: two implicit ones and the limiter between them; see ``limiter``."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np

from fpcontrol.discretization.base import DriftProducts, StageDrift
from fpcontrol.discretization.limited import LimitedProducts, LimitedSystem
from fpcontrol.discretization.limiter import CellDrift, StepEnds
from fpcontrol.linalg.buffers import BufferCache
from fpcontrol.stepping.base import Collect, Drive, Kept, Stepper
from fpcontrol.stepping.runge_kutta import RungeKuttaStepper
from fpcontrol.stepping.schemes import BackwardEuler, RungeKutta
from fpcontrol.typing import Array

type State = tuple[tuple[Array, Array], tuple[Array, Array]]


class LimitedStepper(Stepper):
    """A step of ``Limited()``. Collective.

    Args:
        system: The limited method on a mesh.
        dt: Time step.
        scheme: Of Galerkin's step, with the drift in the step's middle for all its stages.
        diffusivity: Largest D of the run.
        linear_solver, petsc_options: See ``LinearSolver``; of both systems of a step.
    """

    system: LimitedSystem

    def __init__(
        self,
        system: LimitedSystem,
        dt: float,
        scheme: RungeKutta,
        diffusivity: float,
        linear_solver: str = "auto",
        petsc_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.system, self.dt = system, dt
        options = diffusivity, linear_solver, petsc_options
        # Galerkin's operator can be singular to round-off; the limiter bounds whatever comes of it.
        self._high = RungeKuttaStepper(system.high, dt, scheme, *options, null_pivots=True)
        self._low = RungeKuttaStepper(system.low, dt, BackwardEuler(), *options)
        self._b, self._gamma = scheme.b, scheme.gamma
        # Galerkin's inner stages and its end, the monotone end, then the density.
        self.rows = len(scheme.b) + 2
        self.operators = Pair(self._high.operators, self._low.operators)
        self.solver = Both(self._high, self._low)
        self.absorbed = np.zeros(len(system.absorbing.tags) if system.absorbing else 0)
        self._drifts: BufferCache[list[CellDrift]] = BufferCache(list)
        self.limited = 0

    def step(
        self, rho: Array, before: Array, out: Array, drive: Drive, kept: Array | None = None
    ) -> None:
        """Advance one step; ``kept`` takes the ends of the two it is made of. Collective."""
        drive, stage = _shared(drive)
        room = np.empty((self.rows - 1, len(rho))) if kept is None else kept
        self._high.step(rho, before, room[-2], drive, room[:-2])
        self._low.step(rho, before, room[-1], drive)
        ends = self._ends(rho, room)
        out[:], limited = self.system.limiter(ends, self._drift(stage), self.dt)
        self.limited += limited
        self.absorbed = self._low.absorbed + self.system.limiter.absorbed

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
        drive, stage = _shared(drive)
        ends, room, turned = self._ends(rho, kept), np.empty_like(kept), dv(0)

        def same(i: int) -> Array:
            return turned

        self._high.tangent_step(drho, rho, kept[:-2], ends.high, drive, same, room[-2], room[:-2])
        self._low.tangent_step(drho, rho, kept[:0], ends.low, drive, same, room[-1])
        change = self._ends(drho, room)
        out[:] = self.system.limiter.tangent(ends, change, self._drift(stage), turned, self.dt)

    def adjoint_state(self) -> State:
        """Adjoint stages of both steps."""
        return self._high.adjoint_state(), self._low.adjoint_state()

    def adjoint_step(
        self,
        dual: Array,
        rho: Array,
        kept: Array,
        new: Array,
        drive: Drive,
        state: State,
        collect: Collect,
    ) -> Array:
        """Transpose of ``step``. Collective."""
        drive, stage = _shared(drive)
        ends, products = self._ends(rho, kept), collect(0)
        assert isinstance(products, LimitedProducts)
        duals = self.system.limiter.transpose(
            dual, ends, self._drift(stage), self.dt, products.of_v, products.of_p
        )
        products.share = self._gamma
        if duals is None:
            high = _always(products.high)
            return self._high.adjoint_step(dual, rho, kept[:-2], ends.high, drive, state[0], high)
        of_rho, of_high, of_inner = self._of_ends(duals)
        high, low = _always(products.high), _always(products.low)
        return (
            of_rho
            + self._high.adjoint_step(
                of_high, rho, kept[:-2], ends.high, drive, state[0], high, of_inner
            )
            + self._low.adjoint_step(duals.low, rho, kept[:0], ends.low, drive, state[1], low)
        )

    @property
    def product_scale(self) -> float:
        """``dt``."""
        return self.dt

    def _ends(self, rho: Array, kept: Array) -> StepEnds:
        """Densities of a step, or their tangents, from its start and what was kept of it."""
        *inner, high, low = kept
        if not inner:  # one stage u, and high = rho + b (u - rho) / gamma
            share = self._gamma
            return StepEnds(rho, (1.0 - share) * rho + share * high, high, low)
        mean = self._b[-1] * high
        for weight, stage in zip(self._b, inner, strict=False):
            mean += weight * stage
        return StepEnds(rho, mean, high, low)

    def _of_ends(self, duals: StepEnds) -> tuple[Array, Array, Array]:
        """The transpose of ``_ends``: duals of the start, of the end and of the stages between."""
        weights = self._b[:-1]
        if not weights:
            share = self._gamma
            of_rho = duals.rho + (1.0 - share) * duals.mean
            return of_rho, duals.high + share * duals.mean, np.empty((0, len(duals.mean)))
        return duals.rho, duals.high + self._b[-1] * duals.mean, np.outer(weights, duals.mean)

    def _drift(self, stage: StageDrift) -> CellDrift:
        """What the limiter wants to know of a stage's drift."""

        def fill(room: list[CellDrift]) -> None:
            room[:] = [self.system.cell_drift(stage.values(), stage.diffusivity)]

        return self._drifts((stage.key, stage.diffusivity), fill)[0]


class Pair(Kept):
    """Operators of the two steps, as many of one as of the other."""

    def __init__(self, high: Kept, low: Kept) -> None:
        self._high, self._low = high, low

    @property
    def memory(self) -> float:
        """Bytes of a pair on this rank. Collective."""
        return self._high.memory + self._low.memory

    def keep(self, memory: float, most: int) -> int:
        """Keep as many pairs as fit, at least one; returns how many. Collective."""
        high, low = self._high.memory, self._low.memory
        per_byte = memory / max(high + low, 1.0)
        return min(self._high.keep(high * per_byte, most), self._low.keep(low * per_byte, most))


class Both:
    """Statistics of both solvers."""

    def __init__(self, *steppers: Stepper) -> None:
        self._solvers = [stepper.solver for stepper in steppers]
        self.method = self._solvers[0].method

    @property
    def iterations(self) -> int:
        """Of both."""
        return sum(solver.iterations for solver in self._solvers)

    @property
    def rescues(self) -> int:
        """Of both."""
        return sum(solver.rescues for solver in self._solvers)

    @property
    def tolerance(self) -> float:
        """The larger one."""
        return max(solver.tolerance for solver in self._solvers)


def _always(products: DriftProducts) -> Collect:
    """Where all stages add to the same products."""
    return lambda i: products


def _shared(drive: Drive) -> tuple[Drive, StageDrift]:
    """The drift in the middle of a step, asked for at most once, for all parts of it."""
    stage = drive(0)
    shared = StageDrift(stage.key, cache(stage.values), stage.diffusivity)
    return lambda i: shared, shared
