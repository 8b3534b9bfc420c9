"""The drift-diffusion model of decisions: evidence gathers until it hits one of two bounds.

mpirun -n 1 python -m mpi4py demos/gallery/decisions.py
"""

from pathlib import Path

from mpi4py import MPI

import numpy as np
from dolfinx.mesh import compute_midpoints, exterior_facet_indices, meshtags
from matplotlib.figure import Figure

import fpcontrol as fpc

DRIFT, BOUND, BIAS = 1.2, 1.5, 0.6  # sigma = 1; the start is at BIAS, errors at 0
BEGIN, END, STEPS = 0.004, 3.0, 600  # before BEGIN next to no path has reached a bound
drift = fpc.drift.Steady(lambda x: np.full_like(x, DRIFT))
MIDDLE = BIAS + DRIFT * BEGIN  # of the density at BEGIN, without bounds


def series(t):  # first-passage densities (2, N) of both bounds, Feller (1968)
    k = np.arange(1, 200)[:, None] * np.pi / BOUND
    return [
        np.exp(-v * z) / BOUND * (k * np.exp(-(k**2 + v**2) * t / 2) * np.sin(k * z)).sum(axis=0)
        for v, z in ((DRIFT, BIAS), (-DRIFT, BOUND - BIAS))
    ]


def run(comm=MPI.COMM_WORLD):
    """The equation; the middles of its steps, and what leaves through each bound per time."""
    mesh = fpc.mesh.interval(comm, 200, 0.0, BOUND)
    mesh.topology.create_connectivity(0, 1)
    ends = exterior_facet_indices(mesh.topology)
    right = compute_midpoints(mesh, 0, ends)[:, 0] > 0.5 * BOUND
    tags = meshtags(mesh, 0, ends, (1 + right).astype(np.int32))
    e = fpc.FokkerPlanck(mesh, drift, 1.0, absorbing=(1, 2), facet_tags=tags, degree=3)
    start = fpc.density.interpolate(mesh, lambda x: np.exp(-((x[0] - MIDDLE) ** 2) / 2 / BEGIN), 3)
    out = e.solve(start, END, STEPS, t0=BEGIN, scheme=fpc.SDIRK4(), save="last")
    dt = (END - BEGIN) / STEPS
    return e, out.all_times[1:] - 0.5 * dt, np.diff(out.absorbed, axis=0).T / dt


def main(out=Path("out")):
    _, t, found = run()
    ax = (figure := Figure(figsize=(6.0, 3.6), layout="constrained")).subplots()
    for exact, mine, name in zip(series(t), found, ("errors", "right decisions"), strict=True):
        ax.plot(t, mine, label=f"{name}: {mine.sum() * (t[1] - t[0]):.4f}")
        ax.plot(t[::15], exact[::15], "k.", markersize=4)
    ax.set(xlabel="time of the decision", ylabel="density (dots: the series)", xlim=(0.0, 2.5))
    ax.legend()
    if MPI.COMM_WORLD.rank == 0:
        print("off the series by", np.abs(found - series(t)).max())
        out.mkdir(parents=True, exist_ok=True)
        figure.savefig(out / "decisions.png", dpi=150)


if __name__ == "__main__":
    main()
