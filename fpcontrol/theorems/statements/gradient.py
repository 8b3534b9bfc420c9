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
from functools import partial
from typing import Any

from mpi4py import MPI

import numpy as np
from dolfinx import fem
from dolfinx.mesh import Mesh
from scipy.integrate import quad

from fpcontrol import density, verification
from fpcontrol.control.network import NetworkDrift
from fpcontrol.control.tracking import TrackingProblem
from fpcontrol.mesh import interval, rectangle
from fpcontrol.reference import MoserFlow
from fpcontrol.stepping.schemes import SDIRK2, SDIRK4, BackwardEuler, CrankNicolson, Scheme
from fpcontrol.theorems.framework.checks import Line, Panel, Row, Study
from fpcontrol.theorems.framework.experiments import Experiment
from fpcontrol.theorems.framework.resolution import Grid, measured
from fpcontrol.typing import Array

SCHEMES = (CrankNicolson(), BackwardEuler(), SDIRK2(), SDIRK4())


def experiments(quick: bool = False) -> list[Experiment]:
    """Identities of the discrete derivative, and its closed form."""
    identical = [
        Experiment(f"gradient.identities.{d}d.sigma={sigma:g}", partial(run, dimension=d))
        for d in ((1,) if quick else (1, 2))
        for sigma, run in ((0.4, identities), (0.0, identities_without_noise))
    ]
    return identical + [
        Experiment(f"gradient.closed_form.sigma={sigma:g}", partial(closed_form, sigma=sigma))
        for sigma in ((0.5, 0.0) if quick else (0.5, 0.1, 0.0))
    ]


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

    Collective.

    Args:
        comm: Communicator.
        dimension: 1 or 2, of the unit interval or square.
        cells: A side.
        steps: A multiple of ``pieces``.
        pieces: Of time, with weights of their own.
        t1: Last time.
        sigma: Noise.
        schemes: Time schemes.
    """
    mesh = _cube(comm, dimension, cells)
    reference = MoserFlow(_bump(mesh, 0.3), _bump(mesh, 0.7), t1, sigma)
    drift = NetworkDrift(mesh, 2, pieces, t1, seed=3)
    rows: list[Row] = []
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
        found, line = _identities(problem, scheme.name, 0.025 if scheme.order == 4 else 0.005)
        dual = problem.derivative(drift.weights)
        change = np.abs(again.derivative(drift.weights) - dual).max() / np.abs(dual).max()
        name = f"{scheme.name}: change with 2 levels kept"
        rows += [*found, Row(name, change, bound=1e-12, exact=True)]
        lines += [line] if lines else [line, _first_order(problem, scheme.name, line)]
    return _study(
        f"Identities of the derivative, {dimension}-D, $\\sigma = {sigma:g}$",
        r"For every time scheme $J(\theta+h\delta) - J(\theta) - h\,J'(\theta)\delta$ is of second "
        "order, and adjoint, tangent, central differences and recomputed levels agree. These are "
        "identities of the discrete equation: round-off is the only error.",
        rows,
        lines,
    )


def identities_without_noise(
    comm: MPI.Comm,
    *,
    dimension: int = 1,
    cells: int = 6,
    steps: int = 6,
    pieces: int = 3,
    t1: float = 1.0,
) -> Study:
    """The same for sigma = 0, where markers are carried along characteristics. Collective.

    Args:
        comm: Communicator.
        dimension: 1 or 2, of the unit interval or square.
        cells: A side; they hold the markers.
        steps: A multiple of ``pieces``.
        pieces: Of time.
        t1: Last time.
    """
    mesh = _cube(comm, dimension, cells)
    drift = NetworkDrift(mesh, 2, pieces, t1, seed=3)
    problem = TrackingProblem(_Wave(t1), drift, 0.0, steps, terminal_weight=0.5)
    rows, line = _identities(problem, "RK4", 0.005)
    return _study(
        f"Identities of the derivative along characteristics, {dimension}-D, $\\sigma = 0$",
        r"Without noise too $J(\theta+h\delta) - J(\theta) - h\,J'(\theta)\delta$ is of second "
        "order, and adjoint, tangent and central differences agree to round-off.",
        rows,
        [line, _first_order(problem, "RK4", line)],
    )


def closed_form(
    comm: MPI.Comm,
    *,
    a: float = 0.5,
    t1: float = 0.8,
    sigma: float = 0.5,
    pieces: int = 4,
    grid: Grid | None = None,
) -> Study:
    """Derivatives in the output weights of two neurons, where they are known. Collective.

    Args:
        comm: Communicator.
        a: Amplitude of the goal, below 1.
        t1: Last time.
        sigma: Noise, or zero.
        pieces: Of time.
        grid: The coarser of two resolutions; its steps are a multiple of ``pieces``.
    """
    slopes, shifts = np.array([1.5, -0.7]), np.array([0.2, 0.4])
    edges, rate = np.linspace(0.0, t1, pieces + 1), 0.5 * sigma**2 * np.pi**2

    def derivative(grid: Grid) -> Array:
        mesh = interval(comm, grid.cells)
        start = density.uniform(mesh, grid.degree)
        goal = density.interpolate(mesh, lambda x: 1.0 + a * np.cos(np.pi * x[0]), grid.degree)
        drift = NetworkDrift(mesh, 2, pieces, t1)
        weights = np.tile(np.concatenate([np.zeros(2), slopes, shifts]), pieces)
        problem = TrackingProblem(MoserFlow(start, goal, t1, sigma), drift, sigma, grid.steps)
        return problem.derivative(weights).reshape(pieces, -1)

    grid = grid or Grid(8, pieces * math.ceil(160 / pieces))
    dual, errors = measured(derivative, grid)
    rows, exact = [], np.empty((pieces, 2))
    for j in range(pieces):
        for m in range(2):
            exact[j, m] = _sensitivity(a, t1, rate, edges[j : j + 2], slopes[m], shifts[m])
            rows.append(
                Row(
                    f"dJ/dW of neuron {m + 1}, piece {j + 1}",
                    float(dual[j, m]),
                    predicted=exact[j, m],
                    discretization_error=float(errors[j, m]),
                    tolerance=1e-4,
                )
            )
    # Output weights of zero: what goes into the neurons has no effect, not even to round-off.
    others = float(np.abs(dual[:, 2:]).max())
    rows.append(Row("other derivatives", others, bound=0.0, exact=True))
    centers = 0.5 * (edges[1:] + edges[:-1])
    lines = []
    for m in range(2):
        lines.append(Line(centers.tolist(), dual[:, m].tolist(), f"neuron {m + 1}, adjoint", "o"))
        lines.append(
            Line(centers.tolist(), exact[:, m].tolist(), f"neuron {m + 1}, closed form", "--")
        )
    return Study(
        name=f"The derivative in closed form, $\\sigma = {sigma:g}$",
        claim=r"At vanishing output weights the derivative of J is that of the theory, "
        "in every piece of time.",
        label="own",
        rows=tuple(rows),
        panels=(Panel("Derivative of J", "$t$", r"$\partial J/\partial W$", tuple(lines)),),
    )


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


@dataclass
class _Wave:
    """A smooth reference in formulas: one on a mesh has kinks that markers cross."""

    t1: float

    def at(self, t: float, x: Array, cells: Any = None) -> tuple[Array, Array, Any]:
        """``1 + t/(2 t1) prod cos(pi x_i)``, its gradient, and ``cells`` as given."""
        c, s, height = np.cos(np.pi * x), np.sin(np.pi * x), 0.5 * t / self.t1
        others = np.stack([np.delete(c, i, axis=1).prod(axis=1) for i in range(x.shape[1])], axis=1)
        return 1.0 + height * c.prod(axis=1), -np.pi * height * s * others, cells


def _cube(comm: MPI.Comm, dimension: int, cells: int) -> Mesh:
    return interval(comm, cells) if dimension == 1 else rectangle(comm, (cells, cells))


def _bump(mesh: Mesh, place: float) -> fem.Function:
    d = mesh.topology.dim
    return density.interpolate(
        mesh, lambda x: 1.0 + 3.0 * np.exp(-((x[:d] - place) ** 2).sum(axis=0) / 0.18), 2
    )


def _identities(problem: TrackingProblem, name: str, tolerance: float) -> tuple[list[Row], Line]:
    """Checks of the derivative at the drift's own weights, and the Taylor remainders."""
    weights = problem.drift.weights
    taylor = verification.taylor_test(problem, weights)
    rows = [
        Row(
            f"{name}: order of Taylor remainders",
            float(taylor.orders.mean()),
            predicted=2.0,
            tolerance=tolerance,
            exact=True,
        ),
        Row(
            f"{name}: remainder over linear term",
            taylor.relative_remainder,
            bound=1e-6,
            exact=True,
        ),
        # Of fourth order in a step of 2e-3, over round-off of 1e-13.
        Row(
            f"{name}: against central difference",
            verification.difference_test(problem, weights),
            bound=1e-9,
            exact=True,
        ),
        # Round-off of a few thousand additions; a defect of the adjoint is of order 1e-3.
        Row(
            f"{name}: tangent against adjoint",
            verification.dot_test(problem, weights),
            bound=1e-11,
            exact=True,
        ),
    ]
    label = f"{name}, less $h\\,J'\\delta$"
    return rows, Line(taylor.steps.tolist(), taylor.remainders.tolist(), label)


def _first_order(problem: TrackingProblem, name: str, line: Line) -> Line:
    """``|J(theta + h delta) - J(theta)|`` along the direction of the Taylor test."""
    weights = problem.drift.weights
    direction = verification.mixed_direction(problem.derivative(weights))
    value = problem(weights)
    changes = [abs(problem(weights + h * direction) - value) for h in line.x]
    return Line(line.x, changes, f"{name}, first order", "o--")


def _study(name: str, claim: str, rows: Sequence[Row], lines: Sequence[Line]) -> Study:
    label = r"$|J(\theta+h\delta) - J(\theta) - \dots|$"
    panel = Panel("Taylor remainders", "$h$", label, tuple(lines), "log", "log")
    return Study(name, claim, "own", tuple(rows), (panel,))
