"""Resync: a venue's books, built anew from the venue's own history.

Orders, fills, balances, positions and cursors become what the venue tells. Decisions, scores and
runs stay as they are, and an order stays linked to its decision by its client id: by the row that
the ledger kept, or, where that is lost, because the id derives from the decision.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from itertools import islice, product
from operator import index
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Integer, Table, Text, bindparam, func, select, type_coerce

from tradelib.clock import parse_time, utc_now
from tradelib.errors import DeskError, InvalidInput, RetryableError
from tradelib.strategy.targets import MOST_SYMBOLS
from tradelib.trading import tables
from tradelib.trading.accounts import Account, Balance, save_balance
from tradelib.trading.backup import Tell, back_up, require_nobody_trading, tell_nobody
from tradelib.trading.booking import fill_of, save_cursor
from tradelib.trading.decisions import Action
from tradelib.trading.ledger import Ledger, as_row, insert
from tradelib.trading.orders import (
    ZERO,
    Order,
    OrderStatus,
    Role,
    Side,
    client_order_id,
)
from tradelib.trading.positions import book_positions
from tradelib.trading.staging import PAGE, Link, Stage, fetch_history
from tradelib.venue import (
    OrderType,
    TimeInForce,
    Venue,
    VenueBalance,
    VenueOrder,
    VenueStatus,
    VenueTrade,
)

log = logging.getLogger(__name__)

REPAIR = "rebuilt from the venue"
LISTED = 200  # changes told one by one; the rest is only counted
# Of a decision, as looked for; stops are numbered through over all that a bot ever had, so that
# their legs may be high.
_LEGS, _ATTEMPTS = 4, 6
_MOST_STOPS = 2000
_ENTRIES = 5
# The desk's own facts, of which a venue knows nothing.
_OWN = (OrderStatus.DENIED, OrderStatus.PLANNED, OrderStatus.REJECTED)
_ON_THEIR_WAY = (OrderStatus.SUBMITTED, OrderStatus.UNRESOLVED)
_DECISION = tables.decisions.c.id
_TYPES = {kind.value for kind in OrderType}

Raw = Mapping[str, Any]  # a row as it is stored, which may hold anything after damage


@dataclass(frozen=True)
class Change:
    """One row that differs. what: orders or fills; kind: added, removed or changed."""

    what: str
    kind: str
    subject: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class BalanceChange:
    """An asset's booked balance in its own units; None where there was none or none to read."""

    asset: str
    before: Decimal | None
    after: Decimal


@dataclass(frozen=True)
class Resync:
    """What a resync changed, or with dry_run what it would.

    counts: by 'orders added' and so on. changes: the first of them. saved: the backup made before.
    """

    venue: str
    as_of: datetime
    dry_run: bool
    saved: Path | None
    symbols: tuple[str, ...]
    orders: int
    fills: int
    counts: dict[str, int]
    changes: tuple[Change, ...]
    balances: tuple[BalanceChange, ...]

    @property
    def changed(self) -> bool:
        return any(self.counts.values())

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "changed": self.changed}


class _Undo(Exception):
    """Ends a transaction that only looks."""


@dataclass
class _Work:
    """One rebuilding: inside the transaction, with what the venue told, and what it changed."""

    books: Connection
    venue: Venue
    stage: Stage
    tell: Tell = tell_nobody
    counts: Counter[str] = field(default_factory=Counter)
    changes: list[Change] = field(default_factory=list)

    def note(
        self, what: str, kind: str, subject: str, before: str | None, after: str | None
    ) -> None:
        self.counts[f"{what} {kind}"] += 1
        if len(self.changes) < LISTED:
            self.changes.append(Change(what, kind, subject, before, after))
        if kind == "removed":
            log.warning("%s: %s of %s removed, %s", self.venue.name, subject, what, before)


