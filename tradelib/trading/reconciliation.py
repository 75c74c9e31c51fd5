"""Reconciliation: make the books equal to the venue, and name whatever cannot be.

One pass looks at both sides, asks `find_discrepancies` what differs, applies the repairs, and
looks again until nothing is left to repair. It asks for the orders whose end is unknown, walks the
executions that are missing and compares balances, so that its cost follows what is open and what
has just happened, not the history. Run twice, or by two processes at once, it does no more.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal

from sqlalchemy import Connection, select

from tradelib.clock import utc_now
from tradelib.errors import InvalidInput, OrderUnknown, VenueUnavailable
from tradelib.trading import tables
from tradelib.trading.accounts import (
    Account,
    Balance,
    Equity,
    booked_balances,
    compute_equity,
    find_account,
    find_balance,
    record_equity,
    require_own_books,
    save_balance,
)
from tradelib.trading.booking import booked_trades, load_cursor, save_cursor
from tradelib.trading.bots import load_bots
from tradelib.trading.discrepancies import (
    FILL_MISSING,
    LATE_ORDER,
    ORDERED_TWICE,
    POSITIONS_EXCEED,
    STANDING,
    Books,
    Finding,
    differing_balances,
    find_discrepancies,
    venue_key,
)
from tradelib.trading.discrepancies import Account as Seen
from tradelib.trading.incidents import (
    ORDER_MISSING,
    close_incidents,
    load_incidents,
    open_incident,
)
from tradelib.trading.ledger import Ledger, insert, rows
from tradelib.trading.orders import (
    ZERO,
    Order,
    OrderStatus,
    find_attempts,
    find_by_venue_id,
    find_order,
)
from tradelib.trading.portfolio import promised_orders
from tradelib.trading.positions import position_differences
from tradelib.trading.runs import COMPUTED
from tradelib.trading.stops import find_stop_discrepancies
from tradelib.traffic import Urgency, urgent
from tradelib.venue import Venue, VenueBalance, VenueOrder, VenueTrade

log = logging.getLogger(__name__)

_OPENING_ATTEMPTS = 5
# A venue at rest needs two looks: one that repairs, one that finds nothing more.
_LOOKS = 6
# For how many visibility lags an order is asked for after it was given up.
_REMEMBERED = 10
# Trades younger than this may still be joined by older ones, at a venue whose replies lag.
_CURSOR_LAG = timedelta(minutes=2)


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
            COMPUTED: {},
        }


def merge(first: Reconciliation, second: Reconciliation) -> Reconciliation:
    """Two passes as one: what the first repaired, and what the second left open."""
    repaired = [found for found in first.discrepancies if found.repair]
    return replace(
        second,
        orders_checked=max(first.orders_checked, second.orders_checked),
        fills_booked=first.fills_booked + second.fills_booked,
        discrepancies=(*repaired, *second.discrepancies),
    )


@dataclass
class _Pass:
    """What accumulates while one pass goes on. symbols: those to look for foreign orders in."""

    ledger: Ledger
    venue: Venue
    symbols: list[str]
    account: Account
    found: list[Discrepancy] = field(default_factory=list)
    open: list[Finding] = field(default_factory=list)
    orders_checked: int = 0
    fills_booked: int = 0


@urgent(Urgency.RECONCILE)
def reconcile(
    ledger: Ledger, venue: Venue, symbols: Iterable[str], *, run: str | None = None
) -> Reconciliation:
    """One pass over an account: orders, executions, balances, worth.

    symbols: those that bots trade; orders that others placed are looked for in them.
    """
    watched = sorted(set(symbols))
    work = _Pass(ledger, venue, watched, _open_account(ledger, venue, watched))
    seen = _settle(work)
    work.open += _find_misfits(work)
    work.found += [Discrepancy(f.kind, f.subject, f.ledger, f.venue, None) for f in work.open]
    _keep_incidents(work)
    as_of = venue.fetch_time()
    equity, unpriced = _record_worth(work, seen.balances, as_of, run)
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


def _settle(work: _Pass) -> Seen:
    """Look and repair until there is nothing more to repair."""
    walk: set[str] = set()
    for _ in range(_LOOKS):
        seen = _look(work, walk)
        books = _load_books(work, seen)
        findings = find_discrepancies(books, seen)
        repaired = [_repair(work, finding) for finding in findings if finding.repair]
        # An order that the ledger lacks is seen once, before its fills are booked as foreign.
        missing = [finding for finding in work.open if finding.kind == ORDER_MISSING]
        standing = [finding for finding in findings if finding.repair is None]
        work.open = standing + [finding for finding in missing if finding not in standing]
        further = _symbols_to_walk(work, seen) - walk
        if not any(repaired) and not further:
            break
        walk = further or walk
    return seen


def _find_misfits(work: _Pass) -> list[Finding]:
    """What agrees with the venue and is still not as it ought to be: bots that own more than the
    account holds, and stops that do not fit their positions."""
    with work.ledger.read() as books:
        exceeding = [
            Finding(
                POSITIONS_EXCEED,
                found.asset,
                f"{found.assigned:f} of {', '.join(found.bots)}",
                f"{found.booked:f}",
            )
            for found in position_differences(books, work.venue.name)
        ]
    return [*exceeding, *find_stop_discrepancies(work.ledger, work.venue, load_bots(work.ledger))]


def _repair(work: _Pass, finding: Finding) -> bool:
    """Apply a repair and take down what it did."""
    assert finding.repair is not None
    with work.ledger.write() as books:
        done = finding.repair.apply(books, work.venue.name)
    for one in done:
        kind, subject = one.kind or finding.kind, one.subject or finding.subject
        work.found.append(Discrepancy(kind, subject, finding.ledger, finding.venue, one.text))
    if finding.kind == FILL_MISSING:
        work.fills_booked += len(done)
    if finding.kind == LATE_ORDER and done:
        _tell_doubled(work, finding.subject)
    return bool(done)


def _tell_doubled(work: _Pass, client_id: str) -> None:
    """An order that was given up, sent again under another id and then turned up: two orders for
    one decision, which only a venue that breaks its own word can cause."""
    with work.ledger.write() as books:
        order = find_order(books, client_id)
        if order is None or order.decision is None:
            return
        there = [o.client_id for o in find_attempts(books, order.decision, order.leg)
                 if o.venue_order_id]  # fmt: skip
        if len(there) > 1:
            told = Discrepancy(ORDERED_TWICE, order.decision, "one order", ", ".join(there), None)
            work.found.append(told)
            evidence = {"ledger": told.ledger, "venue": told.venue}
            open_incident(books, ORDERED_TWICE, work.venue.name, order.decision, evidence)


# Looking


def _look(work: _Pass, walk: Iterable[str]) -> Seen:
    """Ask the venue for what the books do not know. Balances come last, so that whatever they
    show was there to be seen by the next look."""
    at = utc_now()
    with work.ledger.read() as books:
        unsure = promised_orders(books, work.venue.name)
        given_up = _given_up_lately(books, work.venue, at)
    unsettled = [o for o in unsure if not OrderStatus(o.status).final]
    work.orders_checked = max(work.orders_checked, len(unsettled))
    symbols = sorted({*work.symbols, *(order.symbol for order in unsettled)})
    there = work.venue.fetch_instruments()
    gone = [symbol for symbol in symbols if symbol not in there]
    symbols = [symbol for symbol in symbols if symbol in there]
    unsettled = [order for order in unsettled if order.symbol in there]
    listed = work.venue.fetch_open_orders(symbols)
    asked = [*unsettled, *(order for order in given_up if order.symbol in there)]
    answers = _fetch_answers(work, asked, listed)
    walk = {*walk, *(order.symbol for order in unsure if not order.fills_complete)}
    walk |= {order.symbol for order in unsettled if _was_filled(order, answers)}
    trades, cursors = _walk_trades(work, sorted(walk & there.keys()))
    known, strays = _fetch_strangers(work, trades)
    answers |= known
    return Seen(
        at=at,
        orders=answers,
        open_orders=listed,
        trades=trades,
        cursors=cursors,
        strays=strays,
        gone=gone,
        balances=work.venue.fetch_balances(),
    )


def _given_up_lately(books: Connection, venue: Venue, at: datetime) -> list[Order]:
    """Orders that were proven absent not long ago: asked for a few times more, in case the venue
    breaks its own word. Their executions may be booked as somebody else's by then."""
    query = select(tables.orders).where(
        tables.orders.c.venue == venue.name,
        tables.orders.c.updated_at > at - _REMEMBERED * venue.visibility_lag,
        tables.orders.c.status == OrderStatus.REJECTED,
        tables.orders.c.proven_absent == 1,
        tables.orders.c.sent_at.is_not(None),
    )
    return rows(books, query, Order)


