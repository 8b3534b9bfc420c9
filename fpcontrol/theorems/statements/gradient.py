r"""The derivative of the tracking cost is that of the steps that ran, and tends to that of theory.

With noise the density after the steps is a smooth function of the weights :math:`\theta` of a
network with a smooth activation, and so is the cost J. Its derivative (own) is exact if

.. math:: |J(\theta + h\delta) - J(\theta) - h\,J'(\theta)\delta| = O(h^2),\qquad
    J'(\theta)\delta = \dot J(\theta;\delta)

with the tangent :math:`\dot J` computed by the linearized steps, an independent sweep forward in
time. These are identities of the discrete equation: they hold to round-off on any mesh, for any
scheme and number of steps, and with any number of levels kept in memory.

That the discrete derivative is the right one shows where it is known in closed form. From the
uniform density on [0, 1] towards :math:`1 + a\cos\pi x` in time T, at vanishing output weights, an
output weight of a neuron :math:`\varphi`, in the piece of time :math:`[\alpha,\beta]`, changes the
first cosine coefficient of the density by

.. math:: c(t) = -\pi\int_0^1 s\,\varphi(Ay + b)\sin\pi x\,dx\int_\alpha^{\min(t,\beta)}
    e^{-D\pi^2(t-\tau)}\,d\tau

    \frac{\partial J}{\partial W} = -\frac{1}{T(1 + a^2/6)}\int_0^T\frac{a t}{T}\,c(t)\,dt .

Without noise D is zero here, and the drift has a factor that vanishes at the walls.

Traps: orders near 2 alone are weak, they pass with a J that is wrong in the sixth digit as long as
the remainders are large, so that the smallest remainder is bounded too; along a random direction J
changes so little that the remainder drowns in round-off.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mpi4py import MPI

import numpy as np
from dolfinx import fem
from dolfinx.mesh import Mesh
from scipy.integrate import quad

from fpcontrol import (
    SDIRK2,
    SDIRK4,
    BackwardEuler,
    CrankNicolson,
    MoserFlow,
    NetworkDrift,
    TrackingProblem,
    density,
    verification,
)
from fpcontrol.mesh import interval
from fpcontrol.stepping.schemes import Scheme
from fpcontrol.theorems.framework import Experiment, Grid, Line, Study, measure
from fpcontrol.theorems.framework.resolution import cube
from fpcontrol.typing import Array

SCHEMES = (CrankNicolson(), BackwardEuler(), SDIRK2(), SDIRK4())


# -- identities ------------------------------------------------------------------------------------


def identities(
    comm: MPI.Comm,
    *,
    dimension: int = 1,
    cells: int = 6,
    steps: int = 6,
    pieces: int = 3,
    t1: float = 1.0,
    sigma: float = 0.4,
    schemes: Sequence[Scheme] = SCHEMES,
) -> Study:
    """Taylor remainders, central differences, tangent and recomputation, for all schemes.

    Args:
        cells: A side.
        steps: A multiple of ``pieces``.
    """
    study = Study(
        f"Identities of the derivative, {dimension}-D, $\\sigma = {sigma:g}$",
        r"For every time scheme $J(\theta+h\delta) - J(\theta) - h\,J'(\theta)\delta$ is of second "
        "order, and adjoint, tangent, central differences and recomputed levels agree. These are "
        "identities of the discrete equation: round-off is the only error.",
    )
    mesh = cube(comm, dimension, cells)
    reference = MoserFlow(_bump(mesh, 0.3), _bump(mesh, 0.7), t1, sigma)
    drift = NetworkDrift(mesh, 2, pieces, t1, seed=3)
    lines: list[Line] = []
    for scheme in schemes:
        problem, again = (
            TrackingProblem(
                reference,
                drift,
                sigma,
                steps,
                terminal_weight=0.5,
                scheme=scheme,
                snapshots=snapshots,
                linear_solver="direct",
            )
            for snapshots in (None, 2)
        )
        # The weights of SDIRK4, up to 12, multiply the round-off that small remainders feel.
        line = _check(study, problem, scheme.name, 0.025 if scheme.order == 4 else 0.005)
        dual = problem.derivative(drift.weights)
        change = np.abs(again.derivative(drift.weights) - dual).max() / np.abs(dual).max()
        study.exactly(f"{scheme.name}: change with 2 levels kept", change, below=1e-12)
        lines += [line] if lines else [line, _first_order(problem, scheme.name, line)]
    _draw(study, lines)
    return study


def identities_without_noise(
    comm: MPI.Comm,
    *,
    dimension: int = 1,
    cells: int = 6,
    steps: int = 6,
    pieces: int = 3,
    t1: float = 1.0,
) -> Study:
    """The same for sigma = 0, where markers are carried along characteristics.

    Args:
        cells: A side; they hold the markers.
        steps: A multiple of ``pieces``.
    """
    study = Study(
        f"Identities of the derivative along characteristics, {dimension}-D, $\\sigma = 0$",
        r"Without noise too $J(\theta+h\delta) - J(\theta) - h\,J'(\theta)\delta$ is of second "
        "order, and adjoint, tangent and central differences agree to round-off.",
    )
    drift = NetworkDrift(cube(comm, dimension, cells), 2, pieces, t1, seed=3)
    problem = TrackingProblem(_Wave(t1), drift, 0.0, steps, terminal_weight=0.5)
    line = _check(study, problem, "RK4", 0.005)
    _draw(study, [line, _first_order(problem, "RK4", line)])
    return study


def _check(study: Study, problem: TrackingProblem, name: str, tolerance: float) -> Line:
    """Checks of the derivative at the drift's own weights; returns the Taylor remainders."""
    weights = problem.drift.weights
    taylor = verification.taylor_test(problem, weights)
    order = float(taylor.orders.mean())
    study.exactly(f"{name}: order of Taylor remainders", order, equals=2.0, rel=tolerance)
    remainder = taylor.relative_remainder
    study.exactly(f"{name}: remainder over linear term", remainder, below=1e-6)
    # Of fourth order in a step of 2e-3, over round-off of 1e-13.
    difference = verification.difference_test(problem, weights)
    study.exactly(f"{name}: against central difference", difference, below=1e-9)
    # Round-off of a few thousand additions; a defect of the adjoint is of order 1e-3.
    dot = verification.dot_test(problem, weights)
    study.exactly(f"{name}: tangent against adjoint", dot, below=1e-11)
    return Line(taylor.steps, taylor.remainders, f"{name}, less $h\\,J'\\delta$")


