"""From a reference to weights that follow it, in one call and a given time."""

import copy
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from fpcontrol.control.checkpoint import Iterate, read_checkpoint, write_checkpoint
from fpcontrol.control.construction import energies, interleaved, screened, steep_weights
from fpcontrol.control.gauss_newton import MODES, gauss_newton_descent
from fpcontrol.control.network import NetworkDrift
from fpcontrol.control.parametric import ParametricDrift, PiecewiseConstant
from fpcontrol.control.reduced import ReducedModel
from fpcontrol.control.result import Result, completed
from fpcontrol.control.run import Run, Stop
from fpcontrol.control.tracking import TrackingProblem
from fpcontrol.noise import Noise, Sigma
from fpcontrol.parallel.files import output_path
from fpcontrol.parallel.progress import Progress, clock, log_rank0
from fpcontrol.parallel.signals import interrupts
from fpcontrol.reference import MoserFlow
from fpcontrol.typing import Array

SETS = 4  # of pieces, every fourth, whose neurons are chosen one after another
FIRST = 3  # iterations after each of them
ROUND = 6  # iterations after some pieces have got new neurons
RENEWED = 0.125  # share of the pieces that get them at first; then more or fewer, as it turns out
MORE, LESS = 1.3, 0.6
FINAL = 0.3  # share of the budget for the last descent
MANY = 320  # pieces to choose neurons for, at most: for more, those are run through faster
GROUPS = 40  # into which the pieces are put for that
SHORT = 160  # pieces from which on a step each will do for a search
STARTS = 0.5  # share of the search for beginnings, of which the best one is gone on with
ENDS = ("interrupted", "target_error")
SLOW = 2e-3  # relative decrease of J in an iteration below which a descent has ended
LONG = 10**6
SAVED = 10  # iterations of the last descent between two checkpoints
FINE = 4  # steps a piece of what is reported


def steer(
    reference: MoserFlow,
    width: int | None = None,
    *,
    drift: ParametricDrift | None = None,
    sigma: Sigma | None = None,
    pieces: int = 80,
    steps: int | None = None,
    budget: float = 60.0,
    max_evaluations: int | None = None,
    target_error: float = 0.0,
    seed: int = 0,
    modes: int = MODES,
    coarse: MoserFlow | None = None,
    weights: Array | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: str | os.PathLike[str] | None = None,
    progress: bool = True,
    **options: Any,
) -> Result:
    r"""A drift of limited width that follows a reference, within a budget. Collective.

    Neurons are chosen by what the adjoint asks for (``construction.screened``), for every fourth
    piece at a time, with some iterations of ``minimize``'s ``"gauss_newton"`` between; then some
    pieces after others get other neurons, which are kept if J is lower after some iterations; at
    last a descent with four steps a piece. Before, there are two of them, or one if there are many
    pieces. More than 320 pieces come from half as many, run through twice as fast. A drift that is
    no network, or weights that are given or resumed, are only descended from.

    Ctrl-C returns the best weights so far.

    Args:
        reference: What to follow.
        width: Number of neurons; the dimension unless given.
        drift: Another drift, instead of a network of ``width`` and ``pieces``: one with a bound on
            its speed, say. The weights that a network has are not looked at.
        sigma: Noise; the reference's unless given.
        pieces: Intervals of time on which the weights are constant.
        steps: Time steps of the last descent; four a piece unless given.
        budget: Seconds, those of compiling loops at first use not counted. What is under way is
            not broken off: an evaluation more may be taken.
        max_evaluations: Evaluations of value and derivative, for a budget that does not depend on
            the machine.
        target_error: Stop at this relative error.
        seed: Seed of all that is random.
        modes: See ``minimize``.
        coarse: The same reference on a coarser mesh of the domain, or with a cheaper method, for
            all but the last descent; it is run with Crank-Nicolson steps.
        weights: To descend from at once, such as the best of searches that ran side by side
            (``ensemble``); neurons are chosen unless given.
        checkpoint: File (.npz) for the best weights, replaced after every stage.
        resume: Checkpoint of the same problem to go on from.
        progress: Say on rank 0 what is done.
        options: Of ``TrackingProblem``, such as ``decay`` or ``absorbing``.

    Raises:
        ValueError: On all ranks, for a bad argument or a checkpoint of another problem.
        ArithmeticError: On all ranks, if the equation cannot be solved where a descent begins.
        OSError: On all ranks, for a file that cannot be read or written.
    """
    if not isinstance(reference, MoserFlow):
        raise ValueError(
            f"reference, a {type(reference).__name__}, is no MoserFlow; see fpc.MoserFlow."
        )
    if drift is not None and width is not None:
        raise ValueError(f"width = {width!r} and drift are given; give one of the two.")
    if not budget > 0.0:
        raise ValueError(f"budget = {budget!r} must be a positive number of seconds.")
    mesh, dimension = reference.elements.mesh, reference.elements.dimension
    if drift is None:
        drift = NetworkDrift(mesh, width or dimension, pieces, t1=reference.t1, seed=seed)
    if sigma is None:
        sigma = reference.noise.sigma
        options = {"interpretation": reference.noise.interpretation} | options
    if Noise(sigma, zero=True).absent:
        raise ValueError(
            f"sigma = {sigma!r}: neurons are chosen for a density on a mesh, with noise. Without, "
            "minimize a TrackingProblem from construction.steep_weights(drift)."
        )
    if coarse is not None and options.get("start") is not None:
        raise ValueError("start and coarse are given: the start is on one of two meshes only.")
    if weights is not None and resume is not None:
        raise ValueError("weights and resume are given: there is one place to begin from only.")
    problem = TrackingProblem(reference, drift, sigma, steps or FINE * drift.pieces, **options)
    comm = problem.elements.comm
    target = None if checkpoint is None else output_path(checkpoint, comm)
    begun = weights is not None or resume is not None or not isinstance(drift, NetworkDrift)
    weights = drift.with_weights(drift.weights if weights is None else weights).weights
    history: list[Iterate] = []
    if resume is not None:
        weights, history, _ = read_checkpoint(resume, problem)

    search = Search(problem, history, target, modes, seed, progress)
    search.limit(budget, max_evaluations, target_error)
    log_rank0(f"steer 0 of {budget:g} s: {len(weights)} weights", comm, progress)
    with interrupts() as search.interrupted:
        if not begun and isinstance(drift, NetworkDrift):
            weights = search.construct(_stages(problem, drift, coarse or reference, options))
        found, reason = search.descend(weights)
    settings = {
        "method": "steer",
        "steps": problem.steps,
        "budget": float(budget),
        "max_evaluations": max_evaluations,
        "target_error": target_error,
        "seed": seed,
        "modes": modes,
        "trials": search.trials,
        "resumed_from": None if resume is None else str(resume),
    }
    return completed(
        problem, found, tuple(history), reason, search.evaluations, settings, search.shortened
    )


