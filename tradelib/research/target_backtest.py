"""A backtest over several symbols: the live rebalancing step folded over history, one purse.

What is decided at a close fills at the next open that all symbols have: the sales first, then the
purchases, each in the symbols' order and never for more than the cash. vectorbt, given the same
fills and one purse, is the referee: `TargetBacktest.portfolio` builds its Portfolio.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tradelib.candles.schema import open_ms, validate_candles
from tradelib.clock import timeframe_ms
from tradelib.errors import InvalidInput
from tradelib.research.backtest import DEFAULT_CASH, DEFAULT_FEE, check_money, market_return
from tradelib.research.metrics import (
    Metrics,
    Tally,
    metrics_of,
    start_tally,
    tally_close,
    tally_fill,
)
from tradelib.strategy.decision import NEVER_MS
from tradelib.strategy.params import Params
from tradelib.strategy.rebalance import (
    RebalanceParams,
    rebalance,
    rebalance_reason,
)
from tradelib.strategy.targets import Candles, TargetStrategy, align_candles, columns_of

if TYPE_CHECKING:
    import vectorbt as vbt


@dataclass(frozen=True)
class TargetBacktest:
    """What a backtest found, row for row on the index that all symbols share.

    targets: the strategy's frame; shares: what each symbol was worth at the close, both fractions
    of equity. decisions: the reason at each close and how many symbols it sells and buys. equity:
    quote value of cash and positions at each close, fees paid. trades: one row per fill on the
    open it filled at: symbol, side (1, -1), amount (base units, positive), price, fee (quote) and
    the decision's candle. fee: share of a fill's value; cash: quote at the start.
    """

    strategy: str
    params: Params
    rebalancing: RebalanceParams
    candles: dict[str, pd.DataFrame] = field(repr=False)
    timeframe: str
    targets: pd.DataFrame = field(repr=False)
    shares: pd.DataFrame = field(repr=False)
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
        """What it earned, and at what risk. A trade is one symbol's; `exposure` counts closes at
        which anything is held, and `market_return` is the mean of the symbols' own."""
        tallies = [self._tally_trades(symbol) for symbol in self.candles]
        market = float(np.mean([market_return(frame) for frame in self.candles.values()]))
        found = metrics_of(
            np.array([_merge(self._tally_closes(), tallies)]), self.timeframe, self.cash, market
        )
        metrics = Metrics(**{name: float(value[0]) for name, value in found.items()})
        still_open = sum(tally.entry_amount > 0 for tally in tallies)
        return replace(metrics, trades=metrics.closed_trades + still_open)

    def _tally_closes(self) -> Tally:
        tally = start_tally(self.cash)
        held = self.shares.sum(axis=1).tolist()
        for equity, share in zip(self.equity.tolist(), held, strict=True):
            tally = tally_close(tally, equity, share)
        return tally

    def _tally_trades(self, symbol: str) -> Tally:
        mine, tally = self.trades[self.trades["symbol"] == symbol], start_tally(self.cash)
        for side, amount, price, fee in mine[["side", "amount", "price", "fee"]].to_numpy():
            tally = tally_fill(tally, side * amount, price, fee)
        return tally

    def portfolio(self) -> vbt.Portfolio:
        """vectorbt's Portfolio of the same fills, out of one purse."""
        import vectorbt as vbt  # seven seconds to import: only who asks for it waits

        signed = self.trades.assign(signed=self.trades["side"] * self.trades["amount"])
        sizes = signed.pivot(columns="symbol", values="signed")
        closes = columns_of(self.candles, "close")
        return vbt.Portfolio.from_orders(
            closes,
            size=sizes.reindex(index=closes.index, columns=closes.columns),
            price=columns_of(self.candles, "open"),
            fees=self.fee,
            init_cash=self.cash,
            cash_sharing=True,
            group_by=True,
            call_seq="auto",
            freq=pd.Timedelta(milliseconds=timeframe_ms(self.timeframe)),
        )


def run_target_backtest(
    candles: Candles,
    timeframe: str,
    strategy: TargetStrategy,
    params: Params | None = None,
    rebalancing: RebalanceParams | None = None,
    *,
    fee: float = DEFAULT_FEE,
    cash: float = DEFAULT_CASH,
) -> TargetBacktest:
    """Hold the strategy's target weights over the candles, from `cash` in quote and nothing held.

    Only candles that all symbols have count. A decision at a close fills whole at the next of
    them and pays `fee`, a share of its value; one at the last close never fills.
    """
    check_money(fee, cash)
    checked = {s: validate_candles(frame, timeframe, s) for s, frame in candles.items()}
    aligned = align_candles(checked)
    index = next(iter(aligned.values())).index
    if index.empty:
        raise InvalidInput("A backtest needs candles that all symbols have, and there are none.")
    params, rebalancing = params or strategy.params(), rebalancing or RebalanceParams()
    targets = strategy.weights(aligned, params)
    inputs = fold_inputs(aligned, timeframe, targets)
    done = compiled_fold()(*inputs, rebalancing.step(), float(fee), float(cash))
    equity, shares, actions, reasons, fills = done
    return TargetBacktest(
        strategy.name,
        params,
        rebalancing,
        aligned,
        timeframe,
        targets,
        pd.DataFrame(shares, index, targets.columns),
        _decisions_frame(actions, reasons, index),
        pd.Series(equity, index, name="equity"),
        _trades_frame(fills, columns_of(aligned, "open"), float(fee)),
        fee,
        cash,
    )


