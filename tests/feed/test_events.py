"""Events of the account's stream only hasten what reconciliation would find."""

import random
from dataclasses import replace
from decimal import Decimal

import pytest

from tests.desks import PaperDesk, paper_desk
from tradelib.trading.accounts import load_balances
from tradelib.trading.decisions import Action
from tradelib.trading.events import book_events
from tradelib.trading.orders import (
    Order,
    OrderStatus,
    change_order,
    load_fills,
    load_order,
    load_orders,
)
from tradelib.venue import VenueOrder, VenueStatus, VenueTrade


@pytest.fixture
def desk(home):
    with paper_desk(home) as desk:
        desk.reconcile()
        yield desk


def trade_unseen(desk: PaperDesk, action: Action = Action.BUY) -> Order:
    """An order that the venue has filled and of which the desk has no answer yet."""
    script = [{"kind": "accept_then_timeout", "on": "POST order", "count": 1},
              {"kind": "read_lag", "count": 1000}]  # fmt: skip
    desk.paper.control("faults", script=script, options={"lag_ms": 60_000})
    order = desk.execute(desk.decide(action)).order
    desk.paper.control("faults", script=[])
    assert order.status == OrderStatus.UNRESOLVED
    return order


def truth(desk: PaperDesk, order: Order) -> tuple[list[VenueOrder], list[VenueTrade]]:
    """The events of an order that filled, in the order in which they happened."""
    venue = desk.venue()
    filled = venue.fetch_order(order.symbol, order.client_id)
    trades = venue.fetch_order_trades(order.symbol, filled.venue_order_id)
    nothing = Decimal(0)
    new = replace(filled, status=VenueStatus.OPEN, filled=nothing, cost=nothing)
    half = replace(
        filled, status=VenueStatus.PARTIALLY_FILLED, filled=filled.amount / 2,
        cost=filled.cost / 2,
    )  # fmt: skip
    return [new, half, filled], trades


def test_an_order_is_filled_by_its_events_alone(desk):
    order = trade_unseen(desk)
    orders, trades = truth(desk, order)
    done = book_events(desk.ledger, desk.market.venue, orders, trades)
    after = load_order(desk.ledger, order.client_id)
    assert (after.status, after.filled, after.fills_complete) == ("FILLED", order.amount, True)
    assert [fill.trade_id for fill in done.fills] == [trade.trade_id for trade in trades]
    assert not done.strange
    found = desk.reconcile()
    assert (found.agrees, found.discrepancies, found.fills_booked) == (True, (), 0)


@pytest.mark.parametrize("seed", range(4))
def test_whatever_order_events_come_in_the_books_are_the_venues(desk, seed):
    chance = random.Random(seed)
    for action in (Action.BUY, Action.SELL, Action.BUY):
        order = trade_unseen(desk, action)
        orders, trades = truth(desk, order)
        events = [*(([one], []) for one in orders), *(([], [one]) for one in trades)]
        told = [event for event in events for _ in range(chance.choice((0, 1, 1, 2)))]
        chance.shuffle(told)
        furthest = Decimal(0)
        for event in told:
            book_events(desk.ledger, desk.market.venue, *event)
            now = load_order(desk.ledger, order.client_id)
            assert now.filled >= furthest
            furthest = now.filled
        assert desk.reconcile().agrees
        assert load_order(desk.ledger, order.client_id).status == OrderStatus.FILLED
        mine = [f for f in load_fills(desk.ledger) if f.client_id == order.client_id]
        assert sorted(f.trade_id for f in mine) == sorted(t.trade_id for t in trades)
        desk.step()
    theirs = desk.venue().fetch_balances()
    assert {b.asset: b.booked for b in load_balances(desk.ledger, desk.market.venue)} == {
        asset: balance.free + balance.used for asset, balance in theirs.items()
    }


def test_what_has_ended_is_not_taken_back(desk):
    order = trade_unseen(desk)
    orders, trades = truth(desk, order)
    book_events(desk.ledger, desk.market.venue, orders, trades)
    before = load_order(desk.ledger, order.client_id)
    again = book_events(desk.ledger, desk.market.venue, orders[::-1], trades)
    assert (again.changed, again.fills) == ((), ())
    assert load_order(desk.ledger, order.client_id) == before


def test_somebody_elses_order_is_left_to_reconciliation(desk):
    desk.ccxt().create_order(desk.bot.symbol, "market", "buy", 0.01)
    venue = desk.venue()
    (theirs,) = venue.fetch_trades_since(desk.bot.symbol, None)
    answer = venue.fetch_order(desk.bot.symbol, "", theirs.venue_order_id)
    done = book_events(desk.ledger, desk.market.venue, [answer], [theirs])
    assert (done.strange_orders, done.strange) == ((answer,), (theirs,))
    assert (load_orders(desk.ledger), load_fills(desk.ledger)) == ([], [])
    desk.reconcile()
    assert [fill.client_id for fill in load_fills(desk.ledger)] == [None]


def test_an_order_that_was_given_up_is_left_to_reconciliation(desk):
    order = trade_unseen(desk)
    orders, trades = truth(desk, order)
    with desk.ledger.write() as books:
        change_order(books, order, status=OrderStatus.REJECTED, proven_absent=True)
    done = book_events(desk.ledger, desk.market.venue, orders, trades)
    assert len(done.strange_orders) == 3
    assert load_fills(desk.ledger) == []
    desk.reconcile()
    assert load_order(desk.ledger, order.client_id).status == OrderStatus.FILLED


def test_nothing_is_booked_before_the_books_are_open(home):
    with paper_desk(home) as desk:
        desk.ccxt().create_order(desk.bot.symbol, "market", "buy", 0.01)
        (theirs,) = desk.venue().fetch_trades_since(desk.bot.symbol, None)
        done = book_events(desk.ledger, desk.market.venue, [], [theirs])
        assert done.strange == (theirs,)
        assert load_fills(desk.ledger) == []
