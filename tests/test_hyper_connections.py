"""Hyper-connections: gradients, the interior start, resuming, sums of rows and columns, report."""

from __future__ import annotations

import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from autograd import grad, value_and_grad

from hsref import cli
from hsref.applications import InputError, hyper_connections
from hsref.applications._training import best_rate, sweep
from hsref.applications.hyper_connections import HyperConfig, mixing, running
from hsref.applications.hyper_connections.config import ARMS, DepthTask, make_problem
from hsref.applications.hyper_connections.model import Model, Seen, look_inside
from hsref.applications.hyper_connections.report import claims, compare
from hsref.applications.hyper_connections.sinkhorn import sinkhorn
from hsref.applications.hyper_connections.text import encode, groups_of
from portfolios import assert_one_sentence
from tolerances import assert_close

SMALL = HyperConfig(
    depth=2,
    depths=(1,),
    width=5,
    hidden=6,
    context=4,
    embedding=3,
    batch_size=16,
    steps=7,
    warmup=2,
    every=3,
    scored=64,
    learning_rates=(3e-3, 1e-2),
    seeds=(0, 1),
    depth_seeds=(0,),
)
MIXED = tuple(arm for arm in ARMS if arm != "residual")


def words(topics: int = 24, seed: int = 0) -> dict[str, str]:
    """Return short texts of random words, no line of which occurs twice."""
    rng = np.random.default_rng(seed)
    letters = np.array(list("abcdefgh \n"))
    return {f"topic{k:02d}": "".join(letters[rng.integers(0, 10, 300)]) for k in range(topics)}


@pytest.fixture(scope="module")
def problem():
    return make_problem(SMALL, words())


@pytest.fixture(scope="module")
def events() -> list:
    return []


@pytest.fixture(scope="module")
def result(events):
    return hyper_connections.train(SMALL, words(), progress=events.append)


@pytest.fixture(scope="module")
def folder(result, tmp_path_factory):
    return result.save(tmp_path_factory.mktemp("out") / "deep", "hsref train hyper-connections")


def example(problem, arm: str, spread: float = 0.1, count: int = 9):
    """Return a model, parameters away from the start, windows and targets."""
    model = Model(problem.config, arm, problem.text.size, problem.config.depth)
    params = model.init(0)
    params = params + spread * np.random.default_rng(3).standard_normal(params.size)
    return model, params, *problem.text.windows("train", problem.text.spread("train", count))


# -- the text -------------------------------------------------------------------------------------


def test_topics_that_share_lines_stay_together():
    shared = [f"a line that both of the topics have, number {k}" for k in range(5)]
    topics = words() | {"whole": "\n".join(["before", *shared]), "section": "\n".join(shared)}
    assert ("section", "whole") in groups_of(topics)
    for seed in range(20):
        text = encode(topics, 4, seed=seed)
        sides = [part for part, names in text.topics.items() if {"section", "whole"} & set(names)]
        assert len(sides) == 1


def test_parts_of_pythons_help_share_next_to_nothing():
    problem = make_problem(HyperConfig())
    text, topics = problem.text, hyper_connections.text.topics_of_python()
    lines = {
        part: {line.strip() for name in names for line in topics[name].split("\n")}
        for part, names in text.topics.items()
    }
    for other in ("tuning", "validation"):
        long = {line for line in lines[other] if len(line) >= 25}
        assert len(long & lines["train"]) < 0.02 * len(long)
        assert len(text.positions[other]) > 40_000
    assert sum(map(len, text.topics.values())) == len(topics)


def test_windows_hold_the_characters_before_and_nothing_of_another_topic():
    topics = words()
    text = encode(topics, 4, seed=1)
    for part, names in text.topics.items():
        positions = text.positions[part]
        assert len(positions) == sum(len(topics[name]) for name in names)
        windows, targets = text.windows(part, positions)
        topic = text.topic_of(part, positions)
        for k in (0, 2, 300, 303):
            name, at = names[topic[k]], k % 300
            spelled = "".join(text.symbols[code - 2] for code in windows[k] if code >= 2)
            assert spelled == topics[name][max(0, at - 4) : at]
            assert (windows[k] == 0).sum() == max(0, 4 - at)
            assert text.symbols[targets[k] - 2] == topics[name][at]


