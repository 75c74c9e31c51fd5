"""`breakout`: a close beyond Donchian's channel is followed until the market crosses back."""

from __future__ import annotations

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from tradelib.errors import InvalidInput
from tradelib.strategy.base import Columns, Strategy
from tradelib.strategy.params import Params


class BreakoutParams(Params):
    """Two channels, and how long a breakout counts."""

    window: int = Field(20, ge=1, le=2000, description="candles of the channel to break out of")
    exit_window: int = Field(
        10, ge=1, le=2000, description="candles of the channel that ends it, window at most"
    )
    # Without an end the score would depend on candles however long ago, and none could be loaded
    # from the middle of history.
    hold: int = Field(
        200, ge=1, le=10_000, description="candles that a breakout counts, its own one included"
    )

    @model_validator(mode="after")
    def _consistent(self) -> BreakoutParams:
        # A wider exit would let a rise and a fall live at once.
        if self.exit_window > self.window:
            raise InvalidInput(
                f"exit_window = {self.exit_window} must not exceed window = {self.window}."
            )
        return self


def combine_breakout(rise: np.ndarray, fall: np.ndarray) -> np.ndarray:
    """Score = 1 in a breakout upwards, -1 in one downwards, else 0; both at once cannot be."""
    return rise - fall


def highest_before(candles: pd.DataFrame, window: int) -> pd.Series:
    """The highest high of the `window` candles before each, itself not among them."""
    return candles["high"].rolling(window).max().shift()


def lowest_before(candles: pd.DataFrame, window: int) -> pd.Series:
    """The lowest low of the `window` candles before each, itself not among them."""
    return candles["low"].rolling(window).min().shift()


def rise_age(candles: pd.DataFrame, top: pd.Series, exit_bottom: pd.Series) -> pd.Series:
    """Candles since a close above the top, infinite once one was below the exit's bottom."""
    close = candles["close"]
    return _age(close > top, close < exit_bottom).where(top.notna())


def fall_age(candles: pd.DataFrame, bottom: pd.Series, exit_top: pd.Series) -> pd.Series:
    """Candles since a close below the bottom, infinite once one was above the exit's top."""
    close = candles["close"]
    return _age(close < bottom, close > exit_top).where(bottom.notna())


def _age(begun: pd.Series, ended: pd.Series) -> pd.Series:
    """Rows since `begun` was last true; infinite if it never was, or `ended` was no earlier."""
    rows = np.arange(len(begun))
    first, last = (np.maximum.accumulate(np.where(one, rows, -1)) for one in (begun, ended))
    return pd.Series(np.where(first > last, rows - first, np.inf), index=begun.index)


def _young(age: pd.Series, hold: int) -> pd.Series:
    return (age < hold).astype("float64").where(age.notna())


_COLUMNS = Columns(
    {
        "rise": lambda age_of_rise, hold: _young(age_of_rise, hold),
        "fall": lambda age_of_fall, hold: _young(age_of_fall, hold),
        "age_of_rise": rise_age,
        "age_of_fall": fall_age,
        "top": highest_before,
        "bottom": lowest_before,
        "exit_top": lambda candles, exit_window: highest_before(candles, exit_window),
        "exit_bottom": lambda candles, exit_window: lowest_before(candles, exit_window),
    },
    combine_breakout,
)


BREAKOUT = Strategy(
    "breakout",
    BreakoutParams,
    _COLUMNS.compute,
    warm_up=lambda params: params.window,
    # The oldest breakout that counts, and the channel before it.
    history=lambda params: params.window + params.hold,
    columns=_COLUMNS,
)
