"""`weighted`: cheapness by RSI, trend by moving averages and impulse by MACD, weighed together."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from tradelib.errors import InvalidInput
from tradelib.strategy.base import Columns, Strategy, cut, ratio
from tradelib.strategy.indicators import atr, ema, macd, rsi, settling
from tradelib.strategy.params import Params


class WeightedParams(Params):
    """Windows in candles, weights that sum to 1."""

    rsi_window: int = Field(14, ge=2, le=500, description="candles of the RSI")
    rsi_oversold: float = Field(30, gt=0, lt=50, description="RSI (0…100) that scores 1")
    rsi_overbought: float = Field(70, gt=50, lt=100, description="RSI (0…100) that scores -1")
    fast_window: int = Field(20, ge=1, le=1000, description="candles of the fast average")
    slow_window: int = Field(50, ge=2, le=2000, description="candles of the slow average")
    averages_full: float = Field(
        2.0, gt=0, le=100, description="distance of the averages, in ATR, that scores 1"
    )
    macd_fast: int = Field(12, ge=2, le=500, description="candles of MACD's fast average")
    macd_slow: int = Field(26, ge=3, le=1000, description="candles of MACD's slow average")
    macd_signal: int = Field(9, ge=1, le=500, description="candles of MACD's signal line")
    macd_full: float = Field(
        0.25, gt=0, le=100, description="MACD histogram, in ATR, that scores 1"
    )
    atr_window: int = Field(14, ge=1, le=500, description="candles of the ATR, the yardstick")
    rsi_weight: float = Field(0.2, ge=0, le=1, description="share of the score")
    averages_weight: float = Field(0.5, ge=0, le=1, description="share of the score")
    macd_weight: float = Field(0.3, ge=0, le=1, description="share of the score")

    @model_validator(mode="after")
    def _consistent(self) -> WeightedParams:
        total = self.rsi_weight + self.averages_weight + self.macd_weight
        if not math.isclose(total, 1, abs_tol=1e-9):
            raise InvalidInput(
                f"The weights of rsi, averages and macd must sum to 1; they sum to {total:.10g}."
            )
        for fast, slow in (("fast_window", "slow_window"), ("macd_fast", "macd_slow")):
            if getattr(self, fast) >= getattr(self, slow):
                raise InvalidInput(
                    f"{fast} = {getattr(self, fast)} must be less than "
                    f"{slow} = {getattr(self, slow)}."
                )
        return self


def combine_weighted(
    rsi: np.ndarray,
    averages: np.ndarray,
    macd: np.ndarray,
    rsi_weight: float,
    averages_weight: float,
    macd_weight: float,
) -> np.ndarray:
    """Score = the components' weighted sum, each component in -1…1."""
    score = rsi_weight * rsi + averages_weight * averages + macd_weight * macd
    # Weights may sum to 1 + 1e-16.
    return np.minimum(np.maximum(score, -1.0), 1.0)


def rsi_component(
    candles: pd.DataFrame, rsi_window: int, rsi_oversold: float, rsi_overbought: float
) -> pd.Series:
    """Buys weakness: 1 at or below oversold, -1 at or above overbought, 0 at an RSI of 50."""
    value = rsi(candles["close"], rsi_window)
    weak = (50 - value) / (50 - rsi_oversold)
    strong = (50 - value) / (rsi_overbought - 50)
    return cut(weak.where(value < 50, strong))


def averages_component(
    fast: pd.Series, slow: pd.Series, yardstick: pd.Series, averages_full: float
) -> pd.Series:
    """Buys strength: the distance of the averages."""
    return cut(ratio(fast - slow, yardstick * averages_full))


def macd_component(impulse: pd.Series, yardstick: pd.Series, macd_full: float) -> pd.Series:
    """Buys strength: MACD's histogram."""
    return cut(ratio(impulse, yardstick * macd_full))


def _impulse(candles: pd.DataFrame, macd_fast: int, macd_slow: int, macd_signal: int) -> pd.Series:
    return macd(candles["close"], macd_fast, macd_slow, macd_signal)["histogram"]


# The yardstick is the ATR, so that one scale fits every price and timeframe.
_COLUMNS = Columns(
    {
        "rsi": rsi_component,
        "averages": averages_component,
        "macd": macd_component,
        "fast": lambda candles, fast_window: ema(candles["close"], fast_window),
        "slow": lambda candles, slow_window: ema(candles["close"], slow_window),
        "impulse": _impulse,
        "yardstick": lambda candles, atr_window: atr(candles, atr_window),
    },
    combine_weighted,
)


def _warm_up(params: WeightedParams) -> int:
    return max(
        params.rsi_window,
        params.atr_window,
        params.slow_window - 1,
        params.macd_slow + params.macd_signal - 2,
    )


def _history(params: WeightedParams) -> int:
    # MACD smooths what is smoothed already, so its two memories add up.
    return _warm_up(params) + max(
        settling(1 / max(params.rsi_window, params.atr_window)),
        settling(2 / (params.slow_window + 1)),
        settling(2 / (params.macd_slow + 1)) + settling(2 / (params.macd_signal + 1)),
    )


WEIGHTED = Strategy("weighted", WeightedParams, _COLUMNS.compute, _warm_up, _history, _COLUMNS)
