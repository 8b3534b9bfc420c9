"""Meshes of gmsh: cells, nodes and physical groups of a .msh file, by gmsh itself or by meshio."""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fpcontrol.typing import Array

# Straight simplices by dimension, and the number of their nodes, in gmsh's and in meshio's words.
GMSH_SIMPLICES = (15, 1, 2, 4)
MESHIO_SIMPLICES = ("vertex", "line", "triangle", "tetra")
UNTAGGED = 0  # gmsh's groups are numbered from 1


class Block(NamedTuple):
    """Elements of one kind in one physical group."""

    dim: int
    kind: str  # as the file's reader calls them
    simplices: bool  # straight ones
    nodes: NDArray[np.int64]  # (n, nodes of an element)
    tag: int  # of the group; UNTAGGED in none


class Msh(NamedTuple):
    """A .msh file, on one rank."""

    path: Path
    x: Array  # (nodes, 3)
    blocks: list[Block]
    names: dict[int, dict[str, int]]  # tags of the groups of a dimension, by name

    @property
    def dim(self) -> int:
        """Dimension of the cells."""
        return max((block.dim for block in self.blocks), default=0)

    def cells(self) -> NDArray[np.int64]:
        """The cells, those of groups if there are any, ``(n, d + 1)``.

        Raises:
            ValueError: If there is none, or some are no straight simplices.
        """
        blocks = [block for block in self.blocks if block.dim == self.dim > 0]
        if not blocks:
            raise ValueError(f"{self.path} holds no mesh: it has no cells")
        blocks = [block for block in blocks if block.tag != UNTAGGED] or blocks
        if other := sorted({block.kind for block in blocks if not block.simplices}):
            raise ValueError(
                f"{self.path}: cells are '{', '.join(other)}'; a mesh must be of straight "
                "intervals, triangles or tetrahedra: mesh again without recombining, in gmsh with "
                "-order 1"
            )
        return np.concatenate([block.nodes for block in blocks])

    def tags(self, dim: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Node numbers of the elements of groups, ascending, and their tags.

        Args:
            dim: Of the elements.

        Returns:
            Shapes ``(n, dim + 1)`` and ``(n,)``.

        Raises:
            ValueError: If there are none, or an element is in two groups.
        """
        blocks = [b for b in self.blocks if b.dim == dim and b.simplices and b.tag != UNTAGGED]
        if not blocks:
            raise ValueError(
                f"{self.path} has no physical groups of dimension {dim}; it has "
                f"{', '.join(f'{n} of dimension {d}' for d, n in sorted(self.names.items())) or 0}"
                ". Add them (gmsh.model.addPhysicalGroup, Physical Curve ...) and save again"
            )
        nodes = np.sort(np.concatenate([block.nodes for block in blocks]), axis=1)
        values = np.concatenate([np.full(len(b.nodes), b.tag, dtype=np.int32) for b in blocks])
        both = np.unique(np.column_stack([nodes, values]), axis=0)  # once each
        nodes, values = both[:, :-1], both[:, -1].astype(np.int32)
        copies = (nodes[1:] == nodes[:-1]).all(axis=1)
        if copies.any():
            i = int(copies.argmax())
            called = {tag: name for name, tag in self.names.get(dim, {}).items()}
            two = ", ".join(repr(called.get(int(tag), int(tag))) for tag in values[i : i + 2])
            raise ValueError(
                f"{self.path}: {int(copies.sum())} elements of dimension {dim} are in more than "
                f"one physical group, the first in {two}; an element has one tag"
            )
        return nodes, values


def read_msh(path: Path) -> Msh:
    """A file of gmsh, read by gmsh, or where that is not installed by meshio. Not collective.

    Raises:
        FileNotFoundError: If there is no such file.
        ImportError: If neither is installed.
        ValueError: If the file cannot be read.
    """
    if not path.is_file():
        raise FileNotFoundError(f"mesh file {path} does not exist")
    if (gmsh := load_gmsh()) is not None:
        return _by_gmsh(gmsh, path)
    try:
        import meshio
    except ImportError as error:
        raise ImportError(
            f"{path}: files of gmsh are read by gmsh or meshio, and neither is installed: "
            "pip install meshio"
        ) from error
    return _by_meshio(meshio, path)


def load_gmsh() -> ModuleType | None:
    """Gmsh, or ``None`` where it or a library that it needs is missing."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # prints where it has looked for it
            import gmsh
        return gmsh if hasattr(gmsh.lib, "gmshInitialize") else None
    except (ImportError, OSError):
        return None


def _by_gmsh(gmsh: ModuleType, path: Path) -> Msh:
    with _opened(gmsh, path) as model:
        numbers, x, _ = model.mesh.getNodes()
        row = np.full(int(numbers.max(initial=0)) + 1, -1, dtype=np.int64)
        order = np.argsort(numbers)
        row[numbers[order].astype(np.int64)] = np.arange(len(numbers))
        blocks: list[Block] = []
        names: dict[int, dict[str, int]] = {}
        for dim, entity in model.getEntities():
            groups = [int(tag) for tag in model.getPhysicalGroupsForEntity(dim, entity)]
            for kind, _, nodes in zip(*model.mesh.getElements(dim, entity), strict=True):
                name, _, _, width, _, _ = model.mesh.getElementProperties(kind)
                rows = row[nodes.astype(np.int64).reshape(-1, width)]
                simple = kind == GMSH_SIMPLICES[dim]
                blocks += [Block(dim, name, simple, rows, tag) for tag in groups or [UNTAGGED]]
        for dim, tag in model.getPhysicalGroups():
            if called := model.getPhysicalName(dim, tag):
                names.setdefault(int(dim), {})[called] = int(tag)
        return Msh(path, x.reshape(-1, 3)[order], blocks, names)


@contextlib.contextmanager
def _opened(gmsh: ModuleType, path: Path) -> Iterator:
    """A file as gmsh's current model; what the user has open in gmsh stays as it is."""
    mine = not gmsh.isInitialized()
    if mine:
        gmsh.initialize(readConfigFiles=False, interruptible=False)
    before = None if mine else gmsh.model.getCurrent()
    said = gmsh.option.getNumber("General.Terminal")
    gmsh.option.setNumber("General.Terminal", 0)
    try:
        gmsh.model.add("fpcontrol")
        try:
            gmsh.merge(str(path))
        except Exception as error:  # all that gmsh raises
            words = " ".join(str(error).split())
            raise ValueError(f"{path} cannot be read by gmsh: {words}") from error
        yield gmsh.model
    finally:
        gmsh.model.remove()
        gmsh.option.setNumber("General.Terminal", said)
        if mine:
            gmsh.finalize()
        else:
            gmsh.model.setCurrent(before)


def _by_meshio(meshio: ModuleType, path: Path) -> Msh:
    try:
        mesh = meshio.read(path, file_format="gmsh")
    except (Exception, SystemExit) as error:  # whatever its parsers stumble over
        words = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path} cannot be read by meshio: {words}") from error
    blocks: list[Block] = []
    names: dict[int, dict[str, int]] = {}
    values = mesh.cell_data.get("gmsh:physical", [np.zeros(len(b.data)) for b in mesh.cells])
    for name, (tag, dim) in mesh.field_data.items():
        names.setdefault(int(dim), {})[name] = int(tag)
    for i, block in enumerate(mesh.cells):
        tagged = np.asarray(values[i]).astype(int)
        simple = block.type in MESHIO_SIMPLICES
        groups = {int(t): np.flatnonzero(tagged == t) for t in np.unique(tagged)}
        for name, sets in mesh.cell_sets.items():  # of several groups its data name the first only
            dim, tag = next(((d, n[name]) for d, n in names.items() if name in n), (None, None))
            if tag is not None and dim == block.dim and len(sets[i]):
                groups[tag] = np.asarray(sets[i], dtype=np.int64)
        for tag, rows in groups.items():
            nodes = block.data[rows].astype(np.int64)
            blocks.append(Block(block.dim, block.type, simple, nodes, tag))
    return Msh(path, np.asarray(mesh.points, dtype=np.float64), blocks, names)