def _first_order(problem: TrackingProblem, name: str, line: Line) -> Line:
    """``|J(theta + h delta) - J(theta)|`` along the direction of the Taylor test."""
    weights = problem.drift.weights
    direction = verification.mixed_direction(problem.derivative(weights))
    value = problem(weights)
    changes = [abs(problem(weights + h * direction) - value) for h in line.x]
    return Line(line.x, changes, f"{name}, first order", "o--")


def _draw(study: Study, lines: Sequence[Line]) -> None:
    label = r"$|J(\theta+h\delta) - J(\theta) - \dots|$"
    study.picture("Taylor remainders", "$h$", label, *lines, log="xy")


def _bump(mesh: Mesh, place: float) -> fem.Function:
    d = mesh.topology.dim
    return density.interpolate(
        mesh, lambda x: 1.0 + 3.0 * np.exp(-((x[:d] - place) ** 2).sum(axis=0) / 0.18), 2
    )


@dataclass
class _Wave:
    """A smooth reference in formulas: one on a mesh has kinks that markers cross."""

    t1: float

    def at(self, t: float, x: Array, cells: Any = None) -> tuple[Array, Array, Any]:
        """``1 + t/(2 t1) prod cos(pi x_i)``, its gradient, and ``cells`` as given."""
        c, s, height = np.cos(np.pi * x), np.sin(np.pi * x), 0.5 * t / self.t1
        others = np.stack([np.delete(c, i, axis=1).prod(axis=1) for i in range(x.shape[1])], axis=1)
        return 1.0 + height * c.prod(axis=1), -np.pi * height * s * others, cells


# -- closed form -----------------------------------------------------------------------------------


