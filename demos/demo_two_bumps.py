# %% [markdown]
# # Two bumps from nothing
#
# On the unit square the uniform density is to grow two bumps along a straight line in L2,
# $\rho_1 \propto 0.2 + 3 e^{-|x-(.3,.3)|^2/0.02} + 3 e^{-|x-(.7,.7)|^2/0.02}$,
# with $D = 0.05$, $T = 1$ and a network of width 2 that switches its ten weights 80 times. At
# any one time two neurons can squeeze in two directions only; switching makes two bumps of it.
#
# The neurons are sought with Galerkin's method on cells twice as large; at last all weights are
# optimized on the mesh and with the method that is reported. A minute and a half:
#
#     mpirun -n 1 python -m mpi4py demos/demo_two_bumps.py

# %%
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mpi4py import MPI

import numpy as np
import tyro

import fpcontrol as fpc
from fpcontrol.parallel.launch import launch

QUICK = "smoke test (--quick): shows that the demo runs, not what control can do"


@dataclass
class Options:
    """Grow two bumps out of the uniform density on the unit square."""

    budget: float = 80.0
    """Seconds for the optimization."""
    pieces: int = 80
    """Intervals of time on which the weights are constant."""
    width: int = 2
    """Number of neurons."""
    activation: str = "sin"
    """sin, tanh, sigmoid, softplus or relu; with tanh the error is twice as large."""
    cells: int = 32
    """Cells along each side of the square."""
    diffusivity: float = 0.05
    """D = sigma**2 / 2."""
    method: Literal["limited", "galerkin"] = "limited"
    """Method in space; the first never makes a density negative."""
    particles: int = 0
    """Number of particles that the control found moves, to be compared with its density."""
    seed: int = 0
    """Seed of all that is random."""
    out: Path = Path("out")
    """Folder of the results."""
    quick: bool = False
    """A smoke test: 16 cells, 10 pieces, 40 derivatives."""


# %% [markdown]
# ## Implementation


# %%
def bumps(x: np.ndarray) -> np.ndarray:
    """The goal, not normalized, at points of shape (3, N)."""
    near, far = ((x[0] - c) ** 2 + (x[1] - c) ** 2 for c in (0.3, 0.7))
    return 0.2 + 3.0 * np.exp(-near / 0.02) + 3.0 * np.exp(-far / 0.02)


def reference(options: Options, cells: int, method: fpc.Galerkin | fpc.Limited) -> fpc.MoserFlow:
    """From the uniform density to two bumps."""
    mesh = fpc.mesh.rectangle(MPI.COMM_WORLD, (cells, cells))
    start = fpc.density.uniform(mesh, discretization=method)
    goal = fpc.density.interpolate(mesh, bumps, discretization=method)
    sigma = (2.0 * options.diffusivity) ** 0.5
    return fpc.MoserFlow(start, goal, t1=1.0, sigma=sigma)


def main(options: Options) -> fpc.Result:
    """Optimize, report, draw."""
    comm = MPI.COMM_WORLD
    if options.quick:
        options.cells, options.pieces, options.budget = 16, 10, 1e6
    method = fpc.Limited() if options.method == "limited" else fpc.Galerkin(1)
    flow = reference(options, options.cells, method)
    mesh = flow.elements.mesh
    drift = fpc.NetworkDrift(
        mesh, options.width, options.pieces, activation=options.activation, seed=options.seed
    )
    result = fpc.steer(
        flow,
        drift=drift,
        budget=options.budget,
        max_evaluations=40 if options.quick else None,
        seed=options.seed,
        coarse=reference(options, options.cells // 2, fpc.Galerkin(1)),
        checkpoint=options.out / "two_bumps.npz",
    )
    summary = result.summary()
    fine = (
        result.problem.on_refined_mesh()
    )  # degree 2: what the optimizer made of the method's errors
    finer = fine.errors(result.weights).relative_error
    found = None
    if options.particles:
        found = fpc.particles.check(result, options.particles, seed=options.seed)
    if comm.rank == 0:
        print(summary)
        print(f"{'finer mesh, degree 2':<24}{finer:>36.4f}")
        if found:
            print(found)
    title = QUICK if options.quick else ""
    extra = {"options": options, "finer mesh, degree 2": finer}
    extra |= {"particles": found.figures} if found else {}
    fpc.io.write_record(result, options.out / "two_bumps.json", extra)
    fpc.plotting.tracking(result, options.out / "two_bumps.png", title=title)
    fpc.io.write(result.trajectory, options.out / "two_bumps.bp", reference=flow, every=4)
    return result


if __name__ == "__main__":
    launch(lambda: main(tyro.cli(Options, console_outputs=MPI.COMM_WORLD.rank == 0)))
