"""Candles to try a strategy on: a seeded random walk, or a file that the user brings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tradelib.candles.files import CandleFile, read_candle_file
from tradelib.candles.walk import random_candles

__all__ = ["load_sample", "random_candles"]


def load_samples(
    candle_files: Sequence[str | Path], *, count: int = 1000, seed: int = 1, symbols: int = 4
) -> list[CandleFile]:
    """The candle files, or, without any, so many random walks that move together in part.

    Each walk has a volatility of its own, from half to one and a half of the usual.
    """
    if candle_files:
        return [read_candle_file(file) for file in candle_files]
    common = np.log(random_candles(count, seed=seed, volatility=0.007)["close"] / 100.0)
    found = []
    for number in range(symbols):
        volatility = 0.007 * (0.5 + number / max(symbols - 1, 1))
        own = random_candles(count, seed=seed * 1000 + number, volatility=volatility)
        candles = own.mul(np.exp(common), axis=0).assign(volume=own["volume"])
        name = f"random-walk-{seed}-{number + 1}"
        found.append(CandleFile(Path(name), f"WALK{number + 1}/USD", "1h", candles))
    return found


def load_sample(candle_file: str | Path | None, *, count: int = 1000, seed: int = 1) -> CandleFile:
    """The candle file, or, without one, `count` hourly candles of the random walk `seed`."""
    if candle_file:
        return read_candle_file(candle_file)
    return CandleFile(
        Path(f"random-walk-{seed}"), "WALK/USD", "1h", random_candles(count, seed=seed)
    )
