"""Deciding: a bot's candles become a score, and the score one decision per candle.

The last step of the same pure function that a backtest folds over history; what it needs to know
of the past is the state stored with the bot's previous decision and the fills since.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal

import pandas as pd

from tradelib.candles.schema import candles_hash, open_ms
from tradelib.candles.store import CandleStore
from tradelib.clock import from_ms, timeframe_ms, to_ms, utc_now
from tradelib.settings import LimitSettings
from tradelib.strategy import decision as step
from tradelib.strategy.decision import DecisionState
from tradelib.trading.accounts import compute_equity, load_balances
from tradelib.trading.bots import Bot
from tradelib.trading.decisions import (
    Action,
    Decision,
    ScoreRecord,
    latest_decision,
    record_decision,
)
from tradelib.trading.ledger import Ledger
from tradelib.trading.orders import ZERO, decision_id
from tradelib.trading.positions import Position, is_dust, load_position

_ACTIONS = {-1: Action.SELL, 0: Action.HOLD, 1: Action.BUY}
CANNOT_AFFORD = "cannot afford an order"
NO_CANDLES = "no candles yet"


@dataclass(frozen=True)
class Signal:
    """A decision with what it was made from.

    candles, scores: what the strategy saw and said, on one index of open times; empty when the
    bot had no business looking.
    """

    bot: Bot
    as_of: datetime
    candles: pd.DataFrame
    scores: pd.DataFrame
    decision: Decision

    def to_json(self) -> dict[str, object]:
        score = self.scores["score"].iloc[-1] if len(self.scores) else None
        return {
            "bot": self.bot.name,
            "config": self.bot.config,
            "decision": self.decision.id,
            "action": str(self.decision.action),
            "fraction": str(self.decision.fraction),
            "temperature": self.decision.temperature,
            "reason": self.decision.reason,
            "score": None if score is None or math.isnan(score) else float(score),
            "candle_close": self.decision.candle_close.isoformat(),
            "candles": len(self.candles),
            "candles_hash": candles_hash(self.candles) if len(self.candles) else None,
        }


@dataclass(frozen=True)
class Purse:
    """What a bot decides with, in its quote currency: the account's worth and free cash, and the
    bot's own position with the purchases of which more than dust is left."""

    equity: Decimal
    cash: Decimal
    position: Position


def decide_bot(
    ledger: Ledger,
    store: CandleStore,
    limits: LimitSettings,
    bot: Bot,
    as_of: datetime,
    run: str,
) -> Signal:
    """Score the bot's candles closed at `as_of` and record its decision for the last of them.

    A bot that has nothing to sell and not the cash for the smallest order says so and loads no
    candles. The first decision for a candle stands; deciding again gives it back.
    """
    close = store.last_close(bot.venue, bot.symbol, bot.timeframe, as_of=as_of)
    if close is None:
        return _idle(ledger, bot, as_of, as_of, run, NO_CANDLES)
    purse = load_purse(ledger, store, bot, close)
    flat = purse.position.amount <= 0
    if flat and purse.cash < limits.notional_for(bot.quote).min:
        return _idle(ledger, bot, as_of, close, run, f"{CANNOT_AFFORD}: cash {purse.cash:f}")
    candles, scores = load_scores(store, bot, close)
    decided = compute_decision(ledger, bot, candles, scores, purse, run)
    return Signal(bot, as_of, candles, scores, record_decision(ledger, *decided))


