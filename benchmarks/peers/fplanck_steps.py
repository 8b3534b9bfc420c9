"""fplanck on the Gaussian in a steady drift; prints JSON. Runs in an environment of its own.

    .venv-peers/bin/python benchmarks/peers/fplanck_steps.py --cells 50

It is given the potential; one product with the exponential of its matrix leads to time 1.
"""

import argparse
import json
import time
from importlib import metadata

import numpy as np
import scipy.constants
from fplanck.solver import FokkerPlanck
from moving_gaussian import HALF, T1, D, density, grid_error


def run(n: int) -> tuple[float, float]:
    """One run, from the mesh to the last density: seconds and error."""
    begin = time.process_time()
    h = 2.0 * HALF / n
    solver = FokkerPlanck(
        temperature=D / scipy.constants.k,
        drag=1.0,
        extent=(2.0 * HALF, 2.0 * HALF),
        resolution=h,
        potential=lambda x, y: 0.5 * (x * x + y * y),
    )

    def start(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return density(0.0, np.column_stack([x.ravel(), y.ravel()]), 0.0).reshape(x.shape)

    last = solver.propagate(start, T1) / h**2
    seconds = time.process_time() - begin
    x, y = np.meshgrid(*solver.axes, indexing="ij")
    return seconds, grid_error(last.ravel(), np.column_stack([x.ravel(), y.ravel()]), 0.0)


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=50, help="a side")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    if options.repeats > 1:
        run(10)  # warms up
    rounds = [run(options.cells) for _ in range(options.repeats)]
    print(
        json.dumps(
            {
                "version": metadata.version("fplanck"),
                "seconds": float(np.median([seconds for seconds, _ in rounds])),
                "error": rounds[-1][1],
            }
        )
    )


if __name__ == "__main__":
    main()
