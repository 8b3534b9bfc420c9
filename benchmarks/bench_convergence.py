r"""Orders of convergence in space and time, reduced orders, and what an upwind scheme hides.

    python benchmarks/bench_convergence.py [--quick] [--only TABLE] [--out DIR]

1. Order in space: degrees 1 to 3 in 1-D, 2-D and 3-D.
2. Order in time on smooth data with v.n = 0: the error against a much finer run on the same mesh.
3. Orders in time where the solution has layers: a network drift with v.n != 0 that switches, and a
   density with a jump.
4. First-order upwinding without noise, beside characteristics and the closed form.

One core computes (other ranks wait); about a minute. benchmarks/README.md explains the columns.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mpi4py import MPI

import numpy as np
import results
import timing
from dolfinx import fem
from dolfinx.mesh import Mesh

import fpcontrol as fpc
from fpcontrol.characteristics.flow import Flow, Markers, carry
from fpcontrol.discretization.elements import Elements
from fpcontrol.stepping.schemes import Scheme
from fpcontrol.typing import VectorField
from fpcontrol.verification import Manufactured, l2_error, orders

COMM = MPI.COMM_SELF
SCHEMES = (fpc.BackwardEuler(), fpc.CrankNicolson(), fpc.SDIRK2(), fpc.SDIRK4())
Row = dict[str, Any]


def cube(dim: int, n: int) -> Mesh:
    """Unit interval, square or cube with n cells a side."""
    if dim == 1:
        return fpc.mesh.interval(COMM, n)
    return (fpc.mesh.rectangle if dim == 2 else fpc.mesh.box)(COMM, (n,) * dim)


def with_orders(rows: list[Row], name: str, ratio: float = 2.0) -> list[Row]:
    """The rows of one refinement with the observed order after each error."""
    found = [None, *(float(o) for o in orders([row[name] for row in rows], ratio))]
    return [row | {f"order {name}": order} for row, order in zip(rows, found, strict=True)]


# -- 1. space --------------------------------------------------------------------------------------

# Cells a side of the coarsest mesh and number of meshes, each with half the mesh size.
MESHES = {
    (1, 1): (16, 5),
    (1, 2): (8, 5),
    (1, 3): (8, 5),
    (2, 1): (8, 4),
    (2, 2): (4, 4),
    (2, 3): (4, 4),
    (3, 1): (4, 4),
    (3, 2): (3, 3),
    (3, 3): (2, 3),
}
QUICK_MESHES = {(1, 3): (8, 3), (2, 2): (4, 3), (3, 1): (4, 2)}


def in_space(quick: bool) -> list[Row]:
    """Relative L2 error at t = 0.5 of Crank-Nicolson, which is exact in time for this solution."""
    rows = []
    for (dim, degree), (first, count) in (QUICK_MESHES if quick else MESHES).items():
        rows += with_orders([on_mesh(dim, degree, first * 2**i) for i in range(count)], "error")
    return rows


def on_mesh(dim: int, degree: int, n: int) -> Row:
    """One mesh."""
    problem, mesh = Manufactured(dim), cube(dim, n)
    equation = fpc.FokkerPlanck(mesh, problem.drift, problem.sigma, degree=degree)
    last = equation.solve(problem.start(mesh, degree), 0.5, 4)[-1]

    def exact(x: np.ndarray) -> np.ndarray:
        return problem.density(0.5, x)

    return {
        "dim": dim,
        "degree": degree,
        "cells": n,
        "dofs": equation.elements.index_map.size_global,
        "error": l2_error(last, exact) / l2_error(fem.Function(last.function_space), exact),
    }


# -- 2. time, smooth -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Evolution:
    """A problem on one mesh, whose error in time is against a finer run on the same mesh."""

    name: str
    mesh: Mesh
    drift: VectorField
    start: fem.Function
    sigma: float
    linear_solver: str = "direct"

    def run(self, scheme: Scheme, steps: int) -> tuple[Elements, fpc.Trajectory]:
        """Up to time 1."""
        equation = fpc.FokkerPlanck(
            self.mesh,
            self.drift,
            self.sigma,
            degree=self.start.function_space.element.basix_element.degree,
            linear_solver=self.linear_solver,
        )
        return equation.elements, equation.solve(self.start, 1.0, steps, scheme=scheme)

    def errors(self, scheme: Scheme, steps: int, fine: fpc.Trajectory) -> Row:
        """At the end and in L2 over time, relative; and the smallest density."""
        g, trajectory = self.run(scheme, steps)
        stride = (len(fine) - 1) // steps
        gaps = [
            g.norm(a - b) / g.norm(b)
            for a, b in zip(trajectory.levels, fine.levels[::stride], strict=True)
        ]
        return {
            "problem": self.name,
            "scheme": scheme.name,
            "steps": steps,
            "end": gaps[-1],
            "over time": math.sqrt(sum(gap**2 for gap in gaps[1:]) / steps),
            "minimum": float(trajectory.minimum.min()),
        }


def swinging(dim: int, n: int, sigma: float = 0.7, solver: str = "direct") -> Evolution:
    """The manufactured solution with an amplitude that goes down and up."""
    problem = Manufactured(
        dim, sigma, lambda t: 0.6 * math.cos(3.0 * t), lambda t: -1.8 * math.sin(3.0 * t)
    )
    mesh = cube(dim, n)
    name = f"{dim}-D, sigma = {sigma:g}" + (", GMRES" if solver == "gmres" else "")
    return Evolution(name, mesh, problem.drift, problem.start(mesh, 3), sigma, solver)


def in_time(quick: bool) -> list[Row]:
    """Error at the end, degree 3; the finer run has 8 or 4 times the most steps, by SDIRK4."""
    cases: list[tuple[Evolution, tuple[Scheme, ...], int, int]] = [
        (swinging(1, 32), SCHEMES, 32 if quick else 256, 8)
    ]
    if not quick:
        cases += [
            (swinging(1, 32, 0.3), SCHEMES[-1:], 256, 8),
            (swinging(2, 8), SCHEMES[-1:], 256, 4),
            (swinging(2, 8, solver="gmres"), SCHEMES[-1:], 256, 4),
        ]
    rows = []
    for case, schemes, most, finer in cases:
        _, fine = case.run(fpc.SDIRK4(), finer * most)
        for scheme in schemes:
            mine = [case.errors(scheme, most // k, fine) for k in (16, 8, 4, 2, 1) if most // k > 8]
            for row in mine:
                del row["over time"], row["minimum"]
            rows += with_orders(mine, "end")
    return rows


# -- 3. time, layers -------------------------------------------------------------------------------


def switching(dim: int, n: int) -> Evolution:
    """A tanh network of width 2 with eight pieces; through the walls at a speed of order 1."""
    mesh = cube(dim, n)
    drift = fpc.NetworkDrift(mesh, 2, 8, 1.0, seed=0)
    drift.weights[:] *= 3.0
    start = fpc.density.interpolate(
        mesh, lambda x: 1.0 + 0.5 * np.cos(np.pi * x[:dim]).prod(axis=0), 2
    )
    return Evolution(f"network, {dim}-D", mesh, drift, start, 0.5)


def jump(dim: int, n: int) -> Evolution:
    """Four times as much in one half as in the other, and a steady drift with v.n = 0."""
    mesh = cube(dim, n)
    start = fpc.density.interpolate(mesh, lambda x: 1.0 - 0.6 * np.sign(x[0] - 0.5), 2)
    drift = fpc.drift.Steady(lambda x: np.sin(2.0 * np.pi * x))
    return Evolution(f"jump, {dim}-D", mesh, drift, start, 0.5)


def reduced(quick: bool) -> list[Row]:
    """Errors at the end and over time, degree 2, against SDIRK4 with 16 times the most steps."""
    cases = [(switching(1, 128), 64 if quick else 256), (jump(1, 128), 64 if quick else 256)]
    if not quick:
        cases += [(switching(2, 24), 64)]
    rows = []
    for case, most in cases:
        _, fine = case.run(fpc.SDIRK4(), 16 * most)
        for scheme in SCHEMES:
            mine = [case.errors(scheme, most // k, fine) for k in (16, 8, 4, 2, 1) if most // k > 8]
            rows += with_orders(with_orders(mine, "end"), "over time")
    return rows


# -- 4. no noise -----------------------------------------------------------------------------------

STRENGTH = 2.0  # a of the drift (a/k) sin(kx), up to time 1


@dataclass(frozen=True)
class Oscillation:
    """The drift (a/k) sin(kx) with its divergence."""

    k: float

    def __call__(self, t: float, x: np.ndarray) -> np.ndarray:
        return STRENGTH / self.k * np.sin(self.k * x)

    def divergence(self, t: float, x: np.ndarray) -> np.ndarray:
        return STRENGTH * np.cos(self.k * x[:, 0])


def upwind(k: float, cells: int) -> np.ndarray:
    """Cell means at time 1 from 1: first-order upwind finite volumes, Heun's method, Courant 1/2.

    Half the largest Courant number keeps the error in time far below that of the upwinding.
    """
    h = 1.0 / cells
    v = STRENGTH / k * np.sin(k * h * np.arange(1, cells))  # at inner faces; none at the walls
    right, left = np.maximum(v, 0.0), np.minimum(v, 0.0)
    steps = max(200, math.ceil(2.0 * np.abs(v).max() / h))
    dt, rho = 1.0 / steps, np.ones(cells)

    def rate(rho: np.ndarray) -> np.ndarray:
        flux = np.zeros(cells + 1)
        flux[1:-1] = right * rho[:-1] + left * rho[1:]
        return -np.diff(flux) / h

    for _ in range(steps):
        first = rate(rho)
        rho = rho + 0.5 * dt * (first + rate(rho + dt * first))
    return rho


def l2_to_uniform(means: np.ndarray) -> float:
    """L2 distance of cell means on [0, 1] to the density 1."""
    return math.sqrt(np.mean((means - 1.0) ** 2))


def w2_to_uniform(means: np.ndarray) -> float:
    """Wasserstein distance, by quantiles: both are linear in the mass on each cell."""
    places = np.linspace(0.0, 1.0, len(means) + 1)
    gap = places - np.concatenate([[0.0], np.cumsum(means) / len(means)])
    a, b = gap[:-1], gap[1:]
    return math.sqrt(np.mean(means * (a * a + a * b + b * b)) / 3.0)


def noisy(kappa: float) -> float:
    """L2 distance to 1, with noise of D = kappa a/k^2: depends on kappa alone, so at m = 1."""
    k = 2.0 * np.pi
    mesh = cube(1, 128)
    sigma = math.sqrt(2.0 * kappa * STRENGTH) / k
    drift = fpc.drift.Steady(lambda x: Oscillation(k)(0.0, x))
    equation = fpc.FokkerPlanck(mesh, drift, sigma, degree=3)
    last = equation.solve(fpc.density.uniform(mesh, 3), 1.0, 64, scheme=fpc.SDIRK4())[-1]
    return l2_error(last, lambda x: np.ones(len(x)))


def at_rest(flow: Flow) -> Flow:
    """The same markers, not moved."""
    still = np.broadcast_to(flow.markers.points, flow.positions.shape)
    return Flow(flow.markers, flow.times, still, np.zeros_like(flow.log_jacobian))


def dissipation(quick: bool) -> list[Row]:
    """L2 and W2 distance to the density 1 of what (a/k) sin(kx) makes of it, sigma = 0."""
    rows = []
    ones: Callable[[np.ndarray], np.ndarray] = lambda x: np.ones(len(x))  # noqa: E731
    for m in (1, 4, 64) if quick else (1, 2, 4, 8, 16, 32, 64):
        k = 2.0 * np.pi * m
        flow = carry(Markers.on_interval(COMM, 32 * m, ones), Oscillation(k), [0.0, 1.0])
        row: Row = {
            "m": m,
            "exact": math.sqrt(math.cosh(STRENGTH) - 1.0),
            "characteristics": float(flow.l2_errors(lambda t, x: ones(x))[-1]),
        }
        means = {n: upwind(k, n) for n in (500, 2000)}
        row |= {f"upwind {n}": l2_to_uniform(rho) for n, rho in means.items()}
        # The mean of |v| is 2a/(pi k) and upwinding diffuses with |v| h/2.
        row |= {f"noise {n}": noisy(k / (np.pi * n)) for n in means}
        row["k W2 characteristics"] = k * float(flow.wasserstein(at_rest(flow))[-1])
        row |= {f"k W2 upwind {n}": k * w2_to_uniform(rho) for n, rho in means.items()}
        rows.append(row)
    return rows


# --------------------------------------------------------------------------------------------------

TABLES = {
    "space": ("Order in space: relative L2 error at t = 0.5", in_space),
    "time": ("Order in time, smooth, v.n = 0: relative L2 error at the end", in_time),
    "layers": ("Order in time with layers: relative L2 errors", reduced),
    "dissipation": ("No noise, v = (a/k) sin(kx), k = 2 pi m: distance to 1", dissipation),
}


def main() -> None:
    """Measure, print, write."""
    parser = results.arguments(__doc__, "convergence", "fewer meshes and steps: seconds")
    parser.add_argument("--only", choices=list(TABLES), help="one table")
    options = parser.parse_args()
    if MPI.COMM_WORLD.rank > 0:
        return

    tables = {}
    for name, (title, measure) in TABLES.items():
        if options.only in (None, name):
            tables[name] = measure(options.quick)
            digits = 5 if name == "dissipation" else 3
            print(timing.table(title, tables[name], digits), flush=True)
    result = {"environment": timing.environment(COMM), "tables": tables}
    name = f"convergence-{options.only}" if options.only else "convergence"
    results.save(options.out, name, result, COMM)


if __name__ == "__main__":
    main()
