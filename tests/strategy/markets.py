"""Markets to try strategies on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from tradelib.candles.schema import candles_from_rows
from tradelib.research.samples import random_candles

HOUR = 3_600_000


def path_candles(closes: Sequence[float], reach: float = 0.0, step: int = HOUR) -> pd.DataFrame:
    """Candles since 1970 that close so, `reach` from high to close and from close to low."""
    return candles_from_rows(
        [(i * step, c, c + reach, c - reach, c, 1) for i, c in enumerate(closes)]
    )


def torn_candles(count: int, *, seed: int, **more: Any) -> pd.DataFrame:
    """`random_candles` of which a tenth is missing here and there, and three long stretches."""
    candles = random_candles(count, seed=seed, **more)
    random = np.random.default_rng(seed)
    keep = random.random(count) > 0.1
    for start in random.integers(0, count, 3):
        keep[start : start + 50] = False
    return candles[keep]
