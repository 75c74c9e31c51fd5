"""The halt: one switch that stops every new order, everywhere, until a person resumes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, select

from tradelib.clock import utc_now
from tradelib.errors import DeskError, InvalidInput
from tradelib.trading import tables
from tradelib.trading.ledger import Ledger, first, rows


@dataclass(frozen=True)
class Halt:
    reason: str
    at: datetime
    resumed_at: datetime | None


_ACTIVE = select(tables.halts).where(tables.halts.c.resumed_at.is_(None))


def halt_trading(ledger: Ledger, reason: str) -> Halt:
    """Stop every new order; a desk that is halted already keeps its first reason."""
    if not reason.strip():
        raise InvalidInput('A halt needs a reason, such as: desk halt "spread looks wrong".')
    with ledger.write() as books:
        found = first(rows(books, _ACTIVE, Halt))
        if found:
            return found
        halt = Halt(reason.strip(), utc_now(), None)
        books.execute(tables.halts.insert().values(reason=halt.reason, at=halt.at))
        return halt


def resume_trading(ledger: Ledger) -> bool:
    """Lift the halt; False when there was none."""
    query = (
        tables.halts.update()
        .where(tables.halts.c.resumed_at.is_(None))
        .values(resumed_at=utc_now())
    )
    with ledger.write() as books:
        return books.execute(query).rowcount > 0


def active_halt(ledger: Ledger) -> Halt | None:
    """The halt in force. A halt that cannot be read counts as set."""
    try:
        return first(ledger.rows(_ACTIVE, Halt))
    except DeskError as error:
        return Halt(f"the halt cannot be read: {error}", utc_now(), None)


def read_halt(books: Connection) -> Halt | None:
    """The halt in force, read inside the transaction that would record an order."""
    return first(rows(books, _ACTIVE, Halt))
