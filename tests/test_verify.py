"""``hsref verify``: rows, executors, resuming, counterexamples; planted errors are found."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import hsref
from hsref import theory
from hsref.theory import catalogue, journal, local, planted, problems, tasks, verify
from hsref.theory.checks import beyond, elements
from hsref.theory.rows import rows_of

QUICK = {"sets": ["Box", "Simplex"], "statements": ["T1", "T3", "T4", "T9"], "points": 84}


def content(folder):
    """What a report says, without what depends on the run."""
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    del report["run"]
    return report


# -- what a run gives -----------------------------------------------------------------------------


def test_rows_and_report(tmp_path):
    done = verify.run(**QUICK, out=tmp_path)
    assert done.verdict, [str(row) for row in done.failures]
    about = {(r.statement, r.set) for r in done.rows}
    assert about == {(s, c) for s in QUICK["statements"] for c in QUICK["sets"]}
    for statement in QUICK["statements"]:
        for name in QUICK["sets"]:
            cases = sum(r.cases for r in done.rows if (r.statement, r.set) == (statement, name))
            assert cases >= 84, "as many points as were asked for, for each statement and set"
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    for words in ("Every statement holds", "| T9 |", "weak", "<details>", "residuals.png"):
        assert words in text
    for name in ("report.json", "request.json", "residuals.png"):
        assert (tmp_path / name).stat().st_size > 0
    assert not list(tmp_path.rglob("*.part*")), "no half-written file is left"


def test_every_statement_is_listed_and_checked(tmp_path):
    done = verify.run(sets=["Box"], statements=["T3", "T13"], points=14, out=tmp_path)
    assert {row.statement for row in done.rows} == {"T3", "T13"}
    assert done.verdict, [str(row) for row in done.failures]
    assert [f"T{i}" for i in range(1, 15)] == [k for k in theory.STATEMENTS if k[0] == "T"]
    for name in theory.STATEMENTS:
        assert "Proof." in theory.describe(name)


def test_every_registered_set_is_visited_and_has_an_instance():
    from hsref.sets import REGISTRY

    assert set(catalogue.set_names()) == set(REGISTRY)
    for name in catalogue.set_names():
        assert catalogue.instances(name), f"{name} has no example small enough for the checks"


def test_a_set_of_ones_own(tmp_path):
    mine = {"band": [hsref.Polyhedron(A_ub=[[1.0, -1.0], [-1.0, 1.0]], b_ub=[1.0, 1.0])]}
    done = verify.run(sets=mine, statements=["T2", "T5"], points=42, out=tmp_path)
    assert done
    assert {row.set for row in done.rows} == {"band"}


def test_statements_about_no_set(tmp_path):
    done = verify.run(sets=[], statements=["X1", "C1", "N1"], out=tmp_path)
    assert done.verdict, [str(row) for row in done.failures]
    assert {r.kind for r in done.rows if r.statement == "N1"} == set(theory.NON_CONSERVATIVE)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    for name, wrong in theory.NON_CONSERVATIVE.items():
        assert f"| {name} | {wrong.why} |" in text
    assert (tmp_path / "impostors.png").stat().st_size > 0
    for row in done.rows:
        if row.statement == "N1":
            wrong, right = (row.notes[k] for k in (beyond.IMPOSTOR_ERROR, beyond.LAYER_ERROR))
            assert right < 1e-12 < beyond.LEAST_ERROR < wrong, row.kind


def test_the_share_of_dead_starts_is_shown_with_its_step_sizes(tmp_path, monkeypatch):
    short = functools.partial(problems.dead_starts, steps=300)
    monkeypatch.setattr(beyond, "dead_starts", short)
    done = verify.run(sets=[], statements=["D1"], out=tmp_path)
    at = {r.kind: r.notes["share that ends at a vertex"] for r in done.rows}
    assert at["0.05"] == 0.0
    assert at["0.05"] < at["0.6"] < at["1.5"] < at["3"]
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "size 2/(k + 4)^0.6, 400 runs a row" in text
    assert "![Where runs end, by the scale of their starts.](dead_starts.png)" in text


def test_named_sets_leave_out_what_is_about_no_set(tmp_path, monkeypatch):
    planned = []

    def plan(sets, statements, *_):
        planned[:] = statements
        return []

    monkeypatch.setattr(verify, "plan", plan)
    verify.run(sets=["Box"], out=tmp_path / "a")
    assert planned == [f"T{i}" for i in range(1, 15)]
    verify.run(out=tmp_path / "b")
    assert planned == list(theory.STATEMENTS)
    verify.run(sets=["Box"], statements=["P2"], out=tmp_path / "c")
    assert planned == ["P2"]


def test_the_help_says_which_statements_named_sets_get(capsys):
    with pytest.raises(SystemExit):
        verify.main(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "with --sets, those that are about sets, which the training runs are not" in said


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_impostors_are_caught_whatever_the_seed(seed):
    for kind in theory.NON_CONSERVATIVE:
        result = tasks.run_task(tasks.Task("N1", tasks.OWN, kind, 0, 1, seed))
        assert result["failures"] == 0, (kind, result["parts"])


# -- executors ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def serial(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serial")
    verify.run(**QUICK, out=folder)
    return content(folder)


def interrupted(folder, **options):
    """Stop a run in the middle, as Ctrl-C does, with some of its results on disk."""

    def stop(done, total, failed):
        if done == 17:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verify.run(**QUICK, out=folder, progress=stop, **options)
    assert not (folder / "report.json").exists()


def resumed(folder):
    return json.loads((folder / "report.json").read_text("utf-8"))["run"]["resumed"]


def test_processes_give_the_same_bits_also_after_an_interrupt(serial, tmp_path):
    interrupted(tmp_path, executor="processes", workers=2)
    verify.run(**QUICK, out=tmp_path)  # where another executor goes on
    assert resumed(tmp_path) >= 17
    assert content(tmp_path) == serial


def test_threads_give_the_same_bits(serial, tmp_path):
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        verify.run(**QUICK, out=tmp_path, executor=pool)
    assert content(tmp_path) == serial


def test_loky_gives_the_same_bits(serial, tmp_path):
    pytest.importorskip("loky")
    verify.run(**QUICK, out=tmp_path, executor="loky", workers=2)
    assert content(tmp_path) == serial


@pytest.mark.filterwarnings("ignore")
def test_a_dask_cluster_gives_the_same_bits(serial, tmp_path):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None
    ) as cluster:
        address = cluster.scheduler_address.removeprefix("tcp://")
        interrupted(tmp_path, executor=f"dask://{address}")
        verify.run(**QUICK, out=tmp_path, executor=f"dask://{address}")
    assert resumed(tmp_path) >= 17
    assert content(tmp_path) == serial


def test_the_numbers_of_a_task_do_not_depend_on_the_other_tasks():
    task = tasks.Task("T2", "Simplex", "weak", 3, 30, 5)
    first = tasks.run_task(task)
    tasks.run_task(dataclasses.replace(task, kind="vertex"))
    again = tasks.run_task(task)
    for result in (first, again):
        del result["seconds"]
    assert first == again
    draws = {tasks.Task(s, c, k, n, 9, 0).generator().random()
             for s in ("T1", "T2") for c in ("Box", "Simplex") for k in ("weak", "face")
             for n in (0, 1)}  # fmt: skip
    assert len(draws) == 16


# -- resuming -------------------------------------------------------------------------------------


def test_an_interrupted_run_goes_on(serial, tmp_path):
    interrupted(tmp_path)
    seen = []
    verify.run(**QUICK, out=tmp_path, progress=lambda done, total, failed: seen.append(done))
    assert seen[0] == 18, "nothing that was done is done again"
    assert content(tmp_path) == serial
    assert resumed(tmp_path) == 17
    # a finished folder is only reported again
    verify.run(**QUICK, out=tmp_path, progress=lambda *_: pytest.fail("nothing is left to do"))
    assert content(tmp_path) == serial


def test_a_folder_of_another_run_is_refused(tmp_path):
    verify.run(sets=["Box"], statements=["T3"], points=14, out=tmp_path)
    with pytest.raises(journal.FolderError, match="another points"):
        verify.run(sets=["Box"], statements=["T3"], points=28, out=tmp_path)
    with pytest.raises(journal.FolderError, match="another seed"):
        verify.run(sets=["Box"], statements=["T3"], points=14, seed=1, out=tmp_path)


def test_a_folder_made_by_other_code_is_refused(tmp_path, monkeypatch):
    verify.run(sets=["Box"], statements=["T3"], points=14, out=tmp_path)
    monkeypatch.setattr(verify, "code_digest", lambda: "0" * 16)
    with pytest.raises(journal.FolderError, match="another code"):
        verify.run(sets=["Box"], statements=["T3"], points=14, out=tmp_path)


def test_what_a_crash_damaged_is_done_again(serial, tmp_path):
    interrupted(tmp_path)
    parts = sorted((tmp_path / "journal").glob("*.json"))
    whole = parts[-1].read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], b"\xff\xfe"):
        parts[-1].write_bytes(damaged)
        verify.run(**QUICK, out=tmp_path)
        assert content(tmp_path) == serial
        for path in (tmp_path / "journal").glob("*.json"):
            if path not in parts:
                path.unlink()
    (tmp_path / "request.json").write_text("{")
    with pytest.raises(journal.FolderError, match=r"request.json is damaged; choose another"):
        verify.run(**QUICK, out=tmp_path)


@pytest.mark.parametrize("name", ["a file", "a file/below", "two words/ünïcode ✓/'quoted' $HOME"])
def test_odd_folders(name, tmp_path, capsys):
    (tmp_path / "a file").write_text("")
    options = ["--sets", "Box", "--statements", "T3", "--points", "14", "--executor", "serial"]
    status = verify.main([*options, "--out", str(tmp_path / name)])
    if name.startswith("a file"):
        err = capsys.readouterr().err.strip().split("\n")
        assert status == 2
        assert "the report cannot go to" in err[-1]
        assert "choose another folder with --out." in err[-1]
    else:
        assert status == 0
        assert "hsref verify --sets" in (tmp_path / name / "report.md").read_text("utf-8")


# -- the command ----------------------------------------------------------------------------------


def test_command_line(tmp_path, capsys):
    options = ["--executor", "serial", "--points", "14", "--out", str(tmp_path)]
    assert verify.main(["--sets", "Box,Simplex", "--statements", "T3", *options]) == 0
    out, err = capsys.readouterr()
    assert "0 rows fail" in out
    assert "report.md" in out
    assert "tasks" in err, "progress goes to standard error"
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "hsref verify --sets Box,Simplex --statements T3" in report


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--sets", "Sphere"], "there is no set 'Sphere'; there are Polyhedron, "),
        (["--statements", "T99"], "there is no statement 'T99'"),
        (["--points", "0"], "points must be at least 1"),
        (["--executor", "smoke"], "there is no executor 'smoke'"),
    ],
)
def test_what_cannot_be_done_is_said(arguments, sentence, tmp_path, capsys):
    given = {"--sets": "Box", "--statements": "T3", "--points": "14", "--executor": "serial"}
    given |= dict([arguments])
    flat = [word for pair in given.items() for word in pair]
    assert verify.main([*flat, "--out", str(tmp_path)]) == 2
    assert sentence in capsys.readouterr().err


def test_the_list_of_statements(capsys):
    assert verify.main(["--list"]) == 0
    out = capsys.readouterr().out
    assert all(f"{name}  " in out for name in theory.STATEMENTS)


# -- planted errors -------------------------------------------------------------------------------
# Each changes what the library's public face says, as an error in the code would; the same run
# must fail, and hold without the error.


class Mutant:
    """A record with some of its answers replaced."""

    def __init__(self, record, **changed):
        self._record, self._changed = record, changed

    def __getattr__(self, name):
        changed = self.__dict__["_changed"]
        return changed[name] if name in changed else getattr(self.__dict__["_record"], name)


class Operator:
    """A linear operator from dense matrices, with the matrices of its transpose given apart."""

    def __init__(self, matrix, transpose, rank, shape):
        self.matrix, self.transposed, self.rank, self.shape = matrix, transpose, rank, shape

    @property
    def T(self):
        return Operator(self.transposed, self.matrix, self.rank, self.shape)

    def __matmul__(self, v):
        v = np.asarray(v)
        flat = v.reshape(len(self.matrix), -1)
        return np.einsum("pij,pj->pi", self.matrix, flat).reshape(v.shape)

    def toarray(self):
        return self.matrix


def swapped_sign(record):
    m = record.multipliers
    return Mutant(record, multipliers=m._replace(ub=-m.ub, lower=-m.lower, upper=-m.upper))


def dropped_row(record):
    """Forget one active row when the factor for the backward is made."""
    C, rows = record.set, rows_of(record.set)
    active = rows.active(record.y.reshape(len(record.y), -1))
    active[np.arange(len(active)), np.argmax(active, axis=1)] = False

    def jacobian(selection="active"):
        V = theory.linear.kernel_projectors(rows, active) if selection == "active" else None
        honest = record.jacobian(selection)
        return honest if V is None else Operator(V, V, honest.rank, C.shape)

    return Mutant(record, jacobian=jacobian)


def unpolished(record):
    """Stop at the accuracy of a first-order method."""
    x = record.x.reshape(len(record.x), -1)
    error = 1e-6 * np.cos(np.arange(x.size)).reshape(record.y.shape)
    return Mutant(record, y=record.y + error)


def transposed(record):
    """Return the transposed factor for products: an oblique projector and its transpose."""

    def jacobian(selection="active"):
        honest = record.jacobian(selection)
        V = honest.toarray()
        n = V.shape[-1]
        tilt = np.eye(n) + 0.1 * np.triu(np.ones((n, n)), 1)
        wrong = V @ tilt
        return Operator(wrong, np.swapaxes(wrong, 1, 2), honest.rank, record.set.shape)

    return Mutant(record, jacobian=jacobian)


def perturbed(record):
    def jacobian(selection="active"):
        honest = record.jacobian(selection)
        V = honest.toarray() * (1.0 + 1e-6)
        return Operator(V, V, honest.rank, record.set.shape)

    return Mutant(record, jacobian=jacobian)


MUTATIONS = {
    "swapped sign": (swapped_sign, {"T1"}),
    "dropped row": (dropped_row, {"T3", "T4", "T5", "T14"}),
    "no polish": (unpolished, {"T1", "T2"}),
    "transposed": (transposed, {"T3", "T4", "T8"}),
    "perturbed": (perturbed, {"T3", "T4", "T5"}),
}
WATCHED = sorted(set.union(*(statements for _, statements in MUTATIONS.values())))


@pytest.mark.parametrize("name", ["Simplex", "Polyhedron"])
def test_without_a_mutation_everything_holds(name, tmp_path):
    done = verify.run(sets=[name], statements=WATCHED, points=30, out=tmp_path)
    assert done.verdict, [str(row) for row in done.failures]


@pytest.mark.parametrize("name", ["Simplex", "Polyhedron"])
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_mutations_fail(mutation, name, tmp_path, monkeypatch):
    change, caught_by = MUTATIONS[mutation]
    projection, project = hsref.projection, hsref.project
    monkeypatch.setattr(hsref, "projection", lambda x, C, **k: change(projection(x, C, **k)))
    if mutation == "no polish":
        monkeypatch.setattr(hsref, "project", lambda x, C, **k: change(projection(x, C, **k)).y)
    options = ["--executor", "serial", "--points", "30", "--out", str(tmp_path)]
    assert verify.main(["--sets", name, "--statements", *sorted(caught_by), *options]) == 1
    rows = content(tmp_path)["rows"]
    failing = {row["statement"] for row in rows if not row["verdict"]}
    assert failing == caught_by
    saved = sorted((tmp_path / "counterexamples").glob("*.npz"))
    assert saved, "the counterexamples are on disk"
    # they reproduce, bit for bit, while the error is there, and pass once it is gone
    with np.load(saved[0], allow_pickle=False) as arrays:
        residual = float(arrays["residual"])
        assert arrays["point"].shape == arrays["x"][0].shape
    assert verify.reproduce(saved[0])["residual"] == residual or not np.isfinite(residual)
    monkeypatch.setattr(hsref, "projection", projection)
    monkeypatch.setattr(hsref, "project", project)
    assert verify.reproduce(saved[0])["failures"] == 0


def test_a_mutated_device_function_fails(tmp_path, monkeypatch):
    """The same one storey lower: the HS product of the simplex forgets to subtract the mean."""
    from hsref._jit import device_function
    from mutants import simplex_hs_without_mean

    C = hsref.Simplex(4)
    wrong = dataclasses.replace(
        C.kernel, name="MutantSimplex", hs_point=device_function(simplex_hs_without_mean)
    )
    C.__dict__["_cache"]["kernel"] = wrong
    done = verify.run(sets={"Simplex": [C]}, statements=["T3", "T8"], points=42, out=tmp_path)
    assert {row.statement for row in done.failures} == {"T3", "T8"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a mutation lives in a fork of its own")
@pytest.mark.parametrize("name", ["Simplex", "Polyhedron"])
def test_mutated_code_fails(name, tmp_path):
    """The four mutations in the device functions themselves, run without a compiler."""
    script = Path(__file__).with_name("code_mutations.py")
    package = Path(hsref.__file__).parent.parent
    done = subprocess.run(
        [sys.executable, str(script), name, str(tmp_path)],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(package)},
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.pop("none") == 0
    # the polish alone mends a start that was left early
    assert found.pop("loose start", 0) == 0
    assert found == dict.fromkeys(["swapped sign", "dropped row", "no polish", "transposed"], 1)


def test_an_exception_is_a_failure_with_its_points_saved(tmp_path, monkeypatch):
    def broken(x, C, **_):
        raise hsref.NotSolvedError("the solve ended with status SINGULAR.")

    monkeypatch.setattr(hsref, "projection", broken)
    done = verify.run(sets=["Box"], statements=["T3"], points=14, out=tmp_path)
    assert not done
    assert "NotSolvedError: the solve ended with status SINGULAR." in str(done.failures[0])
    saved = next((tmp_path / "counterexamples").glob("*.npz"))
    with np.load(saved, allow_pickle=False) as arrays:
        assert "x" in arrays
        assert "Box" in str(arrays["description"])


@pytest.mark.parametrize(
    ("problem", "status", "words"),
    [
        (KeyboardInterrupt(), 130, "interrupted; the same command goes on"),
        (concurrent.futures.BrokenExecutor("killed"), 1, "a worker died (killed)"),
    ],
)
def test_a_stopped_command_says_how_to_go_on(problem, status, words, tmp_path, monkeypatch, capsys):
    def stop(**_):
        raise problem

    monkeypatch.setattr(verify, "run", stop)
    assert verify.main(["--out", str(tmp_path)]) == status
    assert words in capsys.readouterr().err


# -- memory ---------------------------------------------------------------------------------------


class Lump:
    """Something of ten bytes that is worked out."""

    size = 10


def test_what_is_kept_is_bounded_and_what_was_used_last_stays(monkeypatch):
    monkeypatch.setattr(local, "_ITEMS", type(local._ITEMS)())
    monkeypatch.setattr(local.Kept, "bytes", 0)
    monkeypatch.setattr(local, "KEPT_BYTES", 35)
    first, second = local.Kept(), local.Kept()
    masks = np.eye(4, dtype=bool)
    made = [first.get(mask, Lump) for mask in masks[:3]]
    assert first.get(masks[0], Lump) is made[0]
    second.get(masks[0], Lump)  # the same active set of another set
    assert local.Kept.bytes == 30
    assert first.get(masks[0], Lump) is made[0], "used last"
    assert first.get(masks[1], Lump) is not made[1], "used longest ago"


def test_a_crowded_corner_needs_little_memory():
    """512 elements of 16 coordinates against as many faces, not all beside one another."""
    C = hsref.Box(0.0, 1.0, n=16)
    x = np.where(np.arange(16) < 9, 0.0, 0.5)[None].repeat(2, axis=0)
    tracemalloc.start()
    outcome = elements.membership(planted.Cases(C, x, x), np.random.default_rng(0))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert outcome.ratio().max() <= 1.0
    assert outcome.notes["points with too many active rows to enumerate"] == 0
    assert peak < 2e8
