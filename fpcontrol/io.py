"""Files: densities for ParaView or to be read back, records of runs, tables of points."""

import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mpi4py import MPI

import dolfinx
import numpy as np
from dolfinx import fem
from dolfinx.io import VTXWriter
from dolfinx.mesh import Mesh
from petsc4py import PETSc

from fpcontrol import archive
from fpcontrol.certificates import Certificate
from fpcontrol.characteristics.flow import Flow
from fpcontrol.control.result import Result, load_result, save_result
from fpcontrol.control.tracking import TrackingProblem
from fpcontrol.discretization.periodic import flat_space, flatten_into, flattened
from fpcontrol.parallel.communicators import comm_of
from fpcontrol.parallel.files import output_path, replacing, reserve
from fpcontrol.reference import MoserFlow
from fpcontrol.tables import read_points
from fpcontrol.trajectory import Trajectory

__all__ = [
    "load",
    "read_points",
    "record",
    "save",
    "versions",
    "write",
    "write_json",
    "write_record",
]


def save(what: Trajectory | fem.Function | Result, path: str | os.PathLike[str]) -> None:
    """Write a trajectory, a density or a result to one ``.npz`` file. Collective.

    Args:
        what: Trajectory (of a ``Flow``, its ``on_mesh``), a Function of a Lagrange space of degree
            1, 2 or 3, or what ``minimize`` found (its weights and history, not its densities).
        path: Ends in ``.npz``.

    Raises:
        ValueError: On all ranks, for another suffix or something else to write.
        OSError: On all ranks, if the file cannot be written.
    """
    if not isinstance(what, Result):
        archive.save(what, path)
        return
    if Path(path).suffix != ".npz":
        raise ValueError(f"path = {str(path)!r} must end in .npz.")
    save_result(what, path)


def load(
    path: str | os.PathLike[str], on: Mesh | TrackingProblem
) -> Trajectory | fem.Function | Result:
    """Read what ``save`` wrote, on any number of ranks. Collective.

    Args:
        path: The ``.npz`` file.
        on: The mesh it was made on; for a result, or a checkpoint of ``minimize``, the problem,
            made as it was then: densities and errors come from a run at the weights.

    Raises:
        OSError: On all ranks, if there is no such file or it is none of ``save``.
        ValueError: On all ranks, if it is of another mesh or problem.
    """
    return load_result(path, on) if isinstance(on, TrackingProblem) else archive.load(path, on)


def write(
    what: Trajectory | fem.Function | Sequence[fem.Function],
    path: str | os.PathLike[str],
    *,
    reference: MoserFlow | None = None,
    every: int = 1,
) -> None:
    """Write densities as VTX (a ``.bp`` folder), which ParaView opens. Collective.

    Args:
        what: Densities over time, written as ``density`` (of a ``Flow``, give its ``on_mesh``); or
            a Function, or several of one space under their names.
        path: Ends in ``.bp``.
        reference: If given, ``reference`` and ``error`` (density minus reference) are written too.
        every: Write every so many levels; the last one is always written.

    Raises:
        ValueError: On all ranks, for another suffix, markers instead of levels on a mesh, an
            ``every`` that is no positive integer, Functions of several spaces or of one name.
        OSError: On all ranks, if the folder cannot be written to or has no room.
    """
    if isinstance(what, Flow):
        raise ValueError(
            "trajectory is a Flow: densities along markers (sigma = 0), on no mesh. Write "
            "trajectory.on_mesh(space), with a Lagrange space such as problem.elements.space."
        )
    if not isinstance(every, int | np.integer) or every < 1:
        raise ValueError(f"every = {every!r} must be a positive integer.")
    if Path(path).suffix != ".bp":
        raise ValueError(f"path = {str(path)!r} must end in .bp (VTX, for ParaView).")
    if not isinstance(what, Trajectory):
        if reference is not None:
            raise ValueError("reference goes with a Trajectory; a Function has no time.")
        fields = _functions(what)
        space = flat_space(fields[0].function_space)
        _write_vtx([flattened(field, space) for field in fields], [0.0], lambda n: None, path)
        return
    names = ["density"] if reference is None else ["density", "reference", "error"]
    fields = [fem.Function(what.space, name=name) for name in names]
    levels = sorted({*range(0, len(what), every), len(what) - 1})
    times = [float(what.times[n]) for n in levels]

    def load(n: int) -> None:
        fields[0].x.array[:] = what.levels[levels[n]]
        if reference is not None:
            fields[1].x.array[:] = reference.coefficients(times[n])
            fields[2].x.array[:] = fields[0].x.array - fields[1].x.array
        for field, shown in zip(fields, flat, strict=True):
            flatten_into(field, shown)

    space = flat_space(what.space)
    flat = [flattened(field, space) for field in fields]
    _write_vtx(flat, times, load, path)


def _functions(what: Any) -> list[fem.Function]:
    """One or several Functions of one space."""
    fields = [what] if isinstance(what, fem.Function) else list(what) if _listed(what) else []
    if not fields or not all(isinstance(field, fem.Function) for field in fields):
        raise ValueError(
            f"{what!r} cannot be written: give a Trajectory, a dolfinx Function, or several of "
            "one space."
        )
    first = fields[0].function_space
    for field in fields[1:]:
        space = field.function_space
        same = space.mesh._cpp_object == first.mesh._cpp_object
        if not same or space.element.basix_element != first.element.basix_element:
            raise ValueError(
                f"Functions {fields[0].name!r} and {field.name!r} are of different spaces; write "
                "them to files of their own."
            )
    names = [field.name for field in fields]
    if len(set(names)) < len(names):
        raise ValueError(f"The Functions' names {names} must differ: set f.name.")
    return fields


