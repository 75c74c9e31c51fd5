"""A small SQLite file that a desk's processes share, and that may fail without harm: what it holds
can be counted or fetched anew."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from filelock import FileLock, Timeout

log = logging.getLogger(__name__)

T = TypeVar("T")

# How long a process waits for another one's fraction of a millisecond.
LOCK_SECONDS = 1.0
# How long it then keeps to itself before it looks at the file again.
_ALONE_SECONDS = 10.0


class _Connection(sqlite3.Connection):
    """A library may commit by itself; here all that belongs together is committed at once."""

    def commit(self) -> None:
        """Left to `SharedFile.write`."""


class SharedFile:
    """One file, shared by all in this process that use it.

    schema: statements that make its tables where they are not there. what: it holds, for messages.
    attached: what users keep for a connection, by its id and a name; forgotten with it.
    """

    def __init__(self, path: Path, schema: str, what: str) -> None:
        self.path = path
        self.attached: dict[tuple[int, str], Any] = {}
        self._schema, self._what = schema, what
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._inode: int | None = None
        self._alone_until = 0.0
        self.has_warned = False
        self._alone: sqlite3.Connection | None = None

    def __del__(self) -> None:
        self._close()
        if self._alone is not None:
            self._alone.close()

    def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do it in one transaction that no other process comes between."""
        return self._do(lambda connection: self._in_transaction(connection, work))

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do it without keeping anybody from writing."""
        return self._do(work)

    def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """With the file, else with one of this process's own."""
        with self._lock:
            if time.monotonic() >= self._alone_until:
                with suppress(sqlite3.Error, OSError, Timeout):
                    return work(self._open())
                try:
                    return work(self._mend())
                except (sqlite3.Error, OSError, Timeout) as error:
                    self._go_alone(error)
            return work(self._open_alone())

    def _open(self) -> sqlite3.Connection:
        """The file's connection; another one where the file is another by now."""
        if self._connection is not None and self._inode != _inode(self.path):
            self._close()
        if self._connection is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = _connect(self.path, self._schema)
            self._inode = _inode(self.path)
        return self._connection

    def _close(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
        self._connection, self.attached = None, {}

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
        with FileLock(self.path.with_suffix(".lock"), timeout=LOCK_SECONDS):
            try:
                connection = self._open()
                connection.execute("PRAGMA quick_check").fetchall()
                connection.execute("SELECT * FROM sqlite_schema").fetchall()
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError as error:
                self._warn("%s is damaged (%s); %s begins anew.", self.path, error, self._what)
                self._close()
                self.path.replace(self.path.with_suffix(".damaged"))
                for suffix in ("-wal", "-shm"):
                    self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
                connection = self._open()
        return connection

    def _go_alone(self, error: Exception) -> None:
        self._warn(
            "%s cannot be shared in %s now (%s); this process keeps its own.",
            self._what, self.path, error,
        )  # fmt: skip
        self._alone_until = time.monotonic() + _ALONE_SECONDS
        self._close()

    def _open_alone(self) -> sqlite3.Connection:
        if self._alone is None:
            self._alone = _connect(":memory:", self._schema)
        return self._alone

    def _in_transaction(
        self, connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]
    ) -> T:
        connection.execute("BEGIN IMMEDIATE")
        try:
            done = work(connection)
            connection.execute("COMMIT")
        except BaseException:
            self.attached.clear()  # tables that were made are not there
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise
        return done

    def _warn(self, words: str, *values: object) -> None:
        if not self.has_warned:
            self.has_warned = True
            log.warning(words, *values)


def _connect(path: Path | str, schema: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, timeout=LOCK_SECONDS, isolation_level=None, check_same_thread=False,
        factory=_Connection,
    )  # fmt: skip
    # Survives the death of a process; after one of the machine, nothing in it matters.
    connection.execute("PRAGMA journal_mode=WAL").fetchall()
    connection.execute("PRAGMA synchronous=OFF").fetchall()
    connection.executescript(schema)
    return connection


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


_files: WeakValueDictionary[Path, SharedFile] = WeakValueDictionary()
_forking: list[SharedFile] = []


def _before_fork() -> None:
    _forking[:] = _files.values()
    for file in _forking:
        file.before_fork()


def _after_fork() -> None:
    while _forking:
        _forking.pop().after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork
    )


def shared_file(path: Path, schema: str, what: str) -> SharedFile:
    found = _files.get(path)
    if found is None:
        found = _files[path] = SharedFile(path, schema, what)
    return found
