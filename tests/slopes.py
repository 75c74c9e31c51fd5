"""A small strategy of one's own, and the ways in which one can fail for some of its parameters."""

import math

import numpy as np
import pandas as pd
import pytest
from pydantic import Field

from tradelib.strategy.base import Strategy
from tradelib.strategy.params import Params


class SlopeParams(Params):
    window: int = Field(10, ge=1)
    full: float = 1.0


def slope(candles, params):
    change = candles["close"].pct_change(params.window) * 20 / params.full
    return pd.DataFrame({"score": change.clip(-1, 1)})


def plain(compute=slope, warm_up=lambda params: params.window):
    return Strategy("slope", SlopeParams, compute, warm_up, warm_up)


def spoilt(spoil):
    """The slope, spoilt where the window is 10."""

    def compute(candles, params):
        scores = slope(candles, params)
        return spoil(scores) if params.window == 10 else scores

    return compute


def changed(row, value):
    return spoilt(lambda scores: scores.where(np.arange(len(scores))[:, None] != row, value))


@spoilt
def raising(scores):
    raise ZeroDivisionError("of all things")


FAILING = [
    pytest.param(raising, "ZeroDivisionError", id="raises"),
    pytest.param(changed(40, math.nan), "score nan at 2026-01-02T16:00Z, candle 40", id="nan"),
    pytest.param(changed(41, math.inf), "score inf at 2026-01-02T17:00Z", id="inf"),
    pytest.param(changed(42, -1.25), "score -1.25 at 2026-01-02T18:00Z", id="outside"),
    pytest.param(changed(2, 7.0), "score 7 at 2026-01-01T02:00Z", id="outside in warm-up"),
    pytest.param(spoilt(lambda scores: scores.iloc[7:]), "scores for", id="length"),
    pytest.param(
        spoilt(lambda scores: scores.rename(columns={"score": "s"})), "score", id="no column"
    ),
]
