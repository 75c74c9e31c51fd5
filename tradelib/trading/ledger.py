"""The ledger: one database that remembers runs, decisions, orders, fills and balances.

Writes happen in `with ledger.write() as books:`: one transaction that holds the database's write
lock from its first statement, so that what was read inside it is still true when it commits. What
a thread reads or writes inside of it is part of it.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from sqlalchemy import (
    ColumnElement,
    Connection,
    CursorResult,
    Engine,
    Executable,
    Insert,
    Result,
    Select,
    SelectBase,
    Table,
    Update,
    bindparam,
    create_engine,
    event,
    func,
    inspect,
    select,
    text,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, OperationalError, SQLAlchemyError

from tradelib.errors import DeskError, InvalidInput, ReadOnly, StorageFailed
from tradelib.settings import DeskSettings

T = TypeVar("T")

SCHEMA_REVISION = "0008"
_WITHOUT_POSITIONS = ("0001", "0002")
LEDGER_NOTE = "ledger.name"
READ_ONLY_ENV = "DESK_READ_ONLY"
_LOCK_WAIT_SECONDS = 30
# How the ledger's own statements begin that are text and write nothing.
_HARMLESS = ("SELECT ", "SET LOCAL ")


class Ledger:
    """A connection pool to one ledger database.

    read_only: nothing can be written through this object. It is forced where the environment
        says DESK_READ_ONLY, as it does for everything that Voilà and JupyterLab start.
    adds: tables to which alone rows can be added, and nothing else be written: for a person in a
        page that is read-only otherwise.
    """

    def __init__(self, url: str, *, read_only: bool = False, adds: Collection[str] = ()) -> None:
        self.read_only = read_only or (os.environ.get(READ_ONLY_ENV) == "1" and not adds)
        self.engine = _make_engine(url, self.read_only)
        self._mine = _OfThread()
        # Threads of one process take turns here: SQLite would let them look again and again.
        self._turns = threading.Lock() if self.engine.dialect.name == "sqlite" else None
        if adds:
            _let_only_add(self.engine, frozenset(adds))
        self._writer = self.engine.execution_options(desk_write=True)

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction under the database's write lock; commits at the end, or not at all.

        Inside another one of the same thread it is a part of that: nothing is committed before
        the outer one ends, and what fails in the inner one takes all of it back.
        """
        if self.read_only:
            raise ReadOnly(
                "This page may read the ledger and never write it; "
                "only scheduled runs and the desk command write."
            )
        mine = self._mine
        if mine.writing is not None:
            try:
                yield mine.writing
            except BaseException:
                mine.has_failed = True
                raise
            return
        with self._turn(), _translated(self.engine), self._writer.begin() as connection:
            if self.engine.dialect.name == "postgresql":
                # One writer at a time, as SQLite has it: limits are checked against what is
                # committed, so two writers must not look at the same moment.
                connection.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_WAIT_SECONDS}s'"))
                connection.execute(text("SELECT pg_advisory_xact_lock(620431)"))
            mine.writing, mine.has_failed = connection, False
            try:
                yield connection
                if mine.has_failed:
                    raise AssertionError("A part of the transaction failed, and so all of it does.")
            finally:
                mine.writing = None

    def require_committed(self) -> None:
        """Refuse to go on inside a transaction: what follows must find it on disk."""
        if self._mine.writing is not None:
            raise AssertionError("A request that depends on the ledger came before its commit.")

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if self._turns is None:
            yield
            return
        if not self._turns.acquire(timeout=_LOCK_WAIT_SECONDS):
            raise StorageFailed(
                f"The ledger {self.engine.url.database} was being written for more than "
                f"{_LOCK_WAIT_SECONDS} s; look for a command that takes long."
            )
        try:
            yield
        finally:
            self._turns.release()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A consistent look at the ledger: one and the same for all that the thread reads inside.
        What it writes meanwhile is only seen afterwards."""
        mine = self._mine
        known = mine.reading if mine.writing is None else mine.writing
        if known is not None:
            yield known
            return
        with _translated(self.engine), self.engine.connect() as connection:
            mine.reading = connection
            try:
                yield connection
            finally:
                mine.reading = None

    def rows(self, query: Executable, kind: type[T]) -> list[T]:
        """The query's rows as values of the dataclass `kind`."""
        with self.read() as connection:
            return rows(connection, query, kind)

    def mappings(self, query: Executable) -> list[Mapping[str, Any]]:
        """The query's rows as read-only mappings by column name."""
        with self.read() as connection:
            return list(connection.execute(query).mappings())

    def close(self) -> None:
        self.engine.dispose()

    def migrate(self) -> None:
        """Bring the database to this version's schema; creates it where there is none."""
        from alembic import command
        from alembic.config import Config

        from tradelib.trading.positions import refold_positions

        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        with self.write() as connection:
            before = _revision(connection)
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            if before in _WITHOUT_POSITIONS:
                refold_positions(connection)

    def check_schema(self) -> None:
        """Raise StorageFailed unless the database has this version's schema."""
        with self.read() as connection:
            found = _revision(connection)
        if found != SCHEMA_REVISION:
            state = f"has schema {found}" if found else "is empty"
            raise StorageFailed(
                f"The ledger {self.engine.url.render_as_string(hide_password=True)} {state}, "
                f"this version needs {SCHEMA_REVISION}; `desk up` or `desk bots list` upgrades it."
            )