def _stages(
    problem: TrackingProblem,
    drift: NetworkDrift,
    reference: MoserFlow,
    options: Mapping[str, Any],
) -> list[TrackingProblem]:
    """Problems of more and more pieces, up to those of the drift, to be searched one after another.

    An optimum of few pieces, run through twice as fast and twice as often, is a better beginning
    for many pieces than neurons chosen for all of them, and cheaper.
    """
    counts = [drift.pieces]
    while counts[0] > MANY and counts[0] % 2 == 0:
        counts.insert(0, counts[0] // 2)
    # Those that are taken along with the problem, and what may not suit another method.
    taken = ["running_weight", "terminal_weight", "decay", "objectives"]
    if reference is not problem.reference:
        taken.append("scheme")
    others = {name: value for name, value in options.items() if name not in taken}
    stages = []
    for pieces in counts:
        other = copy.copy(drift)
        other.time = PiecewiseConstant(pieces, drift.t1)
        other.weights = np.zeros(pieces * drift.field.size)
        steps = (1 if pieces >= SHORT else 2) * pieces
        stages.append(problem.on(reference, steps, drift=other, **others))
    return stages


def _doubled(weights: Array, problems: Sequence[TrackingProblem]) -> Array:
    """Weights of the first of some problems, for twice as many pieces as the last one has."""
    for problem in problems:
        groups = max(2, problem.drift.pieces // GROUPS)
        weights = interleaved(weights, problem.drift, groups)
    return weights


class Search:
    """Descents one after another within one budget. Collective.

    Args:
        problem: The problem that is to be solved in the end.
        history: To be added to.
        target: Where checkpoints go; none if not given.
        modes, seed, progress: See ``steer``.

    Attributes:
        evaluations, trials, shortened: See ``Run``; of all descents.
        interrupted: Not empty after a Ctrl-C.
    """

    def __init__(
        self,
        problem: TrackingProblem,
        history: list[Iterate],
        target: Path | None,
        modes: int,
        seed: int,
        progress: bool,
    ) -> None:
        self._problem, self._comm, self._history = problem, problem.elements.comm, history
        self._target, self._fingerprint = target, problem.fingerprint()
        self._modes, self._seed, self._shown = modes, seed, progress
        self._begun = clock()
        self._before = history[-1].seconds if history else 0.0
        self.evaluations = history[-1].evaluations if history else 0
        self.trials = self.shortened = 0
        self.interrupted: list[int] = []
        self._model: tuple[TrackingProblem, ReducedModel] | None = None

    def limit(self, seconds: float, evaluations: int | None, target_error: float) -> None:
        """Set the budget and the error that is good enough."""
        self._seconds, self._limit, self._target_error = seconds, evaluations, target_error
        self._first = self.evaluations

    def construct(self, stages: Sequence[TrackingProblem]) -> Array:
        """Weights of a network with neurons that fit, from a problem of few pieces to one of many.

        Args:
            stages: Problems of which each has twice as many pieces as the one before.
        """
        until, total = 1.0 - FINAL, 2.0 ** len(stages) - 1.0
        weights, reason = self._chosen(stages, until / total)
        for k, problem in enumerate(stages[1:], 1):
            weights = _doubled(weights, stages[k - 1 : k])
            if reason not in ENDS:
                ends = until * (2.0 ** (k + 1) - 1.0) / total
                weights, _, reason = self._descent(problem, weights, LONG, ends)
                self._say(f"{problem.drift.pieces} pieces", problem, weights)
                self._save(weights, stages[k:-1])
        return weights

    def _chosen(self, stages: Sequence[TrackingProblem], until: float) -> tuple[Array, str]:
        """Weights with neurons that fit, for the first stage, and why the search ended."""
        problem, rng = stages[0], np.random.default_rng(self._seed)
        n = problem.drift.pieces
        best, least, reason = self._begin(problem, rng, until)
        while self._spent() < STARTS * until and reason not in ENDS:
            weights, value, reason = self._begin(problem, rng, until)
            if value < least:
                best, least = weights, value
        renewed = RENEWED * n
        while self._spent() < until and reason not in ENDS:
            self._save(best, stages[:-1])
            weak = 1.0 / np.maximum(energies(problem, best), 1e-300)
            count = min(max(round(renewed), 1), n)
            some = rng.choice(n, count, replace=False, p=weak / weak.sum())
            weights = self._screened(problem, best, some, rng)
            weights, value, reason = self._descent(problem, weights, ROUND, until)
            kept = value < least
            renewed *= MORE if kept else LESS
            if kept:
                best, least = weights, value
            what = f"other neurons in {count} pieces {'kept' if kept else 'given up'}"
            self._say(what, problem, best)
        return best, reason

    def _begin(
        self, problem: TrackingProblem, rng: np.random.Generator, until: float
    ) -> tuple[Array, float, str]:
        """Neurons for every fourth piece at a time, then a descent: weights, J, why it ended."""
        drift = cast(NetworkDrift, problem.drift)
        weights, n = steep_weights(drift, int(rng.integers(2**31))), drift.pieces
        for k in range(min(SETS, n)):
            weights = self._screened(problem, weights, range(k, n, SETS), rng)
            weights, value, reason = self._descent(problem, weights, FIRST, until)
            if reason in (*ENDS, "max_seconds", "max_evaluations"):
                return weights, value, reason
        weights, value, reason = self._descent(problem, weights, 2 * ROUND, until)
        self._say(f"neurons for {n} pieces", problem, weights)
        return weights, value, reason

    def descend(self, weights: Array) -> tuple[Array, str]:
        """The last descent, and why it stopped."""
        self._save(weights, [])
        found, _, reason = self._descent(self._problem, weights, LONG, 1.0)
        return found, reason

    def _screened(
        self,
        problem: TrackingProblem,
        weights: Array,
        pieces: Iterable[int],
        rng: np.random.Generator,
    ) -> Array:
        """Other neurons in some pieces; a derivative more."""
        self.evaluations += 1
        return screened(problem, weights, pieces, seed=int(rng.integers(2**31)))

    def _save(self, weights: Array, left: Sequence[TrackingProblem]) -> None:
        """A checkpoint of weights that have to be doubled for each of some problems yet."""
        if self._target is not None:
            full = _doubled(weights, left)
            write_checkpoint(self._target, self._fingerprint, full, self._history, self._comm)

    def _spent(self) -> float:
        """Share of the budget that is used up, the same on all ranks. Collective."""
        share = (clock() - self._begun) / self._seconds
        if self._limit is not None:
            share = max(share, (self.evaluations - self._first) / self._limit)
        return self._comm.bcast(share)

    def _descent(
        self, problem: TrackingProblem, weights: Array, iterations: int, until: float
    ) -> tuple[Array, float, str]:
        """Iterations from some weights on, up to a share of the budget: weights, J, why it ended.

        The first evaluation is taken in any case.
        """
        bar = Progress("steer", iterations, self._comm, False)
        last = problem is self._problem
        run = Run(problem, self._history, bar, self._target if last else None, SAVED)
        run.evaluations, run.begun = self.evaluations, self._begun - self._before
        seconds = until * self._seconds - (clock() - self._begun)
        left = None
        if self._limit is not None:
            left = max(1, int(until * self._limit) - (self.evaluations - self._first))
        run.interrupted = self.interrupted
        run.limit(left, 0.0, self._target_error, seconds, slow=SLOW)
        if self._model is None or self._model[0] is not problem:
            self._model = problem, ReducedModel(problem, self._modes)
        try:
            reason = gauss_newton_descent(run, weights, iterations, self._model[1])
        except Stop as stop:
            reason = str(stop)
        run.save()
        self.evaluations = run.evaluations
        self.trials += run.trials
        self.shortened += run.shortened
        if not run.best_weights.size:
            return weights, np.inf, reason
        return run.best_weights, run.best_value, reason

    def _say(self, what: str, problem: TrackingProblem, weights: Array) -> None:
        error = problem.errors(weights).relative_error
        seconds = clock() - self._begun
        log_rank0(
            f"steer {seconds:.0f} of {self._seconds:g} s: {what}, relative error {error:.4f}",
            self._comm,
            self._shown,
        )
