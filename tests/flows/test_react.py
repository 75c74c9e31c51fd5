"""Bots that react: each candle once, the newest first, in a notebook or at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

import nbformat
import pytest
from filelock import FileLock
from sqlalchemy import select

from flows.dispatch import Kernels, make_lock, try_lock
from flows.react import Reactor
from tests.desks import PaperDesk, desk_command, paper_desk
from tests.replays import entry_file
from tests.waiting import until
from tradelib.clock import parse_time
from tradelib.errors import InvalidInput
from tradelib.kernels.servers import load_servers
from tradelib.notebooks.cycle import SIGNALS
from tradelib.notebooks.fast import IN_PROCESS, trade_at_once
from tradelib.trading import tables
from tradelib.trading.bots import (
    Bot,
    BotStatus,
    WakeParams,
    add_bot,
    load_bots,
    new_bot,
    update_bot,
)
from tradelib.trading.orders import load_orders
from tradelib.trading.runs import Outcome, Run, load_run, load_runs
from tradelib.venue import Quote
from tradelib.venue.streams import Series


@pytest.fixture
def desk(home: Path, tmp_path: Path) -> Iterator[PaperDesk]:
    with paper_desk(home, files=[entry_file(tmp_path)]) as desk:
        desk.reconcile()
        desk.fetch()
        yield desk


@contextmanager
def reacting(desk: PaperDesk, **wake: object) -> Iterator[tuple[Reactor, Bot]]:
    """The desk's first bot, woken as told, alone at its venue."""
    first, *others = load_bots(desk.ledger)
    bot = replace(first, wake=WakeParams(**wake).model_dump(mode="json", exclude_defaults=True))
    update_bot(desk.ledger, bot)
    reactor = Reactor(desk.settings, desk.ledger, desk.market.venue)
    reactor.know([bot, *others])
    try:
        yield reactor, bot
    finally:
        reactor.end(60)


def series_of(bot: Bot) -> Series:
    return Series(bot.symbol, bot.timeframe)


def bot_lock(desk: PaperDesk, bot: Bot) -> FileLock:
    return make_lock(desk.settings.home / "run" / "locks" / f"bot-{bot.name}.lock")


def is_at_work(desk: PaperDesk, bot: Bot) -> bool:
    lock = bot_lock(desk, bot)
    if try_lock(lock):
        lock.release()
        return False
    return True


def closes(desk: PaperDesk, bot: Bot) -> list[datetime]:
    decided = tables.decisions.c
    query = select(decided.candle_close).where(decided.bot == bot.name)
    return sorted(row["candle_close"] for row in desk.ledger.mappings(query))


@pytest.mark.parametrize("fast", [True, False])
def test_a_bot_decides_on_each_candle_that_closes_and_trades(desk: PaperDesk, fast: bool) -> None:
    with reacting(desk, on="close", fast=fast) as (reactor, bot):
        seen = []
        for _ in range(3):
            now = desk.venue().fetch_time()
            reactor.on_close(series_of(bot), now)
            seen.append(now)
            until(lambda: len(closes(desk, bot)) == len(seen))
            desk.step()
            desk.fetch()
        assert closes(desk, bot) == seen
        until(lambda: all(run.page for run in load_runs(desk.ledger)))
    runs = load_runs(desk.ledger)
    assert {run.outcome for run in runs} == {Outcome.SUCCEEDED}
    assert {run.kernel_kind == IN_PROCESS for run in runs} == {fast}
    (order,) = load_orders(desk.ledger)
    assert order.status == "FILLED"
    assert desk.reconcile().agrees


def test_candles_that_close_while_a_bot_works_are_one_decision(desk: PaperDesk) -> None:
    with reacting(desk, on="close", fast=True) as (reactor, bot):
        first = desk.venue().fetch_time()
        with bot_lock(desk, bot):
            reactor.on_close(series_of(bot), first)
            for _ in range(3):
                desk.step()
                reactor.on_close(series_of(bot), desk.venue().fetch_time())
            desk.fetch()
        newest = desk.venue().fetch_time()
        until(lambda: newest in closes(desk, bot))
    assert set(closes(desk, bot)) <= {first, newest}
    signals = [run for run in load_runs(desk.ledger) if run.notebook == SIGNALS]
    assert len(signals) == 2


class Recorder(Reactor):
    """Notes when its bots would trade."""

    def __init__(self, desk: PaperDesk) -> None:
        super().__init__(desk.settings, desk.ledger, desk.market.venue)
        self.traded: list[datetime] = []

    def _trade(self, bot: Bot, as_of: datetime) -> None:
        self.traded.append(as_of)


def waiting(reactor: Reactor) -> set[int]:
    """The kernels of its own that wait for pages; others' come and go."""
    return {one.process.pid for one in [*reactor._pool._waiting]}


