"""Reconciliation: make the books equal to the venue, and name whatever cannot be.

The venue is right about what happened; the ledger is right about why. One pass asks for the
orders whose end is unknown, walks the executions that are missing and compares balances, so that
its cost follows the open orders and not the history. It never guesses a terminal state.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal

from sqlalchemy import Connection, select

from tradelib.clock import utc_now
from tradelib.errors import OrderUnknown, VenueUnavailable
from tradelib.trading import tables
from tradelib.trading.accounts import (
    Account,
    Balance,
    Equity,
    booked_balances,
    compute_equity,
    find_balance,
    load_account,
    load_balances,
    record_equity,
    save_balance,
)
from tradelib.trading.execution import apply_venue_order, book_trades
from tradelib.trading.incidents import close_incidents, load_incidents, open_incident
from tradelib.trading.ledger import Ledger, first, insert, rows
from tradelib.trading.orders import (
    ZERO,
    Order,
    OrderStatus,
    change_order,
    find_by_venue_id,
    find_order,
    load_orders,
)
from tradelib.venue import Venue, VenueBalance, VenueOrder, VenueStatus, VenueTrade

log = logging.getLogger(__name__)

_OPENING_ATTEMPTS = 5
_QUIET_ATTEMPTS = 3

ORDER_UNRESOLVED = "order unresolved"
ORDER_VANISHED = "order vanished"
FOREIGN_ORDER = "foreign order"
BALANCE_DIFFERS = "balance differs"
FILLS_MISSING = "fills missing"
CONTRADICTION = "venue contradicts itself"


@dataclass(frozen=True)
class Discrepancy:
    """One difference between the books and the venue, with both sides' word.

    repair: what was done about it; None while it is open.
    """

    kind: str
    subject: str
    ledger: str
    venue: str
    repair: str | None


@dataclass(frozen=True)
class Reconciliation:
    """What one pass found. `agrees` when nothing is left open.

    unpriced: assets held that the venue quotes no price for, and that equity leaves out.
    used_weight: of the venue's budget in the minute of the pass.
    """

    venue: str
    as_of: datetime
    orders_checked: int
    fills_booked: int
    equity: Decimal | None
    discrepancies: tuple[Discrepancy, ...] = ()
    unpriced: tuple[str, ...] = ()
    used_weight: int | None = None

    @property
    def agrees(self) -> bool:
        return all(found.repair for found in self.discrepancies)

    def to_json(self) -> dict[str, object]:
        return {
            "venue": self.venue,
            "as_of": self.as_of.isoformat(),
            "orders_checked": self.orders_checked,
            "fills_booked": self.fills_booked,
            "equity": None if self.equity is None else str(self.equity),
            "agrees": self.agrees,
            "unpriced": list(self.unpriced),
            "used_weight": self.used_weight,
            "discrepancies": [asdict(found) for found in self.discrepancies],
        }


@dataclass
class _Pass:
    """What accumulates while one pass goes on. symbols: those to look for foreign trades in."""

    ledger: Ledger
    venue: Venue
    symbols: list[str]
    account: Account
    found: list[Discrepancy] = field(default_factory=list)
    orders_checked: int = 0
    fills_booked: int = 0


def reconcile(
    ledger: Ledger, venue: Venue, symbols: Iterable[str], *, run: str | None = None
) -> Reconciliation:
    """One pass over an account: orders, executions, balances, worth.

    symbols: those that bots trade; orders that others placed are looked for in them.
    """
    watched = sorted(set(symbols))
    work = _Pass(ledger, venue, watched, _open_account(ledger, venue, watched))
    for _ in range(_QUIET_ATTEMPTS):
        _settle_orders(work)
        _book_lacking_fills(work)
        actual, differing = _compare_with_venue(work)
        if not differing or not _walk_trades(work, differing):
            break
    _name_foreign_orders(work)
    _name_missing_fills(work)
    _name_balances(work, differing)
    as_of = venue.fetch_time()
    equity, unpriced = _record_worth(work, actual, as_of, run)
    for found in work.found:
        log.log(
            logging.INFO if found.repair else logging.WARNING,
            "%s %s: ledger %s, venue %s; %s",
            found.kind, found.subject, found.ledger, found.venue, found.repair or "open",
            extra={"fields": {"venue": venue.name, "run": run}},
        )  # fmt: skip
    return Reconciliation(
        venue=venue.name,
        as_of=as_of,
        orders_checked=work.orders_checked,
        fills_booked=work.fills_booked,
        equity=equity,
        discrepancies=tuple(work.found),
        unpriced=unpriced,
        used_weight=venue.used_weight,
    )


def compare_balances(
    booked: Mapping[str, Decimal], actual: Mapping[str, Decimal]
) -> dict[str, tuple[Decimal, Decimal]]:
    """Assets whose booked and actual totals differ, with both; exact, to the last digit."""
    assets = sorted({*booked, *actual})
    pairs = {asset: (booked.get(asset, ZERO), actual.get(asset, ZERO)) for asset in assets}
    return {asset: pair for asset, pair in pairs.items() if pair[0] != pair[1]}


def _open_account(ledger: Ledger, venue: Venue, symbols: Sequence[str]) -> Account:
    """The account's books; at first sight they open with what the venue holds."""
    known = load_account(ledger, venue.name)
    if known:
        return known
    balances, cursors = _fetch_opening(venue, symbols)
    account = Account(venue.name, venue.quote, venue.fetch_time())
    with ledger.write() as books:
        query = select(tables.accounts).where(tables.accounts.c.venue == venue.name)
        opened_meanwhile = first(rows(books, query, Account))
        if opened_meanwhile:
            return opened_meanwhile
        insert(books, tables.accounts, account)
        for symbol, trade_id in cursors.items():
            _save_cursor(books, venue.name, symbol, trade_id or "")
        for found in balances.values():
            total = found.free + found.used
            save_balance(
                books,
                Balance(venue.name, found.asset, total, found.free, found.used, account.opened_at),
            )
    return account


