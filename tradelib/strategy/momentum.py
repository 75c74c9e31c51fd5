"""`momentum`: what has risen more than its own noise is bought, what has fallen is sold."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from pydantic import Field

from tradelib.strategy.base import Strategy, cut, ratio
from tradelib.strategy.indicators import root_mean_square
from tradelib.strategy.params import Params


class MomentumParams(Params):
    """One window for the return and for the noise it is measured against."""

    window: int = Field(48, ge=2, le=5000, description="candles the return is taken over")
    full: float = Field(
        2.0, gt=0, le=20, description="standard deviations of the window's return that score 1"
    )


def compute_momentum(candles: pd.DataFrame, params: MomentumParams) -> pd.DataFrame:
    """Score = return / (full * noise), cut to -1…1.

    return: logarithmic return over the window. noise: the standard deviation that a random walk
    with the window's one-candle returns (taken around zero) would have after as many candles.
    """
    logs = np.log(candles["close"])
    total = logs.diff(params.window)
    noise = root_mean_square(logs.diff(), params.window) * math.sqrt(params.window)
    score = cut(ratio(total, noise * params.full))
    columns = {"score": score, "return": total, "noise": noise}
    # Of arrays: pandas would align the series first, which are on one index.
    return pd.DataFrame({n: s.to_numpy() for n, s in columns.items()}, index=candles.index)


MOMENTUM = Strategy(
    "momentum",
    MomentumParams,
    compute_momentum,
    warm_up=lambda params: params.window,
    history=lambda params: params.window + 1,
)
