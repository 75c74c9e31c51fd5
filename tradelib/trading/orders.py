"""Orders and fills: what the desk wants from a venue, and what the venue says happened."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Context, Decimal, localcontext
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Select, bindparam, func, select

from tradelib.clock import format_time, utc_now
from tradelib.errors import InvalidInput, StorageFailed
from tradelib.trading import tables
from tradelib.trading.ledger import Ledger, as_row, find, first, insert, update

_DESK_ID = re.compile(r"^nd-[0-9a-f]{21}$")
ZERO = Decimal(0)
# Wide enough that no sum or product of real money is ever rounded.
EXACT = Context(prec=120)


class Side(StrEnum):
    BUY = "buy"
    SELL = "sell"

    @property
    def sign(self) -> int:
        """+1 when base currency comes in, -1 when it goes out."""
        return 1 if self is Side.BUY else -1


class Role(StrEnum):
    """What an order is for: to open or enlarge a position, to close it by choice, to close it at
    a loss or at a profit that was set beforehand."""

    ENTRY = "ENTRY"
    EXIT = "EXIT"
    STOP = "STOP"
    TARGET = "TARGET"

    @property
    def protects(self) -> bool:
        return self in ROLES_THAT_PROTECT


ROLES_THAT_PROTECT = (Role.STOP, Role.TARGET)


class OrderStatus(StrEnum):
    """Where an order stands. PLANNED: recorded, certainly not sent. DENIED: the desk itself will
    not send it. SUBMITTED: its request may be on the wire. UNRESOLVED: no definite answer came;
    the venue must be asked."""

    PLANNED = "PLANNED"
    DENIED = "DENIED"
    SUBMITTED = "SUBMITTED"
    UNRESOLVED = "UNRESOLVED"
    OPEN = "OPEN"
    PARTIALLY_FILLED = "PARTIALLY_FILLED"
    FILLED = "FILLED"
    CANCELED = "CANCELED"
    EXPIRED = "EXPIRED"
    REJECTED = "REJECTED"

    @property
    def final(self) -> bool:
        return not LEGAL_CHANGES[self]


_S = OrderStatus
_VENUE_STATES = {_S.OPEN, _S.PARTIALLY_FILLED, _S.FILLED, _S.CANCELED, _S.EXPIRED, _S.REJECTED}

LEGAL_CHANGES: dict[OrderStatus, frozenset[OrderStatus]] = {
    _S.PLANNED: frozenset({_S.SUBMITTED, _S.DENIED}),
    _S.DENIED: frozenset(),
    _S.SUBMITTED: frozenset(_VENUE_STATES | {_S.UNRESOLVED}),
    _S.UNRESOLVED: frozenset(_VENUE_STATES),
    # Some venues take an order and refuse it afterwards.
    _S.OPEN: frozenset({_S.PARTIALLY_FILLED, _S.FILLED, _S.CANCELED, _S.EXPIRED, _S.REJECTED}),
    _S.PARTIALLY_FILLED: frozenset({_S.FILLED, _S.CANCELED, _S.EXPIRED}),
    _S.FILLED: frozenset(),
    _S.CANCELED: frozenset(),
    _S.EXPIRED: frozenset(),
    _S.REJECTED: frozenset(),
}
UNSETTLED = tuple(status for status in OrderStatus if not status.final)


@dataclass(frozen=True)
class Order:
    """An intention with a client id.

    amount, filled: base currency, never negative; limit_price, stop_price, expected_price, cost:
    quote currency. expected_price is the price the order was sized at. trailing_bips: distance of
    a trailing stop in hundredths of a percent. leg: which order of its decision; attempt: how
    often this leg was sent before and proven absent. bracket: shared by two orders of which only
    one may fill. as_of: market time; sent_at: wall time committed before the request was made.
    proven_absent: the venue certainly does not have it, so that another attempt may be made.
    cancel_wanted: somebody asked for its end, which is seen through once its state is known.
    fills_complete: whether the fills in the ledger add up to `filled`.
    """

    client_id: str
    decision: str | None
    run: str | None
    bot: str | None
    venue: str
    symbol: str
    side: Side
    type: str
    amount: Decimal
    limit_price: Decimal | None
    expected_price: Decimal
    status: OrderStatus
    as_of: datetime
    created_at: datetime
    updated_at: datetime
    reason: str | None = None
    venue_order_id: str | None = None
    filled: Decimal = ZERO
    cost: Decimal = ZERO
    fills_complete: bool = True
    leg: int = 0
    attempt: int = 0
    role: Role = Role.ENTRY
    stop_price: Decimal | None = None
    trailing_bips: int | None = None
    time_in_force: str | None = None
    bracket: str | None = None
    venue_list_id: str | None = None
    sent_at: datetime | None = None
    lease_token: int | None = None
    proven_absent: bool = False
    cancel_wanted: bool = False

    @property
    def reduces(self) -> bool:
        """Whether it can only shrink a position: on a spot market without loans, a sale."""
        return self.side == Side.SELL

    @property
    def never_arrived(self) -> bool:
        """Whether the ledger holds that the venue never had it."""
        refused = self.status in (OrderStatus.REJECTED, OrderStatus.DENIED)
        return refused and self.venue_order_id is None

    @property
    def is_known(self) -> bool:
        """Whether its state and its fills are known, so that it only rests or has ended."""
        unknown = (OrderStatus.PLANNED, OrderStatus.SUBMITTED, OrderStatus.UNRESOLVED)
        return self.status not in unknown and bool(self.fills_complete)

    @property
    def left(self) -> Decimal:
        """Base currency not filled yet."""
        return self.amount - self.filled

    @property
    def notional(self) -> Decimal:
        """Value at the expected price, in quote currency."""
        return self.amount * self.expected_price

    @property
    def quote(self) -> str:
        return self.symbol.split("/")[1]


@dataclass(frozen=True)
class Fill:
    """A fact from the venue.

    amount: base currency; price, cost: quote currency; fee: in fee_currency, positive when paid.
    """

    venue: str
    symbol: str
    trade_id: str
    client_id: str | None
    venue_order_id: str
    side: Side
    amount: Decimal
    price: Decimal
    cost: Decimal
    fee: Decimal
    fee_currency: str
    at: datetime

    def asset_changes(self) -> dict[str, Decimal]:
        """What the fill did to each asset of the account, positive when it came in."""
        base, quote = self.symbol.split("/")
        sign = Side(self.side).sign
        changes = {base: sign * self.amount, quote: -sign * self.cost}
        with localcontext(EXACT):
            changes[self.fee_currency] = changes.get(self.fee_currency, ZERO) - self.fee
        return changes


def decision_id(bot: str, candle_close: datetime) -> str:
    """The same for the same bot and candle, on every machine and after every restart."""
    text = f"decision|{bot}|{format_time(candle_close)}"
    return "d-" + hashlib.sha256(text.encode()).hexdigest()[:22]


def client_order_id(decision: str, leg: int = 0, attempt: int = 0) -> str:
    """An order's id at the venue, derived from its decision; 24 characters of [a-z0-9-],
    within the rule of every venue known (Binance: up to 36 of [.A-Z:/a-z0-9_-])."""
    text = f"order|{decision}|{leg}|{attempt}"
    return "nd-" + hashlib.sha256(text.encode()).hexdigest()[:21]


def is_desk_id(client_id: str | None) -> bool:
    """Whether an order's id at the venue is one that the desk made."""
    return bool(client_id and _DESK_ID.match(client_id))


