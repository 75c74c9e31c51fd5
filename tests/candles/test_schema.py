"""The shape of candles: what is refused, what is a gap, what the hash holds fast."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradelib.candles.schema import (
    candles_from_rows,
    candles_hash,
    empty_candles,
    find_gaps,
    validate_candles,
)
from tradelib.clock import floor_time, parse_time
from tradelib.errors import InvalidInput

HOUR = 3_600_000
START = 1_767_225_600_000


def hourly(*hours, price=100.0):
    return candles_from_rows(
        [(START + hour * HOUR, price, price + 2, price - 2, price + 1, 5) for hour in hours]
    )


def refusal(frame, timeframe="1h"):
    with pytest.raises(InvalidInput) as caught:
        validate_candles(frame, timeframe, "paper BTC/USDT")
    assert str(caught.value).startswith("paper BTC/USDT")
    return str(caught.value)


def changed(column, value, row=1):
    frame = hourly(0, 1, 2)
    frame.iloc[row, frame.columns.get_loc(column)] = value
    return frame


def test_good_candles_pass_in_their_exact_shape():
    frame = hourly(0, 1, 2).rename_axis("time")[["close", "open", "high", "low", "volume"]]
    frame.index = frame.index.as_unit("us")
    valid = validate_candles(frame, "1h", "here")
    pd.testing.assert_frame_equal(valid, hourly(0, 1, 2))


def test_no_candles_are_valid_candles():
    assert validate_candles(empty_candles(), "1h", "here").empty


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("close", np.nan, "not a finite number"),
        ("high", np.inf, "not a finite number"),
        ("low", 0.0, "not above zero"),
        ("open", -1.0, "not above zero"),
        ("volume", -1.0, "negative"),
        ("high", 97.0, "below the low"),
        ("high", 100.5, "below open or close"),
        ("low", 100.5, "above open or close"),
    ],
)
def test_an_impossible_value_is_refused_with_its_row(column, value, words):
    message = refusal(changed(column, value))
    assert words in message
    assert "2026-01-01T01:00:00Z" in message


def test_doubles_disorder_and_times_off_the_grid_are_refused():
    assert "1 doubled rows" in refusal(hourly(0, 1, 1, 2))
    assert "1 doubled rows" in refusal(hourly(0, 1, 2, 1))
    assert "out of order" in refusal(hourly(0, 2, 1))
    assert "not a 4h open time" in refusal(hourly(0, 1), "4h")


def test_naive_times_and_missing_columns_are_refused():
    assert "UTC" in refusal(hourly(0, 1).tz_localize(None))
    assert "no column volume" in refusal(hourly(0, 1).drop(columns="volume"))


def test_weekly_candles_open_on_monday():
    monday = int(pd.Timestamp("2026-01-05", tz="UTC").timestamp() * 1000)
    assert len(validate_candles(candles_from_rows([(monday, 1, 1, 1, 1, 0)]), "1w", "here")) == 1
    assert floor_time(parse_time("2026-01-07T12:00"), "1w") == parse_time("2026-01-05")


@given(st.sets(st.integers(0, 60), min_size=2))
def test_candles_and_gaps_together_cover_the_range(hours):
    gaps = find_gaps(hourly(*sorted(hours)), "1h")
    assert len(hours) + sum(gap.missing for gap in gaps) == max(hours) - min(hours) + 1
    assert all((gap.end - gap.start).total_seconds() == gap.missing * 3600 for gap in gaps)


def test_the_hash_is_the_same_on_every_machine():
    known = "f5c71b294784c465"
    frame = hourly(0, 1, 2)
    assert candles_hash(frame) == candles_hash(frame.copy())
    frame.index = frame.index.as_unit("ns")
    assert candles_hash(frame)[:16] == known


@given(st.sampled_from(["open", "high", "low", "close", "volume"]), st.integers(0, 2))
def test_the_hash_tells_the_smallest_change(column, row):
    frame = hourly(0, 1, 2)
    value = frame[column].iloc[row]
    assert candles_hash(changed(column, np.nextafter(value, 1e9), row)) != candles_hash(frame)


def test_the_hash_tells_a_shift_in_time():
    assert candles_hash(hourly(0, 1)) != candles_hash(hourly(1, 2))
