"""Mesh islands from their coasts: python meshes/coast.py COAST --out NAME.xdmf --cell-size KM.

COAST is a CSV file with the columns longitude and latitude in degrees (WGS 84), a line for each
point in order along the coast, the last point equal to the first, several closed coasts one after
the other; or GeoJSON, or a shapefile (pip install pyshp), of polygons or closed lines. The largest
island is taken, or with --islands N so many; lakes that have room for some cells become holes, and
warnings count what is left out. The two halves of an island cut at 180 degrees are joined. The
coasts are projected to kilometres by Lambert's azimuthal equal-area projection about the centre, so
that areas, and with them densities, are true everywhere; they are simplified to the cell size and
triangulated. NAME.xdmf and NAME.h5 hold the mesh and its boundary facets, with tags for coast and
lakes; NAME.json beside them holds the projection (key "projection", as pyproj takes it), the tags
and the figures.
"""

import argparse
import csv
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray
from outlines import read_outlines
from pyproj import Geod, Transformer
from shapely import Polygon
from shapely.geometry.base import BaseGeometry

# In cells: inlets narrower than twice the first are closed, then spits narrower than twice the
# second removed; the outline moves by at most the third; sides shorter than the fourth are merged.
INLET, SPIT, TOLERANCE, SHORTEST = 0.35, 0.25, 0.25, 0.7
LAKE = 3.0  # cells squared; a smaller lake would be of five or six sides
SHARPEST = 30.0  # degrees; a sharper corner is cut off, as no triangle in it could be better
MOST_CELLS = 2_000_000  # more is a slip of the unit: metres where kilometres are meant
MOST_CHANGE = 0.2  # of the area; beyond it the mesh is of another island
SEAM = 1e-4  # degrees; data are cut at 180 up to rounding, and no coast runs so straight
EARTH = Geod(ellps="WGS84")


class Land(NamedTuple):
    """An island and its lakes: longitude and latitude, each ``(n, 2)``, the first not repeated."""

    coast: NDArray[np.float64]
    lakes: list[NDArray[np.float64]]


def read_coast(path: Path) -> NDArray[np.float64]:
    """The coast of the largest island of a file, without its lakes; as ``read_lands``."""
    return read_lands(path)[0].coast


def read_lands(path: Path, islands: int = 1) -> list[Land]:
    """The largest islands of a file, the largest first, with their lakes.

    What is not taken is said on the standard error.

    Args:
        path: CSV, GeoJSON or shapefile, see ``outlines.read_outlines``.
        islands: How many.

    Raises:
        OSError: If the file cannot be opened.
        ValueError: If a file is not as above, there are fewer than three different points or fewer
            islands, the last point is not the first, or an island is cut at 180 degrees and one
            half is missing.
    """
    if islands < 1:
        raise ValueError(f"--islands must be at least 1, not {islands}")
    outlines = read_outlines(path)
    if (few := len({point for points in outlines for point in points})) < 3:
        raise ValueError(f"{path}: a coast has at least 3 different points, not {few}")
    rings = [_closed(path, ring) for points in outlines for ring in _rings(points)]
    rings = _joined(rings, path)
    rings = [rings[i] for i in np.argsort([-_area(ring) for ring in rings], kind="stable")]
    plane = equal_area_projection(rings[0])
    polygons = [Polygon(project(ring, plane)).buffer(0.0) for ring in rings]
    firsts = [shapely.Point(project(ring, plane)[0]) for ring in rings]
    around = [  # of each ring, those that it lies in, the innermost last
        [j for j in range(i) if polygons[j].contains(first)] for i, first in enumerate(firsts)
    ]
    land = [i for i in range(len(rings)) if len(around[i]) % 2 == 0]
    if islands > len(land):
        raise ValueError(f"--islands {islands} is more than the {len(land)} that {path} has")
    if left := [_area(rings[i]) for i in land[islands:]]:
        _warn(f"{path}: further islands left out: {len(left)}, {sum(left):.4g} km2 in all")
    lakes = [i for i in range(len(rings)) if i not in land]
    return [Land(rings[i], [rings[k] for k in lakes if around[k][-1] == i]) for i in land[:islands]]


def _rings(points: list[tuple[float, float]]) -> list[NDArray[np.float64]]:
    """Closed coasts in order: each ends where its first point comes again."""
    rings, start = [], 0
    for i, point in enumerate(points):
        if point == points[start] and len(set(points[start:i])) > 2:
            rings.append(np.array(points[start : i + 1]))
            start = i + 1
    rest = points[start:]
    if rest and not (rings and set(rest) <= {tuple(rings[-1][0])}):  # the closing point again
        rings.append(np.array(rest))
    return rings


