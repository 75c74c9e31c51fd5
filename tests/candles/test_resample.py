"""Resampling: labels, ends and holes, by hand and against pandas."""

import numpy as np
import pandas as pd
import pytest

from tests.strategy.markets import torn_candles
from tradelib.candles.resample import resample
from tradelib.candles.schema import candles_from_rows, empty_candles, open_ms, validate_candles
from tradelib.errors import InvalidInput
from tradelib.research.samples import random_candles

QUARTER = 900_000
NOON = 1_767_268_800_000  # 2026-01-01T12:00Z, a Thursday


def quarters(*numbers):
    """Candles of 15m, counted from noon; the n-th opens at 100 + n and closes at 101 + n."""
    return candles_from_rows(
        [(NOON + n * QUARTER, 100 + n, 102 + n, 99 + n, 101 + n, 1 + n) for n in numbers]
    )


def told(frame):
    hours = ((open_ms(frame) - NOON) // (4 * QUARTER)).tolist()
    return list(zip(hours, *(frame[name] for name in frame.columns), strict=True))


def test_an_hour_is_labelled_by_its_open_and_made_of_four_quarters():
    found = resample(quarters(*range(8)), "1h")
    assert told(found) == [(0, 100, 105, 99, 104, 10), (1, 104, 109, 103, 108, 26)]
    validate_candles(found, "1h", "resampled")


def test_an_hour_that_has_not_closed_is_left_out():
    assert [row[0] for row in told(resample(quarters(*range(7)), "1h"))] == [0]


def test_an_hour_whose_beginning_is_not_there_is_left_out():
    assert [row[0] for row in told(resample(quarters(*range(1, 8)), "1h"))] == [1]
    assert resample(quarters(1, 2, 3), "1h").empty
    assert resample(quarters(0, 1, 2), "1h").empty


def test_a_hole_within_an_hour_leaves_what_there_is_and_an_hour_without_candles_is_none():
    found = told(resample(quarters(0, 2, 3, 8, 11), "1h", "15m"))
    assert found == [(0, 100, 105, 99, 104, 8), (2, 108, 113, 107, 112, 21)]


def test_later_candles_change_no_earlier_hour():
    candles = torn_candles(600, seed=4, timeframe="1m")
    whole = resample(candles, "15m", "1m")
    for end in range(1, 600, 37):
        part = resample(candles.iloc[:end], "15m", "1m")
        pd.testing.assert_frame_equal(part, whole.iloc[: len(part)])


@pytest.mark.parametrize(("timeframe", "to"), [("1m", "5m"), ("1m", "1h"), ("1h", "1d"),
                                               ("1d", "1w"), ("5m", "45m")])  # fmt: skip
def test_it_equals_what_pandas_resamples(timeframe, to):
    candles = torn_candles(1500, seed=5, timeframe=timeframe).iloc[3:]
    rule = {"1w": "W-MON"}.get(to, to.replace("m", "min").replace("d", "D"))
    begin = {} if to[-1] in "dw" else {"origin": "epoch"}
    expected = candles.resample(rule, label="left", closed="left", **begin).agg(
        {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}
    )
    expected = expected.dropna()
    found = resample(candles, to, timeframe)
    assert len(found) >= len(expected) - 2
    assert found.index.isin(expected.index).all()
    np.testing.assert_allclose(found, expected.loc[found.index], rtol=1e-12)


def test_weeks_open_on_monday():
    assert set(resample(random_candles(60, seed=1, timeframe="1d"), "1w").index.day_name()) == {
        "Monday"
    }


def test_the_same_timeframe_is_the_same_candles():
    pd.testing.assert_frame_equal(resample(quarters(0, 1, 5), "15m"), quarters(0, 1, 5))


def test_no_candles_are_no_coarser_ones():
    assert resample(empty_candles(), "1h").empty


@pytest.mark.parametrize("to", ["20m", "10m", "1m"])
def test_a_timeframe_that_the_candles_do_not_fill_is_refused(to):
    with pytest.raises(InvalidInput, match=to):
        resample(quarters(0, 1), to)


def test_one_candle_alone_must_be_told_its_timeframe():
    with pytest.raises(InvalidInput, match="name the one"):
        resample(quarters(0), "1h")
    assert resample(quarters(0), "1h", "15m").empty
