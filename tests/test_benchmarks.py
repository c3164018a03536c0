"""The benchmarks run at tiny sizes and their answers are right; nothing here looks at a clock."""

from __future__ import annotations

import importlib
import importlib.util
import sys
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
gate = importlib.import_module("benchmarks.gate")
gpu_resources = importlib.import_module("benchmarks.gpu_resources")
report = importlib.import_module("benchmarks.report")
run = importlib.import_module("benchmarks.run")
scaling = importlib.import_module("benchmarks.scaling")
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


def test_occupancy_counts_whole_blocks_of_registers():
    # 65 536 registers: 16 blocks of 128 threads at 32 each, 4 at 121 (handed out as 128)
    assert gpu_resources.occupancy(32, 2048) == 1.0
    assert gpu_resources.occupancy(121, 2048) == 4 * 128 / 2048
    assert gpu_resources.occupancy(255, 2048) == 2 * 128 / 2048
