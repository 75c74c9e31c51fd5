"""What survives a restart: one SQLite file, committed before any answer leaves."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from tradelib.errors import InvalidInput, StorageFailed
from tradelib.paper.engine import Changes, Engine
from tradelib.paper.orders import Order, OrderList, Ticket, Trade

STATE_FILE = "paper.sqlite"
_FORMAT = "1"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS balances (
    account TEXT, asset TEXT, free TEXT NOT NULL, locked TEXT NOT NULL,
    PRIMARY KEY (account, asset));
CREATE TABLE IF NOT EXISTS orders (
    id INTEGER PRIMARY KEY, account TEXT NOT NULL, symbol TEXT NOT NULL, client_id TEXT NOT NULL,
    is_open INTEGER NOT NULL, time INTEGER NOT NULL, body TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS orders_by_account ON orders (account, symbol, id);
CREATE INDEX IF NOT EXISTS orders_by_client ON orders (account, symbol, client_id);
CREATE INDEX IF NOT EXISTS orders_open ON orders (id) WHERE is_open;
CREATE TABLE IF NOT EXISTS trades (
    id INTEGER, order_id INTEGER, account TEXT NOT NULL, symbol TEXT NOT NULL,
    time INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (id, order_id));
CREATE INDEX IF NOT EXISTS trades_by_account ON trades (account, symbol, id);
CREATE INDEX IF NOT EXISTS trades_by_order ON trades (order_id, id);
CREATE TABLE IF NOT EXISTS lists (
    id INTEGER PRIMARY KEY, account TEXT NOT NULL, body TEXT NOT NULL);
"""


@dataclass(frozen=True)
class Page:
    """Which rows of a history: by id from `from_id`, or by time (ms, both ends inclusive).

    before: ids below this one alone.
    """

    limit: int
    from_id: int | None = None
    start: int | None = None
    end: int | None = None
    order_id: int | None = None
    before: int | None = None


