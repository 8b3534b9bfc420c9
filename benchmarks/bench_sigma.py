"""How the advantage of noise depends on sigma, and how it ends as sigma goes to zero.

    python benchmarks/bench_sigma.py [--quick] [--out DIR]

Two drifts, v and v + dv; both densities start uniform on [0, 1], v = 0. With noise the L2 distance
w of the densities is at most C ||dv|| (norms over space and time), and C depends on how dv moves:

- C = 1/sigma is what all dv allow, up to a factor that does not depend on sigma. A dv that grows
  towards the last time, exp(-D k**2 (T - t)) sin(kx), comes as close as one likes; a steady dv to
  0.902512/sigma, at the wavenumber k* = (1.256 / (D T))**0.5.
- C = 2/(sigma**2 k) at a fixed high wavenumber k, where dv = (a/k) sin(kx) leaves an L2 error of
  2**0.5 a / (sigma k)**2.
- At sigma_c ~ a**0.5 / k that dv leaves half of the L2 error there is without noise,
  (cosh(a T) - 1)**0.5 for every k, and below it more and more: noise is of ever less advantage
  there, whatever the theorem promises. (sigma_c k / a**0.5 is 1.02 at a T = 2, as here, and another
  number for another a T.)

With noise by the Galerkin solver, without by characteristics; every figure at two resolutions.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

from mpi4py import MPI

import numpy as np
import results
import timing
from scipy.optimize import brentq

from fpcontrol.characteristics.flow import Markers, carry
from fpcontrol.discretization.elements import Elements
from fpcontrol.drift import Steady
from fpcontrol.mesh import interval
from fpcontrol.stepping.schemes import SDIRK4
from fpcontrol.theorems.closed_forms import cosine
from fpcontrol.theorems.framework.resolution import Grid, measure, solve
from fpcontrol.trajectory import Trajectory
from fpcontrol.typing import VectorField

COMM = MPI.COMM_WORLD
A, T = 2.0, 1.0
SMALL = 1e-3  # amplitude, times sigma, in the linear regime: what is of third order is 1e-6 of w
STEADY_DECAY = 1.2564312  # D k**2 T at which a steady drift costs most: (1 + 2 z) exp(-z) = 1


def deviation(run: Trajectory) -> float:
    """Largest L2 distance to the uniform density over time. Collective."""
    g = Elements(run.space)
    return max(g.norm(level - 1.0) for level in run.levels)


def solved(drift: VectorField, sigma: float, m: int, grid: Grid) -> Trajectory:
    """From the uniform density, with ``m`` times the grid's cells. Collective."""
    mesh = interval(COMM, grid.cells * m)
    return solve(mesh, drift, sigma, lambda x: np.ones_like(x[0]), T, grid, scheme=SDIRK4())


def uniform(x: np.ndarray) -> np.ndarray:
    return np.ones(len(x))


# -- small differences: the constant ---------------------------------------------------------------


def growing(sigma: float, m: int, grid: Grid) -> float:
    """``||w(T)|| / ||dv||`` for dv = exp(-D k**2 (T - t)) sin(kx), k = pi m."""
    k = np.pi * m
    decay = 0.5 * sigma**2 * k**2

    def drift(t: float, x: np.ndarray) -> np.ndarray:
        return SMALL * sigma * math.exp(-decay * (T - t)) * np.sin(k * x)

    run = solved(drift, sigma, m, grid)
    size = SMALL * sigma * math.sqrt(0.5 * -math.expm1(-2.0 * decay * T) / (2.0 * decay))
    return deviation(run) / size


def steady(sigma: float, m: int, grid: Grid) -> float:
    """``||w(T)|| / ||dv||`` for dv = sin(kx), k = pi m."""
    k = np.pi * m
    drift = Steady(lambda x: SMALL * sigma * np.sin(k * x))
    run = solved(drift, sigma, m, grid)
    return deviation(run) / (SMALL * sigma * math.sqrt(0.5 * T))


def constants(sigmas: Sequence[float]) -> list[dict[str, Any]]:
    """sigma C for both drifts, at the wavenumber on [0, 1] that is nearest to the worst."""
    rows = []
    for sigma in sigmas:
        d = 0.5 * sigma**2
        m = max(1, round(math.sqrt(STEADY_DECAY / (d * T)) / np.pi))
        z = d * (np.pi * m) ** 2 * T
        fast = max(1, math.ceil(math.sqrt(4.0 / (d * T)) / np.pi))
        grid = Grid(8, 16, degree=3)
        constant = measure(partial(steady, sigma, m), grid)
        moving = measure(partial(growing, sigma, fast), grid)
        rows.append(
            {
                "sigma": sigma,
                "k/pi steady": m,
                "sigma C steady": float(sigma * constant),
                "closed form": math.sqrt(2.0 / z) * -math.expm1(-z),
                "error": float(sigma * constant.error),
                "k/pi growing": fast,
                "sigma C growing": float(sigma * moving),
                "closed form ": math.sqrt(-math.expm1(-2.0 * d * (np.pi * fast) ** 2 * T)),
                "error ": float(sigma * moving.error),
            }
        )
    return rows


# -- one drift for all sigma -----------------------------------------------------------------------


