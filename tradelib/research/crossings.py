"""A lean sweep of crossings: all in where one line crosses above another, all out where it crosses
below.

For averages that cross, bands, channels: whatever two lines say. Lines are computed once and paired
at will, so that each pair costs one look at each candle: while nothing is held nothing happens to
the equity, and while something is held its returns are the market's, whose sums are known.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Literal

import numpy as np
import pandas as pd

from tradelib.candles.schema import validate_candles
from tradelib.errors import InvalidInput, unknown_name
from tradelib.research.backtest import DEFAULT_CASH, DEFAULT_FEE, check_money, market_return
from tradelib.research.metrics import (
    METRICS,
    Tally,
    check_metrics,
    metrics_of,
    start_tally,
    tally_close,
    tally_fill,
    tally_held,
    tally_idle,
)

Fill = Literal["open", "close"]


def sweep_crossings(
    candles: pd.DataFrame,
    timeframe: str,
    lines: pd.DataFrame,
    pairs: Iterable[tuple],
    *,
    fill: Fill = "open",
    fee: float = DEFAULT_FEE,
    cash: float = DEFAULT_CASH,
    metrics: Sequence[str] = METRICS,
    workers: int | None = None,
) -> pd.DataFrame:
    """Metrics of every pair of lines, one row each, indexed by the pair's names (fast, slow).

    lines: a column for each line, row for row on the candles, nan where it has no value. A pair
    buys for all its cash where its first line comes from below its second to above it, and sells
    all where it comes from above to below; where they are equal, nothing has happened yet.
    fill: at the open after that close, as live; or at the same close, as vectorbt's from_signals
    does and no one can. workers: threads; None: one for each core.
    """
    wanted = check_metrics(metrics)
    candles = validate_candles(candles, timeframe, "sweep")
    pairs = list(pairs)
    _check(candles, lines, pairs, fill, fee, cash)
    named = {name: row for row, name in enumerate(lines.columns)}
    rows = np.array([(named[fast], named[slow]) for fast, slow in pairs])
    tallies = _tallies(candles, lines, rows, fill == "close", fee, cash, workers)
    found = metrics_of(tallies, timeframe, cash, market_return(candles))
    index = pd.MultiIndex.from_tuples(pairs, names=["fast", "slow"])
    return pd.DataFrame({name: found[name] for name in wanted}, index=index)


def _check(
    candles: pd.DataFrame, lines: pd.DataFrame, pairs: list, fill: str, fee: float, cash: float
) -> None:
    check_money(fee, cash)
    if fill not in ("open", "close"):
        raise unknown_name("fill", fill, ("open", "close"))
    if len(candles) < 2 or len(lines) != len(candles):
        raise InvalidInput(
            f"A sweep needs 2 candles or more, and lines of as many rows; there are "
            f"{len(candles):,} candles and {len(lines):,} rows."
        )
    if not pairs:
        raise InvalidInput("A sweep of crossings needs a pair of lines and got none; name some.")
    for name in {name for pair in pairs for name in pair}:
        if name not in lines.columns:
            raise InvalidInput(f"There is no line {name!r}; lines: {', '.join(map(str, lines))}.")
    for name in lines.columns:
        _check_line(name, lines[name].to_numpy(dtype="float64"), candles.index)


def _check_line(name: object, line: np.ndarray, times: pd.DatetimeIndex) -> None:
    known = np.isfinite(line)
    if not known.any():
        raise InvalidInput(
            f"Line {name!r} has no value in {len(line):,} candles; give more, or another line."
        )
    first = int(known.argmax())
    bad = np.concatenate([np.isinf(line[:first]), ~known[first:]])
    if bad.any():
        row = int(bad.argmax())
        raise InvalidInput(f"Line {name!r} is {line[row]} at {times[row]}; make it a number.")


def _tallies(
    candles: pd.DataFrame,
    lines: pd.DataFrame,
    rows: np.ndarray,
    at_close: bool,
    fee: float,
    cash: float,
    workers: int | None,
) -> np.ndarray:
    # A line lies in a row of its own, one value after the other, as it is read.
    table = np.ascontiguousarray(lines.to_numpy(dtype="float64").T)
    closes = np.ascontiguousarray(candles["close"].to_numpy())
    prices = closes if at_close else np.ascontiguousarray(candles["open"].to_numpy())
    delay = 0 if at_close else 1
    inputs = (table, closes, prices, _market_sums(closes), delay, float(fee), start_tally(cash))
    out = np.empty((len(rows), len(Tally._fields)))
    workers = workers or os.cpu_count() or 1
    parts = zip(np.array_split(rows, 4 * workers), np.array_split(out, 4 * workers), strict=True)
    fold = compiled_crossings()
    with ThreadPoolExecutor(workers, "crossings") as pool:
        for done in [pool.submit(fold, *inputs, *part) for part in parts]:
            done.result()
    return out


def _market_sums(closes: np.ndarray) -> np.ndarray:
    """Sums up to each candle of the market's returns, their squares, falls' squares, and closes."""
    returns = np.diff(closes, prepend=closes[0]) / np.concatenate([closes[:1], closes[:-1]])
    parts = (returns, returns**2, np.minimum(returns, 0) ** 2, closes)
    return np.ascontiguousarray(np.cumsum(np.column_stack(parts), axis=0))


@cache
def compiled_crossings() -> Callable:
    """`fold_crossings`, compiled; it holds no lock."""
    import numba

    compiled = numba.njit(fold_crossings, nogil=True, error_model="numpy")
    inlined = numba.njit(forceinline=True, error_model="numpy")
    steps = tuple(map(inlined, (fold_pair, tally_idle, tally_held, tally_close, tally_fill)))
    return lambda *arguments: compiled(*steps, *arguments)


def fold_crossings(
    fold_pair: Callable,
    tally_idle: Callable,
    tally_held: Callable,
    tally_close: Callable,
    tally_fill: Callable,
    lines: np.ndarray,
    closes: np.ndarray,
    prices: np.ndarray,
    sums: np.ndarray,
    delay: int,
    fee: float,
    start: Tally,
    pairs: np.ndarray,
    out: np.ndarray,
) -> None:
    """Fold each pair of rows of `lines`, and write its sums to its row of `out`."""
    for k in range(len(pairs)):
        tally = fold_pair(
            tally_idle, tally_held, tally_close, tally_fill, lines[pairs[k, 0]],
            lines[pairs[k, 1]], closes, prices, sums, delay, fee, start,
        )  # fmt: skip
        for j in range(len(tally)):
            out[k, j] = tally[j]


def fold_pair(
    tally_idle: Callable,
    tally_held: Callable,
    tally_close: Callable,
    tally_fill: Callable,
    fast: np.ndarray,
    slow: np.ndarray,
    closes: np.ndarray,
    prices: np.ndarray,
    sums: np.ndarray,
    delay: int,
    fee: float,
    tally: Tally,
) -> Tally:
    """Go through the candles once, from one crossing to the next.

    prices: what a fill costs; delay: candles from a crossing to its fill. sums: `_market_sums`.
    """
    count, i, idle = len(closes), 0, 0
    while i < count and not fast[i] < slow[i]:
        i += 1
    while True:
        while i < count and not fast[i] > slow[i]:
            i += 1
        bought = min(i + delay, count)
        tally = tally_idle(tally, bought - idle)
        if bought == count:
            return tally
        value = tally.equity / (1.0 + fee)
        amount, paid = value / prices[bought], tally.equity - value
        tally = tally_fill(tally, amount, prices[bought], paid)
        tally = tally_close(tally, amount * closes[bought], amount)

        peak, low, under, deepest, longest = tally.peak, tally.peak, tally.under, 0.0, tally.longest
        sold = bought + 1
        while sold < count and not fast[sold - delay] < slow[sold - delay]:
            value = amount * closes[sold]
            if value >= peak:
                # A division for each peak, not for each candle.
                deepest = min(deepest, (low - peak) / peak)
                longest = max(longest, under)
                peak, low, under = value, value, 0.0
            else:
                low, under = min(low, value), under + 1.0
            sold += 1
        deepest, longest = min(deepest, (low - peak) / peak), max(longest, under)
        tally = tally_held(
            tally, amount, closes[sold - 1], sums[bought], sums[sold - 1], sold - bought - 1,
            peak, deepest, under, longest,
        )  # fmt: skip
        if sold == count:
            return tally
        value = amount * prices[sold]
        tally = tally_fill(tally, -amount, prices[sold], value * fee)
        tally = tally_close(tally, value - value * fee, 0.0)
        idle, i = sold + 1, sold - delay
