"""Backups: the whole ledger in one portable file, and back again, all of it or nothing.

A backup is an SQLite ledger of its own, whatever database it was taken from: the tables of the
schema it was made at, with every row as the database stores it, and beside them the table
`backup`, which tells how many rows each table has and a digest over them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

import psutil
from sqlalchemy import (
    JSON,
    Connection,
    Text,
    bindparam,
    cast,
    column,
    create_engine,
    func,
    inspect,
    select,
    table,
    text,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from tradelib.clock import format_time, parse_time, utc_now
from tradelib.errors import DeskError, InvalidInput, RefusedError, StorageFailed
from tradelib.services.addresses import load_services
from tradelib.services.claim import claim_home
from tradelib.settings import DeskSettings
from tradelib.trading import tables
from tradelib.trading.halts import TradingState
from tradelib.trading.ledger import Ledger, open_ledger, require_own_ledger

CHUNK = 1000  # rows in memory at a time
FORMAT = 1
_MIGRATIONS = Path(__file__).parent / "migrations"
_NOT_ROWS = ("alembic_version", "backup")
_MAGIC = b"SQLite format 3\0"

# Told now and then how many rows are done, of how many.
Tell = Callable[[int, int], None]


def tell_nobody(done: int, of: int) -> None:
    """For those who do not watch."""


@dataclass(frozen=True)
class Contents:
    """What the tables of one ledger hold. tables: number of rows and their digest, by name."""

    revision: str
    made_at: datetime
    tables: dict[str, tuple[int, str]]

    @property
    def rows(self) -> int:
        return sum(count for count, _ in self.tables.values())


@dataclass(frozen=True)
class Backup:
    """A backup in a file."""

    file: Path
    contents: Contents


@dataclass(frozen=True)
class Restored:
    """What a restore did. saved: the backup of the ledger that was there before, None where there
    was none. tables: number of rows before and after, by name. notes: what is not as it was when
    the backup was made, and why."""

    backup: Backup
    saved: Path | None
    tables: dict[str, tuple[int, int]]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Shape:
    """One table as it is copied: the names of its columns, and which of them hold JSON."""

    name: str
    columns: tuple[str, ...]
    json: frozenset[str]


@dataclass
class _Tally:
    """Counts rows and sums up their hashes, so that neither order nor database matters."""

    count: int = 0
    total: int = 0

    def add(self, rows: Iterable[tuple[Any, ...]]) -> None:
        for row in rows:
            told = repr(row).encode("utf-8", "surrogatepass")
            self.total += int.from_bytes(hashlib.sha256(told).digest(), "big")
            self.count += 1

    @property
    def word(self) -> tuple[int, str]:
        return self.count, format(self.total % 2**256, "064x")


@dataclass
class _Progress:
    """Adds up what is done for whoever watches."""

    tell: Tell
    of: int
    done: int = field(default=0)

    def add(self, rows: int) -> None:
        self.done += rows
        self.tell(self.done, self.of)


# Making one


def default_file(settings: DeskSettings, kind: str = "ledger") -> Path:
    """Where a backup goes that nobody named: sorted by time in the home's own folder."""
    folder = settings.home / "backups"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _remove_leftovers(folder)
    except OSError as error:
        raise _unwritable(folder, error) from error
    return folder / f"{kind}-{utc_now():%Y%m%dT%H%M%S.%f}Z.sqlite"


def back_up_desk(
    settings: DeskSettings, file: Path | None = None, tell: Tell = tell_nobody
) -> Backup:
    """Back a desk's ledger up, also while it trades, and also one of an older version."""
    require_own_ledger(settings)
    path = _sqlite_path(settings)
    if path and not path.exists():
        raise StorageFailed(f"There is no ledger at {path}; start the desk with `desk up`.")
    with closing(Ledger(settings.database_url, read_only=True)) as ledger:
        return back_up(ledger, file or default_file(settings), tell)


