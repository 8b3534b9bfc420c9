"""Closed coasts from files: CSV tables, GeoJSON and, with pyshp, shapefiles."""

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from pyproj import CRS

type Points = list[tuple[float, float]]

GEOJSON = (".geojson", ".json")
SHAPEFILE = ".shp"
# Names of the coordinate system that GeoJSON has unless told otherwise: longitude, latitude.
WGS84 = ("crs84", "wgs84", "wgs 84", "epsg:4326", "crs:84")


def read_outlines(path: Path) -> list[Points]:
    """Longitude and latitude along each line in a file, in its order, degrees.

    A CSV file has columns ``longitude`` and ``latitude`` and all its lines one after the other;
    they come as one list. GeoJSON and shapefiles have polygons, holes included, or lines, of which
    those that go on where another ends are joined.

    Raises:
        OSError: If the file cannot be opened.
        ImportError: If pyshp is missing for a shapefile.
        ValueError: If there are no such columns or shapes, a value is not a longitude or a
            latitude, or the file says that its coordinates are others.
    """
    if path.suffix.lower() in GEOJSON:
        return _outlines(path, _geojson(path))
    if path.suffix.lower() == SHAPEFILE:
        return _outlines(path, _shapefile(path))
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
            points.append(checked(row["longitude"], row["latitude"], where))
    return [points]


def checked(longitude: Any, latitude: Any, where: str) -> tuple[float, float]:
    """A point in degrees.

    Raises:
        ValueError: If it is none.
    """
    x = _degrees(longitude, -180.0, 360.0, f"{where}: longitude")
    # A longitude beyond 90 degrees where a latitude should be.
    hint = "; are longitude and latitude swapped?" if abs(x) <= 90.0 else ""
    return x, _degrees(latitude, -90.0, 90.0, f"{where}: latitude", hint)


def _degrees(given: Any, lowest: float, highest: float, what: str, hint: str = "") -> float:
    try:
        value = float(given)
    except (TypeError, ValueError):
        value = np.nan
    if not lowest <= value <= highest:  # false of NaN too
        raise ValueError(
            f"{what} must be a number from {lowest:g} to {highest:g}, not '{given}'"
            f"{hint if np.isfinite(value) else ''}"
        )
    return value


def _geojson(path: Path) -> list[dict[str, Any]]:
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no GeoJSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} is no GeoJSON: it holds a {type(found).__name__}, no object")
    system = found.get("crs") or {}
    name = str(system.get("properties", {}).get("name", "")) if isinstance(system, dict) else ""
    if "EPSG::4326" in name:  # latitude first, to the letter; few files mean it
        print(
            f"coast.py: warning: {path} says {name}, whose order is latitude, longitude; GeoJSON's "
            "own is taken: longitude first",
            file=sys.stderr,
        )
    elif name and not name.lower().replace("::", ":").endswith(WGS84):
        raise ValueError(
            f"{path}: its coordinates are of {name}; longitude and latitude are needed: "
            "ogr2ogr -t_srs EPSG:4326 NEW.geojson OLD.geojson"
        )
    return list(_geometries(path, found))


def _geometries(path: Path, found: Any) -> Iterator[dict[str, Any]]:
    """The geometries of a GeoJSON object, whatever they are wrapped in."""
    kind = found.get("type") if isinstance(found, dict) else None
    if kind == "FeatureCollection":
        for feature in found.get("features") or []:
            yield from _geometries(path, feature)
    elif kind == "Feature":
        if found.get("geometry") is not None:
            yield from _geometries(path, found["geometry"])
    elif kind == "GeometryCollection":
        for part in found.get("geometries") or []:
            yield from _geometries(path, part)
    elif kind in ("Polygon", "MultiPolygon", "LineString", "MultiLineString"):
        yield found
    elif kind not in ("Point", "MultiPoint"):
        raise ValueError(f"{path} is no GeoJSON: it has an object of type {kind!r}")


def _shapefile(path: Path) -> list[dict[str, Any]]:
    try:
        import shapefile
    except ImportError as error:
        raise ImportError(
            f"{path}: shapefiles are read by pyshp, which is not installed: pip install pyshp, or "
            "ogr2ogr -t_srs EPSG:4326 NEW.geojson OLD.shp"
        ) from error
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    system = path.with_suffix(".prj")
    if system.is_file() and not CRS.from_wkt(system.read_text(encoding="utf-8")).is_geographic:
        raise ValueError(
            f"{path}: its coordinates are projected ({system.name}); longitude and latitude are "
            "needed: ogr2ogr -t_srs EPSG:4326 NEW.geojson OLD.shp"
        )
    try:
        with shapefile.Reader(str(path)) as reader:
            shapes = [shape.__geo_interface__ for shape in reader.shapes()]
    except shapefile.ShapefileException as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    return [part for shape in shapes for part in _geometries(path, shape)]


def _outlines(path: Path, geometries: list[dict[str, Any]]) -> list[Points]:
    """Rings of polygons, and lines joined where they meet, with their points checked."""
    depth = {"LineString": 0, "MultiLineString": 1, "Polygon": 1, "MultiPolygon": 2}
    rings, lines = [], []
    for number, geometry in enumerate(geometries, start=1):
        parts = [geometry.get("coordinates")]
        for _ in range(depth[geometry["type"]]):
            parts = [inner for part in parts for inner in part or []]
        for part in parts:
            where = f"{path}, shape {number}"
            if not isinstance(part, list | tuple) or any(len(p) < 2 for p in part):
                raise ValueError(f"{where}: no list of points with two coordinates")
            outline = [checked(point[0], point[1], where) for point in part]
            (lines if "Line" in geometry["type"] else rings).append(outline)
    if not rings and not lines:
        raise ValueError(f"{path} has no polygons and no lines")
    merged = shapely.line_merge(shapely.MultiLineString([line for line in lines if len(line) > 1]))
    joined = [] if merged.is_empty else list(getattr(merged, "geoms", [merged]))
    return rings + [[(x, y) for x, y in line.coords] for line in joined]
