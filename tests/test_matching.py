"""The matching application: images, graphs, layers, decoding, training, report."""

from __future__ import annotations

import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from autograd import grad

import hsref.cli as cli
from hsref.applications import InputError, matching
from hsref.applications import _entropic as entropic
from hsref.applications._training import batches
from hsref.applications.matching import decode, graphs, keypoints, layers, model, regions
from hsref.applications.matching.problem import data_of, graph_problem, image_problem
from hsref.applications.matching.report import compare, report
from portfolios import assert_one_sentence
from tolerances import assert_close, bound

SMALL = matching.MatchingConfig(
    m=5,
    n=6,
    regions=24,
    test_regions=16,
    graphs=3,
    test_graphs=3,
    inliers=8,
    noises=(0.0, 0.02),
    outlier_counts=(0, 2),
    outliers=1,
    seeds=(0, 1),
    tuning_seeds=(7,),
    learning_rates=(1e-2, 3e-2),
    epochs=2,
    batch_size=8,
    hidden=8,
    iterations=5,
)
SHIFT = 9.0


def scenery(height: int = 180, width: int = 260) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return two views of random blobs, the right one `SHIFT` columns to the left and noisy."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(3)
    wide = gaussian_filter(rng.standard_normal((height, width + 20)), 1.4)
    wide = (wide - wide.min()) / np.ptp(wide)
    left, right = wide[:, :width], wide[:, int(SHIFT) : int(SHIFT) + width]
    noisy = np.clip(right + 0.01 * rng.standard_normal(right.shape), 0.0, 1.0)
    return left, noisy, np.full(left.shape, SHIFT)


@pytest.fixture(scope="module")
def pair() -> matching.ImagePair:
    return matching.checked_pair(*scenery(), "random blobs")


@pytest.fixture(scope="module")
def problems(pair):
    return {"images": image_problem(SMALL, pair), "graphs": graph_problem(SMALL)}


@pytest.fixture(scope="module")
def events() -> list:
    return []


@pytest.fixture(scope="module")
def result(pair, events):
    return matching.train(SMALL, pair, progress=events.append)


@pytest.fixture(scope="module")
def folder(result, tmp_path_factory):
    return result.save(tmp_path_factory.mktemp("out") / "deep", "hsref train matching")


# -- images ---------------------------------------------------------------------------------------


def test_the_motorcycle_is_part_of_scikit_image_and_its_disparity_is_of_the_left_view():
    pair = matching.load_pair()
    assert pair.left.shape == pair.right.shape == pair.disparity.shape == (500, 741)
    rows, columns = np.nonzero(np.isfinite(pair.disparity))
    inside = (columns >= 80) & (columns < 660)
    rows, columns = rows[inside], columns[inside]
    moved = np.rint(pair.disparity[rows, columns]).astype(int)
    here = np.abs(pair.left[rows, columns] - pair.right[rows, columns - moved]).mean()
    there = np.abs(pair.right[rows, columns] - pair.left[rows, columns + moved]).mean()
    assert here < 0.6 * there


def test_hidden_pixels_have_no_partner():
    # a foreground of disparity 5 hides what lands on the same columns with disparity 1
    disparity = np.full((1, 20), 1.0)
    disparity[0, 10:14] = 5.0
    seen = keypoints.visible(disparity)[0]
    assert seen[10:14].all()
    assert not seen[[0, 6, 7, 8, 9]].any()
    assert seen[[1, 2, 3, 4, 5, 14, 19]].all()


def test_true_matches_are_where_the_disparity_says(problems):
    scene = problems["images"].scene
    who = np.flatnonzero(scene.partner >= 0)
    assert who.size > 0.5 * len(scene.left)
    off = scene.left.place[who] - scene.right.place[scene.partner[who]] - [0.0, SHIFT]
    assert np.linalg.norm(off, axis=1).max() <= SMALL.tolerance
    assert np.unique(scene.partner[who]).size == who.size


def test_test_regions_share_no_keypoint_with_training(problems):
    data = data_of(problems["images"])
    m = SMALL.m
    for part in (slice(0, m), slice(m, None)):
        train = np.unique(data.fit.groups[0].where[:, part])
        test = np.unique(data.test.groups[0].where[:, part])
        assert not np.isin(test, train).any()
        tuned = np.unique(data.tune_fit.groups[0].where[:, part])
        assert not np.isin(np.unique(data.tune_score.groups[0].where[:, part]), tuned).any()


