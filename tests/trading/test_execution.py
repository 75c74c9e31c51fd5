"""A decision becomes at most one order, recorded before it is sent."""

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from sqlalchemy import select

from tests.desks import PaperDesk, paper_desk
from tradelib.clock import utc_now
from tradelib.errors import (
    InvalidInput,
    LeaseHeld,
    LeaseLost,
    ReadOnly,
    StorageFailed,
    UnresolvedError,
)
from tradelib.settings import LimitSettings
from tradelib.trading import tables
from tradelib.trading.accounts import load_balances
from tradelib.trading.bots import load_bots
from tradelib.trading.decisions import Action
from tradelib.trading.execution import execute_decision
from tradelib.trading.halts import TradingState, halt_trading, resume_trading
from tradelib.trading.leases import bot_lease, lease, release_lease, take_lease
from tradelib.trading.orders import (
    LEGAL_CHANGES,
    OrderStatus,
    change_order,
    client_order_id,
    decision_id,
    load_fills,
    load_order,
    load_orders,
)
from tradelib.trading.positions import load_position
from tradelib.trading.runs import Outcome, finish_run


@pytest.fixture
def desk(home):
    with paper_desk(home) as desk:
        desk.reconcile()
        yield desk


def test_a_buy_decision_becomes_one_filled_order(desk: PaperDesk):
    done = desk.execute(desk.decide(Action.BUY))
    assert done.order.status == OrderStatus.FILLED
    fills = load_fills(desk.ledger)
    assert sum(f.amount for f in fills) == done.order.filled == done.order.amount
    assert {f.client_id for f in fills} == {done.order.client_id}
    assert done.order.cost <= Decimal("1001")


def test_executing_a_decision_again_sends_nothing(desk: PaperDesk):
    decision = desk.decide(Action.BUY)
    first, again = desk.execute(decision), desk.execute(decision)
    assert again.order == first.order
    assert len(desk.ccxt().fetch_orders(desk.bot.symbol)) == 1


def test_a_decision_of_another_bot_is_refused(desk: PaperDesk):
    decision = replace(desk.decide(Action.BUY), bot="another")
    with pytest.raises(InvalidInput, match="another's"):
        execute_decision(
            desk.ledger, desk.venue(), desk.settings.limits, desk.bot, decision, decision.run
        )
    assert load_orders(desk.ledger) == []


def test_a_sale_gives_up_the_whole_position_but_dust(desk: PaperDesk):
    desk.trade(Action.BUY)
    desk.trade(Action.SELL, "1")
    position = load_position(desk.ledger, desk.bot.name, desk.bot.symbol)
    assert position.amount < Decimal("0.00001")
    assert desk.reconcile().agrees


def test_the_order_is_in_the_ledger_before_it_is_sent(desk: PaperDesk, monkeypatch):
    venue, seen = desk.venue(), []
    send = venue.submit_order

    def look_then_send(*arguments):
        seen.extend(load_orders(desk.ledger))
        return send(*arguments)

    monkeypatch.setattr(venue, "submit_order", look_then_send)
    desk.execute(desk.decide(Action.BUY), venue)
    assert [order.status for order in seen] == [OrderStatus.SUBMITTED]


def play(desk: PaperDesk, kind: str, path: str = "POST order", count: int = 1, **options):
    """Let the exchange play a fault on the next requests of a kind."""
    script = [{"kind": kind, "on": path, "count": count}]
    desk.paper.control("faults", script=script, options=options)


@pytest.mark.parametrize("kind", ["accept_then_timeout", "accept_then_5xx", "accept_then_hang"])
def test_an_order_whose_answer_is_lost_is_looked_up_at_once(desk: PaperDesk, kind):
    play(desk, kind, hold_ms=10)
    decision = desk.decide(Action.BUY)
    done = desk.execute(decision)
    assert done.order.status == OrderStatus.FILLED
    assert done.order.fills_complete
    assert desk.execute(decision).order == done.order
    assert len(desk.ccxt().fetch_orders(desk.bot.symbol)) == 1
    assert [e for e in load_events(desk, done.order)] == [
        "PLANNED", "SUBMITTED", "UNRESOLVED", "FILLED",
    ]  # fmt: skip


def load_events(desk: PaperDesk, order):
    query = select(tables.order_events.c.status).where(
        tables.order_events.c.client_id == order.client_id
    )
    with desk.ledger.read() as books:
        return list(books.execute(query.order_by(tables.order_events.c.id)).scalars())


