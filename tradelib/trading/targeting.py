"""Deciding for several symbols: their candles become target weights, and these one decision.

A bot decides at the newest close at which all its symbols have a candle. While one of them lacks
the newest, the decision of the last whole picture stands; when that has become too old for its
limits, nothing is ordered any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from enum import Enum, auto
from typing import Any

import numpy as np
import pandas as pd
from sqlalchemy import Connection

from tradelib.candles.schema import candles_hash, empty_candles, open_ms
from tradelib.candles.store import CandleStore
from tradelib.clock import floor_time, from_ms, parse_time, timeframe_ms, to_ms, utc_now
from tradelib.settings import LimitSettings
from tradelib.strategy.decision import NEVER_MS
from tradelib.strategy.rebalance import REBALANCING, rebalance, rebalance_reason
from tradelib.strategy.targets import align_candles, columns_of
from tradelib.trading.bots import Bot
from tradelib.trading.deciding import (
    CANNOT_AFFORD,
    NO_CANDLES,
    frame_hash,
    living_position,
    load_worth,
)
from tradelib.trading.decisions import (
    ACTIONS,
    Action,
    Decision,
    Leg,
    latest_adjustment,
    record_decision,
)
from tradelib.trading.ledger import Ledger, first
from tradelib.trading.orders import ZERO, OrderStatus, decision_id, find_attempts
from tradelib.trading.risk import OF_THE_DAY, OF_THE_MOMENT, load_refusals
from tradelib.trading.runs import COMPUTED

NO_TEMPERATURE = "NONE"


@dataclass(frozen=True)
class TargetInputs:
    """What a decision on several symbols is made from beside the candles and the bot's rules.

    amounts: what the bot holds, in base units by symbol; last_trade: the open of the candle in
    which it traded last, where a backtest fills, or in which a limit refused it to, None also where
    its last rebalancing was cut short; equity, cash: the account's, in quote currency; smallest:
    the least an order may be worth.
    """

    amounts: dict[str, Decimal]
    last_trade: datetime | None
    equity: Decimal
    cash: Decimal
    smallest: Decimal

    @property
    def can_act(self) -> bool:
        """Whether there is anything to sell, or the cash for the smallest order."""
        return any(self.amounts.values()) or self.cash >= self.smallest

    def to_json(self) -> dict[str, object]:
        return {
            "amounts": {symbol: str(amount) for symbol, amount in self.amounts.items()},
            "last_trade": self.last_trade.isoformat() if self.last_trade else None,
            "equity": str(self.equity),
            "cash": str(self.cash),
            "smallest": str(self.smallest),
        }

    @staticmethod
    def from_json(told: dict[str, Any]) -> TargetInputs:
        return TargetInputs(
            {symbol: Decimal(amount) for symbol, amount in told["amounts"].items()},
            parse_time(told["last_trade"]) if told["last_trade"] else None,
            *(Decimal(told[name]) for name in ("equity", "cash", "smallest")),
        )


@dataclass(frozen=True)
class ComputedTargets:
    """What a bot's rules say at one close: a pure function of its candles and inputs.

    candles, weights: what the strategy saw and said, on one index of open times; empty when the
    bot had no business looking.
    """

    decision: Decision
    candles: Mapping[str, pd.DataFrame]
    weights: pd.DataFrame
    inputs: TargetInputs | None

    def to_json(self) -> dict[str, object]:
        """What another computation from the same inputs must give again, bit for bit."""
        decision = self.decision
        return {
            "candle_close": decision.candle_close.isoformat(),
            "candles": len(self.weights),
            "candles_hash": {symbol: candles_hash(one) for symbol, one in self.candles.items()},
            "weights_hash": frame_hash(self.weights),
            "targets": decision.targets,
            "action": str(decision.action),
            "fraction": str(decision.fraction),
            "reason": decision.reason,
        }


@dataclass(frozen=True)
class TargetSignal:
    """The decision for a candle, with what this run computed for it: once it is recorded, the one
    that stands, which is another run's where that one was first."""

    bot: Bot
    as_of: datetime
    decision: Decision
    computed: ComputedTargets

    def record(self, ledger: Ledger) -> TargetSignal:
        """The same with the decision that stands in the ledger: the first one for a candle."""
        return replace(self, decision=record_decision(ledger, self.decision, None))

    def to_json(self) -> dict[str, object]:
        inputs = self.computed.inputs
        return {
            "bot": self.bot.name,
            "config": self.bot.config,
            "decision": self.decision.id,
            "action": str(self.decision.action),
            "fraction": str(self.decision.fraction),
            "reason": self.decision.reason,
            "candle_close": self.decision.candle_close.isoformat(),
            "inputs": inputs.to_json() if inputs else None,
            COMPUTED: self.computed.to_json(),
        }