def test_blocks_share_no_left_keypoint(problems):
    group = data_of(problems["images"]).test.groups[0]
    for one in np.unique(group.block):
        inside, outside = (
            np.unique(group.where[chosen, : SMALL.m])
            for chosen in (group.block == one, group.block != one)
        )
        assert not np.isin(inside, outside).any()


def test_truth_is_a_partial_matching(problems):
    for problem in problems.values():
        data = data_of(problem)
        for side in (data.fit, data.tune_fit, data.tune_score, data.test):
            for group in side.groups:
                assert group.truth.sum(axis=1).max() <= 1.0
                assert group.truth.sum(axis=2).max() <= 1.0
                np.testing.assert_array_equal(group.total, group.truth.sum(axis=(1, 2)))


# -- graphs ---------------------------------------------------------------------------------------


def test_without_noise_and_outliers_descriptors_find_every_match():
    found = graphs.draw(graphs.Condition(9, 0, 0, 0.0), 5, np.random.default_rng(0))
    chosen = decode.hungarian(-found.distance, found.total)
    assert_close(decode.f1(chosen, found.truth), np.ones(5), "agree")
    # a rotation changes no distance, so true pairs have equal descriptors
    assert found.distance[found.truth > 0].max() < 1e-12


def test_messages_of_the_true_matching_single_out_true_pairs():
    found = graphs.draw(graphs.Condition(9, 2, 2, 0.0), 4, np.random.default_rng(1))
    passed = np.matmul(
        np.matmul(found.left, found.truth[:, None]), np.swapaxes(found.right, -1, -2)
    ).sum(axis=1)
    best = passed.argmax(axis=2)
    for k, i, j in np.argwhere(found.truth > 0):
        assert best[k, i] == j


# -- layers ---------------------------------------------------------------------------------------


def test_softmax_rows_by_hand():
    scores = np.log(np.array([[[1.0, 2.0], [3.0, 4.0]]]))
    wanted = np.array([[[1 / 4, 2 / 4], [3 / 8, 4 / 8]]])
    assert_close(entropic.softmax_rows(scores, 0.0), wanted, "agree")


def test_sinkhorn_meets_its_marginals_in_the_limit():
    scores = np.random.default_rng(0).normal(size=(3, 4, 5))
    X = entropic.sinkhorn_with_spares(scores, 0.3, 500)
    broken = layers.violation(X, X.sum(axis=(1, 2)))[1]
    assert broken.max() < 1e-12
    # rows are scaled last, so that they hold after one iteration already
    assert entropic.sinkhorn_with_spares(scores, 0.3, 1).sum(axis=2).max() <= 1.0


def test_extended_sinkhorn_meets_all_sums_in_the_limit():
    scores = 3.0 * np.random.default_rng(1).normal(size=(3, 4, 5))
    total = np.array([1.0, 2.0, 3.0])
    X = layers.output("linsat", scores, 0.0, total, 3000)
    assert layers.violation(X, total)[0].max() < 1e-6
    assert X.max() <= 1.0


@pytest.mark.parametrize("arm", matching.TRAINED)
def test_gradient_of_a_layer_is_that_of_differences(arm):
    rng = np.random.default_rng(2)
    scores, along = rng.normal(size=(2, 3, 4)), rng.normal(size=(2, 3, 4))
    weights, total = rng.normal(size=(2, 3, 4)), np.array([1.0, 2.0])

    def value(s):
        return (layers.output(arm, s, 0.1, total, 4) * weights).sum()

    slope = float((grad(value)(scores) * along).sum())
    h = 1e-6
    difference = (value(scores + h * along) - value(scores - h * along)) / (2 * h)
    assert abs(difference - slope) <= bound("smooth difference", np.array(slope))


def test_violation_by_hand():
    X = np.array([[[0.5, 0.75], [-0.125, 0.0]], [[0.0, 1.0], [0.0, 1.0]]])
    every, marginal = layers.violation(X, np.array([2.0, 2.0]))
    assert_close(marginal, np.array([0.25, 1.0]), "agree")
    assert_close(every, np.array([0.875, 1.0]), "agree")


