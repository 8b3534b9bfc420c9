"""Mesh an island from its coast: python meshes/coast.py COAST.csv --out NAME.xdmf --cell-size KM.

The coast is a CSV file with the columns longitude and latitude in degrees (WGS 84), a line for
each point in order along the coast, the last point equal to the first. Of several closed coasts,
one after the other, the largest is taken, with a warning that counts the lakes and further islands
left out; the two halves of an island cut at 180 degrees are joined. The coast is projected to
kilometres by Lambert's azimuthal equal-area projection about the island's centre, so that areas,
and with them densities, are true everywhere; it is simplified to the cell size and triangulated.
NAME.xdmf and NAME.h5 hold the mesh and its boundary facets, tagged 1; NAME.json beside them holds
the projection (key "projection", as pyproj takes it) and the figures.
"""

import argparse
import csv
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import Geod, Transformer
from shapely import Polygon
from shapely.geometry.base import BaseGeometry

# In cells: inlets narrower than twice the first are closed, then spits narrower than twice the
# second removed; the outline moves by at most the third; sides shorter than the fourth are merged.
INLET, SPIT, TOLERANCE, SHORTEST = 0.35, 0.25, 0.25, 0.7
SHARPEST = 30.0  # degrees; a sharper corner is cut off, as no triangle in it could be better
MOST_CELLS = 2_000_000  # more is a slip of the unit: metres where kilometres are meant
MOST_CHANGE = 0.2  # of the area; beyond it the mesh is of another island
SEAM = 1e-4  # degrees; data are cut at 180 up to rounding, and no coast runs so straight
EARTH = Geod(ellps="WGS84")


def read_coast(path: Path) -> NDArray[np.float64]:
    """Longitude and latitude along a closed coast, shape ``(n, 2)``, the first not repeated.

    Of several coasts in the file the largest; says on the standard error what is left out.

    Raises:
        OSError: If the file cannot be opened.
        ValueError: If a column is missing, a value is not a longitude or a latitude, there are
            fewer than three different points, the last point is not the first, or the island is
            cut at 180 degrees and one half is missing.
    """
    points = _read_points(path)
    if len(set(points)) < 3:
        raise ValueError(f"{path}: a coast has at least 3 different points, not {len(set(points))}")
    rings = _joined([_closed(path, ring) for ring in _rings(points)], path)
    areas = [_area(ring) for ring in rings]
    coast = rings[(largest := int(np.argmax(areas)))]
    others = [pair for i, pair in enumerate(zip(rings, areas, strict=True)) if i != largest]
    if others:
        projection = equal_area_projection(coast)
        land = Polygon(project(coast, projection)).buffer(0.0)
        firsts = [shapely.Point(project(ring, projection)[0]) for ring, _ in others]
        inside = [land.contains(first) for first in firsts]
        for what, kept in (("lakes", True), ("further islands", False)):
            left = [area for (_, area), lake in zip(others, inside, strict=True) if lake == kept]
            if left:
                _warn(f"{path}: {what} left out: {len(left)}, {sum(left):.4g} km2 in all")
    return coast


def _read_points(path: Path) -> list[tuple[float, float]]:
    points = []
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file, restval="")  # a short line lacks its last values
        for column in ("longitude", "latitude"):
            if column not in (rows.fieldnames or ()):
                raise ValueError(
                    f"{path} has no column '{column}'; it has {rows.fieldnames or 'none'}"
                )
        for row in rows:
            where = f"{path}, line {rows.line_num}"
            longitude = _degrees(row["longitude"], -180.0, 360.0, f"{where}: longitude")
            # A longitude beyond 90 degrees where a latitude should be.
            hint = "; are the columns swapped?" if abs(longitude) <= 90.0 else ""
            latitude = _degrees(row["latitude"], -90.0, 90.0, f"{where}: latitude", hint)
            points.append((longitude, latitude))
    return points


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


