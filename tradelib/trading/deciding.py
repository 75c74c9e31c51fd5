"""Deciding: a bot's candles become a score, and the score one decision per candle.

The last step of the same pure function that a backtest folds over history; what it needs to know
of the past is the state stored with the bot's previous decision and the fills since.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd

from tradelib.candles.schema import candles_hash, open_ms
from tradelib.candles.store import CandleStore
from tradelib.clock import from_ms, parse_time, timeframe_ms, to_ms, utc_now
from tradelib.settings import LimitSettings
from tradelib.strategy import decision as step
from tradelib.strategy.decision import DecisionState
from tradelib.trading.accounts import compute_equity, load_balances
from tradelib.trading.bots import Bot
from tradelib.trading.decisions import (
    ACTIONS,
    Action,
    Decision,
    ScoreRecord,
    latest_decision,
    record_decision,
)
from tradelib.trading.ledger import Ledger
from tradelib.trading.orders import ZERO, decision_id
from tradelib.trading.positions import Position, load_position
from tradelib.trading.runs import COMPUTED

# Of a longer outage, only so many candles beyond a confirmation's reach are looked back on.
LONGEST_OUTAGE = 500
CANNOT_AFFORD = step.reason_text(step.CANNOT_AFFORD)
NO_CANDLES = "no candles yet"


@dataclass(frozen=True)
class DecisionInputs:
    """What a decision is made from beside the candles and the bot's own rules.

    state: the decision step's, before its first candle; since: close of the candle that the
    previous decision was made at; equity, cash: the account's, in quote currency; smallest: the
    least an order may be worth.
    """

    state: DecisionState
    since: datetime | None
    equity: Decimal
    cash: Decimal
    smallest: Decimal

    @property
    def can_act(self) -> bool:
        """Whether there is anything to sell, or the cash for the smallest order."""
        return self.state.amount > 0 or self.cash >= self.smallest

    def to_json(self) -> dict[str, object]:
        return {
            "state": self.state._asdict(),
            "since": self.since.isoformat() if self.since else None,
            "equity": str(self.equity),
            "cash": str(self.cash),
            "smallest": str(self.smallest),
        }

    @staticmethod
    def from_json(told: dict[str, Any]) -> DecisionInputs:
        return DecisionInputs(
            DecisionState(**told["state"]),
            parse_time(told["since"]) if told["since"] else None,
            *(Decimal(told[name]) for name in ("equity", "cash", "smallest")),
        )


@dataclass(frozen=True)
class Computed:
    """What a bot's rules say at one candle's close: a pure function of its candles and inputs.

    candles, scores: what the strategy saw and said, on one index of open times; empty when the
    bot had no business looking.
    """

    decision: Decision
    score: ScoreRecord | None
    candles: pd.DataFrame
    scores: pd.DataFrame
    inputs: DecisionInputs | None

    def to_json(self) -> dict[str, object]:
        """What another computation from the same inputs must give again, bit for bit."""
        decision, score = self.decision, self.score
        return {
            "candle_close": decision.candle_close.isoformat(),
            "candles": len(self.candles),
            "candles_hash": score.candles_hash if score else None,
            "scores_hash": frame_hash(self.scores),
            "score": score.score if score else None,
            "components": score.components if score else {},
            "action": str(decision.action),
            "fraction": str(decision.fraction),
            "temperature": decision.temperature,
            "reason": decision.reason,
            "price": None if decision.price is None else str(decision.price),
            "state": decision.state,
        }


@dataclass(frozen=True)
class Signal:
    """The decision for a candle, with what this run computed for it: once it is recorded, the one
    that stands, which is another run's where that one was first."""

    bot: Bot
    as_of: datetime
    candles: pd.DataFrame
    scores: pd.DataFrame
    decision: Decision
    computed: Computed | None = None

    def record(self, ledger: Ledger) -> Signal:
        """The same with the decision that stands in the ledger: the first one for a candle."""
        score = self.computed.score if self.computed else None
        return replace(self, decision=record_decision(ledger, self.decision, score))

    def to_json(self) -> dict[str, object]:
        score = self.scores["score"].iloc[-1] if len(self.scores) else None
        told = {
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
        if self.computed is None:
            return told
        inputs = self.computed.inputs
        return told | {
            "inputs": inputs.to_json() if inputs else None,
            COMPUTED: self.computed.to_json(),
        }


@dataclass(frozen=True)
class Purse:
    """What a bot decides with, in its quote currency: the account's worth and free cash, and the
    bot's own position with the purchases of which more than dust is left."""

    equity: Decimal
    cash: Decimal
    position: Position


def score_bot(
    ledger: Ledger,
    store: CandleStore,
    limits: LimitSettings,
    bot: Bot,
    as_of: datetime,
    run: str,
) -> Signal:
    """Score the bot's candles closed at `as_of`, and what to do at the last of them; nothing is
    recorded yet.

    A bot that has nothing to sell and not the cash for the smallest order says so and loads no
    candles.
    """
    close = store.last_close(bot.venue, bot.symbol, bot.timeframe, as_of=as_of)
    with ledger.read():
        inputs = None if close is None else read_inputs(ledger, store, limits, bot, close)
    computed = compute_signal(store, bot, close or as_of, inputs, run)
    return Signal(bot, as_of, computed.candles, computed.scores, computed.decision, computed)


def read_inputs(
    ledger: Ledger, store: CandleStore, limits: LimitSettings, bot: Bot, close: datetime
) -> DecisionInputs:
    """What the ledger knows of a bot that decides at a candle's close."""
    purse = load_purse(ledger, store, bot, close)
    before = latest_decision(ledger, bot.name, before=close)
    return DecisionInputs(
        state=_state_before(before, purse),
        since=before.candle_close if before else None,
        equity=purse.equity,
        cash=purse.cash,
        smallest=limits.notional_for(bot.quote).min,
    )


def compute_signal(
    store: CandleStore, bot: Bot, close: datetime, inputs: DecisionInputs | None, run: str
) -> Computed:
    """What the bot's rules say at the close; without inputs, that there are no candles yet."""
    if inputs is None:
        return _idle(bot, close, None, run, NO_CANDLES)
    if not inputs.can_act:
        return _idle(bot, close, inputs, run, f"{CANNOT_AFFORD}: cash {inputs.cash:f}")
    candles, scores = load_scores(store, bot, close, lookback=_lookback(bot, inputs, close))
    decision = _fold(bot, candles, scores, inputs, run)
    return Computed(decision, _score_record(decision, candles, scores), candles, scores, inputs)


def load_scores(
    store: CandleStore, bot: Bot, as_of: datetime, *, lookback: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The candles a bot looks at, closed at `as_of`, and what its strategy says of each: of the
    last one, and of so many before it, what it says however long the history."""
    params = bot.strategy_params
    limit = bot.rules.history(params) + lookback
    candles = store.load(bot.venue, bot.symbol, bot.timeframe, as_of=as_of, limit=limit)
    return candles, bot.rules.score(candles, params)


def _lookback(bot: Bot, inputs: DecisionInputs, close: datetime) -> int:
    """Candles before the last one that only carry the state forward: those since the previous
    decision, else as far as a confirmation reaches."""
    if inputs.since is None:
        return bot.reach
    missed = (to_ms(close) - to_ms(inputs.since)) // timeframe_ms(bot.timeframe) - 1
    return max(0, min(missed, bot.reach + LONGEST_OUTAGE))


def load_purse(ledger: Ledger, store: CandleStore, bot: Bot, as_of: datetime) -> Purse:
    """The account by the book, priced at the stored closes as of a time."""
    equity, cash, prices = load_worth(ledger, store, bot, as_of)
    price = prices.get(bot.symbol, ZERO)
    return Purse(equity, cash, living_position(ledger, bot, bot.symbol, price, equity))


def load_worth(
    ledger: Ledger, store: CandleStore, bot: Bot, as_of: datetime
) -> tuple[Decimal, Decimal, dict[str, Decimal]]:
    """Equity, free cash and the stored closes that the former was priced at, by symbol."""
    totals = {b.asset: b.booked for b in load_balances(ledger, bot.venue)}
    prices = {}
    for asset in [asset for asset in totals if asset != bot.quote]:
        symbol = f"{asset}/{bot.quote}"
        last = store.load(bot.venue, symbol, bot.timeframe, as_of=as_of, limit=1)
        if len(last):
            prices[symbol] = Decimal(str(float(last["close"].iloc[-1])))
    equity = compute_equity(totals, bot.quote, prices)
    return equity, totals.get(bot.quote, ZERO), prices


def living_position(
    ledger: Ledger, bot: Bot, symbol: str, price: Decimal, equity: Decimal
) -> Position:
    """A bot's position without what is only dust at the price."""
    return load_position(ledger, bot.name, symbol).without_dust(price, equity)


def _fold(
    bot: Bot, candles: pd.DataFrame, scores: pd.DataFrame, inputs: DecisionInputs, run: str
) -> Decision:
    """The decision at the last candle's close. Only the last step may act; candles that closed
    since the previous decision (the desk was down) only carry the state forward."""
    params, state = bot.decision_params.step(), inputs.state
    equity, cash = float(inputs.equity), float(inputs.cash)
    closes = _close_times(candles, bot.timeframe)
    first = _first_step(bot, inputs, closes)
    before = closes[first - 1] if first else closes[0] - timeframe_ms(bot.timeframe)
    if inputs.since and before > to_ms(inputs.since):
        # Candles between are left out, so no signal is known to have stood since before them.
        state = state._replace(pending=0, pending_since_ms=step.NEVER_MS)
    choice = None
    columns = scores["score"].to_list(), candles["close"].to_list(), closes
    for score, price, time in zip(*(column[first:] for column in columns), strict=True):
        state, choice = step.decide(state, score, price, time, equity, cash, params)
    assert choice is not None  # the last candle is always a step
    close = from_ms(closes[-1])
    return Decision(
        id=decision_id(bot.name, close),
        bot=bot.name,
        candle_close=close,
        run=run,
        action=ACTIONS[choice.action],
        fraction=Decimal(str(choice.fraction)),
        temperature=step.TEMPERATURES[choice.temperature],
        reason=step.reason_text(choice.reason),
        price=Decimal(str(float(candles["close"].iloc[-1]))),
        state=state._asdict(),
        decided_at=utc_now(),
    )


def _first_step(bot: Bot, inputs: DecisionInputs, closes: list[int]) -> int:
    """The place of the first candle that is a step: none that was one already, and none whose
    score would be another with a longer history. The last always is one."""
    length = timeframe_ms(bot.timeframe)
    seen = to_ms(inputs.since) if inputs.since else closes[-1] - bot.reach * length - 1
    settled = len(closes) - 1 - _lookback(bot, inputs, from_ms(closes[-1]))
    return max(settled, min(sum(close <= seen for close in closes), len(closes) - 1))


def _score_record(decision: Decision, candles: pd.DataFrame, scores: pd.DataFrame) -> ScoreRecord:
    last = scores.iloc[-1]
    told = {name: None if math.isnan(v) else repr(float(v)) for name, v in last.items()}
    assert decision.price is not None  # a decision on candles has one
    return ScoreRecord(
        bot=decision.bot,
        candle_close=decision.candle_close,
        run=decision.run,
        score=told.pop("score"),
        components=told,
        price=decision.price,
        candles_hash=candles_hash(candles),
    )


def _state_before(before: Decision | None, purse: Purse) -> DecisionState:
    """The previous decision's signal, with the position, its entries and the last trade that the
    fills tell."""
    signal = DecisionState(**before.state) if before else DecisionState()
    return state_with(signal, purse.position)


def state_with(signal: DecisionState, position: Position) -> DecisionState:
    """A signal's state with a position that has no dust."""
    tranches = position.tranches
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


def frame_hash(scores: pd.DataFrame) -> str:
    """SHA-256 of the columns' names and of their floats, bit for bit, row after row."""
    told = hashlib.sha256(repr(list(scores.columns)).encode())
    told.update(np.ascontiguousarray(scores.to_numpy(dtype="<f8")).tobytes())
    return told.hexdigest()


def _idle(
    bot: Bot, close: datetime, inputs: DecisionInputs | None, run: str, reason: str
) -> Computed:
    """A decision to do nothing, without a look at the market."""
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
        state=(inputs.state if inputs else DecisionState())._asdict(),
        decided_at=utc_now(),
    )
    empty = pd.DataFrame({"score": pd.Series(dtype="float64")})
    return Computed(decision, None, pd.DataFrame(), empty, inputs)
