"""Incidents: named discrepancies between the books and the world, open until repaired."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, select

from tradelib.clock import utc_now
from tradelib.trading import tables
from tradelib.trading.ledger import Ledger, first, insert, rows

# An order with an id of the desk's that the ledger does not have. It stays open until a resync:
# while it does, a decision might be ordered again.
ORDER_MISSING = "order missing from the ledger"

# What a bot did is not what its backtest says; open until a day's check finds them agreeing.
LIVE_DIFFERS = "live differs from backtest"


@dataclass(frozen=True)
class Incident:
    """kind: what sort of thing is wrong; subject: with what; evidence: both sides' figures."""

    id: str
    kind: str
    venue: str | None
    subject: str
    evidence: dict[str, Any]
    opened_at: datetime
    closed_at: datetime | None = None
    repair: str | None = None


def open_incident(
    books: Connection, kind: str, venue: str | None, subject: str, evidence: dict[str, Any]
) -> Incident:
    """Open an incident; one that is open for the same thing is kept, with the newest evidence."""
    open_now = select(tables.incidents).where(
        tables.incidents.c.kind == kind,
        tables.incidents.c.venue == venue,
        tables.incidents.c.subject == subject,
        tables.incidents.c.closed_at.is_(None),
    )
    found = first(rows(books, open_now, Incident))
    if found:
        return _with_evidence(books, found, evidence)
    now = utc_now()
    name = hashlib.sha256(f"{kind}|{venue}|{subject}|{now}".encode()).hexdigest()[:12]
    incident = Incident(f"i-{name}", kind, venue, subject, evidence, now)
    insert(books, tables.incidents, incident)
    return incident


def _with_evidence(books: Connection, found: Incident, evidence: dict[str, Any]) -> Incident:
    if found.evidence == evidence:
        return found
    books.execute(
        tables.incidents.update().where(tables.incidents.c.id == found.id).values(evidence=evidence)
    )
    return replace(found, evidence=evidence)


def has_open_incident(books: Connection, kind: str, venue: str) -> bool:
    return books.execute(_OPEN, {"of_kind": kind, "at_venue": venue}).first() is not None


_OPEN = (
    select(tables.incidents.c.id)
    .where(
        tables.incidents.c.kind == bindparam("of_kind"),
        tables.incidents.c.venue == bindparam("at_venue"),
        tables.incidents.c.closed_at.is_(None),
    )
    .limit(1)
)


def close_incidents(
    books: Connection, kind: str, venue: str | None, repair: str, subject: str | None = None
) -> int:
    """Close what is open of a kind at a venue, for one subject or all."""
    query = tables.incidents.update().where(
        tables.incidents.c.kind == kind,
        tables.incidents.c.venue == venue,
        tables.incidents.c.closed_at.is_(None),
    )
    if subject:
        query = query.where(tables.incidents.c.subject == subject)
    return books.execute(query.values(closed_at=utc_now(), repair=repair)).rowcount


def load_incidents(
    ledger: Ledger, *, open_only: bool = False, limit: int | None = None
) -> list[Incident]:
    """Incidents, newest first."""
    query = select(tables.incidents).order_by(tables.incidents.c.opened_at.desc()).limit(limit)
    if open_only:
        query = query.where(tables.incidents.c.closed_at.is_(None))
    return ledger.rows(query, Incident)
