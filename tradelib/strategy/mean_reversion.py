"""`mean_reversion`: what is far below its own average is bought, what is far above it is sold."""

from __future__ import annotations

import numpy as np
import pandas as pd
from pydantic import Field

from tradelib.strategy.base import Columns, Strategy, ratio
from tradelib.strategy.indicators import bollinger, sma
from tradelib.strategy.params import Params


class MeanReversionParams(Params):
    """Bollinger's bands, and an average that may forbid to buy."""

    window: int = Field(20, ge=2, le=500, description="candles of the bands")
    width: float = Field(
        2.0, gt=0, le=10, description="standard deviations from the average to a band"
    )
    trend_window: int = Field(
        0, ge=0, le=5000, description="candles of the average below which nothing is bought; 0: off"
    )


def combine_mean_reversion(distance: np.ndarray, ceiling: np.ndarray, width: float) -> np.ndarray:
    """Score = -distance / width, cut to -1…ceiling."""
    return np.minimum(np.maximum(-distance / width, -1.0), ceiling)


def band_distance(candles: pd.DataFrame, window: int) -> pd.Series:
    """How far the close is above its average, in standard deviations."""
    bands = bollinger(candles["close"], window, width=1.0)
    return ratio(candles["close"] - bands["middle"], bands["upper"] - bands["middle"])


def trend_ceiling(candles: pd.DataFrame, trend_window: int) -> pd.Series:
    """The highest score allowed: 0 while the close is below the long average, else 1.

    Sales are never held back, for a filter must not keep anybody in a falling market.
    """
    close = candles["close"]
    if trend_window == 0:
        return pd.Series(1.0, index=close.index)
    average = sma(close, trend_window)
    return (close >= average).astype("float64").where(average.notna())


_COLUMNS = Columns({"distance": band_distance, "ceiling": trend_ceiling}, combine_mean_reversion)


def _warm_up(params: MeanReversionParams) -> int:
    return max(params.window, params.trend_window) - 1


MEAN_REVERSION = Strategy(
    "mean_reversion",
    MeanReversionParams,
    _COLUMNS.compute,
    _warm_up,
    lambda params: _warm_up(params) + 1,
    _COLUMNS,
)
