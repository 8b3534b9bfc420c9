# %% [markdown]
# # One neuron on an interval
#
# On [0, 1] the density $\rho_0 \propto 1 + 0.5\cos\pi x$ is to become
# $\rho_1 \propto 0.3 + e^{-(x-.7)^2/0.01}$ along a straight line in L2, with a network of width 1:
# three weights at a time. Small enough to play with: try `--activation sin`, `--pieces 1`,
# `--diffusivity 0.01`.
#
# A few seconds on one rank:
#
#     mpirun -n 1 python -m mpi4py demos/demo_interval.py

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
    """Steer a density on the unit interval with very few weights."""

    derivatives: int = 150
    """Derivatives that the optimization may take."""
    pieces: int = 20
    """Intervals of time on which the weights are constant."""
    width: int = 1
    """Number of neurons."""
    activation: str = "tanh"
    """tanh, relu, softplus, sigmoid or sin."""
    cells: int = 64
    """Cells of the interval."""
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
    """A smoke test: 5 pieces, 20 derivatives."""


# %% [markdown]
# ## Implementation


# %%
def main(options: Options) -> fpc.Result:
    """Optimize, report, draw."""
    comm = MPI.COMM_WORLD
    if options.quick:
        options.pieces, options.derivatives = 5, 20
    mesh = fpc.mesh.interval(comm, options.cells)
    method = fpc.Limited() if options.method == "limited" else fpc.Galerkin(1)
    start = fpc.density.interpolate(
        mesh, lambda x: 1 + 0.5 * np.cos(np.pi * x[0]), discretization=method
    )
    goal = fpc.density.interpolate(
        mesh, lambda x: 0.3 + np.exp(-((x[0] - 0.7) ** 2) / 0.01), discretization=method
    )
    sigma = (2.0 * options.diffusivity) ** 0.5
    reference = fpc.MoserFlow(start, goal, t1=1.0, sigma=sigma)
    drift = fpc.NetworkDrift(
        mesh, options.width, options.pieces, 1.0, options.activation, options.seed
    )
    result = fpc.steer(
        reference,
        drift=drift,
        steps=8 * options.pieces,
        budget=1e6,
        max_evaluations=options.derivatives,
        seed=options.seed,
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
    fpc.io.write_record(result, options.out / "interval.json", extra)
    fpc.plotting.tracking(result, options.out / "interval.png", title=title)
    fpc.io.write(result.trajectory, options.out / "interval.bp", reference=reference)
    return result


if __name__ == "__main__":
    launch(lambda: main(tyro.cli(Options, console_outputs=MPI.COMM_WORLD.rank == 0)))