def _fetch_opening(
    venue: Venue, symbols: Sequence[str]
) -> tuple[dict[str, VenueBalance], dict[str, str | None]]:
    """Balances, and the last trade of each symbol that they contain: read again until no trade
    came between."""
    for _ in range(_OPENING_ATTEMPTS):
        before = {symbol: venue.fetch_last_trade_id(symbol) for symbol in symbols}
        balances = venue.fetch_balances()
        if before == {symbol: venue.fetch_last_trade_id(symbol) for symbol in symbols}:
            return balances, before
    raise VenueUnavailable(
        f"Venue {venue.name} trades too fast for its books to open; "
        "stop other programs on the account for a moment."
    )


def _settle_orders(work: _Pass) -> None:
    """Ask the venue for every order whose end is unknown."""
    unsettled = load_orders(work.ledger, venue=work.venue.name, unsettled=True)
    work.orders_checked = max(work.orders_checked, len(unsettled))
    for order in unsettled:
        if not (order.status == OrderStatus.SUBMITTED and _is_young(work, order)):
            _settle_order(work, order)


def _is_young(work: _Pass, order: Order) -> bool:
    """Whether the process that sent the order may be waiting for its answer right now, and the
    venue may not show yet what has happened."""
    return _waited(order) < work.venue.visibility_lag


def _waited(order: Order) -> timedelta:
    return utc_now() - order.updated_at


def _settle_order(work: _Pass, order: Order) -> None:
    try:
        answer = work.venue.fetch_order(order.symbol, order.client_id, order.venue_order_id)
    except OrderUnknown:
        _settle_absent_order(work, order)
        return
    with work.ledger.write() as books:
        current = find_order(books, order.client_id) or order
        changed = apply_venue_order(books, current, answer)
        contradicts = _contradicts(changed, answer)
        ended = (ORDER_UNRESOLVED, ORDER_VANISHED, *(() if contradicts else (CONTRADICTION,)))
        for kind in ended:
            close_incidents(books, kind, work.venue.name, "the venue has it", order.client_id)
    if contradicts:
        told = f"{answer.status}, filled {answer.filled or ZERO:f}"
        _report_open(work, CONTRADICTION, order.client_id, str(changed.status), told)
    if (changed.status, changed.filled) != (order.status, order.filled):
        work.found.append(
            Discrepancy(
                "order status",
                order.client_id,
                f"{order.status}, filled {order.filled:f}",
                f"{answer.status}, filled {answer.filled or ZERO:f}",
                "the ledger took the venue's word",
            )
        )


def _contradicts(order: Order, answer: VenueOrder) -> bool:
    """Whether the venue tells a state that cannot be. An open order that is told as open after
    it was told as partly filled is only a reply that lags."""
    stale = answer.status is VenueStatus.OPEN and order.status == OrderStatus.PARTIALLY_FILLED
    return answer.status not in (VenueStatus.UNKNOWN, order.status) and not stale


def _settle_absent_order(work: _Pass, order: Order) -> None:
    """An order that the venue does not know: gone for certain only if it was never acknowledged
    and the venue has had time to show it."""
    if order.venue_order_id is not None:
        _report_open(work, ORDER_VANISHED, order.client_id, str(order.status), "absent")
    elif _is_young(work, order):
        _report_open(work, ORDER_UNRESOLVED, order.client_id, str(order.status), "absent")
    else:
        _reject_absent_order(work, order)


