"""Mean reversion: bands by hand, and a filter that holds back purchases alone."""

import math

import numpy as np
import pytest

from tests.strategy.markets import path_candles
from tradelib.research.samples import random_candles
from tradelib.strategy.indicators import bollinger
from tradelib.strategy.registry import strategy

MEAN_REVERSION = strategy("mean_reversion")


def scores(closes, **values):
    params = MEAN_REVERSION.params(**values)
    return MEAN_REVERSION.score(path_candles(closes), params)["score"].tolist()


def test_the_score_is_the_distance_in_deviations_over_the_width():
    # Of 10, 10, 13 the mean is 11 and the population's standard deviation the root of 2.
    found = scores([10, 10, 13], window=3, width=4)
    assert np.isnan(found[:2]).all()
    assert found[2] == pytest.approx(-2 / math.sqrt(2) / 4)


def test_a_close_at_or_beyond_a_band_scores_in_full():
    # One of two values is always one deviation away.
    assert scores([10, 12, 10], window=2, width=1)[1:] == [-1, 1]
    assert scores([10, 12, 10], window=2, width=0.5)[1:] == [-1, 1]
    assert scores([10, 12, 10], window=2, width=2)[1:] == [-0.5, 0.5]


def test_the_bands_are_bollingers():
    candles = random_candles(1000, seed=1)
    found = MEAN_REVERSION.score(candles)["score"]
    bands = bollinger(candles["close"])
    assert (found[candles["close"] <= bands["lower"]] == 1).sum() > 3
    assert (found[candles["close"] >= bands["upper"]] == -1).sum() > 3
    inside = candles["close"].between(bands["lower"], bands["upper"], inclusive="neither")
    assert (found[inside].abs() < 1).all()


def test_below_the_long_average_nothing_is_bought_and_all_is_sold():
    closes = [20, 18, 16, 14, 12, 13]
    free = scores(closes, window=2, width=2)
    held = scores(closes, window=2, width=2, trend_window=4)
    assert free[3:] == [0.5, 0.5, -0.5]
    assert np.isnan(held[:3]).all()
    assert held[3:] == [0, 0, -0.5]


def test_above_the_long_average_the_filter_changes_nothing():
    closes = [10, 12, 14, 20, 19, 24]
    held = scores(closes, window=2, width=2, trend_window=4)
    assert held[3:] == scores(closes, window=2, width=2)[3:] == [-0.5, 0.5, -0.5]
