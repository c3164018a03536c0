"""Other interpreters, oldest and newest releases: each in a fresh environment, then the tests."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TESTS = ("tests/test_linking.py", "tests/test_caching.py", "tests/test_bad_input.py",
         "tests/test_sets.py")  # fmt: skip
CHOSEN = "(linking and Permutahedron) or caching or bad_input or (sets and (Simplex or Box-))"
"""Compilation, the disk cache, refusals, and two sets against the general solver."""


def interpreters(oldest: tuple[int, int] = (3, 11)) -> dict[str, str]:
    """Return the executables of every Python at hand, by minor version."""
    places = [Path(p) for p in os.environ.get("PATH", "").split(os.pathsep)]
    places += sorted((Path.home() / ".pyenv" / "versions").glob("*/bin"))
    found = {}
    for place in places:
        for path in sorted(place.glob("python3*")) if place.is_dir() else []:
            if not re.fullmatch(r"python3(\.\d+)?", path.name):
                continue
            code = "import sys; print(*sys.version_info[:2], sys.prefix != sys.base_prefix)"
            said = subprocess.run([path, "-c", code], capture_output=True, text=True, check=False)
            if said.returncode:
                continue
            major, minor, nested = said.stdout.split()
            version = (int(major), int(minor))
            # environments are made from interpreters, not from environments
            if version >= oldest and nested == "False":
                found.setdefault(f"{major}.{minor}", str(path))
    return dict(sorted(found.items(), key=lambda pair: [int(k) for k in pair[0].split(".")]))


def oldest_releases() -> list[str]:
    """Return the requirements with every lower bound as the version."""
    with (ROOT / "pyproject.toml").open("rb") as stream:
        project = tomllib.load(stream)["project"]
    return [one.replace(">=", "==") for one in project["dependencies"]]


def check(python: str, requirements: list[str]) -> dict[str, Any]:
    """Install into a fresh environment and run the tests there."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run([python, "-m", "venv", folder / "env"], check=True)
        own = str(folder / "env" / "bin" / "python")
        pip = [own, "-m", "pip", "--disable-pip-version-check"]
        subprocess.run(
            [*pip, "install", "-q", *requirements, "pytest", "hypothesis"],
            check=True, capture_output=True,
        )  # fmt: skip
        listed = subprocess.run(
            [*pip, "list", "--format=json"], capture_output=True, text=True, check=True
        )
        versions = {row["name"]: row["version"] for row in json.loads(listed.stdout)}
        copy = folder / "source"
        leave = shutil.ignore_patterns("__pycache__", ".git", "results", "notebooks")
        shutil.copytree(ROOT, copy, ignore=leave)
        settings = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
        settings |= {"NUMBA_CACHE_DIR": str(folder / "cache"), "HYPOTHESIS_PROFILE": "ci"}
        done = subprocess.run(
            [own, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS, "-k", CHOSEN],
            cwd=copy, env=settings, capture_output=True, text=True, check=False,
        )  # fmt: skip
    tail = done.stdout.strip().splitlines()[-1:] or done.stderr.strip().splitlines()[-1:]
    names = ("numpy", "scipy", "numba", "llvmlite", "autograd")
    return {
        "versions": {k: versions[k] for k in names},
        "passed": done.returncode == 0,
        "said": tail[0] if tail else "",
        "output": "" if done.returncode == 0 else done.stdout[-4000:],
    }


def run() -> dict[str, Any]:
    """Check the oldest releases on the oldest Python, the newest on every one at hand."""
    found = interpreters()
    newest = [one.split(">=")[0] for one in oldest_releases_bounds()]
    plan = {f"oldest releases, Python {next(iter(found))}": (next(iter(found.values())),
                                                             oldest_releases())}  # fmt: skip
    plan |= {f"newest releases, Python {v}": (path, newest) for v, path in found.items()}
    rows = {}
    for label, (python, requirements) in plan.items():
        print(label, file=sys.stderr, flush=True)
        rows[label] = check(python, requirements)
    said = "; ".join(
        f"{label} ({', '.join(f'{k} {v}' for k, v in row['versions'].items() if k != 'llvmlite')})"
        f": {row['said'].strip('= ')}"
        for label, row in rows.items()
    )
    return {"rows": rows, "holds": all(row["passed"] for row in rows.values()), "figure": said}


def oldest_releases_bounds() -> list[str]:
    """Return the requirements as they stand in pyproject.toml."""
    return [one.replace("==", ">=") for one in oldest_releases()]
