"""A bay with islands, and currents on a grid that sink in one place: where what is spilled goes.

mpirun -n 1 python -m mpi4py demos/gallery/bay.py
meshes/bay.py has made the mesh and the currents, which are synthetic; km and days.
"""

from pathlib import Path

from mpi4py import MPI

import numpy as np
from matplotlib.figure import Figure

import fpcontrol as fpc

BAY = Path(__file__).parents[2] / "meshes" / "bay.xdmf"
SIGMA, END, STEPS = 2.0, 24.0, 240  # D = 2 km**2 a day, 23 m**2 a second
TABLE = np.loadtxt(BAY.with_suffix(".csv"), delimiter=",", skiprows=1)  # x, y, u, v
AXES = np.unique(TABLE[:, 0]), np.unique(TABLE[:, 1])
VELOCITY = TABLE[:, 2:].reshape(*map(len, AXES), 2)
currents = fpc.drift.grid(AXES, VELOCITY)  # linear in between, an error outside
mesh = fpc.mesh.read(BAY, MPI.COMM_WORLD)
OPEN = {"absorbing": (2, 3), "facet_tags": fpc.mesh.read_facet_tags(BAY, mesh)}  # east, west


def run():
    equation = fpc.FokkerPlanck(mesh, currents, SIGMA, **OPEN)
    spill = fpc.density.interpolate(mesh, lambda x: (4 + (x[0] - 12) ** 2 + (x[1] - 4) ** 2) ** -4)
    return equation, equation.solve(spill, END, STEPS, save=60)


def particles(start, count):
    points, options = fpc.particles.draw(start, count, seed=1), {"seed": 1, "save": 60, **OPEN}
    return fpc.particles.simulate(mesh, currents, points, SIGMA, END, STEPS, **options)


def main(out=Path("out")):
    equation, found = run()
    swarm = particles(found[0], count := 2_000)
    left, right = (figure := Figure(figsize=(10.0, 3.6), layout="constrained")).subplots(1, 2)
    fpc.plotting.density(found[1], ax=left, title="After 6 days; particles, currents", unit="km")
    left.plot(*swarm.gather(1).T, "w.", markersize=0.7)
    left.streamplot(*AXES, *VELOCITY.T, color="0.6", linewidth=0.5, arrowsize=0.6)
    for k, end in enumerate(("east", "west")):
        right.plot(found.all_times, found.absorbed[:, k], f"C{k}", label=f"left in the {end}")
        q, g = equation.exit_probability(2 + k).x.array, equation.elements
        parts = g.quadrature_weights @ (g.evaluate(q) * g.evaluate(found.levels[0])).ravel()
        right.axhline(g.sum(parts), color=f"C{k}", ls=":")
        times = np.hstack(swarm.comm.allgather(swarm.exits.times[swarm.exits.tags == 2 + k]))
        right.plot(np.sort(times)[::25], np.arange(len(times))[::25] / count, f"C{k}.")
    right.set(xlabel="days (dots: particles; dotted: in the end)", ylabel="share")
    right.legend()
    if MPI.COMM_WORLD.rank == 0:
        out.mkdir(parents=True, exist_ok=True)
        figure.savefig(out / "bay.png", dpi=150)


if __name__ == "__main__":
    main()
