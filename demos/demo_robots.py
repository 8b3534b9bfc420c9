# %% [markdown]
# # Ten thousand robots, two neurons
#
# Robots come through the door of a hall and are to gather in a ring around the pillar in its
# middle. All hear the same ten numbers, the weights of a network of width 2, which are constant on
# each of 60 pieces of time, and know where they are: each moves by
# $$dX = v(t, X)\,dt + \sigma\,dW,\qquad |v| \le 2\ \mathrm{m/s},$$
# and turns back at walls and pillars. So their density obeys the Fokker-Planck equation without
# flux through the walls, and weights are found that keep it near a straight line in L2 from the
# door to the ring. Then the robots are let go, and counted where the density says how many are.
#
# Three minutes on two ranks:
#
#     mpirun -n 2 python -m mpi4py demos/demo_robots.py

# %%
from dataclasses import dataclass
from pathlib import Path

from mpi4py import MPI

import numpy as np
import tyro

import fpcontrol as fpc
from fpcontrol.parallel.launch import launch

HALL = Path(__file__).parent.parent / "meshes" / "hall.xdmf"
DOOR, MIDDLE = (0.0, 6.0), (10.0, 6.0)  # m
RADIUS, NEAR = 2.5, (1.0, 4.5)  # of the ring, m: where it is, and what is counted as the ring
SECTORS = 16
QUICK = "smoke test (--quick): shows that the demo runs, not what control can do"


@dataclass
class Options:
    """Gather robots from a door in a ring around a pillar."""

    robots: int = 10_000
    """Number of robots."""
    budget: float = 100.0
    """Seconds for the optimization."""
    pieces: int = 60
    """Intervals of time on which the weights are constant."""
    width: int = 2
    """Number of neurons."""
    activation: str = "sin"
    """sin, tanh, sigmoid, softplus or relu."""
    max_speed: float = 2.0
    """Bound of the drift, m/s."""
    diffusivity: float = 0.2
    """D = sigma**2 / 2, m**2/s."""
    t1: float = 120.0
    """Seconds until they are to be there."""
    floor: float = 0.1
    """Fraction of the robots that is spread evenly in start and goal."""
    robot_steps: int = 40
    """Steps of the robots in each piece."""
    film: str = "robots.mp4"
    """Name of the film; without an ffmpeg a .gif is written."""
    seed: int = 0
    """Seed of all that is random."""
    out: Path = Path("out")
    """Folder of the results."""
    resume: bool = False
    """Go on from the checkpoint in the folder of the results."""
    quick: bool = False
    """A smoke test: 10 pieces, 12 derivatives, 2 000 robots."""


# %% [markdown]
# ## Implementation
# `Limited()` keeps the density positive, as numbers of robots are. Robots and density have errors
# of their own, those of steps and of cells: before they are compared the density is run again
# with the weights found, on cells and steps half as large. Collisions are steps that were mirrored
# at a wall: the shorter the steps, the more of them there are.


# %%
def reference(options: Options, mesh, method) -> fpc.MoserFlow:  # type: ignore[no-untyped-def]
    """From the door to the ring."""

    def square(x: np.ndarray, place: tuple[float, float]) -> np.ndarray:
        return (x[0] - place[0]) ** 2 + (x[1] - place[1]) ** 2

    def door(x: np.ndarray) -> np.ndarray:
        return np.exp(-0.5 * square(x, DOOR) / 2.0**2)

    def ring(x: np.ndarray) -> np.ndarray:
        return np.exp(-0.5 * ((np.sqrt(square(x, MIDDLE)) - RADIUS) / 0.8) ** 2)

    start, goal = (
        fpc.density.interpolate(mesh, f, discretization=method, floor=options.floor)
        for f in (door, ring)
    )
    sigma = (2.0 * options.diffusivity) ** 0.5
    return fpc.MoserFlow(start, goal, t1=options.t1, sigma=sigma)


def region(x: np.ndarray) -> np.ndarray:
    """Number of the region of each point: sectors of the ring, then four parts of the rest."""
    y = x - MIDDLE
    far = np.hypot(*y.T)
    angle = np.arctan2(y[:, 1], y[:, 0]) % (2.0 * np.pi)
    sector = np.minimum((SECTORS * angle / (2.0 * np.pi)).astype(int), SECTORS - 1)
    quarter = SECTORS + 2 * (y[:, 0] > 0.0) + (y[:, 1] > 0.0)
    return np.where((far >= NEAR[0] - 0.5) & (far <= NEAR[1]), sector, quarter)


