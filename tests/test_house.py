"""How the package is built: imports point one way, modules stay small, what is public is said."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "fpcontrol"

# From the bottom to the top, by folder or by module beside them: a module may import those of its
# own layer and of lower ones.
LAYERS = [
    {"typing", "quadrature", "noising", "parallel", "linalg", "noise"},
    {"discretization", "xdmf"},
    {"stepping"},
    {"mesh", "density", "drift", "walls"},
    {"trajectory", "fokker_planck"},
    {"reference", "characteristics"},
    {"distances"},
    {"control"},
    {"certificates", "ensemble", "verification", "tables", "archive", "io", "plotting"},
    {"theorems", "cli", "guide", "__main__"},
]
# Of the leaves, nothing but the command line, the theorems and the package itself imports any,
# other leaves included; what is measured with a distance may be written or verified.
LEAVES = {"verification", "io", "plotting"}

MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.name != "__init__.py"
}


def layer(module: str) -> int:
    part = module.split(".")[0]
    found = [i for i, names in enumerate(LAYERS) if part in names]
    assert found, f"{module} is in no layer: say in LAYERS where it belongs"
    return found[0]


def imported(tree: ast.Module) -> set[str]:
    """Modules of the package that are imported anywhere in a module, functions included."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports are not used"
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    inner = {name.removeprefix("fpcontrol.") for name in names if name.startswith("fpcontrol.")}
    return {name for name in inner if name in MODULES or f"{name}.__init__" in MODULES}


def parsed(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def test_package_is_found():
    assert {"discretization.elements", "fokker_planck", "control.tracking"} <= set(MODULES)
    assert imported(parsed("control.tracking")) >= {"control.on_mesh", "reference"}


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module):
    mine = layer(module)
    upward = {name for name in imported(parsed(module)) if layer(name) > mine}
    assert not upward


@pytest.mark.parametrize("module", MODULES)
def test_nothing_imports_leaves(module):
    if layer(module) < len(LAYERS) - 1:
        assert not LEAVES & {name.split(".")[0] for name in imported(parsed(module)) - {module}}


def test_imports_make_no_circle():
    below = {module: imported(parsed(module)) - {module} for module in MODULES}
    while below:
        bottom = {module for module, names in below.items() if not names & set(below)}
        assert bottom, f"a circle among {sorted(below)}"
        below = {module: names for module, names in below.items() if module not in bottom}


@pytest.mark.parametrize("module", MODULES)
def test_modules_are_below_four_hundred_lines(module):
    assert len(MODULES[module].read_text(encoding="utf-8").splitlines()) < 400


@pytest.mark.parametrize("path", sorted(Path(__file__).parent.glob("*.py")), ids=lambda p: p.stem)
def test_files_of_tests_are_below_four_hundred_lines(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) < 400


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
    assert module in ("mesh", "xdmf") or "ufl" not in names
