"""Whatever has happened to the books, a resync makes them what the exchange says."""

import random
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
from sqlalchemy import select, text

from tests.desks import PaperDesk, paper_desk
from tests.trading.books import all_rows
from tests.trading.test_backup import postgres_url
from tradelib.clock import format_time, utc_now
from tradelib.errors import InvalidInput, RateLimited, RetryableError, VenueUnavailable
from tradelib.paper import RateLimits
from tradelib.trading import tables
from tradelib.trading.accounts import load_balances
from tradelib.trading.backup import check_backup
from tradelib.trading.bots import update_bot
from tradelib.trading.chain import find_chain
from tradelib.trading.decisions import Action
from tradelib.trading.halts import halt_trading, resume_trading
from tradelib.trading.incidents import load_incidents, open_incident
from tradelib.trading.ledger import rows
from tradelib.trading.orders import (
    Fill,
    Order,
    OrderStatus,
    client_order_id,
    load_fills,
    load_orders,
)
from tradelib.trading.positions import load_positions, load_tranches
from tradelib.trading.resync import REPAIR, resync
from tradelib.trading.staging import Stage, _patiently
from tradelib.trading.stops import maintain_stops


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """A desk with a story: entries, an exit, stops that rest, an order denied, and somebody else
    on the account, before the books opened and after; and its ledger, whole."""
    limits = RateLimits(weight=10**9)
    with paper_desk(tmp_path_factory.mktemp("desk"), limits=limits) as desk:
        other = desk.ccxt()
        other.create_order("SOL/USDT", "market", "buy", 3)
        other.create_order("SOL/USDT", "market", "sell", 2)
        desk.reconcile()
        desk.trade(Action.BUY)
        desk.trade(Action.BUY)
        desk.trade(Action.SELL, "1")
        other.create_order("ETH/USDT", "market", "buy", 0.1)
        halt_trading(desk.ledger, "look")
        desk.trade(Action.BUY)
        resume_trading(desk.ledger)
        update_bot(desk.ledger, replace(desk.bot, stops={"loss": 0.05, "profit": 0.1}))
        desk.trade(Action.BUY)
        maintain_stops(desk.ledger, desk.venue(), desk.bot, "process 1 on test")
        other.create_order("BTC/USDT", "limit", "buy", 0.001, 90_000)
        desk.reconcile()
        resync(desk.ledger, desk.venue())
        with closing(sqlite3.connect(":memory:")) as whole, connect(desk) as books:
            books.backup(whole)
            yield desk, whole


@pytest.fixture
def desk(told):
    desk, whole = told
    with connect(desk) as books:
        whole.backup(books)
    return desk


def connect(desk: PaperDesk):
    """The ledger's file as somebody's own program opens it, who may break all of its rules."""
    return closing(sqlite3.connect(desk.settings.home / "ledger.sqlite", isolation_level=None))


def facts(desk: PaperDesk):
    """What must come back, whatever was lost: all but the times at which rows were written."""
    names = ("decision", "bot", "symbol", "side", "type", "amount", "status", "filled", "cost")
    names += ("leg", "attempt", "role", "venue_order_id", "limit_price", "stop_price", "bracket")
    orders = {
        order.client_id: tuple(getattr(order, name) for name in names)
        for order in load_orders(desk.ledger)
        if order.status != OrderStatus.DENIED
    }
    held = load_balances(desk.ledger, "paper")
    return (
        orders,
        load_fills(desk.ledger),
        {b.asset: (b.booked, b.free, b.used) for b in held if b.total},
        load_positions(desk.ledger),
        load_tranches(desk.ledger),
        all_rows(desk.ledger)["trade_cursors"],
    )


def reasons(desk: PaperDesk):
    """The run that each fill leads to."""
    chains = {fill.trade_id: find_chain(desk.ledger, f"paper/{fill.symbol}/{fill.trade_id}")
              for fill in load_fills(desk.ledger)}  # fmt: skip
    return {trade_id: chain.run and chain.run.id for trade_id, chain in chains.items()}


