"""A person's orders pass the same limits and the same steps as a bot's."""

from dataclasses import replace
from decimal import Decimal

import pytest

from tests.desks import PaperDesk, paper_desk
from tradelib.errors import InvalidInput, LeaseHeld
from tradelib.trading.bots import add_bot, new_bot, update_bot
from tradelib.trading.decisions import Action
from tradelib.trading.halts import halt_trading
from tradelib.trading.leases import bot_lease, lease
from tradelib.trading.leaving import cancel_orders, flatten_positions
from tradelib.trading.manual import (
    ManualOrder,
    place_manual_order,
    preview_order,
)
from tradelib.trading.orders import OrderStatus, Role, Side, load_orders
from tradelib.trading.positions import load_position
from tradelib.trading.stops import maintain_stops
from tradelib.trading.upkeep import reconcile_venue
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


def test_a_refusal_tells_amounts_without_empty_digits(desk: PaperDesk):
    wanted = {"amount": D("1.00000"), "type": OrderType.LIMIT, "limit_price": D("1.00")}
    told = [r.reason for r in preview(desk, side=Side.BUY, **wanted).refusals]
    assert "an order worth 1 USDT is less than the venue takes" in told
    told = [r.reason for r in preview(desk, side=Side.SELL, amount=D("0.01000")).refusals]
    assert "the order needs 0.01 BTC, there are 0" in told


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


def flatten(desk: PaperDesk):
    return flatten_positions(desk.ledger, desk.venue(), desk.settings.limits, ME)


def protect(desk: PaperDesk, **stops: float) -> None:
    update_bot(desk.ledger, replace(desk.bot, stops=stops))


def maintain(desk: PaperDesk):
    return maintain_stops(desk.ledger, desk.venue(), desk.bot, ME)


def held(desk: PaperDesk) -> Decimal:
    return load_position(desk.ledger, desk.bot.name, "BTC/USDT").amount


def test_flattening_sells_what_bots_hold_and_nothing_else_although_trading_is_halted(
    desk: PaperDesk,
):
    protect(desk, loss=0.05)
    place(desk, side=Side.BUY, amount=D("0.01"))
    desk.trade(Action.BUY)
    maintain(desk)
    halt_trading(desk.ledger, "leaving")
    (sold,) = flatten(desk)
    assert (sold.bot, sold.why) == (desk.bot.name, None)
    assert [order.status for order in sold.orders] == [OrderStatus.FILLED]
    assert held(desk) < D("0.00002")
    assert desk.ccxt().fetch_balance()["BTC"]["total"] >= 0.009
    assert desk.ccxt().fetch_open_orders("BTC/USDT") == []
    assert flatten(desk) == []
    assert desk.reconcile().agrees


def test_a_position_that_cannot_be_sold_keeps_its_stop_and_keeps_no_other_from_being_sold(
    desk: PaperDesk,
):
    protect(desk, loss=0.05)
    desk.trade(Action.BUY)
    maintain(desk)
    other = new_bot("other", "paper", "ETH/USDT", "1m", "weighted")
    add_bot(desk.ledger, other)
    desk.execute(desk.decide(Action.BUY, bot=other))
    halt_trading(desk.ledger, "leaving")
    desk.paper.control("faults", script=[{"kind": "order_limit", "symbol": "BTC/USDT"}])
    told = {one.bot: one for one in flatten(desk)}
    assert "REJECTED" in told[desk.bot.name].why
    assert told["other"].why is None
    assert [o["info"]["type"] for o in desk.ccxt().fetch_open_orders("BTC/USDT")] == ["STOP_LOSS"]


def test_coins_of_a_bot_are_not_sold_as_nobody_s(desk: PaperDesk):
    desk.trade(Action.BUY)
    told = preview(desk, side=Side.SELL, amount=D("0.005"))
    assert [refusal.limit_name for refusal in told.refusals] == ["SufficientBalance"]
    place(desk, side=Side.BUY, amount=D("0.005"))
    (sold,) = place(desk, side=Side.SELL, amount=D("0.00499"))
    assert sold.status == OrderStatus.FILLED
    assert desk.reconcile().discrepancies == ()


