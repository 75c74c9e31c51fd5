"""A person's orders pass the same limits and the same steps as a bot's."""

from dataclasses import replace
from decimal import Decimal

import pytest

from tests.desks import PaperDesk, paper_desk
from tradelib.errors import InvalidInput, LeaseHeld
from tradelib.trading.bots import update_bot
from tradelib.trading.decisions import Action
from tradelib.trading.halts import TradingState, halt_trading
from tradelib.trading.leases import bot_lease, lease
from tradelib.trading.manual import (
    ManualOrder,
    cancel_orders,
    flatten_positions,
    place_manual_order,
    preview_order,
)
from tradelib.trading.orders import OrderStatus, Role, Side, load_orders
from tradelib.trading.positions import load_position
from tradelib.trading.stops import maintain_stops
from tradelib.venue import OrderType

D = Decimal
ME = "process 1 on test"


@pytest.fixture
def desk(home):
    with paper_desk(home) as desk:
        desk.reconcile()
        yield desk


def preview(desk: PaperDesk, **wanted):
    return preview_order(
        desk.ledger, desk.venue(), desk.settings.limits, ManualOrder("BTC/USDT", **wanted)
    )


def place(desk: PaperDesk, **wanted):
    return place_manual_order(
        desk.ledger, desk.venue(), desk.settings.limits, ManualOrder("BTC/USDT", **wanted), ME
    )


def test_a_preview_tells_price_value_fee_and_changes_nothing(desk: PaperDesk):
    told = preview(desk, side=Side.BUY, amount=D("0.0100049"))
    assert told.wanted.amount == D("0.01000")
    assert told.price == told.quote.ask
    assert told.notional == D("0.01") * told.quote.ask
    assert told.fee == told.notional * D("0.001")
    assert told.refusals == ()
    assert told.wanted.phrase == "buy 0.01 BTC/USDT"
    assert load_orders(desk.ledger) == []
    assert desk.ccxt().fetch_orders("BTC/USDT") == []


def test_a_preview_names_every_limit_that_would_refuse(desk: PaperDesk):
    told = preview(desk, side=Side.BUY, amount=D("5"))
    assert {"OrderNotional", "SufficientBalance", "PositionShare"} <= {
        refusal.limit_name for refusal in told.refusals
    }


def test_an_order_refused_by_a_limit_is_recorded_and_not_sent(desk: PaperDesk):
    (order,) = place(desk, side=Side.BUY, amount=D("5"))
    assert order.status == OrderStatus.DENIED
    assert "worth" in order.reason
    assert desk.ccxt().fetch_orders("BTC/USDT") == []


def test_a_purchase_of_nobody_s_is_the_account_s_and_no_bot_s(desk: PaperDesk):
    (order,) = place(desk, side=Side.BUY, amount=D("0.01"))
    assert (order.status, order.bot, order.decision) == (OrderStatus.FILLED, None, None)
    assert load_position(desk.ledger, desk.bot.name, "BTC/USDT").amount == 0
    assert desk.reconcile().discrepancies == ()


def test_a_purchase_for_a_bot_is_its_position(desk: PaperDesk):
    place(desk, side=Side.BUY, amount=D("0.01"), bot=desk.bot.name)
    assert load_position(desk.ledger, desk.bot.name, "BTC/USDT").amount == D("0.00999")
    assert desk.execute(desk.decide(Action.SELL, "1")).order.status == OrderStatus.FILLED


def test_a_limit_order_rests_and_can_be_cancelled(desk: PaperDesk):
    bid = preview(desk, side=Side.BUY, amount=D("0.01")).quote.bid
    price = (bid / 2).quantize(D("0.01"))
    (order,) = place(
        desk, side=Side.BUY, amount=D("0.01"), type=OrderType.POST_ONLY, limit_price=price
    )
    assert order.status == OrderStatus.OPEN
    assert desk.reconcile().discrepancies == ()  # it is ours, not foreign
    (ended,) = cancel_orders(desk.ledger, desk.venue())
    assert ended.status == OrderStatus.CANCELED
    assert desk.ccxt().fetch_open_orders("BTC/USDT") == []


