"""Candles to try a strategy on: a seeded random walk, or a file that the user brings."""

from __future__ import annotations

from pathlib import Path

from tradelib.candles.files import CandleFile, read_candle_file
from tradelib.candles.walk import random_candles

__all__ = ["load_sample", "random_candles"]


def load_sample(candle_file: str | Path | None, *, count: int = 1000, seed: int = 1) -> CandleFile:
    """The candle file, or, without one, `count` hourly candles of the random walk `seed`."""
    if candle_file:
        return read_candle_file(candle_file)
    return CandleFile(
        Path(f"random-walk-{seed}"), "WALK/USD", "1h", random_candles(count, seed=seed)
    )
