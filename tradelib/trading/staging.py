"""An account's whole history at its venue, staged in a temporary file, so that neither its length
nor a venue that fails in the middle does any harm.

SQLite keeps the file without a name: it is gone with the process, however that ends.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TypeVar

from tradelib.clock import format_time, parse_time
from tradelib.errors import RateLimited, VenueUnavailable
from tradelib.trading.orders import ZERO
from tradelib.venue import Venue, VenueBalance, VenueOrder, VenueStatus, VenueTrade

PAGE = 500  # rows in memory at a time
_ATTEMPTS = 5
_PAUSE = 0.5  # seconds before the next look
# An order whose executions are not all listed after this time has lost them for good.
_LISTED_WITHIN = timedelta(minutes=2)
# Seconds to wait where the venue wants fewer requests and does not say for how long, how often
# without any progress, and how long at most.
_PATIENCE, _WAITS, _LONGEST_WAIT = 15.0, 10, 300.0

T = TypeVar("T")
Tell = Callable[[int, int], None]

_SCHEMA = """
CREATE TABLE orders (
    symbol TEXT, id TEXT, client_id TEXT, side TEXT, type TEXT, status TEXT, amount TEXT,
    filled TEXT, cost TEXT, limit_price TEXT, stop_price TEXT, list_id TEXT, at TEXT, owner TEXT,
    PRIMARY KEY (symbol, id));
CREATE INDEX orders_by_name ON orders (client_id);
CREATE INDEX orders_by_owner ON orders (owner);
CREATE TABLE trades (
    symbol TEXT, id TEXT, order_id TEXT, side TEXT, amount TEXT, price TEXT, cost TEXT, fee TEXT,
    fee_currency TEXT, at TEXT, is_known INTEGER DEFAULT 0, PRIMARY KEY (symbol, id));
CREATE INDEX trades_in_order ON trades (symbol, at, length(id), id);
CREATE INDEX trades_by_order ON trades (symbol, order_id);
CREATE TABLE kept (client_id TEXT PRIMARY KEY, order_id TEXT, is_linked INTEGER);
CREATE TABLE links (client_id TEXT PRIMARY KEY, decision TEXT, leg INTEGER, attempt INTEGER);
"""
_ORDER = "symbol, id, client_id, side, type, status, amount, filled, cost, limit_price, stop_price"
_ORDER += ", list_id, at"
_TRADE = "symbol, id, order_id, side, amount, price, cost, fee, fee_currency, at"
# One order of the venue for each client id that the ledger knows: the one it names, else the first.
_CLAIM = """
UPDATE orders SET owner = client_id WHERE rowid IN (
    SELECT row FROM (
        SELECT o.rowid AS row, row_number() OVER (
            PARTITION BY o.client_id
            ORDER BY coalesce(o.id = k.order_id, 0) DESC, o.at, length(o.id), o.id) AS place
        FROM orders o LEFT JOIN kept k ON k.client_id = o.client_id
        WHERE k.client_id IS NOT NULL OR o.client_id IN (SELECT client_id FROM links))
    WHERE place = 1)
