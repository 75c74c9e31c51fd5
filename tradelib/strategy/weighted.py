"""`weighted`: cheapness by RSI, trend by moving averages and impulse by MACD, weighed together."""

from __future__ import annotations

import math

import pandas as pd
from pydantic import Field, model_validator

from tradelib.errors import InvalidInput
from tradelib.strategy.base import Strategy, ratio
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


def compute_weighted(candles: pd.DataFrame, params: WeightedParams) -> pd.DataFrame:
    """Score = the components' weighted sum, each component in -1…1.

    rsi: buys weakness, 1 at or below oversold, -1 at or above overbought, 0 at 50.
    averages and macd: buy strength, told in ATR so that one scale fits every price and timeframe.
    """
    close, yardstick = candles["close"], atr(candles, params.atr_window)
    fast, slow = ema(close, params.fast_window), ema(close, params.slow_window)
    impulse = macd(close, params.macd_fast, params.macd_slow, params.macd_signal)["histogram"]
    parts = pd.DataFrame(
        {
            "rsi": _rsi_component(rsi(close, params.rsi_window), params),
            "averages": ratio(fast - slow, yardstick * params.averages_full).clip(-1, 1),
            "macd": ratio(impulse, yardstick * params.macd_full).clip(-1, 1),
        }
    )
    score = (
        params.rsi_weight * parts["rsi"]
        + params.averages_weight * parts["averages"]
        + params.macd_weight * parts["macd"]
    )
    # Weights may sum to 1 + 1e-16.
    parts.insert(0, "score", score.clip(-1, 1))
    return parts


def _rsi_component(value: pd.Series, params: WeightedParams) -> pd.Series:
    weak = (50 - value) / (50 - params.rsi_oversold)
    strong = (50 - value) / (params.rsi_overbought - 50)
    return weak.where(value < 50, strong).clip(-1, 1)


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


WEIGHTED = Strategy("weighted", WeightedParams, compute_weighted, _warm_up, _history)