def load_scores(store: CandleStore, bot: Bot, as_of: datetime) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The candles a bot looks at, closed at `as_of`, and what its strategy says of each."""
    params = bot.strategy_params
    candles = store.load(
        bot.venue, bot.symbol, bot.timeframe, as_of=as_of, limit=bot.rules.history(params)
    )
    return candles, bot.rules.score(candles, params)


def load_purse(ledger: Ledger, store: CandleStore, bot: Bot, as_of: datetime) -> Purse:
    """The account by the book, priced at the stored closes as of a time."""
    totals = {b.asset: b.booked for b in load_balances(ledger, bot.venue)}
    prices = {}
    for asset in totals:
        symbol = f"{asset}/{bot.quote}"
        last = store.load(bot.venue, symbol, bot.timeframe, as_of=as_of, limit=1)
        if len(last):
            prices[symbol] = Decimal(str(float(last["close"].iloc[-1])))
    equity = compute_equity(totals, bot.quote, prices)
    position = load_position(ledger, bot.name, bot.symbol)
    price = prices.get(bot.symbol, ZERO)
    if is_dust(position.amount * price, equity):
        position = Position(bot.symbol, last_trade=position.last_trade)
    # A rest of an earlier position is no entry of this one.
    position = replace(position, tranches=tuple(position.living_tranches(price, equity)))
    return Purse(equity, totals.get(bot.quote, ZERO), position)


def compute_decision(
    ledger: Ledger,
    bot: Bot,
    candles: pd.DataFrame,
    scores: pd.DataFrame,
    purse: Purse,
    run: str,
) -> tuple[Decision, ScoreRecord]:
    """The decision at the last candle's close. Only the last step may act; candles that closed
    since the previous decision (the desk was down) only carry the state forward."""
    closes = _close_times(candles, bot.timeframe)
    params = bot.decision_params.step()
    before = latest_decision(ledger, bot.name, before=from_ms(closes[-1]))
    state = _state_before(before, purse)
    equity, cash = float(purse.equity), float(purse.cash)
    choice = None
    for score, price, time in _steps(before, bot, candles, scores, closes):
        state, choice = step.decide(state, score, price, time, equity, cash, params)
    assert choice is not None  # the last candle is always a step
    close = from_ms(closes[-1])
    price = Decimal(str(float(candles["close"].iloc[-1])))
    decision = Decision(
        id=decision_id(bot.name, close),
        bot=bot.name,
        candle_close=close,
        run=run,
        action=_ACTIONS[choice.action],
        fraction=Decimal(str(choice.fraction)),
        temperature=step.TEMPERATURES[choice.temperature],
        reason=step.reason_text(choice.reason),
        price=price,
        state=state._asdict(),
        decided_at=utc_now(),
    )
    last = scores.iloc[-1]
    told = {name: None if math.isnan(v) else repr(float(v)) for name, v in last.items()}
    score = ScoreRecord(
        bot=bot.name,
        candle_close=close,
        run=run,
        score=told.pop("score"),
        components=told,
        price=price,
        candles_hash=candles_hash(candles),
    )
    return decision, score


def _steps(
    before: Decision | None,
    bot: Bot,
    candles: pd.DataFrame,
    scores: pd.DataFrame,
    closes: list[int],
) -> list[tuple[float, float, int]]:
    """Score, price and close of each candle since the previous decision, the last one included.

    A bot without one looks back as far as its confirmation reaches.
    """
    reach = timedelta(minutes=bot.decision_params.confirmation_minutes)
    since = to_ms(before.candle_close) if before else to_ms(from_ms(closes[-1]) - reach) - 1
    first = min(sum(close <= since for close in closes), len(closes) - 1)
    values = zip(scores["score"].tolist(), candles["close"].tolist(), closes, strict=True)
    return list(values)[first:]


def _state_before(before: Decision | None, purse: Purse) -> DecisionState:
    """The previous decision's signal, with the position, its entries and the last trade that the
    fills tell."""
    signal = DecisionState(**before.state) if before else DecisionState()
    position, tranches = purse.position, purse.position.tranches
    return signal._replace(
        amount=float(position.amount),
        entry_price=float(position.average_entry or 0),
        last_trade_ms=to_ms(position.last_trade) if position.last_trade else step.NEVER_MS,
        tranches=len(tranches),
        last_entry=float(tranches[-1].price) if tranches else 0.0,
    )


def _close_times(candles: pd.DataFrame, timeframe: str) -> list[int]:
    length = timeframe_ms(timeframe)
    return [int(ms) + length for ms in open_ms(candles)]


def _idle(
    ledger: Ledger, bot: Bot, as_of: datetime, close: datetime, run: str, reason: str
) -> Signal:
    """A recorded decision to do nothing, without a look at the market."""
    before = latest_decision(ledger, bot.name, before=close)
    decision = Decision(
        id=decision_id(bot.name, close),
        bot=bot.name,
        candle_close=close,
        run=run,
        action=Action.HOLD,
        fraction=ZERO,
        temperature=step.TEMPERATURES[step.FROZEN],
        reason=reason,
        price=None,
        state=before.state if before else DecisionState()._asdict(),
        decided_at=utc_now(),
    )
    empty = pd.DataFrame({"score": pd.Series(dtype="float64")})
    return Signal(bot, as_of, pd.DataFrame(), empty, record_decision(ledger, decision, None))
