# %% [markdown]
# # The people of Great Britain, moved by two neurons
#
# A density on Great Britain starts uniform (or where the airfields are) and is to follow a straight
# line in L2 to where the people live. It obeys the Fokker-Planck equation
# $$\partial_t\rho = \nabla\cdot(D\nabla\rho - v\rho),\qquad (D\nabla\rho - v\rho)\cdot n = 0$$
# on the island, with the drift of a network of width 2,
# $v = s\,W(t)\sin(A(t)y + b(t))$, whose ten weights are constant on each of 100 pieces of time.
# Neurons are chosen by what the adjoint asks for, weights by Gauss-Newton steps over all pieces.
#
# About two minutes on two ranks:
#
#     mpirun -n 2 python -m mpi4py demos/demo_great_britain.py
#
# Any island: make its mesh with `meshes/coast.py` and name it, with a table of points, in the
# options. Its results are named after its mesh.

# %%
import json
import math
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from mpi4py import MPI

import tyro

import fpcontrol as fpc
from fpcontrol.parallel.launch import launch
from fpcontrol.parallel.progress import log_rank0

MESHES = Path(__file__).parent.parent / "meshes"
SMOKE_TEST = "--quick is a smoke test: it shows that the demo runs, not what control can do"


@dataclass
class Options:
    """Steer a density on Great Britain from uniform to its population."""

    start: Literal["uniform", "airfields"] = "uniform"
    """Where the density starts."""
    budget: float = 90.0
    """Seconds for the optimization."""
    pieces: int = 100
    """Intervals of time on which the weights are constant."""
    width: int = 2
    """Number of neurons."""
    activation: str = "sin"
    """sin, tanh, sigmoid, softplus or relu."""
    diffusivity: float = 0.05
    """D = sigma**2 / 2 in length**2 per unit of time."""
    length: float | None = None
    """Unit of length of the diffusivity, in the mesh's unit; unless given the radius of the disk of
    the island's area, rounded to one digit: 300 km for Great Britain."""
    bandwidth: float | None = None
    """Smoothing of the points, in the mesh's unit; a tenth of the length unless given."""
    floor: float = 0.1
    """Fraction of the mass that is spread evenly in both densities."""
    method: Literal["limited", "monotone", "galerkin"] = "limited"
    """Method in space: the first two never make a density negative."""
    max_speed: float | None = None
    """Bound of the drift, in the mesh's unit per unit of time; none unless given."""
    particles: int = 0
    """Number of particles that the control found moves, to be compared with its density."""
    seed: int = 0
    """Seed of all that is random."""
    searches: int = 1
    """Searches from as many seeds, side by side on groups of ranks; the best is gone on with."""
    mesh: Path = MESHES / "great_britain.xdmf"
    """Mesh in km, with the .json that `meshes/coast.py` writes beside it."""
    coarse: Path | None = None
    """A coarser one of the same island for the search; unless given that of its name with _coarse
    at the end, if there is one, else the mesh itself."""
    places: Path | None = None
    """Table of the goal: longitude, latitude, population; for Great Britain its own."""
    airfields: Path | None = None
    """Table of the start, for `--start airfields`: longitude, latitude; as for `--places`."""
    out: Path = Path("out")
    """Folder of the results."""
    resume: bool = False
    """Go on from the checkpoint in the folder of the results."""
    quick: bool = False
    """A smoke test of 10 pieces and 20 derivatives: it shows that the demo runs, not more."""


# %% [markdown]
# ## Implementation
# The neurons are sought on a coarser mesh, with Galerkin's method, and two steps a piece, which is
# cheaper by far; then all weights are optimized with the method that is reported, on its mesh, and
# four steps a piece. An optimizer makes
# use of the errors of the method that it sees. So the same weights are run on eight steps a piece,
# and on a mesh twice as fine: with the same method, and with elements of degree 2 and a
# scheme that damps, whose minimum says how much of it to believe. No mesh here resolves the
# thinnest layers that hard switching makes at the coast.


# %%
def completed(options: Options) -> dict[str, str]:
    """Fill in what depends on the island; return what is drawn: unit and title."""
    path = options.mesh.with_suffix(".json")
    island = json.loads(path.read_text())
    if options.quick:
        options.pieces, options.budget = 10, 1e6
    if options.length is None:
        radius = math.sqrt(island["mesh"]["area"] / math.pi)
        options.length = float(f"{radius:.0e}")
    if options.bandwidth is None:
        options.bandwidth = 0.1 * options.length
    coarse = options.mesh.with_stem(f"{options.mesh.stem}_coarse")
    if options.coarse is None and coarse.exists():
        options.coarse = coarse
    for name in ("places", "airfields"):
        table = MESHES / "data" / f"{options.mesh.stem}_{name}.csv"
        if getattr(options, name) is None and table.exists():
            setattr(options, name, table)
    if options.places is None or (options.start == "airfields" and options.airfields is None):
        missing = "places" if options.places is None else "airfields"
        raise ValueError(f"{options.mesh.stem} has no table of {missing}; name one by --{missing}.")
    return {"unit": island["unit"], "title": SMOKE_TEST if options.quick else ""}


