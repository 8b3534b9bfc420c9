"""Methods that keep a density positive, beside Galerkin's: how accurate, how dear.

    python benchmarks/bench_positive.py [--quick] [--out DIR]

- *layers*: on [0, 1] a uniform density is pushed to the right wall and then back, by v = 1 and
  v = -1 for 0.4 each, on 64 cells, by cell Peclet number |v| h / D. Wasserstein-1 distance at the
  end to a mesh 32 times as fine, and the lowest value there was over the mean. An unresolved layer
  has no L2 accuracy, whatever the method.
- *smooth*: on the unit square a drift with v.n = 0 that makes no layers, L2 distance at the end to
  degree 2 on 96 x 96: what positivity costs where nothing is amiss.
- *fplanck* (``make peers``), beside them on as many cells, with the force, reflecting walls and no
  error in time: its distance in *smooth* is that at the middles of its cells.
- *cost*: a forward run, and value and derivative of a tracking problem on the island's mesh, for a
  network whose weights switch: microseconds per degree of freedom and piece, of four steps (of one
  for the exponential), and over Galerkin's.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np
import results
import timing
from dolfinx.mesh import Mesh
from peer_processes import answer

import fpcontrol as fpc
from fpcontrol.stepping.schemes import Scheme

COMM = MPI.COMM_WORLD
ISLAND = Path(__file__).parents[1] / "meshes" / "great_britain.xdmf"
METHODS: dict[str, tuple[Any, Scheme | None]] = {
    "Galerkin P1": (fpc.Galerkin(1), None),
    "Galerkin P2": (fpc.Galerkin(2), None),
    "Limited": (fpc.Limited(), None),
    "Monotone, bernoulli": (fpc.Monotone(), fpc.Exponential()),
    "Monotone, hybrid": (fpc.Monotone("hybrid"), fpc.Exponential()),
}


def end(
    mesh: Mesh,
    drift: Callable[..., Any],
    sigma: float,
    method: Any,
    scheme: Scheme | None,
    t1: float,
    steps: int,
    start: Callable[..., Any] | None = None,
) -> tuple[Any, float]:
    """Density at the end, and its lowest value ever over the mean; nan for what blew up."""
    equation = fpc.FokkerPlanck(mesh, drift, sigma, discretization=method)
    begin = fpc.density.interpolate(
        mesh, start or (lambda x: np.ones_like(x[0])), discretization=method
    )
    try:
        run = equation.solve(begin, t1, steps, scheme=scheme, save="last")
    except ArithmeticError:
        return None, np.nan
    return run[-1], float(run.minimum.min() * equation.elements.volume / run.mass[0])


FPLANCK = "fplanck"


def fplanck(pecs: list[float], what: str, *arguments: Any) -> list[Any]:
    """What fplanck finds at each cell Peclet number; nothing without it, or on several ranks."""
    asked = (f"--{what}", *pecs, *arguments)
    found = answer("fplanck_positive", *asked) if COMM.size == 1 else None
    return found[what] if found else [None for _ in pecs]


def distance_of_cells(density: list[float], truth: Any) -> float:
    """Wasserstein-1 distance of what is constant on equal cells of [0, 1] to a density there."""
    x, u = truth.function_space.tabulate_dof_coordinates()[:, 0], truth.x.array
    order = np.argsort(x)
    x, u = x[order], u[order]
    below = np.concatenate([[0.0], np.cumsum(0.5 * np.diff(x) * (u[1:] + u[:-1]))])
    ends = np.linspace(0.0, 1.0, len(density) + 1)
    other = np.interp(x, ends, np.concatenate([[0.0], np.cumsum(density)]) / len(density))
    return float(np.trapezoid(np.abs(below - other), x))


def distance_at_middles(density: list[list[float]], truth: Any) -> float:
    """L2 distance, at the middles of equal cells, which are nodes of the other density."""
    values, n = np.array(density), len(density)
    x = truth.function_space.tabulate_dof_coordinates()[:, :2] * n - 0.5
    cells = np.rint(x).astype(int)
    there = np.abs(x - cells).max(axis=1) < 1e-9
    i, j = cells[there].T
    assert len(i) == n * n
    return float(np.sqrt(((values[i, j] - truth.x.array[there]) ** 2).mean()))


def push(t: float, x: np.ndarray) -> np.ndarray:
    """To the right wall and back."""
    return np.full_like(x, 1.0 if t < 0.4 else -1.0)


def layers(pecs: list[float], n: int) -> list[dict[str, Any]]:
    """Layers at the walls of an interval."""
    rows = []
    for pe, peer in zip(pecs, fplanck(pecs, "layers", "--cells", n), strict=True):
        sigma = (2.0 / (n * pe)) ** 0.5
        fine = fpc.mesh.interval(COMM, 32 * n)
        truth, _ = end(fine, push, sigma, fpc.Limited(), None, 0.8, 64 * n)
        again, _ = end(fine, push, sigma, fpc.Galerkin(2), fpc.SDIRK2(), 0.8, 64 * n)
        row: dict[str, Any] = {"Peclet": pe}
        row["truth"] = fpc.distances.wasserstein(truth, again, p=1) if again else np.nan
        for name, (method, scheme) in METHODS.items():
            mesh = fpc.mesh.interval(COMM, n // 2 if method.degree == 2 else n)
            found, lowest = end(mesh, push, sigma, method, scheme, 0.8, 200)
            known = found is not None and lowest > -1e-3
            row[f"W1 {name}"] = fpc.distances.wasserstein(found, truth, p=1) if known else np.nan
            row[f"minimum {name}"] = lowest
        known = bool(peer and peer["density"])
        row[f"W1 {FPLANCK}"] = distance_of_cells(peer["density"], truth) if known else np.nan
        row[f"minimum {FPLANCK}"] = peer["minimum"] if known else np.nan
        rows.append(row)
    return rows


def swirl(t: float, x: np.ndarray) -> np.ndarray:
    """No flux through the walls of the unit square, no gradient; at most 1.1 fast."""
    a, b = np.pi * x.T
    turn = np.stack([np.sin(a) * np.cos(b), -np.cos(a) * np.sin(b)])
    return np.asarray((turn + 0.1 * np.stack([np.sin(2 * a), np.sin(2 * b)])).T)


def hill(x: np.ndarray) -> np.ndarray:
    """A smooth start, zero slope at the walls."""
    return 1.0 + 0.5 * np.cos(np.pi * x[0]) * np.cos(np.pi * x[1])


def smooth(pecs: list[float], n: int) -> list[dict[str, Any]]:
    """No layers: n x n cells, half of them along a side for degree 2."""
    rows = []
    for pe, peer in zip(pecs, fplanck(pecs, "smooth", "--side", n), strict=True):
        sigma = (2.0 * 1.1 / (n * pe)) ** 0.5
        fine = fpc.mesh.rectangle(COMM, (96, 96))
        run = partial(end, drift=swirl, sigma=sigma, t1=0.5, start=hill)
        truth, _ = run(fine, method=fpc.Galerkin(2), scheme=None, steps=64)
        row: dict[str, Any] = {"Peclet": pe}
        for name, (method, scheme) in METHODS.items():
            side = n // 2 if method.degree == 2 else n
            mesh = fpc.mesh.rectangle(COMM, (side, side))
            found, _ = run(mesh, method=method, scheme=scheme, steps=40)
            row[name] = fpc.distances.l2(found, truth) if found else np.nan
        row[FPLANCK] = distance_at_middles(peer, truth) if peer else np.nan
        rows.append(row)
    return rows


def cost(refinements: int, pieces: int, repeats: int) -> list[dict[str, Any]]:
    """Microseconds per degree of freedom and piece."""
    rows, mesh = [], fpc.mesh.read(ISLAND, COMM)
    for level in range(refinements + 1):
        mesh = fpc.mesh.refine(mesh) if level else mesh
        runs: dict[str, Callable[[], Any]] = {}
        choices: dict[str, tuple[Any, Scheme | None, int]] = {
            "Galerkin P1": (fpc.Galerkin(1), None, 4),
            "Limited": (fpc.Limited(), None, 4),
            "Monotone, backward Euler": (fpc.Monotone("hybrid"), fpc.BackwardEuler(), 4),
            "Monotone, exponential": (fpc.Monotone("hybrid"), fpc.Exponential(), 1),
        }
        for name, (method, scheme, steps) in choices.items():
            start = fpc.density.uniform(mesh, discretization=method)
            reference = fpc.MoserFlow(start, start, 0.01 * pieces, 95.0)
            drift = fpc.NetworkDrift(mesh, 2, pieces, t1=0.01 * pieces, seed=0)
            problem = fpc.TrackingProblem(reference, drift, 95.0, steps * pieces, scheme=scheme)
            weights = 4.0 * drift.weights  # about as fast as what an optimizer finds
            runs[f"{name}, forward"] = partial(fresh, problem, weights, derivative=False)
            runs[f"{name}, derivative"] = partial(fresh, problem, weights, derivative=True)
        times = timing.interleaved(COMM, runs, repeats)
        per = 1e6 / (problem.elements.index_map.size_global * pieces)
        for name in choices:
            row: dict[str, Any] = {"dofs": problem.elements.index_map.size_global, "method": name}
            for what in ("forward", "derivative"):
                mine, base = times[f"{name}, {what}"], times[f"Galerkin P1, {what}"]
                row[f"{what} us/dof/piece"] = min(mine) * per
                row[f"{what} / Galerkin"] = float(
                    np.median([a / b for a, b in zip(mine, base, strict=True)])
                )
            rows.append(row)
    return rows


COUNT = 0


def fresh(problem: fpc.TrackingProblem, weights: np.ndarray, derivative: bool) -> None:
    """A run that nothing is remembered of."""
    global COUNT
    COUNT += 1
    weights = weights * (1.0 + 1e-9 * COUNT)
    problem.derivative(weights) if derivative else problem(weights)


def main() -> None:
    """Measure, print, write, draw."""
    parser = results.arguments(__doc__, "positive", "two Peclet numbers, small meshes: seconds")
    options = parser.parse_args()
    if options.quick:
        tables = {
            "layers": layers([1.0, 10.0], 16),
            "smooth": smooth([0.1, 10.0], 16),
            "cost": cost(0, 3, 1),
        }
    else:
        tables = {
            "layers": layers([0.1, 1.0, 4.0, 10.0, 100.0], 64),
            "smooth": smooth([0.1, 1.0, 10.0, 100.0], 32),
            "cost": cost(1, 10, 3),
        }
    result = {"environment": timing.environment(COMM), "tables": tables}
    if COMM.rank == 0:
        titles = {
            "layers": "Pushed to a wall and back: W1 distance, lowest value over the mean",
            "smooth": "No layers: L2 distance at the end",
            "cost": "Cost, network drift on the island",
        }
        for name, rows in tables.items():
            print(timing.table(titles[name], rows))
    results.save(options.out, "positive", result, COMM)


if __name__ == "__main__":
    main()
