"""`trend`: the distance of two averages on three timeframes at once, weighed together."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from tradelib.candles.resample import aggregate_candles, coarse_places
from tradelib.candles.schema import open_ms
from tradelib.clock import first_open_ms, timeframe_ms
from tradelib.errors import InvalidInput
from tradelib.strategy.base import Columns, Strategy, ratio
from tradelib.strategy.indicators import sma
from tradelib.strategy.params import Params


class TrendParams(Params):
    """The candles' own timeframe and two coarser ones, weights that sum to 1."""

    fast_window: int = Field(10, ge=1, le=500, description="candles of the fast average")
    slow_window: int = Field(30, ge=2, le=500, description="candles of the slow average")
    range_window: int = Field(
        14, ge=1, le=500, description="candles of the average true range, the yardstick"
    )
    full: float = Field(
        2.0, gt=0, le=100, description="distance of the averages, in true ranges, that scores 1"
    )
    middle_multiple: int = Field(
        4, ge=2, le=1440, description="candles in one of the middle timeframe"
    )
    coarse_multiple: int = Field(
        24, ge=3, le=1440, description="candles in one of the coarse timeframe"
    )
    own_weight: float = Field(
        0.25, ge=0, le=1, description="share of the score, the candles' own timeframe"
    )
    middle_weight: float = Field(
        0.25, ge=0, le=1, description="share of the score, the middle timeframe"
    )
    coarse_weight: float = Field(
        0.5, ge=0, le=1, description="share of the score, the coarse timeframe"
    )

    @model_validator(mode="after")
    def _consistent(self) -> TrendParams:
        total = self.own_weight + self.middle_weight + self.coarse_weight
        if not math.isclose(total, 1, abs_tol=1e-9):
            raise InvalidInput(
                f"The weights of own, middle and coarse must sum to 1; they sum to {total:.10g}."
            )
        for less, more in (("fast_window", "slow_window"), ("middle_multiple", "coarse_multiple")):
            if getattr(self, less) >= getattr(self, more):
                raise InvalidInput(
                    f"{less} = {getattr(self, less)} must be less than "
                    f"{more} = {getattr(self, more)}."
                )
        return self


def combine_trend(
    own: np.ndarray,
    middle: np.ndarray,
    coarse: np.ndarray,
    full: float,
    own_weight: float,
    middle_weight: float,
    coarse_weight: float,
) -> np.ndarray:
    """Score = the weighted sum of the distances / full, each cut to -1…1 first."""
    score = (
        own_weight * np.minimum(np.maximum(own / full, -1.0), 1.0)
        + middle_weight * np.minimum(np.maximum(middle / full, -1.0), 1.0)
        + coarse_weight * np.minimum(np.maximum(coarse / full, -1.0), 1.0)
    )
    # Weights may sum to 1 + 1e-16.
    return np.minimum(np.maximum(score, -1.0), 1.0)


def averages_distance(
    candles: pd.DataFrame, fast_window: int, slow_window: int, range_window: int
) -> pd.Series:
    """How far the fast average is above the slow one, in average true ranges.

    The averages are simple ones, Wilder's range too: a smoothed one of daily candles would need
    years of hourly ones to forget where it began.
    """
    close, before = candles["close"], candles["close"].shift()
    true_range = np.maximum(candles["high"], before) - np.minimum(candles["low"], before)
    distance = sma(close, fast_window) - sma(close, slow_window)
    return ratio(distance, sma(true_range, range_window))


def coarse_distance(
    candles: pd.DataFrame, multiple: int, fast_window: int, slow_window: int, range_window: int
) -> pd.Series:
    """At each candle the `averages_distance` of the last coarser candle that has closed by then.

    A coarser candle is what there is of the `multiple` candles that close within it. It begins
    where a venue's would, counted from 1970, so that nothing depends on where the candles begin;
    the first one, which may be torn, is left out. One without candles is none.
    """
    need = _coarse_need(multiple, slow_window, range_window)
    values = np.full(len(candles), np.nan)
    if len(candles) >= need:
        which, closed = _coarse_places(open_ms(candles), multiple, need)
        grouped = aggregate_candles(candles, which).iloc[1:]
        distance = averages_distance(grouped, fast_window, slow_window, range_window).to_numpy()
        newest = np.where(closed, which, which - 1) - 1
        # Where the grid lies well there is one earlier; a warm-up must not depend on luck.
        values[need - 1 :] = distance[newest[need - 1 :]]
    return pd.Series(values, index=candles.index)


def _coarse_places(opens_ms: np.ndarray, multiple: int, need: int) -> tuple[np.ndarray, np.ndarray]:
    """Each candle's coarser one, counted from 0, and whether that closes together with it."""
    # The timeframe is the smallest step. Later candles than the first score's may not tell it:
    # that would be to look ahead.
    step = int(np.diff(opens_ms[:need]).min())
    length = step * multiple
    return coarse_places(opens_ms, step, length, _origin(int(opens_ms[0]), step, length))


def _origin(open_ms: int, step: int, length: int) -> int:
    """When a coarser candle of 1970 opens, together with one of the candles' own."""
    monday = first_open_ms("1w")
    weekly = length % timeframe_ms("1w") == 0 and (open_ms - monday) % step == 0
    return monday if weekly else open_ms % step


def _own_need(slow_window: int, range_window: int) -> int:
    # The first true range takes the close before it.
    return max(slow_window, range_window + 1)


def _coarse_need(multiple: int, slow_window: int, range_window: int) -> int:
    # The coarser ones, and at both ends one that may be torn; all of them once it has closed.
    return (_own_need(slow_window, range_window) + 1) * multiple


def _middle(
    candles: pd.DataFrame,
    middle_multiple: int,
    fast_window: int,
    slow_window: int,
    range_window: int,
) -> pd.Series:
    return coarse_distance(candles, middle_multiple, fast_window, slow_window, range_window)


def _coarse(
    candles: pd.DataFrame,
    coarse_multiple: int,
    fast_window: int,
    slow_window: int,
    range_window: int,
) -> pd.Series:
    return coarse_distance(candles, coarse_multiple, fast_window, slow_window, range_window)


_COLUMNS = Columns(
    {"own": averages_distance, "middle": _middle, "coarse": _coarse},
    combine_trend,
)


def _history(params: TrendParams) -> int:
    return _coarse_need(params.coarse_multiple, params.slow_window, params.range_window)


TREND = Strategy(
    "trend",
    TrendParams,
    _COLUMNS.compute,
    warm_up=lambda params: _history(params) - 1,
    history=_history,
    columns=_COLUMNS,
)
