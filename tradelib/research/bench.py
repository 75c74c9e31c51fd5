"""The bench that a sweep works on: scores from shared columns, and the step folded into sums.

The step that is folded is the very one that live trading takes, compiled.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from tradelib.candles.schema import validate_candles
from tradelib.errors import InvalidInput
from tradelib.research.backtest import (
    check_money,
    compiled_steps,
    fold_times,
    market_return,
)
from tradelib.research.fills import NEXT_OPEN, FillModel, Kernel
from tradelib.research.metrics import (
    Tally,
    metrics_of,
    start_tally,
    tally_close,
    tally_fill,
)
from tradelib.strategy.base import Columns, Strategy, TooShort, find_shape_fault
from tradelib.strategy.decision import DecisionParams
from tradelib.strategy.params import Params

COLUMN_BYTES = 256_000_000
"""Columns that a bench remembers at a time, all threads together."""


@dataclass(frozen=True)
class Bench:
    """Candles and a strategy, ready to fold any parameters over; threads may share it."""

    strategy: Strategy
    candles: pd.DataFrame = field(repr=False)
    timeframe: str
    fee: float
    cash: float
    market_return: float
    times: tuple[np.ndarray, ...] = field(repr=False)
    columns: ColumnCache = field(repr=False)
    fills: FillModel = NEXT_OPEN
    market: tuple = field(default=(), repr=False)

    def scores(self, params: Params) -> np.ndarray:
        """The score of every candle, or InvalidInput that says what is wrong with it, and where."""
        warm_up = self.strategy.warm_up(params)
        if lack := self.strategy.find_lack(params, len(self.candles)):
            raise TooShort(lack)
        if self.strategy.columns is None:
            scores = self._whole(self.strategy.compute(self.candles, params))
        else:
            scores = self._combined(self.strategy.columns, params)
        self._check(scores, warm_up)
        return scores

    def _whole(self, frame: pd.DataFrame) -> np.ndarray:
        if fault := find_shape_fault(frame, self.candles.index):
            raise InvalidInput(fault)
        return np.ascontiguousarray(frame["score"].to_numpy(dtype="float64"))

    def _combined(self, columns: Columns, params: Params) -> np.ndarray:
        parts = {
            name: columns.column(name, self.candles, params, self.columns) for name in columns.parts
        }
        for name, part in parts.items():
            if len(part) != len(self.candles):
                raise InvalidInput(
                    f"column {name} has {len(part):,} values for {len(self.candles):,} candles"
                )
        return compiled_combine(columns.combine)(**columns.arguments(parts, params))

    def _check(self, scores: np.ndarray, warm_up: int) -> None:
        # One pass where all is well: nan is neither above nor below.
        warm = scores[warm_up:]
        if warm.min() >= -1 and warm.max() <= 1 and not (np.abs(scores[:warm_up]) > 1).any():
            return
        bad = np.abs(scores) > 1
        bad[warm_up:] |= np.isnan(warm)
        row = int(bad.argmax())
        raise InvalidInput(
            f"score {scores[row]:.6g} at {self.candles.index[row]:%Y-%m-%dT%H:%MZ}, candle {row:,},"
            f" after {warm_up:,} of warm-up; scores are -1…1"
        )

    def tallies(self, scores: np.ndarray, decisions: Sequence[DecisionParams]) -> np.ndarray:
        """The sums of each decision step's way through the scores, one row each."""
        out = np.empty((len(decisions), len(Tally._fields)))
        steps = np.array([tuple(one.step()) for one in decisions], dtype=_step_type())
        start = self.fills.start(self.cash), start_tally(self.cash), self.market
        compiled_tallies(self.fills.kernel)(
            *start, *self.times, scores, steps, self.fills.rules(self.fee), out
        )
        return out

    def metrics(self, tallies: np.ndarray) -> dict[str, np.ndarray]:
        """The metrics of such sums."""
        return metrics_of(tallies, self.timeframe, self.cash, self.market_return)


