# %% [markdown]
# # Walls that reflect, walls that absorb
#
# A drift that is learned on a box lives between walls. If they reflect (no flux, Neumann) mass is
# kept; if they absorb (Dirichlet) what reaches them is gone, as particles are that leave the region
# where a network was trained. Does the same network, with the same budget, follow the same
# reference between both?
#
# On the unit square the uniform density is to become a bump along a straight line in L2, with
# $D = 0.05$, $T = 1$ and a tanh network of width 2 that switches its weights: a bump in the middle,
# away from all walls, or one that leans on a wall. The reference is the same in both cases and
# keeps its mass. Between absorbing walls the density cannot do that: it has to learn to stay away.
#
# It does so in part only: the error is three to four times as large, and a third to a half or more
# of the mass is lost. More neurons (`--width 8`) or iterations (`--iterations 200`) change little.
#
# A minute on two ranks, a case at a time on each:
#
#     mpirun -n 2 python -m mpi4py demos/demo_walls.py

# %%
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np
import tyro
from matplotlib.figure import Figure
from matplotlib.tri import Triangulation

import fpcontrol as fpc
from fpcontrol.parallel.launch import launch

QUICK = "smoke test (--quick): shows that the demo runs, not what control can do"
WALLS = ("no flux", "absorbing")
UNRESOLVED = 0.1  # relative change of an error on the finer mesh that is said aloud
CENTRES = {"middle": (0.5, 0.5), "wall": (0.5, 0.9)}


@dataclass
class Options:
    """Follow one reference between reflecting and between absorbing walls."""

    iterations: int = 60
    """Iterations of the optimizer, for each case and both kinds of walls."""
    seeds: int = 3
    """Seeds of the initial weights for every goal."""
    pieces: int = 20
    """Intervals of time on which the weights are constant."""
    width: int = 2
    """Number of neurons."""
    cells: int = 16
    """Cells along each side of the square."""
    diffusivity: float = 0.05
    """D = sigma**2 / 2."""
    particles: int = 0
    """Number of particles that each control moves, to be compared with its density."""
    groups: int | None = None
    """Groups of ranks, each with a case at a time; one per rank unless given."""
    out: Path = Path("out")
    """Folder of the results."""
    quick: bool = False
    """A smoke test: 2 seeds, 10 cells, 5 pieces, 8 iterations."""


# %% [markdown]
# ## One case
#
# Both problems have one reference, one network, one method: fluxes along edges, `Monotone()`. With
# continuous elements an optimizer finds drifts that leave an absorbing wall so fast that the cells
# do not resolve it, and the wall gives mass back (a warning says so). Here walls only take,
# whatever drift is tried. What is found is checked on cells and steps half as large.


# %%
def problems(
    case: tuple[str, int], comm: MPI.Comm, options: Options, finer: int = 1
) -> list[fpc.TrackingProblem]:
    """Both problems for a goal and a seed, on a mesh and steps so many times as fine."""
    goal_name, seed = case
    mesh = fpc.mesh.rectangle(comm, (finer * options.cells,) * 2)
    (a, b), sigma = CENTRES[goal_name], (2.0 * options.diffusivity) ** 0.5
    method = fpc.Monotone()
    start = fpc.density.uniform(mesh, discretization=method)
    goal = fpc.density.interpolate(
        mesh,
        lambda x: 0.05 + np.exp(-((x[0] - a) ** 2 + (x[1] - b) ** 2) / 0.03),
        discretization=method,
    )
    reference = fpc.MoserFlow(start, goal, 1.0, sigma)
    drift = fpc.NetworkDrift(mesh, options.width, options.pieces, 1.0, seed=seed)
    return [
        fpc.TrackingProblem(
            reference, drift, sigma, finer * 4 * options.pieces, absorbing=absorbing
        )
        for absorbing in (None, lambda x: x[0] < 2.0)
    ]


def speeds(result: fpc.Result) -> tuple[float, float]:
    """Mean square speed of what is left, over time, as a root; and the largest speed."""
    g, run, problem = result.problem.elements, result.run(), result.problem
    squares, largest = [], 0.0
    for n in range(problem.steps):
        v = result.drift(0.5 * (run.times[n] + run.times[n + 1]), g.points)
        square = (v**2).sum(axis=1)
        rho = g.evaluate(0.5 * (run.levels[n] + run.levels[n + 1])).ravel() * g.quadrature_weights
        mass = 0.5 * (run.mass[n] + run.mass[n + 1])
        squares.append(g.sum(float(rho @ square)) / mass)
        largest = max(largest, g.comm.allreduce(float(square.max(initial=0.0)), op=MPI.MAX))
    return float(np.mean(squares)) ** 0.5, largest**0.5


