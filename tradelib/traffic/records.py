"""What the budgets' files tell: what is used of each limit now, and who spent how much."""

from __future__ import annotations

import re
import sqlite3
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tradelib.clock import format_time, from_ms

FOLDER = Path("run") / "budget"
CACHE_FILE = Path("run") / "cache" / "cache.sqlite"
MINUTE_MS = 60_000
_LOCK_SECONDS = 1.0


def budget_file(home: Path, identity: str) -> Path:
    """Where the counts of an exchange at an address lie. identity: as venue_identity tells it."""
    return home / FOLDER / (re.sub(r"[^A-Za-z0-9.-]+", "-", identity) + ".sqlite")


def table_of(pool: str) -> str:
    """The table of a pool's units."""
    return "units_" + re.sub(r"\W+", "_", pool)


def count_units(books: sqlite3.Connection, table: str, since: int) -> int:
    """Units taken since a moment (ms)."""
    query = f"SELECT count(*) FROM '{table}' WHERE item_timestamp >= ?"
    return books.execute(query, (since,)).fetchone()[0]


def now_ms() -> int:
    """Not the desk's clock, which a replay sets back."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True)
class PoolUse:
    """How much of one pool is used now. address: the exchange and where; closed_for: seconds."""

    address: str
    pool: str
    used: int
    limit: int
    seconds: int
    closed_for: float = 0.0
    reason: str = ""


@dataclass(frozen=True)
class Spending:
    """What somebody asked of an address. units: of its first pool, weight where it has such."""

    address: str
    kind: str
    run: str
    bot: str
    endpoint: str
    requests: int
    units: int
    refused: int


@dataclass(frozen=True)
class BudgetReport:
    """The budgets of a desk: their pools now, and who spent how much lately."""

    pools: tuple[PoolUse, ...] = ()
    spent: tuple[Spending, ...] = field(default=(), repr=False)


def load_budgets(home: Path, minutes: int = 60, *, by_run: bool = False) -> BudgetReport:
    """Every budget under a home, and what was spent in the last minutes, the most first.

    by_run: a row for each run, else the runs of a kind and bot together.
    """
    pools: list[PoolUse] = []
    spent: list[Spending] = []
    for path in sorted((home / FOLDER).glob("*.sqlite")):
        with suppress(sqlite3.Error):
            books = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=_LOCK_SECONDS)
            try:
                pools += _load_pools(books, path.stem)
                spent += _load_spent(books, path.stem, minutes, by_run)
            finally:
                books.close()
    return BudgetReport(tuple(pools), tuple(sorted(spent, key=lambda one: -one.units)))


def _load_pools(books: sqlite3.Connection, address: str) -> list[PoolUse]:
    now = now_ms()
    found = []
    query = "SELECT name, most, seconds, closed_until, reason FROM pools ORDER BY name"
    for name, most, seconds, closed_until, reason in books.execute(query).fetchall():
        closed_for = max(closed_until - now, 0) / 1000
        table = table_of(name)
        used = 0
        with suppress(sqlite3.OperationalError):  # nothing was taken yet
            used = count_units(books, table, now - seconds * 1000)
        told = reason if closed_for else ""
        found.append(PoolUse(address, name, used, most, seconds, closed_for, told))
    return found


def _load_spent(
    books: sqlite3.Connection, address: str, minutes: int, by_run: bool
) -> list[Spending]:
    run = "run" if by_run else "''"
    query = f"""
        SELECT kind, {run}, bot, endpoint, sum(requests), sum(units), sum(refused) FROM spent
        WHERE minute > ? GROUP BY 1, 2, 3, 4
    """
    rows: list[Any] = books.execute(query, (now_ms() // MINUTE_MS - minutes,)).fetchall()
    return [Spending(address, *row) for row in rows]


@dataclass(frozen=True)
class KeyInfo:
    """One value of the cache. age: seconds since it was asked for; got_at: then, in seconds since
    1970; venue_ms: the venue's time then. size: bytes."""

    key: str
    age: float
    got_at: float
    venue_ms: int | None
    size: int

    @property
    def kind(self) -> str:
        return self.key.partition(":")[0]

    @property
    def venue_time(self) -> str:
        """As text; empty where it was not asked for."""
        return format_time(from_ms(self.venue_ms)) if self.venue_ms is not None else ""


@dataclass(frozen=True)
class CacheUse:
    """What the cache did for one kind of value. calls: questions to the venue; served: those that
    the cache spared; stale: of them, served old while another process asked; waited: served what
    another process had just asked for. age, oldest: mean and greatest age handed out, in s."""

    kind: str
    calls: int
    served: int
    stale: int
    waited: int
    age: float
    oldest: float

    @property
    def hit_rate(self) -> float:
        asked = self.calls + self.served
        return self.served / asked if asked else 0.0


def load_cache_uses(home: Path, minutes: int = 60) -> list[CacheUse]:
    """What the cache of a home did in the last minutes, by kind."""
    query = """
        SELECT kind, sum(calls), sum(served), sum(stale), sum(waited),
            sum(age) / max(sum(served), 1), max(oldest)
        FROM uses WHERE minute > ? GROUP BY kind ORDER BY kind
    """
    path = home / CACHE_FILE
    with suppress(sqlite3.Error):
        books = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=_LOCK_SECONDS)
        try:
            rows = books.execute(query, (now_ms() // MINUTE_MS - minutes,)).fetchall()
        finally:
            books.close()
        return [CacheUse(*row) for row in rows]
    return []
