# %% [markdown]
# # A neural ODE: no noise at all
#
# With $\sigma = 0$ the density obeys the continuity equation $\partial_t\rho = -\nabla\cdot(v\rho)$
# and is carried along characteristics, $\dot X = v$, $\frac{d}{dt}\log J = \nabla\cdot v$,
# $\rho = \rho_0/J$: no mesh diffuses it. The network, as wide as the dimension, is multiplied by a
# factor that vanishes at the walls. Its weights follow the Moser flow between two smooth densities,
# by the discrete adjoint of the steps. The figure is confirmed on markers and steps four times as
# fine, and the same network is then optimized with noise, for comparison.
#
# Two minutes on one rank (`--dimension 1`: seconds):
#
#     mpirun -n 1 python -m mpi4py demos/demo_neural_ode.py

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
    """Optimize a neural ODE of the width of its dimension, without noise."""

    dimension: Literal[1, 2] = 2
    """Interval or square."""
    iterations: int = 200
    """Iterations of the optimizer."""
    pieces: int = 10
    """Intervals of time on which the weights are constant."""
    activation: str = "tanh"
    """tanh, softplus, sigmoid or sin."""
    cells: int = 12
    """Cells along a side."""
    layer: float = 0.125
    """Thickness of the layer at the walls in which the drift is slowed down."""
    noise: float = 0.3
    """Sigma of the run with noise that is made for comparison."""
    particles: int = 0
    """Number of particles that the control found moves, to be compared with its density."""
    seed: int = 0
    """Seed of the initial weights."""
    out: Path = Path("out")
    """Folder of the results."""
    quick: bool = False
    """A smoke test: the interval, 5 pieces, 15 iterations."""


# %% [markdown]
# ## Implementation


# %%
def square_or_interval(options: Options, n: int):  # type: ignore[no-untyped-def]
    """The unit cube of a dimension with n cells a side."""
    if options.dimension == 1:
        return fpc.mesh.interval(MPI.COMM_WORLD, n)
    return fpc.mesh.rectangle(MPI.COMM_WORLD, (n, n))


def bump(mesh, centre: float):  # type: ignore[no-untyped-def]
    """A smooth density with its mass around a point of the diagonal."""
    d = mesh.topology.dim
    return fpc.density.interpolate(
        mesh, lambda x: 0.4 + np.exp(-((x[:d] - centre) ** 2).sum(axis=0) / (2 * 0.2**2)), degree=2
    )


def main(options: Options) -> fpc.Result:
    """Optimize without noise, confirm, optimize with noise, draw."""
    comm = MPI.COMM_WORLD
    if options.quick:
        options.dimension, options.pieces, options.iterations = 1, 5, 15
    mesh = square_or_interval(options, options.cells)
    reference = fpc.MoserFlow(bump(mesh, 0.3), bump(mesh, 0.65), t1=1.0, sigma=0.0)
    drift = fpc.NetworkDrift(
        mesh, options.dimension, options.pieces, 1.0, options.activation, options.seed
    )
    problem = fpc.TrackingProblem(
        reference, drift, sigma=0.0, steps=4 * options.pieces, layer=options.layer
    )
    result = fpc.minimize(problem, method="lmvm", max_iterations=options.iterations)
    summary = result.summary()
    finer = problem.refined(
        4 * problem.steps, marker_mesh=square_or_interval(options, 4 * options.cells)
    )
    figures = {"markers and steps 4 x as fine": finer.errors(result.weights).relative_error}
    noisy = fpc.TrackingProblem(
        fpc.MoserFlow(reference.start, reference.goal, 1.0, options.noise),
        drift,
        sigma=options.noise,
        steps=4 * options.pieces,
    )
    other = fpc.minimize(noisy, method="lmvm", max_iterations=options.iterations)
    figures[f"optimized with sigma = {options.noise:g}"] = other.relative_error
    found = None
    if options.particles:
        regions = min(24, options.cells**options.dimension)
        found = fpc.particles.check(result, options.particles, regions, seed=options.seed)
    if comm.rank == 0:
        print(summary)
        print("\n".join(f"{name:<30}{value:>30.4f}" for name, value in figures.items()))
        if found:
            print(found)
    title = QUICK if options.quick else ""
    extra = {"options": options} | figures
    extra |= {"particles": found.figures} if found else {}
    fpc.io.write_record(result, options.out / "neural_ode.json", extra)
    fpc.plotting.tracking(result, options.out / "neural_ode.png", title=title)
    fpc.io.write(
        result.trajectory.on_mesh(problem.elements.space, range(0, problem.steps + 1, 4)),
        options.out / "neural_ode.bp",
        reference=reference,
    )
    return result


if __name__ == "__main__":
    launch(lambda: main(tyro.cli(Options, console_outputs=MPI.COMM_WORLD.rank == 0)))