def shape_error(result: fpc.Result) -> float:
    """Relative error in L2 of what is left, scaled to mass 1: of those that have survived."""
    g, run, reference = result.problem.elements, result.run(), result.problem.reference
    levels = [reference.coefficients(t) for t in run.times]
    gaps = [
        g.norm(rho / m - ref) ** 2 for rho, m, ref in zip(run.levels, run.mass, levels, strict=True)
    ]
    norms = [g.norm(ref) ** 2 for ref in levels]
    return float((np.trapezoid(gaps) / np.trapezoid(norms)) ** 0.5)


def compared(case: tuple[str, int], comm: MPI.Comm, options: Options) -> list[dict[str, Any]]:
    """Optimize between both kinds of walls, from the same weights."""
    rows: list[dict[str, Any]] = []
    pairs = zip(problems(case, comm, options), problems(case, comm, options, 2), strict=True)
    for walls, (problem, fine) in zip(WALLS, pairs, strict=True):
        result = fpc.minimize(
            problem, method="lmvm", max_iterations=options.iterations, progress=False
        )
        mean, largest = speeds(result)
        row = {
            "goal": case[0],
            "seed": case[1],
            "walls": walls,
            "relative_error": result.relative_error,
            "finer": fine.errors(result.weights).relative_error,
            "final_error": result.errors.final_error,
            "shape_error": shape_error(result),
            "without_control": problem.errors(0.0 * result.weights).relative_error,
            "mass": float(result.mass[-1]),
            "finer_mass": float(fine.mass_and_minimum(result.weights)[0][-1]),
            "mass_over_time": result.mass.tolist(),
            "mass_defect": result.mass_defect,
            "minimum_density": result.minimum_density,
            "mean_speed": mean,
            "largest_speed": largest,
            "evaluations": result.evaluations,
            "seconds": result.history[-1].seconds,
            "weights": result.weights.tolist(),
        }
        if options.particles:
            check = fpc.particles.check(result, options.particles, seed=case[1])
            row["particles"] = check.figures
        if rows:  # what the weights of no flux are worth here
            weights = np.array(rows[0]["weights"])
            row["taken_over"] = problem.errors(weights).relative_error
            row["taken_over_mass"] = float(problem.mass_and_minimum(weights)[0][-1])
        rows.append(row)
    return rows


# %% [markdown]
# ## All cases


# %%
def main(options: Options) -> list[dict[str, Any]]:
    """Run, report, draw."""
    comm = MPI.COMM_WORLD
    if options.quick:
        options.seeds, options.cells, options.pieces, options.iterations = 2, 10, 5, 8
    cases = list(itertools.product(CENTRES, range(options.seeds)))
    start = MPI.Wtime()
    found = fpc.ensemble.run(
        lambda case, group: compared(case, group, options), cases, groups=options.groups
    )
    seconds = MPI.Wtime() - start
    rows = list(itertools.chain(*found))
    table = {
        (goal, walls): {
            name: float(
                np.median([r[name] for r in rows if (r["goal"], r["walls"]) == (goal, walls)])
            )
            for name in (*COLUMNS, *(TAKEN if walls == WALLS[1] else ()))
        }
        for goal in CENTRES
        for walls in WALLS
    }
    record = {
        "figures": {
            "relative_error": table["middle", "absorbing"]["relative_error"],
            "mass_defect": max(row["mass_defect"] for row in rows),
            "seconds": seconds,
            "medians": {f"{goal}, {walls}": line for (goal, walls), line in table.items()},
        },
        "options": options,
        "cases": rows,
        "ranks": comm.size,
        "versions": fpc.io.versions(),
    }
    fpc.io.write_json(record, options.out / "walls.json", comm)
    if comm.rank == 0:
        report(rows, table)
        if options.particles:
            counted(rows)
        print(f"{len(cases)} cases in {seconds:.1f} s on {comm.size} rank(s)")
        draw(rows, options)
    return rows


COLUMNS = {
    "without_control": "uncontrolled",
    "relative_error": "error",
    "finer": "(finer)",
    "shape_error": "of the shape",
    "final_error": "at the end",
    "mass": "mass left",
    "finer_mass": "(finer)",
    "mean_speed": "mean speed",
    "largest_speed": "largest",
}
TAKEN = {"taken_over": "", "taken_over_mass": ""}


