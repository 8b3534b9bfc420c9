"""A dihedral angle with two wells and two ways between them: cut at 180 degrees, one is lost.

mpirun -n 1 python -m mpi4py demos/gallery/dihedral.py
"""

from pathlib import Path

from mpi4py import MPI

import numpy as np
from matplotlib.figure import Figure

import fpcontrol as fpc
from fpcontrol.parallel.launch import launch

BARRIERS = 1.0, 2.0, 4.0, 6.0, 8.0  # over kT; the wells are at -90 and 90 degrees
TILT = 0.5


def potential(x, barrier):
    """Over kT, of an angle x."""
    return 0.5 * barrier * (1.0 + np.cos(2.0 * x)) + TILT * np.sin(x)


def modes(barrier, periodic=True, comm=MPI.COMM_WORLD):
    """What stays, and what relaxes last, with its rate; D = 1."""
    mesh = fpc.mesh.interval(comm, 120, -np.pi, np.pi, periodic=periodic)
    drift = fpc.drift.gradient(lambda x: potential(x[:, 0], barrier))
    return fpc.FokkerPlanck(mesh, drift, sigma=2.0**0.5, degree=3).eigenpairs(2)


def rate(barrier, waves=40):
    """The slowest rate in another way: the operator on Fourier series, (d + V')' a."""
    m = np.arange(-waves, waves + 1)
    operator = np.diag(-(m**2.0) + 0j)
    v = {2: 0.25 * barrier, -2: 0.25 * barrier, 1: -0.5j * TILT, -1: 0.5j * TILT}
    for k, coefficient in v.items():  # of V, but for its mean
        operator -= np.diag((m * k * coefficient)[max(k, 0) : len(m) + min(k, 0)], -k)
    return np.sort(-np.linalg.eigvals(operator).real)[1]


def main(out=Path("out")):
    found = {h: (modes(h), modes(h, periodic=False)) for h in BARRIERS}
    left, right = (figure := Figure(figsize=(9.0, 3.4), layout="constrained")).subplots(1, 2)
    fpc.plotting.density(found[4.0][0].functions[0], ax=left, title="What stays, 4 kT", unit="rad")
    rates = np.array([[each.values[1].real for each in found[h]] for h in BARRIERS])
    for k, (marker, label) in enumerate((("o", "round the circle"), ("s", "walls at 180 degrees"))):
        right.semilogy(BARRIERS, rates[:, k], marker, label=label)
    right.semilogy(BARRIERS, [rate(h) for h in BARRIERS], "k", lw=0.8, label="Fourier series")
    right.set(xlabel="barrier / kT", ylabel="slowest rate / D")
    right.legend()
    if MPI.COMM_WORLD.rank == 0:
        print("of the rate, with walls:", np.round(rates[:, 1] / rates[:, 0], 3))
        out.mkdir(parents=True, exist_ok=True)
        figure.savefig(out / "dihedral.png", dpi=150)


if __name__ == "__main__":
    launch(main)
