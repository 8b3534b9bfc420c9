"""Checks of a problem's derivative: Taylor remainders, differences, tangent against adjoint."""

from dataclasses import dataclass

import numpy as np

from fpcontrol.control.tracking import TrackingProblem
from fpcontrol.galerkin import Array


@dataclass(frozen=True)
class TaylorTest:
    r"""Remainders :math:`R(h) = |J(\theta + h\delta) - J(\theta) - h\,J'(\theta)\delta|`.

    Attributes:
        steps: ``h``, each half of the one before.
        remainders: ``R(h)``.
        orders: ``log2(R(h)/R(h/2))``; 2 for a right derivative of a smooth J.
        relative_remainder: Smallest ``R(h)`` over ``|h J' delta|``. Orders near 2 alone are weak:
            a slightly wrong J passes as long as its remainders are large.
    """

    steps: Array
    remainders: Array
    orders: Array
    relative_remainder: float


def random_direction(problem: TrackingProblem, seed: int = 1) -> Array:
    """A direction of standard normal entries, the same on all ranks."""
    return np.random.default_rng(seed).standard_normal(problem.drift.weights.size)


def mixed_direction(dual: Array, seed: int = 1) -> Array:
    """A unit vector between a derivative and a random direction.

    Along a random direction alone J changes little, and the remainder drowns in round-off before
    it is small against the linear term.
    """
    random = np.random.default_rng(seed).standard_normal(dual.size)
    norm = float(np.linalg.norm(dual))
    direction = random / np.linalg.norm(random) + (2.0 * dual / norm if norm > 0.0 else 0.0)
    return direction / np.linalg.norm(direction)


def taylor_test(
    problem: TrackingProblem,
    weights: Array,
    direction: Array | None = None,
    *,
    step: float | None = None,
    halvings: int = 4,
) -> TaylorTest:
    """Taylor remainders along a direction. Collective.

    Args:
        problem: The problem.
        weights: Where, flat.
        direction: Along what, flat; ``mixed_direction`` unless given.
        step: Largest ``h``; unless given such that the smallest remainder comes to 8e-7 of the
            linear term, where a J of order 0.1 in double precision still shows its order.
        halvings: How often it is halved.
    """
    value, dual = problem.value_and_derivative(weights)
    direction = mixed_direction(dual) if direction is None else direction
    slope = float(dual @ direction)

    def remainder(h: float) -> float:
        return abs(problem(weights + h * direction) - value - h * slope)

    if step is None:
        trial = 1e-3 / float(np.linalg.norm(direction))
        curvature = remainder(trial) / trial**2
        step = min(trial, 8e-7 * 2.0**halvings * abs(slope) / max(curvature, 1e-300))
    steps = step * 0.5 ** np.arange(halvings + 1)
    remainders = np.array([remainder(h) for h in steps])
    return TaylorTest(
        steps,
        remainders,
        np.log2(remainders[:-1] / remainders[1:]),
        float((remainders / np.abs(steps * slope)).min()),
    )


def difference_test(
    problem: TrackingProblem,
    weights: Array,
    direction: Array | None = None,
    *,
    step: float = 2e-3,
) -> float:
    """Relative difference of the derivative to a central difference of J. Collective.

    Fourth order in ``step``: ``(8 (J(h) - J(-h)) - (J(2h) - J(-2h))) / 12 h``, along
    ``mixed_direction`` unless another one is given.
    """
    dual = problem.derivative(weights)
    direction = mixed_direction(dual) if direction is None else direction
    slope = float(dual @ direction)
    one, two = (
        problem(weights + h * direction) - problem(weights - h * direction)
        for h in (step, 2.0 * step)
    )
    return abs((8.0 * one - two) / (12.0 * step) - slope) / abs(slope)


def dot_test(problem: TrackingProblem, weights: Array, direction: Array | None = None) -> float:
    """Tangent against adjoint along a direction, over the product of the norms. Collective."""
    direction = random_direction(problem) if direction is None else direction
    dual = problem.derivative(weights)
    tangent = problem.tangent(weights, direction)
    return abs(tangent - float(dual @ direction)) / float(
        np.linalg.norm(dual) * np.linalg.norm(direction)
    )
