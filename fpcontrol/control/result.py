"""What a minimization found."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fpcontrol.certificates import Certificate
from fpcontrol.characteristics.flow import Flow
from fpcontrol.control.certified import tracking_certificate
from fpcontrol.control.checkpoint import Iterate, read_checkpoint, write_checkpoint
from fpcontrol.control.errors import Errors
from fpcontrol.control.on_characteristics import CharacteristicRuns
from fpcontrol.control.on_mesh import MeshRuns
from fpcontrol.control.tracking import TrackingProblem
from fpcontrol.discretization.replica import LeftDomain
from fpcontrol.drift.base import Drift
from fpcontrol.parallel.files import output_path
from fpcontrol.stepping.resolution import CellPeclet
from fpcontrol.stepping.watch import say
from fpcontrol.trajectory import Trajectory, absorption
from fpcontrol.typing import Array
from fpcontrol.walls import walled


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """What ``minimize`` found: plain data, of which nothing communicates when it is read.

    Attributes:
        problem: The problem.
        weights: Best weights seen, flat.
        value: J there.
        history: One ``Iterate`` an iteration, those of a resumed run included.
        reason: Why it stopped.
        evaluations: Number of value-and-derivative evaluations.
        optimizer: How they were found: the arguments of ``minimize`` and the steps of its problem,
            which are not those of a ``refined`` one.
        errors: Errors at the weights found.
        uncontrolled: Errors with all weights zero; ``None`` if the equation cannot be solved there.
        mass: Mass of the controlled density at all levels, ``(steps + 1,)``.
        minimum: Its smallest degree of freedom, without noise its smallest value at a marker.
        absorbed: Mass that each absorbing wall has taken, ``(steps + 1, tags)``; the tags are
            ``problem.tags``.
        limited_fraction: Share of nodes times steps that ``Limited()`` has limited.
        drift: The drift that ran: the problem's with the weights found, without noise made to
            vanish at the walls.
        shortened: How many trial steps were too long for the equation to be solved, the density
            having blown up, say; line searches took shorter ones.
        warnings: What the run with the weights found was warned of.
        certificate: Bounds of the distances to the reference, beside what was measured, from the
            drift that ran and the reference's; ``None`` where there is none, see ``uncertified``.
        uncertified: Why there is no certificate; empty if there is one.
        cell_peclet, clipped: Of that run, see ``Trajectory``; ``None`` and 0 without noise.
        killed, produced: Of that run, with ``fpc.Reactions`` or ``reentry``, see ``Trajectory``.
    """

    problem: TrackingProblem
    weights: Array
    value: float
    history: tuple[Iterate, ...]
    reason: str
    evaluations: int
    optimizer: Mapping[str, Any]
    errors: Errors
    uncontrolled: Errors | None
    mass: Array
    minimum: Array
    absorbed: Array
    limited_fraction: float
    drift: Drift
    shortened: int
    warnings: tuple[str, ...]
    certificate: Certificate | None
    uncertified: str
    cell_peclet: CellPeclet | None
    clipped: float
    _trajectory: Trajectory | Flow | None = field(repr=False)
    killed: Array = field(default_factory=lambda: np.zeros(1))
    produced: Array = field(default_factory=lambda: np.zeros(1))

    @property
    def relative_error(self) -> float:
        """See ``Errors``."""
        return self.errors.relative_error

    @property
    def relative_sup_error(self) -> float:
        """See ``Errors``."""
        return self.errors.relative_sup_error

    @property
    def trajectory(self) -> Trajectory | Flow:
        """Controlled densities at all levels, without noise along markers; read-only.

        Raises:
            RuntimeError: If they are more than the problem's ``memory`` holds, so that none were
                kept; ``run()`` holds them in any case.
        """
        if self._trajectory is None:
            raise RuntimeError(
                "The problem recomputes its levels (memory, snapshots), so that the result keeps "
                "none. Call result.run() on all ranks, which holds all levels at once, or give the "
                "problem more memory or disk=."
            )
        return self._trajectory

    @property
    def mass_defect(self) -> float:
        """Largest relative change of the mass, with what was absorbed, killed and produced."""
        total = self.mass + self.absorbed.sum(axis=1) + self.killed - self.produced
        return float((np.abs(total - total[0]) / np.abs(total[0] + self.produced)).max())

    @property
    def minimum_density(self) -> float:
        """Smallest density at any time."""
        return float(self.minimum.min())

    def run(self) -> Trajectory | Flow:
        """Controlled densities at all levels: those kept, or else of a run made now. Collective."""
        if self._trajectory is None:
            return self.problem.trajectory(self.weights)
        return self._trajectory

    def summary(self) -> str:
        """Table of the figures of merit, with and without control."""
        errors, still, last = self.errors, self.uncontrolled, self.history[-1]
        mean = float(self.mass[0] + self.absorbed[0].sum()) / self.problem.elements.volume

        def row(name: str, figure: str, form: str) -> tuple[str, str, str]:
            without = "" if still is None else format(getattr(still, figure), form)
            return name, without, format(getattr(errors, figure), form)

        rows = [
            ("", "without control", "with control"),
            row("J", "value", ".4g"),
            row("relative error", "relative_error", ".4f"),
            row("relative sup error", "relative_sup_error", ".4f"),
            row("error at the end", "final_error", ".4f"),
            ("minimum / mean density", "", f"{self.minimum_density / mean:.2g}"),
            ("mass defect", "", f"{self.mass_defect:.1e}"),
            ("derivatives", "", f"{self.evaluations}"),
            ("seconds", "", f"{last.seconds:.0f}"),
            ("stopped by", "", self.reason),
        ]
        if (c := self.certificate) is not None:
            rows[5:5] = [
                (f"{distance} at the end, {name}", "", f"{measured[-1]:.3g} <= {bound[-1]:.3g}")
                for distance, name, measured, bound in (
                    ("L2", "(E3)", c.l2, c.l2_bound),
                    ("KL", "(E4)", c.kl, c.e4),
                    ("L1", "Pinsker", c.l1, c.l1_bound),
                )
            ]
        if self.cell_peclet is not None:
            rows.insert(-3, ("cell Peclet number", "", str(self.cell_peclet)))
        if self.clipped > 0.0:
            rows.insert(-3, ("weights cut off", "", f"{self.clipped:.2g}"))
        if self.problem.tags:
            rows.insert(-4, ("mass at the end", "", f"{self.mass[-1]:.4f}"))
        if self.limited_fraction:
            rows.insert(-4, ("limited nodes", "", f"{self.limited_fraction:.2%}"))
        if self.shortened:
            rows.insert(-2, ("trial steps shortened", "", f"{self.shortened}"))
        return "\n".join(f"{name:<24}{a:>16}{b:>28}" for name, a, b in rows)

    def refined(self, steps: int) -> "Result":
        """The same weights on another number of steps, for reported figures. Collective."""
        return completed(
            self.problem.refined(steps),
            self.weights,
            self.history,
            self.reason,
            self.evaluations,
            self.optimizer,
            self.shortened,
        )

    def __repr__(self) -> str:
        left = absorption(self.mass, self.problem.tags, self.absorbed)
        mass = f", mass {self.mass[0]:.4g}{left}" if left else ""
        return (
            f"Result: relative error {self.relative_error:.4f}, J {self.value:.4g}{mass}, "
            f"{len(self.weights)} weights, {len(self.history)} iterates, "
            f"{self.evaluations} evaluations, stopped by {self.reason}"
        )


def completed(
    problem: TrackingProblem,
    weights: Array,
    history: tuple[Iterate, ...],
    reason: str,
    evaluations: int,
    optimizer: Mapping[str, Any],
    shortened: int,
) -> Result:
    """A result with its errors, masses and densities, from a run at the weights. Collective.

    What that run is to be warned of is said here, once; during the optimization it was not.
    """
    try:
        uncontrolled = problem.errors(np.zeros_like(weights))
    except ArithmeticError as error:
        if type(error) is not ArithmeticError:  # not on all ranks, perhaps
            raise
        uncontrolled = None
    except LeftDomain:
        uncontrolled = None
    errors = problem.errors(weights)
    mass, minimum = problem.mass_and_minimum(weights)
    warnings = problem.runs.warnings(weights)
    for text in warnings:
        say(problem.elements.comm, text)
    runs, drift = problem.runs, problem.drift.with_weights(weights)
    kept = not (isinstance(runs, MeshRuns) and runs.storage.snapshots is not None)
    found = problem.trajectory(weights) if kept else None
    certified: tuple[Certificate | None, str] = None, "the levels are recomputed, none is kept"
    if found is not None:
        try:
            certified = tracking_certificate(problem, weights, found, signed=True), ""
        except ValueError as error:
            certified = None, str(error)
    return Result(
        problem,
        weights,
        errors.value,
        history,
        reason,
        evaluations,
        optimizer,
        errors,
        uncontrolled,
        mass,
        minimum,
        problem.absorbed(weights),
        runs.limited_fraction(weights) if isinstance(runs, MeshRuns) else 0.0,
        walled(drift, drift.mesh, runs.walled.factor.layer)
        if isinstance(runs, CharacteristicRuns)
        else drift,
        shortened,
        warnings,
        *certified,
        runs.cell_peclet(weights) if isinstance(runs, MeshRuns) else None,
        runs.system.clipped if isinstance(runs, MeshRuns) else 0.0,
        found,
        *(runs.reacted(weights) if isinstance(runs, MeshRuns) else ()),
    )


def save_result(result: Result, path: str | os.PathLike[str]) -> None:
    """Write weights, history and how the optimization ended, as a checkpoint. Collective.

    Args:
        result: From ``minimize``.
        path: Ends in ``.npz``.

    Raises:
        OSError: On all ranks, if the file cannot be written.
    """
    comm = result.problem.elements.comm
    end = {
        "reason": result.reason,
        "evaluations": result.evaluations,
        "shortened": result.shortened,
        "optimizer": dict(result.optimizer),
    }
    fingerprint = result.problem.fingerprint()
    target = output_path(path, comm)
    write_checkpoint(target, fingerprint, result.weights, result.history, comm, end)


def load_result(path: str | os.PathLike[str], problem: TrackingProblem) -> Result:
    """The result that ``save_result`` wrote, or of a checkpoint of ``minimize``. Collective.

    Errors, masses and densities come from a run at the weights.

    Args:
        path: The file.
        problem: The problem, made as it was then; on any number of ranks.

    Raises:
        OSError: On all ranks, if there is no such file or it is none of these.
        ValueError: On all ranks, if it belongs to another problem; the message says how it differs.
    """
    weights, history, end = read_checkpoint(path, problem, "path")
    return completed(
        problem,
        weights,
        tuple(history),
        end.get("reason", "checkpoint"),
        end.get("evaluations", history[-1].evaluations if history else 0),
        end.get("optimizer", {}),
        end.get("shortened", 0),
    )
