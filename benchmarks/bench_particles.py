"""Particles: their cost a step, their agreement with densities, their weak orders at a wall.

    python benchmarks/bench_particles.py [--quick] [--out DIR]

Costs are processor seconds of one rank for a particle and a step, on meshes, beside a loop in numpy
that looks for the cells of the same particles by dolfinx and puts those outside back to where they
were, and beside one on a box that needs no mesh (reflected by folding). Agreement: uniform
particles that reflected noise has stirred, in 24 regions. Orders: the mean distance from a wall
that a drift pushes to, whose stationary law is known.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np
import results
import timing
from dolfinx import geometry
from dolfinx.mesh import Mesh
from scipy import stats

import fpcontrol as fpc
from fpcontrol import particles

COMM = MPI.COMM_WORLD
MESHES = Path(__file__).parents[1] / "meshes"


def _file(name: str) -> Callable[[], Mesh]:
    return lambda: fpc.mesh.read(MESHES / f"{name}.xdmf", COMM)


DOMAINS: dict[str, Callable[[], Mesh]] = {
    "disk": _file("disk"),
    "L-shape": _file("l_shape"),
    "Great Britain": _file("great_britain"),
    "box": lambda: fpc.mesh.box(COMM, (8, 8, 8)),
}


def seconds_of(run: Callable[[], Any]) -> float:
    """Processor seconds."""
    begin = time.process_time()
    run()
    return time.process_time() - begin


def searched(mesh: Mesh, x: np.ndarray, spread: float, steps: int) -> None:
    """What one writes by hand: steps in numpy, a search for cells in each of them."""
    d = mesh.topology.dim
    tree, x, rng = geometry.bb_tree(mesh, d, padding=1e-12), x.copy(), np.random.default_rng(0)
    for _ in range(steps):
        y = np.zeros((len(x), 3))
        y[:, :d] = x + spread * rng.standard_normal(x.shape)
        found = geometry.compute_collisions_points(tree, y)
        inside = np.diff(geometry.compute_colliding_cells(mesh, found, y).offsets) > 0
        x[inside] = y[inside, :d]


def folded(x: np.ndarray, spread: float, steps: int) -> None:
    """Reflected noise in the unit box, which needs no mesh."""
    x, rng = x.copy(), np.random.default_rng(0)
    for _ in range(steps):
        x += spread * rng.standard_normal(x.shape)
        np.abs((x + 1.0) % 2.0 - 1.0, out=x)


def cost(name: str, n: int, steps: int) -> dict[str, Any]:
    """Microseconds of a particle and a step, without what a run begins with."""
    mesh = DOMAINS[name]()
    x = particles.draw(fpc.density.uniform(mesh, degree=1), n)
    extent = float(np.ptp(mesh.geometry.x[:, : x.shape[1]], axis=0).max())
    sigma = 0.1 * extent
    spread = sigma * np.sqrt(1e-3)

    def run(drift: Any, count: int) -> float:
        return seconds_of(lambda: particles.simulate(mesh, drift, x, sigma, 1e-3 * count, count))

    row: dict[str, Any] = {"domain": name, "particles": n, "steps": steps}
    network = fpc.NetworkDrift(mesh, pieces=1, activation="sin")
    for kind, drift in (("no drift", fpc.drift.zero()), ("network", network)):
        run(drift, 1)  # compiles
        row[kind] = 1e6 * (run(drift, steps + 1) - run(drift, 1)) / steps / n
    few = x[: n // 10]
    row["numpy and dolfinx"] = 1e6 * seconds_of(lambda: searched(mesh, few, spread, 10)) / 10 / n
    row["numpy and dolfinx"] *= n / len(few)
    if name == "box":
        row["numpy, folded"] = 1e6 * seconds_of(lambda: folded(x, spread, 20)) / 20 / n
    return row


def agreement(n: int, steps: int) -> list[dict[str, Any]]:
    """Uniform particles after they were stirred, against the uniform density in 24 regions."""
    rows = []
    for name, make in DOMAINS.items():
        mesh = make()
        uniform = fpc.density.uniform(mesh, degree=1)
        x = particles.draw(uniform, n)
        extent = float(np.ptp(mesh.geometry.x[:, : x.shape[1]], axis=0).max())
        swarm = particles.simulate(mesh, fpc.drift.zero(), x, 0.3 * extent, 0.5, steps)
        found = particles.compare(swarm.points, uniform, 24)
        shares = swarm.domain.cells.shares(swarm.domain.number[swarm.cells], swarm.points)
        rows.append(
            {
                "domain": name,
                "particles": found.count,
                "reflections of each": float(swarm.collisions.mean()),
                "largest |z|": float(np.abs(found.z).max()),
                "chi-square": found.chi_square,
                "p": found.p_value,
                "outside": int((shares.min(axis=1) < -1e-9).sum()),
            }
        )
    return rows


def orders(n: int, counts: tuple[int, ...]) -> list[dict[str, Any]]:
    """Errors of the mean distance from a wall at 0, by the number of steps.

    The drift -(1 + x) has the stationary law of a Gaussian around -1 cut off at the wall.
    """
    mesh = fpc.mesh.interval(COMM, 40, 0.0, 10.0)
    drift = fpc.drift.Steady(lambda x: -1.0 - x)
    law = stats.truncnorm(2.0**0.5, np.inf, loc=-1.0, scale=0.5**0.5)
    exact, start = law.mean(), law.rvs((n, 1), random_state=0)
    rows = []
    for steps in counts:
        row: dict[str, Any] = {
            "steps": steps,
            "dt": 2.0 / steps,
            "standard error": law.std() / n**0.5,
        }
        for scheme in (particles.EulerMaruyama(), particles.Heun()):
            swarm = particles.simulate(
                mesh, drift, start, 1.0, 2.0, steps, scheme=scheme, seed=steps
            )
            row[type(scheme).__name__] = float(swarm.points.mean()) - exact
        x, rng, dt = start.copy(), np.random.default_rng(steps), 2.0 / steps
        for _ in range(steps):
            x = np.maximum(x - dt * (1.0 + x) + dt**0.5 * rng.standard_normal(x.shape), 0.0)
        row["clipped"] = float(x.mean()) - exact
        rows.append(row)
    return rows


def main() -> None:
    """Run, print, write."""
    parser = results.arguments(__doc__, "particles", "a fiftieth of the particles")
    options = parser.parse_args()
    n, steps, counts = 1_000_000, 100, (4, 8, 16, 32, 64)
    if options.quick:
        n, steps, counts = 20_000, 20, (4, 8)
    tables = {
        "costs": [cost(name, n // 5, steps) for name in DOMAINS],
        "agreement": agreement(n, steps),
        "orders": orders(n, counts),
    }
    if COMM.rank == 0:
        for name, rows in tables.items():
            keys = list(dict.fromkeys(key for row in rows for key in row))
            print(f"\n{name}\n" + " | ".join(keys))
            for row in rows:
                cells = (row.get(key, "") for key in keys)
                print(" | ".join(f"{c:.4g}" if isinstance(c, float) else str(c) for c in cells))
    result = {"environment": timing.environment(COMM), "tables": tables}
    results.save(options.out, "particles", result, COMM)


if __name__ == "__main__":
    main()
