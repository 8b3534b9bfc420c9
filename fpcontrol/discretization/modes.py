r"""The smoothest functions of a mesh: lowest modes of its diffusion.

.. math:: K\phi_k = \lambda_k M\phi_k,\qquad \phi_j^\top M\phi_k = \delta_{jk}
"""

from typing import NamedTuple

from mpi4py import MPI

import numpy as np
from scipy.linalg import eigh

from fpcontrol.discretization.base import SemiDiscretization
from fpcontrol.discretization.elements import Elements
from fpcontrol.discretization.periodic import dof_places, periodic_of
from fpcontrol.linalg.linear_solvers import LinearSolver
from fpcontrol.parallel.errors import reduced
from fpcontrol.typing import Array

SPARE = 1.3  # functions iterated with, over those wanted: the last ones converge slowly
ITERATIONS = 4
INDEPENDENT = 1e-12  # of the largest eigenvalue of a Gram matrix: below, functions are dependent


class Modes(NamedTuple):
    """Some of the modes.

    Attributes:
        functions: Shape ``(n_local, m)``, ghosts updated.
        eigenvalues: Shape ``(m,)``, ascending, 1 over length squared.
    """

    functions: Array
    eigenvalues: Array


def smooth_modes(system: SemiDiscretization, count: int) -> Modes:
    r"""The lowest modes of a method on a mesh, vanishing where walls absorb. Collective.

    Inverse iteration on a block of functions with the Rayleigh-Ritz method, begun with the cosines
    of the domain's box: no eigenvalue solver to a tolerance, but a few iterations towards it, after
    which all but the last modes are theirs. Exact orthonormality in M.

    Args:
        system: The method.
        count: Number of modes; fewer if the mesh does not carry as many.
    """
    g, walls = system.elements, system.absorbing
    free = g.index_map.size_global
    if walls:
        free -= round(g.sum(float(np.count_nonzero(walls.dofs < g.n_owned))))
    count = min(count, free)
    functions = _waves(g, min(int(SPARE * count) + 2, free))
    if walls:
        functions[walls.dofs] = 0.0
    # M + K/shift: one matrix that every method can fill.
    shift = max(g.volume ** (-2.0 / g.dimension), 1e-300)
    values = np.empty(g.sparsity.size)
    system.filler(1.0)(np.zeros_like(system.points), 1.0 / shift, values)
    if walls:
        walls.close(values)
    matrix = g.matrix(values).mat
    direct = "direct" if g.dimension < 3 else "auto"
    solver = LinearSolver(matrix, direct, dimension=g.dimension, prefix="fpcontrol_modes_")
    b, y = g.vector(), g.vector()
    for i in range(ITERATIONS + 1):
        masses, images = np.empty_like(functions), np.empty((g.n_owned, functions.shape[1]))
        for k, column in enumerate(functions.T):
            b.set(column)
            system.mass.mult(b.petsc_vec, y.petsc_vec)
            masses[:, k] = y.array
            matrix.mult(b.petsc_vec, y.petsc_vec)
            images[:, k] = y.array[: g.n_owned]
        own = functions[: g.n_owned]
        gram = reduced(g.comm, own.T @ masses[: g.n_owned])
        form = reduced(g.comm, own.T @ images)
        combined, eigenvalues = g.comm.bcast(_ritz(form, gram) if g.comm.rank == 0 else None)
        if i == ITERATIONS:
            break
        functions, masses = functions @ combined, masses @ combined
        for k in range(functions.shape[1]):
            b.set(masses[:, k])
            if walls:
                walls.project_owned(b.array)
                b.changed()
            y.set(functions[:, k])
            solver.solve(b.petsc_vec, y.petsc_vec)
            y.scatter_forward()
            functions[:, k] = y.array
    functions = np.ascontiguousarray((functions @ combined)[:, :count])
    return Modes(functions, (eigenvalues[: functions.shape[1]] - 1.0) * shift)


def _ritz(form: Array, gram: Array) -> tuple[Array, Array]:
    """Combinations of functions, orthonormal in ``gram``, and their values of ``form``."""
    sizes, vectors = eigh(0.5 * (gram + gram.T))
    kept = sizes > INDEPENDENT * sizes[-1]
    basis = vectors[:, kept] / np.sqrt(sizes[kept])
    form = basis.T @ form @ basis
    eigenvalues, vectors = eigh(0.5 * (form + form.T))
    return basis @ vectors, eigenvalues


def _waves(g: Elements, count: int) -> Array:
    """The smoothest products of cosines on the domain's box, ``(n_local, count)``.

    Along periodic axes cosines and sines of whole turns, in turn.
    """
    x = dof_places(g.space)[: g.n_local, : g.dimension]
    low = reduced(g.comm, x.min(axis=0, initial=np.inf), MPI.MIN)
    lengths = reduced(g.comm, x.max(axis=0, initial=-np.inf), MPI.MAX) - low
    periodic, around = periodic_of(g.mesh), np.zeros(g.dimension, dtype=bool)
    if periodic:
        low, lengths, around = periodic.lower, periodic.lengths, periodic.axes
    most = np.ceil(2.0 * (count * np.prod(lengths)) ** (1.0 / len(lengths)) / lengths).astype(int)
    numbers = np.stack(np.meshgrid(*(np.arange(k + 2) for k in most), indexing="ij"), axis=-1)
    numbers = numbers.reshape(-1, len(lengths))
    # Half waves in the box: of a cosine as many as its number, around it 0, 2, 2, 4, 4, ...
    halves = np.where(around, 2 * ((numbers + 1) // 2), numbers)
    order = np.argsort(((halves / lengths) ** 2).sum(axis=1), kind="stable")[:count]
    result = np.ones((len(x), len(order)))
    for i, length in enumerate(lengths):
        phase = np.outer(np.pi * (x[:, i] - low[i]) / length, halves[order, i])
        sine = around[i] & (numbers[order, i] % 2 == 0) & (numbers[order, i] > 0)
        result *= np.where(sine, np.sin(phase), np.cos(phase))
    return result
