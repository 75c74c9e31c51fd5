"""What `desk up` refuses, it refuses before it writes anything."""

import socket
import stat
from pathlib import Path

import pytest

from tests.cli.test_bad_input import assert_refused
from tests.desks import desk_command
from tests.replays import seeded_file
from tradelib.cli.home import prepare_home
from tradelib.cli.markets import seeded_market
from tradelib.clock import utc_now
from tradelib.services.supervisor import Supervisor
from tradelib.trading.bots import load_bots
from tradelib.trading.runs import Outcome, Run, load_run, start_run


def running_run() -> Run:
    return Run(
        id="r1", cycle=None, notebook="test", bot=None, notebook_hash="", venue="paper",
        parameters={}, as_of=None, git_commit=None, git_clean=None, lock_hash=None,
        host=socket.gethostname(), kernel="none", token_hash="", started_at=utc_now(),
    )  # fmt: skip


def test_a_second_desk_is_refused_and_touches_nothing_of_the_first(home):
    first = prepare_home(home, seeded_market(1))
    start_run(first.ledger, running_run())
    told, bots = (home / "desk.toml").read_text(), load_bots(first.ledger)
    with Supervisor(first.settings, []):
        for more in ((), ("--seed", 7)):
            done = desk_command("up", "--cycles", 1, *more, home=home)
            assert_refused(done, "A desk is already running on", "--home")
    assert load_run(first.ledger, "r1").outcome == Outcome.RUNNING
    assert (home / "desk.toml").read_text() == told
    assert load_bots(first.ledger) == bots


def test_a_start_for_a_market_that_has_begun_is_refused(home):
    prepare_home(home, seeded_market(1))
    done = desk_command("up", "--cycles", 1, "--start", "2026-01-01", home=home)
    assert_refused(done, "has begun already", "--home")


def test_a_file_that_follows_no_option_is_refused(home):
    assert_refused(desk_command("up", "candles.csv", home=home), "candles.csv", "--market")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--follow", "binanse"], "did you mean 'binance'"),
        (["--follow", "binance", "--start", "2026-01-01"], "--start"),
        (["--follow", "binance", "--seed", 3], "--seed"),
        (["--follow", "binance", "--symbol", "/USDT"], "BTC/USDT"),
        (["--market", "FILE", "--seed", 3], "--seed"),
        (["--market", "FILE", "--start", "2031-01-01"], "outside of the market's candles"),
        (["--market", "FILE", "--start", "2001-01-01"], "outside of the market's candles"),
        (["--market", "FILE", "--market", "FILE"], "both for BTC/USDT"),
        (["--start", "1066-10-14"], "outside of the market's candles"),
        (["--speed", "nan"], "speed"),
        (["--speed", "1e9"], "speed"),
    ],
)
def test_a_market_that_cannot_be_played_leaves_no_trace(home: Path, arguments, said):
    file = seeded_file(home.parent, hours=2)
    given = [file if argument == "FILE" else argument for argument in arguments]
    done = desk_command("up", *given, home=home)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert list(home.iterdir()) == []


def test_the_folder_of_addresses_and_sockets_is_the_owners_alone(home: Path):
    settings = prepare_home(home, seeded_market(1)).settings
    assert stat.S_IMODE((home / "run").stat().st_mode) == 0o700
    (home / "run").chmod(0o755)  # as an earlier version made it
    with Supervisor(settings, []):
        assert stat.S_IMODE((home / "run").stat().st_mode) == 0o700