def living() -> set[int]:
    return {pid for server in load_servers() for pid in server.kernels}


def test_the_next_pages_of_a_bot_find_their_kernels_started(desk: PaperDesk) -> None:
    with reacting(desk, on="close") as (reactor, bot):
        until(lambda: reactor._pool.count == 2)
        before = waiting(reactor)
        assert before <= living()
        reactor.on_close(series_of(bot), desk.venue().fetch_time())
        until(lambda: closes(desk, bot) and not reactor._working and reactor._pool.count == 2)
        after = waiting(reactor)
        assert len(before & after) == 2 - len(load_runs(desk.ledger))
    assert not living() & (before | after)


def test_no_kernel_waits_for_bots_that_need_none(desk: PaperDesk) -> None:
    with reacting(desk, on="close", fast=True) as (reactor, bot):
        reactor.on_close(series_of(bot), desk.venue().fetch_time())
        until(lambda: closes(desk, bot) and not reactor._working)
        until(lambda: all(run.page for run in load_runs(desk.ledger)))
        assert reactor._pool.count == 0


def test_a_bot_on_several_symbols_wakes_once_when_all_have_their_candle(desk: PaperDesk) -> None:
    symbols = ("BTC/USDT", "ETH/USDT", "SOL/USDT")
    bot = new_bot(
        "basket", desk.market.venue, symbols[0], "1m", "equal_weight", wake={"on": "close"},
        symbols=symbols,
    )  # fmt: skip
    first = desk.venue().fetch_time()
    later = first + timedelta(minutes=1)
    reactor = Recorder(desk)
    reactor.know([bot])
    for closed in (first, later):
        for symbol in symbols:
            reactor.on_close(Series(symbol, "1m"), closed)
            until(lambda: not reactor._working)
    reactor.end(60)
    assert reactor.traded == [first, later]


def test_a_bot_waits_for_the_price_to_move(desk: PaperDesk) -> None:
    with reacting(desk, on="price", move=0.01, fast=True) as (reactor, bot):
        now, woken = desk.venue().fetch_time(), []
        reactor.on_close(series_of(bot), now)
        for price in ("100", "100.9", "99.1"):
            reactor.on_quotes([Quote(bot.symbol, Decimal(price), Decimal(price))])
        assert closes(desk, bot) == woken
        reactor.on_quotes([Quote(bot.symbol, Decimal("101"), Decimal("101"))])
        until(lambda: closes(desk, bot) == [now])


def test_a_bot_of_the_schedule_sleeps(desk: PaperDesk) -> None:
    with reacting(desk, on="schedule") as (reactor, bot):
        reactor.on_close(series_of(bot), desk.venue().fetch_time())
        reactor.on_quotes([Quote(bot.symbol, Decimal(1), Decimal(1))])
        reactor.on_quotes([Quote(bot.symbol, Decimal(2), Decimal(2))])
    assert load_runs(desk.ledger) == []


def test_a_bot_that_has_been_stopped_since_the_feed_looked_does_nothing(desk: PaperDesk) -> None:
    with reacting(desk, on="close", fast=True) as (reactor, bot):
        other = replace(bot, name="other")
        add_bot(desk.ledger, other)
        reactor.know([bot, other])
        update_bot(desk.ledger, replace(bot, status=BotStatus.STOPPED))
        # Fast bots act one after the other, the stopped one first.
        reactor.on_close(series_of(bot), desk.venue().fetch_time())
        until(lambda: closes(desk, other))
    assert closes(desk, bot) == []


def test_pages_that_a_feed_left_unwritten_are_written_by_the_next(desk: PaperDesk) -> None:
    venue = desk.venue()
    at = venue.fetch_time()
    list(trade_at_once(desk.settings, desk.ledger, desk.bot, at, lambda _name: venue))
    assert [run.page for run in load_runs(desk.ledger)] == [None]
    with reacting(desk, on="close", fast=True):
        until(lambda: all(run.page for run in load_runs(desk.ledger)))


def test_pages_wait_until_no_bot_has_to_trade(desk: PaperDesk) -> None:
    with reacting(desk, on="close", fast=True) as (reactor, bot):
        second = replace(bot, name=f"{bot.name}-2")
        add_bot(desk.ledger, second)
        reactor.know([bot, second])
        with bot_lock(desk, second):
            reactor.on_close(series_of(bot), desk.venue().fetch_time())
            until(lambda: closes(desk, bot))
        until(lambda: closes(desk, second) and all(run.page for run in load_runs(desk.ledger)))
    runs = load_runs(desk.ledger)
    traded = max(run.ended_at for run in runs if run.ended_at)
    begun = [page_of(desk, run).metadata.papermill.start_time for run in runs]
    assert min(map(parse_time, begun)) > traded