def closed_form(
    comm: MPI.Comm,
    *,
    a: float = 0.5,
    t1: float = 0.8,
    sigma: float = 0.5,
    pieces: int = 4,
    grid: Grid | None = None,
) -> Study:
    """Derivatives in the output weights of two neurons, where they are known.

    Args:
        a: Amplitude of the goal, below 1.
        sigma: Noise, or zero.
        grid: The coarser of two resolutions; its steps are a multiple of ``pieces``.
    """
    study = Study(
        f"The derivative in closed form, $\\sigma = {sigma:g}$",
        r"At vanishing output weights the derivative of J is that of the theory, "
        "in every piece of time.",
    )
    slopes, shifts = np.array([1.5, -0.7]), np.array([0.2, 0.4])
    edges, rate = np.linspace(0.0, t1, pieces + 1), 0.5 * sigma**2 * np.pi**2

    def derivative(at: Grid) -> Array:
        mesh = interval(comm, at.cells)
        start = density.uniform(mesh, at.degree)
        goal = density.interpolate(mesh, lambda x: 1.0 + a * np.cos(np.pi * x[0]), at.degree)
        drift = NetworkDrift(mesh, 2, pieces, t1)
        weights = np.tile(np.concatenate([np.zeros(2), slopes, shifts]), pieces)
        problem = TrackingProblem(MoserFlow(start, goal, t1, sigma), drift, sigma, at.steps)
        return problem.derivative(weights).reshape(pieces, -1)

    dual = measure(derivative, grid or Grid(8, pieces * math.ceil(160 / pieces)))
    count, centers, lines = range(1, pieces + 1), 0.5 * (edges[1:] + edges[:-1]), []
    for m in range(2):
        exact = [
            _sensitivity(a, t1, rate, edges[j : j + 2], slopes[m], shifts[m]) for j in range(pieces)
        ]
        study.equals(f"dJ/dW of neuron {m + 1}, piece {{}}", dual[:, m], exact, 1e-4, over=count)
        lines.append(Line(centers, dual[:, m], f"neuron {m + 1}, adjoint", "o"))
        lines.append(Line(centers, exact, f"neuron {m + 1}, closed form", "--"))
    # Output weights of zero: what goes into the neurons has no effect, not even to round-off.
    others = float(np.abs(dual.value[:, 2:]).max())
    study.exactly("other derivatives", others, below=0.0)
    study.picture("Derivative of J", "$t$", r"$\partial J/\partial W$", *lines)
    return study


def _sensitivity(
    a: float, t1: float, rate: float, piece: Array, slope: float, shift: float
) -> float:
    """The closed form of the module's docstring, with ``rate`` for ``D pi**2``."""
    alpha, beta = piece

    def pushed(x: float) -> float:
        # Without noise the drift is slowed down at the walls, in layers of an eighth by default.
        wall = 1.0 if rate else np.tanh(8.0 * (x**-2 + (1.0 - x) ** -2) ** -0.5)
        return wall * 0.5 * np.tanh(slope * (2.0 * x - 1.0) + shift) * np.sin(np.pi * x)

    push = quad(pushed, 0.0, 1.0)[0]

    def memory(t: float) -> float:
        return -np.expm1(-rate * t) / rate if rate and t > 0.0 else max(t, 0.0)

    def integrand(t: float) -> float:
        return a * t / t1 * np.pi * push * (memory(t - alpha) - memory(t - beta))

    # Smooth on both sides of the end of the piece only.
    total = quad(integrand, alpha, beta)[0] + quad(integrand, beta, t1)[0]
    return total / (t1 * (1.0 + a**2 / 6.0))


EXPERIMENTS = [
    Experiment("gradient.identities.1d.sigma=0.4", identities),
    Experiment("gradient.identities.1d.sigma=0", identities_without_noise),
    Experiment("gradient.identities.2d.sigma=0.4", identities, dimension=2, quick=None),
    Experiment("gradient.identities.2d.sigma=0", identities_without_noise, dimension=2, quick=None),
    Experiment("gradient.closed_form.sigma=0.5", closed_form),
    Experiment("gradient.closed_form.sigma=0.1", closed_form, sigma=0.1, quick=None),
    Experiment("gradient.closed_form.sigma=0", closed_form, sigma=0.0),
]
