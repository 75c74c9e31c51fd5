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
    TEMPERATURES,
    Decision,
    DecisionParams,
    DecisionState,
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
    fill on the open it filled at: side (1, -1), amount (base units, positive), price, fee (quote),
    reason and the decision's candle. fee: share of a fill's value; cash: quote at the start.
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
    fee: float
    cash: float

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
        tally, held = start_tally(self.cash), 0.0
        trades = self.trades
        fills = {
            row: (amount, price, fee)
            for row, amount, price, fee in zip(
                self.candles.index.get_indexer(trades.index).tolist(),
                (trades["side"] * trades["amount"]).tolist(),
                trades["price"].tolist(),
                trades["fee"].tolist(),
                strict=True,
            )
        }
        for row, equity in enumerate(self.equity.tolist()):
            if row in fills:
                tally = tally_fill(tally, *fills[row])
                held = tally.entry_amount
            tally = tally_close(tally, equity, held)
        return tally

    def portfolio(self) -> vbt.Portfolio:
        """vectorbt's Portfolio of the same fills."""
        import vectorbt as vbt  # seven seconds to import: only who asks for it waits

        signed = (self.trades["side"] * self.trades["amount"]).reindex(self.candles.index)
        return vbt.Portfolio.from_orders(
            self.candles["close"],
            size=signed,
            price=self.candles["open"],
            fees=self.fee,
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
) -> Backtest:
    """Trade the candles with the strategy's scores, from `cash` in quote and nothing held.

    A decision at a candle's close fills whole at the next candle's open and pays `fee`, a share
    of its value; one at the last close never fills. A purchase spends no more than the cash.
    """
    check_money(fee, cash)
    candles = validate_candles(candles, timeframe, "backtest")
    if candles.empty:
        raise InvalidInput("A backtest needs candles and got none; give it some.")
    params, decision = params or strategy.params(), decision or DecisionParams()
    strategy.require_candles(params, len(candles))
    scores = strategy.score(candles, params)
    inputs = fold_inputs(candles, timeframe, scores)
    equity, taken, fills = compiled_fold()(*inputs, decision.step(), float(fee), float(cash))
    decisions = _decisions_frame(taken, candles.index)
    return Backtest(
        strategy.name,
        params,
        decision,
        candles,
        timeframe,
        scores,
        decisions,
        pd.Series(equity, index=candles.index, name="equity"),
        _trades_frame(fills, candles, decisions),
        fee,
        cash,
    )


def check_money(fee: float, cash: float) -> None:
    """Refuse a fee that is no share, and cash that buys nothing."""
    if not 0 <= fee < 1 or not cash > 0:
        raise InvalidInput(f"A fee of {fee} or cash of {cash} makes no sense; give 0…1 and > 0.")


class Account(NamedTuple):
    """What a fold carries from candle to candle.

    action, spend, sell: what the last decision wants of the next open: quote to spend on a buy,
    base units to sell on a sell.
    """

    state: DecisionState
    cash: float
    action: int = 0
    spend: float = 0.0
    sell: float = 0.0


class Closed(NamedTuple):
    """What a candle did: the fill at its open, signed amount and fee (quote), zeros without one;
    equity at its close, and the decision there."""

    bought: float
    fee: float
    equity: float
    decision: Decision


def step(
    decide: Callable,
    after_fill: Callable,
    account: Account,
    open_ms: int,
    close_ms: int,
    open: float,
    close: float,
    score: float,
    params: Any,
    fee: float,
) -> tuple[Account, Closed]:
    """One candle: fill at its open what was decided before, decide at its close."""
    state, cash, action, amount, paid = account.state, account.cash, account.action, 0.0, 0.0
    if action > 0:
        amount = min(account.spend, cash / (1.0 + fee)) / open
    elif action < 0:
        amount = account.sell
    if amount > 0.0:
        paid = amount * open * fee
        cash = cash - action * amount * open - paid
        state = after_fill(state, action, amount, open, open_ms)
    equity = cash + state.amount * close
    state, taken = decide(state, score, close, close_ms, equity, cash, params)
    spend, sell = taken.fraction * equity, taken.fraction * state.amount
    return (
        Account(state, cash, taken.action, spend, sell),
        Closed(action * amount, paid, equity, taken),
    )


def fold(
    step: Callable,
    decide: Callable,
    after_fill: Callable,
    account: Account,
    opens_ms: np.ndarray,
    closes_ms: np.ndarray,
    opens: np.ndarray,
    closes: np.ndarray,
    scores: np.ndarray,
    params: Any,
    fee: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Step through every candle; runs compiled, and as plain Python.

    Returns, row by row: equity at the close; the decision (action, fraction, temperature,
    reason); the fill at the open (signed amount in base units, fee in quote), zeros without one.
    """
    count = len(closes)
    equity, decisions, fills = np.empty(count), np.zeros((count, 4)), np.zeros((count, 2))
    for i in range(count):
        account, done = step(
            decide, after_fill, account, opens_ms[i], closes_ms[i], opens[i], closes[i],
            scores[i], params, fee,
        )  # fmt: skip
        equity[i] = done.equity
        fills[i, 0], fills[i, 1] = done.bought, done.fee
        decisions[i, 0], decisions[i, 1] = done.decision.action, done.decision.fraction
        decisions[i, 2], decisions[i, 3] = done.decision.temperature, done.decision.reason
    return equity, decisions, fills


def fold_plainly(*arguments: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The fold in plain Python, as live trading steps; a hundred times slower.

    Takes what `fold_inputs` gives, the `StepParams`, the fee and the cash.
    """
    *inputs, cash = arguments
    return fold(step, decide, after_fill, Account(DecisionState(), cash), *inputs)


@cache
def compiled_steps() -> tuple[Callable, Callable, Callable]:
    """`step`, `decide` and `after_fill`, compiled."""
    # Not cached on disk: numba does not notice there when the step that it calls has changed.
    import numba

    # Inlined, a candle's sums stay in registers: three times as fast as by calls.
    inlined = numba.njit(forceinline=True)
    return inlined(step), inlined(decide), inlined(after_fill)


@cache
def compiled_fold() -> Callable:
    """`fold_plainly`, compiled: the same arguments and the same bits, a hundred times faster."""
    import numba

    compiled, steps = numba.njit(fold), compiled_steps()
    return lambda *inputs: compiled(*steps, Account(DecisionState(), inputs[-1]), *inputs[:-1])


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
    action, fraction, temperature, reason = taken.T
    return pd.DataFrame(
        {
            "action": action.astype("int64"),
            "fraction": fraction,
            "temperature": [TEMPERATURES[int(code)] for code in temperature],
            "reason": [reason_text(int(code)) for code in reason],
        },
        index=index,
    )


def _trades_frame(
    fills: np.ndarray, candles: pd.DataFrame, decisions: pd.DataFrame
) -> pd.DataFrame:
    rows = np.flatnonzero(fills[:, 0])
    signed, fees = fills[rows].T
    return pd.DataFrame(
        {
            "side": np.sign(signed).astype("int64"),
            "amount": np.abs(signed),
            "price": candles["open"].to_numpy()[rows],
            "fee": fees,
            "reason": decisions["reason"].to_numpy()[rows - 1],
            "decided_on": candles.index[rows - 1],
        },
        index=candles.index[rows],
    )
