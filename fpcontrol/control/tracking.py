"""The control problem: weights of a network that make the density follow a reference."""

import copy
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from dolfinx import fem
from dolfinx.mesh import Mesh, MeshTags

from fpcontrol.characteristics.flow import Flow, Markers
from fpcontrol.control.errors import Errors
from fpcontrol.control.objectives import L2Tracking, Objective, checked_weight, trapezoid
from fpcontrol.control.on_characteristics import CharacteristicRuns
from fpcontrol.control.on_mesh import MeshRuns
from fpcontrol.control.parametric import ParametricDrift
from fpcontrol.discretization.absorbing import Walls
from fpcontrol.discretization.base import Discretization
from fpcontrol.discretization.bounded import described
from fpcontrol.discretization.galerkin import Galerkin
from fpcontrol.discretization.reactions import Reactions
from fpcontrol.discretization.reentry import Entry
from fpcontrol.mesh.refinement import refine, transferred
from fpcontrol.noise import Interpretation, Noise, Sigma
from fpcontrol.parallel.errors import collective_errors
from fpcontrol.reference import MoserFlow
from fpcontrol.stepping.schemes import Scheme
from fpcontrol.trajectory import Trajectory, check_steps
from fpcontrol.typing import AnalyticReference, Array

# Options by the names that they had before.
RENAMED = {"labels": "markers", "label_mesh": "marker_mesh"}


