"""What the source never does: run what a file says, start a shell, write half a file."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "hsref"
FILES = sorted(
    path
    for folder in (PACKAGE, ROOT / "benchmarks")
    for path in folder.rglob("*.py")
    if "__pycache__" not in path.parts
)

RUNS_TEXT = {"eval", "exec", "compile", "__import__"}
RUNS_DATA = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "runpy"}
LOADS_PICKLES = {"read_pickle", "to_pickle", "unsafe_load", "full_load", "fromfile"}
STARTS_SHELLS = {"system", "popen", "getoutput", "getstatusoutput"}
SHELL_MODULES = {"os", "subprocess"}

# Compiled code on disk, read after its digest, as Numba reads its own (see that module).
PICKLES = {"hsref/_caching.py"}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def calls(tree: ast.AST) -> list[tuple[str, str, ast.Call]]:
    """Return (what it is called on, name, call) for every call of a file."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name):
                found.append(("", node.func.id, node))
            elif isinstance(node.func, ast.Attribute):
                found.append((ast.unparse(node.func.value), node.func.attr, node))
    return found


def keyword(call: ast.Call, name: str) -> str | None:
    for given in call.keywords:
        if given.arg == name:
            return ast.unparse(given.value)
    return None


def dangers(source: str, name: str = "") -> list[str]:
    """Return a line for everything in a source text that runs what it is given."""
    tree = ast.parse(source)
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module or ""]
        else:
            continue
        for module in modules:
            if module.split(".")[0] in RUNS_DATA and name not in PICKLES:
                found.append(f"{node.lineno}: imports {module}")
    for owner, called, call in calls(tree):
        where = f"{call.lineno}: {owner}.{called}".replace(": .", ": ")
        if not owner and called in RUNS_TEXT:
            found.append(f"{where} runs text")
        if called in LOADS_PICKLES:
            found.append(f"{where} reads pickles")
        if owner in SHELL_MODULES and called in STARTS_SHELLS:
            found.append(f"{where} starts a shell")
        if keyword(call, "shell") not in (None, "False"):
            found.append(f"{where} starts a shell")
        if (
            owner in ("np", "numpy")
            and called == "load"
            and keyword(call, "allow_pickle") != ("False")
        ):
            found.append(f"{where} without allow_pickle=False")
        if owner == "torch" and called == "load" and keyword(call, "weights_only") != "True":
            found.append(f"{where} without weights_only=True")
        if owner == "yaml" and called == "load":
            found.append(f"{where} builds objects")
    return found


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_nothing_runs_what_a_file_says(path):
    assert dangers(path.read_text(encoding="utf-8"), name_of(path)) == []


@pytest.mark.parametrize(
    "line",
    [
        "eval(text)",
        "exec(open(path).read())",
        "import pickle",
        "from pickle import loads",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "numpy.load(path, allow_pickle=flag)",
        "torch.load(path)",
        "pandas.read_pickle(path)",
        "os.system(command)",
        "subprocess.run(command, shell=True)",
        "subprocess.getoutput(command)",
        "yaml.load(stream)",
    ],
)
def test_the_check_sees(line):
    assert len(dangers(line)) == 1


# -- files ----------------------------------------------------------------------------------------

WRITES = {
    "write_text", "write_bytes", "savez", "savez_compressed", "savefig", "tofile", "savetxt",
    "to_csv", "to_parquet", "to_json", "imsave", "mkstemp", "NamedTemporaryFile",
}  # fmt: skip
# Functions that write beside the target and rename, and the files in which they are the writers.
ATOMIC = {
    "hsref/_caching.py": {"save"},
    "hsref/theory/reports.py": {"save_arrays", "__enter__"},
    "hsref/theory/pictures.py": {"_save"},
    "hsref/applications/_common.py": {"write_atomically", "write_text"},
    "hsref/applications/_checkpoint.py": {"write"},
    "hsref/applications/_report.py": {"save_figure"},
}


def writers(path: Path) -> list[tuple[str, str]]:
    """Return (function, call) for every call in a file that writes to disk."""
    found = []

    def visit(node: ast.AST, function: str) -> None:
        for child in ast.iter_child_nodes(node):
            inner = child.name if isinstance(child, ast.FunctionDef) else function
            if isinstance(child, ast.Call):
                called = child.func
                name = called.attr if isinstance(called, ast.Attribute) else ast.unparse(called)
                texts = [a.value for a in child.args if isinstance(a, ast.Constant)]
                mode = keyword(child, "mode") or next(
                    (t for t in texts if isinstance(t, str) and set(t) <= set("rwaxbt+")), "r"
                )
                plain = isinstance(called, ast.Name) and name in ("write_text", "write_json")
                if (name in WRITES and not plain) or (
                    name in ("open", "fdopen") and set(mode) & set("wax")
                ):
                    found.append((inner, ast.unparse(child)))
            visit(child, inner)

    visit(ast.parse(path.read_text(encoding="utf-8")), "")
    return found


@pytest.mark.parametrize("path", [p for p in FILES if PACKAGE in p.parents], ids=name_of)
def test_every_file_is_written_beside_its_target_and_renamed(path):
    found = [
        (function, call)
        for function, call in writers(path)
        if function not in ATOMIC.get(name_of(path), set()) and "devnull" not in call
    ]
    assert found == []


def test_every_writer_that_is_named_writes():
    for name, functions in ATOMIC.items():
        assert {function for function, _ in writers(ROOT / name)} == functions, name
