"""Sets of a domain, named by a marker or by tags, as degrees of freedom."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from dolfinx import fem
from dolfinx.mesh import MeshTags

from fpcontrol.discretization.elements import Elements
from fpcontrol.parallel.errors import collective_errors
from fpcontrol.typing import Array

type Where = Callable[[Array], Array] | int | Iterable[int]


def dofs_of(g: Elements, where: Where, tags: MeshTags | None, name: str) -> Array:
    """Whether each local degree of freedom belongs to a set, ``(n_local,)``. Collective.

    Args:
        g: The space.
        where: ``marker(x)`` with ``x`` of shape ``(3, N)``, as in dolfinx, to booleans: asked at
            the nodes of all degrees of freedom; or one or several tags.
        tags: Cells or facets by tags; the nodes of their closures belong to the set.
        name: Of the argument, for messages.

    Raises:
        ValueError: On all ranks, for a set that is empty or what names none.
    """
    found = g.vector()
    if callable(where):
        x = g.space.tabulate_dof_coordinates().T
        with collective_errors(g.comm):
            marked = np.asarray(where(x))
            if marked.shape != x.shape[1:] or marked.dtype.kind != "b":
                raise ValueError(
                    f"{name}(x) returned {marked.dtype} values of shape {marked.shape} for x of "
                    f"shape {x.shape}; booleans of shape ({x.shape[1]},) are needed."
                )
        found.array[marked] = 1.0
    else:
        entities = _tagged(g, where, tags, name)
        assert tags is not None
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


def _tagged(g: Elements, where: Any, tags: MeshTags | None, name: str) -> Array:
    listed = isinstance(where, Iterable) and not isinstance(where, str | bytes)
    asked = list(where) if listed else [where]
    if not asked or not all(isinstance(t, int | np.integer) and t is not True for t in asked):
        raise ValueError(f"{name} = {where!r} must be a marker(x), a tag or several tags.")
    if not isinstance(tags, MeshTags):
        raise ValueError(
            f"{name} = {where!r} names tags: tags = {tags!r} must be the MeshTags that have them."
        )
    if tags.topology != g.mesh.topology._cpp_object:
        raise ValueError("tags are of another mesh than the equation's.")
    return tags.indices[np.isin(tags.values, asked)]
