"""The metrics against vectorbt's, and where they are undefined."""

import math
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest

from tradelib.candles.schema import candles_from_rows
from tradelib.research.backtest import Backtest, run_backtest
from tradelib.research.metrics import (
    MEANINGS,
    METRICS,
    metrics_of,
    start_tally,
    tally_close,
    tally_fill,
)
from tradelib.research.samples import random_candles
from tradelib.strategy.decision import DecisionParams
from tradelib.strategy.registry import strategy

HOUR = 3_600_000
EAGER = DecisionParams(
    buy_threshold=0.1, sell_threshold=-0.1, confirmation_minutes=0, cooldown_minutes=0,
    hot_size=0.9, warm_size=0.6, cool_size=0.3,
)  # fmt: skip


def referee(result: Backtest) -> dict[str, float]:
    """vectorbt's figures of the same fills, by our names."""
    portfolio = result.portfolio()
    stats = portfolio.stats(silence_warnings=True)
    returns, hour = portfolio.returns_acc, pd.Timedelta(hours=1)
    return {
        "total_return": portfolio.total_return(),
        "annual_return": returns.annualized(),
        "sharpe": stats["Sharpe Ratio"],
        "sortino": stats["Sortino Ratio"],
        "calmar": stats["Calmar Ratio"],
        "max_drawdown": -stats["Max Drawdown [%]"] / 100,
        "max_drawdown_candles": stats["Max Drawdown Duration"] / hour,
        "volatility": returns.annualized_volatility(),
        "exposure": portfolio.position_coverage(),
        "trades": stats["Total Trades"],
        "closed_trades": stats["Total Closed Trades"],
        "win_rate": stats["Win Rate [%]"] / 100,
        "profit_factor": stats["Profit Factor"],
        "expectancy": stats["Expectancy"],
        "best_trade": stats["Best Trade [%]"] / 100,
        "worst_trade": stats["Worst Trade [%]"] / 100,
        "fees": stats["Total Fees Paid"],
        "market_return": stats["Benchmark Return [%]"] / 100,
    }


@pytest.mark.parametrize("seed", range(1, 5))
@pytest.mark.parametrize("decision", [DecisionParams(), EAGER], ids=["default", "eager"])
def test_metrics_equal_vectorbts(seed, decision):
    result = run_backtest(
        random_candles(1500, seed=seed), "1h", strategy("weighted"), None, decision
    )
    ours, theirs = asdict(result.metrics), referee(result)
    assert set(METRICS) - set(theirs) == {"turnover"}
    assert ours["closed_trades"] > 0
    for name, value in theirs.items():
        assert ours[name] == pytest.approx(value, rel=1e-9, abs=1e-9), name


def test_turnover_is_what_was_traded_over_the_mean_equity():
    result = run_backtest(random_candles(900, seed=3), "1h", strategy("momentum"))
    value = (result.trades["amount"] * result.trades["price"]).sum()
    assert result.metrics.turnover == pytest.approx(value / result.equity.mean(), rel=1e-12)


def test_without_a_trade_ratios_are_undefined_and_sums_are_zero():
    flat = candles_from_rows([(i * HOUR, 100, 100, 100, 100, 1) for i in range(200)])
    metrics = asdict(run_backtest(flat, "1h", strategy("momentum")).metrics)
    undefined = {name for name, value in metrics.items() if math.isnan(value)}
    assert undefined == {
        "sharpe", "sortino", "calmar", "win_rate", "profit_factor", "expectancy", "best_trade",
        "worst_trade",
    }  # fmt: skip
    assert {metrics[name] for name in METRICS if name not in undefined} == {0.0}


def test_no_metric_is_infinite():
    # One that only wins, and doubles within five candles: a year of that is beyond every number.
    for steps in ([1, 2, 3, 4], [1, 1, 1, 1], [1]):
        tally = start_tally(1.0)
        for equity in steps:
            tally = tally_close(tally, float(equity), 0.0)
        found = metrics_of(np.array([tally]), "1m", 1.0, 0.0)
        assert not any(np.isinf(value).any() for value in found.values())


def test_a_steady_rise_has_a_true_sharpe_ratio():
    # Returns that hardly differ: the squares' sum loses digits where it is taken carelessly.
    random = np.random.default_rng(5)
    returns = 0.001 + random.normal(0, 1e-5, 20_000)
    equity, tally = np.cumprod(1 + returns), start_tally(1.0)
    for value in equity:
        tally = tally_close(tally, float(value), 1.0)
    found = metrics_of(np.array([tally]), "1h", 1.0, 0.0)["sharpe"][0]
    seen = np.diff(equity, prepend=1.0) / np.concatenate([[1.0], equity[:-1]])
    expected = seen.mean() / seen.std(ddof=1) * math.sqrt(24 * 365)
    assert found == pytest.approx(expected, rel=1e-9)


def test_every_metric_says_what_it_means():
    assert set(MEANINGS) == set(METRICS)
    assert all(MEANINGS.values())


def test_returns_that_do_not_differ_have_no_sharpe_ratio():
    tally = start_tally(1.0)
    for count in range(1, 500):
        tally = tally_close(tally, 1.001**count, 1.0)
    found = metrics_of(np.array([tally]), "1h", 1.0, 0.0)
    assert np.isnan(found["sharpe"][0])
    assert found["volatility"][0] == 0


def test_each_sale_of_a_part_is_a_trade_and_rounding_is_no_position():
    tally = start_tally(100.0)
    for signed, price, fee in ((3, 10, 0.3), (-1, 12, 0.12), (-1.9999999999, 9, 0.18)):
        tally = tally_fill(tally, float(signed), float(price), fee)
    tally = tally_close(tally, 99.4, 0.0)
    found = {
        name: value[0] for name, value in metrics_of(np.array([tally]), "1h", 100.0, 0.0).items()
    }
    profits = [12 - 10 - 0.1 - 0.12, 18 - 20 - 0.2 - 0.18]
    assert (found["trades"], found["closed_trades"], found["win_rate"]) == (2, 2, 0.5)
    assert found["best_trade"] == pytest.approx(profits[0] / 10)
    assert found["worst_trade"] == pytest.approx(profits[1] / 20)
    assert found["expectancy"] == pytest.approx(sum(profits) / 2)
    assert found["profit_factor"] == pytest.approx(-profits[0] / profits[1])
    assert found["fees"] == pytest.approx(0.6)
