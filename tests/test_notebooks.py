"""The course: paired with its text, complete with its pictures, and running from scratch."""

from __future__ import annotations

import functools
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "notebooks"
SOURCES = sorted(FOLDER.glob("[0-9][0-9]_*.py"))
SYLLABUS = (FOLDER / "README.md").read_text(encoding="utf-8")
# What a notebook may import: the package, the extra `apps` (Pillow comes with matplotlib, IPython
# with any notebook), what they all stand on, and the frameworks of notebook 5.
ALLOWED = {
    "hsref", "numpy", "scipy", "autograd", "numba", "matplotlib", "PIL", "IPython", "pandas",
    "skfolio", "torch", "jax",
}  # fmt: skip


def load_builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("notebook_builder", FOLDER / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


BUILDER = load_builder()
each = pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)


def committed(source: Path):
    return nbformat.read(source.with_suffix(".ipynb"), as_version=4)


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """Return a function that executes a notebook once, in a process of its own."""
    folder = tmp_path_factory.mktemp("executed")

    @functools.cache
    def run(source: Path):
        return run_from_scratch(source, folder / f"{source.stem}.ipynb")

    return run


def run_from_scratch(source: Path, out: Path):
    """Execute a notebook, solutions of its exercises included, and return it."""
    command = [sys.executable, str(FOLDER / "build.py"), "--check", source.name[:2]]
    done = subprocess.run(
        [*command, "--out", str(out)], capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    return nbformat.read(out, as_version=4)


def test_there_are_notebooks_and_nothing_else():
    assert SOURCES
    stems = {path.stem for path in SOURCES}
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == stems
    assert {path.stem for path in (FOLDER / "thumbnails").glob("*.png")} == stems


@each
def test_text_and_notebook_agree_cell_by_cell(source):
    text, paired = BUILDER.read(source), committed(source)
    nbformat.validate(paired)
    assert [c.id for c in text.cells] == [c.id for c in paired.cells]
    for ours, theirs in zip(text.cells, paired.cells, strict=True):
        assert ours.cell_type == theirs.cell_type
        assert ours.source == theirs.source, f"cell {ours.id}: run notebooks/build.py"
        assert ours.metadata.get("tags") == theirs.metadata.get("tags")


@each
def test_committed_outputs_are_complete_and_clean(source):
    notebook = committed(source)
    # executed, no error, nothing on stderr, a picture wherever one is shown, not too large
    assert BUILDER.complaints(notebook) == []
    assert sum(len(BUILDER.pictures(cell)) for cell in notebook.cells) >= 3
    counts = [c.execution_count for c in notebook.cells if c.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))


def test_a_missing_picture_or_a_warning_is_noticed():
    notebook = committed(SOURCES[0])
    shown = next(cell for cell in notebook.cells if BUILDER.pictures(cell))
    kept, shown.outputs = shown.outputs, []
    assert any("shows no picture" in sentence for sentence in BUILDER.complaints(notebook))
    shown.outputs = [*kept, nbformat.v4.new_output("stream", name="stderr", text="a warning")]
    assert any("stderr" in sentence for sentence in BUILDER.complaints(notebook))


@each
def test_it_reads_like_a_lesson(source):
    notebook = BUILDER.read(source)
    prose = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    code = "\n".join(c.source for c in notebook.cells if c.cell_type == "code")
    title = notebook.cells[0].source.splitlines()[0]
    assert title.startswith(f"# {int(source.name[:2])}. ")
    assert "**Claim.**" in notebook.cells[0].source
    for heading in ("## See it", "## State it", "## Check it", "## Use it", "## Exercises"):
        assert heading in prose
    assert prose.count("<details>") == prose.count("</details>") >= 2
    assert len(re.findall(r"^ *assert ", code, re.MULTILINE)) >= 3
    imported = set(re.findall(r"^\s*(?:import|from) (\w+)", code, re.MULTILINE))
    foreign = imported - set(sys.stdlib_module_names) - ALLOWED
    assert not foreign, f"{source.name} imports {foreign}"


@each
def test_the_syllabus_shows_it(source):
    assert f"({source.stem}.ipynb)" in SYLLABUS
    assert f"thumbnails/{source.stem}.png" in SYLLABUS
    assert (FOLDER / "thumbnails" / f"{source.stem}.png").stat().st_size < 60_000


def test_links_of_the_syllabus_resolve():
    for target in re.findall(r"(?:\]\(|src=\")(?!https?://|#)([^)\"\s]+)", SYLLABUS):
        assert (FOLDER / target.split("#")[0]).exists(), target


def said(notebook) -> str:
    outputs = (o for c in notebook.cells if c.cell_type == "code" for o in c.outputs)
    return "".join(o.text for o in outputs if o.get("name") == "stdout")


AGREE = "{}: the gradients of all parameters agree with the tape."
TAPE = next(path for path in SOURCES if path.name.startswith("05_"))


@each
def test_it_runs_from_scratch(source, executed):
    assert BUILDER.complaints(executed(source)) == []


def test_the_tape_is_committed_with_both_frameworks():
    text = said(committed(TAPE))
    assert AGREE.format("PyTorch") in text
    assert AGREE.format("JAX") in text


@pytest.mark.torch
def test_the_tape_agrees_with_torch(executed):
    assert AGREE.format("PyTorch") in said(executed(TAPE))


@pytest.mark.jax
def test_the_tape_agrees_with_jax(executed):
    assert AGREE.format("JAX") in said(executed(TAPE))
