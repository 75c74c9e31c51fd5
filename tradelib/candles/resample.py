"""Coarser candles from finer ones, in one way for whoever needs them."""

from __future__ import annotations

import numpy as np
import pandas as pd

from tradelib.candles.schema import COLUMNS, candles_from_arrays, empty_candles, open_ms
from tradelib.clock import first_open_ms, timeframe_ms
from tradelib.errors import InvalidInput

_HOW = {"open": None, "high": np.maximum, "low": np.minimum, "close": None, "volume": np.add}


def resample(candles: pd.DataFrame, to: str, timeframe: str | None = None) -> pd.DataFrame:
    """The candles as coarser ones of timeframe `to`, each under its open time, as a venue has it.

    timeframe: that of `candles`; None: their smallest step. A coarser candle is what there is of
    the finer ones within it, and absent where there are none. The last is left out unless the
    finer candle that closes with it is there, and the first unless the one that opens with it is:
    both would have other values once their rest is known.

    Four candles of 15m from 12:00 on give one of 1h, which opens at 12:00 with the first one's
    open, closes with the last one's close and has the volume of all.
    """
    if candles.empty:
        return empty_candles()
    step, length = timeframe_ms(timeframe or _smallest_step(candles)), timeframe_ms(to)
    if length % step:
        raise InvalidInput(
            f"Candles of {step // 60_000} min do not fill those of {to}; resample to a multiple."
        )
    opens = open_ms(candles)
    origin = first_open_ms(to)
    if step == length:
        return candles[list(COLUMNS)]
    which, _ = coarse_places(opens, step, length, origin)
    coarse = aggregate_candles(candles, which)
    labels = (opens[first_places(which)] - origin) // length * length + origin
    whole = np.ones(len(labels), dtype=bool)
    whole[0] = opens[0] == labels[0]
    whole[-1] &= opens[-1] + step == labels[-1] + length
    return candles_from_arrays(labels, *(coarse[name] for name in COLUMNS))[whole]


def coarse_places(
    opens_ms: np.ndarray, step: int, length: int, origin: int
) -> tuple[np.ndarray, np.ndarray]:
    """Each candle's coarser one, counted from 0 without those that have none, and whether the two
    close together. step, length: of the finer and the coarser timeframe; origin: when a coarser
    one opens; all in ms."""
    closes = opens_ms + step - origin
    number = -(-closes // length)
    which = np.cumsum(np.diff(number, prepend=number[:1]) > 0)
    return which, closes == number * length


def aggregate_candles(candles: pd.DataFrame, which: np.ndarray) -> pd.DataFrame:
    """The coarser candles, without open times. which: of each candle, as `coarse_places` counts."""
    first = first_places(which)
    last = np.append(first[1:], len(candles)) - 1
    columns = {}
    for name, how in _HOW.items():
        values = candles[name].to_numpy()
        if how is None:
            columns[name] = values[first if name == "open" else last]
        else:
            columns[name] = how.reduceat(values, first)
    return pd.DataFrame(columns)


def first_places(which: np.ndarray) -> np.ndarray:
    """Where each coarser candle's first finer one stands."""
    return np.flatnonzero(np.diff(which, prepend=-1))


def _smallest_step(candles: pd.DataFrame) -> str:
    steps = np.diff(open_ms(candles))
    if not steps.size or (smallest := int(steps.min())) <= 0 or smallest % 60_000:
        raise InvalidInput("These candles tell no timeframe; name the one that they are of.")
    return f"{smallest // 60_000}m"
