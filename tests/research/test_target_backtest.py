"""The backtest over several symbols: the live step over history, with vectorbt as the referee."""

from datetime import timedelta

import numpy as np
import pandas as pd
import pytest

from tests.strategy.markets import path_candles, torn_candles
from tests.strategy.test_targets import market, scripted
from tradelib.candles.walk import START, random_candles
from tradelib.errors import InvalidInput
from tradelib.research.target_backtest import (
    compiled_fold,
    fold_inputs,
    fold_plainly,
    run_target_backtest,
)
from tradelib.strategy.allocations import target_strategy, target_strategy_names
from tradelib.strategy.rebalance import RebalanceParams
from tradelib.strategy.targets import align_candles

AT_ONCE = RebalanceParams(interval_minutes=0, cash_reserve=0)
EAGER = RebalanceParams(band=0.01, smallest_step=0.005, interval_minutes=0)
every_strategy = pytest.mark.parametrize("name", target_strategy_names())


def two(first, second):
    return {"A/USDT": path_candles(first), "B/USDT": path_candles(second)}


def test_sales_fill_before_purchases_at_the_next_open_and_pay_the_fee():
    candles = two([10, 10, 20, 20], [10, 10, 10, 10])
    result = run_target_backtest(
        candles, "1h", scripted([[0, 0.5], [0.5, 0], [0.5, 0], [0.5, 0]]), None, AT_ONCE,
        fee=0.01, cash=1000.0,
    )  # fmt: skip
    told = result.trades[["symbol", "side", "price"]].to_numpy().tolist()
    index = result.equity.index
    assert told[0] == ["B/USDT", 1, 10.0]
    assert sorted(told[1:]) == [["A/USDT", 1, 20.0], ["B/USDT", -1, 10.0]]
    assert result.trades.index.tolist() == [index[1], index[2], index[2]]
    assert result.trades["decided_on"].tolist() == [index[0], index[1], index[1]]
    assert result.equity.tolist() == pytest.approx([1000, 995, 985.025, 985.025])
    assert result.shares.iloc[1].tolist() == pytest.approx([0, 500 / 995])


def test_a_purchase_of_everything_leaves_no_debt_and_the_last_decision_never_fills():
    result = run_target_backtest(
        two([10, 10, 10], [10, 10, 10]), "1h", scripted([[0.5, 0.5]] * 3), None, AT_ONCE, fee=0.01
    )
    assert (result.trades["amount"] * result.trades["price"]).sum() <= 10_000 / 1.01 + 1e-9
    late = scripted([[0, 0], [0, 0], [0.5, 0.5]])
    assert run_target_backtest(two([1] * 3, [1] * 3), "1h", late, None, AT_ONCE).trades.empty


def test_a_symbol_given_up_is_sold_to_the_last_unit():
    weights = [[0.3, 0.3], [0.3, 0.3], [0, 0.6], [0, 0.6]]
    result = run_target_backtest(
        two([3, 7, 3, 3], [1, 1, 1, 1]), "1h", scripted(weights), None, AT_ONCE
    )
    assert result.shares["A/USDT"].iloc[1] > 0
    assert result.shares["A/USDT"].iloc[-1] == 0.0


@every_strategy
@pytest.mark.parametrize("seed", [1, 20])
def test_compiled_and_plain_folds_agree_to_the_bit(name, seed):
    candles = market(900, seed)
    inputs = fold_inputs(candles, "1h", target_strategy(name).weights(candles))
    arguments = (*inputs, EAGER.step(), 0.001, 10_000.0)
    for fast, plain in zip(compiled_fold()(*arguments), fold_plainly(*arguments), strict=True):
        assert fast.tobytes() == plain.tobytes()


@every_strategy
@pytest.mark.parametrize("rules", [EAGER, AT_ONCE.changed(band=0.0), RebalanceParams()])
def test_vectorbt_gives_the_same_equity_for_the_same_fills(name, rules):
    strategy = target_strategy(name)
    for make in (random_candles, torn_candles):
        result = run_target_backtest(
            market(900, 3, make), "1h", strategy, strategy.params(invested=1.0, most=1.0), rules
        )
        portfolio = result.portfolio()
        assert len(result.trades) > 0
        assert portfolio.orders.count() == len(result.trades)
        np.testing.assert_allclose(portfolio.value(), result.equity, rtol=1e-9)
        assert portfolio.total_return() == pytest.approx(result.total_return, abs=1e-9)
        assert portfolio.max_drawdown() == pytest.approx(result.metrics.max_drawdown, abs=1e-9)
        assert portfolio.sharpe_ratio() == pytest.approx(result.metrics.sharpe, rel=1e-9)
        assert portfolio.trades.count() == result.metrics.trades
        assert portfolio.trades.closed.win_rate() == pytest.approx(
            result.metrics.win_rate, nan_ok=True
        )
        fees = portfolio.orders.records["fees"].sum()
        assert fees == pytest.approx(result.metrics.fees, rel=1e-9)


@every_strategy
def test_a_backtest_does_not_know_the_future(name):
    candles = market(800, seed=4)
    part = {symbol: frame.iloc[:500] for symbol, frame in candles.items()}
    whole = run_target_backtest(candles, "1h", target_strategy(name))
    cut = run_target_backtest(part, "1h", target_strategy(name))
    assert cut.equity.equals(whole.equity.iloc[:500])
    assert cut.decisions.equals(whole.decisions.iloc[:500])
    pd.testing.assert_frame_equal(cut.shares, whole.shares.iloc[:500], check_exact=True)


def test_the_interval_is_kept_between_trades():
    rules = EAGER.changed(interval_minutes=24 * 60)
    days = run_target_backtest(market(900), "1h", target_strategy("equal_weight"), None, rules)
    times = days.trades.index.unique().to_series()
    assert len(times) > 5
    # From the open that filled to a close a day later, and the open after that.
    assert times.diff().min() >= timedelta(hours=24)


def test_a_candle_that_one_symbol_lacks_neither_decides_nor_fills():
    candles = market(50)
    hole = START + timedelta(hours=1)
    candles["B/USDT"] = candles["B/USDT"].drop(hole)
    result = run_target_backtest(candles, "1h", target_strategy("equal_weight"), None, AT_ONCE)
    assert hole not in result.equity.index
    assert result.trades.index[0] == START + timedelta(hours=2)


def test_the_purse_is_shared_and_the_weights_are_of_all_of_it():
    candles = align_candles(market(300))
    result = run_target_backtest(candles, "1h", target_strategy("equal_weight"), None, EAGER)
    worth = result.shares.sum(axis=1) * result.equity
    assert (result.equity - worth).min() >= 0.0
    assert result.shares.iloc[-1].tolist() == pytest.approx([0.8 / 3] * 3, abs=0.02)


def test_no_common_candles_and_odd_money_are_refused():
    apart = two([1, 1], [1, 1])
    apart["B/USDT"].index += timedelta(days=1)
    with pytest.raises(InvalidInput, match="there are none"):
        run_target_backtest(apart, "1h", target_strategy("equal_weight"))
    with pytest.raises(InvalidInput, match="makes no sense"):
        run_target_backtest(market(5), "1h", target_strategy("equal_weight"), fee=1.0)