class _OfThread(threading.local):
    """The transactions that a thread is in, and whether a part of the one that writes failed."""

    writing: Connection | None = None
    reading: Connection | None = None
    has_failed = False


def open_ledger(
    settings: DeskSettings,
    *,
    read_only: bool = False,
    migrate: bool = False,
    adds: Collection[str] = (),
) -> Ledger:
    """The ledger of a desk; `migrate` creates or upgrades it first. adds: see `Ledger`.

    Raises StorageFailed when the database is missing, unreadable or of another version.
    """
    url = settings.database_url
    require_own_ledger(settings)
    if url.startswith("sqlite") and not migrate:
        _require_file(Path(make_url(url).database or ""))
    elif url.startswith("sqlite"):
        _make_folder(Path(make_url(url).database or "").parent)
    ledger = Ledger(url, read_only=read_only, adds=adds)
    if migrate and not ledger.read_only:
        ledger.migrate()
        _keep_own_ledger(settings)
    ledger.check_schema()
    return ledger


def _revision(connection: Connection) -> str | None:
    """The schema that a database has, None for an empty one."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _identity(settings: DeskSettings) -> str:
    """Which ledger the settings name, without its password."""
    if settings.ledger_url is None:
        return "ledger.sqlite in this folder"
    return make_url(settings.ledger_url).render_as_string(hide_password=True)


def require_own_ledger(settings: DeskSettings) -> None:
    """A home stays with its ledger: a halt set in another one would stop nobody."""
    note = settings.home / LEDGER_NOTE
    with suppress(OSError, ArgumentError, ValueError):
        known = note.read_text(encoding="utf-8").strip()
        if known != _identity(settings):
            raise InvalidInput(
                f"The desk at {settings.home} keeps its ledger in {known}, but the settings name "
                f"{_identity(settings)}; set DESK_LEDGER_URL as it was, "
                f"or delete {note} to change over."
            )


def _keep_own_ledger(settings: DeskSettings) -> None:
    note = settings.home / LEDGER_NOTE
    if not note.exists():
        _make_folder(settings.home)
        note.write_text(_identity(settings) + "\n", encoding="utf-8")
    if settings.ledger_url is None:
        (settings.home / "ledger.sqlite").chmod(0o600)


def insert(connection: Connection, table: Table, value: Any) -> None:
    """Insert a mapping, or a dataclass, whose names are the table's columns."""
    row = value if isinstance(value, Mapping) else as_row(value)
    connection.execute(_insert_into(table), row)


def update(connection: Connection, table: Table, changed: Mapping[str, Any], **which: Any) -> None:
    """Change columns of the rows whose columns equal `which`, none of which is None."""
    keys = {f"{_KEY}{name}": value for name, value in which.items()}
    connection.execute(_update_of(table, tuple(which)), {**changed, **keys})


def find(connection: Connection, table: Table, kind: type[T], **which: Any) -> list[T]:
    """The rows whose columns equal `which`, none of which is None, by primary key, as values of the
    dataclass `kind`."""
    return _as_values(_matching(connection, table, which), kind)


def find_mappings(connection: Connection, table: Table, **which: Any) -> list[Mapping[str, Any]]:
    """The same as mappings by column name."""
    return list(_matching(connection, table, which).mappings())


def _matching(connection: Connection, table: Table, which: Mapping[str, Any]) -> CursorResult[Any]:
    keys = {f"{_KEY}{name}": value for name, value in which.items()}
    return connection.execute(_select_of(table, tuple(which)), keys)


# Built once each: SQLAlchemy takes longer to build a statement than SQLite to carry it out.
_KEY = "key_"


def _is(table: Table, names: Sequence[str]) -> list[ColumnElement[bool]]:
    return [table.c[name] == bindparam(f"{_KEY}{name}") for name in names]


@cache
def _insert_into(table: Table) -> Insert:
    return table.insert()


@cache
def _update_of(table: Table, names: tuple[str, ...]) -> Update:
    return table.update().where(*_is(table, names))


@cache
def _select_of(table: Table, names: tuple[str, ...]) -> Select[Any]:
    return select(table).where(*_is(table, names)).order_by(*table.primary_key.columns)


