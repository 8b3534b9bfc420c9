"""How the package is built: imports point one way, modules stay small, what is public is said."""

import ast
import statistics
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "fpcontrol"

# From the bottom to the top, by folder or by module beside them: a module may import those of its
# own layer and of lower ones.
LAYERS = [
    {"typing", "quadrature", "parallel", "linalg", "noise"},
    {"discretization", "xdmf"},
    {"stepping"},
    {"mesh", "density", "drift", "walls"},
    {"trajectory", "generator", "observables", "fokker_planck"},
    {"reference", "characteristics", "noising"},
    {"distances"},
    {"certificates", "particles", "score"},
    {"control"},
    {"ensemble", "verification", "tables", "archive", "io", "plotting"},
    {"theorems", "cli", "guide", "galerkin", "__main__"},
]
# Of the leaves, nothing but the command line, the theorems and the package itself imports any,
# other leaves included; what is measured with a distance may be written or verified.
LEAVES = {"verification", "io", "plotting"}
# Mathematics without meshes, by module or folder: numpy and scipy are all that it needs.
PURE = (
    "typing",
    "quadrature",
    "noise",
    *(f"noising.{part}" for part in ("line", "pieces", "mixture", "noised", "reversal")),
    "theorems.closed_forms",
)

MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.name != "__init__.py"
}
# Folders whose names stand for what their __init__.py imports.
FOLDERS = {
    ".".join(path.parent.relative_to(PACKAGE).parts): path
    for path in sorted(PACKAGE.rglob("*/__init__.py"))
}
FILES = MODULES | FOLDERS


def layer(module: str) -> int:
    part = module.split(".")[0]
    found = [i for i, names in enumerate(LAYERS) if part in names]
    assert found, f"{module} is in no layer: say in LAYERS where it belongs"
    return found[0]


def names_imported(tree: ast.Module, typed: bool = False) -> set[str]:
    """What is imported anywhere in a module, functions included, when it runs, or is checked."""
    names = set()
    types = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in set(ast.walk(tree)) - (set() if typed else types):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports are not used"
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imported(tree: ast.Module, typed: bool = False) -> set[str]:
    """Modules of the package that are imported anywhere in a module, functions included."""
    names = names_imported(tree, typed)
    inner = {name.removeprefix("fpcontrol.") for name in names if name.startswith("fpcontrol.")}
    return inner & set(FILES)


def parsed(module: str) -> ast.Module:
    return ast.parse(FILES[module].read_text(encoding="utf-8"))


def test_package_is_found():
    assert {"discretization.elements", "fokker_planck", "control.tracking"} <= set(MODULES)
    assert imported(parsed("control.tracking")) >= {"control.on_mesh", "reference"}


def test_layers_name_what_is_there_and_name_it_once():
    named = [name for names in LAYERS for name in names]
    assert len(named) == len(set(named))
    assert set(named) == {module.split(".")[0] for module in MODULES} | {"__main__"}
    assert set(named) >= LEAVES
    assert all(pure in MODULES or (PACKAGE / pure.replace(".", "/")).is_dir() for pure in PURE)


@pytest.mark.parametrize("module", FILES)
def test_imports_point_down(module):
    mine = layer(module)
    upward = {name for name in imported(parsed(module)) if layer(name) > mine}
    assert not upward


@pytest.mark.parametrize("module", FILES)
def test_nothing_imports_leaves(module):
    if layer(module) < len(LAYERS) - 1:
        others = {name.split(".")[0] for name in imported(parsed(module))} - {module.split(".")[0]}
        assert not LEAVES & others


@pytest.mark.parametrize("typed", [False, True], ids=["run", "checked"])
def test_imports_make_no_circle(typed):
    below = {module: imported(parsed(module), typed) - {module} for module in FILES}
    while below:
        bottom = {module for module, names in below.items() if not names & set(below)}
        assert bottom, f"a circle among {sorted(below)}"
        below = {module: names for module, names in below.items() if module not in bottom}


@pytest.mark.parametrize(
    "module", [m for m in MODULES if any(m == p or m.startswith(f"{p}.") for p in PURE)]
)
def test_mathematics_without_meshes_loads_no_petsc(module):
    seen, new = set(), {module}
    while new:
        seen |= new
        new = {name for m in new for name in imported(parsed(m))} - seen
    outside = {name.split(".")[0] for m in seen for name in names_imported(parsed(m))}
    assert outside - sys.stdlib_module_names <= {"fpcontrol", "numpy", "scipy"}


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize("module", MODULES)
def test_modules_are_below_four_hundred_lines(module):
    assert lines(MODULES[module]) < 400


def test_half_of_the_modules_are_below_two_hundred_lines():
    assert statistics.median(map(lines, MODULES.values())) <= 200


@pytest.mark.parametrize("path", sorted(Path(__file__).parent.glob("*.py")), ids=lambda p: p.stem)
def test_files_of_tests_are_below_four_hundred_lines(path):
    assert lines(path) < 400


@pytest.mark.parametrize("module", MODULES)
def test_what_is_public_has_a_docstring(module):
    tree = parsed(module)
    kinds = (ast.FunctionDef, ast.ClassDef)
    public = [node for node in tree.body if isinstance(node, kinds)]
    public += [
        n
        for c in public
        if isinstance(c, ast.ClassDef)
        for n in c.body
        if isinstance(n, ast.FunctionDef) and not c.name.startswith("_")
    ]
    bare = [n.name for n in public if not n.name.startswith("_") and not ast.get_docstring(n)]
    assert ast.get_docstring(tree)
    assert not bare


@pytest.mark.parametrize("module", MODULES)
def test_lower_layers_compile_no_forms(module):
    # A form compiler inside a step is what the refill from arrays replaces.
    names = {
        alias.name.split(".")[0]
        for node in ast.walk(parsed(module))
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    assert module in ("mesh.distribution", "xdmf") or "ufl" not in names


def test_nothing_is_sent_on_the_communicator_of_a_mesh():
    for module in MODULES:
        tree = parsed(module)
        harmless = {
            id(node.value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and node.attr in ("rank", "size")
        }
        used = [
            ast.unparse(node)
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute)
            and node.attr == "comm"
            and ast.unparse(node.value).split(".")[-1].strip("_") == "mesh"
            and id(node) not in harmless
        ]
        if module != "parallel.communicators":
            assert not used, f"{module}: {used}; use comm_of(mesh)"