def resync(
    ledger: Ledger,
    venue: Venue,
    *,
    backup: Path | None = None,
    dry_run: bool = False,
    tell: Tell = tell_nobody,
) -> Resync:
    """Rebuild a venue's books from its history, in one transaction at the end.

    backup: the file that the ledger is backed up to first. The desk must be at rest. tell: hears
    how many orders and fills are read, and then how many of them are booked.
    Raises InvalidInput when the books are another account's, and RetryableError while the venue
    may not show all yet; the books are as they were then.
    """
    with ledger.read() as books:
        _require_same_account(books, venue)
        symbols, assets = _known_symbols(books, venue.name), _known_assets(books, venue.name)
    saved = back_up(ledger, backup).file if backup and not dry_run else None
    with closing(Stage()) as stage:
        balances = fetch_history(stage, venue, symbols, assets, tell)
        as_of = venue.fetch_time()
        account_id = venue.fetch_account_id()
        try:
            with ledger.write() as books:
                work = _Work(books, venue, stage, tell)
                told = _rebuild(work, balances, as_of, account_id)
                if dry_run:
                    raise _Undo
        except _Undo:
            pass
        return Resync(
            venue=venue.name,
            as_of=as_of,
            dry_run=dry_run,
            saved=saved,
            symbols=tuple(stage.symbols),
            orders=stage.count("orders"),
            fills=stage.count("trades"),
            counts={name: work.counts[name] for name in _COUNTED},
            changes=tuple(work.changes),
            balances=told,
        )


_COUNTED = (
    *(f"{what} {kind}" for what in ("orders", "fills") for kind in ("added", "removed", "changed")),
    "balances changed",
    "positions changed",
    "cursors changed",
    "incidents closed",
)


def _rebuild(
    work: _Work, balances: Mapping[str, VenueBalance], as_of: datetime, account_id: str | None
) -> tuple[BalanceChange, ...]:
    require_nobody_trading(work.books)
    _claim_orders(work)
    absent = list(_absent_orders(work))
    _compare_fills(work)
    with _positions_compared(work):
        _clear(work)
        _rebuild_orders(work)
        _rebuild_brackets(work)
        _remove_orders(work, absent)
        _insert_fills(work)
    told = tuple(_rebuild_balances(work, balances, as_of))
    _rebuild_cursors(work)
    _close_incidents(work)
    _rebuild_account(work, as_of, account_id, anew=any(b.after != b.before for b in told))
    return told


# Whose books, and what to look at


def _require_same_account(books: Connection, venue: Venue) -> None:
    """Refuse to rebuild one account's books from another one."""
    known = _find_row(books, tables.accounts, venue=venue.name)
    if known is None:
        return
    pairs = ((known["identity"], venue.identity), (known["account_id"], venue.fetch_account_id()))
    for was, now in pairs:
        if was and now and was != now:
            raise InvalidInput(
                f"The books of venue {venue.name} are those of account {was}, but desk.toml and "
                f"its keys now open {now}; point them back, or give the new account a name of "
                "its own there."
            )


def _known_symbols(books: Connection, venue: str) -> set[str]:
    watching = (tables.bots, tables.orders, tables.fills, tables.trade_cursors)
    found: set[str] = set()
    for table in watching:
        query = select(table.c.symbol).where(table.c.venue == venue).distinct()
        found |= set(books.execute(query).scalars())
    of_bots = select(tables.bots.c.symbols).where(tables.bots.c.venue == venue)
    return found.union(*books.execute(of_bots).scalars())


def _known_assets(books: Connection, venue: str) -> set[str]:
    query = select(tables.balances.c.asset).where(tables.balances.c.venue == venue)
    return set(books.execute(query).scalars())


# Orders


def _claim_orders(work: _Work) -> None:
    """Settle which of the venue's orders are the desk's own: by the rows that the ledger has, and
    by the decisions that an order's name derives from."""
    others = _other_venues(work)
    for rows in _pages(work.books, tables.orders):
        work.stage.put_kept(
            (row["client_id"], row["venue_order_id"], _is_derived(row))
            for row in rows
            if row["venue"] not in others
        )
    _link_decisions(work)
    _link_stops(work)
    work.stage.claim()


