"""What a minimization is made of, whoever chooses the steps: history, stops, checkpoints."""

import contextlib
from pathlib import Path

from mpi4py import MPI

import numpy as np

from fpcontrol.control.checkpoint import Iterate, write_checkpoint
from fpcontrol.control.tracking import TrackingProblem
from fpcontrol.discretization.replica import LeftDomain
from fpcontrol.parallel.progress import Progress, clock
from fpcontrol.typing import Array


class Stop(Exception):
    """Ends a minimization from inside an evaluation; the same on all ranks. Its text is why."""


class Run:
    """The evaluations of one minimization, and what they leave behind.

    Args:
        problem: The problem.
        history: Of the run that goes on here; empty for a new one.
        progress: Shown on rank 0.
        target: Where checkpoints go; none if not given.
        save_every: Iterations between two of them.

    Attributes:
        evaluations: Of value and derivative so far.
        trials: Steps whose value alone was asked for.
        shortened: Trial steps at which the equation could not be solved.
        interrupted: Not empty after a Ctrl-C.
        begun: When the seconds of the history began, as ``progress.clock`` has it.
        best_weights, best_value: Of all evaluations; empty and infinite before the first.
    """

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
        self.interrupted: list[int] = []
        self.shortened = self.trials = 0
        last = history[-1] if history else Iterate(0, 0, np.inf, np.inf, np.inf, 0.0)
        self.evaluations = last.evaluations
        self._first_iteration, self._resumed = last.iteration, bool(history)
        self._fingerprint = problem.fingerprint()
        self._first_gradient = history[0].gradient_norm if history else None
        self.begun = clock() - last.seconds
        self.best_value, self.best_weights = np.inf, np.empty(0)
        self._best_error, self._best_gradient = np.inf, np.inf

    def limit(
        self,
        evaluations: int | None,
        gradient_tolerance: float,
        error: float,
        seconds: float,
        slow: float = 0.0,
    ) -> None:
        """Set what stops the run, apart from the count of iterations.

        ``slow`` is a relative decrease of J: two iterations in turn with less of it are the last.
        """
        self._slow, self._slow_ones, self._last_value = slow, 0, np.inf
        self._limit = None if evaluations is None else self.evaluations + evaluations
        self._gradient_tolerance, self._target_error = gradient_tolerance, error
        self._deadline = clock() + seconds

    def check(self) -> None:
        """Raise a ``Stop`` after a Ctrl-C, or when the time is over. Collective.

        The first evaluation is taken however late it is.
        """
        comm = self.problem.elements.comm
        late = bool(self.best_weights.size) and clock() > self._deadline
        why = comm.allreduce(2 * bool(self.interrupted) + late, op=MPI.MAX)
        if why:
            raise Stop("interrupted" if why > 1 else "max_seconds")

    def evaluate(self, weights: Array) -> tuple[float, Array]:
        """Value and derivative. Collective.

        Raises:
            Stop: If it is time to stop.
            ArithmeticError, LeftDomain: On all ranks, if the equation cannot be solved.
        """
        self.check()
        if self._limit is not None and self.evaluations >= self._limit:
            raise Stop("max_evaluations")
        comm = self.problem.elements.comm
        value, dual = self.problem.value_and_derivative(weights)
        error = self.problem.errors(weights).relative_error
        value, error, norm = comm.bcast((value, error, float(np.linalg.norm(dual))))
        if not np.isfinite([value, norm]).all():
            raise ArithmeticError(f"J = {value:g}, or its derivative, is not finite.")
        self.evaluations += 1
        if value < self.best_value:
            self.best_value, self.best_weights = value, weights
            self._best_error, self._best_gradient = error, norm
        return value, dual

    def value(self, weights: Array) -> float:
        """The value at a trial step, infinite where the equation cannot be solved. Collective."""
        self.check()
        self.trials += 1
        try:
            value = self.problem.errors(weights).value
        except (ArithmeticError, LeftDomain) as error:
            if not everywhere(error):
                raise
            value = np.inf
        value = self.problem.elements.comm.bcast(value)
        if not np.isfinite(value):
            self.shortened += 1
            return np.inf
        return value

    def record(self, iteration: int) -> str | None:
        """Record the best weights after an iteration of this call; why to stop, if so. Collective.

        Iteration 0 of a resumed run is the last one of its history.
        """
        if self._resumed and not iteration:
            return None
        seconds = self.problem.elements.comm.bcast(clock() - self.begun)
        self.history.append(
            Iterate(
                self._first_iteration + iteration,
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
            if (self._first_iteration + iteration) % self._save_every == 0:
                self.save()
        if self._best_error <= self._target_error:
            return "target_error"
        if self._best_gradient <= self._gradient_tolerance * self._first_gradient:
            return "gradient_tolerance"
        is_slow = self._last_value - self.best_value < self._slow * self.best_value
        self._slow_ones = self._slow_ones + 1 if is_slow else 0
        self._last_value = self.best_value
        return "slow" if self._slow_ones >= 2 else None

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


def everywhere(error: Exception) -> bool:
    """Whether an error is one that all ranks raise where a step is too long.

    What derives from ArithmeticError, such as a division by zero, may be one rank's own.
    """
    return type(error) in (LeftDomain, ArithmeticError)