class Store:
    """The exchange's file. Only one exchange at a time can have it open.

    folder: None keeps the state in memory, until the exchange closes.
    """

    def __init__(self, folder: Path | None) -> None:
        self.path = folder / STATE_FILE if folder else Path(":memory:")
        self.is_new = folder is not None and not self.path.exists()
        try:
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(
                self.path, isolation_level=None, timeout=0, check_same_thread=False
            )
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode = WAL")
            # A killed process loses nothing that WAL wrote; only a power cut could.
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.executescript(_SCHEMA)
            if self._db.execute("PRAGMA quick_check").fetchone() != ("ok",):
                raise sqlite3.DatabaseError("its pages contradict each other")
        except (sqlite3.Error, OSError) as error:
            raise self._unusable(error) from error

    def _unusable(self, error: Exception) -> Exception:
        if "locked" in str(error):
            return InvalidInput(
                f"Another paper exchange is using {self.path}; stop it or choose another --home."
            )
        return StorageFailed(
            f"The paper exchange's state {self.path} cannot be used: {error}; "
            f"move it away to start afresh."
        )

    def close(self) -> None:
        self._db.close()

    def discard(self) -> None:
        """Closes a file that nothing came of, and removes it when this run made it."""
        self.close()
        if self.is_new:
            self.path.unlink(missing_ok=True)
            with suppress(OSError):
                self.path.parent.rmdir()

    # Facts.

    def fact(self, name: str) -> Any:
        row = self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return json.loads(row[0]) if row else None

    def note(self, name: str, value: Any) -> None:
        """Keeps one fact at once."""
        self._put_facts({name: value})

    def _put_facts(self, facts: dict[str, Any]) -> None:
        self._db.executemany(
            "INSERT OR REPLACE INTO facts VALUES (?, ?)",
            [(name, json.dumps(value)) for name, value in facts.items()],
        )

    # Writing.

    def commit(self, engine: Engine, changes: Changes, facts: dict[str, Any]) -> None:
        """Everything that changed, at once or not at all."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._put_facts({**facts, **_counters(engine), "format": _FORMAT})
            self._put_balances(engine, changes.balances)
            self._put_orders(changes.orders)
            self._put_trades(each.trade for each in changes.executions if each.trade)
            self._db.executemany(
                "INSERT OR REPLACE INTO lists VALUES (?, ?, ?)",
                [(each.id, each.account, _pack_list(each)) for each in changes.lists],
            )
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise StorageFailed(f"The paper exchange cannot write {self.path}: {error}.") from error

    def _put_balances(self, engine: Engine, touched: Iterable[tuple[str, str]]) -> None:
        rows = []
        for account, asset in touched:
            balance = engine.balance(account, asset)
            rows.append((account, asset, str(balance.free), str(balance.locked)))
        self._db.executemany("INSERT OR REPLACE INTO balances VALUES (?, ?, ?, ?)", rows)

    def _put_orders(self, orders: Iterable[Order]) -> None:
        self._db.executemany(
            "INSERT OR REPLACE INTO orders VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (o.id, o.account, o.ticket.symbol, o.ticket.client_id, o.is_open, o.time, _pack(o))
                for o in orders
            ],
        )

    def _put_trades(self, trades: Iterable[Trade]) -> None:
        self._db.executemany(
            "INSERT INTO trades VALUES (?, ?, ?, ?, ?, ?)",
            [(t.id, t.order_id, t.account, t.symbol, t.time, _pack_trade(t)) for t in trades],
        )

    # Reading.

    def load(self, engine: Engine) -> None:
        """Fills a fresh engine with what the file holds."""
        try:
            self._load(engine)
        except (sqlite3.Error, ValueError, KeyError, TypeError, ArithmeticError) as error:
            raise self._unusable(error) from error

    def _load(self, engine: Engine) -> None:
        for account, asset, free, locked in self._db.execute("SELECT * FROM balances"):
            engine.balances.setdefault(account, {})
            balance = engine.balance(account, asset)
            balance.free, balance.locked = Decimal(free), Decimal(locked)
        for (body,) in self._db.execute("SELECT body FROM orders WHERE is_open ORDER BY id"):
            engine.restore(_unpack(body))
        wanted = {order.list_id for order in engine.open.values()}
        for number, body in self._db.execute("SELECT id, body FROM lists").fetchall():
            if number in wanted:
                engine.lists[number] = _unpack_list(body)
        counters = self.fact("counters")
        if counters:
            engine.next_order, engine.next_trade, engine.next_list = counters
            engine.halted = set(self.fact("halted"))
            for ledger in ("fees", "market"):
                amounts = {k: Decimal(v) for k, v in self.fact(f"house_{ledger}").items()}
                setattr(engine.house, ledger, amounts)

    def order(
        self,
        account: str,
        symbol: str,
        order_id: int | None,
        client_id: str | None,
        before: int | None = None,
    ) -> Order | None:
        """An order by its id, or the latest by its client's id; with an id below `before`."""
        query, values = "account = ? AND symbol = ?", [account, symbol]
        for clause, value in (
            ("id = ?", order_id),
            ("client_id = ?", client_id),
            ("id < ?", before),
        ):
            if value is not None:
                query += f" AND {clause}"
                values.append(value)
        row = self._db.execute(
            f"SELECT body FROM orders WHERE {query} ORDER BY id DESC LIMIT 1", values
        ).fetchone()
        return _unpack(row[0]) if row else None

    def orders(self, account: str, symbol: str, page: Page) -> list[Order]:
        return [_unpack(body) for body in self._rows("orders", account, symbol, page)]

    def trades(self, account: str, symbol: str, page: Page) -> list[Trade]:
        return [_unpack_trade(body) for body in self._rows("trades", account, symbol, page)]

    def history(self, account: str) -> tuple[list[Order], list[Trade]]:
        """All orders and trades of an account, in order of id."""
        orders, trades = (
            self._db.execute(f"SELECT body FROM {table} WHERE account = ? ORDER BY id", (account,))
            for table in ("orders", "trades")
        )
        return [_unpack(row[0]) for row in orders], [_unpack_trade(row[0]) for row in trades]

    def order_list(self, account: str, list_id: int) -> OrderList | None:
        row = self._db.execute(
            "SELECT body FROM lists WHERE account = ? AND id = ?", (account, list_id)
        ).fetchone()
        return _unpack_list(row[0]) if row else None

    def count(self, table: str) -> int:
        return self._db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]

    def _rows(self, table: str, account: str, symbol: str, page: Page) -> list[str]:
        """Bodies in order of id; the last ones when no beginning is named."""
        query, values = "account = ? AND symbol = ?", [account, symbol]
        for clause, value in (
            ("id >= ?", page.from_id),
            ("time >= ?", page.start),
            ("time <= ?", page.end),
            ("order_id = ?", page.order_id),
            ("id < ?", page.before),
        ):
            if value is not None:
                query += f" AND {clause}"
                values.append(value)
        from_start = page.from_id is not None or page.start is not None
        found = self._db.execute(
            f"SELECT body FROM {table} WHERE {query} ORDER BY id {'ASC' if from_start else 'DESC'}"
            f" LIMIT ?",
            [*values, page.limit],
        ).fetchall()
        bodies = [row[0] for row in found]
        return bodies if from_start else bodies[::-1]


