"""Bad input at the command line: one clear sentence, a non-zero status, nothing half-written."""

import os
import resource
import socket
import subprocess
import sys

import pytest

from tests.conftest import require
from tests.desks import PaperDesk, desk_command, paper_desk
from tradelib.settings import PROJECT
from tradelib.trading.bots import load_bots
from tradelib.trading.runs import load_runs
from tradelib.venue import save_keys


def assert_refused(done: subprocess.CompletedProcess[str], *said: str) -> None:
    """One line on standard error that says it all, and no traceback."""
    assert done.returncode not in (0, 70), done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    for words in said:
        assert words in done.stderr


@pytest.fixture(scope="module")
def traded(tmp_path_factory):
    with paper_desk(tmp_path_factory.mktemp("desk")) as desk:
        yield desk


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--symbol", "BTC/USTD"], "counts in USDT"),
        (["--symbol", "BTX/USDT"], "did you mean 'BTC/USDT'"),
        (["--symbol", "BTCUSDT"], "write it as BTC/USDT"),
        (["--symbol", "BTC/USDT", "--strategy", "wieghted"], "did you mean 'weighted'"),
        (["--symbol", "BTC/USDT", "--param", "rsi_windw=9"], "did you mean 'rsi_window'"),
        (["--symbol", "BTC/USDT", "--param", "rsi_window=-1"], "rsi_window = -1"),
        (["--symbol", "BTC/USDT", "--param", "rsi_window"], "not of the form name=value"),
        (["--symbol", "BTC/USDT", "--param", "rsi_window=" + "[" * 99_999], "rsi_window"),
        (["--symbol", "BTC/USDT", "--param", "rsi_window=" + "[" * 900 + "]" * 900], "rsi_window"),
        (["--symbol", "BTC/USDT", "--decision", 'stop_loss={"a": 1}'], "stop_loss"),
        (["--symbol", "BTC/USDT", "--param", "rsi_weight=0.1"], "0.9"),
        (["--symbol", "BTC/USDT", "--decision", "stop_los=0.1"], "did you mean 'stop_loss'"),
        (["--symbol", "BTC/USDT", "--timeframe", "7x"], "Unknown timeframe '7x'"),
        (["--symbol", "BTC/USDT", "--timeframe", "7m"], "did you mean '5m'"),
        (["--symbol", "BTC/USDT", "--venue", "papr"], "did you mean 'paper'"),
    ],
)
def test_a_bot_that_cannot_be_is_refused_and_not_added(traded: PaperDesk, arguments, said):
    before = load_bots(traded.ledger)
    done = desk_command("bots", "add", "newcomer", *arguments, home=traded.settings.home)
    assert_refused(done, said)
    assert load_bots(traded.ledger) == before


def test_a_name_that_is_taken_is_refused(traded: PaperDesk):
    name = traded.bot.name
    home = traded.settings.home
    assert_refused(
        desk_command("bots", "add", name, "--symbol", "BTC/USDT", home=home), "exists already"
    )
    assert_refused(desk_command("bots", "start", name[:-1], home=home), f"did you mean '{name}'")


def test_an_unknown_record_is_named(traded: PaperDesk):
    home = traded.settings.home
    assert_refused(desk_command("show", "nd-nothing", home=home), "no order 'nd-nothing'")
    assert_refused(desk_command("show", "nothing", home=home), "no run 'nothing'")


ROWS = "date,open,high,low,close,volume\n"
GOOD = "2026-01-01 0{}:00:00+00:00,1,2,1,2,3\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "There is no candle file"),
        ("", "is empty"),
        (ROWS, "has a header and no rows"),
        ("\x00\x01\x02rubbish", ""),
        (ROWS + "2026-01-01 00:00:00+00:00,1,2,x,2,3\n", "low"),
        (ROWS + GOOD.format(0) + GOOD.format(1) + GOOD.format(1) + GOOD.format(5), "doubled"),
    ],
)
def test_a_broken_market_file_starts_nothing(home, content, said):
    path = home / "x_BTC-USDT_1h.csv"
    if content is not None:
        path.write_text(content)
    done = desk_command("up", "--cycles", 1, "--market", path, home=home)
    assert_refused(done, path.name, said)
    assert not (home / "ledger.sqlite").exists()
    assert not (home / "desk.toml").exists()


def test_gaps_and_doubled_rows_are_both_told(home):
    path = home / "x_BTC-USDT_1h.csv"
    hours = [0, 1, 1, 5]
    path.write_text(ROWS + "".join(GOOD.format(hour) for hour in hours))
    done = desk_command("up", "--cycles", 1, "--market", path, home=home)
    assert_refused(done, "doubled", "missing")


