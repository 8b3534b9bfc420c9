"""Klein and Kramers: x' = p, p' = -V'(x) - g p + noise; the way over a barrier against friction.

mpirun -n 1 python -m mpi4py demos/gallery/klein_kramers.py
"""

import warnings
from pathlib import Path

from mpi4py import MPI

import numpy as np
from matplotlib.figure import Figure

import fpcontrol as fpc
from fpcontrol.parallel.launch import launch

T, FRICTIONS = 0.25, (0.5, 1.0, 2.0, 4.0, 8.0)  # V = (x^2 - 1)^2, a barrier of 4 T


def energy(x):
    return (x[:, 0] ** 2 - 1.0) ** 2 + 0.5 * x[:, 1] ** 2


def modes(friction, comm=MPI.COMM_WORLD, cells=24):
    """What stays, exp(-energy / T), and what relaxes last: noise acts on the momentum alone."""
    mesh = fpc.mesh.rectangle(comm, (cells, cells), (-2.0, -3.0), (2.0, 3.0))

    def motion(x):
        return np.column_stack([x[:, 1], 4.0 * x[:, 0] * (1.0 - x[:, 0] ** 2) - friction * x[:, 1]])

    warnings.filterwarnings("ignore", ".*is degenerate")  # that is what this is about
    drift, sigma = fpc.drift.Steady(motion), [0.0, (2.0 * friction * T) ** 0.5]
    return fpc.FokkerPlanck(mesh, drift, sigma, degree=3).eigenpairs(2)


def kramers(friction):
    """There and back for friction that is not small; 8 and -4 are the curvatures of V."""
    slowed = np.hypot(0.5 * friction, 2.0) - 0.5 * friction
    return 2.0 * slowed / 2.0 * np.sqrt(8.0) / (2.0 * np.pi) * np.exp(-1.0 / T)


def main(out=Path("out")):
    rates = np.array([modes(g).values[1] for g in FRICTIONS])
    stays = modes(1.0, cells=36).functions[0]
    left, right = (figure := Figure(figsize=(9.0, 3.4), layout="constrained")).subplots(1, 2)
    e, found = energy(stays.function_space.tabulate_dof_coordinates()), stays.x.array
    left.semilogy(e, found, ".", e, found.max() * np.exp(-e / T), ".", markersize=1.5)
    left.set(xlabel="energy", xlim=(0.0, 3.0), ylim=(1e-6, 2.0), title="What stays; exp(-energy/T)")
    right.plot(FRICTIONS, rates, "o", label="slowest eigenvalue")
    right.plot(friction := np.linspace(0.5, 8.0, 100), kramers(friction), label="Kramers")
    right.set(xlabel="friction", ylabel="rate", ylim=(0.0, 0.016))
    right.legend()
    if MPI.COMM_WORLD.rank == 0:
        out.mkdir(parents=True, exist_ok=True)
        figure.savefig(out / "klein_kramers.png", dpi=150)


if __name__ == "__main__":
    launch(main)
