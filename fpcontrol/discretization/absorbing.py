r"""Absorbing walls: what reaches them is gone, and it is known how much, and where.

On the facets :math:`\Gamma_k` of a tag the density vanishes; through the others there is no flux:

.. math::
    \rho = 0 \text{ on } \textstyle\bigcup_k\Gamma_k,\qquad
    (D\nabla\rho - v\rho)\cdot n = 0 \text{ elsewhere.}

With the projection Q that zeroes the degrees of freedom there, an operator of an implicit stage,
:math:`A = M + \tau N`, is replaced by

.. math:: A_Q = QAQ + (I - Q)\,\mathrm{diag}(M),\qquad A_Q\,y = Q M r,

whatever the method in space: its entries are closed where they are filled. Q is symmetric, so that
tangent and transpose are exact as before.

The columns of N sum to zero. So the mass that a stage loses is the sum of the residuals of the
rows that are not solved,

.. math:: 1^\top M (r - y) = \sum_{i\,\in\,\text{walls}} (M r - A y)_i ,

and those of the rows of one tag are what left through its facets. A node on facets of two tags
belongs to the tag that is named first.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Self

import basix
import numpy as np
from dolfinx.mesh import MeshTags

from fpcontrol.discretization.boundary import MARKED, Boundary, Marker
from fpcontrol.discretization.elements import Elements
from fpcontrol.discretization.tags import numbered
from fpcontrol.linalg.linear_solvers import LinearSolver
from fpcontrol.parallel.errors import collective_errors, reduced
from fpcontrol.typing import Array

# Share of the mass that is restored, at most: what round-off and usual tolerances lose.
RESTORED = 1e-6

type Walls = Marker | int | str | Iterable[int | str]


class Absorbing:
    """The absorbing walls of a space, for the entries and vectors of one method. Collective.

    Args:
        elements: The space.
        mass_values: Entries of the method's M, ``(sparsity.size,)``.
        wall: Number of the wall, as in ``tags``, of each local degree of freedom; -1 for none.
        tags: Tags of the walls.
        measures: Their lengths, areas or numbers of points.
        names: Tags by name, if they have names.

    Attributes:
        dofs: Local numbers of the degrees of freedom on the walls, owned ones first.
    """

    def __init__(
        self,
        elements: Elements,
        mass_values: Array,
        wall: Array,
        tags: tuple[int, ...],
        measures: tuple[float, ...],
        names: Mapping[str, int] | None = None,
    ) -> None:
        self._elements, self._wall = elements, wall
        self.tags, self.measures, self.names = tags, measures, dict(names or {})
        self.dofs = np.flatnonzero(wall >= 0)
        self._owned = self.dofs[self.dofs < elements.n_owned]
        sparsity = elements.sparsity
        rows = np.repeat(np.arange(len(wall)), np.diff(sparsity.indptr))
        columns = sparsity.indices
        on_row, on_column = wall[rows] >= 0, wall[columns] >= 0
        self._closed = np.flatnonzero(on_row | on_column)
        self._mass = mass_values
        self._closing = np.where(rows == columns, mass_values, 0.0)[self._closed]
        leaving = np.flatnonzero(on_row & ~on_column)
        self._leaving, self._columns = leaving, columns[leaving]
        self._leaving_mass, self._through = mass_values[leaving], wall[rows[leaving]]

    @classmethod
    def of(
        cls,
        elements: Elements,
        mass_values: Array,
        absorbing: Walls | None,
        facet_tags: MeshTags | None,
    ) -> Self | None:
        """The walls that a user names; ``None`` for none. Collective.

        Args:
            elements: The space.
            mass_values: Entries of the method's M.
            absorbing: A marker, or a tag or tags of ``facet_tags``.
            facet_tags: Tags of facets of the mesh.

        Raises:
            ValueError: On all ranks, for walls that are not there or arguments that do not fit.
        """
        if absorbing is None and facet_tags is None:
            return None
        tags = asked_tags(absorbing, facet_tags)
        boundary = Boundary.of(elements.mesh, absorbing if callable(absorbing) else facet_tags)
        if facet_tags is not None:
            _check_outer(elements, boundary, facet_tags, tags)
        measures = tuple(boundary.tagged(tag).measure() for tag in tags)
        for tag, measure in zip(tags, measures, strict=True):
            if not measure > 0.0:
                raise ValueError(
                    "absorbing: the marker picks no facet of the boundary; it must hold at all "
                    "vertices of a facet."
                    if callable(absorbing)
                    else f"absorbing = {absorbing!r}: no facet has the tag {tag}."
                )
        wall = _walls(elements, boundary, tags)
        if elements.sum(float((wall[: elements.n_owned] < 0).sum())) == 0.0:
            raise ValueError("absorbing: every node lies on an absorbing wall; refine the mesh.")
        names = getattr(facet_tags, "names", None)
        return cls(elements, mass_values, wall, tags, measures, names)

    def close(self, values: Array) -> Array:
        """Close an operator's entries in place.

        Returns:
            Entries by which the free degrees of freedom act on the walls, for ``absorbed``.
        """
        leaving = values[self._leaving]
        values[self._closed] = self._closing
        return leaving

    def of_tag(self, tag: int) -> Array:
        """Whether each local degree of freedom lies on the wall of a tag, ``(n_local,)``."""
        return self._wall == self.tags.index(tag)

    def project(self, u: Array) -> None:
        """Q, in place, of a local array."""
        u[self.dofs] = 0.0

    def project_free(self, u: Array) -> None:
        """I - Q, in place, of an array of owned entries or more."""
        kept = u[self._owned].copy()
        u[:] = 0.0
        u[self._owned] = kept

    def project_owned(self, u: Array) -> None:
        """Q, in place, of an array of owned entries or more."""
        u[self._owned] = 0.0

    def absorbed(self, leaving: Array, r: Array, y: Array) -> Array:
        """This rank's part of ``M r - A y`` at each wall, ``(tags,)``.

        Args:
            leaving: What ``close`` returned for A.
            r: Local array, zero on the walls.
            y: Local array, zero on the walls.
        """
        flows = self._leaving_mass * r[self._columns] - leaving * y[self._columns]
        return np.bincount(self._through, flows, minlength=len(self.tags))

    def restored(self, r: Array, y: Array, absorbed: Array) -> Array:
        r"""What a stage of a positive method absorbs, such that no mass is lost. Collective.

        Where a drift leads mass around very many times in a step, round-off in the entries of A is
        a loss that no solver makes up for. Both y and what is absorbed are multiplied by

        .. math:: \frac{1^\top M r}{1^\top M y + \sum_k a_k},

        which is 1 for an exact solve: no derivative feels it. A factor farther from 1 than
        ``RESTORED`` is that of a solve that failed, which is not for here to hide.

        Args:
            r: As of ``absorbed``, and
            y: likewise; multiplied in place.
            absorbed: What each wall took, this rank's part, ``(tags,)``.
        """
        g, n = self._elements, self._elements.n_owned
        mine = np.array([g.integrals @ r[:n], g.integrals @ y[:n] + absorbed.sum()])
        before, after = reduced(g.comm, mine)
        if not abs(before - after) <= RESTORED * after:
            return absorbed
        factor = before / after if after > 0.0 else 1.0
        y *= factor
        return factor * absorbed

    def collected(self, flows: Array) -> Array:
        """Sums over each wall of owned entries or more, ``(tags,)``; this rank's part."""
        return np.bincount(self._wall[self._owned], flows[self._owned], minlength=len(self.tags))

    def start(self, u: Array, positive: bool) -> tuple[Array, Array]:
        r"""A density that vanishes on the walls, in place of one that need not. Collective.

        Its projection in L2, :math:`QMQ\,\rho_0 = QM\,u`; for methods that stay positive the
        density itself without its values on the walls (with a lumped mass the two are one).

        Args:
            u: Density, local.
            positive: Whether the method stays positive.

        Returns:
            The density, local, and the mass that each wall has taken of it, ``(tags,)``.
        """
        g, taken = self._elements, np.zeros(len(self.tags))
        start = u.copy()
        if not g.sum(float(np.abs(u[self._owned]).sum())) > 0.0:
            return start, taken
        self.project(start)
        if not positive:
            start = self._projected(u)
            flows = g.apply_mass(u - start)[self._owned]
        else:
            flows = (g.integrals * u[: g.n_owned])[self._owned]
        taken += np.bincount(self._wall[self._owned], flows, minlength=len(self.tags))
        return start, shared(reduced(g.comm, taken), g.integral(u) - g.integral(start))

    def describe(self) -> dict[str, float]:
        """Measures of the walls by their tags, for checkpoints and records."""
        return {str(tag): m for tag, m in zip(self.tags, self.measures, strict=True)}

    def _projected(self, u: Array) -> Array:
        g, values = self._elements, self._mass.copy()
        self.close(values)
        matrix, b, x = g.matrix(values).mat, g.vector(), g.vector()
        solver = LinearSolver(matrix, dimension=g.dimension, prefix="fpcontrol_start_")
        b.set(g.apply_mass(u))
        self.project(b.array)
        b.changed()
        x.set(u)
        self.project(x.array)
        x.changed()
        solver.solve(b.petsc_vec, x.petsc_vec)
        x.scatter_forward()
        return x.array.copy()


