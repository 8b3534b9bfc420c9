"""Checks: derivatives (Taylor, differences, tangent against adjoint) and orders of convergence."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from dolfinx import fem
from dolfinx.mesh import Mesh

from fpcontrol import density
from fpcontrol.control.tracking import TrackingProblem
from fpcontrol.discretization.elements import Elements
from fpcontrol.typing import Array


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
            linear term. With slope s and curvature c of J along the direction that remainder is
            6e-13 ``s**2 / c``: where that is less than some hundred times the round-off of J (near
            a minimum, or with SDIRK4, whose weights multiply it), the last orders are 2 to a tenth
            only, and a larger step shows them better.
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


# -- orders of convergence -------------------------------------------------------------------------


def _affine(t: float) -> float:
    return 0.6 - 0.9 * t


def _affine_slope(t: float) -> float:
    return -0.9


def _swing(t: float) -> float:
    return 0.3 * math.cos(3.0 * t)


@dataclass(frozen=True)
class Manufactured:
    r"""A density in closed form and the drift, tangent to the walls, that carries it.

    On the unit cube, with :math:`D = \sigma^2/2` and no source term,

    .. math::
        \rho = 1 + a(t)\prod_i\cos\pi x_i,\qquad
        v\rho = D\nabla\rho + \nabla\phi + \operatorname{curl}\psi,\qquad
        \phi = \frac{a'(t)}{d\pi^2}\prod_i\cos\pi x_i .

    ``psi`` vanishes on the walls, so that ``v.n = 0``; with ``c`` it changes in time, and v is no
    gradient (``d > 1``). All extend to smooth periodic functions: the data are compatible with the
    walls to any order, so that elements and schemes show their full orders.

    Args:
        dim: Dimension ``d``, 1, 2 or 3.
        sigma: Noise.
        a: Amplitude, inside (-1, 1). With an affine one Crank-Nicolson makes no error in time: the
            density at the middle is the mean of those at the ends.
        slope: Time derivative of ``a``.
        c: Strength of the rotation.

    Raises:
        ValueError: For another dimension.
    """

    dim: int
    sigma: float = 0.7
    a: Callable[[float], float] = _affine
    slope: Callable[[float], float] = _affine_slope
    c: Callable[[float], float] = _swing

    def __post_init__(self) -> None:
        if self.dim not in (1, 2, 3):
            raise ValueError(f"dim = {self.dim!r} must be 1, 2 or 3.")

    def density(self, t: float, x: Array) -> Array:
        """Density at points ``(N, d)``, of mass 1."""
        return 1.0 + self.a(t) * np.cos(np.pi * x).prod(axis=1)

    def drift(self, t: float, x: Array) -> Array:
        """Drift at points ``(N, d)``."""
        d, pi = self.dim, np.pi
        cos, sin = np.cos(pi * x), np.sin(pi * x)
        gradient = np.empty_like(x)
        for i in range(d):
            gradient[:, i] = -pi * sin[:, i] * np.delete(cos, i, axis=1).prod(axis=1)
        flux = (0.5 * self.sigma**2 * self.a(t) + self.slope(t) / (d * pi**2)) * gradient
        if d > 1:
            height = 1.0 + 0.5 * cos[:, 2] if d == 3 else 1.0
            flux[:, 0] += self.c(t) * height * pi * sin[:, 0] * cos[:, 1]
            flux[:, 1] -= self.c(t) * height * pi * cos[:, 0] * sin[:, 1]
        return flux / self.density(t, x)[:, None]

    def start(self, mesh: Mesh, degree: int) -> fem.Function:
        """The density at time 0 in a finite-element space. Collective."""
        return density.interpolate(mesh, lambda x: self.density(0.0, x[: self.dim].T), degree)


def l2_error(u: fem.Function, exact: Callable[[Array], Array]) -> float:
    """L2 norm of ``u - exact(x)``, ``x`` of shape ``(N, d)``. Collective."""
    # The square of the error is no polynomial: six degrees more than the equation's quadrature.
    g = Elements(u.function_space, 2 * u.function_space.element.basix_element.degree + 6)
    error = g.evaluate(u.x.array).ravel() - exact(g.points)
    return g.sum(float(g.quadrature_weights @ error**2)) ** 0.5


def orders(errors: Sequence[float], ratio: float = 2.0) -> Array:
    """Observed orders of errors whose mesh sizes or steps shrink by ``ratio`` each time."""
    return np.log(np.array(errors[:-1]) / np.array(errors[1:])) / np.log(ratio)