def assert_books_are_the_exchanges_own_record(desk: PaperDesk):
    other = desk.ccxt()
    other.number = str
    fills, orders = {}, {}
    for symbol in desk.market.symbols:
        for trade in other.fetch_my_trades(symbol):
            info = trade["info"]
            fills[symbol, trade["id"]] = tuple(
                Decimal(info[name]) for name in ("qty", "price", "quoteQty", "commission")
            )
        for order in other.fetch_orders(symbol):
            info = order["info"]
            orders[order["clientOrderId"]] = Decimal(info["executedQty"]), Decimal(info["origQty"])
    assert fills == {
        (f.symbol, f.trade_id): (f.amount, f.price, f.cost, f.fee) for f in load_fills(desk.ledger)
    }
    for order in load_orders(desk.ledger):
        if order.status not in (OrderStatus.DENIED, OrderStatus.REJECTED):
            assert (order.filled, order.amount) == orders[order.client_id]
    actual = {b.asset: b.free + b.used for b in desk.venue().fetch_balances().values()}
    booked = {b.asset: b.booked for b in load_balances(desk.ledger, "paper") if b.booked}
    assert booked == actual


def garble(books, chance: random.Random, table: str):
    """Words where figures were, figures where others were, nothing where something was."""
    columns = [row[1] for row in books.execute(f"PRAGMA table_info({table})") if not row[5]]
    for (rowid,) in books.execute(f"SELECT rowid FROM {table}").fetchall():
        if chance.random() < 0.5:
            column = chance.choice([name for name in columns if name != "venue"])
            value = chance.choice(["garbage", "0.5", "NaN", "", "nd-x", -1])
            books.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (value, rowid))


def lose(books, chance: random.Random, table: str):
    for (rowid,) in books.execute(f"SELECT rowid FROM {table}").fetchall():
        if chance.random() < 0.4:
            books.execute(f"DELETE FROM {table} WHERE rowid = ?", (rowid,))


def empty(books, chance: random.Random, table: str):
    books.execute(f"DELETE FROM {table}")


def double_fills(books, chance: random.Random, table: str):
    books.execute("UPDATE fills SET trade_id = 'x' || trade_id || 'y' WHERE rowid % 2")
    books.execute(
        "INSERT OR IGNORE INTO fills SELECT venue, symbol, '9' || trade_id, client_id,"
        " venue_order_id, side, amount, price, cost, fee, fee_currency, at FROM fills"
    )


def unlink(books, chance: random.Random, table: str):
    books.execute("UPDATE orders SET decision = NULL, bot = NULL, run = NULL WHERE rowid % 2")
    books.execute("UPDATE fills SET client_id = NULL")


def wrong_status(books, chance: random.Random, table: str):
    for (rowid,) in books.execute("SELECT rowid FROM orders WHERE status != 'DENIED'").fetchall():
        status = chance.choice([status.value for status in OrderStatus if status != "DENIED"])
        books.execute("UPDATE orders SET status = ?, filled = '7' WHERE rowid = ?", (status, rowid))


TABLES = ("orders", "fills", "balances", "positions", "tranches", "trade_cursors", "accounts")
DAMAGES = (
    *((kind, table) for kind in (garble, lose, empty) for table in TABLES
      if (kind, table) != (garble, "accounts")),  # whose books they are must be told
    (double_fills, "fills"), (unlink, "orders"), (wrong_status, "orders"),
)  # fmt: skip


def test_the_story_holds_all_that_it_should(desk):
    assert {order.role for order in load_orders(desk.ledger)} == {"ENTRY", "EXIT", "STOP", "TARGET"}
    assert {order.status for order in load_orders(desk.ledger)} >= {"FILLED", "OPEN", "DENIED"}
    assert [f.client_id for f in load_fills(desk.ledger)].count(None) == 3
    assert_books_are_the_exchanges_own_record(desk)


@pytest.mark.parametrize("seed", range(12))
def test_any_damage_is_mended_to_the_last_digit(desk, seed):
    chance = random.Random(seed)
    before, led_to = facts(desk), reasons(desk)
    with connect(desk) as books:
        for kind, table in chance.sample(DAMAGES, chance.randint(1, 4)):
            kind(books, chance, table)
    resync(desk.ledger, desk.venue())
    assert_books_are_the_exchanges_own_record(desk)
    assert facts(desk) == before
    assert reasons(desk) == led_to
    assert not resync(desk.ledger, desk.venue()).changed
    with connect(desk) as books:
        assert books.execute("PRAGMA foreign_key_check").fetchall() == []
    assert [found.kind for found in desk.reconcile().discrepancies] == ["foreign order"]