"""

Link = tuple[str, str, int, int]  # client id, decision, leg, attempt


class Stage:
    """The orders and executions that a venue told, and which of them are the ledger's own.

    symbols: those whose history is in it. rows: how many the venue told so far.
    """

    def __init__(self) -> None:
        self.symbols: list[str] = []
        self.rows = 0
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;" + _SCHEMA)
        self._db.execute("BEGIN")  # which never ends: nothing of it is to be kept

    def close(self) -> None:
        self._db.close()

    # What the venue tells

    def put_orders(self, orders: Sequence[VenueOrder]) -> None:
        """Keep orders; the newest word on each stands."""
        self.rows += len(orders)
        self._db.executemany(
            f"INSERT OR REPLACE INTO orders ({_ORDER}) VALUES ({_places(13)})",
            [
                (
                    o.symbol, o.venue_order_id, o.client_id, o.side, o.type, o.status.value,
                    _text(o.amount), _text(o.filled), _text(o.cost), _text(o.limit_price),
                    _text(o.stop_price), o.list_id, format_time(o.at) if o.at else None,
                )
                for o in orders
            ],
        )  # fmt: skip

    def put_trades(self, trades: Sequence[VenueTrade]) -> None:
        """Keep executions, each once."""
        self.rows += len(trades)
        self._db.executemany(
            f"INSERT OR IGNORE INTO trades ({_TRADE}) VALUES ({_places(10)})",
            [
                (
                    t.symbol, t.trade_id, t.venue_order_id, t.side, _text(t.amount),
                    _text(t.price), _text(t.cost), _text(t.fee), t.fee_currency, format_time(t.at),
                )
                for t in trades
            ],
        )  # fmt: skip

    def last_order_time(self, symbol: str) -> datetime | None:
        found = self._one("SELECT max(at) FROM orders WHERE symbol = ?", symbol)
        return parse_time(str(found)) if found else None

    def last_trade(self, symbol: str) -> str | None:
        return self._one(
            "SELECT id FROM trades WHERE symbol = ? "
            "ORDER BY at DESC, length(id) DESC, id DESC LIMIT 1",
            symbol,
        )

    def assets(self) -> set[str]:
        """Everything that was ever traded or paid as a fee."""
        found = self._db.execute("SELECT DISTINCT symbol, fee_currency FROM trades").fetchall()
        return {asset for symbol, fee in found for asset in (*symbol.split("/"), fee)}

    def unsettled_orders(self) -> list[VenueOrder]:
        ended = ("FILLED", "CANCELED", "EXPIRED", "REJECTED")
        query = f"SELECT {_ORDER} FROM orders WHERE status NOT IN {ended}"
        return [_order(row) for row in self._db.execute(query)]

    def has_unlisted_trades(self, since: datetime) -> bool:
        """Whether orders of late are filled further than their executions say."""
        query = (
            f"SELECT {_ORDER} FROM orders WHERE filled IS NOT NULL "
            "AND (at >= ? OR at IS NULL OR status IN ('OPEN', 'PARTIALLY_FILLED'))"
        )
        late = (_order(row) for row in self._db.execute(query, (format_time(since),)))
        return any(self.traded(o.symbol, o.venue_order_id)[0] < (o.filled or ZERO) for o in late)

    # What the ledger knows

    def put_kept(self, kept: Iterable[tuple[str, str | None, bool]]) -> None:
        """Client ids of the ledger's orders, with the venue's ids, and whether each is derived
        from the decision that it names."""
        self._db.executemany("INSERT OR REPLACE INTO kept VALUES (?, ?, ?)", kept)

    def has_unlinked(self) -> bool:
        """Whether orders of the venue are called as the desk calls its own, and no order of the
        ledger says why."""
        return self._one(f"SELECT 1 FROM orders o WHERE {_UNLINKED} LIMIT 1") is not None

    def pages_of_unlinked_sells(self) -> Iterator[list[datetime]]:
        """When those of them were made that sold."""
        query = f"SELECT o.at FROM orders o WHERE o.side = 'sell' AND o.at > '' AND {_UNLINKED}"
        for page in self._pages(query):
            yield [parse_time(at) for (at,) in page]

    def link(self, candidates: Sequence[Link]) -> None:
        """Keep those of derived client ids that the venue has."""
        found = {link[0]: link for link in candidates}
        query = f"SELECT o.client_id FROM orders o WHERE o.client_id IN ({_places(len(found))})"
        for (client_id,) in self._db.execute(f"{query} AND {_UNLINKED}", tuple(found)).fetchall():
            self._db.execute("INSERT OR REPLACE INTO links VALUES (?, ?, ?, ?)", found[client_id])

    def find_link(self, client_id: str) -> Link | None:
        return self._db.execute("SELECT * FROM links WHERE client_id = ?", (client_id,)).fetchone()

    def claim(self) -> None:
        """Settle which of the venue's orders are the ledger's own."""
        self._db.execute(_CLAIM)

    # What came of it

    def pages_of_own_orders(self) -> Iterator[list[tuple[str, VenueOrder]]]:
        """The ledger's own orders by client id."""
        for page in self._pages(
            f"SELECT {_ORDER}, owner FROM orders WHERE owner IS NOT NULL ORDER BY symbol, at"
        ):
            yield [(row[-1], _order(row[:-1])) for row in page]

    def owns(self, client_ids: Sequence[str]) -> set[str]:
        """Which of these client ids the venue has an order for."""
        query = f"SELECT owner FROM orders WHERE owner IN ({_places(len(client_ids))})"
        return {owner for (owner,) in self._db.execute(query, tuple(client_ids))}

    def traded(self, symbol: str, order_id: str) -> tuple[Decimal, Decimal]:
        """What an order's executions add up to: amount in base and cost in quote currency."""
        found = self._db.execute(
            "SELECT amount, cost FROM trades WHERE symbol = ? AND order_id = ?", (symbol, order_id)
        ).fetchall()
        amounts, costs = ([Decimal(row[place]) for row in found] for place in (0, 1))
        return sum(amounts, ZERO), sum(costs, ZERO)

    def pages_of_trades(
        self, unknown_only: bool = False
    ) -> Iterator[list[tuple[VenueTrade, str | None]]]:
        """Executions in the order in which the venue made them, symbol by symbol, each with the
        client id of the order of ours that it belongs to."""
        which = "WHERE t.is_known = 0" if unknown_only else ""
        columns = ", ".join(f"t.{name}" for name in _TRADE.split(", "))
        for page in self._pages(
            f"SELECT {columns}, o.owner FROM trades t LEFT JOIN orders o "
            f"ON o.symbol = t.symbol AND o.id = t.order_id {which} "
            "ORDER BY t.symbol, t.at, length(t.id), t.id"
        ):
            yield [(_trade(row[:-1]), row[-1]) for row in page]

    def find_trade(self, symbol: str, trade_id: str) -> tuple[VenueTrade, str | None] | None:
        row = self._db.execute(
            f"SELECT {_TRADE} FROM trades WHERE symbol = ? AND id = ?", (symbol, trade_id)
        ).fetchone()
        if row is None:
            return None
        owner = self._one("SELECT owner FROM orders WHERE symbol = ? AND id = ?", symbol, row[2])
        return _trade(row), owner

    def note_known(self, keys: Iterable[tuple[str, str]]) -> None:
        """Remember executions (symbol, id) that the ledger has."""
        self._db.executemany("UPDATE trades SET is_known = 1 WHERE symbol = ? AND id = ?", keys)

    def count(self, table: str) -> int:
        return self._one(f"SELECT count(*) FROM {table}") or 0

    def _one(self, query: str, *values: object) -> object:
        row = self._db.execute(query, values).fetchone()
        return row[0] if row else None

    def _pages(self, query: str) -> Iterator[list[tuple[str, ...]]]:
        cursor = self._db.execute(query)
        while page := cursor.fetchmany(PAGE):
            yield page