def test_a_symbol_that_training_never_met_is_unknown():
    topics = words() | {"topic00": "é" * 300}
    for seed in range(20):
        text = encode(topics, 4, seed=seed)
        if "topic00" not in text.topics["train"]:
            part = next(p for p, names in text.topics.items() if "topic00" in names)
            assert text.codes[part].min() == 0
            assert (text.codes[part] == 1).sum() == 300
            assert text.codes["train"].max() < text.size
            return
    raise AssertionError("no split put the topic aside")


# -- mixing ---------------------------------------------------------------------------------------


# one size of the set is enough: each compiles routines of its own
@pytest.mark.parametrize(
    ("arm", "n"), [*((arm, 4) for arm in MIXED), ("sinkhorn", 2), ("permutations", 3)]
)
def test_arms_start_at_one_interior_matrix_and_answer_alike(arm, n):
    made = mixing.make_mixing(arm, n, 0.4, 20)
    H = mixing.start_matrix(n, 0.4)
    assert_close(made.map(made.start[None])[0], H, "agree")
    if arm == "unconstrained":
        return
    h = 1e-6
    steps = h * made.gain * np.eye(made.size)
    slopes = (made.map(made.start + steps) - made.map(made.start - steps)) / (2 * h)
    assert abs(np.linalg.norm(slopes) - (n - 1)) < 1e-6


def test_the_projection_is_interior_exactly_if_the_margin_is_positive():
    rng = np.random.default_rng(0)
    logits = 0.5 * np.eye(4).reshape(-1) + 0.15 * rng.standard_normal((200, 16))
    margin = mixing.interior_margin(logits, 4)
    C = mixing.birkhoff(4)
    record = mixing.hsref.projection(logits.reshape(-1, *C.shape), C)
    assert 20 < (margin > 0).sum() < 180
    assert ((record.rank == C.dim) == (margin > 0)).all()
    assert C.dim == 9


def test_a_start_at_the_vertex_would_be_dead():
    C = mixing.birkhoff(4)
    at = np.where(np.eye(4) > 0, 0.0, -8.0)  # the customary start for Sinkhorn
    record = mixing.hsref.projection(at.reshape(C.shape), C)
    assert record.rank == 0
    assert mixing.interior_margin(at.reshape(1, -1), 4)[0] < 0


def test_a_start_outside_the_interior_is_refused():
    config = dataclasses.replace(SMALL, epsilon=0.01, alpha=0.5)
    problem = make_problem(config, words())
    with pytest.raises(InputError, match="do not start inside the Birkhoff polytope") as caught:
        running.run(problem, DepthTask("projection", "tune", 0, 1e-2, 2))
    assert_one_sentence(caught.value)
    running.run(problem, DepthTask("sinkhorn", "tune", 0, 1e-2, 2))  # has no such trap


@pytest.mark.parametrize("arm", MIXED)
def test_sums_of_rows_and_columns(problem, arm):
    model, params, windows, _ = example(problem, arm)
    seen = Seen()
    model.apply(params, windows, seen)
    H = np.array(seen.mixing)
    assert H.shape == (2, 9, 4, 4)
    rows, columns = np.abs(H.sum(axis=3) - 1.0).max(), np.abs(H.sum(axis=2) - 1.0).max()
    figures = look_inside(model, params, windows)
    assert figures["row_error"] == rows
    assert figures["column_error"] == columns
    if arm in ("projection", "permutations"):
        assert max(rows, columns) < 1e-14
        assert H.min() >= 0.0
        assert abs(figures["gain_max"] - 1.0) < 1e-13
    elif arm == "sinkhorn":
        assert rows < 1e-14 < columns < 0.5
    else:
        assert min(rows, columns) > 1e-3


