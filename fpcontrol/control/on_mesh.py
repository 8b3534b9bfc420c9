"""Controlled runs with noise: Galerkin elements, squared errors of all levels, their adjoint."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mpi4py import MPI

import numpy as np
from dolfinx import fem

from fpcontrol.control.fingerprint import moment
from fpcontrol.control.network import NetworkDrift
from fpcontrol.control.sweeps import Observe, Sweeps
from fpcontrol.density import check_density
from fpcontrol.linalg.buffers import read_only
from fpcontrol.noise import Noise, Sigma
from fpcontrol.parallel.errors import reduced
from fpcontrol.reference import MoserFlow
from fpcontrol.stepping.schemes import Scheme, check_scheme
from fpcontrol.trajectory import Trajectory, trajectory
from fpcontrol.typing import Array


class MeshRuns:
    r"""Runs of the controlled Fokker-Planck equation and their squared errors. Collective.

    For the levels :math:`\rho_n` at weights :math:`\theta` and squares :math:`e_n =
    \|\rho_n - \rho^{ref}_n\|^2`, the derivative is that of :math:`\tfrac12\sum_n s_n e_n`: the
    discrete adjoint of the scheme that runs. The last run is remembered.

    Args:
        reference: What to follow.
        drift: The network.
        sigma: Noise.
        steps: Number of time steps.
        start: Start density, in the reference's space; the reference's own unless given.
        scheme: ``CrankNicolson()`` unless given.
        linear_solver, petsc_options: See ``LinearSolver``.
        memory: Budget for levels and operators, GiB per rank. Within it all levels are kept, and
            operators with their preconditioners or factorizations, for the reverse sweep.
        disk: Directory for the levels, if they do not fit. Unless given, snapshots are kept and the
            others recomputed (Revolve). The derivative is the same in all cases.
        snapshots: Number of snapshots, instead of what ``memory`` implies.

    Attributes:
        norms: Squared L2 norms of the reference at all levels, ``(steps + 1,)``.
        sweeps: The sweeps over the steps.
        storage: What is kept for the reverse sweep, see ``Storage``.
    """

    def __init__(
        self,
        reference: MoserFlow,
        drift: NetworkDrift,
        sigma: Sigma,
        steps: int,
        *,
        start: fem.Function | None = None,
        scheme: Scheme | None = None,
        linear_solver: str = "auto",
        petsc_options: Mapping[str, Any] | None = None,
        memory: float = 2.0,
        disk: str | os.PathLike[str] | None = None,
        snapshots: int | None = None,
    ) -> None:
        if not isinstance(reference, MoserFlow):
            raise ValueError(f"reference = {reference!r} must be a MoserFlow where sigma > 0.")
        self.reference, self.elements = reference, reference.elements
        self.noise, self.steps, self.pieces = Noise(sigma), steps, drift.pieces
        self._drift = drift
        self.start = start or reference.start
        check_density("start", self.start, self.elements)
        self.scheme = check_scheme(scheme)
        self.times = np.linspace(0.0, drift.t1, steps + 1)
        self.sweeps = Sweeps(
            self.elements,
            drift,
            self.noise,
            steps,
            self.scheme,
            linear_solver,
            petsc_options,
            memory=memory,
            disk=disk,
            snapshots=snapshots,
        )
        self.storage = self.sweeps.storage
        self.norms = self._sum_levels(
            [self._local_norm(reference.coefficients(t)) for t in self.times]
        )
        self._kept: _CachedRun | None = None

    def squares(self, weights: Array) -> Array:
        """Squared errors of all levels, ``(steps + 1,)``. Collective."""
        return self._seen(weights).squares

    def mass_and_minimum(self, weights: Array) -> tuple[Array, Array]:
        """Mass and smallest degree of freedom of all levels, ``(steps + 1,)``. Collective."""
        seen = self._seen(weights)
        return seen.mass, seen.minimum

    def derivative(self, weights: Array, scales: Array) -> Array:
        """Derivative in the weights of half the scaled sum of squares, flat. Collective."""
        local, observe = self._observer()
        levels = None
        if self.storage.snapshots is None:
            levels = self._window(weights)

        def misfit(n: int, rho: Array) -> Array:
            return self._misfit(n, rho, scales)

        dual = self.sweeps.derivative(
            weights.reshape(self.pieces, -1), self.start.x.array, misfit, observe, levels
        ).ravel()
        if self.storage.snapshots is not None:
            self._kept = self._remembered(weights, None, local, 0)
        return dual

    def tangent(self, weights: Array, direction: Array, scales: Array) -> float:
        """Derivative of half the scaled sum of squares along a direction. Collective."""
        pieces, total = self.pieces, 0.0
        if self.storage.snapshots is None:
            window = self._window(weights)
        else:  # the levels are taken along, none is kept
            window = self.sweeps.begin(self.start.x.array)
        for n, rho, dot in self.sweeps.tangent(
            weights.reshape(pieces, -1), direction.reshape(pieces, -1), window
        ):
            dual = self.sweeps.stepper.apply_mass(self._misfit(n, rho, scales))
            total += float(dual @ dot[: self.elements.n_owned])
        return self.elements.sum(total)

    def trajectory(self, weights: Array) -> Trajectory:
        """The controlled densities at all levels, read-only. Collective.

        All levels are held, beyond the budget where it does not hold them; they go with the
        trajectory.
        """
        if self.storage.snapshots is None:
            levels = self._window(weights)[1:, -1]
        else:
            levels = np.empty((self.steps + 1, self.elements.n_local))
            self._run(weights, keep=False, levels=levels)
        assert self._kept is not None
        return trajectory(self.elements, self.times, read_only(levels), self._kept.iterations)

    def fingerprint(self) -> dict[str, Any]:
        """What must agree for weights of one run to be those of another. Collective."""
        g = self.elements
        y, w = self._drift.scaled(g.points), g.quadrature_weights

        def mean(u: Array) -> float:
            return moment(g.comm, y, w * g.evaluate(u).ravel())

        return {
            "sigma": self.noise.samples(self.times[-1]),
            "scheme": self.scheme.name,
            "start_norm": g.sum(self._local_norm(self.start.x.array)),
            "start_moment": mean(self.start.x.array),
            "reference_norm": float(self.norms[self.steps // 2]),
            "reference_moments": [
                mean(self.reference.coefficients(t)) for t in self.times[[0, -1]]
            ],
        }

    def settings(self) -> dict[str, Any]:
        """What else a record should say."""
        solver = self.sweeps.stepper.solver
        return {
            "linear_solver": solver.method,
            "direct_solves_where_gmres_failed": solver.rescues,
        } | self.storage.record()

    # -- inner parts ---------------------------------------------------------------------------

    def _misfit(self, n: int, rho: Array, scales: Array) -> Array:
        """Local array whose product with M is the cost's derivative in level ``n``."""
        return scales[n] * (rho - self.reference.coefficients(self.times[n]))

    def _local_norm(self, u: Array) -> float:
        return float(self.sweeps.stepper.apply_mass(u) @ u[: self.elements.n_owned])

    def _sum_levels(self, parts: list[float] | Array) -> Array:
        return reduced(self.elements.comm, np.array(parts))

    def _observer(self, levels: Array | None = None) -> tuple[Array, Observe]:
        """This rank's squares, masses and minima ``(3, steps + 1)``, and what fills them."""
        g, local = self.elements, np.zeros((3, self.steps + 1))

        def observe(n: int, rho: Array) -> None:
            owned = rho[: g.n_owned]
            local[0, n] = self._local_norm(rho - self.reference.coefficients(self.times[n]))
            local[1, n], local[2, n] = owned @ g.integrals, owned.min(initial=np.inf)
            if levels is not None:
                levels[n] = rho

        observe(0, self.start.x.array)
        return local, observe

    def _remembered(
        self, weights: Array, window: Array | None, local: Array, iterations: int
    ) -> "_CachedRun":
        squares, mass = self._sum_levels(local[:2])
        minimum = reduced(self.elements.comm, local[2], MPI.MIN)
        return _CachedRun(weights.tobytes(), window, squares, mass, minimum, iterations)

    def _run(self, weights: Array, keep: bool, levels: Array | None = None) -> None:
        """Forward sweep; remembers the errors, and the window if it is to be kept."""
        self._kept = None  # the last levels go before there are new ones
        local, observe = self._observer(levels)
        theta = weights.reshape(self.pieces, -1)
        rows = self.sweeps.begin(self.start.x.array)
        window, solver = None, self.sweeps.stepper.solver
        before = solver.iterations
        if keep:
            window = self.sweeps.extended(rows, self.steps)
            self.sweeps.forward(theta, window, 0, observe)
        else:
            self.sweeps.advanced(theta, rows, 0, self.steps, observe)
        iterations = solver.iterations - before
        self._kept = self._remembered(weights, window, local, iterations)

    def _seen(self, weights: Array) -> "_CachedRun":
        """What is remembered of the run at these weights, which is made if it is not the last."""
        if self._kept is None or self._kept.key != weights.tobytes():
            self._run(weights, keep=self.storage.snapshots is None)
        assert self._kept is not None
        return self._kept

    def _window(self, weights: Array) -> Array:
        """All levels at these weights, from the last forward sweep if it was at them."""
        window = self._seen(weights).window
        assert window is not None
        return window


@dataclass(frozen=True)
class _CachedRun:
    """The last forward sweep: weights, levels, what was seen of each level, iterations."""

    key: bytes
    window: Array | None
    squares: Array
    mass: Array
    minimum: Array
    iterations: int
