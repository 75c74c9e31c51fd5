"""One budget for all processes: nobody asks a venue for more than it allows."""

from __future__ import annotations

import asyncio
import json
import logging
import multiprocessing
import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from threading import Barrier

import pytest

from tests.desks import PaperDesk, desk_command, paper_desk
from tests.venue.served import Asked, serve
from tradelib.errors import RateLimited
from tradelib.paper.config import RateLimits
from tradelib.settings import VenueSettings
from tradelib.traffic import Urgency, spend_as, spending_as, urgent
from tradelib.traffic.budget import Budget
from tradelib.traffic.rates import Pool
from tradelib.traffic.records import budget_file, load_budgets
from tradelib.venue import OrderRequest, OrderType, Venue, open_stream, open_venue
from tradelib.venue.dialects import DIALECTS

FORK = multiprocessing.get_context("fork")
PROCESSES = 4


@pytest.fixture
def desk(home: Path) -> Iterator[PaperDesk]:
    with paper_desk(home) as desk:
        yield desk


@pytest.fixture(autouse=True)
def nobody() -> Iterator[None]:
    yield
    spend_as("test")


def weigh(file: Path, limit: int = 100, seconds: int = 60, patience: float = 0.0) -> Budget:
    return Budget(file, "v", [Pool("weight", limit, seconds)], "nobody", patience)


def take_all(budget: Budget, units: int = 1, most: int = 1000) -> int:
    """How many requests get through until one is refused."""
    for taken in range(most):
        try:
            budget.take({"weight": units}, "GET x")
        except RateLimited:
            return taken
    return most


def asked(desk: PaperDesk) -> int:
    """The weight that the exchange has counted."""
    return desk.paper.control("status")["weight_used"]


def used(home: Path, pool: str = "weight") -> int:
    return sum(one.used for one in load_budgets(home).pools if one.pool.split(" of ")[0] == pool)


def buy(venue: Venue, name: str, price: str | None = None):
    kind = OrderType.LIMIT if price else OrderType.MARKET
    limit = Decimal(price) if price else None
    return venue.submit_order(
        OrderRequest("BTC/USDT", "buy", kind, Decimal("0.01"), name, limit_price=limit)
    )


def ask_on(venue: Venue) -> None:
    """Ask for the time until that is refused, without a wait."""
    with urgent(Urgency.ORDINARY, patience=0):
        while True:
            venue.fetch_time()