def test_composite_gain_by_hand(problem):
    model, params, windows, _ = example(problem, "unconstrained")
    seen = Seen()
    model.apply(params, windows, seen)
    products = [second @ first for first, second in zip(*seen.mixing)]
    rows = [np.abs(one).sum(axis=1).max() for one in products]
    columns = [np.abs(one).sum(axis=0).max() for one in products]
    figures = look_inside(model, params, windows)
    assert_close(figures["gain"], np.mean(rows), "agree")
    assert_close(figures["back_gain"], np.mean(columns), "agree")
    assert_close(figures["gain_max"], max(*rows, *columns), "agree")
    assert_close(figures["gain_by_block"][-1], figures["gain"], "agree")


def test_sinkhorn_agrees_with_the_iteration_written_out():
    rng = np.random.default_rng(2)
    s = 3.0 * rng.standard_normal((5, 3, 3))
    H = np.exp(s)
    for _ in range(4):
        H = H / H.sum(axis=1, keepdims=True)
        H = H / H.sum(axis=2, keepdims=True)
    assert_close(sinkhorn(s, 4), H, "agree")
    weights, h = rng.standard_normal(s.shape), 1e-6
    slope = grad(lambda s: mixing.anp.sum(sinkhorn(s, 4) * weights))(s)
    for _ in range(5):
        v = rng.standard_normal(s.shape)
        up, down = (np.sum(sinkhorn(s + t * v, 4) * weights) for t in (h, -h))
        assert abs((up - down) / (2 * h) - np.sum(slope * v)) < 1e-7


def test_sinkhorn_takes_logits_far_apart():
    s = np.array([[[0.0, 1000.0], [0.0, 1001.0]]])  # exp of the differences overflows
    slope = grad(lambda s: mixing.anp.sum(sinkhorn(s, 20) * np.array([[1.0, 2.0], [3.0, 5.0]])))(s)
    assert np.isfinite(sinkhorn(s, 20)).all()
    assert_close(sinkhorn(s, 20), sinkhorn(s - np.array([0.0, 1000.0]), 20), "agree")
    assert np.isfinite(slope).all()
    assert np.abs(slope).max() > 0.1


# -- the network ----------------------------------------------------------------------------------


@pytest.mark.parametrize("arm", ARMS)
def test_the_gradient_of_the_whole_model(problem, arm):
    model, params, windows, targets = example(problem, arm)
    loss, slope = value_and_grad(model.loss)(params, windows, targets)
    assert np.isfinite(loss)
    # every kind of parameter takes part
    assert all(np.abs(leaf).max() > 0 for leaf in running.optim.tree_leaves(model.tree(slope)))
    rng, h = np.random.default_rng(4), 1e-6
    for _ in range(6):
        v = rng.standard_normal(params.size)
        up, down = (model.loss(params + t * v, windows, targets) for t in (h, -h))
        # relative to the length of the gradient, for v may be nearly orthogonal to it
        assert abs((up - down) / (2 * h) - slope @ v) < 1e-7 * np.linalg.norm(slope)


@pytest.mark.parametrize("arm", ["projection", "permutations"])
def test_the_first_and_the_last_matrix_are_inert(problem, arm):
    # equal streams stay equal, and a mean of streams is kept
    model = Model(SMALL, arm, problem.text.size, 3)
    params = model.init(0) + 0.1 * np.random.default_rng(3).standard_normal(model.init(0).size)
    inputs = problem.text.windows("train", problem.text.spread("train", 9))
    tree = model.tree(value_and_grad(model.loss)(params, *inputs)[1])
    slopes = [np.abs(block["links"]["b"][2 * SMALL.streams :]).max() for block in tree["blocks"]]
    assert max(slopes[0], slopes[2]) < 1e-14 < 1e-5 < slopes[1]


