"""What a minimization found."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fpcontrol.characteristics.flow import Flow
from fpcontrol.control.checkpoint import Iterate
from fpcontrol.control.parametric import ParametricDrift
from fpcontrol.control.tracking import Errors, TrackingProblem
from fpcontrol.trajectory import Trajectory
from fpcontrol.typing import Array


@dataclass(frozen=True)
class Result:
    """What ``minimize`` found.

    Attributes:
        problem: The problem.
        weights: Best weights seen, flat.
        value: J there.
        history: One ``Iterate`` an iteration, those of a resumed run included.
        reason: Why it stopped.
        evaluations: Number of value-and-derivative evaluations.
        optimizer: How they were found: the arguments of ``minimize`` and the steps of its problem,
            which are not those of a ``refined`` one.
    """

    problem: TrackingProblem
    weights: Array
    value: float
    history: tuple[Iterate, ...]
    reason: str
    evaluations: int
    optimizer: Mapping[str, Any] = field(default_factory=dict)

    @functools.cached_property
    def errors(self) -> Errors:
        """Errors at the weights found. Collective at first use."""
        return self.problem.errors(self.weights)

    @property
    def relative_error(self) -> float:
        """See ``Errors``. Collective at first use."""
        return self.errors.relative_error

    @property
    def relative_sup_error(self) -> float:
        """See ``Errors``. Collective at first use."""
        return self.errors.relative_sup_error

    @functools.cached_property
    def trajectory(self) -> Trajectory | Flow:
        """Controlled densities, without noise along markers. Collective at first use.

        All levels, held as long as the result, whatever the problem's ``memory`` says.
        """
        return self.problem.trajectory(self.weights)

    @functools.cached_property
    def _mass_and_minimum(self) -> tuple[Array, Array]:
        return self.problem.mass_and_minimum(self.weights)

    @property
    def mass_defect(self) -> float:
        """Largest relative change of the mass, without a trajectory. Collective at first use."""
        mass = self._mass_and_minimum[0]
        return float(np.abs(mass / mass[0] - 1.0).max())

    @property
    def minimum_density(self) -> float:
        """Smallest density at any time, without a trajectory. Collective at first use."""
        return float(self._mass_and_minimum[1].min())

    @functools.cached_property
    def drift(self) -> ParametricDrift:
        """The network with the weights found. Collective at first use."""
        return self.problem.drift.with_weights(self.weights)

    def summary(self) -> str:
        """Table of the figures of merit, with and without control. Collective."""
        errors, (mass, _) = self.errors, self._mass_and_minimum
        still = self.problem.errors(np.zeros_like(self.weights))
        mean = float(mass[0]) / self.problem.elements.volume
        last = self.history[-1]
        rows = [
            ("", "without control", "with control"),
            ("J", f"{still.value:.4g}", f"{errors.value:.4g}"),
            ("relative error", f"{still.relative_error:.4f}", f"{errors.relative_error:.4f}"),
            (
                "relative sup error",
                f"{still.relative_sup_error:.4f}",
                f"{errors.relative_sup_error:.4f}",
            ),
            ("error at the end", f"{still.final_error:.4f}", f"{errors.final_error:.4f}"),
            ("minimum / mean density", "", f"{self.minimum_density / mean:.2g}"),
            ("mass defect", "", f"{self.mass_defect:.1e}"),
            ("derivatives", "", f"{self.evaluations}"),
            ("seconds", "", f"{last.seconds:.0f}"),
            ("stopped by", "", self.reason),
        ]
        return "\n".join(f"{name:<24}{a:>16}{b:>20}" for name, a, b in rows)

    def refined(self, steps: int) -> "Result":
        """The same weights on another number of steps, for reported figures. Collective."""
        problem = self.problem.refined(steps)
        value = problem(self.weights)
        return replace(self, problem=problem, value=value)
