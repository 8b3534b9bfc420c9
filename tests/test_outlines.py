"""Coasts of several islands with lakes, from GeoJSON and shapefiles: meshes/outlines.py."""

import importlib
import json
from pathlib import Path

from mpi4py import MPI

import numpy as np
import pytest

import fpcontrol as fpc
from fpcontrol.mesh import msh

shapely = pytest.importorskip("shapely")
pyproj = pytest.importorskip("pyproj")

MESHES = Path(__file__).parents[1] / "meshes"


@pytest.fixture(scope="module")
def coast():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(MESHES)
        yield importlib.import_module("coast")


def ring(longitude: float, latitude: float, radius: float, n: int = 200) -> list:
    """A round coast, closed, of ``radius`` km."""
    azimuths = np.linspace(0.0, 360.0, n)
    centre = np.full(n, longitude), np.full(n, latitude)
    x, y, _ = pyproj.Geod(ellps="WGS84").fwd(*centre, azimuths, np.full(n, 1000.0 * radius))
    points = list(zip(x[:-1].tolist(), y[:-1].tolist(), strict=True))
    return [*points, points[0]]


MAIN, LAKE, POND = ring(10.0, 50.0, 100.0), ring(10.3, 50.1, 25.0), ring(9.3, 49.8, 3.0)
ISLET = ring(12.0, 50.0, 20.0)


def geojson(path: Path, *geometries, crs: str | None = None) -> Path:
    features = [{"type": "Feature", "properties": {}, "geometry": g} for g in geometries]
    found = {"type": "FeatureCollection", "features": features}
    if crs:
        found["crs"] = {"type": "name", "properties": {"name": crs}}
    path.write_text(json.dumps(found))
    return path


def shape(kind: str, coordinates) -> dict:
    return {"type": kind, "coordinates": coordinates}


def test_polygons_and_pieces_of_lines_are_the_same_land(coast, tmp_path):
    table = tmp_path / "c.csv"
    lines = [f"{x!r},{y!r}" for part in (MAIN, LAKE, POND, ISLET) for x, y in part]
    table.write_text("\n".join(["longitude,latitude", *lines]))
    polygons = geojson(
        tmp_path / "polygons.geojson",
        shape("Point", [0.0, 0.0]),
        shape("MultiPolygon", [[ISLET], [MAIN, LAKE, POND]]),
        crs="urn:ogc:def:crs:OGC:1.3:CRS84",
    )
    pieces = geojson(
        tmp_path / "lines.json",
        shape("LineString", MAIN[:80]),
        shape("MultiLineString", [LAKE, MAIN[:78:-1], ISLET]),  # the second runs the other way
        {"type": "GeometryCollection", "geometries": [shape("Polygon", [POND])]},
    )
    lands = [coast.read_lands(path, islands=2) for path in (table, polygons, pieces)]
    for main, islet in lands:
        assert [len(x) for x in main.lakes] == [199, 199] and not islet.lakes
        for found, given in ((main.coast, MAIN), (islet.coast, ISLET), (main.lakes[0], LAKE)):
            assert {*map(tuple, found.tolist())} == set(given)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no GeoJSON"),
        ("[1]", "holds a list, no object"),
        ('{"type": "Topology"}', "an object of type 'Topology'"),
        ('{"type": "FeatureCollection", "features": []}', "no polygons and no lines"),
        ('{"type": "LineString", "coordinates": [[50, 10], [50, 110]]}', "latitude swapped"),
        ('{"type": "LineString", "coordinates": [[5], [6]]}', "two coordinates"),
        ('{"type": "LineString", "coordinates": [[5, "x"], [6, 7]]}', "latitude .* not 'x'"),
        (
            '{"type": "LineString", "coordinates": [[1, 2], [3, 4], [4, 3]]}',
            "the coast is open",
        ),
        (
            '{"type": "Point", "coordinates": [1, 2], "crs": {"type": "name", '
            '"properties": {"name": "urn:ogc:def:crs:EPSG::27700"}}}',
            "EPSG::27700; longitude and latitude are needed",
        ),
    ],
)
def test_files_that_are_no_coast_are_refused(coast, tmp_path, text, message):
    path = tmp_path / "c.geojson"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        coast.read_lands(path)


