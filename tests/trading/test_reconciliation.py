"""After reconciliation the books equal the venue to the last digit, or say where they do not."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.desks import PaperDesk, load_equity, paper_desk
from tradelib.clock import utc_now
from tradelib.errors import UnresolvedError
from tradelib.trading import tables
from tradelib.trading.accounts import load_balances
from tradelib.trading.booking import book_trades
from tradelib.trading.decisions import Action
from tradelib.trading.discrepancies import compare_balances
from tradelib.trading.incidents import load_incidents, open_incident
from tradelib.trading.orders import OrderStatus, client_order_id, load_fills, load_orders
from tradelib.trading.positions import load_position
from tradelib.trading.reconciliation import reconcile
from tradelib.venue import OrderRequest, OrderType, Venue, VenueStatus

LAG = timedelta(seconds=60)  # longer than any venue here may hide an order


@pytest.fixture
def desk(home):
    with paper_desk(home) as desk:
        desk.reconcile()
        yield desk


def kinds(report):
    return [(found.kind, found.repair is not None) for found in report.discrepancies]


def backdate(desk: PaperDesk, client_id: str, age: timedelta):
    """As if an order had been recorded longer ago."""
    with desk.ledger.write() as books:
        books.execute(
            tables.orders.update()
            .where(tables.orders.c.client_id == client_id)
            .values(updated_at=utc_now() - age, sent_at=utc_now() - age)
        )


def forget_answer(desk: PaperDesk, order, status: OrderStatus):
    """As if the process had died before it could book the venue's answer."""
    with desk.ledger.write() as books:
        books.execute(tables.fills.delete())
        books.execute(
            tables.orders.update()
            .where(tables.orders.c.client_id == order.client_id)
            .values(
                status=status, filled=Decimal(0), cost=Decimal(0), venue_order_id=None,
                fills_complete=1, updated_at=utc_now() - 2 * LAG,
                sent_at=utc_now() - 2 * LAG,
            )
        )  # fmt: skip
        for balance in load_balances(desk.ledger, desk.market.venue):
            opening = Decimal(10_000) if balance.asset == "USDT" else Decimal(0)
            books.execute(
                tables.balances.update()
                .where(tables.balances.c.asset == balance.asset)
                .values(booked=opening)
            )


def test_the_books_open_with_what_the_venue_holds(desk):
    assert [(b.asset, b.booked) for b in load_balances(desk.ledger, "paper")] == [("USDT", 10_000)]
    assert [e.equity for e in load_equity(desk.ledger, "paper")] == [10_000]


@pytest.mark.parametrize("status", [OrderStatus.SUBMITTED, OrderStatus.UNRESOLVED])
def test_an_order_pending_in_the_books_and_filled_at_the_venue_is_right_after_one_pass(
    desk, status
):
    order = desk.execute(desk.decide(Action.BUY)).order
    forget_answer(desk, order, status)
    report = desk.reconcile()
    assert report.agrees
    assert ("order status", True) in kinds(report)
    settled = load_orders(desk.ledger)[0]
    assert (settled.status, settled.filled) == (OrderStatus.FILLED, order.filled)
    assert sum(f.amount for f in load_fills(desk.ledger)) == order.filled
    assert desk.reconcile().discrepancies == ()


def test_an_order_on_its_way_is_left_alone(desk):
    order = desk.execute(desk.decide(Action.BUY), losing(desk)).order
    with desk.ledger.write() as books:
        books.execute(tables.orders.update().values(status=OrderStatus.SUBMITTED))
    assert desk.reconcile().discrepancies == ()
    assert load_orders(desk.ledger)[0].status == OrderStatus.SUBMITTED
    assert order.client_id not in [o["clientOrderId"] for o in desk.ccxt().fetch_orders("BTC/USDT")]


def test_an_answer_that_nobody_booked_is_found_through_the_balances(desk):
    order = desk.execute(desk.decide(Action.BUY)).order
    forget_answer(desk, order, OrderStatus.SUBMITTED)
    backdate(desk, order.client_id, timedelta(0))
    report = desk.reconcile()
    assert report.agrees
    assert load_orders(desk.ledger)[0].status == OrderStatus.FILLED


