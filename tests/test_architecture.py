"""Data flows one way: set → kernel → Projection → HSJacobian → primitive → nn."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "hsref"

# A room may import rooms of a lower storey, or its own. `_linking`, `_caching`, `_jit` and `_codes`
# know only Numba and integers; the drivers that make kernels know nothing of any set.
STOREY = {
    "_codes": 0,
    "_device": 0,
    "_linking": 0,
    "_caching": 0,
    "_jit": 0,
    "_heap": 0,
    "_scratch": 0,
    "_threads": 0,
    "_batch": 1,
    "sets": 2,
    "record": 3,
    "jacobian": 4,
    "saddle": 4,
    "data_gradients": 4,
    "solve": 5,
    "_cuda": 6,
    "primitives": 6,
    "matrix_primitives": 6,
    "quadratic": 6,
    "nn": 7,
}
# Rooms that use the public face and that nothing imports.
GUESTS = ("theory", "interop", "applications", "cli")
# Reached when first used (a framework's array arrives, a record is asked for its Jacobian), never
# by an import at the top.
LAZY = {
    ("solve", "interop"),
    ("solve", "primitives"),
    ("solve", "_cuda"),
    ("jacobian", "_cuda"),
    ("record", "jacobian"),
    ("jacobian", "primitives"),
    ("jacobian", "solve"),  # hs_jacobian_set starts with a record
    ("sets", "solve"),  # the general solver proves that a special set is empty
}


def room_of(module: str) -> str:
    """Return the room of a dotted module name: its first part below ``hsref``."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def module_of(path: Path) -> str:
    parts = ("hsref", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imports_of(path: Path) -> list[tuple[str, bool, int]]:
    """Return (imported module, whether at the top of the file, line) for each import of a file."""
    here = module_of(path)
    package = here if path.name == "__init__.py" else here.rpartition(".")[0]
    found: list[tuple[str, bool, int]] = []

    def resolve(node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        base = package.split(".")[: len(package.split(".")) - node.level + 1]
        return ".".join([*base, node.module] if node.module else base)

    def visit(node: ast.AST, top: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if is_for_types_only(child):
                continue
            if isinstance(child, ast.Import):
                found.extend((alias.name, top, child.lineno) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                source = resolve(child)
                # `from . import solve` names modules of the package itself
                for alias in child.names:
                    named = f"{source}.{alias.name}" if source == "hsref" else source
                    found.append((named, top, child.lineno))
            inner = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            visit(child, top and not inner)

    visit(ast.parse(path.read_text(encoding="utf-8")), True)
    return found


FILES = sorted(p for p in PACKAGE.rglob("*.py") if "__pycache__" not in p.parts)


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_imports_go_down(path):
    here = room_of(module_of(path))
    for target, top, line in imports_of(path):
        if target.split(".")[0] != "hsref":
            continue
        there = room_of(target)
        if there == here or here in GUESTS or not here:
            continue
        where = f"{path.name}:{line} imports {target}"
        if not top and (here, there) in LAZY:
            continue
        assert there not in GUESTS, f"{where}: nothing imports the room {there!r}"
        if here in STOREY and there in STOREY:
            assert STOREY[there] <= STOREY[here], f"{where}: data flows the other way"


def test_guests_do_not_import_each_other_beyond_the_command_line():
    for path in FILES:
        here = room_of(module_of(path))
        if here not in GUESTS or here == "cli":
            continue
        for target, _, line in imports_of(path):
            if target.startswith("hsref."):
                there = room_of(target)
                strangers = [g for g in GUESTS if g != here]
                assert there not in strangers, f"{path.name}:{line} imports {target}"


def test_package_init_is_lazy():
    top = [name for name, at_top, _ in imports_of(PACKAGE / "__init__.py") if at_top]
    third_party = [n for n in top if n.split(".")[0] in {"numba", "scipy", "autograd"}]
    assert third_party == []


def test_optim_stands_alone():
    room = [path for path in FILES if room_of(module_of(path)) == "optim"]
    assert room
    for path in room:
        for target, _, line in imports_of(path):
            where = f"{path.name}:{line} imports {target}"
            assert target.split(".")[0] not in {"autograd", "numba", "scipy", "torch", "jax"}, where
            assert target.split(".")[0] != "hsref" or room_of(target) == "optim", where


def test_only_the_jit_rooms_know_numba():
    # One place knows the compiler; everything else registers device functions with it.
    knowing = {
        room_of(module_of(path))
        for path in FILES
        for target, _, _ in imports_of(path)
        if target.split(".")[0] in {"numba", "llvmlite"}
    }
    # `hsref info` and the reports of `hsref verify` name Numba's version
    assert knowing <= {"_linking", "_caching", "_jit", "_cuda", "cli", "theory"}


def test_only_the_interop_rooms_know_a_framework():
    knowing = {
        module_of(path)
        for path in FILES
        for target, _, _ in imports_of(path)
        if target.split(".")[0] in {"torch", "jax"}
    }
    assert all(room_of(module) in {"interop", "applications", "cli"} for module in knowing), knowing


def test_a_new_set_is_one_file_and_one_line():
    # The name of a set class occurs in its own file, in sets/__init__.py and, where two sets know
    # each other, elsewhere in sets/; never in another room of the machinery.
    tree = ast.parse((PACKAGE / "sets" / "__init__.py").read_text(encoding="utf-8"))
    classes = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.name[0].isupper()
    }
    # the general set and the base class are machinery, the others are not
    special = classes - {"Polyhedron", "PolyhedralSet", "DataField", "Callable"}
    for path in FILES:
        if room_of(module_of(path)) not in {"_batch", "_jit", "_cuda", "solve", "jacobian", "nn"}:
            continue
        named = {
            node.id
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Name)
        }
        assert not named & special, f"{path.name} knows the sets {sorted(named & special)}"


def test_no_file_grows_without_end():
    for path in FILES:
        lines = len(path.read_text(encoding="utf-8").splitlines())
        assert lines <= 600, f"{path.name} has {lines} lines: split it"