def _other_venues(work: _Work) -> set[str]:
    """Venues whose orders are none of ours; a row that names no venue at all is damaged."""
    found: set[str] = set()
    for table in (tables.accounts, tables.bots):
        found |= set(work.books.execute(select(table.c.venue).distinct()).scalars())
    return found - {work.venue.name}


def _is_derived(row: Raw) -> bool:
    named = (row["decision"], row["leg"], row["attempt"])
    return bool(row["decision"]) and client_order_id(*named) == row["client_id"]


def _link_decisions(work: _Work) -> None:
    """Look for decisions from which the names of orders derive that nothing else explains."""
    query = select(tables.decisions.c.id, tables.decisions.c.action)
    result = work.books.execute(query, execution_options={"yield_per": PAGE})
    _link(work, ((decision, *leg) for decision, action in result for leg in _legs(action)))
    result.close()


def _legs(action: str) -> Iterator[tuple[int, int]]:
    """Legs and attempts by which an order's name may derive from a decision."""
    return product(range(MOST_SYMBOLS if action == Action.ADJUST else _LEGS), range(_ATTEMPTS))


def _link_stops(work: _Work) -> None:
    """The same for stops, whose legs may be high: they are of the entries shortly before them."""
    most = min(_MOST_STOPS, work.stage.count("orders")) + 10
    bots = work.books.execute(select(tables.decisions.c.bot).distinct()).scalars().all()
    tried: set[str] = set()
    for page in work.stage.pages_of_unlinked_sells():
        for at in page:
            near = {one for bot in bots for one in _entries_before(work.books, bot, at)} - tried
            tried |= near
            _link(work, ((one, leg, 0) for one in sorted(near) for leg in range(4, most)))


def _entries_before(books: Connection, bot: str, at: datetime) -> list[str]:
    decided = tables.decisions.c
    query = select(decided.id).where(
        decided.bot == bot, decided.action == Action.BUY, decided.candle_close <= at
    )
    newest = query.order_by(decided.candle_close.desc()).limit(_ENTRIES)
    return list(books.execute(newest).scalars())


def _link(work: _Work, names: Iterator[tuple[str, int, int]]) -> None:
    while work.stage.has_unlinked():
        page = [(client_order_id(*name), *name) for name in islice(names, 4 * PAGE)]
        if not page:
            break
        work.stage.link(page)


def _rebuild_orders(work: _Work) -> None:
    """Every order of ours as the venue tells it, new where its row was lost."""
    for page in work.stage.pages_of_own_orders():
        names = [client_id for client_id, _ in page]
        rows = _rows_by(work.books, tables.orders.c.client_id, names)
        links = {name: work.stage.find_link(name) for name in names}
        reasons = _Reasons.load(work.books, rows.values(), links.values())
        writes = _Writes()
        for client_id, told in page:
            row = rows.get(client_id)
            kept = _kept_order(row)
            base = kept or _lost_order(work, client_id, told, row)
            base = reasons.relink(base, links[client_id])
            _save_order(work, writes, row, kept, _as_told(work, base, told))
        writes.write(work.books)


