"""Sources of strategies as users write them."""

REVERSAL = '''
def score(candles, window: int = 20):
    """Buy what is below its average."""
    close = candles["close"]
    bands = close.rolling(window)
    return ((bands.mean() - close) / (2 * bands.std())).clip(-1, 1)
'''

FALLING = """
from typing import Annotated

import numba
import numpy as np
from pydantic import Field


@numba.njit
def walk(close, window):
    score = np.full(len(close), np.nan)
    for i in range(window, len(close)):
        score[i] = 1.0 if close[i] < close[i - window] else -1.0
    return score


def score(candles, window: Annotated[int, Field(ge=2, le=50)] = 5):
    return walk(candles["close"].to_numpy(), window)
"""

AVERAGES = """
import vectorbt as vbt


def score(candles, fast: int = 5, slow: int = 15):
    close = candles["close"]
    distance = vbt.MA.run(close, fast).ma / vbt.MA.run(close, slow).ma - 1
    return (distance * 50).clip(-1, 1)
"""

LEAK = """
warm_up, history = 24, 60


def score(candles, window: int = 24):
    close = candles["close"]
    bands = close.rolling(window, center=True, min_periods=window // 2)
    return ((bands.mean() - close) / (2 * bands.std())).clip(-1, 1)
"""

WHOLE = """
import pandas as pd

from tradelib.strategy.base import Strategy
from tradelib.strategy.params import Params


class Nothing(Params):
    pass


STRATEGY = Strategy(
    "whole", Nothing, lambda candles, params: pd.DataFrame({"score": 0.0}, index=candles.index),
    warm_up=lambda params: 0, history=lambda params: 1,
)
"""
