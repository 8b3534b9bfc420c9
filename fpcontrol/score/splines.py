r"""Scores that are splines in space and time, fitted to what a mesh knows: scipy alone, in seconds.

.. math:: \hat s(t, x) = \sum_{k,j}w_{kj}\,\psi_k(t)\,B_j(x)

with :math:`B_j` quadratic B-splines on a lattice over the box of the mesh and :math:`\psi_k` hats
on the clock ``Graded``. The loss is quadratic in the weights, its matrix sparse.
"""

import itertools
import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mpi4py import MPI

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu

from fpcontrol.discretization.periodic import refuse_periodic
from fpcontrol.noising.on_mesh import NoisedOnMesh
from fpcontrol.noising.reversal import Graded, Process
from fpcontrol.parallel.communicators import cached_comm
from fpcontrol.parallel.errors import collective_errors, reduced
from fpcontrol.quadrature import composite
from fpcontrol.score.files import read, write
from fpcontrol.typing import Array

GAUSS = 3  # points in each interval of time: exact for the products of hats
SUPPORT = 3  # intervals of the lattice on which a quadratic B-spline lives
FORMAT = 1  # of files


@dataclass(frozen=True, eq=False, repr=False)
class SplineScore:
    r"""A score made of quadratic B-splines in space, once differentiable, and hats in time.

    It knows of no wall and no cell: each rank can ask it anywhere, beyond the mesh's box for its
    values at the nearest point of that. A score model like any other: for ``process.reverse``,
    ``fpc.particles.simulate``, ``fpc.score.compare``. Made by ``fit``; ``save`` and ``load``; else
    not collective.

    Attributes:
        process: The noising process that ``t`` and ``x`` are of.
        low: Lowest corner of the box, ``(d,)``.
        high: Highest one, ``(d,)``.
        spacing: Of the lattice, length.
        finest: Of the clock, see ``fpc.noising.Graded``.
        weights: One over length, ``(times, B-splines, d)``: times even on the clock from 0 to
            ``process.t1``, B-splines in the order of the lattice, the last coordinate fastest.
        loss: What ``fit`` has left of its integral, see there; not a number if made otherwise.
    """

    process: Process
    low: Array
    high: Array
    spacing: float
    finest: float
    weights: Array
    loss: float = math.nan

    @classmethod
    def fit(
        cls,
        data: NoisedOnMesh,
        spacing: float,
        *,
        intervals: int = 16,
        ridge: float = 1e-8,
    ) -> "SplineScore":
        r"""Fit the weights by least squares to the score of data noised on a mesh. Collective.

        .. math:: \min_w\ \tfrac12\int_0^{t_1}g^2\int_\Omega p_t\,|\hat s - \nabla\log p_t|^2
            \,dx\,dt

        over the noised density itself, by the quadrature of its elements: score matching with the
        expectation in place of samples. Of data that are samples take their density, such as
        ``fpc.density.from_points``.

        What is left, ``loss``, is the Kullback-Leibler divergence of the paths of the sampler with
        ``noise = 1`` that starts from the noised data; by Girsanov it bounds that of what arrives,
        :math:`\mathrm{KL}(p_0|\hat p)`: walls add nothing. It is of the density as the mesh has it;
        ``fpc.score.compare`` measures it on a finer one, too.

        Args:
            data: Of ``process.of(density)``, such as ``fpc.noising.HeatFlow(mesh, D).of(density)``.
            spacing: Of the lattice, length: what is much smaller is not resolved.
            intervals: Of the clock between two times.
            ridge: Penalty on the weights, in units of the mean diagonal entry of the matrix: for
                B-splines that hardly meet the domain.

        Raises:
            ValueError: On all ranks, for an argument that is not as above, a lattice with more
                B-splines than the mesh has points, or a density that is not positive.
        """
        if not isinstance(data, NoisedOnMesh):
            raise ValueError(
                f"data, a {type(data).__name__}: data noised on a mesh are needed, such as "
                "fpc.noising.HeatFlow(mesh, D).of(density)."
            )
        for name, value in (("spacing", spacing), ("ridge", ridge)):
            if not (np.isfinite(value) and value > 0.0):
                raise ValueError(f"{name} = {value!r} must be a positive number.")
        if not isinstance(intervals, int | np.integer) or intervals < 1:
            raise ValueError(f"intervals = {intervals!r} must be a positive whole number.")
        g, process = data.elements, data.process
        refuse_periodic(
            g.mesh, "A SplineScore", "score = data itself, or fpc.score.JaxScore, knows periods."
        )
        least = (g.volume / g.sum(len(g.points))) ** (1.0 / g.dimension)
        if spacing < least:
            raise ValueError(
                f"spacing = {spacing:g}: the lattice would have more B-splines than the mesh has "
                f"quadrature points; choose more than {least:.3g}, or a finer mesh."
            )
        x = g.mesh.geometry.x[:, : g.dimension]
        low = reduced(g.comm, x.min(axis=0, initial=np.inf), MPI.MIN)
        high = reduced(g.comm, x.max(axis=0, initial=-np.inf), MPI.MAX)
        blank = cls(process, low, high, float(spacing), data.finest, np.empty((0, 0, 0)))
        clock = Graded(process, finest=data.finest)
        basis = blank._matrix(g.points)
        n = basis.shape[1]
        shape = (int(intervals) + 1, n, g.dimension)
        gram: list[list] = [[None] * shape[0] for _ in range(shape[0])]
        right, square = np.zeros(shape), 0.0
        nodes, weights = composite(np.linspace(0.0, 1.0, shape[0]), GAUSS)
        for u, w in zip(nodes, weights, strict=True):
            t = clock.noising_time(u)
            with collective_errors(g.comm):
                score = data.at_points(t, g)
                factor = 0.5 * w * clock.rate(u) * process.sigma(t) ** 2
                rho = factor * g.quadrature_weights * g.evaluate(data.coefficients(t)).ravel()
                part = (basis.T @ sparse.diags(rho) @ basis).tocsr()
                moment = basis.T @ (rho[:, None] * score)
                square += float(rho @ (score**2).sum(axis=1))
                hats = blank._hats(t, shape[0])
                for i, a in hats:
                    right[i] += a * moment
                    for j, b in hats:
                        gram[i][j] = (0.0 if gram[i][j] is None else gram[i][j]) + a * b * part
        found: Any = None
        parts = g.comm.gather((sparse.bmat(gram, format="csr"), right, square))
        with collective_errors(g.comm):
            if parts is not None:
                grams, rights, squares = zip(*parts, strict=True)
                found = _least(sum(grams), sum(rights), sum(squares), ridge)
        solution, loss = g.comm.bcast(found)
        return cls(process, low, high, blank.spacing, data.finest, solution.reshape(shape), loss)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], process: Process, comm: MPI.Comm = MPI.COMM_WORLD
    ) -> "SplineScore":
        """One from a file of ``save``. Collective.

        Args:
            path: The file; nothing in it is run.
            process: The noising process that it was fitted for.
            comm: Whose ranks all get it.

        Raises:
            OSError: On all ranks, if there is no such file or it is none of these.
            ValueError: On all ranks, if it was fitted for another process.
        """
        fields, name, probe = read(path, cached_comm(comm), "SplineScore", _checked)
        found = cls(process, **fields)
        if not np.allclose(found._probe(), probe, rtol=1e-10, atol=0.0):
            raise ValueError(
                f"process = {process}: the score in {str(path)!r} was fitted for {name}."
            )
        return found

    def __repr__(self) -> str:
        times, n, d = self.weights.shape
        return f"<SplineScore: {n} at {times} times in {d}-D, of {self.process}>"

    @property
    def size(self) -> int:
        """Number of weights."""
        return self.weights.size

    def values(self, t: float, x: Array) -> Array:
        """Score at points, ``(N, d)``.

        Raises:
            ValueError: If ``t`` is outside ``[0, t1]``.
        """
        w, found = self._at(t), np.zeros(x.shape)
        for places, share in self._pieces(x):
            found += share[:, None] * w[places]
        return found

    def divergence(self, t: float, x: Array) -> Array:
        """Its divergence, ``(N,)``, continuous inside the box."""
        w, found = self._at(t), np.zeros(len(x))
        for axis in range(x.shape[1]):
            for places, slope in self._pieces(x, axis):
                found += slope * w[places, axis]
        return found

    def vjp(self, t: float, x: Array, s: Array) -> Array:
        """Derivative of ``sum(s * values(t, x))`` in the weights, ``(size,)``."""
        _, n, d = self.weights.shape
        total, slope = np.zeros_like(self.weights), np.zeros((n, d))
        for places, share in self._pieces(x):
            for axis in range(d):
                slope[:, axis] += np.bincount(places, share * s[:, axis], minlength=n)
        for k, hat in self._hats(t, len(total)):
            total[k] += hat * slope
        return total.ravel()

    def save(self, path: str | os.PathLike[str], comm: MPI.Comm = MPI.COMM_WORLD) -> None:
        """Write it to an ``.npz`` file, from rank 0, in place of what is there. Collective.

        The process is not written, only what tells it from others: ``load`` is given it.

        Raises:
            OSError: On all ranks, if it cannot be written.
        """
        arrays = {"low": self.low, "high": self.high, "weights": self.weights}
        numbers = {"spacing": self.spacing, "finest": self.finest, "loss": self.loss}
        about = {"kind": "SplineScore", "format": FORMAT, "process": str(self.process)}
        write(path, cached_comm(comm), about | numbers, arrays | {"probe": self._probe()})

    def _probe(self) -> Array:
        """Numbers that tell processes apart."""
        process, corners = self.process, np.array([self.low, self.high])
        times = process.t1 * np.array([0.1, 0.5, 1.0])
        numbers = [(process.sigma(t), process.age(t)) for t in times]
        drifts = [process.drift(t, corners) for t in times]
        return np.concatenate([[process.t1], np.ravel(numbers), np.ravel(drifts)])

    def _at(self, t: float) -> Array:
        """Weights of the B-splines at a time, ``(n, d)``."""
        return sum(hat * self.weights[k] for k, hat in self._hats(t, len(self.weights)))

    def _hats(self, t: float, times: int) -> list[tuple[int, float]]:
        """The two hats that are not zero at a time, and their values."""
        last = self.process.t1
        if not -1e-9 * last <= t <= (1.0 + 1e-9) * last:
            raise ValueError(f"t = {t!r} is outside [0, t1 = {last:g}].")
        age = self.process.age
        place = math.log1p(max(age(t), 0.0) / self.finest) / math.log1p(age(last) / self.finest)
        place *= times - 1
        k = min(int(place), times - 2)
        return [(k, 1.0 - (place - k)), (k + 1, place - k)]

    def _counts(self) -> list[int]:
        """Numbers of B-splines along the axes."""
        cells = np.ceil((self.high - self.low) / self.spacing - 1e-9).astype(int)
        return [max(int(n), 1) + SUPPORT - 1 for n in cells]

    def _pieces(self, x: Array, axis: int | None = None) -> Iterator[tuple[Array, Array]]:
        """Numbers and values ``(N,)`` of B-splines, one of each point, until all were had.

        Of their derivatives along an axis, if one is given.
        """
        counts = self._counts()
        y = (np.clip(x, self.low, self.high) - self.low) / self.spacing
        first = np.minimum(y.astype(np.intp), np.array(counts) - SUPPORT)
        f = y - first
        rows = [list(_quadratic(f[:, i])) for i in range(x.shape[1])]
        if axis is not None:
            inside = (x[:, axis] >= self.low[axis]) & (x[:, axis] <= self.high[axis])
            rows[axis] = [inside / self.spacing * row for row in _slopes(f[:, axis])]
        for corner in itertools.product(range(SUPPORT), repeat=x.shape[1]):
            places, value = np.zeros(len(x), dtype=np.intp), np.ones(len(x))
            for i, k in enumerate(corner):
                places = places * counts[i] + first[:, i] + k
                value = value * rows[i][k]
            yield places, value

    def _matrix(self, x: Array) -> sparse.csr_matrix:
        """Values of all B-splines at points, ``(N, n)``."""
        places, values = (np.array(part) for part in zip(*self._pieces(x), strict=True))
        rows = np.broadcast_to(np.arange(len(x)), places.shape)
        entries = values.ravel(), (rows.ravel(), places.ravel())
        return sparse.csr_matrix(entries, shape=(len(x), math.prod(self._counts())))


