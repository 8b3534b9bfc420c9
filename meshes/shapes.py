"""Mesh a standard domain: python meshes/shapes.py disk --cell-size 0.07 --out meshes/disk.xdmf.

disk: the unit disk, facets tagged "boundary" = 1.
l-shape: (-1, 1)^2 without the quadrant x > 0, y < 0; facets tagged "outer" = 1, and "inner" = 2 on
the two sides that meet in the re-entrant corner.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polygon
from numpy.typing import NDArray


def disk(cell_size: float) -> tuple[NDArray[np.float64], list[str]]:
    """Corners on the unit circle and the names of the sides between them."""
    count = max(3, round(2 * np.pi / (polygon.BOUNDARY_EDGE * cell_size)))
    angle = 2 * np.pi * np.arange(count) / count
    return np.column_stack([np.cos(angle), np.sin(angle)]), ["boundary"] * count


def l_shape(cell_size: float) -> tuple[NDArray[np.float64], list[str]]:
    """Corners of the L, the same for every cell size, and the names of its sides."""
    corners = [(-1, -1), (0, -1), (0, 0), (1, 0), (1, 1), (-1, 1)]
    return np.array(corners, dtype=float), ["outer", "inner", "inner", "outer", "outer", "outer"]


SHAPES = {"disk": disk, "l-shape": l_shape}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("--out", type=Path, required=True, help="mesh file, NAME.xdmf")
    parser.add_argument("--cell-size", type=float, required=True, help="edge length")
    options = parser.parse_args(arguments)
    try:
        out, cell_size = polygon.check_output(options.out), options.cell_size
        if not 0.002 <= cell_size <= 1.0:
            raise ValueError(f"--cell-size must be from 0.002 to 1, not {cell_size}")
        corners, sides = SHAPES[options.shape](cell_size)
        mesh, facet_tags, names = polygon.triangulate(corners, cell_size, sides)
        record = {"shape": options.shape, "cell_size": cell_size}
        record |= {"mesh": polygon.figures(mesh), "facet_tags": names}
        polygon.write(out, mesh, facet_tags, record)
    except (ImportError, OSError, ValueError) as error:
        print(f"shapes.py: error: {error}", file=sys.stderr)
        return 1
    print(f"wrote {out}: {record['mesh']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
