"""Mueller and Brown's potential: the way from one deep well to the other, and how long it takes.

mpirun -n 1 python -m mpi4py demos/gallery/mueller_brown.py
"""

from pathlib import Path

from mpi4py import MPI

import numpy as np
from matplotlib.figure import Figure

import fpcontrol as fpc
from fpcontrol.parallel.launch import launch

TERMS = (-200, -1, 0, -10, 1, 0), (-100, -1, 0, -10, 0, 0.5)  # A, a, b, c, x, y, of 1979
TERMS += (-170, -6.5, 11, -6.5, -0.5, 1.5), (15, 0.7, 0.6, 0.7, -1, 1)
DEEP, SHALLOW = (-0.5625, 1.4375), (0.625, 0.0)  # nodes next to the deepest places
PEAK, WELLS = -40.6648, np.array([-146.6995, -108.1667, -80.7678])  # V on the way, and in wells
DOWN, BENDS = 750.863, np.array([2130.08, 1278.47, 571.81]) / 606.71  # V'' there, roots of |V''|


def potential(x, y):
    k, a, b, c, u, v = np.array(TERMS).T
    p, q = np.asarray(x)[..., None] - u, np.asarray(y)[..., None] - v
    return np.exp(a * p**2 + b * p * q + c * q**2) @ k


def equation(kT=20.0):  # V / kT, D = 1; the way is 5.3 high, and a cell on it 1.8 at most
    mesh = fpc.mesh.rectangle(MPI.COMM_WORLD, (40, 40), (-1.5, -0.5), (1.0, 2.0))
    drift = fpc.drift.gradient(lambda x: potential(*x.T) / kT)
    return fpc.FokkerPlanck(mesh, drift, sigma=2.0**0.5, degree=3)


def well(at):  # a box of cells about a node
    return lambda x: (abs(x[0] - at[0]) < 0.126) & (abs(x[1] - at[1]) < 0.126)


def main(out=Path("out")):
    q = equation().committor(well(DEEP), well(SHALLOW))
    mine = [*q.function_space.tabulate_dof_coordinates().T[:2], q.x.array]
    nodes = np.hstack(MPI.COMM_WORLD.allgather(mine))
    left, right = (figure := Figure(figsize=(9.0, 3.8), layout="constrained")).subplots(1, 2)
    x, y = np.meshgrid(np.linspace(-1.5, 1.0, 200), np.linspace(-0.5, 2.0, 200))
    left.contourf(x, y, potential(x, y), np.arange(-150.0, 101.0, 10.0), extend="max")
    left.clabel(left.tricontour(*nodes, [0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99], colors="w"))
    left.set(title="Probability to see the lower well first", aspect="equal")
    b = np.array([0.05, 0.075, 0.1, 0.125])  # 1 / kT; two wells are on one side of the formula
    times = 2.0 * np.pi / DOWN / BENDS[:, None] / b * np.exp(np.outer(PEAK - WELLS, b))
    right.semilogy(b, [equation(1.0 / k).eigenpairs(2).values[1] for k in b], "o")
    right.semilogy(b, 1.0 / times[0] + 1.0 / times[1:].sum(axis=0))
    right.set(xlabel="1 / kT", ylabel="slowest rate / D (line: Eyring and Kramers)")
    if MPI.COMM_WORLD.rank == 0:
        out.mkdir(parents=True, exist_ok=True)
        figure.savefig(out / "mueller_brown.png", dpi=150)


if __name__ == "__main__":
    launch(main)
