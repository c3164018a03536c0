"""The portfolio application: score, references, training, report."""

from __future__ import annotations

import dataclasses
import json
import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from autograd import grad, make_vjp

from hsref.applications import (
    InputError,
    MissingExtraError,
    portfolio,
)
from hsref.applications import _common as common
from hsref.applications._entropic import Sums, extended_sinkhorn
from hsref.applications.portfolio import conic, costs, model, references, running, training
from hsref.applications.portfolio.claims import claims, compare
from hsref.applications.portfolio.config import STUDY, PortfolioTask
from hsref.applications.portfolio.linsat import Families, linsat
from hsref.applications.portfolio.problem import make_problem
from hsref.applications.portfolio.realised import sharpe
from hsref.applications.portfolio.report import report
from portfolios import SMALL, frame, walk
from tolerances import assert_close, bound


@pytest.fixture(scope="module")
def prices() -> portfolio.Prices:
    return portfolio.prices_from_frame(frame(), "a random walk")


@pytest.fixture(scope="module")
def problem(prices):
    return make_problem(SMALL, prices)


SECTORED = dataclasses.replace(SMALL, sector_cap=0.25)
TRADING = dataclasses.replace(SMALL, group=None, turnover=0.3)


@pytest.fixture(scope="module")
def sectors(prices):
    kinds = ("one", "two", "two", "one", "three", "three")
    return make_problem(SECTORED, dataclasses.replace(prices, sectors=kinds))


@pytest.fixture(scope="module")
def trade(prices):
    return make_problem(TRADING, prices)


@pytest.fixture(scope="module")
def mandates(problem, sectors, trade):
    return {"budget": problem, "sectors": sectors, "trade": trade}


KINDS = ("budget", "sectors", "trade")


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
    market = np.array([[0.5, 0.001, 0.003, 0.0, 9.0], [0.5, 0.003, 0.001, 0.004, 9.0]])
    weights = np.array([[0.5, 0.5], [1.0, 0.0]])
    # days 1 and 2: the first portfolio earns 0.002 twice, the second 0.001 and 0.003
    found = sharpe(weights, market, np.array([1, 1]), 2, 0.03, 1e-4)
    wanted = np.array(
        [(252 * 0.002 - 0.03) / 0.01, (252 * 0.002 - 0.03) / np.sqrt(252 * 2e-6 + 1e-4)]
    )
    assert_close(found, wanted, "agree")


def test_sharpe_is_that_of_the_sample_moments(problem):
    _, right = problem.examples("final")
    weights = np.random.default_rng(0).dirichlet(np.ones(problem.n), len(right))
    found = model.earned_ratio(weights, right, problem)
    for row in (0, len(right) - 1):
        days = problem.returns[right.starts[row] :][: SMALL.future]
        mean, w = 252 * days.mean(axis=0), weights[row]
        wanted = (mean @ w - 0.03) / np.sqrt(w @ (252 * np.cov(days.T)) @ w + 1e-8)
        assert_close(found[row], wanted, "agree")


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
    assert_close(problem.mandate.violation(weights, np.arange(5)), wanted, "agree")


def test_violation_of_a_sector_cap_and_of_a_turnover_bound_by_hand(sectors, trade):
    weights = np.array([[0.2, 0.3, 0.2, 0.1, 0.2, 0.0], [0.0, 0.25, 0.25, 0.2, 0.15, 0.15]])
    # AA and DD hold 0.3 and 0.2, EE and FF 0.2 and 0.3; the cap is 0.25
    assert_close(sectors.mandate.violation(weights, np.arange(2)), np.full(2, 0.05), "agree")
    assert_close(sectors.mandate.shortfall(weights, np.arange(2)), np.full(2, 0.05), "agree")
    starts = trade.split.right[:2]
    held = trade.mandate.previous(starts)
    value = np.prod(1.0 + trade.returns[starts[0] - SMALL.past : starts[0]], axis=0)
    assert_close(held[0], value / value.sum(), "agree")
    traded = np.abs(weights - held).sum(axis=1)
    assert_close(trade.mandate.violation(weights, starts), traded - 0.3, "agree")
    assert trade.mandate.violation(held, starts).max() <= bound("feasible")


