"""The dead-man's switch: what counts as a sign of life, and what a look survives."""

import threading
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
from sqlalchemy import delete

from tests.desks import PaperDesk, paper_desk
from tradelib.clock import utc_now
from tradelib.errors import StorageFailed
from tradelib.settings import load_settings
from tradelib.trading import tables
from tradelib.trading.bots import BotStatus, load_bots, update_bot
from tradelib.trading.incidents import load_incidents
from tradelib.trading.leases import process_holder
from tradelib.trading.manual import ManualOrder, place_manual_order
from tradelib.trading.orders import Order, OrderStatus, Side, load_order
from tradelib.trading.runs import Outcome, Run, finish_run, start_run
from tradelib.trading.watch import last_healthy, watch_once, watch_venue
from tradelib.venue import OrderType

PATIENCE = timedelta(minutes=10)
FETCH, RECONCILE = "live/10_fetch_candles", "live/40_reconcile_orders"


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    with paper_desk(tmp_path_factory.mktemp("desk")) as desk:
        desk.reconcile()
        yield desk


@pytest.fixture
def desk(opened):
    """The desk with its bots running for a long time, and no run or incident yet."""
    long_ago = utc_now() - timedelta(days=1)
    for bot in load_bots(opened.ledger):
        set_bot(opened, bot.name, BotStatus.RUNNING, long_ago)
    with opened.ledger.write() as books:
        books.execute(delete(tables.runs))
        books.execute(delete(tables.incidents))
    return opened


def set_bot(desk: PaperDesk, name: str, status: BotStatus, since) -> None:
    row = tables.bots.update().where(tables.bots.c.name == name)
    with desk.ledger.write() as books:
        books.execute(row.values(status=status, updated_at=since))


def stop_bots(desk: PaperDesk) -> None:
    for bot in load_bots(desk.ledger):
        update_bot(desk.ledger, replace(bot, status=BotStatus.STOPPED))


def succeed(desk: PaperDesk, notebook: str) -> None:
    """A run of a notebook that has just succeeded."""
    run = Run(
        id=f"run-{notebook[-12:]}", cycle=None, notebook=notebook, bot=None, notebook_hash="",
        venue="paper", parameters={}, as_of=None, git_commit=None, git_clean=None, lock_hash=None,
        host="test", kernel="none", token_hash="", started_at=utc_now(), outcome=Outcome.RUNNING,
    )  # fmt: skip
    start_run(desk.ledger, run)
    finish_run(desk.ledger, run.id, Outcome.SUCCEEDED)


def rest(desk: PaperDesk) -> Order:
    """A person's purchase far below the market."""
    venue = desk.venue()
    bid = venue.fetch_quotes(["BTC/USDT"])["BTC/USDT"].bid
    wanted = ManualOrder(
        "BTC/USDT", Side.BUY, Decimal("0.001"), OrderType.LIMIT, bid * Decimal("0.6")
    )
    (order,) = place_manual_order(
        desk.ledger, venue, desk.settings.limits, wanted, process_holder()
    )
    assert order.status == OrderStatus.OPEN
    return order


def look(desk: PaperDesk) -> list[Order]:
    """One look of a watch that began long ago."""
    since = utc_now() - timedelta(hours=1)
    return watch_venue(desk.ledger, desk.venue, "paper", PATIENCE, since)


def test_a_desk_whose_bots_are_stopped_is_well_while_its_books_are_settled(desk):
    entry = rest(desk)
    stop_bots(desk)
    succeed(desk, RECONCILE)
    assert look(desk) == []
    assert load_order(desk.ledger, entry.client_id).status == OrderStatus.OPEN
    assert load_incidents(desk.ledger, open_only=True) == []


def test_a_desk_whose_bots_are_stopped_and_whose_books_nobody_settles_has_its_entries_cancelled(
    desk,
):
    entry = rest(desk)
    stop_bots(desk)
    assert entry.client_id in {order.client_id for order in look(desk)}


def test_a_running_bot_needs_candles_too(desk):
    entry = rest(desk)
    succeed(desk, RECONCILE)
    assert entry.client_id in {order.client_id for order in look(desk)}


def test_a_bot_that_has_just_been_started_has_time_for_its_first_candles(desk):
    rest(desk)
    stop_bots(desk)
    succeed(desk, RECONCILE)
    set_bot(desk, desk.bot.name, BotStatus.RUNNING, utc_now())
    assert look(desk) == []


def test_the_older_of_both_signs_counts_where_a_bot_runs(desk):
    assert last_healthy(desk.ledger, "paper") is None
    succeed(desk, FETCH)
    assert last_healthy(desk.ledger, "paper") is None
    succeed(desk, RECONCILE)
    assert utc_now() - last_healthy(desk.ledger, "paper") < PATIENCE


class Fault(Exception):
    """Something that nobody thought of."""


@pytest.mark.parametrize(
    "error", [StorageFailed("The ledger cannot be used."), Fault("unheard of")]
)
def test_a_look_survives_what_goes_wrong_before_and_at_a_venue(desk, error, caplog):
    entry = rest(desk)

    def fail():
        raise error

    since = utc_now() - timedelta(hours=1)
    told = watch_once(desk.ledger, fail, PATIENCE, since)
    assert "the venues" in told.failures[0]
    accounts = {"a-silent-one": fail, "paper": desk.venue}
    with desk.ledger.write() as books:
        books.execute(tables.orders.insert().values(**_copy(entry, "a-silent-one")))
    told = watch_once(desk.ledger, lambda: accounts, PATIENCE, since)
    with desk.ledger.write() as books:
        books.execute(delete(tables.orders).where(tables.orders.c.venue == "a-silent-one"))
    assert entry.client_id in {order.client_id for order in told.cancelled}
    (failure,) = told.failures
    assert "a-silent-one" in failure
    assert str(error) in failure
    assert failure in caplog.text


def _copy(order: Order, venue: str) -> dict:
    return vars(order) | {"venue": venue, "client_id": "nd-copy"}


@pytest.mark.parametrize("where", ["accounts_in_use", "watch_once"])
def test_the_watch_of_a_running_desk_outlives_a_fault(desk, monkeypatch, where):
    from tradelib.cli import up

    looks, again = [], threading.Event()

    def fail(*given):
        looks.append(given)
        if len(looks) > 1:
            again.set()
        raise Fault("unheard of")

    monkeypatch.setattr(up, where, fail)
    monkeypatch.setattr(up, "_WATCH_SECONDS", 0.01)
    settings = load_settings(desk.settings.home)
    prepared = up.PreparedHome(settings, desk.ledger, settings.home, new=False)
    with up._dead_man_switch(prepared):
        assert again.wait(10)
