"""The data of the portfolio application: prices, settings, windows."""

from __future__ import annotations

import dataclasses
import re
import socket

import numpy as np
import pytest

from hsref.applications import (
    InputError,
    portfolio,
)
from hsref.applications.portfolio.problem import make_problem
from hsref.applications.portfolio.realised import daily_returns
from portfolios import SMALL, TICKERS, assert_one_sentence, frame, walk
from tolerances import assert_close


@pytest.fixture(scope="module")
def prices() -> portfolio.Prices:
    return portfolio.prices_from_frame(frame(), "a random walk")


@pytest.fixture(scope="module")
def problem(prices):
    return make_problem(SMALL, prices)


# -- prices ---------------------------------------------------------------------------------------


def test_default_prices_need_no_network(monkeypatch):
    def refuse(*args, **keywords):
        raise OSError("the network is off")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    loaded = portfolio.load_prices()
    assert loaded.values.shape == (8313, 20)
    assert {"AAPL", "AMD", "MSFT"} <= set(loaded.tickers)
    assert (loaded.dates[0], loaded.dates[-1]) == ("1990-01-02", "2022-12-28")
    assert not loaded.values.flags.writeable


def test_a_file_in_any_order_gives_the_same_prices(tmp_path, prices):
    path = tmp_path / "prices.csv"
    frame().iloc[::-1].to_csv(path)
    loaded = portfolio.load_prices(path)
    assert loaded.dates == prices.dates
    assert loaded.tickers == TICKERS
    np.testing.assert_array_equal(loaded.values, prices.values)


HEAD = "date,AA,BB\n"
GOOD = "2001-01-01,1,2\n2001-01-02,2,3\n"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty"),
        (HEAD, "has a header but no prices"),
        ("date;AA;BB\n2001-01-01;1;2\n", "single column"),
        ("date,AA\n2001-01-01,1\n", "at least two are needed"),
        ("date,AA,AA\n2001-01-01,1,2\n", "the ticker AA occurs twice"),
        ("date,AA,\n2001-01-01,1,2\n", "column 3 of .* has no ticker"),
        (HEAD + GOOD + "2001-01-02,3,4\n", "the date 2001-01-02 occurs twice"),
        (HEAD + GOOD + "soon,3,4\n", "row 3 holds 'soon'"),
        (HEAD + "1,1,2\n2,3,4\n", "must hold dates"),
        (HEAD + GOOD + "2001-01-03,,4\n", "price of AA on 2001-01-03 is missing"),
        (HEAD + GOOD + "2001-01-03,NaN,n/a\n", r"is missing .* \(and 1 more entries\)"),
        (HEAD + GOOD + "2001-01-03,3,four\n", "BB on 2001-01-03 is 'four'"),
        (HEAD + GOOD + "2001-01-03,3,inf\n", "BB on 2001-01-03 is 'inf'"),
        (HEAD + GOOD + "2001-01-03,0,4\n", "AA on 2001-01-03 is 0 .* must be positive"),
        (HEAD + "2001-01-01,1,2\n2001-01-02,1,3\n", "price of AA never changes"),
        (HEAD + "2001-01-01,1,2,3,4,5\n", "cannot be read as CSV|single|missing|ticker|dates"),
    ],
)
def test_an_unusable_file_gets_one_sentence(tmp_path, text, sentence):
    path = tmp_path / "prices.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=sentence) as caught:
        portfolio.load_prices(path)
    assert_one_sentence(caught.value)


def test_a_file_that_is_none_gets_one_sentence(tmp_path):
    binary = tmp_path / "prices.csv"
    binary.write_bytes(bytes(range(128, 256)) * 9)
    for path, sentence in (
        (tmp_path / "absent.csv", "does not exist"),
        (tmp_path, "is a folder"),
        (binary, "cannot be read as CSV"),
    ):
        with pytest.raises(InputError, match=sentence) as caught:
            portfolio.load_prices(path)
        assert_one_sentence(caught.value)


def test_a_frame_without_dates_is_refused():
    with pytest.raises(InputError, match="must hold dates"):
        portfolio.prices_from_frame(frame().reset_index(drop=True))


