"""fplanck on the problems of bench_positive.py; prints JSON. Runs in an environment of its own.

    .venv-peers/bin/python benchmarks/peers/fplanck_positive_steps.py --layers 1 10 --smooth 1 10

It is given the force, which may be no gradient; walls reflect. One product with the exponential of
its matrix leads from a time to the next: no error in time. Its rates grow as exp(P/2) with the cell
Peclet number P: where they are beyond ``MOST`` for the time of the run, it is left out.
"""

import argparse
import json
from importlib import metadata

import numpy as np
import scipy.constants
from fplanck.solver import FokkerPlanck

# Rate times time; products with the matrix are of this number.
MOST = 1e6


def solver(cells: tuple[int, ...], sigma: float, force: object) -> FokkerPlanck:
    """On the unit interval or square, whose middle it has at the origin."""
    return FokkerPlanck(
        temperature=0.5 * sigma**2 / scipy.constants.k,
        drag=1.0,
        extent=np.ones(len(cells)),
        resolution=1.0 / np.array(cells),
        force=force,
    )


def carried(found: FokkerPlanck, p: np.ndarray, t: float) -> np.ndarray | None:
    """Masses of the cells after a time; None if the rates are too large."""
    if p is None or np.abs(found.master_matrix.diagonal()).max() * t > MOST:
        return None
    return found.propagate(lambda *x: p, t, normalize=False)


def layers(peclet: float, n: int) -> dict[str, object]:
    """Pushed to the right wall and back: density at the end, and its lowest value ever."""
    sigma, p, lowest = (2.0 / (n * peclet)) ** 0.5, np.full(n, 1.0 / n), 1.0
    for push in (1.0, -1.0):
        found = solver((n,), sigma, lambda x, push=push: np.full_like(x, push))
        for _ in range(10):
            p = carried(found, p, 0.04)
            lowest = lowest if p is None else min(lowest, float(n * p.min()))
    return {"density": None if p is None else (n * p).tolist(), "minimum": lowest}


def smooth(peclet: float, n: int) -> list[list[float]] | None:
    """No layers: density at the end at the middles of the cells."""

    def force(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        a, b = np.pi * (x + 0.5), np.pi * (y + 0.5)
        turn = np.stack([np.sin(a) * np.cos(b), -np.cos(a) * np.sin(b)])
        return turn + 0.1 * np.stack([np.sin(2 * a), np.sin(2 * b)])

    found = solver((n, n), (2.0 * 1.1 / (n * peclet)) ** 0.5, force)
    x, y = found.grid + 0.5
    hill = 1.0 + 0.5 * np.cos(np.pi * x) * np.cos(np.pi * y)
    p = carried(found, hill / hill.sum(), 0.5)
    return None if p is None else (n * n * p).tolist()


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=float, nargs="+", default=[], help="Peclet numbers")
    parser.add_argument("--smooth", type=float, nargs="+", default=[], help="Peclet numbers")
    parser.add_argument("--cells", type=int, default=64, help="of the interval")
    parser.add_argument("--side", type=int, default=32, help="cells a side of the square")
    options = parser.parse_args()
    print(
        json.dumps(
            {
                "version": metadata.version("fplanck"),
                "layers": [layers(peclet, options.cells) for peclet in options.layers],
                "smooth": [smooth(peclet, options.side) for peclet in options.smooth],
            }
        )
    )


if __name__ == "__main__":
    main()