def with_noise(sigma: float, m: int, grid: Grid) -> float:
    """Largest L2 distance to the uniform density over time, dv = (a/k) sin(kx), k = 2 pi m."""
    k = 2.0 * np.pi * m
    drift = Steady(lambda x: A / k * np.sin(k * x))
    return deviation(solved(drift, sigma, m, grid))


def without_noise(m: int, cells: int) -> float:
    """The same for sigma = 0, along characteristics."""
    k = 2.0 * np.pi * m
    markers = Markers.on_interval(COMM, cells * m, uniform)
    flow = carry(
        markers,
        lambda t, x: A / k * np.sin(k * x),
        np.linspace(0.0, T, 9),
        divergence=lambda t, x: A * np.cos(k * x[:, 0]),
        rtol=1e-10,
        atol=1e-10,
    )
    # The uniform density is the mean of the other: ||rho - 1||**2 = ||rho||**2 - 1.
    return float(np.sqrt((flow.norms**2 - 1.0).max()))


def regimes(sigmas: Sequence[float], frequencies: Sequence[int]) -> list[dict[str, Any]]:
    """The L2 error of one drift over sigma, beside closed form, asymptote and no noise."""
    rows = []
    for m in frequencies:
        k = 2.0 * np.pi * m
        few, flat = (without_noise(m, cells) for cells in (16, 32))
        seconds = timing.seconds(COMM, partial(without_noise, m, 32))
        rows.append(row(0.0, k, m, flat, abs(flat - few), flat, seconds))
        for sigma in sigmas:
            # The density peaks over layers of width (D/a)**0.5, and relaxes within 1/(D k**2).
            layer = k * math.sqrt(0.5 * sigma**2 / A)
            cells = int(np.clip(24.0 / layer, 24, 96))
            run = partial(with_noise, sigma, m)
            found = measure(run, Grid(cells, 16, degree=3))
            seconds = timing.seconds(COMM, partial(run, Grid(cells, 16, degree=3)))
            rows.append(row(sigma, k, m, float(found), float(found.error), flat, seconds))
    return rows


def row(
    sigma: float, k: float, m: int, error: float, gap: float, flat: float, seconds: float
) -> dict[str, Any]:
    kappa = 0.5 * sigma**2 * k**2 / A
    exact = cosine.sup_l2(kappa, A * T)
    return {
        "k/2pi": m,
        "sigma": sigma,
        "kappa": kappa,
        "L2 error": error,
        "error": gap,
        "closed form": exact,
        "off": abs(error / exact - 1.0),
        "over asymptote": error * math.sqrt(2.0) * kappa if sigma else math.nan,
        "of sigma=0": error / flat,
        "C": error / (A / k * math.sqrt(0.5 * T)),
        "noise": says(error / flat, kappa),
        "seconds": seconds,
    }


def says(ratio: float, kappa: float) -> str:
    """In a word what noise is good for here."""
    if kappa == 0.0:
        return "none"
    return "no contrast" if ratio > 0.9 else "helps" if ratio > 0.1 else "decides"


def halved(frequencies: Sequence[int]) -> list[dict[str, Any]]:
    """The sigma that halves the error there is without noise."""
    rows = []
    for m in frequencies:
        k = 2.0 * np.pi * m
        exact = math.sqrt(2.0 * A * cosine.half_kappa(A * T)) / k
        half = 0.5 * without_noise(m, 32)

        def excess(sigma: float, m: int = m, half: float = half) -> float:
            return with_noise(sigma, m, Grid(32, 32, degree=3)) - half

        found = brentq(excess, 0.5 * exact, 2.0 * exact, xtol=1e-7 * exact)
        rows.append(
            {
                "k/2pi": m,
                "sigma_c": found,
                "closed form": exact,
                "off": abs(found / exact - 1.0),
                "sigma_c k / sqrt(a)": found * k / math.sqrt(A),
            }
        )
    return rows


def main() -> None:
    """Measure, print, write, draw."""
    parser = results.arguments(__doc__, "sigma", "few sigmas and wavenumbers: seconds")
    options = parser.parse_args()
    if options.quick:
        sigmas, frequencies, few = (0.5, 0.1, 0.02), (1, 4), (0.5, 0.1)
    else:
        sigmas = tuple(np.round(np.geomspace(1.0, 0.01, 9), 4))
        frequencies, few = (1, 4, 16), (0.4, 0.2, 0.1, 0.05, 0.02, 0.01)

    tables = {
        "constants": constants(few),
        "regimes": regimes(sigmas, frequencies),
        "halved": halved(frequencies),
    }
    result = {
        "environment": timing.environment(COMM),
        "settings": {"a": A, "T": T, "degree": 3, "scheme": "SDIRK4"},
        "tables": {
            name: [{k.strip(): v for k, v in r.items()} for r in rows]
            for name, rows in tables.items()
        },
    }
    if COMM.rank == 0:
        print(f"{COMM.size} rank(s), {result['settings']}")
        print(timing.table("sigma C = sigma ||w|| / ||dv|| for small dv", tables["constants"]))
        print(timing.table("dv = (a/k) sin(kx); sigma = 0 by characteristics", tables["regimes"]))
        print(timing.table("The sigma that halves the error", tables["halved"]))
    results.save(options.out, "sigma", result, COMM)


if __name__ == "__main__":
    main()