# -- decoding -------------------------------------------------------------------------------------


def test_f1_by_hand():
    truth = np.array([[[1.0, 0.0], [0.0, 1.0]]])
    chosen = np.array([[[True, False], [True, False]]])
    assert_close(decode.f1(chosen, truth), np.array([0.5]), "agree")


def test_the_ratio_test_refuses_what_is_nearly_as_near():
    distance = np.array([[[0.2, 0.5], [0.5, 0.49]]])
    assert decode.mutual(distance, 1.0).sum() == 2
    assert decode.mutual(distance, 0.9)[0].tolist() == [[True, False], [False, False]]


def test_total_limits_the_pairs():
    X = np.random.default_rng(0).random((4, 3, 5))
    for total in range(4):
        chosen = decode.hungarian(X, np.full(4, float(total)))
        assert (chosen.sum(axis=(1, 2)) == total).all()
        assert (decode.largest(X, np.full(4, float(total))).sum(axis=(1, 2)) == total).all()


def test_batches_keep_to_one_group():
    labels = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2])
    pieces = list(batches(9, 2, np.random.default_rng(0), labels))
    assert sorted(np.concatenate(pieces)) == list(range(9))
    assert all(np.unique(labels[piece]).size == 1 for piece in pieces)


# -- training -------------------------------------------------------------------------------------


def test_every_arm_starts_from_one_network_with_its_output_in_the_interior(problems):
    for problem in problems.values():
        params = [model.Model(problem, arm).init(3) for arm in matching.TRAINED]
        for other in params[1:]:
            for part in ("first", "second"):
                for ours, theirs in zip(params[0][part], other[part]):
                    np.testing.assert_array_equal(ours["W"], theirs["W"])
        net = model.Model(problem, "projection")
        for group in data_of(problem).fit.groups:
            seen = group.take(np.arange(min(8, len(group))))
            assert net.output(params[0], seen).min() > 0.0


@pytest.mark.parametrize("arm", ["projection", "linsat"])
def test_gradient_of_the_loss_is_that_of_differences(problems, arm):
    net = model.Model(problems["images"], arm)
    seen = data_of(problems["images"]).fit.groups[0].take(np.arange(3))
    params, other = net.init(0), net.init(1)
    gradient = grad(net.loss)(params, seen)
    h, part = 1e-5, "second"

    def moved(step):
        layer = [{name: p[name] + step * d[name] for name in p} for p, d in
                 zip(params[part], other[part])]  # fmt: skip
        return net.loss(params | {part: layer}, seen)

    slope = sum(
        float(np.sum(g[name] * d[name])) for g, d in zip(gradient[part], other[part]) for name in g
    )
    difference = (moved(h) - moved(-h)) / (2 * h)
    assert abs(difference - slope) <= bound("smooth difference", np.array(slope))


def test_projection_is_exact_on_every_instance_and_seed(result):
    for world in ("images", "graphs"):
        for run in result.runs[world, "projection"]:
            assert run.train["violation"] <= 1e-12
            assert run.test.figures["violation"] <= 1e-12
            assert all(epoch["test_violation"] <= 1e-12 for epoch in run.history)
            assert run.history[0]["train_dead_fraction"] == 0.0
        for run in result.runs[world, "substochastic"]:
            assert run.test.figures["marginal_violation"] <= 1e-12


def test_training_lowers_the_loss(result):
    for runs in result.runs.values():
        for run in runs:
            assert run.history[-1]["train_loss"] < run.history[0]["train_loss"]


def test_progress_counts_to_the_end(events, result):
    assert [event.done for event in events] == list(range(1, len(events) + 1))
    assert events[-1].done == events[-1].total


def test_the_rate_is_the_best_on_validation_instances(result):
    for key, runs in result.runs.items():
        scores = result.tuning[key]
        assert set(scores) == set(SMALL.learning_rates)
        best = max(scores, key=lambda rate: (scores[rate], -rate))
        assert {run.task.learning_rate for run in runs} == {best}


