"""Where the library has to live: folders that cannot be written, packages that are not there."""

from __future__ import annotations

import importlib
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import hsref
from hsref import cli
from hsref.theory import verify

PACKAGE = Path(hsref.__file__).resolve().parent

# -- folders that cannot be written ---------------------------------------------------------------

OBEDIENT = """
import ctypes, os, sys
# Root may write where permissions forbid it; give that right up (PR_CAPBSET_DROP, DAC_OVERRIDE).
if os.geteuid() == 0 and ctypes.CDLL(None).prctl(24, 1, 0, 0, 0):
    sys.exit(99)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def without_write(folder: Path) -> None:
    for path in [folder, *folder.rglob("*")]:
        path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Return a read-only copy of the package and a read-only home, as in a locked-down image."""
    if not sys.platform.startswith("linux"):
        pytest.skip("root's rights are given up in Linux's way")
    root = tmp_path_factory.mktemp("image")
    site, home = root / "site-packages", root / "home"
    home.mkdir()
    leave_out = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, site / "hsref", ignore=leave_out)
    without_write(site)
    without_write(home)
    yield site, home
    for folder in (site, home):
        for path in [folder, *folder.rglob("*")]:
            path.chmod(path.stat().st_mode | stat.S_IWUSR)


ANSWER = """
import warnings
from pathlib import Path
import hsref

try:
    Path(hsref.__file__).with_name("probe").write_text("")
except PermissionError:
    pass
else:
    raise SystemExit("the package can be written: this tests nothing")
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    p = hsref.projection([0.5, 2.0], hsref.Box(0.0, 1.0, n=2))
    again = hsref.project([0.5, 2.0], hsref.Box(0.0, 1.0, n=2))
print(hsref.__file__, p.y.tolist(), (p.jacobian() @ [3.0, 4.0]).tolist())
print(*[str(w.message) for w in caught], sep="\\n", end="")
"""


def answer(site: Path, home: Path, **environment: str) -> list[str]:
    """Project with the read-only copy; return the warnings."""
    hidden = ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "HSREF_DISABLE_CACHE", "PYTHONPATH")
    settings = {name: value for name, value in os.environ.items() if name not in hidden}
    done = subprocess.run(
        [sys.executable, "-c", OBEDIENT, "-c", ANSWER], cwd=home,
        capture_output=True, text=True, timeout=300,
        env={**settings, "HOME": str(home), "PYTHONPATH": str(site), **environment},
    )  # fmt: skip
    if done.returncode == 99:
        pytest.skip("root's rights cannot be given up here")
    assert done.returncode == 0, done.stderr
    first, *warned = done.stdout.split("\n")
    assert first == f"{site / 'hsref' / '__init__.py'} [0.5, 1.0] [3.0, 0.0]"
    return [text for text in warned if text]


def test_without_any_writable_folder_one_warning_and_the_right_answer(installed):
    (warned,) = answer(*installed)
    assert "found no writable folder for its compiled code" in warned
    assert "NUMBA_CACHE_DIR" in warned
    assert not [path for root in installed for path in root.rglob("*.nbc")]


def test_a_cache_folder_that_is_named_is_used(installed, tmp_path):
    assert answer(*installed, NUMBA_CACHE_DIR=str(tmp_path)) == []
    assert list(tmp_path.rglob("*.nbc"))


def test_a_writable_home_is_used(installed, tmp_path):
    assert answer(*installed, HOME=str(tmp_path)) == []
    assert list(tmp_path.rglob("*.nbc"))


# -- packages that are not there ------------------------------------------------------------------


@pytest.fixture
def absent(monkeypatch):
    """Return a function that makes a package, and all that is in it, impossible to import."""

    def remove(package: str) -> None:
        for name in list(sys.modules):
            if name == package or name.startswith(package + "."):
                monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, package, None)

    return remove


@pytest.mark.parametrize(
    ("application", "package"),
    [
        ("portfolio", "skfolio"),
        ("portfolio", "matplotlib"),
        ("portfolio", "clarabel"),
        ("matching", "skimage"),
        ("matching", "matplotlib"),
        ("hyper-connections", "matplotlib"),
    ],
)
def test_an_application_names_its_extra(application, package, absent, capsys, tmp_path):
    absent(package)
    out = tmp_path / "out"
    assert cli.main(["train", application, "--quick", "--workers", "1", "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert f"needs the package {package};" in said
    assert said.endswith("pip install 'hsref[apps]'.\n")
    assert not out.exists()


def test_prices_of_ones_own_name_the_extra(absent, capsys, tmp_path):
    absent("pandas")
    path = tmp_path / "prices.csv"
    path.write_text("date,A,B\n")
    assert cli.main(["train", "portfolio", "--prices", str(path)]) == 2
    assert "needs the package pandas; install" in capsys.readouterr().err


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_a_bridge_names_its_extra(framework, absent):
    absent(framework)
    absent(f"hsref.interop.{framework}")
    sys.modules.pop(f"hsref.interop.{framework}")
    for reach in (
        lambda: importlib.import_module(f"hsref.interop.{framework}"),
        lambda: getattr(hsref.interop, framework),
    ):
        vars(hsref.interop).pop(framework, None)
        with pytest.raises(ImportError, match=rf"pip install 'hsref\[{framework}\]'\.$"):
            reach()


def test_a_device_names_its_extras():
    from hsref._cuda import compat

    try:
        compat.require_device()
    except compat.CudaUnavailableError:
        pass
    else:
        pytest.skip("there is a device, or its simulator")
    with pytest.raises(RuntimeError, match=r"install hsref\[cuda\] .* or hsref\[cuda12\]"):
        hsref.project(np.zeros(2), hsref.Simplex(2), device="cuda")


@pytest.mark.parametrize(
    ("executor", "package"), [("loky", "loky"), ("dask://127.0.0.1:1", "distributed")]
)
def test_an_executor_names_its_package(executor, package, absent, capsys, tmp_path):
    absent(package)
    options = ["--sets", "Box", "--statements", "T3", "--points", "14", "--out", str(tmp_path)]
    assert verify.main([*options, "--executor", executor]) == 2
    assert f"needs the package {package}: pip install {package}." in capsys.readouterr().err


def test_a_report_without_pictures_says_why(absent, tmp_path):
    absent("matplotlib")
    assert verify.run(sets=["Box"], statements=["T3"], points=14, out=tmp_path)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "pip install 'hsref[apps]'" in text
    assert not list(tmp_path.glob("*.png"))


def test_the_core_needs_no_extra(absent, capsys):
    for package in {module for extra in cli.EXTRAS.values() for module in extra}:
        absent(package)
    assert cli.main(["info"]) == 0
    out = capsys.readouterr().out
    assert out.count("not installed: ") == len(cli.EXTRAS)
    y = hsref.project(np.array([2.0, 0.5]), hsref.Box(0.0, 1.0, n=2))
    np.testing.assert_array_equal(y, [1.0, 0.5])
