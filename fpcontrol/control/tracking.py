"""The control problem: weights of a network that make the density follow a reference."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from dolfinx import fem

from fpcontrol.control.adjoint import Observe, Sweeps
from fpcontrol.control.network import NetworkDrift
from fpcontrol.fokker_planck import (
    Trajectory,
    check_density,
    check_steps,
    trajectory,
)
from fpcontrol.galerkin import Array
from fpcontrol.noise import Noise, Sigma
from fpcontrol.parallel import reduced, together
from fpcontrol.reference import MoserFlow
from fpcontrol.timestepping import CrankNicolson, Scheme


@dataclass(frozen=True)
class Errors:
    r"""How closely a density follows its reference.

    Attributes:
        value: The cost J.
        relative_error: :math:`(\int\|\rho-\rho^{ref}\|^2 dt / \int\|\rho^{ref}\|^2 dt)^{1/2}`,
            trapezoid over all time levels, L2 norms in space.
        relative_sup_error: :math:`\max_t\|\rho-\rho^{ref}\| / \max_t\|\rho^{ref}\|`.
        final_error: :math:`\|\rho-\rho^{ref}\| / \|\rho^{ref}\|` at the last time.
        over_time: :math:`\|\rho-\rho^{ref}\| / \|\rho^{ref}\|` at all levels, ``(steps + 1,)``.
    """

    value: float
    relative_error: float
    relative_sup_error: float
    final_error: float
    over_time: Array


class TrackingProblem:
    r"""Track a reference density in L2 with the weights of a network drift. Collective.

    .. math::
        J(\theta) = \tfrac12 w_r\,\mathrm{relative\_error}^2
          + \tfrac12 w_T \frac{\|\rho(T)-\rho^{ref}(T)\|^2}{\|\rho^{ref}(T)\|^2}
          + \tfrac12\,\mathrm{decay}\,\frac{|\theta|^2}{\mathrm{pieces}}

    subject to the Fokker-Planck equation with the network's drift. J is dimensionless. The
    derivative is the discrete adjoint of the scheme that runs. ``problem(weights)`` is J,
    ``problem.derivative(weights)`` its dual vector; the weights must be the same on all ranks.

    Args:
        reference: What to follow, on a mesh and in a space of its own (``MoserFlow``).
        drift: The network.
        sigma: Noise of the controlled equation, length per time**0.5; a number, or a function of
            time.
        steps: Number of time steps, a multiple of the drift's pieces; four steps a piece or more
            for figures that are reported.
        start: Start density, in the reference's space; the reference's own unless given.
        running_weight: :math:`w_r`.
        terminal_weight: :math:`w_T`.
        decay: Weight of the squared weights.
        scheme: ``CrankNicolson()`` unless given.
        linear_solver, petsc_options: See ``LinearSolver``.
        snapshots: Levels kept for the reverse sweep (Revolve recomputes the others); all unless
            given.

    Raises:
        ValueError: On all ranks, for an argument that is not as above.
    """

    def __init__(
        self,
        reference: MoserFlow,
        drift: NetworkDrift,
        sigma: Sigma,
        steps: int,
        *,
        start: fem.Function | None = None,
        running_weight: float = 1.0,
        terminal_weight: float = 0.0,
        decay: float = 0.0,
        scheme: Scheme | None = None,
        linear_solver: str = "auto",
        petsc_options: Mapping[str, Any] | None = None,
        snapshots: int | None = None,
    ) -> None:
        self.sigma, self.noise = sigma, Noise(sigma)
        self.steps = check_steps(steps, drift.pieces)
        for name, weight in (
            ("running_weight", running_weight),
            ("terminal_weight", terminal_weight),
            ("decay", decay),
        ):
            if not (np.isfinite(weight) and weight >= 0):
                raise ValueError(f"{name} = {weight!r} must be finite and not negative.")
        if snapshots is not None and (not isinstance(snapshots, int) or snapshots < 1):
            raise ValueError(f"snapshots = {snapshots!r} must be a positive integer or None.")
        if not np.isclose(drift.t1, reference.t1, rtol=1e-12):
            raise ValueError(
                f"drift.t1 = {drift.t1:g} differs from reference.t1 = {reference.t1:g}."
            )
        self.reference, self.drift, self.galerkin = reference, drift, reference.galerkin
        if drift.mesh._cpp_object != self.galerkin.mesh._cpp_object:
            raise ValueError("drift and reference live on different meshes.")
        self.start = start or reference.start
        check_density("start", self.start, self.galerkin)
        self.running_weight, self.terminal_weight = float(running_weight), float(terminal_weight)
        self.decay, self.scheme = float(decay), scheme or CrankNicolson()
        self.linear_solver, self.petsc_options = linear_solver, petsc_options
        self.snapshots = snapshots
        self.times = np.linspace(0.0, drift.t1, self.steps + 1)
        self._trapezoid = np.full(self.steps + 1, 1.0)
        self._trapezoid[[0, -1]] = 0.5
        self.sweeps = Sweeps(
            self.galerkin,
            drift,
            self.noise,
            self.steps,
            self.scheme,
            linear_solver,
            petsc_options,
            snapshots,
        )
        self._reference_norms = self._sum_levels(
            [self._local_norm(reference.coefficients(t)) for t in self.times]
        )
        self._running_scale = self.running_weight / (self._trapezoid @ self._reference_norms)
        self._terminal_scale = self.terminal_weight / self._reference_norms[-1]
        self._kept: _Kept | None = None

    # -- J and its derivatives -----------------------------------------------------------------

    def __call__(self, weights: Array) -> float:
        """J at flat weights. Collective."""
        return self.errors(weights).value

    def derivative(self, weights: Array) -> Array:
        """Derivative of J, a dual vector of the shape of ``weights``. Collective."""
        return self.value_and_derivative(weights)[1]

    def value_and_derivative(self, weights: Array) -> tuple[float, Array]:
        """J and its derivative from one forward and one reverse sweep. Collective."""
        weights = self._checked(weights)
        squares, observe = self._observer()
        levels = None
        if self.snapshots is None:
            levels = self._window(weights)
        theta = weights.reshape(self.drift.pieces, -1)
        dual = self.sweeps.derivative(
            theta, self.start.x.array, self._misfit, observe, levels
        ).ravel()
        if self.snapshots is not None:
            self._kept = _Kept(weights.tobytes(), None, self._sum_levels(squares), 0)
        dual += self.decay / self.drift.pieces * weights
        return self.errors(weights).value, dual

    def tangent(self, weights: Array, direction: Array) -> float:
        """Derivative of J along a direction from the tangent of the scheme. Collective."""
        weights, direction = self._checked(weights), self._checked(direction)
        levels = self._window(weights)[1:]
        pieces = self.drift.pieces
        total = 0.0
        for n, dot in self.sweeps.tangent(
            weights.reshape(pieces, -1), direction.reshape(pieces, -1), levels
        ):
            dual = self.sweeps.stepper.apply_mass(self._misfit(n, levels[n]))
            total += float(dual @ dot[: self.galerkin.n_owned])
        return self.galerkin.sum(total) + self.decay / pieces * float(weights @ direction)

    # -- what came out -------------------------------------------------------------------------

    def errors(self, weights: Array) -> Errors:
        """Cost and errors at flat weights. Collective."""
        weights = self._checked(weights)
        if self._kept is None or self._kept.key != weights.tobytes():
            self._run(weights, keep=self.snapshots is None)
        assert self._kept is not None
        squares = self._kept.squares
        norms = self._reference_norms
        running = float(self._trapezoid @ squares / (self._trapezoid @ norms))
        terminal = float(squares[-1] / norms[-1])
        return Errors(
            value=0.5 * self.running_weight * running
            + 0.5 * self.terminal_weight * terminal
            + 0.5 * self.decay * float(weights @ weights) / self.drift.pieces,
            relative_error=running**0.5,
            relative_sup_error=float((squares.max() / norms.max()) ** 0.5),
            final_error=terminal**0.5,
            over_time=np.sqrt(squares / norms),
        )

    def trajectory(self, weights: Array) -> Trajectory:
        """The controlled densities at all levels. Collective."""
        window = self._window(self._checked(weights))
        assert self._kept is not None
        return trajectory(self.galerkin, self.times, window[1:], self._kept.iterations)

    def refined(self, steps: int) -> "TrackingProblem":
        """The same problem with another number of steps. Collective."""
        return TrackingProblem(
            self.reference,
            self.drift,
            self.sigma,
            steps,
            start=self.start,
            running_weight=self.running_weight,
            terminal_weight=self.terminal_weight,
            decay=self.decay,
            scheme=self.scheme,
            linear_solver=self.linear_solver,
            petsc_options=self.petsc_options,
            snapshots=self.snapshots,
        )

    def fingerprint(self) -> dict[str, Any]:
        """What must agree for weights of one run to be those of another. Collective."""
        g, n = self.galerkin, self.drift.network
        middle = self.reference.coefficients(0.5 * self.drift.t1)
        return {
            "dimension": g.dimension,
            "cells": g.mesh.topology.index_map(g.dimension).size_global,
            "degree": g.degree,
            "width": n.width,
            "activation": n.activation,
            "pieces": self.drift.pieces,
            "t1": self.drift.t1,
            "sigma": self.noise.samples(self.drift.t1),
            "steps": self.steps,
            "scheme": self.scheme.name,
            "running_weight": self.running_weight,
            "terminal_weight": self.terminal_weight,
            "decay": self.decay,
            "start_norm": g.inner(self.start.x.array, self.start.x.array),
            "reference_norm": g.inner(middle, middle),
        }

    # -- inner parts ---------------------------------------------------------------------------

    def _checked(self, weights: Array) -> Array:
        """Weights as a flat array, or an error on all ranks. Collective."""
        with together(self.galerkin.comm):
            return self.drift.check_weights(weights)

    def _misfit(self, n: int, rho: Array) -> Array:
        """Local array whose product with M is the derivative of J in level ``n``."""
        scale = self._running_scale * self._trapezoid[n]
        if n == self.steps:
            scale += self._terminal_scale
        return scale * (rho - self.reference.coefficients(self.times[n]))

    def _local_norm(self, u: Array) -> float:
        return float(self.sweeps.stepper.apply_mass(u) @ u[: self.galerkin.n_owned])

    def _sum_levels(self, parts: list[float]) -> Array:
        return reduced(self.galerkin.comm, np.array(parts))

    def _observer(self) -> tuple[list[float], Observe]:
        squares = [0.0] * (self.steps + 1)

        def observe(n: int, rho: Array) -> None:
            squares[n] = self._local_norm(rho - self.reference.coefficients(self.times[n]))

        observe(0, self.start.x.array)
        return squares, observe

    def _run(self, weights: Array, keep: bool) -> None:
        """Forward sweep; remembers the errors, and the levels if they are to be kept."""
        squares, observe = self._observer()
        theta = weights.reshape(self.drift.pieces, -1)
        rows = np.stack([self.start.x.array] * 2)
        window, solver = None, self.sweeps.stepper.solver
        before = solver.iterations
        if keep:
            window = self.sweeps.extended(rows, self.steps)
            self.sweeps.forward(theta, window, 0, observe)
        else:
            self.sweeps.advanced(theta, rows, 0, self.steps, observe)
        iterations = solver.iterations - before
        self._kept = _Kept(weights.tobytes(), window, self._sum_levels(squares), iterations)

    def _window(self, weights: Array) -> Array:
        """All levels at these weights, from the last forward sweep if it was at them."""
        kept = self._kept
        if kept is None or kept.key != weights.tobytes() or kept.window is None:
            self._run(weights, keep=True)
        assert self._kept is not None and self._kept.window is not None
        return self._kept.window


@dataclass(frozen=True)
class _Kept:
    """The last forward sweep: its weights, levels, squared errors of levels, iterations."""

    key: bytes
    window: Array | None
    squares: Array
    iterations: int
