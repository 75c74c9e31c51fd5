"""What venues told, shared by all processes: asked for once, and never handed out too old.

Values lie in one SQLite file under the desk's home, or in a Redis that several machines share.
dogpile.cache keeps them and lets one process at a time ask; the others are given what is there
while it is young enough, and wait for the new one where it is not. Each value carries when it was
asked for, by the wall's clock and by the venue's, and is judged by both: a market that is stepped
or runs faster than the wall makes a value old at once.

Where the cache cannot be used, the venue is asked.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from dogpile.cache import make_region, register_backend
from dogpile.cache.api import NO_VALUE, BytesBackend
from dogpile.lock import Lock, NeedRegenerationException
from filelock import FileLock, Timeout

from tradelib.errors import InvalidInput, RefusedError, RetryableError, StorageFailed
from tradelib.traffic.file import SharedFile, shared_file
from tradelib.traffic.records import CACHE_FILE, MINUTE_MS, KeyInfo, now_ms

log = logging.getLogger(__name__)

Fetch = Callable[[list[str]], Mapping[str, Any]]

_PREFIX = "notedesk:"
_KEPT_SECONDS = 2 * 86_400
_KEPT_MINUTES = 24 * 60
# How long a process waits for another one that asks the venue.
_FLIGHT_SECONDS = 5.0
# How long a process that died keeps a Redis's others from asking.
_REDIS_LOCK_SECONDS = 30.0
# Names are asked for with others for so long after somebody wanted them.
_LATELY = 300.0
_WANTED = "+wanted"
# Clocks of machines that share a cache may differ so much.
_CLOCKS_SECONDS = 1.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    key TEXT PRIMARY KEY, value BLOB NOT NULL, at REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS uses (
    minute INTEGER, kind TEXT, calls INTEGER NOT NULL, served INTEGER NOT NULL,
    stale INTEGER NOT NULL, waited INTEGER NOT NULL, age REAL NOT NULL, oldest REAL NOT NULL,
    PRIMARY KEY (minute, kind)
) WITHOUT ROWID;
"""
_RECORD = """
INSERT INTO uses VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET calls = calls + excluded.calls, served = served + excluded.served,
    stale = stale + excluded.stale, waited = waited + excluded.waited,
    age = age + excluded.age, oldest = max(oldest, excluded.oldest)
"""


@dataclass(frozen=True)
class Entry:
    """What a venue told. value: as JSON has it, None where it has nothing of the name. got_at:
    seconds since 1970 right before it was asked; venue_ms: the venue's own time then, None where
    it was not asked for that; came_at: when the answer was there."""

    value: Any
    got_at: float
    venue_ms: int | None
    came_at: float


@dataclass(frozen=True)
class Terms:
    """How old a value may be that is handed out.

    fresh: seconds since the answer after which somebody asks anew; longest: seconds since the
    question after which nobody is given the old value any more. venue_ms: the venue's time now;
    with it, values are judged by that as well.
    """

    fresh: float
    longest: float
    venue_ms: int | None = None

    def accept(self, entry: Entry) -> bool:
        return -_CLOCKS_SECONDS <= self.age(entry) <= self.longest

    def is_fresh(self, entry: Entry) -> bool:
        return self.accept(entry) and time.time() - entry.came_at <= self.fresh

    def age(self, entry: Entry) -> float:
        """Seconds, by the clock that makes it older; of a value without the venue's time where
        that counts, or from ahead of it, more than any."""
        by_wall = time.time() - entry.got_at
        if self.venue_ms is None:
            return by_wall
        if entry.venue_ms is None or entry.venue_ms > self.venue_ms + self.longest * 1000:
            return float("inf")
        return max(by_wall, (self.venue_ms - entry.venue_ms) / 1000)


