"""What a minimization found."""

import functools
from dataclasses import dataclass

import numpy as np

from fpcontrol.characteristics import Flow
from fpcontrol.control.checkpoint import Iterate
from fpcontrol.control.network import NetworkDrift
from fpcontrol.control.tracking import Errors, TrackingProblem
from fpcontrol.fokker_planck import Trajectory
from fpcontrol.galerkin import Array


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
    """

    problem: TrackingProblem
    weights: Array
    value: float
    history: tuple[Iterate, ...]
    reason: str
    evaluations: int

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
        """Controlled densities; without noise along labels. Collective at first use."""
        return self.problem.trajectory(self.weights)

    @functools.cached_property
    def drift(self) -> NetworkDrift:
        """The network with the weights found. Collective at first use."""
        return self.problem.drift.with_weights(self.weights)

    def summary(self) -> str:
        """Table of the figures of merit, with and without control. Collective."""
        errors, trajectory = self.errors, self.trajectory
        still = self.problem.errors(np.zeros_like(self.weights))
        mean = float(trajectory.mass[0]) / self.problem.galerkin.volume
        last = self.history[-1]
        rows = [
            ("", "without control", "with control"),
            ("relative error", f"{still.relative_error:.4f}", f"{errors.relative_error:.4f}"),
            (
                "relative sup error",
                f"{still.relative_sup_error:.4f}",
                f"{errors.relative_sup_error:.4f}",
            ),
            ("error at the end", f"{still.final_error:.4f}", f"{errors.final_error:.4f}"),
            ("minimum / mean density", "", f"{trajectory.minimum.min() / mean:.2g}"),
            ("mass defect", "", f"{trajectory.mass_defect:.1e}"),
            ("derivatives", "", f"{self.evaluations}"),
            ("seconds", "", f"{last.seconds:.0f}"),
            ("stopped by", "", self.reason),
        ]
        return "\n".join(f"{name:<24}{a:>16}{b:>20}" for name, a, b in rows)

    def refined(self, steps: int) -> "Result":
        """The same weights on another number of steps, for reported figures. Collective."""
        problem = self.problem.refined(steps)
        value = problem(self.weights)
        return Result(problem, self.weights, value, self.history, self.reason, self.evaluations)