def test_a_sale_for_a_bot_withdraws_its_stop(desk: PaperDesk):
    protect(desk, loss=0.05)
    desk.trade(Action.BUY)
    maintain(desk)
    (sold,) = place(desk, side=Side.SELL, amount=held(desk), bot=desk.bot.name)
    assert sold.status == OrderStatus.FILLED
    assert desk.ccxt().fetch_open_orders("BTC/USDT") == []


def test_a_bot_is_traded_in_its_own_symbol_only(desk: PaperDesk):
    wanted = ManualOrder("ETH/USDT", Side.BUY, D("0.05"), bot=desk.bot.name)
    with pytest.raises(InvalidInput, match="trades BTC/USDT"):
        place_manual_order(desk.ledger, desk.venue(), desk.settings.limits, wanted, ME)


def test_a_resting_order_for_a_bot_hides_no_missing_stop_and_blocks_no_exit(desk: PaperDesk):
    protect(desk, loss=0.05)
    desk.trade(Action.BUY)
    place(
        desk, side=Side.BUY, amount=D("0.001"), type=OrderType.LIMIT, limit_price=D(50_000),
        bot=desk.bot.name,
    )  # fmt: skip
    assert "position without stop" in [f.kind for f in desk.reconcile().discrepancies]
    maintain(desk)
    assert desk.reconcile().discrepancies == ()
    assert desk.trade(Action.BUY).order.status == OrderStatus.DENIED  # an entry waits for it
    assert desk.trade(Action.SELL, "1").order.status == OrderStatus.FILLED


def test_one_order_that_cannot_be_cancelled_keeps_no_other_and_is_cancelled_later(desk: PaperDesk):
    for _ in range(3):
        place(
            desk, side=Side.BUY, amount=D("0.001"), type=OrderType.LIMIT, limit_price=D(50_000)
        )  # fmt: skip
    desk.paper.control("faults", script=[{"kind": "rate_limit", "on": "DELETE order"}])
    statuses = [order.status for order in cancel_orders(desk.ledger, desk.venue())]
    assert sorted(statuses) == ["CANCELED", "CANCELED", "OPEN"]
    assert reconcile_venue(desk.ledger, desk.venue(), ME).agrees
    assert desk.ccxt().fetch_open_orders("BTC/USDT") == []


def test_an_order_that_turns_up_after_its_cancel_is_cancelled_then(desk: PaperDesk):
    desk.paper.control(
        "faults",
        script=[{"kind": "accept_then_timeout", "on": "POST order"}, {"kind": "read_lag"}],
        options={"lag_ms": 60_000},
    )
    (lost,) = place(
        desk, side=Side.BUY, amount=D("0.001"), type=OrderType.LIMIT, limit_price=D(50_000)
    )
    assert lost.status == OrderStatus.UNRESOLVED
    desk.paper.control("faults", script=[{"kind": "hang_before", "on": "DELETE order"}],
                       options={"hold_ms": 10})  # fmt: skip
    cancel_orders(desk.ledger, desk.venue())
    for _ in range(2):
        told = reconcile_venue(desk.ledger, desk.venue(), ME)
    assert told.agrees
    assert desk.ccxt().fetch_open_orders("BTC/USDT") == []
    assert load_orders(desk.ledger)[0].status == OrderStatus.CANCELED


def test_somebody_else_s_orders_are_never_cancelled(desk: PaperDesk):
    bid = preview(desk, side=Side.BUY, amount=D("0.01")).quote.bid
    theirs = desk.ccxt().create_order("BTC/USDT", "limit", "buy", 0.01, float(bid) // 2)
    assert cancel_orders(desk.ledger, desk.venue()) == []
    assert desk.ccxt().fetch_order(theirs["id"], "BTC/USDT")["status"] == "open"