class SharedCache:
    """One desk's cache.

    url: of a Redis ('redis://host:6379/0'); None for the file under the home.
    """

    def __init__(self, home: Path, url: str | None = None) -> None:
        self._file = shared_file(home / CACHE_FILE, _SCHEMA, "the cache")
        self._region = make_region(serializer=_dump, deserializer=json.loads)
        if url is None:
            self._region.configure("tradelib.shared_file", arguments={"file": self._file})
        else:
            self._region.configure("dogpile.cache.redis", arguments=_redis_arguments(url))
        self._is_redis, self._has_warned = url is not None, False

    def get(
        self, kind: str, group: str, names: Sequence[str], fetch: Fetch, terms: Terms,
        *, together: bool = False,
    ) -> dict[str, Entry]:  # fmt: skip
        """Values by name, from the cache or from `fetch`, which is given the names to ask for.

        group: whose values they are; one process at a time asks for a kind of a group. together:
        one question may be about many names, so that those of the group that others want are
        asked for with them. An answer that took longer than values may be old is asked for once
        more, and then handed out: its age is for the caller to judge. Raises what `fetch` raises.
        """
        return _Flight(self, (kind, group), tuple(names), fetch, terms, together).land()

    def put(
        self, kind: str, group: str, values: Mapping[str, Any], *,
        got_at: float | None = None, venue_ms: int | None = None,
    ) -> None:  # fmt: skip
        """Write what came without being asked for, as a stream's events do; older than what is
        there, it is left out."""
        at = time.time() if got_at is None else got_at
        fresh = {name: Entry(value, at, venue_ms, at) for name, value in values.items()}
        self._guarded(lambda: self.save((kind, group), fresh))

    def list_keys(self) -> list[KeyInfo]:
        """What is kept, by key."""
        with self._told_plainly():
            names = sorted(self._names())
            told = self._region.get_multi(names, ignore_expiration=True) if names else []
        found = zip(names, told, strict=True)
        return [
            _info(name, *entry)
            for name, entry in found
            if entry is not NO_VALUE and not name.endswith(f":{_WANTED}")
        ]

    def clear(self, pattern: str) -> list[str]:
        """Forget the keys that match, as 'quotes:*'; their names without the prefix."""
        with self._told_plainly():
            going = [name for name in self._names() if fnmatchcase(_plain(name), pattern)]
            if going:
                self._region.delete_multi(going)
        return sorted(map(_plain, going))

    def load(self, where: tuple[str, str], names: Iterable[str]) -> dict[str, Entry]:
        names = list(names)
        told = self._region.get_multi([_key(where, name) for name in names], ignore_expiration=True)
        found = zip(names, told, strict=True)
        return {name: Entry(*value) for name, value in found if value is not NO_VALUE}

    def save(self, where: tuple[str, str], entries: Mapping[str, Entry]) -> None:
        known = self.load(where, entries)
        newer = {
            _key(where, name): [entry.value, entry.got_at, entry.venue_ms, entry.came_at]
            for name, entry in entries.items()
            if name not in known or entry.got_at >= known[name].got_at
        }
        if newer:
            self._region.set_multi(newer)

    def mutex(self, where: tuple[str, str]) -> Any:
        return _Mutex(self._region.actual_backend.get_mutex(_key(where, "")))

    def record(self, kind: str, calls: int, ages: Sequence[float], how: str) -> None:
        """Note one question: whether the venue was asked, else how it was spared."""
        served = int(not calls)
        row = (
            now_ms() // MINUTE_MS, kind, calls, served, int(how == "stale"), int(how == "waited"),
            max(ages, default=0.0) if served else 0.0, max(ages, default=0.0),
        )  # fmt: skip

        def write(books: sqlite3.Connection) -> None:
            books.execute(_RECORD, row)
            if calls:
                books.execute("DELETE FROM uses WHERE minute < ?", (row[0] - _KEPT_MINUTES,))

        self._file.write(write)

    def warn(self, error: Exception) -> None:
        if not (self._has_warned or self._file.has_warned):
            self._has_warned = True
            log.warning("The cache cannot be used (%s); the venue is asked each time.", error)

    @contextmanager
    def _told_plainly(self) -> Iterator[None]:
        """For a person, who asks about the cache itself."""
        try:
            yield
        except Exception as error:
            raise StorageFailed(
                f"The cache cannot be read ({type(error).__name__}); start the Redis that "
                "desk.toml names under [cache], or leave its url out."
            ) from error

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # whatever a backend raises, what it would have kept is known
            self.warn(error)

    def _names(self) -> list[str]:
        if self._is_redis:
            client = self._region.actual_backend.reader_client
            return [name.decode() for name in client.scan_iter(f"{_PREFIX}*:*:*")]
        query = "SELECT key FROM entries"
        return self._file.read(lambda books: [row[0] for row in books.execute(query).fetchall()])


