# %% [markdown]
# # How the error depends on the noise, many runs side by side
#
# The problem of `demo_interval.py`: on [0, 1] a network of width 1 steers the density
# $\rho_0 \propto 1 + 0.5\cos\pi x$ along a straight line in L2 to
# $\rho_1 \propto 0.3 + e^{-(x-.7)^2/0.01}$. Here for several $\sigma$, and because the problem is
# not convex, from several seeds each: cases that know nothing of each other. `fpc.ensemble.run`
# splits the ranks into groups, one for each rank unless `--groups` says otherwise, and hands a
# group that is done its next case.
#
# Ten seconds on two ranks:
#
#     mpirun -n 2 python -m mpi4py demos/demo_ensemble.py

# %%
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np
import tyro
from matplotlib.figure import Figure

import fpcontrol as fpc
from fpcontrol.parallel.launch import launch

QUICK = "smoke test (--quick): shows that the demo runs, not what control can do"

UNLIKELY = 0.01  # p values below it are looked at again, in shorter steps of the particles
FINER = 4  # times as many


@dataclass
class Options:
    """Errors reached for several sigmas and seeds, side by side."""

    sigmas: tuple[float, ...] = (0.1, 0.16, 0.25, 0.4, 0.63, 1.0)
    """Noise, length per time**0.5."""
    seeds: int = 5
    """Seeds of the initial weights for every sigma."""
    groups: int | None = None
    """Groups of ranks, each with a case at a time; one per rank unless given."""
    iterations: int = 60
    """Iterations of the optimizer."""
    pieces: int = 10
    """Intervals of time on which the weights are constant."""
    cells: int = 64
    """Cells of the interval."""
    particles: int = 0
    """Number of particles that each control moves, to be compared with its density."""
    out: Path = Path("out")
    """Folder of the results."""
    quick: bool = False
    """A smoke test: 3 sigmas, 2 seeds, 4 pieces, 10 iterations."""


# %% [markdown]
# ## One case
#
# All that a member makes lives on the communicator that it is given. What it returns is a line of
# the table.


# %%
def tracking_error(case: tuple[float, int], comm: MPI.Comm, options: Options) -> dict[str, Any]:
    """Optimize for one sigma and one seed."""
    sigma, seed = case
    mesh = fpc.mesh.interval(comm, options.cells)
    start = fpc.density.interpolate(mesh, lambda x: 1 + 0.5 * np.cos(np.pi * x[0]), 2)
    goal = fpc.density.interpolate(mesh, lambda x: 0.3 + np.exp(-((x[0] - 0.7) ** 2) / 0.01), 2)
    reference = fpc.MoserFlow(start, goal, t1=1.0, sigma=sigma)
    drift = fpc.NetworkDrift(mesh, 1, options.pieces, 1.0, seed=seed)
    problem = fpc.TrackingProblem(reference, drift, sigma, steps=8 * options.pieces)
    result = fpc.minimize(problem, method="lmvm", max_iterations=options.iterations)
    row: dict[str, Any] = {}
    if options.particles:
        found = fpc.particles.check(result, options.particles, seed=seed)
        row["particles"] = found.figures
        if found.comparison.p_value < UNLIKELY:
            steps = FINER * found.steps
            again = fpc.particles.check(result, options.particles, seed=seed, steps=steps)
            row["particles"]["p value in shorter steps"] = again.comparison.p_value
    return row | {
        "sigma": sigma,
        "seed": seed,
        "without_control": problem.errors(0.0 * result.weights).relative_error,
        "relative_error": result.relative_error,
        "mass_defect": result.mass_defect,
        "seconds": result.history[-1].seconds,
    }


# %% [markdown]
# ## All cases


# %%
def main(options: Options) -> list[dict[str, Any]]:
    """Run, report, draw."""
    comm = MPI.COMM_WORLD
    if options.quick:
        options.sigmas, options.seeds = (0.1, 0.4, 1.0), 2
        options.pieces, options.iterations = 4, 10
    cases = list(itertools.product(options.sigmas, range(options.seeds)))
    start = MPI.Wtime()
    rows = fpc.ensemble.run(
        lambda case, group: tracking_error(case, group, options), cases, groups=options.groups
    )
    seconds = MPI.Wtime() - start
    errors = np.array([row["relative_error"] for row in rows]).reshape(-1, options.seeds)
    record = {
        "figures": {
            "relative_error": float(np.median(errors)),
            "mass_defect": max(row["mass_defect"] for row in rows),
            "seconds": seconds,
            "seconds_of_the_cases": sum(row["seconds"] for row in rows),
        },
        "options": options,
        "cases": rows,
        "ranks": comm.size,
        "versions": fpc.io.versions(),
    }
    fpc.io.write_json(record, options.out / "ensemble.json", comm)
    if comm.rank == 0:
        print(f"{'sigma':>8}{'without control':>18}{'median':>10}{'least':>10}{'largest':>10}")
        for row, line in zip(rows[:: options.seeds], errors, strict=True):
            print(
                f"{row['sigma']:8.3g}{row['without_control']:18.4f}"
                f"{np.median(line):10.4f}{line.min():10.4f}{line.max():10.4f}"
            )
        print(f"{len(cases)} cases in {seconds:.1f} s on {comm.size} rank(s)")
        if options.particles:
            print(counted(rows))
        draw(rows, errors, options)
    return rows


def counted(rows: list[dict[str, Any]]) -> str:
    """What the particles of all cases say."""
    checks = [row["particles"] for row in rows]
    p = np.array([check["p value"] for check in checks])
    lines = [
        f"{checks[0]['particles']} particles in {checks[0]['regions']} regions: p from "
        f"{p.min():.2g} to {p.max():.2g}, median {np.median(p):.2g}, below {UNLIKELY:g} in "
        f"{(p < UNLIKELY).sum()} of {len(p)} cases"
    ]
    for row, check in zip(rows, checks, strict=True):
        if "p value in shorter steps" in check:
            lines.append(
                f"sigma = {row['sigma']:g}, seed {row['seed']}: p = {check['p value']:.2g} in "
                f"{check['steps']} steps of the particles, "
                f"{check['p value in shorter steps']:.2g} in {FINER * check['steps']}; half the "
                f"cells move masses by {check['cells, standard errors']:.2g} std. errors"
            )
    return "\n".join(lines)


def draw(rows: list[dict[str, Any]], errors: np.ndarray, options: Options) -> None:
    """The error over sigma: a dot for each seed, a line through the medians."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    ax = figure.subplots()
    ax.set_title(QUICK if options.quick else "", fontsize="small")
    still = [row["without_control"] for row in rows[:: options.seeds]]
    ax.semilogx(options.sigmas, still, "--", color="0.45", label="without control")
    ax.plot(options.sigmas, np.median(errors, axis=1), color="#D55E00", label="median of the seeds")
    x = np.repeat(options.sigmas, options.seeds)
    ax.plot(x, errors.ravel(), "o", color="#0072B2", alpha=0.6, label="one seed")
    ax.set_xticks(options.sigmas, [f"{sigma:g}" for sigma in options.sigmas])
    ax.minorticks_off()
    ax.set(xlabel=r"$\sigma$ (length per time$^{1/2}$)", ylabel="relative error in L2")
    ax.set_ylim(0.0)
    ax.legend(frameon=False)
    ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(options.out / "ensemble.png", dpi=150)


if __name__ == "__main__":
    launch(lambda: main(tyro.cli(Options, console_outputs=MPI.COMM_WORLD.rank == 0)))