def back_up(ledger: Ledger, file: Path, tell: Tell = tell_nobody) -> Backup:
    """Copy the ledger, as it stands at one moment, into a new file.

    The file appears under its name once it is whole and on the disk.
    """
    if file.exists():
        raise InvalidInput(f"{file} exists already; choose another name for the backup.")
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        with _snapshot(ledger) as books:
            contents = _copy_out(books, part, tell)
        _sync(part)
        part.replace(file)
        _sync(file.parent)
    except (OSError, sqlite3.Error) as error:
        raise _unwritable(file, error) from error
    finally:
        _remove_database(part)
    return Backup(file, contents)


@contextmanager
def _snapshot(ledger: Ledger) -> Iterator[Connection]:
    """One moment of the ledger, whatever is written meanwhile."""
    with ledger.read() as books:
        if books.dialect.name == "postgresql":
            books.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        yield books


def _copy_out(books: Connection, part: Path, tell: Tell) -> Contents:
    revision = _revision_of(books)
    with closing(_open_plainly(part)) as copy:
        _make_schema(part, revision)
        shapes = _shapes(part)
        progress = _Progress(tell, sum(_count(books, shape) for shape in shapes))
        copy.execute("PRAGMA synchronous = OFF")  # it is synced once, at the end
        copy.execute("BEGIN")
        found = {shape.name: _copy_table(books, copy, shape, progress) for shape in shapes}
        contents = Contents(revision, utc_now(), found)
        _write_contents(copy, contents)
        copy.execute("COMMIT")
        # A file in WAL mode cannot be read from where nothing can be written.
        copy.execute("PRAGMA journal_mode = DELETE")
    return contents


def _copy_table(
    books: Connection, copy: sqlite3.Connection, shape: _Shape, progress: _Progress
) -> tuple[int, str]:
    names = ", ".join(f'"{name}"' for name in shape.columns)
    places = ", ".join("?" * len(shape.columns))
    tally = _Tally()
    for rows in _read(books, shape):
        copy.executemany(f'INSERT INTO "{shape.name}" ({names}) VALUES ({places})', rows)
        tally.add(rows)
        progress.add(len(rows))
    return tally.word


def _write_contents(copy: sqlite3.Connection, contents: Contents) -> None:
    told = json.dumps(contents.tables)
    copy.execute(
        "CREATE TABLE backup (format INTEGER, revision TEXT, made_at TEXT, tables TEXT,"
        " digest TEXT)"
    )
    made_at = format_time(contents.made_at)
    digest = _digest(contents.revision, made_at, told)
    copy.execute(
        "INSERT INTO backup VALUES (?, ?, ?, ?, ?)",
        (FORMAT, contents.revision, made_at, told, digest),
    )


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


# Looking at one


def check_backup(file: Path) -> Backup:
    """A backup that is whole: every page, every count and every row. Changes nothing.

    Raises InvalidInput that says what the file is instead.
    """
    _require_sqlite(file)
    try:
        with _reading(file) as copy:
            return Backup(file, _check_contents(file, copy))
    except (SQLAlchemyError, sqlite3.Error, ValueError, TypeError, KeyError) as error:
        raise _damaged(file, str(getattr(error, "orig", None) or error)) from error


def _require_sqlite(file: Path) -> None:
    try:
        if file.is_dir():
            raise InvalidInput(f"{file} is a folder; name a backup in it.")
        with file.open("rb") as opened:
            start = opened.read(len(_MAGIC))
    except FileNotFoundError:
        raise InvalidInput(f"There is no backup {file}.") from None
    except OSError as error:
        raise InvalidInput(f"The backup {file} cannot be read ({error.strerror}).") from error
    if not start:
        raise InvalidInput(f"{file} is empty and no backup; the ledger stays as it is.")
    if start != _MAGIC:
        raise InvalidInput(f"{file} is no backup of a ledger; the ledger stays as it is.")


