"""Crossings: the lean sweep against vectorbt's from_signals."""

import math

import numpy as np
import pandas as pd
import pytest
import vectorbt as vbt

from tradelib.errors import InvalidInput
from tradelib.research.crossings import sweep_crossings
from tradelib.research.metrics import METRICS
from tradelib.research.samples import random_candles
from tradelib.strategy.indicators import sma

WINDOWS = (2, 3, 5, 8, 13, 21, 34, 55)
PAIRS = [(fast, slow) for fast in WINDOWS for slow in WINDOWS if fast < slow]


def averages(candles, windows=WINDOWS):
    return pd.DataFrame({window: sma(candles["close"], window) for window in windows})


def referee(candles, lines, pairs, fill, fee, cash):
    """vectorbt's portfolio of the same crossings."""
    fast = lines[[pair[0] for pair in pairs]].to_numpy()
    slow = lines[[pair[1] for pair in pairs]].to_numpy()
    delay, price = (0, candles["close"]) if fill == "close" else (1, candles["open"])
    up, down = (
        pd.DataFrame(above, index=candles.index)
        .vbt.crossed_above(pd.DataFrame(below, index=candles.index))
        .to_numpy()
        for above, below in ((fast, slow), (slow, fast))
    )
    if delay:
        nothing = np.zeros((1, len(pairs)), dtype=bool)
        up, down = (np.vstack([nothing, signal[:-1]]) for signal in (up, down))
    return vbt.Portfolio.from_signals(
        candles["close"], up, down, price=price, fees=fee, init_cash=cash, freq="1h"
    )


@pytest.mark.parametrize("fill", ["open", "close"])
@pytest.mark.parametrize(("seed", "fee"), [(1, 0.0), (2, 0.001), (3, 0.02)])
def test_every_pair_equals_vectorbts(fill, seed, fee):
    candles = random_candles(800, seed=seed)
    lines = averages(candles)
    ours = sweep_crossings(candles, "1h", lines, PAIRS, fill=fill, fee=fee, cash=777.0)
    theirs = referee(candles, lines, PAIRS, fill, fee, 777.0)
    closed, hour = theirs.trades.closed, pd.Timedelta(hours=1)
    expected = {
        "total_return": theirs.total_return(),
        "annual_return": theirs.annualized_return(),
        "sharpe": theirs.sharpe_ratio(),
        "sortino": theirs.sortino_ratio(),
        "calmar": theirs.calmar_ratio(),
        "max_drawdown": theirs.drawdowns.max_drawdown(),
        "max_drawdown_candles": theirs.drawdowns.max_duration() / hour,
        "volatility": theirs.annualized_volatility(),
        "exposure": theirs.position_coverage(),
        "trades": theirs.trades.count(),
        "closed_trades": closed.count(),
        "win_rate": closed.win_rate(),
        "profit_factor": closed.profit_factor().replace(math.inf, math.nan),
        "expectancy": closed.expectancy(),
        "best_trade": closed.returns.max(),
        "worst_trade": closed.returns.min(),
        "turnover": (theirs.orders.size * theirs.orders.price).sum() / theirs.value().mean(),
        "fees": theirs.orders.fees.sum(),
        "market_return": [candles["close"].iloc[-1] / candles["close"].iloc[0] - 1] * len(PAIRS),
    }
    assert list(ours) == list(METRICS) == list(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(ours[name], value, rtol=1e-9, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("fill", ["open", "close"])
def test_a_market_that_never_crosses_is_never_traded(fill):
    candles = random_candles(50, seed=1)
    lines = pd.DataFrame({"up": range(1, 51), "down": range(50)}, index=candles.index, dtype=float)
    for pair in (("up", "down"), ("down", "up"), ("up", "up")):
        (row,) = sweep_crossings(candles, "1h", lines, [pair], fill=fill).to_dict("records")
        assert row["trades"] == row["total_return"] == row["exposure"] == 0
        assert math.isnan(row["sharpe"])


def test_a_crossing_at_the_last_close_fills_there_or_never():
    candles = random_candles(4, seed=1)
    lines = pd.DataFrame({"a": [0.0, 0, 0, 2], "b": 1.0}, index=candles.index)
    counts = {
        fill: sweep_crossings(candles, "1h", lines, [("a", "b")], fill=fill)["trades"].item()
        for fill in ("open", "close")
    }
    assert counts == {"open": 0, "close": 1}


def test_rows_do_not_depend_on_the_threads():
    candles = random_candles(300, seed=4)
    one, four = (
        sweep_crossings(candles, "1h", averages(candles), PAIRS, workers=n) for n in (1, 4)
    )
    assert one.equals(four)
    assert list(one.index) == PAIRS


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"pairs": []}, "needs a pair"),
        ({"pairs": [(2, 4)]}, "no line 4"),
        ({"fill": "clos"}, "did you mean 'close'"),
        ({"fee": 1.0}, "makes no sense"),
        ({"metrics": ["sharp"]}, "did you mean 'sharpe'"),
    ],
)
def test_what_makes_no_sense_is_refused(changes, told):
    candles = random_candles(30, seed=1)
    asked = {"lines": averages(candles, (2, 3)), "pairs": [(2, 3)], **changes}
    with pytest.raises(InvalidInput, match=told):
        sweep_crossings(candles, "1h", **asked)


@pytest.mark.parametrize(
    ("row", "value", "told"),
    [
        (10, math.nan, "Line 3 is nan at 2026-01-01 10:00"),
        (1, math.inf, "Line 3 is inf at 2026-01-01 01:00"),
        (slice(None), math.nan, "Line 3 has no value in 30 candles; give more"),
    ],
    ids=["hole", "infinite", "too short"],
)
def test_a_line_that_is_no_line_is_refused(row, value, told):
    candles = random_candles(30, seed=1)
    lines = averages(candles, (2, 3))
    lines.iloc[row, 1] = value
    with pytest.raises(InvalidInput, match=told):
        sweep_crossings(candles, "1h", lines, [(2, 3)])