def test_one_seed_starts_every_arm_alike(problem):
    trees = {arm: Model(SMALL, arm, problem.text.size, 2) for arm in ARMS}
    trees = {arm: model.tree(model.init(5)) for arm, model in trees.items()}
    first = trees["projection"]
    for arm, tree in trees.items():
        assert (tree["embedding"] == first["embedding"]).all()
        if arm != "residual":
            assert (tree["blocks"][1]["W1"] == first["blocks"][1]["W1"]).all()
    assert trees["sinkhorn"]["blocks"][0]["links"]["W"].tobytes() == (
        first["blocks"][0]["links"]["W"].tobytes()
    )


def test_the_residual_network_has_as_many_parameters():
    sizes = {arm: Model(HyperConfig(), arm, 100, 8).init(0).size for arm in ARMS}
    assert abs(sizes["residual"] / sizes["projection"] - 1.0) < 0.005
    assert sizes["projection"] == sizes["sinkhorn"] == sizes["unconstrained"]


# -- runs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("arm", ["projection", "residual"])
def test_a_run_that_was_interrupted_ends_with_the_same_bits(tmp_path, monkeypatch, arm):
    task = DepthTask(arm, "final", 0, 1e-2, 2)
    whole = running.run(make_problem(SMALL, words()), task)
    saved = make_problem(SMALL, words(), tmp_path)
    glances = []
    glance = running._glance

    def stop(*arguments):
        glances.append(1)
        if len(glances) == 3:
            raise KeyboardInterrupt
        return glance(*arguments)

    monkeypatch.setattr(running, "_glance", stop)
    with pytest.raises(KeyboardInterrupt):
        running.run(saved, task)
    found = running.run(saved, task)
    assert len(glances) == 4  # the last stretch alone was done again
    assert found.params.tobytes() == whole.params.tobytes()
    assert found.figures == whole.figures
    assert not found.resumed
    again = running.run(saved, task)
    assert again.resumed
    assert len(glances) == 4
    assert again.params.tobytes() == whole.params.tobytes()
    assert again.figures == whole.figures


def test_a_run_that_diverges_says_so(problem):
    with np.errstate(all="ignore"):
        run = running.run(problem, DepthTask("unconstrained", "tune", 0, 1e150, 2))
    assert run.diverged
    assert run.score == -np.inf
    tasks = [DepthTask("unconstrained", "tune", 0, rate, 2) for rate in (1e-2, 1e150)]
    assert best_rate(tasks, [-3.0, run.score], "unconstrained")[0] == 1e-2


def test_an_executor_changes_nothing(result):
    tasks = [runs[0].task for (_, depth), runs in result.runs.items() if depth == 2]
    with ThreadPoolExecutor(2) as pool:
        others = sweep(running.run, result.problem, tasks, pool)
    for task, other in zip(tasks, others):
        assert other.figures == result.runs[task.arm, 2][0].figures


def test_every_arm_seed_and_depth_is_there(result, events):
    assert len(events) == events[-1].total == events[-1].done == 5 * (2 + 2 + 1)
    for arm in ARMS:
        assert [run.task.seed for run in result.runs[arm, 2]] == [0, 1]
        assert [run.task.seed for run in result.runs[arm, 1]] == [0]
        chosen = {run.task.learning_rate for run in result.runs[arm, 2]}
        assert chosen == {min(result.tuning[arm], key=lambda rate: result.tuning[arm][rate])}
        assert result.costs[arm].peak_bytes > 0
    run = result.runs["projection", 2][0]
    topics = result.problem.text.topics["validation"]
    assert len(run.figures["validation"]["loss_by_topic"]) == len(topics)
    assert [entry["step"] for entry in run.history] == [3, 6, 7]


