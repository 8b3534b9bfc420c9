r"""Which scheme, degree and steps for which problem: errors and seconds of a handful of choices.

    python benchmarks/bench_choices.py [--quick] [--out DIR]

On the unit square up to time 1: (smooth) a manufactured solution with v.n = 0; (switching) a tanh
network with eight pieces, through the walls; (jump) a density with a jump and a steady stirring
drift. On interval and square (no noise): the oscillating drift of bench_convergence.py along
characteristics. ``docs/guide.md`` draws the conclusions. About a minute on one core.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mpi4py import MPI

import numpy as np
import results
import timing
from bench_convergence import STRENGTH, cube

import fpcontrol as fpc
from fpcontrol.characteristics.flow import Markers, carry
from fpcontrol.discretization.elements import Elements
from fpcontrol.discretization.locate import OwnCells
from fpcontrol.stepping.schemes import Scheme
from fpcontrol.typing import VectorField
from fpcontrol.verification import Manufactured

COMM = MPI.COMM_SELF
LEVELS = 16  # times at which errors are measured; all numbers of steps are multiples
PIECES = 8
Row = dict[str, Any]
Array = np.ndarray
Exact = Callable[[Array], list[Array]]

BE, CN, S2, S4 = fpc.BackwardEuler(), fpc.CrankNicolson(), fpc.SDIRK2(), fpc.SDIRK4()
# Degree, cells a side, scheme, steps.
CHOICES: list[tuple[int, int, Scheme, int]] = [
    (1, 32, BE, 64),
    (1, 32, CN, 64),
    (2, 16, BE, 64),
    (2, 16, CN, 16),
    (2, 16, CN, 64),
    (2, 16, S2, 32),
    (2, 16, S4, 16),
    (3, 12, CN, 64),
    (3, 12, S2, 64),
    (3, 12, S4, 16),
    (3, 12, S4, 32),
]
QUICK_CHOICES = [(2, 16, CN, 16), (2, 16, S4, 16)]


@dataclass(frozen=True)
class Problem:
    """An equation and its start; without a closed form the finest run stands for it.

    Attributes:
        name: Name.
        sigma: Noise.
        drift: ``drift(mesh)``.
        start: Density at time 0, of points ``(3, N)``.
        density: ``density(t, x)`` if known.
    """

    name: str
    sigma: float
    drift: Callable[[Any], VectorField]
    start: Callable[[Array], Array]
    density: Callable[[float, Array], Array] | None = None

    def run(
        self,
        degree: int,
        n: int,
        scheme: Scheme,
        steps: int,
        linear_solver: str = "auto",
        quadrature: int | None = None,
    ) -> fpc.Trajectory:
        """From the mesh to the last density."""
        mesh = cube(2, n)
        start = fpc.density.interpolate(mesh, self.start, degree)
        equation = fpc.FokkerPlanck(
            mesh,
            self.drift(mesh),
            self.sigma,
            degree=degree,
            quadrature_degree=quadrature,
            linear_solver=linear_solver,
        )
        return equation.solve(start, 1.0, steps, scheme=scheme)

    def exact(self, quick: bool) -> Exact:
        """Densities at all levels at given points."""
        density = self.density
        if density is not None:
            return lambda x: [density((i + 1) / LEVELS, x) for i in range(LEVELS)]
        n, steps = (18, 48) if quick else (30, 128)
        fine = self.run(3, n, S4, steps, "direct")
        own = OwnCells(fine.space.mesh)
        levels = fine.levels[steps // LEVELS :: steps // LEVELS]

        def at(x: Array) -> list[Array]:
            cells = own.holding(x)
            return [own.evaluate(fine.space, u, cells, x)[0] for u in levels]

        return at


def smooth() -> Problem:
    """Closed form, v.n = 0, drift in motion and no gradient."""
    solution = Manufactured(
        2, 0.7, lambda t: 0.6 * math.cos(3.0 * t), lambda t: -1.8 * math.sin(3.0 * t)
    )
    return Problem(
        "smooth",
        solution.sigma,
        lambda mesh: solution.drift,
        lambda x: solution.density(0.0, x[:2].T),
        solution.density,
    )


def switching() -> Problem:
    """Tanh network of width 2, through the walls at a speed of order 1."""

    def drift(mesh: Any) -> VectorField:
        network = fpc.NetworkDrift(mesh, 2, PIECES, 1.0, seed=0)
        network.weights[:] *= 3.0
        return network

    return Problem(
        "switching", 0.5, drift, lambda x: 1.0 + 0.5 * np.cos(np.pi * x[:2]).prod(axis=0)
    )


def jump() -> Problem:
    """Four times as much on the left as on the right, stirred."""

    def stir(x: Array) -> Array:
        sin, cos = np.sin(np.pi * x), np.cos(np.pi * x)
        return np.column_stack([sin[:, 0] * cos[:, 1], -cos[:, 0] * sin[:, 1]])

    return Problem(
        "jump", 0.5, lambda mesh: fpc.drift.Steady(stir), lambda x: 1.0 - 0.6 * np.sign(x[0] - 0.5)
    )


def relative_errors(trajectory: fpc.Trajectory, exact: Exact, known: dict[Any, Any]) -> list[float]:
    """L2 errors over L2 norms at the levels; what is known on a mesh is kept for the next run."""
    element = trajectory.space.element.basix_element
    g = Elements(trajectory.space, 2 * element.degree + 6)
    key = (element.degree, g.n_cells)
    if key not in known:
        known[key] = exact(g.points)
    stride = (len(trajectory) - 1) // LEVELS
    w, found = g.quadrature_weights, []
    for u, rho in zip(trajectory.levels[stride::stride], known[key], strict=True):
        gap = g.evaluate(u).ravel() - rho
        found.append(math.sqrt(w @ gap**2 / (w @ rho**2)))
    return found


def with_noise(problem: Problem, quick: bool) -> list[Row]:
    """All choices for one problem."""
    exact, known, rows = problem.exact(quick), {}, []
    for degree, n, scheme, steps in QUICK_CHOICES if quick else CHOICES:
        trajectory = problem.run(degree, n, scheme, steps)
        errors = relative_errors(trajectory, exact, known)
        again = [
            timing.seconds(COMM, lambda c=(degree, n, scheme, steps): problem.run(*c))
            for _ in range(1 if quick else 3)
        ]
        rows.append(
            {
                "problem": problem.name,
                "degree": degree,
                "cells": n,
                "dofs": trajectory.space.dofmap.index_map.size_global,
                "scheme": scheme.name,
                "steps": steps,
                "end": errors[-1],
                "largest": max(errors),
                "minimum": float(trajectory.minimum.min()),
                "seconds": timing.median(again),
            }
        )
    return rows


def gentle() -> Problem:
    """Closed form again, steady in time, with a quarter of the diffusion."""
    solution = Manufactured(2, 0.35)
    return Problem(
        "less noise",
        solution.sigma,
        lambda mesh: solution.drift,
        lambda x: solution.density(0.0, x[:2].T),
        solution.density,
    )


def quadratures(problem: Problem, quick: bool) -> list[Row]:
    """Errors with fewer points for the drift, and with those of the default and more."""
    exact, known, rows = problem.exact(quick), {}, []
    for degree, n in [(1, 32)] if quick else [(1, 16), (1, 32), (2, 8), (2, 16), (3, 6), (3, 12)]:
        ends = {}
        for q in (max(1, 2 * degree - 2), 2 * degree, 2 * degree + 2):
            run = problem.run(degree, n, S4, 32, quadrature=q)
            ends[q] = relative_errors(run, exact, known)[-1]
        row = {"problem": problem.name, "degree": degree, "cells": n}
        rows += [
            row
            | {
                "quadrature": q,
                "points": Elements(run.space, q).n_points,
                "end": end,
                "of the default's": end / ends[2 * degree],
            }
            for q, end in ends.items()
        ]
    return rows


def without_noise(quick: bool) -> list[Row]:
    """Characteristics on (a/k) sin(kx_i), k = 16 pi: L2 distance to 1 against its closed form."""
    k, rows = 16.0 * np.pi, []

    class Ripple:
        def __call__(self, t: float, x: Array) -> Array:
            return STRENGTH / k * np.sin(k * x)

        def divergence(self, t: float, x: Array) -> Array:
            return STRENGTH * np.cos(k * x).sum(axis=1)

    def markers(dim: int, n: int) -> Markers:
        if dim == 1:
            return Markers.on_interval(COMM, n, lambda x: np.ones(len(x)))
        return Markers.on_mesh(fpc.density.uniform(cube(2, n), 1), 6)

    cases = [(1, 64, 1e-3), (1, 128, 1e-6), (1, 256, 1e-9), (2, 32, 1e-4), (2, 64, 1e-6)]
    for dim, n, rtol in cases[:2] if quick else cases:

        def run(dim: int = dim, n: int = n, rtol: float = rtol) -> Any:
            return carry(markers(dim, n), Ripple(), [0.0, 1.0], rtol=rtol, atol=rtol)

        exact = math.sqrt(math.cosh(STRENGTH) ** dim - 1.0)
        flow = run()
        found = float(flow.l2_errors(lambda t, x: np.ones(len(x)))[-1])
        rows.append(
            {
                "dim": dim,
                "cells": n,
                "labels": len(flow.markers.points),
                "rtol": rtol,
                "steps": flow.steps,
                "L2 distance": found,
                "off by": abs(found / exact - 1.0),
                "seconds": timing.median([timing.seconds(COMM, run) for _ in range(3)]),
            }
        )
    return rows


def main() -> None:
    """Measure, print, write."""
    options = results.arguments(__doc__, "choices", "two choices a problem: seconds").parse_args()
    if MPI.COMM_WORLD.rank > 0:
        return
    tables = {}
    for problem in (smooth(), switching(), jump()):
        tables[problem.name] = with_noise(problem, options.quick)
        print(timing.table("Relative L2 errors", tables[problem.name]), flush=True)
    tables["quadrature"] = [
        row
        for problem in (smooth(), gentle(), switching())
        for row in quadratures(problem, options.quick)
    ]
    print(timing.table("Points for the drift, SDIRK4, 32 steps", tables["quadrature"]), flush=True)
    tables["no noise"] = without_noise(options.quick)
    print(timing.table("No noise: characteristics", tables["no noise"]))
    result = {"environment": timing.environment(COMM), "tables": tables}
    results.save(options.out, "choices", result, COMM)


if __name__ == "__main__":
    main()