def insert_order(books: Connection, order: Order) -> None:
    """Record a new order and its first event."""
    insert(books, tables.orders, order)
    _add_event(books, order)


def change_order(books: Connection, order: Order, **changes: object) -> Order:
    """Record a change of an order; refuses what LEGAL_CHANGES does not list.

    A change to the status the order has already is fine: the venue may repeat itself.
    """
    changed = replace(order, **changes, updated_at=utc_now())  # type: ignore[arg-type]
    changed = replace(changed, fills_complete=_booked(books, changed) >= changed.filled)
    before, after = OrderStatus(order.status), OrderStatus(changed.status)
    if after is not before and after not in LEGAL_CHANGES[before]:
        raise StorageFailed(
            f"Order {order.client_id} cannot go from {before} to {after}; "
            "the ledger keeps what it has and the venue's word is an incident."
        )
    if replace(changed, updated_at=order.updated_at) == order:
        return order
    update(books, tables.orders, as_row(changed), client_id=order.client_id)
    if after is not before or changed.filled != order.filled:
        _add_event(books, changed)
    return changed


def revive_order(books: Connection, order: Order, **changes: object) -> Order:
    """Record that the venue has an order which the ledger holds never to have arrived there.

    The one way out of a final status: the venue is right about what it has.
    """
    if not order.never_arrived:
        raise StorageFailed(f"Order {order.client_id} was at the venue and cannot be revived.")
    revived = replace(order, status=OrderStatus.UNRESOLVED)
    return change_order(books, revived, proven_absent=False, **changes)


