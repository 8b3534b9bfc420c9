"""Trajectories and densities kept in one ``.npz`` file, to be read back on any number of ranks.

Values are kept with the coordinates of their nodes, by which they are found again: the numbers of
nodes depend on how a mesh is distributed. (``fpcontrol.io.save``, ``fpcontrol.io.load``.)
"""

import contextlib
import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from mpi4py import MPI

import numpy as np
from dolfinx import fem
from dolfinx.mesh import Mesh
from numpy.lib import format as npy
from scipy.spatial import cKDTree

from fpcontrol.characteristics.flow import Flow
from fpcontrol.discretization.elements import MAX_DEGREE, lagrange
from fpcontrol.discretization.periodic import dof_places
from fpcontrol.parallel.communicators import comm_of
from fpcontrol.parallel.errors import collective_errors, reduced
from fpcontrol.parallel.files import output_path, replacing, reserve
from fpcontrol.stepping.resolution import CellPeclet
from fpcontrol.trajectory import Trajectory, blank
from fpcontrol.typing import Array

# Of the extent of the mesh: nodes nearer than this are the same; coordinates are kept in full.
SAME_NODE = 1e-9


def save(what: Trajectory | fem.Function, path: str | os.PathLike[str]) -> None:
    """See ``fpcontrol.io.save``. One level at a time passes through rank 0, which writes."""
    if isinstance(what, Flow):
        raise ValueError("A Flow is on no mesh: save what.on_mesh(space), with a Lagrange space.")
    if Path(path).suffix != ".npz":
        raise ValueError(f"path = {str(path)!r} must end in .npz.")
    head: dict[str, Any] = {}
    if isinstance(what, Trajectory):
        space, levels = what.space, what.levels
        head |= {"kind": "trajectory", "iterations": what.iterations, "error": what.time_error}
        head |= {"tags": what.tags, "limited": what.limited_fraction}
        head |= {"cell_peclet": what.cell_peclet, "clipped": what.clipped}
        names = ("times", "mass", "minimum", "all_times", "absorbed", "killed", "produced")
        series = {k: getattr(what, k) for k in names}
        head |= {"observables": list(what.observables)}
        series |= {f"observable{i}": u for i, u in enumerate(what.observables.values())}
    elif isinstance(what, fem.Function):
        space, levels, series = what.function_space, what.x.array[None], {}
        head |= {"kind": "function", "name": what.name}
    else:
        raise ValueError(f"{what!r} cannot be saved: give a Trajectory or a dolfinx Function.")
    mesh, element = space.mesh, space.element.basix_element
    comm, degree = comm_of(mesh), element.degree
    known = 1 <= degree <= MAX_DEGREE and space.dofmap.index_map_bs == 1
    if not known or element != lagrange(mesh, degree).element.basix_element:
        raise ValueError("Only Functions of continuous Lagrange spaces of degree 1 to 3 are saved.")
    n = space.dofmap.index_map.size_local
    x = _gathered(comm, dof_places(space)[:n, : mesh.topology.dim])
    target = output_path(path, comm)
    unknowns = space.dofmap.index_map.size_global
    with replacing(target, comm) as beside, contextlib.ExitStack() as stack:
        reserve(target, beside, 8 * unknowns * (len(levels) + 3) + 65536, comm)
        with collective_errors(comm):
            if comm.rank == 0:
                _check_distinct(x)
                archive = stack.enter_context(zipfile.ZipFile(beside, "w"))
                text = json.dumps(head | {"degree": degree})
                for name, values in {"head": text, "x": x, **series}.items():
                    with archive.open(f"{name}.npy", "w") as file:
                        npy.write_array(file, np.asarray(values), allow_pickle=False)
                stream = stack.enter_context(archive.open("levels.npy", "w", force_zip64=True))
                shape = len(levels), unknowns
                npy.write_array_header_1_0(
                    stream, {"descr": "<f8", "fortran_order": False, "shape": shape}
                )
        for level in levels:
            values = _gathered(comm, level[:n])
            with collective_errors(comm):
                if comm.rank == 0:
                    stream.write(values.astype("<f8").tobytes())
        with collective_errors(comm):
            stack.close()