@pytest.mark.postgres
def test_damage_is_mended_on_postgresql(home, monkeypatch):
    with postgres_url() as url:
        monkeypatch.setenv("DESK_LEDGER_URL", url)
        with paper_desk(home) as desk:
            desk.reconcile()
            desk.trade(Action.BUY)
            desk.trade(Action.SELL, "1")
            desk.ccxt().create_order("SOL/USDT", "market", "buy", 3)
            desk.reconcile()
            resync(desk.ledger, desk.venue())
            before = facts(desk)
            with desk.ledger.write() as books:
                books.execute(text("UPDATE fills SET amount = 'garbage', client_id = NULL"))
                books.execute(text("UPDATE balances SET booked = '7'"))
                books.execute(text("UPDATE orders SET created_at = 'x' WHERE side = 'sell'"))
                books.execute(text("DELETE FROM order_events"))
                books.execute(text("DELETE FROM orders WHERE side = 'buy'"))
            assert resync(desk.ledger, desk.venue(), backup=home / "before.sqlite").changed
            assert facts(desk) == before
            assert_books_are_the_exchanges_own_record(desk)
            assert not resync(desk.ledger, desk.venue()).changed


def test_a_walk_goes_on_where_the_venues_budget_ended():
    with closing(Stage()) as stage:
        answers = iter([RateLimited("slowly", 0.01), RateLimited("slowly", 0.01), "done"])

        def step():
            answer = next(answers)
            if isinstance(answer, RateLimited):
                raise answer
            return answer

        assert _patiently(stage, step) == "done"
        answers = iter([RateLimited("banned", 3600.0)])
        with pytest.raises(RateLimited):
            _patiently(stage, step)


def test_links_come_back_when_every_order_is_gone(desk):
    before, led_to = facts(desk), reasons(desk)
    with connect(desk) as books:
        for table in ("orders", "order_events", "refusals", "fills"):
            books.execute(f"DELETE FROM {table}")
    done = resync(desk.ledger, desk.venue())
    assert done.counts["orders added"] == len(before[0])
    assert facts(desk) == before
    assert reasons(desk) == led_to
    assert sum(run is not None for run in led_to.values()) == 4


def test_a_stop_with_a_high_number_is_found_again(home):
    """A bot numbers its stops through over all entries."""
    with paper_desk(home) as desk:
        desk.reconcile()
        entry = desk.trade(Action.BUY).order
        other, name = desk.ccxt(), client_order_id(entry.decision, 17)
        for _ in range(10):
            other.create_order("BTC/USDT", "market", "buy", 0.001)
        stop = {"clientOrderId": name, "stopLossPrice": 100_000}
        other.create_order("BTC/USDT", "market", "sell", 0.005, None, stop)
        resync(desk.ledger, desk.venue())
        found = find_chain(desk.ledger, name)
        assert found.run.id == find_chain(desk.ledger, entry.client_id).run.id
        assert (found.order.leg, found.order.role, found.order.bot) == (17, "STOP", desk.bot.name)


@pytest.mark.parametrize("is_lost", [False, True])
def test_of_two_orders_by_one_name_the_first_is_ours(home, is_lost):
    """A venue may take the name of an ended order again, from whoever sends it."""
    with paper_desk(home) as desk:
        desk.reconcile()
        ours = desk.trade(Action.BUY).order
        named = {"clientOrderId": ours.client_id}
        desk.ccxt().create_order("BTC/USDT", "market", "buy", 0.001, None, named)
        if is_lost:
            with connect(desk) as books:
                books.execute("DELETE FROM orders")
        resync(desk.ledger, desk.venue())
        (order,) = load_orders(desk.ledger)
        assert (order.venue_order_id, order.filled) == (ours.venue_order_id, ours.filled)
        assert [fill.client_id for fill in load_fills(desk.ledger)] == [ours.client_id, None]


def test_a_second_time_changes_nothing(desk):
    resync(desk.ledger, desk.venue())
    before = all_rows(desk.ledger)
    assert not resync(desk.ledger, desk.venue()).changed
    assert all_rows(desk.ledger) == before


def test_a_dry_run_tells_the_same_and_changes_nothing(desk):
    with connect(desk) as books:
        empty(books, random.Random(1), "fills")
        wrong_status(books, random.Random(1), "orders")
    before = all_rows(desk.ledger)
    would = resync(desk.ledger, desk.venue(), dry_run=True)
    assert all_rows(desk.ledger) == before
    did = resync(desk.ledger, desk.venue())
    assert would.changes == did.changes
    assert would.counts == did.counts
    assert would.counts["fills added"] == len(load_fills(desk.ledger))


