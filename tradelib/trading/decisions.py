"""Decisions: what a bot wanted at one candle's close, and the score it came from."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from sqlalchemy import bindparam, select

from tradelib.errors import InvalidInput
from tradelib.trading import tables
from tradelib.trading.ledger import Ledger, find, first, insert, rows


class Action(StrEnum):
    """ADJUST: bring several symbols to their targets, each by an order of its own."""

    BUY = "BUY"
    HOLD = "HOLD"
    SELL = "SELL"
    ADJUST = "ADJUST"


ACTIONS = {-1: Action.SELL, 0: Action.HOLD, 1: Action.BUY}
"""What the numbers mean that a step gives for its action."""


@dataclass(frozen=True)
class ScoreRecord:
    """score: shortest text of the float that parses back to the same bits, None in warm-up."""

    bot: str
    candle_close: datetime
    run: str
    score: str | None
    components: dict[str, Any]
    price: Decimal
    candles_hash: str


@dataclass(frozen=True)
class Leg:
    """One order of a decision. fraction: of the account's equity when buying, of the bot's
    position in the symbol when selling."""

    number: int
    symbol: str
    action: Action
    fraction: Decimal


@dataclass(frozen=True)
class Decision:
    """fraction: of the account's equity when buying, of the bot's position when selling, of the
    equity that changes hands when adjusting.

    price: close of the candle decided on; state: the decision step's state after it. targets: of
    a bot on several symbols one entry for each, as `tradelib.trading.targeting` makes them; then
    price is None and the state empty.
    """

    id: str
    bot: str
    candle_close: datetime
    run: str
    action: Action
    fraction: Decimal
    temperature: str
    reason: str
    price: Decimal | None
    state: dict[str, Any]
    decided_at: datetime
    targets: list[dict[str, Any]] = field(default_factory=list)

    def legs(self, symbol: str) -> tuple[Leg, ...]:
        """The orders that it asks for; of a bot on one symbol, one in that. Sales come first, for
        they bring the cash of the purchases; their numbers never change."""
        if self.action == Action.HOLD:
            return ()
        if not self.targets:
            return (Leg(0, symbol, Action(self.action), self.fraction),)
        wanted = [one for one in self.targets if one["action"] != Action.HOLD]
        wanted.sort(key=lambda one: one["action"] != Action.SELL)
        return tuple(
            Leg(number, one["symbol"], Action(one["action"]), Decimal(one["fraction"]))
            for number, one in enumerate(wanted)
        )


def record_decision(ledger: Ledger, decision: Decision, score: ScoreRecord | None) -> Decision:
    """Record the first decision for a bot and candle; a later one gets the first back."""
    with ledger.write() as books:
        earlier = first(find(books, tables.decisions, Decision, id=decision.id))
        if earlier:
            return earlier
        insert(books, tables.decisions, decision)
        if score:
            insert(books, tables.scores, score)
        return decision


def load_decision(ledger: Ledger, decision_id: str) -> Decision:
    with ledger.read() as books:
        found = first(find(books, tables.decisions, Decision, id=decision_id))
    if found is None:
        raise InvalidInput(f"There is no decision {decision_id!r} in the ledger.")
    return found


def latest_decision(ledger: Ledger, bot: str, *, before: datetime | None = None) -> Decision | None:
    """The bot's newest decision, on a candle that closed before a time if one is given."""
    with ledger.read() as books:
        values = {"of_bot": bot} | ({"moment": before} if before else {})
        return first(rows(books, _LATEST_BEFORE if before else _LATEST, Decision, values))


_DECIDED = tables.decisions.c
_LATEST = (
    select(tables.decisions)
    .where(_DECIDED.bot == bindparam("of_bot"))
    .order_by(_DECIDED.candle_close.desc())
    .limit(1)
)
_LATEST_BEFORE = _LATEST.where(_DECIDED.candle_close < bindparam("moment"))


def latest_adjustment(ledger: Ledger, bot: str, *, before: datetime) -> Decision | None:
    """The bot's newest decision that asked for orders in several symbols."""
    decided = tables.decisions.c
    query = select(tables.decisions).where(
        decided.bot == bot, decided.action == Action.ADJUST, decided.candle_close < before
    )
    return first(ledger.rows(query.order_by(decided.candle_close.desc()).limit(1), Decision))


def load_score(ledger: Ledger, bot: str, candle_close: datetime) -> ScoreRecord | None:
    query = select(tables.scores).where(
        tables.scores.c.bot == bot, tables.scores.c.candle_close == candle_close
    )
    return first(ledger.rows(query, ScoreRecord))
