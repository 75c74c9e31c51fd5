"""Indicators equal TA-Lib's, on random walks and on real candles."""

import math
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import talib

from tradelib.candles.files import read_candle_file
from tradelib.research.samples import random_candles
from tradelib.strategy.indicators import (
    atr,
    bollinger,
    ema,
    macd,
    root_mean_square,
    rsi,
    settling,
    sma,
    wilder,
)

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
FILES = [
    "binance_ADA-BTC_5m.csv",
    "binance_ETH-BTC_5m.csv",
    "binance_LTC-BTC_5m.csv",
    "binance_XMR-BTC_5m.csv",
    "coinbase_BTC-USD_1h.csv",
]


def load(name):
    if isinstance(name, int):
        return random_candles(2000, seed=name)
    if not DATA.exists() and os.environ.get("CI") != "true":
        pytest.skip("sample files absent")
    return read_candle_file(DATA / name).frame


def same(ours, theirs, scale):
    """Equal to 1e-9 of the price (or of the index's span), NaN in the same places."""
    np.testing.assert_array_equal(np.isnan(ours), np.isnan(theirs))
    np.testing.assert_allclose(ours / scale, theirs / scale, rtol=0, atol=1e-9)


@pytest.mark.parametrize("source", [*FILES, 1, 2, 3])
@pytest.mark.parametrize("window", [2, 5, 14, 50])
def test_indicators_equal_talibs(source, window):
    candles = load(source)
    close, scale = candles["close"], candles["close"].to_numpy()
    high, low = candles["high"], candles["low"]
    same(sma(close, window), talib.SMA(close, window), scale)
    same(ema(close, window), talib.EMA(close, window), scale)
    same(rsi(close, window), talib.RSI(close, window), 100)
    same(atr(candles, window), talib.ATR(high, low, close, window), scale)


@pytest.mark.parametrize("source", [*FILES, 1, 2, 3])
@pytest.mark.parametrize("windows", [(12, 26, 9), (3, 10, 16), (5, 35, 5)])
def test_macd_equals_talibs(source, windows):
    close = load(source)["close"]
    for ours, theirs in zip(
        macd(close, *windows).items(), talib.MACD(close, *windows), strict=True
    ):
        same(ours[1], theirs, close)


@pytest.mark.parametrize("source", [*FILES, 1, 2, 3])
@pytest.mark.parametrize("window", [10, 20, 35])
def test_bands_equal_talibs_and_the_definition(source, window):
    close = load(source)["close"]
    bands = bollinger(close, window)
    spread = np.lib.stride_tricks.sliding_window_view(close, window).std(axis=1)
    same((bands["upper"] - bands["middle"])[window - 1 :], 2 * spread, close[window - 1 :])
    for ours, theirs in zip(bands.items(), talib.BBANDS(close, window, 2.0, 2.0), strict=True):
        # TA-Lib subtracts squares, which costs it half of the digits where the price stood still.
        same(ours[1], theirs, close * 10)


@pytest.mark.parametrize("length", [0, 1, 5, 14])
def test_too_few_candles_give_nothing_but_nan(length):
    candles = random_candles(100, seed=1).iloc[:length]
    close = candles["close"]
    for values in (rsi(close, 14), atr(candles, 14), ema(close, 15), sma(close, 15)):
        assert len(values) == length
        assert values.isna().all()
    assert macd(close).isna().all(axis=None)


def test_rsi_knows_rise_fall_and_stillness():
    rise = pd.Series(np.arange(1.0, 40))
    assert rsi(rise).iloc[-1] == 100
    assert rsi(rise[::-1].reset_index(drop=True)).iloc[-1] == 0
    assert rsi(rise * 0 + 5).iloc[-1] == 50


@pytest.mark.parametrize("alpha", [1 / 14, 2 / 27, 0.5])
def test_a_seed_is_forgotten_after_settling(alpha):
    assert (1 - alpha) ** settling(alpha) <= 1e-12 < (1 - alpha) ** (settling(alpha) - 2)


def test_a_late_start_gives_the_same_values_once_settled():
    close = random_candles(2000, seed=4)["close"]
    late = close.iloc[-14 - settling(1 / 14) :]
    assert wilder(late, 14).iloc[-1] == pytest.approx(wilder(close, 14).iloc[-1], rel=1e-11)


def test_what_a_market_did_before_leaves_no_rest_in_its_noise():
    """As running sums do, where a market falls still after a storm."""
    storm = np.random.default_rng(1).normal(0, 0.004, 400).tolist()
    values = pd.Series([*storm, -0.0065, 0.0, 3.3e-7, 0.0, -3.3e-7, *[0.0] * 8])
    noise = root_mean_square(values, 6)
    for row in range(400, len(values)):
        window = values.iloc[row - 5 : row + 1]
        expected = math.sqrt((window**2).mean())
        assert noise[row] == pytest.approx(expected, rel=1e-13, abs=0)
        assert root_mean_square(window, 6).iloc[-1] == pytest.approx(expected, rel=1e-13, abs=0)
    assert noise.iloc[-1] == 0.0


@pytest.mark.parametrize("length", [0, 1, 5, 6, 7, 11, 12, 13, 40])
def test_noise_is_the_root_of_the_windows_mean_square(length):
    values = pd.Series(np.random.default_rng(length).normal(size=length))
    values[3:4] = np.nan
    expected = np.sqrt((values**2).rolling(6).mean())
    pd.testing.assert_series_equal(root_mean_square(values, 6), expected, rtol=1e-12)
