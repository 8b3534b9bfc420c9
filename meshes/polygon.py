"""Triangulate a polygon with gmsh, measure the mesh, write it as XDMF with a JSON record beside."""

import contextlib
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from mpi4py import MPI

import dolfinx.io.gmsh
import numpy as np
from dolfinx.io import XDMFFile
from dolfinx.mesh import Mesh, MeshTags
from numpy.typing import NDArray

# Edges of the boundary over edges inside. A little shorter, so that few of the angles opposite to
# them are obtuse: each such angle is a positive off-diagonal of the P1 stiffness matrix.
BOUNDARY_EDGE = 0.75


def triangulate(
    corners: NDArray[np.float64],
    cell_size: float,
    sides: Sequence[str],
    holes: Sequence[tuple[NDArray[np.float64], str]] = (),
) -> tuple[Mesh, MeshTags, dict[str, int]]:
    """Triangles of one size in a simple polygon, by gmsh's frontal Delaunay algorithm.

    Args:
        corners: Corners in order, shape ``(n, 2)``, the first not repeated.
        cell_size: Length of the edges inside.
        sides: Name of the side that starts at each corner.
        holes: Corners of each hole, and the name of its sides.

    Returns:
        The mesh, the tags of its boundary facets, and the tag of each name, from 1.

    Raises:
        OSError: If gmsh is not installed or a library that it needs is missing.
    """
    return triangulate_regions([Region(corners, sides, holes)], cell_size)


class Region(NamedTuple):
    """A simple polygon with holes; corners in order, ``(n, 2)``, the first not repeated."""

    corners: NDArray[np.float64]
    sides: Sequence[str]  # the name of the side that starts at each corner
    holes: Sequence[tuple[NDArray[np.float64], str]] = ()  # and the name of its sides


def triangulate_regions(
    regions: Sequence[Region], cell_size: float
) -> tuple[Mesh, MeshTags, dict[str, int]]:
    """As ``triangulate``, of several regions that do not touch.

    Raises:
        OSError: If gmsh is not installed or a library that it needs is missing.
    """
    gmsh = _load_gmsh()
    loops = []
    for region in regions:
        loops.append((region.corners, region.sides))
        loops += [(hole, [name] * len(hole)) for hole, name in region.holes]
    every = [name for _, named in loops for name in named]
    names = {name: tag for tag, name in enumerate(dict.fromkeys(every), start=1)}
    gmsh.initialize(readConfigFiles=False, interruptible=False)
    try:
        for option, value in {
            "General.Terminal": 0,
            "Mesh.Algorithm": 6,  # frontal Delaunay: the best angles of gmsh's algorithms
            "Mesh.MeshSizeMax": cell_size,
            "Mesh.MeshSizeExtendFromBoundary": 0,  # one short side does not refine the inside
            "Mesh.Smoothing": 10,
        }.items():
            gmsh.option.setNumber(option, value)
        geometry, model = gmsh.model.geo, gmsh.model
        lines, curves, lengths = [], [], []
        for ring, _ in loops:
            points = [geometry.addPoint(x, y, 0.0) for x, y in ring]
            ends = zip(points, np.roll(points, -1), strict=True)
            around = [geometry.addLine(*pair) for pair in ends]
            lines += around
            curves.append(geometry.addCurveLoop(around))
            lengths.append(np.linalg.norm(np.roll(ring, -1, axis=0) - ring, axis=1))
        ends = np.cumsum([1 + len(region.holes) for region in regions])
        own = [curves[end - 1 - len(r.holes) : end] for end, r in zip(ends, regions, strict=True)]
        surfaces = [geometry.addPlaneSurface(around) for around in own]
        geometry.synchronize()
        size = BOUNDARY_EDGE * cell_size
        pieces = np.maximum(1, np.rint(np.concatenate(lengths) / size)).astype(int)
        for line, count in zip(lines, pieces, strict=True):
            model.mesh.setTransfiniteCurve(line, count + 1)
        for name, tag in names.items():
            named = [line for line, side in zip(lines, every, strict=True) if side == name]
            model.addPhysicalGroup(1, named, tag, name)
        model.addPhysicalGroup(2, surfaces, 1, "inside")
        model.mesh.generate(2)
        data = dolfinx.io.gmsh.model_to_mesh(model, MPI.COMM_SELF, 0, gdim=2)
    finally:
        gmsh.finalize()
    data.facet_tags.name = "facet_tags"
    return data.mesh, data.facet_tags, names


