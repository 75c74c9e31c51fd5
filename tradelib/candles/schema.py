"""The candle frame: what one looks like, what is refused, where it has gaps, what it hashes to.

A candle frame is a DataFrame with a UTC DatetimeIndex `open_time` in milliseconds and the float64
columns open, high, low, close (quote per base) and volume (base units), oldest first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import cache
from typing import NamedTuple

import numpy as np
import pandas as pd

from tradelib.clock import first_open_ms, from_ms, timeframe_ms
from tradelib.errors import InvalidInput

TIME = "open_time"
PRICES = ("open", "high", "low", "close")
COLUMNS = (*PRICES, "volume")
_TIME_TYPE = pd.DatetimeTZDtype("ms", "UTC")


class Gap(NamedTuple):
    """Candles that are missing: `start` is the open of the first, `end` the open of the next one
    that is there, `missing` their number."""

    start: datetime
    end: datetime
    missing: int


def candles_from_rows(rows: Iterable[Sequence[float]]) -> pd.DataFrame:
    """A candle frame of rows (open time in ms, open, high, low, close, volume), unchecked.

    Gives the shape alone; `validate_candles` judges the content.
    """
    table = [(int(row[0]), *row[1:6]) for row in rows]
    return candles_from_arrays(*zip(*table, strict=True)) if table else empty_candles()


def candles_from_arrays(
    open_ms: Sequence[int],
    open: Sequence[float],
    high: Sequence[float],
    low: Sequence[float],
    close: Sequence[float],
    volume: Sequence[float],
) -> pd.DataFrame:
    """A candle frame of columns, open times in ms since 1970, unchecked."""
    times = np.asarray(open_ms, dtype="int64").astype("datetime64[ms]")
    values = np.column_stack([open, high, low, close, volume]).astype("float64")
    index = pd.DatetimeIndex(times, name=TIME).tz_localize("UTC")
    return pd.DataFrame(values, index=index, columns=list(COLUMNS))


def empty_candles() -> pd.DataFrame:
    """A candle frame without rows."""
    return _no_candles().copy(deep=False)


@cache
def _no_candles() -> pd.DataFrame:
    return candles_from_arrays([], [], [], [], [], [])


def open_ms(frame: pd.DataFrame) -> np.ndarray:
    """Open times of the frame's candles, int64 milliseconds since 1970."""
    return frame.index.as_unit("ms").asi8


def candle_values(frame: pd.DataFrame) -> np.ndarray:
    """Open, high, low, close and volume as float64, shape (candles, 5)."""
    return (frame if tuple(frame.columns) == COLUMNS else frame[[*COLUMNS]]).to_numpy()


def on_grid(times_ms: np.ndarray, timeframe: str) -> np.ndarray:
    """Which of the times (ms) may open a candle of the timeframe."""
    return (times_ms - first_open_ms(timeframe)) % timeframe_ms(timeframe) == 0


def validate_candles(frame: pd.DataFrame, timeframe: str, where: str) -> pd.DataFrame:
    """The frame in its exact shape, or InvalidInput that names what is wrong and `where`.

    where: the file, or the venue and symbol, as the reader of a message knows it.
    Gaps are allowed: see `find_gaps`.
    """
    frame = _shaped(frame, where)
    if not (np.diff(open_ms(frame)) > 0).all():
        _refuse_doubles(frame, timeframe, where)
        _refuse_disorder(frame, where)
    _refuse_other_times(frame, timeframe, where)
    _refuse_values(frame, where)
    return frame


def _shaped(frame: pd.DataFrame, where: str) -> pd.DataFrame:
    if _is_shaped(frame):
        return frame.copy(deep=False)
    missing = [column for column in COLUMNS if column not in frame.columns]
    if missing:
        raise InvalidInput(f"{where} has no column {', '.join(missing)}; add it.")
    if not isinstance(frame.index, pd.DatetimeIndex) or frame.index.tz is None:
        raise InvalidInput(f"{where} has no open times in UTC; index its rows by aware times.")
    if frame.index.hasnans:
        raise InvalidInput(f"{where} has a row without an open time; remove it or complete it.")
    shaped = frame[list(COLUMNS)].astype("float64")
    shaped.index = frame.index.tz_convert("UTC").as_unit("ms").rename(TIME)
    if (shaped.index != frame.index).any():
        raise InvalidInput(f"{where} has open times finer than a millisecond; round them.")
    shaped.index.freq = None
    return shaped


