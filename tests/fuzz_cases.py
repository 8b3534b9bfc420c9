"""Random problems, one a seed, and what must hold for each: see ``fuzz.py``.

A case is a function of its seed alone: the same on any number of ranks, and at any time.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np
from dolfinx import fem
from dolfinx.mesh import Mesh
from problems import cube, l_shape
from test_delaunay import arrays, jittered, made

import fpcontrol as fpc
from fpcontrol.parallel.communicators import comm_of

MESHES = Path(__file__).parents[1] / "meshes"
# A negative value of a positive method, over the largest, and a change of mass that are round-off.
NEGATIVE, MASS = 1e-14, 1e-12


class Broken(AssertionError):
    """What must hold does not."""


def sheared(comm: MPI.Comm, n: int) -> Mesh:
    """A parallelogram of obtuse triangles."""
    cells, x = arrays(n)
    return made(comm, cells, x @ np.array([[1.0, 0.0], [1.5, 1.0]]))


MADE: dict[tuple[int, str, int], tuple[Mesh, float, float]] = {}
KINDS: dict[str, Callable[[MPI.Comm, int], Mesh]] = {
    "interval": lambda comm, n: cube(comm, 1, 6 * n),
    "interval in km": lambda comm, n: cube(comm, 1, 4 * n, 500.0, -100.0),
    "square": lambda comm, n: cube(comm, 2, n),
    "square in km": lambda comm, n: cube(comm, 2, n, 300.0),
    "flat": lambda comm, n: fpc.mesh.rectangle(comm, (n, 2), (0.0, 0.0), (1.0, 0.01)),
    "jittered": jittered,
    "flipped": lambda comm, n: fpc.mesh.delaunay(jittered(comm, n)),
    "sheared": sheared,
    "l-shape": lambda comm, n: l_shape(comm, 2 * (n // 2)),
    "box": lambda comm, n: cube(comm, 3, 1 + n // 4),
    "disk": lambda comm, n: fpc.mesh.read(MESHES / "disk.xdmf", comm),
    "circle": lambda comm, n: fpc.mesh.interval(comm, 6 * n, periodic=True),
    "cylinder": lambda comm, n: fpc.mesh.rectangle(comm, (1 + n, n), periodic="x"),
    "torus": lambda comm, n: fpc.mesh.rectangle(comm, (1 + n, 2 + n), periodic="xy"),
}

PERIODIC = ("circle", "cylinder", "torus")
# Seeds below it have no periodic meshes and no Galerkin elements at absorbing walls.
FIRST = 100_000


def mesh_of(comm: MPI.Comm, kind: str, n: int) -> tuple[Mesh, float, float]:
    """A mesh with its extent and the size of its cells, made once."""
    key = comm.py2f(), kind, n
    if key not in MADE:
        MADE[key] = measured(comm, kind, n)
    return MADE[key]


def measured(comm: MPI.Comm, kind: str, n: int) -> tuple[Mesh, float, float]:
    """A mesh with its extent and the size of its cells."""
    mesh = KINDS[kind](comm, n)
    d, x = mesh.topology.dim, mesh.geometry.x[:, : mesh.topology.dim]
    low = np.array([comm.allreduce(v, op=MPI.MIN) for v in x.min(axis=0, initial=np.inf)])
    high = np.array([comm.allreduce(v, op=MPI.MAX) for v in x.max(axis=0, initial=-np.inf)])
    cells = mesh.topology.index_map(d).size_global
    extent = float((high - low).max())
    return mesh, extent, float(np.prod(high - low) / cells) ** (1.0 / d)


def drift_of(rng: np.random.Generator, mesh: Mesh, extent: float, speed: float) -> Any:
    """A drift of about this speed, of some kind, and the number of steps that it wants."""
    d = mesh.topology.dim
    wave, phase = 6.0 * rng.standard_normal((d, d)) / extent, 7.0 * rng.random(d)
    kind = rng.integers(9)
    if kind == 0:
        return fpc.drift.zero(), 1
    if kind == 1:
        direction = rng.standard_normal(d)
        return fpc.drift.Steady(lambda x: np.tile(speed * direction, (len(x), 1))), 1
    if kind == 2:
        return fpc.drift.Steady(lambda x: speed * np.sin(x @ wave + phase)), 1
    if kind == 3:  # into the walls, or away from them
        sign = rng.choice([-1.0, 1.0])
        return fpc.drift.Steady(lambda x: sign * speed * (x / extent - 0.5)), 1
    if kind == 4:
        scale = speed * extent / 3.0
        return fpc.drift.gradient(lambda x: scale * np.sin(x @ wave[0] + phase[0])), 1
    if kind == 5:  # jumps in space
        return fpc.drift.Steady(lambda x: speed * np.sign(np.sin(x @ wave + phase))), 1
    if kind == 6:
        return (lambda t, x: speed * np.sin(x @ wave + phase + 9.0 * t)), 1
    pieces = int(rng.integers(1, 4))
    bound = {"max_speed": speed} if kind == 8 else {}
    network = fpc.NetworkDrift(mesh, int(rng.integers(1, 4)), pieces, seed=1, **bound)
    scale = 8.0 * (speed / extent) ** (1.0 / 2.0)  # W and A by as much, so that it has layers
    return network.with_weights(scale * rng.standard_normal(network.weights.size)), pieces


def start_of(
    rng: np.random.Generator, mesh: Mesh, degree: int, periodic: bool = False
) -> fem.Function:
    """A start: uniform, a bump, half of it zero, or a point mass."""
    kind = rng.integers(4)
    place, cut = rng.random(3), rng.uniform(0.2, 0.8)
    if periodic:  # a vertex on a side is one on two sides
        place = 0.25 + 0.5 * place
    comm, d = comm_of(mesh), mesh.topology.dim
    if kind == 0:
        return fpc.density.uniform(mesh, degree)
    x = mesh.geometry.x[:, :d]
    low = np.array([comm.allreduce(v, op=MPI.MIN) for v in x.min(axis=0, initial=np.inf)])
    high = np.array([comm.allreduce(v, op=MPI.MAX) for v in x.max(axis=0, initial=-np.inf)])

    def scaled(x: np.ndarray) -> np.ndarray:
        return (x[:d].T - low) / (high - low)

    # Of degree 2, what is 1 at a vertex and 0 at all other nodes has no mass, or less.
    ground = 1.0 * (degree > 1)
    if kind == 1:  # narrow to coarse cells
        return fpc.density.interpolate(
            mesh,
            lambda x: ground + np.exp(-20.0 * ((scaled(x) - place[:d]) ** 2).sum(axis=1)),
            degree,
        )
    # At one vertex at least it is not zero.
    vertex = nearest_vertex(mesh, low + place[:d] * (high - low))

    def f(x: np.ndarray) -> np.ndarray:
        there = np.abs(x[:d].T - vertex).max(axis=1) < 1e-9 * (high - low).max()
        return ground + (there | (scaled(x)[:, 0] < cut) if kind == 2 else there)

    return fpc.density.interpolate(mesh, f, degree)


def nearest_vertex(mesh: Mesh, place: np.ndarray) -> np.ndarray:
    """Coordinates of the vertex nearest to a place, on all ranks."""
    x = mesh.geometry.x[:, : mesh.topology.dim]
    far = ((x - place) ** 2).sum(axis=1)
    own = (float(far.min()), *x[int(far.argmin())]) if len(x) else (np.inf,)
    return np.array(min(comm_of(mesh).allgather(own))[1:])


@dataclass
class Case:
    """A problem, made from its seed.

    Attributes:
        words: What it is, for a report.
        positive: Whether its densities must not be negative.
        run: Solves it.
    """

    words: str
    positive: bool
    run: Callable[[], fpc.Trajectory]


def case_of(comm: MPI.Comm, seed: int) -> Case:
    """The case of a seed. Collective."""
    rng = np.random.default_rng(seed)
    kinds = [kind for kind in KINDS if seed >= FIRST or kind not in PERIODIC]
    kind = str(rng.choice(kinds))
    n = int(rng.choice([2, 4, 6]))
    mesh, extent, h = mesh_of(comm, kind, n)
    d = mesh.topology.dim
    flux = str(rng.choice(["bernoulli", "hybrid"]))
    method = [fpc.Monotone(flux), fpc.Limited(flux), fpc.Galerkin(int(rng.integers(1, 4)))][
        int(rng.choice(3, p=[0.45, 0.35, 0.2]))
    ]
    sigma = extent * 10.0 ** rng.uniform(-2.0, 0.5)
    diffusivity = 0.5 * sigma**2
    peclet = 10.0 ** rng.uniform(-3.0, 6.0)
    drift, pieces = drift_of(rng, mesh, extent, 2.0 * diffusivity * peclet / h)
    steps = pieces * int(rng.choice([1, 2, 3]))
    t1 = steps * 10.0 ** rng.uniform(-2.0, 3.0) * h**2 / diffusivity
    scheme: Any = None
    exponential = isinstance(method, fpc.Monotone) and rng.random() < 0.3
    if exponential:
        scheme, t1 = fpc.Exponential(), min(t1, steps * 50.0 / (1.0 + peclet) * h**2 / diffusivity)
    elif isinstance(method, fpc.Galerkin):
        scheme = [fpc.CrankNicolson(), fpc.BackwardEuler(), fpc.SDIRK2()][int(rng.integers(3))]
    if pieces > 1 or isinstance(drift, fpc.NetworkDrift):
        drift = Stretched(drift, t1)
    start = start_of(rng, mesh, method.degree, kind in PERIODIC)
    walls = {}
    if rng.random() < 0.2:
        last = mesh.geometry.x[:, d - 1]
        low = comm.allreduce(last.min(initial=np.inf), op=MPI.MIN)
        reach = (0.5 if kind == "disk" else 1e-9) * extent
        walls = {"absorbing": lambda x: x[d - 1] <= low + reach}
    without = isinstance(method, fpc.Galerkin) and seed < FIRST
    if without or kind in ("circle", "torus"):  # which have no walls
        walls = {}
    solver = str(rng.choice(["auto", "gmres", "direct"], p=[0.7, 0.1, 0.2]))
    if isinstance(method, fpc.Limited) and rng.random() < 0.3:
        scheme = fpc.SDIRK2()
    words = (
        f"{kind} {n} ({d}-D), {method!r}, {'Exponential' if exponential else scheme!r}, "
        f"{type(drift).__name__}, sigma {sigma:.3g}, cell Peclet number {peclet:.2g}, {steps} "
        f"steps to t = {t1:.3g}, {solver}{', absorbing' if walls else ''}"
    )

    def run() -> fpc.Trajectory:
        equation = fpc.FokkerPlanck(
            mesh, drift, sigma, discretization=method, linear_solver=solver, **walls
        )
        return equation.solve(start, t1, steps, scheme=scheme)

    return Case(words, not isinstance(method, fpc.Galerkin), run)


class Stretched(fpc.drift.Drift):
    """A drift on [0, 1] on [0, t1]."""

    def __init__(self, drift: fpc.drift.Drift, t1: float) -> None:
        self.drift, self.t1 = drift, t1

    def __call__(self, t: float, x: np.ndarray) -> np.ndarray:
        return self.drift(min(t / self.t1, 1.0), x)

    @property
    def switches(self) -> np.ndarray:
        return self.t1 * self.drift.switches

    def piece(self, t: float) -> Any:
        return self.drift.piece(min(t / self.t1, 1.0))


def judged(comm: MPI.Comm, seed: int) -> tuple[str, str]:
    """What came of a case, and what it was; ``Broken`` if that must not be. Collective."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if seed % 8 == 7:
            return wrong_call(comm, seed)
        case = case_of(comm, seed)
        try:
            trajectory = case.run()
        except ArithmeticError as error:
            text = str(error)
            if case.positive:
                if "direct" in text and ", gmres" in case.words:
                    return "positive: not solved by what was asked for, with a word", case.words
                raise Broken(f"{case.words}: {text}") from None
            if "blown up" in text:
                for word in ("t = ", "x = ", "Peclet", "Refine" if "should be" in text else "more"):
                    if word not in text:
                        raise Broken(f"{case.words}: no {word!r} in {text}") from None
                return "galerkin: blown up, with a word", case.words
            if "lost its mass" in text and ", absorbing" in case.words and "Refine" in text:
                return "galerkin: lost mass, with a word", case.words
            if "direct" not in text:
                raise Broken(f"{case.words}: no remedy in {text}") from None
            return "galerkin: not solved, with a word", case.words
        except Exception as error:
            raise Broken(f"{case.words}: {type(error).__name__}: {error}") from error
    check(case, trajectory)
    return ("positive: holds" if case.positive else "galerkin: finite, of its mass"), case.words