def test_an_order_that_may_exist_is_unresolved_and_not_sent_again(desk: PaperDesk):
    desk.paper.control(
        "faults",
        script=[{"kind": "accept_then_timeout", "on": "POST order", "count": 1},
                {"kind": "read_lag", "count": 1000}],
        options={"lag_ms": 60_000},
    )  # fmt: skip
    decision = desk.decide(Action.BUY)
    assert desk.execute(decision).order.status == OrderStatus.UNRESOLVED
    assert desk.execute(decision).order.status == OrderStatus.UNRESOLVED
    desk.paper.control("faults", script=[])
    assert desk.reconcile().agrees
    assert load_orders(desk.ledger)[0].status == OrderStatus.FILLED
    assert len(desk.ccxt().fetch_orders(desk.bot.symbol)) == 1


def give_up(desk: PaperDesk, order):
    """As if the venue's lag had passed and reconciliation had found nothing."""
    long_ago = utc_now() - 2 * desk.venue().visibility_lag
    with desk.ledger.write() as books:
        books.execute(tables.orders.update().values(sent_at=long_ago, updated_at=long_ago))
    assert desk.reconcile().agrees
    return load_order(desk.ledger, order.client_id)


def test_an_order_proven_absent_is_sent_again_under_its_next_attempt(desk: PaperDesk):
    play(desk, "refuse_5xx")
    decision = desk.decide(Action.BUY)
    lost = desk.execute(decision).order
    assert lost.status == OrderStatus.UNRESOLVED
    gone = give_up(desk, lost)
    assert (gone.status, gone.proven_absent) == (OrderStatus.REJECTED, True)
    again = desk.execute(decision).order
    assert (again.status, again.attempt) == (OrderStatus.FILLED, 1)
    assert again.client_id == client_order_id(decision.id, 0, 1)
    assert [o["clientOrderId"] for o in desk.ccxt().fetch_orders(desk.bot.symbol)] == [
        again.client_id
    ]


def test_an_order_is_sent_three_times_at_most(desk: PaperDesk):
    decision = desk.decide(Action.BUY)
    for _ in range(5):
        play(desk, "refuse_5xx")
        order = desk.execute(decision).order
        if order.status == OrderStatus.UNRESOLVED:
            give_up(desk, order)
    assert len(load_orders(desk.ledger)) == 3
    assert desk.ccxt().fetch_orders(desk.bot.symbol) == []


def test_a_plan_that_its_process_left_behind_is_sent_by_the_next_within_its_time(desk: PaperDesk):
    decision = desk.decide(Action.BUY)
    planned = plan_and_die(desk, decision)
    assert planned.status == OrderStatus.PLANNED
    done = desk.execute(decision).order
    assert (done.client_id, done.status) == (planned.client_id, OrderStatus.FILLED)


def test_a_plan_left_behind_too_long_is_dropped_and_made_anew(desk: PaperDesk):
    decision = desk.decide(Action.BUY)
    planned = plan_and_die(desk, decision)
    with desk.ledger.write() as books:
        books.execute(tables.orders.update().values(created_at=utc_now() - timedelta(minutes=1)))
    assert desk.reconcile().agrees
    assert load_order(desk.ledger, planned.client_id).status == OrderStatus.DENIED
    done = desk.execute(decision).order
    assert (done.attempt, done.status) == (1, OrderStatus.FILLED)
    assert len(desk.ccxt().fetch_orders(desk.bot.symbol)) == 1


class Died(BaseException):
    """Stands for a process that ends between two effects."""


def plan_and_die(desk: PaperDesk, decision):
    def die(*_):
        raise Died

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tradelib.trading.execution.submit_planned", die)
        with pytest.raises(Died):
            desk.execute(decision)
    return load_orders(desk.ledger)[0]


def test_a_halt_between_planning_and_sending_stops_the_order(desk: PaperDesk, monkeypatch):
    from tradelib.trading.placing import submit_planned

    def halt_then_send(*arguments):
        halt_trading(desk.ledger, "came between")
        return submit_planned(*arguments)

    monkeypatch.setattr("tradelib.trading.execution.submit_planned", halt_then_send)
    order = desk.execute(desk.decide(Action.BUY)).order
    assert order.status == OrderStatus.DENIED
    assert "came between" in order.reason
    assert desk.ccxt().fetch_orders(desk.bot.symbol) == []


def test_only_sales_go_while_trading_is_reducing(desk: PaperDesk):
    desk.trade(Action.BUY)
    halt_trading(desk.ledger, "winding down", TradingState.REDUCING)
    denied = desk.trade(Action.BUY)
    assert [refusal.limit_name for refusal in denied.refusals] == ["OnlyReducing"]
    assert desk.trade(Action.SELL, "1").order.status == OrderStatus.FILLED