# -- configuration --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"group": ("BB", "ZZ")}, "the group names ZZ, which is not among the tickers AA, BB"),
        ({"group": ()}, "the preferred group is empty"),
        ({"cap": 0.1}, "6 stocks capped at 0.1 hold at most 0.6, not 1"),
        ({"cap": 0.2}, "2 stocks of the group capped at 0.2 hold at most 0.4, not 0.5"),
        ({"past": 200}, "too few for a .* at least .* are needed"),
        ({"at_least": 1.5}, r"at_least must lie in \[0, 1\]; got 1.5"),
        ({"at_least": float("nan")}, "at_least must lie"),
        ({"cap": 0.0}, r"cap must lie in \(0, 1\]"),
        ({"epochs": 0}, "epochs must be a whole number of at least 1; got 0"),
        ({"pool": 7}, "pool must divide past"),
        ({"seeds": ()}, "seeds must hold at least one"),
        ({"seeds": (7,)}, "seeds and tuning_seeds must differ"),
        ({"seeds": (-1,)}, "not negative"),
        ({"learning_rates": (0.0,)}, "must be positive"),
        ({"hidden": ()}, "hidden must hold"),
        ({"penalties": ()}, "penalties must hold positive numbers"),
        ({"temperatures": (1.0, -1.0)}, "temperatures must hold positive numbers"),
        ({"sector_cap": 0.0}, r"sector_cap must lie in \(0, 1\]"),
        ({"sector_cap": 0.5}, "needs the sector of every stock, and a random walk has none"),
        ({"group": None, "turnover": 2.5}, r"turnover must lie in \(0, 2\]"),
        ({"turnover": 0.5}, "a turnover bound is a mandate of its own"),
    ],
)
def test_an_unusable_setting_gets_one_sentence(prices, change, sentence):
    with pytest.raises(InputError, match=sentence) as caught:
        make_problem(dataclasses.replace(SMALL, **change), prices)
    assert_one_sentence(caught.value)


def test_the_shortest_history_named_is_enough(prices):
    short = portfolio.prices_from_frame(frame(walk(60)))
    with pytest.raises(InputError) as caught:
        make_problem(SMALL, short)
    (needed,) = re.findall(r"at least (\d+) are needed", str(caught.value))
    make_problem(SMALL, portfolio.prices_from_frame(frame(walk(int(needed)))))
    with pytest.raises(InputError):
        make_problem(SMALL, portfolio.prices_from_frame(frame(walk(int(needed) - 1))))


def test_a_stock_that_rests_through_the_training_days_is_refused():
    values = walk()
    values[:170, 3] = 10.0
    with pytest.raises(InputError, match="DD never changes during the training days"):
        make_problem(SMALL, portfolio.prices_from_frame(frame(values)))


def test_the_default_group(prices):
    free = dataclasses.replace(SMALL, group=None)
    assert make_problem(free, prices).group == (0,)
    wide = portfolio.prices_from_frame(frame(walk(n=4), tickers=("X", "MSFT", "AMD", "AAPL")))
    assert make_problem(free, wide).group == (1, 2, 3)


# -- sectors and synthetic markets ----------------------------------------------------------------


SECTORS = ("one", "two", "two", "one", "three", "three")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "does not exist"),
        ("", "is empty"),
        ("AA,one,more\n", "two columns, ticker and sector; it has 3"),
        ("ticker,sector\nAA,\n", "line 2 of .* lacks a ticker or a sector"),
        ("AA,one\nAA,two\n", "the ticker AA occurs twice"),
        ("AA,one\nBB,two\n", r"has no line for CC \(and 3 more\)"),
    ],
)
def test_an_unusable_sector_file_gets_one_sentence(tmp_path, text, sentence):
    path = tmp_path / "sectors.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=sentence) as caught:
        portfolio.load_sectors(path, TICKERS)
    assert_one_sentence(caught.value)


def test_sectors_come_from_a_file_in_the_order_of_the_prices(tmp_path):
    path = tmp_path / "sectors.csv"
    lines = [f"{ticker}, {sector}" for ticker, sector in zip(TICKERS, SECTORS)]
    path.write_text("\n".join(["ticker,sector", "ZZ,none", *reversed(lines)]))
    assert portfolio.load_sectors(path, TICKERS) == SECTORS
    assert (portfolio.load_prices().sectors or ())[:2] == ("technology", "technology")


