"""The benchmarks run at tiny sizes and their answers are right; nothing here looks at a clock."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
if not (ROOT / "benchmarks" / "smoke.py").exists():
    pytest.skip("this copy comes without the benchmarks", allow_module_level=True)
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

smoke = importlib.import_module("benchmarks.smoke")
accuracy = importlib.import_module("benchmarks.accuracy")
fuzz = importlib.import_module("benchmarks.fuzz")
fuzz_checks = importlib.import_module("benchmarks.fuzz_checks")
fuzz_problems = importlib.import_module("benchmarks.fuzz_problems")
gate = importlib.import_module("benchmarks.gate")
gpu = importlib.import_module("benchmarks.gpu")
gpu_report = importlib.import_module("benchmarks.gpu_report")
gpu_resources = importlib.import_module("benchmarks.gpu_resources")
measure = importlib.import_module("benchmarks.measure")
report = importlib.import_module("benchmarks.report")
run = importlib.import_module("benchmarks.run")
scaling = importlib.import_module("benchmarks.scaling")
trust = importlib.import_module("benchmarks.trust")
trust_memory = importlib.import_module("benchmarks.trust_memory")
trust_promises = importlib.import_module("benchmarks.trust_promises")
trust_versions = importlib.import_module("benchmarks.trust_versions")
workloads = importlib.import_module("benchmarks.workloads")


@pytest.mark.parametrize("name", workloads.CASES)
def test_reference_is_certified_and_light_peers_agree(name):
    reference = smoke.certified(name)
    for absent in ("Birkhoff", "PartialMatching"):
        if f"no attribute '{absent}'" in str(smoke.check_peer(name, "hsref", reference)):
            pytest.skip(f"this version has no {absent}")
    for peer in smoke.LIGHT:
        outcome = smoke.check_peer(name, peer, reference)
        if peer in ("hsref", "hsref_plain", "hsref_f32"):
            assert outcome in ("ok", "another family"), f"{peer} on {name}: {outcome}"


def test_same_seed_same_problem_and_a_part_of_a_batch_is_its_beginning():
    case = workloads.CASES["W8"]
    one, two = case.build(1, 6), case.build(1, 6)
    np.testing.assert_array_equal(one.x, two.x)
    np.testing.assert_array_equal(one.b_ub, two.b_ub)
    np.testing.assert_array_equal(one.take(2).x, one.x[:2])
    assert not np.array_equal(one.x, case.build(2, 6).x)


def test_unknown_workload_is_named():
    with pytest.raises(KeyError, match="W99"):
        workloads.select(["W99"])


def test_a_wrong_answer_is_seen():
    problem = smoke.problem("W1")
    reference = smoke.certified("W1")
    off = reference.y + 1e-3
    assert accuracy.distance(problem, off, reference.y) > 1e-6
    assert accuracy.infeasibility(problem, off).max() > 1e-6
    residuals, _ = accuracy.kkt(
        problem, off, np.zeros((problem.batch, len(problem.b_ub))),
        np.zeros((problem.batch, len(problem.b_eq))),
    )  # fmt: skip
    assert residuals["dual"].max() > 1e-3
    assert accuracy.gradient_error(reference, problem.v) > 1e-3


def test_face_projection_of_a_simplex_centres_the_support():
    problem = smoke.problem("W4")
    reference = smoke.certified("W4")
    i = reference.samples[0]
    support = reference.y[i] > 0
    v = problem.v[i]
    expected = np.where(support, v - v[support].mean(), 0.0)
    np.testing.assert_allclose(reference.gradient[0], expected, atol=1e-12)


def test_strict_multiplier_is_found_where_the_solver_gives_zeros():
    # At a permutation matrix the active rows are dependent. Bounds' multipliers off the diagonal
    # are u_i + v_j - (x - y)_ij with u_i + v_i = (x - y)_ii on it: positive for the first x, and
    # zero for every choice of u and v at the second.
    problem = workloads.CASES["W5"].build_smoke(0)
    vertex = np.eye(problem.shape[0]).ravel()
    inside = vertex + np.where(vertex > 0, 1.0, -1.0)
    assert accuracy.has_strict_multiplier(problem, inside, vertex)
    assert not accuracy.has_strict_multiplier(problem, vertex + 1.0, vertex)


def test_report_shows_accuracy_beside_time(tmp_path):
    text = smoke.whole_report(tmp_path, ["W1", "W4"])
    assert "| hsref |" in text
    assert "KKT residuals recomputed" in text
    assert (tmp_path / "benchmarks.json").exists()
    rows = report.read_rows(tmp_path)
    assert {"W1-t1", "W4-t1"} == set(rows)
    assert all(not r["incomplete"] for r in rows.values())


def test_a_wrong_peer_is_marked():
    row = {"error": 1e-3, "infeasibility": 0.0, "unsolved": 0}
    assert not report.accurate(row)
    assert report.accurate(row | {"error": 1e-9})
    assert not report.accurate(row | {"error": 1e-9, "unsolved": 1})


def test_rows_are_selected_by_name_label_and_kind():
    rows = run.all_rows([1, 2], False)
    assert len({r.label for r in rows}) == len(rows)
    assert {r.label for r in run.wanted(["W1"], rows)} >= {"W1-t1", "W1-t2", "curve-W1-t1"}
    assert all(r.kind == "memory" for r in run.wanted(["memory"], rows))
    with pytest.raises(SystemExit, match="no row"):
        run.wanted(["nothing"], rows)


@pytest.mark.parametrize("label", ["Simplex", "Polyhedron, n dense rows"])
def test_scaling_runs(tmp_path, label):
    content = smoke.tiny_scaling(tmp_path, label)
    assert content["against_n"]
    assert content["against_batch"]
    assert (tmp_path / "scaling.md").read_text().count("|") > 20


def test_bridges_are_measured_where_their_framework_is():
    found = importlib.import_module("benchmarks.bridges").measure(repeats=1, calls=1)
    for framework, label in (("numpy", "NumPy"), ("torch", "PyTorch"), ("jax", "JAX")):
        installed = importlib.util.find_spec(framework) is not None
        assert any(row.startswith(label) for row in found) == installed
    assert all(spent > 0.0 for spent in found.values())


def test_every_registered_set_has_a_scaling_row():
    import hsref

    table = scaling._table()
    for label in scaling.labels():
        C = scaling.make(label, None, np.random.default_rng(0))
        assert isinstance(C, hsref.PolyhedralSet)
    assert set(hsref.sets.REGISTRY) <= {name for name, _, _ in table.values()} | set(
        scaling.labels()
    )


def test_gate_counts_repeat_and_a_change_is_named(monkeypatch):
    monkeypatch.setattr(gate, "SAMPLES", {"W1": 8, "W4": 4})
    first, second = gate.count_steps(), gate.count_steps()
    assert first == second
    assert gate.compare(first, second, same=True) == []
    changed = first | {"W1": [first["W1"][0] + 100, first["W1"][1]]}
    assert "W1" in gate.compare(changed, first, same=True)[0]
    assert "missing" in gate.compare(first, {}, same=True)[0]


def test_every_promise_rests_on_tests_that_exist():
    for promise in trust_promises.PROMISES:
        assert promise.tests, promise.text
        assert promise.measured in {"", *trust.MEASUREMENTS, *trust.ELSEWHERE}
        for target in promise.tests:
            file, _, name = target.partition("::")
            source = (ROOT / file).read_text(encoding="utf-8")
            assert not name or f"\ndef {name}(" in source, target


def test_the_table_of_trust_tells_what_holds_from_what_does_not():
    about = {"hsref": "0", "python": "3", "numpy": "2", "numba": "0", "cpu": "c", "when": "now",
             "load": [0.0], "seconds": 1.0}  # fmt: skip
    assert "| yes |" not in trust.markdown({}).split("## Threads")[1]
    good = {"passed": 2, "failed": 0, "skipped": 0, "seconds": 0.1}
    targets = {test: dict(good) for promise in trust_promises.PROMISES for test in promise.tests}
    found = {name: {"holds": True, "figure": "so much", "about": about}
             for name in trust.MEASUREMENTS}  # fmt: skip
    found["tests"] = {"holds": True, "figure": "", "targets": targets, "about": about}
    text = trust.markdown(found).split("## Threads")[1]
    assert "not yet run" not in text
    assert "**no**" not in text
    assert text.count("so much") == len(trust.MEASUREMENTS)
    found["kills"]["holds"] = False
    targets["tests/test_linking.py"]["failed"] = 1
    assert trust.markdown(found).split("## Threads")[1].count("**no**") == 2


def test_oldest_releases_are_those_of_the_package():
    oldest = trust_versions.oldest_releases()
    assert {one.partition("==")[0] for one in oldest} == {"numpy", "scipy", "numba", "autograd"}
    assert all("==" in one for one in oldest)


reads_proc = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


@reads_proc
def test_calls_do_not_grow_the_process():
    found = trust_memory.run(20_000)
    assert found["calls"] >= 15_000
    assert found["holds"], found["figure"]


LEAK = """
from benchmarks import trust_memory

