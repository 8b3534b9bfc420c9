"""The forward problem: a density carried by a drift and by noise, no flux through the walls."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from dolfinx import fem
from dolfinx.mesh import Mesh

from fpcontrol.density import check_density
from fpcontrol.discretization.base import Discretization, StageDrift
from fpcontrol.discretization.elements import Elements
from fpcontrol.discretization.galerkin import check_discretization
from fpcontrol.drift.base import as_drift
from fpcontrol.drift.sampling import DriftSampler, check_switches
from fpcontrol.linalg.linear_solvers import FACTORED_ONCE, check_linear_solver
from fpcontrol.noise import Noise, Sigma
from fpcontrol.parallel.errors import collective_errors
from fpcontrol.parallel.progress import track
from fpcontrol.stepping.schemes import Scheme, check_scheme
from fpcontrol.stepping.stepper import make_stepper
from fpcontrol.trajectory import Trajectory, check_steps, trajectory
from fpcontrol.typing import Array, VectorField

MAX_DOUBLINGS = 12


class FokkerPlanck:
    r"""Fokker-Planck equation with no-flux walls.

    .. math::
        \partial_t\rho = \nabla\cdot(D\nabla\rho - v\rho),\qquad
        (D\nabla\rho - v\rho)\cdot n = 0,\qquad D = \sigma^2/2

    Continuous finite elements in space (``Galerkin``); the mass is constant to round-off. The
    density is of order ``degree + 1`` in L2 on smooth data; positivity is not enforced
    (``Trajectory.minimum`` reports it). Collective.

    Args:
        mesh: Mesh of intervals, triangles or tetrahedra; not to be moved afterwards.
        drift: Callable ``drift(t, x)``, ``x`` of shape ``(N, d)``, to ``(N, d)``; asked at times
            inside the steps only. ``fpc.drift.Steady(f)`` for one that does not depend on time.
        sigma: Noise of the SDE ``dX = v dt + sigma dW``, length per time**0.5; a number, or a
            function of time.
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
        drift: VectorField,
        sigma: Sigma,
        *,
        discretization: Discretization | None = None,
        degree: int | None = None,
        quadrature_degree: int | None = None,
        linear_solver: str = "auto",
        petsc_options: Mapping[str, Any] | None = None,
    ) -> None:
        discretization = check_discretization(discretization, degree, quadrature_degree)
        self.noise = Noise(sigma)
        self.mesh, self.drift = mesh, as_drift(drift)
        self.discretization, self.system = discretization, discretization.on(mesh)
        self.elements = self.system.elements
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
        progress: bool = False,
    ) -> Trajectory:
        """Carry a density from ``t0`` to ``t1``. Collective.

        Args:
            start: Density at ``t0``, on the equation's mesh and of its degree.
            t1: Last time.
            steps: Number of equal steps; none may straddle a switch of the drift.
            t0: First time.
            scheme: ``CrankNicolson()`` unless given.
            tolerance: If given, the steps are doubled until the estimated error in time is below
                it: the largest L2 difference to the run with half the steps, over the largest
                norm, divided by what the observed order makes of it (``Trajectory.time_error``).
                At least three runs: two may agree because both miss what the drift does.
            progress: Show progress on rank 0.

        Returns:
            The densities at all ``steps + 1`` levels.

        Raises:
            ValueError: On all ranks, for a bad argument or a drift with bad values.
            ArithmeticError: On all ranks, if the solver fails or the tolerance is not reached.
        """
        steps = check_steps(steps)
        if not (np.isfinite([t0, t1]).all() and t1 > t0):
            raise ValueError(f"t1 = {t1!r} must be finite and later than t0 = {t0!r}.")
        check_density("start", start, self.elements)
        check_switches(self.drift, t0, t1, steps)
        scheme = check_scheme(scheme)
        if tolerance is None:
            return self._march(start, t0, t1, steps, scheme, progress)
        if not (np.isfinite(tolerance) and tolerance > 0):
            raise ValueError(f"tolerance = {tolerance!r} must be a positive number.")
        return self._refine(start, t0, t1, steps, scheme, tolerance, progress)

    def _refine(
        self,
        start: fem.Function,
        t0: float,
        t1: float,
        steps: int,
        scheme: Scheme,
        tolerance: float,
        progress: bool,
    ) -> Trajectory:
        """Double the steps until the error that two runs imply is below the tolerance."""
        g, before = self.elements, None
        coarse = self._march(start, t0, t1, steps, scheme, progress)
        for _ in range(MAX_DOUBLINGS):
            fine = self._march(start, t0, t1, 2 * (len(coarse) - 1), scheme, progress)
            gaps = [norm(g, u) for u in fine.levels[::2] - coarse.levels]
            gap = max(gaps) / max(norm(g, u) for u in fine.levels[::2])
            if before is not None:
                # Successive gaps shrink by 2**order; a drift that switches lowers the order, so it
                # is taken as observed.
                ratio = float(np.clip(before / max(gap, 1e-300), 1.5, 2**scheme.order))
                error = gap / (ratio - 1.0)
                if error <= tolerance:
                    return replace(fine, time_error=error)
            coarse, before = fine, gap
        raise ArithmeticError(
            f"tolerance = {tolerance:g} was not reached with {len(coarse) - 1} steps: the error "
            f"is {error:.1e}. Begin with more steps, or use a scheme of higher order."
        )

    def _march(
        self,
        start: fem.Function,
        t0: float,
        t1: float,
        steps: int,
        scheme: Scheme,
        progress: bool,
    ) -> Trajectory:
        """Equal steps."""
        g = self.elements
        times = np.linspace(t0, t1, steps + 1)
        dt = (t1 - t0) / steps
        with collective_errors(g.comm):  # a schedule may raise on one rank only
            diffusivity = [
                [self.noise.diffusivity(t + c * dt) for c in scheme.c] for t in times[:-1]
            ]
        largest = max(max(row) for row in diffusivity)
        stepper = make_stepper(
            self.system, dt, scheme, largest, self._linear_solver, self._petsc_options
        )
        sampler = DriftSampler(self.drift, self.system)
        levels = np.empty((steps + 1, g.n_local))
        levels[0] = start.x.array
        for n in track(range(steps), "forward", g.comm, progress):

            def drive(i: int, n: int = n) -> StageDrift:
                return StageDrift(*sampler.at(times[n] + scheme.c[i] * dt), diffusivity[n][i])

            stepper.step(levels[n], levels[max(n - 1, 0)], levels[n + 1], drive)
        return trajectory(g, times, levels, stepper.solver.iterations)


def norm(g: Elements, u: Array) -> float:
    """L2 norm of a local array. Collective."""
    x, image = g.vector(), g.vector()
    x.array[:] = u
    g.mass.mult(x.petsc_vec, image.petsc_vec)
    return g.inner(x.array, image.array) ** 0.5