def test_an_order_that_never_reached_the_venue_is_closed_only_after_its_visibility_lag(
    desk,
):
    order = desk.execute(desk.decide(Action.BUY), losing(desk)).order
    assert order.status == OrderStatus.UNRESOLVED
    assert kinds(desk.reconcile()) == [("order unresolved", False)]
    assert len(load_incidents(desk.ledger, open_only=True)) == 1
    backdate(desk, order.client_id, 2 * LAG)
    report = desk.reconcile()
    assert report.agrees
    assert load_orders(desk.ledger)[0].status == OrderStatus.REJECTED
    assert load_incidents(desk.ledger, open_only=True) == []


def losing(desk: PaperDesk):
    """A venue client whose requests go nowhere, without an answer."""
    venue = desk.venue()

    def lose(*_):
        raise UnresolvedError("connection reset")

    venue.submit_order = lose
    return venue


def test_an_order_given_up_that_turns_up_late_is_taken_back_with_its_fills(desk):
    order = desk.execute(desk.decide(Action.BUY), losing(desk)).order
    backdate(desk, order.client_id, LAG)
    desk.reconcile()
    assert load_orders(desk.ledger)[0].status == OrderStatus.REJECTED
    desk.step()
    desk.venue().submit_order(
        OrderRequest(order.symbol, "buy", OrderType.MARKET, order.amount, order.client_id)
    )
    report = desk.reconcile()
    assert ("late order", True) in kinds(report)
    assert report.agrees
    late = load_orders(desk.ledger)[0]
    assert (late.status, late.filled) == (OrderStatus.FILLED, order.amount)
    assert {fill.client_id for fill in load_fills(desk.ledger)} == {order.client_id}
    assert desk.reconcile().discrepancies == ()


def test_a_late_order_takes_back_fills_that_were_booked_as_somebody_elses(desk):
    order = desk.execute(desk.decide(Action.BUY), losing(desk)).order
    backdate(desk, order.client_id, LAG)
    desk.reconcile()
    late = desk.venue().submit_order(
        OrderRequest(order.symbol, "buy", OrderType.MARKET, order.amount, order.client_id)
    )
    trades = desk.venue().fetch_order_trades(order.symbol, late.venue_order_id)
    with desk.ledger.write() as books:
        assert [fill.client_id for fill in book_trades(books, "paper", trades)] == [None]
    assert desk.reconcile().agrees
    assert {fill.client_id for fill in load_fills(desk.ledger)} == {order.client_id}
    assert load_orders(desk.ledger)[0].status == OrderStatus.FILLED
    assert load_position(desk.ledger, desk.bot.name, order.symbol).amount > 0


def test_an_order_whose_fills_the_venue_does_not_list_is_an_open_incident(desk, monkeypatch):
    desk.paper.control("faults", script=[{"kind": "accept_then_5xx", "on": "POST order"}])
    monkeypatch.setattr("tradelib.venue.client.Venue.fetch_order_trades", lambda *_: [])
    monkeypatch.setattr("tradelib.venue.client.Venue.fetch_trades_since", lambda *_: [])
    order = desk.execute(desk.decide(Action.BUY)).order
    assert desk.reconcile().agrees  # it may be on its way
    backdate(desk, order.client_id, LAG)
    report = desk.reconcile()
    assert ("fills missing", False) in kinds(report)
    assert kinds(report).count(("balance differs", False)) == 2
    monkeypatch.undo()
    monkeypatch.setenv("DESK_HOME", str(desk.settings.home))
    assert desk.reconcile().agrees
    assert load_incidents(desk.ledger, open_only=True) == []


def test_a_state_that_cannot_be_is_an_incident_and_not_the_end_of_the_pass(desk, monkeypatch):
    order = desk.execute(desk.decide(Action.BUY)).order
    with desk.ledger.write() as books:
        books.execute(tables.orders.update().values(status=OrderStatus.PARTIALLY_FILLED))
    fetch = desk.venue().fetch_order
    told = replace(
        fetch(order.symbol, order.client_id, order.venue_order_id), status=VenueStatus.REJECTED
    )
    monkeypatch.setattr("tradelib.venue.client.Venue.fetch_order", lambda *_, **__: told)
    report = desk.reconcile()
    assert ("venue contradicts itself", False) in kinds(report)
    assert load_orders(desk.ledger)[0].status == OrderStatus.PARTIALLY_FILLED
    desk.reconcile()
    assert len(load_incidents(desk.ledger)) == 1  # the same one, still open
    told = replace(told, status=VenueStatus.PARTIALLY_FILLED)
    desk.reconcile()
    assert load_incidents(desk.ledger, open_only=True) == []


