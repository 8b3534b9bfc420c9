"""Minimization of a tracking problem with PETSc TAO: history, stops, checkpoints."""

import contextlib
import os
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np
from petsc4py import PETSc

from fpcontrol.control.checkpoint import Iterate, read_checkpoint, write_checkpoint
from fpcontrol.control.on_mesh import MeshRuns
from fpcontrol.control.result import Result, completed
from fpcontrol.control.tracking import TrackingProblem
from fpcontrol.discretization.replica import LeftDomain
from fpcontrol.linalg.linear_solvers import petsc_options_set
from fpcontrol.parallel.errors import barrier_with_timeout, cached_comm, collective_errors
from fpcontrol.parallel.files import output_path
from fpcontrol.parallel.progress import Progress, log_rank0
from fpcontrol.parallel.signals import interrupts
from fpcontrol.typing import Array

# TAO's types that need values and derivatives only, with options that differ from TAO's own.
METHODS: dict[str, dict[str, Any]] = {
    "lmvm": {"tao_lmvm_mat_lmvm_scale_type": "scalar", "tao_lmvm_mat_lmvm_hist_size": 30},
    "cg": {},
}

# Seconds that a rank with an error waits for the others, of which the first may be writing a
# checkpoint; then it is the only one, and ends the run.
PATIENCE = 10.0


class _Stop(Exception):
    """Leaves TAO from inside an evaluation; the same on all ranks."""