def weigh_symbols(
    ledger: Ledger,
    store: CandleStore,
    limits: LimitSettings,
    bot: Bot,
    as_of: datetime,
    run: str,
) -> TargetSignal:
    """Weigh the bot's symbols at the newest close that all of them have at `as_of`, and what to do
    with each; nothing is recorded yet."""
    close = last_common_close(store, bot, as_of)
    with ledger.read():
        inputs = None if close is None else read_target_inputs(ledger, store, limits, bot, close)
    computed = compute_targets(store, bot, close or as_of, inputs, run)
    return TargetSignal(bot, as_of, computed.decision, computed)


def read_target_inputs(
    ledger: Ledger, store: CandleStore, limits: LimitSettings, bot: Bot, close: datetime
) -> TargetInputs:
    """What the ledger knows of a bot that decides at a candle's close."""
    equity, cash, prices = load_worth(ledger, store, bot, close)
    positions = [
        living_position(ledger, bot, symbol, prices.get(symbol, ZERO), equity)
        for symbol in bot.symbols
    ]
    trades = [position.last_trade for position in positions if position.last_trade]
    traded = floor_time(max(trades), bot.timeframe) if trades else None
    return TargetInputs(
        amounts={position.symbol: position.amount for position in positions},
        last_trade=_last_rebalancing(ledger, bot, close, traded),
        equity=equity,
        cash=cash,
        smallest=limits.notional_for(bot.quote).min,
    )


class _End(Enum):
    """What became of one leg of a rebalancing."""

    FILLED = auto()
    REFUSED = auto()  # by what the next candle's order would most likely be refused by too
    CUT_SHORT = auto()


def _last_rebalancing(
    ledger: Ledger, bot: Bot, close: datetime, traded: datetime | None
) -> datetime | None:
    """From when the interval counts: from the last trade, or from a rebalancing since then of
    which a leg was refused, which would else be tried at every candle, and all other legs with it.
    None: from nowhere. What was cut short, as by a kill between its legs, need not wait."""
    decision = latest_adjustment(ledger, bot.name, before=close)
    if decision is None:
        return traded
    with ledger.read() as books:
        ends = {_end_of(books, decision, leg, close) for leg in decision.legs("")}
    if _End.CUT_SHORT in ends:
        return None
    refused = [decision.candle_close] if _End.REFUSED in ends else []
    return max([*refused, *([traded] if traded else [])], default=None)


def _end_of(books: Connection, decision: Decision, leg: Leg, close: datetime) -> _End:
    order = first(find_attempts(books, decision.id, leg.number)[::-1])
    if order is None:
        return _End.CUT_SHORT
    if order.status == OrderStatus.FILLED:
        return _End.FILLED
    passed = OF_THE_MOMENT
    if decision.candle_close.date() != close.date():
        passed |= OF_THE_DAY
    named = {refusal.limit_name for refusal in load_refusals(books, order.client_id)}
    return _End.REFUSED if named - passed else _End.CUT_SHORT