kept = []
trust_memory.kinds = lambda: {"leak": (1.0, lambda k: kept.append(b"x" * 4096 + bytes([k % 256])))}
(row,) = trust_memory.measure(2000)["rows"]
assert row["growth_bytes"] > trust_memory.ALLOWED, row
"""


@reads_proc
def test_growth_is_seen():
    # in a process of its own: this one may have megabytes at hand that others have given back
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        [sys.executable, "-c", LEAK], env={**os.environ, "PYTHONPATH": path}, cwd=ROOT,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_occupancy_counts_whole_blocks_of_registers():
    # 65 536 registers: 16 blocks of 128 threads at 32 each, 4 at 121 (handed out as 128)
    assert gpu_resources.occupancy(32, 2048) == 1.0
    assert gpu_resources.occupancy(121, 2048) == 4 * 128 / 2048
    assert gpu_resources.occupancy(255, 2048) == 2 * 128 / 2048


def test_fuzz_certifies_or_refuses_and_writes_its_tally(tmp_path):
    sets = ["Simplex", "Knapsack", "Polyhedron: dual active set"]
    assert fuzz.main(["--problems", "600", "--seed", "4", "--out", str(tmp_path), "--sets",
                      *sets]) == 0  # fmt: skip
    text = (tmp_path / "fuzz.md").read_text()
    assert "600 problems" in text
    assert "| Simplex |" in text
    assert not (tmp_path / "fuzz-failures").exists()


def test_fuzz_has_every_registered_set_and_repeats_with_its_seed():
    import hsref

    assert {"Polyhedron", *fuzz_problems.SPECIAL} == set(hsref.sets.REGISTRY)
    for form in fuzz_problems.FORMS:
        kind = fuzz_problems.kinds_of(form)[0]
        one, two = (fuzz_problems.build(form, kind, 5, np.random.default_rng(2)) for _ in range(2))
        np.testing.assert_array_equal(one.x, two.x)
        assert one.x.shape == (5, one.C.size)


def _portfolio_like():
    import hsref

    C = hsref.Polyhedron([[1.0, 1.0, 0.0]], [1.0], [[1.0, 1.0, 1.0]], [2.0], lower=0.0)
    x = np.array([[2.0, 1.5, 0.0], [0.0, 0.0, 0.0], [3.0, -1.0, 2.0]])
    return fuzz_problems.Batch(C, x), hsref.projection(x, C)


def test_fuzz_sees_a_wrong_point_and_wrong_multipliers():
    batch, record = _portfolio_like()
    rows = fuzz_checks.Rows(batch)
    y, found = np.array(record.y), record.multipliers

    def worst(y, found):
        return fuzz_checks.optimality(rows, batch.x, y, found, np.dtype(float))

    assert all((r <= 1e-14).all() for r in worst(y, found).values())
    moved = y + np.array([1e-6, -1e-6, 0.0])  # stays on the equality
    assert (worst(moved, found)["dual"] > 1e-7).all()
    assert (worst(y + 1e-6, found)["primal"] > 1e-7).all()
    assert worst(y, found._replace(ub=found.ub - 1.0))["sign"].max() > 0.1
    inside = y - np.array([0.25, 0.0, -0.25])
    assert worst(inside, found._replace(ub=found.ub + 1.0))["complementarity"].max() > 0.01
    assert (
        fuzz_checks.judge(batch, record, "random", np.random.default_rng(0))["reasons"] == [""] * 3
    )


def test_fuzz_sees_an_operator_that_is_no_projector(monkeypatch):
    import hsref

    batch, record = _portfolio_like()
    monkeypatch.setattr(
        hsref.HSJacobian, "_apply", lambda self, v: np.asarray(v) @ np.triu(np.ones((3, 3)))
    )
    found = fuzz_checks.jacobians(
        fuzz_checks.Rows(batch), record, np.random.default_rng(0), True
    )  # fmt: skip
    assert all((found[name] > 1e-2).any() for name in ("symmetry", "idempotence", "V rows"))


def test_fuzz_accepts_only_farkas_vectors_that_prove():
    import hsref

    C = hsref.Polyhedron([[1.0, 1.0], [-1.0, -1.0]], [1.0, -2.0])
    x = np.zeros((1, 2))
    rows = fuzz_checks.Rows(fuzz_problems.Batch(C, x))
    proof = hsref.projection(x, C, on_infeasible="nan").certificate
    first = np.array([0])
    assert fuzz_checks.proof_missing(rows, proof, first)[0] == 0.0
    for ub in ([[1.0, 0.5]], [[0.0, 0.0]], [[-1.0, -1.0]]):
        assert fuzz_checks.proof_missing(rows, proof._replace(ub=np.array(ub)), first)[0] > 0.1


@pytest.mark.parametrize(
    ("gap", "ub", "proved"),
    [
        (1e-16, [1.0, 1.0], True), (1e-16, [0.3, 0.3 - 5e-17], True), (1e-16, [1.0, 0.5], False),
        (-1e-16, [1.0, 1.0], False), (0.0, [1.0, 1.0], False), (1e-16, [0.0, 0.0], False),
    ],
)  # fmt: skip
def test_fuzz_settles_tiny_contradictions_exactly(gap, ub, proved):
    import hsref

    # against terms that cancel, 3 * 2 and 3 * 2, the contradiction is below their rounding
    C = hsref.Polyhedron([[1.0, 3.0], [-1.0, -3.0]], [0.0, -gap], lower=-1.0, upper=2.0)
    rows = fuzz_checks.Rows(fuzz_problems.Batch(C, np.zeros((1, 2))))
    found = hsref.Multipliers(np.array([ub]), np.zeros((1, 0)), np.zeros((1, 2)), np.zeros((1, 2)))
    assert (fuzz_checks.proof_missing(rows, found, np.array([0]))[0] == 0.0) == proved


def test_limits_of_processor_time_leave_waiting_alone():
    with measure.limit(0.02, processor=True):
        time.sleep(0.1)
    with pytest.raises(TimeoutError), measure.limit(0.02, processor=True):
        all(True for _ in itertools.count())


def test_fuzz_measures_shifted_sets_by_their_offset():
    import hsref

    C = hsref.Shifted(hsref.Box(-np.inf, 1.0, n=1), np.array([-1.0]))
    x = np.array([[1.51356129e-08]])  # x + 1 keeps half of its digits
    batch, record = fuzz_problems.Batch(C, x), hsref.projection(x, C)
    assert fuzz_checks.judge(batch, record, "integer", np.random.default_rng(0))["reasons"] == [""]


def test_fuzz_saves_what_crashes_and_tells_it_from_a_refusal(tmp_path, monkeypatch):
    key = fuzz.plan(10, 0, ["Simplex"])[0]

    def broken(*arguments):
        raise ZeroDivisionError("as a test")

    tally = fuzz.Tally()
    fuzz.run_batch(tally, tmp_path, key | {"set": "Hyperplane", "kind": "subnormal"})
    assert tally.total("refused") == 10
    monkeypatch.setattr(fuzz, "build", broken)
    fuzz.run_batch(tally, tmp_path, key)
    assert tally.total("crash") == 10
    saved = next((tmp_path / "fuzz-failures").glob("*.json"))
    monkeypatch.undo()
    assert fuzz.main(["--replay", str(saved), "--out", str(tmp_path)]) == 0


def test_fuzz_found_points_that_corrections_had_moved_off_their_multipliers():
    # Rows that are dependent but for noise: feasible points of size 1e43 came back that were no
    # projections. Such samples are now refused; what is answered satisfies its conditions.
    key = {"set": "Polyhedron: dual active set", "kind": "near-degenerate", "seed": 1,
           "number": 88}  # fmt: skip
    batch = fuzz_problems.build(key["set"], key["kind"], 250, fuzz._generator(key))
    record, keep, refused = fuzz._solve(batch, np.dtype(float))
    assert len(keep) + len(refused) == 250
    assert refused
    assert np.abs(record.y).max() <= 1e12


def test_the_table_of_a_card_is_made_in_the_simulator_and_marked(tmp_path):
    before = {p: p.stat().st_mtime_ns for p in gpu_report.RESULTS.glob("gpu.*")}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "--tiny", "--out", str(tmp_path)],
        env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}, cwd=ROOT, capture_output=True, text=True,
        timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Simulator, not a measurement" in done.stdout
    content = json.loads((tmp_path / "gpu.json").read_text())
    assert set(content["works"]) == set(gpu.WORKS)
    for work in content["works"].values():
        ours, *peers = work["results"]
        assert ours["error"] <= 1e-6
        assert ours["gradient_error"] is None or ours["gradient_error"] <= 1e-6
        assert len(ours["parts"]) == 5
        assert work["crossover"][0].keys() >= {"cpu", "device", "there_and_back"}
        for row in peers:
            assert "failed" not in row, row
            assert "missing" in row or row["promise"] == "surrogate" or row["error"] <= 1e-6
    goals = (tmp_path / "gpu.md").read_text().partition("## Goals")[2]
    assert goals.count("| – | – |") == len(gpu_report.GOALS)
    assert {p: p.stat().st_mtime_ns for p in gpu_report.RESULTS.glob("gpu.*")} == before
    with pytest.raises(ValueError, match="simulator"):
        gpu_report.write(gpu_report.RESULTS, content)


def test_without_a_card_one_sentence_and_exit_code_2(capsys):
    from hsref._cuda.compat import CudaUnavailableError, require_device

    try:
        require_device()
    except CudaUnavailableError:
        assert gpu.main([]) == 2
        assert capsys.readouterr().out.count("\n") == 1
    else:
        pytest.skip("there is a device here")


def test_goals_of_a_card_are_read_off_and_judged():
    part = {"seconds": 1e-3, "spread": 0.1, "bytes_per_second": 6e11, "flops_per_second": 1e9}
    slow = part | {"microseconds_a_sample": 300.0}
    fast = part | {"microseconds_a_sample": 10.0}
    parts = dict.fromkeys(("project", "projection", "HS product"), fast)
    ours = {"peer": "hsref", "error": 1e-12, "parts": parts}
    peer = {"peer": "qpth", "parts": {"projection": slow}}
    gone = {"peer": "pinet", "failed": "x"}
    content = {
        "simulated": False, "tiny": False, "card": {"bytes_per_second": 1e12},
        "works": {"general": {"results": [ours, peer, gone]}},
    }  # fmt: skip
    text = "\n".join(gpu_report._goals(content))
    assert "| general: qpth over hsref | ≥ 20 × | 30 × | yes |" in text
    assert "| general: pinet over hsref | ≥ 10 × | – | – |" in text
    assert "| general, HS product: share of copy speed | ≥ 60 % | 60 % | yes |" in text
    assert "| general: largest error | ≤ 1e-10 | 1e-12  | yes |" in text
    rows = [{"batch": 1, "cpu": 1.0, "device": 2.0}, {"batch": 10, "cpu": 3.0, "device": 2.0}]
    assert gpu_report.first_faster(rows, "device") == "from batch 10 on"
    assert "no batch" in gpu_report.first_faster(rows[:1], "device")