_UNLINKED = """o.client_id LIKE 'nd-%'
    AND o.client_id NOT IN (SELECT client_id FROM kept WHERE is_linked)
    AND o.client_id NOT IN (SELECT client_id FROM links)"""


def fetch_history(
    stage: Stage,
    venue: Venue,
    symbols: Iterable[str],
    assets: Iterable[str],
    tell: Tell,
) -> dict[str, VenueBalance]:
    """Stage all orders and executions of an account, and give the balances that they lead to.

    symbols: those known to be traded; assets: those that are or were held, whose other symbols
    are looked at too, and those of whatever these turn out to have been traded for.
    """
    known = venue.fetch_instruments()
    balances = venue.fetch_balances()
    done: set[str] = set()
    wanted = set(symbols) & set(known)
    held = {*assets, *balances}
    while True:
        wanted |= {symbol for symbol, each in known.items() if each.base in held}
        if wanted <= done:
            break
        for symbol in sorted(wanted - done):
            _patiently(stage, lambda symbol=symbol: _stage_orders(stage, venue, symbol, tell))
            _patiently(stage, lambda symbol=symbol: _stage_trades(stage, venue, symbol, tell))
        done |= wanted
        held |= stage.assets()
    stage.symbols = sorted(done)
    return _fetch_balances(stage, venue, tell)


