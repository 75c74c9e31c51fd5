"""The backtest: the live step over history, with vectorbt as the referee."""

import numpy as np
import pandas as pd
import pytest

from tradelib.candles.schema import candles_from_rows
from tradelib.errors import InvalidInput
from tradelib.research.backtest import compiled_fold, fold_inputs, fold_plainly, run_backtest
from tradelib.research.charts import strategy_figure
from tradelib.research.samples import load_sample, random_candles
from tradelib.strategy.base import Strategy
from tradelib.strategy.decision import DecisionParams
from tradelib.strategy.params import Params
from tradelib.strategy.registry import strategy, strategy_names

HOUR = 3_600_000


class NoParams(Params):
    pass


def scripted(*scores):
    """A strategy that says what it is told to, candle by candle."""
    return Strategy(
        "scripted",
        NoParams,
        lambda candles, params: pd.DataFrame({"score": scores}, index=candles.index, dtype=float),
        warm_up=lambda params: 0,
        history=lambda params: 1,
    )


def rising(count):
    """Candles that open at 100, 110, … and close where the next opens."""
    return candles_from_rows(
        [(i * HOUR, 100 + 10 * i, 111 + 10 * i, 99 + 10 * i, 110 + 10 * i, 1) for i in range(count)]
    )


AT_ONCE = DecisionParams(confirmation_minutes=0, cooldown_minutes=0)


def test_a_decision_fills_at_the_next_open_and_pays_the_fee():
    result = run_backtest(
        rising(4), "1h", scripted(0, 1, 0, -1), None, AT_ONCE, fee=0.01, cash=1200.0
    )
    (trade,) = result.trades.to_dict("records")
    assert result.trades.index[0] == result.candles.index[2]
    assert (trade["side"], trade["price"], trade["reason"]) == (1, 120, "confirmed buy signal")
    assert trade["amount"] == pytest.approx(0.25 * 1200 / 120)
    assert trade["fee"] == pytest.approx(3.0)
    assert trade["decided_on"] == result.candles.index[1]
    assert result.equity.tolist() == pytest.approx([1200, 1200, 1197 + 2.5 * 10, 1197 + 2.5 * 20])


def test_a_sell_gives_up_all_and_the_last_decision_never_fills():
    result = run_backtest(rising(5), "1h", scripted(1, -1, 0, 0, 1), None, AT_ONCE, fee=0.0)
    assert result.trades["side"].tolist() == [1, -1]
    assert result.trades["amount"].diff().iloc[1] == 0
    assert result.decisions["action"].iloc[-1] == 1


def test_a_fall_through_the_stop_sells():
    prices = [100, 100, 89, 89]
    candles = candles_from_rows([(i * HOUR, p, p, p, p, 1) for i, p in enumerate(prices)])
    result = run_backtest(candles, "1h", scripted(1, 0, 0, 0), None, AT_ONCE, fee=0.0)
    assert result.trades["reason"].tolist() == ["confirmed buy signal", "stop loss"]


def test_a_purchase_of_everything_leaves_no_debt():
    params = AT_ONCE.changed(hot_size=1.0, warm_size=1.0, cool_size=1.0)
    result = run_backtest(rising(3), "1h", scripted(1, 0, 0), None, params, fee=0.01, cash=1000.0)
    spent = result.trades["amount"].iloc[0] * result.trades["price"].iloc[0]
    assert spent + result.trades["fee"].iloc[0] == pytest.approx(1000.0)


@pytest.mark.parametrize("name", strategy_names())
@pytest.mark.parametrize("seed", [1, 2])
def test_compiled_and_plain_folds_agree_to_the_bit(name, seed):
    candles = random_candles(1500, seed=seed)
    scores = strategy(name).score(candles)
    arguments = (*fold_inputs(candles, "1h", scores), DecisionParams().step(), 0.001, 10_000.0)
    for fast, plain in zip(compiled_fold()(*arguments), fold_plainly(*arguments), strict=True):
        assert fast.tobytes() == plain.tobytes()


@pytest.mark.parametrize("name", strategy_names())
def test_vectorbt_gives_the_same_equity_for_the_same_fills(name):
    result = run_backtest(random_candles(1500, seed=3), "1h", strategy(name))
    portfolio = result.portfolio()
    assert len(result.trades) > 0
    assert portfolio.orders.count() == len(result.trades)
    np.testing.assert_allclose(portfolio.value(), result.equity, rtol=1e-10)
    assert portfolio.total_return() == pytest.approx(result.total_return, abs=1e-10)


def test_a_backtest_does_not_know_the_future():
    candles = random_candles(800, seed=4)
    whole = run_backtest(candles, "1h", strategy("weighted"))
    part = run_backtest(candles.iloc[:500], "1h", strategy("weighted"))
    assert part.equity.equals(whole.equity.iloc[:500])
    assert part.decisions.equals(whole.decisions.iloc[:500])


@pytest.mark.parametrize("arguments", [{"fee": -0.1}, {"fee": 1.0}, {"cash": 0.0}])
def test_fees_and_cash_that_make_no_sense_are_refused(arguments):
    with pytest.raises(InvalidInput, match="makes no sense"):
        run_backtest(rising(3), "1h", scripted(0, 0, 0), **arguments)


def test_no_candles_are_refused():
    with pytest.raises(InvalidInput, match="needs candles"):
        run_backtest(rising(0), "1h", strategy("weighted"))


def test_the_chart_shows_every_trade():
    result = run_backtest(random_candles(800, seed=5), "1h", strategy("weighted"))
    shown = {trace.name: len(trace.x) for trace in strategy_figure(result).data}
    assert shown["bought"] + shown["sold"] == len(result.trades) > 0
    assert shown["score"] == shown["equity"] == len(result.candles)


def test_without_a_file_the_sample_is_the_seeded_walk():
    sample = load_sample(None, count=50, seed=2)
    assert sample.frame.equals(random_candles(50, seed=2))
    assert sample.timeframe == "1h"
