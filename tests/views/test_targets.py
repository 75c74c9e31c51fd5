"""How a decision on several symbols is shown."""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from tradelib.research.samples import random_candles
from tradelib.strategy.targets import columns_of
from tradelib.trading.bots import new_bot
from tradelib.trading.decisions import Action, Decision
from tradelib.views.targets import weights_figure, weights_picture

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def target(symbol, share, weight, action=Action.HOLD):
    return {"symbol": symbol, "share": share, "weight": weight, "price": "1",
            "action": str(action), "fraction": "0"}  # fmt: skip


DECISION = Decision(
    id="d-1", bot="basket", candle_close=NOON, run="run", action=Action.ADJUST,
    fraction=Decimal("0.1"), temperature="NONE", reason="test", price=None, state={},
    decided_at=NOON,
    targets=[target("A/USD", 0.2, 0.4, Action.BUY), target("<b>/USD", 0.1, None)],
)  # fmt: skip


def test_weights_now_and_wanted_stand_beside_what_is_done():
    text = weights_picture(DECISION).text
    assert "20.0% → 40.0%, buy" in text
    assert "10.0% → warming up" in text
    assert "width:50.00%" in text
    assert "width:100.00%" in text
    assert "&lt;b&gt;/USD" in text
    assert "<b>/USD" not in text


def test_without_weights_the_reason_stands_there():
    idle = replace(DECISION, targets=[], reason="no candles yet")
    assert "No weights: no candles yet." in weights_picture(idle).text


def test_weights_of_nothing_are_drawn_all_the_same():
    text = weights_picture(replace(DECISION, targets=[target("A/USD", 0.0, 0.0)])).text
    assert "0.0% → 0.0%" in text


def test_the_chart_has_each_symbols_closes_and_weights():
    symbols = ("A/USD", "B/USD")
    bot = new_bot("basket", "v", "A/USD", "1h", "equal_weight", symbols=symbols)
    candles = {symbol: random_candles(50, seed=n) for n, symbol in enumerate(symbols)}
    weights = bot.target_rules.weights(candles)
    figure = weights_figure(bot, candles, weights)
    closes, areas = figure.data[::2], figure.data[1::2]
    assert [trace.name for trace in closes] == list(symbols)
    for trace, symbol in zip(closes, symbols, strict=True):
        prices = columns_of(candles, "close")[symbol]
        assert trace.y[-1] == pytest.approx((prices.iloc[-1] / prices.iloc[0] - 1) * 100)
    assert [trace.y[-1] for trace in areas] == pytest.approx([28.0, 28.0])
