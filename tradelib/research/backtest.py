"""A backtest: the live decision step folded over history, filled at the next candle's open.

The equity it tells is the account's value at each candle's close. vectorbt, given the same fills,
is the referee: `Backtest.portfolio` builds its Portfolio.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from tradelib.candles.schema import open_ms, validate_candles
from tradelib.clock import timeframe_ms
from tradelib.errors import InvalidInput
from tradelib.research.counted import REFUSALS, Done
from tradelib.research.fills import (
    NEXT_OPEN,
    FillModel,
    Kernel,
    compiled_kernel,
    plain_market,
)
from tradelib.research.metrics import (
    Metrics,
    Tally,
    metrics_of,
    start_tally,
    tally_close,
    tally_fill,
)
from tradelib.strategy.base import Strategy
from tradelib.strategy.decision import (
    CANNOT_AFFORD,
    FROZEN,
    TEMPERATURES,
    Decision,
    DecisionParams,
    after_fill,
    decide,
    reason_text,
)
from tradelib.strategy.params import Params

if TYPE_CHECKING:
    import vectorbt as vbt

DEFAULT_FEE = 0.001
"""Share of each fill's value that the venue keeps."""

DEFAULT_CASH = 10_000.0
"""Quote currency to begin with."""


@dataclass(frozen=True)
class Backtest:
    """What a backtest found, row for row on the candles' index.

    scores: the strategy's frame. decisions: action, fraction, temperature and reason at each
    close. equity: quote value of cash and position at each close, fees paid. trades: one row per
    fill on the open it filled at: side (1, -1), amount (base units, positive), price (the mean, if
    it met several), fee (its worth in quote), what of the fee was taken in base units, reason and
    the decision's candle. refused: orders that were not made or found nothing, and why. held: the
    position that each decision saw. fee: share of a fill's value; cash: quote at the start.
    """

    strategy: str
    params: Params
    decision: DecisionParams
    candles: pd.DataFrame = field(repr=False)
    timeframe: str
    scores: pd.DataFrame = field(repr=False)
    decisions: pd.DataFrame = field(repr=False)
    equity: pd.Series = field(repr=False)
    trades: pd.DataFrame = field(repr=False)
    refused: pd.DataFrame = field(repr=False)
    held: pd.Series = field(repr=False)
    fills: FillModel
    fee: float
    cash: float
    done: np.ndarray = field(repr=False)

    @property
    def total_return(self) -> float:
        """Growth of the equity over the whole range, a fraction."""
        return float(self.equity.iloc[-1]) / self.cash - 1

    @cached_property
    def metrics(self) -> Metrics:
        """What it earned, and at what risk; see `Metrics` for what each figure means."""
        found = metrics_of(
            np.array([self._tally()]), self.timeframe, self.cash, market_return(self.candles)
        )
        return Metrics(**{name: float(value[0]) for name, value in found.items()})

    def _tally(self) -> Tally:
        tally = start_tally(self.cash)
        rows = zip(self.equity.tolist(), self.held.tolist(), self.done[:, :3].tolist(), strict=True)
        for equity, held, (bought, fee, value) in rows:
            if bought:
                tally = tally_fill(tally, bought, value, fee)
            tally = tally_close(tally, equity, held)
        return tally

    def portfolio(self) -> vbt.Portfolio:
        """vectorbt's Portfolio of the same fills: net amounts at what they cost, each with its
        fee in quote."""
        import vectorbt as vbt  # seven seconds to import: only who asks for it waits

        bought, fee, value = self.done[:, :3].T
        return vbt.Portfolio.from_orders(
            self.candles["close"],
            size=pd.Series(np.where(bought != 0, bought, np.nan), index=self.candles.index),
            price=pd.Series(np.where(bought != 0, value, np.nan), index=self.candles.index),
            fixed_fees=fee,
            init_cash=self.cash,
            freq=pd.Timedelta(milliseconds=timeframe_ms(self.timeframe)),
        )


