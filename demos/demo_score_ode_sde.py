# %% [markdown]
# # One score, two samplers
#
# A score that is wrong by ripples,
#
# $$\hat s = \nabla\log p_t + \nabla\frac{c}{\omega^2}e^{-4t}\sum_i\cos\omega x_i,$$
#
# drives the reversed SDE and the reversed ODE of an Ornstein-Uhlenbeck process. What the two make
# of it is computed without a sample: the SDE's density by the Fokker-Planck equation, the ODE's
# along characteristics. Noise averages the ripples out; without noise they are in the density.
#
# A minute on one rank:
#
#     mpirun -n 1 python -m mpi4py demos/demo_score_ode_sde.py

# %%
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from mpi4py import MPI

import matplotlib.pyplot as plt
import numpy as np
import tyro
from matplotlib.tri import Triangulation

import fpcontrol as fpc
from fpcontrol.parallel.launch import launch

LINE = fpc.noising.GaussianMixture([-1.2, 1.0], [0.08, 0.15], [0.6, 0.4])
RING = 1.5 * np.array([[np.cos(a), np.sin(a)] for a in 2.0 * np.pi * np.arange(5) / 5.0 + 0.3])
PLANE = fpc.noising.GaussianMixture(RING, 0.12)
NAMES = {1.0: "SDE", 0.0: "ODE"}


@dataclass
class Options:
    """Densities of the SDE and the ODE of one score that is slightly wrong."""

    c: float = 8.0
    """Height of the error of the score's divergence."""
    omega: float = 16.0
    """Its wave number on the line."""
    omega_plane: float = 8.0
    """Its wave number in the plane."""
    cells: int = 300
    """Cells of the line; the refined mesh has twice as many."""
    cells_plane: int = 32
    """Cells along each side of the square."""
    steps: int = 100
    """Steps of the reversed equation on the line; in the plane half as many."""
    out: Path = Path("out")
    """Folder of the results."""
    quick: bool = False
    """A smoke test: coarse meshes."""


# %% [markdown]
# ## Implementation


# %%
def main(options: Options) -> list[fpc.score.Comparison]:
    """Compare, print, draw."""
    comm = MPI.COMM_WORLD
    if options.quick:
        options.cells, options.cells_plane, options.steps = 120, 12, 50
    process = fpc.noising.OrnsteinUhlenbeck(t1=10.0)
    line = fpc.mesh.interval(comm, options.cells, -4.5, 4.5)
    n = options.cells_plane
    square = fpc.mesh.rectangle(comm, (n, n), (-4.0, -4.0), (4.0, 4.0))
    labs = []
    for mixture, mesh, omega, steps in (
        (LINE, line, options.omega, options.steps),
        (PLANE, square, options.omega_plane, options.steps // 2),
    ):
        data = process.of(mixture)
        score = fpc.score.RippledScore(data, options.c, omega)
        labs.append(fpc.score.compare(score, data, mesh, tuple(NAMES), steps=steps))
        if comm.rank == 0:
            print(f"\n{mixture.dimension}-D, c = {options.c:g}, omega = {omega:g}\n{labs[-1]}")
    draw(labs, options)
    if comm.rank == 0:
        figures = [
            {"dimension": d, "samplers": [record(s) for s in lab]} for d, lab in enumerate(labs, 1)
        ]
        text = {"options": asdict(options) | {"out": str(options.out)}, "figures": figures}
        (options.out / "score_ode_sde.json").write_text(json.dumps(text, indent=1))
    return labs


def record(sampler: fpc.score.Sampler) -> dict[str, object]:
    """Figures of a sampler with their errors."""
    names = ("l2", "kl", "wasserstein", "wall_mass", "collapsed_mass", "certificate")
    return {"noise": sampler.noise} | {k: asdict(getattr(sampler, k)) for k in names}


def gathered(f, comm):
    """Vertices, cells and values of a density on all ranks, on rank 0."""
    space = f.function_space
    mesh, degree = space.mesh, space.element.basix_element.degree
    d = mesh.topology.dim
    corners = d + 1  # come first among the nodes of an element
    dofs = space.dofmap.list[: mesh.topology.index_map(d).size_local, :corners]
    x = space.tabulate_dof_coordinates()[dofs, :d]
    parts = comm.gather((x, f.x.array[dofs]))
    assert degree in (1, 2)
    return None if parts is None else [np.concatenate(part) for part in zip(*parts, strict=True)]


def draw(labs: list[fpc.score.Comparison], options: Options) -> None:
    """Above the line, below the plane: data, SDE, ODE. Collective."""
    comm = MPI.COMM_WORLD
    fields = [[gathered(f, comm) for f in (lab.data, *(s.density for s in lab))] for lab in labs]
    if comm.rank:
        return
    figure, axes = plt.subplots(2, 3, figsize=(10.0, 6.2), layout="constrained")
    titles = ["data", *(f"{NAMES[s.noise]} of the score" for s in labs[0])]
    top = 1.08 * max(values.max() for _, values in fields[0])
    x0, data = fields[0][0]
    for ax, title, (x, values), s in zip(axes[0], titles, fields[0], [None, *labs[0]], strict=True):
        for pair, color, width in (((x0, data), "0.75", 3.0), ((x, values), "#0072b2", 1.2)):
            order = np.argsort(pair[0].ravel())
            ax.plot(pair[0].ravel()[order], pair[1].ravel()[order], color=color, lw=width)
        ax.set(title=title, xlim=(-3.0, 3.0), ylim=(0.0, top))
        caption(ax, s)
    top = max(values.max() for _, values in fields[1])
    for ax, (x, values), s in zip(axes[1], fields[1], [None, *labs[1]], strict=True):
        points, cells = x.reshape(-1, 2), np.arange(x[..., 0].size).reshape(-1, 3)
        grid = Triangulation(*points.T, cells)
        image = ax.tripcolor(grid, values.ravel(), shading="gouraud", vmin=0.0, vmax=top)
        ax.set(
            aspect="equal", xlim=(-3.0, 3.0), ylim=(-3.0, 3.0), xticks=(-2, 0, 2), yticks=(-2, 0, 2)
        )
        caption(ax, s)
    figure.colorbar(image, ax=axes[1], shrink=0.85, label="density")
    if options.quick:
        figure.suptitle("smoke test (--quick): coarse meshes")
    options.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out / "score_ode_sde.png", dpi=150)
    plt.close(figure)


def caption(ax, sampler: fpc.score.Sampler | None) -> None:
    """Distances to the data below a picture."""
    if sampler is not None:
        ax.set_xlabel(f"L2 {sampler.l2}\nW2 {sampler.wasserstein}")


if __name__ == "__main__":
    launch(lambda: main(tyro.cli(Options, console_outputs=MPI.COMM_WORLD.rank == 0)))
