"""`desk candles` on a desk with a paper exchange."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import timedelta

import pytest

from tests.desks import desk_command, paper_desk
from tradelib.candles.store import CandleStore
from tradelib.settings import PROJECT

SYMBOLS = ("BTC/USDT", "ETH/USDT")


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    with paper_desk(tmp_path_factory.mktemp("desk")) as opened:
        yield opened


@pytest.fixture(scope="module")
def since(desk):
    return (desk.venue().fetch_time() - timedelta(days=20)).isoformat()


@pytest.fixture
def home(desk, tmp_path):
    """A home of its own on the same exchange, without candles."""
    (tmp_path / "desk.toml").write_text((desk.settings.home / "desk.toml").read_text())
    shutil.copytree(desk.settings.home / "keys", tmp_path / "keys")
    return tmp_path


def told(home, *arguments):
    done = desk_command("candles", *arguments, "--json", home=home)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_backfill_brings_all_symbols_and_the_next_asks_for_nothing(home, since):
    arguments = ("backfill", "paper", *SYMBOLS, "--since", since, "--jobs", "2")
    reports = told(home, *arguments)
    assert [one["symbol"] for one in reports] == list(SYMBOLS)
    assert {(one["added"], one["missing"], one["error"]) for one in reports} == {(28_800, 0, None)}
    assert {(one["requests"], one["added"]) for one in told(home, *arguments)} == {(0, 0)}
    listed = told(home)
    assert [(one["symbol"], one["candles"], one["open_gaps"]) for one in listed] == [
        (symbol, 28_800, []) for symbol in SYMBOLS
    ]
    shown = told(home, "show", "paper", "BTC/USDT")
    assert (shown["candles"], shown["changes"]) == (28_800, [])


def test_a_backfill_that_is_killed_goes_on_where_it_was(home, since):
    command = [sys.executable, "-m", "tradelib.cli", "candles", "backfill", "paper", "BTC/USDT",
               "--since", since]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=PROJECT, env={**os.environ, "DESK_HOME": str(home)}, start_new_session=True
    )
    series, store = ("paper", "BTC/USDT", "1m"), CandleStore(home / "candles")
    while process.poll() is None and not len(stored := store.load(*series)):
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait(20) == -signal.SIGKILL
    before = len(stored := store.load(*series))
    assert 0 < before < 28_800
    (report,) = told(home, "backfill", "paper", "BTC/USDT", "--since", since)
    assert report["added"] == 28_800 - before
    assert report["requests"] <= -(-(28_800 - before) // 1000) + 1
    assert store.load(*series).iloc[-before:].equals(stored)
    assert store.missing(*series, stored.index[0] - timedelta(minutes=28_800 - before),
                         stored.index[-1]) == []  # fmt: skip


def test_compacting_leaves_the_candles_as_they_are(home, since):
    told(home, "backfill", "paper", "BTC/USDT", "--since", since)
    store = CandleStore(home / "candles")
    whole = store.load("paper", "BTC/USDT", "1m")
    (result,) = told(home, "compact", "paper")
    assert result["files_after"] <= result["files_before"]
    assert store.load("paper", "BTC/USDT", "1m").equals(whole)
    assert "series" in desk_command("candles", "compact", home=home).stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("backfill", "papper", "BTC/USDT", "--since", "2026-01-01"), "did you mean 'paper'"),
        (("backfill", "paper", "BTC/USTD", "--since", "2026-01-01"), "did you mean 'BTC/USDT'"),
        (("backfill", "paper", "BTC/USDT", "--since", "yesterday"), "--since 'yesterday'"),
        (("backfill", "paper", "BTC/USDT", "--since", "2999-01-01"), "begin earlier"),
        (("backfill", "paper", "BTC/USDT", "--since", "2026-01-01", "--timeframe", "7m"), "7m"),
        (("show", "paper", "BTC/USDT", "--timeframe", "1h"), "paper BTC/USDT 1h"),
        (("compact", "papper"), "papper"),
    ],
)
def test_a_wrong_word_is_told_in_one_sentence(home, arguments, words):
    done = desk_command("candles", *arguments, home=home)
    assert done.returncode == 2
    assert words.lower() in done.stderr.lower()
    assert done.stderr.count("\n") == 1


def test_tables_name_what_is_there(home, since):
    assert "backfill" in desk_command("candles", home=home).stdout
    desk_command("candles", "backfill", "paper", "BTC/USDT", "--since", since, home=home)
    assert "28,800" in desk_command("candles", home=home).stdout
    shown = desk_command("candles", "show", "paper", "BTC/USDT", home=home).stdout
    assert "No candle is missing." in shown
    assert "No candle was changed" in shown
