"""The dead-man's switch: where nobody has decided for a while, no entry stays at the venue.

A limit order that rests was right when its bot last looked. Once no cycle has been healthy for a
set time, the desk's resting entries are cancelled and an incident is opened; stops and other sales
stay, since they protect what is held. Where no bot runs, books that are settled are enough: what a
person has left at rest on a desk that is well is that person's to cancel.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select

from tradelib.clock import utc_now
from tradelib.errors import DeskError
from tradelib.trading import tables
from tradelib.trading.bots import BotStatus
from tradelib.trading.incidents import close_incidents, open_incident
from tradelib.trading.leaving import cancel_orders, still_live
from tradelib.trading.ledger import Ledger
from tradelib.trading.orders import UNSETTLED, Order, Side
from tradelib.trading.runs import Outcome
from tradelib.venue import Venue

log = logging.getLogger(__name__)

NO_HEALTHY_CYCLE = "no healthy cycle"
_FETCH, _RECONCILE = "live/10_fetch_candles", "live/40_reconcile_orders"

Accounts = Mapping[str, Callable[[], Venue]]


@dataclass(frozen=True)
class Look:
    """What one look did. cancelled: the entries it found at rest, as they stand now; failures:
    what it could not do, in sentences."""

    cancelled: tuple[Order, ...] = ()
    failures: tuple[str, ...] = ()


def last_healthy(ledger: Ledger, venue: str) -> datetime | None:
    """When a venue's desk last gave a sign of life, by the wall clock; None: never.

    It has settled the books and, where a bot runs, has seen the market too. Nobody fetches for
    bots that are stopped, and one just started has the time that any of them has.
    """
    settled = _last_success(ledger, venue, _RECONCILE)
    started = _running_since(ledger, venue)
    if settled is None or started is None:
        return settled
    return min(settled, max(_last_success(ledger, venue, _FETCH) or started, started))


def _last_success(ledger: Ledger, venue: str, notebook: str) -> datetime | None:
    runs = tables.runs.c
    query = select(func.max(runs.ended_at)).where(
        runs.venue == venue, runs.notebook == notebook, runs.outcome == Outcome.SUCCEEDED
    )
    with ledger.read() as books:
        return books.execute(query).scalar()


def _running_since(ledger: Ledger, venue: str) -> datetime | None:
    """When the longest running bot of a venue was started or changed; None where none runs."""
    bots = tables.bots.c
    query = select(func.min(bots.updated_at)).where(
        bots.venue == venue, bots.status == BotStatus.RUNNING
    )
    with ledger.read() as books:
        return books.execute(query).scalar()


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
    find_accounts: Callable[[], Accounts],
    patience: timedelta,
    since: datetime,
) -> Look:
    """One look at each venue. Whatever fails is logged and told, and ends nothing: a watch must
    outlive a venue that is silent, a ledger that is locked and a fault of its own."""
    try:
        accounts = find_accounts()
    except Exception as error:
        return Look(failures=(_failure("the venues", error),))
    cancelled: list[Order] = []
    failures: list[str] = []
    for venue, open_account in accounts.items():
        try:
            cancelled += watch_venue(ledger, open_account, venue, patience, since)
        except Exception as error:
            failures.append(_failure(venue, error))
    live = still_live(cancelled)
    for told in live:
        log.error("%s", told)
    return Look(tuple(cancelled), (*failures, *live))


def _failure(watched: str, error: Exception) -> str:
    is_fault = not isinstance(error, DeskError)
    told = f"the watch over {watched} failed: {f'{error!r}' if is_fault else error}"
    log.error("%s", told, exc_info=error if is_fault else None)
    return told


def _is_watched(ledger: Ledger, venue: str) -> bool:
    """Whether anybody expects cycles there: a bot runs, or an entry of the desk's rests."""
    return _running_since(ledger, venue) is not None or _resting_entries(ledger, venue)


def _resting_entries(ledger: Ledger, venue: str) -> bool:
    resting = select(tables.orders.c.client_id).where(
        tables.orders.c.venue == venue,
        tables.orders.c.side == Side.BUY,
        tables.orders.c.status.in_(UNSETTLED),
    )
    with ledger.read() as books:
        return books.execute(resting.limit(1)).first() is not None
