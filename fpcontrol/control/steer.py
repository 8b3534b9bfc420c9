"""From a reference to weights that follow it, in one call and a given time."""

import os
from typing import Any

from fpcontrol.control.checkpoint import Iterate, read_checkpoint
from fpcontrol.control.gauss_newton import MODES
from fpcontrol.control.network import NetworkDrift
from fpcontrol.control.parametric import ParametricDrift
from fpcontrol.control.result import Result, completed
from fpcontrol.control.search import Search, stages
from fpcontrol.control.tracking import TrackingProblem
from fpcontrol.noise import Noise, Sigma
from fpcontrol.parallel.files import output_path
from fpcontrol.parallel.progress import log_rank0
from fpcontrol.parallel.signals import interrupts
from fpcontrol.reference import MoserFlow
from fpcontrol.typing import Array

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
    wide: int | None = None,
    coarse: MoserFlow | None = None,
    weights: Array | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: str | os.PathLike[str] | None = None,
    progress: bool = True,
    **options: Any,
) -> Result:
    r"""A drift of limited width that follows a reference, within a budget. Collective.

    First a wider network is sought, on as many times fewer pieces, whose neurons are then switched
    through (``construction.switched``). Its neurons are chosen by what the adjoint asks for
    (``construction.screened``), for every fourth piece at a time, with some iterations of
    ``minimize``'s ``"gauss_newton"`` between; then some pieces after others get other neurons,
    which are kept if J is lower after some iterations. At last comes a descent with four steps a
    piece; before, there are two of them, or one if there are many pieces. More than 320 pieces come
    from half as many, run through twice as fast. A drift that is no network, or weights that are
    given or resumed, are only descended from.

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
        wide: Width of the network to begin with, a multiple of the width; it is held on as many
            times fewer pieces. Up to four times the width unless given, as far as that divides the
            pieces and leaves 25; not wider with a bound on the speed.
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

    if begun or not isinstance(drift, NetworkDrift):
        if wide is not None:
            raise ValueError(f"wide = {wide!r}: there is no search; weights or drift are given.")
        before = []
    else:
        before = stages(problem, drift, coarse or reference, wide, options)
    search = Search(problem, history, target, modes, seed, progress)
    search.limit(budget, max_evaluations, target_error)
    log_rank0(f"steer 0 of {budget:g} s: {len(weights)} weights", comm, progress)
    with interrupts() as search.interrupted:
        if before:
            weights = search.construct(before)
        found, reason = search.descend(weights)
    settings = {
        "method": "steer",
        "steps": problem.steps,
        "budget": float(budget),
        "max_evaluations": max_evaluations,
        "target_error": target_error,
        "seed": seed,
        "modes": modes,
        "wide": wide,
        "trials": search.trials,
        "resumed_from": None if resume is None else str(resume),
    }
    return completed(
        problem, found, tuple(history), reason, search.evaluations, settings, search.shortened
    )