def test_two_processes_do_not_trade_one_bot_at_a_time(desk: PaperDesk):
    decision = desk.decide(Action.BUY)
    elsewhere = lease(desk.ledger, bot_lease(desk.bot.name), "process 1 on elsewhere")
    with elsewhere, pytest.raises(LeaseHeld, match="process 1 on elsewhere"):
        desk.execute(decision)
    assert desk.execute(decision).order.status == OrderStatus.FILLED


def test_a_lease_from_before_the_clock_was_set_back_is_no_lease(desk: PaperDesk):
    decision = desk.decide(Action.BUY)
    take_lease(desk.ledger, bot_lease(desk.bot.name), "process 1 on elsewhere")
    with desk.ledger.write() as books:
        books.execute(tables.leases.update().values(expires_at=utc_now() + timedelta(hours=1)))
    assert desk.execute(decision).order.status == OrderStatus.FILLED


def test_an_execution_waits_for_a_lease_that_is_soon_given_back(desk: PaperDesk):
    decision = desk.decide(Action.BUY)
    held = take_lease(desk.ledger, bot_lease(desk.bot.name), "process 1 on elsewhere")
    giver = threading.Timer(0.3, release_lease, (desk.ledger, held))
    giver.start()
    bot, venue, limits = desk.bot, desk.venue(), desk.settings.limits
    done = execute_decision(
        desk.ledger, venue, limits, bot, decision, decision.run, patience=timedelta(seconds=20)
    )
    giver.join()
    assert done.order.status == OrderStatus.FILLED


def test_a_decision_that_came_at_a_busy_moment_may_be_tried_again(desk: PaperDesk):
    play(desk, "rate_limit")
    decision = desk.decide(Action.BUY)
    assert desk.execute(decision).order.status == OrderStatus.REJECTED
    assert desk.execute(decision).order.status == OrderStatus.FILLED
    assert len(desk.ccxt().fetch_orders(desk.bot.symbol)) == 1


def test_a_process_that_lost_its_lease_places_no_order(desk: PaperDesk, monkeypatch):
    from tradelib.trading.placing import submit_planned

    def lose_the_lease(*arguments):
        with desk.ledger.write() as books:
            books.execute(tables.leases.update().values(expires_at=utc_now()))
        take_lease(desk.ledger, bot_lease(desk.bot.name), "another run")
        return submit_planned(*arguments)

    monkeypatch.setattr("tradelib.trading.execution.submit_planned", lose_the_lease)
    with pytest.raises(LeaseLost, match="another run"):
        desk.execute(desk.decide(Action.BUY))
    assert desk.ccxt().fetch_orders(desk.bot.symbol) == []


def test_a_request_that_was_frozen_after_its_commit_is_refused_by_the_venue(desk: PaperDesk):
    decision = desk.decide(Action.BUY)
    venue = desk.venue()
    send = venue.submit_order
    late = timedelta(seconds=30)
    venue.submit_order = lambda request: send(
        replace(request, signed_at=request.signed_at - late)  # as if it had slept so long
    )
    order = desk.execute(decision, venue).order
    assert order.status == OrderStatus.REJECTED
    assert desk.ccxt().fetch_orders(desk.bot.symbol) == []


def test_the_books_of_one_account_take_no_order_for_another(desk: PaperDesk):
    with desk.ledger.write() as books:
        books.execute(tables.accounts.update().values(identity="binance api.binance.com"))
    with pytest.raises(InvalidInput, match=r"api\.binance\.com"):
        desk.execute(desk.decide(Action.BUY))
    with pytest.raises(InvalidInput, match="name of its own"):
        desk.reconcile()


def test_a_halt_denies_the_order_with_its_reason(desk: PaperDesk):
    halt_trading(desk.ledger, "spread looks wrong")
    done = desk.execute(desk.decide(Action.BUY))
    assert done.order.status == OrderStatus.DENIED
    assert [refusal.limit_name for refusal in done.refusals] == ["NotHalted"]
    assert "spread looks wrong" in done.order.reason
    assert desk.ccxt().fetch_orders(desk.bot.symbol) == []
    resume_trading(desk.ledger)
    desk.step()
    assert desk.execute(desk.decide(Action.BUY)).order.status == OrderStatus.FILLED