def _check_contents(file: Path, copy: Connection) -> Contents:
    sound = copy.exec_driver_sql("PRAGMA integrity_check(1)").scalar()
    if sound != "ok":
        raise _damaged(file, str(sound))
    if not inspect(copy).has_table("backup"):
        raise InvalidInput(
            f"{file} is an SQLite file but no backup made by `desk backup`; "
            "the ledger stays as it is."
        )
    contents = _read_contents(file, copy)
    _compare(contents, _tally_all(copy, _shapes_of(copy)), file)
    dangling = copy.exec_driver_sql("PRAGMA foreign_key_check").first()
    if dangling:
        raise InvalidInput(
            f"The backup {file} is of a broken ledger: a row of {dangling[0]} belongs to one of "
            f"{dangling[2]} that is missing; the ledger stays as it is."
        )
    return contents


def _read_contents(file: Path, copy: Connection) -> Contents:
    row = copy.exec_driver_sql(
        "SELECT format, revision, made_at, tables, digest FROM backup"
    ).one_or_none()
    if row is None or row.digest != _digest(row.revision, row.made_at, row.tables):
        raise _damaged(file, "its list of contents was changed")
    if row.format > FORMAT or row.revision not in _known_revisions():
        raise InvalidInput(
            f"The backup {file} was made by a newer version of the desk (schema {row.revision}); "
            "restore it with that version."
        )
    told = {name: (int(count), str(digest)) for name, (count, digest) in
            json.loads(row.tables).items()}  # fmt: skip
    return Contents(row.revision, parse_time(row.made_at), told)


def _compare(wanted: Contents, found: dict[str, tuple[int, str]], file: Path) -> None:
    for name in sorted({*wanted.tables, *found}):
        was, now = wanted.tables.get(name), found.get(name)
        if was is None or now is None:
            raise _damaged(file, f"table {name} is {'missing' if was else 'no part of it'}")
        if was[0] != now[0]:
            raise _damaged(file, f"table {name} has {now[0]} rows of {was[0]}")
        if was != now:
            raise _damaged(file, f"rows of table {name} were changed")


def _damaged(file: Path, how: str) -> InvalidInput:
    return InvalidInput(
        f"The backup {file} is damaged ({how}); the ledger stays as it is, restore another one."
    )


# Bringing one back


@contextmanager
def desk_at_rest(settings: DeskSettings) -> Iterator[None]:
    """Keep a desk from starting for as long as the block lasts; RefusedError while it runs."""
    with claim_home(settings):
        try:
            load_services(settings)
        except DeskError:
            yield
            return
        raise RefusedError(f"The desk on {settings.home} runs; stop it first.")


def restore_desk(settings: DeskSettings, file: Path, tell: Tell = tell_nobody) -> Restored:
    """Put a backup in the place of a desk's ledger, which is backed up first.

    Nothing changes unless the whole backup is in place and was read back from there. Three facts
    of the present outlive it: a halt in force, an arming that ended, and fencing tokens. A desk
    that has traded is halted until its books are rebuilt.
    """
    require_own_ledger(settings)
    asked = check_backup(file)
    with desk_at_rest(settings), _in_this_version(asked) as source:
        path = _sqlite_path(settings)
        if path and not _is_sound(path):
            done = _restore_afresh(settings, path, source, tell)
        else:
            done = _restore_over(settings, source, tell)
        open_ledger(settings, migrate=True).close()
    return Restored(asked, done.saved, done.tables, done.notes)


@contextmanager
def _in_this_version(backup: Backup) -> Iterator[Backup]:
    """The backup, or a copy of it that was brought to this version's schema."""
    if backup.contents.revision == _known_revisions()[0]:
        yield backup
        return
    with TemporaryDirectory(prefix="desk-restore-") as folder:
        copy = Path(folder) / "ledger.sqlite"
        shutil.copyfile(backup.file, copy)
        with closing(Ledger(f"sqlite:///{copy}")) as ledger:
            ledger.migrate()
            with ledger.read() as books:
                found = _tally_all(books, _shapes_of(books))
        yield Backup(copy, Contents(_known_revisions()[0], backup.contents.made_at, found))


