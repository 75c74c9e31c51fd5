"""The dead-man's switch: where nobody has decided for a while, no entry stays at the venue.

A limit order that rests was right when its bot last looked. Once no cycle has been healthy for a
set time, the desk's resting entries are cancelled and an incident is opened; stops and other sales
stay, since they protect what is held.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import func, select

from tradelib.clock import utc_now
from tradelib.errors import DeskError
from tradelib.trading import tables
from tradelib.trading.bots import BotStatus
from tradelib.trading.incidents import close_incidents, open_incident
from tradelib.trading.ledger import Ledger
from tradelib.trading.manual import cancel_orders
from tradelib.trading.orders import UNSETTLED, Order, Side
from tradelib.trading.runs import Outcome
from tradelib.venue import Venue

log = logging.getLogger(__name__)

NO_HEALTHY_CYCLE = "no healthy cycle"
# A cycle is healthy when it has both seen the market and settled the books.
_SIGNS = ("live/10_fetch_candles", "live/40_reconcile_orders")


def last_healthy(ledger: Ledger, venue: str) -> datetime | None:
    """When the last cycle of a venue was known to be healthy, by the wall clock; None: never."""
    runs = tables.runs.c
    seen = []
    for notebook in _SIGNS:
        query = select(func.max(runs.ended_at)).where(
            runs.venue == venue, runs.notebook == notebook, runs.outcome == Outcome.SUCCEEDED
        )
        with ledger.read() as books:
            seen.append(books.execute(query).scalar())
    return None if None in seen else min(seen)


def watch_venue(
    ledger: Ledger,
    open_account: Callable[[], Venue],
    venue: str,
    patience: timedelta,
    since: datetime,
) -> list[Order]:
    """One look: cancel resting entries if the last healthy cycle is longer ago than `patience`.

    since: when watching began, which counts as a sign of life. Answers what was cancelled. The
    incident closes by itself with the next healthy cycle.
    """
    alive = max(last_healthy(ledger, venue) or since, since)
    silent = utc_now() - alive
    if silent <= patience:
        with ledger.write() as books:
            close_incidents(books, NO_HEALTHY_CYCLE, venue, "a cycle was healthy again")
        return []
    if not _is_watched(ledger, venue):
        return []
    with ledger.write() as books:
        evidence = {"ledger": f"last healthy cycle {alive:%F %T}Z", "venue": "entries may rest"}
        open_incident(books, NO_HEALTHY_CYCLE, venue, venue, evidence)
    if not _resting_entries(ledger, venue):
        return []
    log.warning("no healthy cycle at %s for %s: cancelling resting entries", venue, silent)
    return cancel_orders(ledger, open_account(), entries_only=True)


def watch_once(
    ledger: Ledger,
    accounts: dict[str, Callable[[], Venue]],
    patience: timedelta,
    since: datetime,
) -> list[Order]:
    """One look at each venue; one that cannot be reached does not hide the others."""
    cancelled: list[Order] = []
    for venue, open_account in accounts.items():
        try:
            cancelled += watch_venue(ledger, open_account, venue, patience, since)
        except DeskError as error:
            log.error("the watch over %s failed: %s", venue, error)
    return cancelled


def _is_watched(ledger: Ledger, venue: str) -> bool:
    """Whether anybody expects cycles there: a bot runs, or an entry of the desk's rests."""
    running = select(tables.bots.c.name).where(
        tables.bots.c.venue == venue, tables.bots.c.status == BotStatus.RUNNING
    )
    with ledger.read() as books:
        has_bot = books.execute(running.limit(1)).first() is not None
    return has_bot or _resting_entries(ledger, venue)


def _resting_entries(ledger: Ledger, venue: str) -> bool:
    resting = select(tables.orders.c.client_id).where(
        tables.orders.c.venue == venue,
        tables.orders.c.side == Side.BUY,
        tables.orders.c.status.in_(UNSETTLED),
    )
    with ledger.read() as books:
        return books.execute(resting.limit(1)).first() is not None