def minimize(
    problem: TrackingProblem,
    weights: Array | None = None,
    *,
    method: str = "lmvm",
    max_iterations: int = 200,
    max_evaluations: int | None = None,
    gradient_tolerance: float = 1e-6,
    target_error: float = 0.0,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int = 10,
    resume: str | os.PathLike[str] | None = None,
    petsc_options: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> Result:
    """Minimize J over the weights. Collective.

    One TAO solver for all ranks, its vectors on rank 0. A trial step at which the equation cannot
    be solved (the density blows up, markers leave the domain, a linear solver fails, J is not
    finite) counts as too long: the line search shortens it (``Result.shortened``). Ctrl-C ends the
    run after the evaluation under way and returns the best weights so far, on all ranks; a second
    Ctrl-C ends the program.

    Args:
        problem: The problem.
        weights: Where to start, flat; the drift's own unless given.
        method: TAO type, ``"lmvm"`` (limited-memory BFGS) or ``"cg"``.
        max_iterations: Iterations of this call.
        max_evaluations: Evaluations of value and derivative of this call.
        gradient_tolerance: Stop at this fraction of the first gradient norm.
        target_error: Stop at this relative error.
        checkpoint: File (.npz) for the best weights and the history, replaced every
            ``checkpoint_every`` iterations and at the end, also by an error.
        checkpoint_every: See ``checkpoint``.
        resume: Checkpoint of this same problem to go on from. The optimizer's memory of curvature
            starts anew.
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
    if method not in METHODS:
        raise ValueError(f"method = {method!r} is unknown; choose one of {tuple(METHODS)}.")
    for name, count in (
        ("max_iterations", max_iterations),
        ("max_evaluations", max_evaluations),
        ("checkpoint_every", checkpoint_every),
    ):
        if count is not None and (not isinstance(count, int | np.integer) or count < 1):
            raise ValueError(f"{name} = {count!r} must be a positive integer.")
    for name, number in (
        ("gradient_tolerance", gradient_tolerance),
        ("target_error", target_error),
    ):
        if not (np.isfinite(number) and number >= 0.0):
            raise ValueError(f"{name} = {number!r} must be finite and not negative.")
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
    run = _Run(problem, history, bar, target, checkpoint_every)
    run.limit(max_evaluations, gradient_tolerance, target_error)

    # For after an error: not to be taken for a call that another rank is still in.
    meeting = comm.Dup()
    # One optimizer for all ranks, its vectors on rank 0 alone: optimizers of their own would round
    # differently on different ranks (BLAS does, by alignment), and after some hundred iterations
    # one rank takes a step that another refuses.
    shared = cached_comm(comm)
    x = PETSc.Vec().createMPI((start.size if comm.rank == 0 else 0, start.size), comm=shared)
    x.array[:] = start[: x.local_size]
    tao = PETSc.TAO().create(shared)
    tao.setType(method)
    tao.setObjectiveGradient(run.evaluate, x.duplicate())
    tao.setConvergenceTest(run.iterated)
    tao.setMaximumIterations(max_iterations)
    tao.setMaximumFunctionEvaluations(10**9)
    options = METHODS[method] | dict(petsc_options or {})
    # Without a prefix: TAO's own does not reach the matrix of the quasi-Newton method.
    with interrupts() as run.interrupted, petsc_options_set("", options):
        tao.setFromOptions()
        try:
            tao.solve(x)
            reason = run.reason or _reason(tao.getConvergedReason())
        except PETSc.Error:
            if run.error is None:
                raise
            if not isinstance(run.error, _Stop):
                run.save_after_error()
                # A rank that leaves alone would wait for the others when PETSc ends, for ever.
                barrier_with_timeout(
                    meeting, PATIENCE, "".join(traceback.format_exception(run.error))
                )
                meeting.Free()
                raise run.error from None
            reason = str(run.error)
    bar.close()
    run.save()
    meeting.Free()
    settings = {
        "method": tao.getType(),
        "steps": problem.steps,
        "max_iterations": max_iterations,
        "max_evaluations": max_evaluations,
        "gradient_tolerance": gradient_tolerance,
        "target_error": target_error,
        "petsc_options": dict(petsc_options or {}),
        "resumed_from": None if resume is None else str(resume),
    }
    return completed(
        problem,
        run.best_weights if run.best_weights.size else start,  # Ctrl-C before the first evaluation
        tuple(run.history),
        reason,
        run.evaluations,
        settings,
        run.shortened,
    )


class _Run:
    """What TAO calls, and what it leaves behind."""

    def __init__(
        self,
        problem: TrackingProblem,
        history: list[Iterate],
        progress: Progress,
        target: Path | None,
        save_every: int,
    ) -> None:
        self.problem, self.history = problem, history
        self._progress, self._target, self._save_every = progress, target, save_every
        self.reason: str | None = None
        self.error: Exception | None = None
        self.interrupted: list[int] = []
        self.shortened = 0
        last = history[-1] if history else Iterate(0, 0, np.inf, np.inf, np.inf, 0.0)
        self.evaluations = last.evaluations
        self._first_iteration = last.iteration
        self._fingerprint = problem.fingerprint()
        # The last iterate on rank 0, its value and derivative: where line searches start.
        self._base: tuple[Array, float, Array] | None = None
        self._first_gradient = history[0].gradient_norm if history else None
        self._clock = time.monotonic() - last.seconds
        self.best_value, self.best_weights = np.inf, np.empty(0)
        self._best_error, self._best_gradient = np.inf, np.inf

    def limit(self, evaluations: int | None, gradient_tolerance: float, error: float) -> None:
        """Set what stops the run, apart from TAO's own count of iterations."""
        self._limit = None if evaluations is None else self.evaluations + evaluations
        self._gradient_tolerance, self._target_error = gradient_tolerance, error

    def evaluate(self, tao: PETSc.TAO, x: PETSc.Vec, gradient: PETSc.Vec) -> float:
        """Value and derivative for TAO. An exception here leaves TAO as PETSc error 101."""
        comm = self.problem.elements.comm
        try:
            if comm.allreduce(bool(self.interrupted), op=MPI.LOR):
                raise _Stop("interrupted")
            if self._limit is not None and self.evaluations >= self._limit:
                raise _Stop("max_evaluations")
            weights = comm.bcast(x.getArray(readonly=True).copy())
            value, dual = self.problem.value_and_derivative(weights)
            error = self.problem.errors(weights).relative_error
            value, error, norm = comm.bcast((value, error, float(np.linalg.norm(dual))))
            if not np.isfinite([value, norm]).all():
                raise ArithmeticError(f"J = {value:g}, or its derivative, is not finite.")
        except Exception as error:
            # These two types themselves are raised on all ranks. What derives from ArithmeticError,
            # such as a division by zero, may be one rank's own.
            if self._base is None or type(error) not in (LeftDomain, ArithmeticError):
                self.error = error
                raise
            return self._too_long(x, gradient)
        self.evaluations += 1
        if value < self.best_value:
            self.best_value, self.best_weights = value, weights
            self._best_error, self._best_gradient = error, norm
        gradient.array[:] = dual[: gradient.local_size]
        return value

    def _too_long(self, x: PETSc.Vec, gradient: PETSc.Vec) -> float:
        r"""A surrogate for value and derivative at a trial step that could not be evaluated.

        A parabola along the step :math:`s`, with the value of J and its slope :math:`g\cdot s < 0`
        at the start, and its minimum a quarter of the way: a line search sees a value that it
        rejects, and interpolates to a shorter step.
        """
        assert self._base is not None
        start, value, dual = self._base
        self.evaluations += 1
        self.shortened += 1
        slope = self.problem.elements.comm.bcast(float(dual @ (x.getArray(readonly=True) - start)))
        gradient.array[:] = -3.0 * dual
        return value + max(abs(slope), 1e-6 * abs(value))

    def iterated(self, tao: PETSc.TAO) -> None:
        """Record an iteration and decide whether to stop; the same on all ranks."""
        try:
            self._base = (
                tao.getSolution().getArray(readonly=True).copy(),
                tao.getObjectiveValue(),
                tao.getGradient()[0].getArray(readonly=True).copy(),
            )
            self._iterated(tao)
        except Exception as error:
            self.error = error
            raise

    def _iterated(self, tao: PETSc.TAO) -> None:
        iteration = self._first_iteration + tao.getIterationNumber()
        if iteration == self._first_iteration and self.history:
            return  # Resumed: this iterate is the last one of the history.
        seconds = self.problem.elements.comm.bcast(time.monotonic() - self._clock)
        self.history.append(
            Iterate(
                iteration,
                self.evaluations,
                self.best_value,
                self._best_error,
                self._best_gradient,
                seconds,
            )
        )
        if self._first_gradient is None:
            self._first_gradient = self._best_gradient
        if iteration:
            self._progress.update(f"J {self.best_value:.3e} relative error {self._best_error:.4f}")
        if iteration and iteration % self._save_every == 0:
            self.save()
        if self._best_error <= self._target_error:
            self.reason = "target_error"
        elif self._best_gradient <= self._gradient_tolerance * self._first_gradient:
            self.reason = "gradient_tolerance"
        if self.reason:
            tao.setConvergedReason(PETSc.TAO.ConvergedReason.CONVERGED_USER)
        elif tao.getIterationNumber() >= tao.getMaximumIterations():
            tao.setConvergedReason(PETSc.TAO.ConvergedReason.DIVERGED_MAXITS)

    def save(self) -> None:
        """Write the checkpoint, if one is wanted. Collective."""
        self._save(self.problem.elements.comm)

    def save_after_error(self) -> None:
        """Write the checkpoint on rank 0, without the help of the others: they may be lost.

        If the file cannot be written, the error before counts, not that.
        """
        if self.problem.elements.comm.rank == 0:
            with contextlib.suppress(OSError):
                self._save(MPI.COMM_SELF)

    def _save(self, comm: MPI.Comm) -> None:
        if self._target is not None and self.best_weights.size:
            write_checkpoint(self._target, self._fingerprint, self.best_weights, self.history, comm)


def _reason(code: int) -> str:
    names = {v: k for k, v in vars(PETSc.TAO.ConvergedReason).items() if k.isupper()}
    if code == PETSc.TAO.ConvergedReason.DIVERGED_MAXITS:
        return "max_iterations"
    return names.get(code, str(code)).lower()
