"""Tables of points in degrees, projected to the plane of a mesh (``fpcontrol.io.read_points``)."""

import csv
import io
import json
import os
from pathlib import Path

from mpi4py import MPI

import numpy as np

from fpcontrol.parallel.errors import collective_errors
from fpcontrol.typing import Array

# Of WGS 84; longitudes may count from 0 or from -180 degrees.
RANGES = {"longitude": (-180.0, 360.0), "latitude": (-90.0, 90.0)}
# Columns are swapped if all points are so many times as far from the centre as the farthest else.
SWAPPED = 2.0


def read_points(
    path: str | os.PathLike[str],
    comm: MPI.Comm,
    *,
    masses: str | None = None,
    projection: str | os.PathLike[str] | None = None,
) -> tuple[Array, Array]:
    """Read a table of points with a header line, longitude and latitude in degrees. Collective.

    Args:
        path: CSV file in UTF-8, with or without a byte-order mark, with columns ``longitude``,
            ``latitude`` (WGS 84), separated by commas, and points as decimal marks.
        comm: Communicator; rank 0 reads.
        masses: Name of the column with each point's mass, not negative; equal masses unless given.
        projection: PROJ string, or the ``.json`` file beside a mesh made by ``meshes/coast.py``,
            which holds the projection of that mesh; needs pyproj.

    Returns:
        Points ``(N, 2)`` in the projection's unit and masses ``(N,)``, the same on all ranks.

    Raises:
        OSError: On all ranks, if a file cannot be read.
        ValueError: On all ranks, if a column or all rows are missing, an entry is not a number or
            out of range, or the file is not in UTF-8; says where, and which columns there are. If
            all points are far from the centre of an azimuthal projection, and near it with
            longitude and latitude swapped.
    """
    table = None
    with collective_errors(comm):
        if comm.rank == 0:
            table = _rows(Path(path), ["longitude", "latitude"] + ([masses] if masses else []))
            if projection is not None:
                table[:, :2] = _project(table[:, :2], projection)
    table = comm.bcast(table)
    return table[:, :2], table[:, 2] if masses else np.ones(len(table))


def _rows(path: Path, columns: list[str]) -> Array:
    """Numbers in some columns of a table, ``(rows, columns)``."""
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{path}, line {line}: byte 0x{content[error.start]:02x} is not UTF-8. Save the table "
            "in UTF-8; it may be in Latin-1 (iconv -f latin1 -t utf-8) or UTF-16."
        ) from None
    lines = csv.DictReader(
        io.StringIO(text, newline=""), restval=""
    )  # a short line lacks its last values
    try:
        found = [name.strip() for name in lines.fieldnames or ()]
        lines.fieldnames = found
        missing = [name for name in columns if name not in found]
        if missing:
            raise ValueError(
                f"{path} has no column {missing[0]!r}; {_described(found)}. The first line names "
                "the columns, separated by commas."
            )
        table = [
            [_number(row[name], name, path, lines.line_num) for name in columns] for row in lines
        ]
    except csv.Error as error:
        raise ValueError(f"{path}, line {lines.line_num}: {error}") from None
    if not table:
        raise ValueError(f"{path} has no rows below its columns {', '.join(found)}.")
    return np.array(table)


def _described(found: list[str]) -> str:
    if not found:
        return "the file is empty"
    if len(found) == 1:
        for mark, name in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
            if mark in found[0]:
                return f"its columns are separated by {name}: {found[0]!r}"
    return f"it has {', '.join(map(repr, found))}"


def _number(text: str, name: str, path: Path, line: int) -> float:
    lowest, highest = RANGES.get(name, (0.0, np.finfo(float).max))
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not lowest <= value <= highest:  # false of NaN too
        allowed = f"from {lowest:g} to {highest:g}" if name in RANGES else ">= 0, and finite"
        raise ValueError(f"{path}, line {line}: {name} must be a number {allowed}, not {text!r}.")
    return value


def _project(degrees: Array, projection: str | os.PathLike[str]) -> Array:
    from pyproj import Transformer
    from pyproj.exceptions import CRSError

    given = projection
    if str(projection).endswith(".json"):
        try:
            projection = json.loads(Path(projection).read_text(encoding="utf-8"))["projection"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"projection = {str(given)!r} has no entry 'projection' ({error!r}); give the "
                ".json file beside a mesh made by meshes/coast.py."
            ) from None
    try:
        to_plane = Transformer.from_crs("EPSG:4326", str(projection), always_xy=True)
    except CRSError as error:
        raise ValueError(f"projection = {str(given)!r} is none that PROJ knows: {error}") from None
    points = np.column_stack(to_plane.transform(degrees[:, 0], degrees[:, 1]))
    if "+proj=laea" in str(projection) and (np.abs(degrees[:, 0]) <= 90.0).all():
        swapped = np.column_stack(to_plane.transform(degrees[:, 1], degrees[:, 0]))
        near, far = np.hypot(*points.T).min(), np.hypot(*swapped.T).max()
        if near > SWAPPED * far:
            raise ValueError(
                "longitude and latitude seem to be swapped: all points are more than "
                f"{near:.4g} from the centre of the projection {str(given)!r}, in its unit, and "
                f"with the two swapped all would be within {far:.4g} of it. Swap the names of the "
                "two columns."
            )
    return points