def test_a_reply_that_lags_changes_nothing(desk, monkeypatch):
    order = desk.execute(desk.decide(Action.BUY)).order
    with desk.ledger.write() as books:
        books.execute(tables.orders.update().values(status=OrderStatus.PARTIALLY_FILLED))
    fetch = desk.venue().fetch_order
    told = replace(
        fetch(order.symbol, order.client_id, order.venue_order_id),
        status=VenueStatus.OPEN, filled=Decimal(0), cost=Decimal(0),
    )  # fmt: skip
    monkeypatch.setattr("tradelib.venue.client.Venue.fetch_order", lambda *_, **__: told)
    assert desk.reconcile().agrees
    late = load_orders(desk.ledger)[0]
    assert (late.status, late.filled) == (OrderStatus.PARTIALLY_FILLED, order.filled)


def test_a_coin_without_a_price_stops_neither_orders_nor_reconciliation(desk, monkeypatch):
    desk.ccxt().create_order("SOL/USDT", "market", "buy", 1)
    desk.reconcile()
    quotes = Venue.fetch_quotes

    def without_sol(venue, symbols, **more):
        return quotes(venue, [symbol for symbol in symbols if symbol != "SOL/USDT"], **more)

    monkeypatch.setattr("tradelib.venue.client.Venue.fetch_quotes", without_sol)
    desk.step()
    assert desk.execute(desk.decide(Action.BUY)).order.status == OrderStatus.FILLED
    assert desk.reconcile().unpriced == ("SOL",)


def test_a_foreign_trade_before_one_of_ours_is_found(desk):
    desk.step()
    desk.ccxt().create_order("BTC/USDT", "market", "buy", 0.01)
    desk.execute(desk.decide(Action.BUY))
    report = desk.reconcile()
    assert ("foreign fill", True) in kinds(report)
    assert report.agrees


def test_a_foreign_trade_at_the_moment_of_opening_is_booked_once(home):
    with paper_desk(home) as desk:
        desk.ccxt().create_order("BTC/USDT", "market", "buy", 0.01)
        desk.reconcile()
        desk.ccxt().create_order("BTC/USDT", "market", "buy", 0.02)
        report = desk.reconcile()
        assert report.agrees
        assert [fill.amount for fill in load_fills(desk.ledger)] == [Decimal("0.02")]


def test_every_open_incident_is_counted_and_closed_however_many(desk):
    with desk.ledger.write() as books:
        for number in range(60):
            open_incident(books, "foreign order", "paper", f"order-{number}", {})
    assert len(load_incidents(desk.ledger, open_only=True)) == 60
    desk.reconcile()
    assert load_incidents(desk.ledger, open_only=True) == []


def test_trades_of_somebody_else_are_booked_as_foreign_and_balances_agree(desk):
    desk.step()
    desk.ccxt().create_order("BTC/USDT", "market", "buy", 0.01)
    report = desk.reconcile()
    assert ("foreign fill", True) in kinds(report)
    assert report.agrees
    assert {fill.client_id for fill in load_fills(desk.ledger)} == {None}


def test_an_order_of_somebody_else_is_named_and_never_touched(desk):
    price = round(desk.ccxt().fetch_ticker("BTC/USDT")["bid"] / 2)
    theirs = desk.ccxt().create_order("BTC/USDT", "limit", "buy", 0.01, price)
    report = desk.reconcile()
    assert kinds(report) == [("foreign order", False)]
    assert [i.subject for i in load_incidents(desk.ledger, open_only=True)] == [theirs["id"]]
    assert desk.ccxt().fetch_order(theirs["id"], "BTC/USDT")["status"] == "open"
    desk.ccxt().cancel_order(theirs["id"], "BTC/USDT")
    assert desk.reconcile().agrees
    assert load_incidents(desk.ledger, open_only=True) == []


def test_a_balance_that_no_trade_explains_is_an_open_incident_until_it_agrees(desk):
    balance = load_balances(desk.ledger, "paper")[0]
    with desk.ledger.write() as books:
        books.execute(tables.balances.update().values(booked=balance.booked - Decimal("1E-8")))
    report = desk.reconcile()
    assert kinds(report) == [("balance differs", False)]
    assert report.discrepancies[0].ledger == "9999.99999999"
    with desk.ledger.write() as books:
        books.execute(tables.balances.update().values(booked=balance.booked))
    assert desk.reconcile().agrees
    assert load_incidents(desk.ledger, open_only=True) == []