def _counters(engine: Engine) -> dict[str, Any]:
    return {
        "counters": [engine.next_order, engine.next_trade, engine.next_list],
        "halted": sorted(engine.halted),
        "house_fees": {asset: str(amount) for asset, amount in engine.house.fees.items()},
        "house_market": {asset: str(amount) for asset, amount in engine.house.market.items()},
    }


def _text(value: Decimal | None) -> str | None:
    return None if value is None else str(value)


def _money(value: str | None) -> Decimal | None:
    return None if value is None else Decimal(value)


def _pack(o: Order) -> str:
    t = o.ticket
    return json.dumps([
        o.id, o.account,
        [t.symbol, t.side, t.type, t.client_id, _text(t.amount), _text(t.quote_amount),
         _text(t.price), _text(t.stop), t.trailing, t.time_in_force, t.prevention],
        str(o.amount), o.time, o.update_time, o.status, str(o.filled), str(o.filled_quote),
        str(o.locked), o.working, o.working_time, o.list_id, _text(o.extreme), o.trailing_time,
    ])  # fmt: skip


def _unpack(body: str) -> Order:
    (number, account, t, amount, time, updated, status, filled, filled_quote, locked, working,
     working_time, list_id, extreme, trailing_time) = json.loads(body)  # fmt: skip
    ticket = Ticket(*t[:4], *(_money(each) for each in t[4:8]), *t[8:])
    return Order(
        number, account, ticket, Decimal(amount), time, updated, status, Decimal(filled),
        Decimal(filled_quote), Decimal(locked), working, working_time, list_id, _money(extreme),
        trailing_time,
    )  # fmt: skip


def _pack_trade(t: Trade) -> str:
    return json.dumps([
        t.id, t.symbol, t.order_id, t.list_id, t.account, str(t.price), str(t.amount),
        str(t.quote), str(t.fee), t.fee_asset, t.time, t.is_buyer, t.is_maker,
    ])  # fmt: skip


def _unpack_trade(body: str) -> Trade:
    values = json.loads(body)
    return Trade(*values[:5], *(Decimal(each) for each in values[5:9]), *values[9:])


def _pack_list(each: OrderList) -> str:
    return json.dumps(
        [each.id, each.account, each.symbol, each.client_id, each.order_ids, each.time]
    )


def _unpack_list(body: str) -> OrderList:
    number, account, symbol, client_id, (first, second), time = json.loads(body)
    return OrderList(number, account, symbol, client_id, (first, second), time)
