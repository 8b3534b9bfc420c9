"""The forward problem: a density carried by a drift and by noise, between walls."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from dolfinx import fem
from dolfinx.mesh import Mesh, MeshTags

from fpcontrol.density import check_density
from fpcontrol.discretization.absorbing import Walls
from fpcontrol.discretization.base import Discretization, StageDrift, driven
from fpcontrol.discretization.bounded import bounded
from fpcontrol.discretization.galerkin import check_discretization
from fpcontrol.discretization.noise_sampler import NoiseSampler
from fpcontrol.discretization.reactions import Reactions
from fpcontrol.discretization.reentry import Entry
from fpcontrol.drift.base import as_drift
from fpcontrol.drift.data import data
from fpcontrol.drift.sampling import DriftSampler, check_switches, sample
from fpcontrol.generator.steady import SteadyProblems
from fpcontrol.linalg.linear_solvers import FACTORED_ONCE, check_linear_solver
from fpcontrol.noise import Interpretation, Noise, Sigma
from fpcontrol.observables.base import Function, Observable, Recorder, Setting, checked
from fpcontrol.parallel.errors import collective_errors
from fpcontrol.parallel.progress import track
from fpcontrol.stepping.resolution import Resolution
from fpcontrol.stepping.schemes import Scheme, check_scheme
from fpcontrol.stepping.stepper import make_stepper
from fpcontrol.stepping.watch import Watch, say
from fpcontrol.trajectory import Save, Trajectory, blank, check_steps, kept_levels
from fpcontrol.typing import Array, VectorField

MAX_DOUBLINGS = 12


class FokkerPlanck(SteadyProblems):
    r"""Fokker-Planck equation with no-flux walls, or some that absorb.

    .. math::
        \partial_t\rho = \nabla\cdot(D\nabla\rho - v\rho),\qquad
        (D\nabla\rho - v\rho)\cdot n = 0,\qquad D = \sigma^2/2

    Where sigma depends on place or direction, :math:`a = \sigma\sigma^\top = 2D` and, with walls
    likewise, unless another interpretation of the SDE is given (``fpcontrol.noise``)

    .. math:: \partial_t\rho = \tfrac12\textstyle\sum_{ij}\partial_i\partial_j(a_{ij}\rho)
        - \nabla\cdot(v\rho) = \nabla\cdot(D\nabla\rho - (v - \nabla\cdot D)\rho) .

    On absorbing walls (``absorbing``) :math:`\rho = 0` instead: particles that reach them are gone.
    The mass decreases, by what ``Trajectory.absorbed`` says for each of them: together they are
    constant. A start density need not vanish there: the run begins with its L2 projection on those
    that do (for ``Monotone`` with its other nodal values), and what that takes away, a layer less
    than a cell wide, is absorbed at the first time. Where a drift leaves an absorbing wall at a
    cell Peclet number above 1, Galerkin elements let mass in, with a warning; ``Monotone`` none.

    With ``reentry``, r, it enters again: :math:`+ f r` with f what the walls take per time, so that
    the mass is constant (``stepping.reentry``, of second order in the time step). r is taken at the
    nodes, without those on the walls, and scaled to mass 1. ``Trajectory.absorbed`` goes on to
    count what the walls take, and ``Trajectory.produced`` what enters.

    Continuous finite elements in space (``Galerkin``); the mass is constant to round-off. The
    density is of order ``degree + 1`` in L2 on smooth data; positivity is not enforced
    (``Trajectory.minimum`` reports it), and where the cell Peclet number :math:`|v|h/(2D)` is far
    above 1 a run may blow up, which ends it with an error (``stepping.watch``). Collective.

    Args:
        mesh: Mesh of intervals, triangles or tetrahedra; not to be moved afterwards.
        drift: Callable ``drift(t, x)``, ``x`` of shape ``(N, d)``, to ``(N, d)``; asked at times
            inside the steps only. ``fpc.drift.Steady(f)`` for one that does not depend on time. Or
            a vector-valued dolfinx Function, see ``fpc.drift.data``.
        sigma: Noise of the SDE ``dX = v dt + sigma dW``, length per time**0.5: a number or
            ``sigma(t)``; or, by place and direction, ``sigma(x)`` (the argument called x) or
            ``sigma(t, x)`` to ``(N,)``, ``(N, d)`` (one an axis) or ``(N, d, d)``, d numbers, a
            ``(d, d)`` matrix, or a dolfinx Function. ``Galerkin`` takes all.
        interpretation: ``"ito"``, ``"stratonovich"`` or ``"divergence"``: flux
            :math:`v\rho - D\nabla\rho`, the only one of a sigma that jumps, in regions say.
        absorbing: Walls that absorb: ``marker(x)`` as ``dolfinx.mesh.locate_entities_boundary``
            takes it (its tag is 1), or one or several tags of ``facet_tags``, by number or name. A
            node on facets of two tags belongs to the one named first. None unless given.
        facet_tags: ``MeshTags`` of facets, see ``fpc.mesh.read_facet_tags``.
        reactions: Sources and killing, see ``fpc.Reactions``; none unless given.
        reentry: Density r at which enters again, at once, what absorbing walls take: of the
            equation's space, or ``r(x)``, ``x`` of shape ``(N, d)``, to ``(N,)``; see below.
        discretization: ``Galerkin(degree=2)`` unless given.
        degree: Short form of ``discretization=Galerkin(degree, quadrature_degree)``.
        quadrature_degree: See ``degree``.
        linear_solver: ``"auto"``, ``"gmres"`` or ``"direct"``, see ``LinearSolver``. In 2-D, with
            a ``Steady`` drift, constant sigma and no options, ``"auto"`` is direct: one
            factorization serves all steps.
        petsc_options: PETSc options without prefix; the prefix is ``fpcontrol_``.

    Raises:
        ValueError: On all ranks, for an argument that is not as above.
    """

    def __init__(
        self,
        mesh: Mesh,
        drift: VectorField | fem.Function,
        sigma: Sigma,
        *,
        interpretation: Interpretation = "ito",
        absorbing: Walls | None = None,
        facet_tags: MeshTags | None = None,
        reactions: Reactions | None = None,
        reentry: Entry | None = None,
        discretization: Discretization | None = None,
        degree: int | None = None,
        quadrature_degree: int | None = None,
        linear_solver: str = "auto",
        petsc_options: Mapping[str, Any] | None = None,
    ) -> None:
        discretization = check_discretization(discretization, degree, quadrature_degree)
        self.noise = Noise(sigma, interpretation=interpretation)
        self.mesh = mesh
        self.drift = as_drift(data(drift) if isinstance(drift, fem.Function) else drift)
        self.discretization = discretization
        system = discretization.on(mesh)
        self.system = bounded(system, absorbing, facet_tags, reactions, reentry)
        self.elements = self.system.elements
        self._sampler = NoiseSampler(self.noise, self.system)
        self._linear_solver = check_linear_solver(linear_solver)
        steady = self.drift.steady and self.noise.steady
        if linear_solver == "auto" and steady and mesh.topology.dim == 2 and not petsc_options:
            self._linear_solver = "direct"
            petsc_options = FACTORED_ONCE if mesh.comm.size == 1 else None
        self._petsc_options = petsc_options

    def solve(
        self,
        start: fem.Function,
        t1: float,
        steps: int,
        *,
        t0: float = 0.0,
        scheme: Scheme | None = None,
        tolerance: float | None = None,
        save: Save = "all",
        observables: Mapping[str, Observable | Function] | None = None,
        progress: bool = False,
    ) -> Trajectory:
        """Carry a density from ``t0`` to ``t1``. Collective.

        A run that blows up or loses its mass ends with an error, see ``stepping.watch``; one whose
        minimum falls below -1 % of the mean density, or that rings, warns once on rank 0.

        Args:
            start: Density at ``t0``, on the equation's mesh and of its degree.
            t1: Last time.
            steps: Number of equal steps; none may straddle a switch of the drift.
            t0: First time.
            scheme: ``CrankNicolson()`` unless given, with absorbing walls ``SDIRK2()``: starts that
                do not vanish there make Crank-Nicolson ring.
            tolerance: If given, the steps are doubled until the estimated error in time is below
                it: the largest L2 difference to the run with half the steps, over the largest
                norm, divided by what the observed order makes of it (``Trajectory.time_error``),
                at the levels that are kept. At least three runs: two may agree because both miss
                what the drift does.
            save: Which levels to keep: ``"all"``; an integer k, every k-th and the last;
                ``"last"``; or a list of times, which must be time levels. Memory holds these and
                two or three more. Mass and minimum are known at all levels in any case.
            observables: What to measure at all levels, by names of your choice: of
                ``fpc.observables``, or any function ``f(t, rho)`` of time and density to a number
                or an array; see ``Trajectory.observables``.
            progress: Show progress on rank 0.

        Returns:
            The densities at the levels kept.

        Raises:
            ValueError: On all ranks, for a bad argument or a drift with bad values.
            ArithmeticError: On all ranks, if the solver fails, the tolerance is not reached, or
                the run blows up: the message names time, place, cell Peclet number and remedy.
        """
        run = self._checked(start, t0, t1, steps, scheme, checked(observables))
        kept_levels(save, run.times)  # refuses what cannot be kept, before a run
        if tolerance is None:
            return self._solve(run, save, progress)[0]
        if not (np.isfinite(tolerance) and tolerance > 0):
            raise ValueError(f"tolerance = {tolerance!r} must be a positive number.")
        return self._refine(run, save, tolerance, progress)

    def march(
        self,
        start: fem.Function,
        t1: float,
        steps: int,
        *,
        t0: float = 0.0,
        scheme: Scheme | None = None,
        progress: bool = False,
    ) -> Iterator[tuple[float, fem.Function]]:
        """Yield time and density of one level after the other, the start first. Collective.

        The densities are the caller's; three levels are held at a time. A loop that is left early
        leaves the rest of the steps undone; all ranks must leave it at the same level.

        Args:
            start: See ``solve``, and for the others.
            t1: Last time.
            steps: Number of equal steps.
            t0: First time.
            scheme: See ``solve``.
            progress: Show progress on rank 0.

        Raises:
            ValueError, ArithmeticError: As ``solve``.
        """
        run = self._checked(start, t0, t1, steps, scheme)
        return self._yield_levels(run, progress)

    # -- inner parts ---------------------------------------------------------------------------

    def _checked(
        self,
        start: fem.Function,
        t0: float,
        t1: float,
        steps: int,
        scheme: Scheme | None,
        observables: Mapping[str, Observable] | None = None,
    ) -> "_Run":
        steps = check_steps(steps)
        if not (np.isfinite([t0, t1]).all() and t1 > t0):
            raise ValueError(f"t1 = {t1!r} must be finite and later than t0 = {t0!r}.")
        check_density("start", start, self.elements)
        check_switches(self.drift, t0, t1, steps)
        scheme = check_scheme(scheme, self.discretization, bool(self.system.absorbing))
        return _Run(start, t0, t1, steps, scheme, observables or {})

    def _yield_levels(self, run: "_Run", progress: bool) -> Iterator[tuple[float, fem.Function]]:
        empty, spare = blank(self.elements.space), np.empty((3, self.elements.n_local))
        steps = _Steps(self, run, lambda n: spare[n % 3], progress)
        for n, rho in enumerate(steps.levels()):
            density = empty.copy()
            density.x.array[:] = rho
            yield float(run.times[n]), density

    def _solve(
        self, run: "_Run", save: Save, progress: bool, warn: bool = True
    ) -> tuple[Trajectory, list[str]]:
        """A run, and what is to be warned of."""
        g, kept = self.elements, kept_levels(save, run.times)
        levels, row = np.empty((len(kept), g.n_local)), {int(n): i for i, n in enumerate(kept)}
        spare = np.empty((3 if len(kept) <= run.steps else 0, g.n_local))

        def room(n: int) -> Array:
            return levels[row[n]] if n in row else spare[n % 3]

        steps = _Steps(self, run, room, progress, warn)
        for _ in steps.levels():
            pass
        watch = steps.watch
        trajectory = Trajectory(
            g.space,
            run.times[kept],
            levels,
            watch.mass,
            watch.minimum(),
            steps.stepper.solver.iterations,
            None,
            run.times,
            blank(g.space),
            self.system.absorbing.tags if self.system.absorbing else (),
            watch.absorbed,
            steps.stepper.limited_share(steps.stepper.limited, run.steps),
            steps.resolution.figures(),
            self.system.clipped,
            steps.recorder.series,
            watch.killed,
            watch.produced,
        )
        return trajectory, watch.said

    def _refine(self, run: "_Run", save: Save, tolerance: float, progress: bool) -> Trajectory:
        """Double the steps until the error that two runs imply is below the tolerance."""
        g, before = self.elements, None
        coarse, _ = self._solve(run, save, progress, warn=False)
        for _ in range(MAX_DOUBLINGS):
            run = replace(run, steps=2 * run.steps)
            fine, said = self._solve(run, save, progress, warn=False)
            one, two = (kept_levels(save, times) for times in (coarse.all_times, fine.all_times))
            _, i, j = np.intersect1d(2 * one, two, return_indices=True)
            gaps = [g.norm(fine.levels[b] - coarse.levels[a]) for a, b in zip(i, j, strict=True)]
            gap = max(gaps) / max(g.norm(fine.levels[b]) for b in j)
            if before is not None:
                # Successive gaps shrink by 2**order; a drift that switches lowers the order, so it
                # is taken as observed.
                ratio = float(np.clip(before / max(gap, 1e-300), 1.5, 2**run.scheme.order))
                error = gap / (ratio - 1.0)
                if error <= tolerance:
                    for text in said:
                        say(g.comm, text)
                    return replace(fine, time_error=error)
            coarse, before = fine, gap
        raise ArithmeticError(
            f"tolerance = {tolerance:g} was not reached with {run.steps} steps: the error "
            f"is {error:.1e}. Begin with more steps, or use a scheme of higher order."
        )


@dataclass(frozen=True)
class _Run:
    """What is run: a start density, equal steps, a scheme; and what is observed."""

    start: fem.Function
    t0: float
    t1: float
    steps: int
    scheme: Scheme
    observables: Mapping[str, Observable]

    @property
    def times(self) -> Array:
        return np.linspace(self.t0, self.t1, self.steps + 1)


class _Steps:
    """The watched steps of a run; level ``n`` goes to ``room(n)``, two before it must be kept."""

    def __init__(
        self,
        equation: FokkerPlanck,
        run: _Run,
        room: Callable[[int], Array],
        progress: bool,
        warn: bool = True,
    ) -> None:
        g, scheme, times = equation.elements, run.scheme, run.times
        self._nodes = nodes = equation.discretization.nodes(scheme)
        self._equation, self._run, self._room, self._progress = equation, run, room, progress
        self._times, self._dt = times, (run.t1 - run.t0) / run.steps
        with collective_errors(g.comm):  # a schedule may raise on one rank only
            self._diffusivity = [
                [equation._sampler.at(t + c * self._dt) for c in nodes] for t in times[:-1]
            ]
        largest = equation._sampler.largest(D for row in self._diffusivity for D in row)
        self.stepper = make_stepper(
            equation.system,
            self._dt,
            scheme,
            largest,
            equation._linear_solver,
            equation._petsc_options,
        )
        self.resolution = Resolution(equation.system, run.steps, steady=equation.drift.steady)
        diffusivity, dt = self._diffusivity, self._dt

        # Without a reference to self: what is in a cycle lives until the garbage is collected.
        def transport(n: int) -> StageDrift:
            """What drives the first stage of a step. Collective."""
            v = sample(equation.drift, times[n] + nodes[0] * dt, equation.system)
            return driven(n, lambda: v, diffusivity[n][0])

        self.watch = Watch(
            equation.system,
            times,
            transport,
            scheme=scheme,
            warn=warn,
            tolerance=self.stepper.solver.tolerance,
        )
        setting = Setting(equation.system, equation.drift, equation.noise)
        self.recorder = Recorder(run.observables, setting, times)

    def levels(self) -> Iterator[Array]:
        """Yield the levels, local; each is overwritten as soon as its room is given again."""
        g, stepper, c = self._equation.elements, self.stepper, self._nodes
        sampler = DriftSampler(self._equation.drift, self._equation.system)
        last = before = self._room(0)
        last[:], taken = self._equation.system.begun(self._run.start.x.array)
        self.watch.begin(last, taken)
        self.recorder.see(0, last)
        yield last
        for n in track(range(self._run.steps), "forward", g.comm, self._progress):

            def drive(i: int, n: int = n) -> StageDrift:
                drift = sampler.at(self._times[n] + c[i] * self._dt)
                stage = driven(*drift, self._diffusivity[n][i])
                self.resolution.see(n, stage)
                return stage

            new = self._room(n + 1)
            stepper.step(last, before, new, drive)
            sums = stepper.absorbed, stepper.killed, stepper.produced
            self.watch.check(n + 1, new, last, before, *sums)
            self.recorder.see(n + 1, new)
            last, before = new, last
            yield new