class TrackingProblem:
    r"""Track a reference density in L2 with the weights of a drift. Collective.

    .. math::
        J(\theta) = \tfrac12 w_r\,\mathrm{relative\_error}^2
          + \tfrac12 w_T \frac{\|\rho(T)-\rho^{ref}(T)\|^2}{\|\rho^{ref}(T)\|^2}
          + \tfrac12\,\mathrm{decay}\,\frac{|\theta|^2}{\mathrm{pieces}}
          + \text{objectives}

    subject to the Fokker-Planck equation with the drift of these weights. J is dimensionless. The
    derivative is the discrete adjoint of the scheme that runs. ``problem(weights)`` is J,
    ``problem.derivative(weights)`` its dual vector; the weights must be the same on all ranks.

    Without noise (``sigma = 0``: a neural ODE) the density is carried along characteristics, with
    no diffusion of a mesh, and the drift is made to vanish at the walls (``CharacteristicRuns``).

    With ``absorbing`` walls the controlled density vanishes there and loses mass, see
    ``FokkerPlanck``; the reference keeps its mass: the drift has to keep the density from them.

    Args:
        reference: What to follow, on a mesh and in a space of its own (``MoserFlow``).
        drift: ``NetworkDrift``, or any other ``ParametricDrift``; without noise of a smooth
            activation or field.
        sigma: Noise of the controlled equation, see ``FokkerPlanck``.
        steps: Number of time steps, a multiple of the drift's pieces; four steps a piece or more
            for figures that are reported.
        interpretation: Of a noise that depends on place, see there.
        start: Start density, in the reference's space; the reference's own unless given.
        running_weight: :math:`w_r`.
        terminal_weight: :math:`w_T`.
        decay: Weight of the squared weights.
        objectives: What is minimized beside the tracking, with noise, such as
            ``fpc.objectives.KineticEnergy(1e-3)``.
        absorbing: With noise, as all up to ``snapshots``: walls that absorb, see ``FokkerPlanck``.
        facet_tags, reactions, reentry: See there.
        scheme: ``CrankNicolson()`` unless given, with absorbing walls ``SDIRK2()``.
        linear_solver, petsc_options: See ``LinearSolver``; ``"auto"`` unless given.
        memory: Budget for densities and operators, GiB per rank; 2 unless given. What is kept
            within it is not computed again for the derivative.
        disk: Directory for densities beyond the budget; computed again unless given.
        snapshots: Number of densities to keep, instead of what ``memory`` implies.
        markers: Without noise, as all below: where characteristics start, with the start density;
            quadrature points of ``marker_mesh`` unless given.
        marker_mesh: Another mesh of the domain; the reference's own unless given.
        layer: Width in which the drift is slowed down at the walls, see ``walled``.
        quadrature_degree: Of the markers; ``2 * degree + 2`` unless given.
        others: Names that options had before, with a warning.

    Attributes:
        runs: ``MeshRuns`` or ``CharacteristicRuns``.

    Raises:
        ValueError: On all ranks, for an argument that is not as above.
    """

    def __init__(
        self,
        reference: MoserFlow | AnalyticReference,
        drift: ParametricDrift,
        sigma: Sigma,
        steps: int,
        *,
        interpretation: Interpretation = "ito",
        start: fem.Function | None = None,
        running_weight: float = 1.0,
        terminal_weight: float = 0.0,
        decay: float = 0.0,
        objectives: Sequence[Objective] = (),
        absorbing: Walls | None = None,
        facet_tags: MeshTags | None = None,
        reactions: Reactions | None = None,
        reentry: Entry | None = None,
        scheme: Scheme | None = None,
        linear_solver: str | None = None,
        petsc_options: Mapping[str, Any] | None = None,
        memory: float | None = None,
        disk: str | os.PathLike[str] | None = None,
        snapshots: int | None = None,
        markers: Markers | None = None,
        marker_mesh: Mesh | None = None,
        layer: float | None = None,
        quadrature_degree: int | None = None,
        **others: Any,
    ) -> None:
        on_mesh = {
            "absorbing": absorbing,
            "facet_tags": facet_tags,
            "reactions": reactions,
            "reentry": reentry,
            "scheme": scheme,
            "linear_solver": linear_solver,
            "petsc_options": petsc_options,
            "memory": memory,
            "disk": disk,
            "snapshots": snapshots,
        }
        on_characteristics = {
            "markers": markers,
            "marker_mesh": marker_mesh,
            "layer": layer,
            "quadrature_degree": quadrature_degree,
        }
        for old in RENAMED.keys() & others.keys():
            message = f"The option {old} is called {RENAMED[old]} now."
            warnings.warn(message, DeprecationWarning, stacklevel=2)
            on_characteristics[RENAMED[old]] = others.pop(old)
        noise = Noise(sigma, zero=True, interpretation=interpretation)
        noisy = not noise.absent
        if not isinstance(drift, ParametricDrift):
            raise ValueError(
                f"drift, a {type(drift).__name__}, has no weights to optimize; give a NetworkDrift "
                "or another ParametricDrift."
            )
        self.sigma, self.interpretation = noise.sigma, interpretation
        self.steps = check_steps(steps, drift.pieces)
        tracking = L2Tracking(running_weight, terminal_weight)
        checked_weight("decay", decay)
        self.objectives = tuple(objectives)
        for objective in self.objectives:
            if not isinstance(objective, Objective):
                raise ValueError(
                    f"objectives has {objective!r}, which is no Objective; give values such as "
                    "fpc.objectives.KineticEnergy(1e-3)."
                )
        if not hasattr(reference, "t1") or not (
            isinstance(reference, MoserFlow) or hasattr(reference, "at")
        ):
            raise ValueError(
                f"reference, a {type(reference).__name__}, is no reference; make one of two "
                "densities with MoserFlow(start, goal, t1, sigma)."
            )
        if not np.isclose(drift.t1, reference.t1, rtol=1e-12):
            raise ValueError(
                f"drift.t1 = {drift.t1:g} differs from reference.t1 = {reference.t1:g}."
            )
        if isinstance(reference, MoserFlow) and not same_mesh(drift, reference):
            raise ValueError("drift and reference live on different meshes.")
        if isinstance(start, fem.Function):
            start = start.copy()  # what is remembered of a run must stay true
        mine, theirs = (on_mesh, on_characteristics) if noisy else (on_characteristics, on_mesh)
        foreign = others | {name: value for name, value in theirs.items() if value is not None}
        if foreign:
            name, value = next(iter(foreign.items()))
            raise ValueError(
                f"{name} = {value!r} is no option of a problem with sigma "
                f"{'> 0' if noisy else '= 0'}; those are {tuple(mine)}."
            )
        options: dict[str, Any] = {k: value for k, value in mine.items() if value is not None}
        self.runs: MeshRuns | CharacteristicRuns
        if noisy:
            self.runs = MeshRuns(
                reference,  # type: ignore[arg-type]
                drift,
                sigma,
                self.steps,
                tracking=tracking,
                objectives=self.objectives,
                start=start,
                interpretation=interpretation,
                **options,
            )
        else:
            if self.objectives:
                raise ValueError(
                    f"objectives = {self.objectives!r}: with sigma = 0 there is none beside the "
                    "tracking. Use a problem with noise."
                )
            self.runs = CharacteristicRuns(
                reference, drift, self.steps, tracking=tracking, start=start, **options
            )
        self.reference, self.drift, self.elements = reference, drift, self.runs.elements
        self.running_weight, self.terminal_weight = float(running_weight), float(terminal_weight)
        self.decay, self.times = float(decay), self.runs.times
        self._start, self._options = start, options
        self._trapezoid = trapezoid(self.steps + 1)

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
        dual = self.runs.derivative(weights)
        return self._errors(weights).value, dual + self.decay / self.drift.pieces * weights

    def tangent(self, weights: Array, direction: Array) -> float:
        """Derivative of J along a direction from the tangent of the scheme. Collective."""
        weights, direction = self._checked(weights), self._checked(direction)
        total = self.runs.tangent(weights, direction)
        return total + self.decay / self.drift.pieces * float(weights @ direction)

    # -- what came out -------------------------------------------------------------------------

    def errors(self, weights: Array) -> Errors:
        """Cost and errors at flat weights. Collective."""
        return self._errors(self._checked(weights))

    def _errors(self, weights: Array) -> Errors:
        squares, norms = self.runs.squares(weights), self.runs.norms
        running = float(self._trapezoid @ squares / (self._trapezoid @ norms))
        terminal = float(squares[-1] / norms[-1])
        return Errors(
            value=0.5 * self.running_weight * running
            + 0.5 * self.terminal_weight * terminal
            + 0.5 * self.decay * float(weights @ weights) / self.drift.pieces
            + float(self.runs.other_costs(weights).sum()),
            relative_error=running**0.5,
            relative_sup_error=float((squares.max() / norms.max()) ** 0.5),
            final_error=terminal**0.5,
            over_time=np.sqrt(squares / norms),
        )

    def trajectory(self, weights: Array) -> Trajectory | Flow:
        """The controlled densities at all levels; without noise along markers. Collective.

        They are held all at once, whatever ``memory`` says, and are read-only.
        """
        return self.runs.trajectory(self._checked(weights))

    def mass_and_minimum(self, weights: Array) -> tuple[Array, Array]:
        """Mass and minimum of the controlled density, ``(steps + 1,)`` each. Collective.

        As ``Trajectory`` and ``Flow`` have them, but within the budget of memory.
        """
        return self.runs.mass_and_minimum(self._checked(weights))

    def absorbed(self, weights: Array) -> Array:
        """Mass that each absorbing wall has taken, ``(steps + 1, tags)``. Collective."""
        return self.runs.absorbed(self._checked(weights))

    @property
    def tags(self) -> tuple[int, ...]:
        """Tags of the absorbing walls."""
        return self.runs.tags

    def refined(self, steps: int, **options: Any) -> "TrackingProblem":
        """The same problem with another number of steps, or other options. Collective."""
        return TrackingProblem(
            self.reference,
            self.drift,
            self.sigma,
            steps,
            interpretation=self.interpretation,
            start=self._start,
            running_weight=self.running_weight,
            terminal_weight=self.terminal_weight,
            decay=self.decay,
            objectives=self.objectives,
            **(self._options | options),
        )

    def on_refined_mesh(
        self,
        steps: int | None = None,
        *,
        discretization: Discretization | None = None,
        **options: Any,
    ) -> "TrackingProblem":
        """The same problem on the mesh refined once: what was claimed, looked at closely.

        An optimizer makes use of the errors of the discretization that it sees, its numerical
        diffusion above all. The errors of its weights here show how much. Start, goal and the line
        between them are the same functions as on the mesh that is refined. Collective.

        Args:
            steps: Number of steps; as many unless given.
            discretization: ``Galerkin(2)`` unless given.
            options: See the class; none is taken along.

        Raises:
            ValueError: On all ranks, for a problem without noise or whose reference is no
                ``MoserFlow``, or with absorbing walls that are not given anew.
        """
        reference = self.reference
        if not isinstance(reference, MoserFlow) or not isinstance(self.runs, MeshRuns):
            raise ValueError(
                f"A problem with sigma = {self.sigma!r} and a {type(reference).__name__} has no "
                "mesh to refine; compare with more steps (refined)."
            )
        if missing := [name for name in described(self.runs.system) if name not in options]:
            raise ValueError(f"Give {missing[0]} (and facet_tags of the refined mesh) anew.")
        method = discretization or Galerkin(2)
        mesh = refine(self.elements.mesh)
        system = method.on(mesh)
        space, begun = system.elements.space, self._start
        begun = None if begun is None else transferred(begun, space)
        fine = MoserFlow.through(
            [transferred(rho, space) for rho in reference.densities],
            reference.times,
            self.sigma,
            interpretation=self.interpretation,
            discretization=method,
        )
        return self.on(fine, steps, start=begun, **options)

    def on(
        self,
        reference: MoserFlow,
        steps: int | None = None,
        *,
        drift: ParametricDrift | None = None,
        start: fem.Function | None = None,
        **options: Any,
    ) -> "TrackingProblem":
        """The same problem with a reference on another mesh of the domain. Collective.

        Weights mean the same drift on both: its coordinates are those of this problem's mesh.

        Args:
            reference: What to follow there.
            steps: Number of steps; as many unless given.
            drift: Another drift; this problem's unless given.
            start: See the class, as for
            options: none of which is taken along.
        """
        drift = copy.copy(drift or self.drift)
        drift.mesh = reference.elements.mesh
        return TrackingProblem(
            reference,
            drift,
            self.sigma,
            steps or self.steps,
            start=start,
            running_weight=self.running_weight,
            terminal_weight=self.terminal_weight,
            decay=self.decay,
            objectives=self.objectives,
            **({"interpretation": self.interpretation} | options),
        )

    def fingerprint(self) -> dict[str, Any]:
        """What must agree for weights of one run to be those of another. Collective."""
        g = self.elements
        return (
            self.drift.describe()
            | {
                "cells": g.mesh.topology.index_map(g.dimension).size_global,
                "degree": g.degree,
                "steps": self.steps,
                "running_weight": self.running_weight,
                "terminal_weight": self.terminal_weight,
                "decay": self.decay,
                "objectives": [objective.describe() for objective in self.objectives],
            }
            | self.runs.fingerprint()
        )

    def _checked(self, weights: Array) -> Array:
        """Weights as a flat array, or an error on all ranks. Collective."""
        with collective_errors(self.elements.comm):
            return self.drift.check_weights(weights)


def same_mesh(drift: ParametricDrift, reference: MoserFlow) -> bool:
    """Whether the two live on one mesh."""
    return bool(drift.mesh._cpp_object == reference.elements.mesh._cpp_object)
