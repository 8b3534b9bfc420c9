"""Integrate and fire: tau V' = mu - V + noise; a spike at the threshold, then V is reset.

mpirun -n 1 python -m mpi4py demos/gallery/integrate_and_fire.py
"""

from pathlib import Path

from mpi4py import MPI

import numpy as np
from matplotlib.figure import Figure
from scipy.integrate import quad
from scipy.special import erfcx

import fpcontrol as fpc
from fpcontrol.parallel.launch import launch

TAU, RESET, THRESHOLD, LOW = 20.0, 10.0, 20.0, -20.0  # ms, mV
NOISE = 5.0  # mV: the standard deviation of V without a threshold is NOISE / 2**0.5
MEANS = np.linspace(12.0, 26.0, 15)


def siegert(mu):
    """Spikes per ms; Siegert 1951, Brunel 2000 (J. Comput. Neurosci. 8), no refractory time."""
    ends = (RESET - mu) / NOISE, (THRESHOLD - mu) / NOISE
    return 1.0 / (TAU * np.pi**0.5 * quad(lambda u: erfcx(-u), *ends)[0])


def run(mu, comm=MPI.COMM_WORLD):
    """Rate, density, equation: what one neuron a ms, coming at the reset, keeps up."""
    mesh = fpc.mesh.interval(comm, 160, LOW, THRESHOLD)

    def reset(x):  # a hat on the two cells at RESET, of mass 1
        return np.maximum(0.0, 1.0 - np.abs(x[:, 0] - RESET) * 4.0) * 4.0

    drift = fpc.drift.Steady(lambda x: (mu - x) / TAU)
    options = {"reactions": fpc.Reactions(source=reset), "degree": 3}
    options["absorbing"] = lambda x: x[0] > THRESHOLD - 1e-9
    equation = fpc.FokkerPlanck(mesh, drift, NOISE / TAU**0.5, **options)
    density = equation.stationary()
    time = equation.elements.integral(density.x.array)  # between two spikes: the mass kept up
    density.x.array[:] /= time
    return 1.0 / time, density, equation


def main(out=Path("out")):
    left, right = (figure := Figure(figsize=(9.0, 3.4), layout="constrained")).subplots(1, 2)
    fpc.plotting.density(run(18.0)[1], ax=left, title="Potential in mV, mean input 18")
    right.plot(MEANS, [1e3 * run(mu)[0] for mu in MEANS], "o", label="1 / mass kept up")
    right.plot(MEANS, [1e3 * siegert(mu) for mu in MEANS], label="Siegert's formula")
    right.set(xlabel="mean input, mV", ylabel="spikes per second")
    right.legend()
    if MPI.COMM_WORLD.rank == 0:
        out.mkdir(parents=True, exist_ok=True)
        figure.savefig(out / "integrate_and_fire.png", dpi=150)


if __name__ == "__main__":
    launch(main)