class _Flight:
    """One question to the cache."""

    def __init__(
        self, cache: SharedCache, where: tuple[str, str], names: tuple[str, ...],
        fetch: Fetch, terms: Terms, together: bool,
    ) -> None:  # fmt: skip
        self._cache, self._where, self._names = cache, where, names
        self._fetch, self._terms, self._together = fetch, terms, together
        self._calls, self._how = 0, ""
        self._failure: BaseException | None = None

    def land(self) -> dict[str, Entry]:
        try:
            mutex = self._cache.mutex(self._where)
            with Lock(mutex, self._create, self._look, self._terms.fresh) as found:
                pass
        except Exception as error:
            if error is self._failure:
                raise
            self._cache.warn(error)
            return self._ask(self._names)
        late = [name for name, entry in found.items() if not self._terms.accept(entry)]
        if late:
            found |= self._ask(late)
        ages = [max(self._terms.age(entry), 0.0) for entry in found.values()]
        if not self._calls and not self._how and not all(map(self._terms.is_fresh, found.values())):
            self._how = "stale"
        self._cache._guarded(
            lambda: self._cache.record(self._where[0], self._calls, ages, self._how)
        )
        return found

    def _is_complete(self, found: Mapping[str, Entry]) -> bool:
        return all(name in found and self._terms.accept(found[name]) for name in self._names)

    def _look(self) -> tuple[dict[str, Entry], float]:
        """What is there; dogpile waits for a new value where it is not good enough."""
        found = self._cache.load(self._where, self._names)
        if not self._is_complete(found):
            self._how = "waited"
            raise NeedRegenerationException
        return found, min(entry.came_at for entry in found.values())

    def _create(self) -> tuple[dict[str, Entry], float]:
        """What this process asks for, while the others do not."""
        found = self._cache.load(self._where, self._names)
        missing = [
            name for name in self._names
            if name not in found or not self._terms.is_fresh(found[name])
        ]  # fmt: skip
        try:
            new = self._ask_together(missing) if missing else {}
        except RetryableError:
            if not self._is_complete(found):
                raise
            return found, time.time()  # old, and still good
        self._cache._guarded(lambda: self._cache.save(self._where, new))
        return {name: (found | new)[name] for name in self._names}, time.time()

    def _ask_together(self, missing: Sequence[str]) -> dict[str, Entry]:
        """Values of these names, and of those that others wanted lately, where that costs no
        question more."""
        if not self._together:
            return self._ask(missing)
        now = time.time()
        before = self._cache.load(self._where, [_WANTED]).get(_WANTED)
        wanted = {n: at for n, at in (before.value if before else {}).items() if at > now - _LATELY}
        others = sorted(wanted.keys() - set(missing))
        wanted |= dict.fromkeys(self._names, now)
        try:
            new = self._ask([*missing, *others])
        except RefusedError:
            if not others:
                raise
            # One of them may be listed no more; who wants it will be told.
            new, wanted = self._ask(missing), dict.fromkeys(self._names, now)
        return new | {_WANTED: Entry(wanted, now, None, now)}

    def _ask(self, names: Sequence[str]) -> dict[str, Entry]:
        began = time.time()
        try:
            told = self._fetch(list(names))
        except BaseException as error:
            self._failure = error
            raise
        self._calls += 1
        came_at, venue_ms = time.time(), self._terms.venue_ms
        return {name: Entry(told.get(name), began, venue_ms, came_at) for name in names}


