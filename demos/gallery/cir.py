"""Cox, Ingersoll and Ross: dx = k (m - x) dt + s sqrt(x) dW, at Feller's condition and below it.

mpirun -n 1 python -m mpi4py demos/gallery/cir.py
"""

from pathlib import Path

from mpi4py import MPI

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import ncx2

import fpcontrol as fpc
from fpcontrol.parallel.launch import launch

K, MEAN, START, BEGIN, END = 1.0, 1.0, 0.6, 0.1, 4.0
SHAPES = 2.0, 1.0, 0.5  # 2 k m / s^2: the rate never reaches 0, just does not, and does


def exact(shape, t):
    """The law of x(t): a noncentral chi-square law, scaled (Cox, Ingersoll, Ross 1985)."""
    c = shape / MEAN / (1.0 - np.exp(-K * t))
    return ncx2(2.0 * shape, 2.0 * c * START * np.exp(-K * t), scale=0.5 / c)


def run(shape, comm=MPI.COMM_WORLD):
    """From the law at BEGIN on, with the probability to be below 0.1."""
    s = (2.0 * K * MEAN / shape) ** 0.5
    mesh = fpc.mesh.interval(comm, 500, 0.0, 25.0)
    drift = fpc.drift.Steady(lambda x: K * (MEAN - x))
    equation = fpc.FokkerPlanck(mesh, drift, sigma=lambda x: s * np.sqrt(x[:, 0]), degree=2)
    law = exact(shape, BEGIN).pdf
    start = fpc.density.interpolate(mesh, lambda x: law(np.maximum(x[0], 1e-3)), degree=2)
    seen = {"below": fpc.observables.mass(lambda x: x[0] < 0.1)}
    options = {"t0": BEGIN, "scheme": fpc.SDIRK2(), "save": "last", "observables": seen}
    return equation.solve(start, END, 200, **options)


def main(out=Path("out")):
    left, right = (figure := Figure(figsize=(9.0, 3.4), layout="constrained")).subplots(1, 2)
    for i, shape in enumerate(SHAPES):
        fpc.plotting.density((r := run(shape))[-1], ax=left)
        for line in left.lines[-1:]:
            line.set(color=f"C{i}", label=f"2 k m / s² = {shape:g}")
        x, t = np.linspace(0.05, 4.0, 40), r.all_times[::10]
        left.plot(x, exact(shape, END).pdf(x), "k.", markersize=3)
        right.plot(r.all_times, r.observables["below"])
        right.plot(t, [exact(shape, s).cdf(0.1) for s in t], "k.", markersize=3)
    left.set(xlim=(0.0, 4.0), ylim=(0.0, 1.6), title="At t = 4 (dots: the law)")
    right.set(xlabel="t", ylabel="probability of x < 0.1")
    left.legend()
    if MPI.COMM_WORLD.rank == 0:
        out.mkdir(parents=True, exist_ok=True)
        figure.savefig(out / "cir.png", dpi=150)


if __name__ == "__main__":
    launch(main)