def _fetch_answers(
    work: _Pass, orders: Sequence[Order], listed: Sequence[VenueOrder]
) -> dict[str, VenueOrder | None]:
    """The venue's word on each order, by client id: from the list of open ones where it is
    there, asked for one by one else."""
    by_name = {order.client_id: order for order in listed if order.client_id}
    by_id = {venue_key(order.symbol, order.venue_order_id): order for order in listed}
    answers: dict[str, VenueOrder | None] = {}
    for order in orders:
        if order.status == OrderStatus.PLANNED:
            continue
        known = by_name.get(order.client_id)
        known = known or by_id.get(venue_key(order.symbol, order.venue_order_id or ""))
        answers[order.client_id] = known or _ask(work, order)
    return answers


def _ask(work: _Pass, order: Order) -> VenueOrder | None:
    try:
        return work.venue.fetch_order(
            order.symbol, order.client_id, order.venue_order_id, since=order.as_of
        )
    except OrderUnknown:
        return None


def _was_filled(order: Order, answers: Mapping[str, VenueOrder | None]) -> bool:
    answer = answers.get(order.client_id)
    return answer is not None and (answer.filled or ZERO) > order.filled


def _walk_trades(
    work: _Pass, symbols: Iterable[str]
) -> tuple[dict[str, list[VenueTrade]], dict[str, str]]:
    """The executions that follow each symbol's cursor, and those of orders that lack some; with
    how far the cursor may move."""
    trades, cursors = {}, {}
    safe = work.venue.fetch_time() - _CURSOR_LAG
    for symbol in symbols:
        found = _walk_symbol(work, symbol)
        trades[symbol] = found
        settled = [trade.trade_id for trade in found if trade.at <= safe]
        if settled:
            cursors[symbol] = settled[-1]
    return trades, cursors


