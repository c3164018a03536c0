"""The rule of growth: a set written in one file outside the package, registered in one line."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent


def python(*arguments: str, **environment: str) -> str:
    """Run Python where the toy set is found but not yet imported; return what it printed."""
    path = os.pathsep.join([str(HERE), str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=900,
        check=False, env=os.environ | {"PYTHONPATH": path} | environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_nothing_in_the_package_knows_the_toy_set():
    sources = [p.read_text() for p in (ROOT / "hsref").rglob("*.py")]
    assert not any("MeanBand" in text for text in sources)


def test_it_passes_the_suite_of_all_sets():
    shared = (HERE / "test_sets.py").read_text()
    functions = len(re.findall(r"^@sets\n", shared, flags=re.MULTILINE))
    # -p imports the file, whose last line registers the set, before the suite is collected
    said = python("-m", "pytest", "-q", "-p", "toy_set", "tests/test_sets.py", "-k", "MeanBand",
                  "-p", "no:cacheprovider")  # fmt: skip
    passed = int(re.findall(r"(\d+) passed", said)[0])
    assert passed >= 3 * functions
    assert not re.search(r"(failed|error|skipped)", said.splitlines()[-1])


def test_it_is_verified_listed_and_differentiated(tmp_path):
    said = python(
        "-c",
        "import sys, numpy as np, toy_set, hsref\n"
        "from autograd.test_util import check_grads\n"
        "from hsref.cli import main\n"
        "C = hsref.MeanBand(4, -0.5, 0.25)\n"
        "x = np.array([[2.0, 1.0, 0.5, -0.25], [0.1, 0.0, -0.2, 0.3]])\n"
        "check_grads(lambda z: hsref.project(z, C), modes=['fwd', 'rev'], order=2)(x)\n"
        "assert np.allclose(hsref.project(x, C, high=[0.5, 0.0]).mean(axis=1), [0.5, 0.0])\n"
        "main(['info', '--sets'])\n"
        f"sys.exit(main(['verify', '--sets', 'MeanBand', '--points', '60', '--executor', 'serial',"
        f" '--out', {str(tmp_path)!r}]))\n",
    )
    assert "MeanBand" in said
    assert "MeanBand" in (tmp_path / "report.md").read_text()


def test_it_runs_on_cuda_from_the_same_source():
    python(
        "-c",
        "import numpy as np, toy_set, cuda_simulator as sim\n"
        "problems = [sim.disagreement(C, d) for C in toy_set.MeanBand.examples()\n"
        "            for d in (np.float64, np.float32)]\n"
        "assert problems == [None] * 6, problems\n",
        NUMBA_ENABLE_CUDASIM="1",
    )


def test_the_toy_set_itself_is_right():
    # in a process of its own as well: the registry of this one must not change
    means = np.array([-1.0, -0.5, 0.0, 0.25, 3.0])
    x = np.array([1.0, -1.0, 2.0, -2.0]) + means[:, None]
    said = python(
        "-c",
        "import json, toy_set, hsref\n"
        f"p = hsref.projection({x.tolist()}, hsref.MeanBand(4, -0.5, 0.25))\n"
        "print(json.dumps([p.y.tolist(), p.rank.tolist()]))",
    )
    y, rank = json.loads(said)
    clipped = np.clip(means, -0.5, 0.25)
    assert np.allclose(y, x + (clipped - means)[:, None], rtol=0, atol=1e-14)
    assert rank == [3, 3, 4, 3, 3]