def _stage_orders(stage: Stage, venue: Venue, symbol: str, tell: Tell) -> None:
    for page in venue.iterate_orders(symbol, stage.last_order_time(symbol)):
        stage.put_orders(page)
        tell(stage.rows, stage.rows)


def _stage_trades(stage: Stage, venue: Venue, symbol: str, tell: Tell) -> None:
    for page in venue.iterate_trades(symbol, stage.last_trade(symbol), None):
        stage.put_trades(page)
        tell(stage.rows, stage.rows)


def _patiently(stage: Stage, step: Callable[[], T]) -> T:
    """A step of a walk that may be longer than the venue's budget for a minute; it goes on where
    it was stopped."""
    waits, rows = 0, stage.rows
    while True:
        try:
            return step()
        except RateLimited as error:
            waits, rows = (0 if stage.rows > rows else waits + 1), stage.rows
            seconds = error.retry_after or _PATIENCE
            if waits >= _WAITS or seconds > _LONGEST_WAIT:
                raise
            time.sleep(seconds)


def _fetch_balances(stage: Stage, venue: Venue, tell: Tell) -> dict[str, VenueBalance]:
    """Balances that contain every staged execution and no other: looked at again until none came
    between, and until the venue lists all that its orders were filled."""
    for _ in range(_ATTEMPTS):
        found = _patiently(stage, lambda: _look(stage, venue, tell))
        if found is not None:
            return found
        time.sleep(_PAUSE)
    raise VenueUnavailable(
        f"Venue {venue.name} goes on trading, or does not list yet what it traded; stop other "
        "programs on the account and try again in a minute. The books are as they were."
    )


def _look(stage: Stage, venue: Venue, tell: Tell) -> dict[str, VenueBalance] | None:
    """Balances with all that led to them; None when something happened meanwhile."""
    for symbol in stage.symbols:
        _stage_trades(stage, venue, symbol, tell)
    for order in stage.unsettled_orders():
        fresh = venue.fetch_order(order.symbol, order.client_id or "", order.venue_order_id)
        stage.put_orders([fresh])
    before = {symbol: stage.last_trade(symbol) for symbol in stage.symbols}
    balances = venue.fetch_balances()
    if before != {symbol: venue.fetch_last_trade_id(symbol) for symbol in stage.symbols}:
        return None
    unlisted = stage.has_unlisted_trades(venue.fetch_time() - _LISTED_WITHIN)
    return None if unlisted else balances


def _order(row: Sequence[str | None]) -> VenueOrder:
    (symbol, order_id, client_id, side, kind, status, amount, filled, cost, limit_price,
     stop_price, list_id, at) = row  # fmt: skip
    return VenueOrder(
        order_id, client_id, symbol, side, kind, VenueStatus(status), _money(amount),
        _money(filled), _money(cost), _money(limit_price), _money(stop_price), list_id,
        parse_time(at) if at else None,
    )  # fmt: skip


def _trade(row: Sequence[str]) -> VenueTrade:
    symbol, trade_id, order_id, side, amount, price, cost, fee, currency, at = row
    return VenueTrade(
        trade_id, order_id, symbol, side, Decimal(amount), Decimal(price), Decimal(cost),
        Decimal(fee), currency, parse_time(at),
    )  # fmt: skip


def _text(value: Decimal | None) -> str | None:
    return None if value is None else format(value, "f")


def _money(value: str | None) -> Decimal | None:
    return None if value is None else Decimal(value)


def _places(count: int) -> str:
    return ", ".join("?" * count)