def _closed(path: Path, coast: NDArray[np.float64]) -> NDArray[np.float64]:
    steps = _lengths(coast)
    gap = _lengths(coast[[-1, 0]])[0]
    # Rounding leaves metres; points of a coast are kilometres apart.
    if len(coast) < 3 or gap > 0.01 * np.median(steps[steps > 0.0]):
        raise ValueError(
            f"{path}: the coast is open, its last point is {gap:.3g} km from its first: complete "
            "it, or repeat the first point as the last line to close it by a straight line"
        )
    return coast[:-1]


def _joined(rings: list[NDArray[np.float64]], path: Path) -> list[NDArray[np.float64]]:
    """The rings, with the two halves of an island that is cut at 180 degrees made one."""
    cut = [ring for ring in rings if _along_seam(ring)]
    if not cut:
        return rings
    projection = equal_area_projection(np.concatenate(cut))
    # Sides on the seam meet up to round-off.
    whole = shapely.union_all(
        [Polygon(project(ring, projection)).buffer(0.0) for ring in cut], grid_size=1e-6
    )
    joined = [
        np.column_stack(_unproject(*shapely.get_coordinates(part.exterior)[:-1].T, projection))
        for part in getattr(whole, "geoms", [whole])
    ]
    if any(_along_seam(ring) for ring in joined):
        raise ValueError(
            f"{path}: the coast runs along 180 degrees: the island is cut there, and its other "
            "half is not in the file. Put both halves into it, one after the other"
        )
    return [ring for ring in rings if not _along_seam(ring)] + joined


def _along_seam(coast: NDArray[np.float64]) -> bool:
    """Whether a side lies on the meridian of 180 degrees."""
    on = np.abs(np.abs(coast[:, 0]) - 180.0) < SEAM
    moves = coast[:, 1] != np.roll(coast[:, 1], -1)
    return bool((on & np.roll(on, -1) & moves).any())


def _area(coast: NDArray[np.float64]) -> float:
    return abs(EARTH.polygon_area_perimeter(*coast.T)[0]) / 1e6


def _warn(text: str) -> None:
    print(f"coast.py: warning: {text}", file=sys.stderr)


def equal_area_projection(*coasts: NDArray[np.float64]) -> str:
    """PROJ string, in kilometres, of the azimuthal equal-area projection about the centre."""
    longitude, latitude = np.radians(np.concatenate(coasts)).T
    # The mean direction from the Earth's centre has no seam at 180 degrees and none at a pole.
    x = (np.cos(latitude) * np.cos(longitude)).mean()
    y = (np.cos(latitude) * np.sin(longitude)).mean()
    z = np.sin(latitude).mean()
    rough = _laea(np.degrees(np.arctan2(y, x)), np.degrees(np.arctan2(z, np.hypot(x, y))))
    parts = [Polygon(project(coast, rough)) for coast in coasts]
    centre = shapely.centroid(parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts))
    return _laea(*_unproject(centre.x, centre.y, rough))


def project(points: NDArray[np.float64], projection: str) -> NDArray[np.float64]:
    """Points in kilometres, from longitude and latitude in degrees; shape ``(n, 2)``."""
    transformer = Transformer.from_crs("EPSG:4326", projection, always_xy=True)
    return np.column_stack(transformer.transform(*points.T))


def island(coast: NDArray[np.float64], projection: str) -> Polygon:
    """The island in kilometres.

    Raises:
        ValueError: If the coast crosses or touches itself; says where.
    """
    polygon = Polygon(project(coast, projection))
    if not polygon.is_valid:
        reason = shapely.is_valid_reason(polygon)
        x, y = (float(number) for number in re.findall(r"-?\d[\d.e+-]*", reason))
        longitude, latitude = _unproject(x, y, projection)
        raise ValueError(
            f"the coast crosses or touches itself near longitude {longitude:.4f}, "
            f"latitude {latitude:.4f}: remove the loop"
        )
    return shapely.orient_polygons(polygon)