def test_a_single_rate_is_taken_without_training_to_choose_it(pair):
    events: list = []
    config = dataclasses.replace(
        SMALL, learning_rates=(2e-2,), seeds=(0,), epochs=1, regions=8, test_regions=8
    )
    result = matching.train(config, pair, progress=events.append)
    assert len(events) == 2 * len(matching.TRAINED)
    assert {event.task.stage for event in events} == {"final"}
    assert {event.task.learning_rate for event in events} == {2e-2}
    text = report(result, [])
    assert "Learning rate of every arm: 0.02, given, not chosen" in text
    assert "validation F1" not in text
    assert "nan" not in text


def test_numbers_depend_on_the_seed_alone_and_survive_an_interruption(problems, result, tmp_path):
    wanted = result.runs["graphs", "projection"][1]
    task = wanted.task
    assert (task.arm, task.stage, task.seed) == ("graphs-projection", "final", 1)
    calls = []

    class Stopped(Exception):
        pass

    original = model.evaluate

    def failing(*arguments, **keywords):
        calls.append(1)
        if len(calls) > 4:  # within the last epoch
            raise Stopped
        return original(*arguments, **keywords)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "evaluate", failing)
        with pytest.raises(Stopped):
            model.run(problems, task, str(tmp_path))
    assert list(tmp_path.iterdir())
    with ThreadPoolExecutor(1) as executor:
        again = executor.submit(model.run, problems, task, str(tmp_path)).result()
    np.testing.assert_array_equal(again.test.scores, wanted.test.scores)
    assert again.history == wanted.history
    other = model.run(problems, dataclasses.replace(task, seed=9))
    assert other.history != wanted.history


# -- results --------------------------------------------------------------------------------------


def test_results_have_the_promised_form(folder):
    found = json.loads((folder / "results.json").read_text())
    assert list(found) == ["command", "versions", "arms"]
    assert "scikit-image" in found["versions"]
    assert list(found["arms"]) == [*matching.ARMS, *(f"graphs-{arm}" for arm in matching.ARMS)]
    for name, arm in found["arms"].items():
        assert list(arm) == ["train", "test", "seeds"]
        assert {"f1", "violation"} <= set(arm["test"])
        trained = name.removeprefix("graphs-") in matching.TRAINED
        assert len(arm["seeds"]) == (2 if trained else 0)
        if trained:
            assert {"loss", "seconds", "memory"} <= set(arm["train"])
            first, second = (row["test"]["f1"] for row in arm["seeds"])
            assert_close(arm["test"]["f1"], (first + second) / 2, "agree")
            assert_close(arm["test"]["f1_se"], abs(first - second) / 2, "agree")
    assert {"dead_fraction", "mean_rank"} <= set(found["arms"]["projection"]["test"])


def test_the_folder_is_complete(folder):
    names = {path.name for path in folder.iterdir()}
    pictures = {"f1.png", "matches.png", "sweeps.png", "loss.png", "rank.png"}
    assert names == pictures | {"report.md", "results.json", "details.json"}
    text = (folder / "report.md").read_text(encoding="utf-8")
    for name in pictures:
        assert f"]({name})" in text
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    assert "(synthetic)" in text
    for claim in ("lower training loss", "smaller violation", "less time", "less memory"):
        assert f"*{claim}*: **" in text


def test_the_report_says_plainly_who_wins(result):
    def shifted(by: float):
        runs = {
            key: [
                dataclasses.replace(
                    run, test=dataclasses.replace(run.test, scores=run.test.scores + by)
                )
                if key == ("graphs", "softmax")
                else run
                for run in found
            ]
            for key, found in result.runs.items()
        }
        return dataclasses.replace(result, runs=runs)

    lost, won = shifted(5.0), shifted(-5.0)
    assert compare(lost, "graphs", "softmax").outcome() == "loses"
    assert compare(won, "graphs", "softmax").outcome() == "wins"
    assert compare(won, "graphs", "projection").outcome() == "undecided"
    lines = report(lost, []).splitlines()
    assert "softmax rows" in next(line for line in lines if line.startswith("**Where it loses"))