def shared(parts: Array, total: float) -> Array:
    """Parts whose sum is a total, from such as miss it a little: each changes in proportion."""
    sizes = np.abs(parts)
    size = float(sizes.sum())
    return parts + sizes * ((total - float(parts.sum())) / size) if size > 0.0 else parts


def asked_tags(absorbing: Walls | None, facet_tags: MeshTags | None) -> tuple[int, ...]:
    """The tags that are named, in their order."""
    if absorbing is None:
        raise ValueError("facet_tags without absorbing: say which of the tags absorb.")
    if callable(absorbing):
        if facet_tags is not None:
            raise ValueError(
                "absorbing is a marker, and facet_tags are given: name tags of these, or give the "
                "marker alone."
            )
        return (MARKED,)
    asked: Any = numbered(absorbing, facet_tags, "absorbing")
    listed = isinstance(asked, Iterable) and not isinstance(asked, bytes)
    tags: list[Any] = list(asked) if listed else [asked]
    whole = all(isinstance(t, int | np.integer) and not isinstance(t, bool) for t in tags)
    if not tags or not whole or len(set(tags)) < len(tags):
        raise ValueError(
            f"absorbing = {absorbing!r} must be a marker(x), a tag of facets or several tags."
        )
    if not isinstance(facet_tags, MeshTags):
        raise ValueError(
            f"absorbing = {absorbing!r} names tags of facets: facet_tags = {facet_tags!r} must be "
            "the MeshTags that have them (fpc.mesh.read_facet_tags)."
        )
    return tuple(int(tag) for tag in tags)


