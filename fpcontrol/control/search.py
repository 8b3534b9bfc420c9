"""A search of neurons and the descents after it, within one budget."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np

from fpcontrol.control.checkpoint import Iterate, write_checkpoint
from fpcontrol.control.construction import (
    energies,
    interleaved,
    screened,
    steep_weights,
    switched,
)
from fpcontrol.control.gauss_newton import gauss_newton_descent
from fpcontrol.control.network import NetworkDrift
from fpcontrol.control.reduced import ReducedModel
from fpcontrol.control.run import Run, Stop
from fpcontrol.control.tracking import TrackingProblem
from fpcontrol.parallel.progress import Progress, clock, log_rank0
from fpcontrol.reference import MoserFlow
from fpcontrol.typing import Array

SETS = 4  # of pieces, every fourth, whose neurons are chosen one after another
FIRST = 3  # iterations after each of them
ROUND = 6  # iterations after some pieces have got new neurons
RENEWED = 0.125  # share of the pieces that get them at first; then more or fewer, as it turns out
MORE, LESS = 1.3, 0.6
WIDE = 0.3  # share of the budget for a wider network, whose neurons are then switched through
FINAL = 0.3  # of descents on the problem's own mesh
LAST = 0.1  # of the last one of them, if there are two
WIDER = 4  # times the width, of that network
HELD = 25  # pieces of it, at least
UNKNOWNS = 100  # of each of them, at most
BEGINNING = 40  # steps of its runs, at least
MANY = 320  # pieces to choose neurons for, at most: for more, those are run through faster
GROUPS = 40  # into which the pieces are put for that
SHORT = 160  # pieces from which on a step each will do for a search
STARTS = 0.5  # share of the search for beginnings, of which the best one is gone on with
ENDS = ("interrupted", "target_error")
SLOW = 2e-3  # relative decrease of J in an iteration below which a descent has ended
LONG = 10**6
TAKEN = ("running_weight", "terminal_weight", "decay", "objectives")  # by TrackingProblem.on
SAVED = 10  # iterations of the last descent between two checkpoints


def stages(
    problem: TrackingProblem,
    drift: NetworkDrift,
    reference: MoserFlow,
    wide: int | None,
    options: Mapping[str, Any],
) -> list[TrackingProblem]:
    """Problems up to as many pieces as the drift has, to be searched one after another.

    The first is that of a wider network on fewer pieces, whose neurons are then switched through.
    An optimum of few pieces, run through twice as fast and twice as often, is a better beginning
    for many pieces than neurons chosen for all of them, and cheaper.

    Args:
        problem: What is to be solved in the end.
        drift: Its drift.
        reference: On a coarser mesh, or the problem's own.
        wide: Neurons of the wider network; the drift's for none.
        options: Of the problem.

    Raises:
        ValueError: If neurons of ``wide`` cannot be shared out among the pieces.
    """
    counts = [drift.pieces]
    while counts[0] > MANY and counts[0] % 2 == 0:
        counts.insert(0, counts[0] // 2)
    # Those that are not taken along with the problem; the scheme may not suit another method.
    own = {name: value for name, value in options.items() if name not in TAKEN}
    coarser = reference is not problem.reference
    others = {name: value for name, value in own.items() if not (coarser and name == "scheme")}
    found = []
    times = _times_wider(drift, counts[0], wide)
    if times > 1:
        other = drift.resized(times * drift.network.width, counts[0] // times)
        steps = max(2, -(-BEGINNING // other.pieces)) * other.pieces
        found.append(problem.on(reference, steps, drift=other, **others))
    for pieces in counts:
        steps = (1 if pieces >= SHORT else 2) * pieces
        other = drift.resized(drift.network.width, pieces)
        found.append(problem.on(reference, steps, drift=other, **others))
    if coarser and drift.pieces >= SHORT:
        fine = cast(MoserFlow, problem.reference)
        found.append(problem.on(fine, drift.pieces, drift=other, **own))
    return found


def _halved(weights: Array, drift: NetworkDrift) -> Array:
    """Half the drift: outer weights halved."""
    blocks = weights.reshape(drift.pieces, -1).copy()
    blocks[:, : drift.network.dimension * drift.network.width] *= 0.5
    return blocks.ravel()


def _times_wider(drift: NetworkDrift, pieces: int, wide: int | None) -> int:
    """How many times wider the network is to begin with."""
    width = drift.network.width
    limited = drift.field.limit is not None  # and neurons that act in turn have to be stronger
    if wide is not None:
        times, rest = divmod(wide, width)
        if limited and times > 1:
            raise ValueError(f"wide = {wide!r}: with max_speed neurons cannot be switched through.")
        if rest or times < 1 or pieces % times:
            raise ValueError(
                f"wide = {wide!r} must be width = {width} times a divisor of {pieces}, the pieces "
                "of which it is to make more by switching."
            )
        return times
    if limited:
        return 1
    return max(
        k
        for k in range(1, WIDER + 1)
        if k == 1 or (pieces % k == 0 and pieces >= HELD * k and k * drift.field.size <= UNKNOWNS)
    )


def onwards(weights: Array, problems: Sequence[TrackingProblem]) -> Array:
    """Weights of the first of some stages, as the last one begins with them."""
    for before, after in pairwise(problems):
        old, new = cast(NetworkDrift, before.drift), cast(NetworkDrift, after.drift)
        if old.network.width != new.network.width:
            weights = switched(weights, old, new.network.width)
        elif old.pieces != new.pieces:
            weights = interleaved(weights, old, max(2, old.pieces // GROUPS))
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
        self._modes, self._shown = modes, progress
        self._rng = np.random.default_rng(seed)
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
        """Weights of a network with neurons that fit, from one stage to the next.

        Args:
            stages: See ``stages``.
        """
        ends = self._ends(stages)
        weights, reason = self._chosen(stages, ends[0])
        for k, (problem, until) in enumerate(zip(stages[1:], ends[1:], strict=True), 1):
            weights = onwards(weights, stages[k - 1 : k + 1])
            if stages[k - 1].drift.field.size > problem.drift.field.size:
                weights = self._damped(problem, weights)
            if reason not in ENDS:
                weights, _, reason = self._descent(problem, weights, LONG, until)
                self._say(f"{problem.drift.pieces} pieces", problem, weights)
                self._save(weights, stages[k:])
        return weights

    def _damped(self, problem: TrackingProblem, weights: Array) -> Array:
        """Outer weights, halved as often as J falls by it.

        Few neurons in turn are many times as strong as all together, and with few pieces they may
        lead anywhere.
        """
        run = self._run(problem, 1.0)
        run.interrupted = []  # these few values are taken in any case
        best, least = weights, run.value(weights)
        while True:
            trial = _halved(best, cast(NetworkDrift, problem.drift))
            value = run.value(trial)
            if not value < least and (np.isfinite(least) or not trial.any()):
                self.trials += run.trials
                return best
            best, least = trial, value

    def _ends(self, stages: Sequence[TrackingProblem]) -> list[float]:
        """Shares of the budget by which the stages end."""
        pieces = np.array([stage.drift.pieces for stage in stages], dtype=float)
        wide = stages[0].drift.field.size > stages[-1].drift.field.size
        again = len(stages) > 1 and stages[-1].drift.pieces == stages[-2].drift.pieces
        first, last = WIDE if wide else 0.0, 1.0 - FINAL
        pieces = pieces[int(wide) : len(pieces) - int(again)]
        shares = first + (last - first) * np.cumsum(pieces) / pieces.sum()
        return [first] * wide + shares.tolist() + [1.0 - LAST] * again

    def _chosen(self, stages: Sequence[TrackingProblem], until: float) -> tuple[Array, str]:
        """Weights with neurons that fit, for the first stage, and why the search ended."""
        problem = stages[0]
        best, least, reason = self._begin(problem, until)
        while self._spent() < STARTS * until and reason not in ENDS:
            weights, value, reason = self._begin(problem, until)
            if value < least:
                best, least = weights, value
        n = problem.drift.pieces
        renewed = RENEWED * n
        while self._spent() < until and reason not in ENDS:
            self._save(best, stages)
            weak = 1.0 / np.maximum(energies(problem, best), 1e-300)
            count = min(max(round(renewed), 1), n)
            some = self._rng.choice(n, count, replace=False, p=weak / weak.sum())
            weights = self._screened(problem, best, some)
            weights, value, reason = self._descent(problem, weights, ROUND, until)
            kept = value < least
            renewed *= MORE if kept else LESS
            if kept:
                best, least = weights, value
            what = f"other neurons in {count} pieces {'kept' if kept else 'given up'}"
            self._say(what, problem, best)
        return best, reason

    def _begin(self, problem: TrackingProblem, until: float) -> tuple[Array, float, str]:
        """Neurons for every fourth piece at a time, then a descent: weights, J, why it ended."""
        drift = cast(NetworkDrift, problem.drift)
        weights, n = steep_weights(drift, int(self._rng.integers(2**31))), drift.pieces
        for k in range(min(SETS, n)):
            weights = self._screened(problem, weights, range(k, n, SETS))
            weights, value, reason = self._descent(problem, weights, FIRST, until)
            if reason in (*ENDS, "max_seconds", "max_evaluations"):
                return weights, value, reason
        weights, value, reason = self._descent(problem, weights, 2 * ROUND, until)
        self._say(f"{drift.network.width} neurons for {n} pieces", problem, weights)
        return weights, value, reason

    def descend(self, weights: Array) -> tuple[Array, str]:
        """The last descent, and why it stopped."""
        self._save(weights)
        found, _, reason = self._descent(self._problem, weights, LONG, 1.0)
        return found, reason

    def _screened(self, problem: TrackingProblem, weights: Array, pieces: Iterable[int]) -> Array:
        """Other neurons in some pieces; a derivative more."""
        self.evaluations += 1
        return screened(problem, weights, pieces, seed=int(self._rng.integers(2**31)))

    def _save(self, weights: Array, stages: Sequence[TrackingProblem] = ()) -> None:
        """A checkpoint of weights of the first of some stages, as the last one has them."""
        if self._target is not None:
            full = onwards(weights, stages)
            write_checkpoint(self._target, self._fingerprint, full, self._history, self._comm)

    def _spent(self) -> float:
        """Share of the budget that is used up, the same on all ranks. Collective."""
        share = (clock() - self._begun) / self._seconds
        if self._limit is not None:
            share = max(share, (self.evaluations - self._first) / self._limit)
        return self._comm.bcast(share)

    def _run(self, problem: TrackingProblem, until: float) -> Run:
        """What evaluates a problem, up to a share of the budget.

        Errors of a wider network are not what is asked for, and not recorded.
        """
        aim = problem.drift.field.size == self._problem.drift.field.size
        target = self._target if problem is self._problem else None
        bar = Progress("steer", LONG, self._comm, False)
        run = Run(problem, self._history if aim else [], bar, target, SAVED)
        run.evaluations, run.begun = self.evaluations, self._begun - self._before
        seconds = until * self._seconds - (clock() - self._begun)
        left = None
        if self._limit is not None:
            left = max(1, int(until * self._limit) - (self.evaluations - self._first))
        run.interrupted = self.interrupted
        run.limit(left, 0.0, self._target_error if aim else 0.0, seconds, slow=SLOW)
        return run

    def _descent(
        self, problem: TrackingProblem, weights: Array, iterations: int, until: float
    ) -> tuple[Array, float, str]:
        """Iterations from some weights on, up to a share of the budget: weights, J, why it ended.

        The first evaluation is taken in any case.
        """
        run = self._run(problem, until)
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
