"""From a coast in degrees to a mesh in kilometres: meshes/coast.py and what it made."""

import csv
import importlib
import json
import re
import sys
from pathlib import Path

from mpi4py import MPI

import dolfinx.mesh
import numpy as np
import pytest
from scipy.sparse import coo_array, diags_array

from fpcontrol import mesh as meshes

shapely = pytest.importorskip("shapely")
pyproj = pytest.importorskip("pyproj")

MESHES = Path(__file__).parents[1] / "meshes"
GREAT_BRITAIN = MESHES / "data" / "great_britain_coast.csv"
SQUARE = [(10.0, 50.0), (11.0, 50.0), (11.0, 51.0), (10.0, 51.0), (10.0, 50.0)]


@pytest.fixture(scope="module")
def coast():
    """The generator, which is a script beside the meshes and not part of the package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(MESHES)
        yield importlib.import_module("coast")


@pytest.fixture(scope="module")
def great_britain(coast):
    points = coast.read_coast(GREAT_BRITAIN)
    return coast.island(points, coast.equal_area_projection(points))


def write(path: Path, points, header="longitude,latitude") -> Path:
    path.write_text("\n".join([header, *(f"{x},{y}" for x, y in points)]) + "\n")
    return path


def circle(longitude: float, latitude: float, radius: float, n: int = 400) -> list:
    """Closed coast of a round island, points at ``radius`` km from its centre."""
    azimuths = np.linspace(0.0, 360.0, n)
    centre = np.full(n, longitude), np.full(n, latitude)
    x, y, _ = pyproj.Geod(ellps="WGS84").fwd(*centre, azimuths, np.full(n, 1000.0 * radius))
    return [*zip(x[:-1], y[:-1], strict=True), (x[0], y[0])]


# --- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("points", "header", "message"),
    [
        (SQUARE[:-1], "longitude,latitude", "open.* 111 km .*repeat the first point"),
        (SQUARE[:2] + SQUARE[:1], "longitude,latitude", "at least 3 different points, not 2"),
        ([], "longitude,latitude", "at least 3 different points, not 0"),
        (SQUARE, "lon,latitude", "no column 'longitude'"),
        (SQUARE, "longitude,name", "no column 'latitude'"),
        ([*SQUARE, ("nan", 50.0)], "longitude,latitude", "line 7: longitude .* not 'nan'"),
        ([*SQUARE, (10.0, "x")], "longitude,latitude", "line 7: latitude .* not 'x'"),
        ([*SQUARE, (10.0, "")], "longitude,latitude", "line 7: latitude .* not ''"),
        ([*SQUARE, (10.0, 90.1)], "longitude,latitude", "latitude .* -90 to 90, not '90.1'"),
        ([*SQUARE, (-181, 50.0)], "longitude,latitude", "longitude .* -180 to 360, not '-181'"),
    ],
)
def test_a_file_that_is_no_closed_coast_is_refused(coast, tmp_path, points, header, message):
    with pytest.raises(ValueError, match=message):
        coast.read_coast(write(tmp_path / "coast.csv", points, header))


def test_a_coast_cut_off_anywhere_is_open(coast, tmp_path):
    lines = GREAT_BRITAIN.read_text().splitlines()
    for kept in (-1, -2, -10, -500):
        path = tmp_path / "cut.csv"
        path.write_text("\n".join(lines[:kept]))
        with pytest.raises(ValueError, match="open"):
            coast.read_coast(path)


def test_a_closing_point_off_by_rounding_is_the_first_point(coast, tmp_path):
    points = coast.read_coast(write(tmp_path / "c.csv", [*SQUARE[:-1], (10.0001, 50.0)]))
    assert points.tolist() == [list(point) for point in SQUARE[:-1]]


@pytest.mark.parametrize(
    ("points", "latitude"),
    [
        ([SQUARE[0], SQUARE[2], SQUARE[1], SQUARE[3], SQUARE[0]], 50.5),  # a figure of eight
        ([*SQUARE[:3], (10.5, 49.99), *SQUARE[3:]], 50.0),  # reaches through its first side
    ],
)
def test_a_coast_that_crosses_itself_is_refused_and_the_place_named(
    coast, tmp_path, points, latitude
):
    points = coast.read_coast(write(tmp_path / "coast.csv", points))
    with pytest.raises(ValueError, match="the coast crosses or touches itself") as caught:
        coast.island(points, coast.equal_area_projection(points))
    place = [float(number) for number in re.findall(r"\d+\.\d+", str(caught.value))]
    assert place == pytest.approx([10.5, latitude], abs=0.01)  # sides are straight in the plane


@pytest.mark.parametrize(
    ("cell_size", "message"),
    [
        (0.0, "must be a positive number of km, not 0"),
        (-8.0, "must be a positive number of km, not -8"),
        (np.nan, "must be a positive number of km, not nan"),
        (np.inf, "must be a positive number of km, not inf"),
        (500.0, "500 km is larger than the island"),
        (0.01, "0.01 km would make 5.1e.09 cells"),
    ],
)
def test_a_cell_size_that_does_not_fit_is_refused(coast, great_britain, cell_size, message):
    with pytest.raises(ValueError, match=f"--cell-size {message}"):
        coast.simplify(great_britain, cell_size)


@pytest.mark.parametrize(
    ("name", "out", "cell_size"),
    [
        ("absent.csv", "out.xdmf", "8"),
        ("coast.csv", "out.vtk", "8"),
        ("coast.csv", "absent/out.xdmf", "8"),
        ("coast.csv", "out.xdmf", "0"),
        ("coast.csv", "out.xdmf", "500"),
        ("open.csv", "out.xdmf", "8"),
    ],
)
def test_an_error_is_one_line_and_leaves_no_file(coast, tmp_path, capsys, name, out, cell_size):
    write(tmp_path / "coast.csv", SQUARE)
    write(tmp_path / "open.csv", SQUARE[:-1])
    before = sorted(tmp_path.iterdir())
    arguments = [str(tmp_path / name), "--out", str(tmp_path / out), "--cell-size", cell_size]
    assert coast.main(arguments) == 1
    message = capsys.readouterr().err
    assert message.startswith("coast.py: error: ")
    assert message.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_swapped_columns_are_noticed_where_a_latitude_cannot_be_one(coast, tmp_path):
    points = [(y, x + 100.0) for x, y in SQUARE]
    with pytest.raises(ValueError, match=r"not '110.0'; are longitude and latitude swapped\?"):
        coast.read_coast(write(tmp_path / "c.csv", points))


def test_further_islands_are_left_out_with_a_warning_and_lakes_are_not(coast, tmp_path, capsys):
    main, lake = circle(10.0, 50.0, 100.0), circle(10.0, 50.0, 20.0)
    islets = circle(13.0, 50.0, 10.0) + circle(7.0, 50.0, 10.0)
    path = write(tmp_path / "c.csv", islets + lake + main)
    assert len(coast.read_coast(path)) == len(main) - 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("c.csv: ")[1].split(" km2")[0] for line in lines] == [
        "further islands left out: 2, 628.3",
    ]
    first, *further = coast.read_lands(path, islands=3)
    assert [len(ring) for ring in first.lakes] == [len(lake) - 1] and len(further) == 2
    assert not any(land.lakes for land in further)
    with pytest.raises(ValueError, match=r"--islands 4 is more than the 3"):
        coast.read_lands(path, islands=4)
    assert capsys.readouterr().err == ""


def cut_at_180(longitude: float) -> tuple[list, list]:
    """The halves of a round island of 100 km east and west of 180 degrees, as data sets have it."""
    whole = shapely.Polygon(
        [(x if x > 0 else x + 360, y) for x, y in circle(longitude, -16.8, 100.0)]
    )
    halves = []
    for low in (170.0, 180.0):
        x, y = shapely.intersection(whole, shapely.box(low, -90, low + 10, 90)).exterior.xy
        halves.append([(a - 360.0 if low == 180.0 else a, b) for a, b in zip(x, y, strict=True)])
    return halves[0], halves[1]


@pytest.mark.parametrize("longitude", [179.9, 180.0])
def test_halves_of_an_island_cut_at_180_degrees_are_joined_and_one_is_refused(
    coast, tmp_path, longitude
):
    west, east = cut_at_180(longitude)
    points = coast.read_coast(write(tmp_path / "both.csv", west + east))
    polygon = coast.island(points, coast.equal_area_projection(points))
    assert polygon.area == pytest.approx(np.pi * 100.0**2, rel=1e-3)
    for half in (west, east):
        with pytest.raises(ValueError, match="its other half is not in the file"):
            coast.read_coast(write(tmp_path / "half.csv", half))


def test_parts_that_simplification_drops_are_counted(coast, capsys):
    neck = shapely.box(99.0, 50.0, 131.0, 52.0)
    both = shapely.union_all([shapely.box(0, 0, 100, 100), neck, shapely.box(130, 40, 150, 60)])
    coast.simplify(both, 10.0)
    assert "parts on necks below a cell, left out: 1, 403.2 km2" in capsys.readouterr().err


# --- projection and simplification -----------------------------------------------------------


def test_projected_area_is_the_area_on_the_ellipsoid(great_britain):
    points = np.loadtxt(GREAT_BRITAIN, delimiter=",", skiprows=1)
    area, _ = pyproj.Geod(ellps="WGS84").polygon_area_perimeter(*points.T)
    # Sides are geodesics there and straight lines here: 2e-7 apart on this coast.
    assert great_britain.area == pytest.approx(abs(area) / 1e6, rel=1e-6)


@pytest.mark.parametrize("centre", [(0.0, 10.0), (179.9, -16.8), (-50.0, 89.5)])
def test_an_island_on_the_seam_or_on_the_pole_is_as_any_other(coast, tmp_path, centre):
    points = coast.read_coast(write(tmp_path / "round.csv", circle(*centre, radius=100.0)))
    polygon = coast.island(points, coast.equal_area_projection(points))
    assert polygon.area == pytest.approx(np.pi * 100.0**2, rel=1e-3)
    assert np.hypot(polygon.centroid.x, polygon.centroid.y) < 2.0  # km; the centre has 2 digits


@pytest.mark.parametrize(("cell_size", "change"), [(5.0, 0.015), (8.0, 0.02), (20.0, 0.03)])
def test_simplified_coast_is_a_simple_polygon_of_nearly_the_same_area(
    coast, great_britain, cell_size, change
):
    polygon = coast.simplify(great_britain, cell_size)
    corners = shapely.get_coordinates(polygon.exterior)
    sides = np.diff(corners, axis=0)
    lengths = np.hypot(*sides.T)
    cosines = -np.sum(sides * np.roll(sides, 1, axis=0), axis=1) / (lengths * np.roll(lengths, 1))
    assert polygon.is_valid
    assert len(polygon.interiors) == 0
    assert len(corners) < 800
    assert polygon.area == pytest.approx(great_britain.area, rel=change)
    assert lengths.min() >= 0.7 * cell_size
    assert np.degrees(np.arccos(cosines)).min() >= 30.0
    assert shapely.hausdorff_distance(polygon, great_britain) < 60.0  # sea lochs are long


@pytest.mark.parametrize(("width", "kept"), [(4.0, False), (15.0, True)])
def test_inlets_and_spits_stay_if_wider_than_a_cell_and_go_if_narrower_than_half(
    coast, width, kept
):
    spit, inlet = (
        shapely.box(-30.0, 40.0, 0.0, 40 + width),
        shapely.box(40.0, 70.0, 40 + width, 100),
    )
    polygon = coast.simplify(shapely.box(0.0, 0.0, 100.0, 100.0).union(spit) - inlet, 10.0)
    in_spit, in_inlet = shapely.Point(-15.0, 40 + width / 2), shapely.Point(40 + width / 2, 85.0)
    assert polygon.contains(in_spit) == kept
    assert polygon.contains(in_inlet) != kept


def test_an_island_too_thin_for_its_cells_is_refused(coast):
    with pytest.raises(ValueError, match="--cell-size 12 km is too large for the island's shape"):
        coast.simplify(shapely.box(0.0, 0.0, 5.0, 200.0), 12.0)


# --- the mesh of Great Britain ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "fewest", "most", "change"),
    [("great_britain", 5000, 6500, 0.02), ("great_britain_coarse", 1500, 1800, 0.03)],
)
def test_great_britain_is_meshed_as_recorded(great_britain, name, fewest, most, change):
    record = json.loads((MESHES / f"{name}.json").read_text(encoding="utf-8"))
    mesh = meshes.read(MESHES / f"{name}.xdmf", MPI.COMM_SELF)
    triangles = shapely.polygons(mesh.geometry.x[mesh.geometry.dofmaps[0], :2])
    meshed = shapely.union_all(triangles)
    assert fewest <= len(triangles) <= most
    assert record["coast"]["area"] == pytest.approx(great_britain.area, rel=1e-12)
    fine = json.loads((MESHES / "great_britain.json").read_text(encoding="utf-8"))
    assert record["projection"] == fine["projection"]
    # One simple polygon, of the recorded area: no cells overlap and there is no gap between them.
    assert meshed.geom_type == "Polygon"
    assert len(meshed.interiors) == 0
    for area in (meshed.area, shapely.area(triangles).sum()):
        assert area / great_britain.area - 1 == pytest.approx(record["polygon"]["area_change"])
    assert abs(record["polygon"]["area_change"]) < change
    missing = great_britain.difference(meshed).area / great_britain.area
    assert missing == pytest.approx(record["polygon"]["land_left_out"], rel=1e-6)


@pytest.mark.parametrize(("table", "outside"), [("places", 31), ("airfields", 2)])
def test_few_points_lie_outside_the_mesh_and_those_are_near(table, outside):
    record = json.loads((MESHES / "great_britain.json").read_text(encoding="utf-8"))
    with (MESHES / "data" / f"great_britain_{table}.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    degrees = np.array([(row["longitude"], row["latitude"]) for row in rows], dtype=float)
    to_mesh = pyproj.Transformer.from_crs("EPSG:4326", record["projection"], always_xy=True)
    points = shapely.points(*to_mesh.transform(*degrees.T))
    mesh = meshes.read(MESHES / "great_britain.xdmf", MPI.COMM_SELF)
    meshed = shapely.union_all(shapely.polygons(mesh.geometry.x[mesh.geometry.dofmaps[0], :2]))
    distance = shapely.distance(meshed, points)
    assert np.count_nonzero(distance) == outside
    assert distance.max() < record["cell_size"]
    if table == "places":
        people = np.array([row["population"] for row in rows], dtype=float)
        assert people[distance > 0.0].sum() < 0.01 * people.sum()


@pytest.mark.parametrize("name", ["great_britain", "disk", "l_shape"])
def test_no_off_diagonal_of_a_shipped_mesh_is_positive(name):
    """The P1 stiffness matrix, assembled here from its gradients, is an M-matrix."""
    mesh = meshes.read(MESHES / f"{name}.xdmf", MPI.COMM_SELF)
    cells = mesh.geometry.dofmaps[0]
    x = mesh.geometry.x[cells, :2]
    opposite = np.roll(x, -1, axis=1) - np.roll(x, -2, axis=1)  # edges; gradients turned by 90
    jacobian = np.linalg.det(x[:, 1:] - x[:, :1])
    local = opposite @ opposite.transpose(0, 2, 1) / (2 * np.abs(jacobian))[:, None, None]
    rows, columns = np.repeat(cells, 3, axis=1).ravel(), np.tile(cells, 3).ravel()
    stiffness = coo_array((local.ravel(), (rows, columns))).tocsr()
    assert abs(stiffness.sum(axis=1)).max() < 1e-12
    assert (stiffness - diags_array(stiffness.diagonal())).max() <= 1e-12


# --- the generators, with gmsh ---------------------------------------------------------------


@pytest.fixture(scope="module")
def gmsh():
    try:
        return importlib.import_module("gmsh")
    except (ImportError, OSError) as error:  # OSError: one of its libraries is missing
        pytest.skip(f"gmsh cannot be loaded: {error}")


def check_made(path: Path, area: float, sides: dict[str, float]) -> dict:
    """Read what a generator wrote; its area and the lengths of its sides are as they should be."""
    record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    mesh = meshes.read(path, MPI.COMM_SELF)
    tags = meshes.read_facet_tags(path, mesh)
    triangles = shapely.polygons(mesh.geometry.x[mesh.geometry.dofmaps[0], :2])
    walls = mesh.geometry.x[dolfinx.mesh.entities_to_geometry(mesh, 1, tags.indices), :2]
    lengths = np.bincount(tags.values, shapely.length(shapely.linestrings(walls)))
    tagged = {name: lengths[tag] for name, tag in record["facet_tags"].items()}
    assert len(triangles) == record["mesh"]["cells"]
    assert shapely.area(triangles).sum() == pytest.approx(area)
    assert tagged == pytest.approx(sides)
    assert record["mesh"]["smallest_angle"] > 25.0
    assert sorted(entry.name for entry in path.parent.iterdir()) == sorted(
        path.with_suffix(suffix).name for suffix in (".h5", ".json", ".xdmf")
    )
    return record


def test_generator_meshes_an_island(gmsh, coast, great_britain, tmp_path, capsys):
    out = tmp_path / "island.xdmf"
    arguments = [str(GREAT_BRITAIN), "--out", str(out), "--cell-size", "15", "--licence", "none"]
    assert coast.main(arguments) == 0
    simple = coast.simplify(great_britain, 15.0)
    record = check_made(out, simple.area, {"coast": simple.length})
    assert record["licence"] == "none"
    # As many as equilateral ones of this size, and a few more as the coast's are smaller.
    assert record["mesh"]["cells"] == pytest.approx(4 / 3**0.5 * simple.area / 15.0**2, rel=0.3)
    assert f"{record['mesh']['cells']} cells" in capsys.readouterr().out


N = 42  # sides of the disk's polygon: as many as fit on the circle at 0.75 cells


@pytest.mark.parametrize(
    ("shape", "area", "sides"),
    [
        ("disk", np.pi * np.sinc(2 / N), {"boundary": 2 * np.pi * np.sinc(1 / N)}),
        ("l-shape", 3.0, {"outer": 6.0, "inner": 2.0}),
    ],
)
def test_generator_meshes_a_shape(gmsh, coast, tmp_path, shape, area, sides):
    shapes = importlib.import_module("shapes")  # on the path, as coast is
    assert shapes.main([shape, "--out", str(tmp_path / "made.xdmf"), "--cell-size", "0.2"]) == 0
    check_made(tmp_path / "made.xdmf", area, sides)


def test_without_gmsh_the_error_says_what_to_install(coast, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "gmsh", None)  # importing it is now an ImportError
    path = write(tmp_path / "coast.csv", SQUARE)
    assert coast.main([str(path), "--out", str(tmp_path / "o.xdmf"), "--cell-size", "8"]) == 1
    assert "pip install gmsh" in capsys.readouterr().err


def test_without_the_library_of_gmsh_the_error_is_one_line(coast, tmp_path, capsys, monkeypatch):
    # As gmsh's module is then: it has a warning, and looks up its functions in the process.
    text = "import ctypes\nprint('Warning: could not find')\nlib = ctypes.CDLL(None)\n"
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake" / "gmsh.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path / "fake")
    monkeypatch.delitem(sys.modules, "gmsh", raising=False)
    path = write(tmp_path / "coast.csv", SQUARE)
    assert coast.main([str(path), "--out", str(tmp_path / "o.xdmf"), "--cell-size", "8"]) == 1
    out = capsys.readouterr()
    monkeypatch.delitem(sys.modules, "gmsh", raising=False)
    assert out.out == ""
    assert out.err.count("\n") == 1
    assert "its shared library is not found" in out.err