def load(path: str | os.PathLike[str], mesh: Mesh) -> Trajectory | fem.Function:
    """See ``fpcontrol.io.load``; in a new Lagrange space on ``mesh``. Collective."""
    comm, content, rows = comm_of(mesh), None, None
    with contextlib.ExitStack() as stack:
        with collective_errors(comm):
            if comm.rank == 0:
                content, rows = _opened(Path(path), stack)
        head, x, series, count = comm.bcast(content)
        space = lagrange(mesh, head["degree"])
        index = _places(path, space, x)
        levels = np.empty((count, len(index)))
        row = np.empty(len(x))
        for level in levels:
            with collective_errors(comm):
                if rows is not None:
                    row[:] = next(rows)
            comm.Bcast(row)
            level[:] = row[index]
    if head["kind"] == "function":
        density = fem.Function(space, name=head["name"])
        density.x.array[:] = levels[0]
        return density
    observed = head.get("observables", ())
    observables = {name: series.pop(f"observable{i}") for i, name in enumerate(observed)}
    return Trajectory(
        space=space,
        observables=observables,
        levels=levels,
        iterations=head["iterations"],
        time_error=head["error"],
        tags=tuple(head.get("tags", ())),  # of files written before there were any
        limited_fraction=head.get("limited", 0.0),
        cell_peclet=CellPeclet(*peclet) if (peclet := head.get("cell_peclet")) else None,
        clipped=head.get("clipped", 0.0),
        _blank=blank(space),
        **series,
    )


def _opened(path: Path, stack: contextlib.ExitStack) -> tuple[Any, Iterator[Array]]:
    """Head, coordinates, series and number of levels; and the levels, one after the other."""
    try:
        archive = stack.enter_context(zipfile.ZipFile(path))
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        parts = {}
        for name in names:
            if name != "levels":
                with archive.open(f"{name}.npy") as file:
                    parts[name] = npy.read_array(file, allow_pickle=False)
        head, x = json.loads(str(parts.pop("head"))), parts.pop("x")
        stream = stack.enter_context(archive.open("levels.npy"))
        npy.read_magic(stream)
        (count, n), _, dtype = npy.read_array_header_1_0(stream)
        if n != len(x):
            raise ValueError(f"{n} values for {len(x)} nodes")
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: there is no such file.") from None
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise OSError(f"{path} is no file that fpcontrol.io.save wrote: {error}") from None
    return (head, x, parts, count), _rows(path, stream, count, n, dtype)


def _rows(path: Path, stream: IO[bytes], count: int, n: int, dtype: np.dtype) -> Iterator[Array]:
    for _ in range(count):
        content = stream.read(n * dtype.itemsize)
        if len(content) < n * dtype.itemsize:
            raise OSError(f"{path} ends too early.")
        yield np.frombuffer(content, dtype)


def _gathered(comm: MPI.Comm, values: Array) -> Array:
    """Rows of all ranks in their order, on rank 0. Collective."""
    parts = comm.gather(np.ascontiguousarray(values))
    return np.concatenate(parts) if parts is not None else values


def _check_distinct(x: Array) -> None:
    nearest = cKDTree(x).query(x, k=2)[0][:, 1] if len(x) > 1 else np.array([np.inf])
    if nearest.min() <= SAME_NODE * np.ptp(x, axis=0).max():
        raise ValueError(
            "The mesh has nodes at the same place (a slit); their values could not be told apart."
        )


def _places(path: str | os.PathLike[str], space: fem.FunctionSpace, x: Array) -> Array:
    """Where in the file each degree of freedom of this rank is. Collective."""
    comm, index_map, d = comm_of(space.mesh), space.dofmap.index_map, space.mesh.topology.dim
    mine = dof_places(space)[: index_map.size_local + index_map.num_ghosts]
    degree = space.element.basix_element.degree
    if x.shape != (index_map.size_global, d):
        raise ValueError(
            f"{path} is of another mesh: {len(x)} unknowns of degree {degree} in {x.shape[1]} "
            f"dimensions there, {index_map.size_global} in {d} here."
        )
    distance, index = cKDTree(x).query(mine[:, :d])
    farthest = comm.allreduce(distance.max(initial=0.0), op=MPI.MAX)
    used = reduced(comm, np.bincount(index[: index_map.size_local], minlength=len(x)))
    if farthest > SAME_NODE * np.ptp(x, axis=0).max() or (used != 1).any():
        raise ValueError(
            f"{path} is of another mesh: nodes lie up to {farthest:.3g} apart from those here."
        )
    return index
