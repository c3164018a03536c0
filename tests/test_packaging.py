"""The distribution: what a wheel contains, and how little `import hsref` loads."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("numba", "llvmlite", "scipy", "autograd", "pandas", "matplotlib", "torch", "jax", "rich")


def run_python(code: str) -> str:
    """Run `code` in a fresh interpreter in the repository root and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def distributions(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=out)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_wheel_holds_the_package_its_types_and_its_licence(distributions):
    (wheel,) = distributions.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "hsref/__init__.py" in names
    assert "hsref/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    on_disk = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "hsref").rglob("*.py")
        if "__pycache__" not in path.parts
    }
    assert on_disk <= set(names)


def test_wheel_holds_nothing_else(distributions):
    (wheel,) = distributions.glob("*.whl")
    strangers = [
        name
        for name in zipfile.ZipFile(wheel).namelist()
        if not name.startswith(("hsref/", "hsref-"))
        or name.endswith((".pyc", ".nbi", ".nbc", ".so"))
    ]
    assert strangers == []


def test_sdist_can_be_tested(distributions):
    (sdist,) = distributions.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert {"pyproject.toml", "README.md", "LICENSE", "conftest.py", "tests/oracle.py"} <= names
    assert {"notebooks/build.py", "notebooks/README.md"} <= names
    assert not any(name.endswith((".nbi", ".nbc", ".pyc")) for name in names)


def test_runtime_dependencies_stay_four(project):
    names = {entry.split(">")[0] for entry in project["dependencies"]}
    assert names == {"numpy", "scipy", "numba", "autograd"}


def test_classifiers_name_only_versions_that_ran(project):
    prefix = "Programming Language :: Python :: 3."
    named = {c.removeprefix(prefix) for c in project["classifiers"] if c.startswith(prefix)}
    report = ROOT / "benchmarks" / "results" / "trust.json"
    if not report.exists():
        pytest.skip("this copy comes without the results of benchmarks.trust")
    rows = json.loads(report.read_text(encoding="utf-8")).get("versions", {}).get("rows", {})
    ran = {label.rpartition("Python 3.")[2] for label, row in rows.items() if row["passed"]}
    assert named <= ran


def test_version_is_written_in_agreement(project):
    import hsref

    assert hsref.__version__ == project["version"]
    assert metadata.version("hsref") == project["version"]


def test_import_loads_no_compiler_and_no_framework():
    loaded = run_python(
        f"import sys, hsref\nprint([name for name in {HEAVY!r} if name in sys.modules])"
    )
    assert loaded == "[]"


def test_public_names_resolve_and_are_listed():
    import hsref

    for name in dir(hsref):
        assert getattr(hsref, name) is not None
    assert set(hsref.__all__) | set(hsref.sets.REGISTRY) <= set(dir(hsref))
    wanted = {"project", "projection", "Projection", "HSJacobian", "hs_jacobian_set", "Status"}
    assert wanted | {"InfeasibleError", "nn", "optim", "theory"} <= set(hsref.__all__)
    assert {"Polyhedron", "Box", "Simplex"} <= set(hsref.sets.REGISTRY)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = hsref.no_such_name


@pytest.mark.parametrize("first", ["hsref.solve", "hsref.jacobian", "hsref.primitives", "hsref.nn"])
def test_no_module_shadows_a_public_function(first):
    # Importing a submodule binds its name in the package: it must not hide a function of that name.
    out = run_python(
        f"import importlib, hsref\nimportlib.import_module({first!r})\n"
        "print(callable(hsref.project), callable(hsref.projection), callable(hsref.Box))"
    )
    assert out == "True True True"


def test_command_line_is_installed():
    (entry,) = [e for e in metadata.entry_points(group="console_scripts") if e.name == "hsref"]
    assert entry.value == "hsref.cli:main"
    assert callable(entry.load())