def run_backtest(
    candles: pd.DataFrame,
    timeframe: str,
    strategy: Strategy,
    params: Params | None = None,
    decision: DecisionParams | None = None,
    *,
    fee: float = DEFAULT_FEE,
    cash: float = DEFAULT_CASH,
    fills: FillModel = NEXT_OPEN,
) -> Backtest:
    """Trade the candles with the strategy's scores, from `cash` in quote and nothing held.

    A decision at a candle's close fills at the next candle's open, as `fills` says, and pays
    `fee`, a share of its value; one at the last close never fills. A purchase spends no more than
    the cash.
    """
    check_money(fee, cash)
    candles = validate_candles(candles, timeframe, "backtest")
    if candles.empty:
        raise InvalidInput("A backtest needs candles and got none; give it some.")
    params, decision = params or strategy.params(), decision or DecisionParams()
    strategy.require_candles(params, len(candles))
    scores = strategy.score(candles, params)
    inputs = fold_inputs(candles, timeframe, scores)
    equity, taken, done = compiled_fold(fills)(
        *inputs, decision.step(), float(fee), float(cash),
        market=fills.market(candles, timeframe),
    )  # fmt: skip
    decisions = _decisions_frame(taken, candles.index)
    trades, refused = _orders_frames(done, candles, decisions)
    return Backtest(
        strategy.name,
        params,
        decision,
        candles,
        timeframe,
        scores,
        decisions,
        pd.Series(equity, index=candles.index, name="equity"),
        trades,
        refused,
        pd.Series(taken[:, 4], index=candles.index, name="held"),
        fills,
        fee,
        cash,
        done,
    )


def check_money(fee: float, cash: float) -> None:
    """Refuse a fee that is no share, and cash that buys nothing."""
    if not 0 <= fee < 1 or not cash > 0:
        raise InvalidInput(f"A fee of {fee} or cash of {cash} makes no sense; give 0…1 and > 0.")


class Closed(NamedTuple):
    """What a candle did: the fill at its open; equity and position at its close, and the decision
    there."""

    done: Done
    equity: float
    held: float
    decision: Decision


def step(
    fill: Callable,
    look: Callable,
    want: Callable,
    decide: Callable,
    after_fill: Callable,
    account: Any,
    market: tuple,
    i: int,
    open_ms: int,
    close_ms: int,
    open: float,
    close: float,
    score: float,
    params: Any,
    rules: Any,
) -> tuple[Any, Closed]:
    """Candle i: fill at its open what was decided before, decide at its close."""
    account, done = fill(after_fill, account, market, i, open_ms, open, rules)
    state, equity, cash, able = look(account, market, i, close, rules)
    held = state.amount
    taken = Decision(0, 0.0, FROZEN, CANNOT_AFFORD)
    if able:
        state, taken = decide(state, score, close, close_ms, equity, cash, params)
    return want(account, state, taken, equity), Closed(done, equity, held, taken)