def _walk_symbol(work: _Pass, symbol: str) -> list[VenueTrade]:
    opened_at = work.account.opened_at
    with work.ledger.read() as books:
        cursor = load_cursor(books, work.venue.name, symbol)
        lacking = [o for o in promised_orders(books, work.venue.name) if o.symbol == symbol]
    found = work.venue.fetch_trades_since(symbol, cursor or None, opened_at)
    if cursor is None:
        # The symbol was not watched when the books opened: time is all there is to go by.
        found = [trade for trade in found if trade.at > opened_at]
    seen = {trade.trade_id for trade in found}
    for order in lacking:
        if not order.fills_complete and order.venue_order_id:
            own = work.venue.fetch_order_trades(symbol, order.venue_order_id)
            found += [trade for trade in own if trade.trade_id not in seen]
    return found


def _fetch_strangers(
    work: _Pass, trades: Mapping[str, Sequence[VenueTrade]]
) -> tuple[dict[str, VenueOrder | None], list[VenueOrder]]:
    """Orders behind executions that the ledger knows by no order yet: those of ours whose answer
    was lost or that were given up, by client id, and those that the ledger does not have."""
    found: dict[str, VenueOrder | None] = {}
    strays = []
    for symbol, ids in _unknown_orders(work, trades).items():
        for venue_order_id in ids:
            try:
                answer = work.venue.fetch_order(symbol, "", venue_order_id)
            except OrderUnknown:
                continue
            with work.ledger.read() as books:
                ours = find_order(books, answer.client_id) if answer.client_id else None
            if ours:
                found[ours.client_id] = answer
            else:
                strays.append(answer)
    return found, strays


def _unknown_orders(
    work: _Pass, trades: Mapping[str, Sequence[VenueTrade]]
) -> dict[str, list[str]]:
    """The venue's ids of orders behind executions that are neither booked nor of a known order."""
    unknown: dict[str, list[str]] = {}
    with work.ledger.read() as books:
        for symbol, found in trades.items():
            booked = booked_trades(books, work.venue.name, symbol, [t.trade_id for t in found])
            ids = {t.venue_order_id for t in found if t.trade_id not in booked}
            unknown[symbol] = sorted(
                i for i in ids if not find_by_venue_id(books, work.venue.name, symbol, i)
            )
    return unknown


def _load_books(work: _Pass, seen: Seen) -> Books:
    """The ledger's side, with the orders that the venue's side names."""
    with work.ledger.read() as books:
        named = {}
        for answer in (*seen.open_orders, *filter(None, seen.orders.values())):
            ours = find_order(books, answer.client_id) if answer.client_id else None
            ours = ours or find_by_venue_id(
                books, work.venue.name, answer.symbol, answer.venue_order_id
            )
            if ours:
                named[ours.client_id] = ours
                named[venue_key(answer.symbol, answer.venue_order_id)] = ours
        balances = {b.asset: b.booked for b in booked_balances(books, work.venue.name)}
        # Asked only where something needs explaining: after a resync they are all there ever were.
        differs = bool(differing_balances(balances, seen.balances))
        return Books(
            venue=work.venue.name,
            orders=tuple(promised_orders(books, work.venue.name)),
            named=named,
            balances=balances,
            visibility_lag=work.venue.visibility_lag,
            moving=_moving_symbols(books, work.venue, seen.at) if differs else frozenset(),
        )


