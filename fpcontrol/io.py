"""Files: densities for ParaView, records of runs, tables of points."""

import csv
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mpi4py import MPI

import dolfinx
import numpy as np
from dolfinx import fem
from dolfinx.io import VTXWriter
from petsc4py import PETSc

from fpcontrol.characteristics.flow import Flow
from fpcontrol.control.result import Result
from fpcontrol.parallel.errors import collective_errors
from fpcontrol.parallel.files import output_path, replacing
from fpcontrol.reference import MoserFlow
from fpcontrol.trajectory import Trajectory
from fpcontrol.typing import Array


def write(
    trajectory: Trajectory,
    path: str | os.PathLike[str],
    *,
    reference: MoserFlow | None = None,
    every: int = 1,
) -> None:
    """Write densities over time as VTX (a ``.bp`` folder), which ParaView opens. Collective.

    Args:
        trajectory: What to write, as ``density``; of a ``Flow``, its ``on_mesh``.
        path: Ends in ``.bp``.
        reference: If given, ``reference`` and ``error`` (density minus reference) are written too.
        every: Write every so many levels; the last one is always written.

    Raises:
        ValueError: On all ranks, for another suffix, labels instead of levels on a mesh, or an
            ``every`` that is no positive integer.
        OSError: On all ranks, if the folder cannot be written to.
    """
    if isinstance(trajectory, Flow):
        raise ValueError(
            "trajectory is a Flow: densities along labels (sigma = 0), on no mesh. Write "
            "trajectory.on_mesh(space), with a Lagrange space such as problem.elements.space."
        )
    if not isinstance(every, int | np.integer) or every < 1:
        raise ValueError(f"every = {every!r} must be a positive integer.")
    space = trajectory.space
    comm = space.mesh.comm
    if Path(path).suffix != ".bp":
        raise ValueError(f"path = {str(path)!r} must end in .bp (VTX, for ParaView).")
    target = output_path(path, comm, bp=True)
    names = ["density"] if reference is None else ["density", "reference", "error"]
    fields = [fem.Function(space, name=name) for name in names]
    levels = sorted({*range(0, len(trajectory), every), len(trajectory) - 1})
    with replacing(target, comm) as beside, VTXWriter(comm, beside, fields) as writer:
        for n in levels:
            fields[0].x.array[:] = trajectory.levels[n]
            if reference is not None:
                fields[1].x.array[:] = reference.coefficients(trajectory.times[n])
                fields[2].x.array[:] = fields[0].x.array - fields[1].x.array
            writer.write(trajectory.times[n])


def record(result: Result) -> dict[str, Any]:
    """Parameters, versions, ranks and figures of a run, ready for JSON. Collective."""
    errors, problem = result.errors, result.problem
    last = result.history[-1]
    return {
        "problem": problem.fingerprint()
        | {
            "dofs": problem.elements.index_map.size_global,
            "quadrature_degree": problem.elements.quadrature_degree,
            "seed": getattr(problem.drift, "seed", None),
        }
        | problem.runs.settings(),
        "optimizer": dict(result.optimizer),
        "figures": {
            "relative_error": errors.relative_error,
            "relative_sup_error": errors.relative_sup_error,
            "final_error": errors.final_error,
            "value": errors.value,
            "minimum_density": result.minimum_density,
            "mass_defect": result.mass_defect,
            "iterations": last.iteration,
            "evaluations": result.evaluations,
            "seconds": last.seconds,
            "stopped_by": result.reason,
        },
        "history": {
            name: [getattr(i, name) for i in result.history]
            for name in ("iteration", "evaluations", "value", "relative_error", "gradient_norm")
        },
        "ranks": problem.elements.comm.size,
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a figure depends on."""
    found = {"python": platform.python_version()}
    found["petsc"] = ".".join(map(str, PETSc.Sys.getVersion()))
    found["dolfinx"] = dolfinx.__version__  # its wheel and its conda package have different names
    for name in ("fpcontrol", "fenics-ufl", "fenics-basix", "mpi4py", "numpy", "scipy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def write_record(
    result: Result, path: str | os.PathLike[str], extra: Mapping[str, Any] | None = None
) -> None:
    """Write ``record(result)`` and what the caller adds as JSON. Collective.

    Args:
        result: From ``minimize``.
        path: Where to.
        extra: Entries beside those of ``record``, see ``write_json``; such as the options of a
            program, without which the run could not be made again.

    Raises:
        OSError: On all ranks, if the folder cannot be written to.
    """
    content = record(result) | dict(extra or {})
    write_json(content, path, result.problem.elements.comm)


def write_json(content: Mapping[str, Any], path: str | os.PathLike[str], comm: MPI.Comm) -> None:
    """Write rank 0's content as JSON; dataclasses become objects, paths strings. Collective."""
    with replacing(output_path(path, comm), comm) as beside:
        if comm.rank == 0:
            beside.write_text(json.dumps(content, indent=1, default=_plain) + "\n")


def _plain(value: Any) -> Any:
    """What JSON has for a value that is none of its own."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in fields(value)}
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{value!r} has no form in JSON.")


def read_points(
    path: str | os.PathLike[str],
    comm: MPI.Comm,
    *,
    masses: str | None = None,
    projection: str | os.PathLike[str] | None = None,
) -> tuple[Array, Array]:
    """Read a table of points with a header line, longitude and latitude in degrees. Collective.

    Args:
        path: CSV file with columns ``longitude``, ``latitude`` (WGS 84).
        comm: Communicator; rank 0 reads.
        masses: Name of the column with each point's mass; equal masses unless given.
        projection: PROJ string, or the ``.json`` file beside a mesh made by ``meshes/coast.py``,
            which holds the projection of that mesh; needs pyproj.

    Returns:
        Points ``(N, 2)`` in the projection's unit and masses ``(N,)``, the same on all ranks.

    Raises:
        OSError: On all ranks, if a file cannot be read.
        ValueError: On all ranks, if a column is missing or an entry is not a number.
    """
    table = None
    with collective_errors(comm):
        if comm.rank == 0:
            with open(path, newline="") as file:
                rows = list(csv.DictReader(file))
            columns = ["longitude", "latitude"] + ([masses] if masses else [])
            missing = [c for c in columns if not rows or c not in rows[0]]
            if missing:
                raise ValueError(f"{path} has no column {missing[0]!r}, or no rows.")
            try:
                table = np.array([[float(row[c]) for c in columns] for row in rows])
            except (TypeError, ValueError) as error:
                raise ValueError(f"{path} has an entry that is not a number: {error}") from None
            if projection is not None:
                table[:, :2] = _project(table[:, :2], projection)
    table = comm.bcast(table)
    return table[:, :2], table[:, 2] if masses else np.ones(len(table))


def _project(degrees: Array, projection: str | os.PathLike[str]) -> Array:
    from pyproj import Transformer

    if str(projection).endswith(".json"):
        projection = json.loads(Path(projection).read_text())["projection"]
    to_plane = Transformer.from_crs("EPSG:4326", str(projection), always_xy=True)
    return np.column_stack(to_plane.transform(degrees[:, 0], degrees[:, 1]))
