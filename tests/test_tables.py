"""Tables of points: read, projected, and refused with the line that is wrong."""

import json
from pathlib import Path

import numpy as np
import pytest
from problems import WORLD, raised

import fpcontrol as fpc


def table(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "towns.csv"
    if WORLD.rank == 0:
        path.write_text(text, encoding=encoding)
    WORLD.barrier()
    return path


@pytest.mark.parallel([1, 2, 3])
def test_points_are_read_with_their_masses(tmp_path):
    text = "name,latitude,people,longitude\nA,51.5,9e6,-0.1\nB,55.9,5e5,-3.2\n"
    path = table(tmp_path, text)
    points, masses = fpc.io.read_points(path, WORLD, masses="people")
    assert points.tolist() == [[-0.1, 51.5], [-3.2, 55.9]]
    assert masses.tolist() == [9e6, 5e5]
    assert fpc.io.read_points(path, WORLD)[1].tolist() == [1.0, 1.0]


@pytest.mark.parallel([1, 2])
def test_points_are_projected(tmp_path):
    pytest.importorskip("pyproj")
    projection = "+proj=laea +lat_0=54 +lon_0=-2 +units=km"
    path = table(tmp_path, "longitude,latitude\n-2,54\n-2,55\n")
    record = tmp_path / "mesh.json"
    if WORLD.rank == 0:
        record.write_text(json.dumps({"projection": projection}))
    WORLD.barrier()
    for given in (projection, record):
        points, _ = fpc.io.read_points(path, WORLD, projection=given)
        # A degree of latitude is 111.3 km at 54 degrees north.
        assert points == pytest.approx(np.array([[0.0, 0.0], [0.0, 111.3]]), abs=0.05)


@pytest.mark.parallel([1, 2])
def test_swapped_columns_are_noticed_by_the_centre_of_the_projection(tmp_path):
    pytest.importorskip("pyproj")
    projection = "+proj=laea +lat_0=54 +lon_0=-2 +units=km"
    path = table(tmp_path, "longitude,latitude\n53,-3\n51.5,-0.1\n57,-4\n")
    message = raised(ValueError, lambda: fpc.io.read_points(path, WORLD, projection=projection))
    assert "seem to be swapped" in message and "Swap the names" in message
    # As they should be; of another country; and some of them near as they are.
    for rows in ("-3,53\n-0.1,51.5\n", "10,50\n12,47\n", "53,-3\n-2,54\n"):
        path = table(tmp_path, "longitude,latitude\n" + rows)
        fpc.io.read_points(path, WORLD, projection=projection)


HEAD = "name,longitude,latitude,people\n"


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("text", [HEAD, HEAD.replace(",", " , ")])
def test_byte_order_mark_and_blanks_around_names_do_no_harm(text, tmp_path):
    path = table(tmp_path, text + "Köln,6.96,50.94,1e6\n\n", "utf-8-sig")
    points, masses = fpc.io.read_points(path, WORLD, masses="people")
    assert (points.tolist(), masses.tolist()) == ([[6.96, 50.94]], [1e6])


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no column 'longitude'; the file is empty"),
        (HEAD, "has no rows below its columns name, longitude, latitude, people"),
        ("longitude,lat,people\n1,2,3\n", "no column 'latitude'; it has 'longitude', 'lat', 'pe"),
        ("longitude,latitude\n1,2\n", "no column 'people'; it has 'longitude', 'latitude'"),
        (HEAD.replace(",", ";") + "A;1;2;3\n", "its columns are separated by semicolons"),
        (HEAD.replace(",", "\t") + "A\t1\t2\t3\n", "its columns are separated by tabs"),
        (HEAD + "A,1,2,3\nB,1,north,3\n", "line 3: latitude must be a number from -90 to 90, n"),
        (HEAD + "A,1,2,3\nB,1\n", "line 3: latitude must be a number from -90 to 90, not ''"),
        (HEAD + "A,nan,2,3\n", "line 2: longitude must be a number from -180 to 360, not 'nan'"),
        (HEAD + "A,inf,2,3\n", "line 2: longitude must be a number from -180 to 360, not 'inf'"),
        (HEAD + "A,1,95,3\n", "line 2: latitude must be a number from -90 to 90, not '95'"),
        (HEAD + "A,-200,5,3\n", "line 2: longitude must be a number from -180 to 360, not '-200'"),
        (HEAD + 'A,"1,5",5,3\n', "line 2: longitude must be a number from -180 to 360, not '1,5'"),
        (HEAD + "A,1,5,\n", "line 2: people must be a number >= 0, and finite, not ''"),
        (HEAD + "A,1,5,-3\n", "line 2: people must be a number >= 0, and finite, not '-3'"),
        (HEAD + "A,1,5,inf\n", "line 2: people must be a number >= 0, and finite, not 'inf'"),
    ],
)
def test_bad_tables_are_refused(text, message, tmp_path):
    path = table(tmp_path, text)
    refusal = raised(ValueError, lambda: fpc.io.read_points(path, WORLD, masses="people"))
    assert message in refusal
    assert str(path) in refusal


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize(("encoding", "line"), [("latin-1", 3), ("utf-16", 1)])
def test_other_encodings_are_named(encoding, line, tmp_path):
    path = table(tmp_path, HEAD + "A,1,2,3\nKöln,6.96,50.94,1e6\n", encoding)
    refusal = raised(ValueError, lambda: fpc.io.read_points(path, WORLD))
    assert f"{path}, line {line}: byte 0x" in refusal
    assert "is not UTF-8" in refusal


@pytest.mark.parallel([1, 2])
def test_projection_that_is_none_is_refused(tmp_path):
    pytest.importorskip("pyproj")
    path = table(tmp_path, HEAD + "A,1,2,3\n")
    other = tmp_path / "other.json"
    if WORLD.rank == 0:
        other.write_text("{}")
    WORLD.barrier()
    for given, message in [(other, "has no entry 'projection'"), ("+proj=none", "PROJ")]:
        call = lambda g=given: fpc.io.read_points(path, WORLD, projection=g)  # noqa: E731
        assert message in raised(ValueError, call)
    raised(OSError, lambda: fpc.io.read_points(path, WORLD, projection="absent.json"))
    raised(OSError, lambda: fpc.io.read_points(tmp_path / "absent.csv", WORLD))