@dataclass(frozen=True)
class _Reasons:
    """The decisions, runs and bots that a page's orders may be linked to."""

    decisions: Mapping[str, Raw]
    runs: frozenset[str]

    @classmethod
    def load(cls, books: Connection, rows: Iterable[Raw], links: Iterable[Link | None]) -> _Reasons:
        rows = list(rows)
        wanted = {row["decision"] for row in rows} | {link[1] for link in links if link}
        decisions = _rows_by(books, tables.decisions.c.id, wanted - {None})
        runs = {row["run"] for row in rows} | {row["run"] for row in decisions.values()}
        query = select(tables.runs.c.id).where(tables.runs.c.id.in_(runs - {None}))
        return cls(decisions, frozenset(books.execute(query).scalars()))

    def relink(self, order: Order, link: Link | None) -> Order:
        """The order with its decision, run and bot, as far as they are there."""
        if link:
            order = replace(order, decision=link[1], leg=link[2], attempt=link[3])
            order = replace(order, role=_role(order.side, order.type, order.leg))
        decision = self.decisions.get(order.decision or "")
        if decision is None:
            order = replace(order, decision=None)
        else:
            if decision["action"] == Action.ADJUST:  # its legs are sales and purchases, not stops
                order = replace(order, role=_role(order.side, order.type, 0))
            at = _time(decision["decided_at"]) or order.created_at
            is_lost = order.created_at == order.as_of
            order = replace(
                order,
                bot=decision["bot"],
                run=order.run if order.run in self.runs else decision["run"],
                created_at=at if is_lost else order.created_at,
                sent_at=at if is_lost else order.sent_at,
                expected_price=order.expected_price or _money(decision["price"]) or ZERO,
            )
        return order if order.run in self.runs else replace(order, run=None)


def _kept_order(row: Raw | None) -> Order | None:
    """The ledger's row as an order; None where there is none or where it cannot be read."""
    values = _typed(tables.orders, row) if row else None
    if values is None:
        return None
    try:
        Side(values["side"])
        Role(values["role"])
        OrderStatus(values["status"])
        TimeInForce(values["time_in_force"] or TimeInForce.GTC)
    except ValueError:
        return None
    return Order(**values)


def _lost_order(work: _Work, client_id: str, told: VenueOrder, row: Raw | None) -> Order:
    """An order whose row is gone or cannot be read, by what the venue tells of it."""
    at = told.at or utc_now()
    rest = row or {}
    is_derived = row is not None and _is_derived(row)
    leg, attempt = (row["leg"], row["attempt"]) if row and is_derived else (0, 0)
    return Order(
        client_id=client_id,
        decision=rest.get("decision"),
        run=rest.get("run"),
        bot=rest.get("bot"),
        venue=work.venue.name,
        symbol=told.symbol,
        side=Side(told.side),
        type=told.type,
        amount=told.amount or ZERO,
        limit_price=told.limit_price,
        expected_price=told.limit_price or told.stop_price or ZERO,
        status=OrderStatus.UNRESOLVED,
        as_of=at,
        created_at=at,
        updated_at=at,
        role=_role(Side(told.side), told.type, leg),
        leg=leg,
        attempt=attempt,
        stop_price=told.stop_price,
        sent_at=at,
    )


def _role(side: Side, kind: str, leg: int) -> Role:
    """What an order was for; the legs of a decision after the first protect what it bought."""
    if side == Side.BUY:
        return Role.ENTRY
    if kind.startswith(("stop_loss", "trailing")):
        return Role.STOP
    if leg == 0:
        return Role.EXIT
    return Role.STOP if kind == OrderType.MARKET else Role.TARGET


def _as_told(work: _Work, order: Order, told: VenueOrder) -> Order:
    """The order with everything of which the venue's word is the last one."""
    traded, paid = work.stage.traded(told.symbol, told.venue_order_id)
    filled = max(told.filled or ZERO, traded)
    known_cost = told.cost is not None and told.filled == filled
    status = order.status
    if told.status is not VenueStatus.UNKNOWN:
        status = OrderStatus(told.status.value)
    kind = told.type if told.type in _TYPES else order.type
    trails = kind == OrderType.TRAILING_STOP
    return replace(
        order,
        venue=work.venue.name,
        symbol=told.symbol,
        side=Side(told.side),
        type=kind,
        amount=order.amount if told.amount is None else told.amount,
        limit_price=told.limit_price,
        # A trailing stop's own price moves with the market at some venues.
        stop_price=order.stop_price if trails else told.stop_price,
        status=status,
        reason=order.reason if status == order.status else None,
        venue_order_id=told.venue_order_id,
        venue_list_id=told.list_id,
        bracket=order.bracket if told.list_id else None,
        filled=filled,
        cost=told.cost if known_cost and told.cost is not None else paid,
        fills_complete=traded >= filled,
        proven_absent=False,
        expected_price=order.expected_price or (paid / traded if traded else ZERO),
    )


