"""The portfolio application: score, references, training, report."""

from __future__ import annotations

import dataclasses
import json
import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from autograd import grad

from hsref.applications import (
    InputError,
    MissingExtraError,
    portfolio,
)
from hsref.applications import _common as common
from hsref.applications._training import Task
from hsref.applications.portfolio import model, references, windows
from hsref.applications.portfolio.config import make_problem
from hsref.applications.portfolio.report import compare, report
from portfolios import SMALL, frame, walk
from tolerances import assert_close, bound


@pytest.fixture(scope="module")
def prices() -> portfolio.Prices:
    return portfolio.prices_from_frame(frame(), "a random walk")


@pytest.fixture(scope="module")
def problem(prices):
    return make_problem(SMALL, prices)


@pytest.fixture(scope="module")
def events() -> list:
    return []


@pytest.fixture(scope="module")
def result(prices, events) -> portfolio.PortfolioResult:
    return portfolio.train(SMALL, prices, progress=events.append)


@pytest.fixture(scope="module")
def folder(result, tmp_path_factory):
    return result.save(tmp_path_factory.mktemp("out") / "deep" / "er", "hsref train portfolio")


# -- score and violation --------------------------------------------------------------------------


def test_sharpe_by_hand():
    weights = np.array([[0.5, 0.5], [1.0, 0.0]])
    mean = np.array([[0.10, 0.20], [0.08, 0.5]])
    covariance = np.array([[[0.04, 0.01], [0.01, 0.09]], [[0.0625, 0.0], [0.0, 1.0]]])
    # (0.15 - 0.03) / sqrt(0.25*0.04 + 0.25*0.09 + 2*0.25*0.01) and (0.08 - 0.03) / 0.25
    wanted = np.array([0.12 / np.sqrt(0.0375), 0.2])
    assert_close(model.sharpe(weights, mean, covariance, 0.03, 0.0), wanted, "agree")


def test_violation_by_hand(prices):
    problem = make_problem(dataclasses.replace(SMALL, cap=0.4), prices)
    weights = np.array(
        [
            [0.1, 0.3, 0.3, 0.1, 0.1, 0.1],  # feasible
            [0.25, 0.2, 0.2, 0.1, 0.1, 0.15],  # the group BB, CC holds 0.4
            [0.1, 0.3, 0.3, 0.1, 0.1, 0.0],  # sums to 0.9
            [-0.2, 0.4, 0.4, 0.2, 0.2, 0.0],  # short
            [0.0, 0.7, 0.1, 0.2, 0.0, 0.0],  # above the cap
        ]
    )
    wanted = np.array([0.0, 0.1, 0.1, 0.2, 0.3])
    assert_close(model.violation(weights, problem), wanted, "agree")


# -- references -----------------------------------------------------------------------------------


def test_mean_variance_agrees_with_skfolio(problem):
    from skfolio.optimization import MeanRisk, ObjectiveFunction

    start = int(problem.split.right[0])
    past = problem.returns[start - SMALL.past : start]
    peer = MeanRisk(
        objective_function=ObjectiveFunction.MAXIMIZE_RATIO,
        min_weights=0.0,
        risk_free_rate=0.03 / 252,
        left_inequality=-problem.group_mask[None, :].astype(float),
        right_inequality=np.array([-0.5]),
    ).fit(past)
    ours = references.mean_variance(problem, np.array([start]))[0]
    mean, covariance = (one[0] for one in windows.moments(past, np.array([0]), SMALL.past))

    def ratio(w: np.ndarray) -> float:
        return (w @ mean - 0.03) / np.sqrt(w @ covariance @ w)

    # an interior-point method stops at about 1e-8; the ratio is flat around its maximum
    assert ratio(ours) >= ratio(peer.weights_) * (1 - 1e-6)
    assert model.violation(ours[None], problem)[0] < 1e-7


def test_mean_variance_without_a_positive_excess_return_takes_the_least_variance():
    falling = portfolio.prices_from_frame(
        frame(walk()[::-1].copy() * np.exp(-0.01 * np.arange(260))[:, None])
    )
    problem = make_problem(SMALL, falling)
    starts = problem.split.right[:3]
    weights = references.mean_variance(problem, starts)
    _, covariance = windows.moments(problem.returns, starts - SMALL.past, SMALL.past)
    assert model.violation(weights, problem).max() < 1e-7
    rng = np.random.default_rng(0)
    others = model.hsref.project(rng.standard_normal((200, problem.n)), problem.constraints())
    for w, sigma in zip(weights, covariance):
        variances = np.einsum("ki,ij,kj->k", others, sigma, others)
        assert w @ sigma @ w <= variances.min() * (1 + 1e-6)