def test_sector_caps_without_room_get_one_sentence(prices):
    sorted_out = dataclasses.replace(prices, sectors=SECTORS)
    config = dataclasses.replace(SMALL, sector_cap=0.1, cap=0.3)
    with pytest.raises(
        InputError, match=r"2 sectors capped at 0.1 .* at most 0.8, not 1"
    ) as caught:
        make_problem(config, sorted_out)
    assert_one_sentence(caught.value)


def test_a_synthetic_market_depends_on_its_seed_alone():
    ours, again = (portfolio.synthetic_prices(30, days=400, seed=3) for _ in range(2))
    other = portfolio.synthetic_prices(30, days=400, seed=4)
    np.testing.assert_array_equal(ours.values, again.values)
    assert not np.array_equal(ours.values, other.values)
    assert ours.source.startswith("synthetic")
    assert (ours.values > 0.0).all()
    assert len(set(ours.sectors or ())) == 11
    # stocks move together, as a factor model has it
    together = np.corrcoef(ours.returns().T)
    assert 0.1 < together[np.triu_indices(30, 1)].mean() < 0.9
    with pytest.raises(InputError, match="assets must be a whole number of at least 20; got 5"):
        portfolio.synthetic_prices(5)


# -- windows --------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["tune", "final"])
def test_no_day_is_a_target_on_both_sides(problem, stage):
    split = problem.tuning_split if stage == "tune" else problem.split
    h = SMALL.future
    fitted = {day for start in split.left for day in range(start, start + h)}
    scored = {day for start in split.right for day in range(start, start + h)}
    assert max(fitted) < split.boundary <= min(scored)
    assert min(split.left) >= SMALL.past
    assert max(scored) < len(problem.returns)


@pytest.mark.parametrize("stage", ["tune", "final"])
def test_training_examples_know_nothing_of_later_days(prices, problem, stage):
    split = problem.tuning_split if stage == "tune" else problem.split
    changed = prices.values.copy()
    changed[split.boundary + 1 :] *= walk(seed=5)[split.boundary + 1 :]
    other = make_problem(SMALL, dataclasses.replace(prices, values=changed))
    assert not np.array_equal(problem.returns, other.returns)
    before, after = problem.examples(stage)[0], other.examples(stage)[0]
    for name in ("starts", "inputs", "forecast"):
        np.testing.assert_array_equal(getattr(before, name), getattr(after, name))
    weights = np.full((len(before), problem.n), 1.0 / problem.n)
    earned = [daily_returns(weights, one.market, one.starts, one.future) for one in (before, after)]
    np.testing.assert_array_equal(*earned)


def test_inputs_know_nothing_of_their_own_target(prices, problem):
    row = len(problem.split.right) - 1
    start = int(problem.split.right[row])
    changed = prices.values.copy()
    changed[start + 1 :] *= 1.5
    other = make_problem(SMALL, dataclasses.replace(prices, values=changed))
    before, after = problem.examples("final")[1], other.examples("final")[1]
    np.testing.assert_array_equal(before.inputs[row], after.inputs[row])
    assert not np.array_equal(before.forecast[row], after.forecast[row])


def test_a_forecast_is_a_mean_in_units_of_its_deviation(problem):
    left, _ = problem.examples("final")
    days = problem.returns[: problem.split.boundary]
    for row in (0, 40):
        target = problem.returns[left.starts[row] : left.starts[row] + SMALL.future]
        deviation = days.std(axis=0) / np.sqrt(SMALL.future)
        wanted = (target.mean(axis=0) - days.mean(axis=0)) / deviation
        assert_close(left.forecast[row], wanted, "agree")


def test_an_input_is_a_sum_of_standardised_days(problem):
    left, _ = problem.examples("final")
    days = problem.returns[: problem.split.boundary]
    scaled = (problem.returns - days.mean(axis=0)) / days.std(axis=0)
    start = int(problem.split.left[4])
    first = scaled[start - SMALL.past : start - SMALL.past + SMALL.pool]
    n = problem.n
    assert_close(left.inputs[4, :n], first.sum(axis=0) / np.sqrt(SMALL.pool), "agree")
    last = scaled[start - SMALL.pool : start]
    assert_close(left.inputs[4, -n:], last.sum(axis=0) / np.sqrt(SMALL.pool), "agree")
