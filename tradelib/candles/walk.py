"""Candles of a market that is pure chance, the same for the same seed."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pandas as pd

from tradelib.candles.schema import candles_from_arrays
from tradelib.clock import timeframe_ms, to_ms

START = datetime(2026, 1, 1, tzinfo=UTC)


def random_candles(
    count: int,
    *,
    seed: int,
    timeframe: str = "1h",
    start: datetime = START,
    price: float = 100.0,
    volatility: float = 0.01,
) -> pd.DataFrame:
    """Candles of a geometric random walk without drift, the same for the same seed.

    volatility: standard deviation of one candle's logarithmic return.
    """
    random = np.random.default_rng(seed)
    close = price * np.exp(np.cumsum(random.normal(-(volatility**2) / 2, volatility, count)))
    open_ = np.concatenate([[price], close])[:count]
    reach = np.abs(random.normal(0, volatility / 2, (2, count)))
    high = np.maximum(open_, close) * (1 + reach[0])
    low = np.minimum(open_, close) / (1 + reach[1])
    times = to_ms(start) + np.arange(count, dtype="int64") * timeframe_ms(timeframe)
    return candles_from_arrays(times, open_, high, low, close, random.gamma(2, 10, count))