def compute_targets(
    store: CandleStore, bot: Bot, close: datetime, inputs: TargetInputs | None, run: str
) -> ComputedTargets:
    """What the bot's rules say at the close; without inputs, that there are no candles yet."""
    if inputs is None:
        return _idle(bot, close, None, run, NO_CANDLES)
    if not inputs.can_act:
        return _idle(bot, close, inputs, run, f"{CANNOT_AFFORD}: cash {inputs.cash:f}")
    candles = load_common(store, bot, close, bot.history)
    weights = bot.target_rules.weights(candles, bot.strategy_params)
    prices = columns_of(candles, "close").iloc[-1].to_numpy(dtype="float64")
    actions, fractions, reason = rebalance(
        np.array([float(inputs.amounts[symbol]) for symbol in bot.symbols]),
        prices,
        weights.iloc[-1].to_numpy(dtype="float64"),
        float(inputs.equity),
        float(inputs.cash),
        to_ms(close),
        to_ms(inputs.last_trade) if inputs.last_trade else NEVER_MS,
        bot.rebalancing.step(),
    )
    targets = [
        _target(symbol, weight, price, inputs, action, fraction)
        for symbol, weight, price, action, fraction in zip(
            bot.symbols,
            weights.iloc[-1].tolist(),
            prices.tolist(),
            actions.tolist(),
            fractions.tolist(),
            strict=True,
        )
    ]
    decision = _decide(bot, close, run, rebalance_reason(reason), targets, reason == REBALANCING)
    return ComputedTargets(decision, candles, weights, inputs)


def _target(
    symbol: str, weight: float, price: float, inputs: TargetInputs, action: int, fraction: float
) -> dict[str, Any]:
    """One symbol's entry of a decision, as plain values: target weight, None while it warms up,
    and share of equity held; the close; and what to do, as `Leg` has it."""
    equity = float(inputs.equity)
    return {
        "symbol": symbol,
        "weight": None if weight != weight else weight,
        "share": float(inputs.amounts[symbol]) * price / equity if equity > 0 else 0.0,
        "price": str(Decimal(str(price))),
        "action": str(ACTIONS[action]),
        "fraction": str(Decimal(str(fraction))),
    }


def _decide(
    bot: Bot,
    close: datetime,
    run: str,
    reason: str,
    targets: list[dict[str, Any]],
    acts: bool = False,
) -> Decision:
    moved = sum(
        float(one["fraction"]) * (one["share"] if one["action"] == Action.SELL else 1.0)
        for one in targets
    )
    return Decision(
        id=decision_id(bot.name, close),
        bot=bot.name,
        candle_close=close,
        run=run,
        action=Action.ADJUST if acts else Action.HOLD,
        fraction=Decimal(str(moved)),
        temperature=NO_TEMPERATURE,
        reason=reason,
        price=None,
        state={},
        decided_at=utc_now(),
        targets=targets,
    )


def _idle(
    bot: Bot, close: datetime, inputs: TargetInputs | None, run: str, reason: str
) -> ComputedTargets:
    """A decision to do nothing, without a look at the market."""
    none = pd.DataFrame(columns=bot.symbols, dtype="float64")
    return ComputedTargets(_decide(bot, close, run, reason, []), {}, none, inputs)


def last_common_close(store: CandleStore, bot: Bot, as_of: datetime) -> datetime | None:
    """The newest close, up to a time, at which all symbols have a candle; None without one."""
    newest = load_common(store, bot, as_of, 1)[bot.symbols[0]]
    if newest.empty:
        return None
    return from_ms(int(open_ms(newest)[-1]) + timeframe_ms(bot.timeframe))


def load_common(
    store: CandleStore, bot: Bot, as_of: datetime, count: int
) -> dict[str, pd.DataFrame]:
    """The newest `count` candles, closed at `as_of`, that all the bot's symbols have; fewer where
    there are not so many."""
    limit = count
    while True:
        candles = {
            symbol: store.load(bot.venue, symbol, bot.timeframe, as_of=as_of, limit=limit)
            for symbol in bot.symbols
        }
        if any(frame.empty for frame in candles.values()):
            return dict.fromkeys(bot.symbols, empty_candles())
        common = align_candles(candles)
        # Before the first candle of one symbol there is nothing in common.
        begun = [frame.index[0] for frame in candles.values() if len(frame) < limit]
        whole = begun and all(frame.index[0] <= max(begun) for frame in candles.values())
        if whole or len(common[bot.symbols[0]]) >= count:
            return {symbol: frame.iloc[-count:] for symbol, frame in common.items()}
        limit *= 2
