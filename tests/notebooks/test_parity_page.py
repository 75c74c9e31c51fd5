"""The page that holds a bot's day against its backtest: run, opened again, and by command."""

import json
from datetime import timedelta

import nbformat
import pytest

from tests.desks import desk_command
from tests.pages import execute_page
from tests.replays import seeded_file
from tradelib.cli.stepped import BotPlan, rehearsal, run_in_process
from tradelib.clock import utc_now
from tradelib.notebooks import open_desk
from tradelib.notebooks.cycle import bots_that_decided, parity_step, run_step
from tradelib.trading.halts import halt_trading, resume_trading
from tradelib.trading.incidents import LIVE_DIFFERS, load_incidents
from tradelib.trading.parity import Cause
from tradelib.trading.runs import Outcome

PLAN = BotPlan(
    "momentum",
    {"window": 5, "full": 1.0},
    {"confirmation_minutes": 0, "cooldown_minutes": 0, "tranche_spacing": 0.0005},
)


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    """A desk that missed two candles and was halted for a while, and the run that checked it."""
    folder = tmp_path_factory.mktemp("parity")
    with rehearsal(folder / "desk", seeded_file(folder, hours=3), PLAN) as desk:
        for candles in (40, 30, 30):
            for _ in run_in_process(desk, candles):
                pass
            desk.step(1)
            halt_trading(desk.ledger, "a test")
        resume_trading(desk.ledger)
        bot = desk.bot
        run = run_step(desk.settings, desk.ledger, parity_step(bot.name, bot.venue, today()), None)
        yield desk, run


def today():
    # Midnight may have passed since the desk decided.
    return (utc_now() - timedelta(minutes=1)).date()


def test_the_page_records_every_gap_with_its_cause(checked):
    desk, run = checked
    assert run.outcome == Outcome.SUCCEEDED
    told = run.result
    assert told["decisions"] == 100
    assert {gap["cause"] for gap in told["gaps"]} == {Cause.TIMING, Cause.REFUSAL}
    assert float(told["residue"]) == 0
    assert len(told["curve"]) == told["candles"] == 102
    (incident,) = [i for i in load_incidents(desk.ledger, open_only=True) if i.kind == LIVE_DIFFERS]
    assert (incident.venue, incident.subject) == (desk.market.venue, desk.bot.name)


def test_the_page_shows_gaps_costs_and_both_curves(checked):
    desk, run = checked
    page = nbformat.read(desk.settings.reports / run.page, as_version=4)
    text = "\n".join(str(cell.get("outputs")) for cell in page.cells)
    for shown in ("parity-costs", "parity-gaps", "NotHalted", "plotly", "backtest", "missed"):
        assert shown in text


def test_opened_again_it_shows_what_the_run_found_and_changes_nothing(checked):
    desk, run = checked
    again = open_desk(run.id, home=desk.settings.home).check_parity("", "", 0.0)
    assert again.to_json() == run.result
    page = nbformat.read(desk.settings.reports / run.page, as_version=4)
    execute_page(page, env={"DESK_HOME": str(desk.settings.home), "PATH": ""})
    assert len(load_incidents(desk.ledger)) == 1


def test_the_bots_of_a_day_are_those_that_decided_on_it(checked):
    desk, _ = checked
    assert bots_that_decided(desk.ledger, today()) == {desk.market.venue: [desk.bot.name]}
    assert bots_that_decided(desk.ledger, today() - timedelta(days=7)) == {}


def test_the_command_tells_the_same_and_its_exit_code_says_so(checked):
    desk, run = checked
    done = desk_command("parity", desk.bot.name, "--json", home=desk.settings.home)
    assert done.returncode == 1
    assert json.loads(done.stdout) == run.result
    shown = desk_command("parity", desk.bot.name, home=desk.settings.home)
    assert shown.returncode == 1
    assert "refusal" in shown.stdout
    assert "NotHalted" in shown.stdout


def test_the_command_refuses_what_it_cannot_compare(checked):
    desk, _ = checked
    home = desk.settings.home
    for arguments, told in (
        ((), "Name a bot, or give --candles"),
        (("nobody",), "Unknown bot 'nobody'"),
        ((desk.bot.name, "--since", "yesterday"), "no span of time"),
        (("--candles", home / "none.csv"), "no candle file"),
    ):
        done = desk_command("parity", *arguments, home=home)
        assert done.returncode == 2
        assert told in done.stderr


def test_the_command_trades_a_files_candles_beside_the_backtest(home, tmp_path):
    file = seeded_file(tmp_path, hours=2)
    lively = ("--decision", "confirmation_minutes=0", "--param", "window=5")
    done = desk_command(
        "parity", "--candles", file, "--count", 40, "--strategy", "momentum", *lively, home=home
    )
    assert done.returncode == 0, done.stderr
    assert "40 candles, 40 decisions" in done.stdout
    assert "live is the backtest" in done.stdout