def make_bench(
    candles: pd.DataFrame,
    timeframe: str,
    strategy: Strategy,
    fee: float,
    cash: float,
    fills: FillModel = NEXT_OPEN,
) -> Bench:
    """The bench for these candles, checked."""
    check_money(fee, cash)
    candles = validate_candles(candles, timeframe, "sweep")
    if len(candles) < 2:
        raise InvalidInput(f"A sweep needs candles and got {len(candles)}; give it 2 or more.")
    times = fold_times(candles, timeframe)
    compiled_tallies(fills.kernel)  # made once, before threads ask for it at the same time
    return Bench(
        strategy, candles, timeframe, float(fee), float(cash), market_return(candles), times,
        ColumnCache(COLUMN_BYTES), fills, fills.market(candles, timeframe),
    )  # fmt: skip


class ColumnCache(OrderedDict):
    """Columns by name and parameters; the one not asked for the longest goes first."""

    def __init__(self, most_bytes: int) -> None:
        super().__init__()
        self._most, self._bytes, self._lock = most_bytes, 0, threading.Lock()

    def get(self, key: tuple, default: Any = None) -> Any:
        """The column, if it is remembered."""
        with self._lock:
            if key not in self:
                return default
            self.move_to_end(key)
            return self[key]

    def __setitem__(self, key: tuple, column: pd.Series) -> None:
        with self._lock:
            if key not in self:
                self._bytes += column.nbytes
            super().__setitem__(key, column)
            while self._bytes > self._most and len(self) > 1:
                _, oldest = self.popitem(last=False)
                self._bytes -= oldest.nbytes


def fold_tallies(
    step: Callable,
    fill: Callable,
    look: Callable,
    want: Callable,
    decide: Callable,
    after_fill: Callable,
    tally_close: Callable,
    tally_fill: Callable,
    account: Any,
    tally: Tally,
    market: tuple,
    opens_ms: np.ndarray,
    closes_ms: np.ndarray,
    opens: np.ndarray,
    closes: np.ndarray,
    scores: np.ndarray,
    params: Any,
    rules: Any,
    out: np.ndarray,
) -> None:
    """Step through every candle for each of the params, and write the sums to its row of out."""
    for k in range(len(params)):
        mine, sums = account, tally
        for i in range(len(closes)):
            mine, closed = step(
                fill, look, want, decide, after_fill, mine, market, i, opens_ms[i], closes_ms[i],
                opens[i], closes[i], scores[i], params[k], rules,
            )  # fmt: skip
            if closed.done.bought != 0.0:
                sums = tally_fill(sums, closed.done.bought, closed.done.value, closed.done.fee)
            sums = tally_close(sums, closed.equity, closed.held)
        for j in range(len(sums)):
            out[k, j] = sums[j]


@cache
def compiled_tallies(kernel: Kernel) -> Callable:
    """`fold_tallies`, compiled, of the step that live trading takes; it holds no lock."""
    import numba

    inlined = numba.njit(forceinline=True)
    step, fill, look, want, decide, after_fill = compiled_steps(kernel)
    at_close, at_fill, fold = inlined(tally_close), inlined(tally_fill), numba.njit(fold_tallies)

    # The functions are constants of this one: as arguments, numba would look at them in every call.
    @numba.njit(nogil=True)
    def compiled(
        account: Any,
        tally: Tally,
        market: tuple,
        opens_ms: np.ndarray,
        closes_ms: np.ndarray,
        opens: np.ndarray,
        closes: np.ndarray,
        scores: np.ndarray,
        params: Any,
        rules: Any,
        out: np.ndarray,
    ) -> None:
        fold(
            step, fill, look, want, decide, after_fill, at_close, at_fill, account, tally, market,
            opens_ms, closes_ms, opens, closes, scores, params, rules, out,
        )  # fmt: skip

    return compiled


@cache
def compiled_combine(combine: Callable) -> Callable:
    """A strategy's `combine`, compiled where it can be; then it holds no lock."""
    import numba

    chosen = numba.njit(combine, nogil=True, error_model="numpy")

    def combined(**arguments: Any) -> np.ndarray:
        nonlocal chosen
        try:
            return chosen(**arguments)
        except numba.errors.NumbaError:
            chosen = combine  # what numba does not know, numpy does
            return combine(**arguments)

    return combined


@cache
def _step_type() -> np.dtype:
    step = DecisionParams().step()
    return np.dtype([(name, type(value)) for name, value in step._asdict().items()])