def test_it_learns():
    topics = {name: ("the same words again, " * 14)[k:] for k, name in enumerate(words())}
    # lines longer than any are shared by none
    config = dataclasses.replace(SMALL, steps=60, every=20, learning_rates=(1e-2,))
    problem = make_problem(config, {name: f"{name}\n{text}" for name, text in topics.items()})
    for arm in ARMS:
        history = running.run(problem, DepthTask(arm, "tune", 0, 3e-2, 2)).history
        assert history[-1]["loss"] < 0.7 * history[0]["loss"], arm


# -- the report -----------------------------------------------------------------------------------


def test_the_results_have_the_form_of_the_other_applications(folder):
    found = json.loads((folder / "results.json").read_text())
    assert found["command"] == "hsref train hyper-connections"
    assert set(found["arms"]) == set(ARMS)
    for arm, entry in found["arms"].items():
        assert {"train", "validation", "seeds"} <= set(entry)
        assert len(entry["seeds"]) == 2
        assert entry["validation"]["loss"] > 0
        assert set(entry["depths"]) == {"1"}
        assert ("dead_fraction" in entry["validation"]) == (arm == "projection")


def test_the_report_answers_first(folder):
    text = (folder / "report.md").read_text(encoding="utf-8")
    first = text.split("\n\n")
    assert first[1].startswith("**Loss.**")
    assert first[2].startswith("**Where it wins, where it does not**")
    for claim in ("lower training loss", "smaller violation", "less time", "less memory"):
        assert f"| {claim} | " in text
    for name in ("loss", "training", "gain", "rank", "depth"):
        assert (folder / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
        assert f"({name}.png)" in text
    assert "nan" not in text


def with_losses(result, arm: str, shift: float):
    """Return `result` with the losses of an arm moved off those of projection."""
    runs = dict(result.runs)
    moved = []
    for k, run in enumerate(result.runs["projection", 2]):
        figures = {part: dict(one) for part, one in run.figures.items()}
        for one in figures.values():
            one["loss"] += shift + 1e-6 * k
        figures["validation"]["loss_by_topic"] = [
            loss + shift for loss in figures["validation"]["loss_by_topic"]
        ]
        moved.append(dataclasses.replace(run, figures=figures))
    runs[arm, 2] = moved
    return dataclasses.replace(result, runs=runs)


def test_a_verdict_claims_no_more_than_the_numbers_carry(result):
    worse = with_losses(with_losses(result, "sinkhorn", 0.1), "permutations", 0.1)
    assert compare(worse, "sinkhorn").verdict().startswith("lower with projection, clearly")
    assert {c[0]: c[1] for c in claims(worse)}["lower training loss"] == "supported"
    mixed = with_losses(worse, "permutations", -0.1)
    assert compare(mixed, "permutations").verdict().startswith("higher with projection")
    assert {c[0]: c[1] for c in claims(mixed)}["lower training loss"] == "mixed"
    same = dataclasses.replace(compare(worse, "sinkhorn"), clear=False)
    assert same.verdict() == "no difference can be claimed"
    few = dataclasses.replace(compare(worse, "sinkhorn"), topics_clear=False)
    assert "whatever the seed, but" in few.verdict()


def test_a_diverged_run_is_named_and_claims_nothing(result, tmp_path):
    runs = dict(result.runs)
    broken = {"train": {"loss": np.inf}, "validation": {"loss": np.inf}}
    for arm, depth, k in (("unconstrained", 2, 0), ("sinkhorn", 2, 1), ("residual", 1, 0)):
        runs[arm, depth] = list(runs[arm, depth])
        runs[arm, depth][k] = dataclasses.replace(
            runs[arm, depth][k], figures=broken, diverged=True
        )
    costs = {arm: cost for arm, cost in result.costs.items() if arm != "unconstrained"}
    lost = dataclasses.replace(result, runs=runs, costs=costs)
    text = (lost.save(tmp_path) / "report.md").read_text(encoding="utf-8")
    assert "Diverged runs: " in text
    assert "unconstrained at 2 blocks, seed 0" in text
    assert "a run of one of them diverged" in compare(lost, "sinkhorn").verdict()
    assert "nan" not in text
    assert "inf" not in text.replace("information", "")
    json.loads((tmp_path / "results.json").read_text())


# -- the command ----------------------------------------------------------------------------------


def test_an_interrupted_command_goes_on_and_says_how(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tiny = dataclasses.replace(SMALL, depths=(), learning_rates=(1e-2,), seeds=(0,))
    monkeypatch.setattr(HyperConfig, "quick", lambda self: tiny)
    measure, count = running._measure, [0]

    def stop(*arguments):
        count[0] += 1
        if count[0] == 4:
            raise KeyboardInterrupt
        return measure(*arguments)

    monkeypatch.setattr(running, "_measure", stop)
    command = ["train", "hyper-connections", "--quick"]
    assert cli.main(command) == 130
    told = capsys.readouterr().err
    assert "goes on from here." in told
    assert "--out hsref-hyper-connections" in told.replace(str(tmp_path) + "/", "")
    assert cli.main([*command, "--out", "hsref-hyper-connections"]) == 0
    assert count[0] == 3 + 1 + 7  # three runs had been finished
    folder = tmp_path / "hsref-hyper-connections"
    assert "3 of its runs an earlier call had finished" in (folder / "report.md").read_text("utf-8")
    assert not (folder / "checkpoints").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--seeds", "0"], "--seeds must lie between 1 and 1000; got 0."),
        (["--steps", "0"], "steps must be a whole number of at least 1; got 0."),
        (["--depths", "2,x"], "--depths must be whole numbers with commas between them; got 2,x."),
        (["--epsilon", "0"], "epsilon must lie in (0, 1]; at 0 the mixing matrices"),
        (["--out", "FILE"], "is a file, not a folder."),
    ],
)
def test_the_command_refuses_in_one_sentence(tmp_path, monkeypatch, capsys, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").write_text("")
    assert cli.main(["train", "hyper-connections", *arguments]) == 2
    told = capsys.readouterr().err
    assert sentence in told
    assert told.count("\n") == 1
    assert [one.name for one in tmp_path.iterdir()] == ["FILE"]


# -- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"epsilon": 0.0}, "epsilon must lie in (0, 1]; at 0 the mixing matrices start at a vert"),
        ({"streams": 6}, "streams must be at most 5"),
        ({"streams": 1}, "streams must be a whole number of at least 2; got 1."),
        ({"steps": 0}, "steps must be a whole number of at least 1; got 0."),
        ({"warmup": 7}, "warmup must be shorter than the run; got 7 of 7 steps."),
        ({"depths": (2,)}, "depths must not hold depth itself, 2."),
        ({"depths": (0,)}, "depths must be positive whole numbers"),
        ({"depth_seeds": (5,)}, "depth_seeds must be among seeds"),
        ({"tuning_seeds": (0,)}, "seeds and tuning_seeds must differ"),
        ({"seeds": ()}, "seeds must hold at least one entry and none twice; got ()."),
        ({"learning_rates": (0.0,)}, "learning_rates must be positive."),
        ({"fraction": 0.5}, "fraction must lie in (0, 0.4); got 0.5."),
        ({"clip": float("nan")}, "clip must be positive and finite; got nan."),
        ({"beta1": 1.0}, "beta1 must lie in [0, 1); got 1.0."),
    ],
)
def test_bad_settings_get_one_sentence(change, sentence):
    with pytest.raises(InputError) as caught:
        dataclasses.replace(SMALL, **change)
    assert sentence in str(caught.value)
    assert_one_sentence(caught.value)


@pytest.mark.parametrize("topics", [{}, {"one": "text"}, {"one": " ", "two": "\n"}])
def test_too_little_text_gets_one_sentence(topics):
    with pytest.raises(InputError, match="too few to leave one for") as caught:
        make_problem(SMALL, topics)
    assert_one_sentence(caught.value)