def page_of(desk: PaperDesk, run: Run) -> nbformat.NotebookNode:
    return nbformat.read(desk.settings.reports / run.page, as_version=4)


def test_a_feed_writes_no_pages_of_another_venue(desk: PaperDesk) -> None:
    venue = desk.venue()
    at = venue.fetch_time()
    list(trade_at_once(desk.settings, desk.ledger, desk.bot, at, lambda _name: venue))
    other = Reactor(desk.settings, desk.ledger, "elsewhere")
    other._pages.shutdown()
    other.end(60)
    assert [run.page for run in load_runs(desk.ledger)] == [None]


def test_a_signal_has_its_page_though_its_execution_failed(desk: PaperDesk) -> None:
    runs: list[Run] = []
    with reacting(desk, on="close", fast=True) as (reactor, bot):
        script = [{"kind": "refuse_5xx", "on": "GET ticker/bookTicker", "count": 100}]
        desk.paper.control("faults", script=script)
        seen = []
        while not any(run.outcome == Outcome.FAILED for run in runs):
            seen.append(desk.venue().fetch_time())
            reactor.on_close(series_of(bot), seen[-1])
            until(lambda: len(closes(desk, bot)) == len(seen))
            until(lambda: not reactor._working)
            runs = load_runs(desk.ledger)
            desk.step()
            desk.fetch()
        signals = [run.id for run in runs if run.notebook == SIGNALS]
        until(lambda: all(load_run(desk.ledger, run).page for run in signals))


def test_a_feed_that_ends_finishes_its_trade(desk: PaperDesk) -> None:
    with reacting(desk, on="close", fast=True) as (reactor, bot):
        hang = {"kind": "accept_then_hang", "on": "POST order", "hold_ms": 1_000}
        desk.paper.control("faults", script=[hang])
        while True:
            reactor.on_close(series_of(bot), desk.venue().fetch_time())
            until(lambda: load_orders(desk.ledger) or not reactor._working)
            if load_orders(desk.ledger):
                break
            desk.step()
            desk.fetch()
        reactor.end(60)
    (order,) = load_orders(desk.ledger)
    assert order.status == "FILLED"
    assert {run.outcome for run in load_runs(desk.ledger)} == {Outcome.SUCCEEDED}


def test_a_feed_that_ends_begins_no_trade(desk: PaperDesk) -> None:
    with reacting(desk, on="close", fast=True) as (reactor, bot):
        with bot_lock(desk, bot):
            reactor.on_close(series_of(bot), desk.venue().fetch_time())
            ending = threading.Thread(target=reactor.end, args=(60,))
            ending.start()
            until(reactor._ended.is_set)
        ending.join()
        reactor.on_close(series_of(bot), desk.venue().fetch_time() + timedelta(minutes=1))
    assert load_runs(desk.ledger) == []


def test_several_venues_leave_each_other_a_kernel(desk: PaperDesk) -> None:
    add_bot(desk.ledger, new_bot("other", "elsewhere", "BTC/USDT", "1m", "weighted"))
    ours = Kernels(desk.settings, 2).take(desk.market.venue)
    assert ours is not None
    with reacting(desk, on="close") as (reactor, bot):
        reactor.on_close(series_of(bot), desk.venue().fetch_time())
        until(lambda: is_at_work(desk, bot))
    ours.give_back()
    assert load_runs(desk.ledger) == []


@pytest.mark.parametrize(
    ("wake", "why"),
    [
        ({"on": "price"}, "needs its move"),
        ({"on": "close", "move": 0.1}, "no other bot has one"),
        ({"on": "schedule", "fast": True}, "A fast bot wakes on close or on price"),
        ({"on": "tick"}, "on = 'tick'"),
    ],
)
def test_what_makes_no_sense_is_refused(wake: dict, why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        WakeParams(**wake)


def test_a_user_tells_a_bot_when_to_wake(desk: PaperDesk) -> None:
    home, name = desk.settings.home, desk.bot.name
    done = desk_command("bots", "edit", name, "--wake", "price=0.005", "--fast", home=home)
    assert done.returncode == 0, done.stderr
    assert desk.bot.wake == {"on": "price", "move": 0.005, "fast": True}
    desk_command("bots", "edit", name, "--wake", "close", home=home)
    assert desk.bot.wake == {"on": "close", "fast": True}
    desk_command("bots", "edit", name, "--wake", "schedule", home=home)
    assert desk.bot.wake == {}
    refused = desk_command("bots", "edit", name, "--fast", home=home)
    assert refused.returncode != 0
    assert "wakes on close or on price" in refused.stderr