# -- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"matches": 7}, "5 left and 6 right keypoints have at most 5 matches; matches is 7"),
        ({"m": 2}, "m must be a whole number of at least 4"),
        ({"loss": "hinge"}, "loss must be one of bce, frobenius"),
        ({"delta": 1.0}, "delta must lie in"),
        ({"seeds": (7,)}, "seeds and tuning_seeds must differ"),
    ],
)
def test_settings_that_cannot_be_used(changes, sentence):
    with pytest.raises(InputError, match=sentence) as caught:
        dataclasses.replace(SMALL, **changes)
    assert_one_sentence(caught.value)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda a, b, d: (np.full_like(a, 0.5), b, d), "the left image of .* is constant"),
        (lambda a, b, d: (a, b[:-1], d), "must have one size"),
        (lambda a, b, d: (a[:20], b, d), "at least 64 pixels"),
        (lambda a, b, d: (a, b, d[:, :-1]), "the disparity of .* has the shape"),
        (lambda a, b, d: (a, b, -d), "holds no positive number"),
        (lambda a, b, d: (np.where(a > 0.9, np.nan, a), b, d), "no finite number at row"),
    ],
)
def test_pairs_that_cannot_be_used(change, sentence):
    with pytest.raises(InputError, match=sentence) as caught:
        matching.checked_pair(*change(*scenery()))
    assert_one_sentence(caught.value)


def test_images_with_too_few_keypoints_or_matches_are_refused(pair):
    left, right, disparity = scenery()
    flat = 0.5 + 0.01 * left
    with pytest.raises(InputError, match="too little contrast") as caught:
        regions.make_scene(matching.checked_pair(flat, right, disparity), 5, 6, 2.0)
    assert_one_sentence(caught.value)
    with pytest.raises(InputError, match=r"has \d+ keypoints, too few") as caught:
        regions.make_scene(pair, 500, 500, 2.0)
    assert_one_sentence(caught.value)
    wrong = matching.checked_pair(left, right, np.full(left.shape, 250.0))
    with pytest.raises(InputError, match="true matches, too few") as caught:
        regions.make_scene(wrong, 5, 6, 2.0)
    assert_one_sentence(caught.value)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--pair", "absent.png", "b.png", "--disparity", "d.npy"], "absent.png does not exist."),
        (["--pair", "a.png", "b.png"], "needs --disparity"),
        (["--disparity", "d.npy"], "give --pair."),
        (["--pair", "text.png", "b.png", "--disparity", "d.npy"], "cannot be read as an image."),
        (["--pair", "a.png", "b.png", "--disparity", "text.npy"], "as an array of numbers."),
        (["--keypoints", "5", "6", "--matches", "9"], "have at most 5 matches; matches is 9."),
        (["--rates", "0.1;0.2"], "--rates must be numbers with commas between them"),
        (["--seeds", "0"], "--seeds must lie between 1 and 1000; got 0."),
    ],
)
def test_bad_input_ends_in_one_sentence(capsys, tmp_path, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    from skimage.io import imsave

    left, right, disparity = scenery()
    for name, image in (("a.png", left), ("b.png", right)):
        imsave(name, (255 * image).astype(np.uint8), check_contrast=False)
    np.save("d.npy", disparity)
    for name in ("text.png", "text.npy"):
        (tmp_path / name).write_text("no picture")
    assert cli.main(["train", "matching", "--quick", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("hsref: ")
    assert sentence in captured.err
    assert captured.err.count("\n") == 1
    assert not (tmp_path / "hsref-matching").exists()


def test_an_own_pair_is_read_and_an_interruption_says_how_to_go_on(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    from skimage.io import imsave

    left, right, disparity = scenery()
    imsave("a.png", (255 * left).astype(np.uint8), check_contrast=False)
    imsave("b.png", (255 * right).astype(np.uint8), check_contrast=False)
    np.savez("d.npz", disparity)
    seen = []

    def stop(config, pair, **keywords):
        seen.append(pair)
        raise KeyboardInterrupt

    monkeypatch.setattr(matching, "train", stop)
    arguments = ["--pair", "a.png", "b.png", "--disparity", "d.npz", "--keypoints", "5", "6"]
    assert cli.main(["train", "matching", "--quick", *arguments, "--out", "here"]) == 130
    assert capsys.readouterr().err == (
        "hsref: interrupted; the same command with --out here goes on from here.\n"
    )
    assert_close(seen[0].disparity, disparity, "agree")
    assert np.abs(seen[0].left - left).max() <= 1 / 255