@dataclass
class _Writes:
    """What is to be written of one page of orders, in as few statements as there are kinds."""

    new: list[Raw] = field(default_factory=list)
    changed: list[Raw] = field(default_factory=list)
    events: list[Raw] = field(default_factory=list)

    def write(self, books: Connection) -> None:
        mine = tables.orders.c.client_id == bindparam("mine")
        for statement, values in (
            (tables.orders.insert(), self.new),
            (tables.orders.update().where(mine), self.changed),
            (tables.order_events.insert(), self.events),
        ):
            if values:
                books.execute(statement, values)


def _save_order(
    work: _Work, writes: _Writes, row: Raw | None, kept: Order | None, order: Order
) -> None:
    if order == kept:
        return
    order = replace(order, updated_at=utc_now())
    told = f"{order.status}, filled {order.filled:f} of {order.amount:f} {order.symbol}"
    before = None if row is None else f"{row['status']}, filled {row['filled']} of {row['amount']}"
    work.note("orders", "added" if row is None else "changed", order.client_id, before, told)
    if row is None:
        writes.new.append(as_row(order))
    else:
        writes.changed.append({"mine": order.client_id, **as_row(order)})
    if kept is None or (kept.status, kept.filled) != (order.status, order.filled):
        event = {"client_id": order.client_id, "status": order.status, "detail": REPAIR}
        writes.events.append({**event, "at": order.updated_at})


def _rebuild_brackets(work: _Work) -> None:
    """Orders of one list at the venue are a bracket, under the name that derives from the first."""
    orders = tables.orders
    listed = (orders.c.venue_list_id, orders.c.decision)
    query = select(*listed, func.min(orders.c.leg)).group_by(*listed)
    query = query.where(
        orders.c.venue == work.venue.name,
        orders.c.venue_list_id.is_not(None),
        orders.c.decision.is_not(None),
    )
    for list_id, decision, leg in work.books.execute(query).all():
        name = client_order_id(decision, leg, -1)
        mine = (orders.c.venue_list_id == list_id, orders.c.decision == decision)
        wrong = orders.c.bracket.is_distinct_from(name)
        work.books.execute(orders.update().where(*mine, wrong).values(bracket=name))


def _absent_orders(work: _Work) -> Iterator[tuple[str, str]]:
    """Client ids and states of the ledger's orders that the venue does not have, but for those
    that never were to be there and can be read."""
    for rows in _pages(work.books, tables.orders, venue=work.venue.name):
        there = work.stage.owns([row["client_id"] for row in rows])
        for row in rows:
            if row["client_id"] in there or (row["status"] in _OWN and _kept_order(row)):
                continue
            _require_old_enough(work, row)
            yield row["client_id"], f"{row['status']}, filled {row['filled']}"


def _require_old_enough(work: _Work, row: Raw) -> None:
    """An order that may still turn up must not be forgotten: it would be sent once more."""
    sent = _time(row["sent_at"]) or _time(row["updated_at"])
    if row["status"] not in _ON_THEIR_WAY or sent is None:
        return
    left = (sent + work.venue.visibility_lag - utc_now()).total_seconds()
    if left > 0:
        raise RetryableError(
            f"Order {row['client_id']} may be on its way to venue {work.venue.name}; "
            f"try again in {left:.0f} s. The books are as they were."
        )


