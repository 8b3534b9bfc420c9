r"""Leading eigenpairs of the generator, by Arnoldi's method for its inverse.

.. math:: N\varphi = \lambda M\varphi,\qquad N^\top\psi = \lambda M\psi

for densities, which decay as :math:`e^{-\lambda t}`, and for observables. Where no wall absorbs
:math:`\lambda = 0` belongs to the stationary density :math:`\pi` and to the constant 1. They are
known, and the rest lives where N can be inverted,

.. math:: 1^\top M\varphi = 0,\qquad \pi^\top M\psi = 0,

so that no shift has to be chosen. Those of smallest modulus are found, more than are asked for, and
of these the slowest are kept: a mode that turns fast and decays slowly has a larger modulus.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from dolfinx import fem
from scipy.sparse.linalg import ArpackError, LinearOperator, eigs

from fpcontrol.discretization.elements import Elements
from fpcontrol.discretization.periodic import dof_places
from fpcontrol.generator.operator import Generator
from fpcontrol.typing import Array

# Relative imaginary part below which an eigenvalue is real: those of a cluster come as pairs that
# are this far apart.
REAL = 1e-7
# Unknowns up to which all eigenvalues are found at once.
FEW = 60
# Beyond twice as many as are asked for, found by modulus before the slowest are chosen.
MORE = 8


@dataclass(frozen=True, eq=False)
class Eigenpairs:
    r"""The slowest modes of a process: plain data, of which nothing communicates when it is read.

    Attributes:
        values: Eigenvalues :math:`\lambda`, one over time, by increasing real part, ``(n,)``;
            complex if any is, of each pair that with the positive imaginary part first.
        functions: An eigenfunction for each. Of a complex pair the first is the real, the second
            the imaginary part of the first's.
        backward: Whether they are of the backward equation, observables in place of densities.
    """

    values: Array
    functions: tuple[fem.Function, ...]
    backward: bool

    @property
    def relaxation_times(self) -> Array:
        r""":math:`1/\mathrm{Re}\,\lambda`, ``(n,)``; infinite for what stays."""
        real = self.values.real
        return np.divide(1.0, real, out=np.full(len(real), np.inf), where=real != 0.0)

    def __len__(self) -> int:
        """Number of eigenpairs."""
        return len(self.values)

    def __iter__(self) -> Iterator[tuple[complex, fem.Function]]:
        """Pairs of eigenvalue and function."""
        return iter(zip(self.values.tolist(), self.functions, strict=True))

    def __repr__(self) -> str:
        kind = "backward" if self.backward else "forward"
        return f"Eigenpairs: {len(self)}, {kind}, {np.array2string(self.values, precision=6)}"


def eigenpairs(generator: Generator, count: int, backward: bool) -> Eigenpairs:
    """The ``count`` slowest eigenpairs; one more if a complex pair would be cut.

    Collective. See ``SteadyProblems.eigenpairs``.

    Raises:
        ArithmeticError: On all ranks, if the method does not converge.
    """
    g = generator.elements
    if generator.walls.any() or generator.leaks:
        solves, known, kept = generator.closed(generator.walls), np.empty((0, g.n_local)), None
    else:
        solves = generator.pinned()
        density = generator.stationary(solves)
        known, kept = np.ones((1, g.n_local)), generator.mass(density)
        if not backward:
            known, kept = density[None], generator.mass(known[0])

    def project(u: Array) -> None:
        """Take the part out that stays."""
        if kept is not None:
            u -= known[0] * (g.sum(float(kept @ u[: g.n_owned])) / scale)

    scale = g.sum(float(kept @ known[0, : g.n_owned])) if kept is not None else 1.0
    local = g.vector()

    def inverse(own: Array) -> Array:
        local.set(own)
        local.scatter_forward()
        u = local.array.copy()
        project(u)
        u = solves(generator.mass(u), transpose=backward, rounds=1)
        project(u)
        return u[: g.n_owned]

    wanted = count - len(known)
    free = g.index_map.size_global - len(known) - int(g.sum(generator.walls[: g.n_owned].sum()))
    if wanted > free:
        raise ValueError(f"count = {count} is more than the {free + len(known)} that there are.")
    values, vectors = np.zeros(0), np.empty((0, g.n_owned))
    if wanted > 0:
        values, vectors = _inverse_spectrum(g, inverse, wanted, free)
    functions = [_function(g, u) for u in known]
    weight = kept if backward else None
    places = iter(range(len(values)))
    for i in places:
        pair = values[i].imag != 0.0
        parts = [vectors[i].real, vectors[i].imag] if pair else [vectors[i].real]
        functions += _functions(g, parts, weight, leading=not functions and not backward)
        if pair:
            next(places)
    found = np.concatenate([np.zeros(len(known)), values])
    return Eigenpairs(found if found.imag.any() else found.real, tuple(functions), backward)


def _function(g: Elements, u: Array) -> fem.Function:
    f = fem.Function(g.space, name="eigenfunction")
    f.x.array[:] = u
    return f


def _functions(
    g: Elements, parts: list[Array], weight: Array | None, leading: bool
) -> list[fem.Function]:
    """Functions of one eigenvector's parts, with a norm and a sign of their own. Collective."""
    room = [g.vector() for _ in parts]
    for vector, part in zip(room, parts, strict=True):
        vector.set(part)
        vector.scatter_forward()
    local = [vector.array for vector in room]
    if weight is None:
        square = sum(g.norm(u) ** 2 for u in local)
    else:
        square = sum(g.sum(float(weight @ (u[: g.n_owned] ** 2))) for u in local)
    size = g.integral(local[0]) if leading and len(local) == 1 else abs(square) ** 0.5
    if not leading and g.sum(float(g.integrals * local[0][: g.n_owned] @ _uneven(g))) < 0.0:
        size = -size
    return [_function(g, u / size) for u in local]


