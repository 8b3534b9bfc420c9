"""Particles: their cost a step, their agreement with densities, their weak orders at a wall.

    python benchmarks/bench_particles.py [--quick] [--out DIR]

Costs are processor seconds of one rank for a particle and a step, on meshes, beside a loop in numpy
that looks for the cells of the same particles by dolfinx and puts those outside back to where they
were, and on a box beside loops that need no mesh (reflected by folding), in numpy and, where it is
installed, in JAX. Agreement: uniform
particles that reflected noise has stirred, in 24 regions, for several seeds; their standard scores
shall be those of a normal law. Orders: the mean distance from a wall that a drift pushes to, whose
stationary law is known, with lines fitted through the errors.
"""

import time
from collections.abc import Callable
from importlib.util import find_spec
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


def folded_by_jax(x: np.ndarray, spread: float, steps: int, precision: str) -> float:
    """The same in one compiled loop of JAX; microseconds of a particle and a step."""
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", precision == "float64")

    @jax.jit
    def run(x: Any, key: Any) -> Any:
        def step(k: int, x: Any) -> Any:
            noise = jax.random.normal(jax.random.fold_in(key, k), x.shape, x.dtype)
            return jnp.abs((x + spread * noise + 1.0) % 2.0 - 1.0)

        return jax.lax.fori_loop(0, steps, step, x)

    start, key = jnp.asarray(x, dtype=precision), jax.random.key(0)
    run(start, key).block_until_ready()  # compiles
    seconds = seconds_of(lambda: run(start, key).block_until_ready())
    return 1e6 * seconds / steps / len(x)


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
        for precision in ("float64", "float32") if find_spec("jax") else ():
            row[f"JAX, folded, {precision}"] = folded_by_jax(x, spread, 20, precision)
    return row


def agreement(n: int, steps: int, seeds: int) -> list[dict[str, Any]]:
    """Uniform particles after they were stirred, against the uniform density in 24 regions.

    Chi-square and its p-value are of the first seed; ``normal`` is the p-value of Kolmogorov and
    Smirnov's test of the scores of all seeds.
    """
    rows = []
    for name, make in DOMAINS.items():
        mesh = make()
        uniform = fpc.density.uniform(mesh, degree=1)
        found, outside, reflections = [], 0, 0.0
        for seed in range(seeds):
            x = particles.draw(uniform, n, seed=seed)
            extent = float(np.ptp(mesh.geometry.x[:, : x.shape[1]], axis=0).max())
            still = fpc.drift.zero()
            swarm = particles.simulate(mesh, still, x, 0.3 * extent, 0.5, steps, seed=100 + seed)
            found.append(particles.compare(swarm.points, uniform, 24))
            shares = swarm.domain.cells.shares(swarm.domain.number[swarm.cells], swarm.points)
            outside += int((shares.min(axis=1) < -1e-9).sum())
            reflections += float(swarm.collisions.mean()) / seeds
        z = np.concatenate([one.z for one in found])
        rows.append(
            {
                "domain": name,
                "particles": found[0].count,
                "reflections of each": reflections,
                "largest |z|": float(np.abs(z).max()),
                "chi-square": found[0].chi_square,
                "p": found[0].p_value,
                "p of all seeds": [one.p_value for one in found],
                "standard deviation of z": float(z.std()),
                "normal": float(stats.kstest(z, "norm").pvalue),
                "outside": outside,
                "z": z.reshape(seeds, -1).tolist(),
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


def slopes(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Lines through the logarithms of the errors at the three shortest steps.

    Weighted by their statistical errors, of which the slope's own standard error is made.
    """
    found, rows = [], rows[-3:]
    dt, error = (np.array([row[key] for row in rows]) for key in ("dt", "standard error"))
    for scheme in ("EulerMaruyama", "Heun", "clipped"):
        e = np.abs([row[scheme] for row in rows])
        line, covariance = np.polyfit(np.log(dt), np.log(e), 1, w=e / error, cov="unscaled")
        row = {"scheme": scheme, "slope": float(line[0])}
        found.append(row | {"standard error": float(covariance[0, 0] ** 0.5)})
    return found


def main() -> None:
    """Run, print, write."""
    parser = results.arguments(__doc__, "particles", "a fiftieth of the particles")
    options = parser.parse_args()
    n, steps, counts, seeds = 1_000_000, 100, (4, 8, 16, 32, 64), 5
    if options.quick:
        n, steps, counts, seeds = 20_000, 20, (4, 8, 16), 2
    errors = orders(n, counts)
    tables = {
        "costs": [cost(name, n // 5, steps) for name in DOMAINS],
        "agreement": agreement(n, steps, seeds),
        "orders": errors,
        "slopes": slopes(errors),
    }
    if COMM.rank == 0:
        for name, rows in tables.items():
            keys = [k for k in dict.fromkeys(key for row in rows for key in row) if k != "z"]
            print(f"\n{name}\n" + " | ".join(keys))
            for row in rows:
                cells = (row.get(key, "") for key in keys)
                print(" | ".join(f"{c:.4g}" if isinstance(c, float) else str(c) for c in cells))
    result = {"environment": timing.environment(COMM), "tables": tables}
    results.save(options.out, "particles", result, COMM)


if __name__ == "__main__":
    main()
