"""Mesh a hall with pillars: python meshes/hall.py --cell-size 0.4 --out meshes/hall.xdmf.

A hall of 20 m by 12 m, its lower left corner at the origin, with a door of 2 m in the middle of the
wall x = 0, a round pillar of radius 1 m in the middle and four of 0.6 m around it; facets tagged
"walls" = 1, "door" = 2, "pillars" = 3. NAME.json has the pillars: x, y and radius in m.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polygon
from numpy.typing import NDArray

SIDES = 20.0, 12.0
DOOR = 5.0, 7.0
PILLARS = [(10.0, 6.0, 1.0), *((x, y, 0.6) for x in (5.0, 15.0) for y in (3.0, 9.0))]


def outline() -> tuple[NDArray[np.float64], list[str]]:
    """Corners of the hall and of its door, and the names of the sides between them."""
    (length, depth), (low, high) = SIDES, DOOR
    corners = [(0, 0), (length, 0), (length, depth), (0, depth), (0, high), (0, low)]
    return np.array(corners, dtype=float), ["walls", "walls", "walls", "walls", "door", "walls"]


def pillar(x: float, y: float, radius: float, cell_size: float) -> NDArray[np.float64]:
    """Corners on a circle."""
    count = max(8, round(2.0 * np.pi * radius / (polygon.BOUNDARY_EDGE * cell_size)))
    angle = 2.0 * np.pi * np.arange(count) / count
    return np.column_stack([x + radius * np.cos(angle), y + radius * np.sin(angle)])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="mesh file, NAME.xdmf")
    parser.add_argument("--cell-size", type=float, required=True, help="edge length in m")
    options = parser.parse_args(arguments)
    try:
        out, cell_size = polygon.check_output(options.out), options.cell_size
        if not 0.05 <= cell_size <= 0.6:
            raise ValueError(f"--cell-size must be from 0.05 to 0.6, not {cell_size}")
        holes = [(pillar(*place, cell_size), "pillars") for place in PILLARS]
        mesh, facet_tags, names = polygon.triangulate(outline()[0], cell_size, outline()[1], holes)
        record = {"shape": "hall", "unit": "m", "cell_size": cell_size, "pillars": PILLARS}
        record |= {"mesh": polygon.figures(mesh), "facet_tags": names}
        polygon.write(out, mesh, facet_tags, record)
    except (ImportError, OSError, ValueError) as error:
        print(f"hall.py: error: {error}", file=sys.stderr)
        return 1
    print(f"wrote {out}: {record['mesh']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