def figures(mesh: Mesh) -> dict[str, Any]:
    """Counts and quality of a triangle mesh on one rank, for the record.

    An edge is obtuse where the cotangents of the angles opposite to it sum to less than zero: the
    off-diagonal of the P1 stiffness matrix is then positive, and monotone schemes lose their sign.
    """
    x, cells = mesh.geometry.x[:, :2], mesh.geometry.dofmaps[0]
    angles = np.empty(cells.shape)
    for corner in range(3):
        a = x[cells[:, (corner + 1) % 3]] - x[cells[:, corner]]
        b = x[cells[:, (corner + 2) % 3]] - x[cells[:, corner]]
        cross = np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0])
        angles[:, corner] = np.arctan2(cross, np.sum(a * b, axis=1))
    opposite = np.sort(cells[:, [[1, 2], [2, 0], [0, 1]]].reshape(-1, 2), axis=1)
    edges, inverse, sharing = np.unique(opposite, axis=0, return_inverse=True, return_counts=True)
    cotangents = np.bincount(inverse.ravel(), 1.0 / np.tan(angles.ravel()))
    obtuse = cotangents < -1e-12  # right angles are not obtuse: round-off of a cotangent of order 1
    boundary = x[edges[sharing == 1]]
    smallest = np.degrees(angles.min(axis=1))
    return {
        "area": float(cross.sum() / 2),
        "perimeter": float(np.linalg.norm(boundary[:, 0] - boundary[:, 1], axis=1).sum()),
        "cells": len(cells),
        "vertices": len(x),
        "edges": len(edges),
        "obtuse_edges_inside": int(np.count_nonzero(obtuse & (sharing == 2))),
        "obtuse_edges_on_boundary": int(np.count_nonzero(obtuse & (sharing == 1))),
        "smallest_angle": round(float(smallest.min()), 1),
        "mean_smallest_angle": round(float(smallest.mean()), 1),
    }


def write(path: Path, mesh: Mesh, facet_tags: MeshTags, record: dict[str, Any]) -> None:
    """Write ``path``, and the ``.h5`` and ``.json`` files beside it, each replaced in one step."""
    record = {**record, "gmsh": _load_gmsh().__version__}
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.stem}-") as folder:
        # Made under their own names: the .xdmf file refers to its .h5 file by name.
        new = Path(folder, path.name)
        with XDMFFile(MPI.COMM_SELF, new, "w") as file:
            file.write_mesh(mesh)
            file.write_meshtags(facet_tags, mesh.geometry)
        new.with_suffix(".json").write_text(
            json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        for suffix in (".h5", ".json", ".xdmf"):
            os.replace(new.with_suffix(suffix), path.with_suffix(suffix))


def check_output(path: Path) -> Path:
    """The path if a mesh can be written there; before the work, not after it.

    Raises:
        ValueError: If it does not end in ``.xdmf`` or its folder does not exist.
    """
    if path.suffix != ".xdmf":
        raise ValueError(f"--out must end in .xdmf, not '{path}'")
    if not path.parent.is_dir():
        raise ValueError(f"--out: there is no folder '{path.parent}'")
    return path


def _load_gmsh() -> ModuleType:
    try:
        with contextlib.redirect_stdout(None):  # without its library it prints where it has looked
            import gmsh
        # The module alone can be imported; a function is looked up in the process then.
        if not hasattr(gmsh.lib, "gmshInitialize"):
            raise OSError("its shared library is not found")
    except (ImportError, OSError) as error:
        raise OSError(
            f"gmsh cannot be loaded ({error}): pip install gmsh, and on Debian "
            "apt-get install libglu1-mesa libxft2 libxcursor1 libxinerama1"
        ) from error
    return gmsh
