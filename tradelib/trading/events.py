"""The account's stream becomes rows of the ledger: sooner than reconciliation, and never else.

An event may be lost, doubled, old or out of order. An execution is booked once for its id; a status
changes only where it may follow the one that stands, so that an older word is not heard. Whatever
needs a look at the whole account (an order that nobody knows, one that was given up) is left to
reconciliation, which is told that there is something to see.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeGuard

from sqlalchemy import Connection

from tradelib.trading.accounts import find_account
from tradelib.trading.booking import apply_venue_order, book_trades, booked_trades
from tradelib.trading.ledger import Ledger
from tradelib.trading.orders import (
    Fill,
    Order,
    OrderStatus,
    find_by_venue_id,
    find_order,
)
from tradelib.venue import VenueOrder, VenueTrade


@dataclass(frozen=True)
class Booked:
    """What events did. changed: orders as they stand now; fills: those that were new; strange,
    strange_orders: what only reconciliation can judge."""

    changed: tuple[Order, ...] = ()
    fills: tuple[Fill, ...] = ()
    strange: tuple[VenueTrade, ...] = ()
    strange_orders: tuple[VenueOrder, ...] = ()


def book_events(
    ledger: Ledger, venue: str, orders: Sequence[VenueOrder], trades: Sequence[VenueTrade]
) -> Booked:
    """Book what the account's stream tells, in one transaction; doing it again changes nothing.

    Nothing is booked in books that are not open yet: their first reconciliation opens them.
    """
    with ledger.write() as books:
        if find_account(books, venue) is None:
            return Booked(strange=tuple(trades), strange_orders=tuple(orders))
        changed, strange_orders = _apply_orders(books, venue, orders)
        own = [trade for trade in trades if _is_ours(_by_id(books, venue, trade))]
        fills = book_trades(books, venue, own)
        others = [trade for trade in trades if trade not in own]
        strange = tuple(trade for trade in others if not _is_booked(books, venue, trade))
        return Booked(tuple(changed), tuple(fills), strange, tuple(strange_orders))


def _apply_orders(
    books: Connection, venue: str, answers: Sequence[VenueOrder]
) -> tuple[list[Order], list[VenueOrder]]:
    """The orders that changed, and the events of those that only reconciliation can judge."""
    changed, strange = [], []
    for answer in answers:
        order = find_order(books, answer.client_id) if answer.client_id else None
        order = order or find_by_venue_id(books, venue, answer.symbol, answer.venue_order_id)
        if not _is_ours(order) or order.venue != venue:
            strange.append(answer)
        elif (after := apply_venue_order(books, order, answer)) != order:
            changed.append(after)
    return changed, strange


def _is_booked(books: Connection, venue: str, trade: VenueTrade) -> bool:
    return bool(booked_trades(books, venue, trade.symbol, [trade.trade_id]))


def _by_id(books: Connection, venue: str, trade: VenueTrade) -> Order | None:
    return find_by_venue_id(books, venue, trade.symbol, trade.venue_order_id)


def _is_ours(order: Order | None) -> TypeGuard[Order]:
    """Whether it is an order that the ledger holds to be at the venue."""
    unsent = (OrderStatus.PLANNED, OrderStatus.DENIED)
    return order is not None and not order.never_arrived and order.status not in unsent