def _booked(books: Connection, order: Order) -> Decimal:
    """The sum of the order's fills; summed here, since databases would add text as floats."""
    amounts = books.execute(_AMOUNTS, {"order": order.client_id}).scalars()
    with localcontext(EXACT):
        return sum(amounts, ZERO)


_AMOUNTS = select(tables.fills.c.amount).where(tables.fills.c.client_id == bindparam("order"))


def _add_event(books: Connection, order: Order) -> None:
    event = {
        "client_id": order.client_id,
        "status": order.status,
        "detail": order.reason or f"filled {order.filled} of {order.amount}",
        "at": order.updated_at,
    }
    insert(books, tables.order_events, event)


def unknown_fills(books: Connection, fills: Sequence[Fill]) -> list[Fill]:
    """Those of the venue's fills that the ledger does not have yet, each once."""
    new: dict[tuple[str, str, str], Fill] = {}
    for fill in fills:
        key = {"venue": fill.venue, "symbol": fill.symbol, "trade_id": fill.trade_id}
        if not find(books, tables.fills, Fill, **key):
            new[(fill.venue, fill.symbol, fill.trade_id)] = fill
    return list(new.values())


def order_fills(books: Connection, client_id: str) -> list[Fill]:
    return find(books, tables.fills, Fill, client_id=client_id)


def find_attempts(books: Connection, decision: str, leg: int = 0) -> list[Order]:
    """The orders that one leg of a decision became, first attempt first."""
    attempts = find(books, tables.orders, Order, decision=decision, leg=leg)
    return sorted(attempts, key=lambda order: order.attempt)


def find_order(books: Connection, client_id: str) -> Order | None:
    return first(find(books, tables.orders, Order, client_id=client_id))


def find_by_venue_id(
    books: Connection, venue: str, symbol: str, venue_order_id: str
) -> Order | None:
    """The order that the venue knows by this id; ids are unique within a symbol."""
    which = {"venue": venue, "symbol": symbol, "venue_order_id": venue_order_id}
    return first(find(books, tables.orders, Order, **which))


def load_order(ledger: Ledger, client_id: str) -> Order:
    with ledger.read() as books:
        found = find_order(books, client_id)
    if found is None:
        raise InvalidInput(f"There is no order {client_id!r} in the ledger; `desk orders` lists.")
    return found


def load_orders(
    ledger: Ledger,
    *,
    venue: str | None = None,
    bot: str | None = None,
    decision: str | None = None,
    unsettled: bool = False,
    lacking_fills: bool = False,
    limit: int | None = None,
) -> list[Order]:
    """Orders, newest first; `unsettled` keeps those whose end is not known yet,
    `lacking_fills` those that the venue filled further than the ledger's fills say."""
    query = select(tables.orders).order_by(tables.orders.c.created_at.desc()).limit(limit)
    for column, value in (
        (tables.orders.c.venue, venue),
        (tables.orders.c.bot, bot),
        (tables.orders.c.decision, decision),
    ):
        if value:
            query = query.where(column == value)
    if unsettled:
        query = query.where(tables.orders.c.status.in_(UNSETTLED))
    if lacking_fills:
        query = query.where(tables.orders.c.fills_complete == 0)
    return ledger.rows(query, Order)


# Trade ids are numbers at most venues; of two numbers in text the longer is the greater.
_NEWEST_TRADE = (
    func.length(tables.fills.c.trade_id).desc(),
    tables.fills.c.trade_id.desc(),
)


def select_fills(
    *,
    venue: str | None = None,
    bot: str | None = None,
    client_id: str | None = None,
    limit: int | None = None,
) -> Select[Any]:
    """The query for fills, newest first."""
    query = select(tables.fills).order_by(tables.fills.c.at.desc(), *_NEWEST_TRADE).limit(limit)
    if venue:
        query = query.where(tables.fills.c.venue == venue)
    if client_id:
        query = query.where(tables.fills.c.client_id == client_id)
    if bot:
        query = query.join(tables.orders, tables.orders.c.client_id == tables.fills.c.client_id)
        query = query.where(tables.orders.c.bot == bot)
    return query


def load_fills(ledger: Ledger, **which: Any) -> list[Fill]:
    """Fills in the order they happened, chosen as select_fills does; a limit keeps the newest."""
    return list(reversed(ledger.rows(select_fills(**which), Fill)))