def _quadratic(f: Array) -> tuple[Array, Array, Array]:
    """The three quadratic B-splines on an interval, at its shares f."""
    return 0.5 * (1.0 - f) ** 2, 0.5 + f - f**2, 0.5 * f**2


def _slopes(f: Array) -> tuple[Array, Array, Array]:
    """Their derivatives."""
    return f - 1.0, 1.0 - 2.0 * f, f


def _least(gram: Any, right: Array, square: float, ridge: float) -> tuple[Array, float]:
    """Weights that make the loss least, and what is left of it."""
    r = right.reshape(-1, right.shape[2])
    n = gram.shape[0]
    whole = gram + (ridge * gram.diagonal().sum() / n) * sparse.eye(n)
    ordering: Any = {"permc_spec": "MMD_AT_PLUS_A", "options": {"SymmetricMode": True}}
    w = splu(whole.tocsc(), diag_pivot_thresh=0.0, **ordering).solve(r)
    return w, max(float(square - 2.0 * (r * w).sum() + (w * (gram @ w)).sum()), 0.0)


def _checked(content: Any) -> tuple[dict[str, Any], str, Array]:
    """Attributes of a score but for its process, the name of that, and its probe."""
    about = json.loads(str(content["about"]))
    if about.get("kind") != "SplineScore":
        raise ValueError("it holds something else; fpc.score.load(path, process) reads networks")
    if about["format"] != FORMAT:
        raise ValueError(f"its format is {about['format']}, not {FORMAT}")
    fields = {name: content[name] for name in ("low", "high", "weights")}
    fields |= {name: float(about[name]) for name in ("spacing", "finest", "loss")}
    shape, dimension = fields["weights"].shape, len(fields["low"])
    blank: Any = None  # the process has no part in it
    lattice = SplineScore(blank, **fields)
    if len(shape) != 3 or shape[0] < 2 or shape[1:] != (math.prod(lattice._counts()), dimension):
        raise ValueError(f"its weights have the shape {shape}, which is not that of its lattice")
    if not all(np.isfinite(fields[name]).all() for name in ("low", "high", "weights")):
        raise ValueError("its weights or corners are not finite")
    if content["probe"].shape != (7 + 6 * dimension,):
        raise ValueError("what tells its process from others is not there")
    return fields, about["process"], content["probe"]
