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
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from weakref import WeakValueDictionary

from filelock import FileLock, Timeout
from pyrate_limiter import Rate, RateItem, SQLiteBucket

from tradelib.errors import RateLimited
from tradelib.traffic.rates import (
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

log = logging.getLogger(__name__)

T = TypeVar("T")

# How long a process waits for another one's fraction of a millisecond.
_LOCK_SECONDS = 1.0
# How long it then counts for itself before it looks at the file again.
_ALONE_SECONDS = 10.0
_TIDY_MS = 10_000
_KEPT_MINUTES = 24 * 60
_LONGEST_CLOSED_MS = 3 * 86_400_000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS pools (
    name TEXT PRIMARY KEY, told INTEGER, closed_until INTEGER NOT NULL DEFAULT 0,
    reason TEXT NOT NULL DEFAULT '', most INTEGER NOT NULL DEFAULT 0,
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


class _Connection(sqlite3.Connection):
    """Buckets commit by themselves; here all that belongs to a request is committed at once."""

    def commit(self) -> None:
        """Left to `_File.write`."""


class _File:
    """The counts of one address, shared by all of this process's clients of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._inode: int | None = None
        self._alone_until = 0.0
        self._has_warned = False
        self._alone: sqlite3.Connection | None = None
        # By connection, of which there is one of the file and one in memory, and table.
        self._buckets: dict[tuple[int, str], SQLiteBucket] = {}

    def __del__(self) -> None:
        self._close()
        if self._alone is not None:
            self._alone.close()

    def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do it in one transaction that no other process comes between."""
        with self._lock:
            if time.monotonic() >= self._alone_until:
                with suppress(sqlite3.Error, OSError, Timeout):
                    return _in_transaction(self._open(), work)
                try:
                    return _in_transaction(self._mend(), work)
                except (sqlite3.Error, OSError, Timeout) as error:
                    self._count_alone(error)
            return _in_transaction(self._open_alone(), work)

    def bucket(self, connection: sqlite3.Connection, pool: str, rate: Rate) -> SQLiteBucket:
        """The bucket of a pool, which allows as much as `rate` says."""
        table = table_of(pool)
        key = id(connection), table
        if key not in self._buckets:
            connection.execute(
                f"CREATE TABLE IF NOT EXISTS '{table}' (name VARCHAR, item_timestamp INTEGER)"
            )
            connection.execute(
                f"CREATE INDEX IF NOT EXISTS 'at_{table}' ON '{table}' (item_timestamp)"
            )
            self._buckets[key] = SQLiteBucket([rate], connection, table)
        self._buckets[key].rates = [rate]
        return self._buckets[key]

    def _open(self) -> sqlite3.Connection:
        """The file's connection; another one where the file is another by now."""
        if self._connection is not None and self._inode != _inode(self.path):
            self._close()
        if self._connection is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = _connect(self.path)
            self._inode = _inode(self.path)
        return self._connection

    def _close(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
        self._connection, self._buckets = None, {}

    def before_fork(self) -> None:
        """SQLite's locks are the process's own, and a child would take them for its own too: a
        fork finds the file closed."""
        self._lock.acquire()
        self._close()

    def after_fork(self) -> None:
        self._lock.release()

    def _mend(self) -> sqlite3.Connection:
        """Open the file once more; one that is no database any more makes way for a new one."""
        self._close()
        with FileLock(self.path.with_suffix(".lock"), timeout=_LOCK_SECONDS):
            try:
                connection = self._open()
                connection.execute("PRAGMA quick_check").fetchall()
                connection.execute("SELECT count(*) FROM pools").fetchall()
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError as error:
                self._warn("%s is damaged (%s); the budget is counted anew.", self.path, error)
                self._close()
                self.path.replace(self.path.with_suffix(".damaged"))
                for suffix in ("-wal", "-shm"):
                    self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
                connection = self._open()
        return connection

    def _count_alone(self, error: Exception) -> None:
        self._warn(
            "The budget in %s cannot be shared now (%s); this process counts for itself.",
            self.path, error,
        )  # fmt: skip
        self._alone_until = time.monotonic() + _ALONE_SECONDS
        self._close()

    def _open_alone(self) -> sqlite3.Connection:
        if self._alone is None:
            self._alone = _connect(":memory:")
        return self._alone

    def _warn(self, words: str, *values: object) -> None:
        if not self._has_warned:
            self._has_warned = True
            log.warning(words, *values)


def _connect(path: Path | str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, timeout=_LOCK_SECONDS, isolation_level=None, check_same_thread=False,
        factory=_Connection,
    )  # fmt: skip
    # Survives the death of a process; after one of the machine, a minute's counts do not matter.
    connection.execute("PRAGMA journal_mode=WAL").fetchall()
    connection.execute("PRAGMA synchronous=OFF").fetchall()
    connection.executescript(_SCHEMA)
    return connection


def _in_transaction(connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
    connection.execute("BEGIN IMMEDIATE")
    try:
        done = work(connection)
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise
    return done


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


_files: WeakValueDictionary[Path, _File] = WeakValueDictionary()
_forking: list[_File] = []


def _before_fork() -> None:
    _forking[:] = _files.values()
    for file in _forking:
        file.before_fork()


def _after_fork() -> None:
    while _forking:
        _forking.pop().after_fork()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)


def _file_of(path: Path) -> _File:
    found = _files.get(path)
    if found is None:
        found = _files[path] = _File(path)
    return found


class Budget:
    """What a client of a venue may ask.

    venue: its name, for messages. pools: what the venue counts. account: a name for whose keys
    are used; pools of accounts are counted by it. patience: seconds that a request may wait.
    """

    def __init__(
        self, file: Path, venue: str, pools: Iterable[Pool], account: str, patience: float
    ) -> None:
        self.venue, self.patience = venue, patience
        self._file = _file_of(file)
        self._pools = {pool.name: pool for pool in pools}
        self._account = account

    def take(self, charges: Mapping[str, int], endpoint: str) -> None:
        """Take units of each pool, or wait for them; RateLimited where that lasts too long.

        Nothing was sent then.
        """
        spender, urgency = current_spender(), current_urgency()
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
            if name in self._pools and used > 0:
                self._file.write(
                    lambda books, name=name, used=used: self._add_others(books, name, used)
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
        """Let no process ask any more for so long, the pool's own time when None; the seconds."""
        pool = self._pools[name]
        wanted = int((seconds if seconds is not None else min(pool.seconds, 60)) * 1000)
        until = now_ms() + min(max(wanted, 0), _LONGEST_CLOSED_MS)

        def write(books: sqlite3.Connection) -> None:
            self._state(books, name)
            books.execute(
                "UPDATE pools SET closed_until = max(closed_until, ?), reason = ? WHERE name = ?",
                (until, reason, self._key(name)),
            )

        self._file.write(write)
        return (until - now_ms()) / 1000

    def _try(
        self, books: sqlite3.Connection, charges: Mapping[str, int],
        who: tuple[Spender, str], urgency: Urgency,
    ) -> Shortage | None:  # fmt: skip
        """Take everything, or nothing at all."""
        now = now_ms()
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
        told, closed_until, reason, tidied = self._state(books, name)
        if closed_until > now:
            return Shortage((closed_until - now) / 1000, reason)
        most = told or pool.limit
        # What fits at all must fit into a share some time.
        allowed = max(int(most * SHARES[urgency]), min(units, most), 1)
        bucket = self._file.bucket(books, self._key(name), Rate(allowed, pool.seconds * 1000))
        if not 0 <= now - tidied < _TIDY_MS:
            self._tidy(books, bucket, name, now)
        if units == 0 or bucket.put(item := RateItem("", now, units)):
            return None
        wait = bucket.waiting(item)
        seconds = pool.seconds if wait < 0 else max(wait, 1) / 1000
        return Shortage(
            seconds, f"the desk has used its share of {most} {name} in {pool.seconds} s"
        )

    def _tidy(self, books: sqlite3.Connection, bucket: SQLiteBucket, name: str, now: int) -> None:
        """Forget what is over, and what a clock that was wrong has put into the future."""
        bucket.leak(now)
        books.execute(f"DELETE FROM '{bucket.table}' WHERE item_timestamp > ?", (now + MINUTE_MS,))
        books.execute("DELETE FROM spent WHERE minute < ?", (now // MINUTE_MS - _KEPT_MINUTES,))
        books.execute("UPDATE pools SET tidied = ? WHERE name = ?", (now, self._key(name)))

    def _add_others(self, books: sqlite3.Connection, name: str, used: int) -> None:
        pool, now = self._pools[name], now_ms()
        told = self._state(books, name)[0]
        most = told or pool.limit
        bucket = self._file.bucket(books, self._key(name), Rate(most, pool.seconds * 1000))
        counted = count_units(books, bucket.table, now - pool.seconds * 1000)
        added = min(used, most) - counted
        if added > 0:
            books.executemany(
                f"INSERT INTO '{bucket.table}' VALUES ('', ?)", [(now,)] * added
            ).close()
            _record(books, OTHERS, name, units=added)

    def _state(self, books: sqlite3.Connection, name: str) -> tuple[int | None, int, str, int]:
        key, pool = self._key(name), self._pools[name]
        query = "SELECT told, closed_until, reason, tidied FROM pools WHERE name = ?"
        row = books.execute(query, (key,)).fetchone()
        if row is None:
            books.execute(
                "INSERT INTO pools (name, most, seconds) VALUES (?, ?, ?)",
                (key, pool.limit, pool.seconds),
            )
            row = (None, 0, "", 0)
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