def in_processes(work, *arguments) -> list[int]:
    """What the work puts into a queue, from several processes at once."""
    told = FORK.Queue()
    workers = [FORK.Process(target=work, args=(told, *arguments)) for _ in range(PROCESSES)]
    for worker in workers:
        worker.start()
    found = [told.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    return found


def _take_all(told, file: Path) -> None:
    told.put(take_all(weigh(file, limit=400)))


def test_processes_take_exactly_what_one_could(tmp_path: Path):
    taken = in_processes(_take_all, tmp_path / "b.sqlite")
    assert sum(taken) == 300  # three quarters: the rest is for what is more urgent


def test_a_request_waits_for_room_and_goes_on(tmp_path: Path):
    budget = weigh(tmp_path / "b.sqlite", limit=4, seconds=1, patience=5)
    began = time.monotonic()
    for _ in range(7):
        budget.take({"weight": 1}, "GET x")
    assert time.monotonic() - began >= 2  # three in each second


def test_one_that_would_wait_too_long_is_refused_at_once_and_told_when_to_come(tmp_path: Path):
    budget = weigh(tmp_path / "b.sqlite", limit=4, patience=5)
    assert take_all(budget) == 3
    told = r"its share of 4 weight in 60 s; come again in \d+ s"
    with pytest.raises(RateLimited, match=told) as no:
        budget.take({"weight": 1}, "GET x")
    assert 50 < no.value.retry_after <= 60.1


def test_what_is_more_urgent_gets_through(tmp_path: Path):
    budget = weigh(tmp_path / "b.sqlite")
    assert take_all(budget) == 75
    with urgent(Urgency.RECONCILE):
        assert take_all(budget) == 15
    with urgent(Urgency.RECONCILE), urgent(Urgency.CANCEL):
        assert take_all(budget) == 8
    with urgent(Urgency.CANCEL), urgent(Urgency.RECONCILE), pytest.raises(RateLimited):
        budget.take({"weight": 1}, "GET x")


def test_a_long_walk_leaves_room_and_waits_for_its_own(tmp_path: Path):
    file, pools = tmp_path / "b.sqlite", [Pool("weight", 10, 1)]
    walk = Budget(file, "v", pools, "nobody", 0, bulk=True)
    began = time.monotonic()
    for _ in range(11):
        walk.take({"weight": 1}, "GET klines")
    assert time.monotonic() - began >= 2  # five in each second, however little patience others have
    usual = Budget(file, "v", pools, "nobody", 0)
    assert take_all(usual) >= 2
    with urgent(Urgency.CANCEL):
        assert take_all(walk) >= 2


def test_all_pools_are_taken_from_or_none(tmp_path: Path):
    pools = [Pool("weight", 100, 60), Pool("orders", 4, 60, by_account=True)]
    budget = Budget(tmp_path / "run/budget/b.sqlite", "v", pools, "me", 0)
    other = Budget(tmp_path / "run/budget/b.sqlite", "v", pools, "you", 0)
    for _ in range(3):
        budget.take({"weight": 1, "orders": 1}, "POST order")
    with pytest.raises(RateLimited, match="orders"):
        budget.take({"weight": 1, "orders": 1}, "POST order")
    assert used(tmp_path) == 3
    other.take({"weight": 1, "orders": 1}, "POST order")
    assert used(tmp_path) == 4


def test_a_first_request_that_one_pool_refuses_leaves_the_others_usable(tmp_path: Path, caplog):
    pools = [Pool("weight", 100, 60), Pool("orders", 4, 60)]
    budget = Budget(tmp_path / "b.sqlite", "v", pools, "me", 0)
    budget.close_gate("orders", 60, "closed")
    with pytest.raises(RateLimited, match="closed"):
        budget.take({"weight": 1, "orders": 1}, "POST order")
    assert take_all(budget) == 75
    assert not caplog.records


def test_the_budget_counts_what_the_exchange_counts(desk: PaperDesk):
    venue = desk.venue()
    before = asked(desk), used(desk.settings.home)
    now = venue.fetch_time()
    venue.fetch_quotes(["BTC/USDT", "ETH/USDT"])
    venue.fetch_ohlcv("BTC/USDT", "1m", now - timedelta(hours=1), 10)
    venue.fetch_balances()
    bid = venue.fetch_quotes(["BTC/USDT"])["BTC/USDT"].bid
    low = venue.fetch_instrument("BTC/USDT").round_price(bid * Decimal("0.9"))
    resting = buy(venue, "nd-1", str(low))
    buy(venue, "nd-2")
    venue.fetch_order("BTC/USDT", "nd-1")
    venue.fetch_open_orders(["BTC/USDT"])
    list(venue.iterate_orders("BTC/USDT", now))
    venue.fetch_trades_since("BTC/USDT", None)
    venue.cancel_order("BTC/USDT", resting.venue_order_id)
    spent = asked(desk) - before[0]
    assert spent == used(desk.settings.home) - before[1] > 100
    assert used(desk.settings.home, "orders") == 2


def test_the_venues_own_limit_is_kept_to_and_no_request_is_refused_by_it(home: Path):
    with paper_desk(home, limits=RateLimits(weight=200, ban_after=0)) as desk:
        venue = open_venue(desk.settings, "paper", trading=True)
        venue._exchange.timeout = 5000
        venue.fetch_instruments()
        with pytest.raises(RateLimited, match="its share of 200 weight") as no:
            ask_on(venue)
        assert no.value.retry_after > 0
        assert 140 <= asked(desk) <= 150
        with urgent(Urgency.RECONCILE):
            venue.fetch_balances()


def test_what_others_ask_at_the_address_is_learnt_from_the_venue(home: Path):
    with paper_desk(home, limits=RateLimits(weight=200)) as desk:
        venue, stranger = desk.venue(), desk.ccxt()
        venue.fetch_instruments()
        stranger.load_markets()
        for _ in range(5):
            stranger.fetch_balance()
        venue.fetch_time()
        assert used(home) >= 120
        with pytest.raises(RateLimited):
            ask_on(venue)
        assert asked(desk) <= 160
        others = [one for one in load_budgets(home).spent if one.kind.startswith("others")]
        assert sum(one.units for one in others) >= 100
        stranger.close()


def test_retry_after_closes_the_gate_for_every_process(desk: PaperDesk):
    venue, other = desk.venue(), desk.venue()
    venue.fetch_time()
    desk.paper.control(
        "faults", script=[{"kind": "rate_limit"}], options={"retry_after_ms": 90_000}
    )
    with pytest.raises(RateLimited, match="fewer requests, come again in 90 s") as no:
        venue.fetch_time()
    assert 89 < no.value.retry_after <= 90
    before = asked(desk)
    with pytest.raises(RateLimited, match="it wants fewer requests"), urgent(Urgency.CANCEL):
        other.fetch_balances()
    assert _tell_seconds(desk.settings.home) == [True] * PROCESSES
    assert asked(desk) == before


def _tell_seconds(home: Path) -> list[bool]:
    return in_processes(_is_refused, home)


def _is_refused(told, home: Path) -> None:
    file = next((home / "run/budget").glob("*.sqlite"))
    try:
        weigh(file).take({"weight": 1}, "GET x")
    except RateLimited as error:
        told.put(error.retry_after > 80)
    else:
        told.put(False)


def test_too_many_orders_stop_orders_and_nothing_else(home: Path):
    with paper_desk(home, limits=RateLimits(orders_10s=5)) as desk:
        venue = desk.venue()
        venue._exchange.load_markets()
        for number in range(3):
            buy(venue, f"nd-{number}")
        with pytest.raises(RateLimited, match="its share of 5 orders in 10 s"):
            buy(venue, "nd-9")
        stranger = desk.ccxt()
        for _ in range(2):
            stranger.create_order("BTC/USDT", "market", "buy", 0.01)
        venue.fetch_time()
        stranger.close()


def test_a_refusal_for_orders_closes_their_gate_alone(desk: PaperDesk):
    venue = desk.venue()
    desk.paper.control("faults", script=[{"kind": "order_limit"}])
    with pytest.raises(RateLimited):
        buy(venue, "nd-1")
    with pytest.raises(RateLimited, match=r"it wants fewer requests \(orders\)"):
        buy(venue, "nd-2")
    venue.fetch_time()
    with urgent(Urgency.RECONCILE):  # as a stop is, which may be taken the next moment
        buy(venue, "nd-3")


def test_what_watches_a_venue_asks_within_the_budget_too(desk: PaperDesk):
    async def load() -> None:
        exchange = open_stream(desk.settings, "paper")
        try:
            await exchange.load_markets()
            await exchange.fetch_order_book("BTC/USDT", 100)
            Budget(
                budget_file(desk.settings.home, desk.venue().identity), "paper",
                DIALECTS["binance"].pools, "nobody", 0,
            ).close_gate("weight", 60, "closed for a test")  # fmt: skip
            with pytest.raises(RateLimited, match="closed for a test"):
                await exchange.fetch_time()
        finally:
            await exchange.close()

    asyncio.run(load())
    assert used(desk.settings.home) == asked(desk) == 25


def test_who_spent_what_is_recorded(desk: PaperDesk):
    spend_as("10_fetch_candles", "run-1")
    desk.venue().fetch_time()
    spend_as("30_execute_orders", "run-2", "momentum")
    desk.venue().fetch_quotes(["BTC/USDT"])
    told = {
        (one.kind, one.run, one.bot, one.endpoint): (one.requests, one.units)
        for one in load_budgets(desk.settings.home, by_run=True).spent
    }
    assert told["10_fetch_candles", "run-1", "", "GET time"] == (1, 1)
    assert told["30_execute_orders", "run-2", "momentum", "GET exchangeInfo"] == (1, 20)
    assert told["30_execute_orders", "run-2", "momentum", "GET ticker/bookTicker"] == (1, 4)


def test_threads_spend_beside_each_other_each_under_its_own_name(desk: PaperDesk):
    spend_as("feed")
    meeting = Barrier(2)

    def ask(bot: str) -> None:
        venue = desk.venue()
        with spending_as("30_execute_orders", f"run-{bot}", bot):
            meeting.wait()
            venue.fetch_time()
            meeting.wait()
        venue.fetch_balances()

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(ask, ("calm", "eager")))
    told = {
        (one.kind, one.run, one.bot, one.endpoint): one.requests
        for one in load_budgets(desk.settings.home, by_run=True).spent
    }
    for bot in ("calm", "eager"):
        assert told["30_execute_orders", f"run-{bot}", bot, "GET time"] == 1
    assert told["feed", "", "", "GET account"] == 2


