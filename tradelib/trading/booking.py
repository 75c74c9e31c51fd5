"""Booking: what a venue says of an order and of its executions becomes rows of the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import localcontext

from sqlalchemy import ColumnElement, Connection, select

from tradelib.trading import tables
from tradelib.trading.accounts import book_fills
from tradelib.trading.ledger import Ledger, insert
from tradelib.trading.orders import (
    EXACT,
    LEGAL_CHANGES,
    ZERO,
    Fill,
    Order,
    OrderStatus,
    Side,
    change_order,
    find_by_venue_id,
    find_order,
    order_fills,
    revive_order,
    unknown_fills,
)
from tradelib.trading.positions import UNASSIGNED, book_positions, refold_position
from tradelib.venue import Venue, VenueOrder, VenueStatus, VenueTrade


def apply_venue_order(books: Connection, order: Order, answer: VenueOrder) -> Order:
    """The order as the venue tells it.

    A status that cannot follow the ledger's changes nothing: what a venue said once and for all
    is not taken back by a later or a stale word. Only an order that was given up as never
    received comes back to life.
    """
    given_up = order.never_arrived
    if OrderStatus(order.status).final and not given_up:
        return order
    changes: dict[str, object] = {"venue_order_id": answer.venue_order_id}
    if answer.list_id:
        changes["venue_list_id"] = answer.list_id
    before = OrderStatus.UNRESOLVED if given_up else OrderStatus(order.status)
    if answer.status is VenueStatus.UNKNOWN:
        # An acknowledgement without a status: the order exists, its state is still to be read.
        after = OrderStatus.UNRESOLVED if before is OrderStatus.SUBMITTED else before
    else:
        after = OrderStatus(answer.status.value)
        changes["reason"] = None
        if after is not before and after not in LEGAL_CHANGES[before]:
            return order
    changes["status"] = after
    if answer.filled is not None and answer.filled >= order.filled:
        changes["filled"] = answer.filled
        changes["cost"] = answer.cost if answer.cost is not None else order.cost
    record = revive_order if given_up else change_order
    changed = record(books, order, **changes)
    return changed if order.venue_order_id else _claim_fills(books, changed)


def _claim_fills(books: Connection, order: Order) -> Order:
    """Fills that were read before their order was known are its own."""
    fills = tables.fills.c
    claimed = books.execute(
        tables.fills.update()
        .where(
            fills.venue == order.venue,
            fills.symbol == order.symbol,
            fills.venue_order_id == order.venue_order_id,
            fills.client_id.is_(None),
        )
        .values(client_id=order.client_id)
    ).rowcount
    if claimed:
        _notice_fills(books, order)
        for bot in (UNASSIGNED, order.bot or UNASSIGNED):
            refold_position(books, order.venue, bot, order.symbol)
    return find_order(books, order.client_id) or order


def book_order_trades(ledger: Ledger, venue: Venue, order: Order) -> list[Fill]:
    """Read the executions of one order and book those that are new."""
    trades = venue.fetch_order_trades(order.symbol, order.venue_order_id)
    with ledger.write() as books:
        return book_trades(books, venue.name, trades)


def book_trades(books: Connection, venue: str, trades: Sequence[VenueTrade]) -> list[Fill]:
    """Book the venue's executions that the ledger lacks, into fills and balances; each once."""
    new = unknown_fills(books, [_fill(books, venue, trade) for trade in trades])
    for fill in new:
        insert(books, tables.fills, fill)
    book_fills(books, new)
    book_positions(books, new)
    for client_id in {fill.client_id for fill in new if fill.client_id}:
        order = find_order(books, client_id)
        if order:
            _notice_fills(books, order)
    return new


def _notice_fills(books: Connection, order: Order) -> None:
    """An order is filled at least as far as its fills go, whatever its status lags behind."""
    booked = order_fills(books, order.client_id)
    with localcontext(EXACT):
        amount = sum((fill.amount for fill in booked), ZERO)
        cost = sum((fill.cost for fill in booked), ZERO)
    if amount <= order.filled:
        change_order(books, order)  # takes notice of whether its fills are complete now
        return
    status = OrderStatus(order.status)
    if OrderStatus.PARTIALLY_FILLED in LEGAL_CHANGES[status]:
        status = OrderStatus.PARTIALLY_FILLED
    change_order(books, order, status=status, filled=amount, cost=cost)


def _fill(books: Connection, venue: str, trade: VenueTrade) -> Fill:
    owner = find_by_venue_id(books, venue, trade.symbol, trade.venue_order_id)
    return fill_of(venue, trade, owner.client_id if owner else None)


def fill_of(venue: str, trade: VenueTrade, client_id: str | None) -> Fill:
    """A venue's execution as the ledger's fill; client_id None for somebody else's."""
    return Fill(
        venue=venue,
        symbol=trade.symbol,
        trade_id=trade.trade_id,
        client_id=client_id,
        venue_order_id=trade.venue_order_id,
        side=Side(trade.side),
        amount=trade.amount,
        price=trade.price,
        cost=trade.cost,
        fee=trade.fee,
        fee_currency=trade.fee_currency,
        at=trade.at,
    )


def booked_trades(books: Connection, venue: str, symbol: str, trade_ids: Sequence[str]) -> set[str]:
    """Which of these executions are in the books."""
    found: set[str] = set()
    fills = tables.fills.c
    for start in range(0, len(trade_ids), 500):
        query = select(fills.trade_id).where(
            fills.venue == venue,
            fills.symbol == symbol,
            fills.trade_id.in_(trade_ids[start : start + 500]),
        )
        found |= set(books.execute(query).scalars())
    return found


def load_cursor(books: Connection, venue: str, symbol: str) -> str | None:
    """The trade up to which a symbol was walked; '' when it had none, None when never walked."""
    query = select(tables.trade_cursors.c.trade_id).where(*_cursor(venue, symbol))
    return books.execute(query).scalar()


def save_cursor(books: Connection, venue: str, symbol: str, trade_id: str) -> None:
    books.execute(tables.trade_cursors.delete().where(*_cursor(venue, symbol)))
    books.execute(
        tables.trade_cursors.insert().values(venue=venue, symbol=symbol, trade_id=trade_id)
    )


def _cursor(venue: str, symbol: str) -> tuple[ColumnElement[bool], ...]:
    return (tables.trade_cursors.c.venue == venue, tables.trade_cursors.c.symbol == symbol)
