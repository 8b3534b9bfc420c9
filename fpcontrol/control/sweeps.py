r"""Forward, tangent and reverse sweeps over the steps, for weights constant on pieces of time.

The reverse sweep is the transpose of the steps that ran. It needs the weights only through the
drift's values at the quadrature points: over one piece it collects the derivative with respect to
those values, and one vector-Jacobian product of the network turns that into weights.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import checkpoint_schedules as cs
import numpy as np

from fpcontrol.control.network import NetworkDrift
from fpcontrol.control.storage import Sizes, choose, give_back
from fpcontrol.discretization.elements import Elements
from fpcontrol.noise import Noise
from fpcontrol.parallel.errors import collective_errors
from fpcontrol.stepping.schemes import Scheme
from fpcontrol.stepping.stepper import Load, Stepper
from fpcontrol.typing import Array

Observe = Callable[[int, Array], None]
Misfit = Callable[[int, Array], Array]


class Sweeps:
    """Runs a network's steps forward, along a tangent and in reverse. Collective.

    A *window* holds consecutive levels, one row each, preceded by the level before them (at the
    start of time: the first level again): the two rows from which the next initial guess is
    extrapolated, so that a recomputed step repeats the first one bit by bit. A row is the density,
    before it all stages but the last of the step that led to it: ``(stages, n_local)``.

    Args:
        elements: The discretization.
        drift: The network, for its structure; the weights are arguments of the sweeps.
        noise: Noise of the equation.
        steps: Number of steps, a multiple of the drift's pieces.
        scheme, linear_solver, petsc_options: See ``Stepper``.
        memory, disk, snapshots: See ``storage.choose``.

    Attributes:
        stepper: Takes the steps.
        storage: What is kept for the reverse sweep.
    """

    def __init__(
        self,
        elements: Elements,
        drift: NetworkDrift,
        noise: Noise,
        steps: int,
        scheme: Scheme,
        linear_solver: str,
        petsc_options: Mapping[str, Any] | None,
        *,
        memory: float,
        disk: str | os.PathLike[str] | None,
        snapshots: int | None,
    ) -> None:
        self.elements, self.network, self.scale = elements, drift.network, drift.scale
        self.pieces, self.steps = drift.pieces, steps
        self.steps_per_piece = steps // drift.pieces
        self._y = drift.scaled(elements.points)
        dt = drift.t1 / steps
        with collective_errors(elements.comm):  # a schedule may raise on one rank only
            self._diffusivity = [
                [noise.diffusivity(dt * (n + c)) for c in scheme.c] for n in range(steps)
            ]
        largest = max(d for row in self._diffusivity for d in row)
        self.stepper = Stepper(elements, dt, scheme, largest, linear_solver, petsc_options)
        different = {
            (n // self.steps_per_piece, d) for n in range(steps) for d in self._diffusivity[n]
        }
        self.storage = choose(
            self.stepper.operators,
            Sizes(
                steps,
                len(different),
                self.stepper.stages * elements.n_local,
                # Drift and its derivative at the points, a few layers of the network's work on
                # blocks of them, vectors of a step.
                4 * elements.points.size + 12 * elements.n_local,
            ),
            memory,
            disk,
            snapshots,
            elements.comm,
        )
        self._touched = 0  # bytes of levels since the last were given back

    def forward(self, weights: Array, window: Array, first: int, observe: Observe | None) -> None:
        """Fill a window whose first two rows are given.

        Args:
            weights: ``(pieces, size)``.
            window: Levels ``first - 1, first, ...``, local.
            first: Number of the level in row 1.
            observe: Called with each new level's number and values.
        """
        for i in range(1, len(window) - 1):
            n = first + i - 1
            load = self.loader(weights, n)
            rho, before, new = window[i, -1], window[i - 1, -1], window[i + 1]
            self.stepper.step(rho, before, new[-1], load=load, stages=new[:-1])
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
            weights: ``(pieces, size)``.
            direction: ``(pieces, size)``.
            window: All levels of the forward run; or the first two rows alone, from ``begin``: the
                forward steps are then taken beside those of the tangent, and none is kept.
            start: Tangent of the start density, local; zero unless given.
        """
        g, rows = self.elements, window[:2]
        dot = np.zeros(g.n_local) if start is None else start.copy()
        yield 0, rows[1, -1], dot
        dv = np.empty(0)
        for n in range(self.steps):
            k = n // self.steps_per_piece
            load = self.loader(weights, n)
            if n % self.steps_per_piece == 0:
                dv = self.scale * self.network.jvp(weights[k], self._y, direction[k]).T
            new = np.empty_like(dot)
            if len(window) == 2:
                rows = self.advanced(weights, rows, n, n + 1, None)
            else:
                rows = window[n + 1 : n + 3]
            old, new_row = rows[0, -1], rows[1]
            stages = self.stepper.stage_values(old, new_row[:-1], new_row[-1])
            self.stepper.tangent_step(dot, stages, dv, new, load=load)
            dot = new
            yield n + 1, new_row[-1], dot

    def derivative(
        self, weights: Array, start: Array, misfit: Misfit, observe: Observe, levels: Array | None
    ) -> Array:
        """Derivative in the weights of a sum over levels of functions of the density.

        Args:
            weights: ``(pieces, size)``.
            start: Start density, local.
            misfit: For a level's number and values, the local array whose product with the mass
                matrix is the cost's derivative in that level.
            observe: Called once for every level of the first forward run, if there is one.
            levels: The window of all levels if they are known already.

        Returns:
            Shape ``(pieces, size)``, summed over the ranks, the same on all.
        """
        reverse = _Reverse(self, weights, misfit)
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
        rows = np.zeros((2, self.stepper.stages, len(start)))
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

    def loader(self, weights: Array, n: int) -> Load:
        """What sets the operator of the stages of step ``n``."""
        theta = weights[n // self.steps_per_piece]
        key = theta.tobytes()

        def drift() -> Array:
            v = self.network.values(theta, self._y)
            v *= self.scale
            return v.T

        def load(i: int) -> None:
            self.stepper.operators.use(key, drift, self._diffusivity[n][i])

        return load


class _Reverse:
    """State of a reverse sweep: dual, adjoint stages of two steps, collection of a piece."""

    def __init__(self, sweeps: Sweeps, weights: Array, misfit: Misfit) -> None:
        g = sweeps.elements
        self._sweeps, self._weights, self._misfit = sweeps, weights, misfit
        self._dual: Array | None = None
        self._z, self._before = np.zeros((2, sweeps.stepper.stages, g.n_local))
        self._product = np.zeros((g.dimension, g.n_points, g.n_cells))
        self._gradient = np.zeros_like(weights)

    def run(self, window: Array, last: int, first: int) -> None:
        """Go from level ``last`` back to ``first``; the window ends with level ``last``."""
        sweeps, g, stepper = self._sweeps, self._sweeps.elements, self._sweeps.stepper
        offset = len(window) - 1 - last  # row of level n is n + offset
        if self._dual is None:
            self._dual = stepper.apply_mass(self._misfit(last, window[-1, -1]))
        for n in range(last - 1, first - 1, -1):
            k = n // sweeps.steps_per_piece
            load = sweeps.loader(self._weights, n)
            old, new = window[n + offset, -1], window[n + 1 + offset]
            self._dual = stepper.adjoint_step(
                self._dual, self._z, self._before, self._misfit(n, old), load=load
            )
            stages = stepper.stage_values(old, new[:-1], new[-1])
            for u, z in zip(stages, self._z, strict=True):
                g.add_product(u, z, self._product)
            sweeps._visited(window)
            if n % sweeps.steps_per_piece == 0:
                s = sweeps.scale * stepper.weighted_derivative(self._product).T
                self._gradient[k] = sweeps.network.vjp(self._weights[k], sweeps._y, s)
                self._product[:] = 0.0

    def result(self) -> Array:
        """The derivative, summed over the ranks; rank 0's sum on all, so that all bits agree."""
        comm = self._sweeps.elements.comm
        return comm.bcast(comm.reduce(self._gradient, root=0), root=0)