def fold(
    step: Callable,
    fill: Callable,
    look: Callable,
    want: Callable,
    decide: Callable,
    after_fill: Callable,
    account: Any,
    market: tuple,
    opens_ms: np.ndarray,
    closes_ms: np.ndarray,
    opens: np.ndarray,
    closes: np.ndarray,
    scores: np.ndarray,
    params: Any,
    rules: Any,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Step through every candle; runs compiled, and as plain Python.

    Returns, row by row: equity at the close; the decision (action, fraction, temperature, reason)
    and the position it saw; what was done at the open, by `Done`, zeros without an order.
    """
    count = len(closes)
    equity, decisions, fills = np.empty(count), np.zeros((count, 5)), np.zeros((count, 7))
    for i in range(count):
        account, closed = step(
            fill, look, want, decide, after_fill, account, market, i, opens_ms[i], closes_ms[i],
            opens[i], closes[i], scores[i], params, rules,
        )  # fmt: skip
        equity[i] = closed.equity
        taken, done = closed.decision, closed.done
        decisions[i, 0], decisions[i, 1] = taken.action, taken.fraction
        decisions[i, 2], decisions[i, 3] = taken.temperature, taken.reason
        decisions[i, 4] = closed.held
        if done.bought != 0.0 or done.refused != 0:
            fills[i, 0], fills[i, 1], fills[i, 2] = done.bought, done.fee, done.value
            fills[i, 3], fills[i, 4], fills[i, 5] = done.amount, done.price, done.fee_base
            fills[i, 6] = done.refused
    return equity, decisions, fills


def fold_plainly(
    *arguments: Any, fills: FillModel = NEXT_OPEN, market: tuple = ()
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The fold in plain Python, as live trading steps; a hundred times slower.

    Takes what `fold_inputs` gives, the `StepParams`, the fee and the cash. market: as the model
    makes it of the candles.
    """
    *inputs, fee, cash = arguments
    kernel, given = fills.kernel, (fills.start(cash), plain_market(market))
    steps = kernel.fill, kernel.look, kernel.want, decide, after_fill
    return fold(step, *steps, *given, *inputs, fills.rules(fee))


@cache
def compiled_steps(kernel: Kernel) -> tuple[Callable, ...]:
    """`step` and the functions that it takes, compiled for a fill model's kernel."""
    # Not cached on disk: numba does not notice there when the step that it calls has changed.
    import numba

    # Inlined, a candle's sums stay in registers: three times as fast as by calls.
    inlined = numba.njit(forceinline=True)
    return inlined(step), *compiled_kernel(kernel), inlined(decide), inlined(after_fill)


@cache
def _compiled_fold(kernel: Kernel) -> Callable:
    import numba

    compiled, steps = numba.njit(fold), compiled_steps(kernel)
    return lambda *inputs: compiled(*steps, *inputs)


def compiled_fold(fills: FillModel = NEXT_OPEN) -> Callable:
    """`fold_plainly`, compiled for a fill model: the same bits, a hundred times faster."""
    folded = _compiled_fold(fills.kernel)

    def run(*arguments: Any, market: tuple = ()) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        *inputs, fee, cash = arguments
        return folded(fills.start(cash), market, *inputs, fills.rules(fee))

    return run


def fold_inputs(
    candles: pd.DataFrame, timeframe: str, scores: pd.DataFrame
) -> tuple[np.ndarray, ...]:
    """What a fold reads: open and close times (ms), opens, closes and scores."""
    return *fold_times(candles, timeframe), _floats(scores["score"])


def fold_times(candles: pd.DataFrame, timeframe: str) -> tuple[np.ndarray, ...]:
    """`fold_inputs` without the scores."""
    opened = open_ms(candles)
    closed = opened + timeframe_ms(timeframe)
    return opened, closed, _floats(candles["open"]), _floats(candles["close"])


def _floats(column: pd.Series) -> np.ndarray:
    return np.ascontiguousarray(column.to_numpy(dtype="float64"))


def market_return(candles: pd.DataFrame) -> float:
    """Growth of the close from the first candle to the last, a fraction."""
    close = candles["close"]
    return float(close.iloc[-1] / close.iloc[0]) - 1


def _decisions_frame(taken: np.ndarray, index: pd.DatetimeIndex) -> pd.DataFrame:
    action, fraction, temperature, reason = taken[:, :4].T
    return pd.DataFrame(
        {
            "action": action.astype("int64"),
            "fraction": fraction,
            "temperature": [TEMPERATURES[int(code)] for code in temperature],
            "reason": [reason_text(int(code)) for code in reason],
        },
        index=index,
    )


def _orders_frames(
    done: np.ndarray, candles: pd.DataFrame, decisions: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The fills, and the orders that came to nothing, by the candle at whose open they were."""
    decided = _decided_rows(decisions["action"].to_numpy())
    frames = []
    for rows in (np.flatnonzero(done[:, 0]), np.flatnonzero(done[:, 6])):
        before = decided[rows]
        frames.append(
            pd.DataFrame(
                {
                    "side": decisions["action"].to_numpy()[before],
                    "amount": done[rows, 3],
                    "price": done[rows, 4],
                    "fee": done[rows, 1],
                    "fee_base": done[rows, 5],
                    "reason": decisions["reason"].to_numpy()[before],
                    "refused": [REFUSALS[int(code)] for code in done[rows, 6]],
                    "decided_on": candles.index[before],
                },
                index=candles.index[rows],
            )
        )
    trades, refused = frames
    return trades.drop(columns="refused"), refused.drop(columns=["fee", "fee_base"])


def _decided_rows(actions: np.ndarray) -> np.ndarray:
    """For each candle, the one before it whose decision its order is from: the newest to act."""
    acting = np.where(actions != 0, np.arange(len(actions)), -1)
    return np.concatenate([[-1], np.maximum.accumulate(acting)[:-1]])
