"""The ledger loses nothing, rounds nothing, and says what is wrong with it."""

import multiprocessing
import threading
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import select

from tradelib.errors import InvalidInput, StorageFailed
from tradelib.settings import load_settings
from tradelib.trading import tables
from tradelib.trading.accounts import Balance, find_balance, save_balance
from tradelib.trading.halts import active_halt, halt_trading, resume_trading
from tradelib.trading.ledger import Ledger, open_ledger

NOW = datetime(2026, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)


@pytest.fixture
def ledger(home):
    opened = open_ledger(load_settings(home), migrate=True)
    yield opened
    opened.close()


def test_the_migrations_make_the_schema_that_the_code_uses(ledger):
    with ledger.read() as books:
        assert compare_metadata(MigrationContext.configure(books), tables.metadata) == []


def test_migrating_twice_changes_nothing(ledger):
    ledger.migrate()
    ledger.check_schema()


def test_every_digit_of_money_and_time_comes_back(ledger):
    amount = Decimal("123456789012345678.123456789012345678")
    elsewhere = NOW.astimezone(timezone(timedelta(hours=5, minutes=30)))
    with ledger.write() as books:
        save_balance(books, Balance("v", "BTC", amount, Decimal("1E-8"), Decimal(0), elsewhere))
    with ledger.read() as books:
        found = find_balance(books, "v", "BTC")
    assert (found.booked, found.free, found.as_of) == (amount, Decimal("0.00000001"), NOW)
    assert found.as_of.tzinfo is UTC or found.as_of.utcoffset() == timedelta(0)


@pytest.mark.parametrize("bad", [1.5, Decimal("NaN"), Decimal("Infinity"), "1"])
def test_what_is_no_money_is_not_written(ledger, bad):
    with pytest.raises(Exception, match="finite Decimal"), ledger.write() as books:
        save_balance(books, Balance("v", "BTC", bad, Decimal(0), Decimal(0), NOW))


def test_a_transaction_that_fails_leaves_nothing_behind(ledger):
    def stop_half_way():
        with ledger.write() as books:
            save_balance(books, Balance("v", "BTC", Decimal(1), Decimal(0), Decimal(0), NOW))
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        stop_half_way()
    with ledger.read() as books:
        assert find_balance(books, "v", "BTC") is None


def add_ones(url: str, times: int) -> None:
    """Read and add one, so many times, as four processes do at once."""
    ledger = Ledger(url)
    for _ in range(times):
        with ledger.write() as books:
            found = find_balance(books, "v", "BTC")
            save_balance(
                books,
                Balance("v", "BTC", found.booked + 1, Decimal(0), Decimal(0), found.as_of),
            )


def assert_no_update_is_lost(ledger: Ledger, url: str) -> None:
    with ledger.write() as books:
        save_balance(books, Balance("v", "BTC", Decimal(0), Decimal(0), Decimal(0), NOW))
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=add_ones, args=(url, 25)) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0, 0]
    with ledger.read() as books:
        assert find_balance(books, "v", "BTC").booked == 100


def test_writers_in_four_processes_lose_no_update(ledger):
    assert_no_update_is_lost(ledger, str(ledger.engine.url))


def halted(ledger):
    halt = active_halt(ledger)
    return halt and halt.reason


def test_what_is_written_inside_a_transaction_is_part_of_it(ledger):
    other = Ledger(str(ledger.engine.url))
    with ledger.write():
        halt_trading(ledger, "look")
        assert halted(ledger) == "look", "its own thread sees it"
        assert halted(other) is None
        with pytest.raises(AssertionError, match="before its commit"):
            ledger.require_committed()
    assert halted(other) == "look"
    ledger.require_committed()


def test_a_part_that_fails_takes_the_whole_transaction_back(ledger):
    def write_both() -> None:
        with ledger.write():
            halt_trading(ledger, "look")
            with suppress(ZeroDivisionError), ledger.write():
                raise ZeroDivisionError

    with pytest.raises(AssertionError, match="all of it"):
        write_both()
    assert halted(ledger) is None
    halt_trading(ledger, "again")
    assert halted(ledger) == "again"


def test_all_that_is_read_inside_a_look_is_of_one_moment(ledger):
    other = Ledger(str(ledger.engine.url))
    with ledger.read() as books:
        assert books.execute(select(tables.halts)).all() == []
        halt_trading(other, "meanwhile")
        assert halted(ledger) is None
    assert halted(ledger) == "meanwhile"


def test_another_threads_transaction_is_its_own(ledger):
    began, seen = threading.Event(), threading.Event()

    def write() -> None:
        with ledger.write():
            halt_trading(ledger, "look")
            began.set()
            assert seen.wait(10)

    writing = threading.Thread(target=write)
    writing.start()
    try:
        assert began.wait(10)
        assert halted(ledger) is None
    finally:
        seen.set()
        writing.join()
    assert halted(ledger) == "look"


def test_a_halt_keeps_its_first_reason_and_survives_a_restart(ledger, home):
    halt_trading(ledger, "first")
    assert halt_trading(ledger, "second").reason == "first"
    again = open_ledger(load_settings(home))
    assert active_halt(again).reason == "first"
    assert resume_trading(again)
    assert active_halt(ledger) is None
    assert not resume_trading(ledger)


def test_a_halt_needs_a_reason(ledger):
    with pytest.raises(InvalidInput, match="needs a reason"):
        halt_trading(ledger, "  ")


def test_an_unreadable_halt_counts_as_set(ledger):
    with ledger.write() as books:
        books.execute(tables.halts.delete())
        books.exec_driver_sql("DROP TABLE halts")
    assert "cannot be read" in active_halt(ledger).reason


def test_a_ledger_of_another_version_is_named(ledger, home):
    with ledger.write() as books:
        books.exec_driver_sql("UPDATE alembic_version SET version_num = '0000'")
    with pytest.raises(StorageFailed, match="has schema 0000, this version needs"):
        open_ledger(load_settings(home))


def test_a_url_that_is_none_is_refused(home, monkeypatch):
    monkeypatch.setenv("DESK_LEDGER_URL", "postgres:/nonsense")
    with pytest.raises(InvalidInput, match="ledger's URL cannot be used"):
        open_ledger(load_settings(home))


def test_a_url_that_cannot_be_parsed_shows_no_password(home, monkeypatch):
    monkeypatch.setenv("DESK_LEDGER_URL", "postgresql+psycopg://user:s3cr@t:hunter2@host/db")
    with pytest.raises(InvalidInput, match="cannot be used") as caught:
        open_ledger(load_settings(home), migrate=True)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_home_stays_with_its_ledger(ledger, home, monkeypatch):
    monkeypatch.setenv("DESK_LEDGER_URL", f"sqlite:///{home / 'other.sqlite'}")
    with pytest.raises(InvalidInput, match="keeps its ledger in"):
        open_ledger(load_settings(home), migrate=True)
    assert not (home / "other.sqlite").exists()


def test_the_ledger_is_its_owners_alone(ledger, home):
    assert (home / "ledger.sqlite").stat().st_mode & 0o077 == 0


def test_rows_come_back_as_the_dataclass_asked_for(ledger):
    @dataclass(frozen=True)
    class Reason:
        reason: str

    halt_trading(ledger, "x")
    assert ledger.rows(select(tables.halts), Reason) == [Reason("x")]