def _restore_over(settings: DeskSettings, source: Backup, tell: Tell) -> Restored:
    """Into the database that is there, in one transaction."""
    with closing(Ledger(settings.database_url)) as ledger:
        saved = None
        if _has_schema(ledger):
            saved = back_up(ledger, default_file(settings)).file
        ledger.migrate()
        before, notes = _replace_rows(ledger, source, tell)
    return Restored(source, saved, before, notes)


def _restore_afresh(settings: DeskSettings, path: Path, source: Backup, tell: Tell) -> Restored:
    """In the place of an SQLite file that is missing or cannot be used, by renaming."""
    saved = _keep_damaged(settings, path) if path.exists() else None
    fresh = path.with_name(f"{path.name}.restoring")
    _remove_database(fresh)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        with closing(Ledger(f"sqlite:///{fresh}")) as ledger:
            ledger.migrate()
            before, notes = _replace_rows(ledger, source, tell)
        _remove_database(path, but_itself=True)  # a journal of the old file would ruin the new one
        _sync(fresh)
        fresh.replace(path)
        _sync(path.parent)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        _remove_database(fresh)
    if saved:
        notes = (*notes, "The ledger was damaged: a halt set after the backup is not known.")
    return Restored(source, saved, before, notes)


def _keep_damaged(settings: DeskSettings, path: Path) -> Path:
    """A copy of a file that cannot be read as a ledger, as it is, with its journal."""
    kept = default_file(settings, "damaged-ledger")
    try:
        for suffix in ("", "-wal"):
            if path.with_name(path.name + suffix).exists():
                shutil.copy2(path.with_name(path.name + suffix), f"{kept}{suffix}")
                os.chmod(f"{kept}{suffix}", 0o600)
    except OSError as error:
        raise _unwritable(kept, error) from error
    return kept


def _replace_rows(
    ledger: Ledger, source: Backup, tell: Tell
) -> tuple[dict[str, tuple[int, int]], tuple[str, ...]]:
    """Every row of the ledger by those of the backup; numbers of rows before and after, and what
    of the present was kept."""
    progress = _Progress(tell, source.contents.rows)
    with _reading(source.file) as copy, ledger.write() as books:
        require_nobody_trading(books)
        kept, shapes = _Present.read(books), _shapes_of(copy)
        before = {shape.name: _count(books, shape) for shape in shapes}
        for shape in reversed(shapes):
            books.execute(_table(shape).delete())
        for shape in shapes:
            _copy_in(copy, books, shape, progress)
        _set_sequences(books, shapes)
        _compare(source.contents, _tally_all(books, shapes), source.file)
        notes = (*kept.enforce(books), *_halt_until_resync(books))
    after = {name: count for name, (count, _) in source.contents.tables.items()}
    return {name: (before[name], after[name]) for name in before}, notes


def _halt_until_resync(books: Connection) -> tuple[str, ...]:
    """What was traded since the backup is not in it: a decision made then must not be made, and
    ordered, once more."""
    if books.execute(select(tables.accounts.c.venue).limit(1)).first() is None:
        return ()
    reason = "restored from a backup: run `desk resync` for each venue, then `desk resume`"
    books.execute(
        tables.halts.insert().values(reason=reason, at=utc_now(), state=TradingState.HALTED)
    )
    return (f"Trading is halted: {reason}.",)


def _copy_in(copy: Connection, books: Connection, shape: _Shape, progress: _Progress) -> None:
    statement = _insert(shape, books.dialect.name)
    for rows in _read(copy, shape):
        books.execute(statement, [dict(zip(shape.columns, row, strict=True)) for row in rows])
        progress.add(len(rows))


def _insert(shape: _Shape, dialect: str) -> Any:
    """Texts go in as they are; only PostgreSQL must be told that one is JSON."""
    values: dict[str, Any] = {name: bindparam(name) for name in shape.columns}
    if dialect == "postgresql":
        values |= {name: cast(bindparam(name, type_=Text), JSON) for name in shape.json}
    return _table(shape).insert().values(values)


