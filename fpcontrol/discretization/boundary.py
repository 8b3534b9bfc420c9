r"""The boundary of a mesh: facets with tags, outward normals and quadrature; functions there.

Facet ``k`` of a simplex is the one opposite to its vertex ``k``. With the barycentric coordinate
:math:`\lambda_k` of that vertex,

.. math:: n = -\nabla\lambda_k/|\nabla\lambda_k|,\qquad |F| = d\,|K|\,|\nabla\lambda_k|

in one, two and three dimensions alike; a facet of an interval is a point of measure 1.
"""

from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import fields as fields_of
from math import factorial
from typing import Self

import basix
import dolfinx.mesh
import numpy as np
from dolfinx import fem
from dolfinx.mesh import Mesh, MeshTags

from fpcontrol.discretization.periodic import periodic_of
from fpcontrol.parallel.communicators import comm_of
from fpcontrol.parallel.errors import collective_errors
from fpcontrol.typing import Array

type Marker = Callable[[Array], Array]  # x of shape (3, N) to booleans (N,), as in dolfinx

UNTAGGED = 0  # of facets that no tags name
MARKED = 1  # of facets that a marker picks

_FACETS = {2: basix.CellType.interval, 3: basix.CellType.triangle}


@dataclass(frozen=True)
class Boundary:
    """The facets of this rank's cells on the boundary of a mesh, ``n`` of them.

    A facet belongs to the rank of the one cell behind it, so that sums over facets and ranks are
    sums over the boundary.

    Attributes:
        mesh: The mesh, of straight simplices.
        facets: Their numbers in the mesh, ``(n,)``.
        cells: The cell behind each, ``(n,)``.
        opposite: Number in that cell of the vertex that the facet does not have, ``(n,)``.
        tags: Tag of each, ``(n,)``; ``UNTAGGED`` where it has none.
        corners: Coordinates of its vertices, in the order of the cell's, ``(n, d, d)``.
        normals: Outward unit normals, ``(n, d)``.
        measures: Lengths in two dimensions, areas in three, 1 in one, ``(n,)``.
        inverse: Inverse Jacobians of the cells behind, reference by physical axis, ``(n, d, d)``.
    """

    mesh: Mesh
    facets: Array
    cells: Array
    opposite: Array
    tags: Array
    corners: Array
    normals: Array
    measures: Array
    inverse: Array

    @classmethod
    def of(cls, mesh: Mesh, tags: MeshTags | Marker | None = None) -> Self:
        """The whole boundary of a mesh.

        Args:
            mesh: Mesh of straight simplices.
            tags: Tags of facets (``fpc.mesh.read_facet_tags``; those of inner facets are left
                out), or ``marker(x)`` as ``dolfinx.mesh.locate_entities_boundary`` takes it: a
                facet all of whose vertices it picks has the tag ``MARKED``.

        Raises:
            ValueError: On all ranks, for tags of another mesh or of other entities than facets.
            Exception: On all ranks, what a marker raises on one.

        Note:
            Collective.
        """
        d, topology = mesh.topology.dim, mesh.topology
        topology.create_connectivity(d - 1, d)
        topology.create_connectivity(d, d - 1)
        facets = dolfinx.mesh.exterior_facet_indices(topology)
        behind = topology.connectivity(d - 1, d)
        cells = behind.array[behind.offsets[facets]].astype(np.intp)
        return cls.beside(mesh, facets, cells, _tags(mesh, facets, tags))

    @classmethod
    def beside(cls, mesh: Mesh, facets: Array, cells: Array, tags: Array) -> Self:
        """Any facets, each seen from a cell beside it, to which normals and slopes belong.

        Args:
            mesh: Mesh of straight simplices, with connectivities of cells and facets.
            facets: Numbers of facets, ``(n,)``.
            cells: Cell of each, ``(n,)``.
            tags: Tag of each, ``(n,)``.
        """
        d = mesh.topology.dim
        nodes = mesh.geometry.dofmaps[0][cells]
        own = mesh.topology.connectivity(d, d - 1).array.reshape(-1, d + 1)[cells]
        opposite = (own == facets[:, None]).argmax(axis=1)
        if d == 1:  # the facets of an interval are its ends, in their order
            opposite = 1 - opposite

        x = mesh.geometry.x[nodes][:, :, :d]
        jacobian = (x[:, 1:] - x[:, :1]).transpose(0, 2, 1)
        inverse = np.linalg.inv(jacobian)
        every = np.arange(len(facets))
        slope = np.concatenate([-inverse.sum(axis=1, keepdims=True), inverse], axis=1)
        slope = slope[every, opposite]  # of the barycentric coordinate that vanishes on the facet
        steepness = np.linalg.norm(slope, axis=1)
        volumes = np.abs(np.linalg.det(jacobian)) / factorial(d)
        return cls(
            mesh,
            facets,
            cells,
            opposite,
            tags,
            x[every[:, None], _others(d)[opposite]],
            -slope / steepness[:, None],
            d * volumes * steepness,
            inverse,
        )

    def tagged(self, *tags: int) -> Self:
        """The part of the boundary with one of these tags."""
        kept = np.flatnonzero(np.isin(self.tags, tags))
        rows = [getattr(self, field.name)[kept] for field in fields_of(self)[1:]]
        return type(self)(self.mesh, *rows)

    def measure(self) -> float:
        """Length, area or number of points, over all ranks.

        Note:
            Collective.
        """
        return float(comm_of(self.mesh).allreduce(float(self.measures.sum())))

    def quadrature(self, degree: int) -> "FacetQuadrature":
        """Points and weights on every facet, exact for polynomials of this degree.

        Args:
            degree: Degree of exactness; one point a facet in one dimension, whatever it is.
        """
        n, d = len(self.facets), self.mesh.topology.dim
        hat, weights = np.zeros((1, 0)), np.ones(1)
        if d > 1:
            hat, weights = basix.make_quadrature(_FACETS[d], degree)
        shares = np.column_stack([1.0 - hat.sum(axis=1), hat])  # of the facet's vertices, (q, d)
        inside = np.zeros((n, len(hat), d + 1))
        rows = np.arange(n)[:, None]
        inside[rows, :, _others(d)[self.opposite]] = shares.T
        which = np.repeat(np.arange(n), len(hat))
        return FacetQuadrature(
            np.einsum("qv,nvd->nqd", shares, self.corners).reshape(-1, d),
            np.outer(self.measures, weights / weights.sum()).ravel(),
            self.normals[which],
            which,
            self.cells[which],
            inside[:, :, 1:].reshape(-1, d),
            self.inverse[which],
        )