def _remove_orders(work: _Work, absent: Iterable[tuple[str, str]]) -> None:
    for client_id, state in absent:
        work.note("orders", "removed", client_id, state, None)
        for table in (tables.order_events, tables.refusals, tables.orders):
            work.books.execute(table.delete().where(table.c.client_id == client_id))
    _cut_dangling(work)


def _cut_dangling(work: _Work) -> None:
    """Rows that damage has left without what they belong to."""
    orders = tables.orders
    for table in (tables.order_events, tables.refusals):
        lost = table.c.client_id.not_in(select(orders.c.client_id))
        work.books.execute(table.delete().where(lost))
    for column, known in ((orders.c.run, tables.runs.c.id), (orders.c.decision, _DECISION)):
        work.books.execute(
            orders.update().where(column.not_in(select(known))).values({column.name: None})
        )


# Fills


def _compare_fills(work: _Work) -> None:
    for rows in _pages(work.books, tables.fills, venue=work.venue.name):
        for row in rows:
            found = work.stage.find_trade(row["symbol"], row["trade_id"])
            subject = f"{row['symbol']}/{row['trade_id']}"
            before = f"{row['side']} {row['amount']} at {row['price']}"
            if found is None:
                work.note("fills", "removed", subject, before, None)
            elif _typed(tables.fills, row) != as_row(fill_of(work.venue.name, *found)):
                work.note("fills", "changed", subject, before, _told(found[0]))
        work.stage.note_known((row["symbol"], row["trade_id"]) for row in rows)
    for page in work.stage.pages_of_trades(unknown_only=True):
        for trade, _ in page:
            work.note("fills", "added", f"{trade.symbol}/{trade.trade_id}", None, _told(trade))


def _clear(work: _Work) -> None:
    for table in (tables.fills, tables.tranches, tables.positions):
        work.books.execute(table.delete().where(table.c.venue == work.venue.name))


def _insert_fills(work: _Work) -> None:
    """Book the fills in the venue's order, positions beside them, as reconciliation would have."""
    done, total = 0, work.stage.count("trades")
    for page in work.stage.pages_of_trades():
        fills = [fill_of(work.venue.name, trade, owner) for trade, owner in page]
        work.books.execute(tables.fills.insert(), [as_row(fill) for fill in fills])
        book_positions(work.books, fills)
        done += len(fills)
        work.tell(done, total)


def _told(trade: VenueTrade) -> str:
    return f"{trade.side} {trade.amount:f} at {trade.price:f}"


@contextmanager
def _positions_compared(work: _Work) -> Iterator[None]:
    before = _position_rows(work)
    yield
    after = _position_rows(work)
    for key in sorted({*before, *after}):
        if before.get(key) != after.get(key):
            work.counts["positions changed"] += 1


def _position_rows(work: _Work) -> dict[tuple[str, str], Any]:
    table = tables.positions
    rows = work.books.execute(_select_raw(table).where(table.c.venue == work.venue.name))
    return {(row["bot"], row["symbol"]): _typed(table, row) or dict(row) for row in rows.mappings()}


# Balances, cursors, the account


def _rebuild_balances(
    work: _Work, actual: Mapping[str, VenueBalance], as_of: datetime
) -> Iterator[BalanceChange]:
    table = tables.balances
    stored = work.books.execute(_select_raw(table).where(table.c.venue == work.venue.name))
    rows = {row["asset"]: row for row in stored.mappings()}
    for asset in sorted({*rows, *actual}):
        told = actual.get(asset) or VenueBalance(asset, ZERO, ZERO)
        total, row = told.free + told.used, rows.get(asset)
        before = _typed(table, row) if row else None
        yield BalanceChange(asset, before["booked"] if before else None, total)
        wanted = {"booked": total, "free": told.free, "used": told.used}
        if before is None or any(before[name] != value for name, value in wanted.items()):
            work.counts["balances changed"] += 1
            save_balance(work.books, Balance(work.venue.name, asset, as_of=as_of, **wanted))