def test_the_desks_own_facts_stay_and_what_the_venue_lacks_goes(desk):
    old = format_time(utc_now() - timedelta(hours=1))
    with connect(desk) as books:
        for name, status in (("nd-a", "REJECTED"), ("nd-b", "PLANNED"), ("nd-c", "OPEN"),
                             ("nd-d", "UNRESOLVED"), ("nd-e", "CANCELED")):  # fmt: skip
            books.execute("CREATE TEMP TABLE one AS SELECT * FROM orders WHERE status = 'FILLED'"
                          " LIMIT 1")  # fmt: skip
            books.execute("UPDATE one SET client_id = ?, status = ?, venue_order_id = NULL,"
                          " sent_at = ?", (name, status, old))  # fmt: skip
            books.execute("INSERT INTO orders SELECT * FROM one")
            books.execute("DROP TABLE one")
    done = resync(desk.ledger, desk.venue())
    gone = [change.subject for change in done.changes if change.kind == "removed"]
    assert sorted(gone) == ["nd-c", "nd-d", "nd-e"]
    left = {order.client_id: order.status for order in load_orders(desk.ledger)}
    assert (left["nd-a"], left["nd-b"]) == ("REJECTED", "PLANNED")
    assert "DENIED" in left.values()


def test_an_order_that_may_be_on_its_way_is_not_forgotten(desk):
    with connect(desk) as books:
        books.execute("UPDATE orders SET client_id = 'nd-late', status = 'UNRESOLVED', sent_at = ?"
                      " WHERE rowid = 1", (format_time(utc_now()),))  # fmt: skip
    before = all_rows(desk.ledger)
    with pytest.raises(RetryableError, match="nd-late may be on its way"):
        resync(desk.ledger, desk.venue())
    assert all_rows(desk.ledger) == before


def test_the_old_books_stay_whole_when_the_venue_fails_in_the_middle(desk, monkeypatch):
    with connect(desk) as books:
        empty(books, random.Random(1), "fills")
    before = all_rows(desk.ledger)
    asked = []

    def fail(*_):
        asked.append(1)
        raise VenueUnavailable("gone")

    venue = desk.venue()
    venue.fetch_last_trade_id = fail
    with pytest.raises(VenueUnavailable):
        resync(desk.ledger, venue)
    assert asked
    assert all_rows(desk.ledger) == before


def test_the_ledger_is_backed_up_first(desk, tmp_path):
    with connect(desk) as books:
        empty(books, random.Random(1), "fills")
    done = resync(desk.ledger, desk.venue(), backup=tmp_path / "before.sqlite")
    assert check_backup(done.saved).contents.tables["fills"][0] == 0


def test_open_incidents_of_the_venue_are_closed(desk):
    with desk.ledger.write() as books:
        open_incident(books, "balance differs", "paper", "BTC", {})
        open_incident(books, "balance differs", "other", "BTC", {})
    resync(desk.ledger, desk.venue())
    left = {incident.venue: incident.repair for incident in load_incidents(desk.ledger)}
    assert left == {"paper": REPAIR, "other": None}


@pytest.mark.parametrize("column", ["identity", "account_id"])
def test_books_of_another_account_are_not_touched(desk, column):
    if column == "account_id" and desk.venue().fetch_account_id() is None:
        pytest.skip("the paper exchange names no account")
    with connect(desk) as books:
        books.execute(f"UPDATE accounts SET {column} = 'binance elsewhere'")
    before = all_rows(desk.ledger)
    with pytest.raises(InvalidInput, match=r"books of venue paper are those of .* elsewhere"):
        resync(desk.ledger, desk.venue())
    assert all_rows(desk.ledger) == before


def test_an_asset_that_was_sold_before_the_books_opened_is_found_by_what_it_was_traded_for(home):
    with paper_desk(home) as desk:
        other = desk.ccxt()
        other.create_order("SOL/USDT", "market", "buy", 3)
        desk.reconcile()
        done = resync(desk.ledger, desk.venue())
        assert "SOL/USDT" in done.symbols
        with desk.ledger.read() as books:
            (fill,) = rows(books, select(tables.fills), Fill)
            assert rows(books, select(tables.orders), Order) == []
        assert (fill.symbol, fill.client_id) == ("SOL/USDT", None)
        assert desk.reconcile().agrees
