"""Execute the notebooks and write the paired .ipynb files, with outputs, and their thumbnails.

The text form ``NN_name.py`` (py:percent, read by Jupytext) is the source; the notebook beside it is
made from it and never edited.

``python notebooks/build.py``            all of them
``python notebooks/build.py 03 07``      only these
``python notebooks/build.py --check 03`` execute from scratch, solutions of the exercises included,
                                         and write nothing
``--out FILE``                           with --check and one number: where the executed one goes

Needs the extra ``test``. Exits with 1 when a notebook fails or what it made is not fit to be read.
"""

from __future__ import annotations

import argparse
import base64
import io
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from PIL import Image

HERE = Path(__file__).resolve().parent
THUMBNAILS = HERE / "thumbnails"
LARGEST = 1_500_000
"""Bytes of a committed notebook, at most."""
WIDTH = 320
"""Pixels of a thumbnail."""
SECONDS = 300
"""Of one cell; the first call of a general polyhedron compiles for a minute."""
SOLUTION = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def sources() -> list[Path]:
    """Return the text forms, in the order of the course."""
    return sorted(HERE.glob("[0-9][0-9]_*.py"))


def read(source: Path) -> Any:
    """Return the notebook that a text form describes, without outputs."""
    notebook = jupytext.read(source)
    for k, cell in enumerate(notebook.cells):
        # Jupytext draws them at random, and every build would differ in all of them.
        cell["id"] = f"{source.stem[:2]}-{k:02d}"
    notebook.metadata = nbformat.from_dict(
        {
            "jupytext": {"formats": "ipynb,py:percent"},
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def add_solutions(notebook: Any) -> None:
    """Append the code of folded solutions as cells, so that they are executed too."""
    for cell in list(notebook.cells):
        if cell.cell_type == "markdown" and "<details>" in cell.source:
            for code in SOLUTION.findall(cell.source):
                notebook.cells.append(nbformat.v4.new_code_cell(code))


def execute(notebook: Any) -> None:
    """Run every cell in a fresh kernel; outputs are written in place."""
    client = NotebookClient(
        notebook, timeout=SECONDS, kernel_name="python3", record_timing=False,
        resources={"metadata": {"path": str(HERE)}}, extra_arguments=["--log-level=ERROR"],
    )  # fmt: skip
    # A test run asks for pictures in files; the cells of a notebook show theirs.
    inline = {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    # The reader's own IPython start-up files have no say in what is committed.
    with tempfile.TemporaryDirectory() as profile:
        client.execute(env={**os.environ, **inline, "IPYTHONDIR": profile})
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)


def pictures(cell: Any) -> list[str]:
    """Return the PNG outputs of a cell, in base 64."""
    found = (output.get("data", {}).get("image/png") for output in cell.get("outputs", ()))
    return [png for png in found if png]


def complaints(notebook: Any) -> list[str]:
    """Return one sentence for each thing that keeps an executed notebook from being read."""
    found = []
    for k, cell in enumerate(notebook.cells):
        if cell.cell_type != "code":
            continue
        if cell.execution_count is None:
            found.append(f"cell {k} was not executed")
        for output in cell.outputs:
            if output.output_type == "error":
                found.append(f"cell {k} raised {output.ename}: {output.evalue}")
            if output.get("name") == "stderr":
                found.append(f"cell {k} wrote to stderr: {output.text.strip()[:200]}")
        if "plt.show()" in cell.source and not pictures(cell):
            found.append(f"cell {k} shows no picture")
    if not any("thumbnail" in cell.metadata.get("tags", []) for cell in notebook.cells):
        found.append("no cell is tagged as the thumbnail")
    size = len(nbformat.writes(notebook).encode())
    if size > LARGEST:
        found.append(f"it is {size} bytes long, more than {LARGEST}")
    return found


def thumbnail(notebook: Any) -> Any:
    """Return the picture of the tagged cell, small."""
    for cell in notebook.cells:
        if "thumbnail" in cell.metadata.get("tags", []):
            picture = Image.open(io.BytesIO(base64.b64decode(pictures(cell)[0])))
            height = round(WIDTH * picture.height / picture.width)
            small = picture.convert("RGB").resize((WIDTH, height), Image.Resampling.LANCZOS)
            return small.quantize(200)
    raise LookupError("no cell is tagged as the thumbnail")


def build(source: Path, check: bool, out: Path | None) -> list[str]:
    """Execute one notebook, write it unless it is only checked, and return the complaints."""
    notebook = read(source)
    if check:
        add_solutions(notebook)
    try:
        execute(notebook)
    except CellExecutionError as error:
        return [str(error)]
    found = complaints(notebook)
    if out is not None:
        nbformat.write(notebook, out)
    if not check:
        nbformat.write(notebook, source.with_suffix(".ipynb"))
        THUMBNAILS.mkdir(exist_ok=True)
        thumbnail(notebook).save(THUMBNAILS / f"{source.stem}.png", optimize=True)
    return found


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("numbers", nargs="*", help="two digits each; all notebooks by default")
    parser.add_argument("--check", action="store_true", help="execute and write nothing")
    parser.add_argument("--out", type=Path, help="where a checked notebook is written")
    chosen = parser.parse_args(argv)
    wanted = [s for s in sources() if not chosen.numbers or s.name[:2] in chosen.numbers]
    failed = 0
    for source in wanted:
        began = time.perf_counter()
        found = build(source, chosen.check, chosen.out)
        failed += bool(found)
        print(f"{source.stem}: {time.perf_counter() - began:.0f} s", flush=True)
        for sentence in found:
            print(f"  {sentence}", flush=True)
    return 1 if failed or not wanted else 0


if __name__ == "__main__":
    sys.exit(main())