def _set_sequences(books: Connection, shapes: Iterable[_Shape]) -> None:
    """PostgreSQL counts ids apart from the rows and would give out those restored once more."""
    if books.dialect.name != "postgresql":
        return
    known = tables.metadata.tables
    for name in (shape.name for shape in shapes if shape.name in known):
        counted = known[name].autoincrement_column
        if counted is not None:
            books.execute(
                text(
                    f"SELECT setval(pg_get_serial_sequence('{name}', '{counted.name}'),"
                    f" (SELECT coalesce(max({counted.name}), 0) + 1 FROM {name}), false)"
                )
            )


def require_nobody_trading(books: Connection) -> None:
    """A ledger on a server may be another machine's too; a home's own is guarded by its lock."""
    if books.dialect.name != "postgresql":
        return
    held = books.execute(
        select(tables.leases).where(tables.leases.c.expires_at > utc_now()).limit(1)
    ).first()
    if held:
        raise RefusedError(
            f"The {held.name} is being traded by {held.holder}; stop that desk first, "
            f"or try again after {held.expires_at:%T}Z."
        )


@dataclass(frozen=True)
class _Present:
    """What no backup takes back: halts in force, how long venues are armed, tokens given out."""

    halts: tuple[Any, ...]
    armed: dict[str, datetime]
    leases: tuple[Any, ...]

    @classmethod
    def read(cls, books: Connection) -> _Present:
        halts = books.execute(select(tables.halts).where(tables.halts.c.resumed_at.is_(None)))
        armings = books.execute(select(tables.armings.c.venue, tables.armings.c.until))
        leases = books.execute(select(tables.leases))
        return cls(tuple(halts), {row.venue: row.until for row in armings}, tuple(leases))

    def enforce(self, books: Connection) -> tuple[str, ...]:
        self._keep_tokens(books)
        return (*self._keep_halts(books), *self._keep_disarmed(books))

    def _keep_tokens(self, books: Connection) -> None:
        """A token that was given out once must never be new again."""
        for held in self.leases:
            known = books.execute(
                select(tables.leases.c.token).where(tables.leases.c.name == held.name)
            ).scalar()
            if known is None or known < held.token:
                books.execute(tables.leases.delete().where(tables.leases.c.name == held.name))
                books.execute(tables.leases.insert().values(**held._mapping))

    def _keep_halts(self, books: Connection) -> Iterator[str]:
        for halt in self.halts:
            same = (tables.halts.c.at == halt.at, tables.halts.c.resumed_at.is_(None))
            if books.execute(select(tables.halts.c.id).where(*same)).first() is None:
                values = {name: value for name, value in halt._mapping.items() if name != "id"}
                books.execute(tables.halts.insert().values(**values))
                yield f"Trading stays {halt.state.lower()}: {halt.reason}"

    def _keep_disarmed(self, books: Connection) -> Iterator[str]:
        armings = tables.armings
        for row in books.execute(select(armings)).all():
            until = self.armed.get(row.venue)
            if until is None:
                books.execute(armings.delete().where(armings.c.venue == row.venue))
                if row.until > utc_now():
                    yield f"Venue {row.venue} is not armed; `desk arm {row.venue}` arms it."
            elif until < row.until:
                books.execute(
                    armings.update().where(armings.c.venue == row.venue).values(until=until)
                )


# Tables and rows


def _table(shape: _Shape) -> Any:
    return table(shape.name, *(column(name) for name in shape.columns))


def _read(connection: Connection, shape: _Shape) -> Iterator[list[tuple[Any, ...]]]:
    """The rows as the database stores them, a chunk at a time."""
    chosen = [
        cast(column(name), Text) if name in shape.json else column(name) for name in shape.columns
    ]
    query = select(*chosen).select_from(_table(shape))
    result = connection.execute(query, execution_options={"yield_per": CHUNK})
    for rows in result.partitions():
        yield [tuple(row) for row in rows]


def _count(connection: Connection, shape: _Shape) -> int:
    return connection.execute(select(func.count()).select_from(_table(shape))).scalar_one()


def _tally_all(connection: Connection, shapes: Iterable[_Shape]) -> dict[str, tuple[int, str]]:
    found = {}
    for shape in shapes:
        tally = _Tally()
        for rows in _read(connection, shape):
            tally.add(rows)
        found[shape.name] = tally.word
    return found