def _hold(told, file: Path) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as books:
        books.execute("BEGIN IMMEDIATE")
        told.put(os.getpid())
        time.sleep(60)


@contextmanager
def held(file: Path) -> Iterator[int]:
    """The file as a process holds it that does not go on."""
    told = FORK.Queue()
    holder = FORK.Process(target=_hold, args=(told, file))
    holder.start()
    try:
        yield told.get(timeout=30)
    finally:
        holder.kill()
        holder.join()


def test_a_holder_that_is_killed_leaves_the_budget_free(tmp_path: Path, caplog):
    budget = weigh(tmp_path / "b.sqlite")
    assert take_all(budget, most=50) == 50
    with held(tmp_path / "b.sqlite") as holder:
        os.kill(holder, signal.SIGKILL)
        assert take_all(budget) == 25
    assert not caplog.records


def test_a_holder_that_stands_still_stops_nobody(tmp_path: Path, caplog):
    budget = weigh(tmp_path / "b.sqlite")
    assert take_all(budget, most=50) == 50
    with held(tmp_path / "b.sqlite") as holder, caplog.at_level(logging.WARNING):
        os.kill(holder, signal.SIGSTOP)
        assert take_all(budget) == 75  # by its own count alone
    assert [r.message for r in caplog.records if "keeps its own" in r.message]
    assert len(caplog.records) == 1


