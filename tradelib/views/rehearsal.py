"""Decides on candles of chance and draws the chart, once, when it is imported: what packages do at
their first use only, a fork server that imports this has done before it forks a kernel.

It opens no file and starts no thread, for a fork would have neither; a page's first reading of
candles starts some.
"""

from __future__ import annotations

import json
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pandas as pd

from tradelib.candles.store import CandleStore
from tradelib.candles.walk import random_candles
from tradelib.strategy.decision import DecisionState
from tradelib.trading.bots import Bot, new_bot
from tradelib.trading.deciding import DecisionInputs, Signal, compute_signal
from tradelib.views.charts import SHOWN_CANDLES, Chart, signal_figure

_INPUTS = DecisionInputs(DecisionState(), None, Decimal(1000), Decimal(1000), Decimal(10))


class _Walk(CandleStore):
    """Every series is the same walk."""

    def load(self, *_: Any, limit: int | None = None, **__: Any) -> pd.DataFrame:
        return random_candles(limit or SHOWN_CANDLES, seed=1, timeframe="1m")


def rehearse() -> dict[str, Any]:
    """A signal's chart, as a notebook displays it."""
    bot, store = new_bot("rehearsal", "rehearsal", "BTC/USDT", "1m", "momentum"), _Walk("")
    signal = _decide(bot, store)
    json.dumps(signal.to_json(), default=str)
    return Chart(signal_figure(signal, store.load()))._repr_mimebundle_()


def _decide(bot: Bot, store: CandleStore) -> Signal:
    close = (store.load().index[-1] + timedelta(minutes=1)).to_pydatetime()
    made = compute_signal(store, bot, close, _INPUTS, "rehearsal")
    return Signal(bot, close, made.candles, made.scores, made.decision, made)


rehearse()