# -- model ----------------------------------------------------------------------------------------


def test_every_arm_starts_from_the_same_network(problem):
    nets = {arm: model.Model(problem, arm) for arm in portfolio.TRAINED}
    params = {arm: net.init(3) for arm, net in nets.items()}
    for arm in portfolio.TRAINED[1:]:
        for part in ("trunk", "forecast"):
            for ours, theirs in zip(params["projection"][part], params[arm][part]):
                np.testing.assert_array_equal(ours["W"], theirs["W"])
        np.testing.assert_array_equal(
            params["projection"]["portfolio"][0]["W"], params[arm]["portfolio"][0]["W"]
        )


@pytest.mark.parametrize("cap", [None, 0.35, 0.25])
def test_training_starts_in_the_relative_interior(prices, cap):
    problem = make_problem(dataclasses.replace(SMALL, cap=cap), prices)
    net = model.Model(problem, "projection")
    C = problem.constraints()
    rank = model.hsref.projection(net.start, C).rank
    assert rank == C.dim
    assert model.violation(net.start[None], problem)[0] <= bound("feasible")


@pytest.mark.parametrize("arm", portfolio.TRAINED)
def test_gradient_of_the_loss_is_that_of_differences(problem, arm):
    net = model.Model(problem, arm)
    left, _ = problem.examples("final")
    rows = left.take(np.arange(0, len(left), 12))
    params = net.init(0)
    direction = net.init(1)
    gradient = grad(net.loss)(params, rows)

    def leaves(tree):
        return [
            leaf
            for part in sorted(tree)
            for layer in tree[part]
            for _, leaf in sorted(layer.items())
        ]

    def moved(step: float):
        return {
            part: [
                {name: p[name] + step * d[name] for name in p}
                for p, d in zip(params[part], direction[part])
            ]
            for part in params
        }

    slope = sum(float(np.sum(g * d)) for g, d in zip(leaves(gradient), leaves(direction)))
    h = 1e-5
    difference = (net.loss(moved(h), rows) - net.loss(moved(-h), rows)) / (2 * h)
    assert abs(difference - slope) <= bound("smooth difference", np.array(slope))


@pytest.mark.parametrize("cap", [None, 0.35])
def test_the_extended_sinkhorn_layer_meets_the_constraints_in_the_limit(prices, cap):
    config = dataclasses.replace(SMALL, cap=cap, iterations=3000)
    net = model.Model(make_problem(config, prices), "linsat")
    weights = net.output(2.0 * np.random.default_rng(0).standard_normal((5, net.problem.n)))
    assert model.violation(weights, net.problem).max() < 1e-6
    # and not merely by giving everybody the same
    assert np.ptp(weights, axis=0).max() > 0.05


# -- training -------------------------------------------------------------------------------------


def test_projection_is_feasible_on_every_window_and_seed(result):
    for arm in ("projection", "train_then_project"):
        for run in result.seeds[arm]:
            for figures in (run.train, run.test):
                assert figures["violation"] <= 1e-12
            assert model.violation(run.weights, result.problem).max() <= 1e-12
    for run in result.seeds["projection"]:
        assert all(epoch["test_violation"] <= 1e-12 for epoch in run.history)
        assert run.history[0]["train_boundary_fraction"] < 0.5


def test_learning_rates_come_from_one_grid(result):
    for arm, scores in result.tuning.items():
        assert tuple(scores) == SMALL.learning_rates
        chosen = max(scores, key=scores.get)
        assert {run.learning_rate for run in result.seeds[arm]} == {chosen}
        assert [run.seed for run in result.seeds[arm]] == list(SMALL.seeds)


def test_training_lowers_the_loss(result):
    for arm in portfolio.TRAINED:
        for run in result.seeds[arm]:
            assert run.history[-1]["train_loss"] < run.history[0]["train_loss"]


def test_progress_counts_to_the_end(result, events):
    assert [event.done for event in events] == list(range(1, len(events) + 1))
    assert events[-1].done == events[-1].total


def test_numbers_depend_on_the_seed_alone(prices, result):
    with ThreadPoolExecutor(1) as executor:
        again = portfolio.train(SMALL, prices, executor=executor)
    for arm, runs in result.seeds.items():
        for before, after in zip(runs, again.seeds[arm]):
            np.testing.assert_array_equal(before.weights, after.weights)
            assert before.test == after.test
    other = model.run(result.problem, Task("projection", "final", 9, 1e-3))
    assert not np.array_equal(
        other.test["projection"].weights, result.seeds["projection"][0].weights
    )