def test_fills_delivered_twice_are_booked_once(desk):
    order = desk.execute(desk.decide(Action.BUY)).order
    trades = desk.venue().fetch_order_trades(order.symbol, order.venue_order_id)
    before = load_balances(desk.ledger, "paper")
    with desk.ledger.write() as books:
        assert book_trades(books, "paper", [*trades, *trades]) == []
    assert load_balances(desk.ledger, "paper") == before


def test_a_quiet_pass_asks_the_same_whatever_the_history_holds(desk):
    def weight():
        before = desk.paper.control("status")["requests"]
        desk.reconcile()
        after = desk.paper.control("status")["requests"]
        return {path: after[path] - before.get(path, 0) for path in after}

    quiet = weight()
    for action in (Action.BUY, Action.SELL, Action.BUY, Action.SELL):
        desk.trade(action, "1" if action == Action.SELL else "0.1")
    busy = {path: count for path, count in weight().items() if count}
    assert not any("myTrades" in path for path in busy)
    assert sum(busy.values()) <= sum(quiet.values()) + 1  # one quote of the asset now held


def test_a_quiet_pass_costs_the_same_when_a_long_history_has_just_been_written(desk):
    """As right after a resync, whose orders have all changed within the venue's lag."""
    order = desk.execute(desk.decide(Action.BUY)).order
    before = desk.count_steps(desk.reconcile)
    desk.repeat(order, 2000, updated_at=utc_now())
    assert desk.count_steps(desk.reconcile) <= 1.5 * before


money = st.decimals("0", "1000000", places=8)
totals = st.dictionaries(st.sampled_from(["BTC", "ETH", "USDT"]), money)


@given(totals, totals)
def test_balances_agree_exactly_when_no_asset_differs(booked, actual):
    differing = compare_balances(booked, actual)
    for asset in {*booked, *actual}:
        same = booked.get(asset, Decimal(0)) == actual.get(asset, Decimal(0))
        assert (asset not in differing) == same


def test_an_order_of_ours_that_the_ledger_lacks_stops_entries_until_a_resync(desk):
    """As after a restored backup: the same decision could be ordered again."""
    name = client_order_id("d-lost")
    desk.venue().submit_order(
        OrderRequest("BTC/USDT", "buy", OrderType.MARKET, Decimal("0.001"), name)
    )
    for _ in range(2):  # it stays, although its fills are booked by then
        report = desk.reconcile()
    kinds_open = [i.kind for i in load_incidents(desk.ledger, open_only=True)]
    assert kinds_open == ["order missing from the ledger"]
    denied = desk.execute(desk.decide(Action.BUY))
    assert [refusal.limit_name for refusal in denied.refusals] == ["BooksComplete"]
    assert report.venue == "paper"


def test_trades_in_a_symbol_that_no_bot_trades_are_booked_too(desk):
    desk.ccxt().create_order("SOL/USDT", "market", "buy", 1)
    report = reconcile(desk.ledger, desk.venue(), ["BTC/USDT"])
    assert report.agrees
    assert {fill.symbol for fill in load_fills(desk.ledger)} == {"SOL/USDT"}


def test_a_symbol_that_the_venue_lists_no_more_is_named_and_stops_nothing(desk):
    report = reconcile(desk.ledger, desk.venue(), ["BTC/USDT", "GONE/USDT"])
    assert kinds(report) == [("symbol no longer traded", False)]
    assert reconcile(desk.ledger, desk.venue(), ["BTC/USDT"]).agrees


def test_balances_that_lag_behind_a_fill_are_no_incident(desk):
    desk.paper.control("faults", script=[{"kind": "read_lag"}], options={"lag_ms": 60_000})
    assert desk.execute(desk.decide(Action.BUY)).order.status == OrderStatus.FILLED
    assert "balance differs" not in [kind for kind, _ in kinds(desk.reconcile())]
    desk.paper.control("faults", script=[])
    assert desk.reconcile().agrees


def test_the_evidence_of_an_open_incident_is_the_newest(desk):
    balance = load_balances(desk.ledger, "paper")[0]
    for off in ("1", "2"):
        with desk.ledger.write() as books:
            books.execute(tables.balances.update().values(booked=balance.booked - Decimal(off)))
        desk.reconcile()
    (incident,) = load_incidents(desk.ledger, open_only=True)
    assert incident.evidence["ledger"].startswith("9998")