def test_a_halt_that_cannot_be_read_stops_the_order(desk: PaperDesk):
    decision = desk.decide(Action.BUY)
    with desk.ledger.write() as books:
        books.exec_driver_sql("ALTER TABLE halts RENAME TO halts_lost")
    with pytest.raises(StorageFailed):
        desk.execute(decision)
    assert desk.ccxt().fetch_orders(desk.bot.symbol) == []


@pytest.mark.parametrize(
    ("limits", "named"),
    [
        (LimitSettings(max_position_share="0.05"), "PositionShare"),
        (LimitSettings(max_trades_per_day=0), "TradesPerDay"),
        (LimitSettings(min_cash_share="0.95"), "CashReserve"),
        (LimitSettings(order_notional={"default": {"min": "5000"}}), "OrderNotional"),
        (LimitSettings(order_notional={"default": {"max": "500"}}), "OrderNotional"),
    ],
)
def test_a_limit_denies_the_order_and_the_refusal_is_recorded(desk: PaperDesk, limits, named):
    desk = replace(desk, settings=desk.settings.model_copy(update={"limits": limits}))
    decision = desk.decide(Action.BUY)
    done = desk.execute(decision)
    assert done.order.status == OrderStatus.DENIED
    assert named in [refusal.limit_name for refusal in done.refusals]
    assert sorted(map(str, desk.execute(decision).refusals)) == sorted(map(str, done.refusals))
    assert load_fills(desk.ledger) == []


def test_a_position_larger_than_the_largest_order_can_be_sold(desk: PaperDesk):
    for _ in range(2):
        desk.trade(Action.BUY)
    limits = LimitSettings(order_notional={"default": {"max": "1100"}})
    desk = replace(desk, settings=desk.settings.model_copy(update={"limits": limits}))
    assert desk.execute(desk.decide(Action.SELL, "1")).order.status == OrderStatus.FILLED


def test_an_order_costs_the_same_whatever_its_bot_ordered_on_other_days(desk: PaperDesk):
    done = desk.trade(Action.BUY, "0.01")
    desk.trade(Action.BUY, "0.01")
    wanted = desk.decide(Action.BUY, "0.01")
    before = desk.count_steps(lambda: desk.execute(wanted))
    desk.step()
    then = done.order.as_of - timedelta(days=30)
    desk.repeat(done.order, 2000, decision=None, as_of=then, created_at=then, updated_at=then)
    wanted = desk.decide(Action.BUY, "0.01")
    assert desk.count_steps(lambda: desk.execute(wanted)) <= 1.5 * before


def test_the_answer_to_an_order_names_its_fills_to_the_last_digit(desk: PaperDesk, monkeypatch):
    unasked = "tradelib.venue.client.Venue.fetch_order_trades"
    monkeypatch.setattr(unasked, lambda *_: pytest.fail("the fills were asked for"))
    for action in (Action.BUY, Action.SELL):
        order = desk.trade(action, "0.25").order
        assert (order.status, bool(order.fills_complete)) == (OrderStatus.FILLED, True)
    (symbol,) = {order.symbol for order in load_orders(desk.ledger)}
    theirs = desk.venue().fetch_trades_since(symbol, None)
    told = [(t.trade_id, t.price, t.amount, t.cost, t.fee, t.fee_currency, t.at) for t in theirs]
    mine = [
        (f.trade_id, f.price, f.amount, f.cost, f.fee, f.fee_currency, f.at)
        for f in sorted(load_fills(desk.ledger), key=lambda fill: int(fill.trade_id))
    ]
    assert mine == told
    assert desk.reconcile().agrees


def test_fills_that_are_not_booked_yet_still_count_against_the_limits(desk: PaperDesk, monkeypatch):
    # The answer names an order's fills; without one they are asked for.
    desk.paper.control("faults", script=[{"kind": "accept_then_5xx", "on": "POST order"}])
    monkeypatch.setattr("tradelib.venue.client.Venue.fetch_order_trades", lambda *_: [])
    assert desk.trade(Action.BUY, "0.25").order.status == OrderStatus.FILLED
    again = desk.trade(Action.BUY, "0.25")
    assert [refusal.limit_name for refusal in again.refusals] == ["OneAtATime", "PositionShare"]
    other = next(bot for bot in load_bots(desk.ledger) if bot.name != desk.bot.name)
    limits = LimitSettings(min_cash_share="0.6")
    desk = replace(desk, settings=desk.settings.model_copy(update={"limits": limits}))
    theirs = desk.execute(desk.decide(Action.BUY, "0.2", other))
    assert [refusal.limit_name for refusal in theirs.refusals] == ["CashReserve"]


