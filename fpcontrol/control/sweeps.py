r"""Forward, tangent and reverse sweeps over the steps, for a drift with weights.

The reverse sweep is the transpose of the steps that ran. It needs the weights only through the
drift's values at the points of the discretization: while the weights stay the same it collects the
derivative with respect to those values, and one vector-Jacobian product of the field turns that
into weights.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import checkpoint_schedules as cs
import numpy as np

from fpcontrol.control.objectives import Cost
from fpcontrol.control.parametric import ParametricDrift, Terms
from fpcontrol.control.storage import Sizes, choose, give_back
from fpcontrol.discretization.base import DriftProducts, SemiDiscretization, StageDrift, driven
from fpcontrol.discretization.diffusion import Diffusivity
from fpcontrol.discretization.noise_sampler import NoiseSampler
from fpcontrol.linalg.buffers import read_only
from fpcontrol.parallel.errors import collective_errors
from fpcontrol.stepping.base import Drive
from fpcontrol.stepping.schemes import Scheme
from fpcontrol.stepping.stepper import make_stepper
from fpcontrol.typing import Array

Observe = Callable[[int, Array], None]
See = Callable[[Terms, Array], None]


class Sweeps:
    """Runs steps forward, along a tangent and in reverse. Collective.

    A *window* holds consecutive levels, one row each, preceded by the level before them (at the
    start of time: the first level again): the two rows from which the next initial guess is
    extrapolated, so that a recomputed step repeats the first one bit by bit. A row is the density,
    before it what the step that led to it has kept: ``(stepper.rows, n_local)``.

    Args:
        system: The discretization on the mesh.
        drift: The drift, for its field and how its weights vary in time; the weights are arguments
            of the sweeps, ``(blocks, size)``.
        noise: Noise of the equation, at the system's points.
        steps: Number of steps, a multiple of the drift's pieces.
        scheme, linear_solver, petsc_options: See ``Stepper``.
        memory, disk, snapshots: See ``storage.choose``.

    Attributes:
        stepper: Takes the steps.
        storage: What is kept for the reverse sweep.
    """

    def __init__(
        self,
        system: SemiDiscretization,
        drift: ParametricDrift,
        noise: NoiseSampler,
        steps: int,
        scheme: Scheme,
        linear_solver: str,
        petsc_options: Mapping[str, Any] | None,
        *,
        memory: float,
        disk: str | os.PathLike[str] | None,
        snapshots: int | None,
    ) -> None:
        self.system, self.elements, self.steps = system, system.elements, steps
        self.field, self.time = drift.field, drift.time
        self._noise, self._dt = noise, drift.t1 / steps
        dt, nodes = self._dt, system.discretization.nodes(scheme)
        with collective_errors(system.comm):  # a schedule may raise on one rank only
            self._diffusivity = [[noise.at(dt * (n + c)) for c in nodes] for n in range(steps)]
            self._terms = [[drift.time.terms(dt * (n + c)) for c in nodes] for n in range(steps)]
            self._middles = [drift.time.terms(dt * (n + 0.5)) for n in range(steps)]
        largest = noise.largest(D for row in self._diffusivity for D in row)
        self.stepper = make_stepper(system, dt, scheme, largest, linear_solver, petsc_options)
        different = {
            pair
            for rows in zip(self._terms, self._diffusivity, strict=True)
            for pair in zip(*rows, strict=True)
        }
        self.storage = choose(
            self.stepper.operators,
            Sizes(
                steps,
                len(different),
                self.stepper.rows * self.elements.n_local,
                # Drift and its derivative at the points, a few layers of the network's work on
                # blocks of them, vectors of a step.
                4 * system.points.size + 12 * self.elements.n_local + self.stepper.workspace,
            ),
            memory,
            disk,
            snapshots,
            system.comm,
        )
        self._known: tuple[bytes, Array] | None = None
        self._touched = 0  # bytes of levels since the last were given back

    def forward(self, weights: Array, window: Array, first: int, observe: Observe | None) -> None:
        """Fill a window whose first two rows are given.

        Args:
            weights: ``(blocks, size)``.
            window: Levels ``first - 1, first, ...``, local.
            first: Number of the level in row 1.
            observe: Called with each new level's number and values.
        """
        for i in range(1, len(window) - 1):
            n = first + i - 1
            rho, before, new = window[i, -1], window[i - 1, -1], window[i + 1]
            self.stepper.step(rho, before, new[-1], self.drive(weights, n), new[:-1])
            if observe:
                observe(n + 1, new[-1])
            self._visited(window)

    def tangent(
        self,
        weights: Array,
        direction: Array,
        window: Array,
        start: Array | None = None,
    ) -> Iterator[tuple[int, Array, Array]]:
        """Yield the number of every level, the level, and its derivative along a direction.

        Args:
            weights: ``(blocks, size)``.
            direction: ``(blocks, size)``.
            window: All levels of the forward run; or the first two rows alone, from ``begin``: the
                forward steps are then taken beside those of the tangent, and none is kept.
            start: Tangent of the start density, local; zero unless given.
        """
        g, rows = self.elements, window[:2]
        dot = np.zeros(g.n_local) if start is None else start.copy()
        yield 0, rows[1, -1], dot
        last: tuple[Terms, Array] | None = None
        for n in range(self.steps):

            def dv(i: int, n: int = n) -> Array:
                nonlocal last
                terms = self._terms[n][i]
                if last is None or last[0] != terms:
                    last = terms, self.jvp(weights, terms, direction)
                return last[1]

            new = np.empty_like(dot)
            if len(window) == 2:
                rows = self.advanced(weights, rows, n, n + 1, None)
            else:
                rows = window[n + 1 : n + 3]
            old, kept, level = rows[0, -1], rows[1, :-1], rows[1, -1]
            self.stepper.tangent_step(dot, old, kept, level, self.drive(weights, n), dv, new)
            dot = new
            yield n + 1, level, dot

    def derivative(
        self,
        weights: Array,
        start: Array,
        costs: Sequence[Cost],
        observe: Observe,
        levels: Array | None,
        see: See | None = None,
    ) -> Array:
        """Derivative of a sum of costs in the weights.

        Args:
            weights: ``(blocks, size)``.
            start: Start density, local.
            costs: Functions of the levels and of the drift in the steps.
            observe: Called once for every level of the first forward run, if there is one.
            levels: The window of all levels if they are known already.
            see: Called with the blocks of each run of steps of one drift, and this rank's part of
                the derivative in that drift's values, ``(N, d)``.

        Returns:
            Shape ``(blocks, size)``, summed over the ranks, the same on all.
        """
        reverse = _Reverse(self, weights, costs, see)
        window, first = self.begin(start), 0
        saved: dict[int, Array] = {}
        watch: Observe | None = observe
        for action in self._schedule():
            match action:
                case cs.Forward():
                    last = min(action.n1, self.steps)
                    if action.write_ics:
                        saved[first] = window[-2:].copy()
                    if levels is not None:
                        window = levels
                    elif action.write_adj_deps:
                        window = self.extended(window[-2:], last - first)
                        self.forward(weights, window, first, watch)
                    else:
                        window = self.advanced(weights, window[-2:], first, last, watch)
                    first = last
                case cs.EndForward():
                    watch = None
                case cs.Copy() | cs.Move():
                    first = action.n
                    window = saved[first] if isinstance(action, cs.Copy) else saved.pop(first)
                case cs.Reverse():
                    reverse.run(window, action.n1, action.n0)
        return reverse.result()

    def begin(self, start: Array) -> Array:
        """The first two rows of a window, for a start density; no step led to them."""
        rows = np.zeros((2, self.stepper.rows, len(start)))
        rows[:, -1] = start
        return rows

    def extended(self, rows: Array, count: int) -> Array:
        """A window with room for ``count`` more levels after two given rows."""
        window = self.storage.window((2 + count, *rows.shape[1:]), self.elements.comm)
        window[:2] = rows
        return window

    def advanced(
        self, weights: Array, rows: Array, first: int, last: int, observe: Observe | None
    ) -> Array:
        """The two rows at level ``last``, without keeping those between."""
        for n in range(first, last):
            window = np.empty((3, *rows.shape[1:]))
            window[:2] = rows
            self.forward(weights, window, n, observe)
            rows = window[1:]
        return rows

    def _schedule(self) -> Iterator[cs.CheckpointAction]:
        if self.storage.snapshots is not None:
            yield from cs.Revolve(self.steps, self.storage.snapshots)
        else:
            yield cs.Forward(0, self.steps, False, True, cs.StorageType.WORK)
            yield cs.EndForward()
            yield cs.Reverse(self.steps, 0, True)

    def _visited(self, window: Array) -> None:
        """After every step: keep the resident part of levels on disk small."""
        if self.storage.levels == "disk":
            self._touched += window[0].nbytes
            if self._touched > self.storage.resident:
                give_back(window)
                self._touched = 0

    def drive(self, weights: Array, n: int) -> Drive:
        """What drives the stages of step ``n``."""

        def stage(i: int) -> StageDrift:
            return self._stage(weights, self._terms[n][i], self._diffusivity[n][i])

        return stage

    def terms_at(self, place: float) -> Terms:
        """The blocks that act at a time in steps, with their shares."""
        return self.time.terms(self._dt * place)

    def stage_at(self, weights: Array, place: float) -> StageDrift:
        """What drives the equation at a time in steps."""
        return self._stage(weights, self.terms_at(place), self._noise.at(self._dt * place))

    def jacobian(self, weights: Array, terms: Terms) -> Array:
        """Derivatives of the drift of some terms in the weights that act, ``(size, N, d)``."""
        return self.field.jacobian(self.time.mixed(weights, terms), self.system.points)

    def middle(self, weights: Array, n: int) -> Array:
        """Drift in the middle of step ``n``, ``(N, d)``."""
        return self._values(self.time.mixed(weights, self._middles[n]))

    def middle_jvp(self, weights: Array, n: int, direction: Array) -> Array:
        """Derivative of ``middle`` along a flat direction in the weights."""
        return self.jvp(weights, self._middles[n], direction.reshape(weights.shape))

    def _stage(self, weights: Array, terms: Terms, D: float | Diffusivity) -> StageDrift:
        theta = self.time.mixed(weights, terms)
        return driven(theta.tobytes(), lambda: self._values(theta), D)

    def _values(self, theta: Array) -> Array:
        """The field at the points, read-only; the last one is kept."""
        key = theta.tobytes()
        if self._known is None or self._known[0] != key:
            self._known = None
            self._known = key, read_only(self.field.values(theta, self.system.points))
        return self._known[1]

    def jvp(self, weights: Array, terms: Terms, direction: Array) -> Array:
        """Derivative of the drift of some terms along a direction in the weights, ``(N, d)``."""
        theta, dtheta = (self.time.mixed(a, terms) for a in (weights, direction))
        return self.field.jvp(theta, self.system.points, dtheta)

    def add_vjp(self, weights: Array, terms: Terms, s: Array, out: Array) -> None:
        """Add the derivative of ``sum(s * drift)`` in the weights to ``out (blocks, size)``."""
        part = self.field.vjp(self.time.mixed(weights, terms), self.system.points, s)
        for k, c in terms:
            out[k] += c * part


class _Reverse:
    """State of a reverse sweep: dual, the stepper's own, products of the weights that act."""

    def __init__(
        self, sweeps: Sweeps, weights: Array, costs: Sequence[Cost], see: See | None
    ) -> None:
        self._sweeps, self._weights, self._costs = sweeps, weights, costs
        self._see = see
        self._drift_costs = [cost for cost in costs if cost.has_drift_part]
        self._dual: Array | None = None
        self._state = sweeps.stepper.adjoint_state()
        self._products, self._terms = sweeps.system.products(), None
        self._gradient = np.zeros_like(weights)

    _terms: Terms | None  # whose products are being collected

    def run(self, window: Array, last: int, first: int) -> None:
        """Go from level ``last`` back to ``first``; the window ends with level ``last``."""
        sweeps, stepper = self._sweeps, self._sweeps.stepper
        offset = len(window) - 1 - last  # row of level n is n + offset
        if self._dual is None:
            self._dual = np.zeros(sweeps.elements.n_owned)
            self._add_level(last, window[-1, -1])
        for n in range(last - 1, first - 1, -1):
            old, new = window[n + offset, -1], window[n + 1 + offset]
            half = self._step_dual(n, old, new[-1])
            if half is not None:
                self._dual += half

            def collect(i: int, n: int = n) -> DriftProducts:
                return self._collect(sweeps._terms[n][i])

            self._dual = stepper.adjoint_step(
                self._dual,
                old,
                new[:-1],
                new[-1],
                sweeps.drive(self._weights, n),
                self._state,
                collect,
            )
            if half is not None:
                self._dual += half
            self._add_level(n, old)
            sweeps._visited(window)

    def result(self) -> Array:
        """The derivative, summed over the ranks; rank 0's sum on all, so that all bits agree."""
        self._flush()
        comm = self._sweeps.system.comm
        return comm.bcast(comm.reduce(self._gradient, root=0), root=0)

    def _add_level(self, n: int, rho: Array) -> None:
        assert self._dual is not None
        for cost in self._costs:
            part = cost.level_dual(n, rho)
            if part is not None:
                self._dual += part

    def _step_dual(self, n: int, old: Array, new: Array) -> Array | None:
        """Half the dual of the mean of two levels; the drift's goes into the weights at once."""
        if not self._drift_costs:
            return None
        sweeps, mean = self._sweeps, 0.5 * (old + new)
        v, total = sweeps.middle(self._weights, n), np.zeros(sweeps.elements.n_owned)
        for cost in self._drift_costs:
            dual, s = cost.step_dual(n, mean, v)
            total += 0.5 * dual
            sweeps.add_vjp(self._weights, sweeps._middles[n], s, self._gradient)
        return total

    def _collect(self, terms: Terms) -> DriftProducts:
        if terms != self._terms:
            self._flush()
            self._terms = terms
        return self._products

    def _flush(self) -> None:
        """Turn what has been collected into weights."""
        terms, sweeps = self._terms, self._sweeps
        if terms is None:
            return
        s = self._products.collect()
        s *= sweeps.stepper.product_scale
        if self._see:
            self._see(terms, s)
        sweeps.add_vjp(self._weights, terms, s, self._gradient)
        self._terms = None