class FileBackend(BytesBackend):
    """dogpile's values in a file that processes share."""

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        self._file: SharedFile = arguments["file"]

    def get_mutex(self, key: str) -> Any:
        return _FileMutex(self._file.path.with_name(f"cache-{_hash(key) % 64}.lock"))

    def get_serialized(self, key: str) -> Any:
        return self.get_serialized_multi([key])[0]

    def get_serialized_multi(self, keys: Sequence[str]) -> list[Any]:
        places = ", ".join("?" * len(keys))
        query = f"SELECT key, value FROM entries WHERE key IN ({places})"
        found = dict(self._file.read(lambda books: books.execute(query, list(keys)).fetchall()))
        return [found.get(key, NO_VALUE) for key in keys]

    def set_serialized(self, key: str, value: bytes) -> None:
        self.set_serialized_multi({key: value})

    def set_serialized_multi(self, mapping: Mapping[str, bytes]) -> None:
        now = time.time()

        def write(books: sqlite3.Connection) -> None:
            rows = [(key, value, now) for key, value in mapping.items()]
            books.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?, ?)", rows)
            books.execute("DELETE FROM entries WHERE at < ?", (now - _KEPT_SECONDS,))

        self._file.write(write)

    def delete(self, key: str) -> None:
        self.delete_multi([key])

    def delete_multi(self, keys: Iterable[str]) -> None:
        rows = [(key,) for key in keys]
        self._file.write(
            lambda books: books.executemany("DELETE FROM entries WHERE key = ?", rows).close()
        )


register_backend("tradelib.shared_file", "tradelib.traffic.cache", "FileBackend")


class _Mutex:
    """Who asks the venue. dogpile goes on where it waited in vain; here it is told."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def acquire(self, wait: bool = True) -> bool:
        is_mine = bool(self._inner.acquire(wait))
        if wait and not is_mine:
            raise TimeoutError(f"another process has asked for {_FLIGHT_SECONDS:g} s")
        return is_mine

    def release(self) -> None:
        with suppress(Exception):  # one of Redis may have run out meanwhile
            self._inner.release()


class _FileMutex:
    """A lock that goes with its process."""

    def __init__(self, path: Path) -> None:
        self._lock = FileLock(path, thread_local=False)

    def acquire(self, wait: bool = True) -> bool:
        try:
            self._lock.acquire(timeout=_FLIGHT_SECONDS if wait else 0, poll_interval=0.01)
        except Timeout:
            return False
        return True

    def release(self) -> None:
        self._lock.release()


def _redis_arguments(url: str) -> dict[str, Any]:
    try:
        import redis
    except ImportError as error:
        raise InvalidInput(
            "The cache's url names a Redis, for which the package redis is needed; "
            "install notedesk[redis], or leave the url out."
        ) from error
    try:
        redis.ConnectionPool.from_url(url)
    except ValueError:
        raise InvalidInput(
            "The cache's url is none of a Redis; it looks like redis://host:6379/0."
        ) from None
    return {
        "url": url,
        "distributed_lock": True,
        "thread_local_lock": False,
        "lock_timeout": _REDIS_LOCK_SECONDS,
        "lock_blocking_timeout": _FLIGHT_SECONDS,
        "lock_sleep": 0.01,
        "redis_expiration_time": _KEPT_SECONDS,
        "socket_timeout": 2.0,
    }


def _dump(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _key(where: tuple[str, str], name: str) -> str:
    return f"{_PREFIX}{where[0]}:{where[1]}:{name}"


def _plain(key: str) -> str:
    return key.removeprefix(_PREFIX)


def _hash(text: str) -> int:
    """The same in every process, unlike Python's own."""
    return int.from_bytes(text.encode()) % 2_147_483_647


def _info(key: str, value: Any, got_at: float, venue_ms: int | None, came_at: float) -> KeyInfo:
    return KeyInfo(_plain(key), round(time.time() - got_at, 3), got_at, venue_ms, len(_dump(value)))
