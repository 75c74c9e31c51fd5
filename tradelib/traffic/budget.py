"""One budget for all of a desk's processes: what each address and account may still ask.

Every request takes its units before it is signed and sent. The counts lie in one SQLite file for
each address, in a pyrate-limiter bucket for each pool; a process that takes holds the file's own
lock for a fraction of a millisecond, and its death frees it. Where the file cannot be used, a
process counts for itself, and the venue's own count, which comes with its answers, still corrects
it.

The clock is the wall's, as it is the venue's own for this: a market that is played has another.
"""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyrate_limiter import Rate, RateItem, SQLiteBucket

from tradelib.errors import RateLimited
from tradelib.traffic.file import shared_file
from tradelib.traffic.rates import (
    BULK_PATIENCE,
    OTHERS,
    SHARES,
    Pool,
    Spender,
    Urgency,
    current_patience,
    current_spender,
    current_urgency,
)
from tradelib.traffic.records import MINUTE_MS, count_units, now_ms, table_of

_TIDY_MS = 10_000
_KEPT_MINUTES = 24 * 60
_LONGEST_CLOSED_MS = 3 * 86_400_000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS pools (
    name TEXT PRIMARY KEY, told INTEGER, closed_until INTEGER NOT NULL DEFAULT 0,
    reason TEXT NOT NULL DEFAULT '', held INTEGER NOT NULL DEFAULT 0,
    most INTEGER NOT NULL DEFAULT 0,
    seconds INTEGER NOT NULL DEFAULT 0, tidied INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS spent (
    minute INTEGER, kind TEXT, run TEXT, bot TEXT, endpoint TEXT, requests INTEGER NOT NULL,
    units INTEGER NOT NULL, refused INTEGER NOT NULL,
    PRIMARY KEY (minute, kind, run, bot, endpoint)
) WITHOUT ROWID;
"""
_RECORD = """
INSERT INTO spent VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET requests = requests + excluded.requests,
    units = units + excluded.units, refused = refused + excluded.refused
"""


@dataclass(frozen=True)
class Shortage:
    """Why a request must wait. seconds: how long."""

    seconds: float
    reason: str


class Budget:
    """What a client of a venue may ask.

    venue: its name, for messages. pools: what the venue counts. account: a name for whose keys
    are used; pools of accounts are counted by it. patience: seconds that a request may wait.
    bulk: long walks, as for the candles of years, leave more to others and wait longer for it.
    """

    def __init__(
        self, file: Path, venue: str, pools: Iterable[Pool], account: str, patience: float,
        *, bulk: bool = False,
    ) -> None:  # fmt: skip
        self.venue, self.patience = venue, BULK_PATIENCE if bulk else patience
        self._usual = Urgency.BULK if bulk else Urgency.ORDINARY
        self._file = shared_file(file, _SCHEMA, "the rate budget")
        self._pools = {pool.name: pool for pool in pools}
        self._account = account

    def take(self, charges: Mapping[str, int], endpoint: str) -> None:
        """Take units of each pool, or wait for them; RateLimited where that lasts too long.

        Nothing was sent then.
        """
        spender, urgency = current_spender(), current_urgency() or self._usual
        begins = time.monotonic()
        own = current_patience()
        patience = self.patience if own is None else min(own, self.patience)
        while True:
            short = self._file.write(
                lambda books: self._try(books, charges, (spender, endpoint), urgency)
            )
            if short is None:
                return
            if time.monotonic() - begins + short.seconds > patience:
                self._file.write(lambda books: _record(books, spender, endpoint, refused=1))
                raise RateLimited(
                    f"Venue {self.venue} is not asked: {short.reason}; "
                    f"come again in {short.seconds:.0f} s.",
                    retry_after=short.seconds,
                )
            time.sleep(short.seconds)

    def learn_used(self, told: Mapping[str, int]) -> None:
        """Take the venue's own counts, which hold what others at the address asked too: where
        they are higher than the desk's, the difference is added."""
        for name, used in told.items():
            if name not in self._pools:
                continue

            def missing(books: sqlite3.Connection, name: str = name, used: int = used) -> int:
                return self._others(books, name, used)

            # Mostly there is nothing to add, and looking keeps nobody from taking.
            if self._file.read(missing) > 0:
                self._file.write(
                    lambda books, name=name, missing=missing: self._add(books, name, missing(books))
                )

    def learn_limits(self, told: Mapping[str, int]) -> None:
        """Take the limits that the venue itself states."""
        known = {name: most for name, most in told.items() if name in self._pools}

        def write(books: sqlite3.Connection) -> None:
            for name, most in known.items():
                self._state(books, name)
                books.execute(
                    "UPDATE pools SET told = ?, most = ? WHERE name = ?",
                    (most, most, self._key(name)),
                )

        if known:
            self._file.write(write)

    def close_gate(self, name: str, seconds: float | None, reason: str) -> float:
        """Let no process ask any more for so long; the seconds.

        None where the venue told no time: the pool's own then, and only for what is not urgent,
        since it may have room again the next moment.
        """
        pool = self._pools[name]
        passes = seconds is None and pool.by_account
        held = Urgency.ORDINARY if passes else max(Urgency)
        wanted = int((seconds if seconds is not None else min(pool.seconds, 60)) * 1000)
        until = now_ms() + min(max(wanted, 0), _LONGEST_CLOSED_MS)

        def write(books: sqlite3.Connection) -> None:
            self._state(books, name)
            books.execute(
                "UPDATE pools SET held = CASE WHEN closed_until > ? THEN max(held, ?) ELSE ? END,"
                " closed_until = max(closed_until, ?), reason = ? WHERE name = ?",
                (now_ms(), held, held, until, reason, self._key(name)),
            )

        self._file.write(write)
        return (until - now_ms()) / 1000

    def _try(
        self, books: sqlite3.Connection, charges: Mapping[str, int],
        who: tuple[Spender, str], urgency: Urgency,
    ) -> Shortage | None:  # fmt: skip
        """Take everything, or nothing at all."""
        now = now_ms()
        for name in charges:
            self._bucket(books, name, 1)  # its table outlives a request that is taken back
        books.execute("SAVEPOINT request")
        for name, units in charges.items():
            short = self._take_one(books, name, units, urgency, now)
            if short is not None:
                books.execute("ROLLBACK TO request")
                return short
        _record(books, *who, requests=1, units=max(charges.values(), default=0))
        return None

    def _take_one(
        self, books: sqlite3.Connection, name: str, units: int, urgency: Urgency, now: int
    ) -> Shortage | None:
        pool = self._pools[name]
        told, closed_until, held, reason, tidied = self._state(books, name)
        if closed_until > now and urgency <= held:
            return Shortage((closed_until - now) / 1000, reason)
        most = told or pool.limit
        # What fits at all must fit into a share some time.
        allowed = max(int(most * SHARES[urgency]), min(units, most), 1)
        bucket = self._bucket(books, name, allowed)
        if not 0 <= now - tidied < _TIDY_MS:
            self._tidy(books, bucket, name, now)
        if units == 0 or bucket.put(item := RateItem("", now, units)):
            return None
        wait = bucket.waiting(item)
        seconds = pool.seconds if wait < 0 else max(wait, 1) / 1000
        return Shortage(
            seconds, f"the desk has used its share of {most} {name} in {pool.seconds} s"
        )

    def _bucket(self, books: sqlite3.Connection, name: str, most: int) -> SQLiteBucket:
        """The bucket of a pool, which allows so many units."""
        table = table_of(self._key(name))
        rate, key = Rate(most, self._pools[name].seconds * 1000), (id(books), table)
        if key not in self._file.attached:
            books.execute(
                f"CREATE TABLE IF NOT EXISTS '{table}' (name VARCHAR, item_timestamp INTEGER)"
            )
            books.execute(f"CREATE INDEX IF NOT EXISTS 'at_{table}' ON '{table}' (item_timestamp)")
            self._file.attached[key] = SQLiteBucket([rate], books, table)
        bucket = self._file.attached[key]
        bucket.rates = [rate]
        return bucket

    def _tidy(self, books: sqlite3.Connection, bucket: SQLiteBucket, name: str, now: int) -> None:
        """Forget what is over, and what a clock that was wrong has put into the future."""
        bucket.leak(now)
        books.execute(f"DELETE FROM '{bucket.table}' WHERE item_timestamp > ?", (now + MINUTE_MS,))
        books.execute("DELETE FROM spent WHERE minute < ?", (now // MINUTE_MS - _KEPT_MINUTES,))
        books.execute("UPDATE pools SET tidied = ? WHERE name = ?", (now, self._key(name)))

    def _others(self, books: sqlite3.Connection, name: str, used: int) -> int:
        """Units that the venue has counted and the desk has not."""
        most = self._state(books, name)[0] or self._pools[name].limit
        table = self._bucket(books, name, most).table
        counted = count_units(books, table, now_ms() - self._pools[name].seconds * 1000)
        return min(used, most) - counted

    def _add(self, books: sqlite3.Connection, name: str, units: int) -> None:
        if units > 0:
            table, now = table_of(self._key(name)), now_ms()
            books.executemany(f"INSERT INTO '{table}' VALUES ('', ?)", [(now,)] * units).close()
            _record(books, OTHERS, name, units=units)

    def _state(self, books: sqlite3.Connection, name: str) -> tuple[Any, ...]:
        key, pool = self._key(name), self._pools[name]
        query = "SELECT told, closed_until, held, reason, tidied FROM pools WHERE name = ?"
        row = books.execute(query, (key,)).fetchone()
        if row is None:
            books.execute(
                "INSERT INTO pools (name, most, seconds) VALUES (?, ?, ?)",
                (key, pool.limit, pool.seconds),
            )
            row = (None, 0, 0, "", 0)
        return row

    def _key(self, name: str) -> str:
        return f"{name} of {self._account}" if self._pools[name].by_account else name


def _record(
    books: sqlite3.Connection, spender: Spender, endpoint: str, *,
    requests: int = 0, units: int = 0, refused: int = 0,
) -> None:  # fmt: skip
    who = (spender.kind, spender.run, spender.bot, endpoint)
    books.execute(_RECORD, (now_ms() // MINUTE_MS, *who, requests, units, refused))


def account_name(key: str | None) -> str:
    """A name for whoever has this key, from which the key cannot be told."""
    return hashlib.sha256(key.encode()).hexdigest()[:8] if key else "nobody"
