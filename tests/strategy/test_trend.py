"""Trend on several timeframes: by hand, and against coarser candles made by pandas."""

import math

import numpy as np
import pandas as pd
import pytest

from tests.strategy.markets import HOUR, path_candles, torn_candles
from tradelib.clock import timeframe_ms
from tradelib.errors import InvalidInput
from tradelib.research.samples import random_candles
from tradelib.strategy.registry import strategy

TREND = strategy("trend")
SMALL = {
    "fast_window": 1, "slow_window": 2, "range_window": 1, "full": 1.0,
    "middle_multiple": 2, "coarse_multiple": 3,
}  # fmt: skip


def trend(candles, **values):
    return TREND.score(candles, TREND.params(**{**SMALL, **values}))


def resampled(candles, length, fast_window, slow_window, range_window):
    """The distance at each close of a coarser candle, by pandas; the first candle is left out."""
    bars = candles.resample(pd.Timedelta(length, "ms"), origin="epoch").agg(
        {"high": "max", "low": "min", "close": "last"}
    )
    bars = bars.dropna().iloc[1:]
    before = bars["close"].shift()
    reach = pd.concat([bars["high"], before], axis=1).max(axis=1)
    reach -= pd.concat([bars["low"], before], axis=1).min(axis=1)
    means = [bars["close"].rolling(window).mean() for window in (fast_window, slow_window)]
    distance = (means[0] - means[1]) / reach.where(before.notna()).rolling(range_window).mean()
    return pd.Series(distance.to_numpy(), index=bars.index + pd.Timedelta(length, "ms"))


def test_the_distance_of_the_averages_is_counted_in_true_ranges():
    scores = trend(path_candles([1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 3, 6]), range_window=2)
    # Averages of 6 and (3 + 6) / 2; true ranges of 1 and 3.
    assert scores["own"].iloc[-1] == pytest.approx(1.5 / 2)
    # Candles of two hours close at 1, 2 and 6.
    assert scores["middle"].iloc[-1] == pytest.approx(2 / 2.5)
    # Of three hours at 1, 2 and 6, and the first of 1, which is left out.
    assert scores["coarse"].iloc[-1] == pytest.approx(2 / 2.5)
    assert scores["score"].iloc[-1] == pytest.approx(0.25 * 0.75 + 0.25 * 0.8 + 0.5 * 0.8)


def test_each_timeframe_counts_for_no_more_than_its_weight():
    closes = [1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 3, 6]
    weights = {"own_weight": 1.0, "middle_weight": 0.0, "coarse_weight": 0.0}
    found = trend(path_candles(closes), full=0.1, **weights)["score"]
    assert found.iloc[-1] == 1
    found = trend(path_candles([7 - close for close in closes]), full=0.1, **weights)["score"]
    assert found.iloc[-1] == -1


# Of three hours each, closed at 3:00, 6:00, 9:00 and 12:00, the last with a jump at 10:00.
FALLING = [9, 9, 9, 8, 8, 8, 7, 7, 7, 7, 20, 20, 20]


def test_a_coarser_candle_counts_from_its_close():
    coarse = trend(path_candles(FALLING))["coarse"]
    assert coarse.iloc[8:].tolist() == [-0.5, -0.5, -0.5, 0.5, 0.5]


def test_a_coarser_candle_without_its_last_one_counts_from_the_next_candle_there_is():
    candles = path_candles(FALLING)
    coarse = trend(candles.drop(candles.index[11]))["coarse"]
    assert coarse.iloc[8:].tolist() == [-0.5, -0.5, -0.5, 0.5]
    assert coarse.index[-1] == candles.index[12]


def test_a_coarser_candle_without_any_candle_is_none():
    candles = path_candles([9, 9, 9, 9, 9, 9, 8, 8, 8, 8, 8, 8, 7, 7, 7])
    coarse = trend(candles.drop(candles.index[9:12]), slow_window=3)["coarse"]
    # The average is that of 9, 8 and 7.
    assert coarse.iloc[-1] == -1


@pytest.mark.parametrize(("timeframe", "middle", "coarse"), [("1m", 5, 60), ("1h", 4, 24),
                                                             ("1d", 2, 5)])  # fmt: skip
@pytest.mark.parametrize("seed", [1, 2])
def test_it_equals_candles_that_pandas_resampled(timeframe, middle, coarse, seed):
    candles = torn_candles(2000, seed=seed, timeframe=timeframe).iloc[7:]
    windows = (3, 7, 5)
    scores = trend(
        candles, fast_window=3, slow_window=7, range_window=5, middle_multiple=middle,
        coarse_multiple=coarse,
    )  # fmt: skip
    step = timeframe_ms(timeframe)
    for name, multiple in (("middle", middle), ("coarse", coarse)):
        told = resampled(candles, step * multiple, *windows)
        closes = candles.index + pd.Timedelta(step, "ms")
        expected = told.reindex(closes, method="ffill").to_numpy()
        found = scores[name].to_numpy()
        known = ~np.isnan(found)
        assert known.sum() > 1000
        np.testing.assert_allclose(found[known], expected[known], rtol=0, atol=1e-9)


def test_weeks_of_days_begin_on_monday():
    coarse = trend(random_candles(60, seed=1, timeframe="1d"), coarse_multiple=7)["coarse"]
    changed = coarse.diff().fillna(0) != 0
    assert changed.sum() > 3
    assert set(coarse.index[changed].day_name()) == {"Sunday"}


def test_candles_that_come_closer_later_do_not_change_what_was_scored():
    candles = random_candles(80, seed=2)
    sparse = candles.drop(candles.index[1:40:2])
    whole, part = trend(sparse), trend(sparse.iloc[:20])
    assert part["score"].notna().sum() > 3
    pd.testing.assert_frame_equal(whole.iloc[:20], part)


def test_the_score_does_not_depend_on_where_in_a_coarser_candle_the_data_begin():
    candles = random_candles(1000, seed=3)
    whole = TREND.score(candles)["score"]
    for start in range(1, 25):
        found = TREND.score(candles.iloc[start:])["score"].dropna()
        assert len(found) == 1000 - start - 743
        np.testing.assert_allclose(found, whole[found.index], rtol=0, atol=1e-12)


def test_a_market_that_rises_on_every_timeframe_scores_one():
    candles = path_candles(np.exp(np.linspace(0, 2, 1000)), step=HOUR)
    assert TREND.score(candles)["score"].iloc[-1] == 1
    falling = path_candles(np.exp(np.linspace(2, 0, 1000)), step=HOUR)
    assert TREND.score(falling)["score"].iloc[-1] == -1


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"own_weight": 0.5}, r"sum to 1; they sum to 1\.25"),
        ({"fast_window": 30}, "fast_window = 30 must be less than slow_window = 30"),
        ({"middle_multiple": 24}, "middle_multiple = 24 must be less than coarse_multiple = 24"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(values, words):
    with pytest.raises(InvalidInput, match=words):
        TREND.params(**values)


def test_fewer_candles_than_it_needs_have_no_score():
    candles = random_candles(744, seed=1)
    assert TREND.score(candles.iloc[:743])["score"].isna().all()
    assert not math.isnan(TREND.score(candles)["score"].iloc[-1])