def _reject_absent_order(work: _Pass, order: Order) -> None:
    seconds = _waited(order).total_seconds()
    reason = f"never reached the venue: absent there {seconds:.0f} s after it was recorded"
    with work.ledger.write() as books:
        current = find_order(books, order.client_id) or order
        if current.venue_order_id or OrderStatus(current.status).final:
            return
        change_order(books, current, status=OrderStatus.REJECTED, reason=reason)
        close_incidents(books, ORDER_UNRESOLVED, work.venue.name, reason, order.client_id)
    work.found.append(
        Discrepancy("order absent", order.client_id, str(order.status), "absent", reason)
    )


def _book_lacking_fills(work: _Pass) -> None:
    """Read the executions of orders that the venue filled further than the ledger's fills say."""
    for order in load_orders(work.ledger, venue=work.venue.name, lacking_fills=True):
        if order.venue_order_id:
            _book(work, work.venue.fetch_order_trades(order.symbol, order.venue_order_id))


def _book(work: _Pass, trades: Sequence[VenueTrade]) -> int:
    with work.ledger.write() as books:
        new = book_trades(books, work.venue.name, trades)
    work.fills_booked += len(new)
    for fill in new:
        work.found.append(
            Discrepancy(
                "fill missing" if fill.client_id else "foreign fill",
                fill.trade_id,
                "absent",
                f"{fill.side} {fill.amount:f} {fill.symbol} at {fill.price:f}",
                "booked",
            )
        )
    return len(new)


def _compare_with_venue(
    work: _Pass,
) -> tuple[dict[str, VenueBalance], dict[str, tuple[Decimal, Decimal]]]:
    """The venue's balances, and where the booked ones differ from them."""
    actual = work.venue.fetch_balances()
    booked = {b.asset: b.booked for b in load_balances(work.ledger, work.venue.name)}
    totals = {asset: balance.free + balance.used for asset, balance in actual.items()}
    return actual, compare_balances(booked, totals)


def _walk_trades(work: _Pass, assets: Iterable[str]) -> int:
    """Look for executions that no order of ours explains, where balances differ; those before
    the books opened are in the opening balances already."""
    new = 0
    for symbol in work.symbols:
        if set(symbol.split("/")) & set(assets):
            new += _walk_symbol(work, symbol)
    return new


def _walk_symbol(work: _Pass, symbol: str) -> int:
    """Book what follows the symbol's cursor. Own fills are booked with their order and do not
    move it: a foreign trade may lie before them."""
    opened_at = work.account.opened_at
    with work.ledger.read() as books:
        cursor = _load_cursor(books, work.venue.name, symbol)
    trades = work.venue.fetch_trades_since(symbol, cursor or None, opened_at)
    if cursor is None:
        # The symbol was not watched when the books opened: time is all there is to go by.
        trades = [trade for trade in trades if trade.at > opened_at]
    for order_id in _unknown_orders(work, trades):
        _adopt_order(work, symbol, order_id)
    new = _book(work, trades)
    if trades:
        with work.ledger.write() as books:
            _save_cursor(books, work.venue.name, symbol, trades[-1].trade_id)
    return new


def _unknown_orders(work: _Pass, trades: Sequence[VenueTrade]) -> list[str]:
    """The venue's ids of orders behind trades that the ledger knows by no order."""
    with work.ledger.read() as books:
        unknown = {
            trade.venue_order_id
            for trade in trades
            if not find_by_venue_id(books, work.venue.name, trade.symbol, trade.venue_order_id)
        }
    return sorted(unknown)


def _adopt_order(work: _Pass, symbol: str, venue_order_id: str) -> None:
    """Take back an order of ours that was given up as never received, if this is one."""
    try:
        answer = work.venue.fetch_order(symbol, "", venue_order_id)
    except OrderUnknown:
        return
    with work.ledger.write() as books:
        ours = find_order(books, answer.client_id) if answer.client_id else None
        if ours is None:
            return
        changed = apply_venue_order(books, ours, answer)
    work.found.append(
        Discrepancy(
            "late order",
            ours.client_id,
            f"{ours.status}: {ours.reason}",
            f"{answer.status}, filled {answer.filled or ZERO:f}",
            f"the ledger took it back as {changed.status}",
        )
    )


def _load_cursor(books: Connection, venue: str, symbol: str) -> str | None:
    """The trade up to which a symbol was walked; '' when it had none, None when never walked."""
    query = select(tables.trade_cursors.c.trade_id).where(
        tables.trade_cursors.c.venue == venue, tables.trade_cursors.c.symbol == symbol
    )
    return books.execute(query).scalar()


def _save_cursor(books: Connection, venue: str, symbol: str, trade_id: str) -> None:
    key = (tables.trade_cursors.c.venue == venue, tables.trade_cursors.c.symbol == symbol)
    books.execute(tables.trade_cursors.delete().where(*key))
    books.execute(
        tables.trade_cursors.insert().values(venue=venue, symbol=symbol, trade_id=trade_id)
    )


