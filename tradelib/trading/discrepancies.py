"""What differs between the books and the venue: pure functions over both sides' words.

Every difference has a name, both sides' evidence and, where one is right beyond doubt, the repair.
A repair says what must become true, so that applying it twice, or late, changes nothing more.

Two rules hold throughout: the venue is right about what happened and the ledger about why, and no
terminal state is guessed: an order ends by the venue's word, or because the venue, asked late
enough, does not have what it never acknowledged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal

from sqlalchemy import Connection

from tradelib.trading.booking import apply_venue_order, book_trades, save_cursor
from tradelib.trading.incidents import ORDER_MISSING, close_incidents
from tradelib.trading.orders import (
    LEGAL_CHANGES,
    ZERO,
    Fill,
    Order,
    OrderStatus,
    change_order,
    find_order,
    is_desk_id,
)
from tradelib.trading.placing import SEND_WITHIN, unsent_for_too_long
from tradelib.venue import VenueBalance, VenueOrder, VenueStatus, VenueTrade

ORDER_STATUS = "order status"
ORDER_UNRESOLVED = "order unresolved"
ORDER_VANISHED = "order vanished"
ORDER_ABSENT = "order absent"
ORDER_UNSENT = "order unsent"
LATE_ORDER = "late order"
FOREIGN_ORDER = "foreign order"
FOREIGN_FILL = "foreign fill"
FILL_MISSING = "fill missing"
FILLS_MISSING = "fills missing"
BALANCE_DIFFERS = "balance differs"
CONTRADICTION = "venue contradicts itself"
ORDERED_TWICE = "decision ordered twice"
SYMBOL_GONE = "symbol no longer traded"
POSITIONS_EXCEED = "positions exceed account"
POSITION_WITHOUT_STOP = "position without stop"
STOP_WITHOUT_POSITION = "stop without position"

# Kinds that stay open as incidents until a later pass finds their subject in order.
STANDING = (
    ORDER_UNRESOLVED,
    ORDER_VANISHED,
    FOREIGN_ORDER,
    FILLS_MISSING,
    BALANCE_DIFFERS,
    CONTRADICTION,
    SYMBOL_GONE,
    POSITIONS_EXCEED,
    POSITION_WITHOUT_STOP,
    STOP_WITHOUT_POSITION,
)


@dataclass(frozen=True)
class Books:
    """The ledger's side of one account.

    orders: those whose end is not known or whose fills are not all booked. named: those that the
    venue's side names by their client id, or as 'symbol id' by its own. balances: booked totals by
    asset. visibility_lag: how long after it was sent an order's absence proves nothing. moving:
    symbols whose orders changed so lately that the venue may not show yet all that happened; known
    where a balance differs.
    """

    venue: str
    orders: tuple[Order, ...]
    named: Mapping[str, Order]
    balances: Mapping[str, Decimal]
    visibility_lag: timedelta
    moving: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Account:
    """The venue's side. at: wall time before the first question.

    orders: the venue's answer for each client id asked about, None where it has no such order;
    open_orders: all that are open in the watched symbols; trades: by symbol, those that were
    read; cursors: how far each walk has come for good; strays: orders behind executions that bear
    a client id of the desk's which the ledger does not know; gone: symbols that the venue does not
    list any more.
    """

    at: datetime
    orders: Mapping[str, VenueOrder | None] = field(default_factory=dict)
    open_orders: Sequence[VenueOrder] = ()
    trades: Mapping[str, Sequence[VenueTrade]] = field(default_factory=dict)
    cursors: Mapping[str, str] = field(default_factory=dict)
    strays: Sequence[VenueOrder] = ()
    gone: Sequence[str] = ()
    balances: Mapping[str, VenueBalance] = field(default_factory=dict)


@dataclass(frozen=True)
class Done:
    """What a repair did, in words; of another kind and subject than its finding where those are
    told only by the repair."""

    text: str
    kind: str | None = None
    subject: str | None = None


class Repair:
    """What must become true in the ledger. `apply` answers what was done; nothing when it is true
    already."""

    def apply(self, books: Connection, venue: str) -> Sequence[Done]:
        raise NotImplementedError


@dataclass(frozen=True)
class TakeWord(Repair):
    """The order is as the venue tells it."""

    client_id: str
    answer: VenueOrder

    def apply(self, books: Connection, venue: str) -> Sequence[Done]:
        order = find_order(books, self.client_id)
        if order is None:
            return ()
        changed = apply_venue_order(books, order, self.answer)
        for kind in (ORDER_UNRESOLVED, ORDER_VANISHED):
            close_incidents(books, kind, venue, "the venue has it", self.client_id)
        if changed == order:
            return ()
        back = f"the ledger took it back as {changed.status}"
        return (Done(back if order.never_arrived else "the ledger took the venue's word"),)


@dataclass(frozen=True)
class GiveUp(Repair):
    """The order never reached the venue."""

    client_id: str
    reason: str

    def apply(self, books: Connection, venue: str) -> Sequence[Done]:
        order = find_order(books, self.client_id)
        if order is None or order.venue_order_id or OrderStatus(order.status).final:
            return ()
        change_order(
            books, order, status=OrderStatus.REJECTED, reason=self.reason, proven_absent=True
        )
        close_incidents(books, ORDER_UNRESOLVED, venue, self.reason, self.client_id)
        return (Done(self.reason),)


@dataclass(frozen=True)
class DropPlan(Repair):
    """The order was recorded and will not be sent any more."""

    client_id: str

    def apply(self, books: Connection, venue: str) -> Sequence[Done]:
        order = find_order(books, self.client_id)
        if order is None or order.status != OrderStatus.PLANNED:
            return ()
        change_order(books, order, **unsent_for_too_long())
        return (Done("dropped"),)


@dataclass(frozen=True)
class BookTrades(Repair):
    """These executions are in the books, and the symbol is walked up to `cursor`."""

    symbol: str
    trades: Sequence[VenueTrade]
    cursor: str | None

    def apply(self, books: Connection, venue: str) -> Sequence[Done]:
        new = book_trades(books, venue, self.trades)
        if self.cursor is not None:
            save_cursor(books, venue, self.symbol, self.cursor)
        return [_booked(fill) for fill in new]


def _booked(fill: Fill) -> Done:
    told = f"booked: {fill.side} {fill.amount:f} {fill.symbol} at {fill.price:f}"
    return Done(told, FILL_MISSING if fill.client_id else FOREIGN_FILL, fill.trade_id)


@dataclass(frozen=True)
class Finding:
    """One difference: its name, what it is about, both sides' word, and the repair if there is
    one."""

    kind: str
    subject: str
    ledger: str
    venue: str
    repair: Repair | None = None


def find_discrepancies(books: Books, account: Account) -> list[Finding]:
    """Everything that differs, in the order in which it is repaired: orders before the fills
    that belong to them, both before balances."""
    return [
        *_late_orders(books, account),
        *(found for order in books.orders for found in _order(order, books, account)),
        *_fills(books, account),
        *_missing_orders(books, account),
        *_foreign_orders(books, account),
        *(Finding(SYMBOL_GONE, symbol, "traded", "not listed") for symbol in account.gone),
        *_fills_overdue(books, account),
        *_balances(books, account),
    ]


def _order(order: Order, books: Books, account: Account) -> list[Finding]:
    if order.status == OrderStatus.PLANNED:
        return _unsent(order, account)
    if order.client_id not in account.orders or OrderStatus(order.status).final:
        return []
    answer = account.orders[order.client_id]
    if answer is None:
        return _absent(order, books, account)
    return _told(order, answer)


def _unsent(order: Order, account: Account) -> list[Finding]:
    """A plan whose process may still be about to send it is left alone."""
    # A plan from the future was made before the clock was set back.
    if abs(account.at - order.created_at) <= 2 * SEND_WITHIN:
        return []
    return [Finding(ORDER_UNSENT, order.client_id, order.status, "-", DropPlan(order.client_id))]


def _absent(order: Order, books: Books, account: Account) -> list[Finding]:
    """The venue does not have it: gone for certain only if it was never acknowledged and the
    venue has had the time to show it."""
    found = Finding(ORDER_VANISHED, order.client_id, str(order.status), "absent")
    if order.venue_order_id is not None:
        return [found]
    waited = account.at - (order.sent_at or order.created_at)
    if waited >= books.visibility_lag:
        reason = (
            f"never reached the venue: absent there {waited.total_seconds():.0f} s after it was "
            "sent"
        )
        return [
            Finding(
                ORDER_ABSENT, order.client_id, str(order.status), "absent",
                GiveUp(order.client_id, reason),
            )
        ]  # fmt: skip
    if order.status == OrderStatus.SUBMITTED:
        return []  # its process may be waiting for the answer right now
    return [Finding(ORDER_UNRESOLVED, order.client_id, str(order.status), "absent")]


def _told(order: Order, answer: VenueOrder) -> list[Finding]:
    ledger = f"{order.status}, filled {order.filled:f}"
    venue = f"{answer.status}, filled {answer.filled or ZERO:f}"
    if _contradicts(order, answer):
        return [Finding(CONTRADICTION, order.client_id, ledger, venue)]
    if not _is_news(order, answer):
        return []
    return [
        Finding(ORDER_STATUS, order.client_id, ledger, venue, TakeWord(order.client_id, answer))
    ]


def _is_news(order: Order, answer: VenueOrder) -> bool:
    """Whether the venue tells more than the ledger knows."""
    if order.venue_order_id is None:
        return True
    said = OrderStatus.UNRESOLVED if answer.status is VenueStatus.UNKNOWN else answer.status.value
    further = answer.filled is not None and answer.filled > order.filled
    changed = said != order.status and said in LEGAL_CHANGES[OrderStatus(order.status)]
    return further or changed


def _contradicts(order: Order, answer: VenueOrder) -> bool:
    """Whether the venue tells a state that cannot follow. An open order that is told as open
    after it was told as partly filled is only a reply that lags."""
    stale = answer.status is VenueStatus.OPEN and order.status == OrderStatus.PARTIALLY_FILLED
    if answer.status in (VenueStatus.UNKNOWN, order.status) or stale:
        return False
    return OrderStatus(answer.status.value) not in LEGAL_CHANGES[OrderStatus(order.status)]


def _late_orders(books: Books, account: Account) -> list[Finding]:
    """Orders that were given up as never received and are at the venue after all."""
    answers = [*account.open_orders, *(a for a in account.orders.values() if a)]
    found = {}
    for answer in answers:
        ours = _owner(books, answer)
        if ours is not None and ours.never_arrived:
            found[ours.client_id] = Finding(
                LATE_ORDER,
                ours.client_id,
                f"{ours.status}: {ours.reason}",
                f"{answer.status}, filled {answer.filled or ZERO:f}",
                TakeWord(ours.client_id, answer),
            )
    return list(found.values())


def _owner(books: Books, answer: VenueOrder) -> Order | None:
    by_name = books.named.get(answer.client_id or "")
    return by_name or books.named.get(venue_key(answer.symbol, answer.venue_order_id))


def venue_key(symbol: str, venue_order_id: str) -> str:
    """Under what an order is named by the venue's own id, unique within a symbol."""
    return f"{symbol} {venue_order_id}"


