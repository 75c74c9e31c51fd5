"""Trading states: active, reducing (positions may only shrink) or halted (no new order at all),
everywhere, until a person resumes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import Connection, select

from tradelib.clock import utc_now
from tradelib.errors import DeskError, InvalidInput
from tradelib.trading import tables
from tradelib.trading.ledger import Ledger, first, rows


class TradingState(StrEnum):
    ACTIVE = "ACTIVE"
    REDUCING = "REDUCING"
    HALTED = "HALTED"


@dataclass(frozen=True)
class Halt:
    """state: HALTED, or REDUCING where orders that shrink a position still go."""

    reason: str
    at: datetime
    resumed_at: datetime | None
    state: TradingState = TradingState.HALTED

    @property
    def stops_all(self) -> bool:
        """A state that is not known stops everything."""
        return self.state != TradingState.REDUCING


_ACTIVE = select(tables.halts).where(tables.halts.c.resumed_at.is_(None))
_LIFT = tables.halts.update().where(tables.halts.c.resumed_at.is_(None))
_STRICTEST = _ACTIVE.order_by(tables.halts.c.state, tables.halts.c.id)  # HALTED before REDUCING


def halt_trading(ledger: Ledger, reason: str, state: TradingState = TradingState.HALTED) -> Halt:
    """Stop every new order, or with REDUCING every new entry.

    A state at least as strict that is in force already keeps its reason; a stricter one is added,
    and both end with `resume_trading`.
    """
    if not reason.strip():
        raise InvalidInput('A halt needs a reason, such as: desk halt "spread looks wrong".')
    with ledger.write() as books:
        found = first(rows(books, _STRICTEST, Halt))
        if found and (state == found.state or found.stops_all):
            return found
        halt = Halt(reason.strip(), utc_now(), None, state)
        books.execute(tables.halts.insert().values(reason=halt.reason, at=halt.at, state=state))
        return halt


def resume_trading(ledger: Ledger) -> bool:
    """Lift every halt; False when there was none."""
    with ledger.write() as books:
        return books.execute(_LIFT.values(resumed_at=utc_now())).rowcount > 0


def active_halt(ledger: Ledger) -> Halt | None:
    """The strictest halt in force. A halt that cannot be read counts as set."""
    try:
        return first(ledger.rows(_STRICTEST, Halt))
    except DeskError as error:
        return Halt(f"the halt cannot be read: {error}", utc_now(), None)


def read_halt(books: Connection) -> Halt | None:
    """The halt in force, read inside the transaction that would record or send an order."""
    return first(rows(books, _STRICTEST, Halt))