NAMES = [f"ring, {360 * k / SECTORS:g} to {360 * (k + 1) / SECTORS:g} deg" for k in range(SECTORS)]
NAMES += [f"rest, {side}" for side in ("door below", "door above", "far below", "far above")]


def table(found: fpc.particles.Comparison) -> str:
    """The comparison, region by region."""
    lines = [f"{'region':<24}{'robots':>10}{'expected':>12}{'z':>8}"]
    for name, share, mass, z in zip(NAMES, found.shares, found.masses, found.z, strict=True):
        lines.append(f"{name:<24}{share * found.count:>10.0f}{mass * found.count:>12.1f}{z:>8.2f}")
    return "\n".join(lines)


def main(options: Options) -> fpc.Result:
    """Optimize, let the robots go, count, film."""
    comm = MPI.COMM_WORLD
    if options.quick:
        options.pieces, options.budget, options.robots = 10, 1e6, 2000
        options.t1, options.robot_steps = 60.0, 40
    mesh = fpc.mesh.read(HALL, comm)
    flow = reference(options, mesh, fpc.Limited())
    drift = fpc.NetworkDrift(
        mesh,
        options.width,
        options.pieces,
        t1=options.t1,
        activation=options.activation,
        seed=options.seed,
        max_speed=options.max_speed,
    )
    checkpoint = options.out / "robots.npz"
    result = fpc.steer(
        flow,
        drift=drift,
        budget=options.budget,
        max_evaluations=12 if options.quick else None,
        seed=options.seed,
        coarse=reference(options, mesh, fpc.Galerkin(1)),
        checkpoint=checkpoint,
        resume=checkpoint if options.resume else None,
    )
    fine = result.problem.on_refined_mesh(8 * options.pieces, discretization=fpc.Limited())
    finer = fine.errors(result.weights).relative_error

    robots = fpc.particles.draw(flow.start, options.robots, seed=options.seed)
    steps = options.pieces * options.robot_steps
    swarm = fpc.particles.simulate(
        mesh,
        result.drift,
        robots,
        flow.noise.sigma,
        options.t1,
        steps,
        seed=options.seed,
        scheme=fpc.particles.Heun(),
        save=options.robot_steps // 4,
        progress=True,
    )
    checked = fpc.particles.check(
        result, options.robots, region, seed=options.seed, steps=steps, swarm=swarm
    )
    found = checked.comparison
    speeds = [
        np.linalg.norm(result.drift(t, x), axis=1).max(initial=0.0)
        for t, x in zip(swarm.times, swarm, strict=True)
    ]
    fastest = comm.allreduce(max(speeds), MPI.MAX)
    collisions = comm.allreduce(int(swarm.collisions.sum())) / swarm.total
    goal = fpc.particles.compare(swarm.points, flow.goal, region)
    figures = {
        "finer mesh and steps": finer,
        "robots in the ring": float(found.shares[:SECTORS].sum()),
        "reference in the ring": float(goal.masses[:SECTORS].sum()),
        "largest speed, m/s": float(fastest),
        "collisions per robot": collisions,
    }
    summary = result.summary()
    if comm.rank == 0:
        print(summary)
        print(table(found))
        print("\n".join(f"{row:<24}{value:>30.4g}" for row, value in figures.items()))
        print(checked)
    extra = {"options": options, "regions": NAMES} | figures
    extra |= {
        "particles": checked.figures,
        "shares": found.shares.tolist(),
        "masses": found.masses.tolist(),
    }
    fpc.io.write_record(result, options.out / "robots.json", extra)
    title = QUICK if options.quick else f"{options.robots} robots, {options.width} neurons"
    fpc.plotting.tracking(result, options.out / "robots.png", unit="m", title=title)
    film = fpc.plotting.animation(
        result,
        options.out / options.film,
        particles=swarm,
        frames=6 if options.quick else 120,
        unit="m",
        title=title,
    )
    if comm.rank == 0:
        print(f"Written to {options.out}: robots.png, .json, .npz (resume), {film.name}")
    return result


if __name__ == "__main__":
    launch(lambda: main(tyro.cli(Options, console_outputs=MPI.COMM_WORLD.rank == 0)))
