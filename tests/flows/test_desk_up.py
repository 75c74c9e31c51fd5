"""`desk up` as a user runs it: every service, real cycles, and nothing left behind."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import psutil
import pytest

from tests.desks import SHARED_DATA, desk_command
from tests.replays import BINANCE, entry_file, seeded_file
from tradelib.paper import PaperConfig, paper_exchange
from tradelib.paper.config import read_accounts
from tradelib.settings import PROJECT, load_settings
from tradelib.trading.accounts import load_balances
from tradelib.trading.ledger import open_ledger
from tradelib.trading.orders import load_fills, load_orders
from tradelib.trading.runs import Outcome, load_runs
from tradelib.venue.client import Venue
from tradelib.venue.keys import load_keys


def processes_of(home: Path) -> list[str]:
    """Command lines of processes that work in a desk's home."""
    found = []
    for process in psutil.process_iter(["cmdline", "environ"]):
        told = process.info
        if str(home) in " ".join(told["cmdline"] or []) or (told["environ"] or {}).get(
            "DESK_HOME"
        ) == str(home):
            found.append(" ".join(told["cmdline"] or []))
    return found


def assert_agrees_with_exchange(home: Path, files: list[Path]) -> None:
    """The ledger's orders, fills and balances equal those of the exchange's own record."""
    settings = load_settings(home)
    ledger = open_ledger(settings)
    (name,) = settings.venues
    folder = home / "paper" / name
    config = PaperConfig(
        folder, files=tuple(files), speed=0.0, accounts=read_accounts(folder / "accounts.toml")
    )
    with paper_exchange(config) as paper:
        told = settings.venues[name].model_copy(update={"rest_url": paper.url})
        venue = Venue(name, told, load_keys(told.keys, home, name))
        actual = {b.asset: b.free + b.used for b in venue.fetch_balances().values()}
        booked = {b.asset: b.booked for b in load_balances(ledger, name) if b.booked}
        assert booked == actual
        orders = load_orders(ledger)
        for symbol in {order.symbol for order in orders}:
            trades = venue.fetch_trades_since(symbol, None)
            fills = [fill for fill in load_fills(ledger) if fill.symbol == symbol]
            assert [(f.trade_id, f.amount, f.price, f.fee) for f in fills] == [
                (t.trade_id, t.amount, t.price, t.fee) for t in trades
            ]
        for order in orders:
            if order.venue_order_id:
                found = venue.fetch_order(order.symbol, order.client_id)
                assert (str(found.status), found.filled) == (str(order.status), order.filled)


def assert_nothing_runs(home: Path) -> None:
    deadline = time.monotonic() + 10
    while processes_of(home) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert processes_of(home) == []
    assert not (home / "run" / "services.json").exists()


@pytest.mark.parametrize("market", ["one file", "several files", "seeded"])
def test_a_few_cycles_trade_agree_with_the_exchange_and_leave_nothing_running(home, market):
    files: list[Path] = []
    if market == "one file":
        files = [entry_file(home)]
    elif market == "several files":
        files = BINANCE if SHARED_DATA.exists() else [
            seeded_file(home, symbol) for symbol in ("BTC/USDT", "ETH/USDT", "SOL/USDT")
        ]  # fmt: skip
    cycles = 3 if market == "seeded" else 2
    flags = ["--market", *files] if files else []
    done = desk_command("up", "--cycles", cycles, *flags, home=home, fresh=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "token=" in done.stdout
    ledger = open_ledger(load_settings(home))
    runs = load_runs(ledger, limit=100)
    assert {run.outcome for run in runs} == {Outcome.SUCCEEDED}
    pages = list((home / "reports").glob("*/*/*.ipynb"))
    assert len(pages) == len(runs) >= (12 if market == "seeded" else 6)
    assert_agrees_with_exchange(home, files)
    fills = load_fills(ledger)
    if files:
        assert fills
    for fill in fills[:1]:
        record = f"{fill.venue}/{fill.symbol}/{fill.trade_id}"
        shown = desk_command("show", record, home=home, fresh=True)
        page = shown.stdout.rsplit("page ", 1)[-1].strip()
        assert Path(page).is_file()
        chain = json.loads(desk_command("show", fill.client_id, "--json", home=home).stdout)
        assert Decimal(chain["fills"][0]["amount"]) == fill.amount
        assert chain["run"]["id"] in page
    assert_nothing_runs(home)


def test_it_trades_on_schedule_on_free_ports_until_ctrl_c(home):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        desk = start_desk(home, DESK_PORTS__VOILA=str(port))
        try:
            shown = read_until(desk, "Trading every")
            links = dict(line.split(None, 1) for line in shown if "http://" in line)
            assert f":{port}" not in links["voila"]
            assert "token=" in links["voila"]
            assert "token=" in links["jupyter"]
            ledger = open_ledger(load_settings(home))
            by_hand = len(load_runs(ledger, limit=100))
            assert by_hand >= 5
            wait_for(lambda: _scheduled(ledger, by_hand), 120, desk)
            told = json.loads(desk_command("status", "--json", home=home).stdout)
            assert told["running"]
            assert all(service["alive"] for service in told["services"].values())
            assert str(port) not in told["services"]["voila"]["url"]
            second = desk_command("up", "--cycles", 1, home=home)
            assert second.returncode != 0
            assert "Traceback" not in second.stderr
        finally:
            desk.send_signal(signal.SIGINT)
            code = desk.wait(60)
    assert code == 0
    assert_nothing_runs(home)
    states = dict(flow_states(home))
    assert states.pop("follow paper") == "COMPLETED"
    assert "RUNNING" not in states.values()


def flow_states(home: Path) -> list[tuple[str, str]]:
    """Name and state of every flow run in Prefect's database."""
    with closing(sqlite3.connect(home / "prefect" / "prefect.db")) as books:
        return books.execute("SELECT name, state_type FROM flow_run").fetchall()


def _scheduled(ledger, by_hand: int) -> bool:
    """Whether a run that the schedule started has succeeded."""
    runs = load_runs(ledger, limit=100)
    return any(run.outcome == Outcome.SUCCEEDED for run in runs[: len(runs) - by_hand])


def start_desk(home: Path, **env: str) -> subprocess.Popen[str]:
    kept = {name: text for name, text in os.environ.items() if not name.startswith("DESK_")}
    return subprocess.Popen(
        [sys.executable, "-m", "tradelib.cli", "up"],
        cwd=PROJECT, env={**kept, "DESK_HOME": str(home), **env},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def read_until(desk: subprocess.Popen[str], words: str) -> list[str]:
    """The desk's lines up to the one with these words."""
    lines = []
    for line in desk.stdout:
        lines.append(line)
        if words in line:
            return lines
    raise AssertionError("the desk ended early:\n" + "".join(lines))


def wait_for(condition, seconds: float, desk: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        assert desk.poll() is None, "the desk ended early"
        time.sleep(0.25)