def _is_shaped(frame: pd.DataFrame) -> bool:
    """Whether it came from the store, or from here, as most do: a decision reads four times."""
    index = frame.index
    return (
        isinstance(index, pd.DatetimeIndex)
        and (index.dtype, index.name, index.freq) == (_TIME_TYPE, TIME, None)
        and not index.hasnans
        and tuple(frame.columns) == COLUMNS
        and all(kind == np.float64 for kind in frame.dtypes)
    )


def _refuse_doubles(frame: pd.DataFrame, timeframe: str, where: str) -> None:
    doubled = frame.index.duplicated()
    if not doubled.any():
        return
    gaps = find_gaps(frame[~doubled].sort_index(), timeframe)
    also = (
        f", and {sum(gap.missing for gap in gaps)} candles missing in {len(gaps)} gaps, "
        f"the first from {_text(gaps[0].start)}"
        if gaps
        else ""
    )
    raise InvalidInput(
        f"{where} has {doubled.sum()} doubled rows, the first at "
        f"{_text(frame.index[doubled][0])}{also}; keep one row for each open time."
    )


def _refuse_disorder(frame: pd.DataFrame, where: str) -> None:
    if (back := np.flatnonzero(np.diff(open_ms(frame)) < 0)).size:
        raise InvalidInput(
            f"{where} is out of order: {_text(frame.index[back[0] + 1])} comes after "
            f"{_text(frame.index[back[0]])}; sort its rows by open time."
        )


def _refuse_other_times(frame: pd.DataFrame, timeframe: str, where: str) -> None:
    if (off := np.flatnonzero(~on_grid(open_ms(frame), timeframe))).size:
        raise InvalidInput(
            f"{where} has a row at {_text(frame.index[off[0]])}, which is not a {timeframe} open "
            f"time; check the timeframe."
        )


def _refuse_values(frame: pd.DataFrame, where: str) -> None:
    if _are_sound(frame.to_numpy()):
        return
    for column in COLUMNS:
        values = frame[column].to_numpy()
        _refuse_row(~np.isfinite(values), frame, column, "is not a finite number", where)
        if column == "volume":
            _refuse_row(values < 0, frame, column, "is negative", where)
        else:
            _refuse_row(values <= 0, frame, column, "is not above zero", where)
    open_, high, low, close = (frame[column].to_numpy() for column in PRICES)
    _refuse_row(high < low, frame, "high", "is below the low", where)
    _refuse_row(high < np.maximum(open_, close), frame, "high", "is below open or close", where)
    _refuse_row(low > np.minimum(open_, close), frame, "low", "is above open or close", where)


def _are_sound(values: np.ndarray) -> bool:
    """All that `_refuse_values` asks, at once: which column it is does not matter then."""
    open_, high, low, close, volume = values.T
    return bool(
        np.isfinite(values).all()
        and (low > 0).all()
        and (volume >= 0).all()
        and (low <= np.minimum(open_, close)).all()
        and (high >= np.maximum(open_, close)).all()
    )


def _refuse_row(bad: np.ndarray, frame: pd.DataFrame, column: str, what: str, where: str) -> None:
    if bad.any():
        row = int(bad.argmax())
        raise InvalidInput(
            f"{where}: the {column} {frame[column].iloc[row]:.12g} at {_text(frame.index[row])} "
            f"{what} ({bad.sum()} such rows); correct or remove them."
        )


def _text(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def find_gaps(frame: pd.DataFrame, timeframe: str) -> list[Gap]:
    """The holes between the first and the last candle of an ordered frame, oldest first."""
    return gaps_between(open_ms(frame), timeframe)


def gaps_between(times: np.ndarray, timeframe: str) -> list[Gap]:
    """The holes between open times (ms, in order), oldest first."""
    step = timeframe_ms(timeframe)
    return [
        Gap(
            from_ms(times[i] + step),
            from_ms(times[i + 1]),
            int(times[i + 1] - times[i]) // step - 1,
        )
        for i in np.flatnonzero(np.diff(times) > step)
    ]


def candles_hash(frame: pd.DataFrame) -> str:
    """SHA-256 of the open times (ms) and values as little-endian bytes, row after row."""
    table = np.empty(len(frame), dtype=[(TIME, "<i8"), *((column, "<f8") for column in COLUMNS)])
    table[TIME] = open_ms(frame)
    # Adding zero turns -0.0 into 0.0, which compares equal and must hash equal.
    values = candle_values(frame) + 0.0
    for place, column in enumerate(COLUMNS):
        table[column] = values[:, place]
    return hashlib.sha256(table.tobytes()).hexdigest()