def check(case: Case, trajectory: fpc.Trajectory) -> None:
    """What must hold for a density that came back. Collective."""
    comm = comm_of(trajectory.space.mesh)
    own = np.abs(trajectory.levels).max(initial=0.0)
    highest = comm.allreduce(float(own), op=MPI.MAX)
    if not np.isfinite(highest) or not np.isfinite(trajectory.minimum).all():
        raise Broken(f"{case.words}: not finite")
    if not trajectory.mass_defect <= MASS:
        raise Broken(f"{case.words}: mass changed by {trajectory.mass_defect:.2g}")
    if case.positive and not trajectory.minimum.min() >= -NEGATIVE * highest:
        low = trajectory.minimum.min()
        raise Broken(f"{case.words}: minimum {low:.3g}, highest {highest:.3g}")
    if trajectory.cell_peclet is None or not np.isfinite(trajectory.cell_peclet).all():
        raise Broken(f"{case.words}: cell Peclet numbers {trajectory.cell_peclet}")


def wrong_call(comm: MPI.Comm, seed: int) -> tuple[str, str]:
    """One bad argument among good ones: a ValueError that names it. Collective."""
    rng = np.random.default_rng(seed)
    mesh, _, _ = mesh_of(comm, str(rng.choice(["interval", "square", "box"])), 2)
    other, _, _ = mesh_of(comm, "square", 6)
    nan, start = float("nan"), fpc.density.uniform(mesh, 1)
    scalar = fpc.density.uniform(other if mesh.topology.dim == 1 else mesh, 1)
    bad: list[tuple[str, Any]] = [
        *(("steps", v) for v in (0, -3, 2.5, "4", None, nan)),
        *(("t1", v) for v in (0.0, -1.0, nan, float("inf"))),
        *(("sigma", v) for v in (0.0, -1.0, nan, "big", None)),
        *(("save", v) for v in ("some", 0, -2, [0.123], nan)),
        *(("scheme", v) for v in (fpc.BackwardEuler, "euler", 3, fpc.Exponential())),
        *(("tolerance", v) for v in (0.0, -1.0, nan)),
        *(("degree", v) for v in (0, 4, -1)),
        *(("discretization", v) for v in ("monotone", 3, fpc.Monotone)),
        *(("linear_solver", v) for v in ("cg", 3)),
        *(("drift", v) for v in (3.0, "wind", scalar, None)),
        *(("drift", v) for v in (lambda t, x: x[:1], lambda t, x: nan * x, lambda t, x: x[:, 0])),
        *(("start", v) for v in (3.0, None, fpc.density.uniform(other, 1))),
        ("start", fpc.density.uniform(mesh, 2)),
        *(("absorbing", v) for v in (lambda x: x[0] > 99.0, 7)),
        *(("max_speed", v) for v in (0.0, -1.0, nan)),
        *(("pieces", v) for v in (0, 1.5)),
        *(("width", v) for v in (0, -1, 2.5)),
        *(("activation", v) for v in ("step", None)),
        *(("bandwidth", v) for v in (0.0, -1.0, nan)),
        *(("floor", v) for v in (-0.1, 1.5, nan)),
    ]
    name, value = bad[int(rng.integers(len(bad)))]
    words = f"{name} = {value!r} on {mesh.topology.dim}-D"
    asked = {name: value}

    def call() -> None:
        if name in ("max_speed", "pieces", "width", "activation"):
            fpc.NetworkDrift(mesh, **asked)
            return
        if name in ("bandwidth", "floor"):
            point = np.full((1, mesh.topology.dim), 0.4)
            fpc.density.from_points(mesh, point, **({"bandwidth": 0.3} | asked))
            return
        own = {"drift": fpc.drift.zero(), "sigma": 0.5}
        if name != "discretization":
            own["degree"] = 1
        run: dict[str, Any] = {"start": start, "t1": 1.0, "steps": 2}
        inner = ("steps", "t1", "save", "scheme", "tolerance", "start")
        (run if name in inner else own).update(asked)
        fpc.FokkerPlanck(mesh, **own).solve(**run)

    try:
        call()
    except ValueError as error:
        if name not in str(error):
            raise Broken(f"{words}: the ValueError does not name it: {error}") from None
        return "wrong call: refused by name", words
    except Exception as error:
        raise Broken(f"{words}: {type(error).__name__}: {error}") from error
    raise Broken(f"{words}: accepted")
