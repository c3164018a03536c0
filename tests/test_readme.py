"""Every ```python block of the README runs, each in a fresh namespace."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```python[^\n]*\n(.*?)^```\s*$", re.DOTALL | re.MULTILINE)
FRAMEWORKS = ("torch", "jax")


def blocks() -> list:
    found = []
    for match in FENCE.finditer(README):
        code = match.group(1)
        line = README[: match.start()].count("\n") + 2
        marks = [
            getattr(pytest.mark, name)
            for name in FRAMEWORKS
            if re.search(rf"^\s*(import|from) {name}\b", code, re.MULTILINE)
        ]
        found.append(pytest.param(line, code, id=f"line{line}", marks=marks))
    return found


@pytest.mark.parametrize(("line", "code"), blocks())
def test_block_runs(line, code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # Blank lines in front keep the README's own line numbers in a traceback.
    source = "\n" * (line - 1) + code
    exec(compile(source, "README.md", "exec"), {"__name__": "__main__"})


def test_there_are_blocks():
    assert blocks(), "the README shows no runnable example"


def test_the_two_commands_are_there():
    assert re.search(r"pip install '\.\[apps\]' && hsref train portfolio", README)
    assert re.search(r"pip install '\.\[test\]' && pytest", README)


def test_every_extra_named_in_the_readme_exists():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = set(project["optional-dependencies"])
    named = {
        extra.strip()
        for group in re.findall(r"(?:\.|hsref)\[([a-z0-9, ]+)\]'?", README)
        for extra in group.split(",")
    }
    assert named <= extras


def test_pictures_and_links_into_the_repository_resolve():
    for target in re.findall(r"\]\((?!https?://|#|mailto:)([^)\s]+)\)", README):
        assert (ROOT / target.split("#")[0]).exists(), f"README links to {target}, which is absent"
