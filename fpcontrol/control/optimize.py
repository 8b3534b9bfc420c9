"""Minimization of a tracking problem: arguments, methods, and what comes out."""

import os
import traceback
from collections.abc import Mapping
from typing import Any

import numpy as np

from fpcontrol.control.checkpoint import Iterate, read_checkpoint
from fpcontrol.control.gauss_newton import MODES, gauss_newton_descent
from fpcontrol.control.on_mesh import MeshRuns
from fpcontrol.control.reduced import ReducedModel
from fpcontrol.control.result import Result, completed
from fpcontrol.control.run import Run, Stop
from fpcontrol.control.tao import TYPES, tao_descent
from fpcontrol.control.tracking import TrackingProblem
from fpcontrol.parallel.errors import barrier_with_timeout, collective_errors
from fpcontrol.parallel.files import output_path
from fpcontrol.parallel.progress import Progress, log_rank0
from fpcontrol.parallel.signals import interrupts
from fpcontrol.typing import Array

METHODS = ("gauss_newton", *TYPES)

# Seconds that a rank with an error waits for the others, of which the first may be writing a
# checkpoint; then it is the only one, and ends the run.
PATIENCE = 10.0


def minimize(
    problem: TrackingProblem,
    weights: Array | None = None,
    *,
    method: str | None = None,
    max_iterations: int = 200,
    max_evaluations: int | None = None,
    max_seconds: float = np.inf,
    gradient_tolerance: float = 1e-6,
    target_error: float = 0.0,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int = 10,
    resume: str | os.PathLike[str] | None = None,
    modes: int = MODES,
    petsc_options: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> Result:
    """Minimize J over the weights. Collective.

    A trial step at which the equation cannot be solved (the density blows up, markers leave the
    domain, a linear solver fails, J is not finite) counts as too long and is shortened
    (``Result.shortened``). Ctrl-C ends the run after the evaluation under way and returns the best
    weights so far, on all ranks; a second Ctrl-C ends the program.

    Args:
        problem: The problem.
        weights: Where to start, flat; the drift's own unless given.
        method: ``"gauss_newton"``, Levenberg-Marquardt over all pieces at once, which needs noise
            and is taken with it unless given; or a type of PETSc's TAO, ``"lmvm"`` (limited-memory
            BFGS; taken without noise) or ``"cg"``.
        max_iterations: Iterations of this call.
        max_evaluations: Evaluations of value and derivative of this call.
        max_seconds: Stop after so many seconds, those of compiling loops not counted, but not
            before the first evaluation.
        gradient_tolerance: Stop at this fraction of the first gradient norm.
        target_error: Stop at this relative error.
        checkpoint: File (.npz) for the best weights and the history, replaced every
            ``checkpoint_every`` iterations and at the end, also by an error.
        checkpoint_every: See ``checkpoint``.
        resume: Checkpoint of this same problem to go on from. The optimizer's memory (of curvature,
            of the damping) starts anew.
        modes: Of the mesh, in which ``"gauss_newton"`` has its Hessian. More of them take more
            seconds an iteration, and fewer iterations.
        petsc_options: TAO options, such as ``{"tao_lmvm_mat_lmvm_hist_size": 10}``; they have no
            prefix on the command line either.
        progress: Show progress on rank 0.

    Raises:
        ValueError: On all ranks, for a bad argument or a checkpoint of another problem, or if
            markers leave the domain at the weights to start from.
        ArithmeticError: On all ranks, if the equation cannot be solved, or J is not finite, at the
            weights to start from.
        OSError: On all ranks, for a file that cannot be read or written.
    """
    if method is None:
        method = "gauss_newton" if isinstance(problem.runs, MeshRuns) else "lmvm"
    if method not in METHODS:
        raise ValueError(f"method = {method!r} is unknown; choose one of {METHODS}.")
    for name, count in (
        ("max_iterations", max_iterations),
        ("max_evaluations", max_evaluations),
        ("checkpoint_every", checkpoint_every),
        ("modes", modes),
    ):
        if count is not None and (not isinstance(count, int | np.integer) or count < 1):
            raise ValueError(f"{name} = {count!r} must be a positive integer.")
    for name, number in (
        ("gradient_tolerance", gradient_tolerance),
        ("target_error", target_error),
    ):
        if not (np.isfinite(number) and number >= 0.0):
            raise ValueError(f"{name} = {number!r} must be finite and not negative.")
    if not max_seconds > 0.0:
        raise ValueError(f"max_seconds = {max_seconds!r} must be positive.")
    if petsc_options and method not in TYPES:
        raise ValueError(f"petsc_options = {dict(petsc_options)}: method = {method!r} has none.")
    comm = problem.elements.comm
    target = None if checkpoint is None else output_path(checkpoint, comm)
    history: list[Iterate] = []
    if resume is not None:
        weights, history, _ = read_checkpoint(resume, problem)
    with collective_errors(comm):
        start = problem.drift.check_weights(problem.drift.weights if weights is None else weights)
    if isinstance(problem.runs, MeshRuns):
        log_rank0(str(problem.runs.storage), comm, progress)
    bar = Progress("minimize", max_iterations, comm, progress)
    run = Run(problem, history, bar, target, checkpoint_every)
    run.limit(max_evaluations, gradient_tolerance, target_error, max_seconds)

    # For after an error: not to be taken for a call that another rank is still in.
    meeting = comm.Dup()
    with interrupts() as run.interrupted:
        try:
            if method == "gauss_newton":
                model = ReducedModel(problem, modes)
                reason = gauss_newton_descent(run, start, max_iterations, model)
            else:
                reason = tao_descent(run, start, method, max_iterations, dict(petsc_options or {}))
        except Stop as stop:
            reason = str(stop)
        except Exception as error:
            run.save_after_error()
            # A rank that leaves alone would wait for the others when PETSc ends, for ever.
            barrier_with_timeout(meeting, PATIENCE, "".join(traceback.format_exception(error)))
            meeting.Free()
            raise
    bar.close()
    run.save()
    meeting.Free()
    settings = {
        "method": method,
        "steps": problem.steps,
        "max_iterations": max_iterations,
        "max_evaluations": max_evaluations,
        "max_seconds": None if max_seconds == np.inf else float(max_seconds),
        "gradient_tolerance": gradient_tolerance,
        "target_error": target_error,
        "petsc_options": dict(petsc_options or {}),
        "resumed_from": None if resume is None else str(resume),
    }
    if method == "gauss_newton":
        settings |= {"modes": modes, "trials": run.trials}
    return completed(
        problem,
        run.best_weights if run.best_weights.size else start,  # Ctrl-C before the first evaluation
        tuple(run.history),
        reason,
        run.evaluations,
        settings,
        run.shortened,
    )
