"""Calls on a communicator that a piece of work must not use, refused before they wait for ever."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mpi4py import MPI

NAME = "fpcontrol communicators"
# Methods that wait for no other rank, or only for one that the caller names.
LOCAL = ("Get_", "Is_", "Set_", "Create_keyval", "Free_keyval", "Compare", "Abort", "py2f")
LOCAL_EXACT = {
    "Send",
    "send",
    "Recv",
    "recv",
    "Isend",
    "isend",
    "Irecv",
    "irecv",
    "Iprobe",
    "Probe",
}
# Whose functions are collective if a communicator is their first argument, as far as any are.
COLLECTIVE = ("dolfinx", "fpcontrol", "basix", "ffcx", "mpi4py.util", "petsc4py")

_open: list[tuple[MPI.Comm, ...]] = []  # of the blocks of ``only_within`` that are open
_tool: list[int] = []


@contextmanager
def only_within(group: MPI.Comm, *outer: MPI.Comm) -> Iterator[None]:
    """A block on the ranks of ``group`` in which a collective call on ``outer`` raises.

    Such a call would wait for ranks that run other work, or be met there by a call of another kind.
    Found are calls from Python on the communicators themselves, and of functions of DOLFINx and of
    this package that are handed one; by Python's monitoring of calls, which looks once at each
    place in a program where no communicator comes first. Not found are communicators within PETSc.

    Args:
        group: The ranks that run the block.
        outer: Communicators; those without other ranks than ``group`` are allowed.
    """
    _open.append(tuple(comm for comm in outer if comm.size > group.size))
    try:
        if _open[-1] and not _tool:
            _start()
        yield
    finally:
        _open.pop()
        if not any(_open):
            _stop()


def _start() -> None:
    watch = sys.monitoring
    free = [tool for tool in (3, 4) if watch.get_tool(tool) is None]
    if not free:  # two other tools watch already
        return
    _tool.append(free[0])
    watch.use_tool_id(free[0], NAME)
    watch.register_callback(free[0], watch.events.CALL, _on_call)
    watch.set_events(free[0], watch.events.CALL)
    watch.restart_events()


def _stop() -> None:
    while _tool:
        tool = _tool.pop()
        sys.monitoring.set_events(tool, 0)
        sys.monitoring.register_callback(tool, sys.monitoring.events.CALL, None)
        sys.monitoring.free_tool_id(tool)


def _on_call(code: Any, offset: int, function: Any, first: Any) -> Any:
    bound = getattr(function, "__self__", None)
    comm = bound if isinstance(bound, MPI.Comm) else first
    if not isinstance(comm, MPI.Comm):
        return sys.monitoring.DISABLE  # here, for good: a place calls the same all the time
    if comm != MPI.COMM_NULL and any(comm == outer for outer in _open[-1]):
        name = getattr(function, "__name__", "")
        if _collective(function, name):
            world = "MPI.COMM_WORLD" if comm == MPI.COMM_WORLD else "the ensemble's communicator"
            raise RuntimeError(
                f"{name or function!r} was called on {world}, of {comm.size} ranks, from within a "
                "member: the ranks outside its group run other cases and never answer. Use the "
                "communicator that member(case, comm) is given."
            )
    return None


def _collective(function: Any, name: str) -> bool:
    owner = getattr(function, "__objclass__", None) or type(getattr(function, "__self__", None))
    if isinstance(owner, type) and issubclass(owner, MPI.Comm):
        return not (name.startswith(LOCAL) or name in LOCAL_EXACT or name.startswith("__"))
    return str(getattr(function, "__module__", "")).startswith(COLLECTIVE)