def _uneven(g: Elements) -> Array:
    """A function without symmetries, the same on any number of ranks, owned entries."""
    x = dof_places(g.space)[: g.n_owned, : g.dimension]
    y = x / g.volume ** (1.0 / g.dimension)
    return np.sin(y @ np.array([1.3, 2.1, 1.7])[: g.dimension] + 0.4) + 0.3 * y[:, 0] ** 2


def _inverse_spectrum(
    g: Elements, inverse: Callable[[Array], Array], wanted: int, free: int
) -> tuple[Array, Array]:
    """Eigenvalues of smallest modulus and owned parts of their vectors, ``(n, n_owned)``.

    Rank 0 runs ARPACK, and all ranks solve when it asks them to: they cannot come to differ.
    Collective.
    """
    comm, n = g.comm, g.index_map.size_global
    counts = comm.gather(g.n_owned)
    failed = False

    def asked(whole: Array) -> Array:
        nonlocal failed
        comm.bcast(True)
        try:
            return _gathered(g, inverse(_scattered(g, np.ravel(whole), counts)))
        except Exception:
            failed = True  # on all ranks: nobody waits
            raise

    found, error = None, None
    if comm.rank == 0:
        start = _gathered(g, _start(g))
        try:
            found = _arpack(asked, start, wanted, free, n)
        except ArpackError as caught:
            error = str(caught)
        finally:
            if not failed:
                comm.bcast(False)
    else:
        _gathered(g, _start(g))
        while comm.bcast(None):
            _gathered(g, inverse(_scattered(g, None, None)))
    error, values = comm.bcast((error, None if found is None else found[0]))
    if error is not None:
        raise ArithmeticError(
            f"The eigenvalues did not converge ({error}). Ask for fewer or more of them: a cluster "
            "may be cut."
        )
    vectors = np.empty((len(values), g.n_owned), dtype=complex)
    for i, vector in enumerate(vectors):
        row = None if found is None else found[1][i]
        vector.real = _scattered(g, None if row is None else row.real, counts)
        vector.imag = _scattered(g, None if row is None else row.imag, counts)
    return values, vectors


def _arpack(
    apply: Callable[[Array], Array], start: Array, wanted: int, free: int, n: int
) -> tuple[Array, Array]:
    """Eigenvalues and vectors in rows, sorted, pairs whole and adjacent. On one rank."""
    if n <= FEW or wanted + 3 >= free:
        whole = np.column_stack([apply(e) for e in np.eye(n)])
        inverse, vectors = np.linalg.eig(whole)
    else:
        operator = LinearOperator((n, n), matvec=apply, dtype=float)
        most = min(2 * wanted + MORE, free, n - 2)
        basis = min(n, 2 * most + 4)
        inverse, vectors = eigs(operator, k=most, which="LM", v0=apply(start), ncv=basis)
    order = np.argsort(-np.abs(inverse), kind="stable")[:free]
    values, rows = 1.0 / inverse[order].astype(complex), vectors[:, order].T
    order = np.lexsort((np.abs(values), values.real))
    values, rows = values[order], rows[order]
    kept: list[tuple[complex, Array]] = []
    for value, row in zip(values, rows, strict=True):
        if value.imag < 0.0 and (np.conj(value) == values).any():
            continue  # comes with the other of its pair
        if len(kept) >= wanted:
            break
        if value.imag == 0.0:
            kept.append((value.real, row.real))
        elif abs(value.imag) <= REAL * abs(value):  # of a cluster: both parts are eigenvectors
            kept += [(value.real, part) for part in (row.real, row.imag)][: wanted - len(kept)]
        else:
            up, phi = (value, row) if value.imag > 0.0 else (np.conj(value), np.conj(row))
            kept += [(up, phi), (np.conj(up), np.conj(phi))]
    return np.array([value for value, _ in kept]), np.array([row for _, row in kept])


def _start(g: Elements) -> Array:
    return 1.0 + _uneven(g) + _uneven(g) ** 3


def _gathered(g: Elements, own: Array) -> Array:
    parts = g.comm.gather(np.ascontiguousarray(own))
    return np.concatenate(parts) if parts is not None else own


def _scattered(g: Elements, whole: Array | None, counts: list[int] | None) -> Array:
    own = np.empty(g.n_owned)
    if g.comm.size == 1:
        assert whole is not None
        return np.ascontiguousarray(whole, dtype=float)
    send = None if whole is None else [np.ascontiguousarray(whole, dtype=float), counts]
    g.comm.Scatterv(send, own)
    return own
