"""The ledger kept, brought back and rebuilt from the command line."""

import json

import pytest
from sqlalchemy import text

from tests.desks import desk_command
from tests.trading.books import all_rows, fill_ledger
from tradelib.settings import load_settings


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