def fold(
    rebalance: Callable,
    fill_legs: Callable,
    opens_ms: np.ndarray,
    closes_ms: np.ndarray,
    opens: np.ndarray,
    closes: np.ndarray,
    weights: np.ndarray,
    params: Any,
    fee: float,
    cash: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Step through every candle; runs compiled, and as plain Python.

    Returns, row by row: equity at the close; each symbol's share of it; actions; the reason; the
    fills at the open (signed amounts in base units), zeros without.
    """
    count, symbols = closes.shape
    equity, reasons = np.empty(count), np.zeros(count, np.int64)
    shares, fills = np.zeros((count, symbols)), np.zeros((count, symbols))
    actions = np.zeros((count, symbols), np.int64)
    amounts, wanted = np.zeros(symbols), np.zeros(symbols)
    last_trade_ms = NEVER_MS
    for i in range(count):
        if i > 0:
            before = cash
            cash = fill_legs(
                amounts, actions[i - 1], wanted, opens[i], equity[i - 1], cash, fee, fills[i]
            )
            if cash != before:
                last_trade_ms = opens_ms[i]
        worth = cash
        for j in range(symbols):
            worth += amounts[j] * closes[i, j]
        equity[i] = worth
        for j in range(symbols):
            shares[i, j] = amounts[j] * closes[i, j] / worth
        actions[i], wanted, reasons[i] = rebalance(
            amounts, closes[i], weights[i], worth, cash, closes_ms[i], last_trade_ms, params
        )
    return equity, shares, actions, reasons, fills


def fill_legs(
    amounts: np.ndarray,
    actions: np.ndarray,
    fractions: np.ndarray,
    prices: np.ndarray,
    equity: float,
    cash: float,
    fee: float,
    fills: np.ndarray,
) -> float:
    """Sell, then buy, what was decided at `equity`; the cash after it.

    amounts: changed in place. fills: takes the signed amounts.
    """
    count = len(amounts)
    for j in range(count):
        if actions[j] < 0:
            sold = amounts[j] * min(fractions[j], 1.0)
            cash = cash + sold * prices[j] - sold * prices[j] * fee
            amounts[j], fills[j] = amounts[j] - sold, -sold
    for j in range(count):
        if actions[j] > 0:
            bought = min(fractions[j] * equity, cash / (1.0 + fee)) / prices[j]
            if bought > 0.0:
                cash = cash - bought * prices[j] - bought * prices[j] * fee
                amounts[j], fills[j] = amounts[j] + bought, bought
    return cash


def fold_plainly(*arguments: Any) -> tuple[np.ndarray, ...]:
    """The fold in plain Python, as live trading steps. Takes what `fold_inputs` gives, the
    `RebalanceStep`, the fee and the cash."""
    return fold(rebalance, fill_legs, *arguments)


@cache
def compiled_fold() -> Callable:
    """`fold_plainly`, compiled: the same arguments and the same bits, a hundred times faster."""
    import numba

    folded, steps = numba.njit(fold), (numba.njit(rebalance), numba.njit(fill_legs))
    return lambda *arguments: folded(*steps, *arguments)


def fold_inputs(candles: Candles, timeframe: str, targets: pd.DataFrame) -> tuple[np.ndarray, ...]:
    """What a fold reads: open and close times (ms), and, a column per symbol, opens, closes and
    target weights."""
    opened = open_ms(next(iter(candles.values())))
    columns = (columns_of(candles, "open"), columns_of(candles, "close"), targets)
    arrays = (np.ascontiguousarray(frame.to_numpy(dtype="float64")) for frame in columns)
    return opened, opened + timeframe_ms(timeframe), *arrays


def _merge(closes: Tally, trades: list[Tally]) -> Tally:
    """One tally of the closes and of every symbol's trades."""
    sums = ("entry_amount", "traded", "fees", "closed", "won", "gains", "losses")
    merged = {name: sum(getattr(one, name) for one in trades) for name in sums}
    best, worst = max(one.best for one in trades), min(one.worst for one in trades)
    return closes._replace(**merged, best=best, worst=worst)


def _decisions_frame(
    actions: np.ndarray, reasons: np.ndarray, index: pd.DatetimeIndex
) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "reason": [rebalance_reason(int(code)) for code in reasons],
            "sells": (actions < 0).sum(axis=1),
            "buys": (actions > 0).sum(axis=1),
        },
        index=index,
    )


def _trades_frame(fills: np.ndarray, opens: pd.DataFrame, fee: float) -> pd.DataFrame:
    rows, columns = np.nonzero(fills)
    signed, price = fills[rows, columns], opens.to_numpy()[rows, columns]
    return pd.DataFrame(
        {
            "symbol": opens.columns.to_numpy()[columns],
            "side": np.sign(signed).astype("int64"),
            "amount": np.abs(signed),
            "price": price,
            "fee": np.abs(signed) * price * fee,
            "decided_on": opens.index[rows - 1],
        },
        index=opens.index[rows],
    )