def equal_area_projection(coast: NDArray[np.float64]) -> str:
    """PROJ string, in kilometres, of the azimuthal equal-area projection about the centre."""
    longitude, latitude = np.radians(coast).T
    # The mean direction from the Earth's centre has no seam at 180 degrees and none at a pole.
    x = (np.cos(latitude) * np.cos(longitude)).mean()
    y = (np.cos(latitude) * np.sin(longitude)).mean()
    z = np.sin(latitude).mean()
    rough = _laea(np.degrees(np.arctan2(y, x)), np.degrees(np.arctan2(z, np.hypot(x, y))))
    centre = shapely.centroid(Polygon(project(coast, rough)))
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
    outline = _largest(opened).simplify(TOLERANCE * h)
    corners = shapely.get_coordinates(outline.exterior)[:-1]
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
    simple = Polygon(corners) if len(corners) > 2 else Polygon()
    if not simple.is_valid or abs(simple.area - area) > MOST_CHANGE * area:
        raise ValueError(
            f"--cell-size {h:g} km is too large for the island's shape: its area of {area:.4g} km2 "
            f"would become {simple.area:.4g} km2; take a smaller one"
        )
    return shapely.orient_polygons(simple)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("coast", type=Path, help="CSV file: longitude,latitude in degrees")
    parser.add_argument("--out", type=Path, required=True, help="mesh file, NAME.xdmf")
    parser.add_argument("--cell-size", type=float, required=True, metavar="KM", help="edge length")
    parser.add_argument("--licence", default="", help="source and licence of the coast, recorded")
    options = parser.parse_args(arguments)
    try:
        _make(options.coast, options.out, options.cell_size, options.licence)
    except (ImportError, OSError, ValueError, csv.Error) as error:
        print(f"coast.py: error: {error}", file=sys.stderr)
        return 1
    return 0


def _make(source: Path, out: Path, cell_size: float, licence: str) -> None:
    import polygon  # with gmsh and DOLFINx, which the errors above do without

    polygon.check_output(out)
    coast = read_coast(source)
    projection = equal_area_projection(coast)
    raw = island(coast, projection)
    simple = simplify(raw, cell_size)
    corners = shapely.get_coordinates(simple.exterior)[:-1]
    mesh, facet_tags, names = polygon.triangulate(corners, cell_size, ["coast"] * len(corners))
    record: dict[str, Any] = {
        "source": source.name,
        "licence": licence,
        "projection": projection,
        "unit": "km",
        "cell_size": cell_size,
        "coast": {"points": len(coast), "area": raw.area, "perimeter": raw.length},
        "polygon": {
            "corners": len(corners),
            "area_change": simple.area / raw.area - 1.0,
            "land_left_out": raw.difference(simple).area / raw.area,
            "water_taken_in": simple.difference(raw).area / raw.area,
        },
        "mesh": polygon.figures(mesh),
        "facet_tags": names,
    }
    polygon.write(out, mesh, facet_tags, record)
    shape, quality = record["polygon"], record["mesh"]
    print(
        f"coast: {len(coast)} points, {raw.area:.0f} km2, {raw.length:.0f} km, about "
        f"{_written(projection)}\n"
        f"polygon: {len(corners)} corners, {simple.area:.0f} km2 ({shape['area_change']:+.2%}: "
        f"{shape['land_left_out']:.2%} of the land left out, {shape['water_taken_in']:.2%} of "
        "water taken in)\n"
        f"mesh: {quality['cells']} cells, {quality['vertices']} vertices, smallest angle "
        f"{quality['smallest_angle']} degrees, in the mean {quality['mean_smallest_angle']}\n"
        f"wrote {out}, with .h5 and .json beside it"
    )


def _written(projection: str) -> str:
    """Latitude and longitude of the centre, which show a coast with its columns swapped."""
    longitude, latitude = _unproject(0.0, 0.0, projection)
    return (
        f"{abs(latitude):.1f} degrees {'north' if latitude >= 0 else 'south'}, "
        f"{abs(longitude):.1f} {'east' if longitude >= 0 else 'west'}"
    )


def _degrees(text: str, lowest: float, highest: float, what: str, hint: str = "") -> float:
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not lowest <= value <= highest:  # false of NaN too
        raise ValueError(
            f"{what} must be a number from {lowest:g} to {highest:g}, not '{text}'"
            f"{hint if np.isfinite(value) else ''}"
        )
    return value


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