def _rebuild_cursors(work: _Work) -> None:
    table = tables.trade_cursors
    query = select(table.c.symbol, table.c.trade_id).where(table.c.venue == work.venue.name)
    before = dict(work.books.execute(query).tuples().all())
    after = {symbol: work.stage.last_trade(symbol) or "" for symbol in work.stage.symbols}
    for symbol in sorted({*before, *after}):
        if before.get(symbol) == after.get(symbol):
            continue
        work.counts["cursors changed"] += 1
        if symbol in after:
            save_cursor(work.books, work.venue.name, symbol, after[symbol])
        else:
            mine = (table.c.venue == work.venue.name, table.c.symbol == symbol)
            work.books.execute(table.delete().where(*mine))


def _close_incidents(work: _Work) -> None:
    table = tables.incidents
    work.counts["incidents closed"] += work.books.execute(
        table.update()
        .where(table.c.venue == work.venue.name, table.c.closed_at.is_(None))
        .values(closed_at=utc_now(), repair=REPAIR)
    ).rowcount


def _rebuild_account(work: _Work, as_of: datetime, account_id: str | None, *, anew: bool) -> None:
    """The books are this account's. Where booked balances changed they begin anew: trades of a
    symbol that was never walked are in the balances up to now."""
    table, name = tables.accounts, work.venue.name
    row = _find_row(work.books, table, venue=name)
    known = Account(**values) if row and (values := _typed(table, row)) else None
    opened_at = known.opened_at if known and not anew else as_of
    wanted = Account(
        venue=name,
        quote=work.venue.quote,
        opened_at=opened_at,
        identity=work.venue.identity,
        account_id=account_id or (known.account_id if known else None),
    )
    if wanted != known:
        work.books.execute(table.delete().where(table.c.venue == name))
        insert(work.books, table, wanted)


# Rows that may hold anything


def _select_raw(table: Table) -> Any:
    """Rows as they are stored: damage must be found, not raise."""
    return select(
        *(
            type_coerce(column, Text).label(column.name)
            if isinstance(column.type, tables.MoneyText | tables.UtcText)
            else column
            for column in table.columns
        )
    )


def _pages(books: Connection, table: Table, **which: str) -> Iterator[list[Raw]]:
    query = _select_raw(table)
    for name, value in which.items():
        query = query.where(table.c[name] == value)
    result = books.execute(query, execution_options={"yield_per": PAGE})
    for page in result.mappings().partitions():
        yield list(page)


def _rows_by(books: Connection, key: Any, values: Iterable[str]) -> dict[str, Raw]:
    query = _select_raw(key.table).where(key.in_(sorted(values)))
    return {row[key.name]: row for row in books.execute(query).mappings()}


def _find_row(books: Connection, table: Table, **which: str) -> Raw | None:
    query = _select_raw(table)
    for name, value in which.items():
        query = query.where(table.c[name] == value)
    return books.execute(query).mappings().first()


def _typed(table: Table, row: Raw) -> dict[str, Any] | None:
    """The row's values as the ledger reads them, None where one of them cannot be."""
    try:
        return {column.name: _value(column, row[column.name]) for column in table.columns}
    except (ArithmeticError, ValueError, TypeError, DeskError):
        return None


def _value(column: Any, raw: Any) -> Any:
    if raw is None:
        if not column.nullable:
            raise ValueError(column.name)
        return None
    match column.type:
        case tables.MoneyText():
            value = Decimal(raw)
            if not value.is_finite():
                raise ValueError(column.name)
            return value
        case tables.UtcText():
            return parse_time(raw)
        case Integer():
            return index(raw)
    return raw


def _time(raw: Any) -> datetime | None:
    try:
        return parse_time(raw)
    except (TypeError, DeskError):
        return None


def _money(raw: Any) -> Decimal | None:
    try:
        return Decimal(raw)
    except (TypeError, ArithmeticError):
        return None