METHODS = {
    "limited": fpc.Limited(),
    "monotone": fpc.Monotone("hybrid"),
    "galerkin": fpc.Galerkin(1),
}


def points(options: Options, table: Path, masses: str | None, mesh):  # type: ignore[no-untyped-def]
    """Density of a table of points."""
    places, weight = fpc.io.read_points(
        table, mesh.comm, masses=masses, projection=options.mesh.with_suffix(".json")
    )
    return fpc.density.from_points(
        mesh,
        places,
        weight,
        bandwidth=options.bandwidth,
        discretization=METHODS[options.method],
        floor=options.floor,
    )


def flow(options: Options, mesh) -> fpc.MoserFlow:  # type: ignore[no-untyped-def]
    """The reference."""
    sigma = (2.0 * options.diffusivity) ** 0.5 * options.length
    method = METHODS[options.method]
    goal = points(options, options.places, "population", mesh)
    if options.start == "uniform":
        start = fpc.density.uniform(mesh, discretization=method)
    else:
        start = points(options, options.airfields, None, mesh)
    return fpc.MoserFlow(start, goal, t1=1.0, sigma=sigma)


def network(options: Options, mesh) -> fpc.NetworkDrift:  # type: ignore[no-untyped-def]
    """Two neurons, unless told otherwise, whose weights switch."""
    return fpc.NetworkDrift(
        mesh,
        options.width,
        options.pieces,
        activation=options.activation,
        max_speed=options.max_speed,
    )


SEARCH = 0.7  # share of the budget for searches side by side


def searched(options: Options, comm: MPI.Comm):  # type: ignore[no-untyped-def]
    """The best weights of searches on the coarse mesh, from one seed each."""
    waves = -(-options.searches // min(options.searches, comm.size))

    def search(seed: int, group: MPI.Comm) -> tuple[float, Any]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            mesh = fpc.mesh.read(options.coarse or options.mesh, group)
            cheap = flow(replace(options, method="galerkin"), mesh)
        found = fpc.steer(
            cheap,
            drift=network(options, mesh),
            budget=SEARCH * options.budget / waves,
            max_evaluations=20 if options.quick else None,
            steps=2 * options.pieces,
            seed=seed,
            progress=False,
        )
        return found.relative_error, found.weights

    found = fpc.ensemble.run(search, range(options.seed, options.seed + options.searches))
    log_rank0(f"relative errors of the searches {[round(error, 4) for error, _ in found]}", comm)
    return min(found, key=lambda one: one[0])[1]


def main(options: Options) -> fpc.Result:
    """Optimize, report, draw."""
    comm = MPI.COMM_WORLD
    drawn = completed(options)
    name = options.mesh.stem
    log_rank0(f"{name}: {comm.size} rank(s), D in ({options.length:g} {drawn['unit']})^2", comm)
    mesh = fpc.mesh.read(options.mesh, comm)
    reference = flow(options, mesh)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the same points as above
        coarse = fpc.mesh.read(options.coarse, comm) if options.coarse else mesh
        cheap = flow(replace(options, method="galerkin"), coarse)
    drift = network(options, mesh)
    checkpoint = options.out / f"{name}.npz"
    best = searched(options, comm) if options.searches > 1 and not options.resume else None
    result = fpc.steer(
        reference,
        drift=drift,
        budget=options.budget * (1.0 if best is None else 1.0 - SEARCH),
        weights=best,
        max_evaluations=20 if options.quick else None,
        seed=options.seed,
        coarse=cheap,
        scheme=fpc.Exponential() if options.method == "monotone" else None,
        checkpoint=checkpoint,
        resume=checkpoint if options.resume else None,
    )
    problem, summary = result.problem, result.summary()
    finer = problem.refined(8 * options.pieces)
    figures = {"with 8 steps a piece": finer.errors(result.weights).relative_error}
    if not options.quick:
        method = METHODS[options.method]
        fine = problem.on_refined_mesh(4 * options.pieces, discretization=method)
        figures["finer mesh"] = fine.errors(result.weights).relative_error
        fine = problem.on_refined_mesh(4 * options.pieces, scheme=fpc.SDIRK2())
        figures["finer mesh, degree 2"] = fine.errors(result.weights).relative_error
        lowest = fine.mass_and_minimum(result.weights)[1].min()
        figures["its minimum / mean"] = float(lowest * fine.elements.volume)
    found = None
    if options.particles:
        found = fpc.particles.check(result, options.particles, seed=options.seed)
    if comm.rank == 0:
        print(summary)
        print("\n".join(f"{row:<24}{value:>36.4f}" for row, value in figures.items()))
        if found:
            print(found)

    extra = {"options": options} | figures
    extra |= {"particles": found.figures} if found else {}
    fpc.io.write_record(result, options.out / f"{name}.json", extra)
    fpc.io.write(result.trajectory, options.out / f"{name}.bp", reference=reference, every=4)
    fpc.plotting.tracking(result, options.out / f"{name}.png", **drawn)
    if comm.rank == 0:
        print(f"Written to {options.out}: {name}.png, .json, .bp (ParaView), .npz (resume)")
        print(drawn["title"])
    return result


if __name__ == "__main__":
    launch(lambda: main(tyro.cli(Options, console_outputs=MPI.COMM_WORLD.rank == 0)))
