"""Candles as columns, and how short ones make long ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tradelib.clock import timeframe_ms

MINUTE = 60_000
DAY = 86_400_000
# Weeks begin on Monday at the exchange; 1970 began on a Thursday.
_FIRST_MONDAY = 4 * DAY

INTERVALS = (
    "1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "3d", "1w", "1M",
)  # fmt: skip


@dataclass(frozen=True)
class Candles:
    """Open times in ms, ascending; prices in quote; volumes in base units."""

    time: np.ndarray
    open: np.ndarray
    high: np.ndarray
    low: np.ndarray
    close: np.ndarray
    volume: np.ndarray

    @classmethod
    def empty(cls) -> Candles:
        none = np.empty(0)
        return cls(np.empty(0, dtype=np.int64), none, none, none, none, none)

    @classmethod
    def concatenate(cls, parts: list[Candles]) -> Candles:
        if not parts:
            return cls.empty()
        if len(parts) == 1:
            return parts[0]
        columns = zip(*(part.columns for part in parts), strict=True)
        return cls(*(np.concatenate(each) for each in columns))

    @property
    def columns(self) -> tuple[np.ndarray, ...]:
        return self.time, self.open, self.high, self.low, self.close, self.volume

    def __len__(self) -> int:
        return len(self.time)

    def __getitem__(self, rows: slice | np.ndarray) -> Candles:
        return Candles(*(column[rows] for column in self.columns))

    def between(self, start: int, end: int) -> Candles:
        """Those that open at `start` or later and before `end`, in ms."""
        first, last = np.searchsorted(self.time, (start, end))
        return self[first:last]

    def grouped(self, starts: np.ndarray) -> Candles:
        """One candle for each distinct value of `starts`, which is ascending, one per row."""
        if not len(self):
            return self
        first = np.flatnonzero(np.r_[True, starts[1:] != starts[:-1]])
        last = np.r_[first[1:], len(self)] - 1
        return Candles(
            starts[first],
            self.open[first],
            np.maximum.reduceat(self.high, first),
            np.minimum.reduceat(self.low, first),
            self.close[last],
            np.add.reduceat(self.volume, first),
        )

    def aggregate(self, interval: str) -> Candles:
        """The candles of a longer interval that these make up."""
        return self.grouped(interval_starts(self.time, interval))


def interval_starts(times: np.ndarray, interval: str) -> np.ndarray:
    """The open time, in ms, of the candle of `interval` that holds each time."""
    if interval == "1M":
        months = times.astype("datetime64[ms]").astype("datetime64[M]")
        return months.astype("datetime64[ms]").astype(np.int64)
    step, offset = interval_ms(interval), _FIRST_MONDAY if interval == "1w" else 0
    return (times - offset) // step * step + offset


def interval_start(time: int, interval: str) -> int:
    return int(interval_starts(np.array([time], dtype=np.int64), interval)[0])


def interval_end(start: int, interval: str) -> int:
    """The open time of the candle after the one that opens at `start`."""
    if interval != "1M":
        return start + interval_ms(interval)
    month = np.datetime64(start, "ms").astype("datetime64[M]") + 1
    return int(month.astype("datetime64[ms]").astype(np.int64))


def interval_ms(interval: str) -> int:
    """Length in ms; of a month, the longest."""
    return 31 * DAY if interval == "1M" else timeframe_ms(interval)