@dataclass(frozen=True)
class FacetQuadrature:
    r"""Quadrature points on facets, ``N`` of them, those of a facet one after the other.

    .. math:: \int_F f\,dS \approx \sum_q w_q f(x_q)

    Attributes:
        points: Coordinates, ``(N, d)``.
        weights: Weights times the facet's measure, ``(N,)``.
        normals: Outward unit normals, ``(N, d)``.
        facets: The facet of each, as a number of the ``Boundary``'s rows, ``(N,)``.
        cells: The cell behind each, ``(N,)``.
        reference: Reference coordinates in that cell, ``(N, d)``.
        inverse: Inverse Jacobian of that cell, ``(N, d, d)``.
    """

    points: Array
    weights: Array
    normals: Array
    facets: Array
    cells: Array
    reference: Array
    inverse: Array

    def tabulate(self, space: fem.FunctionSpace, along: Array | None = None) -> tuple[Array, Array]:
        r"""Basis functions of the cells behind, and their normal gradients, at the points.

        Args:
            space: Scalar Lagrange space on the boundary's mesh.
            along: Vectors ``(N, d)`` in place of the normals.

        Returns:
            :math:`\phi_i(x_q)` and :math:`n\cdot\nabla\phi_i(x_q)`, each ``(N, n_basis)``, in the
            order of ``space.dofmap.list[cells]``.
        """
        table = space.element.basix_element.tabulate(1, self.reference)[:, :, :, 0]
        along = self.normals if along is None else along
        normal = np.einsum("nak,nk->an", self.inverse, along)
        return table[0], np.einsum("an,ani->ni", normal, table[1:])

    def evaluate(self, space: fem.FunctionSpace, u: Array) -> tuple[Array, Array]:
        """Values and normal gradients of a finite-element function at the points, ``(N,)`` each.

        Args:
            space: Scalar Lagrange space on the boundary's mesh.
            u: Degrees of freedom, local (owned, then ghosts).
        """
        own = u[space.dofmap.list[self.cells]]
        values, slopes = (np.einsum("ni,ni->n", table, own) for table in self.tabulate(space))
        return values, slopes


@dataclass(frozen=True)
class Wall:
    """Points on the walls of this rank, ``(N, d)``, and outward unit normals there."""

    points: Array
    normals: Array

    @classmethod
    def of(cls, mesh: Mesh) -> Self:
        """Quadrature points of degree 4 on the boundary facets of a mesh. Collective."""
        quadrature = Boundary.of(mesh).quadrature(4)
        return cls(quadrature.points, quadrature.normals)


def _others(d: int) -> Array:
    """The vertices of facet ``k`` in its cell, ``(d + 1, d)``."""
    return np.array([[i for i in range(d + 1) if i != k] for k in range(d + 1)])


def marked_facets(mesh: Mesh, marker: Marker) -> Array:
    """Facets at all of whose vertices a marker holds, where one of their cells has them.

    As ``dolfinx.mesh.locate_entities``, which knows each vertex at one place only: on a mesh with
    periodic sides a facet on one of these is there at two.
    """
    d, topology = mesh.topology.dim, mesh.topology
    topology.create_connectivity(d, d - 1)
    nodes = mesh.geometry.dofmaps[0]
    own = topology.connectivity(d, d - 1).array.reshape(len(nodes), d + 1)
    if d == 1:
        own = own[:, ::-1]
    marked = np.asarray(marker(mesh.geometry.x.T))[nodes]
    return np.unique(own[marked[:, _others(d)].all(axis=2)])


def _tags(mesh: Mesh, facets: Array, tags: MeshTags | Marker | None) -> Array:
    """Tags of facets, ``(n,)``. Collective."""
    found = np.full(len(facets), UNTAGGED, dtype=np.int32)
    d = mesh.topology.dim
    with collective_errors(comm_of(mesh)):
        if isinstance(tags, MeshTags):
            if tags.dim != d - 1 or tags.topology != mesh.topology._cpp_object:
                raise ValueError(
                    f"tags are of entities of dimension {tags.dim} of "
                    f"{'this' if tags.topology == mesh.topology._cpp_object else 'another'} mesh; "
                    f"tags of facets (dimension {d - 1}) of this mesh are needed."
                )
            # Entities that are tagged are sorted and each there once.
            _, rows, which = np.intersect1d(
                facets, tags.indices, assume_unique=True, return_indices=True
            )
            found[rows] = tags.values[which]
        elif callable(tags):
            if periodic_of(mesh) is None:
                # Of its parts those that are collective come before the marker is asked.
                marked = dolfinx.mesh.locate_entities_boundary(mesh, d - 1, tags)
            else:
                marked = marked_facets(mesh, tags)
            found[np.isin(facets, marked)] = MARKED
        elif tags is not None:
            raise ValueError(f"tags = {tags!r} must be MeshTags, a marker(x), or None.")
    return found
