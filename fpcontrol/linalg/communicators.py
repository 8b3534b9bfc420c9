"""Communicators that PETSc can rely on."""

from mpi4py import MPI

from petsc4py import PETSc

from fpcontrol.parallel.communicators import cached_comm

# One object of PETSc a communicator, never dropped.
_anchors: dict[int, PETSc.Vec] = {}


def lasting_comm(comm: MPI.Comm) -> MPI.Comm:
    """A communicator for objects of PETSc, with the ranks of ``comm`` in their order. Collective.

    PETSc copies a communicator with its first object there, which is collective, and drops the copy
    with the last one. On that of a mesh a rank that has dropped its objects, as after an error that
    another one still holds, would copy it again alone, and wait for ever. Here there is one object
    that stays.
    """
    lasting = cached_comm(comm)
    key = lasting.py2f()
    if key not in _anchors:
        _anchors[key] = PETSc.Vec().createMPI((0, 0), comm=lasting)
    return lasting