def simplify(polygon: Polygon, cell_size: float) -> Polygon:
    """The polygon without details smaller than a cell: its largest part, without lakes.

    Raises:
        ValueError: If the cell size is not positive, is so small that the mesh would be enormous,
            or is too large for the island's shape.
    """
    area, h = polygon.area, cell_size
    if not 0.0 < h < np.inf:
        raise ValueError(f"--cell-size must be a positive number of km, not {h}")
    if h**2 > area:
        raise ValueError(
            f"--cell-size {h:g} km is larger than the island, which has {area:.3g} km2: "
            f"take less than {np.sqrt(area) / 5:.2g} km"
        )
    if (cells := area / (np.sqrt(3) / 4 * h**2)) > MOST_CELLS:
        raise ValueError(f"--cell-size {h:g} km would make {cells:.2g} cells of {area:.3g} km2")
    filled = _largest(polygon.buffer(INLET * h).buffer(-INLET * h))
    if lakes := [Polygon(ring).area for ring in filled.interiors]:
        _warn(f"inlets closed to lakes, which become land: {len(lakes)}, {sum(lakes):.4g} km2")
    opened = Polygon(filled.exterior).buffer(-SPIT * h).buffer(SPIT * h)
    parts = sorted(part.area for part in getattr(opened, "geoms", [opened]))[:-1]
    if parts:
        _warn(f"parts on necks below a cell, left out: {len(parts)}, {sum(parts):.4g} km2")
    simple = _coarse(_largest(opened), h)
    if not simple.is_valid or abs(simple.area - area) > MOST_CHANGE * area:
        raise ValueError(
            f"--cell-size {h:g} km is too large for the island's shape: its area of {area:.4g} km2 "
            f"would become {simple.area:.4g} km2; take a smaller one"
        )
    return shapely.orient_polygons(simple)


def holes(land: Polygon, lakes: Sequence[Polygon], cell_size: float) -> list[Polygon]:
    """Lakes as holes of a simplified island; says which become land.

    Args:
        land: What ``simplify`` made of the island.
        lakes: Its lakes, in kilometres.
        cell_size: In kilometres.
    """
    h, kept, gone = cell_size, [], []
    for lake in sorted(lakes, key=lambda lake: -lake.area):
        opened = _largest(lake.buffer(0.0).buffer(-SPIT * h).buffer(SPIT * h))
        simple = _coarse(Polygon(opened.exterior), h) if opened.area > LAKE * h**2 else Polygon()
        room = all(simple.distance(other) > SHORTEST * h for other in (land.exterior, *kept))
        fits = simple.is_valid and simple.area > LAKE * h**2 and room and land.contains(simple)
        (kept if fits else gone).append(simple if fits else lake)
    if gone:
        _warn(
            f"lakes of less than {LAKE:g} cells squared or at the coast, which become land: "
            f"{len(gone)}, {sum(lake.area for lake in gone):.4g} km2"
        )
    return kept


def _coarse(polygon: Polygon, h: float) -> Polygon:
    """A ring without sides and corners that cells cannot follow; empty if nothing is left."""
    corners = shapely.get_coordinates(polygon.simplify(TOLERANCE * h).exterior)[:-1]
    while len(corners) > 3:
        forward = np.roll(corners, -1, axis=0) - corners
        sides = np.hypot(*forward.T)
        cosines = -np.sum(forward * np.roll(forward, 1, axis=0), axis=1) / (
            sides * np.roll(sides, 1)
        )
        if sides.min() < SHORTEST * h:
            first = int(sides.argmin())
            second = (first + 1) % len(corners)
            corners[first] = (corners[first] + corners[second]) / 2
            corners = np.delete(corners, second, axis=0)
        elif cosines.max() > np.cos(np.radians(SHARPEST)):
            corners = np.delete(corners, cosines.argmax(), axis=0)
        else:
            break
    return Polygon(corners) if len(corners) > 2 else Polygon()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("coast", type=Path, help="CSV (longitude,latitude), GeoJSON or shapefile")
    parser.add_argument("--out", type=Path, required=True, help="mesh file, NAME.xdmf")
    parser.add_argument("--cell-size", type=float, required=True, metavar="KM", help="edge length")
    parser.add_argument("--islands", type=int, default=1, metavar="N", help="the N largest")
    parser.add_argument("--licence", default="", help="source and licence of the coast, recorded")
    options = parser.parse_args(arguments)
    try:
        _make(options)
    except (ImportError, OSError, ValueError, csv.Error) as error:
        print(f"coast.py: error: {error}", file=sys.stderr)
        return 1
    return 0