def _shapes(file: Path) -> list[_Shape]:
    with _reading(file, finished=False) as copy:
        return _shapes_of(copy)


def _shapes_of(copy: Connection) -> list[_Shape]:
    """The ledger's tables in a file, each after those that it refers to."""
    found = inspect(copy)
    names = [name for name, _ in found.get_sorted_table_and_fkc_names() if name]
    return [_shape(found, name) for name in names if name not in _NOT_ROWS]


def _shape(found: Any, name: str) -> _Shape:
    columns = found.get_columns(name)
    json_columns = frozenset(one["name"] for one in columns if isinstance(one["type"], JSON))
    return _Shape(name, tuple(one["name"] for one in columns), json_columns)


# Schemas


def _migrations() -> Any:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    return config


def _known_revisions() -> list[str]:
    """The schemas that this version knows, newest first."""
    from alembic.script import ScriptDirectory

    return [one.revision for one in ScriptDirectory.from_config(_migrations()).walk_revisions()]


def _revision_of(books: Connection) -> str:
    name = books.engine.url.render_as_string(hide_password=True)
    if not inspect(books).has_table("alembic_version"):
        raise StorageFailed(f"The ledger {name} is empty; there is nothing to back up.")
    found = books.execute(text("SELECT version_num FROM alembic_version")).scalar()
    if found not in _known_revisions():
        raise StorageFailed(
            f"The ledger {name} has schema {found}, which this version does not know; "
            "use the version of the desk that wrote it."
        )
    return found


def _has_schema(ledger: Ledger) -> bool:
    with ledger.read() as books:
        return inspect(books).has_table("alembic_version")


def _make_schema(file: Path, revision: str) -> None:
    """Empty tables as that revision has them."""
    from alembic import command

    config, engine = _migrations(), create_engine(f"sqlite:///{file}", poolclass=NullPool)
    with engine.begin() as books:
        config.attributes["connection"] = books
        command.upgrade(config, revision)


# Files


@contextmanager
def _reading(file: Path, *, finished: bool = True) -> Iterator[Connection]:
    """A file to read; one that is `finished` is not even locked."""
    name = f"file:{quote(str(file.absolute()))}?mode=ro{'&immutable=1' if finished else ''}"
    engine = create_engine(
        "sqlite://", creator=lambda: sqlite3.connect(name, uri=True), poolclass=NullPool
    )
    with engine.connect() as copy:
        yield copy


def _open_plainly(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(file, isolation_level=None)


def _sqlite_path(settings: DeskSettings) -> Path | None:
    """The ledger's file; None where it is on a server."""
    url = make_url(settings.database_url)
    return Path(url.database or "") if url.get_backend_name() == "sqlite" else None


def _is_sound(path: Path) -> bool:
    """Whether an SQLite file is there and whole."""
    if not path.exists() or path.stat().st_size == 0:
        return False
    try:
        with closing(_open_plainly(path)) as opened:
            return opened.execute("PRAGMA integrity_check(1)").fetchone() == ("ok",)
    except sqlite3.OperationalError as error:
        raise StorageFailed(f"The ledger {path} cannot be used ({error}).") from error
    except sqlite3.DatabaseError:
        return False


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove_database(file: Path, *, but_itself: bool = False) -> None:
    for suffix in ("-wal", "-shm", "-journal", *(() if but_itself else ("",))):
        with suppress(FileNotFoundError):
            file.with_name(file.name + suffix).unlink()


def _remove_leftovers(folder: Path) -> None:
    """Unfinished backups of processes that were killed."""
    for part in folder.glob(".*.part*"):
        pid = part.name.rpartition(".part")[0].rpartition(".")[2]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            part.unlink(missing_ok=True)


def _unwritable(path: Path, error: Exception) -> StorageFailed:
    reason = getattr(error, "strerror", None) or error
    return StorageFailed(
        f"{path} cannot be written ({reason}); make room, or choose a writable folder."
    )