def test_a_cap_is_held(prices):
    config = dataclasses.replace(SMALL, cap=0.3, seeds=(0,), learning_rates=(1e-2,))
    weights = portfolio.train(config, prices).seeds["projection"][0].weights
    assert weights.max() <= 0.3 + 1e-12
    assert weights[:, 1:3].sum(axis=1).min() >= 0.5 - 1e-12


# -- results --------------------------------------------------------------------------------------


def test_results_have_the_promised_form(folder):
    found = json.loads((folder / "results.json").read_text())
    assert list(found) == ["command", "versions", "arms"]
    assert {"python", "numpy", "hsref"} <= set(found["versions"])
    assert tuple(found["arms"]) == portfolio.ARMS
    for name, arm in found["arms"].items():
        assert list(arm) == ["train", "test", "seeds"]
        assert {"sharpe", "violation"} <= set(arm["test"])
        assert {"sharpe", "violation", "seconds"} <= set(arm["train"])
        assert len(arm["seeds"]) == (0 if name in ("equal_weight", "mean_variance") else 2)
    ours = found["arms"]["projection"]
    assert ours["test"]["violation"] <= 1e-12
    assert {"dead_fraction", "mean_rank", "boundary_fraction"} <= set(ours["test"])
    mean = np.mean([row["test"]["sharpe"] for row in ours["seeds"]])
    assert_close(ours["test"]["sharpe"], mean, "agree")
    assert len(ours["seeds"][0]["history"]) == SMALL.epochs + 1
    # two seeds: the standard error is half their distance
    first, second = (row["test"]["sharpe"] for row in ours["seeds"])
    assert_close(ours["test"]["sharpe_se"], abs(first - second) / 2, "agree")


def test_the_folder_is_complete(folder, result):
    names = {path.name for path in folder.iterdir()}
    pictures = {"loss.png", "sharpe.png", "violation.png", "weights.png"}
    assert names == pictures | {"report.md", "results.json", "details.json"}
    text = (folder / "report.md").read_text(encoding="utf-8")
    for name in pictures:
        assert f"]({name})" in text
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    periods = len(result.independent())
    assert f"only {periods} of them share no day" in text
    assert "hsref train portfolio" in text


def test_independent_periods_share_no_day(result):
    starts = result.problem.split.right[result.independent()]
    assert np.diff(starts).min() >= SMALL.future
    assert len(starts) == -(-len(result.problem.split.right) // SMALL.future)


def with_sharpe(result, arm: str, shift: float):
    """Return the result with `shift` added to every test ratio of one trained arm."""
    runs = [
        dataclasses.replace(
            run,
            test=run.test | {"sharpe": run.test["sharpe"] + shift},
            ratios=run.ratios + shift,
        )
        for run in result.seeds[arm]
    ]
    return dataclasses.replace(result, seeds=result.seeds | {arm: runs})


def test_the_report_says_plainly_who_wins(result):
    assert (
        report(with_sharpe(result, "projection", 50.0), [])
        .splitlines()[2]
        .startswith("**Who wins.** Projection trained through the HS-Jacobian has the highest")
    )
    lost = with_sharpe(result, "softmax", 50.0)
    first = report(lost, []).splitlines()[2]
    assert first.startswith("**Who wins.** Not projection")
    assert "the highest is that of softmax" in first
    assert "breaks the constraints" in first
    assert compare(lost, "softmax").mean < -40.0


def test_a_verdict_claims_no_more_than_the_numbers_carry(result):
    same = dataclasses.replace(result, seeds=result.seeds | {"softmax": result.seeds["projection"]})
    assert "no difference" in compare(same, "softmax").verdict()
    ahead = dataclasses.replace(compare(result, "softmax"), mean=0.1, period_mean=0.1)
    clear = dataclasses.replace(ahead, seeds_clear=True, periods_clear=True)
    assert "ahead of" in clear.verdict()
    assert "too few" in dataclasses.replace(clear, periods_clear=False).verdict()
    assert "no difference" in dataclasses.replace(ahead, seeds_clear=False).verdict()


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "results.json"
    common.write_json(path, {"a": 1})

    def fail(temporary):
        temporary.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        common.write_atomically(path, fail)
    assert json.loads(path.read_text()) == {"a": 1}
    assert [one.name for one in tmp_path.iterdir()] == ["results.json"]


def test_a_fresh_folder_is_a_new_one(tmp_path):
    names = [common.fresh_folder(tmp_path, "run").name for _ in range(3)]
    assert names == ["run", "run-2", "run-3"]


def test_an_unusable_folder_gets_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file, not a folder"):
        common.check_folder(tmp_path / "file" / "deeper")


def test_a_missing_package_names_the_extra():
    with pytest.raises(MissingExtraError, match=re.escape("pip install 'hsref[apps]'")):
        common.need("hsref_no_such_package.datasets")