def _name_foreign_orders(work: _Pass) -> None:
    """Orders at the venue that the ledger did not place: recorded, never touched."""
    foreign = []
    for order in work.venue.fetch_open_orders(work.symbols):
        with work.ledger.read() as books:
            ours = find_order(books, order.client_id) if order.client_id else None
            ours = ours or find_by_venue_id(
                books, work.venue.name, order.symbol, order.venue_order_id
            )
        if ours is None:
            foreign.append(order)
        elif ours.venue_order_id is None:
            _adopt_order(work, order.symbol, order.venue_order_id)
    for order in foreign:
        told = f"{order.side} {order.amount or ZERO:f} {order.symbol}, {order.status}"
        _report_open(work, FOREIGN_ORDER, order.venue_order_id, "absent", told)
    _close_others(work, FOREIGN_ORDER, {order.venue_order_id for order in foreign})


def _name_missing_fills(work: _Pass) -> None:
    """Orders filled by the venue's word whose executions it still does not list."""
    lacking = load_orders(work.ledger, venue=work.venue.name, lacking_fills=True)
    overdue = [order for order in lacking if not _is_young(work, order)]
    for order in overdue:
        _report_open(work, FILLS_MISSING, order.client_id, "not booked", f"{order.filled:f}")
    _close_others(work, FILLS_MISSING, {order.client_id for order in overdue})


def _name_balances(work: _Pass, differing: Mapping[str, tuple[Decimal, Decimal]]) -> None:
    """Open an incident for each asset that differs, unless an order that is just on its way
    explains it."""
    name = work.venue.name
    on_their_way = [
        *load_orders(work.ledger, venue=name, unsettled=True),
        *load_orders(work.ledger, venue=name, lacking_fills=True),
    ]
    moving = {
        asset
        for order in on_their_way
        if _is_young(work, order)
        for asset in order.symbol.split("/")
    }
    for asset, (booked, actual) in differing.items():
        if asset not in moving:
            _report_open(work, BALANCE_DIFFERS, asset, f"{booked:f}", f"{actual:f}")
    _close_others(work, BALANCE_DIFFERS, set(differing))


def _report_open(work: _Pass, kind: str, subject: str, ledger: str, venue: str) -> None:
    told = Discrepancy(kind, subject, ledger, venue, None)
    if told not in work.found:  # a second look within the pass says the same again
        work.found.append(told)
    with work.ledger.write() as books:
        open_incident(books, kind, work.venue.name, subject, {"ledger": ledger, "venue": venue})


def _close_others(work: _Pass, kind: str, still_open: set[str]) -> None:
    """Close the incidents of a kind whose subject is in order again."""
    for incident in load_incidents(work.ledger, open_only=True):
        mine = incident.kind == kind and incident.venue == work.venue.name
        if mine and incident.subject not in still_open:
            with work.ledger.write() as books:
                close_incidents(books, kind, work.venue.name, "gone", incident.subject)


def _record_worth(
    work: _Pass, actual: Mapping[str, VenueBalance], as_of: datetime, run: str | None
) -> tuple[Decimal, tuple[str, ...]]:
    """Store the venue's balances and the account's worth at the venue's bids; the worth, and the
    assets that it leaves out for want of a price."""
    quote = work.account.quote
    known = work.venue.fetch_instruments()
    held = [f"{asset}/{quote}" for asset in actual if f"{asset}/{quote}" in known]
    prices = {symbol: q.bid for symbol, q in work.venue.fetch_quotes(held).items()}
    totals = {asset: balance.free + balance.used for asset, balance in actual.items()}
    cash = totals.get(quote, ZERO)
    worth = compute_equity(totals, quote, prices)
    with work.ledger.write() as books:
        for asset in {*actual, *(b.asset for b in booked_balances(books, work.venue.name))}:
            _save_actual(books, work.venue.name, asset, actual.get(asset), as_of)
        told = {symbol: str(price) for symbol, price in prices.items()}
        record_equity(books, Equity(work.venue.name, as_of, quote, worth, cash, told, run))
    unpriced = {a for a, t in totals.items() if t and a != quote and f"{a}/{quote}" not in prices}
    return worth, tuple(sorted(unpriced))


def _save_actual(
    books: Connection, venue: str, asset: str, actual: VenueBalance | None, as_of: datetime
) -> None:
    known = find_balance(books, venue, asset) or Balance(venue, asset, ZERO, ZERO, ZERO, as_of)
    free, used = (actual.free, actual.used) if actual else (ZERO, ZERO)
    save_balance(books, replace(known, free=free, used=used, as_of=as_of))
