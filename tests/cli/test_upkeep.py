"""The ledger kept, brought back and rebuilt from the command line."""

import json
from pathlib import Path

import pytest
from sqlalchemy import text

from tests.desks import desk_command, paper_desk
from tests.replays import seeded_file
from tests.trading.books import all_rows, fill_ledger
from tradelib.services.claim import claim_home
from tradelib.settings import load_settings
from tradelib.trading import tables
from tradelib.trading.decisions import Action
from tradelib.trading.orders import load_fills


@pytest.fixture
def ledger(home):
    ledger = fill_ledger(load_settings(home))
    yield ledger
    ledger.close()


def test_a_backup_made_by_command_is_restored_by_command(home, ledger):
    before = all_rows(ledger)
    made = json.loads(desk_command("backup", "--json", home=home).stdout)
    assert made["tables"]["fills"][0] == 3
    with ledger.write() as books:
        books.execute(text("DELETE FROM fills"))
    done = desk_command("restore", made["file"], home=home)
    assert done.returncode == 0, done.stderr
    assert "is kept in" in done.stdout
    assert "fills" in done.stdout
    assert all_rows(ledger) == before


def test_a_backup_goes_where_it_was_asked_for(home, ledger):
    done = desk_command("backup", home / "mine.sqlite", home=home)
    assert "mine.sqlite" in done.stdout
    again = desk_command("backup", home / "mine.sqlite", home=home)
    assert again.returncode == 2
    assert again.stderr.startswith("desk: ")
    assert "exists already" in again.stderr
    told = json.loads(desk_command("restore", home / "mine.sqlite", "--json", home=home).stdout)
    assert told["tables"]["orders"] == [3, 3]


@pytest.mark.parametrize("content", [b"", b"words", b"SQLite format 3\0 and no more"])
def test_what_is_no_backup_is_told_in_one_sentence(home, ledger, content):
    file = home / "x.sqlite"
    file.write_bytes(content)
    done = desk_command("restore", file, home=home)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "the ledger stays as it is" in done.stderr


@pytest.fixture(scope="module")
def traded(tmp_path_factory):
    home = tmp_path_factory.mktemp("desk")
    with paper_desk(home) as desk:
        desk.reconcile()
        desk.trade(Action.BUY)
        yield desk


def test_a_resync_tells_what_it_changes_and_then_changes_it(traded):
    home = traded.settings.home
    with traded.ledger.write() as books:
        books.execute(text("DELETE FROM fills"))
    would = json.loads(desk_command("resync", "--dry-run", "--json", home=home).stdout)
    assert would["counts"]["fills added"] == 1
    assert load_fills(traded.ledger) == []
    done = desk_command("resync", "paper", home=home)
    assert done.returncode == 0, done.stderr
    assert "fills added" in done.stdout
    assert "is kept in" in done.stdout
    (fill,) = load_fills(traded.ledger)
    shown = desk_command("show", fill.trade_id, home=home).stdout
    assert "run run-" in shown
    again = desk_command("resync", home=home).stdout
    assert "nothing differs" in again


def test_an_unknown_venue_is_named(traded):
    done = desk_command("resync", "papr", home=traded.settings.home)
    assert "did you mean 'paper'" in done.stderr


@pytest.mark.parametrize("words", [("resync",), ("restore", "ledger.sqlite")])
def test_nothing_is_rebuilt_while_the_desk_runs(traded, words, tmp_path):
    home, file = traded.settings.home, tmp_path / "ledger.sqlite"
    assert desk_command("backup", file, home=home).returncode == 0
    before = all_rows(traded.ledger)
    with claim_home(traded.settings):
        done = desk_command(words[0], *(file for _ in words[1:]), home=home)
    assert done.returncode == 1
    assert "already running" in done.stderr
    assert all_rows(traded.ledger) == before


@pytest.mark.parametrize("replays", [False, True])
def test_the_desks_own_exchange_is_opened_for_a_resync(home, tmp_path, replays):
    files = [seeded_file(tmp_path, hours=20)] if replays else []
    with paper_desk(home, files=files) as desk:
        desk.reconcile()
        desk.trade(Action.BUY)
        with desk.ledger.write() as books:
            # As `desk up` opens them: the exchange is a service of the desk.
            whose = f"binance service:{desk.market.venue}"
            books.execute(tables.accounts.update().values(identity=whose))
            books.execute(text("DELETE FROM fills"))
        url, venue = desk.paper.url, desk.market.venue
    file = home / "desk.toml"
    file.write_text(file.read_text().replace(url, f"service:{venue}"))
    if replays:
        assert "name the same ones with --market" in desk_command("resync", home=home).stderr
    options = ("--market", files[0]) if replays else ()
    done = desk_command("resync", "--json", *options, home=home)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["counts"]["fills added"] == 1
    assert all(each["before"] == each["after"] for each in told["balances"])


def test_a_home_that_sqlite_cannot_name_is_refused(tmp_path: Path) -> None:
    home = tmp_path / "a?b"
    home.mkdir()
    told = desk_command("status", home=home)
    assert told.returncode == 2
    assert "question mark" in told.stderr