def test_a_bot_waits_for_its_unresolved_order(desk: PaperDesk, monkeypatch):
    venue = desk.venue()

    def lose(*_):
        raise UnresolvedError("the answer was lost")

    monkeypatch.setattr(venue, "submit_order", lose)
    desk.execute(desk.decide(Action.BUY), venue)
    desk.step()
    denied = desk.execute(desk.decide(Action.BUY))
    assert [refusal.limit_name for refusal in denied.refusals] == ["OneAtATime"]


def test_a_process_that_was_held_up_does_not_send(desk: PaperDesk, monkeypatch):
    monkeypatch.setattr("tradelib.trading.placing.SEND_WITHIN", timedelta(seconds=-1))
    order = desk.execute(desk.decide(Action.BUY)).order
    assert order.status == OrderStatus.DENIED
    assert "not sent" in order.reason
    assert desk.ccxt().fetch_orders(desk.bot.symbol) == []


def test_a_kernel_that_outlived_its_run_places_no_order(desk: PaperDesk):
    decision = desk.decide(Action.BUY)
    finish_run(desk.ledger, decision.run, Outcome.FAILED, reason="it took too long")
    with pytest.raises(ReadOnly, match="is not running"):
        desk.execute(decision)
    assert load_orders(desk.ledger) == []


def test_limits_that_a_user_leaves_out_keep_their_defaults():
    limits = LimitSettings(order_notional={"USDT": {"max": "250"}})
    assert limits.notional_for("USDT").max == 250
    assert limits.notional_for("BTC").max == Decimal("0.5")
    assert limits.notional_for("EUR").max == 10_000


def test_a_stale_candle_denies_the_order(desk: PaperDesk):
    decision = desk.decide(Action.BUY)
    desk.step(5)
    done = desk.execute(decision)
    assert [refusal.limit_name for refusal in done.refusals] == ["FreshCandles"]


def test_a_decision_is_not_executed_once_a_newer_one_of_its_bot_was(desk: PaperDesk):
    """Found by `desk torture`: an older purchase, executed late, undid the newer sale."""
    desk.trade(Action.BUY)
    older = desk.decide(Action.BUY)
    desk.step()
    assert desk.execute(desk.decide(Action.SELL, "1")).order.status == OrderStatus.FILLED
    late = desk.execute(older)
    assert [refusal.limit_name for refusal in late.refusals] == ["NewestDecision"]
    assert late.order.status == OrderStatus.DENIED


def test_selling_what_is_not_held_is_denied(desk: PaperDesk):
    done = desk.execute(desk.decide(Action.SELL, "1"))
    assert done.order.status == OrderStatus.DENIED
    assert "VenueMinimum" in [refusal.limit_name for refusal in done.refusals]


def test_a_definite_rejection_is_final(desk: PaperDesk):
    decision = desk.decide(Action.BUY)
    # Somebody else spends the cash that the books still show.
    desk.ccxt().create_order("SOL/USDT", "market", "buy", 1, None, {"quoteOrderQty": "9500"})
    done = desk.execute(decision)
    assert done.order.status == OrderStatus.REJECTED
    assert "insufficient balance" in done.order.reason
    assert desk.execute(decision).order == done.order


def test_booked_balances_equal_the_venue_after_each_order(desk: PaperDesk):
    for action in (Action.BUY, Action.BUY, Action.SELL):
        desk.trade(action, "1" if action == Action.SELL else "0.1")
        actual = desk.venue().fetch_balances()
        for balance in load_balances(desk.ledger, desk.market.venue):
            found = actual.get(balance.asset)
            assert balance.booked == (found.free + found.used if found else 0)


def test_ids_are_the_same_on_every_machine_and_within_the_venues_rule():
    decision = decision_id("btc-weighted", datetime(2026, 1, 1, tzinfo=UTC))
    assert decision == "d-84554e27ddfdc7f9080fda"
    assert client_order_id(decision) == "nd-2eb90d8ded7aabb04c821"
    assert len({client_order_id(decision, leg, n) for leg in range(3) for n in range(3)}) == 9


def test_no_status_follows_a_final_one(desk: PaperDesk):
    order = desk.execute(desk.decide(Action.BUY)).order
    for status in set(OrderStatus) - {OrderStatus.FILLED}:
        with pytest.raises(StorageFailed, match="cannot go from FILLED"), desk.ledger.write() as b:
            change_order(b, order, status=status)
    assert all(status.final == (not LEGAL_CHANGES[status]) for status in OrderStatus)
    assert order.updated_at - order.created_at < timedelta(minutes=1)
