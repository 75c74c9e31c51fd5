"""The desk command on a desk that has traded."""

import json
import os
import pty
import subprocess
import sys
from decimal import Decimal

import pytest

from tests.desks import PaperDesk, desk_command, paper_desk
from tradelib.settings import PROJECT
from tradelib.trading.arming import read_arming
from tradelib.trading.bots import BotStatus, load_bot, load_bots
from tradelib.trading.decisions import Action
from tradelib.trading.halts import active_halt
from tradelib.trading.runs import Outcome, finish_run


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    with paper_desk(tmp_path_factory.mktemp("desk")) as opened:
        opened.reconcile()
        opened.trade(Action.BUY)
        yield opened


def run(desk: PaperDesk, *arguments: object):
    done = desk_command(*arguments, home=desk.settings.home)
    assert done.returncode == 0, done.stderr
    return done.stdout


def told(desk: PaperDesk, *arguments: object):
    return json.loads(run(desk, *arguments, "--json"))


def test_a_bot_is_added_stopped_changed_started_and_stopped(desk):
    run(desk, "bots", "add", "calm", "--symbol", "ETH/USDT", "--param", "rsi_window=21")
    bot = load_bot(desk.ledger, "calm")
    assert (bot.status, bot.parameters["rsi_window"]) == (BotStatus.STOPPED, 21)
    run(desk, "bots", "edit", "calm", "--decision", "stop_loss=0.05", "--timeframe", "5m")
    bot = load_bot(desk.ledger, "calm")
    assert (bot.decision["stop_loss"], bot.timeframe) == (0.05, "5m")
    assert bot.parameters["rsi_window"] == 21
    run(desk, "bots", "start", "calm")
    assert load_bot(desk.ledger, "calm").status == BotStatus.RUNNING
    run(desk, "bots", "stop", "calm")
    assert load_bot(desk.ledger, "calm").status == BotStatus.STOPPED
    assert {bot["name"] for bot in told(desk, "bots", "list")} == {
        bot.name for bot in load_bots(desk.ledger)
    }


def test_orders_fills_and_positions_tell_the_same_trade(desk):
    (order,) = told(desk, "orders")
    fills = [fill for fill in told(desk, "fills") if fill["client_id"] == order["client_id"]]
    amount = sum(Decimal(fill["amount"]) for fill in fills)
    fees = sum(Decimal(fill["fee"]) for fill in fills)
    assert Decimal(order["filled"]) == amount > 0
    held = {row["bot"]: row for row in told(desk, "positions")}[order["bot"]]
    assert Decimal(held["amount"]) == amount - fees
    assert held["status"] == "OPEN"
    (purchase,) = held["tranches"]
    assert (purchase["entry"], purchase["left"]) == (order["client_id"], held["amount"])
    assert "Purchase of" in run(desk, "positions")
    for command in ("orders", "fills", "positions", "runs", "logs", "status"):
        run(desk, command)
    assert order["client_id"] in run(desk, "orders")


def test_show_leads_from_any_record_to_the_same_decision(desk):
    (order,) = told(desk, "orders")
    fill = told(desk, "fills")[0]
    ids = [
        order["client_id"],
        order["decision"],
        f"{fill['venue']}/{fill['symbol']}/{fill['trade_id']}",
    ]
    assert {told(desk, "show", record)["decision"]["id"] for record in ids} == {order["decision"]}
    assert order["decision"] in run(desk, "show", order["client_id"])


def test_a_halt_is_shown_until_it_is_lifted(desk):
    run(desk, "halt", "spread looks [odd]")
    assert active_halt(desk.ledger).reason == "spread looks [odd]"
    assert told(desk, "status")["halt"] == "spread looks [odd]"
    assert "spread looks [odd]" in run(desk, "status")
    assert "goes on" in run(desk, "resume")
    assert "no halt" in run(desk, "resume")


def test_a_reason_is_shown_as_it_was_written(desk):
    failed = desk.decide(Action.HOLD).run
    finish_run(desk.ledger, failed, Outcome.FAILED, reason="no room in [/srv/desk] :warning:")
    assert "no room in [/srv/desk] :warning:" in run(desk, "runs")
    assert failed in run(desk, "show", failed)


def test_runs_are_filtered_and_one_is_told_in_full(desk):
    found = told(desk, "runs")
    bot = desk.bot.name
    assert [one for one in found if one["bot"] == bot] == told(desk, "runs", "--bot", bot)
    assert told(desk, "runs", "--outcome", "running", "--limit", 1)[0]["outcome"] == "RUNNING"
    assert told(desk, "runs", "--notebook", "test") == found
    (run_id,) = {one["run"] for one in told(desk, "orders")}
    record = run(desk, "show", run_id)
    assert "Notebook" in record
    assert "Parameters" in record
    assert "token" not in record.lower()
    started = next(one["started_at"] for one in found if one["id"] == run_id)
    assert started[:19].replace("T", " ") in record


@pytest.mark.parametrize(
    ("option", "value", "hint"),
    [
        ("--notebook", "tset", "did you mean 'test'"),
        ("--outcome", "failled", "did you mean 'failed'"),
        ("--bot", "nobody", "Unknown bot 'nobody'"),
    ],
)
def test_a_filter_that_is_misspelt_is_named(desk, option, value, hint):
    done = desk_command("runs", option, value, home=desk.settings.home)
    assert done.returncode == 2
    assert hint in done.stderr


def test_no_token_is_shown_with_a_run(desk):
    assert {run["token_hash"] for run in told(desk, "runs")} == {None}


def test_a_person_at_a_terminal_arms_a_venue_elsewhere_and_disarms_it(desk):
    file = desk.settings.home / "desk.toml"
    file.write_text(file.read_text() + _ELSEWHERE.format(url=desk.paper.url))
    person, terminal = pty.openpty()
    os.write(person, b"elsewhere\n")
    done = subprocess.run(
        [sys.executable, "-m", "tradelib.cli", "arm", "elsewhere", "--hours", "1"],
        cwd=PROJECT, env={**os.environ, "DESK_HOME": str(desk.settings.home)},
        stdin=terminal, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    os.close(person)
    os.close(terminal)
    assert "Armed until" in done.stdout, done.stderr
    assert armed(desk)
    run(desk, "disarm", "elsewhere")
    assert not armed(desk)


_ELSEWHERE = """
[venues.elsewhere]
exchange = "binance"
rest_url = "{url}"
keys = "keys/paper.toml"
"""


def armed(desk: PaperDesk) -> bool:
    with desk.ledger.read() as books:
        return read_arming(books, "elsewhere") is not None
