"""Tags of cells or facets that have names, and numbers in place of names."""

from collections.abc import Iterable, Mapping
from typing import Any

from dolfinx.mesh import MeshTags


class NamedTags(MeshTags):
    """``MeshTags`` some of whose values have names, such as gmsh's physical groups.

    Wherever tags are asked for with them, a name stands for its value: ``absorbing="coast"``,
    ``fpc.observables.mass(["bay", "strait"], tags=tags)``.

    Args:
        tags: Tags of cells or facets.
        names: The value of each name.

    Raises:
        ValueError: For names that are no texts, or values that are no whole numbers.

    Attributes:
        names: The value of each name.
    """

    def __init__(self, tags: MeshTags, names: Mapping[str, int]) -> None:
        for name, value in names.items():
            if not isinstance(name, str) or isinstance(value, bool) or int(value) != value:
                raise ValueError(
                    f"names = {dict(names)!r}: a text and its whole number are needed, not "
                    f"{name!r}: {value!r}."
                )
        super().__init__(tags._cpp_object)
        self.names = {name: int(value) for name, value in names.items()}

    def __repr__(self) -> str:
        return f"NamedTags: dimension {self.dim}, {self.names}"


def numbered(asked: Any, tags: MeshTags | None, name: str) -> Any:
    """What is asked for, with the values of tags in place of their names.

    Args:
        asked: A tag or a name, or several; anything else is returned as it is.
        tags: The tags, which have the names.
        name: Of the argument, for messages.

    Raises:
        ValueError: For a name that the tags do not have.
    """
    if not isinstance(asked, str):
        if not isinstance(asked, Iterable) or not any(isinstance(a, str) for a in asked):
            return asked
        return [numbered(one, tags, name) if isinstance(one, str) else one for one in asked]
    if not isinstance(tags, MeshTags):
        raise ValueError(f"{name} = {asked!r} names a tag: tags = {tags!r} must be its MeshTags.")
    names = getattr(tags, "names", {})
    if asked not in names:
        known = ", ".join(map(repr, names))
        raise ValueError(
            f"{name} = {asked!r}: no tag has this name; there are {known}."
            if known
            else f"{name} = {asked!r}: these tags have no names; take their numbers, or give them "
            "names by fpc.mesh.NamedTags(tags, names)."
        )
    return names[asked]
