"""Communicators that stay, to send on: that of a mesh goes with the mesh.

mpi4py 4 ties a lock to every communicator on which Python objects were sent, and takes it off when
that is freed. If an exception is passing then, as when a mesh goes with the expression that failed,
what guards these locks stays shut, and the next communicator to be freed waits for ever. So nothing
is sent on the communicator of a mesh.
"""

from mpi4py import MPI

from dolfinx.mesh import Mesh

# Communicators that are never freed, one for every set of ranks asked for.
_CACHED = [MPI.COMM_WORLD, MPI.COMM_SELF]


def cached_comm(comm: MPI.Comm) -> MPI.Comm:
    """A communicator that stays, with the ranks of ``comm`` in the same order. Collective.

    The world's communicator if it has these ranks, else one that is made at the first call for
    these ranks and given back at all later ones.
    """
    for known in _CACHED:
        if MPI.Comm.Compare(comm, known) in (MPI.IDENT, MPI.CONGRUENT):
            return known
    _CACHED.append(comm.Dup())
    return _CACHED[-1]


def comm_of(mesh: Mesh) -> MPI.Comm:
    """The communicator of a mesh's ranks, as ``cached_comm`` has it. Collective."""
    return cached_comm(mesh.comm)
