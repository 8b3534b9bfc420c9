"""Blocks of the ranks: additive Schwarz, which overlaps by a layer, beside block Jacobi.

Schwarz copies each operator into blocks of its own before it factors them, and block Jacobi factors
in place; for that it takes more iterations. Which wins depends on the step: the steps run from
those that the mass matrix rules (dt D/h^2 = 1) to those that diffusion rules, with a drift that
turns and changes the operator in every step, as strong as a cell Peclet number says.
"""

import time
from collections.abc import Callable
from typing import Any

from mpi4py import MPI

import numpy as np
import timing

import fpcontrol as fpc

WORLD = MPI.COMM_WORLD
SIGMA, RTOL = 0.5, 1e-10
D = 0.5 * SIGMA**2
STEPS, SHORT = 8, 2
SCHWARZ, JACOBI = "asm", "bjacobi"


def wall(comm: MPI.Comm, run: Callable[[], Any]) -> float:
    """Wall seconds of the slowest rank. Collective."""
    comm.barrier()
    start = time.perf_counter()
    run()
    return comm.allreduce(time.perf_counter() - start, op=MPI.MAX)


def waiting(comm: MPI.Comm) -> None:
    """Wait for all ranks without taking a core from those that compute. Collective."""
    arrived = comm.Ibarrier()
    while not arrived.Test():
        time.sleep(1e-3)


def measure(n: int, rounds: int) -> list[dict[str, Any]]:
    """Both on the unit square, ``n`` squares a side for degree 1 and half as many for 2."""
    rows = []
    for degree in (1, 2):
        mesh = fpc.mesh.rectangle(WORLD, (n // degree, n // degree))
        for number in (1.0, 4.0, 16.0):
            for peclet in (0.3, 3.0):
                rows.append(compare(mesh, n // degree, degree, number, peclet, rounds))
    return rows


def compare(
    mesh: Any, n: int, degree: int, number: float, peclet: float, rounds: int
) -> dict[str, Any]:
    """Microseconds per dof and step of both, in turns. Collective."""
    dt, speed = number / (n * n * D), 2.0 * D * n * peclet
    start = fpc.density.interpolate(
        mesh, lambda x: 1.0 + 0.5 * np.cos(np.pi * x[0]) * np.cos(np.pi * x[1]), degree
    )

    def drift(t: float, x: np.ndarray) -> np.ndarray:
        # Tangent to the walls: what a drift through them does to incomplete factors is another
        # question, and depends on where a block's numbering meets the wall.
        turn = np.cos(2.0 * np.pi * t / (50.0 * dt))
        sin, cos = np.sin(np.pi * x), np.cos(np.pi * x)
        return speed * turn * np.column_stack([sin[:, 0] * cos[:, 1], -cos[:, 0] * sin[:, 1]])

    runs: dict[str, fpc.FokkerPlanck] = {
        kind: fpc.FokkerPlanck(
            mesh,
            drift,
            SIGMA,
            degree=degree,
            linear_solver="gmres",
            petsc_options={"ksp_rtol": RTOL, "pc_type": kind},
        )
        for kind in (SCHWARZ, JACOBI)
    }
    times: dict[str, list[float]] = {kind: [] for kind in runs}
    iterations: dict[str, float] = {}
    for i in range(-1, rounds):  # the first warms up
        for kind, equation in runs.items():

            def run(steps: int, equation: fpc.FokkerPlanck = equation, kind: str = kind) -> None:
                iterations[kind] = equation.solve(start, steps * dt, steps).iterations / steps

            seconds = -wall(WORLD, lambda run=run: run(SHORT))
            seconds += wall(WORLD, lambda run=run: run(STEPS))
            if i >= 0:
                times[kind].append(seconds / (STEPS - SHORT))
    dofs = start.function_space.dofmap.index_map.size_global
    return {
        "ranks": WORLD.size,
        "degree": degree,
        "dofs": dofs,
        "dt D/h^2": number,
        "cell Peclet": peclet,
        "Schwarz": 1e6 * timing.median(times[SCHWARZ]) / dofs,
        "Jacobi": 1e6 * timing.median(times[JACOBI]) / dofs,
        "Jacobi/Schwarz": timing.ratio(times[JACOBI], times[SCHWARZ]),
        "its, Schwarz": iterations[SCHWARZ],
        "its, Jacobi": iterations[JACOBI],
    }
