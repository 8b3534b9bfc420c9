"""Controlled runs with noise on a mesh: costs, squared errors of all levels, their adjoint."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from dolfinx import fem
from dolfinx.mesh import MeshTags

from fpcontrol.control.fingerprint import moment, of_costs, of_field
from fpcontrol.control.objectives import Cost, L2Tracking, Objective, Setting
from fpcontrol.control.parametric import ParametricDrift
from fpcontrol.control.sweeps import Observe, See, Sweeps
from fpcontrol.density import check_density
from fpcontrol.discretization.absorbing import Walls
from fpcontrol.discretization.base import StageDrift
from fpcontrol.discretization.bounded import bounded, described
from fpcontrol.discretization.noise_sampler import NoiseSampler
from fpcontrol.discretization.reactions import Reactions
from fpcontrol.discretization.reentry import Entry
from fpcontrol.linalg.buffers import read_only
from fpcontrol.noise import Interpretation, Noise, Sigma
from fpcontrol.parallel.errors import reduced
from fpcontrol.reference import MoserFlow
from fpcontrol.stepping.resolution import CellPeclet, Resolution
from fpcontrol.stepping.schemes import Scheme, check_scheme
from fpcontrol.stepping.watch import Watch
from fpcontrol.trajectory import Trajectory, trajectory
from fpcontrol.typing import Array


class MeshRuns:
    r"""Runs of the controlled Fokker-Planck equation, their costs and errors. Collective.

    The derivative is the discrete adjoint of the scheme that runs. The last run is remembered.

    Args:
        reference: What to follow.
        drift: A drift with weights.
        sigma, interpretation: Noise, see ``FokkerPlanck``.
        steps: Number of time steps.
        tracking: Distance to the reference that is minimized; its squares are measured in any case.
        objectives: What is minimized beside it.
        start: Start density, in the reference's space; the reference's own unless given.
        absorbing: Walls that absorb in the controlled equation, see ``FokkerPlanck``; the reference
            keeps its mass.
        facet_tags, reactions, reentry: See ``FokkerPlanck``.
        scheme: ``CrankNicolson()`` unless given, with absorbing walls ``SDIRK2()``.
        linear_solver, petsc_options: See ``LinearSolver``.
        memory: Budget for levels and operators, GiB per rank. Within it all levels are kept, and
            operators with their preconditioners or factorizations, for the reverse sweep.
        disk: Directory for the levels, if they do not fit. Unless given, snapshots are kept and the
            others recomputed (Revolve). The derivative is the same in all cases.
        snapshots: Number of snapshots, instead of what ``memory`` implies.

    Attributes:
        norms: Squared L2 norms of the reference at all levels, ``(steps + 1,)``.
        level_weights: Factors of half the squared errors of the levels in J, ``(steps + 1,)``.
        tags, walls: Tags of the absorbing walls; ``absorbing, facet_tags`` as given.
        sweeps: The sweeps over the steps.
        storage: What is kept for the reverse sweep, see ``Storage``.
    """

    def __init__(
        self,
        reference: MoserFlow,
        drift: ParametricDrift,
        sigma: Sigma,
        steps: int,
        *,
        tracking: L2Tracking | None = None,
        objectives: Sequence[Objective] = (),
        start: fem.Function | None = None,
        interpretation: Interpretation = "ito",
        absorbing: Walls | None = None,
        facet_tags: MeshTags | None = None,
        reactions: Reactions | None = None,
        reentry: Entry | None = None,
        scheme: Scheme | None = None,
        linear_solver: str = "auto",
        petsc_options: Mapping[str, Any] | None = None,
        memory: float = 2.0,
        disk: str | os.PathLike[str] | None = None,
        snapshots: int | None = None,
    ) -> None:
        if not isinstance(reference, MoserFlow):
            raise ValueError(
                f"reference, a {type(reference).__name__}, must be a MoserFlow where sigma > 0; "
                "one given by formulas (fpcontrol.typing.AnalyticReference) needs sigma = 0. Take "
                "its densities at some times: fpc.MoserFlow.through(densities, times, sigma)."
            )
        self.reference, self.elements = reference, reference.elements
        self.system = bounded(reference.system, absorbing, facet_tags, reactions, reentry)
        self.walls = absorbing, facet_tags
        self.tags = self.system.absorbing.tags if self.system.absorbing else ()
        self.noise = Noise(sigma, interpretation=interpretation)
        self._sampler = NoiseSampler(self.noise, self.system)
        self._drift, self.steps, self._blocks = drift, steps, drift.time.blocks
        self.start = start or reference.start
        check_density("start", self.start, self.elements)
        self._begun, self._taken = self.system.begun(self.start.x.array)
        self.scheme = check_scheme(scheme, self.system.discretization, bool(self.tags))
        self.times = np.linspace(0.0, drift.t1, steps + 1)
        self.sweeps = Sweeps(
            self.system,
            drift,
            self._sampler,
            steps,
            self.scheme,
            linear_solver,
            petsc_options,
            memory=memory,
            disk=disk,
            snapshots=snapshots,
        )
        self.storage = self.sweeps.storage
        setting = Setting(self.system, reference, self.times, drift.scale, self.noise)
        self._tracking = (tracking or L2Tracking()).on(setting)
        self._others = [objective.on(setting) for objective in objectives]
        self._costs: list[Cost] = [self._tracking, *self._others]
        self.norms, self.level_weights = self._tracking.norms, self._tracking.level_weights
        self._kept: _CachedRun | None = None
        sweeps = self.sweeps
        self._theta = theta = [self._in_blocks(drift.weights)]  # of the run under way

        # Without a reference to self: what is in a cycle lives until the garbage is collected.
        def transport(n: int) -> StageDrift:
            """What drives the middle of a step."""
            return sweeps.stage_at(theta[0], n + 0.5)

        self._watch = Watch(
            self.system,
            self.times,
            transport,
            scheme=self.scheme,
            warn=False,
            tolerance=sweeps.stepper.solver.tolerance,
        )

    def squares(self, weights: Array) -> Array:
        """Squared errors of all levels, ``(steps + 1,)``. Collective."""
        return self._seen(weights).squares

    def mass_and_minimum(self, weights: Array) -> tuple[Array, Array]:
        """Mass and smallest degree of freedom of all levels, ``(steps + 1,)``. Collective."""
        seen = self._seen(weights)
        return seen.mass, seen.minimum

    def absorbed(self, weights: Array) -> Array:
        """Mass that each absorbing wall has taken up to all levels, ``(steps + 1, tags)``.

        Collective.
        """
        return self._seen(weights).absorbed

    def reacted(self, weights: Array) -> tuple[Array, Array]:
        """Mass killed, and produced, up to all levels, ``(steps + 1,)``. Collective."""
        seen = self._seen(weights)
        return seen.killed, seen.produced

    def limited_fraction(self, weights: Array) -> float:
        """Share of nodes times steps that were limited. Collective."""
        return self._seen(weights).limited

    def warnings(self, weights: Array) -> tuple[str, ...]:
        """What the run is to be warned of, see ``stepping.watch``. Collective."""
        return self._seen(weights).warnings

    def other_costs(self, weights: Array) -> Array:
        """Costs beside the tracking, one a given objective. Collective."""
        return self._seen(weights).others

    def derivative(self, weights: Array, see: See | None = None) -> Array:
        """Derivative of all costs in the weights, flat. Collective.

        Args:
            weights: Flat.
            see: Called, from the last piece to the first, with the blocks that act in it and this
                rank's part of the derivative in the drift's values there, ``(N, d)``.
        """
        local, observe = self._observer(weights)
        levels = None
        if self.storage.snapshots is None:
            levels = self._window(weights)
        dual = self.sweeps.derivative(
            self._in_blocks(weights), self._begun, self._costs, observe, levels, see
        ).ravel()
        if self.storage.snapshots is not None:
            self._kept = self._remembered(weights, None, local, 0)
        return dual

    def tangent(self, weights: Array, direction: Array) -> float:
        """Derivative of all costs along a direction in the weights. Collective."""
        sweeps, theta, total = self.sweeps, self._in_blocks(weights), 0.0
        if self.storage.snapshots is None:
            window = self._window(weights)
        else:  # the levels are taken along, none is kept
            window = sweeps.begin(self._begun)
        drift_costs = [cost for cost in self._costs if cost.has_drift_part]
        before: tuple[Array, Array] | None = None
        for n, rho, dot in sweeps.tangent(theta, self._in_blocks(direction), window):
            for cost in self._costs:
                dual = cost.level_dual(n, rho)
                if dual is not None:
                    total += float(dual @ dot[: self.elements.n_owned])
            if drift_costs and before is not None:
                mean, mean_dot = (0.5 * (a + b) for a, b in zip(before, (rho, dot), strict=True))
                v, dv = sweeps.middle(theta, n - 1), sweeps.middle_jvp(theta, n - 1, direction)
                for cost in drift_costs:
                    dual, s = cost.step_dual(n - 1, mean, v)
                    total += float(dual @ mean_dot[: self.elements.n_owned]) + float(np.sum(s * dv))
            before = rho.copy(), dot.copy()
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
        seen = self._kept
        return trajectory(
            self.elements,
            self.times,
            read_only(levels),
            seen.iterations,
            self.tags,
            seen.absorbed,
            seen.limited,
            self.cell_peclet(weights),
            self.system.clipped,
            seen.killed,
            seen.produced,
        )

    def levels(self, weights: Array) -> Iterator[Array]:
        """The levels in turn, ``(n_local,)``: those that are kept, or else run anew. Collective."""
        if self.storage.snapshots is None:
            yield from self._window(weights)[1:, -1]
            return
        rows, theta = self.sweeps.begin(self._begun), self._in_blocks(weights)
        yield rows[-1, -1]
        for n in range(self.steps):
            rows = self.sweeps.advanced(theta, rows, n, n + 1, None)
            yield rows[-1, -1]

    def cell_peclet(self, weights: Array) -> CellPeclet:
        """Cell Peclet numbers of the run. Collective."""
        theta, resolution = self._in_blocks(weights), Resolution(self.system, self.steps)
        for n in range(self.steps):
            resolution.see(n, self.sweeps.drive(theta, n)(0))
        return resolution.figures()

    def fingerprint(self) -> dict[str, Any]:
        """What must agree for weights of one run to be those of another. Collective."""
        g = self.elements
        y, w = self._drift.scaled(g.points), g.quadrature_weights

        def mean(u: Array) -> float:
            return moment(g.comm, y, w * g.evaluate(u).ravel())

        line = self.reference.coefficients
        own = of_field(g, self._drift) | of_costs(self.system, self._others, line, self.times)
        own |= described(self.system)
        return own | {
            "sigma": self._sampler.samples(self.times[-1]),
            "scheme": self.scheme.name,
            "discretization": repr(self.system.discretization),
            "start_norm": g.norm(self.start.x.array) ** 2,
            "start_moment": mean(self.start.x.array),
            "reference_norm": float(self.norms[self.steps // 2]),
            "reference_moments": [mean(line(t)) for t in self.reference.times],
        }

    def settings(self) -> dict[str, Any]:
        """What else a record should say."""
        solver = self.sweeps.stepper.solver
        return {
            "linear_solver": solver.method,
            "direct_solves_where_gmres_failed": solver.rescues,
        } | self.storage.record()

    # -- inner parts ---------------------------------------------------------------------------

    def _in_blocks(self, weights: Array) -> Array:
        return weights.reshape(self._blocks, -1)

    def _observer(self, weights: Array, levels: Array | None = None) -> tuple[Array, Observe]:
        """This rank's part of what is seen of the levels, and what fills it in.

        Rows: squares, then one a cost beside the tracking; ``(., steps + 1)``. A run that blows up
        ends here.
        """
        theta = self._in_blocks(weights)
        local = np.zeros((1 + len(self._others), self.steps + 1))
        self._theta[0] = theta
        before = self._begun
        with_drift = any(cost.has_drift_part for cost in self._others)

        def observe(n: int, rho: Array) -> None:
            nonlocal before
            if n:
                step = self.sweeps.stepper
                self._watch.check(n, rho, None, None, step.absorbed, step.killed, step.produced)
            local[0, n] = self._tracking.square(n, rho)
            for k, cost in enumerate(self._others):
                local[1 + k, n] = cost.level(n, rho)
            if with_drift and n:
                mean, v = 0.5 * (before + rho), self.sweeps.middle(theta, n - 1)
                for k, cost in enumerate(self._others):
                    local[1 + k, n] += cost.step(n - 1, mean, v)
            before = rho.copy() if with_drift else rho
            if levels is not None:
                levels[n] = rho

        self._watch.begin(self._begun, self._taken)
        observe(0, self._begun)
        return local, observe

    def _remembered(
        self,
        weights: Array,
        window: Array | None,
        local: Array,
        iterations: int,
        limited: float = 0.0,
    ) -> "_CachedRun":
        comm = self.elements.comm
        watch, squares = self._watch, reduced(comm, local[0])
        return _CachedRun(
            weights.tobytes(),
            window,
            squares,
            watch.mass,
            watch.absorbed,
            watch.killed,
            watch.produced,
            watch.minimum(),
            reduced(comm, local[1:].sum(axis=1)),
            iterations,
            limited,
            tuple(watch.said),
        )

    def _run(self, weights: Array, keep: bool, levels: Array | None = None) -> None:
        """Forward sweep; remembers the errors, and the window if it is to be kept."""
        self._kept = None  # the last levels go before there are new ones
        local, observe = self._observer(weights, levels)
        theta = self._in_blocks(weights)
        rows = self.sweeps.begin(self._begun)
        window, stepper = None, self.sweeps.stepper
        before, limited = stepper.solver.iterations, stepper.limited
        if keep:
            window = self.sweeps.extended(rows, self.steps)
            self.sweeps.forward(theta, window, 0, observe)
        else:
            self.sweeps.advanced(theta, rows, 0, self.steps, observe)
        iterations = stepper.solver.iterations - before
        share = stepper.limited_share(stepper.limited - limited, self.steps)
        self._kept = self._remembered(weights, window, local, iterations, share)

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
    absorbed: Array
    killed: Array
    produced: Array
    minimum: Array
    others: Array
    iterations: int
    limited: float
    warnings: tuple[str, ...]