def _moving_symbols(books: Connection, venue: Venue, at: datetime) -> frozenset[str]:
    """Symbols whose orders changed within the venue's lag."""
    query = select(tables.orders.c.symbol.distinct()).where(
        tables.orders.c.venue == venue.name,
        tables.orders.c.updated_at > at - venue.visibility_lag,
    )
    return frozenset(books.execute(query).scalars())


def _symbols_to_walk(work: _Pass, seen: Seen) -> set[str]:
    """Symbols whose assets differ still: somebody else may have traded in them."""
    with work.ledger.read() as books:
        booked = {b.asset: b.booked for b in booked_balances(books, work.venue.name)}
    differing = set(differing_balances(booked, seen.balances))
    there = work.venue.fetch_instruments()
    direct = {f"{asset}/{work.account.quote}" for asset in differing} & there.keys()
    return direct | {s for s in work.symbols if s in there and set(s.split("/")) & differing}


# Incidents


def _keep_incidents(work: _Pass) -> None:
    """Open an incident for whatever stays open, and close those whose subject is in order."""
    still = {(finding.kind, finding.subject) for finding in work.open}
    with work.ledger.write() as books:
        for finding in work.open:
            evidence = {"ledger": finding.ledger, "venue": finding.venue}
            open_incident(books, finding.kind, work.venue.name, finding.subject, evidence)
    for incident in load_incidents(work.ledger, open_only=True):
        mine = incident.venue == work.venue.name and incident.kind in STANDING
        if mine and (incident.kind, incident.subject) not in still:
            with work.ledger.write() as books:
                close_incidents(books, incident.kind, work.venue.name, "gone", incident.subject)


# Opening and worth


def _open_account(ledger: Ledger, venue: Venue, symbols: Sequence[str]) -> Account:
    """The account's books; at first sight they open with what the venue holds."""
    with ledger.read() as books:
        known = find_account(books, venue.name)
    if known:
        return _require_same_account(ledger, venue, known)
    balances, cursors = _fetch_opening(venue, symbols)
    account = Account(
        venue.name, venue.quote, venue.fetch_time(), venue.identity, venue.fetch_account_id()
    )
    with ledger.write() as books:
        opened_meanwhile = find_account(books, venue.name)
        if opened_meanwhile:
            return opened_meanwhile
        insert(books, tables.accounts, account)
        for symbol, trade_id in cursors.items():
            save_cursor(books, venue.name, symbol, trade_id or "")
        for found in balances.values():
            total = found.free + found.used
            save_balance(
                books,
                Balance(venue.name, found.asset, total, found.free, found.used, account.opened_at),
            )
    return account


def _require_same_account(ledger: Ledger, venue: Venue, known: Account) -> Account:
    """The books again, once it is sure that they are this account's; books from before learn
    whose they are."""
    told = venue.fetch_account_id()
    with ledger.write() as books:
        require_own_books(books, venue)
        if known.account_id and told and known.account_id != told:
            raise InvalidInput(
                f"The books of venue {venue.name} are those of account {known.account_id}, but its "
                f"keys now open account {told}; give that one a name of its own in desk.toml."
            )
        learnt = replace(known, identity=venue.identity, account_id=told or known.account_id)
        if learnt != known:
            books.execute(
                tables.accounts.update()
                .where(tables.accounts.c.venue == venue.name)
                .values(identity=learnt.identity, account_id=learnt.account_id)
            )
    return learnt


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


def _record_worth(
    work: _Pass, actual: Mapping[str, VenueBalance], as_of: datetime, run: str | None
) -> tuple[Decimal, tuple[str, ...]]:
    """Store the venue's balances and the account's worth at the venue's bids; the worth, and the
    assets that it leaves out for want of a price."""
    quote = work.account.quote
    known = work.venue.fetch_instruments()
    held = [f"{asset}/{quote}" for asset in actual if f"{asset}/{quote}" in known]
    prices = {symbol: q.bid for symbol, q in work.venue.fetch_quotes(held, as_of=as_of).items()}
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
