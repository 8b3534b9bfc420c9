# %% [markdown]
# # Two bridges, one process
#
# Ornstein-Uhlenbeck noising, $X_s = e^{-s}X_0 + \sqrt{1 - e^{-2s}}Z$, and Brownian motion pinned at
# the data are one process: $e^{-s}X_s$ is the latter at $t = 1 - e^{-2s}$. What differs is what
# one models: the score, or the Foellmer drift. Both are fitted here with as many random features,
# by least squares in the divergence of paths, and the densities of their samplers are computed by
# the Fokker-Planck equation.
#
# Ten seconds or so on one rank:
#
#     mpirun -n 1 python -m mpi4py demos/demo_bridges.py

# %%
import math
from dataclasses import asdict, dataclass
from pathlib import Path

from mpi4py import MPI

import numpy as np
import tyro
from matplotlib.figure import Figure

import fpcontrol as fpc
from fpcontrol.parallel.launch import launch

DATA = fpc.noising.GaussianMixture([-2.0, 1.5], [0.05, 0.1])
PROCESS = fpc.noising.OrnsteinUhlenbeck(t1=3.0, g=math.sqrt(2.0))
FIRST = 0.002
FORMS = {"plain": "the score", "damped": "in between", "pinned": "the Foellmer drift"}


@dataclass
class Options:
    """Densities of samplers whose score is modelled in several forms."""

    features: int = 64
    """Random features of each model."""
    cells: int = 240
    """Cells of the line; the refined mesh has twice as many."""
    steps: int = 60
    """Steps of the reversed equation."""
    seed: int = 0
    """Of the features."""
    out: Path = Path("out")
    """Folder of the results."""
    quick: bool = False
    """A smoke test: coarse meshes."""


# %% [markdown]
# ## Implementation


# %%
def main(options: Options) -> dict[str, fpc.score.Comparison]:
    """Fit, compare, print, draw."""
    comm = MPI.COMM_WORLD
    if options.quick:
        options.cells, options.steps = 100, 30
    mesh = fpc.mesh.interval(comm, options.cells, -6.0, 6.0)
    labs = {}
    for form, name in FORMS.items():
        model = fpc.score.RandomFeatures.fit(
            PROCESS, DATA, options.features, form=form, t0=FIRST, seed=options.seed
        )
        labs[form] = fpc.score.compare(
            model,
            PROCESS.of(DATA),
            mesh,
            (1.0,),
            steps=options.steps,
            t0=FIRST,
            start="noised",
            discretization=fpc.Limited(),
        )
        if comm.rank == 0:
            print(f"\n{form} ({name}), {options.features} features\n{labs[form]}")
    draw(labs, options)
    figures = {form: record(lab) for form, lab in labs.items()}
    text = {"options": options, "figures": figures, "versions": fpc.io.versions()}
    fpc.io.write_json(text, options.out / "bridges.json", comm)
    return labs


def record(lab: fpc.score.Comparison) -> dict[str, object]:
    """Figures with their errors; L2 is relative."""
    names = ("certificate", "kl", "l2", "wasserstein")
    return {"norm": lab.norm} | {name: asdict(getattr(lab[1.0], name)) for name in names}


def gathered(f, comm):
    """Points and values on rank 0, in order. Collective."""
    space = f.function_space
    n = space.dofmap.index_map.size_local
    parts = comm.gather((space.tabulate_dof_coordinates()[:n, 0], f.x.array[:n]))
    if parts is None:
        return None
    x, values = (np.concatenate(part) for part in zip(*parts, strict=True))
    order = np.argsort(x)
    return x[order], values[order]


def draw(labs: dict[str, fpc.score.Comparison], options: Options) -> None:
    """The data and the samplers' densities. Collective."""
    comm = MPI.COMM_WORLD
    lines = {
        form: [gathered(f, comm) for f in (lab.data, lab[1.0].density)]
        for form, lab in labs.items()
    }
    if comm.rank:
        return
    figure = Figure(figsize=(10.5, 3.4), layout="constrained")
    axes = figure.subplots(1, len(labs), sharey=True)
    for ax, (form, lab) in zip(axes, labs.items(), strict=True):
        data, density = lines[form]
        ax.plot(*data, color="0.75", lw=3.0, label="data")
        ax.plot(*density, color="#0072b2", lw=1.2, label="sampler")
        s = lab[1.0]
        ax.set(title=f"{form}: {FORMS[form]}", xlim=(-3.5, 3.5))
        ax.set_xlabel(
            f"KL of paths {s.certificate.value:.3g}, KL {s.kl.value:.3g}\n"
            f"relative L2 {s.l2.value / lab.norm:.3g}, W2 {s.wasserstein.value:.3g}"
        )
    axes[0].legend(fontsize=8)
    figure.suptitle(
        f"{options.features} random features, one process" + ", smoke test" * options.quick
    )
    options.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out / "bridges.png", dpi=150)


if __name__ == "__main__":
    launch(lambda: main(tyro.cli(Options, console_outputs=MPI.COMM_WORLD.rank == 0)))
