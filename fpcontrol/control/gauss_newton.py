r"""Levenberg-Marquardt over all pieces at once.

A step minimizes, for the derivative g of J and a damping :math:`\mu`,

.. math::
    g\cdot c + \tfrac12 c\cdot H c + \tfrac12\mu\,\frac{T}{s^2}
      \int_0^T\!\!\int\rho\,|\partial_c v|^2\,dx\,dt,

with the Gauss-Newton Hessian H of the tracking in a few smooth modes (``control.reduced``), by a
Riccati recursion over the pieces (``control.linear_quadratic``). What is damped is the change of
the drift where the density is, not that of the weights: however a network writes a drift, steps of
one length are equally nonlinear. Value and derivative are those of the method that runs, so that an
approximate H costs iterations, never accuracy.
"""

import numpy as np

from fpcontrol.control.linear_quadratic import LinearQuadratic, Step
from fpcontrol.control.reduced import ReducedModel
from fpcontrol.control.run import Run
from fpcontrol.typing import Array

MODES = 100
DAMPING = 1e-3  # at first
RIDGE = 1e-2  # of the mean energy of a unit of weight: for weights that do not move the drift yet
TRIALS = 10  # of a step, before J is taken to have no lower value nearby


def gauss_newton_descent(run: Run, start: Array, max_iterations: int, model: ReducedModel) -> str:
    """Minimize from some weights on; why it stopped. Collective.

    Args:
        run: What evaluates and records.
        start: Weights, flat.
        max_iterations: Iterations of this call.
        model: Of the run's problem.
    """
    problem = run.problem
    comm = problem.elements.comm
    shape = problem.drift.time.blocks, -1
    decay = problem.decay / problem.drift.pieces
    weights, damping, growth = start, DAMPING, 2.0
    value, dual = run.evaluate(weights)
    reason = run.record(0)
    for iteration in range(1, max_iterations + 1):
        if reason:
            return reason
        pieces = []
        for piece in model.pieces(weights):
            pieces.append(piece)
            run.check()
        quadratic = None
        if comm.rank == 0:
            quadratic = LinearQuadratic(
                [p for p in pieces if p is not None], dual.reshape(shape), RIDGE, decay
            )
        for _ in range(TRIALS):
            change, gain = comm.bcast(_solved(quadratic, damping) if quadratic else None)
            trial = weights + change.ravel()
            new = run.value(trial)
            if new < value:
                break
            damping *= growth
            growth *= 2.0
        else:
            return "no_lower_value"
        # As of a trust region: how much of what the model promised came true.
        share = (value - new) / gain if gain > 0.0 else 0.0
        damping *= max(1.0 / 3.0, 1.0 - (2.0 * min(share, 1.0) - 1.0) ** 3)
        growth = 2.0
        weights = trial
        value, dual = run.evaluate(weights)
        reason = run.record(iteration)
    return reason or "max_iterations"


def _solved(quadratic: LinearQuadratic, damping: float) -> Step:
    """The step for a damping, or for the least larger one that gives a convex model."""
    while True:
        try:
            return quadratic.solve(damping)
        except ArithmeticError:
            if not np.isfinite(damping):
                raise
            damping *= 10.0