def _make(options: argparse.Namespace) -> None:
    import polygon  # with gmsh and DOLFINx, which the errors above do without

    out, cell_size = polygon.check_output(options.out), options.cell_size
    lands = read_lands(options.coast, options.islands)
    coasts = [land.coast for land in lands]
    projection = equal_area_projection(*coasts)
    raws = [island(coast, projection) for coast in coasts]
    simple = [simplify(raw, cell_size) for raw in raws]
    for k, land in enumerate(simple):
        if near := [j for j in range(k) if land.distance(simple[j]) < 1e-9 * cell_size]:
            raise ValueError(
                f"--cell-size {cell_size:g} km: islands {near[0] + 1} and {k + 1} by size would "
                "touch; take a smaller one, or fewer islands"
            )
    water = [[Polygon(project(lake, projection)) for lake in land.lakes] for land in lands]
    cut = [holes(*pair, cell_size) for pair in zip(simple, water, strict=True)]
    regions = [
        polygon.Region(
            _corners(land), ["coast"] * len(_corners(land)), [(_corners(h), "lakes") for h in inner]
        )
        for land, inner in zip(simple, cut, strict=True)
    ]
    mesh, facet_tags, names = polygon.triangulate_regions(regions, cell_size)
    # In full with its lakes, and as it is meshed.
    full = shapely.union_all(
        [
            raw.difference(shapely.union_all([lake.buffer(0.0) for lake in inner]))
            for raw, inner in zip(raws, water, strict=True)
        ]
    )
    meshed = shapely.union_all([Polygon(r.corners, [h for h, _ in r.holes]) for r in regions])
    perimeter = sum(raw.length for raw in raws)
    record: dict[str, Any] = {
        "source": options.coast.name,
        "licence": options.licence,
        "projection": projection,
        "unit": "km",
        "cell_size": cell_size,
        "coast": {
            "points": sum(map(len, coasts)),
            "area": full.area,
            "perimeter": perimeter,
        },
        "polygon": {
            "islands": len(lands),
            "lakes": sum(map(len, cut)),
            "corners": sum(len(region.corners) for region in regions),
            "area_change": meshed.area / full.area - 1.0,
            "land_left_out": full.difference(meshed).area / full.area,
            "water_taken_in": meshed.difference(full).area / full.area,
        },
        "mesh": polygon.figures(mesh),
        "facet_tags": names,
    }
    polygon.write(out, mesh, facet_tags, record)
    shape, quality = record["polygon"], record["mesh"]
    print(
        f"coast: {record['coast']['points']} points, {full.area:.0f} km2, {perimeter:.0f} km, "
        f"about {_written(projection)}\n"
        f"polygon: {shape['islands']} island(s), {shape['lakes']} lake(s), {shape['corners']} "
        f"corners, {meshed.area:.0f} km2 ({shape['area_change']:+.2%}: "
        f"{shape['land_left_out']:.2%} of the land left out, {shape['water_taken_in']:.2%} of "
        "water taken in)\n"
        f"mesh: {quality['cells']} cells, {quality['vertices']} vertices, smallest angle "
        f"{quality['smallest_angle']} degrees, in the mean {quality['mean_smallest_angle']}\n"
        f"wrote {out}, with .h5 and .json beside it"
    )


def _corners(polygon: Polygon) -> NDArray[np.float64]:
    return shapely.get_coordinates(polygon.exterior)[:-1]


def _written(projection: str) -> str:
    """Latitude and longitude of the centre, which show a coast with its columns swapped."""
    longitude, latitude = _unproject(0.0, 0.0, projection)
    return (
        f"{abs(latitude):.1f} degrees {'north' if latitude >= 0 else 'south'}, "
        f"{abs(longitude):.1f} {'east' if longitude >= 0 else 'west'}"
    )


def _lengths(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distances in km from each point to the next."""
    return np.asarray(EARTH.line_lengths(*points.T)) / 1000.0


def _laea(longitude: float, latitude: float) -> str:
    centre = f"+lat_0={latitude:.2f} +lon_0={longitude:.2f}"
    return f"+proj=laea {centre} +datum=WGS84 +units=km +no_defs"


def _unproject(x: float, y: float, projection: str) -> tuple[float, float]:
    transformer = Transformer.from_crs(projection, "EPSG:4326", always_xy=True)
    longitude, latitude = transformer.transform(x, y)
    return longitude, latitude


def _largest(shape: BaseGeometry) -> Polygon:
    return max(getattr(shape, "geoms", [shape]), key=lambda part: part.area, default=Polygon())


if __name__ == "__main__":
    sys.exit(main())
