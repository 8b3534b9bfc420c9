r"""Mesh a bay and its currents: python meshes/bay.py --out meshes/bay.xdmf --cell-size 1.0.

The bay is half a disk of radius 20 km, its shore the half circle, with three round islands. A cape
of 8 km divides its mouth, the diameter, in two; facets are tagged "coast" = 1, "east" = 2 and
"west" = 3 for the two parts of the mouth, and "islands" = 4. NAME.csv has currents on a regular
grid that covers it, as from a model or from radars: x, y in km, u, v in km a day.

The currents are made, not measured: a stream function that is constant on all shores, and beside
it what a stream function cannot give, water that sinks in one place,

.. math:: u = \nabla^\perp\psi - \nabla\chi .
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polygon
from hall import pillar
from numpy.typing import NDArray

RADIUS, CAPE = 20.0, 4.0  # km; half the cape's width
ISLANDS = (-8.0, 9.0, 2.5), (5.0, 6.0, 1.8), (3.0, 13.5, 1.5)  # x, y, radius
SPEED = 5.0  # km a day, of the current along the shore
SINK, REACH, INFLOW = (-5.0, 4.0), 3.0, 1.5  # km, km, km a day at most
MARGIN = 1.0  # km of the grid beyond the bay


def stream_function(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of the divergence-free part, km**2 a day; zero on the half circle, the mouth and islands."""
    psi = SPEED * y * (1.0 - (x**2 + y**2) / RADIUS**2) / 2.0
    for a, b, radius in ISLANDS:
        away = ((x - a) ** 2 + (y - b) ** 2) / radius**2
        psi = psi * (away - 1.0) / (away + 1.0)
    return psi


def currents(
    x: NDArray[np.float64], y: NDArray[np.float64], sinking: float = 1.0
) -> NDArray[np.float64]:
    """Velocity ``(..., 2)``, km a day; ``sinking`` multiplies what no stream function gives."""
    h = 1e-3 * np.ones(2)  # km; psi is smooth on scales of islands
    along = (stream_function(x, y - h[1]) - stream_function(x, y + h[1])) / (2.0 * h[1])
    across = (stream_function(x + h[0], y) - stream_function(x - h[0], y)) / (2.0 * h[0])
    off = np.stack([x - SINK[0], y - SINK[1]], axis=-1) / REACH
    pull = INFLOW * np.exp(0.5 - 0.5 * (off**2).sum(axis=-1))
    return np.stack([along, across], axis=-1) - sinking * pull[..., None] * off


def table(spacing: float, sinking: float = 1.0) -> tuple[list[NDArray[np.float64]], NDArray]:
    """Axes and velocities ``(n_x, n_y, 2)`` of a regular grid that covers the bay, islands too."""
    wide, high = 2.0 * (RADIUS + MARGIN), RADIUS + 2.0 * MARGIN
    axes = [
        np.linspace(-RADIUS - MARGIN, RADIUS + MARGIN, round(wide / spacing) + 1),
        np.linspace(-MARGIN, RADIUS + MARGIN, round(high / spacing) + 1),
    ]
    return axes, currents(*np.meshgrid(*axes, indexing="ij"), sinking)


def outline(cell_size: float) -> tuple[NDArray[np.float64], list[str]]:
    """Corners of the mouth and along the shore, and the names of the sides between them."""
    mouth = [(-CAPE, 0.0), (CAPE, 0.0), (RADIUS, 0.0)]
    count = round(np.pi * RADIUS / (polygon.BOUNDARY_EDGE * cell_size))
    angle = np.pi * np.arange(1, count + 1) / count
    shore = RADIUS * np.column_stack([np.cos(angle), np.sin(angle)])
    return np.vstack([mouth, shore]), ["coast", "east", *count * ["coast"], "west"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="mesh file, NAME.xdmf")
    parser.add_argument("--cell-size", type=float, required=True, help="edge length in km")
    parser.add_argument("--spacing", type=float, default=1.0, help="of the currents' grid in km")
    options = parser.parse_args(arguments)
    try:
        out, cell_size = polygon.check_output(options.out), options.cell_size
        for name, value in (("--cell-size", cell_size), ("--spacing", options.spacing)):
            if not 0.1 <= value <= 1.5:
                raise ValueError(f"{name} must be from 0.1 to 1.5, not {value}")
        corners, sides = outline(cell_size)
        holes = [(pillar(*island, cell_size), "islands") for island in ISLANDS]
        mesh, facet_tags, names = polygon.triangulate(corners, cell_size, sides, holes)
        record = {"shape": "bay", "unit": "km", "cell_size": cell_size, "islands": ISLANDS}
        record |= {"mesh": polygon.figures(mesh), "facet_tags": names}
        polygon.write(out, mesh, facet_tags, record)
        axes, velocity = table(options.spacing)
        rows = np.dstack([*np.meshgrid(*axes, indexing="ij"), velocity]).reshape(-1, 4)
        head = "x,y,u,v"
        np.savetxt(out.with_suffix(".csv"), rows, "%.4f", ",", header=head, comments="")
    except (ImportError, OSError, ValueError) as error:
        print(f"bay.py: error: {error}", file=sys.stderr)
        return 1
    print(f"wrote {out}: {record['mesh']}; {len(rows)} currents")
    return 0


if __name__ == "__main__":
    sys.exit(main())