def test_a_wrong_key_fails_the_cycle_with_one_sentence(home):
    assert desk_command("bots", "list", home=home).returncode == 0
    with paper_desk(home) as desk:
        save_keys(home / "keys" / "paper.toml", "wrong", "wrong")
        from tradelib.errors import RunFailed
        from tradelib.notebooks.cycle import reconcile_step, run_step

        with pytest.raises(RunFailed, match="check the venue's keys"):
            run_step(desk.settings, desk.ledger, reconcile_step("paper"), None)
        (run,) = load_runs(desk.ledger)
        assert "AuthenticationFailed" in run.reason
        shown = desk_command("status", home=home).stdout
        assert f"FAILED in the last hour: {run.id}" in shown
        assert "check the venue's keys" in shown


def test_a_home_that_cannot_be_made_is_named(home):
    blocked = home / "file"
    blocked.write_text("")
    assert_refused(desk_command("up", "--cycles", 1, home=blocked / "desk"), str(blocked), "--home")
    assert_refused(desk_command("bots", "list", home=blocked / "desk"), str(blocked), "--home")


def test_a_read_only_home_is_named(home):
    require(os.access("/proc", os.R_OK) and sys.platform == "linux", "needs Linux's /proc")
    assert_refused(desk_command("up", "--cycles", 1, home="/proc/desk"), "/proc/desk", "--home")


def test_a_full_disk_is_told_and_leaves_the_ledger_whole(home):
    assert desk_command("bots", "list", home=home).returncode == 0
    assert desk_command("halt", "before", home=home).returncode == 0
    size = (home / "ledger.sqlite").stat().st_size

    def fill_up():
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    done = subprocess.run(
        [sys.executable, "-m", "tradelib.cli", "resume", "--home", str(home)],
        cwd=PROJECT, capture_output=True, text=True, preexec_fn=fill_up, check=False,
    )  # fmt: skip
    assert_refused(done, "ledger", "disk has room")
    assert (home / "ledger.sqlite").stat().st_size >= size
    assert "before" in desk_command("status", home=home).stdout


def test_a_venue_that_answers_nothing_is_told_in_time(home):
    desk_command("bots", "list", home=home)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        (home / "desk.toml").write_text(
            '[venues.dead]\nexchange = "binance"\ntimeout = 0.3\n'
            f'rest_url = "http://127.0.0.1:{listener.getsockname()[1]}"\n'
        )
        done = desk_command(
            "bots", "add", "b", "--venue", "dead", "--symbol", "BTC/USDT", home=home
        )
    assert_refused(done, "Venue dead could not list its instruments")


def test_the_desk_without_a_home_says_how_to_start(home):
    for command in ("status", "orders", "runs", "positions", "resume", "halt why", "disarm x"):
        assert_refused(desk_command(*command.split(), home=home), "desk up")
    assert list(home.iterdir()) == []


def test_a_venue_that_is_not_there_is_not_disarmed(traded: PaperDesk):
    done = desk_command("disarm", "papr", home=traded.settings.home)
    assert_refused(done, "did you mean 'paper'")


def test_arming_needs_a_person_at_a_terminal(home):
    (home / "desk.toml").write_text('[venues.real]\nexchange = "binance"\n')
    done = subprocess.run(
        [sys.executable, "-m", "tradelib.cli", "arm", "real", "--home", str(home)],
        cwd=PROJECT, input="real\n", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert_refused(done, "terminal")


def test_a_ledger_that_is_damaged_is_told(home):
    (home / "ledger.sqlite").write_bytes(b"this is no database" * 500)
    assert_refused(desk_command("orders", home=home), "ledger.sqlite", "not a database")


def test_an_unknown_exchange_or_setting_is_told(home):
    (home / "desk.toml").write_text('[venues.x]\nexchange = "binanse"\n')
    done = desk_command("bots", "add", "b", "--venue", "x", "--symbol", "BTC/USDT", home=home)
    assert_refused(done, "did you mean 'binance'")
    (home / "desk.toml").write_text("kernls = 3\n")
    assert_refused(desk_command("orders", home=home), "kernls")
    (home / "desk.toml").write_text("kernels = = 3\n")
    assert_refused(desk_command("orders", home=home), "desk.toml", "TOML")


def test_an_unknown_option_is_told_without_a_traceback(home):
    done = desk_command("orders", "--limt", "3", home=home)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_a_number_beyond_all_measure_is_told(home):
    done = desk_command("orders", "--limit", 10**23, home=home)
    assert done.returncode == 2
    assert "--limit" in done.stderr
