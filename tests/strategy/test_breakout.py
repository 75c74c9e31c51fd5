"""Breakouts: the channel by hand, and against a machine that walks from candle to candle."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.strategy.markets import path_candles, torn_candles
from tradelib.errors import InvalidInput
from tradelib.research.samples import random_candles
from tradelib.strategy.registry import strategy

BREAKOUT = strategy("breakout")


def scores(closes, reach=0.0, **values):
    params = BREAKOUT.params(**values)
    return BREAKOUT.score(path_candles(closes, reach), params)["score"].tolist()


def walked(candles, window, exit_window, hold):
    """The state of one who sees a candle at a time and remembers his breakout."""
    highs, lows, closes = (candles[name].to_numpy() for name in ("high", "low", "close"))
    state, since, found = 0, 0, []
    for row, close in enumerate(closes):
        if row < window:
            found.append(math.nan)
            continue
        ahead = slice(row - exit_window, row)
        if (state > 0 and close < lows[ahead].min()) or (state < 0 and close > highs[ahead].max()):
            state = 0
        if close > highs[row - window : row].max():
            state, since = 1, row
        elif close < lows[row - window : row].min():
            state, since = -1, row
        elif row - since >= hold:
            state = 0
        found.append(state)
    return found


def test_a_breakout_lasts_until_the_exit_channel_is_crossed():
    closes = [9, 11, 10, 12, 11, 11.5, 10.5, 11, 9]
    found = scores(closes, window=4, exit_window=2)
    assert np.isnan(found[:4]).all()
    # 10.5 is below both candles before it and not below all four; 9 is below them all.
    assert found[4:] == [0, 0, 0, 0, -1]
    # Above 11 it begins.
    assert scores(closes, window=3, exit_window=2)[3:] == [1, 1, 1, -1, -1, -1]
    assert scores([9, *closes], window=4, exit_window=2)[4:] == [1, 1, 1, 0, 0, -1]


def test_a_fall_is_the_mirror_of_a_rise():
    closes = np.array([9, 9, 11, 10, 12, 11, 11.5, 10.5, 11, 9])
    up, down = (scores(path, window=4, exit_window=2) for path in (closes, 20 - closes))
    assert down[4:] == [-score for score in up[4:]] == [-1, -1, -1, 0, 0, 1]


def test_a_close_at_the_channels_edge_is_no_breakout():
    assert scores([10, 11, 11, 10, 10], window=3, exit_window=1)[3:] == [0, 0]
    assert scores([10, 11, 11, 11], window=2, exit_window=1)[2:] == [0, 0]


def test_the_channel_is_of_highs_and_lows():
    assert scores([10, 10, 10.9], reach=1.0, window=2, exit_window=1)[2] == 0
    assert scores([10, 10, 11.1], reach=1.0, window=2, exit_window=1)[2] == 1


def test_the_candle_itself_is_not_in_its_channel():
    # Its own high is above its close, and would forbid any breakout.
    assert scores([10, 10, 14], reach=3.0, window=2, exit_window=1)[2] == 1


def test_a_breakout_counts_for_so_many_candles_and_a_new_one_counts_anew():
    closes = [10, 12, 11.5, 11.6, 11.7, 11.8]
    assert scores(closes, window=1, exit_window=1, hold=3)[1:] == [1, -1, 1, 1, 1]
    quiet = [10, 10, 12, 11, 11, 11, 11]
    assert scores(quiet, window=2, exit_window=2, hold=3)[2:] == [1, 1, 1, 0, 0]
    renewed = [10, 10, 12, 13, 12, 12, 12]
    assert scores(renewed, window=2, exit_window=2, hold=3)[2:] == [1, 1, 1, 1, 0]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 30), st.integers(1, 30), st.integers(1, 60))
def test_it_equals_a_machine_that_walks(seed, one, other, hold):
    window, exit_window = max(one, other), min(one, other)
    candles = torn_candles(300, seed=seed) if seed % 2 else random_candles(200, seed=seed)
    params = BREAKOUT.params(window=window, exit_window=exit_window, hold=hold)
    found = BREAKOUT.score(candles, params)["score"]
    np.testing.assert_array_equal(found, walked(candles, window, exit_window, hold))


def test_an_exit_wider_than_the_entry_is_refused():
    with pytest.raises(InvalidInput, match="exit_window = 30 must not exceed window = 20"):
        BREAKOUT.params(exit_window=30)