def test_a_system_whose_latitude_comes_first_is_warned_of(coast, tmp_path, capsys):
    path = geojson(
        tmp_path / "c.geojson", shape("Polygon", [MAIN]), crs="urn:ogc:def:crs:EPSG::4326"
    )
    assert len(coast.read_coast(path)) == len(MAIN) - 1
    assert "longitude first" in capsys.readouterr().err


def test_halves_cut_at_180_degrees_are_joined_in_geojson_too(coast, tmp_path):
    whole = shapely.Polygon([(x % 360.0, y) for x, y in ring(180.0, -16.8, 100.0)])
    halves = [
        shapely.intersection(whole, shapely.box(low, -90, low + 10, 90)) for low in (170, 180)
    ]
    west, east = (np.array(half.exterior.coords) for half in halves)
    east[:, 0] -= 360.0
    both = geojson(
        tmp_path / "b.geojson", shape("MultiPolygon", [[west.tolist()], [east.tolist()]])
    )
    points = coast.read_coast(both)
    area = coast.island(points, coast.equal_area_projection(points)).area
    assert area == pytest.approx(np.pi * 100.0**2, rel=1e-3)
    with pytest.raises(ValueError, match="its other half is not in the file"):
        coast.read_coast(geojson(tmp_path / "h.geojson", shape("Polygon", [west.tolist()])))


def test_shapefiles_are_read_with_their_holes_and_projected_ones_refused(coast, tmp_path):
    shapefile = pytest.importorskip("shapefile")
    path = tmp_path / "c.shp"
    with shapefile.Writer(str(path), shapeType=shapefile.POLYGON) as writer:
        writer.field("name", "C")
        writer.poly([MAIN, LAKE[::-1]])
        writer.record("main")
        writer.poly([ISLET])
        writer.record("islet")
    main, islet = coast.read_lands(path, islands=2)
    assert len(main.coast) == len(MAIN) - 1 and len(main.lakes) == 1 and len(islet.coast) == 199
    path.with_suffix(".prj").write_text(pyproj.CRS("EPSG:27700").to_wkt("WKT1_ESRI"))
    with pytest.raises(ValueError, match="are projected"):
        coast.read_lands(path)


def test_lakes_with_room_for_cells_are_holes_and_the_others_land(coast, capsys):
    land = shapely.Point(0.0, 0.0).buffer(100.0)
    lakes = [shapely.Point(*p).buffer(r) for p, r in (((0, 0), 30), ((60, 0), 5), ((0, 89), 10))]
    cut = coast.holes(coast.simplify(land, 8.0), lakes, 8.0)
    assert len(cut) == 1 and cut[0].area == pytest.approx(lakes[0].area, rel=0.05)
    gone = lakes[1].area + lakes[2].area
    assert f"become land: 2, {gone:.4g} km2" in capsys.readouterr().err


def test_generator_meshes_islands_with_a_lake(coast, tmp_path, capsys):
    if msh.load_gmsh() is None:
        pytest.skip("gmsh cannot be loaded")
    path = geojson(tmp_path / "c.geojson", shape("MultiPolygon", [[MAIN, LAKE, POND], [ISLET]]))
    out = tmp_path / "made.xdmf"
    options = [str(path), "--out", str(out), "--cell-size", "8", "--islands", "2"]
    assert coast.main(options) == 0
    assert "become land: 1, 28.2" in capsys.readouterr().err
    record = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))
    assert (record["polygon"]["islands"], record["polygon"]["lakes"]) == (2, 1)
    mesh = fpc.mesh.read(out, MPI.COMM_SELF)
    area = np.pi * (100.0**2 - 25.0**2 + 20.0**2)
    assert fpc.density.uniform(mesh, degree=1).x.array[0] == pytest.approx(1.0 / area, rel=0.02)
    tags = fpc.mesh.read_facet_tags(out, mesh)
    tags = fpc.mesh.NamedTags(tags, record["facet_tags"])
    equation = fpc.FokkerPlanck(
        mesh, fpc.drift.zero(), 10.0, absorbing="lakes", facet_tags=tags, degree=1
    )
    run = equation.solve(fpc.density.uniform(mesh, degree=1), 50.0, 20, save="last")
    # The islet has no lake: its share of the mass stays.
    assert 20.0**2 / (area / np.pi) < run.mass[-1] < 0.6 and run.mass_defect < 1e-12
    with pytest.raises(SystemExit):
        coast.main([*options, "--islands", "two"])
    assert coast.main([*options, "--islands", "0"]) == 1
    assert "--islands must be at least 1, not 0" in capsys.readouterr().err