@pytest.mark.parametrize("junk", [b"", b"no database at all" * 500])
def test_a_damaged_file_is_replaced(tmp_path: Path, caplog, junk: bytes):
    file = tmp_path / "b.sqlite"
    file.write_bytes(junk)
    assert take_all(weigh(file)) == 75
    assert len(caplog.records) == (1 if junk else 0)


def test_processes_that_find_a_damaged_file_replace_it_once(tmp_path: Path):
    file = tmp_path / "b.sqlite"
    file.write_bytes(os.urandom(20_000))
    assert sum(in_processes(_take_all, file)) == 300


def test_a_file_that_is_removed_under_its_users_is_made_anew(tmp_path: Path):
    file = tmp_path / "b.sqlite"
    budget = weigh(file)
    assert take_all(budget, most=70) == 70
    file.unlink()
    assert take_all(budget) == 75
    assert file.exists()


def test_a_folder_that_cannot_be_written_stops_nobody(tmp_path: Path, caplog):
    (tmp_path / "run").write_text("in the way")
    assert take_all(weigh(tmp_path / "run" / "b.sqlite")) == 75
    assert len(caplog.records) == 1


def test_counts_of_a_clock_that_was_ahead_are_forgotten(tmp_path: Path):
    file = tmp_path / "b.sqlite"
    assert take_all(weigh(file)) == 75
    with closing(sqlite3.connect(file)) as books, books:
        books.execute("UPDATE units_weight SET item_timestamp = item_timestamp + 3600000")
        books.execute("UPDATE pools SET tidied = tidied + 3600000")
    assert take_all(weigh(file)) == 75


@pytest.mark.parametrize(
    ("exchange", "method", "path", "is_private", "cost", "charged"),
    [
        ("binance", "GET", "exchangeInfo", False, 4, {"weight": 20}),
        ("binance", "POST", "order", True, 0.2, {"weight": 1, "orders": 1, "orders a day": 1}),
        ("binance", "DELETE", "order", True, 0.2, {"weight": 1}),
        ("kraken", "POST", "Balance", True, 3, {"counter": 1}),
        ("kraken", "POST", "TradesHistory", True, 6, {"counter": 2}),
        ("kraken", "POST", "AddOrder", True, 0, {"trading": 1}),
        ("kraken", "GET", "Ticker", False, 1, {"public": 1}),
        ("coinbase", "POST", "brokerage/orders", True, 1, {"private requests": 1}),
        ("coinbase", "GET", "brokerage/time", False, 3, {"public requests": 1}),
    ],
)  # fmt: skip
def test_each_dialect_charges_its_venues_pools(exchange, method, path, is_private, cost, charged):
    dialect = DIALECTS[exchange]
    assert dialect.charges(dialect, method, path, is_private, cost) == charged
    assert charged.keys() <= {pool.name for pool in dialect.pools}


class Pages:
    """An exchange that answers every request with the same."""

    def answer(self, asked: Asked):
        return 200, {"error": [], "result": {"unixtime": 1_700_000_000}}


def test_an_exchange_without_a_dialect_is_asked_at_ccxts_pace(home: Path):
    with serve(Pages()) as served:
        settings = VenueSettings(exchange="kraken", rest_url=served.url, patience=0)
        venue = Venue("k", settings, None, home=home)
        with pytest.raises(RateLimited, match="10 public in 10 s"):
            ask_on(venue)
        assert len(served.asked) == 7
        assert budget_file(home, venue.identity).exists()


def test_the_command_tells_what_is_used_and_by_whom(desk: PaperDesk):
    assert "No venue was asked yet" in desk_command("budget", home=desk.settings.home / "x").stdout
    spend_as("30_execute_orders", "run-2", "momentum")
    desk.venue().fetch_quotes(["BTC/USDT"])
    shown = desk_command("budget", "--runs", home=desk.settings.home).stdout
    for word in ("weight", "6000", "30_execute_orders", "run-2", "momentum", "GET exchangeInfo"):
        assert word in shown
    told = json.loads(desk_command("budget", "--json", home=desk.settings.home).stdout)
    assert {pool["pool"].split(" of ")[0]: pool["used"] for pool in told["pools"]}["weight"] == 24