def test_a_post_only_order_that_would_take_is_rejected(desk: PaperDesk):
    ask = preview(desk, side=Side.BUY, amount=D("0.01")).quote.ask
    (order,) = place(
        desk, side=Side.BUY, amount=D("0.01"), type=OrderType.POST_ONLY, limit_price=ask * 2
    )
    assert order.status == OrderStatus.REJECTED


@pytest.mark.parametrize("time_in_force", ["IOC", "FOK"])
def test_time_in_force_ends_what_does_not_fill_at_once(desk: PaperDesk, time_in_force):
    bid = preview(desk, side=Side.BUY, amount=D("0.01")).quote.bid
    (order,) = place(
        desk, side=Side.BUY, amount=D("0.01"), type=OrderType.LIMIT,
        limit_price=(bid / 2).quantize(D("0.01")), time_in_force=time_in_force,
    )  # fmt: skip
    assert order.status == OrderStatus.EXPIRED


def test_a_bracket_is_placed_as_one_and_both_legs_are_known(desk: PaperDesk):
    place(desk, side=Side.BUY, amount=D("0.01"))
    bid = preview(desk, side=Side.BUY, amount=D("0.01")).quote.bid
    legs = place(
        desk, side=Side.SELL, amount=D("0.009"), type=OrderType.LIMIT, is_bracket=True,
        limit_price=(bid * D("1.1")).quantize(D("0.01")),
        stop_price=(bid * D("0.9")).quantize(D("0.01")),
    )  # fmt: skip
    assert [(leg.role, leg.status) for leg in legs] == [
        (Role.TARGET, OrderStatus.OPEN), (Role.STOP, OrderStatus.OPEN),
    ]  # fmt: skip
    assert desk.reconcile().discrepancies == ()


def test_a_bot_that_is_being_traded_is_left_alone(desk: PaperDesk):
    elsewhere = lease(desk.ledger, bot_lease(desk.bot.name), "process 2 on test")
    with elsewhere, pytest.raises(LeaseHeld):
        place(desk, side=Side.BUY, amount=D("0.01"), bot=desk.bot.name)


def test_a_bot_s_protection_is_set_with_the_bot(desk: PaperDesk):
    with pytest.raises(InvalidInput, match="bots edit"):
        place(
            desk, side=Side.SELL, amount=D("0.01"), type=OrderType.STOP_LOSS,
            stop_price=D(1), bot=desk.bot.name,
        )  # fmt: skip


def test_flattening_sells_what_bots_hold_and_nothing_else(desk: PaperDesk):
    update_bot(desk.ledger, replace(desk.bot, stops={"loss": 0.05}))
    place(desk, side=Side.BUY, amount=D("0.01"))
    desk.trade(Action.BUY)
    maintain_stops(desk.ledger, desk.venue(), desk.bot, ME)
    halt_trading(desk.ledger, "leaving", TradingState.REDUCING)
    assert [order.status for order in cancel_orders(desk.ledger, desk.venue())] == ["CANCELED"]
    sold = flatten_positions(desk.ledger, desk.venue(), desk.settings.limits, ME)
    assert [order.status for order in sold] == [OrderStatus.FILLED]
    held = load_position(desk.ledger, desk.bot.name, "BTC/USDT").amount
    assert held < D("0.00002")
    assert desk.ccxt().fetch_balance()["BTC"]["total"] >= 0.009
    assert flatten_positions(desk.ledger, desk.venue(), desk.settings.limits, ME) == []
    assert desk.reconcile().agrees


def test_somebody_else_s_orders_are_never_cancelled(desk: PaperDesk):
    bid = preview(desk, side=Side.BUY, amount=D("0.01")).quote.bid
    theirs = desk.ccxt().create_order("BTC/USDT", "limit", "buy", 0.01, float(bid) // 2)
    assert cancel_orders(desk.ledger, desk.venue()) == []
    assert desk.ccxt().fetch_order(theirs["id"], "BTC/USDT")["status"] == "open"