def report(rows: list[dict[str, Any]], table: dict[tuple[str, str], dict[str, float]]) -> None:
    """Medians over the seeds, and what they say."""
    print(f"{'goal':<8}{'walls':<11}" + "".join(f"{head:>14}" for head in COLUMNS.values()))
    for (goal, walls), line in table.items():
        print(f"{goal:<8}{walls:<11}" + "".join(f"{line[name]:14.4g}" for name in COLUMNS))
    for goal in CENTRES:
        free, lossy = (table[goal, walls] for walls in WALLS)
        ratios = [
            two["relative_error"] / one["relative_error"]
            for one, two in itertools.pairwise(rows)
            if one["walls"] == WALLS[0] and one["goal"] == goal
        ]
        print(
            f"{goal}: absorbing walls take {1.0 - lossy['mass']:.0%} of the mass in spite of the "
            f"control, and the error is {min(ratios):.2f} to {max(ratios):.2f} times that between "
            f"reflecting ones; speeds are {lossy['mean_speed'] / free['mean_speed']:.2f} times as "
            f"high. Weights of no flux taken over lose {1.0 - lossy['taken_over_mass']:.0%}, error "
            f"{lossy['taken_over']:.3g}."
        )
        for walls, line in zip(WALLS, (free, lossy), strict=True):
            if abs(line["finer"] - line["relative_error"]) > UNRESOLVED * line["relative_error"]:
                print(
                    f"{goal}, {walls}: on the finer mesh the error is {line['finer']:.3g} instead "
                    f"of {line['relative_error']:.3g}: the cells do not resolve this drift, and "
                    "what it reaches is to be taken from there."
                )


def counted(rows: list[dict[str, Any]]) -> None:
    """What the particles of all cases say; those that walls have taken are a region more."""
    for goal, walls in itertools.product(CENTRES, WALLS):
        checks = [r["particles"] for r in rows if (r["goal"], r["walls"]) == (goal, walls)]
        p = ", ".join(f"{check['p value']:.2g}" for check in checks)
        cells = max(check["cells, standard errors"] for check in checks)
        verdict = ", which show beside chance" if cells > 1.0 else ""
        print(
            f"{goal}, {walls}: {checks[0]['particles']} particles in {checks[0]['regions']} "
            f"regions, p = {p} by seed; half the cells move masses by up to {cells:.2g} std. "
            f"errors{verdict}"
        )


def draw(rows: list[dict[str, Any]], options: Options) -> None:
    """Densities of the first seed at five times, and mass over time of all."""
    figure = Figure(figsize=(11.0, 4.6 * len(CENTRES)), layout="constrained")
    figure.suptitle(QUICK if options.quick else "", fontsize="small")
    parts = figure.subfigures(len(CENTRES), 1, squeeze=False)[:, 0]
    for part, goal in zip(parts, CENTRES, strict=True):
        two = problems((goal, 0), MPI.COMM_SELF, options)
        mine = [row for row in rows if (row["goal"], row["seed"]) == (goal, 0)]
        runs = [p.trajectory(np.array(row["weights"])) for p, row in zip(two, mine, strict=True)]
        g, times = two[0].elements, two[0].times
        x = g.space.tabulate_dof_coordinates()
        triangles = Triangulation(x[:, 0], x[:, 1], g.space.dofmap.list)
        levels = np.linspace(0, len(times) - 1, 5).round().astype(int)
        shown = [[two[0].reference.coefficients(times[n]) for n in levels]]
        shown += [[run.levels[n] for n in levels] for run in runs]
        axes = part.subplots(3, 6, width_ratios=[1, 1, 1, 1, 1, 1.6])
        highest = max(u.max() for u in shown[0])
        for line, name, values in zip(axes, ("reference", *WALLS), shown, strict=True):
            for ax, n, u in zip(line, levels, values, strict=False):
                image = ax.tripcolor(triangles, u, shading="gouraud", vmin=0.0, vmax=highest)
                ax.set(xticks=[], yticks=[], aspect="equal")
                if name == "reference":
                    ax.set_title(f"t = {times[n]:.2g}", fontsize="small")
            line[0].set_ylabel(name)
        part.colorbar(image, ax=list(axes[:, :5].ravel()), location="left", label="density")
        for ax in axes[:, 5]:
            ax.remove()
        right = part.add_subplot(axes[0, 0].get_gridspec()[:, 5])
        for row in rows:
            if row["goal"] == goal:
                color = "#0072B2" if row["walls"] == WALLS[0] else "#D55E00"
                label = row["walls"] if row["seed"] == 0 else None
                right.plot(times, row["mass_over_time"], color=color, alpha=0.7, label=label)
        right.set(xlabel="time", ylabel="mass", ylim=(0.0, 1.05), title=f"goal: {goal}")
        right.legend(frameon=False, title="walls")
        right.spines[["top", "right"]].set_visible(False)
    figure.savefig(options.out / "walls.png", dpi=130)


if __name__ == "__main__":
    launch(lambda: main(tyro.cli(Options, console_outputs=MPI.COMM_WORLD.rank == 0)))