def as_row(value: Any) -> dict[str, Any]:
    """A dataclass as a row; shallow, since JSON columns hold plain values."""
    return {field.name: getattr(value, field.name) for field in fields(value)}


def rows(
    connection: Connection,
    query: Executable,
    kind: type[T],
    values: Mapping[str, Any] | None = None,
) -> list[T]:
    """The query's rows as values of the dataclass `kind`; other columns are left aside. values:
    of the query's own parameters."""
    return _as_values(connection.execute(query, values), kind)


def _as_values(found: Result[Any], kind: type[T]) -> list[T]:
    places = _places(kind, tuple(found.keys()))
    return [kind(*(row[place] for place in places)) for row in found]


def select_values(column: ColumnElement[Any]) -> Select[Any]:
    """The query for the values of an indexed column, each once, in order, as `value`.

    Each is looked up behind the one before it, so that it takes as many steps as there are
    values, however many rows there are.
    """
    known = select(func.min(column).label("value")).cte("known", recursive=True)
    following = select(func.min(column)).where(column > known.c.value).scalar_subquery()
    known = known.union_all(select(following).where(known.c.value.is_not(None)))
    return select(known.c.value).where(known.c.value.is_not(None))


def first(values: Sequence[T]) -> T | None:
    return values[0] if values else None


@cache
def _places(kind: type, columns: tuple[str, ...]) -> tuple[int, ...]:
    """Where among the columns each field of a dataclass is."""
    return tuple(columns.index(field.name) for field in fields(kind))


def _make_engine(url: str, read_only: bool) -> Engine:
    try:
        if make_url(url).get_backend_name() == "sqlite":
            return _sqlite_engine(url, read_only)
        engine = create_engine(url, pool_pre_ping=True)
    except (ArgumentError, ModuleNotFoundError, ValueError) as error:
        # What the parser says may quote a part of the password.
        raise InvalidInput(
            f"The ledger's URL cannot be used ({type(error).__name__}); write it as "
            "sqlite:////path/ledger.sqlite or postgresql+psycopg://user@host/database, "
            "with what is special in a password percent-encoded."
        ) from None
    if read_only:
        engine = engine.execution_options(postgresql_readonly=True)
    return engine


def _let_only_add(engine: Engine, tables: frozenset[str]) -> None:
    """Refuse every statement but readings and rows that are added to these tables."""

    @event.listens_for(engine, "before_execute")
    def _guard(_connection: Any, statement: Any, *_: Any) -> None:
        adds = isinstance(statement, Insert) and statement.table.name in tables
        reads = isinstance(statement, SelectBase) or str(statement).upper().startswith(_HARMLESS)
        if not adds and not reads:
            raise ReadOnly(
                f"This page may read the ledger, and add rows to {', '.join(sorted(tables))}; "
                "only scheduled runs and the desk command write more."
            )


def _sqlite_engine(url: str, read_only: bool) -> Engine:
    engine = create_engine(url, connect_args={"timeout": _LOCK_WAIT_SECONDS})

    @event.listens_for(engine, "do_connect")
    def _open(_dialect: Any, _record: Any, arguments: list[Any], options: dict[str, Any]) -> None:
        if read_only:
            arguments[0] = f"file:{quote(arguments[0])}?mode=ro"
            options["uri"] = True

    @event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, _record: Any) -> None:
        # The driver's own transaction handling begins deferred, which loses updates between
        # processes; with it off, the begin event below decides.
        connection.isolation_level = None
        connection.execute("PRAGMA foreign_keys=ON")
        if not read_only:
            connection.execute("PRAGMA journal_mode=WAL")
            # An order must be on disk before it is sent, power cut included.
            connection.execute("PRAGMA synchronous=FULL")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        writing = connection.get_execution_options().get("desk_write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")

    return engine


def _require_file(path: Path) -> None:
    if not path.exists():
        raise StorageFailed(f"There is no ledger at {path}; start the desk with `desk up`.")


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageFailed(
            f"The desk's folder {path} cannot be made ({error.strerror}); "
            "choose a writable one with --home or DESK_HOME."
        ) from error


@contextmanager
def _translated(engine: Engine) -> Iterator[None]:
    """Database failures as StorageFailed; what the desk itself raises passes through."""
    try:
        yield
    except DeskError:
        raise
    except OperationalError as error:
        name = engine.url.render_as_string(hide_password=True)
        raise StorageFailed(
            f"The ledger {name} cannot be used ({error.orig}); "
            "check that its disk has room, that it is writable and that its server answers."
        ) from error
    except SQLAlchemyError as error:
        if isinstance(getattr(error, "orig", None), sqlite3.DatabaseError) and not isinstance(
            error.orig, sqlite3.IntegrityError
        ):
            raise StorageFailed(
                f"The ledger {engine.url.database} is damaged ({error.orig}); "
                "move it away and restore a copy."
            ) from error
        raise