def _check_outer(
    g: Elements, boundary: Boundary, facet_tags: MeshTags, tags: tuple[int, ...]
) -> None:
    """Refuse tags of facets between two cells. Collective."""
    with collective_errors(g.comm):
        own = g.mesh.topology.index_map(g.dimension - 1).size_local
        mine = facet_tags.indices < own
        for tag in tags:
            tagged = facet_tags.indices[mine & (facet_tags.values == tag)]
            inner = np.setdiff1d(tagged, boundary.facets)
            if len(inner):
                raise ValueError(
                    f"absorbing: facets of the tag {tag} lie between two cells ({len(inner)} on "
                    f"rank {g.comm.rank}); only the boundary can absorb."
                )


def _walls(g: Elements, boundary: Boundary, tags: tuple[int, ...]) -> Array:
    """Number of the tag of each local degree of freedom, -1 for none. Collective."""
    element, d = g.space.element.basix_element, g.dimension
    corners, nodes = basix.topology(element.cell_type)[d - 1], element.entity_closure_dofs[d - 1]
    # Of the facet that a vertex of the cell is opposite to.
    on = np.array([nodes[i] for k in range(d + 1) for i in range(d + 1) if k not in corners[i]])
    wall, found = np.full(g.n_local, -1), g.vector()
    for k in reversed(range(len(tags))):
        part = boundary.tagged(tags[k])
        found.array[:] = 0.0
        found.array[g.space.dofmap.list[part.cells[:, None], on[part.opposite]]] = 1.0
        found.scatter_reverse()  # the cell behind a facet may be of another rank than its nodes
        found.scatter_forward()
        wall[found.array > 0.0] = k
    return wall
