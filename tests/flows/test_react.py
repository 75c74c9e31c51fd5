"""Bots that react: each candle once, the newest first, in a notebook or at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import select

from flows.dispatch import make_lock
from flows.react import Reactor
from tests.desks import PaperDesk, desk_command, paper_desk
from tests.replays import entry_file
from tests.waiting import until
from tradelib.errors import InvalidInput
from tradelib.notebooks.cycle import SIGNALS
from tradelib.notebooks.fast import IN_PROCESS, trade_at_once
from tradelib.trading import tables
from tradelib.trading.bots import Bot, WakeParams, load_bots, update_bot
from tradelib.trading.orders import load_orders
from tradelib.trading.runs import Outcome, load_runs
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
        reactor.end()


def series_of(bot: Bot) -> Series:
    return Series(bot.symbol, bot.timeframe)


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
        busy = make_lock(desk.settings.home / "run" / "locks" / f"bot-{bot.name}.lock")
        with busy:
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


def test_pages_that_a_feed_left_unwritten_are_written_by_the_next(desk: PaperDesk) -> None:
    venue = desk.venue()
    trade_at_once(desk.settings, desk.ledger, desk.bot, venue.fetch_time(), lambda _name: venue)
    assert [run.page for run in load_runs(desk.ledger)] == [None]
    with reacting(desk, on="close", fast=True):
        until(lambda: all(run.page for run in load_runs(desk.ledger)))


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
