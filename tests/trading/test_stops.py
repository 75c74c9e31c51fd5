"""What rests at the venue protects the position that is there, and nothing else rests."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from tests.desks import PaperDesk, paper_desk
from tradelib.clock import utc_now
from tradelib.errors import InvalidInput
from tradelib.settings import LimitSettings
from tradelib.trading import tables
from tradelib.trading.bots import StopParams, update_bot
from tradelib.trading.chain import find_chain
from tradelib.trading.decisions import Action
from tradelib.trading.halts import halt_trading, resume_trading
from tradelib.trading.incidents import load_incidents
from tradelib.trading.manual import ManualOrder, place_manual_order
from tradelib.trading.orders import OrderStatus, Role, Side, load_orders
from tradelib.trading.positions import Position, load_position
from tradelib.trading.stops import compare_stops, maintain_stops, wanted_stops
from tradelib.venue import Instrument, OrderType, Quote

D = Decimal
BTC = Instrument("BTC/USDT", "BTC", "USDT", tick=D("0.01"), lot=D("0.00001"), min_notional=D(5))
MARKET = Quote("BTC/USDT", D("99.99"), D("100.01"))


@pytest.fixture
def desk(home):
    with paper_desk(home) as desk:
        desk.reconcile()
        yield desk


def protect(desk: PaperDesk, **stops: float) -> None:
    update_bot(desk.ledger, replace(desk.bot, stops=stops))


def maintain(desk: PaperDesk):
    return maintain_stops(desk.ledger, desk.venue(), desk.bot, "process 1 on test")


def resting(desk: PaperDesk) -> list[tuple[str, str, Decimal]]:
    """What the exchange itself has resting, by type."""
    found = desk.ccxt().fetch_open_orders(desk.bot.symbol)
    return sorted(
        (o["info"]["type"], o["side"], D(o["info"]["stopPrice"]) or D(o["info"]["price"]))
        for o in found
    )


def held(desk: PaperDesk) -> Decimal:
    return load_position(desk.ledger, desk.bot.name, desk.bot.symbol).amount


def entry(desk: PaperDesk) -> Decimal:
    return load_position(desk.ledger, desk.bot.name, desk.bot.symbol).average_entry


def position(amount: str, cost: str) -> Position:
    return Position("BTC/USDT", D(amount), D(cost))


def test_a_loss_and_a_profit_rest_at_their_distance_from_the_entry():
    params = StopParams(loss=0.05, profit=0.1)
    target, stop = wanted_stops(params, position("2", "200"), BTC, MARKET)
    assert (target.role, target.type, target.limit_price) == ("TARGET", OrderType.POST_ONLY, 110)
    assert (stop.role, stop.type, stop.stop_price) == ("STOP", OrderType.STOP_LOSS, 95)
    assert target.amount == stop.amount == 2


def test_a_price_beyond_the_stop_is_sold_at_the_market():
    (stop,) = wanted_stops(StopParams(loss=0.05), position("2", "220"), BTC, MARKET)
    assert (stop.role, stop.type) == ("STOP", OrderType.MARKET)
    (target,) = wanted_stops(StopParams(profit=0.1), position("2", "180"), BTC, MARKET)
    assert (target.role, target.type) == ("TARGET", OrderType.MARKET)


@pytest.mark.parametrize("amount", ["0", "0.00001", "0.04"])
def test_a_position_too_small_for_the_venue_wants_nothing(amount):
    assert wanted_stops(StopParams(loss=0.05), position(amount, "1"), BTC, MARKET) == ()


def test_a_trailing_stop_stands_alone():
    with pytest.raises(InvalidInput, match="stands alone"):
        StopParams(trailing=0.05, loss=0.1)


def test_an_entry_gets_its_stop_and_the_stop_leads_back_to_its_decision(desk: PaperDesk):
    protect(desk, loss=0.05)
    done = desk.execute(desk.decide(Action.BUY))
    maintain(desk)
    (kind, side, price) = resting(desk)[0]
    assert (kind, side) == ("STOP_LOSS", "sell")
    assert abs(price - entry(desk) * D("0.95")) <= D("0.01")
    stop = next(o for o in load_orders(desk.ledger) if o.role == Role.STOP)
    assert (stop.status, stop.decision) == (OrderStatus.OPEN, done.decision.id)
    assert find_chain(desk.ledger, stop.client_id).run.id == done.decision.run
    assert maintain(desk).is_done
    assert len(resting(desk)) == 1
    assert desk.reconcile().discrepancies == ()


def test_a_bracket_is_one_pair_of_which_one_fill_ends_the_other(desk: PaperDesk):
    protect(desk, loss=0.5, profit=0.002)
    desk.execute(desk.decide(Action.BUY))
    maintain(desk)
    assert [kind for kind, _, _ in resting(desk)] == ["LIMIT_MAKER", "STOP_LOSS"]
    for _ in range(600):
        desk.step(5)
        if not resting(desk):
            break
    assert desk.reconcile().agrees
    by_role = {o.role: o.status for o in load_orders(desk.ledger) if Role(o.role).protects}
    assert by_role == {Role.TARGET: OrderStatus.FILLED, Role.STOP: OrderStatus.EXPIRED}
    assert held(desk) < D("0.00002")
    assert maintain(desk).is_done
    assert desk.reconcile().discrepancies == ()


def test_a_trailing_stop_rests_with_its_distance(desk: PaperDesk):
    protect(desk, trailing=0.01)
    desk.execute(desk.decide(Action.BUY))
    maintain(desk)
    found = desk.ccxt().fetch_open_orders(desk.bot.symbol)
    assert [int(o["info"]["trailingDelta"]) for o in found] == [100]
    assert desk.reconcile().discrepancies == ()


def test_a_larger_position_gets_a_larger_stop(desk: PaperDesk):
    protect(desk, loss=0.05)
    desk.trade(Action.BUY)
    maintain(desk)
    desk.trade(Action.BUY)
    named = desk.reconcile()
    assert [f.kind for f in named.discrepancies] == ["position without stop"]
    maintain(desk)
    found = desk.ccxt().fetch_open_orders(desk.bot.symbol)
    assert len(found) == 1
    assert D(found[0]["info"]["origQty"]) == D(str(held(desk))).quantize(D("0.00001"), "ROUND_DOWN")
    assert desk.reconcile().discrepancies == ()
    assert load_incidents(desk.ledger, open_only=True) == []


def test_a_sale_withdraws_the_stop_first(desk: PaperDesk):
    protect(desk, loss=0.05)
    desk.trade(Action.BUY)
    maintain(desk)
    assert desk.execute(desk.decide(Action.SELL, "1")).order.status == OrderStatus.FILLED
    assert resting(desk) == []
    assert maintain(desk).is_done
    assert desk.reconcile().discrepancies == ()


def test_a_sale_that_a_halt_denies_leaves_the_stop_where_it_is(desk: PaperDesk):
    protect(desk, loss=0.05)
    desk.trade(Action.BUY)
    maintain(desk)
    halt_trading(desk.ledger, "look")
    assert desk.execute(desk.decide(Action.SELL, "1")).order.status == OrderStatus.DENIED
    assert len(resting(desk)) == 1
    resume_trading(desk.ledger)
    assert desk.reconcile().discrepancies == ()


def test_a_stop_that_fills_while_it_is_withdrawn_has_sold_the_position(desk: PaperDesk):
    protect(desk, loss=0.05)
    desk.trade(Action.BUY)
    maintain(desk)
    desk.paper.control("faults", script=[{"kind": "cancel_fill_race"}])
    done = desk.execute(desk.decide(Action.SELL, "1"))
    assert done.order.status == OrderStatus.DENIED  # nothing is left to sell
    stop = next(o for o in load_orders(desk.ledger) if o.role == Role.STOP)
    assert stop.status == OrderStatus.FILLED
    assert held(desk) < D("0.00002")
    assert desk.reconcile().agrees


def test_a_stop_left_without_its_position_is_named_and_taken_away(desk: PaperDesk):
    protect(desk, loss=0.05)
    desk.trade(Action.BUY)
    maintain(desk)
    protect(desk)
    named = desk.reconcile()
    assert [f.kind for f in named.discrepancies] == ["stop without position"]
    assert len(load_incidents(desk.ledger, open_only=True)) == 1
    maintain(desk)
    assert resting(desk) == []
    assert desk.reconcile().discrepancies == ()
    assert load_incidents(desk.ledger, open_only=True) == []


def test_a_cancelled_stop_is_a_position_without_its_stop_until_it_is_placed_again(desk: PaperDesk):
    protect(desk, loss=0.05)
    desk.trade(Action.BUY)
    maintain(desk)
    desk.ccxt().cancel_all_orders(desk.bot.symbol)  # somebody else
    named = desk.reconcile()
    assert "position without stop" in [f.kind for f in named.discrepancies]
    maintain(desk)
    assert len(resting(desk)) == 1


def test_no_stop_is_placed_while_trading_is_halted(desk: PaperDesk):
    protect(desk, loss=0.05)
    desk.trade(Action.BUY)
    halt_trading(desk.ledger, "look")
    maintain(desk)
    assert resting(desk) == []
    resume_trading(desk.ledger)
    maintain(desk)
    assert len(resting(desk)) == 1


def test_a_stop_that_the_venue_refuses_is_not_offered_again_at_once(desk: PaperDesk):
    protect(desk, loss=0.05)
    desk.trade(Action.BUY)
    desk.paper.control("halt", symbol=desk.bot.symbol)
    for _ in range(3):
        maintain(desk)
    assert [o.status for o in load_orders(desk.ledger) if o.role == Role.STOP] == ["REJECTED"]
    desk.paper.control("unhalt", symbol=desk.bot.symbol)
    with desk.ledger.write() as books:
        books.execute(tables.orders.update().values(updated_at=utc_now() - timedelta(hours=1)))
    maintain(desk)
    assert len(resting(desk)) == 1


def test_what_a_half_filled_bracket_leaves_unprotected_is_placed_anew(desk: PaperDesk):
    protect(desk, loss=0.05, profit=0.1)
    desk.trade(Action.BUY)
    maintain(desk)
    live = [o for o in load_orders(desk.ledger) if Role(o.role).protects]
    target = next(order for order in live if order.role == Role.TARGET)
    half = (target.amount / 2).quantize(D("0.00001"))
    # The target's first fill ends the other leg at the venue.
    begun = replace(target, status=OrderStatus.PARTIALLY_FILLED, filled=target.amount - half)
    rest = Position("BTC/USDT", half, half * entry(desk))
    quote = desk.venue().fetch_quotes(["BTC/USDT"])["BTC/USDT"]
    wanted = wanted_stops(desk.bot.stop_params, rest, BTC, quote)
    plan = compare_stops(wanted, [begun])
    assert plan.cancel == (begun,)
    assert [stop.role for stop in plan.place] == [Role.TARGET, Role.STOP]
    assert {stop.amount for stop in plan.place} == {half}
    assert compare_stops(wanted, [replace(begun, fills_complete=False)]).waits


def test_a_sale_waits_until_its_stop_is_withdrawn_and_may_then_be_tried_again(desk: PaperDesk):
    protect(desk, loss=0.05)
    desk.trade(Action.BUY)
    maintain(desk)
    desk.paper.control(
        "faults", script=[{"kind": "hang_before", "on": "DELETE order"}], options={"hold_ms": 10}
    )
    decision = desk.decide(Action.SELL, "1")
    denied = desk.execute(decision)
    assert [refusal.limit_name for refusal in denied.refusals] == ["StopsWithdrawn"]
    assert len(resting(desk)) == 1
    again = desk.execute(decision)
    assert (again.order.status, again.order.attempt) == (OrderStatus.FILLED, 1)
    assert resting(desk) == []


def test_a_stop_that_came_at_a_busy_moment_is_offered_again_at_once(desk: PaperDesk):
    protect(desk, loss=0.05)
    desk.trade(Action.BUY)
    desk.paper.control("faults", script=[{"kind": "order_limit"}])
    maintain(desk)
    assert resting(desk) == []
    maintain(desk)
    assert len(resting(desk)) == 1


def test_a_position_whose_symbol_has_no_quote_is_named(desk: PaperDesk, monkeypatch):
    protect(desk, loss=0.05)
    desk.trade(Action.BUY)
    monkeypatch.setattr("tradelib.venue.client.Venue.fetch_quotes", lambda *_, **__: {})
    assert "position without stop" in [f.kind for f in desk.reconcile().discrepancies]


def test_what_a_limit_above_the_whole_book_bought_in_part_gets_its_stop(desk: PaperDesk):
    """What is left of it rests as the best bid, above all that the market asked before."""
    protect(desk, loss=0.02)
    venue, symbol = desk.venue(), desk.bot.symbol
    ask = venue.fetch_quotes([symbol])[symbol].ask
    dear = (ask * D("1.015")).quantize(D("0.01"))
    wanted = ManualOrder(symbol, Side.BUY, D("0.02"), OrderType.LIMIT, dear, bot=desk.bot.name)
    desk.paper.control("faults", script=[{"kind": "partial"}])
    (bought,) = place_manual_order(
        desk.ledger, venue, desk.settings.limits, wanted, "process 1 on test"
    )
    assert bought.status == OrderStatus.PARTIALLY_FILLED
    quote = venue.fetch_quotes([symbol])[symbol]
    assert quote.bid == dear <= quote.ask
    maintain(desk)
    assert [kind for kind, _, _ in resting(desk)] == ["LIMIT", "STOP_LOSS"]
    assert desk.reconcile().discrepancies == ()


def test_stops_are_no_trades_of_the_day(desk: PaperDesk):
    limits = LimitSettings(max_trades_per_day=2)
    desk = replace(desk, settings=desk.settings.model_copy(update={"limits": limits}))
    protect(desk, loss=0.05)
    desk.trade(Action.BUY)
    maintain(desk)
    protect(desk, loss=0.06)
    maintain(desk)
    assert desk.trade(Action.BUY, "0.02").order.status == OrderStatus.FILLED


@pytest.mark.parametrize("stops", [{"loss": 0.05}, {"loss": 0.05, "profit": 0.1}])
def test_stops_whose_answer_was_lost_are_found_again(desk: PaperDesk, stops):
    protect(desk, **stops)
    desk.trade(Action.BUY)
    desk.paper.control("faults", script=[{"kind": "accept_then_timeout"}])
    maintain(desk)
    found = [o for o in load_orders(desk.ledger) if Role(o.role).protects]
    assert {o.status for o in found} == {OrderStatus.OPEN}
    assert len(resting(desk)) == len(found) == len(stops)
    assert maintain(desk).is_done