def _fills(books: Books, account: Account) -> list[Finding]:
    """Executions that were read; those booked already change nothing when booked again."""
    found = []
    for symbol, trades in account.trades.items():
        repair = BookTrades(symbol, tuple(trades), account.cursors.get(symbol))
        told = ", ".join(trade.trade_id for trade in trades[:5])
        more = f" and {len(trades) - 5} more" if len(trades) > 5 else ""
        found.append(Finding(FILL_MISSING, symbol, "absent", told + more, repair))
    return found


def _missing_orders(books: Books, account: Account) -> list[Finding]:
    """Orders with an id of the desk's that the ledger does not have, as after a restored backup:
    the decision behind one could be ordered again."""
    found = {order.client_id: order for order in (*account.strays, *account.open_orders)}
    return [
        Finding(ORDER_MISSING, client_id, "absent", _described(order))
        for client_id, order in found.items()
        if is_desk_id(client_id) and _owner(books, order) is None
    ]


def _foreign_orders(books: Books, account: Account) -> list[Finding]:
    """Orders at the venue that the ledger did not place: named, never touched."""
    return [
        Finding(FOREIGN_ORDER, order.venue_order_id, "absent", _described(order))
        for order in account.open_orders
        if _owner(books, order) is None and not is_desk_id(order.client_id)
    ]