# -- references -----------------------------------------------------------------------------------


def test_mean_variance_agrees_with_skfolio(problem):
    from skfolio.optimization import MeanRisk, ObjectiveFunction

    start = int(problem.split.right[0])
    past = problem.returns[start - SMALL.past : start]
    peer = MeanRisk(
        objective_function=ObjectiveFunction.MAXIMIZE_RATIO,
        min_weights=0.0,
        risk_free_rate=0.03 / 252,
        left_inequality=-problem.mandate.group[None, :].astype(float),
        right_inequality=np.array([-0.5]),
    ).fit(past)
    ours = references.mean_variance(problem, np.array([start]))[0]
    mean, covariance = 252 * past.mean(axis=0), 252 * np.cov(past.T)

    def ratio(w: np.ndarray) -> float:
        return (w @ mean - 0.03) / np.sqrt(w @ covariance @ w)

    # an interior-point method stops at about 1e-8; the ratio is flat around its maximum
    assert ratio(ours) >= ratio(peer.weights_) * (1 - 1e-6)
    assert problem.mandate.violation(ours[None], np.array([start]))[0] < 1e-7


def test_mean_variance_without_a_positive_excess_return_takes_the_least_variance():
    falling = portfolio.prices_from_frame(
        frame(walk()[::-1].copy() * np.exp(-0.01 * np.arange(260))[:, None])
    )
    problem = make_problem(SMALL, falling)
    starts = problem.split.right[:3]
    weights = references.mean_variance(problem, starts)
    assert problem.mandate.violation(weights, starts).max() < 1e-7
    rng = np.random.default_rng(0)
    others = model.hsref.project(rng.standard_normal((200, problem.n)), problem.constraints())
    for w, start in zip(weights, starts):
        sigma = np.cov(problem.returns[start - SMALL.past : start].T)
        variances = np.einsum("ki,ij,kj->k", others, sigma, others)
        assert w @ sigma @ w <= variances.min() * (1 + 1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_no_portfolio_of_the_mandate_beats_mean_variance_on_the_past(mandates, kind):
    problem = mandates[kind]
    starts = problem.split.right[:6]
    weights = references.mean_variance(problem, starts)
    assert problem.mandate.violation(weights, starts).max() < 1e-7
    rng = np.random.default_rng(0)
    for w, start in zip(weights, starts):
        days = problem.returns[start - SMALL.past : start]
        mean, sigma = 252 * days.mean(axis=0) - 0.03, 252 * np.cov(days.T)
        data = {name: one[0] for name, one in problem.mandate.data(np.array([start])).items()}
        wished = w + rng.standard_normal((300, problem.n)) * 10.0 ** rng.uniform(-3, 1, (300, 1))
        others = model.hsref.project(wished, problem.constraints(), **data)
        earned = others @ mean
        if (w @ mean) > 0.0:
            ratios = earned / np.sqrt(np.einsum("ki,ij,kj->k", others, sigma, others))
            assert w @ mean / np.sqrt(w @ sigma @ w) >= ratios.max() * (1 - 1e-5)
        else:
            assert earned.max() <= 1e-7


# -- model ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_arm_starts_from_the_same_network_near_one_portfolio(mandates, kind):
    problem = mandates[kind]
    left, _ = problem.examples("final")
    rows = left.take(np.arange(3))
    nets = {arm: model.Model(problem, arm) for arm in problem.trained}
    params = {arm: net.init(3) for arm, net in nets.items()}
    anchor = np.broadcast_to(problem.mandate.anchor(rows.starts), (3, problem.n))
    for arm, net in nets.items():
        for part in params[arm]:
            for ours, theirs in zip(params["projection"][part], params[arm][part]):
                np.testing.assert_array_equal(ours["W"], theirs["W"])
                np.testing.assert_array_equal(ours["b"], theirs["b"])
        if arm in ("projection", "softmax_penalty", "scaled_trade"):
            weights = net.output(np.zeros((3, problem.n)), rows.starts)
            assert_close(weights, anchor, "agree")


@pytest.mark.parametrize("cap", [None, 0.35, 0.25])
@pytest.mark.parametrize("sector_cap", [None, 0.3])
def test_training_starts_in_the_relative_interior(sectors, prices, cap, sector_cap):
    config = dataclasses.replace(SMALL, cap=cap, sector_cap=sector_cap)
    kinds = ("one", "two", "two", "one", "three", "three")
    problem = make_problem(config, dataclasses.replace(prices, sectors=kinds))
    start = problem.mandate.anchor(np.arange(1))
    C = problem.constraints()
    assert model.hsref.projection(start, C).rank == C.dim
    assert problem.mandate.violation(start[None], np.arange(1))[0] <= bound("feasible")


def leaves(tree):
    return [
        leaf for part in sorted(tree) for layer in tree[part] for _, leaf in sorted(layer.items())
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", range(4))
def test_gradient_of_the_loss_is_that_of_differences(mandates, kind, place):
    problem = mandates[kind]
    net = model.Model(problem, problem.trained[place], penalty=3.0)
    left, _ = problem.examples("final")
    rows = left.take(np.arange(0, len(left), 12))
    params = net.init(0)
    direction = net.init(1)
    gradient = grad(net.loss)(params, rows)

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
@pytest.mark.parametrize("kind", ["budget", "sectors"])
def test_the_extended_sinkhorn_layer_meets_the_constraints_in_the_limit(mandates, kind, cap):
    mandate = dataclasses.replace(mandates[kind].mandate, cap=cap)
    scores = 2.0 * np.random.default_rng(0).standard_normal((5, mandate.n))
    weights = mandate.compete(scores, np.arange(5), 3000)
    assert mandate.violation(weights, np.arange(5)).max() < 1e-6
    # and not merely by giving everybody the same
    assert np.ptp(weights, axis=0).max() > 0.05


@pytest.mark.parametrize("iterations", [1, 2, 7])
def test_the_compiled_layer_is_the_plain_one(iterations):
    n, rng = 7, np.random.default_rng(0)
    sector, others = np.array([0, 1, 0, -1, 1, 2, 2]), np.array([0, 0, -1, -1, 0, 0, 0])
    limits = (0.3, 0.4, 0.5)
    families = Families.of(
        [
            (np.arange(n), np.full(n, 0.4), False),
            (sector, np.array(limits), False),
            (others, np.array([0.5]), False),
            (np.zeros(n, dtype=int), np.ones(1), True),
        ]
    )
    sums = (
        Sums((), np.full(1, 0.4)),
        *(Sums((-1,), np.array([b]), members=sector == k) for k, b in enumerate(limits)),
        Sums((-1,), np.array([0.5]), members=others == 0),
        Sums((-1,), np.ones(1), equality=True),
    )
    scores, g = 2.0 * rng.standard_normal((4, n)), rng.standard_normal((4, n))
    pull, ours = make_vjp(lambda s: linsat(s, families, iterations))(scores)
    plain_pull, plain = make_vjp(lambda s: extended_sinkhorn(s, sums, iterations))(scores)
    assert_close(ours, plain, "agree")
    assert_close(pull(g), plain_pull(g), "agree")


def test_a_scaled_trade_keeps_its_direction(trade):
    mandate, starts = trade.mandate, trade.split.right[:4]
    scores = np.array([0.01, 0.1, 1.0, 5.0])[:, None] * np.arange(trade.n)
    weights, held = mandate.compete(scores, starts, 0), mandate.previous(starts)
    wished = held * np.exp(scores)
    wished /= wished.sum(axis=1, keepdims=True)
    wanted, moved = wished - held, weights - held
    sizes = np.abs(moved).sum(axis=1)
    assert_close(sizes, np.minimum(np.abs(wanted).sum(axis=1), 0.3), "agree")
    assert sizes[0] < 0.3 < np.abs(wanted[-1]).sum()
    factor = sizes / np.abs(wanted).sum(axis=1)
    assert_close(moved, factor[:, None] * wanted, "agree")


# -- training -------------------------------------------------------------------------------------


def test_projection_is_feasible_on_every_window_and_seed(result):
    for arm in ("projection", "train_then_project"):
        for run in result.seeds[arm]:
            for figures in (run.train, run.test):
                assert figures["violation"] <= 1e-12
            starts = result.problem.split.right
            assert result.problem.mandate.violation(run.weights, starts).max() <= 1e-12
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
    other = running.run(result.problem, PortfolioTask("projection", "final", 9, 1e-3))
    assert not np.array_equal(
        other.test["projection"].weights, result.seeds["projection"][0].weights
    )


def test_a_cap_is_held(prices):
    config = dataclasses.replace(SMALL, cap=0.3, seeds=(0,), learning_rates=(1e-2,))
    weights = portfolio.train(config, prices).seeds["projection"][0].weights
    assert weights.max() <= 0.3 + 1e-12
    assert weights[:, 1:3].sum(axis=1).min() >= 0.5 - 1e-12


def test_an_interrupted_run_ends_with_the_same_numbers(prices, result, tmp_path):
    seen = []

    def stop(event):
        seen.append(event.task)
        if len(seen) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        portfolio.train(SMALL, prices, progress=stop, checkpoints=tmp_path)
    kept = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(kept) == 5
    again = portfolio.train(SMALL, prices, checkpoints=tmp_path)
    for arm, runs in result.seeds.items():
        for before, after in zip(runs, again.seeds[arm]):
            np.testing.assert_array_equal(before.weights, after.weights)
            assert before.history == after.history
    # and what was finished was not trained again
    assert all((tmp_path / name).stat().st_mtime_ns == kept[name] for name in kept)


@pytest.mark.parametrize("kind", ["sectors", "trade"])
def test_the_other_mandates_are_held_exactly_and_reported(mandates, prices, kind, tmp_path):
    problem = mandates[kind]
    config = dataclasses.replace(
        problem.config, seeds=(0, 1), learning_rates=(1e-2,), penalties=(10.0,), epochs=1
    )
    kinds = ("one", "two", "two", "one", "three", "three")
    found = portfolio.train(config, dataclasses.replace(prices, sectors=kinds))
    starts = problem.split.right
    for arm in ("projection", "train_then_project"):
        for run in found.seeds[arm]:
            assert problem.mandate.violation(run.weights, starts).max() <= 1e-12
    text = (found.save(tmp_path) / "report.md").read_text(encoding="utf-8")
    assert problem.mandate.sentence(problem.tickers) in text
    names = {path.name for path in tmp_path.iterdir()}
    assert ("turnover.png" if kind == "trade" else "weights.png") in names
    rival = "scaled trade" if kind == "trade" else "LinSAT-style"
    assert f"| {rival} |" in text


def test_the_study_shows_where_projections_die(prices, tmp_path):
    config = dataclasses.replace(
        SMALL, study=True, temperatures=(1e-3, 1.0), scales=(1.0, 1e4), study_seeds=(0, 5),
        seeds=(0,), learning_rates=(1e-3,), penalties=(10.0,),
    )  # fmt: skip
    found = portfolio.train(config, prices)
    cells = {(temperature, scale): rows for temperature, scale, rows in found.study}
    assert list(cells) == [(1e-3, 1.0), (1e-3, 1e4), (1.0, 1.0), (1.0, 1e4)]
    assert all(sorted(row["seed"] for row in rows) == [0, 5] for rows in cells.values())
    # scale 1 starts inside at any temperature, a large one at vertices
    for temperature in (1e-3, 1.0):
        assert cells[temperature, 1.0][0]["start_dead"] == 0.0
        assert cells[temperature, 1e4][0]["start_dead"] > 0.5
    ours = cells[1.0, 1.0][0]
    assert ours["test_sharpe"] == found.seeds["projection"][0].test["sharpe"]
    text = (found.save(tmp_path) / "report.md").read_text(encoding="utf-8")
    assert "| 0.001 n | 10000 |" in text
    assert (tmp_path / "dead.png").read_bytes().startswith(b"\x89PNG")
    task = PortfolioTask("projection", STUDY, 0, 1e-3, 0.0, 1.0, 1.0)
    assert running.run(found.problem, task).test["projection"].weights.size == 0


def test_hundreds_of_stocks_take_no_covariance_matrices():
    prices = portfolio.synthetic_prices(300, days=400)
    config = dataclasses.replace(SMALL, group=None, sector_cap=0.15, epochs=1)
    problem = make_problem(config, prices)
    # one matrix a window of a batch would be 46 MB, and of all windows 200 MB
    for arm in problem.trained:
        step, _ = costs.actions(problem, arm, np.arange(SMALL.batch_size))
        step()
        assert costs.allocated(step) < 20e6


# -- results --------------------------------------------------------------------------------------


def test_results_have_the_promised_form(folder):
    found = json.loads((folder / "results.json").read_text())
    assert list(found) == ["command", "versions", "arms"]
    assert {"python", "numpy", "hsref"} <= set(found["versions"])
    assert tuple(found["arms"]) == portfolio.ARMS
    for name, arm in found["arms"].items():
        assert list(arm)[:3] == ["train", "test", "seeds"]
        assert {"sharpe", "violation"} <= set(arm["test"])
        assert {"sharpe", "violation", "seconds"} <= set(arm["train"])
        assert ("cost" in arm) == (name in portfolio.TRAINED)
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


def test_claims_follow_the_numbers(result):
    found = {one.claim: one for one in claims(result)}
    assert list(found) == ["lower training loss", "smaller violation", "less time", "less memory"]
    assert {one.verdict for one in found.values()} <= {"supported", "mixed", "not supported"}
    text = report(result, [])
    for one in found.values():
        assert f"| {one.claim} | **{one.verdict}** |" in text
    cheap = dataclasses.replace(
        result.costs,
        arms={
            name: cost | {"step_seconds": 1.0 + (name != "projection")}
            for name, cost in result.costs.arms.items()
        },
    )
    changed = dataclasses.replace(result, costs=cheap, conic=None)
    assert {one.claim: one.verdict for one in claims(changed)}["less time"] == "supported"
    assert "cvxpylayers is not installed" in report(changed, [])
    row = {"step_seconds": 0.1, "bytes": 1.0, "loss": 0.0, "violation": 1e-6}
    pair = {"windows": 4, "steps": 2, "projection": row, "cvxpylayers": row, "difference": 1e-7}
    with_peer = dataclasses.replace(changed, conic=pair)
    assert {one.claim: one.verdict for one in claims(with_peer)}["less time"] == "mixed"
    assert "took 2 steps of 4 windows with either layer" in report(with_peer, [])


@pytest.mark.skipif(not conic.installed(), reason="needs cvxpylayers")
@pytest.mark.parametrize("kind", KINDS)
def test_a_conic_layer_finds_the_same_weights(mandates, kind):
    found = conic.measure_conic(mandates[kind], 1e-3, steps=2)
    assert found is not None
    assert found["difference"] < 1e-4
    assert abs(found["projection"]["loss"] - found["cvxpylayers"]["loss"]) < 1e-3


def test_a_price_and_a_rate_are_chosen_together(problem):
    tasks = training.tuning_tasks(problem)
    paying = [task for task in tasks if task.arm == "softmax_penalty"]
    assert {task.penalty for task in paying} == set(SMALL.penalties)
    best = paying[-1]
    scored = [
        running.Run(task, {task.arm: float(task == best)}, {}, {}, [], 0.0, 0) for task in tasks
    ]
    chosen = training.choose(problem, tasks, scored)
    network = chosen.networks["softmax_penalty"]
    assert (network.rate, network.penalty) == (best.learning_rate, best.penalty)
    assert chosen.tuning["softmax_penalty"] == chosen.penalties[best.penalty]


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