def _listed(what: Any) -> bool:
    return isinstance(what, Sequence) and not isinstance(what, str | bytes)


def _write_vtx(
    fields: list[fem.Function],
    times: list[float],
    load: Callable[[int], None],
    path: str | os.PathLike[str],
) -> None:
    """Write fields at all times, after ``load(n)`` has given them their values. Collective."""
    comm = comm_of(fields[0].function_space.mesh)
    target = output_path(path, comm, bp=True)
    with replacing(target, comm) as beside:
        # ADIOS2 on a full disk leaves ranks waiting for each other, or ends the process.
        reserve(target, beside, _vtx_size(fields, len(times)), comm)
        with VTXWriter(comm, beside, fields) as writer:
            for n, t in enumerate(times):
                load(n)
                writer.write(t)


def _vtx_size(fields: list[fem.Function], steps: int) -> int:
    """Bytes that VTX takes, a little more rather than less. Collective."""
    space = fields[0].function_space
    mesh, dofs = space.mesh, space.dofmap.index_map
    cells = mesh.topology.index_map(mesh.topology.dim)
    nodes = dofs.size_local + dofs.num_ghosts
    components = 3 if space.dofmap.index_map_bs > 1 else 1  # vectors are padded to 3
    # At every step nodes with number and ghost mark, values, cells, and up to a page of 4 kB and
    # as much metadata of each rank.
    width = fields[0].x.array.itemsize * components * len(fields)
    step = nodes * (24 + 9 + width) + 8192
    step += (cells.size_local + cells.num_ghosts) * 8 * (space.dofmap.list.shape[1] + 1)
    return 65536 + steps * comm_of(mesh).allreduce(step)


def record(result: Result | Trajectory) -> dict[str, Any]:
    """Parameters, versions, ranks and figures of a run, ready for JSON. Collective.

    Of a ``Trajectory`` masses, minima, what walls have absorbed and observables, at all levels.
    """
    if isinstance(result, Trajectory):
        return _of_trajectory(result)
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
            "certificate": _bounds(result.certificate) or result.uncertified,
            "cell_peclet": result.cell_peclet and result.cell_peclet._asdict(),
            "weights_cut_off": result.clipped,
            "limited_fraction": result.limited_fraction,
            "mass_at_the_end": float(result.mass[-1]),
            "absorbed": dict(zip(map(str, problem.tags), result.absorbed[-1], strict=True)),
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


def _of_trajectory(run: Trajectory) -> dict[str, Any]:
    series = {"times": run.all_times, "mass": run.mass, "minimum": run.minimum}
    absorbed = dict(zip(map(str, run.tags), run.absorbed.T, strict=True))
    return {
        "dofs": run.space.dofmap.index_map.size_global,
        "figures": {
            "mass_defect": run.mass_defect,
            "time_error": run.time_error,
            "cell_peclet": run.cell_peclet and run.cell_peclet._asdict(),
            "weights_cut_off": run.clipped,
            "limited_fraction": run.limited_fraction,
            "iterations": run.iterations,
        },
        "levels": {name: _finite(u) for name, u in series.items()},
        "absorbed": {tag: _finite(u) for tag, u in absorbed.items()},
        "killed": _finite(run.killed),
        "produced": _finite(run.produced),
        "observables": {name: _finite(u) for name, u in run.observables.items()},
        "ranks": run.space.mesh.comm.size,
        "versions": versions(),
    }


def _finite(values: np.ndarray) -> Any:
    """Nested lists; ``None`` for what has no form in JSON."""
    return np.where(np.isfinite(values), values, np.array(None)).tolist()


def _bounds(c: Certificate | None) -> dict[str, float | None]:
    """Distances at the end and their bounds; what is not finite has no form in JSON."""
    if c is None:
        return {}
    found = {"l2": c.l2, "l2_bound": c.l2_bound, "chi_square": c.chi_square, "e3": c.e3}
    found |= {"kl": c.kl, "e4": c.e4, "l1": c.l1, "l1_bound": c.l1_bound}
    return {k: float(v[-1]) if np.isfinite(v[-1]) else None for k, v in found.items()}


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
    result: Result | Trajectory,
    path: str | os.PathLike[str],
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write ``record(result)`` and what the caller adds as JSON. Collective.

    Args:
        result: From ``minimize``; or a trajectory.
        path: Where to.
        extra: Entries beside those of ``record``, see ``write_json``; such as the options of a
            program, without which the run could not be made again.

    Raises:
        OSError: On all ranks, if the folder cannot be written to.
    """
    content = record(result) | dict(extra or {})
    of = result.space.mesh if isinstance(result, Trajectory) else result.problem.elements
    write_json(content, path, of.comm)


def write_json(content: Mapping[str, Any], path: str | os.PathLike[str], comm: MPI.Comm) -> None:
    """Write rank 0's content as JSON; dataclasses become objects, paths strings. Collective."""
    with replacing(output_path(path, comm), comm) as beside:
        if comm.rank == 0:
            beside.write_text(json.dumps(content, indent=1, default=_plain) + "\n")


def _plain(value: Any) -> Any:
    """A JSON value in place of one that JSON does not have."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in fields(value)}
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{value!r} has no form in JSON.")
