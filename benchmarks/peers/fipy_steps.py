"""FiPy on the moving Gaussian; prints JSON. Runs in an environment of its own, without DOLFINx.

    .venv-peers/bin/python benchmarks/peers/fipy_steps.py --cells 100 --steps 50 [--radius R]

The velocity is a FaceVariable that is set in every step. Central differences for the convection: of
second order, where FiPy's default, the power law, adds noise. FiPy's transient term is implicit
Euler; half a step of it with the velocity of the midpoint, and the density carried on in a straight
line from there, is Crank-Nicolson (the implicit midpoint rule) at the same cost. Both are run.
"""

import argparse
import json
import os
import time
from importlib import metadata
from typing import Any

os.environ["FIPY_SOLVERS"] = "scipy"

import numpy as np
from fipy import (
    CellVariable,
    CentralDifferenceConvectionTerm,
    DiffusionTerm,
    FaceVariable,
    Grid2D,
    TransientTerm,
)
from fipy.solvers.scipy import LinearBicgstabSolver, LinearGMRESSolver, LinearLUSolver
from fipy.solvers.scipy.preconditioners import ILUPreconditioner
from moving_gaussian import HALF, T1, D, centre, density, grid_error

SCHEMES = ("Euler", "midpoint")
# Class and whether with an incomplete LU, which FiPy makes anew in every step.
SOLVERS = {
    "LU": (LinearLUSolver, False),
    "GMRES + ILU": (LinearGMRESSolver, True),
    "BiCGStab + ILU": (LinearBicgstabSolver, True),
    "GMRES": (LinearGMRESSolver, False),
    "BiCGStab": (LinearBicgstabSolver, False),
}


def make_solver(name: str, tolerance: float) -> Any:
    """Solver of SciPy's suite."""
    kind, preconditioned = SOLVERS[name]
    if kind is LinearLUSolver:
        return kind(tolerance=tolerance, iterations=10)
    precon = ILUPreconditioner() if preconditioned else None
    return kind(tolerance=tolerance, iterations=1000, precon=precon)


def run(n: int, steps: int, radius: float, scheme: str, solver: Any) -> dict[str, float]:
    """One run, from the mesh to the last density: seconds in all and in the steps, and error."""
    begin = time.process_time()
    h = 2.0 * HALF / n
    corner = ((-HALF,), (-HALF,))
    mesh = Grid2D(nx=n, ny=n, dx=h, dy=h) + corner  # moved there
    x = np.asarray(mesh.cellCenters.value).T
    rho = CellVariable(mesh=mesh, value=density(0.0, x, radius))
    faces = np.asarray(mesh.faceCenters.value)
    inside = 1.0 - np.asarray(mesh.exteriorFaces.value, dtype=float)  # no flux through the walls
    velocity = FaceVariable(mesh=mesh, rank=1)
    equation = TransientTerm() == DiffusionTerm(coeff=D) - CentralDifferenceConvectionTerm(
        coeff=velocity
    )
    dt = T1 / steps
    ready = time.process_time()
    part = 1.0 if scheme == "Euler" else 0.5
    for i in range(steps):
        velocity.setValue((centre((i + part) * dt, radius)[:, None] - faces) * inside)
        before = rho.value.copy()
        equation.solve(var=rho, dt=part * dt, solver=solver)
        if scheme == "midpoint":
            rho.setValue(2.0 * rho.value - before)
    end = time.process_time()
    return {
        "seconds": end - begin,
        "stepping": end - ready,
        "error": grid_error(np.asarray(rho.value), x, radius),
        "mass": float(np.asarray(rho.value).sum() * h * h),
    }


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=100, help="a side")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--radius", type=float, default=1.0, help="0: a drift that stays")
    parser.add_argument("--solvers", nargs="*", choices=SOLVERS, default=list(SOLVERS))
    parser.add_argument("--schemes", nargs="*", choices=SCHEMES, default=list(SCHEMES))
    parser.add_argument("--tolerance", type=float, default=1e-10, help="of the linear solver")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    found = []
    for scheme in options.schemes:
        for name in options.solvers:
            solver = make_solver(name, options.tolerance)
            run(10, 2, options.radius, scheme, solver)  # warms up
            rounds = [
                run(options.cells, options.steps, options.radius, scheme, solver)
                for _ in range(options.repeats)
            ]
            medians = {key: float(np.median([r[key] for r in rounds])) for key in rounds[0]}
            found.append({"scheme": scheme, "solver": name, **medians})
    print(json.dumps({"version": metadata.version("FiPy"), "runs": found}))


if __name__ == "__main__":
    main()
