"""Indicators as traders know them: Wilder's smoothing, and TA-Lib's seeds.

Each takes and returns pandas objects on the candles' index and is NaN while it warms up. All but
`rsi` in a market that never moved equal TA-Lib's. A first value rests on the window it began
with; how fast a smoothed one forgets that is told by `settling`.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd


def sma(values: pd.Series, window: int) -> pd.Series:
    """Simple moving average, in the values' unit; the first at the window's last value.

    SMA_t = (x_t + … + x_(t-n+1)) / n
    """
    return values.rolling(window).mean()


def ema(values: pd.Series, window: int) -> pd.Series:
    """Exponential moving average, in the values' unit, seeded with the first window's SMA.

    EMA_t = EMA_(t-1) + (x_t - EMA_(t-1)) * 2 / (n + 1). Source: TA-Lib, TA_EMA.
    """
    return _smoothed(values, window, 2 / (window + 1))


def root_mean_square(values: pd.Series, window: int) -> pd.Series:
    """Root of the window's mean square, in the values' unit: their standard deviation around zero.

    Each window is summed for itself. A running sum keeps a rest of all that it ever held, which is
    as large as the truth where a market falls still after a storm.
    """
    squares, count = values.to_numpy(dtype="float64") ** 2, len(values)
    means = np.full(count, np.nan)
    if count >= window:
        # A window is the end of one block and the beginning of the next, each summed within.
        blocks = np.zeros(-(-count // window) * window)
        blocks[:count] = squares
        blocks = blocks.reshape(-1, window)
        heads = blocks.cumsum(axis=1).ravel()[window - 1 : count]
        tails = blocks[:, ::-1].cumsum(axis=1)[:, ::-1].ravel()[: count - window + 1]
        whole = np.arange(count - window + 1) % window == 0
        means[window - 1 :] = np.where(whole, heads, heads + tails) / window
    return pd.Series(np.sqrt(means), index=values.index)


def rsi(close: pd.Series, window: int = 14) -> pd.Series:
    """Relative strength index, 0…100; the first after `window` changes of the close.

    RSI = 100 * G / (G + L), where G and L are the means of gains and losses in Wilder's smoothing,
    each loss counted positive. 50 while the close has never moved (TA-Lib says 0, which would
    read as oversold). Source: J. W. Wilder, New Concepts in Technical Trading Systems, 1978.
    """
    change = close.diff()
    gain = wilder(change.clip(lower=0), window)
    loss = wilder(-change.clip(upper=0), window)
    return (100 * gain / (gain + loss)).where(gain + loss != 0, 50.0).where(gain.notna())


def macd(close: pd.Series, fast: int = 12, slow: int = 26, signal: int = 9) -> pd.DataFrame:
    """Moving average convergence divergence, columns macd, signal, histogram, in quote per base.

    macd = EMA_fast - EMA_slow, signal = EMA_signal(macd), histogram = macd - signal. Both averages
    begin at the close at which the slow one can. Source: G. Appel; seeds as TA-Lib's TA_MACD.
    """
    late = close.astype("float64").copy()
    late.iloc[: slow - fast] = math.nan
    line = ema(late, fast) - ema(close, slow)
    smooth = ema(line, signal)
    line = line.where(smooth.notna())
    return pd.DataFrame({"macd": line, "signal": smooth, "histogram": line - smooth})


def bollinger(close: pd.Series, window: int = 20, width: float = 2.0) -> pd.DataFrame:
    """Bollinger bands, columns upper, middle, lower, in quote per base.

    middle = SMA, upper and lower = middle ± width * the population's standard deviation of the
    window. Source: J. Bollinger, Bollinger on Bollinger Bands, 2001.
    """
    middle = sma(close, window)
    # Squares of differences, summed anew for each window: a running variance, pandas' or TA-Lib's,
    # loses its digits where the price stands still.
    squares = sum((close.shift(age) - middle) ** 2 for age in range(window))
    reach = width * np.sqrt(squares / window)
    return pd.DataFrame({"upper": middle + reach, "middle": middle, "lower": middle - reach})


def atr(candles: pd.DataFrame, window: int = 14) -> pd.Series:
    """Average true range, in quote per base, never negative; the first after `window` ranges.

    The true range of a candle is max(high, previous close) - min(low, previous close), and the
    average is Wilder's. Source: J. W. Wilder, as for `rsi`.
    """
    before = candles["close"].shift()
    top = candles["high"].where(candles["high"] > before, before)
    bottom = candles["low"].where(candles["low"] < before, before)
    return wilder((top - bottom).where(before.notna()), window)


def wilder(values: pd.Series, window: int) -> pd.Series:
    """Wilder's smoothing, in the values' unit, seeded with the first window's mean.

    W_t = W_(t-1) + (x_t - W_(t-1)) / n
    """
    return _smoothed(values, window, 1 / window)


def _smoothed(values: pd.Series, window: int, alpha: float) -> pd.Series:
    """Exponential smoothing that begins with the mean of the first `window` values there are."""
    first = int(values.notna().to_numpy().argmax()) if len(values) else 0
    seed = first + window - 1
    if seed >= len(values):
        return pd.Series(math.nan, index=values.index, name=values.name)
    seeded = values.astype("float64").copy()
    seeded.iloc[seed] = values.iloc[first : seed + 1].mean()
    seeded.iloc[:seed] = math.nan
    return seeded.ewm(alpha=alpha, adjust=False).mean()


def settling(alpha: float, precision: float = 1e-12) -> int:
    """Values after which the seed of a smoothing with `alpha` weighs less than `precision`."""
    return 0 if alpha >= 1 else math.ceil(math.log(precision) / math.log(1 - alpha))
