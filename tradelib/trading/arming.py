"""Arming: orders reach a venue that is not on this machine only for a set time, after a person
has typed its name."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, Delete

from tradelib.clock import utc_now
from tradelib.trading import tables
from tradelib.trading.ledger import Ledger, find, first, insert


@dataclass(frozen=True)
class Arming:
    """Leave to trade at a venue until a time of the wall clock."""

    venue: str
    at: datetime
    until: datetime


def arm_venue(ledger: Ledger, venue: str, duration: timedelta) -> Arming:
    """Let orders go to a venue for a while; a later arming replaces an earlier one."""
    now = utc_now()
    arming = Arming(venue, now, now + duration)
    with ledger.write() as books:
        books.execute(_of(venue))
        insert(books, tables.armings, arming)
    return arming


def disarm_venue(ledger: Ledger, venue: str) -> None:
    """Take the leave back; orders at the venue stay as they are."""
    with ledger.write() as books:
        books.execute(_of(venue))


def read_arming(books: Connection, venue: str) -> Arming | None:
    """The arming in force now, inside the transaction that would record an order."""
    now = utc_now()
    return first(
        [one for one in find(books, tables.armings, Arming, venue=venue) if one.until > now]
    )


def _of(venue: str) -> Delete:
    return tables.armings.delete().where(tables.armings.c.venue == venue)
