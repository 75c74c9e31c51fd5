"""What was answered is kept: across a stop, a kill, and a different question."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

import ccxt
import pytest

from tests.paper.conftest import ANN, BOB, trader
from tradelib.errors import InvalidInput, StorageFailed
from tradelib.paper import (
    PaperAccount,
    PaperConfig,
    PaperHandle,
    ccxt_settings,
    paper_exchange,
)
from tradelib.paper.config import read_accounts

PAIR = "BTC/USDT"
ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def process(home: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A paper exchange of its own process, and its address, read from what it prints."""
    command = [sys.executable, "-m", "tradelib.paper", "--home", str(home), "--stepped"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as running:
        try:
            first = running.stdout.readline()
            yield running, first.split()[3].rstrip(",")
        finally:
            running.kill()


def test_a_killed_exchange_comes_back_with_everything(tmp_path: Path) -> None:
    with process(tmp_path) as (running, url):
        [account] = read_accounts(tmp_path / "accounts.toml")
        before = trader_at(url, account)
        before.create_order(PAIR, "market", "buy", 0.01)
        resting = before.create_order(PAIR, "limit", "buy", 0.01, 90_000, {"clientOrderId": "one"})
        stop = before.create_order(PAIR, "market", "sell", 0.005, None, {"stopLossPrice": 90_000})
        told = (
            before.fetch_balance()["info"]["balances"],
            before.fetch_orders(PAIR),
            before.fetch_my_trades(PAIR),
            before.fetch_ticker(PAIR)["last"],
            before.fetch_time(),
        )
        os.kill(running.pid, signal.SIGKILL)
        running.wait()
    with process(tmp_path) as (_, url):
        after = trader_at(url, account)
        assert told == (
            after.fetch_balance()["info"]["balances"],
            after.fetch_orders(PAIR),
            after.fetch_my_trades(PAIR),
            after.fetch_ticker(PAIR)["last"],
            after.fetch_time(),
        )
        assert {each["id"] for each in after.fetch_open_orders()} == {resting["id"], stop["id"]}
        with pytest.raises(ccxt.InvalidOrder, match="Duplicate"):
            after.create_order(PAIR, "limit", "buy", 0.01, 90_000, {"clientOrderId": "one"})
        new = after.create_order(PAIR, "market", "buy", 0.001)
        assert int(new["id"]) == int(stop["id"]) + 1
        after.cancel_order(resting["id"], PAIR)
        after.cancel_order(stop["id"], PAIR)
        assert after.fetch_balance()["USDT"]["used"] == 0


def trader_at(url: str, account: PaperAccount) -> ccxt.binance:
    exchange = ccxt.binance(ccxt_settings(url, account.key, account.secret, ccxt.binance))
    exchange.load_markets()
    return exchange


def config(home: Path, **changes: object) -> PaperConfig:
    return PaperConfig(home=home, speed=0, accounts=(ANN, BOB), **changes)


def test_market_time_halts_and_lists_survive(tmp_path: Path) -> None:
    with paper_exchange(config(tmp_path)) as paper:
        ann = trader(paper)
        paper.control("step", candles=90)
        last = ann.fetch_ticker(PAIR)["last"]
        pair = ann.private_post_orderlist_oco(
            {
                "symbol": "BTCUSDT", "side": "SELL", "quantity": "0.5",
                "aboveType": "LIMIT_MAKER", "abovePrice": f"{last * 1.2:.2f}",
                "belowType": "STOP_LOSS", "belowStopPrice": f"{last * 0.8:.2f}",
            }
        )  # fmt: skip
        paper.control("halt", symbol="ETHUSDT")
        time = paper.control("status")["time"]
    with paper_exchange(config(tmp_path)) as paper:
        ann = trader(paper)
        status = paper.control("status")
        assert status["time"] == time
        assert status["symbols"]["ETHUSDT"]["status"] == "HALT"
        ann.cancel_order(pair["orders"][0]["orderId"], PAIR)
        assert ann.fetch_balance()["BTC"] == {"free": 2, "used": 0, "total": 2}


def test_a_new_account_is_opened_beside_the_old_ones(tmp_path: Path) -> None:
    with paper_exchange(config(tmp_path)) as paper:
        trader(paper).create_order(PAIR, "market", "sell", 1)
    cat = PaperAccount("cat", "cat-key", "cat-secret", {"USDT": Decimal(5)})
    richer = PaperAccount("ann", ANN.key, ANN.secret, {"USDT": Decimal(10**6)})
    with paper_exchange(PaperConfig(home=tmp_path, speed=0, accounts=(richer, cat))) as paper:
        assert trader(paper, cat).fetch_balance()["USDT"]["total"] == 5
        assert trader(paper).fetch_balance()["BTC"]["total"] == 1
    with paper_exchange(config(tmp_path)) as paper:
        assert paper.control("status")["accounts"] == ["ann", "bob", "cat"]


def test_the_state_of_another_market_is_refused(tmp_path: Path) -> None:
    with paper_exchange(config(tmp_path)):
        pass
    with (
        pytest.raises(InvalidInput, match="belongs to another market"),
        paper_exchange(config(tmp_path, seed=2)),
    ):
        pass


def test_one_home_serves_one_exchange(tmp_path: Path) -> None:
    with (
        paper_exchange(config(tmp_path)),
        pytest.raises(InvalidInput, match="Another paper exchange"),
        paper_exchange(config(tmp_path)),
    ):
        pass


@pytest.mark.parametrize("harm", ["text", "row"])
def test_a_corrupt_state_is_told_and_left_alone(tmp_path: Path, harm: str) -> None:
    state = tmp_path / "paper.sqlite"
    with paper_exchange(config(tmp_path)) as paper:
        trader(paper).create_order(PAIR, "limit", "buy", 0.01, 90_000)
    if harm == "text":
        state.write_text("This is not a database, whatever it may be called." * 40)
    else:
        with sqlite3.connect(state) as db:
            db.execute("UPDATE orders SET body = '[1, 2]'")
        db.close()
    before = state.read_bytes()
    with (
        pytest.raises(StorageFailed, match="cannot be used"),
        paper_exchange(config(tmp_path)),
    ):
        pass
    assert state.read_bytes() == before


def test_an_order_that_cannot_be_stored_never_was(tmp_path: Path) -> None:
    with paper_exchange(config(tmp_path)) as paper:
        ann = trader(paper)
        before = ann.fetch_balance()
        store = paper.exchange.store
        store._db.execute("PRAGMA query_only = ON")
        with pytest.raises(ccxt.OperationFailed):
            ann.create_order(PAIR, "market", "buy", 0.01)
        store._db.execute("PRAGMA query_only = OFF")
        after = ann.fetch_balance()
        assert (after["USDT"], after["BTC"]) == (before["USDT"], before["BTC"])
        assert ann.create_order(PAIR, "market", "buy", 0.01)["id"] == "1"


def test_a_state_that_is_not_kept_writes_nothing(tmp_path: Path) -> None:
    for _ in range(2):
        with paper_exchange(config(tmp_path / "home", is_kept=False)) as paper:
            assert trader(paper).create_order(PAIR, "market", "buy", 0.01)["id"] == "1"
    assert not (tmp_path / "home").exists()


def test_a_fault_of_a_killed_exchange_halts_nothing_later(tmp_path: Path) -> None:
    with paper_exchange(config(tmp_path)) as paper:
        paper.control("faults", script=[{"kind": "halt_symbol"}])
        with pytest.raises(ccxt.MarketClosed):
            trader(paper).create_order(PAIR, "market", "buy", 0.01)
    with paper_exchange(config(tmp_path)) as paper:
        assert trader(paper).create_order(PAIR, "market", "buy", 0.01)["status"] == "closed"


def test_a_trailing_stop_remembers_the_best_price_it_saw(tmp_path: Path) -> None:
    def extreme(paper: PaperHandle) -> Decimal:
        [order] = paper.exchange.engine.open.values()
        return order.extreme

    with paper_exchange(config(tmp_path)) as paper:
        ann = trader(paper)
        trailing = {"trailingPercent": 20, "stopLossOrTakeProfit": "stopLoss"}
        ann.create_order(PAIR, "market", "sell", 0.1, None, trailing)
        began = extreme(paper)
        paper.control("step", candles=12, timeframe="1h")
        best = extreme(paper)
        assert best > began
    with paper_exchange(config(tmp_path)) as paper:
        assert extreme(paper) == best
