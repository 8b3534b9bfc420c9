"""Kramers' rate: how fast noise carries a particle over a barrier, V = (x^2 - 1)^2.

mpirun -n 1 python -m mpi4py demos/gallery/kramers.py
"""

from pathlib import Path

from mpi4py import MPI

import numpy as np
from matplotlib.figure import Figure

import fpcontrol as fpc
from fpcontrol.parallel.launch import launch

DIFFUSIVITIES = 0.25, 0.2, 0.15, 0.12, 0.1, 0.08


def modes(D, comm=MPI.COMM_WORLD):
    """What stays, and what relaxes last, with its rate."""
    mesh = fpc.mesh.interval(comm, 200, -2.2, 2.2)
    drift = fpc.drift.gradient(lambda x: (x[:, 0] ** 2 - 1.0) ** 2)
    return fpc.FokkerPlanck(mesh, drift, sigma=(2.0 * D) ** 0.5, degree=3).eigenpairs(2)


def kramers(D):
    """There and back, from the curvatures 8 in the wells and -4 on the barrier, 1 high."""
    return 2.0 * np.sqrt(8.0 * 4.0) / (2.0 * np.pi) * np.exp(-1.0 / D)


def main(out=Path("out")):
    found = {D: modes(D) for D in DIFFUSIVITIES}
    figure = Figure(figsize=(9.0, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    fpc.plotting.density(found[0.1].functions[0], ax=left, title="What stays, D = 0.1")
    rates = np.array([found[D].values[1] for D in DIFFUSIVITIES])
    inverse, formula = 1.0 / np.array(DIFFUSIVITIES), np.array([*map(kramers, DIFFUSIVITIES)])
    right.semilogy(inverse, rates, "o", label="slowest eigenvalue")
    right.semilogy(inverse, formula, label="Kramers")
    right.set(xlabel="barrier / D", ylabel="rate")
    right.legend()
    if MPI.COMM_WORLD.rank == 0:
        print("over Kramers':", np.round(rates / formula, 4))
        out.mkdir(parents=True, exist_ok=True)
        figure.savefig(out / "kramers.png", dpi=150)


if __name__ == "__main__":
    launch(main)
