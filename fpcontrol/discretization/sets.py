"""Sets of a domain, named by a marker or by tags: degrees of freedom, cells, facets."""

from collections.abc import Callable, Iterable
from typing import Any

import dolfinx.mesh
import numpy as np
from dolfinx import fem
from dolfinx.la import InsertMode
from dolfinx.la import vector as la_vector
from dolfinx.mesh import MeshTags

from fpcontrol.discretization.boundary import marked_facets
from fpcontrol.discretization.elements import Elements
from fpcontrol.discretization.periodic import dof_places, periodic_of
from fpcontrol.discretization.tags import numbered
from fpcontrol.parallel.errors import collective_errors
from fpcontrol.typing import Array

type Where = Callable[[Array], Array] | int | str | Iterable[int | str]


def dofs_of(g: Elements, where: Where, tags: MeshTags | None, name: str) -> Array:
    """Whether each local degree of freedom belongs to a set, ``(n_local,)``. Collective.

    Args:
        g: The space.
        where: ``marker(x)`` with ``x`` of shape ``(3, N)``, as in dolfinx, to booleans: asked at
            the nodes of all degrees of freedom; or one or several tags, by number or name.
        tags: Cells or facets by tags; the nodes of their closures belong to the set.
        name: Of the argument, for messages.

    Raises:
        ValueError: On all ranks, for a set that is empty or what names none.
    """
    found = g.vector()
    if callable(where):
        with collective_errors(g.comm):
            found.array[_marked(g, where, name)] = 1.0
    else:
        tags, entities = _tagged(g, where, tags, name)
        g.mesh.topology.create_connectivity(tags.dim, g.dimension)
        found.array[fem.locate_dofs_topological(g.space, tags.dim, entities)] = 1.0
    found.scatter_reverse()
    found.scatter_forward()
    marked = found.array > 0.0
    if g.sum(float(marked[: g.n_owned].sum())) == 0.0:
        raise ValueError(
            f"{name}: the marker holds at no node of the mesh; refine it or enlarge the set."
            if callable(where)
            else f"{name} = {where!r}: no cell or facet has such a tag."
        )
    return marked


def cells_of(g: Elements, where: Any, tags: MeshTags | None, name: str) -> Array:
    """Whether each cell of this rank has one of some tags, ``(n_cells,)``. Collective.

    Raises:
        ValueError: On all ranks, if no cell has, or for tags of other entities than cells.
    """
    tags, entities = _tagged(g, where, tags, name)
    if tags.dim != g.dimension:
        raise ValueError(
            f"{name} = {where!r}: tags are of entities of dimension {tags.dim}, no cells."
        )
    found = np.zeros(g.n_cells, dtype=bool)
    found[entities[entities < g.n_cells]] = True
    if g.sum(float(found.sum())) == 0.0:
        raise ValueError(f"{name} = {where!r}: no cell has such a tag.")
    return found


def facets_of(g: Elements, where: Where, tags: MeshTags | None, name: str) -> Array:
    """Facets of a set, inner ones too, by their numbers on this rank, ghosts as well. Collective.

    Args:
        g: A space on the mesh.
        where: ``marker(x)`` as ``dolfinx.mesh.locate_entities`` takes it, true at all vertices of
            a facet; or one or several tags.
        tags: ``MeshTags`` of facets.
        name: Of the argument, for messages.

    Raises:
        ValueError: On all ranks, for a set without facets or what names none.
    """
    topology, dim = g.mesh.topology, g.dimension - 1
    for pair in ((dim, 0), (dim, g.dimension), (g.dimension, dim)):
        topology.create_connectivity(*pair)
    if callable(where):
        with collective_errors(g.comm):
            facets = _marked_facets(g, lambda x: checked(where, x, name))
    else:
        tags, facets = _tagged(g, where, tags, name)
        if tags.dim != dim:
            raise ValueError(
                f"{name} = {where!r}: tags are of entities of dimension {tags.dim}, no facets."
            )
    # A rank may have a facet that another has found.
    found = la_vector(topology.index_map(dim), 1)
    found.array[facets] = 1.0
    found.scatter_reverse(InsertMode.add)
    found.scatter_forward()
    own = topology.index_map(dim).size_local
    if g.sum(float(found.array[:own].sum())) == 0.0:
        raise ValueError(
            f"{name}: the marker holds at all vertices of no facet."
            if callable(where)
            else f"{name} = {where!r}: no facet has such a tag."
        )
    return np.flatnonzero(found.array > 0.0)


def _marked(g: Elements, where: Callable[[Array], Array], name: str) -> Array:
    """Local degrees of freedom where a marker holds; on periodic sides at one of their places."""
    x = dof_places(g.space)
    marked, periodic = np.array(checked(where, x.T, name)), periodic_of(g.mesh)
    for rows, y in periodic.images(x[:, : g.dimension]) if periodic else ():
        moved = x[rows]
        moved[:, : g.dimension] = y
        marked[rows] |= checked(where, moved.T, name)
    return marked


def _marked_facets(g: Elements, marker: Callable[[Array], Array]) -> Array:
    if periodic_of(g.mesh) is None:
        return dolfinx.mesh.locate_entities(g.mesh, g.dimension - 1, marker)
    return marked_facets(g.mesh, marker)


def checked(marker: Callable[[Array], Array], x: Array, name: str) -> Array:
    """Booleans of a marker at points ``(3, N)``; a ValueError if it returns something else."""
    marked = np.asarray(marker(x))
    if marked.shape != x.shape[1:] or marked.dtype.kind != "b":
        raise ValueError(
            f"{name}(x) returned {marked.dtype} values of shape {marked.shape} for x of shape "
            f"{x.shape}; booleans of shape ({x.shape[1]},) are needed."
        )
    return marked


def _tagged(g: Elements, where: Any, tags: MeshTags | None, name: str) -> tuple[MeshTags, Array]:
    """Tags, checked, and the entities that are named."""
    where = numbered(where, tags, name)
    listed = isinstance(where, Iterable) and not isinstance(where, bytes)
    asked = list(where) if listed else [where]
    if not asked or not all(isinstance(t, int | np.integer) and t is not True for t in asked):
        raise ValueError(f"{name} = {where!r} must be a marker(x), a tag or several tags.")
    if not isinstance(tags, MeshTags):
        raise ValueError(
            f"{name} = {where!r} names tags: tags = {tags!r} must be the MeshTags that have them."
        )
    if tags.topology != g.mesh.topology._cpp_object:
        raise ValueError("tags are of another mesh than the equation's.")
    return tags, tags.indices[np.isin(tags.values, asked)]
