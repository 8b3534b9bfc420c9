"""What bench_tracking.py runs: targets, domains and rows. One more is one entry more."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from mpi4py import MPI

import numpy as np
from dolfinx.mesh import Mesh

import fpcontrol as fpc
from fpcontrol.parallel.errors import reduced

MESHES = Path(__file__).parents[1] / "meshes"
Shape = Callable[[np.ndarray], np.ndarray]


def _gaussian(*centre: float) -> Shape:
    """A bump of the width of those of the demo, in coordinates of the unit box."""

    def f(x: np.ndarray) -> np.ndarray:
        distance = sum((x[i] - c) ** 2 for i, c in enumerate(centre[: len(x)]))
        return np.exp(-distance / 0.02)

    return f


def _bumps(*centres: tuple[float, ...]) -> Shape:
    return lambda x: 0.2 + 3.0 * sum(_gaussian(*c)(x) for c in centres)


def _radius(x: np.ndarray) -> np.ndarray:
    return np.sqrt(((x - 0.5) ** 2).sum(axis=0))


# Densities on the unit box, not normalized, of points (d, N).
TARGETS: dict[str, Shape] = {
    "one bump": _bumps((0.3, 0.3, 0.3)),
    "two bumps": _bumps((0.3, 0.3, 0.3), (0.7, 0.7, 0.7)),
    "four bumps": _bumps((0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75)),
    "ring": lambda x: 0.2 + 3.0 * np.exp(-((_radius(x) - 0.3) ** 2) / 0.005),
    "kink": lambda x: 0.2 + 3.0 * np.maximum(1.0 - 4.0 * _radius(x), 0.0),
    "jump": lambda x: 0.5 + 1.5 * (np.abs(x - 0.5).max(axis=0) < 0.25),
}
POINTS = "points"  # 60 random points, smoothed by the domain's own heat flow


def _rectangle(comm: MPI.Comm, cells: int) -> Mesh:
    return fpc.mesh.rectangle(comm, (cells, cells))


def _file(name: str) -> Callable[[MPI.Comm, int], Mesh]:
    return lambda comm, cells: fpc.mesh.read(MESHES / f"{name}.xdmf", comm)


def _island(comm: MPI.Comm, cells: int) -> Mesh:
    name = "great_britain" if cells > 16 else "great_britain_coarse"
    return fpc.mesh.read(MESHES / f"{name}.xdmf", comm)


# Meshes; disk and L-shape have one size, and are searched on by Galerkin's method as they are.
DOMAINS: dict[str, Callable[[MPI.Comm, int], Mesh]] = {
    "interval": lambda comm, cells: fpc.mesh.interval(comm, 2 * cells),
    "square": _rectangle,
    "disk": _file("disk"),
    "L-shape": _file("l_shape"),
    "Great Britain": _island,
    "box": lambda comm, cells: fpc.mesh.box(comm, (cells // 3,) * 3),
}


@dataclass(frozen=True)
class Case:
    """One optimization.

    Attributes:
        target, domain: Of the tables above; Great Britain's target is its population.
        width: Neurons; the dimension if 0.
        pieces: Of time.
        sigma: Noise, with half the longest side of the domain's box as the unit of length.
        seed: Of all that is random.
        seconds: Budget.
        evaluations: Another, which does not depend on the machine: values with derivatives.
        method: "steer"; "lmvm" from random weights; from steep random weights "lmvm steep", "steep"
            (Gauss-Newton) and "linear" (the same, weights linear in time); "ode" (sigma = 0, along
            characteristics, "lmvm steep").
        cells: Along a side, where the mesh is made.
        activation: Of the network.
    """

    target: str = "two bumps"
    domain: str = "square"
    width: int = 0
    pieces: int = 80
    sigma: float = 0.1**0.5
    seed: int = 0
    seconds: float = 40.0
    evaluations: int | None = None
    method: str = "steer"
    cells: int = 32
    activation: str = "tanh"

    @property
    def name(self) -> str:
        """Name of its files."""
        parts = (self.target, self.domain, self.width, self.pieces, f"{self.sigma:.3g}", self.seed)
        other = () if self.activation == "tanh" else (self.activation,)
        return "-".join(str(p) for p in (*parts, self.method, *other)).replace(" ", "_")

    def reference(self, comm: MPI.Comm, cells: int) -> fpc.MoserFlow:
        """From uniform to the target, on cells so large."""
        mesh = DOMAINS[self.domain](comm, cells)
        d = mesh.geometry.dim
        x = mesh.geometry.x[:, :d]
        low = reduced(comm, x.min(axis=0, initial=np.inf), MPI.MIN)
        size = float((reduced(comm, x.max(axis=0, initial=-np.inf), MPI.MAX) - low).max())
        start = fpc.density.uniform(mesh, degree=1)
        if self.domain == "Great Britain":
            data = MESHES / "data" / "great_britain_places.csv"
            projection = MESHES / "great_britain.json"
            where, people = fpc.io.read_points(
                data, comm, masses="population", projection=projection
            )
            goal = fpc.density.from_points(mesh, where, people, bandwidth=30.0, degree=1, floor=0.1)
            return fpc.MoserFlow(start, goal, 1.0, 300.0 * self.sigma)
        if self.target == POINTS:
            where = low + size * np.random.default_rng(5).uniform(0.15, 0.85, (60, d)) ** 1.3
            goal = fpc.density.from_points(mesh, where, bandwidth=0.08 * size, degree=1, floor=0.1)
        else:
            shape = TARGETS[self.target]
            goal = fpc.density.interpolate(
                mesh, lambda y: shape((y[:d] - low[:, None]) / size), degree=1
            )
        return fpc.MoserFlow(start, goal, 1.0, self.sigma * size)


@dataclass(frozen=True)
class Table:
    """Rows that are compared with one another.

    Attributes:
        cases: One a row, each for all seeds.
        seeds: How many.
    """

    cases: tuple[Case, ...]
    seeds: int = 3
    note: str = ""
    runs: tuple[Case, ...] = field(init=False)

    def __post_init__(self) -> None:
        runs = tuple(replace(c, seed=s) for c in self.cases for s in range(self.seeds))
        object.__setattr__(self, "runs", runs)


PIECES = {20: 15.0, 40: 20.0, 80: 40.0, 160: 60.0, 320: 100.0, 640: 180.0}
TABLES = {
    "targets": Table(tuple(Case(t) for t in (*TARGETS, POINTS))),
    "pieces": Table(tuple(Case(pieces=n, seconds=s) for n, s in PIECES.items())),
    "widths": Table(tuple(Case(width=w, pieces=160 // w) for w in (2, 4, 8, 16))),
    "noise": Table(
        (
            Case(sigma=0.0, method="ode", seconds=600.0, evaluations=60),
            *(Case(sigma=s) for s in (0.1, 0.2, 0.1**0.5, 0.5, 1.0)),
        )
    ),
    "methods": Table(
        tuple(Case(method=m) for m in ("steer", "steep", "lmvm", "lmvm steep", "linear"))
    ),
    "activations": Table(
        tuple(Case(activation=a) for a in ("tanh", "sin", "sigmoid", "softplus", "relu"))
    ),
    "domains": Table(
        (
            Case(domain="interval", pieces=40, seconds=15.0),
            Case(domain="disk"),
            Case(domain="L-shape"),
            Case(domain="box", seconds=60.0),
        ),
        seeds=1,
    ),
    "many pieces": Table(
        (
            Case(pieces=1280, seconds=800.0),
            Case(pieces=1280, seconds=800.0, activation="sin"),
            Case("ring", pieces=640, seconds=300.0, activation="sin"),
            Case("four bumps", pieces=640, seconds=300.0, activation="sin"),
            Case("population", "Great Britain", pieces=400, seconds=800.0, activation="sin"),
        ),
        seeds=1,
        note="on request: --tables 'many pieces'",
    ),
}
USUAL = tuple(name for name in TABLES if name != "many pieces")
