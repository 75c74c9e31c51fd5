"""`buy_and_hold`: always convinced; what every other strategy has to beat."""

from __future__ import annotations

import pandas as pd

from tradelib.strategy.base import Strategy
from tradelib.strategy.params import Params


class BuyAndHoldParams(Params):
    """Nothing to choose."""


def compute_buy_and_hold(candles: pd.DataFrame, params: BuyAndHoldParams) -> pd.DataFrame:
    """Score 1 at every candle."""
    return pd.DataFrame({"score": 1.0}, index=candles.index)


BUY_AND_HOLD = Strategy(
    "buy_and_hold",
    BuyAndHoldParams,
    compute_buy_and_hold,
    warm_up=lambda params: 0,
    history=lambda params: 1,
)