def _described(order: VenueOrder) -> str:
    return f"{order.side} {order.amount or ZERO:f} {order.symbol}, {order.status}"


def _fills_overdue(books: Books, account: Account) -> list[Finding]:
    """Orders filled by the venue's word whose executions it still does not list."""
    return [
        Finding(FILLS_MISSING, order.client_id, "not all booked", f"filled {order.filled:f}")
        for order in books.orders
        if not order.fills_complete and not is_young(order, books, account.at)
    ]


def _balances(books: Books, account: Account) -> list[Finding]:
    """Assets that differ, unless an order that is just on its way explains them."""
    on_its_way = {order.symbol for order in books.orders if is_young(order, books, account.at)}
    moving = {asset for symbol in books.moving | on_its_way for asset in symbol.split("/")}
    return [
        Finding(BALANCE_DIFFERS, asset, f"{booked:f}", f"{actual:f}")
        for asset, (booked, actual) in differing_balances(books.balances, account.balances).items()
        if asset not in moving
    ]


def is_young(order: Order, books: Books, at: datetime) -> bool:
    """Whether the venue may not show yet what has happened to the order."""
    return at - order.updated_at < books.visibility_lag


def differing_balances(
    booked: Mapping[str, Decimal], there: Mapping[str, VenueBalance]
) -> dict[str, tuple[Decimal, Decimal]]:
    totals = {asset: balance.free + balance.used for asset, balance in there.items()}
    return compare_balances(booked, totals)


def compare_balances(
    booked: Mapping[str, Decimal], actual: Mapping[str, Decimal]
) -> dict[str, tuple[Decimal, Decimal]]:
    """Assets whose booked and actual totals differ, with both; exact, to the last digit."""
    assets = sorted({*booked, *actual})
    pairs = {asset: (booked.get(asset, ZERO), actual.get(asset, ZERO)) for asset in assets}
    return {asset: pair for asset, pair in pairs.items() if pair[0] != pair[1]}
